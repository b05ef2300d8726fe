//! How commands reach the driver and how events come back: a ring that many clients write and the driver reads, and
//! a broadcast that the driver writes and every client reads (shared-memory spec 3 and 4).
//!
//! Both carry the same records ([`record`]). Nothing found in them is trusted: a length is a number to be checked,
//! a message is handed on as a private copy, and content that can not be is reported, skipped and never followed.

pub mod broadcast_rx;
pub mod broadcast_tx;
pub mod mpsc_ring;
pub mod record;
pub mod unblock;

#[cfg(all(test, not(loom)))]
mod tests;

pub use broadcast_rx::{BroadcastReceiver, Lapped};
pub use broadcast_tx::BroadcastTransmitter;
pub use mpsc_ring::{Claim, ManyToOneRing, ReadAction, RingCorrupt};

/// Why a ring or broadcast could not be opened, or why a message did not go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The region is no power of two plus its trailer (spec 3.1 and 4.1).
    #[error("a region of {length} bytes is no power of two plus a trailer")]
    BadLength {
        /// Length of the region, bytes.
        length: usize,
    },
    /// The consumer has to make room first; worth a retry.
    #[error("the ring is full")]
    Full,
    /// The message is longer than an eighth of the capacity.
    #[error("a message of {length} bytes is longer than the maximum of {max_length}")]
    TooLong {
        /// Length of the message, bytes.
        length: usize,
        /// The most that goes in, bytes.
        max_length: usize,
    },
    /// This thread was stopped for so long between claim and commit that the driver turned its record into padding.
    /// The message was not sent; worth a retry.
    #[error("the claimed record was taken away by the driver")]
    Revoked,
    /// The positions in the trailer can not be: somebody scribbled over them. The driver repairs them.
    #[error("the positions of the ring are corrupt")]
    Corrupt,
}
