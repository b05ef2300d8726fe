//! Every command: its help, one success, one refusal, its exit status; and the flows that users build from them.

mod support;

use std::io::{BufRead, Read, Write};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::{
    Dir, Driver, Running, assert_done, assert_failed, await_full, fulmar, lines_of_all_lengths, read, run,
    run_with_input, stderr, stdout,
};

/// Small terms: the tests run many publications side by side.
const CHANNEL: &str = "aeron:ipc?term-length=64k";

const COMMANDS: [&str; 13] = [
    "driver",
    "publish",
    "subscribe",
    "ping",
    "pong",
    "throughput",
    "stat",
    "streams",
    "errors",
    "loss",
    "backlog",
    "terminate",
    "config",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a command again and again until its output is as wanted.
fn repeat_until(line: &str, is_wanted: impl Fn(&Output) -> bool) -> Output {
    let mut output = run(line);
    for _ in 0..500 {
        assert_done(&output);
        if is_wanted(&output) {
            return output;
        }
        output = run(line);
    }
    panic!(
        "`{line}` does not come to say what was wanted: {}",
        stdout(&output)
    );
}

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let output = run(&format!("{command} --help"));
        assert_done(&output);
        let text = stdout(&output);
        assert!(text.contains("Usage: fulmar"), "{text}");
        assert!(
            text.contains("--dir <DIR>") && text.contains("/dev/shm/aeron-$USER"),
            "{command}: {text}"
        );
    }
    let text = stdout(&run("--help"));
    for command in COMMANDS {
        assert!(text.contains(&format!("\n  {command} ")), "{command}: {text}");
    }
}

#[test]
fn a_simulated_world_is_the_same_each_time_it_is_run() {
    let text = stdout(&run("sim --help"));
    assert!(
        text.contains("Usage: fulmar sim") && text.contains("--scenario"),
        "{text}"
    );
    let line = "sim --seed 0x2a --scenario lossy";
    let (first, second) = (run(line), run(line));
    assert_done(&first);
    let trace = |output: &Output| {
        let text = stdout(output);
        text.lines()
            .find(|line| line.starts_with("trace "))
            .map(str::to_owned)
    };
    assert!(trace(&first).is_some());
    assert_eq!(trace(&first), trace(&second));
    assert_ne!(trace(&first), trace(&run("sim --seed 0x2b --scenario lossy")));
    for line in [
        "sim --seeds 5..5",
        "sim --seed x",
        "sim --scenario none",
        "sim --capture file",
        "sim --events",
    ] {
        assert_eq!(run(line).status.code(), Some(2), "{line}");
    }
    let none = run("sim --for 0s");
    assert_failed(&none, &["no world was run"]);
}

#[test]
fn a_simulated_world_shows_its_datagrams_and_its_last_events() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path()).expect("the directory is made");
    let file = format!("{}/world.pcap", dir.path());
    let line = format!("sim --seed 1 --scenario restart --events --capture {file}");
    let output = run(&line);
    assert_done(&output);
    let text = stdout(&output);
    assert!(text.contains(" RestartDriver { host: 1, "), "{text}");
    assert!(text.contains(" all clients close\nseed 0x1 "), "{text}");
    let capture = std::fs::read(&file).expect("the capture is there");
    assert_eq!(capture.get(..4), Some(&0xA1B2_3C4D_u32.to_le_bytes()[..]));
    assert!(capture.len() > 100_000, "{} bytes", capture.len());
    let output = run(&format!("sim --seed 1 --capture {}/none/world.pcap", dir.path()));
    assert_failed(&output, &["world.pcap can not be written"]);
    let output = run("sim --seed 1 --scenario lossy --capture /dev/full");
    assert_failed(&output, &["/dev/full can not be written"]);
}

