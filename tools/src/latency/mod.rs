//! Round-trip times: recorded in a histogram, shown as a table, as JSON, as a percentile distribution and as a picture.

#![forbid(unsafe_code)]

pub(crate) mod plot;

use fulmar_benches::output::SHOWN;
use fulmar_benches::recorder::micros;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Longer round trips are recorded as this one, in nanoseconds.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Recorded times in nanoseconds, with three significant digits.
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    /// No times yet.
    pub(crate) fn new() -> Result<Latencies, Failure> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        Ok(Latencies {
            histogram: histogram
                .map_err(|error| Failure::new(format!("cannot create a histogram: {error}")))?,
        })
    }

    /// Records one time; a negative one counts as the shortest.
    #[inline]
    pub(crate) fn record(&mut self, nanos: i64) {
        self.histogram
            .saturating_record(u64::try_from(nanos).unwrap_or(0).max(1));
    }

    /// How many times were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The recorded times.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Name, JSON key and value in nanoseconds of everything a report shows except the count.
    fn figures(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut figures = vec![("min", "min", self.histogram.min())];
        for (name, key, share) in SHOWN {
            figures.push((name, key, self.histogram.value_at_quantile(share)));
        }
        figures.push(("max", "max", self.histogram.max()));
        figures
    }

    /// One line per figure, in microseconds.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{:<8} {:>12}\n", "count", self.count());
        for (name, _, nanos) in self.figures() {
            text.push_str(&format!("{name:<8} {:>12.3} us\n", micros(nanos)));
        }
        text
    }

    /// The figures in nanoseconds.
    pub(crate) fn to_json(&self) -> Value {
        let mut document = json!({ "count": self.count() });
        for (_, key, nanos) in self.figures() {
            document[key] = json!(nanos);
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn one_to(last: i64) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        for nanos in 1..=last {
            latencies.record(nanos * 1000);
        }
        latencies
    }

    #[test]
    fn json_is_in_nanoseconds_and_text_in_microseconds() {
        let latencies = one_to(1000);
        let document = latencies.to_json();
        assert_eq!(document["count"], 1000);
        assert_eq!(document["min"], 1000);
        for (key, nanos) in [
            ("p50", 500_000),
            ("p90", 900_000),
            ("p99", 990_000),
            ("max", 1_000_000),
        ] {
            let value = document[key].as_u64().unwrap();
            assert!(value.abs_diff(nanos) <= nanos / 500, "{key} {value}");
        }
        assert!(document["p99_9"].is_u64());
        assert!(document["p99_99"].is_u64());
        let text = latencies.to_text();
        assert!(
            text.starts_with("count            1000\nmin             1.000 us\np50 "),
            "{text}"
        );
        assert!(text.contains("\np99.99 "));
    }

    #[test]
    fn impossible_times_are_kept_in_range() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(-5);
        latencies.record(i64::MAX);
        assert_eq!(latencies.count(), 2);
        assert_eq!(latencies.histogram().min(), 1);
    }
}
