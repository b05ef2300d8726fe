//! The client's end of one run of one driver: how it is found, what is written to it, what is read from it.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use super::error::{ClientError, RegistrationError};
use super::liveness::{Liveness, Process};
use super::settings::ClientSettings;
use crate::agent::process::{ProcessId, ProcessWatch, WatchError, process_that_maps};
use crate::agent::{Alarm, Doorbell};
use crate::cnc::extension::{ClientSlot, Extension};
use crate::cnc::{CncError, CncFile, layout};
use crate::control::{Command, CommandHeader};
use crate::counters::{Counter, CounterState, CountersReader};
use crate::directory::Directory;
use crate::id::{ClientId, CorrelationId, CounterId};
use crate::memory::View;
use crate::ring::{BroadcastReceiver, Lapped, ManyToOneRing, RingError};
use crate::time::{EpochMs, Now, duration_nanos};

/// Tries of a command against a full ring before the call fails.
const RING_FULL_TRIES: usize = 200;

/// Least signs of life within the driver's client liveness timeout.
const KEEPALIVES_PER_TIMEOUT: u64 = 4;

/// Counter type of client heartbeats (shared-memory spec 5.6).
const HEARTBEAT_TYPE_ID: i32 = 11;

/// What the driver writes to the heartbeat when it ends in order.
const HEARTBEAT_SHUT_DOWN: i64 = -1;

/// Tells one run of a driver from another in the same directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: EpochMs,
    pid: i64,
}

/// Looks for a live driver, one attempt at a time.
#[derive(Debug)]
pub(super) struct Finder {
    /// The run and heartbeat of the last attempt, and whether that run was lost before and must show life anew.
    observed: Option<(Run, i64)>,
    lost: Option<Run>,
}

/// What an attempt came to.
pub(super) enum Attempt {
    Found(Box<Link>),
    /// Nothing usable there at the moment, for this reason.
    NotYet(String),
    /// Waiting does not help.
    Hopeless(ClientError),
}

impl Finder {
    pub(super) fn new() -> Self {
        Finder {
            observed: None,
            lost: None,
        }
    }

    /// Looks for the successor of a lost driver.
    pub(super) fn after(link: &Link) -> Self {
        Finder {
            observed: Some((link.run, link.ring.consumer_heartbeat().0)),
            lost: Some(link.run),
        }
    }

    /// Whether this is the run that was lost.
    pub(super) fn has_lost(&self, link: &Link) -> bool {
        self.lost == Some(link.run)
    }

    /// One attempt of the procedure of shared-memory spec 2.4.
    pub(super) fn attempt(
        &mut self,
        directory: &dyn Directory,
        settings: &ClientSettings,
        now: Now,
    ) -> Attempt {
        let region = match directory.map_cnc() {
            Ok(region) => region,
            Err(error) => return Attempt::NotYet(format!("no CnC file: {error}")),
        };
        let cnc = match CncFile::open(&region) {
            Ok(cnc) => cnc,
            Err(error @ CncError::VersionMismatch { .. }) => {
                return Attempt::Hopeless(ClientError::CncUnusable {
                    dir: settings.dir.clone(),
                    reason: error.to_string(),
                });
            }
            // A file that is being made looks short, or not ready, or has lengths that are still zero.
            Err(error) => return Attempt::NotYet(error.to_string()),
        };
        let ring = cnc.to_driver_ring().clone();
        let run = run_of(&cnc);
        let extension = directory
            .map_extension()
            .ok()
            .and_then(|region| Extension::open(&region, cnc.start_timestamp()).ok());
        let watch = if directory.is_of_this_process() {
            extension.as_ref().map(|_| Watch::This)
        } else {
            match extension
                .as_ref()
                .map(|extension| ProcessWatch::open(extension.driver()))
            {
                None | Some(Err(WatchError::Unsupported)) => foreign_watch(directory, run),
                Some(Ok(watch)) if watch.is_dead() => return dead(run),
                Some(Ok(watch)) => Some(Watch::Own(watch)),
                Some(Err(WatchError::Gone)) => return dead(run),
            }
        };
        let heartbeat = ring.consumer_heartbeat().0;
        let lives = watch.as_ref().is_some_and(Watch::is_own);
        if let Err(reason) = self.judge_heartbeat(run, heartbeat, lives, settings, now) {
            return Attempt::NotYet(reason);
        }
        let extension = extension.map(|extension| {
            let pipe = directory.open_bell().map(|pipe| Arc::new(pipe) as Arc<dyn Alarm>);
            (extension, pipe)
        });
        match Link::open(cnc, ring, run, extension, watch, settings, now) {
            Ok(link) => Attempt::Found(Box::new(link)),
            Err(reason) => Attempt::NotYet(reason),
        }
    }

