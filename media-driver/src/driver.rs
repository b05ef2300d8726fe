//! Assembles a driver from its settings, starts it in the wanted threading mode, and stops it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use fulmar::agent::doorbell::DOORBELL_LENGTH;
use fulmar::agent::process::ProcessId;
use fulmar::agent::{
    Agent, AgentError, AgentInvoker, AgentRunner, Composite, Doorbell, IdleMode, IdleStrategy, OnExit,
    RunnerExit, Stopper,
};
use fulmar::cnc::extension::Sleepers;
use fulmar::cnc::{CncFile, CncSpec, Extension};
use fulmar::directory::{Directory, FsDirectory, Modes, StartError, StartOptions};
use fulmar::memory::Region;
use fulmar::report::LossReport;
use fulmar::sync::{Arc, AtomicBool, Ordering};
use fulmar::time::{Clock, EpochMs, NanoTime, Now, SystemClock};

use crate::commands::{Lane, Watches};
use crate::conductor::{CONDUCTOR_CAP_NS, Conductor, ConductorParts, OsSocketBuffers, TerminationHook};
use crate::config::{ConfigError, DriverContext, DriverSettings, IoBackend, ThreadingMode};
use crate::io::{
    CaptureNetwork, FaultError, FaultNetwork, FaultRules, FaultSettings, InterfaceList, Network,
    Registration, SystemInterfaces, SystemNetwork, SystemOptions, WaitCap, Waiting,
};
use crate::media::gossip_resolver::GossipError;
use crate::network_counters::NetworkCounters;
use crate::receiver::agent::{ReceiverAgent, ReceiverParts};
use crate::resources::ResourceAgent;
use crate::sender::agent::{SenderAgent, SenderParts};

/// The receiver is woken by its sockets, by the conductor and by its own deadlines; no client brings it work, so the cap
/// only bounds how long a missed wake-up could last.
const RECEIVER_IDLE_CAP: Duration = Duration::from_millis(100);

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
    /// The name resolution between drivers can not start.
    #[error(transparent)]
    Names(#[from] GossipError),
    /// The interceptors of the network are not set up right.
    #[error(transparent)]
    Interceptors(#[from] FaultError),
    /// The capture file can not be made.
    #[error("the capture file {path} can not be made: {source}")]
    Capture {
        /// As it was set.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no thread to give.
    #[error("a thread of the driver can not be started: {0}")]
    Thread(#[from] io::Error),
}

/// Gets what goes wrong on the driver's threads.
pub type OnError = Arc<dyn Fn(&str) + Send + Sync>;

/// What a driver takes from its machine beside directory, clock and network. Begin with
/// [`Surroundings::of_this_machine`] and change what is to be different: later versions may take more.
#[non_exhaustive]
pub struct Surroundings {
    /// Of everything that the conductor draws: session ids, initial term ids, delays of feedback.
    pub seed: u64,
    /// With which sources of unproven addresses are told apart; to be guessed by nobody on a real network.
    pub proof_secret: u64,
    /// What sockets have that are opened without a wish.
    pub os_buffers: OsSocketBuffers,
    /// The network interfaces.
    pub interfaces: Box<dyn InterfaceList>,
}

impl Surroundings {
    /// Those of the machine it runs on, with randomness that nobody can guess.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self {
            seed: fastrand::u64(..),
            proof_secret: RandomState::new().hash_one(SystemClock.nanos().0),
            os_buffers: read_os_buffers(),
            interfaces: Box::new(SystemInterfaces),
        }
    }
}

/// A running media driver. Dropping it stops it cleanly.
///
/// ```
/// use fulmar::{Client, ClientSettings};
/// use fulmar_media_driver::MediaDriver;
///
/// let driver = MediaDriver::embedded()?; // or run `fulmar driver` and leave this out
/// let client = Client::connect(ClientSettings { dir: driver.dir().to_owned(), ..ClientSettings::default() })?;
///
/// let mut subscription = client.add_subscription("aeron:ipc", 10)?;
/// let publication = client.add_publication("aeron:ipc", 10)?;
/// while publication.offer(b"hello").position().is_none() {}
/// while subscription.poll(|payload, header| println!("{:?} at {}", payload.to_vec(), header.position()), 10) == 0 {}
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
    supervised: Mutex<Supervised>,
}

/// The runners of a driver: none goes on without the others.
#[derive(Default)]
struct Supervised {
    stoppers: Vec<Stopper>,
    one_exited: bool,
}

