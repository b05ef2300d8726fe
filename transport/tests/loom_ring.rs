//! The to-driver ring under every interleaving of few threads.
#![cfg(loom)]

mod loom_model;

use fulmar::memory::AtomicBuffer;
use fulmar::ring::mpsc_ring::TRAILER_LENGTH;
use fulmar::ring::{ManyToOneRing, ReadAction, RingError};
use loom::thread;
use loom_model::{ModelWords, Weakness, check};

/// Four records with 8 bytes of payload, which is also the most that goes in.
const CAPACITY: usize = 64;
const TAIL: usize = CAPACITY + 128;
const HEAD: usize = CAPACITY + 384;

type Ring = ManyToOneRing<ModelWords>;

fn ring(weakness: Weakness) -> (Ring, ModelWords) {
    let words = ModelWords::new(CAPACITY + TRAILER_LENGTH, weakness);
    (
        ManyToOneRing::new(words.clone()).expect("the length is right"),
        words,
    )
}

/// Reads what there is now.
fn read(ring: &Ring, into: &mut Vec<(i32, i64)>) {
    let mut scratch = Vec::new();
    ring.read(
        10,
        |type_id, payload| {
            let payload = payload.try_into().expect("every message here has 8 bytes");
            into.push((type_id, i64::from_le_bytes(payload)));
            ReadAction::Continue
        },
        &mut scratch,
    )
    .expect("nobody scribbles here");
}

/// Two producers and the consumer at once: each message arrives once, whole.
fn two_producers(weakness: Weakness) {
    check(2, move || {
        let (ring, words) = ring(weakness);
        let producers: Vec<_> = [(1, 0x1111), (2, 0x2222)]
            .into_iter()
            .map(|(type_id, payload): (i32, i64)| {
                let ring = ManyToOneRing::new(words.clone()).expect("the length is right");
                thread::spawn(move || ring.write(type_id, &payload.to_le_bytes()))
            })
            .collect();
        let mut messages = Vec::new();
        read(&ring, &mut messages);
        for producer in producers {
            assert_eq!(producer.join().expect("producers do not panic"), Ok(()));
        }
        read(&ring, &mut messages);
        messages.sort_unstable();
        assert_eq!(messages, [(1, 0x1111), (2, 0x2222)]);
    });
}

#[test]
fn two_producers_lose_nothing() {
    two_producers(Weakness::None);
}

#[test]
#[should_panic(expected = "assertion")]
fn a_commit_that_publishes_nothing_is_found() {
    two_producers(Weakness::TornExchange(0));
}

#[test]
#[should_panic(expected = "assertion")]
fn a_tail_that_two_producers_can_take_is_found() {
    two_producers(Weakness::TornExchange(TAIL));
}

/// A full ring whose space is given back while a producer waits for it.
fn reuse(weakness: Weakness) {
    check(3, move || {
        let (ring, words) = ring(weakness);
        for payload in 1..=4i64 {
            assert_eq!(ring.write(1, &payload.to_le_bytes()), Ok(()));
        }
        let producer = {
            let ring = ManyToOneRing::new(words).expect("the length is right");
            thread::spawn(move || ring.write(1, &5i64.to_le_bytes()))
        };
        let mut messages = Vec::new();
        read(&ring, &mut messages);
        let written = producer.join().expect("the producer does not panic");
        read(&ring, &mut messages);
        let expected: Vec<_> = (1..=if written.is_ok() { 5 } else { 4 })
            .map(|payload| (1, payload))
            .collect();
        assert_eq!(messages, expected);
        assert!(written.is_ok() || written == Err(RingError::Full));
        assert_eq!(ring.consumer_position(), ring.producer_position());
    });
}

#[test]
fn space_is_zero_before_it_is_given_back() {
    reuse(Weakness::None);
}

#[test]
#[should_panic(expected = "assertion")]
fn space_given_back_before_it_is_zero_is_found() {
    reuse(Weakness::LateZeros { until: HEAD });
}

/// The driver takes a claim away while its producer, which is not dead at all, commits it.
fn commit_against_unblock(weakness: Weakness) {
    check(3, move || {
        let (ring, words) = ring(weakness);
        let producer = {
            let ring = ManyToOneRing::new(words).expect("the length is right");
            thread::spawn(move || ring.write(1, &7i64.to_le_bytes()))
        };
        let taken = ring.unblock_dead(7);
        let mut messages = Vec::new();
        let written = producer.join().expect("the producer does not panic");
        read(&ring, &mut messages);
        assert_ne!(written.is_ok(), taken, "exactly one of both has it");
        assert_eq!(messages.len(), usize::from(written.is_ok()));
        assert_eq!(ring.write(2, &8i64.to_le_bytes()), Ok(()));
        read(&ring, &mut messages);
        assert_eq!(messages.last(), Some(&(2, 8)));
    });
}

#[test]
fn a_claim_is_committed_or_taken_away() {
    commit_against_unblock(Weakness::None);
}

#[test]
#[should_panic(expected = "exactly one of both has it")]
fn a_claim_both_committed_and_taken_away_is_found() {
    commit_against_unblock(Weakness::TornExchange(0));
}

/// A hole left by a dead producer, and a living one that writes behind it while the driver looks for its end.
fn hole(weakness: Weakness) {
    check(3, move || {
        let (ring, words) = ring(weakness);
        words.store_release_i64(TAIL, 16);
        let producer = {
            let ring = ManyToOneRing::new(words).expect("the length is right");
            thread::spawn(move || ring.write(1, &7i64.to_le_bytes()))
        };
        let early = ring.unblock();
        assert_eq!(producer.join().expect("the producer does not panic"), Ok(()));
        assert_ne!(ring.unblock(), early, "the hole is filled once");
        let mut messages = Vec::new();
        read(&ring, &mut messages);
        assert_eq!(messages, [(1, 7)]);
    });
}

#[test]
fn a_hole_ends_where_the_next_record_starts() {
    hole(Weakness::None);
}

#[test]
#[should_panic]
fn a_hole_that_swallows_a_living_claim_is_found() {
    hole(Weakness::RelaxedLoadsOfHalves);
}
