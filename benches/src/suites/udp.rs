//! Sockets of the loopback interface: throughput by length, round trips beside bare datagrams, and at a low rate with
//! default settings. Then the same between two network namespaces, as between two hosts.
#![forbid(unsafe_code)]

use super::ipc::with_bare;
use super::{fits, two_hosts_settings, udp_settings};
use crate::on_side;
use crate::private_network::{between_hosts, missing_hosts};
use crate::report::Better;
use crate::side::{BenchError, Mode};
use crate::suite::{BARE, Bench, Metric, Options, REFERENCE, Sample};
use crate::workload::{Kind, RoundTripPlan, ThroughputPlan, bare_datagrams};

/// Lengths, the number of messages of a run, and how much faster than the reference ours should be.
const LENGTHS: [(usize, u64, f64); 3] = [(32, 3_000_000, 2.0), (1024, 500_000, 3.0), (1 << 20, 500, 3.0)];

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    for (length, messages, wanted) in LENGTHS {
        let case = format!("udp/throughput/exclusive/{length}B");
        if !bench.wants(&case) || !fits(bench, &case, length) {
            continue;
        }
        let options = bench.options.clone();
        let warmup = warmup(&options, length);
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
            Ok(Sample::of(figure))
        });
    }
    round_trips(bench);
    two_hosts(bench);
    Ok(())
}

/// Two network namespaces joined by a pair of virtual Ethernet interfaces, each with a driver of its own.
fn two_hosts(bench: &mut Bench) {
    let throughput_case = |length| format!("udp/veth/throughput/exclusive/{length}B");
    let round_trip_case = "udp/veth/round-trip/invoker";
    let lengths = &LENGTHS[..2];
    let is_wanted = bench.wants(round_trip_case)
        || lengths
            .iter()
            .any(|(length, _, _)| bench.wants(&throughput_case(*length)));
    if !is_wanted {
        return;
    }
    if let Some(missing) = missing_hosts() {
        bench.leave_out(format!("udp/veth: skipped: {missing}"));
        return;
    }
    let options = bench.options.clone();
    for &(length, messages, wanted) in lengths {
        let metric = Metric::new("", "msg/s", Better::Higher).goal(REFERENCE, wanted);
        bench.run(&throughput_case(length), &[metric], |side| {
            let figure = between_hosts(|far| {
                let settings = two_hosts_settings(&options, Mode::Shared, far);
                let (warmup, messages) = (warmup(&options, length), options.scaled(messages));
                let plan = ThroughputPlan::of(&settings, Kind::Exclusive, length, warmup, messages);
                on_side!(side, throughput_between_hosts, &settings, &plan)
            })?;
            Ok(Sample::of(figure))
        });
    }
    bench.run(round_trip_case, &quantiles([None, None]), |side| {
        let recorder = between_hosts(|far| {
            let settings = two_hosts_settings(&options, Mode::Invoker, far);
            on_side!(side, round_trip_between_hosts, &settings, &closed(&options))
        })?;
        Ok(Sample::quantiles(recorder, &[0.5, 0.99]))
    });
}

/// Messages that touch every page of the log.
fn warmup(options: &Options, length: usize) -> u64 {
    options.scaled((3 * options.term_length / (length + 32)) as u64) + 10
}

/// The next ping leaves when the last came back.
fn closed(options: &Options) -> RoundTripPlan {
    RoundTripPlan {
        length: 32,
        warmup: options.scaled(10_000),
        messages: options.scaled(50_000),
        per_second: None,
    }
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
    let closed = closed(&options);
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
