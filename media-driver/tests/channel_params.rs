//! Parameters of channels against the tables of the specification (13.3, 13.5): defaults, settings as defaults,
//! limits, and what may share a publication.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a helper is a failed test")]

use fulmar::control::ErrorCode;
use fulmar::id::{SessionId, TermId};
use fulmar::uri::{ChannelUri, CongestionControl, Group, TimestampOffset};
use fulmar_media_driver::config::{
    DriverContext, DriverSettings, ParamsError, PublicationParams, SubscriptionParams, TaggedPublication,
};

const UDP: &str = "aeron:udp?endpoint=localhost:40123";
const SECOND: i64 = 1_000_000_000;
const CENTURY: i64 = 100 * 365 * 24 * 3600 * SECOND;

fn context(pairs: &[(&str, &str)]) -> DriverContext {
    let mut settings = DriverSettings::defaults();
    for (key, value) in pairs {
        settings.set(key, value).unwrap();
    }
    settings.conclude().unwrap()
}

fn publication_with(channel: &str, pairs: &[(&str, &str)]) -> Result<PublicationParams, ParamsError> {
    PublicationParams::from_uri(&ChannelUri::parse(channel).unwrap(), &context(pairs))
}

fn publication(channel: &str) -> Result<PublicationParams, ParamsError> {
    publication_with(channel, &[])
}

fn subscription_with(channel: &str, pairs: &[(&str, &str)]) -> Result<SubscriptionParams, ParamsError> {
    SubscriptionParams::from_uri(&ChannelUri::parse(channel).unwrap(), &context(pairs))
}

fn subscription(channel: &str) -> Result<SubscriptionParams, ParamsError> {
    subscription_with(channel, &[])
}

#[test]
fn an_ipc_publication_has_the_defaults_of_ipc() {
    let params = publication("aeron:ipc").unwrap();
    assert!(!params.is_network);
    assert_eq!(params.term_length, 64 << 20);
    assert_eq!(params.mtu_length, 1408);
    assert_eq!((params.session_id, params.position), (None, None));
    assert_eq!(params.publication_window_length, 32 << 20);
    assert_eq!(params.max_resend, 0);
    assert_eq!((params.entity_tag, params.response_correlation_id), (-1, -1));
    assert_eq!(params.linger_timeout_ns, 5 * SECOND);
    assert_eq!(params.untethered.window_limit_ns, 5 * SECOND);
    assert_eq!(params.untethered.linger_ns, 5 * SECOND);
    assert_eq!(params.untethered.resting_ns, 10 * SECOND);
    assert!(!params.is_response);
    assert!(params.sparse);
    assert!(params.signal_eos);
    assert!(!params.spies_simulate_connection);
    assert_eq!((params.socket_sndbuf_length, params.socket_rcvbuf_length), (0, 0));
}

#[test]
fn a_network_publication_has_the_defaults_of_the_network() {
    let params = publication(UDP).unwrap();
    assert!(params.is_network);
    assert_eq!((params.term_length, params.mtu_length), (16 << 20, 1408));
    assert_eq!(params.publication_window_length, 8 << 20);
    assert_eq!(
        (params.socket_sndbuf_length, params.socket_rcvbuf_length),
        (0, 128 << 10)
    );
}

