//! The named pipe through which clients wake a driver's thread that waits for sockets: such a thread can not wait on a
//! futex as well. A byte in the pipe says no more than "look".
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::os;
use crate::agent::Alarm;

/// Reads of one [`BellPipe::drain`]: as much as a pipe holds by default.
const DRAIN_READS: usize = 16;

/// The pipe, open for reading and writing at both ends: so writing never finds a pipe without a reader, which would
/// be a signal, and a driver that comes up finds no end of file.
#[derive(Debug)]
pub struct BellPipe {
    file: File,
}

impl BellPipe {
    /// Makes the pipe with these permission bits and opens it.
    ///
    /// # Errors
    /// What the system says; that something of the name is there, for instance.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        os::make_pipe(path, mode)?;
        let pipe = Self::open(path)?;
        // Without what the umask takes away.
        pipe.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(pipe)
    }

    /// Opens a pipe that is there.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] for what is no pipe.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY)
            .open(path)?;
        if file.metadata()?.file_type().is_fifo() {
            Ok(Self { file })
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// Takes out what is in it, within bounds; whether there was anything.
    pub fn drain(&self) -> bool {
        let mut bytes = [0; 4096];
        let mut any = false;
        for _ in 0..DRAIN_READS {
            match (&self.file).read(&mut bytes) {
                Ok(1..) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        any
    }
}

impl AsRawFd for BellPipe {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Alarm for BellPipe {
    fn sound(&self) {
        // A full pipe wakes its reader as well as one more byte would.
        let _ = (&self.file).write(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_one_end_is_drained_at_the_other() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell");
        let driver = BellPipe::create(&path, 0o620).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o620);
        let client = BellPipe::open(&path).unwrap();
        assert!(!driver.drain());
        client.sound();
        client.sound();
        assert!(driver.drain());
        assert!(!driver.drain());
    }

    #[test]
    fn a_pipe_that_nobody_reads_takes_any_number_of_alarms() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell");
        let client = BellPipe::create(&path, 0o600).unwrap();
        for _ in 0..70_000 {
            client.sound();
        }
        assert!(client.drain());
        assert!(!client.drain(), "one drain empties a full pipe");
    }

    #[test]
    fn what_is_no_pipe_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, b"not a pipe").unwrap();
        assert_eq!(
            BellPipe::open(&file).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            BellPipe::create(&file, 0o600).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let pipe = home.path().join("pipe");
        drop(BellPipe::create(&pipe, 0o600).unwrap());
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        assert!(BellPipe::open(&link).is_err());
    }
}
