//! Images, both halves: every rule of wire protocol 4.3 to 4.11 in virtual time.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod receiver_support;

use fulmar::counters::SystemCounter;
use fulmar::id::TermId;
use fulmar::log::frame::word_length;
use fulmar::log::{HeaderWord, scan_gap};
use fulmar::memory::Region;
use fulmar::report::loss_report::{LossReport, read_all};
use fulmar::time::EpochMs;
use fulmar::wire::{ErrorFrame, FrameKind, Nak, ResponseSetup, Rttm, StatusMessage, classify};
use fulmar_media_driver::commands::TransportId;
use fulmar_media_driver::protocol::connections::{FeedbackRule, TransportRule};
use fulmar_media_driver::protocol::rtt::RttmAction;
use fulmar_media_driver::stream::image_conductor::{ImageEvent, ImageState};
use fulmar_media_driver::stream::image_receiver::DataOutcome;

use receiver_support::*;

const L: i64 = TERM_LENGTH as i64;

fn messages(frames: &[Vec<u8>], kind: FrameKind) -> Vec<Vec<u8>> {
    frames
        .iter()
        .filter(|frame| classify(frame) == Ok(kind))
        .cloned()
        .collect()
}

fn status_messages(frames: &[Vec<u8>]) -> Vec<StatusMessage> {
    messages(frames, FrameKind::StatusMessage)
        .iter()
        .map(|frame| StatusMessage::parse(frame).unwrap())
        .collect()
}

fn naks(frames: &[Vec<u8>]) -> Vec<(TermId, i32, i32)> {
    messages(frames, FrameKind::Nak)
        .iter()
        .map(|frame| Nak::parse(frame).unwrap())
        .map(|nak| (nak.term_id, nak.term_offset, nak.length))
        .collect()
}

#[test]
fn the_first_status_message_goes_out_at_once_at_the_joining_position_with_the_initial_window() {
    let join = L + 128;
    let mut image = TestImage::new(Options {
        join_position: join,
        group_tag: Some(77),
        ..Options::default()
    });
    let frames = image.frames();
    let [message] = status_messages(&frames)[..] else {
        panic!("one status message: {frames:?}");
    };
    assert_eq!(message.flags, 0);
    assert_eq!(message.term_id, SHAPE.term_id(join));
    assert_eq!(message.term_offset, 128);
    assert_eq!(message.window, WINDOW);
    assert_eq!(message.receiver_id, RECEIVER_ID);
    assert_eq!(message.group_tag, Some(77));
    assert_eq!((message.session_id, message.stream_id), (SESSION, STREAM));
    assert_eq!(
        image.system.get(SystemCounter::StatusMessagesSent).get_relaxed(),
        1
    );
    assert_eq!(image.frames().len(), 0, "nothing more is due");
}

#[test]
fn an_idle_image_repeats_its_status_message_every_two_hundred_milliseconds() {
    let mut image = TestImage::plain();
    image.frames();
    for _ in 0..5 {
        assert_eq!(image.data(&heartbeat(0, 0xC0)), DataOutcome::Heartbeat);
        image.pass_time(100 * MS);
        assert_eq!(image.frames().len(), 0);
        assert_eq!(image.data(&heartbeat(0, 0xC0)), DataOutcome::Heartbeat);
        image.pass_time(100 * MS - 1);
        assert_eq!(image.frames().len(), 0);
        image.pass_time(1);
        let [message] = status_messages(&image.frames())[..] else {
            panic!("one status message");
        };
        assert_eq!((message.term_offset, message.window), (0, WINDOW));
    }
}

#[test]
fn a_quarter_of_the_window_consumed_is_announced_and_not_a_byte_less() {
    let mut image = TestImage::plain();
    image.frames();
    let mut position = 0;
    while position <= i64::from(WINDOW) / 4 {
        assert_eq!(image.data(&frame(position, &[1; 992])), DataOutcome::Accepted);
        position += 1024;
    }
    image.track();
    let quarter = i64::from(WINDOW) / 4;
    image.consume(0, quarter);
    assert!(!image.track().wakes_receiver);
    assert_eq!(image.frames().len(), 0);
    image.consume(0, quarter + 32);
    assert!(image.track().wakes_receiver);
    let [message] = status_messages(&image.frames())[..] else {
        panic!("one status message");
    };
    assert_eq!(i64::from(message.term_offset), quarter + 32);
}

