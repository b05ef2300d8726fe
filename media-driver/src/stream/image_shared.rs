//! What the receiver's and the conductor's half of an image tell each other. Every field has one writer, but for what one
//! half leaves for the other to take away: a queue of gaps and two flags.
//!
//! Counters in the CnC file can be written by any client, so positions that decisions depend on are kept here; the
//! counters only show them.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use crossbeam_queue::ArrayQueue;
use fulmar::id::{SessionId, TermId};
use fulmar::memory::{Handoff, View};
use fulmar::sync::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use fulmar::time::NanoTime;

/// Gaps that wait for the receiver at a time; more are dropped, and raised again when their timers say so.
pub const GAPS_MAX: usize = 32;

/// Lost data: one range of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The term.
    pub term_id: TermId,
    /// Where the gap begins, bytes into the term.
    pub term_offset: i32,
    /// Its length, bytes.
    pub length: i32,
}

/// What the next status message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextStatusMessage {
    /// The consumption position.
    pub position: i64,
    /// Bytes that the sender may be beyond it.
    pub window: i32,
}

/// An image that its subscriber rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The subscriber's reason, at most 1023 bytes.
    pub reason: Box<[u8]>,
}

/// The part of an image that both agents hold.
#[derive(Debug)]
#[repr(C)]
pub struct ImageShared {
    by_conductor: ByConductor,
    by_receiver: ByReceiver,
}

/// Written by the conductor. The receiver takes gaps out of the queue and takes back `status_message_is_due` and
/// `rtt_is_wanted`, once each time they were left here.
#[derive(Debug)]
#[repr(align(128))]
struct ByConductor {
    /// Counts what was left here for the receiver.
    attention: AtomicI64,
    next_status_message: Handoff<View, 2>,
    gaps: ArrayQueue<Gap>,
    is_sending_end_of_stream: AtomicBool,
    is_superseded: AtomicBool,
    status_message_is_due: AtomicBool,
    rtt_is_wanted: AtomicBool,
    /// `i64::MIN`: none; otherwise a session id.
    response_session_id: AtomicI64,
    rejection: OnceLock<Rejection>,
}

/// Written by the receiver.
#[derive(Debug)]
#[repr(align(128))]
struct ByReceiver {
    high_water_mark: AtomicI64,
    time_of_last_packet: AtomicI64,
    end_of_stream_position: AtomicI64,
    is_revoked: AtomicBool,
    active_transports: AtomicUsize,
    rtt: Handoff<View, 1>,
}

const NO_SESSION: i64 = i64::MIN;

// What the conductor writes in every pass and what the receiver does never share a pair of cache lines, which processors
// fetch together. What the receiver takes back of the conductor's is rare.
const _: () = assert!(size_of::<ByConductor>().is_multiple_of(128) && size_of::<ByReceiver>() == 128);
const _: () = assert!(core::mem::offset_of!(ImageShared, by_receiver).is_multiple_of(128));

impl ImageShared {
    /// An image that joins at `position`, now. Its first status message is due at once.
    #[must_use]
    pub fn new(now: NanoTime, position: i64, window: i32) -> Self {
        let by_conductor = ByConductor {
            attention: AtomicI64::new(0),
            next_status_message: Handoff::heap(),
            gaps: ArrayQueue::new(GAPS_MAX),
            is_sending_end_of_stream: AtomicBool::new(false),
            is_superseded: AtomicBool::new(false),
            status_message_is_due: AtomicBool::new(false),
            rtt_is_wanted: AtomicBool::new(false),
            response_session_id: AtomicI64::new(NO_SESSION),
            rejection: OnceLock::new(),
        };
        let by_receiver = ByReceiver {
            high_water_mark: AtomicI64::new(position),
            time_of_last_packet: AtomicI64::new(now.0),
            end_of_stream_position: AtomicI64::new(i64::MAX),
            is_revoked: AtomicBool::new(false),
            active_transports: AtomicUsize::new(1),
            rtt: Handoff::heap(),
        };
        let shared = Self {
            by_conductor,
            by_receiver,
        };
        shared.schedule(NextStatusMessage { position, window });
        shared
    }

    // The conductor's side.

    /// Has the receiver look at what was left here: until then it looks at nothing else of an image at rest.
    fn call(&self) {
        // SYNC image-attention: what it is called for was stored before. There is one writer.
        let calls = self
            .by_conductor
            .attention
            .load(Ordering::Relaxed)
            .wrapping_add(1);
        self.by_conductor.attention.store(calls, Ordering::Release);
    }

    /// Schedules a status message.
    pub fn schedule(&self, next: NextStatusMessage) {
        self.by_conductor
            .next_status_message
            .write([next.position, i64::from(next.window)]);
        self.call();
    }

    /// Hands a gap over; `false` when too many wait.
    pub fn raise_gap(&self, gap: Gap) -> bool {
        let is_taken = self.by_conductor.gaps.push(gap).is_ok();
        self.call();
        is_taken
    }

    /// From now on status messages say that the receiver leaves.
    pub fn start_sending_end_of_stream(&self) {
        self.by_conductor
            .is_sending_end_of_stream
            .store(true, Ordering::Release);
    }

    /// A new image of the same session exists: this one sends nothing more by itself.
    pub fn supersede(&self) {
        self.by_conductor.is_superseded.store(true, Ordering::Release);
    }

    /// The next status message goes out as if its timer had expired.
    pub fn expire_status_message_timer(&self) {
        // SYNC image-sm-due: whatever the message is to say was stored before.
        self.by_conductor
            .status_message_is_due
            .store(true, Ordering::Release);
        self.call();
    }

