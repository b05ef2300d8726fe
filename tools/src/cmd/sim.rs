//! `fulmar sim`: simulated worlds from seeds, one after the other, until one breaks a rule.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};

use fulmar::time::{SystemClock, duration_nanos};
use fulmar_media_driver::sim::report::Summary;
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
        if summary.worlds > 0 && (stop_requested() || limit_ns.is_some_and(|limit| elapsed >= limit)) {
            break;
        }
        let Some(plan) = swarm::plan(&args.scenario, seed) else {
            break;
        };
        let report = swarm::run(seed, plan);
        summary.add(&report);
        if args.seed.is_some() {
            print(&format!("{report}\ntrace {:#018x}\n", report.trace))?;
        }
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
    match failed {
        None => Ok(()),
        Some(report) => Err(Failure::new(format!("a simulated world broke a rule\n{report}"))),
    }
}
