//! Round trips: a thread that pings, a thread that echoes.

use fulmar::sync::{AtomicBool, Ordering};
use fulmar::time::SystemClock;

use super::{Apart, Idle, Message, PING_STREAM, PONG_STREAM, Patience, between_hosts, connect, write_number};
use crate::recorder::Recorder;
use crate::schedule::Schedule;
use crate::side::{BenchError, Mode, Publisher, Settings, Side, Subscriber, Tally};

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
    pub per_second: Option<u64>,
}

/// What a thread does while it waits, beside idling.
trait Meanwhile {
    /// Before ping `number`, outside of what is timed.
    fn between(&mut self, number: u64);
    /// In each turn of a loop that waits for a message.
    fn waiting(&mut self);
}

/// The driver has threads, or is worked between round trips, so that its work is nobody's latency: messages through
/// shared memory do not pass it.
struct Between<'a, S>(&'a S);

impl<S: Side> Meanwhile for Between<'_, S> {
    #[inline]
    fn between(&mut self, number: u64) {
        if number.is_multiple_of(16) {
            self.0.duty_cycle();
        }
    }

    #[inline(always)]
    fn waiting(&mut self) {}
}

/// The thread works its own driver in each turn, and its client now and then.
struct Driving<'a, S> {
    side: &'a S,
    turns: u32,
}

impl<S: Side> Meanwhile for Driving<'_, S> {
    #[inline]
    fn between(&mut self, _number: u64) {}

    #[inline]
    fn waiting(&mut self) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(1024) {
            self.side.duty_cycle();
        } else {
            self.side.drive();
        }
    }
}

/// Pings from this thread, which also runs driver and client if nobody else does; another thread echoes. Exclusive
/// publications, one driver for both.
///
/// # Errors
/// Set-up that fails, and echoes that are missing or wrong.
pub fn round_trip<S: Side>(settings: &Settings, plan: &RoundTripPlan) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let mut ping_in = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut pong_in = side.subscriber(&settings.return_channel, PONG_STREAM)?;
    let mut ping_out = side.exclusive(&settings.channel, PING_STREAM)?;
    let mut pong_out = side.exclusive(&settings.return_channel, PONG_STREAM)?;
    connect(&side, || ping_out.is_connected() && ping_in.is_connected())?;
    connect(&side, || pong_out.is_connected() && pong_in.is_connected())?;

    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    // Driver threads need a processor now and then.
    let idle = || Idle::waiting(settings.mode != Mode::Invoker);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            echo(
                &mut ping_in,
                &mut pong_out,
                plan.length,
                idle(),
                &mut Nothing,
                stop,
            )
        });
        let result = ping(&mut ping_out, &mut pong_in, idle(), &mut Between(&side), plan);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// The thread is its own echo.
struct Echoing<R, P> {
    subscriber: R,
    publisher: P,
    message: Message,
    tally: Tally,
    /// Echoes that were not accepted yet.
    owed: usize,
}

impl<R: Subscriber, P: Publisher> Meanwhile for Echoing<R, P> {
    #[inline]
    fn between(&mut self, _number: u64) {}

    #[inline]
    fn waiting(&mut self) {
        self.owed += self.subscriber.poll(&mut self.tally, 1);
        if self.owed > 0 {
            write_number(&mut self.message, self.tally.last);
            self.owed -= usize::from(self.publisher.offer(&self.message));
        }
    }
}

/// Both ends in one thread, so that the driver's threads have a processor of their own on a machine with two.
///
/// # Errors
/// Set-up that fails, and echoes that are missing or wrong.
pub fn round_trip_in_one_thread<S: Side>(
    settings: &Settings,
    plan: &RoundTripPlan,
) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let ping_in = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut pong_in = side.subscriber(&settings.return_channel, PONG_STREAM)?;
    let mut ping_out = side.exclusive(&settings.channel, PING_STREAM)?;
    let pong_out = side.exclusive(&settings.return_channel, PONG_STREAM)?;
    connect(&side, || ping_out.is_connected() && ping_in.is_connected())?;
    connect(&side, || pong_out.is_connected() && pong_in.is_connected())?;
    let mut meanwhile = Echoing {
        subscriber: ping_in,
        publisher: pong_out,
        message: Message::new(plan.length),
        tally: Tally::default(),
        owed: 0,
    };
    ping(
        &mut ping_out,
        &mut pong_in,
        Idle::waiting(true),
        &mut meanwhile,
        plan,
    )
}

/// The driver has threads of its own.
struct Nothing;

impl Meanwhile for Nothing {
    #[inline(always)]
    fn between(&mut self, _number: u64) {}

    #[inline(always)]
    fn waiting(&mut self) {}
}

