//! What the conductor does from time to time: looks at the driver, shows that the client lives, and when the driver
//! is gone looks for its successor (shared-memory spec 2.5, 12.2).
#![forbid(unsafe_code)]

use super::{
    Conductor, DAMAGE_CHECK_INTERVAL_NS, FIND_INTERVAL_NS, HEARTBEAT_GRACE_NS, Notice,
    REPLACED_CHECK_INTERVAL_NS, State, Target,
};
use crate::client::error::ClientError;
use crate::client::event::{ClientEvent, DriverLossReason};
use crate::client::link::{Attempt, Finder, Link};
use crate::client::liveness::Verdict;
use crate::client::registry::ResourceKey;
use crate::client::slot::lock;
use crate::time::Now;

impl Conductor {
    pub(super) fn on_timer(&mut self, now: Now) -> usize {
        self.registry.expire(now.nanos, self.settings.driver_timeout);
        let mut work = self.logs.expire(now.nanos);
        if matches!(self.state, State::Attached(_)) {
            self.check_driver(now);
        } else {
            work += self.find_successor(now);
        }
        work
    }

    fn check_driver(&mut self, now: Now) {
        let Some(link) = self.link_mut() else { return };
        if link.is_damaged() {
            return self.on_driver_lost(DriverLossReason::CncDamaged, now);
        }
        let verdict = link.look(now);
        if verdict == Verdict::Fine && self.is_replaced(now) {
            return self.on_driver_lost(DriverLossReason::Replaced, now);
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Stalled => self.notify(ClientEvent::DriverStalled),
            Verdict::Resumed => self.notify(ClientEvent::DriverResumed),
            Verdict::Lost(reason) => return self.on_driver_lost(reason, now),
        }
        self.keep_alive(now);
        if matches!(self.state, State::Attached(_)) {
            self.send_unsent_removals();
            self.send_unsent();
            if self.next_damage_check.is_due(now.nanos) {
                self.next_damage_check = now.nanos.plus_nanos(DAMAGE_CHECK_INTERVAL_NS);
                self.close_damaged();
                self.close_lapsed();
            }
        }
    }

    /// Whether another driver has taken the directory over. Only asked where that is possible unnoticed.
    fn is_replaced(&mut self, now: Now) -> bool {
        if !self.next_replaced_check.is_due(now.nanos) {
            return false;
        }
        self.next_replaced_check = now.nanos.plus_nanos(REPLACED_CHECK_INTERVAL_NS);
        match &self.state {
            State::Attached(link) => !link.is_in_place() && link.is_replaced(&*self.directory),
            State::Lost { .. } | State::Closed => false,
        }
    }

    fn keep_alive(&mut self, now: Now) {
        let settings = self.settings.clone();
        let due = self.next_keepalive.is_due(now.nanos);
        let Some(link) = self.link_mut() else { return };
        let kept = if due {
            link.keep_alive(&settings, now)
        } else {
            link.check_heartbeat()
        };
        let next = now.nanos + link.keepalive_interval(&settings);
        if due {
            self.next_keepalive = next;
        }
        if kept.is_ok() {
            self.heartbeat_missing_since = None;
        } else if self.is_given_up(now) {
            self.on_timed_out(now);
        }
    }

    /// Whether a missing heartbeat counter means that the driver gave this client up. A driver that shuts down takes
    /// every counter away, its own included, just before it says so: that is not a judgement on this client.
    fn is_given_up(&mut self, now: Now) -> bool {
        let since = *self.heartbeat_missing_since.get_or_insert(now.nanos);
        let driver_has_counters = self.link().is_some_and(Link::driver_has_counters);
        driver_has_counters && now.nanos.since(since) >= HEARTBEAT_GRACE_NS
    }

    /// Images whose positions the driver has taken away without a word that was heard.
    fn close_lapsed(&mut self) {
        // A driver that shuts down takes every position away; what was written can be read to its end then.
        if !self.link().is_some_and(Link::driver_has_counters) {
            return;
        }
        for entry in self.registry.entries() {
            let Target::Subscription(shared) = &entry.target else {
                continue;
            };
            for image in shared.close_lapsed() {
                let info = image.current_info();
                self.report(ClientError::ImageLapped {
                    image: info.correlation_id,
                    position: info.position,
                });
                self.notices.push(Notice::ImageUnavailable(shared.clone(), info));
            }
        }
    }

