//! What a partition remembers of its idempotent producers, so that a batch sent twice stands in the log once and a lost one is
//! missed (kafka gateway 4.1).
//!
//! A producer numbers its records. Of each producer the last five batches are remembered, because clients keep no more than five
//! requests in flight: one of the five that comes again is answered with the offset it has, and a new one must begin where the last
//! ended. A higher epoch begins at 0 and shuts out the lower ones.
//!
//! [`check`](ProducerStates::check), the append and [`on_append`](ProducerStates::on_append) must be one step of the partition: two
//! batches checked against the same state could both pass. After a restart the state is a snapshot
//! ([`producer_snapshot`](super::producer_snapshot)) and what `on_append` made of the headers behind it. A log whose tail is cut off has
//! to be gone through again: what the window forgot for the sake of the tail does not come back.
//!
//! Time is the broker's, of its clock of the day as it has to outlive a restart; the clock may step, which makes producers live
//! longer or shorter and nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use fulmar::time::EpochMs;

use crate::id::{Offset, ProducerEpoch, ProducerId};
use crate::record::BatchHeader;
use crate::record::control::EndMarker;
use crate::record::header::sequence_add;

/// Batches remembered of each producer.
pub const WINDOW_LENGTH: usize = 5;
/// `producer.id.expiration.ms` unless set: 24 hours, in milliseconds.
pub const EXPIRY_MS: i64 = 24 * 3_600_000;
/// Ten minutes, in milliseconds: five times as long as clients try to deliver a batch unless told otherwise.
pub const PROTECTED_MS: i64 = 600_000;

/// How many producers a partition remembers, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Most producers at a time; each takes about 200 bytes.
    pub producers_max: usize,
    /// Milliseconds without an append after which a producer is forgotten.
    pub expiry_ms: i64,
    /// Milliseconds without an append before which a producer is not forgotten to make room for another: a batch that might still
    /// come again has to be known.
    pub protected_ms: i64,
}

/// Why a batch or a marker was refused. Nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A batch before this one is missing, or this one is so old that it is not remembered.
    #[error("the batch begins with sequence {sequence} instead of {expected}")]
    OutOfOrderSequence {
        /// What would have been taken.
        expected: i32,
        /// What the batch says.
        sequence: i32,
    },
    /// A later life of the producer has been here.
    #[error("epoch {epoch} of the producer is over, {known} was here")]
    InvalidProducerEpoch {
        /// The highest so far.
        known: ProducerEpoch,
        /// What the batch says.
        epoch: ProducerEpoch,
    },
    /// The producer has an open transaction, to which the batch does not belong.
    #[error("the batch is not part of its producer's open transaction")]
    InvalidTransactionState,
    /// A later coordinator has written markers of this producer.
    #[error("coordinator epoch {epoch} is over, {known} was here")]
    CoordinatorFenced {
        /// The highest so far.
        known: i32,
        /// What the marker says.
        epoch: i32,
    },
    /// There is room for no further producer until one has been idle for long enough.
    #[error("the partition has no room for another producer")]
    TooManyProducers,
}

impl ProducerError {
    /// The Kafka error code. Kafka knows no bound on producers; NOT_ENOUGH_REPLICAS is known to all versions, tried again by clients,
    /// and says that nothing was stored.
    #[must_use]
    pub const fn code(&self) -> i16 {
        match self {
            Self::OutOfOrderSequence { .. } => 45,   // OUT_OF_ORDER_SEQUENCE_NUMBER
            Self::InvalidProducerEpoch { .. } => 47, // INVALID_PRODUCER_EPOCH
            Self::InvalidTransactionState => 48,     // INVALID_TXN_STATE
            Self::CoordinatorFenced { .. } => 52,    // TRANSACTION_COORDINATOR_FENCED
            Self::TooManyProducers => 19,            // NOT_ENOUGH_REPLICAS
        }
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Append it, then call [`ProducerStates::on_append`].
    Append,
    /// It is in the log: answer as for the first time, append nothing.
    Duplicate(AppendedBatch),
}

/// A batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedBatch {
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset less base offset, not negative, and not above the last offset.
    pub offset_delta: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Its max timestamp.
    pub timestamp: EpochMs,
}

impl AppendedBatch {
    /// Offset of its first record.
    #[must_use]
    pub const fn base_offset(&self) -> Offset {
        Offset(self.last_offset.0.saturating_sub(self.offset_delta as i64))
    }
}