#[test]
fn the_version_names_the_protocols() {
    let output = run("--version");
    assert_done(&output);
    let text = stdout(&output);
    assert!(
        text.starts_with(&format!("fulmar {}", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    assert!(
        text.contains("CnC 0.2.0") && text.contains("protocol 1.0.0"),
        "{text}"
    );
}

#[test]
fn wrong_usage_is_refused_with_status_2() {
    for line in [
        "",
        "fly",
        "publish --generate many",
        "driver -D aeron.no.such.setting=1",
        "driver -D aeron.mtu.length=tiny",
        "driver --idle hurry",
        "config -D nonsense",
        "ping --rate 0",
        "bench --rounds 0",
        "bench --term-length 100k",
        "bench no-such-case",
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "`{line}`: {}", stderr(&output));
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_driver_every_command_names_the_directory_and_the_way_out() {
    let dir = Dir::new();
    for command in [
        "publish --generate 1",
        "subscribe",
        "ping",
        "pong",
        "throughput",
        "stat",
        "streams",
        "errors",
        "loss",
        "backlog",
        "terminate",
    ] {
        let timeout = match command {
            "stat" | "streams" | "errors" | "loss" | "backlog" | "terminate" => "",
            _ => "--driver-timeout 10ms",
        };
        let output = run(&format!("{command} --dir {} {timeout}", dir.path()));
        let start_one = format!("fulmar driver --dir {}", dir.path());
        assert_failed(&output, &[dir.path(), &start_one]);
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn a_dead_driver_is_told_from_a_live_one_at_once() {
    let driver = Driver::start();
    let running = driver.running.as_ref().expect("running");
    running.signal(libc::SIGKILL);
    let at = driver.at();
    let dir = driver.dir().to_string();
    let mut driver = driver;
    let ended = driver.running.take().expect("running").finish();
    assert_eq!(ended.status.code(), None, "killed");
    assert_failed(
        &run(&format!("stat {at}")),
        &[&dir, "fulmar driver", "--post-mortem"],
    );
    assert_failed(
        &run(&format!("subscribe {at} --driver-timeout 10ms")),
        &[&dir, "fulmar driver"],
    );
    let remains = run(&format!("stat {at} --post-mortem --json"));
    assert_done(&remains);
    assert!(!json(&stdout(&remains)).as_array().expect("an array").is_empty());
    assert!(
        stderr(&remains).contains("no longer runs"),
        "{}",
        stderr(&remains)
    );
}

#[test]
fn a_driver_serves_until_sigterm_and_keeps_others_out_of_its_directory() {
    let driver = Driver::start();
    let second = run(&format!("driver {}", driver.at()));
    assert_failed(&second, &[driver.dir()]);
    assert_done(&run(&format!("stat {}", driver.at())));
    assert_done(&driver.stop());
}

#[test]
fn a_driver_stops_on_request_only_if_it_was_allowed() {
    let denying = Driver::start();
    let output = run(&format!("terminate {} --timeout 50ms", denying.at()));
    assert_failed(
        &output,
        &[denying.dir(), "aeron.driver.termination.validator=allow"],
    );
    assert_done(&run(&format!("stat {}", denying.at())));
    assert_done(&denying.stop());

    let allowing = Driver::start_with("-D aeron.driver.termination.validator=allow");
    assert_done(&run(&format!("terminate {}", allowing.at())));
    assert_done(&allowing.finish());
}

#[test]
fn stat_shows_every_counter_once_or_again_and_again() {
    let driver = Driver::start();
    let table = run(&format!("stat {}", driver.at()));
    assert_done(&table);
    let text = stdout(&table);
    let head = text.lines().next().expect("a first line");
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        ["id", "type", "value", "label"]
    );
    assert!(text.contains("Bytes sent"), "{text}");

    let once = run(&format!("stat {} --json", driver.at()));
    assert_done(&once);
    let counters = json(&stdout(&once));
    let first = &counters.as_array().expect("an array")[0];
    for key in ["id", "type", "label", "value"] {
        assert!(!first[key].is_null(), "{key} in {first}");
    }

    let twice = run(&format!("stat {} --json --interval 1ms --count 2", driver.at()));
    assert_done(&twice);
    let lines: Vec<Value> = stdout(&twice).lines().map(json).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["time_ms"].is_u64() && lines[1]["counters"].is_array());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let driver = Driver::start();
    let mut child = fulmar(&format!("stat {} --interval 1ms", driver.at()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut first = [0; 1];
    child
        .stdout
        .as_mut()
        .expect("piped")
        .read_exact(&mut first)
        .expect("output");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_done(&output);
    assert_eq!(stderr(&output), "");
}

#[test]
fn errors_shows_what_the_driver_recorded() {
    let driver = Driver::start();
    let none = run(&format!("errors {}", driver.at()));
    assert_done(&none);
    assert_eq!(stdout(&none), "no errors\n");
    let output = run(&format!("subscribe {} -c aeron:nonsense", driver.at()));
    assert_failed(&output, &["aeron:nonsense"]);
    let some = run(&format!("errors {} --json", driver.at()));
    assert_done(&some);
    let errors = json(&stdout(&some));
    let first = &errors.as_array().expect("an array")[0];
    assert!(first["count"].as_i64() >= Some(1), "{errors}");
    assert!(
        first["text"]
            .as_str()
            .is_some_and(|text| text.contains("nonsense")),
        "{errors}"
    );
    assert!(first["first_ms"].as_i64() <= first["last_ms"].as_i64());
}

#[test]
fn streams_and_backlog_tell_who_has_not_read_what() {
    let driver = Driver::start();
    assert_eq!(stdout(&run(&format!("streams {}", driver.at()))), "no streams\n");
    assert_eq!(
        stdout(&run(&format!("backlog {}", driver.at()))),
        "no subscribers\n"
    );
    let stream = format!("{} -c {CHANNEL} -s 5", driver.at());
    let mut quick = Running::start(&format!("subscribe {stream}"));
    let mut stopped = Running::start(&format!("subscribe {stream}"));
    quick.await_stderr("subscribed");
    stopped.await_stderr("subscribed");
    let mut publisher = Running::start_with(&format!("publish {stream} --exclusive"), Stdio::piped());
    let mut stdin = publisher.stdin();
    let mut printed = quick.stdout();
    let mut line = String::new();
    stdin.write_all(b"both read this\n").expect("written");
    printed.read_line(&mut line).expect("text");
    stopped.stdout().read_line(&mut line).expect("text");
    stopped.signal(libc::SIGSTOP);
    stdin.write_all(b"one reads this\n").expect("written");
    printed.read_line(&mut line).expect("text");

    // The driver samples the position of publishers when it wakes up.
    let has_seen = |output: &Output| stdout(output).contains("\"unread\":64");
    let backlog = repeat_until(&format!("backlog {} --json", driver.at()), has_seen);
    let backlog = json(&stdout(&backlog));
    assert_eq!(backlog[0]["unread"], 64);
    assert_eq!(backlog[1]["unread"], 0);
    assert_eq!(backlog[0]["stream_id"], 5);

    let streams = run(&format!("streams {} --json --sample 1ms --stream 5", driver.at()));
    assert_done(&streams);
    let document = json(&stdout(&streams));
    let stream = &document["streams"][0];
    assert_eq!(stream["stream_id"], 5, "{document}");
    let publication = &stream["publications"][0];
    assert_eq!(publication["exclusive"], true, "{document}");
    assert_eq!(publication["sender"], Value::Null, "{document}");
    let subscribers = stream["subscribers"].as_array().expect("an array");
    let of = |unread: i64| {
        let found = subscribers
            .iter()
            .find(|subscriber| subscriber["unread"] == unread);
        found.unwrap_or_else(|| panic!("nobody has {unread} bytes unread: {document}"))
    };
    // A frame is its header of 32 bytes and the text, to the next 32 bytes.
    assert_eq!(of(0)["slowest"], false, "{document}");
    assert_eq!(of(64)["slowest"], true, "{document}");
    let table = stdout(&run(&format!("streams {} --sample 0", driver.at())));
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("slowest"), "{table}");
    assert!(stdout(&run(&format!("streams {} --sample 0 -s 6", driver.at()))).contains("no streams"));
    stopped.signal(libc::SIGCONT);
}

#[test]
fn a_driver_that_lost_nothing_says_so() {
    let driver = Driver::start();
    let text = run(&format!("loss {}", driver.at()));
    assert_done(&text);
    assert_eq!(stdout(&text), "no loss\n");
    assert_eq!(stdout(&run(&format!("loss {} --json", driver.at()))), "[]\n");
}

#[test]
fn config_says_where_each_setting_comes_from() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "aeron.mtu.length=4k\naeron.ipc.mtu.length=4k\n").expect("written");
    let output = fulmar("config --json --dir /d -D aeron.ipc.mtu.length=8k")
        .arg(file.path())
        .env("AERON_TERM_BUFFER_LENGTH", "1m")
        .env("AERON_NO_SUCH_SETTING", "1")
        .output()
        .expect("the command runs");
    assert_done(&output);
    assert!(
        stderr(&output).contains("AERON_NO_SUCH_SETTING"),
        "{}",
        stderr(&output)
    );
    let rows = json(&stdout(&output));
    let row = |key: &str| {
        rows.as_array()
            .expect("an array")
            .iter()
            .find(|row| row["key"] == key)
            .unwrap_or_else(|| panic!("{key}"))
            .clone()
    };
    assert_eq!(row("aeron.dir")["source"], "--dir");
    assert_eq!(row("aeron.ipc.mtu.length")["source"], "-D");
    assert!(
        row("aeron.mtu.length")["source"]
            .as_str()
            .expect("text")
            .ends_with(":1")
    );
    assert_eq!(
        row("aeron.term.buffer.length")["source"],
        "environment AERON_TERM_BUFFER_LENGTH"
    );
    assert_eq!(row("aeron.timer.interval")["source"], "default");
    let table = run("config --changed --dir /d");
    assert_done(&table);
    assert!(
        stdout(&table)
            .lines()
            .any(|line| line.starts_with("aeron.dir ") && line.contains("/d"))
    );
    assert_failed(
        &run("config /no/such/file.properties"),
        &["/no/such/file.properties"],
    );
}

/// Publishes `input` and gives what each of `subscribers` printed.
fn through_streams(input: &[u8], channel: &str, publish_options: &str, subscribers: usize) -> Vec<Vec<u8>> {
    let driver = Driver::start();
    let mut running: Vec<Running> = (0..subscribers)
        .map(|_| {
            let mut subscriber = Running::start(&format!(
                "subscribe {} -c {channel} -s 7 --until-end",
                driver.at()
            ));
            subscriber.await_stderr("subscribed");
            subscriber
        })
        .collect();
    let outputs: Vec<_> = running.iter_mut().map(Running::stdout).collect();
    let printed = std::thread::scope(|scope| {
        let readers: Vec<_> = outputs
            .into_iter()
            .map(|mut stdout| {
                scope.spawn(move || {
                    let mut bytes = Vec::new();
                    stdout.read_to_end(&mut bytes).expect("output");
                    bytes
                })
            })
            .collect();
        let published = run_with_input(
            &format!("publish {} -c {channel} -s 7 {publish_options}", driver.at()),
            input,
        );
        assert_done(&published);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader"))
            .collect()
    });
    for subscriber in running {
        assert_done(&subscriber.finish());
    }
    printed
}

fn assert_same(printed: &[u8], input: &[u8]) {
    let first_difference = printed.iter().zip(input).position(|(a, b)| a != b);
    assert_eq!(first_difference, None, "bytes differ");
    assert_eq!(printed.len(), input.len());
}

#[test]
fn a_file_comes_out_as_it_went_in() {
    let mut input = lines_of_all_lengths(4 << 20, 100_000);
    input.extend_from_slice(b"\n\nthe last line has no end");
    for options in ["", "--exclusive"] {
        // An eighth of a term holds the longest line.
        let printed = through_streams(&input, "aeron:ipc?term-length=1m", options, 1);
        assert_same(&printed[0], &input);
    }
}

#[test]
fn two_subscribers_get_the_same_file() {
    let input = lines_of_all_lengths(2 << 20, 5_000);
    for printed in through_streams(&input, CHANNEL, "", 2) {
        assert_same(&printed, &input);
    }
}

#[test]
fn a_line_of_a_megabyte_is_one_message() {
    let mut input = vec![b'x'; 1 << 20];
    input.push(b'\n');
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!(
        "subscribe {} -c aeron:ipc?term-length=16m --count 1 --format length",
        driver.at()
    ));
    subscriber.await_stderr("subscribed");
    assert_done(&run_with_input(
        &format!("publish {} -c aeron:ipc?term-length=16m", driver.at()),
        &input,
    ));
    let output = subscriber.finish();
    assert_done(&output);
    assert_eq!(stdout(&output), "1048576\n");
}

#[test]
fn a_line_that_no_message_can_hold_is_refused() {
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!("subscribe {} -c {CHANNEL}", driver.at()));
    subscriber.await_stderr("subscribed");
    let input = [b"short\n".as_slice(), &[b'x'; 9000], b"\n"].concat();
    let output = run_with_input(&format!("publish {} -c {CHANNEL}", driver.at()), &input);
    assert_failed(&output, &["line 2", "8192 bytes", "term-length"]);
}

#[test]
fn a_typed_line_is_printed_before_the_next_is_typed() {
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!("subscribe {} -c {CHANNEL}", driver.at()));
    subscriber.await_stderr("subscribed");
    let mut publisher = Running::start_with(&format!("publish {} -c {CHANNEL}", driver.at()), Stdio::piped());
    let mut stdin = publisher.stdin();
    let mut printed = subscriber.stdout();
    for typed in ["one\n", "two\n"] {
        stdin.write_all(typed.as_bytes()).expect("written");
        let mut line = String::new();
        printed.read_line(&mut line).expect("text");
        assert_eq!(line, typed);
    }
    drop(stdin);
    assert_done(&publisher.finish());
    // Interrupting a subscriber is how it normally ends.
    subscriber.signal(libc::SIGINT);
    assert_done(&subscriber.finish());
}

