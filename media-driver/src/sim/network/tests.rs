//! Tests of the network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fulmar::log::Payload;
use fulmar::time::{Clock, NanoTime, SystemClock};

use super::*;
use crate::io::capture::SharedFile;
use crate::io::conformance;
use crate::io::{
    Interface, IoError, Join, Network, ReceiveBatch, ReceiveOutcome, Registration, SendBatch, SendEntry,
    SendOutcome, SocketRole, SocketSpec, UdpSocket,
};

const START: NanoTime = NanoTime(1_000_000);
const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const C: &str = "10.0.0.3";

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

/// Two hosts, A with a socket that sends and B with one that hears.
struct Pair {
    clock: Arc<VirtualClock>,
    network: SimNetwork,
    sender: Box<dyn UdpSocket>,
    receiver: Box<dyn UdpSocket>,
    batch: ReceiveBatch,
}

impl Pair {
    fn new(seed: u64, link: Link) -> Self {
        let clock = Arc::new(VirtualClock::new(START, 1_700_000_000_000));
        let network = SimNetwork::new(Arc::clone(&clock), seed);
        network.set_link(ip(A), ip(B), link);
        let sender = open(&*network.host(&[ip(A)]), &at(A, 0));
        let mut spec = at(B, 4000);
        spec.receive_buffer = 1 << 30;
        spec.receive_timestamps = true;
        let receiver = open(&*network.host(&[ip(B)]), &spec);
        Self {
            clock,
            network,
            sender,
            receiver,
            batch: ReceiveBatch::new(64),
        }
    }

    /// Sends `bytes` from A to B.
    fn send(&mut self, bytes: &[u8]) {
        let to = Some(self.receiver.local_address());
        let outcome = conformance::send(&mut *self.sender, bytes, to);
        assert_eq!((outcome.datagrams, outcome.error), (1, None));
    }

    /// Sends `count` datagrams of 32 bytes that start with their number, 1000 ns apart.
    fn send_numbers(&mut self, count: u32) {
        for number in 0..count {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            self.send(&bytes);
            self.pass(1000);
        }
    }

    /// Lets so much time pass, without delivering anything.
    fn pass(&self, nanos: i64) {
        self.clock.advance_to(self.clock.nanos().plus_nanos(nanos));
    }

    /// What B has got: the datagrams, and when they came, nanoseconds since the start.
    fn received(&mut self) -> Vec<(Vec<u8>, i64)> {
        let start = self.clock.epoch_nanos(START);
        let mut all = Vec::new();
        while self.receiver.receive(&mut self.batch).datagrams > 0 {
            all.extend(self.batch.datagrams().map(|datagram| {
                assert_eq!(datagram.from, self.sender_address());
                (datagram.bytes.to_vec(), datagram.timestamp.unwrap() - start)
            }));
        }
        all
    }

    /// What B gets of what is on its way: the numbers of [`Self::send_numbers`].
    fn arriving_numbers(&mut self) -> Vec<u32> {
        run(&self.network, &self.clock);
        self.received()
            .iter()
            .map(|(bytes, _)| u32::from_le_bytes(bytes[..4].try_into().unwrap()))
            .collect()
    }

    /// When what is on its way reaches B, nanoseconds since the start.
    fn arrival_times(&mut self) -> Vec<i64> {
        run(&self.network, &self.clock);
        self.received().into_iter().map(|(_, time)| time).collect()
    }

    fn sender_address(&self) -> SocketAddr {
        SocketAddr::new(ip(A), self.sender.local_address().port())
    }

    /// Every datagram to one address ends in one way.
    fn check_sums(&self, is_checked: bool) {
        let stats = self.network.stats();
        assert_eq!(
            stats.sent + stats.duplicated,
            stats.delivered
                + stats.lost
                + stats.cut
                + stats.queue_drops
                + stats.oversize
                + stats.overflow
                + stats.unreachable
                + if is_checked { stats.corrupted } else { 0 }
                + self.network.in_flight() as u64,
            "{stats:?}"
        );
    }
}

fn at(address: &str, port: u16) -> SocketSpec {
    SocketSpec::new(SocketRole::Receive, SocketAddr::new(ip(address), port))
}

fn open(host: &dyn Network, spec: &SocketSpec) -> Box<dyn UdpSocket> {
    host.open(spec).unwrap()
}

fn with(change: impl FnOnce(&mut Link)) -> Link {
    let mut link = Link::perfect();
    change(&mut link);
    link
}

