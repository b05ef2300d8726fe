//! Shared memory: throughput by kind and length, round trips beside a bare cache line, the cost in one thread.
#![forbid(unsafe_code)]

use super::{fits, ipc_settings};
use crate::on_side;
use crate::report::Better;
use crate::side::{BenchError, Mode, Settings};
use crate::suite::{BARE, Bench, Metric, REFERENCE, SIDES, Sample};
use crate::workload::{Kind, RoundTripPlan, ThroughputPlan, bare_line};

/// Lengths and the number of messages of a run, which takes about a second.
const LENGTHS: [(usize, u64); 5] = [
    (32, 10_000_000),
    (288, 4_000_000),
    (1024, 1_000_000),
    (16 << 10, 100_000),
    (1 << 20, 1_000),
];

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    one_thread(bench);
    throughput(bench);
    round_trips(bench);
    Ok(())
}

fn one_thread(bench: &mut Bench) {
    let options = bench.options.clone();
    for &length in options.variants(&[32, 1024]) {
        for kind in Kind::ONE_BY_ONE {
            let case = format!("ipc/one-thread/{}/{length}B", kind.name());
            let settings = Settings {
                // Half of it has to hold the largest sample, since driver and client work between samples only.
                term_length: 4 << 20,
                ..ipc_settings(&options, Mode::Invoker)
            };
            bench.run(&case, &[Metric::new("", "ns/msg", Better::Lower)], |side| {
                let recorder = on_side!(side, one_thread, &settings, kind, length)?;
                Ok(Sample::of(recorder.quantile(0.25) / 100.0))
            });
        }
    }
}

/// What is wanted of short and medium messages.
fn goal(kind: Kind, length: usize) -> Metric {
    let metric = Metric::new("", "msg/s", Better::Higher);
    match (kind, length) {
        (Kind::Concurrent | Kind::Exclusive, 32) => metric.goal(REFERENCE, 1.5),
        (Kind::Batch, 32) => metric.goal(REFERENCE, 3.0),
        (Kind::Concurrent | Kind::Exclusive, 1024) => metric.goal(REFERENCE, 1.2),
        _ => metric,
    }
}

fn throughput(bench: &mut Bench) {
    for (length, messages) in LENGTHS {
        let kinds: &[Kind] = if length > 1024 {
            &Kind::FRAGMENTING
        } else {
            &Kind::ALL
        };
        for kind in kinds {
            let case = format!("ipc/throughput/{}/{length}B", kind.name());
            if !fits(bench, &case, length) {
                continue;
            }
            let options = &bench.options;
            let settings = ipc_settings(options, Mode::Shared);
            let warmup = options.scaled((3 * options.term_length / (length + 32)) as u64) + 100;
            let plan = ThroughputPlan::of(&settings, *kind, length, warmup, options.scaled(messages));
            bench.run(&case, &[goal(*kind, length)], |side| {
                let figure = on_side!(side, throughput, &settings, &plan)?;
                Ok(Sample::of(figure))
            });
        }
    }
}

/// What the sides beside ours and the reference's give: in the same rounds.
pub(super) fn with_bare() -> Vec<&'static str> {
    SIDES.iter().copied().chain([BARE]).collect()
}

fn round_trips(bench: &mut Bench) {
    for (name, per_second, messages) in [
        ("closed", None, 1_000_000),
        ("100k per second", Some(100_000), 500_000),
    ] {
        let case = format!("ipc/round-trip/{name}");
        let plan = RoundTripPlan {
            length: 32,
            warmup: bench.options.scaled(50_000),
            messages: bench.options.scaled(messages),
            per_second,
        };
        let settings = ipc_settings(&bench.options, Mode::Invoker);
        let median = Metric::new("p50", "ns", Better::Lower);
        let tail = Metric::new("p99", "ns", Better::Lower);
        let far_tail = Metric::new("p99.9", "ns", Better::Lower);
        let metrics = if per_second.is_none() {
            [
                median.goal(REFERENCE, 1.0).goal(BARE, 1.0 / 1.1),
                tail.goal(REFERENCE, 1.0 / 0.8),
                far_tail.goal(REFERENCE, 1.0),
            ]
        } else {
            [median, tail, far_tail]
        };
        let sides = if per_second.is_none() {
            with_bare()
        } else {
            SIDES.to_vec()
        };
        bench.run_on(&case, &metrics, &sides, |side| {
            let recorder = match side {
                BARE => bare_line(&plan)?,
                side => on_side!(side, round_trip, &settings, &plan)?,
            };
            Ok(Sample::quantiles(recorder, &[0.5, 0.99, 0.999]))
        });
    }
}