#[test]
fn a_subscriber_outlives_its_driver_and_a_publisher_names_what_is_missing() {
    let mut first = Driver::start();
    let at = first.at();
    let dir = first.dir().to_string();
    let mut subscriber = Running::start(&format!("subscribe {at} -c {CHANNEL} --count 2"));
    subscriber.await_stderr("subscribed");
    let mut printed = subscriber.stdout();
    let mut publisher = Running::start_with(
        &format!("publish {at} -c {CHANNEL} --connect-timeout 100ms"),
        Stdio::piped(),
    );
    let mut stdin = publisher.stdin();
    stdin.write_all(b"before\n").expect("written");
    let mut line = String::new();
    printed.read_line(&mut line).expect("text");
    assert_eq!(line, "before\n");
    let ended = first.running.take().expect("running");
    ended.signal(libc::SIGKILL);
    assert_eq!(ended.finish().status.code(), None, "killed");
    subscriber.await_stderr("start one with `fulmar driver --dir");
    publisher.await_stderr("start one with `fulmar driver --dir");
    stdin.write_all(b"lost\n").expect("written");
    drop(stdin);
    assert_failed(&publisher.finish(), &["is gone", &dir, "fulmar driver"]);

    let second = Running::start(&format!("driver {at} --threading shared"));
    subscriber.await_stderr("attached to the new media driver");
    assert_done(&run_with_input(&format!("publish {at} -c {CHANNEL}"), b"found\n"));
    line.clear();
    printed.read_to_string(&mut line).expect("text");
    assert_eq!(line, "found\n");
    assert_done(&subscriber.finish());
    assert_done(&second.stop());
}

