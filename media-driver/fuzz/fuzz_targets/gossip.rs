//! Name resolution between drivers: any datagrams in any order with any pauses between them. Tables stay bounded, what
//! is sent can be read, and nothing goes to an address that is none of a single host.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use fulmar::time::NanoTime;
use fulmar::wire::resolution::{Entry, EntryIter, encode};
use fulmar_media_driver::protocol::gossip::{CACHE_ENTRIES_MAX, Gossip, GossipSettings, NEIGHBORS_MAX};
use fulmar_media_driver_fuzz::{Input, mutate, peer, time_step};
use libfuzzer_sys::fuzz_target;

const SECOND: i64 = 1_000_000_000;
const MTU: usize = 1408;
/// More fill the tables no further and only cost time.
const FLOODS_MAX: usize = 6;

fn address(input: &mut Input<'_>) -> IpAddr {
    match input.u8() & 7 {
        0 => [0, 0, 0, 0].into(),
        1 => [255, 255, 255, 255].into(),
        2 => [224, 0, 1, input.u8()].into(),
        3 => [0_u16, 0, 0, 0, 0, 0, 0, u16::from(input.u8())].into(),
        4 => [0xFF02_u16, 0, 0, 0, 0, 0, 0, u16::from(input.u8())].into(),
        _ => [10, 0, 0, input.u8()].into(),
    }
}

/// Entries as a driver would send them, `count` with names of their own.
fn frame(input: &mut Input<'_>, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; 65_504];
    let first = input.u16();
    let entries: Vec<_> = (0..count)
        .map(|index| {
            let at = if count > 8 {
                // A flood: many names and places.
                [10, 1, (index >> 8) as u8, index as u8].into()
            } else {
                address(input)
            };
            let (is_self, port, age_ms) = match count {
                0..=8 => (
                    input.u8() & 1 == 1,
                    u16::from(input.u8()),
                    input.i32() >> (input.u8() & 31),
                ),
                _ => (index & 1 == 1, 24_000, 0),
            };
            (
                is_self,
                port,
                age_ms,
                at,
                format!("n{}", usize::from(first) + index),
            )
        })
        .collect();
    let entries = entries
        .iter()
        .map(|(is_self, port, age_ms, address, name)| Entry {
            is_self: *is_self,
            port: *port,
            age_ms: *age_ms,
            address: *address,
            name: name.as_bytes(),
        });
    let length = encode(entries, &mut bytes).length;
    bytes.truncate(length);
    bytes
}

/// `last` is the frame that was looked at last: the same goes to every neighbour.
fn check_sent(frame: &[u8], to: SocketAddr, own: SocketAddr, last: &mut Vec<u8>) {
    assert!(frame.len() <= MTU);
    assert!(to.port() != 0 && !to.ip().is_unspecified() && !to.ip().is_multicast());
    assert!(!matches!(to.ip(), IpAddr::V4(ip) if ip.is_broadcast()));
    if frame == last {
        return;
    }
    frame.clone_into(last);
    let entries = EntryIter::parse(frame).expect("what is sent can be read");
    for entry in entries {
        let entry = entry.expect("what is sent can be read");
        assert!(entry.port != 0 || entry.port == own.port());
        assert!(entry.age_ms >= 0);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut now = NanoTime(500 * SECOND);
    let own = SocketAddr::from(([0, 0, 0, 0], 8050));
    let settings = GossipSettings {
        name: "n0".to_owned(),
        bound: own,
        bootstrap: vec!["n1:24000".to_owned()],
        mtu_length: MTU,
        self_interval_ns: SECOND,
        gossip_interval_ns: 2 * SECOND,
        timeout_ns: 10 * SECOND,
        bootstrap_interval_ns: 10 * SECOND,
    };
    let mut gossip = Gossip::new(settings, now);
    let mut last = Vec::new();
    let mut floods = 0;
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let operation = input.u8();
        let from = peer(u16::from(operation >> 4));
        match operation & 7 {
            0..=2 => {
                let count = usize::from(input.u8() & 7) + 1;
                let bytes = frame(&mut input, count);
                gossip.on_datagram(now, &bytes, from);
            }
            3 => {
                let mut bytes = frame(&mut input, 2);
                mutate(&mut input, &mut bytes);
                gossip.on_datagram(now, &bytes, from);
            }
            4 => {
                let length = usize::from(input.u8());
                gossip.on_datagram(now, input.bytes(length), from);
            }
            5 if floods < FLOODS_MAX => {
                floods += 1;
                let bytes = frame(&mut input, 1024);
                let heard = gossip.on_datagram(now, &bytes, from);
                assert!(heard.entries <= 1024 && !heard.is_malformed);
            }
            6 => {
                for index in gossip.poll_bootstraps(now) {
                    gossip.on_bootstrap(now, index, SocketAddr::new(address(&mut input), 24_000));
                }
            }
            _ => {
                now = now.plus_nanos(time_step(&mut input));
                gossip.on_timer(now, &mut |frame, to| check_sent(frame, to, own, &mut last));
                assert!(gossip.next_deadline().since(now) > 0 || !gossip.poll_bootstraps(now).is_empty());
            }
        }
        assert!(gossip.cache_count() <= CACHE_ENTRIES_MAX);
        assert!(gossip.neighbor_count() <= NEIGHBORS_MAX);
        assert!(gossip.look_up("n0", operation & 1 == 0).is_some());
        if let Some(found) = gossip.look_up("n2", operation & 1 == 0) {
            assert!(!found.is_unspecified() && !found.is_multicast());
        }
    }
    // Whoever falls silent is forgotten.
    now = now.plus_nanos(11 * SECOND);
    gossip.on_timer(now, &mut |frame, to| check_sent(frame, to, own, &mut last));
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (0, 0));
});
