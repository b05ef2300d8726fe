//! Publishing to a log whose tails and frames are scribbled over: any outcome is right, but there is one.
#![no_main]

use fulmar::log::{ConcurrentAppender, ExclusiveAppender, FrameFields, NoReservedValue, NoWindow};
use fulmar_fuzz::{Input, scribbled_log};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let log = scribbled_log(&mut input);
    let limit = input.position(32);
    let message = [7; 2048];
    let mut exclusive = ExclusiveAppender::new(log.clone());
    let concurrent = ConcurrentAppender::new(log.clone(), 0x1234);
    for operation in input.bytes(16) {
        let length = usize::from(operation >> 3) * 33;
        let source = &message[..length];
        match operation & 7 {
            0 | 1 => drop(concurrent.offer(&NoWindow, source, &NoReservedValue, limit)),
            2 => {
                if let Ok(claimed) = concurrent.claim(&NoWindow, length, limit) {
                    let _ = concurrent.commit(
                        &NoWindow,
                        &claimed,
                        &source[..claimed.length()],
                        FrameFields::default(),
                    );
                }
            }
            3 => {
                if let Ok(claimed) = concurrent.claim(&NoWindow, length, limit) {
                    let _ = concurrent.abort(&NoWindow, &claimed);
                }
            }
            4 => drop(exclusive.offer(source, &NoReservedValue, limit)),
            5 => drop(exclusive.append_padding(length, limit)),
            6 => drop(exclusive.offer_block(source, limit)),
            _ => {
                if let Ok(claimed) = exclusive.claim(length, limit) {
                    exclusive.commit(&claimed, &source[..claimed.length()], FrameFields::default());
                }
            }
        }
        let _ = (concurrent.position(), exclusive.position());
    }
});
