//! Publications and subscriptions against a model: whatever mix of offers, claims and polls, every message arrives
//! once, whole and in order, and the positions on both sides agree.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::collections::VecDeque;

use fulmar::log::clean;
use fulmar::log::descriptor::fragmented_length;
use fulmar::{Action, BatchOffer, ExclusivePublication, Offer, Publication, Subscription};
use proptest::prelude::*;
use scripted::{FakeDriver, FakePublication, ManualClock, TERM_LENGTH, connect};

#[derive(Clone, Debug)]
enum Step {
    Offer(usize),
    OfferParts(usize, usize),
    Batch { lengths: Vec<usize>, strip: bool },
    Claim { length: usize, commit: bool },
    Padding(usize),
    Poll(usize),
    Fragments(usize),
    Controlled { limit: usize, answers: Vec<u8> },
    Bounded { limit: usize, ahead: i64 },
    Block(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0usize..200, 1300usize..1500, 0usize..8192];
    let step = prop_oneof![
        4 => length.clone().prop_map(Step::Offer),
        1 => (0usize..2000, 0usize..2000).prop_map(|(a, b)| Step::OfferParts(a, b)),
        2 => (proptest::collection::vec(length.clone(), 0..20), any::<bool>())
            .prop_map(|(lengths, strip)| Step::Batch { lengths, strip }),
        2 => (0usize..1376, any::<bool>()).prop_map(|(length, commit)| Step::Claim { length, commit }),
        1 => (0usize..5000).prop_map(Step::Padding),
        3 => (0usize..20).prop_map(Step::Poll),
        2 => (1usize..20, proptest::collection::vec(0u8..4, 1..8))
            .prop_map(|(limit, answers)| Step::Controlled { limit, answers }),
        1 => (1usize..20, -100i64..5000).prop_map(|(limit, ahead)| Step::Bounded { limit, ahead }),
    ];
    proptest::collection::vec(step, 1..400)
}

fn raw_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..3000).prop_map(Step::Offer),
        2 => (1usize..20).prop_map(Step::Fragments),
        1 => (32usize..20000).prop_map(Step::Block),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Either kind of publication.
enum Writer {
    Shared(Publication),
    Own(ExclusivePublication),
}

impl Writer {
    fn offer(&mut self, message: &[u8]) -> Offer {
        match self {
            Writer::Shared(publication) => publication.offer(message),
            Writer::Own(publication) => publication.offer(message),
        }
    }

    fn offer_parts(&mut self, parts: &[&[u8]]) -> Offer {
        match self {
            Writer::Shared(publication) => publication.offer_parts(parts),
            Writer::Own(publication) => publication.offer_parts(parts),
        }
    }

    fn offer_batch(&mut self, messages: &[&[u8]]) -> BatchOffer {
        match self {
            Writer::Shared(publication) => publication.offer_batch(messages),
            Writer::Own(publication) => publication.offer_batch(messages),
        }
    }

    fn offer_batch_of(&mut self, messages: &[u8], length: usize) -> BatchOffer {
        match self {
            Writer::Shared(publication) => publication.offer_batch_of(messages, length),
            Writer::Own(publication) => publication.offer_batch_of(messages, length),
        }
    }

    fn claim(&mut self, message: &[u8], commit: bool) -> Offer {
        let claim = match self {
            Writer::Shared(publication) => publication.try_claim(message.len()),
            Writer::Own(publication) => publication.try_claim(message.len()),
        };
        match claim {
            Err(outcome) => outcome,
            Ok(mut claim) if commit => {
                claim.copy_from_slice(message);
                Offer::Position(claim.commit().unwrap())
            }
            Ok(claim) => Offer::Position(claim.position()),
        }
    }

    fn position(&self) -> i64 {
        match self {
            Writer::Shared(publication) => publication.position().unwrap(),
            Writer::Own(publication) => publication.position().unwrap(),
        }
    }
}

