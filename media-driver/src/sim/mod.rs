//! Deterministic simulation: the production agents on a virtual clock and a virtual network, from a seed.
//!
//! * [`prng`]: one stream of random numbers per purpose, so that a draw for one purpose never shifts those of another;
//! * [`clock`]: time that stands still until somebody moves it;
//! * [`network`]: hosts, sockets and links with faults, as a [`crate::io::Network`].
//!
//! Two runs of one seed do the same: [`network::SimNetwork::trace`] hashes all that happened on the network.
//!
//! What is absent: threads, the clocks and sockets of the system, and any order that depends on addresses in memory.
//! Only built with the feature `sim`.

pub mod clock;
pub mod network;
pub mod prng;

pub use clock::VirtualClock;
pub use network::{Burst, CapturePoint, Link, NetworkStats, SimNetwork};
pub use prng::Prng;
