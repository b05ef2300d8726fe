//! The sender's duty cycle: commands, one send pass over all publications, control frames, and now and then what is
//! due by time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use fulmar::agent::{Agent, AgentError};
use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::sync::Arc;
use fulmar::time::{NanoTime, Now};

use super::round_robin::RoundRobin;
use crate::commands::{EndpointId, Lane, NetworkEvent, SenderCommand};
use crate::io::{ReceiveBatch, Registration};
use crate::media::send_endpoint::SendEndpoint;
use crate::network_counters::NetworkCounters;
use crate::protocol::deadline_queue::DeadlineQueue;
use crate::protocol::stall_clock::StallClock;
use crate::stream::publication_sender::{SHORT_PAUSE_NS, SenderWatch};
use crate::stream::resting::Resting;

/// Commands taken per duty cycle, so that data does not wait for a burst of them.
const COMMANDS_MAX: usize = 4;

/// Control frames that make one poll are taken again at once this often while buffers come back full.
const POLLS_MAX: usize = 4;

/// An agent that is invoked looks for control frames this often while it has nothing to send, ns. It runs without a
/// pause, and a look costs as much as the rest of such a cycle.
const CONTROL_LOOK_INTERVAL_NS: i64 = 10_000;

/// A pass ends when it has sent so much, and the next one goes on with the publications that are left, bytes: half of what
/// a socket takes by default. More at once, of many publications together, is lost where the receiver has its turn in
/// the same thread.
const PASS_BYTES: usize = 64 << 10;

/// Timers of idle streams are rounded up to a multiple of this, so that one wake-up serves many streams, ns.
const TIMER_GRID_NS: i64 = 4_000_000;

/// After the system refused to send for another reason than lack of room, which may last, timers are not due earlier
/// than this, ns: unsent data alone must not keep the agent awake while the network is gone.
const FAILURE_PAUSE_NS: i64 = 1_000_000;

/// What a [`SenderAgent`] is made from.
#[derive(Debug)]
pub struct SenderParts {
    /// From the conductor.
    pub commands: Lane<SenderCommand>,
    /// To the conductor.
    pub events: Lane<NetworkEvent>,
    /// The system counters.
    pub system: Arc<NetworkCounters>,
    /// Where sockets say which thread they wake; `None` for an agent that is invoked.
    pub registration: Option<Registration>,
    /// Duty cycles that sent something per poll of the control sockets.
    pub status_poll_ratio: usize,
    /// Control sockets are polled at least this often, ns: half the interval of status messages.
    pub status_poll_interval_ns: i64,
    /// Buffers for control frames.
    pub receive_capacity: usize,
    /// How often silent addresses are looked for, ns; 0 for never.
    pub resolution_interval_ns: i64,
    /// Duty cycles that take longer are counted, ns.
    pub cycle_threshold_ns: i64,
    /// The longest sleep of an agent that has nothing to do, ns.
    pub longest_idle_ns: i64,
}

/// The sender.
pub struct SenderAgent {
    commands: Lane<SenderCommand>,
    events: Lane<NetworkEvent>,
    /// Events that the lane had no room for, oldest first.
    backlog: VecDeque<NetworkEvent>,
    system: Arc<NetworkCounters>,
    registration: Option<Registration>,
    #[expect(
        clippy::vec_box,
        reason = "they come and go in boxes, which are neither made nor freed on this thread"
    )]
    endpoints: Vec<Box<SendEndpoint>>,
    /// Every publication: index of its endpoint, index in its endpoint.
    routes: Vec<(usize, usize)>,
    /// For each endpoint the place of its first publication in `routes`.
    first_routes: Vec<usize>,
    /// Which of `routes` a pass visits, and when the others have something to do.
    resting: Resting<SenderWatch>,
    deadlines: DeadlineQueue,
    /// Endpoints with something to send or to say at the end of the pass, and which those are.
    used: Vec<usize>,
    is_used: Vec<bool>,
    order: RoundRobin,
    batch: ReceiveBatch,
    cycles_since_poll: usize,
    status_poll_ratio: usize,
    status_poll_interval_ns: i64,
    next_status_poll: NanoTime,
    /// When control frames are looked for again after a look that found none, on an agent that nobody wakes.
    next_control_look: Option<NanoTime>,
    /// Whether the last cycle left that look to a later one.
    owes_control_look: bool,
    resolution_interval_ns: i64,
    next_resolution: NanoTime,
    cycle_threshold_ns: i64,
    last_cycle: Option<NanoTime>,
    was_idle: bool,
    /// A socket refused something in the last pass.
    has_failed: bool,
    /// Receivers are not forgotten for the time in which their messages were not looked at.
    stall: StallClock,
    /// What `stall` says in this cycle.
    now: NanoTime,
}

