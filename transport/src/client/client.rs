//! The client: what an application connects with, and what its handles share.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use crossbeam_queue::SegQueue;

use super::attachment::PublicationShared;
use super::client_core::{Core, Inner, start_runner};
use super::conductor::{Conductor, Notice, Release, Target};
use super::counter_handle::{CounterShared, UserCounter};
use super::error::{ClientError, RegistrationError};
use super::event::ImageHandlers;
use super::exclusive_publication::ExclusivePublication;
use super::image::ImageShared;
use super::link::{Attempt, Finder};
use super::pending::{Pending, PendingOperation, Resource, private};
use super::publication::Publication;
use super::registry::{Effect, Request, ResourceKey};
use super::settings::ClientSettings;
use super::slot::lock;
use super::status::{self, ChannelStatus};
use super::subscription::{Subscription, SubscriptionShared};
use crate::agent::Doorbell;
use crate::agent::idle::{Adaptive, IdleStrategy, Sleeping};
use crate::control::Command;
use crate::control::command::{MAX_COUNTER_KEY_LENGTH, MAX_COUNTER_LABEL_LENGTH, MAX_REJECT_REASON_LENGTH};
use crate::counters::CountersReader;
use crate::directory::{Directory, FsDirectory};
use crate::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId};
use crate::log::LogBuffers;
use crate::memory::View;
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use crate::time::{Clock, NanoTime, Now, SystemClock};

/// Longest channel URI, bytes (shared-memory spec 0.3).
const CHANNEL_LENGTH_MAX: usize = 4095;
/// How often a driver is looked for at the start.
const FIND_INTERVAL: core::time::Duration = core::time::Duration::from_millis(2);
/// Most time between two looks of a waiting call.
const WAIT_MAX: core::time::Duration = core::time::Duration::from_millis(1);

/// How the driver does, as far as the client can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// It lives and moves.
    Active,
    /// Its process lives, but it does not move.
    Stalled,
    /// It is gone; its successor is waited for.
    Lost,
    /// The client is closed.
    Closed,
}

/// A client of a media driver. Cloning is cheap; handles keep the client open, too, until the last of them and the
/// last clone are gone or [`Client::close`] is called.
#[derive(Clone)]
pub struct Client(Arc<Core>);

/// Ties a handle to its resource.
pub(super) struct Handle {
    client: Client,
    key: ResourceKey,
}

impl Handle {
    pub(super) fn new(client: Client, key: ResourceKey) -> Self {
        Handle { client, key }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn key(&self) -> ResourceKey {
        self.key
    }

    pub(super) fn revoke(&self) {
        self.client.release(self.key, true);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.client.release(self.key, false);
    }
}

impl Client {
    /// Connects to the driver in the directory of the settings, waiting for it up to the driver timeout.
    ///
    /// # Errors
    /// [`ClientError::DriverTimeout`] if no live driver came up in time, [`ClientError::CncUnusable`] if what is there
    /// is of another version.
    pub fn connect(settings: ClientSettings) -> Result<Client, ClientError> {
        let directory = Arc::new(FsDirectory::new(settings.dir.clone()));
        Self::connect_with(settings, directory, Arc::new(SystemClock))
    }

    /// Connects through any directory and clock: in-memory ones for tests and simulation. With a clock that does not
    /// pass by itself ([`Clock::passes`]) a driver that is not there at once is not waited for, and of the other calls
    /// only those can be used that do not wait.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(
        settings: ClientSettings,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
    ) -> Result<Client, ClientError> {
        let settings = Arc::new(check(settings)?);
        let link = find_driver(&settings, &*directory, &*clock)?;
        let releases = Arc::new(SegQueue::new());
        let notices = Arc::new(SegQueue::new());
        let forgotten = Arc::new(SegQueue::new());
        let now = clock.now();
        let conductor = Conductor::new(
            settings.clone(),
            directory,
            releases.clone(),
            notices.clone(),
            forgotten.clone(),
            link,
            now,
        );
        let inner = Arc::new(Inner {
            clock,
            conductor: Mutex::new(conductor),
            releases,
            notices,
            forgotten,
            dispatching: Mutex::new(()),
            next_deadline: AtomicI64::new(now.nanos.0),
            handle_count: AtomicU64::new(0),
            settings,
        });
        let runner = if inner.settings.invoker {
            None
        } else {
            Some(start_runner(&inner)?)
        };
        Ok(Client(Arc::new(Core {
            inner,
            runner: Mutex::new(runner),
        })))
    }

