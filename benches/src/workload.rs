//! The workloads, each written once for every [`Side`].
//!
//! A run checks what it received: a lost, repeated or changed message fails the run instead of improving its figure.

use core::ops::{Deref, DerefMut};
use core::time::Duration;

use fulmar::sync::{AtomicBool, Ordering, spin_loop};
use fulmar::time::SystemClock;

use crate::recorder::Recorder;
use crate::schedule::Schedule;
use crate::side::{BenchError, Mode, Publisher, Settings, Side, Subscriber, Tally};

const PING_STREAM: i32 = 1001;
const PONG_STREAM: i32 = 1002;
/// Fragments per poll, as in the reference's own samples.
const FRAGMENT_LIMIT: usize = 256;
/// Messages offered, then polled, by one call of [`measured_batch`].
pub const BATCH: usize = 16;

/// Which publication is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shared tail.
    Concurrent,
    /// Own tail.
    Exclusive,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Kind; 2] = [Kind::Concurrent, Kind::Exclusive];

    /// Name in tables and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Concurrent => "concurrent",
            Kind::Exclusive => "exclusive",
        }
    }
}

/// Blocks the calling thread; set-up only.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark has no idle strategy to borrow while it sets up"
)]
pub fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

/// Idling of the measuring threads: the same on every side. Spins first, then gives the processor away, since there
/// may be more threads than processors.
struct Idle {
    spins: u32,
    longest: u32,
}

impl Default for Idle {
    fn default() -> Self {
        Self::waiting(true)
    }
}

impl Idle {
    const SPINS: u32 = 200;

    /// Without `yields` it only spins: for threads that have a processor each.
    fn waiting(yields: bool) -> Self {
        Self {
            spins: 0,
            longest: if yields { Self::SPINS } else { u32::MAX },
        }
    }

    #[inline]
    fn reset(&mut self) {
        self.spins = 0;
    }

    #[inline]
    fn idle(&mut self) {
        if self.spins < self.longest {
            self.spins += 1;
            spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// The bytes of a message from the start of a cache line on, the same on every side whatever the allocator does.
struct Message {
    space: Vec<u8>,
    start: usize,
    length: usize,
}

impl Message {
    const LINE: usize = 64;

    /// Zeroes, at least 8 of them.
    fn new(length: usize) -> Message {
        let length = length.max(8);
        let space = vec![0u8; length + Self::LINE];
        let start = space.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        Message { space, start, length }
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.space[self.start..self.start + self.length]
    }
}

impl DerefMut for Message {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.space[self.start..self.start + self.length]
    }
}

/// Shares no cache line with what a measuring thread writes.
#[repr(align(128))]
struct Apart<T>(T);

fn connect<S: Side>(
    side: &S,
    publisher: &impl Publisher,
    subscriber: &impl Subscriber,
) -> Result<(), BenchError> {
    let deadline = SystemClock.nanos() + Duration::from_secs(10);
    while !(publisher.is_connected() && subscriber.is_connected()) {
        if deadline.is_due(SystemClock.nanos()) {
            return Err(format!("{}: not connected within 10 s", S::NAME).into());
        }
        side.duty_cycle();
        std::thread::yield_now();
    }
    Ok(())
}

/// What one throughput run found.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Messages received per second, warm-up excluded.
    pub messages_per_second: f64,
}

/// One publisher thread, one subscriber thread, and whatever threads the side has.
#[derive(Clone, Debug)]
pub struct ThroughputPlan {
    /// Concurrent or exclusive.
    pub kind: Kind,
    /// Message length in bytes, at least 8.
    pub length: usize,
    /// Messages before the clock starts: enough to touch every page of the log once.
    pub warmup: u64,
    /// Messages that count.
    pub messages: u64,
}

/// Runs `plan` once.
pub fn throughput<S: Side>(settings: &Settings, plan: &ThroughputPlan) -> Result<Throughput, BenchError> {
    let side = S::start(settings)?;
    let subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    match plan.kind {
        Kind::Concurrent => pump(
            &side,
            side.concurrent(&settings.channel, PING_STREAM)?,
            subscriber,
            plan,
        ),
        Kind::Exclusive => pump(
            &side,
            side.exclusive(&settings.channel, PING_STREAM)?,
            subscriber,
            plan,
        ),
    }
}

fn pump<S: Side>(
    side: &S,
    mut publisher: impl Publisher,
    mut subscriber: impl Subscriber,
    plan: &ThroughputPlan,
) -> Result<Throughput, BenchError> {
    connect(side, &publisher, &subscriber)?;
    let total = plan.warmup + plan.messages;
    let mut tally = Tally::default();
    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    let nanos = std::thread::scope(|scope| {
        scope.spawn(|| {
            publish_all(&mut publisher, plan.length, total, stop);
        });
        let received = receive_all(&mut subscriber, plan, &mut tally);
        stop.store(true, Ordering::Relaxed);
        received
    })?;
    check(&tally, total)?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let messages_per_second = plan.messages as f64 * 1e9 / nanos as f64;
    Ok(Throughput { messages_per_second })
}

fn publish_all(publisher: &mut impl Publisher, length: usize, total: u64, stop: &AtomicBool) {
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut idle = Idle::default();
    for number in 0..total {
        write_number(message, number);
        while !publisher.offer(message) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            idle.idle();
        }
        idle.reset();
    }
}

