//! What can go wrong with a file, and of what kind it is.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::Arc;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a file.
    Open,
    /// Making a file.
    Create,
    /// Listing a directory.
    List,
    /// Giving another name.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// Making a directory.
    CreateDir,
    /// Making names durable.
    SyncDir,
    /// Taking the lock of the data directory.
    Lock,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Asking for the length.
    Length,
    /// Changing the length.
    Truncate,
    /// Making bytes durable.
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::List => "list",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "make directory",
            Self::SyncDir => "sync directory",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Length => "get length of",
            Self::Truncate => "truncate",
            Self::Sync => "sync",
        })
    }
}

/// Kinds of errors, by what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The disk or a quota is full: free some, then go on.
    NoSpace,
    /// The device or the system failed: stop.
    Io,
    /// Bytes are not what was written.
    Corrupt,
    /// Another process has the data directory.
    InUse,
    /// There is no such file or directory.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// The caller gave a path that leads nowhere or out of the data directory.
    BadPath,
    /// An earlier write or sync failed; nothing is written any more.
    Poisoned,
}

/// A failed call. Cheap to clone, so that one failure can be told to everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The system said no.
    #[error("can not {operation} {path}: {source}")]
    System {
        /// What was being done.
        operation: Operation,
        /// Path as the user knows it.
        path: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The data directory belongs to somebody else.
    #[error("data directory {directory} is in use by another process; stop it, or choose another directory")]
    InUse {
        /// The data directory.
        directory: String,
    },
    /// Bytes of a file are not what was written.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// Path as the user knows it.
        path: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// See [`check_path`](super::check_path).
    #[error("can not {operation} {path:?}: not a path within the data directory")]
    BadPath {
        /// What was being done.
        operation: Operation,
        /// The path.
        path: String,
    },
    /// An earlier write or sync failed, see [`Poison`](super::Poison).
    #[error("can not {operation} {path}: writing has stopped after an earlier error ({source})")]
    Poisoned {
        /// What was being done.
        operation: Operation,
        /// Path as the user knows it.
        path: String,
        /// The error that stopped it.
        source: Arc<StorageError>,
    },
}

impl StorageError {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::System { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                _ => ErrorKind::Io,
            },
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::BadPath { .. } => ErrorKind::BadPath,
            Self::Poisoned { .. } => ErrorKind::Poisoned,
        }
    }

    pub(crate) fn system(operation: Operation, path: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation,
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_what_the_system_said() {
        let kinds = [
            (libc::ENOSPC, ErrorKind::NoSpace),
            (libc::EDQUOT, ErrorKind::NoSpace),
            (libc::EIO, ErrorKind::Io),
            (libc::EROFS, ErrorKind::Io),
            (libc::ENOENT, ErrorKind::NotFound),
            (libc::EEXIST, ErrorKind::AlreadyExists),
        ];
        for (number, kind) in kinds {
            let error = StorageError::system(Operation::Write, "a", io::Error::from_raw_os_error(number));
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_message_names_the_operation_the_file_and_the_cause() {
        let first = StorageError::system(
            Operation::Sync,
            "wal-0/1.wal",
            io::Error::from_raw_os_error(libc::EIO),
        );
        assert!(first.to_string().starts_with("can not sync wal-0/1.wal: "));
        let later = StorageError::Poisoned {
            operation: Operation::Write,
            path: "b".into(),
            source: Arc::new(first),
        };
        assert!(later.to_string().contains("can not write b"));
        assert!(later.to_string().contains("can not sync wal-0/1.wal"));
        assert_eq!(later.kind(), ErrorKind::Poisoned);
    }
}
