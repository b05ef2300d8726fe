//! The runner with the adaptive idle strategy: it costs next to nothing when quiet, and a ring wakes it at once.

use core::time::Duration;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fulmar::agent::doorbell::{DOORBELL_LENGTH, SLEEPING_OFFSET};
use fulmar::agent::idle::Adaptive;
use fulmar::agent::process::thread_cpu_time;
use fulmar::agent::{Agent, AgentError, AgentRunner, Doorbell, OnError, RunnerExit};
use fulmar::memory::{AtomicBuffer, Region};
use fulmar::time::{NanoTime, Now, SystemClock};

fn no_error() -> OnError {
    Arc::new(|text| panic!("no error is expected: {text}"))
}

#[derive(Default)]
struct Measured {
    cycles: AtomicUsize,
    cpu: Mutex<Duration>,
}

/// Has nothing to do, ever.
struct Quiet {
    measured: Arc<Measured>,
    now: NanoTime,
    started: Duration,
}

impl Agent for Quiet {
    fn role_name(&self) -> &str {
        "quiet"
    }
    fn on_start(&mut self, _now: Now) -> Result<(), AgentError> {
        self.started = thread_cpu_time();
        Ok(())
    }
    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.now = now.nanos;
        self.measured.cycles.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
    fn next_deadline(&self) -> NanoTime {
        NanoTime::never_after(self.now)
    }
    fn on_close(&mut self) {
        *self.measured.cpu.lock().expect("nobody panics under it") = thread_cpu_time() - self.started;
    }
}

#[test]
fn a_quiet_runner_uses_less_than_a_hundredth_of_a_processor() {
    // Neighbours only ever add to what is measured, so one measurement out of three below the bound shows it.
    let shares: Vec<f64> = (0..3).map(|_| quiet_runner()).collect();
    assert!(shares.iter().any(|share| *share < 0.01), "{shares:?}");
}

/// Runs an agent that has nothing to do for a second; the share of a processor it used.
fn quiet_runner() -> f64 {
    let measured = Arc::new(Measured::default());
    let agent = Quiet {
        measured: measured.clone(),
        now: NanoTime(0),
        started: Duration::ZERO,
    };
    let idle = Adaptive::new(Doorbell::heap(), Adaptive::CAP);
    let before = SystemClock.nanos();
    let mut runner = AgentRunner::start(agent, Box::new(idle), Arc::new(SystemClock), "quiet", no_error())
        .expect("a test fails by panicking");
    // The measurement needs time to pass; waiting on a doorbell that nobody rings is how it passes.
    let clock = Doorbell::heap();
    while SystemClock.nanos().since(before) < 1_000_000_000 {
        clock.wait(clock.sequence(), Duration::from_millis(100));
    }
    assert_eq!(runner.close(), RunnerExit::Closed);
    let wall = SystemClock.nanos().since(before) as f64;
    let cpu = measured.cpu.lock().expect("a test fails by panicking").as_nanos() as f64;
    let cycles = measured.cycles.load(Ordering::Relaxed) as f64;
    println!(
        "{:.3} % of a processor, {:.0} cycles per second",
        cpu / wall * 100.0,
        cycles / wall * 1e9
    );
    // Never more wake-ups than the cap allows, plus the way there.
    let cap = Adaptive::CAP.as_nanos() as f64;
    assert!(cycles <= f64::from(Adaptive::SPINS + Adaptive::YIELDS) + wall / cap + 20.0);
    cpu / wall
}

/// Counts rounds; each is one piece of work.
struct Rounds {
    wanted: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    answer: Doorbell,
    now: NanoTime,
}

impl Agent for Rounds {
    fn role_name(&self) -> &str {
        "rounds"
    }
    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.now = now.nanos;
        let wanted = self.wanted.load(Ordering::Acquire);
        if wanted == self.done.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.done.store(wanted, Ordering::Release);
        self.answer.ring();
        Ok(1)
    }
    fn next_deadline(&self) -> NanoTime {
        NanoTime::never_after(self.now)
    }
}

#[test]
fn a_ring_wakes_a_blocked_runner_long_before_its_wait_is_over() {
    const ROUNDS: u64 = 100;
    let words = Region::heap(DOORBELL_LENGTH);
    let doorbell = Doorbell::new(words.as_view());
    let answer = Doorbell::heap();
    let wanted = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let agent = Rounds {
        wanted: wanted.clone(),
        done: done.clone(),
        answer: answer.clone(),
        now: NanoTime(0),
    };
    // Without the ring a round would take up to ten minutes.
    let cap = Duration::from_secs(600);
    let mut runner = AgentRunner::start(
        agent,
        Box::new(Adaptive::new(doorbell.clone(), cap)),
        Arc::new(SystemClock),
        "rounds",
        no_error(),
    )
    .unwrap();
    let mut latencies = Vec::new();
    for round in 1..=ROUNDS {
        while words.as_view().load_acquire_i32(SLEEPING_OFFSET) == 0 {
            std::thread::yield_now();
        }
        let before = SystemClock.nanos();
        wanted.store(round, Ordering::Release);
        doorbell.ring();
        loop {
            let seen = answer.sequence();
            if done.load(Ordering::Acquire) == round {
                break;
            }
            answer.wait(seen, Duration::from_secs(60));
        }
        latencies.push(SystemClock.nanos().since(before));
    }
    assert_eq!(runner.close(), RunnerExit::Closed);
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    println!("median of a ring and its answer: {median} ns");
    assert!(median < 20_000_000, "median {median} ns");
}

