//! A channel's sending end: its sockets, where frames go, and the control frames that come back for its publications
//! (wire protocol 3.6 to 3.10, 6.4, 6.7).
#![forbid(unsafe_code)]

use core::fmt;
use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::counters::{Counter, SystemCounter};
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::Payload;
use fulmar::log::descriptor::FRAME_HEADER_LENGTH;
use fulmar::sync::Arc;
use fulmar::time::NanoTime;
use fulmar::wire::{ErrorFrame, FrameKind, Nak, ResponseSetup, Rttm, StatusMessage, classify};

use crate::commands::{EndpointId, NetworkEvent, ResolveTarget};
use crate::io::{IoError, ReceiveBatch, Registration, SendBatch, SendEntry, SendError, UdpSocket};
use crate::network_counters::NetworkCounters;
use crate::protocol::destinations::{Destination, DestinationMode, Destinations, Proof};
use crate::protocol::quiet_timer;
use crate::protocol::report_rate::ReportRate;
use crate::stream::publication_sender::{FrameClass, FrameSink, PublicationSender, Sent, StatusOutcome};

/// A unicast endpoint is looked up again after so much silence, nanoseconds (wire protocol 6.7).
pub const ENDPOINT_TIMEOUT_NS: i64 = 5_000_000_000;

/// Errors of a socket that are reported at once.
const FAILURES_BURST: i64 = 4;
/// Errors of a socket beyond [`FAILURES_BURST`] are reported one per so many nanoseconds.
const FAILURES_INTERVAL_NS: i64 = 1_000_000_000;

/// Status messages for streams that are not here are checked against this term length (wire protocol 3.6 step 1).
const UNKNOWN_TERM_LENGTH: i32 = 1 << 30;

/// Where the frames of an endpoint's publications go (wire protocol 3.10).
#[derive(Debug)]
pub enum Addressing {
    /// To the peer or group that the socket is connected to.
    Connected,
    /// To one address over a socket that is not connected.
    To(SocketAddr),
    /// To several destinations.
    Destinations(Destinations),
    /// To whoever asked for the publication: each has its own address.
    Response,
}

/// What a [`SendEndpoint`] is made from.
pub struct SendEndpointParts {
    /// Names it.
    pub id: EndpointId,
    /// Its channel, for messages.
    pub channel: String,
    /// Sends, and receives control frames unless there is a control socket.
    pub socket: Box<dyn UdpSocket>,
    /// Multicast: the socket that joined the control group.
    pub control_socket: Option<Box<dyn UdpSocket>>,
    /// Where frames go.
    pub addressing: Addressing,
    /// `host:port` of a unicast endpoint that is a name, for looking it up again.
    pub name: Option<String>,
    /// What the name meant when the socket was made.
    pub address: Option<SocketAddr>,
    /// Counts destinations (`mdc-num-dest`, type 18), for multi-destination channels.
    pub destinations_counter: Option<Counter>,
    /// The system counters.
    pub system: Arc<NetworkCounters>,
}

/// The sending half of a channel, with its publications.
pub struct SendEndpoint {
    id: EndpointId,
    channel: String,
    transport: SendTransport,
    control_socket: Option<Box<dyn UdpSocket>>,
    /// Ordered by stream and session.
    #[expect(
        clippy::vec_box,
        reason = "they come and go in boxes, which are neither made nor freed on this thread"
    )]
    publications: Vec<Box<PublicationSender>>,
    /// What heartbeats are spread over.
    phases: usize,
    name: Option<String>,
    address: Option<SocketAddr>,
    destinations_counter: Option<Counter>,
    system: Arc<NetworkCounters>,
    last_status_message: NanoTime,
    /// The error of the socket that was reported last.
    reported: Option<i32>,
    failures: ReportRate,
    /// A control frame came that a send pass has to follow.
    has_control_work: bool,
    /// The publications that it concerns.
    concerned: Concerned,
}

/// Publications whose next send pass has something to do because of a control frame.
#[derive(Debug, Default)]
struct Concerned {
    indexes: Vec<usize>,
    all: bool,
}

/// The part of an endpoint that sends.
struct SendTransport {
    socket: Box<dyn UdpSocket>,
    addressing: Addressing,
    system: Arc<NetworkCounters>,
    failure: Option<SendError>,
    was_short: bool,
    heartbeats: Heartbeats,
}

