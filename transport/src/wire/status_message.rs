//! SM: what a receiver has consumed, and how much more it takes (wire-protocol spec 1.6, 3.6).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of a frame without group tag, bytes.
pub const SM_MIN_LENGTH: usize = 36;
/// Length of a frame with group tag, bytes.
pub const SM_MAX_LENGTH: usize = 44;

/// A status message. Its values are as they came: see [`StatusMessage::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusMessage {
    /// Flags: [`StatusMessage::FLAG_SEND_SETUP`], [`StatusMessage::FLAG_EOS`].
    pub flags: u8,
    /// Session; 0 when a control address is asked.
    pub session_id: SessionId,
    /// Stream; 0 when a control address is asked.
    pub stream_id: StreamId,
    /// Term of the consumption position.
    pub term_id: TermId,
    /// Offset in its term of the consumption position, bytes.
    pub term_offset: i32,
    /// Bytes beyond the consumption position that the receiver takes.
    pub window: i32,
    /// Names the receiving endpoint.
    pub receiver_id: i64,
    /// The receiver's group, if it has one.
    pub group_tag: Option<i64>,
    /// The frame goes on behind the receiver id with something that is no group tag. Set by [`StatusMessage::parse`];
    /// not encoded.
    pub has_bad_tag_length: bool,
}

impl StatusMessage {
    /// Asks for a SETUP; term id, offset and window are 0.
    pub const FLAG_SEND_SETUP: u8 = 0x80;
    /// The receiver leaves, or has drained the stream.
    pub const FLAG_EOS: u8 = 0x40;

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no SM, too short, or its frame length passes it.
    pub fn parse(datagram: &[u8]) -> Result<StatusMessage, WireError> {
        let (fields, frame_length) = Fields::of_control(datagram, FrameType::SM, SM_MIN_LENGTH)?;
        let has_tag = frame_length == SM_MAX_LENGTH as i32;
        Ok(StatusMessage {
            flags: fields.u8(5)?,
            session_id: SessionId(fields.i32(8)?),
            stream_id: StreamId(fields.i32(12)?),
            term_id: TermId(fields.i32(16)?),
            term_offset: fields.i32(20)?,
            window: fields.i32(24)?,
            receiver_id: fields.i64(28)?,
            group_tag: if has_tag { Some(fields.i64(36)?) } else { None },
            has_bad_tag_length: !has_tag && frame_length != SM_MIN_LENGTH as i32,
        })
    }

    /// Checks the fields against the stream's term length (spec 3.6 step 1); without a stream it is 1 GiB.
    ///
    /// # Errors
    /// A term offset or window outside its range: the frame is counted as an invalid packet.
    pub fn check(&self, term_length: i32) -> Result<(), WireError> {
        if !(0..term_length).contains(&self.term_offset) || self.term_offset % FRAME_ALIGNMENT as i32 != 0 {
            return Err(WireError::TermOffset);
        }
        if !(0..=term_length / 2).contains(&self.window) {
            return Err(WireError::Range);
        }
        Ok(())
    }

    /// Whether a SETUP is asked for.
    #[must_use]
    pub fn is_send_setup(&self) -> bool {
        self.flags & Self::FLAG_SEND_SETUP != 0
    }

    /// Whether the receiver leaves.
    #[must_use]
    pub fn is_eos(&self) -> bool {
        self.flags & Self::FLAG_EOS != 0
    }

    /// Length of the frame as it travels, bytes: 44 with a group tag, 36 without.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        if self.group_tag.is_some() {
            SM_MAX_LENGTH
        } else {
            SM_MIN_LENGTH
        }
    }

    /// Writes the frame as it travels and returns its length, or 0 if it does not fit; [`SM_MAX_LENGTH`] bytes
    /// always do.
    pub fn encode(&self, bytes: &mut [u8]) -> usize {
        let mut writer = Writer::frame(bytes, self.encoded_length() as i32, self.flags, FrameType::SM);
        writer
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i32(self.term_id.0)
            .i32(self.term_offset)
            .i32(self.window)
            .i64(self.receiver_id);
        if let Some(tag) = self.group_tag {
            writer.i64(tag);
        }
        writer.length()
    }
}
