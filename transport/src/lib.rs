//! Fulmar's transport: shared-memory structures and the client library.
//!
//! Layers, bottom up; a module imports only modules of its own and lower layers:
//!
//! 0. [`id`], [`position`], [`bits`], [`time`]: numbers.
//! 1. [`sync`]: the only door to atomics.
//! 2. [`memory`]: regions and views.
//! 3. [`uri`][]: channels.
//! 4. [`log`], [`ring`], [`counters`], [`report`], [`control`]: structures in shared memory and what is said through them;
//!    [`wire`]: what is said between drivers.
//! 5. [`agent`]: who runs, and how they wake each other.
//! 6. [`cnc`]: the command-and-control file, and the extension file beside it.
//! 7. [`directory`]: where regions live.
//! 8. [`client`]: what applications use.

pub mod agent;
pub mod bits;
pub mod client;
pub mod cnc;
pub mod control;
pub mod counters;
pub mod directory;
pub mod id;
pub mod log;
pub mod memory;
pub mod position;
pub mod report;
pub mod ring;
pub mod sync;
pub mod time;
pub mod uri;
pub mod wire;

#[cfg(not(loom))]
pub use client::{
    Action, BatchOffer, Claim, Client, ClientError, ClientEvent, ClientSettings, CommitError,
    ExclusivePublication, Header, Image, ImageHandlers, ImageInfo, Offer, Publication, RegistrationError,
    Subscription, UserCounter,
};
#[cfg(not(loom))]
pub use log::Payload;
