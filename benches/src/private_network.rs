//! A network of our own for a measurement: the loopback interface of a fresh network namespace, which only the threads
//! of the measurement see, where datagrams can be lost at random; or two namespaces with a pair of interfaces between
//! them, as two hosts. All of it ends with the threads, and nothing outside is touched.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::side::BenchError;

/// What the loopback interface does to UDP datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire {
    /// Of a thousand datagrams so many are lost, at random.
    pub lost_in_a_thousand: u32,
}

/// Why there can be no private network here; `None` if there can.
#[must_use]
pub fn missing() -> Option<String> {
    missing_tool(&[("ip", "-V"), ("nft", "-v"), ("ethtool", "--version")])
        .or_else(|| reason(inside(Wire::default(), || Ok(()))))
}

/// Why there can be no two hosts here; `None` if there can.
#[must_use]
pub fn missing_hosts() -> Option<String> {
    missing_tool(&[("ip", "-V")]).or_else(|| reason(between_hosts(|_| Ok(()))))
}

fn missing_tool(tools: &[(&str, &str)]) -> Option<String> {
    let missing = |(tool, argument): &&(&str, &str)| Command::new(tool).arg(argument).output().is_err();
    let (tool, _) = tools.iter().find(missing)?;
    Some(format!(
        "the command `{tool}` is not installed (packages iproute2, nftables, ethtool)"
    ))
}

fn reason(result: Result<(), BenchError>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

/// Runs `work` on a thread whose sockets, and those of the threads it starts, are in a network namespace of their own.
/// Its loopback interface gives single datagrams, as a wire does, so that each is lost alone: runs that the system hands
/// over in one piece would be lost as a whole.
///
/// # Errors
/// Set-up that fails, and those of `work`.
pub fn inside<T: Send>(
    wire: Wire,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    on_own_thread(|| {
        enter()?;
        ip("link set lo up")?;
        run(
            Command::new("ethtool").args(["-K", "lo", "tx-udp-segmentation", "off"]),
            "",
        )?;
        if wire.lost_in_a_thousand > 0 {
            let rules = format!(
                "table inet loss {{ chain input {{ type filter hook input priority 0; meta l4proto udp numgen \
                 random mod 1000 < {} drop; }}; }}\n",
                wire.lost_in_a_thousand
            );
            run(Command::new("nft").args(["-f", "-"]), &rules)?;
        }
        work()
    })
}

/// The address of the host that `work` of [`between_hosts`] runs on.
pub const NEAR_ADDRESS: &str = "10.91.0.1";
/// The address of the other host.
pub const FAR_ADDRESS: &str = "10.91.0.2";

/// Runs `work` on a thread in a network namespace of its own, which is joined to another one by a pair of virtual
/// Ethernet interfaces as they come; threads of `work` may enter that one.
///
/// # Errors
/// Set-up that fails, and those of `work`.
pub fn between_hosts<T: Send>(
    work: impl FnOnce(&Namespace) -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    on_own_thread(|| {
        enter()?;
        let far = Namespace::current()?;
        enter()?;
        let near = Namespace::current()?;
        ip("link add near0 type veth peer name far0")?;
        ip(&format!("link set far0 netns {}", far.path()))?;
        set_up_host("near0", NEAR_ADDRESS)?;
        far.enter()?;
        set_up_host("far0", FAR_ADDRESS)?;
        near.enter()?;
        work(&far)
    })
}

fn set_up_host(interface: &str, address: &str) -> Result<(), BenchError> {
    ip("link set lo up")?;
    ip(&format!("address add {address}/24 dev {interface}"))?;
    ip(&format!("link set {interface} up"))
}

/// A network namespace that threads of this process may enter.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// That of the calling thread.
    fn current() -> Result<Namespace, BenchError> {
        Ok(Namespace(Arc::new(File::open("/proc/thread-self/ns/net")?)))
    }

    /// Where other processes find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Moves the calling thread into it, and the threads that it starts from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn enter(&self) -> Result<(), BenchError> {
        // SAFETY: takes no memory of ours; the descriptor is open as long as `self`; only the calling thread is moved.
        if unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
            Ok(())
        } else {
            Err(format!(
                "not in the network namespace: {}",
                std::io::Error::last_os_error()
            )
            .into())
        }
    }
}

/// The thread that moves to another namespace is one that ends with `work`.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, BenchError> + Send) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread.join().map_err(|_| "the measuring thread panicked")?
    })
}

/// Runs the command `ip` in the namespace of the calling thread.
fn ip(arguments: &str) -> Result<(), BenchError> {
    run(Command::new("ip").args(arguments.split(' ')), "")
}

/// Moves the calling thread into a network namespace of its own, which ends with its last thread.
fn enter() -> Result<(), BenchError> {
    // SAFETY: takes no memory of ours; only the calling thread is moved.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(format!("no network namespace: {}", std::io::Error::last_os_error()).into())
    }
}

/// Runs a command to its end.
fn run(command: &mut Command, input: &str) -> Result<(), BenchError> {
    let failed = |what: &dyn core::fmt::Display, command: &Command| -> BenchError {
        format!("{command:?}: {what}").into()
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error, command))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(&String::from_utf8_lossy(&output.stderr), command))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_types, reason = "shows which sockets see the network")]

    use core::time::Duration;
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn two_hosts_reach_each_other_and_are_gone_afterwards() {
        if let Some(missing) = missing_hosts() {
            eprintln!("not tested: {missing}");
            return;
        }
        let received = between_hosts(|far| {
            let near = UdpSocket::bind((NEAR_ADDRESS, 0))?;
            near.set_read_timeout(Some(Duration::from_secs(10)))?;
            let address = near.local_addr()?;
            std::thread::scope(|scope| {
                let sent = scope.spawn(move || {
                    far.enter()?;
                    let socket = UdpSocket::bind((FAR_ADDRESS, 0))?;
                    Ok::<_, BenchError>((socket.send_to(b"hello", address)?, socket.local_addr()?))
                });
                let (length, sender) = sent.join().map_err(|_| "panicked")??;
                let mut bytes = [0; 16];
                let received = near.recv_from(&mut bytes)?;
                Ok((received == (length, sender), bytes))
            })
        });
        let (is_from_far, bytes) = received.map_err(|error| error.to_string()).expect("a network");
        assert!(is_from_far && bytes.starts_with(b"hello"));
        // The threads of the test itself never were there.
        for address in [NEAR_ADDRESS, FAR_ADDRESS] {
            assert!(UdpSocket::bind((address, 0)).is_err(), "{address}");
        }
    }
}
