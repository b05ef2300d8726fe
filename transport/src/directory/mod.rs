//! Where regions live: files of a driver's directory, or named heap regions inside one process.
//!
//! ```text
//! <directory>/cnc.dat                                  command and control
//!             fulmar.dat                               our extension
//!             fulmar.bell                              pipe that wakes threads which wait for sockets
//!             loss-report.dat
//!             publications/<registration id>.logbuffer
//!             images/<correlation id>.logbuffer
//! ```
#![cfg(not(loom))]

pub mod activity;
pub mod bell;
pub mod fs;
pub mod mem;
mod os;
pub mod start;

#[cfg(test)]
mod conformance;

use std::io;

use crate::id::RegistrationId;
use crate::memory::Region;
pub use crate::memory::mapped::Blocks;
use crate::time::Clock;

pub use activity::{Activity, check_active};
pub use bell::BellPipe;
pub use fs::{FsDirectory, Modes};
pub use mem::MemDirectory;
pub use start::{Prepared, StartError, StartOptions};

/// Name of the loss report in the directory.
pub const LOSS_REPORT_FILE_NAME: &str = "loss-report.dat";
/// Name of the pipe that wakes the driver's network threads.
pub const BELL_FILE_NAME: &str = "fulmar.bell";
/// Folder of the logs of publications.
pub const PUBLICATIONS_FOLDER: &str = "publications";
/// Folder of the logs of images.
pub const IMAGES_FOLDER: &str = "images";
/// What the name of every log ends with.
pub const LOG_SUFFIX: &str = ".logbuffer";

/// Which of the two folders a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// The log of an IPC or network publication.
    Publication,
    /// The log of a received image.
    Image,
}

impl LogKind {
    /// Name of the folder.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Publication => PUBLICATIONS_FOLDER,
            Self::Image => IMAGES_FOLDER,
        }
    }
}

/// Why something is not touched although it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A symbolic link: somebody else decides where it leads.
    #[error("it is a symbolic link")]
    SymbolicLink,
    /// A file was expected and something else found.
    #[error("it is no regular file")]
    NotAFile,
    /// A directory was expected and something else found.
    #[error("it is no directory")]
    NotADirectory,
    /// The file has no content.
    #[error("it is empty")]
    Empty,
    /// It belongs to another user.
    #[error("it belongs to user {owner}, and this process runs as user {user}")]
    ForeignOwner {
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A name that no driver gives to a log.
    #[error("it is no name of a log buffer")]
    NotALog,
    /// A log outside this directory.
    #[error("it lies outside the directory")]
    Outside,
}

/// What went wrong with a directory or a file in it.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing has that name.
    #[error("{path} does not exist")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// Something has that name already.
    #[error("{path} exists already")]
    AlreadyExists {
        /// What was to be created.
        path: String,
    },
    /// The file system has too little space left; nothing was created.
    #[error("there is no space for the {length} bytes of {path}")]
    NoSpace {
        /// What was to be created.
        path: String,
        /// Its length.
        length: u64,
    },
    /// The system does not let us.
    #[error("no permission for {path}")]
    PermissionDenied {
        /// What was touched.
        path: String,
    },
    /// We do not let ourselves.
    #[error("{path} is refused: {refusal}")]
    Refused {
        /// What was looked at.
        path: String,
        /// Why it is refused.
        refusal: Refusal,
    },
    /// Anything else that the system says.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

impl DirectoryError {
    /// Sorts an error of the system by what callers treat differently.
    pub(crate) fn from_io(path: &str, length: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => Self::NotFound { path },
            (io::ErrorKind::AlreadyExists, _) => Self::AlreadyExists { path },
            (io::ErrorKind::PermissionDenied, _) => Self::PermissionDenied { path },
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Self::NoSpace { path, length },
            (_, Some(libc::ELOOP)) => Self::Refused {
                path,
                refusal: Refusal::SymbolicLink,
            },
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn refused(path: &str, refusal: Refusal) -> Self {
        Self::Refused {
            path: path.to_owned(),
            refusal,
        }
    }
}

/// The place where a driver keeps its regions and clients find them. All implementations behave alike.
pub trait Directory: Send + Sync {
    /// The directory as configured. Paths of logs start with it, and clients open those paths as they are.
    fn path(&self) -> &str;

