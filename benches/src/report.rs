//! What a run found: a row per figure with the samples of all sides, a latency curve per case and side, and the runs
//! that failed.
#![forbid(unsafe_code)]

use fulmar::time::{Clock, EpochMs, SystemClock};

use crate::host::Host;
use crate::recorder::{Recorder, median};
use crate::suite::{FULMAR, Metric, Options};

/// Whether a ratio above one is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Throughput.
    Higher,
    /// Latency and costs.
    Lower,
}

/// What is wanted of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// To be better than another side by at least a factor: 1.25 stands for a latency of at most 0.8 of the other's.
    Against {
        /// The other side.
        side: &'static str,
        /// The factor.
        at_least: f64,
    },
    /// A figure of at least this.
    AtLeast(f64),
    /// A figure of at most this.
    AtMost(f64),
}

impl core::fmt::Display for Goal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Goal::Against { side, at_least } => write!(f, "{at_least:.2} x {side}"),
            Goal::AtLeast(value) => write!(f, "at least {}", short(*value)),
            Goal::AtMost(value) => write!(f, "at most {}", short(*value)),
        }
    }
}

/// All samples of one figure on every side, in the order of the sides.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// Which direction is good.
    pub better: Better,
    /// Name of each side and its samples, one a round; none of rounds that failed.
    pub sides: Vec<(&'static str, Vec<f64>)>,
    /// What is wanted.
    pub goals: Vec<Goal>,
    /// How many samples each side should have.
    pub rounds: usize,
}

impl Row {
    /// A row without samples.
    #[must_use]
    pub fn new(case: &str, metric: &Metric, sides: &[&'static str], rounds: usize) -> Row {
        let name = if metric.name.is_empty() {
            case.to_owned()
        } else {
            format!("{case} {}", metric.name)
        };
        Row {
            name,
            unit: metric.unit,
            better: metric.better,
            sides: sides.iter().map(|side| (*side, Vec::new())).collect(),
            goals: metric.goals.clone(),
            rounds,
        }
    }

    /// The median of a side's samples; NaN if it has none.
    #[must_use]
    pub fn median(&self, side: &str) -> f64 {
        let samples = self.sides.iter().find(|(name, _)| *name == side);
        samples.map_or(f64::NAN, |(_, samples)| median(samples))
    }

    /// How many times ours is better than `side`, by medians: above one if it is; `None` without figures.
    #[must_use]
    pub fn ratio(&self, side: &str) -> Option<f64> {
        let (ours, other) = (self.median(FULMAR), self.median(side));
        if ours.is_nan() || other.is_nan() {
            return None;
        }
        // Of nothing, too.
        if ours.total_cmp(&other).is_eq() {
            return Some(1.0);
        }
        Some(match self.better {
            Better::Higher => ours / other,
            Better::Lower => other / ours,
        })
    }

    /// Whether a goal is reached; `None` unless every round of the sides that it is about gave a sample.
    #[must_use]
    pub fn is_met(&self, goal: Goal) -> Option<bool> {
        if self.rounds_of(goal)? < self.rounds {
            return None;
        }
        let ours = self.median(FULMAR);
        match goal {
            Goal::Against { side, at_least } => self.ratio(side).map(|ratio| ratio >= at_least),
            Goal::AtLeast(value) => Some(ours >= value),
            Goal::AtMost(value) => Some(ours <= value),
        }
    }

    /// The rounds that a goal can be judged by; `None` if a side that it is about did not run.
    fn rounds_of(&self, goal: Goal) -> Option<usize> {
        let count = |side: &str| {
            let samples = self.sides.iter().find(|(name, _)| *name == side);
            samples.map(|(_, samples)| samples.len())
        };
        let ours = count(FULMAR)?;
        match goal {
            Goal::Against { side, .. } => Some(ours.min(count(side)?)),
            Goal::AtLeast(_) | Goal::AtMost(_) => Some(ours),
        }
    }

    /// Why a goal is neither met nor missed; `None` if a side that it is about did not run.
    #[must_use]
    pub fn too_few(&self, goal: Goal) -> Option<String> {
        let there = self.rounds_of(goal)?;
        Some(format!("{there} of {} rounds", self.rounds))
    }

    /// The table line: medians with their range, then the ratio of ours to each other side, above one if ours is
    /// better, and what is wanted of it.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{:<44}", self.name);
        for (side, samples) in &self.sides {
            let cell = if samples.is_empty() {
                format!("{side} failed")
            } else {
                let (low, high) = range(samples);
                let middle = short(median(samples));
                format!(
                    "{side} {middle} {} [{} .. {}]",
                    self.unit,
                    short(low),
                    short(high)
                )
            };
            line.push_str(&format!("  {cell:<52}"));
        }
        for (side, _) in self.sides.iter().filter(|(side, _)| *side != FULMAR) {
            let Some(ratio) = self.ratio(side) else { continue };
            line.push_str(&format!("  {ratio:.2} x {side}"));
        }
        for goal in &self.goals {
            let verdict = match self.is_met(*goal) {
                Some(true) => "met".to_owned(),
                Some(false) => "MISSED".to_owned(),
                None => match self.too_few(*goal) {
                    Some(text) => text,
                    None => continue,
                },
            };
            line.push_str(&format!("  (goal {goal}: {verdict})"));
        }
        line
    }
}

