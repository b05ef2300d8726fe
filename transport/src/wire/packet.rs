//! The structure of a datagram of DATA and PAD frames (wire-protocol spec 4.3, step 3).
#![forbid(unsafe_code)]

use crate::bits::align_i64;
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::wire::data::is_heartbeat;
use crate::wire::fields::Fields;
use crate::wire::frame::{FrameType, WireError};

/// What a sound datagram covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketExtent {
    /// It is a heartbeat and carries no frame.
    pub heartbeat: bool,
    /// Bytes of the log that its frames cover: a padding frame counts in full although only its header travels. A
    /// multiple of 32, 0 for a heartbeat; the first frame's term offset plus this is at most the term length.
    pub length: i64,
}

/// Walks the frames of a datagram that [`crate::wire::classify`] found to be data, for a stream with this term
/// length (bytes). Every frame has a length of at least a header, is DATA or PAD, stands at the term offset it says,
/// and ends inside the term; the last one ends with the datagram, or is a padding frame that goes on behind it. The
/// sessions, streams and terms of the frames behind the first are not compared.
///
/// # Errors
/// What is wrong: the whole datagram is dropped and counted as an invalid packet.
#[inline]
pub fn validate_data_packet(datagram: &[u8], term_length: i32) -> Result<PacketExtent, WireError> {
    let first_offset = Fields::new(datagram).i32(8)?;
    let is_slot = (0..term_length).contains(&first_offset) && first_offset % FRAME_ALIGNMENT as i32 == 0;
    if datagram.len() < FRAME_HEADER_LENGTH {
        return Err(WireError::TooShort);
    }
    if !is_slot {
        return Err(WireError::TermOffset);
    }
    if is_heartbeat(datagram) {
        return Ok(PacketExtent {
            heartbeat: true,
            length: 0,
        });
    }
    let first_offset = i64::from(first_offset);
    let mut length = 0i64;
    let mut ends_with_padding = false;
    // Every frame moves the walk by at least 32 bytes, so it ends.
    while let Some(header) = usize::try_from(length)
        .ok()
        .and_then(|at| datagram.get(at..))
        .and_then(|rest| rest.first_chunk::<FRAME_HEADER_LENGTH>())
    {
        let fields = Fields::new(header);
        let frame_length = i64::from(fields.i32(0)?);
        if frame_length < FRAME_HEADER_LENGTH as i64 {
            return Err(WireError::FrameLength);
        }
        ends_with_padding = match FrameType(fields.u16(6)?) {
            FrameType::PAD => true,
            FrameType::DATA => false,
            _ => return Err(WireError::Type),
        };
        if i64::from(fields.i32(8)?) != first_offset + length {
            return Err(WireError::TermOffset);
        }
        length += align_i64(frame_length, FRAME_ALIGNMENT as i64);
        if first_offset + length > i64::from(term_length) {
            return Err(WireError::PastTerm);
        }
    }
    let carried = datagram.len() as i64;
    if length == carried || (length > carried && ends_with_padding) {
        Ok(PacketExtent {
            heartbeat: false,
            length,
        })
    } else {
        Err(WireError::FrameLength)
    }
}
