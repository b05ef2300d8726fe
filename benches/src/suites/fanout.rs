//! One stream to 1, 4 and 16 subscriptions: each behind a destination of its own, or all in one multicast group.
//! Flow control follows the slowest, so that every message arrives everywhere.
#![forbid(unsafe_code)]

use super::{free_ports, own_dir};
use crate::on_side;
use crate::report::Better;
use crate::side::{BenchError, Mode, Settings};
use crate::suite::{Bench, Metric, Options, Sample};
use crate::workload::{Kind, ThroughputPlan};

/// Bytes of payload per message.
const LENGTH: usize = 1024;

/// Subscriptions of the largest case.
const MOST: usize = 16;

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    let metrics = [Metric::new("", "msg/s", Better::Higher)];
    for copies in [1, 4, MOST] {
        for (name, channels) in [
            ("destinations", destinations as fn(usize) -> _),
            ("multicast", multicast),
        ] {
            let case = format!("fanout/{name}/{copies}");
            if !bench.wants(&case) {
                continue;
            }
            bench.run(&case, &metrics, |side| {
                let channels: Channels = channels(copies)?;
                let (settings, plan) = channels.plan(&options, 200_000 / copies as u64);
                let figure = on_side!(side, throughput, &settings, &plan)?;
                Ok(Sample::of(figure))
            });
        }
    }
    Ok(())
}

struct Channels {
    publication: String,
    subscriptions: Vec<String>,
}

impl Channels {
    fn plan(self, options: &Options, messages: u64) -> (Settings, ThroughputPlan) {
        let term_length = options.term_length;
        let channel = format!("{}|term-length={term_length}|fc=min", self.publication);
        let settings = Settings {
            channel: channel.clone(),
            return_channel: channel,
            ..Settings::ipc(own_dir(), Mode::Shared, term_length)
        };
        let warmup = options.scaled((3 * term_length / (LENGTH + 32)) as u64) + 10;
        let plan = ThroughputPlan {
            subscriptions: self.subscriptions,
            ..ThroughputPlan::of(
                &settings,
                Kind::Exclusive,
                LENGTH,
                warmup,
                options.scaled(messages),
            )
        };
        (settings, plan)
    }
}

/// Dynamic destinations: each subscription has an address of its own and makes itself known.
fn destinations(copies: usize) -> Result<Channels, BenchError> {
    let [control, endpoints @ ..] = free_ports::<{ 1 + MOST }>()?;
    let control = format!("control=127.0.0.1:{control}");
    let subscription = |port| format!("aeron:udp?endpoint=127.0.0.1:{port}|{control}|control-mode=dynamic");
    Ok(Channels {
        publication: format!("aeron:udp?{control}|control-mode=dynamic"),
        subscriptions: endpoints.iter().take(copies).map(subscription).collect(),
    })
}

/// Subscriptions of one driver share a socket and an image; what they do not share are positions.
fn multicast(copies: usize) -> Result<Channels, BenchError> {
    let [port] = free_ports()?;
    let channel = format!("aeron:udp?endpoint=224.20.30.39:{port}|interface=127.0.0.1");
    Ok(Channels {
        publication: channel.clone(),
        subscriptions: vec![channel; copies],
    })
}
