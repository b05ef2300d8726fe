//! A log against a naive model: whatever publishers do, a reader gets exactly the accepted messages, in the order of
//! their positions, and the bytes at and beyond the tail are zero.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::fragmented_length;
use fulmar::log::frame::{FLAG_BEGIN, FLAG_END};
use fulmar::log::{
    Action, AppendOutcome, BatchOutcome, BlockOutcome, Claimed, CommitError, ConcurrentAppender,
    ExclusiveAppender, FrameFields, LogBuffers, LogInit, LogType, Metadata, NoReservedValue, NoWindow,
    Source, Unblock, clean, pad_range, producer_position, scan_block, scan_fragments, sweep, unblock,
};
use fulmar::memory::{AtomicBuffer, Region, View};
use proptest::prelude::*;

/// Terms far shorter than those of files, so that a short test rotates often.
const TERM: i32 = 4096;
const MTU: i32 = 256;
const MAX_PAYLOAD: usize = MTU as usize - 32;
const MAX_MESSAGE: usize = TERM as usize / 8;

fn small_log(initial_term_id: i32, log_type: LogType, mtu_length: i32) -> LogBuffers {
    let init = LogInit {
        mtu_length,
        log_type,
        ..LogInit::ipc_default(
            RegistrationId(1),
            SessionId(7),
            StreamId(9),
            TermId(initial_term_id),
            TERM,
        )
    };
    let metadata = Region::heap(4096).as_view();
    init.write_to(&Metadata::new(metadata.clone()).unwrap());
    let terms = [0; 3].map(|_| Region::heap(TERM as usize).as_view());
    LogBuffers::from_parts(terms, metadata).unwrap()
}

fn message(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|index| (seed.wrapping_mul(31).wrapping_add(index) >> 3) as u8 ^ seed as u8)
        .collect()
}

/// A subscriber that puts fragments together again.
#[derive(Default)]
struct Reader {
    position: i64,
    partial: Option<Vec<u8>>,
    /// Position behind each message, and the message.
    got: Vec<(i64, Vec<u8>)>,
}

impl Reader {
    /// One poll; whether it moved.
    fn poll(&mut self, log: &LogBuffers, limit: usize) -> bool {
        let shape = log.shape();
        let offset = shape.offset(self.position);
        let begin = self.position - i64::from(offset);
        let term_id = shape.term_id(self.position);
        let result = scan_fragments(
            log.term(shape.partition(self.position)),
            offset,
            i32::MAX,
            limit,
            |frame| {
                assert_eq!(frame.term_id(), term_id);
                assert_eq!(frame.term_offset(), frame.offset());
                assert_eq!(frame.session_id(), SessionId(7));
                assert_eq!(frame.stream_id(), StreamId(9));
                if frame.flags() & FLAG_BEGIN != 0 {
                    assert!(self.partial.is_none());
                    self.partial = Some(Vec::new());
                }
                let partial = self.partial.as_mut().unwrap();
                frame.payload().append_to(partial);
                if frame.flags() & FLAG_END != 0 {
                    let end = begin + i64::from(frame.next_offset());
                    self.got.push((end, self.partial.take().unwrap()));
                }
                Action::Continue
            },
        );
        assert!(!result.corrupt);
        let moved = result.offset != offset;
        self.position = begin + i64::from(result.offset);
        moved
    }
}