#[test]
fn settings_are_the_defaults_of_publications() {
    let pairs = [
        ("aeron.term.buffer.length", "1m"),
        ("aeron.ipc.term.buffer.length", "2m"),
        ("aeron.mtu.length", "4k"),
        ("aeron.ipc.mtu.length", "8k"),
        ("aeron.publication.term.window.length", "64k"),
        ("aeron.ipc.publication.term.window.length", "128k"),
        ("aeron.publication.linger.timeout", "3s"),
        ("aeron.untethered.window.limit.timeout", "2s"),
        ("aeron.untethered.resting.timeout", "4s"),
        ("aeron.term.buffer.sparse.file", "off"),
        ("aeron.spies.simulate.connection", "on"),
        ("aeron.socket.so_sndbuf", "64k"),
    ];
    let ipc = publication_with("aeron:ipc", &pairs).unwrap();
    assert_eq!(
        (ipc.term_length, ipc.mtu_length, ipc.publication_window_length),
        (2 << 20, 8192, 128 << 10)
    );
    assert_eq!(ipc.linger_timeout_ns, 3 * SECOND);
    assert_eq!(
        (ipc.untethered.window_limit_ns, ipc.untethered.linger_ns),
        (2 * SECOND, 2 * SECOND)
    );
    assert_eq!(ipc.untethered.resting_ns, 4 * SECOND);
    assert!(!ipc.sparse);
    assert!(ipc.spies_simulate_connection);
    assert_eq!(ipc.socket_sndbuf_length, 0);
    let udp = publication_with(UDP, &pairs).unwrap();
    assert_eq!(
        (udp.term_length, udp.mtu_length, udp.publication_window_length),
        (1 << 20, 4096, 64 << 10)
    );
    assert_eq!(udp.socket_sndbuf_length, 64 << 10);
    let linger = publication_with("aeron:ipc", &[("aeron.untethered.linger.timeout", "7s")]).unwrap();
    assert_eq!(linger.untethered.linger_ns, 7 * SECOND);
}

#[test]
fn the_channel_wins_over_the_settings() {
    let channel = "aeron:ipc?term-length=64k|mtu=2k|session-id=-7|init-term-id=3|term-id=5|term-offset=64|\
                   pub-wnd=16k|max-resend=9|tags=1,77|linger=2s|eos=false|ssc=true|sparse=false|\
                   untethered-window-limit-timeout=1s|untethered-linger-timeout=2s|untethered-resting-timeout=3s|\
                   response-correlation-id=12|control-mode=response|alias=x|unknown=y";
    let params = publication(channel).unwrap();
    assert_eq!((params.term_length, params.mtu_length), (65536, 2048));
    assert_eq!(params.session_id, Some(SessionId(-7)));
    let start = params.position.unwrap();
    assert_eq!(
        (start.initial_term_id, start.term_id, start.term_offset),
        (TermId(3), TermId(5), 64)
    );
    assert_eq!((params.publication_window_length, params.max_resend), (16384, 9));
    assert_eq!((params.entity_tag, params.response_correlation_id), (77, 12));
    assert_eq!(params.linger_timeout_ns, 2 * SECOND);
    assert!(!params.signal_eos && params.spies_simulate_connection && !params.sparse && params.is_response);
    assert_eq!(params.untethered.window_limit_ns, SECOND);
    assert_eq!(params.untethered.linger_ns, 2 * SECOND);
    assert_eq!(params.untethered.resting_ns, 3 * SECOND);
    // A linger timeout that the channel leaves out follows the channel's own window limit.
    let follows = publication("aeron:ipc?untethered-window-limit-timeout=9s").unwrap();
    assert_eq!(follows.untethered.linger_ns, 9 * SECOND);
}

#[test]
fn channels_that_the_field_uses_are_taken() {
    for channel in [
        "aeron:ipc?so-rcvbuf=32k|alias=test|term-length=64k|mtu=2048",
        "aeron:ipc?tags=abc",
        "aeron:ipc?",
        "aeron:ipc?abc",
        "aeron:ipc?a=b|a=c",
        "aeron:ipc?mtu=65504|term-length=64k",
        "aeron:ipc?control-mode=nonsense",
        "aeron:udp?control-mode=manual",
        "aeron:udp?endpoint=localhost:40123|control-mode=dynamic|control=localhost:40124",
    ] {
        assert!(
            publication(channel).is_ok(),
            "{channel}: {:?}",
            publication(channel)
        );
        assert!(
            subscription(channel).is_ok(),
            "{channel}: {:?}",
            subscription(channel)
        );
    }
    for channel in [
        "aeron:udp?mtu=8|rcv-wnd=64k|control-mode=response",
        "aeron:udp?control-mode=manual|endpoint=localhost:0",
        "aeron-spy:aeron:udp?endpoint=localhost:40123",
        "aeron:ipc?mtu=8|term-length=3|eos=maybe",
    ] {
        assert!(
            subscription(channel).is_ok(),
            "{channel}: {:?}",
            subscription(channel)
        );
    }
}