#[test]
fn a_timer_driven_status_message_repeats_the_scheduled_position_not_the_consumed_one() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 992]));
    image.track();
    image.consume(0, 1024);
    image.track();
    image.pass_time(200 * MS);
    assert_eq!(status_messages(&image.frames())[0].term_offset, 0);
}

#[test]
fn in_order_data_moves_rebuild_position_and_high_water_mark() {
    let mut image = TestImage::plain();
    assert_eq!(image.data(&frame(0, b"hello")), DataOutcome::Accepted);
    assert_eq!(image.high_water_mark.get_relaxed(), 64);
    assert_eq!(image.track().bytes_lost, 0);
    assert_eq!(image.conductor.rebuild_position(), 64);
    assert_eq!(image.conductor.receiver_position.value.get_relaxed(), 64);
    let mut payload = [0; 5];
    image.log.term(0).copy_out_at(32, &mut payload);
    assert_eq!(&payload, b"hello");
}

trait CopyOut {
    fn copy_out_at(&self, at: usize, bytes: &mut [u8]);
}

impl CopyOut for fulmar::log::Term<fulmar::memory::View> {
    fn copy_out_at(&self, at: usize, bytes: &mut [u8]) {
        use fulmar::memory::AtomicBuffer;
        self.buffer().copy_out(at, bytes);
    }
}

#[test]
fn a_duplicate_does_not_replace_what_is_there() {
    let mut image = TestImage::plain();
    image.data(&frame(0, b"first"));
    assert_eq!(image.data(&frame(0, b"other")), DataOutcome::Accepted);
    let mut payload = [0; 5];
    image.log.term(0).copy_out_at(32, &mut payload);
    assert_eq!(&payload, b"first");
}

#[test]
fn a_lost_datagram_is_asked_for_exactly_after_a_microsecond_and_then_every_hundred() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.data(&frame(192, &[1; 32]));
    assert_eq!(image.track().bytes_lost, 128);
    assert_eq!(image.frames().len(), 0);
    image.pass_time(1_000);
    assert!(image.track().wakes_receiver);
    let gap = (SHAPE.term_id(0), 64, 128);
    assert_eq!(naks(&image.frames()), [gap]);
    image.pass_time(99_999);
    image.track();
    assert_eq!(naks(&image.frames()), []);
    image.pass_time(1);
    image.track();
    assert_eq!(naks(&image.frames()), [gap]);
    assert_eq!(image.naks_sent.get_relaxed(), 2);
    assert_eq!(image.system.get(SystemCounter::NakMessagesSent).get_relaxed(), 2);
    image.data(&frame(64, &[1; 96]));
    image.pass_time(100_000);
    assert_eq!(image.track().bytes_lost, 0);
    assert_eq!(naks(&image.frames()), []);
    assert_eq!(image.conductor.rebuild_position(), 256);
}

#[test]
fn the_same_gap_raised_twice_before_the_receiver_looks_is_asked_for_once() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(64, &[1; 32]));
    image.track();
    for _ in 0..5 {
        image.pass_time(100_000);
        image.track();
    }
    assert_eq!(naks(&image.frames()).len(), 1);
}

#[test]
fn a_lost_last_datagram_is_noticed_by_the_heartbeat_behind_it() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.data(&heartbeat(320, 0xC0));
    assert_eq!(image.high_water_mark.get_relaxed(), 320);
    image.track();
    image.pass_time(1_000);
    image.track();
    assert_eq!(naks(&image.frames()), [(SHAPE.term_id(0), 64, 256)]);
    assert_eq!(
        image.system.get(SystemCounter::HeartbeatsReceived).get_relaxed(),
        0
    );
}

#[test]
fn a_padding_header_covers_its_whole_length() {
    let mut image = TestImage::plain();
    let datagram = [frame(0, &[1; 32]), padding(64, 4096)].concat();
    assert_eq!(image.data(&datagram), DataOutcome::Accepted);
    assert_eq!(image.high_water_mark.get_relaxed(), 64 + 4096);
    image.track();
    assert_eq!(image.conductor.rebuild_position(), 64 + 4096);
}

