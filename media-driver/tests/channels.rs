//! What the driver makes of channels: which it refuses and how, which share their sockets, how destinations are named.
//! The verdicts are those of Aeron's C driver, except where a comment says otherwise.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use fulmar::control::ErrorCode;
use fulmar::counters::type_id;
use fulmar::{Client, RegistrationError};
use fulmar_media_driver::MediaDriver;
use loopback::{STREAM, client, driver, port_of, stream, subscribe, until};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Publication,
    Subscription,
}
use Side::{Publication as Pub, Subscription as Sub};

fn code<T>(result: Result<T, RegistrationError>) -> Option<ErrorCode> {
    match result {
        Ok(_) => None,
        Err(RegistrationError::Refused { code, .. }) => Some(code),
        Err(error) => panic!("{error}"),
    }
}

fn verdict(client: &Client, side: Side, query: &str) -> Option<ErrorCode> {
    let channel = format!("aeron:udp?{query}");
    let begun = fulmar::time::SystemClock.nanos();
    loop {
        let code = match side {
            Pub => code(client.add_publication(&channel, STREAM)),
            Sub => code(client.add_subscription(&channel, STREAM)),
        };
        // The socket of the verdict before may still be closing; the driver says to try again.
        let is_closing = code == Some(ErrorCode::ResourceTemporarilyUnavailable);
        if !is_closing || fulmar::time::SystemClock.nanos().since(begun) > 10_000_000_000 {
            return code;
        }
    }
}

#[test]
fn channels_get_the_verdict_of_the_c_driver() {
    let driver = driver(&[]);
    let client = client(&driver);
    let generic = Some(ErrorCode::GenericError);
    let invalid = Some(ErrorCode::InvalidChannel);
    let unknown_host = Some(ErrorCode::UnknownHost);
    for (side, query, expected) in [
        (Pub, "endpoint=localhost:0", generic),
        (Pub, "endpoint=localhost", generic),
        (Pub, "endpoint=localhost:70000", generic),
        (Pub, "control=localhost:0", generic),
        (Sub, "control=localhost:0", generic),
        (Sub, "control=localhost:1|endpoint=localhost:0", None),
        (Sub, "control=localhost:1", None),
        (Sub, "control-mode=response|control=localhost:1", None),
        (Sub, "mtu=8|rcv-wnd=64k|control-mode=response", None),
        (Sub, "control-mode=manual|endpoint=localhost:0", None),
        (Pub, "control=localhost:0|endpoint=localhost:1", None),
        (Pub, "control=localhost:0|control-mode=dynamic", None),
        (Pub, "control-mode=dynamic", invalid),
        (Pub, "control-mode=manual", None),
        (Pub, "control-mode=manual|endpoint=localhost:0", None),
        (Pub, "control-mode=response|control=localhost:0", generic),
        (Pub, "alias=x", invalid),
        (Sub, "alias=x", invalid),
        (Pub, "endpoint=224.20.30.40:40456|interface=localhost", generic),
        (Sub, "endpoint=224.20.30.40:40456|interface=localhost", generic),
        (Pub, "endpoint=224.20.30.39:40456|interface=localhost", None),
        (Sub, "endpoint=224.20.30.39:40456|interface=localhost", None),
        (Sub, "endpoint=224.20.30.39:40457|interface=127.0.0.0/24", None),
        (Sub, "endpoint=224.20.30.39:40458|interface=10.99.0.0/16", generic),
        (Sub, "endpoint=224.20.30.39:40458|interface=10.99.0.0/33", generic),
        (Sub, "endpoint=224.20.30.39:40458|interface={nosuch}", generic),
        (Sub, "endpoint=224.20.30.39:40458|interface={lo", generic),
        (
            Sub,
            "endpoint=224.20.30.39:40458|interface=no..such",
            unknown_host,
        ),
        (Pub, "endpoint=localhost:1|interface=10.99.0.1", generic),
        (Pub, "endpoint=localhost:1|interface=localhost", None),
        (Pub, "endpoint=localhost:1|ttl=256", None),
        (Pub, "tags=7", generic),
        (Sub, "tags=7", None),
        (Pub, "endpoint=no..such:1", unknown_host),
        (Pub, "endpoint=localhost:1|control=no..such:1", unknown_host),
        (Sub, "endpoint=no..such:1", unknown_host),
        (Sub, "endpoint=240.0.0.1:1", generic),
    ] {
        assert_eq!(verdict(&client, side, query), expected, "{side:?} {query}");
    }
}

