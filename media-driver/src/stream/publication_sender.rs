//! The sender's half of a network publication (wire protocol 3): SETUPs, data, heartbeats, and what comes back from
//! receivers. It decides and reads the log; where frames go and how is the [`FrameSink`]'s business.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::counters::{Counter, SystemCounter};
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::descriptor::FRAME_HEADER_LENGTH;
use fulmar::log::frame::{FLAG_EOS, FLAG_REVOKED, FLAGS_UNFRAGMENTED};
use fulmar::log::{LogBuffers, Payload, producer_position, scan_datagram, starts_frame};
use fulmar::position::PositionShape;
use fulmar::sync::Arc;
use fulmar::time::NanoTime;
use fulmar::wire::{ErrorFrame, Nak, Rttm, Setup, StatusMessage, encode_heartbeat};

use super::datagrams::DatagramRuns;
use super::publication_shared::{PublicationShared, Receivers};
use super::resting::{TailWatch, Watch};
use crate::config::{DriverContext, PublicationParams};
use crate::io::{SendBatch, SendEntry};
use crate::network_counters::NetworkCounters;
use crate::protocol::flow_control::{FlowControl, StatusFacts};
use crate::protocol::quiet_timer;
use crate::protocol::receiver_liveness::ReceiverLiveness;
use crate::protocol::report_rate::ReportRate;
use crate::protocol::retransmit::{NakOutcome, RetransmitBudget, RetransmitHandler, RetransmitSemantics};
use crate::protocol::rtt;

/// SETUPs of one publication are more than this apart (wire protocol 3.3).
pub const SETUP_INTERVAL_NS: i64 = 100_000_000;
/// A heartbeat is sent when nothing was for more than this (wire protocol 3.5).
pub const HEARTBEAT_INTERVAL_NS: i64 = 100_000_000;

/// Heartbeats that follow the last data early, so that its loss shows before [`HEARTBEAT_INTERVAL_NS`] is over.
pub const TAIL_HEARTBEATS: u32 = 3;
/// Each of them waits for so many times the silence before the one before.
const TAIL_HEARTBEAT_FACTOR: i64 = 4;

/// Refusals of one publication that are told to the clients at once; a refusal is two datagrams of anybody whom an
/// unconnected socket hears.
pub const REFUSALS_BURST: i64 = 64;
/// Refusals beyond [`REFUSALS_BURST`] are told one per so many nanoseconds.
pub const REFUSALS_INTERVAL_NS: i64 = 100_000_000;

/// A socket without room is tried again after so long, nanoseconds: it does not say when it has.
pub const SHORT_PAUSE_NS: i64 = 100_000;

/// What a frame is for; a destination that has proven nothing yet gets SETUPs only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameClass {
    /// SETUP.
    Setup,
    /// Data, heartbeats, answers to RTT measurements.
    Stream,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// There is nobody to send to.
    Nowhere,
    /// All of it was taken by the system.
    All,
    /// So many datagrams were taken, fewer than there are.
    Part(usize),
}

/// Where the frames of a publication go: the endpoint.
pub trait FrameSink {
    /// Sends a batch of datagrams wherever this publication's frames go; `to` is the only destination of a response
    /// publication.
    fn send(&mut self, batch: &mut SendBatch<'_>, class: FrameClass, to: Option<SocketAddr>) -> Sent;

    /// Sends a heartbeat as [`Self::send`] does. It may leave together with those of other publications, at the end of
    /// the pass over all of them; then the answer is [`Sent::All`].
    fn send_heartbeat(&mut self, frame: &[u8; FRAME_HEADER_LENGTH], to: Option<SocketAddr>) -> Sent {
        let mut batch = SendBatch::of(SendEntry::datagram(Payload::from_slice(frame), None));
        self.send(&mut batch, FrameClass::Stream, to)
    }
}

/// The counters of one publication that the sender writes.
#[derive(Clone, Debug)]
pub struct SenderCounters {
    /// Position up to which was sent (`snd-pos`, type 2).
    pub position: Counter,
    /// Position up to which may be sent (`snd-lmt`, type 9).
    pub limit: Counter,
    /// Episodes of waiting for the window (`snd-bpe`, type 13).
    pub back_pressure: Counter,
    /// Requests to send again (`snd-naks-received`, type 19).
    pub naks_received: Counter,
    /// Receivers that flow control follows (`fc-receivers`, type 17), for strategies that tell them apart.
    pub flow_control_receivers: Option<Counter>,
}

/// What sort of publication it is, as far as the sender behaves differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderTraits {
    /// Multicast or multi-destination.
    pub has_group_semantics: bool,
    /// The sending end of a response channel: its destination is learnt from whoever asks for a SETUP.
    pub is_response: bool,
    /// Receivers are told that the stream ended.
    pub signal_eos: bool,
    /// A spy alone makes the publication connected; data is then not sent but skipped.
    pub spies_simulate_connection: bool,
}

