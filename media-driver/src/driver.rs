//! Assembles a driver from its settings, starts it in the wanted threading mode, and stops it.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use fulmar::agent::process::ProcessId;
use fulmar::agent::{Agent, AgentError, AgentInvoker, AgentRunner, Composite, Doorbell, IdleMode};
use fulmar::cnc::{CncFile, CncSpec, Extension};
use fulmar::directory::{Directory, FsDirectory, Modes, StartError, StartOptions};
use fulmar::sync::{Arc, AtomicBool, Ordering};
use fulmar::time::{Clock, EpochMs, NanoTime, Now, SystemClock};

use crate::commands::Lane;
use crate::conductor::{Conductor, ConductorParts, OsSocketBuffers, TerminationHook};
use crate::config::{ConfigError, DriverContext, DriverSettings, ThreadingMode};
use crate::resources::ResourceAgent;

/// The resource agent is woken by its bell and by its own deadlines; the cap only bounds how long a missed wake-up
/// could last.
const RESOURCE_IDLE_CAP: Duration = Duration::from_millis(250);

/// Why a driver did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The directory can not be used: another driver is alive in it, or it holds something that is not ours.
    #[error(transparent)]
    Directory(#[from] StartError),
    /// The files of the driver can not be made.
    #[error("the driver's files can not be made in {directory}: {reason}")]
    Files {
        /// The driver directory.
        directory: String,
        /// What went wrong.
        reason: String,
    },
    /// The system has no thread to give.
    #[error("a thread of the driver can not be started: {0}")]
    Thread(#[from] io::Error),
}

/// Gets what goes wrong on the driver's threads.
pub type OnError = Arc<dyn Fn(&str) + Send + Sync>;

/// A running media driver. Dropping it stops it cleanly.
///
/// ```
/// let driver = fulmar_media_driver::MediaDriver::embedded()?;
/// assert!(driver.is_running() && std::path::Path::new(driver.dir()).join("cnc.dat").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MediaDriver {
    context: DriverContext,
    cnc: CncFile,
    directory: Arc<dyn Directory>,
    runners: Vec<AgentRunner>,
    ended: Arc<Ended>,
    remove_directory: bool,
    closed: bool,
}

/// Told when the driver was asked to stop, or can not go on.
#[derive(Default)]
struct Ended {
    reason: Mutex<Option<EndReason>>,
    changed: Condvar,
    /// Mirrors `reason` for readers that must not wait.
    is_set: AtomicBool,
}

/// Why a driver stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A client asked for it and the validator allowed it.
    TerminationRequested,
    /// Its shared files were destroyed by another process; a new driver may take the directory over at once.
    FilesDestroyed,
}

impl Ended {
    fn set(&self, reason: EndReason) {
        let mut guard = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        guard.get_or_insert(reason);
        self.is_set.store(true, Ordering::Release);
        drop(guard);
        self.changed.notify_all();
    }
}

/// The parts of a driver before anything runs.
struct Assembly {
    context: DriverContext,
    cnc: CncFile,
    directory: Arc<dyn Directory>,
    conductor: Conductor,
    resources: ResourceAgent,
    conductor_bell: Doorbell,
    resource_bell: Doorbell,
    ended: Arc<Ended>,
}

impl MediaDriver {
    /// Starts a driver. Errors on its threads go to standard error.
    ///
    /// # Errors
    /// See [`LaunchError`]; a live driver in the directory is left undisturbed.
    pub fn launch(context: DriverContext) -> Result<MediaDriver, LaunchError> {
        Self::launch_with(context, errors_to_standard_error())
    }

