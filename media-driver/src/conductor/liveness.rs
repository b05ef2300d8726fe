//! Who is still there, and what happens to the things of those who are not (shared-memory spec 13.2, 13.7, 13.10,
//! 13.12, 3.5).
#![forbid(unsafe_code)]

use core::time::Duration;

use fulmar::agent::ProcessId;
use fulmar::cnc::extension::{OwnerRecord, Window};
use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::id::{ClientId, RegistrationId};

use super::agent::{Conductor, Departed, RingWatch, StoppedClient};
use super::clients::ClientRecord;
use super::sources;
use super::written_logs::written_logs;
use crate::commands::ResourceCommand;
use crate::stream::ipc_publication::{Holder, IpcPublication, Reference, State};

/// How soon the search for what dead publishers left open is tried again when it made no progress, nanoseconds.
const ORPHAN_RETRY_NS: i64 = 1_000_000;

/// How long a sender sleeps at most that every client wakes; bounds what a missed wake-up could cost.
const SENDER_CAP_NS: i64 = 100_000_000;

/// Bounded steps of unblocking that one timer tick takes.
pub(super) const UNBLOCK_STEPS: usize = 8;

impl Conductor {
    pub(super) fn on_timer(&mut self) {
        self.ring.set_consumer_heartbeat(self.services.epoch());
        self.check_clients();
        self.check_publications();
        self.check_network_publications();
        self.check_images();
        self.check_ring();
        self.redeliver();
        self.check_slots();
    }

    fn redeliver(&mut self) {
        while let Some(command) = self.undelivered.pop() {
            if let Err(command) = self.resource_commands.offer(command) {
                self.undelivered.push(command);
                return;
            }
        }
    }

    // Clients

    fn check_clients(&mut self) {
        let (now, timeout) = (self.services.timer, self.context.client_liveness_timeout_ns);
        let mut index = 0;
        while index < self.clients.len() {
            if self.clients[index].is_expired(now, timeout) {
                let client = self.clients.remove(index);
                if !client.watched && !client.closed_by_command {
                    // Nothing will say whether its process still runs. Its claims are fenced and can be taken away; an
                    // offer it may be stopped in is left to the unblock timeout.
                    self.repair_claims_of(client.id);
                }
                self.expire(&client);
            } else {
                index += 1;
            }
        }
        self.set_sender_cap();
    }

    /// Clients of ours wake a sender that sleeps. As long as there are no others, it sleeps through.
    pub(super) fn set_sender_cap(&self) {
        if let Some(cap) = &self.sender_cap {
            let shortest = self.context.idle_cap_ns;
            let all_ring = self.clients.iter().all(|client| client.is_ours);
            let nanos = if all_ring {
                shortest.max(SENDER_CAP_NS)
            } else {
                shortest
            };
            cap.set(Duration::from_nanos(nanos.unsigned_abs()));
        }
    }

    /// A watched process has ended. The logs it wrote to are repaired now; its other things go as soon as the commands
    /// it left in the ring have run, so that none of them brings it back and a close it sent is honoured.
    pub(super) fn on_client_died(&mut self, client_id: ClientId) {
        self.repair_after(client_id);
        if self.ring.unblock_dead(client_id.0) {
            self.services.increment(SystemCounter::UnblockedCommands);
        }
        let until = self.ring.producer_position();
        self.departed.push(Departed { client_id, until });
        self.bury();
    }

    /// Removes what is left of dead clients whose commands have all run.
    pub(super) fn bury(&mut self) -> usize {
        if self.departed.is_empty() {
            return 0;
        }
        let head = self.ring.consumer_position();
        let mut buried = 0;
        let mut index = 0;
        while index < self.departed.len() {
            let departed = self.departed[index];
            if departed.until > head || self.is_busy(departed.client_id) {
                index += 1;
                continue;
            }
            let Departed { client_id, .. } = self.departed.swap_remove(index);
            if let Some(position) = self.clients.iter().position(|client| client.id == client_id) {
                let mut client = self.clients.remove(position);
                client.watched = false;
                self.expire(&client);
            }
            self.extension.free_slots_of(client_id);
            self.watches.retain(|watched| *watched != client_id);
            self.release_stopped(client_id);
            buried += 1;
        }
        buried
    }

