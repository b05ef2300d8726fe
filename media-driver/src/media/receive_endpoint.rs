//! A receive channel endpoint: sockets on one side, images on the other. It takes datagrams apart, lets the dispatcher
//! decide whose they are, asks for SETUPs, and sends the feedback of its images (wire spec 4.1, 4.2, 4.7, 4.11).
//!
//! Belongs to the receiver. What the conductor has to do or to know comes out through [`ReceiveEvents`].
#![forbid(unsafe_code)]

use core::fmt;
use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::Payload;
use fulmar::position::PositionShape;
use fulmar::time::NanoTime;
use fulmar::wire::status_message::SM_MAX_LENGTH;
use fulmar::wire::{DataHeader, FrameKind, Rttm, Setup, StatusMessage, classify, is_eos, is_heartbeat};

use super::receive_destination::ReceiveDestination;
use super::receive_timestamps::ReceiveTimestamps;
use crate::commands::{EndpointId, SetupSeen, TransportId};
use crate::io::{Datagram, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendEntry};
use crate::network_counters::NetworkCounters;
use crate::protocol::connections::{FeedbackRule, TransportRule};
use crate::protocol::deadline_queue::DeadlineQueue;
use crate::protocol::dispatcher::{DataRoute, Dispatcher, SetupRoute};
use crate::protocol::pending_setups::PendingSetups;
use crate::protocol::quiet_timer;
use crate::protocol::rtt::RttmAction;
use crate::protocol::source_proof::{SourceProofs, UNPROVEN_IMAGES_MAX};
use crate::stream::image_receiver::{AttentionWatch, DataOutcome, FeedbackSink, ImageReceiver};
use crate::stream::resting::Resting;

/// How often a control address is asked for SETUPs, nanoseconds.
pub const CONTROL_ELICITATION_INTERVAL_NS: i64 = 1_000_000_000;
/// A transport that is silent for so long has its name looked up again, nanoseconds.
pub const RE_RESOLUTION_SILENCE_NS: i64 = 5_000_000_000;
/// Images of one endpoint that are being made at a time; SETUPs beyond wait for their repetition.
pub const IMAGES_IN_PROGRESS_MAX: usize = 128;
/// Images that can not be made, per [`FAILURES_INTERVAL_NS`]; further ones are for proven sources only.
const FAILURES_MAX: u32 = 64;
/// For so long failures are counted together, nanoseconds.
const FAILURES_INTERVAL_NS: i64 = 100_000_000;
/// Shortest time between two reports of the same kind, nanoseconds.
const REPORT_INTERVAL_NS: i64 = 1_000_000_000;

/// What an endpoint has for the conductor.
pub trait ReceiveEvents {
    /// Asks for an image; `false` when that is not possible now, and then the next SETUP asks again.
    fn create_image(&mut self, seen: SetupSeen) -> bool;
    /// Asks for a name to be looked up again.
    fn re_resolve(&mut self, endpoint: EndpointId, transport: TransportId, name: &str);
    /// Something for the error log.
    fn report(&mut self, code: ErrorCode, key: &'static str, text: String);
}

/// What one duty cycle lends to its endpoints.
pub struct ReceiveContext<'a> {
    /// The time.
    pub now: NanoTime,
    /// Nanoseconds since 1970, for timestamps in messages where the system gave none.
    pub epoch_ns: i64,
    /// The driver's counters.
    pub counters: &'a NetworkCounters,
    /// Where events go.
    pub events: &'a mut dyn ReceiveEvents,
    /// Feedback on its way out.
    pub outbox: &'a mut Outbox,
    /// Where datagrams are copied to that get timestamps; as long as the longest datagram.
    pub scratch: &'a mut [u8],
}

impl fmt::Debug for ReceiveContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveContext")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// So much is received before feedback and timers have their turn, bytes: several times what a sender in the same thread
/// sends in its turn.
const RECEIVE_BYTES: usize = 256 << 10;

/// What one pass over the sockets of an endpoint brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes that came in.
    pub bytes: usize,
    /// Whether a socket may have more.
    pub is_full: bool,
}