/// The latencies of all rounds of one case on one side.
pub struct Curve {
    /// The case.
    pub case: String,
    /// The side.
    pub side: &'static str,
    /// All samples, in nanoseconds.
    pub latencies: Recorder,
}

/// A run that gave no figure.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The case.
    pub case: String,
    /// The side.
    pub side: &'static str,
    /// The round, from 0.
    pub round: usize,
    /// Why.
    pub why: String,
}

impl Failed {
    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let Failed {
            case,
            side,
            round,
            why,
        } = self;
        format!("FAILED {case}, {side}, round {}: {why}", round + 1)
    }
}

/// Everything a run found.
pub struct Report {
    /// The machine.
    pub host: Host,
    /// The settings of both sides.
    pub settings: Settings,
    /// When it began.
    pub started: EpochMs,
    /// One a figure, in the order of measurement.
    pub rows: Vec<Row>,
    /// One a case and side that measured latencies.
    pub curves: Vec<Curve>,
    /// Runs that gave no figure.
    pub failed: Vec<Failed>,
    /// What could not be measured here, and why.
    pub left_out: Vec<String>,
}

/// What all runs of a report have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Cases whose name holds one of these; all if there are none.
    pub filters: Vec<String>,
    /// Term length of publications in bytes.
    pub term_length: usize,
    /// Interleaved rounds.
    pub rounds: usize,
    /// The figures mean nothing.
    pub smoke: bool,
    /// Version and commit of the reference, as its library says them; `None` in builds without it.
    pub reference: Option<String>,
}

/// Longest datagram in bytes, on every side.
pub const MTU: usize = 1408;

impl Settings {
    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let Settings {
            term_length,
            rounds,
            reference,
            ..
        } = self;
        let reference = match reference {
            Some(version) => format!("; reference: {version}"),
            None => String::new(),
        };
        let smoke = if self.smoke {
            "; smoke run: the figures mean nothing"
        } else {
            ""
        };
        format!(
            "term length {term_length} bytes where a case does not need another, MTU {MTU}, {rounds} rounds, sides interleaved, medians with \
             [lowest .. highest]; a ratio above 1: fulmar is better{reference}{smoke}"
        )
    }
}

