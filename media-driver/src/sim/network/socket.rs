//! Hosts and sockets of the simulated network: who may bind where, which address a datagram comes from, and which
//! sockets hear it. As Linux does it, as far as our sockets can tell.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{DATAGRAM_MAX, DATAGRAM_OVERHEAD, HostId, Parcel, SimNetwork, SocketId, State};
use crate::io::{
    Filled, Interface, IoError, Network, NetworkInterface, ReceiveBatch, ReceiveOutcome, Registration,
    SendBatch, SendError, SendOutcome, SocketSpec, UdpSocket,
};

/// Ports that the system gives out, as Linux does.
const FREE_PORTS: core::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Length of a receive buffer that nobody set, bytes: Linux's default.
const RECEIVE_BUFFER: usize = 212_992;

/// Number of the loopback interface.
const LOOPBACK: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct Host {
    /// Without those of the loopback.
    pub(super) addresses: Vec<IpAddr>,
    /// Ports given out so far.
    given_ports: u16,
}

impl Host {
    fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Where datagrams go that nobody sent elsewhere.
    fn main_address(&self, is_v6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| address.is_ipv6() == is_v6)
    }

    /// The address of an interface.
    fn interface(&self, interface: Interface, to: SocketAddr) -> io::Result<IpAddr> {
        let is_v6 = to.is_ipv6();
        let scope = match to {
            SocketAddr::V6(to) => to.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let any = || {
            let main = self.main_address(is_v6);
            Ok(main.unwrap_or(loopback(is_v6)))
        };
        match interface {
            Interface::Any | Interface::Index(0) if scope == 0 => any(),
            Interface::Any | Interface::Index(0) => self.interface(Interface::Index(scope), to),
            Interface::Index(index) => interfaces(&self.addresses)
                .iter()
                .find(|one| one.index == index && one.address.is_ipv6() == is_v6)
                .map(|one| one.address)
                .ok_or_else(|| os_error(libc::ENODEV)),
            Interface::Address(address) if address.is_unspecified() => any(),
            Interface::Address(address) if self.has(address) && address.is_ipv6() == is_v6 => Ok(address),
            Interface::Address(_) => Err(os_error(libc::ENODEV)),
        }
    }
}

/// See [`SimNetwork::interfaces`].
pub(super) fn interfaces(addresses: &[IpAddr]) -> Vec<NetworkInterface> {
    let interface = |address: IpAddr, index: u32, prefix_length: u8| NetworkInterface {
        name: match index {
            LOOPBACK => "lo".to_owned(),
            _ => format!("eth{}", index - LOOPBACK - 1),
        },
        index,
        address,
        prefix_length,
        is_up: true,
        is_loopback: index == LOOPBACK,
        is_multicast: index != LOOPBACK,
    };
    let mut found = vec![
        interface(loopback(false), LOOPBACK, 8),
        interface(loopback(true), LOOPBACK, 128),
    ];
    let mut next = [LOOPBACK + 1; 2];
    for address in addresses.iter().filter(|address| !address.is_loopback()) {
        let (next, prefix_length) = match (&mut next, address) {
            ([v4, _], IpAddr::V4(_)) => (v4, 24),
            ([_, v6], IpAddr::V6(_)) => (v6, 64),
        };
        found.push(interface(*address, *next, prefix_length));
        *next += 1;
    }
    found
}

/// A host's view of the network.
pub(super) struct HostNetwork {
    pub(super) network: SimNetwork,
    pub(super) id: HostId,
}

impl Network for HostNetwork {
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        let id = self.network.state().open(self.id, spec)?;
        Ok(Box::new(SimSocket {
            network: self.network.clone(),
            id,
        }))
    }
}

/// A socket; its state is in the network.
struct SimSocket {
    network: SimNetwork,
    id: SocketId,
}

