//! Shared words and bytes. The memory order of every access stands in its name.

use core::fmt;
use core::ptr::NonNull;

use super::region::Region;
#[cfg(not(loom))]
use crate::sync::{AtomicI32, AtomicI64, Ordering};

/// Words and bytes that other threads and other processes write at the same time.
///
/// Offsets are in bytes from the start of the buffer. 4-byte accesses need a multiple of 4, 8-byte accesses a
/// multiple of 8; an access outside the buffer or off its boundary is a programming error and panics, so offsets that
/// come from shared memory are checked before they are used here.
pub trait AtomicBuffer {
    /// Length in bytes.
    fn capacity(&self) -> usize;

    /// Loads 4 bytes, no ordering.
    fn load_relaxed_i32(&self, offset: usize) -> i32;
    /// Loads 4 bytes; what the matching release store published is visible after it.
    fn load_acquire_i32(&self, offset: usize) -> i32;
    /// Stores 4 bytes, no ordering.
    fn store_relaxed_i32(&self, offset: usize, value: i32);
    /// Stores 4 bytes; everything before it is visible to an acquire load that sees it.
    fn store_release_i32(&self, offset: usize, value: i32);
    /// Compare-exchange of 4 bytes, sequentially consistent; `Err` holds what was there.
    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32>;
    /// Adds to 4 bytes, sequentially consistent, and returns the previous value.
    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32;

    /// Loads 8 bytes, no ordering.
    fn load_relaxed_i64(&self, offset: usize) -> i64;
    /// Loads 8 bytes; what the matching release store published is visible after it.
    fn load_acquire_i64(&self, offset: usize) -> i64;
    /// Stores 8 bytes, no ordering.
    fn store_relaxed_i64(&self, offset: usize, value: i64);
    /// Stores 8 bytes; everything before it is visible to an acquire load that sees it.
    fn store_release_i64(&self, offset: usize, value: i64);
    /// Compare-exchange of 8 bytes, sequentially consistent; `Err` holds what was there.
    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64>;
    /// Adds to 8 bytes, sequentially consistent, and returns the previous value.
    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64;

    /// Copies bytes in; ordered for readers by a later release store.
    fn copy_in(&self, offset: usize, bytes: &[u8]);
    /// Copies bytes out; ordered by an earlier acquire load.
    fn copy_out(&self, offset: usize, bytes: &mut [u8]);
    /// Stores zeros, ordered for readers by a later release store.
    fn zero(&self, offset: usize, length: usize);
}

/// A bounds-checked window on a [`Region`], which it keeps alive.
#[derive(Clone)]
pub struct View {
    base: NonNull<u8>,
    length: usize,
    owner: Region,
}