    // ---- resources

    /// Adds a publication that may share its log with others of the same channel and stream, and waits until it can
    /// be used.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, or the client is closed.
    pub fn add_publication(&self, channel: &str, stream_id: i32) -> Result<Publication, RegistrationError> {
        self.async_add_publication(channel, stream_id)?.wait()
    }

    /// As [`Client::add_publication`], without waiting.
    ///
    /// # Errors
    /// [`RegistrationError`]: the command could not be sent.
    pub fn async_add_publication(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<Pending<Publication>, RegistrationError> {
        self.add_any_publication(channel, stream_id, false)
    }

    /// Adds a publication with a log of its own and a single writer, and waits until it can be used.
    ///
    /// # Errors
    /// As [`Client::add_publication`].
    pub fn add_exclusive_publication(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<ExclusivePublication, RegistrationError> {
        self.async_add_exclusive_publication(channel, stream_id)?.wait()
    }

    /// As [`Client::add_exclusive_publication`], without waiting.
    ///
    /// # Errors
    /// [`RegistrationError`]: the command could not be sent.
    pub fn async_add_exclusive_publication(
        &self,
        channel: &str,
        stream_id: i32,
    ) -> Result<Pending<ExclusivePublication>, RegistrationError> {
        self.add_any_publication(channel, stream_id, true)
    }

    fn add_any_publication<R: Resource>(
        &self,
        channel: &str,
        stream_id: i32,
        exclusive: bool,
    ) -> Result<Pending<R>, RegistrationError> {
        check_channel(channel)?;
        let request = Request::Publication {
            channel: channel.to_owned(),
            stream_id,
            exclusive,
        };
        let target = Target::Publication(Arc::new(PublicationShared::new(channel, stream_id)));
        self.add(request, target)
    }

    /// Adds a subscription and waits until it can be used.
    ///
    /// # Errors
    /// As [`Client::add_publication`].
    pub fn add_subscription(&self, channel: &str, stream_id: i32) -> Result<Subscription, RegistrationError> {
        self.add_subscription_with(channel, stream_id, ImageHandlers::default())
    }

    /// As [`Client::add_subscription`], with handlers that are told when images come and go.
    ///
    /// # Errors
    /// As [`Client::add_publication`].
    pub fn add_subscription_with(
        &self,
        channel: &str,
        stream_id: i32,
        handlers: ImageHandlers,
    ) -> Result<Subscription, RegistrationError> {
        self.async_add_subscription(channel, stream_id, handlers)?.wait()
    }

    /// As [`Client::add_subscription_with`], without waiting.
    ///
    /// # Errors
    /// [`RegistrationError`]: the command could not be sent.
    pub fn async_add_subscription(
        &self,
        channel: &str,
        stream_id: i32,
        handlers: ImageHandlers,
    ) -> Result<Pending<Subscription>, RegistrationError> {
        check_channel(channel)?;
        let request = Request::Subscription {
            channel: channel.to_owned(),
            stream_id,
        };
        let shared = SubscriptionShared::new(channel, stream_id, handlers);
        self.add(request, Target::Subscription(Arc::new(shared)))
    }

    /// Adds a counter of this client and waits until it can be used. Applications use types from 1000 on; the key
    /// has at most 112 bytes, the label at most 380.
    ///
    /// # Errors
    /// As [`Client::add_publication`]; [`RegistrationError::Argument`] for a key or label that is too long.
    pub fn add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
    ) -> Result<UserCounter, RegistrationError> {
        self.async_add_counter(type_id, key, label)?.wait()
    }

    /// As [`Client::add_counter`], without waiting.
    ///
    /// # Errors
    /// [`RegistrationError`]: an argument is too long, or the command could not be sent.
    pub fn async_add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
    ) -> Result<Pending<UserCounter>, RegistrationError> {
        check_counter(key, label)?;
        let request = Request::Counter {
            type_id,
            key: key.to_vec(),
            label: label.to_owned(),
        };
        self.add(request, Target::Counter(Arc::new(CounterShared::new())))
    }

