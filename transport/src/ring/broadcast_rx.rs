//! A receiver of the to-clients broadcast (shared-memory spec 4.3). Every record is copied out, and only when the
//! transmitter has not come around meanwhile is the copy believed.
#![forbid(unsafe_code)]

use super::RingError;
use super::broadcast_tx::{TAIL_INTENT_OFFSET, TAIL_OFFSET, TRAILER_LENGTH};
use super::record::{self, ALIGNMENT, HEADER_LENGTH, PADDING_TYPE_ID};
use crate::memory::AtomicBuffer;
use crate::sync::{Ordering, fence};

/// Events were lost or can not be read; what the receiver knows of the driver is no longer complete. The receiver
/// itself goes on behind the last complete record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lapped {
    /// The receiver was too slow: the transmitter has overwritten what came next.
    #[error("lapped by the transmitter: events of the driver were lost")]
    Overrun,
    /// A length or position that can not be: somebody scribbled over the broadcast.
    #[error("the broadcast of the driver is corrupt")]
    Corrupt,
}

/// One receiver. It starts behind everything that was sent before it came.
#[derive(Debug)]
pub struct BroadcastReceiver<B> {
    buffer: B,
    capacity: usize,
    next: i64,
    lapped_count: u64,
}

impl<B: AtomicBuffer> BroadcastReceiver<B> {
    /// Attaches to the broadcast in `buffer`.
    ///
    /// # Errors
    /// [`RingError::BadLength`] if the length is no power of two plus the trailer.
    pub fn new(buffer: B) -> Result<Self, RingError> {
        let length = buffer.capacity();
        let capacity = record::capacity_of(length, TRAILER_LENGTH).ok_or(RingError::BadLength { length })?;
        let next = buffer.load_acquire_i64(capacity + TAIL_OFFSET);
        Ok(Self {
            buffer,
            capacity,
            next,
            lapped_count: 0,
        })
    }

    /// Bytes for records.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How often events were lost.
    #[must_use]
    pub fn lapped_count(&self) -> u64 {
        self.lapped_count
    }

    /// Takes the next message, if there is one: its payload is in `scratch`, its type is returned.
    ///
    /// # Errors
    /// [`Lapped`]; fatal to a client, although the receiver could go on.
    pub fn receive(&mut self, scratch: &mut Vec<u8>) -> Result<Option<i32>, Lapped> {
        // SYNC broadcast-tail: the record before the tail is complete.
        let tail = self.buffer.load_acquire_i64(self.capacity + TAIL_OFFSET);
        let ahead = tail.wrapping_sub(self.next);
        if ahead == 0 {
            return Ok(None);
        }
        let received = if ahead > 0 {
            self.receive_at(self.next, tail, scratch)
        } else {
            // The tail never moves back by itself.
            Err(Lapped::Corrupt)
        };
        match received {
            Ok((type_id, next)) => {
                self.next = next;
                Ok(Some(type_id))
            }
            Err(lapped) => {
                self.lapped_count += 1;
                self.next = self.buffer.load_acquire_i64(self.capacity + TAIL_OFFSET);
                Err(lapped)
            }
        }
    }

    fn receive_at(&self, start: i64, tail: i64, scratch: &mut Vec<u8>) -> Result<(i32, i64), Lapped> {
        if (start | tail) & (ALIGNMENT as i64 - 1) != 0 {
            return Err(Lapped::Corrupt);
        }
        let mut cursor = start;
        let mut header = self.header(cursor)?;
        if record::type_of(header) == PADDING_TYPE_ID {
            let to_end = self.capacity - self.index(cursor);
            if i64::from(record::length_of(header)) != to_end as i64 {
                return Err(Lapped::Corrupt);
            }
            cursor = cursor.wrapping_add(to_end as i64);
            header = self.header(cursor)?;
        }
        let index = self.index(cursor);
        let Ok(length) = usize::try_from(record::length_of(header)) else {
            return Err(Lapped::Corrupt);
        };
        let next = cursor.wrapping_add(record::occupied(length) as i64);
        let plausible = length >= HEADER_LENGTH
            && length - HEADER_LENGTH <= self.capacity / 8
            && record::occupied(length) <= self.capacity - index
            && tail.wrapping_sub(next) >= 0
            && record::type_of(header) != PADDING_TYPE_ID;
        if !plausible {
            return Err(Lapped::Corrupt);
        }
        scratch.clear();
        scratch.resize(length - HEADER_LENGTH, 0);
        self.buffer.copy_out(index + HEADER_LENGTH, scratch);
        self.validate(cursor)?;
        Ok((record::type_of(header), next))
    }

    /// The header at a position, if the transmitter has not come around to it.
    fn header(&self, cursor: i64) -> Result<i64, Lapped> {
        let header = self.buffer.load_relaxed_i64(self.index(cursor));
        self.validate(cursor)?;
        Ok(header)
    }

    /// Whether what was read at `cursor` so far was not being overwritten.
    fn validate(&self, cursor: i64) -> Result<(), Lapped> {
        // SYNC broadcast-intent: if a byte read before was new, the intent read here is new too.
        fence(Ordering::Acquire);
        let intent = self.buffer.load_acquire_i64(self.capacity + TAIL_INTENT_OFFSET);
        if intent.wrapping_sub(cursor) < self.capacity as i64 {
            Ok(())
        } else {
            Err(Lapped::Overrun)
        }
    }

    fn index(&self, position: i64) -> usize {
        (position & (self.capacity as i64 - 1)) as usize
    }
}
