//! The cost of a message in one thread: times, and loops whose instructions and system calls are counted from outside.

use fulmar::sync::spin_loop;
use fulmar::time::SystemClock;

use super::{BATCH, FRAGMENT_LIMIT, Kind, Message, PING_STREAM, connect, write_number};
use crate::recorder::Recorder;
use crate::side::{BenchError, Publisher, Settings, Side, Subscriber, Tally};

/// Nanoseconds per message of [`measured_batch`] in one thread: publish plus poll without a second processor. Times
/// are taken over many batches, in hundredths of a nanosecond; neighbours on the machine show in the high samples, not in the low.
pub fn one_thread<S: Side>(settings: &Settings, kind: Kind, length: usize) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let subscriber = &mut side.subscriber(&settings.channel, PING_STREAM)?;
    let channel = &settings.channel;
    match kind {
        Kind::Concurrent => timed_batches(
            &side,
            &mut side.concurrent(channel, PING_STREAM)?,
            subscriber,
            length,
        ),
        Kind::Exclusive | Kind::Batch => timed_batches(
            &side,
            &mut side.exclusive(channel, PING_STREAM)?,
            subscriber,
            length,
        ),
        Kind::Claim => timed_batches(&side, &mut side.claims(channel, PING_STREAM)?, subscriber, length),
    }
}

fn timed_batches<S: Side>(
    side: &S,
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    length: usize,
) -> Result<Recorder, BenchError> {
    const SAMPLES: usize = 2_000;
    const BATCHES_PER_SAMPLE: usize = 64;
    connect(side, || publisher.is_connected() && subscriber.is_connected())?;
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    let mut recorder = Recorder::new();
    for sample in 0..2 * SAMPLES {
        side.duty_cycle();
        let start = SystemClock.nanos();
        for _ in 0..BATCHES_PER_SAMPLE {
            measured_batch(publisher, subscriber, message, &mut tally);
        }
        let nanos = SystemClock.nanos().since(start);
        if sample >= SAMPLES {
            // In hundredths, so that three digits of a small number survive.
            recorder.record(nanos * 100 / (BATCHES_PER_SAMPLE * BATCH) as i64);
        }
    }
    let expected = (2 * SAMPLES * BATCHES_PER_SAMPLE * BATCH) as u64;
    if tally.messages == expected {
        Ok(recorder)
    } else {
        Err("messages were lost".into())
    }
}

/// The single-threaded loop whose instructions and system calls are counted from outside: `batches` times
/// [`measured_batch`], with the duty cycle of driver and client between, outside the measured function.
pub fn counted<S: Side>(
    settings: &Settings,
    kind: Kind,
    length: usize,
    batches: u64,
) -> Result<u64, BenchError> {
    let side = S::start(settings)?;
    let subscriber = &mut side.subscriber(&settings.channel, PING_STREAM)?;
    let channel = &settings.channel;
    let (side, stream) = (&side, PING_STREAM);
    match kind {
        Kind::Concurrent => counted_batches(
            side,
            &mut side.concurrent(channel, stream)?,
            subscriber,
            length,
            batches,
        ),
        Kind::Exclusive | Kind::Batch => counted_batches(
            side,
            &mut side.exclusive(channel, stream)?,
            subscriber,
            length,
            batches,
        ),
        Kind::Claim => counted_batches(
            side,
            &mut side.claims(channel, stream)?,
            subscriber,
            length,
            batches,
        ),
    }
}

fn counted_batches<S: Side>(
    side: &S,
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    length: usize,
    batches: u64,
) -> Result<u64, BenchError> {
    connect(side, || publisher.is_connected() && subscriber.is_connected())?;
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    for batch in 0..batches {
        if batch.is_multiple_of(64) {
            side.duty_cycle();
        }
        measured_batch(publisher, subscriber, message, &mut tally);
    }
    let expected = batches * BATCH as u64;
    if tally.messages == expected {
        Ok(tally.messages)
    } else {
        Err(format!("received {} of {expected} messages", tally.messages).into())
    }
}

/// Offers [`BATCH`] messages and polls them back. Never inlined: counting tools find it by name.
#[inline(never)]
pub fn measured_batch<P: Publisher, S: Subscriber>(
    publisher: &mut P,
    subscriber: &mut S,
    message: &mut [u8],
    tally: &mut Tally,
) {
    for number in 0..BATCH {
        write_number(message, number as u64);
        while !publisher.offer(message) {
            spin_loop();
        }
    }
    let wanted = tally.messages + BATCH as u64;
    while tally.messages < wanted {
        subscriber.poll(tally, FRAGMENT_LIMIT);
    }
}

/// Bytes offered between two cycles of the driver.
const BURST_LENGTH: usize = 64 << 10;

/// Sends `messages` over the network to a subscription of the same driver, all in this thread: the system calls that
/// this takes are counted from outside.
///
/// # Errors
/// Set-up that fails, and messages that are lost.
pub fn counted_datagrams<S: Side>(
    settings: &Settings,
    length: usize,
    messages: u64,
) -> Result<u64, BenchError> {
    let side = S::start(settings)?;
    let mut subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut publisher = side.exclusive(&settings.channel, PING_STREAM)?;
    connect(&side, || publisher.is_connected() && subscriber.is_connected())?;
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    let mut sent = 0;
    let mut cycles = 0u64;
    while tally.messages < messages {
        let mut burst = 0;
        while sent < messages && burst < BURST_LENGTH {
            write_number(message, sent);
            if !publisher.offer(message) {
                break;
            }
            sent += 1;
            burst += length;
        }
        if cycles.is_multiple_of(1024) {
            side.duty_cycle();
        } else {
            side.drive();
        }
        cycles += 1;
        while subscriber.poll(&mut tally, FRAGMENT_LIMIT) > 0 {}
        if cycles > 1_000_000 + messages {
            return Err(format!("received {} of {messages} messages", tally.messages).into());
        }
    }
    Ok(tally.messages)
}