#[test]
fn data_beyond_half_a_term_behind_the_last_status_message_is_an_over_run() {
    let mut image = TestImage::plain();
    image.frames();
    let half = L / 2;
    assert_eq!(image.data(&frame(half - 64, &[1; 32])), DataOutcome::Accepted);
    assert_eq!(image.data(&frame(half - 32, &[1; 32])), DataOutcome::OverRun);
    assert_eq!(image.data(&frame(half, &[1; 32])), DataOutcome::OverRun);
    assert_eq!(image.data(&heartbeat(half + 32, 0xC0)), DataOutcome::OverRun);
    assert_eq!(image.data(&heartbeat(half, 0xC0)), DataOutcome::Heartbeat);
    assert_eq!(image.high_water_mark.get_relaxed(), half);
}

#[test]
fn padding_that_begins_within_the_window_is_no_over_run_and_neither_is_the_heartbeat_behind_it() {
    let join = L / 2 - 128;
    let before = L - 192;
    for padding_arrives in [true, false] {
        let mut image = TestImage::new(Options {
            join_position: join,
            ..Options::default()
        });
        image.frames();
        if padding_arrives {
            assert_eq!(image.data(&padding(before, 192)), DataOutcome::Accepted);
            assert_eq!(image.high_water_mark.get_relaxed(), L);
        }
        assert_eq!(image.data(&heartbeat(L, 0xC0)), DataOutcome::Heartbeat);
        assert_eq!(
            image.high_water_mark.get_relaxed(),
            L,
            "so that lost padding is missed"
        );
        assert_eq!(image.data(&heartbeat(L + 32, 0xC0)), DataOutcome::OverRun);
        assert_eq!(image.data(&frame(L, &[1; 32])), DataOutcome::OverRun);
    }
    let mut image = TestImage::plain();
    image.frames();
    assert_eq!(
        image.data(&heartbeat(L, 0xC0)),
        DataOutcome::OverRun,
        "no padding is half a term long"
    );
    assert_eq!(
        image.data(&padding(L / 2, 64)),
        DataOutcome::OverRun,
        "its header is beyond"
    );
}

#[test]
fn data_before_the_last_status_message_is_an_under_run_that_keeps_its_connection_alive() {
    let mut image = TestImage::new(Options {
        join_position: L,
        ..Options::default()
    });
    image.frames();
    image.pass_time(4 * SECOND);
    let before = image.conductor.state();
    assert_eq!(image.data(&frame(L - 64, &[1; 32])), DataOutcome::UnderRun);
    image.pass_time(4 * SECOND);
    assert_eq!(image.frames().len(), 1, "its connection lives");
    image.pass_time(SECOND);
    assert_eq!(
        image.data(&frame(L - i64::from(WINDOW) - 128, &[1; 32])),
        DataOutcome::UnderRun
    );
    image.pass_time(200 * MS);
    assert_eq!(image.frames().len(), 0, "too old to count as a sign of life");
    image.pass_time(SECOND);
    assert_eq!(
        image.conductor.on_timer(image.now),
        ImageEvent::Draining,
        "{before:?}"
    );
}

#[test]
fn a_heartbeat_may_be_one_term_old_and_no_more() {
    let mut image = TestImage::new(Options {
        join_position: 3 * L,
        ..Options::default()
    });
    assert_eq!(image.data(&heartbeat(2 * L, 0xC0)), DataOutcome::Heartbeat);
    assert_eq!(image.data(&heartbeat(2 * L - 32, 0xC0)), DataOutcome::UnderRun);
    assert_eq!(image.high_water_mark.get_relaxed(), 3 * L);
}

#[test]
fn terms_before_the_first_are_ignored_and_broken_datagrams_are_invalid() {
    let mut image = TestImage::plain();
    let mut early = frame(0, &[1; 32]);
    early[20..24].copy_from_slice(&(INITIAL_TERM.0 - 1).to_le_bytes());
    assert_eq!(image.data(&early), DataOutcome::Ignored);
    let mut unaligned = frame(0, &[1; 32]);
    unaligned[8..12].copy_from_slice(&8i32.to_le_bytes());
    assert_eq!(image.data(&unaligned), DataOutcome::Invalid);
    let trailing = [frame(0, &[1; 32]), vec![0; 32]].concat();
    assert_eq!(image.data(&trailing), DataOutcome::Invalid);
    let mut long = frame(0, &[1; 32]);
    long[..4].copy_from_slice(&4096i32.to_le_bytes());
    assert_eq!(image.data(&long), DataOutcome::Invalid);
    assert_eq!(image.high_water_mark.get_relaxed(), 0);
}

