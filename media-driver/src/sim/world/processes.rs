//! Drivers and applications of a world: how they begin and how they end.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::{Arc, PoisonError};

use fulmar::cnc::CncFile;
use fulmar::directory::Directory;
use fulmar::time::Clock;
use fulmar::{Client, ClientError, ClientSettings};

use super::super::checkers::{RUNS_OF_HOST, Violation};
use super::super::network::SimNetwork;
use super::super::plan::{Plan, host_address};
use super::super::workload::{Publisher, Subscriber};
use super::{Application, MILLISECOND, REPLACED_AFTER_NS, Role, RolePlan, RunningDriver, START, World};
use crate::conductor::OsSocketBuffers;
use crate::config::DriverSettings;
use crate::driver::{MediaDriverInvoker, Surroundings};

impl World {
    pub(super) fn start_driver(&mut self, index: usize) -> Result<(), Violation> {
        let failed = |reason: String| Violation::new("drivers start", format!("host {index}: {reason}"));
        let address = host_address(index);
        let host = &mut self.hosts[index];
        let mut settings = DriverSettings::defaults();
        let dir = host.directory.path().to_owned();
        let own = [("aeron.dir", dir.as_str())];
        let given = self
            .plan
            .settings
            .iter()
            .map(|(key, value)| (*key, value.as_str()));
        for (key, value) in own.into_iter().chain(given) {
            settings
                .set(key, value)
                .map_err(|error| failed(error.to_string()))?;
        }
        let context = settings.conclude().map_err(|error| failed(error.to_string()))?;
        self.term_length = i64::from(context.term_buffer_length);
        let surroundings = Surroundings {
            seed: self.drivers.next_u64(),
            proof_secret: self.drivers.next_u64(),
            os_buffers: OsSocketBuffers {
                default_send_length: 212_992,
                default_receive_length: 212_992,
            },
            interfaces: Box::new(SimNetwork::interfaces(&[address])),
        };
        let mut invoker = MediaDriverInvoker::assemble_within(
            context,
            Arc::clone(&host.directory) as Arc<dyn Directory>,
            Arc::clone(&host.clock) as Arc<dyn Clock>,
            self.network.host(&[address]),
            surroundings,
        )
        .map_err(|error| failed(error.to_string()))?;
        // Clients that look for it find its heartbeat.
        invoker.do_work().map_err(|error| failed(error.to_string()))?;
        let cnc = host
            .directory
            .map_cnc()
            .map_err(|error| failed(error.to_string()))
            .and_then(|region| CncFile::open(&region).map_err(|error| failed(error.to_string())))?;
        let agents = invoker.agent_count();
        if host.stalled_until.is_empty() {
            host.stalled_until = vec![None; agents];
        }
        host.starts += 1;
        host.own_storage = host.directory.allocated();
        host.start_at = None;
        host.driver = Some(RunningDriver {
            invoker,
            cnc,
            id: index as u64 * RUNS_OF_HOST + host.starts,
        });
        self.note(format!("the driver of host {index} starts"));
        Ok(())
    }

    pub(super) fn start_application(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now();
        let host = self.applications[index].host;
        let on = &self.hosts[host];
        if on.driver.is_none() {
            // A client that looks for a driver waits; here it looks again later.
            self.applications[index].start_at = now.plus_nanos(50 * MILLISECOND);
            return Ok(());
        }
        let failed = |reason: String| Violation::new("clients connect", format!("client {index}: {reason}"));
        let errors = Arc::clone(&self.client_errors);
        let on_error = move |error: &ClientError| {
            let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
            errors.push((index, error.clone()));
        };
        let settings = ClientSettings {
            on_error: Some(Arc::new(on_error)),
            driver_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_millis(500),
            resource_linger: Duration::from_secs(1),
            name: String::new(),
            invoker: true,
            pre_touch: false,
            ..ClientSettings::with_dir(on.directory.path())
        };
        let client = Client::connect_with(
            settings,
            Arc::clone(&on.directory) as Arc<dyn Directory>,
            Arc::clone(&on.clock) as Arc<dyn Clock>,
        )
        .map_err(|error| failed(error.to_string()))?;
        let role = self.new_role(index, &client)?;
        let does = match &self.applications[index].plan {
            RolePlan::Publisher(plan) => format!("publishes {} stream {}", plan.channel, plan.stream_id),
            RolePlan::Subscriber(plan) => format!("subscribes to {} stream {}", plan.channel, plan.stream_id),
        };
        self.applications[index].running = Some((client, role));
        self.note(format!("client {index} starts on host {host} and {does}"));
        Ok(())
    }

