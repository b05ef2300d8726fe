use fulmar::counters::SystemCounter as C;
use fulmar::log::{AppendOutcome, NoReservedValue};
use fulmar::wire::{DataHeader, FrameKind, classify};

use super::*;
use crate::protocol::flow_control::{MinFlowControl, Strategy};
use crate::stream::fixtures::{
    Fixture, INITIAL_TERM, MS, MTU, Options, RECEIVER, SESSION, STREAM, TERM, asking, at, leaving, limits,
    nak, peer, status,
};

const HALF: i32 = TERM / 2;

fn setups(datagrams: &[Vec<u8>]) -> Vec<Setup> {
    datagrams
        .iter()
        .filter_map(|datagram| Setup::parse(datagram).ok())
        .collect()
}

fn is_setup(datagrams: &[Vec<u8>]) -> bool {
    setups(datagrams).len() == 1 && datagrams.len() == 1
}

fn heartbeat(datagrams: &[Vec<u8>]) -> Option<DataHeader> {
    match datagrams {
        [datagram] if fulmar::wire::is_heartbeat(datagram) => DataHeader::parse(datagram),
        _ => None,
    }
}

fn lengths(datagrams: &[Vec<u8>]) -> Vec<usize> {
    datagrams.iter().map(Vec::len).collect()
}

fn group(flow_control: FlowControl) -> Options {
    Options {
        traits: SenderTraits {
            has_group_semantics: true,
            signal_eos: true,
            ..SenderTraits::default()
        },
        flow_control,
        ..Options::default()
    }
}

// SETUP (wire protocol 3.3)

#[test]
fn setups_go_out_more_than_100_ms_apart_until_the_first_connection() {
    let mut fixture = Fixture::new();
    assert!(is_setup(&fixture.send(0)), "the first one at once");
    assert!(fixture.send(100 * MS).is_empty(), "exactly 100 ms is too early");
    assert_eq!(fixture.sender.next_deadline(at(100 * MS)), at(100 * MS + 1));
    assert!(is_setup(&fixture.send(100 * MS + 1)));
    assert!(is_setup(&fixture.send(1000 * MS)));
    fixture.connect(1001 * MS, 0);
    for ms in (1100..10_000).step_by(10) {
        assert!(
            setups(&fixture.send(ms * MS)).is_empty(),
            "connected once is connected for good"
        );
    }
}

#[test]
fn a_setup_says_where_the_sender_stands() {
    let start = 2 * i64::from(TERM) + 64;
    let mut fixture = Fixture::with(Options {
        start,
        ..Options::default()
    });
    let [setup] = setups(&fixture.send(0))[..] else {
        panic!("one SETUP")
    };
    assert_eq!(setup.flags, 0);
    assert_eq!((setup.session_id, setup.stream_id), (SESSION, STREAM));
    assert_eq!(setup.initial_term_id.0, -5);
    assert_eq!((setup.active_term_id.0, setup.term_offset), (-3, 64));
    assert_eq!((setup.term_length, setup.mtu, setup.ttl), (TERM, MTU, 0));
}

#[test]
fn a_position_at_the_end_of_a_term_is_the_start_of_the_next() {
    let fixture = Fixture::with(Options {
        start: i64::from(TERM),
        ..Options::default()
    });
    let setup = fixture.sender.setup_frame();
    assert_eq!((setup.active_term_id.0, setup.term_offset), (-4, 0));
}

#[test]
fn the_flags_of_a_setup_tell_groups_and_requests() {
    let flags = |options: Options| Fixture::with(options).sender.setup_frame().flags;
    assert_eq!(flags(group(FlowControl::new(Strategy::Max, 4))), 0x40);
    let request = Options {
        response_correlation_id: 5,
        ..Options::default()
    };
    assert_eq!(flags(request), 0x80);
    let response = Options {
        response_correlation_id: 5,
        traits: SenderTraits {
            is_response: true,
            ..SenderTraits::default()
        },
        ..Options::default()
    };
    assert_eq!(flags(response), 0);
}

#[test]
fn a_connected_publication_sends_a_setup_when_asked_and_only_then() {
    let mut fixture = Fixture::new();
    fixture.send(0);
    fixture.connect(0, 0);
    fixture.status(150 * MS, &asking());
    assert_eq!(setups(&fixture.send(150 * MS)).len(), 1);
    assert!(setups(&fixture.send(400 * MS)).is_empty(), "it was answered");
    fixture.status(401 * MS, &asking());
    fixture.send(401 * MS);
    fixture.status(402 * MS, &asking());
    assert!(
        setups(&fixture.send(402 * MS)).is_empty(),
        "not twice within 100 ms"
    );
    assert_eq!(setups(&fixture.send(501 * MS + 1)).len(), 1);
}

#[test]
fn a_publication_elicited_before_its_first_receiver_sends_one_more_setup_after() {
    let mut fixture = Fixture::new();
    fixture.status(0, &asking());
    assert!(is_setup(&fixture.send(0)));
    fixture.connect(MS, 0);
    fixture.send(2 * MS);
    assert_eq!(
        setups(&fixture.send(101 * MS)).len(),
        1,
        "the elicitation was still open"
    );
    assert!(setups(&fixture.send(300 * MS)).is_empty());
}

