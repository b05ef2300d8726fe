//! The conductor: serves client commands, tracks positions, owns the life cycle of every resource. It never blocks:
//! whatever needs a slow system call goes to the resource agent.

mod agent;
mod client_commands;
mod clients;
mod endpoints;
mod held;
mod liveness;
mod publications;
mod services;
mod sources;
mod subscriptions;

pub use agent::{Conductor, ConductorParts, OsSocketBuffers, TerminationHook};
