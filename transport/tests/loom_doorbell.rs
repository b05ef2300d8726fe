//! A doorbell loses no ring: every interleaving of a ringer and a waiter, with a kernel in miniature. The twins show
//! that the model notices when either half of the rule is weakened.
#![cfg(loom)]

use fulmar::agent::doorbell::{
    DOORBELL_LENGTH, DoorbellWords, SEQUENCE_OFFSET, SLEEPING_OFFSET, SLEEPS_OFFSET,
};
use fulmar::memory::{AtomicBuffer, LoomWords};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// What a twin does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weakened {
    Nothing,
    /// The ringer looks at the count of sleepers with a plain load.
    LookAtSleepers,
    /// The waiter does not compare the sequence before it sleeps, and neither does the kernel.
    Compare,
    /// The sequence is raised without a release, so that the work may not be seen by whoever was woken.
    Raise,
}

#[derive(Clone)]
struct Words {
    words: std::sync::Arc<LoomWords>,
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
        match (self.weakened, offset, delta) {
            (Weakened::LookAtSleepers, SLEEPING_OFFSET, 0) => self.words.load_acquire_i32(offset),
            (Weakened::Raise, SEQUENCE_OFFSET, 1) => {
                // One ringer only: a relaxed load and store is the relaxed form of its increment.
                let value = self.words.load_relaxed_i32(offset);
                self.words.store_relaxed_i32(offset, value + 1);
                value
            }
            _ => self.words.fetch_add_i32(offset, delta),
        }
    }
    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        self.words.load_relaxed_i64(offset)
    }
    fn load_acquire_i64(&self, offset: usize) -> i64 {
        self.words.load_acquire_i64(offset)
    }
    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        self.words.store_relaxed_i64(offset, value);
    }
    fn store_release_i64(&self, offset: usize, value: i64) {
        self.words.store_release_i64(offset, value);
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

/// The kernel's wait queue: it compares the word and queues the sleeper in one step, as seen by a wake. The comparison
/// is relaxed: the queue's lock orders it after a wake that came first, and that is all the kernel promises. Nobody
/// really sleeps here, so that a sleeper whom no wake reached is found when all is over.
#[derive(Default)]
struct Queue {
    sleepers: usize,
}

struct Shared {
    words: Words,
    queue: Mutex<Queue>,
    work: AtomicBool,
}

impl Shared {
    fn bell(&self) -> DoorbellWords<Words> {
        DoorbellWords::new(self.words.clone())
    }

    fn ring(&self) {
        self.work.store(true, Ordering::Relaxed);
        if self.bell().raise() {
            self.queue.lock().unwrap().sleepers = 0;
        }
    }

    /// Remember, look for work, sleep. Answers whether all is well so far.
    fn wait_for_work(&self) -> bool {
        let bell = self.bell();
        let seen = bell.sequence();
        if self.work.load(Ordering::Relaxed) {
            return true;
        }
        if bell.enter(seen) || self.words.weakened == Weakened::Compare {
            let mut queue = self.queue.lock().unwrap();
            let unchanged = self.words.load_relaxed_i32(SEQUENCE_OFFSET) == seen;
            if unchanged || self.words.weakened == Weakened::Compare {
                queue.sleepers += 1;
            }
            // What follows the wake needs no model: the ringer is behind it.
            return true;
        }
        bell.leave();
        self.work.load(Ordering::Relaxed)
    }
}

const LOST: &str = "a sleeper was not woken";
const HIDDEN: &str = "the work behind a ring was not seen";

fn model(weakened: Weakened, waiters: usize) {
    let mut builder = loom::model::Builder::new();
    if waiters > 1 {
        // Three threads without a bound take hours; two switches reach every known kind of lost wake-up.
        builder.preemption_bound = Some(2);
    }
    // Judged after the run: a panic inside it would unwind through loom's own objects, which abort.
    let verdict = std::sync::Arc::new(std::sync::Mutex::new(""));
    let outcome = verdict.clone();
    builder.check(move || {
        let shared = Arc::new(Shared {
            words: Words {
                words: std::sync::Arc::new(LoomWords::new(DOORBELL_LENGTH)),
                weakened,
            },
            queue: Mutex::new(Queue::default()),
            work: AtomicBool::new(false),
        });
        let waiting: Vec<_> = (0..waiters)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.wait_for_work())
            })
            .collect();
        shared.ring();
        for waiter in waiting {
            if !waiter.join().unwrap() {
                *outcome.lock().unwrap() = HIDDEN;
            }
        }
        if shared.queue.lock().unwrap().sleepers != 0 {
            *outcome.lock().unwrap() = LOST;
        }
    });
    let verdict = *verdict.lock().unwrap();
    assert!(verdict.is_empty(), "{verdict}");
}