/// Zero from the tail on, as publishers, readers and the unblocker all need it.
fn assert_zero_beyond_tail(log: &LogBuffers, clean_position: i64) {
    let shape = log.shape();
    let producer = producer_position(log.metadata(), shape);
    let mut bytes = vec![0; TERM as usize];
    // A whole log minus what is dirty: from the producer to one log length behind the clean position.
    let mut position = producer;
    let end = (clean_position & !i64::from(TERM - 1)) + 3 * i64::from(TERM);
    while position < end {
        let offset = shape.offset(position) as usize;
        let length = (TERM as usize - offset).min((end - position) as usize);
        log.term(shape.partition(position))
            .copy_out(offset, &mut bytes[..length]);
        assert!(
            bytes[..length].iter().all(|byte| *byte == 0),
            "dirty between {position} and {}",
            position + length as i64
        );
        position += length as i64;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer {
        who: usize,
        length: usize,
        parts: usize,
    },
    Batch {
        who: usize,
        lengths: Vec<usize>,
        strip: bool,
    },
    Claim {
        who: usize,
        length: usize,
    },
    Commit {
        which: usize,
    },
    Abort {
        which: usize,
    },
    /// The driver finds an owner dead and pads its claims; the owner may be a zombie.
    Bury {
        who: usize,
    },
    /// The driver unblocks at the consumer position.
    Unblock,
    Read {
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, prop_oneof![4 => 0..80usize, 2 => 0..MAX_PAYLOAD + 2, 1 => 0..=MAX_MESSAGE], 1..4usize)
            .prop_map(|(who, length, parts)| Step::Offer { who, length, parts }),
        3 => (0..3usize, batch_lengths(), any::<bool>())
            .prop_map(|(who, lengths, strip)| Step::Batch { who, lengths, strip }),
        2 => (0..3usize, 0..=MAX_PAYLOAD).prop_map(|(who, length)| Step::Claim { who, length }),
        2 => any::<usize>().prop_map(|which| Step::Commit { which }),
        1 => any::<usize>().prop_map(|which| Step::Abort { which }),
        1 => (0..3usize).prop_map(|who| Step::Bury { who }),
        1 => Just(Step::Unblock),
        4 => (1..20usize).prop_map(|limit| Step::Read { limit }),
    ]
}

/// Lengths of the messages of a batch.
fn batch_lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![6 => 0..40usize, 2 => 0..MAX_PAYLOAD + 2, 1 => 0..=MAX_MESSAGE];
    prop::collection::vec(length, 0..20)
}

/// A batch as it is offered: as a list of messages, or as a strip of messages of one length, of which the last may
/// be shorter.
enum Batch {
    List(Vec<Vec<u8>>),
    Strip(Vec<u8>, usize),
}

impl Batch {
    fn new(seed: u64, lengths: &[usize], strip: bool) -> Batch {
        if strip {
            let length = lengths.first().map_or(1, |length| *length.max(&1));
            Batch::Strip(message(seed, lengths.len() * length * 2 / 3), length)
        } else {
            let messages = lengths.iter().enumerate();
            Batch::List(
                messages
                    .map(|(index, length)| message(seed + index as u64, *length))
                    .collect(),
            )
        }
    }

    fn messages(&self) -> Vec<&[u8]> {
        match self {
            Batch::List(messages) => messages.iter().map(Vec::as_slice).collect(),
            Batch::Strip(bytes, length) => bytes.chunks(*length).collect(),
        }
    }

    /// What a naive model says about it: how many messages go into one reservation, none if the first one has to go on
    /// its own; and the bytes that they occupy.
    fn expected(&self, at: Place) -> (usize, i64) {
        let most = (fragmented_length(MAX_MESSAGE, MAX_MESSAGE) as i64).min(at.term_end - at.position);
        let (mut count, mut bytes) = (0, 0);
        for message in self.messages() {
            let occupied = fragmented_length(message.len(), MAX_PAYLOAD) as i64;
            let is_rest = matches!(self, Batch::Strip(_, length) if message.len() < *length);
            let starts_below_limit = at.position + bytes < at.limit;
            if is_rest || message.len() > MAX_PAYLOAD || !starts_below_limit || bytes + occupied > most {
                break;
            }
            count += 1;
            bytes += occupied;
        }
        (count, bytes)
    }

    /// Checks what became of it; the accepted messages with the position behind each.
    fn check(&self, at: Place, batch: BatchOutcome) -> Vec<(i64, Vec<u8>)> {
        let messages = self.messages();
        let (count, bytes) = self.expected(at);
        match batch.outcome {
            AppendOutcome::Appended { position } if messages.is_empty() => {
                assert_eq!((batch.accepted, position), (0, at.position));
            }
            AppendOutcome::Appended { position } if count > 0 => {
                assert_eq!((batch.accepted, position), (count, at.position + bytes));
            }
            AppendOutcome::Appended { .. } => assert_eq!(batch.accepted, 1),
            AppendOutcome::AtLimit { position } => {
                assert!(position >= at.limit);
                assert_eq!((batch.accepted, count, position), (0, 0, at.position));
            }
            AppendOutcome::AdminAction => assert_eq!((batch.accepted, count), (0, 0)),
            other => panic!("{other:?}"),
        }
        let mut position = at.position;
        messages[..batch.accepted]
            .iter()
            .map(|message| {
                position += fragmented_length(message.len(), MAX_PAYLOAD) as i64;
                (position, message.to_vec())
            })
            .collect()
    }
}