#[test]
fn nobody_elicits_a_setup_after_the_end() {
    let mut fixture = Fixture::new();
    fixture.send(0);
    fixture.connect(0, 0);
    fixture.shared.set_end_of_stream();
    fixture.status(150 * MS, &asking());
    assert!(setups(&fixture.send(150 * MS)).is_empty());
}

#[test]
fn a_setup_that_nobody_can_get_waits_for_somebody() {
    let mut fixture = Fixture::new();
    fixture.sink.is_nowhere = true;
    assert!(fixture.send(0).is_empty());
    let never = fixture.sender.next_deadline(at(0));
    assert!(never.since(at(0)) > 1_000_000 * MS, "no timer runs for nobody");
    fixture.sink.is_nowhere = false;
    assert!(is_setup(&fixture.send(1)), "who comes is told at once");
}

// Data (wire protocol 3.4, 2.5)

#[test]
fn nothing_leaves_before_a_status_message_grants_it() {
    let mut fixture = Fixture::new();
    fixture.publish(100);
    assert!(is_setup(&fixture.send(0)));
    assert_eq!(fixture.counters.position.get_relaxed(), 0);
    fixture.connect(0, HALF);
    let sent = fixture.send(1);
    assert_eq!(lengths(&sent), [160]);
    assert_eq!(fixture.counters.position.get_relaxed(), 160);
    assert_eq!(fixture.shared.sender_position(), 160);
    assert_eq!(fixture.counters.limit.get_relaxed(), i64::from(HALF));
}

#[test]
fn small_messages_share_datagrams_and_large_ones_are_fragments() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    for _ in 0..12 {
        fixture.publish(100);
    }
    assert_eq!(lengths(&fixture.send(1)), [8 * 160, 4 * 160]);
    fixture.publish(4000);
    let sent = fixture.send(2);
    assert_eq!(lengths(&sent), [1408, 1408, 1280]);
    let flags: Vec<u8> = sent.iter().map(|datagram| datagram[5]).collect();
    assert_eq!(flags, [0x80, 0, 0x40]);
}

#[test]
fn datagrams_of_equal_length_leave_as_one_run() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(5000);
    fixture.sink.entries = 0;
    assert_eq!(lengths(&fixture.send(1)), [1408, 1408, 1408, 928]);
    assert_eq!(fixture.sink.entries, 1);
    // A shorter datagram ends a run: nothing can follow it.
    for _ in 0..4 {
        fixture.publish(1200);
    }
    fixture.publish(32);
    fixture.sink.entries = 0;
    assert_eq!(lengths(&fixture.send(2)), [1248, 1248, 1248, 1312]);
    assert_eq!(fixture.sink.entries, 2);
}

#[test]
fn nothing_follows_a_shorter_datagram_in_its_run() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(2000);
    fixture.publish(1300);
    fixture.sink.entries = 0;
    assert_eq!(lengths(&fixture.send(1)), [1408, 672, 1344]);
    assert_eq!(fixture.sink.entries, 2, "pieces of a run are cut at one length");
}

#[test]
fn a_pass_sends_as_many_datagrams_as_it_may() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(8000);
    assert_eq!(fixture.send(1).len(), 4);
    assert_eq!(fixture.send(1).len(), 2);
}

#[test]
fn only_the_header_of_padding_travels_and_the_stream_goes_on_in_the_next_term() {
    let mut fixture = Fixture::new();
    // 63 messages of 1040 bytes fill 65520 bytes; 16 are too few for a frame, so 62 leave 1056 for padding.
    let frame = 1024 + 32;
    let per_term = TERM / frame;
    let padding = TERM - per_term * frame;
    for _ in 0..=per_term {
        fixture.publish(1024);
    }
    let mut sent = Vec::new();
    let mut now = 0;
    while fixture.sender.position() < i64::from(TERM) + i64::from(frame) {
        now += 1;
        fixture.connect(now, HALF);
        sent.extend(
            fixture
                .send(now)
                .into_iter()
                .filter(|datagram| setups(std::slice::from_ref(datagram)).is_empty()),
        );
    }
    let last_of_term = &sent[sent.len() - 2];
    assert_eq!(last_of_term.len(), 1056 + 32);
    let pad = DataHeader::parse(&last_of_term[1056..]).unwrap();
    assert!(pad.is_padding());
    assert_eq!((pad.frame_length, pad.term_offset), (padding, TERM - padding));
    let next = DataHeader::parse(&sent[sent.len() - 1]).unwrap();
    assert_eq!((next.term_id.0, next.term_offset), (-4, 0));
}

#[test]
fn whole_frames_are_sent_up_to_the_window_and_being_blocked_counts_once() {
    let mut fixture = Fixture::new();
    fixture.send(0);
    fixture.connect(0, 3200);
    for _ in 0..20 {
        fixture.publish(1000);
    }
    let mut bytes = 0;
    for pass in 1..20 {
        bytes += lengths(&fixture.send(pass)).iter().sum::<usize>();
    }
    assert_eq!(bytes, 3 * 1056, "a frame that does not fit entirely stays");
    assert_eq!(fixture.counters.back_pressure.get_relaxed(), 1);
    assert_eq!(fixture.system.get(C::SenderFlowControlLimits).get_relaxed(), 1);
    fixture.status(20, &status(3 * 1056, 3200));
    for pass in 21..40 {
        fixture.send(pass);
    }
    assert_eq!(fixture.counters.back_pressure.get_relaxed(), 2, "another episode");
}

