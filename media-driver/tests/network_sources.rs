//! Subscriptions with sources beside a plain endpoint: spies, several destinations, one session, response channels; and
//! how streams end.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use std::sync::{Arc, Mutex};

use fulmar::control::ErrorCode;
use fulmar::{Client, ClientError, ClientSettings};
use loopback::{
    STREAM, assert_refused, client, driver, exchange, port_of, stream, stream_from, subscribe, until,
};

#[test]
fn a_spy_sees_what_is_sent_and_connects_a_publication_that_allows_it() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let channel = "aeron:udp?endpoint=127.0.0.1:40321|ssc=true";
    let mut spy = subscriber
        .add_subscription(&format!("aeron-spy:{channel}"), STREAM)
        .unwrap();
    let mut publication = publisher.add_publication(channel, STREAM).unwrap();
    until("the spy connects it", || publication.is_connected());
    stream(&mut publication, &mut [&mut spy], 300);
    assert_eq!(spy.images()[0].source_identity(), "aeron:ipc");
    publication.close();
    until("the spy's image is gone", || spy.has_no_images());
}

#[test]
fn a_spy_on_one_session_sees_no_other() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let channel = "aeron:udp?endpoint=127.0.0.1:40325|ssc=true";
    let spy_on = |params: &str| {
        subscriber
            .add_subscription(&format!("aeron-spy:{channel}{params}"), STREAM)
            .unwrap()
    };
    let (mut all, mut one) = (spy_on(""), spy_on("|session-id=77"));
    let publish = |session: i32| {
        publisher
            .add_exclusive_publication(&format!("{channel}|session-id={session}"), STREAM)
            .unwrap()
    };
    let (mut other, mut wanted) = (publish(78), publish(77));
    until("the images are there", || {
        all.image_count() == 2 && one.is_connected()
    });
    stream(&mut other, &mut [&mut all], 10);
    stream(&mut wanted, &mut [&mut all, &mut one], 10);
    assert_eq!(one.image_count(), 1);
}

#[test]
fn a_spy_beside_a_receiver_reads_the_same() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}|tags=17");
    let mut publication = publisher.add_exclusive_publication(&channel, STREAM).unwrap();
    // By the tag alone.
    let mut spy = subscriber
        .add_subscription(
            &format!("aeron-spy:aeron:udp?endpoint=127.0.0.1:{port}|tags=17"),
            STREAM,
        )
        .unwrap();
    until("both are connected", || {
        subscription.is_connected() && spy.is_connected()
    });
    stream(&mut publication, &mut [&mut subscription, &mut spy], 200);
}

#[test]
fn several_destinations_of_a_subscription_make_one_image_of_a_session() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let mut subscription = subscriber
        .add_subscription("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    let mut ports = Vec::new();
    for _ in 0..2 {
        subscription
            .add_destination("aeron:udp?endpoint=127.0.0.1:0")
            .unwrap();
        until("the destination has an address", || {
            subscription.local_addresses().len() > ports.len()
        });
        let address = subscription
            .local_addresses()
            .into_iter()
            .find(|address| !ports.contains(address))
            .unwrap();
        ports.push(address);
    }
    let mut publication = publisher
        .add_publication("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    for address in &ports {
        let destination = format!("aeron:udp?endpoint={address}");
        publication.add_destination(&destination).unwrap();
    }
    until("it is connected", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 200);
    assert_eq!(subscription.image_count(), 1);
    until("both transports were seen", || {
        subscription.images()[0].active_transport_count() == 2
    });
    // Without a word more from one of them the stream goes on.
    subscription
        .remove_destination("aeron:udp?endpoint=127.0.0.1:0")
        .unwrap();
    stream_from(&mut publication, &mut [&mut subscription], 200, 100);
}

#[test]
fn ipc_and_a_spy_can_be_destinations_too() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let mut subscription = subscriber
        .add_subscription("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    let spied = "aeron:udp?endpoint=127.0.0.1:40322|ssc=true";
    let mut publication = publisher.add_publication(spied, STREAM).unwrap();
    let destination = format!("aeron-spy:{spied}");
    subscription.add_destination(&destination).unwrap();
    until("the spy sees it", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 20);
    subscription.remove_destination(&destination).unwrap();
    until("the spy's image is gone", || subscription.has_no_images());
    let mut publication = publisher.add_publication("aeron:ipc", STREAM).unwrap();
    subscription.add_destination("aeron:ipc").unwrap();
    until("the log is read", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 20);
}

#[test]
fn a_subscription_to_one_session_takes_no_other() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut all, port) = subscribe(&subscriber, "127.0.0.1", "|tags=9");
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
    // The same socket, by its tag.
    let mut one = subscriber
        .add_subscription("aeron:udp?tags=9|session-id=77", STREAM)
        .unwrap();
    let mut other = publisher
        .add_exclusive_publication(&format!("{channel}|session-id=78"), STREAM)
        .unwrap();
    let mut wanted = publisher
        .add_exclusive_publication(&format!("{channel}|session-id=77"), STREAM)
        .unwrap();
    until("both images are there", || {
        all.image_count() == 2 && one.is_connected()
    });
    stream(&mut other, &mut [&mut all], 10);
    stream(&mut wanted, &mut [&mut all, &mut one], 10);
    assert_eq!(one.image_count(), 1);
    // Explicit sessions are unique on a channel and stream.
    let refused = publisher.add_exclusive_publication(&format!("{channel}|session-id=77"), STREAM);
    assert_refused(refused, ErrorCode::InvalidChannel);
}

