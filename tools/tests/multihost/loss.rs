//! Everything arrives, in order, once, over links that lose, double and reorder packets, and repairing it costs no
//! storm: retransmitted bytes stay below three times the lost bytes and one window.

use std::time::Duration;

use fulmar::client::Client;
use fulmar::counters::SystemCounter;

use crate::driver::{Driver, Make};
use crate::long;
use crate::netem::{Faults, hosts_on_a_wire};
use crate::network::{Filter, Host, Network, can_run};
use crate::traffic::{Expect, PositionWatch, Publisher, Reader, eventually};

const STREAM: i32 = 1001;
const DATA_PORT: u16 = 20121;
/// Both ways: data to the receiver, status messages and NAKs to the ephemeral port of the sender.
const ANY_PORT: &str = "1-65535";
/// The default window of a receiver, bytes.
const WINDOW: u64 = 128 * 1024;

/// About 1 KiB each on average. A window takes as long as a lost status message is waited for, once in a while, so this
/// is half a minute of the worst link.
fn messages() -> u64 {
    if long() { 50_000 } else { 8_000 }
}

/// Every agent has its thread.
const DEDICATED: &[(&str, &str)] = &[("AERON_THREADING_MODE", "DEDICATED")];

/// One stream from host to host; what the sender repeated, bytes.
fn stream_between(make: Make, near: &Host, far: &Host, expect_repairs: bool) -> Repairs {
    let sender = Driver::start(make, near, DEDICATED);
    let receiver = Driver::start(make, far, DEDICATED);
    let (publishing, subscribing) = (sender.client(), receiver.client());
    let watch = PositionWatch::start(&[&sender, &receiver]);
    transfer(&publishing, &subscribing, &far.address);
    watch.finish();
    sender.assert_running();
    receiver.assert_running();
    let repairs = Repairs::of(&sender, &receiver);
    if expect_repairs {
        assert!(repairs.naks_sent > 0 && repairs.bytes > 0, "{repairs:?}");
    }
    repairs
}

fn transfer(publishing: &Client, subscribing: &Client, address: &str) {
    let channel = format!("aeron:udp?endpoint={address}:{DATA_PORT}");
    let reader = Reader::start(subscribing, &channel, STREAM, Expect::Everything);
    let publication = publishing
        .add_publication(&channel, STREAM)
        .unwrap_or_else(|error| panic!("{channel}: {error}"));
    eventually("the two ends connect", || {
        reader.available() > 0 && publication.is_connected()
    });
    let publisher = Publisher::start(publication, messages(), Duration::ZERO);
    reader.await_next(messages());
    publisher.finish();
    assert_eq!(reader.received(), messages());
    assert_eq!(reader.position(), publisher.position());
    assert_eq!((reader.available(), reader.unavailable()), (1, 0));
    assert_eq!(publisher.unconnected(), 0, "the stream stayed connected");
}

/// What the repair of a stream took.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "printed for whoever reads a failure")]
struct Repairs {
    bytes: u64,
    sent: i64,
    retransmits: i64,
    naks_sent: i64,
    naks_received: i64,
}

impl Repairs {
    fn of(sender: &Driver, receiver: &Driver) -> Repairs {
        Repairs {
            bytes: sender
                .system_counter(SystemCounter::RetransmittedBytes)
                .cast_unsigned(),
            sent: sender.system_counter(SystemCounter::BytesSent),
            retransmits: sender.system_counter(SystemCounter::RetransmitsSent),
            naks_sent: receiver.system_counter(SystemCounter::NakMessagesSent),
            naks_received: sender.system_counter(SystemCounter::NakMessagesReceived),
        }
    }

    #[track_caller]
    fn assert_no_storm(self, lost_bytes: u64) {
        println!("{self:?}, {lost_bytes} bytes lost of {} sent", self.sent);
        assert!(
            self.bytes < 3 * lost_bytes + WINDOW,
            "{self:?} for {lost_bytes} lost bytes"
        );
    }
}

/// Hosts on a switch, whose links carry `megabits` and lose packets both ways.
fn lossy_hosts(filter: Filter, megabits: u32) -> (Network, Host, Host) {
    let network = Network::new();
    let (near, far) = (network.host(), network.host());
    let back = match filter {
        Filter::Random(_) => filter,
        // A burst is a number of packets. On the way back, where five a second pass when all waits for one of them,
        // thirty would be a partition.
        Filter::Bursts(_) => Filter::Random(20),
    };
    for (host, filter) in [(&near, back), (&far, filter)] {
        host.limit_rate(megabits);
        host.drop_arriving(filter, ANY_PORT);
    }
    (network, near, far)
}

fn over_a_filter(test: &str, make: Make, filter: Filter) {
    if !can_run(test) {
        return;
    }
    let (_network, near, far) = lossy_hosts(filter, 200);
    let repairs = stream_between(make, &near, &far, true);
    let dropped = far.dropped();
    assert!(dropped.packets > 0);
    repairs.assert_no_storm(dropped.bytes);
}

fn over_a_wire(test: &str, make: Make, there: Faults, back: Faults) {
    if !can_run(test) {
        return;
    }
    let (near, far, wire) = hosts_on_a_wire(there, back, 0x5eed);
    let loses = there.loss > 0;
    let repairs = stream_between(make, &near, &far, loses);
    let [tally, _] = wire.tallies();
    println!("{tally:?}");
    assert!(tally.packets > 0);
    if loses {
        repairs.assert_no_storm(tally.lost_bytes);
    }
}

