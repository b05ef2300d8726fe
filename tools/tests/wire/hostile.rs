//! What strangers can not do to our driver. Aeron's driver trusts its network, so these run against ours alone, but for
//! noise, which neither may mind.

use crate::frames::{self, ASKS, BIT_40, Key, Place, SETUP, SM, Setup, Sm};
use crate::peer::Peer;
use crate::ports::free_address;
use crate::process::{Make, Polled};
use crate::stage::{
    IMAGES_REVOKED, INVALID_PACKETS, MDC_DESTINATIONS, QUICK_TIMER, RETRANSMITS_SENT, STREAM, STRIDE, Sink,
    Source, Stage,
};

fn joined(make: Make, settings: &[(&str, &str)]) -> (Stage, Source) {
    let mut stage = Stage::new(make, settings);
    let mut source = stage.subscribe_to_source("");
    source.join(0);
    stage.client.ok("image_count s 1 10000");
    (stage, source)
}

/// A stranger who knows everything about a source but its address.
fn stranger(source: &Source) -> Source {
    let mut stranger = Source::new(Peer::new(), source.to);
    (stranger.key, stranger.line) = (source.key, source.line);
    stranger
}

#[test]
fn a_stranger_puts_nothing_into_a_stream() {
    let (mut stage, source) = joined(Make::Fulmar, &[]);
    let stranger = stranger(&source);
    let invalid = stage.client.system_counter(INVALID_PACKETS);
    for number in 0..8 {
        let mut forged = source.message(number);
        forged[40..].fill(0xEE);
        stranger.send(&forged);
    }
    stage.await_system(INVALID_PACKETS, invalid + 8);
    source.messages(0..8);
    let polled = Polled::parse(&stage.client.ok("poll s 8 10000"));
    assert_eq!(polled.position, 8 * STRIDE);
    stage.end();
}

#[test]
fn a_stranger_does_not_end_a_stream() {
    let (mut stage, source) = joined(Make::Fulmar, &[QUICK_TIMER]);
    let stranger = stranger(&source);
    source.messages(0..4);
    for _ in 0..10 {
        stranger.heartbeat(0xF0, 4 * STRIDE);
        stranger.heartbeat(0xE0, 4 * STRIDE);
        source.peer.send(
            source.to,
            &frames::heartbeat(0xC0, source.key, source.line.place(4 * STRIDE)),
        );
        crate::process::pause(50);
    }
    source.messages(4..8);
    stage.client.ok("poll s 8 10000");
    assert_eq!(stage.client.images("s").len(), 1);
    assert_eq!(stage.client.system_counter(IMAGES_REVOKED), 0);
    stage.end();
}

#[test]
fn a_flood_of_setups_is_bounded() {
    let settings = [("FULMAR_RECEIVER_IMAGES_MAX", "16")];
    let (mut stage, source) = joined(Make::Fulmar, &settings);
    let flood = Source::new(Peer::new(), source.to);
    for session in 1..3000 {
        let setup = Setup {
            session,
            term_length: 1 << 30,
            ..flood.setup_at(0)
        };
        flood.send(&frames::setup(&setup));
    }
    // The stream that was there goes on.
    // Some of it may be lost in a full socket, as anything may be.
    stage.client.tell("poll s 8 20000");
    let polled = loop {
        source.messages(0..8);
        if let Some(answer) = stage.client.answer_within(20) {
            break answer;
        }
    };
    polled.expect("eight messages");
    let images = stage.client.images("s").len();
    assert!(images <= 16, "{images} images");
    let logs = stage.dir.list("images").len();
    assert!(logs <= 16, "{logs} logs");
    stage.end();
}