/// Events kept for the conductor while its lane is full. What may be lost without harm is dropped beyond it.
const BACKLOG_MAX: usize = 256;

impl SenderAgent {
    /// A sender without endpoints.
    #[must_use]
    pub fn new(parts: SenderParts, now: NanoTime) -> Self {
        let SenderParts {
            commands,
            events,
            system,
            registration,
            status_poll_ratio,
            status_poll_interval_ns,
            receive_capacity,
            resolution_interval_ns,
            cycle_threshold_ns,
            longest_idle_ns,
        } = parts;
        Self {
            commands,
            events,
            backlog: VecDeque::with_capacity(BACKLOG_MAX),
            system,
            registration,
            endpoints: Vec::new(),
            routes: Vec::new(),
            first_routes: Vec::new(),
            resting: Resting::default(),
            deadlines: DeadlineQueue::new(now),
            used: Vec::new(),
            is_used: Vec::new(),
            order: RoundRobin::default(),
            batch: ReceiveBatch::new(receive_capacity),
            cycles_since_poll: 0,
            status_poll_ratio,
            status_poll_interval_ns,
            next_status_poll: now,
            next_control_look: None,
            owes_control_look: false,
            resolution_interval_ns,
            next_resolution: now.plus_nanos(resolution_interval_ns),
            cycle_threshold_ns,
            last_cycle: None,
            was_idle: true,
            has_failed: false,
            stall: StallClock::new(now, longest_idle_ns),
            now,
        }
    }

    // Commands

    fn take_commands(&mut self, now: NanoTime) -> usize {
        let mut taken = 0;
        while taken < COMMANDS_MAX {
            let Some(command) = self.commands.poll() else {
                break;
            };
            self.on_command(now, command);
            taken += 1;
        }
        taken
    }

    fn on_command(&mut self, now: NanoTime, command: SenderCommand) {
        match command {
            SenderCommand::AddEndpoint(endpoint) => self.add_endpoint(now, endpoint),
            SenderCommand::RemoveEndpoint(id) => self.remove_endpoint(id),
            SenderCommand::AddPublication {
                endpoint,
                mut publication,
            } => match self.find(endpoint) {
                Some(endpoint) => {
                    publication.start(now);
                    endpoint.add_publication(publication);
                    self.route();
                }
                None => self.raise(NetworkEvent::PublicationReleased(publication)),
            },
            SenderCommand::RemovePublication {
                endpoint,
                registration_id,
            } => {
                let removed = self
                    .find(endpoint)
                    .and_then(|endpoint| endpoint.remove_publication(registration_id));
                if let Some(publication) = removed {
                    self.route();
                    self.raise(NetworkEvent::PublicationReleased(publication));
                }
            }
            SenderCommand::AddDestination {
                endpoint,
                destination,
            } => {
                if let Some(endpoint) = self.find(endpoint) {
                    endpoint.add_destination(now, *destination);
                }
            }
            SenderCommand::RemoveDestination {
                endpoint,
                channel,
                address,
            } => {
                if let Some(endpoint) = self.find(endpoint) {
                    endpoint.remove_destination(&channel, address);
                }
            }
            SenderCommand::RemoveDestinationById {
                endpoint,
                registration_id,
            } => {
                if let Some(endpoint) = self.find(endpoint) {
                    endpoint.remove_destination_by_id(registration_id);
                }
            }
            SenderCommand::Resolved {
                endpoint,
                destination,
                name,
                address,
            } => {
                let resolved = self
                    .find(endpoint)
                    .map(|endpoint| endpoint.on_resolved(destination, address));
                if let Some(Err(error)) = resolved {
                    self.raise(NetworkEvent::Error {
                        code: ErrorCode::GenericError,
                        key: "re-resolution",
                        text: format!("{name} is at {address} now, but {error}"),
                    });
                }
            }
        }
    }

