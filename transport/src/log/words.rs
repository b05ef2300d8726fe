//! Access to terms without a bounds check per word.
//!
//! The checks are made once and kept by types: a [`Term`] is a buffer whose length is a power of two, so any offset
//! can be masked into a frame slot inside it; a [`Slot`] is such a place, at least a frame header long. This is the
//! home of the unsafe code of the log; the rest of the log uses `Slot`.

use core::fmt;
#[cfg(not(loom))]
use core::marker::PhantomData;
use core::ops::Deref;

use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::memory::AtomicBuffer;
#[cfg(not(loom))]
use crate::memory::View;
#[cfg(not(loom))]
use crate::memory::copy::copy_bytes;
#[cfg(not(loom))]
use crate::sync::{AtomicI64, Ordering};

/// [`AtomicBuffer`] whose address can be looked up once and used for several accesses.
pub trait Words: AtomicBuffer {
    /// The buffer with its address looked up.
    type Resolved<'a>: ResolvedWords
    where
        Self: 'a;

    /// Looks the address up.
    fn resolve(&self) -> Self::Resolved<'_>;
}

/// Accesses whose bounds the caller vouches for. A reference to any [`AtomicBuffer`] checks them all the same.
pub trait ResolvedWords: Copy {
    /// Loads 8 bytes, no ordering.
    /// # Safety
    /// `offset` is a multiple of 8 and `offset + 8` is at most the capacity.
    unsafe fn load_relaxed(self, offset: usize) -> i64;
    /// Loads 8 bytes, acquire.
    /// # Safety
    /// As for [`ResolvedWords::load_relaxed`].
    unsafe fn load_acquire(self, offset: usize) -> i64;
    /// Stores 8 bytes, no ordering.
    /// # Safety
    /// As for [`ResolvedWords::load_relaxed`].
    unsafe fn store_relaxed(self, offset: usize, value: i64);
    /// Stores 8 bytes, release.
    /// # Safety
    /// As for [`ResolvedWords::load_relaxed`].
    unsafe fn store_release(self, offset: usize, value: i64);
    /// Adds to 8 bytes, sequentially consistent, and returns the previous value.
    /// # Safety
    /// As for [`ResolvedWords::load_relaxed`].
    unsafe fn fetch_add(self, offset: usize, delta: i64) -> i64;
    /// Copies bytes in; ordered for readers by a later release store.
    /// # Safety
    /// `offset + bytes.len()` is at most the capacity.
    unsafe fn copy_in(self, offset: usize, bytes: &[u8]);
}

impl<B: AtomicBuffer> ResolvedWords for &B {
    #[inline(always)]
    unsafe fn load_relaxed(self, offset: usize) -> i64 {
        self.load_relaxed_i64(offset)
    }

    #[inline(always)]
    unsafe fn load_acquire(self, offset: usize) -> i64 {
        self.load_acquire_i64(offset)
    }

    #[inline(always)]
    unsafe fn store_relaxed(self, offset: usize, value: i64) {
        self.store_relaxed_i64(offset, value);
    }

    #[inline(always)]
    unsafe fn store_release(self, offset: usize, value: i64) {
        self.store_release_i64(offset, value);
    }

    #[inline(always)]
    unsafe fn fetch_add(self, offset: usize, delta: i64) -> i64 {
        self.fetch_add_i64(offset, delta)
    }

    #[inline(always)]
    unsafe fn copy_in(self, offset: usize, bytes: &[u8]) {
        AtomicBuffer::copy_in(self, offset, bytes);
    }
}

#[cfg(loom)]
impl Words for crate::memory::LoomWords {
    type Resolved<'a> = &'a Self;

    fn resolve(&self) -> &Self {
        self
    }
}

#[cfg(not(loom))]
impl Words for View {
    type Resolved<'a> = ViewWords<'a>;

