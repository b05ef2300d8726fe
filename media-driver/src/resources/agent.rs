//! Duty cycle of the resource agent.
#![forbid(unsafe_code)]

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};

use fulmar::agent::process::{ProcessId, ProcessWatch, ProcessWatches, WatchError};
use fulmar::agent::{Agent, AgentError};
use fulmar::control::ErrorCode;
use fulmar::directory::{Directory, DirectoryError, LogKind};
use fulmar::id::ClientId;
use fulmar::log::descriptor::log_length;
use fulmar::log::{LogBuffers, LogType};
use fulmar::memory::mapped::Blocks;
use fulmar::time::{NanoTime, Now, SystemClock};

use super::lookups::{Done, Job, Lookups};
use super::storage::{StorageCheck, check};
use crate::commands::{
    CreateLog, CreatedLog, DeleteLog, Lane, Resolve, ResourceCommand, ResourceError, ResourceEvent, Watches,
};
use crate::config::DriverContext;
use crate::io::{InterfaceList, Network, NetworkInterface, Registration, SystemInterfaces};
use crate::media::gossip_resolver::{GossipError, GossipResolver};
use crate::media::interface::Family;
use crate::media::resolver::{
    NameAnswer, NameFault, NameRequest, NameResolver, NameUse, Resolution, SystemResolver, TableResolver,
};
use crate::media::udp_channel::HostPort;

/// How often this agent looks at the watched processes, nanoseconds. The conductor looks far more often; this is for a
/// conductor that found the watches locked each time.
const WATCH_INTERVAL_NS: i64 = 250_000_000;

/// How often a failed deletion is tried again, nanoseconds.
const RETRY_INTERVAL_NS: i64 = 1_000_000_000;

/// Processes that are watched at most; each one takes a descriptor. Of those beyond only the heartbeats tell.
const WATCHED_PROCESSES_MAX: usize = 1024;

/// Clients of one watched process at most. Ids whose clients timed out stay until the process ends, so the oldest ones
/// make room for new ones.
pub(super) const CLIENTS_OF_PROCESS_MAX: usize = 1024;

/// A log on disk.
#[derive(Clone, Copy, Debug)]
struct LogSpace {
    /// Its full length, bytes.
    length: u64,
    /// How much of it the file system had given when it was last asked, bytes.
    allocated: u64,
}

/// Owns every slow system call of the driver.
pub struct ResourceAgent {
    directory: Arc<dyn Directory>,
    context: DriverContext,
    commands: Lane<ResourceCommand>,
    events: Lane<ResourceEvent>,
    /// Logs on disk by their paths.
    logs: BTreeMap<String, LogSpace>,
    pub(super) watched: Watches,
    pub(super) watched_max: usize,
    next_watch: NanoTime,
    undeleted: Vec<String>,
    next_retry: NanoTime,
    /// Events that found the queue full.
    backlog: Vec<ResourceEvent>,
    lookups: Lookups<Purpose>,
    interfaces: Box<dyn InterfaceList>,
    gossip: Option<GossipResolver>,
    /// Where the end of a process rings.
    process_alarm: Registration,
    now: NanoTime,
}

/// What a name is looked up for.
#[derive(Clone, Debug, PartialEq)]
enum Purpose {
    /// An answer to the conductor.
    Command {
        token: u64,
        interfaces: bool,
        /// Answers that needed no look-up.
        known: Vec<NameAnswer>,
    },
    /// The address of a bootstrap neighbour.
    Bootstrap { index: usize, port: u16 },
}

impl ResourceAgent {
    /// An agent that serves `commands` and answers on `events`.
    pub fn new(
        directory: Arc<dyn Directory>,
        context: DriverContext,
        commands: Lane<ResourceCommand>,
        events: Lane<ResourceEvent>,
        watched: Watches,
        now: NanoTime,
    ) -> Self {
        let lookups = Self::lookups(Arc::new(SystemResolver), &commands, &events);
        Self {
            directory,
            context,
            commands,
            events,
            logs: BTreeMap::new(),
            watched,
            watched_max: WATCHED_PROCESSES_MAX,
            next_watch: now,
            undeleted: Vec::new(),
            next_retry: now,
            backlog: Vec::new(),
            lookups,
            interfaces: Box::new(SystemInterfaces),
            gossip: None,
            process_alarm: Registration::none(),
            now,
        }
    }