    /// A fresh heartbeat is believed, and so is one that changes, however old it says it is: the wall clocks of two
    /// looks may differ by anything.
    fn judge_heartbeat(
        &mut self,
        run: Run,
        heartbeat: i64,
        process_lives: bool,
        settings: &ClientSettings,
        now: Now,
    ) -> Result<(), String> {
        let before = self.observed.replace((run, heartbeat));
        if heartbeat == HEARTBEAT_SHUT_DOWN {
            return Err("the driver was shut down".to_owned());
        }
        if heartbeat == 0 {
            return Err("the driver has not started yet".to_owned());
        }
        if process_lives {
            return Ok(());
        }
        let changed = before.is_some_and(|(run_before, value)| run_before == run && value != heartbeat);
        let age_ms = now.epoch.0.wrapping_sub(heartbeat);
        let timeout_ms = duration_nanos(settings.driver_timeout) / 1_000_000;
        let fresh = age_ms.unsigned_abs() <= timeout_ms.unsigned_abs();
        if changed || (fresh && self.lost != Some(run)) {
            Ok(())
        } else {
            Err(format!("the driver (pid {}) shows no sign of life", run.pid))
        }
    }
}

fn run_of(cnc: &CncFile) -> Run {
    Run {
        start: cnc.start_timestamp(),
        pid: cnc.pid(),
    }
}

/// The process of a driver, for its death.
enum Watch {
    /// A driver of ours in this process, which lives as long as this can look, though the driver may not.
    This,
    /// A driver of ours, which says which process it is.
    Own(ProcessWatch),
    /// A foreign one. Its process is a guess, good enough to learn of its death sooner than by its silence, not good
    /// enough to trust it although it is silent.
    Foreign(ProcessWatch),
}

impl Watch {
    fn is_own(&self) -> bool {
        !matches!(self, Watch::Foreign(_))
    }

    fn look(&self) -> Process {
        match self {
            Watch::This => Process::Alive,
            Watch::Own(process) | Watch::Foreign(process) if process.is_dead() => Process::Dead,
            Watch::Own(_) => Process::Alive,
            Watch::Foreign(_) => Process::Unknown,
        }
    }
}

fn foreign_watch(directory: &dyn Directory, run: Run) -> Option<Watch> {
    let file = format!("{}/{}", directory.path(), layout::FILE_NAME);
    let process = process_that_maps(run.pid, Path::new(&file))?;
    ProcessWatch::open(process).ok().map(Watch::Foreign)
}

fn dead(run: Run) -> Attempt {
    Attempt::NotYet(format!("the driver's process {} is gone", run.pid))
}

/// An attachment to one run of a driver.
pub(super) struct Link {
    cnc: CncFile,
    ring: ManyToOneRing<View>,
    receiver: BroadcastReceiver<View>,
    counters: CountersReader<View>,
    extension: Option<Extension>,
    doorbell: Option<Doorbell>,
    /// Wakes threads of the driver that wait for sockets.
    pipe: Option<Arc<dyn Alarm>>,
    /// Held for its drop, which gives the slot back.
    _client_slot: Option<ClientSlot>,
    watch: Option<Watch>,
    client_id: ClientId,
    liveness: Liveness,
    heartbeat: Option<Counter>,
    /// What was last written to the heartbeat, epoch milliseconds.
    last_beat: i64,
    run: Run,
    encoded: Vec<u8>,
}

