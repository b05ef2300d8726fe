//! Driver and client processes of either make, and the directory they share.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use fulmar::sync::{AtomicU32, Ordering};
use fulmar::time::{NanoTime, SystemClock};

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Aeron's C driver or C client.
    C,
    /// Ours.
    Fulmar,
}

/// How long anything may take that is not waited for with its own limit: generous, since machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of every driver: small logs, so that tests are quick, and one driver thread.
const COMMON: &[(&str, &str)] = &[
    ("AERON_THREADING_MODE", "SHARED"),
    ("AERON_IPC_TERM_BUFFER_LENGTH", "1m"),
    ("AERON_TERM_BUFFER_LENGTH", "1m"),
    ("AERON_COUNTERS_BUFFER_LENGTH", "1m"),
    ("AERON_PRINT_CONFIGURATION", "false"),
];

/// Sleeps; for polling what another process does.
#[expect(clippy::disallowed_methods, reason = "tests wait for other processes")]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Polls until `ready` or the patience is over.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = SystemClock.nanos() + PATIENCE;
    while !ready() {
        assert!(!deadline.is_due(SystemClock.nanos()), "did not happen: {what}");
        pause(5);
    }
}

/// Time since `start` in milliseconds.
pub fn millis_since(start: NanoTime) -> i64 {
    SystemClock.nanos().since(start) / 1_000_000
}

/// A driver directory that goes with the test.
pub struct Directory(PathBuf);

impl Directory {
    /// A path that does not exist yet, on the file system that drivers use.
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Directory(PathBuf::from(format!(
            "/dev/shm/fulmar-interop-{}-{number}",
            std::process::id()
        )))
    }

    /// The directory at a path that somebody else has chosen; it is removed all the same.
    pub fn at(path: &str) -> Directory {
        Directory(PathBuf::from(path))
    }

    /// A driver directory inside another one.
    pub fn below(parent: &Directory, name: &str) -> Directory {
        Directory(parent.0.join(name))
    }

    /// The path as text.
    pub fn path(&self) -> &str {
        self.0.to_str().expect("made from text")
    }

    /// A file below it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The files in a folder below it.
    pub fn list(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join(folder));
        entries
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // A driver that replaces a stale directory may leave a text of its errors beside it.
        let name = self
            .0
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_str()
                .is_some_and(|other| other.starts_with(&format!("{name}-")))
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Starts a program with pipes and without the settings of whoever runs the tests.
pub fn spawn(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    let mut command = Command::new(program);
    for (key, _) in
        std::env::vars().filter(|(key, _)| key.starts_with("AERON_") || key.starts_with("FULMAR_"))
    {
        command.env_remove(key);
    }
    command.args(arguments).envs(environment.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Sends a signal.
pub fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: the process is our child and not yet waited for, so its id can not belong to anybody else.
    unsafe { libc::kill(pid, signal) };
}

/// The lines of a program's output, as they come.
pub fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "a pipe needs a reader so that a test can give up waiting"
    )]
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A media driver in its own process.
pub struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    errors: Receiver<String>,
    make: Make,
}

impl Driver {
    /// Starts a driver and waits until it serves.
    pub fn start(make: Make, dir: &Directory, settings: &[(&str, &str)]) -> Driver {
        let mut driver = Driver::launch(make, dir, settings);
        match driver.ready() {
            Ok(()) => driver,
            Err(errors) => panic!("{make:?} driver did not start: {errors}"),
        }
    }

    /// Starts a driver without waiting.
    pub fn launch(make: Make, dir: &Directory, settings: &[(&str, &str)]) -> Driver {
        let mut environment = COMMON.to_vec();
        environment.extend_from_slice(settings);
        environment.push(("AERON_DIR", dir.path()));
        let mut child = match make {
            Make::C => spawn(env!("CARGO_BIN_EXE_peer-driver"), &[], &environment),
            Make::Fulmar => spawn(
                env!("CARGO_BIN_EXE_fulmar"),
                &["driver", "--dir", dir.path()],
                &environment,
            ),
        };
        let input = child.stdin.take();
        let output = lines_of(child.stdout.take().expect("piped"));
        let errors = lines_of(child.stderr.take().expect("piped"));
        Driver {
            child,
            input,
            output,
            errors,
            make,
        }
    }

