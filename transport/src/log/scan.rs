//! Finding what to send: datagrams of whole committed frames (wire-protocol spec 2.5, 3.4).
//!
//! The log belongs to publishers, which may write anything into it while it is scanned: a frame whose length can not
//! be ends a datagram like one that is not committed.
#![forbid(unsafe_code)]

use crate::id::{SessionId, StreamId, TermId};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::log::frame::FrameView;
#[cfg(not(loom))]
use crate::log::frame::Payload;
use crate::log::words::{HeaderWord, Term, Words};
#[cfg(not(loom))]
use crate::memory::View;

/// Most bytes of one run of datagrams: what one system call can hand to the network at once.
pub const RUN_MAX_LENGTH: i32 = 65_504;

/// One datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes to put on the wire: whole frames, and of a padding frame its header. 0 if there is nothing to send.
    pub length: i32,
    /// Bytes of the padding frame at the end that do not travel; the position moves over them as well.
    pub padding: i32,
}

impl Scan {
    /// Bytes that the position moves by.
    #[inline]
    #[must_use]
    pub const fn advance(&self) -> i32 {
        self.length + self.padding
    }
}

/// Finds the longest datagram of committed frames at `offset` that has at most `max_length` bytes: the least of MTU,
/// flow-control window left, and bytes left in the term. Frames that do not fit as a whole stay behind; a padding
/// frame ends the datagram, and only its header counts.
#[inline]
#[must_use]
pub fn scan_datagram<B: Words>(term: &Term<B>, offset: i32, max_length: i32) -> Scan {
    let mut scan = Scan::default();
    if !is_slot(term, offset) {
        return scan;
    }
    let mut at = offset as usize;
    // A limit that is negative admits no frame.
    let end = at + max_length.max(0) as usize;
    while at + FRAME_HEADER_LENGTH <= end && at < term.length() {
        let slot = term.slot(at);
        // SYNC frame-length: the frame is complete once this is positive.
        let Some(frame) = FrameView::new(slot, slot.load_acquire(HeaderWord::Length)) else {
            break;
        };
        let next = frame.next_offset() as usize;
        if frame.is_padding() {
            scan.padding = (next - at - FRAME_HEADER_LENGTH) as i32;
            at += FRAME_HEADER_LENGTH;
            break;
        }
        if next > end {
            break;
        }
        at = next;
    }
    scan.length = at as i32 - offset;
    scan
}

/// A run of datagrams that lie behind each other in the term: all of `segment_length` bytes but the last, which may
/// be shorter. It can be handed to the network as one piece to be cut there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Length of every datagram but the last, bytes.
    pub segment_length: i32,
    /// Datagrams.
    pub segments: usize,
    /// Bytes to put on the wire, from the start offset on. 0 if there is nothing to send.
    pub length: i32,
    /// Bytes of the padding frame at the end that do not travel; the position moves over them as well.
    pub padding: i32,
}

impl Run {
    /// Bytes that the position moves by.
    #[inline]
    #[must_use]
    pub const fn advance(&self) -> i32 {
        self.length + self.padding
    }
}

/// Finds the longest run of datagrams at `offset`: each of at most `mtu` bytes, together of at most `max_length` (the
/// window left or the bytes left in the term) and [`RUN_MAX_LENGTH`], and no more than `max_segments` of them. A
/// datagram here is what [`scan_datagram`] finds at its place, so that a run carries the same datagrams as single
/// sends do, except that the last one is cut at whole frames where [`RUN_MAX_LENGTH`] ends.
#[inline]
#[must_use]
pub fn run_of_equal<B: Words>(
    term: &Term<B>,
    offset: i32,
    max_length: i32,
    mtu: i32,
    max_segments: usize,
) -> Run {
    let mut run = Run::default();
    let limit = max_length.clamp(0, RUN_MAX_LENGTH);
    while run.segments < max_segments {
        let scan = scan_datagram(term, offset.wrapping_add(run.length), mtu.min(limit - run.length));
        if scan.length == 0 || (run.segments > 0 && scan.length > run.segment_length) {
            break;
        }
        if run.segments == 0 {
            run.segment_length = scan.length;
        }
        run.segments += 1;
        run.length += scan.length;
        run.padding = scan.padding;
        // Behind padding memory and position part; behind a shorter datagram the pieces would not be told apart.
        if scan.length < run.segment_length || scan.padding > 0 {
            break;
        }
    }
    run
}

