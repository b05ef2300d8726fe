//! SETUP: the announcement of a stream (wire-protocol spec 1.5, 4.2).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, MTU_MAX, check_term_length};
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of the frame, bytes.
pub const SETUP_LENGTH: usize = 40;

/// A SETUP frame. Its values are as they came: see [`Setup::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Flags: [`Setup::FLAG_SEND_RESPONSE`], [`Setup::FLAG_GROUP`].
    pub flags: u8,
    /// Offset in its term of the sender position, bytes.
    pub term_offset: i32,
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// Term id at position 0.
    pub initial_term_id: TermId,
    /// Term id of the sender position.
    pub active_term_id: TermId,
    /// Term length, bytes.
    pub term_length: i32,
    /// The sender's largest datagram, bytes.
    pub mtu: i32,
    /// The sender's multicast time to live, 0 if not set.
    pub ttl: i32,
}

impl Setup {
    /// The receiver should offer a response session.
    pub const FLAG_SEND_RESPONSE: u8 = 0x80;
    /// The sender has group semantics: multicast or several destinations.
    pub const FLAG_GROUP: u8 = 0x40;

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no SETUP, or too short.
    pub fn parse(datagram: &[u8]) -> Result<Setup, WireError> {
        let (fields, _) = Fields::of_control(datagram, FrameType::SETUP, SETUP_LENGTH)?;
        Ok(Setup {
            flags: fields.u8(5)?,
            term_offset: fields.i32(8)?,
            session_id: SessionId(fields.i32(12)?),
            stream_id: StreamId(fields.i32(16)?),
            initial_term_id: TermId(fields.i32(20)?),
            active_term_id: TermId(fields.i32(24)?),
            term_length: fields.i32(28)?,
            mtu: fields.i32(32)?,
            ttl: fields.i32(36)?,
        })
    }

    /// Checks the fields a receiver has to check before it counts on them (spec 4.2). What follows from them, such
    /// as the position, may still be impossible: the active term can lie before the initial one.
    ///
    /// # Errors
    /// A term length, term offset or MTU outside its range: the frame is counted as an invalid packet.
    pub fn check(&self) -> Result<(), WireError> {
        let alignment = FRAME_ALIGNMENT as i32;
        if check_term_length(self.term_length).is_err() {
            return Err(WireError::Range);
        }
        if !(0..self.term_length).contains(&self.term_offset) || self.term_offset % alignment != 0 {
            return Err(WireError::TermOffset);
        }
        if !(FRAME_HEADER_LENGTH as i32..=MTU_MAX).contains(&self.mtu) || self.mtu % alignment != 0 {
            return Err(WireError::Range);
        }
        Ok(())
    }

    /// The frame as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; SETUP_LENGTH] {
        let mut bytes = [0; SETUP_LENGTH];
        Writer::frame(&mut bytes, SETUP_LENGTH as i32, self.flags, FrameType::SETUP)
            .i32(self.term_offset)
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i32(self.initial_term_id.0)
            .i32(self.active_term_id.0)
            .i32(self.term_length)
            .i32(self.mtu)
            .i32(self.ttl);
        bytes
    }
}
