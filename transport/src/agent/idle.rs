//! How a runner waits between duty cycles that found nothing to do.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

#[cfg(not(loom))]
use super::doorbell::{Doorbell, Woken};
use crate::time::NanoTime;

/// What to do after a duty cycle.
pub trait IdleStrategy: Send {
    /// Called after each cycle with the work it did, the agent's next deadline and the time of the cycle. Returns at
    /// once if there was work.
    fn idle(&mut self, work: usize, deadline: NanoTime, now: NanoTime);

    /// Whether the call of [`Self::idle`] that follows, after a cycle that did so much work, may wait and so has to be
    /// told the deadline. Any deadline will do where it does not.
    fn may_wait(&self, work: usize) -> bool {
        work == 0
    }

    /// Forgets how long nothing happened.
    fn reset(&mut self) {}

    /// What to ring to end a wait early, if that is possible.
    #[cfg(not(loom))]
    fn doorbell(&self) -> Option<Doorbell> {
        None
    }
}

/// Suspends the calling thread. The only place that does so without a way to be woken.
pub fn sleep(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this is where waiting lives")]
    std::thread::sleep(duration);
}

/// Returns at once: the caller has its own pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

impl IdleStrategy for Noop {
    fn may_wait(&self, _work: usize) -> bool {
        false
    }

    fn idle(&mut self, _work: usize, _deadline: NanoTime, _now: NanoTime) {}
}

/// Tells the processor that this is a busy loop, and goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusySpin;

impl IdleStrategy for BusySpin {
    fn may_wait(&self, _work: usize) -> bool {
        false
    }

    fn idle(&mut self, work: usize, _deadline: NanoTime, _now: NanoTime) {
        if work == 0 {
            crate::sync::spin_loop();
        }
    }
}

/// Offers the processor to other threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yielding;

impl IdleStrategy for Yielding {
    fn may_wait(&self, _work: usize) -> bool {
        false
    }

    fn idle(&mut self, work: usize, _deadline: NanoTime, _now: NanoTime) {
        if work == 0 {
            std::thread::yield_now();
        }
    }
}

/// Sleeps for a fixed time, or until the deadline if that is sooner.
#[derive(Clone, Copy, Debug)]
pub struct Sleeping(pub Duration);

impl IdleStrategy for Sleeping {
    fn idle(&mut self, work: usize, deadline: NanoTime, now: NanoTime) {
        if work == 0 {
            sleep(until(deadline, now, self.0));
        }
    }
}

/// Spins, then yields, then sleeps for longer and longer. Can not be woken; [`Adaptive`] can.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pace: Pace,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            pace: Pace::new(10, 20, Duration::from_micros(1), Duration::from_millis(1)),
        }
    }
}

impl IdleStrategy for Backoff {
    fn may_wait(&self, work: usize) -> bool {
        work == 0 && self.pace.blocks_next()
    }

    fn idle(&mut self, work: usize, deadline: NanoTime, now: NanoTime) {
        match self.pace.next(work) {
            Step::Run => {}
            Step::Spin => crate::sync::spin_loop(),
            Step::Yield => std::thread::yield_now(),
            Step::Block(longest) => sleep(until(deadline, now, longest)),
        }
    }

    fn reset(&mut self) {
        self.pace.reset();
    }
}

/// Spins while busy, blocks in the kernel when quiet: spins, then yields, then waits on a doorbell for longer and
/// longer, up to a cap and never past the deadline. A ring brings it back to spinning at once.
///
/// The cap bounds how long work waits that nobody rang for, such as a foreign client's command.
#[cfg(not(loom))]
#[derive(Clone, Debug)]
pub struct Adaptive {
    doorbell: Doorbell,
    pace: Pace,
    /// The sequence before the cycle whose outcome is being judged.
    seen: i32,
}

#[cfg(not(loom))]
impl Adaptive {
    /// Empty cycles that are spun through before yielding.
    pub const SPINS: u32 = 200;
    /// Empty cycles that yield the processor before blocking.
    pub const YIELDS: u32 = 40;
    /// First wait.
    pub const FIRST_WAIT: Duration = Duration::from_micros(100);
    /// Default longest wait.
    pub const CAP: Duration = Duration::from_millis(10);

    /// Waits on this doorbell, never longer than `cap`.
    #[must_use]
    pub fn new(doorbell: Doorbell, cap: Duration) -> Self {
        let first = Self::FIRST_WAIT.min(cap);
        Self {
            seen: doorbell.sequence(),
            doorbell,
            pace: Pace::new(Self::SPINS, Self::YIELDS, first, cap),
        }
    }
}

