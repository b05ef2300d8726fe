//! Time as a value. Agents get it as an argument; [`SystemClock`] is the only reader of a clock in the project.

use core::ops::Add;
use core::time::Duration;

/// Nanoseconds of a monotonic clock with an arbitrary origin. Comparisons are wrap-safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NanoTime(pub i64);

/// Milliseconds since the Unix epoch. Informative only: no timeout of ours depends on it, because the wall clock
/// may step; it is written to shared memory because the protocol says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochMs(pub i64);

/// Both clocks, read once per duty cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For every timeout and deadline.
    pub nanos: NanoTime,
    /// For values that other processes read.
    pub epoch: EpochMs,
}

impl NanoTime {
    /// A deadline that is not reached in practice (about 146 years after any `now`).
    #[must_use]
    pub const fn never_after(now: NanoTime) -> NanoTime {
        NanoTime(now.0.wrapping_add(i64::MAX / 2))
    }

    /// Nanoseconds from `earlier` to `self`; negative if `earlier` is later.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: NanoTime) -> i64 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether the deadline `self` has been reached at `now`.
    #[inline]
    #[must_use]
    pub const fn is_due(self, now: NanoTime) -> bool {
        now.0.wrapping_sub(self.0) >= 0
    }

    /// The earlier of two times.
    #[inline]
    #[must_use]
    pub const fn earlier(self, other: NanoTime) -> NanoTime {
        if self.0.wrapping_sub(other.0) <= 0 {
            self
        } else {
            other
        }
    }

    /// `self` moved by `nanos`, which may be negative.
    #[inline]
    #[must_use]
    pub const fn plus_nanos(self, nanos: i64) -> NanoTime {
        NanoTime(self.0.wrapping_add(nanos))
    }
}

impl Add<Duration> for NanoTime {
    type Output = NanoTime;

    fn add(self, rhs: Duration) -> NanoTime {
        self.plus_nanos(duration_nanos(rhs))
    }
}

/// A moment in UTC by the Gregorian calendar, also before that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Year; 0 is the one before 1.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: i64,
    /// Day of the month, 1 to 31.
    pub day: i64,
    /// Hour, 0 to 23.
    pub hour: i64,
    /// Minute, 0 to 59.
    pub minute: i64,
    /// Second, 0 to 59: leap seconds are not counted.
    pub second: i64,
    /// Millisecond, 0 to 999.
    pub milli: i64,
}

impl EpochMs {
    /// Date and time of day.
    #[must_use]
    pub fn utc(self) -> Utc {
        const DAY_MS: i64 = 86_400_000;
        let in_day = self.0.rem_euclid(DAY_MS);
        let (year, month, day) = civil_date(self.0.div_euclid(DAY_MS));
        Utc {
            year,
            month,
            day,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1000 % 60,
            milli: in_day % 1000,
        }
    }
}

/// The date that lies `days` after 1970-01-01. The calendar repeats every 400 years of 146097 days; counting years
/// from 1 March puts the leap day last, so that the length of the months before it follows one linear formula.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_FROM_MARCH_OF_YEAR_0_TO_1970: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let shifted = days + DAYS_FROM_MARCH_OF_YEAR_0_TO_1970;
    let era = shifted.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = shifted.rem_euclid(DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// A duration in nanoseconds, clamped to the range of `i64`.
#[must_use]
pub fn duration_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A source of time. The simulator has its own.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// Whether time passes while a caller waits. Where it does not, as in a simulation, whoever waited for it would wait
    /// for ever: what is not there at once will not come.
    fn passes(&self) -> bool {
        true
    }
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            nanos: NanoTime(read_clock(libc::CLOCK_MONOTONIC)),
            epoch: EpochMs(read_clock(libc::CLOCK_REALTIME) / 1_000_000),
        }
    }
}

impl SystemClock {
    /// The monotonic clock alone.
    #[inline]
    #[must_use]
    pub fn nanos(&self) -> NanoTime {
        NanoTime(read_clock(libc::CLOCK_MONOTONIC))
    }
}

fn read_clock(clock: libc::clockid_t) -> i64 {
    let mut spec = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `spec` is a valid, exclusively borrowed timespec, and both clock ids used here always exist on Linux,
    // so the call can only write `spec`.
    unsafe {
        libc::clock_gettime(clock, &raw mut spec);
    }
    spec.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(spec.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_survive_a_wrap_of_the_clock() {
        let before = NanoTime(i64::MAX - 10);
        let deadline = before.plus_nanos(100);
        assert!(!deadline.is_due(before));
        assert!(deadline.is_due(before.plus_nanos(100)));
        assert_eq!(before.earlier(deadline), before);
        assert_eq!(deadline.since(before), 100);
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second.nanos.since(first.nanos) >= 0);
        assert!(first.epoch.0 > 1_600_000_000_000);
    }
}
