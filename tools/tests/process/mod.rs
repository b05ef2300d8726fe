//! A driver as a process of its own, in a directory of its own, and a client made of the driver's files alone.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fulmar::agent::idle;
use fulmar::agent::process::{ProcessId, start_time_of};
use fulmar::cnc::extension::ClientSlot;
use fulmar::cnc::{CncFile, Extension};
use fulmar::control::command::CommandHeader;
use fulmar::control::{Command as Request, ErrorCode, Response, Text};
use fulmar::counters::CounterRecord;
use fulmar::directory::{Directory, FsDirectory};
use fulmar::id::{ClientId, CorrelationId, StreamId};
use fulmar::memory::View;
use fulmar::report::error_log;
use fulmar::ring::BroadcastReceiver;
use fulmar::time::{Clock, SystemClock};

/// No test waits longer than this for anything; it only bounds how long a failure takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A name in shared memory for one driver directory; everything of that name is removed at the end.
pub(crate) struct Home {
    pub(crate) dir: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: format!("/dev/shm/fulmar-process-{}-{next}", std::process::id()),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join(name)
    }

    /// The name of a file that is not in the directory.
    pub(crate) fn beside(&self, name: &str) -> String {
        format!("{}-{name}", self.dir)
    }

    pub(crate) fn command(&self, variables: &[(&str, &str)]) -> Command {
        self.command_named("driver", variables)
    }

    /// A command without the settings of whoever runs the tests.
    pub(crate) fn command_named(&self, name: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AERON_") || name.to_string_lossy().starts_with("FULMAR_") {
                command.env_remove(&name);
            }
        }
        command
            .arg(name)
            .env("AERON_DIR", &self.dir)
            .envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn cnc(&self) -> CncFile {
        let region = FsDirectory::new(self.dir.as_str())
            .map_cnc()
            .expect("cnc.dat can be mapped");
        CncFile::open(&region).expect("cnc.dat is complete")
    }

    pub(crate) fn saved_error_logs(&self) -> Vec<String> {
        self.siblings()
            .filter(|path| path.to_string_lossy().ends_with("-error.log"))
            .map(|path| std::fs::read_to_string(path).expect("text"))
            .collect()
    }

    pub(crate) fn siblings(&self) -> impl Iterator<Item = PathBuf> {
        let prefix = format!("{}-", self.dir);
        let entries = std::fs::read_dir("/dev/shm").expect("shared memory is there");
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(move |path| path.to_string_lossy().starts_with(&prefix))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
        for path in self.siblings() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A process that does not outlive the test.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A driver process that has said that it is ready; killed when dropped.
pub(crate) struct Driver {
    pub(crate) process: Reaped,
    pub(crate) stdout: BufReader<std::process::ChildStdout>,
    pub(crate) ready: String,
}

impl Driver {
    pub(crate) fn start(home: &Home, variables: &[(&str, &str)]) -> Self {
        let mut child = home
            .command(variables)
            .spawn()
            .expect("the driver can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("text");
        if ready.is_empty() {
            let output = child.wait_with_output().expect("it ended");
            panic!("the driver did not start: {}", text(&output.stderr));
        }
        Self {
            process: Reaped(child),
            stdout,
            ready: ready.trim_end().to_owned(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a shell");
        assert!(status.success());
    }

    pub(crate) fn stop(self, signal: &str) -> Output {
        self.signal(signal);
        self.finish()
    }

    /// What it printed after the first line, and its status, when it has ended.
    pub(crate) fn finish(mut self) -> Output {
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).expect("read");
        let mut stderr = Vec::new();
        self.process
            .0
            .stderr
            .take()
            .expect("piped")
            .read_to_end(&mut stderr)
            .expect("read");
        let status = self.process.0.wait().expect("it ended");
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

/// Runs a driver that is expected not to start.
pub(crate) fn run_driver(home: &Home, variables: &[(&str, &str)]) -> Output {
    home.command(variables)
        .output()
        .expect("the driver can be started")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A client made of the files alone: the ring, the broadcast buffer and the counters.
pub(crate) struct Wire {
    pub(crate) cnc: CncFile,
    pub(crate) responses: BroadcastReceiver<View>,
    pub(crate) client_id: i64,
    /// Correlation id of the last request.
    pub(crate) last: i64,
}

/// What the driver answers: the path of a log if there is one, or its error.
pub(crate) type Answer = Result<Option<String>, (ErrorCode, String)>;

impl Wire {
    pub(crate) fn attach(home: &Home) -> Self {
        let cnc = home.cnc();
        let responses = BroadcastReceiver::new(cnc.to_clients()).expect("a broadcast buffer");
        let client_id = cnc.to_driver_ring().next_correlation_id();
        Self {
            cnc,
            responses,
            client_id,
            last: 0,
        }
    }

    pub(crate) fn add_publication(
        &mut self,
        channel: &str,
        stream_id: i32,
    ) -> Result<String, (ErrorCode, String)> {
        let channel = Text::from(channel);
        let request = Request::AddPublication {
            stream_id: StreamId(stream_id),
            channel,
        };
        self.ask(&request)
            .map(|log| log.expect("a publication has a log"))
    }

    pub(crate) fn add_subscription(
        &mut self,
        channel: &str,
        stream_id: i32,
    ) -> Result<(), (ErrorCode, String)> {
        let channel = Text::from(channel);
        self.ask(&Request::AddSubscription {
            stream_id: StreamId(stream_id),
            channel,
        })
        .map(|_| ())
    }

    /// Says in the extension file that this client is `process`.
    pub(crate) fn claim_slot(&self, home: &Home, process: &Child) -> ClientSlot {
        let pid = i64::from(process.id());
        let process = ProcessId {
            pid,
            start_time_ticks: start_time_of(pid).expect("it runs"),
            ..ProcessId::current()
        };
        let region = FsDirectory::new(home.dir.as_str())
            .map_extension()
            .expect("our driver has one");
        let extension = Extension::open(&region, self.cnc.start_timestamp()).expect("of this driver");
        extension
            .claim_client_slot(ClientId(self.client_id), process)
            .expect("room")
    }

    pub(crate) fn terminate(&self, token: &[u8]) {
        let client_id = self.cnc.to_driver_ring().next_correlation_id();
        self.send(&Request::TerminateDriver { token }, client_id, -1);
    }

    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.last = self.cnc.to_driver_ring().next_correlation_id();
        self.send(request, self.client_id, self.last);
        self.answer(CorrelationId(self.last))
    }

    pub(crate) fn send(&self, request: &Request<'_>, client_id: i64, correlation_id: i64) {
        let header = CommandHeader {
            client_id: ClientId(client_id),
            correlation_id: CorrelationId(correlation_id),
        };
        let mut payload = Vec::new();
        let type_id = request.encode(header, &mut payload);
        self.cnc
            .to_driver_ring()
            .write(type_id, &payload)
            .expect("room in the ring");
    }

    pub(crate) fn answer(&mut self, wanted: CorrelationId) -> Answer {
        let mut scratch = Vec::new();
        let mut answer = None;
        await_that("an answer of the driver", || {
            while let Some(type_id) = self.responses.receive(&mut scratch).expect("not lapped") {
                let response = Response::decode(type_id, &scratch).expect("a response");
                let found = answer_to(&response, wanted);
                if found.is_some() {
                    answer = found;
                    return true;
                }
            }
            false
        });
        answer.expect("the wait ended with an answer")
    }
}

pub(crate) fn answer_to(response: &Response<'_>, wanted: CorrelationId) -> Option<Answer> {
    match response {
        Response::Error {
            correlation_id,
            error_code,
            message,
        } if *correlation_id == wanted => Some(Err((*error_code, message.to_string_lossy()))),
        Response::PublicationReady(ready) if ready.correlation_id == wanted => {
            Some(Ok(Some(ready.log_path.to_string_lossy())))
        }
        Response::SubscriptionReady { correlation_id, .. }
        | Response::OperationSuccess { correlation_id }
            if *correlation_id == wanted =>
        {
            Some(Ok(None))
        }
        _ => None,
    }
}

pub(crate) fn counters(cnc: &CncFile) -> Vec<CounterRecord> {
    let mut all = Vec::new();
    cnc.counters().for_each(|counter| all.push(counter));
    all
}

/// The distinct errors: how often, and the text.
pub(crate) fn errors(cnc: &CncFile) -> Vec<(i32, String)> {
    error_log::read_all(&cnc.error_log())
        .into_iter()
        .map(|record| (record.count, record.text))
        .collect()
}

pub(crate) fn heartbeat_age_ms(cnc: &CncFile) -> i64 {
    SystemClock.now().epoch.0 - cnc.driver_heartbeat().0
}

pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.nanos() + PATIENCE;
    while !holds() {
        assert!(!deadline.is_due(SystemClock.nanos()), "waited in vain for {what}");
        idle::sleep(Duration::from_millis(1));
    }
}
