//! The client's conductor: reads what the driver says, keeps the client alive, notices the driver's end and finds
//! its successor (shared-memory spec 12). One duty cycle per call, under the client's lock; handlers of the
//! application run later, from the queue of notices, when the lock is free.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crossbeam_queue::SegQueue;

use super::attachment::PublicationShared;
use super::counter_handle::CounterShared;
use super::error::{ClientError, RegistrationError};
use super::event::{ClientEvent, ImageInfo};
use super::image::ImageShared;
use super::link::{Finder, Link};
use super::logs::Logs;
use super::registry::{Effect, Kind, Registry, Removal, Request, ResourceKey};
use super::settings::ClientSettings;
use super::slot::lock;
use super::subscription::SubscriptionShared;
use crate::control::Command;
use crate::directory::Directory;
use crate::id::{ClientId, CorrelationId, RegistrationId};
use crate::log::LogBuffers;
use crate::time::{NanoTime, Now};

mod driver_events;
mod driver_watch;
mod requests;

/// Most messages of the driver handled in one cycle.
const MESSAGES_PER_CYCLE: usize = 64;
/// Most given-up handles handled in one cycle.
const RELEASES_PER_CYCLE: usize = 64;
/// How often liveness and deadlines are looked at.
const TIMER_INTERVAL_NS: i64 = 10_000_000;
/// How often logs are checked for having been truncated.
const DAMAGE_CHECK_INTERVAL_NS: i64 = 100_000_000;
/// How often it is checked whether another driver has taken the directory over.
const REPLACED_CHECK_INTERVAL_NS: i64 = 1_000_000_000;
/// How often a successor of a lost driver is looked for.
const FIND_INTERVAL_NS: i64 = 20_000_000;
/// How long the client's heartbeat counter has to be missing: a driver that shuts down frees counters one by one.
const HEARTBEAT_GRACE_NS: i64 = 100_000_000;

/// What a registry entry stands for.
#[derive(Clone)]
pub(super) enum Target {
    Publication(Arc<PublicationShared>),
    Subscription(Arc<SubscriptionShared>),
    Counter(Arc<CounterShared>),
}

/// What handles tell the conductor without waiting for it.
pub(super) enum Release {
    Resource {
        key: ResourceKey,
        revoke: bool,
    },
    Log(Arc<LogBuffers>),
    /// An image whose stream is corrupt at this position.
    CorruptImage(Arc<ImageShared>, i64),
    /// An image whose reader was left behind.
    LappedImage(Arc<ImageShared>),
}

/// What the application is to be told, once no lock is held.
pub(super) enum Notice {
    Event(ClientEvent),
    Error(ClientError),
    ImageAvailable(Arc<SubscriptionShared>, ImageInfo),
    ImageUnavailable(Arc<SubscriptionShared>, ImageInfo),
}

/// Targets to be dropped where no lock is held, because the application's handlers go with them, and with those
/// whatever they hold, the client itself perhaps.
pub(super) type Forgotten = SegQueue<Target>;

enum State {
    Attached(Box<Link>),
    /// The driver is gone; its successor is looked for.
    Lost {
        finder: Finder,
        next_attempt: NanoTime,
    },
    Closed,
}

/// The conductor's state. Behind the client's lock.
pub(super) struct Conductor {
    settings: Arc<ClientSettings>,
    directory: Arc<dyn Directory>,
    releases: Arc<SegQueue<Release>>,
    notices: Arc<SegQueue<Notice>>,
    forgotten: Arc<Forgotten>,
    state: State,
    registry: Registry<Target>,
    logs: Logs,
    client_id: ClientId,
    next_timer: NanoTime,
    next_keepalive: NanoTime,
    /// Since when this client's heartbeat counter is missing.
    heartbeat_missing_since: Option<NanoTime>,
    next_damage_check: NanoTime,
    next_replaced_check: NanoTime,
    /// Removals that a full ring did not take. Each was a handle, so there are never more than there were handles.
    unsent_removals: Vec<(Removal, bool)>,
    received: Vec<u8>,
}

