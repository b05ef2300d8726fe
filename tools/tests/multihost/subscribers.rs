//! Slow, stopped and killed subscribers, on the publisher's host and on another one, under each flow control: the
//! others get what that strategy promises, and no position goes back.
//!
//! Unicast and min wait for everybody; max for the fastest; tagged for those who carry the tag. Whoever waits, waits
//! no longer than until the driver of the subscriber has given it up, or the sender its receiver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulmar::counters::type_id::{CLIENT_HEARTBEAT, SUBSCRIBER_POSITION};

use crate::driver::{Driver, Make, ends_with_its_parent, send_signal, without_settings};
use crate::network::{Host, Network, can_run};
use crate::traffic::{Expect, PositionWatch, Publisher, Reader, eventually, pause, within};

const STREAM: i32 = 1001;
/// Small enough that a subscriber who does not read is noticed soon.
const TERM_LENGTH: &str = "256k";
/// What a receiver may have unread at most: half a term.
const WINDOW: i64 = 128 * 1024;
/// Ten terms, so that nobody can hide in a buffer.
const MESSAGES: u64 = 3_500;
/// More than a reader that sleeps this long after each fragment can read while others read everything.
const SLOW: Duration = Duration::from_millis(3);

/// Short timeouts, so that the tests are.
const SETTINGS: &[(&str, &str)] = &[
    ("AERON_TERM_BUFFER_LENGTH", TERM_LENGTH),
    ("AERON_CLIENT_LIVENESS_TIMEOUT", "2s"),
    ("AERON_PUBLICATION_UNBLOCK_TIMEOUT", "4s"),
    ("AERON_IMAGE_LIVENESS_TIMEOUT", "2s"),
    ("AERON_FLOW_CONTROL_RECEIVER_TIMEOUT", "1500ms"),
    ("AERON_TIMER_INTERVAL", "100ms"),
];

/// Aeron's driver takes a heartbeat at the very edge of a window of half a term for an over-run, and drops an image that
/// got nothing else for long enough; its windows are smaller than that.
fn settings(make: Make) -> Vec<(&'static str, &'static str)> {
    let mut settings = SETTINGS.to_vec();
    if make != Make::Fulmar {
        settings.push(("AERON_RCV_INITIAL_WINDOW_LENGTH", "96k"));
    }
    settings
}

/// Which flow control, and whether the subscriber in question carries the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    Unicast,
    Max,
    Min,
    Tagged,
    /// The subscriber in question does not carry the tag that the publication waits for.
    Untagged,
}

impl Strategy {
    /// Whether the publication waits for the subscriber in question.
    fn waits(self) -> bool {
        match self {
            Strategy::Unicast | Strategy::Min | Strategy::Tagged => true,
            Strategy::Max | Strategy::Untagged => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Strategy::Unicast => "unicast",
            Strategy::Max => "max",
            Strategy::Min => "min",
            Strategy::Tagged | Strategy::Untagged => "tagged,g:77",
        }
    }

    /// The tag of the subscriber in question.
    fn tag(self) -> &'static str {
        match self {
            Strategy::Tagged => "|gtag=77",
            _ => "",
        }
    }
}

/// Where the subscriber in question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the publisher's driver.
    Local,
    /// On another host.
    Remote,
}

/// A publication, a good subscriber, and one that will make trouble.
struct Scene {
    strategy: Strategy,
    publication_channel: String,
    good_channel: String,
    bad_channel: String,
    sender: Driver,
    good: Option<Driver>,
    bad: Option<Driver>,
    _hosts: Vec<Host>,
    _network: Network,
}

impl Scene {
    /// With unicast both subscribers share an image; otherwise each has its receiver.
    fn new(make: Make, strategy: Strategy, place: Place) -> Scene {
        let settings = &settings(make);
        let network = Network::new();
        let hosts: Vec<Host> = (0..3).map(|_| network.host()).collect();
        let at = |host: usize| hosts[host].address.as_str();
        let sender = Driver::start(make, &hosts[0], settings);
        let mut good = None;
        let mut bad = None;
        let (publication_channel, good_channel, bad_channel);
        if strategy == Strategy::Unicast {
            let host = if place == Place::Local { 0 } else { 1 };
            publication_channel = format!("aeron:udp?endpoint={}:20130", at(host));
            good_channel = publication_channel.clone();
            bad_channel = publication_channel.clone();
            if place == Place::Remote {
                good = Some(Driver::start(make, &hosts[1], settings));
            }
        } else {
            let control = format!("control={}:20130|control-mode=dynamic", at(0));
            publication_channel = format!("aeron:udp?{control}|fc={}", strategy.name());
            let good_tag = match strategy {
                Strategy::Untagged => Strategy::Tagged.tag(),
                other => other.tag(),
            };
            good_channel = format!("aeron:udp?endpoint={}:20131|{control}{good_tag}", at(1));
            good = Some(Driver::start(make, &hosts[1], settings));
            let host = if place == Place::Local { 0 } else { 2 };
            bad_channel = format!(
                "aeron:udp?endpoint={}:20132|{control}{}",
                at(host),
                strategy.tag()
            );
            if place == Place::Remote {
                bad = Some(Driver::start(make, &hosts[2], settings));
            }
        }
        Scene {
            strategy,
            publication_channel,
            good_channel,
            bad_channel,
            sender,
            good,
            bad,
            _hosts: hosts,
            _network: network,
        }
    }

