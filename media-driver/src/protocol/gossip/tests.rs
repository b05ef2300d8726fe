//! Name resolution between drivers in virtual time, with frames as they travel.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

/// RES self-announcement of "nodeA" at 127.0.0.1:24502, captured from a C driver (wire-protocol 1.12).
const NODE_A: &str = "20000000000007000180b65f000000007f00000105006e6f6465410000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn time(millis: i64) -> NanoTime {
    NanoTime(millis * 1_000_000)
}

fn settings(name: &str, bound: &str, bootstrap: &[&str]) -> GossipSettings {
    GossipSettings {
        name: name.to_owned(),
        bound: at(bound),
        bootstrap: bootstrap.iter().map(|text| (*text).to_owned()).collect(),
        mtu_length: 1408,
        self_interval_ns: SECOND,
        gossip_interval_ns: 2 * SECOND,
        timeout_ns: 10 * SECOND,
        bootstrap_interval_ns: 10 * SECOND,
    }
}

fn node(name: &str, bound: &str, bootstrap: &[&str]) -> Gossip {
    Gossip::new(settings(name, bound, bootstrap), time(0))
}

type Sent = Vec<(Vec<u8>, SocketAddr)>;

fn run(gossip: &mut Gossip, now: NanoTime) -> Sent {
    let mut sent = Vec::new();
    gossip.on_timer(now, &mut |frame, to| sent.push((frame.to_vec(), to)));
    sent
}

fn frame_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut frame = vec![0; 65_504];
    let written = encode(entries.iter().copied(), &mut frame);
    assert_eq!(written.entries, entries.len());
    frame.truncate(written.length);
    frame
}

fn entry<'a>(name: &'a str, address: &str, age_ms: i32, is_self: bool) -> Entry<'a> {
    let address = at(address);
    Entry {
        is_self,
        port: address.port(),
        age_ms,
        address: address.ip(),
        name: name.as_bytes(),
    }
}

fn entries_in(frame: &[u8]) -> Vec<(String, SocketAddr, i32, bool)> {
    let entries = EntryIter::parse(frame).unwrap();
    let read = |entry: Result<Entry<'_>, _>| {
        let entry = entry.unwrap();
        let name = String::from_utf8(entry.name.to_vec()).unwrap();
        let at = SocketAddr::new(entry.address, entry.port);
        (name, at, entry.age_ms, entry.is_self)
    };
    entries.map(read).collect()
}

#[test]
fn nobody_is_told_anything_as_long_as_nobody_is_known() {
    let mut gossip = node("nodeA", "127.0.0.1:24502", &[]);
    for second in 0..30 {
        assert_eq!(run(&mut gossip, time(second * 1000)), []);
    }
    assert!(gossip.poll_bootstraps(time(0)).is_empty());
}

#[test]
fn a_driver_announces_itself_to_its_bootstraps_each_second() {
    let mut gossip = node("nodeA", "127.0.0.1:24502", &["a:1", "b:2", "nosuch:3"]);
    assert_eq!(gossip.poll_bootstraps(time(0)), [0, 1, 2]);
    assert!(gossip.on_bootstrap(time(0), 0, at("10.0.0.1:1")));
    assert!(gossip.on_bootstrap(time(0), 1, at("10.0.0.2:2")));
    let golden = bytes(NODE_A);
    let expected = [(golden.clone(), at("10.0.0.1:1")), (golden, at("10.0.0.2:2"))];
    assert_eq!(run(&mut gossip, time(0)), expected);
    assert_eq!(run(&mut gossip, time(999)), []);
    assert_eq!(run(&mut gossip, time(1000)), expected);
    assert_eq!(gossip.next_deadline(), time(2000));
}

#[test]
fn bootstraps_are_looked_up_again_while_they_are_not_neighbours() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &["a:24502", "b:1"]);
    assert_eq!(gossip.poll_bootstraps(time(0)), [0, 1]);
    assert_eq!(gossip.poll_bootstraps(time(9_999)), [0; 0]);
    gossip.on_bootstrap(time(0), 0, at("127.0.0.1:24502"));
    gossip.on_datagram(time(9_000), &bytes(NODE_A), at("127.0.0.1:24502"));
    assert_eq!(gossip.poll_bootstraps(time(10_000)), [1]);
    run(&mut gossip, time(19_000));
    assert_eq!(gossip.poll_bootstraps(time(20_000)), [0, 1], "it went silent");
    // It has moved: announced to at its new address, once, at once.
    assert!(gossip.on_bootstrap(time(20_001), 0, at("10.0.0.9:24502")));
    assert!(!gossip.on_bootstrap(time(20_001), 0, at("10.0.0.9:24502")));
    let sent = run(&mut gossip, time(20_001));
    assert_eq!(
        sent.iter().map(|(_, to)| *to).collect::<Vec<_>>(),
        [at("10.0.0.9:24502")]
    );
}