#[test]
fn a_subscriber_whose_reader_takes_nothing_can_be_stopped() {
    const WIDE: &str = "aeron:ipc?term-length=2m";
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!("subscribe {} -c {WIDE}", driver.at()));
    subscriber.await_stderr("subscribed");
    // More than a pipe holds, all of it in the stream before the subscriber is stopped.
    let published = run(&format!(
        "publish {} -c {WIDE} --generate 400 --length 1k --linger 0",
        driver.at()
    ));
    assert_done(&published);
    let unread = subscriber.stdout();
    await_full(unread.get_ref());
    subscriber.signal(libc::SIGTERM);
    assert_failed(&subscriber.finish(), &["took nothing", "were not printed"]);
    drop(unread);
}

#[test]
fn an_interrupted_publisher_says_how_far_it_came() {
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!("subscribe {} -c {CHANNEL}", driver.at()));
    subscriber.await_stderr("subscribed");
    let mut publisher = Running::start_with(&format!("publish {} -c {CHANNEL}", driver.at()), Stdio::piped());
    let mut stdin = publisher.stdin();
    stdin.write_all(b"one\n").expect("written");
    let mut line = String::new();
    subscriber.stdout().read_line(&mut line).expect("text");
    assert_eq!(line, "one\n");
    publisher.signal(libc::SIGINT);
    assert_failed(&publisher.finish(), &["interrupted, after 1 messages"]);
    drop(stdin);
}

