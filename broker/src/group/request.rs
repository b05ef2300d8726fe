//! Requests to the coordinator, its answers, and the events it puts out: plain values, without the wire's versions
//! where they do not change what is done.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::error::GroupError;
use super::member::{GroupState, Protocol};

/// Names one request; chosen by the caller, unlike those of all requests not answered yet, and given back with the
/// answer. Every request is answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// Names one [`Event::Persist`]; ascending in the order in which the records have to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// What the coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Send this answer to whoever sent the request `token`.
    Respond {
        /// The request's token.
        token: RequestToken,
        /// Its answer.
        response: Response,
    },
    /// Append these records to the log, in this order and behind those of all earlier events; then call
    /// [`Coordinator::on_persisted`](super::Coordinator::on_persisted) or
    /// [`Coordinator::on_persist_failed`](super::Coordinator::on_persist_failed). A prefix that survives a crash is
    /// harmless.
    Persist {
        /// To be given back.
        token: PersistToken,
        /// At least one record.
        records: Vec<Record>,
    },
}

/// One change of the committed state: the newest value of a key counts, no value removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// See [`super::codec`].
    pub key: Vec<u8>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A request of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Enter or re-enter a group.
    Join(JoinRequest),
    /// Fetch, and as leader deliver, the assignment.
    Sync(SyncRequest),
    /// Tell that a member is alive.
    Heartbeat(HeartbeatRequest),
    /// Remove members.
    Leave(LeaveRequest),
    /// Store offsets.
    OffsetCommit(OffsetCommitRequest),
    /// Read stored offsets.
    OffsetFetch(OffsetFetchRequest),
    /// Remove stored offsets.
    OffsetDelete(OffsetDeleteRequest),
    /// Describe one group.
    Describe(DescribeRequest),
    /// List groups.
    List(ListRequest),
    /// Delete empty groups.
    DeleteGroups(DeleteGroupsRequest),
}

/// The answer to a [`Request`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Join`].
    Join(JoinResponse),
    /// To [`Request::Sync`].
    Sync(SyncResponse),
    /// To [`Request::Heartbeat`]: `None` is success.
    Heartbeat(Option<GroupError>),
    /// To [`Request::Leave`].
    Leave(LeaveResponse),
    /// To [`Request::OffsetCommit`].
    OffsetCommit(OffsetCommitResponse),
    /// To [`Request::OffsetFetch`].
    OffsetFetch(OffsetFetchResponse),
    /// To [`Request::OffsetDelete`].
    OffsetDelete(OffsetDeleteResponse),
    /// To [`Request::Describe`].
    Describe(DescribeResponse),
    /// To [`Request::List`].
    List(ListResponse),
    /// To [`Request::DeleteGroups`].
    DeleteGroups(DeleteGroupsResponse),
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The request's version: from 4 on a new dynamic member is first given its id, from 9 on a leader can be told to
    /// skip the assignment.
    pub api_version: i16,
    /// Not empty.
    pub group_id: String,
    /// Empty on the first join.
    pub member_id: String,
    /// Set for a static member (version 5).
    pub instance_id: Option<String>,
    /// From the request header; the beginning of generated member ids.
    pub client_id: String,
    /// The peer's address, for describe.
    pub client_host: String,
    /// Milliseconds; inside the configured range.
    pub session_timeout_ms: i32,
    /// Milliseconds; negative (version 0 has none): the session timeout is used.
    pub rebalance_timeout_ms: i32,
    /// For example `consumer` or `connect`; not empty.
    pub protocol_type: String,
    /// In order of preference; not empty. A repeated name is ignored.
    pub protocols: Vec<Protocol>,
    /// Fresh random bits for a member id, should one be needed.
    pub member_entropy: u128,
}

/// Answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// `None` is success.
    pub error: Option<GroupError>,
    /// -1 on errors.
    pub generation: i32,
    /// The group's protocol type; `None` on errors.
    pub protocol_type: Option<String>,
    /// The chosen protocol; `None` on errors. Before version 7 the wire wants an empty string instead.
    pub protocol: Option<String>,
    /// The leader's member id; empty on errors.
    pub leader: Arc<str>,
    /// Version 9: the leader is to sync without assignments of its own.
    pub skip_assignment: bool,
    /// The member's id, new or as given.
    pub member_id: Arc<str>,
    /// For the leader all members; for others empty.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// Set for a static member.
    pub instance_id: Option<Arc<str>>,
    /// What the member sent for the chosen protocol, untouched.
    pub metadata: Arc<[u8]>,
}

