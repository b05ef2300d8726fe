//! The driver as a process, seen from outside: what unmodified clients, scripts and tools expect of start, stop,
//! environment and errors. The tests speak to it through its files only, as a foreign client does.

mod process;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use fulmar::cnc::CncFile;
use fulmar::control::{Command as Request, ErrorCode};
use fulmar::counters::{CounterState, type_id};
use fulmar::directory::{Directory, FsDirectory};
use fulmar::id::{CounterId, RegistrationId};
use fulmar::memory::AtomicBuffer;

use process::{Driver, Home, Reaped, Wire, await_that, counters, errors, heartbeat_age_ms, run_driver, text};

/// Timers short enough that a test sees their effect soon.
const FAST: [(&str, &str); 3] = [
    ("AERON_TIMER_INTERVAL", "20ms"),
    ("AERON_PUBLICATION_LINGER_TIMEOUT", "50ms"),
    ("AERON_IPC_TERM_BUFFER_LENGTH", "64k"),
];

// Start

#[test]
fn a_started_driver_has_its_files_and_says_once_that_it_is_ready() {
    let home = Home::new();
    let driver = Driver::start(&home, &[]);
    assert_eq!(
        driver.ready,
        format!("driver ready dir={} pid={}", home.dir, driver.pid())
    );
    for name in ["cnc.dat", "loss-report.dat"] {
        let metadata = std::fs::metadata(home.file(name)).expect(name);
        assert!(metadata.is_file(), "{name}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    for name in [".", "publications", "images"] {
        let metadata = std::fs::metadata(home.file(name)).expect(name);
        assert!(metadata.is_dir(), "{name}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700, "{name}");
    }
    let cnc = home.cnc();
    assert_eq!(cnc.version(), 512);
    assert_eq!(cnc.pid(), i64::from(driver.pid()));
    assert_eq!(cnc.client_liveness_timeout_ns(), 10_000_000_000);
    assert_eq!(cnc.page_size(), 4096);
    let sections = 128 + (1 << 20) + 768 + (1 << 20) + 128 + 5 * (8 << 20) + (4 << 20);
    let length = std::fs::metadata(home.file("cnc.dat")).expect("cnc.dat").len();
    assert_eq!(length, u64::next_multiple_of(sections, 4096));
    assert!(heartbeat_age_ms(&cnc) < 10_000);
    assert!(
        std::fs::metadata(home.file("cnc.dat")).expect("cnc.dat").blocks() * 512 >= length,
        "not sparse"
    );
}

#[test]
fn the_group_gets_in_when_it_is_let_in() {
    let home = Home::new();
    let _driver = Driver::start(&home, &[("FULMAR_DIR_GROUP", "1")]);
    let mode = |name: &str| {
        std::fs::metadata(home.file(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("."), mode("publications"), mode("cnc.dat")),
        (0o750, 0o750, 0o660)
    );
}

#[test]
fn the_46_system_counters_have_their_ids_and_labels() {
    let home = Home::new();
    let _driver = Driver::start(&home, &[]);
    let counters = counters(&home.cnc());
    let labels = [
        "Bytes sent",
        "Bytes received",
        "Failed offers to ReceiverProxy",
        "Failed offers to SenderProxy",
        "Failed offers to DriverConductorProxy",
        "NAKs sent",
        "NAKs received",
        "Status Messages sent",
        "Status Messages received",
        "Heartbeats sent",
        "Heartbeats received",
        "Retransmits sent",
        "Flow control under runs",
        "Flow control over runs",
        "Invalid packets",
        "Errors: version=",
        "Short sends",
        "Failed attempts to free log buffers",
        "Sender flow control limits, i.e. back-pressure events",
        "Unblocked Publications",
        "Unblocked Control Commands",
        "Possible TTL Asymmetry",
        "ControllableIdleStrategy status",
        "Loss gap fills",
        "Client liveness timeouts",
        "Resolution changes: driverName=",
        "Conductor max cycle time doing its work in ns: DEDICATED",
        "Conductor work cycle exceeded threshold count: threshold=",
        "Sender max cycle time doing its work in ns: DEDICATED",
        "Sender work cycle exceeded threshold count: threshold=",
        "Receiver max cycle time doing its work in ns: DEDICATED",
        "Receiver work cycle exceeded threshold count: threshold=",
        "NameResolver max time in ns",
        "NameResolver exceeded threshold count: threshold=",
        "Aeron software: version=",
        "Bytes currently mapped",
        "Retransmitted bytes",
        "Retransmit Pool Overflow count",
        "Error Frames received",
        "Error Frames sent",
        "Publications Revoked",
        "Publication Images Revoked",
        "Images rejected",
        "Control protocol version",
        "Status Messages rejected",
        "Failed offers to NativeResourceAgentProxy",
    ];
    for (id, label) in labels.iter().enumerate() {
        let counter = &counters[id];
        assert_eq!(counter.id.get(), i32::try_from(id).expect("small"));
        assert_eq!(counter.type_id, type_id::SYSTEM, "{label}");
        let key = &counter.key[..4];
        assert_eq!(key, counter.id.get().to_le_bytes(), "{label}");
        // The name of the driver is a suffix that is there only if it has one.
        let expected = label.strip_suffix(": driverName=").unwrap_or(label);
        assert!(
            counter.label.starts_with(expected),
            "{id}: {} is not {label}",
            counter.label
        );
    }
    assert_eq!(
        counters.len(),
        labels.len(),
        "nothing else is counted before a client comes"
    );
    assert_eq!(counters[43].value, 65_536);
    assert!(counters[34].value > 0, "{}", counters[34].label);
    assert!(counters[35].value > 0, "bytes mapped");
}

#[test]
fn whoever_sees_the_version_finds_a_heartbeat_and_gets_a_client_id_above_zero() {
    for _ in 0..5 {
        let home = Home::new();
        let _driver = Reaped(home.command(&[]).spawn().expect("the driver can be started"));
        let mut found = None;
        await_that("the version", || {
            found = FsDirectory::new(home.dir.as_str())
                .map_cnc()
                .ok()
                .and_then(|region| CncFile::open(&region).ok());
            found.is_some()
        });
        let cnc = found.expect("the wait ended with it");
        let heartbeat = cnc.driver_heartbeat();
        let client_id = cnc.to_driver_ring().next_correlation_id();
        assert!(heartbeat.0 > 1_600_000_000_000, "{heartbeat:?}");
        assert!(client_id > 0, "{client_id}");
    }
}

#[test]
fn a_live_driver_is_left_undisturbed_by_a_second_one() {
    let home = Home::new();
    let driver = Driver::start(&home, &FAST);
    let cnc = home.cnc();
    let inode = std::fs::metadata(home.file("cnc.dat")).expect("cnc.dat").ino();
    let second = run_driver(&home, &FAST);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(text(&second.stdout), "");
    let message = text(&second.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains(&home.dir) && message.contains(&driver.pid().to_string()),
        "{message}"
    );
    assert_eq!(
        std::fs::metadata(home.file("cnc.dat")).expect("cnc.dat").ino(),
        inode
    );
    let seen = cnc.driver_heartbeat();
    await_that("the heartbeat to go on", || cnc.driver_heartbeat().0 > seen.0);
    assert_eq!(Wire::attach(&home).add_publication("aeron:ipc", 1).err(), None);
}

#[test]
fn delete_on_start_takes_the_directory_without_asking() {
    let home = Home::new();
    let first = Driver::start(&home, &[]);
    std::fs::write(home.file("left-behind"), "x").expect("written");
    let second = Driver::start(&home, &[("AERON_DIR_DELETE_ON_START", "1")]);
    assert_eq!(home.cnc().pid(), i64::from(second.pid()));
    assert!(!home.file("left-behind").exists());
    drop(first);
    assert_eq!(Wire::attach(&home).add_publication("aeron:ipc", 1).err(), None);
}

#[test]
fn after_a_clean_stop_the_next_driver_starts_at_once() {
    let home = Home::new();
    Driver::start(&home, &[]).stop("TERM");
    assert_eq!(home.cnc().driver_heartbeat().0, -1);
    let second = Driver::start(&home, &[]);
    assert_eq!(home.cnc().pid(), i64::from(second.pid()));
}

#[test]
fn after_a_crash_the_next_driver_starts_at_once_and_saves_the_error_log() {
    let home = Home::new();
    let first = Driver::start(&home, &[]);
    let refusal = Wire::attach(&home)
        .add_publication("aeron:unknown", 1)
        .expect_err("no such media");
    drop(first);
    let second = Driver::start(&home, &[]);
    assert_eq!(home.cnc().pid(), i64::from(second.pid()));
    let saved = home.saved_error_logs();
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert!(
        saved[0].contains("aeron:unknown") && saved[0].contains("1 observations"),
        "{}",
        saved[0]
    );
    assert!(refusal.1.contains("aeron:unknown"));
    assert_eq!(errors(&home.cnc()), [], "the new driver starts with an empty log");
}

#[test]
fn a_driver_that_is_alive_but_silent_keeps_its_directory() {
    let home = Home::new();
    let driver = Driver::start(&home, &FAST);
    driver.signal("STOP");
    let cnc = home.cnc();
    await_that("the heartbeat to be old", || heartbeat_age_ms(&cnc) > 300);
    let second = run_driver(&home, &[("AERON_DRIVER_TIMEOUT", "200")]);
    driver.signal("CONT");
    assert_eq!(second.status.code(), Some(1), "{}", text(&second.stderr));
    assert!(
        text(&second.stderr).contains(&driver.pid().to_string()),
        "{}",
        text(&second.stderr)
    );
    let seen = cnc.driver_heartbeat();
    await_that("the heartbeat to go on", || cnc.driver_heartbeat().0 > seen.0);
}

#[test]
fn what_can_not_be_judged_is_not_deleted() {
    for (version, what) in [(0_i32, "not ready"), (1 << 16, "major version")] {
        let home = Home::new();
        std::fs::create_dir(&home.dir).expect("made");
        let mut bytes = vec![0_u8; 8192];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        std::fs::write(home.file("cnc.dat"), &bytes).expect("written");
        let refused = run_driver(&home, &[("AERON_DRIVER_TIMEOUT", "50")]);
        assert_eq!(
            refused.status.code(),
            Some(1),
            "{what}: {}",
            text(&refused.stderr)
        );
        assert!(
            text(&refused.stderr).contains(&home.dir),
            "{}",
            text(&refused.stderr)
        );
        assert_eq!(
            std::fs::read(home.file("cnc.dat")).expect("still there"),
            bytes,
            "{what}"
        );
    }
    let home = Home::new();
    std::fs::create_dir(&home.dir).expect("made");
    std::fs::write(home.file("precious"), "x").expect("written");
    let refused = run_driver(&home, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(home.file("precious").exists());
}

// Environment

#[test]
fn bad_settings_are_wrong_usage_and_create_nothing() {
    for (variables, arguments, named) in [
        (vec![("AERON_MTU_LENGTH", "big")], "", "AERON_MTU_LENGTH"),
        (vec![("AERON_THREADING_MODE", "MANY")], "", "AERON_THREADING_MODE"),
        (
            vec![("AERON_DIR_DELETE_ON_START", "maybe")],
            "",
            "AERON_DIR_DELETE_ON_START",
        ),
        (
            vec![],
            "-D aeron.term.buffer.length=100000",
            "aeron.term.buffer.length",
        ),
        (vec![], "-D aeron.no.such=1", "aeron.no.such"),
        (vec![], "-D aeron.dir", "key=value"),
        (vec![], "-D aeron.timer.interval=10s", "aeron.timer.interval"),
        (vec![], "--idle nap", "--idle"),
    ] {
        let home = Home::new();
        let output = home
            .command(&variables)
            .args(arguments.split_whitespace())
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{named}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
        assert!(!Path::new(&home.dir).exists(), "{named}");
    }
}

#[test]
fn odd_settings_are_warned_about_on_standard_error_and_the_driver_starts() {
    let home = Home::new();
    let variables = [
        ("AERON_IPC_TERM_BUFFER_LENGTH", "4k"),
        ("AERON_ERROR_BUFFER_LENGTH", "1m"),
        ("AERON_TREM_BUFFER_LENGTH", "64k"),
        ("AERON_CLIENT_NAME", "not-the-driver's"),
    ];
    let driver = Driver::start(&home, &variables);
    let mut wire = Wire::attach(&home);
    let path = wire.add_publication("aeron:ipc", 1).expect("added");
    assert_eq!(std::fs::metadata(path).expect("a log").len(), 3 * 65_536 + 4096);
    assert_eq!(home.cnc().error_log().capacity(), 4 << 20);
    let output = driver.stop("TERM");
    let warnings = text(&output.stderr);
    for named in [
        "AERON_IPC_TERM_BUFFER_LENGTH",
        "AERON_ERROR_BUFFER_LENGTH",
        "AERON_TREM_BUFFER_LENGTH",
    ] {
        let lines = warnings.lines().filter(|line| line.contains(named)).count();
        assert_eq!(lines, 1, "{named}: {warnings}");
    }
    assert_eq!(warnings.lines().count(), 3, "{warnings}");
}

#[test]
fn options_beat_defines_which_beat_files_which_beat_the_environment() {
    let home = Home::new();
    let file = home.beside("driver.properties");
    std::fs::write(
        &file,
        "aeron.threading.mode=SHARED\naeron.mtu.length=4k\naeron.ipc.mtu.length=4k\n",
    )
    .expect("written");
    let output = home
        .command_named(
            "config",
            &[("AERON_MTU_LENGTH", "2k"), ("AERON_FILE_PAGE_SIZE", "8k")],
        )
        .args([
            "--json",
            "--threading",
            "dedicated",
            "-D",
            "aeron.ipc.mtu.length=8k",
        ])
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let row = |key: &str| {
        let found = rows
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["key"] == key));
        found
            .map(|row| (row["value"].to_string(), row["source"].to_string()))
            .expect(key)
    };
    let quoted = |text: &str| format!("\"{text}\"");
    assert_eq!(
        row("aeron.threading.mode"),
        (quoted("dedicated"), quoted("--threading"))
    );
    assert_eq!(row("aeron.ipc.mtu.length"), (quoted("8k"), quoted("-D")));
    assert_eq!(
        row("aeron.mtu.length"),
        (quoted("4k"), quoted(&format!("{file}:2")))
    );
    assert_eq!(
        row("aeron.file.page.size"),
        (quoted("8k"), quoted("environment AERON_FILE_PAGE_SIZE"))
    );
    assert_eq!(row("aeron.timer.interval"), (quoted("1s"), quoted("default")));
    assert_eq!(
        row("aeron.dir"),
        (quoted(&home.dir), quoted("environment AERON_DIR"))
    );
}

#[test]
fn the_settings_are_printed_and_an_existing_directory_is_warned_about_when_asked() {
    let home = Home::new();
    let quiet = Driver::start(&home, &[]).stop("TERM");
    assert_eq!(text(&quiet.stderr), "");
    let variables = [
        ("AERON_PRINT_CONFIGURATION", "1"),
        ("AERON_DIR_WARN_IF_EXISTS", "1"),
    ];
    let driver = Driver::start(&home, &variables);
    assert!(driver.ready.starts_with("driver ready "), "{}", driver.ready);
    let told = text(&driver.stop("TERM").stderr);
    let line = told
        .lines()
        .find(|line| line.starts_with("aeron.dir.warn.if.exists "))
        .expect("a row per setting");
    assert!(
        line.contains("true") && line.contains("environment AERON_DIR_WARN_IF_EXISTS"),
        "{line}"
    );
    let warned = told
        .lines()
        .any(|line| line.contains("exists already") && line.contains(&home.dir));
    assert!(warned, "{told}");
}

#[test]
fn thresholds_are_named_in_the_labels_and_threads_run_where_they_are_put() {
    let allowed = |status: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("a processor list").trim().to_owned()
    };
    let own = std::fs::read_to_string("/proc/thread-self/status").expect("the system tells");
    let cpu = allowed(&own)
        .split([',', '-'])
        .next()
        .expect("at least one")
        .to_owned();
    let home = Home::new();
    let variables = [
        ("AERON_DRIVER_CONDUCTOR_CYCLE_THRESHOLD", "250ms"),
        ("AERON_DRIVER_SENDER_CYCLE_THRESHOLD", "350ms"),
        ("AERON_DRIVER_RECEIVER_CYCLE_THRESHOLD", "450ms"),
        ("AERON_NAME_RESOLVER_THRESHOLD", "2s"),
        ("AERON_CONDUCTOR_CPU_AFFINITY", cpu.as_str()),
    ];
    let driver = Driver::start(&home, &variables);
    let counters = counters(&home.cnc());
    for (id, threshold) in [
        (27, "threshold=250ms "),
        (29, "threshold=350ms "),
        (31, "threshold=450ms "),
        (33, "threshold=2s"),
    ] {
        assert!(counters[id].label.contains(threshold), "{}", counters[id].label);
    }
    await_that("the conductor's thread to have its name and its place", || {
        std::fs::read_dir(format!("/proc/{}/task", driver.pid()))
            .expect("threads")
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok())
            .any(|status| status.contains("fulmar-conduct") && allowed(&status) == cpu)
    });
    drop(driver);

    let home = Home::new();
    let driver = Driver::start(&home, &[("AERON_CONDUCTOR_CPU_AFFINITY", "4095")]);
    assert_eq!(
        Wire::attach(&home).add_publication("aeron:ipc", 1).err(),
        None,
        "it runs elsewhere"
    );
    let told = text(&driver.stop("TERM").stderr);
    assert!(told.contains("processor 4095"), "{told}");
}

