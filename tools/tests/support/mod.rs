//! Runs the command `fulmar` the way a shell does, and waits for what it prints rather than for time to pass.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The command with arguments, split at spaces, and without the settings of whoever runs the tests.
pub(crate) fn fulmar(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.args(line.split_whitespace());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AERON_") || name.starts_with("FULMAR_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs to the end.
pub(crate) fn run(line: &str) -> Output {
    fulmar(line).output().expect("the command runs")
}

/// Runs to the end with this standard input.
pub(crate) fn run_with_input(line: &str, input: &[u8]) -> Output {
    let mut child = fulmar(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The command may refuse before it has read everything.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("the command ends")
    })
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Exit status 0, or a panic with what the command said.
pub(crate) fn assert_done(output: &Output) {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(output),
        stderr(output)
    );
}

/// Exit status 1 and one sentence on standard error that contains each of `words`.
pub(crate) fn assert_failed(output: &Output, words: &[&str]) {
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}{}",
        stdout(output),
        stderr(output)
    );
    let text = stderr(output);
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// Waits until a pipe whose other end is written to holds about all it can: partly filled pages may remain.
pub(crate) fn await_full(pipe: &impl AsRawFd) {
    // SAFETY: asks for a number only; the descriptor is open for as long as it is borrowed.
    let capacity = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
    assert!(capacity > 0, "a pipe");
    let mut held = 0;
    while held < capacity - 2 * 4096 {
        // SAFETY: the call stores one int, and `held` is one, exclusively borrowed.
        let asked = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut held) };
        assert_eq!(asked, 0);
        std::thread::yield_now();
    }
}

/// A directory name in shared memory that nobody else uses; removed at the end.
pub(crate) struct Dir(String);

impl Dir {
    pub(crate) fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Dir(format!("/dev/shm/fulmar-test-{}-{next}", std::process::id()))
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command that runs beside the test; ended with SIGTERM when dropped.
pub(crate) struct Running {
    child: Child,
    stderr: Option<BufReader<std::process::ChildStderr>>,
}

impl Running {
    /// Starts with piped output.
    pub(crate) fn start(line: &str) -> Running {
        Running::start_with(line, Stdio::null())
    }

    pub(crate) fn start_with(line: &str, stdin: Stdio) -> Running {
        let mut child = fulmar(line)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stderr = child.stderr.take().map(BufReader::new);
        Running { child, stderr }
    }

    /// Waits for a line on standard error that contains `text`.
    pub(crate) fn await_stderr(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let reader = self.stderr.as_mut().expect("not taken");
        loop {
            let mut line = String::new();
            let length = reader.read_line(&mut line).expect("text");
            assert!(length > 0, "ended without `{text}`: {seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// The standard input, if it is piped.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    /// The standard output.
    pub(crate) fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.stdout.take().expect("piped"))
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that has not been waited for, so the id is still its own.
        unsafe {
            libc::kill(
                libc::pid_t::try_from(self.child.id()).expect("a process id"),
                signal,
            );
        }
    }

    /// Waits for the end; what has not been read of the output yet is in the result.
    pub(crate) fn finish(mut self) -> Output {
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let out = self.child.stdout.take();
        let err = self.stderr.take();
        std::thread::scope(|scope| {
            scope.spawn(|| out.map(|mut out| out.read_to_end(&mut stdout)));
            scope.spawn(|| err.map(|mut err| err.read_to_end(&mut stderr)));
        });
        let status = self.child.wait().expect("the command ends");
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// SIGTERM, then [`Running::finish`].
    pub(crate) fn stop(self) -> Output {
        self.signal(libc::SIGTERM);
        self.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(libc::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// A driver in a directory of its own.
pub(crate) struct Driver {
    pub(crate) running: Option<Running>,
    dir: Dir,
}

impl Driver {
    pub(crate) fn start() -> Driver {
        Driver::start_with("")
    }

    pub(crate) fn start_with(options: &str) -> Driver {
        let dir = Dir::new();
        let mut running = Running::start(&format!(
            "driver --dir {} --threading shared {options}",
            dir.path()
        ));
        let mut line = String::new();
        let mut stdout = running.stdout();
        stdout.read_line(&mut line).expect("text");
        let pid = running.child.id();
        assert_eq!(line, format!("driver ready dir={} pid={pid}\n", dir.path()));
        Driver {
            running: Some(running),
            dir,
        }
    }

    /// `--dir` and the directory.
    pub(crate) fn at(&self) -> String {
        format!("--dir {}", self.dir.path())
    }

    pub(crate) fn dir(&self) -> &str {
        self.dir.path()
    }

    /// Stops it and says how it ended.
    pub(crate) fn stop(mut self) -> Output {
        self.running.take().expect("running").stop()
    }

    /// Waits for its own end.
    pub(crate) fn finish(mut self) -> Output {
        self.running.take().expect("running").finish()
    }
}

/// Bytes that look like nothing in particular, with lines of all lengths from 0 to about `longest`.
pub(crate) fn lines_of_all_lengths(total: usize, longest: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(total + longest + 1);
    while bytes.len() < total {
        // Short lines are as frequent as long ones are.
        let bits = next() % u64::from(usize::BITS - longest.leading_zeros() + 1);
        let length = usize::try_from(next()).expect("64 bits") & ((1 << bits) - 1);
        for _ in 0..length.min(longest) {
            let byte = next().to_le_bytes()[3];
            bytes.push(if byte == b'\n' { 0 } else { byte });
        }
        bytes.push(b'\n');
    }
    bytes
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a text file")
}
