//! Finding gaps: ranges between received frames where nothing has arrived (wire-protocol spec 4.4).
#![forbid(unsafe_code)]

use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::log::frame::{FrameView, word_length};
use crate::log::scan::is_slot;
use crate::log::words::{HeaderWord, Term, Words};

/// Bytes behind the start of the first gap that one scan looks at. A sender resends less for one NAK, and a datagram
/// far ahead must not make every scan touch half a term of memory that was never written.
pub const GAP_SCAN_BYTES_MAX: i32 = 1 << 20;

/// A range of a term where nothing has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where it starts, bytes; a multiple of 32.
    pub offset: i32,
    /// How long it is, bytes: a multiple of 32 above 0, at most [`GAP_SCAN_BYTES_MAX`].
    pub length: i32,
}

/// What a scan has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapScan {
    /// Everything from the start offset to here has arrived: the start of the first gap, or at least the limit. It is
    /// a frame boundary.
    pub rebuild_offset: i32,
    /// The first gap.
    pub gap: Option<Gap>,
}

/// Walks the frames of a term from `offset`, a frame boundary, and finds the first gap below `limit_offset`.
#[inline]
#[must_use]
pub fn scan_gap<B: Words>(term: &Term<B>, offset: i32, limit_offset: i32) -> GapScan {
    let mut first = None;
    let rebuild_offset = for_each_gap(term, offset, limit_offset, |gap| {
        first = Some(gap);
        false
    });
    GapScan {
        rebuild_offset,
        gap: first,
    }
}

/// Walks the frames of a term from `offset`, a frame boundary, and hands out the gaps below `limit_offset` in order
/// while `on_gap` says so, up to [`GAP_SCAN_BYTES_MAX`] behind the start of the first. Returns the start of the first
/// gap, or if there is none the frame boundary at or behind the limit.
///
/// A frame whose length can not be (somebody has scribbled on the log) ends the walk: nothing can be said about what
/// lies behind it.
#[inline]
pub fn for_each_gap<B: Words>(
    term: &Term<B>,
    offset: i32,
    limit_offset: i32,
    mut on_gap: impl FnMut(Gap) -> bool,
) -> i32 {
    let mut limit = limit_offset.min(term.length() as i32);
    let mut at = offset;
    let mut rebuild_offset = None;
    while at < limit && is_slot(term, at) {
        match length_at(term, at) {
            0 => {
                if rebuild_offset.is_none() {
                    limit = limit.min(at.saturating_add(GAP_SCAN_BYTES_MAX));
                }
                let end = end_of_gap(term, at, limit);
                rebuild_offset.get_or_insert(at);
                let gap = Gap {
                    offset: at,
                    length: end - at,
                };
                at = end;
                if !on_gap(gap) {
                    break;
                }
            }
            _ => {
                let slot = term.slot(at as usize);
                // SYNC frame-length: acquire.
                let Some(frame) = FrameView::new(slot, slot.load_acquire(HeaderWord::Length)) else {
                    break;
                };
                at = frame.next_offset();
            }
        }
    }
    rebuild_offset.unwrap_or(at)
}

/// The next slot below the limit that has something in it, or the limit rounded up to a slot.
fn end_of_gap<B: Words>(term: &Term<B>, offset: i32, limit: i32) -> i32 {
    let mut end = offset + FRAME_ALIGNMENT as i32;
    while end < limit && length_at(term, end) == 0 {
        end += FRAME_ALIGNMENT as i32;
    }
    end
}

#[inline]
fn length_at<B: Words>(term: &Term<B>, offset: i32) -> i32 {
    // SYNC frame-length: acquire.
    word_length(term.slot(offset as usize).load_acquire(HeaderWord::Length))
}
