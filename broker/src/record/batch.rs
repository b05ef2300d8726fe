//! A batch as a view over bytes that somebody else holds.
//!
//! [`BatchView::parse`] finds where a batch ends; [`BatchView::verify`] checks what the broker relies on, the checksum before all.
//! [`BatchMut`] writes the two fields that the checksum leaves out, and the time of the append, which it does not.
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use super::header::{
    ATTRIBUTES, BASE_OFFSET, BatchError, BatchHeader, CRC, Codec, LEADER_EPOCH, MAX_TIMESTAMP,
};
use super::records::Records;
use crate::id::{Epoch, Offset};

/// CRC-32C of a whole batch: over its bytes from the attributes on. 0 of bytes shorter than that.
#[must_use]
pub fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(ATTRIBUTES..).unwrap_or(&[]))
}

/// One batch, exactly its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the batch at the front of `bytes`, of which there may be more. Checks length and format only, see
    /// [`BatchHeader::read`].
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Length`] or [`BatchError::Magic`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::read(bytes)?;
        let needed = header.total_length();
        match bytes.get(..needed) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Truncated {
                needed,
                available: bytes.len(),
            }),
        }
    }

    /// [`parse`](Self::parse), then [`verify`](Self::verify).
    ///
    /// # Errors
    /// Those of both.
    pub fn parse_verified(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let view = Self::parse(bytes)?;
        view.verify()?;
        Ok(view)
    }

    /// Checks the checksum, then that the codec is known, that the batch lies at offsets that exist, and that it has no more
    /// records than offsets. What a batch in a file must be like; a producer's has to be more, see
    /// [`validate`](super::validate).
    ///
    /// # Errors
    /// The first of [`BatchError::Checksum`], [`BatchError::Codec`], [`BatchError::Offsets`], [`BatchError::Count`] that holds.
    pub fn verify(&self) -> Result<(), BatchError> {
        let BatchHeader {
            crc,
            attributes,
            base_offset,
            last_offset_delta,
            record_count,
            ..
        } = self.header;
        let computed = checksum(self.bytes);
        if computed != crc {
            return Err(BatchError::Checksum {
                stored: crc,
                computed,
            });
        }
        if attributes.codec().is_none() {
            return Err(BatchError::Codec {
                codec: attributes.codec_number(),
            });
        }
        // The offset after the batch has to exist as well: the end of the log would have no number.
        if base_offset.0 < 0 || last_offset_delta < 0 || self.header.next_offset().is_none() {
            return Err(BatchError::Offsets {
                base_offset: base_offset.0,
                last_offset_delta,
            });
        }
        if record_count < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::Count {
                record_count,
                last_offset_delta,
            });
        }
        Ok(())
    }

    /// The header.
    #[inline]
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch, and no others.
    #[inline]
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes behind the header: records, or one compressed blob.
    #[inline]
    #[must_use]
    pub fn record_bytes(&self) -> &'a [u8] {
        self.bytes.get(BatchHeader::LENGTH..).unwrap_or(&[])
    }

    /// The records; `None` if they are compressed or the codec is unknown.
    #[must_use]
    pub fn records(&self) -> Option<Records<'a>> {
        (self.header.attributes.codec() == Some(Codec::None))
            .then(|| Records::new(self.record_bytes(), self.header.record_count))
    }
}

/// Batches laid back to back, as in a file or an answer to a fetch. Yields what [`BatchView::parse`] gives, verified by nobody
/// yet; ends after the first error, or where the bytes end between two batches.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Begins at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            failed: false,
        }
    }

    /// Where the next batch begins, or the one that is no good: bytes before it are whole batches.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if self.failed || rest.is_empty() {
            return None;
        }
        let parsed = BatchView::parse(rest);
        match parsed {
            Ok(view) => self.position += view.bytes.len(),
            Err(_) => self.failed = true,
        }
        Some(parsed)
    }
}

/// A batch whose place is being written: the bytes that will be stored.
#[derive(Debug)]
pub struct BatchMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> BatchMut<'a> {
    /// Takes the batch at the front of `bytes`, as [`BatchView::parse`] does.
    ///
    /// # Errors
    /// Those of [`BatchView::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, BatchError> {
        let length = BatchView::parse(bytes)?.bytes.len();
        Ok(Self {
            bytes: &mut bytes[..length],
        })
    }

    /// Writes where the batch stands and who led when it was appended. Both lie outside the checksum (kafka gateway 3.8).
    pub fn place(&mut self, base_offset: Offset, leader_epoch: Epoch) {
        self.put(BASE_OFFSET, &base_offset.0.to_be_bytes());
        self.put(LEADER_EPOCH, &leader_epoch.0.to_be_bytes());
    }

    /// Makes `now` the timestamp of every record, for topics with log append time, and works out the checksum again.
    /// Call it only for a batch whose checksum was good: afterwards it is.
    pub fn stamp(&mut self, now: EpochMs) {
        let mut attributes = [0; 2];
        attributes.copy_from_slice(&self.bytes[ATTRIBUTES..ATTRIBUTES + 2]);
        let attributes = super::Attributes(i16::from_be_bytes(attributes)).with_log_append_time();
        self.put(ATTRIBUTES, &attributes.0.to_be_bytes());
        self.put(MAX_TIMESTAMP, &now.0.to_be_bytes());
        let crc = checksum(self.bytes);
        self.put(CRC, &crc.to_be_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        // At least 61 bytes are there: `parse` took a whole batch.
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ProducerEpoch, ProducerId};
    use crate::record::builder::arbitrary;
    use crate::record::{Attributes, BatchBuilder, NewRecord, TimestampType};
    use proptest::prelude::*;

    /// One record of key "k" and value "v" at 1000 ms, written out by hand after kafka gateway 3.1 and 3.3, but for the checksum:
    /// that it is the right one is shown by the batches of real clients in `tests/record_golden.rs`.
    fn golden() -> Vec<u8> {
        let mut bytes = vec![
            0, 0, 0, 0, 0, 0, 0, 0, // base offset
            0, 0, 0, 58, // length: 49 of header, 9 of record
            0xff, 0xff, 0xff, 0xff, // leader epoch
            2,    // magic
            0, 0, 0, 0, // crc
            0, 0, // attributes
            0, 0, 0, 0, // last offset delta
            0, 0, 0, 0, 0, 0, 3, 0xe8, // base timestamp
            0, 0, 0, 0, 0, 0, 3, 0xe8, // max timestamp
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id
            0xff, 0xff, // producer epoch
            0xff, 0xff, 0xff, 0xff, // base sequence
            0, 0, 0, 1, // record count
            16, 0, 0, 0, 2, b'k', 2, b'v', 0, // length 8, attributes, deltas, key, value, no headers
        ];
        let crc = checksum(&bytes);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn the_checksum_is_castagnoli_from_the_attributes_on() {
        // The check value of the algorithm, and that nothing in front takes part.
        let mut bytes = vec![0xee; 21];
        bytes.extend_from_slice(b"123456789");
        assert_eq!(checksum(&bytes), 0xe306_9283);
        assert_eq!(checksum(&bytes[..21]), 0);
        assert_eq!(checksum(&[]), 0);
    }

    #[test]
    fn a_batch_ends_where_its_length_says() {
        let mut bytes = golden();
        bytes.extend_from_slice(b"more");
        let view = BatchView::parse_verified(&bytes).unwrap();
        assert_eq!(view.as_bytes(), golden());
        assert_eq!(view.record_bytes(), [16, 0, 0, 0, 2, b'k', 2, b'v', 0]);
        for cut in 61..70 {
            assert_eq!(
                BatchView::parse(&bytes[..cut]),
                Err(BatchError::Truncated {
                    needed: 70,
                    available: cut
                })
            );
        }
    }

    #[test]
    fn placing_leaves_the_checksum_good() {
        let mut bytes = golden();
        BatchMut::parse(&mut bytes).unwrap().place(Offset(77), Epoch(5));
        let view = BatchView::parse_verified(&bytes).unwrap();
        assert_eq!(
            (view.header().base_offset, view.header().leader_epoch),
            (Offset(77), Epoch(5))
        );
        assert_eq!(bytes[16..], golden()[16..]);
        assert_eq!(view.header().next_offset(), Some(Offset(78)));
    }

    #[test]
    fn stamping_makes_it_log_append_time_with_a_good_checksum() {
        let mut bytes = golden();
        bytes.push(9);
        BatchMut::parse(&mut bytes).unwrap().stamp(EpochMs(2000));
        let view = BatchView::parse_verified(&bytes).unwrap();
        assert_eq!(
            view.header().attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!(view.header().max_timestamp, EpochMs(2000));
        assert_eq!(view.header().base_timestamp, EpochMs(1000));
        assert_eq!(bytes[70], 9);
    }

    #[test]
    fn relations_of_the_fields_are_checked_after_the_checksum() {
        let broken = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = golden();
            change(&mut bytes);
            let crc = checksum(&bytes);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            BatchView::parse(&bytes).unwrap().verify()
        };
        assert_eq!(broken(&|_| ()), Ok(()));
        assert_eq!(broken(&|b| b[22] = 5), Err(BatchError::Codec { codec: 5 }));
        assert_eq!(
            broken(&|b| b[23] = 0x80),
            Err(BatchError::Offsets {
                base_offset: 0,
                last_offset_delta: i32::MIN
            })
        );
        assert_eq!(
            broken(&|b| b[..8].copy_from_slice(&i64::MAX.to_be_bytes())),
            Err(BatchError::Offsets {
                base_offset: i64::MAX,
                last_offset_delta: 0
            })
        );
        assert_eq!(
            broken(&|b| b[60] = 2),
            Err(BatchError::Count {
                record_count: 2,
                last_offset_delta: 0
            })
        );
        assert_eq!(
            broken(&|b| b[57] = 0xff),
            Err(BatchError::Count {
                record_count: -16_777_215,
                last_offset_delta: 0
            })
        );
        // Compaction leaves fewer records than offsets, down to none.
        assert_eq!(broken(&|b| b[60] = 0), Ok(()));
        let mut bytes = golden();
        bytes[69] ^= 1;
        assert!(matches!(
            BatchView::parse_verified(&bytes),
            Err(BatchError::Checksum { .. })
        ));
    }

    #[test]
    fn batches_back_to_back_end_at_the_first_bad_one() {
        let mut bytes = golden();
        bytes.extend(golden());
        let mut batches = Batches::new(&bytes);
        assert_eq!(
            batches
                .by_ref()
                .map(|batch| batch.unwrap().as_bytes().len())
                .collect::<Vec<_>>(),
            [70, 70]
        );
        assert_eq!(batches.position(), 140);
        bytes.extend_from_slice(&golden()[..65]);
        let mut batches = Batches::new(&bytes);
        assert_eq!(batches.by_ref().filter(Result::is_ok).count(), 2);
        assert_eq!(batches.position(), 140);
        assert_eq!(
            Batches::new(&bytes[140..]).last(),
            Some(Err(BatchError::Truncated {
                needed: 70,
                available: 65
            }))
        );
        assert_eq!(Batches::new(&[]).count(), 0);
    }

    #[test]
    fn compressed_records_are_not_handed_out() {
        let mut builder = BatchBuilder::new(1000);
        builder
            .push(EpochMs(1), &NewRecord::new(None, Some(b"x")))
            .unwrap();
        let plain = BatchView::parse(builder.finish().unwrap()).unwrap();
        assert_eq!(plain.records().unwrap().count(), 1);
        let header = BatchHeader {
            attributes: Attributes::NONE.with_codec(Codec::Zstd),
            ..*plain.header()
        };
        let bytes = crate::record::builder::seal(header, plain.record_bytes()).unwrap();
        let view = BatchView::parse_verified(&bytes).unwrap();
        assert!(view.records().is_none());
        assert_eq!(view.record_bytes(), plain.record_bytes());
    }

    proptest! {
        /// Any one byte changed behind the checksum, or the checksum itself, is found out. CRC-32C finds every burst of up to
        /// 32 bits, so this holds without exception.
        #[test]
        fn a_changed_byte_never_passes(
            (_, mut bytes) in arbitrary::batch(), at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let at = 17 + at.index(bytes.len() - 17);
            bytes[at] ^= flip;
            let parsed = BatchView::parse(&bytes).unwrap();
            let found = matches!(parsed.verify(), Err(BatchError::Checksum { .. }));
            prop_assert!(found);
        }

        /// Bytes in front of the checksum are not under it; changed ones give an error or another place, never a panic.
        #[test]
        fn a_changed_front_is_another_place_or_an_error(
            (_, mut bytes) in arbitrary::batch(), at in 0_usize..17, flip in 1_u8..,
        ) {
            bytes[at] ^= flip;
            match BatchView::parse_verified(&bytes) {
                Ok(view) => prop_assert!(view.header().base_offset.0 >= 0 && (at < 8 || (12..16).contains(&at))),
                Err(BatchError::Offsets { .. }) => prop_assert!(at < 8),
                Err(BatchError::Magic { .. }) => prop_assert_eq!(at, 16),
                Err(error) => prop_assert!((8..12).contains(&at), "{error}"),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut batches = Batches::new(&bytes);
            for batch in batches.by_ref().flatten() {
                prop_assert!(batch.as_bytes().len() >= 61);
                let _ = batch.verify();
                if let Some(records) = batch.records() {
                    prop_assert!(records.count() <= bytes.len());
                }
            }
            prop_assert!(batches.position() <= bytes.len());
        }

        /// A batch cut anywhere is known to be cut, and how much is missing.
        #[test]
        fn a_torn_batch_is_told_from_a_bad_one((_, bytes) in arbitrary::batch(), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len());
            let needed = if cut < 61 { 61 } else { bytes.len() };
            prop_assert_eq!(BatchView::parse(&bytes[..cut]), Err(BatchError::Truncated { needed, available: cut }));
        }

        #[test]
        fn headers_round_trip(
            (numbers, long) in (any::<[i32; 5]>(), any::<[i64; 4]>()), epoch: i16, attributes: i16,
            length in BatchHeader::BATCH_LENGTH_MIN..,
        ) {
            let header = BatchHeader {
                base_offset: Offset(long[0]),
                batch_length: length,
                leader_epoch: Epoch(numbers[0]),
                crc: numbers[1].cast_unsigned(),
                attributes: Attributes(attributes),
                last_offset_delta: numbers[2],
                base_timestamp: EpochMs(long[1]),
                max_timestamp: EpochMs(long[2]),
                producer_id: ProducerId(long[3]),
                producer_epoch: ProducerEpoch(epoch),
                base_sequence: numbers[3],
                record_count: numbers[4],
            };
            prop_assert_eq!(BatchHeader::read(&header.to_bytes()), Ok(header));
        }
    }
}
