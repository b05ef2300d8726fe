//! The common header, and the check that every datagram passes first (wire-protocol spec 1.1, 1.2, 9.1).
//!
//! ```text
//!   0              4         5        6        8
//!   +--------------+---------+--------+--------+--------
//!   | frame length | version | flags  | type   | fields of the type
//!   +--------------+---------+--------+--------+--------
//! ```
#![forbid(unsafe_code)]

use core::fmt;

use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::wire::{error, nak, resolution, response_setup, rttm, setup, status_message};

/// Length of the header that starts every frame, bytes.
pub const COMMON_HEADER_LENGTH: usize = 8;

/// The only version there is.
pub const VERSION: u8 = 0;

/// What a frame is, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameType(pub u16);

impl FrameType {
    /// Padding of the log; only its header travels.
    pub const PAD: FrameType = FrameType(0x0000);
    /// Data, and heartbeats.
    pub const DATA: FrameType = FrameType(0x0001);
    /// Negative acknowledgement: asks for a range again.
    pub const NAK: FrameType = FrameType(0x0002);
    /// Status message: what a receiver has consumed, and its window.
    pub const SM: FrameType = FrameType(0x0003);
    /// Rejection of an image.
    pub const ERR: FrameType = FrameType(0x0004);
    /// Announcement of a stream.
    pub const SETUP: FrameType = FrameType(0x0005);
    /// Round-trip time measurement.
    pub const RTTM: FrameType = FrameType(0x0006);
    /// Name resolution.
    pub const RES: FrameType = FrameType(0x0007);
    /// Announcement of the session of a response stream.
    pub const RSP_SETUP: FrameType = FrameType(0x000B);
    /// Reserved for extensions.
    pub const EXT: FrameType = FrameType(0xFFFF);

    /// The raw value as it travels.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A datagram that passed [`classify`], by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// DATA or PAD frames; their structure is checked by [`crate::wire::validate_data_packet`].
    Data,
    /// A negative acknowledgement.
    Nak,
    /// A status message.
    StatusMessage,
    /// A rejection.
    Error,
    /// An announcement of a stream.
    Setup,
    /// A round-trip time measurement.
    Rttm,
    /// Name resolution entries.
    Resolution,
    /// An announcement of a response stream.
    ResponseSetup,
}

/// Why a datagram is dropped and counted as an invalid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than a frame of its type has.
    #[error("the datagram is shorter than a frame of its type")]
    TooShort,
    /// DATA or PAD whose datagram is not a multiple of the frame alignment.
    #[error("the datagram is no multiple of 32 bytes long")]
    Unaligned,
    /// A frame length that is negative, passes the datagram or can not be.
    #[error("the frame length is impossible")]
    FrameLength,
    /// Another version than 0.
    #[error("the version is not 0")]
    Version,
    /// A type nobody knows, or not the one asked for.
    #[error("the frame type is unknown or not the one expected")]
    Type,
    /// A term offset outside the term, unaligned, or not where the frame stands.
    #[error("the term offset is impossible")]
    TermOffset,
    /// A frame that passes the end of its term.
    #[error("a frame passes the end of the term")]
    PastTerm,
    /// A variable part that passes its frame or the protocol's limit.
    #[error("a text or name passes its frame or its limit")]
    TextLength,
    /// A field with a value outside its range.
    #[error("a field is outside its range")]
    Range,
}

/// Checks what every datagram has to pass and says what it is (spec 9.1).
///
/// # Errors
/// What is wrong: the datagram is dropped and counted as an invalid packet.
#[inline]
pub fn classify(datagram: &[u8]) -> Result<FrameKind, WireError> {
    let Some(&[l0, l1, l2, l3, version, _flags, t0, t1]) = datagram.first_chunk::<COMMON_HEADER_LENGTH>()
    else {
        return Err(WireError::TooShort);
    };
    let frame_length = i32::from_le_bytes([l0, l1, l2, l3]);
    if frame_length < 0 {
        return Err(WireError::FrameLength);
    }
    if version != VERSION {
        return Err(WireError::Version);
    }
    let (kind, min_length) = match FrameType(u16::from_le_bytes([t0, t1])) {
        FrameType::DATA | FrameType::PAD => {
            if datagram.len() < FRAME_HEADER_LENGTH {
                return Err(WireError::TooShort);
            }
            return if datagram.len().is_multiple_of(FRAME_ALIGNMENT) {
                Ok(FrameKind::Data)
            } else {
                Err(WireError::Unaligned)
            };
        }
        FrameType::NAK => (FrameKind::Nak, nak::NAK_LENGTH),
        FrameType::SM => (FrameKind::StatusMessage, status_message::SM_MIN_LENGTH),
        FrameType::ERR => (FrameKind::Error, error::ERR_HEADER_LENGTH),
        FrameType::SETUP => (FrameKind::Setup, setup::SETUP_LENGTH),
        FrameType::RTTM => (FrameKind::Rttm, rttm::RTTM_LENGTH),
        FrameType::RES => (FrameKind::Resolution, resolution::RES_MIN_LENGTH),
        FrameType::RSP_SETUP => (FrameKind::ResponseSetup, response_setup::RSP_SETUP_LENGTH),
        _ => return Err(WireError::Type),
    };
    if datagram.len() < min_length {
        return Err(WireError::TooShort);
    }
    if frame_length as usize > datagram.len() {
        return Err(WireError::FrameLength);
    }
    Ok(kind)
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            FrameType::PAD => "PAD",
            FrameType::DATA => "DATA",
            FrameType::NAK => "NAK",
            FrameType::SM => "SM",
            FrameType::ERR => "ERR",
            FrameType::SETUP => "SETUP",
            FrameType::RTTM => "RTTM",
            FrameType::RES => "RES",
            FrameType::RSP_SETUP => "RSP_SETUP",
            FrameType::EXT => "EXT",
            FrameType(other) => return write!(f, "type {other:#06x}"),
        })
    }
}
