//! The error codes a group coordinator answers with, and what each one makes a client do (kafka gateway appendix A).
#![forbid(unsafe_code)]

/// Why the coordinator refused a request, or one member or partition of it. Success is the absence of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum GroupError {
    /// The topic or partition does not exist. Found by the caller, or a negative partition number.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// The metadata string of a committed offset is longer than [`Settings::max_offset_metadata`](super::Settings).
    #[error("offset metadata too large")]
    OffsetMetadataTooLarge,
    /// The committed state is still being read from the log; clients ask again.
    #[error("coordinator load in progress")]
    CoordinatorLoadInProgress,
    /// A change could not be stored, or too many are waiting to be, or the group is just being deleted; clients look
    /// for the coordinator and ask again.
    #[error("coordinator not available")]
    CoordinatorNotAvailable,
    /// This coordinator has resigned; clients look for the coordinator.
    #[error("not coordinator")]
    NotCoordinator,
    /// The generation is not the present one; members rejoin from nothing.
    #[error("illegal generation")]
    IllegalGeneration,
    /// The protocol type or none of the protocols fits the group.
    #[error("inconsistent group protocol")]
    InconsistentGroupProtocol,
    /// The group id is empty or longer than the protocol can carry.
    #[error("invalid group id")]
    InvalidGroupId,
    /// The member is not in the group; it rejoins from nothing.
    #[error("unknown member id")]
    UnknownMemberId,
    /// The session timeout is outside the configured range.
    #[error("invalid session timeout")]
    InvalidSessionTimeout,
    /// The group rebalances; members rejoin.
    #[error("rebalance in progress")]
    RebalanceInProgress,
    /// The group would hold more offsets than [`Settings::max_offsets_per_group`](super::Settings).
    #[error("invalid commit offset size")]
    InvalidCommitOffsetSize,
    /// The caller found that the topic may not be used by this client.
    #[error("topic authorization failed")]
    TopicAuthorizationFailed,
    /// The caller found that the group may not be used by this client.
    #[error("group authorization failed")]
    GroupAuthorizationFailed,
    /// A field is outside what the coordinator accepts.
    #[error("invalid request")]
    InvalidRequest,
    /// The group has members and can not be deleted.
    #[error("non empty group")]
    NonEmptyGroup,
    /// There is no such group.
    #[error("group id not found")]
    GroupIdNotFound,
    /// The member has to join again with the member id in the answer.
    #[error("member id required")]
    MemberIdRequired,
    /// A bound on members, groups or bytes is reached.
    #[error("group max size reached")]
    GroupMaxSizeReached,
    /// Another member has taken over the group instance id; fatal to the older one.
    #[error("fenced instance id")]
    FencedInstanceId,
    /// The offsets of a topic that members subscribe to can not be deleted.
    #[error("group subscribed to topic")]
    GroupSubscribedToTopic,
}

impl GroupError {
    /// The error code on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            GroupError::UnknownTopicOrPartition => 3,
            GroupError::OffsetMetadataTooLarge => 12,
            GroupError::CoordinatorLoadInProgress => 14,
            GroupError::CoordinatorNotAvailable => 15,
            GroupError::NotCoordinator => 16,
            GroupError::IllegalGeneration => 22,
            GroupError::InconsistentGroupProtocol => 23,
            GroupError::InvalidGroupId => 24,
            GroupError::UnknownMemberId => 25,
            GroupError::InvalidSessionTimeout => 26,
            GroupError::RebalanceInProgress => 27,
            GroupError::InvalidCommitOffsetSize => 28,
            GroupError::TopicAuthorizationFailed => 29,
            GroupError::GroupAuthorizationFailed => 30,
            GroupError::InvalidRequest => 42,
            GroupError::NonEmptyGroup => 68,
            GroupError::GroupIdNotFound => 69,
            GroupError::MemberIdRequired => 79,
            GroupError::GroupMaxSizeReached => 81,
            GroupError::FencedInstanceId => 82,
            GroupError::GroupSubscribedToTopic => 86,
        }
    }

    /// The code of a result: 0 for success.
    #[must_use]
    pub const fn code_of(error: Option<GroupError>) -> i16 {
        match error {
            None => 0,
            Some(error) => error.code(),
        }
    }
}
