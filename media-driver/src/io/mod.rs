//! The only folder that may name a socket: opening them, moving datagrams in batches, waiting for them.
//!
//! [`Network`] opens, [`UdpSocket`] moves. One virtual call is made per
//! batch, that is per system call, not per datagram. A pass over a [`SendBatch`] or a [`ReceiveBatch`] allocates
//! nothing.
//!
//! What is absent: names (see `media`), frames (see `fulmar::wire`) and decisions (see `protocol`).

pub mod batch;
pub mod capture;
#[cfg(test)]
pub(crate) mod conformance;
pub mod fault;
pub mod interfaces;
pub mod network;
mod readiness;
pub mod receive;
pub mod spec;
pub mod system;
pub mod waiter;

pub use batch::{SendBatch, SendEntry, SendError, SendOutcome};
pub use capture::CaptureNetwork;
pub use fault::{FaultError, FaultNetwork, FaultRules, FaultSettings};
pub use interfaces::{InterfaceList, NetworkInterface, SystemInterfaces};
pub use network::{IoError, Network, Registration, UdpSocket};
pub use receive::{Datagram, Filled, ReceiveBatch, ReceiveError, ReceiveOutcome};
pub use spec::{Interface, Join, SocketRole, SocketSpec};
pub use system::{SystemNetwork, SystemOptions};
pub use waiter::{WaitCap, Waiting};
