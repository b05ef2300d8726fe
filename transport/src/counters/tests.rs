//! Counters against an oracle, against the bytes of the spec, and against memory that somebody else writes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::layout::{KEY_LENGTH, METADATA_LENGTH, VALUE_LENGTH};
use super::*;
use crate::id::CounterId;
use crate::memory::{AtomicBuffer, Region, View};
use crate::time::{EpochMs, NanoTime, Now};

const RECORDS: usize = 8;
const REUSE_NS: i64 = 1_000_000_000;

fn at(ms: i64) -> Now {
    Now {
        nanos: NanoTime(ms * 1_000_000),
        epoch: EpochMs(1_700_000_000_000 + ms),
    }
}

fn sections() -> (View, View) {
    (
        Region::heap(RECORDS * METADATA_LENGTH).as_view(),
        Region::heap(RECORDS * VALUE_LENGTH).as_view(),
    )
}

fn counters() -> (CountersManager<View>, CountersReader<View>, View, View) {
    let (metadata, values) = sections();
    let manager =
        CountersManager::new(metadata.clone(), values.clone(), REUSE_NS).expect("the lengths are right");
    let reader = CountersReader::new(metadata.clone(), values.clone()).expect("the lengths are right");
    (manager, reader, metadata, values)
}

fn key(text: &[u8]) -> [u8; KEY_LENGTH] {
    let mut key = [0; KEY_LENGTH];
    key[..text.len()].copy_from_slice(text);
    key
}

#[test]
fn a_counter_has_its_documented_bytes() {
    let (mut manager, _reader, metadata, values) = counters();
    manager.allocate(at(0), 7, b"first", "zero", 1, -1, 0).unwrap();
    let id = manager
        .allocate(at(5), 0x0102, b"key", "label", 0x11, 0x22, 0x33)
        .unwrap();
    assert_eq!(id, CounterId(1));
    manager.set_value(id, 0x44);
    let mut record = [0xffu8; METADATA_LENGTH];
    metadata.copy_out(METADATA_LENGTH, &mut record);
    let mut expected = [0u8; METADATA_LENGTH];
    expected[0] = 1;
    expected[4..6].copy_from_slice(&[2, 1]);
    expected[8..16].copy_from_slice(&i64::MAX.to_le_bytes());
    expected[16..19].copy_from_slice(b"key");
    expected[128] = 5;
    expected[132..137].copy_from_slice(b"label");
    assert_eq!(record, expected);
    let mut value = [0u8; VALUE_LENGTH];
    values.copy_out(VALUE_LENGTH, &mut value);
    let mut expected_value = [0u8; VALUE_LENGTH];
    expected_value[0] = 0x44;
    expected_value[8] = 0x11;
    expected_value[16] = 0x22;
    expected_value[24] = 0x33;
    assert_eq!(value, expected_value);

    assert!(manager.free(at(10), id));
    metadata.copy_out(METADATA_LENGTH, &mut record);
    expected[..4].copy_from_slice(&(-1i32).to_le_bytes());
    expected[8..16].copy_from_slice(&(1_700_000_000_000i64 + 10 + 1000).to_le_bytes());
    expected[16..19].copy_from_slice(&[0; 3]);
    assert_eq!(record, expected);
    values.copy_out(VALUE_LENGTH, &mut value);
    assert_eq!(
        value, expected_value,
        "value and ids stay until the id is used again"
    );
}

#[test]
fn an_id_is_used_again_only_after_its_time_whatever_the_wall_clock_does() {
    let (mut manager, reader, ..) = counters();
    let allocate = |manager: &mut CountersManager<View>, now: Now| {
        manager.allocate(now, 1000, b"", "c", 9, 9, 9).unwrap()
    };
    let first = allocate(&mut manager, at(0));
    let second = allocate(&mut manager, at(0));
    manager.set_value(first, 5);
    assert!(manager.free(at(100), first));
    assert!(!manager.free(at(100), first), "freed once");
    let year_later = Now {
        epoch: EpochMs(at(0).epoch.0 + 31_000_000_000),
        ..at(1099)
    };
    assert_eq!(allocate(&mut manager, year_later), CounterId(2));
    let year_before = Now {
        epoch: EpochMs(0),
        ..at(1100)
    };
    assert_eq!(allocate(&mut manager, year_before), first);
    assert_eq!(reader.value(first), Some(0), "a counter starts at 0");
    assert!(manager.is_allocated(second));
}