    /// Finds the counter of this type and registration id, or adds it; it lives as long as the driver does.
    ///
    /// # Errors
    /// As [`Client::add_counter`].
    pub fn add_static_counter(
        &self,
        type_id: i32,
        registration_id: RegistrationId,
        key: &[u8],
        label: &str,
    ) -> Result<UserCounter, RegistrationError> {
        self.async_add_static_counter(type_id, registration_id, key, label)?
            .wait()
    }

    /// As [`Client::add_static_counter`], without waiting.
    ///
    /// # Errors
    /// As [`Client::async_add_counter`].
    pub fn async_add_static_counter(
        &self,
        type_id: i32,
        registration_id: RegistrationId,
        key: &[u8],
        label: &str,
    ) -> Result<Pending<UserCounter>, RegistrationError> {
        check_counter(key, label)?;
        let request = Request::StaticCounter {
            registration_id: registration_id.get(),
            type_id,
            key: key.to_vec(),
            label: label.to_owned(),
        };
        self.add(request, Target::Counter(Arc::new(CounterShared::new())))
    }

    fn add<R: Resource>(&self, request: Request, target: Target) -> Result<Pending<R>, RegistrationError> {
        let key = {
            let mut conductor = self.lock();
            conductor.add(request, target, self.now())
        };
        match key {
            Ok(key) => Ok(Pending::new(self.clone(), key)),
            Err(error) => {
                // What a refused target holds is dropped here, where no lock is held.
                self.0.inner.forget();
                Err(error)
            }
        }
    }

    /// A session id that no publication of this stream uses at the moment. It is not reserved.
    ///
    /// # Errors
    /// [`RegistrationError`]: late, or the driver is away.
    pub fn next_session_id(&self, stream_id: i32) -> Result<SessionId, RegistrationError> {
        if self.control_protocol_version() < NEXT_SESSION_ID_VERSION {
            return Ok(self.random_session_id());
        }
        let stream_id = StreamId(stream_id);
        let pending = self.operate(None, Effect::None, |_, _| Command::NextAvailableSessionId {
            stream_id,
        })?;
        pending.wait_value().map(|value| SessionId(value as i32))
    }

    /// A driver of old can not be asked. Ids that its sequence hands out next are unlikely to be met.
    fn random_session_id(&self) -> SessionId {
        let now = self.now();
        let mixed = (now.nanos.0 ^ self.client_id().get().rotate_left(40))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
        SessionId((mixed >> 32) as i32)
    }

    /// What counter 43 says, 0 without it (shared-memory spec 5.7).
    fn control_protocol_version(&self) -> i64 {
        self.counters()
            .and_then(|counters| counters.record(CounterId(CONTROL_PROTOCOL_COUNTER)))
            .filter(|record| {
                record.type_id == 0 && record.registration_id == i64::from(CONTROL_PROTOCOL_COUNTER)
            })
            .map_or(0, |record| record.value)
    }

    // ---- facts

    /// Reads the counters of the driver and of all clients; `None` while the driver is away.
    #[must_use]
    pub fn counters(&self) -> Option<CountersReader<View>> {
        self.lock().link().map(|link| link.counters().clone())
    }

