//! Allocation and freeing of counters, done by the driver conductor only (shared-memory spec 5.3 and 5.4).
//!
//! Which ids are in use and which are cooling down is kept in private memory; nothing that other processes write to
//! the sections decides anything here.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

#[cfg(not(loom))]
use super::counter::Counter;
use super::layout::{
    COUNTER_OFFSET, DEADLINE_OFFSET, KEY_LENGTH, NOT_FREE, OWNER_ID_OFFSET, Place, REFERENCE_ID_OFFSET,
    REGISTRATION_ID_OFFSET, STATE_ALLOCATED, STATE_OFFSET, STATE_RECLAIMED, Sections, TYPE_ID_OFFSET,
};
use super::{CountersError, CountersReader};
use crate::id::CounterId;
use crate::memory::AtomicBuffer;
#[cfg(not(loom))]
use crate::memory::View;
use crate::sync::{Ordering, fence};
use crate::time::{NanoTime, Now};

/// The one allocator of a pair of counter sections.
#[derive(Debug)]
pub struct CountersManager<B> {
    sections: Sections<B>,
    reuse_timeout_ns: i64,
    /// By id; as long as the highest id ever used, plus one.
    allocated: Vec<bool>,
    /// Freed ids in the order of their deadlines.
    free: VecDeque<(CounterId, NanoTime)>,
}

impl<B: AtomicBuffer> CountersManager<B> {
    /// Starts on fresh zeroed sections. A freed id is used again after `reuse_timeout_ns` nanoseconds at the earliest.
    ///
    /// # Errors
    /// [`CountersError::BadLength`] if the sections hold fewer than two counters.
    pub fn new(metadata: B, values: B, reuse_timeout_ns: i64) -> Result<Self, CountersError> {
        Ok(Self {
            sections: Sections::new(metadata, values)?,
            reuse_timeout_ns: reuse_timeout_ns.max(0),
            allocated: Vec::new(),
            free: VecDeque::new(),
        })
    }

