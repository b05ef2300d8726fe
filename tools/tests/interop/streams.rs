//! Messages from one make to the other: checklist rows 9 to 16, 31, 32 and 37, and volumes.

use crate::process::{Client, Polled, eventually};
use crate::scenario::{World, mixed_scenarios};

/// Row 9.
fn subscription_first(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    let subscription = subscriber.number("add_sub s aeron:ipc 1001");
    let publication = publisher.publication("add_pub p aeron:ipc 1001");
    publisher.ok("connected p true 10000");
    let event = subscriber.ok("event image 10000");
    assert!(
        event.contains(&format!("session={}", publication.session_id)),
        "{event}"
    );
    let image = subscriber.images("s")[0].clone();
    assert_eq!(image.correlation_id, publication.registration_id);
    assert_eq!((image.join_position, image.source.as_str()), (0, "aeron:ipc"));
    let position = subscriber.counter(4, subscription);
    assert_eq!(position.reference_id, publication.registration_id);
    assert!(position.label.ends_with("@0"), "{position:?}");
    let heartbeats = subscriber.counters();
    assert!(
        heartbeats
            .iter()
            .any(|counter| counter.type_id == 11 && counter.owner_id == position.owner_id),
        "{position:?} has no owner"
    );
    eventually("the window opens", || {
        publisher.number("limit p") == publication.term_length / 2
    });
    publisher.ok("offer p 100 100 1 10000");
    subscriber.ok("poll s 100 10000");
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Row 10.
fn publication_first(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    publisher.ok("add_pub p aeron:ipc 1001");
    assert_eq!(publisher.number("offer_once p 32"), -1);
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    publisher.ok("connected p true 10000");
    publisher.ok("offer p 100 100 1 10000");
    subscriber.ok("poll s 100 10000");
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Row 11.
fn slow_subscriber_holds_the_publisher(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut fast = world.client();
    let mut slow = world.other();
    fast.ok("add_sub s aeron:ipc?term-length=64k 1001");
    slow.ok("add_sub s aeron:ipc 1001");
    publisher.ok("add_pub p aeron:ipc?term-length=64k 1001");
    fast.ok("connected s true 10000");
    slow.ok("connected s true 10000");
    publisher.ok("connected p true 10000");
    // Half a term: the window of a slow subscriber that reads nothing.
    publisher.ok("offer p 256 96 1 10000");
    fast.ok("poll s 256 10000");
    assert_eq!(publisher.number("position p"), 32 * 1024);
    assert_eq!(publisher.number("offer_once p 96"), -2);
    slow.ok("poll s 100 10000");
    publisher.ok("offer p 90 96 1 10000");
    slow.ok("poll s 246 10000");
    fast.ok("poll s 90 10000");
    publisher.close();
    driver.stop();
}

/// Row 12.
fn rejoin_reads_what_was_left(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    publisher.ok("add_pub p aeron:ipc 1001");
    subscriber.ok("add_sub first aeron:ipc 1001");
    publisher.ok("connected p true 10000");
    publisher.ok("offer p 100 96 1 10000");
    let polled = Polled::parse(&subscriber.ok("poll first 40 10000"));
    subscriber.ok("close first");
    publisher.ok("connected p false 10000");
    assert_eq!(publisher.number("offer_once p 32"), -1);
    // The driver may not have seen the last of what was read before it heard of the close.
    eventually("the limit falls to the consumer's position", || {
        publisher.number("limit p") <= polled.position
    });
    let left_at = publisher.number("limit p");
    subscriber.ok("add_sub second aeron:ipc 1001");
    subscriber.ok("image_count second 1 10000");
    assert_eq!(subscriber.images("second")[0].join_position, left_at);
    let rest = Polled::parse(&subscriber.ok(&format!("poll second {} 10000", 100 - left_at / 128)));
    assert_eq!(rest.position, publisher.number("position p"));
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Row 13.
fn longest_messages(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    for (stream, command) in [(1001, "add_pub"), (1002, "add_xpub")] {
        let name = format!("p{stream}");
        let publication = publisher.publication(&format!("{command} {name} aeron:ipc?mtu=4096 {stream}"));
        let longest = publication.max_message_length;
        assert_eq!(longest, (1 << 20) / 8);
        subscriber.ok(&format!("add_sub s{stream} aeron:ipc {stream}"));
        publisher.ok(&format!("connected {name} true 10000"));
        for _ in 0..20 {
            let position = publisher.number(&format!("offer {name} 1 {longest} 7 10000"));
            let polled = Polled::parse(&subscriber.ok(&format!("poll s{stream} 1 10000")));
            assert_eq!(polled.position, position);
        }
        // The limit is looked at before the length, and follows the subscriber with the driver's next cycle.
        let too_long = format!("offer_once {name} {}", longest + 1);
        eventually("the message is refused for its length", || {
            match publisher.number(&too_long) {
                -2 => false,
                code => {
                    assert_eq!(code, -6);
                    true
                }
            }
        });
    }
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Row 14: one term exactly, then terms that leave a remainder.
fn rotation_and_padding(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    publisher.ok("add_pub p aeron:ipc?term-length=64k 1001");
    publisher.ok("connected p true 10000");
    for _ in 0..8 {
        publisher.ok("offer p 64 96 1 10000");
        subscriber.ok("poll s 64 10000");
    }
    assert_eq!(publisher.number("position p"), 64 * 1024);
    // 992 bytes of payload are 1024 in the log, 1000 are 1056: 62 of them leave 64 bytes.
    for _ in 0..31 {
        publisher.ok("offer p 2 1000 1 10000");
        subscriber.ok("poll s 2 10000");
    }
    assert_eq!(publisher.number("position p"), 64 * 1024 + 62 * 1056);
    let position = publisher.number("offer p 1 1000 1 10000");
    assert_eq!(position, 2 * 64 * 1024 + 1056);
    let polled = Polled::parse(&subscriber.ok("poll s 1 10000"));
    assert_eq!(polled.position, position);
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Row 15, with the makes at hand: four publishers in two languages on one log, over many rotations.
fn many_publishers(world: &World) {
    let driver = world.driver(&[]);
    let mut subscribers = [world.client(), world.other()];
    for subscriber in &mut subscribers {
        subscriber.ok("add_sub s aeron:ipc 1001");
    }
    let mut publishers = [world.client(), world.other(), world.client(), world.other()];
    for publisher in &mut publishers {
        publisher.ok("add_pub p aeron:ipc?term-length=64k 1001");
        publisher.ok("connected p true 10000");
    }
    for (seed, publisher) in publishers.iter_mut().enumerate() {
        publisher.tell(&format!("offer p 3000 {} {seed} 60000", 100 + 500 * seed));
    }
    subscribers
        .iter_mut()
        .for_each(|subscriber| subscriber.tell("poll s 12000 60000"));
    publishers
        .iter_mut()
        .for_each(|publisher| drop(publisher.answered()));
    let positions = publishers
        .each_mut()
        .map(|publisher| publisher.number("position p"));
    for subscriber in &mut subscribers {
        let polled = Polled::parse(&subscriber.answered());
        assert_eq!(polled.senders, 4);
        assert_eq!(polled.position, positions[0]);
        assert_eq!(polled.position % 32, 0);
    }
    assert!(positions[0] > 3 * 64 * 1024, "{positions:?}");
    driver.stop();
}

fn volume(world: &World, command: &str, term_length: &str, length: usize, count: u64) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    publisher.ok(&format!("{command} p aeron:ipc?term-length={term_length} 1001"));
    publisher.ok("connected p true 10000");
    publisher.tell(&format!("offer p {count} {length} 3 100000"));
    let polled = Polled::parse(&subscriber.ok(&format!("poll s {count} 100000")));
    let position = publisher.answered();
    assert_eq!(polled.messages, count);
    assert_eq!(polled.position.to_string(), position);
    publisher.close();
    subscriber.close();
    driver.stop();
}

fn small_messages(world: &World) {
    volume(world, "add_pub", "1m", 32, 500_000);
}

fn small_messages_exclusive(world: &World) {
    volume(world, "add_xpub", "1m", 32, 500_000);
}

fn kilobyte_messages(world: &World) {
    volume(world, "add_pub", "1m", 1024, 100_000);
}

fn kilobyte_messages_exclusive(world: &World) {
    volume(world, "add_xpub", "1m", 1024, 100_000);
}

fn megabyte_messages(world: &World) {
    volume(world, "add_pub", "16m", 1 << 20, 200);
}

fn megabyte_messages_exclusive(world: &World) {
    volume(world, "add_xpub", "16m", 1 << 20, 200);
}

/// Claims of one make between offers of the other; one of them aborted.
fn claims(world: &World) {
    let driver = world.driver(&[]);
    let mut claimer = world.client();
    let mut offerer = world.other();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    claimer.ok("add_pub p aeron:ipc 1001");
    offerer.ok("add_pub p aeron:ipc 1001");
    claimer.ok("connected p true 10000");
    let claimed = claimer.number("claim p 500 1");
    // The other one goes on behind the open claim; a reader waits in front of it.
    let after = offerer.number("offer p 10 100 2 10000");
    assert!(after > claimed);
    assert!(subscriber.ok("poll s 0 0").starts_with("0 "));
    claimer.ok("commit");
    let polled = Polled::parse(&subscriber.ok("poll s 11 10000"));
    assert_eq!((polled.senders, polled.position), (2, after));
    claimer.ok("claim p 500 9");
    let after = offerer.number("offer p 10 100 2 10000");
    claimer.ok("abort");
    let polled = Polled::parse(&subscriber.ok("poll s 10 10000"));
    assert_eq!((polled.senders, polled.position), (2, after));
    driver.stop();
}

/// Row 31. The first image comes back after the publication has cooled down.
fn rejected_image(world: &World) {
    let driver = world.driver(&[
        ("AERON_IMAGE_LIVENESS_TIMEOUT", "2s"),
        ("AERON_TIMER_INTERVAL", "200ms"),
    ]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    let publication = publisher.publication("add_pub p aeron:ipc 1001");
    subscriber.ok("add_sub s aeron:ipc 1001");
    publisher.ok("connected p true 10000");
    subscriber.ok("event image 10000");
    subscriber.ok("image_count s 1 10000");
    subscriber.ok("reject s 0 does not please me");
    let event = publisher.ok("event publication-error 10000");
    assert!(
        event.starts_with(&format!("publication-error {} 13 ", publication.registration_id)),
        "{event}"
    );
    assert!(event.contains("does not please me"), "{event}");
    subscriber.ok("event image-gone 10000");
    publisher.ok("connected p false 10000");
    assert_eq!(publisher.number("offer_once p 32"), -1);
    assert_eq!(publisher.system_counter(42), 1);
    // It comes back.
    subscriber.ok("event image 40000");
    publisher.ok("connected p true 20000");
    publisher.ok("offer p 10 100 1 10000");
    subscriber.ok("poll s 10 10000");
    publisher.close();
    subscriber.close();
    driver.stop();
}

const QUICK_UNTETHERED: &[(&str, &str)] = &[
    ("AERON_TIMER_INTERVAL", "100ms"),
    ("AERON_UNTETHERED_WINDOW_LIMIT_TIMEOUT", "500ms"),
    ("AERON_UNTETHERED_LINGER_TIMEOUT", "300ms"),
    ("AERON_UNTETHERED_RESTING_TIMEOUT", "500ms"),
];

fn offer_past_the_stalled(publisher: &mut Client, healthy: &mut Client) {
    for _ in 0..40 {
        publisher.ok("offer p 32 992 1 30000");
        healthy.ok("poll s 32 30000");
    }
}

/// Row 32.
fn untethered_subscriber(world: &World) {
    let driver = world.driver(QUICK_UNTETHERED);
    let mut publisher = world.client();
    let mut healthy = world.client();
    let mut stalled = world.other();
    healthy.ok("add_sub s aeron:ipc 1001");
    let subscription = stalled.number("add_sub s aeron:ipc?tether=false 1001");
    publisher.ok("add_pub p aeron:ipc?term-length=64k 1001");
    healthy.ok("connected s true 10000");
    stalled.ok("event image 10000");
    let counter = stalled.counter(4, subscription).id;
    publisher.ok("connected p true 10000");
    offer_past_the_stalled(&mut publisher, &mut healthy);
    stalled.ok("event image-gone 20000");
    let back = stalled.ok("event image 20000");
    assert!(!back.contains("join=0 "), "{back}");
    assert_eq!(stalled.counter(4, subscription).id, counter);
    publisher.ok("offer p 4 992 1 30000");
    stalled.ok("poll s 4 10000");
    driver.stop();
}

/// Row 32, second half.
fn untethered_subscriber_that_may_not_rejoin(world: &World) {
    let driver = world.driver(QUICK_UNTETHERED);
    let mut publisher = world.client();
    let mut healthy = world.client();
    let mut stalled = world.other();
    healthy.ok("add_sub s aeron:ipc 1001");
    let subscription = stalled.number("add_sub s aeron:ipc?tether=false|rejoin=false 1001");
    publisher.ok("add_pub p aeron:ipc?term-length=64k 1001");
    healthy.ok("connected s true 10000");
    stalled.ok("event image 10000");
    publisher.ok("connected p true 10000");
    offer_past_the_stalled(&mut publisher, &mut healthy);
    stalled.ok("event image-gone 20000");
    eventually("its position counter goes", || {
        !stalled
            .counters()
            .iter()
            .any(|line| line.type_id == 4 && line.registration_id == subscription)
    });
    offer_past_the_stalled(&mut publisher, &mut healthy);
    stalled.refused("event image 1500");
    driver.stop();
}

/// Row 37.
fn subscription_with_ipc_destination(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    publisher.ok("add_pub p aeron:ipc 1001");
    subscriber.ok("add_sub s aeron:udp?control-mode=manual 1001");
    subscriber.ok("destination s add aeron:ipc");
    publisher.ok("connected p true 10000");
    subscriber.ok("event image 10000");
    publisher.ok("offer p 50 100 1 10000");
    subscriber.ok("poll s 50 10000");
    subscriber.ok("destination s remove aeron:ipc");
    subscriber.ok("event image-gone 10000");
    publisher.ok("connected p false 10000");
    publisher.close();
    subscriber.close();
    driver.stop();
}

/// Batches are messages like any others, through rotations, with messages of several frames between them.
fn batches(world: &World) {
    let driver = world.driver(&[]);
    let mut publisher = world.client();
    let mut subscriber = world.other();
    for (stream, command) in [(1001, "add_pub"), (1002, "add_xpub")] {
        subscriber.ok(&format!("add_sub s{stream} aeron:ipc {stream}"));
        publisher.ok(&format!("{command} p{stream} aeron:ipc?term-length=64k {stream}"));
        publisher.ok(&format!("connected p{stream} true 10000"));
        for length in [32, 100, 2000, 33] {
            publisher.tell(&format!("offer_batches p{stream} 4000 {length} 3 100000"));
            let polled = Polled::parse(&subscriber.ok(&format!("poll s{stream} 4000 100000")));
            assert_eq!(publisher.answered(), polled.position.to_string());
        }
    }
    publisher.close();
    subscriber.close();
    driver.stop();
}

mixed_scenarios!(
    batches,
    subscription_first,
    publication_first,
    slow_subscriber_holds_the_publisher,
    rejoin_reads_what_was_left,
    longest_messages,
    rotation_and_padding,
    many_publishers,
    small_messages,
    small_messages_exclusive,
    kilobyte_messages,
    kilobyte_messages_exclusive,
    megabyte_messages,
    megabyte_messages_exclusive,
    claims,
    rejected_image,
    untethered_subscriber,
    untethered_subscriber_that_may_not_rejoin,
    subscription_with_ipc_destination,
);