#[test]
fn no_ring_is_lost() {
    model(Weakened::Nothing, 1);
}

#[test]
fn no_ring_is_lost_to_the_second_of_two_waiters() {
    model(Weakened::Nothing, 2);
}

#[test]
#[should_panic(expected = "a sleeper was not woken")]
fn a_plain_look_at_the_sleepers_loses_a_ring() {
    model(Weakened::LookAtSleepers, 1);
}

#[test]
#[should_panic(expected = "a sleeper was not woken")]
fn a_sleep_without_comparing_loses_a_ring() {
    model(Weakened::Compare, 1);
}

#[test]
#[should_panic(expected = "the work behind a ring was not seen")]
fn a_raise_without_release_hides_the_work() {
    model(Weakened::Raise, 1);
}

/// The other way round: a ringer that only looks, and a sleeper that looks again after its announcement. The pipe is a
/// count behind a lock, as the kernel keeps it.
struct Offers {
    words: Words,
    /// Messages offered.
    offered: AtomicUsize,
    pipe: Mutex<usize>,
}

/// What a twin does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Careless {
    Nothing,
    /// The sleeper goes to sleep without looking again.
    LastLook,
    /// The sleeper, woken for nothing, sleeps again under its old announcement.
    Again,
}

impl Offers {
    fn bell(&self) -> DoorbellWords<Words> {
        DoorbellWords::new(self.words.clone())
    }

    /// Two messages, each with a look at the sleeper and at most one alarm per announcement.
    fn offer_twice(&self) {
        let mut answered = None;
        for message in 1..=2 {
            self.offered.store(message, Ordering::Relaxed);
            let announcement = self.bell().announcement();
            if announcement.is_some() && announcement != answered {
                answered = announcement;
                *self.pipe.lock().unwrap() += 1;
            }
        }
    }

    /// Announce, look, sleep; once woken, look and sleep again. Answers how many messages it saw before the sleep in
    /// which it was left.
    fn sleep_twice(&self, careless: Careless) -> usize {
        let bell = self.bell();
        let mut seen = self.offered.load(Ordering::Relaxed);
        bell.announce();
        for _ in 0..2 {
            if careless != Careless::LastLook {
                seen = self.offered.load(Ordering::Relaxed);
            }
            let mut pipe = self.pipe.lock().unwrap();
            if *pipe == 0 {
                break;
            }
            *pipe = 0;
            drop(pipe);
            if careless != Careless::Again {
                bell.announce_again();
            }
            seen = self.offered.load(Ordering::Relaxed);
        }
        seen
    }
}

fn offers(careless: Careless) {
    let lost = std::sync::Arc::new(std::sync::Mutex::new(false));
    let outcome = lost.clone();
    loom::model(move || {
        let offers = Arc::new(Offers {
            words: Words {
                words: std::sync::Arc::new(LoomWords::new(DOORBELL_LENGTH)),
                weakened: Weakened::Nothing,
            },
            offered: AtomicUsize::new(0),
            pipe: Mutex::new(0),
        });
        let ringer = {
            let offers = offers.clone();
            thread::spawn(move || offers.offer_twice())
        };
        let seen = offers.sleep_twice(careless);
        ringer.join().unwrap();
        assert!(offers.words.load_relaxed_i32(SLEEPS_OFFSET) > 0);
        // Who sleeps on an empty pipe has to have seen everything.
        if *offers.pipe.lock().unwrap() == 0 && seen < 2 {
            *outcome.lock().unwrap() = true;
        }
    });
    assert!(!*lost.lock().unwrap(), "an offer was left lying");
}

#[test]
fn no_offer_is_left_lying() {
    offers(Careless::Nothing);
}

#[test]
#[should_panic(expected = "an offer was left lying")]
fn a_sleep_without_a_last_look_leaves_an_offer() {
    offers(Careless::LastLook);
}

#[test]
#[should_panic(expected = "an offer was left lying")]
fn an_old_announcement_leaves_an_offer() {
    offers(Careless::Again);
}
