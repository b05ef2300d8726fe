//! Processes that die, stop and come back, beside others that must not notice more than the promise allows
//! (docs/reliability.md, rows A1 to A10). Children are this test binary, started again with a role.
//!
//! `FULMAR_FAULT_ROUNDS` multiplies the rounds of the repeated tests (default 1).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests run threads, processes and clocks"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar::cnc::{CncFile, Extension};
use fulmar::id::RegistrationId;
use fulmar::log::LogBuffers;
use fulmar::memory::mapped;
use fulmar::{Claim, Client, ClientEvent, ClientSettings, CommitError, Publication, Subscription};
use fulmar_media_driver::{DriverSettings, MediaDriver};

const CHANNEL: &str = "aeron:ipc?term-length=64k";
const STREAM: i32 = 31;
/// Longest wait for something that must happen; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

fn rounds(base: usize) -> usize {
    base * std::env::var("FULMAR_FAULT_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

// Children

struct Role {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Role {
    fn start(role: &str, arguments: &[&str]) -> Role {
        Self::start_with(role, arguments, &[])
    }

    fn start_with(role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Role {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env("FULMAR_CHILD_ROLE", role)
            .env("FULMAR_CHILD_ARGUMENTS", arguments.join("\n"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Role { child, output }
    }

    /// The rest of the next line that starts with `word`.
    fn expect(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the child ended before it said {word}");
            if let Some((_, rest)) = line.split_once(&format!("@{word}")) {
                return rest.trim().to_owned();
            }
            assert!(!line.contains('@'), "waited for {word}, the child said {line}");
        }
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: no memory is passed; the pid is our own child's, which is not reaped before `self` is dropped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Ended already in most tests; a failed one must not leave a process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(word: &str, rest: impl core::fmt::Display) {
    println!("@{word} {rest}");
    std::io::stdout().flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn child() {
    let Ok(role) = std::env::var("FULMAR_CHILD_ROLE") else {
        assert!(
            std::env::var("FULMAR_CHILD_ARGUMENTS").is_err(),
            "a child has a role"
        );
        return;
    };
    let arguments = std::env::var("FULMAR_CHILD_ARGUMENTS").unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    match role.as_str() {
        "publisher" => publisher_child(arguments[0], arguments[1]),
        "claimer" => claimer_child(arguments[0]),
        "driver" => driver_child(arguments[0]),
        other => panic!("no role {other}"),
    }
}

fn settings(dir: &str) -> ClientSettings {
    ClientSettings {
        dir: dir.to_owned(),
        ..ClientSettings::default()
    }
}

/// Offers a few messages, then stops dead at one point of an append and waits to be killed.
fn publisher_child(dir: &str, point: &str) {
    let client = Client::connect(settings(dir)).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    for _ in 0..10 {
        while publication.offer(&u64::MAX.to_le_bytes()).position().is_none() {
            std::thread::yield_now();
        }
    }
    let registration = publication.original_registration_id();
    if point == "claim" {
        let claim = claim_room(&publication);
        say("stuck", point);
        hear();
        drop(claim);
        return;
    }
    // The same stores as an offer makes, ended after each of its steps.
    let directory = PathBuf::from(dir);
    let cnc = CncFile::open(&mapped::open(&directory.join("cnc.dat")).unwrap()).unwrap();
    let extension = Extension::open(
        &mapped::open(&directory.join("fulmar.dat")).unwrap(),
        cnc.start_timestamp(),
    )
    .unwrap();
    let log = LogBuffers::open(
        mapped::open(&directory.join(format!("publications/{}.logbuffer", registration.0))).unwrap(),
    )
    .unwrap();
    let tag = i64::from(std::process::id()) << 32 | 0x5eed;
    let slot = extension
        .claim_owner_slot(client.client_id(), tag, RegistrationId(registration.0))
        .unwrap();
    slot.enter();
    if point == "entered" {
        say("stuck", point);
        hear();
        return;
    }
    let metadata = log.metadata();
    let count = metadata.active_term_count_acquire();
    let partition = fulmar::position::partition_of_term_count(count);
    let raw = metadata.tail_fetch_add(partition, 160);
    if point == "reserved" {
        say("stuck", point);
        hear();
        return;
    }
    let shape = log.shape();
    let offset = (raw & 0xffff_ffff) as usize;
    if offset + 160 > shape.term_length() as usize {
        // It ran over the end of the term, where an offer would turn the log over: it dies before that.
        say("stuck", point);
        hear();
        return;
    }
    let position = shape.position(fulmar::id::TermId((raw >> 32) as i32), offset as i32);
    slot.claimed(position, 160);
    if point == "noted" {
        say("stuck", point);
        hear();
        return;
    }
    let term = log.term(partition);
    {
        use fulmar::memory::AtomicBuffer;
        term.buffer().store_release_i32(offset, -132);
        if point == "copied" {
            term.buffer().copy_in(offset + 32, &[7u8; 100]);
        }
    }
    say("stuck", point);
    hear();
}

/// Claims 100 bytes, as soon as there is room and the log does not turn over.
fn claim_room(publication: &Publication) -> Claim<'_> {
    loop {
        match publication.try_claim(100) {
            Ok(claim) => return claim,
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Takes a claim, says so, and commits when it is told to.
fn claimer_child(dir: &str) {
    let client = Client::connect(settings(dir)).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    say("ready", "");
    hear();
    let mut claim = claim_room(&publication);
    claim.buffer_mut().fill(0xAB);
    say("claimed", "");
    hear();
    match claim.commit() {
        Ok(position) => say("committed", position),
        Err(CommitError::ClaimRevoked) => say("refused", "revoked"),
        Err(other) => say("refused", other),
    }
    hear();
}

fn driver_child(dir: &str) {
    let mut settings = DriverSettings::defaults();
    settings.set("aeron.dir", dir).unwrap();
    settings.set("aeron.threading.mode", "dedicated").unwrap();
    let driver = MediaDriver::launch(settings.conclude().unwrap()).unwrap();
    say("ready", "");
    hear();
    drop(driver);
}

// Parents

fn embedded(pairs: &[(&str, &str)]) -> MediaDriver {
    let mut settings = DriverSettings::defaults();
    settings.set("aeron.threading.mode", "dedicated").unwrap();
    for (key, value) in pairs {
        settings.set(key, value).unwrap();
    }
    MediaDriver::embedded_with(settings).unwrap()
}

/// Polls until `done`, counting what survives: numbers of the surviving publisher in order.
#[derive(Default)]
struct Survivor {
    next: u64,
    received: u64,
    longest_silence: Duration,
    last: Option<Instant>,
}

impl Survivor {
    fn poll(&mut self, subscription: &mut Subscription) -> usize {
        let mut count = 0;
        subscription.poll(
            |payload, _| {
                let number = payload.read_u64(0).unwrap();
                if number == u64::MAX || number == 0xABAB_ABAB_ABAB_ABAB {
                    return;
                }
                assert_eq!(
                    number, self.received,
                    "messages of the survivor arrive in order, without gap or repeat"
                );
                self.received += 1;
                let now = Instant::now();
                if let Some(last) = self.last {
                    self.longest_silence = self.longest_silence.max(now - last);
                }
                self.last = Some(now);
                count += 1;
            },
            64,
        );
        count
    }

    fn offer(&mut self, publication: &Publication) -> bool {
        let offered = publication.offer(&self.next.to_le_bytes()).position().is_some();
        self.next += u64::from(offered);
        offered
    }
}

fn pump(
    survivor: &mut Survivor,
    publication: &Publication,
    subscription: &mut Subscription,
    length: Duration,
) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        survivor.offer(publication);
        survivor.poll(subscription);
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn drain(survivor: &mut Survivor, subscription: &mut Subscription) {
    let begun = Instant::now();
    while survivor.received < survivor.next {
        survivor.poll(subscription);
        assert!(
            begun.elapsed() < PATIENCE,
            "received {} of {}",
            survivor.received,
            survivor.next
        );
    }
}

fn stall_after_kill(point: &str) -> Duration {
    let driver = embedded(&[]);
    let client = Client::connect(settings(driver.dir())).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    let mut survivor = Survivor::default();
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(20),
    );
    let mut victim = Role::start("publisher", &[driver.dir(), point]);
    // The stream must keep moving while the victim starts, or its own offers find no room.
    victim.expect("stuck");
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(5),
    );
    let killed = Instant::now();
    survivor.last = None;
    survivor.longest_silence = Duration::ZERO;
    victim.kill();
    let target = survivor.next + 1;
    let begun = Instant::now();
    while survivor.received < target {
        survivor.offer(&publication);
        survivor.poll(&mut subscription);
        assert!(
            begun.elapsed() < PATIENCE,
            "point {point}: the stream stands still after its publisher was killed"
        );
    }
    let stall = killed.elapsed();
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(20),
    );
    drain(&mut survivor, &mut subscription);
    stall
}

#[test]
fn a_publisher_killed_at_any_point_of_an_append_holds_others_up_for_milliseconds() {
    for point in ["claim", "entered", "reserved", "noted", "header", "copied"] {
        let mut stalls: Vec<Duration> = (0..rounds(4)).map(|_| stall_after_kill(point)).collect();
        stalls.sort();
        let p99 = stalls[(stalls.len() * 99).div_ceil(100) - 1];
        println!(
            "killed at {point}: {} rounds, stall median {:?} p99 {p99:?} max {:?}",
            stalls.len(),
            stalls[stalls.len() / 2],
            stalls[stalls.len() - 1]
        );
        assert!(
            stalls[stalls.len() - 1] < Duration::from_millis(250),
            "killed at {point}: {stalls:?}"
        );
    }
}

/// A claim stays open while more than three terms go by; its frame is somebody else's memory by the time of the commit.
/// Returns what the commit said.
fn late_commit(stop: bool) -> String {
    // Short timeouts; the order between them is what the driver demands.
    let driver = embedded(&[
        ("aeron.timer.interval", "100ms"),
        ("aeron.client.liveness.timeout", "1s"),
        ("aeron.publication.unblock.timeout", "1500ms"),
    ]);
    let client = Client::connect(settings(driver.dir())).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    let mut survivor = Survivor::default();
    let mut zombie = Role::start("claimer", &[driver.dir()]);
    zombie.expect("ready");
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(20),
    );
    zombie.tell("claim");
    zombie.expect("claimed");
    if stop {
        zombie.signal(libc::SIGSTOP);
    }
    let before = survivor.received;
    let begun = Instant::now();
    while survivor.received < before + 3 * 65536 / 64 + 2000 {
        survivor.offer(&publication);
        survivor.poll(&mut subscription);
        assert!(begun.elapsed() < PATIENCE, "the stream is not unblocked");
    }
    if stop {
        zombie.signal(libc::SIGCONT);
    }
    zombie.tell("commit");
    let answer = zombie.expect("refused");
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(100),
    );
    drain(&mut survivor, &mut subscription);
    assert_eq!(survivor.received, survivor.next);
    answer
}

#[test]
fn a_publisher_stopped_in_a_claim_is_unblocked_and_its_late_commit_is_refused() {
    for _ in 0..rounds(2) {
        // Either its claim is gone, or it already knows that the driver has given it up.
        let answer = late_commit(true);
        println!("stopped, resumed, commit says: {answer}");
        assert!(!answer.is_empty());
    }
}

#[test]
fn a_claim_held_open_for_too_long_is_taken_away_and_its_commit_says_so() {
    assert_eq!(late_commit(false), "revoked");
}

#[test]
fn a_killed_driver_is_noticed_at_once_and_its_successor_is_joined_with_the_same_handles() {
    let parent = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = parent.path().join("driver");
    let dir = dir.to_str().unwrap();
    let mut detections = Vec::new();
    let mut returns = Vec::new();
    for _ in 0..rounds(3) {
        let mut driver = Role::start("driver", &[dir]);
        driver.expect("ready");
        let events: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let sink = Arc::clone(&events);
        let client = Client::connect(ClientSettings {
            on_event: Some(Arc::new(move |event: &ClientEvent| {
                let name = match event {
                    ClientEvent::DriverLost { .. } => "lost",
                    ClientEvent::Reattached { .. } => "reattached",
                    _ => "other",
                };
                sink.lock().unwrap().push((Instant::now(), name.to_owned()));
            })),
            ..settings(dir)
        })
        .unwrap();
        let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
        let publication = client.add_publication(CHANNEL, STREAM).unwrap();
        let mut survivor = Survivor::default();
        pump(
            &mut survivor,
            &publication,
            &mut subscription,
            Duration::from_millis(20),
        );
        drain(&mut survivor, &mut subscription);
        let killed = Instant::now();
        driver.kill();
        let lost = wait_for(&events, "lost");
        detections.push(lost - killed);
        assert!(
            publication.offer(b"12345678").position().is_none(),
            "nobody listens to a dead driver's stream"
        );
        let mut successor = Role::start("driver", &[dir]);
        successor.expect("ready");
        let ready = Instant::now();
        let back = wait_for(&events, "reattached");
        let begun = Instant::now();
        let mut fresh = Survivor::default();
        while fresh.received < 10 {
            fresh.offer(&publication);
            fresh.poll(&mut subscription);
            assert!(
                begun.elapsed() < PATIENCE,
                "the old handles do not work with the successor"
            );
        }
        returns.push(back.saturating_duration_since(ready));
        drop((publication, subscription, client));
        successor.kill();
    }
    println!(
        "driver killed: noticed after {detections:?}, attached again {returns:?} after the successor was ready"
    );
    assert!(
        detections.iter().all(|time| *time < Duration::from_millis(50)),
        "{detections:?}"
    );
    assert!(
        returns.iter().all(|time| *time < Duration::from_secs(1)),
        "{returns:?}"
    );
}

fn wait_for(events: &Mutex<Vec<(Instant, String)>>, name: &str) -> Instant {
    let begun = Instant::now();
    loop {
        if let Some((time, _)) = events.lock().unwrap().iter().find(|(_, event)| event == name) {
            return *time;
        }
        assert!(begun.elapsed() < PATIENCE, "no event {name}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_driver_stopped_for_longer_than_every_timeout_kills_nobody() {
    let parent = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = parent.path().join("driver");
    let dir = dir.to_str().unwrap();
    let mut driver = Role::start("driver", &[dir]);
    driver.expect("ready");
    let client = Client::connect(settings(dir)).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    let mut survivor = Survivor::default();
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(20),
    );
    driver.signal(libc::SIGSTOP);
    // Longer than the driver timeout and the client liveness timeout, both 10 s.
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_secs(12),
    );
    driver.signal(libc::SIGCONT);
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_secs(2),
    );
    drain(&mut survivor, &mut subscription);
    assert!(!client.is_closed());
    let before = survivor.received;
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(100),
    );
    assert!(survivor.received > before, "the old handles go on");
    let other = client.add_publication(CHANNEL, STREAM + 1);
    assert!(other.is_ok(), "{:?}", other.err());
    driver.kill();
}

#[test]
fn truncated_files_end_only_their_owner() {
    let driver = embedded(&[("aeron.timer.interval", "100ms")]);
    let client = Client::connect(settings(driver.dir())).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    let victim_subscription = client.add_subscription(CHANNEL, STREAM + 1).unwrap();
    let victim = client.add_publication(CHANNEL, STREAM + 1).unwrap();
    let mut survivor = Survivor::default();
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(50),
    );
    let path = PathBuf::from(driver.dir()).join(format!(
        "publications/{}.logbuffer",
        victim.original_registration_id().0
    ));
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let begun = Instant::now();
    while victim.offer(b"lost").position().is_some() || victim.is_connected() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the truncated publication goes on as if nothing had happened"
        );
        pump(
            &mut survivor,
            &publication,
            &mut subscription,
            Duration::from_millis(10),
        );
    }
    pump(
        &mut survivor,
        &publication,
        &mut subscription,
        Duration::from_millis(300),
    );
    drain(&mut survivor, &mut subscription);
    assert!(driver.is_running());
    drop(victim_subscription);
}

#[test]
fn random_kills_under_load_leave_the_driver_alive_and_survivors_without_a_gap() {
    let driver = embedded(&[]);
    let client = Client::connect(settings(driver.dir())).unwrap();
    let mut subscription = client.add_subscription(CHANNEL, STREAM).unwrap();
    let publication = client.add_publication(CHANNEL, STREAM).unwrap();
    let mut survivor = Survivor::default();
    let mut random = fastrand::Rng::with_seed(11);
    let points = ["claim", "entered", "reserved", "noted", "header", "copied"];
    for round in 0..rounds(10) {
        let mut victim = Role::start("publisher", &[driver.dir(), points[random.usize(..points.len())]]);
        if random.bool() {
            victim.expect("stuck");
        }
        pump(
            &mut survivor,
            &publication,
            &mut subscription,
            Duration::from_millis(random.u64(1..60)),
        );
        victim.kill();
        pump(
            &mut survivor,
            &publication,
            &mut subscription,
            Duration::from_millis(30),
        );
        drain(&mut survivor, &mut subscription);
        assert!(driver.is_running(), "round {round}");
    }
    assert!(survivor.received > 0);
}
