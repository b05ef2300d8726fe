//! The network of a simulated world: hosts with addresses, sockets, and links between addresses that delay, lose,
//! repeat, reorder and damage datagrams. A datagram that is sent is on its way until [`SimNetwork::deliver`] finds it
//! due; nothing happens between those calls.
//!
//! All hosts share one network segment: every address reaches every other one, and a group reaches all who joined it,
//! a copy for each interface, over the link from the sender's address to that interface. Loopback addresses, groups
//! sent there and groups of scope 1 stay on their host. Every host has 127.0.0.0/8 and ::1 besides its addresses.
//!
//! What the kernel does beyond that is left out: send buffers that are full, hop counts (but 0 stays on the host),
//! fragments (a link has its longest datagram), broadcast, and IPv4 by way of IPv6 sockets.
#![forbid(unsafe_code)]

mod link;
mod socket;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar::time::NanoTime;

pub use link::{Burst, Link};

use crate::io::capture::Capture;
use crate::io::{Network, NetworkInterface};
use crate::sim::clock::VirtualClock;
use crate::sim::prng::Prng;
use link::{LinkState, Refusal};
use socket::{Host, HostNetwork, Route, SocketState};

/// Longest datagram, bytes.
const DATAGRAM_MAX: usize = 65_507;

/// What a datagram takes of a receive buffer, and of what a clogged link holds, besides its bytes.
const DATAGRAM_OVERHEAD: usize = 64;

/// What happened on a network, in datagrams. A datagram that was sent to one address, and each copy of it, ends in
/// exactly one of `delivered`, `lost`, `cut`, `queue_drops`, `oversize`, `overflow`, `unreachable` and, with
/// checksums, `corrupted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Taken from sockets.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Handed to sockets; one for each socket that hears a group.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Lost on a link, alone or in a burst.
    pub lost: u64,
    /// Copies that a link made.
    pub duplicated: u64,
    /// Held back, so that later ones may overtake them.
    pub reordered: u64,
    /// Damaged: not delivered with checksums, delivered without.
    pub corrupted: u64,
    /// Lost because a link is cut.
    pub cut: u64,
    /// Lost because a queue was full, or what a clogged link holds.
    pub queue_drops: u64,
    /// Lost because they were longer than a link takes.
    pub oversize: u64,
    /// Lost because a receive buffer was full.
    pub overflow: u64,
    /// Nobody listened where they went.
    pub unreachable: u64,
    /// Held by a clogged link, for a time. No loss.
    pub held: u64,
    /// Not taken from a socket, see [`SimNetwork::set_refused_sends`]; not in `sent`.
    pub refused: u64,
}

/// Which datagrams a capture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapturePoint {
    /// Each datagram once, when a socket sends it, whatever becomes of it.
    Sent,
    /// Each datagram that reaches a socket, when it does, as it arrives.
    Delivered,
}

/// A network. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    clock: Arc<VirtualClock>,
    state: Arc<Mutex<State>>,
}

