//! Sessions whose SETUP was asked for: each is asked for once a second at most, and forgotten when no answer came
//! (wire spec 4.1). The table is bounded, as a whole and per source address, so that made-up sessions neither use
//! memory nor turn this host into a reflector.
#![forbid(unsafe_code)]

use core::net::IpAddr;

use fulmar::id::{SessionId, StreamId};
use fulmar::time::NanoTime;

/// How long a request for a SETUP waits for its answer, nanoseconds.
pub const PENDING_SETUP_TIMEOUT_NS: i64 = 1_000_000_000;
/// Most requests under way per endpoint.
pub const PENDING_SETUPS_MAX: usize = 1024;
/// Most requests under way to one address.
pub const PENDING_SETUPS_PER_SOURCE_MAX: usize = 128;

#[derive(Clone, Copy, Debug)]
struct Pending {
    stream_id: StreamId,
    session_id: SessionId,
    source: IpAddr,
    since: NanoTime,
}

/// The requests of one endpoint, oldest first.
#[derive(Debug)]
pub struct PendingSetups {
    requests: Vec<Pending>,
}

impl Default for PendingSetups {
    fn default() -> Self {
        Self::new()
    }
}

impl PendingSetups {
    /// No request; all memory is taken now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requests: Vec::with_capacity(PENDING_SETUPS_MAX),
        }
    }

    /// Records a request; `false` if there are too many already, and then none must be sent.
    pub fn add(&mut self, now: NanoTime, stream_id: StreamId, session_id: SessionId, source: IpAddr) -> bool {
        if self.requests.len() >= PENDING_SETUPS_MAX {
            return false;
        }
        let of_source = self.requests.iter().filter(|pending| pending.source == source);
        if of_source.count() >= PENDING_SETUPS_PER_SOURCE_MAX {
            return false;
        }
        self.requests.push(Pending {
            stream_id,
            session_id,
            source,
            since: now,
        });
        true
    }

    /// The SETUP came, or nobody wants it any more.
    pub fn remove(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.requests
            .retain(|pending| (pending.stream_id, pending.session_id) != (stream_id, session_id));
    }

    /// Keeps the requests for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(StreamId, SessionId) -> bool) {
        self.requests
            .retain(|pending| keep(pending.stream_id, pending.session_id));
    }

    /// The oldest request if it waited in vain, which is thereby forgotten. To be called until there is none.
    pub fn poll_expired(&mut self, now: NanoTime) -> Option<(StreamId, SessionId)> {
        let oldest = self.requests.first()?;
        if now.since(oldest.since) < PENDING_SETUP_TIMEOUT_NS {
            return None;
        }
        let expired = self.requests.remove(0);
        Some((expired.stream_id, expired.session_id))
    }

    /// When the oldest request expires; `None` without requests.
    #[must_use]
    pub fn next_deadline(&self) -> Option<NanoTime> {
        self.requests
            .first()
            .map(|oldest| oldest.since.plus_nanos(PENDING_SETUP_TIMEOUT_NS))
    }

    /// Requests under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(1001);
    const SECOND_NS: i64 = 1_000_000_000;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_request_expires_after_a_second_in_the_order_of_asking() {
        let mut pending = PendingSetups::new();
        assert!(pending.add(NanoTime(0), STREAM, SessionId(1), source(1)));
        assert!(pending.add(NanoTime(5), STREAM, SessionId(2), source(1)));
        assert_eq!(pending.next_deadline(), Some(NanoTime(SECOND_NS)));
        assert_eq!(pending.poll_expired(NanoTime(SECOND_NS - 1)), None);
        assert_eq!(
            pending.poll_expired(NanoTime(SECOND_NS)),
            Some((STREAM, SessionId(1)))
        );
        assert_eq!(pending.poll_expired(NanoTime(SECOND_NS)), None);
        assert_eq!(
            pending.poll_expired(NanoTime(SECOND_NS + 5)),
            Some((STREAM, SessionId(2)))
        );
        assert_eq!(pending.next_deadline(), None);
    }

    #[test]
    fn an_answered_request_does_not_expire() {
        let mut pending = PendingSetups::new();
        pending.add(NanoTime(0), STREAM, SessionId(1), source(1));
        pending.add(NanoTime(0), StreamId(5), SessionId(1), source(1));
        pending.remove(STREAM, SessionId(1));
        assert_eq!(pending.len(), 1);
        pending.retain(|stream_id, _| stream_id != StreamId(5));
        assert!(pending.is_empty());
        assert_eq!(pending.poll_expired(NanoTime(2 * SECOND_NS)), None);
    }

    #[test]
    fn one_source_can_not_take_all_the_room() {
        let mut pending = PendingSetups::new();
        let taken = (0..1_000_000 / 100)
            .filter(|session| pending.add(NanoTime(0), STREAM, SessionId(*session), source(1)))
            .count();
        assert_eq!(taken, PENDING_SETUPS_PER_SOURCE_MAX);
        assert!(pending.add(NanoTime(0), STREAM, SessionId(-1), source(2)));
    }

    #[test]
    fn the_table_is_bounded_and_does_not_grow() {
        let mut pending = PendingSetups::new();
        let capacity = pending.requests.capacity();
        for session in 0..10_000 {
            pending.add(
                NanoTime(0),
                STREAM,
                SessionId(session),
                source((session % 251) as u8),
            );
        }
        assert_eq!(pending.len(), PENDING_SETUPS_MAX);
        assert_eq!(pending.requests.capacity(), capacity);
    }
}
