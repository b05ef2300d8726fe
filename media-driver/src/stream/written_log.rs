//! What publications have in common, whatever carries their messages: a log that local clients write to, those who hold
//! it, and the repairs of what dead or stuck publishers leave open in it (shared-memory spec 13.5, 13.10).
#![forbid(unsafe_code)]

use fulmar::id::{ClientId, RegistrationId};
use fulmar::log::{LogBuffers, producer_position};
use fulmar::time::NanoTime;

use super::publication_repair::{Holder, PublicationRepair, RepairView, Repairs};

/// Where a publication stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Clients hold references.
    Active,
    /// The last reference is gone; what is left is read and sent.
    Draining,
    /// Subscribers were told that it ended.
    Linger,
}

/// A client's hold on a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The correlation id of that client's own ADD.
    pub registration_id: RegistrationId,
    /// The client.
    pub client_id: ClientId,
}

/// What a repair works on.
#[derive(Debug)]
pub struct RepairParts<'a> {
    /// The log.
    pub log: &'a LogBuffers,
    /// The repairs under way in it.
    pub repair: &'a mut PublicationRepair,
    /// Where the publication stands.
    pub view: RepairView,
    /// Before this position nothing can be open: it was cleaned, or committed whole.
    pub open_from: i64,
}

/// A publication, as the log that local clients write to.
pub trait WrittenLog {
    /// The correlation id of the first ADD; names the log.
    fn registration_id(&self) -> RegistrationId;
    /// Who holds it.
    fn references(&self) -> &[Reference];
    /// See [`WrittenLog::references`].
    fn references_mut(&mut self) -> &mut Vec<Reference>;
    /// The last reference is gone: starts draining, unless the publication is ending already.
    fn on_unreferenced(&mut self);
    /// Reads the producer's position from the log, see [`believed_producer_position`].
    fn sample_producer_position(&mut self) -> i64;
    /// The repairs under way.
    fn repair(&self) -> &PublicationRepair;
    /// What repairs work on.
    fn repair_parts(&mut self) -> RepairParts<'_>;

    /// Drops the references that `matches`; the last one starts draining (wire protocol 3.11). Returns how many went.
    fn remove_references(&mut self, matches: &dyn Fn(&Reference) -> bool) -> usize {
        let references = self.references_mut();
        let before = references.len();
        references.retain(|reference| !matches(reference));
        let removed = before - references.len();
        if removed > 0 && references.is_empty() {
            self.on_unreferenced();
        }
        removed
    }

    /// At each timer, while active and shared: see [`PublicationRepair::check_blocked`].
    fn check_blocked(&mut self, now: NanoTime, timeout_ns: i64) -> Option<i64> {
        let RepairParts {
            log, repair, view, ..
        } = self.repair_parts();
        repair.check_blocked(log, &view, now, timeout_ns)
    }

    /// See [`PublicationRepair::unblock_at`].
    fn unblock_at(&mut self, position: i64, holder: &dyn Fn(i64, i64) -> Holder) -> bool {
        let RepairParts {
            log, repair, view, ..
        } = self.repair_parts();
        repair.unblock_at(log, &view, position, holder)
    }

    /// Notes that the publisher with this owner tag is dead and may have left claims open.
    fn add_orphan_claims(&mut self, tag: i64) {
        self.sample_producer_position();
        let RepairParts { repair, view, .. } = self.repair_parts();
        repair.add_orphan_claims(&view, tag);
    }

    /// Notes that a dead publisher may have taken space without a header.
    fn add_orphan_reservation(&mut self) {
        self.sample_producer_position();
        let RepairParts { repair, view, .. } = self.repair_parts();
        repair.add_orphan_reservation(&view);
    }

    /// Pads the range a dead publisher was writing.
    fn pad_in_flight(&mut self, position: i64, length: i64) -> Repairs {
        self.sample_producer_position();
        let RepairParts {
            log,
            repair,
            view,
            open_from,
        } = self.repair_parts();
        repair.pad_in_flight(log, &view, open_from, (position, length))
    }

    /// Whether claims or holes of dead publishers are still searched for.
    #[inline]
    fn has_orphans(&self) -> bool {
        self.repair().has_orphans()
    }

    /// One bounded step of the search. `holder` says whether a live publisher may be at a position.
    fn repair_orphans(&mut self, holder: &dyn Fn(i64, i64) -> Holder) -> Repairs {
        let RepairParts {
            log, repair, view, ..
        } = self.repair_parts();
        repair.repair_orphans(log, &view, holder)
    }
}

/// The producer's position as the log's tail says it. Another process writes the tail, so it is believed only as far as
/// the protocol could have brought it: never back behind what was `known`, never further than one term past that and the
/// publishers' `limit`.
#[inline]
#[must_use]
pub fn believed_producer_position(log: &LogBuffers, known: i64, limit: i64) -> i64 {
    let position = producer_position(log.metadata(), log.shape());
    let furthest = limit.max(known).saturating_add(i64::from(log.term_length()));
    position.min(furthest).max(known)
}
