//! Streams from one driver to another, every message verified, for each combination of makes.
//!
//! `FULMAR_INTEROP_SCALE` multiplies the lengths of the long streams: 10 gives a million messages of 32 bytes, 200 000
//! of a kilobyte and 500 of a megabyte; without it they are a tenth of that, so that the suite stays quick.

use crate::ports::{free_address, group};
use crate::process::{Client, Make, Polled};
use crate::stage::{QUICK_TIMER, RETRANSMITS_SENT, STREAM, Stage};

/// Whose driver, whose client.
pub type Side = (Make, Make);

/// Limit of every command that moves many messages, in milliseconds.
const LONG: u32 = 110_000;

fn scale() -> u64 {
    let text = std::env::var("FULMAR_INTEROP_SCALE").unwrap_or_default();
    if text.is_empty() {
        return 1;
    }
    text.parse()
        .unwrap_or_else(|_| panic!("FULMAR_INTEROP_SCALE={text} is no number"))
}

/// A driver whose client publishes, and one whose client subscribes.
pub struct Pair {
    from: Stage,
    to: Stage,
    /// To start more of them.
    sender: Side,
    receiver: Side,
}

/// Timers that make tests quick in which somebody dies.
const SETTINGS: &[(&str, &str)] = &[
    QUICK_TIMER,
    ("AERON_IMAGE_LIVENESS_TIMEOUT", "3s"),
    ("AERON_PUBLICATION_CONNECTION_TIMEOUT", "2s"),
];

fn start(side: Side) -> Stage {
    Stage::with_client(side.0, side.1, SETTINGS)
}

impl Pair {
    pub fn new(sender: Side, receiver: Side) -> Pair {
        Pair {
            from: start(sender),
            to: start(receiver),
            sender,
            receiver,
        }
    }

    /// One more driver with a client, of the makes of the receiving side.
    fn another(&self) -> Stage {
        start(self.receiver)
    }

    /// Subscribes at `host` and publishes to it; waits until both know of each other.
    fn connect(&mut self, host: &str, more: &str) {
        self.to.subscribe(&format!("aeron:udp?endpoint={host}:0"));
        let address = self.to.receive_address();
        self.publish(&format!("aeron:udp?endpoint={address}{more}"));
        self.to.client.ok("image_count s 1 20000");
    }

    /// Adds the publication `p`, waits until it is connected.
    fn publish(&mut self, channel: &str) {
        self.from.client.ok(&format!("add_xpub p {channel} {STREAM}"));
        self.from.client.ok("connected p true 20000");
    }

    /// Moves so many messages of `p` to `s` and compares where both ends stand.
    fn stream(&mut self, count: u64, length: usize) {
        self.from
            .client
            .tell(&format!("offer p {count} {length} 3 {LONG}"));
        let polled = poll(&mut self.to.client, "s", count);
        let position = self.from.client.answered();
        assert_eq!(polled.position.to_string(), position);
        assert_eq!(polled.senders, 1);
    }

    fn end(self) {
        self.from.end();
        self.to.end();
    }
}

fn poll(client: &mut Client, name: &str, count: u64) -> Polled {
    Polled::parse(&client.ok(&format!("poll {name} {count} {LONG}")))
}

fn unicast_small_messages(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.stream(100_000 * scale(), 32);
    pair.end();
}

fn unicast_kilobyte_messages(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.stream(20_000 * scale(), 1024);
    pair.end();
}

fn unicast_megabyte_messages(mut pair: Pair) {
    pair.connect("127.0.0.1", "|term-length=8m");
    pair.stream(50 * scale(), 1 << 20);
    pair.end();
}

fn unicast_with_large_datagrams(mut pair: Pair) {
    pair.connect("127.0.0.1", "|mtu=16352");
    pair.stream(2000, 60_000);
    pair.end();
}

fn unicast_ipv6(mut pair: Pair) {
    pair.connect("[::1]", "");
    assert!(pair.to.receive_address().is_ipv6());
    pair.stream(10_000, 200);
    pair.end();
}

fn term_ids_wrap(mut pair: Pair) {
    let first = i32::MAX - 1;
    let more = format!("|term-length=64k|init-term-id={first}|term-id={first}|term-offset=0");
    pair.connect("127.0.0.1", &more);
    pair.stream(5000, 1000);
    pair.end();
}

