//! Batches: what goes into one reservation, what a reader finds, and what is left when the publisher dies at any point
//! of one.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::cell::Cell;
use std::rc::Rc;

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::{
    Action, AppendOutcome, AppendWindow, BatchOutcome, ConcurrentAppender, ExclusiveAppender, LogBuffers,
    LogInit, Metadata, NoReservedValue, NoWindow, Unblock, Words, pad_range, producer_position,
    scan_fragments, unblock,
};
use fulmar::memory::{AtomicBuffer, Region, View};

const TERM: i32 = 65536;
const MTU: i32 = 1408;
const MAX_PAYLOAD: usize = MTU as usize - 32;
const MAX_MESSAGE: usize = TERM as usize / 8;
/// Messages of 32 bytes that one reservation takes.
const MOST: usize = (MAX_MESSAGE + 32) / 64;

/// Memory of a process that dies after some number of stores: from then on they have no effect.
#[derive(Clone)]
struct Mortal {
    view: View,
    life: Rc<Cell<usize>>,
}

impl Mortal {
    fn lives(&self) -> bool {
        let left = self.life.get();
        self.life.set(left.saturating_sub(1));
        left > 0
    }
}

impl AtomicBuffer for Mortal {
    fn capacity(&self) -> usize {
        self.view.capacity()
    }

    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        self.view.load_relaxed_i32(offset)
    }

    fn load_acquire_i32(&self, offset: usize) -> i32 {
        self.view.load_acquire_i32(offset)
    }

    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        self.store_release_i32(offset, value);
    }

    fn store_release_i32(&self, offset: usize, value: i32) {
        if self.lives() {
            self.view.store_release_i32(offset, value);
        }
    }

    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.view.compare_exchange_i32(offset, current, new)
    }

    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.view.fetch_add_i32(offset, delta)
    }

    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        self.view.load_relaxed_i64(offset)
    }

    fn load_acquire_i64(&self, offset: usize) -> i64 {
        self.view.load_acquire_i64(offset)
    }

    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        self.store_release_i64(offset, value);
    }

    fn store_release_i64(&self, offset: usize, value: i64) {
        if self.lives() {
            self.view.store_release_i64(offset, value);
        }
    }

    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        self.view.compare_exchange_i64(offset, current, new)
    }

    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.view.fetch_add_i64(offset, delta)
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        // In pieces, so that it can also die in the middle of a payload.
        for (index, piece) in bytes.chunks(8).enumerate() {
            if self.lives() {
                self.view.copy_in(offset + index * 8, piece);
            }
        }
    }

    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        self.view.copy_out(offset, bytes);
    }

    fn zero(&self, offset: usize, length: usize) {
        self.view.zero(offset, length);
    }
}

impl Words for Mortal {
    type Resolved<'a> = &'a Mortal;

    fn resolve(&self) -> &Mortal {
        self
    }
}

/// A log as the living see it, and as the mortal does.
struct Logs {
    log: LogBuffers,
    mortal: LogBuffers<Mortal>,
    life: Rc<Cell<usize>>,
}

impl Logs {
    fn starting_at(offset: i32) -> Logs {
        let init = LogInit {
            mtu_length: MTU,
            start_term_offset: offset,
            ..LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(-2), TERM)
        };
        let metadata = Region::heap(4096).as_view();
        init.write_to(&Metadata::new(metadata.clone()).unwrap());
        let terms = [0; 3].map(|_| Region::heap(TERM as usize).as_view());
        let life = Rc::new(Cell::new(usize::MAX));
        let mortal = |view: &View| Mortal {
            view: view.clone(),
            life: life.clone(),
        };
        Logs {
            mortal: LogBuffers::from_parts(terms.each_ref().map(mortal), mortal(&metadata)).unwrap(),
            log: LogBuffers::from_parts(terms, metadata).unwrap(),
            life,
        }
    }

    fn exclusive(&self) -> ExclusiveAppender<View> {
        ExclusiveAppender::new(self.log.clone())
    }

    fn concurrent(&self) -> ConcurrentAppender<View> {
        ConcurrentAppender::new(self.log.clone(), 1)
    }
}

/// Messages with their number in each word.
fn numbered(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count as u64)
        .map(|number| {
            number
                .wrapping_add(1)
                .to_le_bytes()
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect()
        })
        .collect()
}

fn slices(messages: &[Vec<u8>]) -> Vec<&[u8]> {
    messages.iter().map(Vec::as_slice).collect()
}

