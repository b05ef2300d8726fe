//! Destinations of a multi-destination publication (wire protocol 6.3, 6.4): given by the application, or learnt from
//! status messages.
//!
//! A learnt destination is somebody who asked from an address that may be forged. It is sent SETUPs, which answer its
//! request in kind, and nothing else until a status message with a valid position of a stream comes from there: only
//! who got a SETUP can know one. Until then it gets no more than three times the bytes it sent.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::id::RegistrationId;
use fulmar::time::NanoTime;
use fulmar::wire::setup::SETUP_LENGTH;
use fulmar::wire::status_message::SM_MIN_LENGTH;

/// Destinations that are learnt; requests beyond it are not answered. Destinations given by the application are not
/// limited by this.
pub const LEARNT_DESTINATIONS_MAX: usize = 1024;

/// A destination that was not heard from for this long is forgotten if it was learnt, and looked up again by name if it
/// was given, nanoseconds.
pub const DESTINATION_TIMEOUT_NS: i64 = 5_000_000_000;

/// Bytes of SETUPs that one status message earns an address that has proven nothing. A stream that is not among the
/// first SETUPs comes with one of the next, as the order of streams rotates.
const CREDIT: usize = 3 * SM_MIN_LENGTH;

/// A destination that the application gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The correlation id of the command that added it.
    pub registration_id: RegistrationId,
    /// Its channel as the application gave it; by this it is removed.
    pub channel: String,
    /// `host:port` as far as it is a name that may come to mean another address; `None` for a literal address.
    pub name: Option<String>,
    /// What the name means; `None` while it could not be resolved.
    pub address: Option<SocketAddr>,
}

/// Whose destinations they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationMode {
    /// The application adds and removes them.
    Manual,
    /// They add themselves by status messages.
    Dynamic,
}

/// What a status message proves about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it asks for a SETUP or is about no stream of ours.
    None,
    /// That it receives what is sent to it: it names a position of a stream.
    Position,
}

#[derive(Debug)]
struct Entry {
    given: Option<Box<Destination>>,
    address: Option<SocketAddr>,
    receiver_id: Option<i64>,
    heard: NanoTime,
    /// Whether data may be sent there.
    is_proven: bool,
    /// Bytes that may be sent there before it is proven.
    credit: usize,
}

/// The destinations of one endpoint.
#[derive(Debug)]
pub struct Destinations {
    mode: DestinationMode,
    entries: Vec<Entry>,
    /// Where the next batch starts, so that nobody is always served last.
    next_start: usize,
    /// No learnt destination expires before this.
    expiry: NanoTime,
}

impl Destinations {
    /// None yet.
    #[must_use]
    pub fn new(mode: DestinationMode, now: NanoTime) -> Self {
        Self {
            mode,
            entries: Vec::with_capacity(match mode {
                DestinationMode::Manual => 16,
                DestinationMode::Dynamic => LEARNT_DESTINATIONS_MAX,
            }),
            next_start: 0,
            expiry: NanoTime::never_after(now),
        }
    }