/// Limits and delays of a publication's sender, from the settings and the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// Datagrams of one send pass.
    pub messages_per_send: usize,
    /// A receiver is gone after so much silence, ns.
    pub connection_timeout_ns: i64,
    /// Wait before sending again, ns.
    pub retransmit_delay_ns: i64,
    /// Repeated requests are ignored for so long, ns.
    pub retransmit_linger_ns: i64,
    /// Whether the round trip is measured when something was lost, and what is lost again is sent again after it.
    pub learns_round_trip: bool,
    /// The first heartbeat after data is due after so much silence, ns; 0 for none before its usual time.
    pub tail_heartbeat_ns: i64,
    /// Requests answered at the same time.
    pub max_resend: usize,
    /// Receiver window that retransmission assumes, bytes.
    pub initial_window_length: i32,
    /// Of what is sent, so much may be sent again, percent.
    pub retransmit_budget_percent: i32,
}

impl SenderLimits {
    /// As the settings say, and the channel for `max-resend`.
    #[must_use]
    pub fn new(context: &DriverContext, params: &PublicationParams) -> Self {
        let max_resend = match params.max_resend {
            0 => context.max_resend,
            given => given,
        };
        Self {
            messages_per_send: usize::try_from(context.network_publication_max_messages_per_send)
                .unwrap_or(1),
            connection_timeout_ns: context.publication_connection_timeout_ns,
            retransmit_delay_ns: context.retransmit_unicast_delay_ns,
            retransmit_linger_ns: context.retransmit_unicast_linger_ns,
            learns_round_trip: context.retransmit_adaptive,
            tail_heartbeat_ns: context.heartbeat_tail_ns,
            max_resend: usize::try_from(max_resend).unwrap_or(1),
            initial_window_length: context.initial_window_length,
            retransmit_budget_percent: context.retransmit_budget,
        }
    }
}

/// What a [`PublicationSender`] is made from.
#[derive(Debug)]
pub struct PublicationParts {
    /// Names the publication.
    pub registration_id: RegistrationId,
    /// Its log.
    pub log: LogBuffers,
    /// Where it starts.
    pub initial_position: i64,
    /// Time to live of multicast as the channel gives it, else 0.
    pub ttl: i32,
    /// The response subscription or request image this publication belongs to; -1 for none.
    pub response_correlation_id: i64,
    /// What sort it is.
    pub traits: SenderTraits,
    /// How far it may go.
    pub flow_control: FlowControl,
    /// Limits and delays.
    pub limits: SenderLimits,
    /// Its counters.
    pub counters: SenderCounters,
    /// The system counters.
    pub system: Arc<NetworkCounters>,
    /// Shared with the conductor's half.
    pub shared: Arc<PublicationShared>,
}

/// What a status message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusOutcome {
    /// Nothing else to do.
    Done,
    /// The first receiver came.
    Connected,
}

/// A receiver refused the stream (wire protocol 3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationErrorReport {
    /// The publication.
    pub registration_id: RegistrationId,
    /// The destination of a multi-destination publication that the receiver is behind.
    pub destination_registration_id: Option<RegistrationId>,
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// Who refused.
    pub receiver_id: i64,
    /// The group it belongs to.
    pub group_tag: Option<i64>,
    /// Where it sent from.
    pub source: SocketAddr,
    /// Code as sent; 13 means that the image was rejected.
    pub error_code: i32,
    /// Why, at most 1023 bytes on the wire; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Refusals before this one that took effect, but were too many to be told.
    pub withheld: u64,
}