    fn add_endpoint(&mut self, now: NanoTime, mut endpoint: Box<SendEndpoint>) {
        endpoint.start(now);
        if let Some(registration) = &self.registration
            && let Err(error) = endpoint.register(registration)
        {
            self.raise(NetworkEvent::Error {
                code: ErrorCode::GenericError,
                key: "registration of a socket",
                text: format!("{}: {error}", endpoint.channel()),
            });
        }
        self.endpoints.push(endpoint);
        self.route();
    }

    fn remove_endpoint(&mut self, id: EndpointId) {
        if let Some(index) = self.endpoints.iter().position(|endpoint| endpoint.id() == id) {
            let mut endpoint = self.endpoints.remove(index);
            endpoint.release();
            self.route();
            self.raise(NetworkEvent::SendEndpointClosed(endpoint));
        }
    }

    fn find(&mut self, id: EndpointId) -> Option<&mut SendEndpoint> {
        self.endpoints
            .iter_mut()
            .find(|endpoint| endpoint.id() == id)
            .map(|endpoint| &mut **endpoint)
    }

    fn route(&mut self) {
        self.routes.clear();
        self.first_routes.clear();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            self.first_routes.push(self.routes.len());
            self.routes
                .extend((0..endpoint.publications().len()).map(|index| (at, index)));
        }
        self.resting.reset(self.routes.len());
        self.deadlines.reset(self.routes.len());
        self.used.clear();
        self.is_used.clear();
        self.is_used.resize(self.endpoints.len(), false);
        (0..self.endpoints.len()).for_each(|at| self.use_endpoint(at));
    }

    /// The endpoint has something to send or to say at the end of the pass.
    #[inline]
    fn use_endpoint(&mut self, at: usize) {
        if !core::mem::replace(&mut self.is_used[at], true) {
            self.used.push(at);
        }
    }

    fn raise(&mut self, event: NetworkEvent) {
        raise(&self.events, &mut self.backlog, &self.system, event);
    }

    fn deliver_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(event) = self.events.offer(event) {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    // The network

    fn send(&mut self, now: NanoTime) -> Pass {
        if self.routes.is_empty() && self.used.is_empty() {
            return Pass::default();
        }
        while let Some(route) = self.deadlines.poll_due(now) {
            self.resting.wake(route);
        }
        self.resting.look_at_some();
        let mut pass = Pass::default();
        for at in self.order.pass(self.resting.awake()) {
            self.visit(now, at, &mut pass);
            if pass.bytes >= PASS_BYTES {
                self.order.cut_after(at);
                break;
            }
        }
        self.finish(now, &mut pass);
        pass
    }

    /// A pass over those publications at rest that have news, before the agent waits.
    fn send_news(&mut self, now: NanoTime) -> Pass {
        let mut pass = Pass::default();
        let seen = self.resting.awake();
        if self.resting.look_at_all() > 0 {
            for at in seen..self.resting.awake() {
                self.visit(now, at, &mut pass);
            }
            self.finish(now, &mut pass);
        }
        pass
    }

    /// The end of a pass: who is awake is known, and what endpoints have gathered leaves.
    fn finish(&mut self, now: NanoTime, pass: &mut Pass) {
        self.resting.end_pass();
        self.deadlines.settle();
        self.has_failed = false;
        for at in self.used.drain(..) {
            self.is_used[at] = false;
            let endpoint = &mut self.endpoints[at];
            endpoint.flush_heartbeats();
            self.has_failed |= endpoint.has_failure();
            pass.was_short |= endpoint.take_was_short();
            if let Some(event) = endpoint.take_failure(now) {
                raise(&self.events, &mut self.backlog, &self.system, event);
            }
        }
        if pass.wants_conductor {
            self.events.wake();
        }
    }

    /// One send pass of the publication that is awake at this place.
    #[inline]
    fn visit(&mut self, now: NanoTime, at: usize, pass: &mut Pass) {
        let Some(route) = self.resting.member(at) else {
            return;
        };
        let (at, index) = self.routes[route];
        self.use_endpoint(at);
        let endpoint = &mut self.endpoints[at];
        let bytes = endpoint.send(index, now);
        pass.bytes += bytes;
        pass.wants_conductor |= endpoint.take_wants_conductor(index);
        let Some(publication) = endpoint.publication(index) else {
            return;
        };
        // Early heartbeats leave on time, as no queue of timers on a grid has them: they are over soon.
        let is_quiet = publication.is_quiet();
        pass.is_held |= !is_quiet;
        let is_busy = bytes > 0 || !is_quiet || publication.tail_deadline().is_some();
        if self.resting.is_tired(route, is_busy) {
            self.resting.rest(route, |watch| publication.rest(watch));
            self.deadlines.set(route, Some(publication.next_deadline(now)));
        }
    }

    /// Whether control sockets are polled in this cycle (wire protocol 0): whenever nothing was sent, and not too
    /// rarely otherwise. While nothing waits for a control frame, cycles that follow each other closely share a look.
    fn is_poll_due(&mut self, now: NanoTime, pass: &Pass) -> bool {
        let is_quiet = pass.bytes == 0 && !pass.is_held;
        self.owes_control_look = is_quiet && self.next_control_look.is_some_and(|time| !time.is_due(now));
        if self.owes_control_look {
            return false;
        }
        self.cycles_since_poll += 1;
        let due = pass.bytes == 0
            || pass.was_short
            || self.cycles_since_poll >= self.status_poll_ratio
            || self.next_status_poll.is_due(now);
        if due {
            self.cycles_since_poll = 0;
            self.next_status_poll = now.plus_nanos(self.status_poll_interval_ns);
        }
        due
    }

    /// Returns what a further cycle has to follow: heartbeats and status messages of quiet streams, which change nothing,
    /// do not keep the agent awake.
    fn poll_control(&mut self, now: NanoTime) -> usize {
        let Self {
            endpoints,
            first_routes,
            resting,
            used,
            is_used,
            events,
            backlog,
            system,
            batch,
            ..
        } = self;
        let mut work = 0;
        let mut on_event = |event| raise(events, backlog, system, event);
        for (at, endpoint) in endpoints.iter_mut().enumerate() {
            let mut has_more = true;
            for _ in 0..POLLS_MAX {
                has_more = endpoint.poll_control(now, batch, &mut on_event);
                if !has_more {
                    break;
                }
            }
            let is_work = has_more || endpoint.take_control_work();
            work += usize::from(is_work);
            if is_work {
                endpoint.take_concerned(|index| resting.wake(first_routes[at] + index));
                if !core::mem::replace(&mut is_used[at], true) {
                    used.push(at);
                }
            }
            endpoint.expire_destinations(now);
        }
        work
    }

    fn check_resolution(&mut self, now: NanoTime) {
        if self.resolution_interval_ns == 0 || !self.next_resolution.is_due(now) {
            return;
        }
        self.next_resolution = now.plus_nanos(self.resolution_interval_ns);
        let (events, backlog, system) = (&self.events, &mut self.backlog, &self.system);
        for endpoint in &self.endpoints {
            endpoint.check_resolution(now, |event| raise(events, backlog, system, event));
        }
    }

    fn track_cycle(&mut self, now: NanoTime) {
        if let Some(last) = self.last_cycle.replace(now).filter(|_| !self.was_idle) {
            let took = now.since(last);
            self.system
                .get(SystemCounter::SenderMaxCycleTime)
                .propose_max_relaxed(took);
            if took > self.cycle_threshold_ns {
                self.system
                    .increment(SystemCounter::SenderCycleTimeThresholdExceeded);
            }
        }
    }
}

