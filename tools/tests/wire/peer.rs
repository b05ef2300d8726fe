//! An endpoint made of one socket, for frames made by hand.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use fulmar::time::{NanoTime, SystemClock};

use super::frames::Frame;

#[expect(
    clippy::disallowed_types,
    reason = "the peer of a driver has a socket of its own"
)]
type Socket = std::net::UdpSocket;

/// How long anything may take: it bounds how long a failure takes and nothing else.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A datagram as it came.
#[derive(Clone)]
pub struct Captured {
    /// When the kernel got it, in nanoseconds.
    pub at: i64,
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Captured {
    pub fn frame(&self) -> Frame<'_> {
        Frame(&self.bytes)
    }
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.from, self.frame())
    }
}

/// A socket that sends and captures.
pub struct Peer {
    socket: Socket,
    buffer: Vec<u8>,
    /// The last datagrams, for the message of a failure.
    seen: VecDeque<String>,
}

impl Peer {
    /// On a free port of 127.0.0.1.
    pub fn new() -> Peer {
        Peer::at("127.0.0.1:0")
    }

    /// On this address; port 0 takes a free one.
    pub fn at(address: &str) -> Peer {
        let socket = Socket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Peer::of(socket)
    }

    /// A member of an IPv4 group on the loopback interface: it hears what is sent to `group`, and sends from its port.
    pub fn member(group: SocketAddr) -> Peer {
        let IpAddr::V4(address) = group.ip() else {
            panic!("{group} is not IPv4")
        };
        let peer = Peer::sharing(SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.port())));
        set(&peer.socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0);
        peer.socket
            .join_multicast_v4(&address, &Ipv4Addr::LOCALHOST)
            .expect("multicast on the loopback interface");
        peer.speak_on_loopback();
        peer
    }

    /// On an IPv4 address whose port others may bind as well.
    pub fn sharing(address: SocketAddr) -> Peer {
        let IpAddr::V4(ip) = address.ip() else {
            panic!("{address} is not IPv4")
        };
        // SAFETY: asks for a new descriptor.
        let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        assert!(descriptor >= 0, "a socket");
        // SAFETY: the descriptor is new and nobody else has it.
        let socket = unsafe { Socket::from_raw_fd(descriptor) };
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        let name = libc::sockaddr_in {
            sin_family: libc::AF_INET.try_into().expect("small"),
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(ip).to_be(),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: `name` is a valid address of the stated length for as long as the call runs.
        let bound = unsafe {
            let length = size_of::<libc::sockaddr_in>().try_into().expect("small");
            libc::bind(descriptor, (&raw const name).cast(), length)
        };
        assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
        Peer::of(socket)
    }

    fn of(socket: Socket) -> Peer {
        set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20);
        Peer {
            socket,
            buffer: vec![0; 1 << 16],
            seen: VecDeque::new(),
        }
    }

    /// Multicast of this socket goes out on the loopback interface.
    pub fn speak_on_loopback(&self) {
        let address = u32::from(Ipv4Addr::LOCALHOST).to_be();
        set(
            &self.socket,
            libc::IPPROTO_IP,
            libc::IP_MULTICAST_IF,
            i32::from_ne_bytes(address.to_ne_bytes()),
        );
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        // An answer "port unreachable" to an earlier datagram is reported by the next call; the call after it sends.
        for _ in 0..3 {
            match self.socket.send_to(bytes, to) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                sent => return assert_eq!(sent.expect("room to send"), bytes.len()),
            }
        }
        panic!("{to} refuses datagrams");
    }

    /// The next datagram, if one comes before `deadline`.
    fn receive(&mut self, deadline: NanoTime) -> Option<Captured> {
        loop {
            let left = deadline.since(SystemClock.nanos()).max(0) / 1000;
            let left = u64::try_from(left).expect("not negative");
            if !self.is_readable(left.div_ceil(1000)) {
                return None;
            }
            let Some(captured) = self.take() else { continue };
            if self.seen.len() == 12 {
                self.seen.pop_front();
            }
            self.seen.push_back(format!("{captured:?}"));
            return Some(captured);
        }
    }

    fn is_readable(&self, millis: u64) -> bool {
        let mut wait = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        // SAFETY: one valid, exclusively borrowed entry.
        unsafe { libc::poll(&raw mut wait, 1, millis) > 0 }
    }

    fn take(&mut self) -> Option<Captured> {
        let mut name = [0u64; size_of::<libc::sockaddr_storage>() / 8];
        let mut control = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: all zeros is a valid header without buffers; those are set below.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = size_of_val(&name).try_into().expect("small");
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: the header names valid, exclusively borrowed buffers of the stated lengths.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).ok()?;
        // SAFETY: the kernel filled `control` and `msg_controllen`; the macros stay within them. A timestamp message
        // holds a timespec, which may be unaligned. The kernel wrote the name of an internet socket.
        unsafe {
            let mut at = 0;
            let mut message = libc::CMSG_FIRSTHDR(&raw const header);
            while !message.is_null() {
                if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_TIMESTAMPNS
                {
                    let time = libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned();
                    at = time.tv_sec * 1_000_000_000 + time.tv_nsec;
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
            Some(Captured {
                at,
                from: address_of(name.as_ptr().cast()),
                bytes: self.buffer[..length].to_vec(),
            })
        }
    }

    /// Waits for the first datagram that is wanted; the others are dropped.
    #[track_caller]
    pub fn expect(&mut self, what: &str, mut wanted: impl FnMut(Frame<'_>) -> bool) -> Captured {
        self.until(what, |captured| wanted(captured.frame()))
            .pop()
            .expect("ends with it")
    }

    /// Everything up to and with the first datagram that is wanted.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Captured) -> bool) -> Vec<Captured> {
        let deadline = SystemClock.nanos() + PATIENCE;
        let mut all = Vec::new();
        while let Some(captured) = self.receive(deadline) {
            let is_last = wanted(&captured);
            all.push(captured);
            if is_last {
                return all;
            }
        }
        panic!("did not come: {what}; the last that came: {:#?}", self.seen);
    }

    /// Everything that comes within so many milliseconds.
    pub fn during(&mut self, millis: u64) -> Vec<Captured> {
        let deadline = SystemClock.nanos() + Duration::from_millis(millis);
        let mut all = Vec::new();
        while !deadline.is_due(SystemClock.nanos()) {
            all.extend(self.receive(deadline));
        }
        all
    }

    /// Everything that is already there.
    pub fn drain(&mut self) -> Vec<Captured> {
        std::iter::from_fn(|| self.receive(SystemClock.nanos())).collect()
    }
}

fn set(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the option takes an int, and `value` is one for as long as the call runs.
    let result = unsafe {
        let length = size_of::<libc::c_int>().try_into().expect("small");
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    assert_eq!(result, 0, "option {name}: {}", std::io::Error::last_os_error());
}

/// # Safety
/// `name` points to the name of an internet socket.
unsafe fn address_of(name: *const libc::sockaddr) -> SocketAddr {
    // SAFETY: by the caller's promise; the family says which of the two it is.
    unsafe {
        if i32::from((*name).sa_family) == libc::AF_INET {
            let name = &*name.cast::<libc::sockaddr_in>();
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            SocketAddr::new(address.into(), u16::from_be(name.sin_port))
        } else {
            let name = &*name.cast::<libc::sockaddr_in6>();
            SocketAddr::new(name.sin6_addr.s6_addr.into(), u16::from_be(name.sin6_port))
        }
    }
}
