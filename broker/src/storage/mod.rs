//! Files behind a trait: the only place of the broker that knows of a file system (kafka gateway 7.3, reliability 3.c).
//!
//! * [`Storage`] is a data directory, [`StorageFile`] one file in it. Paths are relative to the data directory, see
//!   [`check_path`].
//! * [`StorageError`] says what failed on which file and of what kind it is, [`Poison`] is the latch that keeps a failed write or
//!   sync from ever being tried again.
//! * [`mod@file`] has real files: `pwrite` and `fdatasync`. It works on every file system and in every container, so it stays the
//!   fallback when writing around the page cache (`O_DIRECT` through `io_uring`) is added; that is not here yet.
//! * [`wal`] is the write-ahead log of a shard.
//! * `sim` (feature `sim`) is a simulated disk: lost, torn and reordered writes, and faults on demand.
//!
//! # What survives a power cut
//! * Bytes, and the length of a file: what was there when [`StorageFile::sync`] was called and returned without an error.
//! * Names: a new, renamed or removed file or directory once [`Storage::sync_dir`] of the directory that holds the name returned.
//!   A file whose bytes are synced and whose name is not may be gone.
//! * Anything else may be there or not, in part, in any order. A write is not atomic; 512 bytes of it are.
//!
//! Nothing here is a background task: each call returns when the system call has.
#![deny(unsafe_code)]

mod error;
pub mod file;
mod poison;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod wal;

pub use error::{ErrorKind, Operation, StorageError};
pub use file::FileStorage;
pub use poison::Poison;

/// A data directory.
///
/// Handles are cheap to clone; clones stand for the same directory and share one [`Poison`]. After a failed write or sync, all
/// calls that change something fail with [`StorageError::Poisoned`]; reading and listing go on.
pub trait Storage: Clone {
    /// An open file.
    type File: StorageFile;
    /// Holds the lock of the data directory while it lives.
    type Lock;

    /// Takes the data directory for this process.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process, or another handle of this one, holds it.
    fn lock(&self) -> Result<Self::Lock, StorageError>;

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it does not.
    fn open(&self, path: &str) -> Result<Self::File, StorageError>;

    /// Makes an empty file that does not exist yet. Sync its directory to keep it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if it does.
    fn create(&self, path: &str) -> Result<Self::File, StorageError>;

    /// Names in `directory` (`""` is the data directory itself), files and directories alike, in ascending order of bytes. Names
    /// that are no text are left out: nothing of ours is called that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, directory: &str) -> Result<Vec<String>, StorageError>;

    /// Gives a file or directory another name; a file that has that name is replaced in one step. Sync the directory, both if
    /// they differ, to keep it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if `from` or the directory of `to` does not exist.
    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError>;

    /// Removes a file. Sync its directory to keep it removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    fn remove(&self, path: &str) -> Result<(), StorageError>;

    /// Makes a directory in one that exists; nothing happens if it is there. Sync the directory above it to keep it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the directory above it does not exist.
    fn create_dir(&self, path: &str) -> Result<(), StorageError>;

    /// Removes an empty directory. Sync the directory above it to keep it removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Io`] if it is not empty.
    fn remove_dir(&self, path: &str) -> Result<(), StorageError>;

    /// Makes the names in `directory` durable (`""` is the data directory itself).
    ///
    /// # Errors
    /// Of the system; they poison the storage.
    fn sync_dir(&self, directory: &str) -> Result<(), StorageError>;

    /// The first failed write or sync, if there was one: whoever sees it stops the process.
    fn failure(&self) -> Option<StorageError>;
}

/// An open file. Handles are cheap to clone and stand for the same file.
///
/// Offsets and lengths are in bytes.
pub trait StorageFile: Clone {
    /// Path in the data directory under which the file was opened.
    fn path(&self) -> &str;

    /// Fills `buffer` from `offset` on. Returns how many bytes there were: fewer than asked for only at the end of the file, 0
    /// behind it.
    ///
    /// # Errors
    /// Of the system. They do not poison: nothing was lost by reading.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError>;

    /// Writes all of `bytes` at `offset`, behind the end as well: the gap reads as zeros.
    ///
    /// # Errors
    /// Of the system; some of the bytes may have been written. All but [`ErrorKind::NoSpace`] poison the storage. A full disk
    /// does not, for the system says so before it takes the bytes, so nothing that was accepted is lost.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Length of the file.
    ///
    /// # Errors
    /// Of the system.
    fn length(&self) -> Result<u64, StorageError>;

    /// Cuts the file to `length`, or makes it longer by zeros that take no space.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn truncate(&self, length: u64) -> Result<(), StorageError>;

    /// Makes what was written, and the length, durable.
    ///
    /// # Errors
    /// Of the system, a full disk too. Each poisons the storage: the system forgets what it could not write, and a second sync
    /// would succeed without it.
    fn sync(&self) -> Result<(), StorageError>;

    /// Makes the file at least `length` long with zeros that are really written: later writes in place then change no metadata,
    /// which halves the time of a sync, and can not run out of space. Takes as long as writing that much. Not synced.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn allocate(&self, length: u64) -> Result<(), StorageError> {
        let mut end = self.length()?;
        let zeros = vec![0; ALLOCATION_STEP];
        while end < length {
            let step =
                usize::try_from(length - end).map_or(ALLOCATION_STEP, |left| left.min(ALLOCATION_STEP));
            self.write_at(end, zeros.get(..step).unwrap_or(&zeros))?;
            end += step as u64;
        }
        Ok(())
    }
}

/// Bytes of zeros written at a time.
const ALLOCATION_STEP: usize = 1 << 20;

/// Length limit of a path in bytes: leaves room for the data directory within the limit of the system (4096).
pub const MAX_PATH_LENGTH: usize = 1024;

/// Whether `path` may be given to a [`Storage`]: parts joined by `/`, none of them empty, `.` or `..`, no zero byte, at most
/// [`MAX_PATH_LENGTH`] bytes. So nothing that came from a client (the name of a topic) leads out of the data directory. The empty
/// path is none: only calls that take a directory accept it.
#[must_use]
pub fn check_path(path: &str) -> bool {
    path.len() <= MAX_PATH_LENGTH
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_data_directory() {
        for path in ["a", "a/b", "wal-0/00000000000000000001.wal", "..a", "a."] {
            assert!(check_path(path), "{path}");
        }
        let long = "a".repeat(MAX_PATH_LENGTH + 1);
        for path in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", &long,
        ] {
            assert!(!check_path(path), "{path}");
        }
    }
}
