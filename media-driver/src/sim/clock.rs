//! The clock of a simulated world: it stands still until somebody moves it.
#![forbid(unsafe_code)]

use fulmar::sync::{AtomicI64, Ordering};
use fulmar::time::{Clock, EpochMs, NanoTime, Now};

/// Monotonic time and wall clock of a simulated world, or of one of its hosts. Shared by an `Arc`.
#[derive(Debug)]
pub struct VirtualClock {
    nanos: AtomicI64,
    /// What the wall clock says more than the monotonic one, nanoseconds.
    wall_offset: AtomicI64,
}

impl VirtualClock {
    /// A clock that says `start`, and `epoch_ms` milliseconds since 1970.
    #[must_use]
    pub fn new(start: NanoTime, epoch_ms: i64) -> Self {
        let epoch = epoch_ms.saturating_mul(1_000_000);
        Self {
            nanos: AtomicI64::new(start.0),
            wall_offset: AtomicI64::new(epoch.wrapping_sub(start.0)),
        }
    }

    /// The monotonic time.
    #[must_use]
    pub fn nanos(&self) -> NanoTime {
        NanoTime(self.nanos.load(Ordering::Relaxed))
    }

    /// Moves both clocks on until the monotonic one says `time`.
    ///
    /// # Panics
    /// If that would be backwards.
    pub fn advance_to(&self, time: NanoTime) {
        let now = self.nanos();
        assert!(time.since(now) >= 0, "time goes back from {now:?} to {time:?}");
        self.nanos.store(time.0, Ordering::Relaxed);
    }

    /// Steps the wall clock alone by so many milliseconds, which may be negative.
    pub fn step_wall_clock(&self, ms: i64) {
        let step = ms.saturating_mul(1_000_000);
        let offset = self.wall_offset.load(Ordering::Relaxed);
        self.wall_offset
            .store(offset.wrapping_add(step), Ordering::Relaxed);
    }

    /// What the wall clock says at a monotonic time, nanoseconds since 1970.
    #[must_use]
    pub fn epoch_nanos(&self, at: NanoTime) -> i64 {
        at.0.wrapping_add(self.wall_offset.load(Ordering::Relaxed))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        let nanos = self.nanos();
        Now {
            nanos,
            epoch: EpochMs(self.epoch_nanos(nanos).div_euclid(1_000_000)),
        }
    }

    fn passes(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_move_together_and_the_wall_clock_steps_alone() {
        let clock = VirtualClock::new(NanoTime(500), 1_700_000_000_000);
        let start = Now {
            nanos: NanoTime(500),
            epoch: EpochMs(1_700_000_000_000),
        };
        assert_eq!(clock.now(), start);
        clock.advance_to(NanoTime(500));
        clock.advance_to(NanoTime(2_000_500));
        assert_eq!(clock.now().epoch, EpochMs(1_700_000_000_002));
        clock.step_wall_clock(-10_000);
        assert_eq!(clock.nanos(), NanoTime(2_000_500));
        assert_eq!(clock.now().epoch, EpochMs(1_699_999_990_002));
        assert_eq!(clock.epoch_nanos(NanoTime(2_000_501)), 1_699_999_990_002_000_001);
    }

    #[test]
    fn it_runs_through_the_wrap_of_the_monotonic_time() {
        let clock = VirtualClock::new(NanoTime(i64::MAX - 1_000_000), 77);
        clock.advance_to(NanoTime(i64::MAX).plus_nanos(1_000_001));
        assert_eq!(clock.now().epoch, EpochMs(79));
    }

    #[test]
    #[should_panic(expected = "time goes back")]
    fn it_does_not_go_back() {
        let clock = VirtualClock::new(NanoTime(500), 0);
        clock.advance_to(NanoTime(499));
    }
}
