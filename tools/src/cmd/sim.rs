//! `fulmar sim`: simulated worlds from seeds, one after the other, until one breaks a rule.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fulmar::time::{SystemClock, duration_nanos};
use fulmar_media_driver::sim::plan::Plan;
use fulmar_media_driver::sim::report::{Report, Summary};
use fulmar_media_driver::sim::swarm;

use crate::args::SimArgs;
use crate::failure::Failure;
use crate::render::output::print;
use crate::signals::stop_requested;

/// How often progress is shown, nanoseconds.
const PROGRESS_INTERVAL_NS: i64 = 500_000_000;

pub(crate) fn run(args: &SimArgs) -> Result<(), Failure> {
    if swarm::plan(&args.scenario, 0).is_none() {
        let known: Vec<_> = swarm::scenarios().map(|(name, _)| name).collect();
        return Err(Failure::Usage(format!(
            "there is no scenario `{}`; there are {}",
            args.scenario,
            known.join(", ")
        )));
    }
    let seeds = match (args.seed, args.seeds) {
        (Some(seed), _) => seed..=seed,
        (None, Some((from, to))) => from..=to - 1,
        (None, None) => 0..=u64::MAX,
    };
    let limit_ns = args.limit.map(duration_nanos);
    let shows_progress = std::io::stderr().is_terminal();
    let start = SystemClock.nanos();
    let mut shown = start;
    let mut summary = Summary::default();
    let mut failed = None;
    for seed in seeds {
        let elapsed = SystemClock.nanos().since(start);
        if stop_requested() || limit_ns.is_some_and(|limit| elapsed >= limit) {
            break;
        }
        let Some(plan) = swarm::plan(&args.scenario, seed) else {
            break;
        };
        let (report, capture) = match &args.capture {
            None => (swarm::run(seed, plan), Ok(())),
            Some(path) => run_captured(seed, plan, path)?,
        };
        summary.add(&report);
        if args.seed.is_some() || report.violation.is_some() {
            // At once: whoever looks need not wait for the end to see it again.
            print(&told(&report, args.events))?;
        }
        capture?;
        if report.violation.is_some() {
            failed = Some(report);
            break;
        }
        let now = SystemClock.nanos();
        if shows_progress && now.since(shown) >= PROGRESS_INTERVAL_NS {
            shown = now;
            // Progress is a courtesy; nobody misses it.
            let _ = write!(
                std::io::stderr(),
                "\r{} worlds, seed {seed:#x}, {} messages ",
                summary.worlds,
                summary.delivered
            );
        }
    }
    if shows_progress {
        let _ = writeln!(std::io::stderr());
    }
    print(&summary.render(SystemClock.nanos().since(start)))?;
    verdict(&summary, failed.as_ref())
}

fn verdict(summary: &Summary, failed: Option<&Report>) -> Result<(), Failure> {
    if let Some(report) = failed {
        let violation = report.violation.as_ref().map(ToString::to_string);
        return Err(Failure::new(format!(
            "the simulated world of seed {:#x} broke a rule: {}\nreplay: {}",
            report.seed,
            violation.unwrap_or_default(),
            report.replay_line()
        )));
    }
    if summary.worlds == 0 {
        return Err(Failure::with_advice(
            "no world was run, so nothing is known",
            "give it more time (--for)",
        ));
    }
    Ok(())
}

/// What is said about one world; a broken one tells its last events in any case.
fn told(report: &Report, with_events: bool) -> String {
    let mut text = String::new();
    if with_events && report.violation.is_none() {
        for event in &report.last_events {
            text.push_str(&format!("  {event}\n"));
        }
    }
    text.push_str(&format!("{report}\n"));
    text
}

/// What came of the world, and whether all of its capture could be written.
fn run_captured(seed: u64, plan: Plan, path: &Path) -> Result<(Report, Result<(), Failure>), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::with_advice(
            format!("the capture {} can not be written: {error}", path.display()),
            "name a file in a directory that takes it",
        )
    };
    let file = File::create(path).map_err(|error| failed(&error))?;
    let error = Arc::new(OnceLock::new());
    let target = Target {
        file,
        error: Arc::clone(&error),
    };
    let report = swarm::run_captured(seed, plan, Box::new(target));
    let written = error.get().map_or(Ok(()), |error| Err(failed(error)));
    Ok((report, written))
}

/// A file that remembers what went wrong: a network gives up a capture in silence, but half of one is none.
struct Target {
    file: File,
    error: Arc<OnceLock<String>>,
}

impl Target {
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            // Only the first counts.
            let _ = self.error.set(error.to_string());
        })
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.file.write(bytes);
        self.noted(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.file.flush();
        self.noted(result)
    }
}

#[cfg(test)]
mod tests {
    use fulmar_media_driver::sim::plan::Event;

    use super::*;
    use crate::failure::EXIT_FAILED;

    #[test]
    fn a_broken_world_is_told_at_once_and_at_the_end_with_the_line_that_replays_it() {
        let mut plan = swarm::plan("two-hosts", 3).unwrap();
        plan.faults_ns = 100_000_000;
        // There is no such client.
        let event = Event::CloseClient {
            client: 99,
            away_ns: 0,
        };
        plan.events = vec![(50_000_000, event)];
        let report = swarm::run(3, plan);
        let replay = "replay: fulmar sim --seed 0x3 --scenario two-hosts";
        let text = told(&report, false);
        assert!(text.starts_with("violation: no panics: "), "{text}");
        assert!(text.ends_with(&format!("{replay}\n")), "{text}");
        let mut summary = Summary::default();
        summary.add(&report);
        let failure = verdict(&summary, Some(&report)).unwrap_err();
        assert_eq!(failure.exit_status(), EXIT_FAILED);
        assert!(failure.to_string().contains(replay), "{failure}");
    }

    #[test]
    fn no_world_at_all_is_no_success() {
        let failure = verdict(&Summary::default(), None).unwrap_err();
        assert_eq!(failure.exit_status(), EXIT_FAILED);
        let mut summary = Summary::default();
        summary.add(&Report::default());
        assert!(verdict(&summary, None).is_ok());
    }

    #[test]
    fn events_of_a_good_world_are_told_on_request() {
        let report = Report {
            last_events: vec!["0.5 something".to_owned()],
            ..Report::default()
        };
        assert!(told(&report, true).starts_with("  0.5 something\nseed 0x0"));
        assert!(told(&report, false).starts_with("seed 0x0"));
    }
}