#[test]
fn nothing_arrives_before_it_is_due_and_delivered() {
    let mut pair = Pair::new(1, with(|link| link.delay_ns = 5000));
    assert_eq!(pair.network.next_arrival(), None);
    pair.send(b"one");
    pair.pass(10);
    pair.send(b"two");
    assert_eq!(pair.network.next_arrival(), Some(START.plus_nanos(5000)));
    assert_eq!(pair.network.deliver(START.plus_nanos(4999)), 0);
    assert_eq!(pair.network.in_flight(), 2);
    assert_eq!(pair.network.deliver(START.plus_nanos(5009)), 1);
    assert_eq!(pair.received(), [(b"one".to_vec(), 5000)]);
    assert_eq!(pair.network.next_arrival(), Some(START.plus_nanos(5010)));
    assert_eq!(pair.network.deliver(START.plus_nanos(90_000)), 1);
    assert_eq!(pair.received(), [(b"two".to_vec(), 5010)], "the time it was due");
    assert_eq!(pair.network.in_flight(), 0);
    let stats = pair.network.stats();
    assert_eq!((stats.sent, stats.sent_bytes), (2, 6));
    assert_eq!((stats.delivered, stats.delivered_bytes), (2, 6));
}

#[test]
fn a_link_is_for_one_direction() {
    let mut pair = Pair::new(1, with(|link| link.is_cut = true));
    pair.send(b"there");
    let back = pair.sender_address();
    let answer = conformance::send(&mut *pair.receiver, b"back", Some(back));
    assert_eq!(answer.datagrams, 1);
    run(&pair.network, &pair.clock);
    assert_eq!(pair.received().len(), 0);
    assert_eq!(pair.sender.receive(&mut pair.batch).datagrams, 1);
    assert!(pair.network.link(ip(A), ip(B)).is_cut);
    assert_eq!(pair.network.link(ip(B), ip(A)), Link::perfect());
    pair.network.set_default_link(with(|link| link.delay_ns = 3));
    assert_eq!(pair.network.link(ip(B), ip(A)).delay_ns, 3);
    assert_eq!(pair.network.link(ip(A), ip(B)).delay_ns, 0, "it has its own");
    pair.network.clear_links();
    assert_eq!(pair.network.link(ip(A), ip(B)).delay_ns, 3);
}

#[test]
fn jitter_spreads_arrivals_and_keeps_their_order() {
    let mut pair = Pair::new(
        1,
        with(|link| {
            link.delay_ns = 100;
            link.jitter_ns = 5000;
        }),
    );
    pair.send_numbers(1000);
    run(&pair.network, &pair.clock);
    let received = pair.received();
    assert_eq!(received.len(), 1000);
    let mut longest = 0;
    for (number, (bytes, time)) in received.iter().enumerate() {
        assert_eq!(bytes[..4], (number as u32).to_le_bytes());
        let took = time - 1000 * number as i64;
        assert!((100..=5100).contains(&took), "{took}");
        longest = longest.max(took);
    }
    assert!(longest > 5000, "{longest}");
    assert_eq!(pair.network.stats().reordered, 0);
}

#[test]
fn loss_follows_its_rate_and_its_seed() {
    let survivors = |seed, link| {
        let mut pair = Pair::new(seed, link);
        pair.send_numbers(10_000);
        let numbers = pair.arriving_numbers();
        assert_eq!(pair.network.stats().lost, 10_000 - numbers.len() as u64);
        pair.check_sums(true);
        numbers
    };
    let lossy = with(|link| link.loss_ppm = 200_000);
    let first = survivors(1, lossy);
    // Six standard deviations of a binomial distribution.
    assert!((7760..=8240).contains(&first.len()), "{}", first.len());
    assert_eq!(first, survivors(1, lossy));
    assert_ne!(first, survivors(2, lossy));
    let more = Link {
        jitter_ns: 900,
        delay_ns: 70,
        reorder_ppm: 100_000,
        ..lossy
    };
    assert_eq!(first, survivors(1, more), "other faults do not shift the draws");
    assert_eq!(survivors(1, with(|link| link.loss_ppm = 1_000_000)).len(), 0);
}

