//! An exclusive publication: one writer, one log, no read-modify-write (shared-memory spec 10.7).
#![forbid(unsafe_code)]

use core::cell::Cell;
use std::sync::Arc;

use super::attachment::{Attachment, PublicationShared};
use super::claim::{Claim, Claimant, TO_NETWORK};
use super::client::{Client, Handle};
use super::error::{BlockError, CommitError, RegistrationError};
use super::offer::{BatchOffer, Offer};
use super::pending::PendingOperation;
use super::publication::publication_queries;
use super::registry::ResourceKey;
use super::slot::{NEVER, Slot, lock};
use super::status::ChannelStatus;
use crate::agent::OfferBell;
use crate::id::{CounterId, RegistrationId, SessionId};
use crate::log::{
    AppendOutcome, BatchOutcome, BlockOutcome, Claimed, ExclusiveAppender, FrameFields, FrameView,
    NoReservedValue, ReservedValue, Source,
};
use crate::memory::View;

/// A publication with a log of its own and a single writer.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub struct ExclusivePublication {
    handle: Handle,
    shared: Arc<PublicationShared>,
    state: u64,
    attached: Option<Attached>,
    staging: Cell<Vec<u8>>,
}

struct Attached {
    appender: ExclusiveAppender<View>,
    /// The limit as read last; the counter is looked at again when it is reached. Publications to the network have
    /// always reached it: everything that only they do is done on that way.
    limit: i64,
    attachment: Arc<Attachment>,
    /// Only publications to the network have it.
    network: Option<ToNetwork>,
}

/// What a handle needs to publish to the network.
struct ToNetwork {
    /// Wakes the sender after an offer.
    bell: OfferBell,
    /// The limit as read last.
    limit: i64,
}

impl ExclusivePublication {
    pub(super) fn new(client: Client, key: ResourceKey, shared: Arc<PublicationShared>) -> Self {
        let mut publication = ExclusivePublication {
            handle: Handle::new(client, key),
            shared,
            state: NEVER,
            attached: None,
            staging: Cell::new(Vec::new()),
        };
        publication.refresh();
        publication
    }

    /// Publishes a message of at most [`Self::max_message_length`] bytes. Longer than
    /// [`Self::max_payload_length`], it goes out in several fragments.
    #[inline]
    pub fn offer(&mut self, message: &[u8]) -> Offer {
        self.append(message, &NoReservedValue)
    }

    /// Publishes one message made of several parts.
    #[inline]
    pub fn offer_parts(&mut self, parts: &[&[u8]]) -> Offer {
        self.append(parts, &NoReservedValue)
    }

    /// Publishes a message; `reserved_value` is asked for the reserved value of each fragment, whose payload is in
    /// place by then.
    #[inline]
    pub fn offer_with(
        &mut self,
        message: &[u8],
        reserved_value: impl Fn(&FrameView<'_, View>) -> i64,
    ) -> Offer {
        self.append(message, &reserved_value)
    }

    /// Publishes the leading messages of a batch at once, each a message of its own for subscribers. The batch is one
    /// reservation in the log and, to the network, one wake-up of the driver.
    ///
    /// One call takes the messages that have at most [`Self::max_payload_length`] bytes each, start below the limit,
    /// fit into the term, and together take no more of the log than [`Self::max_message_length`] bytes would. A first
    /// message that is longer, or does not fit, is offered on its own as by [`Self::offer`]. The caller goes on with
    /// `&messages[accepted..]`. Subscribers see the messages in order, some or all of them at the same moment.
    #[inline]
    pub fn offer_batch(&mut self, messages: &[&[u8]]) -> BatchOffer {
        let first = messages.first().map_or(0, |message| message.len());
        self.append_batch(first, |appender, limit| appender.offer_batch(messages, limit))
    }

    /// As [`Self::offer_batch`], with messages of `length` bytes each that lie one behind the other, the last of which
    /// may be shorter. The caller goes on behind `accepted * length` bytes. A `length` of 0 is taken for 1.
    #[inline]
    pub fn offer_batch_of(&mut self, messages: &[u8], length: usize) -> BatchOffer {
        self.append_batch(length.min(messages.len()), |appender, limit| {
            appender.offer_batch_of(messages, length, limit)
        })
    }

    /// Reserves a message of `length` bytes, at most [`Self::max_payload_length`], to be filled in and committed.
    ///
    /// # Errors
    /// The outcome when nothing was reserved.
    #[inline]
    pub fn try_claim(&mut self, length: usize) -> Result<Claim<'_>, Offer> {
        if self.state != self.shared.slot.state() {
            self.refresh();
        }
        let state = self.state;
        let Some(attached) = &mut self.attached else {
            return Err(self.refusal_when_detached());
        };
        let (claimed, state) = attached.claim(length, state)?;
        let staging = self.staging.take();
        Ok(Claim::new(self, claimed, state, staging, length))
    }