/// What is remembered of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The highest epoch so far.
    pub epoch: ProducerEpoch,
    /// The highest epoch of a coordinator that wrote a marker, -1 for none.
    pub coordinator_epoch: i32,
    /// When something of it was last appended, by the broker's clock.
    pub last_append: EpochMs,
    /// Where its open transaction begins.
    pub transaction_first: Option<Offset>,
    pub(super) window: Window,
}

impl ProducerState {
    pub(super) const fn new(epoch: ProducerEpoch, now: EpochMs) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            last_append: now,
            transaction_first: None,
            window: Window::EMPTY,
        }
    }

    /// The last batches of its epoch, oldest first: at most [`WINDOW_LENGTH`].
    #[must_use]
    pub fn batches(&self) -> &[AppendedBatch] {
        self.window.as_slice()
    }

    fn idle_ms(&self, now: EpochMs) -> i64 {
        now.0.saturating_sub(self.last_append.0)
    }

    fn begin_epoch(&mut self, epoch: ProducerEpoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.window = Window::EMPTY;
        }
    }

    /// Sequence that the next batch of the same epoch begins with.
    fn next_sequence(&self) -> i32 {
        self.batches()
            .last()
            .map_or(0, |last| sequence_add(last.last_sequence, 1))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    batches: [AppendedBatch; WINDOW_LENGTH],
    length: u8,
}

impl Window {
    pub(super) const EMPTY: Self = {
        let none = AppendedBatch {
            last_offset: Offset(0),
            offset_delta: 0,
            last_sequence: 0,
            timestamp: EpochMs(0),
        };
        Self {
            batches: [none; WINDOW_LENGTH],
            length: 0,
        }
    };

    pub(super) fn as_slice(&self) -> &[AppendedBatch] {
        &self.batches[..usize::from(self.length)]
    }

    pub(super) fn push(&mut self, batch: AppendedBatch) {
        if usize::from(self.length) < WINDOW_LENGTH {
            self.batches[usize::from(self.length)] = batch;
            self.length += 1;
        } else {
            self.batches.rotate_left(1);
            self.batches[WINDOW_LENGTH - 1] = batch;
        }
    }
}

// What lies behind the length is of no meaning.
impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Window {}

/// All producers of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStates {
    pub(super) producers: BTreeMap<ProducerId, ProducerState>,
    pub(super) next_offset: Offset,
    limits: ProducerLimits,
    displaced: u64,
}

impl ProducerStates {
    /// Knows no producer; the log behind `next_offset` is still to be gone through.
    #[must_use]
    pub const fn new(limits: ProducerLimits, next_offset: Offset) -> Self {
        Self {
            producers: BTreeMap::new(),
            next_offset,
            limits,
            displaced: 0,
        }
    }

    /// What to do with a batch of fresh offsets, whose fields belong together (`validate::check`). Batches without a producer are
    /// always to be appended.
    ///
    /// # Errors
    /// [`ProducerError`], by the rules of kafka gateway 4.1 in their order.
    pub fn check(&self, header: &BatchHeader, now: EpochMs) -> Result<Admission, ProducerError> {
        if !header.has_producer() {
            return Ok(Admission::Append);
        }
        let Some(state) = self.producers.get(&header.producer_id) else {
            // Expired, or removed with its records: it can not be asked to know what we have forgotten.
            let protected_ms = self.limits.protected_ms;
            let room = self.producers.len() < self.limits.producers_max
                || self
                    .longest_idle()
                    .is_some_and(|(_, state)| state.idle_ms(now) >= protected_ms);
            return if room {
                Ok(Admission::Append)
            } else {
                Err(ProducerError::TooManyProducers)
            };
        };
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        if epoch == state.epoch {
            let same = |batch: &&AppendedBatch| {
                batch.last_sequence == header.last_sequence()
                    && batch.offset_delta == header.last_offset_delta
            };
            if let Some(batch) = state.batches().iter().find(same) {
                return Ok(Admission::Duplicate(*batch));
            }
        }
        if epoch < state.epoch {
            return Err(ProducerError::InvalidProducerEpoch {
                known: state.epoch,
                epoch,
            });
        }
        let expected = if epoch > state.epoch {
            0
        } else {
            state.next_sequence()
        };
        if sequence != expected {
            return Err(ProducerError::OutOfOrderSequence { expected, sequence });
        }
        if state.transaction_first.is_some() && !header.attributes.is_transactional() {
            return Err(ProducerError::InvalidTransactionState);
        }
        Ok(Admission::Append)
    }