impl SimNetwork {
    /// A network without hosts and faults. Datagrams are sent at the time of `clock`.
    #[must_use]
    pub fn new(clock: Arc<VirtualClock>, seed: u64) -> Self {
        let state = State {
            seed,
            start: clock.nanos(),
            now: 0,
            default_link: Link::perfect(),
            links: BTreeMap::new(),
            hosts: Vec::new(),
            host_of: BTreeMap::new(),
            sockets: BTreeMap::new(),
            by_port: BTreeMap::new(),
            members: BTreeMap::new(),
            next_socket: 0,
            flying: BinaryHeap::new(),
            sequence: 0,
            is_checked: true,
            refusals: Prng::new(seed, "network refusals"),
            refused_ppm: 0,
            refusal_error: None,
            stats: NetworkStats::default(),
            trace: TRACE_START,
            capture: None,
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The network as the host with these addresses sees it. The same host again if one of them is known: a driver
    /// that starts anew finds its host so. Binding: port 0 takes a free port, the wildcard address stands for all
    /// addresses of the host, a taken address is refused unless both sockets share it.
    #[must_use]
    pub fn host(&self, addresses: &[IpAddr]) -> Arc<dyn Network> {
        let mut state = self.state();
        let known = addresses
            .iter()
            .find_map(|address| state.host_of.get(address).copied());
        let id = known.unwrap_or_else(|| {
            state.hosts.push(Host::default());
            HostId(state.hosts.len() - 1)
        });
        for address in addresses.iter().filter(|address| !address.is_loopback()) {
            if state.host_of.insert(*address, id).is_none()
                && let Some(host) = state.hosts.get_mut(id.0)
            {
                host.addresses.push(*address);
            }
        }
        Arc::new(HostNetwork {
            network: self.clone(),
            id,
        })
    }

    /// The interfaces of a host with these addresses: the loopback, which is number 1, and from number 2 on as many as
    /// it has addresses of one family.
    #[must_use]
    pub fn interfaces(addresses: &[IpAddr]) -> Vec<NetworkInterface> {
        socket::interfaces(addresses)
    }

    /// Sets what datagrams meet from one address to another, in this direction; for a group, `to` is the address of
    /// the interface that joined. What is on its way keeps its time of arrival, and what is sent later stays behind it:
    /// a queue that a slow link had filled still has to drain. What a clogged link held arrives at once when it is not
    /// clogged any more.
    pub fn set_link(&self, from: IpAddr, to: IpAddr, link: Link) {
        let mut state = self.state();
        let seed = state.seed;
        state
            .links
            .entry((from, to))
            .or_insert_with(|| LinkState::new(seed, from, to))
            .setting = Some(link);
        self.release(&mut state);
    }

    /// Sets what datagrams meet where no link was set, also those that stay on their host.
    pub fn set_default_link(&self, link: Link) {
        let mut state = self.state();
        state.default_link = link;
        self.release(&mut state);
    }

    /// Takes back all of [`Self::set_link`]: the default counts everywhere.
    pub fn clear_links(&self) {
        let mut state = self.state();
        for link in state.links.values_mut() {
            link.setting = None;
        }
        self.release(&mut state);
    }

    /// What datagrams from one address to another meet.
    #[must_use]
    pub fn link(&self, from: IpAddr, to: IpAddr) -> Link {
        self.state().link(from, to)
    }

    /// Whether damaged datagrams are found out and do not arrive, as UDP's checksum does it. So from the start.
    pub fn set_checksum(&self, is_checked: bool) {
        self.state().is_checked = is_checked;
    }

    /// How probably a datagram is not taken from its socket now, as if a send buffer was full, parts per million: the
    /// send is short, see [`Self::set_refusal_error`]. 0 from the start.
    pub fn set_refused_sends(&self, parts_per_million: u32) {
        self.state().refused_ppm = parts_per_million;
    }

    /// What a send that is refused says: nothing, as a full buffer does, or the number of an error. Nothing from the
    /// start.
    pub fn set_refusal_error(&self, errno: Option<i32>) {
        self.state().refusal_error = errno;
    }

    /// Hands what is due by `now` to its sockets, in the order of arrival; returns how many were handed over.
    pub fn deliver(&self, now: NanoTime) -> usize {
        let mut state = self.state();
        let now = state.offset(now);
        state.now = state.now.max(now);
        let mut delivered = 0;
        while let Some(parcel) = state.take_due(now) {
            delivered += state.arrive(&self.clock, parcel);
        }
        state.flush_capture();
        delivered
    }

    /// When the next datagram is due, if any is on its way. What a clogged link holds is not.
    #[must_use]
    pub fn next_arrival(&self) -> Option<NanoTime> {
        let state = self.state();
        let next = state.flying.peek()?;
        Some(state.start.plus_nanos(next.0.at))
    }

    /// Datagrams on their way, those that a clogged link holds included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let state = self.state();
        let held: usize = state.links.values().map(|link| link.held.len()).sum();
        state.flying.len() + held
    }

    /// Sockets that are open, of all hosts.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.state().sockets.len()
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> NetworkStats {
        self.state().stats
    }

    /// A hash of all that happened so far: kind, time, addresses, length and bytes. Equal for two runs of one seed.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// Writes datagrams to `target` from now on, in the form that [`crate::io::CaptureNetwork`] writes, with virtual
    /// times.
    ///
    /// # Errors
    /// What `target` says.
    pub fn capture(&self, target: Box<dyn Write + Send>, point: CapturePoint) -> io::Result<()> {
        let capture = Capture::new(target)?;
        self.state().capture = Some((capture, point));
        Ok(())
    }

    fn release(&self, state: &mut State) {
        let now = state.offset(self.clock.nanos());
        state.release(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HostId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SocketId(u64);

/// A datagram on its way to one interface.
#[derive(Debug)]
struct Parcel {
    /// When it arrives, nanoseconds of the network.
    at: i64,
    /// Orders what arrives at the same time.
    sequence: u64,
    from: SocketAddr,
    to: SocketAddr,
    /// Where it arrives: `to`, or for a group an address of a member.
    via: IpAddr,
    /// Where it arrives if the address does not tell: on the sender's host, or on that of a member.
    host: Option<HostId>,
    bytes: Arc<Vec<u8>>,
    digest: u64,
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Parcel {}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Parcel {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What happens to a datagram, as the trace tells it apart.
#[derive(Clone, Copy, Debug)]
enum Event {
    Sent = 1,
    Delivered,
    Lost,
    Duplicated,
    Reordered,
    Corrupted,
    Cut,
    QueueFull,
    Oversize,
    Overflow,
    Unreachable,
    Held,
}

impl From<Refusal> for Event {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Cut => Self::Cut,
            Refusal::Oversize => Self::Oversize,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::Lost => Self::Lost,
        }
    }
}

/// Times in here are nanoseconds since the network was made: they do not wrap.
struct State {
    seed: u64,
    start: NanoTime,
    /// The latest time seen.
    now: i64,
    default_link: Link,
    /// Links that were set or used.
    links: BTreeMap<(IpAddr, IpAddr), LinkState>,
    hosts: Vec<Host>,
    host_of: BTreeMap<IpAddr, HostId>,
    sockets: BTreeMap<SocketId, SocketState>,
    by_port: BTreeMap<(HostId, u16), BTreeSet<SocketId>>,
    members: BTreeMap<(IpAddr, u16), BTreeSet<SocketId>>,
    next_socket: u64,
    flying: BinaryHeap<Reverse<Parcel>>,
    sequence: u64,
    is_checked: bool,
    refusals: Prng,
    refused_ppm: u32,
    refusal_error: Option<i32>,
    stats: NetworkStats,
    trace: u64,
    capture: Option<(Capture, CapturePoint)>,
}

impl State {
    fn offset(&self, time: NanoTime) -> i64 {
        time.since(self.start)
    }

    fn link(&self, from: IpAddr, to: IpAddr) -> Link {
        self.links
            .get(&(from, to))
            .and_then(|link| link.setting)
            .unwrap_or(self.default_link)
    }

    fn link_state(&mut self, from: IpAddr, to: IpAddr) -> (Link, &mut LinkState) {
        let seed = self.seed;
        let state = self
            .links
            .entry((from, to))
            .or_insert_with(|| LinkState::new(seed, from, to));
        (state.setting.unwrap_or(self.default_link), state)
    }

    /// Whether the next datagram of a socket is not taken.
    fn is_send_refused(&mut self) -> bool {
        let is_refused = self.refused_ppm > 0 && self.refusals.chance(self.refused_ppm);
        if is_refused {
            self.stats.refused += 1;
            self.trace = fold(fold(self.trace, REFUSED), self.now.cast_unsigned());
        }
        is_refused
    }

    /// Takes a datagram of a socket.
    fn dispatch(&mut self, clock: &VirtualClock, route: Route, bytes: Vec<u8>) {
        let to = route.to.ip();
        let parcel = Parcel {
            at: self.now,
            sequence: 0,
            from: route.from,
            to: route.to,
            via: to,
            host: to.is_loopback().then_some(route.host),
            digest: digest(&bytes),
            bytes: Arc::new(bytes),
        };
        self.record(Event::Sent, &parcel);
        let time = clock.epoch_nanos(self.start.plus_nanos(self.now));
        self.show(CapturePoint::Sent, time, &parcel);
        if !to.is_multicast() {
            self.travel(parcel);
            return;
        }
        let interfaces = self.interfaces_of_group(&route);
        if interfaces.is_empty() {
            self.record(Event::Unreachable, &parcel);
        }
        for (host, via) in interfaces {
            self.travel(Parcel {
                via,
                host: Some(host),
                bytes: Arc::clone(&parcel.bytes),
                ..parcel
            });
        }
    }

    /// Puts a datagram on its link.
    fn travel(&mut self, mut parcel: Parcel) {
        let now = self.now;
        let is_checked = self.is_checked;
        let (link, state) = self.link_state(parcel.from.ip(), parcel.via);
        let start = match state.enter(&link, now, parcel.bytes.len()) {
            Ok(start) => start,
            Err(refusal) => {
                self.record(refusal.into(), &parcel);
                return;
            }
        };
        let is_corrupt = state.corrupts(&link);
        if is_corrupt {
            let mut bytes = parcel.bytes.to_vec();
            state.flip(&mut bytes);
            parcel.digest = digest(&bytes);
            parcel.bytes = Arc::new(bytes);
            self.record(Event::Corrupted, &parcel);
            if is_checked {
                return;
            }
        }
        let (_, state) = self.link_state(parcel.from.ip(), parcel.via);
        let arrival = state.arrival(&link, start);
        let copy = state.duplicates(&link).then(|| state.arrival(&link, start));
        for (index, arrival) in core::iter::once(arrival).chain(copy).enumerate() {
            let parcel = Parcel {
                at: arrival.at,
                bytes: Arc::clone(&parcel.bytes),
                ..parcel
            };
            if index > 0 {
                self.record(Event::Duplicated, &parcel);
            }
            if arrival.is_reordered {
                self.record(Event::Reordered, &parcel);
            }
            self.fly(parcel);
        }
    }

    fn fly(&mut self, parcel: Parcel) {
        self.sequence += 1;
        self.flying.push(Reverse(Parcel {
            sequence: self.sequence,
            ..parcel
        }));
    }

    fn take_due(&mut self, now: i64) -> Option<Parcel> {
        if self.flying.peek()?.0.at > now {
            return None;
        }
        self.flying.pop().map(|parcel| parcel.0)
    }

    /// Hands a datagram to all who hear it; returns to how many.
    fn arrive(&mut self, clock: &VirtualClock, parcel: Parcel) -> usize {
        let link = self.link(parcel.from.ip(), parcel.via);
        if link.is_cut {
            self.record(Event::Cut, &parcel);
            return 0;
        }
        if link.is_clogged {
            self.hold(&link, parcel);
            return 0;
        }
        let targets = self.targets(&parcel);
        if targets.is_empty() {
            self.record(Event::Unreachable, &parcel);
        }
        let timestamp = clock.epoch_nanos(self.start.plus_nanos(parcel.at));
        let mut delivered = 0;
        for target in targets {
            let fits = self
                .sockets
                .get_mut(&target)
                .is_some_and(|socket| socket.take(&parcel, timestamp));
            let event = if fits { Event::Delivered } else { Event::Overflow };
            self.record(event, &parcel);
            if fits {
                delivered += 1;
                self.show(CapturePoint::Delivered, timestamp, &parcel);
            }
        }
        delivered
    }

    fn hold(&mut self, link: &Link, parcel: Parcel) {
        self.record(Event::Held, &parcel);
        let (_, state) = self.link_state(parcel.from.ip(), parcel.via);
        if let Some(parcel) = state.hold(link, parcel) {
            self.record(Event::QueueFull, &parcel);
        }
    }

    /// Lets go what links hold that are not clogged any more.
    fn release(&mut self, now: i64) {
        self.now = self.now.max(now);
        let mut released = Vec::new();
        for link in self.links.values_mut() {
            if !link.setting.unwrap_or(self.default_link).is_clogged {
                released.extend(link.release());
            }
        }
        for parcel in released {
            // With its old number it stays in front of what was sent later and is due now.
            self.flying.push(Reverse(Parcel {
                at: self.now,
                ..parcel
            }));
        }
    }

    /// Counts and hashes what happens to a datagram.
    fn record(&mut self, event: Event, parcel: &Parcel) {
        let stats = &mut self.stats;
        let length = parcel.bytes.len() as u64;
        match event {
            Event::Sent => {
                stats.sent += 1;
                stats.sent_bytes += length;
            }
            Event::Delivered => {
                stats.delivered += 1;
                stats.delivered_bytes += length;
            }
            Event::Lost => stats.lost += 1,
            Event::Duplicated => stats.duplicated += 1,
            Event::Reordered => stats.reordered += 1,
            Event::Corrupted => stats.corrupted += 1,
            Event::Cut => stats.cut += 1,
            Event::QueueFull => stats.queue_drops += 1,
            Event::Oversize => stats.oversize += 1,
            Event::Overflow => stats.overflow += 1,
            Event::Unreachable => stats.unreachable += 1,
            Event::Held => stats.held += 1,
        }
        let mut trace = fold(self.trace, event as u64);
        for time in [self.now, parcel.at] {
            trace = fold(trace, time.cast_unsigned());
        }
        for address in [parcel.from, parcel.to, SocketAddr::new(parcel.via, 0)] {
            trace = fold_address(trace, address);
        }
        self.trace = fold(fold(trace, length), parcel.digest);
    }

    fn show(&mut self, point: CapturePoint, time: i64, parcel: &Parcel) {
        if let Some((capture, wanted)) = &mut self.capture
            && *wanted == point
        {
            capture.add(time, parcel.from, parcel.to, parcel.bytes.len(), |bytes| {
                bytes.copy_from_slice(&parcel.bytes);
            });
        }
    }

    fn flush_capture(&mut self) {
        if let Some((capture, _)) = &mut self.capture {
            capture.flush();
        }
    }
}

/// A refused send in the trace; it is no [`Event`] of a datagram.
const REFUSED: u64 = 64;

const TRACE_START: u64 = 0x6A09_E667_F3BC_C908;

/// Mixes a word into a hash: multiplication carries low bits up, the rotation brings high bits down.
fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

fn fold_address(hash: u64, address: SocketAddr) -> u64 {
    let bits = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let hash = fold(fold(hash, bits as u64), (bits >> 64) as u64);
    fold(hash, u64::from(address.port()))
}

/// A hash of bytes, in four lanes, which do not wait for each other.
fn digest(bytes: &[u8]) -> u64 {
    let mut lanes = [TRACE_START, !TRACE_START, TRACE_START >> 1, TRACE_START << 1];
    let mut blocks = bytes.chunks_exact(32);
    for block in blocks.by_ref() {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = fold(*lane, word.try_into().map_or(0, u64::from_le_bytes));
        }
    }
    let hash = lanes.into_iter().fold(bytes.len() as u64, fold);
    blocks
        .remainder()
        .iter()
        .fold(hash, |hash, byte| fold(hash, u64::from(*byte)))
}