impl Conductor {
    pub(super) fn new(
        settings: Arc<ClientSettings>,
        directory: Arc<dyn Directory>,
        releases: Arc<SegQueue<Release>>,
        notices: Arc<SegQueue<Notice>>,
        forgotten: Arc<Forgotten>,
        link: Box<Link>,
        now: Now,
    ) -> Self {
        Conductor {
            settings,
            directory,
            releases,
            notices,
            forgotten,
            client_id: link.client_id(),
            state: State::Attached(link),
            registry: Registry::new(),
            logs: Logs::default(),
            next_timer: now.nanos,
            next_keepalive: now.nanos,
            heartbeat_missing_since: None,
            next_damage_check: now.nanos,
            next_replaced_check: now.nanos.plus_nanos(REPLACED_CHECK_INTERVAL_NS),
            unsent_removals: Vec::new(),
            received: Vec::with_capacity(4096),
        }
    }

    pub(super) fn client_id(&self) -> ClientId {
        self.client_id
    }

    pub(super) fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Attached(link) => Some(link),
            State::Lost { .. } | State::Closed => None,
        }
    }

    fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Attached(link) => Some(link),
            State::Lost { .. } | State::Closed => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// When a cycle has something to do even if nothing arrives.
    pub(super) fn next_deadline(&self) -> NanoTime {
        self.next_timer
    }

    /// One duty cycle; returns the work done.
    pub(super) fn do_work(&mut self, now: Now) -> usize {
        let mut work = self.drain_releases(now);
        if self.is_closed() {
            return work;
        }
        work += self.receive(now);
        if self.next_timer.is_due(now.nanos) {
            self.next_timer = now.nanos.plus_nanos(TIMER_INTERVAL_NS);
            work += self.on_timer(now);
        }
        work
    }

    // ---- requests of the application

    /// Notes a request and sends it if the driver is there; otherwise it waits for the driver.
    pub(super) fn add(
        &mut self,
        request: Request,
        target: Target,
        now: Now,
    ) -> Result<ResourceKey, RegistrationError> {
        if self.is_closed() {
            self.forgotten.push(target);
            return Err(RegistrationError::Closed);
        }
        let deadline = now.nanos + self.settings.driver_timeout;
        let key = self.registry.add(request, target, deadline);
        if let Err(error) = self.send_add(key) {
            self.release(key, false);
            return Err(error);
        }
        Ok(key)
    }

    /// The handle's target, once the driver has answered.
    pub(super) fn take_result(&mut self, key: ResourceKey) -> Option<Result<Target, RegistrationError>> {
        if self.is_closed() {
            return Some(Err(RegistrationError::Closed));
        }
        if let Some((target, error)) = self.registry.take_failed(key) {
            self.close_target(target);
            return Some(Err(error));
        }
        self.registry.take_result(key).map(|result| result.cloned())
    }

    pub(super) fn take_operation(&mut self, id: CorrelationId) -> Option<Result<i64, RegistrationError>> {
        self.registry.take_operation(id)
    }

    pub(super) fn forget_operation(&mut self, id: CorrelationId) {
        self.registry.forget_operation(id);
    }

    /// Sends a command whose answer somebody waits for. `make` gets the registration ids of the resource the command
    /// is about: this client's own and the original one.
    pub(super) fn operate<'c>(
        &mut self,
        key: Option<ResourceKey>,
        now: Now,
        effect: Effect,
        make: impl FnOnce(RegistrationId, RegistrationId) -> Command<'c>,
    ) -> Result<CorrelationId, RegistrationError> {
        if self.is_closed() {
            return Err(RegistrationError::Closed);
        }
        let (own, original) = match key {
            None => (RegistrationId(0), RegistrationId(0)),
            Some(key) => self.registration_ids(key)?,
        };
        let command = make(own, original);
        let link = self.link_mut().ok_or(RegistrationError::DriverLost)?;
        let id = link.next_correlation_id();
        link.send(id, &command)?;
        let deadline = now.nanos + self.settings.driver_timeout;
        self.registry.begin_operation(id, effect, deadline);
        Ok(id)
    }

    fn registration_ids(
        &self,
        key: ResourceKey,
    ) -> Result<(RegistrationId, RegistrationId), RegistrationError> {
        let entry = self.registry.get(key).ok_or(RegistrationError::Closed)?;
        let own = entry.registration_id().ok_or(RegistrationError::DriverLost)?;
        let original = match &entry.target {
            Target::Publication(shared) => lock(&shared.identity).original_registration_id,
            Target::Subscription(_) | Target::Counter(_) => own,
        };
        Ok((own, original))
    }

    /// Closes everything and takes leave of the driver.
    pub(super) fn close(&mut self, now: Now) {
        if self.is_closed() {
            return;
        }
        self.drain_releases(now);
        if let Some(link) = self.link_mut() {
            // The driver sees the client's end by its heartbeat, too, only later.
            let _ = link.send(CorrelationId(-1), &Command::ClientClose);
        }
        self.close_all();
        self.notify(ClientEvent::Closed);
    }

    // ---- handles given up

    fn drain_releases(&mut self, now: Now) -> usize {
        for count in 0..RELEASES_PER_CYCLE {
            match self.releases.pop() {
                None => return count,
                // Nobody comes by later to unmap it.
                Some(Release::Log(log)) if self.is_closed() => drop(log),
                Some(Release::Log(log)) => self.logs.linger(log, self.settings.resource_linger, now.nanos),
                Some(Release::Resource { key, revoke }) => self.release(key, revoke),
                Some(Release::CorruptImage(image, position)) => self.reject_image(&image, position),
                Some(Release::LappedImage(image)) => {
                    self.discard_image(&image);
                }
            }
        }
        RELEASES_PER_CYCLE
    }

    fn release(&mut self, key: ResourceKey, revoke: bool) {
        if let Some((target, removal)) = self.registry.release(key) {
            self.close_target(target);
            if let Some(removal) = removal {
                self.send_removal(removal, revoke);
            }
        }
    }

    /// Takes an image out of its subscription that can not be read any further; true if it was still there.
    fn discard_image(&mut self, image: &Arc<ImageShared>) -> bool {
        let info = image.info();
        let Some(Target::Subscription(shared)) = self
            .registry
            .by_registration(info.subscription_registration_id)
            .map(|entry| entry.target.clone())
        else {
            return false;
        };
        if !shared.discard(image) {
            return false;
        }
        self.notices
            .push(Notice::ImageUnavailable(shared, image.current_info()));
        true
    }

    /// Takes an image out whose stream nobody can read any further, and has the driver end it, so that the publisher
    /// does not wait for ever. The driver's answer changes nothing.
    fn reject_image(&mut self, image: &Arc<ImageShared>, position: i64) {
        if !self.discard_image(image) {
            return;
        }
        let image_correlation_id = image.info().correlation_id.into();
        if let Some(link) = self.link_mut() {
            let id = link.next_correlation_id();
            // A full ring is no reason to try for ever: the publisher then waits until the subscription is closed.
            let _ = link.send(
                id,
                &Command::RejectImage {
                    image_correlation_id,
                    position,
                    reason: "the stream can not be read any further".into(),
                },
            );
        }
    }

    fn send_removal(&mut self, removal: Removal, revoke: bool) {
        let registration_id = removal.registration_id;
        let command = match removal.kind {
            Kind::Publication => Command::RemovePublication {
                registration_id,
                revoke,
            },
            Kind::Subscription => Command::RemoveSubscription { registration_id },
            Kind::Counter => Command::RemoveCounter { registration_id },
            Kind::StaticCounter => return,
        };
        if let Some(link) = self.link_mut() {
            let id = link.next_correlation_id();
            if link.send(id, &command) == Err(RegistrationError::RingFull) {
                self.unsent_removals.push((removal, revoke));
            }
        }
    }

    fn send_unsent_removals(&mut self) {
        let mut left = core::mem::take(&mut self.unsent_removals).into_iter();
        for (removal, revoke) in left.by_ref() {
            self.send_removal(removal, revoke);
            if !self.unsent_removals.is_empty() {
                break;
            }
        }
        self.unsent_removals.extend(left);
    }

    fn close_target(&mut self, target: Target) {
        match &target {
            Target::Publication(shared) => shared.slot.close(),
            Target::Counter(shared) => shared.slot.close(),
            Target::Subscription(shared) => {
                for image in shared.close() {
                    self.notices
                        .push(Notice::ImageUnavailable(shared.clone(), image.current_info()));
                }
            }
        }
        self.forgotten.push(target);
    }

    fn notify(&self, event: ClientEvent) {
        self.notices.push(Notice::Event(event));
    }

    fn report(&self, error: ClientError) {
        self.notices.push(Notice::Error(error));
    }
}
