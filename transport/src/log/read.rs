//! Reading the committed frames of a term, fragment by fragment (shared-memory spec 11.1, 11.2).
#![forbid(unsafe_code)]

use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::log::frame::{FrameView, word_length};
use crate::log::words::{HeaderWord, Term, Words};

/// What a handler wants after a fragment. To store the position in between, it stores
/// [`FrameView::next_offset`] itself and continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Stop before this fragment: it is delivered again.
    Abort,
    /// Stop behind this fragment.
    Break,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadResult {
    /// Where the next scan starts, bytes from the start of the term; at most the term length.
    pub offset: i32,
    /// Fragments that the handler kept; padding does not count.
    pub fragments: usize,
    /// The frame at `offset` has a length that no frame can have there: the stream can not be read any further.
    pub corrupt: bool,
    /// The frame at `offset` is not committed: whatever there was has been read.
    pub caught_up: bool,
}

/// Reads committed frames from `offset` on, until `max_fragments` were delivered, `limit_offset` or the end of the
/// term is reached, or the next frame is not committed. A fragment is delivered if it starts below `limit_offset`.
/// Padding is skipped and not counted.
///
/// Every frame moves the scan by at least 32 bytes, so it ends whatever the term holds.
#[inline(always)]
pub fn scan_fragments<'a, B: Words>(
    term: &'a Term<B>,
    offset: i32,
    limit_offset: i32,
    max_fragments: usize,
    mut handler: impl FnMut(FrameView<'a, B>) -> Action,
) -> ReadResult {
    let length = term.length();
    let mut at = offset as u32 as usize;
    let mut fragments = 0;
    let mut caught_up = false;
    let mut corrupt = at > length || !at.is_multiple_of(FRAME_ALIGNMENT);
    if !corrupt {
        let limit = (limit_offset.max(0) as usize).min(length);
        while fragments < max_fragments && at < limit {
            let slot = term.slot(at);
            // SYNC frame-length: the frame is complete once this is positive.
            let word = slot.load_acquire(HeaderWord::Length);
            let Some(frame) = FrameView::new(slot, word) else {
                corrupt = word_length(word) > 0;
                caught_up = !corrupt;
                break;
            };
            if frame.is_padding() {
                at = frame.next_offset() as usize;
                continue;
            }
            let action = handler(frame);
            if action == Action::Abort {
                break;
            }
            fragments += 1;
            at = frame.next_offset() as usize;
            if action == Action::Break {
                break;
            }
        }
    }
    ReadResult {
        offset: at as u32 as i32,
        fragments,
        corrupt,
        caught_up,
    }
}
