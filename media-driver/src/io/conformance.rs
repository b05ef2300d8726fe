//! What every network must do: one suite, run for the system's sockets and for the wrappers around them.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fulmar::log::Payload;
use fulmar::time::SystemClock;

use super::interfaces::{InterfaceList, SystemInterfaces};
use super::network::{Network, UdpSocket};
use super::receive::ReceiveBatch;
use super::spec::{Interface, Join, SocketRole, SocketSpec};
use super::{SendBatch, SendEntry, SendOutcome};

/// Runs every test of the suite against a network of this machine.
pub(crate) fn check(network: &dyn Network) {
    check_with(network, &SystemInterfaces);
}

/// Runs every test of the suite against a network that has these interfaces.
pub(crate) fn check_with(network: &dyn Network, interfaces: &dyn InterfaceList) {
    unicast(network, Ipv4Addr::LOCALHOST.into());
    if has_ipv6(network) {
        unicast(network, Ipv6Addr::LOCALHOST.into());
        multicast_v6(network, interfaces);
    } else {
        eprintln!("IPv6 skipped: this machine has no [::1]");
    }
    an_empty_socket_brings_nothing(network);
    a_batch_keeps_its_order_and_its_borders(network);
    runs_arrive_as_datagrams(network, 1);
    runs_arrive_as_datagrams(network, 16);
    long_datagrams_pass_whole(network);
    an_unreachable_peer_is_no_error(network);
    a_connected_socket_hears_its_peer_only_and_changes_it(network);
    an_address_is_taken_once(network);
    a_refused_address_is_an_error(network);
    multicast_v4(network);
    arrival_times_are_told(network);
    a_full_batch_leaves_the_rest(network);
}

pub(crate) fn local(ip: IpAddr) -> SocketSpec {
    SocketSpec::new(SocketRole::Receive, SocketAddr::new(ip, 0))
}

fn has_ipv6(network: &dyn Network) -> bool {
    network.open(&local(Ipv6Addr::LOCALHOST.into())).is_ok()
}

pub(crate) fn pair(network: &dyn Network, ip: IpAddr) -> (Box<dyn UdpSocket>, Box<dyn UdpSocket>) {
    let receiver = network.open(&local(ip)).unwrap();
    let sender = network
        .open(&SocketSpec::sender_to(receiver.local_address()))
        .unwrap();
    (sender, receiver)
}

pub(crate) fn send(socket: &mut dyn UdpSocket, bytes: &[u8], to: Option<SocketAddr>) -> SendOutcome {
    socket.send(&SendBatch::of(SendEntry::datagram(
        Payload::from_slice(bytes),
        to,
    )))
}

/// Receives until so many datagrams are there, and a little longer, so that one too many is noticed.
pub(crate) fn collect(
    socket: &mut dyn UdpSocket,
    batch: &mut ReceiveBatch,
    count: usize,
) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    let start = SystemClock.nanos();
    loop {
        let outcome = socket.receive(batch);
        assert_eq!(outcome.error, None);
        let before = all.len();
        all.extend(
            batch
                .datagrams()
                .map(|datagram| (datagram.bytes.to_vec(), datagram.from)),
        );
        assert_eq!(outcome.datagrams, all.len() - before);
        let bytes: usize = all[before..].iter().map(|(bytes, _)| bytes.len()).sum();
        assert_eq!(outcome.bytes, bytes);
        let waited = SystemClock.nanos().since(start);
        if outcome.datagrams == 0 && (all.len() >= count || waited > 10_000_000_000) {
            assert_eq!(all.len(), count, "datagrams within 10 s");
            return all;
        }
        std::thread::yield_now();
    }
}

