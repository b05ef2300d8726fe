//! The state of a partition's producers as bytes, for its checkpoints (kafka gateway 4.2). Our own format, little-endian:
//!
//! ```text
//!   0        8         12      16            24
//!   +--------+---------+-------+-------------+-----------+-- .. --+-----------+----------+
//!   | magic  | version | count | next offset | producer  |        | producer  | crc      |
//!   | 8 bytes| u32     | u32   | i64         | 32 + 24 n |        |           | u32      |
//!   +--------+---------+-------+-------------+-----------+-- .. --+-----------+----------+
//!
//!   producer:  0         8             16                  24                  28      30       31        32
//!              +---------+-------------+-------------------+-------------------+-------+--------+---------+---------+
//!              | id      | last append | first offset of   | coordinator epoch | epoch | n, 0   | 0       | n times |
//!              | i64     | ms, i64     | transaction, or -1| i32               | i16   | to 5   |         | a batch |
//!              +---------+-------------+-------------------+-------------------+-------+--------+---------+---------+
//!
//!   batch:     0             8             16              20             24
//!              +-------------+-------------+---------------+--------------+
//!              | last offset | timestamp   | last sequence | offset delta |
//!              | i64         | ms, i64     | i32           | i32          |
//!              +-------------+-------------+---------------+--------------+
//! ```
//! Producers stand in the order of their ids, batches in that of their offsets. The checksum is CRC-32C over all before it. A state
//! has one encoding only, and whatever is none is refused: the log is then gone through from its start.
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;

use super::producer_state::{
    AppendedBatch, ProducerLimits, ProducerState, ProducerStates, WINDOW_LENGTH, Window,
};
use crate::id::{Offset, ProducerEpoch, ProducerId};

const MAGIC: [u8; 8] = *b"FULMPROD";
const VERSION: u32 = 1;
const HEAD_LENGTH: usize = 24;
const PRODUCER_LENGTH: usize = 32;
const BATCH_LENGTH: usize = 24;
const CRC_LENGTH: usize = 4;