/// Where a batch is offered.
#[derive(Clone, Copy)]
struct Place {
    position: i64,
    /// Position of the end of the active term.
    term_end: i64,
    limit: i64,
}

impl Place {
    fn of(log: &LogBuffers, limit: i64) -> Place {
        Place {
            position: producer_position(log.metadata(), log.shape()),
            term_end: i64::from(TERM) * (i64::from(log.metadata().active_term_count_acquire()) + 1),
            limit,
        }
    }
}

struct OpenClaim {
    who: usize,
    claimed: Claimed,
    revoked: bool,
}

struct Model {
    log: LogBuffers,
    appenders: Vec<ConcurrentAppender<View>>,
    reader: Reader,
    clean_position: i64,
    /// What the reader must get: position behind each message, and the message.
    accepted: BTreeMap<i64, Vec<u8>>,
    claims: Vec<OpenClaim>,
    seed: u64,
}

impl Model {
    fn new(initial_term_id: i32) -> Model {
        let log = small_log(initial_term_id, LogType::Concurrent, MTU);
        Model {
            appenders: (0..3)
                .map(|who| ConcurrentAppender::new(log.clone(), 100 + who))
                .collect(),
            log,
            reader: Reader::default(),
            clean_position: 0,
            accepted: BTreeMap::new(),
            claims: Vec::new(),
            seed: 0,
        }
    }

    /// As the driver computes it for IPC.
    fn limit(&self) -> i64 {
        self.clean_position + i64::from(TERM / 2)
    }

    fn offer(&mut self, who: usize, length: usize, parts: usize) {
        self.seed += 1;
        let bytes = message(self.seed, length);
        let appender = &self.appenders[who];
        let limit = self.limit();
        let before = appender.position();
        let outcome = match parts {
            1 => appender.offer(&NoWindow, &bytes[..], &NoReservedValue, limit),
            2 => {
                let (head, tail) = bytes.split_at(length / 3);
                appender.offer(&NoWindow, &(head, tail), &NoReservedValue, limit)
            }
            _ => {
                let (head, tail) = bytes.split_at(length / 2);
                let list: [&[u8]; 3] = [head, &[], tail];
                assert_eq!(list[..].length(), length);
                appender.offer(&NoWindow, &list[..], &NoReservedValue, limit)
            }
        };
        match outcome {
            AppendOutcome::Appended { position } => {
                let occupied = fragmented_length(length, MAX_PAYLOAD) as i64;
                assert_eq!(position, before + occupied);
                assert_eq!(appender.position(), position);
                self.accepted.insert(position, bytes);
            }
            AppendOutcome::AtLimit { position } => {
                assert!(position >= limit);
                assert_eq!(position, before);
            }
            AppendOutcome::AdminAction => {
                assert_eq!(appender.position() % i64::from(TERM), 0);
            }
            other => panic!("{other:?}"),
        }
    }

    fn offer_batch(&mut self, who: usize, lengths: &[usize], strip: bool) {
        self.seed += 1000;
        let batch = Batch::new(self.seed, lengths, strip);
        let appender = &self.appenders[who];
        let limit = self.limit();
        let place = Place::of(&self.log, limit);
        let outcome = match &batch {
            Batch::List(_) => appender.offer_batch(&NoWindow, &batch.messages(), limit),
            Batch::Strip(bytes, length) => appender.offer_batch_of(&NoWindow, bytes, *length, limit),
        };
        self.accepted.extend(batch.check(place, outcome));
    }

    fn claim(&mut self, who: usize, length: usize) {
        match self.appenders[who].claim(&NoWindow, length, self.limit()) {
            Ok(claimed) => {
                assert_eq!(claimed.length(), length);
                assert_eq!(self.appenders[who].position(), claimed.position());
                self.claims.push(OpenClaim {
                    who,
                    claimed,
                    revoked: false,
                });
            }
            Err(outcome) => assert!(matches!(
                outcome,
                AppendOutcome::AtLimit { .. } | AppendOutcome::AdminAction
            )),
        }
    }

