//! Frames: the header as four 8-byte words, and what a reader sees of a committed frame (shared-memory spec 9.3).
//!
//! ```text
//!   0        4    5    6     8          12         16         20        24              32
//!   +--------+----+----+-----+----------+----------+----------+---------+---------------+--------
//!   | length | v  | f  |type | offset   | session  | stream   | term id | reserved value| payload
//!   +--------+----+----+-----+----------+----------+----------+---------+---------------+--------
//!   |   Length word          |     Offset word     |     Stream word    | Reserved word |
//! ```
//!
//! The length is positive once the frame is complete, negative while it is written, 0 where nothing was.

use core::fmt;
use core::marker::PhantomData;

use crate::bits::align;
use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
#[cfg(not(loom))]
use crate::log::words::Term;
use crate::log::words::{HeaderWord, Slot, Words};
#[cfg(not(loom))]
use crate::memory::View;

/// First fragment of a message.
pub const FLAG_BEGIN: u8 = 0x80;
/// Last fragment of a message.
pub const FLAG_END: u8 = 0x40;
/// The stream ends here.
pub const FLAG_EOS: u8 = 0x20;
/// The stream was revoked.
pub const FLAG_REVOKED: u8 = 0x10;
/// A message in one frame.
pub const FLAGS_UNFRAGMENTED: u8 = FLAG_BEGIN | FLAG_END;
/// Frame type of padding.
pub const TYPE_PADDING: u16 = 0;
/// Frame type of data.
pub const TYPE_DATA: u16 = 1;
/// Version byte of a frame that is a fenced claim (`log/claim.rs`); a committed frame has version 0.
pub const VERSION_FENCED: u8 = 0xF5;

/// The length word: frame length below, version 0, flags and type above.
#[inline(always)]
#[must_use]
pub const fn length_word(frame_length: i32, flags: u8, frame_type: u16) -> i64 {
    (frame_length as u32 as i64) | ((flags as i64) << 40) | (((frame_type as u64) << 48) as i64)
}

/// The length word of a fenced claim: negative frame length below, nonce above.
#[inline(always)]
#[must_use]
pub const fn fenced_word(frame_length: i32, nonce: u32) -> i64 {
    (frame_length.wrapping_neg() as u32 as i64) | (((nonce as u64) << 32) as i64)
}

/// The offset word: term offset below, session above.
#[inline(always)]
#[must_use]
pub const fn offset_word(term_offset: i32, session_id: SessionId) -> i64 {
    (term_offset as u32 as i64) | (((session_id.0 as u64) << 32) as i64)
}

/// The stream word: stream below, term id above.
#[inline(always)]
#[must_use]
pub const fn stream_word(stream_id: StreamId, term_id: TermId) -> i64 {
    (stream_id.0 as u32 as i64) | (((term_id.0 as u64) << 32) as i64)
}

/// The frame length in a length word.
#[inline(always)]
#[must_use]
pub const fn word_length(word: i64) -> i32 {
    word as i32
}

/// The version in a length word.
#[inline(always)]
#[must_use]
pub const fn word_version(word: i64) -> u8 {
    (word >> 32) as u8
}

/// The flags in a length word.
#[inline(always)]
#[must_use]
pub const fn word_flags(word: i64) -> u8 {
    (word >> 40) as u8
}

/// The type in a length word.
#[inline(always)]
#[must_use]
pub const fn word_type(word: i64) -> u16 {
    (word >> 48) as u16
}

/// A committed frame, whose length was checked against the term when it was read. What the other header fields hold
/// is whatever the publisher wrote.
#[derive(Debug)]
pub struct FrameView<'a, B: Words> {
    slot: Slot<'a, B>,
    // Invariant: 32 <= frame length <= slot.remaining().
    word: i64,
}

impl<B: Words> Clone for FrameView<'_, B> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Words> Copy for FrameView<'_, B> {}

impl<'a, B: Words> FrameView<'a, B> {
    /// A frame with this length word at this slot; `None` unless the length is at least that of a header and fits
    /// between the slot and the end of the term.
    #[inline(always)]
    #[must_use]
    pub fn new(slot: Slot<'a, B>, word: i64) -> Option<FrameView<'a, B>> {
        // A negative length is a huge unsigned one, so one comparison rejects all three: below a header, negative,
        // and past the end of the term.
        let length = word_length(word) as u32;
        let room = slot.remaining() as u32 - FRAME_HEADER_LENGTH as u32;
        (length.wrapping_sub(FRAME_HEADER_LENGTH as u32) <= room).then_some(FrameView { slot, word })
    }

    /// Header and payload, bytes: from 32 to the rest of the term.
    #[inline(always)]
    #[must_use]
    pub fn frame_length(&self) -> i32 {
        word_length(self.word)
    }

    /// Payload, bytes.
    #[inline(always)]
    #[must_use]
    pub fn payload_length(&self) -> usize {
        self.frame_length() as usize - FRAME_HEADER_LENGTH
    }

    /// Version; 0.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        word_version(self.word)
    }

