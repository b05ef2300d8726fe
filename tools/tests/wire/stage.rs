//! One driver under test with one client of its make, and the two roles that a raw peer plays against them.

use std::net::SocketAddr;

use fulmar::time::SystemClock;

use super::frames::{self, Frame, Key, Place, SETUP, SM, Setup, Sm, WHOLE};
use super::pattern;
use super::peer::{Captured, PATIENCE, Peer};
use super::process::{Client, Counter, Directory, Driver, Make, Publication, pause};

/// Stream id of every row that needs no other.
pub const STREAM: i32 = 1001;

/// Ids of system counters.
pub const NAKS_SENT: i64 = 5;
pub const RETRANSMITS_SENT: i64 = 11;
pub const UNDER_RUNS: i64 = 12;
pub const OVER_RUNS: i64 = 13;
pub const INVALID_PACKETS: i64 = 14;
pub const ERRORS: i64 = 15;
pub const FLOW_CONTROL_LIMITS: i64 = 18;
pub const LOSS_GAP_FILLS: i64 = 23;
pub const ERROR_FRAMES_RECEIVED: i64 = 38;
pub const PUBLICATIONS_REVOKED: i64 = 40;
pub const IMAGES_REVOKED: i64 = 41;
pub const SMS_REJECTED: i64 = 44;

/// Counter types.
pub const SENDER_POSITION: i32 = 2;
pub const SENDER_LIMIT: i32 = 9;
pub const SENDER_BACK_PRESSURE: i32 = 13;
pub const LOCAL_ADDRESS: i32 = 14;
pub const MDC_DESTINATIONS: i32 = 18;

/// Timers that make a row quick without changing what it shows.
pub const QUICK_TIMER: (&str, &str) = ("AERON_TIMER_INTERVAL", "100ms");

/// A driver with a client, both of one make.
pub struct Stage {
    pub client: Client,
    driver: Driver,
    pub dir: Directory,
    pub make: Make,
}

impl Stage {
    /// Starts both.
    pub fn new(make: Make, settings: &[(&str, &str)]) -> Stage {
        Stage::with_client(make, make, settings)
    }

    /// Starts a driver of one make and a client of another.
    pub fn with_client(driver: Make, client: Make, settings: &[(&str, &str)]) -> Stage {
        let dir = Directory::new();
        Stage {
            driver: Driver::start(driver, &dir, settings),
            client: Client::connect(client, &dir),
            dir,
            make: driver,
        }
    }

    /// Closes the client, stops the driver; both must end well.
    pub fn end(self) {
        self.client.close();
        self.driver.stop();
    }

    /// Kills driver and client on the spot.
    pub fn kill(self) {
        self.driver.kill();
        self.client.kill();
    }

    /// Adds a concurrent publication `p` with a term of 64 KiB on [`STREAM`].
    #[track_caller]
    pub fn publish(&mut self, channel: &str) -> Publication {
        self.client
            .publication(&format!("add_pub p {channel}|term-length=64k {STREAM}"))
    }