#[test]
fn publish_gives_up_when_nobody_subscribes() {
    let driver = Driver::start();
    let output = run_with_input(
        &format!("publish {} -s 77 --connect-timeout 20ms", driver.at()),
        b"x\n",
    );
    assert_failed(&output, &["aeron:ipc stream 77", "20ms", "fulmar subscribe"]);
}

#[test]
fn publish_fails_when_a_stopped_subscriber_takes_nothing() {
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!("subscribe {} -c {CHANNEL}", driver.at()));
    subscriber.await_stderr("subscribed");
    subscriber.signal(libc::SIGSTOP);
    let output = run_with_input(
        &format!("publish {} -c {CHANNEL} --linger 50ms", driver.at()),
        b"x\n",
    );
    assert_failed(&output, &["has not taken", "--linger"]);
    subscriber.signal(libc::SIGCONT);
}

#[test]
fn messages_are_printed_in_the_format_asked_for() {
    let driver = Driver::start();
    for (options, expected) in [
        ("--format hex", "6162\n\nff00\n"),
        ("--format length", "2\n0\n2\n"),
    ] {
        let mut subscriber = Running::start(&format!(
            "subscribe {} -c {CHANNEL} --count 3 {options}",
            driver.at()
        ));
        subscriber.await_stderr("subscribed");
        assert_done(&run_with_input(
            &format!("publish {} -c {CHANNEL}", driver.at()),
            b"ab\n\n\xff\0\n",
        ));
        let output = subscriber.finish();
        assert_done(&output);
        assert_eq!(stdout(&output), expected);
    }
    let mut subscriber = Running::start(&format!(
        "subscribe {} -c {CHANNEL} --count 2 --json",
        driver.at()
    ));
    subscriber.await_stderr("subscribed");
    assert_done(&run_with_input(
        &format!("publish {} -c {CHANNEL}", driver.at()),
        b"say \"hi\"\n\xff\n",
    ));
    let output = subscriber.finish();
    let lines: Vec<Value> = stdout(&output).lines().map(json).collect();
    assert_eq!(lines[0]["text"], "say \"hi\"");
    assert_eq!(lines[1]["hex"], "ff");
    assert_eq!(lines[0]["length"], 8);
    assert!(lines[0]["position"].as_i64() < lines[1]["position"].as_i64());
}