#[test]
fn channels_that_no_publication_can_have_are_invalid_channels() {
    for channel in [
        "aeron-spy:aeron:udp?endpoint=localhost:40123",
        "aeron:udp?alias=x",
        "aeron:udp?control-mode=dynamic|endpoint=localhost:1",
    ] {
        let error = publication(channel).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidChannel, "{channel}: {error}");
        assert!(error.text.contains(channel), "{error}");
    }
    let error = subscription("aeron:udp?alias=x").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidChannel);
}

#[test]
fn every_bad_value_of_a_publication_is_a_generic_error_that_names_it() {
    for bad in [
        "term-length=0",
        "term-length=32k",
        "term-length=100000",
        "term-length=2g",
        "term-length=abc",
        "mtu=0",
        "mtu=32",
        "mtu=1500",
        "mtu=65536",
        "mtu=x",
        "session-id=abc",
        "session-id=2147483648",
        "session-id=tag:x",
        "session-id=tag:5",
        "linger=5x",
        "linger=-1",
        "eos=yes",
        "ssc=1",
        "sparse=no",
        "max-resend=0",
        "max-resend=257",
        "max-resend=x",
        "pub-wnd=1k",
        "pub-wnd=33m",
        "pub-wnd=x",
        "untethered-window-limit-timeout=x",
        "untethered-linger-timeout=x",
        "untethered-resting-timeout=x",
        "response-correlation-id=x",
        "response-correlation-id=-3",
        "so-sndbuf=x",
        "so-rcvbuf=-1",
    ] {
        let channel = format!("aeron:ipc?alias=a|{bad}");
        let error = publication(&channel).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{channel}");
        let key = bad.split('=').next().unwrap();
        assert!(
            error.text.contains(key) && error.text.contains(&channel),
            "{error}"
        );
        assert_eq!(publication(&channel).unwrap_err(), error, "repeats read alike");
    }
}

#[test]
fn an_initial_position_is_complete_consistent_and_within_the_term_it_gets() {
    for bad in [
        "init-term-id=1",
        "term-id=1",
        "term-offset=0",
        "init-term-id=1|term-id=1",
        "init-term-id=1|term-offset=0",
        "term-id=1|term-offset=0",
        "init-term-id=2|term-id=1|term-offset=0",
        "init-term-id=1|term-id=1|term-offset=33",
        "init-term-id=1|term-id=1|term-offset=-32",
        "init-term-id=1|term-id=1|term-offset=65568|term-length=64k",
        "init-term-id=x|term-id=1|term-offset=0",
        "init-term-id=-2147483648|term-id=2147483647|term-offset=0",
    ] {
        let error = publication(&format!("aeron:ipc?{bad}")).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{bad}");
    }
    // The limit of the offset is that of the term length in force, also when the settings give it.
    let beyond = "aeron:ipc?init-term-id=1|term-id=1|term-offset=65568";
    assert!(publication(beyond).is_ok());
    assert!(publication_with(beyond, &[("aeron.ipc.term.buffer.length", "64k")]).is_err());
    let wrapped = "aeron:ipc?init-term-id=2147483647|term-id=-2147483648|term-offset=65536|term-length=64k";
    let start = publication(wrapped).unwrap().position.unwrap();
    assert_eq!(start.position(65536), 131_072);
}