    #[inline(always)]
    fn resolve(&self) -> ViewWords<'_> {
        ViewWords {
            base: self.pointer(0, 0),
            view: PhantomData,
        }
    }
}

/// The address of a borrowed [`View`].
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub struct ViewWords<'a> {
    base: *mut u8,
    view: PhantomData<&'a View>,
}

#[cfg(not(loom))]
impl<'a> ViewWords<'a> {
    /// # Safety
    /// `offset` is a multiple of 8 and the 8 bytes there lie inside the view.
    #[inline(always)]
    unsafe fn word(self, offset: usize) -> &'a AtomicI64 {
        // SAFETY: the word lies inside bytes that the view keeps alive while it is borrowed, and a view starts on an
        // 8-byte boundary; words of terms and metadata are only ever accessed atomically in this process.
        unsafe { AtomicI64::from_ptr(self.base.add(offset).cast()) }
    }
}

#[cfg(not(loom))]
impl ResolvedWords for ViewWords<'_> {
    #[inline(always)]
    unsafe fn load_relaxed(self, offset: usize) -> i64 {
        // SAFETY: the caller vouches for the bounds.
        unsafe { self.word(offset) }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    unsafe fn load_acquire(self, offset: usize) -> i64 {
        // SAFETY: the caller vouches for the bounds.
        unsafe { self.word(offset) }.load(Ordering::Acquire)
    }

    #[inline(always)]
    unsafe fn store_relaxed(self, offset: usize, value: i64) {
        // SAFETY: the caller vouches for the bounds.
        unsafe { self.word(offset) }.store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    unsafe fn store_release(self, offset: usize, value: i64) {
        // SAFETY: the caller vouches for the bounds.
        unsafe { self.word(offset) }.store(value, Ordering::Release);
    }

    #[inline(always)]
    unsafe fn fetch_add(self, offset: usize, delta: i64) -> i64 {
        // SAFETY: the caller vouches for the bounds.
        unsafe { self.word(offset) }.fetch_add(delta, Ordering::SeqCst)
    }

    #[inline(always)]
    unsafe fn copy_in(self, offset: usize, bytes: &[u8]) {
        // SAFETY: the caller vouches for the bounds; what an appender writes to is a range of its own, which nobody
        // holds a slice of.
        unsafe { copy_bytes(bytes.as_ptr(), self.base.add(offset), bytes.len()) }
    }
}

/// A buffer whose length is a power of two and at least two frame headers, so that offsets can be masked into it.
#[derive(Clone, Debug)]
pub struct Term<B> {
    buffer: B,
    /// Turns any number into the offset of a slot: aligned, and inside the buffer.
    slot_mask: usize,
}

impl<B: Words> Term<B> {
    /// Takes a buffer as a term. `None` unless its length is a power of two from 64 bytes to 1 GiB: tests and models
    /// use terms that are far shorter than those of real logs.
    #[must_use]
    pub fn new(buffer: B) -> Option<Term<B>> {
        let capacity = buffer.capacity();
        let fits = (2 * FRAME_HEADER_LENGTH..=1 << 30).contains(&capacity) && capacity.is_power_of_two();
        fits.then(|| Term {
            buffer,
            slot_mask: (capacity - 1) & !(FRAME_ALIGNMENT - 1),
        })
    }

    /// Length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> usize {
        self.slot_mask + FRAME_ALIGNMENT
    }

    /// The slot at an offset, which is reduced to a slot inside the term if it is none.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, offset: usize) -> Slot<'_, B> {
        Slot {
            term: self,
            words: self.buffer.resolve(),
            offset: offset & self.slot_mask,
        }
    }
}

impl<B> Term<B> {
    /// The buffer itself.
    #[inline(always)]
    pub fn buffer(&self) -> &B {
        &self.buffer
    }
}

impl<B> Deref for Term<B> {
    type Target = B;

    #[inline(always)]
    fn deref(&self) -> &B {
        &self.buffer
    }
}

