//! Runs cases: every side in turn, so many rounds, one table row per figure, and everything kept for the report.
#![forbid(unsafe_code)]

use fulmar::time::{NanoTime, SystemClock};

use crate::recorder::Recorder;
use crate::report::{Better, Curve, Failed, Goal, Report, Row};
use crate::side::BenchError;
use crate::table::Table;

/// The name of our side.
pub const FULMAR: &str = "fulmar";
/// The name of Aeron's C driver and client.
pub const REFERENCE: &str = "reference";
/// The name of what the hardware or the system does without any transport.
pub const BARE: &str = "bare";

/// The sides of this build: ours first, the reference last.
pub const SIDES: &[&str] = &[
    FULMAR,
    #[cfg(feature = "peer")]
    REFERENCE,
];

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cases whose name holds one of these run; all if there are none.
    pub filters: Vec<String>,
    /// Interleaved rounds; a figure is their median.
    pub rounds: usize,
    /// A five-hundredth of the messages and few variants: shows that everything runs, its figures mean nothing.
    pub smoke: bool,
    /// Term length of publications in bytes.
    pub term_length: usize,
    /// Arguments that make the running program a child of this suite.
    pub child: Vec<String>,
    /// Whether the user wants no further run to begin.
    pub is_stopped: fn() -> bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            filters: Vec::new(),
            rounds: 5,
            smoke: false,
            term_length: 16 << 20,
            child: Vec::new(),
            is_stopped: || false,
        }
    }
}

impl Options {
    /// Whether `case` was asked for.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| case.contains(filter))
    }

    /// All variants, or the first alone: for those that take long to set up and run by the same code.
    #[must_use]
    pub fn variants<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        if self.smoke { &all[..all.len().min(1)] } else { all }
    }

    /// So many messages, or a five-hundredth.
    #[must_use]
    pub fn scaled(&self, messages: u64) -> u64 {
        if self.smoke {
            messages.div_ceil(500)
        } else {
            messages
        }
    }
}

/// One figure of a case.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Added to the case's name if there are several; may be empty.
    pub name: &'static str,
    /// Unit of the samples.
    pub unit: &'static str,
    /// Which direction is good.
    pub better: Better,
    /// What is wanted.
    pub goals: Vec<Goal>,
}

impl Metric {
    /// A figure without a goal.
    #[must_use]
    pub const fn new(name: &'static str, unit: &'static str, better: Better) -> Metric {
        Metric {
            name,
            unit,
            better,
            goals: Vec::new(),
        }
    }

    /// Ours should be better than `side` by at least this factor.
    #[must_use]
    pub fn goal(mut self, side: &'static str, at_least: f64) -> Metric {
        self.goals.push(Goal::Against { side, at_least });
        self
    }

    /// A figure of ours has to be within an absolute bound.
    #[must_use]
    pub fn bound(mut self, goal: Goal) -> Metric {
        self.goals.push(goal);
        self
    }
}

/// What one run of one side gave.
#[derive(Default)]
pub struct Sample {
    /// A value per metric of the case.
    pub values: Vec<f64>,
    /// All latencies, for the curves.
    pub latencies: Option<Recorder>,
    /// Why its values are not to be used: it missed its rate, say.
    pub failed: Option<String>,
}

impl Sample {
    /// Of one value.
    #[must_use]
    pub fn of(value: f64) -> Sample {
        Sample {
            values: vec![value],
            ..Sample::default()
        }
    }

    /// The quantiles (0 to 1) of a recorder, which is kept for its curve.
    #[must_use]
    pub fn quantiles(recorder: Recorder, quantiles: &[f64]) -> Sample {
        Sample {
            values: quantiles
                .iter()
                .map(|quantile| recorder.quantile(*quantile))
                .collect(),
            failed: recorder.missed().map(str::to_owned),
            latencies: Some(recorder),
        }
    }
}

/// A run of suites: what was asked for, and what has come out so far.
pub struct Bench {
    /// What the user asked for.
    pub options: Options,
    /// What has come out so far.
    pub report: Report,
    /// Where rows are shown.
    pub table: Table,
    started: NanoTime,
    /// Single runs of all cases, and those that are done.
    total: usize,
    done: usize,
    is_planning: bool,
    /// What the plan leaves out.
    not_planned: Vec<String>,
}

impl Bench {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(options: Options, table: Table) -> Bench {
        let report = Report::new(&options);
        Bench {
            options,
            report,
            table,
            started: SystemClock.nanos(),
            total: 0,
            done: 0,
            is_planning: false,
            not_planned: Vec::new(),
        }
    }

