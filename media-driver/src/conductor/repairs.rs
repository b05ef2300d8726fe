//! Repairs of what dead or stuck publishers leave open in the logs they wrote to, over any medium (shared-memory spec
//! 13.10): who is asked before, and when a step is taken.
#![forbid(unsafe_code)]

use fulmar::cnc::Extension;
use fulmar::cnc::extension::{OwnerRecord, Window};
use fulmar::counters::SystemCounter;
use fulmar::id::{ClientId, RegistrationId};

use super::agent::Conductor;
use super::clients::ClientRecord;
use super::network_publications::NetworkPublication;
use super::publications::Found;
use crate::stream::ipc_publication::IpcPublication;
use crate::stream::publication_repair::Holder;
use crate::stream::written_log::{Reference, WrittenLog};

/// How soon the search for what dead publishers left open is tried again when it made no progress, nanoseconds.
const ORPHAN_RETRY_NS: i64 = 1_000_000;

/// Bounded steps of unblocking that one timer tick takes: each looks at a part of a long hole.
const UNBLOCK_STEPS: usize = 8;

impl Conductor {
    /// Looks for claims of a client that is gone or given up.
    pub(super) fn repair_claims_of(&mut self, client_id: ClientId) {
        self.may_have_orphans = true;
        for owner in self
            .extension
            .owners()
            .filter(|owner| owner.client_id == client_id)
        {
            let written = written_logs(&mut self.publications, &mut self.network_publications)
                .find(|log| log.registration_id() == owner.registration_id);
            if let Some(log) = written {
                log.add_orphan_claims(owner.tag);
            }
        }
    }

    /// Looks at what a dead client was doing in the logs it wrote to, and starts the repairs.
    pub(super) fn repair_after(&mut self, client_id: ClientId) {
        let mut unblocked = 0;
        for owner in self.extension.owners() {
            if owner.client_id != client_id {
                continue;
            }
            let written = written_logs(&mut self.publications, &mut self.network_publications)
                .find(|log| log.registration_id() == owner.registration_id);
            let Some(log) = written else {
                continue;
            };
            match owner.window {
                Window::None => {}
                Window::Reserving => log.add_orphan_reservation(),
                Window::InFlight { position, length } => {
                    unblocked += log.pad_in_flight(position, length).unblocked;
                }
            }
        }
        self.repair_claims_of(client_id);
        self.orphan_search = self.services.timer;
        self.services
            .add(SystemCounter::UnblockedPublications, unblocked as i64);
    }

    pub(super) fn has_orphans(&self) -> bool {
        self.may_have_orphans
            && (self.publications.iter().any(IpcPublication::has_orphans)
                || self
                    .network_publications
                    .iter()
                    .any(|publication| publication.half.has_orphans()))
    }

    /// One bounded step of the search for what dead publishers left open.
    pub(super) fn repair_orphans(&mut self) -> usize {
        if !self.may_have_orphans || !self.orphan_search.is_due(self.services.timer) {
            return 0;
        }
        self.may_have_orphans = self.has_orphans();
        if !self.may_have_orphans {
            return 0;
        }
        let mut work = 0;
        let live = self.live_owners();
        for log in written_logs(&mut self.publications, &mut self.network_publications) {
            if !log.has_orphans() {
                continue;
            }
            let foreign = foreign_writer(&self.clients, &self.extension, log.references());
            let (extension, registration_id) = (&self.extension, log.registration_id());
            let repairs = log.repair_orphans(&|position, length| {
                if foreign {
                    Holder::Live
                } else {
                    holder_of(extension, &live, registration_id, position, length)
                }
            });
            self.services
                .add(SystemCounter::UnblockedPublications, repairs.unblocked as i64);
            work += repairs.unblocked;
        }
        if work == 0 {
            // A live publisher has to move first.
            self.orphan_search = self.services.timer.plus_nanos(ORPHAN_RETRY_NS);
        }
        work
    }

    /// Clients whose word in the extension file counts: attached, or given up while their process lives.
    fn live_owners(&self) -> Vec<ClientId> {
        let attached = self.clients.iter().map(|client| client.id);
        attached
            .chain(self.stopped.iter().map(|stopped| stopped.client_id))
            .collect()
    }

    pub(super) fn written_log(&mut self, found: Found) -> &mut dyn WrittenLog {
        match found {
            Found::Ipc(index) => &mut self.publications[index],
            Found::Network(index) => &mut self.network_publications[index].half,
        }
    }

    /// A publisher that was killed, or is stopped, in the middle of a message holds the others up. A live one of ours
    /// that says it is writing there will finish; its frame is never taken away.
    pub(super) fn check_blocked(&mut self, found: Found) {
        let (now, timeout_ns) = (self.services.timer, self.context.publication_unblock_timeout_ns);
        let Some(position) = self.written_log(found).check_blocked(now, timeout_ns) else {
            return;
        };
        let live = self.live_owners();
        let extension = self.extension.clone();
        let log = self.written_log(found);
        let registration_id = log.registration_id();
        let holder = |position, length| holder_of(&extension, &live, registration_id, position, length);
        if (0..UNBLOCK_STEPS).any(|_| log.unblock_at(position, &holder)) {
            self.services.increment(SystemCounter::UnblockedPublications);
        }
    }

    /// What stands at the end of a publication that nobody writes to any more was never committed.
    pub(super) fn unblock_drained(&mut self, found: Found, position: i64) {
        if self
            .written_log(found)
            .unblock_at(position, &|_, _| Holder::Unknown)
        {
            self.services.increment(SystemCounter::UnblockedPublications);
        }
    }
}

/// All logs that clients write to.
pub(super) fn written_logs<'a>(
    ipc: &'a mut [IpcPublication],
    network: &'a mut [NetworkPublication],
) -> impl Iterator<Item = &'a mut dyn WrittenLog> {
    let ipc = ipc
        .iter_mut()
        .map(|publication| publication as &mut dyn WrittenLog);
    let network = network
        .iter_mut()
        .map(|publication| &mut publication.half as &mut dyn WrittenLog);
    ipc.chain(network)
}

/// Whether one of the `live` publishers says that it is writing in `[position, position + length)`.
fn holder_of(
    extension: &Extension,
    live: &[ClientId],
    registration_id: RegistrationId,
    position: i64,
    length: i64,
) -> Holder {
    let holds = |owner: &OwnerRecord| {
        owner.registration_id == registration_id
            && live.contains(&owner.client_id)
            && owner.window.may_touch(position, length)
    };
    if extension.owners().any(|owner| holds(&owner)) {
        Holder::Live
    } else {
        Holder::Unknown
    }
}

/// Whether a client that does not say what it is writing holds the publication.
fn foreign_writer(clients: &[ClientRecord], extension: &Extension, references: &[Reference]) -> bool {
    references.iter().any(|reference| {
        let is_ours = |client: &ClientRecord| client.id == reference.client_id && client.is_ours;
        let is_untracked = |id| {
            extension
                .clients()
                .any(|record| record.client_id == id && record.is_untracked)
        };
        !clients.iter().any(is_ours) || is_untracked(reference.client_id)
    })
}