fn publications_of_several_threads(mut pair: Pair) {
    pair.to.subscribe("aeron:udp?endpoint=127.0.0.1:0");
    let address = pair.to.receive_address();
    let mut second = Client::connect(pair.from.client.make(), &pair.from.dir);
    for client in [&mut pair.from.client, &mut second] {
        client.ok(&format!("add_pub p aeron:udp?endpoint={address} {STREAM}"));
        client.ok("connected p true 20000");
    }
    pair.to.client.ok("image_count s 1 20000");
    pair.from.client.tell(&format!("offer p 5000 300 1 {LONG}"));
    second.tell(&format!("offer p 5000 700 2 {LONG}"));
    let polled = poll(&mut pair.to.client, "s", 10_000);
    assert_eq!(polled.senders, 2);
    pair.from.client.answered();
    second.answered();
    assert_eq!(pair.from.client.number("position p"), polled.position);
    second.close();
    pair.end();
}

fn two_sessions(mut pair: Pair) {
    pair.to.subscribe("aeron:udp?endpoint=127.0.0.1:0");
    let address = pair.to.receive_address();
    let mut second = Client::connect(pair.from.client.make(), &pair.from.dir);
    for client in [&mut pair.from.client, &mut second] {
        client.ok(&format!("add_xpub p aeron:udp?endpoint={address} {STREAM}"));
        client.ok("connected p true 20000");
    }
    pair.to.client.ok("image_count s 2 20000");
    pair.from.client.tell(&format!("offer p 5000 300 1 {LONG}"));
    second.tell(&format!("offer p 5000 700 2 {LONG}"));
    assert_eq!(poll(&mut pair.to.client, "s", 10_000).senders, 2);
    let mut positions = [pair.from.client.answered(), second.answered()]
        .map(|answer| answer.parse::<i64>().expect("a position"));
    let mut images: Vec<_> = pair
        .to
        .client
        .images("s")
        .iter()
        .map(|image| image.position)
        .collect();
    positions.sort_unstable();
    images.sort_unstable();
    assert_eq!(images, positions);
    second.close();
    pair.end();
}

fn end_of_stream(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.from.client.ok(&format!("offer p 100 1000 3 {LONG}"));
    pair.from.client.ok("close p");
    // All of it, though the publication is closed.
    poll(&mut pair.to.client, "s", 100);
    pair.to.client.ok("event image-gone 20000");
    pair.to.client.ok("image_count s 0 10000");
    pair.end();
}

fn revoked_stream(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.stream(100, 1000);
    pair.from.client.ok("revoke p");
    pair.to.client.ok("event image-gone 20000");
    pair.to.await_system(crate::stage::IMAGES_REVOKED, 1);
    pair.end();
}

fn rejected_image(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.stream(100, 1000);
    pair.to.client.ok("reject s 0 not here");
    let event = pair.from.client.ok("event publication-error 20000");
    assert!(event.contains(" 13 ") && event.contains("not here"), "{event}");
    pair.from.client.ok("connected p false 20000");
    pair.end();
}

fn publishing_driver_dies(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    pair.stream(100, 1000);
    let address = pair.to.receive_address();
    let again = start(pair.sender);
    std::mem::replace(&mut pair.from, again).kill();
    // The new one is heard beside the dead one, which goes when its time is over.
    pair.publish(&format!("aeron:udp?endpoint={address}"));
    pair.to.client.ok("event image-gone 20000");
    pair.to.client.ok("image_count s 1 20000");
    pair.from.client.ok(&format!("offer p 100 1000 4 {LONG}"));
    assert_eq!(poll(&mut pair.to.client, "s", 100).senders, 2);
    pair.end();
}

fn subscribing_driver_dies(mut pair: Pair) {
    let address = free_address();
    pair.to.subscribe(&format!("aeron:udp?endpoint={address}"));
    pair.publish(&format!("aeron:udp?endpoint={address}"));
    pair.to.client.ok("image_count s 1 20000");
    pair.stream(100, 1000);
    let again = start(pair.receiver);
    std::mem::replace(&mut pair.to, again).kill();
    pair.from.client.ok("connected p false 20000");
    assert_eq!(pair.from.client.number("offer_once p 32"), -1);
    pair.to.subscribe(&format!("aeron:udp?endpoint={address}"));
    pair.from.client.ok("connected p true 20000");
    pair.stream(100, 1000);
    pair.end();
}

