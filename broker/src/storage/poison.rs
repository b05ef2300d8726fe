//! The latch that stops all writing after the first failure (kafka gateway 7.3).
//!
//! A system that could not write a page says so once, then calls the page clean: the next sync succeeds although the bytes are
//! gone, and reading shows them until the page is dropped. So nothing is tried a second time. The latch has no way back; the
//! process ends, and recovery looks at what is there.
#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};

use super::error::{ErrorKind, Operation, StorageError};

/// Remembers the first failure of a storage. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Poison {
    first: Arc<OnceLock<Arc<StorageError>>>,
}

impl Poison {
    /// The first failure.
    #[must_use]
    pub fn failure(&self) -> Option<StorageError> {
        self.first.get().map(|first| StorageError::clone(first))
    }

    /// Before a call that changes something.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] after a failure.
    pub fn check(&self, operation: Operation, path: &str) -> Result<(), StorageError> {
        match self.first.get() {
            None => Ok(()),
            Some(first) => Err(StorageError::Poisoned {
                operation,
                path: path.to_owned(),
                source: Arc::clone(first),
            }),
        }
    }

    /// After a call that writes: a failure stays. A full disk does not, see [`StorageFile::write_at`](super::StorageFile::write_at).
    ///
    /// # Errors
    /// That of `result`.
    pub fn after_write<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        match result {
            Err(error) if error.kind() == ErrorKind::NoSpace => Err(error),
            result => self.after_sync(result),
        }
    }

    /// After a sync: a failure stays, whatever it is.
    ///
    /// # Errors
    /// That of `result`.
    pub fn after_sync<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result {
            // Somebody else's failure may be the first; that one is kept then.
            let _ = self.first.set(Arc::new(error.clone()));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(number: i32) -> Result<(), StorageError> {
        Err(StorageError::system(
            Operation::Write,
            "a",
            io::Error::from_raw_os_error(number),
        ))
    }

    #[test]
    fn the_first_failure_stays_and_is_shared() {
        let poison = Poison::default();
        let other = poison.clone();
        assert!(poison.check(Operation::Write, "a").is_ok());
        assert!(poison.after_write(failed(libc::EIO)).is_err());
        assert!(poison.after_sync(failed(libc::EROFS)).is_err());
        let refused = other.check(Operation::Sync, "b").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        let first = other.failure().unwrap().to_string();
        assert!(first.contains(&io::Error::from_raw_os_error(libc::EIO).to_string()));
    }

    #[test]
    fn a_full_disk_stops_writing_only_when_a_sync_says_so() {
        let poison = Poison::default();
        assert!(poison.after_write(failed(libc::ENOSPC)).is_err());
        assert!(poison.check(Operation::Write, "a").is_ok());
        assert!(poison.after_sync(failed(libc::ENOSPC)).is_err());
        assert!(poison.check(Operation::Write, "a").is_err());
    }
}
