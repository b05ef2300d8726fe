//! Repairs of holes that are large, at the tail, in the last term, or shared with the living; and appends whose
//! application code panics.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fulmar::agent::ProcessId;
use fulmar::cnc::extension::{Extension, FILE_LENGTH, OwnerSlot, Window};
use fulmar::id::{ClientId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::frame::{TYPE_DATA, length_word};
use fulmar::log::unblock::{PAD_BYTES_MAX, SCAN_BYTES_MAX};
use fulmar::log::words::HeaderWord;
use fulmar::log::{
    Action, AppendOutcome, ConcurrentAppender, ExclusiveAppender, FrameView, LogBuffers, LogInit, Metadata,
    NoReservedValue, NoWindow, Unblock, Words, producer_position, scan_fragments, unblock_guarded,
    unblock_to,
};
use fulmar::memory::{Region, View};
use fulmar::time::EpochMs;

const MTU: i32 = 256;

fn log(term_length: i32) -> LogBuffers {
    let init = LogInit {
        mtu_length: MTU,
        ..LogInit::ipc_default(
            RegistrationId(1),
            SessionId(7),
            StreamId(9),
            TermId(0),
            term_length,
        )
    };
    let metadata = Region::heap(4096).as_view();
    init.write_to(&Metadata::new(metadata.clone()).unwrap());
    let terms = [0; 3].map(|_| Region::heap(term_length as usize).as_view());
    LogBuffers::from_parts(terms, metadata).unwrap()
}

fn owner_slot(extension: &Extension) -> OwnerSlot {
    extension
        .claim_owner_slot(ClientId(5), 55, RegistrationId(1))
        .unwrap()
}

fn extension() -> Extension {
    let process = ProcessId {
        pid: 1,
        start_time_ticks: 1,
        namespace: 1,
    };
    Extension::create(&Region::heap(FILE_LENGTH), process, EpochMs(1)).unwrap()
}

/// Lengths of the payloads of term 0 from an offset on, and where the frames end.
fn payloads<B: Words>(log: &LogBuffers<B>, offset: i32) -> (Vec<usize>, i32) {
    let mut lengths = Vec::new();
    let result = scan_fragments(log.term(0), offset, i32::MAX, 100, |frame| {
        lengths.push(frame.payload_length());
        Action::Continue
    });
    assert!(!result.corrupt);
    (lengths, result.offset)
}

fn offer(log: &LogBuffers, message: &[u8]) -> AppendOutcome {
    ConcurrentAppender::new(log.clone(), 1).offer(&NoWindow, message, &NoReservedValue, i64::MAX)
}

#[test]
fn the_guard_is_asked_about_the_start_and_then_about_all_that_would_be_padded() {
    let log = log(4096);
    log.metadata().tail_fetch_add(0, 96);
    offer(&log, b"behind");
    let asked = RefCell::new(Vec::new());
    let outcome = unblock_guarded(&log, 0, 0, |position, length| {
        asked.borrow_mut().push((position, length));
        false
    });
    assert_eq!(outcome, Unblock::Padded { length: 96 });
    assert_eq!(asked.into_inner(), [(0, 32), (0, 96)]);
}

#[test]
fn a_living_publisher_inside_the_hole_keeps_its_range() {
    let log = log(4096);
    let extension = extension();
    let living = owner_slot(&extension);
    log.metadata().tail_fetch_add(0, 64);
    living.enter();
    log.metadata().tail_fetch_add(0, 64);
    let guard = |position, length| {
        extension
            .owners()
            .any(|owner| owner.window.may_touch(position, length))
    };
    offer(&log, b"behind");
    let not_yet = Unblock::NotYet { scanned_to: 0 };
    assert_eq!(unblock_guarded(&log, 0, 0, guard), not_yet);
    living.claimed(64, 64);
    assert_eq!(unblock_guarded(&log, 0, 0, guard), not_yet);
    living.leave();
    assert_eq!(
        unblock_guarded(&log, 0, 0, guard),
        Unblock::Padded { length: 128 }
    );
}

#[test]
fn a_publisher_that_is_ready_while_the_guard_looks_keeps_its_range() {
    let log = log(4096);
    log.metadata().tail_fetch_add(0, 128);
    offer(&log, b"behind");
    let mut questions = 0;
    let outcome = unblock_guarded(&log, 0, 0, |_, length| {
        questions += 1;
        if length > 32 {
            // It commits and leaves before its window is read.
            log.term(0)
                .slot(64)
                .store_release(HeaderWord::Length, length_word(64, 0xc0, TYPE_DATA));
        }
        false
    });
    assert_eq!((outcome, questions), (Unblock::NotYet { scanned_to: 0 }, 2));
    assert_eq!(
        unblock_guarded(&log, 0, 0, |_, _| false),
        Unblock::Padded { length: 64 }
    );
    assert_eq!(payloads(&log, 64).0, [32, 6]);
}

#[test]
fn a_hole_at_the_end_of_a_finished_stream_is_padded_up_to_that_end() {
    let log = log(4096);
    offer(&log, b"first");
    log.metadata().tail_fetch_add(0, 96);
    assert_eq!(
        unblock_guarded(&log, 64, 64, |_, _| false),
        Unblock::NotYet { scanned_to: 64 }
    );
    assert_eq!(unblock_to(&log, 64, 64, 64, |_, _| false), Unblock::NotNeeded);
    assert_eq!(
        unblock_to(&log, 64, 160, 64, |_, _| true),
        Unblock::NotYet { scanned_to: 64 }
    );
    assert_eq!(
        unblock_to(&log, 64, 128, 64, |_, _| false),
        Unblock::Padded { length: 64 }
    );
    // The tail limits what is believed of the end.
    assert_eq!(
        unblock_to(&log, 128, i64::MAX, 128, |_, _| false),
        Unblock::Padded { length: 32 }
    );
    assert_eq!(
        unblock_to(&log, 160, i64::MAX, 160, |_, _| false),
        Unblock::NotNeeded
    );
    assert_eq!(payloads(&log, 0), (vec![5], 160));
}

#[test]
fn a_long_hole_is_searched_in_steps_and_padded_at_once() {
    let term_length = 8 << 20;
    let hole = 3 * SCAN_BYTES_MAX as i64 + 64;
    let log = log(term_length);
    log.metadata().tail_fetch_add(0, hole);
    offer(&log, b"behind");
    let mut scan_from = 0;
    for step in 1..=3 {
        let outcome = unblock_guarded(&log, 0, scan_from, |_, _| false);
        scan_from = step * SCAN_BYTES_MAX as i64;
        assert_eq!(
            outcome,
            Unblock::NotYet {
                scanned_to: scan_from
            }
        );
    }
    assert_eq!(
        unblock_guarded(&log, 0, scan_from, |_, _| false),
        Unblock::Padded { length: hole as i32 }
    );
    assert_eq!(payloads(&log, 0), (vec![6], hole as i32 + 64));
}

#[test]
fn the_search_goes_on_exactly_where_it_stopped() {
    let log = log(8 << 20);
    log.metadata().tail_fetch_add(0, SCAN_BYTES_MAX as i64);
    offer(&log, b"behind");
    let scanned_to = SCAN_BYTES_MAX as i64;
    assert_eq!(
        unblock_guarded(&log, 0, 0, |_, _| false),
        Unblock::NotYet { scanned_to }
    );
    assert_eq!(
        unblock_guarded(&log, 0, scanned_to, |_, _| false),
        Unblock::Padded {
            length: scanned_to as i32
        }
    );
}

#[test]
fn a_frame_below_the_hint_makes_the_search_begin_anew() {
    let log = log(4096);
    log.metadata().tail_fetch_add(0, 64);
    offer(&log, b"in between");
    log.metadata().tail_fetch_add(0, 64);
    offer(&log, b"behind");
    assert_eq!(
        unblock_guarded(&log, 0, 128, |_, _| false),
        Unblock::NotYet { scanned_to: 0 }
    );
    // Hints that can not be are none.
    for hint in [i64::MIN, -32, 7, 1 << 40, i64::MAX] {
        let asked = RefCell::new(Vec::new());
        let outcome = unblock_guarded(&log, 0, hint, |_, length| {
            asked.borrow_mut().push(length);
            length > 32
        });
        assert_eq!(outcome, Unblock::NotYet { scanned_to: 0 });
        assert_eq!(asked.into_inner(), [32, 64], "{hint}");
    }
}

#[test]
fn a_hole_longer_than_one_padding_takes_several() {
    let term_length = 64 << 20;
    let log = log(term_length);
    log.metadata().tail_fetch_add(0, i64::from(term_length) + 64);
    let (mut position, mut scan_from, mut paddings) = (0, 0, 0);
    while position < i64::from(term_length) {
        match unblock_guarded(&log, position, scan_from, |_, _| false) {
            Unblock::Padded { length } => {
                assert_eq!(length as usize, PAD_BYTES_MAX);
                paddings += 1;
                position += i64::from(length);
                scan_from = position;
            }
            Unblock::NotYet { scanned_to } if scanned_to > scan_from => scan_from = scanned_to,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(paddings, 2);
    assert_eq!(log.metadata().active_term_count_acquire(), 1);
    assert_eq!(producer_position(log.metadata(), log.shape()), position);
}

#[test]
fn the_last_term_is_padded_and_not_rotated() {
    let log = log(4096);
    let last = i32::MAX;
    let partition = (last % 3) as usize;
    log.metadata().active_term_count_release(last);
    log.metadata()
        .tail_relaxed_store(partition, (i64::from(last) << 32) | 4096);
    let next = log.metadata().tail_acquire((partition + 1) % 3);
    let position = i64::from(last) * 4096 + 4032;
    for attempt in [Unblock::Padded { length: 64 }, Unblock::NotNeeded] {
        assert_eq!(unblock_guarded(&log, position, position, |_, _| false), attempt);
        assert_eq!(log.metadata().active_term_count_acquire(), last);
        assert_eq!(log.metadata().tail_acquire((partition + 1) % 3), next);
    }
    assert_eq!(
        unblock_guarded(&log, position + 64, 0, |_, _| false),
        Unblock::NotNeeded
    );
}

#[test]
fn a_tail_that_is_no_frame_boundary_makes_no_malformed_padding() {
    let log = log(4096);
    log.metadata().tail_fetch_add(0, 64 + 7);
    assert_eq!(
        unblock_to(&log, 0, 71, 0, |_, _| false),
        Unblock::Padded { length: 64 }
    );
    assert_eq!(unblock_to(&log, 64, 71, 64, |_, _| false), Unblock::NotNeeded);
    assert_eq!(payloads(&log, 0), (vec![], 64));
}

#[test]
fn a_panic_in_a_reserved_value_leaves_padding_and_an_empty_window() {
    for length in [8, 200, 400] {
        let log = log(4096);
        let extension = extension();
        let window = owner_slot(&extension);
        let appender = ConcurrentAppender::new(log.clone(), 55);
        // Of several frames the last one fails.
        let value = |frame: &FrameView<'_, View>| {
            assert!(
                frame.next_offset() <= MTU && length > MTU as usize,
                "by the application"
            );
            7
        };
        let message = vec![1; length];
        let result = catch_unwind(AssertUnwindSafe(|| {
            appender.offer(&window, &message, &value, i64::MAX)
        }));
        assert!(result.is_err());
        assert_eq!(window.window(), Window::None);
        offer(&log, b"next");
        let (lengths, end) = payloads(&log, 0);
        assert_eq!(lengths.last(), Some(&4));
        assert_eq!(lengths.len(), if length > MTU as usize { 2 } else { 1 });
        assert_eq!(i64::from(end), appender.position());
        drop(window);
        assert_eq!(extension.owners().count(), 0, "the slot is free");
    }
}

#[test]
fn a_panic_in_a_reserved_value_leaves_padding_in_an_exclusive_log() {
    for length in [8, 400] {
        let log = log(4096);
        let mut appender = ExclusiveAppender::new(log.clone());
        let fail = |_: &FrameView<'_, View>| -> i64 { panic!("by the application") };
        let message = vec![1; length];
        let result = catch_unwind(AssertUnwindSafe(|| appender.offer(&message, &fail, i64::MAX)));
        assert!(result.is_err());
        appender.offer(b"next", &NoReservedValue, i64::MAX);
        assert_eq!(payloads(&log, 0), (vec![4], appender.position() as i32));
    }
}
