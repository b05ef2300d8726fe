//! Sockets of the loopback interface: throughput by length, round trips beside bare datagrams, and at a low rate with
//! default settings.
#![forbid(unsafe_code)]

use super::ipc::with_bare;
use super::udp_settings;
use crate::on_side;
use crate::report::Better;
use crate::side::{BenchError, Mode};
use crate::suite::{BARE, Bench, Metric, REFERENCE, Sample};
use crate::workload::{Kind, RoundTripPlan, ThroughputPlan, bare_datagrams};

/// Lengths, the number of messages of a run, and how much faster than the reference ours should be.
const LENGTHS: [(usize, u64, f64); 3] = [(32, 3_000_000, 2.0), (1024, 500_000, 3.0), (1 << 20, 500, 3.0)];

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    for (length, messages, wanted) in LENGTHS {
        let case = format!("udp/throughput/exclusive/{length}B");
        if !bench.wants(&case) {
            continue;
        }
        let options = bench.options.clone();
        let warmup = options.scaled((3 * options.term_length / (length + 32)) as u64) + 10;
        let metric = Metric::new("", "msg/s", Better::Higher).goal(REFERENCE, wanted);
        bench.run(&case, &[metric], |side| {
            let settings = udp_settings(&options, Mode::Shared)?;
            let plan = ThroughputPlan::of(
                &settings,
                Kind::Exclusive,
                length,
                warmup,
                options.scaled(messages),
            );
            let figure = on_side!(side, throughput, &settings, &plan)?;
            Ok(Sample::of(figure.messages_per_second))
        });
    }
    round_trips(bench);
    Ok(())
}

fn quantiles(goals: [Option<f64>; 2]) -> Vec<Metric> {
    let metrics = ["p50", "p99"].map(|name| Metric::new(name, "ns", Better::Lower));
    let with_goal = |(metric, goal): (Metric, Option<f64>)| match goal {
        Some(at_least) => metric.goal(REFERENCE, at_least),
        None => metric,
    };
    metrics.into_iter().zip(goals).map(with_goal).collect()
}

fn round_trips(bench: &mut Bench) {
    let options = bench.options.clone();
    let closed = RoundTripPlan {
        length: 32,
        warmup: options.scaled(10_000),
        messages: options.scaled(50_000),
        per_second: None,
    };
    // One driver thread for both ends.
    bench.run("udp/round-trip/shared", &quantiles([None, None]), |side| {
        let settings = udp_settings(&options, Mode::Shared)?;
        let recorder = on_side!(side, round_trip, &settings, &closed)?;
        Ok(Sample::quantiles(recorder, &[0.5, 0.99]))
    });
    // A driver at each end, worked by the thread that pings or echoes.
    let mut metrics = quantiles([Some(1.0 / 0.9), Some(1.0)]);
    metrics[0] = metrics[0].clone().goal(BARE, 1.0 / 1.25);
    bench.run_on("udp/round-trip/invoker", &metrics, &with_bare(), |side| {
        let settings = udp_settings(&options, Mode::Invoker)?;
        let recorder = match side {
            BARE => bare_datagrams(&closed)?,
            side => on_side!(side, round_trip_between_hosts, &settings, &closed)?,
        };
        Ok(Sample::quantiles(recorder, &[0.5, 0.99]))
    });
    let slow = RoundTripPlan {
        length: 32,
        warmup: options.scaled(500),
        messages: options.scaled(5_000),
        per_second: Some(1_000),
    };
    bench.run(
        "udp/round-trip/defaults at 1k per second",
        &quantiles([None, Some(10.0)]),
        |side| {
            let settings = udp_settings(&options, Mode::Defaults)?;
            let recorder = on_side!(side, round_trip_in_one_thread, &settings, &slow)?;
            Ok(Sample::quantiles(recorder, &[0.5, 0.99]))
        },
    );
}