    /// Most counters at one time: all records but the last (spec 5.2).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sections.capacity() - 1
    }

    /// Whether this id is in use.
    #[must_use]
    pub fn is_allocated(&self, id: CounterId) -> bool {
        usize::try_from(id.0).is_ok_and(|index| self.allocated.get(index).copied().unwrap_or(false))
    }

    /// Allocates a counter with value 0. Key and label are cut to 112 and 380 bytes. The ids are complete before the
    /// counter is visible.
    ///
    /// # Errors
    /// [`CountersError::Full`] if no id is left or free for long enough.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a record in the order of the spec; callers are builders of one type of counter each"
    )]
    pub fn allocate(
        &mut self,
        now: Now,
        type_id: i32,
        key: &[u8],
        label: impl AsRef<[u8]>,
        registration_id: i64,
        owner_id: i64,
        reference_id: i64,
    ) -> Result<CounterId, CountersError> {
        let (id, place) = self.next_id(now)?;
        let Sections { metadata, values, .. } = &self.sections;
        // SYNC counter-identity: a reader that sees this id sees that the counter before it is no more.
        values.store_release_i64(place.value + REGISTRATION_ID_OFFSET, registration_id);
        values.store_relaxed_i64(place.value + OWNER_ID_OFFSET, owner_id);
        values.store_relaxed_i64(place.value + REFERENCE_ID_OFFSET, reference_id);
        values.store_release_i64(place.value + COUNTER_OFFSET, 0);
        metadata.store_relaxed_i32(place.metadata + TYPE_ID_OFFSET, type_id);
        metadata.store_relaxed_i64(place.metadata + DEADLINE_OFFSET, NOT_FREE);
        let mut whole_key = [0; KEY_LENGTH];
        for (to, from) in whole_key.iter_mut().zip(key) {
            *to = *from;
        }
        self.sections.set_key(place, &whole_key);
        self.sections.set_label(place, label.as_ref());
        // SYNC counter-state: publishes everything above.
        metadata.store_release_i32(place.metadata + STATE_OFFSET, STATE_ALLOCATED);
        Ok(id)
    }

    /// An id that has cooled down, else one never used; marked as allocated.
    fn next_id(&mut self, now: Now) -> Result<(CounterId, Place), CountersError> {
        let capacity = self.capacity();
        let cooled_down = self
            .free
            .front()
            .is_some_and(|(_, deadline)| deadline.is_due(now.nanos));
        let reusable = if cooled_down {
            self.free.pop_front().map(|(id, _)| id)
        } else {
            None
        };
        let index = match reusable {
            Some(id) => usize::try_from(id.0).unwrap_or(capacity),
            None => self.allocated.len(),
        };
        let id = i32::try_from(index).map_or(CounterId::NONE, CounterId);
        let place = self.sections.record(id).filter(|_| index < capacity);
        let Some(place) = place else {
            return Err(CountersError::Full { capacity });
        };
        if index == self.allocated.len() {
            self.allocated.push(true);
        } else {
            self.allocated[index] = true;
        }
        Ok((id, place))
    }

    /// Frees a counter; false if it was not in use. Value and label stay as they were until the id is used again.
    pub fn free(&mut self, now: Now, id: CounterId) -> bool {
        let Some(place) = self.live(id) else {
            return false;
        };
        let metadata = &self.sections.metadata;
        // SYNC counter-identity: a reader that sees a field changed below sees that the counter is no longer live.
        metadata.store_release_i32(place.metadata + STATE_OFFSET, STATE_RECLAIMED);
        fence(Ordering::Release);
        self.sections.set_key(place, &[0; KEY_LENGTH]);
        let timeout_ms = self.reuse_timeout_ns.div_euclid(1_000_000);
        metadata.store_relaxed_i64(
            place.metadata + DEADLINE_OFFSET,
            now.epoch.0.saturating_add(timeout_ms),
        );
        if let Ok(index) = usize::try_from(id.0) {
            self.allocated[index] = false;
        }
        self.free
            .push_back((id, now.nanos.plus_nanos(self.reuse_timeout_ns)));
        true
    }

    /// Replaces the label, cut to 380 bytes; false if the counter is not in use.
    pub fn set_label(&self, id: CounterId, label: impl AsRef<[u8]>) -> bool {
        self.live(id)
            .map(|place| self.sections.set_label(place, label.as_ref()))
            .is_some()
    }

    /// Appends to the label as much as fits; false if the counter is not in use.
    pub fn append_label(&self, id: CounterId, text: impl AsRef<[u8]>) -> bool {
        self.live(id)
            .map(|place| self.sections.append_label(place, text.as_ref()))
            .is_some()
    }

    /// Replaces the key, cut to 112 bytes; false if the counter is not in use.
    pub fn set_key(&self, id: CounterId, key: &[u8]) -> bool {
        let mut whole_key = [0; KEY_LENGTH];
        for (to, from) in whole_key.iter_mut().zip(key) {
            *to = *from;
        }
        self.live(id)
            .map(|place| self.sections.set_key(place, &whole_key))
            .is_some()
    }

    /// The value of a counter in use.
    #[must_use]
    pub fn value(&self, id: CounterId) -> Option<i64> {
        let place = self.live(id)?;
        Some(
            self.sections
                .values
                .load_acquire_i64(place.value + COUNTER_OFFSET),
        )
    }

    /// Stores the value of a counter in use, release; false if it is not in use.
    pub fn set_value(&self, id: CounterId, value: i64) -> bool {
        self.live(id)
            .map(|place| {
                self.sections
                    .values
                    .store_release_i64(place.value + COUNTER_OFFSET, value);
            })
            .is_some()
    }

    fn live(&self, id: CounterId) -> Option<Place> {
        self.is_allocated(id).then(|| self.sections.record(id)).flatten()
    }
}

impl<B: AtomicBuffer + Clone> CountersManager<B> {
    /// A reader of the same sections.
    #[must_use]
    pub fn reader(&self) -> CountersReader<B> {
        CountersReader::of(self.sections.clone())
    }
}

#[cfg(not(loom))]
impl CountersManager<View> {
    /// A handle to the value of a counter in use.
    #[must_use]
    pub fn counter(&self, id: CounterId) -> Option<Counter> {
        self.is_allocated(id)
            .then(|| Counter::new(&self.sections.values, id))
            .flatten()
    }
}
