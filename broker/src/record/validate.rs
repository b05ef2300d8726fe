//! What a producer's batch must be like before it may enter the log: the checks of kafka gateway 3.7, in its order, each with the
//! error that the client gets.
//!
//! The caller's own checks stand between them: [`frame`] does 5 to 7, then come leadership and replicas (8, 9), then [`check`] does 10 to
//! 17, then comes the producer's state (18). Compressed records are not looked into: what the header says of them holds.
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use super::batch::{BatchView, checksum};
use super::header::{BATCH_LENGTH, BatchHeader, Codec, LENGTH_PREFIX, MAGIC, MAGIC_V2, TimestampType};
use super::records::RecordError;

/// The smallest value of a length field in any format: below it nothing can be told of the bytes.
const SIZE_MIN: i32 = 14;
/// The first version of Produce that may carry zstd.
const ZSTD_PRODUCE_VERSION_MIN: i16 = 7;
/// `max.message.bytes` unless set, in bytes.
pub const MESSAGE_LENGTH_MAX: usize = 1_048_588;
/// How far ahead of the broker's clock a record may be unless set: one hour, in milliseconds.
pub const TIMESTAMP_AFTER_MAX_MS: i64 = 3_600_000;

/// Why a batch was refused. Nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Check 5: the bytes hold no complete batch.
    #[error("there is no complete batch")]
    NoBatch,
    /// Check 6: no batch has this length.
    #[error("a batch can not have the length {length}")]
    Length {
        /// The length field.
        length: i32,
    },
    /// Check 6: no format has this number.
    #[error("there is no format {magic}")]
    Magic {
        /// The format field.
        magic: i8,
    },
    /// Check 7: a format from before the batches of today.
    #[error("format {magic} is not taken")]
    OldFormat {
        /// 0 or 1.
        magic: i8,
    },
    /// Check 7: more than one batch.
    #[error("there is more than one batch")]
    SeveralBatches,
    /// Check 7: an unknown codec, or one that this version of Produce does not know.
    #[error("codec {codec} is not taken")]
    Codec {
        /// Its number, 0 to 7.
        codec: u8,
    },
    /// Check 10: clients do not know the offset.
    #[error("the base offset is {base_offset} instead of 0")]
    BaseOffset {
        /// The base offset field.
        base_offset: i64,
    },
    /// Check 11.
    #[error("the batch has {length} bytes, {max} are allowed")]
    MessageTooLarge {
        /// Length of the whole batch.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// Check 12.
    #[error("the checksum is {stored:#010x}, the bytes give {computed:#010x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Check 13: a fresh batch has as many records as offsets, and at least one.
    #[error("{record_count} records can not have last offset delta {last_offset_delta}")]
    Count {
        /// Record count.
        record_count: i32,
        /// Last offset delta.
        last_offset_delta: i32,
    },
    /// Check 14, and bits that are the broker's: markers and delete horizons come from nobody else.
    #[error("attributes {attributes:#06x} are not a producer's")]
    Attributes {
        /// The attributes field.
        attributes: i16,
    },
    /// Check 14: a producer id without sequence or epoch, or a transaction without a producer id.
    #[error("producer id, epoch and sequence do not belong together")]
    ProducerFields,
    /// Check 15: a record that does not parse.
    #[error("record {index}: {reason}")]
    Record {
        /// Its place in the batch.
        index: i32,
        /// What is wrong.
        reason: RecordError,
    },
    /// Check 15: offsets are not 0, 1, 2, ...
    #[error("record {index} has offset delta {offset_delta}")]
    RecordOffset {
        /// Its place in the batch.
        index: i32,
        /// What it says.
        offset_delta: i32,
    },
    /// Check 15: compaction has to know the key.
    #[error("record {index} has no key")]
    NoKey {
        /// Its place in the batch.
        index: i32,
    },
    /// The records would have to be looked into, and the codec's bytes can not be: refused rather than stored unchecked.
    #[error("compressed records can not be checked, as this topic asks for")]
    CompressedUnchecked,
    /// Check 16: the timestamp is not the producer's to set, or too far from the broker's clock.
    #[error("timestamp {timestamp} is not taken")]
    Timestamp {
        /// What the record, or the header, says, in milliseconds.
        timestamp: i64,
        /// Place of the record in the batch; `None` if the header says it.
        index: Option<i32>,
    },
    /// Check 17: larger than a segment.
    #[error("the batch has {length} bytes, a segment {max}")]
    SegmentTooSmall {
        /// Length of the whole batch.
        length: usize,
        /// The limit.
        max: usize,
    },
}