impl Report {
    /// Nothing found yet.
    #[must_use]
    pub fn new(options: &Options) -> Report {
        Report {
            host: Host::read(),
            settings: Settings {
                filters: options.filters.clone(),
                term_length: options.term_length,
                rounds: options.rounds,
                smoke: options.smoke,
                reference: reference_version(),
            },
            started: SystemClock.now().epoch,
            rows: Vec::new(),
            curves: Vec::new(),
            failed: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// How many goals are met, and how many missed. Goals without figures are neither.
    #[must_use]
    pub fn goals(&self) -> (usize, usize) {
        let verdicts = self
            .rows
            .iter()
            .flat_map(|row| row.goals.iter().filter_map(|goal| row.is_met(*goal)));
        verdicts.fold((0, 0), |(met, missed), is_met| {
            (met + usize::from(is_met), missed + usize::from(!is_met))
        })
    }
}

#[cfg(feature = "peer")]
#[expect(clippy::unnecessary_wraps, reason = "builds without the reference have none")]
fn reference_version() -> Option<String> {
    Some(crate::reference::version())
}

#[cfg(not(feature = "peer"))]
fn reference_version() -> Option<String> {
    None
}

/// The lowest and the highest sample.
#[must_use]
pub fn range(samples: &[f64]) -> (f64, f64) {
    samples
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

/// Three digits and a power of thousand; four places of what is less than a tenth.
#[must_use]
pub fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value != 0.0 && value.abs() < 0.1 => format!("{value:.4}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::REFERENCE;

    fn row(better: Better, ours: &[f64], other: &[f64]) -> Row {
        Row {
            name: "x".into(),
            unit: "ns",
            better,
            sides: vec![(FULMAR, ours.to_vec()), (REFERENCE, other.to_vec())],
            goals: vec![Goal::Against {
                side: REFERENCE,
                at_least: 1.5,
            }],
            rounds: 1,
        }
    }

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better() {
        let less = row(Better::Lower, &[50.0], &[100.0]).line();
        assert!(
            less.ends_with("2.00 x reference  (goal 1.50 x reference: met)"),
            "{less}"
        );
        let more = row(Better::Higher, &[50.0], &[100.0]).line();
        assert!(
            more.ends_with("0.50 x reference  (goal 1.50 x reference: MISSED)"),
            "{more}"
        );
    }

    #[test]
    fn a_side_without_samples_gives_no_ratio_and_meets_no_goal() {
        let row = row(Better::Lower, &[], &[100.0]);
        assert_eq!(row.ratio(REFERENCE), None);
        assert_eq!(row.is_met(row.goals[0]), None);
        assert!(row.line().contains("fulmar failed"), "{}", row.line());
    }

    #[test]
    fn rounds_that_failed_leave_a_goal_open() {
        let goals = [Goal::AtMost(1e3), row(Better::Lower, &[], &[]).goals[0]];
        for (ours, other, open) in [
            (&[50.0, 50.0][..], &[100.0, 100.0][..], [false, false]),
            (&[50.0, 50.0], &[100.0], [false, true]),
            (&[50.0], &[100.0, 100.0], [true, true]),
        ] {
            let row = Row {
                rounds: 2,
                goals: goals.to_vec(),
                ..row(Better::Lower, ours, other)
            };
            for (goal, is_open) in goals.into_iter().zip(open) {
                let wanted = if is_open { None } else { Some(true) };
                assert_eq!(row.is_met(goal), wanted, "{ours:?} {other:?} {goal}");
            }
            assert_eq!(row.line().contains(": 1 of 2 rounds)"), open[1], "{}", row.line());
        }
    }

    #[test]
    fn small_figures_that_differ_are_not_the_same() {
        let ratio = |ours, other| row(Better::Lower, &[ours], &[other]).ratio(REFERENCE);
        assert!(ratio(0.0035, 0.0008).is_some_and(|ratio| ratio < 0.23));
        assert_eq!(ratio(0.0, 0.0), Some(1.0));
        let line = row(Better::Lower, &[0.0035], &[0.0008]).line();
        assert!(line.contains("fulmar 0.0035 ns"), "{line}");
    }

    #[test]
    fn figures_keep_digits_that_tell_them_apart() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0035, "0.0035"),
            (-0.02, "-0.0200"),
            (0.1, "0.10"),
            (99.994, "99.99"),
            (123.4, "123"),
            (12_345.0, "12.3 k"),
            (1_234_567.0, "1.23 M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
