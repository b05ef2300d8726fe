//! Is a driver alive in this directory? (spec 1.7)
//!
//! The protocol's own answer is the age of a heartbeat in wall-clock time. It is wrong for ten seconds after a
//! driver was killed and whenever the clock steps, so better evidence comes first where there is some: our drivers
//! say in the extension file which process they are, and a process that can be watched is dead or alive for certain.
//! Without that, a heartbeat that looks fresh although something speaks against it has to be seen moving.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::{Directory, DirectoryError, FsDirectory, Refusal};
use crate::agent::process::{ProcessWatch, WatchError, pid_is_alive};
use crate::agent::{ProcessId, idle};
use crate::cnc::cnc_file::{header_identity, published_version};
use crate::cnc::layout::major;
use crate::cnc::{CncError, CncFile, Extension};
use crate::memory::Region;
use crate::time::{Clock, SystemClock, duration_nanos};

/// What is known about the driver of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// There is no directory.
    Absent,
    /// No driver is alive there.
    Inactive(Inactive),
    /// A driver is alive there.
    Active {
        /// Its process id, as it wrote it.
        pid: i64,
        /// Age of its heartbeat; negative if the clock was set back since.
        heartbeat_age_ms: i64,
    },
    /// A process that lives, and certainly is the driver, has stopped its heartbeat: it is suspended, starved, or its
    /// driver has ended without a word.
    Stalled {
        /// Its process id.
        pid: i64,
        /// Age of its heartbeat.
        heartbeat_age_ms: i64,
    },
    /// It can not be told.
    Unknown(Unknown),
}

/// Why no driver is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inactive {
    /// No CnC file, or one without a complete header.
    #[error("there is no CnC file")]
    NoCnc,
    /// The last driver stopped in order.
    #[error("the last driver stopped in order")]
    CleanStop,
    /// The last driver's process is dead.
    #[error("the process {pid} of the last driver is dead")]
    ProcessDead {
        /// Its process id.
        pid: i64,
    },
    /// The heartbeat is older than the driver timeout.
    #[error("the last heartbeat is {age_ms} ms old")]
    HeartbeatOld {
        /// Its age.
        age_ms: i64,
    },
    /// The heartbeat lies in the future and does not move.
    #[error("the last heartbeat lies {ahead_ms} ms in the future and does not move")]
    HeartbeatStuck {
        /// How far it lies in the future.
        ahead_ms: i64,
    },
}

/// Why it can not be told whether a driver is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The CnC file was not published within the driver timeout: a driver is starting, or died while starting.
    #[error("its CnC file is incomplete (process {pid})")]
    NotReady {
        /// Process id in the header; 0 if it has not been written.
        pid: i64,
    },
    /// Another major version, whose layout we do not know.
    #[error("its CnC file has version {}.{}.{}", .0 >> 16, (.0 >> 8) & 0xff, .0 & 0xff)]
    VersionMismatch(i32),
    /// The header can not be.
    #[error("its CnC file is damaged: {0}")]
    Damaged(CncError),
    /// The CnC file can not be opened safely.
    #[error("its CnC file is refused: {0}")]
    Refused(Refusal),
}

/// How long a heartbeat that something speaks against is watched for a change; drivers beat once a second.
const WATCH_MAX: Duration = Duration::from_secs(3);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// A heartbeat further ahead than this means that the clock was set back.
const AHEAD_MAX_MS: i64 = 1_000;

/// Asks whether a driver is alive in the directory at `path`. May take up to `driver_timeout` when a CnC file is there
/// but not published.
///
/// # Errors
/// What the file system says.
pub fn check_active(path: &str, driver_timeout: Duration) -> Result<Activity, DirectoryError> {
    examine(
        &FsDirectory::new(path),
        driver_timeout,
        &SystemClock,
        &idle::sleep,
    )
}

/// As [`check_active`], for any directory and clock; `pause` waits.
pub(crate) fn examine<D: Directory + ?Sized>(
    directory: &D,
    driver_timeout: Duration,
    clock: &dyn Clock,
    pause: &dyn Fn(Duration),
) -> Result<Activity, DirectoryError> {
    let region = match directory.map_cnc() {
        Ok(region) => region,
        Err(DirectoryError::NotFound { .. }) if directory.exists() => {
            return Ok(Activity::Inactive(Inactive::NoCnc));
        }
        Err(DirectoryError::NotFound { .. }) => return Ok(Activity::Absent),
        Err(DirectoryError::Refused {
            refusal: Refusal::Empty,
            ..
        }) => return Ok(Activity::Inactive(Inactive::NoCnc)),
        Err(DirectoryError::Refused { refusal, .. }) => {
            return Ok(Activity::Unknown(Unknown::Refused(refusal)));
        }
        Err(error) => return Err(error),
    };
    let extension = directory.map_extension().ok();
    Ok(Examination {
        region: &region,
        extension: extension.as_ref(),
        driver_timeout,
        clock,
        pause,
    }
    .run())
}

