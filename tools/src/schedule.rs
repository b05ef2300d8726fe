//! Waiting for the times of a send schedule.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::agent::idle::sleep;
use fulmar::time::{NanoTime, SystemClock};
pub(crate) use fulmar_benches::schedule::Schedule;

use crate::signals::stop_requested;

/// A sleep may end this much late.
const SLEEP_SLACK: i64 = 200_000;
/// Signals are looked at this often.
const LONGEST_SLEEP: i64 = 50_000_000;

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
