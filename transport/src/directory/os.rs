//! The system calls of the file-system directory that the standard library does not have.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The user that files are created as.
pub(super) fn effective_user() -> u32 {
    // SAFETY: geteuid has no arguments and can not fail.
    unsafe { libc::geteuid() }
}

/// The name of the real user, if the system knows one.
pub(super) fn user_name() -> Option<String> {
    let mut entry = core::mem::MaybeUninit::<libc::passwd>::zeroed();
    let mut strings = vec![0 as libc::c_char; 16384];
    let mut found: *mut libc::passwd = core::ptr::null_mut();
    // SAFETY: getpwuid_r(uid, entry, buffer, length, result) writes the entry, at most `length` bytes of the buffer
    // and the result pointer; all three outlive the call, and `found` is null or points at `entry`.
    let result = unsafe {
        libc::getpwuid_r(
            libc::getuid(),
            entry.as_mut_ptr(),
            strings.as_mut_ptr(),
            strings.len(),
            &raw mut found,
        )
    };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded and found an entry, so `entry` is filled in and its name is a NUL-terminated string
    // inside `strings`, which lives until the end of this function.
    let name = unsafe { CStr::from_ptr(entry.assume_init_ref().pw_name) };
    let name = name.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Bytes of the file system of `path` that a process without privileges may still take.
pub(super) fn usable_space(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut status = core::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: statvfs(path, buffer) reads a NUL-terminated string and fills the buffer; both outlive the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the structure is plain numbers, was zeroed, and the call succeeded.
    let status = unsafe { status.assume_init() };
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Takes the advisory lock of an open file or directory if it is free; it lasts until the file is closed.
///
/// # Errors
/// `WouldBlock` if somebody else holds it; anything else means that there are no locks here.
pub(super) fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: flock(fd, operation) has no memory arguments; the descriptor is open for the whole call.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a named pipe; the umask narrows the mode.
pub(super) fn make_pipe(path: &Path, mode: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: mkfifo(path, mode) reads a NUL-terminated string, which outlives the call.
    if unsafe { libc::mkfifo(path.as_ptr(), mode as libc::mode_t) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
