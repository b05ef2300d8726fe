//! Rotation: making the next term the active one (shared-memory spec 10.3, 10.4).
#![forbid(unsafe_code)]

use crate::id::TermId;
use crate::log::metadata::{Metadata, raw_tail, raw_tail_term_id};
use crate::log::words::Words;
use crate::position::{PARTITION_COUNT, partition_of_term_count};

/// Attempts at the next tail before giving up. It changes at most once while it is stale (another publisher rotates
/// it), so more attempts only happen when somebody scribbles on the metadata.
const ATTEMPTS_MAX: usize = 8;

/// Moves a log from `term_id`, whose term count is `term_count`, to the next term. Any number of publishers and the
/// driver's unblocker may do it at the same time; it happens once.
#[cold]
pub fn rotate<B: Words>(metadata: &Metadata<B>, term_count: i32, term_id: TermId) {
    let next_count = term_count.wrapping_add(1);
    let next_term_id = TermId(term_id.0.wrapping_add(1));
    let stale_term_id = TermId(next_term_id.0.wrapping_sub(PARTITION_COUNT as i32));
    let next = partition_of_term_count(next_count);
    for _ in 0..ATTEMPTS_MAX {
        // SYNC tail: the tail of the partition that is rotated in.
        let raw = metadata.tail_acquire(next);
        if raw_tail_term_id(raw) != stale_term_id
            || metadata.tail_cas(next, raw, raw_tail(next_term_id, 0)).is_ok()
        {
            break;
        }
    }
    // SYNC active-term-count: whoever sees the new count sees the tail set above. Failure means it is done.
    let _ = metadata.active_term_count_cas(term_count, next_count);
}

/// Moves an exclusive log on: its one publisher needs no compare-exchange.
#[cold]
pub fn rotate_exclusive<B: Words>(metadata: &Metadata<B>, term_count: i32, term_id: TermId) {
    let next_count = term_count.wrapping_add(1);
    let next_term_id = TermId(term_id.0.wrapping_add(1));
    metadata.tail_relaxed_store(partition_of_term_count(next_count), raw_tail(next_term_id, 0));
    // SYNC active-term-count: publishes the tail set above.
    metadata.active_term_count_release(next_count);
}
