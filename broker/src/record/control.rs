//! Control batches: the end of a transaction, as its coordinator writes it into each partition (kafka gateway 3.4). One record:
//!
//! ```text
//!   key:   version i16 = 0 | type i16: 0 abort, 1 commit; others are not of partitions
//!   value: version i16 = 0 | coordinator epoch i32
//! ```
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use super::batch::BatchView;
use super::builder::{BatchBuilder, NewRecord, Producer, seal};
use super::header::{Attributes, BatchHeader};
use crate::id::{ProducerEpoch, ProducerId};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its records are not to be read.
    Abort,
    /// Its records are to be read.
    Commit,
}

/// The end of a producer's transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// Whose transaction.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// Epoch of the coordinator that ended it.
    pub coordinator_epoch: i32,
    /// How it ended.
    pub outcome: Outcome,
}

impl EndMarker {
    /// The marker that a batch holds; `None` if it is no control batch, one of another type, or out of form.
    #[must_use]
    pub fn read(batch: &BatchView<'_>) -> Option<Self> {
        let header = batch.header();
        if !header.attributes.is_control() {
            return None;
        }
        let record = batch.records()?.next()?.ok()?;
        // Later versions may say more behind what this one says.
        let key: [u8; 4] = *record.key?.first_chunk()?;
        let value: [u8; 6] = *record.value?.first_chunk()?;
        let outcome = match i16::from_be_bytes([key[2], key[3]]) {
            0 => Outcome::Abort,
            1 => Outcome::Commit,
            _ => return None,
        };
        Some(Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: i32::from_be_bytes([value[2], value[3], value[4], value[5]]),
            outcome,
        })
    }

    /// The batch of the marker, still to be placed, written at the time `now`.
    #[must_use]
    pub fn to_batch(&self, now: EpochMs) -> Vec<u8> {
        let key = [0, 0, 0, u8::from(self.outcome == Outcome::Commit)];
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new(Self::BATCH_LENGTH);
        builder.set_producer(Producer {
            id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: -1,
        });
        let pushed = builder.push(now, &NewRecord::new(Some(&key), Some(&value)));
        debug_assert_eq!(pushed, Ok(0));
        let batch = builder.finish().and_then(|bytes| BatchView::parse(bytes).ok());
        let batch = batch.expect("a batch of one small record has room for it");
        let attributes = Attributes::NONE.with_transactional().with_control();
        seal(
            BatchHeader {
                attributes,
                ..*batch.header()
            },
            batch.record_bytes(),
        )
        .expect("it is small")
    }

    /// Length of a marker's batch in bytes.
    pub const BATCH_LENGTH: usize = BatchHeader::LENGTH + 17;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::checksum;
    use proptest::prelude::*;

    const MARKER: EndMarker = EndMarker {
        producer_id: ProducerId(0x0102),
        producer_epoch: ProducerEpoch(3),
        coordinator_epoch: 7,
        outcome: Outcome::Commit,
    };

    /// Written out by hand after kafka gateway 3.1, 3.3 and 3.4, but for the checksum.
    #[test]
    fn golden_marker() {
        let mut golden = vec![
            0, 0, 0, 0, 0, 0, 0, 0, // base offset
            0, 0, 0, 66, // length: 49 of header, 17 of record
            0xff, 0xff, 0xff, 0xff, 2, // leader epoch, magic
            0, 0, 0, 0, 0, 0x30, // crc, attributes: transactional, control
            0, 0, 0, 0, // last offset delta
            0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, // timestamps 1000
            0, 0, 0, 0, 0, 0, 1, 2, 0, 3, // producer id and epoch
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, // no sequence, one record
            32, 0, 0, 0, // length 16, attributes, deltas
            8, 0, 0, 0, 1, // key of 4: version 0, commit
            12, 0, 0, 0, 0, 0, 7, 0, // value of 6: version 0, coordinator epoch 7; no headers
        ];
        let crc = checksum(&golden);
        golden[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(MARKER.to_batch(EpochMs(1000)), golden);
        assert_eq!(golden.len(), EndMarker::BATCH_LENGTH);
        assert_eq!(
            EndMarker::read(&BatchView::parse_verified(&golden).unwrap()),
            Some(MARKER)
        );
    }

    #[test]
    fn what_is_no_end_of_a_transaction_is_none() {
        let read = |key: Option<&[u8]>, value: Option<&[u8]>, attributes: i16| {
            let mut builder = BatchBuilder::new(1000);
            builder.push(EpochMs(0), &NewRecord::new(key, value)).unwrap();
            let view = BatchView::parse(builder.finish().unwrap()).unwrap();
            let header = BatchHeader {
                attributes: Attributes(attributes),
                ..*view.header()
            };
            let bytes = seal(header, view.record_bytes()).unwrap();
            EndMarker::read(&BatchView::parse_verified(&bytes).unwrap()).map(|marker| marker.outcome)
        };
        let value = Some(&[0, 0, 0, 0, 0, 1][..]);
        assert_eq!(read(Some(&[0, 0, 0, 0]), value, 0x30), Some(Outcome::Abort));
        assert_eq!(read(Some(&[0, 0, 0, 1]), value, 0x30), Some(Outcome::Commit));
        assert_eq!(
            read(Some(&[0, 1, 0, 1, 9]), Some(&[0, 1, 0, 0, 0, 1, 9]), 0x30),
            Some(Outcome::Commit)
        );
        assert_eq!(read(Some(&[0, 0, 0, 2]), value, 0x30), None, "of another type");
        assert_eq!(read(Some(&[0, 0, 0]), value, 0x30), None);
        assert_eq!(read(None, value, 0x30), None);
        assert_eq!(read(Some(&[0, 0, 0, 0]), Some(&[0; 5]), 0x30), None);
        assert_eq!(read(Some(&[0, 0, 0, 0]), None, 0x30), None);
        assert_eq!(
            read(Some(&[0, 0, 0, 0]), value, 0x10),
            None,
            "data that looks like one"
        );
        assert_eq!(read(Some(&[0, 0, 0, 0]), value, 0x31), None, "compressed");
    }

    proptest! {
        #[test]
        fn markers_round_trip(id in 0..i64::MAX, epoch in 0..i16::MAX, coordinator_epoch: i32, commit: bool, now: i64) {
            let marker = EndMarker {
                producer_id: ProducerId(id),
                producer_epoch: ProducerEpoch(epoch),
                coordinator_epoch,
                outcome: if commit { Outcome::Commit } else { Outcome::Abort },
            };
            let bytes = marker.to_batch(EpochMs(now));
            let view = BatchView::parse_verified(&bytes).unwrap();
            prop_assert_eq!(view.header().max_timestamp, EpochMs(now));
            prop_assert_eq!(EndMarker::read(&view), Some(marker));
        }
    }
}
