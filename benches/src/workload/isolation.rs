//! Fast subscribers beside one that stalls.

use core::time::Duration;

use fulmar::sync::{AtomicBool, Ordering};
use fulmar::time::{NanoTime, SystemClock};

use super::{Apart, FRAGMENT_LIMIT, Idle, Message, PING_STREAM, connect, write_number};
use crate::side::{BenchError, Publisher, Settings, Side, Subscriber, Tally};

/// Who subscribes, and for how long their rate is taken.
#[derive(Clone, Copy, Debug)]
pub struct IsolationPlan {
    /// Message length in bytes, at least 8.
    pub length: usize,
    /// Subscriptions that are polled without a pause.
    pub fast: usize,
    /// From the stall on, so long is not measured: by then the driver has let the stalled subscriber go.
    pub settle: Duration,
    /// How long each of the two rates is taken for.
    pub measured: Duration,
}

/// The rate of the fast subscribers beside a stalled one, as a share of their rate when all are polled.
///
/// # Errors
/// Set-up that fails, and fast subscribers that get nothing.
pub fn isolation<S: Side>(settings: &Settings, plan: &IsolationPlan) -> Result<f64, BenchError> {
    let side = S::start(settings)?;
    let mut fast = Vec::new();
    for _ in 0..plan.fast {
        fast.push(side.subscriber(&settings.channel, PING_STREAM)?);
    }
    // The rate before has as many subscribers to serve as the rate beside the stalled one: the fast ones alone.
    let mut publisher = side.exclusive(&settings.channel, PING_STREAM)?;
    connect(&side, || publisher.is_connected())?;
    for subscriber in &fast {
        connect(&side, || subscriber.is_connected())?;
    }
    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    std::thread::scope(|scope| {
        scope.spawn(|| publish_until(&mut publisher, plan.length, stop));
        let mut measure = || {
            receive_for(&mut fast, plan.settle);
            let alone = receive_for(&mut fast, plan.measured);
            let stalled = side.subscriber(&settings.channel, PING_STREAM)?;
            // It joins where the stream is, and is never polled.
            let joined = SystemClock.nanos() + Duration::from_secs(5);
            while !stalled.is_connected() {
                receive_for(&mut fast, Duration::from_millis(1));
                if joined.is_due(SystemClock.nanos()) {
                    return Err(BenchError::from("the stalled subscriber got no image"));
                }
            }
            receive_for(&mut fast, plan.settle);
            let beside = receive_for(&mut fast, plan.measured);
            if alone == 0 {
                return Err("the fast subscribers got nothing".into());
            }
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let share = beside as f64 / alone as f64;
            Ok(share)
        };
        let result = measure();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn publish_until(publisher: &mut impl Publisher, length: usize, stop: &AtomicBool) {
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut idle = Idle::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        write_number(message, number);
        if publisher.offer(message) {
            number += 1;
            idle.reset();
        } else {
            idle.idle();
        }
    }
}

/// Polls for so long and returns the number of messages that all subscribers got.
fn receive_for<R: Subscriber>(subscribers: &mut [R], duration: Duration) -> u64 {
    let mut tally = Tally::default();
    let mut idle = Idle::default();
    let end: NanoTime = SystemClock.nanos() + duration;
    while !end.is_due(SystemClock.nanos()) {
        let mut fragments = 0;
        for subscriber in &mut *subscribers {
            fragments += subscriber.poll(&mut tally, FRAGMENT_LIMIT);
        }
        if fragments == 0 {
            idle.idle();
        } else {
            idle.reset();
        }
    }
    tally.messages
}
