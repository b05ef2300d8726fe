//! A clock that does not count the time in which the driver itself did not run.
//!
//! Timeouts of the driver judge others by how long they were silent. When the driver was stopped (a debugger, a
//! starved machine, a suspended container) everybody looks silent, although nobody was given the chance to be heard.
//! So the conductor measures its own pauses and lets all of its timers stand still for them.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

/// A pause between two duty cycles above this is the driver's own fault and is not counted, nanoseconds.
pub const STALL_THRESHOLD_NS: i64 = 500_000_000;

/// Turns the real monotonic time into the time that the conductor's timers see.
#[derive(Clone, Copy, Debug)]
pub struct StallClock {
    last: NanoTime,
    hidden_ns: i64,
    threshold_ns: i64,
}

impl StallClock {
    /// Starts at `now`. An agent that sleeps for up to `longest_idle_ns` when it has nothing to do is not stalled.
    #[must_use]
    pub fn new(now: NanoTime, longest_idle_ns: i64) -> Self {
        Self {
            last: now,
            hidden_ns: 0,
            threshold_ns: STALL_THRESHOLD_NS.saturating_add(longest_idle_ns.max(0)),
        }
    }

    /// Once per duty cycle: the time for all timers of this cycle.
    #[inline]
    pub fn advance(&mut self, now: NanoTime) -> NanoTime {
        let gap = now.since(self.last);
        if gap > self.threshold_ns {
            // One threshold's worth still counts, so that timers go on even if every cycle is this slow.
            self.hidden_ns = self.hidden_ns.wrapping_add(gap - self.threshold_ns);
        }
        self.last = now;
        now.plus_nanos(-self.hidden_ns)
    }

    /// The real time at which a timer of this clock is due, for sleeping.
    #[inline]
    #[must_use]
    pub fn to_real(&self, timer: NanoTime) -> NanoTime {
        timer.plus_nanos(self.hidden_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_gaps_count_in_full() {
        let mut clock = StallClock::new(NanoTime(0), 0);
        assert_eq!(clock.advance(NanoTime(400_000_000)), NanoTime(400_000_000));
        assert_eq!(clock.advance(NanoTime(800_000_000)), NanoTime(800_000_000));
    }

    #[test]
    fn a_pause_of_twelve_seconds_counts_as_one_threshold() {
        let mut clock = StallClock::new(NanoTime(0), 0);
        let timer = clock.advance(NanoTime(12_000_000_000));
        assert_eq!(timer, NanoTime(STALL_THRESHOLD_NS));
        assert_eq!(clock.to_real(timer), NanoTime(12_000_000_000));
    }
}