// SAFETY: all access goes through atomics or raw copies of bytes that are shared with other processes anyway; the
// owner is reference counted with atomics.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// # Safety
    /// `[base, base + length)` lies inside the bytes that `owner` keeps alive, and `base` is 8-byte aligned.
    pub(super) unsafe fn from_raw_parts(base: NonNull<u8>, length: usize, owner: Region) -> View {
        debug_assert!((base.as_ptr() as usize).is_multiple_of(8));
        View { base, length, owner }
    }

    /// A part of this view.
    ///
    /// # Panics
    /// If the part does not lie inside the view or does not start on an 8-byte boundary.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> View {
        assert!(
            offset <= self.length && length <= self.length - offset,
            "a part lies inside its view"
        );
        assert!(offset.is_multiple_of(8), "a part starts on an 8-byte boundary");
        // SAFETY: the part lies inside this view, hence inside the owner's bytes.
        unsafe { View::from_raw_parts(self.base.add(offset), length, self.owner.clone()) }
    }

    /// See [`Region::populate`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If the range does not lie inside the view.
    pub fn populate(&self, offset: usize, length: usize) -> std::io::Result<()> {
        let start = self.pointer(offset, length) as usize - self.owner.as_view().pointer(0, 0) as usize;
        self.owner.populate(start, length)
    }

    /// The region this view looks at.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.owner
    }

    /// The address of a byte, for raw copies and for the futex of a doorbell.
    ///
    /// # Panics
    /// If `[offset, offset + length)` does not lie inside the view.
    #[inline]
    #[must_use]
    pub fn pointer(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(
            offset <= self.length && length <= self.length - offset,
            "an access lies inside its view"
        );
        // SAFETY: offset is at most `length`, inside or one past the owner's bytes.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

#[cfg(not(loom))]
impl View {
    #[inline(always)]
    fn word_i32(&self, offset: usize) -> &AtomicI32 {
        assert!(
            self.length >= 4 && offset <= self.length - 4 && offset & 3 == 0,
            "a 4-byte word inside the view"
        );
        // SAFETY: the word lies inside bytes that the owner keeps alive at least as long as `self` is borrowed; base
        // is 8-byte aligned and the offset a multiple of 4; the word is only ever accessed atomically in this process.
        unsafe { AtomicI32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    #[inline(always)]
    fn word_i64(&self, offset: usize) -> &AtomicI64 {
        assert!(
            self.length >= 8 && offset <= self.length - 8 && offset & 7 == 0,
            "an 8-byte word inside the view"
        );
        // SAFETY: as for `word_i32`, with a multiple of 8.
        unsafe { AtomicI64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

#[cfg(not(loom))]
impl AtomicBuffer for View {
    #[inline(always)]
    fn capacity(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        self.word_i32(offset).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn load_acquire_i32(&self, offset: usize) -> i32 {
        self.word_i32(offset).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        self.word_i32(offset).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn store_release_i32(&self, offset: usize, value: i32) {
        self.word_i32(offset).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.word_i32(offset)
            .compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    #[inline(always)]
    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.word_i32(offset).fetch_add(delta, Ordering::SeqCst)
    }

    #[inline(always)]
    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        self.word_i64(offset).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn load_acquire_i64(&self, offset: usize) -> i64 {
        self.word_i64(offset).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        self.word_i64(offset).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn store_release_i64(&self, offset: usize, value: i64) {
        self.word_i64(offset).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        self.word_i64(offset)
            .compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    #[inline(always)]
    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.word_i64(offset).fetch_add(delta, Ordering::SeqCst)
    }

    #[inline(always)]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let target = self.pointer(offset, bytes.len());
        // SAFETY: the target range lies inside the view (checked by `pointer`); `bytes` is private memory of this
        // process, so the ranges do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    #[inline(always)]
    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let source = self.pointer(offset, bytes.len());
        // SAFETY: the source range lies inside the view (checked by `pointer`); `bytes` is private memory of this
        // process, so the ranges do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) }
    }

    #[inline]
    fn zero(&self, offset: usize, length: usize) {
        let target = self.pointer(offset, length);
        // SAFETY: the range lies inside the view (checked by `pointer`).
        unsafe { core::ptr::write_bytes(target, 0, length) }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_share_the_region() {
        let region = Region::heap(64);
        let view = region.view(8, 32);
        view.store_release_i64(0, 0x0807_0605_0403_0201);
        let mut bytes = [0u8; 8];
        region.as_view().copy_out(8, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(view.load_acquire_i32(4), 0x0807_0605);
        view.zero(0, 4);
        assert_eq!(view.load_relaxed_i64(0), 0x0807_0605_0000_0000);
    }

    #[test]
    fn a_view_keeps_its_region_alive() {
        let view = Region::heap(4096).as_view();
        view.store_relaxed_i32(4092, 7);
        assert_eq!(view.load_relaxed_i32(4092), 7);
    }

    #[test]
    #[should_panic(expected = "inside the view")]
    fn an_access_outside_the_view_panics() {
        let _ = Region::heap(64).view(0, 16).load_relaxed_i64(16);
    }

    #[test]
    #[should_panic(expected = "inside its region")]
    fn a_view_outside_the_region_panics() {
        let _ = Region::heap(64).view(64, 8);
    }
}