/// One of ten datagrams of each type is lost at both ends: data, SETUPs, heartbeats, status messages and NAKs.
fn lossy(mut pair: Pair) {
    let settings = [
        ("AERON_UDP_CHANNEL_INCOMING_INTERCEPTORS", "loss"),
        (
            "AERON_UDP_CHANNEL_TRANSPORT_BINDINGS_LOSS_ARGS",
            "rate=0.1|recv-msg-mask=0xffff",
        ),
    ];
    pair.from = Stage::with_client(pair.sender.0, pair.sender.1, &settings);
    pair.to = Stage::with_client(pair.receiver.0, pair.receiver.1, &settings);
    pair.connect("127.0.0.1", "");
    pair.stream(5000, 1024);
    assert!(pair.from.client.system_counter(RETRANSMITS_SENT) > 0);
    pair.end();
}

/// Two subscribing drivers, one of each side's make, on what `pair.from` publishes.
fn to_two(pair: &mut Pair, second: &mut Stage, count: u64) {
    pair.from.client.tell(&format!("offer p {count} 1024 3 {LONG}"));
    pair.to.client.tell(&format!("poll s {count} {LONG}"));
    let polled = poll(&mut second.client, "s", count);
    let first = Polled::parse(&pair.to.client.answered());
    let position = pair.from.client.answered();
    assert_eq!(polled.position.to_string(), position);
    assert_eq!(first.position.to_string(), position);
}

fn multicast(mut pair: Pair) {
    let channel = format!("aeron:udp?endpoint={}|interface=127.0.0.1", group(true));
    let mut second = pair.another();
    pair.to.subscribe(&channel);
    second.subscribe(&channel);
    // Each must have its place before the first message, or a fast one overtakes it.
    pair.publish(&format!("{channel}|fc=min,g:/2"));
    pair.to.client.ok("image_count s 1 20000");
    second.client.ok("image_count s 1 20000");
    to_two(&mut pair, &mut second, 20_000);
    second.end();
    pair.end();
}

fn dynamic_destinations(mut pair: Pair) {
    let control = free_address();
    let mut second = pair.another();
    let channel = format!("aeron:udp?endpoint=127.0.0.1:0|control={control}|control-mode=dynamic");
    pair.to.subscribe(&channel);
    second.subscribe(&channel);
    pair.publish(&format!(
        "aeron:udp?control={control}|control-mode=dynamic|fc=min,g:/2"
    ));
    to_two(&mut pair, &mut second, 20_000);
    // One of them leaves, and the stream goes on with the other as soon as it is missed.
    second.client.ok("close s");
    pair.from.client.ok("connected p false 20000");
    second.end();
    pair.end();
}

fn a_subscriber_comes_late_and_one_leaves(mut pair: Pair) {
    let control = free_address();
    let channel = format!("aeron:udp?endpoint=127.0.0.1:0|control={control}|control-mode=dynamic");
    pair.to.subscribe(&channel);
    pair.publish(&format!(
        "aeron:udp?control={control}|control-mode=dynamic|fc=min"
    ));
    pair.stream(1000, 1024);
    let mut late = pair.another();
    late.subscribe(&channel);
    late.client.ok("image_count s 1 20000");
    let joined = late.client.images("s")[0].join_position;
    assert_eq!(joined, pair.from.client.number("position p"));
    to_two(&mut pair, &mut late, 1000);
    pair.to.client.ok("close s");
    let mut polled = 0;
    for _ in 0..20 {
        // The window of the one that left holds for a while.
        pair.from.client.ok(&format!("offer p 50 1024 3 {LONG}"));
        polled = poll(&mut late.client, "s", 50).position;
    }
    assert_eq!(polled, pair.from.client.number("position p"));
    late.end();
    pair.end();
}

fn manual_destinations(mut pair: Pair) {
    let mut second = pair.another();
    pair.from.client.ok(&format!(
        "add_pub p aeron:udp?control-mode=manual|fc=min,g:/2 {STREAM}"
    ));
    for stage in [&mut pair.to, &mut second] {
        stage.subscribe("aeron:udp?endpoint=127.0.0.1:0");
        let address = stage.receive_address();
        pair.from
            .client
            .ok(&format!("destination p add aeron:udp?endpoint={address}"));
    }
    pair.from.client.ok("connected p true 20000");
    to_two(&mut pair, &mut second, 20_000);
    second.end();
    pair.end();
}

