//! Counters: 64-bit values in shared memory with a type, a key and a label, by which driver, clients and tools see
//! positions, statistics and each other (shared-memory spec 5).
//!
//! The driver conductor allocates and frees ([`CountersManager`]); everybody reads ([`CountersReader`]); whoever owns
//! a value writes it ([`Counter`]).
#![forbid(unsafe_code)]

pub mod counter;
pub mod label;
pub mod layout;
pub mod manager;
pub mod reader;
pub mod system;
pub mod type_id;

#[cfg(all(test, not(loom)))]
mod tests;

pub use counter::{Counter, CounterLease};
pub use manager::CountersManager;
pub use reader::{CounterRecord, CountersReader};
pub use system::SystemCounter;

/// State of a counter's record (spec 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterState {
    /// Never used; ends a scan.
    Unused,
    /// Live.
    Allocated,
    /// Freed; its id will be used again.
    Reclaimed,
}

/// Why counters could not be opened or a counter could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountersError {
    /// The sections are too short for a single counter, or the metadata section is shorter than the values need.
    #[error("counter sections of {metadata_length} and {values_length} bytes do not fit together")]
    BadLength {
        /// Length of the metadata section, bytes.
        metadata_length: usize,
        /// Length of the values section, bytes.
        values_length: usize,
    },
    /// Every id is in use or not free long enough.
    #[error("no counter id is free, of {capacity}")]
    Full {
        /// Ids that could be in use at one time.
        capacity: usize,
    },
}
