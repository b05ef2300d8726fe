//! What simulated applications do: publishers that offer numbered messages whose bytes follow from their number, and
//! subscribers that poll. What a message should be is never stored; it is made again and compared.
#![forbid(unsafe_code)]

use fulmar::client::{
    PendingExclusivePublication, PendingOperation, PendingPublication, PendingSubscription,
};
use fulmar::control::ErrorCode;
use fulmar::id::SessionId;
use fulmar::log::Payload;
use fulmar::time::NanoTime;
use fulmar::{
    Claim, Client, CommitError, ExclusivePublication, Offer, Publication, RegistrationError, Subscription,
};

use super::checkers::{Checkers, Received, Violation};
use super::prng::Prng;

/// Shortest message: which publisher it is from, and its number.
pub const MESSAGE_LENGTH_MIN: usize = 16;

/// How long a publisher waits that was not taken, nanoseconds.
const RETRY_NS: i64 = 200_000;

/// How long a publisher waits that is not ready or not connected, nanoseconds.
const RETRY_UNCONNECTED_NS: i64 = 2_000_000;

/// How long an application waits that can not add a destination now, nanoseconds.
const RETRY_DESTINATION_NS: i64 = 50_000_000;

/// How long an application waits that was refused for now, nanoseconds.
const RETRY_REFUSED_NS: i64 = 100_000_000;

/// Fragments that a subscriber takes at most in a turn.
const FRAGMENT_LIMIT: usize = 64;

/// How long messages are, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The shortest, at least [`MESSAGE_LENGTH_MIN`].
    pub min: usize,
    /// The longest.
    pub max: usize,
}

/// Puts one message together: its length and every byte follow from publisher and number.
pub fn compose(publisher: u64, number: u64, lengths: Lengths, into: &mut Vec<u8>) {
    let length = length_of(publisher, number, lengths);
    into.clear();
    into.extend_from_slice(&publisher.to_le_bytes());
    into.extend_from_slice(&number.to_le_bytes());
    let mut word = mix(publisher.rotate_left(32) ^ number);
    while into.len() < length {
        word = mix(word);
        let left = length - into.len();
        into.extend_from_slice(&word.to_le_bytes()[..left.min(8)]);
    }
}

/// The length of a message: most are short, one in four has any length.
#[must_use]
pub fn length_of(publisher: u64, number: u64, lengths: Lengths) -> usize {
    let drawn = mix(mix(publisher) ^ number);
    let room = lengths.max - lengths.min;
    let room = if drawn.is_multiple_of(4) {
        room
    } else {
        room.min(256)
    };
    lengths.min + ((drawn >> 8) as usize) % (room + 1)
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    value ^ (value >> 29)
}

/// Destinations that an application adds to a channel in manual control mode, one after the other.
struct Destinations {
    channels: Vec<String>,
    /// How many of them are there.
    added: usize,
    pending: Option<PendingOperation>,
    retry_at: NanoTime,
}

impl Destinations {
    fn new(channels: Vec<String>, now: NanoTime) -> Self {
        Self {
            channels,
            added: 0,
            pending: None,
            retry_at: now,
        }
    }

    /// Adds the next one, if the one before is there. What fails is tried again: the driver may be away, and the socket
    /// of a predecessor that died stays open until the driver gives it up. One that fails for ever is seen where
    /// everybody has to get on.
    fn step(
        &mut self,
        now: NanoTime,
        add: impl FnOnce(&str) -> Result<PendingOperation, RegistrationError>,
    ) -> usize {
        let Some(channel) = self.channels.get(self.added) else {
            return 0;
        };
        match &mut self.pending {
            Some(pending) => match pending.poll() {
                None => return 0,
                Some(Ok(_)) => {
                    self.pending = None;
                    self.added += 1;
                }
                Some(Err(_)) => {
                    self.pending = None;
                    self.retry_at = now.plus_nanos(RETRY_DESTINATION_NS);
                }
            },
            None if self.retry_at.is_due(now) => match add(channel) {
                Ok(pending) => self.pending = Some(pending),
                Err(_) => self.retry_at = now.plus_nanos(RETRY_DESTINATION_NS),
            },
            None => return 0,
        }
        1
    }
}

