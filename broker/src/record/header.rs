//! The header of a record batch: 61 bytes that say what lies behind them. It is all that the broker needs to know of a batch to
//! place, index, serve and recover it, whatever its compression (kafka gateway 3.8).
//!
//! ```text
//!   0        8      12      16  17     21     23        27      35       43       51      53       57      61
//!   +--------+------+-------+---+------+------+---------+-------+--------+--------+-------+--------+-------+
//!   | base   |length| leader|mag| crc  |attri-| last    | base  | max    |producer|produ- | base   | record| records
//!   | offset | i32  | epoch |ic | u32  |butes | offset  | time- | time-  | id     |cer    |sequence| count | ..
//!   | i64    |      | i32   |i8 |      | i16  |delta i32|stamp  |stamp   | i64    |epoch  | i32    | i32   |
//!   +--------+------+-------+---+------+------+---------+-------+--------+--------+-------+--------+-------+
//!            |      '- bytes after the length field count towards it ->           '- the checksum is over 21..end
//! ```
//! All numbers are big-endian (kafka gateway 3.1).
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use crate::id::{Epoch, Offset, ProducerEpoch, ProducerId};

pub(crate) const BASE_OFFSET: usize = 0;
pub(crate) const BATCH_LENGTH: usize = BASE_OFFSET + 8;
pub(crate) const LEADER_EPOCH: usize = BATCH_LENGTH + 4;
pub(crate) const MAGIC: usize = LEADER_EPOCH + 4;
pub(crate) const CRC: usize = MAGIC + 1;
pub(crate) const ATTRIBUTES: usize = CRC + 4;
const LAST_OFFSET_DELTA: usize = ATTRIBUTES + 2;
const BASE_TIMESTAMP: usize = LAST_OFFSET_DELTA + 4;
pub(crate) const MAX_TIMESTAMP: usize = BASE_TIMESTAMP + 8;
const PRODUCER_ID: usize = MAX_TIMESTAMP + 8;
const PRODUCER_EPOCH: usize = PRODUCER_ID + 8;
const BASE_SEQUENCE: usize = PRODUCER_EPOCH + 2;
const RECORD_COUNT: usize = BASE_SEQUENCE + 4;
const _: () = assert!(RECORD_COUNT + 4 == BatchHeader::LENGTH);

/// Bytes up to and including the length field, which it does not count.
pub(crate) const LENGTH_PREFIX: usize = BATCH_LENGTH + 4;
/// The only format that is stored.
pub(crate) const MAGIC_V2: i8 = 2;

/// Why bytes are not a good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch needs. At the end of a file this is what a torn write looks like.
    #[error("the batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// 61 while the header itself is cut, else the length of the whole batch.
        needed: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// The length field is smaller than the rest of a header.
    #[error("a batch can not have the length {length}")]
    Length {
        /// The field's value.
        length: i32,
    },
    /// The format is not 2.
    #[error("unknown format {magic}")]
    Magic {
        /// The field's value.
        magic: i8,
    },
    /// The bytes are not those that the checksum was made of.
    #[error("the checksum is {stored:#010x}, the bytes give {computed:#010x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The codec is 5, 6 or 7.
    #[error("unknown codec {codec}")]
    Codec {
        /// The attribute's value.
        codec: u8,
    },
    /// An offset of the batch is negative or beyond the number range.
    #[error("no batch lies at offset {base_offset} with last offset delta {last_offset_delta}")]
    Offsets {
        /// Base offset.
        base_offset: i64,
        /// Last offset delta.
        last_offset_delta: i32,
    },
    /// More records than offsets, or a negative number of them.
    #[error("{record_count} records can not have last offset delta {last_offset_delta}")]
    Count {
        /// Record count.
        record_count: i32,
        /// Last offset delta.
        last_offset_delta: i32,
    },
}

/// How the records of a batch are compressed. The broker passes the bytes on and looks into none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Records lie open.
    None,
    /// A gzip stream.
    Gzip,
    /// Snappy, framed as Java does or bare.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's clock, for each record.
    CreateTime,
    /// The broker's clock at append: the batch's max timestamp holds for every record.
    LogAppendTime,
}

/// The attribute bits of a batch (kafka gateway 3.2). Unused bits are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    /// No bit set: uncompressed, create time.
    pub const NONE: Self = Self(0);
    const CODEC_MASK: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// The codec; `None` for the undefined values 5 to 7.
    #[must_use]
    pub const fn codec(self) -> Option<Codec> {
        match self.0 & Self::CODEC_MASK {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The codec's number, 0 to 7.
    #[must_use]
    pub const fn codec_number(self) -> u8 {
        (self.0 & Self::CODEC_MASK) as u8
    }

    /// What its timestamps mean.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker instead of data.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time from which tombstones may be removed; set by compaction only.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The same with the codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC_MASK | codec as i16)
    }

    /// The same with the bit for log append time.
    #[must_use]
    pub const fn with_log_append_time(self) -> Self {
        Self(self.0 | Self::LOG_APPEND_TIME)
    }

    /// The same with the bit for control batches.
    #[must_use]
    pub const fn with_control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }

    /// The same with the bit for transactions.
    #[must_use]
    pub const fn with_transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }
}

