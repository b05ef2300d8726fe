//! Giving up a gap: an unreliable stream turns it into padding (wire-protocol spec 4.4). Receiver only: the thread
//! that inserts is the one that fills.
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::log::frame::{
    FLAGS_UNFRAGMENTED, TYPE_PADDING, length_word, offset_word, stream_word, word_length,
};
use crate::log::gap::{GAP_SCAN_BYTES_MAX, Gap};
use crate::log::scan::is_slot;
use crate::log::words::{HeaderWord, Term, Words};

/// Makes the gap one padding frame. `false`, and nothing written, if anything has arrived in it meanwhile, or if it
/// is none: unaligned, outside the term, or longer than a scan finds.
#[must_use]
pub fn fill<B: Words>(
    term: &Term<B>,
    gap: Gap,
    session_id: SessionId,
    stream_id: StreamId,
    term_id: TermId,
) -> bool {
    let is_gap = is_slot(term, gap.offset)
        && (FRAME_HEADER_LENGTH as i32..=GAP_SCAN_BYTES_MAX).contains(&gap.length)
        && gap.length % FRAME_ALIGNMENT as i32 == 0
        && gap.length as usize <= term.length() - gap.offset as usize;
    if !is_gap {
        return false;
    }
    let start = gap.offset as usize;
    let is_zero = (start..start + gap.length as usize)
        .step_by(FRAME_ALIGNMENT)
        .all(|at| word_length(term.slot(at).load_relaxed(HeaderWord::Length)) == 0);
    if !is_zero {
        return false;
    }
    let slot = term.slot(start);
    slot.store_relaxed(HeaderWord::Reserved, 0);
    slot.store_relaxed(HeaderWord::Stream, stream_word(stream_id, term_id));
    slot.store_relaxed(HeaderWord::Offset, offset_word(gap.offset, session_id));
    // SYNC frame-length: publishes the padding.
    slot.store_release(
        HeaderWord::Length,
        length_word(gap.length, FLAGS_UNFRAGMENTED, TYPE_PADDING),
    );
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::log::frame::TYPE_DATA;
    use crate::memory::Region;

    #[test]
    fn what_has_arrived_in_a_gap_meanwhile_is_not_padded_over() {
        let term = Term::new(Region::heap(1024).as_view()).unwrap();
        let gap = Gap {
            offset: 64,
            length: 128,
        };
        let fill = || fill(&term, gap, SessionId(1), StreamId(2), TermId(3));
        let length_at = |offset| word_length(term.slot(offset).load_acquire(HeaderWord::Length));
        let frame = length_word(64, FLAGS_UNFRAGMENTED, TYPE_DATA);
        term.slot(128).store_release(HeaderWord::Length, frame);
        assert!(!fill());
        assert_eq!((length_at(64), length_at(128)), (0, 64));
        term.slot(128).store_release(HeaderWord::Length, 0);
        assert!(fill());
        assert_eq!(length_at(64), 128);
    }
}
