//! Network publications on the heap, for tests of everything that handles them.

use std::net::SocketAddr;

use fulmar::counters::Counter;
use fulmar::counters::layout::VALUE_LENGTH;
use fulmar::id::{CounterId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{AppendOutcome, ExclusiveAppender, LogBuffers, LogInit, LogType, NoReservedValue};
use fulmar::memory::Region;
use fulmar::position::PositionShape;
use fulmar::sync::Arc;
use fulmar::time::NanoTime;
use fulmar::wire::{Nak, StatusMessage};

use super::publication_sender::{
    FrameClass, FrameSink, PublicationParts, PublicationSender, SenderCounters, SenderLimits, SenderTraits,
    Sent,
};
use super::publication_shared::PublicationShared;
use crate::io::SendBatch;
use crate::network_counters::NetworkCounters;
use crate::protocol::flow_control::{FlowControl, Strategy};

pub(crate) const TERM: i32 = 65_536;
pub(crate) const MTU: i32 = 1408;
pub(crate) const MS: i64 = 1_000_000;
pub(crate) const SESSION: SessionId = SessionId(1234);
pub(crate) const STREAM: StreamId = StreamId(1001);
pub(crate) const INITIAL_TERM: TermId = TermId(-5);
pub(crate) const RECEIVER: i64 = 7;

pub(crate) fn at(nanos: i64) -> NanoTime {
    NanoTime(nanos)
}

pub(crate) fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn shape() -> PositionShape {
    PositionShape::new(TERM, INITIAL_TERM)
}

pub(crate) fn counter() -> Counter {
    Counter::new(Region::heap(VALUE_LENGTH).as_view(), CounterId(0)).unwrap()
}

pub(crate) fn log_at(start: i64) -> LogBuffers {
    let mut init = LogInit::ipc_default(RegistrationId(11), SESSION, STREAM, INITIAL_TERM, TERM);
    init.mtu_length = MTU;
    init.start_term_id = shape().term_id(start);
    init.start_term_offset = shape().offset(start);
    init.log_type = LogType::Exclusive;
    let region = Region::heap(log_length(TERM, 4096) as usize);
    LogBuffers::initialise(region, &init).unwrap()
}

pub(crate) fn limits() -> SenderLimits {
    SenderLimits {
        messages_per_send: 4,
        connection_timeout_ns: 5000 * MS,
        retransmit_delay_ns: 0,
        retransmit_linger_ns: 10 * MS,
        learns_round_trip: false,
        tail_heartbeat_ns: 0,
        max_resend: 16,
        initial_window_length: 128 * 1024,
        retransmit_budget_percent: 50,
    }
}

/// A publication with its publisher.
pub(crate) struct Fixture {
    pub(crate) log: LogBuffers,
    pub(crate) shared: Arc<PublicationShared>,
    pub(crate) system: Arc<NetworkCounters>,
    pub(crate) counters: SenderCounters,
    pub(crate) sender: PublicationSender,
    pub(crate) publisher: ExclusiveAppender<fulmar::memory::View>,
    pub(crate) sink: Wire,
}

pub(crate) struct Options {
    pub(crate) start: i64,
    pub(crate) traits: SenderTraits,
    pub(crate) limits: SenderLimits,
    pub(crate) flow_control: FlowControl,
    pub(crate) response_correlation_id: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start: 0,
            traits: SenderTraits {
                signal_eos: true,
                ..SenderTraits::default()
            },
            limits: limits(),
            flow_control: FlowControl::new(Strategy::Unicast, 16),
            response_correlation_id: -1,
        }
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let log = log_at(options.start);
        let shared = Arc::new(PublicationShared::new(options.start));
        let system = Arc::new(NetworkCounters::heap());
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
            initial_position: options.start,
            ttl: 0,
            response_correlation_id: options.response_correlation_id,
            traits: options.traits,
            flow_control: options.flow_control,
            limits: options.limits,
            counters: counters.clone(),
            system: Arc::clone(&system),
            shared: Arc::clone(&shared),
        };
        Self {
            publisher: ExclusiveAppender::new(log.clone()),
            sender: PublicationSender::new(parts, at(0)),
            log,
            shared,
            system,
            counters,
            sink: Wire::default(),
        }
    }

    /// Publishes a message of `length` bytes, retrying over the end of a term.
    pub(crate) fn publish(&mut self, length: usize) {
        let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
        for _ in 0..2 {
            let outcome = self
                .publisher
                .offer(&bytes.as_slice(), &NoReservedValue, i64::MAX / 2);
            if matches!(outcome, AppendOutcome::Appended { .. }) {
                return;
            }
        }
        panic!("a message of {length} bytes did not fit");
    }

    pub(crate) fn send(&mut self, now: i64) -> Vec<Vec<u8>> {
        self.sender.send(at(now), &mut self.sink);
        self.sink.take()
    }

    pub(crate) fn status(&mut self, now: i64, message: &StatusMessage) {
        self.sender.on_status_message(at(now), message, peer(1));
    }

    /// A receiver that takes `window` bytes from position 0 on.
    pub(crate) fn connect(&mut self, now: i64, window: i32) {
        let start = self.sender.position();
        self.status(now, &status(start, window));
    }

    pub(crate) fn nak(&mut self, now: i64, position: i64, length: i32) -> Vec<Vec<u8>> {
        let nak = nak(position, length);
        self.sender.on_nak(at(now), &nak, peer(1), &mut self.sink);
        self.sink.take()
    }
}

