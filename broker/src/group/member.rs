//! One member of a group, the names of a group's states, and the little that we read of a consumer's metadata.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::request::{DescribedMember, JoinRequest, JoinedMember, RequestToken};

/// Nanoseconds per millisecond.
pub(super) const NANOS_PER_MS: i64 = 1_000_000;

/// How much of a client id goes into a member id, in bytes, so that the member id stays a legal string.
const CLIENT_ID_PREFIX: usize = 255;

/// Where a group stands (kafka gateway 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; offsets may be stored.
    Empty,
    /// Joins are held until all members are in.
    PreparingRebalance,
    /// The generation is set; the leader's assignment is awaited or being stored.
    CompletingRebalance,
    /// All members have or can get their assignment.
    Stable,
    /// Being deleted, or unknown.
    Dead,
}

impl GroupState {
    /// The name as administrators' tools expect it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// One way of sharing out work that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// For example `range`.
    pub name: String,
    /// Opaque to us, except for the topics of protocol type `consumer`.
    pub metadata: Arc<[u8]>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    /// Milliseconds.
    pub(super) session_timeout_ms: i32,
    /// Milliseconds, not negative.
    pub(super) rebalance_timeout_ms: i32,
    /// Not empty, names are distinct.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Arc<[u8]>,
    /// Has not been part of a generation yet.
    pub(super) is_new: bool,
    pub(super) held_join: Option<RequestToken>,
    pub(super) held_sync: Option<RequestToken>,
}

impl Member {
    pub(super) fn new(id: Arc<str>, join: JoinRequest) -> Member {
        let mut member = Member {
            id,
            instance_id: join.instance_id.as_deref().map(Arc::from),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Arc::from([]),
            is_new: true,
            held_join: None,
            held_sync: None,
        };
        member.take_over(join);
        member
    }

    /// Takes all that a join may change, except who the member is.
    pub(super) fn take_over(&mut self, join: JoinRequest) {
        self.take_timeouts(&join);
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.protocols = join.protocols;
    }

    /// Takes the timeouts of a join that changes nothing else.
    pub(super) fn take_timeouts(&mut self, join: &JoinRequest) {
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = if join.rebalance_timeout_ms < 0 {
            join.session_timeout_ms
        } else {
            join.rebalance_timeout_ms
        };
    }

    pub(super) fn session_nanos(&self) -> i64 {
        i64::from(self.session_timeout_ms) * NANOS_PER_MS
    }

    pub(super) fn rebalance_nanos(&self) -> i64 {
        i64::from(self.rebalance_timeout_ms) * NANOS_PER_MS
    }

    /// Whether an answer is held: the member is alive and waits for us.
    pub(super) fn is_waiting(&self) -> bool {
        self.held_join.is_some() || self.held_sync.is_some()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|it| it.name == protocol)
    }

    /// The metadata for `protocol`; empty if the member does not support it.
    pub(super) fn metadata(&self, protocol: &str) -> Arc<[u8]> {
        self.protocols
            .iter()
            .find(|it| it.name == protocol)
            .map_or_else(|| Arc::from([]), |it| Arc::clone(&it.metadata))
    }

    pub(super) fn joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember {
            member_id: Arc::clone(&self.id),
            instance_id: self.instance_id.clone(),
            metadata: self.metadata(protocol),
        }
    }

    /// `stable_protocol` is the chosen protocol of a stable group.
    pub(super) fn described(&self, stable_protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member_id: Arc::clone(&self.id),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: stable_protocol.map_or_else(|| Arc::from([]), |protocol| self.metadata(protocol)),
            assignment: stable_protocol.map_or_else(|| Arc::from([]), |_| Arc::clone(&self.assignment)),
        }
    }

    /// Bytes of client data kept for this member, without the assignment.
    pub(super) fn bytes(&self) -> usize {
        let fixed = self.id.len() + self.client_id.len() + self.client_host.len();
        let instance = self.instance_id.as_ref().map_or(0, |it| it.len());
        let protocols: usize = self.protocols.iter().map(protocol_bytes).sum();
        MEMBER_OVERHEAD + fixed + instance + protocols
    }
}

/// Charged for each member besides its strings: the structures around it, roughly.
const MEMBER_OVERHEAD: usize = 512;

/// What one protocol is charged.
pub(super) fn protocol_bytes(protocol: &Protocol) -> usize {
    64 + protocol.name.len() + protocol.metadata.len()
}

/// Client id, a dash, and the random bits in the form of a version 4 UUID.
pub(super) fn new_member_id(client_id: &str, entropy: u128) -> Arc<str> {
    let mut end = client_id.len().min(CLIENT_ID_PREFIX);
    while !client_id.is_char_boundary(end) {
        end -= 1;
    }
    let (prefix, _) = client_id.split_at(end);
    let bits = (entropy & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    Arc::from(format!("{prefix}-{a}-{b}-{c}-{d}-{e}"))
}

/// The topics in the metadata of a member of protocol type `consumer`; `None` if it is not of that form.
///
/// ```text
/// | version i16 | count i32 | count * ( length i16, name ) | user data, later fields |
/// ```
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // Each name takes at least its length: a larger count is refused before anything is set aside for it.
    if count > rest.len() / 2 {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, tail) = tail.split_at_checked(length)?;
        topics.insert(core::str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(topics: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for topic in topics {
            bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
        }
        bytes.extend([0xff; 4]);
        bytes
    }

    #[test]
    fn the_topics_of_a_consumer_are_read() {
        let topics = subscribed_topics(&subscription(&["b", "a"])).unwrap();
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn metadata_cut_anywhere_before_its_user_data_is_not_read_as_a_subscription() {
        let bytes = subscription(&["topic", "other"]);
        for end in 0..bytes.len() - 4 {
            assert_eq!(subscribed_topics(&bytes[..end]), None, "{end}");
        }
        assert_eq!(subscribed_topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]), None);
    }

    #[test]
    fn a_member_id_is_the_client_id_and_a_uuid_and_never_too_long() {
        assert_eq!(
            &*new_member_id("rdkafka", 0),
            "rdkafka-00000000-0000-4000-8000-000000000000"
        );
        assert_eq!(
            &*new_member_id("", u128::MAX),
            "-ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        let long = "\u{e9}".repeat(20_000);
        assert_eq!(new_member_id(&long, 7).len(), 254 + 37);
    }
}