    /// Appends a padding frame that stands for `length` bytes of payload: subscribers skip it.
    pub fn append_padding(&mut self, length: usize) -> Offer {
        let Some(attached) = self.attached() else {
            return self.refusal_when_detached();
        };
        let outcome = attached.with_limit(length, |appender, limit| {
            accepted(appender.append_padding(length, limit))
        });
        outcome.map_or_else(|refusal| refusal, Offer::Position)
    }

    /// Appends frames that are ready as they are: headers with this log's session, stream and the active term id,
    /// the first one with the offset at which the stream stands.
    ///
    /// # Errors
    /// [`BlockError`] if the block is longer than what is left of the term or does not belong here.
    pub fn offer_block(&mut self, block: &[u8]) -> Result<Offer, BlockError> {
        let Some(attached) = self.attached() else {
            return Ok(self.refusal_when_detached());
        };
        let shape = attached.attachment.log.shape();
        let at = shape.offset(attached.appender.position());
        let remaining = (shape.term_length() - at) as usize;
        if at > 0 && block.len() > remaining {
            return Err(BlockError::TooLong {
                length: block.len(),
                remaining,
            });
        }
        let mut malformed = false;
        let outcome = attached.with_limit(block.len(), |appender, limit| {
            match appender.offer_block(block, limit) {
                BlockOutcome::Append(outcome) => accepted(outcome),
                BlockOutcome::Malformed => {
                    malformed = true;
                    Err(AppendOutcome::TooLong)
                }
            }
        });
        if malformed {
            return Err(BlockError::WrongFirstFrame);
        }
        Ok(outcome.map_or_else(|refusal| refusal, Offer::Position))
    }

    #[inline(always)]
    fn append<S, R>(&mut self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        if self.state == self.shared.slot.state()
            && let Some(attached) = &mut self.attached
            && attached.appender.log().metadata().is_connected()
        {
            match attached.appender.offer(source, reserved, attached.limit) {
                AppendOutcome::Appended { position } => return Offer::Position(position),
                AppendOutcome::AtLimit { .. } => {}
                outcome => return attached.refused(outcome, source.length()),
            }
        }
        self.append_slowly(source, reserved)
    }

    #[cold]
    #[inline(never)]
    fn append_slowly<S, R>(&mut self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        let Some(attached) = self.attached() else {
            return self.refusal_when_detached();
        };
        let outcome = attached.with_limit(source.length(), |appender, limit| {
            accepted(appender.offer(source, reserved, limit))
        });
        outcome.map_or_else(|refusal| refusal, Offer::Position)
    }

    /// Appends a batch whose first message has `length` bytes.
    #[inline(always)]
    fn append_batch(
        &mut self,
        length: usize,
        mut append: impl FnMut(&mut ExclusiveAppender<View>, i64) -> BatchOutcome,
    ) -> BatchOffer {
        let Some(attached) = self.attached() else {
            return BatchOffer::refused(self.refusal_when_detached());
        };
        attached
            .with_limit(length, |appender, limit| BatchOffer::of(append(appender, limit)))
            .unwrap_or_else(BatchOffer::refused)
    }

    #[inline]
    fn attached(&mut self) -> Option<&mut Attached> {
        if self.state != self.shared.slot.state() {
            self.refresh();
        }
        self.attached.as_mut()
    }

    /// Picks up what the conductor has for this handle.
    #[cold]
    fn refresh(&mut self) {
        let (state, attachment) = self.shared.slot.fetch();
        self.attached = attachment.map(|attachment| {
            // SYNC publisher-limit: memory below the limit has been zeroed.
            let limit = attachment.limit.get_acquire();
            let network = attachment.offer_bell().map(|bell| ToNetwork { bell, limit });
            Attached {
                appender: ExclusiveAppender::new((*attachment.log).clone()),
                limit: if network.is_some() { i64::MIN } else { limit },
                attachment,
                network,
            }
        });
        self.state = state;
    }

    #[cold]
    fn refusal_when_detached(&self) -> Offer {
        if self.is_closed() {
            Offer::Closed
        } else {
            Offer::NotConnected
        }
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        self.shared.slot.fetch().1
    }

    fn is_current(&self) -> bool {
        self.state == self.shared.slot.state()
    }

    /// Where the stream has come to, bytes; `None` when closed or the driver is away.
    #[must_use]
    pub fn position(&self) -> Option<i64> {
        if self.is_current() {
            self.attached
                .as_ref()
                .map(|attached| attached.appender.position())
        } else {
            self.attachment()
                .map(|attachment| ExclusiveAppender::new((*attachment.log).clone()).position())
        }
    }

    /// How far the stream may come at the moment, bytes; `None` when closed or the driver is away.
    #[must_use]
    pub fn position_limit(&self) -> Option<i64> {
        self.attachment().map(|attachment| attachment.limit.get_acquire())
    }

    /// Bytes between position and limit; `None` when closed or the driver is away.
    #[must_use]
    pub fn available_window(&self) -> Option<i64> {
        Some(self.position_limit()?.saturating_sub(self.position()?))
    }

    /// Whether somebody subscribes.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        if self.is_current() {
            self.attached
                .as_ref()
                .is_some_and(|attached| attached.attachment.log.metadata().is_connected())
        } else {
            self.attachment()
                .is_some_and(|attachment| attachment.log.metadata().is_connected())
        }
    }

    publication_queries!();
}

