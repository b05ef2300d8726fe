//! The conductor's half of a network publication (shared-memory spec 13.9, 13.11; wire protocol 3.7, 3.11, 3.12): the
//! publishers' limit, cleaning behind what was sent, spies, repairs, and the end.
#![forbid(unsafe_code)]

use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::{LogBuffers, Metadata, clean};
use fulmar::memory::View;
use fulmar::sync::Arc;
use fulmar::time::NanoTime;

use super::pages_ahead::PagesAhead;
use super::position_counter::PositionCounter;
use super::publication_repair::{PublicationRepair, RepairView};
use super::publication_shared::PublicationShared;
use super::resting::{TailWatch, Watch};
use super::subscribers::{Subscriber, any_working, extent};
use super::written_log::{Reference, RepairParts, State, WrittenLog, believed_producer_position};
use crate::commands::EndpointId;
use crate::config::PublicationParams;

/// What a [`PublicationConductor`] is made from.
#[derive(Debug)]
pub struct NewNetworkPublication {
    /// The correlation id of the first ADD; names the log.
    pub registration_id: RegistrationId,
    /// The endpoint that sends it.
    pub endpoint: EndpointId,
    /// The channel as sent.
    pub channel: String,
    /// Parsed parameters, settled.
    pub params: PublicationParams,
    /// Whether it has one writer.
    pub exclusive: bool,
    /// Its log.
    pub log: LogBuffers,
    /// The log's file as announced.
    pub log_path: String,
    /// The limit for publishers (`pub-lmt`, type 1).
    pub publisher_limit: PositionCounter,
    /// The producer's position (`pub-pos`, type 12).
    pub publisher_position: PositionCounter,
    /// The position the stream starts at.
    pub start_position: i64,
    /// Shared with the sender's half.
    pub shared: Arc<PublicationShared>,
}

/// What became of a publication at a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeCycle {
    /// Nothing.
    Unchanged,
    /// A publisher revoked it: it lingers, and spies lose their images.
    Revoked,
    /// Everything was sent and read: it lingers, and spies lose their images.
    Drained,
    /// What stands at this position was not committed and holds the end up: to be unblocked.
    Stuck(i64),
    /// It is to be removed from the sender, and freed.
    Done,
}

/// The conductor's half of a network publication.
#[derive(Debug)]
pub struct PublicationConductor {
    /// The correlation id of the first ADD; names the log.
    pub registration_id: RegistrationId,
    /// The endpoint that sends it.
    pub endpoint: EndpointId,
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
    /// The spies that read it.
    pub subscribers: Vec<Subscriber>,
    /// The limit for publishers.
    pub publisher_limit: PositionCounter,
    /// The producer's position, sampled.
    pub publisher_position: PositionCounter,
    /// Shared with the sender's half.
    pub shared: Arc<PublicationShared>,
    state: State,
    is_revoked: bool,
    is_connected: bool,
    /// Whether the sender said that there are receivers, when it was asked last.
    has_receivers: bool,
    window: i64,
    trip_gain: i64,
    trip_limit: i64,
    /// The publishers' limit; the counter itself can be written by anybody who maps it.
    limit: i64,
    producer_position: i64,
    clean_position: i64,
    linger_since: NanoTime,
    repair: PublicationRepair,
    pages: PagesAhead,
}

