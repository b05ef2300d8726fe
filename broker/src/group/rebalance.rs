//! The rebalance of one group: gathering its members, choosing leader and protocol, handing out the assignment, and what
//! happens when somebody is not there in time (kafka gateway 5.1).
//!
//! ```text
//!            first join                all joined, or time is over          leader's assignment is stored
//!   Empty ----------------> Preparing ------------------------> Completing -----------------------------> Stable
//!     ^                       |   ^                                 |                                       |
//!     +-- nobody is left -----+   +-- member comes, goes, changes --+---------------------------------------+
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::GroupError;
use super::member::{GroupState, NANOS_PER_MS};
use super::membership::{Context, Group, InitialDelay};
use super::request::{Response, SyncResponse};
use super::timers::Timer;

impl Group {
    /// Begins to gather the members. From `Empty` more are waited for before the first generation.
    pub(super) fn start_rebalance(&mut self, cx: &mut Context<'_>) {
        self.drop_held_syncs(GroupError::RebalanceInProgress, cx);
        self.awaiting_sync.clear();
        self.is_assigning = false;
        self.timers.cancel(&Timer::Sync);
        let timeout = self.rebalance_nanos();
        let delay = i64::from(cx.settings.initial_rebalance_delay_ms)
            .saturating_mul(NANOS_PER_MS)
            .min(timeout);
        if self.state == GroupState::Empty && delay > 0 {
            self.initial_delay = Some(InitialDelay {
                remaining: timeout - delay,
                joined: false,
            });
            self.timers.set(Timer::Rebalance, cx.tick.saturating_add(delay));
        } else {
            self.timers.set(Timer::Rebalance, cx.tick.saturating_add(timeout));
        }
        self.state = GroupState::PreparingRebalance;
        self.try_complete(cx);
    }

    /// Ends the rebalance if nobody is missing.
    pub(super) fn try_complete(&mut self, cx: &mut Context<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let all_joined = || self.members.values().all(|it| it.held_join.is_some());
        let is_ready = self.initial_delay.is_none() && self.pending.is_empty() && all_joined();
        if self.members.is_empty() || is_ready {
            self.complete(cx);
        }
    }

