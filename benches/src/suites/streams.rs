//! 1, 10, 100 and 1,000 streams of which one in ten carries messages, in turn: the total of all.
#![forbid(unsafe_code)]

use super::one_way_settings;
use crate::on_side;
use crate::report::Better;
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, Metric, Sample};
use crate::workload::{Kind, ThroughputPlan};

/// Small logs: a thousand of them have to fit.
const TERM_LENGTH: usize = 128 << 10;
/// Bytes of payload per message.
const LENGTH: usize = 32;

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    let metrics = [Metric::new("", "msg/s", Better::Higher)];
    for (media, messages) in [("ipc", 5_000_000), ("udp", 1_000_000)] {
        for streams in [1usize, 10, 100, 1_000] {
            if options.smoke && streams > 10 {
                continue;
            }
            let case = format!("streams/{media}/{streams}");
            if !bench.wants(&case) {
                continue;
            }
            bench.run(&case, &metrics, |side| {
                let settings = one_way_settings(media, Mode::Shared, TERM_LENGTH, "")?;
                let active = streams.div_ceil(10);
                let messages = options.scaled(messages);
                let plan = ThroughputPlan {
                    streams: active,
                    idle_streams: streams - active,
                    ..ThroughputPlan::of(&settings, Kind::Exclusive, LENGTH, messages / 5, messages)
                };
                let figure = on_side!(side, throughput, &settings, &plan)?;
                Ok(Sample::of(figure.messages_per_second))
            });
        }
    }
    Ok(())
}
