//! The conductor's half of an image: follows what has arrived, finds what is lost, decides what the next status message
//! says, cleans behind the subscribers, and walks the image through its states (wire spec 4.4 to 4.6, 4.8; shared-memory
//! spec 13.11).
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::descriptor::FRAME_ALIGNMENT;
use fulmar::log::{LogBuffers, clean};
use fulmar::memory::AtomicBuffer;
use fulmar::report::loss_report::{LossEntry, LossReport};
use fulmar::time::{EpochMs, NanoTime};
use fulmar::wire::ERROR_TEXT_MAX;

use super::image_shared::{Gap, ImageShared, NextStatusMessage, Rejection};
use super::pages_ahead::PagesAhead;
use super::position_counter::PositionCounter;
use super::resting::Watch;
use super::subscribers::{Subscriber, any_working, extent};
use crate::commands::EndpointId;
use crate::config::UntetheredTimeouts;
use crate::protocol::congestion::{CongestionControl, RebuildPass};
use crate::protocol::loss_detector::LossDetector;

/// An image drains for so many status message timeouts at least, so that its sources hear that it leaves.
pub const DRAIN_STATUS_MESSAGES: i64 = 5;

/// How soon a conductor looks again at subscribers that hold the sender up, nanoseconds. Nobody tells it that they have
/// read on, and a sender whose window is used up waits for it.
pub const CONSUMPTION_WATCH_FIRST_NS: i64 = 100_000;
/// The longest it waits for subscribers that stand still: each look that finds nothing doubles the time.
pub const CONSUMPTION_WATCH_LAST_NS: i64 = 10_000_000;

/// A source that sends nothing for so long, ten heartbeats, is asked for lost data less often, nanoseconds.
pub const SOURCE_SILENCE_NS: i64 = 1_000_000_000;
/// How often a silent source is asked, nanoseconds.
pub const SILENT_LOSS_INTERVAL_NS: i64 = 10_000_000;

/// Where an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// Data comes, subscribers read.
    Active,
    /// Nothing more is expected, or nobody wants it; its sources are told, subscribers read what is left.
    Draining,
    /// Subscribers were told that it ended.
    Linger,
    /// Nobody needs it any more.
    Done,
}

/// What a timer has changed, and what its owner has to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageEvent {
    /// Nothing.
    None,
    /// It began to drain.
    Draining,
    /// It leaves the receiver ([`crate::commands::EndpointCommand::RemoveImage`], and with `rejoin`
    /// [`crate::commands::EndpointCommand::RemoveCoolDown`]), and its subscribers are told that it is gone.
    Linger,
    /// It can be freed, once the receiver's half has come back.
    Done,
}

/// What a pass over an image has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// Work, for the idle strategy.
    pub work: usize,
    /// Something was handed to the receiver, which has to be woken.
    pub wakes_receiver: bool,
    /// Bytes that were found to be lost: see [`ImageConductor::record_loss`].
    pub bytes_lost: i64,
    /// The publisher has revoked the stream. Said once.
    pub revoked: bool,
}

/// What an [`ImageConductor`] is made from.
#[derive(Debug)]
pub struct ImageConductorParts {
    /// Names the image and its log.
    pub correlation_id: RegistrationId,
    /// The endpoint that it came in through.
    pub endpoint: EndpointId,
    /// The channel of its subscription, as it is shown.
    pub channel: String,
    /// Who sent the SETUP.
    pub source: SocketAddr,
    /// Its log.
    pub log: LogBuffers,
    /// The log's file, as it is announced.
    pub log_path: String,
    /// The other half's end.
    pub shared: Arc<ImageShared>,
    /// Where it joins.
    pub join_position: i64,
    /// `rcv-pos`.
    pub receiver_position: PositionCounter,
    /// Finds what is lost.
    pub loss: LossDetector,
    /// Decides the window.
    pub congestion: CongestionControl,
    /// Whether the session is joined again after the image went away.
    pub rejoin: bool,
    /// Timeouts of untethered subscribers.
    pub untethered: UntetheredTimeouts,
    /// Time between status messages, nanoseconds.
    pub status_message_timeout_ns: i64,
    /// How long an image lives without a packet, nanoseconds.
    pub image_liveness_timeout_ns: i64,
}

/// Waiting for subscribers to read on.
#[derive(Clone, Copy, Debug)]
struct ConsumptionWatch {
    /// Where the slowest one stands.
    position: i64,
    interval_ns: i64,
    deadline: NanoTime,
}

