//! Logs under every interleaving and every outcome of weak memory that loom can reach. Each model has a twin with one
//! ordering taken away, which must fail: that shows that the model looks at what the ordering is for.
//!
//! Whoever looks (readers, the driver) runs in a thread that is started last: loom remembers only the last access to
//! a word, and would not try to move an early look behind a later write of a thread that has read the word itself.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p fulmar --test loom_log`
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::ops::Range;
use std::sync::{Arc, Mutex};

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::{
    Action, AppendOutcome, AppendWindow, ConcurrentAppender, FrameFields, LogBuffers, LogInit, Metadata,
    NoReservedValue, NoWindow, Unblock, Words, clean, rebuild, scan_fragments, scan_gap, unblock_guarded,
};
use fulmar::memory::{AtomicBuffer, LoomWords};
use fulmar::wire::{DataHeader, FrameType};
use loom::thread;

const TERM: usize = 2048;
const MTU: i32 = 96;
/// Bytes that a message of eight bytes occupies.
const FRAME: usize = 64;

/// The one ordering that a twin goes without.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weakened {
    Nothing,
    /// The store that commits a frame.
    Commit,
    /// Acquire loads at this offset.
    Acquire(usize),
    /// Release stores at this offset.
    Release(usize),
    /// The compare-exchange at this offset is a load and a store.
    CompareExchange(usize),
}

/// Words under the control of loom in one range of the buffer; elsewhere plain memory, which is written before the
/// threads start. Loom tracks every word of its own, so there are few of them.
#[derive(Clone)]
struct Shared {
    capacity: usize,
    hot: Range<usize>,
    words: Arc<LoomWords>,
    cold: Arc<Mutex<Vec<i64>>>,
    weakened: Weakened,
}

impl Shared {
    fn new(capacity: usize, hot: Range<usize>, weakened: Weakened) -> Shared {
        Shared {
            capacity,
            words: Arc::new(LoomWords::new(hot.len())),
            hot,
            cold: Arc::new(Mutex::new(vec![0; capacity / 8])),
            weakened,
        }
    }

    /// The offset among loom's words.
    fn hot(&self, offset: usize) -> Option<usize> {
        self.hot.contains(&offset).then(|| offset - self.hot.start)
    }

    fn cold(&self, offset: usize) -> i64 {
        self.cold.lock().unwrap()[offset / 8]
    }
}

impl AtomicBuffer for Shared {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        match self.hot(offset) {
            Some(at) => self.words.load_relaxed_i32(at),
            None => (self.cold(offset) >> (offset % 8 * 8)) as i32,
        }
    }

    fn load_acquire_i32(&self, offset: usize) -> i32 {
        match self.hot(offset) {
            Some(at) => self.words.load_acquire_i32(at),
            None => self.load_relaxed_i32(offset),
        }
    }

    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        match self.hot(offset) {
            Some(at) => self.words.store_relaxed_i32(at, value),
            None => {
                let shift = offset % 8 * 8;
                let word = &mut self.cold.lock().unwrap()[offset / 8];
                *word = (*word & !(0xffff_ffff << shift)) | (i64::from(value as u32) << shift);
            }
        }
    }

    fn store_release_i32(&self, offset: usize, value: i32) {
        match self.hot(offset) {
            Some(at) => self.words.store_release_i32(at, value),
            None => self.store_relaxed_i32(offset, value),
        }
    }

    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.words
            .compare_exchange_i32(self.hot(offset).unwrap(), current, new)
    }

    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.words.fetch_add_i32(self.hot(offset).unwrap(), delta)
    }

    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        match self.hot(offset) {
            Some(at) => self.words.load_relaxed_i64(at),
            None => self.cold(offset),
        }
    }

    fn load_acquire_i64(&self, offset: usize) -> i64 {
        match self.hot(offset) {
            Some(at) if self.weakened != Weakened::Acquire(offset) => self.words.load_acquire_i64(at),
            _ => self.load_relaxed_i64(offset),
        }
    }

    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        match self.hot(offset) {
            Some(at) => self.words.store_relaxed_i64(at, value),
            None => self.cold.lock().unwrap()[offset / 8] = value,
        }
    }

    fn store_release_i64(&self, offset: usize, value: i64) {
        let weakened = match self.weakened {
            Weakened::Commit => value as i32 > 0,
            Weakened::Release(at) => at == offset,
            _ => false,
        };
        match self.hot(offset) {
            Some(at) if !weakened => self.words.store_release_i64(at, value),
            _ => self.store_relaxed_i64(offset, value),
        }
    }

    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        if self.weakened == Weakened::CompareExchange(offset) {
            let seen = self.load_acquire_i64(offset);
            if seen != current {
                return Err(seen);
            }
            self.store_release_i64(offset, new);
            return Ok(seen);
        }
        self.words
            .compare_exchange_i64(self.hot(offset).unwrap(), current, new)
    }

    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.words.fetch_add_i64(self.hot(offset).unwrap(), delta)
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            self.store_relaxed_i64(offset + index * 8, i64::from_le_bytes(word.try_into().unwrap()));
        }
    }

    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.load_relaxed_i64(offset + index * 8).to_le_bytes());
        }
    }

    fn zero(&self, offset: usize, length: usize) {
        for at in (offset..offset + length).step_by(8) {
            self.store_relaxed_i64(at, 0);
        }
    }
}

