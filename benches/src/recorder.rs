//! What one run recorded, and how several runs become one figure.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;

/// Latencies of one run, in nanoseconds.
pub struct Recorder {
    histogram: Histogram<u64>,
    missed: Option<String>,
}

/// The longest latency that is kept apart, in nanoseconds; longer ones count as this.
const HIGHEST_NS: u64 = 60_000_000_000;

impl Recorder {
    /// An empty recorder with three significant digits.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    #[must_use]
    pub fn new() -> Recorder {
        Recorder {
            histogram: Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds are valid"),
            missed: None,
        }
    }

    /// Records one latency; negative values count as zero.
    #[inline]
    pub fn record(&mut self, nanos: i64) {
        self.histogram
            .saturating_record(u64::try_from(nanos).unwrap_or(0));
    }

    /// The latency that `quantile` (0 to 1) of all samples did not exceed.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a latency fits")]
        let nanos = self.histogram.value_at_quantile(quantile) as f64;
        nanos
    }

    /// Takes over the samples of another run.
    ///
    /// # Panics
    /// Never: all recorders have the same bounds.
    pub fn add(&mut self, other: &Recorder) {
        self.histogram
            .add(&other.histogram)
            .expect("recorders have the same bounds");
    }

    /// The samples.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Notes that the run did not keep its rate, and by how much.
    pub fn set_missed(&mut self, why: String) {
        self.missed = Some(why);
    }

    /// Why the run does not count.
    #[must_use]
    pub fn missed(&self) -> Option<&str> {
        self.missed.as_deref()
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

/// Nanoseconds as microseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "an hour of nanoseconds fits in 53 bits"
)]
#[must_use]
pub fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// The middle of the values; the mean of the two middle ones if their number is even; NaN if there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => f64::midpoint(*upper, *lower),
        (Some(upper), _) => *upper,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_outliers() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 1000.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles_come_from_all_samples() {
        let mut recorder = Recorder::new();
        for nanos in 1..=1000 {
            recorder.record(nanos);
        }
        recorder.record(-5);
        assert_eq!(recorder.histogram().len(), 1001);
        assert!((recorder.quantile(0.5) - 500.0).abs() < 2.0);
        assert!((recorder.quantile(1.0) - 1000.0).abs() < 1.0);
    }
}
