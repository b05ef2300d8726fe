//! Rows about the gossip of name resolvers.

use std::net::{IpAddr, SocketAddr};

use crate::frames::{self, RES, SETUP};
use crate::peer::Peer;
use crate::ports::free_address;
use crate::process::{Make, pause};
use crate::stage::Stage;

/// Counters of the resolver.
const NEIGHBORS: i32 = 15;
const CACHE: i32 = 16;

/// A driver that gossips on a port of its own, to a bootstrap neighbour; with it the address of its resolver.
fn gossiping(make: Make, bootstrap: SocketAddr) -> (Stage, SocketAddr) {
    let interface = free_address();
    let stage = Stage::new(
        make,
        &[
            ("AERON_NAME_RESOLVER_SUPPLIER", "driver"),
            ("AERON_DRIVER_RESOLVER_NAME", "tested"),
            ("AERON_DRIVER_RESOLVER_INTERFACE", &interface.to_string()),
            ("AERON_DRIVER_RESOLVER_BOOTSTRAP_NEIGHBOR", &bootstrap.to_string()),
            ("AERON_DRIVER_RESOLVER_NEIGHBOR_TIMEOUT", "3s"),
        ],
    );
    (stage, interface)
}

fn octets(address: SocketAddr) -> [u8; 4] {
    match address.ip() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}

fn row_48_our_name_is_passed_on(make: Make) {
    let (mut us, mut witness) = (Peer::new(), Peer::new());
    let (mut stage, resolver) = gossiping(make, us.address());
    let first = us.expect("the driver's announcement", |frame| frame.kind() == RES);
    assert_eq!(
        first.bytes,
        frames::announcement("tested", octets(resolver), resolver.port())
    );
    // With the wildcard address: where it comes from is what counts.
    us.send(
        resolver,
        &frames::announcement("peerhost", [0; 4], us.address().port()),
    );
    witness.send(
        resolver,
        &frames::announcement("witness", [127, 0, 0, 1], witness.address().port()),
    );
    let entry = &frames::announcement("peerhost", [127, 0, 0, 1], us.address().port())[8..];
    let port = us.address().port();
    witness.expect("gossip about us", |frame| {
        let text = frame.0.windows(8).position(|part| part == b"peerhost");
        text.is_some_and(|text| {
            let start = text - 14;
            assert_eq!(frame.0[start], 1);
            assert_eq!(frame.0[start + 8..start + 12], entry[8..12]);
            assert_eq!(frame.0[start + 2..start + 4], port.to_le_bytes());
            frame.0[start + 1] == 0
        })
    });
    let mut sink = Peer::new();
    stage.publish(&format!("aeron:udp?endpoint=peerhost:{}", sink.address().port()));
    sink.expect("a SETUP", |frame| frame.kind() == SETUP);
    stage.end();
}

fn row_49_silence_is_forgotten(make: Make) {
    let (us, boot) = (Peer::new(), Peer::new());
    let (mut stage, resolver) = gossiping(make, boot.address());
    let port = us.address().port();
    us.send(resolver, &frames::announcement("peerhost", [127, 0, 0, 1], port));
    let both = |stage: &mut Stage| stage.only(NEIGHBORS) * 10 + stage.only(CACHE);
    stage.await_value("neighbours and cache", 11, both);
    pause(1500);
    // It is refreshed by a word of its own.
    us.send(resolver, &frames::announcement("peerhost", [127, 0, 0, 1], port));
    pause(2000);
    assert_eq!(both(&mut stage), 11);
    stage.await_value("neighbours and cache", 0, both);
    stage.end();
}

on_both_drivers!(row_48_our_name_is_passed_on, row_49_silence_is_forgotten);