    /// Logs whose file was truncated under their users.
    fn close_damaged(&mut self) {
        let targets: Vec<(ResourceKey, Target)> = self
            .registry
            .keyed_entries()
            .map(|(key, entry)| (key, entry.target.clone()))
            .collect();
        for (key, target) in targets {
            match target {
                Target::Publication(shared) => {
                    let (_, attachment) = shared.slot.fetch();
                    if let Some(attachment) = attachment
                        && attachment.log.region().is_damaged()
                    {
                        self.release(key, false);
                        self.report(ClientError::LogDamaged(
                            attachment.identity.original_registration_id,
                        ));
                    }
                }
                Target::Subscription(shared) => {
                    for image in shared.close_damaged() {
                        self.report(ClientError::LogDamaged(image.info().correlation_id));
                        self.notices
                            .push(Notice::ImageUnavailable(shared.clone(), image.current_info()));
                    }
                }
                Target::Counter(_) => {}
            }
        }
    }

    pub(super) fn on_driver_lost(&mut self, reason: DriverLossReason, now: Now) {
        let error = match reason {
            DriverLossReason::Died => ClientError::DriverDied,
            DriverLossReason::ShutDown => ClientError::DriverShutDown,
            DriverLossReason::Silent => ClientError::DriverSilent(self.settings.driver_timeout),
            DriverLossReason::CncDamaged => ClientError::CncDamaged,
            DriverLossReason::Replaced => ClientError::DriverReplaced,
        };
        self.notify(ClientEvent::DriverLost { reason });
        self.report(error);
        if !self.settings.reattach {
            self.close_all();
            self.notify(ClientEvent::Closed);
            return;
        }
        let targets: Vec<Target> = self
            .registry
            .entries()
            .map(|entry| entry.target.clone())
            .collect();
        for target in targets {
            self.detach(&target);
        }
        self.registry.on_driver_lost();
        self.unsent_removals.clear();
        self.logs.forget();
        let finder = self.link().map_or_else(Finder::new, Finder::after);
        self.state = State::Lost {
            finder,
            next_attempt: now.nanos,
        };
    }

    fn detach(&mut self, target: &Target) {
        match target {
            Target::Publication(shared) => shared.slot.set(None),
            Target::Counter(shared) => {
                if let (_, Some(counter)) = shared.slot.fetch() {
                    *lock(&shared.carried) = Some(counter.get_acquire());
                }
                shared.slot.set(None);
            }
            Target::Subscription(shared) => {
                for image in shared.end_images() {
                    self.notices
                        .push(Notice::ImageUnavailable(shared.clone(), image.current_info()));
                }
            }
        }
    }

    fn find_successor(&mut self, now: Now) -> usize {
        let State::Lost { finder, next_attempt } = &mut self.state else {
            return 0;
        };
        if !next_attempt.is_due(now.nanos) {
            return 0;
        }
        *next_attempt = now.nanos.plus_nanos(FIND_INTERVAL_NS);
        match finder.attempt(&*self.directory, &self.settings, now) {
            Attempt::NotYet(_) => 0,
            Attempt::Hopeless(error) => {
                self.terminate(error, None);
                1
            }
            Attempt::Found(link) => {
                if finder.has_lost(&link) {
                    self.close_ended_images();
                }
                self.client_id = link.client_id();
                self.state = State::Attached(link);
                self.next_keepalive = now.nanos;
                self.heartbeat_missing_since = None;
                self.send_unsent();
                let client_id = self.client_id;
                self.notify(ClientEvent::Reattached { client_id });
                1
            }
        }
    }

    /// A driver that was only silent goes on writing the logs that were taken for dead, and announces them again.
    fn close_ended_images(&self) {
        for entry in self.registry.entries() {
            if let Target::Subscription(shared) = &entry.target {
                shared.close_ended();
            }
        }
    }

    pub(super) fn on_timed_out(&mut self, now: Now) {
        if self.link().is_some_and(Link::is_damaged) {
            // A truncated file reads zero, which only looks like a heartbeat that was taken away.
            return self.on_driver_lost(DriverLossReason::CncDamaged, now);
        }
        let client_id = self.client_id;
        self.terminate(
            ClientError::ClientTimedOut(client_id),
            Some(ClientEvent::ClientTimedOut { client_id }),
        );
    }

    /// Ends the client for good because of an error.
    pub(super) fn terminate(&mut self, error: ClientError, event: Option<ClientEvent>) {
        if self.is_closed() {
            return;
        }
        self.close_all();
        if let Some(event) = event {
            self.notify(event);
        }
        self.report(error);
        self.notify(ClientEvent::Closed);
    }

    pub(super) fn close_all(&mut self) {
        for target in self.registry.clear() {
            self.close_target(target);
        }
        self.logs.clear();
        self.state = State::Closed;
    }
}