#[test]
fn an_announcement_makes_a_name_and_a_neighbour() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    let heard = gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    assert_eq!((heard.entries, heard.is_malformed), (1, false));
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (1, 1));
    assert_eq!(gossip.look_up("nodeA", false), Some(at("127.0.0.1:1").ip()));
    assert_eq!(
        gossip.look_up("nodeA", true),
        Some(at("127.0.0.1:1").ip()),
        "the other family"
    );
    assert_eq!(gossip.look_up("nodeC", false), None);
    let sent = run(&mut gossip, time(1000));
    assert_eq!(sent.len(), 1, "from now on it is announced to");
    assert_eq!(sent[0].1, at("127.0.0.1:24502"));
    assert_eq!(
        entries_in(&sent[0].0),
        [("nodeB".to_owned(), at("127.0.0.1:24503"), 0, true)]
    );
}

#[test]
fn a_neighbour_that_is_a_bootstrap_is_announced_to_once() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &["a:24502"]);
    gossip.on_bootstrap(time(0), 0, at("127.0.0.1:24502"));
    gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    assert_eq!(run(&mut gossip, time(0)).len(), 1);
}

#[test]
fn the_wildcard_in_an_announcement_stands_for_its_source() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    let frame = frame_of(&[entry("nodeA", "0.0.0.0:24502", 0, true)]);
    gossip.on_datagram(time(0), &frame, at("10.0.0.7:33333"));
    assert_eq!(gossip.look_up("nodeA", false), Some(at("10.0.0.7:1").ip()));
    assert_eq!(run(&mut gossip, time(0))[0].1, at("10.0.0.7:33333"));
    // In somebody else's words it means nothing.
    let frame = frame_of(&[entry("nodeC", "0.0.0.0:24502", 0, false)]);
    assert_eq!(
        gossip.on_datagram(time(0), &frame, at("10.0.0.7:33333")).entries,
        0
    );
    assert_eq!(gossip.cache_count(), 1);
}

#[test]
fn what_is_known_is_passed_on_with_its_age_every_two_seconds() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    gossip.on_datagram(time(500), &bytes(NODE_A), at("127.0.0.1:24502"));
    let frame = frame_of(&[entry("nodeC", "10.0.0.3:7", 250, false)]);
    gossip.on_datagram(time(1000), &frame, at("127.0.0.1:24502"));
    let sent = run(&mut gossip, time(2000));
    let gossiped: Vec<_> = sent.iter().filter(|(frame, _)| !entries_in(frame)[0].3).collect();
    // nodeC did not speak itself yet, so only nodeA gets it, while both are announced to.
    assert_eq!((gossiped.len(), sent.len()), (1, 3));
    assert_eq!(gossiped[0].1, at("127.0.0.1:24502"));
    assert_eq!(
        entries_in(&gossiped[0].0),
        [
            ("nodeA".to_owned(), at("127.0.0.1:24502"), 1500, false),
            ("nodeC".to_owned(), at("10.0.0.3:7"), 1250, false)
        ]
    );
    assert_eq!(run(&mut gossip, time(2001)), []);
}

#[test]
fn names_and_neighbours_are_forgotten_after_the_timeout() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    let frame = frame_of(&[entry("nodeC", "10.0.0.3:7", 4000, false)]);
    gossip.on_datagram(time(0), &frame, at("127.0.0.1:24502"));
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (2, 2));
    run(&mut gossip, time(5_999));
    assert_eq!(gossip.cache_count(), 2);
    run(&mut gossip, time(6_000));
    assert_eq!(
        (gossip.cache_count(), gossip.neighbor_count()),
        (1, 1),
        "nodeC was 4 s old"
    );
    run(&mut gossip, time(9_999));
    assert_eq!(gossip.look_up("nodeA", false), Some(at("127.0.0.1:1").ip()));
    run(&mut gossip, time(10_000));
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (0, 0));
    assert_eq!(gossip.look_up("nodeA", false), None);
    assert_eq!(run(&mut gossip, time(11_000)), []);
}