/// The sender's half of a network publication.
#[derive(Debug)]
pub struct PublicationSender {
    registration_id: RegistrationId,
    log: LogBuffers,
    shape: PositionShape,
    session_id: SessionId,
    stream_id: StreamId,
    mtu: i32,
    ttl: i32,
    response_correlation_id: i64,
    initial_position: i64,
    traits: SenderTraits,
    limits: SenderLimits,
    max_retransmit_length: i64,
    flow_control: FlowControl,
    receivers: ReceiverLiveness,
    retransmit: RetransmitHandler,
    probe: rtt::Probe,
    budget: RetransmitBudget,
    refusals: ReportRate,
    counters: SenderCounters,
    system: Arc<NetworkCounters>,
    shared: Arc<PublicationShared>,
    position: i64,
    /// The furthest byte that may have left: a batch that left in part is not counted in `position`.
    furthest: i64,
    limit: i64,
    has_initial_connection: bool,
    is_setup_elicited: bool,
    last_setup: Option<NanoTime>,
    /// When data or a heartbeat left last.
    last_frame: Option<NanoTime>,
    last_heartbeat_flags: u8,
    /// Whether that was a heartbeat.
    was_heartbeat: bool,
    /// Where its heartbeats stand beside the grid, ns.
    phase_ns: i64,
    /// Early heartbeats since data left last.
    tail_heartbeats: u32,
    /// Data was sent since waiting for the window was counted last.
    tracks_back_pressure: bool,
    response_target: Option<SocketAddr>,
    /// There was nobody to send to: timers wait for somebody to come.
    is_parked: bool,
    /// The system had no room: the next pass tries again.
    is_short: bool,
    presence: Receivers,
    flow_control_receivers: usize,
    /// The conductor has something to do that it would otherwise only see when it looks by itself.
    wants_conductor: bool,
    /// Sender position at which the conductor was woken last.
    conductor_position: i64,
}

impl PublicationSender {
    /// A publication that nobody has heard of.
    #[must_use]
    pub fn new(parts: PublicationParts, now: NanoTime) -> Self {
        let PublicationParts {
            registration_id,
            log,
            initial_position,
            ttl,
            response_correlation_id,
            traits,
            limits,
            flow_control,
            counters,
            system,
            shared,
        } = parts;
        counters.position.set_release(initial_position);
        counters.limit.set_release(initial_position);
        let (shape, term_length) = (log.shape(), log.term_length());
        let max_retransmit_length =
            flow_control.max_retransmit_length(limits.initial_window_length, term_length);
        let window = i64::from(limits.initial_window_length.min(term_length / 2));
        let semantics = if traits.has_group_semantics {
            RetransmitSemantics::Group
        } else {
            RetransmitSemantics::Unicast
        };
        Self {
            registration_id,
            shape,
            session_id: log.session_id(),
            stream_id: log.stream_id(),
            mtu: log.mtu_length(),
            ttl,
            response_correlation_id,
            initial_position,
            traits,
            limits,
            max_retransmit_length,
            flow_control,
            receivers: ReceiverLiveness::new(limits.connection_timeout_ns, now),
            retransmit: RetransmitHandler::new(
                semantics,
                limits.max_resend.max(1),
                limits.retransmit_delay_ns,
                limits.retransmit_linger_ns,
            ),
            probe: rtt::Probe::default(),
            budget: RetransmitBudget::new(
                max_retransmit_length.max(window),
                window,
                limits.retransmit_budget_percent,
                now,
            ),
            refusals: ReportRate::new(REFUSALS_BURST, REFUSALS_INTERVAL_NS, now),
            counters,
            system,
            shared,
            position: initial_position,
            furthest: initial_position,
            limit: initial_position,
            has_initial_connection: false,
            is_setup_elicited: false,
            last_setup: None,
            last_frame: None,
            last_heartbeat_flags: 0,
            was_heartbeat: false,
            phase_ns: 0,
            tail_heartbeats: TAIL_HEARTBEATS,
            tracks_back_pressure: false,
            response_target: None,
            is_parked: false,
            is_short: false,
            presence: Receivers::None,
            flow_control_receivers: 0,
            wants_conductor: false,
            conductor_position: initial_position,
            log,
        }
    }

    /// The sender takes it over: its clock counts from here on.
    pub fn start(&mut self, now: NanoTime) {
        self.budget.start(now);
    }

    /// It is one of the streams of its endpoint that are spread over so many phases.
    pub fn spread(&mut self, phases: usize) {
        self.phase_ns = quiet_timer::phase_ns(self.stream_id, self.session_id, phases);
    }

    /// Names the publication.
    #[must_use]
    pub fn registration_id(&self) -> RegistrationId {
        self.registration_id
    }

