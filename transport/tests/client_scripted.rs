//! The client against a scripted driver: what it says, what it makes of the answers, and what it does when the
//! driver misbehaves, dies or comes back.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; threads of a test"
)]

mod scripted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::client::{ChannelStatus, DriverLossReason, DriverState, PendingPublication};
use fulmar::control::response::{AvailableImage, PublicationReady};
use fulmar::control::{ErrorCode, Response, Text};
use fulmar::directory::Directory;
use fulmar::id::{CorrelationId, CounterId, RegistrationId, SessionId, StreamId};
use fulmar::log::{NoReservedValue, NoWindow};
use fulmar::memory::AtomicBuffer;
use fulmar::time::Clock;
use fulmar::{
    Action, Client, ClientError, ClientEvent, ClientSettings, CommitError, ImageHandlers, Offer, Publication,
    RegistrationError, Subscription,
};
use scripted::*;

const IPC: &str = "aeron:ipc";

fn say_publication() -> Said {
    Said::AddPublication(IPC.to_owned(), 10)
}

fn say_subscription() -> Said {
    Said::AddSubscription(IPC.to_owned(), 10)
}

/// A connected publication with the whole first term and a half to write to.
fn publication<D: Directory + Clone + 'static>(
    client: &Client,
    driver: &mut FakeDriver<D>,
) -> (Publication, FakePublication) {
    let mut pending = client.async_add_publication(IPC, 10).unwrap();
    assert!(pending.poll().is_none());
    let id = driver.expect(&say_publication());
    let fake = driver.answer_publication(id, 1, 10, i64::from(TERM_LENGTH));
    (pending.poll().unwrap().unwrap(), fake)
}

fn subscription<D: Directory + Clone + 'static>(
    client: &Client,
    driver: &mut FakeDriver<D>,
) -> (Subscription, CorrelationId) {
    let mut pending = client
        .async_add_subscription(IPC, 10, ImageHandlers::default())
        .unwrap();
    let id = driver.expect(&say_subscription());
    driver.answer_subscription(id);
    (pending.poll().unwrap().unwrap(), id)
}

/// An image of a client's own publication.
struct FakeImage {
    publication: FakePublication,
    subscription: CorrelationId,
    position: CounterId,
}

/// A client reads what it publishes, from the start.
fn joined<D: Directory + Clone + 'static>(
    client: &Client,
    driver: &mut FakeDriver<D>,
) -> (Publication, Subscription, FakeImage) {
    let (publication, fake) = publication(client, driver);
    let (subscription, id) = subscription(client, driver);
    let position = driver.announce_image(&fake, id, 0);
    client.invoke();
    let image = FakeImage {
        publication: fake,
        subscription: id,
        position,
    };
    (publication, subscription, image)
}

fn texts(subscription: &mut Subscription) -> Vec<String> {
    let mut seen = Vec::new();
    while subscription.poll(
        |payload, _| seen.push(String::from_utf8(payload.to_vec()).unwrap()),
        10,
    ) > 0
    {}
    seen
}

#[test]
fn what_is_offered_is_polled_and_the_position_is_stored() {
    let (mut driver, client, journal) = start();
    let (publication, fake) = publication(&client, &mut driver);
    let (mut subscription, id) = subscription(&client, &mut driver);
    assert!(!subscription.is_connected());
    let position = driver.announce_image(&fake, id, 0);
    client.invoke();
    assert_eq!(subscription.image_count(), 1);

    assert_eq!(publication.offer(b"hello"), Offer::Position(64));
    assert_eq!(publication.offer_parts(&[b"wor", b"ld"]), Offer::Position(128));
    assert_eq!(texts(&mut subscription), ["hello", "world"]);
    assert_eq!(driver.counters.value(position), Some(128));
    assert_eq!(publication.position(), Some(128));
    assert_eq!(subscription.images()[0].position(), 128);
    assert!(journal.errors().is_empty());

    drop(publication);
    driver.expect(&Said::RemovePublication {
        id: fake.id.get(),
        revoke: false,
    });
    drop(subscription);
    driver.expect(&Said::RemoveSubscription(id.get()));
    drop(client);
    driver.expect(&Said::Close);
}

#[test]
fn long_messages_arrive_whole_and_headers_show_the_publishers_position() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, _) = joined(&client, &mut driver);

    let message: Vec<u8> = (0..publication.max_message_length()).map(|i| i as u8).collect();
    let end = publication.offer(&message).position().unwrap();
    assert!(publication.offer(b"short").is_accepted());
    assert_eq!(publication.offer(&vec![0; message.len() + 1]), Offer::TooLong);
    let mut seen = Vec::new();
    // One fragment a poll: the message is put together over many.
    for _ in 0..20 {
        subscription.poll(
            |payload, header| {
                seen.push((
                    payload.to_vec(),
                    header.position(),
                    header.frame_length(),
                    header.flags(),
                ));
            },
            1,
        );
    }
    assert_eq!(seen.len(), 2);
    assert!(seen[0].0 == message);
    assert_eq!((seen[0].1, seen[0].2), (end, 32 + message.len() as i32));
    assert_eq!(seen[0].3, 0xC0);
    assert_eq!(seen[1].0, b"short");
}

#[test]
fn an_aborted_message_of_several_fragments_comes_again_whole() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, _) = joined(&client, &mut driver);
    let message: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    assert!(publication.offer(b"first").is_accepted());
    assert!(publication.offer(&message).is_accepted());

    let mut seen = Vec::new();
    let mut aborts = 2;
    for _ in 0..4 {
        subscription.controlled_poll(
            |payload, _| {
                if payload.len() > 5 && aborts > 0 {
                    aborts -= 1;
                    return Action::Abort;
                }
                seen.push(payload.to_vec());
                Action::Commit
            },
            10,
        );
    }
    assert_eq!(seen.len(), 2);
    assert!(seen[1] == message);
}

