//! What a transport costs when little happens: starting, being idle, waking up, and memory.

use core::time::Duration;
use std::fs;

use fulmar::time::SystemClock;

use super::{FRAGMENT_LIMIT, Idle, Message, PING_STREAM, Patience, connect, wait};
use crate::recorder::Recorder;
use crate::side::{BenchError, Publisher, Settings, Side, Subscriber, Tally};

/// From nothing to a first message received, in nanoseconds: driver, client, publication, subscription.
///
/// # Errors
/// Set-up that fails.
pub fn start_time<S: Side>(settings: &Settings) -> Result<f64, BenchError> {
    let start = SystemClock.nanos();
    let side = S::start(settings)?;
    let mut subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut publisher = side.concurrent(&settings.channel, PING_STREAM)?;
    connect(&side, || publisher.is_connected() && subscriber.is_connected())?;
    let mut tally = Tally::default();
    exchange(&mut publisher, &mut subscriber, &mut tally)?;
    #[expect(clippy::cast_precision_loss, reason = "a duration")]
    let nanos = SystemClock.nanos().since(start) as f64;
    Ok(nanos)
}

/// Publishes one message and waits for it; from before the offer to its arrival, nanoseconds.
fn exchange(
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    tally: &mut Tally,
) -> Result<i64, BenchError> {
    let message = Message::new(32);
    let wanted = tally.messages + 1;
    let mut idle = Idle::default();
    let mut patience = Patience::default();
    let sent = SystemClock.nanos();
    while !publisher.offer(&message) {
        patience.wait_for("no message was accepted")?;
        idle.idle();
    }
    patience.reset();
    while tally.messages < wanted {
        if subscriber.poll(tally, FRAGMENT_LIMIT) == 0 {
            patience.wait_for("no message")?;
            idle.idle();
        }
    }
    Ok(SystemClock.nanos().since(sent))
}

/// Single messages, each after `silence`: how long each takes.
///
/// # Errors
/// Set-up that fails, and messages that do not arrive.
pub fn first_messages<S: Side>(
    settings: &Settings,
    messages: usize,
    silence: Duration,
) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let mut subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut publisher = side.exclusive(&settings.channel, PING_STREAM)?;
    connect(&side, || publisher.is_connected() && subscriber.is_connected())?;
    let mut tally = Tally::default();
    let mut recorder = Recorder::new();
    for _ in 0..messages {
        wait(silence);
        recorder.record(exchange(&mut publisher, &mut subscriber, &mut tally)?);
    }
    Ok(recorder)
}

/// Processor time of this process in ticks of a hundredth of a second.
fn processor_ticks() -> Result<u64, BenchError> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field behind it.
    let fields = text
        .rsplit_once(") ")
        .ok_or("/proc/self/stat is not understood")?
        .1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()?)
}

/// Share of one processor that driver and client take while `streams` streams carry nothing.
///
/// # Errors
/// Set-up that fails.
pub fn idle_share<S: Side>(
    settings: &Settings,
    streams: usize,
    duration: Duration,
) -> Result<f64, BenchError> {
    let side = S::start(settings)?;
    let streams = idle_streams(&side, settings, streams)?;
    // Connection and first turns of timers are over.
    wait(Duration::from_secs(2));
    let before = processor_ticks()?;
    wait(duration);
    let ticks = processor_ticks()? - before;
    drop(streams);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let share = ticks as f64 / 100.0 / duration.as_secs_f64();
    Ok(share)
}

/// Connected streams, each a publication and a subscription.
type Streams<S> = Vec<(<S as Side>::Exclusive, <S as Side>::Subscriber)>;

fn idle_streams<S: Side>(side: &S, settings: &Settings, count: usize) -> Result<Streams<S>, BenchError> {
    let mut streams = Vec::new();
    for stream in (PING_STREAM..).take(count) {
        let subscriber = side.subscriber(&settings.channel, stream)?;
        streams.push((side.exclusive(&settings.channel, stream)?, subscriber));
    }
    for (publisher, subscriber) in &streams {
        connect(side, || publisher.is_connected() && subscriber.is_connected())?;
    }
    Ok(streams)
}

/// Memory that a further stream takes, in bytes, logs included as far as they were touched: by the resident memory of
/// this process, in which driver and client live, and the pages of shared memory.
///
/// # Errors
/// Set-up that fails.
pub fn memory_per_stream<S: Side>(settings: &Settings, streams: usize) -> Result<f64, BenchError> {
    let side = S::start(settings)?;
    let few = idle_streams(&side, settings, 1)?;
    let before = resident_bytes()? + directory_bytes(&settings.dir)?;
    drop(few);
    let many = idle_streams(&side, settings, streams + 1)?;
    let after = resident_bytes()? + directory_bytes(&settings.dir)?;
    drop(many);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = (after as f64 - before as f64) / streams as f64;
    Ok(bytes)
}

/// Private memory of this process.
fn resident_bytes() -> Result<u64, BenchError> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.ok_or("/proc/self/status has no RssAnon")?.parse()?;
    Ok(kib << 10)
}

/// Blocks of all files below a directory, which in shared memory are the pages that were touched.
fn directory_bytes(dir: &str) -> Result<u64, BenchError> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while the directory is read.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() {
            directory_bytes(&entry.path().to_string_lossy())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}
