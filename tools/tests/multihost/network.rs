//! Hosts without machines: network namespaces on one switch, with addresses of our own, made and removed by the test.
//! A host's link can be limited (tbf), lossy (nftables `numgen`; NETEM is not in every kernel), deaf or unplugged.
//!
//! Nothing outside the namespaces is touched. Their names hold the process id of the test run, so that a run can
//! remove what an earlier one left behind when it was killed.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use fulmar::sync::{AtomicU32, Ordering};
use serde_json::Value;

use crate::required;

const PREFIX: &str = "fulmar-net";

/// Whether a test with several hosts can run here.
pub(crate) fn can_run(test: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    required::can_run(test, MISSING.get_or_init(missing).as_deref())
}

/// What the machine lacks; removes leftovers of runs that are gone, too.
fn missing() -> Option<String> {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("network namespaces need root".into());
    }
    for tool in ["ip", "tc", "nft"] {
        if Command::new(tool).arg("-V").output().is_err() {
            return Some(format!(
                "the command `{tool}` is not installed (packages iproute2 and nftables)"
            ));
        }
    }
    remove_leftovers();
    let probe = Namespace::named(format!("{PREFIX}-{}-probe", std::process::id()));
    let probe = match probe {
        Ok(namespace) => namespace,
        Err(error) => return Some(format!("`ip netns` does not work: {error}")),
    };
    let rules = "table inet probe { chain c { type filter hook input priority 0; numgen random mod 10 < 1 drop; }\n}\n";
    probe
        .nft(rules)
        .err()
        .map(|error| format!("nftables do not work: {error}"))
}

/// Namespaces and driver directories of test runs whose process is gone.
fn remove_leftovers() {
    let left_in = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| is_leftover(name))
            .collect()
    };
    for name in left_in("/run/netns") {
        let _ = run(Command::new("ip").args(["netns", "del", &name]));
    }
    for name in left_in("/dev/shm") {
        let _ = std::fs::remove_dir_all(format!("/dev/shm/{name}"));
    }
}

/// Whether the name is one of ours and holds the id of a process that is gone.
fn is_leftover(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('-')?.split('-').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

/// Runs a command to its end; its output, or what it complained about.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

fn ip(line: &str) {
    run(Command::new("ip").args(line.split_whitespace())).unwrap_or_else(|error| panic!("{error}"));
}

/// One network namespace, removed when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A fresh one.
    pub(crate) fn new() -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Namespace::named(format!("{PREFIX}-{}-{number}", std::process::id()))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn named(name: String) -> Result<Namespace, String> {
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Namespace { name };
        run(Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, line: &str) {
        ip(&format!("-n {} {line}", self.name));
    }

    /// Feeds `nft` inside.
    pub(crate) fn nft(&self, rules: &str) -> Result<(), String> {
        let mut command = Command::new("nft");
        self.enter(command.args(["-f", "-"]));
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("piped");
        stdin
            .write_all(rules.as_bytes())
            .map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    fn tc(&self, line: &str) {
        let mut command = Command::new("tc");
        self.enter(command.args(line.split_whitespace()));
        run(&mut command).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets the process that `command` starts live in this namespace.
    pub(crate) fn enter(&self, command: &mut Command) {
        let file = self.file();
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns, which needs
        // neither memory nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
    }

    /// The file that stands for it.
    pub(crate) fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).expect("made above")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// A switch, to which hosts are connected.
pub(crate) struct Network {
    switch: Namespace,
    ports: AtomicU32,
}

/// What drops packets that arrive at a host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// Each packet with this probability, in thousandths.
    Random(u32),
    /// The first so many packets of every thousand.
    Bursts(u32),
}

/// What a filter has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) packets: u64,
    /// Bytes of UDP payload.
    pub(crate) bytes: u64,
}

/// Bytes of the IPv4 and UDP headers, which the filter counts and the transport does not.
const HEADERS: u64 = 28;

impl Network {
    pub(crate) fn new() -> Network {
        let switch = Namespace::new();
        switch.ip("link add br0 type bridge");
        // Multicast reaches everybody without anybody asking for it, as on a switch that does not snoop.
        switch.ip("link set br0 type bridge mcast_snooping 0");
        switch.ip("link set br0 up");
        Network {
            switch,
            ports: AtomicU32::new(0),
        }
    }

    /// Connects another host; the first has the address 10.77.0.1.
    pub(crate) fn host(&self) -> Host {
        let number = self.ports.fetch_add(1, Ordering::Relaxed) + 1;
        let namespace = Namespace::new();
        ip(&format!(
            "link add eth0 netns {} type veth peer name port{number} netns {}",
            namespace.name, self.switch.name
        ));
        self.switch.ip(&format!("link set port{number} master br0 up"));
        let address = format!("10.77.0.{number}");
        namespace.ip(&format!("addr add {address}/24 dev eth0"));
        // Every datagram is a packet of its own on this wire: otherwise a filter would drop segments by the dozen.
        namespace.ip("link set eth0 gso_max_segs 1");
        namespace.ip("link set eth0 up");
        namespace.ip("route add 224.0.0.0/4 dev eth0");
        Host { namespace, address }
    }
}

/// A host of its own: namespace, link and address.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) address: String,
}

