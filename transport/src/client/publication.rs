//! A concurrent publication: any number of handles, in this and other processes, publish to one log
//! (shared-memory spec 10.2).
#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};
use std::sync::Arc;

use super::attachment::{Attachment, PublicationShared, Window};
use super::claim::{Claim, Claimant, TO_NETWORK};
use super::client::{Client, Handle};
use super::error::{CommitError, RegistrationError};
use super::offer::{BatchOffer, Offer};
use super::pending::PendingOperation;
use super::registry::ResourceKey;
use super::slot::{NEVER, Slot, lock};
use super::status::ChannelStatus;
use crate::agent::OfferBell;
use crate::id::{CounterId, RegistrationId, SessionId};
use crate::log::{
    AppendOutcome, BatchOutcome, Claimed, ConcurrentAppender, FrameFields, FrameView, NoReservedValue,
    ReservedValue, Source,
};
use crate::memory::View;

/// A publication whose log may be shared with other publications of the same channel and stream.
///
/// A handle belongs to one thread at a time; [`Clone`] gives another thread a handle of its own. The publication is
/// closed when its last handle is gone.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub struct Publication {
    handle: Arc<Handle>,
    shared: Arc<PublicationShared>,
    local: RefCell<Local>,
    staging: Cell<Vec<u8>>,
}

/// What this handle last picked up from the conductor.
struct Local {
    state: u64,
    attached: Option<Attached>,
}

struct Attached {
    appender: ConcurrentAppender<View>,
    /// The limit as read last; the counter is looked at again when it is reached. Publications to the network have
    /// always reached it: everything that only they do is done on that way.
    limit: Cell<i64>,
    window: Window,
    attachment: Arc<Attachment>,
    /// Only publications to the network have it.
    network: Option<ToNetwork>,
}

/// What a handle needs to publish to the network.
struct ToNetwork {
    /// Wakes the sender after an offer.
    bell: OfferBell,
    /// The limit as read last.
    limit: Cell<i64>,
}

impl Publication {
    pub(super) fn new(client: Client, key: ResourceKey, shared: Arc<PublicationShared>) -> Self {
        Self::of(Arc::new(Handle::new(client, key)), shared)
    }

    fn of(handle: Arc<Handle>, shared: Arc<PublicationShared>) -> Self {
        Publication {
            handle,
            shared,
            local: RefCell::new(Local {
                state: NEVER,
                attached: None,
            }),
            staging: Cell::new(Vec::new()),
        }
    }

    /// Publishes a message of at most [`Self::max_message_length`] bytes. Longer than
    /// [`Self::max_payload_length`], it goes out in several fragments.
    #[inline]
    pub fn offer(&self, message: &[u8]) -> Offer {
        self.append(message, &NoReservedValue)
    }

    /// Publishes one message made of several parts.
    #[inline]
    pub fn offer_parts(&self, parts: &[&[u8]]) -> Offer {
        self.append(parts, &NoReservedValue)
    }