pub(crate) fn status(position: i64, window: i32) -> StatusMessage {
    StatusMessage {
        flags: 0,
        session_id: SESSION,
        stream_id: STREAM,
        term_id: shape().term_id(position),
        term_offset: shape().offset(position),
        window,
        receiver_id: RECEIVER,
        group_tag: None,
        has_bad_tag_length: false,
    }
}

pub(crate) fn asking() -> StatusMessage {
    StatusMessage {
        flags: StatusMessage::FLAG_SEND_SETUP,
        term_id: TermId(0),
        term_offset: 0,
        window: 0,
        ..status(0, 0)
    }
}

pub(crate) fn leaving(position: i64) -> StatusMessage {
    StatusMessage {
        flags: StatusMessage::FLAG_EOS,
        ..status(position, 0)
    }
}

pub(crate) fn nak(position: i64, length: i32) -> Nak {
    Nak {
        session_id: SESSION,
        stream_id: STREAM,
        term_id: shape().term_id(position),
        term_offset: shape().offset(position),
        length,
    }
}

/// Takes datagrams as the network would.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    datagrams: Vec<Vec<u8>>,
    /// Entries of the batches, as many system calls would see.
    pub(crate) entries: usize,
    pub(crate) classes: Vec<FrameClass>,
    pub(crate) to: Vec<Option<SocketAddr>>,
    /// Datagrams that are still taken; all if `None`.
    pub(crate) room: Option<usize>,
    pub(crate) is_nowhere: bool,
}

impl Wire {
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.datagrams)
    }
}

impl FrameSink for Wire {
    fn send(&mut self, batch: &mut SendBatch<'_>, class: FrameClass, to: Option<SocketAddr>) -> Sent {
        if self.is_nowhere {
            return Sent::Nowhere;
        }
        self.entries += batch.len();
        self.classes.push(class);
        self.to.push(to);
        let datagrams = batch.entries().iter().flat_map(crate::io::SendEntry::split);
        for (taken, datagram) in datagrams.enumerate() {
            if let Some(room) = &mut self.room {
                if *room == 0 {
                    return Sent::Part(taken);
                }
                *room -= 1;
            }
            self.datagrams.push(datagram.bytes.to_vec());
        }
        Sent::All
    }
}