#[cfg(not(loom))]
impl IdleStrategy for Adaptive {
    fn may_wait(&self, work: usize) -> bool {
        work == 0 && self.pace.blocks_next()
    }

    fn idle(&mut self, work: usize, deadline: NanoTime, now: NanoTime) {
        let woken = match self.pace.next(work) {
            Step::Run => return,
            Step::Spin => {
                crate::sync::spin_loop();
                Woken::TimedOut
            }
            Step::Yield => {
                std::thread::yield_now();
                Woken::TimedOut
            }
            Step::Block(longest) => self.doorbell.wait(self.seen, until(deadline, now, longest)),
        };
        if woken == Woken::Rung {
            self.pace.reset();
        }
        if self.pace.blocks_next() {
            // Taken before the next cycle looks for work: a ring during that cycle will end the wait after it.
            self.seen = self.doorbell.sequence();
        }
    }

    fn reset(&mut self) {
        self.pace.reset();
    }

    fn doorbell(&self) -> Option<Doorbell> {
        Some(self.doorbell.clone())
    }
}

/// Time to the deadline, at most `longest`. Never zero: an agent that leaves a deadline behind and finds no work at
/// it must not turn waiting into spinning.
#[must_use]
pub fn until(deadline: NanoTime, now: NanoTime, longest: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_micros(1);
    let left = u64::try_from(deadline.since(now)).map_or(Duration::ZERO, Duration::from_nanos);
    left.min(longest).max(SHORTEST)
}

/// Counts empty cycles and says what comes next.
#[derive(Clone, Copy, Debug)]
struct Pace {
    spins: u32,
    yields: u32,
    first: Duration,
    cap: Duration,
    /// Empty cycles so far, up to `spins + yields`.
    empty: u32,
    wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Run,
    Spin,
    Yield,
    Block(Duration),
}

impl Pace {
    fn new(spins: u32, yields: u32, first: Duration, cap: Duration) -> Self {
        Self {
            spins,
            yields,
            first,
            cap,
            empty: 0,
            wait: first,
        }
    }

    #[inline]
    fn next(&mut self, work: usize) -> Step {
        if work > 0 {
            self.reset();
            return Step::Run;
        }
        if self.empty < self.spins {
            self.empty += 1;
            Step::Spin
        } else if !self.blocks_next() {
            self.empty += 1;
            Step::Yield
        } else {
            let wait = self.wait;
            self.wait = (wait * 2).min(self.cap);
            Step::Block(wait)
        }
    }

    #[inline]
    fn blocks_next(&self) -> bool {
        self.empty >= self.spins + self.yields
    }

    #[inline]
    fn reset(&mut self) {
        self.empty = 0;
        self.wait = self.first;
    }
}

/// An idle strategy by name, as settings give it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdleMode {
    /// [`Adaptive`]: the default.
    #[default]
    Adaptive,
    /// [`BusySpin`].
    Spin,
    /// [`Yielding`].
    Yield,
    /// [`Backoff`].
    Backoff,
    /// [`Sleeping`] for this many nanoseconds.
    Sleep(u64),
    /// [`Noop`].
    Noop,
}

impl IdleMode {
    /// What `sleep` means without a time: 1 ms.
    pub const SLEEP_DEFAULT_NS: u64 = 1_000_000;

    /// Builds the strategy. The doorbell and the cap matter to [`Adaptive`] only.
    #[cfg(not(loom))]
    #[must_use]
    pub fn strategy(self, doorbell: Doorbell, cap: Duration) -> Box<dyn IdleStrategy> {
        match self {
            Self::Adaptive => Box::new(Adaptive::new(doorbell, cap)),
            Self::Spin => Box::new(BusySpin),
            Self::Yield => Box::new(Yielding),
            Self::Backoff => Box::new(Backoff::default()),
            Self::Sleep(nanos) => Box::new(Sleeping(Duration::from_nanos(nanos))),
            Self::Noop => Box::new(Noop),
        }
    }
}

impl fmt::Display for IdleMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive => f.write_str("adaptive"),
            Self::Spin => f.write_str("spin"),
            Self::Yield => f.write_str("yield"),
            Self::Backoff => f.write_str("backoff"),
            Self::Sleep(Self::SLEEP_DEFAULT_NS) => f.write_str("sleep"),
            Self::Sleep(nanos) => write!(f, "sleep:{nanos}ns"),
            Self::Noop => f.write_str("noop"),
        }
    }
}

/// A text that names no idle strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no idle strategy; use adaptive, spin, yield, backoff, sleep, sleep:<time> or noop")]
pub struct UnknownIdleMode(pub String);