/// Heartbeats of one pass that leave together: one after the other, so that they are a run.
struct Heartbeats {
    frames: Box<[u8]>,
    length: usize,
}

impl Heartbeats {
    /// As many as the system takes as one run.
    const LENGTH: usize = SendBatch::SEGMENTS_MAX * FRAME_HEADER_LENGTH;

    fn new() -> Self {
        Self {
            frames: vec![0; Self::LENGTH].into_boxed_slice(),
            length: 0,
        }
    }

    /// Whether there is room for another one.
    fn push(&mut self, frame: &[u8; FRAME_HEADER_LENGTH]) -> bool {
        let end = self.length + FRAME_HEADER_LENGTH;
        if let Some(place) = self.frames.get_mut(self.length..end) {
            place.copy_from_slice(frame);
            self.length = end;
        }
        self.length < Self::LENGTH
    }
}

impl fmt::Debug for SendEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendEndpoint")
            .field("id", &self.id)
            .field("channel", &self.channel)
            .field("publications", &self.publications.len())
            .finish_non_exhaustive()
    }
}

impl SendTransport {
    fn send_batch(&mut self, batch: &SendBatch<'_>) -> usize {
        let outcome = self.socket.send(batch);
        self.system
            .add_shared(SystemCounter::BytesSent, outcome.bytes as i64);
        self.failure = outcome.error.or(self.failure);
        outcome.datagrams
    }

    fn send_to(&mut self, batch: &mut SendBatch<'_>, to: Option<SocketAddr>) -> usize {
        for entry in batch.entries_mut() {
            entry.to = to;
        }
        self.send_batch(batch)
    }

    /// Sends to every destination. One that does not take the batch must not hold the others back, nor make the others
    /// get it twice: it asks again for what it missed.
    fn send_to_all(&mut self, batch: &mut SendBatch<'_>, class: FrameClass) -> Option<usize> {
        let Self {
            socket,
            addressing: Addressing::Destinations(destinations),
            system,
            failure,
            ..
        } = self
        else {
            return None;
        };
        let mut most = None;
        for to in destinations.next_round(class == FrameClass::Setup) {
            for entry in batch.entries_mut() {
                entry.to = Some(to);
            }
            let outcome = socket.send(batch);
            system.add_shared(SystemCounter::BytesSent, outcome.bytes as i64);
            *failure = outcome.error.or(*failure);
            most = most.max(Some(outcome.datagrams));
        }
        most
    }
}

impl SendTransport {
    /// Sends the heartbeats that were kept.
    fn flush_heartbeats(&mut self) {
        let length = core::mem::take(&mut self.heartbeats.length);
        let to = match &self.addressing {
            Addressing::To(address) => Some(*address),
            _ => None,
        };
        let Some(frames) = self.heartbeats.frames.get(..length).filter(|_| length > 0) else {
            return;
        };
        let entry = SendEntry::run(Payload::from_slice(frames), FRAME_HEADER_LENGTH as u16, to);
        let batch = SendBatch::of(entry);
        let outcome = self.socket.send(&batch);
        self.system
            .add_shared(SystemCounter::BytesSent, outcome.bytes as i64);
        self.failure = outcome.error.or(self.failure);
        if outcome.is_short(&batch) {
            self.was_short = true;
            self.system.add_shared(SystemCounter::ShortSends, 1);
        }
    }
}

impl FrameSink for SendTransport {
    fn send_heartbeat(&mut self, frame: &[u8; FRAME_HEADER_LENGTH], to: Option<SocketAddr>) -> Sent {
        match &self.addressing {
            // All go to the same place.
            Addressing::Connected | Addressing::To(_) => {
                if !self.heartbeats.push(frame) {
                    self.flush_heartbeats();
                }
                Sent::All
            }
            Addressing::Response | Addressing::Destinations(_) => {
                let mut batch = SendBatch::of(SendEntry::datagram(Payload::from_slice(frame), None));
                self.send(&mut batch, FrameClass::Stream, to)
            }
        }
    }

