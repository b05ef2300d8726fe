//! Sockets that are lists, for tests of endpoints and agents.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::io::{
    Filled, IoError, ReceiveBatch, ReceiveError, ReceiveOutcome, Registration, SendBatch, SendError,
    SendOutcome, UdpSocket,
};

/// What a socket sent, and what it has yet to receive.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Vec<(Option<SocketAddr>, Vec<u8>)>,
    pub(crate) incoming: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Destinations that take nothing.
    pub(crate) refusing: Vec<SocketAddr>,
    /// Datagrams that are still taken; all if `None`.
    pub(crate) room: Option<usize>,
    pub(crate) connected_to: Option<SocketAddr>,
    pub(crate) is_reconnect_refused: bool,
    /// What every send fails with.
    pub(crate) failure: Option<SendError>,
    /// What every receive fails with.
    pub(crate) receive_failure: Option<ReceiveError>,
    /// Counts bytes only, so that nothing is allocated.
    pub(crate) forgets: bool,
    /// Calls that sent something.
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

/// The test's end of a socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(pub(crate) Arc<Mutex<Traffic>>);

impl Line {
    pub(crate) fn socket(&self) -> Box<dyn UdpSocket> {
        Box::new(LineSocket(self.clone()))
    }

    pub(crate) fn take_sent(&self) -> Vec<(Option<SocketAddr>, Vec<u8>)> {
        core::mem::take(&mut self.0.lock().unwrap().sent)
    }

    pub(crate) fn push(&self, from: SocketAddr, datagram: &[u8]) {
        self.0
            .lock()
            .unwrap()
            .incoming
            .push_back((from, datagram.to_vec()));
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Traffic) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

struct LineSocket(Line);

impl UdpSocket for LineSocket {
    fn local_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 5555))
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let mut traffic = self.0.0.lock().unwrap();
        let mut outcome = SendOutcome {
            error: traffic.failure,
            ..SendOutcome::default()
        };
        if outcome.error.is_some() {
            return outcome;
        }
        traffic.calls += 1;
        for datagram in batch.entries().iter().flat_map(crate::io::SendEntry::split) {
            if datagram.to.is_some_and(|to| traffic.refusing.contains(&to)) || traffic.room == Some(0) {
                break;
            }
            traffic.room = traffic.room.map(|room| room - 1);
            outcome.datagrams += 1;
            outcome.bytes += datagram.bytes.len();
            traffic.bytes += datagram.bytes.len();
            if !traffic.forgets {
                traffic.sent.push((datagram.to, datagram.bytes.to_vec()));
            }
        }
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        let mut traffic = self.0.0.lock().unwrap();
        into.clear();
        let mut outcome = ReceiveOutcome {
            error: traffic.receive_failure,
            ..ReceiveOutcome::default()
        };
        while outcome.datagrams < into.capacity() {
            let Some((from, datagram)) = traffic.incoming.pop_front() else {
                return outcome;
            };
            let buffer = into.buffers_mut().nth(outcome.datagrams).unwrap();
            buffer[..datagram.len()].copy_from_slice(&datagram);
            into.push(Filled {
                length: datagram.len(),
                segment_length: None,
                from,
                timestamp: None,
            });
            outcome.datagrams += 1;
            outcome.bytes += datagram.len();
        }
        outcome.is_full = true;
        outcome
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        let mut traffic = self.0.0.lock().unwrap();
        if traffic.is_reconnect_refused {
            return Err(IoError::new(
                "connect",
                to,
                std::io::ErrorKind::AddrNotAvailable.into(),
            ));
        }
        traffic.connected_to = Some(to);
        Ok(())
    }

    fn register(&mut self, _waiter: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}
