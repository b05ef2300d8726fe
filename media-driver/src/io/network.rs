//! The interfaces of the network.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use fulmar::agent::Doorbell;
use fulmar::agent::process::ProcessWatch;
use mio::unix::SourceFd;

use super::batch::{SendBatch, SendOutcome};
use super::readiness::{Mark, PROCESS, Readiness};
use super::receive::{ReceiveBatch, ReceiveOutcome};
use super::spec::SocketSpec;

/// Opens sockets. Shared by the agents; sockets are opened by the conductor and then belong to one network agent.
pub trait Network: Send + Sync {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`IoError`]; nothing stays open then.
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError>;
}

/// A socket. Closed by dropping it. All calls return at once.
pub trait UdpSocket: Send {
    /// Where it is bound: the address and port its datagrams come from, as far as known.
    fn local_address(&self) -> SocketAddr;

    /// Sends the datagrams of a batch, in order, until the first one that the system does not take. A run is sent in
    /// one piece where the system can do that, else datagram by datagram; the wire sees the same.
    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome;

    /// Takes what has come in, as much as the batch has room for. What was in the batch before is gone.
    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome;

    /// Gives a connected socket another peer, or connects one that was not.
    ///
    /// # Errors
    /// [`IoError`]; the old peer stays.
    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError>;

    /// Lets arriving datagrams wake a thread, until the socket is closed. At most once per socket.
    ///
    /// # Errors
    /// [`IoError`]; the thread then hears of datagrams when it looks by itself.
    fn register(&mut self, waiter: &Registration) -> Result<(), IoError>;

    /// The thread that used it is done with it, and calls this before another one closes it: whatever the socket has
    /// under way on this thread ends, so that its address is free once it is closed.
    fn release(&mut self) {}
}

/// Why a socket is not as it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}: {source}")]
pub struct IoError {
    /// What was tried, for instance `bind`.
    pub operation: &'static str,
    /// What with: an address or an option.
    pub subject: String,
    /// What the system says.
    pub source: io::Error,
}

impl IoError {
    /// An error of the system.
    pub fn new(operation: &'static str, subject: impl core::fmt::Display, source: io::Error) -> Self {
        Self {
            operation,
            subject: subject.to_string(),
            source,
        }
    }

    /// Whether the address is taken by another socket, so that another port may do.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Where sockets say which thread they wake. Cloning gives the same thread.
#[derive(Clone, Debug)]
pub struct Registration {
    thread: Option<Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    registry: Arc<mio::Registry>,
    readiness: Arc<Readiness>,
}

impl Registration {
    /// Of a thread that never blocks on sockets, or of no thread at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { thread: None }
    }

    /// Of the thread that waits for the poll of this registry.
    pub(super) fn of(registry: mio::Registry, readiness: Arc<Readiness>) -> Self {
        Self {
            thread: Some(Thread {
                registry: Arc::new(registry),
                readiness,
            }),
        }
    }

    /// Whether anybody is woken.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.thread.is_some()
    }

    /// Rings this bell, by way of the thread, when a process of [`Self::add_process`] has ended. The first bell stays.
    pub fn ring_for_processes(&self, bell: Doorbell) {
        if let Some(thread) = &self.thread {
            thread.readiness.ring_for_processes(bell);
        }
    }

    /// Lets the end of a process ring, as long as it is watched.
    ///
    /// # Errors
    /// What the system says; the process can then only be looked at.
    pub fn add_process(&self, watch: &ProcessWatch) -> io::Result<()> {
        let Some(thread) = &self.thread else {
            return Ok(());
        };
        // Closing the descriptor, which is never duplicated, takes it out of the poll again.
        let descriptor = watch.as_fd().as_raw_fd();
        thread
            .registry
            .register(&mut SourceFd(&descriptor), PROCESS, mio::Interest::READABLE)
    }

    /// Lets a descriptor wake the thread as long as it is open. Nothing is said about the socket behind it, which can
    /// be looked at without asking the system.
    pub(super) fn add_event(&self, fd: RawFd) -> io::Result<()> {
        let Some(thread) = &self.thread else {
            return Ok(());
        };
        // A ring holds it, too: once closed, it stays in the poll until the ring is torn down. Its token marks nothing.
        thread
            .registry
            .register(&mut SourceFd(&fd), Mark::token(None), mio::Interest::READABLE)
    }

    /// Lets a descriptor wake the thread as long as it is open. The socket gets a mark that says whether it is worth
    /// asking, if there is one left and anybody sets it.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<Option<Mark>> {
        let Some(thread) = &self.thread else {
            return Ok(None);
        };
        let mark = thread.readiness.take();
        let token = Mark::token(mark.as_ref());
        // Closing the descriptor, which is never duplicated, takes it out of the poll again.
        thread
            .registry
            .register(&mut SourceFd(&fd), token, mio::Interest::READABLE)?;
        Ok(mark)
    }
}