    /// Publishes a message; `reserved_value` is asked for the reserved value of each fragment, whose payload is in
    /// place by then.
    #[inline]
    pub fn offer_with(&self, message: &[u8], reserved_value: impl Fn(&FrameView<'_, View>) -> i64) -> Offer {
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
    pub fn offer_batch(&self, messages: &[&[u8]]) -> BatchOffer {
        let first = messages.first().map_or(0, |message| message.len());
        self.append_batch(first, |appender, window, limit| {
            appender.offer_batch(window, messages, limit)
        })
    }

    /// As [`Self::offer_batch`], with messages of `length` bytes each that lie one behind the other, the last of which
    /// may be shorter. The caller goes on behind `accepted * length` bytes. A `length` of 0 is taken for 1.
    #[inline]
    pub fn offer_batch_of(&self, messages: &[u8], length: usize) -> BatchOffer {
        self.append_batch(length.min(messages.len()), |appender, window, limit| {
            appender.offer_batch_of(window, messages, length, limit)
        })
    }

    /// Reserves a message of `length` bytes, at most [`Self::max_payload_length`], to be filled in and committed.
    /// Everything published later waits for it.
    ///
    /// # Errors
    /// The outcome when nothing was reserved.
    #[inline]
    pub fn try_claim(&self, length: usize) -> Result<Claim<'_>, Offer> {
        for _ in 0..2 {
            {
                let local = self.local.borrow();
                if local.state == self.shared.slot.state() {
                    let Some(attached) = &local.attached else {
                        return Err(self.refusal_when_detached());
                    };
                    let (claimed, state) = attached.claim(length, local.state)?;
                    return Ok(Claim::new(self, claimed, state, self.staging.take(), length));
                }
            }
            self.refresh();
        }
        Err(Offer::AdminAction)
    }

    #[inline(always)]
    fn append<S, R>(&self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        {
            let local = self.local.borrow();
            if local.state == self.shared.slot.state()
                && let Some(attached) = &local.attached
            {
                return attached.offer(source, reserved);
            }
        }
        self.append_after_refresh(source, reserved)
    }

    #[cold]
    #[inline(never)]
    fn append_after_refresh<S, R>(&self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        self.refresh();
        match &self.local.borrow().attached {
            Some(attached) => attached.offer(source, reserved),
            None => self.refusal_when_detached(),
        }
    }

    /// Appends a batch whose first message has `length` bytes.
    #[inline(always)]
    fn append_batch(
        &self,
        length: usize,
        append: impl Fn(&ConcurrentAppender<View>, &Window, i64) -> BatchOutcome,
    ) -> BatchOffer {
        if self.local.borrow().state != self.shared.slot.state() {
            self.refresh();
        }
        match &self.local.borrow().attached {
            Some(attached) => attached
                .with_limit(length, |appender, window, limit| {
                    BatchOffer::of(append(appender, window, limit))
                })
                .unwrap_or_else(BatchOffer::refused),
            None => BatchOffer::refused(self.refusal_when_detached()),
        }
    }

    /// Picks up what the conductor has for this handle.
    #[cold]
    fn refresh(&self) {
        // Inside a reserved value function of this handle the old log stays in use until the offer is over.
        let Ok(mut local) = self.local.try_borrow_mut() else {
            return;
        };
        let (state, attachment) = self.shared.slot.fetch();
        if state == local.state {
            return;
        }
        local.attached = None;
        local.attached = attachment.map(|attachment| Attached::new(&self.handle, attachment));
        local.state = state;
    }

    #[cold]
    fn refusal_when_detached(&self) -> Offer {
        if Slot::<Arc<Attachment>>::is_closed(self.shared.slot.state()) {
            Offer::Closed
        } else {
            Offer::NotConnected
        }
    }

    fn with_attached<R>(&self, f: impl FnOnce(&Attached) -> R) -> Option<R> {
        if self.local.borrow().state != self.shared.slot.state() {
            self.refresh();
        }
        self.local.borrow().attached.as_ref().map(f)
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        self.shared.slot.fetch().1
    }

    /// Where the stream has come to, by all its publishers, bytes; `None` when closed or the driver is away.
    #[must_use]
    pub fn position(&self) -> Option<i64> {
        self.with_attached(|attached| attached.appender.position())
    }

    /// How far the stream may come at the moment, bytes; `None` when closed or the driver is away.
    #[must_use]
    pub fn position_limit(&self) -> Option<i64> {
        self.with_attached(|attached| attached.attachment.limit.get_acquire())
    }

    /// Bytes between position and limit; `None` when closed or the driver is away.
    #[must_use]
    pub fn available_window(&self) -> Option<i64> {
        self.with_attached(|attached| {
            attached
                .attachment
                .limit
                .get_acquire()
                .saturating_sub(attached.appender.position())
        })
    }

    /// Whether somebody subscribes.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.with_attached(|attached| attached.attachment.log.metadata().is_connected())
            .unwrap_or(false)
    }
}