#[test]
fn the_window_is_at_most_half_a_term_and_at_least_the_mtu() {
    let window = |channel: &str, pairs: &[(&str, &str)]| {
        publication_with(channel, pairs).map(|params| params.publication_window_length)
    };
    let setting = |value| [("aeron.ipc.publication.term.window.length", value)];
    assert_eq!(window("aeron:ipc?term-length=64k", &[]), Ok(32768));
    assert_eq!(window("aeron:ipc?term-length=64k|pub-wnd=32k", &[]), Ok(32768));
    assert_eq!(window("aeron:ipc?term-length=64k|pub-wnd=1408", &[]), Ok(1408));
    assert!(window("aeron:ipc?term-length=64k|pub-wnd=1407", &[]).is_err());
    assert!(window("aeron:ipc?term-length=64k|pub-wnd=32769", &[]).is_err());
    assert!(window("aeron:ipc?term-length=64k|mtu=4k|pub-wnd=2k", &[]).is_err());
    assert_eq!(window("aeron:ipc?term-length=64k", &setting("16k")), Ok(16384));
    assert_eq!(window("aeron:ipc?term-length=64k", &setting("1m")), Ok(32768));
    assert_eq!(
        window("aeron:ipc?term-length=64k|pub-wnd=8k", &setting("16k")),
        Ok(8192)
    );
}

#[test]
fn huge_durations_can_still_be_added_to_any_time() {
    let max = i64::MAX;
    let channel = format!(
        "aeron:ipc?linger={max}|untethered-window-limit-timeout={max}|untethered-linger-timeout={max}|\
         untethered-resting-timeout={max}"
    );
    let params = publication(&channel).unwrap();
    let untethered = params.untethered;
    for nanos in [
        params.linger_timeout_ns,
        untethered.window_limit_ns,
        untethered.linger_ns,
        untethered.resting_ns,
    ] {
        assert_eq!(nanos, CENTURY);
    }
}

#[test]
fn network_publications_have_limits_of_their_own() {
    let above = publication("aeron:udp?endpoint=localhost:1|mtu=8k|so-sndbuf=4k").unwrap_err();
    assert_eq!(above.code, ErrorCode::GenericError);
    assert!(above.text.contains("so-sndbuf=4096"), "{above}");
    assert!(publication("aeron:udp?endpoint=localhost:1|mtu=8k|so-sndbuf=8k").is_ok());
    assert!(publication("aeron:ipc?mtu=8k|so-sndbuf=4k").is_ok());
    let unnamed = publication("aeron:udp?control-mode=response|control=localhost:1").unwrap_err();
    assert_eq!(unnamed.code, ErrorCode::GenericError);
    let prototype = "control-mode=response|response-correlation-id=prototype|term-length=1m";
    let network = publication(&format!("aeron:udp?control=localhost:1|{prototype}")).unwrap();
    assert_eq!(
        (network.term_length, network.response_correlation_id),
        (65536, -2)
    );
    let ipc = publication(&format!("aeron:ipc?{prototype}")).unwrap();
    assert_eq!((ipc.term_length, ipc.response_correlation_id), (1 << 20, -2));
    for bad in [
        "endpoint=localhost",
        "endpoint=localhost:65536",
        "endpoint=a:1|ttl=-1",
        "endpoint=a:1|channel-snd-ts-offset=x",
    ] {
        let error = publication(&format!("aeron:udp?{bad}")).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{bad}");
    }
}

#[test]
fn a_tag_as_session_id_copies_the_identity_of_the_publication_it_names() {
    let tagged = TaggedPublication {
        session_id: SessionId(42),
        mtu_length: 2048,
        term_length: 1 << 20,
    };
    let read = |channel: &str| {
        let find = |tag| (tag == 5).then_some(tagged);
        PublicationParams::from_uri_with(&ChannelUri::parse(channel).unwrap(), &context(&[]), find)
    };
    let copied = read("aeron:ipc?session-id=tag:5").unwrap();
    assert_eq!(copied.session_id, Some(SessionId(42)));
    assert_eq!((copied.mtu_length, copied.term_length), (2048, 1 << 20));
    assert_eq!(copied.publication_window_length, 512 << 10);
    assert!(read("aeron:ipc?session-id=tag:5|mtu=2048|term-length=1m").is_ok());
    assert!(
        read("aeron:ipc?session-id=tag:5|mtu=1408")
            .unwrap_err()
            .text
            .contains("mtu=1408")
    );
    assert!(
        read("aeron:ipc?session-id=tag:5|term-length=64k")
            .unwrap_err()
            .text
            .contains("term-length")
    );
    assert!(
        read("aeron:ipc?session-id=tag:6")
            .unwrap_err()
            .text
            .contains("tag:6")
    );
}

