//! Names that come to mean another address while they are in use.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use fulmar::counters::SystemCounter;
use fulmar_media_driver::MediaDriver;
use loopback::{STREAM, client, driver, stream, subscribe, until};

/// A driver for which `moved` is at 127.0.0.2 first, and at 127.0.0.1 when it is asked again.
fn driver_with_names() -> MediaDriver {
    driver(&[
        ("aeron.name.resolver.supplier", "csv_table"),
        (
            "aeron.name.resolver.init.args",
            "moved,endpoint,127.0.0.2,127.0.0.1|moved,control,127.0.0.2,127.0.0.1",
        ),
    ])
}

fn resolution_changes(driver: &MediaDriver) -> i64 {
    let counters = client(driver).counters().unwrap();
    counters
        .value(SystemCounter::ResolutionChanges.counter_id())
        .unwrap()
}

#[test]
fn a_publication_finds_a_receiver_that_moved() {
    let driver = driver_with_names();
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=moved:{port}");
    let mut publication = publisher.add_publication(&channel, STREAM).unwrap();
    until("the name was looked up again", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 50);
    assert_eq!(resolution_changes(&driver), 1);
}

#[test]
fn a_destination_finds_a_receiver_that_moved() {
    let driver = driver_with_names();
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let mut publication = publisher
        .add_publication("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    publication
        .add_destination(&format!("aeron:udp?endpoint=moved:{port}"))
        .unwrap();
    until("the name was looked up again", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 50);
    assert_eq!(resolution_changes(&driver), 1);
}

#[test]
fn a_subscription_finds_a_publisher_that_moved() {
    let driver = driver_with_names();
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let mut publication = publisher
        .add_publication("aeron:udp?control=127.0.0.1:0|control-mode=dynamic", STREAM)
        .unwrap();
    let control = publication.local_addresses().remove(0);
    let port = control.rsplit(':').next().unwrap();
    let mut subscription = subscriber
        .add_subscription(
            &format!("aeron:udp?endpoint=127.0.0.1:0|control=moved:{port}|control-mode=dynamic"),
            STREAM,
        )
        .unwrap();
    until("the name was looked up again", || subscription.is_connected());
    stream(&mut publication, &mut [&mut subscription], 50);
    assert_eq!(resolution_changes(&driver), 1);
}
