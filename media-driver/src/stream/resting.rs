//! Which members of a list an agent visits in a duty cycle: those that are awake. The others rest; of each, one look at
//! a few shared words says whether it has news.
//!
//! ```text
//! awake --- QUIET_VISITS visits without anything to do ---> resting
//!   ^-------- news, a deadline, or whatever else concerns it --'
//! ```
//!
//! Each cycle looks at 64 of them, and the last look before a wait at every one
//! ([`last_look`](fulmar::agent::Agent::last_look)). So no wait begins while a member has news, and an agent that does not
//! wait learns of them after as many cycles as there are times 64 members.
#![forbid(unsafe_code)]

use fulmar::log::LogBuffers;
use fulmar::log::metadata::{Metadata, raw_tail};
use fulmar::memory::View;
use fulmar::position::PositionShape;

/// Visits without anything to do after which a member rests: a stream that is only about to go on does not go to and fro.
pub const QUIET_VISITS: u8 = 8;

/// What is looked at of a member at rest.
pub trait Watch {
    /// Whether something changed since it was put to rest.
    fn has_news(&self) -> bool;
}

/// The members of a list by their index, awake or at rest.
#[derive(Debug)]
pub struct Resting<W> {
    /// What is watched of each, in one piece of memory that a look goes through.
    watches: Vec<Option<W>>,
    /// Visits in a row without anything to do.
    quiet: Vec<u8>,
    /// A bit for each member at rest.
    resting: Vec<u64>,
    awake: Vec<u32>,
    /// The 64 members that are looked at next.
    next: usize,
    /// How many went to rest in this pass.
    gone: usize,
}

impl<W> Default for Resting<W> {
    fn default() -> Self {
        Self {
            watches: Vec::new(),
            quiet: Vec::new(),
            resting: Vec::new(),
            awake: Vec::new(),
            next: 0,
            gone: 0,
        }
    }
}

impl<W: Watch> Resting<W> {
    /// There are `count` members now, and which is which may have changed: all are awake, and rest after the first visit
    /// that finds nothing to do.
    pub fn reset(&mut self, count: usize) {
        self.watches.clear();
        self.watches.resize_with(count, || None);
        self.quiet.clear();
        self.quiet.resize(count, QUIET_VISITS);
        self.resting.clear();
        self.resting.resize(count.div_ceil(64), 0);
        self.awake.clear();
        self.awake.extend(0..count as u32);
        self.gone = 0;
    }

    /// How many are awake.
    #[inline]
    #[must_use]
    pub fn awake(&self) -> usize {
        self.awake.len()
    }

    /// The index of one that is awake; `at` counts those that are.
    #[inline]
    #[must_use]
    pub fn member(&self, at: usize) -> Option<usize> {
        self.awake.get(at).map(|index| *index as usize)
    }

    /// Wakes one, if it rests.
    #[inline]
    pub fn wake(&mut self, index: usize) {
        if let Some(word) = self.resting.get_mut(index / 64) {
            let bit = 1 << (index % 64);
            if *word & bit != 0 {
                *word &= !bit;
                self.awake.push(index as u32);
            }
        }
    }

    /// Looks at the next 64 members, and wakes those that have news.
    #[inline]
    pub fn look_at_some(&mut self) {
        self.next += 1;
        if self.next >= self.resting.len() {
            self.next = 0;
        }
        self.look_at(self.next);
    }

    /// Looks at all members and wakes those that have news; how many it woke.
    pub fn look_at_all(&mut self) -> usize {
        let before = self.awake.len();
        for word in 0..self.resting.len() {
            self.look_at(word);
        }
        self.awake.len() - before
    }

    #[inline]
    fn look_at(&mut self, word: usize) {
        let Some(bits) = self.resting.get(word).copied().filter(|bits| *bits != 0) else {
            return;
        };
        let first = word * 64;
        let last = (first + 64).min(self.watches.len());
        let mut news = 0;
        for (at, watch) in self.watches[first..last].iter().enumerate() {
            // Those that are awake are visited anyway.
            let has_news = watch.as_ref().is_some_and(W::has_news);
            news |= u64::from(has_news) << at;
        }
        news &= bits;
        while news != 0 {
            let index = first + news.trailing_zeros() as usize;
            news &= news - 1;
            self.quiet[index] = 0;
            self.wake(index);
        }
    }

    /// After a visit: counts it, and says whether the member has had nothing to do for long enough to rest.
    #[inline]
    pub fn is_tired(&mut self, index: usize, had_work: bool) -> bool {
        let Some(quiet) = self.quiet.get_mut(index) else {
            return false;
        };
        *quiet = if had_work { 0 } else { quiet.saturating_add(1) };
        *quiet > QUIET_VISITS
    }