/// Who asks for data from an address that may be forged is sent SETUPs, and few of them.
#[test]
fn an_address_that_proves_nothing_gets_setups_only() {
    let mut stage = Stage::new(Make::Fulmar, &[]);
    let control = free_address();
    stage.publish(&format!("aeron:udp?control={control}|control-mode=dynamic"));
    let hello = |receiver, key, flags| Sm {
        flags,
        key,
        at: Place { term: 0, offset: 0 },
        window: 0,
        receiver,
        group_tag: None,
    };
    let nothing = Key {
        session: 0,
        stream: 0,
    };
    let peer = Peer::new();
    peer.send(control, &frames::sm(&hello(1, nothing, ASKS)));
    let mut sink = Sink::meet_as(peer, 1);
    sink.connect(32_768);
    stage.client.ok("connected p true 10000");
    let mut victim = Peer::new();
    victim.send(control, &frames::sm(&hello(2, nothing, ASKS)));
    stage.await_value("number of destinations", 2, |stage| stage.only(MDC_DESTINATIONS));
    victim.expect("a SETUP", |frame| frame.kind() == SETUP);
    for number in 0..8 {
        stage.client.ok("offer p 4 96 1 10000");
        sink.read_to(number * 4 * STRIDE, (number + 1) * 4 * STRIDE);
    }
    // A SETUP that is lost is sent again to whoever asks again.
    victim.send(control, &frames::sm(&hello(2, nothing, ASKS)));
    victim.expect("another SETUP", |frame| frame.kind() == SETUP);
    let heard = victim.drain();
    for captured in &heard {
        assert_eq!(captured.frame().kind(), SETUP, "{captured:?}");
    }
    // Its NAK, with everything right but the proof, is not answered.
    let end = 32 * STRIDE;
    victim.send(control, &frames::nak(sink.key, sink.line.place(0), 4096));
    sink.grant(end, 32_768);
    stage.client.ok("offer p 1 96 1 10000");
    sink.read_to(end, end + STRIDE);
    assert_eq!(stage.client.system_counter(RETRANSMITS_SENT), 0);
    assert!(
        victim
            .drain()
            .iter()
            .all(|captured| captured.frame().kind() == SETUP)
    );
    stage.end();
}

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("64 bits")
    }

    /// A frame with some bytes that it should not have, cut or extended at times.
    fn spoil(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        for _ in 0..self.next() % 4 {
            let at = self.next() % bytes.len();
            bytes[at] = self.next().to_le_bytes()[0];
        }
        match self.next() % 8 {
            0 => bytes.truncate(self.next() % bytes.len()),
            1 => bytes.extend_from_slice(&frame[..self.next() % frame.len()]),
            _ => {}
        }
        bytes
    }
}

/// Frames of every type about sessions other than that of `source`, spoiled; they come from elsewhere.
fn noise_beside_a_stream(make: Make) {
    let (mut stage, source) = joined(make, &[]);
    let control = free_address();
    stage.client.ok(&format!(
        "add_pub q aeron:udp?control={control}|control-mode=dynamic|term-length=64k 7"
    ));
    let mut noisy = Source::new(Peer::new(), source.to);
    noisy.key.session = -77;
    // A stream that nobody subscribed to, so that no session of the noise is an image beside the real one.
    noisy.key.stream = 0x7654_3210;
    let sm = Sm {
        flags: 0,
        key: noisy.key,
        at: Place { term: 7, offset: 64 },
        window: 4096,
        receiver: 5,
        group_tag: Some(3),
    };
    let place = Place { term: 7, offset: 64 };
    let good = [
        frames::setup(&noisy.setup_at(128)),
        noisy.message(3),
        frames::heartbeat(0xE0, noisy.key, place),
        frames::pad(noisy.key, place, 256),
        frames::sm(&sm),
        frames::nak(noisy.key, place, 64),
        frames::rttm(ASKS, noisy.key, 1, 0),
        frames::err(noisy.key, 5, None, "text"),
        frames::rsp_setup(noisy.key, 9),
        frames::announcement("name", [127, 0, 0, 1], 9),
    ];
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for round in 0..200 {
        for _ in 0..100 {
            let index = noise.next() % good.len();
            let bytes = noise.spoil(&good[index]);
            noisy.send(&bytes);
            noisy.peer.send(control, &bytes);
        }
        source.messages(round * 4..round * 4 + 4);
        stage.client.ok("poll s 4 10000");
    }
    assert!(stage.client.system_counter(INVALID_PACKETS) > 1000);
    assert_eq!(stage.client.images("s").len(), 1);
    stage.end();
}

on_both_drivers!(noise_beside_a_stream);

/// A receiver that leaves in somebody else's name leaves nothing behind.
#[test]
fn a_stranger_does_not_send_a_receiver_away() {
    let mut stage = Stage::new(Make::Fulmar, &[QUICK_TIMER]);
    let control = free_address();
    stage.publish(&format!("aeron:udp?control={control}|control-mode=dynamic"));
    let peer = Peer::new();
    let hello = Sm {
        flags: ASKS,
        key: Key {
            session: 0,
            stream: 0,
        },
        at: Place { term: 0, offset: 0 },
        window: 0,
        receiver: 1,
        group_tag: None,
    };
    peer.send(control, &frames::sm(&hello));
    let mut sink = Sink::meet_as(peer, 1);
    assert_eq!((sink.key.stream, sink.setup.flags), (STREAM, BIT_40));
    sink.connect(32_768);
    stage.client.ok("connected p true 10000");
    let stranger = Peer::new();
    let farewell = Sm {
        flags: BIT_40,
        ..sink.sm_at(0, 32_768)
    };
    stranger.send(control, &frames::sm(&farewell));
    stranger.send(control, &frames::err(sink.key, sink.id, None, "go away"));
    stage.await_system(crate::stage::ERROR_FRAMES_RECEIVED, 1);
    stage.client.ok("offer p 4 96 1 10000");
    sink.read_to(0, 4 * STRIDE);
    assert!(
        sink.peer
            .drain()
            .iter()
            .all(|captured| captured.frame().kind() != SM)
    );
    let events = stage.client.ok("events");
    assert!(!events.contains("publication-error"), "{events}");
    stage.end();
}