impl ProduceError {
    /// The Kafka error code. Clients below Produce 8 do not know 87: what they get instead is the door's to choose.
    #[must_use]
    pub const fn code(&self) -> i16 {
        match self {
            Self::Length { .. } | Self::Magic { .. } | Self::Checksum { .. } => 2, // CORRUPT_MESSAGE
            Self::MessageTooLarge { .. } => 10,                                    // MESSAGE_TOO_LARGE
            Self::SegmentTooSmall { .. } => 18,                                    // RECORD_LIST_TOO_LARGE
            Self::Timestamp { .. } => 32,                                          // INVALID_TIMESTAMP
            Self::Codec { .. } | Self::CompressedUnchecked => 76, // UNSUPPORTED_COMPRESSION_TYPE
            Self::NoBatch
            | Self::OldFormat { .. }
            | Self::SeveralBatches
            | Self::BaseOffset { .. }
            | Self::Count { .. }
            | Self::Attributes { .. }
            | Self::ProducerFields
            | Self::Record { .. }
            | Self::RecordOffset { .. }
            | Self::NoKey { .. } => 87, // INVALID_RECORD
        }
    }

    /// Which record the list of Produce 8 names: the first bad one. `None` if it is the batch that is bad.
    #[must_use]
    pub const fn record_index(&self) -> Option<i32> {
        match *self {
            Self::Record { index, .. } | Self::RecordOffset { index, .. } | Self::NoKey { index } => {
                Some(index)
            }
            Self::Timestamp { index, .. } => index,
            _ => None,
        }
    }
}

/// Whether records need keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// They may do without.
    Optional,
    /// The topic is compacted; compressed batches are refused for as long as nobody can look into them.
    Required,
}

/// What of compressed records is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressed {
    /// The header, once the checksum is good.
    Trusted,
    /// Nothing: compressed batches are refused.
    Refused,
}

/// A topic's rules for what enters its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// Longest batch in bytes, header included: `max.message.bytes`.
    pub message_length_max: usize,
    /// Length of a segment in bytes.
    pub segment_length_max: usize,
    /// Whose time records carry. Create times are not looked at where the broker writes its own.
    pub timestamp_type: TimestampType,
    /// How far behind the broker's clock a create time may be, in milliseconds; `i64::MAX` for any past.
    pub timestamp_before_max_ms: i64,
    /// How far ahead of it, in milliseconds.
    pub timestamp_after_max_ms: i64,
    /// Whether records need keys.
    pub keys: Keys,
    /// What of compressed records is believed.
    pub compressed: Compressed,
}

/// A batch that may enter the log of the topic whose rules it was checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidBatch<'a> {
    view: BatchView<'a>,
    max_timestamp: EpochMs,
}

impl<'a> ValidBatch<'a> {
    /// The batch.
    #[must_use]
    pub const fn view(&self) -> &BatchView<'a> {
        &self.view
    }

    /// The latest timestamp of its records, for the time index: worked out, or what the header of a compressed batch says.
    #[must_use]
    pub const fn max_timestamp(&self) -> EpochMs {
        self.max_timestamp
    }
}

