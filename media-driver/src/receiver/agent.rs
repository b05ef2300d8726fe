//! The receiver's duty cycle: commands, datagrams, feedback, timers.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::VecDeque;

use fulmar::agent::{Agent, AgentError};
use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::time::{NanoTime, Now};

use super::routes::Routes;
use crate::commands::{
    EndpointCommand, EndpointId, Lane, NetworkEvent, ReceiverCommand, ResolveTarget, SetupSeen, TransportId,
};
use crate::config::DriverContext;
use crate::io::{ReceiveBatch, Registration};
use crate::media::receive_endpoint::{Outbox, ReceiveContext, ReceiveEvents};
use crate::network_counters::NetworkCounters;

/// Commands per duty cycle: each is short, but datagrams wait meanwhile.
const COMMANDS_PER_CYCLE: usize = 16;

/// Timers wait so long for a wake-up by the network, ns: the heartbeats of quiet streams and the status messages that are
/// due meet in one.
const TIMER_SLACK_NS: i64 = 2_000_000;

/// What a [`ReceiverAgent`] is made from.
#[derive(Debug)]
pub struct ReceiverParts {
    /// From the conductor.
    pub commands: Lane<ReceiverCommand>,
    /// To the conductor.
    pub events: Lane<NetworkEvent>,
    /// System counters.
    pub counters: NetworkCounters,
    /// Settings.
    pub context: DriverContext,
    /// Lets sockets wake the thread, if it ever sleeps.
    pub registration: Option<Registration>,
}

/// The agent that owns the sockets of subscriptions.
pub struct ReceiverAgent {
    commands: Lane<ReceiverCommand>,
    registration: Option<Registration>,
    routes: Routes,
    batch: ReceiveBatch,
    shared: Shared,
    re_resolution_interval_ns: i64,
    re_resolution_deadline: NanoTime,
    deadline: NanoTime,
}