fn two_ways_to_one_subscription(mut pair: Pair) {
    pair.to.subscribe("aeron:udp?control-mode=manual");
    pair.from
        .client
        .ok(&format!("add_pub p aeron:udp?control-mode=manual {STREAM}"));
    for _ in 0..2 {
        pair.to
            .client
            .ok("destination s add aeron:udp?endpoint=127.0.0.1:0");
    }
    pair.to.await_value("number of receiving sockets", 2, |stage| {
        i64::try_from(stage.addresses("rcv").len()).expect("few")
    });
    for address in pair.to.addresses("rcv") {
        pair.from
            .client
            .ok(&format!("destination p add aeron:udp?endpoint={address}"));
    }
    pair.from.client.ok("connected p true 20000");
    pair.stream(5000, 1024);
    // One way goes away.
    let first = pair.to.addresses("rcv")[0];
    pair.from
        .client
        .ok(&format!("destination p remove aeron:udp?endpoint={first}"));
    pair.stream(5000, 1024);
    assert_eq!(pair.to.client.images("s").len(), 1);
    pair.end();
}

fn response_channel(mut pair: Pair) {
    let control = free_address();
    pair.to.subscribe("aeron:udp?endpoint=127.0.0.1:0");
    let address = pair.to.receive_address();
    let id = pair.from.client.number(&format!(
        "add_sub r aeron:udp?control-mode=response|control={control} 2002"
    ));
    pair.publish(&format!(
        "aeron:udp?endpoint={address}|response-correlation-id={id}"
    ));
    pair.to.client.ok("image_count s 1 20000");
    let image = pair.to.client.images("s")[0].correlation_id;
    pair.to.client.ok(&format!(
        "add_xpub q aeron:udp?control-mode=response|control={control}|response-correlation-id={image} 2002"
    ));
    pair.to.client.ok("connected q true 20000");
    pair.from.client.ok("image_count r 1 20000");
    pair.stream(2000, 500);
    pair.to.client.tell(&format!("offer q 2000 500 8 {LONG}"));
    let polled = poll(&mut pair.from.client, "r", 2000);
    assert_eq!(pair.to.client.answered(), polled.position.to_string());
    pair.end();
}

fn spy_beside_a_subscriber(mut pair: Pair) {
    pair.connect("127.0.0.1", "");
    let address = pair.to.receive_address();
    let mut spy = Client::connect(pair.from.client.make(), &pair.from.dir);
    spy.ok(&format!(
        "add_sub s aeron-spy:aeron:udp?endpoint={address} {STREAM}"
    ));
    spy.ok("image_count s 1 20000");
    spy.tell(&format!("poll s 5000 {LONG}"));
    pair.stream(5000, 1024);
    let polled = Polled::parse(&spy.answered());
    assert_eq!(polled.position, pair.from.client.number("position p"));
    spy.close();
    pair.end();
}

fn spy_alone(mut pair: Pair) {
    let mut spy = Client::connect(pair.from.client.make(), &pair.from.dir);
    let endpoint = free_address();
    spy.ok(&format!(
        "add_sub s aeron-spy:aeron:udp?endpoint={endpoint} {STREAM}"
    ));
    pair.publish(&format!("aeron:udp?endpoint={endpoint}|ssc=true"));
    pair.from.client.tell(&format!("offer p 5000 1024 3 {LONG}"));
    let polled = poll(&mut spy, "s", 5000);
    assert_eq!(pair.from.client.answered(), polled.position.to_string());
    spy.close();
    pair.end();
}

/// One test per combination.
macro_rules! streams {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use super::Pair;
            use crate::process::Make::{C, Fulmar};

            #[test]
            fn c_to_c() {
                super::$name(Pair::new((C, C), (C, C)));
            }

            #[test]
            fn our_clients_on_c() {
                super::$name(Pair::new((C, Fulmar), (C, Fulmar)));
            }

            #[test]
            fn c_to_ours() {
                super::$name(Pair::new((C, C), (Fulmar, Fulmar)));
            }

            #[test]
            fn ours_to_c() {
                super::$name(Pair::new((Fulmar, Fulmar), (C, C)));
            }

            #[test]
            fn ours_to_ours() {
                super::$name(Pair::new((Fulmar, Fulmar), (Fulmar, Fulmar)));
            }

            #[test]
            fn c_clients_on_ours() {
                super::$name(Pair::new((Fulmar, C), (Fulmar, C)));
            }
        }
    )* };
}

streams!(
    unicast_small_messages,
    unicast_kilobyte_messages,
    unicast_megabyte_messages,
    unicast_with_large_datagrams,
    unicast_ipv6,
    term_ids_wrap,
    publications_of_several_threads,
    two_sessions,
    end_of_stream,
    revoked_stream,
    rejected_image,
    publishing_driver_dies,
    subscribing_driver_dies,
    lossy,
    multicast,
    dynamic_destinations,
    a_subscriber_comes_late_and_one_leaves,
    manual_destinations,
    two_ways_to_one_subscription,
    response_channel,
    spy_beside_a_subscriber,
    spy_alone,
);
