//! How often something that the network can cause is reported: a burst at once, then one report per interval. What goes
//! beyond is only counted, and the next report says how many there were.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

/// A bound on reports of one kind.
#[derive(Debug)]
pub struct ReportRate {
    tokens: i64,
    burst: i64,
    interval_ns: i64,
    filled: NanoTime,
    withheld: u64,
}

impl ReportRate {
    /// `burst` reports at once, at least 1, and one more per `interval_ns` nanoseconds, at least 1.
    #[must_use]
    pub fn new(burst: i64, interval_ns: i64, now: NanoTime) -> Self {
        let burst = burst.max(1);
        Self {
            tokens: burst,
            burst,
            interval_ns: interval_ns.max(1),
            filled: now,
            withheld: 0,
        }
    }

    /// Something happened. `Some` if it is to be reported: how many before it were not.
    pub fn take(&mut self, now: NanoTime) -> Option<u64> {
        let earned = now.since(self.filled) / self.interval_ns;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
            self.filled = if self.tokens == self.burst {
                now
            } else {
                self.filled.plus_nanos(earned.saturating_mul(self.interval_ns))
            };
        }
        if self.tokens == 0 {
            self.withheld = self.withheld.saturating_add(1);
            return None;
        }
        self.tokens -= 1;
        Some(core::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: i64 = 100;

    fn taken(rate: &mut ReportRate, now: i64, times: usize) -> Vec<Option<u64>> {
        (0..times).map(|_| rate.take(NanoTime(now))).collect()
    }

    #[test]
    fn a_burst_goes_through_and_then_one_per_interval_that_tells_what_was_withheld() {
        let mut rate = ReportRate::new(2, INTERVAL, NanoTime(0));
        assert_eq!(taken(&mut rate, 1, 4), [Some(0), Some(0), None, None]);
        assert_eq!(taken(&mut rate, INTERVAL, 2), [Some(2), None]);
        assert_eq!(taken(&mut rate, 2 * INTERVAL - 1, 1), [None]);
        assert_eq!(taken(&mut rate, 2 * INTERVAL, 1), [Some(2)]);
    }

    #[test]
    fn silence_earns_no_more_than_the_burst() {
        let mut rate = ReportRate::new(3, INTERVAL, NanoTime(i64::MIN / 2));
        for now in [0, i64::MAX / 2] {
            assert_eq!(taken(&mut rate, now, 4).iter().flatten().count(), 3);
        }
    }

    #[test]
    fn a_flood_of_a_second_is_as_many_reports_as_the_interval_says() {
        let mut rate = ReportRate::new(16, 10_000_000, NanoTime(0));
        let reported: Vec<u64> = (0..100_000)
            .filter_map(|event| rate.take(NanoTime(event * 10_000)))
            .collect();
        assert_eq!(reported.len(), 16 + 99);
        // Whatever came before the last report, but for the 114 that were reported.
        assert_eq!(reported.iter().sum::<u64>(), 99_000 - 114);
    }
}