#[test]
fn a_shared_publication_has_to_equal_what_the_channel_gives() {
    let mut existing = publication("aeron:ipc?term-length=64k|mtu=2k").unwrap();
    existing.settle(SessionId(7), TermId(100));
    let clash = |channel: &str| existing.check_clash(&publication(channel).unwrap(), SessionId(7));
    for channel in [
        "aeron:ipc",
        "aeron:ipc?term-length=64k",
        "aeron:ipc?mtu=2048",
        "aeron:ipc?session-id=7",
        "aeron:ipc?term-length=64k|init-term-id=100|term-id=100|term-offset=0",
        "aeron:ipc?linger=1s|eos=false|sparse=false|pub-wnd=8k|tags=1,2|max-resend=3",
        "aeron:ipc?ssc=true",
    ] {
        assert_eq!(clash(channel), Ok(()), "{channel}");
    }
    for (channel, named) in [
        ("aeron:ipc?term-length=128k", "term-length=131072"),
        ("aeron:ipc?mtu=1408", "mtu=1408"),
        ("aeron:ipc?session-id=8", "session-id=8"),
        (
            "aeron:ipc?term-length=64k|init-term-id=99|term-id=100|term-offset=0",
            "init-term-id=99",
        ),
        (
            "aeron:ipc?term-length=64k|init-term-id=100|term-id=101|term-offset=0",
            "term-id=101",
        ),
        (
            "aeron:ipc?term-length=64k|init-term-id=100|term-id=100|term-offset=32",
            "term-offset=32",
        ),
    ] {
        let error = clash(channel).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{channel}");
        assert!(error.text.starts_with(named), "{error}");
    }
}

#[test]
fn a_start_given_in_the_channel_is_kept_when_settled() {
    let mut existing = publication("aeron:ipc?init-term-id=3|term-id=5|term-offset=64").unwrap();
    existing.settle(SessionId(1), TermId(999));
    assert_eq!(existing.session_id, Some(SessionId(1)));
    let start = existing.position.unwrap();
    assert_eq!(
        (start.initial_term_id, start.term_id, start.term_offset),
        (TermId(3), TermId(5), 64)
    );
    let open = publication("aeron:ipc").unwrap();
    let error = open.check_clash(&existing, SessionId(1)).unwrap_err();
    assert!(error.text.contains("init-term-id=3"), "{error}");
}

#[test]
fn spies_simulating_a_connection_clash_on_the_network_only() {
    let existing = publication(UDP).unwrap();
    let asked = publication(&format!("{UDP}|ssc=true")).unwrap();
    assert!(
        existing
            .check_clash(&asked, SessionId(1))
            .unwrap_err()
            .text
            .contains("ssc=true")
    );
    let same = publication(&format!("{UDP}|ssc=false")).unwrap();
    assert_eq!(existing.check_clash(&same, SessionId(1)), Ok(()));
}

#[test]
fn a_subscription_has_the_settings_as_defaults() {
    let params = subscription("aeron:ipc").unwrap();
    assert_eq!(params.session_id, None);
    assert!(params.tether && params.rejoin && params.reliable && params.sparse && !params.is_response);
    assert_eq!((params.group, params.group_tag), (Group::Infer, None));
    assert_eq!(params.receiver_window_length, 128 << 10);
    assert_eq!(params.response_correlation_id, -1);
    assert_eq!(params.untethered.linger_ns, 5 * SECOND);
    assert_eq!(params.socket_rcvbuf_length, 0);
    let pairs = [
        ("aeron.tether.subscriptions", "off"),
        ("aeron.rejoin.stream", "off"),
        ("aeron.reliable.stream", "off"),
        ("aeron.receiver.group.consideration", "false"),
        ("aeron.receiver.group.tag", "9"),
        ("aeron.rcv.initial.window.length", "64k"),
        ("aeron.term.buffer.sparse.file", "off"),
    ];
    let params = subscription_with(UDP, &pairs).unwrap();
    assert!(!params.tether && !params.rejoin && !params.reliable && !params.sparse);
    assert_eq!((params.group, params.group_tag), (Group::False, Some(9)));
    assert_eq!(
        (params.receiver_window_length, params.socket_rcvbuf_length),
        (64 << 10, 128 << 10)
    );
    let forced = subscription_with(UDP, &[("aeron.receiver.group.consideration", "true")]).unwrap();
    assert_eq!(forced.group, Group::True);
}

