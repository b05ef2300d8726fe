//! The receivers that min and tagged flow control follow (wire protocol 5.3).
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use super::StatusFacts;
use crate::protocol::receiver_liveness::RECEIVERS_MAX;

#[derive(Clone, Copy, Debug)]
struct Record {
    receiver_id: i64,
    /// The furthest position it reported.
    last_position: i64,
    /// Position and window of its last message; may move back.
    last_edge: i64,
    heard: NanoTime,
    eos: bool,
}

/// A bounded table of receivers.
#[derive(Debug)]
pub(super) struct Receivers {
    records: Vec<Record>,
    timeout_ns: i64,
}

impl Receivers {
    pub(super) fn new(timeout_ns: i64) -> Self {
        Self {
            records: Vec::with_capacity(RECEIVERS_MAX),
            timeout_ns,
        }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.records.len()
    }

    pub(super) fn timeout_ns(&self) -> i64 {
        self.timeout_ns
    }

    /// Takes a message of a receiver that is known; `false` if it is not.
    pub(super) fn update(&mut self, now: NanoTime, facts: &StatusFacts) -> bool {
        let known = self
            .records
            .iter_mut()
            .find(|record| record.receiver_id == facts.receiver_id);
        let Some(record) = known else { return false };
        record.eos = facts.is_eos;
        record.last_position = record.last_position.max(facts.position);
        record.last_edge = facts.edge();
        record.heard = now;
        true
    }

    /// Adds a receiver; `false` if there is no room.
    pub(super) fn add(&mut self, now: NanoTime, facts: &StatusFacts) -> bool {
        if self.records.len() == RECEIVERS_MAX {
            return false;
        }
        self.records.push(Record {
            receiver_id: facts.receiver_id,
            last_position: facts.position,
            last_edge: facts.edge(),
            heard: now,
            eos: false,
        });
        true
    }

    /// The edge of the slowest; `None` without receivers.
    pub(super) fn slowest_edge(&self) -> Option<i64> {
        self.records.iter().map(|record| record.last_edge).min()
    }

    /// Takes out who left or was silent for longer than the timeout.
    pub(super) fn expire(&mut self, now: NanoTime) {
        let timeout = self.timeout_ns;
        self.records
            .retain(|record| !record.eos && now.since(record.heard) <= timeout);
    }

    /// The receiver leaves with the next [`Receivers::expire`].
    pub(super) fn mark_gone(&mut self, receiver_id: i64) {
        for record in &mut self.records {
            if record.receiver_id == receiver_id {
                record.eos = true;
            }
        }
    }

    /// When the first of them may be taken out.
    pub(super) fn next_expiry(&self) -> Option<NanoTime> {
        self.records
            .iter()
            .map(|record| record.heard.plus_nanos(self.timeout_ns + 1))
            .reduce(NanoTime::earlier)
    }
}
