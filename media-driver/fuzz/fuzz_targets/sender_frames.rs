//! The sender against any sequence of control frames: fields near those of the live stream, frames with changed bytes,
//! pauses, sockets that take little, and a publisher in between. The sender never goes back, sends nothing but what is in
//! the log, and nothing that no receiver has granted; what it remembers of strangers is bounded.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;

use fulmar::agent::{Agent, Doorbell};
use fulmar::counters::Counter;
use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{AppendOutcome, ExclusiveAppender, LogBuffers, LogInit, LogType, NoReservedValue, clean};
use fulmar::memory::{AtomicBuffer, Region, View};
use fulmar::position::PositionShape;
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar::wire::error::ERR_MAX_LENGTH;
use fulmar::wire::status_message::SM_MAX_LENGTH;
use fulmar::wire::{
    DataHeader, ErrorFrame, FrameKind, Nak, ResponseSetup, Rttm, Setup, StatusMessage, classify,
};
use fulmar_media_driver::commands::{EndpointId, Lane, NetworkEvent, SenderCommand};
use fulmar_media_driver::media::send_endpoint::{Addressing, SendEndpoint, SendEndpointParts};
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::destinations::{DestinationMode, Destinations, LEARNT_DESTINATIONS_MAX};
use fulmar_media_driver::protocol::flow_control::{FlowControl, MinFlowControl, Strategy};
use fulmar_media_driver::protocol::receiver_liveness::RECEIVERS_MAX;
use fulmar_media_driver::protocol::rtt::PROBE_INTERVAL_NS;
use fulmar_media_driver::sender::{SenderAgent, SenderParts};
use fulmar_media_driver::stream::publication_sender::{
    PublicationParts, PublicationSender, SenderCounters, SenderLimits, SenderTraits,
};
use fulmar_media_driver::stream::publication_shared::PublicationShared;
use fulmar_media_driver_fuzz::receiver_support::counter;
use fulmar_media_driver_fuzz::{Input, SendLine, mutate, peer, position_near, time_step};
use libfuzzer_sys::fuzz_target;

const TERM_LENGTH: i32 = 65_536;
const L: i64 = TERM_LENGTH as i64;
const MTU: i32 = 1408;
const SESSION: SessionId = SessionId(1234);
const STREAM: StreamId = StreamId(1001);
/// Term ids wrap within the first few terms.
const SHAPE: PositionShape = PositionShape::new(TERM_LENGTH, TermId(i32::MAX - 1));
const MS: i64 = 1_000_000;
const ENDPOINT: EndpointId = EndpointId(1);
/// Steps of one run at most.
const STEPS: usize = 200;
/// Floods of one run at most: more fill the tables no further and only cost time.
const FLOODS_MAX: usize = 5;

struct World {
    agent: SenderAgent,
    events: Lane<NetworkEvent>,
    line: SendLine,
    log: LogBuffers,
    shared: Arc<PublicationShared>,
    counters: SenderCounters,
    destinations: Counter,
    publisher: ExclusiveAppender<View>,
    now: NanoTime,
    start: i64,
    published: i64,
    cleaned: i64,
    /// The farthest end of what any status message allows.
    granted: i64,
    position: i64,
    limit: i64,
    /// Whether the limit may go back, which that of a group of receivers may.
    is_min: bool,
    /// When the round trip was measured last, in the sender's time.
    measured: Option<NanoTime>,
}