    /// Its session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Its stream.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.stream_id
    }

    /// Its place among the publications of an endpoint.
    #[inline]
    #[must_use]
    pub fn key(&self) -> (StreamId, SessionId) {
        (self.stream_id, self.session_id)
    }

    /// Length of its terms, bytes.
    #[inline]
    #[must_use]
    pub fn term_length(&self) -> i32 {
        self.shape.term_length()
    }

    /// What it answers to or is answered by; -1 for none.
    #[must_use]
    pub fn response_correlation_id(&self) -> i64 {
        self.response_correlation_id
    }

    /// What sort it is.
    #[must_use]
    pub fn traits(&self) -> SenderTraits {
        self.traits
    }

    /// Position up to which was sent.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Position up to which may be sent.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.limit
    }

    /// Whether the conductor should be woken for this publication.
    #[inline]
    #[must_use]
    pub fn wants_conductor(&self) -> bool {
        self.wants_conductor
    }

    /// The same; asking forgets it.
    #[inline]
    pub fn take_wants_conductor(&mut self) -> bool {
        core::mem::take(&mut self.wants_conductor)
    }

    // Sending

    /// One send pass (wire protocol 3.2). Returns the bytes of data that left.
    pub fn send(&mut self, now: NanoTime, sink: &mut dyn FrameSink) -> usize {
        self.is_parked = false;
        self.is_short = false;
        if !self.has_initial_connection || self.is_setup_elicited {
            self.check_setup(now, sink);
        }
        let mut bytes = self.send_data(now, sink);
        if bytes == 0 {
            self.check_heartbeat(now, sink);
            let limit = self.limit;
            self.on_idle(now);
            if self.limit > limit {
                // A receiver that held the others was given up: they do not wait for the next thing that wakes us.
                bytes = self.send_data(now, sink);
            }
        }
        bytes + self.send_again(now, sink)
    }

    fn check_setup(&mut self, now: NanoTime, sink: &mut dyn FrameSink) {
        if self
            .last_setup
            .is_some_and(|last| now.since(last) <= SETUP_INTERVAL_NS)
        {
            return;
        }
        if self.is_setup_elicited {
            self.flow_control.on_setup(now, self.limit);
        }
        let frame = self.setup_frame().encode();
        let mut batch = SendBatch::of(SendEntry::datagram(Payload::from_slice(&frame), None));
        if sink.send(&mut batch, FrameClass::Setup, self.response_target) == Sent::Nowhere {
            // Whoever comes is told at once.
            self.is_parked = true;
            return;
        }
        self.last_setup = Some(now);
        if self.presence != Receivers::None {
            self.is_setup_elicited = false;
        }
    }

    fn setup_frame(&self) -> Setup {
        let mut flags = 0;
        if self.traits.has_group_semantics {
            flags |= Setup::FLAG_GROUP;
        }
        if self.response_correlation_id != -1 && !self.traits.is_response {
            flags |= Setup::FLAG_SEND_RESPONSE;
        }
        Setup {
            flags,
            term_offset: self.shape.offset(self.position),
            session_id: self.session_id,
            stream_id: self.stream_id,
            initial_term_id: self.shape.initial_term_id,
            active_term_id: self.shape.term_id(self.position),
            term_length: self.term_length(),
            mtu: self.mtu,
            ttl: self.ttl,
        }
    }

    fn send_data(&mut self, now: NanoTime, sink: &mut dyn FrameSink) -> usize {
        let log = &self.log;
        if producer_position(log.metadata(), self.shape) == self.position {
            return 0;
        }
        let mut runs = DatagramRuns::new(self.position);
        for _ in 0..self.limits.messages_per_send {
            let room = self.limit - runs.position();
            if room <= 0 || !runs.push(log, room.min(i64::from(self.mtu)) as i32) {
                break;
            }
        }
        if runs.is_empty() {
            self.check_back_pressure();
            return 0;
        }
        let (bytes, sent) = match sink.send(runs.batch(), FrameClass::Stream, self.response_target) {
            Sent::Nowhere => return 0,
            Sent::All => (runs.bytes(), runs.position()),
            Sent::Part(datagrams) => {
                self.is_short = true;
                self.system.increment(SystemCounter::ShortSends);
                runs.up_to(datagrams)
            }
        };
        self.furthest = self.furthest.max(runs.position());
        if bytes > 0 {
            let receivers = self.receivers.count();
            self.budget.on_sent(sent - self.position, receivers);
            self.set_position(sent);
            self.last_frame = Some(now);
            self.was_heartbeat = false;
            self.tail_heartbeats = 0;
            self.tracks_back_pressure = true;
        }
        bytes
    }

    fn set_position(&mut self, position: i64) {
        self.position = position;
        self.shared.set_sender_position(position);
        self.counters.position.set_release(position);
        if position - self.conductor_position >= i64::from(self.term_length() / 16) {
            self.conductor_position = position;
            self.wants_conductor = true;
        }
    }

    /// Counts it once when there is data that the window does not let through.
    fn check_back_pressure(&mut self) {
        if !self.tracks_back_pressure || self.limit - self.position >= i64::from(self.mtu) {
            return;
        }
        let term = self.log.term(self.shape.partition(self.position));
        if scan_datagram(term, self.shape.offset(self.position), self.mtu).length > 0 {
            self.tracks_back_pressure = false;
            self.counters.back_pressure.add_relaxed(1);
            self.system.increment(SystemCounter::SenderFlowControlLimits);
        }
    }

    fn check_heartbeat(&mut self, now: NanoTime, sink: &mut dyn FrameSink) {
        if !self.has_initial_connection {
            return;
        }
        let flags = self.heartbeat_flags();
        // The end is told at once; everything else can wait for its time.
        let is_news = flags != self.last_heartbeat_flags && flags != FLAGS_UNFRAGMENTED;
        let is_due = self.heartbeat_deadline(now).is_due(now);
        if !is_due && !is_news {
            return;
        }
        let frame = encode_heartbeat(
            flags,
            self.session_id,
            self.stream_id,
            self.shape.term_id(self.position),
            self.shape.offset(self.position),
        );
        match sink.send_heartbeat(&frame, self.response_target) {
            Sent::Nowhere => {
                self.is_parked = true;
                return;
            }
            Sent::All => self.system.increment(SystemCounter::HeartbeatsSent),
            Sent::Part(_) => self.system.increment(SystemCounter::ShortSends),
        }
        self.last_frame = Some(now);
        self.was_heartbeat = true;
        self.tail_heartbeats = self.tail_heartbeats.saturating_add(1);
        self.last_heartbeat_flags = flags;
    }

    /// When the next heartbeat is due. Those of a quiet stream come to stand on a grid.
    fn heartbeat_deadline(&self, now: NanoTime) -> NanoTime {
        if let Some(tail) = self.tail_deadline() {
            return tail;
        }
        match self.last_frame {
            Some(last) if self.was_heartbeat => {
                quiet_timer::next_heartbeat(last, HEARTBEAT_INTERVAL_NS, self.phase_ns)
            }
            last => after(last, HEARTBEAT_INTERVAL_NS, now),
        }
    }

    /// When the next early heartbeat is due: what was sent last may be lost, and nothing else shows it. It is to come on
    /// time, whatever grid other timers stand on. None is due while there is nobody to send to.
    #[must_use]
    pub fn tail_deadline(&self) -> Option<NanoTime> {
        let is_due = self.tail_heartbeats < TAIL_HEARTBEATS && self.limits.tail_heartbeat_ns > 0;
        let last = self
            .last_frame
            .filter(|_| is_due && self.has_initial_connection && !self.is_parked && !self.is_short)?;
        let factor = TAIL_HEARTBEAT_FACTOR.pow(self.tail_heartbeats);
        let silence = self.limits.tail_heartbeat_ns.saturating_mul(factor);
        Some(last.plus_nanos(silence.min(HEARTBEAT_INTERVAL_NS)))
    }

    fn heartbeat_flags(&self) -> u8 {
        if self.log.metadata().is_revoked() {
            FLAGS_UNFRAGMENTED | FLAG_EOS | FLAG_REVOKED
        } else if self.traits.signal_eos && self.shared.is_end_of_stream() {
            FLAGS_UNFRAGMENTED | FLAG_EOS
        } else {
            FLAGS_UNFRAGMENTED
        }
    }

    fn on_idle(&mut self, now: NanoTime) {
        if self.traits.spies_simulate_connection
            && self.presence == Receivers::None
            && let Some(spy) = self.shared.fastest_spy_position()
        {
            self.skip_to(now, spy);
        } else {
            let limit = self.flow_control.on_idle(now, self.limit);
            self.set_limit(limit);
        }
        let expired = self.receivers.expire(now);
        if expired || self.flow_control.receivers().is_some() {
            self.refresh_presence();
        }
    }

    /// Nobody but spies listens: what they have read counts as sent.
    fn skip_to(&mut self, now: NanoTime, spy: i64) {
        // A client writes the position: only whole frames inside the log are believed.
        let position = (spy & !31).max(self.position);
        if position > self.position {
            self.furthest = self.furthest.max(position);
            self.set_position(position);
        }
        let limit = self.flow_control.on_idle(now, position);
        self.set_limit(limit.max(position));
    }

    fn set_limit(&mut self, limit: i64) {
        // No honest receiver is ahead of what was sent or has a window above half a term; forged ones do not get more.
        let most = self.furthest + i64::from(self.term_length() / 2);
        let limit = limit.min(most);
        if limit != self.limit {
            self.limit = limit;
            self.counters.limit.set_release(limit);
        }
    }

    fn refresh_presence(&mut self) {
        let presence = if self.receivers.is_empty() {
            Receivers::None
        } else if self.flow_control.has_required_receivers() {
            Receivers::Enough
        } else {
            Receivers::Some
        };
        if presence != self.presence {
            self.presence = presence;
            self.shared.set_receivers(presence);
            self.wants_conductor = true;
        }
        let followed = self.flow_control.receivers().unwrap_or(0);
        if followed != self.flow_control_receivers {
            self.flow_control_receivers = followed;
            if let Some(counter) = &self.counters.flow_control_receivers {
                counter.set_release(followed as i64);
            }
        }
    }

    /// Sends one portion of what was asked for again.
    fn send_again(&mut self, now: NanoTime, sink: &mut dyn FrameSink) -> usize {
        let Some(resend) = self.retransmit.poll_resend(now) else {
            return 0;
        };
        let end = resend.end.min(self.position);
        let mut allowed = self.budget.available(now);
        if !self.may_resend(resend.position) || allowed < i64::from(self.mtu) {
            if allowed < i64::from(self.mtu) {
                self.system.increment(SystemCounter::RetransmitOverflow);
            }
            self.retransmit.on_sent(now, resend.action, None);
            return 0;
        }
        let log = &self.log;
        let mut runs = DatagramRuns::new(resend.position);
        for _ in 0..self.limits.messages_per_send {
            let room = (end - runs.position()).min(allowed).min(i64::from(self.mtu));
            let before = runs.bytes() as i64;
            if room <= 0 || !runs.push(log, room as i32) {
                break;
            }
            allowed -= runs.bytes() as i64 - before;
        }
        if runs.is_empty() {
            self.retransmit.on_sent(now, resend.action, None);
            return 0;
        }
        let (bytes, next) = match sink.send(runs.batch(), FrameClass::Stream, self.response_target) {
            Sent::Nowhere => (0, None),
            Sent::All => (runs.bytes(), Some(runs.position())),
            Sent::Part(datagrams) => {
                self.is_short = true;
                self.system.increment(SystemCounter::ShortSends);
                let (bytes, next) = runs.up_to(datagrams);
                (bytes, Some(next))
            }
        };
        self.budget.spend(bytes as i64);
        if resend.is_first && bytes > 0 {
            self.system.increment(SystemCounter::RetransmitsSent);
        }
        self.system.add(SystemCounter::RetransmittedBytes, bytes as i64);
        let next = next.filter(|next| *next < end);
        self.retransmit.on_sent(now, resend.action, next);
        bytes
    }

    /// Whether the log still holds the bytes at a position (wire protocol 3.8).
    fn may_resend(&self, position: i64) -> bool {
        let kept = i64::from(self.term_length() / 2) + self.log.max_message_length() as i64;
        position >= (self.position - kept).max(self.initial_position) && position < self.position
    }

    /// Whether a frame starts at a position that the log still holds. Receivers lose whole frames; who asks for the middle
    /// of a message would have its payload sent as if it were frames of this stream.
    fn starts_frame(&self, position: i64) -> bool {
        let term = self.log.term(self.shape.partition(position));
        let (offset, term_id) = (self.shape.offset(position), self.shape.term_id(position));
        starts_frame(term, offset, term_id, (self.session_id, self.stream_id))
    }

    // Receiving

    /// Whether a status message that asks for no SETUP names a position this stream can be at (wire protocol 3.6 step
    /// 3). Padding takes the sender beyond the window of a receiver, which then is further behind than half a term; a
    /// quarter of a term, which no padding exceeds, is granted, but not before the start of the stream.
    #[must_use]
    pub fn is_position_plausible(&self, message: &StatusMessage) -> bool {
        let half = i64::from(self.term_length() / 2);
        let padding = half / 2;
        let position = self.shape.position(message.term_id, message.term_offset);
        position >= (self.position - half - padding).max(self.initial_position)
            && position <= self.position + half
    }

    /// Takes a status message whose fields and position were checked (wire protocol 3.6 steps 5 to 8).
    pub fn on_status_message(
        &mut self,
        now: NanoTime,
        message: &StatusMessage,
        from: SocketAddr,
    ) -> StatusOutcome {
        if message.is_send_setup() {
            if !self.shared.is_end_of_stream() {
                self.is_setup_elicited = true;
            }
            self.flow_control.on_trigger_send_setup(message.group_tag);
            if self.traits.is_response {
                self.response_target = Some(from);
            }
            return StatusOutcome::Done;
        }
        let had_receivers = self.presence != Receivers::None;
        if message.is_eos() {
            if !self.receivers.remove_if_from(message.receiver_id, from) {
                // A stranger can not end the stream for a receiver.
                return StatusOutcome::Done;
            }
            if !self.traits.has_group_semantics && self.receivers.is_empty() {
                self.shared.set_received_unicast_eos(true);
                self.wants_conductor = true;
            }
        } else if self.receivers.on_status_message(now, message.receiver_id, from)
            && self.shared.has_received_unicast_eos()
        {
            // Somebody came after the last one left.
            self.shared.set_received_unicast_eos(false);
        }
        self.has_initial_connection = true;
        let facts = StatusFacts {
            receiver_id: message.receiver_id,
            // What was not sent can not have been consumed.
            position: self
                .shape
                .position(message.term_id, message.term_offset)
                .min(self.furthest),
            window: i64::from(message.window),
            group_tag: message.group_tag,
            is_eos: message.is_eos(),
        };
        let limit = self.flow_control.on_status_message(now, &facts, self.limit);
        self.set_limit(limit);
        self.refresh_presence();
        if !had_receivers && self.presence != Receivers::None {
            StatusOutcome::Connected
        } else {
            StatusOutcome::Done
        }
    }

    /// Takes a request to send again whose fields were checked (wire protocol 3.8). Only who sends status messages is
    /// listened to: a request costs many times its own bytes.
    pub fn on_nak(&mut self, now: NanoTime, nak: &Nak, from: SocketAddr, sink: &mut dyn FrameSink) {
        self.counters.naks_received.add_relaxed(1);
        if nak.length <= 0 || !self.receivers.is_source(from) {
            return;
        }
        let position = self.shape.position(nak.term_id, nak.term_offset);
        if !self.may_resend(position) || !self.starts_frame(position) {
            return;
        }
        let term_left = i64::from(self.term_length() - nak.term_offset);
        let length = i64::from(nak.length)
            .min(term_left)
            .min(self.max_retransmit_length);
        match self.retransmit.on_nak(now, position, length as i32) {
            NakOutcome::Accepted => {
                self.send_again(now, sink);
                self.measure_round_trip(now, sink);
            }
            NakOutcome::Suppressed => {}
            NakOutcome::Overflow => self.system.increment(SystemCounter::RetransmitOverflow),
        }
    }

    /// Of a group every member has its own distance: there the linger time stays what it is.
    fn measure_round_trip(&mut self, now: NanoTime, sink: &mut dyn FrameSink) {
        if !self.limits.learns_round_trip || self.traits.has_group_semantics {
            return;
        }
        if let Some(request) = self.probe.poll(now, self.session_id, self.stream_id) {
            let frame = request.encode();
            let mut batch = SendBatch::of(SendEntry::datagram(Payload::from_slice(&frame), None));
            sink.send(&mut batch, FrameClass::Stream, self.response_target);
        }
    }

    /// Answers a measurement of the round trip (wire protocol 3.9), or takes the answer to one of our own.
    pub fn on_rttm(&mut self, now: NanoTime, rttm: &Rttm, from: SocketAddr, sink: &mut dyn FrameSink) {
        if !rttm.is_request() {
            let is_known = self.receivers.is_source(from);
            if let Some(rtt_ns) = is_known.then(|| self.probe.on_answer(now, rttm)).flatten() {
                self.retransmit.on_round_trip(rtt_ns);
            }
            return;
        }
        // Of a group only members are answered: the answer goes to every destination.
        if !self.traits.has_group_semantics || self.receivers.is_source(from) {
            self.answer_rttm(rttm, sink);
        }
    }

    /// Answers a measurement of the round trip, whoever asks.
    pub fn answer_rttm(&mut self, rttm: &Rttm, sink: &mut dyn FrameSink) {
        if rttm.is_request() {
            let frame = rttm.answer().encode();
            let mut batch = SendBatch::of(SendEntry::datagram(Payload::from_slice(&frame), None));
            sink.send(&mut batch, FrameClass::Stream, self.response_target);
        }
    }

    /// A receiver refuses the stream (wire protocol 3.13). `None` if it is none of ours, or if there were too many
    /// refusals to tell of this one.
    pub fn on_error(
        &mut self,
        now: NanoTime,
        error: &ErrorFrame<'_>,
        from: SocketAddr,
    ) -> Option<PublicationErrorReport> {
        if !self.receivers.remove_if_from(error.receiver_id, from) {
            return None;
        }
        self.flow_control.on_error(error.receiver_id);
        self.refresh_presence();
        let withheld = self.refusals.take(now)?;
        Some(PublicationErrorReport {
            registration_id: self.registration_id,
            destination_registration_id: None,
            session_id: self.session_id,
            stream_id: self.stream_id,
            receiver_id: error.receiver_id,
            group_tag: error.group_tag,
            source: from,
            error_code: error.error_code,
            text: String::from_utf8_lossy(error.text).into_owned(),
            withheld,
        })
    }

    /// Sends a SETUP in the next pass, as somebody came who knows nothing yet.
    pub fn elicit_setup(&mut self) {
        if !self.shared.is_end_of_stream() {
            self.is_setup_elicited = true;
        }
    }

    /// Whether passes have nothing to do before its deadline, unless the tail moves, the stream ends or a control frame
    /// comes. Streams that nobody can be sent, and those that follow spies, are looked at in every pass.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.is_short
            && !self.is_parked
            && !self.traits.spies_simulate_connection
            && producer_position(self.log.metadata(), self.shape) == self.position
    }

    /// Says what to watch while it rests.
    pub fn rest(&self, watch: &mut Option<SenderWatch>) {
        let watch = watch.get_or_insert_with(|| SenderWatch {
            tail: TailWatch::new(&self.log, 0),
            shared: Arc::clone(&self.shared),
            has_ended: false,
        });
        watch.tail.set(self.position);
        watch.has_ended = self.shared.is_end_of_stream();
    }

    /// When a pass without new input has something to do.
    #[must_use]
    pub fn next_deadline(&self, now: NanoTime) -> NanoTime {
        if self.is_short {
            return now.plus_nanos(SHORT_PAUSE_NS);
        }
        let mut deadline = NanoTime::never_after(now);
        // While there is nobody, SETUPs and heartbeats wait for a status message or a destination; both come with a pass.
        if !self.is_parked && (!self.has_initial_connection || self.is_setup_elicited) {
            deadline = deadline.earlier(after(self.last_setup, SETUP_INTERVAL_NS, now));
        }
        if !self.is_parked && self.has_initial_connection {
            deadline = deadline.earlier(self.heartbeat_deadline(now));
        }
        let timers = [
            self.receivers.next_expiry(),
            self.flow_control.next_deadline(),
            self.retransmit.next_deadline(now),
        ];
        timers.into_iter().flatten().fold(deadline, NanoTime::earlier)
    }
}

/// What the sender looks at of a publication at rest.
#[derive(Debug)]
pub struct SenderWatch {
    tail: TailWatch,
    shared: Arc<PublicationShared>,
    has_ended: bool,
}

impl Watch for SenderWatch {
    #[inline]
    fn has_news(&self) -> bool {
        self.tail.has_news() || self.shared.is_end_of_stream() != self.has_ended
    }
}

/// The first time that is more than `interval` after `last`.
fn after(last: Option<NanoTime>, interval: i64, now: NanoTime) -> NanoTime {
    last.map_or(now, |last| last.plus_nanos(interval + 1))
}

#[cfg(test)]
mod tests;
