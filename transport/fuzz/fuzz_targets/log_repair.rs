//! The driver's repairs of a log whose tails and frames are scribbled over, at any position: each ends, and says no
//! more than it can have done.
#![no_main]

use fulmar::log::{clean, pad_range, sweep, unblock};
use fulmar_fuzz::{Input, TERM_LENGTH, scribbled_log};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let log = scribbled_log(&mut input);
    for _ in 0..8 {
        if input.is_empty() {
            return;
        }
        let operation = input.u8();
        let (from, to) = (input.position(32), input.position(32));
        let length = usize::from(input.u16());
        match operation & 3 {
            0 => drop(unblock(&log, from)),
            1 => {
                let swept = sweep(&log, from, to, |tag| tag & 1 == 0, length & 0x3F);
                assert!(swept.position >= from);
                assert!(swept.padded + swept.open <= length & 0x3F);
            }
            2 => {
                let padded = pad_range(&log, from, to);
                assert!((0..=TERM_LENGTH as i64).contains(&padded.padded));
            }
            _ => {
                let cleaned = clean(&log, from, to, length);
                assert!(cleaned == from || (from..=to).contains(&cleaned));
                assert!(cleaned - from <= TERM_LENGTH as i64);
            }
        }
    }
});