/// Checks 5 to 7: finds the one batch in what a Produce request of version `produce_version` holds for a partition. Bytes behind
/// it that make no full batch are dropped. What it gives is not fit to be stored, but its header may be looked at.
///
/// # Errors
/// [`ProduceError`] for the first check that fails.
pub fn frame(bytes: &[u8], produce_version: i16) -> Result<BatchView<'_>, ProduceError> {
    let length = full_length(bytes).ok_or(ProduceError::NoBatch)?;
    if length < SIZE_MIN {
        return Err(ProduceError::Length { length });
    }
    let magic = bytes.get(MAGIC).ok_or(ProduceError::NoBatch)?.cast_signed();
    if !(0..=MAGIC_V2).contains(&magic) {
        return Err(ProduceError::Magic { magic });
    }
    if magic < MAGIC_V2 {
        return Err(ProduceError::OldFormat { magic });
    }
    // Between 14 and 48 the length is too small for this format alone, which the parser finds.
    let view = BatchView::parse(bytes).map_err(|_| ProduceError::Length { length })?;
    let rest = bytes.get(view.as_bytes().len()..).unwrap_or(&[]);
    if full_length(rest).is_some_and(|length| length >= SIZE_MIN) {
        return Err(ProduceError::SeveralBatches);
    }
    let attributes = view.header().attributes;
    let refused = match attributes.codec() {
        None => true,
        Some(codec) => codec == Codec::Zstd && produce_version < ZSTD_PRODUCE_VERSION_MIN,
    };
    if refused {
        return Err(ProduceError::Codec {
            codec: attributes.codec_number(),
        });
    }
    Ok(view)
}

/// The length field, if as many bytes follow it.
fn full_length(bytes: &[u8]) -> Option<i32> {
    let (head, rest) = bytes.split_at_checked(LENGTH_PREFIX)?;
    let length = i32::from_be_bytes(*head.get(BATCH_LENGTH..)?.first_chunk()?);
    // A negative length is no lack of bytes: the next check refuses it.
    (i64::from(length) <= rest.len() as i64).then_some(length)
}

/// Checks 10 to 17 of a batch that [`frame`] gave, against its topic's rules, at the time `now`.
///
/// # Errors
/// [`ProduceError`] for the first check that fails; of the checks of records, those of form (15) before those of time (16).
pub fn check<'a>(
    view: BatchView<'a>,
    rules: &ProduceRules,
    now: EpochMs,
) -> Result<ValidBatch<'a>, ProduceError> {
    let header = *view.header();
    let length = view.as_bytes().len();
    if header.base_offset.0 != 0 {
        return Err(ProduceError::BaseOffset {
            base_offset: header.base_offset.0,
        });
    }
    if length > rules.message_length_max {
        return Err(ProduceError::MessageTooLarge {
            length,
            max: rules.message_length_max,
        });
    }
    let computed = checksum(view.as_bytes());
    if computed != header.crc {
        return Err(ProduceError::Checksum {
            stored: header.crc,
            computed,
        });
    }
    check_header(&header)?;
    let times = check_records(&view, rules, now)?;
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(ProduceError::Timestamp {
            timestamp: header.max_timestamp.0,
            index: None,
        });
    }
    if let Some(refused) = times.refused {
        return Err(refused);
    }
    if length > rules.segment_length_max {
        return Err(ProduceError::SegmentTooSmall {
            length,
            max: rules.segment_length_max,
        });
    }
    Ok(ValidBatch {
        view,
        max_timestamp: times.max,
    })
}

/// Checks 13 and 14.
fn check_header(header: &BatchHeader) -> Result<(), ProduceError> {
    let BatchHeader {
        record_count,
        last_offset_delta,
        attributes,
        ..
    } = *header;
    if record_count <= 0 || i64::from(record_count) != i64::from(last_offset_delta) + 1 {
        return Err(ProduceError::Count {
            record_count,
            last_offset_delta,
        });
    }
    if attributes.is_control() || attributes.has_delete_horizon() {
        return Err(ProduceError::Attributes {
            attributes: attributes.0,
        });
    }
    let whole = header.base_sequence >= 0 && header.producer_epoch.0 >= 0;
    let misfit = if header.has_producer() {
        !whole
    } else {
        attributes.is_transactional()
    };
    if misfit {
        Err(ProduceError::ProducerFields)
    } else {
        Ok(())
    }
}