#[test]
fn offers_stop_at_the_limit_and_without_subscribers() {
    let (mut driver, client, _) = start();
    let (publication, fake) = publication(&client, &mut driver);
    driver.counters.set_value(fake.limit, 128);
    // The limit was read when the publication was first used, at the latest now.
    let mut accepted = 0;
    while publication.offer(b"x").is_accepted() {
        accepted += 1;
        assert!(accepted <= 4);
    }
    assert_eq!(publication.offer(b"x"), Offer::BackPressured);
    assert!(matches!(publication.try_claim(1), Err(Offer::BackPressured)));
    driver.counters.set_value(fake.limit, 1 << 20);
    assert!(publication.offer(b"x").is_accepted());

    // The last subscriber goes: the driver lowers the limit, and a limit read earlier does not count any more.
    fake.log.metadata().set_connected(false);
    let position = publication.position().unwrap();
    driver.counters.set_value(fake.limit, position);
    assert_eq!(publication.offer(b"x"), Offer::NotConnected);
    assert_eq!(publication.position(), Some(position));
    assert!(!publication.is_connected());
}

#[test]
fn claims_are_published_on_commit_and_skipped_when_dropped() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, _) = joined(&client, &mut driver);

    let mut first = publication.try_claim(3).unwrap();
    first.copy_from_slice(b"one");
    let mut second = publication.try_claim(3).unwrap();
    assert_eq!(&second[..], [0, 0, 0], "staging starts out zero");
    second.copy_from_slice(b"two");
    assert_eq!(second.commit(), Ok(128));
    assert_eq!(
        texts(&mut subscription),
        Vec::<String>::new(),
        "the first one blocks"
    );
    first.set_reserved_value(7);
    assert_eq!(first.commit(), Ok(64));
    drop(publication.try_claim(10).unwrap());
    assert!(publication.offer(b"end").is_accepted());
    assert_eq!(texts(&mut subscription), ["one", "two", "end"]);
    let too_long = publication.max_payload_length() + 1;
    assert!(matches!(publication.try_claim(too_long), Err(Offer::TooLong)));
}

#[test]
fn a_claim_that_the_driver_took_back_can_not_be_committed() {
    let (mut driver, client, _) = start();
    let (publication, fake) = publication(&client, &mut driver);
    let claim = publication.try_claim(20).unwrap();
    let unblocked = fulmar::log::unblock(&fake.log, 0);
    assert!(
        matches!(unblocked, fulmar::log::Unblock::Padded { .. }),
        "{unblocked:?}"
    );
    assert_eq!(claim.commit(), Err(CommitError::ClaimRevoked));
    assert!(publication.offer(b"next").is_accepted());
}

#[test]
fn a_refused_add_carries_the_drivers_words() {
    let (mut driver, client, _) = start();
    let mut pending = client.async_add_publication("aeron:tcp", 10).unwrap();
    let (header, _) = driver.next().unwrap();
    driver.say(&Response::Error {
        correlation_id: header.correlation_id,
        error_code: ErrorCode::InvalidChannel,
        message: Text::from("no such media"),
    });
    match pending.poll() {
        Some(Err(RegistrationError::Refused { code, message })) => {
            assert_eq!(code, ErrorCode::InvalidChannel);
            assert_eq!(message, "no such media");
        }
        other => panic!("{other:?}"),
    }
    assert!(!client.is_closed());
}

#[test]
fn an_answer_that_comes_too_late_is_undone() {
    let (mut driver, client, _) = start();
    let mut pending = client.async_add_publication(IPC, 10).unwrap();
    let id = driver.expect(&say_publication());
    run(&client, &driver, Duration::from_secs(11));
    assert!(matches!(pending.poll(), Some(Err(RegistrationError::Timeout(_)))));
    driver.answer_publication(id, 1, 10, 0);
    client.invoke();
    driver.expect(&Said::RemovePublication {
        id: id.get(),
        revoke: false,
    });
}

#[test]
fn a_request_given_up_before_its_answer_is_undone() {
    let (mut driver, client, _) = start();
    let pending = client
        .async_add_subscription(IPC, 10, ImageHandlers::default())
        .unwrap();
    let id = driver.expect(&say_subscription());
    drop(pending);
    driver.answer_subscription(id);
    client.invoke();
    driver.expect(&Said::RemoveSubscription(id.get()));
}

#[test]
fn a_log_that_can_not_be_opened_fails_the_add_and_gives_the_publication_back() {
    let (mut driver, client, _) = start();
    let (log, good_path) = driver.create_log(900, 1, 10);
    let damaged = |offset: usize, value: i32| {
        let region = log.region();
        let metadata = region.view(region.len() - 4096, 4096);
        metadata.store_relaxed_i32(offset, value);
    };
    for (path, session, term_length, limit) in [
        ("/nowhere/1.logbuffer", 1, TERM_LENGTH, 0),
        (good_path.as_str(), 2, TERM_LENGTH, 0),
        (good_path.as_str(), 1, 77, 0),
        (good_path.as_str(), 1, 1 << 30, 0),
        (good_path.as_str(), 1, TERM_LENGTH, 1_000_000),
        (good_path.as_str(), 1, TERM_LENGTH, -7),
    ] {
        damaged(276, term_length);
        let mut pending: PendingPublication = client.async_add_publication(IPC, 10).unwrap();
        let id = driver.expect(&say_publication());
        let limit = if limit == 0 {
            driver.counter(1, id.get(), 0)
        } else {
            CounterId(limit)
        };
        driver.say(&Response::PublicationReady(PublicationReady {
            correlation_id: id,
            original_registration_id: id.into(),
            session_id: SessionId(session),
            stream_id: StreamId(10),
            position_limit_counter_id: limit,
            channel_status_counter_id: CounterId::NONE,
            log_path: Text::from(path),
        }));
        let result = pending.poll().unwrap();
        assert!(
            matches!(result, Err(RegistrationError::Unusable(_))),
            "{path} {session} {term_length}: {result:?}"
        );
        driver.expect(&Said::RemovePublication {
            id: id.get(),
            revoke: true,
        });
    }
}

