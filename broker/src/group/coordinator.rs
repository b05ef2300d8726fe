//! All groups of one coordinator: who is asked, the bounds they share, when the next one has something to do, loading
//! from the log and resigning.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fulmar::time::{NanoTime, Now};

use super::Settings;
use super::codec::{self, Key, MAX_STRING, RestoreError};
use super::durable::refuse_commit;
use super::error::GroupError;
use super::member::{GroupState, NANOS_PER_MS, protocol_bytes};
use super::membership::{Context, Group};
use super::offsets::fetched;
use super::outbox::{Deletion, Outbox};
use super::request::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeResponse, Event, JoinRequest, JoinResponse,
    LeaveResponse, ListRequest, ListResponse, ListedGroup, OffsetCommitRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, PersistToken, Request, RequestToken, Response, SyncResponse,
};

/// The classic group coordinator, without clock, randomness, or I/O of its own.
///
/// Requests go in with [`on_request`](Self::on_request), acknowledgements of the log with
/// [`on_persisted`](Self::on_persisted), time with [`on_time`](Self::on_time) no later than
/// [`next_deadline`](Self::next_deadline). After each of these the caller takes events with
/// [`poll_event`](Self::poll_event) until there is none. Every request gets exactly one answer.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    phase: Phase,
    /// Where ticks are counted from: the end of loading.
    origin: NanoTime,
    groups: BTreeMap<Arc<str>, Group>,
    /// The first deadline of each group that has one.
    deadlines: BTreeSet<(i64, Arc<str>)>,
    /// When offsets are next looked through for expired ones.
    expiry_at: i64,
    /// Bytes held by all groups.
    bytes: usize,
    out: Outbox,
    /// Deletions of several groups of which some are not stored yet, and how many.
    deletions: BTreeMap<RequestToken, (DeleteGroupsResponse, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Live,
    Resigned,
}

