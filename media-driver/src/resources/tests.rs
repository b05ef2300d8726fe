//! The resource agent alone, on a directory in memory.

use core::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

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
    CreateLog, CreatedLog, DeleteLog, Lane, Resolve, ResourceCommand, ResourceError, ResourceEvent, Watches,
};
use crate::config::DriverSettings;
use crate::io::NetworkInterface;
use crate::media::interface::Family;
use crate::media::resolver::{NameAnswer, NameFault, NameRequest, NameResolver, NameUse};

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
            assert!(is_due || is_last, "it would sleep over a command");
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

/// Knows `server` at once; `slow` never gets its answer before the test has seen what it wants to see.
struct Names {
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Names {
    fn new() -> Arc<Names> {
        Arc::new(Names {
            gate: Mutex::new(false),
            opened: Condvar::new(),
        })
    }

    fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl NameResolver for Names {
    fn at_once(&self, request: &NameRequest) -> Option<Result<IpAddr, NameFault>> {
        (request.host == "server").then(|| Ok(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))))
    }

    fn look_up(&self, _request: &NameRequest) -> Result<IpAddr, NameFault> {
        let open = self.gate.lock().unwrap();
        let _open = self.opened.wait_while(open, |open| !*open).unwrap();
        Err(NameFault {
            reason: "nobody knows".to_owned(),
        })
    }
}

fn name(host: &str) -> NameRequest {
    NameRequest {
        host: host.to_owned(),
        used_as: NameUse::Endpoint,
        family: Family::V4,
        is_re_resolution: false,
    }
}

fn resolve(token: u64, hosts: &[&str], interfaces: bool) -> ResourceCommand {
    ResourceCommand::Resolve(Box::new(Resolve {
        token,
        names: hosts.iter().map(|host| name(host)).collect(),
        interfaces,
    }))
}

fn answers(event: &ResourceEvent) -> (u64, Vec<(String, Option<String>)>, usize) {
    let ResourceEvent::Resolved {
        token, resolution, ..
    } = event
    else {
        panic!("{event:?}");
    };
    let answer = |answer: &NameAnswer| {
        let address = answer.result.as_ref().ok().map(ToString::to_string);
        (answer.request.host.clone(), address)
    };
    let answers = resolution.answers.iter().map(answer).collect();
    (*token, answers, resolution.interfaces.len())
}

#[test]
fn what_is_known_is_answered_at_once_with_the_interfaces() {
    let mut world = World::with(1 << 20, 0);
    let list = vec![NetworkInterface {
        name: "eth0".to_owned(),
        index: 2,
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        prefix_length: 8,
        is_up: true,
        is_loopback: false,
        is_multicast: true,
    }];
    world.agent = world
        .agent
        .with_resolver(Names::new())
        .with_interfaces(Box::new(list));
    world
        .commands
        .offer(resolve(1, &["server", "10.0.0.7", "::1"], true))
        .unwrap();
    world.commands.offer(resolve(2, &[], false)).unwrap();
    let events = world.run();
    let known = |host: &str, address: &str| (host.to_owned(), Some(address.to_owned()));
    let expected = vec![
        known("server", "10.0.0.1"),
        known("10.0.0.7", "10.0.0.7"),
        known("::1", "::1"),
    ];
    assert_eq!(answers(&events[0]), (1, expected, 1));
    assert_eq!(answers(&events[1]), (2, vec![], 0));
}

#[test]
fn a_name_that_takes_its_time_holds_up_neither_logs_nor_other_names() {
    let mut world = World::with(1 << 30, 0);
    let names = Names::new();
    world.agent = world
        .agent
        .with_resolver(Arc::clone(&names) as Arc<dyn NameResolver>);
    for token in 0..20 {
        world
            .commands
            .offer(resolve(token, &["slow", "server"], false))
            .unwrap();
    }
    assert!(world.create(1).is_ok());
    world.commands.offer(resolve(100, &["server"], false)).unwrap();
    assert_eq!(answers(&world.run()[0]).0, 100);
    names.open();
    let mut tokens = Vec::new();
    while tokens.len() < 20 {
        for event in world.run() {
            let (token, answers, _) = answers(&event);
            assert_eq!(answers[0], ("server".to_owned(), Some("10.0.0.1".to_owned())));
            assert_eq!(answers[1], ("slow".to_owned(), None));
            tokens.push(token);
        }
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..20).collect::<Vec<u64>>());
}