impl Host {
    /// At most so many megabits per second leave this host.
    pub(crate) fn limit_rate(&self, megabits: u32) {
        self.namespace.tc(&format!(
            "qdisc replace dev eth0 root tbf rate {megabits}mbit burst 64kb latency 20ms"
        ));
    }

    /// Drops packets that arrive here on UDP ports of `ports`, such as `20000-20100`.
    pub(crate) fn drop_arriving(&self, filter: Filter, ports: &str) {
        let choice = match filter {
            Filter::Random(thousandths) => format!("numgen random mod 1000 < {thousandths}"),
            Filter::Bursts(packets) => format!("numgen inc mod 1000 < {packets}"),
        };
        self.rules(&format!(
            "table inet loss {{\n counter dropped {{\n }}\n chain input {{\n type filter hook input priority 0;\n \
             udp dport {ports} {choice} counter name dropped drop\n }}\n}}\n"
        ));
    }

    /// What [`Host::drop_arriving`] has dropped so far.
    pub(crate) fn dropped(&self) -> Dropped {
        let mut command = Command::new("nft");
        self.namespace
            .enter(command.args(["-j", "list", "counter", "inet", "loss", "dropped"]));
        let text = run(&mut command).unwrap_or_else(|error| panic!("{error}"));
        let document: Value = serde_json::from_str(&text).expect("nft writes JSON");
        let counter = document["nftables"]
            .as_array()
            .and_then(|objects| objects.iter().find_map(|object| object.get("counter")))
            .unwrap_or_else(|| panic!("no counter in {text}"));
        let packets = counter["packets"].as_u64().expect("a number");
        let bytes = counter["bytes"].as_u64().expect("a number");
        Dropped {
            packets,
            bytes: bytes.saturating_sub(packets * HEADERS),
        }
    }

    /// Nothing arrives any more.
    pub(crate) fn deafen(&self) {
        self.rules(
            "table inet partition {\n chain input {\n type filter hook input priority -10;\n udp dport 1-65535 drop\n }\n}\n",
        );
    }

    /// Undoes [`Host::deafen`].
    pub(crate) fn hear(&self) {
        self.rules("delete table inet partition\n");
    }

    /// Pulls the cable; sending fails with an error, too.
    pub(crate) fn unplug(&self) {
        self.namespace.ip("link set eth0 down");
    }

    /// Undoes [`Host::unplug`].
    pub(crate) fn plug(&self) {
        self.namespace.ip("link set eth0 up");
        self.namespace.ip("route replace 224.0.0.0/4 dev eth0");
    }

    fn rules(&self, rules: &str) {
        self.namespace
            .nft(rules)
            .unwrap_or_else(|error| panic!("{error}: {rules}"));
    }
}