    /// Adds the publication or subscription of an application.
    pub(super) fn new_role(&mut self, index: usize, client: &Client) -> Result<Role, Violation> {
        let now = self.now();
        let application = &self.applications[index];
        let stream = application.stream;
        let failed = |reason: String| Violation::new("clients connect", format!("client {index}: {reason}"));
        let mut role = match application.plan.clone() {
            RolePlan::Publisher(plan) => {
                let id = self.checkers.add_publisher(stream, plan.lengths);
                Publisher::new(client, plan, id, now).map(|publisher| Role::Publisher(Box::new(publisher)))
            }
            RolePlan::Subscriber(plan) => {
                let id = self.checkers.add_subscriber(stream);
                if plan.may_be_left_behind {
                    self.checkers.let_be_left_behind(id);
                }
                Subscriber::new(client, plan, id, now)
                    .map(|subscriber| Role::Subscriber(Box::new(subscriber)))
            }
        }
        .map_err(|error| failed(error.to_string()))?;
        if self.has_healed {
            role.end_faults(now);
        }
        Ok(role)
    }

    pub(super) fn reopen_stream(&mut self, index: usize) -> Result<(), Violation> {
        let host = self.applications[index].host;
        if self.hosts[host].driver.is_none() {
            // Without a driver it can not add anything: all of it starts again later.
            self.close_application(index);
        } else if let Some((client, role)) = self.take_application(index) {
            drop(role);
            let role = self.new_role(index, &client)?;
            self.applications[index].running = Some((client, role));
        }
        Ok(())
    }

    pub(super) fn close_application(&mut self, index: usize) {
        if let Some((client, role)) = self.take_application(index) {
            drop(role);
            client.close();
        }
    }

    pub(super) fn kill_application(&mut self, index: usize) {
        if let Some((client, mut role)) = self.take_application(index) {
            if let Role::Publisher(publisher) = &mut role
                && publisher.claim_and_vanish()
            {
                *self.faults.entry("claim left open").or_default() += 1;
            }
            self.dead.push((client, role));
        }
    }

    pub(super) fn take_application(&mut self, index: usize) -> Option<(Client, Role)> {
        let start_at = self.now().plus_nanos(REPLACED_AFTER_NS);
        let application = &mut self.applications[index];
        application.start_at = start_at;
        application.stalled_until = None;
        let running = application.running.take()?;
        match &running.1 {
            Role::Publisher(publisher) => self.checkers.on_publisher_gone(publisher.id()),
            Role::Subscriber(subscriber) => self.checkers.on_subscriber_gone(subscriber.id()),
        }
        Some(running)
    }
}

pub(super) fn applications(plan: &Plan) -> Vec<Application> {
    let application = |host: usize, stream: usize, plan: RolePlan| Application {
        host,
        stream: stream as u32,
        plan,
        running: None,
        start_at: START,
        stalled_until: None,
    };
    let mut all = Vec::new();
    for (stream, of) in plan.streams.iter().enumerate() {
        for (host, plan) in &of.publishers {
            all.push(application(*host, stream, RolePlan::Publisher(plan.clone())));
        }
        for (host, plan) in &of.subscribers {
            all.push(application(*host, stream, RolePlan::Subscriber(plan.clone())));
        }
    }
    all
}
