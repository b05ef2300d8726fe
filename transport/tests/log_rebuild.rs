//! From one log to another over a network that loses, repeats and reorders: what a receiver rebuilds is what the
//! publisher wrote, the gaps it finds are exactly what is missing, and gaps that are given up become padding.
#![cfg(not(loom))]

use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::log::scan::datagram_bytes;
use fulmar::log::{
    Action, Gap, HeaderWord, Term, for_each_gap, gap, gap_fill, rebuild, run_of_equal, scan_datagram,
    scan_fragments, scan_gap,
};
use fulmar::memory::{AtomicBuffer, Region, View};
use fulmar::wire::{DataHeader, FrameType, validate_data_packet};
use proptest::prelude::*;

const TERM: i32 = 4096;
const SLOTS: usize = TERM as usize / 32;

fn term(length: usize) -> Term<View> {
    Term::new(Region::heap(length).as_view()).expect("the length is right")
}

fn bytes_of(term: &Term<View>) -> Vec<u8> {
    let mut bytes = vec![0; term.length()];
    term.copy_out(0, &mut bytes);
    bytes
}

fn header(frame_length: i32, term_offset: i32, frame_type: FrameType) -> DataHeader {
    DataHeader {
        frame_length,
        version: 0,
        flags: 0xC0,
        frame_type,
        term_offset,
        session_id: SessionId(11),
        stream_id: StreamId(22),
        term_id: TermId(33),
        reserved_value: i64::from(term_offset) + 1,
    }
}

/// Writes frames of these lengths one behind the other, each a message or padding, as far as the term goes; the rest
/// becomes padding. Returns where they start.
fn publish(term: &Term<View>, lengths: &[(i32, bool)]) -> Vec<i32> {
    let mut starts = Vec::new();
    let mut at = 0;
    for (length, is_padding) in lengths.iter().copied().chain([(TERM, true)]) {
        let length = length.min(TERM - at);
        if at == TERM {
            break;
        }
        let frame_type = if is_padding || length < 32 {
            FrameType::PAD
        } else {
            FrameType::DATA
        };
        term.copy_in(at as usize, &header(length, at, frame_type).encode());
        if frame_type == FrameType::DATA {
            let payload: Vec<u8> = (0..length - 32).map(|index| (index + at) as u8).collect();
            term.copy_in(at as usize + 32, &payload);
        }
        starts.push(at);
        at += (length + 31) & !31;
    }
    starts
}

/// A datagram, and where it belongs.
type Packet = (i32, Vec<u8>);

/// Cuts what was published into datagrams.
fn datagrams(term: &Term<View>, mtu: i32) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut at = 0;
    while at < TERM {
        let scan = scan_datagram(term, at, mtu.min(TERM - at));
        assert!(scan.length > 0, "everything is committed");
        packets.push((at, datagram_bytes(term, at, scan.length).to_vec()));
        at += scan.advance();
    }
    assert_eq!(at, TERM);
    packets
}

fn frame_lengths() -> impl Strategy<Value = Vec<(i32, bool)>> {
    let length = prop_oneof![4 => 32..200i32, 1 => 200..577i32];
    prop::collection::vec((length, prop::bool::weighted(0.1)), 1..60)
}

fn word_length_of(frame: &[u8]) -> i32 {
    DataHeader::parse(frame).map_or(0, |header| header.frame_length)
}

/// What has arrived, by slot, from the frames that were inserted.
fn arrived(term: &Term<View>) -> Vec<bool> {
    let mut slots = vec![false; SLOTS];
    let bytes = bytes_of(term);
    let mut at = 0;
    while at < SLOTS {
        let length = word_length_of(&bytes[at * 32..]);
        let count = if length > 0 {
            (length as usize).div_ceil(32)
        } else {
            0
        };
        slots[at..at + count].fill(true);
        at += count.max(1);
    }
    slots
}

/// The gaps below the limit, from the start of the first on.
fn expected_gaps(slots: &[bool], from: i32, limit: i32) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    for (slot, _) in slots
        .iter()
        .enumerate()
        .take(limit as usize / 32)
        .skip(from as usize / 32)
        .filter(|(_, arrived)| !**arrived)
    {
        let offset = slot as i32 * 32;
        match gaps.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += 32,
            _ => gaps.push(Gap { offset, length: 32 }),
        }
    }
    gaps
}

