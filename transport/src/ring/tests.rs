//! Ring and broadcast against oracles, against the bytes of the spec, and against memory that somebody else writes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::mpsc_ring::{HEAD_OFFSET, TAIL_OFFSET, TRAILER_LENGTH};
use super::*;
use crate::memory::{AtomicBuffer, Region, View};
use crate::sync::{AtomicBool, Ordering};
use crate::time::EpochMs;

const CAPACITY: usize = 1024;

fn ring_of(capacity: usize) -> (ManyToOneRing<View>, View) {
    let view = Region::heap(capacity + TRAILER_LENGTH).as_view();
    (
        ManyToOneRing::new(view.clone()).expect("the length is right"),
        view,
    )
}

fn bytes(view: &View, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    view.copy_out(offset, &mut bytes);
    bytes
}

/// Reads everything there is, repairing on the way as the driver does; panics if that does not come to an end.
fn drain(ring: &ManyToOneRing<View>) -> Vec<(i32, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut scratch = Vec::new();
    for _ in 0..2 * ring.capacity() {
        let before = ring.consumer_position();
        let _ = ring.read(
            usize::MAX,
            |type_id, payload| {
                messages.push((type_id, payload.to_vec()));
                ReadAction::Continue
            },
            &mut scratch,
        );
        if ring.consumer_position() == before && !ring.unblock() {
            return messages;
        }
    }
    panic!("the ring does not come to rest");
}

#[test]
fn a_message_has_its_documented_bytes() {
    let (ring, view) = ring_of(CAPACITY);
    ring.write(0x04, b"hello").unwrap();
    assert_eq!(bytes(&view, 0, 16), b"\x0d\0\0\0\x04\0\0\0hello\0\0\0");
    assert_eq!(view.load_relaxed_i64(CAPACITY + 128), 16, "tail");
    assert_eq!(view.load_relaxed_i64(CAPACITY + 384), 0, "head");
    let dead = ring.claim(0x0B, 9).unwrap();
    assert_eq!(bytes(&view, 16, 8), b"\xef\xff\xff\xff\x0b\0\0\0");
    drop(dead);
    assert_eq!(bytes(&view, 16, 8), b"\x11\0\0\0\xff\xff\xff\xff");
    assert_eq!(drain(&ring), [(4, b"hello".to_vec())]);
    assert_eq!(
        bytes(&view, 0, CAPACITY),
        vec![0; CAPACITY],
        "consumed records are zeroed"
    );
    assert_eq!(view.load_relaxed_i64(CAPACITY + 384), 40, "head");
}

#[test]
fn a_record_that_does_not_fit_before_the_end_starts_at_zero_behind_padding() {
    let (ring, view) = ring_of(CAPACITY);
    let mut scratch = Vec::new();
    for _ in 0..7 {
        ring.write(1, &[1; 128]).unwrap();
    }
    assert_eq!(ring.write(1, &[1; 128]), Err(RingError::Full), "the head is at 0");
    assert_eq!(ring.read(2, |_, _| ReadAction::Continue, &mut scratch), Ok(2));
    ring.write(2, &[2; 128]).unwrap();
    assert_eq!(bytes(&view, 7 * 136, 8), b"\x48\0\0\0\xff\xff\xff\xff");
    assert_eq!(bytes(&view, 0, 8), b"\x88\0\0\0\x02\0\0\0");
    assert_eq!(view.load_relaxed_i64(CAPACITY + 128), (CAPACITY + 136) as i64);
    assert_eq!(view.load_relaxed_i64(CAPACITY + 256), 272, "head cache");
    let messages = drain(&ring);
    assert_eq!(messages.len(), 6);
    assert_eq!(messages[5], (2, vec![2; 128]));
}

#[test]
fn one_call_reads_past_wrap_padding() {
    let (ring, _view) = ring_of(CAPACITY);
    let mut scratch = Vec::new();
    for _ in 0..7 {
        ring.write(1, &[1; 128]).unwrap();
    }
    assert_eq!(ring.read(7, |_, _| ReadAction::Continue, &mut scratch), Ok(7));
    ring.write(2, &[2; 100]).unwrap();
    assert_eq!(ring.read(1, |_, _| ReadAction::Continue, &mut scratch), Ok(1));
}

