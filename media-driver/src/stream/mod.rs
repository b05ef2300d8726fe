//! The state of one stream, split by the agent that owns it. IPC streams belong to the conductor alone.

pub mod datagrams;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod image_conductor;
pub mod image_receiver;
pub mod image_shared;
pub mod ipc_publication;
mod pages_ahead;
pub mod position_counter;
pub mod publication_conductor;
pub mod publication_repair;
pub mod publication_sender;
pub mod publication_shared;
pub mod resting;
pub mod subscribers;
pub mod written_log;