/// The place of a frame: 32-byte aligned, with at least a frame header inside the term.
pub struct Slot<'a, B: Words> {
    term: &'a Term<B>,
    words: B::Resolved<'a>,
    // Invariant: a multiple of 32, and `offset + 32 <= term.length() == capacity`.
    offset: usize,
}

impl<B: Words> Clone for Slot<'_, B> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Words> Copy for Slot<'_, B> {}

impl<B: Words> fmt::Debug for Slot<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// One of the four 8-byte words of a frame header (spec 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum HeaderWord {
    /// Frame length, version, flags and type.
    Length = 0,
    /// Term offset and session id.
    Offset = 8,
    /// Stream id and term id.
    Stream = 16,
    /// Reserved value.
    Reserved = 24,
}

impl<'a, B: Words> Slot<'a, B> {
    /// Offset inside the term, bytes.
    #[inline(always)]
    #[must_use]
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Bytes from here to the end of the term: at least 32.
    #[inline(always)]
    #[must_use]
    pub fn remaining(self) -> usize {
        self.term.length() - self.offset
    }

    /// The term.
    #[inline(always)]
    #[must_use]
    pub fn term(self) -> &'a Term<B> {
        self.term
    }

    /// Loads a header word, no ordering.
    #[inline(always)]
    #[must_use]
    pub fn load_relaxed(self, word: HeaderWord) -> i64 {
        // SAFETY: the header of a slot lies inside the term.
        unsafe { self.words.load_relaxed(self.offset + word as usize) }
    }

    /// Loads a header word, acquire.
    #[inline(always)]
    #[must_use]
    pub fn load_acquire(self, word: HeaderWord) -> i64 {
        // SAFETY: the header of a slot lies inside the term.
        unsafe { self.words.load_acquire(self.offset + word as usize) }
    }

    /// Stores a header word, no ordering.
    #[inline(always)]
    pub fn store_relaxed(self, word: HeaderWord, value: i64) {
        // SAFETY: the header of a slot lies inside the term.
        unsafe { self.words.store_relaxed(self.offset + word as usize, value) }
    }

    /// Stores a header word, release.
    #[inline(always)]
    pub fn store_release(self, word: HeaderWord, value: i64) {
        // SAFETY: the header of a slot lies inside the term.
        unsafe { self.words.store_release(self.offset + word as usize, value) }
    }

    /// Compare-exchange of a header word.
    ///
    /// # Errors
    /// The value that was there instead of `current`.
    #[inline]
    pub fn compare_exchange(self, word: HeaderWord, current: i64, new: i64) -> Result<i64, i64> {
        self.term
            .buffer
            .compare_exchange_i64(self.offset + word as usize, current, new)
    }

    /// Copies payload to `at` bytes behind the header. What would pass the end of the term is not copied: only a tail
    /// that another process has scribbled on leads there.
    #[inline(always)]
    pub fn copy_payload(self, at: usize, bytes: &[u8]) {
        let room = self.remaining() - FRAME_HEADER_LENGTH;
        if at <= room && bytes.len() <= room - at {
            // SAFETY: the range lies between the header and the end of the term, as just checked.
            unsafe { self.words.copy_in(self.offset + FRAME_HEADER_LENGTH + at, bytes) }
        }
    }
}

/// A buffer of at least `LENGTH` bytes, a power of two, whose first 8-byte words are reached without a bounds check.
#[derive(Clone, Debug)]
pub struct Fields<B, const LENGTH: usize = 512> {
    // Invariant: `buffer.capacity() >= LENGTH`.
    buffer: B,
}

impl Fields<()> {
    /// Bytes that can be reached unless another length is asked for.
    pub const LENGTH: usize = 512;
}

/// Reduces an offset to that of an 8-byte word among the fields; folded away for constants.
#[inline(always)]
const fn field<const LENGTH: usize>(offset: usize) -> usize {
    offset & (LENGTH - 8)
}

