//! The conductor's duty cycle, and what it is made of.
#![forbid(unsafe_code)]

use std::sync::Arc;

use fulmar::agent::{Agent, AgentError};
use fulmar::cnc::{CncFile, Extension};
use fulmar::counters::SystemCounter;
use fulmar::id::{ClientId, CounterId, RegistrationId};
use fulmar::memory::View;
use fulmar::report::LossReport;
use fulmar::ring::{ManyToOneRing, ReadAction};
use fulmar::time::{NanoTime, Now};

use super::channels::LookUps;
use super::clients::ClientRecord;
use super::held::HeldCommands;
use super::images::{NetworkImage, PendingImage};
use super::name_resolution::NameResolutionCounters;
use super::network_publications::NetworkPublication;
use super::outbox::Outbox;
use super::publications::Pending;
use super::receive_endpoints::ReceiveEndpointRecord;
use super::send_endpoints::SendEndpointRecord;
use super::services::Services;
use super::subscriptions::Links;
use super::visits::Visits;
use crate::commands::{
    Lane, NetworkEvent, ReceiverCommand, ResourceCommand, ResourceEvent, SenderCommand, Watches,
};
use crate::config::DriverContext;
use crate::driver::EndReason;
use crate::io::{Network, WaitCap};
use crate::network_counters::NetworkCounters;
use crate::protocol::ports::WildcardPorts;
use crate::protocol::session_ids::SessionIds;
use crate::protocol::stall_clock::StallClock;
use crate::stream::ipc_publication::IpcPublication;

/// Called when the driver has to end: a client asked for it and the validator allowed it, or its files are gone.
pub type TerminationHook = Box<dyn FnMut(EndReason) + Send>;

/// A jump of the wall clock above this is answered with a fresh heartbeat at once, because foreign clients compare the
/// heartbeat with their wall clock, milliseconds.
const WALL_CLOCK_STEP_MS: i64 = 100;

/// How often a conductor that runs looks whether a client's process ended, at most, nanoseconds.
const WATCH_INTERVAL_NS: i64 = 5_000_000;

/// How long a conductor sleeps at most whom all clients and the ends of their processes wake: the first command of a
/// client of another make may wait so long, nanoseconds.
pub const CONDUCTOR_CAP_NS: i64 = 50_000_000;

/// Clients remembered as not watchable; further ones are asked about again.
const UNWATCHABLE_MAX: usize = 4096;

/// Events of sender and receiver taken per duty cycle.
const NETWORK_EVENTS_PER_CYCLE: usize = 64;

/// How soon a full lane to sender or receiver is tried again, nanoseconds.
const LANE_RETRY_NS: i64 = 1_000_000;

/// Commands that the resource lane must have room for before another client command is taken.
const RESOURCE_ROOM_MIN: usize = 64;

/// Lengths of socket buffers that the system gives by default, bytes; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsSocketBuffers {
    /// For sending.
    pub default_send_length: i32,
    /// For receiving.
    pub default_receive_length: i32,
}

/// What a conductor is made from.
pub struct ConductorParts {
    /// Checked settings.
    pub context: DriverContext,
    /// The command-and-control file, filled in except for its version.
    pub cnc: CncFile,
    /// The file that only our own clients know.
    pub extension: Extension,
    /// To the resource agent.
    pub resource_commands: Lane<ResourceCommand>,
    /// From the resource agent.
    pub resource_events: Lane<ResourceEvent>,
    /// The processes of clients, to see at once that one ended.
    pub watched: Watches,
    /// Opens sockets.
    pub network: Arc<dyn Network>,
    /// To the sender.
    pub sender_commands: Lane<SenderCommand>,
    /// To the receiver.
    pub receiver_commands: Lane<ReceiverCommand>,
    /// From sender and receiver.
    pub network_events: Lane<NetworkEvent>,
    /// The file that lost data is reported in.
    pub loss_report: LossReport<View>,
    /// Seed of session ids and initial term ids.
    pub seed: u64,
    /// What the system gives a socket by default; logs record it.
    pub os_buffers: OsSocketBuffers,
    /// How long a sender with a thread of its own sleeps at most, if our clients can wake it.
    pub sender_cap: Option<WaitCap>,
    /// Whether the end of a process wakes the conductor, so that it need not look.
    pub hears_processes: bool,
    /// What sources of streams can not guess ([`crate::protocol::source_proof`]). It does not come from the seed, whose
    /// other numbers travel in frames.
    pub proof_secret: u64,
    /// Called when the driver has to end.
    pub on_end: TerminationHook,
}

