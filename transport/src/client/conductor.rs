//! The client's conductor: reads what the driver says, keeps the client alive, notices the driver's end and finds
//! its successor (shared-memory spec 12). One duty cycle per call, under the client's lock; handlers of the
//! application run later, from the queue of notices, when the lock is free.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crossbeam_queue::SegQueue;

use super::attachment::{Attachment, Identity, PublicationShared};
use super::counter_handle::CounterShared;
use super::error::{ClientError, RegistrationError};
use super::event::{ClientEvent, DriverLossReason, ImageInfo};
use super::image::ImageShared;
use super::link::{Attempt, Finder, Link};
use super::liveness::Verdict;
use super::logs::Logs;
use super::registry::{Effect, Failure, Kind, Match, Registry, Removal, Request, ResourceKey};
use super::settings::ClientSettings;
use super::slot::lock;
use super::subscription::SubscriptionShared;
use crate::agent::Doorbell;
use crate::control::response::{AvailableImage, PublicationReady, UnavailableImage};
use crate::control::{Command, ErrorCode, Response};
use crate::directory::Directory;
use crate::id::{ClientId, CorrelationId, CounterId, RegistrationId, StreamId};
use crate::log::LogBuffers;
use crate::time::{NanoTime, Now};

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

/// What a registry entry stands for.
#[derive(Clone)]
pub(super) enum Target {
    Publication(Arc<PublicationShared>),
    Subscription(Arc<SubscriptionShared>),
    Counter(Arc<CounterShared>),
}

/// What handles tell the conductor without waiting for it.
pub(super) enum Release {
    Resource { key: ResourceKey, revoke: bool },
    Log(Arc<LogBuffers>),
}