/// What the processes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// The driver's process is dead for certain.
    Dead(i64),
    /// The driver's process lives for certain.
    Alive(i64),
    /// No process of ours has the id in the CnC file; it may be one of another namespace.
    NotHere(i64),
    /// Nothing speaks against the driver.
    Unknown(i64),
}

struct Examination<'a> {
    region: &'a Region,
    extension: Option<&'a Region>,
    driver_timeout: Duration,
    clock: &'a dyn Clock,
    pause: &'a dyn Fn(Duration),
}

impl Examination<'_> {
    fn run(&self) -> Activity {
        match self.wait_for_version() {
            Err(activity) => activity,
            Ok(version) if major(version) != 0 => match self.process() {
                Process::Dead(pid) => Activity::Inactive(Inactive::ProcessDead { pid }),
                _ => Activity::Unknown(Unknown::VersionMismatch(version)),
            },
            Ok(_) => match CncFile::open_sections(self.region) {
                Ok(cnc) => self.judge(&cnc),
                // There is no heartbeat to look at; the process is all the evidence.
                Err(error) => match self.process() {
                    Process::Dead(pid) | Process::NotHere(pid) => {
                        Activity::Inactive(Inactive::ProcessDead { pid })
                    }
                    _ => Activity::Unknown(Unknown::Damaged(error)),
                },
            },
        }
    }

    /// Waits until the version is there, and no longer than needed to know that it will not come.
    fn wait_for_version(&self) -> Result<i32, Activity> {
        let looks = looks_in(self.driver_timeout);
        let mut version = 0;
        for look in 0..=looks {
            version = match published_version(self.region) {
                Ok(version) => version,
                Err(_) => return Err(Activity::Inactive(Inactive::NoCnc)),
            };
            if version != 0 || look == looks {
                break;
            }
            match self.process() {
                Process::Dead(pid) => return Err(Activity::Inactive(Inactive::ProcessDead { pid })),
                // The namespace may be another one, in which a driver is starting this very moment.
                Process::NotHere(pid) if look >= looks_in(WATCH_MAX) => {
                    return Err(Activity::Inactive(Inactive::ProcessDead { pid }));
                }
                _ => (self.pause)(PAUSE),
            }
        }
        if version != 0 {
            return Ok(version);
        }
        let (pid, _) = header_identity(self.region);
        match self.process() {
            Process::NotHere(pid) => Err(Activity::Inactive(Inactive::ProcessDead { pid })),
            _ => Err(Activity::Unknown(Unknown::NotReady { pid })),
        }
    }

    fn judge(&self, cnc: &CncFile) -> Activity {
        let heartbeat = cnc.driver_heartbeat().0;
        if heartbeat == -1 {
            return Activity::Inactive(Inactive::CleanStop);
        }
        let age_ms = self.clock.now().epoch.0.saturating_sub(heartbeat);
        let is_fresh = age_ms <= duration_nanos(self.driver_timeout) / 1_000_000;
        let process = self.process();
        match process {
            Process::Dead(pid) => Activity::Inactive(Inactive::ProcessDead { pid }),
            // A driver that shared this process and ended without a word can not be waited for.
            Process::Alive(pid) if !is_fresh && pid != ProcessId::current().pid => Activity::Stalled {
                pid,
                heartbeat_age_ms: age_ms,
            },
            _ if !is_fresh => Activity::Inactive(Inactive::HeartbeatOld { age_ms }),
            Process::NotHere(pid) if !self.moves(cnc, heartbeat) => {
                Activity::Inactive(Inactive::ProcessDead { pid })
            }
            Process::Unknown(_) if age_ms < -AHEAD_MAX_MS && !self.moves(cnc, heartbeat) => {
                Activity::Inactive(Inactive::HeartbeatStuck {
                    ahead_ms: age_ms.saturating_neg(),
                })
            }
            Process::Alive(pid) | Process::NotHere(pid) | Process::Unknown(pid) => Activity::Active {
                pid,
                heartbeat_age_ms: age_ms,
            },
        }
    }

    fn moves(&self, cnc: &CncFile, heartbeat: i64) -> bool {
        for _ in 0..looks_in(self.driver_timeout.min(WATCH_MAX)) {
            match cnc.driver_heartbeat().0 {
                -1 => return false,
                now if now != heartbeat => return true,
                _ => (self.pause)(PAUSE),
            }
        }
        false
    }

    fn process(&self) -> Process {
        let (pid, start) = header_identity(self.region);
        let identity = self
            .extension
            .and_then(|region| Extension::open(region, start).ok())
            .map(|extension| extension.driver());
        if let Some(driver) = identity {
            match ProcessWatch::open(driver) {
                Ok(watch) if !watch.is_dead() => return Process::Alive(driver.pid),
                Ok(_) | Err(WatchError::Gone) => return Process::Dead(driver.pid),
                Err(WatchError::Unsupported) => {}
            }
        }
        if pid > 0 && pid_is_alive(pid) == Some(false) {
            Process::NotHere(pid)
        } else {
            Process::Unknown(pid)
        }
    }
}

fn looks_in(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
