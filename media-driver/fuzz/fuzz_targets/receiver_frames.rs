//! The receiver against any sequence of frames, with pauses, a subscriber, and a conductor in between.
//!
//! Every other run has an honest source whose datagrams are lost, repeated and put in any order, and strangers who send
//! what they like: what can be read is then exactly what the source sent, and everything arrives in the end. In the other
//! runs the source itself sends anything. In all of them positions and fixed windows never go back, and nothing is written
//! beyond half a term behind the position that was announced last.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;

use fulmar::agent::{Agent, Doorbell};
use fulmar::counters::Counter;
use fulmar::id::{RegistrationId, SessionId, TermId};
use fulmar::log::LogBuffers;
use fulmar::memory::AtomicBuffer;
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar::wire::error::ERR_MAX_LENGTH;
use fulmar::wire::status_message::SM_MAX_LENGTH;
use fulmar::wire::{ErrorFrame, FrameKind, Nak, ResponseSetup, Rttm, Setup, StatusMessage, classify};
use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::commands::{
    EndpointCommand, EndpointId, Lane, NetworkEvent, ReceiverCommand, TransportId,
};
use fulmar_media_driver::config::DriverContext;
use fulmar_media_driver::media::receive_destination::{DestinationParts, ReceiveDestination};
use fulmar_media_driver::media::receive_endpoint::{ReceiveEndpoint, ReceiveEndpointParts};
use fulmar_media_driver::media::receive_timestamps::ReceiveTimestamps;
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::connections::FeedbackRule;
use fulmar_media_driver::protocol::source_proof::SourceProofs;
use fulmar_media_driver::receiver::{ReceiverAgent, ReceiverParts};
use fulmar_media_driver::stream::image_conductor::ImageConductor;
use fulmar_media_driver_fuzz::receiver_support::{
    Far, INITIAL_TERM, Options, RECEIVER_ID, SECOND, SESSION, SHAPE, STREAM, TERM_LENGTH, TestImage,
    TestSocket, frame, heartbeat, padding, setup, source,
};
use fulmar_media_driver_fuzz::{Input, mutate, peer, position_near, time_step};
use libfuzzer_sys::fuzz_target;

const L: i64 = TERM_LENGTH as i64;
const ENDPOINT: EndpointId = EndpointId(1);
const IMAGE: RegistrationId = RegistrationId(9);
/// Steps of one run at most.
const STEPS: usize = 200;
/// Floods of one run at most: they cost time.
const FLOODS_MAX: usize = 5;
/// Sessions of an endpoint that are remembered.
const SESSION_LIMIT: usize = 64;

static CONTEXT: LazyLock<DriverContext> = LazyLock::new(|| {
    DriverSettings::defaults()
        .conclude()
        .expect("the defaults are valid")
});

/// What the honest source sends: datagrams by position, and the bytes of the log that they make.
struct Stream {
    datagrams: Vec<(i64, Vec<u8>)>,
    bytes: Vec<u8>,
}

static STREAM_OF_SOURCE: LazyLock<Stream> = LazyLock::new(|| {
    let mut stream = Stream {
        datagrams: Vec::new(),
        bytes: Vec::new(),
    };
    let mut index = 0_usize;
    while (stream.bytes.len() as i64) < 6 * L {
        let start = stream.bytes.len() as i64;
        let mut datagram = Vec::new();
        for _ in 0..=index % 3 {
            let position = stream.bytes.len() as i64;
            let room = L - position % L;
            let payload = (index * 37 + datagram.len()) % 450;
            let length = (32 + payload).next_multiple_of(32) as i64;
            if length > room || index % 50 == 49 {
                let padded = if length > room {
                    room
                } else {
                    room.min(32 * (index as i64 % 40 + 1))
                };
                let header = padding(position, padded as i32);
                stream.bytes.extend_from_slice(&header);
                stream.bytes.resize((position + padded) as usize, 0);
                datagram.extend_from_slice(&header);
                break;
            }
            let bytes = frame(position, &vec![(index % 255) as u8 + 1; payload]);
            stream.bytes.extend_from_slice(&bytes);
            datagram.extend_from_slice(&bytes);
            if stream.bytes.len() as i64 % L == 0 {
                break;
            }
        }
        stream.datagrams.push((start, datagram));
        index += 1;
    }
    stream
});