#[test]
fn impossible_images_are_reported_and_not_polled() {
    let (mut driver, client, journal) = start();
    let (mut subscription, id) = subscription(&client, &mut driver);
    let (_, path) = driver.create_log(900, 1, 10);
    for (number, (join, path)) in [
        (-32, path.as_str()),
        (33, path.as_str()),
        (i64::MAX & !31, path.as_str()),
        (0, "/etc/passwd"),
    ]
    .into_iter()
    .enumerate()
    {
        let position = driver.counter(4, id.get(), join);
        driver.say(&Response::AvailableImage(AvailableImage {
            image_correlation_id: CorrelationId(800 + number as i64),
            session_id: SessionId(1),
            stream_id: StreamId(10),
            subscription_registration_id: id.into(),
            subscriber_position_counter_id: position,
            log_path: Text::from(path),
            source_identity: Text(b"\xff\xfe"),
        }));
        client.invoke();
        assert_eq!(journal.errors().len(), number + 1);
        assert!(matches!(
            journal.errors()[number],
            ClientError::ImageUnusable { .. }
        ));
    }
    assert_eq!(subscription.poll(|_, _| {}, 10), 0);
    assert!(subscription.has_no_images());
}

#[test]
fn an_image_is_taken_once_and_only_by_its_subscription() {
    let (mut driver, client, _) = start();
    let (_publication, fake) = publication(&client, &mut driver);
    let (subscription, id) = subscription(&client, &mut driver);
    driver.announce_image(&fake, id, 0);
    driver.announce_image(&fake, id, 0);
    driver.announce_image(&fake, CorrelationId(999), 0);
    driver.withdraw_image(&fake, CorrelationId(999));
    client.invoke();
    assert_eq!(subscription.image_count(), 1);
    driver.withdraw_image(&fake, id);
    driver.withdraw_image(&fake, id);
    client.invoke();
    assert_eq!(subscription.image_count(), 0);
}

#[test]
fn nothing_is_stored_for_an_image_that_the_driver_took_away() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    for _ in 0..3 {
        assert!(publication.offer(b"x").is_accepted());
    }
    let inner = client.clone();
    let mut seen = 0;
    subscription.poll(
        |_, _| {
            seen += 1;
            if seen == 2 {
                driver.withdraw_image(&image.publication, image.subscription);
                inner.invoke();
            }
        },
        10,
    );
    assert_eq!(driver.counters.value(image.position), Some(0));
    assert_eq!(subscription.poll(|_, _| seen += 1, 10), 0);
    assert_eq!(subscription.image_count(), 0);
}

#[test]
fn a_corrupt_frame_closes_the_image_and_is_reported_once() {
    let (mut driver, client, journal) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    assert!(publication.offer(b"good").is_accepted());
    for length in [7, TERM_LENGTH, i32::MAX] {
        image
            .publication
            .log
            .term(0)
            .buffer()
            .store_release_i32(64, length);
        assert!(subscription.poll(|_, _| {}, 10) <= 1);
        assert_eq!(subscription.poll(|_, _| {}, 10), 0);
        client.invoke();
    }
    assert_eq!(
        journal.errors(),
        [ClientError::CorruptFrame {
            image: image.publication.id.into(),
            position: 64
        }]
    );
    assert!(subscription.has_no_images());
}

#[test]
fn image_handlers_are_told_in_order_and_may_use_the_client() {
    let (mut driver, client, _) = start();
    let (_publication, fake) = publication(&client, &mut driver);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let (on, off, inner) = (told.clone(), told.clone(), client.clone());
    let handlers = ImageHandlers {
        on_available: Some(Box::new(move |image| {
            on.lock().unwrap().push(format!("+{}", image.session_id));
            // A call into the client from a handler must neither dead-lock nor tell within telling.
            assert!(inner.client_id().get() > 0);
            inner.invoke();
            drop(inner.async_add_publication(IPC, 11).unwrap());
        })),
        on_unavailable: Some(Box::new(move |image| {
            off.lock().unwrap().push(format!("-{}", image.session_id));
        })),
    };
    let mut pending = client.async_add_subscription(IPC, 10, handlers).unwrap();
    let id = driver.expect(&say_subscription());
    driver.answer_subscription(id);
    driver.announce_image(&fake, id, 0);
    driver.withdraw_image(&fake, id);
    let subscription = pending.poll().unwrap().unwrap();
    client.invoke();
    assert_eq!(*told.lock().unwrap(), ["+1", "-1"]);
    drop(subscription);
}

#[test]
fn a_panicking_handler_is_reported_and_the_client_goes_on() {
    let (mut driver, client, journal) = start();
    let (_publication, fake) = publication(&client, &mut driver);
    let handlers = ImageHandlers {
        on_available: Some(Box::new(|_| panic!("by the application"))),
        on_unavailable: None,
    };
    let mut pending = client.async_add_subscription(IPC, 10, handlers).unwrap();
    let id = driver.expect(&say_subscription());
    driver.answer_subscription(id);
    driver.announce_image(&fake, id, 0);
    let subscription = pending.poll().unwrap().unwrap();
    client.invoke();
    assert_eq!(
        journal.errors(),
        [ClientError::HandlerPanicked("by the application".to_owned())]
    );
    assert!(subscription.is_connected());
}

#[test]
fn the_driver_is_told_of_the_position_behind_the_handler() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    assert!(publication.offer(b"a").is_accepted());
    assert!(publication.offer(b"b").is_accepted());
    let mut stored = Vec::new();
    subscription.poll(|_, _| stored.push(driver.counters.value(image.position)), 10);
    assert_eq!(stored, [Some(0), Some(0)], "it may zero what lies before");
    assert_eq!(driver.counters.value(image.position), Some(128));
}

#[test]
fn a_panicking_message_handler_has_had_its_message() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    for text in [b"a", b"b", b"c"] {
        assert!(publication.offer(text).is_accepted());
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        subscription.poll(
            |payload, _| assert!(payload.read_u8(0) != Some(b'b'), "by the application"),
            10,
        )
    }));
    assert!(result.is_err());
    assert_eq!(driver.counters.value(image.position), Some(128));
    assert_eq!(texts(&mut subscription), ["c"]);
}

#[test]
fn counters_are_added_written_and_removed() {
    let (mut driver, client, journal) = start();
    let mut pending = client.async_add_counter(1001, b"key", "label").unwrap();
    let id = driver.expect(&Said::AddCounter(1001, b"key".to_vec(), "label".to_owned()));
    let counter_id = driver.counter(1001, id.get(), 0);
    driver.say(&Response::CounterReady {
        registration_id: id.into(),
        counter_id,
    });
    let counter = pending.poll().unwrap().unwrap();
    counter.set(41);
    assert_eq!(counter.increment(), 41);
    assert_eq!(driver.counters.value(counter_id), Some(42));
    assert_eq!(counter.counter_id(), counter_id);
    assert!(journal.events().contains(&ClientEvent::CounterAvailable {
        registration_id: id.into(),
        counter_id
    }));
    drop(counter);
    driver.expect(&Said::RemoveCounter(id.get()));
    assert!(matches!(
        client.async_add_counter(1001, &[0; 113], ""),
        Err(RegistrationError::Argument { name: "key", .. })
    ));
}