impl UdpSocket for SimSocket {
    fn local_address(&self) -> SocketAddr {
        let state = self.network.state();
        state
            .sockets
            .get(&self.id)
            .map_or(SocketAddr::new(loopback(false), 0), |socket| socket.local)
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let mut state = self.network.state();
        let now = state.offset(self.network.clock.nanos());
        state.now = state.now.max(now);
        let mut outcome = SendOutcome::default();
        for datagram in batch.entries().iter().flat_map(|entry| entry.split()) {
            let length = datagram.bytes.len();
            if state.is_send_refused() {
                outcome.error = state.refusal_error.map(|errno| SendError { errno });
                break;
            }
            let route = match state.route(self.id, datagram.to, length) {
                Ok(route) => route,
                Err(errno) => {
                    outcome.error = Some(SendError { errno });
                    break;
                }
            };
            state.dispatch(&self.network.clock, route, datagram.bytes.to_vec());
            outcome.datagrams += 1;
            outcome.bytes += length;
        }
        state.flush_capture();
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        into.clear();
        let mut state = self.network.state();
        let mut outcome = ReceiveOutcome::default();
        let Some(socket) = state.sockets.get_mut(&self.id) else {
            return outcome;
        };
        let taken = socket.queue.len().min(into.capacity());
        for (buffer, arrived) in into.buffers_mut().zip(&socket.queue) {
            if let Some(target) = buffer.get_mut(..arrived.bytes.len()) {
                target.copy_from_slice(&arrived.bytes);
            }
        }
        for arrived in socket.queue.drain(..taken) {
            let length = arrived.bytes.len();
            socket.queued_bytes -= length + DATAGRAM_OVERHEAD;
            outcome.bytes += length;
            into.push(Filled {
                length,
                segment_length: None,
                from: arrived.from,
                timestamp: arrived.timestamp,
            });
        }
        outcome.datagrams = taken;
        outcome.is_full = taken == into.capacity();
        outcome
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.network
            .state()
            .connect(self.id, to)
            .map_err(|error| IoError::new("connect to", to, error))
    }

    /// Nobody sleeps in a simulated world.
    fn register(&mut self, _waiter: &Registration) -> Result<(), IoError> {
        Ok(())
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.network.state().close(self.id);
    }
}

#[derive(Debug)]
pub(super) struct SocketState {
    host: HostId,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    /// The group, and the address of the interface where it was joined.
    member: Option<(IpAddr, IpAddr)>,
    /// Address of the interface for multicast.
    outgoing: Option<IpAddr>,
    /// Multicast datagrams stay on the host.
    has_no_hops: bool,
    is_shared: bool,
    has_timestamps: bool,
    queue: VecDeque<Arrived>,
    queued_bytes: usize,
    queue_length: usize,
}

#[derive(Debug)]
struct Arrived {
    bytes: Arc<Vec<u8>>,
    from: SocketAddr,
    timestamp: Option<i64>,
}

impl SocketState {
    /// Queues a datagram; `false` if the buffer is full. An empty buffer takes one of any length.
    pub(super) fn take(&mut self, parcel: &Parcel, timestamp: i64) -> bool {
        let length = parcel.bytes.len() + DATAGRAM_OVERHEAD;
        let fits = self.queue.is_empty() || self.queued_bytes + length <= self.queue_length;
        if fits {
            self.queued_bytes += length;
            self.queue.push_back(Arrived {
                bytes: Arc::clone(&parcel.bytes),
                from: parcel.from,
                timestamp: self.has_timestamps.then_some(timestamp),
            });
        }
        fits
    }

    /// How closely a socket of the right port is meant by a datagram to one host; `None` if it is not.
    fn unicast_rank(&self, parcel: &Parcel) -> Option<u8> {
        let local = self.local.ip();
        let is_wild = local.is_unspecified();
        let is_meant = local == parcel.to.ip() || (is_wild && local.is_ipv6() == parcel.to.is_ipv6());
        let is_heard = self.peer.is_none_or(|peer| peer == parcel.from);
        (is_meant && is_heard).then(|| u8::from(!is_wild) + 2 * u8::from(self.peer.is_some()))
    }

    /// Whether it hears a datagram to a group.
    fn hears_group(&self, parcel: &Parcel) -> bool {
        let (group, local) = (parcel.to.ip(), self.local.ip());
        self.member == Some((group, parcel.via))
            && (local.is_unspecified() || local == group)
            && self.peer.is_none_or(|peer| peer == parcel.from)
    }

    /// Whether two sockets of one port can not both be open.
    fn excludes(&self, bind: SocketAddr, is_shared: bool) -> bool {
        let (one, other) = (self.local.ip(), bind.ip());
        let overlap = one == other
            || (one.is_ipv6() == other.is_ipv6() && (one.is_unspecified() || other.is_unspecified()));
        overlap && !(self.is_shared && is_shared)
    }
}

