//! How a thread that has sockets waits: it spins, yields, then blocks until a datagram comes, a deadline is reached,
//! another thread of the driver rings, or a client of ours has offered something.
//!
//! ```text
//! arriving datagram ---------------- socket  ─┐
//! other agents: lane, doorbell rings - waker ─┤ mio poll
//! our clients' offers and commands ---- pipe ─┘
//! ```
//!
//! Before it blocks, the thread announces itself in the words of its doorbell and runs one more cycle. Clients look
//! at the announcement after each offer, so that offers cost them no system call while the thread is awake
//! ([`fulmar::agent::OfferBell`]). Clients of other makes do not look; they wait for the cap.

use core::time::Duration;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use fulmar::agent::idle::until;
use fulmar::agent::{Alarm, Doorbell, IdleMode, IdleStrategy};
use fulmar::directory::BellPipe;
use fulmar::memory::View;
use fulmar::sync::{AtomicI64, Ordering};
use fulmar::time::NanoTime;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::network::Registration;
use super::readiness::Readiness;

const WAKER_TOKEN: Token = Token(1);
const PIPE_TOKEN: Token = Token(2);

/// Sockets that one look can name; the others are found by the cycle that follows, or by the next look.
const EVENTS: usize = 64;

/// How often a thread that does not block looks whether a process has ended, nanoseconds.
const WATCH_INTERVAL_NS: i64 = 5_000_000;

/// The parts of a thread's waiting. The strategy goes to its runner, the rest to those who wake it.
pub struct Waiting {
    /// How the thread waits.
    pub idle: Box<dyn IdleStrategy>,
    /// What its lanes ring. Clients that know the words ring them by the pipe instead.
    pub doorbell: Doorbell,
    /// Where its sockets register.
    pub registration: Registration,
    /// The longest wait without a reason.
    pub cap: WaitCap,
}

/// The longest a thread waits when nobody wakes it and no deadline comes. It bounds how long an offer of a client
/// that does not ring lies around. May be changed at any time, from any thread.
#[derive(Clone, Debug)]
pub struct WaitCap(Arc<AtomicI64>);

impl WaitCap {
    /// A cap.
    #[must_use]
    pub fn new(cap: Duration) -> Self {
        Self(Arc::new(AtomicI64::new(nanos(cap))))
    }

