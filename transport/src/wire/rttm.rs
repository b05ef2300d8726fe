//! RTTM: round-trip time measurement (wire-protocol spec 1.8).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId};
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of the frame, bytes.
pub const RTTM_LENGTH: usize = 40;

/// A round-trip time measurement: a request with [`Rttm::FLAG_REPLY`], an answer without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rttm {
    /// Flags: [`Rttm::FLAG_REPLY`].
    pub flags: u8,
    /// Session.
    pub session_id: SessionId,
    /// Stream.
    pub stream_id: StreamId,
    /// The clock of whoever asked, opaque to the other side.
    pub echo_timestamp: i64,
    /// Time between request and answer at the other side, ns; always sent as 0.
    pub reception_delta: i64,
    /// Names the receiving endpoint.
    pub receiver_id: i64,
}

impl Rttm {
    /// An answer is asked for.
    pub const FLAG_REPLY: u8 = 0x80;

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no RTTM, or too short.
    pub fn parse(datagram: &[u8]) -> Result<Rttm, WireError> {
        let (fields, _) = Fields::of_control(datagram, FrameType::RTTM, RTTM_LENGTH)?;
        Ok(Rttm {
            flags: fields.u8(5)?,
            session_id: SessionId(fields.i32(8)?),
            stream_id: StreamId(fields.i32(12)?),
            echo_timestamp: fields.i64(16)?,
            reception_delta: fields.i64(24)?,
            receiver_id: fields.i64(32)?,
        })
    }

    /// Whether an answer is asked for.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.flags & Self::FLAG_REPLY != 0
    }

    /// The answer to this request: the same but without flags and with no time spent.
    #[must_use]
    pub fn answer(&self) -> Rttm {
        Rttm {
            flags: 0,
            reception_delta: 0,
            ..*self
        }
    }

    /// The frame as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; RTTM_LENGTH] {
        let mut bytes = [0; RTTM_LENGTH];
        Writer::frame(&mut bytes, RTTM_LENGTH as i32, self.flags, FrameType::RTTM)
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i64(self.echo_timestamp)
            .i64(self.reception_delta)
            .i64(self.receiver_id);
        bytes
    }
}