impl Coordinator {
    /// A coordinator that is loading: requests are answered with
    /// [`CoordinatorLoadInProgress`](GroupError::CoordinatorLoadInProgress) until [`on_loaded`](Self::on_loaded).
    #[must_use]
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator {
            settings: settings.checked(),
            phase: Phase::Loading,
            origin: NanoTime(0),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            expiry_at: 0,
            bytes: 0,
            out: Outbox::default(),
            deletions: BTreeMap::new(),
        }
    }

    /// Takes one record of the log, in the log's order, while loading.
    ///
    /// # Errors
    /// A record that can not be read changes nothing.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RestoreError> {
        if self.phase != Phase::Loading {
            return Err(RestoreError::AlreadyLoaded);
        }
        match (codec::read_key(key)?, value) {
            (Key::Group(id), Some(value)) => {
                let stored = codec::read_group(value)?;
                self.loading(&id).restore(stored)
            }
            (Key::Group(id), None) => {
                if let Some(group) = self.groups.get_mut(id.as_str()) {
                    let offsets = core::mem::take(&mut group.offsets);
                    *group = Group::new(Arc::clone(&group.id));
                    group.offsets = offsets;
                }
                Ok(())
            }
            (Key::Offset(id, at), Some(value)) => {
                let stored = codec::read_offset(value)?;
                self.loading(&id).offsets.store(at, stored);
                Ok(())
            }
            (Key::Offset(id, at), None) => {
                if let Some(group) = self.groups.get_mut(id.as_str()) {
                    group.offsets.remove(&at);
                }
                Ok(())
            }
        }
    }

    /// The log has been read: requests are served from now on. Members from the log have one session timeout to be
    /// heard of.
    pub fn on_loaded(&mut self, now: Now) {
        if self.phase != Phase::Loading {
            return;
        }
        self.phase = Phase::Live;
        self.origin = now.nanos;
        self.expiry_at = self.expiry_interval();
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        self.groups.retain(|_, group| !group.is_vacant());
        self.bytes = self.groups.values().map(Group::bytes).sum();
        for id in ids {
            self.with_group(&id, now, |group, cx| group.revive(cx));
        }
    }

    /// Another node takes over, or this one stops: all that is held is answered with
    /// [`NotCoordinator`](GroupError::NotCoordinator), and so is every later request. What waits for the log is
    /// answered as the log says.
    pub fn on_resigned(&mut self, now: Now) {
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, now, |group, cx| {
                group.answer_held(GroupError::NotCoordinator, cx)
            });
        }
        self.phase = Phase::Resigned;
        self.deadlines.clear();
    }

    /// Takes a request. Its answer is an [`Event::Respond`] with `token`, now or later.
    pub fn on_request(&mut self, token: RequestToken, request: Request, now: Now) {
        let refused = match self.phase {
            Phase::Live => None,
            Phase::Loading => Some(GroupError::CoordinatorLoadInProgress),
            Phase::Resigned => Some(GroupError::NotCoordinator),
        };
        if let Some(error) = refused.or_else(|| refuse_id(&request)) {
            self.out.respond(token, refuse(&request, error));
            return;
        }
        match request {
            Request::Join(request) => self.join(token, request, now),
            Request::OffsetCommit(request) => self.commit(token, request, now),
            Request::OffsetFetch(request) => {
                let response = self.fetch(&request);
                self.out.respond(token, Response::OffsetFetch(response));
            }
            Request::Describe(request) => {
                let response = self.describe(&request.group_id);
                self.out.respond(token, Response::Describe(response));
            }
            Request::List(request) => {
                let response = self.list(&request);
                self.out.respond(token, Response::List(response));
            }
            Request::DeleteGroups(request) => self.delete_groups(token, request, now),
            Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) | Request::OffsetDelete(_) => {
                self.ask_member_group(token, request, now);
            }
        }
    }

    /// The records of a [`Event::Persist`] are durable. Returns whether the token was known and not yet acknowledged.
    pub fn on_persisted(&mut self, token: PersistToken, now: Now) -> bool {
        self.on_stored(token, true, now)
    }

    /// The records of a [`Event::Persist`] could not be stored: what waits for them is answered with
    /// [`CoordinatorNotAvailable`](GroupError::CoordinatorNotAvailable). Returns as
    /// [`on_persisted`](Self::on_persisted) does.
    pub fn on_persist_failed(&mut self, token: PersistToken, now: Now) -> bool {
        self.on_stored(token, false, now)
    }

    /// Lets everything happen that is due at `now`.
    pub fn on_time(&mut self, now: Now) {
        if self.phase != Phase::Live {
            return;
        }
        let tick = now.nanos.since(self.origin);
        while let Some((at, id)) = self.deadlines.first().cloned() {
            if at > tick {
                break;
            }
            self.with_group(&id, now, Group::on_time);
        }
        if tick >= self.expiry_at {
            self.expiry_at = tick.saturating_add(self.expiry_interval());
            let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
            for id in ids {
                self.with_group(&id, now, Group::expire);
            }
        }
    }

    /// When [`on_time`](Self::on_time) has something to do next; `None` unless live.
    #[must_use]
    pub fn next_deadline(&self) -> Option<NanoTime> {
        if self.phase != Phase::Live {
            return None;
        }
        let first = self
            .deadlines
            .first()
            .map_or(self.expiry_at, |(at, _)| self.expiry_at.min(*at));
        Some(self.origin.plus_nanos(first))
    }

    /// The next thing to do, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.poll()
    }

    /// Bytes of client data held, as they count against [`Settings::max_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many [`Event::Persist`] wait for their acknowledgement.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.out.unacknowledged()
    }

    fn join(&mut self, token: RequestToken, mut request: JoinRequest, now: Now) {
        let is_known = self.groups.contains_key(request.group_id.as_str());
        let checked = check_join(&mut request, &self.settings).and_then(|()| {
            let is_first = request.member_id.is_empty();
            if is_known {
                Ok(())
            } else if is_first {
                self.check_new_group(&request.group_id)
            } else {
                Err(GroupError::UnknownMemberId)
            }
        });
        if let Err(error) = checked {
            let member_id = Arc::from(request.member_id.as_str());
            self.out
                .respond(token, Response::Join(JoinResponse::refused(error, member_id)));
            return;
        }
        let id: Arc<str> = Arc::from(request.group_id.as_str());
        self.create(&id);
        self.with_group(&id, now, |group, cx| group.on_join(token, request, cx));
    }

    fn commit(&mut self, token: RequestToken, request: OffsetCommitRequest, now: Now) {
        if !self.groups.contains_key(request.group_id.as_str()) {
            let is_simple = request.generation < 0 && request.member_id.is_empty();
            let refused = if is_simple {
                self.check_new_group(&request.group_id).err()
            } else if request.generation < 0 {
                Some(GroupError::UnknownMemberId)
            } else if request.api_version >= 9 {
                Some(GroupError::GroupIdNotFound)
            } else {
                Some(GroupError::IllegalGeneration)
            };
            if let Some(error) = refused {
                let response = refuse_commit(&request.partitions, error);
                self.out.respond(token, Response::OffsetCommit(response));
                return;
            }
        }
        let id: Arc<str> = Arc::from(request.group_id.as_str());
        self.create(&id);
        self.with_group(&id, now, |group, cx| group.commit(token, request, cx));
    }

    /// Requests that make no group.
    fn ask_member_group(&mut self, token: RequestToken, request: Request, now: Now) {
        let Some(group_id) = group_id(&request) else {
            return;
        };
        let id: Arc<str> = Arc::from(group_id);
        if !self.groups.contains_key(&id) {
            let response = match request {
                Request::OffsetDelete(_) => refuse(&request, GroupError::GroupIdNotFound),
                Request::Leave(request) => {
                    let unknown = |it| (it, Some(GroupError::UnknownMemberId));
                    let members = request.members.into_iter().map(unknown).collect();
                    Response::Leave(LeaveResponse { error: None, members })
                }
                _ => refuse(&request, GroupError::UnknownMemberId),
            };
            self.out.respond(token, response);
            return;
        }
        self.with_group(&id, now, |group, cx| match request {
            Request::Sync(request) => group.on_sync(token, request, cx),
            Request::Heartbeat(request) => {
                let error = group.heartbeat(&request, cx).err();
                cx.out.respond(token, Response::Heartbeat(error));
            }
            Request::Leave(request) => {
                let response = group.leave(request, cx);
                cx.out.respond(token, Response::Leave(response));
            }
            Request::OffsetDelete(request) => group.delete_offsets(token, request, cx),
            _ => {}
        });
    }

    fn fetch(&self, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let group = self.groups.get(request.group_id.as_str());
        let group = group.filter(|it| it.state != GroupState::Dead);
        let partitions = match (group, &request.topics) {
            (Some(group), Some(topics)) => group.offsets.fetch(topics),
            (Some(group), None) => group.offsets.fetch_all(),
            (None, None) => Vec::new(),
            (None, Some(topics)) => {
                let all = topics
                    .iter()
                    .flat_map(|(topic, partitions)| partitions.iter().map(move |it| (topic, *it)));
                all.map(|(topic, partition)| fetched(topic, partition, None))
                    .collect()
            }
        };
        OffsetFetchResponse {
            error: None,
            partitions,
        }
    }

    fn describe(&self, group_id: &str) -> DescribeResponse {
        let Some(group) = self.groups.get(group_id) else {
            return DescribeResponse {
                error: None,
                state: GroupState::Dead,
                known: false,
                protocol_type: String::new(),
                protocol: String::new(),
                members: Vec::new(),
            };
        };
        let stable = group
            .protocol
            .as_deref()
            .filter(|_| group.state == GroupState::Stable);
        DescribeResponse {
            error: None,
            state: group.state,
            known: true,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: stable.unwrap_or_default().to_owned(),
            members: group.members.values().map(|it| it.described(stable)).collect(),
        }
    }

    fn list(&self, request: &ListRequest) -> ListResponse {
        let has = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let is_asked =
            |group: &&Group| has(&request.states, group.state.name()) && has(&request.types, "classic");
        let groups = self.groups.values().filter(is_asked).map(|group| ListedGroup {
            group_id: Arc::clone(&group.id),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        });
        ListResponse {
            error: None,
            groups: groups.collect(),
        }
    }

    fn delete_groups(&mut self, token: RequestToken, request: DeleteGroupsRequest, now: Now) {
        let mut groups = Vec::with_capacity(request.group_ids.len());
        let mut waiting = 0;
        for (index, id) in request.group_ids.into_iter().enumerate() {
            let deletion = Deletion {
                request: token,
                index,
            };
            let outcome = self.with_group(&id, now, |group, cx| {
                match group.state {
                    GroupState::Empty => cx.check_log()?,
                    GroupState::Dead => return Err(GroupError::GroupIdNotFound),
                    _ => return Err(GroupError::NonEmptyGroup),
                }
                group.delete(Some(deletion), cx);
                Ok(())
            });
            let error = outcome.unwrap_or(Err(GroupError::GroupIdNotFound)).err();
            waiting += usize::from(error.is_none());
            groups.push((id, error));
        }
        let response = DeleteGroupsResponse { groups };
        if waiting == 0 {
            self.out.respond(token, Response::DeleteGroups(response));
        } else {
            self.deletions.insert(token, (response, waiting));
        }
    }

    fn on_stored(&mut self, token: PersistToken, is_stored: bool, now: Now) -> bool {
        let Some(id) = self.out.take_owner(token) else {
            return false;
        };
        self.with_group(&id, now, |group, cx| group.on_stored(token, is_stored, cx));
        for (deletion, error) in core::mem::take(&mut self.out.deleted) {
            let Some((response, waiting)) = self.deletions.get_mut(&deletion.request) else {
                continue;
            };
            if let Some((_, place)) = response.groups.get_mut(deletion.index) {
                *place = error;
            }
            *waiting -= 1;
            if *waiting == 0
                && let Some((response, _)) = self.deletions.remove(&deletion.request)
            {
                self.out
                    .respond(deletion.request, Response::DeleteGroups(response));
            }
        }
        true
    }

    fn check_new_group(&self, id: &str) -> Result<(), GroupError> {
        let spare = self.settings.max_bytes.saturating_sub(self.bytes);
        if self.groups.len() >= self.settings.max_groups || spare < Group::empty_bytes(id) {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// Makes the group if there is none; one that stays without use goes with the step that made it.
    fn create(&mut self, id: &Arc<str>) {
        if !self.groups.contains_key(id) {
            let group = Group::new(Arc::clone(id));
            self.bytes += group.bytes();
            self.groups.insert(Arc::clone(id), group);
        }
    }

    fn loading(&mut self, id: &str) -> &mut Group {
        let id: Arc<str> = Arc::from(id);
        self.groups
            .entry(Arc::clone(&id))
            .or_insert_with(|| Group::new(id))
    }

    /// Does one step of a group, and keeps what is known of it outside in line: its first deadline, its bytes, and
    /// that it exists.
    fn with_group<R>(
        &mut self,
        id: &str,
        now: Now,
        step: impl FnOnce(&mut Group, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let (deadline, bytes) = (group.timers.first(), group.bytes());
        let mut cx = Context {
            tick: now.nanos.since(self.origin),
            epoch_ms: now.epoch.0,
            settings: &self.settings,
            out: &mut self.out,
            spare_bytes: self.settings.max_bytes.saturating_sub(self.bytes),
        };
        let result = step(group, &mut cx);
        self.bytes -= bytes;
        let next = if group.is_vacant() {
            None
        } else {
            group.timers.first()
        };
        if deadline != next {
            if let Some(at) = deadline {
                self.deadlines.remove(&(at, Arc::clone(&group.id)));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, Arc::clone(&group.id)));
            }
        }
        if group.is_vacant() {
            self.groups.remove(id);
        } else {
            self.bytes += group.bytes();
        }
        Some(result)
    }

    fn expiry_interval(&self) -> i64 {
        self.settings
            .offsets_check_interval_ms
            .saturating_mul(NANOS_PER_MS)
    }
}

