//! One table: a row per case, the medians of all sides side by side, and the ratio of the first side to the last.
#![forbid(unsafe_code)]

use crate::recorder::median;

/// Whether a ratio above one is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Throughput.
    Higher,
    /// Latency and costs.
    Lower,
}

/// Figures that differ by less are equal: what is left of set-up when counts are subtracted.
const SAME: f64 = 0.005;

/// All samples of one figure on every side, in the order of the sides.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// Which direction is good.
    pub better: Better,
    /// Name of each side and its samples.
    pub sides: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    /// The table line: medians with their range, then the ratio of first side and reference, above one if the first
    /// side is better.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{:<44}", self.name);
        for (side, samples) in &self.sides {
            let (low, high) = range(samples);
            let middle = short(median(samples));
            let cell = format!(
                "{side} {middle} {} [{} .. {}]",
                self.unit,
                short(low),
                short(high)
            );
            line.push_str(&format!("  {cell:<52}"));
        }
        if let (Some((_, ours)), Some((_, reference)), true) =
            (self.sides.first(), self.sides.last(), self.sides.len() > 1)
        {
            let (ours, reference) = (median(ours), median(reference));
            if (ours - reference).abs() < SAME {
                line.push_str("  ratio 1.00");
                return line;
            }
            let ratio = match self.better {
                Better::Higher => ours / reference,
                Better::Lower => reference / ours,
            };
            line.push_str(&format!("  ratio {ratio:.2}"));
        }
        line
    }
}

fn range(samples: &[f64]) -> (f64, f64) {
    samples
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_means_that_the_first_side_is_better() {
        let mut row = Row {
            name: "x".into(),
            unit: "ns",
            better: Better::Lower,
            sides: vec![("a", vec![50.0]), ("b", vec![100.0])],
        };
        assert!(row.line().ends_with("ratio 2.00"), "{}", row.line());
        row.better = Better::Higher;
        assert!(row.line().ends_with("ratio 0.50"), "{}", row.line());
    }
}