#[test]
fn silent_sources_get_no_feedback_after_five_seconds_and_the_image_lives_until_ten() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&heartbeat(0, 0xC0));
    image.pass_time(5 * SECOND - 1);
    assert_eq!(image.frames().len(), 1);
    image.pass_time(200 * MS);
    assert_eq!(image.frames().len(), 0);
    image.pass_time(4 * SECOND);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::None);
    image.pass_time(SECOND);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
}

/// The conductor's clock stands still while the driver is stopped, the receiver's does not: what one has noted means
/// nothing to the other.
#[test]
fn an_image_lives_until_ten_seconds_of_silence_by_the_conductors_clock_alone() {
    let mut image = TestImage::plain();
    let mut conductor_now = image.now;
    // The driver is stopped for a minute; what has come in waits in the socket.
    image.pass_time(60 * SECOND);
    conductor_now = conductor_now.plus_nanos(SECOND / 2);
    assert_eq!(image.conductor.on_timer(conductor_now), ImageEvent::None);
    image.data(&heartbeat(0, 0xC0));
    image.conductor.track_rebuild(conductor_now);
    conductor_now = conductor_now.plus_nanos(10 * SECOND - 1);
    assert_eq!(image.conductor.on_timer(conductor_now), ImageEvent::None);
    assert_eq!(
        image.conductor.on_timer(conductor_now.plus_nanos(1)),
        ImageEvent::Draining
    );
}

#[test]
fn round_trips_are_measured_again_whatever_the_receivers_clock_says() {
    let mut image = TestImage::new(Options {
        measures_rtt: true,
        ..Options::default()
    });
    image.data(&heartbeat(0, 0xC0));
    let mut conductor_now = image.now;
    image.pass_time(60 * SECOND);
    image.data(&heartbeat(0, 0xC0));
    for _ in 0..3 {
        conductor_now = conductor_now.plus_nanos(MS);
        image.conductor.track_rebuild(conductor_now);
        let frames = image.frames();
        let requests: Vec<_> = frames
            .iter()
            .filter_map(|frame| Rttm::parse(frame).ok())
            .collect();
        assert_eq!(requests.len(), 1);
        image.pass_time(50_000);
        let answer = requests[0].answer();
        let action = image.receiver.on_rttm(image.now, &answer);
        assert_eq!(action, RttmAction::Sample { rtt_ns: 50_000 });
        image.conductor.track_rebuild(conductor_now);
    }
}

#[test]
fn the_end_of_the_stream_drains_lingers_and_ends() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.data(&heartbeat(64, 0xE0));
    image.track();
    assert_eq!(image.log.metadata().end_of_stream_position(), 64);
    assert!(image.receiver.has_ended());
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
    assert_eq!(
        status_messages(&image.frames())[0].flags,
        StatusMessage::FLAG_EOS,
        "at once"
    );
    for _ in 0..4 {
        image.data(&heartbeat(64, 0xE0));
        image.pass_time(200 * MS);
        assert_eq!(status_messages(&image.frames())[0].flags, StatusMessage::FLAG_EOS);
        assert_eq!(image.conductor.on_timer(image.now), ImageEvent::None);
    }
    image.pass_time(SECOND);
    assert_eq!(
        image.conductor.on_timer(image.now),
        ImageEvent::None,
        "not read yet"
    );
    assert!(image.conductor.accepts_subscribers());
    image.consume(0, 64);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Linger);
    assert!(!image.conductor.accepts_subscribers());
    image.pass_time(10 * SECOND - 1);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::None);
    image.pass_time(1);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Done);
    assert_eq!(image.conductor.state(), ImageState::Done);
}

#[test]
fn an_announced_end_waits_for_what_is_missing_before_it() {
    let mut image = TestImage::plain();
    image.data(&heartbeat(640, 0xE0));
    image.track();
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::None);
    image.data(&frame(0, &[1; 608]));
    image.track();
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
}

