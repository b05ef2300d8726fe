//! One publication, many receivers: multicast, and destinations given or learnt.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use fulmar::control::ErrorCode;
use loopback::{STREAM, assert_refused, client, driver, stream, stream_from, subscribe, until};

#[test]
fn receivers_of_a_multicast_group_all_get_the_stream() {
    let (near, far) = (driver(&[]), driver(&[]));
    let publisher = client(&near);
    let subscribers = [client(&near), client(&far)];
    // Groups are not exclusive to a process: the port keeps tests that run at the same time apart.
    let port = 20_000 + std::process::id() % 20_000;
    let channel = format!("aeron:udp?endpoint=224.20.30.39:{port}|interface=127.0.0.1");
    let [mut first, mut second] =
        subscribers.map(|subscriber| subscriber.add_subscription(&channel, STREAM).unwrap());
    let flow = format!("{channel}|fc=min,g:/2");
    let mut publication = publisher.add_publication(&flow, STREAM).unwrap();
    until("both are there", || {
        publication.is_connected() && first.is_connected() && second.is_connected()
    });
    stream(&mut publication, &mut [&mut first, &mut second], 300);
    // Flow control counts them.
    let counters = publisher.counters().unwrap();
    let receivers = counters
        .find_by(17, publication.original_registration_id().0)
        .unwrap();
    assert_eq!(counters.value(receivers), Some(2));
}

#[test]
fn an_even_multicast_address_is_refused() {
    let driver = driver(&[]);
    let client = client(&driver);
    let refused = client.add_publication("aeron:udp?endpoint=224.20.30.38:40456", STREAM);
    assert_refused(refused, ErrorCode::GenericError);
}

#[test]
fn a_publication_serves_the_destinations_it_is_given() {
    let driver = driver(&[]);
    let (publisher, subscriber) = (client(&driver), client(&driver));
    let (mut first, first_port) = subscribe(&subscriber, "127.0.0.1", "");
    let (mut second, second_port) = subscribe(&subscriber, "127.0.0.1", "");
    // The fastest alone would set the pace otherwise, and the other could fall behind for good.
    let mut publication = publisher
        .add_publication("aeron:udp?control-mode=manual|fc=min,t:500ms", STREAM)
        .unwrap();
    let destination = |port: u16| format!("aeron:udp?endpoint=127.0.0.1:{port}");
    publication.add_destination(&destination(first_port)).unwrap();
    let second_id = publication.add_destination(&destination(second_port)).unwrap();
    until("both are connected", || {
        first.is_connected() && second.is_connected()
    });
    stream(&mut publication, &mut [&mut first, &mut second], 100);
    // One that is taken away gets nothing more, and does not hold the other up.
    publication.remove_destination_by_id(second_id).unwrap();
    until("the image is gone or silent", || {
        publication.try_claim(8).map(fulmar::Claim::abort).is_ok()
    });
    let before = second.images().first().map(fulmar::Image::position);
    stream_from(&mut publication, &mut [&mut first], 100, 100);
    let after = second.images().first().map(fulmar::Image::position);
    assert!(after.is_none() || after == before);
    let counters = publisher.counters().unwrap();
    let count = counters
        .find_by(18, publication.original_registration_id().0)
        .unwrap();
    assert_eq!(counters.value(count), Some(1));
}

#[test]
fn destinations_of_a_channel_that_is_not_manual_are_refused() {
    let driver = driver(&[]);
    let client = client(&driver);
    let publication = client
        .add_publication("aeron:udp?endpoint=127.0.0.1:40123", STREAM)
        .unwrap();
    let refused = publication.add_destination("aeron:udp?endpoint=127.0.0.1:40124");
    assert_refused(refused, ErrorCode::GenericError);
    let subscription = client
        .add_subscription("aeron:udp?endpoint=127.0.0.1:0", STREAM)
        .unwrap();
    let refused = subscription.add_destination("aeron:udp?endpoint=127.0.0.1:0");
    assert_refused(refused, ErrorCode::InvalidChannel);
}

#[test]
fn receivers_that_announce_themselves_are_served() {
    let (near, far) = (driver(&[]), driver(&[]));
    let (publisher, subscriber, neighbour) = (client(&near), client(&far), client(&near));
    let mut publication = publisher
        .add_publication(
            "aeron:udp?control=127.0.0.1:0|control-mode=dynamic|fc=min",
            STREAM,
        )
        .unwrap();
    let control = publication.local_addresses().remove(0);
    let channel = format!("aeron:udp?endpoint=127.0.0.1:0|control={control}|control-mode=dynamic");
    let mut first = subscriber.add_subscription(&channel, STREAM).unwrap();
    let mut second = neighbour.add_subscription(&channel, STREAM).unwrap();
    until("both are connected", || {
        publication.is_connected() && first.is_connected() && second.is_connected()
    });
    stream(&mut publication, &mut [&mut first, &mut second], 200);
}