#[cfg(test)]
impl Coordinator {
    /// Panics if a group is not right in itself, or what is kept of it outside differs.
    pub(super) fn check(&self) {
        let mut deadlines = BTreeSet::new();
        for (id, group) in &self.groups {
            assert_eq!(*id, group.id);
            group.check(&self.settings);
            deadlines.extend(group.timers.first().map(|at| (at, Arc::clone(id))));
        }
        assert_eq!(self.deadlines, deadlines);
        assert_eq!(self.bytes, self.groups.values().map(Group::bytes).sum::<usize>());
        assert!(self.bytes <= self.settings.max_bytes);
        assert!(self.groups.len() <= self.settings.max_groups);
    }

    /// Every group and its generation.
    pub(super) fn generations(&self) -> impl Iterator<Item = (Arc<str>, i32)> {
        self.groups.values().map(|it| (Arc::clone(&it.id), it.generation))
    }
}

/// The group a request is about, if it is about one.
fn group_id(request: &Request) -> Option<&str> {
    match request {
        Request::Join(it) => Some(&it.group_id),
        Request::Sync(it) => Some(&it.group_id),
        Request::Heartbeat(it) => Some(&it.group_id),
        Request::Leave(it) => Some(&it.group_id),
        Request::OffsetCommit(it) => Some(&it.group_id),
        Request::OffsetDelete(it) => Some(&it.group_id),
        Request::OffsetFetch(_) | Request::Describe(_) | Request::List(_) | Request::DeleteGroups(_) => None,
    }
}

