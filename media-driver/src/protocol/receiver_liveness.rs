//! Which receivers a publication still has (wire protocol 3.1, 3.6 step 6, 3.7): each receiver id with the time and the
//! source of its last status message.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::time::NanoTime;

/// Receivers of one publication that are remembered. Ids come from the network, so that there has to be an end; a
/// receiver beyond it moves the limit like any other but is not waited for.
pub const RECEIVERS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Receiver {
    id: i64,
    heard: NanoTime,
    source: SocketAddr,
}

/// The receivers whose last status message is younger than the timeout.
#[derive(Debug)]
pub struct ReceiverLiveness {
    receivers: Vec<Receiver>,
    timeout_ns: i64,
    /// No receiver expires before this.
    expiry: NanoTime,
}

impl ReceiverLiveness {
    /// Nobody yet. A receiver is gone once it was silent for `timeout_ns`.
    #[must_use]
    pub fn new(timeout_ns: i64, now: NanoTime) -> Self {
        Self {
            receivers: Vec::with_capacity(RECEIVERS_MAX),
            timeout_ns,
            expiry: NanoTime::never_after(now),
        }
    }

    /// Whether nobody is there.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// How many are there.
    #[must_use]
    pub fn count(&self) -> usize {
        self.receivers.len()
    }

    /// A status message without the end-of-stream flag came. `false` if the receiver is new and there is no room.
    pub fn on_status_message(&mut self, now: NanoTime, receiver_id: i64, source: SocketAddr) -> bool {
        if let Some(receiver) = self.find(receiver_id) {
            receiver.heard = now;
            receiver.source = source;
            return true;
        }
        if self.receivers.len() == RECEIVERS_MAX {
            return false;
        }
        if self.receivers.is_empty() {
            self.expiry = now.plus_nanos(self.timeout_ns);
        }
        self.receivers.push(Receiver {
            id: receiver_id,
            heard: now,
            source,
        });
        true
    }

    /// Takes a receiver out that says itself that it leaves; `false` if it is unknown, or if somebody else says so:
    /// the word of an address is only believed about the receiver that was last heard from there.
    pub fn remove_if_from(&mut self, receiver_id: i64, source: SocketAddr) -> bool {
        let before = self.receivers.len();
        self.receivers
            .retain(|receiver| receiver.id != receiver_id || receiver.source != source);
        self.receivers.len() < before
    }

    /// Whether a receiver that is there was last heard from this address.
    #[must_use]
    pub fn is_source(&self, source: SocketAddr) -> bool {
        self.receivers.iter().any(|receiver| receiver.source == source)
    }

    /// Takes out who was silent for the timeout; whether anybody was.
    #[inline]
    pub fn expire(&mut self, now: NanoTime) -> bool {
        !self.receivers.is_empty() && self.expiry.is_due(now) && self.expire_due(now)
    }

    /// When somebody may expire; `None` if nobody is there.
    #[must_use]
    pub fn next_expiry(&self) -> Option<NanoTime> {
        (!self.receivers.is_empty()).then_some(self.expiry)
    }

    fn expire_due(&mut self, now: NanoTime) -> bool {
        let timeout = self.timeout_ns;
        let before = self.receivers.len();
        self.receivers
            .retain(|receiver| now.since(receiver.heard) < timeout);
        // Who is heard again expires later than noted here, never earlier.
        self.expiry = self
            .receivers
            .iter()
            .map(|receiver| receiver.heard.plus_nanos(timeout))
            .fold(NanoTime::never_after(now), NanoTime::earlier);
        self.receivers.len() < before
    }

    fn find(&mut self, receiver_id: i64) -> Option<&mut Receiver> {
        self.receivers
            .iter_mut()
            .find(|receiver| receiver.id == receiver_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: i64 = 5_000_000_000;

    fn at(nanos: i64) -> NanoTime {
        NanoTime(nanos)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn receivers() -> ReceiverLiveness {
        ReceiverLiveness::new(TIMEOUT, at(0))
    }

    #[test]
    fn a_receiver_is_gone_after_five_seconds_of_silence() {
        let mut receivers = receivers();
        assert!(receivers.is_empty());
        assert!(receivers.on_status_message(at(0), 7, address(1)));
        assert!(!receivers.expire(at(TIMEOUT - 1)));
        assert!(receivers.expire(at(TIMEOUT)));
        assert!(receivers.is_empty());
        assert!(!receivers.expire(at(2 * TIMEOUT)));
    }

    #[test]
    fn each_status_message_keeps_its_own_receiver_alive() {
        let mut receivers = receivers();
        receivers.on_status_message(at(0), 1, address(1));
        receivers.on_status_message(at(0), 2, address(2));
        receivers.on_status_message(at(4_000_000_000), 1, address(1));
        assert!(receivers.expire(at(TIMEOUT)));
        assert_eq!(receivers.count(), 1);
        assert_eq!(receivers.next_expiry(), Some(at(9_000_000_000)));
        assert!(receivers.expire(at(9_000_000_000)));
        assert_eq!(receivers.next_expiry(), None);
    }

    #[test]
    fn only_the_receiver_itself_takes_itself_out() {
        let mut receivers = receivers();
        receivers.on_status_message(at(0), 1, address(1));
        assert!(!receivers.remove_if_from(2, address(1)));
        assert!(!receivers.remove_if_from(1, address(2)), "a forged leave");
        assert!(receivers.is_source(address(1)));
        assert!(receivers.remove_if_from(1, address(1)));
        assert!(!receivers.is_source(address(1)));
        assert!(receivers.is_empty());
    }

    #[test]
    fn a_receiver_that_moved_is_known_at_its_new_address() {
        let mut receivers = receivers();
        receivers.on_status_message(at(0), 1, address(1));
        receivers.on_status_message(at(1), 1, address(9));
        assert_eq!(receivers.count(), 1);
        assert!(receivers.remove_if_from(1, address(9)));
    }

    #[test]
    fn ids_from_the_network_fill_a_bounded_table() {
        let mut receivers = receivers();
        let kept = (0..5000)
            .filter(|id| receivers.on_status_message(at(0), *id, address(1)))
            .count();
        assert_eq!(kept, RECEIVERS_MAX);
        assert_eq!(receivers.count(), RECEIVERS_MAX);
        assert!(receivers.on_status_message(at(1), 5, address(1)), "a known one");
        assert!(receivers.expire(at(TIMEOUT)));
        assert_eq!(receivers.count(), 1);
    }
}