    /// This client's id under the present driver.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.lock().client_id()
    }

    /// The directory of the driver.
    #[must_use]
    pub fn dir(&self) -> &str {
        &self.0.inner.settings.dir
    }

    /// How the driver does.
    #[must_use]
    pub fn driver_state(&self) -> DriverState {
        let conductor = self.lock();
        match conductor.link() {
            _ if conductor.is_closed() => DriverState::Closed,
            None => DriverState::Lost,
            Some(link) if link.is_stalled() => DriverState::Stalled,
            Some(_) => DriverState::Active,
        }
    }

    /// Whether the client is closed, by the application or by an error.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// One duty cycle of the conductor, then the handlers it has work for; returns the work done. For clients with
    /// the `invoker` setting; harmless for others.
    pub fn invoke(&self) -> usize {
        let work = self.0.inner.cycle(self.now());
        self.0.inner.dispatch();
        work
    }

    /// When [`Client::invoke`] has something to do if the driver does not say anything before.
    #[must_use]
    pub fn next_deadline(&self) -> NanoTime {
        NanoTime(self.0.inner.next_deadline.load(Ordering::Relaxed))
    }

    /// Closes every handle and takes leave of the driver. Further calls answer `Closed`.
    pub fn close(&self) {
        self.0.close();
    }

    // ---- for handles

    pub(super) fn channel_status(&self, id: CounterId) -> ChannelStatus {
        self.counters().map_or(ChannelStatus::Initialising, |counters| {
            ChannelStatus::of(&counters, id)
        })
    }

    pub(super) fn local_addresses(&self, id: CounterId) -> Vec<String> {
        self.counters()
            .map_or_else(Vec::new, |counters| status::local_addresses(&counters, id))
    }

    /// Gives a resource up. Never waits for anybody: if the conductor is busy it finds the note later. Calls no
    /// handler of the application, whose thread may hold whatever locks it drops its handles under.
    pub(super) fn release(&self, key: ResourceKey, revoke: bool) {
        self.0.inner.releases.push(Release::Resource { key, revoke });
        self.0.inner.try_cycle();
        self.0.inner.forget();
    }

    /// Has the conductor take out an image whose stream is corrupt at `position`, for every reader.
    pub(super) fn discard_corrupt(&self, image: Arc<ImageShared>, position: i64) {
        self.0.inner.releases.push(Release::CorruptImage(image, position));
    }

    /// Has the conductor take out an image whose reader was left behind.
    pub(super) fn discard_lapped(&self, image: Arc<ImageShared>) {
        self.0.inner.releases.push(Release::LappedImage(image));
    }

    /// Gives a mapped log back, to be unmapped later.
    pub(super) fn linger(&self, log: Arc<LogBuffers>) {
        self.0.inner.releases.push(Release::Log(log));
    }

    pub(super) fn report(&self, error: ClientError) {
        self.0.inner.notices.push(Notice::Error(error));
    }

    /// A tag for a handle's claims: unique among the handles of all clients of a driver, never 0 or -1.
    pub(super) fn next_owner_tag(&self, client_id: ClientId) -> i64 {
        loop {
            let count = self.0.inner.handle_count.fetch_add(1, Ordering::Relaxed) + 1;
            let tag = (client_id.get() << 24) ^ count.cast_signed();
            if tag != 0 && tag != -1 {
                return tag;
            }
        }
    }

    pub(super) fn poll_resource<R: Resource>(
        &self,
        key: ResourceKey,
    ) -> Option<Result<R, RegistrationError>> {
        let result = {
            let mut conductor = self.lock();
            conductor.do_work(self.now());
            conductor.take_result(key)
        };
        self.0.inner.dispatch();
        let handle = result?.and_then(|target| {
            R::from_target(self, private::Key(key), &private::TargetRef(&target))
                .ok_or(RegistrationError::Closed)
        });
        Some(handle)
    }

    pub(super) fn poll_operation(&self, id: CorrelationId) -> Option<Result<i64, RegistrationError>> {
        let result = {
            let mut conductor = self.lock();
            conductor.do_work(self.now());
            conductor.take_operation(id)
        };
        self.0.inner.dispatch();
        result
    }

    pub(super) fn forget_operation(&self, id: CorrelationId) {
        self.lock().forget_operation(id);
    }

    /// Polls until there is a result. What is waited for has a deadline, so there will be one.
    pub(super) fn wait_for<T>(&self, mut poll: impl FnMut() -> Option<T>) -> T {
        let mut idle = Adaptive::new(Doorbell::heap(), WAIT_MAX);
        loop {
            if let Some(result) = poll() {
                return result;
            }
            let now = self.now().nanos;
            idle.idle(0, NanoTime::never_after(now), now);
        }
    }

    pub(super) fn add_destination(
        &self,
        key: ResourceKey,
        uri: &str,
    ) -> Result<PendingOperation, RegistrationError> {
        check_channel(uri)?;
        let channel = uri.to_owned();
        self.operate(
            Some(key),
            Effect::DestinationAdded { key, channel },
            |_, registration_id| Command::AddDestination {
                registration_id,
                channel: uri.into(),
            },
        )
    }

    pub(super) fn remove_destination(
        &self,
        key: ResourceKey,
        uri: &str,
    ) -> Result<PendingOperation, RegistrationError> {
        check_channel(uri)?;
        let channel = uri.to_owned();
        self.operate(
            Some(key),
            Effect::DestinationRemoved { key, channel },
            |_, registration_id| Command::RemoveDestination {
                registration_id,
                channel: uri.into(),
            },
        )
    }

    pub(super) fn remove_destination_by_id(
        &self,
        key: ResourceKey,
        destination: RegistrationId,
    ) -> Result<PendingOperation, RegistrationError> {
        let effect = Effect::DestinationRemovedById {
            key,
            registration_id: destination,
        };
        self.operate(Some(key), effect, |_, registration_id| {
            Command::RemoveDestinationById {
                registration_id,
                destination_registration_id: destination,
            }
        })
    }

    pub(super) fn add_receive_destination(
        &self,
        key: ResourceKey,
        uri: &str,
    ) -> Result<PendingOperation, RegistrationError> {
        check_channel(uri)?;
        let channel = uri.to_owned();
        self.operate(
            Some(key),
            Effect::DestinationAdded { key, channel },
            |registration_id, _| Command::AddReceiveDestination {
                registration_id,
                channel: uri.into(),
            },
        )
    }

    pub(super) fn remove_receive_destination(
        &self,
        key: ResourceKey,
        uri: &str,
    ) -> Result<(), RegistrationError> {
        check_channel(uri)?;
        let channel = uri.to_owned();
        self.operate(
            Some(key),
            Effect::DestinationRemoved { key, channel },
            |registration_id, _| Command::RemoveReceiveDestination {
                registration_id,
                channel: uri.into(),
            },
        )?
        .wait()
        .map(|_| ())
    }

    pub(super) fn reject_image(
        &self,
        image: RegistrationId,
        position: i64,
        reason: &str,
    ) -> Result<(), RegistrationError> {
        if reason.len() > MAX_REJECT_REASON_LENGTH {
            return Err(RegistrationError::Argument {
                name: "reason",
                reason: format!("{} bytes; at most {MAX_REJECT_REASON_LENGTH}", reason.len()),
            });
        }
        self.operate(None, Effect::None, |_, _| Command::RejectImage {
            image_correlation_id: image.into(),
            position,
            reason: reason.into(),
        })?
        .wait()
        .map(|_| ())
    }

    fn operate<'c>(
        &self,
        key: Option<ResourceKey>,
        effect: Effect,
        make: impl FnOnce(RegistrationId, RegistrationId) -> Command<'c>,
    ) -> Result<PendingOperation, RegistrationError> {
        let id = {
            let mut conductor = self.lock();
            conductor.operate(key, self.now(), effect, make)?
        };
        Ok(PendingOperation::new(self.clone(), id))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Conductor> {
        lock(&self.0.inner.conductor)
    }

    fn now(&self) -> Now {
        self.0.inner.clock.now()
    }
}

