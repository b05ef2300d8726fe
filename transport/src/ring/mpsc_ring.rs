//! The to-driver ring: many producers, one consumer (shared-memory spec 3.1 to 3.4, 3.6).
//!
//! A producer moves the tail by compare-and-set, marks its record claimed, writes the payload and commits. The
//! consumer copies committed records out, zeroes them and moves the head. Repair of what dead producers leave behind
//! lives in [`super::unblock`].
//!
//! Beyond the spec: commit is a compare-and-set of the header word, so that a producer that was stopped until the
//! driver took its record away finds out instead of writing into somebody else's; and the first payload word of a
//! command, its client id, is written right after the claim, so that the driver can tell whose claim it is.
#![forbid(unsafe_code)]

use super::RingError;
use super::record::{self, ALIGNMENT, HEADER_LENGTH, PADDING_TYPE_ID};
use crate::memory::AtomicBuffer;
use crate::sync::{Ordering, fence, spin_loop};
use crate::time::EpochMs;

/// Length of the trailer behind the records, bytes.
pub const TRAILER_LENGTH: usize = 768;

// Offsets from the start of the trailer; each field has 128 bytes to itself.
pub(super) const TAIL_OFFSET: usize = 128;
const HEAD_CACHE_OFFSET: usize = TAIL_OFFSET + 128;
pub(super) const HEAD_OFFSET: usize = HEAD_CACHE_OFFSET + 128;
const CORRELATION_OFFSET: usize = HEAD_OFFSET + 128;
const HEARTBEAT_OFFSET: usize = CORRELATION_OFFSET + 128;
const _: () = assert!(HEARTBEAT_OFFSET + 128 == TRAILER_LENGTH);
// What producers move and what the consumer moves share no pair of cache lines.
const _: () =
    assert!(TAIL_OFFSET.is_multiple_of(128) && HEAD_OFFSET.is_multiple_of(128) && TAIL_OFFSET != HEAD_OFFSET);

/// Most rounds of a claim: losing this often to other producers is reported as a full ring, so that a process that
/// rewrites the tail for ever can not hold this one.
pub const CLAIM_ATTEMPTS_MAX: usize = 10_000;

/// What the consumer's handler wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAction {
    /// Go on with the next record.
    Continue,
    /// Leave this record in the ring and stop.
    Abort,
    /// Stop behind this record.
    Break,
    /// Free everything up to and with this record now, then go on.
    Commit,
}

/// A record that can not be was found at the head and skipped, or the positions were impossible and reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt ring at position {position}: record length {length}; skipped {skipped} bytes")]
pub struct RingCorrupt {
    /// Where it was found.
    pub position: i64,
    /// The length that stood there; 0 if the positions themselves were impossible.
    pub length: i32,
    /// Bytes given up, other producers' records among them.
    pub skipped: usize,
    /// Messages that were handed to the handler in the same call before it was found.
    pub messages: usize,
}

/// One to-driver ring over a buffer of a power of two plus [`TRAILER_LENGTH`] bytes. Producers and the consumer use
/// the same type; only one thread of one process may call the consumer's methods (`read`, `unblock`, `unblock_dead`,
/// `set_consumer_heartbeat`).
#[derive(Clone, Debug)]
pub struct ManyToOneRing<B> {
    pub(super) buffer: B,
    pub(super) capacity: usize,
}

/// A claimed record: committed with [`Claim::commit`], given up (as padding) when dropped.
#[derive(Debug)]
pub struct Claim<'a, B: AtomicBuffer> {
    ring: &'a ManyToOneRing<B>,
    index: usize,
    /// Header and payload, bytes.
    length: i32,
    type_id: i32,
}

impl<B: AtomicBuffer> ManyToOneRing<B> {
    /// Looks at `buffer` as a ring. Fresh zeroed memory is an empty ring.
    ///
    /// # Errors
    /// [`RingError::BadLength`] if the length is no power of two plus the trailer.
    pub fn new(buffer: B) -> Result<Self, RingError> {
        let length = buffer.capacity();
        let capacity = record::capacity_of(length, TRAILER_LENGTH).ok_or(RingError::BadLength { length })?;
        Ok(Self { buffer, capacity })
    }

    /// Bytes for records.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The longest payload that goes in, bytes.
    #[must_use]
    pub fn max_message_length(&self) -> usize {
        self.capacity / 8
    }