#[test]
fn a_frame_that_misses_the_window_by_the_least_stays() {
    let mut fixture = Fixture::new();
    fixture.send(0);
    fixture.connect(0, 2 * 1056 - 32);
    fixture.publish(1000);
    fixture.publish(1000);
    assert_eq!(lengths(&fixture.send(1)), [1056]);
    assert!(fixture.send(2).is_empty());
    fixture.status(3, &status(1056, 1056));
    assert_eq!(lengths(&fixture.send(3)), [1056], "one that just fits goes");
}

#[test]
fn an_exhausted_window_without_data_is_no_back_pressure() {
    let mut fixture = Fixture::new();
    fixture.publish(1000);
    fixture.connect(0, 1056);
    assert_eq!(lengths(&fixture.send(1)), [1056]);
    fixture.send(2);
    assert_eq!(fixture.counters.back_pressure.get_relaxed(), 0);
    fixture.publish(1000);
    fixture.send(3);
    assert_eq!(fixture.counters.back_pressure.get_relaxed(), 1);
}

#[test]
fn what_the_system_did_not_take_is_sent_again() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(5000);
    fixture.sink.room = Some(2);
    assert_eq!(fixture.send(1).len(), 2);
    assert_eq!(fixture.sender.position(), 2 * 1408, "what left is not sent twice");
    assert_eq!(fixture.system.get(C::ShortSends).get_relaxed(), 1);
    assert_eq!(
        fixture.sender.next_deadline(at(1)),
        at(1).plus_nanos(SHORT_PAUSE_NS),
        "tried again soon"
    );
    fixture.sink.room = None;
    assert_eq!(lengths(&fixture.send(2)), [1408, 928]);
}

#[test]
fn a_stream_goes_on_behind_the_last_datagram_that_was_taken() {
    // A run of two, of which the last is shorter, and a datagram of its own.
    let whole = [1408, 672, 1344];
    for room in 0..=whole.len() {
        let mut fixture = Fixture::new();
        fixture.connect(0, HALF);
        fixture.publish(2000);
        fixture.publish(1300);
        fixture.sink.room = Some(room);
        assert_eq!(lengths(&fixture.send(1)), whole[..room]);
        let taken: usize = whole[..room].iter().sum();
        assert_eq!(fixture.sender.position(), taken as i64);
        fixture.sink.room = None;
        assert_eq!(lengths(&fixture.send(2)), whole[room..]);
    }
}

#[test]
fn a_hostile_frame_length_stops_the_stream_and_nothing_else() {
    use fulmar::log::HeaderWord;
    for length in [i32::MAX, i32::MIN, -1, 1, 31, TERM + 1] {
        let mut fixture = Fixture::new();
        fixture.connect(0, HALF);
        fixture.send(0);
        let word = i64::from(length as u32) | (1 << 48);
        fixture
            .log
            .term(0)
            .slot(0)
            .store_release(HeaderWord::Length, word);
        assert!(fixture.send(1).is_empty(), "{length}");
        assert_eq!(fixture.sender.position(), 0);
    }
}

// Heartbeats (wire protocol 3.5, 1.4)

#[test]
fn an_idle_connected_publication_sends_heartbeats_at_its_position() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(100);
    fixture.send(MS);
    assert!(fixture.send(101 * MS).is_empty(), "exactly 100 ms is too early");
    assert_eq!(fixture.sender.next_deadline(at(50 * MS)), at(101 * MS + 1));
    let header = heartbeat(&fixture.send(101 * MS + 1)).unwrap();
    assert_eq!((header.flags, header.term_offset), (0xC0, 160));
    // From then on at multiples of the interval, the first time a little early.
    assert!(fixture.send(200 * MS - 1).is_empty());
    assert!(heartbeat(&fixture.send(200 * MS)).is_some());
    assert!(fixture.send(300 * MS - 1).is_empty());
    assert!(heartbeat(&fixture.send(300 * MS)).is_some());
    assert_eq!(fixture.system.get(C::HeartbeatsSent).get_relaxed(), 3);
}

#[test]
fn heartbeats_go_on_without_receivers_but_never_start_without_one() {
    let mut fixture = Fixture::new();
    for ms in 0..300 {
        assert!(
            fixture
                .send(ms * MS)
                .iter()
                .all(|datagram| classify(datagram) == Ok(FrameKind::Setup))
        );
    }
    fixture.connect(300 * MS, 0);
    fixture.send(301 * MS);
    let late = fixture.send(20_000 * MS);
    assert!(!fixture.shared.has_receivers());
    assert!(heartbeat(&late).is_some());
    assert!(heartbeat(&fixture.send(20_200 * MS)).is_some(), "and no SETUP");
}

#[test]
fn the_end_is_told_at_once_and_repeated() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.publish(100);
    fixture.send(MS);
    fixture.shared.set_end_of_stream();
    let header = heartbeat(&fixture.send(2 * MS)).unwrap();
    assert_eq!((header.flags, header.term_offset), (0xE0, 160));
    assert!(fixture.send(3 * MS).is_empty());
    assert_eq!(heartbeat(&fixture.send(103 * MS)).unwrap().flags, 0xE0);
}

