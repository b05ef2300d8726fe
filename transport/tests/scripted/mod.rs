//! A driver made of a script: it reads what a client writes and says what the test wants it to say, over regions in
//! memory and a clock that the test moves.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of the script"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::agent::process::ProcessId;
use fulmar::cnc::{CncFile, CncSpec, Extension, extension};
use fulmar::control::response::{AvailableImage, PublicationReady, UnavailableImage};
use fulmar::control::{Command, CommandHeader, Response, Text};
use fulmar::counters::CountersManager;
use fulmar::directory::{Blocks, Directory, LogKind, MemDirectory};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{LogBuffers, LogInit};
use fulmar::memory::View;
use fulmar::ring::{BroadcastTransmitter, ReadAction};
use fulmar::sync::{AtomicI64, Ordering};
use fulmar::time::{Clock, EpochMs, NanoTime, Now};
use fulmar::{
    Client, ClientError, ClientEvent, ClientSettings, ExclusivePublication, ImageHandlers, Publication,
    Subscription,
};

pub const TERM_LENGTH: i32 = 65536;
pub const DIRECTORY: &str = "/memory/aeron";
pub const IPC: &str = "aeron:ipc";

/// A clock that stands still until it is moved.
pub struct ManualClock {
    nanos: AtomicI64,
    epoch: AtomicI64,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(ManualClock {
            nanos: AtomicI64::new(1_000_000_000),
            epoch: AtomicI64::new(1_700_000_000_000),
        })
    }

    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as i64, Ordering::SeqCst);
        self.epoch.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// Moves the wall clock alone.
    pub fn step_wall_clock(&self, ms: i64) {
        self.epoch.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        Now {
            nanos: NanoTime(self.nanos.load(Ordering::SeqCst)),
            epoch: EpochMs(self.epoch.load(Ordering::SeqCst)),
        }
    }
}

/// An owned command, for assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    AddPublication(String, i32),
    AddExclusivePublication(String, i32),
    AddSubscription(String, i32),
    RemovePublication { id: i64, revoke: bool },
    RemoveSubscription(i64),
    AddCounter(i32, Vec<u8>, String),
    RemoveCounter(i64),
    AddDestination(i64, String),
    Close,
    Other(i32),
}

pub struct FakeDriver<D = MemDirectory> {
    pub directory: D,
    pub cnc: CncFile,
    pub transmitter: BroadcastTransmitter<View>,
    pub counters: CountersManager<View>,
    pub clock: Arc<ManualClock>,
    scratch: Vec<u8>,
}

impl FakeDriver {
    pub fn start(clock: &Arc<ManualClock>) -> Self {
        Self::start_in(MemDirectory::new(DIRECTORY), clock, 77)
    }
}

