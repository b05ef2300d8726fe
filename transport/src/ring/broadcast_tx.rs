//! The to-clients broadcast, written by the driver conductor only (shared-memory spec 4.1 and 4.2). There is no back
//! pressure: a receiver that is too slow is lapped and finds out by itself.
#![forbid(unsafe_code)]

use super::RingError;
use super::record::{self, ALIGNMENT, HEADER_LENGTH, PADDING_TYPE_ID};
use crate::memory::AtomicBuffer;
use crate::sync::{Ordering, fence};

/// Length of the trailer behind the records, bytes.
pub const TRAILER_LENGTH: usize = 128;

// Offsets from the start of the trailer.
pub(super) const TAIL_INTENT_OFFSET: usize = 0;
pub(super) const TAIL_OFFSET: usize = TAIL_INTENT_OFFSET + 8;
pub(super) const LATEST_OFFSET: usize = TAIL_OFFSET + 8;
const _: () = assert!(LATEST_OFFSET + 8 <= TRAILER_LENGTH);

/// The one writer of a broadcast. It keeps the tail to itself: what other processes write to the trailer does not
/// lead it astray.
#[derive(Debug)]
pub struct BroadcastTransmitter<B> {
    buffer: B,
    capacity: usize,
    tail: i64,
}

impl<B: AtomicBuffer> BroadcastTransmitter<B> {
    /// Goes on where the broadcast in `buffer` stands; fresh zeroed memory is an empty one.
    ///
    /// # Errors
    /// [`RingError::BadLength`] if the length is no power of two plus the trailer; [`RingError::Corrupt`] if the tail
    /// is no record boundary.
    pub fn new(buffer: B) -> Result<Self, RingError> {
        let length = buffer.capacity();
        let capacity = record::capacity_of(length, TRAILER_LENGTH).ok_or(RingError::BadLength { length })?;
        let tail = buffer.load_acquire_i64(capacity + TAIL_OFFSET);
        if tail & (ALIGNMENT as i64 - 1) != 0 {
            return Err(RingError::Corrupt);
        }
        Ok(Self {
            buffer,
            capacity,
            tail,
        })
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

    /// Sends one message to every receiver.
    ///
    /// # Errors
    /// [`RingError::TooLong`].
    ///
    /// # Panics
    /// If `type_id` is not positive: that is no message.
    pub fn transmit(&mut self, type_id: i32, payload: &[u8]) -> Result<(), RingError> {
        assert!(type_id > 0, "message type ids are positive");
        let max_length = self.max_message_length();
        if payload.len() > max_length {
            return Err(RingError::TooLong {
                length: payload.len(),
                max_length,
            });
        }
        let length = HEADER_LENGTH + payload.len();
        let occupied = record::occupied(length);
        let mut index = (self.tail & (self.capacity as i64 - 1)) as usize;
        let to_end = self.capacity - index;
        let padding = if occupied > to_end { to_end } else { 0 };
        let start = self.tail.wrapping_add(padding as i64);
        let end = start.wrapping_add(occupied as i64);
        self.buffer
            .store_release_i64(self.capacity + TAIL_INTENT_OFFSET, end);
        // SYNC broadcast-intent: whoever sees a byte written below also sees the intent to overwrite.
        fence(Ordering::Release);
        if padding > 0 {
            self.buffer
                .store_relaxed_i64(index, record::header(padding as i32, PADDING_TYPE_ID));
            index = 0;
        }
        self.buffer
            .store_relaxed_i64(index, record::header(length as i32, type_id));
        self.buffer.copy_in(index + HEADER_LENGTH, payload);
        self.buffer
            .store_release_i64(self.capacity + LATEST_OFFSET, start);
        // SYNC broadcast-tail: publishes the record.
        self.buffer.store_release_i64(self.capacity + TAIL_OFFSET, end);
        self.tail = end;
        Ok(())
    }
}
