//! What a transport costs when little happens, with default settings.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::one_way_settings;
use crate::on_side;
use crate::report::{Better, Goal};
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, Metric, Sample};

/// Term length of cases with many streams.
const SMALL_TERM_LENGTH: usize = 128 << 10;

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    let channel = |media, term_length| one_way_settings(media, Mode::Defaults, term_length, "");
    for media in ["ipc", "udp"] {
        let metrics = [Metric::new("", "ns", Better::Lower)];
        bench.run(&format!("system/start/{media}"), &metrics, |side| {
            on_side!(side, start_time, &channel(media, options.term_length)?).map(Sample::of)
        });
        let metrics = ["p50", "max"].map(|name| Metric::new(name, "ns", Better::Lower));
        let (messages, silence) = if options.smoke {
            (3, Duration::from_millis(50))
        } else {
            (20, Duration::from_millis(300))
        };
        bench.run(
            &format!("system/first message after silence/{media}"),
            &metrics,
            |side| {
                let settings = channel(media, options.term_length)?;
                let recorder = on_side!(side, first_messages, &settings, messages, silence)?;
                Ok(Sample::quantiles(recorder, &[0.5, 1.0]))
            },
        );
        let count = if options.smoke { 5 } else { 100 };
        let metrics = [Metric::new("", "bytes", Better::Lower)];
        bench.run(
            &format!("system/memory per stream/{media}/128k terms"),
            &metrics,
            |side| {
                let settings = channel(media, SMALL_TERM_LENGTH)?;
                on_side!(side, memory_per_stream, &settings, count).map(Sample::of)
            },
        );
        for (streams, most) in [(0, 0.01), (20, 0.01), (1_000, 0.02)] {
            // Each of them first waits for the silence that it measures.
            if options.smoke && (media, streams) != ("udp", 20) {
                continue;
            }
            let metrics = [Metric::new("", "of a processor", Better::Lower).bound(Goal::AtMost(most))];
            let duration = Duration::from_millis(if options.smoke { 200 } else { 10_000 });
            bench.run(
                &format!("system/idle/{media}/{streams} streams"),
                &metrics,
                |side| {
                    let settings = channel(media, SMALL_TERM_LENGTH)?;
                    on_side!(side, idle_share, &settings, streams, duration).map(Sample::of)
                },
            );
        }
    }
    Ok(())
}