#[test]
fn a_full_ring_takes_nothing_more_until_something_was_read() {
    let (ring, _view) = ring_of(CAPACITY);
    let mut written = 0;
    while ring.write(1, &[7; 56]).is_ok() {
        written += 1;
    }
    assert_eq!(written, CAPACITY / 64);
    assert_eq!(ring.write(1, &[]), Err(RingError::Full));
    let read = ring.read(1, |_, _| ReadAction::Continue, &mut Vec::new());
    assert_eq!(read, Ok(1));
    assert_eq!(ring.write(1, &[7; 56]), Ok(()));
    assert_eq!(ring.write(1, &[]), Err(RingError::Full));
}

#[test]
fn the_trailer_has_its_documented_fields() {
    let (ring, view) = ring_of(CAPACITY);
    assert_eq!(ring.next_correlation_id(), 0);
    assert_eq!(ring.next_correlation_id(), 1);
    ring.set_consumer_heartbeat(EpochMs(77));
    assert_eq!(view.load_relaxed_i64(CAPACITY + 512), 2);
    assert_eq!(view.load_relaxed_i64(CAPACITY + 640), 77);
    assert_eq!(ring.consumer_heartbeat(), EpochMs(77));
    assert_eq!(ring.max_message_length(), 128);
    assert_eq!(
        ring.write(1, &[0; 129]),
        Err(RingError::TooLong {
            length: 129,
            max_length: 128
        })
    );
}

#[test]
fn the_handler_decides_what_is_freed() {
    let (ring, view) = ring_of(CAPACITY);
    let mut scratch = Vec::new();
    for type_id in 1..=4 {
        ring.write(type_id, b"12345678").unwrap();
    }
    let mut heads = Vec::new();
    let read = ring.read(
        10,
        |type_id, _| {
            heads.push(view.load_relaxed_i64(CAPACITY + 384));
            match type_id {
                1 => ReadAction::Commit,
                3 => ReadAction::Abort,
                _ => ReadAction::Continue,
            }
        },
        &mut scratch,
    );
    assert_eq!(read, Ok(2));
    assert_eq!(heads, [0, 16, 16]);
    assert_eq!(ring.consumer_position(), 32);
    assert_eq!(ring.read(10, |_, _| ReadAction::Break, &mut scratch), Ok(1));
    assert_eq!(drain(&ring), [(4, b"12345678".to_vec())]);
}

#[test]
fn a_dead_claimer_is_known_by_its_client_id() {
    let (ring, _view) = ring_of(CAPACITY);
    ring.write(1, &7i64.to_le_bytes()).unwrap();
    let mut dead = ring.claim(2, 24).unwrap();
    dead.put(0, &42i64.to_le_bytes());
    core::mem::forget(dead);
    let mut other = ring.claim(3, 16).unwrap();
    other.put(0, &43i64.to_le_bytes());
    let mut dead = ring.claim(2, 24).unwrap();
    dead.put(0, &42i64.to_le_bytes());
    core::mem::forget(dead);
    assert!(!ring.unblock_dead(41));
    assert!(ring.unblock_dead(42));
    assert!(!ring.unblock_dead(42));
    assert_eq!(other.commit(), Ok(()));
    let types: Vec<i32> = drain(&ring).into_iter().map(|(type_id, _)| type_id).collect();
    assert_eq!(types, [1, 3]);
    assert_eq!(ring.consumer_position(), ring.producer_position());
}

#[test]
fn a_producer_whose_claim_was_taken_away_finds_out() {
    let (ring, view) = ring_of(CAPACITY);
    let late = ring.claim(5, 16).unwrap();
    assert!(ring.unblock());
    ring.write(6, b"ok").unwrap();
    assert_eq!(drain(&ring), [(6, b"ok".to_vec())]);
    assert_eq!(late.commit(), Err(RingError::Revoked));
    assert_eq!(bytes(&view, 0, CAPACITY), vec![0; CAPACITY]);
}

#[test]
fn a_hole_is_padded_once_there_is_a_record_behind_it() {
    let (ring, view) = ring_of(CAPACITY);
    view.store_release_i64(CAPACITY + TAIL_OFFSET, 40);
    assert!(!ring.unblock(), "nobody waits behind the hole");
    ring.write(9, b"behind").unwrap();
    assert!(ring.unblock());
    assert_eq!(bytes(&view, 0, 8), b"\x28\0\0\0\xff\xff\xff\xff");
    assert_eq!(drain(&ring), [(9, b"behind".to_vec())]);
}

