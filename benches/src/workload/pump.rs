//! Throughput: one publisher thread, one subscriber thread, and whatever threads the side has.

use core::time::Duration;

use fulmar::sync::{AtomicBool, Ordering};
use fulmar::time::SystemClock;

use super::{
    Apart, FRAGMENT_LIMIT, Idle, Kind, LONGEST_FRAGMENT, Message, PING_STREAM, Patience, RUN, between_hosts,
    connect, poll, wait, write_number,
};
use crate::side::{BenchError, Publisher, Settings, Side, Subscriber, Tally};

/// What is sent, and to whom.
#[derive(Clone, Debug)]
pub struct ThroughputPlan {
    /// How messages are published.
    pub kind: Kind,
    /// Message length in bytes, at least 8.
    pub length: usize,
    /// Messages before the clock starts: enough to touch every page of the log once.
    pub warmup: u64,
    /// Messages that count.
    pub messages: u64,
    /// Streams that take the messages in turn.
    pub streams: usize,
    /// Streams beside them that carry nothing, and whose subscriptions are polled all the same.
    pub idle_streams: usize,
    /// Where the subscriptions of each stream listen; each gets every message.
    pub subscriptions: Vec<String>,
}

impl ThroughputPlan {
    /// One stream to one subscription of the channel of `settings`.
    #[must_use]
    pub fn of(settings: &Settings, kind: Kind, length: usize, warmup: u64, messages: u64) -> ThroughputPlan {
        ThroughputPlan {
            kind,
            length,
            warmup,
            messages,
            streams: 1,
            idle_streams: 0,
            subscriptions: vec![settings.channel.clone()],
        }
    }

    /// Messages per second, if all that count took `nanos`.
    fn figure(&self, nanos: i64) -> f64 {
        let delivered = self.messages * self.subscriptions.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let messages_per_second = delivered as f64 * 1e9 / nanos as f64;
        messages_per_second
    }
}

/// Runs `plan` once: messages received per second, by all subscriptions together, warm-up excluded.
///
/// # Errors
/// Set-up that fails, a stream that stops, and messages that are lost, damaged or come twice.
pub fn throughput<S: Side>(settings: &Settings, plan: &ThroughputPlan) -> Result<f64, BenchError> {
    let side = S::start(settings)?;
    match plan.kind {
        Kind::Concurrent => pump(&side, plan, |stream| side.concurrent(&settings.channel, stream)),
        Kind::Exclusive | Kind::Batch => {
            pump(&side, plan, |stream| side.exclusive(&settings.channel, stream))
        }
        Kind::Claim => pump(&side, plan, |stream| side.claims(&settings.channel, stream)),
    }
}

/// [`throughput`] as between two hosts: the subscriber has a driver of its own. One stream by an exclusive publication.
///
/// # Errors
/// Those of [`throughput`].
pub fn throughput_between_hosts<S: Side>(
    settings: &Settings,
    plan: &ThroughputPlan,
) -> Result<f64, BenchError> {
    let far = |settings, stop: &AtomicBool| receive_host::<S>(&settings, plan, stop);
    let near = |stop: &AtomicBool| publish_host::<S>(settings, plan, stop);
    let ((), nanos) = between_hosts(settings, far, near)?;
    Ok(plan.figure(nanos))
}

/// Publishes everything, and stays until it has been received.
fn publish_host<S: Side>(
    settings: &Settings,
    plan: &ThroughputPlan,
    stop: &AtomicBool,
) -> Result<(), BenchError> {
    let side = S::start(settings)?;
    let publisher = side.exclusive(&settings.channel, PING_STREAM)?;
    let ended = || stop.load(Ordering::Relaxed);
    connect(&side, || publisher.is_connected() || ended())?;
    publish_all(&mut [publisher], plan.length, plan.warmup + plan.messages, stop);
    while !ended() {
        wait(Duration::from_millis(1));
    }
    Ok(())
}

fn receive_host<S: Side>(
    settings: &Settings,
    plan: &ThroughputPlan,
    stop: &AtomicBool,
) -> Result<i64, BenchError> {
    let side = S::start(settings)?;
    let subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    let ended = || stop.load(Ordering::Relaxed);
    connect(&side, || subscriber.is_connected() || ended())?;
    if ended() {
        return Err("the publisher has ended".into());
    }
    let mut tally = Tally::default();
    let nanos = receive_all(&mut [subscriber], plan, &mut tally)?;
    check(&tally, plan.warmup + plan.messages, 1)?;
    Ok(nanos)
}

