//! What a group stores, and what it answers or does once that is stored. Changes of a group take effect in the order in
//! which they were put out, whatever the order of their acknowledgements.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::codec::{self, GroupFields, MAX_STRING, RestoreError, StoredGroup};
use super::error::GroupError;
use super::member::{GroupState, Member, subscribed_topics};
use super::membership::{Context, Group};
use super::offsets::{Expiry, StoredOffset, TopicPartition, offset_bytes};
use super::outbox::Deletion;
use super::request::{
    CommitPartition, JoinResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, PartitionResult, PersistToken, Record, RequestToken, Response,
};

/// A change the log has not acknowledged yet.
#[derive(Debug)]
pub(super) struct InFlight {
    token: PersistToken,
    /// Whether it is stored, once that is known.
    outcome: Option<bool>,
    bytes: usize,
    change: Change,
}

/// What happens when it is stored.
#[derive(Debug)]
enum Change {
    /// A commit becomes visible and is answered.
    Commit {
        request: RequestToken,
        response: OffsetCommitResponse,
        writes: Vec<(TopicPartition, StoredOffset)>,
    },
    /// Offsets are forgotten; answered if somebody asked for it.
    Forget {
        reply: Option<(RequestToken, OffsetDeleteResponse)>,
        keys: Vec<TopicPartition>,
    },
    /// The generation becomes stable.
    Assign {
        generation: i32,
        assignments: BTreeMap<Arc<str>, Arc<[u8]>>,
    },
    /// A static member's replacement is answered.
    Replace {
        request: RequestToken,
        response: JoinResponse,
    },
    /// The group is empty: nobody waits for that.
    Empty,
    /// The group can be forgotten.
    Delete { deletion: Option<Deletion> },
}

/// How many offsets one pass over a group lets expire; the rest goes with the next pass.
const EXPIRED_MAX: usize = 1_000;

impl Group {
    /// Stores offsets, or answers why not.
    pub(super) fn commit(&mut self, token: RequestToken, request: OffsetCommitRequest, cx: &mut Context<'_>) {
        if let Err(error) = self.check_committer(&request, cx) {
            let response = refuse_commit(&request.partitions, error);
            cx.out.respond(token, Response::OffsetCommit(response));
            return;
        }
        let expires_at_ms =
            (request.retention_ms >= 0).then(|| cx.epoch_ms.saturating_add(request.retention_ms));
        let mut partitions = Vec::with_capacity(request.partitions.len());
        let mut writes = Vec::new();
        let mut bytes = 0;
        for it in request.partitions {
            let at = TopicPartition {
                topic: Arc::from(it.topic.as_str()),
                partition: it.partition,
            };
            let stored = StoredOffset {
                offset: it.offset,
                leader_epoch: it.leader_epoch,
                metadata: it.metadata,
                commit_time_ms: cx.epoch_ms,
                expires_at_ms,
            };
            let size = offset_bytes(&at, &stored);
            let count = self.offsets.len() + self.in_flight_offsets + writes.len();
            let is_full = count >= cx.settings.max_offsets_per_group && !self.offsets.contains(&at);
            let error = it
                .refused
                .or_else(|| refuse_offset(&at, &stored, cx))
                .or_else(|| {
                    let no_room = is_full || bytes + size > cx.spare_bytes;
                    no_room.then_some(GroupError::InvalidCommitOffsetSize)
                });
            partitions.push(PartitionResult {
                topic: it.topic,
                partition: it.partition,
                error,
            });
            if error.is_none() {
                bytes += size;
                writes.push((at, stored));
            }
        }
        let response = OffsetCommitResponse { partitions };
        if writes.is_empty() {
            cx.out.respond(token, Response::OffsetCommit(response));
            return;
        }
        let records = writes.iter().map(|(at, stored)| Record {
            key: codec::offset_key(&self.id, at),
            value: Some(codec::offset_value(stored)),
        });
        let records = records.collect();
        self.in_flight_offsets += writes.len();
        self.store(
            records,
            Change::Commit {
                request: token,
                response,
                writes,
            },
            bytes,
            cx,
        );
    }

    fn check_committer(
        &mut self,
        request: &OffsetCommitRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        let is_simple =
            request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none();
        match self.state {
            GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty if is_simple => return cx.check_log(),
            _ => {}
        }
        let instance_id = request.instance_id.as_deref();
        self.check_generation(&request.member_id, instance_id, request.generation)?;
        self.restart_session(&Arc::from(request.member_id.as_str()), cx);
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        cx.check_log()
    }

