//! Frames as they travel in datagrams (wire-protocol spec 1, 4.3, 9.1). Pure functions over bytes.
//!
//! A datagram holds either one or more DATA and PAD frames, or exactly one control frame. [`classify`] is the first
//! thing done to it; then the frame type's own `parse` takes it apart. Nothing here trusts a length: every `parse`
//! checks what it reads, whatever was checked before, and gives values, not references into shared memory.
//!
//! - [`frame`]: the common header and the check every datagram passes.
//! - [`data`]: DATA, PAD and heartbeats; [`packet`]: the structure of a datagram of them.
//! - [`setup`], [`status_message`], [`nak`], [`rttm`], [`error`], [`response_setup`]: the control frames.
//! - [`resolution`]: name resolution entries.
//! - [`dissect`]: one line of text for a datagram.
#![forbid(unsafe_code)]

pub mod data;
pub mod dissect;
pub mod error;
mod fields;
pub mod frame;
pub mod nak;
pub mod packet;
pub mod resolution;
pub mod response_setup;
pub mod rttm;
pub mod setup;
pub mod status_message;
#[cfg(all(test, not(loom)))]
mod tests;

pub use data::{DataHeader, encode_heartbeat, is_eos, is_heartbeat, is_revoked};
pub use error::{ERROR_TEXT_MAX, ErrorFrame};
pub use frame::{COMMON_HEADER_LENGTH, FrameKind, FrameType, WireError, classify};
pub use nak::Nak;
pub use packet::{PacketExtent, validate_data_packet};
pub use response_setup::ResponseSetup;
pub use rttm::Rttm;
pub use setup::Setup;
pub use status_message::StatusMessage;

/// Largest datagram to accept or to send, bytes (spec 2.3).
pub const DATAGRAM_MAX_LENGTH: usize = 65_504;
