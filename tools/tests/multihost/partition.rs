//! A partition that ends before anybody gives up loses nothing, not even the image; after one that lasts longer both
//! sides have said so, and they connect again by themselves.

use std::time::Duration;

use fulmar::time::SystemClock;

use crate::driver::{Driver, Make};
use crate::long;
use crate::network::{Host, Network, can_run};
use crate::traffic::{Expect, PositionWatch, Publisher, Reader, eventually, millis_since, pause, within};

const STREAM: i32 = 1001;

/// How a link breaks.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// Packets vanish on their way, both ways.
    Silent,
    /// Only what the receiver sends vanishes.
    OneWay,
    /// The interface is down: sending fails.
    Unplugged,
}

impl Break {
    fn start(self, near: &Host, far: &Host) {
        match self {
            Break::Silent => {
                near.deafen();
                far.deafen();
            }
            Break::OneWay => near.deafen(),
            Break::Unplugged => {
                near.unplug();
                far.unplug();
            }
        }
    }

    fn end(self, near: &Host, far: &Host) {
        match self {
            Break::Silent => {
                near.hear();
                far.hear();
            }
            Break::OneWay => near.hear(),
            Break::Unplugged => {
                near.plug();
                far.plug();
            }
        }
    }
}

/// 3 s, with the timeouts of the protocol: 5 s for a publication, 10 s for an image.
fn short_partition(test: &str, make: Make, how: Break) {
    if !can_run(test) {
        return;
    }
    let network = Network::new();
    let (near, far) = (network.host(), network.host());
    let threads = &[("AERON_THREADING_MODE", "SHARED_NETWORK")];
    let sender = Driver::start(make, &near, threads);
    let receiver = Driver::start(make, &far, threads);
    let watch = PositionWatch::start(&[&sender, &receiver]);
    let channel = format!("aeron:udp?endpoint={}:20121", far.address);
    let reader = Reader::start(&receiver.client(), &channel, STREAM, Expect::Everything);
    let publication = sender
        .client()
        .add_publication(&channel, STREAM)
        .unwrap_or_else(|error| panic!("{error}"));
    eventually("the two ends connect", || {
        reader.available() > 0 && publication.is_connected()
    });
    let count = 3_000;
    let publisher = Publisher::start(publication, count, Duration::from_millis(1));
    reader.await_next(500);

    how.start(&near, &far);
    pause(Duration::from_secs(3));
    assert!(reader.next() < count, "the partition came before the end");
    how.end(&near, &far);

    reader.await_next(count);
    publisher.finish();
    assert_eq!(
        (reader.available(), reader.unavailable()),
        (1, 0),
        "the same image"
    );
    assert_eq!(publisher.unconnected(), 0, "the publication stayed connected");
    assert_eq!(reader.position(), publisher.position());
    watch.finish();
    sender.assert_running();
    receiver.assert_running();
}

/// 30 s with the timeouts of the protocol, or everything in a quarter of the time.
fn long_partition(test: &str, make: Make, how: Break) {
    if !can_run(test) {
        return;
    }
    let (settings, length): (&[(&str, &str)], Duration) = if long() {
        (&[], Duration::from_secs(30))
    } else {
        let quarters = &[
            ("AERON_PUBLICATION_CONNECTION_TIMEOUT", "1250ms"),
            ("AERON_IMAGE_LIVENESS_TIMEOUT", "2500ms"),
        ];
        (quarters, Duration::from_millis(7_500))
    };
    let network = Network::new();
    let (near, far) = (network.host(), network.host());
    let sender = Driver::start(make, &near, settings);
    let receiver = Driver::start(make, &far, settings);
    let channel = format!("aeron:udp?endpoint={}:20121", far.address);
    let reader = Reader::start(&receiver.client(), &channel, STREAM, Expect::Later);
    let publishing = sender.client();
    let publication = publishing
        .add_publication(&channel, STREAM)
        .unwrap_or_else(|error| panic!("{error}"));
    eventually("the two ends connect", || {
        reader.available() > 0 && publication.is_connected()
    });
    let publisher = Publisher::start(publication, u64::MAX, Duration::from_millis(1));
    reader.await_next(500);

    let broken = SystemClock.nanos();
    how.start(&near, &far);
    let publisher_said = within(length, || publisher.unconnected() > 0);
    let publisher_after = millis_since(broken);
    let reader_said = within(length, || reader.unavailable() > 0);
    let reader_after = millis_since(broken);
    println!("not connected after {publisher_after} ms, image unavailable after {reader_after} ms");
    assert!(publisher_said, "the publisher was told");
    assert!(reader_said, "the subscriber was told");
    let passed = Duration::from_millis(millis_since(broken).cast_unsigned());
    pause(length.saturating_sub(passed));
    assert_eq!(reader.available(), 1, "nothing came while the link was broken");
    how.end(&near, &far);

    eventually("a new image", || reader.available() == 2);
    let accepted = publisher.accepted();
    eventually("the publication is connected again", || {
        publisher.accepted() > accepted + 100
    });
    let now = publisher.accepted();
    reader.await_next(now);
    assert_eq!((reader.available(), reader.unavailable()), (2, 1));
    sender.assert_running();
    receiver.assert_running();
}

macro_rules! for_make {
    ($make:expr) => {
        #[test]
        fn three_seconds_of_silence_lose_nothing() {
            short_partition(
                "three_seconds_of_silence_lose_nothing",
                $make,
                Break::Silent,
            );
        }

        #[test]
        fn three_seconds_without_a_cable_lose_nothing() {
            short_partition(
                "three_seconds_without_a_cable_lose_nothing",
                $make,
                Break::Unplugged,
            );
        }

        #[test]
        fn three_seconds_without_an_answer_lose_nothing() {
            short_partition(
                "three_seconds_without_an_answer_lose_nothing",
                $make,
                Break::OneWay,
            );
        }

        #[test]
        fn after_a_long_silence_both_sides_know_and_connect_again() {
            long_partition(
                "after_a_long_silence_both_sides_know_and_connect_again",
                $make,
                Break::Silent,
            );
        }
    };
}

mod fulmar_drivers {
    use super::*;
    for_make!(Make::Fulmar);

    /// Aeron's driver does not tell a publisher as long as sending fails.
    #[test]
    fn after_a_long_time_without_a_cable_both_sides_know_and_connect_again() {
        long_partition(
            "after_a_long_time_without_a_cable_both_sides_know_and_connect_again",
            Make::Fulmar,
            Break::Unplugged,
        );
    }
}

#[cfg(feature = "peer")]
mod c_drivers {
    use super::*;
    for_make!(Make::C);
}
