//! Making batches: the native door gathers what one poll brings, tests make what they need. Uncompressed; [`seal`] takes records
//! that somebody else has compressed.
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use super::batch::checksum;
use super::header::{Attributes, BatchHeader, CRC, LENGTH_PREFIX};
use super::varint;
use crate::id::{Epoch, Offset, ProducerEpoch, ProducerId};

/// What a record is made of. Its timestamp comes with it, its offset from its place in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; without it the record is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in their order: keys, which should be UTF-8, and values.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

impl<'a> NewRecord<'a> {
    /// A record without headers.
    #[must_use]
    pub const fn new(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        Self {
            key,
            value,
            headers: &[],
        }
    }

    /// Bytes behind the record's own length; `None` if that is more than a length can say.
    fn body_length(&self, timestamp_delta: i64, offset_delta: i32) -> Option<i32> {
        let field = |bytes: Option<&[u8]>| {
            let length = i64::try_from(bytes.map_or(0, <[u8]>::len)).ok()?;
            let prefix = varint::length(if bytes.is_none() { -1 } else { length });
            length.checked_add(i64::try_from(prefix).ok()?)
        };
        let count = i64::try_from(self.headers.len()).ok()?;
        let fixed = 1
            + varint::length(timestamp_delta)
            + varint::length(i64::from(offset_delta))
            + varint::length(count);
        let mut length = i64::try_from(fixed).ok()?;
        length = length
            .checked_add(field(self.key)?)?
            .checked_add(field(self.value)?)?;
        for (key, value) in self.headers {
            length = length
                .checked_add(field(Some(key))?)?
                .checked_add(field(*value)?)?;
        }
        i32::try_from(length).ok()
    }
}

/// The fields of an idempotent batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Who produces, not negative.
    pub id: ProducerId,
    /// Which life of it, not negative.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record, not negative.
    pub base_sequence: i32,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Not into this batch: finish it, and try the next.
    #[error("the batch is full")]
    Full,
    /// Into no batch of this length.
    #[error("the record is larger than a batch may be")]
    TooLarge,
}

/// Builds one batch after the other in one buffer.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    length_max: usize,
    count: i32,
    base_timestamp: EpochMs,
    max_timestamp: EpochMs,
    producer: Option<Producer>,
    attributes: Attributes,
}

impl BatchBuilder {
    /// Begins an empty batch that will be no longer than `length_max` bytes, its header included. Memory is taken as records come.
    #[must_use]
    pub fn new(length_max: usize) -> Self {
        Self {
            bytes: vec![0; BatchHeader::LENGTH],
            length_max: length_max.min(i32::MAX as usize),
            count: 0,
            base_timestamp: EpochMs(-1),
            max_timestamp: EpochMs(-1),
            producer: None,
            attributes: Attributes::NONE,
        }
    }

