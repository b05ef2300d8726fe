//! Clients that die in the middle of something: checklist rows 16 and 17, and what
//! our driver adds for our clients.

use fulmar::time::SystemClock;

use crate::process::{Make, Polled, eventually, millis_since};
use crate::scenario::{World, mixed_scenarios};

const SHORT_LIFE: &[(&str, &str)] = &[
    ("AERON_TIMER_INTERVAL", "200ms"),
    ("AERON_CLIENT_LIVENESS_TIMEOUT", "2s"),
    ("AERON_PUBLICATION_UNBLOCK_TIMEOUT", "3s"),
    ("AERON_PUBLICATION_LINGER_TIMEOUT", "500ms"),
];

/// Row 16.
fn killed_with_an_open_claim(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut victim = world.client();
    let mut survivor = world.other();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    victim.ok("add_pub p aeron:ipc 1001");
    survivor.ok("add_pub p aeron:ipc 1001");
    victim.ok("connected p true 10000");
    victim.ok("offer p 5 100 1 10000");
    victim.ok("claim p 700 1");
    let position = survivor.number("offer p 10 100 2 10000");
    let killed = SystemClock.nanos();
    victim.kill();
    let polled = Polled::parse(&subscriber.ok("poll s 15 60000"));
    if (world.driver, world.client) == (Make::Fulmar, Make::Fulmar) {
        // Ours know each other: the range of a dead process is repaired at once, not after the timeouts.
        assert!(
            millis_since(killed) < 1_500,
            "repaired after {} ms",
            millis_since(killed)
        );
    }
    assert_eq!((polled.senders, polled.position), (2, position));
    eventually("the repair is counted", || survivor.system_counter(19) == 1);
    survivor.ok("offer p 1000 100 2 10000");
    subscriber.ok("poll s 1000 10000");
    driver.stop();
}

/// Row 17.
fn exclusive_publisher_killed_with_an_open_claim(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut victim = world.client();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    let log = victim.publication("add_xpub p aeron:ipc 1001").log(&world.dir);
    victim.ok("connected p true 10000");
    victim.ok("offer p 5 100 1 10000");
    victim.ok("claim p 700 1");
    victim.kill();
    subscriber.ok("poll s 5 10000");
    eventually("the stream ends", || {
        subscriber.ok("poll s 0 0");
        subscriber.images("s").is_empty()
    });
    subscriber.ok("event image-gone 10000");
    eventually("the log goes", || !log.exists());
    subscriber.close();
    driver.stop();
}

/// Publishers of one make killed wherever they are while one of the other make goes on: what the survivor sent
/// arrives complete and in order, and what a victim sent is a beginning without holes.
fn publishers_killed_in_full_flight(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut survivor = world.other();
    let mut subscriber = world.other();
    subscriber.ok("add_sub s aeron:ipc 1001");
    survivor.ok("add_pub p aeron:ipc?term-length=64k 1001");
    survivor.ok("connected p true 10000");
    for round in 1..=8 {
        let mut victim = world.client();
        victim.ok("add_pub p aeron:ipc 1001");
        victim.ok("connected p true 10000");
        victim.tell(&format!("offer p 100000000 {} {} 60000", 40 * round, 100 + round));
        survivor.tell("offer p 2000 200 7 60000");
        // Reads while both send, then the victim dies in whatever it does.
        for _ in 0..20 {
            subscriber.ok("poll s 0 5");
        }
        victim.kill();
        loop {
            subscriber.ok("poll s 0 20");
            if let Some(answer) = survivor.answer_within(1) {
                assert!(answer.is_ok(), "{answer:?}");
                break;
            }
        }
    }
    // The last message of the survivor is the last of the stream, and everything before it has been checked.
    survivor.tell("offer p 1 200 7 30000");
    let mut end = None;
    eventually("everything arrives", || {
        let polled = Polled::parse(&subscriber.ok("poll s 0 20"));
        if let Some(answer) = survivor.answer_within(1) {
            end = Some(answer.expect("accepted"));
        }
        let read = subscriber.images("s")[0].position.to_string();
        assert!(polled.senders <= 9);
        end.as_ref().is_some_and(|end| *end == read)
    });
    driver.stop();
}

mixed_scenarios!(
    publishers_killed_in_full_flight,
    killed_with_an_open_claim,
    exclusive_publisher_killed_with_an_open_claim,
);