/// What a [`ReceiveEndpoint`] is made from.
#[derive(Debug)]
pub struct ReceiveEndpointParts {
    /// Names it.
    pub id: EndpointId,
    /// Names it towards publishers; the same for all its images, and never 0.
    pub receiver_id: i64,
    /// Its group tag, if any.
    pub group_tag: Option<i64>,
    /// Its own socket; `None` when its sources are destinations.
    pub transport: Option<ReceiveDestination>,
    /// Most sessions per stream.
    pub session_limit: usize,
    /// Has sources prove themselves when there are many images; `None` with `fulmar.receiver.source.check` off.
    pub proofs: Option<SourceProofs>,
    /// Times to be written into messages.
    pub timestamps: ReceiveTimestamps,
}

/// A receive channel endpoint.
#[derive(Debug)]
pub struct ReceiveEndpoint {
    id: EndpointId,
    receiver_id: i64,
    group_tag: Option<i64>,
    transports: Vec<ReceiveDestination>,
    dispatcher: Dispatcher<u32>,
    pending: PendingSetups,
    proofs: Option<SourceProofs>,
    /// Sessions whose image, made or in the making, has a proven source.
    proven: Vec<(StreamId, SessionId)>,
    image_count: usize,
    /// What status messages are spread over.
    phases: usize,
    /// Images that could not be made since `failures_deadline` was set.
    failures: u32,
    failures_deadline: NanoTime,
    /// The dispatcher's number of an image is its place here.
    images: Vec<Option<Box<ImageReceiver>>>,
    /// Which images a pass asks for what they have to send, and when the others have something.
    resting: Resting<AttentionWatch>,
    deadlines: DeadlineQueue,
    timestamps: ReceiveTimestamps,
    control_deadline: NanoTime,
    report_deadline: NanoTime,
    /// Whether the conductor has to look at what came in.
    has_news: bool,
}