    /// Writes one message and makes it visible to the consumer.
    ///
    /// # Errors
    /// [`RingError::Full`], [`RingError::TooLong`]; [`RingError::Revoked`] if this thread was stopped so long that the
    /// driver took the record away; [`RingError::Corrupt`] if the positions can not be.
    ///
    /// # Panics
    /// If `type_id` is not positive: that is no message.
    pub fn write(&self, type_id: i32, payload: &[u8]) -> Result<(), RingError> {
        let claim = self.claim(type_id, payload.len())?;
        let first_word = claim.index + HEADER_LENGTH;
        let client_id = payload.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
        if let Some(client_id) = client_id {
            self.buffer.store_relaxed_i64(first_word, client_id);
        }
        if !claim.is_held() {
            if let Some(client_id) = client_id {
                // Space given back is zero, so that nobody takes the id for a record.
                let _ = self.buffer.compare_exchange_i64(first_word, client_id, 0);
            }
            return Err(RingError::Revoked);
        }
        self.buffer.copy_in(first_word, payload);
        claim.commit()
    }

    /// Claims a record for a payload of `length` bytes.
    ///
    /// # Errors
    /// As [`Self::write`].
    ///
    /// # Panics
    /// If `type_id` is not positive.
    pub fn claim(&self, type_id: i32, length: usize) -> Result<Claim<'_, B>, RingError> {
        assert!(type_id > 0, "message type ids are positive");
        let max_length = self.max_message_length();
        if length > max_length {
            return Err(RingError::TooLong { length, max_length });
        }
        let record_length = HEADER_LENGTH + length;
        let position = self.reserve(record::occupied(record_length))?;
        let index = self.index(position);
        let length = record_length as i32;
        let claimed = record::header(-length, type_id);
        self.buffer.store_release_i64(index, claimed);
        // SYNC ring-claim: whoever sees a word of the payload, which looks like a record where none starts, sees the
        // claim in front of it as well.
        fence(Ordering::Release);
        let head = self.buffer.load_acquire_i64(self.trailer(HEAD_OFFSET));
        if head.wrapping_sub(position) > 0 {
            // Stopped for so long since the reservation that the space was given back: leave no claim there.
            let _ = self.buffer.compare_exchange_i64(index, claimed, 0);
            return Err(RingError::Revoked);
        }
        Ok(Claim {
            ring: self,
            index,
            length,
            type_id,
        })
    }

    /// Moves the tail over `required` bytes in one piece and returns their position.
    fn reserve(&self, required: usize) -> Result<i64, RingError> {
        let required = required as i64;
        let capacity = self.capacity as i64;
        let mut head = self.buffer.load_acquire_i64(self.trailer(HEAD_CACHE_OFFSET));
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            let tail = self.buffer.load_acquire_i64(self.trailer(TAIL_OFFSET));
            if tail & (ALIGNMENT as i64 - 1) != 0 {
                return Err(RingError::Corrupt);
            }
            let mut used = tail.wrapping_sub(head);
            if used < 0 || required > capacity - used {
                head = self.refresh_head_cache();
                used = tail.wrapping_sub(head);
                if used < 0 {
                    // The head went past the tail that was read: that tail is old.
                    spin_loop();
                    continue;
                }
                if required > capacity - used {
                    return Err(RingError::Full);
                }
            }
            let index = self.index(tail);
            let to_end = self.capacity - index;
            let mut padding = 0;
            if required > to_end as i64 {
                if required > self.index(head) as i64 {
                    head = self.refresh_head_cache();
                    if required > self.index(head) as i64 {
                        return Err(RingError::Full);
                    }
                }
                padding = to_end;
            }
            let new_tail = tail.wrapping_add(required + padding as i64);
            if self
                .buffer
                .compare_exchange_i64(self.trailer(TAIL_OFFSET), tail, new_tail)
                .is_err()
            {
                continue;
            }
            if padding == 0 {
                return Ok(tail);
            }
            // SYNC ring-record: padding has no payload, so it is complete with its header.
            self.buffer
                .store_release_i64(index, record::header(padding as i32, PADDING_TYPE_ID));
            return Ok(tail.wrapping_add(padding as i64));
        }
        Err(RingError::Full)
    }

    fn refresh_head_cache(&self) -> i64 {
        // SYNC ring-head: the space behind the head is zeroed once the head has moved.
        let head = self.buffer.load_acquire_i64(self.trailer(HEAD_OFFSET));
        self.buffer
            .store_release_i64(self.trailer(HEAD_CACHE_OFFSET), head);
        head
    }

    /// Hands up to `limit` committed messages to `handler` and frees them; returns how many. Each is first copied to
    /// `scratch`, so that no other process can change it while it is looked at. For the consumer only.
    ///
    /// # Errors
    /// [`RingCorrupt`] when a record can not be: everything from it to the tail or to the end of the buffer has been
    /// skipped and the ring goes on behind that; the caller counts it and reads again. Work and memory are bounded by
    /// the capacity whatever the ring holds.
    pub fn read(
        &self,
        limit: usize,
        mut handler: impl FnMut(i32, &[u8]) -> ReadAction,
        scratch: &mut Vec<u8>,
    ) -> Result<usize, RingCorrupt> {
        let mut messages = 0;
        // A second pass only behind the end of the buffer, so that a message behind wrap padding is not left waiting.
        for _ in 0..2 {
            let head = self.buffer.load_relaxed_i64(self.trailer(HEAD_OFFSET));
            let used = match self.used(head) {
                Ok(used) => used,
                Err(corrupt) => return Err(RingCorrupt { messages, ..corrupt }),
            };
            let wraps = used >= self.capacity - self.index(head);
            let done = self.read_contiguous(head, used, limit, &mut messages, &mut handler, scratch)?;
            if done || !wraps {
                break;
            }
        }
        Ok(messages)
    }

    /// Reads from `head` to the end of the buffer or the tail; whether the call is over.
    fn read_contiguous(
        &self,
        head: i64,
        used: usize,
        limit: usize,
        messages: &mut usize,
        handler: &mut impl FnMut(i32, &[u8]) -> ReadAction,
        scratch: &mut Vec<u8>,
    ) -> Result<bool, RingCorrupt> {
        let start = self.index(head);
        let contiguous = used.min(self.capacity - start);
        let mut freed = 0;
        let mut consumed = 0;
        let mut over = false;
        while consumed < contiguous {
            if *messages >= limit {
                over = true;
                break;
            }
            let index = start + consumed;
            // SYNC ring-record: type and payload are complete once the length is positive.
            let header = self.buffer.load_acquire_i64(index);
            let length = record::length_of(header);
            if length <= 0 {
                over = true;
                break;
            }
            let is_padding = record::type_of(header) == PADDING_TYPE_ID;
            if !self.is_plausible(length, is_padding, contiguous - consumed) {
                let position = head.wrapping_add(consumed as i64);
                self.free(head.wrapping_add(freed as i64), contiguous - freed);
                return Err(RingCorrupt {
                    position,
                    length,
                    skipped: contiguous - consumed,
                    messages: *messages,
                });
            }
            let occupied = record::occupied(length as usize);
            if is_padding {
                consumed += occupied;
                continue;
            }
            scratch.clear();
            scratch.resize(length as usize - HEADER_LENGTH, 0);
            self.buffer.copy_out(index + HEADER_LENGTH, scratch);
            let action = handler(record::type_of(header), scratch);
            if action == ReadAction::Abort {
                over = true;
                break;
            }
            *messages += 1;
            consumed += occupied;
            if action == ReadAction::Break {
                over = true;
                break;
            }
            if action == ReadAction::Commit {
                self.free(head.wrapping_add(freed as i64), consumed - freed);
                freed = consumed;
            }
        }
        self.free(head.wrapping_add(freed as i64), consumed - freed);
        Ok(over)
    }

    /// Whether a committed record of this length can stand where `space` bytes are left before the buffer's end and
    /// the tail.
    fn is_plausible(&self, length: i32, is_padding: bool, space: usize) -> bool {
        let Ok(length) = usize::try_from(length) else {
            return false;
        };
        length >= HEADER_LENGTH
            && record::occupied(length) <= space
            && (is_padding || length - HEADER_LENGTH <= self.max_message_length())
    }

    /// Zeroes `length` bytes at the position `head` and gives them back to producers. They lie in one piece.
    pub(super) fn free(&self, head: i64, length: usize) {
        if length == 0 {
            return;
        }
        self.buffer.zero(self.index(head), length);
        // SYNC ring-head: producers that see this head see the zeros.
        self.buffer
            .store_release_i64(self.trailer(HEAD_OFFSET), head.wrapping_add(length as i64));
    }

    /// Bytes between head and tail; resets both if they can not be.
    pub(super) fn used(&self, head: i64) -> Result<usize, RingCorrupt> {
        let tail = self.buffer.load_acquire_i64(self.trailer(TAIL_OFFSET));
        let used = tail.wrapping_sub(head);
        let misaligned = (head | tail) & (ALIGNMENT as i64 - 1) != 0;
        if !misaligned && used >= 0 && used <= self.capacity as i64 {
            return Ok(used as usize);
        }
        self.reset(tail);
        Err(RingCorrupt {
            position: head,
            length: 0,
            skipped: self.capacity,
            messages: 0,
        })
    }

    /// Makes an empty ring of one whose positions were scribbled over. Claims in flight are lost; their commits fail.
    fn reset(&self, tail: i64) {
        let aligned = tail & !(ALIGNMENT as i64 - 1);
        if aligned != tail {
            // If it fails, a next call meets the tail that is there now.
            let _ = self
                .buffer
                .compare_exchange_i64(self.trailer(TAIL_OFFSET), tail, aligned);
        }
        self.buffer.zero(0, self.capacity);
        self.buffer
            .store_release_i64(self.trailer(HEAD_CACHE_OFFSET), aligned);
        self.buffer.store_release_i64(self.trailer(HEAD_OFFSET), aligned);
    }

    /// Takes the next id for a client, a command or an image; the driver burns the first, 0 (spec 3.6).
    #[must_use]
    pub fn next_correlation_id(&self) -> i64 {
        self.buffer.fetch_add_i64(self.trailer(CORRELATION_OFFSET), 1)
    }

    /// When the driver was last alive, by its wall clock; -1 after a clean shutdown, 0 before its start is complete.
    #[must_use]
    pub fn consumer_heartbeat(&self) -> EpochMs {
        EpochMs(self.buffer.load_acquire_i64(self.trailer(HEARTBEAT_OFFSET)))
    }

    /// Tells clients that the driver is alive.
    pub fn set_consumer_heartbeat(&self, now: EpochMs) {
        self.buffer
            .store_release_i64(self.trailer(HEARTBEAT_OFFSET), now.0);
    }

    /// Position up to which producers have claimed.
    #[must_use]
    pub fn producer_position(&self) -> i64 {
        self.buffer.load_acquire_i64(self.trailer(TAIL_OFFSET))
    }

    /// Position up to which the consumer has freed.
    #[must_use]
    pub fn consumer_position(&self) -> i64 {
        self.buffer.load_acquire_i64(self.trailer(HEAD_OFFSET))
    }

    #[inline]
    pub(super) fn index(&self, position: i64) -> usize {
        (position & (self.capacity as i64 - 1)) as usize
    }

    #[inline]
    pub(super) fn trailer(&self, offset: usize) -> usize {
        self.capacity + offset
    }
}

