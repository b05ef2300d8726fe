//! Positions come from counters that any process can write, so repairs meet positions at the ends of their range.
#![cfg(not(loom))]

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::frame::{FLAGS_UNFRAGMENTED, TYPE_DATA, length_word};
use fulmar::log::{LogBuffers, LogInit, Metadata, clean, pad_range, sweep, unblock};
use fulmar::memory::{AtomicBuffer, Region};

const TERM_LENGTH: usize = 1024;

/// A log whose terms are full of committed frames of 32 bytes.
fn full_log() -> LogBuffers {
    let metadata = Region::heap(4096).as_view();
    let init = LogInit {
        mtu_length: 256,
        ..LogInit::ipc_default(
            RegistrationId(1),
            SessionId(2),
            StreamId(3),
            TermId(4),
            TERM_LENGTH as i32,
        )
    };
    init.write_to(&Metadata::new(metadata.clone()).expect("the length is right"));
    let terms = core::array::from_fn(|_| {
        let term = Region::heap(TERM_LENGTH).as_view();
        for offset in (0..TERM_LENGTH).step_by(32) {
            term.store_relaxed_i64(offset, length_word(32, FLAGS_UNFRAGMENTED, TYPE_DATA));
        }
        term
    });
    LogBuffers::from_parts(terms, metadata).expect("the fields are sound")
}

#[test]
fn a_sweep_at_the_end_of_the_range_stops_there() {
    let log = full_log();
    let last_frame = i64::MAX & !31;
    let swept = sweep(&log, last_frame - 32, i64::MAX, |_| true, 1000);
    assert_eq!(swept.position, i64::MAX);
    assert_eq!((swept.padded, swept.open), (0, 0));
}

#[test]
fn repairs_take_any_position() {
    let log = full_log();
    for position in [i64::MIN, -32, -1, 1, i64::MAX & !31, i64::MAX] {
        let _ = unblock(&log, position);
        assert_eq!(pad_range(&log, position, i64::MAX).padded, 0);
        let cleaned = clean(&log, position, i64::MAX, TERM_LENGTH);
        assert!(cleaned == position || (cleaned > position && cleaned - position <= TERM_LENGTH as i64));
        assert!(sweep(&log, position, i64::MAX, |_| true, 3).position >= position);
    }
}