impl FromStr for IdleMode {
    type Err = UnknownIdleMode;

    /// Our names, the names of Aeron's drivers (`busy_spin`, `yielding`, `sleep-ns`, ...) and Agrona's class names.
    fn from_str(text: &str) -> Result<Self, UnknownIdleMode> {
        let unknown = || UnknownIdleMode(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let name = lower
            .rsplit('.')
            .next()
            .unwrap_or(&lower)
            .trim_end_matches("idlestrategy");
        Ok(match name {
            "adaptive" => Self::Adaptive,
            "spin" | "spinning" | "busy_spin" | "busy-spin" | "busyspin" => Self::Spin,
            "yield" | "yielding" => Self::Yield,
            "backoff" => Self::Backoff,
            "sleep" | "sleeping" | "sleep-ns" | "sleepingmillis" => Self::Sleep(Self::SLEEP_DEFAULT_NS),
            "noop" | "no_op" | "no-op" => Self::Noop,
            _ => {
                let time = ["sleep:", "sleeping:", "sleep-ns:"]
                    .iter()
                    .find_map(|prefix| lower.strip_prefix(prefix))
                    .ok_or_else(unknown)?;
                Self::Sleep(nanos_of(time).ok_or_else(unknown)?)
            }
        })
    }
}

/// A time with the suffix ns, us, ms or s; without one it is in nanoseconds. At most an hour.
fn nanos_of(text: &str) -> Option<u64> {
    const HOUR: u64 = 3_600_000_000_000;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    let nanos = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (nanos <= HOUR).then_some(nanos)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    #[test]
    fn the_pace_goes_from_spinning_over_yielding_to_longer_and_longer_waits() {
        let mut pace = Pace::new(2, 1, Duration::from_micros(100), Duration::from_micros(300));
        let steps: Vec<Step> = (0..6).map(|_| pace.next(0)).collect();
        assert_eq!(
            steps,
            [
                Step::Spin,
                Step::Spin,
                Step::Yield,
                Step::Block(Duration::from_micros(100)),
                Step::Block(Duration::from_micros(200)),
                Step::Block(Duration::from_micros(300)),
            ]
        );
        assert_eq!(pace.next(5), Step::Run);
        assert_eq!(pace.next(0), Step::Spin);
    }

    #[test]
    fn a_wait_ends_at_the_deadline_and_is_never_empty() {
        let now = NanoTime(i64::MAX - 5);
        let cap = Duration::from_millis(4);
        assert_eq!(until(now.plus_nanos(5_000), now, cap), Duration::from_micros(5));
        assert_eq!(until(NanoTime::never_after(now), now, cap), cap);
        assert_eq!(until(now.plus_nanos(-5_000), now, cap), Duration::from_micros(1));
    }

    #[test]
    fn a_ring_during_the_last_cycle_before_a_wait_ends_that_wait() {
        let doorbell = Doorbell::heap();
        let mut idle = Adaptive::new(doorbell.clone(), Duration::from_secs(60));
        idle.pace = Pace::new(0, 0, Duration::from_secs(60), Duration::from_secs(60));
        let now = SystemClock.nanos();
        // The cycle looked for work, then the bell rang, then the strategy is asked to idle.
        doorbell.ring();
        idle.idle(0, NanoTime::never_after(now), now);
        assert_eq!(idle.seen, doorbell.sequence());
        assert!(SystemClock.nanos().since(now) < 30_000_000_000);
    }

    #[test]
    fn names_are_read_and_printed_back() {
        for (text, mode) in [
            ("adaptive", IdleMode::Adaptive),
            ("spin", IdleMode::Spin),
            ("busy_spin", IdleMode::Spin),
            ("YIELD", IdleMode::Yield),
            ("org.agrona.concurrent.BackoffIdleStrategy", IdleMode::Backoff),
            ("org.agrona.concurrent.BusySpinIdleStrategy", IdleMode::Spin),
            ("sleep", IdleMode::Sleep(1_000_000)),
            ("sleep-ns", IdleMode::Sleep(1_000_000)),
            ("sleep:250us", IdleMode::Sleep(250_000)),
            ("sleep-ns:77", IdleMode::Sleep(77)),
            ("noop", IdleMode::Noop),
        ] {
            assert_eq!(text.parse(), Ok(mode), "{text}");
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in [
            "",
            "fast",
            "sleep:",
            "sleep:1h",
            "sleep:-1",
            "sleep:99999999999999s",
            "sleep:\u{e9}",
        ] {
            assert_eq!(text.parse::<IdleMode>(), Err(UnknownIdleMode(text.to_owned())));
        }
    }
}
