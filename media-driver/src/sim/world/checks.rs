//! What is looked at while a world runs and at its end: counters, progress, error logs, and what is left.
#![forbid(unsafe_code)]

use std::io;
use std::sync::PoisonError;

use fulmar::ClientError;
use fulmar::counters::type_id;
use fulmar::directory::Directory;
use fulmar::report::{ErrorRecord, error_log};

use super::super::checkers::{Growing, Seen, Violation};
use super::super::plan::Event;
use super::{PROGRESS_LEAST, Role, SECOND, World};

impl World {
    /// Agents and clients with a deadline that is due.
    pub(super) fn who_is_due(&self) -> String {
        let now = self.now();
        let mut due = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(driver) = &host.driver else {
                continue;
            };
            let agents = 0..host.stalled_until.len();
            let agents = agents.filter(|agent| driver.invoker.next_deadline_of(*agent).is_due(now));
            due.extend(agents.map(|agent| format!("agent {agent} of host {index}")));
        }
        for (index, application) in self.applications.iter().enumerate() {
            if let Some((client, _)) = &application.running
                && client.next_deadline().is_due(now)
            {
                due.push(format!("client {index}"));
            }
        }
        due.join(", ")
    }

    pub(super) fn check_counters(&mut self) -> Result<(), Violation> {
        let now = self.now();
        for host in &self.hosts {
            let Some(driver) = &host.driver else {
                continue;
            };
            let counters = driver.cnc.counters();
            self.seen.clear();
            counters.for_each_value(|id, kind, value| {
                if kind != type_id::SYSTEM {
                    let counter = Growing {
                        driver: driver.id,
                        counter: id.0,
                        registration: counters.registration_id(id).unwrap_or(0),
                        reference: counters.reference_id(id).unwrap_or(0),
                    };
                    self.seen.push(Seen { counter, kind, value });
                }
            });
            self.checkers.on_counters(&self.seen, self.term_length, now)?;
        }
        Ok(())
    }

    /// That every publisher was taken a share of what it wanted to offer since `before`, `for_ns` ago.
    pub(super) fn check_progress(&self, before: &[(u64, u64)], for_ns: i64) -> Result<(), Violation> {
        let now = self.checkers.progress();
        for application in &self.applications {
            let Some((_, Role::Publisher(publisher))) = &application.running else {
                continue;
            };
            let count = |counts: &[(u64, u64)]| {
                let found = counts.iter().find(|(id, _)| *id == publisher.id());
                found.map_or(0, |(_, count)| *count)
            };
            let (offered, wanted) = (count(&now) - count(before), publisher.messages_in(for_ns));
            if offered < (wanted / PROGRESS_LEAST).max(1) {
                return Err(Violation::new(
                    "everybody gets on after the faults",
                    format!(
                        "publisher {} got rid of {offered} messages in {:.1} s and wanted to offer {wanted}",
                        publisher.id(),
                        for_ns as f64 / SECOND as f64
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Takes a note of a publisher that is about to be closed.
    pub(super) fn await_ending(&mut self, index: usize) {
        let application = &self.applications[index];
        if let Some(within_ns) = self.plan.ends_within_ns
            && let Some((_, Role::Publisher(publisher))) = &application.running
        {
            let by = self.now().plus_nanos(within_ns);
            self.endings.push_back((publisher.id(), application.stream, by));
        }
    }

    /// That all subscribers of a publisher that was closed got what it offered and have no image of it any more.
    pub(super) fn check_ending(&mut self, publisher: u64, stream: u32) -> Result<(), Violation> {
        let Some((session_id, offered)) = self.checkers.latest_of(publisher) else {
            return Ok(());
        };
        for application in self.applications.iter_mut().filter(|one| one.stream == stream) {
            let Some((_, Role::Subscriber(subscriber))) = &mut application.running else {
                continue;
            };
            let taken = self.checkers.taken_by(subscriber.id(), publisher);
            let has_image = subscriber.sessions().contains(&session_id);
            if taken < offered || has_image {
                return Err(Violation::new(
                    "the end of a stream is told",
                    format!(
                        "subscriber {} has {taken} of the {offered} messages of publisher {publisher}, which was closed; {} \
                         its image",
                        subscriber.id(),
                        if has_image { "it still has" } else { "it lost" }
                    ),
                ));
            }
        }
        *self.faults.entry("end of stream seen").or_default() += 1;
        Ok(())
    }

    /// What a driver still holds although all clients are gone.
    pub(super) fn left_over(&self) -> Option<String> {
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(driver) = &host.driver else {
                continue;
            };
            let logs = host.directory.logs().unwrap_or_default();
            if let Some(log) = logs.first() {
                return Some(format!("host {index} has {} logs: {log}", logs.len()));
            }
            let mut left = None;
            driver.cnc.counters().for_each(|record| {
                if record.type_id != type_id::SYSTEM {
                    left.get_or_insert(record.label);
                }
            });
            if let Some(label) = left {
                return Some(format!("host {index} has the counter {label:?}"));
            }
        }
        let sockets = self.network.open_sockets();
        (sockets > 0).then(|| format!("{sockets} sockets are open"))
    }

    /// That the driver of a host has nothing in its error log but what the faults explain.
    pub(super) fn check_errors(&self, index: usize) -> Result<(), Violation> {
        let Some(driver) = &self.hosts[index].driver else {
            return Ok(());
        };
        let errors = error_log::read_all(&driver.cnc.error_log());
        let unexpected = |error: &&ErrorRecord| !self.is_explained(index, &error.text);
        match errors.iter().find(unexpected) {
            None => Ok(()),
            Some(error) => Err(Violation::new(
                "drivers report no errors",
                format!("host {index}, {} times: {}", error.count, error.text),
            )),
        }
    }

    /// Whether the faults of this world may have a driver of this host report that.
    pub(super) fn is_explained(&self, of: usize, text: &str) -> bool {
        self.plan.events.iter().any(|(_, event)| match event {
            // A client that died holds its addresses until it times out, and one that was closed until its images are
            // gone.
            Event::KillClient { .. } | Event::CloseClient { .. } | Event::ReopenStream { .. } => {
                text.contains(&address_in_use()) || text.contains("the channel is just being closed")
            }
            Event::RefuseSends {
                errno: Some(errno), ..
            } => text.contains("a datagram was not sent") && text.ends_with(&format!("(os error {errno})")),
            Event::Storage { host, is_short: true } => {
                *host == of && text.contains("insufficient usable storage for a new log")
            }
            _ => false,
        })
    }

    pub(super) fn check_client_errors(&self) -> Result<(), Violation> {
        let errors = self.client_errors.lock().unwrap_or_else(PoisonError::into_inner);
        match errors
            .iter()
            .find(|(client, error)| !self.is_expected(*client, error))
        {
            None => Ok(()),
            Some((client, error)) => Err(Violation::new(
                "clients report no errors",
                format!("client {client}: {error}"),
            )),
        }
    }

    /// Whether the faults of this world may do that.
    pub(super) fn is_expected(&self, of: usize, error: &ClientError) -> bool {
        let driver_is_lost = matches!(
            error,
            ClientError::DriverDied
                | ClientError::DriverShutDown
                | ClientError::DriverSilent(_)
                | ClientError::DriverReplaced
        );
        let restarts = |(_, event): &(i64, Event)| matches!(event, Event::RestartDriver { .. });
        // Whoever stood still may hear of an image only when that is gone again, with its log.
        let stalls =
            |(_, event): &(i64, Event)| matches!(event, Event::StallClient { client, .. } if *client == of);
        let image_is_gone = matches!(
            error,
            ClientError::ImageUnusable { reason, .. } if reason.ends_with("does not exist")
        );
        let mut events = self.plan.events.iter();
        (driver_is_lost && events.clone().any(restarts))
            || (image_is_gone && events.any(stalls))
            || self.is_explained(self.applications[of].host, &error.to_string())
    }

    /// When drivers and clients are gone nobody holds any of their memory.
    pub(super) fn check_memory(&mut self) -> Result<(), Violation> {
        self.dead.clear();
        // A claim that nobody ever ends holds its log: here it is the simulated process that died.
        let claims_are_open = self.faults.contains_key("claim left open");
        for (index, host) in self.hosts.iter().enumerate() {
            let failed =
                |what: String| Violation::new("memory is given back", format!("host {index}: {what}"));
            host.directory
                .delete()
                .map_err(|error| failed(error.to_string()))?;
            let held = host.directory.held();
            let is_leak = |path: &&String| !(claims_are_open && path.ends_with(".logbuffer"));
            if let Some(path) = held.iter().find(is_leak) {
                return Err(failed(format!("somebody holds {path}")));
            }
        }
        Ok(())
    }
}

/// What the system says of an address that somebody else has.
fn address_in_use() -> String {
    io::Error::from_raw_os_error(libc::EADDRINUSE).to_string()
}
