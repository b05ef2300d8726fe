//! What a handler sees of a fragment or a message besides its payload (shared-memory spec 11.4). Everything is
//! worked out when it is asked for: most handlers ask for little.
#![forbid(unsafe_code)]

use super::assembler::FirstFragment;
use crate::id::{SessionId, StreamId, TermId};
use crate::log::FrameView;
use crate::log::descriptor::FRAME_HEADER_LENGTH;
use crate::memory::View;
use crate::position::PositionShape;

/// What is the same for all frames of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) shape: PositionShape,
    pub(super) session_id: SessionId,
    pub(super) stream_id: StreamId,
}

/// What an assembled message has of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assembled {
    pub(super) first: FirstFragment,
    pub(super) length: usize,
}

/// Facts about a fragment, or about a message assembled from several.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub(super) stream: &'a Stream,
    /// Stream position of the start of the term.
    pub(super) term_begin: i64,
    /// The fragment; the last one of an assembled message.
    pub(super) frame: FrameView<'a, View>,
    pub(super) assembled: Option<Assembled>,
}

impl Header<'_> {
    /// The stream position behind the fragment or message, bytes; what the publisher's offer returned.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.term_begin + i64::from(self.frame.next_offset())
    }

    /// The stream position of the first byte, header included.
    #[inline]
    pub(super) fn start(&self) -> i64 {
        match &self.assembled {
            None => self.term_begin + i64::from(self.frame.offset()),
            Some(assembled) => assembled.first.start,
        }
    }

    /// The session of the publication.
    #[inline]
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.stream.session_id
    }

    /// The stream.
    #[inline]
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.stream.stream_id
    }

    /// The term in which the (first) fragment lies.
    #[inline]
    #[must_use]
    pub fn term_id(&self) -> TermId {
        self.stream.shape.term_id(self.start())
    }

    /// The offset of the (first) fragment in its term, bytes.
    #[inline]
    #[must_use]
    pub fn term_offset(&self) -> i32 {
        self.stream.shape.offset(self.start())
    }

    /// Header and payload, without alignment, bytes; for an assembled message 32 plus its length.
    #[inline]
    #[must_use]
    pub fn frame_length(&self) -> i32 {
        match &self.assembled {
            None => self.frame.frame_length(),
            Some(assembled) => (FRAME_HEADER_LENGTH + assembled.length) as i32,
        }
    }

    /// The frame type: 1 for data; applications may set others on claims.
    #[inline]
    #[must_use]
    pub fn frame_type(&self) -> u16 {
        self.frame.frame_type()
    }

    /// 0x80 begin, 0x40 end of a message, and what the application set; of first and last fragment together for an
    /// assembled message.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.frame.flags()
            | self
                .assembled
                .as_ref()
                .map_or(0, |assembled| assembled.first.flags)
    }

    /// Eight bytes at the application's disposal; of the first fragment for an assembled message.
    #[inline]
    #[must_use]
    pub fn reserved_value(&self) -> i64 {
        match &self.assembled {
            None => self.frame.reserved_value(),
            Some(assembled) => assembled.first.reserved_value,
        }
    }

    /// The first term id of the stream.
    #[inline]
    #[must_use]
    pub fn initial_term_id(&self) -> TermId {
        self.stream.shape.initial_term_id
    }

    /// log2 of the term length: how many bits of a position are the offset in its term.
    #[inline]
    #[must_use]
    pub fn position_bits(&self) -> u32 {
        self.stream.shape.bits
    }
}