/// As two hosts: each of the two threads has a driver of its own, which it works itself.
///
/// # Errors
/// Set-up that fails, and echoes that are missing or wrong.
pub fn round_trip_between_hosts<S: Side>(
    settings: &Settings,
    plan: &RoundTripPlan,
) -> Result<Recorder, BenchError> {
    let far = |settings, stop: &AtomicBool| echo_host::<S>(&settings, plan.length, stop);
    let near = |stop: &AtomicBool| ping_host::<S>(settings, plan, stop);
    let (times, ()) = between_hosts(settings, far, near)?;
    Ok(times)
}

fn ping_host<S: Side>(
    settings: &Settings,
    plan: &RoundTripPlan,
    stop: &AtomicBool,
) -> Result<Recorder, BenchError> {
    let side = S::start(settings)?;
    let mut pong_in = side.subscriber(&settings.return_channel, PONG_STREAM)?;
    let mut ping_out = side.exclusive(&settings.channel, PING_STREAM)?;
    let ended = || stop.load(Ordering::Relaxed);
    connect(&side, || {
        (ping_out.is_connected() && pong_in.is_connected()) || ended()
    })?;
    let mut meanwhile = Driving {
        side: &side,
        turns: 0,
    };
    ping(
        &mut ping_out,
        &mut pong_in,
        Idle::waiting(false),
        &mut meanwhile,
        plan,
    )
}

fn echo_host<S: Side>(settings: &Settings, length: usize, stop: &AtomicBool) -> Result<(), BenchError> {
    let side = S::start(settings)?;
    let mut ping_in = side.subscriber(&settings.channel, PING_STREAM)?;
    let mut pong_out = side.exclusive(&settings.return_channel, PONG_STREAM)?;
    let ended = || stop.load(Ordering::Relaxed);
    connect(&side, || {
        (ping_in.is_connected() && pong_out.is_connected()) || ended()
    })?;
    let mut meanwhile = Driving {
        side: &side,
        turns: 0,
    };
    let idle = Idle::waiting(false);
    echo(&mut ping_in, &mut pong_out, length, idle, &mut meanwhile, stop);
    Ok(())
}

fn echo(
    subscriber: &mut impl Subscriber,
    publisher: &mut impl Publisher,
    length: usize,
    mut idle: Idle,
    meanwhile: &mut impl Meanwhile,
    stop: &AtomicBool,
) {
    let mut message = Message::new(length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        if subscriber.poll(&mut tally, 1) > 0 {
            write_number(message, tally.last);
            while !publisher.offer(message) && !stop.load(Ordering::Relaxed) {
                meanwhile.waiting();
                idle.idle();
            }
            idle.reset();
        } else {
            meanwhile.waiting();
            idle.idle();
        }
    }
}

/// A run at a fixed rate that ends later than this share of its length has missed its rate.
const LATE: i64 = 100;

fn ping(
    publisher: &mut impl Publisher,
    subscriber: &mut impl Subscriber,
    mut idle: Idle,
    meanwhile: &mut impl Meanwhile,
    plan: &RoundTripPlan,
) -> Result<Recorder, BenchError> {
    let mut recorder = Recorder::new();
    let mut message = Message::new(plan.length);
    let message: &mut [u8] = &mut message;
    let mut tally = Tally::default();
    let mut patience = Patience::default();
    let start = SystemClock.nanos();
    let schedule = plan.per_second.map(|rate| Schedule::new(start, rate));
    let total = plan.warmup + plan.messages;
    for number in 0..total {
        let sent = match schedule {
            None => {
                meanwhile.between(number);
                SystemClock.nanos()
            }
            Some(schedule) => {
                let intended = schedule.due(number);
                while !intended.is_due(SystemClock.nanos()) {
                    meanwhile.between(0);
                    meanwhile.waiting();
                    idle.idle();
                }
                idle.reset();
                intended
            }
        };
        write_number(message, number);
        while !publisher.offer(message) {
            meanwhile.between(0);
            meanwhile.waiting();
            patience.wait_for("no message was accepted")?;
        }
        patience.reset();
        let wanted = tally.messages + 1;
        while tally.messages < wanted {
            meanwhile.waiting();
            if subscriber.poll(&mut tally, 1) == 0 {
                idle.idle();
                patience.wait_for("no echo")?;
            }
        }
        let received = SystemClock.nanos();
        idle.reset();
        patience.reset();
        if tally.last != number {
            return Err(format!("echo {} instead of {number}", tally.last).into());
        }
        if number >= plan.warmup {
            recorder.record(received.since(sent));
        }
    }
    if let Some(schedule) = schedule {
        let (planned, took) = (schedule.due(total).since(start), SystemClock.nanos().since(start));
        if took - planned > planned / LATE {
            recorder.set_missed(format!(
                "missed its rate: took {took} ns instead of {planned} for {total} messages"
            ));
        }
    }
    Ok(recorder)
}
