//! The percentile distribution in the text form that HdrHistogram's tools and plotters read.
#![forbid(unsafe_code)]

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::recorder::micros;

/// Steps per halving of the distance to 100 %.
const STEPS_PER_HALVING: u32 = 5;

/// The distribution of nanoseconds, in microseconds.
#[must_use]
pub fn render(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = micros(step.value_iterated_to());
        let quantile = step.quantile_iterated_to();
        // Writing to a string does not fail, here and below.
        let _ = write!(text, "{value:12.3} {quantile:14.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n\
         #[Unit    = microseconds]\n",
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
    use super::*;

    /// A third of the samples each: five steps to the first half, then five to the next quarter. The last value is
    /// reached in the fourth of these.
    const THREE: &str = concat!(
        "       Value     Percentile TotalCount 1/(1-Percentile)\n",
        "\n",
        "       0.100 0.000000000000          1           1.00\n",
        "       0.100 0.100000000000          1           1.11\n",
        "       0.100 0.200000000000          1           1.25\n",
        "       0.100 0.300000000000          1           1.43\n",
        "       0.200 0.400000000000          2           1.67\n",
        "       0.200 0.500000000000          2           2.00\n",
        "       0.200 0.550000000000          2           2.22\n",
        "       0.200 0.600000000000          2           2.50\n",
        "       0.200 0.650000000000          2           2.86\n",
        "       0.300 0.700000000000          3           3.33\n",
        "       0.300 1.000000000000          3\n",
        "#[Mean    =        0.200, StdDeviation   =        0.082]\n",
        "#[Max     =        0.300, Total count    =            3]\n",
        "#[Buckets =           26, SubBuckets     =         2048]\n",
        "#[Unit    = microseconds]\n",
    );

    #[test]
    fn a_small_distribution_is_as_written_by_hand() {
        let mut recorder = crate::recorder::Recorder::new();
        for nanos in [100, 200, 300] {
            recorder.record(nanos);
        }
        assert_eq!(render(recorder.histogram()), THREE);
    }

    #[test]
    fn a_large_one_rises_to_all_samples() {
        let recorder = super::super::tests::recorder(1000);
        let text = render(recorder.histogram());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                let cells = line.split_whitespace();
                cells.map(|cell| cell.parse().expect("a number")).collect()
            })
            .collect();
        assert!(rows.len() > 10);
        assert!(
            rows.windows(2)
                .all(|pair| (0..3).all(|column| pair[0][column] <= pair[1][column]))
        );
        let last = rows.last().expect("rows");
        assert_eq!(last.len(), 3, "the last row has no inverse");
        assert!((last[1] - 1.0).abs() < 1e-12 && (last[2] - 1000.0).abs() < 1e-9);
    }
}
