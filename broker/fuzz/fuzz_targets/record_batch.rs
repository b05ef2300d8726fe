//! Batches back to back, from a file or a producer: each is taken or refused, and what is taken keeps its promises.
#![no_main]

use fulmar::time::EpochMs;
use fulmar_broker::id::{Epoch, Offset};
use fulmar_broker::record::batch::checksum;
use fulmar_broker::record::control::EndMarker;
use fulmar_broker::record::validate::{self, Compressed, Keys, ProduceRules};
use fulmar_broker::record::{
    BatchBuilder, BatchError, BatchHeader, BatchMut, BatchView, Batches, NewRecord, Record, TimestampType,
};
use libfuzzer_sys::fuzz_target;

const NOW: EpochMs = EpochMs(1_700_000_000_000);

/// Makes the checksums of all whole batches fit.
fn seal(bytes: &mut [u8]) {
    let ends: Vec<_> = {
        let mut batches = Batches::new(bytes);
        std::iter::from_fn(|| {
            let start = batches.position();
            batches
                .next()?
                .ok()
                .map(|view| (start, start + view.as_bytes().len()))
        })
        .collect()
    };
    for (start, end) in ends {
        let crc = checksum(&bytes[start..end]);
        bytes[start + 17..start + 21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// What holds for any whole batch.
fn look_at(view: &BatchView<'_>) {
    let header = *view.header();
    assert_eq!(header.total_length(), view.as_bytes().len());
    assert_eq!(header.to_bytes(), view.as_bytes()[..BatchHeader::LENGTH]);
    let mut copy = view.as_bytes().to_vec();
    let mut batch = BatchMut::parse(&mut copy).expect("the same bytes");
    batch.place(Offset(77), Epoch(3));
    let placed = BatchView::parse(&copy).expect("only its place has changed");
    assert_eq!(
        (placed.header().base_offset, placed.header().leader_epoch),
        (Offset(77), Epoch(3))
    );
    assert_eq!(placed.as_bytes()[16..], view.as_bytes()[16..]);
    match view.verify() {
        Ok(()) => {
            assert_eq!(placed.verify(), Ok(()));
            assert!(header.last_offset() >= Some(header.base_offset));
            BatchMut::parse(&mut copy).expect("the same bytes").stamp(NOW);
            let stamped = BatchView::parse_verified(&copy).expect("the checksum was worked out again");
            assert_eq!(stamped.header().max_timestamp, NOW);
            assert_eq!(stamped.record_bytes(), view.record_bytes());
        }
        Err(BatchError::Offsets { .. }) => {}
        Err(error) => assert_eq!(placed.verify(), Err(error)),
    }
    if let Some(marker) = EndMarker::read(view) {
        assert!(header.attributes.is_control());
        let again = marker.to_batch(header.max_timestamp);
        let again = BatchView::parse_verified(&again).expect("we built it");
        assert_eq!(EndMarker::read(&again), Some(marker));
    }
    if let Some(records) = view.records() {
        let mut left = view.record_bytes().len();
        for record in records.flatten() {
            let used = content_length(&record);
            assert!(used + 7 <= left, "a record of more bytes than there are");
            left -= used + 7;
        }
    }
}

/// Bytes of keys and values of a record, headers included.
fn content_length(record: &Record<'_>) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    assert_eq!(record.headers.count(), record.headers.len());
    let headers: usize = record.headers.map(|(key, value)| key.len() + length(value)).sum();
    length(record.key) + length(record.value) + headers
}

/// A valid batch of open records, built again from them, says the same.
fn build_again(view: &BatchView<'_>) {
    let Some(records) = view.records() else { return };
    let header = *view.header();
    let records: Vec<_> = records
        .map(|record| record.expect("the batch is valid"))
        .collect();
    let mut builder = BatchBuilder::new(view.as_bytes().len() + 64);
    for record in &records {
        let headers: Vec<_> = record.headers.collect();
        let new = NewRecord {
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        let timestamp = EpochMs(header.base_timestamp.0 + record.timestamp_delta);
        if builder.push(timestamp, &new).is_err() {
            // Counted from another base, deltas may be longer, or too far apart.
            return;
        }
    }
    let bytes = builder.finish().expect("a valid batch has a record");
    let built = BatchView::parse_verified(bytes).expect("we built it");
    assert_eq!(built.header().record_count, header.record_count);
    let again: Vec<_> = built
        .records()
        .expect("open")
        .map(|record| record.expect("we built it"))
        .collect();
    assert_eq!(again.len(), records.len());
    for (again, record) in again.iter().zip(&records) {
        assert_eq!(
            (again.key, again.value, again.offset_delta),
            (record.key, record.value, record.offset_delta)
        );
        assert!(again.headers.eq(record.headers));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, bytes)) = data.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags & 1 != 0 {
        seal(&mut bytes);
    }
    let mut batches = Batches::new(&bytes);
    for view in batches.by_ref().flatten() {
        look_at(&view);
    }
    assert!(batches.position() <= bytes.len());

    let rules = ProduceRules {
        message_length_max: if flags & 2 != 0 {
            200
        } else {
            validate::MESSAGE_LENGTH_MAX
        },
        segment_length_max: if flags & 4 != 0 { 150 } else { 1 << 30 },
        timestamp_type: if flags & 8 != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: validate::TIMESTAMP_AFTER_MAX_MS,
        keys: if flags & 16 != 0 {
            Keys::Required
        } else {
            Keys::Optional
        },
        compressed: if flags & 32 != 0 {
            Compressed::Refused
        } else {
            Compressed::Trusted
        },
    };
    let version = if flags & 64 != 0 { 6 } else { 9 };
    match validate::frame(&bytes, version).and_then(|view| validate::check(view, &rules, NOW)) {
        Ok(valid) => {
            let view = valid.view();
            assert_eq!(view.verify(), Ok(()));
            assert!(view.as_bytes().len() <= rules.message_length_max.min(rules.segment_length_max));
            let header = view.header();
            assert_eq!(header.base_offset, Offset(0));
            assert!(header.record_count > 0 && header.record_count - 1 == header.last_offset_delta);
            build_again(view);
        }
        Err(error) => {
            assert!(matches!(error.code(), 2 | 10 | 18 | 32 | 76 | 87));
            assert!(error.record_index().is_none_or(|index| index >= 0));
        }
    }
});