struct World {
    writer: Writer,
    fake: FakePublication,
    driver: FakeDriver,
    subscription: Subscription,
    cleaned: i64,
    /// Sent and not yet received: the bytes and the position behind them.
    expected: VecDeque<(Vec<u8>, i64)>,
    number: u8,
}

impl World {
    fn new(exclusive: bool) -> World {
        let clock = ManualClock::new();
        let mut driver = FakeDriver::start(&clock);
        let (client, _) = connect(&driver);
        let (writer, fake) = if exclusive {
            let (publication, fake) = driver.add_exclusive_publication(&client, 1, 10, window());
            (Writer::Own(publication), fake)
        } else {
            let (publication, fake) = driver.add_publication(&client, 1, 10, window());
            (Writer::Shared(publication), fake)
        };
        let mut subscription = driver.add_subscription(&client, 10, &[&fake]);
        assert_eq!(subscription.images().len(), 1);
        World {
            writer,
            fake,
            driver,
            subscription,
            cleaned: 0,
            expected: VecDeque::new(),
            number: 0,
        }
    }

    fn message(&mut self, length: usize) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        (0..length)
            .map(|index| self.number.wrapping_add(index as u8))
            .collect()
    }

    /// What the driver does between two steps: cleans behind the subscriber and moves the limit.
    fn drive(&mut self) {
        let consumed = self.subscription.images()[0].position();
        while self.cleaned < consumed {
            self.cleaned = clean(&self.fake.log, self.cleaned, consumed, usize::MAX);
        }
        self.driver
            .counters
            .set_value(self.fake.limit, consumed + window());
    }

    fn send(&mut self, message: Vec<u8>, mut send: impl FnMut(&mut Writer, &[u8]) -> Offer, arrives: bool) {
        let before = self.writer.position();
        loop {
            match send(&mut self.writer, &message) {
                Offer::Position(position) => {
                    assert!(position > before);
                    if arrives {
                        self.expected.push_back((message, position));
                    }
                    return;
                }
                Offer::AdminAction => {}
                Offer::BackPressured => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Offers batches of what is left until all is accepted, or no more is.
    fn send_batch(&mut self, messages: &[Vec<u8>], strip: bool) {
        let mut rest = messages;
        while !rest.is_empty() {
            let before = self.writer.position();
            let batch = if strip {
                self.writer.offer_batch_of(&rest.concat(), rest[0].len())
            } else {
                let slices: Vec<&[u8]> = rest.iter().map(Vec::as_slice).collect();
                self.writer.offer_batch(&slices)
            };
            let (accepted, left) = rest.split_at(batch.accepted);
            let mut position = before;
            for message in accepted {
                position += fragmented_length(message.len(), 1376) as i64;
                self.expected.push_back((message.clone(), position));
            }
            rest = left;
            match batch.outcome {
                Offer::Position(behind) => {
                    assert!(batch.accepted > 0);
                    assert_eq!((behind, self.writer.position()), (position, position));
                }
                Offer::AdminAction => assert_eq!(batch.accepted, 0),
                Offer::BackPressured => {
                    assert_eq!(batch.accepted, 0);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Offer(length) => {
                let message = self.message(*length);
                self.send(message, |writer, bytes| writer.offer(bytes), true);
            }
            Step::OfferParts(first, second) => {
                let message = self.message(first + second);
                let first = *first;
                self.send(
                    message,
                    |writer, bytes| writer.offer_parts(&[&bytes[..first], &[], &bytes[first..]]),
                    true,
                );
            }
            Step::Batch { lengths, strip } => {
                let length = lengths.first().map_or(1, |length| *length.max(&1));
                let messages: Vec<Vec<u8>> = lengths
                    .iter()
                    .map(|own| self.message(if *strip { length } else { *own }))
                    .collect();
                self.send_batch(&messages, *strip);
            }
            Step::Claim { length, commit } => {
                let message = self.message(*length);
                self.send(message, |writer, bytes| writer.claim(bytes, *commit), *commit);
            }
            Step::Padding(length) => {
                if let Writer::Own(publication) = &mut self.writer {
                    let _ = publication.append_padding(*length);
                }
            }
            Step::Poll(limit) => {
                let expected = &mut self.expected;
                self.subscription
                    .poll(|payload, header| check(expected, payload, header), *limit);
            }
            Step::Bounded { limit, ahead } => {
                let expected = &mut self.expected;
                let image = &mut self.subscription.images()[0];
                let bound = image.position() + ahead;
                image.bounded_poll(
                    |payload, header| {
                        assert!(header.position() < bound + 8192 + 64);
                        check(expected, payload, header);
                    },
                    bound,
                    *limit,
                );
            }
            Step::Controlled { limit, answers } => {
                let expected = &mut self.expected;
                let mut next = answers.iter().cycle();
                self.subscription.controlled_poll(
                    |payload, header| match next.next() {
                        Some(0) => Action::Abort,
                        Some(answer) => {
                            check(expected, payload, header);
                            [Action::Break, Action::Commit, Action::Continue][usize::from(answer - 1)]
                        }
                        None => Action::Break,
                    },
                    *limit,
                );
            }
            Step::Fragments(_) | Step::Block(_) => unreachable!("raw steps have their own test"),
        }
        self.drive();
    }
}

fn window() -> i64 {
    i64::from(TERM_LENGTH / 2)
}

fn check(expected: &mut VecDeque<(Vec<u8>, i64)>, payload: fulmar::Payload<'_>, header: &fulmar::Header<'_>) {
    let (message, position) = expected.pop_front().expect("a message that was sent");
    assert!(
        payload.eq_bytes(&message),
        "{} bytes at {position}",
        message.len()
    );
    assert_eq!(header.position(), position);
    assert_eq!(header.frame_length() as usize, message.len() + 32);
    assert_eq!(header.flags(), 0xC0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_message_arrives_once_whole_and_in_order(steps in steps(), exclusive in any::<bool>()) {
        let mut world = World::new(exclusive);
        for step in &steps {
            world.step(step);
        }
        for _ in 0..200 {
            world.step(&Step::Poll(20));
        }
        prop_assert!(world.expected.is_empty());
        prop_assert_eq!(world.subscription.images()[0].position(), world.writer.position());
    }

    #[test]
    fn fragments_and_blocks_cover_the_stream_without_gaps(steps in raw_steps()) {
        let mut world = World::new(true);
        let mut sent = 0;
        let mut received = 0;
        for step in &steps {
            match step {
                Step::Offer(length) => {
                    let before = world.expected.len();
                    let message = world.message(*length);
                    world.send(message, |writer, bytes| writer.offer(bytes), true);
                    if world.expected.len() > before {
                        sent += length;
                    }
                }
                Step::Fragments(limit) => {
                    let mut last = world.subscription.images()[0].position();
                    world.subscription.poll_fragments(
                        |payload, header| {
                            assert!(header.position() > last);
                            last = header.position();
                            received += payload.len();
                        },
                        *limit,
                    );
                }
                Step::Block(limit) => {
                    let start = world.subscription.images()[0].position();
                    let bytes = world.subscription.block_poll(
                        |block| {
                            assert_eq!(block.position, start);
                            let mut at = 0;
                            while at < block.frames.len() {
                                let length = block.frames.read_i32(at).unwrap() as usize;
                                let padding = block.frames.read_u16(at + 6) == Some(0);
                                received += if padding { 0 } else { length - 32 };
                                at += length.next_multiple_of(32);
                            }
                            assert_eq!(at, block.frames.len());
                        },
                        *limit,
                    );
                    assert_eq!(world.subscription.images()[0].position(), start + bytes as i64);
                }
                _ => {}
            }
            world.drive();
        }
        // A poll that meets the padding at the end of a term may come back empty-handed: the position says when all is
        // read.
        for _ in 0..2000 {
            world.subscription.poll_fragments(|payload, _| received += payload.len(), 50);
        }
        prop_assert_eq!(world.subscription.images()[0].position(), world.writer.position());
        prop_assert_eq!(received, sent);
    }
}
