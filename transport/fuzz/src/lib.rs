//! What the targets share: taking the fuzzer's bytes apart, and regions filled with them.

use fulmar::memory::{AtomicBuffer, Region};

/// The fuzzer's bytes, taken from the front. What is missing at the end is zero.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All bytes of one run.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes were taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `length` bytes.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Whatever is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    /// A position: mostly a small multiple of `unit`, sometimes anything.
    pub fn position(&mut self, unit: i64) -> i64 {
        if self.u8() & 7 == 7 {
            self.i64()
        } else {
            i64::from(self.u16()) * unit
        }
    }
}

/// A heap region of `length` bytes that starts with `bytes`.
#[must_use]
pub fn region(length: usize, bytes: &[u8]) -> Region {
    let region = Region::heap(length);
    region.as_view().copy_in(0, &bytes[..bytes.len().min(length)]);
    region
}