/// Why a driver stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A client asked for it and the validator allowed it.
    TerminationRequested,
    /// Its shared files were destroyed by another process; a new driver may take the directory over at once.
    FilesDestroyed,
    /// One of its agents panicked or stopped by itself; what was wrong went to the error handler. The others were
    /// stopped, too.
    AgentFailed,
}

impl Ended {
    fn set(&self, reason: EndReason) {
        let mut guard = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        guard.get_or_insert(reason);
        self.is_set.store(true, Ordering::Release);
        drop(guard);
        self.changed.notify_all();
    }

    /// Adds a runner; it is stopped at once if another one has ended already.
    fn supervise(&self, runner: &AgentRunner) {
        let mut supervised = self.supervised.lock().unwrap_or_else(PoisonError::into_inner);
        let stopper = runner.stopper();
        if supervised.one_exited {
            stopper.request_close();
        }
        supervised.stoppers.push(stopper);
    }

    /// What a runner does at the end of its thread.
    fn on_exit(self: &Arc<Self>) -> OnExit {
        let ended = Arc::clone(self);
        Box::new(move |exit| {
            if exit == RunnerExit::Closed {
                return;
            }
            // A driver that was asked to end has its reason already.
            ended.set(EndReason::AgentFailed);
            let mut supervised = ended.supervised.lock().unwrap_or_else(PoisonError::into_inner);
            supervised.one_exited = true;
            for stopper in &supervised.stoppers {
                stopper.request_close();
            }
        })
    }
}

/// The parts of a driver before anything runs.
struct Assembly {
    context: DriverContext,
    cnc: CncFile,
    directory: Arc<dyn Directory>,
    conductor: Conductor,
    resources: ResourceAgent,
    sender: SenderAgent,
    receiver: ReceiverAgent,
    bells: Bells,
    waiting: NetworkWaiting,
    ended: Arc<Ended>,
}

/// What the agents sleep on.
struct Bells {
    conductor: Doorbell,
    resources: Doorbell,
    sender: Doorbell,
    receiver: Doorbell,
}

impl Bells {
    /// Agents on one thread sleep on one bell. `conductor` is the bell of a conductor that has its own thread.
    fn new(waiting: &NetworkWaiting, conductor: Doorbell) -> Self {
        match waiting {
            NetworkWaiting::None => Self {
                resources: conductor.clone(),
                sender: conductor.clone(),
                receiver: conductor.clone(),
                conductor,
            },
            NetworkWaiting::All(all) => Self {
                conductor: all.doorbell.clone(),
                resources: all.doorbell.clone(),
                sender: all.doorbell.clone(),
                receiver: all.doorbell.clone(),
            },
            NetworkWaiting::Both(both) => Self {
                conductor,
                resources: Doorbell::heap(),
                sender: both.doorbell.clone(),
                receiver: both.doorbell.clone(),
            },
            NetworkWaiting::Each { sender, receiver } => Self {
                conductor,
                resources: Doorbell::heap(),
                sender: sender.doorbell.clone(),
                receiver: receiver.doorbell.clone(),
            },
        }
    }
}

/// How the threads with sockets wait.
enum NetworkWaiting {
    /// Without threads there is no waiting.
    None,
    /// One thread for everything.
    All(Waiting),
    /// One thread for sender and receiver.
    Both(Waiting),
    /// A thread each.
    Each { sender: Waiting, receiver: Waiting },
}

impl NetworkWaiting {
    /// Prepares the waiting, and tells clients by the extension file how to end it.
    fn new(
        mode: ThreadingMode,
        context: &DriverContext,
        directory: &dyn Directory,
        extension: &Extension,
    ) -> io::Result<Self> {
        if mode == ThreadingMode::Invoker {
            return Ok(Self::None);
        }
        let cap = Duration::from_nanos(context.idle_cap_ns as u64);
        let pipe = directory.create_bell().unwrap_or_else(|error| {
            eprintln!("fulmar driver: clients can not wake the network threads: {error}");
            None
        });
        let has_pipe = pipe.is_some();
        let (waiting, idle) = match mode {
            ThreadingMode::Shared | ThreadingMode::Invoker => {
                let idle = context.shared_idle;
                let all = Waiting::new(idle, extension.doorbell_words(), pipe, cap)?;
                (Self::All(all), idle)
            }
            ThreadingMode::SharedNetwork => {
                let idle = context.sharednetwork_idle;
                let both = Waiting::new(idle, extension.sender_doorbell_words(), pipe, cap)?;
                (Self::Both(both), idle)
            }
            ThreadingMode::Dedicated => {
                let idle = context.sender_idle;
                let sender = Waiting::new(idle, extension.sender_doorbell_words(), pipe, cap)?;
                let words = Region::heap(DOORBELL_LENGTH).as_view();
                let cap = cap.max(RECEIVER_IDLE_CAP);
                let receiver = Waiting::new(context.receiver_idle, words, None, cap)?;
                (Self::Each { sender, receiver }, idle)
            }
        };
        extension.set_sleepers(match (&waiting, has_pipe && idle == IdleMode::Adaptive) {
            (_, false) => Sleepers::Futex,
            (Self::All(_), true) => Sleepers::Pipe,
            (_, true) => Sleepers::FutexAndPipe,
        });
        Ok(waiting)
    }