/// The bytes of a datagram or a run that was found at `offset`, where they lie. They may change while they are sent,
/// so they are only handed to the system by address. What would pass the term is left out.
#[cfg(not(loom))]
#[inline]
#[must_use]
pub fn datagram_bytes(term: &Term<View>, offset: i32, length: i32) -> Payload<'_> {
    let slot = term.slot(offset as u32 as usize);
    let length = (length.max(0) as usize).min(slot.remaining());
    term.payload(slot.offset(), length)
        .unwrap_or(Payload::from_slice(&[]))
}

/// Whether a complete frame that names this very place and stream starts at `offset`. Bytes in the middle of a message may
/// look like a frame of any length; who asks from outside for a place in the log may have meant them. What passes all the
/// same is a payload with the very header that would stand there: only a walk from the start of the term could tell.
#[inline]
#[must_use]
pub fn starts_frame<B: Words>(
    term: &Term<B>,
    offset: i32,
    term_id: TermId,
    stream: (SessionId, StreamId),
) -> bool {
    if !is_slot(term, offset) {
        return false;
    }
    let slot = term.slot(offset as usize);
    // SYNC frame-length: the frame is complete once this is positive.
    FrameView::new(slot, slot.load_acquire(HeaderWord::Length)).is_some_and(|frame| {
        frame.term_offset() == offset
            && frame.term_id() == term_id
            && (frame.session_id(), frame.stream_id()) == stream
    })
}