/// The conductor.
pub struct Conductor {
    pub(super) context: DriverContext,
    pub(super) sender_cap: Option<WaitCap>,
    hears_processes: bool,
    pub(super) proof_secret: u64,
    /// Whether every client wakes whom it has work for.
    pub(super) all_clients_ring: bool,
    pub(super) cnc: CncFile,
    pub(super) extension: Extension,
    pub(super) ring: ManyToOneRing<View>,
    pub(super) services: Services,
    pub(super) resource_commands: Lane<ResourceCommand>,
    resource_events: Lane<ResourceEvent>,
    watched: Watches,
    next_watch: NanoTime,
    ended: Vec<ClientId>,
    pub(super) clients: Vec<ClientRecord>,
    pub(super) publications: Vec<IpcPublication>,
    pub(super) network_publications: Vec<NetworkPublication>,
    pub(super) images: Vec<NetworkImage>,
    pub(super) visits: Visits,
    pub(super) pending_images: Vec<PendingImage>,
    pub(super) links: Links,
    pub(super) send_endpoints: Vec<SendEndpointRecord>,
    pub(super) receive_endpoints: Vec<ReceiveEndpointRecord>,
    pub(super) last_endpoint: u64,
    pub(super) last_transport: u32,
    last_receiver_id: i64,
    pub(super) network: Arc<dyn Network>,
    pub(super) network_counters: Arc<NetworkCounters>,
    pub(super) sender: Outbox<SenderCommand>,
    pub(super) receiver: Outbox<ReceiverCommand>,
    network_events: Lane<NetworkEvent>,
    pub(super) sender_ports: WildcardPorts,
    pub(super) receiver_ports: WildcardPorts,
    pub(super) loss_report: LossReport<View>,
    /// Dead clients that are not put away yet.
    pub(super) departed: Vec<Departed>,
    /// Clients that were given up although their process lives.
    pub(super) stopped: Vec<StoppedClient>,
    /// Clients whose process is being watched, and those for which that is not possible.
    pub(super) watches: Vec<ClientId>,
    pub(super) unwatchable: Vec<ClientId>,
    /// Scratch of the look at the extension file.
    pub(super) present: Vec<ClientId>,
    /// Whether a dead publisher may have left something open anywhere.
    pub(super) may_have_orphans: bool,
    /// When the search for what dead publishers left open goes on.
    pub(super) orphan_search: NanoTime,
    /// Commands under way, and those that wait for them.
    pub(super) pending: Pending,
    pub(super) look_ups: LookUps,
    pub(super) held: HeldCommands,
    /// Commands to the resource agent that found the lane full.
    pub(super) undelivered: Vec<ResourceCommand>,
    name_resolution: NameResolutionCounters,
    pub(super) session_ids: SessionIds,
    pub(super) random: fastrand::Rng,
    pub(super) ring_watch: RingWatch,
    pub(super) os_buffers: OsSocketBuffers,
    on_end: TerminationHook,
    pub(super) termination_allowed: bool,
    record: Vec<u8>,
    command: Vec<u8>,
    stall: StallClock,
    next_timer: NanoTime,
    wall_clock: Now,
    last_cycle: Option<NanoTime>,
    now: NanoTime,
}

/// A client whose process has ended and whose commands up to a position of the ring are still to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departed {
    pub(super) client_id: ClientId,
    pub(super) until: i64,
}

/// A client that was given up although its process lives.
#[derive(Debug)]
pub(super) struct StoppedClient {
    pub(super) client_id: ClientId,
    /// Its position counters, kept from anybody else.
    pub(super) counters: Vec<CounterId>,
}