    /// Removes offsets nobody subscribes to.
    pub(super) fn delete_offsets(
        &mut self,
        token: RequestToken,
        request: OffsetDeleteRequest,
        cx: &mut Context<'_>,
    ) {
        let refuse = |error| OffsetDeleteResponse {
            error: Some(error),
            partitions: Vec::new(),
        };
        let is_consumer = self.protocol_type.as_deref() == Some("consumer");
        let refused = match self.state {
            GroupState::Dead => Some(GroupError::GroupIdNotFound),
            GroupState::Empty => cx.check_log().err(),
            _ if is_consumer => cx.check_log().err(),
            _ => Some(GroupError::NonEmptyGroup),
        };
        if let Some(error) = refused {
            cx.out.respond(token, Response::OffsetDelete(refuse(error)));
            return;
        }
        let subscribed = if self.state == GroupState::Empty {
            Some(BTreeSet::new())
        } else {
            self.subscribed()
        };
        let in_flight = self.keys_in_flight();
        let mut keys = BTreeSet::new();
        let mut partitions = Vec::with_capacity(request.partitions.len());
        for (topic, partition) in request.partitions {
            let at = TopicPartition {
                topic: Arc::from(topic.as_str()),
                partition,
            };
            // Where the members' metadata can not be read, everything counts as subscribed.
            let is_free = subscribed.as_ref().is_some_and(|it| !it.contains(&topic));
            let error = (!is_free).then_some(GroupError::GroupSubscribedToTopic);
            if is_free && (self.offsets.contains(&at) || in_flight.contains(&at)) {
                keys.insert(at);
            }
            partitions.push(PartitionResult {
                topic,
                partition,
                error,
            });
        }
        let response = OffsetDeleteResponse {
            error: None,
            partitions,
        };
        if keys.is_empty() {
            cx.out.respond(token, Response::OffsetDelete(response));
        } else {
            self.forget(keys.into_iter().collect(), Some((token, response)), cx);
        }
    }