    /// Looks names up with this resolver rather than the system's.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn NameResolver>) -> Self {
        self.lookups = Self::lookups(resolver, &self.commands, &self.events);
        self
    }

    /// Looks names up where the settings say, and takes part in the name resolution between drivers if they say so.
    ///
    /// # Errors
    /// [`GossipError`].
    pub fn with_names(mut self, network: &dyn Network, now: NanoTime) -> Result<Self, GossipError> {
        if self.context.name_resolver_supplier == "csv_table" {
            // The settings were checked with this very table.
            let table = TableResolver::parse(&self.context.name_resolver_init_args).unwrap_or_default();
            self = self.with_resolver(Arc::new(table));
        }
        if self.context.name_resolver_supplier == "driver" {
            let resolver = self.lookups.resolver();
            let gossip = GossipResolver::open(&self.context, network, resolver, &*self.interfaces, now)?;
            self.gossip = Some(gossip);
        }
        Ok(self)
    }

    /// Lets the end of a watched process ring the bell of this registration.
    #[must_use]
    pub fn with_process_alarm(mut self, alarm: Registration) -> Self {
        self.process_alarm = alarm;
        self
    }

    /// Takes the network interfaces from this list rather than from the system.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: Box<dyn InterfaceList>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// In the shared mode the thread sleeps on the conductor's bell, else on this agent's own.
    fn lookups(
        resolver: Arc<dyn NameResolver>,
        commands: &Lane<ResourceCommand>,
        events: &Lane<ResourceEvent>,
    ) -> Lookups<Purpose> {
        let bells = [commands.bell().clone(), events.bell().clone()];
        Lookups::new(resolver, Arc::new(SystemClock), bells)
    }

    fn on_command(&mut self, command: ResourceCommand) {
        match command {
            ResourceCommand::CreateLog(request) => {
                let registration_id = request.registration_id;
                let result = self.create_log(&request).map(Box::new);
                self.emit(ResourceEvent::LogCreated {
                    registration_id,
                    result,
                });
            }
            ResourceCommand::DeleteLog(request) => self.delete_log(*request),
            ResourceCommand::Watch { client_id, process } => self.watch(client_id, process),
            ResourceCommand::Unwatch { client_id } => lock(&self.watched).retain(|clients| {
                clients.retain(|id| *id != client_id);
                !clients.is_empty()
            }),
            ResourceCommand::Resolve(request) => self.resolve(*request),
        }
    }

    fn resolve(&mut self, request: Resolve) {
        let (mut known, mut names) = (Vec::new(), Vec::new());
        for request in request.names {
            match self.answer_at_once(&request) {
                Some(result) => known.push(NameAnswer { request, result }),
                None => names.push(request),
            }
        }
        let purpose = Purpose::Command {
            token: request.token,
            interfaces: request.interfaces,
            known,
        };
        if names.is_empty() {
            self.on_looked_up(Done {
                purpose,
                answers: Vec::new(),
                took_ns: 0,
            });
        } else if let Some(done) = self.lookups.start(Job { purpose, names }) {
            self.on_looked_up(done);
        }
    }

    /// Literal addresses, names of other drivers, and tables.
    fn answer_at_once(&self, request: &NameRequest) -> Option<Result<IpAddr, NameFault>> {
        let literal = request.host.parse().ok();
        let told = || self.gossip.as_ref()?.look_up(request);
        let found = literal.or_else(told).map(Ok);
        found.or_else(|| self.lookups.resolver().at_once(request))
    }

    fn on_looked_up(&mut self, done: Done<Purpose>) {
        match done.purpose {
            Purpose::Command {
                token,
                interfaces,
                known,
            } => {
                let mut answers = known;
                answers.extend(done.answers);
                let interfaces = if interfaces {
                    self.list_interfaces()
                } else {
                    Vec::new()
                };
                self.emit(ResourceEvent::Resolved {
                    token,
                    resolution: Box::new(Resolution { answers, interfaces }),
                    took_ns: done.took_ns,
                });
            }
            Purpose::Bootstrap { index, port } => {
                let found = done
                    .answers
                    .into_iter()
                    .next()
                    .and_then(|answer| answer.result.ok());
                if let (Some(gossip), Some(address)) = (&mut self.gossip, found) {
                    gossip.on_bootstrap(self.now, index, SocketAddr::new(address, port));
                }
            }
        }
    }

    fn list_interfaces(&mut self) -> Vec<NetworkInterface> {
        self.interfaces.interfaces().unwrap_or_else(|error| {
            self.emit(ResourceEvent::Warning {
                text: format!("the network interfaces can not be listed: {error}"),
            });
            Vec::new()
        })
    }

    /// One look at each socket and timer of the name resolution between drivers.
    fn drive_gossip(&mut self) -> usize {
        let Some(gossip) = &mut self.gossip else {
            return 0;
        };
        if !gossip.next_deadline().is_due(self.now) {
            return 0;
        }
        let mut work = usize::from(gossip.do_work(self.now));
        let (events, bootstraps) = (gossip.take_events(), gossip.poll_bootstraps(self.now));
        for event in events {
            self.emit(ResourceEvent::NameResolution(event));
            work += 1;
        }
        for (index, at) in bootstraps {
            self.look_up_bootstrap(index, &at);
            work += 1;
        }
        work
    }

    /// Bootstrap neighbours are looked up by the ordinary resolver: gossip can not know them before it has begun. One
    /// that is being looked up already is left alone.
    fn look_up_bootstrap(&mut self, index: usize, at: &HostPort) {
        let purpose = Purpose::Bootstrap { index, port: at.port };
        // Asked for more often than a dead name server fails, they would pile up before the names of channels.
        if self.lookups.is_under_way(&purpose) {
            return;
        }
        let request = at.request(NameUse::Neighbor, Family::V4);
        let at_once = match &request {
            Some(request) => self.lookups.resolver().at_once(request),
            None => at.literal().map(Ok),
        };
        match (request, at_once) {
            (_, Some(Ok(address))) => {
                if let Some(gossip) = &mut self.gossip {
                    gossip.on_bootstrap(self.now, index, SocketAddr::new(address, at.port));
                }
            }
            (Some(request), None) => {
                let names = vec![request];
                if let Some(done) = self.lookups.start(Job { purpose, names }) {
                    self.on_looked_up(done);
                }
            }
            // It is asked for again.
            (_, Some(Err(_))) | (None, None) => {}
        }
    }

    fn watch(&mut self, client_id: ClientId, process: ProcessId) {
        if let Some(event) = self.try_watch(client_id, process) {
            self.emit(event);
        }
    }

    /// Watches a client's process; what the conductor is to know of it, if anything.
    fn try_watch(&self, client_id: ClientId, process: ProcessId) -> Option<ResourceEvent> {
        let mut watched = lock(&self.watched);
        if let Some(clients) = watched.get_mut(process) {
            if clients.contains(&client_id) {
                return None;
            }
            clients.push_back(client_id);
            if clients.len() <= CLIENTS_OF_PROCESS_MAX {
                return None;
            }
            return clients
                .pop_front()
                .map(|client_id| ResourceEvent::Unwatchable { client_id });
        }
        if watched.len() >= self.watched_max {
            return Some(ResourceEvent::Unwatchable { client_id });
        }
        match ProcessWatch::open(process) {
            Ok(watch) => {
                // Without the alarm the conductor sees it when it looks by itself.
                let _ = self.process_alarm.add_process(&watch);
                watched.insert(watch, VecDeque::from([client_id]));
                None
            }
            Err(WatchError::Gone) => Some(ResourceEvent::ClientDied { client_id }),
            // Another pid namespace, an old kernel: its heartbeat counter has to do.
            Err(WatchError::Unsupported) => Some(ResourceEvent::Unwatchable { client_id }),
        }
    }

    fn create_log(&mut self, request: &CreateLog) -> Result<CreatedLog, ResourceError> {
        let length = log_length(request.init.term_length, request.init.page_size);
        self.check_budget(length)?;
        if self.context.perform_storage_checks {
            self.check_storage(length)?;
        }
        let blocks = if request.init.sparse {
            Blocks::Sparse
        } else {
            Blocks::Allocate
        };
        let kind = match request.init.log_type {
            LogType::Image => LogKind::Image,
            LogType::Concurrent | LogType::Exclusive => LogKind::Publication,
        };
        let (region, path) = self
            .directory
            .create_log(kind, request.registration_id, length, blocks)
            .map_err(|error| self.creation_error(length, &error))?;
        let log = LogBuffers::initialise(region, &request.init).map_err(|error| {
            // The file is of no use to anybody; that its removal may fail changes nothing for the client.
            let _ = self.directory.delete_log(&path);
            ResourceError {
                code: ErrorCode::GenericError,
                key: "log not initialised",
                text: format!("log {path} can not be initialised: {error}"),
            }
        })?;
        let space = LogSpace { length, allocated: 0 };
        self.logs.insert(path.clone(), space);
        Ok(CreatedLog { log, path })
    }

    fn creation_error(&self, length: u64, error: &DirectoryError) -> ResourceError {
        if matches!(error, DirectoryError::NoSpace { .. }) {
            let usable = self.directory.usable_space().unwrap_or(0);
            return self.no_space(length, usable);
        }
        ResourceError {
            code: ErrorCode::GenericError,
            key: match error {
                DirectoryError::NotFound { .. } => "log not created: no folder",
                DirectoryError::AlreadyExists { .. } => "log not created: it exists",
                DirectoryError::PermissionDenied { .. } => "log not created: no permission",
                DirectoryError::Refused { .. } => "log not created: refused",
                _ => "log not created",
            },
            text: format!("the log can not be created: {error}"),
        }
    }

    fn no_space(&self, needed: u64, available: u64) -> ResourceError {
        ResourceError {
            code: ErrorCode::StorageSpace,
            key: "no space for a log",
            text: format!(
                "insufficient usable storage for a new log of {needed} bytes: {available} bytes are available in {}; use a \
                 smaller term-length or make room",
                self.directory.path()
            ),
        }
    }

    /// The limit on all logs together; unlike the check of the file system it is about what is promised, not given.
    fn check_budget(&self, needed: u64) -> Result<(), ResourceError> {
        let budget = self.context.log_budget;
        let held = self
            .logs
            .values()
            .map(|log| log.length)
            .fold(0, u64::saturating_add);
        if budget == 0 || needed <= budget.saturating_sub(held) {
            return Ok(());
        }
        Err(ResourceError {
            code: ErrorCode::StorageSpace,
            key: "beyond the budget for logs",
            text: format!(
                "a new log of {needed} bytes is beyond the budget for logs: {held} of fulmar.log.budget={budget} \
                 bytes are taken; use a smaller term-length, remove publications or raise the budget"
            ),
        })
    }

    fn check_storage(&mut self, needed: u64) -> Result<(), ResourceError> {
        let usable = self.directory.usable_space().map_err(|error| ResourceError {
            code: ErrorCode::GenericError,
            key: "usable space not known",
            text: format!("usable space of {} is not known: {error}", self.directory.path()),
        })?;
        let warn_at = self.context.low_file_store_warning_threshold;
        let mut outcome = check(usable, self.promised(), needed, warn_at);
        if outcome != StorageCheck::Enough {
            self.look_at_logs();
            outcome = check(usable, self.promised(), needed, warn_at);
        }
        match outcome {
            StorageCheck::Enough => Ok(()),
            StorageCheck::Low => {
                self.emit(ResourceEvent::Warning {
                    text: format!(
                        "space is running low in {}: at or below the threshold of {} bytes",
                        self.directory.path(),
                        warn_at
                    ),
                });
                Ok(())
            }
            StorageCheck::Insufficient { available } => Err(self.no_space(needed, available)),
        }
    }

    /// What live logs may still be given, bytes; not less than that, as what they have is what they had when it was last
    /// looked at.
    fn promised(&self) -> u64 {
        let promises = self
            .logs
            .values()
            .map(|log| log.length.saturating_sub(log.allocated));
        promises.fold(0, u64::saturating_add)
    }

    /// Asks the system what each log has been given. That takes long where there are many, so it is not done for every
    /// new one.
    fn look_at_logs(&mut self) {
        for (path, log) in &mut self.logs {
            // A file that is gone, or can not be read, will not be given any more.
            log.allocated = self.directory.allocated_length(path).unwrap_or(log.length);
        }
    }

    fn delete_log(&mut self, request: DeleteLog) {
        let DeleteLog { path, log } = request;
        let length = log.region().len() as u64;
        drop(log);
        if !self.remove_file(&path) {
            self.undeleted.push(path);
            self.emit(ResourceEvent::DeleteFailed);
        }
        self.emit(ResourceEvent::Unmapped { length });
    }

    /// Whether the file is gone, by us or by somebody else; it is forgotten then.
    fn remove_file(&mut self, path: &str) -> bool {
        let gone = matches!(
            self.directory.delete_log(path),
            Ok(()) | Err(DirectoryError::NotFound { .. })
        );
        if gone {
            self.logs.remove(path);
        }
        gone
    }

    fn retry_deletions(&mut self) -> usize {
        let paths = core::mem::take(&mut self.undeleted);
        let before = paths.len();
        for path in paths {
            if !self.remove_file(&path) {
                self.undeleted.push(path);
            }
        }
        before - self.undeleted.len()
    }

    fn check_processes(&mut self) -> usize {
        let mut dead = Vec::new();
        let work = lock(&self.watched).check(|clients| dead.extend(clients));
        for client_id in dead {
            self.emit(ResourceEvent::ClientDied { client_id });
        }
        work
    }

    fn emit(&mut self, event: ResourceEvent) {
        if !self.backlog.is_empty() {
            self.backlog.push(event);
        } else if let Err(event) = self.events.offer(event) {
            self.backlog.push(event);
        }
    }

    fn flush_backlog(&mut self) {
        while !self.backlog.is_empty() {
            let event = self.backlog.remove(0);
            if let Err(event) = self.events.offer(event) {
                self.backlog.insert(0, event);
                return;
            }
        }
    }
}