    fn good_driver(&self) -> &Driver {
        self.good.as_ref().unwrap_or(&self.sender)
    }

    fn bad_driver(&self) -> &Driver {
        match self.strategy {
            Strategy::Unicast => self.good_driver(),
            _ => self.bad.as_ref().unwrap_or(&self.sender),
        }
    }

    fn drivers(&self) -> Vec<&Driver> {
        [Some(&self.sender), self.good.as_ref(), self.bad.as_ref()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn start_good(&self) -> Reader {
        let client = self.good_driver().client();
        Reader::start(&client, &self.good_channel, STREAM, Expect::Everything)
    }

    fn publish(&self, ready: impl Fn() -> bool) -> Publisher {
        let publication = self
            .sender
            .client()
            .add_publication(&self.publication_channel, STREAM)
            .unwrap_or_else(|error| panic!("{}: {error}", self.publication_channel));
        eventually("everybody has an image", || publication.is_connected() && ready());
        // Max promises everything to those who keep up, and a reader on a busy machine may be slow for a while, too.
        let pace = match self.strategy {
            Strategy::Max => Duration::from_micros(500),
            _ => Duration::ZERO,
        };
        Publisher::start(publication, MESSAGES, pace)
    }

    fn finish(self, watch: PositionWatch) {
        watch.finish();
        for driver in self.drivers() {
            driver.assert_running();
        }
    }
}

/// A subscriber that reads slowly holds up those who wait for it, by no more than a window, and nobody else.
fn slow(test: &str, make: Make, strategy: Strategy, place: Place) {
    if !can_run(test) {
        return;
    }
    let scene = Scene::new(make, strategy, place);
    let watch = PositionWatch::start(&scene.drivers());
    let good = scene.start_good();
    let expect = if strategy.waits() {
        Expect::Everything
    } else {
        Expect::Later
    };
    let bad = Reader::start(&scene.bad_driver().client(), &scene.bad_channel, STREAM, expect);
    bad.slow_down(SLOW);
    let publisher = scene.publish(|| good.available() > 0 && bad.available() > 0);
    let mut lead = 0;
    // The first ones tell who waits; nobody waits for the slow one to read everything at its pace.
    let waited_for = within(Duration::from_secs(4), || {
        // The good one is looked at first: it can only look closer than it is.
        lead = lead.max(good.position() - bad.position());
        good.check();
        good.next() == MESSAGES
    });
    if strategy.waits() {
        assert!(
            !waited_for,
            "the publication did not wait for the slow subscriber"
        );
        assert!(
            lead <= 2 * WINDOW,
            "the good one was {lead} bytes ahead of the slow one"
        );
        bad.slow_down(Duration::ZERO);
        bad.await_next(MESSAGES);
        assert_eq!(bad.received(), MESSAGES);
        assert_eq!((bad.available(), bad.unavailable()), (1, 0));
    } else {
        good.await_next(MESSAGES);
        assert!(bad.next() < MESSAGES, "the slow one was not slow");
        bad.check();
    }
    good.await_next(MESSAGES);
    publisher.finish();
    assert_eq!(good.received(), MESSAGES);
    assert_eq!((good.available(), good.unavailable()), (1, 0));
    scene.finish(watch);
}

/// How a subscriber's process makes trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Stop,
    Kill,
}

/// A subscriber whose process stands still or is gone holds up others only until its driver has given it up.
fn stopped(test: &str, make: Make, strategy: Strategy, place: Place, trouble: Trouble) {
    if !can_run(test) {
        return;
    }
    let scene = Scene::new(make, strategy, place);
    let watch = PositionWatch::start(&scene.drivers());
    let good = scene.start_good();
    let mut bad = Process::subscribe(scene.bad_driver(), &scene.bad_channel);
    let publisher = scene.publish(|| good.available() > 0 && bad.has_image(scene.bad_driver()));
    good.await_next(50);
    match trouble {
        Trouble::Stop => bad.signal(libc::SIGSTOP),
        Trouble::Kill => bad.kill(),
    }
    good.await_next(MESSAGES);
    publisher.finish();
    assert_eq!(good.received(), MESSAGES);
    assert_eq!((good.available(), good.unavailable()), (1, 0));
    if trouble == Trouble::Stop {
        bad.signal(libc::SIGCONT);
        // A process that wakes up finds a driver that has given it up, or a stream that went on; it must not disturb.
        pause(Duration::from_millis(300));
        assert_eq!(good.unavailable(), 0);
    }
    bad.kill();
    scene.finish(watch);
}

/// A receiver whose whole host is gone holds up a publication that waits for it no longer than the receiver timeout.
fn receiver_gone(test: &str, make: Make, strategy: Strategy, trouble: Trouble) {
    if !can_run(test) {
        return;
    }
    let mut scene = Scene::new(make, strategy, Place::Remote);
    let good = scene.start_good();
    let bad_driver = scene.bad.take().expect("a remote subscriber has a driver");
    let watch = PositionWatch::start(&scene.drivers());
    let bad = Process::subscribe(&bad_driver, &scene.bad_channel);
    let publisher = scene.publish(|| good.available() > 0 && bad.has_image(&bad_driver));
    good.await_next(50);
    match trouble {
        Trouble::Stop => bad_driver.signal(libc::SIGSTOP),
        Trouble::Kill => bad_driver.kill(),
    }
    good.await_next(MESSAGES);
    publisher.finish();
    assert_eq!(good.received(), MESSAGES);
    assert_eq!((good.available(), good.unavailable()), (1, 0));
    drop(bad);
    scene.finish(watch);
}

/// `fulmar subscribe` as a process, which can be stopped and killed.
struct Process {
    child: Child,
}

impl Process {
    fn subscribe(driver: &Driver, channel: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        without_settings(&mut command);
        ends_with_its_parent(&mut command);
        let child = command
            .args(["subscribe", "--dir", driver.dir(), "--format", "length"])
            .args(["-c", channel, "-s", &STREAM.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        Process { child }
    }

    /// Whether it has joined the stream: it has a position. Its client says its name beside its heartbeat.
    fn has_image(&self, driver: &Driver) -> bool {
        let counters = driver.counters();
        let client = counters.iter().find(|record| {
            record.type_id == CLIENT_HEARTBEAT && record.label.contains("name=fulmar subscribe")
        });
        client.is_some_and(|client| {
            counters.iter().any(|record| {
                record.type_id == SUBSCRIBER_POSITION && record.owner_id == client.registration_id
            })
        })
    }

    fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

macro_rules! for_strategy {
    ($make:expr, $name:ident, $strategy:expr) => {
        mod $name {
            use super::*;

            fn named(test: &str) -> String {
                format!("{}: {test}", stringify!($name))
            }

            #[test]
            fn a_slow_local_subscriber() {
                slow(
                    &named("a_slow_local_subscriber"),
                    $make,
                    $strategy,
                    Place::Local,
                );
            }

            #[test]
            fn a_slow_remote_subscriber() {
                slow(
                    &named("a_slow_remote_subscriber"),
                    $make,
                    $strategy,
                    Place::Remote,
                );
            }

            #[test]
            fn a_stopped_local_subscriber() {
                let test = named("a_stopped_local_subscriber");
                stopped(&test, $make, $strategy, Place::Local, Trouble::Stop);
            }

            #[test]
            fn a_stopped_remote_subscriber() {
                let test = named("a_stopped_remote_subscriber");
                stopped(&test, $make, $strategy, Place::Remote, Trouble::Stop);
            }

            #[test]
            fn a_killed_local_subscriber() {
                let test = named("a_killed_local_subscriber");
                stopped(&test, $make, $strategy, Place::Local, Trouble::Kill);
            }

            #[test]
            fn a_killed_remote_subscriber() {
                let test = named("a_killed_remote_subscriber");
                stopped(&test, $make, $strategy, Place::Remote, Trouble::Kill);
            }
        }
    };
}

macro_rules! for_make {
    ($make:expr) => {
        for_strategy!($make, unicast, Strategy::Unicast);
        for_strategy!($make, max, Strategy::Max);
        for_strategy!($make, min, Strategy::Min);
        for_strategy!($make, tagged, Strategy::Tagged);
        for_strategy!($make, untagged, Strategy::Untagged);

        #[test]
        fn min_gives_up_a_receiver_that_was_killed() {
            receiver_gone(
                "min_gives_up_a_receiver_that_was_killed",
                $make,
                Strategy::Min,
                Trouble::Kill,
            );
        }

        #[test]
        fn min_gives_up_a_receiver_that_stands_still() {
            receiver_gone(
                "min_gives_up_a_receiver_that_stands_still",
                $make,
                Strategy::Min,
                Trouble::Stop,
            );
        }

        #[test]
        fn max_does_not_notice_a_receiver_that_was_killed() {
            receiver_gone(
                "max_does_not_notice_a_receiver_that_was_killed",
                $make,
                Strategy::Max,
                Trouble::Kill,
            );
        }

        #[test]
        fn tagged_gives_up_a_receiver_that_stands_still() {
            receiver_gone(
                "tagged_gives_up_a_receiver_that_stands_still",
                $make,
                Strategy::Tagged,
                Trouble::Stop,
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
