//! The system's sockets: socket2 for making them, sendmmsg and recvmmsg for moving datagrams, with GSO and GRO where
//! the system has them, readiness by mio; on request, receiving by io_uring.

mod address;
mod open;
mod receive;
mod send;
mod uring;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use fulmar::sync::{Arc, AtomicBool, Ordering};
use receive::{Received, Share};
use socket2::{SockAddr, Socket};
use uring::UringSocket;

use super::batch::{SendBatch, SendOutcome};
use super::network::{IoError, Network, Registration, UdpSocket};
use super::readiness::Mark;
use super::receive::{ReceiveBatch, ReceiveOutcome};
use super::spec::{SocketRole, SocketSpec};

/// What all sockets of a [`SystemNetwork`] have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemOptions {
    /// How long a look at an empty socket lets the system poll the device, microseconds; 0 leaves that to the system.
    pub busy_poll_us: u32,
    /// Whether sockets receive by `io_uring`, where the system lets them.
    pub uring: bool,
}

/// The network of this machine.
#[derive(Debug, Default)]
pub struct SystemNetwork {
    options: SystemOptions,
    warned: Warned,
}

impl SystemNetwork {
    /// With these options. Without `io_uring`, after a warning, if the system does not have it or a sandbox refuses it.
    #[must_use]
    pub fn new(mut options: SystemOptions) -> Self {
        if options.uring
            && let Err(error) = uring::probe()
        {
            eprintln!("fulmar driver: io_uring can not be used, sockets receive by recvmmsg: {error}");
            options.uring = false;
        }
        if options.uring && options.busy_poll_us > 0 {
            eprintln!("fulmar driver: fulmar.socket.busy.poll has no effect with fulmar.io=uring");
            options.busy_poll_us = 0;
        }
        Self {
            options,
            warned: Warned::default(),
        }
    }

    /// Whether sockets receive by `io_uring`.
    #[must_use]
    pub fn uses_uring(&self) -> bool {
        self.options.uring
    }

    fn set_busy_poll(&self, socket: &Socket) {
        let microseconds = self.options.busy_poll_us;
        if microseconds == 0 {
            return;
        }
        let said = &self.warned.busy_poll;
        if let Err(error) = open::busy_poll(socket, microseconds) {
            warn_once(said, || format!("fulmar.socket.busy.poll has no effect: {error}"));
        } else if let Err(error) = open::prefer_busy_poll(socket) {
            warn_once(said, || {
                format!("network devices that are polled go on interrupting: {error}")
            });
        }
    }
}

impl Network for SystemNetwork {
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        let socket = SystemSocket::open(spec)?;
        if let Some((asked, given)) = open::short_receive_buffer(&socket.socket, spec) {
            warn_once(&self.warned.receive_buffer, || {
                format!(
                    "sockets have receive buffers of {given} bytes instead of {asked}, so that a window's worth of \
                     data may not fit: raise net.core.rmem_max"
                )
            });
        }
        self.set_busy_poll(&socket.socket);
        if self.options.uring {
            let warned = Arc::clone(&self.warned.uring);
            return Ok(Box::new(UringSocket::new(socket, warned)));
        }
        Ok(Box::new(socket))
    }
}

/// What was said already: it holds for every further socket, too.
#[derive(Debug, Default)]
struct Warned {
    receive_buffer: AtomicBool,
    busy_poll: AtomicBool,
    uring: Arc<AtomicBool>,
}

fn warn_once(said: &AtomicBool, text: impl FnOnce() -> String) {
    if !said.swap(true, Ordering::Relaxed) {
        eprintln!("fulmar driver: {}", text());
    }
}

/// A socket of the system.
#[derive(Debug)]
pub struct SystemSocket {
    socket: Socket,
    local: SocketAddr,
    /// Whether runs of datagrams go out in one piece. Found out when the socket is opened, given up for good when
    /// the system refuses one: routes differ in what they can do.
    gso: bool,
    /// Whether it is never connected.
    is_receiver: bool,
    /// Whether the system may hand in runs of datagrams.
    gro: bool,
    /// Says whether it is worth asking for datagrams, on a thread with many sockets.
    mark: Option<Mark>,
    /// Whether datagrams that arrive wake a thread, with a mark or without one.
    is_registered: bool,
    /// Whether the last look found it empty: what comes next comes alone, mostly.
    was_empty: bool,
}