#[test]
fn without_eos_the_end_is_not_told() {
    let mut options = Options::default();
    options.traits.signal_eos = false;
    let mut fixture = Fixture::with(options);
    fixture.connect(0, HALF);
    fixture.shared.set_end_of_stream();
    fixture.send(MS);
    assert_eq!(heartbeat(&fixture.send(102 * MS)).unwrap().flags, 0xC0);
}

#[test]
fn a_revoked_publication_says_so_whether_or_not_ends_are_told() {
    let mut options = Options::default();
    options.traits.signal_eos = false;
    let mut fixture = Fixture::with(options);
    fixture.send(0);
    fixture.connect(0, HALF);
    fixture.send(1);
    fixture.log.metadata().set_revoked();
    assert_eq!(heartbeat(&fixture.send(2)).unwrap().flags, 0xF0);
}

// Status messages (wire protocol 3.6, 3.7)

#[test]
fn a_position_more_than_half_a_term_away_is_implausible_but_for_padding() {
    let mut fixture = Fixture::new();
    let half = i64::from(HALF);
    fixture.connect(0, 0);
    while fixture.sender.position() < i64::from(TERM) {
        fixture.status(0, &status(fixture.sender.position(), HALF));
        fixture.publish(1000);
        fixture.send(0);
    }
    let sent = fixture.sender.position();
    let plausible = |position| fixture.sender.is_position_plausible(&status(position, 0));
    assert!(plausible(sent + half));
    assert!(plausible(sent - half));
    assert!(
        plausible(sent - half - half / 2),
        "padding made the sender pass the window"
    );
    assert!(!plausible(sent + half + 32));
    assert!(!plausible(sent - half - half / 2 - 32));
    let fixture = Fixture::with(Options {
        start: i64::from(TERM),
        ..Options::default()
    });
    let plausible = |position| fixture.sender.is_position_plausible(&status(position, 0));
    assert!(plausible(i64::from(TERM)));
    assert!(!plausible(i64::from(TERM) - 32), "before the start of the stream");
    for term in [i32::MIN, i32::MAX, 0] {
        let message = StatusMessage {
            term_id: fulmar::id::TermId(term),
            ..status(0, 0)
        };
        assert!(!fixture.sender.is_position_plausible(&message), "{term}");
    }
}

#[test]
fn a_setup_request_connects_nobody() {
    let mut fixture = Fixture::new();
    fixture.status(0, &asking());
    assert!(!fixture.shared.has_receivers());
    assert!(!fixture.sender.has_initial_connection);
    assert_eq!(fixture.sender.limit(), 0);
}

#[test]
fn receivers_come_and_go_and_the_first_one_is_reported() {
    let mut fixture = Fixture::new();
    let first = fixture.sender.on_status_message(at(0), &status(0, HALF), peer(1));
    assert_eq!(first, StatusOutcome::Connected);
    assert!(fixture.shared.has_receivers() && fixture.shared.is_connected());
    assert!(fixture.sender.take_wants_conductor());
    let second = fixture.sender.on_status_message(at(1), &status(0, HALF), peer(1));
    assert_eq!(second, StatusOutcome::Done);
    assert!(!fixture.sender.take_wants_conductor(), "no news");
    fixture.send(5000 * MS);
    assert!(fixture.shared.is_connected(), "one nanosecond left");
    fixture.send(5000 * MS + 1);
    assert!(!fixture.shared.has_receivers() && !fixture.shared.is_connected());
    assert!(fixture.sender.take_wants_conductor());
    assert_eq!(
        fixture
            .sender
            .on_status_message(at(6000 * MS), &status(0, HALF), peer(1)),
        StatusOutcome::Connected
    );
    assert!(
        setups(&fixture.send(6001 * MS)).is_empty(),
        "connected again without a SETUP"
    );
}

#[test]
fn a_leaving_receiver_disconnects_at_once_and_ends_the_linger_of_unicast() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.status(1, &leaving(0));
    assert!(!fixture.shared.has_receivers());
    assert!(fixture.shared.has_received_unicast_eos());
    fixture.connect(2, HALF);
    assert!(!fixture.shared.has_received_unicast_eos(), "somebody came after");
}

#[test]
fn strangers_can_not_leave_for_a_receiver() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    let stranger = StatusMessage {
        receiver_id: RECEIVER + 1,
        ..leaving(0)
    };
    fixture.status(1, &stranger);
    fixture.sender.on_status_message(at(1), &leaving(0), peer(2));
    assert!(fixture.shared.is_connected());
    assert!(!fixture.shared.has_received_unicast_eos());
}

#[test]
fn leaving_a_group_does_not_end_the_linger() {
    let mut fixture = Fixture::with(group(FlowControl::new(Strategy::Max, 4)));
    fixture.connect(0, HALF);
    fixture.status(1, &leaving(0));
    assert!(!fixture.shared.has_receivers());
    assert!(!fixture.shared.has_received_unicast_eos());
}