fn unicast(network: &dyn Network, ip: IpAddr) {
    let (mut one, mut two) = pair(network, ip);
    let mut batch = ReceiveBatch::new(4);
    let to = two.local_address();
    assert!(to.port() != 0 && to.ip() == ip);
    let outcome = send(&mut *one, b"to you", Some(to));
    assert_eq!((outcome.datagrams, outcome.bytes, outcome.error), (1, 6, None));
    let got = collect(&mut *two, &mut batch, 1);
    assert_eq!(got[0].0, b"to you");
    assert_eq!(
        got[0].1,
        SocketAddr::new(ip, one.local_address().port()),
        "the address to answer to"
    );
    assert_eq!(send(&mut *two, b"", Some(got[0].1)).datagrams, 1);
    assert_eq!(
        collect(&mut *one, &mut batch, 1),
        [(Vec::new(), two.local_address())]
    );
}

fn an_empty_socket_brings_nothing(network: &dyn Network) {
    let (_, mut socket) = pair(network, Ipv4Addr::LOCALHOST.into());
    let mut batch = ReceiveBatch::new(1);
    let outcome = socket.receive(&mut batch);
    assert_eq!(
        (outcome.datagrams, outcome.bytes, outcome.is_full, outcome.error),
        (0, 0, false, None)
    );
    assert!(batch.is_empty() && batch.datagrams().next().is_none());
    assert_eq!(socket.send(&SendBatch::new()), SendOutcome::default());
}

fn a_batch_keeps_its_order_and_its_borders(network: &dyn Network) {
    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let to = Some(receiver.local_address());
    let payloads: Vec<Vec<u8>> = (0..SendBatch::CAPACITY)
        .map(|index| vec![index as u8; 1 + 37 * index])
        .collect();
    let mut batch = SendBatch::new();
    for bytes in &payloads {
        assert!(batch.push(SendEntry::datagram(Payload::from_slice(bytes), to)));
    }
    assert!(batch.is_full() && !batch.push(SendEntry::datagram(Payload::from_slice(b"x"), to)));
    let outcome = sender.send(&batch);
    assert!(!outcome.is_short(&batch));
    assert_eq!(
        (outcome.datagrams, outcome.bytes),
        (payloads.len(), batch.bytes())
    );
    let got = collect(&mut *receiver, &mut ReceiveBatch::new(4), payloads.len());
    assert!(got.iter().map(|(bytes, _)| bytes).eq(&payloads));
}

/// Runs of equal datagrams with a shorter last one, between single datagrams, whatever the system makes of them.
fn runs_arrive_as_datagrams(network: &dyn Network, capacity: usize) {
    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let to = Some(receiver.local_address());
    let bytes: Vec<u8> = (0..40 * 1408 + 96).map(|at| (at % 251) as u8).collect();
    let run = SendEntry::run(Payload::from_slice(&bytes), 1408, to);
    let mut batch = SendBatch::new();
    assert!(batch.push(SendEntry::datagram(Payload::from_slice(b"before"), to)));
    assert!(batch.push(run));
    assert!(batch.push(SendEntry::datagram(Payload::from_slice(b"after"), to)));
    assert_eq!(batch.datagrams(), 43);
    let outcome = sender.send(&batch);
    assert_eq!((outcome.datagrams, outcome.bytes), (43, bytes.len() + 11));
    let got = collect(&mut *receiver, &mut ReceiveBatch::new(capacity), 43);
    let expected = core::iter::once(&b"before"[..])
        .chain(bytes.chunks(1408))
        .chain(core::iter::once(&b"after"[..]));
    assert!(got.iter().map(|(bytes, _)| &bytes[..]).eq(expected));
}

fn long_datagrams_pass_whole(network: &dyn Network) {
    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let to = Some(receiver.local_address());
    for length in [1408, 8192, 65_504] {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 253) as u8).collect();
        assert_eq!(send(&mut *sender, &bytes, to).bytes, length);
        let got = collect(&mut *receiver, &mut ReceiveBatch::new(2), 1);
        assert_eq!(got[0].0, bytes);
    }
}

