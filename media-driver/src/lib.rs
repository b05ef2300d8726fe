//! Fulmar's media driver: what moves messages between clients, over shared memory and over UDP.
//!
//! Agents, each with a duty cycle and its own state: the [`conductor`] serves client commands and tracks positions, the
//! [`sender`] and the [`receiver`] own the sockets, the [`resources`] agent makes the slow system calls. They talk
//! through bounded queues ([`commands`]). Pure decisions live in [`protocol`], the state of a stream in [`stream`],
//! channels and endpoints in [`media`], sockets in [`io`], settings in [`config`]; [`driver`] puts it all together.
//!
//! Invariants:
//! - The conductor never blocks: no file, map or name look-up outside `resources`. It has pages of a log that is written for the first
//!   time made ready (`stream::pages_ahead`), a few at a time, which is shorter than a hand-over.
//! - Network threads neither map nor unmap nor close: what they own comes from the conductor in boxes and goes back there,
//!   except that with `fulmar.io=uring` a socket's ring is made by the thread that receives, the only one that may enter
//!   it, and given up by it if it fails.
//! - `protocol` and `stream` read no clock, open nothing and start no thread.
//! - Whatever another process writes to shared memory, or a peer to the network: no undefined behaviour, no panic, no unbounded work.

pub mod commands;
pub mod conductor;
pub mod config;
pub mod driver;
mod identity;
pub mod io;
pub mod media;
pub mod network_counters;
pub mod protocol;
pub mod receiver;
pub mod resources;
pub mod sender;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stream;

pub use config::{DriverContext, DriverSettings, ThreadingMode};
pub use driver::{EndReason, LaunchError, MediaDriver, MediaDriverInvoker, Surroundings};