#[test]
fn bursts_lose_runs_of_datagrams() {
    let burst = Burst {
        enter_ppm: 10_000,
        leave_ppm: 100_000,
    };
    let mut pair = Pair::new(1, with(|link| link.burst = Some(burst)));
    pair.send_numbers(20_000);
    let numbers = pair.arriving_numbers();
    let gaps: Vec<u32> = numbers
        .windows(2)
        .map(|two| two[1] - two[0] - 1)
        .filter(|gap| *gap > 0)
        .collect();
    let lost: u32 = gaps.iter().sum();
    // Of 11 parts of time, one is in a burst, which is 10 datagrams long on average.
    assert!((1300..=2400).contains(&lost), "{lost}");
    let average = f64::from(lost) / gaps.len() as f64;
    assert!((7.5..=13.0).contains(&average), "{average}");
    pair.check_sums(true);
    pair.network.set_link(ip(A), ip(B), Link::perfect());
    pair.send_numbers(100);
    assert_eq!(
        pair.arriving_numbers().len(),
        100,
        "bursts end with their setting"
    );
}

#[test]
fn duplicates_arrive_twice() {
    let mut pair = Pair::new(1, with(|link| link.duplicate_ppm = 1_000_000));
    pair.send_numbers(3);
    assert_eq!(pair.arriving_numbers(), [0, 0, 1, 1, 2, 2]);
    assert_eq!(pair.network.stats().duplicated, 3);
    pair.network.set_link(
        ip(A),
        ip(B),
        with(|link| {
            link.duplicate_ppm = 500_000;
            link.jitter_ns = 9000;
        }),
    );
    pair.send_numbers(1000);
    let arrived = pair.arriving_numbers().len();
    assert!((1400..=1600).contains(&arrived), "{arrived}");
    pair.check_sums(true);
}

#[test]
fn reordered_datagrams_are_overtaken() {
    let mut pair = Pair::new(
        1,
        with(|link| {
            link.delay_ns = 500;
            link.reorder_ppm = 100_000;
            link.reorder_ns = 2500;
        }),
    );
    pair.send_numbers(1000);
    let numbers = pair.arriving_numbers();
    let late = numbers.windows(2).filter(|two| two[1] < two[0]).count() as u64;
    let reordered = pair.network.stats().reordered;
    assert!((60..=140).contains(&reordered), "{reordered}");
    // One that is followed by others held back, or by none, comes in order all the same.
    assert!(late > reordered / 2 && late <= reordered, "{late} of {reordered}");
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..1000), "nothing lost, nothing twice");
}

#[test]
fn checksums_find_what_was_damaged_and_without_them_it_arrives() {
    let mut pair = Pair::new(1, with(|link| link.corrupt_ppm = 1_000_000));
    pair.send_numbers(100);
    assert_eq!(pair.arriving_numbers().len(), 0);
    assert_eq!(pair.network.stats().corrupted, 100);
    pair.check_sums(true);

    let mut pair = Pair::new(1, with(|link| link.corrupt_ppm = 1_000_000));
    pair.network.set_checksum(false);
    let mut flipped = [0; 9];
    // So many that a flip which takes back another one would show.
    for _ in 0..10_000 {
        pair.send(&[0x55; 8]);
    }
    pair.send(&[]);
    run(&pair.network, &pair.clock);
    let received = pair.received();
    assert_eq!(received.len(), 10_001);
    for (bytes, _) in &received[..10_000] {
        assert_eq!(bytes.len(), 8);
        let bits: u32 = bytes.iter().map(|byte| (byte ^ 0x55).count_ones()).sum();
        flipped[bits as usize] += 1;
    }
    assert_eq!(flipped[0], 0, "something is wrong with each of them");
    assert!(
        flipped[1] > 0 && flipped[4..].iter().sum::<u32>() > 0,
        "{flipped:?}"
    );
    pair.check_sums(false);
}

#[test]
fn bandwidth_spaces_datagrams_and_the_queue_is_bounded() {
    let link = with(|link| {
        link.delay_ns = 7;
        // 1000 ns a datagram of 100 bytes.
        link.bytes_per_second = Some(100_000_000);
        link.queue_bytes = 1000;
    });
    let mut pair = Pair::new(1, link);
    for _ in 0..15 {
        pair.send(&[1; 100]);
    }
    // Nine wait behind the first, then one more is too many.
    let times = pair.arrival_times();
    assert_eq!(
        times,
        (1..=10).map(|index| 7 + 1000 * index).collect::<Vec<i64>>()
    );
    assert_eq!(pair.network.stats().queue_drops, 5);
    // At 10,007 the link is idle. An idle link takes what does not fit the queue.
    pair.send(&[1; 2000]);
    assert_eq!(pair.arrival_times(), [10_007 + 20_000 + 7]);
    // Half of the queue has drained after 5000 ns.
    for _ in 0..10 {
        pair.send(&[1; 100]);
    }
    pair.pass(5000);
    for _ in 0..10 {
        pair.send(&[1; 100]);
    }
    assert_eq!(pair.arrival_times().len(), 15);
    pair.check_sums(true);
}