/// Reads from an offset of term 0 on; payloads and where the frames end.
fn read(log: &LogBuffers, offset: i32) -> (Vec<Vec<u8>>, i32) {
    let mut got = Vec::new();
    let result = scan_fragments(log.term(0), offset, i32::MAX, usize::MAX, |frame| {
        assert_eq!((frame.version(), frame.flags(), frame.frame_type()), (0, 0xC0, 1));
        assert_eq!(frame.term_offset(), frame.offset());
        assert_eq!(
            (frame.session_id(), frame.stream_id()),
            (SessionId(7), StreamId(9))
        );
        assert_eq!((frame.term_id(), frame.reserved_value()), (TermId(-2), 0));
        got.push(frame.payload().to_vec());
        Action::Continue
    });
    assert!(!result.corrupt);
    (got, result.offset)
}

fn appended(accepted: usize, position: i64) -> BatchOutcome {
    BatchOutcome {
        accepted,
        outcome: AppendOutcome::Appended { position },
    }
}

#[test]
fn a_batch_is_the_frames_that_single_offers_would_have_written() {
    let messages = numbered(40, 100);
    let batched = Logs::starting_at(0);
    let single = Logs::starting_at(0);
    let mut lengths = [0, 1, 32, 33, 100, 64].iter().cycle();
    let messages: Vec<&[u8]> = messages
        .iter()
        .map(|message| &message[..*lengths.next().unwrap()])
        .collect();
    let outcome = batched.exclusive().offer_batch(&messages, i64::MAX);
    let mut singles = single.exclusive();
    for message in &messages {
        singles.offer(*message, &NoReservedValue, i64::MAX);
    }
    assert_eq!(outcome, appended(40, singles.position()));
    let bytes = |logs: &Logs| {
        let mut bytes = vec![0; TERM as usize];
        logs.log.term(0).copy_out(0, &mut bytes);
        bytes
    };
    assert_eq!(bytes(&batched), bytes(&single));
    assert_eq!(read(&batched.log, 0).0, messages);
}

#[test]
fn a_strip_is_cut_into_messages_of_which_the_last_may_be_shorter() {
    let logs = Logs::starting_at(0);
    let appender = logs.concurrent();
    let bytes: Vec<u8> = (0..100).collect();
    assert_eq!(
        appender.offer_batch_of(&NoWindow, &bytes, 30, i64::MAX),
        appended(3, 192)
    );
    assert_eq!(
        appender.offer_batch_of(&NoWindow, &bytes[90..], 30, i64::MAX),
        appended(1, 256)
    );
    assert_eq!(
        appender.offer_batch_of(&NoWindow, &bytes[..2], 0, i64::MAX),
        appended(2, 384)
    );
    let mut expected: Vec<&[u8]> = bytes.chunks(30).collect();
    expected.extend([&[0u8][..], &[1]]);
    assert_eq!(read(&logs.log, 0).0, expected);
}

#[test]
fn a_reservation_takes_no_more_than_the_longest_message() {
    let messages = numbered(1000, 32);
    let (own, shared) = (Logs::starting_at(0), Logs::starting_at(0));
    let expected = appended(MOST, MOST as i64 * 64);
    assert_eq!(
        own.exclusive().offer_batch(&slices(&messages), i64::MAX),
        expected
    );
    let appender = shared.concurrent();
    assert_eq!(
        appender.offer_batch(&NoWindow, &slices(&messages), i64::MAX),
        expected
    );
    let strip = vec![7; 32 * 1000];
    let next = appended(MOST, MOST as i64 * 128);
    assert_eq!(appender.offer_batch_of(&NoWindow, &strip, 32, i64::MAX), next);
    // The longest message itself is refused nothing by this.
    let single = appender.offer(&NoWindow, &vec![7; MAX_MESSAGE], &NoReservedValue, i64::MAX);
    assert!(matches!(single, AppendOutcome::Appended { .. }));
}

#[test]
fn each_message_of_a_batch_starts_below_the_limit() {
    let messages = numbered(10, 32);
    for (limit, count) in [(1, 1), (64, 1), (65, 2), (128, 2), (640, 10), (i64::MAX, 10)] {
        let (own, shared) = (Logs::starting_at(0), Logs::starting_at(0));
        let expected = appended(count, count as i64 * 64);
        assert_eq!(own.exclusive().offer_batch(&slices(&messages), limit), expected);
        let strip = vec![7; 320];
        assert_eq!(
            shared.concurrent().offer_batch_of(&NoWindow, &strip, 32, limit),
            expected
        );
    }
    for limit in [0, -1, i64::MIN] {
        let refused = BatchOutcome {
            accepted: 0,
            outcome: AppendOutcome::AtLimit { position: 0 },
        };
        let logs = Logs::starting_at(0);
        assert_eq!(logs.exclusive().offer_batch(&slices(&messages), limit), refused);
        let appender = logs.concurrent();
        assert_eq!(
            appender.offer_batch(&NoWindow, &slices(&messages), limit),
            refused
        );
        assert_eq!(appender.position(), 0);
    }
}