impl ReceiveEndpoint {
    /// An endpoint that takes nothing yet.
    #[must_use]
    pub fn new(parts: ReceiveEndpointParts, now: NanoTime) -> Self {
        Self {
            id: parts.id,
            receiver_id: parts.receiver_id,
            group_tag: parts.group_tag,
            transports: parts.transport.into_iter().collect(),
            dispatcher: Dispatcher::new(parts.session_limit),
            pending: PendingSetups::new(),
            proofs: parts.proofs,
            proven: Vec::new(),
            image_count: 0,
            phases: 1,
            failures: 0,
            failures_deadline: now,
            images: Vec::new(),
            resting: Resting::default(),
            deadlines: DeadlineQueue::new(now),
            timestamps: parts.timestamps,
            control_deadline: now.plus_nanos(CONTROL_ELICITATION_INTERVAL_NS),
            report_deadline: now,
            has_news: false,
        }
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Names it towards publishers.
    #[must_use]
    pub fn receiver_id(&self) -> i64 {
        self.receiver_id
    }

    /// Its transports.
    #[must_use]
    pub fn transports(&self) -> &[ReceiveDestination] {
        &self.transports
    }

    /// Images it serves.
    #[must_use]
    pub fn image_count(&self) -> usize {
        self.image_count
    }

    /// Lets its sockets wake a thread.
    pub fn register(&mut self, registration: &Registration, events: &mut dyn ReceiveEvents) {
        for transport in &mut self.transports {
            register(transport, registration, events);
        }
    }

    /// The agent is done with its sockets, which another thread closes.
    pub fn release(&mut self) {
        for transport in &mut self.transports {
            transport.release();
        }
    }

    /// The first time that it is served: whoever is at an explicit control address is asked for a SETUP, whether
    /// anybody subscribed or not (spec 4.1).
    pub fn on_added(&mut self, cx: &mut ReceiveContext<'_>) {
        self.elicit_from_control(cx, None);
        self.flush(cx);
    }

    /// Takes every session of a stream, or one.
    pub fn add_subscription(
        &mut self,
        cx: &mut ReceiveContext<'_>,
        stream_id: StreamId,
        session_id: Option<SessionId>,
    ) {
        match session_id {
            None => self.dispatcher.add_subscription(stream_id),
            Some(session_id) => {
                self.dispatcher.add_session_subscription(stream_id, session_id);
                self.request_setup(cx, stream_id, session_id);
            }
        }
    }

    /// No longer takes every session of a stream, or one.
    pub fn remove_subscription(&mut self, stream_id: StreamId, session_id: Option<SessionId>) {
        match session_id {
            None => self.dispatcher.remove_subscription(stream_id),
            Some(session_id) => self.dispatcher.remove_session_subscription(stream_id, session_id),
        }
        let Self {
            pending, dispatcher, ..
        } = self;
        pending.retain(|stream_id, session_id| dispatcher.state(stream_id, session_id).is_some());
    }

    /// Asks explicit control addresses for the SETUP of a session.
    pub fn request_setup(&mut self, cx: &mut ReceiveContext<'_>, stream_id: StreamId, session_id: SessionId) {
        self.elicit_from_control(cx, Some((stream_id, session_id)));
        self.flush(cx);
    }

    /// Takes an image over. Gives it back if nobody wants its session any more.
    ///
    /// # Errors
    /// The image.
    pub fn add_image(&mut self, mut image: Box<ImageReceiver>) -> Result<(), Box<ImageReceiver>> {
        let place = self.images.iter().position(Option::is_none).unwrap_or_else(|| {
            self.images.push(None);
            self.images.len() - 1
        });
        let added = self
            .dispatcher
            .add_image(image.stream_id(), image.session_id(), place as u32);
        if !added {
            self.forget_proof(image.stream_id(), image.session_id());
            return Err(image);
        }
        image.reserve_connections(self.transports.len());
        self.images[place] = Some(image);
        self.image_count += 1;
        self.spread();
        Ok(())
    }

    /// Gives an image back.
    pub fn remove_image(&mut self, correlation_id: RegistrationId) -> Option<Box<ImageReceiver>> {
        let place = self.images.iter().position(|image| {
            image
                .as_ref()
                .is_some_and(|image| image.correlation_id() == correlation_id)
        })?;
        let image = self.images.get_mut(place)?.take()?;
        self.image_count -= 1;
        self.forget_proof(image.stream_id(), image.session_id());
        self.dispatcher.remove_image(
            image.stream_id(),
            image.session_id(),
            place as u32,
            image.has_ended(),
        );
        self.spread();
        Some(image)
    }

    /// All images are asked in the next pass.
    fn wake_all(&mut self) {
        self.resting.reset(self.images.len());
        self.deadlines.reset(self.images.len());
    }

    /// Status messages of many images do not leave at the same time.
    fn spread(&mut self) {
        self.wake_all();
        let phases = quiet_timer::phases(self.image_count);
        let is_same = core::mem::replace(&mut self.phases, phases) == phases;
        if phases > 1 || !is_same {
            for image in self.images.iter_mut().flatten() {
                image.spread(phases);
            }
        }
    }

    /// A session whose image went away may be taken again.
    pub fn remove_cool_down(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.dispatcher.remove_cool_down(stream_id, session_id);
    }

    /// The image that was asked for will not come.
    pub fn init_failed(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.dispatcher.remove_init_in_progress(stream_id, session_id);
        self.failures = self.failures.saturating_add(1);
        self.forget_proof(stream_id, session_id);
    }

    fn forget_proof(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.proven.retain(|proven| *proven != (stream_id, session_id));
    }

    /// Adds a source: one with an explicit control address is asked for a SETUP at once, and one whose feedback address
    /// is known gets feedback of all images.
    pub fn add_destination(
        &mut self,
        cx: &mut ReceiveContext<'_>,
        destination: ReceiveDestination,
        registration: Option<&Registration>,
    ) {
        let rule = destination.rule();
        self.transports.push(destination);
        if let (Some(registration), Some(transport)) = (registration, self.transports.last_mut()) {
            register(transport, registration, cx.events);
        }
        for image in self.images.iter_mut().flatten() {
            image.add_destination(cx.now, rule);
        }
        self.wake_all();
        if let FeedbackRule::Control(Some(control)) = rule.feedback {
            let mut bytes = [0; SM_MAX_LENGTH];
            let frame = self.eliciting(&mut bytes, None);
            self.sink(cx).send(rule.id, control, frame);
        }
        self.flush(cx);
    }

    /// Gives a source back.
    pub fn remove_destination(&mut self, transport: TransportId) -> Option<ReceiveDestination> {
        let index = self.transports.iter().position(|own| own.id() == transport)?;
        for image in self.images.iter_mut().flatten() {
            image.remove_destination(transport);
        }
        self.wake_all();
        let mut transport = self.transports.remove(index);
        transport.release();
        Some(transport)
    }

    /// The name of an explicit control address was looked up again; whether that changed anything.
    pub fn resolved(&mut self, transport: TransportId, address: SocketAddr) -> bool {
        let Some(own) = self.transports.iter_mut().find(|own| own.id() == transport) else {
            return false;
        };
        if !own.set_control(address) {
            return false;
        }
        for image in self.images.iter_mut().flatten() {
            image.set_control(transport, address);
        }
        true
    }

    /// Receives from each transport, batch by batch while they come back full, but not much more than
    /// 256 KiB in all.
    pub fn receive(&mut self, cx: &mut ReceiveContext<'_>, batch: &mut ReceiveBatch) -> Received {
        let mut received = Received::default();
        for index in 0..self.transports.len() {
            let is_full = loop {
                let outcome = self.receive_from(cx, index, batch);
                received.bytes += outcome.bytes;
                if !batch.is_full() || outcome.bytes == 0 || received.bytes >= RECEIVE_BYTES {
                    break outcome.is_full;
                }
            };
            received.is_full |= is_full;
        }
        self.flush(cx);
        received
    }

    fn receive_from(
        &mut self,
        cx: &mut ReceiveContext<'_>,
        index: usize,
        batch: &mut ReceiveBatch,
    ) -> ReceiveOutcome {
        let Some(transport) = self.transports.get_mut(index) else {
            return ReceiveOutcome::default();
        };
        let outcome = transport.socket.receive(batch);
        if let Some(error) = outcome.error {
            self.report(cx.now, cx.events, "receiving failed", || error.to_string());
        }
        if outcome.datagrams == 0 {
            return outcome;
        }
        cx.counters
            .add_shared(SystemCounter::BytesReceived, outcome.bytes as i64);
        for datagram in batch.datagrams() {
            self.on_datagram(cx, index, &datagram);
        }
        outcome
    }

    /// Whether something came in since the last call that the conductor has to look at: data, or a heartbeat that says
    /// more than the one before. A quiet stream has none.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.has_news)
    }

