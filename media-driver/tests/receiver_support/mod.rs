//! Images, endpoints and datagrams for tests of the receiver, in virtual time and without a network.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of this"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use fulmar::counters::Counter;
use fulmar::counters::layout::VALUE_LENGTH;
use fulmar::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{LogBuffers, LogInit, LogType};
use fulmar::memory::Region;
use fulmar::position::PositionShape;
use fulmar::time::NanoTime;
use fulmar::wire::{DataHeader, FrameType, Setup, encode_heartbeat};
use fulmar_media_driver::commands::{EndpointId, TransportId};
use fulmar_media_driver::config::UntetheredTimeouts;
use fulmar_media_driver::io::{
    Filled, IoError, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendEntry, SendOutcome, UdpSocket,
};
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::congestion::{CongestionControl, CubicSettings};
use fulmar_media_driver::protocol::connections::{FeedbackRule, TransportRule};
use fulmar_media_driver::protocol::feedback_delay::FeedbackDelay;
use fulmar_media_driver::protocol::loss_detector::{LossDetector, NakScope};
use fulmar_media_driver::protocol::untethered::Tether;
use fulmar_media_driver::stream::image_conductor::{ImageConductor, ImageConductorParts, Tracked};
use fulmar_media_driver::stream::image_receiver::{
    DataOutcome, FeedbackSink, ImageParts, ImageReceiver, ImageReceiverCounters,
};
use fulmar_media_driver::stream::image_shared::ImageShared;
use fulmar_media_driver::stream::position_counter::PositionCounter;
use fulmar_media_driver::stream::subscribers::{LinkId, Subscriber};

pub const TERM_LENGTH: i32 = 64 * 1024;
pub const WINDOW: i32 = 16 * 1024;
pub const SESSION: SessionId = SessionId(-77);
pub const STREAM: StreamId = StreamId(1001);
pub const INITIAL_TERM: TermId = TermId(i32::MAX - 1);
pub const RECEIVER_ID: i64 = 0x0815_0b4d_092a_7aef;
pub const MS: i64 = 1_000_000;
pub const SECOND: i64 = 1000 * MS;
pub const SHAPE: PositionShape = PositionShape::new(TERM_LENGTH, INITIAL_TERM);

pub const PLAIN: TransportRule = TransportRule {
    id: TransportId::OWN,
    feedback: FeedbackRule::Source,
};

pub fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

pub fn source() -> SocketAddr {
    address(1, 100)
}

pub fn counter() -> Counter {
    Counter::new(Region::heap(VALUE_LENGTH).as_view(), CounterId(0)).unwrap()
}

pub fn position_counter() -> PositionCounter {
    PositionCounter {
        id: CounterId(0),
        value: counter(),
    }
}

/// What the image of a test is like.
#[derive(Clone, Copy)]
pub struct Options {
    pub join_position: i64,
    pub is_reliable: bool,
    pub checks_source: bool,
    pub transport: TransportRule,
    pub group_tag: Option<i64>,
    pub subscribers: usize,
    /// Whether congestion control is cubic and measures round trips.
    pub measures_rtt: bool,
    /// Before a status message that opened the window is said again, ns; 0 for tests that count every message.
    pub status_message_repeat_ns: i64,
    pub now: NanoTime,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            join_position: 0,
            is_reliable: true,
            checks_source: true,
            transport: PLAIN,
            group_tag: None,
            subscribers: 1,
            measures_rtt: false,
            status_message_repeat_ns: MS,
            now: NanoTime(1_000 * SECOND),
        }
    }
}

/// Both halves of an image.
pub struct TestImage {
    pub receiver: ImageReceiver,
    pub conductor: ImageConductor,
    pub log: LogBuffers,
    pub system: NetworkCounters,
    pub high_water_mark: Counter,
    pub naks_sent: Counter,
    pub now: NanoTime,
    pub sent: Sent,
}

/// Collects feedback.
#[derive(Default)]
pub struct Sent(pub Vec<(TransportId, SocketAddr, Vec<u8>)>);

impl FeedbackSink for Sent {
    fn send(&mut self, transport: TransportId, to: SocketAddr, frame: &[u8]) {
        self.0.push((transport, to, frame.to_vec()));
    }
}