fn refuse_id(request: &Request) -> Option<GroupError> {
    let id = group_id(request)?;
    (id.is_empty() || id.len() > MAX_STRING).then_some(GroupError::InvalidGroupId)
}

/// Everything about a join that does not depend on the group. Repeated protocols are dropped.
fn check_join(request: &mut JoinRequest, settings: &Settings) -> Result<(), GroupError> {
    let range = settings.min_session_timeout_ms..=settings.max_session_timeout_ms;
    if !range.contains(&request.session_timeout_ms) {
        return Err(GroupError::InvalidSessionTimeout);
    }
    if request.protocol_type.is_empty() || request.protocols.is_empty() {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    let is_long = |it: &str| it.len() > MAX_STRING;
    let instance_id = request.instance_id.as_deref();
    let has_bad_string = is_long(&request.protocol_type)
        || is_long(&request.client_id)
        || is_long(&request.client_host)
        || is_long(&request.member_id)
        || instance_id.is_some_and(|it| it.is_empty() || is_long(it))
        || request.protocols.iter().any(|it| is_long(&it.name));
    let bytes: usize = request.protocols.iter().map(protocol_bytes).sum();
    if has_bad_string || bytes > settings.max_member_bytes {
        return Err(GroupError::InvalidRequest);
    }
    let mut names = BTreeSet::new();
    request.protocols.retain(|it| names.insert(it.name.clone()));
    Ok(())
}

/// The answer to a request that is refused as a whole.
fn refuse(request: &Request, error: GroupError) -> Response {
    let some = Some(error);
    match request {
        Request::Join(it) => Response::Join(JoinResponse::refused(error, Arc::from(it.member_id.as_str()))),
        Request::Sync(_) => Response::Sync(SyncResponse::refused(error)),
        Request::Heartbeat(_) => Response::Heartbeat(some),
        Request::Leave(_) => Response::Leave(LeaveResponse {
            error: some,
            members: Vec::new(),
        }),
        Request::OffsetCommit(it) => Response::OffsetCommit(refuse_commit(&it.partitions, error)),
        Request::OffsetFetch(_) => Response::OffsetFetch(OffsetFetchResponse {
            error: some,
            partitions: Vec::new(),
        }),
        Request::OffsetDelete(_) => Response::OffsetDelete(OffsetDeleteResponse {
            error: some,
            partitions: Vec::new(),
        }),
        Request::Describe(_) => Response::Describe(DescribeResponse {
            error: some,
            state: GroupState::Dead,
            known: false,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }),
        Request::List(_) => Response::List(ListResponse {
            error: some,
            groups: Vec::new(),
        }),
        Request::DeleteGroups(it) => {
            let groups = it.group_ids.iter().map(|id| (id.clone(), some)).collect();
            Response::DeleteGroups(DeleteGroupsResponse { groups })
        }
    }
}
