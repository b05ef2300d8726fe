//! Rebuilding a term from received datagrams (wire-protocol spec 4.3, Insert). Receiver only: one thread inserts.
#![forbid(unsafe_code)]

use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::log::frame::word_length;
use crate::log::scan::is_slot;
use crate::log::words::{HeaderWord, Term, Words};

/// Writes the frames of a datagram that [`crate::wire::validate_data_packet`] has found sound into the term at
/// `offset`, the term offset of its first frame. `false`, and nothing written, if there is a frame already (a
/// duplicate), or if the datagram does not fit.
///
/// Readers find frames in order, so none of these is seen before the first one's length is. The frames behind it may
/// be there already, from a datagram that was cut differently: nobody has read them, because the first is missing.
#[inline]
pub fn insert<B: Words>(term: &Term<B>, offset: i32, datagram: &[u8]) -> bool {
    let Some((header, payload)) = datagram.split_first_chunk::<FRAME_HEADER_LENGTH>() else {
        return false;
    };
    let fits = is_slot(term, offset)
        && datagram.len().is_multiple_of(FRAME_ALIGNMENT)
        && datagram.len() <= term.length() - offset as usize;
    if !fits {
        return false;
    }
    let slot = term.slot(offset as usize);
    // Written by this thread only, so no ordering is needed to see it.
    if word_length(slot.load_relaxed(HeaderWord::Length)) != 0 {
        return false;
    }
    slot.copy_payload(0, payload);
    let [length, offset, stream, reserved] = words(header);
    slot.store_relaxed(HeaderWord::Reserved, reserved);
    slot.store_relaxed(HeaderWord::Stream, stream);
    slot.store_relaxed(HeaderWord::Offset, offset);
    // SYNC frame-length: publishes the frames of the whole datagram.
    slot.store_release(HeaderWord::Length, length);
    true
}

/// The header as the words it has in a term.
#[inline]
fn words(header: &[u8; FRAME_HEADER_LENGTH]) -> [i64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<8>().0) {
        *word = i64::from_le_bytes(*bytes);
    }
    words
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::log::frame::{FrameView, TYPE_DATA};
    use crate::log::read::{Action, scan_fragments};
    use crate::memory::{AtomicBuffer, Region};

    fn frame(offset: i32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = crate::wire::DataHeader {
            frame_length: payload.len() as i32 + 32,
            version: 0,
            flags: 0xC0,
            frame_type: crate::wire::FrameType::DATA,
            term_offset: offset,
            session_id: crate::id::SessionId(-7),
            stream_id: crate::id::StreamId(1001),
            term_id: crate::id::TermId(i32::MIN),
            reserved_value: i64::MIN + 5,
        }
        .encode()
        .to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(crate::bits::align(bytes.len(), 32), 0);
        bytes
    }

    #[test]
    fn an_inserted_datagram_is_read_frame_by_frame() {
        let term = Term::new(Region::heap(1024).as_view()).unwrap();
        let datagram = [frame(64, b"one"), frame(128, &[7; 100])].concat();
        assert!(insert(&term, 64, &datagram));
        let mut seen = Vec::new();
        let result = scan_fragments(&term, 64, 1024, 10, |view: FrameView<'_, _>| {
            assert_eq!(view.session_id(), crate::id::SessionId(-7));
            assert_eq!(view.stream_id(), crate::id::StreamId(1001));
            assert_eq!(view.term_id(), crate::id::TermId(i32::MIN));
            assert_eq!(view.term_offset(), view.offset());
            assert_eq!((view.frame_type(), view.flags()), (TYPE_DATA, 0xC0));
            assert_eq!(view.reserved_value(), i64::MIN + 5);
            seen.push(view.payload().to_vec());
            Action::Continue
        });
        assert_eq!(seen, [b"one".to_vec(), vec![7; 100]]);
        assert_eq!((result.offset, result.corrupt), (288, false));
        let mut bytes = vec![0; datagram.len()];
        term.copy_out(64, &mut bytes);
        assert_eq!(bytes, datagram);
    }

    #[test]
    fn a_datagram_whose_first_frame_is_there_changes_nothing() {
        let term = Term::new(Region::heap(1024).as_view()).unwrap();
        assert!(insert(&term, 0, &frame(0, b"first")));
        let mut before = vec![0; 1024];
        term.copy_out(0, &mut before);
        let other = [frame(0, b"other"), frame(64, b"more")].concat();
        assert!(!insert(&term, 0, &other));
        let mut after = vec![0; 1024];
        term.copy_out(0, &mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn a_datagram_that_does_not_fit_changes_nothing() {
        let term = Term::new(Region::heap(1024).as_view()).unwrap();
        let bytes = frame(0, &[1; 64]);
        for offset in [-32, 33, 1024, 960, i32::MIN, i32::MAX] {
            assert!(!insert(&term, offset, &bytes), "{offset}");
        }
        assert!(!insert(&term, 0, &bytes[..31]));
        assert!(!insert(&term, 0, &bytes[..63]));
        assert!(!insert(&term, 0, &[]));
        let mut after = vec![0; 1024];
        term.copy_out(0, &mut after);
        assert_eq!(after, vec![0; 1024]);
        assert!(insert(&term, 928, &bytes));
    }
}
