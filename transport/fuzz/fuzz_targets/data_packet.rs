//! A datagram of data: if its structure is found sound, then inserting it gives exactly the bytes it covers, and
//! readers find frames that end where the datagram's extent does.
#![no_main]

use fulmar::log::{Action, Term, rebuild, scan_fragments, scan_gap};
use fulmar::memory::{AtomicBuffer, Region};
use fulmar::wire::{DataHeader, FrameKind, classify, validate_data_packet};
use libfuzzer_sys::fuzz_target;

const TERM: i32 = 1 << 12;

fuzz_target!(|data: &[u8]| {
    let Ok(extent) = validate_data_packet(data, TERM) else {
        return;
    };
    let first = DataHeader::parse(data).expect("a sound packet has a header");
    let (offset, length) = (first.term_offset, extent.length as i32);
    assert!(offset >= 0 && offset % 32 == 0 && offset + length <= TERM);
    if extent.heartbeat {
        assert_eq!((data.len(), length), (32, 0));
        return;
    }
    assert!(length as usize >= data.len() && length % 32 == 0);
    if classify(data) != Ok(FrameKind::Data) {
        return;
    }
    let term = Term::new(Region::heap(TERM as usize).as_view()).expect("the length is right");
    assert!(rebuild::insert(&term, offset, data));
    assert!(!rebuild::insert(&term, offset, data), "inserted twice");
    let mut bytes = vec![0; TERM as usize];
    term.copy_out(0, &mut bytes);
    let start = offset as usize;
    assert_eq!(&bytes[start..start + data.len()], data);
    assert!(
        bytes[..start]
            .iter()
            .chain(&bytes[start + data.len()..])
            .all(|byte| *byte == 0)
    );
    let mut at = offset;
    let result = scan_fragments(&term, offset, TERM, usize::MAX, |frame| {
        assert!(frame.offset() >= at && frame.term_offset() == frame.offset());
        at = frame.next_offset();
        Action::Continue
    });
    assert_eq!((result.offset, result.corrupt), (offset + length, false));
    assert_eq!(scan_gap(&term, offset, offset + length).gap, None);
});
