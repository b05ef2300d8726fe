//! Drivers and clients coming and going: checklist rows 1 to 5, 18 to 20, 39, 48.

use fulmar::time::SystemClock;

use crate::process::{Client, Driver, Make, eventually, millis_since, pause, read_i32, read_i64};
use crate::scenario::{World, scenarios};

/// Short enough for a test, long enough for a client on a busy machine to stay alive.
const SHORT_LIFE: &[(&str, &str)] = &[
    ("AERON_TIMER_INTERVAL", "200ms"),
    ("AERON_CLIENT_LIVENESS_TIMEOUT", "2s"),
    ("AERON_PUBLICATION_UNBLOCK_TIMEOUT", "3s"),
    ("AERON_PUBLICATION_LINGER_TIMEOUT", "500ms"),
    ("AERON_COUNTERS_FREE_TO_REUSE_TIMEOUT", "500ms"),
];

fn driver_heartbeat(world: &World) -> i64 {
    let cnc = world.dir.file("cnc.dat");
    let ring = usize::try_from(read_i32(&cnc, 4)).expect("a length");
    read_i64(&cnc, 128 + ring - 768 + 640)
}

/// Row 1.
fn first_connect(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let cnc = world.dir.file("cnc.dat");
    assert_eq!(read_i32(&cnc, 0), 512);
    let age = fulmar::time::Clock::now(&SystemClock).epoch.0 - driver_heartbeat(world);
    assert!((-1000..=5000).contains(&age), "heartbeat is {age} ms old");

    let counters = client.counters();
    assert!(
        counters.iter().all(|counter| counter.type_id != 11),
        "a heartbeat before any command: {counters:#?}"
    );
    let labels = [
        (0, "Bytes sent"),
        (1, "Bytes received"),
        (14, "Invalid packets"),
        (15, "Errors"),
        (19, "Unblocked Publications"),
        (20, "Unblocked Control Commands"),
        (24, "Client liveness timeouts"),
        (35, "Bytes currently mapped"),
        (40, "Publications Revoked"),
        (42, "Images rejected"),
        (43, "Control protocol version"),
    ];
    for (id, label) in labels {
        let counter = counters
            .iter()
            .find(|counter| counter.id == id)
            .expect("a system counter");
        assert!(counter.label.starts_with(label), "{counter:?}");
        assert_eq!(
            (counter.type_id, counter.registration_id),
            (0, i64::from(id)),
            "{counter:?}"
        );
    }
    assert_eq!(
        counters.iter().filter(|counter| counter.type_id == 0).count() as i64,
        46 + extra(&counters)
    );
    assert_eq!(client.system_counter(43), 65536);
    client.close();
    driver.stop();
}

/// Newer Aeron drivers have more system counters than the 46 of the protocol's checklist.
fn extra(counters: &[crate::process::Counter]) -> i64 {
    counters
        .iter()
        .filter(|counter| counter.type_id == 0 && counter.id >= 46)
        .count() as i64
}

/// Row 2.
fn client_before_driver(world: &World) {
    let mut client = Client::launch(world.client);
    let (_, reason) = client.refused(&format!("connect {} 300", world.dir.path()));
    assert!(!reason.is_empty());
    client.tell(&format!("connect {} 30000", world.dir.path()));
    pause(200);
    let driver = world.driver(&[]);
    client.answered();
    client.ok("add_pub p aeron:ipc 1001");
    client.close();
    driver.stop();
}

/// Row 3, for a client that was attached when the driver died.
fn killed_driver_is_replaced(world: &World) {
    let driver = world.driver(&[("AERON_DRIVER_TIMEOUT", "1s")]);
    let mut client = Client::launch(world.client);
    client.ok(&format!("connect {} 1000", world.dir.path()));
    client.ok("add_pub p aeron:ipc 1001");
    driver.kill();
    match world.client {
        Make::C => eventually("the client gives up", || client.ok("closed") == "true"),
        // Ours knows at once, and stays: its handles come back with the next driver.
        Make::Fulmar => drop(client.ok("event driver-lost 20000")),
    }
    let successor = start_when_stale(world);
    let mut later = world.other();
    later.ok("add_sub s aeron:ipc 1001");
    if world.client == Make::Fulmar {
        client.ok("event reattached 20000");
        client.ok("connected p true 20000");
        client.ok("offer p 10 64 1 10000");
        later.ok("poll s 10 10000");
    }
    successor.stop();
}

/// A driver refuses a directory whose heartbeat is young; the C driver needs the old one to age.
fn start_when_stale(world: &World) -> Driver {
    let start = SystemClock.nanos();
    loop {
        let mut driver = Driver::launch(world.driver, &world.dir, &[("AERON_DRIVER_TIMEOUT", "1s")]);
        match driver.ready() {
            Ok(()) => return driver,
            Err(error) => assert!(millis_since(start) < 30_000, "{error}"),
        }
        pause(200);
    }
}