#[test]
fn a_hole_up_to_the_end_of_the_buffer_is_padded_too() {
    let (ring, view) = ring_of(CAPACITY);
    let mut scratch = Vec::new();
    for _ in 0..7 {
        ring.write(1, &[1; 128]).unwrap();
    }
    assert_eq!(ring.read(7, |_, _| ReadAction::Continue, &mut scratch), Ok(7));
    // A producer that moved the tail over wrap padding and its record and died before writing either.
    view.store_release_i64(CAPACITY + TAIL_OFFSET, (CAPACITY + 104) as i64);
    assert!(!ring.unblock());
    ring.write(9, b"behind").unwrap();
    assert_eq!(drain(&ring), [(9, b"behind".to_vec())]);
    assert_eq!(ring.consumer_position(), ring.producer_position());
}

#[test]
fn every_length_at_the_head_is_survived_and_the_ring_goes_on() {
    let interesting = (-64..64).chain(1000..1100).chain([
        i32::MIN,
        i32::MIN + 1,
        i32::MAX,
        i32::MAX - 7,
        1 << 20,
        -(1 << 20),
        -1024,
        -1032,
    ]);
    for length in interesting {
        for type_id in [-1, 0, 1, i32::MIN] {
            let (ring, view) = ring_of(CAPACITY);
            for _ in 0..5 {
                ring.write(1, &[7; 100]).unwrap();
            }
            view.store_release_i64(0, record::header(length, type_id));
            let _ = drain(&ring);
            ring.write(0x55, b"alive").unwrap();
            let messages = drain(&ring);
            assert_eq!(
                messages.last(),
                Some(&(0x55, b"alive".to_vec())),
                "after {length} {type_id}"
            );
        }
    }
}

#[test]
fn a_message_longer_than_any_producer_writes_is_corrupt_although_there_is_room() {
    for (length, is_corrupt) in [(136, false), (137, true), (200, true), (1000, true)] {
        let (ring, view) = ring_of(CAPACITY);
        let mut scratch = Vec::new();
        for _ in 0..7 {
            ring.write(1, &[1; 128]).unwrap();
        }
        view.store_release_i32(0, length);
        let read = ring.read(1, |_, _| ReadAction::Continue, &mut scratch);
        assert_eq!(read.is_err(), is_corrupt, "length {length}");
        assert!(scratch.len() <= 128, "length {length}");
        let (mut tx, mut rx, view) = broadcast();
        for _ in 0..7 {
            tx.transmit(1, &[1; 128]).unwrap();
        }
        view.store_release_i32(0, length);
        let received = rx.receive(&mut scratch);
        assert_eq!(received == Err(Lapped::Corrupt), is_corrupt, "length {length}");
        assert!(scratch.len() <= 128, "length {length}");
    }
}

#[test]
fn an_event_that_would_reach_over_the_end_of_the_buffer_is_corrupt() {
    let (mut tx, mut rx, view) = broadcast();
    let mut scratch = Vec::new();
    for _ in 0..7 {
        tx.transmit(1, &[1; 128]).unwrap();
        assert_eq!(rx.receive(&mut scratch), Ok(Some(1)));
    }
    tx.transmit(1, &[1; 64]).unwrap();
    tx.transmit(1, &[1; 128]).unwrap();
    view.store_release_i32(7 * 136, 80);
    assert_eq!(rx.receive(&mut scratch), Err(Lapped::Corrupt));
}

/// A view on which somebody else gets his turn right after the first store or exchange of one word.
struct Interrupted<'a> {
    view: View,
    word: usize,
    turn: core::cell::RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Interrupted<'_> {
    fn stored(&self, offset: usize) {
        if offset == self.word {
            let turn = self.turn.borrow_mut().take();
            if let Some(turn) = turn {
                turn();
            }
        }
    }
}

impl AtomicBuffer for Interrupted<'_> {
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
        self.view.store_relaxed_i32(offset, value);
    }
    fn store_release_i32(&self, offset: usize, value: i32) {
        self.view.store_release_i32(offset, value);
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
        self.view.store_relaxed_i64(offset, value);
        self.stored(offset);
    }
    fn store_release_i64(&self, offset: usize, value: i64) {
        self.view.store_release_i64(offset, value);
        self.stored(offset);
    }
    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        let result = self.view.compare_exchange_i64(offset, current, new);
        self.stored(offset);
        result
    }
    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.view.fetch_add_i64(offset, delta)
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.view.copy_in(offset, bytes);
    }
    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        self.view.copy_out(offset, bytes);
    }
    fn zero(&self, offset: usize, length: usize) {
        self.view.zero(offset, length);
    }
}

