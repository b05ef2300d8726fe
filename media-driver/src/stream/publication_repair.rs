//! What dead or stuck publishers leave open in the log of a publication (shared-memory spec 13.10), whether it is read
//! locally or sent: found, and turned into padding. The owner of the publication knows the positions and passes them in.
#![forbid(unsafe_code)]

use fulmar::log::{LogBuffers, Unblock, pad_range, sweep, unblock_guarded, unblock_to};
use fulmar::time::NanoTime;

/// Repairs made in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Claims or holes that became padding.
    pub unblocked: usize,
}

/// What stands in the way of unblocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A live publisher of ours says it is writing there.
    Live,
    /// Nobody is known to be there.
    Unknown,
}

/// Where a publication stands, as far as repairs depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairView {
    /// Up to here everything was read or sent; nothing before it needs repair.
    pub consumer_position: i64,
    /// The tail, as far as it is believed.
    pub producer_position: i64,
    /// Nobody holds the publication any more: space at its end without a header will never get one.
    pub is_draining: bool,
}

/// What a dead client may have left open in this log.
#[derive(Debug, Default)]
struct Orphans {
    /// Owner tags whose claims are to be padded.
    tags: Vec<i64>,
    /// The sweep goes on here.
    next: i64,
    /// The sweep ends here: where the tail stood when the last death was noticed.
    end: i64,
    /// Dead publishers that may have taken space without having written a header.
    reserving: usize,
}

/// Frames looked at per duty cycle while claims of dead publishers are searched for.
const SWEEP_FRAMES: usize = 4096;

/// The repairs under way in one log.
#[derive(Debug)]
pub struct PublicationRepair {
    blocked_position: i64,
    blocked_since: NanoTime,
    orphans: Orphans,
    /// A position where a hole begins, and how far its end was searched for.
    hole_scan: (i64, i64),
}

impl PublicationRepair {
    /// Nothing is open in a log that starts at `position`.
    #[must_use]
    pub fn new(position: i64, now: NanoTime) -> Self {
        Self {
            blocked_position: position,
            blocked_since: now,
            orphans: Orphans::default(),
            hole_scan: (position, position),
        }
    }

    /// At each timer, while active and shared: whether a publisher seems to be stuck, and if so for how long. Returns
    /// the position once `timeout_ns` has passed.
    pub fn check_blocked(
        &mut self,
        log: &LogBuffers,
        view: &RepairView,
        now: NanoTime,
        timeout_ns: i64,
    ) -> Option<i64> {
        let consumer = view.consumer_position;
        let term_of_consumer = (consumer >> log.shape().bits) as i32;
        let possible = log.metadata().active_term_count_acquire() != term_of_consumer
            || view.producer_position > consumer;
        if consumer != self.blocked_position || !possible {
            self.blocked_position = consumer;
            self.blocked_since = now;
            return None;
        }
        (now.since(self.blocked_since) >= timeout_ns).then_some(consumer)
    }

    /// Repairs the log at `position` unless `holder` says that a live publisher is writing there; `true` if something
    /// was done.
    pub fn unblock_at(
        &mut self,
        log: &LogBuffers,
        view: &RepairView,
        position: i64,
        holder: impl Fn(i64, i64) -> Holder,
    ) -> bool {
        let done = self.unblock_step(log, view, position, holder);
        if done {
            self.blocked_position = -1;
        }
        done
    }

    /// One bounded step; the search for the end of a long hole goes on where the last step at `position` ended.
    fn unblock_step(
        &mut self,
        log: &LogBuffers,
        view: &RepairView,
        position: i64,
        holder: impl Fn(i64, i64) -> Holder,
    ) -> bool {
        let (hole, scanned_to) = self.hole_scan;
        let scan_from = if hole == position { scanned_to } else { position };
        let is_held = |position, length| holder(position, length) == Holder::Live;
        let outcome = if view.is_draining {
            unblock_to(log, position, view.producer_position, scan_from, is_held)
        } else {
            unblock_guarded(log, position, scan_from, is_held)
        };
        if let Unblock::NotYet { scanned_to } = outcome {
            self.hole_scan = (position, scanned_to);
        }
        matches!(outcome, Unblock::Padded { .. } | Unblock::Rotated)
    }

    /// Notes that the publisher with this owner tag is dead and may have left claims open.
    pub fn add_orphan_claims(&mut self, view: &RepairView, tag: i64) {
        self.orphans.tags.push(tag);
        self.orphans.next = view.consumer_position;
        self.orphans.end = view.producer_position;
    }

    /// Notes that a dead publisher may have taken space without a header.
    pub fn add_orphan_reservation(&mut self, view: &RepairView) {
        self.orphans.reserving += 1;
        self.orphans.next = view.consumer_position;
        self.orphans.end = self.orphans.end.max(view.producer_position);
    }

    /// Pads the range a dead publisher was writing, unless it lies where the log was cleaned (before `clean_position`)
    /// or nobody has written.
    pub fn pad_in_flight(
        &mut self,
        log: &LogBuffers,
        view: &RepairView,
        clean_position: i64,
        (position, length): (i64, i64),
    ) -> Repairs {
        let within = position >= clean_position
            && position <= view.producer_position
            && position & 31 == 0
            && length > 0;
        if !within {
            return Repairs::default();
        }
        Repairs {
            unblocked: usize::from(pad_range(log, position, length).padded > 0),
        }
    }

    /// Whether claims or holes of dead publishers are still searched for.
    #[inline]
    #[must_use]
    pub fn has_orphans(&self) -> bool {
        !self.orphans.tags.is_empty() || self.orphans.reserving > 0
    }

    /// One bounded step of the search. `holder` says whether a live publisher may be at a position.
    pub fn repair_orphans(
        &mut self,
        log: &LogBuffers,
        view: &RepairView,
        holder: impl Fn(i64, i64) -> Holder,
    ) -> Repairs {
        let mut repairs = Repairs::default();
        let from = self.orphans.next.max(view.consumer_position);
        let tags = &self.orphans.tags;
        let sweep = sweep(
            log,
            from,
            self.orphans.end,
            |tag| tags.contains(&tag),
            SWEEP_FRAMES,
        );
        repairs.unblocked += sweep.padded;
        self.orphans.next = sweep.position;
        if sweep.position >= self.orphans.end {
            self.orphans = Orphans::default();
            return repairs;
        }
        // The sweep stands before space without a header. Only a publisher that died between taking space and
        // writing its header leaves that for good; a live one writes it within nanoseconds of running.
        if sweep.at_hole && self.orphans.reserving > 0 {
            let at = sweep.position;
            if self.unblock_step(log, view, at, holder) {
                self.orphans.reserving -= 1;
                repairs.unblocked += 1;
            }
        }
        repairs
    }
}
