//! Real files: `pwrite`, `pread`, `fdatasync`, synced directories and a locked file.
//!
//! Writes go through the page cache. Writing around it (`O_DIRECT` and `O_DSYNC` through `io_uring`) is not here yet; where a
//! system or a container forbids it, this is the way that works anyhow.
#![deny(unsafe_code)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Operation, Poison, Storage, StorageError, StorageFile, check_path};

/// Name of the file in the data directory that is locked. It is empty and stays.
pub const LOCK_FILE: &str = "LOCK";

/// A data directory on a file system. See the [module](super).
#[derive(Clone, Debug)]
pub struct FileStorage {
    root: Arc<PathBuf>,
    poison: Poison,
}

impl FileStorage {
    /// Takes `root`, which is made with all directories above it if need be. Does not lock it.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StorageError> {
        let storage = Self {
            root: Arc::new(root.as_ref().to_path_buf()),
            poison: Poison::default(),
        };
        let path = storage.root.as_path();
        let was_there = path.is_dir();
        if !was_there {
            fs::create_dir_all(path).map_err(|error| storage.error(Operation::CreateDir, "", error))?;
        }
        // Also where it was there: whoever made it may have been killed before this. Only the last name is synced: whoever wants
        // a data directory below new ones has to look after those.
        let above = match path.parent() {
            Some(above) if above == Path::new("") => Some(Path::new(".")),
            above => above,
        };
        match above.map_or(Ok(()), sync_directory) {
            // A directory that others made in one that is closed to us.
            Err(error) if was_there && error.kind() == std::io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(|error| storage.error(Operation::SyncDir, "", error))?,
        }
        Ok(storage)
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn resolve(&self, operation: Operation, path: &str) -> Result<PathBuf, StorageError> {
        if check_path(path) {
            Ok(self.root.join(path))
        } else {
            Err(StorageError::BadPath {
                operation,
                path: path.to_owned(),
            })
        }
    }

    fn resolve_directory(&self, operation: Operation, path: &str) -> Result<PathBuf, StorageError> {
        if path.is_empty() {
            Ok(self.root.to_path_buf())
        } else {
            self.resolve(operation, path)
        }
    }

    /// An error with the path as the user knows it.
    fn error(&self, operation: Operation, path: &str, source: io::Error) -> StorageError {
        let path = if path.is_empty() {
            self.root.display().to_string()
        } else {
            self.root.join(path).display().to_string()
        };
        StorageError::system(operation, path, source)
    }

