//! Row A7: the process id of a dead client belongs to another process at once. In a process id namespace of the test's
//! own, where nobody else takes ids and the next one can be chosen.

use std::process::{Command, Stdio};

use fulmar::cnc::Extension;
use fulmar::directory::{Directory as _, FsDirectory};
use fulmar::time::{NanoTime, SystemClock};

use crate::map_cnc;
use crate::process::{Client, Directory, Driver, Make, eventually, millis_since};
use crate::required::can_run;

/// Names the driver directory for the test inside the namespace.
const INSIDE: &str = "FULMAR_TEST_PID_NAMESPACE";
/// Clients that die in each of the ways.
const ROUNDS: usize = 10;
/// How soon others go on after a client of ours is dead: docs/reliability.md, row A1. Milliseconds.
const PROMISE: i64 = 250;
/// Start times have a resolution of 10 ms: processes that got the same id within less could not be told apart. Ids come
/// round in seconds at the earliest, so a dead client has been older than this, milliseconds.
const AGE_MIN: i64 = 30;
/// Attempts at a process id; a thread that starts at the same moment takes it away.
const ATTEMPTS: usize = 200;

#[test]
fn a_dead_client_is_told_from_the_process_that_has_its_id_now() {
    match std::env::var(INSIDE) {
        Ok(path) => rounds(&Directory::at(&path)),
        Err(_) => run_inside("pid_reuse::a_dead_client_is_told_from_the_process_that_has_its_id_now"),
    }
}

/// Runs this test again as the first process of a namespace; all others there end with it.
fn run_inside(test: &str) {
    if !can_run(test, namespaces_work().err().as_deref()) {
        return;
    }
    let dir = Directory::new();
    let this = std::env::current_exe().expect("a test has a path");
    let output = in_namespace(this.to_str().expect("text"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, dir.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
    print!("{said}");
}

fn in_namespace(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", program]);
    command.stdin(Stdio::null());
    command
}

fn namespaces_work() -> Result<(), String> {
    match in_namespace("sh")
        .args(["-c", "echo 100 > /proc/sys/kernel/ns_last_pid"])
        .output()
    {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "a process id namespace needs root: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("`unshare` does not run: {error}")),
    }
}

/// How a client dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// With an open claim.
    InClaim,
    /// With an open claim, while the driver is stopped.
    InClaimUnseen,
    /// While the driver is stopped, which has never heard of it.
    Unknown,
}

fn rounds(dir: &Directory) {
    assert_eq!(std::process::id(), 1, "the first process of a namespace");
    let driver = Driver::start(Make::Fulmar, dir, &[("AERON_TIMER_INTERVAL", "100ms")]);
    let mut subscriber = Client::launch(Make::Fulmar);
    let mut survivor = Client::launch(Make::Fulmar);
    let mut living = vec![connect(&mut subscriber, dir), connect(&mut survivor, dir)];
    living.sort_unstable();
    subscriber.ok("add_sub s aeron:ipc 7");
    survivor.ok("add_pub p aeron:ipc?term-length=64k 7");
    survivor.ok("connected p true 10000");
    for death in [Death::InClaim, Death::InClaimUnseen, Death::Unknown] {
        let mut worst = 0;
        for round in 0..ROUNDS {
            let victim = prepare(death, &driver, dir, &living);
            // What comes after the open claim waits for it.
            survivor.ok("offer p 100 64 1 10000");
            subscriber.tell("poll s 100 20000");
            let pid = victim.pid();
            let mut since = SystemClock.nanos();
            victim.kill();
            let mut stranger = start_with(pid);
            if !matches!(death, Death::InClaim) {
                since = SystemClock.nanos();
                driver.resume();
            }
            subscriber.answered();
            worst = worst.max(took(death, round, since));
            eventually("no record of the dead client is left", || {
                records(dir) == living && heartbeats(dir) == living
            });
            assert_untouched(&mut stranger, pid, dir);
            eventually("no record of the other process is left", || {
                records(dir) == living && heartbeats(dir) == living
            });
        }
        println!("{death:?}: {ROUNDS} ids used again, others went on after at most {worst} ms");
    }
    driver.stop();
}

fn connect(client: &mut Client, dir: &Directory) -> i64 {
    client.number(&format!("connect {} 10000", dir.path()))
}

/// A client that is about to die.
fn prepare(death: Death, driver: &Driver, dir: &Directory, living: &[i64]) -> Client {
    let mut victim = Client::launch(Make::Fulmar);
    let launched = SystemClock.nanos();
    match death {
        Death::InClaim | Death::InClaimUnseen => {
            connect(&mut victim, dir);
            victim.ok("add_pub p aeron:ipc?term-length=64k 7");
            victim.ok("connected p true 10000");
            victim.ok("claim p 64 2");
            if matches!(death, Death::InClaimUnseen) {
                driver.suspend();
            }
        }
        Death::Unknown => {
            driver.suspend();
            victim.tell(&format!("connect {} 10000", dir.path()));
            eventually("the client has said which process it is", || {
                records(dir).len() > living.len()
            });
        }
    }
    eventually("it is old enough", || millis_since(launched) > AGE_MIN);
    victim
}

fn took(death: Death, round: usize, since: NanoTime) -> i64 {
    let millis = millis_since(since);
    assert!(millis < PROMISE, "{death:?}, round {round}: {millis} ms");
    millis
}

/// A process with a given id.
fn start_with(pid: u32) -> Client {
    for _ in 0..ATTEMPTS {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("root may");
        let client = Client::launch(Make::Fulmar);
        if client.pid() == pid {
            return client;
        }
        client.kill();
    }
    panic!("no process got the id {pid}");
}

/// The process with the id of the dead one is none of the driver's business, until it is a client itself.
fn assert_untouched(stranger: &mut Client, pid: u32, dir: &Directory) {
    assert!(stranger.is_running());
    assert_eq!(stranger.pid(), pid);
    connect(stranger, dir);
    stranger.ok("add_sub s aeron:ipc 8");
    stranger.ok("add_pub p aeron:ipc?term-length=64k 8");
    stranger.ok("offer p 100 64 1 10000");
    stranger.ok("poll s 100 10000");
    assert_eq!(stranger.ok("closed"), "false");
    stranger.ok("disconnect");
}

/// Clients that have a record in the extension file, in order.
fn records(dir: &Directory) -> Vec<i64> {
    let start = map_cnc(dir).start_timestamp();
    let region = FsDirectory::new(dir.path())
        .map_extension()
        .expect("our driver has one");
    let extension = Extension::open(&region, start).expect("of this driver");
    let mut ids: Vec<i64> = extension.clients().map(|client| client.client_id.0).collect();
    ids.sort_unstable();
    ids
}

/// Clients that have a heartbeat counter, in order.
fn heartbeats(dir: &Directory) -> Vec<i64> {
    let mut ids = Vec::new();
    map_cnc(dir).counters().for_each(|counter| {
        if counter.type_id == fulmar::counters::type_id::CLIENT_HEARTBEAT {
            ids.push(counter.registration_id);
        }
    });
    ids.sort_unstable();
    ids
}
