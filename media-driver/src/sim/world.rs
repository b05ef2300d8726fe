//! A world: hosts with their drivers and clients on a virtual network, run by one thread from one seed.
//!
//! A round gives every agent of every driver and every client a turn, in an order drawn anew. When a whole round did
//! nothing, time jumps to the next thing that anybody waits for: the arrival of a datagram, a deadline of an agent, an
//! offer, a fault. A run has four parts: faults; recovery without faults, at whose end everybody has to get on;
//! draining, at whose end everything offered has arrived; and closing, after which nothing is left.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use fulmar::cnc::CncFile;
use fulmar::directory::MemDirectory;
use fulmar::time::NanoTime;
use fulmar::{Client, ClientError};

use super::checkers::{Checkers, Seen, Violation};
use super::clock::VirtualClock;
use super::network::{Link, SimNetwork};
use super::plan::{Plan, host_address};
use super::prng::Prng;
use super::report::Report;
use super::workload::{Publisher, PublisherPlan, Subscriber, SubscriberPlan};
use crate::driver::MediaDriverInvoker;

mod checks;
mod faults;
mod processes;

use processes::applications;

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// When the worlds begin; far from zero, so that nobody takes a missing time for an early one.
const START: NanoTime = NanoTime(1_000 * SECOND);
const START_EPOCH_MS: i64 = 1_700_000_000_000;

/// Least time that passes when a deadline that is due brings no work.
const STEP_MIN_NS: i64 = 10_000;
/// Most time that passes at once.
const STEP_MAX_NS: i64 = 20 * MILLISECOND;
/// Rounds at one instant after which the agents are taken to keep each other busy for ever.
const ROUNDS_AT_ONCE_MAX: u32 = 200_000;
/// The part of what a publisher wants to offer that it must get rid of when there are no faults: one in so many.
const PROGRESS_LEAST: u64 = 10;
/// How often in a row a deadline may be due at once although nobody has work then.
const DUE_STEPS_MAX: u32 = 1_000;
/// Idle rounds between two looks at all counters.
const ROUNDS_BETWEEN_LOOKS: u64 = 16;
/// Storage of a host, bytes.
const STORAGE: u64 = 1 << 40;
/// Events kept for the report of a failure.
const EVENTS_KEPT: usize = 60;
/// How long the application of a client that died stays away, nanoseconds.
const REPLACED_AFTER_NS: i64 = 300 * MILLISECOND;

struct Host {
    clock: Arc<VirtualClock>,
    directory: Arc<MemDirectory>,
    driver: Option<RunningDriver>,
    /// When a driver is to be started.
    start_at: Option<NanoTime>,
    stalled_until: Vec<Option<NanoTime>>,
    /// What a driver needs besides logs, bytes.
    own_storage: u64,
    starts: u64,
}

struct RunningDriver {
    invoker: MediaDriverInvoker,
    cnc: CncFile,
    /// Tells it from all others of this world.
    id: u64,
}

/// What an application does with its client.
enum Role {
    Publisher(Box<Publisher>),
    Subscriber(Box<Subscriber>),
}

impl Role {
    fn end_faults(&mut self, now: NanoTime) {
        match self {
            Role::Publisher(publisher) => publisher.end_faults(now),
            Role::Subscriber(subscriber) => subscriber.end_faults(),
        }
    }
}

#[derive(Clone)]
enum RolePlan {
    Publisher(PublisherPlan),
    Subscriber(SubscriberPlan),
}

struct Application {
    host: usize,
    stream: u32,
    plan: RolePlan,
    running: Option<(Client, Role)>,
    start_at: NanoTime,
    stalled_until: Option<NanoTime>,
}

#[derive(Clone, Copy, Debug)]
enum Actor {
    Agent { host: usize, agent: usize },
    Application(usize),
}

/// A hash over everything that happens, in order.
#[derive(Clone, Copy)]
struct Trace(u64);

impl Trace {
    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }
}