#[test]
fn the_heartbeat_is_kept_and_its_label_tells_the_client() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, _) = connect(&driver);
    let (_publication, _) = publication(&client, &mut driver);
    let heartbeat = driver.create_heartbeat(client.client_id());
    run(&client, &driver, Duration::from_secs(2));
    let age = clock_epoch(&clock) - driver.counters.value(heartbeat).unwrap();
    assert!((0..=600).contains(&age), "{age}");
    let label = client.counters().unwrap().label(heartbeat).unwrap();
    assert!(label.contains(" name="), "{label}");
    assert!(label.contains(" version="), "{label}");
}

fn clock_epoch(clock: &ManualClock) -> i64 {
    clock.now().epoch.0
}

#[test]
fn a_client_that_was_given_up_closes_everything_and_says_so() {
    for by_event in [true, false] {
        let clock = ManualClock::new();
        let mut driver = FakeDriver::start(&clock);
        let (client, journal) = connect(&driver);
        let (publication, _) = publication(&client, &mut driver);
        let (mut subscription, _) = subscription(&client, &mut driver);
        let heartbeat = driver.create_heartbeat(client.client_id());
        run(&client, &driver, Duration::from_secs(1));
        let client_id = client.client_id();
        if by_event {
            driver.say(&Response::ClientTimeout { client_id });
        } else {
            driver.counters.free(fulmar::time::Clock::now(&*clock), heartbeat);
        }
        run(&client, &driver, Duration::from_millis(200));
        assert!(client.is_closed());
        assert_eq!(client.driver_state(), DriverState::Closed);
        assert_eq!(publication.offer(b"x"), Offer::Closed);
        assert!(publication.is_closed());
        assert_eq!(subscription.poll(|_, _| {}, 1), 0);
        assert!(subscription.is_closed());
        assert_eq!(journal.errors(), [ClientError::ClientTimedOut(client_id)]);
        assert!(
            journal
                .events()
                .contains(&ClientEvent::ClientTimedOut { client_id })
        );
        assert!(matches!(
            client.async_add_publication(IPC, 1),
            Err(RegistrationError::Closed)
        ));
    }
}

#[test]
fn a_driver_that_frees_all_counters_on_its_way_out_has_not_given_its_clients_up() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (publication, _) = publication(&client, &mut driver);
    let heartbeat = driver.create_heartbeat(client.client_id());
    run(&client, &driver, Duration::from_secs(1));
    driver.counters.free(fulmar::time::Clock::now(&*clock), heartbeat);
    run(&client, &driver, Duration::from_millis(50));
    driver
        .counters
        .free(fulmar::time::Clock::now(&*clock), fulmar::id::CounterId(0));
    run(&client, &driver, Duration::from_millis(500));
    assert!(!client.is_closed());
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    run_silent(&client, &clock, Duration::from_millis(50));
    assert_eq!(journal.errors(), [ClientError::DriverShutDown]);
    assert_eq!(publication.offer(b"x"), Offer::NotConnected);
}

#[test]
fn the_timeout_of_another_client_means_nothing() {
    let (mut driver, client, journal) = start();
    driver.say(&Response::ClientTimeout {
        client_id: fulmar::id::ClientId(client.client_id().get() + 1),
    });
    run(&client, &driver, Duration::from_secs(1));
    assert!(!client.is_closed());
    assert!(journal.errors().is_empty());
}

#[test]
fn steps_of_the_wall_clock_have_no_effect() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (publication, _) = publication(&client, &mut driver);
    driver.create_heartbeat(client.client_id());
    let year_ms = 365 * 86_400_000i64;
    for step in [
        1_000,
        -1_000,
        20_000,
        -40_000,
        10 * year_ms,
        -20 * year_ms,
        10 * year_ms,
    ] {
        clock.step_wall_clock(step);
        // The driver beats once a second, as drivers do.
        for _ in 0..3 {
            run_silent(&client, &clock, Duration::from_secs(1));
            driver.beat();
        }
        assert!(publication.offer(b"x").is_accepted());
    }
    assert_eq!(journal.errors(), []);
    assert!(
        !journal
            .events()
            .iter()
            .any(|event| matches!(event, ClientEvent::DriverLost { .. } | ClientEvent::DriverStalled))
    );
}

#[test]
fn a_driver_comes_back_and_everything_is_there_again_under_the_same_handles() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (publication, mut subscription, _) = joined(&client, &mut driver);
    assert!(publication.offer(b"before").is_accepted());
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    run_silent(&client, &clock, Duration::from_millis(50));
    assert_eq!(client.driver_state(), DriverState::Lost);
    assert_eq!(publication.offer(b"lost"), Offer::NotConnected);
    assert!(subscription.has_no_images());
    assert_eq!(
        texts(&mut subscription),
        ["before"],
        "what is in the log can still be read"
    );
    assert!(subscription.images().is_empty(), "and then the image is gone");

    // What is asked for meanwhile waits for the next driver.
    let mut waiting = client.async_add_exclusive_publication(IPC, 12).unwrap();
    assert!(waiting.poll().is_none());

    let mut driver = FakeDriver::start_in(driver.directory, &clock, 78);
    run(&client, &driver, Duration::from_millis(50));
    let publication_id = driver.expect(&say_publication());
    let subscription_id = driver.expect(&say_subscription());
    let exclusive_id = driver.expect(&Said::AddExclusivePublication(IPC.to_owned(), 12));
    let fake = driver.answer_publication(publication_id, 42, 10, 1 << 20);
    driver.answer_subscription(subscription_id);
    driver.announce_image(&fake, subscription_id, 0);
    driver.answer_publication(exclusive_id, 43, 12, 1 << 20);
    client.invoke();
    assert!(waiting.poll().unwrap().is_ok());
    assert_eq!(publication.offer(b"after"), Offer::Position(64));
    assert_eq!(publication.session_id(), SessionId(42));
    assert_eq!(
        publication.registration_id(),
        RegistrationId(publication_id.get())
    );
    assert_eq!(texts(&mut subscription), ["after"]);
    assert_eq!(journal.errors(), [ClientError::DriverShutDown]);
    let events = journal.events();
    assert_eq!(
        events[0],
        ClientEvent::DriverLost {
            reason: DriverLossReason::ShutDown
        }
    );
    assert_eq!(
        events[1],
        ClientEvent::Reattached {
            client_id: client.client_id()
        }
    );
}

