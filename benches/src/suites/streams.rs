//! 1, 10, 100 and 1,000 streams of which one in ten carries messages, in turn: the total of all.
#![forbid(unsafe_code)]

use super::one_way_settings;
use crate::on_side;
use crate::report::{Better, Goal, Report};
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, FULMAR, Metric, Sample};
use crate::workload::{Kind, ThroughputPlan};

/// Small logs: a thousand of them have to fit.
const TERM_LENGTH: usize = 128 << 10;
/// Bytes of payload per message.
const LENGTH: usize = 32;

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    for (media, messages) in [("ipc", 5_000_000), ("udp", 1_000_000)] {
        for streams in [1usize, 10, 100, 1_000] {
            if options.smoke && streams > 10 {
                continue;
            }
            let case = format!("streams/{media}/{streams}");
            if !bench.wants(&case) {
                continue;
            }
            let metric = Metric::new("", "msg/s", Better::Higher);
            let metric = match single_stream(&bench.report, media) {
                Some(figure) if streams == 1_000 => metric.bound(Goal::AtLeast(figure / 2.0)),
                _ => metric,
            };
            bench.run(&case, &[metric], |side| {
                let settings = one_way_settings(media, Mode::Shared, TERM_LENGTH, "")?;
                let active = streams.div_ceil(10);
                let messages = options.scaled(messages);
                let plan = ThroughputPlan {
                    streams: active,
                    idle_streams: streams - active,
                    ..ThroughputPlan::of(&settings, Kind::Exclusive, LENGTH, messages / 5, messages)
                };
                let figure = on_side!(side, throughput, &settings, &plan)?;
                Ok(Sample::of(figure))
            });
        }
    }
    Ok(())
}

/// What ours made of one stream in this run; a thousand are measured by it.
fn single_stream(report: &Report, media: &str) -> Option<f64> {
    let name = format!("streams/{media}/1");
    let row = report.rows.iter().find(|row| row.name == name)?;
    Some(row.median(FULMAR)).filter(|figure| figure.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;
    use crate::suite::Options;

    #[test]
    fn the_single_stream_is_that_of_the_same_media() {
        let mut report = Report::new(&Options::default());
        for (name, samples) in [
            ("streams/ipc/1", vec![4.0, 8.0, 6.0]),
            ("streams/udp/10", vec![3.0]),
            ("streams/udp/1", Vec::new()),
        ] {
            let metric = Metric::new("", "msg/s", Better::Higher);
            let mut row = Row::new(name, &metric, &[FULMAR], 3);
            row.sides[0].1 = samples;
            report.rows.push(row);
        }
        assert_eq!(single_stream(&report, "ipc"), Some(6.0));
        assert_eq!(single_stream(&report, "udp"), None);
    }
}
