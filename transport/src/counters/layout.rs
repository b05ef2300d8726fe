//! Where the fields of a counter stand (shared-memory spec 5.1 and 5.2).
//!
//! ```text
//! metadata record, 512 bytes                      value record, 128 bytes
//!   0 i32 state   4 i32 type id                     0 i64 value
//!   8 i64 free-for-reuse deadline, epoch ms         8 i64 registration id
//!  16 key, 112 bytes                               16 i64 owner id
//! 128 i32 label length   132 label, 380 bytes      24 i64 reference id
//! ```
#![forbid(unsafe_code)]

use super::{CounterState, CountersError};
use crate::id::CounterId;
use crate::memory::AtomicBuffer;

/// Length of a metadata record, bytes.
pub const METADATA_LENGTH: usize = 512;
/// Length of a value record, bytes.
pub const VALUE_LENGTH: usize = 128;

/// i32, see [`CounterState`]; release and acquire.
pub const STATE_OFFSET: usize = 0;
/// i32; complete before the state.
pub const TYPE_ID_OFFSET: usize = STATE_OFFSET + 4;
/// i64, epoch milliseconds; [`NOT_FREE`] while allocated.
pub const DEADLINE_OFFSET: usize = TYPE_ID_OFFSET + 4;
/// [`KEY_LENGTH`] bytes; complete before the state.
pub const KEY_OFFSET: usize = DEADLINE_OFFSET + 8;
/// i32; release and acquire.
pub const LABEL_LENGTH_OFFSET: usize = KEY_OFFSET + KEY_LENGTH;
/// Up to [`LABEL_MAX_LENGTH`] bytes; complete before the label length.
pub const LABEL_OFFSET: usize = LABEL_LENGTH_OFFSET + 4;

/// i64.
pub const COUNTER_OFFSET: usize = 0;
/// i64; release and acquire.
pub const REGISTRATION_ID_OFFSET: usize = COUNTER_OFFSET + 8;
/// i64: client id, or -1 for the driver.
pub const OWNER_ID_OFFSET: usize = REGISTRATION_ID_OFFSET + 8;
/// i64: whatever the type of the counter says.
pub const REFERENCE_ID_OFFSET: usize = OWNER_ID_OFFSET + 8;

/// Length of a key, bytes.
pub const KEY_LENGTH: usize = 112;
/// Most bytes of a label.
pub const LABEL_MAX_LENGTH: usize = 380;
/// Free-for-reuse deadline of a counter in use.
pub const NOT_FREE: i64 = i64::MAX;

/// State word of a record never used.
pub const STATE_UNUSED: i32 = 0;
/// State word of a live record.
pub const STATE_ALLOCATED: i32 = 1;
/// State word of a freed record.
pub const STATE_RECLAIMED: i32 = -1;

// A counter has a pair of cache lines to itself.
const _: () = assert!(VALUE_LENGTH == 128);
const _: () = assert!(LABEL_OFFSET + LABEL_MAX_LENGTH == METADATA_LENGTH);
const _: () = assert!(KEY_OFFSET.is_multiple_of(8) && KEY_LENGTH.is_multiple_of(8));
const _: () = assert!(REFERENCE_ID_OFFSET + 8 <= VALUE_LENGTH);

/// A key as it stands in a metadata record; zero behind what its builder wrote.
pub type Key = [u8; KEY_LENGTH];

/// The two sections, checked against each other. Every offset that is derived here lies inside them.
#[derive(Clone, Debug)]
pub(super) struct Sections<B> {
    pub(super) metadata: B,
    pub(super) values: B,
    capacity: usize,
}

impl<B: AtomicBuffer> Sections<B> {
    pub(super) fn new(metadata: B, values: B) -> Result<Self, CountersError> {
        let capacity = (metadata.capacity() / METADATA_LENGTH).min(values.capacity() / VALUE_LENGTH);
        if capacity < 2 || i32::try_from(capacity).is_err() {
            return Err(CountersError::BadLength {
                metadata_length: metadata.capacity(),
                values_length: values.capacity(),
            });
        }
        Ok(Self {
            metadata,
            values,
            capacity,
        })
    }

    /// Records in the sections. The last is never allocated: some readers stop in front of it (spec 5.2).
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The record of an id, if it is one.
    pub(super) fn record(&self, id: CounterId) -> Option<Place> {
        let index = usize::try_from(id.0).ok()?;
        (index < self.capacity).then_some(Place {
            metadata: index * METADATA_LENGTH,
            value: index * VALUE_LENGTH,
        })
    }

    pub(super) fn state(&self, place: Place) -> CounterState {
        // SYNC counter-state: type, key and ids are complete once the state is allocated.
        match self.metadata.load_acquire_i32(place.metadata + STATE_OFFSET) {
            STATE_UNUSED => CounterState::Unused,
            STATE_ALLOCATED => CounterState::Allocated,
            _ => CounterState::Reclaimed,
        }
    }

    pub(super) fn label(&self, place: Place) -> Vec<u8> {
        let mut label = vec![0; self.label_length(place)];
        self.metadata.copy_out(place.metadata + LABEL_OFFSET, &mut label);
        label
    }

    /// Length of the label, cut to what a record holds.
    fn label_length(&self, place: Place) -> usize {
        // SYNC counter-label: the bytes up to the length are complete.
        let length = self
            .metadata
            .load_acquire_i32(place.metadata + LABEL_LENGTH_OFFSET);
        usize::try_from(length).unwrap_or(0).min(LABEL_MAX_LENGTH)
    }

    pub(super) fn set_label(&self, place: Place, label: &[u8]) {
        self.write_label(place, 0, label);
    }

    /// Writes behind the present label as much of `text` as fits; returns how much that was.
    pub(super) fn append_label(&self, place: Place, text: &[u8]) -> usize {
        self.write_label(place, self.label_length(place), text)
    }

    fn write_label(&self, place: Place, start: usize, text: &[u8]) -> usize {
        let length = text.len().min(LABEL_MAX_LENGTH - start);
        let text = text.get(..length).unwrap_or_default();
        self.metadata.copy_in(place.metadata + LABEL_OFFSET + start, text);
        // SYNC counter-label: publishes the bytes of the label.
        self.metadata
            .store_release_i32(place.metadata + LABEL_LENGTH_OFFSET, (start + length) as i32);
        length
    }

    pub(super) fn key(&self, place: Place) -> Key {
        let mut key = [0; KEY_LENGTH];
        for (index, word) in key.chunks_exact_mut(8).enumerate() {
            let offset = place.metadata + KEY_OFFSET + index * 8;
            word.copy_from_slice(&self.metadata.load_relaxed_i64(offset).to_le_bytes());
        }
        key
    }

    pub(super) fn set_key(&self, place: Place, key: &Key) {
        for (index, word) in key.as_chunks::<8>().0.iter().enumerate() {
            let offset = place.metadata + KEY_OFFSET + index * 8;
            self.metadata.store_relaxed_i64(offset, i64::from_le_bytes(*word));
        }
    }
}

/// Offsets of one counter's records in their sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) metadata: usize,
    pub(super) value: usize,
}