impl Words for Shared {
    type Resolved<'a> = &'a Shared;

    fn resolve(&self) -> &Shared {
        self
    }
}

type Log = LogBuffers<Shared>;

/// A log whose terms are under loom in these ranges, starting at an offset of term 0.
fn make(start: usize, hot: [Range<usize>; 3], term: Weakened, tails: Weakened) -> Log {
    let metadata = Shared::new(4096, 0..32, tails);
    let init = LogInit {
        start_term_offset: start as i32,
        mtu_length: MTU,
        ..LogInit::ipc_default(
            RegistrationId(1),
            SessionId(7),
            StreamId(9),
            TermId(0),
            TERM as i32,
        )
    };
    init.write_to(&Metadata::new(metadata.clone()).unwrap());
    LogBuffers::from_parts(hot.map(|range| Shared::new(TERM, range, term)), metadata).unwrap()
}

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// First word of each payload from an offset of a term on, and where the frames end.
fn read(log: &Log, partition: usize, offset: usize) -> (Vec<u64>, usize) {
    let mut got = Vec::new();
    let result = scan_fragments(log.term(partition), offset as i32, i32::MAX, 10, |frame| {
        let mut bytes = [0; 8];
        assert!(frame.copy_payload(0, &mut bytes));
        assert_eq!(frame.session_id(), SessionId(7));
        assert_eq!(frame.term_offset(), frame.offset());
        got.push(u64::from_le_bytes(bytes));
        Action::Continue
    });
    assert!(!result.corrupt);
    (got, result.offset as usize)
}