/// Where the consumer of the ring stands, to find a producer that died inside a record (spec 3.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct RingWatch {
    pub(super) head: i64,
    pub(super) since: NanoTime,
}

impl Conductor {
    /// A conductor over an initialised CnC file. It allocates the system counters, sets the first heartbeat, and leaves
    /// publishing the version to its caller.
    ///
    /// # Errors
    /// When the counters do not fit, which the checked settings rule out.
    pub fn new(parts: ConductorParts, now: Now) -> Result<Self, AgentError> {
        let ConductorParts {
            context,
            cnc,
            extension,
            resource_commands,
            resource_events,
            watched,
            network,
            sender_commands,
            receiver_commands,
            network_events,
            loss_report,
            seed,
            os_buffers,
            sender_cap,
            hears_processes,
            proof_secret,
            on_end,
        } = parts;
        let ring = cnc.to_driver_ring().clone();
        let services = Services::start(&context, &cnc, now)?;
        // The first id is burned, so that 0 is never a client's.
        let _ = ring.next_correlation_id();
        ring.set_consumer_heartbeat(now.epoch);
        let mut random = fastrand::Rng::with_seed(seed);
        let session_ids = SessionIds::new(
            random.i32(..),
            context.publication_reserved_session_id_low,
            context.publication_reserved_session_id_high,
        );
        let network_counters = Arc::new(NetworkCounters::new(&cnc.counter_values()));
        let sender_ports = WildcardPorts::new(context.sender_wildcard_port_range);
        let receiver_ports = WildcardPorts::new(context.receiver_wildcard_port_range);
        let head = ring.consumer_position();
        let longest_idle = context.idle_cap_ns.max(CONDUCTOR_CAP_NS);
        Ok(Self {
            sender_cap,
            hears_processes,
            proof_secret,
            all_clients_ring: true,
            ring_watch: RingWatch {
                head,
                since: now.nanos,
            },
            next_timer: now.nanos.plus_nanos(context.timer_interval_ns),
            context,
            cnc,
            extension,
            ring,
            services,
            resource_commands,
            resource_events,
            watched,
            next_watch: now.nanos,
            ended: Vec::new(),
            clients: Vec::new(),
            publications: Vec::new(),
            network_publications: Vec::new(),
            images: Vec::new(),
            visits: Visits::default(),
            pending_images: Vec::new(),
            links: Links::new(),
            send_endpoints: Vec::new(),
            receive_endpoints: Vec::new(),
            last_endpoint: 0,
            last_transport: 0,
            last_receiver_id: random.i64(..),
            network,
            sender: Outbox::new(
                sender_commands,
                network_counters.get(SystemCounter::SenderProxyFails).clone(),
            ),
            receiver: Outbox::new(
                receiver_commands,
                network_counters.get(SystemCounter::ReceiverProxyFails).clone(),
            ),
            network_counters,
            network_events,
            sender_ports,
            receiver_ports,
            loss_report,
            departed: Vec::new(),
            stopped: Vec::new(),
            watches: Vec::new(),
            unwatchable: Vec::new(),
            present: Vec::new(),
            may_have_orphans: false,
            orphan_search: now.nanos,
            pending: Pending::default(),
            look_ups: LookUps::default(),
            held: HeldCommands::default(),
            name_resolution: NameResolutionCounters::default(),
            session_ids,
            random,
            os_buffers,
            on_end,
            undelivered: Vec::new(),
            termination_allowed: false,
            record: Vec::with_capacity(4096),
            command: Vec::with_capacity(4096),
            stall: StallClock::new(now.nanos, longest_idle),
            wall_clock: now,
            last_cycle: None,
            now: now.nanos,
        })
    }

    pub(super) fn publication_index(&self, registration_id: RegistrationId) -> Option<usize> {
        self.publications
            .iter()
            .position(|publication| publication.registration_id == registration_id)
    }

