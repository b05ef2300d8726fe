//! Repair of the to-driver ring behind producers that died in the middle of a write (shared-memory spec 3.5).
//!
//! A claimed record has a negative length and can be turned into padding at once. A producer that died before that
//! left a hole of zeros, whose end is found by looking for the next record. Beyond the spec: claims of a client that
//! is known to be dead are freed without waiting ([`ManyToOneRing::unblock_dead`]), and a hole that reaches the end
//! of the buffer is repaired too, once there are records at its start.
#![forbid(unsafe_code)]

use super::mpsc_ring::{HEAD_OFFSET, ManyToOneRing};
use super::record::{self, ALIGNMENT, HEADER_LENGTH, PADDING_TYPE_ID};
use crate::memory::AtomicBuffer;

impl<B: AtomicBuffer> ManyToOneRing<B> {
    /// Frees the record at the head if it is claimed or a hole; whether it did. The caller has seen that the head has
    /// not moved for longer than the client liveness timeout while there was something to read. For the consumer only.
    pub fn unblock(&self) -> bool {
        let head = self.buffer.load_relaxed_i64(self.trailer(HEAD_OFFSET));
        let Ok(used) = self.used(head) else {
            return true;
        };
        if used == 0 {
            return false;
        }
        let index = self.index(head);
        let space = used.min(self.capacity - index);
        let header = self.buffer.load_acquire_i64(index);
        let length = record::length_of(header);
        if length > 0 {
            return false;
        }
        if length == 0 {
            return self.unblock_hole(head, header, used);
        }
        let claimed = length.unsigned_abs() as usize;
        if claimed < HEADER_LENGTH || record::occupied(claimed) > space {
            // No producer of ours claims that: what follows can not be found.
            self.free(head, space);
            return true;
        }
        self.pad_claim(index, header)
    }

    /// Frees every record between head and tail that is claimed, not committed, by this client, which is known to be
    /// dead; whether there was one. Call it once after the client's death. For the consumer only.
    pub fn unblock_dead(&self, client_id: i64) -> bool {
        let head = self.buffer.load_relaxed_i64(self.trailer(HEAD_OFFSET));
        let Ok(used) = self.used(head) else {
            return true;
        };
        let mut freed = false;
        let mut walked = 0;
        while walked < used {
            let index = self.index(head.wrapping_add(walked as i64));
            let space = (used - walked).min(self.capacity - index);
            let header = self.buffer.load_acquire_i64(index);
            let length = record::length_of(header).unsigned_abs() as usize;
            if length < HEADER_LENGTH || record::occupied(length) > space {
                // A hole or something that can not be: `unblock` and `read` deal with it.
                break;
            }
            if record::length_of(header) < 0
                && length >= HEADER_LENGTH + 8
                && self.buffer.load_relaxed_i64(index + HEADER_LENGTH) == client_id
            {
                freed |= self.pad_claim(index, header);
            }
            walked += record::occupied(length);
        }
        freed
    }

    /// Turns a claimed record of a checked length into padding, unless its producer commits first.
    fn pad_claim(&self, index: usize, header: i64) -> bool {
        let padding = record::header(-record::length_of(header), PADDING_TYPE_ID);
        self.buffer.compare_exchange_i64(index, header, padding).is_ok()
    }

    /// The record at the head has no length: its producer stopped between moving the tail and marking its claim.
    fn unblock_hole(&self, head: i64, header: i64, used: usize) -> bool {
        let index = self.index(head);
        let to_end = self.capacity - index;
        let limit = index + used.min(to_end);
        let behind_wrap = used.saturating_sub(to_end);
        let end = if let Some(end) = self.next_record(index + ALIGNMENT, limit) {
            end
        } else if self.next_record(0, behind_wrap).is_some() {
            // Wrap padding that was never written: what stands at the start of the buffer proves that the tail went past.
            self.capacity
        } else if used > self.capacity / 2 {
            // More than dead producers leave with nobody writing behind them, and too much for the living: somebody
            // moved the tail.
            self.free(head, limit - index);
            self.free(head.wrapping_add((limit - index) as i64), behind_wrap);
            return true;
        } else {
            // Nothing behind the hole waits for it.
            return false;
        };
        // SYNC ring-claim: what was found may be the payload of a producer that woke up meanwhile; then its claim, in
        // front of it, is seen now.
        if self.next_record(index, end).is_some() {
            return false;
        }
        let padding = record::header((end - index) as i32, PADDING_TYPE_ID);
        self.buffer.compare_exchange_i64(index, header, padding).is_ok()
    }

    /// The first record boundary in `[from, limit)` with a length that is not 0.
    fn next_record(&self, from: usize, limit: usize) -> Option<usize> {
        (from..limit)
            .step_by(ALIGNMENT)
            .find(|&index| self.buffer.load_acquire_i32(index) != 0)
    }
}