#[test]
fn the_channel_of_a_subscription_wins_over_the_settings() {
    let channel = "aeron:udp?endpoint=localhost:1|session-id=5|tether=false|rejoin=false|reliable=false|group=true|\
                   gtag=3|rcv-wnd=64k|cc=cubic|nak-delay=1ms|sparse=false|so-sndbuf=8k|so-rcvbuf=64k|\
                   media-rcv-ts-offset=reserved|channel-rcv-ts-offset=8|response-correlation-id=4|\
                   untethered-window-limit-timeout=2s";
    let params = subscription(channel).unwrap();
    assert_eq!(params.session_id, Some(SessionId(5)));
    assert!(!params.tether && !params.rejoin && !params.reliable && !params.sparse);
    assert_eq!((params.group, params.group_tag), (Group::True, Some(3)));
    assert_eq!(params.receiver_window_length, 65536);
    assert_eq!(params.congestion_control, Some(CongestionControl::Cubic));
    assert_eq!(params.nak_delay_ns, Some(1_000_000));
    assert_eq!(
        (params.socket_sndbuf_length, params.socket_rcvbuf_length),
        (8192, 65536)
    );
    assert_eq!(params.media_receive_timestamp, Some(TimestampOffset::Reserved));
    assert_eq!(
        params.channel_receive_timestamp,
        Some(TimestampOffset::Payload(8))
    );
    assert_eq!(params.response_correlation_id, 4);
    assert_eq!(params.untethered.linger_ns, 2 * SECOND);
    let response = subscription("aeron:ipc?control-mode=response").unwrap();
    assert!(response.is_response);
}

#[test]
fn every_bad_value_of_a_subscription_is_a_generic_error_that_names_it() {
    for bad in [
        "session-id=abc",
        "session-id=tag:5",
        "tether=1",
        "rejoin=x",
        "reliable=x",
        "rcv-wnd=x",
        "sparse=x",
        "gtag=x",
        "cc=x",
        "nak-delay=x",
        "so-rcvbuf=x",
        "untethered-window-limit-timeout=x",
        "untethered-linger-timeout=x",
        "untethered-resting-timeout=x",
        "response-correlation-id=x",
    ] {
        let error = subscription(&format!("{UDP}|{bad}")).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{bad}");
        let key = bad.split('=').next().unwrap();
        assert!(error.text.contains(key), "{error}");
    }
    let window = subscription(&format!("{UDP}|rcv-wnd=256k")).unwrap_err();
    assert_eq!(window.code, ErrorCode::GenericError);
    assert!(
        window.text.contains("rcv-wnd=262144") && window.text.contains("so-rcvbuf=131072"),
        "{window}"
    );
    assert!(subscription(&format!("{UDP}|rcv-wnd=256k|so-rcvbuf=256k")).is_ok());
    assert!(subscription(&format!("{UDP}|rcv-wnd=64k|so-rcvbuf=0")).is_ok());
}

#[test]
fn subscriptions_of_one_stream_agree_on_how_it_is_received() {
    let existing = subscription(UDP).unwrap();
    for (bad, named) in [
        ("reliable=false", "reliable"),
        ("rejoin=false", "rejoin"),
        ("control-mode=response", "control-mode"),
    ] {
        let asked = subscription(&format!("{UDP}|{bad}")).unwrap();
        let error = existing.check_clash(&asked).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError);
        assert!(error.text.contains(named), "{error}");
    }
    assert_eq!(
        existing.check_clash(&subscription(&format!("{UDP}|tether=false")).unwrap()),
        Ok(())
    );
}
