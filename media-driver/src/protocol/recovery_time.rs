//! How long the repair of a loss takes, learnt from those that came: smoothed time and deviation, as for the
//! retransmission timer of TCP (RFC 6298).
#![forbid(unsafe_code)]

/// Longer repairs count as this long, ns: whoever waits longer waits for something else.
pub const RECOVERY_MAX_NS: i64 = 1_000_000_000;

/// Share of a sample in the smoothed time.
const TIME_GAIN: i64 = 8;
/// Share of a sample in the deviation.
const DEVIATION_GAIN: i64 = 4;

/// What is known about the time that a repair takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryTime {
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    time_ns: i64,
    deviation_ns: i64,
    /// Nothing better than a guess has come yet.
    is_guess: bool,
}

impl RecoveryTime {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { known: None }
    }

    /// One repair took this long, ns: 0 to [`RECOVERY_MAX_NS`], beyond which it is cut. The first one replaces a guess.
    pub fn on_sample(&mut self, sample_ns: i64) {
        let sample_ns = sample_ns.clamp(0, RECOVERY_MAX_NS);
        self.known = self.known.filter(|known| !known.is_guess);
        let known = self.known.get_or_insert(Known {
            time_ns: sample_ns,
            deviation_ns: sample_ns / 2,
            is_guess: false,
        });
        let error = sample_ns - known.time_ns;
        known.deviation_ns += (error.abs() - known.deviation_ns) / DEVIATION_GAIN;
        known.time_ns += error / TIME_GAIN;
    }

    /// One took this long at most, ns: which of several requests was answered, or what else was waited for, nobody knows.
    /// Counts only while nothing is known.
    pub fn on_guess(&mut self, sample_ns: i64) {
        let sample_ns = sample_ns.clamp(0, RECOVERY_MAX_NS);
        self.known.get_or_insert(Known {
            time_ns: sample_ns,
            // As after the first sample.
            deviation_ns: sample_ns * 3 / 8,
            is_guess: true,
        });
    }

    /// The smoothed time and so many deviations, ns; `None` before the first sample.
    #[must_use]
    pub fn with_deviations(&self, deviations: i64) -> Option<i64> {
        let known = self.known.as_ref()?;
        Some(known.time_ns + deviations * known.deviation_ns)
    }
}

/// `wait_ns`, doubled for each repeat before, at most `longest_ns` and never less than `wait_ns`.
#[must_use]
pub fn backed_off(wait_ns: i64, repeats: u32, longest_ns: i64) -> i64 {
    // 2^20 times anything above a microsecond is longer than whatever anybody waits.
    let factor = 1 << repeats.min(20);
    wait_ns.saturating_mul(factor).min(longest_ns.max(wait_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn nothing_is_claimed_before_the_first_sample() {
        assert_eq!(RecoveryTime::new().with_deviations(4), None);
    }

    #[test]
    fn the_first_sample_counts_in_full_and_with_a_wide_margin() {
        let mut time = RecoveryTime::new();
        time.on_sample(100 * MS);
        assert_eq!(time.with_deviations(0), Some(100 * MS));
        assert!(time.with_deviations(4).is_some_and(|margin| margin >= 200 * MS));
    }

    #[test]
    fn a_guess_counts_until_something_better_comes() {
        let mut time = RecoveryTime::new();
        time.on_guess(1000 * MS);
        assert_eq!(time.with_deviations(0), Some(1000 * MS));
        time.on_guess(MS);
        assert_eq!(time.with_deviations(0), Some(1000 * MS));
        time.on_sample(MS);
        let mut alone = RecoveryTime::new();
        alone.on_sample(MS);
        assert_eq!(time, alone);
        time.on_guess(1000 * MS);
        assert_eq!(time, alone);
    }

    #[test]
    fn steady_samples_bring_the_margin_down_and_a_longer_path_brings_it_up() {
        let mut time = RecoveryTime::new();
        (0..50).for_each(|_| time.on_sample(MS));
        assert!(
            time.with_deviations(4)
                .is_some_and(|margin| (MS..MS + MS / 4).contains(&margin))
        );
        time.on_sample(100 * MS);
        assert!(time.with_deviations(4).is_some_and(|margin| margin > 100 * MS));
        (0..100).for_each(|_| time.on_sample(100 * MS));
        assert!(time.with_deviations(0).is_some_and(|time| time > 99 * MS));
    }

    #[test]
    fn samples_that_can_not_be_are_cut() {
        let mut time = RecoveryTime::new();
        time.on_sample(i64::MIN);
        assert_eq!(time.with_deviations(4), Some(0));
        (0..1000).for_each(|_| time.on_sample(i64::MAX));
        assert!(
            time.with_deviations(4)
                .is_some_and(|margin| margin <= 5 * RECOVERY_MAX_NS)
        );
    }

    #[test]
    fn each_repeat_doubles_the_wait_up_to_the_longest() {
        assert_eq!(backed_off(MS, 0, 10 * MS), MS);
        assert_eq!(backed_off(MS, 3, 10 * MS), 8 * MS);
        assert_eq!(backed_off(MS, 4, 10 * MS), 10 * MS);
        assert_eq!(
            backed_off(100 * MS, 4, 10 * MS),
            100 * MS,
            "the wait itself is longer"
        );
        assert_eq!(backed_off(i64::MAX / 2, u32::MAX, i64::MAX), i64::MAX);
    }
}