#[test]
fn logs_beyond_the_budget_are_refused_and_room_is_given_back() {
    let home = Home::new();
    let log_length = 3 * 65_536 + 4096;
    let budget = (2 * log_length).to_string();
    let mut variables = FAST.to_vec();
    variables.push(("FULMAR_LOG_BUDGET", &budget));
    let _driver = Driver::start(&home, &variables);
    let mut wire = Wire::attach(&home);
    let log = wire.add_publication("aeron:ipc", 1).expect("within the budget");
    let first = wire.last;
    assert_eq!(wire.add_publication("aeron:ipc", 2).err(), None);
    let (code, message) = wire
        .add_publication("aeron:ipc", 3)
        .expect_err("beyond the budget");
    assert_eq!(code, ErrorCode::StorageSpace);
    assert!(message.contains("fulmar.log.budget"), "{message}");
    let request = Request::RemovePublication {
        registration_id: RegistrationId(first),
        revoke: false,
    };
    assert_eq!(wire.ask(&request), Ok(None));
    await_that("the log to be deleted", || !Path::new(&log).exists());
    await_that("room in the budget", || {
        wire.add_publication("aeron:ipc", 3).is_ok()
    });
}

#[test]
fn the_death_of_a_client_is_seen_at_once_unless_that_is_switched_off() {
    for early in [true, false] {
        let home = Home::new();
        let mut variables = FAST.to_vec();
        variables.push(("FULMAR_UNBLOCK_EARLY", if early { "1" } else { "0" }));
        let _driver = Driver::start(&home, &variables);
        let mut wire = Wire::attach(&home);
        let process = Reaped(
            Command::new("sleep")
                .arg("600")
                .stdin(Stdio::null())
                .spawn()
                .expect("a process"),
        );
        let slot = wire.claim_slot(&home, &process.0);
        assert_eq!(wire.add_publication("aeron:ipc", 1).err(), None);
        let timeouts = || counters(&home.cnc())[24].value;
        assert_eq!(timeouts(), 0);
        drop(process);
        if early {
            await_that("the client to be given up", || timeouts() == 1);
        } else {
            // Long enough for a watch to have told, and far below the liveness timeout of 10 s.
            for _ in 0..20 {
                let seen = wire.cnc.driver_heartbeat();
                await_that("the heartbeat to go on", || {
                    wire.cnc.driver_heartbeat().0 > seen.0
                });
            }
            assert_eq!(timeouts(), 0);
        }
        drop(slot);
    }
}