#[test]
fn datagrams_longer_than_the_path_takes_are_lost() {
    let mut pair = Pair::new(1, with(|link| link.mtu = 1408));
    pair.send(&[1; 1408]);
    pair.send(&[1; 1409]);
    run(&pair.network, &pair.clock);
    let received = pair.received();
    assert_eq!((received.len(), received[0].0.len()), (1, 1408));
    assert_eq!(pair.network.stats().oversize, 1);
    pair.check_sums(true);
    let to = Some(pair.receiver.local_address());
    let outcome = conformance::send(&mut *pair.sender, &[1; 65_508], to);
    assert_eq!(
        outcome.error.unwrap().errno,
        libc::EMSGSIZE,
        "no datagram is longer"
    );
}

#[test]
fn a_cut_link_loses_what_is_sent_and_what_is_on_its_way() {
    let open = with(|link| link.delay_ns = 100);
    let cut = Link { is_cut: true, ..open };
    let mut pair = Pair::new(1, open);
    pair.send(b"on its way");
    pair.network.set_link(ip(A), ip(B), cut);
    pair.send(b"sent into it");
    run(&pair.network, &pair.clock);
    assert_eq!(pair.received(), []);
    assert_eq!(pair.network.stats().cut, 2);
    pair.network.set_link(ip(A), ip(B), open);
    pair.send(b"healed");
    run(&pair.network, &pair.clock);
    assert_eq!(pair.received()[0].0, b"healed");
    pair.check_sums(true);
}

#[test]
fn a_clogged_link_holds_everything_until_it_ends() {
    let open = with(|link| {
        link.delay_ns = 100;
        link.queue_bytes = 3 * (4 + 64);
    });
    let clogged = Link {
        is_clogged: true,
        ..open
    };
    let mut pair = Pair::new(1, open);
    pair.send(b"one");
    pair.network.set_link(ip(A), ip(B), clogged);
    for text in [b"two ", b"tri ", b"four"] {
        pair.send(text);
    }
    run(&pair.network, &pair.clock);
    assert_eq!(pair.network.next_arrival(), None, "nothing to wait for");
    assert_eq!((pair.received().len(), pair.network.in_flight()), (0, 3));
    assert_eq!(pair.network.stats().queue_drops, 1, "there is room for three");
    pair.check_sums(true);
    pair.pass(1_000_000);
    pair.network.set_link(ip(A), ip(B), open);
    assert_eq!(pair.network.next_arrival(), Some(pair.clock.nanos()));
    run(&pair.network, &pair.clock);
    let texts: Vec<Vec<u8>> = pair.received().into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(texts, [&b"one"[..], b"two ", b"tri "]);

    // What was sent later and is due at the moment of release stays behind what was held.
    pair.network.set_link(ip(A), ip(B), clogged);
    pair.send(b"held");
    run(&pair.network, &pair.clock);
    pair.send(b"late");
    pair.pass(100);
    pair.network.set_link(ip(A), ip(B), open);
    assert_eq!(pair.network.deliver(pair.clock.nanos()), 2);
    let texts: Vec<Vec<u8>> = pair.received().into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(texts, [b"held", b"late"]);

    // The same by way of the default, and once more after it.
    pair.network.clear_links();
    for turn in 1..=2 {
        pair.network.set_default_link(clogged);
        pair.send(b"five");
        run(&pair.network, &pair.clock);
        assert_eq!(pair.received(), []);
        pair.network.set_default_link(open);
        run(&pair.network, &pair.clock);
        assert_eq!(pair.received().len(), 1, "turn {turn}");
    }
    pair.check_sums(true);
}

#[test]
fn receive_buffers_are_bounded() {
    let mut pair = Pair::new(1, Link::perfect());
    let host = pair.network.host(&[ip(B)]);
    let mut small = at(B, 4001);
    small.receive_buffer = 1000;
    let mut receiver = open(&*host, &small);
    let to = Some(receiver.local_address());
    // 100 bytes and what the system needs for each: six fit.
    for _ in 0..8 {
        conformance::send(&mut *pair.sender, &[1; 100], to);
    }
    run(&pair.network, &pair.clock);
    assert_eq!(pair.network.stats().overflow, 2);
    assert_eq!(receiver.receive(&mut pair.batch).datagrams, 6);
    // The room is there again; an empty buffer takes a datagram that is longer.
    conformance::send(&mut *pair.sender, &[1; 5000], to);
    conformance::send(&mut *pair.sender, &[], to);
    run(&pair.network, &pair.clock);
    assert_eq!(receiver.receive(&mut pair.batch).datagrams, 1);
    assert_eq!(pair.network.stats().overflow, 3);
    pair.check_sums(true);
    // What nobody listens to, on a port or a host, is counted.
    drop(receiver);
    conformance::send(&mut *pair.sender, b"?", to);
    conformance::send(&mut *pair.sender, b"?", Some("10.9.9.9:1".parse().unwrap()));
    run(&pair.network, &pair.clock);
    assert_eq!(pair.network.stats().unreachable, 2);
    pair.check_sums(true);
}