    /// Adds a subscription `s` on [`STREAM`]; its registration id.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) -> i64 {
        self.client.number(&format!("add_sub s {channel} {STREAM}"))
    }

    /// Adds a subscription `s` on a free port of 127.0.0.1, and a peer that sends to it.
    #[track_caller]
    pub fn subscribe_to_source(&mut self, more: &str) -> Source {
        self.subscribe(&format!("aeron:udp?endpoint=127.0.0.1:0{more}"));
        let to = self.receive_address();
        Source::new(Peer::new(), to)
    }

    /// Adds a publication to a peer, and waits until the peer has heard of it.
    #[track_caller]
    pub fn publish_to_sink(&mut self, more: &str) -> Sink {
        self.publish_to(Peer::new(), more)
    }

    /// As [`Stage::publish_to_sink`], to this peer.
    #[track_caller]
    pub fn publish_to(&mut self, peer: Peer, more: &str) -> Sink {
        let publication = self.publish(&format!("aeron:udp?endpoint={}{more}", peer.address()));
        let sink = Sink::meet(peer);
        assert_eq!(sink.key.session, publication.session_id);
        sink
    }

    /// As [`Stage::publish_to_sink`], with a first status message at the start and everything until then consumed.
    #[track_caller]
    pub fn publish_to_connected_sink(&mut self, more: &str, window: i32) -> Sink {
        let mut sink = self.publish_to_sink(more);
        sink.connect(window);
        self.client.ok("connected p true 10000");
        sink
    }

    /// Every counter of a type.
    pub fn counters(&mut self, type_id: i32) -> Vec<Counter> {
        let mut counters = self.client.counters();
        counters.retain(|counter| counter.type_id == type_id);
        counters
    }

    /// The value of the only counter of a type.
    #[track_caller]
    pub fn only(&mut self, type_id: i32) -> i64 {
        let counters = self.counters(type_id);
        assert_eq!(counters.len(), 1, "{counters:#?}");
        counters[0].value
    }

    /// Waits until a value is as wanted.
    #[track_caller]
    pub fn await_value(&mut self, what: &str, wanted: i64, mut value: impl FnMut(&mut Stage) -> i64) {
        let deadline = SystemClock.nanos() + PATIENCE;
        loop {
            let now = value(self);
            if now == wanted {
                return;
            }
            assert!(
                !deadline.is_due(SystemClock.nanos()),
                "{what} is {now} and not {wanted}"
            );
            pause(5);
        }
    }

    /// Waits until a system counter has this value, no more.
    #[track_caller]
    pub fn await_system(&mut self, id: i64, wanted: i64) {
        self.await_value(&format!("system counter {id}"), wanted, |stage| {
            stage.client.system_counter(id)
        });
    }

    /// The local addresses of sockets of a side (`snd` or `rcv`), in order of creation.
    pub fn addresses(&mut self, side: &str) -> Vec<SocketAddr> {
        let mut counters = self.counters(LOCAL_ADDRESS);
        counters.retain(|counter| counter.label.starts_with(side));
        counters.sort_by_key(|counter| counter.id);
        let address = |counter: &Counter| {
            let text = counter.label.rsplit(' ').next().unwrap_or_default();
            text.parse()
                .unwrap_or_else(|_| panic!("no address in {}", counter.label))
        };
        counters.iter().map(address).collect()
    }

    /// The address of the only receiving socket.
    #[track_caller]
    pub fn receive_address(&mut self) -> SocketAddr {
        self.await_value("number of receiving sockets", 1, |stage| {
            i64::try_from(stage.addresses("rcv").len()).expect("few")
        });
        self.addresses("rcv")[0]
    }
}

/// Positions of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub initial_term: i32,
    pub term_length: i32,
}

impl Line {
    pub fn place(self, position: i64) -> Place {
        let term = position / i64::from(self.term_length);
        Place {
            term: self
                .initial_term
                .wrapping_add(i32::try_from(term).expect("in range")),
            offset: i32::try_from(position % i64::from(self.term_length)).expect("in a term"),
        }
    }

    pub fn position(self, place: Place) -> i64 {
        let terms = place.term.wrapping_sub(self.initial_term);
        i64::from(terms) * i64::from(self.term_length) + i64::from(place.offset)
    }
}

/// A raw publisher for a driver's subscription. Its messages prove themselves (see `pattern`).
pub struct Source {
    pub peer: Peer,
    /// Where the driver listens.
    pub to: SocketAddr,
    pub key: Key,
    pub line: Line,
    pub mtu: i32,
    pub setup_flags: u8,
    pub ttl: i32,
}

/// Payload of the messages of a [`Source`], which takes 128 bytes in the log.
pub const PAYLOAD: usize = 96;
/// Log space of such a message.
pub const STRIDE: i64 = 128;

impl Source {
    pub fn new(peer: Peer, to: SocketAddr) -> Source {
        Source {
            peer,
            to,
            key: Key {
                session: 4242,
                stream: STREAM,
            },
            line: Line {
                initial_term: 7,
                term_length: 65_536,
            },
            mtu: 1408,
            setup_flags: 0,
            ttl: 0,
        }
    }

    /// The SETUP at a position.
    pub fn setup_at(&self, position: i64) -> Setup {
        let place = self.line.place(position);
        Setup {
            flags: self.setup_flags,
            term_offset: place.offset,
            session: self.key.session,
            stream: self.key.stream,
            initial_term: self.line.initial_term,
            active_term: place.term,
            term_length: self.line.term_length,
            mtu: self.mtu,
            ttl: self.ttl,
        }
    }

    pub fn send(&self, bytes: &[u8]) {
        self.peer.send(self.to, bytes);
    }

    /// Sends a SETUP at a position.
    pub fn setup(&self, position: i64) {
        self.send(&frames::setup(&self.setup_at(position)));
    }

    /// Message `number`, as one frame of 128 bytes.
    pub fn message(&self, number: i64) -> Vec<u8> {
        let mut payload = [0; PAYLOAD];
        pattern::write(&mut payload, 7, u64::try_from(number).expect("counted"));
        frames::data(WHOLE, self.key, self.line.place(number * STRIDE), &payload)
    }

    /// Sends messages, each in a datagram of its own.
    pub fn messages(&self, numbers: impl IntoIterator<Item = i64>) {
        for number in numbers {
            self.send(&self.message(number));
        }
    }