struct World {
    agent: ReceiverAgent,
    commands: Lane<ReceiverCommand>,
    events: Lane<NetworkEvent>,
    far: Far,
    now: NanoTime,
    is_honest: bool,
    /// Congestion control takes windows back after a loss; without it they only grow.
    has_fixed_window: bool,
    image: ImageConductor,
    log: LogBuffers,
    high_water_mark: Counter,
    has_image: bool,
    rebuild: i64,
    mark: i64,
    announced: i64,
    window_end: i64,
    consumed: i64,
    checked: i64,
    /// What lies beyond the window, before and after a datagram.
    beyond: [Vec<u8>; 2],
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = input.u8();
        let is_honest = kind & 1 == 0;
        let now = NanoTime(500 * SECOND);
        let (commands, events) = (Lane::new(Doorbell::heap()), Lane::new(Doorbell::heap()));
        let agent = ReceiverAgent::new(
            ReceiverParts {
                commands: commands.clone(),
                events: events.clone(),
                counters: NetworkCounters::heap(),
                context: CONTEXT.clone(),
                registration: None,
            },
            now,
        );
        let far = Far::default();
        let endpoint = ReceiveEndpoint::new(
            ReceiveEndpointParts {
                proofs: (kind & 2 != 0).then(|| SourceProofs::new(99, now)),
                id: ENDPOINT,
                receiver_id: RECEIVER_ID,
                group_tag: (kind & 4 != 0).then_some(7),
                transport: Some(ReceiveDestination::new(
                    DestinationParts {
                        id: TransportId::OWN,
                        feedback: FeedbackRule::Source,
                        socket: Box::new(TestSocket(far.clone())),
                        control_name: None,
                        multicast_ttl: 0,
                    },
                    now,
                )),
                session_limit: SESSION_LIMIT,
                timestamps: ReceiveTimestamps::default(),
            },
            now,
        );
        let image = TestImage::new(Options {
            // Truth is by position from zero on, so only other runs join late.
            join_position: if is_honest {
                0
            } else {
                i64::from(kind >> 6) * (L - 4096)
            },
            is_reliable: is_honest || kind & 8 != 0,
            checks_source: is_honest || kind & 16 != 0,
            group_tag: (kind & 4 != 0).then_some(7),
            measures_rtt: kind & 32 != 0,
            now,
            ..Options::default()
        });
        let join = image.conductor.rebuild_position();
        let next = image.conductor.next_status_message();
        let mut world = Self {
            agent,
            commands,
            events,
            far,
            now,
            is_honest,
            has_fixed_window: kind & 32 == 0,
            image: image.conductor,
            log: image.log,
            high_water_mark: image.high_water_mark,
            has_image: true,
            rebuild: join,
            mark: join,
            announced: next.position,
            window_end: next.position + i64::from(next.window),
            consumed: join,
            checked: join,
            beyond: [Vec::new(), Vec::new()],
        };
        world.command(ReceiverCommand::AddEndpoint(Box::new(endpoint)));
        world.command(EndpointCommand::AddSubscription(STREAM, None).at(ENDPOINT));
        world.command(EndpointCommand::AddImage(Box::new(image.receiver)).at(ENDPOINT));
        world
    }

    fn command(&mut self, command: ReceiverCommand) {
        assert!(self.commands.offer(command).is_ok());
        self.work();
    }

    /// One cycle of the receiver, and what the conductor does with what it says.
    fn work(&mut self) {
        let now = Now {
            nanos: self.now,
            epoch: EpochMs(7),
        };
        self.agent.do_work(now).expect("the receiver does not fail");
        let mut asked = Vec::new();
        while let Some(event) = self.events.poll() {
            match event {
                NetworkEvent::CreateImage(seen) => {
                    assert_eq!(seen.setup.check(), Ok(()));
                    asked.push(seen.setup);
                }
                NetworkEvent::ImageReleased(image) => assert_eq!(image.correlation_id(), IMAGE),
                _ => {}
            }
        }
        // Half of the images can not be made; the others are being made for ever.
        for setup in asked {
            if setup.session_id.0 & 1 == 0 {
                let failed = EndpointCommand::InitFailed(setup.stream_id, setup.session_id);
                assert!(self.commands.offer(failed.at(ENDPOINT)).is_ok());
            }
        }
        for (_, bytes) in self.far.take() {
            self.check_feedback(&bytes);
        }
    }

    fn check_feedback(&self, bytes: &[u8]) {
        match classify(bytes).expect("what is sent is sound") {
            FrameKind::StatusMessage => {
                let message = StatusMessage::parse(bytes).expect("what is sent is sound");
                assert_eq!(message.check(1 << 30), Ok(()));
                if message.session_id == SESSION && !message.is_send_setup() {
                    let position = SHAPE.position(message.term_id, message.term_offset);
                    assert!(position <= self.announced.max(self.image.next_status_message().position));
                }
            }
            FrameKind::Nak => {
                let nak = Nak::parse(bytes).expect("what is sent is sound");
                assert_eq!(nak.check(TERM_LENGTH), Ok(()));
                let position = SHAPE.position(nak.term_id, nak.term_offset);
                assert!(
                    position + i64::from(nak.length) <= self.mark.max(self.high_water_mark.get_relaxed())
                );
            }
            FrameKind::Rttm => assert!(Rttm::parse(bytes).is_ok()),
            FrameKind::Error => assert!(ErrorFrame::parse(bytes).is_ok()),
            other => panic!("a receiver sends no {other:?}"),
        }
    }

    /// The half of a term behind the farthest position that may be written to.
    fn copy_beyond(&mut self, which: usize, from: i64) {
        let bytes = &mut self.beyond[which];
        bytes.clear();
        let mut position = from;
        while position < from + L / 2 {
            let offset = SHAPE.offset(position) as usize;
            let length = (L as usize - offset).min((from + L / 2 - position) as usize);
            let at = bytes.len();
            bytes.resize(at + length, 0);
            let term = self.log.term(SHAPE.partition(position));
            term.buffer().copy_out(offset, &mut bytes[at..]);
            position += length as i64;
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let limit = self.image.next_status_message().position + L / 2;
        self.copy_beyond(0, limit);
        self.far.put(from, datagram.to_vec());
        self.work();
        self.copy_beyond(1, limit);
        assert!(self.beyond[0] == self.beyond[1], "written beyond the window");
    }

    /// Strangers are not heard while the source is: it has just said something.
    fn receive_from_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        let alive = heartbeat(self.high_water_mark.get_relaxed(), 0xC0);
        self.receive(source(), &alive);
        self.receive(from, datagram);
    }

    fn track(&mut self) {
        self.image.track_rebuild(self.now);
        self.check();
    }

    fn consume(&mut self) {
        self.consumed = self.rebuild;
        self.image.subscribers[0].position.set_release(self.consumed);
        self.track();
        self.work();
    }

    fn check(&mut self) {
        let rebuild = self.image.rebuild_position();
        let mark = self.high_water_mark.get_relaxed();
        let next = self.image.next_status_message();
        let window_end = next.position + i64::from(next.window);
        assert!(rebuild >= self.rebuild, "the rebuild position went back");
        assert!(mark >= self.mark, "the high-water mark went back");
        assert!(
            next.position >= self.announced,
            "the announced position went back"
        );
        assert!(next.position <= rebuild, "announced before it was there");
        if self.has_fixed_window {
            assert!(window_end >= self.window_end, "the window went back");
        }
        (self.rebuild, self.mark) = (rebuild, mark);
        (self.announced, self.window_end) = (next.position, window_end);
        if self.is_honest {
            self.check_content();
        }
        assert!(
            self.agent
                .routes()
                .iter()
                .all(|endpoint| endpoint.image_count() <= 1)
        );
    }

    /// What became readable is what the source sent.
    fn check_content(&mut self) {
        while self.checked < self.rebuild {
            let end = ((self.checked / L + 1) * L).min(self.rebuild);
            let mut bytes = vec![0; (end - self.checked) as usize];
            let term = self.log.term(SHAPE.partition(self.checked));
            term.buffer()
                .copy_out(SHAPE.offset(self.checked) as usize, &mut bytes);
            let sent = &STREAM_OF_SOURCE.bytes[self.checked as usize..end as usize];
            assert!(bytes == sent, "from {} to {end}", self.checked);
            self.checked = end;
        }
    }
}

