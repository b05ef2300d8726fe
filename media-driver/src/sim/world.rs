//! A world: hosts with their drivers and clients on a virtual network, run by one thread from one seed.
//!
//! A round gives every agent of every driver and every client a turn, in an order drawn anew. When a whole round did
//! nothing, time jumps to the next thing that anybody waits for: the arrival of a datagram, a deadline of an agent, an
//! offer, a fault. A run has four parts: faults; recovery without faults, at whose end everybody has to get on;
//! draining, at whose end everything offered has arrived; and closing, after which nothing is left.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use fulmar::cnc::CncFile;
use fulmar::counters::type_id;
use fulmar::directory::{Directory, MemDirectory};
use fulmar::report::{ErrorRecord, error_log};
use fulmar::time::{Clock, NanoTime};
use fulmar::{Client, ClientError, ClientSettings};

use super::checkers::{Checkers, Growing, RUNS_OF_HOST, Seen, Violation};
use super::clock::VirtualClock;
use super::network::{Link, SimNetwork};
use super::prng::Prng;
use super::report::Report;
use super::workload::{Publisher, PublisherPlan, Subscriber, SubscriberPlan};
use crate::conductor::OsSocketBuffers;
use crate::config::DriverSettings;
use crate::driver::{MediaDriverInvoker, Surroundings};

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

/// What a world is made of and what is done to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario's name, for the line that replays it.
    pub scenario: String,
    /// How many hosts there are; see [`host_address`].
    pub hosts: usize,
    /// Settings of every driver.
    pub settings: Vec<(&'static str, String)>,
    /// Between any two addresses, as long as there are faults.
    pub faulty_link: Link,
    /// Afterwards.
    pub healed_link: Link,
    /// Whether datagrams that were corrupted on their way are found out by their checksum, as those of UDP are.
    pub checksums: bool,
    /// Who talks to whom.
    pub streams: Vec<StreamPlan>,
    /// What happens when, nanoseconds from the start; in order.
    pub events: Vec<(i64, Event)>,
    /// In how many of a million cases an agent misses a turn.
    pub missed_turn_ppm: u32,
    /// Whether the faults are too small to end an image: then none may end.
    pub keeps_images: bool,
    /// How long subscribers may take to get everything of a publisher that was closed and to see its image end,
    /// nanoseconds; `None`: that is not looked at.
    pub ends_within_ns: Option<i64>,
    /// How long the faults last, nanoseconds.
    pub faults_ns: i64,
    /// How long drivers and clients have to find each other again, nanoseconds.
    pub recovery_ns: i64,
    /// How long everything may take to arrive, nanoseconds.
    pub drain_ns: i64,
    /// How long drivers may take to clean up, nanoseconds.
    pub closing_ns: i64,
    /// Rounds after which the world is taken to go on for ever; one of the swarm takes some hundred thousand.
    pub rounds_max: u64,
}

impl Plan {
    /// How many clients there are: one of each publisher and of each subscriber.
    #[must_use]
    pub fn client_count(&self) -> usize {
        let of = |stream: &StreamPlan| stream.publishers.len() + stream.subscribers.len();
        self.streams.iter().map(of).sum()
    }
}

/// A stream: who publishes and who subscribes, and on which hosts. Each of them is an application with a client.
#[derive(Clone, Debug, Default)]
pub struct StreamPlan {
    /// Publishers.
    pub publishers: Vec<(usize, PublisherPlan)>,
    /// Subscribers.
    pub subscribers: Vec<(usize, SubscriberPlan)>,
}

