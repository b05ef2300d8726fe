//! Counters that applications add: checklist rows 21 to 23.

use crate::process::{Counter, eventually};
use crate::scenario::{World, mixed_scenarios};

fn by_label<'a>(counters: &'a [Counter], label: &str) -> Option<&'a Counter> {
    counters.iter().find(|counter| counter.label == label)
}

/// Row 21.
fn counter_of_one_client_seen_by_another(world: &World) {
    let driver = world.driver(&[("AERON_COUNTERS_FREE_TO_REUSE_TIMEOUT", "1s")]);
    let mut owner = world.client();
    let mut reader = world.other();
    let key: String = (0..112).map(|byte| format!("{byte:02x}")).collect();
    let label = "l".repeat(380);
    let ids = owner.ok(&format!("add_counter c 1234 {key} {label}"));
    let (id, registration_id) = ids.split_once(' ').expect("two numbers");
    reader.ok(&format!("event counter {registration_id} {id} 10000"));
    owner.ok(&format!("event counter {registration_id} {id} 10000"));
    let seen = reader.counter(1234, registration_id.parse().expect("a number"));
    assert_eq!((seen.id.to_string().as_str(), seen.value), (id, 0));
    assert_eq!(
        (seen.key.as_str(), seen.label.as_str()),
        (key.as_str(), label.as_str())
    );
    assert_eq!(
        seen.owner_id,
        owner
            .counters()
            .iter()
            .find(|line| line.type_id == 11)
            .expect("heartbeat")
            .owner_id
    );
    owner.ok("set c 4711");
    assert_eq!(reader.counter(1234, seen.registration_id).value, 4711);
    assert_eq!(owner.number("get c"), 4711);

    owner.ok("close c");
    reader.ok(&format!("event counter-gone {registration_id} {id} 10000"));
    assert!(by_label(&reader.counters(), &label).is_none());
    let next = owner.ok("add_counter d 1234 01 next");
    assert_ne!(
        next.split_once(' ').expect("two numbers").0,
        id,
        "an id was used again at once"
    );
    owner.close();
    reader.close();
    driver.stop();
}

/// Rows 22 and 23.
fn static_counters(world: &World) {
    let driver = world.driver(&[("AERON_TIMER_INTERVAL", "200ms")]);
    let mut first = world.client();
    let mut second = world.other();
    let mine = first.ok("add_static_counter c 1300 77 0a0b a static counter");
    let same = second.ok("add_static_counter c 1300 77 0c another label");
    assert_eq!(mine, same);
    let seen = second.counter(1300, 77);
    assert_eq!((seen.owner_id, seen.label.as_str()), (-1, "a static counter"));
    assert!(seen.key.starts_with("0a0b00"), "{seen:?}");
    first.ok("set c 5");
    assert_eq!(second.number("get c"), 5);
    let ordinary = first.ok("add_counter d 1301 01 ordinary");
    let (_, registration_id) = ordinary.split_once(' ').expect("two numbers");
    let (code, text) = second.refused(&format!("add_static_counter e 1301 {registration_id} 01 clash"));
    assert_eq!(code.abs(), 11, "{text}");
    first.close();
    eventually("the ordinary one goes", || {
        by_label(&second.counters(), "ordinary").is_none()
    });
    second.close();
    let mut third = world.client();
    assert_eq!(third.counter(1300, 77).value, 5);
    third.close();
    driver.stop();
}

mixed_scenarios!(counter_of_one_client_seen_by_another, static_counters);