/// How a publisher offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherPlan {
    /// The channel.
    pub channel: String,
    /// The stream.
    pub stream_id: i32,
    /// Destinations to add, where the channel leaves them to the application.
    pub destinations: Vec<String>,
    /// Whether it has a log of its own.
    pub exclusive: bool,
    /// How long its messages are.
    pub lengths: Lengths,
    /// How often it offers, nanoseconds.
    pub interval_ns: i64,
    /// How many messages it offers at a time.
    pub burst: u32,
    /// In how many of a million cases a message that fits is claimed and committed rather than offered.
    pub claim_ppm: u32,
    /// Whether it pauses, as long as there are faults.
    pub pause: Option<Pause>,
    /// Whether the driver may refuse it for lack of storage; then it tries again.
    pub awaits_storage: bool,
}

/// How a publisher pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// After so many messages or a few more.
    pub after: u32,
    /// How long, nanoseconds.
    pub for_ns: i64,
}

/// How a subscriber is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How often it polls, nanoseconds.
    pub interval_ns: i64,
    /// How many fragments of each image it takes then.
    pub fragment_limit: usize,
}

enum PublicationHandle {
    Coming(PendingPublication),
    ComingExclusive(PendingExclusivePublication),
    Ready(Box<Writer>),
    /// It was refused for now; it is asked for again.
    Refused(NanoTime),
}

/// Either kind of publication.
enum Writer {
    Shared(Publication),
    Exclusive(ExclusivePublication),
}

impl Writer {
    fn session_id(&self) -> SessionId {
        match self {
            Writer::Shared(publication) => publication.session_id(),
            Writer::Exclusive(publication) => publication.session_id(),
        }
    }

    fn max_payload_length(&self) -> usize {
        match self {
            Writer::Shared(publication) => publication.max_payload_length(),
            Writer::Exclusive(publication) => publication.max_payload_length(),
        }
    }

    fn async_add_destination(&self, channel: &str) -> Result<PendingOperation, RegistrationError> {
        match self {
            Writer::Shared(publication) => publication.async_add_destination(channel),
            Writer::Exclusive(publication) => publication.async_add_destination(channel),
        }
    }

    fn offer(&mut self, message: &[u8]) -> Offer {
        match self {
            Writer::Shared(publication) => publication.offer(message),
            Writer::Exclusive(publication) => publication.offer(message),
        }
    }

    fn try_claim(&mut self, length: usize) -> Result<Claim<'_>, Offer> {
        match self {
            Writer::Shared(publication) => publication.try_claim(length),
            Writer::Exclusive(publication) => publication.try_claim(length),
        }
    }
}

fn add_publication(client: &Client, plan: &PublisherPlan) -> Result<PublicationHandle, RegistrationError> {
    if plan.exclusive {
        client
            .async_add_exclusive_publication(&plan.channel, plan.stream_id)
            .map(PublicationHandle::ComingExclusive)
    } else {
        client
            .async_add_publication(&plan.channel, plan.stream_id)
            .map(PublicationHandle::Coming)
    }
}

/// One publisher at work.
pub struct Publisher {
    plan: PublisherPlan,
    /// As the checkers know it; in every message.
    id: u64,
    handle: PublicationHandle,
    destinations: Destinations,
    next_offer: NanoTime,
    next_number: u64,
    is_offering: bool,
    /// Since the latest pause.
    taken: u32,
    message: Vec<u8>,
}