#[test]
fn a_producer_that_was_stopped_anywhere_leaves_no_trace_in_space_given_back() {
    // Behind the move of the tail, behind the claim, behind the client id.
    for word in [CAPACITY + TAIL_OFFSET, 0, 8] {
        let (ring, view) = ring_of(CAPACITY);
        let driver = || {
            ring.write(2, b"behind").unwrap();
            assert_eq!(drain(&ring), [(2, b"behind".to_vec())]);
        };
        let stopped = ManyToOneRing::new(Interrupted {
            view: view.clone(),
            word,
            turn: core::cell::RefCell::new(Some(Box::new(driver))),
        })
        .unwrap();
        assert_eq!(stopped.write(1, &[1; 100]), Err(RingError::Revoked));
        assert!(
            bytes(&view, 0, CAPACITY).iter().all(|&byte| byte == 0),
            "stopped behind {word}"
        );
        assert_eq!(stopped.write(3, b"again"), Ok(()));
        assert_eq!(drain(&ring), [(3, b"again".to_vec())]);
    }
}

#[test]
fn a_corrupt_record_is_reported_with_what_was_skipped() {
    let (ring, view) = ring_of(CAPACITY);
    let mut scratch = Vec::new();
    ring.write(1, b"12345678").unwrap();
    ring.write(2, b"12345678").unwrap();
    ring.write(3, b"12345678").unwrap();
    view.store_release_i32(16, 0x7fff_fff0);
    let mut types = Vec::new();
    let read = ring.read(
        10,
        |type_id, _| {
            types.push(type_id);
            ReadAction::Continue
        },
        &mut scratch,
    );
    assert_eq!(
        read,
        Err(RingCorrupt {
            position: 16,
            length: 0x7fff_fff0,
            skipped: 32,
            messages: 1
        })
    );
    assert_eq!(types, [1]);
    assert!(scratch.capacity() < 64, "memory does not follow the length found");
    ring.write(4, b"x").unwrap();
    assert_eq!(drain(&ring), [(4, b"x".to_vec())]);
}

#[test]
fn impossible_positions_are_reset() {
    for (head, tail) in [
        (0, -8),
        (0, 1 << 40),
        (0, CAPACITY as i64),
        (16, 8),
        (4, 64),
        (0, 12),
        (i64::MIN, i64::MAX),
        (i64::MAX, i64::MIN + 7),
        (-1, -1),
    ] {
        let (ring, view) = ring_of(CAPACITY);
        ring.write(1, b"lost").unwrap();
        view.store_release_i64(CAPACITY + HEAD_OFFSET, head);
        view.store_release_i64(CAPACITY + TAIL_OFFSET, tail);
        let _ = ring.write(2, b"may fail, must return");
        let _ = drain(&ring);
        ring.write(3, b"ok").unwrap();
        assert_eq!(drain(&ring), [(3, b"ok".to_vec())], "head {head} tail {tail}");
    }
}

#[test]
fn a_tail_moved_so_far_that_nobody_can_write_is_given_back() {
    for start in [0i64, 512] {
        let (ring, view) = ring_of(CAPACITY);
        for offset in [HEAD_OFFSET, 256] {
            view.store_release_i64(CAPACITY + offset, start);
        }
        view.store_release_i64(CAPACITY + TAIL_OFFSET, start + CAPACITY as i64);
        assert_eq!(ring.write(1, b"x"), Err(RingError::Full));
        assert_eq!(drain(&ring), []);
        ring.write(1, b"x").unwrap();
        assert_eq!(drain(&ring), [(1, b"x".to_vec())]);
    }
}

#[test]
fn positions_run_through_the_end_of_their_type() {
    let (ring, view) = ring_of(CAPACITY);
    let start = i64::MAX - 2047;
    assert_eq!(start % 8, 0);
    for offset in [HEAD_OFFSET, TAIL_OFFSET, 256] {
        view.store_release_i64(CAPACITY + offset, start);
    }
    for round in 0..100u8 {
        ring.write(1, &[round; 60]).unwrap();
        assert_eq!(drain(&ring), [(1, vec![round; 60])]);
    }
    assert!(ring.producer_position() < 0);
}