#[test]
fn every_threading_mode_serves_clients() {
    for mode in ["DEDICATED", "SHARED_NETWORK", "SHARED"] {
        let home = Home::new();
        let driver = Driver::start(
            &home,
            &[
                ("AERON_THREADING_MODE", mode),
                ("AERON_IPC_TERM_BUFFER_LENGTH", "64k"),
            ],
        );
        let mut wire = Wire::attach(&home);
        assert_eq!(wire.add_publication("aeron:ipc", 1).err(), None, "{mode}");
        let label = &counters(&home.cnc())[26].label;
        assert!(label.ends_with(&format!(": {mode}")), "{label}");
        assert_eq!(driver.stop("TERM").status.code(), Some(0), "{mode}");
    }
}

// Stop

#[test]
fn both_stop_signals_end_the_driver_cleanly_and_leave_the_directory() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let driver = Driver::start(&home, &FAST);
        let mut wire = Wire::attach(&home);
        let log = wire.add_publication("aeron:ipc", 7).expect("added");
        assert!(Path::new(&log).exists());
        let output = driver.stop(signal);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{signal}: {}",
            text(&output.stderr)
        );
        assert_eq!(text(&output.stdout), "Shutting down driver...\n", "{signal}");
        assert_eq!(text(&output.stderr), "", "{signal}");
        assert_eq!(wire.cnc.driver_heartbeat().0, -1, "{signal}");
        assert!(
            home.file("cnc.dat").exists() && home.file("loss-report.dat").exists(),
            "{signal}"
        );
        assert!(
            !Path::new(&log).exists(),
            "{signal}: the log of a live publication is removed"
        );
        // Every record is left in the state of a freed counter, those of the system too.
        let reader = wire.cnc.counters();
        for id in 0..46 {
            assert_eq!(
                reader.state(CounterId(id)),
                Some(CounterState::Reclaimed),
                "{signal}: counter {id}"
            );
        }
        assert_eq!(counters(&wire.cnc).len(), 0, "{signal}");
    }
}

