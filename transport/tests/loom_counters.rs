//! Counters that come and go while somebody reads them, under every interleaving.
#![cfg(loom)]

mod loom_model;

use fulmar::counters::layout::{
    KEY_LENGTH, KEY_OFFSET, LABEL_LENGTH_OFFSET, METADATA_LENGTH, STATE_OFFSET, STATE_RECLAIMED, VALUE_LENGTH,
};
use fulmar::counters::{CounterRecord, CountersManager, CountersReader};
use fulmar::id::CounterId;
use fulmar::time::{EpochMs, NanoTime, Now};
use loom::thread;
use loom_model::{ModelWords, Weakness, check};

const NOW: Now = Now {
    nanos: NanoTime(0),
    epoch: EpochMs(0),
};
const ID: CounterId = CounterId(0);

type Ends = (CountersManager<ModelWords>, CountersReader<ModelWords>);

fn counters(weakness: Weakness) -> Ends {
    // One word of the key is enough, and every further one multiplies the states to look at.
    let ignored = (KEY_OFFSET + 8, KEY_OFFSET + KEY_LENGTH);
    let metadata = ModelWords::ignoring(2 * METADATA_LENGTH, weakness, ignored);
    let values = ModelWords::new(2 * VALUE_LENGTH, Weakness::None);
    (
        CountersManager::new(metadata.clone(), values.clone(), 0).expect("the lengths are right"),
        CountersReader::new(metadata, values).expect("the lengths are right"),
    )
}

/// A counter all of whose fields tell the same number.
fn allocate(manager: &mut CountersManager<ModelWords>, number: u8) {
    let id = manager.allocate(
        NOW,
        i32::from(number),
        &[number; 8],
        [number; 4],
        i64::from(number),
        i64::from(number),
        i64::from(number),
    );
    assert_eq!(id, Ok(ID));
}

/// The number that all fields of a record tell.
fn number(record: &CounterRecord) -> u8 {
    let number = record.key[0];
    assert_eq!(record.key[..8], [number; 8], "one counter");
    assert_eq!(record.type_id, i32::from(number), "one counter");
    assert_eq!(record.label.as_bytes(), [number; 4], "one counter");
    assert_eq!(record.registration_id, i64::from(number), "one counter");
    assert_eq!(record.owner_id, i64::from(number), "one counter");
    assert_eq!(record.reference_id, i64::from(number), "one counter");
    number
}

fn allocation(weakness: Weakness) {
    check(3, move || {
        let (mut manager, reader) = counters(weakness);
        let conductor = thread::spawn(move || {
            allocate(&mut manager, 1);
        });
        if let Some(record) = reader.record(ID) {
            assert_eq!(number(&record), 1);
        }
        conductor.join().expect("the conductor does not panic");
        assert_eq!(number(&reader.record(ID).expect("it is live")), 1);
    });
}

#[test]
fn a_counter_is_complete_once_it_is_live() {
    allocation(Weakness::None);
}

#[test]
#[should_panic(expected = "one counter")]
fn a_state_that_publishes_nothing_is_found() {
    allocation(Weakness::RelaxedStore(STATE_OFFSET));
}

fn reuse(weakness: Weakness) {
    check(2, move || {
        let (mut manager, reader) = counters(weakness);
        allocate(&mut manager, 1);
        let conductor = thread::spawn(move || {
            assert!(manager.free(NOW, ID));
            allocate(&mut manager, 2);
        });
        if let Some(record) = reader.record(ID) {
            assert!([1, 2].contains(&number(&record)));
        }
        conductor.join().expect("the conductor does not panic");
        assert_eq!(number(&reader.record(ID).expect("it is live")), 2);
    });
}

#[test]
fn a_record_is_of_one_counter_even_when_its_id_is_used_again() {
    reuse(Weakness::None);
}

#[test]
#[should_panic(expected = "one counter")]
fn an_end_announced_too_late_is_found() {
    reuse(Weakness::LateHalf {
        half: STATE_OFFSET,
        value: STATE_RECLAIMED,
        until: KEY_OFFSET,
    });
}

fn append(weakness: Weakness) {
    check(3, move || {
        let (mut manager, reader) = counters(weakness);
        allocate(&mut manager, b'a');
        let owner = reader.clone();
        let client = thread::spawn(move || owner.append_label(ID, "bbbb"));
        let label = reader.label(ID).expect("the id is in range");
        assert!(
            label == "aaaa" || label == "aaaabbbb",
            "a whole label, not {label:?}"
        );
        assert_eq!(client.join().expect("the client does not panic"), Some(4));
        assert_eq!(reader.label(ID).expect("the id is in range"), "aaaabbbb");
    });
}

#[test]
fn a_label_grows_in_whole_pieces() {
    append(Weakness::None);
}

#[test]
#[should_panic(expected = "a whole label")]
fn a_label_length_that_publishes_nothing_is_found() {
    append(Weakness::RelaxedStore(LABEL_LENGTH_OFFSET));
}