    fn finish(&mut self, which: usize, commit: bool) {
        if self.claims.is_empty() {
            return;
        }
        let claim = self.claims.swap_remove(which % self.claims.len());
        let appender = &self.appenders[claim.who];
        self.seed += 1;
        let bytes = message(self.seed, claim.claimed.length());
        let revoked = if commit {
            let result = appender.commit(&NoWindow, &claim.claimed, &bytes, FrameFields::default());
            if result.is_ok() {
                self.accepted.insert(claim.claimed.position(), bytes);
            }
            result == Err(CommitError::ClaimRevoked)
        } else {
            appender.abort(&NoWindow, &claim.claimed) == Err(CommitError::ClaimRevoked)
        };
        assert_eq!(revoked, claim.revoked);
    }

    fn bury(&mut self, who: usize) {
        let tag = 100 + who as i64;
        let producer = self.appenders[who].position();
        let result = sweep(
            &self.log,
            self.reader.position,
            producer,
            |owner| owner == tag,
            usize::MAX,
        );
        assert_eq!(result.position, producer);
        assert!(!result.at_hole);
        let mut expected = 0;
        for claim in self
            .claims
            .iter_mut()
            .filter(|claim| claim.who == who && !claim.revoked)
        {
            claim.revoked = true;
            expected += 1;
        }
        assert_eq!(result.padded, expected);
    }

    fn unblock(&mut self) {
        let position = self.reader.position;
        let outcome = unblock(&self.log, position);
        let blocking = self.claims.iter_mut().find(|claim| {
            let occupied = fragmented_length(claim.claimed.length(), MAX_PAYLOAD) as i64;
            !claim.revoked && claim.claimed.position() - occupied == position
        });
        match blocking {
            Some(claim) => {
                let length = claim.claimed.length() as i32 + 32;
                assert_eq!(outcome, Unblock::Padded { length });
                claim.revoked = true;
            }
            None => assert!(matches!(outcome, Unblock::NotNeeded | Unblock::Rotated)),
        }
    }

    fn read(&mut self, limit: usize) {
        self.reader.poll(&self.log, limit);
        while self.clean_position < self.reader.position {
            self.clean_position = clean(&self.log, self.clean_position, self.reader.position, 333);
        }
    }