    /// What [`Self::plan`] has found to be impossible here, and why.
    #[must_use]
    pub fn not_planned(&self) -> &[String] {
        &self.not_planned
    }

    /// Counts the runs that `run` would make, and makes none.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn plan(
        &mut self,
        run: impl FnOnce(&mut Bench) -> Result<(), BenchError>,
    ) -> Result<usize, BenchError> {
        self.is_planning = true;
        let result = run(self);
        self.is_planning = false;
        result.map(|()| self.total)
    }

    /// Whether `case` was asked for, and is still wanted.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        self.options.wants(case) && !self.is_stopped()
    }

    /// Whether no further run should begin: the user said so, or nobody reads what comes out.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        (self.options.is_stopped)() || self.table.is_unwanted()
    }

    /// Says what this run can not measure, and why.
    pub fn leave_out(&mut self, what: String) {
        let known = if self.is_planning {
            &mut self.not_planned
        } else {
            &mut self.report.left_out
        };
        // Several suites may miss the same tool.
        if known.contains(&what) {
            return;
        }
        if !self.is_planning {
            self.table.line(&what);
        }
        known.push(what);
    }

    /// Runs a case on every side of this build; see [`Self::run_on`].
    pub fn run(
        &mut self,
        case: &str,
        metrics: &[Metric],
        once: impl FnMut(&str) -> Result<Sample, BenchError>,
    ) {
        self.run_on(case, metrics, SIDES, once);
    }

    /// Runs a case, if it was asked for, on `sides` in turn, `options.rounds` times, and prints its rows. A run that
    /// fails is noted; the others stand.
    pub fn run_on(
        &mut self,
        case: &str,
        metrics: &[Metric],
        sides: &[&'static str],
        mut once: impl FnMut(&str) -> Result<Sample, BenchError>,
    ) {
        if !self.wants(case) {
            return;
        }
        if self.is_planning {
            self.total += self.options.rounds * sides.len();
            return;
        }
        let mut rows: Vec<Row> = metrics
            .iter()
            .map(|metric| Row::new(case, metric, sides, self.options.rounds))
            .collect();
        let mut curves: Vec<Curve> = Vec::new();
        for round in 0..self.options.rounds {
            for (index, side) in sides.iter().enumerate() {
                if self.is_stopped() {
                    break;
                }
                self.show_progress(case, side, round);
                let sample = match once(side) {
                    Ok(sample) => sample,
                    Err(error) => Sample {
                        failed: Some(error.to_string()),
                        ..Sample::default()
                    },
                };
                self.done += 1;
                if self.is_stopped() && (sample.failed.is_some() || sample.values.is_empty()) {
                    // The signal was for what it had started, too.
                    break;
                }
                // What a smoke run finds out about rates means as little as its other figures.
                let failed = sample
                    .failed
                    .filter(|_| !self.options.smoke || sample.latencies.is_none());
                if let Some(why) = failed {
                    self.fail(Failed {
                        case: case.to_owned(),
                        side,
                        round,
                        why,
                    });
                    continue;
                }
                for (row, value) in rows.iter_mut().zip(sample.values) {
                    row.sides[index].1.push(value);
                }
                if let Some(latencies) = sample.latencies {
                    match curves.iter_mut().find(|curve| curve.side == *side) {
                        Some(curve) => curve.latencies.add(&latencies),
                        None => curves.push(Curve {
                            case: case.to_owned(),
                            side,
                            latencies,
                        }),
                    }
                }
            }
        }
        let is_cut_short = self.is_stopped();
        for row in rows {
            if is_cut_short && row.sides.iter().any(|(_, samples)| samples.is_empty()) {
                continue;
            }
            self.table.line(&row.line());
            self.report.rows.push(row);
        }
        self.report.curves.append(&mut curves);
    }

    /// Notes a run that gave no figure.
    pub fn fail(&mut self, failed: Failed) {
        if !self.is_planning {
            self.table.line(&failed.line());
            self.report.failed.push(failed);
        }
    }

    fn show_progress(&mut self, case: &str, side: &str, round: usize) {
        let elapsed = SystemClock.nanos().since(self.started) / 1_000_000_000;
        let (done, total) = (self.done, self.total.max(self.done + 1));
        let left = i64::try_from(total - done).unwrap_or(i64::MAX);
        let mut text = format!("[{}%] {case}, {side}, round {}", 100 * done / total, round + 1);
        if let Some(left) = elapsed
            .saturating_mul(left)
            .checked_div(i64::try_from(done).unwrap_or(1))
        {
            text.push_str(&format!(", about {left} s left"));
        }
        self.table.progress(&text);
    }
}
