//! What applications use: a client of a media driver, its publications, subscriptions and counters.
//!
//! The data path (offer, claim, poll) takes no lock and allocates nothing: a handle looks at one word to see whether
//! its conductor has something new for it, and otherwise works on shared memory alone. The conductor, a thread or an
//! invoker, talks to the driver, keeps the client alive and, when the driver is lost, finds its successor and adds
//! everything again under the same handles.
//!
//! ```text
//!  Client ----- Conductor (lock) --- Registry (pure)   what was asked for
//!    |             |   \------------ Link               one run of a driver: ring, broadcast, counters
//!    |             |                  \-- Liveness (pure)
//!    |           Slot / image list                      how changes reach the handles
//!    |             |
//!  Publication, ExclusivePublication, Subscription -> Image, UserCounter
//! ```
//!
//! ```no_run
//! use fulmar::{Client, ClientSettings, Offer};
//!
//! let client = Client::connect(ClientSettings::default())?;
//! let mut subscription = client.add_subscription("aeron:ipc", 1001)?;
//! let publication = client.add_publication("aeron:ipc", 1001)?;
//! loop {
//!     match publication.offer(b"hello") {
//!         Offer::Position(_) => break,
//!         outcome if outcome.is_retryable() => std::thread::yield_now(),
//!         outcome => return Err(format!("{outcome:?}").into()),
//!     }
//! }
//! while subscription.poll(|payload, header| println!("{} bytes at {}", payload.len(), header.position()), 10) == 0 {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg(not(loom))]
#![forbid(unsafe_code)]

mod action;
mod assembler;
mod attachment;
mod claim;
#[expect(clippy::module_inception, reason = "the module's main type is the client")]
mod client;
mod client_core;
mod conductor;
mod counter_handle;
mod error;
mod event;
mod exclusive_publication;
mod header;
mod image;
mod link;
mod liveness;
mod logs;
mod moderation;
mod offer;
mod pending;
mod publication;
mod registry;
mod settings;
mod slot;
mod status;
mod subscription;

pub use crate::directory::default_directory;
pub use action::Action;
pub use claim::Claim;
pub use client::{Client, DriverState, request_termination};
pub use counter_handle::UserCounter;
pub use error::{BlockError, ClientError, CommitError, PositionError, RegistrationError};
pub use event::{ClientEvent, DriverLossReason, ImageHandler, ImageHandlers, ImageInfo};
pub use exclusive_publication::ExclusivePublication;
pub use header::Header;
pub use image::{Block, Image};
pub use offer::{BatchOffer, Offer};
pub use pending::{
    Pending, PendingCounter, PendingExclusivePublication, PendingOperation, PendingPublication,
    PendingSubscription, Resource,
};
pub use publication::Publication;
pub use settings::{CLIENT_NAME_LENGTH_MAX, ClientSettings, ErrorHandler, EventHandler};
pub use status::ChannelStatus;
pub use subscription::Subscription;