#[test]
fn a_forged_grant_is_cut_to_half_a_term_beyond_what_was_sent() {
    let mut fixture = Fixture::new();
    fixture.send(0);
    for position in [0, HALF - 32, HALF] {
        fixture.status(1, &status(i64::from(position), HALF));
    }
    assert_eq!(fixture.sender.limit(), i64::from(HALF));
    for window in [HALF + 32, TERM, i32::MAX] {
        fixture.status(2, &status(0, window));
    }
    assert_eq!(fixture.sender.limit(), i64::from(HALF));
}

#[test]
fn a_publication_is_connected_once_its_group_is_complete() {
    let min = FlowControl::new(
        Strategy::Min(Box::new(MinFlowControl::new(None, 2, 5000 * MS))),
        4,
    );
    let mut fixture = Fixture::with(group(min));
    let receivers = fixture.counters.flow_control_receivers.clone().unwrap();
    fixture.status(0, &status(0, HALF));
    assert!(fixture.shared.has_receivers() && !fixture.shared.is_connected());
    assert_eq!(receivers.get_relaxed(), 1);
    let other = StatusMessage {
        receiver_id: 8,
        ..status(0, HALF - 1024)
    };
    fixture.status(1, &other);
    assert!(fixture.shared.is_connected());
    assert_eq!(
        fixture.sender.limit(),
        i64::from(HALF - 1024),
        "the slower of the two"
    );
    assert_eq!(receivers.get_relaxed(), 2);
    fixture.send(2000 * MS);
    fixture.status(2000 * MS, &other);
    fixture.send(5001 * MS);
    assert!(!fixture.shared.is_connected(), "one of them fell silent");
    assert!(fixture.shared.has_receivers());
}

#[test]
fn who_was_held_by_a_silent_receiver_goes_on_in_the_pass_that_gives_it_up() {
    let min = FlowControl::new(
        Strategy::Min(Box::new(MinFlowControl::new(None, 0, 2000 * MS))),
        4,
    );
    let mut fixture = Fixture::with(group(min));
    let slow = StatusMessage {
        receiver_id: 8,
        ..status(0, 1024)
    };
    fixture.status(0, &slow);
    fixture.status(0, &status(0, HALF));
    for _ in 0..3 {
        fixture.publish(1000);
    }
    for pass in 1..10 {
        fixture.send(pass);
    }
    let held_at = fixture.sender.position();
    assert!(held_at < 3 * 1056, "{held_at}");
    fixture.status(1900 * MS, &status(held_at, HALF));
    fixture.send(1999 * MS);
    assert_eq!(fixture.sender.position(), held_at);
    fixture.send(2001 * MS);
    assert!(fixture.sender.position() > held_at);
}

#[test]
fn spies_alone_move_the_stream_without_sending_it() {
    let mut options = Options::default();
    options.traits.spies_simulate_connection = true;
    let mut fixture = Fixture::with(options);
    fixture.publish(1000);
    fixture.shared.set_fastest_spy_position(Some(1056));
    assert!(is_setup(&fixture.send(0)));
    assert_eq!((fixture.sender.position(), fixture.sender.limit()), (1056, 1056));
    fixture.publish(1000);
    assert!(fixture.send(1).is_empty(), "nothing is transmitted");
    fixture.shared.set_fastest_spy_position(Some(1056 + 1000));
    fixture.send(2);
    assert_eq!(fixture.sender.position() % 32, 0, "a spy writes its own position");
    fixture.shared.set_fastest_spy_position(Some(-64));
    fixture.send(3);
    assert!(fixture.sender.position() >= 1056, "never back");
    fixture.connect(4, HALF);
    fixture.shared.set_fastest_spy_position(Some(2112));
    let before = fixture.sender.position();
    fixture.send(5);
    assert!(fixture.sender.position() >= before);
}

// Retransmission (wire protocol 3.8)

/// A publication that has sent 20 frames of 1056 bytes.
fn with_history(options: Options) -> (Fixture, Vec<Vec<u8>>) {
    let mut fixture = Fixture::with(options);
    fixture.send(0);
    fixture.connect(0, HALF);
    for _ in 0..20 {
        fixture.publish(1024);
    }
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.extend(fixture.send(1));
    }
    assert_eq!(sent.len(), 20);
    (fixture, sent)
}

#[test]
fn lost_frames_are_sent_again_byte_for_byte_and_once_per_linger() {
    let (mut fixture, sent) = with_history(Options::default());
    assert_eq!(fixture.nak(2 * MS, 1056, 1056), [sent[1].clone()]);
    for ms in 3..12 {
        assert!(fixture.nak(ms * MS, 1056, 1056).is_empty());
    }
    assert_eq!(fixture.nak(12 * MS, 1056, 1056), [sent[1].clone()]);
    assert_eq!(fixture.counters.naks_received.get_relaxed(), 11);
    assert_eq!(fixture.system.get(C::RetransmitsSent).get_relaxed(), 2);
    assert_eq!(fixture.system.get(C::RetransmittedBytes).get_relaxed(), 2 * 1056);
}

#[test]
fn a_long_range_is_repaired_over_several_passes() {
    let (mut fixture, sent) = with_history(Options::default());
    let mut again = fixture.nak(2 * MS, 0, 10 * 1056);
    assert_eq!(again.len(), 4, "one portion at once");
    assert_eq!(fixture.sender.next_deadline(at(2 * MS)), at(2 * MS));
    for _ in 0..5 {
        again.extend(fixture.send(3 * MS));
    }
    assert_eq!(again, sent[..10]);
}

