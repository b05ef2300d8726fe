//! Logs on real threads: every accepted message arrives once, in the order of each publisher, over many rotations,
//! with claims, aborts, and publishers that the driver takes for dead while they are not.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::thread;

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::frame::{FLAG_BEGIN, FLAG_END};
use fulmar::log::{
    Action, AppendOutcome, AppendWindow, CommitError, ConcurrentAppender, FrameFields, LogBuffers, LogInit,
    NoReservedValue, clean, producer_position, scan_fragments, sweep,
};
use fulmar::memory::{AtomicBuffer, Region, View};
use fulmar::sync::{AtomicBool, Ordering};

const TERM: i32 = 65536;
const PUBLISHERS: usize = 3;
const MESSAGES: u64 = 100_000;

/// The window of an owner slot.
struct Window(View);

impl Window {
    fn is_set(&self) -> bool {
        self.0.load_acquire_i64(0) != 0
    }
}

impl AppendWindow for Window {
    fn enter(&self) {
        self.0.store_release_i64(0, 1);
    }
    fn claimed(&self, position: i64, length: i64) {
        self.0.store_relaxed_i64(8, length);
        self.0.store_release_i64(0, position | 2);
    }
    fn leave(&self) {
        self.0.store_release_i64(0, 0);
    }
}

/// Publisher, sequence number, and bytes that follow from them.
fn message(publisher: usize, sequence: u64) -> Vec<u8> {
    let length = match sequence % 50 {
        0 => 5000,
        n => 16 + (n as usize * 7) % 200,
    };
    let mut bytes = vec![sequence as u8 ^ publisher as u8; length];
    bytes[..8].copy_from_slice(&(publisher as u64).to_le_bytes());
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes
}

struct Published {
    /// Sequence numbers that were accepted, in order.
    accepted: Vec<u64>,
    revoked: usize,
}

/// Publishes by turns of offers, commits and aborts until all is accepted, aborted or revoked.
fn publish(log: LogBuffers, window: &Window, limit: &View, publisher: usize) -> Published {
    let appender = ConcurrentAppender::new(log, publisher as i64 + 1);
    let mut done = Published {
        accepted: Vec::new(),
        revoked: 0,
    };
    let mut sequence = 0;
    while sequence < MESSAGES {
        let bytes = message(publisher, sequence);
        let allowed = limit.load_acquire_i64(0);
        let outcome = if sequence % 3 == 0 && bytes.len() < 1000 {
            match appender.claim(window, bytes.len(), allowed) {
                Ok(claim) => {
                    if sequence % 64 == 0 {
                        thread::yield_now();
                    }
                    let result = if sequence % 7 == 0 {
                        appender.abort(window, &claim).map(|()| false)
                    } else {
                        appender
                            .commit(window, &claim, &bytes, FrameFields::default())
                            .map(|_| true)
                    };
                    match result {
                        Ok(true) => done.accepted.push(sequence),
                        Ok(false) => {}
                        Err(CommitError::ClaimRevoked) => done.revoked += 1,
                    }
                    sequence += 1;
                    continue;
                }
                Err(outcome) => outcome,
            }
        } else {
            appender.offer(window, &bytes[..], &NoReservedValue, allowed)
        };
        match outcome {
            AppendOutcome::Appended { .. } => {
                done.accepted.push(sequence);
                sequence += 1;
            }
            AppendOutcome::AdminAction => {}
            AppendOutcome::AtLimit { .. } => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    done
}

/// Reads, cleans and raises the limit, as subscriber and driver together; every now and then takes the first
/// publisher for dead and pads its claims. Returns the sequence numbers of each publisher.
fn consume(
    log: &LogBuffers,
    windows: &[Window],
    limit: &View,
    finished: &AtomicBool,
) -> [Vec<u64>; PUBLISHERS] {
    let shape = log.shape();
    let mut got = [const { Vec::new() }; PUBLISHERS];
    let mut position = 0;
    let mut cleaned = 0;
    let mut partial = Vec::new();
    let mut turn = 0u64;
    loop {
        let was_finished = finished.load(Ordering::Acquire);
        let offset = shape.offset(position);
        let result = scan_fragments(
            log.term(shape.partition(position)),
            offset,
            i32::MAX,
            50,
            |frame| {
                if frame.flags() & FLAG_BEGIN != 0 {
                    partial.clear();
                }
                frame.payload().append_to(&mut partial);
                if frame.flags() & FLAG_END != 0 {
                    let publisher = u64::from_le_bytes(partial[..8].try_into().unwrap()) as usize;
                    let sequence = u64::from_le_bytes(partial[8..16].try_into().unwrap());
                    assert_eq!(partial, message(publisher, sequence));
                    got[publisher].push(sequence);
                }
                Action::Continue
            },
        );
        assert!(!result.corrupt);
        position += i64::from(result.offset - offset);
        while cleaned < position {
            cleaned = clean(log, cleaned, position, 4096);
        }
        limit.store_release_i64(0, position + i64::from(TERM / 2));
        turn += 1;
        if turn.is_multiple_of(16) && !windows[0].is_set() {
            let producer = producer_position(log.metadata(), shape);
            let _ = sweep(log, position, producer, |tag| tag == 1, 10_000);
        }
        if was_finished && position == producer_position(log.metadata(), shape) {
            return got;
        }
        if result.fragments == 0 {
            thread::yield_now();
        }
    }
}

#[test]
fn every_accepted_message_arrives_once_and_in_the_order_of_its_publisher() {
    let init = LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(-5), TERM);
    let region = Region::heap(log_length(TERM, 4096) as usize);
    let log = LogBuffers::initialise(region, &init).unwrap();
    let windows: Vec<Window> = (0..PUBLISHERS)
        .map(|_| Window(Region::heap(128).as_view()))
        .collect();
    let limit = Region::heap(128).as_view();
    let finished = AtomicBool::new(false);
    let (published, got) = thread::scope(|scope| {
        let publishers: Vec<_> = windows
            .iter()
            .enumerate()
            .map(|(publisher, window)| {
                let (log, limit) = (log.clone(), &limit);
                scope.spawn(move || publish(log, window, limit, publisher))
            })
            .collect();
        let consumer = scope.spawn(|| consume(&log, &windows, &limit, &finished));
        let published: Vec<Published> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
        finished.store(true, Ordering::Release);
        (published, consumer.join().unwrap())
    });
    for (publisher, done) in published.iter().enumerate() {
        assert_eq!(got[publisher], done.accepted);
        assert!(publisher == 0 || done.revoked == 0);
    }
    assert!(log.metadata().active_term_count_acquire() > 300);
}