#[test]
fn generated_messages_are_verified() {
    let driver = Driver::start();
    for options in [
        "--length 8",
        "--length 100 --exclusive",
        "--length 5000 --rate 100000",
    ] {
        let mut subscriber = Running::start(&format!(
            "subscribe {} -c {CHANNEL} --verify --count 3000",
            driver.at()
        ));
        subscriber.await_stderr("subscribed");
        let published = run(&format!(
            "publish {} -c {CHANNEL} --generate 3000 --json {options}",
            driver.at()
        ));
        assert_done(&published);
        assert_eq!(json(&stdout(&published))["messages"], 3000);
        let output = subscriber.finish();
        assert_done(&output);
        assert_eq!(stdout(&output), "verified 3000 messages 0 errors\n");
    }
}

#[test]
fn verification_fails_for_messages_of_another_make() {
    let driver = Driver::start();
    let mut subscriber = Running::start(&format!(
        "subscribe {} -c {CHANNEL} --verify --until-end",
        driver.at()
    ));
    subscriber.await_stderr("subscribed");
    assert_done(&run_with_input(
        &format!("publish {} -c {CHANNEL}", driver.at()),
        b"hello\n",
    ));
    let output = subscriber.finish();
    assert_failed(&output, &["message 0"]);
    assert_eq!(stdout(&output), "verified 1 messages 2 errors\n");
}