    /// Sends a heartbeat with these flags.
    pub fn heartbeat(&self, flags: u8, position: i64) {
        self.send(&frames::heartbeat(flags, self.key, self.line.place(position)));
    }

    /// Makes an image at `position`; the first status message.
    #[track_caller]
    pub fn join(&mut self, position: i64) -> Sm {
        self.setup(position);
        let first = self.sm("the first status message");
        assert_eq!(first.flags, 0);
        assert_eq!(self.line.position(first.at), position);
        // As a publisher does that has nothing to send yet.
        self.heartbeat(WHOLE, position);
        first
    }

    /// The next status message of this session.
    #[track_caller]
    pub fn sm(&mut self, what: &str) -> Sm {
        let key = self.key;
        let captured = self
            .peer
            .expect(what, |frame| frame.kind() == SM && frame.key() == key);
        captured.frame().sm()
    }

    /// The position of a status message.
    pub fn position_of(&self, sm: &Sm) -> i64 {
        self.line.position(sm.at)
    }
}

/// A raw receiver of a driver's publication.
pub struct Sink {
    pub peer: Peer,
    /// Where the driver's publication sends from, which is where it listens.
    pub to: SocketAddr,
    pub key: Key,
    pub line: Line,
    pub setup: Setup,
    /// Receiver id.
    pub id: i64,
    pub group_tag: Option<i64>,
}

impl Sink {
    /// Waits for a SETUP.
    #[track_caller]
    pub fn meet(peer: Peer) -> Sink {
        Sink::meet_as(peer, 4711)
    }

    /// Waits for a SETUP, to answer with this receiver id.
    #[track_caller]
    pub fn meet_as(mut peer: Peer, id: i64) -> Sink {
        let first = peer.expect("a SETUP", |frame| frame.kind() == SETUP);
        Sink::of(peer, id, &first)
    }

    /// With a SETUP that came, to answer with this receiver id.
    #[track_caller]
    pub fn of(peer: Peer, id: i64, first: &Captured) -> Sink {
        let setup = first.frame().setup();
        Sink {
            peer,
            to: first.from,
            key: first.frame().key(),
            line: Line {
                initial_term: setup.initial_term,
                term_length: setup.term_length,
            },
            setup,
            id,
            group_tag: None,
        }
    }

    pub fn sm_at(&self, position: i64, window: i32) -> Sm {
        Sm {
            flags: 0,
            key: self.key,
            at: self.line.place(position),
            window,
            receiver: self.id,
            group_tag: self.group_tag,
        }
    }

    pub fn send(&self, bytes: &[u8]) {
        self.peer.send(self.to, bytes);
    }

    /// Sends a status message.
    pub fn grant(&self, position: i64, window: i32) {
        self.send(&frames::sm(&self.sm_at(position, window)));
    }

    /// Sends a status message with flags.
    pub fn flagged(&self, flags: u8, position: i64, window: i32) {
        self.send(&frames::sm(&Sm {
            flags,
            ..self.sm_at(position, window)
        }));
    }

    /// Grants a window from where the sender stands, and waits for the heartbeat or data that answers.
    #[track_caller]
    pub fn connect(&mut self, window: i32) {
        self.grant(self.start(), window);
        self.peer.expect("a heartbeat or data", |frame| {
            frame.is_heartbeat() || frame.is_data()
        });
    }

    /// Position of the sender at its first SETUP.
    pub fn start(&self) -> i64 {
        self.line.position(Place {
            term: self.setup.active_term,
            offset: self.setup.term_offset,
        })
    }

    pub fn position_of(&self, captured: &Captured) -> i64 {
        self.line.position(captured.frame().place())
    }

    /// Data datagrams until the stream has reached `end`, each once and in order.
    #[track_caller]
    pub fn read_to(&mut self, from: i64, end: i64) -> Vec<Captured> {
        let line = self.line;
        let (mut next, mut all) = (from, Vec::new());
        let what = format!("data from {from} to {end}");
        while next < end {
            let captured = self
                .peer
                .expect(&what, |frame| !frame.is_heartbeat() && frame.kind() <= 1);
            for frame in captured.frame().frames() {
                assert_eq!(line.position(frame.at), next, "{captured:?}");
                next += i64::try_from(frame.length.next_multiple_of(32)).expect("small");
            }
            all.push(captured);
        }
        assert_eq!(next, end);
        all
    }

    pub fn nak(&self, position: i64, length: i32) {
        self.send(&frames::nak(self.key, self.line.place(position), length));
    }
}

/// Whether a frame is the heartbeat or data of a stream, that is, no SETUP and no answer.
pub fn is_of_log(frame: Frame<'_>) -> bool {
    matches!(frame.kind(), frames::DATA | frames::PAD)
}