#[test]
fn ports_and_addresses_are_taken_by_the_rules() {
    let clock = Arc::new(VirtualClock::new(START, 0));
    let network = SimNetwork::new(clock, 1);
    let host = network.host(&[ip(A), ip(C)]);
    let errno = |host: &dyn Network, spec: &SocketSpec| {
        let error = host.open(spec).err().unwrap();
        error.source.raw_os_error().unwrap()
    };
    let first = open(&*host, &at(A, 5000));
    assert_eq!(errno(&*host, &at(A, 5000)), libc::EADDRINUSE);
    assert_eq!(errno(&*host, &at("0.0.0.0", 5000)), libc::EADDRINUSE);
    let other = open(&*host, &at(C, 5000));
    let v6 = open(&*host, &at("::", 5000));
    assert_eq!(network.open_sockets(), 3);
    assert_eq!(
        errno(&*host, &at(B, 5000)),
        libc::EADDRNOTAVAIL,
        "of another host"
    );
    let elsewhere = open(&*network.host(&[ip(B)]), &at(B, 5000));
    drop((first, other));
    let wild = open(&*host, &at("0.0.0.0", 5000));
    assert_eq!(errno(&*host, &at(A, 5000)), libc::EADDRINUSE);
    drop((wild, v6, elsewhere));

    let shared = SocketSpec {
        reuse_address: true,
        ..at("0.0.0.0", 5000)
    };
    let sharers = [open(&*host, &shared), open(&*host, &shared)];
    assert_eq!(
        errno(&*host, &at("0.0.0.0", 5000)),
        libc::EADDRINUSE,
        "both have to share"
    );
    drop(sharers);
    assert_eq!(network.open_sockets(), 0);

    // A driver that starts anew is on the same host.
    let again = network.host(&[ip(C)]);
    let held = open(&*host, &at(C, 6000));
    assert_eq!(errno(&*again, &at(C, 6000)), libc::EADDRINUSE);
    drop(held);
    let free: Vec<u16> = (0..3)
        .map(|_| open(&*again, &at(A, 0)).local_address().port())
        .collect();
    assert!(
        free[0] >= 32_768 && free[1] == free[0] + 1 && free[2] == free[1] + 1,
        "{free:?}"
    );

    // All ports but one are taken: it is found, and then there is none.
    let all: Vec<_> = (32_768..61_000)
        .filter(|port| *port != 50_000)
        .map(|port| open(&*again, &at(A, port)))
        .collect();
    let last = open(&*again, &at(A, 0));
    assert_eq!(last.local_address().port(), 50_000);
    assert_eq!(errno(&*again, &at(A, 0)), libc::EADDRINUSE);
    assert_eq!(all.len(), 61_000 - 32_768 - 1);
}

#[test]
fn sockets_send_from_the_address_that_fits_and_refuse_what_linux_refuses() {
    let mut pair = Pair::new(1, Link::perfect());
    let host = pair.network.host(&[ip(A), ip(C)]);
    let mut batch = ReceiveBatch::new(4);
    let mut anywhere = open(&*host, &at("0.0.0.0", 0));
    let port = anywhere.local_address().port();
    let mut own = open(&*host, &at("0.0.0.0", 700));
    for (to, from) in [(B, A), (C, C), ("127.0.0.1", "127.0.0.1")] {
        let (listener, to_port) = match to {
            B => (&mut pair.receiver, 4000),
            _ => (&mut own, 700),
        };
        let to = Some(SocketAddr::new(ip(to), to_port));
        assert_eq!(conformance::send(&mut *anywhere, b"x", to).datagrams, 1);
        run(&pair.network, &pair.clock);
        assert_eq!(listener.receive(&mut batch).datagrams, 1);
        let got = batch.datagrams().next().unwrap().from;
        assert_eq!(got, SocketAddr::new(ip(from), port));
    }
    let mut refused = |to: Option<&str>| {
        let to = to.map(|to| to.parse().unwrap());
        let outcome = conformance::send(&mut *anywhere, b"x", to);
        assert_eq!(outcome.datagrams, 0);
        outcome.error.unwrap().errno
    };
    assert_eq!(refused(None), libc::EDESTADDRREQ);
    assert_eq!(refused(Some("[::1]:5")), libc::EAFNOSUPPORT);
    assert_eq!(refused(Some("10.0.0.2:0")), libc::EINVAL);
    let mut v6 = open(&*host, &at("::", 0));
    let outcome = conformance::send(&mut *v6, b"x", Some("[fd00::9]:5".parse().unwrap()));
    assert_eq!(
        outcome.error.unwrap().errno,
        libc::ENETUNREACH,
        "the host has no IPv6"
    );
    let mut local = open(&*host, &at("127.0.0.1", 0));
    let outcome = conformance::send(&mut *local, b"x", Some("10.0.0.2:4000".parse().unwrap()));
    assert_eq!(outcome.error.unwrap().errno, libc::EINVAL);
    let strange = SocketSpec {
        connect: Some("[fd00::9]:5".parse().unwrap()),
        ..at("::", 777)
    };
    assert!(host.open(&strange).is_err());
    assert!(
        host.open(&at("::", 777)).is_ok(),
        "nothing stays open after an error"
    );
}