#[test]
fn sockets_are_shared_by_text_and_tag() {
    let driver = driver(&[]);
    let client = client(&driver);
    let (_first, port) = subscribe(&client, "localhost", "|tags=8");
    let (_named, named) = subscribe(&client, "localhost", "");
    let (mut kept_subscriptions, mut kept_publications) = (Vec::new(), Vec::new());
    let mut subscribe_to = |query: &str| {
        let added = client.add_subscription(&format!("aeron:udp?{query}"), STREAM);
        code(added.map(|subscription| kept_subscriptions.push(subscription)))
    };
    let generic = Some(ErrorCode::GenericError);
    assert_eq!(subscribe_to("tags=8"), None);
    assert_eq!(subscribe_to("endpoint=localhost:0|tags=8"), None);
    assert_eq!(subscribe_to(&format!("endpoint=127.0.0.1:{port}|tags=8")), None);
    assert_eq!(
        subscribe_to("endpoint=localhost:1|tags=8"),
        generic,
        "another port"
    );
    assert_eq!(subscribe_to("control-mode=manual|tags=8"), generic);
    assert_eq!(subscribe_to("endpoint=localhost:0|tags=9"), None);
    // Taken by the socket of the first one, whose text is another.
    assert_eq!(subscribe_to(&format!("endpoint=127.0.0.1:{named}")), generic);
    // What was given to the first one holds for all.
    assert_eq!(subscribe_to("tags=8|so-rcvbuf=64k"), generic);
    assert_eq!(subscribe_to("tags=8|so-rcvbuf=128k"), None);
    assert_eq!(subscribe_to("tags=8|rcv-wnd=64k"), None);
    assert_eq!(subscribe_to("tags=8|rcv-wnd=256k"), generic);
    assert_eq!(subscribe_to("tags=8|channel-rcv-ts-offset=0"), generic);

    let mut publish_to = |query: &str| {
        let added = client.add_publication(&format!("aeron:udp?{query}"), STREAM);
        code(added.map(|publication| kept_publications.push(publication)))
    };
    assert_eq!(publish_to("endpoint=localhost:40204|tags=15"), None);
    assert_eq!(publish_to("tags=15"), None);
    assert_eq!(publish_to("endpoint=localhost:40204|tags=16"), None);
    assert_eq!(publish_to("endpoint=localhost:40205|tags=15"), generic);
    assert_eq!(publish_to("control-mode=manual|tags=15"), generic);
    // A tag is stronger than the text.
    assert_eq!(publish_to("endpoint=localhost:40206"), None);
    assert_eq!(publish_to("endpoint=localhost:40206|tags=15"), generic);
    assert_eq!(publish_to("tags=15|so-sndbuf=64k"), generic);
    assert_eq!(publish_to("tags=15|channel-snd-ts-offset=8"), generic);
}

fn destinations(driver: &MediaDriver) -> i64 {
    let reader = client(driver);
    let mut value = None;
    if let Some(counters) = reader.counters() {
        counters.for_each_value(|_, kind, count| {
            if kind == type_id::MDC_DESTINATIONS {
                value = Some(count);
            }
        });
    }
    value.unwrap()
}