impl<D: Directory + Clone + 'static> FakeDriver<D> {
    pub fn start_in(directory: D, clock: &Arc<ManualClock>, pid: i64) -> Self {
        let spec = CncSpec {
            to_driver_length: 65536 + 768,
            to_clients_length: 65536 + 128,
            counter_values_length: 128 * 128,
            error_log_length: 4096,
            page_size: 4096,
            client_liveness_timeout_ns: 10_000_000_000,
            start: clock.now().epoch,
            pid,
        };
        directory.delete().unwrap();
        directory.create_dirs().unwrap();
        let region = directory.create_cnc(spec.file_length().unwrap() as u64).unwrap();
        let cnc = CncFile::create(&region, &spec).unwrap();
        let _ = cnc.to_driver_ring().next_correlation_id();
        cnc.set_driver_heartbeat(clock.now().epoch);
        cnc.publish_version();
        FakeDriver {
            transmitter: BroadcastTransmitter::new(cnc.to_clients()).unwrap(),
            counters: CountersManager::new(cnc.counter_metadata(), cnc.counter_values(), 1_000_000_000)
                .unwrap(),
            clock: clock.clone(),
            directory,
            cnc,
            scratch: Vec::new(),
        }
    }

    /// Makes the extension file of our own drivers; before a client comes.
    pub fn extend(&self) -> Extension {
        self.extend_as(ProcessId::current())
    }

    /// As [`Self::extend`], for a driver that says that it is this process.
    pub fn extend_as(&self, process: ProcessId) -> Extension {
        let region = self
            .directory
            .create_extension(extension::FILE_LENGTH as u64)
            .unwrap();
        Extension::create(&region, process, self.cnc.start_timestamp()).unwrap()
    }

    pub fn beat(&self) {
        self.cnc.set_driver_heartbeat(self.clock.now().epoch);
    }

    /// The next command of a client.
    pub fn next(&mut self) -> Option<(CommandHeader, Said)> {
        let mut seen = None;
        self.cnc
            .to_driver_ring()
            .read(
                1,
                |type_id, payload| {
                    let (header, command) = Command::decode(type_id, payload).unwrap();
                    seen = Some((header, said(&command)));
                    ReadAction::Continue
                },
                &mut self.scratch,
            )
            .unwrap();
        seen
    }

    /// The next command, which is there and is this one; returns its correlation id.
    pub fn expect(&mut self, expected: &Said) -> CorrelationId {
        let (header, command) = self.next().expect("a command");
        assert_eq!(&command, expected);
        header.correlation_id
    }

    pub fn say(&mut self, response: &Response<'_>) {
        let mut bytes = Vec::new();
        let type_id = response.encode(&mut bytes);
        self.transmitter.transmit(type_id, &bytes).unwrap();
    }

    pub fn counter(&mut self, type_id: i32, registration_id: i64, value: i64) -> CounterId {
        let now = self.clock.now();
        let id = self
            .counters
            .allocate(
                now,
                type_id,
                &registration_id.to_le_bytes(),
                "label",
                registration_id,
                0,
                0,
            )
            .unwrap();
        self.counters.set_value(id, value);
        id
    }

    pub fn create_log(&self, id: i64, session: i32, stream: i32) -> (LogBuffers, String) {
        let (region, path) = self
            .directory
            .create_log(
                LogKind::Publication,
                RegistrationId(id),
                log_length(TERM_LENGTH, 4096),
                Blocks::Sparse,
            )
            .unwrap();
        let init = LogInit::ipc_default(
            RegistrationId(id),
            SessionId(session),
            StreamId(stream),
            TermId(5),
            TERM_LENGTH,
        );
        (LogBuffers::initialise(region, &init).unwrap(), path)
    }

    /// Answers an add of a publication with a new, connected log that may be written up to `limit`.
    pub fn answer_publication(
        &mut self,
        id: CorrelationId,
        session: i32,
        stream: i32,
        limit: i64,
    ) -> FakePublication {
        self.answer_publication_of(id, session, stream, limit, CounterId::NONE)
    }

    /// The same; a channel of the network has a status.
    pub fn answer_publication_of(
        &mut self,
        id: CorrelationId,
        session: i32,
        stream: i32,
        limit: i64,
        status: CounterId,
    ) -> FakePublication {
        let (log, path) = self.create_log(id.get(), session, stream);
        let counter = self.counter(1, id.get(), limit);
        log.metadata().set_connected(true);
        self.say(&Response::PublicationReady(PublicationReady {
            correlation_id: id,
            original_registration_id: id.into(),
            session_id: SessionId(session),
            stream_id: StreamId(stream),
            position_limit_counter_id: counter,
            channel_status_counter_id: status,
            log_path: Text::from(path.as_str()),
        }));
        FakePublication {
            log,
            path,
            limit: counter,
            id,
            session,
            stream,
        }
    }

    /// A publication of `stream` on [`IPC`], asked for by the client and answered at once.
    pub fn add_publication(
        &mut self,
        client: &Client,
        session: i32,
        stream: i32,
        limit: i64,
    ) -> (Publication, FakePublication) {
        let mut pending = client.async_add_publication(IPC, stream).unwrap();
        let id = self.expect(&Said::AddPublication(IPC.into(), stream));
        let fake = self.answer_publication(id, session, stream, limit);
        (pending.poll().unwrap().unwrap(), fake)
    }

    /// The same with a log of its own.
    pub fn add_exclusive_publication(
        &mut self,
        client: &Client,
        session: i32,
        stream: i32,
        limit: i64,
    ) -> (ExclusivePublication, FakePublication) {
        let mut pending = client.async_add_exclusive_publication(IPC, stream).unwrap();
        let id = self.expect(&Said::AddExclusivePublication(IPC.into(), stream));
        let fake = self.answer_publication(id, session, stream, limit);
        (pending.poll().unwrap().unwrap(), fake)
    }

    /// A subscription of `stream` on [`IPC`] with images of these publications, which it joins at their beginning.
    pub fn add_subscription(
        &mut self,
        client: &Client,
        stream: i32,
        publications: &[&FakePublication],
    ) -> Subscription {
        let mut pending = client
            .async_add_subscription(IPC, stream, ImageHandlers::default())
            .unwrap();
        let id = self.expect(&Said::AddSubscription(IPC.into(), stream));
        self.answer_subscription(id);
        let subscription = pending.poll().unwrap().unwrap();
        for publication in publications {
            self.announce_image(publication, id, 0);
        }
        client.invoke();
        subscription
    }

    pub fn answer_subscription(&mut self, id: CorrelationId) {
        self.say(&Response::SubscriptionReady {
            correlation_id: id,
            channel_status_counter_id: CounterId::NONE,
        });
    }

    /// Tells a subscription of a publication's image; returns the position counter.
    pub fn announce_image(
        &mut self,
        publication: &FakePublication,
        subscription: CorrelationId,
        join: i64,
    ) -> CounterId {
        let position = self.counter(4, subscription.get(), join);
        self.say(&Response::AvailableImage(AvailableImage {
            image_correlation_id: publication.id,
            session_id: SessionId(publication.session),
            stream_id: StreamId(publication.stream),
            subscription_registration_id: subscription.into(),
            subscriber_position_counter_id: position,
            log_path: Text::from(publication.path.as_str()),
            source_identity: Text::from("aeron:ipc"),
        }));
        position
    }

    pub fn withdraw_image(&mut self, publication: &FakePublication, subscription: CorrelationId) {
        self.say(&Response::UnavailableImage(UnavailableImage {
            image_correlation_id: publication.id,
            subscription_registration_id: subscription.into(),
            stream_id: StreamId(publication.stream),
            channel: Text::from("aeron:ipc"),
        }));
    }

    /// Makes the heartbeat counter of a client and tells it.
    pub fn create_heartbeat(&mut self, client: ClientId) -> CounterId {
        let counter = self.counter(11, client.get(), self.clock.now().epoch.0);
        self.say(&Response::CounterReady {
            registration_id: RegistrationId(client.get()),
            counter_id: counter,
        });
        counter
    }
}

