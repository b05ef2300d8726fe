//! Partitions: what the broker knows of one beyond the bytes of its log.
//!
//! - [`producer_state`]: which batches of which producers are in the log already.
//! - [`producer_snapshot`]: the same, on disk.
#![forbid(unsafe_code)]

pub mod producer_snapshot;
pub mod producer_state;