#[test]
fn a_connected_socket_is_meant_before_a_bound_one_before_any() {
    let mut pair = Pair::new(1, Link::perfect());
    let host = pair.network.host(&[ip(B)]);
    let mut batch = ReceiveBatch::new(4);
    let shared = |address: &str| SocketSpec {
        reuse_address: true,
        ..at(address, 900)
    };
    let mut sockets = [
        open(&*host, &shared("0.0.0.0")),
        open(&*host, &shared(B)),
        open(&*host, &shared(B)),
    ];
    sockets[2].reconnect(pair.sender_address()).unwrap();
    let to = Some(SocketAddr::new(ip(B), 900));
    let mut stranger = open(&*pair.network.host(&[ip(C)]), &at(C, 0));
    conformance::send(&mut *pair.sender, b"peer", to);
    conformance::send(&mut *stranger, b"stranger", to);
    run(&pair.network, &pair.clock);
    let mut counts = sockets
        .iter_mut()
        .map(|socket| socket.receive(&mut batch).datagrams);
    assert!(counts.by_ref().eq([0, 1, 1]));
}

#[test]
fn refused_sends_are_short_and_what_was_taken_arrives() {
    let mut pair = Pair::new(1, Link::perfect());
    pair.network.set_refused_sends(100_000);
    let to = Some(pair.receiver.local_address());
    let bytes: Vec<u8> = (0..200).collect();
    let (mut done, mut short) = (0, 0);
    while done < bytes.len() {
        let rest = SendEntry::run(Payload::from_slice(&bytes[done..]), 1, to);
        let outcome = pair.sender.send(&SendBatch::of(rest));
        assert_eq!((outcome.bytes, outcome.error), (outcome.datagrams, None));
        done += outcome.bytes;
        short += u64::from(done < bytes.len());
    }
    run(&pair.network, &pair.clock);
    let arrived: Vec<u8> = pair.received().into_iter().flat_map(|(bytes, _)| bytes).collect();
    assert_eq!(arrived, bytes);
    assert!((8..=40).contains(&short), "{short}");
    assert_eq!(
        (pair.network.stats().refused, pair.network.stats().sent),
        (short, 200)
    );
}

/// 64 bytes are two blocks: a change in any place, lane and remainder shows.
#[test]
fn the_digest_hangs_on_every_byte_and_on_the_length() {
    let bytes: Vec<u8> = (0..67).collect();
    let mut seen: BTreeSet<u64> = (0..bytes.len())
        .map(|at| {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            digest(&changed)
        })
        .collect();
    seen.extend((0..=bytes.len()).map(|length| digest(&bytes[..length])));
    assert_eq!(seen.len(), 2 * bytes.len() + 1);
    let zeroes: BTreeSet<u64> = (0..100).map(|length| digest(&vec![0; length])).collect();
    assert_eq!(zeroes.len(), 100);
}

fn member(group: SocketAddr, interface: Interface) -> SocketSpec {
    SocketSpec {
        join: Some(Join { group, interface }),
        reuse_address: true,
        ..SocketSpec::new(SocketRole::Receive, SocketAddr::new(ip("0.0.0.0"), group.port()))
    }
}

