//! Distinct error log, the last section of the CnC file (shared-memory spec 6.1).
//!
//! ```text
//! 0 i32 length = 24 + text; 0 ends the log    4 i32 observation count
//! 8 i64 last observation, epoch ms           16 i64 first observation, epoch ms
//! 24 text; the next entry starts on the next 8-byte boundary
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::bits::align;
use crate::memory::AtomicBuffer;
use crate::time::EpochMs;

const LENGTH_OFFSET: usize = 0;
const COUNT_OFFSET: usize = LENGTH_OFFSET + 4;
const LAST_OFFSET: usize = COUNT_OFFSET + 4;
const FIRST_OFFSET: usize = LAST_OFFSET + 8;
const TEXT_OFFSET: usize = FIRST_OFFSET + 8;

/// Length of an entry without its text, bytes.
pub const ENTRY_HEADER_LENGTH: usize = TEXT_OFFSET;
/// Entries start at multiples of this, bytes.
pub const ENTRY_ALIGNMENT: usize = 8;

const _: () = assert!(ENTRY_HEADER_LENGTH == 24);

/// The one writer of an error log. It remembers in private memory where each error stands; that memory is bounded by
/// the buffer, because an error that finds no room is not remembered.
#[derive(Debug)]
pub struct ErrorLog<B> {
    buffer: B,
    end: usize,
    /// By error code, then key: offset of the entry.
    entries: BTreeMap<i32, BTreeMap<String, usize>>,
}

/// One distinct error as it stood in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorRecord {
    /// How often it was seen; can be 0 for a moment while the first observation is written.
    pub count: i32,
    /// First observation.
    pub first: EpochMs,
    /// Last observation.
    pub last: EpochMs,
    /// Text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

impl<B: AtomicBuffer> ErrorLog<B> {
    /// Starts on fresh zeroed memory.
    #[must_use]
    pub fn new(buffer: B) -> Self {
        Self {
            buffer,
            end: 0,
            entries: BTreeMap::new(),
        }
    }

    /// Counts an observation of the error with this code and text; whether it was new and was put into the log. A new
    /// error that does not fit is dropped.
    pub fn record(&mut self, now: EpochMs, code: i32, text: &str) -> bool {
        self.record_keyed(now, code, text, text)
    }

    /// As [`ErrorLog::record`] for a text with numbers or names in it that change: errors of one code and key are one
    /// error, and the text of the first observation stays. A key is a short name that the program gives, not
    /// something that others choose.
    pub fn record_keyed(&mut self, now: EpochMs, code: i32, key: &str, text: &str) -> bool {
        let known = self.entries.get(&code).and_then(|keys| keys.get(key));
        if let Some(&offset) = known {
            self.observe(offset, now);
            return false;
        }
        let Some(offset) = self.append(now, text) else {
            return false;
        };
        self.entries
            .entry(code)
            .or_default()
            .insert(key.to_owned(), offset);
        true
    }

    fn append(&mut self, now: EpochMs, text: &str) -> Option<usize> {
        let offset = self.end;
        let length = ENTRY_HEADER_LENGTH.checked_add(text.len())?;
        let room = self.buffer.capacity().checked_sub(offset)?;
        // Room for a terminating length is not needed: the end of the buffer ends the log as well.
        if length > room {
            return None;
        }
        let length_word = i32::try_from(length).ok()?;
        self.buffer.store_relaxed_i64(offset + FIRST_OFFSET, now.0);
        self.buffer.copy_in(offset + TEXT_OFFSET, text.as_bytes());
        // SYNC error-entry: publishes the text and the first timestamp.
        self.buffer.store_release_i32(offset + LENGTH_OFFSET, length_word);
        self.observe(offset, now);
        self.end = align(offset + length, ENTRY_ALIGNMENT);
        Some(offset)
    }

    fn observe(&self, offset: usize, now: EpochMs) {
        // SYNC error-last: pairs with the reader's load; the timestamp is a single word.
        self.buffer.store_release_i64(offset + LAST_OFFSET, now.0);
        self.buffer.fetch_add_i32(offset + COUNT_OFFSET, 1);
    }
}

/// Copies the whole log. It may be written to meanwhile and may hold anything: the copy stops at the end of the log or
/// at the first length that can not be, and is never longer than the buffer.
pub fn read_all<B: AtomicBuffer>(buffer: &B) -> Vec<ErrorRecord> {
    let mut records = Vec::new();
    let mut offset = 0;
    while buffer.capacity().saturating_sub(offset) >= ENTRY_HEADER_LENGTH {
        // SYNC error-entry: text and first timestamp are complete once there is a length.
        let length = buffer.load_acquire_i32(offset + LENGTH_OFFSET);
        let Ok(length) = usize::try_from(length) else {
            break;
        };
        if length < ENTRY_HEADER_LENGTH || length > buffer.capacity() - offset {
            break;
        }
        let mut text = vec![0; length - ENTRY_HEADER_LENGTH];
        buffer.copy_out(offset + TEXT_OFFSET, &mut text);
        records.push(ErrorRecord {
            count: buffer.load_acquire_i32(offset + COUNT_OFFSET),
            first: EpochMs(buffer.load_relaxed_i64(offset + FIRST_OFFSET)),
            // SYNC error-last: as the writer left it.
            last: EpochMs(buffer.load_acquire_i64(offset + LAST_OFFSET)),
            text: String::from_utf8_lossy(&text).into_owned(),
        });
        offset = align(offset + length, ENTRY_ALIGNMENT);
    }
    records
}
