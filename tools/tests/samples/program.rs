//! A sample program in its own process, a driver to run it on, and what our tools say of that driver.

use std::io::Write;
use std::process::{Child, Command};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar::time::SystemClock;
use serde_json::Value;

use crate::process::{Directory, Driver, Make, PATIENCE, eventually, lines_of, signal, spawn};

/// A program of Aeron's, with its output line by line.
pub struct Program {
    name: &'static str,
    child: Child,
    output: Receiver<String>,
    errors: Receiver<String>,
    lines: Vec<String>,
}

impl Program {
    /// Starts a program; `input` is all that it can read.
    pub fn start(name: &'static str, arguments: &[&str], input: &str) -> Program {
        let path = concat!(env!("AERON_SAMPLES"), "/");
        let path = format!("{path}{name}");
        // Into a pipe the C library writes when its buffer is full, unless it is told to write lines.
        let mut words = vec!["-oL", path.as_str()];
        words.extend_from_slice(arguments);
        let mut child = spawn("stdbuf", &words, &[("TZ", "UTC")]);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("it just started");
        let output = lines_of(child.stdout.take().expect("piped"));
        let errors = lines_of(child.stderr.take().expect("piped"));
        Program {
            name,
            child,
            output,
            errors,
            lines: Vec::new(),
        }
    }

    /// Waits for a line that answers the description, among those that nobody waited for yet.
    pub fn line(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = SystemClock.nanos() + PATIENCE;
        while !deadline.is_due(SystemClock.nanos()) {
            let Ok(line) = self.output.recv_timeout(Duration::from_millis(100)) else {
                continue;
            };
            self.lines.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
        panic!("{}: no {what} in {:#?}", self.name, self.lines);
    }

    /// Waits for a line with these words in it.
    pub fn says(&mut self, words: &str) -> String {
        self.line(words, |line| line.contains(words))
    }

    /// Stops it as a user would and takes its output; it must stop in the usual way.
    pub fn interrupt(self) -> Vec<String> {
        signal(&self.child, libc::SIGINT);
        self.ended(0)
    }

    /// Waits for its end with an exit status and takes its output. It must not have complained.
    pub fn ended(mut self, status: i32) -> Vec<String> {
        let complaints = self.wait(status);
        assert!(complaints.is_empty(), "{}: {complaints:#?}", self.name);
        std::mem::take(&mut self.lines)
    }

    /// Waits for the end of a program that fails, and takes what it complains of.
    pub fn failed(mut self) -> Vec<String> {
        self.wait(1)
    }

    fn wait(&mut self, status: i32) -> Vec<String> {
        let mut ended = None;
        eventually(self.name, || {
            ended = self.child.try_wait().expect("our child");
            ended.is_some()
        });
        self.lines.extend(self.output.iter());
        let complaints: Vec<String> = self.errors.iter().collect();
        let ended = ended.and_then(|it| it.code());
        assert_eq!(
            ended,
            Some(status),
            "{}: {:#?} {complaints:#?}",
            self.name,
            self.lines
        );
        complaints
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be at a point where it does not look at signals.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Programs that spin run one scene at a time: two of them on few cores wait for each other's turns.
static SPINNING: Mutex<()> = Mutex::new(());

/// A driver and its directory.
pub struct Scene {
    pub driver: Driver,
    pub dir: Directory,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Scene {
    /// For programs that rest.
    pub fn new(make: Make, settings: &[(&str, &str)]) -> Scene {
        let dir = Directory::new();
        let driver = Driver::start(make, &dir, settings);
        Scene {
            driver,
            dir,
            _turn: None,
        }
    }

    /// For programs that spin.
    pub fn spinning(make: Make, settings: &[(&str, &str)]) -> Scene {
        let turn = SPINNING.lock().unwrap_or_else(PoisonError::into_inner);
        Scene {
            _turn: Some(turn),
            ..Scene::new(make, settings)
        }
    }

    /// Starts a program that takes the directory as `-p`.
    pub fn start(&self, name: &'static str, arguments: &[&str]) -> Program {
        self.start_with_input(name, arguments, "")
    }

    /// As [`Self::start`], with something to read.
    pub fn start_with_input(&self, name: &'static str, arguments: &[&str], input: &str) -> Program {
        let mut words = vec!["-p", self.dir.path()];
        words.extend_from_slice(arguments);
        Program::start(name, &words, input)
    }

    /// Runs one of the readers, which take the directory as `-d`, to its end.
    pub fn read(&self, name: &'static str, arguments: &[&str]) -> Vec<String> {
        let mut words = vec!["-d", self.dir.path()];
        words.extend_from_slice(arguments);
        Program::start(name, &words, "").ended(0)
    }

    /// What one of our readers says of the driver.
    pub fn fulmar(&self, command: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_fulmar"))
            .args([command, "--json", "--dir", self.dir.path()])
            .output()
            .expect("it starts");
        assert!(output.status.success(), "fulmar {command}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The value of a system counter.
    pub fn system_counter(&self, id: i64) -> i64 {
        let counters = self.fulmar("stat");
        let counter = counters
            .as_array()
            .and_then(|counters| counters.iter().find(|counter| counter["id"] == id));
        counter.expect("a system counter")["value"]
            .as_i64()
            .expect("a number")
    }

    /// Waits until the driver has no streams any more.
    pub fn streams_are_gone(&self) {
        eventually("the streams go", || {
            self.fulmar("streams")["streams"] == Value::Array(Vec::new())
        });
    }
}
