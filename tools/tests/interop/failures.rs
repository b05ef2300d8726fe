//! Clients that die in the middle of something: checklist rows 16, 17 and 42.

use crate::process::{Polled, eventually};
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
    victim.kill();
    let polled = Polled::parse(&subscriber.ok("poll s 15 60000"));
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

mixed_scenarios!(
    killed_with_an_open_claim,
    exclusive_publisher_killed_with_an_open_claim
);