/// See the module.
pub struct World {
    seed: u64,
    plan: Plan,
    clock: Arc<VirtualClock>,
    network: SimNetwork,
    hosts: Vec<Host>,
    applications: Vec<Application>,
    actors: Vec<Actor>,
    /// Clients that died: their memory is as they left it, and nobody gives them turns.
    dead: Vec<(Client, Role)>,
    checkers: Checkers,
    /// What clients told their error handlers, and which.
    client_errors: Arc<Mutex<Vec<(usize, ClientError)>>>,
    /// For a look at the counters of a driver.
    seen: Vec<Seen>,
    term_length: i64,
    scheduler: Prng,
    claims: Prng,
    laziness: Prng,
    drivers: Prng,
    next_event: usize,
    /// Publishers that were closed, their streams, and when that must have been seen.
    endings: VecDeque<(u64, u32, NanoTime)>,
    /// Whether the faults have ended.
    has_healed: bool,
    is_offering: bool,
    trace: Trace,
    rounds: u64,
    idle_rounds: u64,
    /// How often in a row a deadline was due and nobody did anything.
    due_steps: u32,
    faults: BTreeMap<&'static str, u64>,
    events: VecDeque<(NanoTime, String)>,
    link_changes: Vec<(usize, usize)>,
}

impl World {
    /// Prepares a world; nothing has happened in it yet.
    ///
    /// # Errors
    /// [`Violation`] if a driver can not be started with the settings of the plan.
    pub fn new(seed: u64, plan: Plan) -> Result<World, Violation> {
        let clock = Arc::new(VirtualClock::new(START, START_EPOCH_MS));
        let network = SimNetwork::new(Arc::clone(&clock), seed);
        network.set_default_link(plan.faulty_link);
        network.set_checksum(plan.checksums);
        let hosts = (0..plan.hosts).map(new_host).collect();
        let mut world = World {
            seed,
            clock,
            network,
            hosts,
            applications: applications(&plan),
            actors: Vec::new(),
            dead: Vec::new(),
            checkers: Checkers::new(),
            client_errors: Arc::default(),
            seen: Vec::new(),
            term_length: 0,
            scheduler: Prng::new(seed, "scheduler"),
            claims: Prng::new(seed, "claims"),
            laziness: Prng::new(seed, "laziness"),
            drivers: Prng::new(seed, "drivers"),
            next_event: 0,
            endings: VecDeque::new(),
            has_healed: false,
            is_offering: true,
            trace: Trace(seed),
            rounds: 0,
            idle_rounds: 0,
            due_steps: 0,
            faults: BTreeMap::new(),
            events: VecDeque::new(),
            link_changes: Vec::new(),
            plan,
        };
        let publishers = world.plan.streams.iter().flat_map(|stream| &stream.publishers);
        for (host, plan) in publishers {
            if ["fc=min", "fc=tagged", "ssc=true"]
                .iter()
                .any(|falls| plan.channel.contains(falls))
            {
                world.checkers.let_sender_limits_fall(*host as u64);
            }
        }
        for host in 0..world.hosts.len() {
            // One host is one machine: nothing is lost on the way to itself.
            let address = host_address(host);
            world.network.set_link(address, address, Link::perfect());
            world.start_driver(host)?;
            let agents = world.hosts[host].stalled_until.len();
            let agents = (0..agents).map(|agent| Actor::Agent { host, agent });
            world.actors.extend(agents);
        }
        let applications = (0..world.applications.len()).map(Actor::Application);
        world.actors.extend(applications);
        Ok(world)
    }

    /// The network, for those who listen to it.
    #[must_use]
    pub(super) fn network(&self) -> &SimNetwork {
        &self.network
    }

    /// What came of it so far, and what was wrong.
    #[must_use]
    pub(super) fn report(&self, violation: Option<Violation>) -> Report {
        let stats = self.network.stats();
        let mut trace = self.trace;
        trace.add(self.network.trace());
        trace.add(self.checkers.delivered());
        let mut faults = self.faults.clone();
        for (kind, count) in [
            ("datagram lost", stats.lost),
            ("datagram duplicated", stats.duplicated),
            ("datagram reordered", stats.reordered),
            ("datagram corrupted", stats.corrupted),
            ("datagram cut off", stats.cut),
            ("datagram held by a clog", stats.held),
            ("queue or buffer full", stats.queue_drops + stats.overflow),
            ("datagram too long", stats.oversize),
            ("nobody listened", stats.unreachable),
            ("datagram refused", stats.refused),
            ("publication refused for now", self.checkers.refused_for_now()),
        ] {
            *faults.entry(kind).or_default() += count;
        }
        let seconds = |at: NanoTime| at.since(START) as f64 / 1e9;
        let events = self.events.iter();
        let last_events = events
            .map(|(at, text)| format!("{:.6} {text}", seconds(*at)))
            .collect();
        Report {
            seed: self.seed,
            scenario: self.plan.scenario.clone(),
            simulated_ns: self.clock.nanos().since(START),
            offered: self.checkers.offered(),
            delivered: self.checkers.delivered(),
            delivered_bytes: self.checkers.delivered_bytes(),
            packets: stats.sent,
            rounds: self.rounds,
            faults,
            trace: trace.0,
            violation,
            last_events,
        }
    }

