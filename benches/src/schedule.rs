//! Open-loop send times: each message has a time at which it should leave, fixed before the run. Latency counts from
//! that time, so a stall of the system under test shows in every message that should have been sent meanwhile.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

/// Intended send times at a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: NanoTime,
    interval_ns: i64,
}

impl Schedule {
    /// A schedule of `per_second` messages from `start` on. A rate of zero counts as one.
    #[must_use]
    pub fn new(start: NanoTime, per_second: u32) -> Schedule {
        Schedule {
            start,
            interval_ns: 1_000_000_000 / i64::from(per_second.max(1)),
        }
    }

    /// When message `index` should leave.
    #[inline]
    #[must_use]
    pub fn intended(&self, index: u64) -> NanoTime {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        self.start.plus_nanos(self.interval_ns.saturating_mul(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_at_equal_distances_from_the_start() {
        let schedule = Schedule::new(NanoTime(500), 1_000_000);
        assert_eq!(schedule.intended(0), NanoTime(500));
        assert_eq!(schedule.intended(7), NanoTime(7_500));
    }
}