/// The system tells a connected socket that nobody listens there; to us that is the same as a lost datagram.
fn an_unreachable_peer_is_no_error(network: &dyn Network) {
    let nobody = {
        let socket = network.open(&local(Ipv4Addr::LOCALHOST.into())).unwrap();
        socket.local_address()
    };
    let mut sender = network
        .open(&SocketSpec {
            connect: Some(nobody),
            ..SocketSpec::sender_to(nobody)
        })
        .unwrap();
    let mut batch = ReceiveBatch::new(2);
    for _ in 0..20 {
        assert_eq!(send(&mut *sender, b"anybody?", None).error, None);
        let outcome = sender.receive(&mut batch);
        assert_eq!((outcome.datagrams, outcome.error), (0, None));
    }
    // Somebody comes after all: the errors of before cost this datagram nothing.
    assert_eq!(send(&mut *sender, b"anybody?", None).error, None);
    let mut late = network
        .open(&SocketSpec::new(SocketRole::Receive, nobody))
        .unwrap();
    assert_eq!(send(&mut *sender, b"now", None).datagrams, 1);
    assert_eq!(collect(&mut *late, &mut batch, 1)[0].0, b"now");
}

fn a_connected_socket_hears_its_peer_only_and_changes_it(network: &dyn Network) {
    let ip = Ipv4Addr::LOCALHOST.into();
    let mut batch = ReceiveBatch::new(4);
    let (mut first, mut second) = pair(network, ip);
    let peer = second.local_address();
    let mut connected = network
        .open(&SocketSpec {
            connect: Some(peer),
            ..SocketSpec::sender_to(peer)
        })
        .unwrap();
    assert_eq!(
        connected.local_address().ip(),
        ip,
        "connecting chooses the address"
    );
    assert_eq!(send(&mut *connected, b"one", None).datagrams, 1);
    assert_eq!(collect(&mut *second, &mut batch, 1)[0].0, b"one");
    let back = connected.local_address();
    send(&mut *first, b"not from the peer", Some(back));
    send(&mut *second, b"from the peer", Some(back));
    assert_eq!(collect(&mut *connected, &mut batch, 1)[0].0, b"from the peer");

    let other = first.local_address();
    connected.reconnect(SocketAddr::new(ip, other.port())).unwrap();
    assert_eq!(send(&mut *connected, b"two", None).datagrams, 1);
    assert_eq!(collect(&mut *first, &mut batch, 1)[0].0, b"two");
    collect(&mut *second, &mut batch, 0);
}