/// The client's own heartbeat counter was taken away: the driver gave the client up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeartbeatTaken;

impl Link {
    fn open(
        cnc: CncFile,
        ring: ManyToOneRing<View>,
        run: Run,
        extension: Option<(Extension, Option<Arc<dyn Alarm>>)>,
        watch: Option<Watch>,
        settings: &ClientSettings,
        now: Now,
    ) -> Result<Link, String> {
        let (extension, pipe) = extension.unzip();
        let pipe = pipe.flatten();
        let receiver = BroadcastReceiver::new(cnc.to_clients()).map_err(|e| e.to_string())?;
        let counters = cnc.counters().clone();
        let client_id = ClientId(ring.next_correlation_id());
        let client_slot = extension
            .as_ref()
            .and_then(|extension| extension.claim_client_slot(client_id, ProcessId::current()));
        let liveness = Liveness::new(ring.consumer_heartbeat().0, settings.driver_timeout, now.nanos);
        Ok(Link {
            cnc,
            ring,
            receiver,
            counters,
            doorbell: extension
                .as_ref()
                .map(|extension| extension.driver_doorbell(pipe.as_ref())),
            extension,
            pipe,
            _client_slot: client_slot,
            watch,
            client_id,
            liveness,
            heartbeat: None,
            last_beat: 0,
            run,
            encoded: Vec::with_capacity(512),
        })
    }

    pub(super) fn client_id(&self) -> ClientId {
        self.client_id
    }

    pub(super) fn counters(&self) -> &CountersReader<View> {
        &self.counters
    }

    pub(super) fn extension(&self) -> Option<&Extension> {
        self.extension.as_ref()
    }

    /// The pipe that wakes threads of the driver that wait for sockets, if there is one.
    pub(super) fn pipe(&self) -> Option<Arc<dyn Alarm>> {
        self.pipe.clone()
    }

    /// The bell that wakes the driver, if it has one.
    pub(super) fn doorbell(&self) -> Option<Doorbell> {
        self.doorbell.clone()
    }

    /// Whether the CnC file was truncated under us.
    pub(super) fn is_damaged(&self) -> bool {
        self.cnc.region().is_damaged()
    }

    /// Whether the driver moves and the death of its process would be known at once, so that no other process can have
    /// taken its place.
    pub(super) fn is_in_place(&self) -> bool {
        !self.is_stalled() && self.watch.as_ref().is_some_and(Watch::is_own)
    }

    /// Whether the directory holds the CnC file of another run by now.
    pub(super) fn is_replaced(&self, directory: &dyn Directory) -> bool {
        directory
            .map_cnc()
            .ok()
            .and_then(|region| CncFile::open(&region).ok())
            .is_some_and(|cnc| run_of(&cnc) != self.run)
    }

    /// How often to show the driver that this client lives: often enough for the driver's patience.
    pub(super) fn keepalive_interval(&self, settings: &ClientSettings) -> Duration {
        match u64::try_from(self.cnc.client_liveness_timeout_ns()) {
            Ok(patience @ 1..) => settings
                .keepalive_interval
                .min(Duration::from_nanos(patience / KEEPALIVES_PER_TIMEOUT)),
            _ => settings.keepalive_interval,
        }
    }

    /// A fresh id from the counter that all clients share.
    pub(super) fn next_correlation_id(&self) -> CorrelationId {
        CorrelationId(self.ring.next_correlation_id())
    }

    /// Writes a command and wakes a driver that listens.
    pub(super) fn send(
        &mut self,
        correlation_id: CorrelationId,
        command: &Command<'_>,
    ) -> Result<(), RegistrationError> {
        self.send_as(self.client_id, correlation_id, command)
    }