/// Whether a frame can start at this offset.
#[inline]
pub(super) fn is_slot<B: Words>(term: &Term<B>, offset: i32) -> bool {
    offset >= 0 && (offset as usize) < term.length() && (offset as usize).is_multiple_of(FRAME_ALIGNMENT)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::frame::{FLAGS_UNFRAGMENTED, TYPE_DATA, TYPE_PADDING, length_word};
    use crate::memory::{AtomicBuffer, Region};

    const LENGTH: usize = 4096;

    fn term() -> Term<View> {
        Term::new(Region::heap(LENGTH).as_view()).expect("the length is right")
    }

    fn put(term: &Term<View>, offset: usize, length: i32, frame_type: u16) {
        let word = length_word(length, FLAGS_UNFRAGMENTED, frame_type);
        term.slot(offset).store_release(HeaderWord::Length, word);
    }

    fn scan(length: i32, padding: i32) -> Scan {
        Scan { length, padding }
    }

    #[test]
    fn a_datagram_holds_whole_frames_only() {
        let term = term();
        put(&term, 0, 100, TYPE_DATA);
        put(&term, 128, 64, TYPE_DATA);
        put(&term, 192, 33, TYPE_DATA);
        assert_eq!(scan_datagram(&term, 0, 1408), scan(256, 0));
        assert_eq!(scan_datagram(&term, 0, 255), scan(192, 0));
        assert_eq!(scan_datagram(&term, 0, 192), scan(192, 0));
        assert_eq!(scan_datagram(&term, 0, 127), scan(0, 0));
        assert_eq!(scan_datagram(&term, 128, 1408), scan(128, 0));
        assert_eq!(scan_datagram(&term, 256, 1408), scan(0, 0));
    }

    #[test]
    fn only_the_header_of_padding_travels_and_nothing_behind_it() {
        let term = term();
        put(&term, 0, 64, TYPE_DATA);
        put(&term, 64, 1000, TYPE_PADDING);
        put(&term, 1088, 64, TYPE_DATA);
        assert_eq!(scan_datagram(&term, 0, 1408), scan(96, 992));
        assert_eq!(scan_datagram(&term, 0, 96), scan(96, 992));
        assert_eq!(scan_datagram(&term, 0, 95), scan(64, 0));
        assert_eq!(scan_datagram(&term, 64, 32), scan(32, 992));
        assert_eq!(scan_datagram(&term, 64, 32).advance(), 1024);
        put(&term, 4064, 32, TYPE_PADDING);
        assert_eq!(scan_datagram(&term, 4064, 1408), scan(32, 0));
    }

    #[test]
    fn only_a_frame_that_names_its_own_place_starts_there() {
        let term = term();
        let (term_id, stream) = (TermId(-3), (SessionId(7), StreamId(9)));
        let put_header = |offset: usize, named: i32| {
            let bytes = crate::wire::encode_heartbeat(0xC0, stream.0, stream.1, term_id, named);
            term.buffer().copy_in(offset, &bytes);
            put(&term, offset, 64, TYPE_DATA);
        };
        put_header(64, 64);
        put_header(128, 64);
        assert!(starts_frame(&term, 64, term_id, stream));
        assert!(!starts_frame(&term, 128, term_id, stream), "names another place");
        for offset in [-64, 0, 65, 96, LENGTH as i32] {
            assert!(!starts_frame(&term, offset, term_id, stream), "{offset}");
        }
        assert!(!starts_frame(&term, 64, TermId(-2), stream));
        for other in [(SessionId(8), stream.1), (stream.0, StreamId(8))] {
            assert!(!starts_frame(&term, 64, term_id, other));
        }
        put(&term, 64, -64, TYPE_DATA);
        assert!(!starts_frame(&term, 64, term_id, stream), "not complete");
    }

    #[test]
    fn impossible_lengths_offsets_and_limits_find_nothing() {
        let term = term();
        for length in [31, 1, -64, LENGTH as i32 + 1, i32::MAX, i32::MIN] {
            put(&term, 0, length, TYPE_DATA);
            assert_eq!(scan_datagram(&term, 0, i32::MAX), scan(0, 0), "{length}");
        }
        put(&term, 0, 64, TYPE_DATA);
        for (offset, limit) in [
            (-32, 64),
            (33, 64),
            (4096, 64),
            (i32::MIN, 64),
            (0, -1),
            (0, i32::MIN),
        ] {
            assert_eq!(
                scan_datagram(&term, offset, limit),
                scan(0, 0),
                "{offset} {limit}"
            );
            assert_eq!(run_of_equal(&term, offset, limit, 1408, 16).length, 0);
        }
    }

    #[test]
    fn a_run_has_equal_datagrams_and_one_shorter_last() {
        let term = term();
        for offset in [0, 128, 256, 384] {
            put(&term, offset, 128, TYPE_DATA);
        }
        put(&term, 512, 96, TYPE_DATA);
        put(&term, 608, 128, TYPE_DATA);
        let run = run_of_equal(&term, 0, 4096, 160, 16);
        let expected = Run {
            segment_length: 128,
            segments: 5,
            length: 608,
            padding: 0,
        };
        assert_eq!(run, expected);
        assert_eq!(run_of_equal(&term, 0, 4096, 160, 3).length, 384);
        assert_eq!(run_of_equal(&term, 0, 300, 160, 16).length, 256);
        // The short frame first: the longer one behind it starts a run of its own.
        assert_eq!(run_of_equal(&term, 512, 4096, 160, 16).segments, 1);
    }

    #[test]
    fn a_run_ends_with_padding() {
        let term = term();
        put(&term, 0, 128, TYPE_DATA);
        put(&term, 128, 96, TYPE_DATA);
        put(&term, 224, 200, TYPE_PADDING);
        put(&term, 448, 128, TYPE_DATA);
        let run = run_of_equal(&term, 0, 4096, 128, 16);
        assert_eq!((run.segments, run.length, run.padding), (2, 256, 192));
        assert_eq!(run.advance(), 448);
    }

    #[test]
    fn the_bytes_of_a_datagram_stay_inside_the_term() {
        let term = term();
        term.slot(64).store_release(HeaderWord::Reserved, 0x0102_0304);
        assert_eq!(datagram_bytes(&term, 64, 96).len(), 96);
        assert_eq!(datagram_bytes(&term, 64, 96).read_i32(24), Some(0x0102_0304));
        assert_eq!(datagram_bytes(&term, 4064, 96).len(), 32);
        assert_eq!(datagram_bytes(&term, 0, i32::MAX).len(), LENGTH);
        assert_eq!(datagram_bytes(&term, 0, -1).len(), 0);
    }

    proptest! {
        #[test]
        fn a_run_is_what_single_scans_find(
            lengths in prop::collection::vec((prop_oneof![0i32..40, 32..300, Just(-64)], 0u8..20), 1..40),
            limit in 0..5000i32, mtu in 32..600i32, segments in 1..20usize,
        ) {
            let term = term();
            let mut at = 0;
            for (length, kind) in lengths {
                let aligned = crate::bits::align(length.max(32) as usize, 32);
                if at + aligned > LENGTH {
                    break;
                }
                put(&term, at, length, if kind == 0 { TYPE_PADDING } else { TYPE_DATA });
                at += aligned;
            }
            let run = run_of_equal(&term, 0, limit, mtu, segments);
            let mut length = 0;
            for index in 0..run.segments {
                let scan = scan_datagram(&term, length, mtu.min(limit - length));
                prop_assert!(scan.length > 0 && scan.length <= mtu);
                let is_whole = scan.length == run.segment_length && scan.padding == 0;
                prop_assert!(is_whole || index + 1 == run.segments);
                prop_assert!(scan.length <= run.segment_length);
                length += scan.length;
            }
            prop_assert_eq!(length, run.length);
            prop_assert!(run.length <= limit && run.segments <= segments);
        }
    }
}