#[test]
fn a_repair_that_the_system_did_not_take_is_tried_again_soon() {
    let (mut fixture, sent) = with_history(Options::default());
    fixture.sink.room = Some(0);
    assert!(fixture.nak(2 * MS, 1056, 1056).is_empty());
    let soon = at(2 * MS).plus_nanos(SHORT_PAUSE_NS);
    assert_eq!(fixture.sender.next_deadline(at(2 * MS)), soon);
    assert_eq!(
        fixture.sender.tail_deadline(),
        None,
        "which would find no room either"
    );
    fixture.sink.room = None;
    assert_eq!(fixture.send(3 * MS), [sent[1].clone()]);
}

#[test]
fn nothing_beyond_what_was_sent_is_sent_again() {
    let (mut fixture, sent) = with_history(Options::default());
    fixture.status(2 * MS, &status(0, 20 * 1056));
    let limit = fixture.sender.limit();
    fixture.status(2 * MS, &status(0, 0));
    // Two more frames are committed, the window for which is given but which no pass has sent yet.
    fixture.publish(1024);
    fixture.publish(1024);
    let end = fixture.sender.position();
    assert!(limit >= end);
    assert_eq!(fixture.nak(3 * MS, end - 1056, 3 * 1056), [sent[19].clone()]);
    assert!(fixture.nak(4 * MS, end, 1056).is_empty());
}

#[test]
fn requests_outside_the_log_are_ignored() {
    let (mut fixture, _) = with_history(Options::default());
    for position in [-i64::from(TERM), 4 * i64::from(TERM), i64::from(TERM) + 32] {
        assert!(fixture.nak(2 * MS, position, 1056).is_empty());
    }
    for term in [i32::MIN, i32::MAX] {
        let nak = Nak {
            term_id: fulmar::id::TermId(term),
            ..nak(0, 1056)
        };
        fixture
            .sender
            .on_nak(at(2 * MS), &nak, peer(1), &mut fixture.sink);
    }
    assert!(fixture.nak(2 * MS, 0, 0).is_empty());
    assert_eq!(fixture.system.get(C::RetransmitsSent).get_relaxed(), 0);
}

/// A publication with a receiver that takes half a term, and nothing offered yet.
fn connected() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.send(0);
    fixture.connect(0, HALF);
    fixture
}

fn offer(fixture: &mut Fixture, payload: &[u8]) {
    let outcome = fixture.publisher.offer(&payload, &NoReservedValue, i64::MAX / 2);
    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
}

/// Found by fuzzing (`sender_frames`): a message whose first payload byte is 0xA5 reads as a frame of 165 bytes at its
/// payload, and one that carries a whole header as any frame.
#[test]
fn requests_for_the_middle_of_a_message_are_ignored() {
    let mut fixture = connected();
    let mut forged = fulmar::wire::encode_heartbeat(0xC0, SESSION, STREAM, INITIAL_TERM, 256).to_vec();
    forged[0] = 64;
    forged.resize(256, 0);
    for payload in [&[0xA5_u8] as &[u8], &forged] {
        offer(&mut fixture, payload);
    }
    let sent = fixture.send(1);
    assert_eq!(lengths(&sent), [64 + 288]);
    for middle in [32, 96, 128, 320] {
        assert!(fixture.nak(2 * MS, middle, 64).is_empty(), "{middle}");
    }
    assert_eq!(fixture.nak(2 * MS, 0, 352), sent);
    assert_eq!(fixture.system.get(C::RetransmitsSent).get_relaxed(), 1);
}

/// Known: only a walk from the start of the term could tell it from a frame.
#[test]
fn a_payload_with_the_header_of_its_own_place_passes_for_a_frame() {
    let mut fixture = connected();
    let mut forged = fulmar::wire::encode_heartbeat(0xC0, SESSION, STREAM, INITIAL_TERM, 32).to_vec();
    forged[0] = 32;
    offer(&mut fixture, &forged);
    fixture.send(1);
    assert_eq!(fixture.nak(2 * MS, 32, 32).len(), 1);
    assert!(fixture.nak(2 * MS, 64, 32).is_empty());
}

#[test]
fn only_who_sends_status_messages_is_answered() {
    let (mut fixture, _) = with_history(Options::default());
    fixture
        .sender
        .on_nak(at(2 * MS), &nak(0, 1056), peer(66), &mut fixture.sink);
    assert!(fixture.sink.take().is_empty());
    assert_eq!(fixture.nak(2 * MS, 0, 1056).len(), 1);
}

#[test]
fn a_delayed_retransmit_waits_and_the_flow_control_limit_does_not_matter() {
    let (mut fixture, sent) = with_history(Options {
        limits: SenderLimits {
            retransmit_delay_ns: 2 * MS,
            ..limits()
        },
        ..Options::default()
    });
    assert!(fixture.nak(2 * MS, 0, 1056).is_empty());
    assert_eq!(fixture.sender.next_deadline(at(2 * MS)), at(4 * MS));
    assert!(fixture.send(3 * MS).is_empty());
    assert_eq!(fixture.send(4 * MS), [sent[0].clone()]);
}

