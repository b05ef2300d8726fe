//! Benchmarks of Fulmar: a workload is written once over the traits of [`side`] and runs on every implementation of
//! them, interleaved, in one process and with the same settings, so that a ratio of two figures means something even
//! on a machine with neighbours.

pub mod host;
pub mod ours;
pub mod recorder;
#[cfg(feature = "peer")]
pub mod reference;
pub mod report;
pub mod schedule;
pub mod side;
pub mod workload;

#[cfg(feature = "peer")]
#[path = "../../tools/peer/c_aeron.rs"]
pub mod c_aeron;
#[cfg(feature = "peer")]
#[path = "../../tools/peer/facts.rs"]
pub mod facts;
