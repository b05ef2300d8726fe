//! A handle to one value: the position of a subscription, the limit of a publication, a statistic.
#![forbid(unsafe_code)]

#[cfg(not(loom))]
use core::borrow::Borrow;

#[cfg(not(loom))]
use super::layout::VALUE_LENGTH;
use super::layout::{COUNTER_OFFSET, OWNER_ID_OFFSET, REGISTRATION_ID_OFFSET, STATE_ALLOCATED};
use crate::id::CounterId;
use crate::memory::{AtomicBuffer, View};

/// One value record. Whether the counter is still the one it was when the handle was made is asked with
/// [`Self::is_registered_as`], or of [`super::CountersReader::is_live`]: ids are used again.
#[derive(Clone, Debug)]
pub struct Counter<B = View> {
    /// Exactly one value record, so that the bounds of every access are constants.
    record: B,
    id: CounterId,
}

#[cfg(not(loom))]
impl Counter<View> {
    /// The counter `id` of the values section `values`; `None` if the id is out of range.
    #[must_use]
    pub fn new(values: impl Borrow<View>, id: CounterId) -> Option<Self> {
        let values: &View = values.borrow();
        let offset = usize::try_from(id.0).ok()?.checked_mul(VALUE_LENGTH)?;
        let fits = offset.checked_add(VALUE_LENGTH)? <= values.capacity();
        fits.then(|| Self {
            record: values.slice(offset, VALUE_LENGTH),
            id,
        })
    }
}

impl<B: AtomicBuffer> Counter<B> {
    /// Index of the counter.
    #[inline]
    #[must_use]
    pub fn id(&self) -> CounterId {
        self.id
    }

    /// The value; what its writer released before is visible after this.
    #[inline(always)]
    #[must_use]
    pub fn get_acquire(&self) -> i64 {
        // SYNC counter-value: what the writer did before is visible.
        self.record.load_acquire_i64(COUNTER_OFFSET)
    }

    /// The value, no ordering.
    #[inline(always)]
    #[must_use]
    pub fn get_relaxed(&self) -> i64 {
        self.record.load_relaxed_i64(COUNTER_OFFSET)
    }

    /// Stores the value and publishes what was done before.
    #[inline(always)]
    pub fn set_release(&self, value: i64) {
        // SYNC counter-value: publishes what the writer did before.
        self.record.store_release_i64(COUNTER_OFFSET, value);
    }

    /// Stores the value, no ordering.
    #[inline(always)]
    pub fn set_relaxed(&self, value: i64) {
        self.record.store_relaxed_i64(COUNTER_OFFSET, value);
    }

    /// Adds to the value, which nobody else may write, no ordering; wraps. Returns the new value.
    #[inline(always)]
    pub fn add_relaxed(&self, delta: i64) -> i64 {
        let value = self.get_relaxed().wrapping_add(delta);
        self.set_relaxed(value);
        value
    }

    /// Raises the value, which nobody else may write, to `proposed` if that is greater, no ordering; whether it was.
    #[inline(always)]
    pub fn propose_max_relaxed(&self, proposed: i64) -> bool {
        let greater = proposed > self.get_relaxed();
        if greater {
            self.set_relaxed(proposed);
        }
        greater
    }

    /// Raises the value, which nobody else may write, to `proposed` if that is greater, release; whether it was.
    #[inline(always)]
    pub fn propose_max_release(&self, proposed: i64) -> bool {
        let greater = proposed > self.get_relaxed();
        if greater {
            self.set_release(proposed);
        }
        greater
    }

    /// Adds 1 to a value with several writers and returns the previous value; wraps.
    #[inline(always)]
    pub fn increment_atomic(&self) -> i64 {
        self.add_atomic(1)
    }

    /// Adds to a value with several writers and returns the previous value; wraps.
    #[inline(always)]
    pub fn add_atomic(&self, delta: i64) -> i64 {
        self.record.fetch_add_i64(COUNTER_OFFSET, delta)
    }

    /// The registration id that stands beside the value now.
    #[inline]
    #[must_use]
    pub fn registration_id(&self) -> i64 {
        self.record.load_acquire_i64(REGISTRATION_ID_OFFSET)
    }

    /// The owner that stands beside the value now.
    #[inline]
    #[must_use]
    pub fn owner_id(&self) -> i64 {
        self.record.load_relaxed_i64(OWNER_ID_OFFSET)
    }

    /// Whether the id has not been given to another registration. A counter that was only freed still says yes.
    #[inline]
    #[must_use]
    pub fn is_registered_as(&self, registration_id: i64) -> bool {
        self.registration_id() == registration_id
    }
}

/// A counter that its writer was lent by the driver, which may take it back and give it to somebody else: the writer
/// asks [`Self::is_held`] before it stores. Both words asked for are hardly ever written.
#[derive(Clone, Debug)]
pub struct CounterLease<B = View> {
    pub(super) counter: Counter<B>,
    /// The state word of the metadata record, alone.
    pub(super) state: B,
    pub(super) registration_id: i64,
}

impl<B: AtomicBuffer> CounterLease<B> {
    /// The value.
    #[inline(always)]
    #[must_use]
    pub fn counter(&self) -> &Counter<B> {
        &self.counter
    }

    /// Whether the counter is live and was not given to another registration.
    #[inline(always)]
    #[must_use]
    pub fn is_held(&self) -> bool {
        // SYNC counter-state: a state that is live again comes with the registration id of the next counter.
        self.state.load_acquire_i32(0) == STATE_ALLOCATED
            && self.counter.is_registered_as(self.registration_id)
    }
}