#[test]
fn a_batch_is_cut_at_the_end_of_the_term_and_goes_on_in_the_next() {
    let messages = numbered(10, 32);
    // Two fit and leave half a frame; then two fit exactly.
    for (start, padding) in [(TERM - 160, 32), (TERM - 128, 0)] {
        let own = Logs::starting_at(start);
        let shared = Logs::starting_at(start);
        let (mut exclusive, concurrent) = (own.exclusive(), shared.concurrent());
        let both = |exclusive: &mut ExclusiveAppender<View>, from: usize| {
            let rest = slices(&messages[from..]);
            let outcome = exclusive.offer_batch(&rest, i64::MAX);
            assert_eq!(concurrent.offer_batch(&NoWindow, &rest, i64::MAX), outcome);
            assert_eq!(exclusive.position(), concurrent.position());
            outcome
        };
        assert_eq!(both(&mut exclusive, 0), appended(2, i64::from(TERM) - padding));
        assert_eq!(both(&mut exclusive, 2).outcome, AppendOutcome::AdminAction);
        assert_eq!(both(&mut exclusive, 2), appended(8, i64::from(TERM) + 512));
        for log in [&own.log, &shared.log] {
            assert_eq!(read(log, start), (messages[..2].to_vec(), TERM));
            assert_eq!(log.metadata().active_term_count_acquire(), 1);
        }
    }
}

#[test]
fn a_batch_ends_before_a_message_of_several_frames_which_then_goes_first_and_alone() {
    let logs = Logs::starting_at(0);
    let appender = logs.concurrent();
    let long = vec![7; MAX_PAYLOAD + 1];
    let fits = vec![8; MAX_PAYLOAD];
    let batch: [&[u8]; 4] = [b"one", &fits, &long, b"two"];
    let outcome = appender.offer_batch(&NoWindow, &batch, i64::MAX);
    let after_two = 64 + i64::from(MTU);
    assert_eq!(outcome, appended(2, after_two));
    let outcome = appender.offer_batch(&NoWindow, &batch[2..], i64::MAX);
    let after_three = after_two + i64::from(MTU) + 64;
    assert_eq!(outcome, appended(1, after_three));
    let too_long = vec![9; MAX_MESSAGE + 1];
    let outcome = appender.offer_batch(&NoWindow, &[b"three", &too_long], i64::MAX);
    assert_eq!(outcome, appended(1, after_three + 64));
    let outcome = appender.offer_batch(&NoWindow, &[&too_long, b"four"], i64::MAX);
    assert_eq!((outcome.accepted, outcome.outcome), (0, AppendOutcome::TooLong));
    assert_eq!(appender.position(), after_three + 64);
}

#[test]
fn an_empty_batch_changes_nothing_even_at_the_end_of_a_term() {
    for start in [0, 64, TERM] {
        let logs = Logs::starting_at(start);
        let expected = appended(0, i64::from(start));
        assert_eq!(logs.exclusive().offer_batch(&[], i64::MAX), expected);
        let appender = logs.concurrent();
        assert_eq!(appender.offer_batch(&NoWindow, &[], i64::MAX), expected);
        assert_eq!(appender.offer_batch_of(&NoWindow, &[], 32, i64::MAX), expected);
        assert_eq!(logs.log.metadata().active_term_count_acquire(), 0);
    }
}

#[test]
fn a_message_that_is_too_long_stays_so_at_the_end_of_a_term() {
    let too_long = vec![9; MAX_MESSAGE + 1];
    let refused = BatchOutcome {
        accepted: 0,
        outcome: AppendOutcome::TooLong,
    };
    let batch: [&[u8]; 2] = [&too_long, b"next"];
    for limit in [i64::from(TERM), i64::MAX] {
        let (own, shared) = (Logs::starting_at(TERM), Logs::starting_at(TERM));
        let (mut exclusive, concurrent) = (own.exclusive(), shared.concurrent());
        for outcome in [
            exclusive.offer_batch(&batch, limit),
            exclusive.offer_batch_of(&too_long, too_long.len(), limit),
            concurrent.offer_batch(&NoWindow, &batch, limit),
            concurrent.offer_batch_of(&NoWindow, &too_long, too_long.len(), limit),
        ] {
            assert_eq!(outcome, refused, "{limit}");
        }
        for log in [own.log, shared.log] {
            assert_eq!(log.metadata().active_term_count_acquire(), 0);
        }
    }
}