    /// Waits for the ready line; otherwise says what the process complained about.
    pub fn ready(&mut self) -> Result<(), String> {
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with("driver ready") => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    return Err(format!(
                        "{error}: {}",
                        self.errors.iter().collect::<Vec<_>>().join(" | ")
                    ));
                }
            }
        }
    }

    /// Stops it cleanly and waits.
    pub fn stop(mut self) {
        self.ask_to_stop();
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "{:?} driver ended with {status}", self.make);
    }

    fn ask_to_stop(&mut self) {
        match self.make {
            Make::C => drop(self.input.take()),
            Make::Fulmar => signal(&self.child, libc::SIGTERM),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it on the spot.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Suspends it.
    pub fn suspend(&self) {
        signal(&self.child, libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(&self.child, libc::SIGCONT);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits until it ends by itself; whether it said success.
    pub fn ended(&mut self) -> bool {
        eventually("the driver ends", || !self.is_running());
        self.child.wait().expect("our child").success()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn parse_answer(line: &str) -> Result<String, String> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        (_, rest) => Err(rest.to_owned()),
    }
}

/// A client in its own process, obeying the commands of `peer/worker.rs`.
pub struct Client {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    make: Make,
}

impl Client {
    /// Starts a client process without connecting it.
    pub fn launch(make: Make) -> Client {
        Client::launch_with(make, &[])
    }

    /// As [`Client::launch`], with variables on top of the environment.
    pub fn launch_with(make: Make, environment: &[(&str, &str)]) -> Client {
        let program = match make {
            Make::C => env!("CARGO_BIN_EXE_peer-client"),
            Make::Fulmar => env!("CARGO_BIN_EXE_own-client"),
        };
        let mut child = spawn(program, &[], environment);
        let input = child.stdin.take().expect("piped");
        let output = lines_of(child.stdout.take().expect("piped"));
        Client {
            child,
            input,
            output,
            make,
        }
    }

    /// Starts a client and connects it.
    pub fn connect(make: Make, dir: &Directory) -> Client {
        let mut client = Client::launch(make);
        client.ok(&format!("connect {} 10000", dir.path()));
        client
    }

    /// Whose it is.
    pub fn make(&self) -> Make {
        self.make
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Sends a command without waiting for its answer.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// Waits for the next answer: the words after `ok`, or after `err`.
    pub fn answer(&mut self) -> Result<String, String> {
        let line = match self.output.recv_timeout(PATIENCE + PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{:?} client: no answer", self.make),
            Err(RecvTimeoutError::Disconnected) => panic!("{:?} client: the process ended", self.make),
        };
        parse_answer(&line)
    }

    /// The answer to an earlier [`Client::tell`], if it comes within so many milliseconds.
    pub fn answer_within(&mut self, millis: u64) -> Option<Result<String, String>> {
        match self.output.recv_timeout(Duration::from_millis(millis)) {
            Ok(line) => Some(parse_answer(&line)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("{:?} client: the process ended", self.make),
        }
    }

    /// A command and its answer.
    pub fn ask(&mut self, command: &str) -> Result<String, String> {
        self.tell(command);
        self.answer()
    }

    /// A command that must succeed.
    #[track_caller]
    pub fn ok(&mut self, command: &str) -> String {
        match self.ask(command) {
            Ok(answer) => answer,
            Err(error) => panic!("{:?} client: {command}: {error}", self.make),
        }
    }

    /// The answer to an earlier [`Client::tell`], which must be a success.
    #[track_caller]
    pub fn answered(&mut self) -> String {
        match self.answer() {
            Ok(answer) => answer,
            Err(error) => panic!("{:?} client: {error}", self.make),
        }
    }

    /// A command that must be refused; the code and the text.
    #[track_caller]
    pub fn refused(&mut self, command: &str) -> (i32, String) {
        match self.ask(command) {
            Ok(answer) => panic!("{:?} client: {command} succeeded: {answer}", self.make),
            Err(error) => {
                let (code, text) = error.split_once(' ').unwrap_or((&error, ""));
                (code.parse().unwrap_or(0), text.to_owned())
            }
        }
    }

    /// A command whose answer is one number.
    #[track_caller]
    pub fn number(&mut self, command: &str) -> i64 {
        let answer = self.ok(command);
        answer
            .parse()
            .unwrap_or_else(|_| panic!("{command}: not a number: {answer}"))
    }

    /// Kills it on the spot.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Suspends it.
    pub fn suspend(&self) {
        signal(&self.child, libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(&self.child, libc::SIGCONT);
    }

    /// Closes it cleanly and waits.
    pub fn close(mut self) {
        self.ok("disconnect");
    }

    /// Every counter that this client sees.
    pub fn counters(&mut self) -> Vec<Counter> {
        let answer = self.ok("counters");
        answer
            .split('\t')
            .filter(|line| !line.is_empty())
            .map(Counter::parse)
            .collect()
    }

    /// The counter with a type and a registration id.
    #[track_caller]
    pub fn counter(&mut self, type_id: i32, registration_id: i64) -> Counter {
        let counters = self.counters();
        let found = counters
            .iter()
            .find(|line| line.type_id == type_id && line.registration_id == registration_id);
        found
            .unwrap_or_else(|| panic!("no counter of type {type_id} for {registration_id} in {counters:#?}"))
            .clone()
    }

    /// The value of a system counter.
    #[track_caller]
    pub fn system_counter(&mut self, id: i64) -> i64 {
        self.counter(0, id).value
    }

    /// Adds a publication (`add_pub` or `add_xpub`).
    #[track_caller]
    pub fn publication(&mut self, command: &str) -> Publication {
        Publication::parse(&self.ok(command))
    }

    /// The images of a subscription.
    #[track_caller]
    pub fn images(&mut self, name: &str) -> Vec<Image> {
        let answer = self.ok(&format!("images {name}"));
        answer
            .split(' ')
            .filter(|line| !line.is_empty())
            .map(Image::parse)
            .collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A counter as a client process prints it.
#[derive(Clone, Debug)]
pub struct Counter {
    pub id: i32,
    pub type_id: i32,
    pub value: i64,
    pub registration_id: i64,
    pub owner_id: i64,
    pub reference_id: i64,
    pub key: String,
    pub label: String,
}

fn field<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("bad field: {text}"))
}

impl Counter {
    fn parse(line: &str) -> Counter {
        let fields: Vec<&str> = line.splitn(8, '|').collect();
        let [
            id,
            type_id,
            value,
            registration_id,
            owner_id,
            reference_id,
            key,
            label,
        ] = fields[..]
        else {
            panic!("bad counter line: {line}");
        };
        Counter {
            id: field(id),
            type_id: field(type_id),
            value: field(value),
            registration_id: field(registration_id),
            owner_id: field(owner_id),
            reference_id: field(reference_id),
            key: key.to_owned(),
            label: label.to_owned(),
        }
    }
}

/// A publication as a client process prints it.
#[derive(Clone, Debug)]
pub struct Publication {
    pub registration_id: i64,
    pub original_registration_id: i64,
    pub session_id: i32,
    pub initial_term_id: i32,
    pub term_length: i64,
    pub max_message_length: usize,
    pub max_payload_length: usize,
}

impl Publication {
    fn parse(line: &str) -> Publication {
        let fields: Vec<&str> = line.split(' ').collect();
        let [
            registration_id,
            original,
            session_id,
            initial_term_id,
            term_length,
            message,
            payload,
        ] = fields[..]
        else {
            panic!("bad publication line: {line}");
        };
        Publication {
            registration_id: field(registration_id),
            original_registration_id: field(original),
            session_id: field(session_id),
            initial_term_id: field(initial_term_id),
            term_length: field(term_length),
            max_message_length: field(message),
            max_payload_length: field(payload),
        }
    }

    /// Its log file.
    pub fn log(&self, dir: &Directory) -> PathBuf {
        dir.file(&format!(
            "publications/{}.logbuffer",
            self.original_registration_id
        ))
    }
}

/// An image as a client process prints it.
#[derive(Clone, Debug)]
pub struct Image {
    pub session_id: i32,
    pub correlation_id: i64,
    pub join_position: i64,
    pub position: i64,
    pub end_of_stream: bool,
    pub revoked: bool,
    pub source: String,
}

impl Image {
    fn parse(line: &str) -> Image {
        let fields: Vec<&str> = line.splitn(7, ':').collect();
        let [
            session_id,
            correlation_id,
            join,
            position,
            end_of_stream,
            revoked,
            source,
        ] = fields[..]
        else {
            panic!("bad image line: {line}");
        };
        Image {
            session_id: field(session_id),
            correlation_id: field(correlation_id),
            join_position: field(join),
            position: field(position),
            end_of_stream: field(end_of_stream),
            revoked: field(revoked),
            source: source.to_owned(),
        }
    }
}

/// What `poll` answered.
#[derive(Clone, Debug)]
pub struct Polled {
    /// Messages so far, since the subscription was added.
    pub messages: u64,
    /// Position after the last message of this poll.
    pub position: i64,
    /// Session of the last message.
    pub session_id: i32,
    /// Senders heard so far.
    pub senders: usize,
}

impl Polled {
    /// Reads the answer.
    pub fn parse(line: &str) -> Polled {
        let fields: Vec<&str> = line.split(' ').collect();
        let [messages, position, session_id, senders] = fields[..] else {
            panic!("bad poll line: {line}")
        };
        Polled {
            messages: field(messages),
            position: field(position),
            session_id: field(session_id),
            senders: field(senders),
        }
    }
}

/// The little-endian number at `offset` of a file.
pub fn read_i32(path: &Path, offset: usize) -> i32 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    i32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `offset` of a file.
pub fn read_i64(path: &Path, offset: usize) -> i64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    i64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}