    /// Whether the directory exists.
    fn exists(&self) -> bool;

    /// Whether no other process can reach the directory. Then the process of the driver in it lives as long as anybody can
    /// ask, and nobody has to ask the system. The driver itself may be gone before: its clients are told when another one
    /// begins in its place.
    fn is_of_this_process(&self) -> bool {
        false
    }

    /// Makes sure that nobody uses the directory, saves the error log of the driver that did, and removes what is
    /// left of it (spec 1.6 and 1.7). The answer is kept until the new driver has published its CnC file.
    ///
    /// # Errors
    /// Why the directory can not be taken; nothing was changed then.
    fn prepare(&self, options: &StartOptions, clock: &dyn Clock) -> Result<Prepared, StartError>;

    /// Creates the directory and its folders.
    ///
    /// # Errors
    /// Whatever is in the way. A directory that exists is accepted if it is empty of what a driver creates.
    fn create_dirs(&self) -> Result<(), DirectoryError>;

    /// Creates the CnC file: `length` zero bytes with all blocks allocated.
    ///
    /// # Errors
    /// [`DirectoryError::AlreadyExists`], [`DirectoryError::NoSpace`], or what the system says.
    fn create_cnc(&self, length: u64) -> Result<Region, DirectoryError>;

    /// Maps the CnC file.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`] and [`DirectoryError::PermissionDenied`] are worth a retry while a driver starts.
    fn map_cnc(&self) -> Result<Region, DirectoryError>;

    /// Creates the extension file, as [`Self::create_cnc`].
    ///
    /// # Errors
    /// As [`Self::create_cnc`].
    fn create_extension(&self, length: u64) -> Result<Region, DirectoryError>;

