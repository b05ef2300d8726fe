//! A directory of files that processes share by mapping them.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::activity::{Inactive, examine};
use super::start::{Prepared, StartError, StartOptions, decide, error_log_text, timestamp};
use super::{
    BELL_FILE_NAME, BellPipe, Blocks, Directory, DirectoryError, IMAGES_FOLDER, LOG_SUFFIX,
    LOSS_REPORT_FILE_NAME, LogKind, PUBLICATIONS_FOLDER, Refusal, check_log_inside, check_log_name, log_path,
    os,
};
use crate::agent::idle;
use crate::cnc::{extension, layout};
use crate::id::RegistrationId;
use crate::memory::{Region, mapped};
use crate::time::Clock;

/// Permission bits of what is created. They are set as given; the umask does not narrow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Of directories.
    pub directory: u32,
    /// Of files.
    pub file: u32,
}

impl Modes {
    /// For this user only: the default.
    pub const PRIVATE: Self = Self {
        directory: 0o700,
        file: 0o600,
    };
    /// For clients of the same group as well.
    pub const GROUP: Self = Self {
        directory: 0o750,
        file: 0o660,
    };
}

/// A driver's directory in the file system, usually below `/dev/shm`.
#[derive(Clone, Debug)]
pub struct FsDirectory {
    path: String,
    modes: Modes,
}

