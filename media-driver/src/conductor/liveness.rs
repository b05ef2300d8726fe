//! Who is still there, and what happens to the things of those who are not (shared-memory spec 13.2, 13.7, 13.10,
//! 13.12, 3.5).
#![forbid(unsafe_code)]

use core::time::Duration;

use fulmar::agent::ProcessId;
use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::id::{ClientId, RegistrationId};

use super::agent::{Conductor, Departed, RingWatch, StoppedClient};
use super::clients::ClientRecord;
use super::publications::Found;
use super::repairs::written_logs;
use super::sources;
use crate::commands::ResourceCommand;
use crate::stream::written_log::State;

/// How long a sender sleeps at most that every client wakes; bounds what a missed wake-up could cost.
const SENDER_CAP_NS: i64 = 100_000_000;

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
        self.set_caps();
    }

    /// Clients of ours wake a sender and a conductor that sleep. As long as there are no others, these sleep through.
    pub(super) fn set_caps(&mut self) {
        self.all_clients_ring = self.clients.iter().all(|client| client.is_ours);
        if let Some(cap) = &self.sender_cap {
            let shortest = self.context.idle_cap_ns;
            let nanos = if self.all_clients_ring {
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
        if !publication.exclusive {
            self.check_blocked(Found::Ipc(index));
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
        self.unblock_drained(Found::Ipc(index), position);
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