#[test]
fn destinations_of_publications_are_removed_by_what_they_mean() {
    let driver = driver(&[]);
    let client = client(&driver);
    let publication = client
        .add_publication("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    let add = |query: &str| code(publication.add_destination(&format!("aeron:udp?{query}")));
    assert_eq!(add("endpoint=localhost:40601"), None);
    assert_eq!(
        add("endpoint=no..such:40601"),
        None,
        "it may get an address later"
    );
    assert_eq!(add("endpoint=224.20.30.40:1"), None, "any group may be sent to");
    assert_eq!(add("endpoint=localhost:0"), Some(ErrorCode::GenericError));
    assert_eq!(add("control=localhost:1"), Some(ErrorCode::GenericError));
    for invalid in ["|mtu=1408", "|so-sndbuf=64k", "|control-mode=response"] {
        let query = format!("endpoint=localhost:40602{invalid}");
        assert_eq!(add(&query), Some(ErrorCode::InvalidChannel), "{invalid}");
    }
    assert_eq!(
        code(publication.add_destination("aeron-spy:aeron:udp?endpoint=localhost:1")),
        Some(ErrorCode::InvalidChannel)
    );
    assert_eq!(
        code(publication.add_destination("aeron:ipc")),
        Some(ErrorCode::GenericError)
    );
    until("three are counted", || destinations(&driver) == 3);
    for (uri, left) in [
        ("endpoint=localhost:49999", 3),
        ("endpoint=127.0.0.1:40601|alias=x", 2),
        ("endpoint=no..such:40601", 1),
        ("endpoint=224.20.30.40:1", 0),
    ] {
        publication
            .remove_destination(&format!("aeron:udp?{uri}"))
            .unwrap();
        until("it is gone", || destinations(&driver) == left);
    }
    let unicast = client
        .add_publication("aeron:udp?endpoint=localhost:40603", STREAM)
        .unwrap();
    assert_eq!(
        code(unicast.add_destination("aeron:udp?endpoint=localhost:1")),
        Some(ErrorCode::GenericError)
    );
}

#[test]
fn sources_of_subscriptions_are_removed_by_what_they_mean() {
    let driver = driver(&[]);
    let client = client(&driver);
    let subscription = client
        .add_subscription("aeron:udp?control-mode=manual", STREAM)
        .unwrap();
    let add = |query: &str| code(subscription.add_destination(&format!("aeron:udp?{query}")));
    assert_eq!(add("endpoint=localhost:0"), None);
    assert_eq!(add("endpoint=no..such:1"), Some(ErrorCode::UnknownHost));
    assert_eq!(
        add("endpoint=localhost:0|rcv-wnd=64k"),
        Some(ErrorCode::InvalidChannel)
    );
    until("it has an address", || subscription.local_addresses().len() == 1);
    let remove = |query: &str| subscription.remove_destination(&format!("aeron:udp?{query}"));
    remove("endpoint=localhost:1").unwrap();
    assert_eq!(subscription.local_addresses().len(), 1);
    remove("endpoint=localhost:0|alias=x").unwrap();
    until("it has none", || subscription.local_addresses().is_empty());
    let (bound, _) = subscribe(&client, "localhost", "");
    assert_eq!(
        code(bound.add_destination("aeron:udp?endpoint=localhost:0")),
        Some(ErrorCode::InvalidChannel)
    );
}

#[test]
fn ports_come_from_the_ranges_of_the_settings() {
    let range = ("aeron.receiver.wildcard.port.range", "43210 43212");
    let driver = driver(&[range]);
    let client = client(&driver);
    let subscriptions: Vec<_> = (0..3).map(|_| subscribe(&client, "127.0.0.1", "")).collect();
    let ports: Vec<u16> = subscriptions.iter().map(|(_, port)| *port).collect();
    assert_eq!(ports, [43210, 43211, 43212]);
    let beyond = client.add_subscription("aeron:udp?endpoint=127.0.0.1:0", STREAM);
    assert_eq!(code(beyond), Some(ErrorCode::GenericError));
    drop(subscriptions);
    until("one is free again", || {
        let again = client.add_subscription("aeron:udp?endpoint=127.0.0.1:0", STREAM);
        again.is_ok_and(|subscription| (43210..=43212).contains(&port_of(&subscription)))
    });
}

#[test]
fn a_publication_follows_a_name_to_its_new_address() {
    // Nobody answers at the first address, so the name is looked up again after five seconds of silence.
    let driver = driver(&[
        ("aeron.name.resolver.supplier", "csv_table"),
        (
            "aeron.name.resolver.init.args",
            "server,endpoint,127.0.0.7,127.0.0.1|ctl,control,127.0.0.7,127.0.0.1",
        ),
    ]);
    let client = client(&driver);
    let (mut subscription, port) = subscribe(&client, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=server:{port}");
    let mut publication = client.add_publication(&channel, STREAM).unwrap();
    until("they meet", || {
        publication.is_connected() && subscription.is_connected()
    });
    stream(&mut publication, &mut [&mut subscription], 20);

    let control = client
        .add_publication("aeron:udp?control-mode=dynamic|control=127.0.0.1:0", 7)
        .unwrap();
    let address = control.local_addresses()[0].clone();
    let at = address.rsplit(':').next().unwrap();
    let channel = format!("aeron:udp?endpoint=127.0.0.1:0|control=ctl:{at}");
    let follower = client.add_subscription(&channel, 7).unwrap();
    until("the receiver follows its control address", || {
        follower.is_connected()
    });
}
