//! The system counters that sender and receiver keep (shared-memory spec 5.7). They live in the CnC file, so that tools
//! see them; each agent holds its own handles.
#![forbid(unsafe_code)]

use fulmar::counters::layout::VALUE_LENGTH;
use fulmar::counters::{Counter, SystemCounter};
use fulmar::memory::{Region, View};

/// Handles to all system counters.
#[derive(Clone, Debug)]
pub struct NetworkCounters {
    counters: Vec<Counter>,
}

impl NetworkCounters {
    /// Handles over the values section of the CnC file, in which the system counters are the first.
    ///
    /// # Panics
    /// If the section is shorter than the system counters.
    #[must_use]
    pub fn new(values: &View) -> Self {
        let handle = |counter: SystemCounter| {
            Counter::new(values, counter.counter_id()).expect("the values section holds the system counters")
        };
        Self {
            counters: SystemCounter::ALL.into_iter().map(handle).collect(),
        }
    }

    /// Counters of their own on the heap, for machines that run without a driver.
    #[must_use]
    pub fn heap() -> Self {
        Self::new(&Region::heap(SystemCounter::ALL.len() * VALUE_LENGTH).as_view())
    }

    /// One of them.
    #[inline]
    #[must_use]
    pub fn get(&self, counter: SystemCounter) -> &Counter {
        &self.counters[counter as usize]
    }

    /// Adds one to a counter that only this agent writes.
    #[inline]
    pub fn increment(&self, counter: SystemCounter) {
        self.get(counter).add_relaxed(1);
    }

    /// Adds to a counter that only this agent writes.
    #[inline]
    pub fn add(&self, counter: SystemCounter, delta: i64) {
        self.get(counter).add_relaxed(delta);
    }

    /// Adds to a counter that other agents write as well, as sender and receiver both find invalid packets.
    #[inline]
    pub fn add_shared(&self, counter: SystemCounter, delta: i64) {
        self.get(counter).add_atomic(delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_own_value() {
        let counters = NetworkCounters::heap();
        for counter in SystemCounter::ALL {
            counters.add(counter, i64::from(counter.id()));
            counters.increment(counter);
            counters.clone().add_shared(counter, 1);
        }
        for counter in SystemCounter::ALL {
            assert_eq!(counters.get(counter).get_relaxed(), i64::from(counter.id()) + 2);
        }
    }
}