impl Publisher {
    /// Asks for the publication.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn new(
        client: &Client,
        plan: PublisherPlan,
        id: u64,
        now: NanoTime,
    ) -> Result<Self, RegistrationError> {
        let handle = add_publication(client, &plan)?;
        Ok(Self {
            destinations: Destinations::new(plan.destinations.clone(), now),
            plan,
            id,
            handle,
            next_offer: now,
            next_number: 0,
            is_offering: true,
            taken: 0,
            message: Vec::new(),
        })
    }

    /// As the checkers know it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many messages it wants to offer in so many nanoseconds.
    #[must_use]
    pub fn messages_in(&self, nanos: i64) -> u64 {
        (nanos / self.plan.interval_ns).cast_unsigned() * u64::from(self.plan.burst)
    }

    /// Offers nothing any more.
    pub fn stop_offering(&mut self) {
        self.is_offering = false;
    }

    /// Pauses no more.
    pub fn end_faults(&mut self, now: NanoTime) {
        if self.plan.pause.take().is_some() {
            self.next_offer = now;
        }
    }

    /// When it wants a turn.
    #[must_use]
    pub fn next_deadline(&self, now: NanoTime) -> NanoTime {
        if self.is_offering {
            self.next_offer
        } else {
            NanoTime::never_after(now)
        }
    }

    /// One turn; returns the messages that were taken.
    ///
    /// # Errors
    /// What the checkers find wrong with it.
    pub fn step(
        &mut self,
        now: NanoTime,
        client: &Client,
        prng: &mut Prng,
        checkers: &mut Checkers,
    ) -> Result<usize, Violation> {
        self.await_handle(now, client, checkers)?;
        if let PublicationHandle::Ready(writer) = &self.handle {
            self.destinations
                .step(now, |channel| writer.async_add_destination(channel));
        }
        if !self.is_offering || !self.next_offer.is_due(now) {
            return Ok(0);
        }
        for taken in 0..self.plan.burst {
            let claims = prng.chance(self.plan.claim_ppm);
            if let Some(wait_ns) = self.offer_next(claims, checkers)? {
                self.next_offer = now.plus_nanos(wait_ns);
                return Ok(taken as usize);
            }
        }
        self.next_offer = now.plus_nanos(self.plan.interval_ns);
        self.taken += self.plan.burst;
        if let Some(pause) = self.plan.pause
            && self.taken >= pause.after
        {
            self.taken = 0;
            self.next_offer = now.plus_nanos(pause.for_ns);
        }
        Ok(self.plan.burst as usize)
    }

    /// Claims room for a message and leaves it so, as an application does that dies in the middle of it. Returns
    /// whether there was room.
    pub fn claim_and_vanish(&mut self) -> bool {
        let length = self.plan.lengths.min;
        let PublicationHandle::Ready(writer) = &mut self.handle else {
            return false;
        };
        // Neither committed nor aborted.
        writer.try_claim(length).map(core::mem::forget).is_ok()
    }

    fn await_handle(
        &mut self,
        now: NanoTime,
        client: &Client,
        checkers: &mut Checkers,
    ) -> Result<(), Violation> {
        let polled = match &mut self.handle {
            PublicationHandle::Coming(pending) => {
                pending.poll().map(|publication| publication.map(Writer::Shared))
            }
            PublicationHandle::ComingExclusive(pending) => pending
                .poll()
                .map(|publication| publication.map(Writer::Exclusive)),
            PublicationHandle::Refused(until) if until.is_due(now) => {
                if let Ok(handle) = add_publication(client, &self.plan) {
                    self.handle = handle;
                }
                None
            }
            PublicationHandle::Ready(_) | PublicationHandle::Refused(_) => None,
        };
        match polled {
            None => {}
            Some(Ok(writer)) => {
                self.handle = PublicationHandle::Ready(Box::new(writer));
                self.destinations = Destinations::new(self.plan.destinations.clone(), now);
            }
            Some(Err(error)) if passes(&error, self.plan.awaits_storage) => {
                checkers.on_refused_for_now();
                self.handle = PublicationHandle::Refused(now.plus_nanos(RETRY_REFUSED_NS));
            }
            Some(Err(error)) => {
                return Err(Violation::new(
                    "refused",
                    format!("a publication was refused: {error}"),
                ));
            }
        }
        Ok(())
    }

    /// Offers the next message; if it was not taken, how long to wait, nanoseconds.
    fn offer_next(&mut self, claims: bool, checkers: &mut Checkers) -> Result<Option<i64>, Violation> {
        let PublicationHandle::Ready(writer) = &mut self.handle else {
            return Ok(Some(RETRY_UNCONNECTED_NS));
        };
        compose(self.id, self.next_number, self.plan.lengths, &mut self.message);
        let (session_id, payload_max) = (writer.session_id(), writer.max_payload_length());
        let outcome = if claims && self.message.len() <= payload_max {
            commit(writer.try_claim(self.message.len()), &self.message).map_err(|error| {
                // Nobody else had a turn between claim and commit.
                let what = format!(
                    "publisher {} can not commit what it just claimed: {error}",
                    self.id
                );
                Violation::new("a claim is whose claimed it", what)
            })?
        } else {
            writer.offer(&self.message)
        };
        match outcome {
            Offer::Position(position) => {
                let length = self.message.len();
                checkers.on_offered(self.id, session_id, position, length, payload_max)?;
                self.next_number += 1;
                Ok(None)
            }
            Offer::BackPressured | Offer::AdminAction => Ok(Some(RETRY_NS)),
            Offer::NotConnected => Ok(Some(RETRY_UNCONNECTED_NS)),
            // A successor of its driver had no room for its log.
            Offer::Closed if self.plan.awaits_storage => {
                checkers.on_refused_for_now();
                self.handle = PublicationHandle::Refused(self.next_offer);
                Ok(Some(RETRY_REFUSED_NS))
            }
            Offer::Closed | Offer::MaxPositionExceeded | Offer::TooLong => Err(Violation::new(
                "offer",
                format!(
                    "publisher {} can not offer {} bytes: {outcome:?}",
                    self.id,
                    self.message.len()
                ),
            )),
        }
    }
}