    /// After members are gone: those who stay share out anew.
    pub(super) fn after_removal(&mut self, cx: &mut Context<'_>) {
        match self.state {
            GroupState::PreparingRebalance => self.try_complete(cx),
            GroupState::CompletingRebalance | GroupState::Stable => self.start_rebalance(cx),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub(super) fn on_rebalance_time(&mut self, cx: &mut Context<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        if let Some(initial) = &mut self.initial_delay {
            let configured = i64::from(cx.settings.initial_rebalance_delay_ms).saturating_mul(NANOS_PER_MS);
            let delay = configured.min(initial.remaining);
            if initial.joined && delay > 0 {
                initial.joined = false;
                initial.remaining -= delay;
                self.timers.set(Timer::Rebalance, cx.tick.saturating_add(delay));
                return;
            }
        }
        self.complete(cx);
    }

    /// Members that joined and never came for their assignment are taken for gone; without the leader nobody has one.
    pub(super) fn on_sync_time(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        let late = core::mem::take(&mut self.awaiting_sync);
        let mut has_lost = false;
        for id in late {
            // A static member stays until its session ends.
            if self.members.get(&id).is_some_and(|it| it.instance_id.is_none()) {
                self.take_member(&id, GroupError::UnknownMemberId, cx);
                has_lost = true;
            }
        }
        if has_lost || (self.state == GroupState::CompletingRebalance && !self.is_assigning) {
            self.start_rebalance(cx);
        }
    }

    /// Makes the next generation of those who joined.
    fn complete(&mut self, cx: &mut Context<'_>) {
        self.initial_delay = None;
        let missing = self
            .members
            .values()
            .filter(|it| it.held_join.is_none() && it.instance_id.is_none());
        let missing: Vec<Arc<str>> = missing.map(|it| Arc::clone(&it.id)).collect();
        for id in &missing {
            self.take_member(id, GroupError::UnknownMemberId, cx);
        }
        if self.members.is_empty() {
            self.become_empty(cx);
            return;
        }
        let joined = self.members.values().filter(|it| it.held_join.is_some());
        let joined: Vec<Arc<str>> = joined.map(|it| Arc::clone(&it.id)).collect();
        let Some(first) = joined.first() else {
            // Only silent static members: nobody can lead until one joins or their sessions end.
            self.timers
                .set(Timer::Rebalance, cx.tick.saturating_add(self.wait_nanos()));
            return;
        };
        if !self.leader.as_ref().is_some_and(|leader| joined.contains(leader)) {
            self.leader = Some(Arc::clone(first));
        }
        self.next_generation();
        self.protocol = self.choose_protocol();
        self.state = GroupState::CompletingRebalance;
        self.empty_since = None;
        self.awaiting_sync = joined.iter().cloned().collect();
        self.clear_assignments();
        self.timers.cancel(&Timer::Rebalance);
        self.timers
            .set(Timer::Sync, cx.tick.saturating_add(self.wait_nanos()));
        for id in &joined {
            let answer = self.present_generation(id);
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
                if let Some(token) = member.held_join.take() {
                    cx.out.respond(token, Response::Join(answer));
                }
            }
            self.restart_session(id, cx);
        }
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        self.timers.cancel(&Timer::Rebalance);
        self.next_generation();
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.empty_since = Some(cx.epoch_ms);
        self.store_empty(cx);
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    /// The name supported by all that most members like best; among equals the leader's preference counts. Each member
    /// votes for its first common one.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let is_common = |name: &str| self.support.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(choice) = member.protocols.iter().find(|it| is_common(&it.name)) {
                *votes.entry(&choice.name).or_insert(0) += 1;
            }
        }
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let mut best: Option<(&str, usize)> = None;
        for name in leader.protocols.iter().map(|it| it.name.as_str()) {
            let count = votes.get(name).copied().unwrap_or(0);
            if count > best.map_or(0, |(_, most)| most) {
                best = Some((name, count));
            }
        }
        best.map(|(name, _)| name.to_owned())
    }

    /// The leader's assignment is stored: all who wait for it get it.
    pub(super) fn on_assigned(
        &mut self,
        generation: i32,
        assignments: BTreeMap<Arc<str>, Arc<[u8]>>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_assigned(generation) {
            return;
        }
        self.is_assigning = false;
        self.clear_assignments();
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                self.assignment_bytes += assignment.len();
                member.assignment = assignment;
            }
        }
        self.state = GroupState::Stable;
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            let held = self.members.get_mut(id).and_then(|it| it.held_sync.take());
            if let Some(token) = held {
                let answer = self.assignment_of(id);
                cx.out.respond(token, Response::Sync(answer));
                self.finish_sync(id, cx);
            }
        }
    }

    /// The leader's assignment could not be stored: nobody gets it, and the members are gathered anew.
    pub(super) fn on_assign_failed(&mut self, generation: i32, cx: &mut Context<'_>) {
        if self.is_assigned(generation) {
            self.drop_held_syncs(GroupError::CoordinatorNotAvailable, cx);
            self.start_rebalance(cx);
        }
    }

    fn is_assigned(&self, generation: i32) -> bool {
        self.state == GroupState::CompletingRebalance && self.is_assigning && self.generation == generation
    }

    /// The member has its assignment.
    pub(super) fn finish_sync(&mut self, id: &Arc<str>, cx: &mut Context<'_>) {
        self.forget_sync(id);
        self.restart_session(id, cx);
    }

    /// Waits no longer for this member's sync.
    pub(super) fn forget_sync(&mut self, id: &Arc<str>) {
        self.awaiting_sync.remove(id);
        if self.awaiting_sync.is_empty() && self.state == GroupState::Stable {
            self.timers.cancel(&Timer::Sync);
        }
    }

    fn drop_held_syncs(&mut self, error: GroupError, cx: &mut Context<'_>) {
        let held = self
            .members
            .values_mut()
            .filter_map(|it| Some((Arc::clone(&it.id), it.held_sync.take()?)));
        let held: Vec<_> = held.collect();
        for (id, token) in held {
            cx.out
                .respond(token, Response::Sync(SyncResponse::refused(error)));
            self.restart_session(&id, cx);
        }
    }

    fn clear_assignments(&mut self) {
        for member in self.members.values_mut() {
            member.assignment = Arc::from([]);
        }
        self.assignment_bytes = 0;
    }

    /// The largest rebalance timeout of the members, in nanoseconds.
    fn rebalance_nanos(&self) -> i64 {
        self.members
            .values()
            .map(|it| it.rebalance_nanos())
            .max()
            .unwrap_or(0)
    }

    /// The same for waits that are begun again when they end: at least a second, so that groups of members that never answer
    /// keep nobody busy. What such a wait is for ends by itself when it comes.
    fn wait_nanos(&self) -> i64 {
        self.rebalance_nanos().max(1_000 * NANOS_PER_MS)
    }
}