    /// Throws away what was pushed, and producer and attributes with it; the buffer stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(BatchHeader::LENGTH);
        self.count = 0;
        self.producer = None;
        self.attributes = Attributes::NONE;
    }

    /// Makes the batch an idempotent producer's.
    pub fn set_producer(&mut self, producer: Producer) {
        self.producer = Some(producer);
    }

    /// Makes the batch part of its producer's transaction.
    pub fn set_transactional(&mut self) {
        self.attributes = self.attributes.with_transactional();
    }

    /// Adds a record and gives its offset in the batch: 0, 1, 2, ...
    ///
    /// # Errors
    /// [`PushError`], and the batch is as before.
    pub fn push(&mut self, timestamp: EpochMs, record: &NewRecord<'_>) -> Result<i32, PushError> {
        let refused = if self.count == 0 {
            PushError::TooLarge
        } else {
            PushError::Full
        };
        let base = if self.count == 0 {
            timestamp
        } else {
            self.base_timestamp
        };
        let offset_delta = self.count;
        let count = self.count.checked_add(1).ok_or(refused)?;
        let timestamp_delta = timestamp.0.checked_sub(base.0).ok_or(refused)?;
        let length = record
            .body_length(timestamp_delta, offset_delta)
            .ok_or(PushError::TooLarge)?;
        let whole = varint::length(i64::from(length)) + length.unsigned_abs() as usize;
        if whole > self.length_max.saturating_sub(self.bytes.len()) {
            let alone = self.length_max.saturating_sub(BatchHeader::LENGTH);
            return Err(if whole > alone {
                PushError::TooLarge
            } else {
                refused
            });
        }

        self.bytes.reserve(whole);
        let out = &mut self.bytes;
        varint::write_i32(out, length);
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, offset_delta);
        write_field(out, record.key);
        write_field(out, record.value);
        varint::write_i64(out, record.headers.len() as i64);
        for (key, value) in record.headers {
            write_field(out, Some(key));
            write_field(out, *value);
        }
        self.base_timestamp = base;
        self.max_timestamp = if offset_delta == 0 {
            timestamp
        } else {
            self.max_timestamp.max(timestamp)
        };
        self.count = count;
        Ok(offset_delta)
    }

    /// Records pushed since the batch was begun.
    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.count
    }

    /// Length of the batch as it stands, in bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Writes header and checksum and gives the batch, with base offset 0 and no leader epoch as clients send it; `None` if it
    /// holds no record. More records can follow; [`clear`](Self::clear) begins the next batch.
    pub fn finish(&mut self) -> Option<&[u8]> {
        let last_offset_delta = self.count.checked_sub(1).filter(|&delta| delta >= 0)?;
        let producer = self.producer.unwrap_or(Producer {
            id: ProducerId::NONE,
            epoch: ProducerEpoch::NONE,
            base_sequence: -1,
        });
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: i32::try_from(self.bytes.len() - LENGTH_PREFIX).ok()?,
            leader_epoch: Epoch::NONE,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            record_count: self.count,
        };
        write_header(&header, &mut self.bytes);
        Some(&self.bytes)
    }
}

/// A batch of `header` and the records behind it, open or compressed: length and checksum are worked out, all else is taken as it
/// is. `None` if the records are longer than a batch can be.
#[must_use]
pub fn seal(header: BatchHeader, record_bytes: &[u8]) -> Option<Vec<u8>> {
    let batch_length = i32::try_from(record_bytes.len())
        .ok()?
        .checked_add(BatchHeader::BATCH_LENGTH_MIN)?;
    let mut bytes = vec![0; BatchHeader::LENGTH];
    bytes.extend_from_slice(record_bytes);
    write_header(
        &BatchHeader {
            batch_length,
            ..header
        },
        &mut bytes,
    );
    Some(bytes)
}

