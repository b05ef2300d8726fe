//! A handoff never gives a torn value: every interleaving of a writer of two values and a reader. The twins show that
//! the model notices when either pair of the orders is weakened.
#![cfg(loom)]

mod loom_model;

use fulmar::memory::handoff::{Handoff, handoff_length};
use loom::thread;
use loom_model::{ModelWords, Weakness, check};

const DONE_OFFSET: usize = 8;
const SECOND_WORD_OFFSET: usize = 24;

fn two_values_and_a_reader(weakness: Weakness) {
    check(3, move || {
        let words = ModelWords::new(handoff_length(2), weakness);
        let reader = Handoff::<_, 2>::new(words.clone());
        let writer = Handoff::<_, 2>::new(words);
        let writing = thread::spawn(move || {
            writer.write([11, 12]);
            writer.write([21, 22]);
        });
        let mut seen = 0;
        for _ in 0..2 {
            if let Some(handed) = reader.read_after(seen) {
                let whole = [10 * handed.version + 1, 10 * handed.version + 2];
                assert_eq!(handed.words, whole, "a torn value");
                assert!(handed.version > seen, "an old value");
                seen = handed.version;
            }
        }
        writing.join().expect("the writer does not panic");
        if seen < 2 {
            let last = reader.read_after(seen).expect("the last value is not lost");
            assert_eq!((last.version, last.words), (2, [21, 22]));
        }
    });
}

#[test]
fn a_reader_sees_whole_values_and_never_loses_the_last() {
    two_values_and_a_reader(Weakness::None);
}

#[test]
#[should_panic(expected = "a torn value")]
fn twin_a_word_stored_without_release_is_noticed() {
    two_values_and_a_reader(Weakness::RelaxedStore(SECOND_WORD_OFFSET));
}

#[test]
#[should_panic(expected = "a torn value")]
fn twin_a_word_loaded_without_acquire_is_noticed() {
    two_values_and_a_reader(Weakness::RelaxedLoad(SECOND_WORD_OFFSET));
}

#[test]
#[should_panic(expected = "a torn value")]
fn twin_a_version_stored_without_release_is_noticed() {
    two_values_and_a_reader(Weakness::RelaxedStore(DONE_OFFSET));
}

#[test]
#[should_panic(expected = "a torn value")]
fn twin_a_version_loaded_without_acquire_is_noticed() {
    two_values_and_a_reader(Weakness::RelaxedLoad(DONE_OFFSET));
}

const _: () = assert!(SECOND_WORD_OFFSET + 8 == handoff_length(2));