    /// Puts a member that is awake to rest; `set` says what to watch. It counts as awake until [`Self::end_pass`].
    #[inline]
    pub fn rest(&mut self, index: usize, set: impl FnOnce(&mut Option<W>)) {
        if let (Some(watch), Some(word)) = (self.watches.get_mut(index), self.resting.get_mut(index / 64)) {
            set(watch);
            *word |= 1 << (index % 64);
            self.gone += 1;
        }
    }

    /// The end of a pass over those that are awake.
    #[inline]
    pub fn end_pass(&mut self) {
        if core::mem::take(&mut self.gone) > 0 {
            let resting = &self.resting;
            self.awake
                .retain(|index| resting[*index as usize / 64] & (1 << (*index % 64)) == 0);
        }
    }
}

/// Where a log ended when its stream was put to rest: appending moves the tail first of all. At the end of a term it has
/// news until the next term begins.
#[derive(Clone, Debug)]
pub struct TailWatch {
    metadata: Metadata<View>,
    shape: PositionShape,
    partition: usize,
    /// The tail of this partition while producers stand there.
    tail: i64,
}

impl TailWatch {
    /// Watches a log whose producers stand at `position`.
    #[must_use]
    pub fn new(log: &LogBuffers, position: i64) -> Self {
        let mut watch = Self {
            metadata: log.metadata().clone(),
            shape: log.shape(),
            partition: 0,
            tail: 0,
        };
        watch.set(position);
        watch
    }

    /// The producers stand at `position` now.
    #[inline]
    pub fn set(&mut self, position: i64) {
        self.partition = self.shape.partition(position);
        self.tail = raw_tail(self.shape.term_id(position), self.shape.offset(position));
    }
}

impl Watch for TailWatch {
    #[inline]
    fn has_news(&self) -> bool {
        self.metadata.tail_acquire(self.partition) != self.tail
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Debug)]
    struct Flag(Rc<Cell<bool>>);

    impl Watch for Flag {
        fn has_news(&self) -> bool {
            self.0.get()
        }
    }

    fn flags(count: usize) -> Vec<Rc<Cell<bool>>> {
        (0..count).map(|_| Rc::new(Cell::new(false))).collect()
    }

    /// One pass in which nobody has anything to do; who was visited.
    fn quiet_pass(list: &mut Resting<Flag>, flags: &[Rc<Cell<bool>>]) -> Vec<usize> {
        let mut visited = Vec::new();
        for at in 0..list.awake() {
            let index = list.member(at).unwrap();
            visited.push(index);
            if list.is_tired(index, false) {
                list.rest(index, |watch| *watch = Some(Flag(Rc::clone(&flags[index]))));
            }
        }
        list.end_pass();
        visited
    }

    #[test]
    fn whoever_has_nothing_to_do_rests_and_wakes_with_news() {
        let (mut list, flags) = (Resting::default(), flags(200));
        list.reset(200);
        assert_eq!(quiet_pass(&mut list, &flags).len(), 200);
        assert_eq!(list.awake(), 0);
        list.look_at_some();
        assert_eq!(list.look_at_all(), 0);
        flags[150].set(true);
        assert_eq!(list.look_at_all(), 1);
        flags[150].set(false);
        // It had news lately: it rests only after a while.
        for _ in 0..QUIET_VISITS {
            assert_eq!(quiet_pass(&mut list, &flags), [150]);
            assert_eq!(list.awake(), 1);
        }
        assert_eq!(quiet_pass(&mut list, &flags), [150]);
        assert_eq!(list.awake(), 0);
    }

    #[test]
    fn a_busy_cycle_looks_at_64_and_all_have_their_turn() {
        let (mut list, flags) = (Resting::default(), flags(130));
        list.reset(130);
        quiet_pass(&mut list, &flags);
        for index in [1, 64, 129] {
            flags[index].set(true);
        }
        let mut woken = Vec::new();
        for _ in 0..3 {
            list.look_at_some();
            woken.push(list.awake());
        }
        assert_eq!(woken, [1, 2, 3]);
    }

    #[test]
    fn one_that_is_woken_for_its_deadline_rests_again_at_once() {
        let (mut list, flags) = (Resting::default(), flags(3));
        list.reset(3);
        quiet_pass(&mut list, &flags);
        list.wake(1);
        list.wake(1);
        list.wake(77);
        assert_eq!(quiet_pass(&mut list, &flags), [1]);
        assert_eq!(list.awake(), 0);
    }

    #[test]
    fn work_keeps_a_member_awake() {
        let mut list = Resting::<Flag>::default();
        list.reset(1);
        assert!(!list.is_tired(0, true));
        for _ in 0..QUIET_VISITS {
            assert!(!list.is_tired(0, false));
        }
        assert!(list.is_tired(0, false));
        list.reset(0);
        assert!(!list.is_tired(0, false));
        assert_eq!(list.member(0), None);
        list.look_at_some();
        assert_eq!(list.look_at_all(), 0);
    }
}