    /// Takes a datagram that came through the transport at `index`.
    fn on_datagram(&mut self, cx: &mut ReceiveContext<'_>, index: usize, datagram: &Datagram<'_>) {
        let is_sound = match classify(datagram.bytes) {
            Ok(FrameKind::Data) => self.on_data(cx, index, datagram),
            Ok(FrameKind::Setup) => self.on_setup(cx, index, datagram),
            Ok(FrameKind::Rttm) => self.on_rttm(cx, index, datagram),
            Ok(
                FrameKind::Nak
                | FrameKind::StatusMessage
                | FrameKind::Error
                | FrameKind::Resolution
                | FrameKind::ResponseSetup,
            ) => true,
            Err(_) => false,
        };
        if !is_sound {
            cx.counters.add_shared(SystemCounter::InvalidPackets, 1);
        }
    }

    /// `false` for an invalid datagram, here and in the other `on_*`.
    fn on_data(&mut self, cx: &mut ReceiveContext<'_>, index: usize, datagram: &Datagram<'_>) -> bool {
        let Some(header) = DataHeader::parse(datagram.bytes) else {
            return false;
        };
        let Some(transport) = self.transports.get_mut(index) else {
            return true;
        };
        let rule = transport.rule();
        transport.last_activity = cx.now;
        let ends = is_eos(datagram.bytes);
        let place = match self.dispatcher.on_data(header.stream_id, header.session_id, ends) {
            DataRoute::Image(place) => place as usize,
            DataRoute::Elicit => {
                self.elicit_from_source(cx, rule, datagram.from, &header);
                return true;
            }
            DataRoute::Drop => return true,
        };
        let Some(image) = self.images.get_mut(place).and_then(Option::as_mut) else {
            return true;
        };
        let bytes = datagram.bytes;
        let before = image.high_water_mark();
        let outcome =
            if self.timestamps.is_active() && !is_heartbeat(bytes) && bytes.len() <= cx.scratch.len() {
                let copy = &mut cx.scratch[..bytes.len()];
                copy.copy_from_slice(bytes);
                let arrival = datagram.timestamp;
                self.timestamps
                    .stamp(copy, arrival, arrival.unwrap_or(cx.epoch_ns));
                // The reserved value may have changed, nothing else of the header.
                image.on_data(cx.now, rule, datagram.from, &header, copy)
            } else {
                image.on_data(cx.now, rule, datagram.from, &header, bytes)
            };
        match outcome {
            DataOutcome::Accepted => {
                self.has_news = true;
                if image.reminder_deadline().is_some() {
                    self.resting.wake(place);
                }
            }
            DataOutcome::Ignored => {}
            DataOutcome::Heartbeat => {
                // One that tells of lost data, or of the end.
                self.has_news |= ends || image.high_water_mark() != before;
                cx.counters.increment(SystemCounter::HeartbeatsReceived);
            }
            DataOutcome::OverRun => cx.counters.increment(SystemCounter::FlowControlOverRuns),
            DataOutcome::UnderRun => cx.counters.increment(SystemCounter::FlowControlUnderRuns),
            DataOutcome::Invalid | DataOutcome::Foreign => return false,
        }
        true
    }