    fn check(&self) {
        assert_zero_beyond_tail(&self.log, self.clean_position);
        let expected: Vec<(i64, Vec<u8>)> = self
            .accepted
            .range(..=self.reader.position)
            .map(|(position, bytes)| (*position, bytes.clone()))
            .collect();
        assert_eq!(self.reader.got, expected);
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Offer { who, length, parts } => self.offer(*who, *length, *parts),
                Step::Batch { who, lengths, strip } => self.offer_batch(*who, lengths, *strip),
                Step::Claim { who, length } => self.claim(*who, *length),
                Step::Commit { which } => self.finish(*which, true),
                Step::Abort { which } => self.finish(*which, false),
                Step::Bury { who } => self.bury(*who),
                Step::Unblock => self.unblock(),
                Step::Read { limit } => self.read(*limit),
            }
            self.check();
        }
        while !self.claims.is_empty() {
            self.finish(0, true);
        }
        for _ in 0..1000 {
            self.read(100);
        }
        self.check();
        assert_eq!(self.reader.got.len(), self.accepted.len());
        assert_eq!(self.reader.position, self.appenders[0].position());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn readers_get_exactly_the_accepted_messages(
        initial in prop_oneof![Just(0), Just(i32::MAX - 1), any::<i32>()],
        steps in prop::collection::vec(step(), 1..300),
    ) {
        Model::new(initial).run(&steps);
    }

    #[test]
    fn an_exclusive_log_holds_messages_padding_claims_and_blocks(
        initial in any::<i32>(),
        steps in prop::collection::vec((0..7u8, 0..=MAX_MESSAGE, 1..20usize, batch_lengths()), 1..300),
    ) {
        let log = small_log(initial, LogType::Exclusive, MTU);
        let mut appender = ExclusiveAppender::new(log.clone());
        let mut reader = Reader::default();
        let mut clean_position = 0;
        let mut accepted = Vec::new();
        for (seed, (kind, length, reads, lengths)) in steps.into_iter().enumerate() {
            let limit = clean_position + i64::from(TERM / 2);
            let bytes = message(seed as u64, length);
            let before = appender.position();
            let outcome = match kind {
                0 | 1 => {
                    let outcome = appender.offer(&bytes[..], &NoReservedValue, limit);
                    if let AppendOutcome::Appended { position } = outcome {
                        prop_assert_eq!(position, before + fragmented_length(length, MAX_PAYLOAD) as i64);
                        accepted.push((position, bytes));
                    }
                    outcome
                }
                2 => appender.append_padding(length, limit),
                5 | 6 => {
                    let batch = Batch::new(seed as u64, &lengths, kind == 6);
                    let place = Place::of(&log, limit);
                    let outcome = match &batch {
                        Batch::List(_) => appender.offer_batch(&batch.messages(), limit),
                        Batch::Strip(bytes, length) => appender.offer_batch_of(bytes, *length, limit),
                    };
                    accepted.extend(batch.check(place, outcome));
                    outcome.outcome
                }
                3 => match appender.claim(length % (MAX_PAYLOAD + 1), limit) {
                    Ok(claimed) if length % 3 == 0 => {
                        appender.abort(&claimed);
                        AppendOutcome::Appended { position: claimed.position() }
                    }
                    Ok(claimed) => {
                        let bytes = message(seed as u64, claimed.length());
                        let position = appender.commit(&claimed, &bytes, FrameFields::default());
                        prop_assert_eq!(position, appender.position());
                        accepted.push((position, bytes));
                        AppendOutcome::Appended { position }
                    }
                    Err(outcome) => outcome,
                },
                _ => {
                    // Two ready frames, as somebody would have copied them from another log.
                    let offset = log.shape().offset(before);
                    let mut block = Vec::new();
                    let payload = &bytes[..length.min(MAX_PAYLOAD)];
                    for offset in [offset, offset + fragmented_length(payload.len(), MAX_PAYLOAD) as i32] {
                        block.extend_from_slice(&(payload.len() as i32 + 32).to_le_bytes());
                        block.extend_from_slice(&[0, 0xC0, 1, 0]);
                        for word in [offset, 7, 9, log.shape().term_id(before).0] {
                            block.extend_from_slice(&word.to_le_bytes());
                        }
                        block.extend_from_slice(&[0; 8]);
                        block.extend_from_slice(payload);
                        block.resize(block.len().next_multiple_of(32), 0);
                    }
                    match appender.offer_block(&block, limit) {
                        BlockOutcome::Append(outcome) => {
                            if let AppendOutcome::Appended { position } = outcome {
                                let half = fragmented_length(payload.len(), MAX_PAYLOAD) as i64;
                                accepted.push((position - half, payload.to_vec()));
                                accepted.push((position, payload.to_vec()));
                            }
                            outcome
                        }
                        BlockOutcome::Malformed => {
                            prop_assert!(offset as usize + block.len() > TERM as usize || offset == TERM);
                            AppendOutcome::AdminAction
                        }
                    }
                }
            };
            match outcome {
                AppendOutcome::Appended { position } => prop_assert_eq!(position, appender.position()),
                AppendOutcome::AtLimit { position } => prop_assert!(position >= limit),
                AppendOutcome::AdminAction => {}
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(producer_position(log.metadata(), log.shape()), appender.position());
            reader.poll(&log, reads);
            while clean_position < reader.position {
                clean_position = clean(&log, clean_position, reader.position, 1000);
            }
            assert_zero_beyond_tail(&log, clean_position);
        }
        while reader.position < appender.position() {
            prop_assert!(reader.poll(&log, 1000));
        }
        prop_assert_eq!(reader.got, accepted);
    }

    #[test]
    fn a_dead_offerers_range_becomes_padding_whatever_it_had_written(
        total in 1..=MAX_MESSAGE,
        committed in 0..4usize,
        opened in any::<bool>(),
        before in 0..200usize,
    ) {
        // The range of a fragmented offer, with some fragments committed, perhaps one opened, and nothing after.
        let log = small_log(3, LogType::Concurrent, MTU);
        let appender = ConcurrentAppender::new(log.clone(), 1);
        appender.offer(&NoWindow, &message(1, before), &NoReservedValue, i64::MAX);
        let start = appender.position();
        let occupied = fragmented_length(total, MAX_PAYLOAD) as i64;
        log.metadata().tail_fetch_add(0, occupied);
        let fragment_count = total.div_ceil(MAX_PAYLOAD);
        let committed = committed.min(fragment_count);
        let term = log.term(0);
        for index in 0..fragment_count {
            let at = start as usize + index * MTU as usize;
            let length = (total - index * MAX_PAYLOAD).min(MAX_PAYLOAD) as i32 + 32;
            if index < committed {
                term.store_relaxed_i64(at, i64::from(length) | (1 << 48));
            } else if index == committed && opened {
                term.store_relaxed_i32(at, -length);
                term.copy_in(at + 32, &message(5, length as usize - 32));
            }
        }
        let after = appender.offer(&NoWindow, b"behind", &NoReservedValue, i64::MAX);
        let complete = AppendOutcome::Appended { position: start + occupied + 64 };
        prop_assert_eq!(after, complete);

        let result = pad_range(&log, start, occupied);
        prop_assert!(result.complete);
        let kept = (committed * MTU as usize).min(occupied as usize) as i64;
        prop_assert_eq!(result.padded, occupied - kept);
        prop_assert_eq!(pad_range(&log, start, occupied).padded, 0);
        let mut frames = Vec::new();
        let read = scan_fragments(term, start as i32, i32::MAX, 100, |frame| {
            frames.push(frame.payload().to_vec());
            Action::Continue
        });
        prop_assert!(!read.corrupt);
        prop_assert_eq!(i64::from(read.offset), start + occupied + 64);
        prop_assert_eq!(frames.len(), committed + 1);
        prop_assert_eq!(&frames[committed][..], b"behind");
    }
}