fn pump<S: Side, P: Publisher>(
    side: &S,
    plan: &ThroughputPlan,
    publisher: impl Fn(i32) -> Result<P, BenchError>,
) -> Result<f64, BenchError> {
    let mut publishers = Vec::new();
    let mut idle = Vec::new();
    let mut subscribers = Vec::new();
    for (index, stream) in (PING_STREAM..).take(plan.streams + plan.idle_streams).enumerate() {
        for channel in &plan.subscriptions {
            subscribers.push(side.subscriber(channel, stream)?);
        }
        let made = publisher(stream)?;
        if index < plan.streams {
            publishers.push(made);
        } else {
            idle.push(made);
        }
    }
    for publisher in publishers.iter().chain(&idle) {
        connect(side, || publisher.is_connected())?;
    }
    for subscriber in &subscribers {
        connect(side, || subscriber.is_connected())?;
    }
    let total = plan.warmup + plan.messages;
    let mut tally = Tally::default();
    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    let nanos = std::thread::scope(|scope| {
        scope.spawn(|| match (plan.kind, &mut publishers[..]) {
            (Kind::Batch, [publisher]) => publish_runs(publisher, plan.length, total, stop),
            (_, publishers) => publish_all(publishers, plan.length, total, stop),
        });
        let received = receive_all(&mut subscribers, plan, &mut tally);
        stop.store(true, Ordering::Relaxed);
        received
    })?;
    check(&tally, total, plan.subscriptions.len() as u64)?;
    Ok(plan.figure(nanos))
}

fn publish_all<P: Publisher>(publishers: &mut [P], length: usize, total: u64, stop: &AtomicBool) {
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut idle = Idle::default();
    let mut number = 0;
    while number < total {
        for publisher in &mut *publishers {
            if number == total {
                return;
            }
            write_number(message, number);
            number += 1;
            while !publisher.offer(message) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                idle.idle();
            }
            idle.reset();
        }
    }
}

fn publish_runs(publisher: &mut impl Publisher, length: usize, total: u64, stop: &AtomicBool) {
    let mut run = Message::new(length * RUN);
    let run: &mut [u8] = &mut run;
    let mut idle = Idle::default();
    let mut number = 0;
    while number < total {
        let count = (total - number).min(RUN as u64) as usize;
        for (message, number) in run.chunks_mut(length).zip(number..) {
            write_number(message, number);
        }
        number += count as u64;
        let mut rest = &run[..count * length];
        while !rest.is_empty() {
            let accepted = publisher.offer_run(rest, length);
            rest = &rest[accepted * length..];
            if accepted > 0 {
                idle.reset();
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            idle.idle();
        }
    }
}

fn receive_all<R: Subscriber>(
    subscribers: &mut [R],
    plan: &ThroughputPlan,
    tally: &mut Tally,
) -> Result<i64, BenchError> {
    let copies = subscribers.len() as u64 / (plan.streams + plan.idle_streams) as u64;
    let (warmup, messages) = (plan.warmup * copies, plan.messages * copies);
    let is_assembled = plan.length > LONGEST_FRAGMENT;
    let mut idle = Idle::default();
    let mut patience = Patience::default();
    let mut start = SystemClock.nanos();
    let mut started_at = 0;
    while tally.messages < warmup + messages {
        let mut fragments = 0;
        for subscriber in &mut *subscribers {
            fragments += poll(subscriber, tally, FRAGMENT_LIMIT, is_assembled);
        }
        if fragments == 0 {
            idle.idle();
            patience.wait_for("the stream stopped: no fragment")?;
        } else {
            idle.reset();
            patience.reset();
            if started_at == 0 && tally.messages >= warmup {
                // A poll may overshoot the end of the warm-up; what it took too much is subtracted below.
                started_at = tally.messages;
                start = SystemClock.nanos();
            }
        }
    }
    let nanos = SystemClock.nanos().since(start);
    let counted = (warmup + messages).saturating_sub(started_at).max(1);
    // Scaled to the whole plan, so that the caller divides by the planned number.
    Ok(i64::try_from(
        i128::from(nanos) * i128::from(messages) / i128::from(counted),
    )?)
}

fn check(tally: &Tally, total: u64, copies: u64) -> Result<(), BenchError> {
    let expected = (0..total).fold(0u64, u64::wrapping_add).wrapping_mul(copies);
    if tally.messages == total * copies && tally.checksum == expected {
        Ok(())
    } else {
        Err(format!(
            "received {} of {} messages, or damaged ones",
            tally.messages,
            total * copies
        )
        .into())
    }
}