impl FsDirectory {
    /// The directory at this path, for this user only. Nothing is created or looked at yet.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self::with_modes(path, Modes::PRIVATE)
    }

    /// The directory at this path; what is created gets these modes.
    #[must_use]
    pub fn with_modes(path: impl Into<String>, modes: Modes) -> Self {
        Self {
            path: path.into(),
            modes,
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The path without a trailing slash, which would make the system follow a link.
    fn root(&self) -> &Path {
        match self.path.trim_end_matches('/') {
            "" => Path::new("/"),
            path => Path::new(path),
        }
    }

    fn create(&self, path: &str, length: u64, blocks: Blocks) -> Result<Region, DirectoryError> {
        mapped::create(Path::new(path), length, self.modes.file, blocks)
            .map_err(|error| DirectoryError::from_io(path, length, error))
    }

    /// Whether the directory is there, and ours to change.
    fn check_root(&self, user: u32) -> Result<bool, DirectoryError> {
        let metadata = match fs::symlink_metadata(self.root()) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(DirectoryError::from_io(&self.path, 0, error)),
        };
        let refusal = if metadata.is_symlink() {
            Refusal::SymbolicLink
        } else if !metadata.is_dir() {
            Refusal::NotADirectory
        } else if metadata.uid() != user {
            Refusal::ForeignOwner {
                owner: metadata.uid(),
                user,
            }
        } else {
            return Ok(true);
        };
        Err(DirectoryError::refused(&self.path, refusal))
    }

    fn prepare_as(
        &self,
        user: u32,
        options: &StartOptions,
        clock: &dyn Clock,
    ) -> Result<Prepared, StartError> {
        if !self.check_root(user)? {
            self.create_parent()?;
        }
        let mut prepared = Prepared::new(self.lock_parent(options));
        if !prepared.is_locked() {
            prepared.warnings.push(format!(
                "{}: no lock could be taken against drivers that start at the same time",
                self.path
            ));
        }
        // Looked at again, as another driver may have been at work while we waited for the lock.
        if !self.check_root(user)? {
            return Ok(prepared);
        }
        if !options.delete_on_start {
            let activity = examine(self, options.driver_timeout, clock, &idle::sleep)?;
            prepared.replaced = decide(&self.path, activity)?;
            if prepared.replaced == Some(Inactive::NoCnc)
                && let Some(entry) = self.foreign_entry()?
            {
                return Err(StartError::NotADriverDirectory {
                    path: self.path.clone(),
                    entry,
                });
            }
            self.save_error_log(clock, &mut prepared);
        }
        self.delete_contents()?;
        Ok(prepared)
    }

    fn create_parent(&self) -> Result<(), DirectoryError> {
        match self.root().parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::create_dir_all(parent)
                .map_err(|error| DirectoryError::from_io(&parent.display().to_string(), 0, error)),
            _ => Ok(()),
        }
    }

    /// Drivers that start in the same directory take turns by a lock on its parent, which outlives the directory.
    fn lock_parent(&self, options: &StartOptions) -> Option<File> {
        let parent = match self.root().parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = File::open(parent).ok()?;
        for _ in 0..=options.driver_timeout.as_millis() {
            match os::try_lock(&file) {
                Ok(()) => return Some(file),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    idle::sleep(core::time::Duration::from_millis(1));
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Something that no driver puts into its directory. Guards a mistyped path against recursive deletion.
    fn foreign_entry(&self) -> Result<Option<String>, DirectoryError> {
        let known = [
            layout::FILE_NAME,
            extension::FILE_NAME,
            BELL_FILE_NAME,
            LOSS_REPORT_FILE_NAME,
            PUBLICATIONS_FOLDER,
            IMAGES_FOLDER,
        ];
        let failed = |error| DirectoryError::from_io(&self.path, 0, error);
        for entry in fs::read_dir(self.root()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !known.iter().any(|known| name == *known) {
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    fn save_error_log(&self, clock: &dyn Clock, prepared: &mut Prepared) {
        let Some(text) = self.map_cnc().ok().as_ref().and_then(error_log_text) else {
            return;
        };
        let path = format!(
            "{}-{}-error.log",
            self.root().display(),
            timestamp(clock.now().epoch)
        );
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.modes.file)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => prepared.saved_error_log = Some(path),
            Err(error) => prepared.warnings.push(format!(
                "{path}: the last driver's error log could not be saved: {error}"
            )),
        }
    }

    /// Removes everything in the directory, and the directory unless it is a mount point.
    fn delete_contents(&self) -> Result<(), DirectoryError> {
        let failed = |error| DirectoryError::from_io(&self.path, 0, error);
        for entry in fs::read_dir(self.root()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Neither call follows links.
            let removed = if entry.file_type().map_err(failed)?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        match fs::remove_dir(self.root()) {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ResourceBusy
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn create_dir(&self, path: &Path) -> Result<(), DirectoryError> {
        DirBuilder::new()
            .mode(self.modes.directory)
            .create(path)
            // The umask may have narrowed the mode.
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(self.modes.directory)))
            .map_err(|error| DirectoryError::from_io(&path.display().to_string(), 0, error))
    }
}

impl Directory for FsDirectory {
    fn path(&self) -> &str {
        &self.path
    }

    fn exists(&self) -> bool {
        fs::symlink_metadata(self.root()).is_ok()
    }

    fn prepare(&self, options: &StartOptions, clock: &dyn Clock) -> Result<Prepared, StartError> {
        self.prepare_as(os::effective_user(), options, clock)
    }

    fn create_dirs(&self) -> Result<(), DirectoryError> {
        self.create_parent()?;
        match self.create_dir(self.root()) {
            Ok(()) => {}
            // A mount point stays when its content is deleted; anything else that is not ours is refused.
            Err(DirectoryError::AlreadyExists { .. }) => {
                self.check_root(os::effective_user())?;
            }
            Err(error) => return Err(error),
        }
        self.create_dir(&self.root().join(PUBLICATIONS_FOLDER))?;
        self.create_dir(&self.root().join(IMAGES_FOLDER))
    }

    fn create_cnc(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(&self.file(layout::FILE_NAME), length, Blocks::Allocate)
    }

    fn map_cnc(&self) -> Result<Region, DirectoryError> {
        map(&self.file(layout::FILE_NAME))
    }

    fn create_extension(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(&self.file(extension::FILE_NAME), length, Blocks::Allocate)
    }

    fn map_extension(&self) -> Result<Region, DirectoryError> {
        map(&self.file(extension::FILE_NAME))
    }

    fn create_bell(&self) -> Result<Option<BellPipe>, DirectoryError> {
        let path = self.file(BELL_FILE_NAME);
        BellPipe::create(Path::new(&path), self.modes.file)
            .map(Some)
            .map_err(|error| DirectoryError::from_io(&path, 0, error))
    }

    fn open_bell(&self) -> Option<BellPipe> {
        BellPipe::open(Path::new(&self.file(BELL_FILE_NAME))).ok()
    }

    fn create_loss_report(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(&self.file(LOSS_REPORT_FILE_NAME), length, Blocks::Allocate)
    }

    fn map_loss_report(&self) -> Result<Region, DirectoryError> {
        map(&self.file(LOSS_REPORT_FILE_NAME))
    }

    fn create_log(
        &self,
        kind: LogKind,
        id: RegistrationId,
        length: u64,
        blocks: Blocks,
    ) -> Result<(Region, String), DirectoryError> {
        let path = log_path(&self.path, kind, id);
        Ok((self.create(&path, length, blocks)?, path))
    }

    fn map_log(&self, path: &str) -> Result<Region, DirectoryError> {
        check_log_name(path)?;
        map(path)
    }

    fn delete_log(&self, path: &str) -> Result<(), DirectoryError> {
        check_log_inside(&self.path, path)?;
        fs::remove_file(path).map_err(|error| DirectoryError::from_io(path, 0, error))
    }

    fn logs(&self) -> Result<Vec<String>, DirectoryError> {
        let mut logs = Vec::new();
        for folder in [PUBLICATIONS_FOLDER, IMAGES_FOLDER] {
            let path = self.file(folder);
            let failed = |error| DirectoryError::from_io(&path, 0, error);
            for entry in fs::read_dir(&path).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                if let Some(name) = name.to_str().filter(|name| name.ends_with(LOG_SUFFIX)) {
                    logs.push(format!("{path}/{name}"));
                }
            }
        }
        logs.sort();
        Ok(logs)
    }

    fn usable_space(&self) -> Result<u64, DirectoryError> {
        os::usable_space(self.root()).map_err(|error| DirectoryError::from_io(&self.path, 0, error))
    }

    fn allocated_length(&self, path: &str) -> Result<u64, DirectoryError> {
        check_log_name(path)?;
        mapped::allocated_length(Path::new(path)).map_err(|error| DirectoryError::from_io(path, 0, error))
    }

    fn delete(&self) -> Result<(), DirectoryError> {
        if self.check_root(os::effective_user())? {
            self.delete_contents()?;
        }
        Ok(())
    }
}

/// Maps a regular file with content, and says clearly when it is something else.
fn map(path: &str) -> Result<Region, DirectoryError> {
    let failed = |error| DirectoryError::from_io(path, 0, error);
    mapped::open(Path::new(path)).map_err(|error| {
        if error.kind() != io::ErrorKind::InvalidData {
            return failed(error);
        }
        let refusal = match fs::symlink_metadata(PathBuf::from(path)) {
            Ok(metadata) if metadata.is_file() => Refusal::Empty,
            _ => Refusal::NotAFile,
        };
        DirectoryError::refused(path, refusal)
    })
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::time::SystemClock;

    #[test]
    fn a_directory_of_another_user_is_refused_even_for_deletion() {
        let parent = tempfile::tempdir().unwrap();
        let directory = FsDirectory::new(parent.path().join("driver").to_str().unwrap());
        directory.create_dirs().unwrap();
        let somebody_else = os::effective_user().wrapping_add(1);
        for delete_on_start in [false, true] {
            let options = StartOptions {
                delete_on_start,
                driver_timeout: Duration::from_millis(1),
            };
            let error = directory
                .prepare_as(somebody_else, &options, &SystemClock)
                .unwrap_err();
            assert!(matches!(
                error,
                StartError::Directory(DirectoryError::Refused {
                    refusal: Refusal::ForeignOwner { .. },
                    ..
                })
            ));
            assert!(error.to_string().contains("belongs to user"), "{error}");
        }
        assert!(directory.exists());
    }
}