    /// Starts a driver and gives the errors of its threads to `on_error`.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn launch_with(context: DriverContext, on_error: OnError) -> Result<MediaDriver, LaunchError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let directory = file_directory(&context);
        let assembly = assemble(context, directory, clock.as_ref())?;
        let (context, cnc, directory, ended) = (
            assembly.context.clone(),
            assembly.cnc.clone(),
            Arc::clone(&assembly.directory),
            Arc::clone(&assembly.ended),
        );
        let runners = start(assembly, &clock, &on_error)?;
        // Everything can be read now: clients that wait for the version may come in.
        cnc.publish_version();
        let remove_directory = context.dir_delete_on_shutdown;
        Ok(MediaDriver {
            context,
            cnc,
            directory,
            runners,
            ended,
            remove_directory,
            closed: false,
        })
    }

    /// Starts a driver inside this process, in a private directory that is removed when the driver is dropped.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn embedded() -> Result<MediaDriver, LaunchError> {
        Self::embedded_with(DriverSettings::defaults())
    }

    /// As [`MediaDriver::embedded`], with settings; their directory is replaced.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn embedded_with(settings: DriverSettings) -> Result<MediaDriver, LaunchError> {
        Self::embedded_with_errors(settings, errors_to_standard_error())
    }

    /// As [`MediaDriver::embedded_with`]; the errors of the driver's threads go to `on_error`.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn embedded_with_errors(
        settings: DriverSettings,
        on_error: OnError,
    ) -> Result<MediaDriver, LaunchError> {
        let mut driver = Self::launch_with(private_context(settings)?, on_error)?;
        driver.remove_directory = true;
        Ok(driver)
    }

    /// The directory, as clients need it.
    #[must_use]
    pub fn dir(&self) -> &str {
        self.directory.path()
    }

    /// The settings it runs with.
    #[must_use]
    pub fn context(&self) -> &DriverContext {
        &self.context
    }

    /// Whether it serves: neither closed nor ended by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.closed && !self.ended.is_set.load(Ordering::Acquire)
    }

    /// Waits until the driver ends by itself, at most `timeout`; `None` if it still runs then.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<EndReason> {
        let guard = self.ended.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .ended
            .changed
            .wait_timeout_while(guard, timeout, |reason| reason.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }

    /// Stops the driver cleanly: agents first, then the mark that tells clients, then the directory if it is to go.
    pub fn close(&mut self) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        // The conductor is first in the list: what it leaves for the resource agent is still taken up there.
        for runner in &mut self.runners {
            runner.close();
        }
        finish(&self.cnc, self.directory.as_ref(), self.remove_directory);
    }
}

impl Drop for MediaDriver {
    fn drop(&mut self) {
        self.close();
    }
}

/// A driver without threads: the embedding program gives it its turns.
pub struct MediaDriverInvoker {
    invoker: AgentInvoker<Composite>,
    clock: Arc<dyn Clock>,
    cnc: CncFile,
    directory: Arc<dyn Directory>,
    remove_directory: bool,
    closed: bool,
}

impl MediaDriverInvoker {
    /// Prepares a driver in the directory of `context`, whatever its threading mode says.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn new(context: DriverContext) -> Result<Self, LaunchError> {
        let directory = file_directory(&context);
        Self::assemble_in(context, directory, Arc::new(SystemClock))
    }

    /// Prepares a driver in any directory and on any clock: in memory and in virtual time, for a simulation.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn assemble_in(
        context: DriverContext,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LaunchError> {
        let now = clock.now();
        let Assembly {
            context,
            cnc,
            directory,
            conductor,
            resources,
            ..
        } = assemble(context, directory, clock.as_ref())?;
        let mut invoker = AgentInvoker::new(Composite::new(vec![Box::new(conductor), Box::new(resources)]));
        invoker.start(now).map_err(|error| LaunchError::Files {
            directory: directory.path().to_owned(),
            reason: error.to_string(),
        })?;
        cnc.publish_version();
        let remove_directory = context.dir_delete_on_shutdown;
        Ok(Self {
            invoker,
            clock,
            cnc,
            directory,
            remove_directory,
            closed: false,
        })
    }

    /// In a private directory that is removed at the end.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn embedded() -> Result<Self, LaunchError> {
        let mut invoker = Self::new(private_context(DriverSettings::defaults())?)?;
        invoker.remove_directory = true;
        Ok(invoker)
    }

    /// The directory, as clients need it.
    #[must_use]
    pub fn dir(&self) -> &str {
        self.directory.path()
    }

    /// One duty cycle of all agents; returns the work done.
    ///
    /// # Errors
    /// What the agents report; [`AgentError::Terminate`] when the driver was asked to stop.
    pub fn do_work(&mut self) -> Result<usize, AgentError> {
        self.invoker.invoke(self.clock.now())
    }

    /// Stops the driver cleanly.
    pub fn close(&mut self) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        self.invoker.close();
        finish(&self.cnc, self.directory.as_ref(), self.remove_directory);
    }
}

