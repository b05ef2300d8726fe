//! Open-loop send times: each message has a time at which it should leave, fixed before the run, however the messages
//! before it fared. Latency counts from that time, so a stall of the system under test shows in every message that
//! should have been sent meanwhile.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

/// Messages at a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: NanoTime,
    per_second: u64,
}

impl Schedule {
    /// Message 0 is due at `start`.
    ///
    /// # Panics
    /// A rate of zero.
    #[must_use]
    pub fn new(start: NanoTime, per_second: u64) -> Schedule {
        assert!(per_second > 0, "a rate is positive");
        Schedule { start, per_second }
    }

    /// When message `number` should leave.
    #[inline]
    #[must_use]
    pub fn due(&self, number: u64) -> NanoTime {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_second);
        self.start
            .plus_nanos(i64::try_from(nanos).unwrap_or(i64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let schedule = Schedule::new(NanoTime(5), 3);
        assert_eq!(schedule.due(0), NanoTime(5));
        assert_eq!(schedule.due(3), NanoTime(1_000_000_005));
        assert_eq!(schedule.due(3_000_000_001), NanoTime(1_000_000_000_333_333_338));
    }
}
