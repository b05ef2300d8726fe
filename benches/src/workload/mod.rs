//! The workloads, each written once for every [`Side`].
//!
//! A run checks what it received: a lost, repeated or changed message fails the run instead of improving its figure.

use core::ops::{Deref, DerefMut};
use core::time::Duration;

use fulmar::sync::{AtomicBool, Ordering, spin_loop};
use fulmar::time::{NanoTime, SystemClock};

use crate::side::{BenchError, Settings, Side, Subscriber, Tally};

const PING_STREAM: i32 = 1001;
const PONG_STREAM: i32 = 1002;
/// Fragments per poll, as in the reference's own samples.
const FRAGMENT_LIMIT: usize = 256;
/// Messages offered, then polled, by one call of [`measured_batch`].
pub const BATCH: usize = 16;
/// Messages of one batch.
const RUN: usize = 64;
/// Longer messages may take several fragments, and are put together.
const LONGEST_FRAGMENT: usize = 1024;

mod bare;
mod cost;
mod isolation;
mod micro;
mod ping;
mod pump;
mod system;

pub use bare::{bare_datagrams, bare_line};
pub use cost::{counted, counted_datagrams, measured_batch, one_thread};
pub use isolation::{IsolationPlan, isolation};
pub use micro::{OPERATIONS, PRIMITIVES, Primitive, counted_operations, timed_operations};
pub use ping::{RoundTripPlan, round_trip, round_trip_between_hosts, round_trip_in_one_thread};
pub use pump::{ThroughputPlan, throughput, throughput_between_hosts};
pub use system::{first_messages, idle_share, memory_per_stream, start_time};

/// Which publication is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shared tail.
    Concurrent,
    /// Own tail.
    Exclusive,
    /// Own tail, and the message is written where it stays.
    Claim,
    /// Own tail, which moves once for many messages; on sides without batches an offer for each.
    Batch,
}

impl Kind {
    /// All kinds that publish messages one by one.
    pub const ONE_BY_ONE: [Kind; 3] = [Kind::Concurrent, Kind::Exclusive, Kind::Claim];
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Concurrent, Kind::Exclusive, Kind::Claim, Kind::Batch];
    /// Those whose messages may take several frames.
    pub const FRAGMENTING: [Kind; 2] = [Kind::Concurrent, Kind::Exclusive];

    /// Name in tables and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Concurrent => "concurrent",
            Kind::Exclusive => "exclusive",
            Kind::Claim => "claim",
            Kind::Batch => "batch",
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

/// Ends a wait for a message that does not come. The clock is looked at rarely: it costs more than a poll.
#[derive(Default)]
struct Patience {
    /// Turns in which nothing came.
    turns: u64,
    /// When the clock was first looked at in them.
    since: Option<NanoTime>,
}

impl Patience {
    const TURNS: u64 = 1024;
    const LONGEST: Duration = Duration::from_secs(10);

    /// Something came.
    #[inline]
    fn reset(&mut self) {
        self.turns = 0;
    }

    /// In each turn of a wait: fails when nothing has come for [`Self::LONGEST`].
    ///
    /// # Errors
    /// `what` has not come.
    #[inline]
    fn wait_for(&mut self, what: &'static str) -> Result<(), BenchError> {
        self.turns += 1;
        if self.turns.is_multiple_of(Self::TURNS) {
            self.look(what, SystemClock.nanos())
        } else {
            Ok(())
        }
    }

    #[cold]
    fn look(&mut self, what: &'static str, now: NanoTime) -> Result<(), BenchError> {
        let since = match self.since {
            Some(since) if self.turns > Self::TURNS => since,
            _ => *self.since.insert(now),
        };
        if (since + Self::LONGEST).is_due(now) {
            Err(format!("{what} within {} s", Self::LONGEST.as_secs()).into())
        } else {
            Ok(())
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

/// Runs `near` on this thread and `far` on one that stands for another host, until both have ended: whoever ends sets
/// the flag that ends the other. Of two failures that of the first to end is told, as it may have caused the other.
fn between_hosts<T, U: Send>(
    settings: &Settings,
    far: impl FnOnce(Settings, &AtomicBool) -> Result<U, BenchError> + Send,
    near: impl FnOnce(&AtomicBool) -> Result<T, BenchError>,
) -> Result<(T, U), BenchError> {
    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    std::thread::scope(|scope| {
        let far = scope.spawn(move || {
            let far_settings = settings.enter_far_host();
            let result = far_settings.and_then(|settings| far(settings, stop));
            stop.store(true, Ordering::Relaxed);
            result
        });
        let near = near(stop);
        let is_far_first = stop.swap(true, Ordering::Relaxed);
        let far = far.join().map_err(|_| "the thread of the far host panicked")?;
        match (near, far) {
            (Ok(near), Ok(far)) => Ok((near, far)),
            (Err(_), Err(error)) if is_far_first => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    })
}

/// Waits until `is_connected`.
fn connect<S: Side>(side: &S, is_connected: impl Fn() -> bool) -> Result<(), BenchError> {
    let deadline = SystemClock.nanos() + Duration::from_secs(10);
    while !is_connected() {
        if deadline.is_due(SystemClock.nanos()) {
            return Err("not connected within 10 s".into());
        }
        side.duty_cycle();
        std::thread::yield_now();
    }
    Ok(())
}

/// Polls for fragments, or for messages put together from them.
#[inline(always)]
fn poll(subscriber: &mut impl Subscriber, tally: &mut Tally, limit: usize, is_assembled: bool) -> usize {
    if is_assembled {
        subscriber.poll_assembled(tally, limit)
    } else {
        subscriber.poll(tally, limit)
    }
}

fn write_number(message: &mut [u8], number: u64) {
    if let Some(word) = message.first_chunk_mut::<8>() {
        *word = number.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_ten_seconds_after_what_came_last() {
        let second = |seconds| NanoTime(5) + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        for _ in 1..Patience::TURNS {
            assert!(patience.wait_for("no message").is_ok());
        }
        patience.turns += 1;
        assert!(patience.look("no message", second(3)).is_ok());
        patience.turns += Patience::TURNS;
        assert!(patience.look("no message", second(12)).is_ok());
        patience.reset();
        patience.turns += Patience::TURNS;
        assert!(patience.look("no message", second(13)).is_ok());
        patience.turns += Patience::TURNS;
        assert!(patience.look("no message", second(22)).is_ok());
        let error = patience.look("no message", second(23)).expect_err("too long");
        assert_eq!(error.to_string(), "no message within 10 s");
    }
}
