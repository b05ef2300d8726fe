//! ERR: a receiver rejects an image (wire-protocol spec 1.9, 3.13).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId};
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of the frame without its text, bytes.
pub const ERR_HEADER_LENGTH: usize = 40;
/// Longest text, bytes.
pub const ERROR_TEXT_MAX: usize = 1023;
/// Length of the longest frame, bytes.
pub const ERR_MAX_LENGTH: usize = ERR_HEADER_LENGTH + ERROR_TEXT_MAX;

/// An error frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFrame<'a> {
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// Names the receiving endpoint.
    pub receiver_id: i64,
    /// The receiver's group, if it has one.
    pub group_tag: Option<i64>,
    /// Why; 13 (image rejected) is the only one sent.
    pub error_code: i32,
    /// Text of at most [`ERROR_TEXT_MAX`] bytes; ASCII from an honest peer, anything from another.
    pub text: &'a [u8],
}

impl<'a> ErrorFrame<'a> {
    /// The frame has a group tag.
    pub const FLAG_HAS_GROUP_TAG: u8 = 0x08;
    /// What fills the place of a group tag that is not there: readers go by the flag, Aeron's C driver writes this.
    pub const NO_GROUP_TAG: i64 = -1;
    /// Error code of a rejected image.
    pub const IMAGE_REJECTED: i32 = 13;

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no ERR, too short, or its text passes the frame or its limit.
    pub fn parse(datagram: &'a [u8]) -> Result<ErrorFrame<'a>, WireError> {
        let (fields, frame_length) = Fields::of_control(datagram, FrameType::ERR, ERR_HEADER_LENGTH)?;
        let flags = fields.u8(5)?;
        let error_length = fields.i32(36)?;
        let is_sound = (0..=ERROR_TEXT_MAX as i32).contains(&error_length)
            && ERR_HEADER_LENGTH as i32 + error_length <= frame_length;
        if !is_sound {
            return Err(WireError::TextLength);
        }
        let group_tag = fields.i64(24)?;
        Ok(ErrorFrame {
            session_id: SessionId(fields.i32(8)?),
            stream_id: StreamId(fields.i32(12)?),
            receiver_id: fields.i64(16)?,
            group_tag: (flags & Self::FLAG_HAS_GROUP_TAG != 0).then_some(group_tag),
            error_code: fields.i32(32)?,
            text: fields.bytes(ERR_HEADER_LENGTH, error_length as usize)?,
        })
    }

    /// Writes the frame as it travels and returns its length, or 0 if it does not fit; [`ERR_MAX_LENGTH`] bytes
    /// always do. A text longer than [`ERROR_TEXT_MAX`] is cut.
    pub fn encode(&self, bytes: &mut [u8]) -> usize {
        let text = self.text.get(..ERROR_TEXT_MAX).unwrap_or(self.text);
        let flags = match self.group_tag {
            Some(_) => Self::FLAG_HAS_GROUP_TAG,
            None => 0,
        };
        let length = ERR_HEADER_LENGTH + text.len();
        let mut writer = Writer::frame(bytes, length as i32, flags, FrameType::ERR);
        writer
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i64(self.receiver_id)
            .i64(self.group_tag.unwrap_or(Self::NO_GROUP_TAG))
            .i32(self.error_code)
            .i32(text.len() as i32)
            .bytes(text);
        writer.length()
    }
}
