//! The conductor: serves client commands, tracks positions, owns the life cycle of every resource. It never blocks:
//! whatever needs a slow system call goes to the resource agent.

mod agent;
mod channels;
mod client_commands;
mod clients;
mod destinations;
mod endpoints;
mod held;
mod images;
mod liveness;
mod name_resolution;
mod network_publications;
mod outbox;
mod publications;
mod receive_endpoints;
mod repairs;
mod send_endpoints;
mod services;
mod sources;
mod subscriptions;
mod visits;

pub use agent::{CONDUCTOR_CAP_NS, Conductor, ConductorParts, OsSocketBuffers, TerminationHook};