    fn on_setup(&mut self, cx: &mut ReceiveContext<'_>, index: usize, datagram: &Datagram<'_>) -> bool {
        let Ok(setup) = Setup::parse(datagram.bytes) else {
            return false;
        };
        let shape = PositionShape::new(setup.term_length, setup.initial_term_id);
        if setup.check().is_err() || shape.term_count(setup.active_term_id) < 0 {
            return false;
        }
        let Some(transport) = self.transports.get_mut(index) else {
            return true;
        };
        transport.last_activity = cx.now;
        let (rule, multicast_ttl) = (transport.rule(), transport.multicast_ttl);
        match self.dispatcher.on_setup(setup.stream_id, setup.session_id) {
            SetupRoute::Drop => {}
            SetupRoute::Image(place) => {
                if let Some(image) = self.images.get_mut(place as usize).and_then(Option::as_mut) {
                    image.on_setup(cx.now, rule, datagram.from, &setup);
                }
            }
            SetupRoute::LimitReached => {
                let stream_id = setup.stream_id;
                self.report(cx.now, cx.events, "session limit reached", || {
                    format!(
                        "stream {stream_id} has as many sessions as aeron.driver.stream.session.limit allows"
                    )
                });
            }
            SetupRoute::Create { elicited } => {
                let is_multicast = matches!(rule.feedback, FeedbackRule::Group(_));
                if elicited && is_multicast && setup.ttl > i32::from(multicast_ttl) {
                    cx.counters.increment(SystemCounter::PossibleTtlAsymmetry);
                }
                self.create_image(cx, rule, datagram.from, setup);
            }
        }
        true
    }

    fn create_image(
        &mut self,
        cx: &mut ReceiveContext<'_>,
        rule: TransportRule,
        source: SocketAddr,
        setup: Setup,
    ) {
        let in_progress = self.dispatcher.in_progress();
        if in_progress >= IMAGES_IN_PROGRESS_MAX {
            return;
        }
        let (stream_id, session_id) = (setup.stream_id, setup.session_id);
        if self.failures_deadline.is_due(cx.now) {
            self.failures = 0;
            self.failures_deadline = cx.now.plus_nanos(FAILURES_INTERVAL_NS);
        }
        let unproven = (self.image_count + in_progress).saturating_sub(self.proven.len());
        let mut is_proven = false;
        if rule.feedback == FeedbackRule::Source
            && let Some(proofs) = &mut self.proofs
        {
            is_proven = proofs.is_proven(cx.now, source, stream_id, session_id);
            if !is_proven && (unproven >= UNPROVEN_IMAGES_MAX || self.failures >= FAILURES_MAX) {
                let request = proofs.request(cx.now, source, stream_id, session_id, self.receiver_id);
                if let Some(request) = request {
                    self.sink(cx).send(rule.id, source, &request.encode());
                }
                return;
            }
        }
        if !is_proven && self.failures >= FAILURES_MAX {
            return;
        }
        let seen = SetupSeen {
            endpoint: self.id,
            transport: rule,
            setup,
            source,
        };
        if cx.events.create_image(seen) {
            self.pending.remove(stream_id, session_id);
            self.dispatcher.set_init_in_progress(stream_id, session_id);
            if is_proven {
                self.proven.push((stream_id, session_id));
                if let Some(proofs) = &mut self.proofs {
                    proofs.use_up(source, stream_id, session_id);
                }
            }
        }
    }