#[test]
fn a_group_pool_that_is_full_is_counted() {
    let (mut fixture, _) = with_history(Options {
        limits: SenderLimits {
            max_resend: 2,
            ..limits()
        },
        ..group(FlowControl::new(Strategy::Max, 4))
    });
    for frame in 0..3 {
        fixture.nak(2 * MS, frame * 1056, 1056);
    }
    assert_eq!(fixture.system.get(C::RetransmitsSent).get_relaxed(), 2);
    assert_eq!(fixture.system.get(C::RetransmitOverflow).get_relaxed(), 1);
}

#[test]
fn forged_requests_make_the_sender_send_no_more_than_its_budget() {
    let (mut fixture, _) = with_history(Options {
        flow_control: FlowControl::new(Strategy::Unicast, 1),
        ..Options::default()
    });
    let seconds = 10;
    let mut resent = 0;
    // Every request names other bytes than the one before, so that nothing is a repeat.
    for step in 0..seconds * 10_000 {
        let now = 2 * MS + step * MS / 10;
        let frame = step % 20;
        resent += lengths(&fixture.nak(now, frame * 1056, 1056 * (20 - frame as i32)))
            .iter()
            .sum::<usize>();
        resent += lengths(&fixture.send(now))
            .iter()
            .filter(|length| **length > 40)
            .sum::<usize>();
    }
    let capacity = HALF as usize;
    let by_time = HALF as usize * 10 * seconds as usize;
    assert!(resent <= capacity + by_time, "{resent}");
    assert!(fixture.system.get(C::RetransmitOverflow).get_relaxed() > 0);
}

// RTT and refusals (wire protocol 3.9, 3.13)

#[test]
fn a_measurement_is_answered_and_an_answer_is_not() {
    let mut fixture = Fixture::new();
    let request = Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id: SESSION,
        stream_id: STREAM,
        echo_timestamp: 99,
        reception_delta: 0,
        receiver_id: 7,
    };
    fixture
        .sender
        .on_rttm(at(0), &request, peer(1), &mut fixture.sink);
    let sent = fixture.sink.take();
    let answer = Rttm::parse(&sent[0]).unwrap();
    assert_eq!(
        (answer.flags, answer.echo_timestamp, answer.receiver_id),
        (0, 99, 7)
    );
    fixture.sender.on_rttm(at(0), &answer, peer(1), &mut fixture.sink);
    assert!(fixture.sink.take().is_empty());
}

#[test]
fn strangers_do_not_make_a_group_answer() {
    let mut fixture = Fixture::with(group(FlowControl::new(Strategy::Max, 4)));
    fixture.connect(0, 0);
    let request = Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id: SESSION,
        stream_id: STREAM,
        echo_timestamp: 99,
        reception_delta: 0,
        receiver_id: 7,
    };
    fixture
        .sender
        .on_rttm(at(0), &request, peer(2), &mut fixture.sink);
    assert!(fixture.sink.take().is_empty());
    fixture
        .sender
        .on_rttm(at(0), &request, peer(1), &mut fixture.sink);
    assert_eq!(fixture.sink.take().len(), 1);
}

#[test]
fn a_refusal_is_reported_once_per_connection() {
    let mut fixture = Fixture::new();
    let error = ErrorFrame {
        session_id: SESSION,
        stream_id: STREAM,
        receiver_id: RECEIVER,
        group_tag: Some(77),
        error_code: 13,
        text: b"no thanks",
    };
    assert_eq!(
        fixture.sender.on_error(at(0), &error, peer(1)),
        None,
        "never heard of"
    );
    fixture.connect(0, HALF);
    assert_eq!(
        fixture.sender.on_error(at(0), &error, peer(2)),
        None,
        "somebody else says so"
    );
    let report = fixture.sender.on_error(at(0), &error, peer(1)).unwrap();
    assert_eq!((report.error_code, report.text.as_str()), (13, "no thanks"));
    assert_eq!((report.group_tag, report.source), (Some(77), peer(1)));
    assert!(!fixture.shared.is_connected());
    assert_eq!(
        fixture.sender.on_error(at(0), &error, peer(1)),
        None,
        "repeats are silent"
    );
}

#[test]
fn refusals_of_a_forger_are_told_at_a_bounded_rate_and_all_take_effect() {
    let mut fixture = Fixture::new();
    let (mut told, mut withheld) = (0, 0);
    for forged in 0..100_000 {
        let now = at(forged * 10_000);
        fixture.sender.on_status_message(now, &status(0, HALF), peer(1));
        let error = ErrorFrame {
            session_id: SESSION,
            stream_id: STREAM,
            receiver_id: RECEIVER,
            group_tag: None,
            error_code: 13,
            text: b"forged",
        };
        if let Some(report) = fixture.sender.on_error(now, &error, peer(1)) {
            told += 1;
            withheld += report.withheld;
        }
        assert!(!fixture.shared.is_connected());
    }
    // One second: the burst, and ten more.
    assert_eq!(told, REFUSALS_BURST as u64 + 9);
    assert!(told + withheld > 90_000);
}

// Response channels (wire protocol 7)