pub fn image_log(join_position: i64) -> LogBuffers {
    let init = LogInit {
        log_type: LogType::Image,
        start_term_id: SHAPE.term_id(join_position),
        start_term_offset: SHAPE.offset(join_position),
        ..LogInit::ipc_default(RegistrationId(9), SESSION, STREAM, INITIAL_TERM, TERM_LENGTH)
    };
    let length = log_length(init.term_length, init.page_size) as usize;
    LogBuffers::initialise(Region::heap(length), &init).unwrap()
}

impl TestImage {
    pub fn new(options: Options) -> Self {
        let now = options.now;
        let log = image_log(options.join_position);
        let delays = if options.is_reliable {
            FeedbackDelay::unicast(1_000, 100)
        } else {
            FeedbackDelay::none()
        };
        let congestion = if options.measures_rtt {
            let settings = CubicSettings {
                measure_rtt: true,
                initial_rtt_ns: 100_000,
                tcp_mode: false,
            };
            CongestionControl::cubic(now, WINDOW, TERM_LENGTH, 1408, settings)
        } else {
            CongestionControl::fixed(WINDOW, TERM_LENGTH)
        };
        let shared = Arc::new(ImageShared::new(
            now,
            options.join_position,
            congestion.initial_window(),
        ));
        let (high_water_mark, naks_sent) = (counter(), counter());
        let receiver = ImageReceiver::new(
            ImageParts {
                correlation_id: RegistrationId(9),
                log: log.clone(),
                join_position: options.join_position,
                shared: Arc::clone(&shared),
                counters: ImageReceiverCounters {
                    high_water_mark: high_water_mark.clone(),
                    naks_sent: naks_sent.clone(),
                },
                receiver_id: RECEIVER_ID,
                group_tag: options.group_tag,
                status_message_timeout_ns: 200 * MS,
                status_message_repeat_ns: options.status_message_repeat_ns,
                image_liveness_timeout_ns: 10 * SECOND,
                window_max: congestion.window_max(),
                is_reliable: options.is_reliable,
                checks_source: options.checks_source,
                transport: options.transport,
                source: source(),
            },
            now,
        );
        let mut conductor = ImageConductor::new(
            ImageConductorParts {
                correlation_id: RegistrationId(9),
                endpoint: EndpointId(1),
                channel: "aeron:udp?endpoint=10.0.0.2:9".to_owned(),
                source: source(),
                log: log.clone(),
                log_path: "images/9.logbuffer".to_owned(),
                shared,
                join_position: options.join_position,
                receiver_position: position_counter(),
                loss: LossDetector::new(delays, NakScope::EveryGap),
                congestion,
                rejoin: true,
                untethered: UntetheredTimeouts {
                    window_limit_ns: 5 * SECOND,
                    linger_ns: 5 * SECOND,
                    resting_ns: 10 * SECOND,
                },
                status_message_timeout_ns: 200 * MS,
                image_liveness_timeout_ns: 10 * SECOND,
            },
            now,
        );
        for link in 0..options.subscribers {
            conductor.link(Subscriber::new(
                (LinkId(link as u64), RegistrationId(20 + link as i64), ClientId(1)),
                (CounterId(0), {
                    let position = counter();
                    position.set_release(options.join_position);
                    position
                }),
                Tether::tethered(now),
                options.join_position,
            ));
        }
        Self {
            receiver,
            conductor,
            log,
            system: NetworkCounters::heap(),
            high_water_mark,
            naks_sent,
            now,
            sent: Sent::default(),
        }
    }

    pub fn plain() -> Self {
        Self::new(Options::default())
    }

    pub fn pass_time(&mut self, nanos: i64) {
        self.now = self.now.plus_nanos(nanos);
    }

    /// Data from the source that announced the stream.
    pub fn data(&mut self, datagram: &[u8]) -> DataOutcome {
        self.data_from(source(), PLAIN, datagram)
    }

    pub fn data_from(&mut self, from: SocketAddr, rule: TransportRule, datagram: &[u8]) -> DataOutcome {
        let header = DataHeader::parse(datagram).unwrap();
        self.receiver.on_data(self.now, rule, from, &header, datagram)
    }

    pub fn track(&mut self) -> Tracked {
        self.conductor.track_rebuild(self.now)
    }

    /// What the receiver sends now.
    pub fn send(&mut self) -> Vec<(TransportId, SocketAddr, Vec<u8>)> {
        self.receiver.send_pending(self.now, &mut self.sent, &self.system);
        std::mem::take(&mut self.sent.0)
    }