#[test]
fn concurrent_producers_lose_nothing_and_keep_their_order() {
    const PRODUCERS: i32 = 4;
    const MESSAGES: u64 = 20_000;
    let (ring, _view) = ring_of(4096);
    let mut next = [0u64; PRODUCERS as usize];
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let ring = ring.clone();
            scope.spawn(move || {
                for sequence in 0..MESSAGES {
                    let mut payload = sequence.to_le_bytes().to_vec();
                    payload.resize(8 + (sequence % 90) as usize, producer as u8);
                    while ring.write(producer + 1, &payload) == Err(RingError::Full) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut scratch = Vec::new();
        let mut received = 0;
        while received < MESSAGES * PRODUCERS as u64 {
            let read = ring
                .read(
                    64,
                    |type_id, payload| {
                        let producer = (type_id - 1) as usize;
                        let (sequence, rest) = payload.split_first_chunk::<8>().unwrap();
                        assert_eq!(u64::from_le_bytes(*sequence), next[producer]);
                        assert!(rest.iter().all(|&byte| byte == producer as u8));
                        next[producer] += 1;
                        ReadAction::Continue
                    },
                    &mut scratch,
                )
                .unwrap();
            if read == 0 {
                std::thread::yield_now();
            }
            received += read as u64;
        }
    });
    assert_eq!(next, [MESSAGES; PRODUCERS as usize]);
}

#[derive(Clone, Debug)]
enum RingOp {
    Write(usize),
    /// Claims; the flag says whether it is given up (padding) or left to `UnblockDead`.
    Die(usize, i64),
    Drop(usize),
    Read(usize, usize),
    UnblockDead(i64),
}

fn ring_op() -> impl Strategy<Value = RingOp> {
    prop_oneof![
        4 => (0usize..=128).prop_map(RingOp::Write),
        1 => ((8usize..=64), 1i64..4).prop_map(|(length, client)| RingOp::Die(length, client)),
        1 => (0usize..=128).prop_map(RingOp::Drop),
        4 => (0usize..6, 0usize..5).prop_map(|(limit, stop)| RingOp::Read(limit, stop)),
        1 => (1i64..4).prop_map(RingOp::UnblockDead),
    ]
}

/// What the oracle thinks stands in the ring.
#[derive(Clone, Debug, PartialEq)]
enum Slot {
    Message(i32, Vec<u8>),
    Padding,
    Dead(i64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_ring_does_what_a_queue_does(ops in prop::collection::vec(ring_op(), 1..120)) {
        let (ring, _view) = ring_of(CAPACITY);
        let mut oracle: VecDeque<Slot> = VecDeque::new();
        let mut scratch = Vec::new();
        for (number, op) in ops.into_iter().enumerate() {
            let type_id = number as i32 + 1;
            let payload = |length: usize| (0..length).map(|at| (at + number) as u8).collect::<Vec<u8>>();
            // Whether the spec says that there is no room for a payload of this length.
            let used = ring.producer_position() - ring.consumer_position();
            let tail_index = ring.producer_position() as usize % CAPACITY;
            let head_index = ring.consumer_position() as usize % CAPACITY;
            let full = |length: usize| {
                let required = record::occupied(length + 8);
                required > CAPACITY - used as usize
                    || (required > CAPACITY - tail_index && required > head_index)
            };
            match op {
                RingOp::Write(length) => {
                    let expected = if full(length) { Err(RingError::Full) } else { Ok(()) };
                    prop_assert_eq!(ring.write(type_id, &payload(length)), expected);
                    if expected.is_ok() {
                        oracle.push_back(Slot::Message(type_id, payload(length)));
                    }
                }
                RingOp::Die(length, client) => {
                    prop_assert_eq!(ring.claim(type_id, length).map(|mut claim| {
                        claim.put(0, &client.to_le_bytes());
                        core::mem::forget(claim);
                    }).is_err(), full(length));
                    if !full(length) {
                        oracle.push_back(Slot::Dead(client));
                    }
                }
                RingOp::Drop(length) => {
                    prop_assert_eq!(ring.claim(type_id, length).is_err(), full(length));
                    if !full(length) {
                        oracle.push_back(Slot::Padding);
                    }
                }
                RingOp::Read(limit, stop) => {
                    let mut got = Vec::new();
                    let mut calls = 0;
                    let read = ring.read(limit, |type_id, bytes| {
                        calls += 1;
                        match stop {
                            1 if calls == 2 => return ReadAction::Abort,
                            2 if calls == 2 => { got.push((type_id, bytes.to_vec())); return ReadAction::Break }
                            3 => { got.push((type_id, bytes.to_vec())); return ReadAction::Commit }
                            _ => got.push((type_id, bytes.to_vec())),
                        }
                        ReadAction::Continue
                    }, &mut scratch).unwrap();
                    let limit = match stop { 1 => limit.min(1), 2 => limit.min(2), _ => limit };
                    let mut expected = Vec::new();
                    while expected.len() < limit {
                        match oracle.front() {
                            Some(Slot::Dead(_)) | None => break,
                            Some(Slot::Padding) => { oracle.pop_front(); }
                            Some(Slot::Message(..)) => {
                                let Some(Slot::Message(type_id, bytes)) = oracle.pop_front() else { unreachable!() };
                                expected.push((type_id, bytes));
                            }
                        }
                    }
                    prop_assert_eq!(read, expected.len());
                    prop_assert_eq!(got, expected);
                }
                RingOp::UnblockDead(client) => {
                    let mut any = false;
                    for slot in &mut oracle {
                        if *slot == Slot::Dead(client) {
                            *slot = Slot::Padding;
                            any = true;
                        }
                    }
                    prop_assert_eq!(ring.unblock_dead(client), any);
                }
            }
            let used = ring.producer_position() - ring.consumer_position();
            prop_assert!((0..=CAPACITY as i64).contains(&used));
        }
        for client in 1..4 {
            ring.unblock_dead(client);
        }
        let expected: Vec<_> = oracle.into_iter().filter_map(|slot| match slot {
            Slot::Message(type_id, bytes) => Some((type_id, bytes)),
            _ => None,
        }).collect();
        prop_assert_eq!(drain(&ring), expected);
    }
}

/// A store by somebody who may write anything anywhere.
#[derive(Clone, Debug)]
enum Scribble {
    Word(usize, i64),
    Half(usize, i32),
    /// At a trailer field, an offset from what stands there.
    Trailer(usize, i64),
}

fn scribble() -> impl Strategy<Value = Scribble> {
    let length = prop_oneof![any::<i32>(), -300i32..300, Just(i32::MIN), Just(i32::MAX)];
    prop_oneof![
        (any::<prop::sample::Index>(), any::<i64>())
            .prop_map(|(at, value)| Scribble::Word(at.index(CAPACITY / 8) * 8, value)),
        (any::<prop::sample::Index>(), length)
            .prop_map(|(at, value)| Scribble::Half(at.index(CAPACITY / 4) * 4, value)),
        (
            0usize..6,
            prop_oneof![any::<i64>(), -3000i64..3000, (-400i64..400).prop_map(|n| n * 8)]
        )
            .prop_map(|(field, delta)| Scribble::Trailer(field, delta)),
    ]
}

fn apply(view: &View, fields: &[usize], scribble: &Scribble) {
    match *scribble {
        Scribble::Word(at, value) => view.store_release_i64(at, value),
        Scribble::Half(at, value) => view.store_release_i32(at, value),
        Scribble::Trailer(field, delta) => {
            let at = CAPACITY + fields[field % fields.len()];
            view.store_release_i64(at, view.load_relaxed_i64(at).wrapping_add(delta));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn whatever_is_written_into_the_ring_it_neither_crashes_nor_hangs_and_recovers(
        steps in prop::collection::vec((scribble(), 0usize..=128, 0usize..4), 1..40)
    ) {
        let (ring, view) = ring_of(CAPACITY);
        let mut scratch = Vec::new();
        for (scribble, length, reads) in &steps {
            apply(&view, &[128, 256, 384, 512, 640], scribble);
            let _ = ring.write(1, &vec![3; *length]);
            for _ in 0..*reads {
                let _ = ring.read(2, |_, _| ReadAction::Continue, &mut scratch);
            }
            if *reads == 3 {
                let _ = ring.unblock();
            }
            let _ = ring.unblock_dead(0x0303_0303_0303_0303);
            prop_assert!(scratch.len() <= 128);
        }
        // With no more scribbling the driver's own repair makes the ring whole.
        let _ = drain(&ring);
        let mut attempts = 0;
        while ring.write(0x77, b"recovered").is_err() {
            let _ = drain(&ring);
            attempts += 1;
            prop_assert!(attempts < 3, "the ring does not recover");
        }
        let messages = drain(&ring);
        prop_assert_eq!(messages.last(), Some(&(0x77, b"recovered".to_vec())));
    }
}

#[test]
fn a_process_that_scribbles_all_the_time_crashes_nobody() {
    let view = Region::heap(CAPACITY + TRAILER_LENGTH).as_view();
    let ring = ManyToOneRing::new(view.clone()).unwrap();
    let (mut tx, mut rx, events) = broadcast();
    let stop = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0x9E37_79B9_7F4A_7C15u64;
            while !stop.load(Ordering::Relaxed) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let length = (state >> 40) as i32 % 2000;
                let word = record::header(length, (state >> 20) as i32 % 3 - 1);
                view.store_relaxed_i64(state as usize % (view.capacity() / 8) * 8, word);
                events.store_relaxed_i64(state as usize % (events.capacity() / 8) * 8, word);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = ring.write(1, &[1; 40]);
            }
        });
        let (mut commands, mut scratch) = (Vec::new(), Vec::new());
        for round in 0..20_000 {
            let _ = ring.read(8, |_, _| ReadAction::Continue, &mut commands);
            assert!(commands.len() <= 128);
            if round % 16 == 0 {
                let _ = ring.unblock();
                let _ = ring.unblock_dead(0x0101_0101_0101_0101);
            }
            tx.transmit(1, &[2; 100]).unwrap();
            let _ = rx.receive(&mut scratch);
            assert!(scratch.len() <= 128);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(rounds, 20_000);
}

fn broadcast() -> (BroadcastTransmitter<View>, BroadcastReceiver<View>, View) {
    let view = Region::heap(CAPACITY + broadcast_tx::TRAILER_LENGTH).as_view();
    (
        BroadcastTransmitter::new(view.clone()).expect("the length is right"),
        BroadcastReceiver::new(view.clone()).expect("the length is right"),
        view,
    )
}

#[test]
fn an_event_has_its_documented_bytes() {
    let (mut tx, mut rx, view) = broadcast();
    let mut scratch = Vec::new();
    tx.transmit(0x0F04, b"hello").unwrap();
    assert_eq!(bytes(&view, 0, 16), b"\x0d\0\0\0\x04\x0f\0\0hello\0\0\0");
    assert_eq!(bytes(&view, CAPACITY, 24), {
        let mut trailer = [0; 24];
        trailer[0] = 16;
        trailer[8] = 16;
        trailer
    });
    assert_eq!(rx.receive(&mut scratch), Ok(Some(0x0F04)));
    assert_eq!(scratch, b"hello");
    assert_eq!(rx.receive(&mut scratch), Ok(None));
    for _ in 0..7 {
        tx.transmit(1, &[1; 128]).unwrap();
    }
    assert_eq!(view.load_relaxed_i64(CAPACITY + 16), 16 + 6 * 136, "latest");
    tx.transmit(2, &[2; 56]).unwrap();
    assert_eq!(bytes(&view, 16 + 7 * 136, 8), b"\x38\0\0\0\xff\xff\xff\xff");
    assert_eq!(bytes(&view, 0, 8), b"\x40\0\0\0\x02\0\0\0");
    for offset in [0, 8] {
        assert_eq!(view.load_relaxed_i64(CAPACITY + offset), (CAPACITY + 64) as i64);
    }
    assert_eq!(view.load_relaxed_i64(CAPACITY + 16), CAPACITY as i64);
}

#[test]
fn a_receiver_starts_behind_what_was_sent_before_it() {
    let (mut tx, _rx, view) = broadcast();
    let mut scratch = Vec::new();
    tx.transmit(1, b"old").unwrap();
    let mut late = BroadcastReceiver::new(view.clone()).unwrap();
    assert_eq!(late.receive(&mut scratch), Ok(None));
    // A transmitter that takes over goes on where the last one stopped.
    let mut tx = BroadcastTransmitter::new(view).unwrap();
    tx.transmit(2, b"new").unwrap();
    assert_eq!(late.receive(&mut scratch), Ok(Some(2)));
    assert_eq!(scratch, b"new");
}

#[test]
fn a_stopped_receiver_learns_that_it_was_lapped_and_can_go_on() {
    let (mut tx, mut rx, _view) = broadcast();
    let mut scratch = Vec::new();
    for _ in 0..100 {
        tx.transmit(1, &[1; 100]).unwrap();
    }
    assert_eq!(rx.receive(&mut scratch), Err(Lapped::Overrun));
    assert_eq!(rx.lapped_count(), 1);
    tx.transmit(2, b"next").unwrap();
    assert_eq!(rx.receive(&mut scratch), Ok(Some(2)));
    assert_eq!(scratch, b"next");
    assert_eq!(
        tx.transmit(1, &[0; 129]),
        Err(RingError::TooLong {
            length: 129,
            max_length: 128
        })
    );
}

#[test]
fn every_length_in_the_broadcast_is_survived() {
    for length in (-64..64).chain([i32::MIN, i32::MAX, 137, 1 << 20, 1024, 1023]) {
        for type_id in [-1, 0, 1] {
            let (mut tx, mut rx, view) = broadcast();
            let mut scratch = Vec::new();
            tx.transmit(1, b"12345678").unwrap();
            view.store_release_i64(0, record::header(length, type_id));
            let _ = rx.receive(&mut scratch);
            assert!(scratch.len() <= 128);
            for _ in 0..200 {
                if rx.receive(&mut scratch) == Ok(None) {
                    break;
                }
            }
            tx.transmit(2, b"alive").unwrap();
            assert_eq!(rx.receive(&mut scratch), Ok(Some(2)), "after {length} {type_id}");
            assert_eq!(scratch, b"alive");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_receiver_gets_every_event_or_learns_that_it_did_not(
        steps in prop::collection::vec((0usize..=128, 0usize..3), 1..200)
    ) {
        let (mut tx, mut rx, view) = broadcast();
        let mut scratch = Vec::new();
        // Every event sent and not received, with the position of its first byte, wrap padding in front included.
        let mut pending: VecDeque<(i32, Vec<u8>, i64)> = VecDeque::new();
        for (number, (length, receives)) in steps.into_iter().enumerate() {
            let type_id = number as i32 + 1;
            let payload: Vec<u8> = (0..length).map(|at| (at * 3 + number) as u8).collect();
            let start = view.load_relaxed_i64(CAPACITY + 8);
            tx.transmit(type_id, &payload).unwrap();
            let tail = view.load_relaxed_i64(CAPACITY + 8);
            pending.push_back((type_id, payload, start));
            for _ in 0..receives {
                let received = rx.receive(&mut scratch);
                match pending.front() {
                    None => prop_assert_eq!(received, Ok(None)),
                    Some((_, _, start)) if start + CAPACITY as i64 <= tail => {
                        prop_assert_eq!(received, Err(Lapped::Overrun));
                        pending.clear();
                    }
                    Some((type_id, payload, _)) => {
                        prop_assert_eq!(received, Ok(Some(*type_id)));
                        prop_assert_eq!(&scratch, payload);
                        pending.pop_front();
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_is_written_into_the_broadcast_it_neither_crashes_nor_hangs_and_recovers(
        steps in prop::collection::vec((scribble(), 0usize..=128, 0usize..4), 1..40)
    ) {
        let (mut tx, mut rx, view) = broadcast();
        let mut scratch = Vec::new();
        for (scribble, length, receives) in &steps {
            apply(&view, &[0, 8, 16], scribble);
            // Before the transmitter mends the trailer, and after.
            for _ in 0..2 {
                let _ = rx.receive(&mut scratch);
            }
            tx.transmit(1, &vec![3; *length]).unwrap();
            for _ in 0..*receives {
                let _ = rx.receive(&mut scratch);
                prop_assert!(scratch.len() <= 128);
            }
        }
        // One transmission mends the trailer, and one error is all that the receiver needs to be behind the tail again.
        tx.transmit(2, b"12345678").unwrap();
        while let Ok(Some(_)) = rx.receive(&mut scratch) {}
        tx.transmit(3, b"again").unwrap();
        let _ = rx.receive(&mut scratch);
        tx.transmit(4, b"and on").unwrap();
        prop_assert_eq!(rx.receive(&mut scratch), Ok(Some(4)));
        let mut fresh = BroadcastReceiver::new(view).unwrap();
        tx.transmit(3, b"recovered").unwrap();
        prop_assert_eq!(fresh.receive(&mut scratch), Ok(Some(3)));
        prop_assert_eq!(&scratch, b"recovered");
    }
}
