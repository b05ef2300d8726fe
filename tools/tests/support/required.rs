//! Tests that need more than the toolchain.

use std::io::Write as _;

/// Whether a test can run; `missing` is what it lacks. Says so past the test harness, which hides the output of tests
/// that pass, or fails where the tests are expected to run.
pub(crate) fn can_run(test: &str, missing: Option<&str>) -> bool {
    let Some(reason) = missing else {
        return true;
    };
    assert!(
        std::env::var("FULMAR_NETWORK_TESTS").as_deref() != Ok("required"),
        "{test} is expected to run here, but {reason}"
    );
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    false
}