#[test]
fn a_claim_made_before_the_driver_was_lost_can_not_be_committed_after() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, _) = connect(&driver);
    let (publication, _) = publication(&client, &mut driver);
    let claim = publication.try_claim(8).unwrap();
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    run_silent(&client, &clock, Duration::from_millis(50));
    assert_eq!(claim.commit(), Err(CommitError::Closed));
}

#[test]
fn a_handle_that_the_next_driver_refuses_is_closed_and_reported() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (publication, _) = publication(&client, &mut driver);
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    run_silent(&client, &clock, Duration::from_millis(50));
    let mut driver = FakeDriver::start_in(driver.directory, &clock, 78);
    run(&client, &driver, Duration::from_millis(50));
    let id = driver.expect(&say_publication());
    driver.say(&Response::Error {
        correlation_id: id,
        error_code: ErrorCode::StorageSpace,
        message: Text::from("full"),
    });
    client.invoke();
    assert_eq!(publication.offer(b"x"), Offer::Closed);
    assert!(matches!(
        journal.errors()[..],
        [ClientError::DriverShutDown, ClientError::ReattachFailed { .. }]
    ));
    assert!(!client.is_closed());
}

#[test]
fn without_reattachment_a_lost_driver_closes_the_client() {
    let clock = ManualClock::new();
    let driver = FakeDriver::start(&clock);
    let journal = Journal::default();
    let client = Client::connect_with(
        ClientSettings {
            reattach: false,
            ..settings(&journal)
        },
        Arc::new(driver.directory.clone()),
        clock.clone(),
    )
    .unwrap();
    run_silent(&client, &clock, Duration::from_secs(11));
    assert!(client.is_closed());
    assert!(matches!(journal.errors()[..], [ClientError::DriverSilent(_)]));
}

#[test]
fn a_silent_driver_is_first_stalled_then_lost_and_the_same_one_is_taken_back_when_it_moves() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    assert!(publication.offer(b"before").is_accepted());
    assert!(publication.offer(b"still there").is_accepted());
    run_silent(&client, &clock, Duration::from_secs(5));
    assert_eq!(client.driver_state(), DriverState::Stalled);
    run_silent(&client, &clock, Duration::from_secs(6));
    assert_eq!(client.driver_state(), DriverState::Lost);
    run_silent(&client, &clock, Duration::from_secs(1));
    assert_eq!(client.driver_state(), DriverState::Lost);
    assert_eq!(subscription.poll(|_, _| {}, 1), 1, "what is there can be read");
    assert_eq!(
        driver.counters.value(image.position),
        Some(0),
        "a lost driver is told nothing"
    );
    run(&client, &driver, Duration::from_millis(100));
    assert_eq!(client.driver_state(), DriverState::Active);
    assert!(driver.next().is_some(), "asks again");
    assert_eq!(
        texts(&mut subscription),
        [""; 0],
        "a live log is read through its new image alone"
    );
    assert!(matches!(
        journal.events()[..],
        [
            ClientEvent::DriverStalled,
            ClientEvent::DriverLost {
                reason: DriverLossReason::Silent
            },
            ClientEvent::Reattached { .. }
        ]
    ));
}

#[test]
fn losing_driver_events_ends_the_client() {
    let (mut driver, client, journal) = start();
    let (publication, _) = publication(&client, &mut driver);
    for number in 0..5_000 {
        driver.say(&Response::UnavailableCounter {
            registration_id: RegistrationId(number),
            counter_id: CounterId(1),
        });
    }
    client.invoke();
    assert!(client.is_closed());
    assert_eq!(journal.errors(), [ClientError::EventsLost]);
    assert_eq!(publication.offer(b"x"), Offer::Closed);
}

#[test]
fn responses_that_make_no_sense_are_ignored() {
    let (mut driver, client, journal) = start();
    let (publication, fake) = publication(&client, &mut driver);
    for type_id in (0x0F00..0x0F20).chain([1, i32::MAX]) {
        for length in [0usize, 3, 8, 12, 16, 36, 100] {
            driver.transmitter.transmit(type_id, &vec![0xFF; length]).unwrap();
            client.invoke();
        }
    }
    // A second ready for what is ready already.
    driver.say(&Response::SubscriptionReady {
        correlation_id: fake.id,
        channel_status_counter_id: CounterId(9),
    });
    client.invoke();
    assert!(publication.offer(b"x").is_accepted());
    assert!(journal.errors().is_empty());
}

#[test]
fn an_exclusive_publication_follows_the_log_over_terms() {
    let (mut driver, client, _) = start();
    let mut pending = client.async_add_exclusive_publication(IPC, 10).unwrap();
    let id = driver.expect(&Said::AddExclusivePublication(IPC.to_owned(), 10));
    let fake = driver.answer_publication(id, 1, 10, i64::MAX);
    let mut publication = pending.poll().unwrap().unwrap();
    let (mut subscription, id) = subscription(&client, &mut driver);
    driver.announce_image(&fake, id, 0);
    client.invoke();
    let message = [7u8; 1000];
    let mut admin_actions = 0;
    let mut received = 0;
    for _ in 0..150 {
        loop {
            match publication.offer(&message) {
                Offer::Position(_) => break,
                Offer::AdminAction => admin_actions += 1,
                other => panic!("{other:?}"),
            }
        }
        received += subscription.poll(|payload, _| assert!(payload.eq_bytes(&message)), 10);
    }
    assert!(publication.append_padding(100).is_accepted());
    assert!(publication.offer(b"end").is_accepted());
    let mut claim = publication.try_claim(4).unwrap();
    claim.copy_from_slice(b"last");
    let end = claim.commit().unwrap();
    assert_eq!(publication.position(), Some(end));
    let mut rest = texts(&mut subscription);
    received += 2;
    assert_eq!(rest.split_off(rest.len() - 2), ["end", "last"]);
    assert_eq!(received, 152);
    assert_eq!(admin_actions, 2);
    publication.revoke();
    driver.expect(&Said::RemovePublication {
        id: fake.id.get(),
        revoke: true,
    });
}