    /// Runs the world to its end.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub(super) fn run_to_end(&mut self) -> Result<(), Violation> {
        self.run_for(self.plan.faults_ns)?;
        self.heal()?;
        self.run_for(self.plan.recovery_ns / 2)?;
        let before = self.checkers.progress();
        self.checkers.begin_well();
        let rest_ns = self.plan.recovery_ns - self.plan.recovery_ns / 2;
        self.run_for(rest_ns)?;
        self.check_progress(&before, rest_ns)?;
        self.stop_offering();
        self.run_until(
            "everything arrives after the faults",
            self.plan.drain_ns,
            |world| Ok(world.checkers.missing()),
        )?;
        self.checkers.check_well()?;
        if self.plan.keeps_images {
            self.checkers.check_unbroken()?;
        }
        self.note("all clients close".to_owned());
        for index in 0..self.applications.len() {
            self.close_application(index);
        }
        self.run_until("nothing is left", self.plan.closing_ns, |world| {
            Ok(world.left_over())
        })?;
        self.check_client_errors()?;
        for host in 0..self.hosts.len() {
            self.check_errors(host)?;
        }
        for host in &mut self.hosts {
            if let Some(mut driver) = host.driver.take() {
                driver.invoker.close();
            }
        }
        self.check_memory()
    }

    fn run_for(&mut self, nanos: i64) -> Result<(), Violation> {
        let end = self.now().plus_nanos(nanos);
        while !end.is_due(self.now()) {
            self.step(end)?;
        }
        Ok(())
    }

    /// Runs until nothing is missing any more; what is after the given time breaks the rule.
    fn run_until(
        &mut self,
        rule: &'static str,
        within_ns: i64,
        missing: impl Fn(&mut Self) -> Result<Option<String>, Violation>,
    ) -> Result<(), Violation> {
        let end = self.now().plus_nanos(within_ns);
        loop {
            let Some(what) = missing(self)? else {
                return Ok(());
            };
            if end.is_due(self.now()) {
                return Err(Violation::new(
                    rule,
                    format!("{what}, {} s later", within_ns / SECOND),
                ));
            }
            let next_look = self.now().plus_nanos(50 * MILLISECOND).earlier(end);
            while !next_look.is_due(self.now()) {
                self.step(next_look)?;
            }
        }
    }

    fn now(&self) -> NanoTime {
        self.clock.nanos()
    }

    /// Rounds until there is nothing to do, then time passes, but not beyond `end`.
    fn step(&mut self, end: NanoTime) -> Result<(), Violation> {
        self.apply_events()?;
        let mut rounds = 0;
        let mut may_miss = true;
        loop {
            let (work, is_whole) = self.round(may_miss)?;
            if work == 0 && is_whole {
                break;
            }
            // Whoever missed a turn in a round that did nothing may be the one with work.
            may_miss = work > 0;
            rounds += 1;
            if rounds > ROUNDS_AT_ONCE_MAX {
                return Err(Violation::new(
                    "work ends",
                    format!("{rounds} rounds without time passing all did something"),
                ));
            }
        }
        self.idle_rounds += 1;
        if self.idle_rounds.is_multiple_of(ROUNDS_BETWEEN_LOOKS) {
            self.check_counters()?;
        }
        let wanted = self.next_deadline(end);
        let least = self.now().plus_nanos(STEP_MIN_NS).earlier(end);
        let is_due = least.since(wanted) > 0;
        self.due_steps = if is_due && rounds == 0 {
            self.due_steps + 1
        } else {
            0
        };
        if self.due_steps > DUE_STEPS_MAX {
            return Err(Violation::new(
                "deadlines that are due bring work",
                format!(
                    "{} times in a row one was due and nobody did anything; due now: {}",
                    self.due_steps,
                    self.who_is_due()
                ),
            ));
        }
        let mut next = if is_due { least } else { wanted };
        // A datagram arrives when it does.
        if let Some(arrival) = self.network.next_arrival()
            && arrival.since(self.now()) > 0
        {
            next = next.earlier(arrival);
        }
        self.clock.advance_to(next);
        for host in &self.hosts {
            host.clock.advance_to(next);
        }
        Ok(())
    }

    /// One turn for everybody who does not miss it; returns the work done and whether nobody missed a turn.
    fn round(&mut self, may_miss: bool) -> Result<(usize, bool), Violation> {
        let now = self.now();
        self.rounds += 1;
        if self.rounds > self.plan.rounds_max {
            return Err(Violation::new(
                "worlds end",
                format!("{} rounds and no end", self.rounds),
            ));
        }
        let mut work = self.network.deliver(now);
        let mut is_whole = true;
        for last in (1..self.actors.len()).rev() {
            let other = self.scheduler.below(last as u64 + 1) as usize;
            self.actors.swap(last, other);
        }
        for index in 0..self.actors.len() {
            let actor = self.actors[index];
            if may_miss && self.scheduler.chance(self.plan.missed_turn_ppm) {
                is_whole = false;
                continue;
            }
            let done = match actor {
                Actor::Agent { host, agent } => self.turn_of_agent(host, agent, now)?,
                Actor::Application(application) => self.turn_of_application(application, now)?,
            };
            if done > 0 {
                self.trace.add(now.0.cast_unsigned());
                self.trace.add(match actor {
                    Actor::Agent { host, agent } => (host * 8 + agent) as u64,
                    Actor::Application(application) => 1000 + application as u64,
                });
                self.trace.add(done as u64);
            }
            work += done;
        }
        Ok((work, is_whole))
    }

    fn turn_of_agent(&mut self, host: usize, agent: usize, now: NanoTime) -> Result<usize, Violation> {
        let on = &mut self.hosts[host];
        if on.stalled_until[agent].is_some_and(|until| !until.is_due(now)) {
            return Ok(0);
        }
        let Some(driver) = &mut on.driver else {
            return Ok(0);
        };
        driver.invoker.do_work_of(agent).map_err(|error| {
            Violation::new(
                "agents do not fail",
                format!("agent {agent} of host {host}: {error}"),
            )
        })
    }

    fn turn_of_application(&mut self, index: usize, now: NanoTime) -> Result<usize, Violation> {
        let application = &mut self.applications[index];
        if application.stalled_until.is_some_and(|until| !until.is_due(now)) {
            return Ok(0);
        }
        let Some((client, role)) = &mut application.running else {
            return Ok(0);
        };
        let work = client.invoke();
        let done = match role {
            Role::Publisher(publisher) => publisher.step(now, client, &mut self.claims, &mut self.checkers),
            Role::Subscriber(subscriber) => {
                subscriber.step(now, client, &mut self.laziness, &mut self.checkers)
            }
        }?;
        Ok(work + done)
    }

    /// The next time, at most `end`, at which anybody has something to do if no datagram comes before.
    fn next_deadline(&self, end: NanoTime) -> NanoTime {
        let now = self.now();
        let mut next = now.plus_nanos(STEP_MAX_NS).earlier(end);
        for host in &self.hosts {
            let Some(driver) = &host.driver else {
                if let Some(start_at) = host.start_at {
                    next = next.earlier(start_at);
                }
                continue;
            };
            for (agent, stalled_until) in host.stalled_until.iter().enumerate() {
                let deadline = match stalled_until {
                    Some(until) if !until.is_due(now) => *until,
                    _ => driver.invoker.next_deadline_of(agent),
                };
                next = next.earlier(deadline);
            }
        }
        for application in &self.applications {
            let deadline = match (&application.running, application.stalled_until) {
                (Some(_), Some(until)) if !until.is_due(now) => until,
                (Some((client, role)), _) => {
                    let deadline = client.next_deadline();
                    match role {
                        Role::Publisher(publisher) => deadline.earlier(publisher.next_deadline(now)),
                        Role::Subscriber(_) => deadline,
                    }
                }
                (None, _) if self.is_offering => application.start_at,
                (None, _) => continue,
            };
            next = next.earlier(deadline);
        }
        if let Some((at, _)) = self.plan.events.get(self.next_event) {
            next = next.earlier(START.plus_nanos(*at));
        }
        next
    }

    fn note(&mut self, text: String) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back((self.clock.nanos(), text));
    }
}

fn new_host(index: usize) -> Host {
    Host {
        clock: Arc::new(VirtualClock::new(START, START_EPOCH_MS)),
        directory: Arc::new(MemDirectory::new(format!("host-{index}"))),
        driver: None,
        start_at: None,
        stalled_until: Vec::new(),
        own_storage: 0,
        starts: 0,
    }
}