    /// Takes note of a batch that is in the log, at its offsets: appended now, or found there after a restart, when nothing is
    /// refused, for the log is what holds. Batches that it has seen are passed over, as are markers, which
    /// [`on_marker`](Self::on_marker) is for.
    pub fn on_append(&mut self, header: &BatchHeader, now: EpochMs) {
        let (Some(last_offset), Some(next_offset)) = (header.last_offset(), header.next_offset()) else {
            return;
        };
        let seen = header.base_offset < self.next_offset;
        if seen || header.last_offset_delta < 0 || header.attributes.is_control() {
            return;
        }
        self.next_offset = next_offset;
        if !header.has_producer() || header.producer_epoch.0 < 0 || header.base_sequence < 0 {
            return;
        }
        let state = self.entry(header.producer_id, header.producer_epoch, now);
        if header.producer_epoch < state.epoch {
            return;
        }
        state.begin_epoch(header.producer_epoch);
        state.window.push(AppendedBatch {
            last_offset,
            offset_delta: header.last_offset_delta,
            last_sequence: header.last_sequence(),
            timestamp: header.max_timestamp,
        });
        if header.attributes.is_transactional() {
            state.transaction_first.get_or_insert(header.base_offset);
        }
    }

    /// Whether a marker may be appended (kafka gateway 4.5).
    ///
    /// # Errors
    /// [`ProducerError::CoordinatorFenced`] or [`ProducerError::InvalidProducerEpoch`].
    pub fn check_marker(&self, marker: &EndMarker) -> Result<(), ProducerError> {
        let Some(state) = self.producers.get(&marker.producer_id) else {
            return Ok(());
        };
        let (known, epoch) = (state.coordinator_epoch, marker.coordinator_epoch);
        if epoch < known {
            return Err(ProducerError::CoordinatorFenced { known, epoch });
        }
        let (known, epoch) = (state.epoch, marker.producer_epoch);
        if epoch < known {
            return Err(ProducerError::InvalidProducerEpoch { known, epoch });
        }
        Ok(())
    }

    /// Takes note of a marker that is in the log at `offset`; gives the offset at which the transaction began that it ends, if there
    /// was one. A marker that it has seen is passed over.
    pub fn on_marker(&mut self, marker: &EndMarker, offset: Offset, now: EpochMs) -> Option<Offset> {
        if offset < self.next_offset {
            return None;
        }
        self.next_offset = offset.checked_add(1)?;
        if marker.producer_id.0 < 0 || marker.producer_epoch.0 < 0 {
            return None;
        }
        let state = self.entry(marker.producer_id, marker.producer_epoch, now);
        state.begin_epoch(marker.producer_epoch);
        state.coordinator_epoch = state.coordinator_epoch.max(marker.coordinator_epoch);
        state.transaction_first.take()
    }

    /// Forgets producers that have been idle for too long and have no open transaction; gives how many.
    pub fn expire(&mut self, now: EpochMs) -> usize {
        let before = self.producers.len();
        let expiry_ms = self.limits.expiry_ms;
        self.producers
            .retain(|_, state| state.transaction_first.is_some() || state.idle_ms(now) < expiry_ms);
        before - self.producers.len()
    }