/// Writes the header over the front of `batch`, which is long enough, and then the checksum of it all.
fn write_header(header: &BatchHeader, batch: &mut [u8]) {
    batch[..BatchHeader::LENGTH].copy_from_slice(&header.to_bytes());
    let crc = checksum(batch);
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

fn write_field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            varint::write_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Batches for property tests.
#[cfg(test)]
pub(crate) mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    type Bytes = Vec<u8>;

    /// A record that owns its parts, with its timestamp.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct OwnedRecord {
        pub(crate) timestamp: i64,
        pub(crate) key: Option<Bytes>,
        pub(crate) value: Option<Bytes>,
        pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
    }

    fn bytes(max: usize) -> impl Strategy<Value = Option<Bytes>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..max))
    }

    pub(crate) fn record() -> impl Strategy<Value = OwnedRecord> {
        let header = (prop::collection::vec(any::<u8>(), 0..5), bytes(10));
        (
            0_i64..1 << 44,
            bytes(20),
            bytes(150),
            prop::collection::vec(header, 0..4),
        )
            .prop_map(|(timestamp, key, value, headers)| OwnedRecord {
                timestamp,
                key,
                value,
                headers,
            })
    }

    pub(crate) fn build(records: &[OwnedRecord], producer: Option<Producer>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1 << 20);
        for (at, record) in records.iter().enumerate() {
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(key, value)| (&**key, value.as_deref()))
                .collect();
            let new = NewRecord {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            };
            assert_eq!(builder.push(EpochMs(record.timestamp), &new), Ok(at as i32));
        }
        if let Some(producer) = producer {
            builder.set_producer(producer);
        }
        builder.finish().unwrap().to_vec()
    }

    pub(crate) fn producer() -> impl Strategy<Value = Producer> {
        (0..i64::MAX, 0..i16::MAX, 0..i32::MAX).prop_map(|(id, epoch, base_sequence)| Producer {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence,
        })
    }

    /// Records and the batch made of them.
    pub(crate) fn batch() -> impl Strategy<Value = (Vec<OwnedRecord>, Vec<u8>)> {
        (
            prop::collection::vec(record(), 1..6),
            prop::option::of(producer()),
        )
            .prop_map(|(records, producer)| {
                let bytes = build(&records, producer);
                (records, bytes)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::arbitrary::OwnedRecord;
    use super::*;
    use crate::record::BatchView;
    use proptest::prelude::*;

    #[test]
    fn a_record_that_does_not_fit_leaves_the_batch_as_it_was() {
        let mut builder = BatchBuilder::new(61 + 20);
        assert!(builder.finish().is_none());
        assert_eq!(
            builder.push(EpochMs(5), &NewRecord::new(None, Some(&[7; 14]))),
            Err(PushError::TooLarge)
        );
        assert!(builder.finish().is_none());
        assert_eq!(
            builder.push(EpochMs(5), &NewRecord::new(None, Some(&[7; 13]))),
            Ok(0)
        );
        assert_eq!(builder.length(), 81);
        assert_eq!(
            builder.push(EpochMs(6), &NewRecord::new(None, None)),
            Err(PushError::Full)
        );
        assert_eq!(
            builder.push(EpochMs(6), &NewRecord::new(None, Some(&[7; 99]))),
            Err(PushError::TooLarge)
        );
        let bytes = builder.finish().unwrap().to_vec();
        let view = BatchView::parse_verified(&bytes).unwrap();
        assert_eq!(view.header().record_count, 1);
        assert_eq!(view.header().max_timestamp, EpochMs(5));
        builder.clear();
        assert!(builder.finish().is_none());
        assert_eq!(builder.push(EpochMs(9), &NewRecord::new(None, None)), Ok(0));
        assert_eq!(
            BatchView::parse_verified(builder.finish().unwrap())
                .unwrap()
                .header()
                .base_timestamp,
            EpochMs(9)
        );
    }

    #[test]
    fn timestamps_too_far_apart_go_into_two_batches() {
        let mut builder = BatchBuilder::new(1000);
        let record = NewRecord::new(None, None);
        assert_eq!(builder.push(EpochMs(-1), &record), Ok(0));
        assert_eq!(builder.push(EpochMs(i64::MAX), &record), Err(PushError::Full));
        assert_eq!(builder.record_count(), 1);
    }

    #[test]
    fn producer_and_transaction_stand_in_the_header() {
        let mut builder = BatchBuilder::new(1000);
        builder.push(EpochMs(1), &NewRecord::new(None, None)).unwrap();
        builder.set_producer(Producer {
            id: ProducerId(9),
            epoch: ProducerEpoch(2),
            base_sequence: 33,
        });
        builder.set_transactional();
        let header = BatchHeader::read(builder.finish().unwrap()).unwrap();
        assert_eq!(
            (header.producer_id, header.producer_epoch),
            (ProducerId(9), ProducerEpoch(2))
        );
        assert_eq!(header.base_sequence, 33);
        assert!(header.attributes.is_transactional());
        builder.clear();
        builder.push(EpochMs(1), &NewRecord::new(None, None)).unwrap();
        let header = BatchHeader::read(builder.finish().unwrap()).unwrap();
        assert!(!header.has_producer());
        assert_eq!(header.attributes, Attributes::NONE);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            records in prop::collection::vec(arbitrary::record(), 1..8), producer in prop::option::of(arbitrary::producer()),
        ) {
            let bytes = arbitrary::build(&records, producer);
            let view = BatchView::parse_verified(&bytes).unwrap();
            let header = *view.header();
            prop_assert_eq!(header.record_count as usize, records.len());
            prop_assert_eq!(header.max_timestamp.0, records.iter().map(|record| record.timestamp).max().unwrap());
            prop_assert_eq!(header.has_producer(), producer.is_some());
            let mut back = Vec::new();
            for (at, record) in view.records().unwrap().enumerate() {
                let record = record.unwrap();
                prop_assert_eq!(record.offset_delta, at as i32);
                back.push(OwnedRecord {
                    timestamp: header.base_timestamp.0 + record.timestamp_delta,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect(),
                });
            }
            prop_assert_eq!(back, records);
            // The same records behind the same header make the same batch.
            let sealed = seal(BatchHeader { batch_length: 0, crc: 0, ..header }, view.record_bytes());
            prop_assert_eq!(sealed.unwrap(), bytes);
        }
    }
}