impl PublicationConductor {
    /// An active publication without references.
    #[must_use]
    pub fn new(new: NewNetworkPublication, now: NanoTime) -> Self {
        let NewNetworkPublication {
            registration_id,
            endpoint,
            channel,
            params,
            exclusive,
            log,
            log_path,
            publisher_limit,
            publisher_position,
            start_position,
            shared,
        } = new;
        publisher_limit.value.set_release(start_position);
        publisher_position.value.set_release(start_position);
        let window = i64::from(params.publication_window_length);
        let pages = PagesAhead::new(&log, start_position);
        Self {
            registration_id,
            endpoint,
            session_id: log.session_id(),
            stream_id: log.stream_id(),
            channel,
            params,
            exclusive,
            log,
            log_path,
            references: Vec::new(),
            subscribers: Vec::new(),
            publisher_limit,
            publisher_position,
            shared,
            state: State::Active,
            is_revoked: false,
            is_connected: false,
            has_receivers: false,
            window,
            trip_gain: window / 8,
            trip_limit: start_position,
            limit: start_position,
            producer_position: start_position,
            clean_position: start_position,
            linger_since: now,
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

    /// Whether it was revoked and that was acted on.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.is_revoked
    }

    /// Whether publishers are told that somebody listens.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How far was sent.
    #[inline]
    #[must_use]
    pub fn sent_position(&self) -> i64 {
        self.shared.sender_position()
    }

    /// Bytes a publisher may be ahead of the sender and the slowest spy.
    #[must_use]
    pub fn window(&self) -> i64 {
        self.window
    }

    /// Whether new spies are linked.
    #[must_use]
    pub fn accepts_subscribers(&self) -> bool {
        match self.state {
            State::Active => !self.is_revoked,
            State::Draining => !self.is_drained(),
            State::Linger => false,
        }
    }

    /// Where a new spy starts.
    #[must_use]
    pub fn join_position(&self) -> i64 {
        self.sent_position()
    }

    /// The position at or below which an untethered spy counts as far behind.
    #[must_use]
    pub fn untethered_threshold(&self) -> i64 {
        self.sent_position() - self.window + self.window / 4
    }

    /// Every duty cycle: samples positions, cleans, moves the limit. Returns the work done.
    #[inline]
    pub fn update_limit(&mut self) -> usize {
        if self.state != State::Active || self.is_revoked {
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

    /// Whether nothing is to be done in duty cycles before the tail moves or receivers come or go: everything was sent,
    /// and the spies have read it.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if self.state != State::Active || self.is_revoked {
            return true;
        }
        self.sent_position() == self.producer_position
            && self
                .subscribers
                .iter()
                .filter(|spy| spy.tether.is_working())
                .all(|spy| spy.last_position() >= self.producer_position)
    }

    /// Says what to watch while it rests.
    pub fn rest(&self, watch: &mut Option<PublicationWatch>) {
        let watch = watch.get_or_insert_with(|| PublicationWatch {
            tail: TailWatch::new(&self.log, 0),
            shared: Arc::clone(&self.shared),
            has_receivers: false,
        });
        watch.tail.set(self.producer_position);
        watch.has_receivers = self.has_receivers;
    }

    #[inline]
    fn move_limit(&mut self, producer: i64) -> usize {
        let sent = self.sent_position();
        let spies = extent(&mut self.subscribers, producer);
        self.shared.set_fastest_spy_position(spies.map(|spies| spies.max));
        self.has_receivers = self.shared.is_connected();
        let has_subscribers =
            self.has_receivers || (self.params.spies_simulate_connection && spies.is_some());
        if !has_subscribers {
            return self.hold_limit_at(sent);
        }
        let consumed = spies.map_or(sent, |spies| spies.min.min(sent));
        let work = self.raise_limit(consumed);
        self.set_connected(true);
        work
    }

    fn raise_limit(&mut self, consumed: i64) -> usize {
        let limit = consumed + self.window;
        if limit <= self.trip_limit {
            return 0;
        }
        self.clean_to(consumed - i64::from(self.log.term_length()));
        if !self.is_clean_ahead_of(limit) {
            // The next cycle cleans on.
            return 1;
        }
        self.set_limit(limit);
        self.trip_limit = limit + self.trip_gain;
        1
    }

    fn set_limit(&mut self, limit: i64) {
        self.limit = limit;
        // SYNC publisher-limit: the bytes below the limit are clean.
        self.publisher_limit.value.set_release(limit);
    }

    /// Whether publishers that go up to `limit` find zeroes: the third term from the clean position on holds what was
    /// not cleaned yet (spec 13.9).
    fn is_clean_ahead_of(&self, limit: i64) -> bool {
        let shape = self.log.shape();
        let terms = (limit >> shape.bits) - (self.clean_position >> shape.bits);
        terms < 2 || (terms == 2 && shape.offset(self.clean_position) != 0)
    }

    fn hold_limit_at(&mut self, sent: i64) -> usize {
        self.set_connected(false);
        if self.limit <= sent {
            return 0;
        }
        self.set_limit(sent);
        self.trip_limit = sent;
        self.clean_to(sent - i64::from(self.log.term_length()));
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

    fn set_connected(&mut self, connected: bool) {
        if connected != self.is_connected {
            self.is_connected = connected;
            self.metadata().set_connected(connected);
        }
    }

    /// Marks the publication disconnected at once, whoever is there.
    pub fn disconnect(&mut self) {
        self.set_connected(false);
    }

    // Spies

    /// Adds a spy.
    pub fn link(&mut self, subscriber: Subscriber) {
        self.subscribers.push(subscriber);
        self.publish_spies();
        if self.params.spies_simulate_connection && self.state == State::Active && !self.is_revoked {
            self.set_connected(true);
        }
    }

    /// Takes the spies that `matches` out and returns them.
    pub fn unlink(&mut self, mut matches: impl FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        let removed: Vec<_> = self
            .subscribers
            .extract_if(.., |subscriber| matches(subscriber))
            .collect();
        if !removed.is_empty() {
            self.publish_spies();
            if !self.shared.is_connected() && !any_working(&self.subscribers) {
                self.set_connected(false);
            }
        }
        removed
    }

    fn publish_spies(&mut self) {
        let producer = self.sample_producer_position();
        let spies = extent(&mut self.subscribers, producer);
        self.shared.set_fastest_spy_position(spies.map(|spies| spies.max));
    }

    // The end

    /// Sets the revoked flag, as a remove command with the revoke flag asks.
    pub fn mark_revoked(&mut self) {
        self.metadata().set_revoked();
    }

    /// Whether a revocation came and was not acted on yet.
    #[must_use]
    pub fn revocation_is_pending(&self) -> bool {
        !self.is_revoked && self.metadata().is_revoked() && self.state != State::Linger
    }

    /// Acts on a revocation (wire protocol 3.12).
    fn revoke(&mut self, now: NanoTime) {
        let producer = self.sample_producer_position();
        self.set_limit(producer);
        self.metadata().set_end_of_stream_position(producer);
        self.is_revoked = true;
        self.set_connected(false);
        self.shared.set_end_of_stream();
        self.start_linger(now);
    }

    /// Ends the publication at once because its log was destroyed under it.
    pub fn abandon(&mut self, now: NanoTime) {
        self.is_revoked = true;
        self.set_connected(false);
        self.shared.set_end_of_stream();
        self.start_linger(now);
    }

    fn start_linger(&mut self, now: NanoTime) {
        self.state = State::Linger;
        self.linger_since = now;
        self.shared.set_fastest_spy_position(None);
    }

    /// Whether everything was sent, as far as there is anybody to send to, and read by the spies.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let sent = self.sent_position() >= self.producer_position || !self.shared.has_receivers();
        sent && self
            .subscribers
            .iter()
            .filter(|spy| spy.tether.is_working())
            .all(|spy| spy.last_position() >= self.producer_position)
    }

    /// At each timer: the life cycle. After [`LifeCycle::Revoked`] and [`LifeCycle::Drained`] spies are told;
    /// [`LifeCycle::Stuck`] is answered with [`WrittenLog::unblock_at`].
    pub fn on_timer(&mut self, now: NanoTime) -> LifeCycle {
        if self.revocation_is_pending() {
            self.revoke(now);
            return LifeCycle::Revoked;
        }
        match self.state {
            State::Active => LifeCycle::Unchanged,
            State::Draining => self.drain(now),
            State::Linger if self.is_lingering(now) => LifeCycle::Unchanged,
            State::Linger => LifeCycle::Done,
        }
    }

    fn drain(&mut self, now: NanoTime) -> LifeCycle {
        let (sent, producer) = (self.sent_position(), self.producer_position);
        // Spies go on reading.
        self.publish_spies();
        if sent >= producer {
            self.shared.set_end_of_stream();
        }
        if self.is_drained() {
            self.start_linger(now);
            return LifeCycle::Drained;
        }
        if sent < producer {
            LifeCycle::Stuck(sent)
        } else {
            LifeCycle::Unchanged
        }
    }

    fn is_lingering(&self, now: NanoTime) -> bool {
        let held = !self.references.is_empty();
        let waits = now.since(self.linger_since) < self.params.linger_timeout_ns
            && !self.shared.has_received_unicast_eos();
        held || waits
    }
}

/// What the conductor looks at of a network publication at rest.
#[derive(Debug)]
pub struct PublicationWatch {
    tail: TailWatch,
    shared: Arc<PublicationShared>,
    has_receivers: bool,
}

impl Watch for PublicationWatch {
    #[inline]
    fn has_news(&self) -> bool {
        self.tail.has_news() || self.shared.is_connected() != self.has_receivers
    }
}

impl WrittenLog for PublicationConductor {
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
        if self.limit > producer {
            self.set_limit(producer);
        }
        self.publisher_position.value.set_release(producer);
        self.metadata().set_end_of_stream_position(producer);
        if self.sent_position() >= producer {
            self.shared.set_end_of_stream();
        }
        self.state = State::Draining;
    }

    #[inline]
    fn sample_producer_position(&mut self) -> i64 {
        self.producer_position = believed_producer_position(&self.log, self.producer_position, self.limit);
        self.producer_position
    }

    fn repair(&self) -> &PublicationRepair {
        &self.repair
    }

    fn repair_parts(&mut self) -> RepairParts<'_> {
        let sent = self.sent_position();
        RepairParts {
            log: &self.log,
            view: RepairView {
                consumer_position: sent,
                producer_position: self.producer_position,
                is_draining: self.state == State::Draining,
            },
            // What lies before the sender's position was committed whole.
            open_from: sent.max(self.clean_position),
            repair: &mut self.repair,
        }
    }
}

#[cfg(test)]
mod tests;
