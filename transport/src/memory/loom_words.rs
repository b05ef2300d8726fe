//! An [`AtomicBuffer`] of loom words, for model checking. Everything is kept in 8-byte words; a 4-byte store is a
//! masked exchange with the same order, payload bytes are relaxed words, so a missing release shows as stale bytes.

use loom::sync::atomic::{AtomicU64, Ordering};

use super::AtomicBuffer;

/// Zeroed words under the control of loom.
#[derive(Debug)]
pub struct LoomWords {
    words: Vec<AtomicU64>,
}

impl LoomWords {
    /// `capacity` bytes, a multiple of 8.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity.is_multiple_of(8));
        Self {
            words: (0..capacity / 8).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn half(&self, offset: usize) -> (&AtomicU64, u32) {
        assert!(offset.is_multiple_of(4));
        (&self.words[offset / 8], (offset as u32 % 8) * 8)
    }

    fn load_i32(&self, offset: usize, order: Ordering) -> i32 {
        let (word, shift) = self.half(offset);
        (word.load(order) >> shift) as u32 as i32
    }

    fn update_i32(&self, offset: usize, order: Ordering, f: impl Fn(i32) -> Option<i32>) -> Result<i32, i32> {
        let (word, shift) = self.half(offset);
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let old = (current >> shift) as u32 as i32;
            let Some(new) = f(old) else { return Err(old) };
            let next = (current & !(0xffff_ffffu64 << shift)) | (u64::from(new as u32) << shift);
            match word.compare_exchange(current, next, order, Ordering::Relaxed) {
                Ok(_) => return Ok(old),
                Err(seen) => current = seen,
            }
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        &self.words[offset / 8]
    }

    fn store_byte(&self, offset: usize, byte: u8) {
        let word = &self.words[offset / 8];
        let shift = (offset % 8) * 8;
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let next = (current & !(0xffu64 << shift)) | (u64::from(byte) << shift);
            match word.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => current = seen,
            }
        }
    }
}

impl AtomicBuffer for LoomWords {
    fn capacity(&self) -> usize {
        self.words.len() * 8
    }

    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        self.load_i32(offset, Ordering::Relaxed)
    }

    fn load_acquire_i32(&self, offset: usize) -> i32 {
        self.load_i32(offset, Ordering::Acquire)
    }

    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        let _ = self.update_i32(offset, Ordering::Relaxed, |_| Some(value));
    }

    fn store_release_i32(&self, offset: usize, value: i32) {
        let _ = self.update_i32(offset, Ordering::Release, |_| Some(value));
    }

    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.update_i32(offset, Ordering::SeqCst, |old| (old == current).then_some(new))
    }

    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.update_i32(offset, Ordering::SeqCst, |old| Some(old.wrapping_add(delta)))
            .unwrap_or_else(|old| old)
    }

    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        self.word(offset).load(Ordering::Relaxed) as i64
    }

    fn load_acquire_i64(&self, offset: usize) -> i64 {
        self.word(offset).load(Ordering::Acquire) as i64
    }

    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        self.word(offset).store(value as u64, Ordering::Relaxed);
    }

    fn store_release_i64(&self, offset: usize, value: i64) {
        self.word(offset).store(value as u64, Ordering::Release);
    }

    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        self.word(offset)
            .compare_exchange(current as u64, new as u64, Ordering::SeqCst, Ordering::SeqCst)
            .map(|old| old as i64)
            .map_err(|old| old as i64)
    }

    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.word(offset).fetch_add(delta as u64, Ordering::SeqCst) as i64
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.store_byte(offset + index, *byte);
        }
    }

    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = offset + index;
            *byte = (self.words[at / 8].load(Ordering::Relaxed) >> ((at % 8) * 8)) as u8;
        }
    }

    fn zero(&self, offset: usize, length: usize) {
        for at in offset..offset + length {
            self.store_byte(at, 0);
        }
    }
}
