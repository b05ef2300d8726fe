//! A network of our own for a measurement: the loopback interface of a fresh network namespace, which only the threads
//! of the measurement see, where datagrams can be lost at random.

use std::io::Write as _;
use std::process::{Command, Stdio};

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
    for (tool, argument) in [("ip", "-V"), ("nft", "-v"), ("ethtool", "--version")] {
        if Command::new(tool).arg(argument).output().is_err() {
            return Some(format!(
                "the command `{tool}` is not installed (packages iproute2, nftables, ethtool)"
            ));
        }
    }
    inside(Wire::default(), || Ok(()))
        .err()
        .map(|error| error.to_string())
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
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            run(Command::new("ip").args(["link", "set", "lo", "up"]), "")?;
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
        });
        thread.join().map_err(|_| "the measuring thread panicked")?
    })
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