    fn send(&mut self, batch: &mut SendBatch<'_>, class: FrameClass, to: Option<SocketAddr>) -> Sent {
        let taken = match &self.addressing {
            Addressing::Connected => Some(self.send_to(batch, None)),
            Addressing::To(address) => {
                let address = *address;
                Some(self.send_to(batch, Some(address)))
            }
            Addressing::Response => to.map(|to| self.send_to(batch, Some(to))),
            Addressing::Destinations(_) => self.send_to_all(batch, class),
        };
        match taken {
            None => Sent::Nowhere,
            Some(taken) if taken >= batch.datagrams() => Sent::All,
            Some(taken) => {
                self.was_short = true;
                Sent::Part(taken)
            }
        }
    }
}

impl SendEndpoint {
    /// An endpoint without publications.
    #[must_use]
    pub fn new(parts: SendEndpointParts, now: NanoTime) -> Self {
        let SendEndpointParts {
            id,
            channel,
            socket,
            control_socket,
            addressing,
            name,
            address,
            destinations_counter,
            system,
        } = parts;
        let mut endpoint = Self {
            id,
            channel,
            transport: SendTransport {
                socket,
                addressing,
                system: Arc::clone(&system),
                failure: None,
                was_short: false,
                heartbeats: Heartbeats::new(),
            },
            control_socket,
            publications: Vec::new(),
            phases: 1,
            name,
            address,
            destinations_counter,
            system,
            last_status_message: now,
            reported: None,
            failures: ReportRate::new(FAILURES_BURST, FAILURES_INTERVAL_NS, now),
            has_control_work: false,
            concerned: Concerned::default(),
        };
        endpoint.count_destinations();
        endpoint
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Its channel, for messages.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Where its frames come from.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.transport.socket.local_address()
    }

    /// Its publications, ordered by stream and session.
    #[must_use]
    pub fn publications(&self) -> &[Box<PublicationSender>] {
        &self.publications
    }

    /// The sender takes it over: its clock counts from here on.
    pub fn start(&mut self, now: NanoTime) {
        self.last_status_message = now;
    }