#[test]
fn without_subscribers_an_image_leaves_and_is_done_when_it_has_drained() {
    let mut image = TestImage::plain();
    image.conductor.unlink(|_| true);
    assert!(!image.conductor.accepts_subscribers());
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
    image.pass_time(SECOND);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Linger);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Done);
}

#[test]
fn a_revoked_stream_is_over_whatever_was_read() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.data(&heartbeat(64, 0xF0));
    assert!(image.track().revoked);
    assert!(!image.track().revoked, "said once");
    assert!(image.log.metadata().is_revoked());
    assert!(!image.conductor.accepts_subscribers());
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Linger);
}

#[test]
fn a_rejected_image_takes_nothing_and_tells_why_every_status_message_timeout() {
    let mut image = TestImage::new(Options {
        group_tag: Some(77),
        ..Options::default()
    });
    image.frames();
    image.data(&frame(0, &[1; 992]));
    assert!(image.conductor.reject("no thanks"));
    assert!(!image.conductor.reject("again"));
    assert_eq!(image.data(&frame(1024, &[1; 32])), DataOutcome::Ignored);
    for _ in 0..3 {
        let frames = image.frames();
        let error = ErrorFrame::parse(&frames[0]).unwrap();
        assert_eq!((error.text, error.error_code), (&b"no thanks"[..], 13));
        assert_eq!((error.receiver_id, error.group_tag), (RECEIVER_ID, Some(77)));
        assert_eq!(frames.len(), 1, "instead of a status message");
        assert_eq!(image.frames().len(), 0);
        image.pass_time(200 * MS);
    }
    assert_eq!(image.system.get(SystemCounter::ErrorFramesSent).get_relaxed(), 3);
    image.pass_time(10 * SECOND);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
}

#[test]
fn a_reason_that_is_too_long_is_cut() {
    let mut image = TestImage::new(Options {
        checks_source: false,
        ..Options::default()
    });
    image.conductor.reject(&"x".repeat(5000));
    let frames = image.frames();
    assert_eq!(ErrorFrame::parse(&frames[0]).unwrap().text.len(), 1023);
}

#[test]
fn gaps_of_an_unreliable_stream_become_padding_without_a_request() {
    let mut image = TestImage::new(Options {
        is_reliable: false,
        ..Options::default()
    });
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.data(&frame(192, &[1; 32]));
    image.track();
    image.track();
    assert_eq!(image.frames().len(), 0);
    assert_eq!(image.system.get(SystemCounter::LossGapFills).get_relaxed(), 1);
    image.track();
    assert_eq!(image.conductor.rebuild_position(), 256);
    let word = image.log.term(0).slot(64).load_acquire(HeaderWord::Length);
    assert_eq!((word as i32, word >> 48), (128, 0), "one padding frame");
    assert_eq!(
        image.data(&frame(64, &[2; 96])),
        DataOutcome::Accepted,
        "too late"
    );
    let word = image.log.term(0).slot(64).load_acquire(HeaderWord::Length);
    assert_eq!(word >> 48, 0, "it stays padding");
}

#[test]
fn round_trips_are_answered_for_us_and_measured() {
    let mut image = TestImage::plain();
    let request = Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id: SESSION,
        stream_id: STREAM,
        echo_timestamp: 99,
        reception_delta: 5,
        receiver_id: 0,
    };
    let RttmAction::Answer(answer) = image.receiver.on_rttm(image.now, &request) else {
        panic!("an answer");
    };
    assert_eq!(
        (answer.flags, answer.echo_timestamp, answer.reception_delta),
        (0, 99, 0)
    );
    assert_eq!(answer.receiver_id, RECEIVER_ID);
    let foreign = Rttm {
        receiver_id: RECEIVER_ID + 1,
        ..request
    };
    assert_eq!(image.receiver.on_rttm(image.now, &foreign), RttmAction::Ignore);
    let answered = Rttm {
        flags: 0,
        echo_timestamp: image.now.0 - 1_000,
        reception_delta: 100,
        receiver_id: RECEIVER_ID,
        ..request
    };
    assert_eq!(
        image.receiver.on_rttm(image.now, &answered),
        RttmAction::Sample { rtt_ns: 900 }
    );
}

