//! A send schedule that is fixed in advance: when message number N should leave does not depend on how the messages
//! before it fared, so that a stall shows in every message it delays.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::agent::idle::sleep;
use fulmar::time::{NanoTime, SystemClock};

use crate::signals::stop_requested;

/// A sleep may end this much late.
const SLEEP_SLACK: i64 = 200_000;
/// Signals are looked at this often.
const LONGEST_SLEEP: i64 = 50_000_000;

/// Messages at a constant rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: NanoTime,
    per_second: u64,
}

impl Schedule {
    /// Message 0 is due at `start`.
    pub(crate) fn new(start: NanoTime, per_second: u64) -> Schedule {
        assert!(per_second > 0, "a rate is positive");
        Schedule { start, per_second }
    }

    /// When message `number` should leave.
    #[inline]
    pub(crate) fn due(&self, number: u64) -> NanoTime {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_second);
        self.start
            .plus_nanos(i64::try_from(nanos).unwrap_or(i64::MAX / 2))
    }
}

/// Sleeps through most of the time to `deadline` if there is enough of it; true if it slept. The caller spins the rest.
pub(crate) fn doze_until(deadline: NanoTime, now: NanoTime) -> bool {
    let left = deadline.since(now);
    if left <= 2 * SLEEP_SLACK {
        return false;
    }
    let nanos = (left - SLEEP_SLACK).min(LONGEST_SLEEP);
    sleep(Duration::from_nanos(nanos.unsigned_abs()));
    true
}

/// Waits until `deadline`, to the microsecond, or until the process is asked to stop.
pub(crate) fn wait_until(deadline: NanoTime) {
    loop {
        let now = SystemClock.nanos();
        if deadline.is_due(now) || stop_requested() {
            return;
        }
        if !doze_until(deadline, now) {
            std::thread::yield_now();
        }
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

    #[test]
    fn waiting_ends_at_the_deadline_not_before() {
        let start = SystemClock.nanos();
        let deadline = start.plus_nanos(2_000_000);
        wait_until(deadline);
        assert!(deadline.is_due(SystemClock.nanos()));
        assert!(
            !doze_until(start, SystemClock.nanos()),
            "a past deadline needs no sleep"
        );
    }
}