pub struct FakePublication {
    pub log: LogBuffers,
    pub path: String,
    pub limit: CounterId,
    pub id: CorrelationId,
    pub session: i32,
    pub stream: i32,
}

fn said(command: &Command<'_>) -> Said {
    match command {
        Command::AddPublication { stream_id, channel } => {
            Said::AddPublication(channel.to_string(), stream_id.get())
        }
        Command::AddExclusivePublication { stream_id, channel } => {
            Said::AddExclusivePublication(channel.to_string(), stream_id.get())
        }
        Command::AddSubscription { stream_id, channel } => {
            Said::AddSubscription(channel.to_string(), stream_id.get())
        }
        Command::RemovePublication {
            registration_id,
            revoke,
        } => Said::RemovePublication {
            id: registration_id.get(),
            revoke: *revoke,
        },
        Command::RemoveSubscription { registration_id } => Said::RemoveSubscription(registration_id.get()),
        Command::AddCounter { type_id, key, label } => {
            Said::AddCounter(*type_id, key.to_vec(), label.to_string())
        }
        Command::RemoveCounter { registration_id } => Said::RemoveCounter(registration_id.get()),
        Command::AddDestination {
            registration_id,
            channel,
        } => Said::AddDestination(registration_id.get(), channel.to_string()),
        Command::ClientClose => Said::Close,
        other => Said::Other(other.type_id()),
    }
}

/// Everything a client told its handlers.
#[derive(Clone, Default)]
pub struct Journal {
    pub events: Arc<Mutex<Vec<ClientEvent>>>,
    pub errors: Arc<Mutex<Vec<ClientError>>>,
}

impl Journal {
    pub fn events(&self) -> Vec<ClientEvent> {
        self.events.lock().unwrap().clone()
    }

    pub fn errors(&self) -> Vec<ClientError> {
        self.errors.lock().unwrap().clone()
    }
}

pub fn settings(journal: &Journal) -> ClientSettings {
    let (events, errors) = (journal.events.clone(), journal.errors.clone());
    ClientSettings {
        invoker: true,
        driver_timeout: Duration::from_secs(10),
        on_event: Some(Arc::new(move |event: &ClientEvent| {
            events.lock().unwrap().push(event.clone())
        })),
        on_error: Some(Arc::new(move |error: &ClientError| {
            errors.lock().unwrap().push(error.clone())
        })),
        ..ClientSettings::with_dir(DIRECTORY)
    }
}

pub fn connect<D: Directory + Clone + 'static>(driver: &FakeDriver<D>) -> (Client, Journal) {
    let journal = Journal::default();
    let client = Client::connect_with(
        settings(&journal),
        Arc::new(driver.directory.clone()),
        driver.clock.clone(),
    )
    .unwrap();
    (client, journal)
}

/// A driver in memory, and a client of it.
pub fn start() -> (FakeDriver, Client, Journal) {
    let driver = FakeDriver::start(&ManualClock::new());
    let (client, journal) = connect(&driver);
    (driver, client, journal)
}

/// Moves the clock in small steps, with a duty cycle of the client and a beat of the driver at each.
pub fn run<D: Directory + Clone + 'static>(client: &Client, driver: &FakeDriver<D>, time: Duration) {
    let step = Duration::from_millis(10);
    let mut left = time;
    while left > Duration::ZERO {
        driver.clock.advance(step);
        driver.beat();
        client.invoke();
        left = left.saturating_sub(step);
    }
}

/// As [`run`], with a driver that does not move.
pub fn run_silent(client: &Client, clock: &ManualClock, time: Duration) {
    let step = Duration::from_millis(10);
    let mut left = time;
    while left > Duration::ZERO {
        clock.advance(step);
        client.invoke();
        left = left.saturating_sub(step);
    }
}
