//! Making a socket as its spec wants it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::super::interfaces::{InterfaceList, SystemInterfaces};
use super::super::network::IoError;
use super::super::spec::{Interface, Join, SocketSpec};
use super::set_option;

/// Opens, sets every option, binds, joins and connects, in this order.
pub(super) fn open(spec: &SocketSpec) -> Result<Socket, IoError> {
    let socket = Socket::new(Domain::for_address(spec.bind), Type::DGRAM, Some(Protocol::UDP))
        .map_err(|error| IoError::new("open a socket for", spec.bind, error))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| IoError::new("make non-blocking", spec.bind, error))?;
    if spec.reuse_address {
        socket
            .set_reuse_address(true)
            .and_then(|()| socket.set_reuse_port(true))
            .map_err(|error| IoError::new("share the address", spec.bind, error))?;
    }
    if spec.send_buffer > 0 {
        socket
            .set_send_buffer_size(spec.send_buffer)
            .map_err(|error| IoError::new("set the send buffer of", spec.bind, error))?;
    }
    if spec.receive_buffer > 0 {
        socket
            .set_recv_buffer_size(spec.receive_buffer)
            .map_err(|error| IoError::new("set the receive buffer of", spec.bind, error))?;
    }
    if spec.receive_timestamps {
        let on: libc::c_int = 1;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on)
            .map_err(|error| IoError::new("time the datagrams of", spec.bind, error))?;
    }
    socket
        .bind(&SockAddr::from(spec.bind))
        .map_err(|error| IoError::new("bind to", spec.bind, error))?;
    if let Some(join_spec) = &spec.join {
        join(&socket, join_spec)?;
    }
    send_multicast(&socket, spec)?;
    if let Some(peer) = spec.connect {
        socket
            .connect(&SockAddr::from(peer))
            .map_err(|error| IoError::new("connect to", peer, error))?;
    }
    Ok(socket)
}

/// The receive buffer that was asked for, and what the system gave, bytes, if that is less.
pub(super) fn short_receive_buffer(socket: &Socket, spec: &SocketSpec) -> Option<(usize, usize)> {
    // The system tells twice of what it was asked for: half is for its own bookkeeping.
    let given = socket.recv_buffer_size().ok()? / 2;
    (given < spec.receive_buffer).then_some((spec.receive_buffer, given))
}

/// Lets looks at the empty socket poll the device.
pub(super) fn busy_poll(socket: &Socket, microseconds: u32) -> io::Result<()> {
    let microseconds = libc::c_int::try_from(microseconds).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, microseconds)
}

/// Has the device hold its interrupts back as long as somebody polls it.
pub(super) fn prefer_busy_poll(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, on)
}

#[cfg(test)]
pub(super) fn busy_poll_of(socket: &Socket) -> io::Result<libc::c_int> {
    use std::os::fd::AsRawFd;
    let mut value: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: getsockopt(fd, level, name, value, length) writes at most `length` bytes to `value` and what it wrote to
    // `length`; both live through the call, and the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BUSY_POLL,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn join(socket: &Socket, join: &Join) -> Result<(), IoError> {
    let failed = |error| IoError::new("join", join.group, error);
    match join.group.ip() {
        IpAddr::V4(group) => {
            let interface = match join.interface {
                Interface::Any => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
                Interface::Index(index) => InterfaceIndexOrAddress::Index(index),
                Interface::Address(IpAddr::V4(address)) => InterfaceIndexOrAddress::Address(address),
                Interface::Address(address @ IpAddr::V6(_)) => {
                    InterfaceIndexOrAddress::Index(index_of(address).map_err(failed)?)
                }
            };
            socket
                .join_multicast_v4_n(&group, &interface)
                .and_then(|()| socket.set_multicast_all_v4(false))
                .map_err(failed)
        }
        IpAddr::V6(group) => {
            let index = index_for_v6(join.interface, Some(join.group)).map_err(failed)?;
            socket
                .join_multicast_v6(&group, index)
                .and_then(|()| socket.set_multicast_all_v6(false))
                .map_err(failed)
        }
    }
}

fn send_multicast(socket: &Socket, spec: &SocketSpec) -> Result<(), IoError> {
    let is_v6 = spec.bind.is_ipv6();
    if let Some(ttl) = spec.ttl {
        let hops = u32::from(ttl);
        let set = if is_v6 {
            socket.set_multicast_hops_v6(hops)
        } else {
            socket.set_multicast_ttl_v4(hops)
        };
        set.map_err(|error| IoError::new("set the multicast hops of", spec.bind, error))?;
    }
    if spec.outgoing_interface == Interface::Any {
        return Ok(());
    }
    let failed = |error| IoError::new("send multicast out of the interface of", spec.bind, error);
    if is_v6 {
        let index = index_for_v6(spec.outgoing_interface, None).map_err(failed)?;
        return socket.set_multicast_if_v6(index).map_err(failed);
    }
    let (address, index) = match spec.outgoing_interface {
        Interface::Any => (Ipv4Addr::UNSPECIFIED, 0),
        Interface::Index(index) => (Ipv4Addr::UNSPECIFIED, index),
        Interface::Address(IpAddr::V4(address)) => (address, 0),
        Interface::Address(address @ IpAddr::V6(_)) => {
            (Ipv4Addr::UNSPECIFIED, index_of(address).map_err(failed)?)
        }
    };
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        imr_ifindex: i32::try_from(index).map_err(|_| failed(io::Error::from_raw_os_error(libc::ENODEV)))?,
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request).map_err(failed)
}

/// The number of an interface. Link-local groups may name theirs in the scope of the address.
fn index_for_v6(interface: Interface, group: Option<SocketAddr>) -> io::Result<u32> {
    match interface {
        Interface::Index(index) => Ok(index),
        Interface::Address(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(0),
        Interface::Address(address) => index_of(address),
        Interface::Any => Ok(match group {
            Some(SocketAddr::V6(group)) => group.scope_id(),
            _ => 0,
        }),
    }
}

fn index_of(address: IpAddr) -> io::Result<u32> {
    SystemInterfaces
        .interfaces()?
        .into_iter()
        .find(|interface| interface.address == address)
        .map(|interface| interface.index)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}
