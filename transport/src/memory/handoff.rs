//! A value that one agent hands to another again and again; only the latest counts. The reader never waits: while the
//! writer is in the middle of a value it sees none and looks again in its next cycle.
//!
//! ```text
//!   0  i64 begun   version of the value being written
//!   8  i64 done    version of the last complete value
//!  16  i64 x N     the value
//! ```
//!
//! The writer raises `begun`, stores the words and raises `done`; the reader loads `done`, then the words, then
//! `begun`. Every word of the value is an atomic, so a torn read is a wrong number that is thrown away and never a
//! data race. A reader that saw a word of a later value sees the later `begun` too, and throws the value away.
#![forbid(unsafe_code)]

use super::AtomicBuffer;
#[cfg(not(loom))]
use super::{Region, View};

const BEGUN_OFFSET: usize = 0;
const DONE_OFFSET: usize = 8;
const VALUE_OFFSET: usize = 16;

/// Length of a handoff of `words` words, bytes.
#[must_use]
pub const fn handoff_length(words: usize) -> usize {
    VALUE_OFFSET + words * 8
}

/// What was handed over, and its version: 1 for the first value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed<const N: usize> {
    /// Grows by one with each value.
    pub version: i64,
    /// The words of the value, all of the same version.
    pub words: [i64; N],
}

/// A cell of `N` words with one writer and any number of readers. No value is there at first.
#[derive(Debug)]
pub struct Handoff<B, const N: usize> {
    cell: B,
}

#[cfg(not(loom))]
impl<const N: usize> Handoff<View, N> {
    /// An empty cell on the heap.
    #[must_use]
    pub fn heap() -> Self {
        Self::new(Region::heap(handoff_length(N)).as_view())
    }
}

impl<B: AtomicBuffer, const N: usize> Handoff<B, N> {
    /// Takes [`handoff_length`] zeroed bytes.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub fn new(cell: B) -> Self {
        assert!(
            cell.capacity() >= handoff_length(N),
            "a handoff has two version words and its value"
        );
        Self { cell }
    }

    /// Hands a value over; the one before is forgotten whether it was read or not. There must be only one writer.
    #[inline]
    pub fn write(&self, words: [i64; N]) {
        let version = self.cell.load_relaxed_i64(DONE_OFFSET).wrapping_add(1);
        self.cell.store_relaxed_i64(BEGUN_OFFSET, version);
        for (index, word) in words.into_iter().enumerate() {
            // SYNC handoff-begun: who sees this word sees that a value was begun.
            self.cell.store_release_i64(VALUE_OFFSET + index * 8, word);
        }
        // SYNC handoff-done: who sees this version sees all of its words.
        self.cell.store_release_i64(DONE_OFFSET, version);
    }

    /// The latest value, or `None` if it is the one of version `seen` (0: none was seen), if there is none, or if a
    /// later one is being written at this moment.
    #[inline]
    #[must_use]
    pub fn read_after(&self, seen: i64) -> Option<Handed<N>> {
        // SYNC handoff-done: the words below are at least as new as this version.
        let version = self.cell.load_acquire_i64(DONE_OFFSET);
        if version == seen {
            return None;
        }
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            // SYNC handoff-begun: if this word belongs to a later value, the load of `begun` below shows it.
            *word = self.cell.load_acquire_i64(VALUE_OFFSET + index * 8);
        }
        (self.cell.load_relaxed_i64(BEGUN_OFFSET) == version).then_some(Handed { version, words })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_there_before_the_first_value() {
        assert_eq!(Handoff::<View, 2>::heap().read_after(0), None);
    }

    #[test]
    fn each_value_is_seen_once_and_only_the_latest_counts() {
        let handoff = Handoff::<View, 2>::heap();
        handoff.write([1, 2]);
        handoff.write([3, 4]);
        let handed = handoff.read_after(0).unwrap();
        assert_eq!((handed.version, handed.words), (2, [3, 4]));
        assert_eq!(handoff.read_after(handed.version), None);
        handoff.write([3, 4]);
        assert_eq!(handoff.read_after(handed.version).unwrap().version, 3);
    }

    #[test]
    fn a_reader_in_another_thread_sees_whole_values_in_order() {
        let handoff = Handoff::<View, 3>::heap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..=20_000 {
                    handoff.write([value, -value, value * 2]);
                }
            });
            let mut seen = 0;
            while seen < 20_000 {
                if let Some(handed) = handoff.read_after(seen) {
                    let [value, negative, double] = handed.words;
                    assert_eq!((negative, double), (-value, value * 2));
                    assert_eq!(handed.version, value);
                    assert!(handed.version > seen);
                    seen = handed.version;
                }
            }
        });
    }
}