#[test]
fn a_zombie_that_commits_after_its_place_was_recycled_is_refused_and_changes_nothing() {
    for other_claims in [false, true] {
        let mut model = Model::new(0);
        model.claim(0, 40);
        model.unblock();
        // More than three terms later the same offset belongs to somebody else, with a frame of the same length.
        let zombie = model.claims.pop().unwrap();
        let target = 3 * i64::from(TERM);
        while model.appenders[1].position() < target {
            model.offer(1, 40, 1);
            model.read(100);
        }
        let holder = if other_claims {
            model.claim(1, 40);
            Some(model.claims.pop().unwrap())
        } else {
            model.offer(1, 40, 1);
            None
        };
        let place = model.log.term(0);
        let mut before = vec![0; 128];
        place.copy_out(0, &mut before);
        let result = model.appenders[0].commit(&NoWindow, &zombie.claimed, &[9; 40], FrameFields::default());
        assert_eq!(result, Err(CommitError::ClaimRevoked));
        let mut after = vec![0; 128];
        place.copy_out(0, &mut after);
        assert_eq!(before, after);
        if let Some(holder) = holder {
            let position = model.appenders[1]
                .commit(&NoWindow, &holder.claimed, &[3; 40], FrameFields::default())
                .unwrap();
            model.accepted.insert(position, vec![3; 40]);
        }
        model.read(100);
        model.check();
    }
}

#[test]
fn every_accepted_length_comes_back_through_every_mtu() {
    for mtu in [64, 96, 128, 4096] {
        for length in 0..=MAX_MESSAGE {
            let log = small_log(0, LogType::Concurrent, mtu);
            let appender = ConcurrentAppender::new(log.clone(), 1);
            let mut exclusive = ExclusiveAppender::new(small_log(0, LogType::Exclusive, mtu));
            let bytes = message(length as u64, length);
            let expected = AppendOutcome::Appended {
                position: fragmented_length(length, mtu as usize - 32) as i64,
            };
            assert_eq!(
                appender.offer(&NoWindow, &bytes[..], &NoReservedValue, i64::MAX),
                expected
            );
            assert_eq!(exclusive.offer(&bytes[..], &NoReservedValue, i64::MAX), expected);
            for log in [&log, exclusive.log()] {
                let mut reader = Reader::default();
                reader.poll(log, 100);
                assert_eq!(reader.got.len(), 1);
                assert_eq!(reader.got[0].1, bytes);
            }
        }
        let log = small_log(0, LogType::Concurrent, mtu);
        let long = vec![0; MAX_MESSAGE + 1];
        assert_eq!(
            ConcurrentAppender::new(log.clone(), 1).offer(&NoWindow, &long[..], &NoReservedValue, i64::MAX),
            AppendOutcome::TooLong
        );
        assert_eq!(
            ExclusiveAppender::new(log).offer(&long[..], &NoReservedValue, i64::MAX),
            AppendOutcome::TooLong
        );
    }
}

