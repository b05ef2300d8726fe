//! The state of one stream, split by the agent that owns it. IPC streams belong to the conductor alone.

pub mod ipc_publication;
pub mod subscribers;
