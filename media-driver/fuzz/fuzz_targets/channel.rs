//! What the driver makes of a channel: parameters within their limits or a refusal, and addresses of one family,
//! whatever the names in it mean.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use fulmar::id::{SessionId, TermId};
use fulmar::uri::{ChannelUri, Role};
use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::config::{DriverContext, PublicationParams, SubscriptionParams, TaggedPublication};
use fulmar_media_driver::io::NetworkInterface;
use fulmar_media_driver::media::resolver::{NameAnswer, NameFault, Resolution};
use fulmar_media_driver::media::udp_channel::{ChannelSpec, UdpChannel};
use fulmar_media_driver::protocol::flow_control::FlowControl;
use libfuzzer_sys::fuzz_target;

const PREFIXES: [&str; 8] = [
    "aeron:ipc?",
    "aeron:udp?",
    "aeron:udp?endpoint=",
    "aeron:udp?endpoint=224.0.1.1:1|interface=",
    "aeron:udp?control=h:1|control-mode=dynamic|",
    "aeron:udp?endpoint=[::1]:1|",
    "aeron-spy:aeron:udp?endpoint=h:1|",
    "aeron:udp?control-mode=manual|",
];

static CONTEXT: LazyLock<DriverContext> = LazyLock::new(|| {
    DriverSettings::defaults()
        .conclude()
        .expect("the defaults are valid")
});

fn interface(name: &str, index: u32, address: IpAddr, prefix_length: u8) -> NetworkInterface {
    NetworkInterface {
        name: name.to_owned(),
        index,
        address,
        prefix_length,
        is_up: true,
        is_loopback: index == 1,
        is_multicast: index != 1,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let mut text = PREFIXES[usize::from(first) % PREFIXES.len()].as_bytes().to_vec();
    text.extend_from_slice(rest);
    let Ok(uri) = ChannelUri::parse_bytes(&text) else {
        return;
    };
    let context = &*CONTEXT;
    if let Ok(params) = PublicationParams::from_uri(&uri, context) {
        assert!(params.term_length >= 65_536 && params.term_length.count_ones() == 1);
        assert!(params.mtu_length > 32 && params.mtu_length <= 65_504 && params.mtu_length % 32 == 0);
        assert!(params.publication_window_length > 0);
        assert!(params.publication_window_length <= params.term_length / 2);
        assert!((0..=256).contains(&params.max_resend));
        assert!((0..=i64::MAX / 2).contains(&params.linger_timeout_ns));
        if let Some(start) = params.position {
            assert!(start.position(params.term_length) >= 0);
            assert!(start.term_offset <= params.term_length && start.term_offset % 32 == 0);
        }
        // Whoever asks again for the publication that a channel made shares it.
        let mut made = params.clone();
        let session_id = params.session_id.unwrap_or(SessionId(5));
        made.settle(session_id, TermId(6));
        assert_eq!(made.check_clash(&params, session_id), Ok(()));
    }
    let tagged = TaggedPublication {
        session_id: SessionId(7),
        mtu_length: 4096,
        term_length: 1 << 20,
    };
    if let Ok(params) = PublicationParams::from_uri_with(&uri, context, |_| Some(tagged))
        && uri.get("session-id").is_some_and(|id| id.starts_with("tag:"))
    {
        assert_eq!(params.session_id, Some(tagged.session_id));
        assert_eq!(
            (params.mtu_length, params.term_length),
            (tagged.mtu_length, tagged.term_length)
        );
    }
    if let Ok(params) = SubscriptionParams::from_uri(&uri, context) {
        assert!(params.receiver_window_length >= 0);
        assert!((0..=i64::MAX / 2).contains(&params.untethered.linger_ns));
        assert_eq!(params.check_clash(&params), Ok(()));
    }
    if let Ok(flow_control) = uri.params().flow_control() {
        let _ = FlowControl::group(flow_control.as_ref(), context);
    }
    for role in [
        Role::Publication,
        Role::Subscription,
        Role::SendDestination,
        Role::ReceiveDestination,
    ] {
        let Ok(spec) = ChannelSpec::from_uri(&uri, role) else {
            continue;
        };
        let names = spec.names();
        assert!(names.len() <= 3);
        assert_eq!(
            spec.is_self_contained(),
            names.is_empty() && !spec.needs_interfaces()
        );
        // The answers differ with the first byte: one family, the other, a multicast group, none.
        let result = match first >> 6 {
            0 => Ok(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))),
            1 => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            2 if first & 8 != 0 => Ok(IpAddr::V6(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 3))),
            2 => Ok(IpAddr::V4(Ipv4Addr::new(224, 0, 1, 3))),
            _ => Err(NameFault {
                reason: "unknown".to_owned(),
            }),
        };
        let answer = |request| NameAnswer {
            request,
            result: result.clone(),
        };
        let resolution = Resolution {
            answers: names.into_iter().map(answer).collect(),
            interfaces: vec![
                interface("lo", 1, IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
                interface("eth0", 2, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 24),
                interface(
                    "eth0",
                    2,
                    IpAddr::V6(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 2)),
                    64,
                ),
            ],
        };
        if let Ok(channel) = UdpChannel::resolve(spec, &resolution, 17) {
            assert_eq!(channel.remote_data.is_ipv4(), channel.local_data.is_ipv4());
            assert_eq!(channel.remote_data.is_ipv4(), channel.remote_control.is_ipv4());
            assert!(!channel.canonical_form.is_empty());
            assert!(channel.is_shared_by(&channel));
            assert_eq!(
                channel.matches_tag(&channel, channel.local_data),
                Ok(channel.tag.is_some())
            );
            if let Some(destination) = channel.unicast_destination() {
                assert!(!channel.is_multicast && destination == channel.remote_data);
            }
            assert!(!channel.is_multicast || channel.interface.is_some());
            let _ = (channel.send_bind_address(), channel.receive_bind_address());
        }
    }
});