/// What one pass over all publications did.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    bytes: usize,
    was_short: bool,
    /// Data is left that the window, or the system, did not let through.
    is_held: bool,
    wants_conductor: bool,
}

fn raise(
    events: &Lane<NetworkEvent>,
    backlog: &mut VecDeque<NetworkEvent>,
    system: &NetworkCounters,
    event: NetworkEvent,
) {
    let refused = if backlog.is_empty() {
        events.offer(event).err()
    } else {
        Some(event)
    };
    let Some(event) = refused else { return };
    system.add_shared(SystemCounter::ConductorProxyFails, 1);
    // Resources that travel back must not be lost, and there are no more of them than the conductor gave out. Everything
    // else is said again by whoever said it.
    let is_resource = matches!(
        event,
        NetworkEvent::SendEndpointClosed(_) | NetworkEvent::PublicationReleased(_)
    );
    if is_resource || backlog.len() < BACKLOG_MAX {
        backlog.push_back(event);
    }
}

impl Agent for SenderAgent {
    fn role_name(&self) -> &str {
        "sender"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.track_cycle(now.nanos);
        let now = self.stall.advance(now.nanos);
        self.now = now;
        self.deliver_backlog();
        let mut work = self.take_commands(now);
        let pass = self.send(now);
        work += pass.bytes;
        if self.is_poll_due(now, &pass) {
            let found = self.poll_control(now);
            work += found;
            self.next_control_look =
                (found == 0 && self.registration.is_none()).then(|| now.plus_nanos(CONTROL_LOOK_INTERVAL_NS));
        }
        self.check_resolution(now);
        self.was_idle = work == 0;
        Ok(work)
    }