#[test]
fn delete_on_shutdown_removes_the_directory() {
    let home = Home::new();
    let driver = Driver::start(&home, &[("AERON_DIR_DELETE_ON_SHUTDOWN", "1")]);
    assert!(home.file("cnc.dat").exists());
    assert_eq!(driver.stop("TERM").status.code(), Some(0));
    assert!(!Path::new(&home.dir).exists());
}

#[test]
fn a_termination_request_is_denied_unless_it_is_allowed() {
    for token in [&b""[..], b"please"] {
        let home = Home::new();
        let driver = Driver::start(&home, &FAST);
        let mut wire = Wire::attach(&home);
        wire.terminate(token);
        // Commands are read in order: the answer to the next one proves that the request was read before.
        assert_eq!(wire.add_publication("aeron:ipc", 1).err(), None);
        let seen = wire.cnc.driver_heartbeat();
        await_that("the heartbeat to go on", || {
            wire.cnc.driver_heartbeat().0 > seen.0
        });
        assert_eq!(errors(&wire.cnc), [], "a refused request is no error");
        drop(driver);

        let home = Home::new();
        let driver = Driver::start(&home, &[("AERON_DRIVER_TERMINATION_VALIDATOR", "allow")]);
        let wire = Wire::attach(&home);
        wire.terminate(token);
        let output = driver.finish();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(wire.cnc.driver_heartbeat().0, -1);
    }
}

