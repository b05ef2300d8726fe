//! What a driver does to a directory before it creates anything in it (spec 1.6).
#![forbid(unsafe_code)]

use core::fmt::Write as _;
use core::time::Duration;
use std::fs::File;

use super::DirectoryError;
use super::activity::{Activity, Inactive, Unknown};
use crate::cnc::CncFile;
use crate::memory::Region;
use crate::report::error_log;
use crate::time::{EpochMs, Utc};

/// How a driver treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartOptions {
    /// Delete the directory without asking whether a driver is alive in it. Links and other users' directories are
    /// refused all the same.
    pub delete_on_start: bool,
    /// Age up to which a heartbeat means that a driver is alive.
    pub driver_timeout: Duration,
}

/// The directory is free, and held against other drivers that start at the same time until this is dropped.
#[derive(Debug)]
pub struct Prepared {
    /// What was found and removed; `None` if there was no directory or nobody asked.
    pub replaced: Option<Inactive>,
    /// Where the error log of the last driver was saved, if it had entries.
    pub saved_error_log: Option<String>,
    /// What could not be saved or locked: worth a warning, no reason to stop.
    pub warnings: Vec<String>,
    pub(super) lock: Option<File>,
}

impl Prepared {
    pub(super) fn new(lock: Option<File>) -> Self {
        Self {
            replaced: None,
            saved_error_log: None,
            warnings: Vec::new(),
            lock,
        }
    }

    /// Whether other drivers are kept out. Without locks in the file system two drivers that start at the very same
    /// moment are told apart by the creation of the CnC file only.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

/// Why a driver can not start in a directory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another driver is alive there.
    #[error("{path}: a media driver is active there (process {pid}, heartbeat {heartbeat_age_ms} ms ago)")]
    Active {
        /// The directory.
        path: String,
        /// Its process id.
        pid: i64,
        /// Age of its heartbeat.
        heartbeat_age_ms: i64,
    },
    /// Another driver's process lives there but does not work.
    #[error(
        "{path}: the media driver there (process {pid}) is alive but has been silent for {heartbeat_age_ms} ms; \
         let it continue, end it, or start with delete-on-start"
    )]
    Stalled {
        /// The directory.
        path: String,
        /// Its process id.
        pid: i64,
        /// Age of its heartbeat.
        heartbeat_age_ms: i64,
    },
    /// It can not be told whether a driver is alive there.
    #[error(
        "{path}: it can not be told whether a media driver is active there: {reason}; remove it or start with delete-on-start"
    )]
    Undecided {
        /// The directory.
        path: String,
        /// What is in the way.
        reason: Unknown,
    },
    /// It was not made by a driver.
    #[error(
        "{path}: this is no media driver directory, as it has `{entry}` but no CnC file; nothing was deleted"
    )]
    NotADriverDirectory {
        /// The directory.
        path: String,
        /// What does not belong there.
        entry: String,
    },
    /// The directory can not be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Turns the outcome of the examination into what was found and may be removed.
pub(super) fn decide(path: &str, activity: Activity) -> Result<Option<Inactive>, StartError> {
    let path = path.to_owned();
    match activity {
        Activity::Absent => Ok(None),
        Activity::Inactive(reason) => Ok(Some(reason)),
        Activity::Active {
            pid,
            heartbeat_age_ms,
        } => Err(StartError::Active {
            path,
            pid,
            heartbeat_age_ms,
        }),
        Activity::Stalled {
            pid,
            heartbeat_age_ms,
        } => Err(StartError::Stalled {
            path,
            pid,
            heartbeat_age_ms,
        }),
        Activity::Unknown(reason) => Err(StartError::Undecided { path, reason }),
    }
}

/// The entries of the error log in a CnC file as text, or `None` if it has none or can not be read.
pub(super) fn error_log_text(cnc: &Region) -> Option<String> {
    let cnc = CncFile::open(cnc).ok()?;
    let records = error_log::read_all(&cnc.error_log());
    if records.is_empty() {
        return None;
    }
    let mut text = String::new();
    for record in records {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{} observations from {} to {} for:\n {}\n",
            record.count,
            timestamp(record.first),
            timestamp(record.last),
            record.text
        );
    }
    Some(text)
}

/// The form that goes into the name of a saved error log, in UTC: `2026-11-21 21-03-05.051+0000`.
#[must_use]
pub fn timestamp(time: EpochMs) -> String {
    let Utc {
        year,
        month,
        day,
        hour,
        minute,
        second,
        milli,
    } = time.utc();
    format!("{year:04}-{month:02}-{day:02} {hour:02}-{minute:02}-{second:02}.{milli:03}+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_gregorian_and_utc() {
        for (ms, text) in [
            (0, "1970-01-01 00-00-00.000+0000"),
            (951_782_400_000, "2000-02-29 00-00-00.000+0000"),
            (1_795_294_985_051, "2026-11-21 21-03-05.051+0000"),
            (-1, "1969-12-31 23-59-59.999+0000"),
            (4_107_542_399_999, "2100-02-28 23-59-59.999+0000"),
            (4_107_542_400_000, "2100-03-01 00-00-00.000+0000"),
        ] {
            assert_eq!(timestamp(EpochMs(ms)), text);
        }
    }

    #[test]
    fn no_time_upsets_the_calendar() {
        for ms in [i64::MIN, i64::MAX] {
            assert!(timestamp(EpochMs(ms)).ends_with("+0000"));
        }
    }
}