#[test]
fn the_last_record_is_never_allocated() {
    let (mut manager, reader, ..) = counters();
    for index in 0..RECORDS as i32 - 1 {
        let id = manager.allocate(at(0), 1, b"", "", 0, 0, 0);
        assert_eq!(id, Ok(CounterId(index)));
    }
    assert_eq!(
        manager.allocate(at(0), 1, b"", "", 0, 0, 0),
        Err(CountersError::Full { capacity: 7 })
    );
    assert_eq!(reader.state(CounterId(7)), Some(CounterState::Unused));
    assert_eq!(reader.state(CounterId(8)), None);
    assert!(manager.free(at(0), CounterId(3)));
    assert_eq!(
        manager.allocate(at(999), 1, b"", "", 0, 0, 0),
        Err(CountersError::Full { capacity: 7 })
    );
    assert_eq!(manager.allocate(at(1000), 1, b"", "", 0, 0, 0), Ok(CounterId(3)));
}

#[test]
fn keys_and_labels_are_cut() {
    let (mut manager, reader, ..) = counters();
    let id = manager
        .allocate(at(0), 1, &[7; 200], "x".repeat(500), 0, 0, 0)
        .unwrap();
    let record = reader.record(id).unwrap();
    assert_eq!(record.key, [7; KEY_LENGTH]);
    assert_eq!(record.label, "x".repeat(380));
    assert!(manager.set_label(id, "y".repeat(370)));
    assert_eq!(reader.append_label(id, "0123456789abc"), Some(10));
    assert_eq!(
        reader.label(id).unwrap(),
        format!("{}0123456789", "y".repeat(370))
    );
    assert_eq!(reader.append_label(id, "z"), Some(0));
    assert_eq!(reader.append_label(CounterId(5), "z"), None);
}

#[test]
fn a_handle_reads_and_writes_one_value() {
    let (mut manager, reader, _, values) = counters();
    manager.allocate(at(0), 1, b"", "", 3, 4, 0).unwrap();
    let id = manager.allocate(at(0), 1, b"", "", 70, 80, 0).unwrap();
    let ours = manager.counter(id).unwrap();
    let theirs = Counter::new(&values, id).unwrap();
    ours.set_release(10);
    assert_eq!(theirs.get_acquire(), 10);
    assert_eq!(ours.add_relaxed(5), 15);
    assert_eq!(theirs.increment_atomic(), 15);
    assert!(ours.propose_max_relaxed(20));
    assert!(!ours.propose_max_release(20));
    assert_eq!(reader.value(id), Some(20));
    assert_eq!((theirs.registration_id(), theirs.owner_id()), (70, 80));
    assert!(reader.is_live(id, 70));
    assert!(!reader.is_live(id, 71));
    manager.free(at(0), id);
    assert!(!reader.is_live(id, 70));
    assert!(theirs.is_registered_as(70));
    for id in [-1, RECORDS as i32, i32::MAX, i32::MIN] {
        assert!(Counter::new(&values, CounterId(id)).is_none());
        assert!(reader.value(CounterId(id)).is_none());
        assert!(!manager.free(at(0), CounterId(id)));
    }
}