    fn file(&self, path: &str, file: File) -> RealFile {
        RealFile {
            file: Arc::new(file),
            path: path.into(),
            storage: self.clone(),
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Storage for FileStorage {
    type File = RealFile;
    type Lock = DirectoryLock;

    fn lock(&self) -> Result<DirectoryLock, StorageError> {
        let failed = |error| self.error(Operation::Lock, LOCK_FILE, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join(LOCK_FILE))
            .map_err(failed)?;
        match try_lock(&file) {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StorageError::InUse {
                directory: self.root.display().to_string(),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    fn open(&self, path: &str) -> Result<RealFile, StorageError> {
        let resolved = self.resolve(Operation::Open, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(resolved)
            .map(|file| self.file(path, file))
            .map_err(|error| self.error(Operation::Open, path, error))
    }

    fn create(&self, path: &str) -> Result<RealFile, StorageError> {
        let resolved = self.resolve(Operation::Create, path)?;
        self.poison.check(Operation::Create, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(resolved)
            .map(|file| self.file(path, file))
            .map_err(|error| self.error(Operation::Create, path, error))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StorageError> {
        let resolved = self.resolve_directory(Operation::List, directory)?;
        let failed = |error| self.error(Operation::List, directory, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(resolved).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let source = self.resolve(Operation::Rename, from)?;
        let target = self.resolve(Operation::Rename, to)?;
        self.poison.check(Operation::Rename, from)?;
        fs::rename(source, target).map_err(|error| self.error(Operation::Rename, from, error))
    }

    fn remove(&self, path: &str) -> Result<(), StorageError> {
        let resolved = self.resolve(Operation::Remove, path)?;
        self.poison.check(Operation::Remove, path)?;
        fs::remove_file(resolved).map_err(|error| self.error(Operation::Remove, path, error))
    }

    fn create_dir(&self, path: &str) -> Result<(), StorageError> {
        let resolved = self.resolve(Operation::CreateDir, path)?;
        self.poison.check(Operation::CreateDir, path)?;
        match fs::create_dir(&resolved) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && resolved.is_dir() => Ok(()),
            result => result.map_err(|error| self.error(Operation::CreateDir, path, error)),
        }
    }

    fn remove_dir(&self, path: &str) -> Result<(), StorageError> {
        let resolved = self.resolve(Operation::Remove, path)?;
        self.poison.check(Operation::Remove, path)?;
        fs::remove_dir(resolved).map_err(|error| self.error(Operation::Remove, path, error))
    }

    fn sync_dir(&self, directory: &str) -> Result<(), StorageError> {
        let resolved = self.resolve_directory(Operation::SyncDir, directory)?;
        self.poison.check(Operation::SyncDir, directory)?;
        let result =
            sync_directory(&resolved).map_err(|error| self.error(Operation::SyncDir, directory, error));
        self.poison.after_sync(result)
    }

    fn failure(&self) -> Option<StorageError> {
        self.poison.failure()
    }
}

/// An open file. See [`StorageFile`].
#[derive(Clone)]
pub struct RealFile {
    file: Arc<File>,
    path: Arc<str>,
    storage: FileStorage,
}

impl RealFile {
    fn error(&self, operation: Operation, source: io::Error) -> StorageError {
        self.storage.error(operation, &self.path, source)
    }
}

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RealFile").field(&self.path).finish()
    }
}

impl StorageFile for RealFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Operation::Read, error)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.storage.poison.check(Operation::Write, &self.path)?;
        let result = self.file.write_all_at(bytes, offset);
        self.storage
            .poison
            .after_write(result.map_err(|error| self.error(Operation::Write, error)))
    }

    fn length(&self) -> Result<u64, StorageError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(self.error(Operation::Length, error)),
        }
    }

    fn truncate(&self, length: u64) -> Result<(), StorageError> {
        self.storage.poison.check(Operation::Truncate, &self.path)?;
        let result = self.file.set_len(length);
        self.storage
            .poison
            .after_write(result.map_err(|error| self.error(Operation::Truncate, error)))
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.storage.poison.check(Operation::Sync, &self.path)?;
        // Once: a sync that failed has forgotten what it did not write.
        let result = self.file.sync_data();
        self.storage
            .poison
            .after_sync(result.map_err(|error| self.error(Operation::Sync, error)))
    }
}

/// Holds the lock of a data directory until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Locks `file` for this open description alone. `WouldBlock` if somebody else has it.
#[expect(
    unsafe_code,
    reason = "the lock of the standard library is younger than the oldest compiler supported"
)]
fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: flock takes a descriptor and flags and touches no memory; the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ErrorKind;

    fn storage() -> (tempfile::TempDir, FileStorage) {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path().join("data")).unwrap();
        (directory, storage)
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_is_gone() {
        let (_directory, storage) = storage();
        let lock = storage.lock().unwrap();
        let second = FileStorage::open(storage.root()).unwrap();
        let error = second.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains(&storage.root().display().to_string()));
        drop(lock);
        assert!(second.lock().is_ok());
    }

    #[test]
    fn bytes_come_back_from_where_they_were_written() {
        let (_directory, storage) = storage();
        storage.create_dir("a").unwrap();
        let file = storage.create("a/b").unwrap();
        file.allocate(3 << 20).unwrap();
        assert_eq!(file.length().unwrap(), 3 << 20);
        file.write_at(4096, b"hello").unwrap();
        file.sync().unwrap();
        storage.sync_dir("a").unwrap();
        let again = storage.open("a/b").unwrap();
        let mut buffer = [1; 7];
        assert_eq!(again.read_at(4095, &mut buffer).unwrap(), 7);
        assert_eq!(&buffer, b"\0hello\0");
        again.truncate(4098).unwrap();
        assert_eq!(file.read_at(4096, &mut buffer).unwrap(), 2);
        assert_eq!(file.read_at(9999, &mut buffer).unwrap(), 0);
        assert_eq!(file.path(), "a/b");
    }

    #[test]
    fn names_are_listed_in_order_moved_and_removed() {
        let (_directory, storage) = storage();
        storage.create_dir("d").unwrap();
        storage.create_dir("d").unwrap();
        for name in ["d/2", "d/10", "d/1"] {
            storage.create(name).unwrap();
        }
        assert_eq!(storage.list("d").unwrap(), ["1", "10", "2"]);
        assert_eq!(
            storage.create("d/1").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        storage.rename("d/1", "d/2").unwrap();
        storage.remove("d/10").unwrap();
        assert_eq!(storage.list("d").unwrap(), ["2"]);
        assert!(storage.remove_dir("d").is_err());
        storage.remove("d/2").unwrap();
        storage.remove_dir("d").unwrap();
        assert_eq!(storage.list("").unwrap(), Vec::<String>::new());
        assert_eq!(storage.open("d/2").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn no_path_leads_out_of_the_data_directory() {
        let (_directory, storage) = storage();
        for path in ["../x", "/tmp/x", "a/../../x", ""] {
            assert_eq!(storage.create(path).unwrap_err().kind(), ErrorKind::BadPath);
            assert_eq!(storage.open(path).unwrap_err().kind(), ErrorKind::BadPath);
            assert_eq!(storage.rename(path, "a").unwrap_err().kind(), ErrorKind::BadPath);
        }
        assert_eq!(storage.list("..").unwrap_err().kind(), ErrorKind::BadPath);
    }

    #[test]
    fn nothing_is_written_after_a_failed_write() {
        let (_directory, storage) = storage();
        let good = storage.create("good").unwrap();
        good.write_at(0, b"kept").unwrap();
        // A write to a file that was opened for reading alone is refused by the system.
        let read_only = storage.file("good", File::open(storage.root().join("good")).unwrap());
        assert_eq!(read_only.write_at(0, b"x").unwrap_err().kind(), ErrorKind::Io);
        for error in [
            good.write_at(0, b"x").unwrap_err(),
            good.sync().unwrap_err(),
            good.truncate(0).unwrap_err(),
            storage.create("new").unwrap_err(),
            storage.sync_dir("").unwrap_err(),
            storage.remove("good").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Poisoned);
        }
        assert!(storage.failure().is_some());
        let mut buffer = [0; 4];
        assert_eq!(good.read_at(0, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"kept");
    }
}
