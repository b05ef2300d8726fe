//! How the conductor hands a handle what it needs, and takes it away again: one word that the data path reads, and
//! the value behind a lock that only a change makes a handle take.
#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sync::{AtomicU64, Ordering};

/// Set in the state word once the resource is closed for good.
const CLOSED: u64 = 1;
/// Added to the state word with every change of the value.
const CHANGE: u64 = 2;

/// A state word that never equals one of a slot: what a handle starts with, so that its first use fetches.
pub(super) const NEVER: u64 = u64::MAX;

/// One conductor writes, any number of handles read.
#[derive(Debug)]
pub(super) struct Slot<A> {
    state: AtomicU64,
    value: Mutex<Option<A>>,
}

impl<A: Clone> Slot<A> {
    /// An empty slot: not yet, or at the moment not, attached to a driver.
    pub(super) fn new() -> Self {
        Slot {
            state: AtomicU64::new(0),
            value: Mutex::new(None),
        }
    }

    /// The word the data path compares with what it saw last.
    #[inline(always)]
    pub(super) fn state(&self) -> u64 {
        // SYNC slot-state: the value fetched after seeing this word is at least as new as the word.
        self.state.load(Ordering::Acquire)
    }

    /// Whether a state word says closed.
    #[inline]
    pub(super) const fn is_closed(state: u64) -> bool {
        state & CLOSED != 0 && state != NEVER
    }

    /// Puts a value in (or takes it away) and tells the handles. Nothing happens once the slot is closed.
    pub(super) fn set(&self, value: Option<A>) {
        let mut guard = lock(&self.value);
        let state = self.state.load(Ordering::Relaxed);
        if !Self::is_closed(state) {
            *guard = value;
            // SYNC slot-state: the value is in place before the word changes.
            self.state.store(state + CHANGE, Ordering::Release);
        }
    }

    /// Closes the slot for good.
    pub(super) fn close(&self) {
        let mut guard = lock(&self.value);
        *guard = None;
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state + CHANGE) | CLOSED, Ordering::Release);
    }

    /// The current word and the value that belongs to it.
    pub(super) fn fetch(&self) -> (u64, Option<A>) {
        let guard = lock(&self.value);
        (self.state.load(Ordering::Acquire), guard.clone())
    }
}

/// Takes a lock whatever happened to an earlier holder: what these locks guard is valid after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_shows_in_the_word_and_closing_is_final() {
        let slot = Slot::new();
        let empty = slot.state();
        assert_ne!(empty, NEVER);
        slot.set(Some(7));
        let (attached, value) = slot.fetch();
        assert_ne!(attached, empty);
        assert_eq!(value, Some(7));
        slot.set(None);
        assert_ne!(slot.state(), attached);
        assert!(!Slot::<i32>::is_closed(slot.state()));
        slot.close();
        assert!(Slot::<i32>::is_closed(slot.state()));
        slot.set(Some(8));
        assert_eq!(slot.fetch().1, None);
    }

    #[test]
    fn the_word_of_a_fresh_handle_is_not_taken_for_closed() {
        assert!(!Slot::<i32>::is_closed(NEVER));
    }
}
