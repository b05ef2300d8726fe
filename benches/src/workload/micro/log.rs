//! Messages appended to a log and read from it, and a receiver's look for what is missing.

use std::hint::black_box;

use fulmar::bits::align;
use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, log_length};
use fulmar::log::{
    Action, AppendOutcome, BatchOutcome, ConcurrentAppender, ExclusiveAppender, FrameView, HeaderWord,
    LogBuffers, LogInit, NoReservedValue, NoWindow, scan_fragments,
};
use fulmar::memory::{AtomicBuffer, Region, View};
use fulmar::position::PARTITION_COUNT;
use fulmar::time::NanoTime;
use fulmar_media_driver::protocol::feedback_delay::FeedbackDelay;
use fulmar_media_driver::protocol::loss_detector::{LossDetector, NakScope};

use super::{Message, OPERATIONS, Work, each, write_number};
use crate::side::BenchError;
use crate::workload::BATCH;

/// Three of them stay in the caches of most processors.
const TERM_LENGTH: i32 = 128 << 10;

/// An empty log on the heap.
fn log() -> Result<LogBuffers, BenchError> {
    let init = LogInit::ipc_default(
        RegistrationId(1),
        SessionId(2),
        StreamId(3),
        TermId(4),
        TERM_LENGTH,
    );
    let length = usize::try_from(log_length(init.term_length, init.page_size))?;
    Ok(LogBuffers::initialise(Region::heap(length), &init)?)
}

/// Bytes of the frame of a message.
fn frame_length(length: usize) -> usize {
    align(length + FRAME_HEADER_LENGTH, FRAME_ALIGNMENT)
}

/// What an appender has left in its log.
struct Appended {
    log: LogBuffers,
    length: usize,
    /// Messages so far; each holds its number, from 0.
    messages: u64,
    /// Position behind the last of them, and of the last check.
    position: i64,
    checked: i64,
}

impl Appended {
    fn new(log: &LogBuffers, length: usize) -> Appended {
        Appended {
            log: log.clone(),
            length,
            messages: 0,
            position: 0,
            checked: 0,
        }
    }

    /// The stream has grown by the messages, and the last of them stands at its end.
    fn check(&mut self) -> Result<(), BenchError> {
        let frame_length = frame_length(self.length);
        let grown = self.position - self.checked;
        self.checked = self.position;
        let last = usize::try_from(self.position)?.checked_sub(frame_length);
        let last = last.ok_or("nothing was appended")?;
        let term_length = self.log.term_length() as usize;
        let slot = self
            .log
            .term(last / term_length % PARTITION_COUNT)
            .slot(last % term_length);
        let frame = FrameView::new(slot, slot.load_acquire(HeaderWord::Length));
        let frame = frame.ok_or("no frame where the last one should be")?;
        let number = frame.payload().read_u64(0);
        if frame.payload_length() == self.length
            && number == self.messages.checked_sub(1)
            && grown >= (OPERATIONS * frame_length) as i64
        {
            Ok(())
        } else {
            Err(format!("message {number:?} instead of {}, {grown} bytes", self.messages).into())
        }
    }
}

struct Append<F> {
    offer: F,
    message: Message,
    appended: Appended,
}

impl<F: FnMut(&[u8]) -> AppendOutcome> Work for Append<F> {
    fn operations(&mut self) -> u64 {
        let mut right = 0;
        while right < OPERATIONS as u64 {
            write_number(&mut self.message, self.appended.messages);
            match (self.offer)(black_box(&self.message)) {
                AppendOutcome::Appended { position } => {
                    self.appended.position = position;
                    self.appended.messages += 1;
                    right += 1;
                }
                AppendOutcome::AdminAction => {}
                _ => break,
            }
        }
        right
    }

    fn check(&mut self) -> Result<(), BenchError> {
        self.appended.check()
    }
}

pub(super) fn concurrent(length: usize) -> Result<Box<dyn Work>, BenchError> {
    let log = log()?;
    let appended = Appended::new(&log, length);
    let appender = ConcurrentAppender::new(log, 0);
    Ok(Box::new(Append {
        offer: move |message: &[u8]| {
            appender.offer(&NoWindow, message, &NoReservedValue, black_box(i64::MAX))
        },
        message: Message::new(length),
        appended,
    }))
}

pub(super) fn exclusive(length: usize) -> Result<Box<dyn Work>, BenchError> {
    let log = log()?;
    let appended = Appended::new(&log, length);
    let mut appender = ExclusiveAppender::new(log);
    Ok(Box::new(Append {
        offer: move |message: &[u8]| appender.offer(message, &NoReservedValue, black_box(i64::MAX)),
        message: Message::new(length),
        appended,
    }))
}

struct AppendBatch {
    appender: ExclusiveAppender<View>,
    /// Messages one behind the other.
    run: Message,
    appended: Appended,
}

