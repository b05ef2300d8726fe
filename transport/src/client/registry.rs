//! What this client has asked for, and how far each request has come. A pure state machine: it reads no clock,
//! sends nothing, maps nothing; the conductor does what the answers of this file say.
//!
//! ```text
//! add -> Unsent -> Sent -> Ready -> (released)
//!          ^        |  \-> Failed -> (result taken)
//!          +--------+------ driver lost, from Sent and Ready
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::error::RegistrationError;
use crate::control::ErrorCode;
use crate::id::{CorrelationId, RegistrationId};
use crate::time::NanoTime;

/// Names a resource of this client for as long as its handles live, whatever the driver calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ResourceKey(pub(super) u64);

/// Most requests without a waiter whose late answer is still undone.
const ABANDONED_MAX: usize = 4096;

/// What was asked for; enough to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Publication {
        channel: String,
        stream_id: i32,
        exclusive: bool,
    },
    Subscription {
        channel: String,
        stream_id: i32,
    },
    Counter {
        type_id: i32,
        key: Vec<u8>,
        label: String,
    },
    StaticCounter {
        registration_id: i64,
        type_id: i32,
        key: Vec<u8>,
        label: String,
    },
}

impl Request {
    fn kind(&self) -> Kind {
        match self {
            Request::Publication { .. } => Kind::Publication,
            Request::Subscription { .. } => Kind::Subscription,
            Request::Counter { .. } => Kind::Counter,
            Request::StaticCounter { .. } => Kind::StaticCounter,
        }
    }

    /// Channel and stream for messages to people; counters show their label and type.
    pub(super) fn describe(&self) -> (String, i32) {
        match self {
            Request::Publication {
                channel, stream_id, ..
            }
            | Request::Subscription { channel, stream_id } => (channel.clone(), *stream_id),
            Request::Counter { type_id, label, .. } | Request::StaticCounter { type_id, label, .. } => {
                (label.clone(), *type_id)
            }
        }
    }
}

/// What kind of thing has to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Publication,
    Subscription,
    Counter,
    /// Never removed while the driver lives.
    StaticCounter,
}

/// A remove command to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) kind: Kind,
    pub(super) registration_id: RegistrationId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Unsent,
    Sent,
    Ready,
    Failed(RegistrationError),
}

/// A destination that was added by hand and has to be added again to a successor of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) channel: String,
    pub(super) registration_id: RegistrationId,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) request: Request,
    pub(super) target: T,
    phase: Phase,
    /// The correlation id of the latest add; the registration id once ready.
    registration_id: RegistrationId,
    /// When the application's patience ends; `None` once it has its handle.
    deadline: Option<NanoTime>,
    /// Destinations of the application, in the order they were added.
    pub(super) destinations: Vec<Destination>,
}

impl<T> Entry<T> {
    /// The registration id under the present driver; `None` unless ready.
    pub(super) fn registration_id(&self) -> Option<RegistrationId> {
        (self.phase == Phase::Ready).then_some(self.registration_id)
    }

    /// Whether the application already holds the handle.
    pub(super) fn is_handed_out(&self) -> bool {
        self.deadline.is_none()
    }
}

/// What an answer with a given correlation id means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is for nobody here.
    Unknown,
    /// It completes this resource.
    Resource(ResourceKey),
    /// Nobody waits any more: undo it.
    Abandoned(Removal),
}

/// What a failed request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is for nobody here, or somebody will take the result.
    Noted,
    /// A handle in use could not be added again: close it and tell the application.
    InUse(ResourceKey),
}

/// A change of a destination list, applied when the driver has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    DestinationAdded {
        key: ResourceKey,
        channel: String,
    },
    DestinationRemoved {
        key: ResourceKey,
        channel: String,
    },
    DestinationRemovedById {
        key: ResourceKey,
        registration_id: RegistrationId,
    },
}

#[derive(Debug)]
struct Operation {
    deadline: NanoTime,
    effect: Effect,
    result: Option<Result<i64, RegistrationError>>,
}

/// All resources and operations of one client.
#[derive(Debug)]
pub(super) struct Registry<T> {
    entries: BTreeMap<ResourceKey, Entry<T>>,
    by_registration: FxHashMap<i64, ResourceKey>,
    abandoned: BTreeMap<i64, Kind>,
    operations: BTreeMap<i64, Operation>,
    last_key: u64,
    /// Whether anything may wait to be sent or answered: mostly nothing does, and timers have nothing to look through.
    may_wait: bool,
}