#[test]
fn the_end_of_the_stream_takes_what_fits_and_no_more() {
    let init = LogInit {
        mtu_length: MTU,
        ..LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(0), TERM)
    };
    let metadata = Metadata::new(Region::heap(4096).as_view()).unwrap();
    init.write_to(&metadata);
    let last = i32::MAX;
    let partition = last as usize % 3;
    metadata.tail_release(partition, (i64::from(last) << 32) | i64::from(TERM - 96));
    metadata.active_term_count_release(last);
    let terms = [0; 3].map(|_| Region::heap(TERM as usize).as_view());
    let log = LogBuffers::from_parts(terms, metadata.buffer().clone()).unwrap();
    let appender = ConcurrentAppender::new(log.clone(), 1);
    let messages = numbered(3, 32);
    let outcome = appender.offer_batch(&NoWindow, &slices(&messages), i64::MAX);
    assert_eq!(outcome.accepted, 1);
    for _ in 0..2 {
        let outcome = appender.offer_batch(&NoWindow, &slices(&messages), i64::MAX);
        assert_eq!(
            (outcome.accepted, outcome.outcome),
            (0, AppendOutcome::MaxPositionExceeded)
        );
    }
}

/// The window of a mortal publisher.
struct MortalWindow<'a> {
    life: &'a Cell<usize>,
    claimed: Cell<Option<(i64, i64)>>,
    is_set: Cell<bool>,
}

impl AppendWindow for MortalWindow<'_> {
    fn enter(&self) {
        self.is_set.set(true);
    }

    fn claimed(&self, position: i64, length: i64) {
        self.claimed.set(Some((position, length)));
    }

    fn leave(&self) {
        if self.life.get() > 0 {
            self.is_set.set(false);
        }
    }
}

/// Who repairs what a dead publisher left.
#[derive(Clone, Copy, Debug)]
enum Repair {
    /// A driver that knows the publisher's window.
    Window,
    /// One that knows nothing of publishers, after its timeout.
    Timeout,
}

/// A publisher dies after `life` stores of a batch. Readers get a prefix of the batch and then what others publish.
/// How much of the batch they got; `None` if the publisher lived to the end of it.
fn die_after(life: usize, repair: Repair, messages: &[Vec<u8>]) -> Option<usize> {
    let logs = Logs::starting_at(0);
    let other = logs.concurrent();
    other.offer(&NoWindow, b"before", &NoReservedValue, i64::MAX);
    let window = MortalWindow {
        life: &logs.life,
        claimed: Cell::new(None),
        is_set: Cell::new(false),
    };
    let mortal = ConcurrentAppender::new(logs.mortal.clone(), 2);
    logs.life.set(life);
    let outcome = mortal.offer_batch(&window, &slices(messages), i64::MAX);
    assert_eq!(outcome.accepted, messages.len());
    let survived = logs.life.get() > 0;
    other.offer(&NoWindow, b"behind", &NoReservedValue, i64::MAX);
    let (mut got, mut end) = read(&logs.log, 0);
    if survived {
        assert!(!window.is_set.get());
    } else {
        match repair {
            Repair::Window => {
                let (position, length) = window.claimed.get().unwrap();
                let occupied: usize = messages
                    .iter()
                    .map(|message| (message.len() + 32).next_multiple_of(32))
                    .sum();
                assert_eq!((position, length), (64, occupied as i64));
                assert!(pad_range(&logs.log, position, length).complete);
            }
            Repair::Timeout => {
                let padded = unblock(&logs.log, i64::from(end));
                assert!(matches!(padded, Unblock::Padded { .. } | Unblock::NotNeeded));
                assert!(matches!(
                    unblock(
                        &logs.log,
                        producer_position(logs.log.metadata(), logs.log.shape())
                    ),
                    Unblock::NotNeeded
                ));
            }
        }
        let (rest, after) = read(&logs.log, end);
        got.extend(rest);
        end = after;
    }
    assert_eq!(i64::from(end), other.position(), "the stream goes on");
    assert_eq!(got.first().unwrap(), b"before");
    assert_eq!(got.last().unwrap(), b"behind");
    let arrived = &got[1..got.len() - 1];
    assert_eq!(arrived, &messages[..arrived.len()], "a prefix of the batch");
    (!survived).then_some(arrived.len())
}

#[test]
fn whenever_a_publisher_dies_a_prefix_of_its_batch_arrives_and_the_stream_goes_on() {
    // Lengths whose payloads would pass for frame lengths, and more than one group.
    let mut messages = numbered(20, 64);
    messages.extend(numbered(70, 32));
    messages.extend(numbered(3, 500));
    for repair in [Repair::Window, Repair::Timeout] {
        let mut arrived = Vec::new();
        for life in 0.. {
            match die_after(life, repair, &messages) {
                Some(count) => arrived.push(count),
                None => break,
            }
        }
        assert!(arrived.is_sorted());
        assert_eq!(arrived.first(), Some(&0));
        arrived.dedup();
        assert!(arrived.len() > 2, "{repair:?}: groups that arrived {arrived:?}");
    }
}