impl fmt::Debug for ReceiverAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverAgent")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl ReceiverAgent {
    /// A receiver without endpoints. All memory of its duty cycle is taken here.
    #[must_use]
    pub fn new(parts: ReceiverParts, now: NanoTime) -> Self {
        let ReceiverParts {
            commands,
            events,
            counters,
            context,
            registration,
        } = parts;
        let interval = context.driver_reresolution_check_interval_ns;
        Self {
            commands,
            registration,
            routes: Routes::default(),
            batch: ReceiveBatch::new(context.receiver_io_vector_capacity as usize),
            shared: Shared {
                events: Events {
                    lane: events,
                    waiting: VecDeque::new(),
                    counters: counters.clone(),
                    images: 0,
                    images_max: context.receiver_images_max as usize,
                },
                counters,
                outbox: Outbox::new(),
                scratch: vec![0; ReceiveBatch::BUFFER_LENGTH].into_boxed_slice(),
            },
            re_resolution_interval_ns: interval,
            re_resolution_deadline: now.plus_nanos(interval),
            deadline: now,
        }
    }

    /// Its endpoints.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    fn on_command(&mut self, command: ReceiverCommand, now: Now) {
        match command {
            ReceiverCommand::AddEndpoint(mut endpoint) => {
                let mut cx = self.shared.context(now);
                if let Some(registration) = &self.registration {
                    endpoint.register(registration, cx.events);
                }
                endpoint.on_added(&mut cx);
                let replaced = self.routes.add(endpoint);
                debug_assert!(replaced.is_none(), "ids of endpoints are not used again");
            }
            ReceiverCommand::RemoveEndpoint(id) => {
                if let Some(mut endpoint) = self.routes.remove(id) {
                    endpoint.release();
                    let events = &mut self.shared.events;
                    events.images = events.images.saturating_sub(endpoint.image_count());
                    events.push(NetworkEvent::ReceiveEndpointClosed(endpoint));
                }
            }
            ReceiverCommand::ToEndpoint(id, command) => self.on_endpoint_command(id, command, now),
        }
    }

    fn on_endpoint_command(&mut self, id: EndpointId, command: EndpointCommand, now: Now) {
        let shared = &mut self.shared;
        let Some(endpoint) = self.routes.get_mut(id) else {
            shared.events.give_back(command);
            return;
        };
        match command {
            EndpointCommand::AddSubscription(stream_id, session_id) => {
                endpoint.add_subscription(&mut shared.context(now), stream_id, session_id);
            }
            EndpointCommand::RemoveSubscription(stream_id, session_id) => {
                endpoint.remove_subscription(stream_id, session_id);
            }
            EndpointCommand::RequestSetup(stream_id, session_id) => {
                endpoint.request_setup(&mut shared.context(now), stream_id, session_id);
            }
            EndpointCommand::RemoveCoolDown(stream_id, session_id) => {
                endpoint.remove_cool_down(stream_id, session_id);
            }
            EndpointCommand::InitFailed(stream_id, session_id) => endpoint.init_failed(stream_id, session_id),
            EndpointCommand::Resolved(transport, address) => {
                if endpoint.resolved(transport, address) {
                    shared.counters.add_shared(SystemCounter::ResolutionChanges, 1);
                }
            }
            EndpointCommand::AddDestination(destination) => {
                endpoint.add_destination(&mut shared.context(now), *destination, self.registration.as_ref());
            }
            EndpointCommand::RemoveDestination(transport) => {
                if let Some(destination) = endpoint.remove_destination(transport) {
                    shared
                        .events
                        .push(NetworkEvent::DestinationReleased(Box::new(destination)));
                }
            }
            EndpointCommand::AddImage(image) => match endpoint.add_image(image) {
                Ok(()) => shared.events.images += 1,
                Err(image) => shared.events.push(NetworkEvent::ImageReleased(image)),
            },
            EndpointCommand::RemoveImage(correlation_id) => {
                if let Some(image) = endpoint.remove_image(correlation_id) {
                    let events = &mut shared.events;
                    events.images = events.images.saturating_sub(1);
                    events.push(NetworkEvent::ImageReleased(image));
                }
            }
        }
    }

    fn on_commands(&mut self, now: Now) -> usize {
        for count in 0..COMMANDS_PER_CYCLE {
            let Some(command) = self.commands.poll() else {
                return count;
            };
            self.on_command(command, now);
        }
        COMMANDS_PER_CYCLE
    }

    fn on_network(&mut self, now: Now) -> usize {
        let mut cx = self.shared.context(now);
        let mut work = 0;
        let mut has_news = false;
        let mut deadline = NanoTime::never_after(now.nanos);
        for endpoint in self.routes.round() {
            // Heartbeats of quiet streams do not keep the agent awake.
            let received = endpoint.receive(&mut cx, &mut self.batch);
            work += usize::from(received.is_full);
            has_news |= endpoint.take_news();
            work += endpoint.send_pending(&mut cx);
            work += endpoint.on_timers(&mut cx);
            deadline = deadline.earlier(endpoint.next_deadline(now.nanos));
        }
        if has_news {
            // The conductor follows what came in: it finds gaps, and opens the window for what was consumed.
            self.shared.events.lane.ring();
            work += 1;
        }
        self.deadline = deadline;
        work
    }

    fn check_re_resolution(&mut self, now: NanoTime) -> usize {
        if self.re_resolution_interval_ns == 0 || !self.re_resolution_deadline.is_due(now) {
            return 0;
        }
        self.re_resolution_deadline = now.plus_nanos(self.re_resolution_interval_ns);
        for endpoint in self.routes.round() {
            endpoint.check_re_resolution(now, &mut self.shared.events);
        }
        1
    }
}

