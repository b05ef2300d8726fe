//! The suites: which cases there are, on which settings, and what is wanted of them.
#![forbid(unsafe_code)]

pub mod counted;
pub mod fanout;
pub mod ipc;
pub mod isolation;
pub mod loss;
pub mod micro;
pub mod streams;
pub mod system;
pub mod udp;

use std::net::SocketAddr;
use std::path::Path;

use crate::private_network::{FAR_ADDRESS, NEAR_ADDRESS, Namespace};
use crate::side::{BenchError, FAR_SUFFIX, Mode, Settings};
use crate::suite::{Bench, Options};

/// A part of the benchmarks.
pub struct Suite {
    /// The first word of the names of its cases.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Runs those of its cases that were asked for.
    pub run: fn(&mut Bench) -> Result<(), BenchError>,
}

/// All suites, in the order in which they run.
pub const ALL: &[Suite] = &[
    Suite {
        name: "ipc",
        about: "throughput and round trips through shared memory",
        run: ipc::run,
    },
    Suite {
        name: "udp",
        about: "throughput and round trips through sockets: the loopback interface, and two network namespaces (veth)",
        run: udp::run,
    },
    Suite {
        name: "fanout",
        about: "one stream to many subscriptions: multi-destination and multicast",
        run: fanout::run,
    },
    Suite {
        name: "streams",
        about: "many streams, most of them idle",
        run: streams::run,
    },
    Suite {
        name: "loss",
        about: "recovery where datagrams are lost",
        run: loss::run,
    },
    Suite {
        name: "isolation",
        about: "fast subscribers beside a stalled one",
        run: isolation::run,
    },
    Suite {
        name: "system",
        about: "start time, first message after silence, idle processor time, memory per stream",
        run: system::run,
    },
    Suite {
        name: "counted",
        about: "instructions and system calls per message",
        run: counted::run,
    },
    Suite {
        name: "micro",
        about: "single primitives of ours: append, poll, gap scan, ring, counters, frame codecs",
        run: micro::run,
    },
];

/// Runs what a suite starts as a child under a tool.
///
/// # Errors
/// Those of the workload, and arguments that no suite gave.
pub fn child(arguments: &[String]) -> Result<(), BenchError> {
    match arguments.first().map(String::as_str) {
        Some("count") => counted::child(arguments),
        _ => Err("not a child of the benchmarks".into()),
    }
}

/// Where the directories of all runs lie.
const SHARED_MEMORY: &str = "/dev/shm";
/// What the names of their directories begin with; a process id follows.
const DIR_PREFIX: &str = "fulmar-bench-";

/// A directory of this process alone, in shared memory.
#[must_use]
pub fn own_dir() -> String {
    format!("{SHARED_MEMORY}/{DIR_PREFIX}{}", std::process::id())
}

/// Removes the directories of runs that were killed; those of processes that are still there stay.
pub fn remove_abandoned_dirs() {
    abandon(Path::new(SHARED_MEMORY), |pid| {
        Path::new("/proc").join(pid.to_string()).exists()
    });
}