fn receive_all(
    subscriber: &mut impl Subscriber,
    plan: &ThroughputPlan,
    tally: &mut Tally,
) -> Result<i64, BenchError> {
    let mut idle = Idle::default();
    let mut polls_without = 0u64;
    let mut start = SystemClock.nanos();
    let mut started_at = 0;
    while tally.messages < plan.warmup + plan.messages {
        if subscriber.poll(tally, FRAGMENT_LIMIT) == 0 {
            idle.idle();
            polls_without += 1;
            if polls_without > 200_000_000 {
                return Err("the stream stopped".into());
            }
        } else {
            idle.reset();
            polls_without = 0;
            if started_at == 0 && tally.messages >= plan.warmup {
                // A poll may overshoot the end of the warm-up; what it took too much is subtracted below.
                started_at = tally.messages;
                start = SystemClock.nanos();
            }
        }
    }
    let nanos = SystemClock.nanos().since(start);
    let counted = (plan.warmup + plan.messages).saturating_sub(started_at).max(1);
    // Scaled to the whole plan, so that the caller divides by the planned number.
    Ok(i64::try_from(
        i128::from(nanos) * i128::from(plan.messages) / i128::from(counted),
    )?)
}

fn check(tally: &Tally, total: u64) -> Result<(), BenchError> {
    let expected = (0..total).fold(0u64, u64::wrapping_add);
    if tally.messages == total && tally.checksum == expected {
        Ok(())
    } else {
        Err(format!("received {} of {total} messages, or damaged ones", tally.messages).into())
    }
}

fn write_number(message: &mut [u8], number: u64) {
    if let Some(word) = message.first_chunk_mut::<8>() {
        *word = number.to_le_bytes();
    }
}

/// Round trips between two threads.
#[derive(Clone, Copy, Debug)]
pub struct RoundTripPlan {
    /// Message length in bytes, at least 8.
    pub length: usize,
    /// Round trips before recording starts.
    pub warmup: u64,
    /// Round trips that count.
    pub messages: u64,
    /// Fixed send schedule; `None`: the next ping leaves when the last came back.
    pub per_second: Option<u32>,
}

