//! A log as a receiver has it: datagrams come in at any offset, whatever stands in the term already; gaps are searched
//! and filled, and what is there is scanned for sending. Everything ends inside the term.
#![no_main]

use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::log::{
    Gap, Term, for_each_gap, gap_fill, rebuild, run_of_equal, scan::datagram_bytes, scan_datagram,
};
use fulmar::memory::{AtomicBuffer, View};
use fulmar::wire::{DataHeader, FrameType};
use fulmar_fuzz::{Input, TERM_LENGTH, region};
use libfuzzer_sys::fuzz_target;

const TERM: i32 = TERM_LENGTH as i32;

/// Mostly a slot, sometimes any number.
fn offset(input: &mut Input<'_>) -> i32 {
    match input.u8() {
        255 => input.i32(),
        slot => i32::from(slot & 31) * 32,
    }
}

/// Frames one behind the other, as a sender would make them, or any bytes.
fn datagram(input: &mut Input<'_>, offset: i32) -> Vec<u8> {
    if input.u8() & 7 == 7 {
        let length = usize::from(input.u8()) * 32;
        return input.bytes(length).to_vec();
    }
    let mut bytes = Vec::new();
    for _ in 0..=input.u8() & 3 {
        let frame_length = i32::from(input.u8()) + 32;
        let is_padding = input.u8() & 15 == 15;
        let header = DataHeader {
            frame_length,
            version: 0,
            flags: 0xC0,
            frame_type: if is_padding {
                FrameType::PAD
            } else {
                FrameType::DATA
            },
            term_offset: offset.wrapping_add(bytes.len() as i32),
            session_id: SessionId(1),
            stream_id: StreamId(2),
            term_id: TermId(3),
            reserved_value: 0,
        };
        bytes.extend_from_slice(&header.encode());
        if is_padding {
            break;
        }
        bytes.extend_from_slice(&vec![0x55; (frame_length as usize).next_multiple_of(32) - 32]);
    }
    bytes
}

fn snapshot(term: &Term<View>) -> Vec<u8> {
    let mut bytes = vec![0; TERM_LENGTH];
    term.copy_out(0, &mut bytes);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let scribbled = usize::from(input.u8() & 0x80) * 8;
    let term = Term::new(region(TERM_LENGTH, input.bytes(scribbled)).as_view()).expect("the length is right");
    for _ in 0..64 {
        if input.is_empty() {
            return;
        }
        let operation = input.u8();
        let at = offset(&mut input);
        match operation & 3 {
            0 => {
                let bytes = datagram(&mut input, at);
                let before = snapshot(&term);
                let after = if rebuild::insert(&term, at, &bytes) {
                    let mut expected = before;
                    let start = at as usize;
                    assert_eq!(expected[start..start + 4], [0; 4], "a frame was overwritten");
                    expected[start..start + bytes.len()].copy_from_slice(&bytes);
                    expected
                } else {
                    before
                };
                assert!(snapshot(&term) == after);
            }
            1 => {
                let limit = offset(&mut input);
                let mut end = at;
                let rebuilt = for_each_gap(&term, at, limit, |gap| {
                    assert!(
                        gap.offset >= end && gap.length > 0 && gap.offset % 32 == 0 && gap.length % 32 == 0
                    );
                    end = gap.offset + gap.length;
                    assert!(end <= TERM);
                    true
                });
                assert!(rebuilt == at || (at..=TERM).contains(&rebuilt));
            }
            2 => {
                let gap = Gap {
                    offset: at,
                    length: offset(&mut input),
                };
                let before = snapshot(&term);
                if gap_fill::fill(&term, gap, SessionId(1), StreamId(2), TermId(3)) {
                    let (start, end) = (at as usize, (at + gap.length) as usize);
                    assert!(before[start..end].chunks(32).all(|slot| slot[..4] == [0; 4]));
                    let after = snapshot(&term);
                    assert_eq!(after[end..], before[end..]);
                    assert_eq!(
                        DataHeader::parse(&after[start..]).map(|pad| pad.frame_length),
                        Some(gap.length)
                    );
                } else {
                    assert!(snapshot(&term) == before);
                }
            }
            _ => {
                let (limit, mtu) = (input.i32(), i32::from(input.u16()));
                let scan = scan_datagram(&term, at, mtu.min(limit));
                assert!(scan.length >= 0 && scan.padding >= 0 && scan.length <= mtu.min(limit).max(0));
                assert!(scan.advance() == 0 || at + scan.advance() <= TERM);
                assert_eq!(datagram_bytes(&term, at, scan.length).len(), scan.length as usize);
                let run = run_of_equal(&term, at, limit, mtu, usize::from(operation >> 2));
                assert!(run.segments <= usize::from(operation >> 2) && run.length <= limit.max(0));
                assert!(run.advance() == 0 || at + run.advance() <= TERM);
                assert!(run.segments == 0 || run.segment_length == scan.length);
            }
        }
    }
});