    /// Watches every client that shows itself in the extension file: also those that have not sent a command yet, or
    /// were given up while their process lives, so that their slots come back once it ends.
    fn check_slots(&mut self) {
        let mut present = core::mem::take(&mut self.present);
        present.clear();
        let extension = self.extension.clone();
        for record in extension.clients() {
            present.push(record.client_id);
            self.watch(record.client_id, record.process);
        }
        let gone = self
            .stopped
            .iter()
            .position(|stopped| !present.contains(&stopped.client_id));
        if let Some(index) = gone {
            // It has put its own things away since it was given up.
            let client_id = self.stopped[index].client_id;
            self.release_stopped(client_id);
        }
        self.present = present;
    }

    /// Asks for a client's process to be watched; `true` if it is.
    pub(super) fn watch(&mut self, client_id: ClientId, process: ProcessId) -> bool {
        if !self.context.early_unblock || self.unwatchable.contains(&client_id) {
            return false;
        }
        if self.watches.contains(&client_id) {
            return true;
        }
        let sent = self
            .resource_commands
            .offer(ResourceCommand::Watch { client_id, process })
            .is_ok();
        if sent {
            self.watches.push(client_id);
        }
        sent
    }

    /// Gives back the counters of a client that was given up while its process was alive.
    fn release_stopped(&mut self, client_id: ClientId) {
        if let Some(index) = self
            .stopped
            .iter()
            .position(|stopped| stopped.client_id == client_id)
        {
            for counter_id in self.stopped.swap_remove(index).counters {
                self.services.free_counter(counter_id);
            }
        }
    }

    fn expire(&mut self, client: &ClientRecord) {
        self.held.forget(client.id);
        if !client.closed_by_command {
            self.services.increment(SystemCounter::ClientTimeouts);
            self.services.client_timed_out(client.id);
        }
        self.services
            .counter_unavailable(RegistrationId(client.id.0), client.heartbeat_id);
        for log in written_logs(&mut self.publications, &mut self.network_publications) {
            log.remove_references(&|reference| reference.client_id == client.id);
        }
        for counter in &client.counters {
            self.services
                .counter_unavailable(counter.registration_id, counter.counter_id);
            self.services.free_counter(counter.counter_id);
        }
        let positions = self.unlink_all(|link| link.client_id == client.id);
        self.services.free_counter(client.heartbeat_id);
        if client.watched && !client.closed_by_command {
            // Its process lives and may be stopped in the middle of a poll: its position counters are not given to
            // anybody else before it is gone or has put its things away.
            self.stopped.push(StoppedClient {
                client_id: client.id,
                counters: positions,
            });
            return;
        }
        for counter_id in positions {
            self.services.free_counter(counter_id);
        }
        if client.closed_by_command && client.watched {
            // A full lane only means that the watch ends with the process.
            let sent = self
                .resource_commands
                .offer(ResourceCommand::Unwatch { client_id: client.id });
            if sent.is_ok() {
                self.watches.retain(|watched| *watched != client.id);
            }
        }
    }