/// Both kinds of publication answer these alike.
macro_rules! publication_queries {
    () => {
        /// Whether the publication, or its client, is closed.
        #[must_use]
        pub fn is_closed(&self) -> bool {
            Slot::<Arc<Attachment>>::is_closed(self.shared.slot.state())
        }

        /// The longest message, bytes; 0 when closed or the driver is away.
        #[must_use]
        pub fn max_message_length(&self) -> usize {
            self.attachment()
                .map_or(0, |attachment| attachment.log.max_message_length())
        }

        /// The longest payload of one fragment, bytes; 0 when closed or the driver is away.
        #[must_use]
        pub fn max_payload_length(&self) -> usize {
            self.attachment()
                .map_or(0, |attachment| attachment.log.max_payload_length())
        }

        /// The length of a term, bytes; 0 when closed or the driver is away.
        #[must_use]
        pub fn term_length(&self) -> i32 {
            self.attachment()
                .map_or(0, |attachment| attachment.log.term_length())
        }

        /// The first term id of the stream; `None` when closed or the driver is away.
        #[must_use]
        pub fn initial_term_id(&self) -> Option<i32> {
            self.attachment()
                .map(|attachment| attachment.log.shape().initial_term_id.0)
        }

        /// The position that the stream can never reach; 0 when closed or the driver is away.
        #[must_use]
        pub fn max_possible_position(&self) -> i64 {
            self.attachment().map_or(0, |attachment| {
                attachment.log.shape().max_possible_position()
            })
        }

        /// The session; another one after the driver was lost and a new one found.
        #[must_use]
        pub fn session_id(&self) -> SessionId {
            lock(&self.shared.identity).session_id
        }

        /// The stream.
        #[must_use]
        pub fn stream_id(&self) -> i32 {
            self.shared.stream_id
        }

        /// The channel as it was asked for.
        #[must_use]
        pub fn channel(&self) -> &str {
            &self.shared.channel
        }

        /// The registration id of this client's add.
        #[must_use]
        pub fn registration_id(&self) -> RegistrationId {
            lock(&self.shared.identity).registration_id
        }

        /// The registration id of the add that created the log.
        #[must_use]
        pub fn original_registration_id(&self) -> RegistrationId {
            lock(&self.shared.identity).original_registration_id
        }

        /// Whether this client's add created the log.
        #[must_use]
        pub fn is_original(&self) -> bool {
            let identity = *lock(&self.shared.identity);
            identity.registration_id == identity.original_registration_id
        }

        /// The index of the counter that holds the position limit.
        #[must_use]
        pub fn position_limit_id(&self) -> CounterId {
            lock(&self.shared.identity).limit
        }

        /// The index of the channel's status counter; [`CounterId::NONE`] for IPC.
        #[must_use]
        pub fn channel_status_id(&self) -> CounterId {
            lock(&self.shared.identity).status
        }

        /// The state of the channel.
        #[must_use]
        pub fn channel_status(&self) -> ChannelStatus {
            if self.is_closed() {
                return ChannelStatus::Closing;
            }
            self.handle
                .client()
                .channel_status(self.channel_status_id())
        }

        /// Addresses the channel sends from, `host:port`; empty for IPC and until the channel is active.
        #[must_use]
        pub fn local_addresses(&self) -> Vec<String> {
            self.handle
                .client()
                .local_addresses(self.channel_status_id())
        }

        /// Adds a destination to a publication with `control-mode=manual` and waits for the driver's word. Returns
        /// the destination's registration id.
        ///
        /// # Errors
        /// [`RegistrationError`]: refused, late, or the driver is away.
        pub fn add_destination(&self, uri: &str) -> Result<RegistrationId, RegistrationError> {
            self.async_add_destination(uri)?.wait()
        }

        /// As [`Self::add_destination`], without waiting.
        ///
        /// # Errors
        /// [`RegistrationError`]: the command could not be sent.
        pub fn async_add_destination(&self, uri: &str) -> Result<PendingOperation, RegistrationError> {
            self.handle.client().add_destination(self.handle.key(), uri)
        }

        /// Removes a destination by its URI and waits for the driver's word.
        ///
        /// # Errors
        /// [`RegistrationError`]: refused, late, or the driver is away.
        pub fn remove_destination(&self, uri: &str) -> Result<(), RegistrationError> {
            self.handle
                .client()
                .remove_destination(self.handle.key(), uri)?
                .wait()
                .map(|_| ())
        }

        /// Removes a destination by its registration id and waits for the driver's word.
        ///
        /// # Errors
        /// [`RegistrationError`]: refused, late, or the driver is away.
        pub fn remove_destination_by_id(&self, destination: RegistrationId) -> Result<(), RegistrationError> {
            self.handle
                .client()
                .remove_destination_by_id(self.handle.key(), destination)?
                .wait()
                .map(|_| ())
        }

        /// Closes the publication and ends the stream at once: what was not read yet is lost.
        pub fn revoke(self) {
            self.handle.revoke();
        }

        /// Gives this handle up; the last one closes the publication. Dropping does the same.
        pub fn close(self) {}
    };
}
pub(super) use publication_queries;

impl Publication {
    publication_queries!();
}

impl Clone for Publication {
    fn clone(&self) -> Self {
        Self::of(self.handle.clone(), self.shared.clone())
    }
}

impl Attached {
    fn new(handle: &Handle, attachment: Arc<Attachment>) -> Self {
        let tag = handle.client().next_owner_tag(attachment.client_id);
        let slot = attachment.extension.as_ref().and_then(|extension| {
            extension.claim_owner_slot(
                attachment.client_id,
                tag,
                attachment.identity.original_registration_id,
            )
        });
        // SYNC publisher-limit: memory below the limit has been zeroed.
        let limit = attachment.limit.get_acquire();
        let network = attachment.offer_bell().map(|bell| ToNetwork {
            bell,
            limit: Cell::new(limit),
        });
        Attached {
            appender: ConcurrentAppender::new((*attachment.log).clone(), tag),
            limit: Cell::new(if network.is_some() { i64::MIN } else { limit }),
            window: Window(slot),
            attachment,
            network,
        }
    }