/// How one publication reaches several receivers.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Multicast,
    /// Multi-destination, with destinations that the publication learns from its receivers.
    Dynamic,
    /// Multi-destination, with destinations that the application names.
    Manual,
}

impl Spread {
    /// Waits for two receivers and for the slower of them.
    fn publication(self, from: &str) -> String {
        match self {
            Spread::Multicast => {
                format!("aeron:udp?endpoint=224.20.30.39:24326|interface={from}|fc=min,g:/2")
            }
            Spread::Dynamic => format!("aeron:udp?control={from}:24327|control-mode=dynamic|fc=min,g:/2"),
            Spread::Manual => "aeron:udp?control-mode=manual|fc=min,g:/2".into(),
        }
    }

    fn subscription(self, from: &str, at: &str) -> String {
        match self {
            Spread::Multicast => format!("aeron:udp?endpoint=224.20.30.39:24326|interface={at}"),
            Spread::Dynamic => {
                format!("aeron:udp?endpoint={at}:24328|control={from}:24327|control-mode=dynamic")
            }
            Spread::Manual => format!("aeron:udp?endpoint={at}:24328"),
        }
    }
}

/// Two receivers, which lose different packets, get everything.
fn to_two_receivers(test: &str, make: Make, spread: Spread) {
    if !can_run(test) {
        return;
    }
    let network = Network::new();
    let near = network.host();
    let far = [network.host(), network.host()];
    for host in far.iter().chain([&near]) {
        host.limit_rate(200);
    }
    far[0].drop_arriving(Filter::Random(50), ANY_PORT);
    far[1].drop_arriving(Filter::Bursts(20), ANY_PORT);
    let sender = Driver::start(make, &near, &[]);
    let receivers = far.each_ref().map(|host| Driver::start(make, host, &[]));
    let watch = PositionWatch::start(&[&sender, &receivers[0], &receivers[1]]);
    let readers = [0, 1].map(|index| {
        let channel = spread.subscription(&near.address, &far[index].address);
        Reader::start(&receivers[index].client(), &channel, STREAM, Expect::Everything)
    });
    let channel = spread.publication(&near.address);
    let publication = sender
        .client()
        .add_publication(&channel, STREAM)
        .unwrap_or_else(|error| panic!("{channel}: {error}"));
    if matches!(spread, Spread::Manual) {
        for host in &far {
            let destination = format!("aeron:udp?endpoint={}:24328", host.address);
            publication
                .add_destination(&destination)
                .unwrap_or_else(|error| panic!("{destination}: {error}"));
        }
    }
    eventually("everybody is connected", || {
        publication.is_connected() && readers.iter().all(|reader| reader.available() > 0)
    });
    let publisher = Publisher::start(publication, messages(), Duration::ZERO);
    for reader in &readers {
        reader.await_next(messages());
        assert_eq!(reader.received(), messages());
        assert_eq!((reader.available(), reader.unavailable()), (1, 0));
    }
    publisher.finish();
    watch.finish();
    let lost = far.each_ref().map(|host| host.dropped().bytes);
    assert!(lost.iter().all(|bytes| *bytes > 0), "{lost:?}");
    Repairs::of(&sender, &receivers[0]).assert_no_storm(lost.iter().sum());
    for driver in receivers.iter().chain([&sender]) {
        driver.assert_running();
    }
}

/// Bursts of loss, duplicates, reordering and delay, all at once.
const ROUGH: Faults = Faults {
    loss: 10,
    burst: 6,
    duplicates: 30,
    reorder: 50,
    hold: Duration::from_millis(2),
    delay: Duration::from_millis(1),
};

/// Nothing is lost, but much arrives twice and out of order.
const SHUFFLED: Faults = Faults {
    loss: 0,
    burst: 0,
    duplicates: 100,
    reorder: 300,
    hold: Duration::from_millis(1),
    delay: Duration::from_micros(200),
};

macro_rules! for_make {
    ($make:expr) => {
        #[test]
        fn one_percent_of_random_loss() {
            over_a_filter("one_percent_of_random_loss", $make, Filter::Random(10));
        }

        #[test]
        fn ten_percent_of_random_loss() {
            over_a_filter("ten_percent_of_random_loss", $make, Filter::Random(100));
        }

        #[test]
        fn thirty_percent_of_random_loss() {
            over_a_filter("thirty_percent_of_random_loss", $make, Filter::Random(300));
        }

        #[test]
        fn bursts_of_thirty_lost_packets() {
            over_a_filter("bursts_of_thirty_lost_packets", $make, Filter::Bursts(30));
        }

        #[test]
        fn multicast_to_two_receivers_with_loss() {
            to_two_receivers(
                "multicast_to_two_receivers_with_loss",
                $make,
                Spread::Multicast,
            );
        }

        #[test]
        fn two_destinations_with_loss() {
            to_two_receivers("two_destinations_with_loss", $make, Spread::Dynamic);
        }

        #[test]
        fn two_named_destinations_with_loss() {
            to_two_receivers("two_named_destinations_with_loss", $make, Spread::Manual);
        }

        #[test]
        fn bursts_duplicates_reordering_and_delay() {
            over_a_wire(
                "bursts_duplicates_reordering_and_delay",
                $make,
                ROUGH,
                ROUGH,
            );
        }

        #[test]
        fn duplicates_and_reordering_without_loss() {
            over_a_wire(
                "duplicates_and_reordering_without_loss",
                $make,
                SHUFFLED,
                SHUFFLED,
            );
        }
    };
}

mod fulmar_drivers {
    use super::*;
    for_make!(Make::Fulmar);
}

#[cfg(feature = "peer")]
mod c_drivers {
    use super::*;
    for_make!(Make::C);
}