// Errors

#[test]
fn a_bad_scheme_is_an_invalid_channel_and_one_entry_however_often_it_comes() {
    let home = Home::new();
    let _driver = Driver::start(&home, &FAST);
    let mut wire = Wire::attach(&home);
    let errors_counted = || counters(&home.cnc())[15].value;
    assert_eq!(errors_counted(), 0);
    let channel = "aeron:carrier-pigeon?endpoint=roof:1";
    for count in 1..=3 {
        let (code, message) = wire.add_publication(channel, 1).expect_err("no such media");
        assert_eq!(code, ErrorCode::InvalidChannel);
        assert!(
            message.contains(&format!("invalid URI scheme or transport: {channel}")),
            "{message}"
        );
        let logged = errors(&home.cnc());
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert_eq!(logged[0].0, count);
        assert!(logged[0].1.contains(channel), "{logged:?}");
        assert_eq!(errors_counted(), i64::from(count));
    }
    let (code, _) = wire.add_subscription(channel, 1).expect_err("no such media");
    assert_eq!(code, ErrorCode::InvalidChannel);
    assert_eq!(errors_counted(), 4);
}

#[test]
fn bad_parameters_and_clashes_are_generic_errors_and_reach_the_error_log() {
    let home = Home::new();
    let _driver = Driver::start(&home, &FAST);
    let mut wire = Wire::attach(&home);
    assert_eq!(wire.add_publication("aeron:ipc?mtu=2k", 1).err(), None);
    for channel in [
        "aeron:ipc?term-length=100000",
        "aeron:ipc?mtu=1500",
        "aeron:ipc?mtu=4k",
        "aeron:ipc?init-term-id=1",
    ] {
        let (code, message) = wire.add_publication(channel, 1).expect_err(channel);
        assert_eq!(code, ErrorCode::GenericError, "{channel}: {message}");
    }
    let logged = errors(&home.cnc());
    assert_eq!(logged.len(), 4, "{logged:?}");
    assert_eq!(counters(&home.cnc())[15].value, 4);
}