#[test]
fn gossip_keeps_a_name_but_only_the_neighbour_itself_keeps_the_neighbour() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    let frame = frame_of(&[entry("nodeA", "127.0.0.1:24502", 0, false)]);
    gossip.on_datagram(time(9_000), &frame, at("10.0.0.3:7"));
    run(&mut gossip, time(10_000));
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (1, 0));
}

#[test]
fn older_news_do_not_replace_newer_ones() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    gossip.on_datagram(time(1000), &bytes(NODE_A), at("127.0.0.1:24502"));
    let stale = frame_of(&[entry("nodeA", "10.9.9.9:1", 3000, false)]);
    assert_eq!(
        gossip.on_datagram(time(1500), &stale, at("10.0.0.3:7")).entries,
        0
    );
    assert_eq!(gossip.look_up("nodeA", false), Some(at("127.0.0.1:1").ip()));
    let moved = frame_of(&[entry("nodeA", "10.9.9.9:1", 100, false)]);
    gossip.on_datagram(time(1500), &moved, at("10.0.0.3:7"));
    assert_eq!(gossip.look_up("nodeA", false), Some(at("10.9.9.9:1").ip()));
    let expired = frame_of(&[entry("nodeD", "10.9.9.8:1", 10_000, false)]);
    assert_eq!(
        gossip.on_datagram(time(1500), &expired, at("10.0.0.3:7")).entries,
        0
    );
    let odd = frame_of(&[entry("nodeE", "10.9.9.7:1", -5, false)]);
    assert_eq!(gossip.on_datagram(time(1500), &odd, at("10.0.0.3:7")).entries, 1);
}

#[test]
fn a_driver_knows_itself_and_does_not_listen_to_itself() {
    let mut gossip = node("nodeA", "127.0.0.1:24502", &[]);
    let heard = gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    assert_eq!(heard, Heard::default());
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (0, 0));
    assert_eq!(gossip.look_up("nodeA", false), Some(at("127.0.0.1:1").ip()));
    let anywhere = node("nodeA", "0.0.0.0:24502", &[]);
    assert_eq!(anywhere.look_up("nodeA", false), Some(at("127.0.0.1:1").ip()));
    let anywhere = node("nodeA", "[::]:24502", &[]);
    assert_eq!(anywhere.look_up("nodeA", false), Some(at("[::1]:1").ip()));
    // Another driver may have the same name at another port.
    let mut other = node("nodeA", "127.0.0.1:9", &[]);
    assert_eq!(
        other
            .on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"))
            .entries,
        1
    );
}

#[test]
fn both_families_of_a_name_are_kept_apart() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    let frame = frame_of(&[
        entry("nodeA", "10.0.0.1:7", 0, false),
        entry("nodeA", "[2001:db8::1]:7", 0, false),
    ]);
    assert_eq!(gossip.on_datagram(time(0), &frame, at("10.0.0.3:7")).entries, 2);
    assert_eq!(gossip.look_up("nodeA", false), Some(at("10.0.0.1:1").ip()));
    assert_eq!(gossip.look_up("nodeA", true), Some(at("[2001:db8::1]:1").ip()));
}

#[test]
fn a_frame_is_read_up_to_the_first_entry_that_is_none() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    let mut frame = frame_of(&[
        entry("nodeA", "10.0.0.1:7", 0, false),
        entry("nodeC", "10.0.0.2:7", 0, false),
    ]);
    let second = 8 + entry("nodeA", "10.0.0.1:7", 0, false).encoded_length();
    frame[second] = 9;
    let heard = gossip.on_datagram(time(0), &frame, at("10.0.0.3:7"));
    assert_eq!((heard.entries, heard.is_malformed), (1, true));
    assert!(
        gossip
            .on_datagram(time(0), &frame[..20], at("10.0.0.3:7"))
            .is_malformed
    );
    assert!(gossip.on_datagram(time(0), &[], at("10.0.0.3:7")).is_malformed);
}