impl SystemSocket {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`IoError`] with the step that failed.
    pub fn open(spec: &SocketSpec) -> Result<Self, IoError> {
        let socket = open::open(spec)?;
        let local = local_address(&socket)?;
        let gso = send::has_gso(&socket);
        // Control frames, too: a receiver with many streams of an endpoint sends its own in runs.
        let gro = receive::enable_gro(&socket);
        Ok(Self {
            socket,
            local,
            gso,
            is_receiver: spec.role == SocketRole::Receive,
            gro,
            mark: None,
            is_registered: false,
            was_empty: false,
        })
    }

    /// Whether runs of datagrams go out in one piece, as far as known by now.
    #[must_use]
    pub fn sends_runs(&self) -> bool {
        self.gso
    }

    /// Whether runs of datagrams come in in one piece.
    #[must_use]
    pub fn receives_runs(&self) -> bool {
        self.gro
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl UdpSocket for SystemSocket {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        send::send(self.fd(), &mut self.gso, batch)
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        if self.mark.as_ref().is_some_and(|mark| !mark.may_be_ready()) {
            into.clear();
            return ReceiveOutcome::default();
        }
        // A thread that sockets wake may sleep after a batch that is not full: what was left would not wake it. Where
        // nobody is woken the outcome says that more may be waiting.
        let share = if self.was_empty && !self.is_registered {
            Share::One
        } else {
            Share::All
        };
        let received = receive::receive(self.fd(), into, share);
        self.was_empty = matches!(received, Received::Nothing);
        match received {
            Received::Nothing => {
                if let Some(mark) = &self.mark {
                    mark.clear();
                }
                ReceiveOutcome::default()
            }
            Received::Some(outcome) => {
                // The system had no more, and what comes now is an event of its own. Not so for a socket that is
                // connected: an error of an earlier send ends a batch, too.
                if self.is_receiver
                    && !outcome.is_full
                    && outcome.error.is_none()
                    && outcome.datagrams > 0
                    && let Some(mark) = &self.mark
                {
                    mark.clear();
                }
                outcome
            }
        }
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.socket
            .connect(&SockAddr::from(to))
            .map_err(|error| IoError::new("connect to", to, error))?;
        self.local = local_address(&self.socket)?;
        Ok(())
    }

    fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        self.mark = waiter
            .add(self.fd())
            .map_err(|error| IoError::new("wait for", self.local, error))?;
        self.is_registered = waiter.is_some();
        Ok(())
    }
}

fn local_address(socket: &Socket) -> Result<SocketAddr, IoError> {
    let address = socket
        .local_addr()
        .map_err(|error| IoError::new("ask for the address of", "a socket", error))?;
    address.as_socket().ok_or_else(|| {
        let error = std::io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        IoError::new("ask for the address of", "a socket", error)
    })
}

