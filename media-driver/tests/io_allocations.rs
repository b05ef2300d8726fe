//! Sending, receiving and waiting allocate nothing: every allocation of this thread is counted.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "../../transport/tests/counting/mod.rs"]
mod counting;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use counting::allocations;
use fulmar::agent::IdleMode;
use fulmar::agent::doorbell::DOORBELL_LENGTH;
use fulmar::log::Payload;
use fulmar::memory::Region;
use fulmar::time::{NanoTime, SystemClock};
use fulmar_media_driver::io::{
    FaultNetwork, FaultRules, Network, ReceiveBatch, SendBatch, SendEntry, SocketRole, SocketSpec,
    SystemNetwork, SystemOptions, Waiting,
};

fn passes_allocate_nothing(network: &dyn Network) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut waiting = Waiting::new(
        IdleMode::Adaptive,
        Region::heap(DOORBELL_LENGTH).as_view(),
        None,
        Duration::from_micros(10),
    )
    .unwrap();
    // So many that the thread looks which of them are ready.
    let mut receivers: Vec<_> = (0..8)
        .map(|_| {
            let mut spec = SocketSpec::new(SocketRole::Receive, any);
            spec.receive_timestamps = true;
            let mut socket = network.open(&spec).unwrap();
            socket.register(&waiting.registration).unwrap();
            socket
        })
        .collect();
    let to = receivers[3].local_address();
    let mut sender = network.open(&SocketSpec::sender_to(to)).unwrap();
    let mut connected = network
        .open(&SocketSpec {
            connect: Some(to),
            ..SocketSpec::sender_to(to)
        })
        .unwrap();
    let bytes = vec![7u8; 30 * 1408];
    let mut batch = ReceiveBatch::new(4);
    let (mut sent, mut received) = (0, 0);
    let mut round = || {
        let mut out = SendBatch::new();
        let run = SendEntry::run(Payload::from_slice(&bytes), 1408, Some(to));
        let single = SendEntry::datagram(Payload::from_slice(&bytes[..100]), Some(to));
        while out.push(single) && out.len() < 8 {}
        out.push(run);
        sent += sender.send(&out).datagrams;
        let single = SendEntry::datagram(Payload::from_slice(&bytes[..100]), None);
        sent += connected.send(&SendBatch::of(single)).datagrams;
        for cycle in 0..300 {
            let mut work = 0;
            for socket in &mut receivers {
                work += socket.receive(&mut batch).datagrams;
                received += batch
                    .datagrams()
                    .filter(|datagram| datagram.timestamp.is_some())
                    .count();
            }
            let now = SystemClock.nanos();
            let work = if cycle < 290 { work.max(cycle % 2) } else { work };
            waiting.idle.idle(work, NanoTime::never_after(now), now);
        }
        // The wait itself.
        for _ in 0..1000 {
            let now = SystemClock.nanos();
            waiting.idle.idle(0, NanoTime::never_after(now), now);
        }
    };
    round();
    let before = allocations();
    for _ in 0..5 {
        round();
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(sent, 6 * (8 + 30 + 1));
    assert!(received > 0);
}

#[test]
fn the_system_and_a_network_that_loses_datagrams_allocate_nothing_in_steady_state() {
    passes_allocate_nothing(&SystemNetwork::default());
    // Where the system has no io_uring, the same once more.
    let options = SystemOptions {
        uring: true,
        ..SystemOptions::default()
    };
    passes_allocate_nothing(&SystemNetwork::new(options));
    let rules = FaultRules::random(0.1, 1);
    passes_allocate_nothing(&FaultNetwork::new(Arc::new(SystemNetwork::default()), rules));
}