    /// Flags: [`FLAG_BEGIN`], [`FLAG_END`], [`FLAG_EOS`], [`FLAG_REVOKED`].
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> u8 {
        word_flags(self.word)
    }

    /// Type: [`TYPE_DATA`], [`TYPE_PADDING`] or one of the application's own.
    #[inline(always)]
    #[must_use]
    pub fn frame_type(&self) -> u16 {
        word_type(self.word)
    }

    /// Whether the frame is to be skipped.
    #[inline(always)]
    #[must_use]
    pub fn is_padding(&self) -> bool {
        self.frame_type() == TYPE_PADDING
    }

    /// Where the frame stands in its term, bytes.
    #[inline(always)]
    #[must_use]
    pub fn offset(&self) -> i32 {
        self.slot.offset() as i32
    }

    /// Where the next frame stands: at most the term length.
    #[inline(always)]
    #[must_use]
    pub fn next_offset(&self) -> i32 {
        (self.slot.offset() + align(self.frame_length() as usize, FRAME_ALIGNMENT)) as i32
    }

    /// The term offset as the header has it.
    #[inline]
    #[must_use]
    pub fn term_offset(&self) -> i32 {
        self.slot.load_relaxed(HeaderWord::Offset) as i32
    }

    /// The session id as the header has it.
    #[inline]
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        SessionId((self.slot.load_relaxed(HeaderWord::Offset) >> 32) as i32)
    }

    /// The stream id as the header has it.
    #[inline]
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        StreamId(self.slot.load_relaxed(HeaderWord::Stream) as i32)
    }

    /// The term id as the header has it.
    #[inline]
    #[must_use]
    pub fn term_id(&self) -> TermId {
        TermId((self.slot.load_relaxed(HeaderWord::Stream) >> 32) as i32)
    }

    /// The reserved value.
    #[inline]
    #[must_use]
    pub fn reserved_value(&self) -> i64 {
        self.slot.load_relaxed(HeaderWord::Reserved)
    }

    /// Copies the payload from `at` on into `bytes`. `false`, and nothing copied, unless the payload has them all.
    #[inline]
    #[must_use]
    pub fn copy_payload(&self, at: usize, bytes: &mut [u8]) -> bool {
        let length = self.payload_length();
        let fits = at <= length && bytes.len() <= length - at;
        if fits {
            self.slot
                .term()
                .buffer()
                .copy_out(self.slot.offset() + FRAME_HEADER_LENGTH + at, bytes);
        }
        fits
    }
}

#[cfg(not(loom))]
impl<'a> FrameView<'a, View> {
    /// The payload where it lies.
    #[inline(always)]
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        // SAFETY: the frame lies inside the term (invariant of `word`), which keeps its bytes alive for 'a.
        unsafe {
            let base = self.slot.term().buffer().pointer(0, 0);
            Payload::from_raw(
                base.add(self.slot.offset() + FRAME_HEADER_LENGTH),
                self.payload_length(),
            )
        }
    }
}

#[cfg(not(loom))]
impl Term<View> {
    /// The bytes from `offset` on with `length`, where they lie: a block of frames. `None` if the term has not so
    /// many.
    #[inline]
    #[must_use]
    pub fn payload(&self, offset: usize, length: usize) -> Option<Payload<'_>> {
        let fits = offset <= self.length() && length <= self.length() - offset;
        // SAFETY: the range lies inside the term, which keeps its bytes alive while it is borrowed.
        fits.then(|| unsafe { Payload::from_raw(self.buffer().pointer(offset, length), length) })
    }
}