impl Agent for ResourceAgent {
    fn role_name(&self) -> &str {
        "resources"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.now = now.nanos;
        let mut work = 0;
        self.flush_backlog();
        // One command a cycle: in the shared mode the conductor must not wait for a whole queue of slow calls.
        if self.backlog.is_empty()
            && let Some(command) = self.commands.poll()
        {
            self.on_command(command);
            work += 1;
        }
        while let Some(done) = self.lookups.poll() {
            self.on_looked_up(done);
            work += 1;
        }
        work += self.drive_gossip();
        if self.next_watch.is_due(now.nanos) && !lock(&self.watched).is_empty() {
            self.next_watch = now.nanos.plus_nanos(WATCH_INTERVAL_NS);
            work += self.check_processes();
        }
        if !self.undeleted.is_empty() && self.next_retry.is_due(now.nanos) {
            self.next_retry = now.nanos.plus_nanos(RETRY_INTERVAL_NS);
            work += self.retry_deletions();
        }
        Ok(work)
    }

    fn next_deadline(&self) -> NanoTime {
        let mut deadline = NanoTime::never_after(self.now);
        if !lock(&self.watched).is_empty() {
            deadline = deadline.earlier(self.next_watch);
        }
        if !self.undeleted.is_empty() {
            deadline = deadline.earlier(self.next_retry);
        }
        if let Some(gossip) = &self.gossip {
            deadline = deadline.earlier(gossip.next_deadline());
        }
        // In the shared mode the lane's bell wakes nobody, so what is in it already must not be slept over.
        if !self.backlog.is_empty() || !self.commands.is_empty() || self.lookups.has_done() {
            deadline = self.now;
        }
        deadline
    }

    fn on_close(&mut self) {
        while let Some(command) = self.commands.poll() {
            if let ResourceCommand::DeleteLog(request) = command {
                self.delete_log(*request);
            }
        }
        // A log that was made and not taken up by the conductor, or that it could not hand over any more.
        for path in core::mem::take(&mut self.logs).into_keys() {
            self.remove_file(&path);
        }
    }
}

fn lock(watched: &Watches) -> MutexGuard<'_, ProcessWatches<VecDeque<ClientId>>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
