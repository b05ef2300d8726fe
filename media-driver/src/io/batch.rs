//! Datagrams on their way out.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::log::Payload;

/// One datagram, or a run of datagrams that lie one after the other.
#[derive(Clone, Copy, Debug)]
pub struct SendEntry<'a> {
    /// What is sent. Shared memory: it may change while it is sent, which the system copes with.
    pub bytes: Payload<'a>,
    /// `Some(n)`: a run of datagrams of `n` bytes each, of which the last may be shorter. `None`: one datagram.
    pub segment_length: Option<u16>,
    /// Where it goes; `None` on a connected socket.
    pub to: Option<SocketAddr>,
}

impl<'a> SendEntry<'a> {
    /// One datagram.
    #[must_use]
    pub const fn datagram(bytes: Payload<'a>, to: Option<SocketAddr>) -> Self {
        Self {
            bytes,
            segment_length: None,
            to,
        }
    }

    /// A run of datagrams of `segment_length` bytes, the last of which may be shorter.
    #[must_use]
    pub const fn run(bytes: Payload<'a>, segment_length: u16, to: Option<SocketAddr>) -> Self {
        Self {
            bytes,
            segment_length: Some(segment_length),
            to,
        }
    }

    /// Bytes of each datagram but the last; 0 only for an empty datagram.
    #[must_use]
    pub fn step(&self) -> usize {
        match self.segment_length {
            Some(length) if length > 0 => usize::from(length).min(self.bytes.len()),
            _ => self.bytes.len(),
        }
    }

    /// Datagrams on the wire.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        match self.step() {
            0 => 1,
            step => self.bytes.len().div_ceil(step),
        }
    }

    /// The single datagrams, in order.
    pub fn split(&self) -> impl Iterator<Item = SendEntry<'a>> + use<'a> {
        let (entry, step) = (*self, self.step());
        (0..self.datagrams()).filter_map(move |index| {
            let at = index * step;
            let length = step.min(entry.bytes.len() - at);
            Some(SendEntry::datagram(entry.bytes.slice(at, length)?, entry.to))
        })
    }
}

/// What one call sends. Lives on the stack of one send pass.
#[derive(Debug)]
pub struct SendBatch<'a> {
    entries: [SendEntry<'a>; SendBatch::CAPACITY],
    length: usize,
}

impl<'a> SendBatch<'a> {
    /// Entries of a batch.
    pub const CAPACITY: usize = 16;
    /// Most datagrams of a run that the system takes in one entry; longer runs are sent in parts.
    pub const SEGMENTS_MAX: usize = 64;
    /// Most bytes of a run that the system takes in one entry: those of the largest IPv4 datagram.
    pub const RUN_LENGTH_MAX: usize = 65_507;

    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: [SendEntry::datagram(Payload::from_slice(&[]), None); Self::CAPACITY],
            length: 0,
        }
    }

    /// A batch with this one entry.
    #[must_use]
    pub const fn of(entry: SendEntry<'a>) -> Self {
        let mut batch = Self::new();
        batch.entries[0] = entry;
        batch.length = 1;
        batch
    }

    /// Adds an entry; `false`, and nothing added, when the batch is full.
    #[inline]
    pub fn push(&mut self, entry: SendEntry<'a>) -> bool {
        let Some(place) = self.entries.get_mut(self.length) else {
            return false;
        };
        *place = entry;
        self.length += 1;
        true
    }

    /// What is in it.
    #[must_use]
    pub fn entries(&self) -> &[SendEntry<'a>] {
        self.entries.get(..self.length).unwrap_or_default()
    }

    /// The same, to set addresses.
    #[must_use]
    pub fn entries_mut(&mut self) -> &mut [SendEntry<'a>] {
        self.entries.get_mut(..self.length).unwrap_or_default()
    }

    /// Entries in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether no entry fits any more.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.length == Self::CAPACITY
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Datagrams of all entries.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.entries().iter().map(SendEntry::datagrams).sum()
    }

    /// Bytes of all entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries().iter().map(|entry| entry.bytes.len()).sum()
    }
}

impl Default for SendBatch<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The system refused a datagram for another reason than lack of room or an unreachable peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram was not sent: {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct SendError {
    /// The system's number of the error.
    pub errno: i32,
}

/// How far a batch came. Datagrams go out in order: the first `datagrams` were taken by the system, the rest were
/// not. Fewer than the batch holds without an error means that there was no room, or that the peer was unreachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOutcome {
    /// Datagrams that the system took.
    pub datagrams: usize,
    /// Their bytes.
    pub bytes: usize,
    /// What stopped it, if that is worth a report.
    pub error: Option<SendError>,
}

impl SendOutcome {
    /// Whether datagrams were left over.
    #[must_use]
    pub fn is_short(&self, batch: &SendBatch<'_>) -> bool {
        self.datagrams < batch.datagrams()
    }
}