#[test]
fn sections_that_hold_no_counter_are_refused() {
    let short = Region::heap(VALUE_LENGTH).as_view();
    let (metadata, values) = sections();
    assert!(CountersReader::new(metadata.clone(), short.clone()).is_err());
    assert!(CountersManager::new(short, values, REUSE_NS).is_err());
    let shorter_values = Region::heap(3 * VALUE_LENGTH + 8).as_view();
    assert_eq!(
        CountersReader::new(metadata, shorter_values).unwrap().capacity(),
        3
    );
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(i32, Vec<u8>, String, i64),
    Free(i32),
    Wait(i64),
    Append(i32, String),
    Set(i32, i64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = -1..RECORDS as i32 + 1;
    prop_oneof![
        4 => (1000..1003i32, prop::collection::vec(any::<u8>(), 0..130), "[a-z ]{0,400}", 1..4i64)
            .prop_map(|(type_id, key, label, registration)| Op::Allocate(type_id, key, label, registration)),
        3 => id.clone().prop_map(Op::Free),
        2 => (0..1500i64).prop_map(Op::Wait),
        1 => (id.clone(), "[a-z]{0,200}").prop_map(|(id, text)| Op::Append(id, text)),
        1 => (id, any::<i64>()).prop_map(|(id, value)| Op::Set(id, value)),
    ]
}

fn cut(text: &str) -> String {
    text[..text.len().min(380)].to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn readers_see_what_was_allocated_and_nothing_else(ops in prop::collection::vec(op(), 1..100)) {
        let (mut manager, reader, ..) = counters();
        let mut live: BTreeMap<i32, CounterRecord> = BTreeMap::new();
        let mut freed: BTreeMap<i32, i64> = BTreeMap::new();
        let mut highest = 0;
        let mut ms = 0;
        for op in ops {
            match op {
                Op::Allocate(type_id, bytes, label, registration_id) => {
                    let allocated = manager.allocate(at(ms), type_id, &bytes, &label, registration_id, 5, 6);
                    let reusable = freed.iter().any(|(_, deadline)| *deadline <= ms);
                    match allocated {
                        Err(_) => prop_assert!(!reusable && highest == RECORDS as i32 - 1),
                        Ok(id) => {
                            if let Some(deadline) = freed.remove(&id.0) {
                                prop_assert!(deadline <= ms);
                            } else {
                                prop_assert!(!reusable);
                                prop_assert_eq!(id.0, highest);
                                highest += 1;
                            }
                            let record = CounterRecord {
                                id,
                                type_id,
                                state: CounterState::Allocated,
                                key: key(&bytes[..bytes.len().min(KEY_LENGTH)]),
                                label: cut(&label),
                                value: 0,
                                registration_id,
                                owner_id: 5,
                                reference_id: 6,
                                free_for_reuse_deadline_ms: i64::MAX,
                            };
                            prop_assert!(live.insert(id.0, record).is_none());
                        }
                    }
                }
                Op::Free(id) => {
                    let was_live = live.remove(&id).is_some();
                    prop_assert_eq!(manager.free(at(ms), CounterId(id)), was_live);
                    if was_live {
                        freed.insert(id, ms + 1000);
                        let record = reader.record_in_any_state(CounterId(id)).unwrap();
                        prop_assert_eq!(record.state, CounterState::Reclaimed);
                        prop_assert_eq!(record.key, [0; KEY_LENGTH]);
                    }
                }
                Op::Wait(by) => ms += by,
                Op::Append(id, text) => {
                    let appended = reader.append_label(CounterId(id), &text);
                    prop_assert_eq!(appended.is_some(), live.contains_key(&id));
                    if let Some(record) = live.get_mut(&id) {
                        record.label = cut(&format!("{}{text}", record.label));
                    }
                }
                Op::Set(id, value) => {
                    prop_assert_eq!(manager.set_value(CounterId(id), value), live.contains_key(&id));
                    if let Some(record) = live.get_mut(&id) {
                        record.value = value;
                    }
                }
            }
            let mut seen = Vec::new();
            reader.for_each(|record| seen.push(record));
            prop_assert_eq!(&seen, &live.values().cloned().collect::<Vec<_>>());
            let mut values = Vec::new();
            reader.for_each_value(|id, type_id, value| values.push((id, type_id, value)));
            let expected: Vec<_> = live.values().map(|record| (record.id, record.type_id, record.value)).collect();
            prop_assert_eq!(values, expected);
            for (type_id, registration_id) in [(1000, 1), (1001, 2), (1002, 3)] {
                let expected = live.values()
                    .find(|record| record.type_id == type_id && record.registration_id == registration_id)
                    .map(|record| record.id);
                prop_assert_eq!(reader.find_by(type_id, registration_id), expected);
            }
        }
    }

    #[test]
    fn whatever_is_written_into_the_sections_nobody_crashes(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<i64>()), 1..60)
    ) {
        let (mut manager, reader, metadata, values) = counters();
        for (ms, (place, in_metadata, value)) in scribbles.into_iter().enumerate() {
            let section = if in_metadata { &metadata } else { &values };
            section.store_release_i64(place.index(section.capacity() / 8) * 8, value);
            let now = at(ms as i64 * 500);
            let _ = manager.allocate(now, 1, b"k", "label", 1, 2, 3);
            manager.append_label(CounterId(0), "more");
            manager.free(now, CounterId((value % 8) as i32));
            let mut count = 0;
            reader.for_each(|record| {
                assert!(record.label.chars().count() <= 380);
                count += 1;
            });
            prop_assert!(count <= RECORDS);
            let _ = reader.append_label(CounterId(1), "and more");
            let _ = reader.find_by(1, value);
        }
        // The allocator remembers by itself what is in use.
        let in_use = (0..RECORDS as i32).filter(|&id| manager.is_allocated(CounterId(id))).count();
        prop_assert!(in_use < RECORDS);
    }
}
