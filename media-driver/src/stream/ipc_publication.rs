//! An IPC publication: one log that clients write and read directly. The driver moves the limit, cleans behind the
//! slowest subscriber, repairs what dead publishers left open, and ends it (shared-memory spec 13.7 to 13.10).
#![forbid(unsafe_code)]

use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::{LogBuffers, Metadata, clean};
use fulmar::memory::View;
use fulmar::time::NanoTime;

use super::pages_ahead::PagesAhead;
use super::position_counter::PositionCounter;
use super::publication_repair::{PublicationRepair, RepairView};
use super::resting::TailWatch;
use super::subscribers::{Subscriber, any_working, extent};
use super::written_log::{Reference, RepairParts, State, WrittenLog, believed_producer_position};
use crate::config::PublicationParams;

/// An IPC publication.
#[derive(Debug)]
pub struct IpcPublication {
    /// The correlation id of the first ADD; names the log.
    pub registration_id: RegistrationId,
    /// Its session.
    pub session_id: SessionId,
    /// Its stream.
    pub stream_id: StreamId,
    /// The channel of the first ADD, as sent.
    pub channel: String,
    /// What it was made with, for the clash rules.
    pub params: PublicationParams,
    /// Whether it has one writer.
    pub exclusive: bool,
    /// Its log.
    pub log: LogBuffers,
    /// The log's file as announced.
    pub log_path: String,
    /// Who holds it.
    pub references: Vec<Reference>,
    /// Who reads it.
    pub subscribers: Vec<Subscriber>,
    /// While set, no subscription is linked: an image was rejected.
    pub cool_down_until: Option<NanoTime>,
    /// The limit for publishers.
    pub publisher_limit: PositionCounter,
    /// The producer's position, sampled.
    pub publisher_position: PositionCounter,
    state: State,
    revoked: bool,
    window: i64,
    trip_gain: i64,
    trip_limit: i64,
    producer_position: i64,
    consumer_position: i64,
    clean_position: i64,
    repair: PublicationRepair,
    pages: PagesAhead,
}

/// What an [`IpcPublication`] is made from.
#[derive(Debug)]
pub struct NewIpcPublication {
    /// See [`IpcPublication::registration_id`].
    pub registration_id: RegistrationId,
    /// The channel as sent.
    pub channel: String,
    /// Parsed parameters.
    pub params: PublicationParams,
    /// Whether it has one writer.
    pub exclusive: bool,
    /// Its log.
    pub log: LogBuffers,
    /// The log's file as announced.
    pub log_path: String,
    /// The limit for publishers.
    pub publisher_limit: PositionCounter,
    /// The producer's position.
    pub publisher_position: PositionCounter,
    /// The position the stream starts at.
    pub start_position: i64,
    /// Bytes a publisher may be ahead of the slowest subscriber.
    pub window: i32,
}

impl IpcPublication {
    /// An active publication without references.
    #[must_use]
    pub fn new(new: NewIpcPublication, now: NanoTime) -> Self {
        let NewIpcPublication {
            registration_id,
            channel,
            params,
            exclusive,
            log,
            log_path,
            publisher_limit,
            publisher_position,
            start_position,
            window,
        } = new;
        publisher_limit.value.set_release(start_position);
        publisher_position.value.set_release(start_position);
        let window = i64::from(window);
        let pages = PagesAhead::new(&log, start_position);
        Self {
            registration_id,
            session_id: log.session_id(),
            stream_id: log.stream_id(),
            channel,
            params,
            exclusive,
            log,
            log_path,
            references: Vec::new(),
            subscribers: Vec::new(),
            cool_down_until: None,
            publisher_limit,
            publisher_position,
            state: State::Active,
            revoked: false,
            window,
            trip_gain: window / 8,
            trip_limit: start_position,
            producer_position: start_position,
            consumer_position: start_position,
            clean_position: start_position,
            repair: PublicationRepair::new(start_position, now),
            pages,
        }
    }

    fn metadata(&self) -> &Metadata<View> {
        self.log.metadata()
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The fastest subscriber's position, and where the next subscriber starts when there is none.
    #[must_use]
    pub fn consumer_position(&self) -> i64 {
        self.consumer_position
    }

    /// Bytes a publisher may be ahead of the slowest subscriber.
    #[must_use]
    pub fn window(&self) -> i64 {
        self.window
    }

    /// Whether new subscriptions are linked (spec 13.6).
    #[must_use]
    pub fn accepts_subscribers(&self) -> bool {
        let open = match self.state {
            State::Active => true,
            State::Draining => !self.is_drained(),
            State::Linger => false,
        };
        open && self.cool_down_until.is_none()
    }

    /// Every duty cycle: samples positions, cleans, moves the limit. Returns the work done: 1 when the limit moved. That
    /// somebody reads is no work: on a machine with few processors a conductor that spun for it would take the time of
    /// the very threads it waits for. A publisher that runs out of limit rings.
    #[inline]
    pub fn update_limit(&mut self) -> usize {
        if self.state != State::Active || self.revoked {
            return 0;
        }
        let producer = self.sample_producer_position();
        self.publisher_position.value.set_release(producer);
        let work = self.move_limit(producer);
        self.pages.follow(&self.log, producer);
        work
    }

    /// Where its producers were when it was looked at last.
    #[inline]
    #[must_use]
    pub fn producer_position(&self) -> i64 {
        self.producer_position
    }

    /// Whether nothing is to be done in duty cycles before the tail moves: everybody has read everything.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.state != State::Active || self.revoked || self.is_drained()
    }

    /// Says what to watch while it rests.
    pub fn rest(&self, watch: &mut Option<TailWatch>) {
        watch
            .get_or_insert_with(|| TailWatch::new(&self.log, 0))
            .set(self.producer_position);
    }

