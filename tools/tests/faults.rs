//! Faults of the machine around drivers and clients that take a namespace or a shim to bring about (docs/reliability.md,
//! rows A7 and A8): process ids that are used again, wall clocks that step.
//!
//! They need root, `unshare` and `cc`. Where something is missing they say `skipped: ...` on standard error; with
//! `FULMAR_NETWORK_TESTS=required` they fail instead, as the tests with several hosts do.
//!
//! Run with `cargo test -p fulmar-tools --features peer --test faults`.

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/pid_reuse.rs"]
mod pid_reuse;
#[path = "interop/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all scenarios")]
mod process;
#[path = "faults/wall_clock.rs"]
mod wall_clock;

use std::io::Write as _;

use fulmar::cnc::CncFile;
use fulmar::directory::{Directory as _, FsDirectory};

/// Whether a test can run; `missing` is what it lacks. Says so past the test harness, which hides the output of tests
/// that pass, or fails where the tests are expected to run.
fn can_run(test: &str, missing: Result<(), String>) -> bool {
    let Err(reason) = missing else {
        return true;
    };
    assert!(
        std::env::var("FULMAR_NETWORK_TESTS").as_deref() != Ok("required"),
        "{test} is expected to run here, but {reason}"
    );
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    false
}

/// The shared memory of the driver in a directory.
fn map_cnc(dir: &process::Directory) -> CncFile {
    let region = FsDirectory::new(dir.path())
        .map_cnc()
        .expect("the driver is there");
    CncFile::open(&region).expect("cnc.dat is complete")
}
