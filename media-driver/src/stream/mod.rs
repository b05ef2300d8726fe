//! The state of one stream, split by the agent that owns it. IPC streams belong to the conductor alone.

pub mod image_receiver;
pub mod image_shared;
pub mod ipc_publication;
pub mod subscribers;
