//! Reading counters of a driver, for clients and tools (shared-memory spec 5.5). Counters come and go while they are
//! read: a record is handed out only if it was the same counter before and after all of it was read.
#![forbid(unsafe_code)]

#[cfg(not(loom))]
use super::layout::STATE_OFFSET;
use super::layout::{
    COUNTER_OFFSET, DEADLINE_OFFSET, Key, OWNER_ID_OFFSET, Place, REFERENCE_ID_OFFSET,
    REGISTRATION_ID_OFFSET, Sections, TYPE_ID_OFFSET,
};
#[cfg(not(loom))]
use super::{Counter, CounterLease};
use super::{CounterState, CountersError};
use crate::id::CounterId;
use crate::memory::AtomicBuffer;
#[cfg(not(loom))]
use crate::memory::View;
use crate::sync::{Ordering, fence};

/// Copy of everything about one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRecord {
    /// Index of the counter.
    pub id: CounterId,
    /// What it counts, see [`super::type_id`].
    pub type_id: i32,
    /// Allocated, except from [`CountersReader::record_in_any_state`].
    pub state: CounterState,
    /// Key, zero behind what was written; its layout depends on the type.
    pub key: Key,
    /// Label; bytes that are no UTF-8 are replaced.
    pub label: String,
    /// Value at the time of reading.
    pub value: i64,
    /// Id that the type ties the counter to; often that of a publication or subscription.
    pub registration_id: i64,
    /// Client id of the owner, or -1 for the driver.
    pub owner_id: i64,
    /// Further id, as the type says.
    pub reference_id: i64,
    /// Epoch milliseconds after which the id may be used again; `i64::MAX` while allocated.
    pub free_for_reuse_deadline_ms: i64,
}

/// Reader of a pair of counter sections. The sections are hostile: every id is checked, every text is copied and cut.
#[derive(Clone, Debug)]
pub struct CountersReader<B> {
    sections: Sections<B>,
}

impl<B: AtomicBuffer> CountersReader<B> {
    /// Looks at the two sections of a CnC file.
    ///
    /// # Errors
    /// [`CountersError::BadLength`] if they hold fewer than two counters.
    pub fn new(metadata: B, values: B) -> Result<Self, CountersError> {
        Sections::new(metadata, values).map(Self::of)
    }

    pub(super) fn of(sections: Sections<B>) -> Self {
        Self { sections }
    }

