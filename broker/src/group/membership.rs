//! One group: who is in it, and the requests by which members come, stay and go (kafka gateway 5.1 and 5.2). What a
//! rebalance does is in `rebalance`, what is stored and only then answered is in `durable`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Settings;
use super::durable::InFlight;
use super::error::GroupError;
use super::member::{GroupState, Member, NANOS_PER_MS, new_member_id, protocol_bytes, subscribed_topics};
use super::offsets::OffsetTable;
use super::outbox::Outbox;
use super::request::{
    HeartbeatRequest, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, LeavingMember, RequestToken,
    Response, SyncRequest, SyncResponse,
};
use super::timers::{Timer, Timers};

/// What a group needs from outside for one step.
pub(super) struct Context<'a> {
    /// Nanoseconds since the coordinator's origin.
    pub(super) tick: i64,
    /// Unix milliseconds.
    pub(super) epoch_ms: i64,
    pub(super) settings: &'a Settings,
    pub(super) out: &'a mut Outbox,
    /// How many bytes the coordinator may still take on.
    pub(super) spare_bytes: usize,
}

impl Context<'_> {
    /// Refuses what would have to wait for the log while too much does already.
    pub(super) fn check_log(&self) -> Result<(), GroupError> {
        if self.out.unacknowledged() >= self.settings.max_unacknowledged {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        Ok(())
    }
}

/// The wait for more members that a rebalance from `Empty` begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialDelay {
    /// Nanoseconds by which the wait can still be extended.
    pub(super) remaining: i64,
    /// Whether somebody joined since the wait was last extended.
    pub(super) joined: bool,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// Static members by instance id.
    pub(super) instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Member ids given out with MEMBER_ID_REQUIRED and not used yet.
    pub(super) pending: BTreeSet<Arc<str>>,
    /// How many members support a protocol.
    pub(super) support: BTreeMap<String, usize>,
    pub(super) timers: Timers,
    pub(super) initial_delay: Option<InitialDelay>,
    /// Who has joined this generation and not yet asked for its assignment.
    pub(super) awaiting_sync: BTreeSet<Arc<str>>,
    /// The leader's assignment is being stored.
    pub(super) is_assigning: bool,
    /// Unix milliseconds at which the last member left.
    pub(super) empty_since: Option<i64>,
    /// A record of the group is, or will be, in the log.
    pub(super) is_recorded: bool,
    /// Its deletion is stored: it can be forgotten.
    pub(super) is_gone: bool,
    pub(super) offsets: OffsetTable,
    /// Changes not yet acknowledged by the log, in its order.
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) in_flight_bytes: usize,
    pub(super) in_flight_offsets: usize,
    pub(super) member_bytes: usize,
    pub(super) assignment_bytes: usize,
}

/// Charged for each group besides what is in it: the structures around it, roughly.
const GROUP_OVERHEAD: usize = 1024;
/// What a member id that was given out is charged besides its bytes.
const PENDING_OVERHEAD: usize = 256;

