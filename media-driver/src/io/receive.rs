//! Datagrams that came in.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// A datagram that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Its bytes, private memory of this process.
    pub bytes: &'a [u8],
    /// Who sent it, as it says.
    pub from: SocketAddr,
    /// When the system got it, nanoseconds since 1970; only with [`super::SocketSpec::receive_timestamps`].
    pub timestamp: Option<i64>,
}

/// What a backend put into one buffer of a [`ReceiveBatch`].
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Bytes in the buffer.
    pub length: usize,
    /// `Some(n)`: datagrams of `n` bytes each, the last of which may be shorter. `None`: one datagram.
    pub segment_length: Option<usize>,
    /// Who sent it.
    pub from: SocketAddr,
    /// When the system got it, nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

impl Filled {
    /// Nothing, of nobody: also what is handed out for a datagram whose sender the system could not name.
    pub(super) const EMPTY: Self = Self {
        length: 0,
        segment_length: None,
        from: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        timestamp: None,
    };

    fn step(&self) -> usize {
        match self.segment_length {
            Some(length) if length > 0 => length.min(self.length),
            _ => self.length,
        }
    }

    /// Datagrams in the buffer.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        match self.step() {
            0 => 1,
            step => self.length.div_ceil(step),
        }
    }
}

/// Buffers for what one call receives; made once, used for every call. Memory of a buffer is only taken when a long
/// datagram or run comes in.
#[derive(Debug)]
pub struct ReceiveBatch {
    slots: Box<[Slot]>,
    /// Buffers in use.
    length: usize,
}

/// One buffer and what is in it.
#[derive(Debug)]
struct Slot {
    /// [`ReceiveBatch::STORAGE_LENGTH`] bytes.
    storage: Box<[u8]>,
    /// Where the datagrams begin.
    start: usize,
    filled: Filled,
    /// Bit `n`: the n-th datagram of the buffer is not handed out.
    skipped: u128,
}

impl Slot {
    fn new() -> Self {
        Self {
            storage: ReceiveBatch::storage(),
            start: 0,
            filled: Filled::EMPTY,
            skipped: 0,
        }
    }

    fn is_skipped(&self, index: usize) -> bool {
        index < 128 && self.skipped & (1 << index) != 0
    }

    /// The n-th datagram of the buffer, whether it is skipped or not.
    fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let filled = &self.filled;
        let step = filled.step();
        let end = (index + 1).saturating_mul(step).min(filled.length);
        Some(Datagram {
            bytes: self.storage.get(self.start..)?.get(index * step..end)?,
            from: filled.from,
            timestamp: filled.timestamp,
        })
    }
}

impl ReceiveBatch {
    /// Length of one buffer: no datagram and no run of datagrams is longer.
    pub const BUFFER_LENGTH: usize = 65_536;
    /// Most buffers of a batch.
    pub const CAPACITY_MAX: usize = 64;
    /// Most bytes that a backend may put in front of the datagrams of a buffer.
    pub(super) const HEADROOM: usize = 192;
    /// Bytes of a buffer with its headroom.
    pub(super) const STORAGE_LENGTH: usize = Self::HEADROOM + Self::BUFFER_LENGTH;

    /// `capacity` buffers, at least 1 and at most [`Self::CAPACITY_MAX`]: so many datagrams, or runs of them, one call
    /// receives.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Self::CAPACITY_MAX);
        Self {
            slots: (0..capacity).map(|_| Slot::new()).collect(),
            length: 0,
        }
    }

    /// A buffer with its headroom.
    pub(super) fn storage() -> Box<[u8]> {
        vec![0; Self::STORAGE_LENGTH].into_boxed_slice()
    }

    /// Buffers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The datagrams, oldest first, runs taken apart.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let slots = self.slots.get(..self.length).unwrap_or_default();
        slots.iter().flat_map(|slot| {
            (0..slot.filled.datagrams())
                .filter(|index| !slot.is_skipped(*index))
                .filter_map(|index| slot.datagram(index))
        })
    }

    /// Whether nothing came in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether every buffer is in use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.length == self.slots.len()
    }

    /// For backends: forgets what is in it.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// For backends: the buffers, each [`Self::BUFFER_LENGTH`] long, to be filled from the first one on.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.storage.get_mut(..Self::BUFFER_LENGTH))
    }

    /// For backends: says what is in the next buffer, after [`Self::clear`] the first one. `false` when there is none
    /// any more. Lengths are cut to the buffer.
    pub fn push(&mut self, filled: Filled) -> bool {
        let Some(slot) = self.slots.get_mut(self.length) else {
            return false;
        };
        slot.filled = Filled {
            length: filled.length.min(Self::BUFFER_LENGTH),
            ..filled
        };
        slot.start = 0;
        slot.skipped = 0;
        self.length += 1;
        true
    }

    /// For backends with buffers of their own: takes a filled one of [`Self::STORAGE_LENGTH`] bytes, whose datagrams
    /// begin at `start`, and leaves the next of its own in its place. `false`, and nothing done, when there is none any
    /// more or the other has another length.
    pub(super) fn exchange(&mut self, storage: &mut Box<[u8]>, start: usize, filled: Filled) -> bool {
        if storage.len() != Self::STORAGE_LENGTH || start > Self::HEADROOM || !self.push(filled) {
            return false;
        }
        if let Some(slot) = self.slots.get_mut(self.length - 1) {
            core::mem::swap(&mut slot.storage, storage);
            slot.start = start;
        }
        true
    }

    /// For wrappers: keeps the datagrams for which `keep` says so. Of a run, only the first 128 are asked about; no
    /// system hands out longer ones. Returns how many datagrams and bytes are left.
    pub fn retain(&mut self, mut keep: impl FnMut(&Datagram<'_>) -> bool) -> (usize, usize) {
        let (mut datagrams, mut bytes) = (0, 0);
        for slot in self.slots.iter_mut().take(self.length) {
            let mut skipped = slot.skipped;
            for index in 0..slot.filled.datagrams() {
                let Some(datagram) = slot.datagram(index).filter(|_| !slot.is_skipped(index)) else {
                    continue;
                };
                if index >= 128 || keep(&datagram) {
                    datagrams += 1;
                    bytes += datagram.bytes.len();
                } else {
                    skipped |= 1 << index;
                }
            }
            slot.skipped = skipped;
        }
        (datagrams, bytes)
    }
}

/// The system failed to receive, for another reason than that there was nothing or the peer was unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("receiving failed: {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct ReceiveError {
    /// The system's number of the error.
    pub errno: i32,
}

/// What a receive call brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOutcome {
    /// Datagrams.
    pub datagrams: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Whether more may be waiting: every buffer was filled.
    pub is_full: bool,
    /// What went wrong, if that is worth a report.
    pub error: Option<ReceiveError>,
}
