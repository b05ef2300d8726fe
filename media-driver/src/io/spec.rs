//! What a socket is to be.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Mostly sends: a publication's socket. Its receives are control frames.
    Send,
    /// Mostly receives: a subscription's socket. Its sends are control frames.
    Receive,
}

/// An interface of this machine, as far as multicast needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Whichever the system takes.
    Any,
    /// By number.
    Index(u32),
    /// The one that has this address.
    Address(IpAddr),
}

/// A multicast group to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group; the port is ignored.
    pub group: SocketAddr,
    /// Where to join.
    pub interface: Interface,
}

/// What a socket is to be. Built by [`SocketSpec::new`] and changed field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// What it is for.
    pub role: SocketRole,
    /// Where it is bound; port 0 takes any free one.
    pub bind: SocketAddr,
    /// Its only peer, if it has one: other senders are not heard, and an unreachable peer is noticed.
    pub connect: Option<SocketAddr>,
    /// The group it listens to. The socket hears this group only, not those that other sockets of this machine
    /// joined.
    pub join: Option<Join>,
    /// Where its multicast datagrams go out; [`Interface::Any`] leaves that to the system.
    pub outgoing_interface: Interface,
    /// Whether several sockets may be bound to the same address, as members of a group on one machine must.
    pub reuse_address: bool,
    /// Hops of its multicast datagrams; `None` leaves the system's default.
    pub ttl: Option<u8>,
    /// Length of the send buffer, bytes; 0 leaves the system's default.
    pub send_buffer: usize,
    /// Length of the receive buffer, bytes; 0 leaves the system's default.
    pub receive_buffer: usize,
    /// Whether the system notes when each datagram arrived.
    pub receive_timestamps: bool,
}

impl SocketSpec {
    /// A plain socket bound to `bind`.
    #[must_use]
    pub fn new(role: SocketRole, bind: SocketAddr) -> Self {
        Self {
            role,
            bind,
            connect: None,
            join: None,
            outgoing_interface: Interface::Any,
            reuse_address: false,
            ttl: None,
            send_buffer: 0,
            receive_buffer: 0,
            receive_timestamps: false,
        }
    }

    /// A socket for sending to `to`, from any local address and port.
    #[must_use]
    pub fn sender_to(to: SocketAddr) -> Self {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::new(SocketRole::Send, SocketAddr::new(any, 0))
    }
}