#[test]
fn ping_and_pong_in_one_process_measure_and_draw() {
    let directory = tempfile::tempdir().expect("a directory");
    let (hgrm, plot) = (
        directory.path().join("ping.hgrm"),
        directory.path().join("ping.html"),
    );
    let output = run(&format!(
        "ping --embedded --messages 2000 --warmup 100 --json --hgrm {} --plot {}",
        hgrm.display(),
        plot.display()
    ));
    assert_done(&output);
    let document = json(&stdout(&output));
    assert_eq!(document["count"], 2000);
    let figures: Vec<u64> = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"]
        .iter()
        .map(|key| {
            document[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{key} in {document}"))
        })
        .collect();
    assert!(figures[0] > 0 && figures.is_sorted(), "{document}");
    assert!(read(&hgrm).contains("Total count    =         2000]"));
    assert!(read(&plot).contains("<svg") && !read(&plot).contains("http"));
}

#[test]
fn ping_on_a_schedule_reaches_a_pong_in_another_process() {
    let driver = Driver::start();
    let mut pong = Running::start(&format!("pong {}", driver.at()));
    pong.await_stderr("echoing");
    let output = run(&format!(
        "ping {} --messages 300 --warmup 10 --rate 1000 --length 5000",
        driver.at()
    ));
    // On a machine that is busy with other tests the schedule may be missed; that is a result as well.
    let text = stdout(&output);
    assert!(
        text.contains("count             300") && text.contains("p99.99"),
        "{text}{}",
        stderr(&output)
    );
    assert!(output.status.success() || stderr(&output).contains("missed its rate"));
    assert_done(&pong.stop());
}

#[test]
fn ping_without_a_pong_gives_up() {
    let driver = Driver::start();
    let output = run(&format!("ping {} --connect-timeout 20ms", driver.at()));
    assert_failed(&output, &["no pong", "fulmar pong"]);
}

#[test]
fn throughput_moves_everything() {
    for options in ["", "--exclusive"] {
        let output = run(&format!(
            "throughput --embedded -c {CHANNEL} --messages 100000 --length 40 --json {options}"
        ));
        assert_done(&output);
        let document = json(&stdout(&output));
        assert!(document["messages_per_second"].as_f64() > Some(0.0), "{document}");
        let (messages, bytes) = (&document["messages_per_second"], &document["bytes_per_second"]);
        let ratio = bytes.as_f64().expect("a number") / messages.as_f64().expect("a number");
        assert!((ratio - 40.0).abs() < 1e-6, "{document}");
        let share = document["back_pressure_share"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&share));
    }
    let output = run(&format!("throughput --embedded -c {CHANNEL} --length 9000"));
    assert_failed(&output, &["9000 bytes", "term-length"]);
}