#[test]
fn a_group_reaches_its_members_on_all_hosts_over_the_link_to_each() {
    let mut pair = Pair::new(1, Link::perfect());
    let network = pair.network.clone();
    let group: SocketAddr = "224.1.2.3:7000".parse().unwrap();
    let other: SocketAddr = "224.1.2.4:7000".parse().unwrap();
    let (a, b, c) = (
        network.host(&[ip(A)]),
        network.host(&[ip(B)]),
        network.host(&[ip(C)]),
    );
    let mut members = [
        open(&*a, &member(group, Interface::Any)),
        open(&*b, &member(group, Interface::Address(ip(B)))),
        open(&*b, &member(group, Interface::Index(2))),
        open(&*c, &member(group, Interface::Any)),
        open(&*c, &member(other, Interface::Any)),
        open(&*c, &member(group, Interface::Address(ip("127.0.0.1")))),
    ];
    let mut batch = ReceiveBatch::new(4);
    let mut heard = |sender: &mut dyn UdpSocket| {
        let outcome = conformance::send(sender, b"all", Some(group));
        assert_eq!((outcome.datagrams, outcome.error), (1, None));
        run(&pair.network, &pair.clock);
        members
            .each_mut()
            .map(|member| member.receive(&mut batch).datagrams)
    };
    assert_eq!(heard(&mut *pair.sender), [1, 1, 1, 1, 0, 0]);
    // Lost for B, for both of its members, and for nobody else.
    network.set_link(ip(A), ip(B), with(|link| link.loss_ppm = 1_000_000));
    assert_eq!(heard(&mut *pair.sender), [1, 0, 0, 1, 0, 0]);
    assert_eq!(network.stats().lost, 1);
    network.clear_links();
    let mut no_hops = open(
        &*a,
        &SocketSpec {
            ttl: Some(0),
            ..at("0.0.0.0", 0)
        },
    );
    assert_eq!(heard(&mut *no_hops), [1, 0, 0, 0, 0, 0]);
    let local = SocketSpec {
        outgoing_interface: Interface::Address(ip("127.0.0.1")),
        ..at("0.0.0.0", 0)
    };
    assert_eq!(heard(&mut *open(&*c, &local)), [0, 0, 0, 0, 0, 1]);
    assert_eq!(heard(&mut *open(&*a, &local)), [0; 6], "nobody there joined");
    assert_eq!(network.stats().unreachable, 1);
    // A member that is closed hears nothing and is no member any more.
    drop(members);
    let before = network.stats().delivered;
    conformance::send(&mut *pair.sender, b"all", Some(group));
    run(&network, &pair.clock);
    assert_eq!(network.stats().delivered, before);
    assert_eq!(network.stats().unreachable, 2);

    let errors = [
        member("10.0.0.9:7000".parse().unwrap(), Interface::Any),
        member(group, Interface::Index(9)),
        member(group, Interface::Address(ip(B))),
    ]
    .map(|spec| a.open(&spec).err().unwrap().to_string());
    assert!(
        errors.iter().all(|error| error.starts_with("join ")),
        "{errors:?}"
    );
}

#[test]
fn a_group_of_one_interface_stays_on_its_host() {
    let clock = Arc::new(VirtualClock::new(START, 0));
    let network = SimNetwork::new(Arc::clone(&clock), 1);
    let hosts = [network.host(&[ip("fd00::1")]), network.host(&[ip("fd00::2")])];
    let mut batch = ReceiveBatch::new(4);
    for (group, expected) in [("[ff01::9]:7000", [1, 0]), ("[ff02::9]:7000", [1, 1])] {
        let group: SocketAddr = group.parse().unwrap();
        let spec = SocketSpec {
            bind: SocketAddr::new(ip("::"), 7000),
            ..member(group, Interface::Any)
        };
        let mut members = hosts.each_ref().map(|host| open(&**host, &spec));
        let mut sender = open(&*hosts[0], &at("::", 0));
        assert_eq!(conformance::send(&mut *sender, b"x", Some(group)).datagrams, 1);
        run(&network, &clock);
        let heard = members
            .each_mut()
            .map(|member| member.receive(&mut batch).datagrams);
        assert_eq!(heard, expected, "{group}");
    }
}

