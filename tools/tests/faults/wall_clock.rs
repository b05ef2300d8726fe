//! Row A8: the wall clock of the driver and of all clients steps at once.
//!
//! A C client compares the driver's heartbeat with its own wall clock every half second. Our driver writes a fresh one
//! in its first cycle after a step, but a C client that looks in the milliseconds between gives up, whoever's driver it
//! is. Scripts with a C client therefore step right after it has looked, which is the other 98 % of the time.

use fulmar::cnc::CncFile;
use fulmar::counters::type_id;

use crate::clock::{SECOND, WallClock, YEAR, await_heartbeat, next_heartbeat};
use crate::map_cnc;
use crate::process::{Client, Directory, Driver, Make, eventually, pause};
use crate::required::can_run;

/// Heartbeats often enough that a test sees the next one soon; the timeouts stay at their defaults of 10 s and more.
const OFTEN: (&str, &str) = ("AERON_TIMER_INTERVAL", "100ms");

/// Where the clock goes, one after the other, milliseconds from the right time.
const STEPS: [i64; 12] = [
    SECOND,
    0,
    -SECOND,
    20 * SECOND,
    -20 * SECOND,
    3_600 * SECOND,
    -3_600 * SECOND,
    YEAR,
    -YEAR,
    10 * YEAR,
    -10 * YEAR,
    0,
];

/// Steps of the strobe, and how far apart, milliseconds.
const STROBES: usize = 1_000;
const STROBE_INTERVAL: u64 = 4;

fn clock(test: &str) -> Option<WallClock> {
    match WallClock::new() {
        Ok(clock) => Some(clock),
        Err(reason) => {
            can_run(test, Some(&reason));
            None
        }
    }
}

/// A driver and two clients that live by one wall clock.
struct Stage {
    clock: WallClock,
    driver: Driver,
    cnc: CncFile,
    clients: [Client; 2],
    ids: [i64; 2],
    _dir: Directory,
}

impl Stage {
    /// Both clients publish to each other, over shared memory.
    fn new(clock: WallClock, makes: [Make; 2]) -> Stage {
        let dir = Directory::new();
        let mut settings = clock.environment().to_vec();
        settings.push(OFTEN);
        let driver = Driver::start(Make::Fulmar, &dir, &settings);
        let mut clients = makes.map(|make| Client::launch_with(make, &clock.environment()));
        let ids = [0, 1].map(|at| clients[at].number(&format!("connect {} 10000", dir.path())));
        for (at, client) in clients.iter_mut().enumerate() {
            client.ok(&format!("add_pub p aeron:ipc?term-length=64k {}", 10 + at));
            client.ok(&format!("add_sub s aeron:ipc {}", 11 - at));
        }
        for client in &mut clients {
            client.ok("connected p true 10000");
            client.ok("connected s true 10000");
        }
        Stage {
            cnc: map_cnc(&dir),
            clock,
            driver,
            clients,
            ids,
            _dir: dir,
        }
    }

    /// What the clients were told so far.
    fn events(&mut self) -> [String; 2] {
        [0, 1].map(|at| self.clients[at].ok("events"))
    }

    /// Messages in both directions, more than a term holds.
    fn exchange(&mut self) {
        for from in [0, 1] {
            self.clients[from].tell("offer p 1000 64 1 20000");
            self.clients[1 - from].ok("poll s 1000 20000");
            self.clients[from].answered();
        }
    }

    /// Nobody gave up.
    fn assert_well(&mut self, offset: i64) {
        for client in &mut self.clients {
            let make = client.make();
            assert_eq!(client.ok("closed"), "false", "{make:?} client at {offset} ms");
        }
        assert!(self.driver.is_running(), "at {offset} ms");
    }

    /// Everybody's heartbeats come from a clock that is ahead as the test says, and no longer from one `before`.
    fn await_everybody(&self, before: i64) {
        let offset = self.clock.offset();
        await_heartbeat("a heartbeat of the driver", offset, before, || {
            self.cnc.driver_heartbeat().0
        });
        for id in self.ids {
            await_heartbeat("a heartbeat of a client", offset, before, || {
                heartbeat(&self.cnc, id)
            });
        }
    }
}

/// The heartbeat of a client, epoch milliseconds.
fn heartbeat(cnc: &CncFile, client_id: i64) -> i64 {
    let mut value = None;
    cnc.counters().for_each(|counter| {
        if counter.type_id == type_id::CLIENT_HEARTBEAT && counter.registration_id == client_id {
            value = Some(counter.value);
        }
    });
    value.unwrap_or_else(|| panic!("client {client_id} has no heartbeat any more"))
}

#[test]
fn steps_of_the_wall_clock_close_no_client_and_stop_no_stream() {
    let Some(clock) = clock("wall clock steps") else {
        return;
    };
    let mut stage = Stage::new(clock, [Make::C, Make::Fulmar]);
    stage.exchange();
    let events = stage.events();
    for offset in STEPS {
        let before = stage.clock.offset();
        next_heartbeat("the C client looks at the driver", || {
            heartbeat(&stage.cnc, stage.ids[0])
        });
        stage.clock.step_to(offset);
        stage.exchange();
        stage.await_everybody(before);
        stage.exchange();
        stage.assert_well(offset);
    }
    assert_eq!(stage.events(), events, "no client was told anything");
    stage.driver.stop();
}

#[test]
fn a_wall_clock_that_steps_all_the_time_disturbs_neither_the_driver_nor_our_clients() {
    let Some(clock) = clock("a wall clock that steps all the time") else {
        return;
    };
    let mut stage = Stage::new(clock, [Make::Fulmar; 2]);
    stage.exchange();
    let events = stage.events();
    let mut state = 0x5eed_u64;
    // Streams run while the clock steps; a burst is short enough for the term window.
    let mut running = false;
    for _ in 0..STROBES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Small and large steps alike: a share of ten years, or of ten seconds.
        let reach = if state & 1 == 0 { 10 * YEAR } else { 10 * SECOND };
        let offset = i64::try_from((state >> 1) % (2 * reach as u64)).expect("small") - reach;
        stage.clock.step_to(offset);
        if !running {
            stage.clients[0].tell("offer p 200 64 1 20000");
            stage.clients[1].tell("poll s 200 20000");
        }
        pause(STROBE_INTERVAL);
        running = stage.clients[1].answer_within(1).is_none_or(|polled| {
            assert!(polled.is_ok(), "{polled:?}");
            stage.clients[0].answered();
            false
        });
    }
    if running {
        stage.clients[1].answered();
        stage.clients[0].answered();
    }
    let before = stage.clock.offset();
    stage.clock.step_to(3 * YEAR);
    stage.await_everybody(before);
    stage.exchange();
    stage.assert_well(3 * YEAR);
    assert_eq!(stage.events(), events, "no client was told anything");
    stage.driver.stop();
}

/// The same step, seen by Aeron's own client and driver: proof that it is one that can be noticed.
#[test]
fn a_step_ends_a_c_client_of_a_c_driver() {
    let Some(mut clock) = clock("the wall clock of a C driver") else {
        return;
    };
    let dir = Directory::new();
    let driver = Driver::start(Make::C, &dir, &clock.environment());
    let mut client = Client::launch_with(Make::C, &clock.environment());
    client.ok(&format!("connect {} 10000", dir.path()));
    let cnc = map_cnc(&dir);
    // The driver writes its next heartbeat in a second, the client looks within half of one.
    next_heartbeat("a heartbeat of the C driver", || cnc.driver_heartbeat().0);
    clock.step_to(3_600 * SECOND);
    eventually("the C client gives up", || client.ok("closed") == "true");
    driver.kill();
}