#[test]
fn bench_explains_itself_with_its_suites() {
    let output = run("bench --help");
    assert_done(&output);
    let text = stdout(&output);
    for part in [
        "Usage: fulmar bench [OPTIONS] [FILTER]...",
        "--rounds",
        "[default: 16m]",
        "--json",
        "--out",
        "\n  ipc  ",
        "\n  counted  ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(stdout(&run("--help")).contains("\n  bench "));
    let refused = run("bench no-such-case");
    let text = stderr(&refused);
    assert!(text.contains("no-such-case; suites: ipc, udp"), "{text}");
}

#[test]
fn bench_prints_a_table_and_writes_the_same_for_programs_plotters_and_people() {
    let directory = tempfile::tempdir().expect("a directory");
    let (out, file) = (directory.path().join("a/b"), directory.path().join("alone.json"));
    let output = run(&format!(
        "bench ipc/round-trip/closed --smoke --out {} --json {}",
        out.display(),
        file.display()
    ));
    assert_done(&output);
    let text = stdout(&output);
    assert!(text.contains("smoke run: the figures mean nothing"), "{text}");
    let document = json(&read(&file));
    assert_eq!(document, json(&read(&out.join("report.json"))));
    assert_eq!(document["settings"]["smoke"], true);
    assert_eq!(document["failed"], Value::Array(Vec::new()));
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 3);
    for row in rows {
        let name = row["name"].as_str().expect("a name");
        assert!(name.starts_with("ipc/round-trip/closed p"), "{name}");
        assert!(text.contains(&format!("\n{name} ")), "{name}: {text}");
        assert!(
            row["sides"][0]["median"]
                .as_f64()
                .is_some_and(|median| median > 0.0)
        );
    }
    let latencies = document["latencies"].as_array().expect("latencies");
    let sides: Vec<_> = latencies.iter().filter_map(|of| of["side"].as_str()).collect();
    assert_eq!((sides.first(), sides.last()), (Some(&"fulmar"), Some(&"bare")));
    for of in latencies {
        let count = of["count"].as_u64().expect("a count");
        let distribution = read(&out.join(of["file"].as_str().expect("a file")));
        assert!(
            distribution.contains(&format!("Total count    = {count:12}]")),
            "{distribution}"
        );
    }
    let page = read(&out.join("report.html"));
    assert!(page.contains("<svg") && page.contains("ipc/round-trip/closed p99.9"));
    assert!(!page.contains("http"));
}

#[test]
fn bench_prints_one_document_instead_of_the_table() {
    let output = run("bench ipc/round-trip/closed --smoke --json -");
    assert_done(&output);
    assert_eq!(
        json(&stdout(&output))["settings"]["filters"][0],
        "ipc/round-trip/closed"
    );
    let text = stderr(&output);
    assert!(text.contains("ipc/round-trip/closed p50"), "{text}");
}

#[test]
fn bench_says_at_once_that_it_can_not_write() {
    for option in ["--out /dev/null/d", "--json /dev/null/f"] {
        let output = run(&format!("bench ipc {option}"));
        assert_failed(&output, &["cannot write to /dev/null/"]);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn bench_refuses_settings_from_the_environment_that_some_sides_would_not_get() {
    let mut command = fulmar("bench ipc/round-trip/closed --smoke");
    let output = command.env("AERON_MTU_LENGTH", "8192").output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("unset AERON_MTU_LENGTH"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn bench_misses_tools_only_where_a_case_needs_them() {
    let mut command = fulmar("bench ipc/round-trip/closed --smoke --json -");
    let output = command.env("PATH", "/none").output().expect("runs");
    assert_done(&output);
    let document = json(&stdout(&output));
    let left_out = document["left_out"].as_array().expect("a list");
    let is_tool = |what: &Value| what.as_str().is_some_and(|what| what.starts_with("not counted"));
    assert!(!left_out.iter().any(is_tool), "{left_out:?}");
    let output = fulmar("bench counted")
        .env("PATH", "/none")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(2));
    for tool in ["not counted: valgrind", "not counted: strace"] {
        assert!(stderr(&output).contains(tool), "{}", stderr(&output));
    }
}

#[test]
fn bench_is_the_child_that_it_counts() {
    let output = run("bench count ipc fulmar exclusive 32 10");
    assert_done(&output);
    assert_eq!(stdout(&output), "160 messages\n");
    assert_failed(
        &run("bench count ipc nobody exclusive 32 10"),
        &["no side nobody"],
    );
}

#[test]
fn bench_stops_between_runs_and_when_nobody_reads() {
    let line = "bench ipc/round-trip/closed --smoke --rounds 1000000";
    let mut bench = Running::start(line);
    let mut first = String::new();
    let mut table = bench.stdout();
    table.read_line(&mut first).expect("text");
    bench.signal(libc::SIGTERM);
    table.read_to_string(&mut first).expect("text");
    assert_failed(&bench.finish(), &["stopped after "]);

    // Its reader is gone before it starts, so that its first line shows it.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = fulmar(line).stdout(writer).output().expect("it ends");
    assert_done(&output);
    assert_eq!(stderr(&output), "");
}
