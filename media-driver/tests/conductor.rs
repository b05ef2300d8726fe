//! The whole driver in memory and in virtual time, spoken to through its shared memory alone.
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "the clock of the test is a pair of atomics, and helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use fulmar::cnc::CncFile;
use fulmar::control::response::PublicationReady;
use fulmar::control::{Command, CommandHeader, ErrorCode, Response, Text};
use fulmar::counters::{Counter, SystemCounter, type_id};
use fulmar::directory::{Directory, MemDirectory};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId, StreamId};
use fulmar::log::{AppendOutcome, ConcurrentAppender, LogBuffers, NoReservedValue, NoWindow};
use fulmar::memory::View;
use fulmar::ring::{BroadcastReceiver, ManyToOneRing};
use fulmar::time::{Clock, EpochMs, NanoTime, Now};
use fulmar_media_driver::{DriverSettings, MediaDriverInvoker};

const SECOND: i64 = 1_000_000_000;
const CHANNEL: &str = "aeron:ipc?term-length=64k";
const STREAM: StreamId = StreamId(1001);

#[derive(Debug)]
struct VirtualClock {
    nanos: AtomicI64,
    epoch_offset_ms: AtomicI64,
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        let nanos = self.nanos.load(Ordering::Relaxed);
        let offset = self.epoch_offset_ms.load(Ordering::Relaxed);
        Now {
            nanos: NanoTime(nanos),
            epoch: EpochMs(nanos / 1_000_000 + offset),
        }
    }
}

/// A response, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Error(CorrelationId, ErrorCode, String),
    Publication {
        correlation: CorrelationId,
        original: RegistrationId,
        limit: CounterId,
        path: String,
    },
    Subscription(CorrelationId),
    Image {
        image: CorrelationId,
        subscription: RegistrationId,
        position: CounterId,
    },
    ImageGone {
        image: CorrelationId,
        subscription: RegistrationId,
    },
    Success(CorrelationId),
    Counter(RegistrationId, CounterId),
    CounterGone(RegistrationId, CounterId),
    TimedOut(ClientId),
    Rejected(RegistrationId, String),
    Other,
}

struct World {
    driver: MediaDriverInvoker,
    clock: Arc<VirtualClock>,
    directory: Arc<MemDirectory>,
    cnc: CncFile,
    ring: ManyToOneRing<View>,
    broadcast: BroadcastReceiver<View>,
    /// Clients that beat their hearts, and their heartbeat counters.
    beating: BTreeMap<i64, Option<CounterId>>,
}

impl World {
    fn new() -> World {
        Self::with(&[], MemDirectory::new("world"))
    }