#[test]
fn the_last_term_is_never_left() {
    let last = TermId(5_i32.wrapping_add(i32::MAX));
    let start = |log_type| {
        let init = LogInit {
            start_term_id: last,
            start_term_offset: TERM - 128,
            mtu_length: MTU,
            log_type,
            ..LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(5), TERM)
        };
        let metadata = Region::heap(4096).as_view();
        init.write_to(&Metadata::new(metadata.clone()).unwrap());
        LogBuffers::from_parts([0; 3].map(|_| Region::heap(TERM as usize).as_view()), metadata).unwrap()
    };
    let end = i64::from(TERM) << 31;
    let first = AppendOutcome::Appended { position: end - 64 };
    let appender = ConcurrentAppender::new(start(LogType::Concurrent), 1);
    let mut exclusive = ExclusiveAppender::new(start(LogType::Exclusive));
    assert_eq!(
        appender.offer(&NoWindow, &[1; 32], &NoReservedValue, i64::MAX),
        first
    );
    assert_eq!(exclusive.offer(&[1; 32], &NoReservedValue, i64::MAX), first);
    for _ in 0..3 {
        assert_eq!(
            appender.offer(&NoWindow, &[1; 64], &NoReservedValue, i64::MAX),
            AppendOutcome::MaxPositionExceeded
        );
        assert_eq!(
            exclusive.offer(&[1; 64], &NoReservedValue, i64::MAX),
            AppendOutcome::MaxPositionExceeded
        );
    }
    for log in [appender.log(), exclusive.log()] {
        assert_eq!(log.metadata().active_term_count_acquire(), i32::MAX);
        assert_eq!(producer_position(log.metadata(), log.shape()), end);
        let mut reader = Reader {
            position: end - 128,
            ..Reader::default()
        };
        assert!(reader.poll(log, 10));
        assert_eq!(reader.position, end);
        assert_eq!(reader.got.len(), 1);
    }
}

#[test]
fn a_hole_without_a_header_is_padded_once_its_end_is_known() {
    let log = small_log(0, LogType::Concurrent, MTU);
    let appender = ConcurrentAppender::new(log.clone(), 1);
    // Somebody raised the tail and died.
    log.metadata().tail_fetch_add(0, 96);
    assert_eq!(unblock(&log, 0), Unblock::NotYet { scanned_to: 0 });
    appender.offer(&NoWindow, b"x", &NoReservedValue, i64::MAX);
    assert_eq!(unblock(&log, 0), Unblock::Padded { length: 96 });
    assert_eq!(unblock(&log, 0), Unblock::NotNeeded);
    let mut reader = Reader::default();
    reader.poll(&log, 10);
    assert_eq!(reader.got, vec![(160, b"x".to_vec())]);
    assert_eq!(unblock(&log, 160), Unblock::NotNeeded);
}

#[test]
fn a_hole_up_to_the_end_of_the_term_is_padded_and_the_log_rotates() {
    let log = small_log(0, LogType::Concurrent, MTU);
    let appender = ConcurrentAppender::new(log.clone(), 1);
    log.metadata().tail_fetch_add(0, i64::from(TERM) + 64);
    assert_eq!(unblock(&log, 0), Unblock::Padded { length: TERM });
    assert_eq!(
        appender.offer(&NoWindow, b"next", &NoReservedValue, i64::MAX),
        AppendOutcome::Appended {
            position: i64::from(TERM) + 64
        }
    );
    let mut reader = Reader::default();
    reader.poll(&log, 10);
    reader.poll(&log, 10);
    assert_eq!(reader.got.len(), 1);
}

#[test]
fn a_publisher_that_died_before_rotating_is_rotated_for() {
    let log = small_log(0, LogType::Concurrent, MTU);
    let position = i64::from(TERM);
    assert_eq!(unblock(&log, position), Unblock::NotNeeded);
    log.term(0).store_relaxed_i64(0, position);
    log.metadata().tail_fetch_add(0, position + 96);
    assert_eq!(unblock(&log, 0), Unblock::NotNeeded);
    assert_eq!(unblock(&log, position), Unblock::Rotated);
    assert_eq!(log.metadata().active_term_count_acquire(), 1);
    assert_eq!(unblock(&log, position), Unblock::NotNeeded);
    let next = ConcurrentAppender::new(log, 1).offer(&NoWindow, b"", &NoReservedValue, i64::MAX);
    assert_eq!(
        next,
        AppendOutcome::Appended {
            position: position + 32
        }
    );
}