/// The conductor's half of an image.
#[derive(Debug)]
pub struct ImageConductor {
    /// Names the image and its log.
    pub correlation_id: RegistrationId,
    /// The endpoint that it came in through.
    pub endpoint: EndpointId,
    /// Its session.
    pub session_id: SessionId,
    /// Its stream.
    pub stream_id: StreamId,
    /// The channel of its subscription, as it is shown.
    pub channel: String,
    /// Where it comes from, `host:port`.
    pub source_identity: String,
    /// Its log.
    pub log: LogBuffers,
    /// The log's file, as it is announced.
    pub log_path: String,
    /// Who reads it.
    pub subscribers: Vec<Subscriber>,
    /// `rcv-pos`.
    pub receiver_position: PositionCounter,
    /// Whether the session is joined again after the image went away.
    pub rejoin: bool,
    /// Timeouts of untethered subscribers.
    pub untethered: UntetheredTimeouts,
    shared: Arc<ImageShared>,
    loss: LossDetector,
    congestion: CongestionControl,
    status_message_timeout_ns: i64,
    image_liveness_timeout_ns: i64,
    state: ImageState,
    state_since: NanoTime,
    rebuild_position: i64,
    next: NextStatusMessage,
    clean_position: i64,
    end_of_stream: Option<i64>,
    is_revoked: bool,
    /// When the last packet came, by the receiver's clock, and when that was seen here. The conductor's clock stands
    /// still while the driver is stopped, so that the two can not be compared.
    last_packet: NanoTime,
    last_packet_seen: NanoTime,
    seen_rtt: i64,
    watch: Option<ConsumptionWatch>,
    /// When the next look at what is lost has something to do.
    loss_deadline: Option<NanoTime>,
    loss_entry: Option<LossEntry>,
    pages: PagesAhead,
}

