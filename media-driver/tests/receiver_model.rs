//! Images against an oracle: datagrams are lost, repeated and put in another order at random, forged ones are mixed in;
//! what subscribers can read is always a gap-free prefix of what was sent, positions never go back, and once the
//! network is well again everything arrives.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod receiver_support;

use std::collections::VecDeque;

use fulmar::wire::{FrameKind, Nak, classify};
use fulmar_media_driver::stream::image_receiver::DataOutcome;
use proptest::prelude::*;

use receiver_support::*;

const L: i64 = TERM_LENGTH as i64;

/// What was sent: every datagram, by its position, and the bytes of the log that it makes.
struct Publisher {
    datagrams: Vec<(i64, Vec<u8>)>,
    stream: Vec<u8>,
    position: i64,
    rng: fastrand::Rng,
    is_reliable: bool,
}

impl Publisher {
    fn new(seed: u64) -> Self {
        Self {
            datagrams: Vec::new(),
            stream: Vec::new(),
            position: 0,
            rng: fastrand::Rng::with_seed(seed),
            is_reliable: true,
        }
    }

    /// One more datagram of one to three frames, padded at the end of a term.
    fn send(&mut self) -> Vec<u8> {
        let start = self.position;
        let mut datagram = Vec::new();
        for _ in 0..self.rng.usize(1..=3) {
            let room = L - self.position % L;
            let payload = self.rng.usize(0..400);
            let length = (32 + payload).next_multiple_of(32);
            if length as i64 > room || (room > 32 && self.rng.usize(0..40) == 0) {
                let padded = room.min(32 * self.rng.i64(1..200));
                let padded = if length as i64 > room { room } else { padded };
                let header = padding(self.position, padded as i32);
                datagram.extend_from_slice(&header);
                self.stream.extend_from_slice(&header);
                self.stream.resize(self.stream.len() + padded as usize - 32, 0);
                self.position += padded;
                break;
            }
            let bytes: Vec<u8> = (0..payload).map(|_| self.rng.u8(..)).collect();
            let frame = frame(self.position, &bytes);
            self.stream.extend_from_slice(&frame);
            self.position += frame.len() as i64;
            datagram.extend_from_slice(&frame);
            if self.position % L == 0 {
                break;
            }
        }
        self.datagrams.push((start, datagram.clone()));
        datagram
    }

    /// What a request for lost data brings.
    fn resend(&self, nak: &Nak) -> Vec<Vec<u8>> {
        let from = SHAPE.position(nak.term_id, nak.term_offset);
        let to = from + i64::from(nak.length);
        self.datagrams
            .iter()
            .filter(|(position, _)| *position < to)
            .filter(|(position, datagram)| *position + (datagram.len() as i64).max(32) > from)
            .map(|(_, datagram)| datagram.clone())
            .collect()
    }
}

/// How bad the network is, in percent.
#[derive(Clone, Copy, Debug)]
struct Faults {
    loss: u32,
    duplicate: u32,
    reorder: u32,
    forge: u32,
}

/// The way from the publisher to the image.
struct Network {
    faults: Faults,
    in_flight: VecDeque<Vec<u8>>,
    rng: fastrand::Rng,
}

impl Network {
    fn happens(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn put(&mut self, datagram: Vec<u8>) {
        if self.happens(self.faults.loss) {
            return;
        }
        if self.happens(self.faults.duplicate) {
            self.in_flight.push_back(datagram.clone());
        }
        if self.happens(self.faults.reorder) {
            let at = self.rng.usize(0..=self.in_flight.len());
            self.in_flight.insert(at, datagram);
        } else {
            self.in_flight.push_back(datagram);
        }
    }
}

/// What must always hold, looked at after each step.
#[derive(Default)]
struct Oracle {
    rebuild: i64,
    high_water_mark: i64,
    announced: i64,
    window_end: i64,
    checked: i64,
}

impl Oracle {
    fn check(&mut self, image: &TestImage, publisher: &Publisher) {
        let rebuild = image.conductor.rebuild_position();
        let high_water_mark = image.high_water_mark.get_relaxed();
        let next = image.conductor.next_status_message();
        assert!(rebuild >= self.rebuild, "the rebuild position went back");
        assert!(
            high_water_mark >= self.high_water_mark,
            "the high-water mark went back"
        );
        assert!(next.position >= self.announced, "the window went back");
        assert!(next.position + i64::from(next.window) >= self.window_end);
        assert!(rebuild <= publisher.position, "more than was sent");
        self.rebuild = rebuild;
        self.high_water_mark = high_water_mark;
        self.announced = next.position;
        self.window_end = next.position + i64::from(next.window);
        self.check_content(image, publisher);
    }

