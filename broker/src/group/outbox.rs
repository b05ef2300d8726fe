//! Where answers and changes wait to be taken by the caller.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::error::GroupError;
use super::request::{Event, PersistToken, Record, RequestToken, Response};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<Event>,
    next_persist: u64,
    /// Which group a change that is not acknowledged yet belongs to.
    owners: BTreeMap<PersistToken, Arc<str>>,
    /// Groups whose deletion has ended, one way or the other: the request it is part of and the place in it.
    pub(super) deleted: Vec<(Deletion, Option<GroupError>)>,
}

/// One group of a DeleteGroups request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) request: RequestToken,
    pub(super) index: usize,
}

impl Outbox {
    pub(super) fn respond(&mut self, token: RequestToken, response: Response) {
        self.events.push_back(Event::Respond { token, response });
    }

    pub(super) fn persist(&mut self, group: &Arc<str>, records: Vec<Record>) -> PersistToken {
        let token = PersistToken(self.next_persist);
        self.next_persist += 1;
        self.owners.insert(token, Arc::clone(group));
        self.events.push_back(Event::Persist { token, records });
        token
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The group a change belongs to; asked once, when it is acknowledged.
    pub(super) fn take_owner(&mut self, token: PersistToken) -> Option<Arc<str>> {
        self.owners.remove(&token)
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.owners.len()
    }
}