/// What the application is to be told, once no lock is held.
pub(super) enum Notice {
    Event(ClientEvent),
    Error(ClientError),
    ImageAvailable(Arc<SubscriptionShared>, ImageInfo),
    ImageUnavailable(Arc<SubscriptionShared>, ImageInfo),
    /// Nothing to tell: the target is dropped where no lock is held, because the application's handlers go with it,
    /// and with them whatever they hold, the client itself perhaps.
    Forget(#[expect(dead_code, reason = "held to be dropped")] Target),
}

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
    state: State,
    registry: Registry<Target>,
    logs: Logs,
    client_id: ClientId,
    next_timer: NanoTime,
    next_keepalive: NanoTime,
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
        link: Box<Link>,
        now: Now,
    ) -> Self {
        Conductor {
            settings,
            directory,
            releases,
            notices,
            client_id: link.client_id(),
            state: State::Attached(link),
            registry: Registry::new(),
            logs: Logs::default(),
            next_timer: now.nanos,
            next_keepalive: now.nanos,
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
        if self.is_closed() {
            return 0;
        }
        let mut work = self.drain_releases(now);
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
            return Err(RegistrationError::Closed);
        }
        let deadline = now.nanos + self.settings.driver_timeout;
        let key = self.registry.add(request, target, deadline);
        if let Err(error) = self.send_add(key) {
            let _ = self.registry.release(key);
            return Err(error);
        }
        Ok(key)
    }

    /// The handle's target, once the driver has answered.
    pub(super) fn take_result(&mut self, key: ResourceKey) -> Option<Result<Target, RegistrationError>> {
        if self.is_closed() {
            return Some(Err(RegistrationError::Closed));
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
                Some(Release::Log(log)) => self.logs.linger(log, self.settings.resource_linger, now.nanos),
                Some(Release::Resource { key, revoke }) => self.release(key, revoke),
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
        self.notices.push(Notice::Forget(target));
    }

    // ---- sending adds

    fn send_add(&mut self, key: ResourceKey) -> Result<(), RegistrationError> {
        let State::Attached(link) = &mut self.state else {
            return Ok(());
        };
        let Some(entry) = self.registry.get(key) else {
            return Ok(());
        };
        let command = match &entry.request {
            Request::Publication {
                channel,
                stream_id,
                exclusive: false,
            } => Command::AddPublication {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Publication {
                channel, stream_id, ..
            } => Command::AddExclusivePublication {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Subscription { channel, stream_id } => Command::AddSubscription {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Counter { type_id, key, label } => Command::AddCounter {
                type_id: *type_id,
                key,
                label: label.as_str().into(),
            },
            Request::StaticCounter {
                registration_id,
                type_id,
                key,
                label,
            } => Command::AddStaticCounter {
                registration_id: RegistrationId(*registration_id),
                type_id: *type_id,
                key,
                label: label.as_str().into(),
            },
        };
        let id = link.next_correlation_id();
        link.send(id, &command)?;
        self.registry.on_sent(key, id);
        Ok(())
    }

    /// Asks again for everything a lost driver had, and for what was asked while there was none.
    fn send_unsent(&mut self) {
        for key in self.registry.unsent() {
            match self.send_add(key) {
                Ok(()) => {}
                // Again at the next timer.
                Err(RegistrationError::RingFull) => return,
                Err(error) => {
                    let failure = self.registry.fail(key, error);
                    self.on_failure(failure);
                }
            }
        }
    }

    fn send_destinations(&mut self, key: ResourceKey) {
        let Ok((own, original)) = self.registration_ids(key) else {
            return;
        };
        let Some(entry) = self.registry.get(key) else {
            return;
        };
        let is_subscription = matches!(entry.target, Target::Subscription(_));
        let channels: Vec<String> = entry.destinations.iter().map(|d| d.channel.clone()).collect();
        for (index, channel) in channels.iter().enumerate() {
            let channel = channel.as_str().into();
            let command = if is_subscription {
                Command::AddReceiveDestination {
                    registration_id: own,
                    channel,
                }
            } else {
                Command::AddDestination {
                    registration_id: original,
                    channel,
                }
            };
            let Some(link) = self.link_mut() else { return };
            let id = link.next_correlation_id();
            if link.send(id, &command).is_ok() {
                self.registry.renumber_destination(key, index, id.into());
            }
        }
    }

    // ---- what the driver says

    fn receive(&mut self, now: Now) -> usize {
        let mut bytes = core::mem::take(&mut self.received);
        let mut count = 0;
        while count < MESSAGES_PER_CYCLE {
            let Some(link) = self.link_mut() else { break };
            match link.receive(&mut bytes) {
                Ok(None) => break,
                Ok(Some(type_id)) => {
                    count += 1;
                    // What can not be read, or is of a type that is not known, is not for this version.
                    if let Ok(response) = Response::decode(type_id, &bytes) {
                        self.on_response(&response, now);
                    }
                }
                Err(_) if link.is_damaged() => {
                    self.on_driver_lost(DriverLossReason::CncDamaged, now);
                    break;
                }
                Err(_) => {
                    self.terminate(ClientError::EventsLost, None);
                    break;
                }
            }
        }
        self.received = bytes;
        count
    }

    fn on_response(&mut self, response: &Response<'_>, now: Now) {
        match *response {
            Response::Error {
                correlation_id,
                error_code,
                message,
            } => self.on_error(correlation_id, error_code, message.to_string_lossy()),
            Response::AvailableImage(ref image) => self.on_available_image(image),
            Response::UnavailableImage(ref image) => self.on_unavailable_image(image),
            Response::PublicationReady(ref ready) | Response::ExclusivePublicationReady(ref ready) => {
                self.on_publication_ready(ready);
            }
            Response::SubscriptionReady {
                correlation_id,
                channel_status_counter_id,
            } => self.on_subscription_ready(correlation_id, channel_status_counter_id),
            Response::CounterReady {
                registration_id,
                counter_id,
            } => self.on_counter_ready(registration_id, counter_id),
            Response::StaticCounter {
                correlation_id,
                counter_id,
            } => self.on_own_counter(correlation_id, counter_id),
            Response::UnavailableCounter {
                registration_id,
                counter_id,
            } => self.notify(ClientEvent::CounterUnavailable {
                registration_id,
                counter_id,
            }),
            Response::ClientTimeout { client_id } => {
                if client_id == self.client_id {
                    self.on_timed_out(now);
                }
            }
            Response::OperationSuccess { correlation_id } => {
                self.registry.on_operation_done(correlation_id, 0)
            }
            Response::NextAvailableSessionId {
                correlation_id,
                session_id,
            } => self
                .registry
                .on_operation_done(correlation_id, i64::from(session_id.get())),
            Response::PublicationError(ref error) => {
                let ours = self.registry.entries().any(|entry| match &entry.target {
                    Target::Publication(shared) => {
                        lock(&shared.identity).original_registration_id == error.registration_id
                    }
                    Target::Subscription(_) | Target::Counter(_) => false,
                });
                if ours {
                    self.report(ClientError::PublicationError {
                        registration_id: error.registration_id,
                        code: error.error_code,
                        message: error.message.to_string_lossy(),
                    });
                }
            }
        }
    }

    fn on_error(&mut self, correlation_id: CorrelationId, code: ErrorCode, message: String) {
        if code == ErrorCode::ChannelEndpointError {
            // Drivers of old put the id of a channel status counter there, which says nothing about a request.
            let status = CounterId(i32::try_from(correlation_id.get()).unwrap_or(-1));
            if self.uses_channel(status) {
                self.report(ClientError::ChannelError { status, message });
            }
            return;
        }
        let failure = self.registry.on_error(correlation_id, code, message);
        self.on_failure(failure);
    }

    fn uses_channel(&self, status: CounterId) -> bool {
        status != CounterId::NONE
            && self.registry.entries().any(|entry| match &entry.target {
                Target::Publication(shared) => lock(&shared.identity).status == status,
                Target::Subscription(shared) => shared.status() == status,
                Target::Counter(_) => false,
            })
    }

    /// A handle in use has lost its resource for good.
    fn on_failure(&mut self, failure: Failure) {
        let Failure::InUse(key) = failure else { return };
        let Some(entry) = self.registry.get(key) else {
            return;
        };
        let (channel, stream_id) = entry.request.describe();
        if let Some((target, error)) = self.registry.take_failed(key) {
            self.close_target(target);
            self.report(ClientError::ReattachFailed {
                channel,
                stream_id,
                error,
            });
        }
    }

    fn on_publication_ready(&mut self, ready: &PublicationReady<'_>) {
        let key = match self.registry.on_ready(ready.correlation_id) {
            Match::Unknown => return,
            Match::Abandoned(removal) => return self.send_removal(removal, false),
            Match::Resource(key) => key,
        };
        let Some(Target::Publication(shared)) = self.registry.get(key).map(|entry| entry.target.clone())
        else {
            return;
        };
        match self.open_publication(ready) {
            Ok(attachment) => {
                *lock(&shared.identity) = attachment.identity;
                self.registry.complete(key);
                shared.slot.set(Some(Arc::new(attachment)));
                self.send_destinations(key);
            }
            Err(reason) => {
                let removal = Removal {
                    kind: Kind::Publication,
                    registration_id: ready.correlation_id.into(),
                };
                self.send_removal(removal, true);
                let failure = self.registry.fail(key, RegistrationError::Unusable(reason));
                self.on_failure(failure);
            }
        }
    }

    fn open_publication(&mut self, ready: &PublicationReady<'_>) -> Result<Attachment, String> {
        let path = ready.log_path.to_str().map_err(|error| error.to_string())?;
        let log = self.logs.open(
            &*self.directory,
            ready.original_registration_id,
            path,
            self.settings.pre_touch,
        )?;
        if log.session_id() != ready.session_id || log.stream_id() != ready.stream_id {
            return Err(format!(
                "{path} is the log of session {} stream {}",
                log.session_id(),
                log.stream_id()
            ));
        }
        let link = self.link().ok_or("the driver is away")?;
        let limit = link
            .counters()
            .counter(ready.position_limit_counter_id)
            .ok_or_else(|| format!("no counter {}", ready.position_limit_counter_id))?;
        Ok(Attachment {
            log,
            limit,
            client_id: self.client_id,
            identity: Identity {
                registration_id: ready.correlation_id.into(),
                original_registration_id: ready.original_registration_id,
                session_id: ready.session_id,
                status: ready.channel_status_counter_id,
                limit: ready.position_limit_counter_id,
            },
            extension: link.extension().cloned(),
            doorbell: link.doorbell(),
        })
    }

    fn on_subscription_ready(&mut self, correlation_id: CorrelationId, status: CounterId) {
        match self.registry.on_ready(correlation_id) {
            Match::Unknown => {}
            Match::Abandoned(removal) => self.send_removal(removal, false),
            Match::Resource(key) => {
                if let Some(Target::Subscription(shared)) = self.registry.get(key).map(|entry| &entry.target)
                {
                    shared.set_ready(correlation_id.into(), status);
                    self.registry.complete(key);
                    self.send_destinations(key);
                }
            }
        }
    }

    fn on_counter_ready(&mut self, registration_id: RegistrationId, counter_id: CounterId) {
        if registration_id.get() == self.client_id.get() {
            let settings = self.settings.clone();
            if let Some(link) = self.link_mut() {
                link.adopt_heartbeat(counter_id, &settings);
            }
        } else {
            self.on_own_counter(registration_id.into(), counter_id);
        }
        self.notify(ClientEvent::CounterAvailable {
            registration_id,
            counter_id,
        });
    }

    /// Completes the add of a counter, if it is one of this client's.
    fn on_own_counter(&mut self, correlation_id: CorrelationId, counter_id: CounterId) {
        let key = match self.registry.on_ready(correlation_id) {
            Match::Unknown => return,
            Match::Abandoned(removal) => return self.send_removal(removal, false),
            Match::Resource(key) => key,
        };
        let Some(Target::Counter(shared)) = self.registry.get(key).map(|entry| entry.target.clone()) else {
            return;
        };
        let counter = self.link().and_then(|link| link.counters().counter(counter_id));
        let Some(counter) = counter else {
            let failure = self.registry.fail(
                key,
                RegistrationError::Unusable(format!("no counter {counter_id}")),
            );
            return self.on_failure(failure);
        };
        if let Some(value) = lock(&shared.carried).take() {
            counter.set_release(value);
        }
        *lock(&shared.identity) = (RegistrationId(counter.registration_id()), counter_id);
        self.registry.complete(key);
        shared.slot.set(Some(Arc::new(counter)));
    }

    fn on_available_image(&mut self, image: &AvailableImage<'_>) {
        let subscription_id = image.subscription_registration_id;
        let Some(Target::Subscription(shared)) = self
            .registry
            .by_registration(subscription_id)
            .map(|entry| entry.target.clone())
        else {
            return;
        };
        let image_id: RegistrationId = image.image_correlation_id.into();
        if shared.has_image(image_id) {
            return;
        }
        match self.open_image(image) {
            Ok(opened) => {
                let info = opened.info().clone();
                shared.add_image(Arc::new(opened));
                self.notices.push(Notice::ImageAvailable(shared, info));
            }
            Err(reason) => self.report(ClientError::ImageUnusable {
                image: image_id,
                reason,
            }),
        }
    }

    fn open_image(&mut self, image: &AvailableImage<'_>) -> Result<ImageShared, String> {
        let path = image.log_path.to_str().map_err(|error| error.to_string())?;
        let id: RegistrationId = image.image_correlation_id.into();
        let log = self
            .logs
            .open(&*self.directory, id, path, self.settings.pre_touch)?;
        let link = self.link().ok_or("the driver is away")?;
        let position = link
            .counters()
            .counter(image.subscriber_position_counter_id)
            .ok_or_else(|| format!("no counter {}", image.subscriber_position_counter_id))?;
        let join_position = position.get_acquire();
        let info = ImageInfo {
            correlation_id: id,
            subscription_registration_id: image.subscription_registration_id,
            session_id: image.session_id,
            stream_id: image.stream_id,
            source_identity: image.source_identity.to_string_lossy(),
            join_position,
            position: join_position,
        };
        ImageShared::new(info, log, position)
    }

    fn on_unavailable_image(&mut self, image: &UnavailableImage<'_>) {
        let Some(Target::Subscription(shared)) = self
            .registry
            .by_registration(image.subscription_registration_id)
            .map(|entry| entry.target.clone())
        else {
            return;
        };
        if let Some(removed) = shared.remove_image(image.image_correlation_id.into()) {
            self.notices
                .push(Notice::ImageUnavailable(shared, removed.current_info()));
        }
    }

    // ---- time

    fn on_timer(&mut self, now: Now) -> usize {
        self.registry.expire(now.nanos, self.settings.driver_timeout);
        let mut work = self.logs.expire(now.nanos);
        if matches!(self.state, State::Attached(_)) {
            self.check_driver(now);
        } else {
            work += self.find_successor(now);
        }
        work
    }

    fn check_driver(&mut self, now: Now) {
        let Some(link) = self.link_mut() else { return };
        if link.is_damaged() {
            return self.on_driver_lost(DriverLossReason::CncDamaged, now);
        }
        let verdict = link.look(now);
        if verdict == Verdict::Fine && self.is_replaced(now) {
            return self.on_driver_lost(DriverLossReason::Replaced, now);
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Stalled => self.notify(ClientEvent::DriverStalled),
            Verdict::Resumed => self.notify(ClientEvent::DriverResumed),
            Verdict::Lost(reason) => return self.on_driver_lost(reason, now),
        }
        self.keep_alive(now);
        if matches!(self.state, State::Attached(_)) {
            self.send_unsent_removals();
            self.send_unsent();
            if self.next_damage_check.is_due(now.nanos) {
                self.next_damage_check = now.nanos.plus_nanos(DAMAGE_CHECK_INTERVAL_NS);
                self.close_damaged();
            }
        }
    }

    /// Whether another driver has taken the directory over. Only asked where the process of this one can not be
    /// watched: its death is known sooner.
    fn is_replaced(&mut self, now: Now) -> bool {
        if !self.next_replaced_check.is_due(now.nanos) {
            return false;
        }
        self.next_replaced_check = now.nanos.plus_nanos(REPLACED_CHECK_INTERVAL_NS);
        match &self.state {
            State::Attached(link) => !link.is_watched() && link.is_replaced(&*self.directory),
            State::Lost { .. } | State::Closed => false,
        }
    }

    fn keep_alive(&mut self, now: Now) {
        let settings = self.settings.clone();
        let due = self.next_keepalive.is_due(now.nanos);
        let Some(link) = self.link_mut() else { return };
        let kept = if due {
            link.keep_alive(&settings, now)
        } else {
            link.check_heartbeat()
        };
        let next = now.nanos + link.keepalive_interval(&settings);
        if due {
            self.next_keepalive = next;
        }
        if kept.is_err() {
            self.on_timed_out(now);
        }
    }

    /// Logs whose file was truncated under their users.
    fn close_damaged(&mut self) {
        let targets: Vec<Target> = self
            .registry
            .entries()
            .map(|entry| entry.target.clone())
            .collect();
        for target in targets {
            match target {
                Target::Publication(shared) => {
                    let (_, attachment) = shared.slot.fetch();
                    if let Some(attachment) = attachment
                        && attachment.log.region().is_damaged()
                    {
                        shared.slot.close();
                        self.report(ClientError::LogDamaged(
                            attachment.identity.original_registration_id,
                        ));
                    }
                }
                Target::Subscription(shared) => {
                    for image in shared.close_damaged() {
                        self.report(ClientError::LogDamaged(image.info().correlation_id));
                        self.notices
                            .push(Notice::ImageUnavailable(shared.clone(), image.current_info()));
                    }
                }
                Target::Counter(_) => {}
            }
        }
    }

    // ---- the driver's end

    fn on_driver_lost(&mut self, reason: DriverLossReason, now: Now) {
        let error = match reason {
            DriverLossReason::Died => ClientError::DriverDied,
            DriverLossReason::ShutDown => ClientError::DriverShutDown,
            DriverLossReason::Silent => ClientError::DriverSilent(self.settings.driver_timeout),
            DriverLossReason::CncDamaged => ClientError::CncDamaged,
            DriverLossReason::Replaced => ClientError::DriverReplaced,
        };
        self.notify(ClientEvent::DriverLost { reason });
        self.report(error);
        if !self.settings.reattach {
            self.close_all();
            self.notify(ClientEvent::Closed);
            return;
        }
        let targets: Vec<Target> = self
            .registry
            .entries()
            .map(|entry| entry.target.clone())
            .collect();
        for target in targets {
            self.detach(&target);
        }
        self.registry.on_driver_lost();
        self.unsent_removals.clear();
        self.logs.forget();
        let finder = self.link().map_or_else(Finder::new, Finder::after);
        self.state = State::Lost {
            finder,
            next_attempt: now.nanos,
        };
    }

    fn detach(&mut self, target: &Target) {
        match target {
            Target::Publication(shared) => shared.slot.set(None),
            Target::Counter(shared) => {
                if let (_, Some(counter)) = shared.slot.fetch() {
                    *lock(&shared.carried) = Some(counter.get_acquire());
                }
                shared.slot.set(None);
            }
            Target::Subscription(shared) => {
                for image in shared.end_images() {
                    self.notices
                        .push(Notice::ImageUnavailable(shared.clone(), image.current_info()));
                }
            }
        }
    }

    fn find_successor(&mut self, now: Now) -> usize {
        let State::Lost { finder, next_attempt } = &mut self.state else {
            return 0;
        };
        if !next_attempt.is_due(now.nanos) {
            return 0;
        }
        *next_attempt = now.nanos.plus_nanos(FIND_INTERVAL_NS);
        match finder.attempt(&*self.directory, &self.settings, now) {
            Attempt::NotYet(_) => 0,
            Attempt::Hopeless(error) => {
                self.terminate(error, None);
                1
            }
            Attempt::Found(link) => {
                self.client_id = link.client_id();
                self.state = State::Attached(link);
                self.next_keepalive = now.nanos;
                self.send_unsent();
                let client_id = self.client_id;
                self.notify(ClientEvent::Reattached { client_id });
                1
            }
        }
    }

    fn on_timed_out(&mut self, now: Now) {
        if self.link().is_some_and(Link::is_damaged) {
            // A truncated file reads zero, which only looks like a heartbeat that was taken away.
            return self.on_driver_lost(DriverLossReason::CncDamaged, now);
        }
        let client_id = self.client_id;
        self.terminate(
            ClientError::ClientTimedOut(client_id),
            Some(ClientEvent::ClientTimedOut { client_id }),
        );
    }

    /// Ends the client for good because of an error.
    fn terminate(&mut self, error: ClientError, event: Option<ClientEvent>) {
        if self.is_closed() {
            return;
        }
        self.close_all();
        if let Some(event) = event {
            self.notify(event);
        }
        self.report(error);
        self.notify(ClientEvent::Closed);
    }

    fn close_all(&mut self) {
        for target in self.registry.clear() {
            self.close_target(target);
        }
        self.state = State::Closed;
    }

    fn notify(&self, event: ClientEvent) {
        self.notices.push(Notice::Event(event));
    }

    fn report(&self, error: ClientError) {
        self.notices.push(Notice::Error(error));
    }
}

impl Link {
    /// The bell that wakes the driver.
    fn doorbell(&self) -> Option<Doorbell> {
        self.extension().map(crate::cnc::Extension::doorbell)
    }
}
