//! A send pass allocates nothing: every allocation of this thread is counted.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../transport/tests/counting/mod.rs"]
mod counting;

use std::net::SocketAddr;

use counting::allocations;
use fulmar::agent::{Agent, Doorbell};
use fulmar::counters::Counter;
use fulmar::counters::layout::VALUE_LENGTH;
use fulmar::id::{CounterId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{AppendOutcome, ExclusiveAppender, LogBuffers, LogInit, LogType, NoReservedValue, clean};
use fulmar::memory::Region;
use fulmar::position::PositionShape;
use fulmar::sync::Arc;
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar::wire::{Nak, StatusMessage};
use fulmar_media_driver::commands::{EndpointId, Lane, SenderCommand};
use fulmar_media_driver::io::{
    Filled, IoError, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendOutcome, UdpSocket,
};
use fulmar_media_driver::media::send_endpoint::{Addressing, SendEndpoint, SendEndpointParts};
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::destinations::{Destination, DestinationMode, Destinations};
use fulmar_media_driver::protocol::flow_control::{FlowControl, MinFlowControl, Strategy};
use fulmar_media_driver::sender::{SenderAgent, SenderParts};
use fulmar_media_driver::stream::publication_sender::{
    PublicationParts, PublicationSender, SenderCounters, SenderLimits, SenderTraits,
};
use fulmar_media_driver::stream::publication_shared::PublicationShared;

const TERM: i32 = 65_536;
const FRAME: i64 = 1056;

/// A receiver that answers every datagram with a status message for everything it got, and now and then with a request
/// for the last datagram.
struct Receiver {
    datagrams: i64,
    from: SocketAddr,
    shape: PositionShape,
    position: i64,
    answered: i64,
}

impl UdpSocket for Receiver {
    fn local_address(&self) -> SocketAddr {
        self.from
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        for datagram in batch.entries().iter().flat_map(|entry| entry.split()) {
            outcome.datagrams += 1;
            outcome.bytes += datagram.bytes.len();
            let term_id = TermId(datagram.bytes.read_i32(20).unwrap());
            let offset = datagram.bytes.read_i32(8).unwrap();
            let kind = datagram.bytes.read_u16(6).unwrap();
            if kind <= 1 {
                let end = self.shape.position(term_id, offset) + datagram.bytes.len() as i64;
                self.position = self.position.max(end);
                self.datagrams += 1;
            }
        }
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        into.clear();
        let mut outcome = ReceiveOutcome::default();
        if self.answered == self.datagrams {
            return outcome;
        }
        self.answered = self.datagrams;
        let mut bytes = [0; 44];
        let (session_id, stream_id) = (SessionId(1), StreamId(2));
        let status = StatusMessage {
            flags: 0,
            session_id,
            stream_id,
            term_id: self.shape.term_id(self.position),
            term_offset: self.shape.offset(self.position),
            window: TERM / 2,
            receiver_id: 7,
            group_tag: None,
            has_bad_tag_length: false,
        };
        let length = status.encode(&mut bytes);
        let lost = self.position - FRAME;
        let nak = Nak {
            session_id,
            stream_id,
            term_id: self.shape.term_id(lost),
            term_offset: self.shape.offset(lost),
            length: FRAME as i32,
        }
        .encode();
        for frame in [&bytes[..length], &nak[..]] {
            let buffer = into.buffers_mut().nth(outcome.datagrams).unwrap();
            buffer[..frame.len()].copy_from_slice(frame);
            into.push(Filled {
                length: frame.len(),
                segment_length: None,
                from: self.from,
                timestamp: None,
            });
            outcome.datagrams += 1;
            outcome.bytes += frame.len();
        }
        outcome
    }

    fn reconnect(&mut self, _: SocketAddr) -> Result<(), IoError> {
        Ok(())
    }

    fn register(&mut self, _: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}

fn counter() -> Counter {
    Counter::new(Region::heap(VALUE_LENGTH).as_view(), CounterId(0)).unwrap()
}

fn cycle(agent: &mut SenderAgent, nanos: i64) {
    let now = Now {
        nanos: NanoTime(nanos),
        epoch: EpochMs(0),
    };
    agent.do_work(now).unwrap();
    agent.next_deadline();
}

/// Sends through ten terms, with requests to send again and pauses long enough for heartbeats, and counts allocations
/// once everything has been seen for the first time.
fn allocations_of(addressing: Addressing, flow_control: FlowControl) -> u64 {
    let shape = PositionShape::new(TERM, TermId(3));
    let mut init = LogInit::ipc_default(RegistrationId(11), SessionId(1), StreamId(2), TermId(3), TERM);
    init.log_type = LogType::Exclusive;
    let region = Region::heap(log_length(TERM, 4096) as usize);
    let log = LogBuffers::initialise(region, &init).unwrap();
    let system = Arc::new(NetworkCounters::heap());
    let shared = Arc::new(PublicationShared::new(0));
    let publication = PublicationSender::new(
        PublicationParts {
            registration_id: RegistrationId(11),
            log: log.clone(),
            initial_position: 0,
            ttl: 0,
            response_correlation_id: -1,
            traits: SenderTraits {
                has_group_semantics: matches!(addressing, Addressing::Destinations(_)),
                signal_eos: true,
                ..SenderTraits::default()
            },
            flow_control,
            limits: SenderLimits {
                messages_per_send: 4,
                connection_timeout_ns: 5_000_000_000,
                retransmit_delay_ns: 0,
                retransmit_linger_ns: 10_000_000,
                learns_round_trip: true,
                tail_heartbeat_ns: 1_000_000,
                max_resend: 16,
                initial_window_length: 131_072,
                retransmit_budget_percent: 50,
            },
            counters: SenderCounters {
                position: counter(),
                limit: counter(),
                back_pressure: counter(),
                naks_received: counter(),
                flow_control_receivers: Some(counter()),
            },
            system: Arc::clone(&system),
            shared: Arc::clone(&shared),
        },
        NanoTime(0),
    );
    let endpoint = SendEndpoint::new(
        SendEndpointParts {
            id: EndpointId(1),
            channel: String::new(),
            socket: Box::new(Receiver {
                datagrams: 0,
                from: SocketAddr::from(([127, 0, 0, 1], 4000)),
                shape,
                position: 0,
                answered: -1,
            }),
            control_socket: None,
            addressing,
            name: None,
            address: None,
            destinations_counter: None,
            system: Arc::clone(&system),
        },
        NanoTime(0),
    );
    let commands = Lane::new(Doorbell::heap());
    let mut agent = SenderAgent::new(
        SenderParts {
            commands: commands.clone(),
            events: Lane::new(Doorbell::heap()),
            system: Arc::clone(&system),
            registration: None,
            status_poll_ratio: 6,
            status_poll_interval_ns: 100_000_000,
            receive_capacity: 4,
            resolution_interval_ns: 1_000_000_000,
            cycle_threshold_ns: 1_000_000_000,
            longest_idle_ns: 0,
        },
        NanoTime(0),
    );
    let endpoint_id = EndpointId(1);
    commands
        .offer(SenderCommand::AddEndpoint(Box::new(endpoint)))
        .unwrap();
    commands
        .offer(SenderCommand::AddPublication {
            endpoint: endpoint_id,
            publication: Box::new(publication),
        })
        .unwrap();
    let mut publisher = ExclusiveAppender::new(log.clone());
    let message = [1u8; 1024];
    let mut cleaned = 0;
    let mut before = 0;
    let mut sent_before = 0;
    for step in 0..4000i64 {
        let now = step * 1_000_000 + if step % 100 == 0 { 200_000_000 } else { 0 };
        if step % 100 < 90 && publisher.position() - shared.sender_position() < 16 * FRAME {
            let offer = publisher.offer(&message.as_slice(), &NoReservedValue, i64::MAX / 2);
            assert!(!matches!(offer, AppendOutcome::TooLong), "{offer:?}");
        }
        cycle(&mut agent, now);
        let target = shared.sender_position() - i64::from(TERM);
        cleaned = clean(&log, cleaned, target, TERM as usize);
        if step == 200 {
            before = allocations();
            sent_before = shared.sender_position();
        }
    }
    let allocated = allocations() - before;
    let sent = shared.sender_position() - sent_before;
    assert!(sent > 10 * i64::from(TERM), "only {sent} bytes were sent");
    let resent = system
        .get(fulmar::counters::SystemCounter::RetransmitsSent)
        .get_relaxed();
    assert!(resent > 10, "{resent}");
    allocated
}

#[test]
fn sending_over_one_address_allocates_nothing() {
    let unicast = FlowControl::new(Strategy::Unicast, 16);
    assert_eq!(allocations_of(Addressing::Connected, unicast), 0);
}

#[test]
fn sending_to_many_destinations_allocates_nothing() {
    let mut destinations = Destinations::new(DestinationMode::Manual, NanoTime(0));
    for port in 4000..4003 {
        destinations.add(
            NanoTime(0),
            Destination {
                registration_id: RegistrationId(i64::from(port)),
                channel: port.to_string(),
                name: None,
                address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            },
        );
    }
    let min = MinFlowControl::new(None, 1, 5_000_000_000);
    let flow_control = FlowControl::new(Strategy::Min(Box::new(min)), 4);
    let addressing = Addressing::Destinations(destinations);
    assert_eq!(allocations_of(addressing, flow_control), 0);
}