#[test]
fn a_block_is_a_run_of_whole_frames() {
    let log = small_log(0, LogType::Exclusive, MTU);
    let mut appender = ExclusiveAppender::new(log.clone());
    for _ in 0..3 {
        appender.offer(&[1; 32], &NoReservedValue, i64::MAX);
    }
    appender.append_padding(100, i64::MAX);
    let term = log.term(0);
    let end = |offset, limit| scan_block(term, offset, limit).end_offset;
    assert_eq!(end(0, 63), 0);
    assert_eq!(end(0, 64), 64);
    assert_eq!(end(0, 150), 128);
    assert_eq!(end(64, usize::MAX), 192);
    let padding = scan_block(term, 192, 1);
    assert!(padding.is_padding);
    assert_eq!(padding.end_offset, 192 + 160);
    assert!(!scan_block(term, 352, 1000).corrupt);
    assert!(scan_block(term, 352, 1000).is_empty_from(352));
}

#[test]
fn a_block_with_anything_foreign_in_it_is_refused() {
    let log = small_log(0, LogType::Exclusive, MTU);
    let mut appender = ExclusiveAppender::new(log);
    let good: Vec<u8> = [36i32.to_le_bytes(), [0, 0xC0, 1, 0]]
        .concat()
        .into_iter()
        .chain([0i32, 7, 9, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()))
        .chain([1, 2, 3, 4])
        .collect();
    for at in [0, 3, 6, 8, 12, 16, 20] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert_eq!(
            appender.offer_block(&bad, i64::MAX),
            BlockOutcome::Malformed,
            "{at}"
        );
    }
    assert_eq!(appender.offer_block(&[], i64::MAX), BlockOutcome::Malformed);
    assert_eq!(
        appender.offer_block(&good[..31], i64::MAX),
        BlockOutcome::Malformed
    );
    assert_eq!(
        appender.offer_block(&good, i64::MAX),
        BlockOutcome::Append(AppendOutcome::Appended { position: 64 })
    );
}

#[test]
fn actions_stop_before_or_behind_a_fragment_and_limits_count_starts() {
    let log = small_log(0, LogType::Concurrent, MTU);
    let appender = ConcurrentAppender::new(log.clone(), 1);
    for _ in 0..5 {
        appender.offer(&NoWindow, &[1; 32], &NoReservedValue, i64::MAX);
    }
    let read = |limit, fragments, action| {
        let mut seen = 0;
        let result = scan_fragments(log.term(0), 0, limit, fragments, |_| {
            seen += 1;
            if seen == 2 { action } else { Action::Continue }
        });
        (result.offset, result.fragments, seen)
    };
    assert_eq!(read(i32::MAX, 100, Action::Continue), (320, 5, 5));
    assert_eq!(read(i32::MAX, 100, Action::Abort), (64, 1, 2));
    assert_eq!(read(i32::MAX, 100, Action::Break), (128, 2, 2));
    assert_eq!(read(i32::MAX, 3, Action::Continue), (192, 3, 3));
    assert_eq!(read(65, 100, Action::Continue), (128, 2, 2));
    assert_eq!(read(64, 100, Action::Continue), (64, 1, 1));
    assert_eq!(read(-5, 100, Action::Continue), (0, 0, 0));
}

#[test]
fn padding_is_passed_over_and_not_counted() {
    let log = small_log(0, LogType::Concurrent, MTU);
    let appender = ConcurrentAppender::new(log.clone(), 1);
    let claim = appender.claim(&NoWindow, 32, i64::MAX).unwrap();
    appender.abort(&NoWindow, &claim).unwrap();
    appender.offer(&NoWindow, &[1; 32], &NoReservedValue, i64::MAX);
    let result = scan_fragments(log.term(0), 0, i32::MAX, 1, |_| Action::Continue);
    assert_eq!((result.offset, result.fragments), (128, 1));
}