fn an_address_is_taken_once(network: &dyn Network) {
    let (_, receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let spec = SocketSpec::new(SocketRole::Receive, receiver.local_address());
    let error = network.open(&spec).err().unwrap();
    assert!(error.is_address_in_use(), "{error}");
    assert!(error.to_string().contains(&spec.bind.to_string()), "{error}");
    drop(receiver);
    assert_eq!(network.open(&spec).unwrap().local_address(), spec.bind);
}

/// A datagram that the system will not send: what went before it is told, what comes after it waits.
fn a_refused_address_is_an_error(network: &dyn Network) {
    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let to = Some(receiver.local_address());
    // Nobody may send to everybody without asking for it first.
    let everybody = Some("255.255.255.255:9".parse().unwrap());
    let mut batch = SendBatch::new();
    for (bytes, to) in [(b"1", to), (b"2", to), (b"3", everybody), (b"4", to)] {
        assert!(batch.push(SendEntry::datagram(Payload::from_slice(bytes), to)));
    }
    let outcome = sender.send(&batch);
    assert_eq!((outcome.datagrams, outcome.bytes), (2, 2));
    assert_eq!(outcome.error.unwrap().errno, libc::EACCES);
    assert!(outcome.is_short(&batch));
    assert_eq!(collect(&mut *receiver, &mut ReceiveBatch::new(4), 2)[1].0, b"2");
}

fn multicast_v4(network: &dyn Network) {
    let loopback = Interface::Address(Ipv4Addr::LOCALHOST.into());
    let group = "224.20.30.39:0".parse().unwrap();
    let other = "224.20.30.41:0".parse().unwrap();
    multicast(network, Ipv4Addr::UNSPECIFIED.into(), group, other, loopback);
}

/// On an interface with a route for groups, which the loopback often has not. The group never leaves the interface.
fn multicast_v6(network: &dyn Network, interfaces: &dyn InterfaceList) {
    let list = interfaces.interfaces().unwrap();
    let interface = list
        .iter()
        .find(|one| one.is_up && one.is_multicast && one.address.is_ipv6());
    let Some(interface) = interface else {
        eprintln!("IPv6 multicast skipped: no interface of this machine takes it");
        return;
    };
    let group = "[ff01::1:1]:0".parse().unwrap();
    let other = "[ff01::1:3]:0".parse().unwrap();
    let any = Ipv6Addr::UNSPECIFIED.into();
    multicast(network, any, group, other, Interface::Index(interface.index));
    multicast(network, any, group, other, Interface::Address(interface.address));
}

/// Two members of a group hear it; a member of another group on the same port does not.
fn multicast(
    network: &dyn Network,
    any: IpAddr,
    mut group: SocketAddr,
    mut other: SocketAddr,
    interface: Interface,
) {
    let member = |group: SocketAddr| SocketSpec {
        join: Some(Join { group, interface }),
        reuse_address: true,
        ..SocketSpec::new(SocketRole::Receive, SocketAddr::new(any, group.port()))
    };
    let mut first = network.open(&member(group)).unwrap();
    group.set_port(first.local_address().port());
    other.set_port(group.port());
    let mut second = network.open(&member(group)).unwrap();
    let mut stranger = network.open(&member(other)).unwrap();
    let mut sender = network
        .open(&SocketSpec {
            outgoing_interface: interface,
            ttl: Some(1),
            ..SocketSpec::sender_to(group)
        })
        .unwrap();
    let run: Vec<u8> = (0..4000).map(|at| (at % 247) as u8).collect();
    let outcome = sender.send(&SendBatch::of(SendEntry::run(
        Payload::from_slice(&run),
        1000,
        Some(group),
    )));
    assert_eq!((outcome.datagrams, outcome.error), (4, None));
    let mut batch = ReceiveBatch::new(4);
    for member in [&mut first, &mut second] {
        let got = collect(&mut **member, &mut batch, 4);
        assert!(got.iter().map(|(bytes, _)| &bytes[..]).eq(run.chunks(1000)));
        assert_eq!(got[0].1.port(), sender.local_address().port());
    }
    collect(&mut *stranger, &mut batch, 0);
}

fn arrival_times_are_told(network: &dyn Network) {
    let spec = SocketSpec {
        receive_timestamps: true,
        ..local(Ipv4Addr::LOCALHOST.into())
    };
    let mut receiver = network.open(&spec).unwrap();
    let mut sender = network
        .open(&SocketSpec::sender_to(receiver.local_address()))
        .unwrap();
    use fulmar::time::Clock;
    let before = SystemClock.now().epoch;
    send(&mut *sender, b"when?", Some(receiver.local_address()));
    let mut batch = ReceiveBatch::new(2);
    while receiver.receive(&mut batch).datagrams == 0 {
        std::thread::yield_now();
    }
    let after = SystemClock.now().epoch;
    let time = batch.datagrams().next().unwrap().timestamp.unwrap();
    let slack = Duration::from_secs(1).as_millis() as i64;
    assert!((before.0 - slack..=after.0 + slack).contains(&(time / 1_000_000)));

    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    send(&mut *sender, b"when?", Some(receiver.local_address()));
    while receiver.receive(&mut batch).datagrams == 0 {
        std::thread::yield_now();
    }
    assert_eq!(batch.datagrams().next().unwrap().timestamp, None);
}

fn a_full_batch_leaves_the_rest(network: &dyn Network) {
    let (mut sender, mut receiver) = pair(network, Ipv4Addr::LOCALHOST.into());
    let to = Some(receiver.local_address());
    for index in 0..5u8 {
        // Of different lengths, so that no system joins them.
        assert_eq!(
            send(&mut *sender, &vec![index; 10 + usize::from(index)], to).datagrams,
            1
        );
    }
    let mut batch = ReceiveBatch::new(2);
    let full = receiver.receive(&mut batch);
    assert_eq!((full.datagrams, full.is_full), (2, true));
    let rest = collect(&mut *receiver, &mut batch, 3);
    assert_eq!(rest[0].0, vec![2; 12]);
}