    #[inline]
    fn move_limit(&mut self, producer: i64) -> usize {
        let Some(extent) = extent(&mut self.subscribers, producer) else {
            return self.hold_limit_at_consumer();
        };
        self.consumer_position = self.consumer_position.max(extent.max);
        let limit = extent.min + self.window;
        if limit <= self.trip_limit {
            return 0;
        }
        self.clean_to(extent.min);
        // SYNC publisher-limit: the bytes below the limit are clean.
        self.publisher_limit.value.set_release(limit);
        self.trip_limit = limit + self.trip_gain;
        1
    }

    fn hold_limit_at_consumer(&mut self) -> usize {
        if self.publisher_limit.value.get_relaxed() <= self.consumer_position {
            return 0;
        }
        self.publisher_limit.value.set_release(self.consumer_position);
        self.trip_limit = self.consumer_position;
        self.clean_to(self.consumer_position);
        1
    }

    /// One bounded step of cleaning, at most to the end of a term.
    fn clean_to(&mut self, position: i64) {
        self.clean_position = clean(
            &self.log,
            self.clean_position,
            position,
            self.log.term_length() as usize,
        );
    }

    /// Adds a subscriber and lets publishers know that there is one.
    pub fn link(&mut self, subscriber: Subscriber) {
        self.subscribers.push(subscriber);
        self.metadata().set_connected(true);
    }

    /// Takes the subscribers that `matches` out and returns them; positions are looked at a last time first.
    pub fn unlink(&mut self, mut matches: impl FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        let producer = self.sample_producer_position();
        let mut removed: Vec<_> = self
            .subscribers
            .extract_if(.., |subscriber| matches(subscriber))
            .collect();
        for subscriber in &mut removed {
            let position = subscriber.position(producer);
            if subscriber.tether.is_working() {
                self.consumer_position = self.consumer_position.max(position);
            }
        }
        if !removed.is_empty() {
            self.refresh_connected();
        }
        removed
    }

    /// Where a new subscriber starts (spec 13.6).
    #[must_use]
    pub fn join_position(&self) -> i64 {
        self.subscribers
            .iter()
            .filter(|subscriber| subscriber.tether.is_working())
            .map(Subscriber::last_position)
            .fold(self.consumer_position, i64::min)
    }

    /// Writes the connected flag anew.
    pub fn refresh_connected(&mut self) {
        let connected = self.state == State::Active
            && !self.revoked
            && self.cool_down_until.is_none()
            && any_working(&self.subscribers);
        self.metadata().set_connected(connected);
    }

    /// Marks the publication disconnected at once, whoever is linked.
    pub fn disconnect(&mut self) {
        self.metadata().set_connected(false);
    }

    /// Sets the revoked flag that images look at.
    pub fn mark_revoked(&mut self) {
        self.metadata().set_revoked();
    }

    /// Whether a remove command with the revoke flag came and was not acted on yet.
    #[must_use]
    pub fn revocation_is_pending(&self) -> bool {
        !self.revoked && self.metadata().is_revoked() && self.state != State::Linger
    }

    /// Acts on a revocation: nothing more is read or written.
    pub fn revoke(&mut self) {
        let producer = self.sample_producer_position();
        self.publisher_limit.value.set_release(producer);
        self.metadata().set_end_of_stream_position(producer);
        self.metadata().set_connected(false);
        self.revoked = true;
        self.state = State::Linger;
    }

    /// Ends the publication at once because its log was destroyed under it.
    pub fn abandon(&mut self) {
        self.revoked = true;
        self.state = State::Linger;
        self.disconnect();
    }

    /// Whether all working subscribers have read everything.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.subscribers
            .iter()
            .filter(|subscriber| subscriber.tether.is_working())
            .all(|subscriber| subscriber.last_position() >= self.producer_position)
    }

    /// While draining: samples positions and says whether the end was reached.
    pub fn poll_drained(&mut self) -> bool {
        let producer = self.producer_position;
        if let Some(extent) = extent(&mut self.subscribers, producer) {
            self.consumer_position = self.consumer_position.max(extent.max);
        }
        self.is_drained()
    }

    /// Enters the last state.
    pub fn start_linger(&mut self) {
        self.state = State::Linger;
    }

    /// The position below which an untethered subscriber counts as far behind.
    #[must_use]
    pub fn untethered_threshold(&self) -> i64 {
        self.consumer_position - self.window + self.window / 4
    }
}

impl WrittenLog for IpcPublication {
    fn registration_id(&self) -> RegistrationId {
        self.registration_id
    }

    fn references(&self) -> &[Reference] {
        &self.references
    }

    fn references_mut(&mut self) -> &mut Vec<Reference> {
        &mut self.references
    }

    fn on_unreferenced(&mut self) {
        if self.state != State::Active || self.metadata().is_revoked() {
            return;
        }
        let producer = self.sample_producer_position();
        if self.publisher_limit.value.get_relaxed() > producer {
            self.publisher_limit.value.set_release(producer);
        }
        self.publisher_position.value.set_release(producer);
        self.metadata().set_end_of_stream_position(producer);
        self.state = State::Draining;
    }

    #[inline]
    fn sample_producer_position(&mut self) -> i64 {
        let limit = self.publisher_limit.value.get_relaxed();
        self.producer_position = believed_producer_position(&self.log, self.producer_position, limit);
        self.producer_position
    }

    fn repair(&self) -> &PublicationRepair {
        &self.repair
    }

    fn repair_parts(&mut self) -> RepairParts<'_> {
        RepairParts {
            log: &self.log,
            view: RepairView {
                consumer_position: self.consumer_position,
                producer_position: self.producer_position,
                is_draining: self.state == State::Draining,
            },
            open_from: self.clean_position,
            repair: &mut self.repair,
        }
    }
}
