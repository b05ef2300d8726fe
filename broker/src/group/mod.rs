//! Consumer groups: the classic coordinator as a pure state machine (kafka gateway 5).
//!
//! A [`Coordinator`] is told of requests, acknowledgements and time, and tells in return what to answer and what to
//! write. JoinGroup and SyncGroup wait for other members, everything that changes committed state waits for the log;
//! so no request has a return value, and answers come as events with the token of their request.
//!
//! ```text
//!   on_request(token, request, now) ---+                    +---> Event::Respond(token, response)
//!   on_time(now) ----------------------+---> Coordinator ---+
//!   on_persisted(token, now) ----------+                    +---> Event::Persist(token, records)
//!                                ^                                              |
//!                                +----------------- the log --------------------+
//! ```
//!
//! Committed state is offsets, and of groups what lets members go on after a restart: the generation, the members with
//! what they sent, and their assignments. It is written as records of a compacted log ([`codec`]) and read back with
//! [`Coordinator::restore`].
//!
//! Timers use the monotonic clock; only the retention of offsets, which outlives a process, uses the wall clock.
//!
//! Not here: the wire's versions (the Kafka door), which topics exist (the caller says so per partition of a commit),
//! transactional offset commits, and the newer group protocol with server-side assignment.
#![forbid(unsafe_code)]

pub mod codec;
mod coordinator;
mod durable;
mod error;

mod member;
mod membership;
#[cfg(test)]
mod model;
mod offsets;
mod outbox;
mod rebalance;
mod request;
#[cfg(test)]
mod tests;
mod timers;

pub use codec::RestoreError;
pub use coordinator::Coordinator;
pub use error::GroupError;
pub use member::{GroupState, Protocol};
pub use request::*;

/// Limits and times of a [`Coordinator`] (kafka gateway appendix B).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The shortest session timeout a member may ask for, in milliseconds, above 0.
    pub min_session_timeout_ms: i32,
    /// The longest one, in milliseconds.
    pub max_session_timeout_ms: i32,
    /// How long a group that was empty waits for more members before its first generation, in milliseconds; 0 for not
    /// at all.
    pub initial_rebalance_delay_ms: i32,
    /// How long the join of a new member is held at most, in milliseconds: if its connection is gone, nothing else
    /// tells.
    pub new_member_join_timeout_ms: i32,
    /// How long offsets are kept after their group is done with them, in milliseconds.
    pub offsets_retention_ms: i64,
    /// How often expired offsets are looked for, in milliseconds, above 0.
    pub offsets_check_interval_ms: i64,
    /// The longest metadata of a committed offset, in bytes, at most 32,767.
    pub max_offset_metadata: usize,
    /// How many groups there may be.
    pub max_groups: usize,
    /// How many members a group may have.
    pub max_members_per_group: usize,
    /// How many member ids may be given out and not used yet, per group.
    pub max_pending_members_per_group: usize,
    /// Bytes of protocol names and metadata of one member.
    pub max_member_bytes: usize,
    /// How many partitions a group may have offsets of.
    pub max_offsets_per_group: usize,
    /// Bytes of all that clients let us keep, roughly; below 4 GiB.
    pub max_bytes: usize,
    /// How many changes may wait for the log before more are refused.
    pub max_unacknowledged: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 30 * 60_000,
            initial_rebalance_delay_ms: 3_000,
            new_member_join_timeout_ms: 5 * 60_000,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_check_interval_ms: 10 * 60_000,
            max_offset_metadata: 4_096,
            max_groups: 10_000,
            max_members_per_group: 1_000,
            max_pending_members_per_group: 1_000,
            max_member_bytes: 1 << 20,
            max_offsets_per_group: 100_000,
            max_bytes: 256 << 20,
            max_unacknowledged: 10_000,
        }
    }
}

impl Settings {
    /// With values that the coordinator could not work with moved to the nearest ones that it can.
    fn checked(mut self) -> Settings {
        self.min_session_timeout_ms = self.min_session_timeout_ms.max(1);
        self.initial_rebalance_delay_ms = self.initial_rebalance_delay_ms.max(0);
        self.new_member_join_timeout_ms = self.new_member_join_timeout_ms.max(1);
        self.offsets_retention_ms = self.offsets_retention_ms.max(0);
        self.offsets_check_interval_ms = self.offsets_check_interval_ms.max(1);
        self.max_bytes = self.max_bytes.min(u32::MAX as usize);
        self
    }
}
