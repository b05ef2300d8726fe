//! Tests of the network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fulmar::time::{Clock, NanoTime, SystemClock};

use super::*;
use crate::io::conformance;
use crate::io::{
    IoError, Network, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendOutcome, SocketSpec,
    UdpSocket,
};

const START: NanoTime = NanoTime(1_000_000);
const A: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Lets everything arrive that is on its way.
fn run(network: &SimNetwork, clock: &VirtualClock) {
    while let Some(next) = network.next_arrival() {
        if next.since(clock.nanos()) > 0 {
            clock.advance_to(next);
        }
        network.deliver(clock.nanos());
    }
}

/// A network that delivers whenever a socket is asked: the suite's sockets are used as those of a system that runs by
/// itself.
struct Running {
    network: SimNetwork,
    clock: Arc<VirtualClock>,
    host: Arc<dyn Network>,
}

struct RunningSocket {
    network: SimNetwork,
    clock: Arc<VirtualClock>,
    inner: Box<dyn UdpSocket>,
}

impl Network for Running {
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        // What was sent before finds only those who were there.
        run(&self.network, &self.clock);
        Ok(Box::new(RunningSocket {
            network: self.network.clone(),
            clock: Arc::clone(&self.clock),
            inner: self.host.open(spec)?,
        }))
    }
}

impl UdpSocket for RunningSocket {
    fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        self.inner.send(batch)
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        run(&self.network, &self.clock);
        self.inner.receive(into)
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.inner.reconnect(to)
    }

    fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        self.inner.register(waiter)
    }
}

#[test]
fn without_faults_it_passes_the_conformance_suite() {
    for delay_ns in [0, 20_000] {
        // The suite compares arrival times with the system's wall clock.
        let clock = Arc::new(VirtualClock::new(START, SystemClock.now().epoch.0));
        let network = SimNetwork::new(Arc::clone(&clock), 1);
        network.set_default_link(Link {
            delay_ns,
            jitter_ns: delay_ns / 2,
            ..Link::perfect()
        });
        let addresses = [ip(A), ip("fd00::1")];
        let running = Running {
            host: network.host(&addresses),
            network: network.clone(),
            clock,
        };
        conformance::check_with(&running, &SimNetwork::interfaces(&addresses));
        assert_eq!(network.open_sockets(), 0);
    }
}
