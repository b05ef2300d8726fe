//! Under the feature `peer`: makes Aeron's C library linkable, and builds Aeron's own sample programs and tools from the
//! sources that come with it, as they are and by their own rules, for the suite `samples`.

use std::path::Path;
use std::process::{Command, Stdio};

#[path = "peer/link.rs"]
mod link;

/// Of the programs that come with Aeron's C client those that `tests/samples.rs` runs; the last two are C++ on top of it.
const SAMPLES: [&str; 16] = [
    "basic_publisher",
    "basic_subscriber",
    "basic_mds_subscriber",
    "streaming_publisher",
    "streaming_exclusive_publisher",
    "rate_subscriber",
    "cping",
    "cpong",
    "response_client",
    "response_server",
    "AeronStat",
    "DriverTool",
    "ErrorStat",
    "LossStat",
    "PingPong",
    "Throughput",
];

fn main() {
    link::main();
    if std::env::var_os("CARGO_FEATURE_PEER").is_none() {
        return;
    }
    let sources = variable("DEP_AERON_DRIVER_AERON_ROOT");
    let build = format!("{}/samples", variable("OUT_DIR"));
    println!("cargo:rerun-if-changed={sources}/version.txt");
    println!("cargo:rustc-env=AERON_SAMPLES={build}/binaries");
    cmake(&[
        "-S",
        &sources,
        "-B",
        &build,
        "-DCMAKE_BUILD_TYPE=Release",
        "-DAERON_BUILD_SAMPLES=ON",
        "-DAERON_HIDE_DEPRECATION_MESSAGE=ON",
        "-DAERON_TESTS=OFF",
        "-DAERON_BUILD_DOCUMENTATION=OFF",
        "-DAERON_INSTALL_TARGETS=OFF",
        "-DBUILD_AERON_ARCHIVE_API=OFF",
        "-DBUILD_AERON_DRIVER=OFF",
    ]);
    let jobs = variable("NUM_JOBS");
    let mut arguments = vec!["--build", &build, "--parallel", &jobs, "--target"];
    arguments.extend(SAMPLES);
    cmake(&arguments);
    for name in SAMPLES {
        let program = format!("{build}/binaries/{name}");
        assert!(Path::new(&program).is_file(), "{program} was not built");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn cmake(arguments: &[&str]) {
    // What cmake says is no instruction for cargo, so it goes where cargo shows it when something fails.
    let ended = Command::new("cmake")
        .args(arguments)
        .stdout(Stdio::from(std::io::stderr()))
        .status();
    assert!(
        ended.as_ref().is_ok_and(std::process::ExitStatus::success),
        "cmake {arguments:?}: {ended:?}"
    );
}
