//! Deterministic simulation: the production agents on a virtual clock and a virtual network, from a seed.
//!
//! * [`prng`]: one stream of random numbers per purpose, so that a draw for one purpose never shifts those of another;
//! * [`clock`]: time that stands still until somebody moves it;
//! * [`network`]: hosts, sockets and links with faults, as a [`crate::io::Network`];
//! * [`plan`]: what a world is made of, and what is done to it;
//! * [`world`]: hosts with drivers and applications, and who has the next turn;
//! * [`workload`]: what the applications do;
//! * [`checkers`]: what must hold whatever happens;
//! * [`swarm`]: plans of worlds, drawn from a seed, or named (`scenarios`);
//! * `run`: one world from its plan to its report, also if it panics;
//! * [`report`]: what came of them.
//!
//! Two runs of one seed do the same: [`report::Report::trace`] is a hash over every turn that did something and over all
//! that happened on the network.
//!
//! What is absent: threads, the clocks and sockets of the system, and any order that depends on addresses in memory.
//! Only built with the feature `sim`.

pub mod checkers;
pub mod clock;
pub mod network;
pub mod plan;
pub mod prng;
pub mod report;
mod run;
mod scenarios;
pub mod swarm;
pub mod workload;
pub mod world;

pub use clock::VirtualClock;
pub use network::{Burst, CapturePoint, Link, NetworkStats, SimNetwork};
pub use prng::Prng;
