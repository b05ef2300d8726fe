//! The sender: the agent that owns the sockets of publications.

pub mod agent;
pub mod round_robin;

pub use agent::{SenderAgent, SenderParts};