impl Group {
    pub(super) fn new(id: Arc<str>) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeSet::new(),
            support: BTreeMap::new(),
            timers: Timers::default(),
            initial_delay: None,
            awaiting_sync: BTreeSet::new(),
            is_assigning: false,
            empty_since: None,
            is_recorded: false,
            is_gone: false,
            offsets: OffsetTable::default(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            in_flight_offsets: 0,
            member_bytes: 0,
            assignment_bytes: 0,
        }
    }

    /// Bytes of client data held, roughly.
    pub(super) fn bytes(&self) -> usize {
        Group::empty_bytes(&self.id)
            + self.member_bytes
            + self.assignment_bytes
            + self.in_flight_bytes
            + self.offsets.bytes()
    }

    /// What a group without anything in it is charged.
    pub(super) fn empty_bytes(id: &str) -> usize {
        GROUP_OVERHEAD + id.len()
    }

    /// Answers every request that waits for other members.
    pub(super) fn answer_held(&mut self, error: GroupError, cx: &mut Context<'_>) {
        for member in self.members.values_mut() {
            if let Some(token) = member.held_join.take() {
                let answer = JoinResponse::refused(error, Arc::clone(&member.id));
                cx.out.respond(token, Response::Join(answer));
            }
            if let Some(token) = member.held_sync.take() {
                cx.out
                    .respond(token, Response::Sync(SyncResponse::refused(error)));
            }
        }
    }

    /// Whether nothing would be lost by forgetting the group.
    pub(super) fn is_vacant(&self) -> bool {
        let is_unused = self.state == GroupState::Empty
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.in_flight.is_empty()
            && !self.is_recorded;
        self.is_gone || is_unused
    }

    pub(super) fn on_join(&mut self, token: RequestToken, request: JoinRequest, cx: &mut Context<'_>) {
        let member_id: Arc<str> = Arc::from(request.member_id.as_str());
        let outcome = if self.state == GroupState::Dead {
            Err(GroupError::CoordinatorNotAvailable)
        } else if member_id.is_empty() {
            self.join_first(token, request, cx)
        } else {
            self.join_again(token, Arc::clone(&member_id), request, cx)
        };
        if let Err(error) = outcome {
            cx.out
                .respond(token, Response::Join(JoinResponse::refused(error, member_id)));
        }
    }

    fn join_first(
        &mut self,
        token: RequestToken,
        request: JoinRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        let replaced = request
            .instance_id
            .as_deref()
            .and_then(|it| self.instances.get(it))
            .cloned();
        self.check_protocols(&request, replaced.as_deref())?;
        let id = new_member_id(&request.client_id, request.member_entropy);
        if self.members.contains_key(&id) || self.pending.contains(&id) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some(old) = replaced {
            return self.replace_static(token, &old, id, request, cx);
        }
        if request.instance_id.is_some() || request.api_version < 4 {
            return self.admit(token, id, request, cx);
        }
        let is_full = self.members.len() >= cx.settings.max_members_per_group
            || self.pending.len() >= cx.settings.max_pending_members_per_group
            || pending_bytes(&id) > cx.spare_bytes;
        if is_full {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let session = i64::from(request.session_timeout_ms) * NANOS_PER_MS;
        self.add_pending(&id);
        self.timers
            .set(Timer::Pending(Arc::clone(&id)), cx.tick.saturating_add(session));
        let answer = JoinResponse::refused(GroupError::MemberIdRequired, id);
        cx.out.respond(token, Response::Join(answer));
        Ok(())
    }

    fn join_again(
        &mut self,
        token: RequestToken,
        id: Arc<str>,
        request: JoinRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        if request.instance_id.is_none() && self.pending.contains(&id) {
            self.check_protocols(&request, None)?;
            return self.admit(token, id, request, cx);
        }
        self.check_member(&id, request.instance_id.as_deref())?;
        self.check_protocols(&request, Some(&id))?;
        let is_unchanged = self.is_unchanged(&id, &request);
        let is_leader = self.leader.as_ref() == Some(&id);
        match self.state {
            GroupState::CompletingRebalance if is_unchanged => {}
            GroupState::Stable if is_unchanged && !is_leader => {}
            GroupState::PreparingRebalance => {
                self.update(&id, request, cx)?;
                self.hold_join(&id, token, cx);
                self.try_complete(cx);
                return Ok(());
            }
            _ => {
                self.update(&id, request, cx)?;
                self.hold_join(&id, token, cx);
                self.start_rebalance(cx);
                return Ok(());
            }
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.take_timeouts(&request);
        }
        self.restart_session(&id, cx);
        let answer = self.present_generation(&id);
        cx.out.respond(token, Response::Join(answer));
        Ok(())
    }

    /// Takes a new member in and rebalances.
    fn admit(
        &mut self,
        token: RequestToken,
        id: Arc<str>,
        request: JoinRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        cx.check_log()?;
        let protocol_type = request.protocol_type.clone();
        let member = Member::new(Arc::clone(&id), request);
        if self.members.len() >= cx.settings.max_members_per_group || member.bytes() > cx.spare_bytes {
            return Err(GroupError::GroupMaxSizeReached);
        }
        self.remove_pending(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        self.insert_member(member);
        self.hold_join(&id, token, cx);
        if let Some(initial) = &mut self.initial_delay {
            initial.joined = true;
        }
        if self.state == GroupState::PreparingRebalance {
            self.try_complete(cx);
        } else {
            self.start_rebalance(cx);
        }
        Ok(())
    }

    /// A static member came back without its id, or a second process took its name: the slot goes to the newcomer.
    fn replace_static(
        &mut self,
        token: RequestToken,
        old: &Arc<str>,
        id: Arc<str>,
        request: JoinRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        cx.check_log()?;
        let is_unchanged = self.is_same_subscription(old, &request);
        let skips_assignment = request.api_version >= 9;
        let protocol_type = request.protocol_type.clone();
        let newcomer = Member::new(Arc::clone(&id), request);
        if newcomer.bytes() > cx.spare_bytes {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let was_leader = self.leader.as_ref() == Some(old);
        let Some(left) = self.take_member(old, GroupError::FencedInstanceId, cx) else {
            return Err(GroupError::UnknownMemberId);
        };
        let newcomer = Member {
            assignment: left.assignment,
            is_new: left.is_new,
            ..newcomer
        };
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        self.insert_member(newcomer);
        if was_leader {
            self.leader = Some(Arc::clone(&id));
        }
        match self.state {
            GroupState::Stable if is_unchanged && self.protocol == self.choose_protocol() => {
                self.restart_session(&id, cx);
                let mut answer = self.present_generation(&id);
                if was_leader && skips_assignment {
                    answer.skip_assignment = true;
                } else if was_leader {
                    // Without the flag a leader would assign anew; told of its old id, it takes itself for a follower.
                    answer.leader = Arc::clone(old);
                    answer.members = Vec::new();
                }
                self.store_replacement(token, answer, cx);
            }
            GroupState::PreparingRebalance => {
                self.hold_join(&id, token, cx);
                self.try_complete(cx);
            }
            _ => {
                self.hold_join(&id, token, cx);
                self.start_rebalance(cx);
            }
        }
        Ok(())
    }

    pub(super) fn on_sync(&mut self, token: RequestToken, request: SyncRequest, cx: &mut Context<'_>) {
        if let Err(error) = self.sync(token, request, cx) {
            cx.out
                .respond(token, Response::Sync(SyncResponse::refused(error)));
        }
    }

    fn sync(
        &mut self,
        token: RequestToken,
        request: SyncRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        let id: Arc<str> = Arc::from(request.member_id.as_str());
        self.check_generation(&id, request.instance_id.as_deref(), request.generation)?;
        let differs = |given: &Option<String>, ours: &Option<String>| given.is_some() && given != ours;
        if self.state == GroupState::PreparingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if self.state == GroupState::Stable {
            self.finish_sync(&id, cx);
            let answer = self.assignment_of(&id);
            cx.out.respond(token, Response::Sync(answer));
            return Ok(());
        }
        // CompletingRebalance: Empty and Dead know no members.
        let assigns = self.leader.as_ref() == Some(&id) && !self.is_assigning;
        let assignments = if assigns {
            Some(self.check_assignments(request.assignments, cx)?)
        } else {
            None
        };
        self.awaiting_sync.remove(&id);
        self.hold_sync(&id, token, cx);
        if let Some(assignments) = assignments {
            self.store_assignments(assignments, cx);
        }
        Ok(())
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        let instance_id = request.instance_id.as_deref();
        self.check_generation(&request.member_id, instance_id, request.generation)?;
        self.restart_session(&Arc::from(request.member_id.as_str()), cx);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(super) fn leave(&mut self, request: LeaveRequest, cx: &mut Context<'_>) -> LeaveResponse {
        if self.state == GroupState::Dead {
            let error = Some(GroupError::CoordinatorNotAvailable);
            return LeaveResponse {
                error,
                members: Vec::new(),
            };
        }
        let mut members = Vec::with_capacity(request.members.len());
        let before = self.members.len();
        for leaving in request.members {
            let outcome = self.leave_one(&leaving, cx);
            members.push((leaving, outcome.err()));
        }
        if self.members.len() < before {
            self.after_removal(cx);
        } else {
            self.try_complete(cx);
        }
        LeaveResponse { error: None, members }
    }

    fn leave_one(&mut self, leaving: &LeavingMember, cx: &mut Context<'_>) -> Result<(), GroupError> {
        let id = match leaving.instance_id.as_deref() {
            Some(instance) if leaving.member_id.is_empty() => {
                let owner = self.instances.get(instance);
                Arc::clone(owner.ok_or(GroupError::UnknownMemberId)?)
            }
            _ => Arc::from(leaving.member_id.as_str()),
        };
        if self.remove_pending(&id) {
            return Ok(());
        }
        self.check_member(&id, leaving.instance_id.as_deref())?;
        self.take_member(&id, GroupError::UnknownMemberId, cx);
        Ok(())
    }

    /// Lets every timer that is due do what it is for.
    pub(super) fn on_time(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.timers.pop_due(cx.tick) {
            match timer {
                Timer::Rebalance => self.on_rebalance_time(cx),
                Timer::Sync => self.on_sync_time(cx),
                Timer::Session(id) => {
                    self.take_member(&id, GroupError::UnknownMemberId, cx);
                    self.after_removal(cx);
                }
                Timer::Pending(id) => {
                    self.remove_pending(&id);
                    self.try_complete(cx);
                }
            }
        }
    }

    /// Whether `id` is a member and, if it names an instance, the present owner of it.
    fn check_member(&self, id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            let owner = self.instances.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if &**owner != id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    pub(super) fn check_generation(
        &self,
        id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(id, instance_id)?;
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// Whether the joiner shares the protocol type and a protocol with all members but `itself`.
    fn check_protocols(&self, request: &JoinRequest, itself: Option<&str>) -> Result<(), GroupError> {
        let itself = itself.and_then(|id| self.members.get(id));
        let others = self.members.len() - usize::from(itself.is_some());
        if others == 0 {
            return Ok(());
        }
        let is_shared = |name: &str| {
            let own = usize::from(itself.is_some_and(|member| member.supports(name)));
            self.support.get(name).is_some_and(|count| count - own == others)
        };
        let same_type = self.protocol_type.as_deref() == Some(request.protocol_type.as_str());
        if same_type && request.protocols.iter().any(|it| is_shared(&it.name)) {
            Ok(())
        } else {
            Err(GroupError::InconsistentGroupProtocol)
        }
    }

    fn is_unchanged(&self, id: &str, request: &JoinRequest) -> bool {
        let same_type = self.protocol_type.as_deref() == Some(request.protocol_type.as_str());
        same_type
            && self
                .members
                .get(id)
                .is_some_and(|member| member.protocols == request.protocols)
    }

    /// Whether a returning static member wants the same work as before. A consumer's metadata also tells what it owned
    /// when it last joined, which a restart changes; only its topics count.
    fn is_same_subscription(&self, old: &str, request: &JoinRequest) -> bool {
        let (Some(member), Some(protocol)) = (self.members.get(old), self.protocol.as_deref()) else {
            return false;
        };
        if self.protocol_type.as_deref() != Some(request.protocol_type.as_str()) {
            return false;
        }
        let Some(given) = request.protocols.iter().find(|it| it.name == protocol) else {
            return false;
        };
        let present = member.metadata(protocol);
        if request.protocol_type == "consumer" {
            let (before, after) = (subscribed_topics(&present), subscribed_topics(&given.metadata));
            if before.is_some() && before == after {
                return true;
            }
        }
        present == given.metadata
    }

    /// Makes a member's protocols those of its new join.
    fn update(&mut self, id: &Arc<str>, request: JoinRequest, cx: &Context<'_>) -> Result<(), GroupError> {
        let protocols: usize = request.protocols.iter().map(protocol_bytes).sum();
        let size = protocols + request.client_id.len() + request.client_host.len();
        if size > cx.spare_bytes {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let Some(mut member) = self.detach(id) else {
            return Err(GroupError::UnknownMemberId);
        };
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        member.take_over(request);
        self.insert_member(member);
        Ok(())
    }

    pub(super) fn insert_member(&mut self, member: Member) {
        for protocol in &member.protocols {
            *self.support.entry(protocol.name.clone()).or_insert(0) += 1;
        }
        if let Some(instance) = &member.instance_id {
            self.instances
                .insert(Arc::clone(instance), Arc::clone(&member.id));
        }
        self.member_bytes += member.bytes();
        self.assignment_bytes += member.assignment.len();
        self.members.insert(Arc::clone(&member.id), member);
    }

    /// Takes a member out of the tables, with nothing else.
    fn detach(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        for protocol in &member.protocols {
            if let Some(count) = self.support.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.support.remove(&protocol.name);
                }
            }
        }
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        self.member_bytes -= member.bytes();
        self.assignment_bytes -= member.assignment.len();
        Some(member)
    }

    /// Takes a member out for good; requests of it that are held are answered with `error`.
    pub(super) fn take_member(
        &mut self,
        id: &Arc<str>,
        error: GroupError,
        cx: &mut Context<'_>,
    ) -> Option<Member> {
        let mut member = self.detach(id)?;
        self.timers.cancel(&Timer::Session(Arc::clone(id)));
        self.forget_sync(id);
        if let Some(token) = member.held_join.take() {
            cx.out.respond(
                token,
                Response::Join(JoinResponse::refused(error, Arc::clone(id))),
            );
        }
        if let Some(token) = member.held_sync.take() {
            cx.out
                .respond(token, Response::Sync(SyncResponse::refused(error)));
        }
        if self.leader.as_ref() == Some(id) {
            let joined = self.members.values().find(|it| it.held_join.is_some());
            let next = joined.or_else(|| self.members.values().next());
            self.leader = next.map(|it| Arc::clone(&it.id));
        }
        Some(member)
    }

    fn add_pending(&mut self, id: &Arc<str>) {
        if self.pending.insert(Arc::clone(id)) {
            self.member_bytes += pending_bytes(id);
        }
    }

    fn remove_pending(&mut self, id: &Arc<str>) -> bool {
        let was_pending = self.pending.remove(id);
        if was_pending {
            self.member_bytes -= pending_bytes(id);
            self.timers.cancel(&Timer::Pending(Arc::clone(id)));
        }
        was_pending
    }

    /// Holds a join's answer. One who waits is alive, so its session stands still, but a member that has never been
    /// answered can not tell us that it is gone: it is not waited for without end.
    fn hold_join(&mut self, id: &Arc<str>, token: RequestToken, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if let Some(older) = member.held_join.replace(token) {
            let answer = JoinResponse::refused(GroupError::RebalanceInProgress, Arc::clone(id));
            cx.out.respond(older, Response::Join(answer));
        }
        let timer = Timer::Session(Arc::clone(id));
        if member.is_new {
            let wait = i64::from(cx.settings.new_member_join_timeout_ms) * NANOS_PER_MS;
            self.timers.set(timer, cx.tick.saturating_add(wait));
        } else {
            self.timers.cancel(&timer);
        }
    }

    fn hold_sync(&mut self, id: &Arc<str>, token: RequestToken, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if let Some(older) = member.held_sync.replace(token) {
            let answer = SyncResponse::refused(GroupError::RebalanceInProgress);
            cx.out.respond(older, Response::Sync(answer));
        }
        self.timers.cancel(&Timer::Session(Arc::clone(id)));
    }

    /// The member was heard of: its session begins anew, unless it stands still.
    pub(super) fn restart_session(&mut self, id: &Arc<str>, cx: &Context<'_>) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        if !member.is_waiting() {
            let at = cx.tick.saturating_add(member.session_nanos());
            self.timers.set(Timer::Session(Arc::clone(id)), at);
        }
    }

    /// The answer to a join that does not change the present generation.
    pub(super) fn present_generation(&self, id: &Arc<str>) -> JoinResponse {
        let is_leader = self.leader.as_ref() == Some(id);
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if is_leader {
            self.members.values().map(|it| it.joined(&protocol)).collect()
        } else {
            Vec::new()
        };
        JoinResponse {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: Some(protocol),
            leader: self.leader.clone().unwrap_or_else(|| Arc::from("")),
            skip_assignment: false,
            member_id: Arc::clone(id),
            members,
        }
    }

    pub(super) fn assignment_of(&self, id: &str) -> SyncResponse {
        let assignment = self.members.get(id).map(|it| Arc::clone(&it.assignment));
        SyncResponse {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_else(|| Arc::from([])),
        }
    }
}

#[cfg(test)]
impl Group {
    /// Panics if what is kept twice differs, if a bound is broken, or if something is waited for without a timer.
    pub(super) fn check(&self, settings: &Settings) {
        let timed = |timer| self.timers.is_set(&timer);
        let pending: usize = self.pending.iter().map(|it| pending_bytes(it)).sum();
        assert_eq!(
            self.member_bytes,
            pending + self.members.values().map(Member::bytes).sum::<usize>()
        );
        assert_eq!(
            self.assignment_bytes,
            self.members.values().map(|it| it.assignment.len()).sum::<usize>()
        );
        assert!(self.members.len() <= settings.max_members_per_group);
        assert!(self.pending.len() <= settings.max_pending_members_per_group);
        assert!(self.offsets.len() + self.in_flight_offsets <= settings.max_offsets_per_group * 2);
        assert!(self.offsets.len() <= settings.max_offsets_per_group);
        for id in &self.pending {
            assert!(timed(Timer::Pending(Arc::clone(id))) && !self.members.contains_key(id));
        }
        let sessions = self
            .members
            .keys()
            .filter(|it| timed(Timer::Session(Arc::clone(it))));
        let others = usize::from(timed(Timer::Rebalance)) + usize::from(timed(Timer::Sync));
        let known = sessions.count() + self.pending.len() + others;
        assert_eq!(self.timers.len(), known, "a timer of somebody who is gone");
        let mut support = BTreeMap::new();
        let mut instances = BTreeMap::new();
        for (id, member) in &self.members {
            assert_eq!(*id, member.id);
            let is_timed = timed(Timer::Session(Arc::clone(id)));
            assert_eq!(
                is_timed,
                !member.is_waiting() || (member.is_new && member.held_join.is_some())
            );
            assert!(member.held_join.is_none() || self.state == GroupState::PreparingRebalance);
            assert!(member.held_sync.is_none() || self.state == GroupState::CompletingRebalance);
            member
                .protocols
                .iter()
                .for_each(|it| *support.entry(it.name.clone()).or_insert(0) += 1);
            instances.extend(member.instance_id.clone().map(|it| (it, Arc::clone(id))));
        }
        assert_eq!(self.support, support);
        assert_eq!(self.instances, instances);
        let is_shared = support.values().any(|count| *count == self.members.len());
        assert!(is_shared || self.members.is_empty());
        let has_members = !matches!(self.state, GroupState::Empty | GroupState::Dead);
        assert_eq!(has_members, !self.members.is_empty());
        assert_eq!(
            has_members,
            self.leader
                .as_ref()
                .is_some_and(|it| self.members.contains_key(it))
        );
        assert_eq!(
            timed(Timer::Rebalance),
            self.state == GroupState::PreparingRebalance
        );
        if self.state == GroupState::CompletingRebalance {
            assert!(timed(Timer::Sync) || self.is_assigning);
        }
        let may_sync = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        assert!(may_sync || (!timed(Timer::Sync) && self.awaiting_sync.is_empty()));
        assert!(self.awaiting_sync.iter().all(|it| self.members.contains_key(it)));
        assert!(!self.is_vacant(), "forgotten at once");
    }
}

/// What a member id that was given out is charged.
fn pending_bytes(id: &str) -> usize {
    PENDING_OVERHEAD + id.len()
}
