//! DATA and PAD frames and heartbeats (wire-protocol spec 1.3, 1.4).
//!
//! ```text
//!   0               8             12           16          20        24               32
//!   +---------------+-------------+------------+-----------+---------+----------------+--------
//!   | common header | term offset | session id | stream id | term id | reserved value | payload
//!   +---------------+-------------+------------+-----------+---------+----------------+--------
//! ```
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::FRAME_HEADER_LENGTH;
use crate::log::frame::{FLAG_EOS, FLAG_REVOKED};
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::FrameType;

/// Where the flags stand in a frame, bytes.
const FLAGS_OFFSET: usize = 5;

/// The header of a DATA or PAD frame. Its values are as they came: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Header and payload without alignment padding, bytes; 0 in heartbeats.
    pub frame_length: i32,
    /// Version; 0 in every datagram that passed [`crate::wire::classify`].
    pub version: u8,
    /// Flags: the `FLAG_*` of [`crate::log::frame`].
    pub flags: u8,
    /// DATA or PAD.
    pub frame_type: FrameType,
    /// Where the frame stands in its term, bytes.
    pub term_offset: i32,
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// Term.
    pub term_id: TermId,
    /// Whatever the application put there.
    pub reserved_value: i64,
}

impl DataHeader {
    /// The header at the start of these bytes; `None` if they are fewer than 32. The type is not checked.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<DataHeader> {
        // The header is taken as an array once, so that its fields are read without a check each.
        let header = bytes.first_chunk::<FRAME_HEADER_LENGTH>()?;
        let fields = Fields::new(header);
        Some(DataHeader {
            frame_length: fields.i32(0).ok()?,
            version: fields.u8(4).ok()?,
            flags: fields.u8(FLAGS_OFFSET).ok()?,
            frame_type: FrameType(fields.u16(6).ok()?),
            term_offset: fields.i32(8).ok()?,
            session_id: SessionId(fields.i32(12).ok()?),
            stream_id: StreamId(fields.i32(16).ok()?),
            term_id: TermId(fields.i32(20).ok()?),
            reserved_value: fields.i64(24).ok()?,
        })
    }

    /// The header as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_LENGTH] {
        let mut bytes = [0; FRAME_HEADER_LENGTH];
        Writer::new(&mut bytes)
            .i32(self.frame_length)
            .bytes(&[self.version, self.flags])
            .bytes(&self.frame_type.0.to_le_bytes())
            .i32(self.term_offset)
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i32(self.term_id.0)
            .i64(self.reserved_value);
        bytes
    }

    /// Whether the frame is padding.
    #[inline]
    #[must_use]
    pub fn is_padding(&self) -> bool {
        self.frame_type == FrameType::PAD
    }
}

/// Whether a DATA or PAD datagram is a heartbeat: it has exactly 32 bytes and its frame length is 0.
#[inline]
#[must_use]
pub fn is_heartbeat(datagram: &[u8]) -> bool {
    datagram.len() == FRAME_HEADER_LENGTH && datagram.first_chunk::<4>() == Some(&[0; 4])
}

/// Whether the first frame of a DATA datagram says that the stream ends. That only counts in heartbeats.
#[inline]
#[must_use]
pub fn is_eos(datagram: &[u8]) -> bool {
    has_flag(datagram, FLAG_EOS)
}

/// Whether the first frame of a DATA datagram says that the publication was revoked. That only counts in heartbeats.
#[inline]
#[must_use]
pub fn is_revoked(datagram: &[u8]) -> bool {
    has_flag(datagram, FLAG_REVOKED)
}

fn has_flag(datagram: &[u8], flag: u8) -> bool {
    datagram.get(FLAGS_OFFSET).is_some_and(|flags| flags & flag != 0)
}

/// A heartbeat at the sender position (spec 1.4). The flags are 0xC0, with EOS when the stream has ended, with EOS
/// and REVOKED when it was revoked.
#[must_use]
pub fn encode_heartbeat(
    flags: u8,
    session_id: SessionId,
    stream_id: StreamId,
    term_id: TermId,
    term_offset: i32,
) -> [u8; FRAME_HEADER_LENGTH] {
    DataHeader {
        frame_length: 0,
        version: 0,
        flags,
        frame_type: FrameType::DATA,
        term_offset,
        session_id,
        stream_id,
        term_id,
        reserved_value: 0,
    }
    .encode()
}