    /// Writes a command that carries another id than this client's.
    pub(super) fn send_as(
        &mut self,
        client_id: ClientId,
        correlation_id: CorrelationId,
        command: &Command<'_>,
    ) -> Result<(), RegistrationError> {
        let header = CommandHeader {
            client_id,
            correlation_id,
        };
        let type_id = command.encode(header, &mut self.encoded);
        for _ in 0..RING_FULL_TRIES {
            match self.ring.write(type_id, &self.encoded) {
                Ok(()) => {
                    if let Some(doorbell) = &self.doorbell {
                        doorbell.ring();
                    }
                    return Ok(());
                }
                // Revoked: this thread stood still within the write. Corrupt: the driver repairs what was scribbled over.
                Err(RingError::Full | RingError::Revoked | RingError::Corrupt) => std::thread::yield_now(),
                Err(RingError::TooLong { length, max_length }) => {
                    return Err(RegistrationError::Argument {
                        name: "command",
                        reason: format!("{length} bytes; the ring takes at most {max_length}"),
                    });
                }
                Err(error) => return Err(RegistrationError::Unusable(error.to_string())),
            }
        }
        Err(RegistrationError::RingFull)
    }

    /// Takes the next message of the driver into `scratch`.
    pub(super) fn receive(&mut self, scratch: &mut Vec<u8>) -> Result<Option<i32>, Lapped> {
        self.receiver.receive(scratch)
    }

    /// Judges whether the driver is there.
    pub(super) fn look(&mut self, now: Now) -> super::liveness::Verdict {
        let process = self.watch.as_ref().map_or(Process::Unknown, Watch::look);
        let heartbeat = self.ring.consumer_heartbeat().0;
        self.liveness.look(heartbeat, process, now.nanos)
    }

    /// Whether the driver stands still.
    pub(super) fn is_stalled(&self) -> bool {
        self.liveness.is_stalled()
    }

    /// Shows the driver that this client lives, if the driver knows it (shared-memory spec 12.2).
    pub(super) fn keep_alive(&mut self, settings: &ClientSettings, now: Now) -> Result<(), HeartbeatTaken> {
        self.check_heartbeat()?;
        if self.heartbeat.is_none() {
            let Some(id) = self.counters.find_by(HEARTBEAT_TYPE_ID, self.client_id.get()) else {
                return Ok(());
            };
            self.adopt_heartbeat(id, settings);
        }
        if let Some(heartbeat) = &self.heartbeat {
            // A wall clock that stands still must not look like a client that does.
            let frozen = self.last_beat == now.epoch.0;
            self.last_beat = now.epoch.0 + i64::from(frozen);
            heartbeat.set_release(self.last_beat);
        }
        Ok(())
    }

    /// Takes note of the heartbeat counter as soon as the driver announces it.
    pub(super) fn adopt_heartbeat(&mut self, id: CounterId, settings: &ClientSettings) {
        if self.heartbeat.is_some() || !self.is_own_heartbeat(id) {
            return;
        }
        let name = settings.label_name();
        let version = env!("CARGO_PKG_VERSION");
        let _ = self
            .counters
            .append_label(id, format!(" name={name} version={version} commit=fulmar"));
        self.heartbeat = self.counters.counter(id);
    }

    /// Whether the heartbeat counter, once there, is still this client's.
    pub(super) fn check_heartbeat(&self) -> Result<(), HeartbeatTaken> {
        match &self.heartbeat {
            Some(heartbeat) if !self.is_own_heartbeat(heartbeat.id()) => Err(HeartbeatTaken),
            _ => Ok(()),
        }
    }

    /// Whether the driver's own first counter is there. It goes only when the driver shuts down.
    pub(super) fn driver_has_counters(&self) -> bool {
        self.counters.state(CounterId(0)) == Some(CounterState::Allocated)
    }

    fn is_own_heartbeat(&self, id: CounterId) -> bool {
        self.counters.is_live(id, self.client_id.get())
            && self.counters.type_id(id) == Some(HEARTBEAT_TYPE_ID)
    }
}