#[test]
fn unknown_registrations_are_named_and_logged() {
    let home = Home::new();
    let _driver = Driver::start(&home, &FAST);
    let mut wire = Wire::attach(&home);
    assert_eq!(wire.add_publication("aeron:ipc", 1).err(), None);
    let registration_id = RegistrationId(987_654);
    let outcomes = [
        (
            Request::RemovePublication {
                registration_id,
                revoke: false,
            },
            ErrorCode::UnknownPublication,
        ),
        (
            Request::RemoveSubscription { registration_id },
            ErrorCode::UnknownSubscription,
        ),
        (
            Request::RemoveCounter { registration_id },
            ErrorCode::UnknownCounter,
        ),
    ];
    for (request, expected) in outcomes {
        let (code, message) = wire.ask(&request).expect_err("unknown");
        assert_eq!(code, expected);
        assert!(message.contains("987654"), "{message}");
    }
    assert_eq!(errors(&home.cnc()).len(), 3);
}

// Behaviour

#[test]
fn labels_and_files_of_a_publication_follow_its_life() {
    let home = Home::new();
    let _driver = Driver::start(&home, &FAST);
    let mut wire = Wire::attach(&home);
    let channel = "aeron:ipc?session-id=77|alias=test|so-rcvbuf=32k|term-length=64k|mtu=2048";
    let log = wire.add_publication(channel, 5).expect("added");
    let registration_id = wire.last;
    assert_eq!(
        log,
        format!("{}/publications/{registration_id}.logbuffer", home.dir)
    );
    assert_eq!(
        std::fs::metadata(&log).expect("a log").permissions().mode() & 0o777,
        0o600
    );
    let label_of = |wanted: i32| {
        let found = counters(&home.cnc())
            .into_iter()
            .find(|counter| counter.type_id == wanted);
        found.map(|counter| counter.label).expect("the counter")
    };
    let stream = format!("{registration_id} 77 5 {channel}");
    assert_eq!(
        label_of(type_id::PUBLISHER_POSITION),
        format!("pub-pos (concurrent): {stream}")
    );
    assert_eq!(label_of(type_id::PUBLISHER_LIMIT), format!("pub-lmt: {stream}"));
    let heartbeat = label_of(type_id::CLIENT_HEARTBEAT);
    assert!(
        heartbeat.starts_with(&format!("client-heartbeat: id={}", wire.client_id)),
        "{heartbeat}"
    );
    assert_eq!(wire.add_subscription("aeron:ipc", 5), Ok(()));
    let subscription = wire.last;
    let position = label_of(type_id::SUBSCRIBER_POSITION);
    assert!(
        position.starts_with(&format!("sub-pos: {subscription} 77 5 ")),
        "{position}"
    );
    assert!(position.ends_with(" @0"), "{position}");
    let request = Request::RemovePublication {
        registration_id: RegistrationId(registration_id),
        revoke: false,
    };
    assert_eq!(wire.ask(&request), Ok(None));
    await_that("the log to be deleted after the linger", || {
        !Path::new(&log).exists()
    });
    await_that("the position counters to be freed", || {
        let types = [
            type_id::PUBLISHER_POSITION,
            type_id::PUBLISHER_LIMIT,
            type_id::SUBSCRIBER_POSITION,
        ];
        counters(&home.cnc())
            .iter()
            .all(|counter| !types.contains(&counter.type_id))
    });
    assert_eq!(errors(&home.cnc()), []);
}

#[test]
fn channels_that_clients_are_known_to_use_are_accepted() {
    let home = Home::new();
    let _driver = Driver::start(&home, &FAST);
    let mut wire = Wire::attach(&home);
    for (stream, channel) in (1..).zip([
        "aeron:ipc",
        "aeron:ipc?",
        "aeron:ipc?tags=abc",
        "aeron:ipc?so-rcvbuf=32k|alias=test|term-length=64k|mtu=2048",
        "aeron:ipc?nobody=knows|alias=x",
        "aeron:ipc?control-mode=odd",
    ]) {
        assert_eq!(wire.add_publication(channel, stream).err(), None, "{channel}");
        assert_eq!(wire.add_subscription(channel, stream), Ok(()), "{channel}");
    }
    assert_eq!(errors(&home.cnc()), []);
}