/// A fault that has its time.
#[derive(Clone, Debug)]
pub enum Event {
    /// The link from one host to another changes, in that direction.
    Link {
        /// From this host.
        from: usize,
        /// To this one.
        to: usize,
        /// What it is like from now on.
        link: Link,
        /// The fault's name, for the report.
        kind: &'static str,
    },
    /// An agent gets no turns.
    StallAgent {
        /// Whose driver.
        host: usize,
        /// Which agent: 0 resources, 1 conductor, 2 sender, 3 receiver.
        agent: usize,
        /// For how long, nanoseconds.
        for_ns: i64,
    },
    /// A client and its application get no turns.
    StallClient {
        /// Which, in the order of the plan.
        client: usize,
        /// For how long, nanoseconds.
        for_ns: i64,
    },
    /// A client is closed in order and started again.
    CloseClient {
        /// Which, in the order of the plan.
        client: usize,
        /// How long it stays away, nanoseconds.
        away_ns: i64,
    },
    /// A client closes its publication or subscription and adds it again at once.
    ReopenStream {
        /// Which, in the order of the plan.
        client: usize,
    },
    /// A client dies, a publisher in the middle of a claim, and its application is started again.
    KillClient {
        /// Which, in the order of the plan.
        client: usize,
    },
    /// A driver ends and a new one is started in its directory.
    RestartDriver {
        /// Whose.
        host: usize,
        /// Whether it is killed rather than closed.
        killed: bool,
        /// How long there is none, nanoseconds.
        down_ns: i64,
    },
    /// Sockets do not take all datagrams.
    RefuseSends {
        /// How many of a million they do not take.
        ppm: u32,
        /// The number of the error that they say; `None`: that there is no room now.
        errno: Option<i32>,
    },
    /// There is no room for more logs on a host, or there is again.
    Storage {
        /// On this one.
        host: usize,
        /// Whether there is none.
        is_short: bool,
    },
    /// The wall clock of a host jumps.
    StepWallClock {
        /// Whose.
        host: usize,
        /// By how much, milliseconds.
        ms: i64,
    },
}