impl<B: Words, const LENGTH: usize> Fields<B, LENGTH> {
    /// Takes a buffer; `None` if it is shorter than `LENGTH`.
    #[must_use]
    pub fn new(buffer: B) -> Option<Fields<B, LENGTH>> {
        const { assert!(LENGTH.is_power_of_two() && LENGTH >= 8) };
        (buffer.capacity() >= LENGTH).then_some(Fields { buffer })
    }

    /// Loads the word at an offset, acquire.
    #[inline(always)]
    pub fn load_acquire(&self, offset: usize) -> i64 {
        // SAFETY: `field` gives a multiple of 8 of at most LENGTH - 8, and the buffer has LENGTH bytes.
        unsafe { self.buffer.resolve().load_acquire(field::<LENGTH>(offset)) }
    }

    /// Stores the word at an offset, no ordering.
    #[inline(always)]
    pub fn store_relaxed(&self, offset: usize, value: i64) {
        // SAFETY: as for `load_acquire`.
        unsafe {
            self.buffer
                .resolve()
                .store_relaxed(field::<LENGTH>(offset), value)
        }
    }

    /// Stores the word at an offset, release.
    #[inline(always)]
    pub fn store_release(&self, offset: usize, value: i64) {
        // SAFETY: as for `load_acquire`.
        unsafe {
            self.buffer
                .resolve()
                .store_release(field::<LENGTH>(offset), value)
        }
    }

    /// Adds to the word at an offset and returns the previous value.
    #[inline(always)]
    pub fn fetch_add(&self, offset: usize, delta: i64) -> i64 {
        // SAFETY: as for `load_acquire`.
        unsafe { self.buffer.resolve().fetch_add(field::<LENGTH>(offset), delta) }
    }
}

impl<B, const LENGTH: usize> Fields<B, LENGTH> {
    /// The buffer itself.
    #[inline(always)]
    pub fn buffer(&self) -> &B {
        &self.buffer
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::Region;

    #[test]
    fn every_number_is_reduced_to_a_slot_inside_the_term() {
        let term = Term::new(Region::heap(128).as_view()).unwrap();
        for offset in [0, 31, 32, 96, 97, 127, 128, usize::MAX] {
            let slot = term.slot(offset);
            assert_eq!(slot.offset() % 32, 0);
            assert!(slot.remaining() >= 32);
            slot.store_release(HeaderWord::Reserved, 1);
        }
        assert_eq!(term.slot(usize::MAX).offset(), 96);
    }

    #[test]
    fn a_term_is_a_power_of_two() {
        assert!(Term::new(Region::heap(96).as_view()).is_none());
        assert!(Term::new(Region::heap(32).as_view()).is_none());
        assert_eq!(Term::new(Region::heap(65536).as_view()).unwrap().length(), 65536);
    }

    #[test]
    fn short_copies_of_every_length_are_exact_and_touch_nothing_else() {
        for length in 0..200usize {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8 + 1).collect();
            let region = Region::heap(256);
            let term = Term::new(region.as_view()).unwrap();
            term.slot(0).copy_payload(3, &bytes);
            let mut seen = [0u8; 256];
            region.as_view().copy_out(0, &mut seen);
            assert_eq!(&seen[35..35 + length], &bytes[..]);
            assert!(seen[..35].iter().all(|byte| *byte == 0));
            assert!(seen[35 + length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn payload_that_would_pass_the_end_of_the_term_is_not_copied() {
        let region = Region::heap(64);
        let term = Term::new(region.as_view()).unwrap();
        term.slot(32).copy_payload(0, &[1]);
        term.slot(0).copy_payload(usize::MAX, &[1]);
        term.slot(0).copy_payload(0, &[1; 33]);
        let mut seen = [0u8; 64];
        region.as_view().copy_out(0, &mut seen);
        assert_eq!(seen, [0; 64]);
    }
}