    /// The frames the receiver sends now.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        self.send().into_iter().map(|(_, _, frame)| frame).collect()
    }

    /// Moves a subscriber's counter, as its client does.
    pub fn consume(&mut self, index: usize, position: i64) {
        self.conductor.subscribers[index].position.set_release(position);
    }
}

/// One frame, padded to the alignment.
pub fn frame(position: i64, payload: &[u8]) -> Vec<u8> {
    let header = DataHeader {
        frame_length: 32 + payload.len() as i32,
        version: 0,
        flags: 0xC0,
        frame_type: FrameType::DATA,
        term_offset: SHAPE.offset(position),
        session_id: SESSION,
        stream_id: STREAM,
        term_id: SHAPE.term_id(position),
        reserved_value: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

/// The header of a padding frame of `length` bytes.
pub fn padding(position: i64, length: i32) -> Vec<u8> {
    DataHeader {
        frame_length: length,
        version: 0,
        flags: 0xC0,
        frame_type: FrameType::PAD,
        term_offset: SHAPE.offset(position),
        session_id: SESSION,
        stream_id: STREAM,
        term_id: SHAPE.term_id(position),
        reserved_value: 0,
    }
    .encode()
    .to_vec()
}

pub fn heartbeat(position: i64, flags: u8) -> Vec<u8> {
    encode_heartbeat(
        flags,
        SESSION,
        STREAM,
        SHAPE.term_id(position),
        SHAPE.offset(position),
    )
    .to_vec()
}

pub fn setup(position: i64) -> Setup {
    Setup {
        flags: 0,
        term_offset: SHAPE.offset(position),
        session_id: SESSION,
        stream_id: STREAM,
        initial_term_id: INITIAL_TERM,
        active_term_id: SHAPE.term_id(position),
        term_length: TERM_LENGTH,
        mtu: 1408,
        ttl: 0,
    }
}

/// What a socket of a test has to give and has got.
#[derive(Debug, Default)]
pub struct Wire {
    pub incoming: VecDeque<(SocketAddr, Vec<u8>)>,
    pub outgoing: Vec<(SocketAddr, Vec<u8>)>,
    /// Set: nothing can be sent.
    pub is_blocked: bool,
}

/// The test's end of a socket.
#[derive(Clone, Debug, Default)]
pub struct Far(pub Arc<Mutex<Wire>>);

impl Far {
    pub fn put(&self, from: SocketAddr, datagram: Vec<u8>) {
        self.0.lock().unwrap().incoming.push_back((from, datagram));
    }

    pub fn take(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().unwrap().outgoing)
    }
}

/// A socket without a network.
#[derive(Debug)]
pub struct TestSocket(pub Far);

impl UdpSocket for TestSocket {
    fn local_address(&self) -> SocketAddr {
        address(2, 9)
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let mut wire = self.0.0.lock().unwrap();
        if wire.is_blocked {
            return SendOutcome::default();
        }
        for datagram in batch.entries().iter().flat_map(SendEntry::split) {
            let mut bytes = vec![0; datagram.bytes.len()];
            assert!(datagram.bytes.copy_to(0, &mut bytes));
            wire.outgoing.push((datagram.to.unwrap(), bytes));
        }
        SendOutcome {
            datagrams: batch.datagrams(),
            bytes: batch.bytes(),
            error: None,
        }
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        into.clear();
        let mut wire = self.0.0.lock().unwrap();
        let mut outcome = ReceiveOutcome::default();
        let count = wire.incoming.len().min(into.capacity());
        let datagrams: Vec<_> = wire.incoming.drain(..count).collect();
        for (buffer, (_, bytes)) in into.buffers_mut().zip(&datagrams) {
            buffer[..bytes.len()].copy_from_slice(bytes);
        }
        for (from, bytes) in datagrams {
            outcome.datagrams += 1;
            outcome.bytes += bytes.len();
            into.push(Filled {
                length: bytes.len(),
                segment_length: None,
                from,
                timestamp: None,
            });
        }
        outcome.is_full = count == into.capacity();
        outcome
    }

    fn reconnect(&mut self, _to: SocketAddr) -> Result<(), IoError> {
        Ok(())
    }

    fn register(&mut self, _waiter: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}