impl<B: AtomicBuffer> Claim<'_, B> {
    /// Length of the payload, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize - HEADER_LENGTH
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a part of the payload.
    ///
    /// # Panics
    /// If the part does not lie inside the payload.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        let inside = offset <= self.len() && bytes.len() <= self.len() - offset;
        assert!(inside, "a part lies inside the payload");
        self.ring
            .buffer
            .copy_in(self.index + HEADER_LENGTH + offset, bytes);
    }

    /// Makes the message visible to the consumer.
    ///
    /// # Errors
    /// [`RingError::Revoked`] if the driver took the record away; nothing was sent.
    pub fn commit(self) -> Result<(), RingError> {
        let committed = self.finish(self.type_id);
        core::mem::forget(self);
        if committed {
            Ok(())
        } else {
            Err(RingError::Revoked)
        }
    }

    fn is_held(&self) -> bool {
        self.ring.buffer.load_acquire_i64(self.index) == record::header(-self.length, self.type_id)
    }

    fn finish(&self, type_id: i32) -> bool {
        // SYNC ring-record: publishes type and payload to the consumer.
        self.ring
            .buffer
            .compare_exchange_i64(
                self.index,
                record::header(-self.length, self.type_id),
                record::header(self.length, type_id),
            )
            .is_ok()
    }
}

impl<B: AtomicBuffer> Drop for Claim<'_, B> {
    fn drop(&mut self) {
        // If the driver was faster, the record is padding already.
        let _ = self.finish(PADDING_TYPE_ID);
    }
}
