//! Which sockets of a thread may have something: so that a thread with many sockets asks the system once per cycle for
//! all of them, not once for each.
//!
//! The poll tells of a socket once something arrives (edge-triggered) and not again until the socket was found empty
//! and something arrives anew. So a socket keeps its mark until a receive finds nothing. Marks are set by the thread
//! that polls and cleared by the same thread when it receives; they are atomics only because the parts travel between
//! threads before it runs.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fulmar::agent::Doorbell;
use fulmar::sync::{AtomicU64, AtomicUsize, Ordering};
use mio::Token;

/// Sockets with a mark of their own; more than these are always taken to be ready.
const MARKS: usize = 4096;
const WORDS: usize = MARKS / 64;

/// Up to so many sockets are each asked in every cycle: the poll would not be cheaper. Asking an empty socket takes two
/// to three times as long as a poll that finds nothing, about as long as one that names a socket.
const FEW: usize = 2;

/// The token of sockets without a mark.
const UNMARKED: Token = Token(0);
/// The token of processes.
pub(super) const PROCESS: Token = Token(3);
/// The token of the first mark; those below are for other things.
const FIRST: usize = 16;

/// The marks of one thread.
#[derive(Debug)]
pub(super) struct Readiness {
    marks: Box<[AtomicU64]>,
    /// Sockets that use marks.
    count: AtomicUsize,
    /// Bits of the marks in use.
    taken: Mutex<Box<[u64]>>,
    /// Whom the end of a process concerns.
    process_bell: OnceLock<Doorbell>,
}

impl Readiness {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            marks: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
            taken: Mutex::new(vec![0; WORDS].into_boxed_slice()),
            process_bell: OnceLock::new(),
        })
    }

    /// A mark for a socket, set. `None` when there is none left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Mark> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (word, bits) = taken
            .iter_mut()
            .enumerate()
            .find(|(_, bits)| **bits != u64::MAX)?;
        let bit = bits.trailing_ones() as usize;
        *bits |= 1 << bit;
        drop(taken);
        self.count.fetch_add(1, Ordering::Relaxed);
        let mark = Mark {
            readiness: Arc::clone(self),
            index: word * 64 + bit,
        };
        self.set(mark.index);
        Some(mark)
    }

    /// Whether there are so many sockets that only those with a mark are asked.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.count.load(Ordering::Relaxed) > FEW
    }

    /// Rings this bell when a watched process ends. The first bell stays.
    pub(super) fn ring_for_processes(&self, bell: Doorbell) {
        let _ = self.process_bell.set(bell);
    }

    /// Whether somebody wants to know of the ends of processes.
    #[inline]
    pub(super) fn watches_processes(&self) -> bool {
        self.process_bell.get().is_some()
    }

    /// Something happened to the socket or the process with this token.
    #[inline]
    pub(super) fn on_event(&self, token: Token) {
        if token == PROCESS {
            if let Some(bell) = self.process_bell.get() {
                bell.ring();
            }
        } else if let Some(index) = token.0.checked_sub(FIRST) {
            self.set(index);
        }
    }

    #[inline]
    fn set(&self, index: usize) {
        if let Some(word) = self.marks.get(index / 64) {
            word.fetch_or(1 << (index % 64), Ordering::Relaxed);
        }
    }
}

/// One socket's mark. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Mark {
    readiness: Arc<Readiness>,
    index: usize,
}

impl Mark {
    /// What the socket registers with.
    pub(super) fn token(mark: Option<&Mark>) -> Token {
        mark.map_or(UNMARKED, |mark| Token(FIRST + mark.index))
    }

    /// Whether it is worth asking the socket.
    #[inline]
    pub(super) fn may_be_ready(&self) -> bool {
        !self.readiness.is_used()
            || self
                .readiness
                .marks
                .get(self.index / 64)
                .is_none_or(|word| word.load(Ordering::Relaxed) & (1 << (self.index % 64)) != 0)
    }

    /// The socket was found empty.
    #[inline]
    pub(super) fn clear(&self) {
        if let Some(word) = self.readiness.marks.get(self.index / 64) {
            word.fetch_and(!(1 << (self.index % 64)), Ordering::Relaxed);
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.readiness.count.fetch_sub(1, Ordering::Relaxed);
        let mut taken = self
            .readiness
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(bits) = taken.get_mut(self.index / 64) {
            *bits &= !(1 << (self.index % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sockets_are_always_asked_and_many_only_with_a_mark() {
        let readiness = Readiness::new();
        let mut marks: Vec<Mark> = (0..FEW).map(|_| readiness.take().unwrap()).collect();
        marks[0].clear();
        assert!(marks[0].may_be_ready(), "few");
        marks.push(readiness.take().unwrap());
        assert!(!marks[0].may_be_ready(), "many");
        assert!(marks[1].may_be_ready(), "a new mark is set");
        readiness.on_event(Mark::token(Some(&marks[0])));
        assert!(marks[0].may_be_ready());
        marks[0].clear();
        readiness.on_event(Mark::token(None));
        readiness.on_event(Token(1));
        readiness.on_event(Token(usize::MAX));
        assert!(!marks[0].may_be_ready());
        marks.pop();
        assert!(marks[0].may_be_ready(), "few again");
    }

    #[test]
    fn marks_run_out_and_come_back() {
        let readiness = Readiness::new();
        let mut marks: Vec<Mark> = core::iter::from_fn(|| readiness.take()).collect();
        assert_eq!(marks.len(), MARKS);
        let token = Mark::token(Some(&marks[77]));
        marks.remove(77);
        let again = readiness.take().unwrap();
        assert_eq!(Mark::token(Some(&again)), token);
        assert!(readiness.take().is_none());
    }
}
