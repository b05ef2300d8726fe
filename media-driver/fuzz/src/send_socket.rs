//! A socket of a sender that is a list.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar_media_driver::io::{
    Filled, IoError, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendEntry, SendOutcome, UdpSocket,
};

/// What the socket has to give and has got.
#[derive(Debug, Default)]
pub struct SendTraffic {
    /// To be received.
    pub incoming: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Sent: where to, unless the socket is connected, and what.
    pub sent: Vec<(Option<SocketAddr>, Vec<u8>)>,
    /// Datagrams that are still taken; all if `None`.
    pub room: Option<usize>,
}

/// The far end of the socket; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct SendLine(Arc<Mutex<SendTraffic>>);

impl SendLine {
    /// The near end.
    #[must_use]
    pub fn socket(&self) -> Box<dyn UdpSocket> {
        Box::new(LineSocket(self.clone()))
    }

    /// What is under way.
    pub fn traffic(&self) -> MutexGuard<'_, SendTraffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LineSocket(SendLine);

impl UdpSocket for LineSocket {
    fn local_address(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 5555))
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let mut traffic = self.0.traffic();
        let mut outcome = SendOutcome::default();
        for datagram in batch.entries().iter().flat_map(SendEntry::split) {
            match &mut traffic.room {
                Some(0) => break,
                Some(room) => *room -= 1,
                None => {}
            }
            outcome.datagrams += 1;
            outcome.bytes += datagram.bytes.len();
            traffic.sent.push((datagram.to, datagram.bytes.to_vec()));
        }
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        let mut traffic = self.0.traffic();
        into.clear();
        let count = traffic.incoming.len().min(into.capacity());
        let datagrams: Vec<_> = traffic.incoming.drain(..count).collect();
        for (buffer, (_, bytes)) in into.buffers_mut().zip(&datagrams) {
            buffer[..bytes.len()].copy_from_slice(bytes);
        }
        let mut outcome = ReceiveOutcome {
            is_full: count == into.capacity(),
            ..ReceiveOutcome::default()
        };
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
        outcome
    }

    fn reconnect(&mut self, _to: SocketAddr) -> Result<(), IoError> {
        Ok(())
    }

    fn register(&mut self, _waiter: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}