    /// An RTTM of a session without an image: the answer of a source that was asked to prove itself, perhaps. It is asked
    /// for its SETUP at once, as publishers that are connected send none by themselves.
    fn on_proof(&mut self, cx: &mut ReceiveContext<'_>, index: usize, frame: &Rttm, source: SocketAddr) {
        let Some(rule) = self.transports.get(index).map(ReceiveDestination::rule) else {
            return;
        };
        let is_answer = !frame.is_request() && frame.receiver_id == self.receiver_id;
        let is_wanted = matches!(
            self.dispatcher.on_setup(frame.stream_id, frame.session_id),
            SetupRoute::Create { .. }
        );
        if is_answer
            && is_wanted
            && let Some(proofs) = &mut self.proofs
            && proofs.on_answer(cx.now, frame, source)
        {
            let mut bytes = [0; SM_MAX_LENGTH];
            let asking = self.eliciting(&mut bytes, Some((frame.stream_id, frame.session_id)));
            self.sink(cx).send(rule.id, source, asking);
        }
    }

    fn on_rttm(&mut self, cx: &mut ReceiveContext<'_>, index: usize, datagram: &Datagram<'_>) -> bool {
        let Ok(frame) = Rttm::parse(datagram.bytes) else {
            return false;
        };
        let Some(image) = self
            .dispatcher
            .image(frame.stream_id, frame.session_id)
            .and_then(|place| self.images.get_mut(place as usize)?.as_mut())
        else {
            self.on_proof(cx, index, &frame, datagram.from);
            return true;
        };
        let action = image.on_rttm(cx.now, &frame);
        if action == RttmAction::Ignore {
            return true;
        }
        let Some(transport) = self.transports.get_mut(index) else {
            return true;
        };
        transport.last_activity = cx.now;
        if let RttmAction::Answer(answer) = action {
            let rule = transport.rule();
            let to = match rule.feedback {
                FeedbackRule::Group(group) => group,
                FeedbackRule::Source | FeedbackRule::Control(_) => datagram.from,
            };
            self.sink(cx).send(rule.id, to, &answer.encode());
        }
        true
    }

    /// Sends what images have to send. Returns the work done.
    pub fn send_pending(&mut self, cx: &mut ReceiveContext<'_>) -> usize {
        while let Some(place) = self.deadlines.poll_due(cx.now) {
            self.resting.wake(place);
        }
        self.resting.look_at_some();
        self.send_pending_of(cx, 0)
    }

    /// As [`Self::send_pending`], for those images at rest that have news, before the agent waits; `None` if there are
    /// none.
    pub fn last_look(&mut self, cx: &mut ReceiveContext<'_>) -> Option<usize> {
        let seen = self.resting.awake();
        (self.resting.look_at_all() > 0).then(|| self.send_pending_of(cx, seen))
    }

    /// The images that are awake, but for the first so many.
    fn send_pending_of(&mut self, cx: &mut ReceiveContext<'_>, seen: usize) -> usize {
        let Self {
            images,
            transports,
            resting,
            deadlines,
            ..
        } = self;
        let mut sink = EndpointSink {
            transports,
            outbox: cx.outbox,
            counters: cx.counters,
        };
        let mut work = 0;
        for at in seen..resting.awake() {
            let Some(place) = resting.member(at) else { break };
            let Some(image) = images.get_mut(place).and_then(Option::as_mut) else {
                // Nobody is there until images change, which wakes all.
                resting.rest(place, |_| ());
                continue;
            };
            let done = image.send_pending(cx.now, &mut sink, cx.counters);
            work += done;
            // Reminders leave on time, and are over soon.
            let is_busy = done > 0 || image.reminder_deadline().is_some();
            if resting.is_tired(place, is_busy) {
                resting.rest(place, |watch| image.rest(watch));
                deadlines.set(place, Some(image.next_deadline()));
            }
        }
        resting.end_pass();
        sink.flush();
        deadlines.settle();
        work
    }

    /// Forgets requests that were not answered, and repeats those to explicit control addresses. Returns the work done.
    pub fn on_timers(&mut self, cx: &mut ReceiveContext<'_>) -> usize {
        let mut work = 0;
        while let Some((stream_id, session_id)) = self.pending.poll_expired(cx.now) {
            self.dispatcher.remove_pending(stream_id, session_id);
            work += 1;
        }
        if self.control_deadline.is_due(cx.now) {
            self.control_deadline = cx.now.plus_nanos(CONTROL_ELICITATION_INTERVAL_NS);
            if self.dispatcher.has_interest() {
                self.elicit_from_control(cx, None);
                self.flush(cx);
                work += 1;
            }
        }
        work
    }

