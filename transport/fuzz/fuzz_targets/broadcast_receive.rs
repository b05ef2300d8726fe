//! To-clients broadcast: whatever stands in it, receiving ends, copies no more than a message can be long, and a
//! message sent afterwards is received.
#![no_main]

use fulmar::memory::AtomicBuffer;
use fulmar::ring::broadcast_tx::TRAILER_LENGTH;
use fulmar::ring::{BroadcastReceiver, BroadcastTransmitter};
use fulmar_fuzz::{Input, region};
use libfuzzer_sys::fuzz_target;

const CAPACITY: usize = 1024;
const TRAILER_WORDS: usize = 3;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let start = input.position(8);
    let trailer: [i64; TRAILER_WORDS] = core::array::from_fn(|_| input.position(8));
    let region = region(CAPACITY + TRAILER_LENGTH, input.bytes(CAPACITY));
    let view = region.as_view();
    // The receiver starts at the tail it finds, so the tail is set twice.
    let fill = |first: i64| {
        for (index, word) in trailer.iter().enumerate() {
            view.store_relaxed_i64(CAPACITY + 8 * index, if index == 1 { first } else { *word });
        }
    };
    fill(start);
    let mut receiver = BroadcastReceiver::new(view.clone()).expect("the length is right");
    fill(trailer[1]);
    let mut scratch = Vec::new();
    for _ in 0..2 * CAPACITY / 8 {
        match receiver.receive(&mut scratch) {
            Ok(Some(type_id)) => {
                assert_ne!(type_id, -1);
                assert!(scratch.len() <= CAPACITY / 8);
            }
            Ok(None) => break,
            Err(_) => assert!(receiver.lapped_count() > 0),
        }
    }
    // The driver's own memory is sound; only what it wrote was scribbled over.
    if let Ok(mut transmitter) = BroadcastTransmitter::new(view.clone()) {
        let mut receiver = BroadcastReceiver::new(view.clone()).expect("the length is right");
        if transmitter.transmit(7, b"probe").is_ok() {
            let _ = receiver.receive(&mut scratch);
            transmitter.transmit(7, b"again").expect("it worked before");
            let received = receiver.receive(&mut scratch);
            if view.load_relaxed_i64(CAPACITY + 8) & 7 == 0 && trailer[1] == trailer[0] {
                assert_eq!((received, scratch.as_slice()), (Ok(Some(7)), &b"again"[..]));
            }
        }
    }
});