proptest! {
    #[test]
    fn a_lossy_reordered_stream_is_rebuilt_byte_for_byte(
        lengths in frame_lengths(), mtus in (600..1408i32, 600..1408i32), order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let source = term(TERM as usize);
        publish(&source, &lengths);
        // The retransmission cuts datagrams at other places.
        let (first, second) = (datagrams(&source, mtus.0), datagrams(&source, mtus.1));
        let target = term(TERM as usize);
        let mut oracle = [false; SLOTS];
        for index in &order {
            let packets = if index.index(2) == 0 { &first } else { &second };
            let (offset, bytes) = index.get(packets);
            let extent = validate_data_packet(bytes, TERM).unwrap();
            let slot = *offset as usize / 32;
            let is_inserted = rebuild::insert(&target, *offset, bytes);
            prop_assert_eq!(is_inserted, !oracle[slot]);
            if is_inserted {
                oracle[slot..slot + extent.length as usize / 32].fill(true);
            }
            prop_assert_eq!(&arrived(&target)[..], &oracle[..]);
        }
        // What has not arrived is found as gaps, and asked for again.
        let mut missing = Vec::new();
        let rebuilt = for_each_gap(&target, 0, TERM, |gap| { missing.push(gap); true });
        prop_assert_eq!(&missing, &expected_gaps(&oracle, 0, TERM));
        prop_assert_eq!(rebuilt, missing.first().map_or(TERM, |gap| gap.offset));
        for gap in missing {
            let mut at = gap.offset;
            while at < gap.offset + gap.length {
                let scan = scan_datagram(&source, at, 1408.min(gap.offset + gap.length - at));
                let bytes = datagram_bytes(&source, at, scan.length).to_vec();
                prop_assert!(scan.length > 0 && rebuild::insert(&target, at, &bytes));
                at += scan.advance();
            }
        }
        prop_assert_eq!(scan_gap(&target, 0, TERM).gap, None);
        prop_assert_eq!(bytes_of(&target), bytes_of(&source));
    }

    #[test]
    fn the_first_gap_starts_where_the_contiguous_frames_end(
        lengths in frame_lengths(), lost in prop::collection::vec(any::<bool>(), 60), limit in 0..=TERM / 32, from in any::<prop::sample::Index>(),
    ) {
        let source = term(TERM as usize);
        let starts = publish(&source, &lengths);
        let target = term(TERM as usize);
        for ((offset, bytes), lost) in datagrams(&source, 600).iter().zip(&lost) {
            if !lost {
                prop_assert!(rebuild::insert(&target, *offset, bytes));
            }
        }
        let (from, limit) = (*from.get(&starts), limit * 32);
        let gaps = expected_gaps(&arrived(&target), from, limit);
        let found = scan_gap(&target, from, limit);
        prop_assert_eq!(found.gap, gaps.first().copied());
        match found.gap {
            Some(gap) => prop_assert_eq!(found.rebuild_offset, gap.offset),
            None => prop_assert!(found.rebuild_offset >= limit.min(TERM) && (from..=TERM.max(from)).contains(&found.rebuild_offset)),
        }
    }

    #[test]
    fn gaps_that_are_given_up_become_padding_and_the_rest_is_read(
        lengths in frame_lengths(), lost in prop::collection::vec(any::<bool>(), 60),
    ) {
        let source = term(TERM as usize);
        publish(&source, &lengths);
        let target = term(TERM as usize);
        let mut carried = Vec::new();
        for ((offset, bytes), lost) in datagrams(&source, 600).iter().zip(&lost) {
            if !lost {
                prop_assert!(rebuild::insert(&target, *offset, bytes));
                carried.push(*offset..*offset + bytes.len() as i32);
            }
        }
        let mut gaps = Vec::new();
        for_each_gap(&target, 0, TERM, |gap| { gaps.push(gap); true });
        for gap in &gaps {
            prop_assert!(gap_fill::fill(&target, *gap, SessionId(11), StreamId(22), TermId(33)));
            prop_assert!(!gap_fill::fill(&target, *gap, SessionId(11), StreamId(22), TermId(33)), "filled twice");
            let filled = DataHeader::parse(&bytes_of(&target)[gap.offset as usize..]).unwrap();
            prop_assert_eq!(filled, DataHeader { reserved_value: 0, ..header(gap.length, gap.offset, FrameType::PAD) });
        }
        let mut read = Vec::new();
        let result = scan_fragments(&target, 0, TERM, usize::MAX, |frame| {
            assert!(carried.iter().any(|range| range.contains(&frame.offset())));
            read.push(frame.offset());
            Action::Continue
        });
        prop_assert_eq!((result.offset, result.corrupt), (TERM, false));
        let mut sent = 0;
        scan_fragments(&source, 0, TERM, usize::MAX, |frame| {
            sent += usize::from(carried.iter().any(|range| range.contains(&frame.offset())));
            Action::Continue
        });
        prop_assert_eq!(read.len(), sent);
    }

    #[test]
    fn whatever_stands_in_a_term_every_scan_ends_inside_it(
        words in prop::collection::vec((0..SLOTS, prop_oneof![any::<i32>(), -100..2000i32]), 0..40),
        offset in prop_oneof![any::<i32>(), 0..TERM], limit: i32, mtu: i32, segments in 0..100usize,
        gap_offset in prop_oneof![any::<i32>(), 0..TERM], gap_length in prop_oneof![any::<i32>(), 0..TERM],
    ) {
        let term = term(TERM as usize);
        for (slot, length) in words {
            term.store_relaxed_i32(slot * 32, length);
            term.store_relaxed_i32(slot * 32 + 4, length);
        }
        let scan = scan_datagram(&term, offset, limit);
        prop_assert!(scan.length >= 0 && scan.padding >= 0 && scan.length <= limit.max(0));
        prop_assert!(scan.advance() == 0 || offset + scan.advance() <= TERM);
        let run = run_of_equal(&term, offset, limit, mtu, segments);
        prop_assert!(run.length >= 0 && run.segments <= segments && run.length <= limit.max(0));
        prop_assert!(run.advance() == 0 || offset + run.advance() <= TERM);
        let mut end = offset;
        let rebuilt = for_each_gap(&term, offset, limit, |gap| {
            assert!(gap.offset >= end && gap.length > 0 && gap.offset + gap.length <= TERM);
            assert!(gap.offset + gap.length < limit.saturating_add(32));
            end = gap.offset + gap.length;
            true
        });
        prop_assert!(rebuilt == offset || (offset..=TERM).contains(&rebuilt));
        let before = bytes_of(&term);
        let gap = Gap { offset: gap_offset, length: gap_length };
        if !gap_fill::fill(&term, gap, SessionId(1), StreamId(2), TermId(3)) {
            prop_assert_eq!(bytes_of(&term), before);
        }
    }
}

