//! What happens to a world at its time, and the end of all faults.
#![forbid(unsafe_code)]

use super::super::checkers::Violation;
use super::super::plan::{Event, host_address};
use super::{Role, START, STORAGE, World};

impl World {
    pub(super) fn apply_events(&mut self) -> Result<(), Violation> {
        let now = self.now();
        while let Some((publisher, stream, by)) = self.endings.front().copied()
            && by.is_due(now)
        {
            self.endings.pop_front();
            self.check_ending(publisher, stream)?;
        }
        while let Some((at, event)) = self.plan.events.get(self.next_event)
            && START.plus_nanos(*at).is_due(now)
        {
            let event = event.clone();
            self.next_event += 1;
            self.apply(event)?;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].start_at.is_some_and(|at| at.is_due(now)) {
                self.start_driver(host)?;
            }
        }
        for index in 0..self.applications.len() {
            let application = &self.applications[index];
            if application.running.is_none() && self.is_offering && application.start_at.is_due(now) {
                self.start_application(index)?;
            }
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, event: Event) -> Result<(), Violation> {
        self.note(format!("{event:?}"));
        let now = self.now();
        let kind = match event {
            Event::Link { from, to, link, kind } => {
                self.network.set_link(host_address(from), host_address(to), link);
                self.link_changes.push((from, to));
                kind
            }
            Event::StallAgent { host, agent, for_ns } => {
                self.hosts[host].stalled_until[agent] = Some(now.plus_nanos(for_ns));
                "agent stalled"
            }
            Event::StallClient { client, for_ns } => {
                self.applications[client].stalled_until = Some(now.plus_nanos(for_ns));
                "client stalled"
            }
            Event::CloseClient { client, away_ns } => {
                self.await_ending(client);
                self.close_application(client);
                self.applications[client].start_at = now.plus_nanos(away_ns);
                "client closed"
            }
            Event::ReopenStream { client } => {
                self.reopen_stream(client)?;
                "stream opened again"
            }
            Event::KillClient { client } => {
                self.kill_application(client);
                "client killed"
            }
            Event::RestartDriver {
                host,
                killed,
                down_ns,
            } => {
                self.check_errors(host)?;
                let on = &mut self.hosts[host];
                if let Some(driver) = on.driver.take() {
                    if killed {
                        driver.invoker.abandon();
                    } else {
                        drop(driver);
                    }
                }
                on.start_at = Some(now.plus_nanos(down_ns));
                if killed { "driver killed" } else { "driver closed" }
            }
            Event::RefuseSends { ppm, errno } => {
                self.network.set_refused_sends(ppm);
                self.network.set_refusal_error(errno);
                if ppm > 0 {
                    "sends refused"
                } else {
                    "sends taken again"
                }
            }
            Event::Storage { host, is_short } => {
                let host = &self.hosts[host];
                // A driver that starts finds room for its own files.
                let capacity = if is_short { host.own_storage } else { STORAGE };
                host.directory.set_capacity(capacity);
                if is_short {
                    "storage short"
                } else {
                    "storage enough again"
                }
            }
            Event::StepWallClock { host, ms } => {
                self.hosts[host].clock.step_wall_clock(ms);
                "wall clock stepped"
            }
        };
        *self.faults.entry(kind).or_default() += 1;
        Ok(())
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.note("all faults end".to_owned());
        let now = self.now();
        self.next_event = self.plan.events.len();
        self.has_healed = true;
        self.network.set_refused_sends(0);
        self.network.set_default_link(self.plan.healed_link);
        for (from, to) in core::mem::take(&mut self.link_changes) {
            self.network
                .set_link(host_address(from), host_address(to), self.plan.healed_link);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].stalled_until.fill(None);
            self.hosts[host].directory.set_capacity(STORAGE);
            if self.hosts[host].driver.is_none() {
                self.start_driver(host)?;
            }
        }
        for application in &mut self.applications {
            application.stalled_until = None;
            application.start_at = application.start_at.earlier(now);
            if let Some((_, role)) = &mut application.running {
                role.end_faults(now);
            }
        }
        Ok(())
    }

    pub(super) fn stop_offering(&mut self) {
        self.note("publishers stop".to_owned());
        self.is_offering = false;
        for application in &mut self.applications {
            if let Some((_, Role::Publisher(publisher))) = &mut application.running {
                publisher.stop_offering();
            }
        }
    }
}
