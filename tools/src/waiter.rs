//! How a command waits for messages. A stream has no bell that a foreign publisher would ring, so waiting means
//! looking: at once while messages come, rarely when it is quiet. Looking costs no more than about 1 % of a core in
//! silence, and the first message after silence is seen within half a millisecond.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::agent::IdleStrategy;
use fulmar::agent::idle::sleep;
use fulmar::sync::spin_loop;
use fulmar::time::{NanoTime, SystemClock, duration_nanos};

const FIRST_SLEEP: Duration = Duration::from_micros(50);
/// The kernel adds up to 50 us to a sleep.
const LONGEST_SLEEP: Duration = Duration::from_micros(450);

/// Waits between looks.
pub(crate) struct Waiter {
    spin_for: i64,
    yield_for: i64,
    last_work: NanoTime,
    next_sleep: Duration,
}

impl Waiter {
    /// After work the waiter keeps the processor for `spin_for`, offers it to others until `yield_for` has passed, and
    /// then sleeps between looks.
    pub(crate) fn new(spin_for: Duration, yield_for: Duration) -> Waiter {
        Waiter {
            spin_for: duration_nanos(spin_for),
            yield_for: duration_nanos(yield_for),
            last_work: SystemClock.nanos(),
            next_sleep: FIRST_SLEEP,
        }
    }

    /// For streams: another thread, often the driver's, may need the processor to bring the next message.
    pub(crate) fn for_stream() -> Waiter {
        Waiter::new(Duration::from_micros(20), Duration::from_millis(1))
    }

    /// For both ends of an echo, where every microsecond counts, while messages come at a few hundred per second.
    pub(crate) fn for_echo() -> Waiter {
        Waiter::new(Duration::from_millis(2), Duration::from_millis(5))
    }

    /// Something happened.
    #[inline]
    pub(crate) fn worked(&mut self, now: NanoTime) {
        self.last_work = now;
        self.next_sleep = FIRST_SLEEP;
    }

    /// Nothing happened: waits a little.
    #[inline]
    pub(crate) fn wait(&mut self, now: NanoTime) {
        let quiet = now.since(self.last_work);
        if quiet < self.spin_for {
            spin_loop();
        } else if quiet < self.yield_for {
            std::thread::yield_now();
        } else {
            sleep(self.next_sleep);
            self.next_sleep = (self.next_sleep * 2).min(LONGEST_SLEEP);
        }
    }
}

impl IdleStrategy for Waiter {
    fn idle(&mut self, work: usize, _deadline: NanoTime, now: NanoTime) {
        if work > 0 {
            self.worked(now);
        } else {
            self.wait(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_slept_through_and_work_wakes_fully() {
        let mut waiter = Waiter::new(Duration::ZERO, Duration::from_micros(100));
        let start = waiter.last_work;
        let quiet = start.plus_nanos(1_000_000);
        for _ in 0..10 {
            waiter.wait(quiet);
        }
        assert_eq!(waiter.next_sleep, LONGEST_SLEEP);
        assert!(
            SystemClock.nanos().since(start) > 1_000_000,
            "ten sleeps take more than a millisecond"
        );
        waiter.worked(quiet);
        waiter.wait(quiet);
        assert_eq!(waiter.next_sleep, FIRST_SLEEP, "no sleep right after work");
    }
}
