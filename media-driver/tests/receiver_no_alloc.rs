//! The receiver's duty cycle takes no memory: data, gaps, status messages, forged and broken datagrams, an unknown
//! session asked for and expired.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "../../transport/tests/counting/mod.rs"]
mod counting;
mod receiver_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use fulmar::agent::{Agent, Doorbell};
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::commands::{
    EndpointCommand, EndpointId, Lane, NetworkEvent, ReceiverCommand, TransportId,
};
use fulmar_media_driver::io::{
    Filled, IoError, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendOutcome, UdpSocket,
};
use fulmar_media_driver::media::receive_destination::{DestinationParts, ReceiveDestination};
use fulmar_media_driver::media::receive_endpoint::{ReceiveEndpoint, ReceiveEndpointParts};
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::connections::FeedbackRule;
use fulmar_media_driver::receiver::{ReceiverAgent, ReceiverParts};

use counting::allocations;
use receiver_support::*;

/// The next datagram, in memory that is there.
#[derive(Debug)]
struct Next {
    bytes: [u8; 2048],
    length: usize,
    from: SocketAddr,
    sent: usize,
}

#[derive(Clone, Debug)]
struct QuietSocket(Arc<Mutex<Next>>);

impl UdpSocket for QuietSocket {
    fn local_address(&self) -> SocketAddr {
        address(2, 9)
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        self.0.lock().unwrap().sent += batch.datagrams();
        SendOutcome {
            datagrams: batch.datagrams(),
            bytes: batch.bytes(),
            error: None,
        }
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        into.clear();
        let mut next = self.0.lock().unwrap();
        let length = std::mem::take(&mut next.length);
        if length == 0 {
            return ReceiveOutcome::default();
        }
        if let Some(buffer) = into.buffers_mut().next() {
            buffer[..length].copy_from_slice(&next.bytes[..length]);
        }
        into.push(Filled {
            length,
            segment_length: None,
            from: next.from,
            timestamp: None,
        });
        ReceiveOutcome {
            datagrams: 1,
            bytes: length,
            is_full: false,
            error: None,
        }
    }

    fn reconnect(&mut self, _to: SocketAddr) -> Result<(), IoError> {
        Ok(())
    }

    fn register(&mut self, _waiter: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}

#[test]
fn ten_thousand_duty_cycles_take_no_memory() {
    let options = Options::default();
    let image = TestImage::new(options);
    let TestImage {
        receiver,
        mut conductor,
        log: _log,
        high_water_mark,
        ..
    } = image;
    let mut now = options.now;
    let commands = Lane::new(Doorbell::heap());
    let events: Lane<NetworkEvent> = Lane::new(Doorbell::heap());
    let mut agent = ReceiverAgent::new(
        ReceiverParts {
            commands: commands.clone(),
            events: events.clone(),
            counters: NetworkCounters::heap(),
            context: DriverSettings::defaults().conclude().unwrap(),
            registration: None,
        },
        now,
    );
    let next = Arc::new(Mutex::new(Next {
        bytes: [0; 2048],
        length: 0,
        from: source(),
        sent: 0,
    }));
    let transport = ReceiveDestination::new(
        DestinationParts {
            id: TransportId::OWN,
            feedback: FeedbackRule::Source,
            socket: Box::new(QuietSocket(Arc::clone(&next))),
            control_name: None,
            multicast_ttl: 0,
        },
        now,
    );
    let endpoint = ReceiveEndpoint::new(
        ReceiveEndpointParts {
            proofs: None,
            id: EndpointId(1),
            receiver_id: RECEIVER_ID,
            group_tag: None,
            transport: Some(transport),
            session_limit: 10,
            timestamps: Default::default(),
        },
        now,
    );
    let subscription = EndpointCommand::AddSubscription(STREAM, None).at(EndpointId(1));
    let added = EndpointCommand::AddImage(Box::new(receiver)).at(EndpointId(1));
    for command in [
        ReceiverCommand::AddEndpoint(Box::new(endpoint)),
        subscription,
        added,
    ] {
        assert!(commands.offer(command).is_ok());
    }
    let position = conductor.subscribers[0].position.clone();
    let message = frame(0, &[5; 992]);
    let mut cycle = |agent: &mut ReceiverAgent, index: usize, at: NanoTime| {
        let put = |bytes: &[u8], from: SocketAddr| {
            let mut next = next.lock().unwrap();
            next.bytes[..bytes.len()].copy_from_slice(bytes);
            next.length = bytes.len();
            next.from = from;
        };
        let sent_to = (index as i64 / 8) * 1024;
        let mut bytes = [0; 1024];
        bytes.copy_from_slice(&message);
        // Every other message comes before the one in front of it.
        let at_position = match index % 8 {
            0 => sent_to ^ 1024,
            _ => sent_to,
        };
        bytes[8..12].copy_from_slice(&SHAPE.offset(at_position).to_le_bytes());
        bytes[20..24].copy_from_slice(&SHAPE.term_id(at_position).0.to_le_bytes());
        match index % 8 {
            0 => put(&bytes, source()),
            1 => put(&bytes[..40], source()),
            2 => put(&bytes, address(66, 6)),
            3 => {
                bytes[12..16].copy_from_slice(&5i32.to_le_bytes());
                put(&bytes, address(7, 7));
            }
            4 => put(&bytes[..7], source()),
            _ => {}
        }
        agent
            .do_work(Now {
                nanos: at,
                epoch: EpochMs(5),
            })
            .unwrap();
        conductor.track_rebuild(at);
        let rebuild = conductor.rebuild_position();
        position.set_release(rebuild);
    };
    // The tables of sessions and the client's side of the test come to their size.
    for index in 0..1_000 {
        cycle(&mut agent, index, now);
        now = now.plus_nanos(2_000_000);
    }
    let before = allocations();
    for index in 1_000..11_000 {
        cycle(&mut agent, index, now);
        now = now.plus_nanos(2_000_000);
    }
    assert_eq!(allocations() - before, 0);
    assert!(
        high_water_mark.get_relaxed() > 1_000_000,
        "{}",
        high_water_mark.get_relaxed()
    );
    assert!(next.lock().unwrap().sent > 1_000);
}
