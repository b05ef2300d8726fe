//! Publishers and readers in the test's own process. Every message is made from its number, so that a reader knows
//! what must come next: in order, once, and with the right bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fulmar::client::{Client, ImageHandlers, Offer, Publication, Subscription};
use fulmar::sync::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use fulmar::time::{NanoTime, SystemClock};

use crate::driver::Driver;

/// How long anything may take: it only bounds how long a failure takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Sleeps; for polling what others do.
#[expect(
    clippy::disallowed_methods,
    reason = "tests wait for other threads and processes"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Polls until `ready`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = SystemClock.nanos() + PATIENCE;
    while !ready() {
        assert!(!deadline.is_due(SystemClock.nanos()), "did not happen: {what}");
        pause(Duration::from_millis(2));
    }
}

/// Polls until `ready` for at most `limit`; whether it was.
pub(crate) fn within(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = SystemClock.nanos() + limit;
    loop {
        if ready() {
            return true;
        }
        if deadline.is_due(SystemClock.nanos()) {
            return false;
        }
        pause(Duration::from_millis(2));
    }
}

/// A thread of the test.
#[expect(clippy::disallowed_methods, reason = "the actors of a test run side by side")]
fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(run)
}

/// Bytes of message `number`: mostly a part of a datagram, every sixteenth several of them.
pub(crate) fn length_of(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let longest = if number % 16 == 7 { 9000 } else { 1376 };
    usize::try_from(mixed % longest).expect("small") + 8
}

/// Writes message `number`: its number and bytes that depend on it.
pub(crate) fn write_message(message: &mut Vec<u8>, number: u64) {
    message.clear();
    message.extend_from_slice(&number.to_le_bytes());
    let length = length_of(number);
    let mut state = number ^ 0x5851_f42d_4c95_7f2d;
    while message.len() < length {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        message.extend_from_slice(&(state >> 16).to_le_bytes());
    }
    message.truncate(length);
}