/// The bytes of a fragment or message, in shared or in private memory. Shared bytes may change while they are looked
/// at, so they are read by copy; no reference to them is handed out by safe code.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    base: *const u8,
    length: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Payload<'a> {
    /// A payload in private memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_slice(bytes: &'a [u8]) -> Payload<'a> {
        Payload {
            base: bytes.as_ptr(),
            length: bytes.len(),
            bytes: PhantomData,
        }
    }

    /// # Safety
    /// `[base, base + length)` can be read for 'a.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) const unsafe fn from_raw(base: *const u8, length: usize) -> Payload<'a> {
        Payload {
            base,
            length,
            bytes: PhantomData,
        }
    }

    /// Length in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let fits = offset <= self.length && size_of::<T>() <= self.length - offset;
        // SAFETY: the bytes lie inside the payload; T is an integer, for which every bit pattern is a value.
        fits.then(|| unsafe { self.base.add(offset).cast::<T>().read_unaligned() })
    }

    /// The byte at an offset, if there is one.
    #[inline(always)]
    #[must_use]
    pub fn read_u8(&self, offset: usize) -> Option<u8> {
        self.read(offset)
    }

    /// Two bytes at an offset, little-endian, if there are so many.
    #[inline(always)]
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_le)
    }

    /// Four bytes at an offset, little-endian, if there are so many.
    #[inline(always)]
    #[must_use]
    pub fn read_i32(&self, offset: usize) -> Option<i32> {
        self.read(offset).map(i32::from_le)
    }

    /// Eight bytes at an offset, little-endian, if there are so many.
    #[inline(always)]
    #[must_use]
    pub fn read_i64(&self, offset: usize) -> Option<i64> {
        self.read(offset).map(i64::from_le)
    }

    /// Eight bytes at an offset, little-endian, if there are so many.
    #[inline(always)]
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> Option<u64> {
        self.read(offset).map(u64::from_le)
    }

    /// The part from `offset` on with `length` bytes, if the payload has them.
    #[inline]
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Option<Payload<'a>> {
        let fits = offset <= self.length && length <= self.length - offset;
        fits.then(|| Payload {
            // SAFETY: the offset lies inside the payload or at its end.
            base: unsafe { self.base.add(offset) },
            length,
            bytes: PhantomData,
        })
    }

    /// Copies the bytes from `offset` on into `bytes`. `false`, and nothing copied, unless the payload has them all.
    #[inline]
    #[must_use]
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let fits = offset <= self.length && bytes.len() <= self.length - offset;
        if fits {
            // SAFETY: the source range lies inside the payload; the target is exclusively borrowed, so it overlaps
            // neither shared memory nor the private bytes a payload borrows.
            unsafe {
                core::ptr::copy_nonoverlapping(self.base.add(offset), bytes.as_mut_ptr(), bytes.len());
            }
        }
        fits
    }

    /// Appends all bytes to a vector.
    #[inline]
    pub fn append_to(&self, target: &mut Vec<u8>) {
        target.reserve(self.length);
        let start = target.len();
        // SAFETY: the vector has room for `length` bytes behind its current end, they do not overlap the payload
        // (exclusively borrowed), and they are initialised before the length covers them.
        unsafe {
            core::ptr::copy_nonoverlapping(self.base, target.as_mut_ptr().add(start), self.length);
            target.set_len(start + self.length);
        }
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// Whether the bytes equal these.
    #[must_use]
    pub fn eq_bytes(&self, bytes: &[u8]) -> bool {
        let mut chunk = [0u8; 256];
        self.length == bytes.len()
            && bytes.chunks(chunk.len()).enumerate().all(|(index, expected)| {
                let Some(target) = chunk.get_mut(..expected.len()) else {
                    return false;
                };
                self.copy_to(index * 256, target) && target == expected
            })
    }

    /// The address of the first byte, for the caller's own raw copies.
    #[inline]
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.base
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    /// Nobody writes the bytes while the slice lives. That holds for private memory ([`Payload::from_slice`]); for a
    /// fragment in a log it is a promise about every process that maps the log, until the position moves past it.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn as_slice(&self) -> &'a [u8] {
        // SAFETY: the range can be read for 'a; the caller vouches that it does not change.
        unsafe { core::slice::from_raw_parts(self.base, self.length) }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_beyond_the_payload_are_refused() {
        let bytes: Vec<u8> = (1..=12).collect();
        let payload = Payload::from_slice(&bytes);
        assert_eq!(payload.len(), 12);
        assert_eq!(payload.read_u8(11), Some(12));
        assert_eq!(payload.read_u8(12), None);
        assert_eq!(payload.read_u16(0), Some(0x0201));
        assert_eq!(payload.read_i32(8), Some(0x0c0b_0a09));
        assert_eq!(payload.read_i32(9), None);
        assert_eq!(payload.read_i64(4), Some(0x0c0b_0a09_0807_0605));
        assert_eq!(payload.read_u64(5), None);
        assert_eq!(payload.read_u64(usize::MAX), None);
        let mut out = [0; 4];
        assert!(payload.copy_to(8, &mut out));
        assert_eq!(out, [9, 10, 11, 12]);
        assert!(!payload.copy_to(9, &mut out));
        assert!(!payload.copy_to(usize::MAX, &mut out));
        assert!(payload.slice(4, 8).unwrap().eq_bytes(&bytes[4..]));
        assert!(payload.slice(4, 9).is_none());
    }

    #[test]
    fn copies_and_comparisons_cover_all_bytes() {
        let bytes: Vec<u8> = (0..1000u32).map(|index| index as u8).collect();
        let payload = Payload::from_slice(&bytes);
        assert_eq!(payload.to_vec(), bytes);
        assert!(payload.eq_bytes(&bytes));
        let mut other = bytes.clone();
        other[999] ^= 1;
        assert!(!payload.eq_bytes(&other));
        assert!(!payload.eq_bytes(&bytes[..999]));
        let mut target = vec![7];
        payload.append_to(&mut target);
        assert_eq!(target[0], 7);
        assert_eq!(&target[1..], &bytes[..]);
        assert!(Payload::from_slice(&[]).is_empty());
    }

    #[test]
    fn a_length_word_keeps_its_parts_apart() {
        let word = length_word(-64, 0xC0, 0xFFFE);
        assert_eq!(word_length(word), -64);
        assert_eq!(word_version(word), 0);
        assert_eq!(word_flags(word), 0xC0);
        assert_eq!(word_type(word), 0xFFFE);
        let fenced = fenced_word(64, 0xABCD_EFF5);
        assert_eq!(word_length(fenced), -64);
        assert_eq!(word_version(fenced), VERSION_FENCED);
    }
}