#[test]
fn blocks_and_bounds_are_kept() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, fake) = joined(&client, &mut driver);
    for _ in 0..4 {
        assert!(publication.offer(b"x").is_accepted());
    }
    let image = &mut subscription.images()[0];
    let mut seen = 0;
    assert_eq!(image.bounded_poll(|_, _| seen += 1, 0, 10), 0);
    assert_eq!(image.bounded_poll(|_, _| seen += 1, 65, 10), 2);
    assert_eq!(image.position(), 128);
    assert!(image.set_position(100).is_err());
    assert!(image.set_position(130).is_err());
    assert_eq!(image.set_position(192), Ok(()));
    let mut blocks = Vec::new();
    assert_eq!(
        image.block_poll(|block| blocks.push((block.position, block.frames.len())), 1000),
        64
    );
    assert_eq!(blocks, [(192, 64)]);
    assert_eq!(image.block_poll(|_| {}, 1000), 0);
    assert!(!image.is_end_of_stream());
    fake.publication.log.metadata().set_end_of_stream_position(256);
    assert!(image.is_end_of_stream());
}

#[test]
fn reserved_values_travel_with_each_fragment() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, _) = joined(&client, &mut driver);
    assert!(
        publication
            .offer_with(&[1; 3000], |frame| i64::from(frame.offset()) + 5)
            .is_accepted()
    );
    let mut reserved = Vec::new();
    subscription.poll_fragments(|_, header| reserved.push(header.reserved_value()), 10);
    assert_eq!(reserved, [5, 1408 + 5, 2816 + 5]);
}

#[test]
fn handles_of_one_log_in_several_threads_share_the_stream() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    std::thread::scope(|scope| {
        for number in 0..3u8 {
            let handle = publication.clone();
            scope.spawn(move || {
                for count in 0..100u8 {
                    assert!(handle.offer(&[number, count]).is_accepted());
                }
            });
        }
    });
    let mut next = [0u8; 3];
    while subscription.poll(
        |payload, _| {
            let number = usize::from(payload.read_u8(0).unwrap());
            assert_eq!(
                payload.read_u8(1),
                Some(next[number]),
                "in each publisher's order"
            );
            next[number] += 1;
        },
        10,
    ) > 0
    {}
    assert_eq!(next, [100; 3]);
    drop(publication);
    assert_eq!(
        driver.next().map(|(_, command)| command),
        Some(Said::RemovePublication {
            id: image.publication.id.get(),
            revoke: false
        }),
        "once, after the last handle"
    );
}

#[test]
fn a_foreign_appender_and_our_image_agree() {
    let (mut driver, client, _) = start();
    let (_publication, fake) = publication(&client, &mut driver);
    let (mut subscription, id) = subscription(&client, &mut driver);
    let appender = fulmar::log::ConcurrentAppender::new(fake.log.clone(), 0);
    let _ = appender.offer(&NoWindow, &b"unread"[..], &NoReservedValue, i64::MAX);
    driver.announce_image(&fake, id, 64);
    client.invoke();
    let _ = appender.offer(&NoWindow, &b"read"[..], &NoReservedValue, i64::MAX);
    assert_eq!(texts(&mut subscription), ["read"]);
    assert_eq!(subscription.images()[0].join_position(), 64);
}

#[test]
fn destinations_are_added_again_at_the_next_driver() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, _) = connect(&driver);
    let (publication, fake) = publication(&client, &mut driver);
    let mut pending = publication
        .async_add_destination("aeron:udp?endpoint=a:1")
        .unwrap();
    let expected = Said::AddDestination(fake.id.get(), "aeron:udp?endpoint=a:1".to_owned());
    let id = driver.expect(&expected);
    assert!(pending.poll().is_none());
    driver.say(&Response::OperationSuccess { correlation_id: id });
    assert_eq!(pending.poll(), Some(Ok(id.into())));
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    run_silent(&client, &clock, Duration::from_millis(50));
    let mut driver = FakeDriver::start_in(driver.directory, &clock, 78);
    run(&client, &driver, Duration::from_millis(50));
    let id = driver.expect(&say_publication());
    driver.answer_publication(id, 2, 10, 0);
    client.invoke();
    driver.expect(&Said::AddDestination(
        id.get(),
        "aeron:udp?endpoint=a:1".to_owned(),
    ));
}

#[test]
fn connecting_without_a_driver_ends_with_the_reason() {
    let clock: Arc<dyn fulmar::time::Clock> = Arc::new(fulmar::time::SystemClock);
    let directory = fulmar::directory::MemDirectory::new(DIRECTORY);
    let journal = Journal::default();
    let result = Client::connect_with(
        ClientSettings {
            driver_timeout: Duration::from_millis(30),
            ..settings(&journal)
        },
        Arc::new(directory),
        clock,
    );
    assert!(matches!(result, Err(ClientError::DriverTimeout { .. })));
}

