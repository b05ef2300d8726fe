//! Counters of the application (shared-memory spec 7.4, ADD_COUNTER and ADD_STATIC_COUNTER).
#![forbid(unsafe_code)]

use core::cell::RefCell;
use std::sync::{Arc, Mutex};

use super::client::{Client, Handle};
use super::registry::ResourceKey;
use super::slot::{NEVER, Slot, lock};
use crate::counters::Counter;
use crate::id::{CounterId, RegistrationId};

/// What the conductor and the handle of one counter share.
pub(super) struct CounterShared {
    pub(super) slot: Slot<Arc<Counter>>,
    pub(super) identity: Mutex<(RegistrationId, CounterId)>,
    /// The value when the driver was lost, carried over to its successor.
    pub(super) carried: Mutex<Option<i64>>,
}

impl CounterShared {
    pub(super) fn new() -> Self {
        CounterShared {
            slot: Slot::new(),
            identity: Mutex::new((RegistrationId(0), CounterId::NONE)),
            carried: Mutex::new(None),
        }
    }
}

/// A counter that this client writes and everybody can read. Dropping the handle removes the counter, unless it is a
/// static one. While the driver is away writes are lost, except that the last value before is carried over.
pub struct UserCounter {
    // Held for its drop, which removes the counter.
    _handle: Handle,
    shared: Arc<CounterShared>,
    local: RefCell<Local>,
}

struct Local {
    state: u64,
    counter: Option<Arc<Counter>>,
}

impl UserCounter {
    pub(super) fn new(client: Client, key: ResourceKey, shared: Arc<CounterShared>) -> Self {
        UserCounter {
            _handle: Handle::new(client, key),
            shared,
            local: RefCell::new(Local {
                state: NEVER,
                counter: None,
            }),
        }
    }

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&Counter) -> R) -> Option<R> {
        if self.local.borrow().state != self.shared.slot.state() {
            let (state, counter) = self.shared.slot.fetch();
            *self.local.borrow_mut() = Local { state, counter };
        }
        self.local.borrow().counter.as_deref().map(f)
    }

    /// The value; 0 when closed or the driver is away.
    #[inline]
    #[must_use]
    pub fn get(&self) -> i64 {
        self.with(Counter::get_acquire).unwrap_or(0)
    }

    /// Sets the value; everything written before is visible to who reads it.
    #[inline]
    pub fn set(&self, value: i64) {
        self.with(|counter| counter.set_release(value));
    }

    /// Sets the value, no ordering.
    #[inline]
    pub fn set_relaxed(&self, value: i64) {
        self.with(|counter| counter.set_relaxed(value));
    }

    /// Adds one, whoever else adds; returns the value before.
    #[inline]
    pub fn increment(&self) -> i64 {
        self.with(Counter::increment_atomic).unwrap_or(0)
    }

    /// Adds `delta`, whoever else adds; returns the value before.
    #[inline]
    pub fn add(&self, delta: i64) -> i64 {
        self.with(|counter| counter.add_atomic(delta)).unwrap_or(0)
    }

    /// Its index in the counters section, under the present driver.
    #[must_use]
    pub fn counter_id(&self) -> CounterId {
        lock(&self.shared.identity).1
    }

    /// Its registration id under the present driver; for a static counter the one the application chose.
    #[must_use]
    pub fn registration_id(&self) -> RegistrationId {
        lock(&self.shared.identity).0
    }

    /// Whether the counter, or its client, is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        Slot::<Arc<Counter>>::is_closed(self.shared.slot.state())
    }

    /// Removes the counter; dropping it does the same.
    pub fn close(self) {}
}

impl core::fmt::Debug for UserCounter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UserCounter")
            .field("counter_id", &self.counter_id())
            .field("value", &self.get())
            .finish_non_exhaustive()
    }
}