/// Row 4.
fn second_driver_is_refused(world: &World) {
    let mut first = world.driver(&[]);
    for make in [Make::C, Make::Fulmar] {
        let mut second = Driver::launch(make, &world.dir, &[]);
        assert!(second.ready().is_err(), "a second {make:?} driver started");
        assert!(!second.ended());
    }
    assert!(first.is_running());
    let mut client = world.client();
    client.ok("add_pub p aeron:ipc 1001");
    client.close();
    first.stop();
}

/// Row 5.
fn clean_shutdown_closes_clients(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    client.ok("add_pub p aeron:ipc 1001");
    client.ok("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    driver.stop();
    assert_eq!(driver_heartbeat(world), -1);
    match world.client {
        Make::C => {
            client.ok("event error 1000 10000");
            eventually("the client closes", || client.ok("closed") == "true");
            assert_eq!(client.number("offer_once p 32"), -4);
        }
        Make::Fulmar => {
            let event = client.ok("event driver-lost 10000");
            assert!(event.contains("ShutDown"), "{event}");
            assert_eq!(client.number("offer_once p 32"), -1);
        }
    }
}

/// Row 18.
fn killed_client_is_cleaned_up(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut watcher = world.other();
    watcher.ok("add_sub s aeron:ipc 1001");
    let mut victim = world.client();
    let publication = victim.publication("add_pub p aeron:ipc 1001");
    victim.ok("add_sub own aeron:ipc 1001");
    victim.ok("add_counter c 1100 0102 of the victim");
    watcher.ok("connected s true 10000");
    victim.ok("offer p 10 64 1 10000");
    let log = publication.log(&world.dir);
    assert!(log.exists());
    victim.kill();

    watcher.ok("poll s 10 10000");
    watcher.ok("event image-gone 30000");
    eventually("the log goes", || !log.exists());
    assert_eq!(watcher.system_counter(24), 1);
    eventually("its counters go", || {
        !watcher.counters().iter().any(|counter| {
            // Registration ids of system counters are their own numbers.
            let of_the_publication =
                counter.registration_id == publication.registration_id && counter.type_id != 0;
            of_the_publication || counter.label.contains("of the victim")
        })
    });
    watcher.close();
    driver.stop();
}

/// Row 19.
fn suspended_client_is_closed(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut watcher = world.other();
    let mut sleeper = world.client();
    sleeper.ok("add_pub p aeron:ipc 1001");
    watcher.ok("add_sub s aeron:ipc 1001");
    watcher.ok("connected s true 10000");
    sleeper.suspend();
    eventually("the driver gives up on the client", || {
        watcher.system_counter(24) == 1
    });
    sleeper.resume();
    eventually("the client notices", || sleeper.ok("closed") == "true");
    assert!(sleeper.number("offer_once p 32") < 0);
    watcher.ok("event image-gone 30000");
    assert_eq!(watcher.system_counter(24), 1);
    watcher.close();
    driver.stop();
}

/// Row 20.
fn closed_client_leaves_no_trace(world: &World) {
    let driver = world.driver(SHORT_LIFE);
    let mut watcher = world.other();
    watcher.ok("add_sub s aeron:ipc 1001");
    let before = watcher.counters().len();
    let mut client = world.client();
    let log = client.publication("add_pub p aeron:ipc 1001").log(&world.dir);
    client.ok("add_counter c 1100 0102 short lived");
    client.close();
    eventually("the log goes", || !log.exists());
    eventually("the counters go", || watcher.counters().len() == before);
    assert_eq!(watcher.system_counter(24), 0);
    watcher.close();
    driver.stop();
}

/// Row 39.
fn termination_needs_permission(world: &World) {
    let mut driver = world.driver(&[]);
    let mut client = world.client();
    client.ok(&format!("terminate {} token", world.dir.path()));
    client.ok("add_pub p aeron:ipc 1001");
    assert!(driver.is_running());
    client.close();
    driver.stop();

    let mut driver = world.driver(&[("AERON_DRIVER_TERMINATION_VALIDATOR", "allow")]);
    let mut client = world.client();
    client.ok("add_pub p aeron:ipc 1001");
    client.ok(&format!("terminate {} token", world.dir.path()));
    assert!(driver.ended());
    assert_eq!(driver_heartbeat(world), -1);
}

/// Row 48.
fn foreign_major_version_is_refused(world: &World) {
    let driver = world.driver(&[]);
    driver.kill();
    let cnc = world.dir.file("cnc.dat");
    let mut bytes = std::fs::read(&cnc).expect("the driver made it");
    bytes[..4].copy_from_slice(&0x0001_0000i32.to_le_bytes());
    std::fs::write(&cnc, &bytes).expect("writable");
    let mut client = Client::launch(world.client);
    let (_, reason) = client.refused(&format!("connect {} 500", world.dir.path()));
    assert!(reason.to_lowercase().contains("version"), "{reason}");
    assert!(
        std::fs::read(&cnc).expect("still there") == bytes,
        "the refused client wrote to the file"
    );
}

scenarios!(
    first_connect,
    client_before_driver,
    killed_driver_is_replaced,
    second_driver_is_refused,
    clean_shutdown_closes_clients,
    suspended_client_is_closed,
    closed_client_leaves_no_trace,
    termination_needs_permission,
    foreign_major_version_is_refused,
    killed_client_is_cleaned_up,
);