    fn with(pairs: &[(&str, &str)], directory: MemDirectory) -> World {
        let mut settings = DriverSettings::defaults();
        settings.set("aeron.dir", directory.path()).unwrap();
        settings.set("aeron.counters.buffer.length", "1m").unwrap();
        for (key, value) in pairs {
            settings.set(key, value).unwrap();
        }
        let directory = Arc::new(directory);
        let clock = Arc::new(VirtualClock {
            nanos: AtomicI64::new(5 * SECOND),
            epoch_offset_ms: AtomicI64::new(1_700_000_000_000),
        });
        let driver = MediaDriverInvoker::assemble_in(
            settings.conclude().unwrap(),
            Arc::clone(&directory) as Arc<dyn Directory>,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .unwrap();
        let cnc = CncFile::open(&directory.map_cnc().unwrap()).unwrap();
        let ring = cnc.to_driver_ring().clone();
        let broadcast = BroadcastReceiver::new(cnc.to_clients()).unwrap();
        World {
            driver,
            clock,
            directory,
            cnc,
            ring,
            broadcast,
            beating: BTreeMap::new(),
        }
    }

    fn client(&mut self) -> ClientId {
        let id = ClientId(self.ring.next_correlation_id());
        self.beating.insert(id.0, None);
        id
    }

    fn send(&mut self, client_id: ClientId, command: Command<'_>) -> CorrelationId {
        let correlation_id = CorrelationId(self.ring.next_correlation_id());
        let mut bytes = Vec::new();
        let type_id = command.encode(
            CommandHeader {
                client_id,
                correlation_id,
            },
            &mut bytes,
        );
        self.ring.write(type_id, &bytes).unwrap();
        correlation_id
    }

    /// Lets time pass in steps of 10 ms, with heartbeats, and returns what the driver said.
    fn run(&mut self, nanos: i64) -> Vec<Event> {
        let mut events = Vec::new();
        let mut scratch = Vec::new();
        let end = self.clock.nanos.load(Ordering::Relaxed) + nanos;
        loop {
            for (client, counter) in &mut self.beating {
                if counter.is_none() {
                    *counter = self.cnc.counters().find_by(type_id::CLIENT_HEARTBEAT, *client);
                }
                if let Some(counter) = counter.and_then(|id| self.cnc.counters().counter(id)) {
                    counter.set_release(self.clock.now().epoch.0);
                }
            }
            for _ in 0..4 {
                self.driver.do_work().unwrap();
            }
            while let Some(type_id) = self.broadcast.receive(&mut scratch).unwrap() {
                events.push(event(&Response::decode(type_id, &scratch).unwrap()));
            }
            if self.clock.nanos.load(Ordering::Relaxed) >= end {
                return events;
            }
            self.clock.nanos.fetch_add(SECOND / 100, Ordering::Relaxed);
        }
    }

    fn settle(&mut self) -> Vec<Event> {
        self.run(SECOND / 50)
    }

    fn system(&self, counter: SystemCounter) -> i64 {
        self.cnc.counters().value(counter.counter_id()).unwrap()
    }

    fn add_publication(&mut self, client: ClientId, channel: &str) -> CorrelationId {
        self.send(
            client,
            Command::AddPublication {
                stream_id: STREAM,
                channel: Text::from(channel),
            },
        )
    }

    fn add_subscription(&mut self, client: ClientId, channel: &str) -> CorrelationId {
        self.send(
            client,
            Command::AddSubscription {
                stream_id: STREAM,
                channel: Text::from(channel),
            },
        )
    }

    fn appender(&self, path: &str) -> ConcurrentAppender<View> {
        ConcurrentAppender::new(
            LogBuffers::open(self.directory.map_log(path).unwrap()).unwrap(),
            0,
        )
    }

    /// Appends messages to a log until its position is `until` bytes or more; returns the position.
    fn fill(&self, path: &str, limit: CounterId, until: i64) -> i64 {
        let appender = self.appender(path);
        let message = [0u8; 1000];
        let mut position = 0;
        while position < until {
            match appender.offer(&NoWindow, &&message[..], &NoReservedValue, self.value(limit)) {
                AppendOutcome::Appended { position: at } => position = at,
                other => panic!("{other:?}"),
            }
        }
        position
    }

    /// The position of a subscription in the image that was announced to it, as its client moves it.
    fn reader_position(&self, events: &[Event], subscription: CorrelationId) -> Counter {
        self.cnc
            .counters()
            .counter(image_counter(events, subscription))
            .unwrap()
    }

    fn value(&self, id: CounterId) -> i64 {
        self.cnc.counters().value(id).unwrap()
    }

    /// Type and id of every counter there is.
    fn counters(&self) -> Vec<(i32, CounterId)> {
        let mut counters = Vec::new();
        self.cnc
            .counters()
            .for_each_value(|id, type_id, _| counters.push((type_id, id)));
        counters
    }
}

fn event(response: &Response<'_>) -> Event {
    match response {
        Response::Error {
            correlation_id,
            error_code,
            message,
        } => Event::Error(*correlation_id, *error_code, message.to_string_lossy()),
        Response::PublicationReady(ready) | Response::ExclusivePublicationReady(ready) => ready_event(ready),
        Response::SubscriptionReady { correlation_id, .. } => Event::Subscription(*correlation_id),
        Response::AvailableImage(image) => Event::Image {
            image: image.image_correlation_id,
            subscription: image.subscription_registration_id,
            position: image.subscriber_position_counter_id,
        },
        Response::UnavailableImage(image) => Event::ImageGone {
            image: image.image_correlation_id,
            subscription: image.subscription_registration_id,
        },
        Response::OperationSuccess { correlation_id } => Event::Success(*correlation_id),
        Response::CounterReady {
            registration_id,
            counter_id,
        } => Event::Counter(*registration_id, *counter_id),
        Response::UnavailableCounter {
            registration_id,
            counter_id,
        } => Event::CounterGone(*registration_id, *counter_id),
        Response::ClientTimeout { client_id } => Event::TimedOut(*client_id),
        Response::PublicationError(error) => {
            Event::Rejected(error.registration_id, error.message.to_string_lossy())
        }
        _ => Event::Other,
    }
}

fn ready_event(ready: &PublicationReady<'_>) -> Event {
    Event::Publication {
        correlation: ready.correlation_id,
        original: ready.original_registration_id,
        limit: ready.position_limit_counter_id,
        path: ready.log_path.to_string_lossy(),
    }
}

fn publication_of(events: &[Event], correlation: CorrelationId) -> (RegistrationId, CounterId, String) {
    events
        .iter()
        .find_map(|event| match event {
            Event::Publication {
                correlation: id,
                original,
                limit,
                path,
            } if *id == correlation => Some((*original, *limit, path.clone())),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no publication {correlation} in {events:?}"))
}

fn image_counter(events: &[Event], wanted: CorrelationId) -> CounterId {
    events
        .iter()
        .find_map(|event| match event {
            Event::Image {
                subscription,
                position,
                ..
            } if subscription.0 == wanted.0 => Some(*position),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no image for {wanted} in {events:?}"))
}

#[test]
fn a_clean_stop_leaves_no_log() {
    let mut world = World::new();
    let client = world.client();
    let add = |world: &mut World, stream: i32| {
        world.send(
            client,
            Command::AddPublication {
                stream_id: StreamId(stream),
                channel: Text::from(CHANNEL),
            },
        )
    };
    for stream in 0..5 {
        add(&mut world, stream);
        world.settle();
    }
    assert_eq!(world.directory.logs().unwrap().len(), 5);
    // One more, whose log is made and not answered yet.
    add(&mut world, 77);
    world.driver.do_work().unwrap();
    world.driver.close();
    assert_eq!(world.directory.logs().unwrap(), [""; 0]);
    assert_eq!(world.cnc.driver_heartbeat(), EpochMs(-1));
}

#[test]
fn the_first_publication_answers_in_the_order_clients_rely_on() {
    let mut world = World::new();
    let client = world.client();
    let add = world.add_publication(client, CHANNEL);
    let events = world.settle();
    assert!(
        matches!(events[0], Event::Counter(id, _) if id.0 == client.0),
        "{events:?}"
    );
    let (original, limit, path) = publication_of(&events, add);
    assert_eq!(original.0, add.0);
    assert_eq!(world.value(limit), 0);
    assert!(world.directory.logs().unwrap().contains(&path));
}

#[test]
fn a_silent_client_loses_everything_in_order_and_others_keep_theirs() {
    let mut world = World::new();
    let (silent, alive) = (world.client(), world.client());
    let kept = world.add_publication(alive, CHANNEL);
    let counter = world.send(
        silent,
        Command::AddCounter {
            type_id: 1001,
            key: b"k",
            label: Text::from("l"),
        },
    );
    world.add_publication(silent, CHANNEL);
    let ready = world.settle();
    let (_, _, path) = publication_of(&ready, kept);
    world.beating.remove(&silent.0);
    let events = world.run(12 * SECOND);
    let order: Vec<&Event> = events
        .iter()
        .filter(|event| !matches!(event, Event::Other))
        .collect();
    assert_eq!(*order[0], Event::TimedOut(silent));
    assert!(
        matches!(order[1], Event::CounterGone(id, _) if id.0 == silent.0),
        "{order:?}"
    );
    assert!(
        matches!(order[2], Event::CounterGone(id, _) if id.0 == counter.0),
        "{order:?}"
    );
    assert_eq!(world.system(SystemCounter::ClientTimeouts), 1);
    assert!(
        world.directory.logs().unwrap().contains(&path),
        "the shared log lives on with the other client"
    );
}

/// A client with a counter, a publication and a subscription that has an image of it and one of a publication of
/// another client goes, in both ways.
#[test]
fn every_counter_of_a_client_that_went_is_freed() {
    for closes in [false, true] {
        let mut world = World::new();
        let stays = world.client();
        world.add_publication(stays, CHANNEL);
        world.settle();
        let before = world.counters();
        let goes = world.client();
        let counter = world.send(
            goes,
            Command::AddCounter {
                type_id: 1001,
                key: b"k",
                label: Text::from("l"),
            },
        );
        let exclusive = world.send(
            goes,
            Command::AddExclusivePublication {
                stream_id: STREAM,
                channel: Text::from(CHANNEL),
            },
        );
        let subscription = world.add_subscription(goes, CHANNEL);
        let events = world.settle();
        publication_of(&events, exclusive);
        image_counter(&events, subscription);
        let added: Vec<i32> = world.counters()[before.len()..]
            .iter()
            .map(|(type_id, _)| *type_id)
            .collect();
        for type_id in [
            1001,
            type_id::CLIENT_HEARTBEAT,
            type_id::PUBLISHER_LIMIT,
            type_id::SUBSCRIBER_POSITION,
        ] {
            assert!(added.contains(&type_id), "type {type_id} in {added:?}");
        }
        if closes {
            world.send(goes, Command::ClientClose);
        } else {
            world.beating.remove(&goes.0);
        }
        let events = world.run(30 * SECOND);
        assert_eq!(world.counters(), before, "closes: {closes}");
        let gone = |event: &&Event| matches!(event, Event::CounterGone(id, _) if id.0 == counter.0);
        assert_eq!(events.iter().filter(gone).count(), 1, "{events:?}");
    }
}

#[test]
fn a_counter_that_its_client_removes_is_freed() {
    let mut world = World::new();
    let client = world.client();
    world.add_publication(client, CHANNEL);
    world.settle();
    let before = world.counters();
    let counter = world.send(
        client,
        Command::AddCounter {
            type_id: 1001,
            key: b"k",
            label: Text::from("l"),
        },
    );
    world.settle();
    assert_eq!(world.counters().len(), before.len() + 1);
    let registration_id = RegistrationId(counter.0);
    world.send(client, Command::RemoveCounter { registration_id });
    world.settle();
    assert_eq!(world.counters(), before);
}

#[test]
fn a_keepalive_command_counts_as_a_heartbeat() {
    let mut world = World::new();
    let client = world.client();
    world.add_publication(client, CHANNEL);
    world.settle();
    // Nothing writes to its heartbeat counter any more.
    world.beating.remove(&client.0);
    for second in 0..15 {
        world.send(client, Command::ClientKeepalive);
        let events = world.run(SECOND);
        assert!(!events.contains(&Event::TimedOut(client)), "second {second}");
    }
    assert!(world.run(12 * SECOND).contains(&Event::TimedOut(client)));
}

#[test]
fn a_client_holds_no_more_subscriptions_than_it_may() {
    const MOST: i32 = 16_384;
    let mut world = World::new();
    let client = world.client();
    let subscribe = |world: &mut World, stream: i32| {
        world.send(
            client,
            Command::AddSubscription {
                stream_id: StreamId(stream),
                channel: Text::from(CHANNEL),
            },
        )
    };
    let mut ready = 0;
    for stream in 0..MOST {
        subscribe(&mut world, stream);
        if stream % 16 == 15 {
            // A few commands are taken in each cycle.
            while ready <= stream {
                let events = world.settle();
                assert!(!events.is_empty(), "{ready} of {stream}");
                ready += events
                    .iter()
                    .map(|event| i32::from(matches!(event, Event::Subscription(_))))
                    .sum::<i32>();
            }
        }
    }
    assert_eq!(ready, MOST);
    let refused = subscribe(&mut world, MOST);
    let events = world.settle();
    let is_refusal =
        |event: &Event| matches!(event, Event::Error(id, ErrorCode::GenericError, _) if *id == refused);
    assert!(events.iter().any(is_refusal), "{events:?}");
}

#[test]
fn steps_of_the_wall_clock_time_nobody_out_and_refresh_the_heartbeat_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.add_publication(client, CHANNEL);
    world.settle();
    for step_ms in [
        1_000,
        -1_000,
        20_000,
        -20_000,
        315_360_000_000,
        -315_360_000_000,
        86_400_000,
    ] {
        world.clock.epoch_offset_ms.fetch_add(step_ms, Ordering::Relaxed);
        let events = world.run(3 * SECOND / 100);
        assert!(
            !events.iter().any(|event| matches!(event, Event::TimedOut(_))),
            "step {step_ms}: {events:?}"
        );
        let age = world.clock.now().epoch.0 - world.ring.consumer_heartbeat().0;
        assert!(
            (0..100).contains(&age),
            "step {step_ms}: foreign clients see a heartbeat {age} ms old"
        );
        let events = world.run(2 * SECOND);
        assert!(
            !events.iter().any(|event| matches!(event, Event::TimedOut(_))),
            "step {step_ms}: {events:?}"
        );
    }
    assert_eq!(world.system(SystemCounter::ClientTimeouts), 0);
}

#[test]
fn a_pause_of_the_driver_is_not_held_against_its_clients() {
    let mut world = World::new();
    let client = world.client();
    world.add_publication(client, CHANNEL);
    world.settle();
    // Nobody runs for a minute, the client included: its counter did not move when the driver looks again.
    world.clock.nanos.fetch_add(60 * SECOND, Ordering::Relaxed);
    for _ in 0..4 {
        world.driver.do_work().unwrap();
    }
    let events = world.run(5 * SECOND);
    assert!(
        !events.iter().any(|event| matches!(event, Event::TimedOut(_))),
        "{events:?}"
    );
    assert_eq!(world.system(SystemCounter::ClientTimeouts), 0);
}

#[test]
fn a_rejected_image_cools_down_and_returns() {
    let mut world = World::new();
    let client = world.client();
    let subscription = world.add_subscription(client, CHANNEL);
    let publication = world.add_publication(client, CHANNEL);
    let events = world.settle();
    image_counter(&events, subscription);
    let reject = world.send(
        client,
        Command::RejectImage {
            image_correlation_id: publication,
            position: 0,
            reason: Text::from("not wanted"),
        },
    );
    let events = world.settle();
    let gone = Event::ImageGone {
        image: publication,
        subscription: subscription.into(),
    };
    let order: Vec<usize> = [
        Event::Rejected(publication.into(), "not wanted".to_owned()),
        gone,
        Event::Success(reject),
    ]
    .iter()
    .map(|wanted| {
        events
            .iter()
            .position(|event| event == wanted)
            .unwrap_or_else(|| panic!("no {wanted:?}"))
    })
    .collect();
    assert!(order.is_sorted(), "{events:?}");
    assert!(
        world
            .run(8 * SECOND)
            .iter()
            .all(|event| !matches!(event, Event::Image { .. }))
    );
    let events = world.run(4 * SECOND);
    image_counter(&events, subscription);
    assert_eq!(world.system(SystemCounter::ImagesRejected), 1);
}

#[test]
fn an_untethered_subscriber_that_stalls_goes_stops_counting_and_returns_with_its_counter() {
    let mut world = World::new();
    let client = world.client();
    let healthy = world.add_subscription(client, CHANNEL);
    let stalled = world.add_subscription(client, "aeron:ipc?tether=false");
    let also_stalled = world.add_subscription(client, "aeron:ipc?tether=false");
    let publication = world.add_publication(client, CHANNEL);
    let events = world.settle();
    let (_, limit, path) = publication_of(&events, publication);
    let healthy = world.reader_position(&events, healthy);
    let stalled_counter = image_counter(&events, stalled);
    // The window is half a term; far behind is three quarters of that.
    let position = world.fill(&path, limit, 28_000);
    healthy.set_release(position);
    let gone = Event::ImageGone {
        image: publication,
        subscription: stalled.into(),
    };
    let events = world.run(4 * SECOND);
    assert!(!events.contains(&gone));
    let events = world.run(4 * SECOND);
    assert!(events.contains(&gone), "{events:?}");
    assert_eq!(
        world.value(limit),
        32 * 1024,
        "while lingering it still holds the publisher back"
    );
    world.run(6 * SECOND);
    assert_eq!(world.value(limit), position + 32 * 1024, "resting, it does not");
    let events = world.run(11 * SECOND);
    assert_eq!(image_counter(&events, stalled), stalled_counter);
    assert_eq!(world.value(stalled_counter), position);
    let other = image_counter(&events, also_stalled);
    assert_eq!(
        world.value(other),
        position,
        "two that return together do not hold each other back"
    );
    assert_eq!(world.value(limit), position + 32 * 1024);
}

#[test]
fn a_subscriber_that_is_left_behind_for_good_leaves_no_counter() {
    let mut world = World::new();
    let client = world.client();
    let healthy = world.add_subscription(client, CHANNEL);
    let publication = world.add_publication(client, CHANNEL);
    let events = world.settle();
    let (_, limit, path) = publication_of(&events, publication);
    let healthy = world.reader_position(&events, healthy);
    let before = world.counters();
    let stalled = world.add_subscription(client, "aeron:ipc?tether=false|rejoin=false");
    image_counter(&world.settle(), stalled);
    assert_eq!(world.counters().len(), before.len() + 1);
    let position = world.fill(&path, limit, 28_000);
    healthy.set_release(position);
    let gone = Event::ImageGone {
        image: publication,
        subscription: stalled.into(),
    };
    let events = world.run(20 * SECOND);
    assert!(events.contains(&gone), "{events:?}");
    assert_eq!(world.counters(), before);
    assert_eq!(world.value(limit), position + 32 * 1024);
}

#[test]
fn a_claim_nobody_commits_is_unblocked_after_the_timeout_and_not_before() {
    let mut world = World::new();
    let client = world.client();
    let subscription = world.add_subscription(client, CHANNEL);
    let publication = world.add_publication(client, CHANNEL);
    let events = world.settle();
    let (_, limit, path) = publication_of(&events, publication);
    image_counter(&events, subscription);
    let appender = world.appender(&path);
    appender.claim(&NoWindow, 100, world.value(limit)).unwrap();
    world.run(14 * SECOND);
    assert_eq!(world.system(SystemCounter::UnblockedPublications), 0);
    world.run(3 * SECOND);
    assert_eq!(world.system(SystemCounter::UnblockedPublications), 1);
}

#[test]
fn a_log_that_does_not_fit_is_refused_with_the_sizes_and_other_streams_go_on() {
    let mut world = World::with(
        &[("aeron.low.file.store.warning.threshold", "0")],
        MemDirectory::with_capacity("world", 24 << 20),
    );
    let client = world.client();
    let fits = world.add_publication(client, CHANNEL);
    let events = world.settle();
    let (_, _, path) = publication_of(&events, fits);
    let too_large = world.send(
        client,
        Command::AddPublication {
            stream_id: StreamId(2),
            channel: Text::from("aeron:ipc?term-length=16m"),
        },
    );
    let events = world.settle();
    let Some(Event::Error(_, code, text)) = events
        .iter()
        .find(|event| matches!(event, Event::Error(id, ..) if *id == too_large))
    else {
        panic!("no error in {events:?}");
    };
    assert_eq!(*code, ErrorCode::StorageSpace);
    assert!(text.contains(&(3 * (16 << 20) + 4096).to_string()), "{text}");
    assert_eq!(world.directory.logs().unwrap(), [path], "nothing is left behind");
    let again = world.send(
        client,
        Command::AddPublication {
            stream_id: StreamId(3),
            channel: Text::from(CHANNEL),
        },
    );
    publication_of(&world.settle(), again);
}

#[test]
fn thousands_of_publications_come_and_go_without_a_trace() {
    let mut world = World::new();
    let client = world.client();
    let first = world.send(
        client,
        Command::AddCounter {
            type_id: 1001,
            key: b"",
            label: Text::from(""),
        },
    );
    world.settle();
    let mapped = world.system(SystemCounter::BytesMapped);
    let mut highest = 0;
    for _ in 0..2000 {
        let publication = world.add_publication(client, CHANNEL);
        let events = world.run(0);
        let events = if events.is_empty() { world.settle() } else { events };
        let (_, limit, _) = publication_of(&events, publication);
        highest = highest.max(limit.0);
        world.send(
            client,
            Command::RemovePublication {
                registration_id: publication.into(),
                revoke: false,
            },
        );
        world.run(SECOND / 10);
    }
    world.run(5 * SECOND);
    assert_eq!(world.system(SystemCounter::BytesMapped), mapped);
    assert_eq!(world.directory.logs().unwrap(), Vec::<String>::new());
    assert!(
        highest < 250,
        "counter ids are used again, the highest was {highest}"
    );
    assert!(first.0 > 0);
}

#[test]
fn garbage_commands_are_counted_and_the_next_good_one_is_served() {
    let mut world = World::new();
    let client = world.client();
    for length in [0, 4, 8, 12, 16, 20, 24, 28] {
        for type_id in 1..0x20 {
            world.ring.write(type_id, &vec![0xFF; length]).unwrap();
        }
    }
    world.run(SECOND * 5);
    assert!(world.system(SystemCounter::Errors) > 100);
    let good = world.add_publication(client, CHANNEL);
    publication_of(&world.settle(), good);
}

#[test]
fn space_taken_without_a_header_does_not_keep_a_publication_from_ending() {
    let mut world = World::new();
    let client = world.client();
    let subscription = world.add_subscription(client, CHANNEL);
    let publication = world.send(
        client,
        Command::AddExclusivePublication {
            stream_id: STREAM,
            channel: Text::from(CHANNEL),
        },
    );
    let events = world.settle();
    let (_, _, path) = publication_of(&events, publication);
    let log = LogBuffers::open(world.directory.map_log(&path).unwrap()).unwrap();
    // A publisher that dies here has raised the tail and written nothing.
    log.metadata().tail_fetch_add(0, 160);
    let position = world.reader_position(&events, subscription);
    world.settle();
    world.send(
        client,
        Command::RemovePublication {
            registration_id: publication.into(),
            revoke: false,
        },
    );
    world.run(3 * SECOND);
    // The subscriber reads the padding.
    position.set_release(160);
    let events = world.run(3 * SECOND);
    let gone = Event::ImageGone {
        image: publication,
        subscription: subscription.into(),
    };
    assert!(events.contains(&gone), "{events:?}");
    assert_eq!(world.system(SystemCounter::UnblockedPublications), 1);
}

#[test]
fn clients_that_ask_for_a_publication_at_the_same_time_share_it() {
    let mut world = World::new();
    let (first, second, third) = (world.client(), world.client(), world.client());
    let adds = [
        world.add_publication(first, CHANNEL),
        world.add_publication(second, CHANNEL),
        // It can not share: what it asks for differs.
        world.add_publication(third, "aeron:ipc?term-length=128k"),
    ];
    let events = world.settle();
    for add in &adds[..2] {
        assert_eq!(publication_of(&events, *add).0.0, adds[0].0);
    }
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Error(id, ErrorCode::GenericError, _) if *id == adds[2])),
        "{events:?}"
    );
    assert_eq!(world.directory.logs().unwrap().len(), 1);
}

#[test]
fn a_publication_outlives_the_client_that_made_it_while_others_share_it() {
    let mut world = World::new();
    let (first, second) = (world.client(), world.client());
    let add = world.add_publication(first, CHANNEL);
    world.send(first, Command::ClientClose);
    let shared = world.add_publication(second, CHANNEL);
    let events = world.run(3 * SECOND);
    assert_eq!(publication_of(&events, shared).0.0, add.0);
    let gone = |event: &Event| matches!(event, Event::CounterGone(id, _) if id.0 == first.0);
    assert!(events.iter().any(gone), "{events:?}");
    assert_eq!(
        world.directory.logs().unwrap(),
        [publication_of(&events, shared).2]
    );
}

#[test]
fn commands_of_a_client_wait_for_its_publication_in_their_order() {
    let mut world = World::new();
    let slow = world.client();
    // The removal can only succeed after the publication was made.
    let add = world.add_publication(slow, CHANNEL);
    let remove = world.send(
        slow,
        Command::RemovePublication {
            registration_id: RegistrationId(add.0),
            revoke: false,
        },
    );
    let subscribe = world.add_subscription(slow, CHANNEL);
    let events = world.settle();
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let ready =
        place(&|event| matches!(event, Event::Publication { correlation, .. } if *correlation == add));
    let removed = place(&|event| *event == Event::Success(remove));
    let subscribed = place(&|event| *event == Event::Subscription(subscribe));
    assert!(ready < removed && removed < subscribed, "{events:?}");
}