/// The index of the datagram that holds a position.
fn index_of(position: i64) -> usize {
    let datagrams = &STREAM_OF_SOURCE.datagrams;
    datagrams.partition_point(|(start, _)| *start <= position) - 1
}

/// Any frame with fields near those of the stream.
fn any_frame(input: &mut Input<'_>, world: &World) -> Vec<u8> {
    let kind = input.u8();
    let position = position_near(input, world.mark);
    let mut bytes = match kind & 15 {
        0..=4 => {
            let mut bytes = Vec::new();
            for _ in 0..=kind >> 6 {
                let length = usize::from(input.u8()) * 2;
                bytes.extend(frame(
                    position.saturating_add(bytes.len() as i64),
                    &vec![0x5A; length],
                ));
            }
            bytes
        }
        5 => padding(position, i32::from(input.u8()) * 256),
        6 | 7 => heartbeat(position, input.u8()),
        8 | 9 => Setup {
            term_length: TERM_LENGTH >> (kind >> 7),
            mtu: if kind & 64 == 0 {
                1408
            } else {
                i32::from(input.u16())
            },
            initial_term_id: TermId(INITIAL_TERM.0 + i32::from(kind >> 4 & 1)),
            ..setup(position)
        }
        .encode()
        .to_vec(),
        10 => {
            let mut bytes = [0; SM_MAX_LENGTH];
            let length = StatusMessage {
                flags: input.u8(),
                session_id: SESSION,
                stream_id: STREAM,
                term_id: SHAPE.term_id(position),
                term_offset: SHAPE.offset(position),
                window: input.i32(),
                receiver_id: RECEIVER_ID,
                group_tag: None,
                has_bad_tag_length: false,
            }
            .encode(&mut bytes);
            bytes[..length].to_vec()
        }
        11 => {
            let mut bytes = [0; ERR_MAX_LENGTH];
            let length = usize::from(input.u8());
            let error = ErrorFrame {
                session_id: SESSION,
                stream_id: STREAM,
                receiver_id: RECEIVER_ID,
                group_tag: None,
                error_code: input.i32(),
                text: input.bytes(length),
            };
            let length = error.encode(&mut bytes);
            bytes[..length].to_vec()
        }
        12 | 13 => Rttm {
            flags: input.u8(),
            session_id: SESSION,
            stream_id: STREAM,
            echo_timestamp: if kind & 16 == 0 {
                world.now.0.saturating_sub(i64::from(input.u16()) * 1_000)
            } else {
                input.i64()
            },
            reception_delta: i64::from(input.i32()),
            receiver_id: RECEIVER_ID,
        }
        .encode()
        .to_vec(),
        14 => ResponseSetup {
            session_id: SESSION,
            stream_id: STREAM,
            response_session_id: SessionId(input.i32()),
        }
        .encode()
        .to_vec(),
        _ => {
            let length = usize::from(input.u8());
            input.bytes(length).to_vec()
        }
    };
    if kind & 0x30 == 0x30 {
        mutate(input, &mut bytes);
    }
    bytes
}