impl Drop for MediaDriverInvoker {
    fn drop(&mut self) {
        self.close();
    }
}

fn file_directory(context: &DriverContext) -> Arc<dyn Directory> {
    let modes = Modes {
        directory: context.directory_mode,
        file: context.file_mode,
    };
    Arc::new(FsDirectory::with_modes(context.dir.clone(), modes))
}

/// A directory of its own for a driver inside this process, in shared memory where there is any.
fn private_path() -> String {
    let base = if std::path::Path::new("/dev/shm").is_dir() {
        "/dev/shm".into()
    } else {
        std::env::temp_dir()
    };
    let name = format!("fulmar-{}-{:016x}", std::process::id(), fastrand::u64(..));
    base.join(name).to_string_lossy().into_owned()
}

fn errors_to_standard_error() -> OnError {
    Arc::new(|text| eprintln!("fulmar driver: {text}"))
}

fn private_context(mut settings: DriverSettings) -> Result<DriverContext, LaunchError> {
    let dir = private_path();
    settings.set("aeron.dir", &dir)?;
    Ok(settings.conclude()?)
}

/// The clean end (spec 1.8): clients see the mark at their next look.
fn finish(cnc: &CncFile, directory: &dyn Directory, remove: bool) {
    cnc.set_driver_heartbeat(EpochMs(-1));
    if !remove {
        return;
    }
    // Another driver may have been made to take the directory over; what is there then is not ours to remove.
    let is_ours = directory
        .map_cnc()
        .ok()
        .and_then(|region| CncFile::open(&region).ok())
        .is_some_and(|found| found.start_timestamp() == cnc.start_timestamp() && found.pid() == cnc.pid());
    let path = directory.path();
    if !is_ours {
        eprintln!("fulmar driver: {path} holds the files of somebody else by now and is left as it is");
    } else if let Err(error) = directory.delete() {
        eprintln!("fulmar driver: {path} can not be removed: {error}");
    }
}

fn assemble(
    context: DriverContext,
    directory: Arc<dyn Directory>,
    clock: &dyn Clock,
) -> Result<Assembly, LaunchError> {
    if context.dir_warn_if_exists && directory.exists() {
        eprintln!("fulmar driver: the directory {} exists already", directory.path());
    }
    let options = StartOptions {
        delete_on_start: context.dir_delete_on_start,
        driver_timeout: Duration::from_nanos(context.driver_timeout_ns.unsigned_abs()),
    };
    // Held until the CnC file stands, so that a driver starting at the same time waits for it or refuses.
    let prepared = directory.prepare(&options, clock)?;
    for warning in &prepared.warnings {
        eprintln!("fulmar driver: {warning}");
    }
    let now = clock.now();
    let files = |reason: &dyn core::fmt::Display| LaunchError::Files {
        directory: context.dir.clone(),
        reason: reason.to_string(),
    };
    let spec = CncSpec {
        to_driver_length: context.conductor_buffer_length,
        to_clients_length: context.clients_buffer_length,
        counter_values_length: context.counters_buffer_length,
        error_log_length: context.error_buffer_length,
        page_size: context.file_page_size,
        client_liveness_timeout_ns: context.client_liveness_timeout_ns,
        start: now.epoch,
        pid: i64::from(std::process::id()),
    };
    directory.create_dirs().map_err(|error| files(&error))?;
    let region = directory
        .create_cnc(context.cnc_length as u64)
        .map_err(|error| files(&error))?;
    let cnc = CncFile::create(&region, &spec).map_err(|error| files(&error))?;
    let region = directory
        .create_extension(fulmar::cnc::extension::FILE_LENGTH as u64)
        .map_err(|error| files(&error))?;
    let extension =
        Extension::create(&region, ProcessId::current(), now.epoch).map_err(|error| files(&error))?;
    directory
        .create_loss_report(context.loss_report_buffer_length as u64)
        .map_err(|error| files(&error))?;

    let conductor_bell = extension.doorbell();
    let resource_bell = Doorbell::heap();
    let resource_commands = Lane::new(resource_bell.clone());
    let resource_events = Lane::new(conductor_bell.clone());
    let ended = Arc::new(Ended::default());
    let hook: TerminationHook = {
        let ended = Arc::clone(&ended);
        Box::new(move |reason| ended.set(reason))
    };
    let conductor = Conductor::new(
        ConductorParts {
            context: context.clone(),
            cnc: cnc.clone(),
            extension,
            resource_commands: resource_commands.clone(),
            resource_events: resource_events.clone(),
            seed: fastrand::u64(..),
            os_buffers: read_os_buffers(),
            on_end: hook,
        },
        now,
    )
    .map_err(|error| files(&error))?;
    let resources = ResourceAgent::new(
        Arc::clone(&directory),
        context.clone(),
        resource_commands,
        resource_events,
        now.nanos,
    );
    Ok(Assembly {
        context,
        cnc,
        directory,
        conductor,
        resources,
        conductor_bell,
        resource_bell,
        ended,
    })
}