/// Whether it is worth trying again: the channel is just being closed, by whoever had it before, or there is no storage
/// where it may be short. One that never passes is seen where everybody has to get on.
fn passes(error: &RegistrationError, awaits_storage: bool) -> bool {
    match error {
        RegistrationError::Refused { code, .. } => match code {
            ErrorCode::ResourceTemporarilyUnavailable => true,
            ErrorCode::StorageSpace => awaits_storage,
            _ => false,
        },
        _ => false,
    }
}

/// Fills and commits a claim.
fn commit(claim: Result<Claim<'_>, Offer>, message: &[u8]) -> Result<Offer, CommitError> {
    match claim {
        Ok(mut claim) => {
            claim.copy_from_slice(message);
            claim.commit().map(Offer::Position)
        }
        Err(refused) => Ok(refused),
    }
}

/// What a subscriber listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberPlan {
    /// The channel.
    pub channel: String,
    /// The stream.
    pub stream_id: i32,
    /// Destinations to add, where the channel leaves them to the application.
    pub destinations: Vec<String>,
    /// Whether no publisher waits for it, by the flow control of the stream: losses may break its image.
    pub may_be_left_behind: bool,
    /// In how many of a million turns it does not poll, so that it falls behind.
    pub lazy_ppm: u32,
    /// Whether it is slow, as long as there are faults.
    pub slow: Option<Slow>,
}

enum SubscriptionHandle {
    Coming(PendingSubscription),
    Ready(Subscription),
    /// It was refused for now; it is asked for again.
    Refused(NanoTime),
}

fn add_subscription(
    client: &Client,
    plan: &SubscriberPlan,
) -> Result<PendingSubscription, RegistrationError> {
    client.async_add_subscription(&plan.channel, plan.stream_id, fulmar::ImageHandlers::default())
}

/// One subscriber at work.
pub struct Subscriber {
    plan: SubscriberPlan,
    id: u64,
    handle: SubscriptionHandle,
    destinations: Destinations,
    next_poll: NanoTime,
    bytes: Vec<u8>,
}

