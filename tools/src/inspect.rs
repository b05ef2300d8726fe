//! Looking at a driver from outside, through its CnC file, without becoming one of its clients.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::cnc::CncFile;
use fulmar::counters::CounterRecord;
use fulmar::directory::{Activity, Directory, FsDirectory, check_active, default_directory};
use fulmar::report::{ErrorRecord, LossRecord, error_log, loss_report};

use crate::args::{DirArgs, InspectArgs};
use crate::failure::Failure;

/// A driver whose heartbeat is older than this, and whose process can not be looked at, counts as gone. Aeron's default.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a driver lives in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It does.
    Alive,
    /// It does not; why.
    Gone(String),
    /// Something is there that can not be used; why.
    Unusable(String),
}

/// Asks whether a driver lives in `dir`.
pub(crate) fn life_in(dir: &str) -> Life {
    match check_active(dir, DRIVER_TIMEOUT) {
        Ok(Activity::Active { .. } | Activity::Stalled { .. }) => Life::Alive,
        Ok(Activity::Absent) => Life::Gone("there is no such directory".into()),
        Ok(Activity::Inactive(reason)) => Life::Gone(reason.to_string()),
        Ok(Activity::Unknown(reason)) => Life::Unusable(reason.to_string()),
        Err(error) => Life::Unusable(error.to_string()),
    }
}

/// The directory that `--dir` names, or the default.
pub(crate) fn directory_of(args: &DirArgs) -> String {
    args.dir.clone().unwrap_or_else(default_directory)
}

/// There is no driver in `dir`.
pub(crate) fn no_driver(dir: &str, reason: &str) -> Failure {
    Failure::with_advice(
        format!("no media driver runs in {dir} ({reason})"),
        format!("start one with `fulmar driver --dir {dir}`, or name another directory with --dir"),
    )
}

/// There is something in `dir` that can not be used as a driver.
pub(crate) fn unusable_driver(dir: &str, reason: &str) -> Failure {
    Failure::with_advice(
        format!("the media driver in {dir} can not be used: {reason}"),
        format!("start one elsewhere with `fulmar driver --dir DIR`, or remove {dir} if nothing uses it"),
    )
}

/// The CnC file of a driver, open for reading.
pub(crate) struct Inspection {
    dir: String,
    cnc: CncFile,
    post_mortem: bool,
}

impl Inspection {
    /// Opens what `args` name.
    pub(crate) fn open(args: &InspectArgs) -> Result<Inspection, Failure> {
        let dir = directory_of(&args.at);
        match life_in(&dir) {
            Life::Alive => Inspection::map(dir, false),
            Life::Unusable(reason) => Err(unusable_driver(&dir, &reason)),
            Life::Gone(reason) => match Inspection::map(dir.clone(), true) {
                Ok(inspection) if args.post_mortem => {
                    eprintln!("fulmar: warning: the driver in {dir} no longer runs ({reason})");
                    Ok(inspection)
                }
                Ok(_) => Err(Failure::with_advice(
                    format!("no media driver runs in {dir} ({reason})"),
                    format!(
                        "start one with `fulmar driver --dir {dir}`, or see with --post-mortem what the last one left"
                    ),
                )),
                Err(_) => Err(no_driver(&dir, &reason)),
            },
        }
    }

    /// Opens a driver that must be alive.
    pub(crate) fn of_live(args: &DirArgs) -> Result<Inspection, Failure> {
        let dir = directory_of(args);
        match life_in(&dir) {
            Life::Alive => Inspection::map(dir, false),
            Life::Gone(reason) => Err(no_driver(&dir, &reason)),
            Life::Unusable(reason) => Err(unusable_driver(&dir, &reason)),
        }
    }

    fn map(dir: String, post_mortem: bool) -> Result<Inspection, Failure> {
        let region = FsDirectory::new(dir.as_str())
            .map_cnc()
            .map_err(|error| unusable_driver(&dir, &error.to_string()))?;
        let cnc = CncFile::open(&region).map_err(|error| unusable_driver(&dir, &error.to_string()))?;
        Ok(Inspection {
            dir,
            cnc,
            post_mortem,
        })
    }

    /// The driver directory.
    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// Whether the driver still runs. A driver that started in its place since is another one.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_current() && life_in(&self.dir) == Life::Alive
    }

    /// Fails once the driver no longer runs.
    pub(crate) fn check_alive(&self) -> Result<(), Failure> {
        if self.post_mortem || self.is_alive() {
            Ok(())
        } else {
            Err(no_driver(&self.dir, "it stopped while it was looked at"))
        }
    }

    /// Every live counter, in the order of ids.
    pub(crate) fn counters(&self) -> Result<Vec<CounterRecord>, Failure> {
        let mut records = Vec::new();
        self.cnc.counters().for_each(|record| records.push(record));
        self.check_undamaged()?;
        Ok(records)
    }

    /// Every distinct error, in the order of their first appearance.
    pub(crate) fn errors(&self) -> Result<Vec<ErrorRecord>, Failure> {
        let records = error_log::read_all(&self.cnc.error_log());
        self.check_undamaged()?;
        Ok(records)
    }

    /// Every entry of the loss report, in the order of their first appearance.
    pub(crate) fn losses(&self) -> Result<Vec<LossRecord>, Failure> {
        let region = FsDirectory::new(self.dir.as_str())
            .map_loss_report()
            .map_err(|error| unusable_driver(&self.dir, &format!("its loss report: {error}")))?;
        let view = region.as_view();
        let records = loss_report::read_all(&view);
        if region.is_damaged() {
            return Err(unusable_driver(&self.dir, "its loss report was truncated"));
        }
        Ok(records)
    }

    fn is_current(&self) -> bool {
        let current = FsDirectory::new(self.dir.as_str()).map_cnc();
        current
            .ok()
            .and_then(|region| CncFile::open(&region).ok())
            .is_some_and(|cnc| {
                cnc.start_timestamp() == self.cnc.start_timestamp() && cnc.pid() == self.cnc.pid()
            })
    }

    /// A truncated file reads as zeros, which must not pass for an idle driver.
    fn check_undamaged(&self) -> Result<(), Failure> {
        if self.cnc.region().is_damaged() {
            Err(unusable_driver(&self.dir, "its CnC file was truncated"))
        } else {
            Ok(())
        }
    }
}