#[test]
fn a_response_session_is_announced_with_every_timed_status_message_until_it_is_connected() {
    let mut image = TestImage::plain();
    image.frames();
    image.conductor.set_response_session(4242.into());
    for _ in 0..2 {
        let frames = image.frames();
        assert_eq!(
            classify(&frames[0]),
            Ok(FrameKind::ResponseSetup),
            "before the status message"
        );
        let setup = ResponseSetup::parse(&frames[0]).unwrap();
        assert_eq!(setup.response_session_id.0, 4242);
        assert_eq!((setup.session_id, setup.stream_id), (SESSION, STREAM));
        assert_eq!(status_messages(&frames).len(), 1);
        image.data(&heartbeat(0, 0xC0));
        image.pass_time(200 * MS);
    }
    image.conductor.response_connected();
    assert_eq!(image.frames().len(), 1);
}

#[test]
fn a_superseded_image_sends_no_timed_status_messages() {
    let mut image = TestImage::plain();
    image.frames();
    image.conductor.supersede();
    image.pass_time(200 * MS);
    assert_eq!(image.frames().len(), 0);
}

/// An image whose window was used up and opened again; the status message that says so left now.
fn with_reminder() -> TestImage {
    let mut image = TestImage::plain();
    image.frames();
    let mut position = 0;
    while position < i64::from(WINDOW) {
        image.data(&frame(position, &[1; 992]));
        position += 1024;
    }
    image.track();
    image.consume(0, position);
    image.track();
    assert_eq!(status_messages(&image.frames()).len(), 1);
    assert_eq!(
        image.receiver.reminder_deadline(),
        Some(image.now.plus_nanos(MS)),
        "the sender may not have heard it"
    );
    image
}

#[test]
fn a_status_message_that_opened_the_window_is_said_again() {
    let mut image = with_reminder();
    image.pass_time(MS - 1);
    assert_eq!(image.frames().len(), 0);
    image.pass_time(1);
    let [message] = status_messages(&image.frames())[..] else {
        panic!("one status message");
    };
    assert_eq!(message.term_offset, WINDOW);
    assert_eq!(
        image.receiver.reminder_deadline(),
        Some(image.now.plus_nanos(4 * MS))
    );
}

#[test]
fn images_that_were_rejected_or_superseded_have_no_deadline_that_stays_in_the_past() {
    let rejected = |image: &TestImage| {
        image.conductor.reject("no thanks");
    };
    let superseded = |image: &TestImage| image.conductor.supersede();
    for end in [&rejected as &dyn Fn(&TestImage), &superseded] {
        let mut image = with_reminder();
        end(&image);
        for _ in 0..50 {
            image.frames();
            assert_eq!(image.receiver.reminder_deadline(), None);
            assert!(!image.receiver.next_deadline().is_due(image.now));
            image.pass_time(50 * MS);
        }
    }
}

#[test]
fn every_live_connection_gets_feedback_through_its_own_transport() {
    let mut image = TestImage::plain();
    image.frames();
    let second = TransportRule {
        id: TransportId(5),
        feedback: FeedbackRule::Control(Some(address(9, 900))),
    };
    image.data_from(address(3, 300), second, &frame(0, &[1; 32]));
    image.data(&heartbeat(128, 0xC0));
    image.track();
    image.pass_time(1_000);
    image.track();
    let sent: Vec<_> = image.send().into_iter().map(|(id, to, _)| (id, to)).collect();
    assert_eq!(
        sent,
        [(TransportId::OWN, source()), (TransportId(5), address(9, 900))]
    );
    assert_eq!(image.naks_sent.get_relaxed(), 2);
    image.receiver.remove_destination(TransportId(5));
    image.pass_time(200 * MS);
    assert_eq!(image.send().len(), 1);
}

#[test]
fn the_stream_ends_when_all_its_sources_say_so() {
    let mut image = TestImage::plain();
    let second = TransportRule {
        id: TransportId(5),
        feedback: FeedbackRule::Source,
    };
    image.data_from(address(3, 300), second, &heartbeat(0, 0xC0));
    image.data(&heartbeat(64, 0xE0));
    assert!(!image.receiver.has_ended());
    image.data_from(address(3, 300), second, &heartbeat(128, 0xE0));
    image.track();
    assert_eq!(image.log.metadata().end_of_stream_position(), 128);
}

