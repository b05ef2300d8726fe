//! The receiver: the agent that owns the sockets of subscriptions.

pub mod agent;
pub mod routes;

pub use agent::{ReceiverAgent, ReceiverParts};