/// Three hosts that send to each other and to a group, over links whose faults change meanwhile.
fn eventful(seed: u64) -> (u64, NetworkStats, usize) {
    let clock = Arc::new(VirtualClock::new(START, 0));
    let network = SimNetwork::new(Arc::clone(&clock), seed);
    let group: SocketAddr = "224.1.2.3:7000".parse().unwrap();
    let mut sockets: Vec<_> = [A, B, C]
        .iter()
        .map(|address| {
            let mut spec = member(group, Interface::Any);
            spec.receive_buffer = 20_000;
            open(&*network.host(&[ip(address)]), &spec)
        })
        .collect();
    let mut workload = Prng::new(seed, "workload");
    let mut batch = ReceiveBatch::new(16);
    let mut heard = 0;
    for _ in 0..3000 {
        let addresses = [A, B, C].map(ip);
        if workload.chance(20_000) {
            let (from, to) = (*workload.pick(&addresses), *workload.pick(&addresses));
            let link = Link {
                delay_ns: workload.below(50_000),
                jitter_ns: workload.below(20_000),
                loss_ppm: 30_000,
                burst: Some(Burst {
                    enter_ppm: 5000,
                    leave_ppm: 200_000,
                }),
                duplicate_ppm: 30_000,
                reorder_ppm: 30_000,
                reorder_ns: 60_000,
                corrupt_ppm: 30_000,
                bytes_per_second: Some(1 + workload.below(2_000_000_000)),
                queue_bytes: 20_000,
                mtu: 1500,
                is_cut: workload.chance(100_000),
                is_clogged: workload.chance(100_000),
            };
            network.set_link(from, to, link);
        }
        let to = match workload.below(4) {
            0 => group,
            _ => SocketAddr::new(*workload.pick(&addresses), 7000 + workload.below(20) as u16 / 19),
        };
        let bytes = vec![workload.next_u64() as u8; workload.below(1550) as usize];
        let sender = workload.below(3) as usize;
        conformance::send(&mut *sockets[sender], &bytes, Some(to));
        clock.advance_to(clock.nanos().plus_nanos(workload.between(0, 4000)));
        network.deliver(clock.nanos());
        if workload.chance(100_000) {
            heard += sockets[workload.below(3) as usize].receive(&mut batch).datagrams;
        }
    }
    (network.trace(), network.stats(), heard)
}

#[test]
fn two_runs_of_one_seed_leave_the_same_trace() {
    let (trace, stats, heard) = eventful(1);
    let all = [
        stats.delivered,
        stats.lost,
        stats.duplicated,
        stats.reordered,
        stats.corrupted,
        stats.cut,
        stats.queue_drops,
        stats.oversize,
        stats.overflow,
        stats.unreachable,
        stats.held,
        heard as u64,
    ];
    assert!(
        all.iter().all(|count| *count > 0),
        "everything happens: {stats:?}"
    );
    assert_eq!((trace, stats, heard), eventful(1));
    let traces: BTreeSet<u64> = (0..50).map(|seed| eventful(seed).0).collect();
    assert_eq!(traces.len(), 50, "other seeds leave others");
}

/// Everything that takes part in the trace: a changed byte shows.
#[test]
fn the_trace_tells_bytes_addresses_and_times() {
    let trace = |bytes: &[u8], port: u16, nanos: i64| {
        let mut pair = Pair::new(1, Link::perfect());
        pair.pass(nanos);
        let to = Some(SocketAddr::new(ip(B), port));
        conformance::send(&mut *pair.sender, bytes, to);
        pair.network.trace()
    };
    let first = trace(b"0123456789", 5, 0);
    assert_eq!(first, trace(b"0123456789", 5, 0));
    assert_ne!(first, trace(b"0123456788", 5, 0));
    assert_ne!(first, trace(b"0123456799", 5, 0));
    assert_ne!(first, trace(b"012345678", 5, 0));
    assert_ne!(first, trace(b"0123456789", 6, 0));
    assert_ne!(first, trace(b"0123456789", 5, 1));
}

#[test]
fn captures_show_what_was_sent_or_delivered_in_virtual_time() {
    for (point, expected) in [(CapturePoint::Sent, 1), (CapturePoint::Delivered, 2)] {
        let link = with(|link| {
            link.delay_ns = 2_000_000_005;
            link.duplicate_ppm = 1_000_000;
        });
        let mut pair = Pair::new(1, link);
        let file = SharedFile::default();
        pair.network.capture(Box::new(file.clone()), point).unwrap();
        pair.send(b"captured");
        run(&pair.network, &pair.clock);
        let file = file.bytes();
        let packet = 16 + 28 + 8;
        assert_eq!(file.len(), 24 + expected * packet, "{point:?}");
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let seconds = 1_700_000_000 + if point == CapturePoint::Sent { 0 } else { 2 };
        let nanos = if point == CapturePoint::Sent { 0 } else { 5 };
        assert_eq!((word(24), word(28)), (seconds, nanos), "{point:?}");
        assert!(file.ends_with(b"captured"));
    }
}
