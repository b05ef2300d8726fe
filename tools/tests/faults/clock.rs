//! A wall clock for some processes that the test sets: a shim in front of the C library, compiled here.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use fulmar::time::{Clock as _, SystemClock};

use crate::process::eventually;

/// A second, in the milliseconds in which the protocol writes wall-clock times.
pub(crate) const SECOND: i64 = 1_000;
/// A year of 365 days, milliseconds.
pub(crate) const YEAR: i64 = 365 * 24 * 3600 * SECOND;

/// The wall clock of every process that was started with [`WallClock::environment`].
pub(crate) struct WallClock {
    shim: String,
    offset_path: String,
    /// Removed with the clock.
    _folder: tempfile::TempDir,
    file: File,
    /// What it is ahead of the system's, milliseconds.
    offset: i64,
}

impl WallClock {
    /// Compiles the shim. The clock is right at first.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn new() -> Result<WallClock, String> {
        let folder = tempfile::tempdir_in("/dev/shm").map_err(|error| format!("no folder: {error}"))?;
        let path = |name| folder.path().join(name).to_string_lossy().into_owned();
        let (shim, offset_path) = (path("shim.so"), path("offset"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o", &shim, source])
            .output()
            .map_err(|error| format!("`cc` does not run: {error}"))?;
        assert!(
            compiled.status.success(),
            "the shim does not compile: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        fs::write(&offset_path, [0u8; 4096]).map_err(|error| format!("no file: {error}"))?;
        let file = File::options()
            .write(true)
            .open(&offset_path)
            .map_err(|error| format!("no file: {error}"))?;
        Ok(WallClock {
            shim,
            offset_path,
            _folder: folder,
            file,
            offset: 0,
        })
    }

    /// Environment of processes that live by this clock.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        [
            ("LD_PRELOAD", &self.shim),
            ("FULMAR_TEST_CLOCK", &self.offset_path),
        ]
    }

    /// Steps to so many milliseconds ahead of the system's clock.
    pub(crate) fn step_to(&mut self, offset: i64) {
        let nanos = offset * 1_000_000;
        // Eight aligned bytes of one page: readers see the old or the new number.
        self.file
            .write_all_at(&nanos.to_le_bytes(), 0)
            .expect("the file is open for writing");
        self.offset = offset;
    }

    /// What it is ahead of the system's clock now, milliseconds.
    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }
}

/// Milliseconds of the system's own wall clock.
fn system_millis() -> i64 {
    SystemClock.now().epoch.0
}

/// Waits until `read` gives a new value, which is a wall-clock time that somebody has just written, and says between
/// which offsets from the system's clock the writer's clock is.
pub(crate) fn next_heartbeat(what: &str, mut read: impl FnMut() -> i64) -> (i64, i64) {
    let old = read();
    let mut before = system_millis();
    let mut offsets = None;
    eventually(what, || {
        let unchanged_since = system_millis();
        let value = read();
        if value == old {
            before = unchanged_since;
            return false;
        }
        // Written after `before` and by now; each clock is read in whole milliseconds.
        offsets = Some((value - system_millis() - 1, value - before + 1));
        true
    });
    offsets.expect("the wait ended with a value")
}

/// Waits until what `read` gives was written by a clock that is `offset` ahead, and by none that is `other` ahead.
pub(crate) fn await_heartbeat(what: &str, offset: i64, other: i64, mut read: impl FnMut() -> i64) {
    eventually(what, || {
        let (least, most) = next_heartbeat(what, &mut read);
        (least..=most).contains(&offset) && !(least..=most).contains(&other)
    });
}
