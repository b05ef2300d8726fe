//! RSP_SETUP: the session of a response stream is announced to whoever asked for one (wire-protocol spec 1.10, 7).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId};
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{FrameType, WireError};

/// Length of the frame, bytes.
pub const RSP_SETUP_LENGTH: usize = 20;

/// A response setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSetup {
    /// Session of the request stream.
    pub session_id: SessionId,
    /// The request stream.
    pub stream_id: StreamId,
    /// Session of the response publication.
    pub response_session_id: SessionId,
}

impl ResponseSetup {
    /// Takes a datagram apart.
    ///
    /// # Errors
    /// It is no RSP_SETUP, or too short.
    pub fn parse(datagram: &[u8]) -> Result<ResponseSetup, WireError> {
        let (fields, _) = Fields::of_control(datagram, FrameType::RSP_SETUP, RSP_SETUP_LENGTH)?;
        Ok(ResponseSetup {
            session_id: SessionId(fields.i32(8)?),
            stream_id: StreamId(fields.i32(12)?),
            response_session_id: SessionId(fields.i32(16)?),
        })
    }

    /// The frame as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; RSP_SETUP_LENGTH] {
        let mut bytes = [0; RSP_SETUP_LENGTH];
        Writer::frame(&mut bytes, RSP_SETUP_LENGTH as i32, 0, FrameType::RSP_SETUP)
            .i32(self.session_id.0)
            .i32(self.stream_id.0)
            .i32(self.response_session_id.0);
        bytes
    }
}
