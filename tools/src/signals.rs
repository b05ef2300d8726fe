//! SIGINT and SIGTERM as a flag that loops look at, so that every command ends in order: files are flushed, handles
//! closed, summaries printed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use fulmar::sync::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Makes SIGINT and SIGTERM set the flag instead of ending the process. Blocking calls return early on a signal.
pub(crate) fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: a zeroed sigaction is a valid one: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `action` is initialised and lives through the call; the handler only stores to an atomic, which is
        // allowed inside a signal handler. The call fails for unknown signals only, and these two are known.
        unsafe {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Whether the process was asked to stop.
#[inline]
pub(crate) fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Waits until standard input can be read without blocking, has ended, or `timeout` has passed. A signal ends the wait.
pub(crate) fn wait_for_input(timeout: Duration) -> io::Result<bool> {
    wait_for(io::stdin().as_fd(), libc::POLLIN, timeout)
}

/// Waits until a few bytes ([`ATOMIC_WRITE`] to a pipe) can be written without blocking, the reader is gone, or
/// `timeout` has passed. A signal ends the wait.
pub(crate) fn wait_for_output(output: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    wait_for(output, libc::POLLOUT, timeout)
}

/// A pipe that is ready takes this much at once.
pub(crate) const ATOMIC_WRITE: usize = libc::PIPE_BUF;

fn wait_for(descriptor: BorrowedFd<'_>, events: libc::c_short, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events,
        revents: 0,
    };
    let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `entry` is one valid, exclusively borrowed pollfd, the count says one, and the descriptor is open for as
    // long as it is borrowed.
    let ready = unsafe { libc::poll(&raw mut entry, 1, millis) };
    if ready >= 0 {
        return Ok(ready > 0);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        error => Err(error),
    }
}
