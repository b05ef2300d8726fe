//! Loss report, a file of its own beside the CnC file (shared-memory spec 6.2).
//!
//! ```text
//!  0 i64 observation count; 0 ends the report   8 i64 bytes lost
//! 16 i64 first observation, epoch ms           24 i64 last observation, epoch ms
//! 32 i32 session id   36 i32 stream id   40 i32 channel length   44 channel, zeros to a 4-byte boundary
//! then i32 source length and the source; the next entry starts on the next 64-byte boundary
//! ```
#![forbid(unsafe_code)]

use crate::bits::align;
use crate::id::{SessionId, StreamId};
use crate::memory::AtomicBuffer;
use crate::time::EpochMs;

const COUNT_OFFSET: usize = 0;
const BYTES_LOST_OFFSET: usize = COUNT_OFFSET + 8;
const FIRST_OFFSET: usize = BYTES_LOST_OFFSET + 8;
const LAST_OFFSET: usize = FIRST_OFFSET + 8;
const SESSION_ID_OFFSET: usize = LAST_OFFSET + 8;
const STREAM_ID_OFFSET: usize = SESSION_ID_OFFSET + 4;
const CHANNEL_LENGTH_OFFSET: usize = STREAM_ID_OFFSET + 4;
const CHANNEL_OFFSET: usize = CHANNEL_LENGTH_OFFSET + 4;

/// Entries start at multiples of this, bytes.
pub const ENTRY_ALIGNMENT: usize = 64;
/// The least length of an entry before alignment, bytes.
const ENTRY_LENGTH_MIN: usize = CHANNEL_OFFSET + 4;

const _: () = assert!(CHANNEL_OFFSET == 44);

/// The one writer of a loss report.
#[derive(Debug)]
pub struct LossReport<B> {
    buffer: B,
    end: usize,
}

/// Where an image's entry stands in its report.
#[derive(Debug, PartialEq, Eq)]
pub struct LossEntry {
    offset: usize,
}

/// One entry as it stood in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossRecord {
    /// How often loss was seen.
    pub observation_count: i64,
    /// Bytes lost in all.
    pub total_bytes_lost: i64,
    /// First observation.
    pub first: EpochMs,
    /// Last observation.
    pub last: EpochMs,
    /// Session of the image.
    pub session_id: SessionId,
    /// Stream of the image.
    pub stream_id: StreamId,
    /// Channel of the image.
    pub channel: String,
    /// Where the image comes from, `host:port`.
    pub source: String,
}

impl<B: AtomicBuffer> LossReport<B> {
    /// Starts on fresh zeroed memory.
    #[must_use]
    pub fn new(buffer: B) -> Self {
        Self { buffer, end: 0 }
    }

    /// Makes an entry with a first observation; `None` if there is no room.
    pub fn create_entry(
        &mut self,
        now: EpochMs,
        bytes_lost: i64,
        session_id: SessionId,
        stream_id: StreamId,
        channel: &str,
        source: &str,
    ) -> Option<LossEntry> {
        let offset = self.end;
        let source_length_offset = CHANNEL_OFFSET + align(channel.len(), 4);
        let length = align(source_length_offset + 4 + source.len(), ENTRY_ALIGNMENT);
        let room = self.buffer.capacity().checked_sub(offset)?;
        if length > room {
            return None;
        }
        let (channel_length, source_length) = (
            i32::try_from(channel.len()).ok()?,
            i32::try_from(source.len()).ok()?,
        );
        let buffer = &self.buffer;
        buffer.store_relaxed_i64(offset + BYTES_LOST_OFFSET, bytes_lost);
        buffer.store_relaxed_i64(offset + FIRST_OFFSET, now.0);
        buffer.store_relaxed_i64(offset + LAST_OFFSET, now.0);
        buffer.store_relaxed_i32(offset + SESSION_ID_OFFSET, session_id.0);
        buffer.store_relaxed_i32(offset + STREAM_ID_OFFSET, stream_id.0);
        buffer.store_relaxed_i32(offset + CHANNEL_LENGTH_OFFSET, channel_length);
        buffer.copy_in(offset + CHANNEL_OFFSET, channel.as_bytes());
        buffer.store_relaxed_i32(offset + source_length_offset, source_length);
        buffer.copy_in(offset + source_length_offset + 4, source.as_bytes());
        // SYNC loss-entry: publishes everything above.
        buffer.store_release_i64(offset + COUNT_OFFSET, 1);
        self.end = offset + length;
        Some(LossEntry { offset })
    }

    /// Adds an observation to an entry that this report made.
    pub fn record(&self, entry: &LossEntry, now: EpochMs, bytes_lost: i64) {
        let offset = entry.offset;
        // SYNC loss-last: pairs with the reader's load; the timestamp is a single word.
        self.buffer.store_release_i64(offset + LAST_OFFSET, now.0);
        self.buffer.fetch_add_i64(offset + BYTES_LOST_OFFSET, bytes_lost);
        self.buffer.fetch_add_i64(offset + COUNT_OFFSET, 1);
    }
}

/// Copies the whole report. It may be written to meanwhile and may hold anything: the copy stops at the end of the
/// report or at the first entry that can not be, and is never longer than the buffer.
pub fn read_all<B: AtomicBuffer>(buffer: &B) -> Vec<LossRecord> {
    let mut records = Vec::new();
    let mut offset = 0;
    while let Some((record, length)) = read_entry(buffer, offset) {
        records.push(record);
        offset += length;
    }
    records
}

/// The entry at `offset` and the bytes it occupies.
fn read_entry<B: AtomicBuffer>(buffer: &B, offset: usize) -> Option<(LossRecord, usize)> {
    let room = buffer.capacity().checked_sub(offset)?;
    if room < ENTRY_LENGTH_MIN {
        return None;
    }
    // SYNC loss-entry: everything else is complete once there is a count.
    let observation_count = buffer.load_acquire_i64(offset + COUNT_OFFSET);
    if observation_count <= 0 {
        return None;
    }
    let channel = text(buffer, offset + CHANNEL_LENGTH_OFFSET, offset + room)?;
    let source_length_offset = CHANNEL_OFFSET + align(channel.len(), 4);
    let source = text(buffer, offset + source_length_offset, offset + room)?;
    let length = align(source_length_offset + 4 + source.len(), ENTRY_ALIGNMENT);
    let record = LossRecord {
        observation_count,
        total_bytes_lost: buffer.load_acquire_i64(offset + BYTES_LOST_OFFSET),
        first: EpochMs(buffer.load_relaxed_i64(offset + FIRST_OFFSET)),
        // SYNC loss-last: as the writer left it.
        last: EpochMs(buffer.load_acquire_i64(offset + LAST_OFFSET)),
        session_id: SessionId(buffer.load_relaxed_i32(offset + SESSION_ID_OFFSET)),
        stream_id: StreamId(buffer.load_relaxed_i32(offset + STREAM_ID_OFFSET)),
        channel: String::from_utf8_lossy(&channel).into_owned(),
        source: String::from_utf8_lossy(&source).into_owned(),
    };
    Some((record, length))
}

/// The bytes behind an i32 length at `offset`, if all of that lies in front of `limit`.
fn text<B: AtomicBuffer>(buffer: &B, offset: usize, limit: usize) -> Option<Vec<u8>> {
    let room = limit.checked_sub(offset)?.checked_sub(4)?;
    let length = usize::try_from(buffer.load_relaxed_i32(offset)).ok()?;
    if length > room {
        return None;
    }
    let mut bytes = vec![0; length];
    buffer.copy_out(offset + 4, &mut bytes);
    Some(bytes)
}
