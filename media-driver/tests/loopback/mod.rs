//! Drivers and clients of one process that talk over real loopback sockets.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "every test uses a part of it, helpers of tests fail by panicking, and their patience is real time"
)]

use std::time::{Duration, Instant};

use fulmar::control::ErrorCode;
use fulmar::{Client, ClientSettings, ExclusivePublication, Publication, RegistrationError, Subscription};
use fulmar_media_driver::{DriverSettings, MediaDriver};

/// Far longer than anything here takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const STREAM: i32 = 1001;

pub(crate) fn driver(pairs: &[(&str, &str)]) -> MediaDriver {
    let mut settings = DriverSettings::defaults();
    settings.set("aeron.counters.buffer.length", "1m").unwrap();
    settings.set("aeron.term.buffer.length", "64k").unwrap();
    // Life cycles are looked at by timer.
    settings.set("aeron.timer.interval", "20ms").unwrap();
    for (key, value) in pairs {
        settings.set(key, value).unwrap();
    }
    MediaDriver::embedded_with(settings).unwrap()
}

pub(crate) fn client(driver: &MediaDriver) -> Client {
    Client::connect(ClientSettings {
        dir: driver.dir().to_owned(),
        ..ClientSettings::default()
    })
    .unwrap()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::yield_now();
    }
}

/// A subscription on a port that the system chose, and that port.
pub(crate) fn subscribe(client: &Client, host: &str, params: &str) -> (Subscription, u16) {
    let subscription = client
        .add_subscription(&format!("aeron:udp?endpoint={host}:0{params}"), STREAM)
        .unwrap();
    let port = port_of(&subscription);
    (subscription, port)
}

/// The port a subscription is bound to.
pub(crate) fn port_of(subscription: &Subscription) -> u16 {
    let mut addresses = Vec::new();
    until("the subscription has an address", || {
        addresses = subscription.local_addresses();
        !addresses.is_empty()
    });
    addresses[0].rsplit(':').next().unwrap().parse().unwrap()
}

/// Checks that the driver refused something, and with which code.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, RegistrationError>, expected: ErrorCode) {
    assert!(
        matches!(&result, Err(RegistrationError::Refused { code, .. }) if *code == expected),
        "{result:?}"
    );
}

/// Requests of one client that another one answers on a response channel.
pub(crate) struct Exchange {
    pub(crate) request: ExclusivePublication,
    pub(crate) requests: Subscription,
    pub(crate) response: ExclusivePublication,
    pub(crate) responses: Subscription,
    /// Holds the control port, so that it can be told to the client.
    _prototype: Publication,
}

/// Requests on [`STREAM`], responses on the next one; both are connected.
pub(crate) fn exchange(asker: &Client, server: &Client) -> Exchange {
    let (mut requests, port) = subscribe(server, "127.0.0.1", "");
    let prototype = server
        .add_publication(
            "aeron:udp?control-mode=response|control=127.0.0.1:0|response-correlation-id=prototype|tags=3",
            STREAM + 1,
        )
        .unwrap();
    let control = prototype.local_addresses().remove(0);
    let channel = format!("aeron:udp?control-mode=response|control={control}");
    let responses = asker.add_subscription(&channel, STREAM + 1).unwrap();
    let id = responses.registration_id();
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}|response-correlation-id={id}");
    let request = asker.add_exclusive_publication(&channel, STREAM).unwrap();
    until("the request came", || requests.is_connected());
    let image = requests.images()[0].correlation_id();
    let channel = format!("aeron:udp?control-mode=response|response-correlation-id={image}|tags=3");
    let response = server.add_exclusive_publication(&channel, STREAM + 1).unwrap();
    until("the response channel is connected", || {
        response.is_connected() && responses.is_connected()
    });
    Exchange {
        request,
        requests,
        response,
        responses,
        _prototype: prototype,
    }
}

/// The message with this number: its length and bytes tell its number.
pub(crate) fn message(number: usize) -> Vec<u8> {
    let length = 8 + (number * 97) % 2800;
    let mut bytes = (number as u64).to_le_bytes().to_vec();
    bytes.extend((8..length).map(|at| (number + at) as u8));
    bytes
}

/// Something that messages are offered to.
pub(crate) trait Offers {
    fn try_offer(&mut self, message: &[u8]) -> bool;
}

impl Offers for Publication {
    fn try_offer(&mut self, message: &[u8]) -> bool {
        self.offer(message).position().is_some()
    }
}

impl Offers for ExclusivePublication {
    fn try_offer(&mut self, message: &[u8]) -> bool {
        self.offer(message).position().is_some()
    }
}

/// What one subscription has got: messages in order, each checked.
pub(crate) struct Taken {
    pub(crate) next: usize,
}

impl Taken {
    /// Starts with the message of this number.
    pub(crate) fn from(next: usize) -> Self {
        Self { next }
    }

    #[track_caller]
    pub(crate) fn poll(&mut self, subscription: &mut Subscription) -> usize {
        let next = &mut self.next;
        subscription.poll(
            |payload, _| {
                assert_eq!(payload.to_vec(), message(*next), "message {next}");
                *next += 1;
            },
            50,
        )
    }
}

/// Sends messages and takes them in on every subscription, until all have all.
#[track_caller]
pub(crate) fn stream(publication: &mut impl Offers, subscriptions: &mut [&mut Subscription], count: usize) {
    stream_from(publication, subscriptions, 0, count);
}

/// As [`stream`], with numbers from `first`.
#[track_caller]
pub(crate) fn stream_from(
    publication: &mut impl Offers,
    subscriptions: &mut [&mut Subscription],
    first: usize,
    count: usize,
) {
    let mut taken: Vec<Taken> = subscriptions.iter().map(|_| Taken::from(first)).collect();
    let (mut sent, end) = (first, first + count);
    until("everything arrived", || {
        if sent < end && publication.try_offer(&message(sent)) {
            sent += 1;
        }
        for (subscription, taken) in subscriptions.iter_mut().zip(&mut taken) {
            taken.poll(subscription);
        }
        taken.iter().all(|taken| taken.next == end)
    });
}