#[test]
fn a_forged_datagram_of_another_source_neither_ends_nor_feeds_the_stream() {
    let mut image = TestImage::plain();
    image.frames();
    for forged in [heartbeat(0, 0xF0), heartbeat(0, 0xE0), frame(0, b"forged")] {
        assert_eq!(
            image.data_from(address(66, 100), PLAIN, &forged),
            DataOutcome::Foreign
        );
        assert_eq!(
            image.data_from(address(1, 101), PLAIN, &forged),
            DataOutcome::Foreign
        );
    }
    image.track();
    assert!(!image.receiver.has_ended());
    assert_eq!(image.conductor.rebuild_position(), 0);
    let found = scan_gap(image.log.term(0), 0, 1024);
    assert_eq!(found.rebuild_offset, 0, "nothing was inserted");
}

#[test]
fn a_publisher_whose_port_was_changed_on_the_way_goes_on() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 32]));
    image.pass_time(500 * MS);
    image.frames();
    let moved = address(1, 555);
    assert_eq!(
        image.data_from(moved, PLAIN, &frame(64, &[1; 32])),
        DataOutcome::Foreign
    );
    image.pass_time(500 * MS);
    assert_eq!(
        image.data_from(moved, PLAIN, &frame(64, &[1; 32])),
        DataOutcome::Accepted
    );
    let sent = image.send();
    assert_eq!(sent[0].1, moved, "feedback follows");
    image.track();
    assert_eq!(image.conductor.rebuild_position(), 128);
}

#[test]
fn with_the_check_off_everybody_is_heard() {
    let mut image = TestImage::new(Options {
        checks_source: false,
        ..Options::default()
    });
    assert_eq!(
        image.data_from(address(66, 1), PLAIN, &frame(0, &[1; 32])),
        DataOutcome::Accepted
    );
    assert_eq!(
        image.send()[0].1,
        source(),
        "feedback stays with whoever announced the stream"
    );
}

#[test]
fn loss_is_recorded_once_however_often_it_is_asked_for() {
    let mut image = TestImage::plain();
    let region = Region::heap(4096);
    let mut report = LossReport::new(region.as_view());
    image.data(&frame(64, &[1; 32]));
    image.data(&frame(256, &[1; 32]));
    for _ in 0..10 {
        let lost = image.track().bytes_lost;
        if lost > 0 {
            image.conductor.record_loss(&mut report, EpochMs(5), lost);
        }
        image.pass_time(100_000);
    }
    image.data(&frame(512, &[1; 32]));
    let lost = image.track().bytes_lost;
    assert_eq!(lost, 192);
    image.conductor.record_loss(&mut report, EpochMs(7), lost);
    let records = read_all(&region.as_view());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].total_bytes_lost, 64 + 128 + 192);
    assert_eq!((records[0].first, records[0].last), (EpochMs(5), EpochMs(7)));
    assert_eq!(records[0].source, "10.0.0.1:100");
}

#[test]
fn late_subscribers_join_at_the_slowest_and_no_later_than_the_rebuild_position() {
    let mut image = TestImage::new(Options {
        subscribers: 2,
        ..Options::default()
    });
    image.data(&frame(0, &[1; 992]));
    image.track();
    image.consume(0, 1024);
    image.consume(1, 512);
    image.track();
    assert_eq!(image.conductor.join_position(), 512);
    image
        .conductor
        .unlink(|subscriber| subscriber.last_position() == 512);
    assert_eq!(image.conductor.join_position(), 1024);
}

#[test]
fn what_the_slowest_subscriber_has_not_read_stays_and_holds_the_window() {
    let mut image = TestImage::new(Options {
        subscribers: 2,
        ..Options::default()
    });
    let (read, arrived) = (i64::from(WINDOW) / 2, i64::from(WINDOW));
    for position in (0..arrived).step_by(1024) {
        image.data(&frame(position, &[1; 992]));
    }
    image.track();
    image.consume(0, arrived);
    image.consume(1, read);
    image.track();
    assert_eq!(image.conductor.next_status_message().position, read);
    for unread in (read..arrived).step_by(1024) {
        let slot = image.log.term(0).slot(unread as usize);
        assert_eq!(
            word_length(slot.load_acquire(HeaderWord::Length)),
            1024,
            "at {unread}"
        );
    }
}