/// What can not be read or removed is somebody else's, and stays.
fn abandon(parent: &Path, is_running: impl Fn(u32) -> bool) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(owner);
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && owner.is_some_and(|pid| !is_running(pid)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that a directory of a run belongs to; a run between two hosts has one more, for the far one.
fn owner(name: &str) -> Option<u32> {
    let pid = name.strip_prefix(DIR_PREFIX)?;
    let pid = pid.strip_suffix(FAR_SUFFIX).unwrap_or(pid);
    pid.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(pid)?
        .parse()
        .ok()
}

/// Both ways over shared memory.
#[must_use]
pub fn ipc_settings(options: &Options, mode: Mode) -> Settings {
    Settings::ipc(own_dir(), mode, options.term_length)
}

/// Each way through a socket of its own on the loopback interface.
///
/// # Errors
/// No port is free.
pub fn udp_settings(options: &Options, mode: Mode) -> Result<Settings, BenchError> {
    let [near, far] = free_ports()?;
    let endpoints = [near, far].map(|port| format!("127.0.0.1:{port}"));
    Ok(Settings::udp(own_dir(), mode, options.term_length, endpoints))
}

/// Each way from one of two hosts to the other. In networks of their own every port is free.
#[must_use]
pub fn two_hosts_settings(options: &Options, mode: Mode, far: &Namespace) -> Settings {
    let endpoints = [format!("{FAR_ADDRESS}:40123"), format!("{NEAR_ADDRESS}:40124")];
    Settings {
        far_network: Some(far.clone()),
        ..Settings::udp(own_dir(), mode, options.term_length, endpoints)
    }
}

/// One way over shared memory (`ipc`) or through a socket of its own (`udp`), with further parameters of the channel.
///
/// # Errors
/// No port is free.
pub fn one_way_settings(
    media: &str,
    mode: Mode,
    term_length: usize,
    parameters: &str,
) -> Result<Settings, BenchError> {
    let media = match media {
        "ipc" => "aeron:ipc?".to_owned(),
        _ => {
            let [port] = free_ports()?;
            format!("aeron:udp?endpoint=127.0.0.1:{port}|")
        }
    };
    let channel = format!("{media}term-length={term_length}{parameters}");
    Ok(Settings {
        channel: channel.clone(),
        return_channel: channel,
        ..Settings::ipc(own_dir(), mode, term_length)
    })
}

/// Whether messages of `length` bytes fit into the terms that were asked for, whose eighth is the longest; says so
/// where a case that is wanted has to be left out.
fn fits(bench: &mut Bench, case: &str, length: usize) -> bool {
    let is_fit = length <= bench.options.term_length / 8;
    if !is_fit && bench.wants(case) {
        bench.leave_out(format!(
            "{case}: skipped: its messages take a term length of {} bytes",
            8 * length
        ));
    }
    is_fit
}

/// So many different ports that nobody uses at the moment.
///
/// # Errors
/// What the system says.
#[expect(
    clippy::disallowed_types,
    reason = "asks the system for free ports, sends nothing"
)]
pub fn free_ports<const N: usize>() -> Result<[u16; N], BenchError> {
    let mut ports = [0; N];
    // Each stays taken until all are known: the system may give the same one again.
    let mut sockets = Vec::new();
    for port in &mut ports {
        let socket = std::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        *port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_ones() {
        let mut ports: Vec<u16> = free_ports::<64>().expect("ports").to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() == 64 && ports[0] > 0);
    }

    #[test]
    fn only_directories_of_processes_that_are_gone_are_removed() {
        let parent = format!(
            "{SHARED_MEMORY}/{DIR_PREFIX}test-abandoned-{}",
            std::process::id()
        );
        let parent = Path::new(&parent);
        let names = [
            "fulmar-bench-7",
            "fulmar-bench-7-far",
            "fulmar-bench-8",
            "fulmar-bench-8-far",
            "fulmar-bench-",
            "fulmar-bench-+7",
            "fulmar-bench-7-near",
            "fulmar-bench-test-7",
            "other-7",
        ];
        for name in names {
            std::fs::create_dir_all(parent.join(name).join("inner")).expect("made");
        }
        std::fs::write(parent.join("fulmar-bench-9"), "a file").expect("written");
        abandon(parent, |pid| pid == 8);
        let mut left: Vec<_> = std::fs::read_dir(parent)
            .expect("read")
            .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        let _ = std::fs::remove_dir_all(parent);
        assert_eq!(
            left,
            [
                "fulmar-bench-",
                "fulmar-bench-+7",
                "fulmar-bench-7-near",
                "fulmar-bench-8",
                "fulmar-bench-8-far",
                "fulmar-bench-9",
                "fulmar-bench-test-7",
                "other-7",
            ]
        );
    }
}