    /// What became readable is what was sent.
    fn check_content(&mut self, image: &TestImage, publisher: &Publisher) {
        use fulmar::memory::AtomicBuffer;
        while self.checked < self.rebuild {
            let end = ((self.checked / L + 1) * L).min(self.rebuild);
            let mut bytes = vec![0; (end - self.checked) as usize];
            image
                .log
                .term(SHAPE.partition(self.checked))
                .buffer()
                .copy_out(SHAPE.offset(self.checked) as usize, &mut bytes);
            let sent = &publisher.stream[self.checked as usize..end as usize];
            if publisher.is_reliable {
                assert!(bytes == sent, "from {} to {end}", self.checked);
            } else {
                check_frames_or_padding(&bytes, sent, self.checked);
            }
            self.checked = end;
        }
    }
}

/// Unreliable streams: each frame is as it was sent, or lies in padding.
fn check_frames_or_padding(bytes: &[u8], sent: &[u8], position: i64) {
    let mut at = 0;
    while at < bytes.len() {
        let length = i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert!(length >= 32, "a frame at {}", position + at as i64);
        let end = at + (length as usize).next_multiple_of(32);
        let is_padding = bytes[at + 6..at + 8] == [0, 0];
        assert!(
            is_padding || bytes[at..end] == sent[at..end],
            "at {}",
            position + at as i64
        );
        at = end;
    }
    assert_eq!(at, bytes.len());
}

struct World {
    image: TestImage,
    publisher: Publisher,
    network: Network,
    oracle: Oracle,
    consumed: i64,
    limit: i64,
}

impl World {
    fn new(seed: u64, faults: Faults, is_reliable: bool) -> Self {
        let mut publisher = Publisher::new(seed);
        publisher.is_reliable = is_reliable;
        Self {
            image: TestImage::new(Options {
                is_reliable,
                ..Options::default()
            }),
            publisher,
            network: Network {
                faults,
                in_flight: VecDeque::new(),
                rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            },
            oracle: Oracle::default(),
            consumed: 0,
            limit: 0,
        }
    }

    fn step(&mut self) {
        let Self {
            image,
            publisher,
            network,
            ..
        } = self;
        if publisher.position + 1400 < self.limit {
            let datagram = publisher.send();
            network.put(datagram);
        } else if network.rng.u32(0..4) == 0 {
            network.put(heartbeat(publisher.position, 0xC0));
        }
        for _ in 0..network.rng.usize(0..4) {
            let Some(datagram) = network.in_flight.pop_front() else {
                break;
            };
            let outcome = image.data(&datagram);
            assert!(
                !matches!(
                    outcome,
                    DataOutcome::Invalid | DataOutcome::Foreign | DataOutcome::OverRun
                ),
                "{outcome:?}"
            );
        }
        if network.happens(network.faults.forge) {
            let mut forged = frame(image.conductor.rebuild_position(), &[]);
            if network.rng.bool() {
                forged = heartbeat(image.conductor.rebuild_position(), 0xF0);
            }
            assert_eq!(
                image.data_from(address(66, 6), PLAIN, &forged),
                DataOutcome::Foreign
            );
        }
        let reads = network.rng.u32(0..3) == 0;
        image.track();
        self.oracle.check(image, publisher);
        if reads {
            self.consumed = image.conductor.rebuild_position();
            image.consume(0, self.consumed);
            image.track();
            self.oracle.check(image, publisher);
        }
        for sent in image.frames() {
            match classify(&sent) {
                Ok(FrameKind::Nak) => {
                    for datagram in publisher.resend(&Nak::parse(&sent).unwrap()) {
                        network.put(datagram);
                    }
                }
                Ok(FrameKind::StatusMessage) => {
                    let next = image.conductor.next_status_message();
                    if !network.happens(network.faults.loss) {
                        self.limit = self.limit.max(next.position + i64::from(next.window));
                    }
                }
                other => panic!("unexpected feedback: {other:?}"),
            }
        }
        let nanos = network.rng.i64(0..150_000);
        image.pass_time(nanos);
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// The network is well again: everything that was sent arrives.
    fn heal(&mut self) {
        self.network.faults = Faults {
            loss: 0,
            duplicate: 0,
            reorder: 0,
            forge: 0,
        };
        let sent = self.publisher.position;
        for _ in 0..20_000 {
            if self.image.conductor.rebuild_position() >= sent {
                return;
            }
            self.image.pass_time(20_000_000);
            self.step();
        }
        panic!("stuck at {} of {sent}", self.image.conductor.rebuild_position());
    }
}

fn faults() -> impl Strategy<Value = Faults> {
    (0..60u32, 0..30u32, 0..50u32, 0..30u32).prop_map(|(loss, duplicate, reorder, forge)| Faults {
        loss,
        duplicate,
        reorder,
        forge,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_can_be_read_is_a_gap_free_prefix_of_what_was_sent(seed in any::<u64>(), faults in faults()) {
        let mut world = World::new(seed, faults, true);
        world.run(1_500);
        world.heal();
    }

    #[test]
    fn unreliable_streams_lose_frames_and_nothing_else(seed in any::<u64>(), faults in faults()) {
        let mut world = World::new(seed, faults, false);
        world.run(1_500);
        world.heal();
    }

    #[test]
    fn no_datagram_whatever_its_bytes_harms_an_image(
        seed in any::<u64>(),
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 32..200), 1..50),
    ) {
        let mut world = World::new(seed, Faults { loss: 5, duplicate: 5, reorder: 5, forge: 0 }, true);
        for mut datagram in datagrams {
            world.run(5);
            let header = frame(world.publisher.position, &[]);
            // Ids and version are those of the stream half of the time, so that more than the first check is reached.
            if datagram[0] & 1 == 0 {
                datagram[4..8].copy_from_slice(&header[4..8]);
                datagram[12..24].copy_from_slice(&header[12..24]);
            }
            world.image.data_from(address(66, 6), PLAIN, &datagram);
        }
        world.heal();
    }
}

#[test]
fn a_long_stream_over_a_bad_network_arrives() {
    let faults = Faults {
        loss: 20,
        duplicate: 10,
        reorder: 20,
        forge: 10,
    };
    let mut world = World::new(7, faults, true);
    world.run(20_000);
    world.heal();
    assert!(world.publisher.position > 6 * L, "{}", world.publisher.position);
}