    fn last_look(&mut self, _now: Now) -> usize {
        let work = self.send_news(self.now).bytes;
        self.was_idle &= work == 0;
        work
    }

    fn on_close(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.release();
        }
    }

    fn next_deadline(&self) -> NanoTime {
        let now = self.now;
        if !self.backlog.is_empty() || !self.commands.is_empty() {
            return self.stall.to_real(now);
        }
        let awake = (0..self.resting.awake()).filter_map(|at| {
            let (at, index) = *self.routes.get(self.resting.member(at)?)?;
            Some(self.endpoints.get(at)?.publication(index)?.next_deadline(now))
        });
        let look = self.next_control_look.filter(|_| self.owes_control_look);
        // Destinations are forgotten with the look that is owed.
        let expiries = self
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.next_expiry())
            .map(|expiry| look.filter(|look| expiry.is_due(*look)).unwrap_or(expiry));
        let mut deadline = awake
            .chain(expiries)
            .chain(self.deadlines.earliest())
            .fold(NanoTime::never_after(now), NanoTime::earlier);
        if self.resolution_interval_ns != 0 && !self.endpoints.is_empty() {
            deadline = deadline.earlier(self.next_resolution);
        }
        if let Some(look) = look {
            deadline = deadline.earlier(look);
        }
        let earliest = now.plus_nanos(FAILURE_PAUSE_NS);
        if self.has_failed && deadline.is_due(earliest) {
            deadline = earliest;
        }
        let tail = (0..self.resting.awake()).filter_map(|at| {
            let (at, index) = *self.routes.get(self.resting.member(at)?)?;
            self.endpoints.get(at)?.publication(index)?.tail_deadline()
        });
        let deadline = tail.fold(coalesced(now, deadline), NanoTime::earlier);
        self.stall.to_real(deadline)
    }
}

/// A deadline that is not due yet nor due very soon, rounded up to the grid.
fn coalesced(now: NanoTime, deadline: NanoTime) -> NanoTime {
    if deadline.is_due(now.plus_nanos(SHORT_PAUSE_NS)) {
        return deadline;
    }
    let past = deadline.0.rem_euclid(TIMER_GRID_NS);
    if past == 0 {
        deadline
    } else {
        deadline.plus_nanos(TIMER_GRID_NS - past)
    }
}

#[cfg(test)]
mod tests;