#[test]
fn publications_are_shared_by_channel_and_by_tag() {
    let driver = driver(&[]);
    let publisher = client(&driver);
    let channel = "aeron:udp?endpoint=127.0.0.1:40323|tags=5,6";
    let first = publisher.add_publication(channel, STREAM).unwrap();
    let same = publisher.add_publication(channel, STREAM).unwrap();
    assert_eq!(same.original_registration_id(), first.original_registration_id());
    let by_tag = publisher.add_publication("aeron:udp?tags=5", STREAM).unwrap();
    assert_eq!(
        by_tag.original_registration_id(),
        first.original_registration_id()
    );
    // The identity of a publication, on another channel.
    let copied = publisher
        .add_publication("aeron:udp?endpoint=127.0.0.1:40324|session-id=tag:6", STREAM)
        .unwrap();
    assert_eq!(copied.session_id(), first.session_id());
    let refused = publisher.add_publication("aeron:udp?tags=999", STREAM);
    assert_refused(refused, ErrorCode::GenericError);
}

#[test]
fn a_revoked_publication_ends_its_images_at_once() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
    let mut publication = publisher.add_exclusive_publication(&channel, STREAM).unwrap();
    stream(&mut publication, &mut [&mut subscription], 10);
    publication.revoke();
    until("the image is gone", || subscription.has_no_images());
    let counters = publisher.counters().unwrap();
    assert_eq!(counters.value(fulmar::id::CounterId(40)), Some(1));
    assert_eq!(counters.value(fulmar::id::CounterId(41)), Some(1));
}

#[test]
fn the_publisher_learns_that_its_stream_was_rejected() {
    let driver = driver(&[]);
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&errors);
    let publisher = Client::connect(ClientSettings {
        dir: driver.dir().to_owned(),
        on_error: Some(Arc::new(move |error| {
            if let ClientError::PublicationError { message, .. } = error {
                seen.lock().unwrap().push(message.clone());
            }
        })),
        ..ClientSettings::default()
    })
    .unwrap();
    let subscriber = client(&driver);
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
    let mut publication = publisher.add_exclusive_publication(&channel, STREAM).unwrap();
    stream(&mut publication, &mut [&mut subscription], 10);
    subscription.images()[0].reject("not today").unwrap();
    until("the publisher is told", || !errors.lock().unwrap().is_empty());
    assert_eq!(errors.lock().unwrap()[0], "not today");
    until("it is not connected any more", || !publication.is_connected());
}

#[test]
fn a_server_answers_each_client_on_a_channel_of_its_own() {
    let (near, far) = (driver(&[]), driver(&[]));
    let (asker, server) = (client(&near), client(&far));
    let mut exchange = exchange(&asker, &server);
    stream(&mut exchange.request, &mut [&mut exchange.requests], 20);
    stream(&mut exchange.response, &mut [&mut exchange.responses], 200);
}

#[test]
fn everything_goes_when_clients_and_publications_go() {
    let driver = driver(&[]);
    let watcher = client(&driver);
    let counters = watcher.counters().unwrap();
    // A counter of its own makes the watcher known to the driver.
    let _kept = watcher.add_counter(2000, b"", "kept").unwrap();
    let live = || {
        let mut live = 0;
        counters.for_each(|_| live += 1);
        live
    };
    let before = live();
    for round in 0..3 {
        let (publisher, subscriber) = (client(&driver), client(&driver));
        let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}|linger=0");
        let mut publication = publisher.add_publication(&channel, STREAM).unwrap();
        stream(&mut publication, &mut [&mut subscription], 5);
        drop(publication);
        until("the image is gone", || subscription.has_no_images());
        drop(subscription);
        publisher.close();
        subscriber.close();
        until(&format!("nothing is left of round {round}"), || live() == before);
    }
}

#[test]
fn a_name_that_nobody_knows_holds_no_other_client_up() {
    let driver = driver(&[]);
    let (asker, other) = (client(&driver), client(&driver));
    let lookup = asker
        .async_add_publication("aeron:udp?endpoint=no-such-host.invalid:40400", STREAM)
        .unwrap();
    let subscription = other
        .add_subscription("aeron:udp?endpoint=localhost:0", STREAM)
        .unwrap();
    assert!(port_of(&subscription) > 0);
    let mut lookup = lookup;
    let mut outcome = None;
    until("the look-up failed", || {
        outcome = lookup.poll();
        outcome.is_some()
    });
    assert_refused(outcome.unwrap(), ErrorCode::UnknownHost);
}