/// Asks the driver of a directory to stop. The driver's validator sees the token; there is never an answer.
///
/// # Errors
/// [`ClientError`] if there is no live driver, [`ClientError::Closed`] if it does not take commands.
pub fn request_termination(dir: &str, token: &[u8]) -> Result<(), ClientError> {
    let settings = check(ClientSettings {
        driver_timeout: core::time::Duration::from_secs(1),
        ..ClientSettings::with_dir(dir)
    })?;
    let directory = FsDirectory::new(dir.to_owned());
    let mut link = find_driver(&settings, &directory, &SystemClock)?;
    let client_id = ClientId(link.next_correlation_id().get());
    link.send_as(client_id, CorrelationId(-1), &Command::TerminateDriver { token })
        .map_err(|_| ClientError::Closed)
}

const CONTROL_PROTOCOL_COUNTER: i32 = 43;
const NEXT_SESSION_ID_VERSION: i64 = 0x0001_0000;

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("dir", &self.0.inner.settings.dir)
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}

fn check(settings: ClientSettings) -> Result<ClientSettings, ClientError> {
    let setting = |name, reason: &str| ClientError::Setting {
        name,
        reason: reason.to_owned(),
    };
    if settings.dir.is_empty() {
        return Err(setting("dir", "is empty"));
    }
    if settings.driver_timeout.is_zero() {
        return Err(setting("driver_timeout", "is zero"));
    }
    if settings.keepalive_interval.is_zero() {
        return Err(setting("keepalive_interval", "is zero"));
    }
    Ok(settings)
}

