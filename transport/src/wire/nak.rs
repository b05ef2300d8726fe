//! NAK: a receiver asks for a range again (wire-protocol spec 1.7, 3.8).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of the frame, bytes.
pub const NAK_LENGTH: usize = 28;

/// A negative acknowledgement. Its values are as they came: see [`Nak::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nak {
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// Term that the range lies in.
    pub term_id: TermId,
    /// Where the range starts, bytes.
    pub term_offset: i32,
    /// How long it is, bytes.
    pub length: i32,
}

impl Nak {
    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no NAK, or too short.
    pub fn parse(datagram: &[u8]) -> Result<Nak, WireError> {
        let (fields, _) = Fields::of_control(datagram, FrameType::NAK, NAK_LENGTH)?;
        Ok(Nak {
            session_id: SessionId(fields.i32(8)?),
            stream_id: StreamId(fields.i32(12)?),
            term_id: TermId(fields.i32(16)?),
            term_offset: fields.i32(20)?,
            length: fields.i32(24)?,
        })
    }

    /// Checks that the range lies inside a term of this length (spec 3.8). A length of 0 passes; it asks for nothing.
    ///
    /// # Errors
    /// A range outside the term or unaligned: the frame is counted as an invalid packet.
    pub fn check(&self, term_length: i32) -> Result<(), WireError> {
        if !(0..term_length).contains(&self.term_offset) || self.term_offset % FRAME_ALIGNMENT as i32 != 0 {
            return Err(WireError::TermOffset);
        }
        if self.length < 0 {
            return Err(WireError::Range);
        }
        if self.length > term_length - self.term_offset {
            return Err(WireError::PastTerm);
        }
        Ok(())
    }

    /// The frame as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; NAK_LENGTH] {
        let mut bytes = [0; NAK_LENGTH];
        Writer::frame(&mut bytes, NAK_LENGTH as i32, 0, FrameType::NAK)
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i32(self.term_id.0)
            .i32(self.term_offset)
            .i32(self.length);
        bytes
    }
}