fn log_at(start: i64) -> LogBuffers {
    let init = LogInit {
        mtu_length: MTU,
        start_term_id: SHAPE.term_id(start),
        start_term_offset: SHAPE.offset(start),
        log_type: LogType::Exclusive,
        ..LogInit::ipc_default(
            RegistrationId(11),
            SESSION,
            STREAM,
            SHAPE.initial_term_id,
            TERM_LENGTH,
        )
    };
    let region = Region::heap(log_length(TERM_LENGTH, 4096) as usize);
    LogBuffers::initialise(region, &init).expect("the parameters are sound")
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let (shape, kind) = (input.u8(), input.u8());
        let start = i64::from(shape >> 4) * (L / 2) / 32 * 32;
        let now = NanoTime(500_000 * MS);
        let is_group = kind & 4 != 0;
        let is_response = kind & 12 == 8;
        let strategy = match shape & 3 {
            _ if !is_group => Strategy::Unicast,
            0 => Strategy::Max,
            1 => Strategy::Min(Box::new(MinFlowControl::new(
                None,
                i32::from(kind & 1),
                5_000 * MS,
            ))),
            2 => Strategy::Min(Box::new(MinFlowControl::new(Some(7), 1, 200 * MS))),
            _ => Strategy::Min(Box::new(MinFlowControl::new(None, 2, 5_000 * MS))),
        };
        let is_min = matches!(strategy, Strategy::Min(_));
        let (log, line) = (log_at(start), SendLine::default());
        let (shared, system) = (
            Arc::new(PublicationShared::new(start)),
            Arc::new(NetworkCounters::heap()),
        );
        let counters = SenderCounters {
            position: counter(),
            limit: counter(),
            back_pressure: counter(),
            naks_received: counter(),
            flow_control_receivers: Some(counter()),
        };
        let parts = PublicationParts {
            registration_id: RegistrationId(11),
            log: log.clone(),
            initial_position: start,
            ttl: 0,
            response_correlation_id: if kind & 16 != 0 { 5 } else { -1 },
            traits: SenderTraits {
                has_group_semantics: is_group,
                is_response,
                signal_eos: true,
                spies_simulate_connection: kind & 32 != 0,
            },
            flow_control: FlowControl::new(strategy, 16),
            limits: SenderLimits {
                messages_per_send: 4,
                connection_timeout_ns: 5_000 * MS,
                retransmit_delay_ns: if kind & 64 != 0 { MS } else { 0 },
                retransmit_linger_ns: 10 * MS,
                learns_round_trip: true,
                tail_heartbeat_ns: MS,
                max_resend: 16,
                initial_window_length: 32 * 1024,
                retransmit_budget_percent: 50,
            },
            counters: counters.clone(),
            system: Arc::clone(&system),
            shared: Arc::clone(&shared),
        };
        let publication = Box::new(PublicationSender::new(parts, now));
        let (commands, events) = (Lane::new(Doorbell::heap()), Lane::new(Doorbell::heap()));
        let agent = SenderAgent::new(
            SenderParts {
                commands: commands.clone(),
                events: events.clone(),
                system: Arc::clone(&system),
                registration: None,
                status_poll_ratio: 6,
                status_poll_interval_ns: 100 * MS,
                receive_capacity: 2,
                resolution_interval_ns: 1_000 * MS,
                cycle_threshold_ns: 1_000 * MS,
                longest_idle_ns: 10 * MS,
            },
            now,
        );
        let destinations = counter();
        let endpoint = SendEndpoint::new(
            SendEndpointParts {
                id: ENDPOINT,
                channel: "aeron:udp?endpoint=h:1".to_owned(),
                socket: line.socket(),
                control_socket: None,
                addressing: if is_response {
                    Addressing::Response
                } else if is_group && kind & 2 != 0 {
                    Addressing::Destinations(Destinations::new(DestinationMode::Dynamic, now))
                } else {
                    Addressing::Connected
                },
                name: Some("h:1".to_owned()),
                address: None,
                destinations_counter: Some(destinations.clone()),
                system,
            },
            now,
        );
        let mut world = Self {
            agent,
            events,
            line,
            publisher: ExclusiveAppender::new(log.clone()),
            log,
            shared,
            counters,
            destinations,
            now,
            start,
            published: start,
            cleaned: start,
            granted: start,
            position: start,
            limit: start,
            is_min,
            measured: None,
        };
        for command in [
            SenderCommand::AddEndpoint(Box::new(endpoint)),
            SenderCommand::AddPublication {
                endpoint: ENDPOINT,
                publication,
            },
        ] {
            assert!(commands.offer(command).is_ok());
        }
        world.work();
        world
    }

    fn publish(&mut self, length: usize) {
        let bytes = vec![0xA5; length];
        let limit = self.shared.sender_position() + L / 2;
        for _ in 0..2 {
            match self.publisher.offer(&bytes.as_slice(), &NoReservedValue, limit) {
                AppendOutcome::Appended { position } => {
                    self.published = position;
                    break;
                }
                AppendOutcome::AdminAction => {}
                AppendOutcome::AtLimit { .. } => break,
                outcome => panic!("{outcome:?}"),
            }
        }
        // The end of a term may have been padded.
        self.published = self.published.max(self.publisher.position());
        // As the conductor does: a term behind the sender.
        let target = self.shared.sender_position() - L;
        while self.cleaned < target {
            let cleaned = clean(&self.log, self.cleaned, target, TERM_LENGTH as usize);
            assert!(cleaned > self.cleaned);
            self.cleaned = cleaned;
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Ok(message) = StatusMessage::parse(datagram)
            && (message.stream_id, message.session_id) == (STREAM, SESSION)
            && !message.is_send_setup()
        {
            let position = SHAPE.position(message.term_id, message.term_offset);
            let end = position
                .min(self.published)
                .saturating_add(i64::from(message.window));
            self.granted = self.granted.max(end);
        }
        self.line.traffic().incoming.push_back((from, datagram.to_vec()));
    }

    fn work(&mut self) -> usize {
        let now = Now {
            nanos: self.now,
            epoch: EpochMs(7),
        };
        let work = self.agent.do_work(now).expect("the sender does not fail");
        while self.events.poll().is_some() {}
        self.check();
        work
    }

    /// Two passes: idle ones take control frames, busy ones do only now and then. Once nothing comes and nothing is done,
    /// the sender waits for a time to come; with one in the past it would turn and turn.
    fn settle(&mut self) {
        self.work();
        let is_drained = self.line.traffic().incoming.is_empty();
        let is_idle = self.work() == 0 && is_drained;
        if is_idle {
            let deadline = self.agent.next_deadline();
            assert!(
                !deadline.is_due(self.now),
                "{deadline:?} is over at {:?}",
                self.now
            );
        }
    }

    fn check(&mut self) {
        let sent = core::mem::take(&mut self.line.traffic().sent);
        let before = self.position;
        let (position, limit) = (
            self.counters.position.get_relaxed(),
            self.counters.limit.get_relaxed(),
        );
        assert!(position >= self.position, "the sender went back");
        assert!(self.is_min || limit >= self.limit, "the limit went back");
        assert!(position <= self.published, "more than was published");
        assert_eq!(position, self.shared.sender_position());
        (self.position, self.limit) = (position, limit);
        for (_, datagram) in sent {
            match classify(&datagram).expect("what is sent is sound") {
                FrameKind::Data => self.check_data(&datagram, before),
                FrameKind::Setup => {
                    let setup = Setup::parse(&datagram).expect("what is sent is sound");
                    assert_eq!(setup.check(), Ok(()));
                }
                FrameKind::Rttm => {
                    let rttm = Rttm::parse(&datagram).expect("what is sent is sound");
                    if rttm.is_request() {
                        self.check_measurement(&rttm);
                    }
                }
                other => panic!("a sender sends no {other:?}"),
            }
        }
        let receivers = self.counters.flow_control_receivers.as_ref();
        assert!(receivers.is_some_and(|count| count.get_relaxed() <= RECEIVERS_MAX as i64));
        assert!(self.destinations.get_relaxed() <= LEARNT_DESTINATIONS_MAX as i64);
    }

    /// A sender that was asked for repairs measures the round trip, once in an interval of its own time, which leaves out
    /// what it slept through; to all destinations at once.
    fn check_measurement(&mut self, request: &Rttm) {
        assert_eq!((request.session_id, request.stream_id), (SESSION, STREAM));
        let asked = NanoTime(request.echo_timestamp);
        assert!(asked.is_due(self.now), "{asked:?} is later than {:?}", self.now);
        let earlier = self.measured.replace(asked);
        assert!(
            earlier.is_none_or(|earlier| earlier == asked || asked.since(earlier) >= PROBE_INTERVAL_NS),
            "measured at {earlier:?} and at {asked:?}"
        );
    }

    /// Each datagram is whole frames of the log, at most an MTU, within what was granted, and not older than what may be
    /// asked for again.
    fn check_data(&self, datagram: &[u8], before: i64) {
        let first = DataHeader::parse(datagram).expect("it was classified");
        let start = SHAPE.position(first.term_id, first.term_offset);
        let extent = self.start..=self.position;
        assert!(
            extent.contains(&start),
            "{start} is not within {extent:?}: {first:?}"
        );
        if first.frame_length == 0 {
            assert_eq!(datagram.len(), 32, "a heartbeat");
            return;
        }
        assert!(datagram.len() <= MTU as usize);
        assert!(start + datagram.len() as i64 <= self.granted, "nobody granted it");
        assert!(start >= before - L / 2 - self.log.max_message_length() as i64);
        let mut logged = vec![0; datagram.len()];
        let term = self.log.term(SHAPE.partition(start));
        term.buffer().copy_out(first.term_offset as usize, &mut logged);
        assert!(datagram == logged, "not what is in the log");
        let (mut at, mut position) = (0, start);
        while at < datagram.len() {
            let header = DataHeader::parse(&datagram[at..]).expect("whole frames");
            assert_eq!(SHAPE.position(header.term_id, header.term_offset), position);
            assert!(header.frame_length >= 32);
            let length = (header.frame_length as usize).next_multiple_of(32);
            position += length as i64;
            at += if header.is_padding() { 32 } else { length };
        }
        assert_eq!(at, datagram.len());
        assert!(position <= self.published);
    }
}