impl Subscriber {
    /// Asks for the subscription.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn new(
        client: &Client,
        plan: SubscriberPlan,
        id: u64,
        now: NanoTime,
    ) -> Result<Self, RegistrationError> {
        let pending = add_subscription(client, &plan)?;
        Ok(Self {
            destinations: Destinations::new(plan.destinations.clone(), now),
            plan,
            id,
            handle: SubscriptionHandle::Coming(pending),
            next_poll: now,
            bytes: Vec::new(),
        })
    }

    /// As the checkers know it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The sessions that it has images of.
    pub fn sessions(&mut self) -> Vec<SessionId> {
        match &mut self.handle {
            SubscriptionHandle::Ready(subscription) => {
                let images = subscription.images().iter();
                images.map(|image| image.session_id()).collect()
            }
            SubscriptionHandle::Coming(_) | SubscriptionHandle::Refused(_) => Vec::new(),
        }
    }

    /// Whether messages can come.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(&self.handle, SubscriptionHandle::Ready(subscription) if subscription.is_connected())
    }

    /// Is slow no more.
    pub fn end_faults(&mut self) {
        self.plan.slow = None;
    }

    /// One turn; returns the fragments taken, and what it did with its destinations.
    ///
    /// # Errors
    /// What the checkers find wrong with them.
    pub fn step(
        &mut self,
        now: NanoTime,
        client: &Client,
        prng: &mut Prng,
        checkers: &mut Checkers,
    ) -> Result<usize, Violation> {
        let subscription = match &mut self.handle {
            SubscriptionHandle::Ready(subscription) => subscription,
            SubscriptionHandle::Coming(pending) => {
                let Some(result) = pending.poll() else {
                    return Ok(0);
                };
                self.handle = match result {
                    Ok(subscription) => SubscriptionHandle::Ready(subscription),
                    Err(error) if passes(&error, false) => {
                        SubscriptionHandle::Refused(now.plus_nanos(RETRY_REFUSED_NS))
                    }
                    Err(error) => {
                        return Err(Violation::new(
                            "refused",
                            format!("a subscription was refused: {error}"),
                        ));
                    }
                };
                return Ok(1);
            }
            SubscriptionHandle::Refused(until) => {
                if until.is_due(now)
                    && let Ok(pending) = add_subscription(client, &self.plan)
                {
                    self.handle = SubscriptionHandle::Coming(pending);
                }
                return Ok(0);
            }
        };
        let added = self
            .destinations
            .step(now, |channel| subscription.async_add_destination(channel));
        if prng.chance(self.plan.lazy_ppm) {
            return Ok(added);
        }
        let mut fragment_limit = FRAGMENT_LIMIT;
        if let Some(slow) = self.plan.slow {
            // It looks every now and then, not at once when something came.
            if !self.next_poll.is_due(now) {
                return Ok(added);
            }
            self.next_poll = now.plus_nanos(slow.interval_ns);
            fragment_limit = slow.fragment_limit;
        }
        let (id, bytes) = (self.id, &mut self.bytes);
        let mut found = Ok(());
        let mut fragments = added;
        for image in subscription.images() {
            let (image_id, join_position) = (image.correlation_id().get(), image.join_position());
            fragments += image.poll(
                |payload: Payload<'_>, header| {
                    if found.is_err() {
                        return;
                    }
                    bytes.resize(payload.len(), 0);
                    let _ = payload.copy_to(0, bytes);
                    found = checkers.on_received(&Received {
                        subscriber: id,
                        image: image_id,
                        join_position,
                        session_id: header.session_id(),
                        position: header.position(),
                        payload: bytes,
                    });
                },
                fragment_limit,
            );
        }
        // A whole poll lets images that have ended leave.
        subscription.poll(|_, _| {}, 0);
        found.map(|()| fragments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_follows_from_its_number_and_two_numbers_differ() {
        let lengths = Lengths { min: 16, max: 5000 };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut longest = 0;
        for number in 0..1000 {
            compose(7, number, lengths, &mut one);
            compose(7, number, lengths, &mut other);
            assert_eq!(one, other);
            assert_eq!(one.len(), length_of(7, number, lengths));
            assert!((16..=5000).contains(&one.len()));
            longest = longest.max(one.len());
            compose(7, number + 1, lengths, &mut other);
            assert_ne!(one, other);
        }
        assert!(longest > 4000, "{longest}");
    }
}
