//! The slowest receiver sets the limit (wire protocol 5.3). Tagged flow control differs by a filter only: it follows
//! the receivers that send its group tag.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use super::StatusFacts;
use super::receivers::Receivers;

/// The limit beyond which nothing is sent while somebody who asked for a SETUP has not joined yet.
#[derive(Clone, Copy, Debug)]
struct Hold {
    limit: i64,
    since: NanoTime,
}

/// Min and tagged flow control.
#[derive(Debug)]
pub struct MinFlowControl {
    receivers: Receivers,
    /// Only receivers with this tag are followed; all of them if `None`.
    tag: Option<i64>,
    min_size: usize,
    /// A receiver that would be followed asked for a SETUP that was not sent yet.
    setup_asked: bool,
    hold: Option<Hold>,
}

impl MinFlowControl {
    /// Nobody yet. `min_size` receivers are needed before the limit moves; one is forgotten after `timeout_ns`.
    #[must_use]
    pub fn new(tag: Option<i64>, min_size: i32, timeout_ns: i64) -> Self {
        Self {
            receivers: Receivers::new(timeout_ns),
            tag,
            min_size: usize::try_from(min_size).unwrap_or(0),
            setup_asked: false,
            hold: None,
        }
    }

    fn matches(&self, group_tag: Option<i64>) -> bool {
        self.tag.is_none() || group_tag == self.tag
    }

    /// What is held at `now`; nothing holds for longer than the receiver timeout.
    fn held(&self, now: NanoTime) -> i64 {
        match self.hold {
            Some(hold) if now.since(hold.since) <= self.receivers.timeout_ns() => hold.limit,
            _ => i64::MAX,
        }
    }

    pub(super) fn on_status_message(&mut self, now: NanoTime, facts: &StatusFacts, limit: i64) -> i64 {
        let held = self.held(now);
        let matches = self.matches(facts.group_tag);
        let known = matches && self.receivers.update(now, facts);
        let mut edge = held.min(self.receivers.slowest_edge().unwrap_or(i64::MAX));
        if matches && !known && !facts.is_eos {
            // Who is further behind than its window would stop everybody else until it has caught up.
            let near = self.receivers.count() == 0 || facts.edge() >= edge.saturating_sub(facts.window);
            if near && self.receivers.add(now, facts) {
                edge = edge.min(facts.edge());
                self.hold = None;
            }
        }
        if self.receivers.count() < self.min_size {
            limit
        } else if self.receivers.count() == 0 {
            limit.max(facts.edge())
        } else {
            limit.max(edge)
        }
    }

    pub(super) fn on_trigger_send_setup(&mut self, group_tag: Option<i64>) {
        self.setup_asked |= self.matches(group_tag);
    }

    pub(super) fn on_setup(&mut self, now: NanoTime, limit: i64) {
        if core::mem::take(&mut self.setup_asked) && self.receivers.count() > 0 {
            self.hold = Some(Hold { limit, since: now });
        }
    }

    pub(super) fn on_idle(&mut self, now: NanoTime, limit: i64) -> i64 {
        self.receivers.expire(now);
        // A hold that is over must not stay behind as a deadline that is always due.
        let timeout = self.receivers.timeout_ns();
        self.hold = self.hold.filter(|hold| now.since(hold.since) <= timeout);
        match self.receivers.slowest_edge() {
            Some(edge) if self.receivers.count() >= self.min_size => edge.min(self.held(now)),
            _ => limit,
        }
    }

    pub(super) fn on_error(&mut self, receiver_id: i64) {
        self.receivers.mark_gone(receiver_id);
    }

    pub(super) fn has_required_receivers(&self) -> bool {
        self.receivers.count() >= self.min_size
    }

    pub(super) fn count(&self) -> usize {
        self.receivers.count()
    }

    pub(super) fn next_deadline(&self) -> Option<NanoTime> {
        let hold_ends = self
            .hold
            .map(|hold| hold.since.plus_nanos(self.receivers.timeout_ns() + 1));
        match (self.receivers.next_expiry(), hold_ends) {
            (Some(expiry), Some(ends)) => Some(expiry.earlier(ends)),
            (expiry, ends) => expiry.or(ends),
        }
    }
}