    /// Looks for claims of a client that is gone or given up.
    fn repair_claims_of(&mut self, client_id: ClientId) {
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
    fn repair_after(&mut self, client_id: ClientId) {
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
        self.publications.iter().any(IpcPublication::has_orphans)
            || self
                .network_publications
                .iter()
                .any(|publication| publication.half.has_orphans())
    }

    /// One bounded step of the search for what dead publishers left open.
    pub(super) fn repair_orphans(&mut self) -> usize {
        if !self.orphan_search.is_due(self.services.timer) || !self.has_orphans() {
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
    pub(super) fn live_owners(&self) -> Vec<ClientId> {
        let attached = self.clients.iter().map(|client| client.id);
        attached
            .chain(self.stopped.iter().map(|stopped| stopped.client_id))
            .collect()
    }

    // Publications

    fn check_publications(&mut self) {
        let mut index = 0;
        while index < self.publications.len() {
            self.check_damage(index);
            if self.publications[index].revocation_is_pending() {
                self.publications[index].revoke();
                self.services.increment(SystemCounter::PublicationsRevoked);
                self.end_images(index);
                index += 1;
                continue;
            }
            match self.publications[index].state() {
                State::Active => self.check_active(index),
                State::Draining => self.check_draining(index),
                State::Linger if self.publications[index].references.is_empty() => {
                    self.free_publication(index);
                    continue;
                }
                State::Linger => {}
            }
            index += 1;
        }
    }

    /// A log that was truncated under the driver ends with its publication; other streams go on.
    fn check_damage(&mut self, index: usize) {
        let publication = &mut self.publications[index];
        if publication.state() == State::Linger || !publication.log.region().is_damaged() {
            return;
        }
        let text = format!(
            "the log {} was truncated by another process: its publication on stream {} is ended",
            publication.log_path, publication.stream_id
        );
        publication.abandon();
        self.services.record_error(ErrorCode::GenericError, &text);
        self.end_images(index);
    }

    fn check_active(&mut self, index: usize) {
        let now = self.services.timer;
        if self.publications[index]
            .cool_down_until
            .is_some_and(|until| until.is_due(now))
        {
            self.publications[index].cool_down_until = None;
            self.link_all(index);
        }
        self.check_untethered(index);
        let publication = &mut self.publications[index];
        publication.refresh_connected();
        if publication.exclusive {
            return;
        }
        let Some(position) = publication.check_blocked(now, self.context.publication_unblock_timeout_ns)
        else {
            return;
        };
        // A live publisher of ours that says it is writing there will finish; its frame is never taken away.
        let live = self.live_owners();
        let publication = &mut self.publications[index];
        let (extension, registration_id) = (&self.extension, publication.registration_id);
        // Each step looks at a bounded part of a long hole.
        let unblocked = (0..UNBLOCK_STEPS).any(|_| {
            publication.unblock_at(position, |position, length| {
                holder_of(extension, &live, registration_id, position, length)
            })
        });
        if unblocked {
            self.services.increment(SystemCounter::UnblockedPublications);
        }
    }

    fn check_draining(&mut self, index: usize) {
        self.check_untethered(index);
        let publication = &mut self.publications[index];
        if publication.poll_drained() {
            publication.start_linger();
            self.end_images(index);
            return;
        }
        let position = publication.consumer_position();
        if publication.unblock_at(position, |_, _| Holder::Unknown) {
            self.services.increment(SystemCounter::UnblockedPublications);
        }
    }

    /// Tells every linked subscription that the image is gone.
    fn end_images(&mut self, index: usize) {
        sources::end_images(&mut self.services, &self.links, &mut self.publications[index]);
    }

    fn check_untethered(&mut self, index: usize) {
        sources::check_untethered(&mut self.services, &self.links, &mut self.publications[index]);
    }

    // The ring

    fn check_ring(&mut self) {
        let head = self.ring.consumer_position();
        let now = self.services.timer;
        let stuck = head == self.ring_watch.head && self.ring.producer_position() > head;
        if !stuck {
            self.ring_watch = RingWatch { head, since: now };
            return;
        }
        if now.since(self.ring_watch.since) >= self.context.client_liveness_timeout_ns && self.ring.unblock()
        {
            self.services.increment(SystemCounter::UnblockedCommands);
            self.ring_watch = RingWatch { head, since: now };
        }
    }

    // The end

    pub(super) fn close_all(&mut self) {
        while !self.publications.is_empty() {
            self.publications[0].disconnect();
            self.free_publication(0);
        }
        // Sender and receiver have ended or are about to: files go, whoever still has them mapped.
        while let Some(publication) = self.network_publications.first_mut() {
            publication.half.disconnect();
            self.free_network_publication(0);
        }
        while !self.images.is_empty() {
            self.free_image(0);
        }
        self.services.free_all_counters();
        self.redeliver();
    }
}

/// Whether one of the `live` publishers says that it is writing in `[position, position + length)`.
pub(super) fn holder_of(
    extension: &fulmar::cnc::Extension,
    live: &[ClientId],
    registration_id: RegistrationId,
    position: i64,
    length: i64,
) -> Holder {
    let holds = |owner: &OwnerRecord| {
        owner.registration_id == registration_id
            && live.contains(&owner.client_id)
            && match owner.window {
                Window::None => false,
                Window::Reserving => true,
                Window::InFlight {
                    position: start,
                    length: taken,
                } => start < position.saturating_add(length) && position < start.saturating_add(taken),
            }
    };
    if extension.owners().any(|owner| holds(&owner)) {
        Holder::Live
    } else {
        Holder::Unknown
    }
}

/// Whether a client that does not say what it is writing holds the publication.
fn foreign_writer(
    clients: &[ClientRecord],
    extension: &fulmar::cnc::Extension,
    references: &[Reference],
) -> bool {
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