fn accepted(outcome: AppendOutcome) -> Result<i64, AppendOutcome> {
    match outcome {
        AppendOutcome::Appended { position } => Ok(position),
        refusal => Err(refusal),
    }
}

impl Attached {
    /// Tries with the limit at hand, which a reader still connected makes good, then with the limit of now.
    #[inline]
    fn with_limit<T>(
        &mut self,
        length: usize,
        mut append: impl FnMut(&mut ExclusiveAppender<View>, i64) -> Result<T, AppendOutcome>,
    ) -> Result<T, Offer> {
        if self.attachment.log.metadata().is_connected() {
            match append(&mut self.appender, self.limit) {
                Ok(done) => return Ok(done),
                Err(AppendOutcome::AtLimit { .. }) => {}
                Err(outcome) => return Err(self.refused(outcome, length)),
            }
        }
        let limit = self.fresh_limit();
        let done = append(&mut self.appender, limit).map_err(|outcome| self.refused(outcome, length))?;
        self.wake_sender();
        Ok(done)
    }

    /// Also returns the state under which the claim is committed.
    #[inline]
    fn claim(&mut self, length: usize, state: u64) -> Result<(Claimed, u64), Offer> {
        if self.attachment.log.metadata().is_connected() {
            match self.appender.claim(length, self.limit) {
                Ok(claimed) => return Ok((claimed, state)),
                Err(AppendOutcome::AtLimit { .. }) => {}
                Err(outcome) => return Err(self.refused(outcome, length)),
            }
        }
        self.claim_with_fresh_limit(length, state)
    }

    #[cold]
    #[inline(never)]
    fn claim_with_fresh_limit(&mut self, length: usize, state: u64) -> Result<(Claimed, u64), Offer> {
        let limit = self.fresh_limit();
        let claimed = self
            .appender
            .claim(length, limit)
            .map_err(|outcome| self.refused(outcome, length))?;
        let mark = if self.network.is_some() { TO_NETWORK } else { 0 };
        Ok((claimed, state ^ mark))
    }

    #[cold]
    fn fresh_limit(&mut self) -> i64 {
        let position = self.appender.position();
        let Some(network) = &mut self.network else {
            self.limit = self.attachment.limit_at(position);
            return self.limit;
        };
        if position >= network.limit || !self.attachment.log.metadata().is_connected() {
            network.limit = self.attachment.limit_at(position);
        }
        network.limit
    }

    /// Comes after something was published on the way of a fresh limit, which is the only one to the network.
    fn wake_sender(&self) {
        if let Some(network) = &self.network {
            network.bell.after_offer();
        }
    }

    #[cold]
    fn refused(&self, outcome: AppendOutcome, length: usize) -> Offer {
        match outcome {
            AppendOutcome::Appended { position } => Offer::Position(position),
            AppendOutcome::AtLimit { position } => self.attachment.refusal(position, length),
            AppendOutcome::AdminAction => Offer::AdminAction,
            AppendOutcome::MaxPositionExceeded => Offer::MaxPositionExceeded,
            AppendOutcome::TooLong => Offer::TooLong,
        }
    }
}

impl Claimant for ExclusivePublication {
    fn commit(
        &self,
        claimed: &Claimed,
        state: u64,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError> {
        let Some(attached) = self.attached.as_ref().filter(|_| self.state == state) else {
            return self.commit_to_network(claimed, state, staged, fields);
        };
        if self.shared.slot.state() != state {
            attached.appender.abort(claimed);
            return Err(CommitError::Closed);
        }
        Ok(attached.appender.commit(claimed, staged, fields))
    }

    fn abort(&self, claimed: &Claimed, state: u64) {
        if let Some(attached) = self.attached.as_ref().filter(|_| self.state == state) {
            attached.appender.abort(claimed);
        } else if state & TO_NETWORK != 0 {
            Claimant::abort(self, claimed, state ^ TO_NETWORK);
            self.wake_sender();
        }
    }

    fn give_back(&self, staging: Vec<u8>) {
        self.staging.set(staging);
    }
}

impl ExclusivePublication {
    /// A claim that was made under another state, and one to the network, which says so in its state.
    #[cold]
    #[inline(never)]
    fn commit_to_network(
        &self,
        claimed: &Claimed,
        state: u64,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError> {
        if state & TO_NETWORK == 0 {
            return Err(CommitError::Closed);
        }
        let position = Claimant::commit(self, claimed, state ^ TO_NETWORK, staged, fields)?;
        self.wake_sender();
        Ok(position)
    }

    fn wake_sender(&self) {
        if let Some(attached) = &self.attached {
            attached.wake_sender();
        }
    }
}

impl core::fmt::Debug for ExclusivePublication {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ExclusivePublication")
            .field("channel", &self.shared.channel)
            .field("stream_id", &self.shared.stream_id)
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}

// Cache lines: what an application thread writes in its handle is in no line that another thread reads.
const _: () = assert!(align_of::<ExclusivePublication>() == 128);