#[test]
fn a_response_publication_sends_to_whoever_asked_last() {
    let mut options = Options::default();
    options.traits.is_response = true;
    options.response_correlation_id = 5;
    let mut fixture = Fixture::with(options);
    fixture.sender.on_status_message(at(0), &asking(), peer(9));
    fixture.send(0);
    assert_eq!(fixture.sink.to, [Some(peer(9))]);
    fixture.sender.on_status_message(at(1), &asking(), peer(10));
    fixture.send(200 * MS);
    assert_eq!(fixture.sink.to.last(), Some(&Some(peer(10))));
}

#[test]
fn the_conductor_is_woken_when_the_limit_can_move_by_much() {
    let mut fixture = Fixture::new();
    fixture.connect(0, HALF);
    fixture.sender.take_wants_conductor();
    fixture.publish(1000);
    fixture.send(1);
    assert!(!fixture.sender.take_wants_conductor());
    for _ in 0..4 {
        fixture.publish(1000);
    }
    fixture.send(2);
    assert!(
        fixture.sender.take_wants_conductor(),
        "an eighth of the window was sent"
    );
}

// Recovery

/// Connected, and heartbeats follow the last data after a millisecond.
fn with_early_heartbeats() -> Fixture {
    let limits = SenderLimits {
        tail_heartbeat_ns: MS,
        ..limits()
    };
    let mut fixture = Fixture::with(Options {
        limits,
        ..Options::default()
    });
    fixture.send(0);
    fixture.connect(0, HALF);
    fixture
}

#[test]
fn early_heartbeats_follow_the_last_data_and_then_the_usual_ones() {
    let mut fixture = with_early_heartbeats();
    assert_eq!(fixture.sender.tail_deadline(), None, "nothing was sent");
    fixture.publish(1024);
    assert_eq!(fixture.send(10 * MS).len(), 1);
    let mut sent = Vec::new();
    let start = 10 * MS;
    for now in (start..start + 400 * MS).step_by(100_000) {
        if let Some(header) = heartbeat(&fixture.send(now)) {
            assert_eq!(header.term_offset, 1056);
            sent.push((now - start) / MS);
        }
    }
    assert_eq!(sent[..3], [1, 5, 21]);
    assert_eq!(fixture.sender.tail_deadline(), None);
    assert!(sent[3] >= 21 + 75 && sent.len() < 8, "{sent:?}");
}

#[test]
fn early_heartbeats_wait_while_there_is_nobody_to_send_to() {
    let limits = SenderLimits {
        tail_heartbeat_ns: MS,
        ..limits()
    };
    let mut fixture = Fixture::with(Options {
        limits,
        ..Options::default()
    });
    fixture.send(0);
    fixture.connect(0, HALF);
    fixture.publish(1024);
    fixture.send(10 * MS);
    fixture.sink.is_nowhere = true;
    for now in [11 * MS, 11 * MS + 1, 50 * MS] {
        fixture.send(now);
        assert_eq!(fixture.sender.tail_deadline(), None);
        assert!(fixture.sender.next_deadline(at(now)).since(at(now)) > 0);
    }
    fixture.sink.is_nowhere = false;
    assert_eq!(
        heartbeat(&fixture.send(60 * MS)).map(|header| header.term_offset),
        Some(1056),
        "whoever comes hears it at once"
    );
    assert_eq!(fixture.sender.tail_deadline(), Some(at(64 * MS)));
}

#[test]
fn a_stream_that_goes_on_needs_no_early_heartbeats() {
    let mut fixture = with_early_heartbeats();
    for round in 0..20 {
        let now = 10 * MS + round * MS / 2;
        fixture.publish(64);
        assert_eq!(
            heartbeat(&fixture.send(now)).map(|header| header.term_offset),
            None
        );
        assert_eq!(fixture.sender.tail_deadline(), Some(at(now + MS)));
    }
}

#[test]
fn the_round_trip_is_measured_after_loss_and_frames_that_are_lost_again_are_sent_again_after_it() {
    let limits = SenderLimits {
        learns_round_trip: true,
        ..limits()
    };
    let (mut fixture, sent) = with_history(Options {
        limits,
        ..Options::default()
    });
    let answered = fixture.nak(2 * MS, 1056, 1056);
    assert_eq!(answered[0], sent[1]);
    let request = Rttm::parse(&answered[1]).unwrap();
    assert!(request.is_request() && request.receiver_id == 0);
    let answer = Rttm {
        receiver_id: RECEIVER,
        ..request.answer()
    };
    // Whoever sends no status messages is not believed.
    fixture
        .sender
        .on_rttm(at(2 * MS), &answer, peer(2), &mut fixture.sink);
    fixture
        .sender
        .on_rttm(at(2 * MS + 400_000), &answer, peer(1), &mut fixture.sink);
    assert!(
        fixture.nak(3 * MS, 2112, 1056) == [sent[2].clone()],
        "one measurement in 20 ms"
    );
    assert!(fixture.nak(3 * MS + 300_000, 2112, 1056).is_empty());
    assert_eq!(fixture.nak(4 * MS, 2112, 1056), [sent[2].clone()]);
}

#[test]
fn a_group_is_not_measured() {
    let (mut fixture, sent) = with_history(Options {
        limits: SenderLimits {
            learns_round_trip: true,
            ..limits()
        },
        traits: SenderTraits {
            has_group_semantics: true,
            ..SenderTraits::default()
        },
        ..Options::default()
    });
    assert_eq!(fixture.nak(2 * MS, 1056, 1056), [sent[1].clone()]);
}