    /// Where the earliest open transaction begins: consumers that read committed records only must not get that far.
    #[must_use]
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers
            .values()
            .filter_map(|state| state.transaction_first)
            .min()
    }

    /// What is remembered of a producer.
    #[must_use]
    pub fn get(&self, producer_id: ProducerId) -> Option<&ProducerState> {
        self.producers.get(&producer_id)
    }

    /// All that is remembered, by producer id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.producers.iter().map(|(id, state)| (*id, state))
    }

    /// The first offset that it has not seen.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// How many producers were forgotten before their time to make room.
    #[must_use]
    pub const fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Forgets the longest idle producers for as long as there are more than may be: for a table from a file.
    pub(super) fn shrink(&mut self) {
        while self.producers.len() > self.limits.producers_max && self.displace() {}
    }

    fn entry(&mut self, id: ProducerId, epoch: ProducerEpoch, now: EpochMs) -> &mut ProducerState {
        if !self.producers.contains_key(&id) {
            // What is in the log has to be known, so nobody is protected from it; only open transactions stay, and there are no more
            // of those than `check` has let in.
            while self.producers.len() >= self.limits.producers_max && self.displace() {}
        }
        let state = self.producers.entry(id).or_insert(ProducerState::new(epoch, now));
        state.last_append = state.last_append.max(now);
        state
    }

    fn displace(&mut self) -> bool {
        let Some((id, _)) = self.longest_idle() else {
            return false;
        };
        self.producers.remove(&id);
        self.displaced += 1;
        true
    }

    /// The longest idle producer without an open transaction. Goes through all: it is asked for only when a new producer meets a
    /// full table.
    fn longest_idle(&self) -> Option<(ProducerId, &ProducerState)> {
        self.iter()
            .filter(|(_, state)| state.transaction_first.is_none())
            .min_by_key(|(_, state)| state.last_append)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::record::Attributes;
    use crate::record::control::Outcome;
    use proptest::prelude::*;

    pub(in crate::partition) const LIMITS: ProducerLimits = ProducerLimits {
        producers_max: 100,
        expiry_ms: 1000,
        protected_ms: 100,
    };
    const NOW: EpochMs = EpochMs(1_000_000);

    /// A batch of `count` records from `sequence` on, not placed yet.
    fn batch(id: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(0),
            batch_length: 49,
            leader_epoch: Epoch(0),
            crc: 0,
            attributes: Attributes::NONE,
            last_offset_delta: count - 1,
            base_timestamp: EpochMs(0),
            max_timestamp: EpochMs(i64::from(sequence)),
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: sequence,
            record_count: count,
        }
    }

    fn transactional(header: BatchHeader) -> BatchHeader {
        BatchHeader {
            attributes: Attributes::NONE.with_transactional(),
            ..header
        }
    }

    /// Checks a batch and appends it at the end if that is the answer; gives the base offset that the client is told.
    pub(in crate::partition) fn produce(
        states: &mut ProducerStates,
        header: BatchHeader,
        now: EpochMs,
    ) -> Result<i64, ProducerError> {
        match states.check(&header, now)? {
            Admission::Duplicate(batch) => Ok(batch.base_offset().0),
            Admission::Append => {
                let placed = BatchHeader {
                    base_offset: states.next_offset(),
                    ..header
                };
                states.on_append(&placed, now);
                Ok(placed.base_offset.0)
            }
        }
    }

    fn out_of_order(expected: i32, sequence: i32) -> Result<i64, ProducerError> {
        Err(ProducerError::OutOfOrderSequence { expected, sequence })
    }

    #[test]
    fn the_last_five_batches_are_answered_again_and_older_ones_refused() {
        let mut states = ProducerStates::new(LIMITS, Offset(100));
        let sequences = [0, 3, 4, 9, 10, 12, 20];
        for pair in sequences.windows(2) {
            let header = batch(7, 0, pair[0], pair[1] - pair[0]);
            assert_eq!(produce(&mut states, header, NOW), Ok(100 + i64::from(pair[0])));
        }
        for pair in sequences.windows(2).skip(1) {
            let header = batch(7, 0, pair[0], pair[1] - pair[0]);
            assert_eq!(
                produce(&mut states, header, NOW),
                Ok(100 + i64::from(pair[0])),
                "again"
            );
            let found = states.check(&header, NOW).unwrap();
            let timestamp = EpochMs(i64::from(pair[0]));
            assert!(matches!(found, Admission::Duplicate(batch) if batch.timestamp == timestamp));
        }
        assert_eq!(states.next_offset(), Offset(120), "nothing was appended twice");
        assert_eq!(produce(&mut states, batch(7, 0, 0, 3), NOW), out_of_order(20, 0));
        assert_eq!(
            produce(&mut states, batch(7, 0, 3, 2), NOW),
            out_of_order(20, 3),
            "cut differently"
        );
        assert_eq!(
            produce(&mut states, batch(7, 0, 21, 1), NOW),
            out_of_order(20, 21),
            "a gap"
        );
        assert_eq!(produce(&mut states, batch(7, 0, 20, 1), NOW), Ok(120));
    }

    #[test]
    fn a_higher_epoch_begins_at_zero_and_shuts_out_the_lower() {
        let mut states = ProducerStates::new(LIMITS, Offset(0));
        assert_eq!(
            produce(&mut states, batch(7, 3, 5, 1), NOW),
            Ok(0),
            "unknown producers begin anywhere"
        );
        assert_eq!(produce(&mut states, batch(7, 4, 6, 1), NOW), out_of_order(0, 6));
        assert_eq!(produce(&mut states, batch(7, 4, 0, 2), NOW), Ok(1));
        let over = Err(ProducerError::InvalidProducerEpoch {
            known: ProducerEpoch(4),
            epoch: ProducerEpoch(3),
        });
        assert_eq!(
            produce(&mut states, batch(7, 3, 5, 1), NOW),
            over,
            "not even as a duplicate"
        );
        assert_eq!(produce(&mut states, batch(7, 3, 6, 1), NOW), over);
        assert_eq!(produce(&mut states, batch(7, 4, 0, 2), NOW), Ok(1));
        assert_eq!(produce(&mut states, batch(7, 4, 2, 1), NOW), Ok(3));
        assert_eq!(states.get(ProducerId(7)).unwrap().batches().len(), 2);
    }

    #[test]
    fn sequences_wrap_from_the_largest_number_to_zero() {
        let mut states = ProducerStates::new(LIMITS, Offset(0));
        assert_eq!(produce(&mut states, batch(1, 0, i32::MAX - 1, 1), NOW), Ok(0));
        let across = batch(1, 0, i32::MAX, 3);
        assert_eq!(across.last_sequence(), 1);
        assert_eq!(produce(&mut states, across, NOW), Ok(1));
        assert_eq!(produce(&mut states, across, NOW), Ok(1), "again");
        assert_eq!(produce(&mut states, batch(1, 0, 3, 1), NOW), out_of_order(2, 3));
        assert_eq!(produce(&mut states, batch(1, 0, 2, 1), NOW), Ok(4));

        let mut states = ProducerStates::new(LIMITS, Offset(0));
        assert_eq!(produce(&mut states, batch(1, 0, i32::MAX, 1), NOW), Ok(0));
        assert_eq!(produce(&mut states, batch(1, 0, 1, 1), NOW), out_of_order(0, 1));
        assert_eq!(produce(&mut states, batch(1, 0, 0, 1), NOW), Ok(1));
    }

    #[test]
    fn batches_without_a_producer_leave_no_trace() {
        let mut states = ProducerStates::new(LIMITS, Offset(0));
        for at in 0..3 {
            let header = BatchHeader {
                base_sequence: -1,
                ..batch(-1, -1, 0, 1)
            };
            assert_eq!(produce(&mut states, header, NOW), Ok(at));
        }
        assert_eq!(states.iter().count(), 0);
    }

    #[test]
    fn idle_producers_are_forgotten_in_time() {
        let mut states = ProducerStates::new(LIMITS, Offset(0));
        produce(&mut states, batch(1, 0, 0, 1), NOW).unwrap();
        produce(&mut states, batch(2, 0, 0, 1), EpochMs(NOW.0 + 500)).unwrap();
        produce(&mut states, transactional(batch(3, 0, 0, 1)), NOW).unwrap();
        assert_eq!(states.expire(EpochMs(NOW.0 + 999)), 0);
        assert_eq!(states.expire(EpochMs(NOW.0 + 1000)), 1);
        assert!(states.get(ProducerId(1)).is_none());
        assert_eq!(
            produce(&mut states, batch(1, 0, 77, 1), NOW),
            Ok(3),
            "nobody knows that it should be 1"
        );
        // A clock that steps back makes them live longer.
        assert_eq!(states.expire(EpochMs(i64::MIN)), 0);
        assert_eq!(states.expire(EpochMs(i64::MAX)), 2);
        assert!(
            states.get(ProducerId(3)).is_some(),
            "an open transaction is never forgotten"
        );
    }

    #[test]
    fn there_is_room_for_a_new_producer_once_another_can_not_retry() {
        let limits = ProducerLimits {
            producers_max: 2,
            ..LIMITS
        };
        let mut states = ProducerStates::new(limits, Offset(0));
        produce(&mut states, batch(1, 0, 0, 1), NOW).unwrap();
        produce(&mut states, batch(2, 0, 0, 1), EpochMs(NOW.0 + 1)).unwrap();
        produce(&mut states, batch(1, 0, 1, 1), EpochMs(NOW.0 + 50)).unwrap();
        let third = batch(3, 0, 0, 1);
        assert_eq!(
            produce(&mut states, third, EpochMs(NOW.0 + 100)),
            Err(ProducerError::TooManyProducers)
        );
        assert_eq!(
            produce(&mut states, batch(2, 0, 0, 1), EpochMs(NOW.0 + 100)),
            Ok(1),
            "the known go on"
        );
        assert_eq!(produce(&mut states, third, EpochMs(NOW.0 + 101)), Ok(3));
        assert!(states.get(ProducerId(2)).is_none() && states.get(ProducerId(1)).is_some());
        assert_eq!((states.iter().count(), states.displaced()), (2, 1));
        // What is in the log is taken note of in any case, and still there are no more than may be.
        states.on_append(
            &BatchHeader {
                base_offset: Offset(4),
                ..batch(4, 0, 0, 1)
            },
            EpochMs(NOW.0 + 101),
        );
        assert!(states.get(ProducerId(4)).is_some());
        assert_eq!(states.iter().count(), 2);
    }

    #[test]
    fn what_was_seen_is_passed_over() {
        let mut states = ProducerStates::new(LIMITS, Offset(10));
        let old = BatchHeader {
            base_offset: Offset(8),
            ..batch(1, 0, 0, 2)
        };
        states.on_append(&old, NOW);
        assert_eq!(states.iter().count(), 0);
        let new = BatchHeader {
            base_offset: Offset(10),
            ..old
        };
        states.on_append(&new, NOW);
        states.on_append(&new, NOW);
        assert_eq!(states.get(ProducerId(1)).unwrap().batches().len(), 1);
        assert_eq!(states.next_offset(), Offset(12));
        // An epoch that is over, and a marker: nothing is remembered of them.
        let new = BatchHeader {
            base_offset: Offset(12),
            ..batch(1, 1, 0, 1)
        };
        states.on_append(&new, NOW);
        states.on_append(
            &BatchHeader {
                base_offset: Offset(13),
                ..batch(1, 0, 2, 1)
            },
            NOW,
        );
        let state = states.get(ProducerId(1)).unwrap();
        assert_eq!((state.epoch, state.batches().len()), (ProducerEpoch(1), 1));
        let control = BatchHeader {
            base_offset: Offset(14),
            attributes: Attributes(0x30),
            ..batch(1, 1, 1, 1)
        };
        states.on_append(&control, NOW);
        assert_eq!(states.next_offset(), Offset(14));
        // Nonsense from a log that nobody verified.
        for header in [
            BatchHeader {
                base_offset: Offset(i64::MAX),
                ..old
            },
            BatchHeader {
                last_offset_delta: -1,
                base_offset: Offset(50),
                ..old
            },
            BatchHeader {
                base_offset: Offset(i64::MIN),
                ..old
            },
        ] {
            states.on_append(&header, NOW);
        }
        assert_eq!(states.next_offset(), Offset(14));
        assert_eq!(states.get(ProducerId(1)).unwrap().batches().len(), 1);
    }

    #[test]
    fn open_transactions_of_the_log_stay_beyond_the_bound_until_they_end() {
        let mut states = ProducerStates::new(
            ProducerLimits {
                producers_max: 2,
                ..LIMITS
            },
            Offset(0),
        );
        for id in 0..4 {
            let header = BatchHeader {
                base_offset: Offset(id),
                ..transactional(batch(id, 0, 0, 1))
            };
            states.on_append(&header, NOW);
        }
        assert_eq!(states.iter().count(), 4);
        for id in 0..4 {
            let marker = EndMarker {
                producer_id: ProducerId(id),
                producer_epoch: ProducerEpoch(0),
                coordinator_epoch: 0,
                outcome: Outcome::Abort,
            };
            assert_eq!(states.on_marker(&marker, Offset(4 + id), NOW), Some(Offset(id)));
        }
        states.on_append(
            &BatchHeader {
                base_offset: Offset(8),
                ..batch(9, 0, 0, 1)
            },
            NOW,
        );
        assert_eq!(states.iter().count(), 2);
        assert!(states.get(ProducerId(9)).is_some());
    }

    #[test]
    fn markers_end_transactions_and_fence() {
        let mut states = ProducerStates::new(LIMITS, Offset(5));
        produce(&mut states, transactional(batch(1, 2, 0, 3)), NOW).unwrap();
        produce(&mut states, transactional(batch(2, 0, 0, 1)), NOW).unwrap();
        produce(&mut states, transactional(batch(1, 2, 3, 1)), NOW).unwrap();
        assert_eq!(states.first_open_transaction(), Some(Offset(5)));
        assert_eq!(
            produce(&mut states, batch(1, 2, 4, 1), NOW),
            Err(ProducerError::InvalidTransactionState)
        );

        let marker = EndMarker {
            producer_id: ProducerId(1),
            producer_epoch: ProducerEpoch(2),
            coordinator_epoch: 9,
            outcome: Outcome::Commit,
        };
        assert_eq!(states.check_marker(&marker), Ok(()));
        assert_eq!(states.on_marker(&marker, Offset(10), NOW), Some(Offset(5)));
        assert_eq!(states.first_open_transaction(), Some(Offset(8)));
        assert_eq!(states.on_marker(&marker, Offset(10), NOW), None, "seen");
        assert_eq!(
            states.on_marker(&marker, Offset(11), NOW),
            None,
            "nothing was open"
        );
        assert_eq!(states.next_offset(), Offset(12));
        assert_eq!(
            produce(&mut states, batch(1, 2, 4, 1), NOW),
            Ok(12),
            "sequences go on behind a marker"
        );

        let stale = EndMarker {
            coordinator_epoch: 8,
            ..marker
        };
        assert_eq!(
            states.check_marker(&stale),
            Err(ProducerError::CoordinatorFenced { known: 9, epoch: 8 })
        );
        let (known, epoch) = (ProducerEpoch(2), ProducerEpoch(1));
        let stale = EndMarker {
            producer_epoch: epoch,
            ..marker
        };
        assert_eq!(
            states.check_marker(&stale),
            Err(ProducerError::InvalidProducerEpoch { known, epoch })
        );
        // What the log holds can not be refused, but a later coordinator stays known.
        assert_eq!(
            states.on_marker(
                &EndMarker {
                    coordinator_epoch: 8,
                    ..marker
                },
                Offset(13),
                NOW
            ),
            None
        );
        assert_eq!(states.get(ProducerId(1)).unwrap().coordinator_epoch, 9);
        let fencing = EndMarker {
            producer_epoch: ProducerEpoch(3),
            ..marker
        };
        assert_eq!(states.on_marker(&fencing, Offset(14), NOW), None);
        assert_eq!(produce(&mut states, batch(1, 3, 5, 1), NOW), out_of_order(0, 5));
        assert_eq!(produce(&mut states, batch(1, 3, 0, 1), NOW), Ok(15));
    }

    #[test]
    fn codes_are_those_of_the_table() {
        let (known, epoch) = (ProducerEpoch(2), ProducerEpoch(1));
        let errors = [
            ProducerError::OutOfOrderSequence {
                expected: 0,
                sequence: 1,
            },
            ProducerError::InvalidProducerEpoch { known, epoch },
            ProducerError::InvalidTransactionState,
            ProducerError::CoordinatorFenced { known: 1, epoch: 0 },
            ProducerError::TooManyProducers,
        ];
        assert_eq!(errors.map(|error| error.code()), [45, 47, 48, 52, 19]);
    }

    /// The rules again, over the whole history instead of a window, with sequences as plain numbers.
    #[derive(Default)]
    struct Oracle {
        /// Producer, epoch, first and last sequence modulo 2^31, base offset.
        log: Vec<(i64, i16, i64, i64, i64)>,
        end: i64,
    }

    impl Oracle {
        fn produce(&mut self, id: i64, epoch: i16, first: i64, count: i64) -> Result<i64, i16> {
            const ALL: i64 = 1 << 31;
            let last = (first + count - 1) % ALL;
            let of_producer: Vec<_> = self.log.iter().filter(|batch| batch.0 == id).collect();
            let known = of_producer.iter().map(|batch| batch.1).max();
            let of_epoch: Vec<_> = of_producer
                .iter()
                .filter(|batch| Some(batch.1) == known)
                .collect();
            if Some(epoch) == known {
                let recent = of_epoch.iter().rev().take(5);
                if let Some(same) = recent
                    .into_iter()
                    .find(|batch| (batch.2, batch.3) == (first, last))
                {
                    return Ok(same.4);
                }
            }
            match known {
                Some(known) if epoch < known => return Err(47),
                Some(known) if epoch > known && first != 0 => return Err(45),
                Some(known)
                    if epoch == known
                        && of_epoch.last().is_some_and(|batch| (batch.3 + 1) % ALL != first) =>
                {
                    return Err(45);
                }
                _ => {}
            }
            self.log.push((id, epoch, first, last, self.end));
            self.end += count;
            Ok(self.end - count)
        }
    }

    /// What a producer does next: most often the right thing.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Next { count: i32 },
        Again { back: usize },
        Skip { by: i32 },
        OtherEpoch { by: i16, sequence: i32 },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1..5_i32).prop_map(|count| Step::Next { count }),
            4 => (0..8_usize).prop_map(|back| Step::Again { back }),
            1 => (-3..4_i32).prop_map(|by| Step::Skip { by }),
            1 => (-1..2_i16, -1..2_i32).prop_map(|(by, sequence)| Step::OtherEpoch { by, sequence: sequence.max(0) }),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_the_whole_history_would_do(
            steps in prop::collection::vec((0..3_i64, step()), 1..120), start in prop_oneof![Just(0), Just(i32::MAX - 20), 0..i32::MAX],
        ) {
            let mut states = ProducerStates::new(LIMITS, Offset(0));
            let mut oracle = Oracle::default();
            let mut sent: [Vec<BatchHeader>; 3] = Default::default();
            for (id, step) in steps {
                let sent = &mut sent[id as usize];
                let next = sent.last().map_or(start, |last| sequence_add(last.last_sequence(), 1));
                let epoch = sent.last().map_or(5, |last| last.producer_epoch.0);
                let header = match step {
                    Step::Next { count } => batch(id, epoch, next, count),
                    Step::Again { back } if back < sent.len() => sent[sent.len() - 1 - back],
                    Step::Again { .. } => continue,
                    Step::Skip { by } => batch(id, epoch, next.wrapping_add(by) & i32::MAX, 1),
                    Step::OtherEpoch { by, sequence } => batch(id, epoch + by, sequence, 2),
                    Step::Restart => {
                        let mut bytes = Vec::new();
                        super::super::producer_snapshot::encode(&states, &mut bytes);
                        states = super::super::producer_snapshot::decode(&bytes, LIMITS).unwrap();
                        continue;
                    }
                };
                let expected = oracle.produce(
                    id, header.producer_epoch.0, i64::from(header.base_sequence), i64::from(header.record_count),
                );
                let appended = states.next_offset();
                let answer = produce(&mut states, header, NOW);
                prop_assert_eq!(answer.map_err(|error| error.code()), expected, "{:?}", step);
                prop_assert_eq!(states.next_offset().0, oracle.end);
                if states.next_offset() > appended {
                    sent.push(header);
                }
            }
        }

        /// What it is all for: a client with five batches in flight, over a network that loses requests and answers and delivers
        /// requests late and more than once, has each batch in the log once, in order, and is told the right offset. The first
        /// batch arrives before the others are sent: as long as a producer is not known, any of them would be taken for its first.
        #[test]
        fn a_client_that_tries_again_stands_in_the_log_once_and_in_order(
            start in prop_oneof![Just(0), Just(i32::MAX - 10)], network in prop::collection::vec((0..5_usize, 0..5_u8), 0..300),
        ) {
            let batches: Vec<_> = (0..40).map(|at| batch(9, 0, sequence_add(start, 2 * at), 2)).collect();
            let mut states = ProducerStates::new(LIMITS, Offset(0));
            prop_assert_eq!(produce(&mut states, batches[0], NOW), Ok(0));
            let (mut log, mut acknowledged, mut known) = (vec![0], 1, [false; 40]);
            // After the given faults the network is well, so that everything arrives.
            for (which, fate) in network.into_iter().chain((0..40).map(|_| (0, 0))) {
                let request_is_lost = fate == 1;
                let answer_is_lost = fate == 2;
                let request_is_old = fate == 3;
                let at = if request_is_old { acknowledged - 1 - which.min(acknowledged - 1) } else { acknowledged + which };
                let Some(&header) = batches.get(at) else { continue };
                if request_is_lost {
                    continue;
                }
                let end = states.next_offset();
                let answer = produce(&mut states, header, NOW);
                if states.next_offset() > end {
                    log.push(at);
                }
                match answer {
                    Ok(offset) => {
                        prop_assert_eq!(offset, 2 * at as i64);
                        known[at] |= !answer_is_lost;
                    }
                    // Only a batch sent ahead of another is refused, or one that its client has long had the answer for.
                    Err(_) => prop_assert!(at > log.len() || request_is_old, "batch {} with {:?} in the log", at, log),
                }
                while known.get(acknowledged) == Some(&true) {
                    acknowledged += 1;
                }
            }
            prop_assert_eq!(acknowledged, 40);
            prop_assert_eq!(log, (0..40).collect::<Vec<_>>());
        }
    }
}