/// Offers messages on a thread of its own.
pub(crate) struct Publisher {
    shared: Arc<PublisherShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct PublisherShared {
    accepted: AtomicU64,
    position: AtomicI64,
    /// Offers that found no subscriber.
    unconnected: AtomicU64,
    stop: AtomicBool,
    ended: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Publisher {
    /// Offers `count` messages, waiting out back pressure and missing subscribers; `pause_after` the sleep after each.
    pub(crate) fn start(publication: Publication, count: u64, pause_after: Duration) -> Publisher {
        let shared = Arc::new(PublisherShared::default());
        let mine = Arc::clone(&shared);
        let thread = spawn(move || {
            publish(&publication, count, pause_after, &mine);
            mine.ended.store(true, Ordering::Release);
            // The publication stays until the test has seen what it wants to see.
            while !mine.stop.load(Ordering::Acquire) {
                pause(Duration::from_millis(1));
            }
        });
        Publisher {
            shared,
            thread: Some(thread),
        }
    }

    /// Messages accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Position after the last accepted message.
    pub(crate) fn position(&self) -> i64 {
        self.shared.position.load(Ordering::Acquire)
    }

    /// How often an offer found no subscriber.
    pub(crate) fn unconnected(&self) -> u64 {
        self.shared.unconnected.load(Ordering::Acquire)
    }

    /// Waits until everything is accepted.
    #[track_caller]
    pub(crate) fn finish(&self) {
        eventually("everything is accepted by the publication", || {
            self.shared.ended.load(Ordering::Acquire)
        });
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*failure, None);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn publish(publication: &Publication, count: u64, pause_after: Duration, shared: &PublisherShared) {
    let mut message = Vec::new();
    for number in 0..count {
        write_message(&mut message, number);
        loop {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            match publication.offer(&message) {
                Offer::Position(position) => {
                    shared.position.store(position, Ordering::Release);
                    break;
                }
                Offer::BackPressured => pause(Duration::from_micros(200)),
                Offer::AdminAction => {}
                Offer::NotConnected => {
                    shared.unconnected.fetch_add(1, Ordering::AcqRel);
                    pause(Duration::from_millis(1));
                }
                other => {
                    let mut failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    *failure = Some(format!("offer {number}: {other:?}"));
                    return;
                }
            }
        }
        shared.accepted.store(number + 1, Ordering::Release);
        if !pause_after.is_zero() {
            pause(pause_after);
        }
    }
}

/// What a reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Message 0, 1, 2, and so on.
    Everything,
    /// Any message that is later than the one before: a subscriber that a flow control does not wait for may lose its
    /// image and join again.
    Later,
}

/// Reads and checks on a thread of its own.
pub(crate) struct Reader {
    shared: Arc<ReaderShared>,
    thread: Option<JoinHandle<()>>,
}

struct ReaderShared {
    received: AtomicU64,
    /// The number of the last message, plus one.
    next: AtomicU64,
    position: AtomicI64,
    available: AtomicU32,
    unavailable: AtomicU32,
    /// Sleep between polls of one fragment, in microseconds; 0 reads as fast as possible.
    pace_us: AtomicU64,
    stop: AtomicBool,
    closed: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Reader {
    /// Subscribes and reads.
    pub(crate) fn start(client: &Client, channel: &str, stream: i32, expect: Expect) -> Reader {
        let shared = Arc::new(ReaderShared {
            received: AtomicU64::new(0),
            next: AtomicU64::new(0),
            position: AtomicI64::new(0),
            available: AtomicU32::new(0),
            unavailable: AtomicU32::new(0),
            pace_us: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let (available, unavailable) = (Arc::clone(&shared), Arc::clone(&shared));
        let handlers = ImageHandlers {
            on_available: Some(Box::new(move |_| {
                available.available.fetch_add(1, Ordering::AcqRel);
            })),
            on_unavailable: Some(Box::new(move |_| {
                unavailable.unavailable.fetch_add(1, Ordering::AcqRel);
            })),
        };
        let subscription = client
            .add_subscription_with(channel, stream, handlers)
            .unwrap_or_else(|error| panic!("{channel}: {error}"));
        let mine = Arc::clone(&shared);
        let thread = spawn(move || read(subscription, expect, &mine));
        Reader {
            shared,
            thread: Some(thread),
        }
    }

    /// Reads one fragment, then sleeps for `pace`; zero reads as fast as possible again.
    pub(crate) fn slow_down(&self, pace: Duration) {
        let micros = u64::try_from(pace.as_micros()).expect("short");
        self.shared.pace_us.store(micros, Ordering::Release);
    }

    /// Messages so far.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }

    /// The number after that of the last message.
    pub(crate) fn next(&self) -> u64 {
        self.shared.next.load(Ordering::Acquire)
    }

    /// Position after the last message.
    pub(crate) fn position(&self) -> i64 {
        self.shared.position.load(Ordering::Acquire)
    }

    /// Images that came.
    pub(crate) fn available(&self) -> u32 {
        self.shared.available.load(Ordering::Acquire)
    }

    /// Images that went.
    pub(crate) fn unavailable(&self) -> u32 {
        self.shared.unavailable.load(Ordering::Acquire)
    }

    /// Waits until message `count - 1` was read.
    #[track_caller]
    pub(crate) fn await_next(&self, count: u64) {
        let deadline = SystemClock.nanos() + PATIENCE;
        while self.next() < count {
            self.check();
            assert!(
                !deadline.is_due(SystemClock.nanos()),
                "read {} of {count} messages, {} images came and {} went",
                self.next(),
                self.available(),
                self.unavailable()
            );
            pause(Duration::from_millis(1));
        }
        self.check();
    }

    /// Fails if a message was wrong.
    #[track_caller]
    pub(crate) fn check(&self) {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*failure, None);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(mut subscription: Subscription, expect: Expect, shared: &ReaderShared) {
    let mut expected = Vec::new();
    let mut message = Vec::new();
    while !shared.stop.load(Ordering::Acquire) {
        let pace = shared.pace_us.load(Ordering::Acquire);
        let limit = if pace > 0 { 1 } else { 64 };
        let fragments = subscription.poll(
            |payload, header| {
                message.clear();
                payload.append_to(&mut message);
                if let Err(error) = check(&message, &mut expected, expect, shared) {
                    let mut failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(format!("at position {}: {error}", header.position()));
                }
                shared.position.store(header.position(), Ordering::Release);
            },
            limit,
        );
        if pace > 0 {
            pause(Duration::from_micros(pace));
        } else if fragments == 0 {
            pause(Duration::from_micros(200));
        }
        if subscription.is_closed() {
            shared.closed.store(true, Ordering::Release);
        }
    }
}

fn check(
    message: &[u8],
    expected: &mut Vec<u8>,
    expect: Expect,
    shared: &ReaderShared,
) -> Result<(), String> {
    let next = shared.next.load(Ordering::Acquire);
    let number = message
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(|| format!("a message of {} bytes", message.len()))?;
    shared.received.fetch_add(1, Ordering::AcqRel);
    shared.next.store(number.saturating_add(1), Ordering::Release);
    let is_expected = match expect {
        Expect::Everything => number == next,
        Expect::Later => number >= next,
    };
    if !is_expected {
        return Err(format!("message {number} came when {next} was expected"));
    }
    write_message(expected, number);
    if expected == message {
        Ok(())
    } else {
        Err(format!("message {number} has wrong content"))
    }
}

/// Watches the positions of drivers on a thread of its own: none may go back, whatever happens.
pub(crate) struct PositionWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl PositionWatch {
    /// Watches the counters of these drivers.
    #[expect(clippy::disallowed_methods, reason = "the actors of a test run side by side")]
    pub(crate) fn start(drivers: &[&Driver]) -> PositionWatch {
        use std::collections::BTreeMap;

        use fulmar::counters::type_id::{
            PUBLISHER_POSITION, RECEIVER_HIGH_WATER_MARK, RECEIVER_POSITION, SENDER_POSITION,
            SUBSCRIBER_POSITION,
        };
        let files: Vec<_> = drivers.iter().map(|driver| driver.cnc()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut last = BTreeMap::new();
            let mut faults = Vec::new();
            while !ends.load(Ordering::Acquire) {
                for (driver, cnc) in files.iter().enumerate() {
                    cnc.counters().for_each(|record| {
                        if !matches!(
                            record.type_id,
                            SENDER_POSITION
                                | RECEIVER_HIGH_WATER_MARK
                                | SUBSCRIBER_POSITION
                                | RECEIVER_POSITION
                                | PUBLISHER_POSITION
                        ) {
                            return;
                        }
                        let counter = (driver, record.id, record.registration_id, record.reference_id);
                        let before = last.insert(counter, record.value);
                        if let Some(before) = before
                            && before > record.value
                        {
                            faults.push(format!("{}: {before}, then {}", record.label, record.value));
                        }
                    });
                }
                pause(Duration::from_millis(2));
            }
            faults
        });
        PositionWatch {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends, and fails if a position went back.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("finished once");
        let faults = thread.join().expect("no panic");
        assert_eq!(faults, Vec::<String>::new(), "positions that went back");
    }
}

impl Drop for PositionWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Milliseconds since `start`.
pub(crate) fn millis_since(start: NanoTime) -> i64 {
    SystemClock.nanos().since(start) / 1_000_000
}