    /// Where the sockets of the sender register.
    fn sender(&self) -> Option<Registration> {
        match self {
            Self::None => None,
            Self::All(waiting) | Self::Both(waiting) => Some(waiting.registration.clone()),
            Self::Each { sender, .. } => Some(sender.registration.clone()),
        }
    }

    /// How long the sender sleeps, where the conductor does not sleep with it and clients can wake it.
    fn sender_cap(&self, extension: &Extension) -> Option<WaitCap> {
        match self {
            Self::Both(waiting) | Self::Each { sender: waiting, .. }
                if extension.sleepers() == Sleepers::FutexAndPipe =>
            {
                Some(waiting.cap.clone())
            }
            _ => None,
        }
    }

    /// Where the ends of processes ring the bell of a conductor with a thread of its own.
    fn process_alarm(&self, conductor: &Doorbell) -> Registration {
        match self {
            Self::Both(waiting) | Self::Each { sender: waiting, .. } => {
                waiting.registration.ring_for_processes(conductor.clone());
                waiting.registration.clone()
            }
            Self::None | Self::All(_) => Registration::none(),
        }
    }

    /// Where those of the receiver do.
    fn receiver(&self) -> Option<Registration> {
        match self {
            Self::Each { receiver, .. } => Some(receiver.registration.clone()),
            _ => self.sender(),
        }
    }
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
        Self::launch_wrapped(context, on_error, |agent| agent)
    }

    /// As [`MediaDriver::launch_with`]; every agent runs as what `wrap` makes of it, so that tests can break one.
    fn launch_wrapped(
        context: DriverContext,
        on_error: OnError,
        wrap: fn(Box<dyn Agent + Send>) -> Box<dyn Agent + Send>,
    ) -> Result<MediaDriver, LaunchError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let directory = file_directory(&context);
        // Somebody who launches a driver gives it no turns.
        let mode = match context.threading_mode {
            ThreadingMode::Invoker => ThreadingMode::Shared,
            mode => mode,
        };
        let network = system_network(&context)?;
        let surroundings = Surroundings::of_this_machine();
        let assembly = assemble(context, directory, clock.as_ref(), network, mode, surroundings)?;
        let (context, cnc, directory, ended) = (
            assembly.context.clone(),
            assembly.cnc.clone(),
            Arc::clone(&assembly.directory),
            Arc::clone(&assembly.ended),
        );
        let runners = start(assembly, &clock, &on_error, wrap)?;
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
        // In the order of the list, see `one_thread`.
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
        let network = system_network(&context)?;
        Self::assemble_on(context, directory, clock, network)
    }

    /// As [`MediaDriverInvoker::assemble_in`], on any network.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn assemble_on(
        context: DriverContext,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
    ) -> Result<Self, LaunchError> {
        Self::assemble_within(
            context,
            directory,
            clock,
            network,
            Surroundings::of_this_machine(),
        )
    }

    /// As [`MediaDriverInvoker::assemble_on`], in surroundings that say what would otherwise come from this machine:
    /// two drivers of equal inputs then do the same.
    ///
    /// # Errors
    /// As [`MediaDriver::launch`].
    pub fn assemble_within(
        context: DriverContext,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
        surroundings: Surroundings,
    ) -> Result<Self, LaunchError> {
        let now = clock.now();
        let Assembly {
            context,
            cnc,
            directory,
            conductor,
            resources,
            sender,
            receiver,
            ..
        } = assemble(
            context,
            directory,
            clock.as_ref(),
            network,
            ThreadingMode::Invoker,
            surroundings,
        )?;
        let mut invoker = AgentInvoker::new(one_thread(
            Box::new(resources),
            Box::new(conductor),
            Box::new(sender),
            Box::new(receiver),
        ));
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

    /// One duty cycle of a single agent, of the [`Self::agent_count`] there are; returns the work done. A simulation
    /// gives the agents turns in any order, as threads of their own would have them.
    ///
    /// # Errors
    /// As [`Self::do_work`].
    ///
    /// # Panics
    /// If there is no such agent.
    pub fn do_work_of(&mut self, agent: usize) -> Result<usize, AgentError> {
        let now = self.clock.now();
        self.invoker.invoke_with(|agents| agents.turn(agent, now))
    }

    /// The agents of [`Self::do_work_of`].
    #[must_use]
    pub fn agent_count(&self) -> usize {
        self.invoker.agent().len()
    }

    /// When an agent has something to do if nobody brings it work before: commands, offers, positions that move and
    /// datagrams do.
    ///
    /// # Panics
    /// If there is no such agent.
    #[must_use]
    pub fn next_deadline_of(&self, agent: usize) -> NanoTime {
        self.invoker.agent().deadline_of(agent)
    }

    /// Ends the driver as a kill ends its process: sockets are closed, and what is in the directory stays as it is,
    /// without a word to clients or peers. For simulations; whoever ends a driver in order calls
    /// [`MediaDriverInvoker::close`].
    #[doc(hidden)]
    pub fn abandon(mut self) {
        self.closed = true;
        self.invoker.abandon();
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

/// The network of this machine, with what the settings put around it. The capture is the inner one: it shows what
/// really went over the wire.
fn system_network(context: &DriverContext) -> Result<Arc<dyn Network>, LaunchError> {
    let rules = FaultRules::parse(FaultSettings {
        incoming: &context.udp_channel_incoming_interceptors,
        outgoing: &context.udp_channel_outgoing_interceptors,
        loss: &context.udp_channel_transport_bindings_loss_args,
        fixed_loss: &context.udp_channel_transport_bindings_fixed_loss_args,
        multi_gap_loss: &context.udp_channel_transport_bindings_multi_gap_loss_args,
    })?;
    let mut network: Arc<dyn Network> = Arc::new(SystemNetwork::new(SystemOptions {
        busy_poll_us: context.socket_busy_poll.unsigned_abs(),
        uring: context.io == IoBackend::Uring,
    }));
    if !context.capture.is_empty() {
        let path = &context.capture;
        let capture = CaptureNetwork::create(network, path).map_err(|source| LaunchError::Capture {
            path: path.clone(),
            source,
        })?;
        network = Arc::new(capture);
    }
    if !rules.is_empty() {
        network = Arc::new(FaultNetwork::new(network, rules));
    }
    Ok(network)
}

fn assemble(
    context: DriverContext,
    directory: Arc<dyn Directory>,
    clock: &dyn Clock,
    network: Arc<dyn Network>,
    mode: ThreadingMode,
    surroundings: Surroundings,
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
    let loss_report = directory
        .create_loss_report(context.loss_report_buffer_length as u64)
        .map_err(|error| files(&error))?;

    let waiting =
        NetworkWaiting::new(mode, &context, directory.as_ref(), &extension).map_err(|error| files(&error))?;
    let bells = Bells::new(&waiting, extension.doorbell());
    let resource_commands = Lane::new(bells.resources.clone());
    let resource_events = Lane::new(bells.conductor.clone());
    let sender_commands = Lane::new(bells.sender.clone());
    let receiver_commands = Lane::new(bells.receiver.clone());
    let network_events = Lane::new(bells.conductor.clone());
    let ended = Arc::new(Ended::default());
    let watched = Watches::default();
    let hook: TerminationHook = {
        let ended = Arc::clone(&ended);
        Box::new(move |reason| ended.set(reason))
    };
    let sender_cap = waiting.sender_cap(&extension);
    let process_alarm = waiting.process_alarm(&bells.conductor);
    let conductor = Conductor::new(
        ConductorParts {
            context: context.clone(),
            cnc: cnc.clone(),
            extension,
            resource_commands: resource_commands.clone(),
            resource_events: resource_events.clone(),
            watched: Arc::clone(&watched),
            network: Arc::clone(&network),
            sender_commands: sender_commands.clone(),
            receiver_commands: receiver_commands.clone(),
            network_events: network_events.clone(),
            loss_report: LossReport::new(loss_report.as_view()),
            seed: surroundings.seed,
            proof_secret: surroundings.proof_secret,
            os_buffers: surroundings.os_buffers,
            sender_cap,
            hears_processes: process_alarm.is_some(),
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
        watched,
        now.nanos,
    )
    .with_process_alarm(process_alarm)
    .with_interfaces(surroundings.interfaces)
    .with_names(network.as_ref(), now.nanos)?;
    let counters = NetworkCounters::new(&cnc.counter_values());
    let sender = SenderAgent::new(
        SenderParts {
            commands: sender_commands,
            events: network_events.clone(),
            system: Arc::new(counters.clone()),
            registration: waiting.sender(),
            status_poll_ratio: context.send_to_status_poll_ratio as usize,
            status_poll_interval_ns: context.rcv_status_message_timeout_ns / 2,
            receive_capacity: context.receiver_io_vector_capacity as usize,
            resolution_interval_ns: context.driver_reresolution_check_interval_ns,
            cycle_threshold_ns: context.sender_cycle_threshold_ns,
            longest_idle_ns: context.idle_cap_ns,
        },
        now.nanos,
    );
    let receiver = ReceiverAgent::new(
        ReceiverParts {
            commands: receiver_commands,
            events: network_events,
            counters,
            context: context.clone(),
            registration: waiting.receiver(),
        },
        now.nanos,
    );
    Ok(Assembly {
        context,
        cnc,
        directory,
        conductor,
        resources,
        sender,
        receiver,
        bells,
        waiting,
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

/// The agents on one thread. They are closed in reverse: sender and receiver first, so that nobody writes to what the
/// conductor frees, the resource agent last, so that it still removes the files that the conductor hands over.
///
/// The turns of a cycle are another order: what was offered before the cycle is sent first, and what the receiver takes
/// in last is read right after it, so that the conductor's turn is in nobody's way when the reader answers.
fn one_thread(
    resources: Box<dyn Agent + Send>,
    conductor: Box<dyn Agent + Send>,
    sender: Box<dyn Agent + Send>,
    receiver: Box<dyn Agent + Send>,
) -> Composite {
    const TURNS: [usize; 4] = [2, 0, 1, 3];
    Composite::new(vec![resources, conductor, sender, receiver]).with_turns(&TURNS)
}

/// Groups the agents as the threading mode says. The agents are the same objects in every mode. The runners stand in
/// the order in which they are closed, see [`one_thread`].
fn start(
    assembly: Assembly,
    clock: &Arc<dyn Clock>,
    on_error: &OnError,
    wrap: fn(Box<dyn Agent + Send>) -> Box<dyn Agent + Send>,
) -> Result<Vec<AgentRunner>, LaunchError> {
    let Assembly {
        context,
        conductor,
        resources,
        sender,
        receiver,
        bells,
        waiting,
        ended,
        ..
    } = assembly;
    let (conductor, resources) = (wrap(Box::new(conductor)), wrap(Box::new(resources)));
    let (sender, receiver) = (wrap(Box::new(sender)), wrap(Box::new(receiver)));
    let cap = Duration::from_nanos(context.idle_cap_ns.unsigned_abs());
    let run = |agent: Box<dyn Agent + Send>, cpu: Option<u32>, idle: Box<dyn IdleStrategy>, name: &str| {
        let pinned = Pinned {
            agent,
            cpu,
            on_error: Arc::clone(on_error),
        };
        AgentRunner::start_supervised(
            pinned,
            idle,
            Arc::clone(clock),
            name,
            Arc::clone(on_error),
            ended.on_exit(),
        )
        .inspect(|runner| ended.supervise(runner))
    };
    // The conductor's processor is that of the one thread of shared mode, too.
    let conductor_cpu = context.conductor_cpu_affinity;
    let mut runners = Vec::new();
    match waiting {
        NetworkWaiting::None => return Ok(runners),
        NetworkWaiting::All(all) => {
            let agents = Box::new(one_thread(resources, conductor, sender, receiver));
            return Ok(vec![run(agents, conductor_cpu, all.idle, "fulmar-shared")?]);
        }
        NetworkWaiting::Both(both) => {
            let agents = Box::new(Composite::new(vec![sender, receiver]));
            // The sender's processor is that of both.
            runners.push(run(
                agents,
                context.sender_cpu_affinity,
                both.idle,
                "fulmar-network",
            )?);
        }
        NetworkWaiting::Each {
            sender: sends,
            receiver: receives,
        } => {
            runners.push(run(
                sender,
                context.sender_cpu_affinity,
                sends.idle,
                "fulmar-sender",
            )?);
            runners.push(run(
                receiver,
                context.receiver_cpu_affinity,
                receives.idle,
                "fulmar-receiver",
            )?);
        }
    }
    // The conductor itself asks for less where somebody can not wake it.
    let longest = cap.max(Duration::from_nanos(CONDUCTOR_CAP_NS.unsigned_abs()));
    let idle = context.conductor_idle.strategy(bells.conductor, longest);
    runners.push(run(conductor, conductor_cpu, idle, "fulmar-conduct")?);
    // It only ever waits for slow calls, so it always sleeps when it has none to make.
    let idle = IdleMode::Adaptive.strategy(bells.resources, RESOURCE_IDLE_CAP);
    let cpu = context.driver_async_executor_cpu_affinity;
    runners.push(run(resources, cpu, idle, "fulmar-resource")?);
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

    fn last_look(&mut self, now: Now) -> usize {
        self.agent.last_look(now)
    }

    fn next_deadline(&self) -> NanoTime {
        self.agent.next_deadline()
    }

    fn on_close(&mut self) {
        self.agent.on_close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar::{Client, ClientSettings};

    /// What the driver does when one of its agents panics at its first turn after its start.
    struct Broken(Box<dyn Agent + Send>);

    impl Agent for Broken {
        fn role_name(&self) -> &str {
            self.0.role_name()
        }
        fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
            panic!("on purpose")
        }
        fn next_deadline(&self) -> NanoTime {
            self.0.next_deadline()
        }
        fn on_close(&mut self) {
            self.0.on_close();
        }
    }

    fn broken_conductor(agent: Box<dyn Agent + Send>) -> Box<dyn Agent + Send> {
        broken(agent, "conductor")
    }

    fn broken_resources(agent: Box<dyn Agent + Send>) -> Box<dyn Agent + Send> {
        broken(agent, "resources")
    }

    fn broken(agent: Box<dyn Agent + Send>, role: &str) -> Box<dyn Agent + Send> {
        if agent.role_name() == role {
            Box::new(Broken(agent))
        } else {
            agent
        }
    }

    fn context(mode: &str) -> (tempfile::TempDir, DriverContext) {
        let home = tempfile::tempdir().unwrap();
        let mut settings = DriverSettings::defaults();
        let dir = home.path().join("driver");
        settings.set("aeron.dir", dir.to_str().unwrap()).unwrap();
        settings.set("aeron.threading.mode", mode).unwrap();
        (home, settings.conclude().unwrap())
    }

    #[test]
    fn a_panic_of_an_agent_ends_the_driver_and_is_seen_by_all() {
        for mode in ["DEDICATED", "SHARED"] {
            for wrap in [broken_conductor, broken_resources] {
                let (_home, context) = context(mode);
                let errors = Arc::new(Mutex::new(Vec::new()));
                let on_error: OnError = {
                    let errors = Arc::clone(&errors);
                    Arc::new(move |text| errors.lock().unwrap().push(text.to_owned()))
                };
                let mut driver = MediaDriver::launch_wrapped(context, on_error, wrap).unwrap();
                let reason = driver.wait(Duration::from_secs(60));
                assert_eq!(reason, Some(EndReason::AgentFailed), "{mode}");
                assert!(!driver.is_running());
                for runner in &mut driver.runners {
                    // Without being closed: every thread has been told to end.
                    runner.join();
                }
                let region = driver.directory.map_cnc().unwrap();
                driver.close();
                let heartbeat = CncFile::open(&region).unwrap().driver_heartbeat();
                assert_eq!(heartbeat, EpochMs(-1));
                let errors = errors.lock().unwrap();
                assert!(
                    errors.len() == 1 && errors[0].ends_with("panicked: on purpose"),
                    "{errors:?}"
                );
            }
        }
    }

    #[test]
    fn a_clean_stop_leaves_no_log_in_any_mode() {
        for mode in ["DEDICATED", "SHARED_NETWORK", "SHARED", "INVOKER"] {
            let (_home, context) = context(mode);
            let mut driver = MediaDriver::launch(context).unwrap();
            let client = Client::connect(ClientSettings {
                dir: driver.dir().to_owned(),
                ..ClientSettings::default()
            })
            .unwrap();
            let publications: Vec<_> = (0..20)
                .map(|stream| {
                    let channel = "aeron:ipc?term-length=64k";
                    client.add_publication(channel, stream).unwrap()
                })
                .collect();
            assert_eq!(driver.directory.logs().unwrap().len(), publications.len());
            driver.close();
            assert_eq!(driver.directory.logs().unwrap(), [""; 0], "{mode}");
        }
    }
}