#[test]
fn closing_wakes_a_blocked_runner() {
    let measured = Arc::new(Measured::default());
    let words = Region::heap(DOORBELL_LENGTH);
    let agent = Quiet {
        measured: measured.clone(),
        now: NanoTime(0),
        started: Duration::ZERO,
    };
    let idle = Adaptive::new(Doorbell::new(words.as_view()), Duration::from_secs(3600));
    let mut runner =
        AgentRunner::start(agent, Box::new(idle), Arc::new(SystemClock), "quiet", no_error()).unwrap();
    while measured.cycles.load(Ordering::Relaxed) <= (Adaptive::SPINS + Adaptive::YIELDS + 1) as usize
        || words.as_view().load_acquire_i32(SLEEPING_OFFSET) == 0
    {
        std::thread::yield_now();
    }
    assert!(runner.is_running());
    assert_eq!(runner.close(), RunnerExit::Closed);
    assert!(!runner.is_running());
}

/// Finds its work only when it looks before a wait; ends with the first cycle that follows on such a look, or when it has
/// had enough cycles without one.
struct FoundLast {
    has_found: bool,
    cycles: usize,
    deadlines: Arc<AtomicUsize>,
}

impl Agent for FoundLast {
    fn role_name(&self) -> &str {
        "found last"
    }
    fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
        self.cycles += 1;
        if self.has_found || self.cycles > 5_000 {
            Err(AgentError::Terminate)
        } else {
            Ok(0)
        }
    }
    fn last_look(&mut self, _now: Now) -> usize {
        self.has_found = true;
        1
    }
    fn next_deadline(&self) -> NanoTime {
        self.deadlines.fetch_add(1, Ordering::Relaxed);
        NanoTime(i64::MAX / 4)
    }
}

#[test]
fn nobody_waits_who_finds_something_at_the_last_look() {
    let deadlines = Arc::new(AtomicUsize::new(0));
    let agent = FoundLast {
        has_found: false,
        cycles: 0,
        deadlines: deadlines.clone(),
    };
    let idle = Adaptive::new(Doorbell::heap(), Duration::from_millis(1));
    let mut runner =
        AgentRunner::start(agent, Box::new(idle), Arc::new(SystemClock), "found", no_error()).unwrap();
    assert_eq!(runner.join(), RunnerExit::Terminated);
    assert_eq!(deadlines.load(Ordering::Relaxed), 0, "it never came to a wait");
}

/// Does what its script says, one entry per cycle.
struct Scripted {
    script: Vec<fn() -> Result<usize, AgentError>>,
    start: fn() -> Result<(), AgentError>,
    closes: Arc<AtomicUsize>,
}

impl Agent for Scripted {
    fn role_name(&self) -> &str {
        "scripted"
    }
    fn on_start(&mut self, _now: Now) -> Result<(), AgentError> {
        (self.start)()
    }
    fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
        self.script
            .pop()
            .map_or(Err(AgentError::Terminate), |step| step())
    }
    fn next_deadline(&self) -> NanoTime {
        NanoTime(0)
    }
    fn on_close(&mut self) {
        self.closes.fetch_add(1, Ordering::Relaxed);
    }
}

fn run(
    script: Vec<fn() -> Result<usize, AgentError>>,
    start: fn() -> Result<(), AgentError>,
) -> (RunnerExit, Vec<String>) {
    let closes = Arc::new(AtomicUsize::new(0));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let agent = Scripted {
        script,
        start,
        closes: closes.clone(),
    };
    let reported = errors.clone();
    let on_error: OnError = Arc::new(move |text: &str| {
        reported
            .lock()
            .expect("nobody panics under it")
            .push(text.to_owned());
    });
    let idle = Adaptive::new(Doorbell::heap(), Adaptive::CAP);
    let mut runner = AgentRunner::start(agent, Box::new(idle), Arc::new(SystemClock), "scripted", on_error)
        .expect("a thread");
    let exit = runner.join();
    assert_eq!(closes.load(Ordering::Relaxed), 1);
    let errors = errors.lock().expect("nobody panics under it").clone();
    (exit, errors)
}

#[test]
fn a_failed_cycle_is_reported_and_the_run_goes_on() {
    let (exit, errors) = run(
        vec![|| Ok(1), || Err(AgentError::failed("disk on fire")), || Ok(0)],
        || Ok(()),
    );
    assert_eq!(exit, RunnerExit::Terminated);
    assert_eq!(errors, ["scripted: disk on fire"]);
}

#[test]
fn a_panic_ends_the_run_in_order_and_is_reported() {
    let (exit, errors) = run(vec![|| panic!("index 7")], || Ok(()));
    assert_eq!(exit, RunnerExit::Panicked);
    assert_eq!(errors, ["scripted: panicked: index 7"]);
}

#[test]
fn a_failed_start_ends_the_run_before_its_first_cycle() {
    let (exit, errors) = run(vec![|| panic!("never reached")], || {
        Err(AgentError::failed("no directory"))
    });
    assert_eq!(exit, RunnerExit::StartFailed);
    assert_eq!(errors, ["scripted: no directory"]);
}
