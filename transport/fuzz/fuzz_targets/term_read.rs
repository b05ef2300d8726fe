//! Frames: whatever stands in a term, scanning goes forward, stays inside, and hands out payloads that lie inside.
#![no_main]

use fulmar::log::{Action, Term, scan_block, scan_fragments};
use fulmar_fuzz::{Input, TERM_LENGTH, region};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (offset, limit) = (i32::from(input.u16()), input.i32());
    let (fragments, actions, at) = (usize::from(input.u8()), input.u8(), usize::from(input.u16()));
    let offset = if actions & 0x80 == 0 {
        offset & 0x3E0
    } else {
        input.i32()
    };
    let term = Term::new(region(TERM_LENGTH, input.rest()).as_view()).expect("the length is right");
    let mut copy = vec![0; at & 0x1FF];
    let mut seen = 0;
    let result = scan_fragments(&term, offset, limit, fragments, |frame| {
        seen += 1;
        let payload = frame.payload();
        assert_eq!(payload.len(), frame.payload_length());
        assert_eq!(payload.len() + 32, frame.frame_length() as usize);
        assert!(frame.offset() as usize + 32 + payload.len() <= TERM_LENGTH);
        assert!(frame.next_offset() > frame.offset());
        assert_eq!(payload.to_vec().len(), payload.len());
        assert!(payload.eq_bytes(&payload.to_vec()));
        assert_eq!(payload.copy_to(at, &mut copy), at + copy.len() <= payload.len());
        assert_eq!(payload.read_i64(at).is_some(), at + 8 <= payload.len());
        assert_eq!(payload.read_u8(at).is_some(), at < payload.len());
        assert_eq!(
            payload.slice(at, copy.len()).is_some(),
            at + copy.len() <= payload.len()
        );
        let _ = (
            frame.flags(),
            frame.version(),
            frame.session_id(),
            frame.stream_id(),
        );
        let _ = (frame.term_id(), frame.term_offset(), frame.reserved_value());
        match (actions >> (seen & 3)) & 3 {
            3 => Action::Abort,
            2 => Action::Break,
            _ => Action::Continue,
        }
    });
    assert!(result.fragments <= fragments);
    assert!(result.corrupt || (offset..=TERM_LENGTH as i32).contains(&result.offset));
    assert!(result.corrupt || result.offset % 32 == 0);
    let block = scan_block(&term, offset, at);
    assert!(block.corrupt || (offset..=TERM_LENGTH as i32).contains(&block.end_offset));
    assert!(block.corrupt || block.is_padding || (block.end_offset - offset) as usize <= at);
});