    /// Whose destinations they are.
    #[must_use]
    pub fn mode(&self) -> DestinationMode {
        self.mode
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Adds a destination of the application's; one with the same channel is not added twice.
    pub fn add(&mut self, now: NanoTime, destination: Destination) {
        let is_known = |entry: &Entry| {
            entry
                .given
                .as_ref()
                .is_some_and(|given| given.channel == destination.channel)
        };
        if self.entries.iter().any(is_known) {
            return;
        }
        self.entries.push(Entry {
            address: destination.address,
            given: Some(Box::new(destination)),
            receiver_id: None,
            heard: now,
            is_proven: true,
            credit: 0,
        });
    }

    /// Removes a destination by its channel, or by the address it has now, however its channel is written; whether
    /// there was one.
    pub fn remove_channel(&mut self, channel: &str, address: Option<SocketAddr>) -> bool {
        self.remove(|given, at| given.channel == channel || (at.is_some() && at == address))
    }

    /// Removes a destination by the registration id of the command that added it; whether there was one.
    pub fn remove_id(&mut self, registration_id: RegistrationId) -> bool {
        self.remove(|given, _| given.registration_id == registration_id)
    }

    fn remove(&mut self, matches: impl Fn(&Destination, Option<SocketAddr>) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let given = entry.given.as_ref();
            !given.is_some_and(|given| matches(given, entry.address))
        });
        self.entries.len() < before
    }

    /// The name of a destination came to mean this address; `true` if that is news.
    pub fn set_address(&mut self, registration_id: RegistrationId, address: SocketAddr) -> bool {
        let mut changed = false;
        for entry in &mut self.entries {
            let is_meant = entry
                .given
                .as_ref()
                .is_some_and(|given| given.registration_id == registration_id);
            if is_meant && entry.address != Some(address) {
                entry.address = Some(address);
                // Whoever is at the new address is somebody else.
                entry.receiver_id = None;
                changed = true;
            }
        }
        changed
    }

    /// A status message came from `from`; `true` if whoever sent it is to be told of every stream: a new destination,
    /// or one that asks again because what it was told got lost.
    pub fn on_status_message(
        &mut self,
        now: NanoTime,
        receiver_id: i64,
        from: SocketAddr,
        proof: Proof,
    ) -> bool {
        let known = self.entries.iter_mut().find(|entry| match entry.receiver_id {
            Some(id) => {
                id == receiver_id && entry.address.is_some_and(|address| address.port() == from.port())
            }
            None => entry.address == Some(from),
        });
        if let Some(entry) = known {
            entry.receiver_id = Some(receiver_id);
            entry.heard = now;
            // The position has to come from where the data would go.
            entry.is_proven |= proof == Proof::Position && entry.address == Some(from);
            if entry.address != Some(from) {
                // Known by its id and port; what came from elsewhere pays for nothing that is sent to this address.
                return false;
            }
            // What was not used is not saved up: a silent sender must not turn into a burst.
            entry.credit = CREDIT;
            return !entry.is_proven && proof == Proof::None;
        }
        if self.mode == DestinationMode::Manual || self.entries.len() >= LEARNT_DESTINATIONS_MAX {
            return false;
        }
        if self.entries.is_empty() {
            self.expiry = now.plus_nanos(DESTINATION_TIMEOUT_NS);
        }
        self.entries.push(Entry {
            given: None,
            address: Some(from),
            receiver_id: Some(receiver_id),
            heard: now,
            is_proven: proof == Proof::Position,
            credit: CREDIT,
        });
        true
    }

    /// Forgets learnt destinations that fell silent; whether there were any.
    #[inline]
    pub fn expire(&mut self, now: NanoTime) -> bool {
        self.mode == DestinationMode::Dynamic && self.expiry.is_due(now) && self.expire_due(now)
    }

    fn expire_due(&mut self, now: NanoTime) -> bool {
        let before = self.entries.len();
        self.entries
            .retain(|entry| now.since(entry.heard) < DESTINATION_TIMEOUT_NS);
        self.expiry = self
            .entries
            .iter()
            .map(|entry| entry.heard.plus_nanos(DESTINATION_TIMEOUT_NS))
            .fold(NanoTime::never_after(now), NanoTime::earlier);
        self.entries.len() < before
    }

    /// When a learnt destination may have to be forgotten; `None` if there is none.
    #[must_use]
    pub fn next_expiry(&self) -> Option<NanoTime> {
        (self.mode == DestinationMode::Dynamic && !self.entries.is_empty()).then_some(self.expiry)
    }

    /// Names of given destinations that were silent for the timeout, for looking them up again.
    pub fn silent(&self, now: NanoTime) -> impl Iterator<Item = (RegistrationId, &str)> {
        self.entries.iter().filter_map(move |entry| {
            let given = entry.given.as_ref()?;
            let is_silent = entry.address.is_none() || now.since(entry.heard) >= DESTINATION_TIMEOUT_NS;
            let name = given.name.as_deref().filter(|_| is_silent)?;
            Some((given.registration_id, name))
        })
    }

    /// The addresses that get the next batch, from a start that rotates: those that have proven themselves, and for a
    /// SETUP also those that have credit left for one.
    pub fn next_round(&mut self, is_setup: bool) -> impl Iterator<Item = SocketAddr> + '_ {
        let count = self.entries.len();
        let start = if self.next_start < count {
            self.next_start
        } else {
            0
        };
        self.next_start = start + 1;
        let (front, back) = self.entries.split_at_mut(start);
        back.iter_mut().chain(front).filter_map(move |entry| {
            if entry.is_proven {
                return entry.address;
            }
            if !is_setup || entry.credit < SETUP_LENGTH {
                return None;
            }
            entry.credit -= SETUP_LENGTH;
            entry.address
        })
    }

    /// Whether the application gave this address.
    #[must_use]
    pub fn is_given(&self, address: SocketAddr) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.given.is_some() && entry.address == Some(address))
    }

    /// The command that added the destination of a receiver.
    #[must_use]
    pub fn registration_of(&self, receiver_id: i64, from: SocketAddr) -> Option<RegistrationId> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.receiver_id == Some(receiver_id) || entry.address == Some(from))?;
        entry.given.as_ref().map(|given| given.registration_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn at(seconds: i64) -> NanoTime {
        NanoTime(seconds * S)
    }

    fn address(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    fn dynamic() -> Destinations {
        Destinations::new(DestinationMode::Dynamic, at(0))
    }

    fn given(id: i64, address: Option<SocketAddr>) -> Destination {
        Destination {
            registration_id: RegistrationId(id),
            channel: format!("aeron:udp?endpoint=host{id}:40123"),
            name: Some(format!("host{id}:40123")),
            address,
        }
    }

    fn manual() -> Destinations {
        let mut destinations = Destinations::new(DestinationMode::Manual, at(0));
        destinations.add(at(0), given(1, Some(address(1, 40123))));
        destinations.add(at(0), given(2, Some(address(2, 40123))));
        destinations
    }

    fn round(destinations: &mut Destinations, setups: bool) -> Vec<SocketAddr> {
        destinations.next_round(setups).collect()
    }

    #[test]
    fn a_status_message_makes_a_dynamic_destination_for_five_seconds() {
        let mut destinations = dynamic();
        assert!(destinations.on_status_message(at(0), 7, address(1, 5000), Proof::Position));
        assert!(!destinations.on_status_message(at(3), 7, address(1, 5000), Proof::Position));
        assert_eq!(destinations.count(), 1);
        assert!(!destinations.expire(NanoTime(8 * S - 1)));
        assert!(destinations.expire(at(8)));
        assert_eq!(destinations.count(), 0);
        assert_eq!(destinations.next_expiry(), None);
    }

    #[test]
    fn what_one_address_sends_pays_for_nothing_that_another_one_gets() {
        let mut destinations = dynamic();
        assert!(destinations.on_status_message(at(0), 7, address(1, 5000), Proof::None));
        let mut sent = 0;
        for _ in 0..100 {
            sent += round(&mut destinations, true).len() * SETUP_LENGTH;
            assert!(!destinations.on_status_message(at(0), 7, address(2, 5000), Proof::None));
        }
        assert!(sent <= CREDIT, "{sent} bytes for one status message");
    }

    #[test]
    fn who_was_heard_at_the_old_address_of_a_name_does_not_count_at_the_new_one() {
        let mut destinations = manual();
        assert!(!destinations.on_status_message(at(0), 7, address(1, 40123), Proof::Position));
        assert!(destinations.set_address(RegistrationId(1), address(9, 40123)));
        // It goes on at the old address; nobody has been heard at the new one.
        destinations.on_status_message(at(6), 7, address(1, 40123), Proof::Position);
        destinations.on_status_message(at(6), 8, address(2, 40123), Proof::Position);
        let silent: Vec<_> = destinations.silent(at(7)).map(|(id, _)| id).collect();
        assert_eq!(silent, [RegistrationId(1)]);
        destinations.on_status_message(at(7), 9, address(9, 40123), Proof::Position);
        assert_eq!(destinations.silent(at(8)).count(), 0);
    }

    #[test]
    fn a_dynamic_destination_is_known_by_receiver_and_port_only() {
        let mut destinations = dynamic();
        destinations.on_status_message(at(0), 7, address(1, 5000), Proof::Position);
        assert!(
            !destinations.on_status_message(at(4), 7, address(9, 5000), Proof::Position),
            "same port"
        );
        assert_eq!(
            round(&mut destinations, false),
            [address(1, 5000)],
            "the address stays"
        );
        assert!(destinations.on_status_message(at(4), 7, address(1, 5001), Proof::Position));
        assert!(destinations.on_status_message(at(4), 8, address(1, 5000), Proof::Position));
        assert!(!destinations.expire(at(8)), "the other address kept it");
    }

    #[test]
    fn who_only_asked_is_sent_setups_until_it_names_a_position() {
        let mut destinations = dynamic();
        // It asks again when the SETUP got lost, and gets another one.
        for _ in 0..2 {
            assert!(destinations.on_status_message(at(0), 7, address(1, 5000), Proof::None));
        }
        assert_eq!(destinations.count(), 1);
        assert!(round(&mut destinations, false).is_empty());
        assert_eq!(round(&mut destinations, true), [address(1, 5000)]);
        destinations.on_status_message(at(1), 7, address(2, 5000), Proof::Position);
        assert!(round(&mut destinations, false).is_empty(), "named from elsewhere");
        destinations.on_status_message(at(1), 7, address(1, 5000), Proof::Position);
        assert_eq!(round(&mut destinations, false), [address(1, 5000)]);
        assert!(!destinations.on_status_message(at(2), 7, address(1, 5000), Proof::None));
    }

    #[test]
    fn who_only_asks_gets_at_most_three_times_its_bytes() {
        let mut destinations = dynamic();
        let (mut asked, mut got) = (0, 0);
        for second in 0..4 {
            destinations.on_status_message(at(second), 7, address(1, 5000), Proof::None);
            asked += SM_MIN_LENGTH;
            for _ in 0..10 {
                got += SETUP_LENGTH * round(&mut destinations, true).len();
            }
        }
        assert_eq!(got, 4 * 2 * SETUP_LENGTH);
        assert!(got <= 3 * asked);
        destinations.on_status_message(at(4), 7, address(1, 5000), Proof::Position);
        for _ in 0..10 {
            assert_eq!(
                round(&mut destinations, true).len(),
                1,
                "who has proven itself is not rationed"
            );
        }
    }

    #[test]
    fn learnt_destinations_are_bounded() {
        let mut destinations = dynamic();
        for id in 0..5000 {
            destinations.on_status_message(at(0), id, address(1, 5000), Proof::None);
        }
        assert_eq!(destinations.count(), LEARNT_DESTINATIONS_MAX);
        assert!(destinations.expire(at(5)));
        assert_eq!(destinations.count(), 0);
    }

    #[test]
    fn manual_destinations_are_not_learnt_and_do_not_expire() {
        let mut destinations = manual();
        assert!(!destinations.on_status_message(at(0), 7, address(3, 40123), Proof::Position));
        assert!(!destinations.expire(at(1000)));
        assert_eq!(destinations.count(), 2);
        assert_eq!(destinations.next_expiry(), None);
    }

    #[test]
    fn a_manual_destination_learns_its_receiver_and_is_looked_up_when_silent() {
        let mut destinations = manual();
        destinations.on_status_message(at(1), 7, address(1, 40123), Proof::Position);
        assert_eq!(
            destinations.registration_of(7, address(9, 9)),
            Some(RegistrationId(1))
        );
        assert_eq!(destinations.silent(at(4)).count(), 0);
        let silent: Vec<_> = destinations.silent(at(5)).map(|(id, _)| id).collect();
        assert_eq!(silent, [RegistrationId(2)]);
        destinations.on_status_message(at(6), 7, address(9, 40123), Proof::None);
        destinations.on_status_message(at(6), 8, address(1, 40123), Proof::None);
        let silent: Vec<_> = destinations.silent(at(11)).collect();
        assert_eq!(
            silent,
            [
                (RegistrationId(1), "host1:40123"),
                (RegistrationId(2), "host2:40123")
            ]
        );
    }

    #[test]
    fn an_unresolved_destination_is_kept_and_skipped() {
        let mut destinations = manual();
        destinations.add(at(0), given(3, None));
        assert_eq!(destinations.count(), 3);
        assert_eq!(round(&mut destinations, false).len(), 2);
        assert_eq!(destinations.silent(at(0)).count(), 1);
        assert!(destinations.set_address(RegistrationId(3), address(3, 1)));
        assert!(!destinations.set_address(RegistrationId(3), address(3, 1)));
        assert_eq!(round(&mut destinations, false).len(), 3);
    }

    #[test]
    fn destinations_are_removed_by_channel_and_by_id() {
        let mut destinations = manual();
        destinations.add(at(0), given(2, None));
        assert_eq!(destinations.count(), 2, "the channel is there already");
        assert!(destinations.remove_channel("aeron:udp?endpoint=host1:40123", None));
        assert!(!destinations.remove_channel("aeron:udp?endpoint=host1:40123", None));
        assert!(destinations.remove_id(RegistrationId(2)));
        assert!(round(&mut destinations, true).is_empty());
    }

    #[test]
    fn a_destination_is_removed_by_its_address_however_its_channel_is_written() {
        let mut destinations = manual();
        destinations.add(at(0), given(3, None));
        let channel = "aeron:udp?endpoint=other:40123|alias=x";
        assert!(
            !destinations.remove_channel(channel, None),
            "no address is none of anybody"
        );
        assert!(!destinations.remove_channel(channel, Some(address(9, 9))));
        let before = destinations.count();
        let removed = round(&mut destinations, false)[0];
        assert!(destinations.remove_channel(channel, Some(removed)));
        assert_eq!(destinations.count(), before - 1);
    }

    #[test]
    fn each_batch_starts_with_another_destination() {
        let mut destinations = manual();
        let (one, two) = (address(1, 40123), address(2, 40123));
        assert_eq!(round(&mut destinations, false), [one, two]);
        assert_eq!(round(&mut destinations, false), [two, one]);
        assert_eq!(round(&mut destinations, false), [one, two]);
    }
}
