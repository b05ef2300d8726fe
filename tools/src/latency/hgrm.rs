//! The percentile distribution in the text form that HdrHistogram's tools and plotters read.

#![forbid(unsafe_code)]

use std::fmt::Write;

use super::{Latencies, micros};

/// Steps per halving of the distance to 100 %.
const STEPS_PER_HALVING: u32 = 5;

/// The distribution in microseconds.
pub(crate) fn render(latencies: &Latencies) -> String {
    let histogram = latencies.histogram();
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = micros(step.value_iterated_to());
        let quantile = step.quantile_iterated_to();
        let line = if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            format!("{value:12.3} {quantile:.12} {total:10} {inverse:14.2}")
        } else {
            format!("{value:12.3} {quantile:.12} {total:10}")
        };
        text.push_str(&line);
        text.push('\n');
    }
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.mean() / 1000.0,
        histogram.stdev() / 1000.0,
        micros(histogram.max()),
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram.sigfig()),
    );
    text
}

/// How many equal parts a bucket is cut into to hold `digits` significant digits: the power of two that separates
/// `2 * 10^digits` values.
fn sub_buckets(digits: u8) -> u32 {
    (2 * 10u32.pow(u32::from(digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::super::tests::one_to;
    use super::*;

    #[test]
    fn the_distribution_has_the_columns_and_the_footer_that_plotters_expect() {
        let text = render(&one_to(1000));
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("       Value     Percentile TotalCount 1/(1-Percentile)")
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .clone()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(rows.len() > 10);
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1])
        );
        let last = rows.last().unwrap();
        assert_eq!(last.len(), 3, "the last row has no inverse");
        assert!((last[1] - 1.0).abs() < 1e-12);
        assert!((last[2] - 1000.0).abs() < 1e-9);
        assert!(text.contains("#[Max     =     1000."), "{text}");
        assert!(text.contains("Total count    =         1000]"));
        assert!(text.ends_with("SubBuckets     =         2048]\n"));
    }
}