/// The header, decoded. The fields are as they stand in the bytes: of their relations only what [`BatchHeader::read`] promises is
/// certain, until [`BatchView::verify`](super::BatchView::verify).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; 0 from clients.
    pub base_offset: Offset,
    /// Bytes after this field, at least 49.
    pub batch_length: i32,
    /// Leader epoch at append; what clients send has no meaning.
    pub leader_epoch: Epoch,
    /// CRC-32C over everything from the attributes on.
    pub crc: u32,
    /// Codec and kind.
    pub attributes: Attributes,
    /// Last offset less base offset, even if compaction has removed the last record.
    pub last_offset_delta: i32,
    /// What timestamp deltas count from; -1 in an empty batch.
    pub base_timestamp: EpochMs,
    /// The latest timestamp, as the producer says, or the time of the append.
    pub max_timestamp: EpochMs,
    /// Who produced it, -1 if not idempotent.
    pub producer_id: ProducerId,
    /// Which life of the producer, -1 if not idempotent.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, -1 if not idempotent.
    pub base_sequence: i32,
    /// Records in the batch; smaller than the number of offsets after compaction.
    pub record_count: i32,
}

impl BatchHeader {
    /// Length of a header in bytes.
    pub const LENGTH: usize = 61;
    /// The smallest legal value of the length field: a header without records.
    pub const BATCH_LENGTH_MIN: i32 = (Self::LENGTH - LENGTH_PREFIX) as i32;