impl Work for AppendBatch {
    fn operations(&mut self) -> u64 {
        let length = self.appended.length;
        let mut right = 0;
        for _ in 0..OPERATIONS / BATCH {
            for (message, number) in self.run.chunks_mut(length).zip(self.appended.messages..) {
                write_number(message, number);
            }
            let mut rest: &[u8] = black_box(&self.run);
            while !rest.is_empty() {
                let BatchOutcome { accepted, outcome } =
                    self.appender.offer_batch_of(rest, length, black_box(i64::MAX));
                match outcome {
                    AppendOutcome::Appended { position } => self.appended.position = position,
                    AppendOutcome::AdminAction => {}
                    _ => return right,
                }
                self.appended.messages += accepted as u64;
                right += accepted as u64;
                rest = rest.get(accepted * length..).unwrap_or_default();
            }
        }
        right
    }

    fn check(&mut self) -> Result<(), BenchError> {
        self.appended.check()
    }
}

pub(super) fn batch(length: usize) -> Result<Box<dyn Work>, BenchError> {
    let log = log()?;
    Ok(Box::new(AppendBatch {
        appended: Appended::new(&log, length),
        run: Message::new(BATCH * length),
        appender: ExclusiveAppender::new(log),
    }))
}

/// Appends so many messages with their numbers to the first term.
fn fill(length: usize, messages: usize) -> Result<LogBuffers, BenchError> {
    let log = log()?;
    let mut appender = ExclusiveAppender::new(log.clone());
    let mut message = Message::new(length);
    for number in 0..messages {
        write_number(&mut message, number as u64);
        let bytes: &[u8] = &message;
        let outcome = appender.offer(bytes, &NoReservedValue, i64::from(TERM_LENGTH));
        let position = ((number + 1) * frame_length(length)) as i64;
        if outcome != (AppendOutcome::Appended { position }) {
            return Err(format!("message {number}: {outcome:?}").into());
        }
    }
    Ok(log)
}

struct Poll {
    log: LogBuffers,
    checksum: u64,
}

impl Poll {
    /// Fragments per call.
    const LIMIT: usize = 64;
}

impl Work for Poll {
    fn operations(&mut self) -> u64 {
        let mut fragments = 0;
        for _ in 0..OPERATIONS / Self::LIMIT {
            let term = black_box(&self.log).term(0);
            let read = scan_fragments(term, 0, TERM_LENGTH, Self::LIMIT, |frame| {
                if let Some(word) = frame.payload().read_u64(0) {
                    self.checksum = self.checksum.wrapping_add(word);
                }
                Action::Continue
            });
            fragments += read.fragments as u64;
        }
        fragments
    }

    fn check(&mut self) -> Result<(), BenchError> {
        let of_one_call: u64 = (0..Self::LIMIT as u64).sum();
        let checksum = std::mem::take(&mut self.checksum);
        if checksum == of_one_call * (OPERATIONS / Self::LIMIT) as u64 {
            Ok(())
        } else {
            Err("other messages than were appended".into())
        }
    }
}

/// Fragments with the first word of their payload.
pub(super) fn poll(length: usize) -> Result<Box<dyn Work>, BenchError> {
    let log = fill(length, Poll::LIMIT)?;
    Ok(Box::new(Poll { log, checksum: 0 }))
}

/// Frames of the window that is scanned, and bytes of payload of each.
const FRAMES: usize = 120;
const FRAME_PAYLOAD: usize = 1024;

/// The first pass of a receiver over a window of [`FRAMES`], some of which are missing, one at a time: it finds every
/// gap and asks for it.
pub(super) fn gap_scan(gaps: usize) -> Result<Box<dyn Work>, BenchError> {
    let log = fill(FRAME_PAYLOAD, FRAMES)?;
    let length = frame_length(FRAME_PAYLOAD);
    // Evenly, and with frames before the first and after the last.
    let missing = |index: usize| (index + 1) * FRAMES / (gaps + 1);
    for index in 0..gaps {
        log.term(0).buffer().zero(missing(index) * length, length);
    }
    let high_water_mark = (FRAMES * length) as i64;
    let rebuild_position = if gaps == 0 {
        high_water_mark
    } else {
        (missing(0) * length) as i64
    };
    let bytes_lost = (gaps * length) as i64;
    each(move |number| {
        let mut detector = LossDetector::new(FeedbackDelay::none(), NakScope::EveryGap);
        let now = NanoTime(number as i64);
        let mut asked = 0;
        let raise = |_, _, length| asked += i64::from(length);
        let outcome = detector.on_pass(now, black_box(&log), 0, high_water_mark, raise);
        outcome.rebuild_position == rebuild_position
            && outcome.bytes_lost == bytes_lost
            && asked == bytes_lost
    })
}