    /// Whether any of its transports has a name that may have to be looked up again.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.transports
            .iter()
            .any(|transport| transport.control_name.is_some())
    }

    /// Asks for the names of silent transports to be looked up again.
    pub fn check_re_resolution(&mut self, now: NanoTime, events: &mut dyn ReceiveEvents) {
        for transport in &self.transports {
            if let Some(name) = &transport.control_name
                && now.since(transport.last_activity) >= RE_RESOLUTION_SILENCE_NS
            {
                events.re_resolve(self.id, transport.id(), name);
            }
        }
    }

    /// The earliest time at which it has something to do without input.
    #[must_use]
    pub fn next_deadline(&self, now: NanoTime) -> NanoTime {
        let mut deadline = NanoTime::never_after(now);
        for at in 0..self.resting.awake() {
            let image = self
                .resting
                .member(at)
                .and_then(|place| self.images.get(place)?.as_ref());
            if let Some(image) = image {
                deadline = deadline.earlier(image.next_deadline());
            }
        }
        if let Some(earliest) = self.deadlines.earliest() {
            deadline = deadline.earlier(earliest);
        }
        if let Some(pending) = self.pending.next_deadline() {
            deadline = deadline.earlier(pending);
        }
        let asks_control = self.dispatcher.has_interest()
            && self
                .transports
                .iter()
                .any(|transport| transport.explicit_control().is_some());
        if asks_control {
            deadline = deadline.earlier(self.control_deadline);
        }
        deadline
    }

    /// When the next status message is to be said again, if one is.
    #[must_use]
    pub fn reminder_deadline(&self) -> Option<NanoTime> {
        let reminders = (0..self.resting.awake()).filter_map(|at| {
            let image = self.images.get(self.resting.member(at)?)?.as_ref()?;
            image.reminder_deadline()
        });
        reminders.reduce(NanoTime::earlier)
    }

    /// Asks whoever sent data of an unknown session for its SETUP.
    fn elicit_from_source(
        &mut self,
        cx: &mut ReceiveContext<'_>,
        rule: TransportRule,
        source: SocketAddr,
        header: &DataHeader,
    ) {
        let (stream_id, session_id) = (header.stream_id, header.session_id);
        if !self.pending.add(cx.now, stream_id, session_id, source.ip()) {
            return;
        }
        self.dispatcher.set_pending(stream_id, session_id);
        let to = match rule.feedback {
            FeedbackRule::Group(group) => group,
            FeedbackRule::Source | FeedbackRule::Control(_) => source,
        };
        let mut bytes = [0; SM_MAX_LENGTH];
        let frame = self.eliciting(&mut bytes, Some((stream_id, session_id)));
        self.sink(cx).send(rule.id, to, frame);
    }

    /// Asks every explicit control address for the SETUP of one session, or of whatever is there.
    fn elicit_from_control(&mut self, cx: &mut ReceiveContext<'_>, of: Option<(StreamId, SessionId)>) {
        let mut bytes = [0; SM_MAX_LENGTH];
        let frame = self.eliciting(&mut bytes, of);
        for index in 0..self.transports.len() {
            let Some(transport) = self.transports.get(index) else {
                return;
            };
            if let Some(control) = transport.explicit_control() {
                let id = transport.id();
                self.sink(cx).send(id, control, frame);
            }
        }
    }

    /// A status message that asks for a SETUP, of a session or, to a control address, of whatever is there.
    fn eliciting<'a>(
        &self,
        bytes: &'a mut [u8; SM_MAX_LENGTH],
        of: Option<(StreamId, SessionId)>,
    ) -> &'a [u8] {
        let (stream_id, session_id) = of.unwrap_or((StreamId(0), SessionId(0)));
        let length = StatusMessage {
            flags: StatusMessage::FLAG_SEND_SETUP,
            session_id,
            stream_id,
            term_id: 0.into(),
            term_offset: 0,
            window: 0,
            receiver_id: self.receiver_id,
            group_tag: self.group_tag,
            has_bad_tag_length: false,
        }
        .encode(bytes);
        &bytes[..length]
    }

    fn sink<'s>(&'s mut self, cx: &'s mut ReceiveContext<'_>) -> EndpointSink<'s> {
        EndpointSink {
            transports: &mut self.transports,
            outbox: cx.outbox,
            counters: cx.counters,
        }
    }

    fn flush(&mut self, cx: &mut ReceiveContext<'_>) {
        self.sink(cx).flush();
    }

    /// At most one report per interval: its causes come from the network.
    fn report(
        &mut self,
        now: NanoTime,
        events: &mut dyn ReceiveEvents,
        key: &'static str,
        text: impl FnOnce() -> String,
    ) {
        if self.report_deadline.is_due(now) {
            self.report_deadline = now.plus_nanos(REPORT_INTERVAL_NS);
            events.report(ErrorCode::GenericError, key, text());
        }
    }
}