fn offer_until_appended(log: Log, value: u64) -> i64 {
    let appender = ConcurrentAppender::new(log, 1);
    for _ in 0..4 {
        match appender.offer(&NoWindow, &value.to_le_bytes(), &NoReservedValue, i64::MAX) {
            AppendOutcome::Appended { position } => return position,
            AppendOutcome::AdminAction => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    panic!("a rotation takes one attempt of each publisher");
}

fn two_publishers_and_a_reader(term: Weakened) {
    check(3, move || {
        let log = make(0, [0..2 * FRAME, 0..0, 0..0], term, Weakened::Nothing);
        let publishers = [11, 22].map(|value| {
            let log = log.clone();
            thread::spawn(move || offer_until_appended(log, value))
        });
        let reader = {
            let log = log.clone();
            thread::spawn(move || read(&log, 0, 0))
        };
        let positions = publishers.map(|publisher| publisher.join().unwrap());
        let (mut got, offset) = reader.join().unwrap();
        let (rest, end) = read(&log, 0, offset);
        got.extend(rest);
        assert_eq!(end, 2 * FRAME);
        let expected = if positions[0] < positions[1] {
            [11, 22]
        } else {
            [22, 11]
        };
        assert_eq!(got, expected);
    });
}

#[test]
fn a_reader_sees_whole_frames_in_the_order_of_positions() {
    two_publishers_and_a_reader(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_frames_without_the_release_of_the_commit() {
    two_publishers_and_a_reader(Weakened::Commit);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_frames_without_the_acquire_of_the_length() {
    two_publishers_and_a_reader(Weakened::Acquire(0));
}

/// A batch of two messages, a single one, and a reader.
fn a_batch_beside_a_publisher_and_a_reader(term: Weakened) {
    check(3, move || {
        let log = make(0, [0..3 * FRAME, 0..0, 0..0], term, Weakened::Nothing);
        let batch = {
            let log = log.clone();
            thread::spawn(move || {
                let messages = [11u64, 22].map(u64::to_le_bytes);
                let messages = messages.each_ref().map(|message| &message[..]);
                let outcome = ConcurrentAppender::new(log, 1).offer_batch(&NoWindow, &messages, i64::MAX);
                assert_eq!(outcome.accepted, 2);
            })
        };
        let single = {
            let log = log.clone();
            thread::spawn(move || offer_until_appended(log, 33))
        };
        let reader = {
            let log = log.clone();
            thread::spawn(move || read(&log, 0, 0))
        };
        batch.join().unwrap();
        let is_first = single.join().unwrap() == FRAME as i64;
        let (mut got, offset) = reader.join().unwrap();
        let (rest, end) = read(&log, 0, offset);
        got.extend(rest);
        assert_eq!(end, 3 * FRAME);
        assert_eq!(got, if is_first { [33, 11, 22] } else { [11, 22, 33] });
    });
}

#[test]
fn a_reader_sees_the_whole_messages_of_a_batch_in_order() {
    a_batch_beside_a_publisher_and_a_reader(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_messages_of_a_batch_without_the_release_of_its_commit() {
    a_batch_beside_a_publisher_and_a_reader(Weakened::Commit);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_messages_of_a_batch_without_the_acquire_of_its_first_length() {
    a_batch_beside_a_publisher_and_a_reader(Weakened::Acquire(0));
}

/// A batch of two groups, and a driver that comes to the second over the first.
fn hand_over_between_groups(term: Weakened) {
    check(3, move || {
        let log = make(0, [0..3 * FRAME, 0..0, 0..0], term, Weakened::Nothing);
        let batch = {
            let log = log.clone();
            thread::spawn(move || {
                let messages = [11u64, 22, 33].map(u64::to_le_bytes);
                let messages = messages.each_ref().map(|message| &message[..]);
                ConcurrentAppender::new(log, 1).offer_batch(&NoWindow, &messages, i64::MAX)
            })
        };
        let driver = {
            let log = log.clone();
            thread::spawn(move || {
                let mut saw_hole = false;
                let first_is_committed = log.term(0).slot(0).term().load_acquire_i64(0) as i32 > 0;
                if first_is_committed {
                    let behind = 2 * FRAME as i64;
                    // About an open frame, the question is about all of it.
                    unblock_guarded(&log, behind, behind, |_, length| {
                        saw_hole |= length != FRAME as i64;
                        true
                    });
                }
                (saw_hole, read(&log, 0, 0))
            })
        };
        assert_eq!(batch.join().unwrap().accepted, 3);
        let (saw_hole, (got, end)) = driver.join().unwrap();
        assert!(!saw_hole, "a hole behind a group");
        assert!([0, 2 * FRAME, 3 * FRAME].contains(&end), "whole groups");
        assert_eq!(got, [11, 22, 33][..end / FRAME]);
        assert_eq!(read(&log, 0, 0), (vec![11, 22, 33], 3 * FRAME));
    });
}

#[test]
fn behind_a_group_of_a_batch_there_is_never_a_hole() {
    hand_over_between_groups(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_messages_of_the_second_group_without_the_release_of_its_commit() {
    hand_over_between_groups(Weakened::Commit);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_groups_without_the_acquire_of_their_first_length() {
    hand_over_between_groups(Weakened::Acquire(0));
}

/// A frame of eight bytes as it travels.
fn arrived_frame(offset: usize, value: u64) -> Vec<u8> {
    let header = DataHeader {
        frame_length: 40,
        version: 0,
        flags: 0xC0,
        frame_type: FrameType::DATA,
        term_offset: offset as i32,
        session_id: SessionId(7),
        stream_id: StreamId(9),
        term_id: TermId(0),
        reserved_value: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes.resize(FRAME, 0);
    bytes
}

/// The receiver inserts datagrams while somebody looks for gaps and reads.
fn rebuilding(datagrams: &'static [(usize, &'static [u64])], term: Weakened) {
    check(3, move || {
        let log = make(0, [0..2 * FRAME, 0..0, 0..0], term, Weakened::Nothing);
        let receiver = {
            let log = log.clone();
            thread::spawn(move || {
                for (offset, values) in datagrams {
                    let frames = values.iter().enumerate();
                    let bytes: Vec<u8> = frames
                        .flat_map(|(index, value)| arrived_frame(offset + index * FRAME, *value))
                        .collect();
                    assert!(rebuild::insert(log.term(0), *offset as i32, &bytes));
                }
            })
        };
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let rebuilt = scan_gap(log.term(0), 0, 2 * FRAME as i32).rebuild_offset;
                let (got, end) = read(&log, 0, 0);
                assert!(end >= rebuilt as usize, "what was said to have arrived is read");
                (got, end)
            })
        };
        receiver.join().unwrap();
        let (mut got, offset) = reader.join().unwrap();
        let (rest, end) = read(&log, 0, offset);
        got.extend(rest);
        assert_eq!((got, end), (vec![11, 22], 2 * FRAME));
        assert_eq!(scan_gap(log.term(0), 0, 2 * FRAME as i32).gap, None);
    });
}

/// One datagram of two frames, and two datagrams that overtook each other.
const TOGETHER: &[(usize, &[u64])] = &[(0, &[11, 22])];
const REORDERED: &[(usize, &[u64])] = &[(FRAME, &[22]), (0, &[11])];

#[test]
fn a_reader_sees_whole_frames_of_what_arrives() {
    rebuilding(TOGETHER, Weakened::Nothing);
    rebuilding(REORDERED, Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_frames_of_a_datagram_without_the_release_of_its_first_length() {
    rebuilding(TOGETHER, Weakened::Commit);
}

#[test]
#[should_panic]
fn a_reader_sees_torn_frames_of_reordered_datagrams_without_the_acquire_of_the_length() {
    rebuilding(REORDERED, Weakened::Acquire(0));
}

fn rotation_race(tails: Weakened) {
    check(3, move || {
        // Half a frame is left in term 0: both publishers run over its end.
        let start = TERM - 32;
        let log = make(start, [start..TERM, 0..2 * FRAME, 0..0], Weakened::Nothing, tails);
        let publishers = [11, 22].map(|value| {
            let log = log.clone();
            thread::spawn(move || offer_until_appended(log, value))
        });
        let [first, second] = publishers.map(|publisher| publisher.join().unwrap());
        assert_eq!(read(&log, 0, start), (vec![], TERM));
        assert_eq!(log.metadata().active_term_count_acquire(), 1);
        assert_eq!(log.metadata().tail_acquire(1), (1 << 32) + 2 * FRAME as i64);
        let expected = if first < second {
            vec![11, 22]
        } else {
            vec![22, 11]
        };
        assert_eq!(read(&log, 1, 0), (expected, 2 * FRAME));
    });
}

#[test]
fn a_log_rotates_once_however_many_publishers_run_over_its_end() {
    rotation_race(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_tail_set_without_a_compare_exchange_takes_reservations_back() {
    rotation_race(Weakened::CompareExchange(8));
}

/// The window of an owner slot.
#[derive(Clone)]
struct Window {
    words: Arc<LoomWords>,
    /// A twin sets the window only after the tail was raised.
    late: bool,
    /// A twin looks at the window without acquire order.
    blurred: bool,
}

impl Window {
    fn new(late: bool) -> Window {
        Window {
            words: Arc::new(LoomWords::new(16)),
            late,
            blurred: false,
        }
    }

    /// Whether the publisher may be at the one position that the model lets it reserve.
    fn touches(&self, range: Range<i64>) -> bool {
        let word = if self.blurred {
            self.words.load_relaxed_i64(0)
        } else {
            self.words.load_acquire_i64(0)
        };
        match word {
            0 => false,
            1 => true,
            word => range.contains(&(word & !31)),
        }
    }

    fn is_set(&self) -> bool {
        self.words.load_acquire_i64(0) != 0
    }
}

impl AppendWindow for Window {
    fn enter(&self) {
        if !self.late {
            self.words.store_relaxed_i64(0, 1);
        }
    }

    fn claimed(&self, position: i64, length: i64) {
        self.words.store_relaxed_i64(8, length);
        self.words.store_release_i64(0, position | 2);
    }

    fn leave(&self) {
        self.words.store_release_i64(0, 0);
    }
}

fn commit_against_unblock(term: Weakened, guarded: bool) {
    check(4, move || {
        let log = make(0, [0..FRAME, 0..0, 0..0], term, Weakened::Nothing);
        let window = Window::new(false);
        let claimer = {
            let (log, window) = (log.clone(), window.clone());
            let appender = ConcurrentAppender::new(log, 77);
            let claimed = appender.claim(&window, 8, i64::MAX).unwrap();
            thread::spawn(move || {
                appender.commit(&window, &claimed, &33u64.to_le_bytes(), FrameFields::default())
            })
        };
        let driver = {
            let log = log.clone();
            thread::spawn(move || unblock_guarded(&log, 0, 0, |_, _| guarded && window.is_set()))
        };
        let reader = {
            let log = log.clone();
            thread::spawn(move || read(&log, 0, 0))
        };
        let committed = claimer.join().unwrap().is_ok();
        let padded = matches!(driver.join().unwrap(), Unblock::Padded { .. });
        assert!(committed != padded, "exactly one of them has the frame");
        let (early, early_end) = reader.join().unwrap();
        let expected = if committed { vec![33] } else { vec![] };
        assert_eq!(read(&log, 0, 0), (expected.clone(), FRAME));
        assert!(early_end == 0 || early == expected);
    });
}

#[test]
fn either_the_claimer_or_the_driver_has_the_frame() {
    commit_against_unblock(Weakened::Nothing, true);
}

#[test]
#[should_panic]
fn both_have_the_frame_without_the_compare_exchange() {
    commit_against_unblock(Weakened::CompareExchange(0), true);
}

#[test]
#[should_panic]
fn a_commit_under_way_is_padded_without_a_look_at_the_window() {
    commit_against_unblock(Weakened::Nothing, false);
}

fn window_against_hole_check(late: bool, tails: Weakened) {
    check(4, move || {
        // The publisher fills the term, so the driver may take the rest of it for a hole.
        let start = TERM - FRAME;
        let log = make(start, [start..TERM, 0..0, 0..0], Weakened::Nothing, tails);
        let window = Window::new(late);
        let publisher = {
            let (log, window) = (log.clone(), window.clone());
            thread::spawn(move || {
                let appender = ConcurrentAppender::new(log, 77);
                appender.offer(&window, &44u64.to_le_bytes(), &NoReservedValue, i64::MAX)
            })
        };
        let driver = {
            let log = log.clone();
            thread::spawn(move || unblock_guarded(&log, start as i64, start as i64, |_, _| window.is_set()))
        };
        let expected = AppendOutcome::Appended {
            position: TERM as i64,
        };
        assert_eq!(publisher.join().unwrap(), expected);
        let outcome = driver.join().unwrap();
        assert!(matches!(outcome, Unblock::NotNeeded | Unblock::NotYet { .. }));
        assert_eq!(read(&log, 0, start), (vec![44], TERM));
    });
}

#[test]
fn a_living_publishers_range_is_never_taken_for_a_hole() {
    window_against_hole_check(false, Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_window_that_is_set_after_the_tail_was_raised_protects_nobody() {
    window_against_hole_check(true, Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_window_protects_nobody_without_the_acquire_of_the_tail() {
    window_against_hole_check(false, Weakened::Acquire(0));
}

/// What a driver asks the window about.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    /// The whole range that would become padding.
    Range,
    /// The start of it.
    Start,
}

fn living_publisher_inside_a_hole(question: Question, blurred: bool) {
    check(3, move || {
        // Somebody died after raising the tail; a living publisher has the rest of the term.
        let start = TERM - 2 * FRAME;
        let position = start as i64;
        let log = make(
            start,
            [start..TERM, 0..0, 0..0],
            Weakened::Nothing,
            Weakened::Nothing,
        );
        log.metadata().tail_fetch_add(0, FRAME as i64);
        let window = Window {
            blurred,
            ..Window::new(false)
        };
        let publisher = {
            let (log, window) = (log.clone(), window.clone());
            thread::spawn(move || {
                let appender = ConcurrentAppender::new(log, 77);
                appender.offer(&window, &44u64.to_le_bytes(), &NoReservedValue, i64::MAX)
            })
        };
        let driver = {
            let log = log.clone();
            thread::spawn(move || {
                unblock_guarded(&log, position, position, |at, length| {
                    let length = if question == Question::Range { length } else { 1 };
                    window.touches(at..at + length)
                })
            })
        };
        let expected = AppendOutcome::Appended {
            position: TERM as i64,
        };
        assert_eq!(publisher.join().unwrap(), expected);
        match driver.join().unwrap() {
            Unblock::Padded { length } => {
                assert_eq!(length as usize, FRAME);
                assert_eq!(read(&log, 0, start), (vec![44], TERM));
            }
            outcome => {
                assert_eq!(outcome, Unblock::NotYet { scanned_to: position });
                assert_eq!(read(&log, 0, TERM - FRAME), (vec![44], TERM));
            }
        }
        assert_eq!(log.metadata().active_term_count_acquire(), 0);
    });
}

#[test]
fn padding_never_takes_the_range_of_a_living_publisher_inside_the_hole() {
    living_publisher_inside_a_hole(Question::Range, false);
}

#[test]
#[should_panic]
fn a_question_about_the_start_of_a_hole_does_not_protect_who_is_inside() {
    living_publisher_inside_a_hole(Question::Start, false);
}

#[test]
#[should_panic]
fn a_second_look_at_the_hole_misses_frames_without_the_acquire_of_the_window() {
    living_publisher_inside_a_hole(Question::Range, true);
}

/// Somebody died after raising the tail; the payloads of the `frames` messages behind would pass for frame lengths.
fn hole_before(frames: usize, publish: impl Fn(Log) + Copy + Sync + Send + 'static, term: Weakened) {
    check(3, move || {
        let end = (1 + frames) * FRAME;
        let log = make(0, [0..end, 0..0, 0..0], term, Weakened::Nothing);
        log.metadata().tail_fetch_add(0, FRAME as i64);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || publish(log))
        };
        let driver = {
            let log = log.clone();
            thread::spawn(move || unblock_guarded(&log, 0, 0, |_, _| false))
        };
        publisher.join().unwrap();
        match driver.join().unwrap() {
            Unblock::Padded { length } => {
                assert_eq!(length as usize, FRAME);
                assert_eq!(read(&log, 0, 0), (vec![64; frames], end));
            }
            outcome => assert_eq!(outcome, Unblock::NotYet { scanned_to: 0 }),
        }
    });
}

fn hole_against_batch(term: Weakened) {
    let publish = |log| {
        let message = 64u64.to_le_bytes();
        let messages = [&message[..], &message];
        let outcome = ConcurrentAppender::new(log, 1).offer_batch(&NoWindow, &messages, i64::MAX);
        assert_eq!(outcome.accepted, 2);
    };
    hole_before(2, publish, term);
}

#[test]
fn a_hole_before_a_batch_ends_at_its_first_header() {
    hole_against_batch(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_payload_of_a_batch_is_taken_for_a_header_without_the_acquire_behind_the_hole() {
    hole_against_batch(Weakened::Acquire(FRAME + 32));
}

#[test]
#[should_panic]
fn a_hole_reaches_into_a_batch_without_the_acquire_of_its_second_length() {
    hole_against_batch(Weakened::Acquire(2 * FRAME));
}

fn hole_against_header(term: Weakened) {
    let publish = |log| assert_eq!(offer_until_appended(log, 64), 2 * FRAME as i64);
    hole_before(1, publish, term);
}

#[test]
fn a_hole_ends_at_a_header_and_never_inside_a_payload() {
    hole_against_header(Weakened::Nothing);
}

#[test]
#[should_panic]
fn a_payload_is_taken_for_a_header_without_the_acquire_behind_the_hole() {
    hole_against_header(Weakened::Acquire(FRAME + 32));
}

fn clean_against_append(limit: Weakened) {
    check(3, move || {
        // Term 0 is dirty from a round that the reader has consumed.
        let log = make(0, [0..FRAME, 0..0, 0..0], Weakened::Nothing, Weakened::Nothing);
        let dirt = log.term(0).slot(0);
        for at in (8..FRAME).step_by(8) {
            dirt.term().store_relaxed_i64(at, 0x5555);
        }
        let counter = Shared::new(8, 0..8, limit);
        let driver = {
            let (log, counter) = (log.clone(), counter.clone());
            thread::spawn(move || {
                assert_eq!(clean(&log, 0, FRAME as i64, FRAME), FRAME as i64);
                counter.store_release_i64(0, FRAME as i64);
            })
        };
        let publisher = {
            let log = log.clone();
            thread::spawn(move || {
                let limit = counter.load_acquire_i64(0);
                ConcurrentAppender::new(log, 1).offer(&NoWindow, &[], &NoReservedValue, limit)
            })
        };
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let mut reserved = None;
                let result = scan_fragments(log.term(0), 0, i32::MAX, 1, |frame| {
                    reserved = Some(frame.reserved_value());
                    Action::Continue
                });
                (reserved, result.corrupt)
            })
        };
        driver.join().unwrap();
        match publisher.join().unwrap() {
            AppendOutcome::Appended { .. } => assert_eq!(dirt.term().load_relaxed_i64(0) as i32, 32),
            outcome => assert_eq!(outcome, AppendOutcome::AtLimit { position: 0 }),
        }
        let (reserved, corrupt) = reader.join().unwrap();
        assert!(!corrupt);
        assert!(matches!(reserved, None | Some(0)));
    });
}

#[test]
fn publishers_enter_only_clean_memory() {
    clean_against_append(Weakened::Nothing);
}

#[test]
#[should_panic]
fn publishers_enter_dirty_memory_without_the_release_of_the_limit() {
    clean_against_append(Weakened::Release(0));
}

#[test]
#[should_panic]
fn publishers_enter_dirty_memory_without_the_acquire_of_the_limit() {
    clean_against_append(Weakened::Acquire(0));
}
