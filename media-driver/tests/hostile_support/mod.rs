//! A hostile neighbourhood: sockets that send from a million addresses of the loopback network, and the datagrams they
//! send.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

pub(crate) mod frames;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, SockAddr, Socket, Type};

/// Ports that datagrams come from.
const PORTS: usize = 16;
/// Addresses that they come from, 127.77.0.0 up to 127.77.255.255.
const ADDRESSES: usize = 1 << 16;
/// Every one of them has every port.
pub(crate) const SOURCES: usize = PORTS * ADDRESSES;

/// One control message with a `struct in_pktinfo`: header of 16 bytes, interface, source address, header address, and
/// padding to 8.
const CONTROL_LENGTH: usize = 32;
const CONTROL_HEADER: u64 = 28;

/// What was sent from a source, and what came back to it, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    sent: u32,
    received: u32,
}

/// Many strangers in one.
pub(crate) struct Strangers {
    sockets: Vec<Socket>,
    accounts: Vec<Account>,
    /// Bytes that came back to one source or another.
    pub(crate) received: u64,
    /// Datagrams that left.
    pub(crate) datagrams: u64,
    /// Datagrams that the system did not take.
    pub(crate) refused: u64,
}

fn address_of(source: usize) -> Ipv4Addr {
    let host = source / PORTS;
    Ipv4Addr::new(127, 77, (host >> 8) as u8, host as u8)
}

/// `struct cmsghdr` and `struct in_pktinfo`, which give a datagram its source address.
fn packet_info(from: Ipv4Addr) -> [u8; CONTROL_LENGTH] {
    let mut control = [0; CONTROL_LENGTH];
    control[..8].copy_from_slice(&CONTROL_HEADER.to_ne_bytes());
    control[8..12].copy_from_slice(&libc::IPPROTO_IP.to_ne_bytes());
    control[12..16].copy_from_slice(&libc::IP_PKTINFO.to_ne_bytes());
    control[20..24].copy_from_slice(&from.octets());
    control
}

fn socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket
        .bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))))
        .unwrap();
    socket.set_nonblocking(true).unwrap();
    // As much as the system gives: what it drops here would be missing in the account.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(fd, level, name, value, length) reads `length` bytes of `value`, which lives through the call;
    // the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket
}

impl Strangers {
    pub(crate) fn new() -> Self {
        Self {
            sockets: (0..PORTS).map(|_| socket()).collect(),
            accounts: vec![Account::default(); SOURCES],
            received: 0,
            datagrams: 0,
            refused: 0,
        }
    }

    /// Sends one datagram from a source to somebody.
    pub(crate) fn send(&mut self, source: usize, to: &SockAddr, datagram: &[u8]) {
        let control = packet_info(address_of(source));
        let buffers = [IoSlice::new(datagram)];
        let message = MsgHdr::new()
            .with_addr(to)
            .with_buffers(&buffers)
            .with_control(&control);
        match self.sockets[source % PORTS].sendmsg(&message, 0) {
            Ok(sent) => {
                let account = &mut self.accounts[source];
                account.sent = account.sent.saturating_add(sent as u32);
                self.datagrams += 1;
            }
            Err(_) => self.refused += 1,
        }
    }

    /// Takes in what was answered, so much that an attack goes on.
    pub(crate) fn take_answers(&mut self) {
        for port in 0..PORTS {
            for _ in 0..256 {
                let Some((to, length)) = self.receive(port) else {
                    break;
                };
                let [127, 77, high, low] = to.octets() else {
                    continue;
                };
                let source = ((usize::from(high) << 8) | usize::from(low)) * PORTS + port;
                self.received += length as u64;
                let account = &mut self.accounts[source];
                account.received = account.received.saturating_add(length as u32);
            }
        }
    }

    /// A datagram that came to one of the ports: the address it came to, and its length.
    fn receive(&self, port: usize) -> Option<(Ipv4Addr, usize)> {
        let mut bytes = [MaybeUninit::new(0u8); 2048];
        let mut control = [MaybeUninit::new(0u8); 64];
        let mut buffers = [MaybeUninitSlice::new(&mut bytes)];
        let mut message = MsgHdrMut::new()
            .with_buffers(&mut buffers)
            .with_control(&mut control);
        // The length on the wire, even if the buffer is shorter.
        let length = self.sockets[port].recvmsg(&mut message, libc::MSG_TRUNC).ok()?;
        // SAFETY: every byte was initialised above, and the system only writes initialised ones over them.
        let control = control.map(|byte| unsafe { byte.assume_init() });
        Some((
            Ipv4Addr::new(control[24], control[25], control[26], control[27]),
            length,
        ))
    }

    /// Sources that sent anything.
    pub(crate) fn sources_used(&self) -> usize {
        self.accounts.iter().filter(|account| account.sent > 0).count()
    }

    /// The source that got most for what it sent: the factor, and what it sent and got.
    pub(crate) fn worst_amplification(&self) -> (f64, u32, u32) {
        let factor = |account: &Account| f64::from(account.received) / f64::from(account.sent.max(1));
        let worst = self
            .accounts
            .iter()
            .max_by(|one, other| factor(one).total_cmp(&factor(other)))
            .unwrap();
        (factor(worst), worst.sent, worst.received)
    }
}