/// Pings from this thread, which also runs driver and client; another thread echoes. Exclusive publications.
pub fn round_trip<S: Side>(settings: &Settings, plan: &RoundTripPlan) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let mut ping_in = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut pong_in = side.subscriber(&settings.return_channel, PONG_STREAM)?;
    let mut ping_out = side.exclusive(&settings.channel, PING_STREAM)?;
    let mut pong_out = side.exclusive(&settings.return_channel, PONG_STREAM)?;
    connect(&side, &ping_out, &ping_in)?;
    connect(&side, &pong_out, &pong_in)?;

    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    let yields = settings.mode == Mode::Shared;
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&mut ping_in, &mut pong_out, plan.length, yields, stop));
        let result = ping(&side, &mut ping_out, &mut pong_in, yields, plan);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn echo(
    subscriber: &mut impl Subscriber,
    publisher: &mut impl Publisher,
    length: usize,
    yields: bool,
    stop: &AtomicBool,
) {
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    let mut idle = Idle::waiting(yields);
    while !stop.load(Ordering::Relaxed) {
        if subscriber.poll(&mut tally, 1) > 0 {
            write_number(message, tally.last);
            while !publisher.offer(message) && !stop.load(Ordering::Relaxed) {
                idle.idle();
            }
            idle.reset();
        } else {
            idle.idle();
        }
    }
}

fn ping<S: Side>(
    side: &S,
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    yields: bool,
    plan: &RoundTripPlan,
) -> Result<Recorder, BenchError> {
    let mut idle = Idle::waiting(yields);
    let mut recorder = Recorder::new();
    let mut message = Message::new(plan.length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    let schedule = plan
        .per_second
        .map(|rate| Schedule::new(SystemClock.nanos(), rate));
    let total = plan.warmup + plan.messages;
    for number in 0..total {
        let sent = match schedule {
            None => {
                // Between two timed round trips, so that the driver's work is nobody's latency.
                if number.is_multiple_of(16) {
                    side.duty_cycle();
                }
                SystemClock.nanos()
            }
            Some(schedule) => {
                let intended = schedule.intended(number);
                loop {
                    side.duty_cycle();
                    if intended.is_due(SystemClock.nanos()) {
                        break intended;
                    }
                }
            }
        };
        write_number(message, number);
        while !publisher.offer(message) {
            side.duty_cycle();
        }
        let wanted = tally.messages + 1;
        let mut polls = 0u64;
        while tally.messages < wanted {
            if subscriber.poll(&mut tally, 1) == 0 {
                idle.idle();
                polls += 1;
                if polls > 2_000_000_000 {
                    return Err("no echo".into());
                }
            }
        }
        let received = SystemClock.nanos();
        idle.reset();
        if tally.last != number {
            return Err(format!("echo {} instead of {number}", tally.last).into());
        }
        if number >= plan.warmup {
            recorder.record(received.since(sent));
        }
    }
    Ok(recorder)
}

/// Nanoseconds per message of [`measured_batch`] in one thread: publish plus poll without a second processor. Times
/// are taken over many batches, in hundredths of a nanosecond; neighbours on the machine show in the high samples, not in the low.
pub fn one_thread<S: Side>(settings: &Settings, kind: Kind, length: usize) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let mut subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    match kind {
        Kind::Concurrent => timed_batches(
            &side,
            &mut side.concurrent(&settings.channel, PING_STREAM)?,
            &mut subscriber,
            length,
        ),
        Kind::Exclusive => timed_batches(
            &side,
            &mut side.exclusive(&settings.channel, PING_STREAM)?,
            &mut subscriber,
            length,
        ),
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
    connect(side, publisher, subscriber)?;
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
    let mut subscriber = side.subscriber(&settings.channel, PING_STREAM)?;
    let sum = match kind {
        Kind::Concurrent => counted_batches(
            &side,
            &mut side.concurrent(&settings.channel, PING_STREAM)?,
            &mut subscriber,
            length,
            batches,
        ),
        Kind::Exclusive => counted_batches(
            &side,
            &mut side.exclusive(&settings.channel, PING_STREAM)?,
            &mut subscriber,
            length,
            batches,
        ),
    }?;
    Ok(sum)
}

fn counted_batches<S: Side>(
    side: &S,
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    length: usize,
    batches: u64,
) -> Result<u64, BenchError> {
    connect(side, publisher, subscriber)?;
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