fn status(input: &mut Input<'_>, base: i64) -> StatusMessage {
    let position = position_near(input, base);
    let (flags, window) = (input.u8(), input.u16());
    StatusMessage {
        flags: match flags & 15 {
            15 => StatusMessage::FLAG_SEND_SETUP,
            14 => StatusMessage::FLAG_EOS,
            13 => flags,
            _ => 0,
        },
        session_id: SESSION,
        stream_id: STREAM,
        term_id: SHAPE.term_id(position),
        term_offset: SHAPE.offset(position),
        window: if window == u16::MAX {
            i32::MAX
        } else {
            i32::from(window)
        },
        receiver_id: i64::from(flags >> 6),
        group_tag: (flags & 32 != 0).then_some(7),
        has_bad_tag_length: false,
    }
}

/// Any control frame, with fields near those of the stream.
fn frame(input: &mut Input<'_>, world: &World) -> Vec<u8> {
    let kind = input.u8();
    match kind & 15 {
        0..=5 => {
            let mut bytes = [0; SM_MAX_LENGTH];
            let length = status(input, world.position).encode(&mut bytes);
            bytes[..length].to_vec()
        }
        6..=10 => {
            let position = position_near(input, world.position);
            Nak {
                session_id: SESSION,
                stream_id: STREAM,
                term_id: SHAPE.term_id(position),
                term_offset: SHAPE.offset(position),
                length: match input.u16() {
                    u16::MAX => i32::MAX,
                    length => i32::from(length),
                },
            }
            .encode()
            .to_vec()
        }
        11 => {
            let mut bytes = [0; ERR_MAX_LENGTH];
            let length = usize::from(input.u8());
            let error = ErrorFrame {
                session_id: SESSION,
                stream_id: STREAM,
                receiver_id: i64::from(kind >> 6),
                group_tag: None,
                error_code: input.i32(),
                text: input.bytes(length),
            };
            let length = error.encode(&mut bytes);
            bytes[..length].to_vec()
        }
        12 => Rttm {
            flags: kind & 0x80,
            session_id: SESSION,
            stream_id: STREAM,
            echo_timestamp: input.i64(),
            reception_delta: input.i64(),
            receiver_id: i64::from(kind >> 6),
        }
        .encode()
        .to_vec(),
        13 => ResponseSetup {
            session_id: SESSION,
            stream_id: STREAM,
            response_session_id: SessionId(input.i32()),
        }
        .encode()
        .to_vec(),
        14 => Setup {
            flags: 0,
            term_offset: 0,
            session_id: SESSION,
            stream_id: STREAM,
            initial_term_id: SHAPE.initial_term_id,
            active_term_id: SHAPE.initial_term_id,
            term_length: TERM_LENGTH,
            mtu: MTU,
            ttl: 0,
        }
        .encode()
        .to_vec(),
        _ => {
            let length = usize::from(input.u8());
            input.bytes(length).to_vec()
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    let mut floods = 0;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let operation = input.u8();
        let from = peer(u16::from(operation >> 6));
        match operation & 15 {
            0..=3 => world.publish(usize::from(input.u16()) % 6000),
            4..=8 => {
                let bytes = frame(&mut input, &world);
                world.receive(from, &bytes);
            }
            9 => {
                let mut bytes = frame(&mut input, &world);
                mutate(&mut input, &mut bytes);
                world.receive(from, &bytes);
            }
            // A receiver that takes everything.
            10 => {
                let message = StatusMessage {
                    flags: 0,
                    window: 32 * 1024,
                    receiver_id: 1,
                    ..status(&mut Input::new(&[]), world.position + 128 / 2 * 32)
                };
                let mut bytes = [0; SM_MAX_LENGTH];
                let length = message.encode(&mut bytes);
                world.receive(from, &bytes[..length]);
            }
            // Many receivers at once.
            11 if floods < FLOODS_MAX => {
                floods += 1;
                let (first, window) = (input.u16(), input.u16());
                let asks = operation >> 6 == 3;
                for index in 0..300 {
                    let message = StatusMessage {
                        flags: if asks { StatusMessage::FLAG_SEND_SETUP } else { 0 },
                        session_id: SESSION,
                        stream_id: STREAM,
                        term_id: SHAPE.term_id(world.position),
                        term_offset: SHAPE.offset(world.position),
                        window: i32::from(window),
                        receiver_id: i64::from(first) + index,
                        group_tag: None,
                        has_bad_tag_length: false,
                    };
                    let mut bytes = [0; SM_MAX_LENGTH];
                    let length = message.encode(&mut bytes);
                    world.receive(peer(first.wrapping_add(index as u16)), &bytes[..length]);
                }
                for _ in 0..200 {
                    world.work();
                }
            }
            12 => {
                let room = input.u8();
                world.line.traffic().room = (room < 16).then_some(usize::from(room));
            }
            13 => world.now = world.now.plus_nanos(time_step(&mut input)),
            _ => {}
        }
        world.settle();
    }
    // Once the socket takes everything, no control frame waits for ever.
    world.line.traffic().room = None;
    for _ in 0..STEPS * 8 {
        world.work();
        if world.line.traffic().incoming.is_empty() {
            break;
        }
        world.now = world.now.plus_nanos(MS);
    }
    assert!(
        world.line.traffic().incoming.is_empty(),
        "control frames were left"
    );
});