    /// Asks for a round trip to be measured.
    pub fn request_rtt(&self) {
        self.by_conductor.rtt_is_wanted.store(true, Ordering::Release);
        self.call();
    }

    /// The session that answers this stream, or that it is connected and need not be announced any more.
    pub fn set_response_session(&self, session_id: Option<SessionId>) {
        let value = session_id.map_or(NO_SESSION, |session_id| i64::from(session_id.0));
        // SYNC image-response-session: a single word.
        self.by_conductor
            .response_session_id
            .store(value, Ordering::Release);
    }

    /// Rejects the image; only the first rejection counts.
    pub fn reject(&self, rejection: Rejection) {
        let _ = self.by_conductor.rejection.set(rejection);
        self.call();
    }

    /// Whether it was rejected.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.by_conductor.rejection.get().is_some()
    }

    /// How far data or heartbeats have come.
    #[must_use]
    pub fn high_water_mark(&self) -> i64 {
        // SYNC image-hwm: frames that raised it are in the log.
        self.by_receiver.high_water_mark.load(Ordering::Acquire)
    }

    /// When something acceptable came last.
    #[must_use]
    pub fn time_of_last_packet(&self) -> NanoTime {
        NanoTime(self.by_receiver.time_of_last_packet.load(Ordering::Acquire))
    }

    /// Where the stream ends, once its sources said so.
    #[must_use]
    pub fn end_of_stream_position(&self) -> Option<i64> {
        // SYNC image-eos: whether it was revoked is known with it.
        let position = self.by_receiver.end_of_stream_position.load(Ordering::Acquire);
        (position != i64::MAX).then_some(position)
    }

    /// Whether the end of the stream came with a revocation.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.by_receiver.is_revoked.load(Ordering::Acquire)
    }

    /// Sources heard of lately.
    #[must_use]
    pub fn active_transports(&self) -> usize {
        self.by_receiver.active_transports.load(Ordering::Relaxed)
    }

    /// How long the latest round trip took, nanoseconds, unless it is of version `seen`; with its version.
    #[must_use]
    pub fn rtt_after(&self, seen: i64) -> Option<(i64, i64)> {
        let handed = self.by_receiver.rtt.read_after(seen)?;
        let [rtt_ns] = handed.words;
        Some((handed.version, rtt_ns))
    }

    // The receiver's side.

    /// How often it was called. Whatever is left here later changes this.
    #[inline]
    pub(crate) fn attention(&self) -> i64 {
        // SYNC image-attention: what was left for the receiver before is seen.
        self.by_conductor.attention.load(Ordering::Acquire)
    }

    /// The scheduled status message, unless it is of version `seen`; with its version.
    #[inline]
    pub(crate) fn status_message_after(&self, seen: i64) -> Option<(i64, NextStatusMessage)> {
        let handed = self.by_conductor.next_status_message.read_after(seen)?;
        let [position, window] = handed.words;
        Some((
            handed.version,
            NextStatusMessage {
                position,
                window: window as i32,
            },
        ))
    }

    #[inline]
    pub(crate) fn next_gap(&self) -> Option<Gap> {
        self.by_conductor.gaps.pop()
    }

    pub(crate) fn is_sending_end_of_stream(&self) -> bool {
        self.by_conductor.is_sending_end_of_stream.load(Ordering::Acquire)
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.by_conductor.is_superseded.load(Ordering::Acquire)
    }

    /// Whether [`Self::expire_status_message_timer`] was called since this was asked last.
    #[inline]
    pub(crate) fn take_status_message_due(&self) -> bool {
        // SYNC image-sm-due: the plain look first, so that the usual answer costs no exclusive access.
        self.by_conductor.status_message_is_due.load(Ordering::Relaxed)
            && self
                .by_conductor
                .status_message_is_due
                .swap(false, Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn take_rtt_wanted(&self) -> bool {
        self.by_conductor.rtt_is_wanted.load(Ordering::Relaxed)
            && self.by_conductor.rtt_is_wanted.swap(false, Ordering::Acquire)
    }

    pub(crate) fn response_session(&self) -> Option<SessionId> {
        // SYNC image-response-session: a single word.
        let value = self.by_conductor.response_session_id.load(Ordering::Acquire);
        (value != NO_SESSION).then_some(SessionId(value as i32))
    }

    #[inline]
    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        self.by_conductor.rejection.get()
    }

    #[inline]
    pub(crate) fn set_high_water_mark(&self, position: i64) {
        // SYNC image-hwm: the frames before it were inserted before.
        self.by_receiver
            .high_water_mark
            .store(position, Ordering::Release);
    }

    #[inline]
    pub(crate) fn set_time_of_last_packet(&self, now: NanoTime) {
        self.by_receiver
            .time_of_last_packet
            .store(now.0, Ordering::Release);
    }

    pub(crate) fn set_end_of_stream(&self, position: i64, is_revoked: bool) {
        if is_revoked {
            self.by_receiver.is_revoked.store(true, Ordering::Release);
        }
        // SYNC image-eos: stored after the revocation that came with it.
        self.by_receiver
            .end_of_stream_position
            .store(position, Ordering::Release);
    }

    pub(crate) fn set_active_transports(&self, count: usize) {
        self.by_receiver.active_transports.store(count, Ordering::Relaxed);
    }

    pub(crate) fn record_rtt(&self, rtt_ns: i64) {
        self.by_receiver.rtt.write([rtt_ns]);
    }
}