/// What the records say of time.
struct Times {
    max: EpochMs,
    /// The first timestamp that is out of bounds: told only after every record's form is known to be good.
    refused: Option<ProduceError>,
}

impl Times {
    fn see(&mut self, timestamp: EpochMs, index: Option<i32>, rules: &ProduceRules, now: EpochMs) {
        self.max = self.max.max(timestamp);
        // -1 is "no timestamp".
        let judged = rules.timestamp_type == TimestampType::CreateTime && timestamp.0 != -1;
        let behind = now.0.saturating_sub(timestamp.0);
        let ahead = timestamp.0.saturating_sub(now.0);
        if judged && (behind > rules.timestamp_before_max_ms || ahead > rules.timestamp_after_max_ms) {
            self.refused.get_or_insert(ProduceError::Timestamp {
                timestamp: timestamp.0,
                index,
            });
        }
    }
}

/// Check 15, and what check 16 has to know.
fn check_records(view: &BatchView<'_>, rules: &ProduceRules, now: EpochMs) -> Result<Times, ProduceError> {
    let header = *view.header();
    let mut times = Times {
        max: EpochMs(-1),
        refused: None,
    };
    let Some(records) = view.records() else {
        if rules.keys == Keys::Required || rules.compressed == Compressed::Refused {
            return Err(ProduceError::CompressedUnchecked);
        }
        times.see(header.max_timestamp, None, rules, now);
        return Ok(times);
    };
    for (index, record) in (0..).zip(records) {
        let record = record.map_err(|reason| ProduceError::Record { index, reason })?;
        if record.offset_delta != index {
            return Err(ProduceError::RecordOffset {
                index,
                offset_delta: record.offset_delta,
            });
        }
        if rules.keys == Keys::Required && record.key.is_none() {
            return Err(ProduceError::NoKey { index });
        }
        match header.base_timestamp.0.checked_add(record.timestamp_delta) {
            Some(timestamp) => times.see(EpochMs(timestamp), Some(index), rules, now),
            None => {
                let timestamp = record.timestamp_delta;
                times.refused.get_or_insert(ProduceError::Timestamp {
                    timestamp,
                    index: Some(index),
                });
            }
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Offset, ProducerEpoch, ProducerId};
    use crate::record::builder::{arbitrary, seal};
    use crate::record::{Attributes, BatchBuilder, BatchMut, NewRecord, Producer};
    use proptest::prelude::*;

    const NOW: EpochMs = EpochMs(1_700_000_000_000);
    const RULES: ProduceRules = ProduceRules {
        message_length_max: MESSAGE_LENGTH_MAX,
        segment_length_max: 1 << 30,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: TIMESTAMP_AFTER_MAX_MS,
        keys: Keys::Optional,
        compressed: Compressed::Trusted,
    };

    fn batch(records: &[(i64, Option<&[u8]>)]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(4096);
        for &(timestamp, key) in records {
            builder
                .push(EpochMs(timestamp), &NewRecord::new(key, Some(b"value")))
                .unwrap();
        }
        builder.finish().unwrap().to_vec()
    }

    fn good() -> Vec<u8> {
        batch(&[(NOW.0, Some(b"a")), (NOW.0 - 5, None)])
    }

    /// The good batch with other header fields and a checksum that fits.
    fn with(change: impl Fn(&mut BatchHeader)) -> Vec<u8> {
        let bytes = good();
        let view = BatchView::parse(&bytes).unwrap();
        let mut header = *view.header();
        change(&mut header);
        seal(header, view.record_bytes()).unwrap()
    }

    fn validate<'a>(bytes: &'a [u8], rules: &ProduceRules) -> Result<ValidBatch<'a>, ProduceError> {
        check(frame(bytes, 9)?, rules, NOW)
    }

    #[test]
    fn a_good_batch_enters_with_the_latest_timestamp_of_its_records() {
        let bytes = good();
        let valid = validate(&bytes, &RULES).unwrap();
        assert_eq!(valid.view().as_bytes(), bytes);
        assert_eq!(valid.max_timestamp(), NOW);
        // A header that lies about it is not believed where records can be looked at, and is where not.
        let bytes = with(|header| header.max_timestamp = EpochMs(NOW.0 - 1));
        assert_eq!(validate(&bytes, &RULES).unwrap().max_timestamp(), NOW);
        let bytes = with(|header| {
            header.max_timestamp = EpochMs(NOW.0 - 1);
            header.attributes = Attributes::NONE.with_codec(Codec::Lz4);
        });
        assert_eq!(
            validate(&bytes, &RULES).unwrap().max_timestamp(),
            EpochMs(NOW.0 - 1)
        );
    }

    #[test]
    fn framing_checks_5_to_7() {
        let good = good();
        for cut in 0..good.len() {
            assert_eq!(frame(&good[..cut], 9), Err(ProduceError::NoBatch), "cut at {cut}");
        }
        let length = |length: i32| {
            let mut bytes = good.clone();
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            frame(&bytes, 9).unwrap_err()
        };
        for bad in [i32::MIN, -1, 0, 13, 14, 48] {
            assert_eq!(length(bad), ProduceError::Length { length: bad });
        }
        assert_eq!(length(i32::MAX), ProduceError::NoBatch);
        let magic = |magic: u8| {
            let mut bytes = good.clone();
            bytes[16] = magic;
            frame(&bytes, 9).unwrap_err()
        };
        assert_eq!(magic(0), ProduceError::OldFormat { magic: 0 });
        assert_eq!(magic(1), ProduceError::OldFormat { magic: 1 });
        assert_eq!(magic(3), ProduceError::Magic { magic: 3 });
        assert_eq!(magic(0xff), ProduceError::Magic { magic: -1 });
    }

    #[test]
    fn bytes_behind_the_batch_are_dropped_unless_they_are_another() {
        let mut bytes = good();
        let length = bytes.len();
        bytes.extend_from_slice(&good()[..length - 1]);
        assert_eq!(frame(&bytes, 9).unwrap().as_bytes(), good());
        bytes.extend_from_slice(&good()[length - 1..]);
        assert_eq!(frame(&bytes, 9), Err(ProduceError::SeveralBatches));
        let padded = [good(), vec![0; 40]].concat();
        assert_eq!(frame(&padded, 9).unwrap().as_bytes(), good());
    }

    #[test]
    fn codecs_are_those_of_the_version() {
        for (number, versions) in [
            (0, 3..10),
            (1, 3..10),
            (2, 3..10),
            (3, 3..10),
            (4, 7..10),
            (5, 0..0),
            (7, 0..0),
        ] {
            let bytes = with(|header| header.attributes = Attributes(number));
            for version in 3..10 {
                let taken = frame(&bytes, version).map(|_| ());
                let codec = number as u8;
                let expected = if versions.contains(&version) {
                    Ok(())
                } else {
                    Err(ProduceError::Codec { codec })
                };
                assert_eq!(taken, expected, "codec {number}, version {version}");
            }
        }
    }

    #[test]
    fn each_violation_of_the_header_has_its_error() {
        let refused = |change: &dyn Fn(&mut BatchHeader)| validate(&with(change), &RULES).err();
        assert_eq!(refused(&|_| ()), None);
        assert_eq!(
            refused(&|h| h.base_offset = Offset(1)),
            Some(ProduceError::BaseOffset { base_offset: 1 })
        );
        let count = |record_count, last_offset_delta| {
            refused(&|h| (h.record_count, h.last_offset_delta) = (record_count, last_offset_delta))
        };
        for (record_count, last_offset_delta) in [(0, -1), (1, 1), (2, 0), (-1, -2), (i32::MIN, i32::MAX)] {
            assert_eq!(
                count(record_count, last_offset_delta),
                Some(ProduceError::Count {
                    record_count,
                    last_offset_delta
                })
            );
        }
        // One record too many, and one too few, for the bytes.
        assert!(matches!(count(3, 2), Some(ProduceError::Record { index: 2, .. })));
        assert!(matches!(count(1, 0), Some(ProduceError::Record { index: 1, .. })));
        assert_eq!(
            refused(&|h| h.attributes = Attributes(32)),
            Some(ProduceError::Attributes { attributes: 32 })
        );
        assert_eq!(
            refused(&|h| h.attributes = Attributes(64)),
            Some(ProduceError::Attributes { attributes: 64 })
        );
        assert!(matches!(
            refused(&|h| h.attributes = Attributes::NONE.with_log_append_time()),
            Some(ProduceError::Timestamp { index: None, .. })
        ));
        // What is unused is left alone.
        assert_eq!(refused(&|h| h.attributes = Attributes(0x80)), None);
    }

    #[test]
    fn producer_fields_belong_together() {
        let fields = |id, epoch, base_sequence, attributes| {
            let bytes = with(|header| {
                header.producer_id = ProducerId(id);
                header.producer_epoch = ProducerEpoch(epoch);
                header.base_sequence = base_sequence;
                header.attributes = attributes;
            });
            validate(&bytes, &RULES).map(|_| ())
        };
        let transactional = Attributes::NONE.with_transactional();
        assert_eq!(fields(0, 0, 0, Attributes::NONE), Ok(()));
        assert_eq!(fields(i64::MAX, i16::MAX, i32::MAX, transactional), Ok(()));
        assert_eq!(fields(-1, -1, -1, Attributes::NONE), Ok(()));
        assert_eq!(fields(-1, 3, 3, Attributes::NONE), Ok(()));
        assert_eq!(
            fields(5, 0, -1, Attributes::NONE),
            Err(ProduceError::ProducerFields)
        );
        assert_eq!(
            fields(5, -1, 0, Attributes::NONE),
            Err(ProduceError::ProducerFields)
        );
        assert_eq!(
            fields(-1, -1, -1, transactional),
            Err(ProduceError::ProducerFields)
        );
    }

    #[test]
    fn the_first_of_two_violations_is_told() {
        // Too large comes before the checksum, so that nobody makes the broker work for nothing; base offset comes before both.
        let mut bytes = good();
        bytes[30] ^= 1;
        let length = bytes.len();
        let rules = ProduceRules {
            message_length_max: length - 1,
            ..RULES
        };
        assert_eq!(
            validate(&bytes, &rules),
            Err(ProduceError::MessageTooLarge {
                length,
                max: length - 1
            })
        );
        assert!(matches!(
            validate(
                &bytes,
                &ProduceRules {
                    message_length_max: length,
                    ..RULES
                }
            ),
            Err(ProduceError::Checksum { .. })
        ));
        BatchMut::parse(&mut bytes).unwrap().place(Offset(4), Epoch(0));
        assert_eq!(
            validate(&bytes, &rules),
            Err(ProduceError::BaseOffset { base_offset: 4 })
        );
        // A record out of form is told before one out of time, wherever it stands.
        let late = [batch(&[(NOW.0 + 4_000_000, None), (NOW.0, None)])].concat();
        assert!(matches!(
            validate(&late, &RULES),
            Err(ProduceError::Timestamp { index: Some(0), .. })
        ));
        let rules = ProduceRules {
            keys: Keys::Required,
            ..RULES
        };
        let late = batch(&[(NOW.0 + 4_000_000, Some(b"k")), (NOW.0, None)]);
        assert_eq!(validate(&late, &rules), Err(ProduceError::NoKey { index: 1 }));
        let rules = ProduceRules {
            segment_length_max: 100,
            ..RULES
        };
        assert!(matches!(
            validate(&late, &rules),
            Err(ProduceError::Timestamp { .. })
        ));
    }

    #[test]
    fn offsets_of_records_count_from_zero() {
        let bytes = good();
        let view = BatchView::parse(&bytes).unwrap();
        let mut body = view.record_bytes().to_vec();
        body[3] = 2;
        let bytes = seal(*view.header(), &body).unwrap();
        assert_eq!(
            validate(&bytes, &RULES),
            Err(ProduceError::RecordOffset {
                index: 0,
                offset_delta: 1
            })
        );
    }

    #[test]
    fn create_times_stay_within_the_bounds() {
        let rules = ProduceRules {
            timestamp_before_max_ms: 1000,
            timestamp_after_max_ms: 10,
            ..RULES
        };
        let refused = |timestamp: i64| validate(&batch(&[(NOW.0, None), (timestamp, None)]), &rules).err();
        let error = |timestamp| {
            Some(ProduceError::Timestamp {
                timestamp,
                index: Some(1),
            })
        };
        assert_eq!(refused(NOW.0 - 1000), None);
        assert_eq!(refused(NOW.0 - 1001), error(NOW.0 - 1001));
        assert_eq!(refused(NOW.0 + 10), None);
        assert_eq!(refused(NOW.0 + 11), error(NOW.0 + 11));
        assert_eq!(refused(-1), None, "no timestamp at all");
        let both = batch(&[(0, None), (1, None)]);
        assert_eq!(
            validate(&both, &rules),
            Err(ProduceError::Timestamp {
                timestamp: 0,
                index: Some(0)
            })
        );
        assert_eq!(refused(i64::MAX), error(i64::MAX));
        let own = ProduceRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules
        };
        assert!(validate(&batch(&[(0, None)]), &own).is_ok());
        // A timestamp that is no number.
        let bytes = with(|header| header.base_timestamp = EpochMs(i64::MIN + 2));
        assert_eq!(
            validate(&bytes, &own),
            Err(ProduceError::Timestamp {
                timestamp: -5,
                index: Some(1)
            })
        );
        // Of compressed records the header speaks.
        let bytes = with(|header| {
            header.attributes = Attributes::NONE.with_codec(Codec::Gzip);
            header.max_timestamp = EpochMs(NOW.0 + 11);
        });
        assert_eq!(
            validate(&bytes, &rules),
            Err(ProduceError::Timestamp {
                timestamp: NOW.0 + 11,
                index: None
            })
        );
    }

    #[test]
    fn compressed_records_are_refused_where_they_would_have_to_be_looked_into() {
        let bytes = with(|header| header.attributes = Attributes::NONE.with_codec(Codec::Snappy));
        assert!(validate(&bytes, &RULES).is_ok());
        for rules in [
            ProduceRules {
                keys: Keys::Required,
                ..RULES
            },
            ProduceRules {
                compressed: Compressed::Refused,
                ..RULES
            },
        ] {
            assert_eq!(validate(&bytes, &rules), Err(ProduceError::CompressedUnchecked));
            assert!(validate(&batch(&[(0, Some(b""))]), &rules).is_ok());
        }
    }

    #[test]
    fn a_batch_fits_a_segment() {
        let bytes = good();
        let length = bytes.len();
        let rules = ProduceRules {
            segment_length_max: length,
            ..RULES
        };
        assert!(validate(&bytes, &rules).is_ok());
        let rules = ProduceRules {
            segment_length_max: length - 1,
            ..RULES
        };
        assert_eq!(
            validate(&bytes, &rules),
            Err(ProduceError::SegmentTooSmall {
                length,
                max: length - 1
            })
        );
    }

    #[test]
    fn codes_are_those_of_the_table() {
        let reason = RecordError::Number;
        let table = [
            (ProduceError::NoBatch, 87),
            (ProduceError::Length { length: 0 }, 2),
            (ProduceError::Magic { magic: 3 }, 2),
            (ProduceError::OldFormat { magic: 1 }, 87),
            (ProduceError::SeveralBatches, 87),
            (ProduceError::Codec { codec: 4 }, 76),
            (ProduceError::BaseOffset { base_offset: 1 }, 87),
            (ProduceError::MessageTooLarge { length: 2, max: 1 }, 10),
            (
                ProduceError::Checksum {
                    stored: 0,
                    computed: 1,
                },
                2,
            ),
            (
                ProduceError::Count {
                    record_count: 0,
                    last_offset_delta: 0,
                },
                87,
            ),
            (ProduceError::Attributes { attributes: 32 }, 87),
            (ProduceError::ProducerFields, 87),
            (ProduceError::Record { index: 3, reason }, 87),
            (
                ProduceError::RecordOffset {
                    index: 3,
                    offset_delta: 0,
                },
                87,
            ),
            (ProduceError::NoKey { index: 3 }, 87),
            (ProduceError::CompressedUnchecked, 76),
            (
                ProduceError::Timestamp {
                    timestamp: 0,
                    index: Some(3),
                },
                32,
            ),
            (ProduceError::SegmentTooSmall { length: 2, max: 1 }, 18),
        ];
        for (error, code) in table {
            assert_eq!(error.code(), code, "{error}");
            let of_record = error.to_string().starts_with("record ") || code == 32;
            assert_eq!(error.record_index(), of_record.then_some(3), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_built_is_valid((records, bytes) in arbitrary::batch()) {
            let rules = ProduceRules { timestamp_after_max_ms: i64::MAX, ..RULES };
            let valid = validate(&bytes, &rules).unwrap();
            prop_assert_eq!(valid.max_timestamp().0, records.iter().map(|record| record.timestamp).max().unwrap());
        }

        /// No change of one byte passes, except where the broker writes anyway: the leader epoch.
        #[test]
        fn a_changed_batch_is_refused((_, mut bytes) in arbitrary::batch(), at: prop::sample::Index, flip in 1_u8..) {
            let rules = ProduceRules { timestamp_after_max_ms: i64::MAX, ..RULES };
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(validate(&bytes, &rules).is_ok(), (12..16).contains(&at));
        }

        /// With a checksum that fits, anything may be said; whatever passes keeps what later parts rely on.
        #[test]
        fn a_lying_batch_never_panics(
            (_, bytes) in arbitrary::batch(), at: prop::sample::Index, byte: u8, count: i32, delta: i32, attributes in 0_i16..128,
            producer in arbitrary::producer(),
        ) {
            let view = BatchView::parse(&bytes).unwrap();
            let mut body = view.record_bytes().to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            let Producer { id, epoch, base_sequence } = producer;
            for header in [
                BatchHeader { record_count: count, last_offset_delta: delta, ..*view.header() },
                BatchHeader { record_count: count, last_offset_delta: count.wrapping_sub(1), ..*view.header() },
                BatchHeader { attributes: Attributes(attributes), producer_id: id, producer_epoch: epoch, base_sequence, ..*view.header() },
            ] {
                let bytes = seal(header, &body).unwrap();
                if let Ok(valid) = validate(&bytes, &RULES) {
                    prop_assert_eq!(valid.view().verify(), Ok(()));
                    prop_assert_eq!(valid.view().header().record_count, valid.view().header().last_offset_delta + 1);
                    if let Some(records) = valid.view().records() {
                        prop_assert_eq!(records.count(), valid.view().header().record_count as usize);
                    }
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), version: i16) {
            if let Ok(view) = frame(&bytes, version) {
                prop_assert!(check(view, &RULES, NOW).is_err());
            }
        }
    }
}