fn register(transport: &mut ReceiveDestination, registration: &Registration, events: &mut dyn ReceiveEvents) {
    if let Err(error) = transport.socket.register(registration) {
        events.report(
            ErrorCode::GenericError,
            "a socket can not wake the receiver",
            error.to_string(),
        );
    }
}

/// Feedback frames until they are sent together. All memory is taken when it is made.
#[derive(Debug)]
pub struct Outbox {
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<OutboxEntry>,
}

#[derive(Clone, Copy, Debug)]
struct OutboxEntry {
    transport: TransportId,
    to: SocketAddr,
    at: usize,
    length: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// Room for the longest frame many times over.
    const LENGTH: usize = 8192;
    /// Frames that are sent together at most: one run of the system's.
    const FRAMES: usize = SendBatch::SEGMENTS_MAX;

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; Self::LENGTH].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(Self::FRAMES),
        }
    }

    fn fits(&self, length: usize) -> bool {
        self.entries.len() < Self::FRAMES && length <= Self::LENGTH - self.used
    }

    fn push(&mut self, transport: TransportId, to: SocketAddr, frame: &[u8]) {
        let Some(place) = self.bytes.get_mut(self.used..self.used + frame.len()) else {
            return;
        };
        place.copy_from_slice(frame);
        self.entries.push(OutboxEntry {
            transport,
            to,
            at: self.used,
            length: frame.len(),
        });
        self.used += frame.len();
    }

    fn clear(&mut self) {
        self.used = 0;
        self.entries.clear();
    }
}

/// Sends feedback through the sockets of an endpoint.
struct EndpointSink<'a> {
    transports: &'a mut Vec<ReceiveDestination>,
    outbox: &'a mut Outbox,
    counters: &'a NetworkCounters,
}

impl FeedbackSink for EndpointSink<'_> {
    fn send(&mut self, transport: TransportId, to: SocketAddr, frame: &[u8]) {
        if !self.outbox.fits(frame.len()) {
            self.flush();
        }
        self.outbox.push(transport, to, frame);
    }
}

impl EndpointSink<'_> {
    fn flush(&mut self) {
        if self.outbox.entries.is_empty() {
            return;
        }
        for transport in self.transports.iter_mut() {
            let mut batch = SendBatch::new();
            let own = transport.id();
            let mut entries = self.outbox.entries.iter().filter(|entry| entry.transport == own);
            let mut next = entries.next();
            while let Some(first) = next {
                // Frames of one length to one place are a run.
                let mut end = first.at + first.length;
                next = entries.next();
                while let Some(entry) = next
                    && (entry.at, entry.length, entry.to) == (end, first.length, first.to)
                {
                    end += entry.length;
                    next = entries.next();
                }
                let bytes = Payload::from_slice(&self.outbox.bytes[first.at..end]);
                let entry = SendEntry::run(bytes, first.length as u16, Some(first.to));
                if !batch.push(entry) {
                    send(transport, &batch, self.counters);
                    batch = SendBatch::of(entry);
                }
            }
            if !batch.is_empty() {
                send(transport, &batch, self.counters);
            }
        }
        self.outbox.clear();
    }
}

fn send(transport: &mut ReceiveDestination, batch: &SendBatch<'_>, counters: &NetworkCounters) {
    let outcome = transport.socket.send(batch);
    counters.add_shared(SystemCounter::BytesSent, outcome.bytes as i64);
    if outcome.is_short(batch) {
        counters.add_shared(SystemCounter::ShortSends, 1);
    }
}