/// The system's own defaults, once at start.
fn read_os_buffers() -> OsSocketBuffers {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/core/{name}"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    OsSocketBuffers {
        default_send_length: read("wmem_default"),
        default_receive_length: read("rmem_default"),
    }
}

/// Groups the agents as the threading mode says. The agents are the same objects in every mode. Sender and receiver
/// join these groups with the network part; until then `dedicated` and `shared network` are the same two threads.
fn start(
    assembly: Assembly,
    clock: &Arc<dyn Clock>,
    on_error: &OnError,
) -> Result<Vec<AgentRunner>, LaunchError> {
    let Assembly {
        context,
        conductor,
        resources,
        conductor_bell,
        resource_bell,
        ..
    } = assembly;
    let cap = Duration::from_nanos(context.idle_cap_ns as u64);
    let pinned = |agent: Box<dyn Agent + Send>, cpu: Option<u32>| Pinned {
        agent,
        cpu,
        on_error: Arc::clone(on_error),
    };
    let run = |agent: Box<dyn Agent + Send>, mode: IdleMode, bell: &Doorbell, name: &str| {
        AgentRunner::start(
            // The conductor's processor is that of the one thread of shared mode, too.
            pinned(agent, context.conductor_cpu_affinity),
            mode.strategy(bell.clone(), cap),
            Arc::clone(clock),
            name,
            Arc::clone(on_error),
        )
    };
    let runners = match context.threading_mode {
        ThreadingMode::Shared | ThreadingMode::Invoker => {
            let all = Composite::new(vec![Box::new(conductor), Box::new(resources)]);
            vec![run(
                Box::new(all),
                context.shared_idle,
                &conductor_bell,
                "fulmar-shared",
            )?]
        }
        ThreadingMode::Dedicated | ThreadingMode::SharedNetwork => {
            let mut runners = vec![run(
                Box::new(conductor),
                context.conductor_idle,
                &conductor_bell,
                "fulmar-conduct",
            )?];
            // It only ever waits for slow calls, so it always sleeps when it has none to make.
            let idle = IdleMode::Adaptive.strategy(resource_bell, RESOURCE_IDLE_CAP);
            runners.push(AgentRunner::start(
                pinned(Box::new(resources), context.driver_async_executor_cpu_affinity),
                idle,
                Arc::clone(clock),
                "fulmar-resource",
                Arc::clone(on_error),
            )?);
            runners
        }
    };
    Ok(runners)
}

/// An agent whose thread stays on one processor, if one was asked for. That it can not is reported, and it runs
/// wherever the system puts it.
struct Pinned {
    agent: Box<dyn Agent + Send>,
    cpu: Option<u32>,
    on_error: OnError,
}

impl Agent for Pinned {
    fn role_name(&self) -> &str {
        self.agent.role_name()
    }

    fn on_start(&mut self, now: Now) -> Result<(), AgentError> {
        if let Some(cpu) = self.cpu
            && let Err(error) = fulmar::agent::process::pin_current_thread(cpu)
        {
            let role = self.agent.role_name();
            (self.on_error)(&format!(
                "the {role} can not be pinned to processor {cpu}: {error}"
            ));
        }
        self.agent.on_start(now)
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.agent.do_work(now)
    }

    fn next_deadline(&self) -> NanoTime {
        self.agent.next_deadline()
    }

    fn on_close(&mut self) {
        self.agent.on_close();
    }
}
