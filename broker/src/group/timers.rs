//! The timers of one group, exact: setting one again moves it, and what is cancelled never fires.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What can be waited for. Times are nanoseconds since the coordinator's origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The end of a rebalance, or of the initial delay of one.
    Rebalance,
    /// The leader's assignment, and that all others fetched theirs.
    Sync,
    /// A member's session.
    Session(Arc<str>),
    /// A member id that was given out and not used yet.
    Pending(Arc<str>),
}

/// Timers in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(i64, Timer)>,
    by_timer: BTreeMap<Timer, i64>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: i64) {
        if let Some(old) = self.by_timer.insert(timer.clone(), at) {
            self.by_time.remove(&(old, timer.clone()));
        }
        self.by_time.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.by_timer.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the first timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: i64) -> Option<Timer> {
        if self.first()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_timer.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.by_timer.contains_key(timer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_timer.len(), self.by_time.len());
        self.by_timer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_last_setting_and_not_after_cancelling() {
        let mut timers = Timers::default();
        timers.set(Timer::Rebalance, 10);
        timers.set(Timer::Rebalance, 30);
        timers.set(Timer::Sync, 20);
        timers.set(Timer::Session(Arc::from("a")), 25);
        timers.cancel(&Timer::Session(Arc::from("a")));
        assert_eq!(timers.first(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(30), Some(Timer::Sync));
        assert_eq!(timers.pop_due(30), Some(Timer::Rebalance));
        assert_eq!(timers.pop_due(i64::MAX), None);
        assert_eq!(timers.first(), None);
        assert!(!timers.is_set(&Timer::Rebalance));
    }
}
