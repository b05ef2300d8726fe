//! Recovery: throughput and round trips where 0.1, 1 and 5 % of all datagrams are lost, in either direction.
#![forbid(unsafe_code)]

use super::udp_settings;
use crate::on_side;
use crate::private_network::{Wire, inside, missing};
use crate::report::Better;
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, Metric, REFERENCE, Sample};
use crate::workload::{Kind, RoundTripPlan, ThroughputPlan};

/// Bytes of payload per message of the throughput cases.
const LENGTH: usize = 1024;

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let wires = [0, 1, 10, 50].map(|lost_in_a_thousand| Wire { lost_in_a_thousand });
    let is_wanted =
        |wire: &Wire| bench.wants(&throughput_case(*wire)) || bench.wants(&round_trip_case(*wire));
    if !wires.iter().any(is_wanted) {
        return Ok(());
    }
    if let Some(missing) = missing() {
        bench.leave_out(format!("loss: skipped: {missing}"));
        return Ok(());
    }
    for wire in wires {
        throughput(bench, wire);
    }
    for wire in wires {
        round_trips(bench, wire);
    }
    Ok(())
}

fn percent(wire: Wire) -> f64 {
    f64::from(wire.lost_in_a_thousand) / 10.0
}

fn throughput_case(wire: Wire) -> String {
    format!("loss/throughput/{}%/{LENGTH}B", percent(wire))
}

fn round_trip_case(wire: Wire) -> String {
    format!("loss/round-trip/{}%", percent(wire))
}

fn throughput(bench: &mut Bench, wire: Wire) {
    let options = bench.options.clone();
    let metric = Metric::new("", "msg/s", Better::Higher);
    let metric = if wire.lost_in_a_thousand == 10 {
        metric.goal(REFERENCE, 3.0)
    } else {
        metric
    };
    bench.run(&throughput_case(wire), &[metric], |side| {
        let settings = udp_settings(&options, Mode::Shared)?;
        let plan = ThroughputPlan::of(
            &settings,
            Kind::Exclusive,
            LENGTH,
            options.scaled(20_000) + 10,
            options.scaled(100_000),
        );
        let figure = inside(wire, || on_side!(side, throughput, &settings, &plan))?;
        Ok(Sample::of(figure))
    });
}

fn round_trips(bench: &mut Bench, wire: Wire) {
    let options = bench.options.clone();
    // One at a time: what was lost shows only by what the transport itself sends after it.
    let plan = RoundTripPlan {
        length: 32,
        warmup: options.scaled(500),
        messages: options.scaled(2_000),
        per_second: None,
    };
    let mut metrics = ["p50", "p99", "p99.9"].map(|name| Metric::new(name, "ns", Better::Lower));
    if wire.lost_in_a_thousand == 10 {
        metrics[1] = metrics[1].clone().goal(REFERENCE, 2.0);
    }
    bench.run(&round_trip_case(wire), &metrics, |side| {
        let settings = udp_settings(&options, Mode::Shared)?;
        let recorder = inside(wire, || on_side!(side, round_trip, &settings, &plan))?;
        Ok(Sample::quantiles(recorder, &[0.5, 0.99, 0.999]))
    });
}