    /// Maps the extension file.
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`] in the directory of a driver of another make.
    fn map_extension(&self) -> Result<Region, DirectoryError>;

    /// Creates the pipe through which clients wake a driver that waits for sockets. `None` where there is none: in
    /// memory, where nobody sleeps.
    ///
    /// # Errors
    /// What the system says; a driver works without it.
    fn create_bell(&self) -> Result<Option<BellPipe>, DirectoryError> {
        Ok(None)
    }

    /// Opens that pipe, if there is one that can be used.
    fn open_bell(&self) -> Option<BellPipe> {
        None
    }

    /// Creates the loss report, as [`Self::create_cnc`].
    ///
    /// # Errors
    /// As [`Self::create_cnc`].
    fn create_loss_report(&self, length: u64) -> Result<Region, DirectoryError>;

    /// Maps the loss report.
    ///
    /// # Errors
    /// As [`Self::map_cnc`].
    fn map_loss_report(&self) -> Result<Region, DirectoryError>;

    /// Creates a log of `length` zero bytes and answers its path as well.
    ///
    /// # Errors
    /// As [`Self::create_cnc`].
    fn create_log(
        &self,
        kind: LogKind,
        id: RegistrationId,
        length: u64,
        blocks: Blocks,
    ) -> Result<(Region, String), DirectoryError>;

    /// Maps a log by the path that the driver sent. Only a regular file whose name is that of a log is opened; that
    /// it lies in this directory is not asked, because driver and client may spell the directory differently.
    ///
    /// # Errors
    /// What is wrong with the path or the file.
    fn map_log(&self, path: &str) -> Result<Region, DirectoryError>;

    /// Deletes a log of this directory. Mappings of it stay valid.
    ///
    /// # Errors
    /// [`Refusal::NotALog`] and [`Refusal::Outside`] for other paths, or what the system says.
    fn delete_log(&self, path: &str) -> Result<(), DirectoryError>;

    /// The logs in the directory, sorted, as paths; for tools and for tests of what is left behind.
    ///
    /// # Errors
    /// What the system says.
    fn logs(&self) -> Result<Vec<String>, DirectoryError>;

    /// Bytes that may still be allocated.
    ///
    /// # Errors
    /// What the system says.
    fn usable_space(&self) -> Result<u64, DirectoryError>;

    /// Bytes of blocks that a log has really been given.
    ///
    /// # Errors
    /// As [`Self::map_log`].
    fn allocated_length(&self, path: &str) -> Result<u64, DirectoryError>;

    /// Removes the directory and everything in it. Not to exist is fine.
    ///
    /// # Errors
    /// What the system says, and the refusals of [`Self::prepare`] for links and other users' directories.
    fn delete(&self) -> Result<(), DirectoryError>;
}

/// The path of a log.
pub(crate) fn log_path(directory: &str, kind: LogKind, id: RegistrationId) -> String {
    format!("{directory}/{}/{id}{LOG_SUFFIX}", kind.folder())
}

/// Accepts paths whose last part is `<decimal number>.logbuffer`.
pub(crate) fn check_log_name(path: &str) -> Result<(), DirectoryError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let id = name
        .strip_suffix(LOG_SUFFIX)
        .and_then(|id| id.parse::<i64>().ok());
    // Printed back, so that `+1`, `01` and the like are out.
    if id.is_some_and(|id| format!("{id}{LOG_SUFFIX}") == name) {
        Ok(())
    } else {
        Err(DirectoryError::refused(path, Refusal::NotALog))
    }
}

/// Accepts paths of logs directly inside one of the two folders of `directory`.
pub(crate) fn check_log_inside(directory: &str, path: &str) -> Result<(), DirectoryError> {
    check_log_name(path)?;
    let folder = path
        .strip_prefix(directory)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.split_once('/'));
    match folder {
        Some((PUBLICATIONS_FOLDER | IMAGES_FOLDER, name)) if !name.contains('/') => Ok(()),
        _ => Err(DirectoryError::refused(path, Refusal::Outside)),
    }
}

/// The directory that clients and drivers use unless told otherwise (spec 1.1): `/dev/shm/aeron-<user>`.
#[must_use]
pub fn default_directory() -> String {
    let user = std::env::var("USER")
        .ok()
        .filter(|user| !user.is_empty())
        .or_else(os::user_name)
        .unwrap_or_else(|| "default".to_owned());
    if std::path::Path::new("/dev/shm").is_dir() {
        format!("/dev/shm/aeron-{user}")
    } else {
        let temporary = std::env::temp_dir();
        format!(
            "{}/aeron-{user}",
            temporary.display().to_string().trim_end_matches('/')
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_driver_gives_are_logs() {
        for path in [
            "/d/publications/1.logbuffer",
            "-5.logbuffer",
            "./x/9223372036854775807.logbuffer",
        ] {
            assert!(check_log_name(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "/d/.logbuffer",
            "/d/+1.logbuffer",
            "/d/01.logbuffer",
            "/d/1.logbuffer/",
            "/d/1.logbuffer.x",
            "/d/9223372036854775808.logbuffer",
        ] {
            assert!(check_log_name(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_log_outside_the_folders_is_not_ours_to_delete() {
        assert!(check_log_inside("/d", "/d/images/3.logbuffer").is_ok());
        for path in [
            "/d/3.logbuffer",
            "/e/images/3.logbuffer",
            "/dd/images/3.logbuffer",
            "/d/images/../3.logbuffer",
            "/d/other/3.logbuffer",
            "images/3.logbuffer",
        ] {
            assert!(check_log_inside("/d", path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_default_directory_names_the_user() {
        let path = default_directory();
        assert!(path.contains("/aeron-"));
        assert!(!path.ends_with('-'));
    }
}
