//! A media driver, ours or Aeron's C driver, as a process on a host.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

use fulmar::client::{Client, ClientSettings};
use fulmar::cnc::CncFile;
use fulmar::counters::CounterRecord;
use fulmar::directory::{Directory as _, FsDirectory};
use fulmar::sync::{AtomicU32, Ordering};

use crate::network::Host;

/// Whose driver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// Aeron's.
    #[cfg(feature = "peer")]
    C,
    /// Ours.
    Fulmar,
}

/// Small files, and nothing that a machine with two processors could not run six times; tests may choose otherwise.
const COMMON: &[(&str, &str)] = &[
    ("AERON_THREADING_MODE", "SHARED"),
    ("AERON_SHARED_IDLE_STRATEGY", "backoff"),
    ("AERON_TERM_BUFFER_LENGTH", "1m"),
    ("AERON_IPC_TERM_BUFFER_LENGTH", "1m"),
    ("AERON_COUNTERS_BUFFER_LENGTH", "1m"),
    ("AERON_PRINT_CONFIGURATION", "false"),
];

/// A driver process in a directory of its own; both are gone when it is dropped.
pub(crate) struct Driver {
    child: Mutex<Child>,
    stdin: Option<ChildStdin>,
    dir: String,
}

impl Driver {
    /// Starts one on `host` and waits until it serves.
    pub(crate) fn start(make: Make, host: &Host, settings: &[(&str, &str)]) -> Driver {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = format!("/dev/shm/fulmar-net-{}-{number}", std::process::id());
        let mut command = match make {
            #[cfg(feature = "peer")]
            Make::C => Command::new(env!("CARGO_BIN_EXE_peer-driver")),
            Make::Fulmar => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
                command.arg("driver");
                command
            }
        };
        without_settings(&mut command);
        if make == Make::Fulmar {
            // The default idle strategy is what users run.
            command.envs(
                COMMON
                    .iter()
                    .filter(|(name, _)| !name.ends_with("STRATEGY"))
                    .copied(),
            );
        } else {
            command.envs(COMMON.iter().copied());
        }
        command.env("AERON_DIR", &dir).envs(settings.iter().copied());
        host.namespace.enter(&mut command);
        ends_with_its_parent(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the driver starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stdin = child.stdin.take();
        let driver = Driver {
            child: Mutex::new(child),
            stdin,
            dir,
        };
        let mut line = String::new();
        while !line.starts_with("driver ready") {
            line.clear();
            let length = stdout.read_line(&mut line).expect("text");
            assert!(length > 0, "{make:?} driver ended before it was ready");
        }
        drain(stdout);
        driver
    }

    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// A client of this driver in the test's own process; shared memory knows no namespaces of networks.
    pub(crate) fn client(&self) -> Client {
        Client::connect(ClientSettings {
            reattach: false,
            ..ClientSettings::with_dir(self.dir.as_str())
        })
        .expect("a live driver")
    }

    pub(crate) fn cnc(&self) -> CncFile {
        let region = FsDirectory::new(self.dir.as_str())
            .map_cnc()
            .expect("a live driver");
        CncFile::open(&region).expect("a live driver")
    }

    pub(crate) fn counters(&self) -> Vec<CounterRecord> {
        let mut records = Vec::new();
        self.cnc().counters().for_each(|record| records.push(record));
        records
    }

    /// The value of a system counter.
    pub(crate) fn system_counter(&self, id: fulmar::counters::SystemCounter) -> i64 {
        let value = self.cnc().counters().value(fulmar::id::CounterId(id as i32));
        value.expect("a live driver has every system counter")
    }

    pub(crate) fn signal(&self, signal: i32) {
        send_signal(&self.child.lock().expect("no panic"), signal);
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().expect("no panic");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Fails if it has ended.
    pub(crate) fn assert_running(&self) {
        let status = self
            .child
            .lock()
            .expect("no panic")
            .try_wait()
            .expect("our child");
        assert_eq!(status, None, "the driver in {} ended", self.dir);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let child = self
            .child
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A command without the settings of whoever runs the tests.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AERON_") || text.starts_with("FULMAR_") {
            command.env_remove(&name);
        }
    }
}

/// A test run that is killed leaves no process behind.
pub(crate) fn ends_with_its_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call without pointers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

pub(crate) fn send_signal(child: &Child, signal: i32) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: the process is our child and not yet waited for, so its id can not belong to anybody else.
    unsafe { libc::kill(pid, signal) };
}

/// Keeps a pipe from filling up.
#[expect(
    clippy::disallowed_methods,
    reason = "a pipe needs a reader for as long as its writer lives"
)]
fn drain(mut output: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
}