#[test]
fn addresses_that_reach_many_or_nobody_are_not_taken_up() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    for address in [
        "224.0.0.1:7",
        "255.255.255.255:7",
        "10.0.0.1:0",
        "[ff02::1]:7",
        "[::]:7",
    ] {
        let frame = frame_of(&[entry("nodeA", address, 0, false)]);
        assert_eq!(
            gossip.on_datagram(time(0), &frame, at("10.0.0.3:7")).entries,
            0,
            "{address}"
        );
        assert!(!gossip.on_bootstrap(time(0), 0, at(address)));
    }
    assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (0, 0));
}

#[test]
fn the_tables_are_bounded_and_frames_keep_to_the_mtu() {
    let mut gossip = node("nodeB", "127.0.0.1:24503", &[]);
    gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    for number in 0..CACHE_ENTRIES_MAX + 100 {
        let (name, high, low) = (format!("node{number}"), number / 250, number % 250 + 1);
        let frame = frame_of(&[entry(&name, &format!("10.1.{high}.{low}:7"), 0, false)]);
        gossip.on_datagram(time(0), &frame, at("10.0.0.3:7"));
    }
    assert_eq!(gossip.cache_count(), CACHE_ENTRIES_MAX);
    assert_eq!(gossip.neighbor_count(), NEIGHBORS_MAX);
    let sent = run(&mut gossip, time(2000));
    let gossiped: Vec<_> = sent.iter().filter(|(frame, _)| !entries_in(frame)[0].3).collect();
    assert!(sent.iter().all(|(frame, _)| frame.len() <= 1408));
    assert!(gossiped.iter().all(|(_, to)| *to == at("127.0.0.1:24502")));
    let names: usize = gossiped.iter().map(|(frame, _)| entries_in(frame).len()).sum();
    assert_eq!(names, CACHE_ENTRIES_MAX, "every name travels once");
}

#[test]
fn an_mtu_too_small_for_any_entry_sends_nothing() {
    let mut small = settings("nodeB", "127.0.0.1:24503", &[]);
    small.mtu_length = 16;
    let mut gossip = Gossip::new(small, time(0));
    gossip.on_datagram(time(0), &bytes(NODE_A), at("127.0.0.1:24502"));
    assert_eq!(run(&mut gossip, time(2000)), []);
}

#[test]
fn three_drivers_that_know_one_get_to_know_each_other() {
    let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    let mut nodes: Vec<Gossip> = (0..3)
        .map(|index| {
            let bootstrap: &[&str] = if index == 0 { &[] } else { &["first:1"] };
            node(["one", "two", "three"][index], addresses[index], bootstrap)
        })
        .collect();
    for (index, gossip) in nodes.iter_mut().enumerate() {
        for number in gossip.poll_bootstraps(time(0)) {
            assert!(index > 0);
            gossip.on_bootstrap(time(0), number, at(addresses[0]));
        }
    }
    for step in 0..600 {
        let now = time(step * 10);
        for sender in 0..3 {
            for (frame, to) in run(&mut nodes[sender], now) {
                let receiver = addresses.iter().position(|address| at(address) == to).unwrap();
                let heard = nodes[receiver].on_datagram(now, &frame, at(addresses[sender]));
                assert!(!heard.is_malformed);
            }
        }
    }
    for gossip in &nodes {
        assert_eq!((gossip.neighbor_count(), gossip.cache_count()), (2, 2));
    }
    assert_eq!(nodes[1].look_up("three", false), Some(at("127.0.0.1:3").ip()));
    assert_eq!(nodes[2].look_up("two", false), Some(at("127.0.0.1:2").ip()));
}

proptest! {
    #[test]
    fn no_datagram_does_harm(
        datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0i64..30_000), 0..50),
        resolution in any::<bool>(),
    ) {
        let mut gossip = node("nodeB", "127.0.0.1:24503", &["a:1"]);
        let mut now = 0;
        for (mut datagram, step) in datagrams {
            if resolution && datagram.len() >= 8 {
                let length = (datagram.len() as i32).to_le_bytes();
                datagram[..8].copy_from_slice(&[length[0], length[1], length[2], length[3], 0, 0, 7, 0]);
            }
            now += step;
            gossip.on_datagram(time(now), &datagram, at("10.0.0.3:7"));
            run(&mut gossip, time(now));
            prop_assert!(gossip.next_deadline().since(time(now)) > 0 || gossip.poll_bootstraps(time(now)).len() == 1);
        }
        run(&mut gossip, time(now + 10_000));
        prop_assert_eq!((gossip.cache_count(), gossip.neighbor_count()), (0, 0));
    }
}