impl JoinResponse {
    pub(super) fn refused(error: GroupError, member_id: Arc<str>) -> JoinResponse {
        JoinResponse {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: Arc::from(""),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// Not empty.
    pub group_id: String,
    /// From the answer to the join.
    pub generation: i32,
    /// From the answer to the join.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    /// From version 5 on; compared if given.
    pub protocol_type: Option<String>,
    /// From version 5 on; compared if given.
    pub protocol: Option<String>,
    /// From the leader: member id and assignment. Unknown members are ignored; of a repeated one the last counts.
    pub assignments: Vec<(String, Vec<u8>)>,
}

/// Answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// `None` is success.
    pub error: Option<GroupError>,
    /// The group's protocol type; `None` on errors.
    pub protocol_type: Option<String>,
    /// The chosen protocol; `None` on errors.
    pub protocol: Option<String>,
    /// The leader's bytes for this member, untouched; empty on errors.
    pub assignment: Arc<[u8]>,
}

impl SyncResponse {
    pub(super) fn refused(error: GroupError) -> SyncResponse {
        SyncResponse {
            error: Some(error),
            protocol_type: None,
            protocol: None,
            assignment: Arc::from([]),
        }
    }
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// Not empty.
    pub group_id: String,
    /// The generation the member is in.
    pub generation: i32,
    /// The member's id.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
}

/// LeaveGroup: one member before version 3, several from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRequest {
    /// Not empty.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One who leaves: named by its id, or by its instance id, or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// May be empty if there is an instance id.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
}

/// Answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResponse {
    /// An error of the whole request. Before version 3 the only member's error is to be sent here.
    pub error: Option<GroupError>,
    /// Per member, in the request's order; empty if the whole request was refused.
    pub members: Vec<(LeavingMember, Option<GroupError>)>,
}

/// OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// The request's version: from 9 on an unknown group has its own error.
    pub api_version: i16,
    /// Not empty.
    pub group_id: String,
    /// -1 for a commit without membership.
    pub generation: i32,
    /// Empty for a commit without membership.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    /// Milliseconds the offsets shall be kept (versions 2 to 4); negative: the coordinator's setting.
    pub retention_ms: i64,
    /// What to store; of a repeated partition the last counts.
    pub partitions: Vec<CommitPartition>,
}

/// One partition of an OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition, not negative.
    pub partition: i32,
    /// The offset to go on from, not negative.
    pub offset: i64,
    /// Leader epoch of the record before it; -1 if unknown.
    pub leader_epoch: i32,
    /// Opaque to us.
    pub metadata: String,
    /// What the caller already knows against it (an unknown topic, a missing permission): answered, not stored.
    pub refused: Option<GroupError>,
}

/// A result per partition, in the request's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionResult {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// `None` is success.
    pub error: Option<GroupError>,
}

/// Answer to OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    /// Per partition, in the request's order; an error of the whole request is at each one.
    pub partitions: Vec<PartitionResult>,
}

/// OffsetFetch, for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// An unknown group is not an error.
    pub group_id: String,
    /// Topic and partitions; `None` for everything stored.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
}

/// Answer to OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    /// `None` is success.
    pub error: Option<GroupError>,
    /// In the request's order, or sorted if everything was asked for.
    pub partitions: Vec<FetchedOffset>,
}

/// One partition of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// -1 if nothing is stored.
    pub offset: i64,
    /// -1 if unknown.
    pub leader_epoch: i32,
    /// Empty if nothing is stored.
    pub metadata: String,
}

/// OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteRequest {
    /// Not empty.
    pub group_id: String,
    /// Topic and partition.
    pub partitions: Vec<(String, i32)>,
}

/// Answer to OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteResponse {
    /// An error of the whole request.
    pub error: Option<GroupError>,
    /// Per partition, in the request's order; empty if the whole request was refused.
    pub partitions: Vec<PartitionResult>,
}

/// DescribeGroups, for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeRequest {
    /// An unknown group is described as [`GroupState::Dead`], without an error (before version 6).
    pub group_id: String,
}

/// Answer to DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeResponse {
    /// `None` is success.
    pub error: Option<GroupError>,
    /// The group's state.
    pub state: GroupState,
    /// Whether there is such a group.
    pub known: bool,
    /// Empty if the group never had members.
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    /// All members.
    pub members: Vec<DescribedMember>,
}

/// A member as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// Set for a static member.
    pub instance_id: Option<Arc<str>>,
    /// As it gave it.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// What it sent for the chosen protocol; empty unless the group is stable.
    pub metadata: Arc<[u8]>,
    /// What the leader assigned; empty unless the group is stable.
    pub assignment: Arc<[u8]>,
}

/// ListGroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// State names, any case; empty for all.
    pub states: Vec<String>,
    /// Group types, any case; empty for all. All groups here are `classic`.
    pub types: Vec<String>,
}

/// Answer to ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResponse {
    /// `None` is success.
    pub error: Option<GroupError>,
    /// Sorted by id.
    pub groups: Vec<ListedGroup>,
}

/// One group of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group's id.
    pub group_id: Arc<str>,
    /// Empty if the group never had members.
    pub protocol_type: String,
    /// The group's state.
    pub state: GroupState,
}

/// DeleteGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroupsRequest {
    /// The groups' ids.
    pub group_ids: Vec<String>,
}

/// Answer to DeleteGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroupsResponse {
    /// Per group, in the request's order.
    pub groups: Vec<(String, Option<GroupError>)>,
}
