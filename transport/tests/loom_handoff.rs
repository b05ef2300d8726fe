//! A handoff never gives a torn value: every interleaving of a writer of two values and a reader. The twins show that
//! the model notices when either pair of the orders is weakened.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fulmar::memory::handoff::{Handoff, handoff_length};
use fulmar::memory::{AtomicBuffer, LoomWords};
use loom::thread;

/// What a twin does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weakened {
    Nothing,
    /// The words of the value are stored without release.
    StoreOfWords,
    /// The words of the value are loaded without acquire.
    LoadOfWords,
    /// The last version is stored without release.
    StoreOfDone,
}

const DONE_OFFSET: usize = 8;
const VALUE_OFFSET: usize = 16;

#[derive(Clone)]
struct Words {
    words: Arc<LoomWords>,
    weakened: Weakened,
}

impl AtomicBuffer for Words {
    fn capacity(&self) -> usize {
        self.words.capacity()
    }
    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        self.words.load_relaxed_i32(offset)
    }
    fn load_acquire_i32(&self, offset: usize) -> i32 {
        self.words.load_acquire_i32(offset)
    }
    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        self.words.store_relaxed_i32(offset, value);
    }
    fn store_release_i32(&self, offset: usize, value: i32) {
        self.words.store_release_i32(offset, value);
    }
    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.words.compare_exchange_i32(offset, current, new)
    }
    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.words.fetch_add_i32(offset, delta)
    }
    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        self.words.load_relaxed_i64(offset)
    }
    fn load_acquire_i64(&self, offset: usize) -> i64 {
        if self.weakened == Weakened::LoadOfWords && offset >= VALUE_OFFSET {
            return self.words.load_relaxed_i64(offset);
        }
        self.words.load_acquire_i64(offset)
    }
    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        self.words.store_relaxed_i64(offset, value);
    }
    fn store_release_i64(&self, offset: usize, value: i64) {
        let relaxed = match self.weakened {
            Weakened::StoreOfWords => offset >= VALUE_OFFSET,
            Weakened::StoreOfDone => offset == DONE_OFFSET,
            Weakened::Nothing | Weakened::LoadOfWords => false,
        };
        if relaxed {
            self.words.store_relaxed_i64(offset, value);
        } else {
            self.words.store_release_i64(offset, value);
        }
    }
    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        self.words.compare_exchange_i64(offset, current, new)
    }
    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.words.fetch_add_i64(offset, delta)
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.words.copy_in(offset, bytes);
    }
    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        self.words.copy_out(offset, bytes);
    }
    fn zero(&self, offset: usize, length: usize) {
        self.words.zero(offset, length);
    }
}

fn two_values_and_a_reader(weakened: Weakened) {
    loom::model(move || {
        let words = Words {
            words: Arc::new(LoomWords::new(handoff_length(2))),
            weakened,
        };
        let reader = Handoff::<_, 2>::new(words.clone());
        let writer = Handoff::<_, 2>::new(words);
        let writing = thread::spawn(move || {
            writer.write([11, 12]);
            writer.write([21, 22]);
        });
        let mut seen = 0;
        for _ in 0..2 {
            if let Some(handed) = reader.read_after(seen) {
                let expected = [10 * handed.version + 1, 10 * handed.version + 2];
                assert_eq!(handed.words, expected, "all words are of the same version");
                assert!(handed.version > seen);
                seen = handed.version;
            }
        }
        writing.join().unwrap();
        if seen < 2 {
            let last = reader.read_after(seen).expect("the last value is not lost");
            assert_eq!((last.version, last.words), (2, [21, 22]));
        }
    });
}

fn must_fail(weakened: Weakened) {
    let outcome = catch_unwind(AssertUnwindSafe(|| two_values_and_a_reader(weakened)));
    assert!(outcome.is_err(), "the model notices what was weakened");
}

#[test]
fn a_reader_sees_whole_values_and_never_loses_the_last() {
    two_values_and_a_reader(Weakened::Nothing);
}

#[test]
fn twin_words_stored_without_release_are_noticed() {
    must_fail(Weakened::StoreOfWords);
}

#[test]
fn twin_words_loaded_without_acquire_are_noticed() {
    must_fail(Weakened::LoadOfWords);
}

#[test]
fn twin_a_version_stored_without_release_is_noticed() {
    must_fail(Weakened::StoreOfDone);
}
