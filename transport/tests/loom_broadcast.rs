//! The broadcast under every interleaving of transmitter and receiver.
#![cfg(loom)]

mod loom_model;

use fulmar::ring::broadcast_tx::TRAILER_LENGTH;
use fulmar::ring::{BroadcastReceiver, BroadcastTransmitter, Lapped};
use loom::thread;
use loom_model::{ModelWords, Weakness, check};

/// Four records with 8 bytes of payload, which is also the most that goes in.
const CAPACITY: usize = 64;
const INTENT: usize = CAPACITY;
const TAIL: usize = CAPACITY + 8;

type Ends = (BroadcastTransmitter<ModelWords>, BroadcastReceiver<ModelWords>);

fn broadcast(weakness: Weakness) -> Ends {
    let words = ModelWords::new(CAPACITY + TRAILER_LENGTH, weakness);
    (
        BroadcastTransmitter::new(words.clone()).expect("the length is right"),
        BroadcastReceiver::new(words).expect("the length is right"),
    )
}

/// The event that has no payload.
const EMPTY: i32 = 4;

fn payload(number: i32) -> Vec<u8> {
    if number == EMPTY {
        return Vec::new();
    }
    i64::from(number).to_le_bytes().to_vec()
}

fn transmit(tx: &mut BroadcastTransmitter<ModelWords>, number: i32) {
    tx.transmit(number, &payload(number)).expect("8 bytes go in");
}

/// The next event, whose type and payload must belong together.
fn receive(rx: &mut BroadcastReceiver<ModelWords>) -> Result<Option<i32>, Lapped> {
    let mut scratch = Vec::new();
    let received = rx.receive(&mut scratch);
    if let Ok(Some(type_id)) = received {
        assert_eq!(scratch, payload(type_id), "a whole event");
    }
    received
}

/// Events in flight are seen in order, whole or not at all.
fn in_order(weakness: Weakness) {
    check(3, move || {
        let (mut tx, mut rx) = broadcast(weakness);
        let transmitter = thread::spawn(move || {
            transmit(&mut tx, 1);
            transmit(&mut tx, 2);
        });
        let mut received = Vec::new();
        for _ in 0..2 {
            received.extend(receive(&mut rx).expect("nobody is lapped"));
        }
        transmitter.join().expect("the transmitter does not panic");
        while let Some(event) = receive(&mut rx).expect("nobody is lapped") {
            received.push(event);
        }
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn events_arrive_whole_and_in_order() {
    in_order(Weakness::None);
}

#[test]
#[should_panic]
fn a_tail_that_publishes_nothing_is_found() {
    in_order(Weakness::RelaxedStore(TAIL));
}

/// The transmitter comes around while the receiver copies the oldest event: three events and an empty one leave 8 bytes,
/// so that the next starts over behind padding.
fn lapping(weakness: Weakness) {
    check(3, move || {
        let (mut tx, mut rx) = broadcast(weakness);
        for number in 1..=EMPTY {
            transmit(&mut tx, number);
        }
        let transmitter = thread::spawn(move || {
            transmit(&mut tx, 5);
            tx
        });
        let first = receive(&mut rx);
        assert!(
            first == Ok(Some(1)) || first == Err(Lapped::Overrun),
            "the oldest event or the truth, not {first:?}"
        );
        let mut tx = transmitter.join().expect("the transmitter does not panic");
        let mut rest = Vec::new();
        let end = loop {
            match receive(&mut rx) {
                Ok(Some(event)) => rest.push(event),
                end => break end,
            }
        };
        match (first, end) {
            (Ok(_), Ok(_)) => assert_eq!(rest, [2, 3, EMPTY, 5]),
            // The second event is gone as well: lost is everything up to the tail.
            (Ok(_), Err(lapped)) => assert_eq!((lapped, rest.len()), (Lapped::Overrun, 0)),
            // Behind the tail as it was when the loss was found.
            (Err(_), end) => assert!(end == Ok(None) && (rest.is_empty() || rest == [5])),
        }
        transmit(&mut tx, 6);
        assert_eq!(receive(&mut rx), Ok(Some(6)));
    });
}

#[test]
fn a_lapped_receiver_never_takes_a_mixed_event() {
    lapping(Weakness::None);
}

#[test]
#[should_panic(expected = "a whole event")]
fn an_intent_announced_too_late_is_found() {
    lapping(Weakness::Late {
        word: INTENT,
        until: TAIL,
    });
}