    /// Lets control frames wake the agent.
    ///
    /// # Errors
    /// [`IoError`]; control frames are then found when the agent looks by itself.
    pub fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        match &mut self.control_socket {
            Some(socket) => socket.register(waiter),
            None => self.transport.socket.register(waiter),
        }
    }

    /// The agent is done with its sockets, which another thread closes.
    pub fn release(&mut self) {
        self.transport.socket.release();
        if let Some(socket) = &mut self.control_socket {
            socket.release();
        }
    }

    /// Adds a publication, which is sent from the next pass on.
    pub fn add_publication(&mut self, publication: Box<PublicationSender>) {
        let at = self
            .publications
            .partition_point(|other| other.key() < publication.key());
        self.publications.insert(at, publication);
        self.spread();
    }

    /// Takes a publication out.
    pub fn remove_publication(&mut self, registration_id: RegistrationId) -> Option<Box<PublicationSender>> {
        let at = self
            .publications
            .iter()
            .position(|publication| publication.registration_id() == registration_id)?;
        let removed = self.publications.remove(at);
        self.spread();
        Some(removed)
    }

    /// Heartbeats of many publications do not leave at the same time.
    fn spread(&mut self) {
        let phases = quiet_timer::phases(self.publications.len());
        let is_same = core::mem::replace(&mut self.phases, phases) == phases;
        if phases > 1 || !is_same {
            for publication in &mut self.publications {
                publication.spread(phases);
            }
        }
    }

    fn find(&self, stream_id: StreamId, session_id: SessionId) -> Option<usize> {
        self.publications
            .binary_search_by_key(&(stream_id, session_id), |publication| publication.key())
            .ok()
    }

    // Destinations

    /// Adds a destination of the application's; nothing happens on an endpoint that has none.
    pub fn add_destination(&mut self, now: NanoTime, destination: Destination) {
        if let Addressing::Destinations(destinations) = &mut self.transport.addressing {
            destinations.add(now, destination);
            self.count_destinations();
        }
    }

    /// Removes a destination by its channel or its address.
    pub fn remove_destination(&mut self, channel: &str, address: Option<SocketAddr>) {
        if let Addressing::Destinations(destinations) = &mut self.transport.addressing {
            destinations.remove_channel(channel, address);
            self.count_destinations();
        }
    }

    /// Removes a destination by the command that added it.
    pub fn remove_destination_by_id(&mut self, registration_id: RegistrationId) {
        if let Addressing::Destinations(destinations) = &mut self.transport.addressing {
            destinations.remove_id(registration_id);
            self.count_destinations();
        }
    }

    fn count_destinations(&mut self) {
        if let (Addressing::Destinations(destinations), Some(counter)) =
            (&self.transport.addressing, &self.destinations_counter)
        {
            counter.set_release(destinations.count() as i64);
        }
    }

    /// A name was looked up again.
    ///
    /// # Errors
    /// [`IoError`] when the socket can not be connected to the new address; it keeps the old one.
    pub fn on_resolved(
        &mut self,
        destination: Option<RegistrationId>,
        address: SocketAddr,
    ) -> Result<(), IoError> {
        let changed = match (&mut self.transport.addressing, destination) {
            (Addressing::Destinations(destinations), Some(id)) => destinations.set_address(id, address),
            (_, None) if self.address == Some(address) => false,
            (Addressing::Connected, None) => {
                self.transport.socket.reconnect(address)?;
                self.address = Some(address);
                true
            }
            (Addressing::To(to), None) => {
                *to = address;
                self.address = Some(address);
                true
            }
            _ => false,
        };
        if changed {
            self.system.add_shared(SystemCounter::ResolutionChanges, 1);
        }
        Ok(())
    }

    /// Says which names should be looked up again, as nobody was heard there for a while. Asked at the interval of the
    /// settings.
    pub fn check_resolution(&self, now: NanoTime, mut raise: impl FnMut(NetworkEvent)) {
        match &self.transport.addressing {
            Addressing::Destinations(destinations) if destinations.mode() == DestinationMode::Manual => {
                for (registration_id, name) in destinations.silent(now) {
                    raise(NetworkEvent::ReResolve {
                        target: ResolveTarget::SendDestination {
                            endpoint: self.id,
                            registration_id,
                        },
                        name: name.to_owned(),
                    });
                }
            }
            Addressing::Connected | Addressing::To(_)
                if now.since(self.last_status_message) >= ENDPOINT_TIMEOUT_NS =>
            {
                if let Some(name) = &self.name {
                    raise(NetworkEvent::ReResolve {
                        target: ResolveTarget::SendEndpoint(self.id),
                        name: name.clone(),
                    });
                }
            }
            _ => {}
        }
    }

    // Sending

    /// One send pass of the publication at `index`. Returns the bytes of data that left. Heartbeats leave with
    /// [`Self::flush_heartbeats`].
    #[inline]
    pub fn send(&mut self, index: usize, now: NanoTime) -> usize {
        match self.publications.get_mut(index) {
            Some(publication) => publication.send(now, &mut self.transport),
            None => 0,
        }
    }

    /// The publication at `index`.
    #[inline]
    #[must_use]
    pub fn publication(&self, index: usize) -> Option<&PublicationSender> {
        self.publications.get(index).map(|publication| &**publication)
    }

    /// Tells which publications control frames have something for, and forgets them.
    pub fn take_concerned(&mut self, mut tell: impl FnMut(usize)) {
        if core::mem::take(&mut self.concerned.all) {
            self.concerned.indexes.clear();
            (0..self.publications.len()).for_each(&mut tell);
        }
        self.concerned.indexes.drain(..).for_each(tell);
    }

    /// The end of a pass over the publications.
    pub fn flush_heartbeats(&mut self) {
        self.transport.flush_heartbeats();
    }

    /// Whether the publication at `index` has something for the conductor; asking forgets it.
    #[inline]
    pub fn take_wants_conductor(&mut self, index: usize) -> bool {
        self.publications
            .get_mut(index)
            .is_some_and(|publication| publication.take_wants_conductor())
    }

    /// Whether the system did not take everything since this was asked last.
    pub fn take_was_short(&mut self) -> bool {
        core::mem::take(&mut self.transport.was_short)
    }

    /// Whether the system refused to send, for another reason than lack of room, since [`Self::take_failure`].
    #[must_use]
    pub fn has_failure(&self) -> bool {
        self.transport.failure.is_some()
    }

    /// An error of the socket that is to be reported. One that goes on is reported once, and several in turn as often as
    /// [`ReportRate`] allows: destinations can make a socket fail in more than one way, pass for pass.
    pub fn take_failure(&mut self, now: NanoTime) -> Option<NetworkEvent> {
        let failure = self.transport.failure.take()?;
        if self.reported == Some(failure.errno) {
            return None;
        }
        self.failures.take(now)?;
        self.reported = Some(failure.errno);
        Some(NetworkEvent::Error {
            code: ErrorCode::GenericError,
            key: "send channel endpoint",
            text: format!("{}: {failure}", self.channel),
        })
    }

    /// Forgets learnt destinations that fell silent.
    pub fn expire_destinations(&mut self, now: NanoTime) {
        if let Addressing::Destinations(destinations) = &mut self.transport.addressing
            && destinations.expire(now)
        {
            self.count_destinations();
        }
    }

    /// Whether destinations may fall silent.
    #[must_use]
    pub fn has_destinations(&self) -> bool {
        matches!(self.transport.addressing, Addressing::Destinations(_))
    }

    /// When a learnt destination is forgotten. Publications have deadlines of their own.
    #[must_use]
    pub fn next_expiry(&self) -> Option<NanoTime> {
        match &self.transport.addressing {
            Addressing::Destinations(destinations) => destinations.next_expiry(),
            _ => None,
        }
    }

    // Receiving

    /// Takes control frames from the network, one batch. Returns whether more may be waiting: on a
    /// connected socket only an empty batch says that there is nothing.
    pub fn poll_control(
        &mut self,
        now: NanoTime,
        batch: &mut ReceiveBatch,
        raise: &mut dyn FnMut(NetworkEvent),
    ) -> bool {
        let socket = match &mut self.control_socket {
            Some(socket) => socket,
            None => &mut self.transport.socket,
        };
        let outcome = socket.receive(batch);
        if let Some(error) = outcome.error
            && self.failures.take(now).is_some()
        {
            raise(NetworkEvent::Error {
                code: ErrorCode::GenericError,
                key: "send channel endpoint",
                text: format!("{}: {error}", self.channel),
            });
        }
        if outcome.datagrams == 0 {
            return outcome.is_full;
        }
        self.system
            .add_shared(SystemCounter::BytesReceived, outcome.bytes as i64);
        for datagram in batch.datagrams() {
            self.on_datagram(now, datagram.bytes, datagram.from, raise);
        }
        true
    }

    /// Whether a control frame came that has changed something; asking forgets it. Receivers of quiet streams only
    /// repeat themselves.
    pub fn take_control_work(&mut self) -> bool {
        core::mem::take(&mut self.has_control_work)
    }

    /// Takes one datagram.
    pub fn on_datagram(
        &mut self,
        now: NanoTime,
        datagram: &[u8],
        from: SocketAddr,
        raise: &mut dyn FnMut(NetworkEvent),
    ) {
        let kind = classify(datagram);
        // Of a status message it depends on what it says.
        self.has_control_work |= kind != Ok(FrameKind::StatusMessage);
        let taken = match kind {
            Ok(FrameKind::StatusMessage) => self.on_status_message(now, datagram, from, raise),
            Ok(FrameKind::Nak) => self.on_nak(now, datagram, from),
            Ok(FrameKind::Error) => self.on_error(now, datagram, from, raise),
            Ok(FrameKind::Rttm) => self.on_rttm(now, datagram, from),
            Ok(FrameKind::ResponseSetup) => self.on_response_setup(datagram, raise),
            Ok(FrameKind::Data | FrameKind::Setup | FrameKind::Resolution) => Some(()),
            Err(_) => None,
        };
        if taken.is_none() {
            self.system.add_shared(SystemCounter::InvalidPackets, 1);
        }
    }

    /// In the order of wire protocol 3.6. `None` for an invalid packet, as in the functions below.
    fn on_status_message(
        &mut self,
        now: NanoTime,
        datagram: &[u8],
        from: SocketAddr,
        raise: &mut dyn FnMut(NetworkEvent),
    ) -> Option<()> {
        let message = StatusMessage::parse(datagram).ok()?;
        let index = self.find(message.stream_id, message.session_id);
        let term_length = index
            .and_then(|index| self.publications.get(index))
            .map_or(UNKNOWN_TERM_LENGTH, |publication| publication.term_length());
        message.check(term_length).ok()?;
        self.system.increment(SystemCounter::StatusMessagesReceived);
        let publication = index.and_then(|index| self.publications.get_mut(index));
        let mut proof = Proof::None;
        if let Some(publication) = &publication
            && !message.is_send_setup()
        {
            if !publication.is_position_plausible(&message) {
                self.system.increment(SystemCounter::StatusMessagesRejected);
                return Some(());
            }
            proof = Proof::Position;
        }
        if publication.is_some() {
            self.last_status_message = now;
        }
        let mut knows_nothing = false;
        if let Addressing::Destinations(destinations) = &mut self.transport.addressing {
            knows_nothing = destinations.on_status_message(now, message.receiver_id, from, proof);
        }
        if let Some(publication) = publication {
            let limit = publication.limit();
            let outcome = publication.on_status_message(now, &message, from);
            let is_news =
                message.is_send_setup() || publication.limit() != limit || publication.wants_conductor();
            self.has_control_work |= is_news;
            if is_news {
                self.concerned.indexes.extend(index);
            }
            if outcome == StatusOutcome::Connected && publication.traits().is_response {
                raise(NetworkEvent::ResponseConnected {
                    registration_id: publication.registration_id(),
                    response_correlation_id: publication.response_correlation_id(),
                    stream_id: publication.stream_id(),
                    session_id: publication.session_id(),
                });
            }
        }
        if knows_nothing {
            self.has_control_work = true;
            self.concerned.all = true;
            self.on_destination_without_setup(proof);
        }
        Some(())
    }

    /// Who has proven nothing is told of every stream, and of nothing else; again when it asks again.
    fn on_destination_without_setup(&mut self, proof: Proof) {
        self.count_destinations();
        if proof == Proof::None {
            for publication in &mut self.publications {
                publication.elicit_setup();
            }
        }
    }

    fn on_nak(&mut self, now: NanoTime, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let nak = Nak::parse(datagram).ok()?;
        let Some(index) = self.find(nak.stream_id, nak.session_id) else {
            return Some(());
        };
        let publication = self.publications.get_mut(index)?;
        nak.check(publication.term_length()).ok()?;
        self.system.increment(SystemCounter::NakMessagesReceived);
        publication.on_nak(now, &nak, from, &mut self.transport);
        self.concerned.indexes.push(index);
        Some(())
    }

    /// `None` only for an invalid packet.
    fn on_error(
        &mut self,
        now: NanoTime,
        datagram: &[u8],
        from: SocketAddr,
        raise: &mut dyn FnMut(NetworkEvent),
    ) -> Option<()> {
        let error = ErrorFrame::parse(datagram).ok()?;
        self.system.increment(SystemCounter::ErrorFramesReceived);
        let Some(index) = self.find(error.stream_id, error.session_id) else {
            return Some(());
        };
        self.concerned.indexes.push(index);
        if let Some(mut report) = self.publications.get_mut(index)?.on_error(now, &error, from) {
            if let Addressing::Destinations(destinations) = &self.transport.addressing {
                report.destination_registration_id = destinations.registration_of(error.receiver_id, from);
            }
            raise(NetworkEvent::PublicationError(Box::new(report)));
        }
        Some(())
    }

    fn on_rttm(&mut self, now: NanoTime, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let rttm = Rttm::parse(datagram).ok()?;
        if let Some(index) = self.find(rttm.stream_id, rttm.session_id) {
            let publication = self.publications.get_mut(index)?;
            // A receiver may have to prove itself before it may join.
            let is_given =
                matches!(&self.transport.addressing, Addressing::Destinations(all) if all.is_given(from));
            if is_given {
                publication.answer_rttm(&rttm, &mut self.transport);
            } else {
                publication.on_rttm(now, &rttm, from, &mut self.transport);
            }
        }
        Some(())
    }

    fn on_response_setup(&mut self, datagram: &[u8], raise: &mut dyn FnMut(NetworkEvent)) -> Option<()> {
        let setup = ResponseSetup::parse(datagram).ok()?;
        let Some(index) = self.find(setup.stream_id, setup.session_id) else {
            return Some(());
        };
        let publication = self.publications.get(index)?;
        if publication.response_correlation_id() != -1 {
            raise(NetworkEvent::ResponseSetup {
                registration_id: publication.registration_id(),
                response_correlation_id: publication.response_correlation_id(),
                response_session_id: setup.response_session_id,
            });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