    /// What the next receive endpoint calls itself towards publishers; never 0, which means anybody.
    pub(super) fn next_receiver_id(&mut self) -> i64 {
        self.last_receiver_id = match self.last_receiver_id.wrapping_add(1) {
            0 => 1,
            id => id,
        };
        self.last_receiver_id
    }

    fn update_clocks(&mut self, now: Now) {
        self.now = now.nanos;
        self.services.now = now;
        self.services.timer = self.stall.advance(now.nanos);
        let expected = self.wall_clock.epoch.0 + now.nanos.since(self.wall_clock.nanos) / 1_000_000;
        if (now.epoch.0 - expected).abs() > WALL_CLOCK_STEP_MS {
            self.ring.set_consumer_heartbeat(now.epoch);
        }
        self.wall_clock = now;
    }

    /// A cycle's length is only known when the next one followed at once, that is when this one found work.
    fn track_cycle_time(&mut self, now: NanoTime, work: usize) {
        if let Some(last) = self.last_cycle {
            let length = now.since(last);
            let longest = self.services.system(SystemCounter::ConductorMaxCycleTime);
            if length > longest.get_relaxed() {
                longest.set_release(length);
            }
            if length > self.context.conductor_cycle_threshold_ns {
                self.services
                    .increment(SystemCounter::ConductorCycleTimeThresholdExceeded);
            }
        }
        self.last_cycle = (work > 0).then_some(now);
    }

    fn poll_command(&mut self) -> usize {
        let is_crowded = self.sender.is_crowded() || self.receiver.is_crowded();
        if is_crowded || self.resource_commands.room() < RESOURCE_ROOM_MIN {
            return 0;
        }
        let command = &mut self.command;
        let mut type_id = None;
        let read = self.ring.read(
            1,
            |id, payload| {
                type_id = Some(id);
                command.clear();
                command.extend_from_slice(payload);
                ReadAction::Continue
            },
            &mut self.record,
        );
        let work = match read {
            Ok(count) => count,
            Err(corrupt) => {
                self.services.record_keyed(
                    fulmar::control::ErrorCode::MalformedCommand,
                    "ring corrupt",
                    &corrupt.to_string(),
                );
                1
            }
        };
        if let Some(type_id) = type_id {
            let payload = core::mem::take(&mut self.command);
            self.on_command(type_id, &payload);
            self.command = payload;
        }
        work
    }

    fn poll_resource_events(&mut self) -> usize {
        let mut work = 0;
        while let Some(event) = self.resource_events.poll() {
            work += 1;
            match event {
                ResourceEvent::LogCreated {
                    registration_id,
                    result,
                } => self.on_log_created(registration_id, result),
                ResourceEvent::DeleteFailed => self.services.increment(SystemCounter::FreeFails),
                ResourceEvent::Unmapped { length } => {
                    self.services.add(SystemCounter::BytesMapped, -(length as i64));
                }
                ResourceEvent::ClientDied { client_id } => self.on_client_died(client_id),
                ResourceEvent::Unwatchable { client_id } => {
                    if let Some(client) = self.clients.iter_mut().find(|client| client.id == client_id) {
                        client.watched = false;
                    }
                    self.watches.retain(|watched| *watched != client_id);
                    if self.unwatchable.len() < UNWATCHABLE_MAX {
                        self.unwatchable.push(client_id);
                    }
                }
                ResourceEvent::Resolved {
                    token,
                    resolution,
                    took_ns,
                } => self.on_resolved(token, &resolution, took_ns),
                ResourceEvent::NameResolution(event) => {
                    self.name_resolution.on_event(&mut self.services, &event);
                }
                ResourceEvent::Warning { text } => {
                    self.services
                        .record_error(fulmar::control::ErrorCode::GenericError, &text);
                }
            }
        }
        work
    }

    /// A bounded number of events, so that positions are tracked meanwhile.
    fn poll_network_events(&mut self) -> usize {
        let mut work = 0;
        while work < NETWORK_EVENTS_PER_CYCLE
            && let Some(event) = self.network_events.poll()
        {
            work += 1;
            self.on_network_event(event);
        }
        work
    }

