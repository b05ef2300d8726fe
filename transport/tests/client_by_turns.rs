//! A loop that publishes and polls by turns is not held up by the rests that a reader makes in a dense stream.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use fulmar::Offer;
use fulmar::time::SystemClock;
use scripted::start;

/// The shortest of many runs, nanoseconds: what the neighbours on the machine do is in the others.
fn shortest(runs: usize, mut run: impl FnMut()) -> i64 {
    let mut nanos = || {
        let start = SystemClock.nanos();
        run();
        SystemClock.nanos().since(start)
    };
    (0..runs).map(|_| nanos()).min().unwrap()
}

#[test]
fn publishing_and_polling_by_turns_is_not_held_up() {
    let (mut driver, client, _) = start();
    let (mut publication, log) = driver.add_exclusive_publication(&client, 1, 10, 1 << 40);
    let mut subscription = driver.add_subscription(&client, 10, &[&log]);

    let mut turn = |messages: usize| {
        for _ in 0..messages {
            assert!(matches!(publication.offer(&[7; 32]), Offer::Position(_)));
        }
        assert_eq!(subscription.poll(|_, _| {}, 100), messages);
    };
    // Turns of two messages are never waited for, whatever this machine and this build take for them.
    let short = shortest(50, || turn(2));
    // So many that a dense stream would have been waited for by now.
    (0..20).for_each(|_| turn(8));
    let long = shortest(50, || turn(8));
    let rest = shortest(50, || (0..256).for_each(|_| core::hint::spin_loop()));
    assert!(
        long < 4 * short + rest,
        "turns of 2 and 8 messages took {short} and {long} ns, 256 pauses take {rest} ns"
    );
}