impl Agent for ReceiverAgent {
    fn role_name(&self) -> &str {
        "receiver"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        let mut work = self.shared.events.deliver();
        work += self.on_commands(now);
        work += self.on_network(now);
        work += self.check_re_resolution(now.nanos);
        Ok(work)
    }

    fn last_look(&mut self, now: Now) -> usize {
        let mut cx = self.shared.context(now);
        let mut work = 0;
        for endpoint in self.routes.round() {
            if let Some(done) = endpoint.last_look(&mut cx) {
                work += done;
                self.deadline = self.deadline.earlier(endpoint.next_deadline(now.nanos));
            }
        }
        work
    }

    fn on_close(&mut self) {
        for endpoint in self.routes.round() {
            endpoint.release();
        }
    }

    fn next_deadline(&self) -> NanoTime {
        let mut deadline = self.deadline.plus_nanos(TIMER_SLACK_NS);
        let endpoints = self.routes.iter();
        let reminders = endpoints.filter_map(|endpoint| endpoint.reminder_deadline());
        deadline = reminders.fold(deadline, NanoTime::earlier);
        if self.re_resolution_interval_ns != 0 && self.routes.has_names() {
            deadline = deadline.earlier(self.re_resolution_deadline);
        }
        deadline
    }
}

/// What all endpoints work with.
struct Shared {
    counters: NetworkCounters,
    events: Events,
    outbox: Outbox,
    scratch: Box<[u8]>,
}

impl Shared {
    fn context(&mut self, now: Now) -> ReceiveContext<'_> {
        ReceiveContext {
            now: now.nanos,
            epoch_ns: now.epoch.0.wrapping_mul(1_000_000),
            counters: &self.counters,
            events: &mut self.events,
            outbox: &mut self.outbox,
            scratch: &mut self.scratch,
        }
    }
}

/// The way to the conductor. What has to arrive waits here while the lane is full.
struct Events {
    lane: Lane<NetworkEvent>,
    waiting: VecDeque<NetworkEvent>,
    counters: NetworkCounters,
    images: usize,
    images_max: usize,
}

impl Events {
    fn push(&mut self, event: NetworkEvent) {
        self.waiting.push_back(event);
        self.deliver();
    }

    /// The boxes of a command whose endpoint went meanwhile.
    fn give_back(&mut self, command: EndpointCommand) {
        match command {
            EndpointCommand::AddImage(image) => self.push(NetworkEvent::ImageReleased(image)),
            EndpointCommand::AddDestination(destination) => {
                self.push(NetworkEvent::DestinationReleased(destination));
            }
            _ => {}
        }
    }

    /// Moves what waits into the lane; returns how much.
    fn deliver(&mut self) -> usize {
        let mut delivered = 0;
        while let Some(event) = self.waiting.pop_front() {
            if let Err(event) = self.lane.offer(event) {
                self.waiting.push_front(event);
                self.counters.add_shared(SystemCounter::ConductorProxyFails, 1);
                break;
            }
            delivered += 1;
        }
        delivered
    }

    /// Offers what may be lost.
    fn offer(&mut self, event: NetworkEvent) -> bool {
        let is_taken = self.waiting.is_empty() && self.lane.offer(event).is_ok();
        if !is_taken {
            self.counters.add_shared(SystemCounter::ConductorProxyFails, 1);
        }
        is_taken
    }
}

impl ReceiveEvents for Events {
    fn create_image(&mut self, seen: SetupSeen) -> bool {
        self.images < self.images_max && self.offer(NetworkEvent::CreateImage(Box::new(seen)))
    }

    fn re_resolve(&mut self, endpoint: EndpointId, transport: TransportId, name: &str) {
        let target = ResolveTarget::ReceiveTransport { endpoint, transport };
        self.offer(NetworkEvent::ReResolve {
            target,
            name: name.to_owned(),
        });
    }

    fn report(&mut self, code: ErrorCode, key: &'static str, text: String) {
        self.offer(NetworkEvent::Error { code, key, text });
    }
}