/// Longest snapshot of `producers_max` producers, in bytes.
#[must_use]
pub const fn length_max(producers_max: usize) -> usize {
    let producer = PRODUCER_LENGTH + WINDOW_LENGTH * BATCH_LENGTH;
    producers_max
        .saturating_mul(producer)
        .saturating_add(HEAD_LENGTH + CRC_LENGTH)
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Fewer bytes than it says, or more.
    #[error("a snapshot does not have {length} bytes")]
    Length {
        /// Bytes at hand.
        length: usize,
    },
    /// It begins like something else.
    #[error("the bytes are no snapshot of producers")]
    Magic,
    /// Of a later version of the broker.
    #[error("unknown version {version}")]
    Version {
        /// The version field.
        version: u32,
    },
    /// The bytes are not those that the checksum was made of.
    #[error("the checksum is {stored:#010x}, the bytes give {computed:#010x}")]
    Checksum {
        /// What the snapshot says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A field that no state can have, though the checksum is good.
    #[error("producer {index} of the snapshot can not be")]
    Producer {
        /// Its place in the snapshot.
        index: u32,
    },
    /// The offset is negative.
    #[error("a log can not end at offset {offset}")]
    NextOffset {
        /// The field.
        offset: i64,
    },
}

/// Appends the snapshot of `states` to `out`.
pub fn encode(states: &ProducerStates, out: &mut Vec<u8>) {
    let start = out.len();
    // There are never more producers than 32 bits count: they are bounded, and memory would not hold them.
    let count = u32::try_from(states.producers.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&states.next_offset.0.to_le_bytes());
    for (id, state) in states.producers.iter().take(count as usize) {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&state.last_append.0.to_le_bytes());
        out.extend_from_slice(&state.transaction_first.map_or(-1, Offset::get).to_le_bytes());
        out.extend_from_slice(&state.coordinator_epoch.to_le_bytes());
        out.extend_from_slice(&state.epoch.0.to_le_bytes());
        out.extend_from_slice(&[state.batches().len() as u8, 0]);
        for batch in state.batches() {
            out.extend_from_slice(&batch.last_offset.0.to_le_bytes());
            out.extend_from_slice(&batch.timestamp.0.to_le_bytes());
            out.extend_from_slice(&batch.last_sequence.to_le_bytes());
            out.extend_from_slice(&batch.offset_delta.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads a snapshot, which is all of `bytes`. If it holds more producers than `limits` allow, the longest idle are left out.
///
/// # Errors
/// [`SnapshotError`] for the first thing that is wrong.
pub fn decode(bytes: &[u8], limits: ProducerLimits) -> Result<ProducerStates, SnapshotError> {
    let length = bytes.len();
    let short = SnapshotError::Length { length };
    if bytes.first_chunk().ok_or(short)? != &MAGIC {
        return Err(SnapshotError::Magic);
    }
    let (body, crc) = bytes.split_last_chunk::<CRC_LENGTH>().ok_or(short)?;
    let mut rest = Reader(body.get(MAGIC.len()..).ok_or(short)?);
    let version = u32::from_le_bytes(rest.take().ok_or(short)?);
    if version != VERSION {
        return Err(SnapshotError::Version { version });
    }
    let (stored, computed) = (u32::from_le_bytes(*crc), crc32c::crc32c(body));
    if stored != computed {
        return Err(SnapshotError::Checksum { stored, computed });
    }
    let count = u32::from_le_bytes(rest.take().ok_or(short)?);
    let offset = i64::from_le_bytes(rest.take().ok_or(short)?);
    if offset < 0 {
        return Err(SnapshotError::NextOffset { offset });
    }
    let mut states = ProducerStates::new(limits, Offset(offset));
    let mut previous = -1;
    for index in 0..count {
        let head: [u8; PRODUCER_LENGTH] = rest.take().ok_or(short)?;
        let batches = rest
            .take_slice(usize::from(head[30]) * BATCH_LENGTH)
            .ok_or(short)?;
        let (id, state) = decode_producer(&head, batches, Offset(offset))
            .filter(|(id, _)| id.0 > previous)
            .ok_or(SnapshotError::Producer { index })?;
        previous = id.0;
        states.producers.insert(id, state);
    }
    if !rest.0.is_empty() {
        return Err(short);
    }
    states.shrink();
    Ok(states)
}

/// A producer whose fields may be; `None` else.
fn decode_producer(
    head: &[u8; PRODUCER_LENGTH],
    batches: &[u8],
    next_offset: Offset,
) -> Option<(ProducerId, ProducerState)> {
    let mut rest = Reader(head);
    let id = ProducerId(i64::from_le_bytes(rest.take()?));
    let last_append = EpochMs(i64::from_le_bytes(rest.take()?));
    let transaction_first = i64::from_le_bytes(rest.take()?);
    let coordinator_epoch = i32::from_le_bytes(rest.take()?);
    let epoch = ProducerEpoch(i16::from_le_bytes(rest.take()?));
    let [length, zero] = rest.take()?;
    let fields_may_be = epoch.0 >= 0 && coordinator_epoch >= -1 && zero == 0;
    let transaction_may_be = transaction_first >= -1 && transaction_first < next_offset.0;
    if !fields_may_be || !transaction_may_be || usize::from(length) > WINDOW_LENGTH {
        return None;
    }
    let mut state = ProducerState::new(epoch, last_append);
    state.coordinator_epoch = coordinator_epoch;
    state.transaction_first = (transaction_first >= 0).then_some(Offset(transaction_first));
    let mut window = Window::EMPTY;
    let mut end = -1;
    for batch in batches.chunks_exact(BATCH_LENGTH) {
        let mut rest = Reader(batch);
        let batch = AppendedBatch {
            last_offset: Offset(i64::from_le_bytes(rest.take()?)),
            timestamp: EpochMs(i64::from_le_bytes(rest.take()?)),
            last_sequence: i32::from_le_bytes(rest.take()?),
            offset_delta: i32::from_le_bytes(rest.take()?),
        };
        let follows = batch.base_offset().0 > end && batch.last_offset < next_offset;
        if !follows || batch.last_sequence < 0 || batch.offset_delta < 0 {
            return None;
        }
        end = batch.last_offset.0;
        window.push(batch);
    }
    state.window = window;
    Some((id, state))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn take_slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::producer_state::tests::LIMITS;
    use super::*;
    use proptest::prelude::*;

    fn states() -> impl Strategy<Value = ProducerStates> {
        let batch = (1..1000_i64, any::<i64>(), 0..=i32::MAX, 0..500_i32);
        let producer = (
            0..i64::MAX,
            any::<i64>(),
            prop::option::of(0..5000_i64),
            (-1..i32::MAX, 0..i16::MAX),
            prop::collection::vec(batch, 0..=5),
        );
        prop::collection::vec(producer, 0..6).prop_map(|producers| {
            let mut states = ProducerStates::new(LIMITS, Offset(5000));
            for (id, last_append, first, (coordinator_epoch, epoch), batches) in producers {
                let mut state = ProducerState::new(ProducerEpoch(epoch), EpochMs(last_append));
                state.coordinator_epoch = coordinator_epoch;
                state.transaction_first = first.map(Offset);
                let mut end = -1;
                for (step, timestamp, last_sequence, offset_delta) in batches {
                    let last = end + step + i64::from(offset_delta);
                    if last < 5000 {
                        end = last;
                        state.window.push(AppendedBatch {
                            last_offset: Offset(last),
                            offset_delta,
                            last_sequence,
                            timestamp: EpochMs(timestamp),
                        });
                    }
                }
                states.producers.insert(ProducerId(id), state);
            }
            states
        })
    }

    fn encoded(states: &ProducerStates) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(states, &mut bytes);
        bytes
    }

    /// The bytes with a checksum that fits.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn one_producer() -> Vec<u8> {
        // Written out by hand after the diagram.
        let mut bytes = b"FULMPROD".to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x27, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0xff; 8]);
        bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 3, 0, 1, 0]);
        bytes.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[5, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend_from_slice(&[0; 4]);
        sealed(bytes)
    }

    #[test]
    fn golden_snapshot() {
        let bytes = one_producer();
        let states = decode(&bytes, LIMITS).unwrap();
        assert_eq!(states.next_offset(), Offset(10));
        let state = states.get(ProducerId(7)).unwrap();
        assert_eq!((state.epoch, state.coordinator_epoch), (ProducerEpoch(3), -1));
        assert_eq!(
            (state.last_append, state.transaction_first),
            (EpochMs(10_000), None)
        );
        let batch = AppendedBatch {
            last_offset: Offset(9),
            offset_delta: 2,
            last_sequence: 5,
            timestamp: EpochMs(1000),
        };
        assert_eq!(state.batches(), [batch]);
        assert_eq!(encoded(&states), bytes);
        let empty = ProducerStates::new(LIMITS, Offset(0));
        assert_eq!(encoded(&empty).len(), 28);
        assert_eq!(decode(&encoded(&empty), LIMITS), Ok(empty));
    }

    #[test]
    fn each_thing_that_can_not_be_is_refused() {
        let good = one_producer();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode(&sealed(bytes), LIMITS).unwrap_err()
        };
        assert_eq!(with(0, b'X'), SnapshotError::Magic);
        assert_eq!(with(8, 2), SnapshotError::Version { version: 2 });
        assert_eq!(with(12, 0), SnapshotError::Length { length: good.len() });
        assert_eq!(with(15, 0xff), SnapshotError::Length { length: good.len() });
        assert!(matches!(with(23, 0x80), SnapshotError::NextOffset { .. }));
        let fields = [
            (16, 9),    // the log ends before the batch does
            (31, 0x80), // negative id
            (47, 0x7f), // transaction beyond the log
            (51, 0x80), // negative coordinator epoch
            (53, 0x80), // negative epoch
            (55, 1),    // unused
            (63, 0x80), // negative offset
            (56, 1),    // fewer offsets than records
            (75, 0x80), // negative sequence
            (79, 0x80), // negative delta
        ];
        for (at, byte) in fields {
            assert_eq!(with(at, byte), SnapshotError::Producer { index: 0 }, "byte {at}");
        }
        // Six good batches are one too many; five are not.
        let with_batches = |count: u8| {
            let mut bytes = good[..56].to_vec();
            bytes[54] = count;
            for offset in 0..count {
                bytes.extend_from_slice(&[offset, 0, 0, 0, 0, 0, 0, 0]);
                bytes.extend_from_slice(&[0; 16]);
            }
            bytes.extend_from_slice(&[0; 4]);
            decode(&sealed(bytes), LIMITS)
        };
        assert!(with_batches(5).is_ok());
        assert_eq!(with_batches(6), Err(SnapshotError::Producer { index: 0 }));
        // The same producer twice.
        let mut bytes = good.clone();
        bytes[12] = 2;
        let producer = bytes[24..80].to_vec();
        bytes.splice(80..80, producer);
        assert_eq!(
            decode(&sealed(bytes), LIMITS),
            Err(SnapshotError::Producer { index: 1 })
        );
        let mut bytes = good.clone();
        bytes[40] ^= 1;
        assert!(matches!(
            decode(&bytes, LIMITS),
            Err(SnapshotError::Checksum { .. })
        ));
        for cut in 0..good.len() {
            assert!(decode(&good[..cut], LIMITS).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_smaller_limit_leaves_out_the_longest_idle() {
        let mut states = ProducerStates::new(LIMITS, Offset(5));
        for (id, last_append) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
            states.producers.insert(
                ProducerId(id),
                ProducerState::new(ProducerEpoch(0), EpochMs(last_append)),
            );
        }
        let limits = ProducerLimits {
            producers_max: 2,
            ..LIMITS
        };
        let read = decode(&encoded(&states), limits).unwrap();
        assert_eq!(read.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(read.displaced(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(states in states()) {
            let bytes = encoded(&states);
            prop_assert!(bytes.len() <= length_max(states.iter().count()));
            prop_assert_eq!(decode(&bytes, LIMITS), Ok(states));
        }

        #[test]
        fn a_changed_byte_never_passes(states in states(), at: prop::sample::Index, flip in 1_u8..) {
            let mut bytes = encoded(&states);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes, LIMITS).is_err());
        }

        /// With a checksum that fits, whatever is read is a state, and that state's one encoding is what was read.
        #[test]
        fn a_lying_snapshot_is_refused_or_is_a_state(states in states(), at: prop::sample::Index, byte: u8) {
            let mut bytes = encoded(&states);
            let at = at.index(bytes.len() - 4);
            bytes[at] = byte;
            let bytes = sealed(bytes);
            if let Ok(read) = decode(&bytes, LIMITS) {
                prop_assert_eq!(encoded(&read), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes, &[0; 4]].concat();
            prop_assert!(decode(&bytes, LIMITS).is_err() || bytes.ends_with(&[0; 4]));
            bytes = sealed(bytes);
            if let Ok(read) = decode(&bytes, LIMITS) {
                prop_assert_eq!(encoded(&read), bytes);
            }
        }
    }
}