/// A simulated world must not depend on what the machine says about processes, nor wait for time that does not pass.
#[test]
fn in_memory_neither_the_machine_nor_real_time_is_asked() {
    struct StandingClock(fulmar::time::Now);
    impl fulmar::time::Clock for StandingClock {
        fn now(&self) -> fulmar::time::Now {
            self.0
        }

        fn passes(&self) -> bool {
            false
        }
    }
    let clock = ManualClock::new();
    let standing = |clock: &ManualClock| Arc::new(StandingClock(fulmar::time::Clock::now(clock)));
    let current = fulmar::agent::ProcessId::current();
    let gone = fulmar::agent::ProcessId {
        start_time_ticks: 1,
        ..current
    };
    let unknown = fulmar::agent::ProcessId {
        namespace: 0,
        ..current
    };
    let mut drivers = [gone, unknown].map(|process| {
        let driver = FakeDriver::start(&clock);
        driver.extend_as(process);
        // The heartbeat says nothing, either.
        clock.step_wall_clock(3_600_000);
        let client = Client::connect_with(
            settings(&Journal::default()),
            Arc::new(driver.directory.clone()),
            standing(&clock),
        )
        .unwrap();
        client.invoke();
        assert_eq!(client.driver_state(), DriverState::Active);
        driver
    });
    let driver = &mut drivers[0];
    driver.cnc.set_driver_heartbeat(fulmar::time::EpochMs(-1));
    let result = Client::connect_with(
        settings(&Journal::default()),
        Arc::new(driver.directory.clone()),
        standing(&clock),
    );
    assert!(
        matches!(
            &result,
            Err(ClientError::DriverTimeout {
                waited: Duration::ZERO,
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn a_client_that_has_let_go_of_everything_is_still_kept_alive() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, _) = connect(&driver);
    let (publication, _) = publication(&client, &mut driver);
    let heartbeat = driver.create_heartbeat(client.client_id());
    client.invoke();
    drop(publication);
    run(&client, &driver, Duration::from_secs(20));
    let age = clock_epoch(&clock) - driver.counters.value(heartbeat).unwrap();
    assert!((0..=600).contains(&age), "{age}");
}

#[test]
fn a_driver_that_was_replaced_is_left_for_its_successor() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    let (_publication, _) = publication(&client, &mut driver);
    clock.advance(Duration::from_millis(1));
    let mut driver = FakeDriver::start_in(driver.directory, &clock, 77);
    run(&client, &driver, Duration::from_millis(1_500));
    driver.expect(&say_publication());
    assert_eq!(journal.errors(), [ClientError::DriverReplaced]);
}

#[test]
fn a_removal_that_finds_the_ring_full_is_sent_later() {
    let (mut driver, client, _) = start();
    let (publication, fake) = publication(&client, &mut driver);
    let (subscription, id) = subscription(&client, &mut driver);
    let filler = [0u8; 1000];
    while driver.cnc.to_driver_ring().write(6, &filler).is_ok() {}
    while driver.cnc.to_driver_ring().write(6, &filler[..16]).is_ok() {}
    drop(publication);
    drop(subscription);
    assert!(matches!(
        client.async_add_publication(IPC, 11),
        Err(RegistrationError::RingFull)
    ));
    while let Some((_, command)) = driver.next() {
        assert_eq!(command, Said::Other(6));
    }
    run(&client, &driver, Duration::from_millis(30));
    driver.expect(&Said::RemovePublication {
        id: fake.id.get(),
        revoke: false,
    });
    driver.expect(&Said::RemoveSubscription(id.get()));
}

#[test]
fn an_answer_of_the_wrong_kind_completes_nothing() {
    let (mut driver, client, _) = start();
    let mut pending = client.async_add_publication(IPC, 10).unwrap();
    let id = driver.expect(&say_publication());
    driver.answer_subscription(id);
    driver.say(&Response::StaticCounter {
        correlation_id: id,
        counter_id: CounterId(1),
    });
    assert!(pending.poll().is_none());
    driver.answer_publication(id, 1, 10, 0);
    assert!(pending.poll().unwrap().is_ok());
}

#[test]
fn an_error_of_a_channel_reaches_those_who_use_it() {
    let (mut driver, client, journal) = start();
    let mut pending = client
        .async_add_subscription("aeron:udp?endpoint=a:1", 10, ImageHandlers::default())
        .unwrap();
    let (header, _) = driver.next().unwrap();
    let status = driver.counter(7, header.correlation_id.get(), 1);
    driver.say(&Response::SubscriptionReady {
        correlation_id: header.correlation_id,
        channel_status_counter_id: status,
    });
    let subscription = pending.poll().unwrap().unwrap();
    assert_eq!(subscription.channel_status(), ChannelStatus::Active);
    for id in [status.get() + 1, status.get()] {
        driver.say(&Response::Error {
            correlation_id: CorrelationId(i64::from(id)),
            error_code: ErrorCode::ChannelEndpointError,
            message: Text::from("bind"),
        });
    }
    client.invoke();
    assert_eq!(
        journal.errors(),
        [ClientError::ChannelError {
            status,
            message: "bind".to_owned()
        }]
    );
}

#[test]
fn truncated_files_close_what_lived_in_them_and_nothing_else() {
    let clock = ManualClock::new();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("aeron").to_str().unwrap().to_owned();
    let mut driver = FakeDriver::start_in(fulmar::directory::FsDirectory::new(path.clone()), &clock, 77);
    let (client, journal) = connect(&driver);
    let (damaged, fake) = publication(&client, &mut driver);
    let (intact, _) = publication(&client, &mut driver);
    let (mut subscription, id) = subscription(&client, &mut driver);
    driver.announce_image(&fake, id, 0);
    client.invoke();
    assert!(damaged.offer(b"x").is_accepted());
    let truncate = |path: &str| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(0)
            .unwrap();
    };
    truncate(&fake.path);
    // Both ends live on; what they do there from now on goes nowhere.
    let _ = damaged.offer(b"x");
    subscription.poll(|_, _| {}, 10);
    run(&client, &driver, Duration::from_millis(250));
    assert_eq!(damaged.offer(b"x"), Offer::Closed);
    assert!(subscription.has_no_images());
    assert!(intact.offer(b"x").is_accepted());
    let log = ClientError::LogDamaged(fake.id.into());
    assert_eq!(journal.errors(), [log.clone(), log]);

    driver.create_heartbeat(client.client_id());
    client.invoke();
    truncate(&format!("{path}/cnc.dat"));
    run_silent(&client, &clock, Duration::from_millis(100));
    assert_eq!(journal.errors().last(), Some(&ClientError::CncDamaged));
    assert_eq!(intact.offer(b"x"), Offer::NotConnected);
    assert!(!client.is_closed());
}

#[test]
fn a_handler_may_hold_the_last_of_the_client() {
    let (mut driver, client, journal) = start();
    let inner = client.clone();
    let handlers = ImageHandlers {
        on_available: Some(Box::new(move |_| assert!(!inner.is_closed()))),
        on_unavailable: None,
    };
    let mut pending = client.async_add_subscription(IPC, 10, handlers).unwrap();
    let id = driver.expect(&say_subscription());
    driver.answer_subscription(id);
    let subscription = pending.poll().unwrap().unwrap();
    drop(pending);
    drop(client);
    drop(subscription);
    driver.expect(&Said::RemoveSubscription(id.get()));
    driver.expect(&Said::Close);
    assert_eq!(journal.events().last(), Some(&ClientEvent::Closed));
}

#[test]
fn a_driver_of_ours_knows_who_publishes_and_is_woken_before_the_window_is_used_up() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let extension = driver.extend();
    let (client, _) = connect(&driver);
    assert_eq!(extension.clients().count(), 1);
    let (publication, fake) = publication(&client, &mut driver);
    let window = i64::from(TERM_LENGTH / 2);
    driver.counters.set_value(fake.limit, 64);
    assert!(publication.offer(b"x").is_accepted());
    assert_eq!(publication.offer(b"x"), Offer::BackPressured);
    driver.counters.set_value(fake.limit, window);

    let owners: Vec<_> = extension.owners().collect();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].client_id, client.client_id());
    assert_eq!(owners[0].registration_id, fake.id.into());
    assert_eq!(owners[0].window, fulmar::cnc::extension::Window::None);

    let rung = extension.doorbell().sequence();
    let mut first_ring = None;
    let mut position = 64;
    while position < window {
        position = publication.offer(b"x").position().unwrap();
        if first_ring.is_none() && extension.doorbell().sequence() != rung {
            first_ring = Some(position);
        }
    }
    let first_ring = first_ring.unwrap();
    assert!(
        first_ring > window * 3 / 4 && first_ring <= window * 3 / 4 + 64,
        "{first_ring}"
    );
    assert_eq!(
        extension.doorbell().sequence(),
        rung + 1,
        "once, until the limit is reached"
    );
    assert_eq!(publication.offer(b"x"), Offer::BackPressured);
    assert_ne!(extension.doorbell().sequence(), rung + 1);

    let second = publication.clone();
    assert_eq!(second.offer(b"x"), Offer::BackPressured);
    assert_eq!(extension.owners().count(), 2);
    drop(second);
    assert_eq!(extension.owners().count(), 1);
    drop(publication);
    assert_eq!(extension.owners().count(), 0);
    client.close();
    drop(client);
    assert_eq!(extension.clients().count(), 0);
}