    #[inline(always)]
    fn offer<S, R>(&self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        // The cached limit may outlive the last subscriber; the connection may not.
        if self.appender.log().metadata().is_connected() {
            let outcome = self
                .appender
                .offer(&self.window, source, reserved, self.limit.get());
            if let AppendOutcome::Appended { position } = outcome {
                return Offer::Position(position);
            }
            if !matches!(outcome, AppendOutcome::AtLimit { .. }) {
                return self.refused(outcome, source.length());
            }
        }
        self.offer_with_fresh_limit(source, reserved)
    }

    #[cold]
    #[inline(never)]
    fn offer_with_fresh_limit<S, R>(&self, source: &S, reserved: &R) -> Offer
    where
        S: Source + ?Sized,
        R: ReservedValue<View>,
    {
        let limit = self.fresh_limit();
        match self.appender.offer(&self.window, source, reserved, limit) {
            AppendOutcome::Appended { position } => {
                self.wake_sender();
                Offer::Position(position)
            }
            outcome => self.refused(outcome, source.length()),
        }
    }

    /// Tries with the limit at hand, which a reader still connected makes good, then with the limit of now.
    #[inline(always)]
    fn with_limit<T>(
        &self,
        length: usize,
        append: impl Fn(&ConcurrentAppender<View>, &Window, i64) -> Result<T, AppendOutcome>,
    ) -> Result<T, Offer> {
        if self.appender.log().metadata().is_connected() {
            match append(&self.appender, &self.window, self.limit.get()) {
                Ok(done) => return Ok(done),
                Err(AppendOutcome::AtLimit { .. }) => {}
                Err(outcome) => return Err(self.refused(outcome, length)),
            }
        }
        let done = append(&self.appender, &self.window, self.fresh_limit())
            .map_err(|outcome| self.refused(outcome, length))?;
        self.wake_sender();
        Ok(done)
    }

    /// Also returns the state under which the claim is committed.
    #[inline]
    fn claim(&self, length: usize, state: u64) -> Result<(Claimed, u64), Offer> {
        if self.appender.log().metadata().is_connected() {
            match self.appender.claim(&self.window, length, self.limit.get()) {
                Ok(claimed) => return Ok((claimed, state)),
                Err(AppendOutcome::AtLimit { .. }) => {}
                Err(outcome) => return Err(self.refused(outcome, length)),
            }
        }
        self.claim_with_fresh_limit(length, state)
    }

    #[cold]
    #[inline(never)]
    fn claim_with_fresh_limit(&self, length: usize, state: u64) -> Result<(Claimed, u64), Offer> {
        let claimed = self
            .appender
            .claim(&self.window, length, self.fresh_limit())
            .map_err(|outcome| self.refused(outcome, length))?;
        let mark = if self.network.is_some() { TO_NETWORK } else { 0 };
        Ok((claimed, state ^ mark))
    }

    fn fresh_limit(&self) -> i64 {
        let position = self.appender.position();
        let Some(network) = &self.network else {
            let limit = self.attachment.limit_at(position);
            self.limit.set(limit);
            return limit;
        };
        if position >= network.limit.get() || !self.appender.log().metadata().is_connected() {
            network.limit.set(self.attachment.limit_at(position));
        }
        network.limit.get()
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

impl Claimant for Publication {
    fn commit(
        &self,
        claimed: &Claimed,
        state: u64,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError> {
        let local = self.local.borrow();
        let Some(attached) = local.attached.as_ref().filter(|_| local.state == state) else {
            return self.commit_to_network(claimed, state, staged, fields);
        };
        if self.shared.slot.state() != state {
            let _ = attached.appender.abort(&attached.window, claimed);
            return Err(CommitError::Closed);
        }
        attached
            .appender
            .commit(&attached.window, claimed, staged, fields)
            .map_err(|crate::log::CommitError::ClaimRevoked| CommitError::ClaimRevoked)
    }

    fn abort(&self, claimed: &Claimed, state: u64) {
        let local = self.local.borrow();
        if let Some(attached) = local.attached.as_ref().filter(|_| local.state == state) {
            // Revoked means that the driver has already made padding of it, which is what an abort wants.
            let _ = attached.appender.abort(&attached.window, claimed);
        } else if state & TO_NETWORK != 0 {
            Claimant::abort(self, claimed, state ^ TO_NETWORK);
            self.wake_sender();
        }
    }

    fn give_back(&self, staging: Vec<u8>) {
        self.staging.set(staging);
    }
}

impl Publication {
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
        if let Some(attached) = &self.local.borrow().attached {
            attached.wake_sender();
        }
    }
}

impl core::fmt::Debug for Publication {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Publication")
            .field("channel", &self.shared.channel)
            .field("stream_id", &self.shared.stream_id)
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}

// Cache lines: what an application thread writes in its handle is in no line that another thread reads.
const _: () = assert!(align_of::<Publication>() == 128);