    /// Lets offsets go whose retention is over, and the group with the last of them.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        if cx.check_log().is_err() {
            return;
        }
        let subscribed;
        let expiry = match self.state {
            GroupState::Empty if self.protocol_type.is_some() => {
                Expiry::Since(self.empty_since.unwrap_or(cx.epoch_ms))
            }
            GroupState::Empty => Expiry::SinceCommit,
            GroupState::Stable => {
                subscribed = self.subscribed();
                subscribed.as_ref().map_or(Expiry::Never, Expiry::Unsubscribed)
            }
            _ => Expiry::Never,
        };
        let mut keys = self.offsets.expired(
            &expiry,
            cx.epoch_ms,
            cx.settings.offsets_retention_ms,
            EXPIRED_MAX,
        );
        let in_flight = self.keys_in_flight();
        keys.retain(|at| !in_flight.contains(at));
        if !keys.is_empty() {
            self.forget(keys, None, cx);
        }
        let is_idle = self.state == GroupState::Empty && self.pending.is_empty();
        if is_idle && self.offsets.is_empty() && self.in_flight.is_empty() {
            self.delete(None, cx);
        }
    }

    /// Deletes the group with all its offsets. It is `Dead` from now on, and gone once that is stored.
    pub(super) fn delete(&mut self, deletion: Option<Deletion>, cx: &mut Context<'_>) {
        self.state = GroupState::Dead;
        let mut keys = self.keys_in_flight();
        keys.extend(self.offsets.keys().cloned());
        let mut records: Vec<Record> = keys.iter().map(|at| self.tombstone(at)).collect();
        // The group itself goes last: a crash in between leaves a group with fewer offsets, not offsets without one.
        records.push(Record {
            key: codec::group_key(&self.id),
            value: None,
        });
        self.store(records, Change::Delete { deletion }, 0, cx);
    }

    pub(super) fn store_empty(&mut self, cx: &mut Context<'_>) {
        let value = self.value(|_| &[]);
        self.store_group(value, Change::Empty, 0, cx);
    }

    pub(super) fn store_replacement(
        &mut self,
        request: RequestToken,
        response: JoinResponse,
        cx: &mut Context<'_>,
    ) {
        let value = self.value(|member| &member.assignment);
        self.store_group(value, Change::Replace { request, response }, 0, cx);
    }

    /// The leader's assignments by member: nothing for who is left out, and nobody who is not a member.
    pub(super) fn check_assignments(
        &self,
        given: Vec<(String, Vec<u8>)>,
        cx: &Context<'_>,
    ) -> Result<BTreeMap<Arc<str>, Arc<[u8]>>, GroupError> {
        cx.check_log()?;
        let mut assignments: BTreeMap<Arc<str>, Arc<[u8]>> = BTreeMap::new();
        for (id, assignment) in given {
            if let Some((id, _)) = self.members.get_key_value(id.as_str()) {
                assignments.insert(Arc::clone(id), Arc::from(assignment));
            }
        }
        let bytes: usize = assignments.values().map(|it| it.len()).sum();
        // Twice: while the assignments are being stored, and as part of the record.
        if bytes.saturating_mul(2) > cx.spare_bytes {
            return Err(GroupError::InvalidRequest);
        }
        Ok(assignments)
    }

    pub(super) fn store_assignments(
        &mut self,
        assignments: BTreeMap<Arc<str>, Arc<[u8]>>,
        cx: &mut Context<'_>,
    ) {
        self.is_assigning = true;
        let value = self.value(|member| assignments.get(&member.id).map_or(&[], |it| it));
        let bytes = assignments.values().map(|it| it.len()).sum();
        let change = Change::Assign {
            generation: self.generation,
            assignments,
        };
        self.store_group(value, change, bytes, cx);
    }

    /// The log has answered for one change. All that are now known, up to the first that is not, take effect.
    pub(super) fn on_stored(&mut self, token: PersistToken, is_stored: bool, cx: &mut Context<'_>) {
        if let Some(it) = self.in_flight.iter_mut().find(|it| it.token == token) {
            it.outcome = Some(is_stored);
        }
        while let Some(is_stored) = self.in_flight.front().and_then(|it| it.outcome) {
            if let Some(it) = self.in_flight.pop_front() {
                self.in_flight_bytes -= it.bytes;
                self.settle(it.change, is_stored, cx);
            }
        }
    }

    fn settle(&mut self, change: Change, is_stored: bool, cx: &mut Context<'_>) {
        let error = (!is_stored).then_some(GroupError::CoordinatorNotAvailable);
        match change {
            Change::Commit {
                request,
                mut response,
                writes,
            } => {
                self.in_flight_offsets -= writes.len();
                if is_stored {
                    writes
                        .into_iter()
                        .for_each(|(at, stored)| self.offsets.store(at, stored));
                }
                response
                    .partitions
                    .iter_mut()
                    .for_each(|it| it.error = it.error.or(error));
                cx.out.respond(request, Response::OffsetCommit(response));
            }
            Change::Forget { reply, keys } => {
                if is_stored {
                    keys.iter().for_each(|at| self.offsets.remove(at));
                }
                if let Some((request, mut response)) = reply {
                    response
                        .partitions
                        .iter_mut()
                        .for_each(|it| it.error = it.error.or(error));
                    cx.out.respond(request, Response::OffsetDelete(response));
                }
            }
            Change::Assign {
                generation,
                assignments,
            } if is_stored => {
                self.on_assigned(generation, assignments, cx);
            }
            Change::Assign { generation, .. } => self.on_assign_failed(generation, cx),
            Change::Replace {
                request,
                mut response,
            } => {
                if let Some(error) = error {
                    // The newcomer never hears of its id; it comes again by its instance id.
                    response = JoinResponse::refused(error, response.member_id);
                }
                cx.out.respond(request, Response::Join(response));
            }
            Change::Empty => {}
            Change::Delete { deletion } => {
                if let Some(deletion) = deletion {
                    cx.out.deleted.push((deletion, error));
                }
                if is_stored {
                    self.is_gone = true;
                } else {
                    self.state = GroupState::Empty;
                }
            }
        }
    }

    /// Takes a group from the log; it becomes live with [`Group::revive`].
    pub(super) fn restore(&mut self, stored: StoredGroup) -> Result<(), RestoreError> {
        let has_members = !stored.members.is_empty();
        let mut fresh = Group::new(Arc::clone(&self.id));
        fresh.generation = stored.generation;
        fresh.protocol_type = stored.protocol_type;
        fresh.protocol = stored.protocol;
        fresh.leader = stored.leader;
        fresh.empty_since = stored.empty_since;
        fresh.is_recorded = true;
        for member in stored.members {
            let is_twice = fresh.members.contains_key(&member.id)
                || member
                    .instance_id
                    .as_ref()
                    .is_some_and(|it| fresh.instances.contains_key(it));
            let names: BTreeSet<&str> = member.protocols.iter().map(|it| it.name.as_str()).collect();
            if is_twice || names.len() != member.protocols.len() {
                return Err(RestoreError::Field);
            }
            fresh.insert_member(member);
        }
        if has_members {
            let leads = fresh
                .leader
                .as_ref()
                .is_some_and(|it| fresh.members.contains_key(it));
            let shared = fresh.protocol.as_ref().and_then(|it| fresh.support.get(it));
            if !leads || fresh.protocol_type.is_none() || shared != Some(&fresh.members.len()) {
                return Err(RestoreError::Field);
            }
            fresh.state = GroupState::Stable;
        } else {
            fresh.leader = None;
            fresh.protocol = None;
        }
        fresh.offsets = core::mem::take(&mut self.offsets);
        *self = fresh;
        Ok(())
    }

    /// The members of a group from the log have one session to show up again.
    pub(super) fn revive(&mut self, cx: &Context<'_>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.restart_session(id, cx);
        }
    }

    fn forget(
        &mut self,
        keys: Vec<TopicPartition>,
        reply: Option<(RequestToken, OffsetDeleteResponse)>,
        cx: &mut Context<'_>,
    ) {
        let records = keys.iter().map(|at| self.tombstone(at)).collect();
        self.store(records, Change::Forget { reply, keys }, 0, cx);
    }

    fn tombstone(&self, at: &TopicPartition) -> Record {
        Record {
            key: codec::offset_key(&self.id, at),
            value: None,
        }
    }

    fn store_group(&mut self, value: Vec<u8>, change: Change, bytes: usize, cx: &mut Context<'_>) {
        self.is_recorded = true;
        let record = Record {
            key: codec::group_key(&self.id),
            value: Some(value),
        };
        self.store(vec![record], change, bytes, cx);
    }

    fn store(&mut self, records: Vec<Record>, change: Change, bytes: usize, cx: &mut Context<'_>) {
        let token = cx.out.persist(&self.id, records);
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            token,
            outcome: None,
            bytes,
            change,
        });
    }

    fn value<'a>(&'a self, assignment: impl Fn(&'a Member) -> &'a [u8]) -> Vec<u8> {
        let fields = GroupFields {
            generation: self.generation,
            protocol_type: self.protocol_type.as_deref(),
            protocol: self.protocol.as_deref(),
            leader: self.leader.as_deref(),
            empty_since: self.empty_since,
        };
        codec::group_value(&fields, self.members.values(), assignment)
    }

    fn keys_in_flight(&self) -> BTreeSet<TopicPartition> {
        let mut keys = BTreeSet::new();
        for it in &self.in_flight {
            match &it.change {
                Change::Commit { writes, .. } => keys.extend(writes.iter().map(|(at, _)| at.clone())),
                Change::Forget { keys: forgotten, .. } => keys.extend(forgotten.iter().cloned()),
                _ => {}
            }
        }
        keys
    }

    /// All topics of the members; `None` if that can not be known.
    fn subscribed(&self) -> Option<BTreeSet<String>> {
        let protocol = self.protocol.as_deref()?;
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}

/// The answer to a commit that is refused as a whole.
pub(super) fn refuse_commit(partitions: &[CommitPartition], error: GroupError) -> OffsetCommitResponse {
    let refuse = |it: &CommitPartition| PartitionResult {
        topic: it.topic.clone(),
        partition: it.partition,
        error: Some(error),
    };
    OffsetCommitResponse {
        partitions: partitions.iter().map(refuse).collect(),
    }
}

fn refuse_offset(at: &TopicPartition, stored: &StoredOffset, cx: &Context<'_>) -> Option<GroupError> {
    if at.topic.is_empty() || at.topic.len() > MAX_STRING || at.partition < 0 {
        return Some(GroupError::UnknownTopicOrPartition);
    }
    if stored.metadata.len() > cx.settings.max_offset_metadata.min(MAX_STRING) {
        return Some(GroupError::OffsetMetadataTooLarge);
    }
    (stored.offset < 0).then_some(GroupError::InvalidRequest)
}
