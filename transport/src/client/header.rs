//! What a handler sees of a fragment or a message besides its payload (shared-memory spec 11.4).
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::FrameView;
use crate::memory::View;
use crate::position::PositionShape;

/// Facts about a fragment, or about a message assembled from several.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub(super) shape: PositionShape,
    pub(super) session_id: SessionId,
    pub(super) stream_id: StreamId,
    pub(super) position: i64,
    pub(super) start: i64,
    pub(super) frame_length: i32,
    pub(super) frame_type: u16,
    pub(super) flags: u8,
    pub(super) reserved: Reserved<'a>,
}

/// The reserved value is read from the log only when asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reserved<'a> {
    InFrame(FrameView<'a, View>),
    Known(i64),
}

impl Header<'_> {
    /// The stream position behind the fragment or message, bytes; what the publisher's offer returned.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The session of the publication.
    #[inline]
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The stream.
    #[inline]
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.stream_id
    }

    /// The term in which the (first) fragment lies.
    #[inline]
    #[must_use]
    pub fn term_id(&self) -> TermId {
        self.shape.term_id(self.start)
    }

    /// The offset of the (first) fragment in its term, bytes.
    #[inline]
    #[must_use]
    pub fn term_offset(&self) -> i32 {
        self.shape.offset(self.start)
    }

    /// Header and payload, without alignment, bytes; for an assembled message 32 plus its length.
    #[inline]
    #[must_use]
    pub fn frame_length(&self) -> i32 {
        self.frame_length
    }

    /// The frame type: 1 for data; applications may set others on claims.
    #[inline]
    #[must_use]
    pub fn frame_type(&self) -> u16 {
        self.frame_type
    }

    /// 0x80 begin, 0x40 end of a message, and what the application set; of first and last fragment together for an
    /// assembled message.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Eight bytes at the application's disposal; of the first fragment for an assembled message.
    #[inline]
    #[must_use]
    pub fn reserved_value(&self) -> i64 {
        match self.reserved {
            Reserved::InFrame(frame) => frame.reserved_value(),
            Reserved::Known(value) => value,
        }
    }

    /// The first term id of the stream.
    #[inline]
    #[must_use]
    pub fn initial_term_id(&self) -> TermId {
        self.shape.initial_term_id
    }

    /// log2 of the term length: how many bits of a position are the offset in its term.
    #[inline]
    #[must_use]
    pub fn position_bits(&self) -> u32 {
        self.shape.bits
    }
}