/// Sets an option that socket2 has no function for.
fn set_option<T: Copy>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> std::io::Result<()> {
    // SAFETY: setsockopt(fd, level, name, value, length) reads `length` bytes of `value`, which live through the call;
    // the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fulmar::log::Payload;

    use super::super::batch::SendEntry;
    use super::super::conformance::{self, collect, local, pair};
    use super::super::readiness::Readiness;
    use super::*;

    #[test]
    fn the_system_passes_the_conformance_suite() {
        conformance::check(&SystemNetwork::default());
    }

    #[test]
    fn io_uring_passes_the_conformance_suite() {
        let network = SystemNetwork::new(SystemOptions {
            uring: true,
            ..SystemOptions::default()
        });
        if !network.uses_uring() {
            eprintln!("skipped: this system has no io_uring, or not all of it");
            return;
        }
        conformance::check(&network);
    }

    #[test]
    fn io_uring_does_without_busy_polling() {
        let network = SystemNetwork::new(SystemOptions {
            busy_poll_us: 50,
            uring: true,
        });
        let expected = if network.uses_uring() { 0 } else { 50 };
        assert_eq!(network.options.busy_poll_us, expected);
    }

    /// A run of 30 datagrams and what of it has to arrive.
    fn run(bytes: &[u8], to: SocketAddr) -> SendBatch<'_> {
        SendBatch::of(SendEntry::run(Payload::from_slice(bytes), 1408, Some(to)))
    }

    /// A look at an empty socket, then one at a socket with three datagrams; how many the second brought.
    fn brought_after_an_empty_look(registration: &Registration) -> usize {
        let mut receiver = SystemSocket::open(&local(Ipv4Addr::LOCALHOST.into())).unwrap();
        receiver.register(registration).unwrap();
        let to = receiver.local_address();
        let mut sender = SystemSocket::open(&SocketSpec::sender_to(to)).unwrap();
        let mut batch = ReceiveBatch::new(4);
        assert_eq!(receiver.receive(&mut batch), ReceiveOutcome::default());
        for bytes in [[1], [2], [3]] {
            let outcome = conformance::send(&mut sender, &bytes, Some(to));
            assert_eq!(outcome.datagrams, 1, "{outcome:?}");
        }
        let first = receiver.receive(&mut batch);
        let rest = receiver.receive(&mut batch).datagrams;
        assert_eq!(first.datagrams + rest, 3);
        assert_eq!(first.is_full, rest > 0, "whether more is waiting");
        first.datagrams
    }

    #[test]
    fn a_socket_that_wakes_a_thread_leaves_nothing_behind_also_without_a_mark() {
        let poll = mio::Poll::new().unwrap();
        let readiness = Readiness::new();
        let registry = poll.registry().try_clone().unwrap();
        let registration = Registration::of(registry, Arc::clone(&readiness));
        assert_eq!(brought_after_an_empty_look(&registration), 3);
        let marks: Vec<Mark> = core::iter::from_fn(|| readiness.take()).collect();
        assert!(!marks.is_empty());
        assert_eq!(brought_after_an_empty_look(&registration), 3);
        assert_eq!(
            brought_after_an_empty_look(&Registration::none()),
            1,
            "by the cheapest call"
        );
    }

    #[test]
    fn a_refused_run_goes_out_in_single_datagrams_and_the_socket_remembers() {
        let ip = Ipv4Addr::LOCALHOST.into();
        let mut receiver = SystemSocket::open(&local(ip)).unwrap();
        let mut sender = SystemSocket::open(&local(ip)).unwrap();
        if !sender.sends_runs() {
            eprintln!("skipped: this system has no UDP_SEGMENT");
            return;
        }
        // The system refuses runs on a socket that sends without checksums, as some devices do always.
        let on: libc::c_int = 1;
        set_option(&sender.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, on).unwrap();
        let bytes: Vec<u8> = (0..30 * 1408 - 500).map(|at| (at % 249) as u8).collect();
        for _ in 0..2 {
            let outcome = sender.send(&run(&bytes, receiver.local_address()));
            assert_eq!(
                (outcome.datagrams, outcome.bytes, outcome.error),
                (30, bytes.len(), None)
            );
            assert!(!sender.sends_runs());
            let got = collect(&mut receiver, &mut ReceiveBatch::new(16), 30);
            assert!(got.iter().map(|(bytes, _)| &bytes[..]).eq(bytes.chunks(1408)));
        }
    }

    #[test]
    fn a_run_crosses_the_loopback_in_one_piece() {
        let ip = Ipv4Addr::LOCALHOST.into();
        let mut receiver = SystemSocket::open(&local(ip)).unwrap();
        let mut sender = SystemSocket::open(&local(ip)).unwrap();
        if !sender.sends_runs() || !receiver.receives_runs() {
            eprintln!("skipped: this system has no UDP_SEGMENT or no UDP_GRO");
            return;
        }
        let bytes: Vec<u8> = (0..30 * 1408 - 500).map(|at| (at % 249) as u8).collect();
        assert_eq!(sender.send(&run(&bytes, receiver.local_address())).datagrams, 30);
        // One buffer is enough for the whole run.
        let mut batch = ReceiveBatch::new(1);
        let outcome = receiver.receive(&mut batch);
        assert_eq!((outcome.datagrams, outcome.bytes), (30, bytes.len()));
        assert!(
            batch
                .datagrams()
                .map(|datagram| datagram.bytes)
                .eq(bytes.chunks(1408))
        );
    }

    #[test]
    fn a_receive_buffer_that_the_system_cuts_is_noticed() {
        let spec = |receive_buffer| SocketSpec {
            receive_buffer,
            ..local(Ipv4Addr::LOCALHOST.into())
        };
        let short = |spec: &SocketSpec| {
            let socket = SystemSocket::open(spec).unwrap();
            open::short_receive_buffer(&socket.socket, spec)
        };
        assert_eq!(short(&spec(0)), None);
        assert_eq!(short(&spec(64 << 10)), None);
        let most = i32::MAX as usize;
        let (asked, given) = short(&spec(most)).unwrap();
        assert!(asked == most && given < most && given > 0, "{given}");
    }

    #[test]
    fn busy_polling_is_set_or_refused_and_never_in_the_way() {
        let network = SystemNetwork::new(SystemOptions {
            busy_poll_us: 50,
            ..SystemOptions::default()
        });
        conformance::check(&network);
        let socket = SystemSocket::open(&local(Ipv4Addr::LOCALHOST.into())).unwrap();
        match open::busy_poll(&socket.socket, 50) {
            Ok(()) => assert_eq!(open::busy_poll_of(&socket.socket).unwrap(), 50),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
    }

    #[test]
    fn a_sender_takes_control_frames_in_runs_where_the_system_has_them() {
        let (sender, receiver) = pair(&SystemNetwork::default(), Ipv4Addr::LOCALHOST.into());
        drop(sender);
        let spec = SocketSpec::sender_to(receiver.local_address());
        let sender = SystemSocket::open(&spec).unwrap();
        let has_runs = receive::enable_gro(&sender.socket);
        assert_eq!(sender.receives_runs(), has_runs);
    }
}