/// Where a datagram of a socket goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) host: HostId,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// Address of the interface that it leaves by.
    pub(super) outgoing: IpAddr,
    pub(super) stays: bool,
}

impl State {
    fn open(&mut self, host: HostId, spec: &SocketSpec) -> Result<SocketId, IoError> {
        let local = self
            .bind(host, spec)
            .map_err(|error| IoError::new("bind to", spec.bind, error))?;
        let of_host = self.hosts.get(host.0);
        let interface = |interface, to| {
            of_host
                .ok_or_else(|| os_error(libc::ENODEV))
                .and_then(|host| host.interface(interface, to))
        };
        let member = match spec.join {
            Some(join) => Some((
                join.group.ip(),
                interface(join.interface, join.group)
                    .and_then(|via| match join.group.ip().is_multicast() {
                        true => Ok(via),
                        false => Err(os_error(libc::EINVAL)),
                    })
                    .map_err(|error| IoError::new("join", join.group, error))?,
            )),
            None => None,
        };
        let outgoing =
            match spec.outgoing_interface {
                Interface::Any => None,
                chosen => Some(interface(chosen, spec.bind).map_err(|error| {
                    IoError::new("send multicast out of the interface of", spec.bind, error)
                })?),
            };
        self.next_socket += 1;
        let id = SocketId(self.next_socket);
        let socket = SocketState {
            host,
            local,
            peer: None,
            member,
            outgoing,
            has_no_hops: spec.ttl == Some(0),
            is_shared: spec.reuse_address,
            has_timestamps: spec.receive_timestamps,
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_length: match spec.receive_buffer {
                0 => RECEIVE_BUFFER,
                length => length,
            },
        };
        self.sockets.insert(id, socket);
        self.by_port.entry((host, local.port())).or_default().insert(id);
        if let Some((group, _)) = member {
            self.members.entry((group, local.port())).or_default().insert(id);
        }
        if let Some(peer) = spec.connect
            && let Err(error) = self.connect(id, peer)
        {
            self.close(id);
            return Err(IoError::new("connect to", peer, error));
        }
        Ok(id)
    }

    /// The address a socket gets.
    fn bind(&mut self, host: HostId, spec: &SocketSpec) -> io::Result<SocketAddr> {
        let ip = spec.bind.ip();
        let of_host = self
            .hosts
            .get_mut(host.0)
            .filter(|of_host| ip.is_unspecified() || ip.is_multicast() || of_host.has(ip))
            .ok_or_else(|| os_error(libc::EADDRNOTAVAIL))?;
        let is_free = |port: u16| {
            let bind = SocketAddr::new(ip, port);
            self.by_port.get(&(host, port)).is_none_or(|sockets| {
                !sockets
                    .iter()
                    .filter_map(|id| self.sockets.get(id))
                    .any(|socket| socket.excludes(bind, spec.reuse_address))
            })
        };
        let mut local = spec.bind;
        if local.port() == 0 {
            // Each port once before one comes again, so that late datagrams of a closed socket find nobody.
            for _ in FREE_PORTS {
                let port = FREE_PORTS.start() + of_host.given_ports;
                of_host.given_ports = (of_host.given_ports + 1) % FREE_PORTS.len() as u16;
                // A port that others share is not free.
                if !self.by_port.contains_key(&(host, port)) {
                    local.set_port(port);
                    return Ok(local);
                }
            }
            return Err(os_error(libc::EADDRINUSE));
        }
        match is_free(local.port()) {
            true => Ok(local),
            false => Err(os_error(libc::EADDRINUSE)),
        }
    }

    fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.remove(&id) else {
            return;
        };
        let port = socket.local.port();
        leave(&mut self.by_port, (socket.host, port), id);
        if let Some((group, _)) = socket.member {
            leave(&mut self.members, (group, port), id);
        }
    }

    /// Gives a socket its peer, and an address if it has none yet.
    fn connect(&mut self, id: SocketId, to: SocketAddr) -> io::Result<()> {
        let route = self.route(id, Some(to), 0).map_err(os_error)?;
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.peer = Some(to);
            socket.local = route.from;
        }
        Ok(())
    }

    /// Where a datagram of `length` bytes goes, or the number of the error.
    fn route(&self, id: SocketId, to: Option<SocketAddr>, length: usize) -> Result<Route, i32> {
        let socket = self.sockets.get(&id).ok_or(libc::EBADF)?;
        let host = self.hosts.get(socket.host.0).ok_or(libc::EBADF)?;
        let to = to.or(socket.peer).ok_or(libc::EDESTADDRREQ)?;
        let (ip, local) = (to.ip(), socket.local.ip());
        if ip.is_ipv6() != local.is_ipv6() {
            return Err(libc::EAFNOSUPPORT);
        }
        if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(libc::EACCES);
        }
        if to.port() == 0 {
            return Err(libc::EINVAL);
        }
        if length > DATAGRAM_MAX {
            return Err(libc::EMSGSIZE);
        }
        let is_bound = !local.is_unspecified() && !local.is_multicast();
        let outgoing = if ip.is_multicast() {
            match socket.outgoing {
                Some(outgoing) => outgoing,
                None if is_bound => local,
                None => host
                    .interface(Interface::Any, to)
                    .map_err(|_| libc::ENETUNREACH)?,
            }
        } else if host.has(ip) {
            ip
        } else {
            host.main_address(ip.is_ipv6()).ok_or(libc::ENETUNREACH)?
        };
        let from = if is_bound {
            local
        } else if outgoing.is_loopback() {
            loopback(ip.is_ipv6())
        } else {
            outgoing
        };
        if from.is_loopback() && !outgoing.is_loopback() {
            return Err(libc::EINVAL);
        }
        Ok(Route {
            host: socket.host,
            from: SocketAddr::new(from, socket.local.port()),
            to,
            outgoing,
            stays: socket.has_no_hops || outgoing.is_loopback() || is_of_one_host(ip),
        })
    }

    /// The interfaces, and their hosts, where a datagram to a group has hearers.
    pub(super) fn interfaces_of_group(&self, route: &Route) -> Vec<(HostId, IpAddr)> {
        let key = (route.to.ip(), route.to.port());
        let mut found: Vec<_> = self
            .members
            .get(&key)
            .into_iter()
            .flatten()
            .filter_map(|id| self.sockets.get(id))
            .filter_map(|socket| Some((socket.host, socket.member?.1)))
            .filter(|&(host, via)| match host == route.host {
                true => via == route.outgoing,
                false => !route.stays && !via.is_loopback(),
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The sockets that hear a datagram: all members of a group, else the one that is meant most closely, the oldest
    /// of equals.
    pub(super) fn targets(&self, parcel: &Parcel) -> Vec<SocketId> {
        let to = parcel.to;
        let Some(host) = parcel.host.or_else(|| self.host_of.get(&to.ip()).copied()) else {
            return Vec::new();
        };
        let sockets = self
            .by_port
            .get(&(host, to.port()))
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.sockets.get(id)?)));
        if to.ip().is_multicast() {
            return sockets
                .filter(|(_, socket)| socket.hears_group(parcel))
                .map(|(id, _)| id)
                .collect();
        }
        let mut best = None;
        for (id, socket) in sockets {
            let rank = socket.unicast_rank(parcel);
            if rank > best.map(|(rank, _)| rank) {
                best = rank.map(|rank| (rank, id));
            }
        }
        best.map(|(_, id)| id).into_iter().collect()
    }
}

fn leave<K: Ord>(
    index: &mut std::collections::BTreeMap<K, std::collections::BTreeSet<SocketId>>,
    key: K,
    id: SocketId,
) {
    if let Some(sockets) = index.get_mut(&key) {
        sockets.remove(&id);
        if sockets.is_empty() {
            index.remove(&key);
        }
    }
}

fn loopback(is_v6: bool) -> IpAddr {
    match is_v6 {
        true => Ipv6Addr::LOCALHOST.into(),
        false => Ipv4Addr::LOCALHOST.into(),
    }
}

/// IPv6 groups of scope 1 do not leave the interface.
fn is_of_one_host(group: IpAddr) -> bool {
    match group {
        IpAddr::V6(group) => group.is_multicast() && group.segments()[0] & 0xF == 1,
        IpAddr::V4(_) => false,
    }
}

fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