fn of_session(mut datagram: Vec<u8>, session: i32) -> Vec<u8> {
    if let Some(at) = datagram.get_mut(12..16) {
        at.copy_from_slice(&session.to_le_bytes());
    }
    datagram
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
        let (stranger, many) = (peer(u16::from(operation >> 6)), i32::from(operation >> 4));
        match operation & 15 {
            // The stream, in any order.
            0..=4 if world.is_honest => {
                let nearest = index_of(world.mark);
                let at = (nearest + usize::from(input.u8() & 63)).saturating_sub(24);
                let last = STREAM_OF_SOURCE.datagrams.len() - 1;
                world.receive(source(), &STREAM_OF_SOURCE.datagrams[at.min(last)].1);
            }
            0..=4 => {
                let bytes = any_frame(&mut input, &world);
                world.receive(source(), &bytes);
            }
            5 => {
                let bytes = any_frame(&mut input, &world);
                world.receive_from_stranger(stranger, &bytes);
            }
            6 | 7 => {
                let bytes = any_frame(&mut input, &world);
                let session = i32::from(input.u8());
                world.receive_from_stranger(stranger, &of_session(bytes, session));
            }
            // New sessions from many sources.
            8 if floods < FLOODS_MAX => {
                floods += 1;
                let first = input.u16();
                for index in 0..4 * many {
                    let session = i32::from(first) + index;
                    let bytes = of_session(setup(0).encode().to_vec(), session);
                    world.receive_from_stranger(peer(first.wrapping_add(index as u16)), &bytes);
                    world.receive(stranger, &of_session(frame(0, &[1]), session + 7));
                }
            }
            9 | 10 => world.now = world.now.plus_nanos(time_step(&mut input)),
            11 => world.consume(),
            12 if !world.is_honest => match input.u8() & 7 {
                0 => {
                    if world.has_image {
                        world.command(EndpointCommand::RemoveImage(IMAGE).at(ENDPOINT));
                        world.has_image = false;
                    }
                }
                1 => world.command(EndpointCommand::RemoveCoolDown(STREAM, SESSION).at(ENDPOINT)),
                2 => world.command(EndpointCommand::RequestSetup(STREAM, SESSION).at(ENDPOINT)),
                3 => drop(world.image.reject("no")),
                4 => drop(world.image.on_timer(world.now)),
                5 => world.command(EndpointCommand::RemoveSubscription(STREAM, None).at(ENDPOINT)),
                6 => world.command(EndpointCommand::AddSubscription(STREAM, Some(SESSION)).at(ENDPOINT)),
                _ => world.command(EndpointCommand::AddSubscription(STREAM, None).at(ENDPOINT)),
            },
            _ => {}
        }
        world.track();
        world.work();
    }
    if !world.is_honest {
        return;
    }
    // The network is well again: what comes now arrives.
    let target = (world.rebuild + 8192).min(5 * L);
    while world.rebuild < target {
        let before = world.rebuild;
        world.receive(source(), &STREAM_OF_SOURCE.datagrams[index_of(before)].1);
        world.track();
        world.consume();
        assert!(world.rebuild > before, "stuck at {before}");
    }
});