    /// Decodes the header at the front of `bytes`, of which 61 are enough. Promises a length field of at least 49 and magic 2,
    /// nothing of the other fields.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Length`] or [`BatchError::Magic`], in this order.
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<{ Self::LENGTH }>() else {
            return Err(BatchError::Truncated {
                needed: Self::LENGTH,
                available: bytes.len(),
            });
        };
        let batch_length = i32::from_be_bytes(field(head, BATCH_LENGTH));
        if batch_length < Self::BATCH_LENGTH_MIN {
            return Err(BatchError::Length { length: batch_length });
        }
        let magic = i8::from_be_bytes(field(head, MAGIC));
        if magic != MAGIC_V2 {
            return Err(BatchError::Magic { magic });
        }
        Ok(Self {
            base_offset: Offset(i64::from_be_bytes(field(head, BASE_OFFSET))),
            batch_length,
            leader_epoch: Epoch(i32::from_be_bytes(field(head, LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(head, CRC)),
            attributes: Attributes(i16::from_be_bytes(field(head, ATTRIBUTES))),
            last_offset_delta: i32::from_be_bytes(field(head, LAST_OFFSET_DELTA)),
            base_timestamp: EpochMs(i64::from_be_bytes(field(head, BASE_TIMESTAMP))),
            max_timestamp: EpochMs(i64::from_be_bytes(field(head, MAX_TIMESTAMP))),
            producer_id: ProducerId(i64::from_be_bytes(field(head, PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(head, PRODUCER_EPOCH))),
            base_sequence: i32::from_be_bytes(field(head, BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(head, RECORD_COUNT)),
        })
    }

    /// Encodes the header, magic 2.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(BASE_OFFSET, &self.base_offset.0.to_be_bytes());
        put(BATCH_LENGTH, &self.batch_length.to_be_bytes());
        put(LEADER_EPOCH, &self.leader_epoch.0.to_be_bytes());
        put(MAGIC, &MAGIC_V2.to_be_bytes());
        put(CRC, &self.crc.to_be_bytes());
        put(ATTRIBUTES, &self.attributes.0.to_be_bytes());
        put(LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(PRODUCER_ID, &self.producer_id.0.to_be_bytes());
        put(PRODUCER_EPOCH, &self.producer_epoch.0.to_be_bytes());
        put(BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(RECORD_COUNT, &self.record_count.to_be_bytes());
        out
    }

    /// Length of the whole batch in bytes: at least 61, at most 2 GiB and 11 bytes.
    #[inline]
    #[must_use]
    pub fn total_length(&self) -> usize {
        // A header that was not read may hold a negative length; its batch is then as short as can be.
        usize::try_from(self.batch_length)
            .unwrap_or(0)
            .saturating_add(LENGTH_PREFIX)
            .max(Self::LENGTH)
    }

    /// Offset of the last record, or where it was; `None` beyond the number range.
    #[inline]
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        self.base_offset.checked_add(i64::from(self.last_offset_delta))
    }

    /// The first offset after the batch; `None` beyond the number range.
    #[inline]
    #[must_use]
    pub fn next_offset(&self) -> Option<Offset> {
        self.base_offset
            .checked_add(i64::from(self.last_offset_delta) + 1)
    }

    /// Whether the batch takes part in the idempotent producer's protocol: its producer id is not negative.
    #[inline]
    #[must_use]
    pub const fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Sequence of the last record: after 2^31-1 comes 0. Meaningless without a producer.
    #[inline]
    #[must_use]
    pub const fn last_sequence(&self) -> i32 {
        sequence_add(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence `count` (not negative) after `sequence` (not negative): after 2^31-1 comes 0.
#[inline]
#[must_use]
pub const fn sequence_add(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

fn field<const N: usize>(head: &[u8; BatchHeader::LENGTH], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_table_says() {
        // Each field a value of its own, written out by hand after kafka gateway 3.1.
        let golden: [u8; 61] = [
            0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // base offset
            0x00, 0x00, 0x00, 0x31, // batch length 49
            0x11, 0x12, 0x13, 0x14, // leader epoch
            0x02, // magic
            0xa1, 0xa2, 0xa3, 0xa4, // crc
            0x00, 0x3c, // attributes: zstd, log append time, transactional, control
            0x21, 0x22, 0x23, 0x24, // last offset delta
            0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, // base timestamp
            0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, // max timestamp
            0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, // producer id
            0x61, 0x62, // producer epoch
            0x71, 0x72, 0x73, 0x74, // base sequence
            0x00, 0x00, 0x00, 0x07, // record count
        ];
        let header = BatchHeader::read(&golden).unwrap();
        assert_eq!(
            header,
            BatchHeader {
                base_offset: Offset(0x0102_0304_0506_0708),
                batch_length: 49,
                leader_epoch: Epoch(0x1112_1314),
                crc: 0xa1a2_a3a4,
                attributes: Attributes(0x3c),
                last_offset_delta: 0x2122_2324,
                base_timestamp: EpochMs(0x3132_3334_3536_3738),
                max_timestamp: EpochMs(0x4142_4344_4546_4748),
                producer_id: ProducerId(0x5152_5354_5556_5758),
                producer_epoch: ProducerEpoch(0x6162),
                base_sequence: 0x7172_7374,
                record_count: 7,
            }
        );
        assert_eq!(header.to_bytes(), golden);
        assert_eq!(header.total_length(), 61);
        assert_eq!(header.attributes.codec(), Some(Codec::Zstd));
        assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert!(header.attributes.is_transactional());
        assert!(header.attributes.is_control());
        assert!(!header.attributes.has_delete_horizon());
    }

    #[test]
    fn short_bytes_bad_lengths_and_formats_are_told_apart() {
        let mut bytes = [0_u8; 61];
        assert_eq!(
            BatchHeader::read(&bytes[..60]),
            Err(BatchError::Truncated {
                needed: 61,
                available: 60
            })
        );
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Length { length: 0 }));
        bytes[8..12].copy_from_slice(&48_i32.to_be_bytes());
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Length { length: 48 }));
        bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Length { length: -1 }));
        bytes[8..12].copy_from_slice(&49_i32.to_be_bytes());
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Magic { magic: 0 }));
        bytes[16] = 2;
        assert!(BatchHeader::read(&bytes).is_ok());
    }

    #[test]
    fn attribute_bits() {
        for (number, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            .into_iter()
            .enumerate()
        {
            let attributes = Attributes(0x7ff8).with_codec(codec);
            assert_eq!(attributes.codec(), Some(codec));
            assert_eq!(usize::from(attributes.codec_number()), number);
            assert_eq!(attributes.0, 0x7ff8 | number as i16);
        }
        for undefined in 5..8 {
            assert_eq!(Attributes(undefined).codec(), None);
        }
        assert!(Attributes(0x40).has_delete_horizon());
        assert_eq!(Attributes::NONE.with_log_append_time(), Attributes(8));
        assert_eq!(Attributes::NONE.with_transactional(), Attributes(16));
        assert_eq!(Attributes::NONE.with_control(), Attributes(32));
        assert!(Attributes(-1).is_control());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_add(0, 0), 0);
        assert_eq!(sequence_add(i32::MAX, 0), i32::MAX);
        assert_eq!(sequence_add(i32::MAX, 1), 0);
        assert_eq!(sequence_add(i32::MAX - 1, 4), 2);
        assert_eq!(sequence_add(i32::MAX, i32::MAX), i32::MAX - 1);
    }
}
