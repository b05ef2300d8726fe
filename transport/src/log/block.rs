//! Scanning whole committed frames as one block of bytes, for raw readers (shared-memory spec 11.2, block poll).
#![forbid(unsafe_code)]

use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::log::frame::{FrameView, word_length};
use crate::log::words::{HeaderWord, Term, Words};

/// A run of whole committed frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where the run ends: the start offset if there is none.
    pub end_offset: i32,
    /// The run is one padding frame.
    pub is_padding: bool,
    /// The frame at `end_offset` has a length that no frame can have there.
    pub corrupt: bool,
}

impl Block {
    /// Whether there are no frames.
    #[must_use]
    pub fn is_empty_from(&self, offset: i32) -> bool {
        self.end_offset <= offset
    }
}

/// Finds the longest run of committed frames from `offset` on that ends at or before `offset + length_limit` and the
/// end of the term. A padding frame ends the run; as its first frame it is the run, however long.
#[inline]
#[must_use]
pub fn scan_block<B: Words>(term: &Term<B>, offset: i32, length_limit: usize) -> Block {
    let length = term.length() as i32;
    let mut block = Block {
        end_offset: offset,
        is_padding: false,
        corrupt: offset < 0 || offset > length || !(offset as usize).is_multiple_of(FRAME_ALIGNMENT),
    };
    if block.corrupt {
        return block;
    }
    let limit = (offset as usize)
        .saturating_add(length_limit)
        .min(length as usize) as i32;
    while block.end_offset < length {
        let slot = term.slot(block.end_offset as usize);
        // SYNC frame-length: the frame is complete once this is positive.
        let word = slot.load_acquire(HeaderWord::Length);
        let Some(frame) = FrameView::new(slot, word) else {
            block.corrupt = word_length(word) > 0;
            break;
        };
        if frame.is_padding() {
            if block.end_offset == offset {
                block.end_offset = frame.next_offset();
                block.is_padding = true;
            }
            break;
        }
        if frame.next_offset() > limit {
            break;
        }
        block.end_offset = frame.next_offset();
    }
    block
}
