//! Counters: whatever stands in the sections, a reader hands out copies within limits, and the driver's own
//! bookkeeping does not depend on them.
#![no_main]

use fulmar::counters::{CountersManager, CountersReader};
use fulmar::id::CounterId;
use fulmar::memory::{AtomicBuffer, Region};
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar_fuzz::{Input, patch};
use libfuzzer_sys::fuzz_target;

const COUNTERS: usize = 4;
const METADATA_LENGTH: usize = 512 * COUNTERS;
const VALUES_LENGTH: usize = 128 * COUNTERS;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (id, type_id, registration_id) = (CounterId(input.i32()), input.i32(), input.i64());
    let label = input.bytes(40);
    let (values, metadata) = (
        Region::heap(VALUES_LENGTH).as_view(),
        Region::heap(METADATA_LENGTH).as_view(),
    );
    for index in 0..COUNTERS {
        // State and length of the label, then anything anywhere.
        metadata.store_relaxed_i32(512 * index, i32::from(input.u8() % 3));
        metadata.store_relaxed_i32(512 * index + 128, i32::from(input.u16()));
    }
    patch(&values, &mut input, 8);
    patch(&metadata, &mut input, 32);
    let reader = CountersReader::new(metadata.clone(), values.clone()).expect("the lengths are right");
    assert!(reader.capacity() <= COUNTERS);
    let mut seen = 0;
    reader.for_each(|record| {
        seen += 1;
        // A byte that is no text takes three.
        assert!(record.label.len() <= 3 * 380);
    });
    reader.for_each_value(|_, _, _| {});
    assert!(seen <= COUNTERS);
    let _ = reader.find_by(type_id, registration_id);
    for id in [
        id,
        CounterId(0),
        CounterId(COUNTERS as i32 - 1),
        CounterId(COUNTERS as i32),
    ] {
        let _ = (
            reader.record(id),
            reader.record_in_any_state(id),
            reader.state(id),
        );
        let _ = (
            reader.value(id),
            reader.label(id),
            reader.is_live(id, registration_id),
        );
        if let Some(counter) = reader.counter(id) {
            assert!((counter.id().get() as usize) < COUNTERS);
            let _ = (counter.get_acquire(), counter.increment_atomic());
        }
        if let Some(written) = reader.append_label(id, label) {
            assert!(written <= 380);
        }
    }
    let Ok(mut manager) = CountersManager::new(metadata, values, 0) else {
        return;
    };
    let now = Now {
        nanos: NanoTime(0),
        epoch: EpochMs(0),
    };
    let first = manager
        .allocate(now, type_id, label, label, registration_id, 7, 8)
        .expect("there is room");
    assert_eq!(manager.value(first), Some(0));
    assert!(manager.append_label(first, label));
    assert!(manager.free(now, first));
    assert!(!manager.free(now, first));
    assert!(!manager.free(now, id));
});