#[test]
fn a_gap_that_goes_on_for_long_is_found_in_pieces() {
    let term = term(1 << 22);
    let found = scan_gap(&term, 64, 1 << 22);
    let piece = Gap {
        offset: 64,
        length: gap::GAP_SCAN_BYTES_MAX,
    };
    assert_eq!(found.gap, Some(piece));
    // A gap that starts within reach of the first is cut where the reach ends.
    let frame = [header(64, 1 << 20, FrameType::DATA).encode(), [0; 32]].concat();
    assert!(rebuild::insert(&term, 1 << 20, &frame));
    let mut gaps = Vec::new();
    for_each_gap(&term, 96, 1 << 22, |gap| {
        gaps.push((gap.offset, gap.length));
        true
    });
    assert_eq!(gaps, [(96, (1 << 20) - 96), ((1 << 20) + 64, 32)]);
}

#[test]
fn a_frame_with_an_impossible_length_hides_what_lies_behind_it() {
    let term = term(TERM as usize);
    term.slot(64).store_release(HeaderWord::Length, 5);
    let found = scan_gap(&term, 0, TERM);
    assert_eq!(
        found.gap,
        Some(Gap {
            offset: 0,
            length: 64
        })
    );
    let found = scan_gap(&term, 64, TERM);
    assert_eq!((found.rebuild_offset, found.gap), (64, None));
}

#[test]
fn a_gap_in_which_something_has_arrived_is_not_filled() {
    let term = term(TERM as usize);
    let frame = [header(64, 128, FrameType::DATA).encode(), [0; 32]].concat();
    assert!(rebuild::insert(&term, 128, &frame));
    let gap = Gap {
        offset: 64,
        length: 96,
    };
    assert!(!gap_fill::fill(&term, gap, SessionId(1), StreamId(2), TermId(3)));
    let gap = Gap { length: 64, ..gap };
    assert!(gap_fill::fill(&term, gap, SessionId(1), StreamId(2), TermId(3)));
}