#[test]
fn positions_that_a_client_made_up_move_nothing_beyond_what_has_arrived() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(0, &[1; 992]));
    for position in [i64::MAX, L * 1000, 7, -5, i64::MIN] {
        image.consume(0, position);
        image.track();
        let next = image.conductor.next_status_message();
        assert!(
            (0..=1024).contains(&next.position) && next.position % 32 == 0,
            "{next:?}"
        );
        assert_eq!(image.conductor.rebuild_position(), 1024);
    }
}

#[test]
fn subscribers_that_hold_the_sender_up_are_looked_at_again_soon_and_then_less_and_less() {
    let mut image = TestImage::plain();
    let mut position = 0;
    while position <= i64::from(WINDOW) / 2 {
        image.track();
        assert_eq!(image.conductor.next_deadline(), None, "at {position}");
        image.data(&frame(position, &[1; 992]));
        position += 1024;
    }
    image.track();
    let mut waits = Vec::new();
    while waits.last() != Some(&(10 * MS)) {
        let deadline = image.conductor.next_deadline().unwrap();
        waits.push(deadline.since(image.now));
        image.pass_time(deadline.since(image.now));
        image.track();
    }
    assert_eq!(waits[..3], [100_000, 200_000, 400_000]);
    image.consume(0, 1024);
    image.track();
    let soon = image.conductor.next_deadline().unwrap();
    assert_eq!(soon.since(image.now), 100_000, "it reads on");
    image.consume(0, position);
    image.track();
    assert_eq!(image.conductor.next_deadline(), None, "it has caught up");
}

#[test]
fn a_source_that_has_fallen_silent_is_asked_seldom_and_a_drained_image_not_at_all() {
    let mut image = TestImage::plain();
    image.frames();
    image.data(&frame(64, &[1; 32]));
    image.track();
    image.pass_time(SECOND);
    let mut looks = 0;
    let end = image.now.plus_nanos(SECOND);
    while !end.is_due(image.now) {
        image.track();
        let deadline = image.conductor.next_deadline().unwrap();
        image.now = deadline;
        looks += 1;
    }
    assert!((90..=110).contains(&looks), "{looks} looks in a second");
    image.data(&heartbeat(128, 0xC0));
    image.track();
    image.pass_time(100_000);
    image.track();
    assert!(
        image.conductor.next_deadline().unwrap().since(image.now) <= 100_000,
        "it is back"
    );
    image.pass_time(10 * SECOND);
    assert_eq!(image.conductor.on_timer(image.now), ImageEvent::Draining);
    image.track();
    assert_eq!(image.conductor.next_deadline(), None);
}

#[test]
fn an_image_that_is_over_sets_no_deadline() {
    let mut image = TestImage::plain();
    image.data(&frame(64, &[1; 992]));
    image.track();
    assert!(image.conductor.next_deadline().is_some());
    image.data(&heartbeat(2048, 0xF0));
    image.track();
    assert_eq!(image.conductor.next_deadline(), None);
    let mut image = TestImage::plain();
    image.data(&frame(64, &[1; 992]));
    image.track();
    image.conductor.unlink(|_| true);
    image.track();
    assert_eq!(image.conductor.next_deadline(), None, "nobody reads it");
}

#[test]
fn a_long_stream_finds_clean_memory_in_every_term() {
    let mut image = TestImage::plain();
    let mut position = 0;
    while position < 20 * L {
        let room = L - position % L;
        let datagram = if room < 1408 && room > 32 {
            padding(position, room as i32)
        } else {
            frame(position, &[7; 1376])
        };
        let (partition, offset) = (SHAPE.partition(position), SHAPE.offset(position));
        let slot = image.log.term(partition).slot(offset as usize);
        assert_eq!(slot.load_acquire(HeaderWord::Length), 0, "dirty at {position}");
        assert_eq!(image.data(&datagram), DataOutcome::Accepted, "at {position}");
        image.track();
        position = image.high_water_mark.get_relaxed();
        assert_eq!(image.conductor.rebuild_position(), position);
        image.consume(0, position);
        image.track();
        image.frames();
        image.pass_time(1_000);
    }
    assert_eq!(
        SHAPE.term_id(position).0,
        INITIAL_TERM.0.wrapping_add((position / L) as i32)
    );
}
