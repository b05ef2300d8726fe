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
    const EMPTY: Self = Self {
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
    buffers: Box<[u8]>,
    filled: Box<[Filled]>,
    /// Bit `n`: the n-th datagram of the buffer is not handed out.
    skipped: Box<[u128]>,
    /// Buffers in use.
    length: usize,
}

impl ReceiveBatch {
    /// Length of one buffer: no datagram and no run of datagrams is longer.
    pub const BUFFER_LENGTH: usize = 65_536;
    /// Most buffers of a batch.
    pub const CAPACITY_MAX: usize = 64;

    /// `capacity` buffers, at least 1 and at most [`Self::CAPACITY_MAX`]: so many datagrams, or runs of them, one call
    /// receives.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Self::CAPACITY_MAX);
        Self {
            buffers: vec![0; capacity * Self::BUFFER_LENGTH].into_boxed_slice(),
            filled: vec![Filled::EMPTY; capacity].into_boxed_slice(),
            skipped: vec![0; capacity].into_boxed_slice(),
            length: 0,
        }
    }

    /// Buffers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.filled.len()
    }

    /// The datagrams, oldest first, runs taken apart.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let filled = self.filled.get(..self.length).unwrap_or_default();
        filled
            .iter()
            .zip(&self.skipped)
            .zip(self.buffers.chunks_exact(Self::BUFFER_LENGTH))
            .flat_map(|((filled, skipped), buffer)| {
                let step = filled.step();
                (0..filled.datagrams())
                    .filter(move |index| *index >= 128 || skipped & (1 << index) == 0)
                    .filter_map(move |index| {
                        let end = (index + 1).saturating_mul(step).min(filled.length);
                        Some(Datagram {
                            bytes: buffer.get(index * step..end)?,
                            from: filled.from,
                            timestamp: filled.timestamp,
                        })
                    })
            })
    }

    /// Whether nothing came in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// For backends: forgets what is in it.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// For backends: the buffers, each [`Self::BUFFER_LENGTH`] long, to be filled from the first one on.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.buffers.chunks_exact_mut(Self::BUFFER_LENGTH)
    }

    /// For backends: says what is in the next buffer, after [`Self::clear`] the first one. `false` when there is none
    /// any more. Lengths are cut to the buffer.
    pub fn push(&mut self, filled: Filled) -> bool {
        let (Some(place), Some(skipped)) = (
            self.filled.get_mut(self.length),
            self.skipped.get_mut(self.length),
        ) else {
            return false;
        };
        *place = Filled {
            length: filled.length.min(Self::BUFFER_LENGTH),
            ..filled
        };
        *skipped = 0;
        self.length += 1;
        true
    }

    /// For wrappers: keeps the datagrams for which `keep` says so. Of a run, only the first 128 are asked about; no
    /// system hands out longer ones. Returns how many datagrams and bytes are left.
    pub fn retain(&mut self, mut keep: impl FnMut(&Datagram<'_>) -> bool) -> (usize, usize) {
        let (mut datagrams, mut bytes) = (0, 0);
        let buffers = self.buffers.chunks_exact(Self::BUFFER_LENGTH);
        let used = self.filled.iter().take(self.length);
        for ((filled, skipped), buffer) in used.zip(self.skipped.iter_mut()).zip(buffers) {
            let step = filled.step();
            for index in 0..filled.datagrams() {
                let is_skipped = index < 128 && *skipped & (1 << index) != 0;
                let end = (index + 1).saturating_mul(step).min(filled.length);
                let Some(part) = buffer.get(index * step..end).filter(|_| !is_skipped) else {
                    continue;
                };
                let datagram = Datagram {
                    bytes: part,
                    from: filled.from,
                    timestamp: filled.timestamp,
                };
                if index >= 128 || keep(&datagram) {
                    datagrams += 1;
                    bytes += part.len();
                } else {
                    *skipped |= 1 << index;
                }
            }
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
