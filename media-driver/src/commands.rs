//! What the agents say to each other: enums in bounded queues. A full queue is counted and retried, never waited for.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crossbeam_queue::ArrayQueue;
use fulmar::agent::Doorbell;
use fulmar::agent::process::{ProcessId, ProcessWatches};
use fulmar::control::ErrorCode;
use fulmar::id::{ClientId, RegistrationId};
use fulmar::log::{LogBuffers, LogInit};

use crate::media::resolver::{NameRequest, Resolution};

pub mod to_conductor;
pub mod to_receiver;
pub mod to_sender;

pub use to_conductor::{NetworkEvent, ResolveTarget, SetupSeen};
pub use to_receiver::{EndpointCommand, ReceiverCommand};
pub use to_sender::SenderCommand;

/// Entries of each queue between two agents.
pub const QUEUE_CAPACITY: usize = 1024;

/// The processes of clients that can be watched, each with its clients, oldest first. The resource agent opens and
/// closes the watches; the conductor, which is awake anyway, only looks whether one of them ended, and skips a look
/// rather than wait for the lock.
pub type Watches = Arc<Mutex<ProcessWatches<VecDeque<ClientId>>>>;

/// Names a send or receive channel endpoint within this driver; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// Names one transport of a receive endpoint, that is one socket of it; never used again within the endpoint. 0 is the
/// endpoint's own socket, others belong to receive destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportId(pub u32);

impl TransportId {
    /// The socket of an endpoint that is not under manual control.
    pub const OWN: Self = Self(0);
}

/// Conductor to resource agent: what needs slow system calls.
#[derive(Debug)]
pub enum ResourceCommand {
    /// Create, map and initialise a publication's log.
    CreateLog(Box<CreateLog>),
    /// Unmap and delete a log.
    DeleteLog(Box<DeleteLog>),
    /// Watch a client's process and report its death.
    Watch {
        /// The client.
        client_id: ClientId,
        /// Its process.
        process: ProcessId,
    },
    /// Stop watching a client's process.
    Unwatch {
        /// The client.
        client_id: ClientId,
    },
    /// Look names up, and list the network interfaces.
    Resolve(Box<Resolve>),
}

/// Names to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// Returned with the answers; the conductor knows by it what they are for.
    pub token: u64,
    /// The names; a literal address is answered too.
    pub names: Vec<NameRequest>,
    /// Whether the network interfaces are wanted.
    pub interfaces: bool,
}

/// A log to be made.
#[derive(Debug)]
pub struct CreateLog {
    /// Names the file.
    pub registration_id: RegistrationId,
    /// What its metadata will say.
    pub init: LogInit,
}

/// A log to be removed.
#[derive(Debug)]
pub struct DeleteLog {
    /// The file, as it was announced.
    pub path: String,
    /// The conductor's mapping, dropped by the resource agent.
    pub log: LogBuffers,
}

/// A log that is ready.
#[derive(Debug)]
pub struct CreatedLog {
    /// The mapped and initialised log.
    pub log: LogBuffers,
    /// Its file, as clients open it.
    pub path: String,
}

/// Why a resource could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceError {
    /// What the client is told.
    pub code: ErrorCode,
    /// Names the kind of error in the distinct error log, whatever numbers and paths the text holds.
    pub key: &'static str,
    /// In words, with the sizes where space is short.
    pub text: String,
}

/// Resource agent to conductor.
#[derive(Debug)]
pub enum ResourceEvent {
    /// Answers [`ResourceCommand::CreateLog`].
    LogCreated {
        /// Which one.
        registration_id: RegistrationId,
        /// The log, or why there is none.
        result: Result<Box<CreatedLog>, ResourceError>,
    },
    /// A log's file could not be deleted yet; it is tried again.
    DeleteFailed,
    /// A log went away; the mapping shrank by so many bytes.
    Unmapped {
        /// Bytes.
        length: u64,
    },
    /// A watched process has ended.
    ClientDied {
        /// The client it was.
        client_id: ClientId,
    },
    /// A process can not be watched from here; only its heartbeat tells.
    Unwatchable {
        /// The client.
        client_id: ClientId,
    },
    /// Answers [`ResourceCommand::Resolve`], not necessarily in the order of the requests.
    Resolved {
        /// That of the request.
        token: u64,
        /// The answers.
        resolution: Box<Resolution>,
        /// Time that the look-ups took, nanoseconds.
        took_ns: i64,
    },
    /// News of the name resolution between drivers.
    NameResolution(NameResolutionEvent),
    /// Something to put on record.
    Warning {
        /// In words.
        text: String,
    },
}

/// What the name resolution between drivers shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameResolutionEvent {
    /// It has a socket.
    Started {
        /// Where the socket is bound.
        bound: SocketAddr,
        /// Name of this driver.
        name: String,
    },
    /// The number of neighbours or of known names changed.
    Counts {
        /// Neighbours known.
        neighbors: usize,
        /// Names known.
        names: usize,
    },
    /// A bootstrap neighbour has an address, or another one than before.
    Bootstrap {
        /// Its place in the setting.
        index: usize,
        /// As configured.
        name: String,
        /// Its address.
        address: SocketAddr,
    },
    /// Datagrams that could not be read.
    InvalidPackets {
        /// How many.
        count: usize,
    },
}

/// One direction of the conversation: a queue and the bell of its reader.
#[derive(Debug)]
pub struct Lane<T> {
    queue: Arc<ArrayQueue<T>>,
    bell: Doorbell,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Lane<T> {
    /// A lane whose reader sleeps on `bell`.
    #[must_use]
    pub fn new(bell: Doorbell) -> Self {
        Self {
            queue: Arc::new(ArrayQueue::new(QUEUE_CAPACITY)),
            bell,
        }
    }

    /// Puts a message in and wakes the reader.
    ///
    /// # Errors
    /// Gives the message back when the queue is full.
    pub fn offer(&self, message: T) -> Result<(), T> {
        self.queue.push(message)?;
        self.bell.ring();
        Ok(())
    }

    /// Wakes the reader for something that it finds elsewhere.
    #[inline]
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// What wakes the reader.
    #[must_use]
    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }

    /// Takes the oldest message out.
    #[inline]
    #[must_use]
    pub fn poll(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether there is nothing to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Wakes the reader although nothing was put in: something it looks at by itself has changed.
    #[inline]
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// Messages that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }
}