impl ImageConductor {
    /// An active image without subscribers. The first status message was scheduled when `shared` was made.
    #[must_use]
    pub fn new(parts: ImageConductorParts, now: NanoTime) -> Self {
        let ImageConductorParts {
            correlation_id,
            endpoint,
            channel,
            source,
            log,
            log_path,
            shared,
            join_position,
            receiver_position,
            loss,
            congestion,
            rejoin,
            untethered,
            status_message_timeout_ns,
            image_liveness_timeout_ns,
        } = parts;
        receiver_position.value.set_release(join_position);
        log.metadata().set_active_transport_count(1);
        let pages = PagesAhead::new(&log, join_position);
        Self {
            correlation_id,
            endpoint,
            session_id: log.session_id(),
            stream_id: log.stream_id(),
            channel,
            source_identity: source.to_string(),
            log_path,
            subscribers: Vec::new(),
            receiver_position,
            rejoin,
            untethered,
            last_packet: shared.time_of_last_packet(),
            last_packet_seen: now,
            shared,
            next: NextStatusMessage {
                position: join_position,
                window: congestion.initial_window(),
            },
            loss,
            congestion,
            status_message_timeout_ns,
            image_liveness_timeout_ns,
            state: ImageState::Active,
            state_since: now,
            rebuild_position: join_position,
            clean_position: join_position,
            end_of_stream: None,
            is_revoked: false,
            seen_rtt: 0,
            watch: None,
            loss_deadline: None,
            loss_entry: None,
            pages,
            log,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> ImageState {
        self.state
    }

    /// Everything before this position has arrived.
    #[must_use]
    pub fn rebuild_position(&self) -> i64 {
        self.rebuild_position
    }

    /// What the next status message says.
    #[must_use]
    pub fn next_status_message(&self) -> NextStatusMessage {
        self.next
    }

    /// Congestion control, for what it shows.
    #[must_use]
    pub fn congestion(&self) -> &CongestionControl {
        &self.congestion
    }

    /// Whether it belongs to this session of this endpoint.
    #[must_use]
    pub fn is_of(&self, endpoint: EndpointId, stream_id: StreamId, session_id: SessionId) -> bool {
        (self.endpoint, self.stream_id, self.session_id) == (endpoint, stream_id, session_id)
    }

    /// Whether new subscriptions are linked (shared-memory spec 13.6).
    #[must_use]
    pub fn accepts_subscribers(&self) -> bool {
        let is_open = match self.state {
            ImageState::Active => true,
            ImageState::Draining => !self.is_drained(),
            ImageState::Linger | ImageState::Done => false,
        };
        is_open && !self.is_revoked && !self.is_rejected() && any_working(&self.subscribers)
    }

    /// Where a new subscriber starts.
    #[must_use]
    pub fn join_position(&self) -> i64 {
        self.subscribers
            .iter()
            .filter(|subscriber| subscriber.tether.is_working())
            .map(Subscriber::last_position)
            .fold(self.rebuild_position, i64::min)
    }

    /// Adds a subscriber.
    pub fn link(&mut self, subscriber: Subscriber) {
        self.subscribers.push(subscriber);
    }

    /// Takes the subscribers that `matches` out and returns them.
    pub fn unlink(&mut self, mut matches: impl FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        self.subscribers
            .extract_if(.., |subscriber| matches(subscriber))
            .collect()
    }

    /// The position at or below which an untethered subscriber counts as far behind.
    #[must_use]
    pub fn untethered_threshold(&self) -> i64 {
        let window = i64::from(self.next.window);
        let fastest = self
            .subscribers
            .iter()
            .filter(|subscriber| subscriber.tether.is_working())
            .map(Subscriber::last_position)
            .max()
            .unwrap_or(self.rebuild_position);
        fastest - window + window / 4
    }

    /// A subscriber rejects it: nothing more is taken in, and its sources are told why. At most 1023 bytes of the reason
    /// are kept. `false` if it was rejected before.
    pub fn reject(&self, reason: &str) -> bool {
        if self.is_rejected() {
            return false;
        }
        let length = reason.len().min(ERROR_TEXT_MAX);
        self.shared.reject(Rejection {
            reason: reason.as_bytes()[..length].into(),
        });
        // The rejection goes out with the next pass instead of when the timer says so.
        self.shared.expire_status_message_timer();
        true
    }

    /// Whether a subscriber rejected it.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.shared.is_rejected()
    }

    /// A new image of the same session exists.
    pub fn supersede(&self) {
        self.shared.supersede();
    }

    /// A response publication answers this stream: its session is announced until [`Self::response_connected`].
    pub fn set_response_session(&self, session_id: SessionId) {
        self.shared.set_response_session(Some(session_id));
        self.shared.expire_status_message_timer();
    }

    /// The response publication is connected, or gone.
    pub fn response_connected(&self) {
        self.shared.set_response_session(None);
    }

    /// Every duty cycle: follows what has arrived and what was read.
    #[inline]
    pub fn track_rebuild(&mut self, now: NanoTime) -> Tracked {
        let mut tracked = Tracked::default();
        let since_last_look = self.loss_deadline.take();
        if matches!(self.state, ImageState::Linger | ImageState::Done) {
            self.watch = None;
            return tracked;
        }
        self.follow_packets(now);
        self.follow_end_of_stream(&mut tracked);
        let consumed = extent(&mut self.subscribers, self.rebuild_position).filter(|_| !self.is_revoked);
        let Some(consumed) = consumed else {
            self.watch = None;
            return tracked;
        };
        let loss_found = self.find_loss(now, since_last_look, &mut tracked);
        self.pages.follow(&self.log, self.rebuild_position);
        self.follow_rtt(now, &mut tracked);
        let window = self.congestion.on_rebuild(
            now,
            RebuildPass {
                loss_found,
                consumption_position: consumed.min,
                last_status_message_position: self.next.position,
            },
        );
        let threshold = self.next.position + i64::from(window.length / 4);
        let is_due = window.force_status_message || window.length != self.next.window;
        if is_due || consumed.min > threshold {
            self.schedule(consumed.min, window.length);
            tracked.work += 1;
            tracked.wakes_receiver = true;
        }
        self.watch_consumption(now, consumed.min);
        tracked
    }

    /// Whether nothing is to be done in passes before something comes in: there is nothing to wait for, and everybody has
    /// read everything.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if matches!(self.state, ImageState::Linger | ImageState::Done) {
            return true;
        }
        self.loss_deadline.is_none()
            && self.watch.is_none()
            && matches!(self.congestion, CongestionControl::Static(_))
            && self.rebuild_position >= self.shared.high_water_mark()
            && self.is_drained()
    }

    /// Says what to watch while it rests.
    pub fn rest(&self, watch: &mut Option<ImageWatch>) {
        let watch = watch.get_or_insert_with(|| ImageWatch {
            shared: Arc::clone(&self.shared),
            position: 0,
            awaits_end: true,
        });
        watch.position = self.rebuild_position;
        watch.awaits_end = self.end_of_stream.is_none();
        if matches!(self.state, ImageState::Linger | ImageState::Done) {
            // Nothing that comes in concerns it any more.
            watch.position = i64::MAX;
            watch.awaits_end = false;
        }
    }

    /// A sender that has used up more than half of its window will soon wait for subscribers that have something to
    /// read: their positions are looked at again before long.
    #[inline]
    fn watch_consumption(&mut self, now: NanoTime, slowest: i64) {
        let used = self.rebuild_position - self.next.position;
        if slowest >= self.rebuild_position || used <= i64::from(self.next.window / 2) {
            self.watch = None;
            return;
        }
        let interval_ns = match self.watch {
            Some(watch) if watch.position == slowest && !watch.deadline.is_due(now) => return,
            Some(watch) if watch.position == slowest => {
                (watch.interval_ns * 2).min(CONSUMPTION_WATCH_LAST_NS)
            }
            _ => CONSUMPTION_WATCH_FIRST_NS,
        };
        self.watch = Some(ConsumptionWatch {
            position: slowest,
            interval_ns,
            deadline: now.plus_nanos(interval_ns),
        });
    }

    /// Finds what is lost and asks for it, while anything is expected. A source that has fallen silent, most likely for
    /// ever, is asked seldom: nobody shall be kept awake by the dead.
    fn find_loss(&mut self, now: NanoTime, deadline: Option<NanoTime>, tracked: &mut Tracked) -> bool {
        if self.state != ImageState::Active {
            return false;
        }
        let is_silent = now.since(self.shared.time_of_last_packet()) >= SOURCE_SILENCE_NS;
        if is_silent && deadline.is_some_and(|deadline| !deadline.is_due(now)) {
            self.loss_deadline = deadline;
            return false;
        }
        let Self {
            loss, log, shared, ..
        } = self;
        let mut raised = 0;
        let outcome = loss.on_pass(
            now,
            log,
            self.rebuild_position,
            shared.high_water_mark(),
            |term_id, term_offset, length| {
                raised += usize::from(shared.raise_gap(Gap {
                    term_id,
                    term_offset,
                    length,
                }));
            },
        );
        self.loss_deadline = loss.next_deadline().map(|deadline| {
            if is_silent {
                now.plus_nanos(SILENT_LOSS_INTERVAL_NS)
            } else {
                deadline
            }
        });
        tracked.work += raised;
        tracked.wakes_receiver |= raised > 0;
        tracked.bytes_lost = outcome.bytes_lost;
        if outcome.rebuild_position > self.rebuild_position {
            self.rebuild_position = outcome.rebuild_position;
            self.receiver_position.value.set_release(outcome.rebuild_position);
            tracked.work += 1;
        }
        outcome.loss_found
    }

    fn follow_rtt(&mut self, now: NanoTime, tracked: &mut Tracked) {
        if let Some((version, rtt_ns)) = self.shared.rtt_after(self.seen_rtt) {
            self.seen_rtt = version;
            // By the conductor's clock, which stands still while the driver is stopped.
            self.congestion.on_rttm(now, rtt_ns);
        }
        if self.congestion.should_measure_rtt(now) {
            self.congestion.on_rttm_sent(now);
            self.shared.request_rtt();
            tracked.wakes_receiver = true;
        }
    }

    #[inline]
    fn follow_packets(&mut self, now: NanoTime) {
        let last = self.shared.time_of_last_packet();
        if last != self.last_packet {
            self.last_packet = last;
            self.last_packet_seen = now;
        }
    }

    fn follow_end_of_stream(&mut self, tracked: &mut Tracked) {
        if self.end_of_stream.is_some() {
            return;
        }
        let Some(end) = self.shared.end_of_stream_position() else {
            return;
        };
        self.end_of_stream = Some(end);
        self.log.metadata().set_end_of_stream_position(end);
        tracked.work += 1;
        if self.shared.is_revoked() {
            self.is_revoked = true;
            self.log.metadata().set_revoked();
            tracked.revoked = true;
        }
    }

    /// Memory below `position` minus a term is zeroed before the sender may write into it: three terms are in memory, a
    /// sender is at most one and a half ahead of what is zeroed.
    fn schedule(&mut self, position: i64, window: i32) {
        let term_length = self.log.term_length();
        let target = position - i64::from(term_length);
        // Two steps, as each ends with a term.
        for _ in 0..2 {
            self.clean_position = clean(&self.log, self.clean_position, target, term_length as usize);
        }
        // Subscribers are other processes: their positions may lie anywhere below what has arrived.
        let position = (position & !(FRAME_ALIGNMENT as i64 - 1)).max(self.next.position);
        self.next = NextStatusMessage { position, window };
        // SYNC image-window: what was zeroed is zero for who sees the message.
        self.shared.schedule(self.next);
    }

    /// Puts loss on record. Without room in the report nothing is recorded.
    pub fn record_loss<B: AtomicBuffer>(
        &mut self,
        report: &mut LossReport<B>,
        now: EpochMs,
        bytes_lost: i64,
    ) {
        if let Some(entry) = &self.loss_entry {
            report.record(entry, now, bytes_lost);
            return;
        }
        self.loss_entry = report.create_entry(
            now,
            bytes_lost,
            self.session_id,
            self.stream_id,
            &self.channel,
            &self.source_identity,
        );
    }

    /// Whether every working subscriber has read what has arrived.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.subscribers
            .iter()
            .filter(|subscriber| subscriber.tether.is_working())
            .all(|subscriber| subscriber.last_position() >= self.rebuild_position)
    }

    /// Whether the end of the stream has come and everything before it.
    #[must_use]
    pub fn has_all_of_the_stream(&self) -> bool {
        self.end_of_stream.is_some() && self.rebuild_position >= self.shared.high_water_mark()
    }

    /// At each timer.
    pub fn on_timer(&mut self, now: NanoTime) -> ImageEvent {
        let active = i32::try_from(self.shared.active_transports()).unwrap_or(i32::MAX);
        self.log.metadata().set_active_transport_count(active);
        self.follow_packets(now);
        let waited = now.since(self.state_since);
        match self.state {
            ImageState::Active if self.is_over(now) => {
                self.enter(ImageState::Draining, now);
                self.shared.start_sending_end_of_stream();
                self.shared.expire_status_message_timer();
                ImageEvent::Draining
            }
            ImageState::Draining => {
                // Their positions are followed in passes only while anybody works.
                let _ = extent(&mut self.subscribers, self.rebuild_position);
                let least = DRAIN_STATUS_MESSAGES.saturating_mul(self.status_message_timeout_ns);
                if !self.is_revoked && (waited < least || !self.is_drained()) {
                    return ImageEvent::None;
                }
                self.enter(ImageState::Linger, now);
                ImageEvent::Linger
            }
            ImageState::Linger if self.subscribers.is_empty() || waited >= self.image_liveness_timeout_ns => {
                self.enter(ImageState::Done, now);
                ImageEvent::Done
            }
            _ => ImageEvent::None,
        }
    }

    fn is_over(&self, now: NanoTime) -> bool {
        let silence = now.since(self.last_packet_seen);
        self.is_revoked
            || !any_working(&self.subscribers)
            || silence >= self.image_liveness_timeout_ns
            || self.has_all_of_the_stream()
    }

    /// Ends the image at once because its log was destroyed under it: the next timer tells everybody.
    pub fn abandon(&mut self, now: NanoTime) {
        if matches!(self.state, ImageState::Active | ImageState::Draining) {
            self.is_revoked = true;
            self.enter(ImageState::Draining, now);
            self.shared.start_sending_end_of_stream();
        }
    }

    fn enter(&mut self, state: ImageState, now: NanoTime) {
        self.state = state;
        self.state_since = now;
    }

    /// When a pass has something to do without input, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<NanoTime> {
        let watch = self.watch.map(|watch| watch.deadline);
        self.loss_deadline
            .into_iter()
            .chain(watch)
            .reduce(NanoTime::earlier)
    }
}

/// What the conductor looks at of an image at rest.
#[derive(Debug)]
pub struct ImageWatch {
    shared: Arc<ImageShared>,
    /// Everything before it is dealt with.
    position: i64,
    /// The end of the stream was not seen yet.
    awaits_end: bool,
}

impl Watch for ImageWatch {
    #[inline]
    fn has_news(&self) -> bool {
        self.shared.high_water_mark() > self.position
            || (self.awaits_end && self.shared.end_of_stream_position().is_some())
    }
}
