//! Drivers of both makes that resolve names for each other: a hub, and two that know nothing but the hub.

use std::net::{IpAddr, SocketAddr};

use crate::peer::Peer;
use crate::ports::free_address;
use crate::process::{Client, Make};
use crate::stage::{QUICK_TIMER, STREAM, Stage};

const NEIGHBORS: i32 = 15;
const CACHE: i32 = 16;
const BOOTSTRAP: i32 = 21;

/// How long a silent driver is remembered, seconds.
const TIMEOUT: &str = "3s";

/// A driver with a name, gossiping at a loopback address of its own.
fn named(make: Make, name: &str, bootstrap: &str) -> (Stage, SocketAddr) {
    let interface = free_address();
    let stage = Stage::new(
        make,
        &[
            QUICK_TIMER,
            ("AERON_NAME_RESOLVER_SUPPLIER", "driver"),
            ("AERON_DRIVER_RESOLVER_NAME", name),
            ("AERON_DRIVER_RESOLVER_INTERFACE", &interface.to_string()),
            ("AERON_DRIVER_RESOLVER_BOOTSTRAP_NEIGHBOR", bootstrap),
            ("AERON_DRIVER_RESOLVER_NEIGHBOR_TIMEOUT", TIMEOUT),
        ],
    );
    (stage, interface)
}

/// Neighbours and names that a driver knows.
fn known(stage: &mut Stage) -> i64 {
    stage.only(NEIGHBORS) * 10 + stage.only(CACHE)
}

fn labels(client: &mut Client, type_id: i32) -> Vec<String> {
    let mut counters = client.counters();
    counters.retain(|counter| counter.type_id == type_id);
    counters.iter().map(|counter| counter.label.clone()).collect()
}

fn names_travel_through_a_hub(hub: Make, publisher: Make, subscriber: Make) {
    let (mut hub, hub_at) = named(hub, "hub", "");
    let bootstrap = hub_at.to_string();
    let (mut from, from_at) = named(publisher, "from", &bootstrap);
    let (mut to, to_at) = named(subscriber, "to", &bootstrap);
    for stage in [&mut hub, &mut from, &mut to] {
        stage.await_value("neighbours and names", 22, known);
    }
    assert_eq!(
        labels(&mut from.client, NEIGHBORS),
        [format!("Resolver neighbors: bound {from_at}")]
    );
    assert_eq!(
        labels(&mut from.client, CACHE),
        ["Resolver cache entries: name=from"]
    );
    assert_eq!(
        labels(&mut from.client, BOOTSTRAP),
        [format!("Bootstrap neighbor: name={bootstrap} resolved={hub_at}")]
    );
    let keys = |stage: &mut Stage| {
        let mut counters = stage.counters(BOOTSTRAP);
        counters.retain(|counter| counter.key.starts_with("00000000"));
        counters.len()
    };
    assert_eq!((keys(&mut from), keys(&mut hub)), (1, 0));

    to.subscribe(&format!("aeron:udp?endpoint={}:0", to_at.ip()));
    let port = to.receive_address().port();
    from.client.ok(&format!(
        "add_pub p aeron:udp?endpoint=to:{port}|term-length=64k {STREAM}"
    ));
    from.client.ok("connected p true 20000");
    from.client.tell("offer p 1000 100 3 60000");
    to.client.ok("poll s 1000 60000");
    from.client.answered();
    // Its own name, and one that nobody has.
    to.client.ok(&format!(
        "add_pub q aeron:udp?endpoint=to:{port}|term-length=64k {STREAM}"
    ));
    to.client.ok("connected q true 20000");
    let (code, text) = from.client.refused(&format!(
        "add_pub r aeron:udp?endpoint=nosuch.invalid:{port} {STREAM}"
    ));
    assert_eq!(code.abs(), 9, "{text}");

    to.end();
    hub.await_value("neighbours and names", 11, known);
    from.await_value("neighbours and names", 11, known);
    hub.end();
    from.end();
}

/// A neighbour that says nothing by itself is announced to and forgotten; what is no frame is counted.
fn strangers_are_listened_to_with_care(make: Make) {
    let (mut stage, at) = named(make, "careful", "");
    let (stranger, mut victim) = (Peer::new(), Peer::new());
    stranger.send(at, &[0; 5]);
    let mut gossip = crate::frames::announcement("victim", [127, 0, 0, 1], victim.address().port());
    // In somebody else's words.
    gossip[9] = 0;
    stranger.send(at, &gossip);
    let IpAddr::V4(ip) = at.ip() else {
        panic!("{at} is not IPv4");
    };
    let own = crate::frames::announcement("careful", ip.octets(), at.port());
    victim.expect("an announcement", |frame| frame.0 == own.as_slice());
    stage.await_value("neighbours and names", 11, known);
    if make == Make::Fulmar {
        stage.await_system(crate::stage::INVALID_PACKETS, 1);
    }
    stage.await_value("neighbours and names", 0, known);
    stage.end();
}

macro_rules! hubs {
    ($($name:ident: $hub:ident, $publisher:ident, $subscriber:ident;)*) => { $(
        #[test]
        fn $name() {
            names_travel_through_a_hub(Make::$hub, Make::$publisher, Make::$subscriber);
        }
    )* };
}

hubs! {
    names_among_c_drivers: C, C, C;
    names_among_our_drivers: Fulmar, Fulmar, Fulmar;
    names_from_c_over_c_to_ours: C, C, Fulmar;
    names_from_ours_over_c_to_c: C, Fulmar, C;
    names_from_c_over_ours_to_c: Fulmar, C, C;
    names_from_ours_over_c_to_ours: C, Fulmar, Fulmar;
    names_from_c_over_ours_to_ours: Fulmar, C, Fulmar;
    names_from_ours_over_ours_to_c: Fulmar, Fulmar, C;
}

#[test]
fn strangers_at_a_c_driver() {
    strangers_are_listened_to_with_care(Make::C);
}

#[test]
fn strangers_at_our_driver() {
    strangers_are_listened_to_with_care(Make::Fulmar);
}
