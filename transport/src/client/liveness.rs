//! Is the driver there? A judgement from three facts: does its heartbeat change, does its process live, what time is
//! it on the monotonic clock. The wall clock plays no part: a heartbeat is a value that changes, not a time.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::event::DriverLossReason;
use crate::time::{NanoTime, duration_nanos};

/// Written to the heartbeat by a driver that ends in order.
const SHUT_DOWN: i64 = -1;

/// After this silence a driver whose process lives counts as stalled. Drivers beat once a second.
const STALL_AFTER: Duration = Duration::from_millis(2_500);

/// Most silence that one look can add. When the client itself was stopped, the time in which it could not have seen
/// a beat does not count against the driver.
const OBSERVED_STEP_MAX_NS: i64 = 1_000_000_000;

/// What is known about the driver's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Alive,
    Dead,
    /// Nothing can be said: a foreign driver, or no process descriptors here.
    Unknown,
}

/// What a look at the driver came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives, or nothing speaks against it yet.
    Fine,
    /// It lives but stands still, since just now.
    Stalled,
    /// It moves again, since just now.
    Resumed,
    /// It is gone.
    Lost(DriverLossReason),
}

/// Watches one run of one driver.
#[derive(Debug)]
pub(super) struct Liveness {
    heartbeat: i64,
    last_look: NanoTime,
    silence_ns: i64,
    stalled: bool,
    timeout: Duration,
}

impl Liveness {
    pub(super) fn new(heartbeat: i64, timeout: Duration, now: NanoTime) -> Self {
        Liveness {
            heartbeat,
            last_look: now,
            silence_ns: 0,
            stalled: false,
            timeout,
        }
    }

    /// One look.
    pub(super) fn look(&mut self, heartbeat: i64, process: Process, now: NanoTime) -> Verdict {
        let step = now.since(self.last_look).clamp(0, OBSERVED_STEP_MAX_NS);
        self.last_look = now;
        if process == Process::Dead {
            // A driver that ended in order has said so before its process went.
            return Verdict::Lost(if heartbeat == SHUT_DOWN {
                DriverLossReason::ShutDown
            } else {
                DriverLossReason::Died
            });
        }
        if heartbeat == SHUT_DOWN {
            return Verdict::Lost(DriverLossReason::ShutDown);
        }
        if heartbeat != self.heartbeat {
            self.heartbeat = heartbeat;
            self.silence_ns = 0;
            if core::mem::take(&mut self.stalled) {
                return Verdict::Resumed;
            }
            return Verdict::Fine;
        }
        self.silence_ns = self.silence_ns.saturating_add(step);
        if process == Process::Unknown && self.silence_ns > duration_nanos(self.timeout) {
            return Verdict::Lost(DriverLossReason::Silent);
        }
        if !self.stalled && self.silence_ns > duration_nanos(STALL_AFTER.min(self.timeout)) {
            self.stalled = true;
            return Verdict::Stalled;
        }
        Verdict::Fine
    }

    /// Whether the driver stands still.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at_ms(ms: i64) -> NanoTime {
        NanoTime(ms * 1_000_000)
    }

    /// Looks every 16 ms from `from` to `to`, and returns what was not `Fine`.
    fn watch(
        liveness: &mut Liveness,
        (from, to): (i64, i64),
        process: Process,
        beat: impl Fn(i64) -> i64,
    ) -> Vec<(i64, Verdict)> {
        (from..to)
            .step_by(16)
            .map(|ms| (ms, liveness.look(beat(ms), process, at_ms(ms))))
            .filter(|(_, verdict)| *verdict != Verdict::Fine)
            .collect()
    }

    #[test]
    fn a_beating_driver_is_fine_whatever_the_wall_clock_shows() {
        let mut liveness = Liveness::new(0, TIMEOUT, at_ms(0));
        // The wall clock steps by years in both directions with every beat.
        let beat = |ms: i64| {
            if (ms / 1000) % 2 == 0 {
                1 + ms / 1000
            } else {
                1 << 50
            }
        };
        assert_eq!(watch(&mut liveness, (0, 100_000), Process::Unknown, beat), vec![]);
    }

    #[test]
    fn a_silent_foreign_driver_is_lost_after_the_timeout() {
        let mut liveness = Liveness::new(5, TIMEOUT, at_ms(0));
        let seen = watch(&mut liveness, (0, 10_100), Process::Unknown, |_| 5);
        assert_eq!(seen[0].1, Verdict::Stalled);
        assert_eq!(seen[1].1, Verdict::Lost(DriverLossReason::Silent));
        assert!(seen[1].0 >= 10_000);
    }

    #[test]
    fn a_silent_driver_whose_process_lives_is_stalled_and_comes_back() {
        let mut liveness = Liveness::new(5, TIMEOUT, at_ms(0));
        let seen = watch(&mut liveness, (0, 60_000), Process::Alive, |_| 5);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].1, Verdict::Stalled);
        assert!(liveness.is_stalled());
        assert_eq!(liveness.look(6, Process::Alive, at_ms(60_000)), Verdict::Resumed);
        assert!(!liveness.is_stalled());
    }

    #[test]
    fn a_dead_process_is_lost_at_once() {
        let mut liveness = Liveness::new(5, TIMEOUT, at_ms(0));
        assert_eq!(
            liveness.look(6, Process::Dead, at_ms(16)),
            Verdict::Lost(DriverLossReason::Died)
        );
        assert_eq!(
            liveness.look(-1, Process::Dead, at_ms(32)),
            Verdict::Lost(DriverLossReason::ShutDown)
        );
    }

    #[test]
    fn an_orderly_end_is_lost_at_once() {
        let mut liveness = Liveness::new(5, TIMEOUT, at_ms(0));
        assert_eq!(
            liveness.look(-1, Process::Unknown, at_ms(16)),
            Verdict::Lost(DriverLossReason::ShutDown)
        );
    }

    #[test]
    fn the_time_in_which_the_client_was_stopped_does_not_count() {
        let mut liveness = Liveness::new(5, TIMEOUT, at_ms(0));
        assert_eq!(
            liveness.look(5, Process::Unknown, at_ms(60_000)),
            Verdict::Fine,
            "both were stopped, the client wakes first"
        );
        assert_eq!(liveness.look(6, Process::Unknown, at_ms(60_016)), Verdict::Fine);
    }
}