/// The address of a host.
#[must_use]
pub fn host_address(host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host as u8 + 1))
}

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

    /// Agents and clients with a deadline that is due.
    fn who_is_due(&self) -> String {
        let now = self.now();
        let mut due = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(driver) = &host.driver else {
                continue;
            };
            let agents = 0..host.stalled_until.len();
            let agents = agents.filter(|agent| driver.invoker.next_deadline_of(*agent).is_due(now));
            due.extend(agents.map(|agent| format!("agent {agent} of host {index}")));
        }
        for (index, application) in self.applications.iter().enumerate() {
            if let Some((client, _)) = &application.running
                && client.next_deadline().is_due(now)
            {
                due.push(format!("client {index}"));
            }
        }
        due.join(", ")
    }

    // Checks

    fn check_counters(&mut self) -> Result<(), Violation> {
        let now = self.now();
        for host in &self.hosts {
            let Some(driver) = &host.driver else {
                continue;
            };
            let counters = driver.cnc.counters();
            self.seen.clear();
            counters.for_each_value(|id, kind, value| {
                if kind != type_id::SYSTEM {
                    let counter = Growing {
                        driver: driver.id,
                        counter: id.0,
                        registration: counters.registration_id(id).unwrap_or(0),
                        reference: counters.reference_id(id).unwrap_or(0),
                    };
                    self.seen.push(Seen { counter, kind, value });
                }
            });
            self.checkers.on_counters(&self.seen, self.term_length, now)?;
        }
        Ok(())
    }

    /// That every publisher was taken a share of what it wanted to offer since `before`, `for_ns` ago.
    fn check_progress(&self, before: &[(u64, u64)], for_ns: i64) -> Result<(), Violation> {
        let now = self.checkers.progress();
        for application in &self.applications {
            let Some((_, Role::Publisher(publisher))) = &application.running else {
                continue;
            };
            let count = |counts: &[(u64, u64)]| {
                let found = counts.iter().find(|(id, _)| *id == publisher.id());
                found.map_or(0, |(_, count)| *count)
            };
            let (offered, wanted) = (count(&now) - count(before), publisher.messages_in(for_ns));
            if offered < (wanted / PROGRESS_LEAST).max(1) {
                return Err(Violation::new(
                    "everybody gets on after the faults",
                    format!(
                        "publisher {} got rid of {offered} messages in {:.1} s and wanted to offer {wanted}",
                        publisher.id(),
                        for_ns as f64 / SECOND as f64
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Takes a note of a publisher that is about to be closed.
    fn await_ending(&mut self, index: usize) {
        let application = &self.applications[index];
        if let Some(within_ns) = self.plan.ends_within_ns
            && let Some((_, Role::Publisher(publisher))) = &application.running
        {
            let by = self.now().plus_nanos(within_ns);
            self.endings.push_back((publisher.id(), application.stream, by));
        }
    }

    /// That all subscribers of a publisher that was closed got what it offered and have no image of it any more.
    fn check_ending(&mut self, publisher: u64, stream: u32) -> Result<(), Violation> {
        let Some((session_id, offered)) = self.checkers.latest_of(publisher) else {
            return Ok(());
        };
        for application in self.applications.iter_mut().filter(|one| one.stream == stream) {
            let Some((_, Role::Subscriber(subscriber))) = &mut application.running else {
                continue;
            };
            let taken = self.checkers.taken_by(subscriber.id(), publisher);
            let has_image = subscriber.sessions().contains(&session_id);
            if taken < offered || has_image {
                return Err(Violation::new(
                    "the end of a stream is told",
                    format!(
                        "subscriber {} has {taken} of the {offered} messages of publisher {publisher}, which was closed; {} \
                         its image",
                        subscriber.id(),
                        if has_image { "it still has" } else { "it lost" }
                    ),
                ));
            }
        }
        *self.faults.entry("end of stream seen").or_default() += 1;
        Ok(())
    }

    /// What a driver still holds although all clients are gone.
    fn left_over(&self) -> Option<String> {
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(driver) = &host.driver else {
                continue;
            };
            let logs = host.directory.logs().unwrap_or_default();
            if let Some(log) = logs.first() {
                return Some(format!("host {index} has {} logs: {log}", logs.len()));
            }
            let mut left = None;
            driver.cnc.counters().for_each(|record| {
                if record.type_id != type_id::SYSTEM {
                    left.get_or_insert(record.label);
                }
            });
            if let Some(label) = left {
                return Some(format!("host {index} has the counter {label:?}"));
            }
        }
        let sockets = self.network.open_sockets();
        (sockets > 0).then(|| format!("{sockets} sockets are open"))
    }

    /// That the driver of a host has nothing in its error log but what the faults explain.
    fn check_errors(&self, index: usize) -> Result<(), Violation> {
        let Some(driver) = &self.hosts[index].driver else {
            return Ok(());
        };
        let errors = error_log::read_all(&driver.cnc.error_log());
        let unexpected = |error: &&ErrorRecord| !self.is_explained(index, &error.text);
        match errors.iter().find(unexpected) {
            None => Ok(()),
            Some(error) => Err(Violation::new(
                "drivers report no errors",
                format!("host {index}, {} times: {}", error.count, error.text),
            )),
        }
    }

    /// Whether the faults of this world may have a driver of this host report that.
    fn is_explained(&self, of: usize, text: &str) -> bool {
        self.plan.events.iter().any(|(_, event)| match event {
            // A client that died holds its addresses until it times out, and one that was closed until its images are
            // gone.
            Event::KillClient { .. } | Event::CloseClient { .. } | Event::ReopenStream { .. } => {
                text.contains(&address_in_use()) || text.contains("the channel is just being closed")
            }
            Event::RefuseSends {
                errno: Some(errno), ..
            } => text.contains("a datagram was not sent") && text.ends_with(&format!("(os error {errno})")),
            Event::Storage { host, is_short: true } => {
                *host == of && text.contains("insufficient usable storage for a new log")
            }
            _ => false,
        })
    }

    fn check_client_errors(&self) -> Result<(), Violation> {
        let errors = self.client_errors.lock().unwrap_or_else(PoisonError::into_inner);
        match errors
            .iter()
            .find(|(client, error)| !self.is_expected(*client, error))
        {
            None => Ok(()),
            Some((client, error)) => Err(Violation::new(
                "clients report no errors",
                format!("client {client}: {error}"),
            )),
        }
    }

    /// Whether the faults of this world may do that.
    fn is_expected(&self, of: usize, error: &ClientError) -> bool {
        let driver_is_lost = matches!(
            error,
            ClientError::DriverDied
                | ClientError::DriverShutDown
                | ClientError::DriverSilent(_)
                | ClientError::DriverReplaced
        );
        let restarts = |(_, event): &(i64, Event)| matches!(event, Event::RestartDriver { .. });
        // Whoever stood still may hear of an image only when that is gone again, with its log.
        let stalls =
            |(_, event): &(i64, Event)| matches!(event, Event::StallClient { client, .. } if *client == of);
        let image_is_gone = matches!(
            error,
            ClientError::ImageUnusable { reason, .. } if reason.ends_with("does not exist")
        );
        let mut events = self.plan.events.iter();
        (driver_is_lost && events.clone().any(restarts))
            || (image_is_gone && events.any(stalls))
            || self.is_explained(self.applications[of].host, &error.to_string())
    }

    /// When drivers and clients are gone nobody holds any of their memory.
    fn check_memory(&mut self) -> Result<(), Violation> {
        self.dead.clear();
        // A claim that nobody ever ends holds its log: here it is the simulated process that died.
        let claims_are_open = self.faults.contains_key("claim left open");
        for (index, host) in self.hosts.iter().enumerate() {
            let failed =
                |what: String| Violation::new("memory is given back", format!("host {index}: {what}"));
            host.directory
                .delete()
                .map_err(|error| failed(error.to_string()))?;
            let held = host.directory.held();
            let is_leak = |path: &&String| !(claims_are_open && path.ends_with(".logbuffer"));
            if let Some(path) = held.iter().find(is_leak) {
                return Err(failed(format!("somebody holds {path}")));
            }
        }
        Ok(())
    }

    // Faults

    fn apply_events(&mut self) -> Result<(), Violation> {
        let now = self.now();
        while let Some((publisher, stream, by)) = self.endings.front().copied()
            && by.is_due(now)
        {
            self.endings.pop_front();
            self.check_ending(publisher, stream)?;
        }
        while let Some((at, event)) = self.plan.events.get(self.next_event)
            && START.plus_nanos(*at).is_due(now)
        {
            let event = event.clone();
            self.next_event += 1;
            self.apply(event)?;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].start_at.is_some_and(|at| at.is_due(now)) {
                self.start_driver(host)?;
            }
        }
        for index in 0..self.applications.len() {
            let application = &self.applications[index];
            if application.running.is_none() && self.is_offering && application.start_at.is_due(now) {
                self.start_application(index)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), Violation> {
        self.note(format!("{event:?}"));
        let now = self.now();
        let kind = match event {
            Event::Link { from, to, link, kind } => {
                self.network.set_link(host_address(from), host_address(to), link);
                self.link_changes.push((from, to));
                kind
            }
            Event::StallAgent { host, agent, for_ns } => {
                self.hosts[host].stalled_until[agent] = Some(now.plus_nanos(for_ns));
                "agent stalled"
            }
            Event::StallClient { client, for_ns } => {
                self.applications[client].stalled_until = Some(now.plus_nanos(for_ns));
                "client stalled"
            }
            Event::CloseClient { client, away_ns } => {
                self.await_ending(client);
                self.close_application(client);
                self.applications[client].start_at = now.plus_nanos(away_ns);
                "client closed"
            }
            Event::ReopenStream { client } => {
                self.reopen_stream(client)?;
                "stream opened again"
            }
            Event::KillClient { client } => {
                self.kill_application(client);
                "client killed"
            }
            Event::RestartDriver {
                host,
                killed,
                down_ns,
            } => {
                self.check_errors(host)?;
                let on = &mut self.hosts[host];
                if let Some(driver) = on.driver.take() {
                    if killed {
                        driver.invoker.abandon();
                    } else {
                        drop(driver);
                    }
                }
                on.start_at = Some(now.plus_nanos(down_ns));
                if killed { "driver killed" } else { "driver closed" }
            }
            Event::RefuseSends { ppm, errno } => {
                self.network.set_refused_sends(ppm);
                self.network.set_refusal_error(errno);
                if ppm > 0 {
                    "sends refused"
                } else {
                    "sends taken again"
                }
            }
            Event::Storage { host, is_short } => {
                let host = &self.hosts[host];
                // A driver that starts finds room for its own files.
                let capacity = if is_short { host.own_storage } else { STORAGE };
                host.directory.set_capacity(capacity);
                if is_short {
                    "storage short"
                } else {
                    "storage enough again"
                }
            }
            Event::StepWallClock { host, ms } => {
                self.hosts[host].clock.step_wall_clock(ms);
                "wall clock stepped"
            }
        };
        *self.faults.entry(kind).or_default() += 1;
        Ok(())
    }

    /// Ends all faults.
    fn heal(&mut self) -> Result<(), Violation> {
        self.note("all faults end".to_owned());
        let now = self.now();
        self.next_event = self.plan.events.len();
        self.has_healed = true;
        self.network.set_refused_sends(0);
        self.network.set_default_link(self.plan.healed_link);
        for (from, to) in core::mem::take(&mut self.link_changes) {
            self.network
                .set_link(host_address(from), host_address(to), self.plan.healed_link);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].stalled_until.fill(None);
            self.hosts[host].directory.set_capacity(STORAGE);
            if self.hosts[host].driver.is_none() {
                self.start_driver(host)?;
            }
        }
        for application in &mut self.applications {
            application.stalled_until = None;
            application.start_at = application.start_at.earlier(now);
            if let Some((_, role)) = &mut application.running {
                role.end_faults(now);
            }
        }
        Ok(())
    }

    fn stop_offering(&mut self) {
        self.note("publishers stop".to_owned());
        self.is_offering = false;
        for application in &mut self.applications {
            if let Some((_, Role::Publisher(publisher))) = &mut application.running {
                publisher.stop_offering();
            }
        }
    }

    // Drivers and applications

    fn start_driver(&mut self, index: usize) -> Result<(), Violation> {
        let failed = |reason: String| Violation::new("drivers start", format!("host {index}: {reason}"));
        let address = host_address(index);
        let host = &mut self.hosts[index];
        let mut settings = DriverSettings::defaults();
        let dir = host.directory.path().to_owned();
        let own = [("aeron.dir", dir.as_str())];
        let given = self
            .plan
            .settings
            .iter()
            .map(|(key, value)| (*key, value.as_str()));
        for (key, value) in own.into_iter().chain(given) {
            settings
                .set(key, value)
                .map_err(|error| failed(error.to_string()))?;
        }
        let context = settings.conclude().map_err(|error| failed(error.to_string()))?;
        self.term_length = i64::from(context.term_buffer_length);
        let surroundings = Surroundings {
            seed: self.drivers.next_u64(),
            proof_secret: self.drivers.next_u64(),
            os_buffers: OsSocketBuffers {
                default_send_length: 212_992,
                default_receive_length: 212_992,
            },
            interfaces: Box::new(SimNetwork::interfaces(&[address])),
        };
        let mut invoker = MediaDriverInvoker::assemble_within(
            context,
            Arc::clone(&host.directory) as Arc<dyn Directory>,
            Arc::clone(&host.clock) as Arc<dyn Clock>,
            self.network.host(&[address]),
            surroundings,
        )
        .map_err(|error| failed(error.to_string()))?;
        // Clients that look for it find its heartbeat.
        invoker.do_work().map_err(|error| failed(error.to_string()))?;
        let cnc = host
            .directory
            .map_cnc()
            .map_err(|error| failed(error.to_string()))
            .and_then(|region| CncFile::open(&region).map_err(|error| failed(error.to_string())))?;
        let agents = invoker.agent_count();
        if host.stalled_until.is_empty() {
            host.stalled_until = vec![None; agents];
        }
        host.starts += 1;
        host.own_storage = host.directory.allocated();
        host.start_at = None;
        host.driver = Some(RunningDriver {
            invoker,
            cnc,
            id: index as u64 * RUNS_OF_HOST + host.starts,
        });
        self.note(format!("the driver of host {index} starts"));
        Ok(())
    }

    fn start_application(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now();
        let host = self.applications[index].host;
        let on = &self.hosts[host];
        if on.driver.is_none() {
            // A client that looks for a driver waits; here it looks again later.
            self.applications[index].start_at = now.plus_nanos(50 * MILLISECOND);
            return Ok(());
        }
        let failed = |reason: String| Violation::new("clients connect", format!("client {index}: {reason}"));
        let errors = Arc::clone(&self.client_errors);
        let on_error = move |error: &ClientError| {
            let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
            errors.push((index, error.clone()));
        };
        let settings = ClientSettings {
            on_error: Some(Arc::new(on_error)),
            driver_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_millis(500),
            resource_linger: Duration::from_secs(1),
            name: String::new(),
            invoker: true,
            pre_touch: false,
            ..ClientSettings::with_dir(on.directory.path())
        };
        let client = Client::connect_with(
            settings,
            Arc::clone(&on.directory) as Arc<dyn Directory>,
            Arc::clone(&on.clock) as Arc<dyn Clock>,
        )
        .map_err(|error| failed(error.to_string()))?;
        let role = self.new_role(index, &client)?;
        let does = match &self.applications[index].plan {
            RolePlan::Publisher(plan) => format!("publishes {} stream {}", plan.channel, plan.stream_id),
            RolePlan::Subscriber(plan) => format!("subscribes to {} stream {}", plan.channel, plan.stream_id),
        };
        self.applications[index].running = Some((client, role));
        self.note(format!("client {index} starts on host {host} and {does}"));
        Ok(())
    }

    /// Adds the publication or subscription of an application.
    fn new_role(&mut self, index: usize, client: &Client) -> Result<Role, Violation> {
        let now = self.now();
        let application = &self.applications[index];
        let stream = application.stream;
        let failed = |reason: String| Violation::new("clients connect", format!("client {index}: {reason}"));
        let mut role = match application.plan.clone() {
            RolePlan::Publisher(plan) => {
                let id = self.checkers.add_publisher(stream, plan.lengths);
                Publisher::new(client, plan, id, now).map(|publisher| Role::Publisher(Box::new(publisher)))
            }
            RolePlan::Subscriber(plan) => {
                let id = self.checkers.add_subscriber(stream);
                if plan.may_be_left_behind {
                    self.checkers.let_be_left_behind(id);
                }
                Subscriber::new(client, plan, id, now)
                    .map(|subscriber| Role::Subscriber(Box::new(subscriber)))
            }
        }
        .map_err(|error| failed(error.to_string()))?;
        if self.has_healed {
            role.end_faults(now);
        }
        Ok(role)
    }

    fn reopen_stream(&mut self, index: usize) -> Result<(), Violation> {
        let host = self.applications[index].host;
        if self.hosts[host].driver.is_none() {
            // Without a driver it can not add anything: all of it starts again later.
            self.close_application(index);
        } else if let Some((client, role)) = self.take_application(index) {
            drop(role);
            let role = self.new_role(index, &client)?;
            self.applications[index].running = Some((client, role));
        }
        Ok(())
    }

    fn close_application(&mut self, index: usize) {
        if let Some((client, role)) = self.take_application(index) {
            drop(role);
            client.close();
        }
    }

    fn kill_application(&mut self, index: usize) {
        if let Some((client, mut role)) = self.take_application(index) {
            if let Role::Publisher(publisher) = &mut role
                && publisher.claim_and_vanish()
            {
                *self.faults.entry("claim left open").or_default() += 1;
            }
            self.dead.push((client, role));
        }
    }

    fn take_application(&mut self, index: usize) -> Option<(Client, Role)> {
        let start_at = self.now().plus_nanos(REPLACED_AFTER_NS);
        let application = &mut self.applications[index];
        application.start_at = start_at;
        application.stalled_until = None;
        let running = application.running.take()?;
        match &running.1 {
            Role::Publisher(publisher) => self.checkers.on_publisher_gone(publisher.id()),
            Role::Subscriber(subscriber) => self.checkers.on_subscriber_gone(subscriber.id()),
        }
        Some(running)
    }

    fn note(&mut self, text: String) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back((self.clock.nanos(), text));
    }
}

/// What the system says of an address that somebody else has.
fn address_in_use() -> String {
    io::Error::from_raw_os_error(libc::EADDRINUSE).to_string()
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

fn applications(plan: &Plan) -> Vec<Application> {
    let application = |host: usize, stream: usize, plan: RolePlan| Application {
        host,
        stream: stream as u32,
        plan,
        running: None,
        start_at: START,
        stalled_until: None,
    };
    let mut all = Vec::new();
    for (stream, of) in plan.streams.iter().enumerate() {
        for (host, plan) in &of.publishers {
            all.push(application(*host, stream, RolePlan::Publisher(plan.clone())));
        }
        for (host, plan) in &of.subscribers {
            all.push(application(*host, stream, RolePlan::Subscriber(plan.clone())));
        }
    }
    all
}