impl<T> Registry<T> {
    pub(super) fn new() -> Self {
        Registry {
            entries: BTreeMap::new(),
            by_registration: FxHashMap::default(),
            abandoned: BTreeMap::new(),
            operations: BTreeMap::new(),
            last_key: 0,
            may_wait: false,
        }
    }

    /// Notes a request that has still to be sent.
    pub(super) fn add(&mut self, request: Request, target: T, deadline: NanoTime) -> ResourceKey {
        self.last_key += 1;
        self.may_wait = true;
        let key = ResourceKey(self.last_key);
        self.entries.insert(
            key,
            Entry {
                request,
                target,
                phase: Phase::Unsent,
                registration_id: RegistrationId(0),
                deadline: Some(deadline),
                destinations: Vec::new(),
            },
        );
        key
    }

    pub(super) fn get(&self, key: ResourceKey) -> Option<&Entry<T>> {
        self.entries.get(&key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values()
    }

    pub(super) fn keyed_entries(&self) -> impl Iterator<Item = (ResourceKey, &Entry<T>)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    /// The entry with this registration id, sent or ready.
    pub(super) fn by_registration(&self, id: RegistrationId) -> Option<&Entry<T>> {
        self.by_registration
            .get(&id.get())
            .and_then(|key| self.entries.get(key))
    }

    /// Requests that have still to be sent.
    pub(super) fn unsent(&self) -> Vec<ResourceKey> {
        if !self.may_wait {
            return Vec::new();
        }
        self.entries
            .iter()
            .filter(|(_, entry)| entry.phase == Phase::Unsent)
            .map(|(key, _)| *key)
            .collect()
    }

    /// The add command went out under this id.
    pub(super) fn on_sent(&mut self, key: ResourceKey, correlation_id: CorrelationId) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.phase = Phase::Sent;
            entry.registration_id = correlation_id.into();
            self.by_registration.insert(correlation_id.get(), key);
        }
    }

    /// What a "ready" answer with this id completes. `Resource` is followed by [`Self::complete`] or [`Self::fail`].
    pub(super) fn on_ready(&mut self, correlation_id: CorrelationId) -> Match {
        if let Some(kind) = self.abandoned.remove(&correlation_id.get()) {
            return Match::Abandoned(Removal {
                kind,
                registration_id: correlation_id.into(),
            });
        }
        match self.by_registration.get(&correlation_id.get()) {
            Some(key) if self.entries.get(key).is_some_and(|e| e.phase == Phase::Sent) => {
                Match::Resource(*key)
            }
            _ => Match::Unknown,
        }
    }

    /// The resource can be used.
    pub(super) fn complete(&mut self, key: ResourceKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.phase = Phase::Ready;
        }
    }

    /// The request failed, for good.
    pub(super) fn fail(&mut self, key: ResourceKey, error: RegistrationError) -> Failure {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Failure::Noted;
        };
        self.by_registration.remove(&entry.registration_id.get());
        entry.phase = Phase::Failed(error);
        if entry.is_handed_out() {
            Failure::InUse(key)
        } else {
            Failure::Noted
        }
    }

    /// The driver answered a command with an error.
    pub(super) fn on_error(
        &mut self,
        correlation_id: CorrelationId,
        code: ErrorCode,
        message: String,
    ) -> Failure {
        let error = RegistrationError::Refused { code, message };
        self.abandoned.remove(&correlation_id.get());
        if let Some(operation) = self.operations.get_mut(&correlation_id.get()) {
            operation.result = Some(Err(error));
            return Failure::Noted;
        }
        match self.by_registration.get(&correlation_id.get()) {
            Some(key) if self.entries.get(key).is_some_and(|e| e.phase == Phase::Sent) => {
                let key = *key;
                self.fail(key, error)
            }
            _ => Failure::Noted,
        }
    }

    /// The result of a request, once there is one. A failed request is forgotten with it; a ready one belongs to
    /// its handle from here on.
    pub(super) fn take_result(&mut self, key: ResourceKey) -> Option<Result<&T, RegistrationError>> {
        match self.entries.get(&key).map(|entry| &entry.phase) {
            None => Some(Err(RegistrationError::Closed)),
            Some(Phase::Unsent | Phase::Sent) => None,
            Some(Phase::Failed(_)) => self.take_failed(key).map(|(_, error)| Err(error)),
            Some(Phase::Ready) => self.entries.get_mut(&key).map(|entry| {
                entry.deadline = None;
                Ok(&entry.target)
            }),
        }
    }

    /// Forgets a failed resource; returns its target, to be closed, and the failure.
    pub(super) fn take_failed(&mut self, key: ResourceKey) -> Option<(T, RegistrationError)> {
        if !matches!(self.entries.get(&key)?.phase, Phase::Failed(_)) {
            return None;
        }
        let entry = self.entries.remove(&key)?;
        match entry.phase {
            Phase::Failed(error) => Some((entry.target, error)),
            _ => None,
        }
    }

    /// The handle, or the wait for it, was given up. Returns the target and what has to be removed at the driver.
    pub(super) fn release(&mut self, key: ResourceKey) -> Option<(T, Option<Removal>)> {
        let entry = self.entries.remove(&key)?;
        self.by_registration.remove(&entry.registration_id.get());
        let kind = entry.request.kind();
        let removal = match entry.phase {
            Phase::Unsent | Phase::Failed(_) => None,
            Phase::Sent => {
                self.abandon(entry.registration_id, kind);
                None
            }
            Phase::Ready => Some(Removal {
                kind,
                registration_id: entry.registration_id,
            }),
        };
        Some((entry.target, removal))
    }

    fn abandon(&mut self, id: RegistrationId, kind: Kind) {
        self.abandoned.insert(id.get(), kind);
        if self.abandoned.len() > ABANDONED_MAX {
            self.abandoned.pop_first();
        }
    }

    /// Fails what has waited for too long.
    pub(super) fn expire(&mut self, now: NanoTime, timeout: core::time::Duration) {
        if !self.may_wait {
            return;
        }
        let mut late = Vec::new();
        let mut may_wait = false;
        for entry in self.entries.values_mut() {
            let waits = matches!(entry.phase, Phase::Unsent | Phase::Sent);
            may_wait |= waits;
            if waits && entry.deadline.is_some_and(|deadline| deadline.is_due(now)) {
                if entry.phase == Phase::Sent {
                    late.push((entry.registration_id, entry.request.kind()));
                }
                entry.phase = Phase::Failed(RegistrationError::Timeout(timeout));
            }
        }
        for (id, kind) in late {
            self.by_registration.remove(&id.get());
            self.abandon(id, kind);
        }
        for operation in self.operations.values_mut() {
            may_wait |= operation.result.is_none();
            if operation.result.is_none() && operation.deadline.is_due(now) {
                operation.result = Some(Err(RegistrationError::Timeout(timeout)));
            }
        }
        self.may_wait = may_wait;
    }

    /// The driver is gone: everything has to be asked for again, and running operations have failed.
    pub(super) fn on_driver_lost(&mut self) {
        self.may_wait = true;
        for entry in self.entries.values_mut() {
            if matches!(entry.phase, Phase::Sent | Phase::Ready) {
                entry.phase = Phase::Unsent;
                entry.registration_id = RegistrationId(0);
            }
        }
        self.by_registration.clear();
        self.abandoned.clear();
        for operation in self.operations.values_mut() {
            if operation.result.is_none() {
                operation.result = Some(Err(RegistrationError::DriverLost));
            }
        }
    }

    /// Forgets everything; returns the targets, to be closed.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.by_registration.clear();
        self.abandoned.clear();
        self.operations.clear();
        core::mem::take(&mut self.entries)
            .into_values()
            .map(|entry| entry.target)
            .collect()
    }

    /// A command went out whose answer somebody waits for.
    pub(super) fn begin_operation(&mut self, id: CorrelationId, effect: Effect, deadline: NanoTime) {
        self.may_wait = true;
        self.operations.insert(
            id.get(),
            Operation {
                deadline,
                effect,
                result: None,
            },
        );
    }

    /// The driver confirmed a command, with a value where the answer carries one.
    pub(super) fn on_operation_done(&mut self, id: CorrelationId, value: i64) {
        let Some(operation) = self.operations.get_mut(&id.get()) else {
            return;
        };
        operation.result = Some(Ok(value));
        match core::mem::replace(&mut operation.effect, Effect::None) {
            Effect::None => {}
            Effect::DestinationAdded { key, channel } => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.destinations.push(Destination {
                        channel,
                        registration_id: id.into(),
                    });
                }
            }
            Effect::DestinationRemoved { key, channel } => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.destinations.retain(|d| d.channel != channel);
                }
            }
            Effect::DestinationRemovedById { key, registration_id } => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry
                        .destinations
                        .retain(|d| d.registration_id != registration_id);
                }
            }
        }
    }

    /// The result of an operation, once there is one; it is forgotten with it.
    pub(super) fn take_operation(&mut self, id: CorrelationId) -> Option<Result<i64, RegistrationError>> {
        match self.operations.get(&id.get()) {
            None => Some(Err(RegistrationError::Closed)),
            Some(operation) => {
                operation.result.as_ref()?;
                self.operations.remove(&id.get()).and_then(|done| done.result)
            }
        }
    }

    /// Nobody waits for this operation any more.
    pub(super) fn forget_operation(&mut self, id: CorrelationId) {
        self.operations.remove(&id.get());
    }

    /// Gives a re-added destination its new id.
    pub(super) fn renumber_destination(&mut self, key: ResourceKey, index: usize, id: RegistrationId) {
        if let Some(destination) = self
            .entries
            .get_mut(&key)
            .and_then(|entry| entry.destinations.get_mut(index))
        {
            destination.registration_id = id;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn publication() -> Request {
        Request::Publication {
            channel: "aeron:ipc".to_owned(),
            stream_id: 10,
            exclusive: false,
        }
    }

    fn at(nanos: i64) -> NanoTime {
        NanoTime(nanos)
    }

    fn ready(registry: &mut Registry<&'static str>, id: i64) -> ResourceKey {
        let key = registry.add(publication(), "target", at(100));
        registry.on_sent(key, CorrelationId(id));
        assert_eq!(registry.on_ready(CorrelationId(id)), Match::Resource(key));
        registry.complete(key);
        assert!(matches!(registry.take_result(key), Some(Ok(&"target"))));
        key
    }

    #[test]
    fn an_add_becomes_ready_and_is_removed_on_release() {
        let mut registry = Registry::new();
        let key = registry.add(publication(), "target", at(100));
        assert_eq!(registry.unsent(), vec![key]);
        assert!(registry.take_result(key).is_none());
        registry.on_sent(key, CorrelationId(7));
        assert!(registry.unsent().is_empty());
        assert!(registry.take_result(key).is_none());
        assert_eq!(registry.on_ready(CorrelationId(8)), Match::Unknown);
        assert_eq!(registry.on_ready(CorrelationId(7)), Match::Resource(key));
        registry.complete(key);
        assert!(matches!(registry.take_result(key), Some(Ok(_))));
        assert_eq!(
            registry.on_ready(CorrelationId(7)),
            Match::Unknown,
            "ready only once"
        );
        let (_, removal) = registry.release(key).unwrap();
        assert_eq!(
            removal,
            Some(Removal {
                kind: Kind::Publication,
                registration_id: RegistrationId(7)
            })
        );
        assert!(registry.release(key).is_none());
    }

    #[test]
    fn a_late_answer_to_an_expired_add_is_undone() {
        let mut registry = Registry::new();
        let key = registry.add(publication(), (), at(100));
        registry.on_sent(key, CorrelationId(7));
        registry.expire(at(99), TIMEOUT);
        assert!(registry.take_result(key).is_none());
        registry.expire(at(100), TIMEOUT);
        assert_eq!(
            registry.take_result(key),
            Some(Err(RegistrationError::Timeout(TIMEOUT)))
        );
        let removal = Removal {
            kind: Kind::Publication,
            registration_id: RegistrationId(7),
        };
        assert_eq!(registry.on_ready(CorrelationId(7)), Match::Abandoned(removal));
        assert_eq!(
            registry.on_ready(CorrelationId(7)),
            Match::Unknown,
            "undone only once"
        );
    }

    #[test]
    fn a_dropped_wait_is_undone_when_the_answer_comes() {
        let mut registry = Registry::new();
        let key = registry.add(publication(), (), at(100));
        registry.on_sent(key, CorrelationId(7));
        assert_eq!(registry.release(key).unwrap().1, None);
        assert!(matches!(registry.on_ready(CorrelationId(7)), Match::Abandoned(_)));
    }

    #[test]
    fn a_refusal_reaches_the_waiter_once() {
        let mut registry = Registry::new();
        let key = registry.add(publication(), (), at(100));
        registry.on_sent(key, CorrelationId(7));
        let failure = registry.on_error(CorrelationId(7), ErrorCode::InvalidChannel, "bad".to_owned());
        assert_eq!(failure, Failure::Noted);
        assert!(matches!(
            registry.take_result(key),
            Some(Err(RegistrationError::Refused {
                code: ErrorCode::InvalidChannel,
                ..
            }))
        ));
        assert_eq!(registry.take_result(key), Some(Err(RegistrationError::Closed)));
    }

    #[test]
    fn after_a_lost_driver_everything_is_asked_for_again_under_the_same_key() {
        let mut registry = Registry::new();
        let key = ready(&mut registry, 7);
        let waiting = registry.add(publication(), "waits", at(100));
        registry.on_sent(waiting, CorrelationId(8));
        registry.on_driver_lost();
        assert_eq!(registry.unsent(), vec![key, waiting]);
        assert_eq!(
            registry.on_ready(CorrelationId(7)),
            Match::Unknown,
            "ids of the old driver mean nothing"
        );
        registry.on_sent(key, CorrelationId(3));
        assert_eq!(registry.on_ready(CorrelationId(3)), Match::Resource(key));
        registry.complete(key);
        assert_eq!(
            registry.get(key).unwrap().registration_id(),
            Some(RegistrationId(3))
        );
        registry.expire(at(1_000), TIMEOUT);
        assert!(
            registry.get(key).unwrap().registration_id().is_some(),
            "no deadline once handed out"
        );
    }

    #[test]
    fn a_handle_in_use_that_can_not_be_added_again_is_reported() {
        let mut registry = Registry::new();
        let key = ready(&mut registry, 7);
        registry.on_driver_lost();
        registry.on_sent(key, CorrelationId(3));
        let failure = registry.on_error(CorrelationId(3), ErrorCode::StorageSpace, String::new());
        assert_eq!(failure, Failure::InUse(key));
    }

    #[test]
    fn an_error_for_a_ready_resource_changes_nothing() {
        let mut registry = Registry::new();
        let key = ready(&mut registry, 7);
        let failure = registry.on_error(CorrelationId(7), ErrorCode::GenericError, String::new());
        assert_eq!(failure, Failure::Noted);
        assert!(registry.get(key).unwrap().registration_id().is_some());
    }

    #[test]
    fn destinations_follow_what_the_driver_confirmed() {
        let mut registry = Registry::new();
        let key = ready(&mut registry, 7);
        for (id, channel) in [(8, "a"), (9, "b")] {
            let channel = channel.to_owned();
            registry.begin_operation(
                CorrelationId(id),
                Effect::DestinationAdded { key, channel },
                at(500),
            );
            assert!(registry.take_operation(CorrelationId(id)).is_none());
            registry.on_operation_done(CorrelationId(id), 0);
            assert_eq!(registry.take_operation(CorrelationId(id)), Some(Ok(0)));
        }
        let registration_id = RegistrationId(9);
        registry.begin_operation(
            CorrelationId(10),
            Effect::DestinationRemovedById { key, registration_id },
            at(500),
        );
        registry.on_operation_done(CorrelationId(10), 0);
        let channels: Vec<_> = registry.get(key).unwrap().destinations.iter().collect();
        assert_eq!(channels.len(), 1);
        assert_eq!(channels[0].channel, "a");
    }

    #[test]
    fn a_running_operation_fails_with_the_driver_and_by_time() {
        let mut registry = Registry::<()>::new();
        registry.begin_operation(CorrelationId(1), Effect::None, at(50));
        registry.begin_operation(CorrelationId(2), Effect::None, at(500));
        registry.expire(at(60), TIMEOUT);
        registry.on_driver_lost();
        assert_eq!(
            registry.take_operation(CorrelationId(1)),
            Some(Err(RegistrationError::Timeout(TIMEOUT)))
        );
        assert_eq!(
            registry.take_operation(CorrelationId(2)),
            Some(Err(RegistrationError::DriverLost))
        );
    }

    #[test]
    fn abandoned_requests_are_bounded() {
        let mut registry = Registry::new();
        for id in 1..=(ABANDONED_MAX as i64 + 10) {
            let key = registry.add(publication(), (), at(100));
            registry.on_sent(key, CorrelationId(id));
            let _ = registry.release(key);
        }
        assert_eq!(registry.abandoned.len(), ABANDONED_MAX);
        assert_eq!(registry.on_ready(CorrelationId(1)), Match::Unknown);
    }
}