fn find_driver(
    settings: &ClientSettings,
    directory: &dyn Directory,
    clock: &dyn Clock,
) -> Result<Box<super::link::Link>, ClientError> {
    let mut finder = Finder::new();
    let mut idle = Sleeping(FIND_INTERVAL);
    let start = clock.now();
    let deadline = start.nanos + settings.driver_timeout;
    loop {
        let now = clock.now();
        match finder.attempt(directory, settings, now) {
            Attempt::Found(link) => return Ok(link),
            Attempt::Hopeless(error) => return Err(error),
            Attempt::NotYet(reason) if !clock.passes() || deadline.is_due(now.nanos) => {
                return Err(ClientError::DriverTimeout {
                    dir: settings.dir.clone(),
                    waited: if clock.passes() {
                        settings.driver_timeout
                    } else {
                        core::time::Duration::ZERO
                    },
                    reason,
                });
            }
            Attempt::NotYet(_) => idle.idle(0, deadline, now.nanos),
        }
    }
}

fn check_channel(channel: &str) -> Result<(), RegistrationError> {
    let argument = |reason: String| RegistrationError::Argument {
        name: "channel",
        reason,
    };
    if channel.len() > CHANNEL_LENGTH_MAX {
        return Err(argument(format!(
            "{} bytes; at most {CHANNEL_LENGTH_MAX}",
            channel.len()
        )));
    }
    if !channel.is_ascii() {
        return Err(argument("not all characters are ASCII".to_owned()));
    }
    Ok(())
}

fn check_counter(key: &[u8], label: &str) -> Result<(), RegistrationError> {
    let too_long = |name, length: usize, limit: usize| RegistrationError::Argument {
        name,
        reason: format!("{length} bytes; at most {limit}"),
    };
    if key.len() > MAX_COUNTER_KEY_LENGTH {
        return Err(too_long("key", key.len(), MAX_COUNTER_KEY_LENGTH));
    }
    if label.len() > MAX_COUNTER_LABEL_LENGTH {
        return Err(too_long("label", label.len(), MAX_COUNTER_LABEL_LENGTH));
    }
    Ok(())
}
