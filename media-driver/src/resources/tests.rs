//! The resource agent alone, on a directory in memory.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use fulmar::agent::Agent;
use fulmar::agent::doorbell::Doorbell;
use fulmar::agent::process::{ProcessId, start_time_of};
use fulmar::directory::{Directory, MemDirectory};
use fulmar::id::{ClientId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::LogInit;
use fulmar::time::{EpochMs, NanoTime, Now};

use super::ResourceAgent;
use super::agent::CLIENTS_OF_PROCESS_MAX;
use crate::commands::{
    CreateLog, CreatedLog, DeleteLog, Lane, ResourceCommand, ResourceError, ResourceEvent, Watches,
};
use crate::config::DriverSettings;

const LOG_LENGTH: u64 = 3 * 65536 + 4096;

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Sleeper {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
        Sleeper(command.spawn().unwrap())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

struct World {
    agent: ResourceAgent,
    directory: Arc<MemDirectory>,
    commands: Lane<ResourceCommand>,
    events: Lane<ResourceEvent>,
    nanos: i64,
}

impl World {
    fn with(capacity: u64, budget: u64) -> World {
        let directory = Arc::new(MemDirectory::with_capacity("world", capacity));
        directory.create_dirs().unwrap();
        let mut settings = DriverSettings::defaults();
        settings.set("aeron.dir", "world").unwrap();
        settings.set("fulmar.log.budget", &budget.to_string()).unwrap();
        let commands = Lane::new(Doorbell::heap());
        let events = Lane::new(Doorbell::heap());
        let agent = ResourceAgent::new(
            Arc::clone(&directory) as Arc<dyn Directory>,
            settings.conclude().unwrap(),
            commands.clone(),
            events.clone(),
            Watches::default(),
            NanoTime(0),
        );
        World {
            agent,
            directory,
            commands,
            events,
            nanos: 0,
        }
    }

    /// Gives the agent its turns until it has taken up all commands, and one to look at the processes.
    fn run(&mut self) -> Vec<ResourceEvent> {
        let mut events = Vec::new();
        loop {
            let is_last = self.commands.is_empty();
            let is_due = self.agent.next_deadline().is_due(NanoTime(self.nanos));
            assert_eq!(is_due, !is_last);
            self.nanos += 260_000_000;
            let now = Now {
                nanos: NanoTime(self.nanos),
                epoch: EpochMs(1),
            };
            self.agent.do_work(now).unwrap();
            while let Some(event) = self.events.poll() {
                events.push(event);
            }
            if is_last {
                return events;
            }
        }
    }

    fn request(&mut self, id: i64) {
        let registration_id = RegistrationId(id);
        let mut init = LogInit::ipc_default(registration_id, SessionId(1), StreamId(1), TermId(0), 65536);
        init.sparse = true;
        let command = ResourceCommand::CreateLog(Box::new(CreateLog {
            registration_id,
            init,
        }));
        self.commands.offer(command).unwrap();
    }

    fn create(&mut self, id: i64) -> Result<CreatedLog, ResourceError> {
        self.request(id);
        match self.run().pop() {
            Some(ResourceEvent::LogCreated { result, .. }) => result.map(|created| *created),
            other => panic!("{other:?}"),
        }
    }

    fn watch(&mut self, client: i64, process: ProcessId) -> Vec<ResourceEvent> {
        let client_id = ClientId(client);
        self.commands
            .offer(ResourceCommand::Watch { client_id, process })
            .unwrap();
        self.run()
    }
}

#[test]
fn logs_that_nobody_took_up_or_handed_over_are_gone_after_the_close() {
    let mut world = World::with(1 << 30, 0);
    let kept = world.create(1).unwrap();
    world.request(2);
    world.nanos += 1;
    let now = Now {
        nanos: NanoTime(world.nanos),
        epoch: EpochMs(1),
    };
    world.agent.do_work(now).unwrap();
    world.request(3);
    assert_eq!(world.directory.logs().unwrap().len(), 2);
    world.agent.on_close();
    assert_eq!(world.directory.logs().unwrap(), [""; 0]);
    assert_eq!(kept.log.region().len() as u64, LOG_LENGTH, "still mapped");
}

#[test]
fn a_log_that_somebody_else_removed_is_forgotten_at_its_deletion() {
    let mut world = World::with(1 << 30, LOG_LENGTH + 1);
    let CreatedLog { log, path } = world.create(1).unwrap();
    let refused = world.create(2).unwrap_err();
    assert_eq!(refused.key, "beyond the budget for logs");
    world.directory.delete_log(&path).unwrap();
    let command = ResourceCommand::DeleteLog(Box::new(DeleteLog { path, log }));
    world.commands.offer(command).unwrap();
    let events = world.run();
    assert!(
        matches!(events[..], [ResourceEvent::Unmapped { length: LOG_LENGTH }]),
        "{events:?}"
    );
    assert!(world.create(3).is_ok());
}

#[test]
fn nothing_is_promised_to_a_log_that_is_gone() {
    let mut world = World::with(LOG_LENGTH + LOG_LENGTH / 2, 0);
    let first = world.create(1).unwrap();
    let refused = world.create(2).unwrap_err();
    assert_eq!(refused.key, "no space for a log");
    world.directory.delete_log(&first.path).unwrap();
    assert!(world.create(3).is_ok());
}

#[test]
fn a_process_is_watched_once_for_all_its_clients_and_their_number_is_bounded() {
    let mut world = World::with(1 << 20, 0);
    let mut child = Sleeper::start();
    let own = ProcessId::current();
    let pid = i64::from(child.0.id());
    let process = ProcessId {
        pid,
        start_time_ticks: start_time_of(pid).unwrap(),
        ..own
    };
    let count = CLIENTS_OF_PROCESS_MAX as i64;
    for client in 0..count {
        assert!(world.watch(client, process).is_empty());
        assert!(world.watch(client, process).is_empty(), "known already");
    }
    assert_eq!(world.agent.watched.lock().unwrap().len(), 1);
    // The oldest one makes room.
    let events = world.watch(count, process);
    assert!(
        matches!(
            events[..],
            [ResourceEvent::Unwatchable {
                client_id: ClientId(0)
            }]
        ),
        "{events:?}"
    );
    // No room for a second process.
    world.agent.watched_max = 1;
    let events = world.watch(-5, own);
    assert!(
        matches!(
            events[..],
            [ResourceEvent::Unwatchable {
                client_id: ClientId(-5)
            }]
        ),
        "{events:?}"
    );
    let client_id = ClientId(1);
    world
        .commands
        .offer(ResourceCommand::Unwatch { client_id })
        .unwrap();
    assert!(world.run().is_empty());
    child.end();
    let dead: Vec<i64> = world
        .run()
        .into_iter()
        .map(|event| match event {
            ResourceEvent::ClientDied { client_id } => client_id.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(dead, (2..=count).collect::<Vec<_>>());
    assert!(world.agent.watched.lock().unwrap().is_empty());
    // The last client of a process takes the watch with it.
    assert!(world.watch(-5, own).is_empty());
    assert_eq!(world.agent.watched.lock().unwrap().len(), 1);
    let client_id = ClientId(-5);
    world
        .commands
        .offer(ResourceCommand::Unwatch { client_id })
        .unwrap();
    assert!(world.run().is_empty());
    assert!(world.agent.watched.lock().unwrap().is_empty());
}
