//! To-driver ring: whatever stands in it, reading and repair end, and after a bounded number of repairs a message
//! goes through again.
#![no_main]

use fulmar::memory::AtomicBuffer;
use fulmar::ring::mpsc_ring::TRAILER_LENGTH;
use fulmar::ring::{ManyToOneRing, ReadAction};
use fulmar_fuzz::{Input, region};
use libfuzzer_sys::fuzz_target;

const CAPACITY: usize = 1024;
const TAIL_OFFSET: usize = CAPACITY + 128;
const HEAD_CACHE_OFFSET: usize = CAPACITY + 256;
const HEAD_OFFSET: usize = CAPACITY + 384;
/// More rounds than there are records and holes.
const ROUNDS: usize = CAPACITY / 8 + 8;
const PROBE_TYPE: i32 = 0x7777;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (tail, head_cache, head) = (input.position(8), input.position(8), input.position(8));
    let operations = input.bytes(8);
    let region = region(CAPACITY + TRAILER_LENGTH, input.bytes(CAPACITY));
    let view = region.as_view();
    view.store_relaxed_i64(TAIL_OFFSET, tail);
    view.store_relaxed_i64(HEAD_CACHE_OFFSET, head_cache);
    view.store_relaxed_i64(HEAD_OFFSET, head);
    let ring = ManyToOneRing::new(view).expect("the length is right");
    let mut scratch = Vec::new();
    for operation in operations {
        let limit = usize::from(operation >> 4);
        match operation & 7 {
            0 => drop(ring.write(1, &[7; 16])),
            1 => drop(ring.unblock()),
            2 => drop(ring.unblock_dead(i64::from(operation >> 3))),
            3 => drop(ring.claim(1, limit)),
            action => {
                let action = [
                    ReadAction::Continue,
                    ReadAction::Abort,
                    ReadAction::Break,
                    ReadAction::Commit,
                ][usize::from(action) - 4];
                let count = ring
                    .read(limit, |_, _| action, &mut scratch)
                    .unwrap_or_else(|e| e.messages);
                assert!(count <= limit);
            }
        }
        let _ = ring.consumer_heartbeat();
        let _ = ring.next_correlation_id();
    }
    let mut arrived = false;
    for _ in 0..ROUNDS {
        let _ = ring.write(PROBE_TYPE, b"probe");
        let probe = |type_id: i32, payload: &[u8]| {
            arrived |= type_id == PROBE_TYPE && payload == b"probe";
            ReadAction::Continue
        };
        let _ = ring.read(usize::MAX, probe, &mut scratch);
        if arrived {
            return;
        }
        let _ = ring.unblock();
    }
    panic!("the ring does not come back to work");
});