    /// Records in the sections; ids are below this.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sections.capacity()
    }

    /// Calls `visit` for every live counter, in the order of ids.
    pub fn for_each(&self, mut visit: impl FnMut(CounterRecord)) {
        for (id, place, state) in self.used() {
            if state == CounterState::Allocated
                && let Some(record) = self.copy(id, place, state)
            {
                visit(record);
            }
        }
    }

    /// Calls `visit` with id, type id and value of every live counter; copies no texts.
    pub fn for_each_value(&self, mut visit: impl FnMut(CounterId, i32, i64)) {
        for (id, place, state) in self.used() {
            if state == CounterState::Allocated
                && let Some((type_id, value)) =
                    self.unchanged(place, state, |_| (self.type_id_at(place), self.value_at(place)))
            {
                visit(id, type_id, value);
            }
        }
    }

    /// Copy of a live counter.
    #[must_use]
    pub fn record(&self, id: CounterId) -> Option<CounterRecord> {
        self.record_in_any_state(id)
            .filter(|record| record.state == CounterState::Allocated)
    }

    /// Copy of a counter that is live or was freed.
    #[must_use]
    pub fn record_in_any_state(&self, id: CounterId) -> Option<CounterRecord> {
        let place = self.sections.record(id)?;
        match self.sections.state(place) {
            CounterState::Unused => None,
            state => self.copy(id, place, state),
        }
    }

    /// The first live counter of this type with this registration id.
    #[must_use]
    pub fn find_by(&self, type_id: i32, registration_id: i64) -> Option<CounterId> {
        self.used()
            .find(|&(_, place, state)| {
                let wanted =
                    |registered: i64| registered == registration_id && self.type_id_at(place) == type_id;
                state == CounterState::Allocated && self.unchanged(place, state, wanted) == Some(true)
            })
            .map(|(id, ..)| id)
    }

    /// Whether the counter is live and still the one with this registration id. For handles to counters of others,
    /// which can be freed and used again at any time.
    #[must_use]
    pub fn is_live(&self, id: CounterId, registration_id: i64) -> bool {
        self.sections.record(id).is_some_and(|place| {
            self.sections.state(place) == CounterState::Allocated
                && self.registration_id_at(place) == registration_id
        })
    }

    /// State of a record; `None` if the id is out of range.
    #[must_use]
    pub fn state(&self, id: CounterId) -> Option<CounterState> {
        Some(self.sections.state(self.sections.record(id)?))
    }

    /// Value of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn value(&self, id: CounterId) -> Option<i64> {
        Some(self.value_at(self.sections.record(id)?))
    }

    /// Type id of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn type_id(&self, id: CounterId) -> Option<i32> {
        Some(self.type_id_at(self.sections.record(id)?))
    }

    /// Registration id of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn registration_id(&self, id: CounterId) -> Option<i64> {
        Some(self.registration_id_at(self.sections.record(id)?))
    }

    /// Reference id of a record, live or not: of which publication or image it is a position, say. `None` if the id is
    /// out of range.
    #[must_use]
    pub fn reference_id(&self, id: CounterId) -> Option<i64> {
        let place = self.sections.record(id)?;
        Some(
            self.sections
                .values
                .load_relaxed_i64(place.value + REFERENCE_ID_OFFSET),
        )
    }

    /// Owner of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn owner_id(&self, id: CounterId) -> Option<i64> {
        let place = self.sections.record(id)?;
        Some(
            self.sections
                .values
                .load_relaxed_i64(place.value + OWNER_ID_OFFSET),
        )
    }

    /// Key of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn key(&self, id: CounterId) -> Option<Key> {
        Some(self.sections.key(self.sections.record(id)?))
    }

    /// Label of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn label(&self, id: CounterId) -> Option<String> {
        Some(text(&self.sections.label(self.sections.record(id)?)))
    }

    /// Appends as much as fits to the label of a live counter of the caller's; returns the bytes written, `None` if
    /// the counter is not live.
    pub fn append_label(&self, id: CounterId, text: impl AsRef<[u8]>) -> Option<usize> {
        let place = self.sections.record(id)?;
        if self.sections.state(place) != CounterState::Allocated {
            return None;
        }
        Some(self.sections.append_label(place, text.as_ref()))
    }

    /// Ids from 0 up to the first never used.
    fn used(&self) -> impl Iterator<Item = (CounterId, Place, CounterState)> + '_ {
        (0..self.sections.capacity() as i32)
            .map(CounterId)
            .map_while(|id| {
                let place = self.sections.record(id)?;
                let state = self.sections.state(place);
                (state != CounterState::Unused).then_some((id, place, state))
            })
    }

    /// Copies a record in this state; `None` if it is in another, or was freed or became another counter meanwhile.
    fn copy(&self, id: CounterId, place: Place, state: CounterState) -> Option<CounterRecord> {
        let Sections { metadata, values, .. } = &self.sections;
        self.unchanged(place, state, |registration_id| CounterRecord {
            id,
            type_id: self.type_id_at(place),
            state,
            key: self.sections.key(place),
            label: text(&self.sections.label(place)),
            value: self.value_at(place),
            registration_id,
            owner_id: values.load_relaxed_i64(place.value + OWNER_ID_OFFSET),
            reference_id: values.load_relaxed_i64(place.value + REFERENCE_ID_OFFSET),
            free_for_reuse_deadline_ms: metadata.load_relaxed_i64(place.metadata + DEADLINE_OFFSET),
        })
    }

    /// What `read` makes of a record in this state, given its registration id; `None` if it is in another state or was
    /// freed or became another counter meanwhile.
    fn unchanged<T>(&self, place: Place, state: CounterState, read: impl FnOnce(i64) -> T) -> Option<T> {
        // SYNC counter-identity: the id of the next counter is seen only together with the end of the old one, so a
        // live state read behind it is that of the counter with this id, and its fields are complete.
        let registration_id = self.registration_id_at(place);
        if self.sections.state(place) != state {
            return None;
        }
        let result = read(registration_id);
        // SYNC counter-identity: if a field read before belonged to the next counter, or was cleared for it, then the
        // state read here is not the old one; and if it is that of the next counter, its registration id is seen too.
        fence(Ordering::Acquire);
        let same = self.sections.state(place) == state && self.registration_id_at(place) == registration_id;
        same.then_some(result)
    }

    fn value_at(&self, place: Place) -> i64 {
        self.sections
            .values
            .load_acquire_i64(place.value + COUNTER_OFFSET)
    }

    fn registration_id_at(&self, place: Place) -> i64 {
        self.sections
            .values
            .load_acquire_i64(place.value + REGISTRATION_ID_OFFSET)
    }

    fn type_id_at(&self, place: Place) -> i32 {
        self.sections
            .metadata
            .load_relaxed_i32(place.metadata + TYPE_ID_OFFSET)
    }
}

#[cfg(not(loom))]
impl CountersReader<View> {
    /// A handle to the value of a record, live or not; `None` if the id is out of range.
    #[must_use]
    pub fn counter(&self, id: CounterId) -> Option<Counter> {
        Counter::new(&self.sections.values, id)
    }

    /// A handle to the value of a live counter that can tell whether the counter is still the same one; `None` if
    /// it is not live or belongs to another registration.
    #[must_use]
    pub fn lease(&self, id: CounterId, registration_id: i64) -> Option<CounterLease> {
        let place = self.sections.record(id)?;
        let lease = CounterLease {
            counter: self.counter(id)?,
            state: self.sections.metadata.slice(place.metadata + STATE_OFFSET, 4),
            registration_id,
        };
        lease.is_held().then_some(lease)
    }
}

/// A copied label as text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