#[test]
fn a_reader_left_behind_stores_nothing_into_a_counter_of_somebody_else() {
    let clock = ManualClock::new();
    let mut driver = FakeDriver::start(&clock);
    let (client, journal) = connect(&driver);
    driver.counter(0, 0, 0);
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    for _ in 0..3 {
        assert!(publication.offer(b"x").is_accepted());
    }
    let mut seen = 0;
    subscription.poll(
        |_, _| {
            seen += 1;
            if seen == 1 {
                assert!(driver.counters.free(clock.now(), image.position));
                clock.advance(Duration::from_secs(2));
                let next = driver.counter(4, 4711, 12345);
                assert_eq!(next, image.position, "the id is used again");
            }
        },
        2,
    );
    assert_eq!(driver.counters.value(image.position), Some(12345));
    assert_eq!(subscription.poll(|_, _| {}, 10), 0, "its log may be overwritten");
    run(&client, &driver, Duration::from_millis(250));
    assert_eq!(
        journal.errors(),
        [ClientError::ImageLapped {
            image: image.publication.id.into(),
            position: 0
        }]
    );
    assert!(subscription.has_no_images());
}

#[test]
fn a_reader_whose_log_was_overwritten_stops_and_says_so_once() {
    let (mut driver, client, journal) = start();
    let (publication, mut subscription, image) = joined(&client, &mut driver);
    assert!(publication.offer(b"x").is_accepted());
    // A header of the term that uses this partition next: stream and term id are its third word.
    image
        .publication
        .log
        .term(0)
        .buffer()
        .store_release_i32(20, 5 + 3);
    for _ in 0..2 {
        assert_eq!(subscription.poll(|_, _| panic!("not of this position"), 10), 0);
        client.invoke();
    }
    assert_eq!(
        journal.errors(),
        [ClientError::ImageLapped {
            image: image.publication.id.into(),
            position: 0
        }]
    );
    assert_eq!(driver.counters.value(image.position), Some(0));
    assert!(subscription.has_no_images());
    assert!(
        driver.next().is_none(),
        "the other readers of the stream do not pay for it"
    );
}

#[test]
fn a_poll_ends_when_its_handler_closes_the_client() {
    let (mut driver, client, _) = start();
    let (publication, mut subscription, _) = joined(&client, &mut driver);
    for _ in 0..3 {
        assert!(publication.offer(b"x").is_accepted());
    }
    let mut seen = 0;
    let close = client.clone();
    subscription.poll(
        |_, _| {
            seen += 1;
            close.close();
        },
        10,
    );
    assert_eq!(seen, 1);
    assert!(subscription.is_closed());
}

/// Uses the client when it is dropped, which only works where no lock of the client is held.
struct AsksWhenDropped(Client, Arc<Mutex<usize>>);

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.is_closed();
        *self.1.lock().unwrap() += 1;
    }
}

#[test]
fn handlers_of_a_failed_add_are_dropped_where_no_lock_is_held() {
    let (mut driver, client, _) = start();
    let dropped: Arc<Mutex<usize>> = Arc::default();
    let handlers = || {
        let asks = AsksWhenDropped(client.clone(), dropped.clone());
        ImageHandlers {
            on_available: Some(Box::new(move |_| assert!(!asks.0.is_closed()))),
            on_unavailable: None,
        }
    };
    let mut refused = client.async_add_subscription(IPC, 10, handlers()).unwrap();
    let id = driver.expect(&say_subscription());
    driver.say(&Response::Error {
        correlation_id: id,
        error_code: ErrorCode::GenericError,
        message: Text::from("no"),
    });
    assert!(matches!(
        refused.poll(),
        Some(Err(RegistrationError::Refused { .. }))
    ));
    assert_eq!(*dropped.lock().unwrap(), 1);
    client.close();
    let late = client.async_add_subscription(IPC, 10, handlers());
    assert!(matches!(late, Err(RegistrationError::Closed)));
    assert_eq!(*dropped.lock().unwrap(), 2);
}