    /// Changes it. A wait that has begun is not cut short.
    pub fn set(&self, cap: Duration) {
        self.0.store(nanos(cap), Ordering::Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Waiting {
    /// Prepares a thread's waiting in the given mode. `words` are those of its doorbell: in the extension file where
    /// clients are to wake it, else anywhere. `pipe` is the one that these clients write to. Modes other than
    /// [`IdleMode::Adaptive`] never block in a way that could be cut short: sockets and pipe are not looked at then.
    ///
    /// # Errors
    /// What the system says; it has no more descriptors, for instance.
    pub fn new(mode: IdleMode, words: View, pipe: Option<BellPipe>, cap: Duration) -> io::Result<Self> {
        let wait_cap = WaitCap::new(cap);
        if mode != IdleMode::Adaptive {
            let doorbell = Doorbell::new(words);
            return Ok(Self {
                idle: mode.strategy(doorbell.clone(), cap),
                doorbell,
                registration: Registration::none(),
                cap: wait_cap,
            });
        }
        let (idle, registration) = SocketIdle::new(words, pipe, wait_cap.clone())?;
        Ok(Self {
            doorbell: idle.doorbell.clone(),
            idle: Box::new(idle),
            registration,
            cap: wait_cap,
        })
    }
}

/// Wakes the poll from another thread of this process.
#[derive(Debug)]
struct WakerAlarm(Waker);

impl Alarm for WakerAlarm {
    fn sound(&self) {
        // It fails only where the counter behind it overflows, and then the poll wakes anyway.
        let _ = self.0.wake();
    }
}

/// [`fulmar::agent::idle::Adaptive`] for a thread with sockets.
struct SocketIdle {
    poll: Poll,
    events: Events,
    pipe: Option<BellPipe>,
    doorbell: Doorbell,
    readiness: Arc<Readiness>,
    patience: Patience,
    cap: WaitCap,
    /// Whether the words say that we sleep, and a cycle was run since.
    announced: bool,
    /// When a thread that does not block looks for the ends of processes.
    next_watch: NanoTime,
}

impl SocketIdle {
    fn new(words: View, pipe: Option<BellPipe>, cap: WaitCap) -> io::Result<(Self, Registration)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(WakerAlarm(Waker::new(&registry, WAKER_TOKEN)?));
        if let Some(pipe) = &pipe {
            registry.register(&mut SourceFd(&pipe.as_raw_fd()), PIPE_TOKEN, Interest::READABLE)?;
        }
        let readiness = Readiness::new();
        let idle = SocketIdle {
            poll,
            events: Events::with_capacity(EVENTS),
            pipe,
            doorbell: Doorbell::with_alarm(words, waker),
            readiness: Arc::clone(&readiness),
            patience: Patience::new(),
            cap,
            announced: false,
            next_watch: NanoTime(0),
        };
        Ok((idle, Registration::of(registry, readiness)))
    }

    /// Blocks for at most `timeout`.
    fn block(&mut self, timeout: Duration) {
        // An error is a signal, which is as good as a reason to look; anything else leaves no events, too, and then
        // the wait must not turn into spinning.
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            fulmar::agent::idle::sleep(timeout);
            return;
        }
        if self.events.is_empty() {
            return;
        }
        self.take_events();
        // Alarms that were given so far are used up by the cycle that follows.
        self.doorbell.words().announce_again();
    }

    fn take_events(&self) {
        for event in &self.events {
            match event.token() {
                PIPE_TOKEN => {
                    if let Some(pipe) = &self.pipe {
                        pipe.drain();
                    }
                }
                token => self.readiness.on_event(token),
            }
        }
    }

    /// Between two cycles: learns which of many sockets the next one has to ask, and now and then whether a process
    /// that it watches for the conductor has ended.
    fn look(&mut self, now: NanoTime) {
        let watches = self.readiness.watches_processes() && self.next_watch.is_due(now);
        if watches {
            self.next_watch = now.plus_nanos(WATCH_INTERVAL_NS);
        }
        if (watches || self.readiness.is_used())
            && self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_ok()
        {
            self.take_events();
        }
    }

    fn withdraw(&mut self) {
        if core::mem::replace(&mut self.announced, false) {
            self.doorbell.words().leave();
        }
    }
}

impl IdleStrategy for SocketIdle {
    fn may_wait(&self, work: usize) -> bool {
        work == 0 && self.announced
    }

    fn idle(&mut self, work: usize, deadline: NanoTime, now: NanoTime) {
        match self.patience.next(work, now) {
            Step::Run => {
                self.withdraw();
                self.look(now);
            }
            Step::Spin => {
                self.withdraw();
                fulmar::sync::spin_loop();
                self.look(now);
            }
            Step::Yield => {
                self.withdraw();
                std::thread::yield_now();
                self.look(now);
            }
            Step::Block if self.announced => {
                let longest = self.patience.wait(self.cap.get());
                self.block(until(deadline, now, longest));
            }
            Step::Block => {
                // One more cycle, which sees whatever came without an alarm.
                self.doorbell.words().announce();
                self.announced = true;
            }
        }
    }

    fn reset(&mut self) {
        self.patience = Patience::new();
        self.withdraw();
    }

    fn doorbell(&self) -> Option<Doorbell> {
        Some(self.doorbell.clone())
    }
}

impl Drop for SocketIdle {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// How long to stay awake without work. It learns from how long work lets us wait: a pause that is worth staying awake
/// for, slept through or not, makes us stay awake for twice as long as it was; longer pauses make us go to sleep a
/// little sooner each. So a stream of messages finds us awake, the answer to a message does where it comes at once,
/// however long the pause before the message was, and quiet streams cost little more than the wake-up: a cycle over
/// many sockets is not cheap.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Time of the first cycle without work after the last one with work.
    empty_since: Option<NanoTime>,
    /// How long we stay awake, nanoseconds.
    budget: i64,
    /// Whether the budget was used up since the last work.
    is_over: bool,
    /// The next wait.
    wait: Duration,
    /// Whether other threads get the processor while we are awake without work.
    yields: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Run,
    Spin,
    Yield,
    Block,
}

impl Patience {
    const SHORTEST: i64 = 10_000;
    const LONGEST: i64 = 200_000;
    const FIRST_WAIT: Duration = Duration::from_micros(100);
    /// With fewer processors the threads of a driver and its clients do not have one each: a thread that spins may
    /// keep the one waiting that it waits for.
    const PROCESSORS_TO_SPIN: usize = 4;

    fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            empty_since: None,
            budget: Self::LONGEST,
            is_over: false,
            wait: Self::FIRST_WAIT,
            yields: processors < Self::PROCESSORS_TO_SPIN,
        }
    }

    /// What to do after a cycle that began at `now` and did so much work.
    fn next(&mut self, work: usize, now: NanoTime) -> Step {
        if work > 0 {
            if let Some(since) = self.empty_since.take() {
                self.learn(now.since(since));
            }
            self.is_over = false;
            return Step::Run;
        }
        let empty = now.since(*self.empty_since.get_or_insert(now));
        if self.is_over || empty >= self.budget {
            self.is_over = true;
            Step::Block
        } else if empty < self.budget / 2 && !self.yields {
            Step::Spin
        } else {
            Step::Yield
        }
    }

    fn learn(&mut self, pause: i64) {
        if pause > Self::LONGEST {
            self.budget = (self.budget - self.budget / 8).max(Self::SHORTEST);
            return;
        }
        self.budget = self.budget.max(pause * 2).clamp(Self::SHORTEST, Self::LONGEST);
        if !self.is_over {
            self.wait = Self::FIRST_WAIT;
        }
    }

    /// The longest next wait. Waits become longer and longer, for the sake of those who can not wake us.
    fn wait(&mut self, cap: Duration) -> Duration {
        let wait = self.wait.min(cap);
        self.wait = wait.saturating_mul(2).min(cap);
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fulmar::agent::OfferBell;
    use fulmar::agent::doorbell::{DOORBELL_LENGTH, SLEEPING_OFFSET};
    use fulmar::agent::process::{ProcessId, ProcessWatch};
    use fulmar::log::Payload;
    use fulmar::memory::{AtomicBuffer, Region};
    use fulmar::time::SystemClock;

    use super::super::conformance::pair;
    use super::super::{ReceiveBatch, SendBatch, SendEntry, SystemNetwork, SystemOptions, UdpSocket};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A thread that waits a minute when it waits.
    struct Sleeper {
        idle: SocketIdle,
        registration: Registration,
        words: View,
    }

    fn sleeper(pipe: Option<BellPipe>) -> Sleeper {
        let words = Region::heap(DOORBELL_LENGTH).as_view();
        let (mut idle, registration) = SocketIdle::new(words.clone(), pipe, WaitCap::new(MINUTE)).unwrap();
        idle.patience.wait = MINUTE;
        Sleeper {
            idle,
            registration,
            words,
        }
    }

    impl Sleeper {
        fn is_announced(&self) -> bool {
            self.words.load_acquire_i32(SLEEPING_OFFSET) != 0
        }

        /// A process that the thread watches for a conductor with this doorbell.
        fn watched_child(&self) -> (std::process::Child, ProcessWatch, Doorbell) {
            let child = std::process::Command::new("sleep")
                .arg("600")
                .stdin(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let pid = i64::from(child.id());
            let process = ProcessId {
                pid,
                start_time_ticks: fulmar::agent::process::start_time_of(pid).unwrap(),
                ..ProcessId::current()
            };
            let conductor = Doorbell::heap();
            self.registration.ring_for_processes(conductor.clone());
            let watch = ProcessWatch::open(process).unwrap();
            self.registration.add_process(&watch).unwrap();
            (child, watch, conductor)
        }

        /// One empty cycle.
        fn cycle(&mut self) {
            let now = SystemClock.nanos();
            self.idle.idle(0, NanoTime::never_after(now), now);
        }

        /// Empty cycles up to the one after which it would block.
        fn until_announced(&mut self) {
            while !self.is_announced() {
                self.cycle();
            }
        }

        /// Blocks, and has to be woken long before a minute is over.
        fn is_woken(&mut self) {
            self.until_announced();
            let start = SystemClock.nanos();
            self.cycle();
            assert!(SystemClock.nanos().since(start) < 30_000_000_000);
        }
    }

    #[test]
    fn a_datagram_ends_the_wait() {
        wakes(&SystemNetwork::default());
        wakes(&SystemNetwork::new(SystemOptions {
            uring: true,
            ..SystemOptions::default()
        }));
    }

    fn wakes(network: &SystemNetwork) {
        let mut thread = sleeper(None);
        let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
        receiver.register(&thread.registration).unwrap();
        let to = Some(receiver.local_address());
        let mut batch = ReceiveBatch::new(1);
        for _ in 0..3 {
            // A ring rings once more when the datagrams are taken: what wakes has to be this datagram.
            let idle = &mut thread.idle;
            idle.poll.poll(&mut idle.events, Some(Duration::ZERO)).unwrap();
            sender.send(&SendBatch::of(SendEntry::datagram(
                Payload::from_slice(b"up"),
                to,
            )));
            thread.is_woken();
            assert_eq!(receiver.receive(&mut batch).datagrams, 1);
            assert_eq!(receiver.receive(&mut batch).datagrams, 0);
        }
    }

    #[test]
    fn many_sockets_are_heard_without_asking_each() {
        let mut thread = sleeper(None);
        let mut pairs: Vec<_> = (0..100)
            .map(|_| pair(&SystemNetwork::default(), Ipv4Addr::LOCALHOST.into()))
            .collect();
        for (_, receiver) in &mut pairs {
            receiver.register(&thread.registration).unwrap();
        }
        let mut batch = ReceiveBatch::new(2);
        let mut cycle = |pairs: &mut Vec<_>| {
            let mut heard = Vec::new();
            for (index, (_, receiver)) in pairs.iter_mut().enumerate() {
                let receiver: &mut Box<dyn UdpSocket> = receiver;
                let outcome = receiver.receive(&mut batch);
                heard.extend(core::iter::repeat_n(index, outcome.datagrams));
            }
            heard
        };
        // New sockets are asked once.
        assert_eq!(cycle(&mut pairs), [0; 0]);
        for round in 0..5 {
            let expected: Vec<usize> = (0..100)
                .filter(|index| index % 5 == round)
                .flat_map(|index| [index; 3])
                .collect();
            if round == 0 {
                thread.until_announced();
                assert_eq!(cycle(&mut pairs), [0; 0]);
            }
            for index in &expected {
                let (sender, receiver) = &mut pairs[*index];
                let to = Some(receiver.local_address());
                sender.send(&SendBatch::of(SendEntry::datagram(
                    Payload::from_slice(b"up"),
                    to,
                )));
            }
            // Nobody has looked yet.
            assert_eq!(cycle(&mut pairs), [0; 0]);
            let mut heard = Vec::new();
            if round == 0 {
                // Asleep. A look names some of the sockets; further looks name the others.
                thread.is_woken();
            }
            while heard.len() < expected.len() {
                // Awake: a look per cycle.
                thread.idle.idle(1, NanoTime(0), NanoTime(0));
                heard.extend(cycle(&mut pairs));
            }
            heard.sort_unstable();
            assert_eq!(heard, expected);
            // Two at a time, so each was asked until it was found empty, and not again.
            assert_eq!(cycle(&mut pairs), [0; 0]);
        }
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let mut thread = sleeper(None);
        let bell = thread.idle.doorbell().unwrap();
        thread.until_announced();
        bell.ring();
        thread.is_woken();
        // From another thread, while it waits or about to.
        std::thread::scope(|scope| {
            thread.until_announced();
            scope.spawn(|| bell.ring());
            thread.is_woken();
        });
    }

    #[test]
    fn the_end_of_a_process_ends_the_wait_and_rings() {
        let mut thread = sleeper(None);
        let (mut child, watch, conductor) = thread.watched_child();
        let before = conductor.sequence();
        thread.until_announced();
        child.kill().unwrap();
        thread.is_woken();
        assert_ne!(conductor.sequence(), before);
        assert!(watch.is_dead());
        // Told once, as long as nobody waits for the child.
        let rung = conductor.sequence();
        thread.idle.block(Duration::from_millis(1));
        assert_eq!(conductor.sequence(), rung);
        child.wait().unwrap();
    }

    #[test]
    fn a_thread_that_never_waits_hears_of_the_end_of_a_process() {
        let mut thread = sleeper(None);
        let (mut child, _watch, conductor) = thread.watched_child();
        let before = conductor.sequence();
        child.kill().unwrap();
        child.wait().unwrap();
        // Cycles with work, a millisecond apart.
        for cycle in 1..=12 {
            thread.idle.idle(1, NanoTime(0), NanoTime(cycle * 1_000_000));
        }
        assert_ne!(conductor.sequence(), before);
    }

    #[test]
    fn an_offer_of_a_client_ends_the_wait_and_costs_nothing_while_awake() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell");
        let pipe = BellPipe::create(&path, 0o600).unwrap();
        let mut thread = sleeper(Some(pipe));
        let theirs = BellPipe::open(&path).unwrap();
        let alarm = Arc::new(BellPipe::open(&path).unwrap());
        let offers = OfferBell::new(thread.words.clone(), alarm);
        for _ in 0..3 {
            // Awake.
            thread.idle.idle(1, NanoTime(0), NanoTime(0));
            offers.after_offer();
            assert!(!theirs.drain());
            // About to sleep.
            thread.until_announced();
            offers.after_offer();
            thread.is_woken();
            assert!(!theirs.drain(), "the alarm is used up");
            // Asleep again without having found work: the next offer wakes as well.
            thread.until_announced();
            offers.after_offer();
            thread.is_woken();
        }
    }

    #[test]
    fn a_deadline_and_the_cap_end_the_wait() {
        let mut thread = sleeper(None);
        thread.until_announced();
        let before = SystemClock.nanos();
        let deadline = before.plus_nanos(50_000);
        thread.idle.idle(0, deadline, before);
        assert!(deadline.is_due(SystemClock.nanos().plus_nanos(1_000_000)));
        let cap = thread.idle.cap.clone();
        cap.set(Duration::from_millis(3));
        assert_eq!(cap.get(), Duration::from_millis(3));
        let before = SystemClock.nanos();
        for _ in 0..10 {
            thread.cycle();
        }
        assert!(SystemClock.nanos().since(before) < 30_000_000_000);
        assert!(thread.is_announced(), "it stays announced while nothing comes");
        thread.idle.reset();
        assert!(!thread.is_announced());
    }

    #[test]
    fn other_modes_do_not_block_on_sockets() {
        let words = Region::heap(DOORBELL_LENGTH).as_view();
        let mut waiting = Waiting::new(IdleMode::Spin, words, None, MINUTE).unwrap();
        assert!(!waiting.registration.is_some());
        let (_, mut receiver) = pair(&SystemNetwork::default(), Ipv4Addr::LOCALHOST.into());
        receiver.register(&waiting.registration).unwrap();
        let now = SystemClock.nanos();
        waiting.idle.idle(0, NanoTime::never_after(now), now);
        assert!(SystemClock.nanos().since(now) < 30_000_000_000);
    }

    /// Works at `now`, then idles until the next work after `pause`; how long it stayed awake of that.
    fn awake_in_pause(patience: &mut Patience, now: &mut NanoTime, pause: i64) -> i64 {
        assert_eq!(patience.next(1, *now), Step::Run);
        let start = *now;
        let mut awake = 0;
        while now.since(start) < pause {
            if patience.next(0, *now) != Step::Block {
                awake = now.since(start) + 1_000;
            }
            *now = now.plus_nanos(1_000);
        }
        awake.min(pause)
    }

    #[test]
    fn long_pauses_make_it_sleep_sooner_and_short_ones_keep_it_awake() {
        let mut patience = Patience::new();
        let mut now = NanoTime(5);
        let millisecond = 1_000_000;
        let awake: Vec<i64> = (0..40)
            .map(|_| awake_in_pause(&mut patience, &mut now, millisecond) / 1_000)
            .collect();
        assert_eq!(awake[..4], [200, 175, 154, 134]);
        assert_eq!(*awake.last().unwrap(), Patience::SHORTEST / 1_000);
        // A pause of 60 us is slept through once; then it is worth staying awake, whatever comes between.
        awake_in_pause(&mut patience, &mut now, 60_000);
        for _ in 0..100 {
            awake_in_pause(&mut patience, &mut now, millisecond);
            assert_eq!(awake_in_pause(&mut patience, &mut now, 60_000), 60_000);
        }
    }

    #[test]
    fn waits_without_work_become_longer_until_work_finds_it_awake() {
        let mut patience = Patience::new();
        let mut now = NanoTime(5);
        let cap = Duration::from_micros(300);
        let waits = |patience: &mut Patience| [0; 3].map(|_| patience.wait(cap).as_micros());
        assert_eq!(waits(&mut patience), [100, 200, 300]);
        // Woken, then nothing: the waits stay long.
        awake_in_pause(&mut patience, &mut now, 10_000_000);
        assert_eq!(patience.next(1, now), Step::Run);
        assert_eq!(patience.wait(cap).as_micros(), 300);
        assert_eq!(
            patience.next(0, now),
            if patience.yields { Step::Yield } else { Step::Spin }
        );
        assert_eq!(patience.next(1, now), Step::Run);
        assert_eq!(waits(&mut patience), [100, 200, 300]);
    }
}
