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
#[path = "support/required.rs"]
mod required;
#[path = "faults/wall_clock.rs"]
mod wall_clock;

use fulmar::cnc::CncFile;
use fulmar::directory::{Directory as _, FsDirectory};

/// The shared memory of the driver in a directory.
fn map_cnc(dir: &process::Directory) -> CncFile {
    let region = FsDirectory::new(dir.path())
        .map_cnc()
        .expect("the driver is there");
    CncFile::open(&region).expect("cnc.dat is complete")
}