    fn on_network_event(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::CreateImage(seen) => self.on_create_image(*seen),
            NetworkEvent::SendEndpointClosed(endpoint) => self.on_send_endpoint_closed(endpoint),
            NetworkEvent::ReceiveEndpointClosed(endpoint) => self.on_receive_endpoint_closed(endpoint),
            NetworkEvent::PublicationReleased(publication) => self.on_publication_released(publication),
            NetworkEvent::ImageReleased(image) => self.on_image_released(image),
            NetworkEvent::DestinationReleased(destination) => self.on_destination_released(destination),
            NetworkEvent::ResponseSetup {
                response_correlation_id,
                response_session_id,
                ..
            } => self.on_response_setup(response_correlation_id, response_session_id),
            NetworkEvent::ResponseConnected {
                response_correlation_id,
                ..
            } => self.on_response_connected(response_correlation_id),
            NetworkEvent::PublicationError(report) => self.on_publication_error(&report),
            NetworkEvent::ReResolve { target, name } => self.look_up_again(target, name),
            NetworkEvent::Error { code, key, text } => self.services.record_keyed(code, key, &text),
        }
    }

    /// Looks whether a client's process has ended: one system call that never waits, at most every few milliseconds.
    fn check_processes(&mut self) -> usize {
        if !self.next_watch.is_due(self.now) {
            return 0;
        }
        self.next_watch = self.now.plus_nanos(WATCH_INTERVAL_NS);
        if let Ok(mut watched) = self.watched.try_lock()
            && !watched.is_empty()
        {
            let ended = &mut self.ended;
            watched.check(|clients| ended.extend(clients));
        }
        let mut work = 0;
        while let Some(client_id) = self.ended.pop() {
            self.on_client_died(client_id);
            work += 1;
        }
        work
    }
}

impl Agent for Conductor {
    fn role_name(&self) -> &str {
        "conductor"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.update_clocks(now);
        if self.cnc.region().is_damaged() {
            (self.on_end)(EndReason::FilesDestroyed);
            return Err(AgentError::Terminate);
        }
        let mut work = 0;
        if self.next_timer.is_due(self.services.timer) {
            self.next_timer = self.services.timer.plus_nanos(self.context.timer_interval_ns);
            // What it finds is done at once: it is no reason to stay awake.
            self.on_timer();
            self.visits.wake_all();
        }
        work += self.poll_command();
        work += self.poll_resource_events();
        work += self.poll_network_events();
        work += self.execute_held();
        work += self.check_processes();
        work += self.bury();
        work += self.repair_orphans();
        if work > 0 {
            self.visits.wake_all();
        }
        work += self.visit_streams();
        work += self.sender.flush() + self.receiver.flush();
        self.track_cycle_time(now.nanos, work);
        if self.termination_allowed {
            self.termination_allowed = false;
            (self.on_end)(EndReason::TerminationRequested);
            return Err(AgentError::Terminate);
        }
        Ok(work)
    }

    fn last_look(&mut self, _now: Now) -> usize {
        self.visit_news()
    }

    fn next_deadline(&self) -> NanoTime {
        let mut timer = self.stall.to_real(self.next_timer);
        if !(self.hears_processes && self.all_clients_ring) {
            timer = timer.earlier(self.now.plus_nanos(self.context.idle_cap_ns));
        }
        // Whoever's command is under way is buried when it is done, which wakes the conductor.
        if self
            .departed
            .iter()
            .any(|departed| !self.is_busy(departed.client_id))
        {
            return self.now;
        }
        let timer = self
            .images_deadline()
            .map_or(timer, |deadline| timer.earlier(self.stall.to_real(deadline)));
        let is_waiting = self.sender.is_waiting() || self.receiver.is_waiting();
        let timer = if is_waiting {
            timer.earlier(self.now.plus_nanos(LANE_RETRY_NS))
        } else {
            timer
        };
        if self.has_orphans() {
            timer.earlier(self.stall.to_real(self.orphan_search))
        } else {
            timer
        }
    }

    fn on_close(&mut self) {
        self.close_all();
    }
}
