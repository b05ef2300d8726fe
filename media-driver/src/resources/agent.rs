//! Duty cycle of the resource agent.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fulmar::agent::process::{ProcessWatch, WatchError};
use fulmar::agent::{Agent, AgentError};
use fulmar::control::ErrorCode;
use fulmar::directory::{Directory, DirectoryError, LogKind};
use fulmar::id::ClientId;
use fulmar::log::LogBuffers;
use fulmar::log::descriptor::log_length;
use fulmar::memory::mapped::Blocks;
use fulmar::time::{NanoTime, Now};

use super::storage::{StorageCheck, check};
use crate::commands::{
    CreateLog, CreatedLog, DeleteLog, Lane, ResourceCommand, ResourceError, ResourceEvent,
};
use crate::config::DriverContext;

/// How often the watched processes are looked at, nanoseconds. It bounds how long the death of a publisher stays
/// unnoticed.
const WATCH_INTERVAL_NS: i64 = 5_000_000;

/// How often a failed deletion is tried again, nanoseconds.
const RETRY_INTERVAL_NS: i64 = 1_000_000_000;

/// Owns every slow system call of the driver.
pub struct ResourceAgent {
    directory: Arc<dyn Directory>,
    context: DriverContext,
    commands: Lane<ResourceCommand>,
    events: Lane<ResourceEvent>,
    /// Logs on disk and their full lengths.
    logs: BTreeMap<String, u64>,
    watched: Vec<(ClientId, ProcessWatch)>,
    next_watch: NanoTime,
    undeleted: Vec<String>,
    next_retry: NanoTime,
    /// Events that found the queue full.
    backlog: Vec<ResourceEvent>,
    now: NanoTime,
}

impl ResourceAgent {
    /// An agent that serves `commands` and answers on `events`.
    pub fn new(
        directory: Arc<dyn Directory>,
        context: DriverContext,
        commands: Lane<ResourceCommand>,
        events: Lane<ResourceEvent>,
        now: NanoTime,
    ) -> Self {
        Self {
            directory,
            context,
            commands,
            events,
            logs: BTreeMap::new(),
            watched: Vec::new(),
            next_watch: now,
            undeleted: Vec::new(),
            next_retry: now,
            backlog: Vec::new(),
            now,
        }
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
            ResourceCommand::Watch { client_id, process } => match ProcessWatch::open(process) {
                Ok(watch) => self.watched.push((client_id, watch)),
                Err(WatchError::Gone) => self.emit(ResourceEvent::ClientDied { client_id }),
                // Another pid namespace, an old kernel: its heartbeat counter has to do.
                Err(WatchError::Unsupported) => self.emit(ResourceEvent::Unwatchable { client_id }),
            },
            ResourceCommand::Unwatch { client_id } => self.watched.retain(|(id, _)| *id != client_id),
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
        let (region, path) = self
            .directory
            .create_log(LogKind::Publication, request.registration_id, length, blocks)
            .map_err(|error| self.creation_error(length, &error))?;
        let log = LogBuffers::initialise(region, &request.init).map_err(|error| {
            // The file is of no use to anybody; that its removal may fail changes nothing for the client.
            let _ = self.directory.delete_log(&path);
            ResourceError {
                code: ErrorCode::GenericError,
                text: format!("log {path} can not be initialised: {error}"),
            }
        })?;
        self.logs.insert(path.clone(), length);
        Ok(CreatedLog { log, path })
    }

    fn creation_error(&self, length: u64, error: &DirectoryError) -> ResourceError {
        if matches!(error, DirectoryError::NoSpace { .. }) {
            let usable = self.directory.usable_space().unwrap_or(0);
            return self.no_space(length, usable);
        }
        ResourceError {
            code: ErrorCode::GenericError,
            text: format!("the log can not be created: {error}"),
        }
    }

    fn no_space(&self, needed: u64, available: u64) -> ResourceError {
        ResourceError {
            code: ErrorCode::StorageSpace,
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
        let held = self.logs.values().copied().fold(0, u64::saturating_add);
        if budget == 0 || needed <= budget.saturating_sub(held) {
            return Ok(());
        }
        Err(ResourceError {
            code: ErrorCode::StorageSpace,
            text: format!(
                "a new log of {needed} bytes is beyond the budget for logs: {held} of fulmar.log.budget={budget} \
                 bytes are taken; use a smaller term-length, remove publications or raise the budget"
            ),
        })
    }

    fn check_storage(&mut self, needed: u64) -> Result<(), ResourceError> {
        let usable = self.directory.usable_space().map_err(|error| ResourceError {
            code: ErrorCode::GenericError,
            text: format!("usable space of {} is not known: {error}", self.directory.path()),
        })?;
        let promised = self
            .logs
            .iter()
            .map(|(path, length)| length.saturating_sub(self.directory.allocated_length(path).unwrap_or(0)))
            .fold(0u64, u64::saturating_add);
        match check(
            usable,
            promised,
            needed,
            self.context.low_file_store_warning_threshold,
        ) {
            StorageCheck::Enough => Ok(()),
            StorageCheck::Low => {
                self.emit(ResourceEvent::Warning {
                    text: format!(
                        "space is running low in {}: at or below the threshold of {} bytes",
                        self.directory.path(),
                        self.context.low_file_store_warning_threshold
                    ),
                });
                Ok(())
            }
            StorageCheck::Insufficient { available } => Err(self.no_space(needed, available)),
        }
    }

    fn delete_log(&mut self, request: DeleteLog) {
        let DeleteLog { path, log } = request;
        let length = log.region().len() as u64;
        drop(log);
        if self.directory.delete_log(&path).is_ok() {
            self.logs.remove(&path);
        } else {
            self.undeleted.push(path);
            self.emit(ResourceEvent::DeleteFailed);
        }
        self.emit(ResourceEvent::Unmapped { length });
    }

    fn retry_deletions(&mut self) -> usize {
        let paths = core::mem::take(&mut self.undeleted);
        let before = paths.len();
        for path in paths {
            if self.directory.delete_log(&path).is_ok() {
                self.logs.remove(&path);
            } else {
                self.undeleted.push(path);
            }
        }
        before - self.undeleted.len()
    }

    fn check_processes(&mut self) -> usize {
        let mut dead = 0;
        let mut index = 0;
        while index < self.watched.len() {
            if self.watched[index].1.is_dead() {
                let (client_id, _) = self.watched.swap_remove(index);
                self.emit(ResourceEvent::ClientDied { client_id });
                dead += 1;
            } else {
                index += 1;
            }
        }
        dead
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
        if !self.watched.is_empty() && self.next_watch.is_due(now.nanos) {
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
        if !self.watched.is_empty() {
            deadline = deadline.earlier(self.next_watch);
        }
        if !self.undeleted.is_empty() {
            deadline = deadline.earlier(self.next_retry);
        }
        if !self.backlog.is_empty() {
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
        self.retry_deletions();
    }
}
