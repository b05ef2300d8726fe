//! Files in memory: create at a fixed length, open what somebody else made, allocate blocks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::region::Region;

/// Whether the blocks of a new file are taken from the file system at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Blocks are allocated now, so that a later store can not fail for want of space.
    Allocate,
    /// Blocks are allocated at the first store to them.
    Sparse,
}

/// Creates a file that must not exist, of `length` zero bytes, and maps it shared. On failure nothing is left behind.
///
/// # Errors
/// Whatever the file system says; `StorageFull` when blocks can not be allocated.
pub fn create(path: &Path, length: u64, mode: u32, blocks: Blocks) -> io::Result<Region> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    fill(&file, length, mode, blocks)
        .and_then(|()| map(&file))
        .inspect_err(|_| {
            // Best effort: the error that is returned says what went wrong.
            let _ = std::fs::remove_file(path);
        })
}

fn fill(file: &File, length: u64, mode: u32, blocks: Blocks) -> io::Result<()> {
    // The mode given is the mode wanted: the caller's umask must not narrow an explicit group mode.
    // SAFETY: the descriptor is open for the whole call; no memory is passed.
    if unsafe { libc::fchmod(file.as_raw_fd(), mode as libc::mode_t) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let length_signed =
        libc::off_t::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    file.set_len(length)?;
    if blocks == Blocks::Allocate {
        // SAFETY: the descriptor is open for the whole call; no memory is passed.
        let result = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length_signed) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
    }
    Ok(())
}

/// Opens an existing regular file, refusing symbolic links, and maps it shared for reading and writing.
///
/// # Errors
/// Whatever the file system says; `InvalidData` for an empty file or something that is no regular file.
pub fn open(path: &Path) -> io::Result<Region> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    map(&file)
}

fn map(file: &File) -> io::Result<Region> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file with content",
        ));
    }
    let length = usize::try_from(metadata.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mapping = memmap2::MmapOptions::new().len(length).map_raw(file)?;
    Ok(Region::mapped(mapping))
}

/// Bytes of blocks that the file system has really given to a file.
///
/// # Errors
/// Whatever the file system says.
pub fn allocated_length(path: &Path) -> io::Result<u64> {
    Ok(std::fs::symlink_metadata(path)?.blocks().saturating_mul(512))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::AtomicBuffer;

    #[test]
    fn a_created_file_is_seen_by_whoever_opens_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("region");
        let ours = create(&path, 8192, 0o600, Blocks::Allocate).unwrap();
        ours.as_view().store_release_i64(4096, 42);
        let theirs = open(&path).unwrap();
        assert_eq!(theirs.as_view().load_acquire_i64(4096), 42);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(create(&path, 8192, 0o600, Blocks::Sparse).is_err());
    }

    #[test]
    fn pages_made_ready_have_their_blocks_and_no_others_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("region");
        let region = create(&path, 1 << 20, 0o600, Blocks::Sparse).unwrap();
        assert_eq!(allocated_length(&path).unwrap(), 0);
        match region.view(4096, 65536).populate(4096, 8192) {
            Ok(()) => assert!((8192..1 << 20).contains(&allocated_length(&path).unwrap())),
            // A kernel without the call.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput),
        }
        assert_eq!(region.as_view().load_acquire_i64(8192), 0);
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::fs::write(&target, b"x").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open(&link).is_err());
    }

    #[test]
    fn a_file_truncated_by_somebody_else_reads_zero_and_is_marked_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("region");
        let region = create(&path, 65536, 0o600, Blocks::Allocate).unwrap();
        region.as_view().store_release_i64(8192, 42);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        assert_eq!(region.as_view().load_acquire_i64(8192), 0);
        assert!(region.is_damaged());
        region.as_view().store_release_i64(16384, 1);
        assert_eq!(region.as_view().load_acquire_i64(16384), 1);
    }
}
