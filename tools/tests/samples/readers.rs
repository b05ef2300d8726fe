//! The programs that look into a driver's shared memory: what they read is what our tools read there.

use serde_json::Value;

use crate::ports::free_address;
use crate::process::{Directory, Make, eventually, read_i32};
use crate::program::{Program, Scene};
use fulmar_benches::output::date::format_utc;

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn array(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not an array: {value}"))
}

/// Epoch milliseconds as Aeron's programs print them in UTC.
fn date(epoch_ms: &Value) -> String {
    format_utc(number(epoch_ms))
        .replace('T', " ")
        .replace('Z', "+0000")
}

/// A stream at rest whose both ends live on: 1000 messages of 32 bytes.
fn stream_at_rest(scene: &Scene, channel: &str) -> (Program, Program) {
    let mut subscriber = scene.start("rate_subscriber", &["-c", channel]);
    subscriber.says("Subscription channel status");
    let words = ["-c", channel, "-m", "1000", "-L", "32", "-l", "60s"];
    let mut publisher = scene.start("streaming_publisher", &words);
    publisher.says("Lingering for");
    subscriber.says("totals 1000 messages");
    (publisher, subscriber)
}

/// A line of AeronStat: id, value and label.
fn counter(line: &str) -> (i64, i64, &str) {
    let parts = line
        .split_once(": ")
        .and_then(|(id, rest)| Some((id, rest.split_once(" - ")?)));
    let (id, (value, label)) = parts.unwrap_or_else(|| panic!("no counter: {line}"));
    let number = |text: &str| {
        let digits = text.trim().replace(',', "");
        digits.parse().unwrap_or_else(|_| panic!("no counter: {line}"))
    };
    (number(id), number(value), label)
}

/// The counters reader: every counter with its label, and a value between those that our tool reads before and after.
fn counters(make: Make) {
    let scene = Scene::spinning(make, &[]);
    let channel = format!("aeron:udp?endpoint={}", free_address());
    let (_publisher, _subscriber) = stream_at_rest(&scene, &channel);
    let before = scene.fulmar("stat");
    let lines = scene.read("AeronStat", &["-w", "false"]);
    let after = scene.fulmar("stat");

    let title = format!(
        " - Aeron Stat (CnC v0.2.0), pid {}, heartbeat age ",
        scene.driver.pid()
    );
    let (_, age) = lines[0]
        .split_once(&title)
        .unwrap_or_else(|| panic!("{}", lines[0]));
    let age: i64 = age
        .strip_suffix("ms")
        .and_then(|age| age.parse().ok())
        .expect("an age");
    assert!((0..10_000).contains(&age), "{age}");

    let read: Vec<_> = lines[2..].iter().map(|line| counter(line)).collect();
    let (before, after) = (array(&before), array(&after));
    assert_eq!((read.len(), read.len()), (before.len(), after.len()));
    // The system counters, and those of two clients and a stream.
    assert!(read.len() > 50, "{lines:#?}");
    for (&(id, value, label), (before, after)) in read.iter().zip(before.iter().zip(after)) {
        assert_eq!((id, label), (number(&before["id"]), text(&before["label"])));
        assert_eq!((id, label), (number(&after["id"]), text(&after["label"])));
        let (before, after) = (number(&before["value"]), number(&after["value"]));
        let between = before.min(after)..=before.max(after);
        assert!(between.contains(&value), "{label}: {value} not in {between:?}");
    }

    // Positions as our other tools show them.
    let position = |name: &str| {
        let found = read.iter().find(|(_, _, label)| label.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {lines:#?}")).1
    };
    let backlog = scene.fulmar("backlog");
    let subscriber = &array(&backlog)[0];
    assert_eq!(number(&subscriber["position"]), position("sub-pos:"));
    assert_eq!(number(&subscriber["unread"]), 0);
    assert_eq!(number(&subscriber["stream_id"]), 1001);
    let streams = scene.fulmar("streams");
    let stream = &array(&streams["streams"])[0];
    let publication = &stream["publications"][0];
    assert_eq!(number(&publication["position"]), position("pub-pos"));
    assert_eq!(number(&publication["limit"]), position("pub-lmt:"));
    assert_eq!(number(&publication["sender"]["position"]), position("snd-pos:"));
    assert_eq!(number(&publication["sender"]["limit"]), position("snd-lmt:"));
    assert_eq!(number(&stream["images"][0]["position"]), position("rcv-pos:"));
    assert_eq!(position("sub-pos:"), 1000 * 64);
    assert_eq!(position("rcv-hwm:"), 1000 * 64);
}

/// The loss reader after real loss: one of twenty datagrams of data is dropped where it arrives.
fn losses(make: Make) {
    let scene = Scene::spinning(
        make,
        &[
            ("AERON_UDP_CHANNEL_INCOMING_INTERCEPTORS", "loss"),
            (
                "AERON_UDP_CHANNEL_TRANSPORT_BINDINGS_LOSS_ARGS",
                "rate=0.05|seed=4711|recv-msg-mask=0x2",
            ),
        ],
    );
    let endpoints = [free_address(), free_address()];
    let channels = endpoints.map(|endpoint| format!("aeron:udp?endpoint={endpoint}"));
    for channel in &channels {
        let mut subscriber = scene.start("rate_subscriber", &["-c", channel]);
        subscriber.says("Subscription channel status");
        let words = ["-c", channel, "-m", "5000", "-L", "1000", "-s", "1001"];
        scene.start("streaming_publisher", &words).ended(0);
        subscriber.says("totals 5000 messages");
        subscriber.interrupt();
        scene.streams_are_gone();
    }
    let lines = scene.read("LossStat", &[]);
    let losses = scene.fulmar("loss");
    let mut expected: Vec<String> = array(&losses)
        .iter()
        .map(|loss| {
            assert!(number(&loss["observations"]) > 1, "{loss}");
            assert!(number(&loss["bytes_lost"]) >= 1056, "{loss}");
            assert_eq!(number(&loss["stream_id"]), 1001);
            format!(
                "{},{},{},{},{},{},{},{}",
                loss["observations"],
                loss["bytes_lost"],
                date(&loss["first_ms"]),
                date(&loss["last_ms"]),
                loss["session_id"],
                loss["stream_id"],
                text(&loss["channel"]),
                text(&loss["source"]),
            )
        })
        .collect();
    assert_eq!(expected.len(), 2, "{losses}");
    for (line, channel) in expected.iter().zip(&channels) {
        assert!(
            line.contains(&format!(",{channel},127.0.0.1:")),
            "{line} {channel}"
        );
    }
    let (first, rest) = lines.split_first().expect("a title");
    assert!(
        first.starts_with("OBSERVATION_COUNT, TOTAL_BYTES_LOST,"),
        "{first}"
    );
    expected.push("2 entries read".to_owned());
    assert_eq!(rest, expected);
    scene.driver.stop();
}

/// Where the error log begins in the CnC file (S 4): behind the metadata, both buffers of commands and the counters.
fn error_log_offset(scene: &Scene) -> String {
    let cnc = scene.dir.file("cnc.dat");
    let lengths = [4, 8, 12, 16].map(|offset| read_i32(&cnc, offset));
    (128 + lengths.iter().sum::<i32>()).to_string()
}

/// The error reader: what was refused, how often and when.
fn errors(make: Make) {
    let scene = Scene::new(make, &[]);
    assert_eq!(scene.read("ErrorStat", &[]), ["", "0 distinct errors observed."]);
    // Programs whose channel is refused say why. One reason comes twice.
    let taken = free_address();
    let channels = [
        "aeron:udp?endpoint=127.0.0.1".to_owned(),
        "aeron:udp?endpoint=127.0.0.1".to_owned(),
        format!("aeron:udp?endpoint={taken}|mtu=7"),
    ];
    for channel in &channels {
        let complaints = scene.start("basic_publisher", &["-c", channel]).failed();
        assert!(
            complaints
                .iter()
                .any(|line| line.contains("aeron_async_add_publication")),
            "{complaints:#?}"
        );
    }
    let errors = scene.fulmar("errors");
    let counts = array(&errors).iter().map(|error| number(&error["count"]));
    assert!(array(&errors).len() >= 2 && counts.sum::<i64>() >= 3, "{errors}");
    let mut expected: Vec<String> = array(&errors)
        .iter()
        .map(|error| {
            format!(
                "{} observations from {} to {} for:\n {}",
                error["count"],
                date(&error["first_ms"]),
                date(&error["last_ms"]),
                text(&error["text"]),
            )
        })
        .collect();
    expected.sort();
    // Through the CnC file's own reader, and as a file with a log somewhere in it.
    let (cnc, offset) = (scene.dir.file("cnc.dat"), error_log_offset(&scene));
    let from_file = ["-f", cnc.to_str().expect("made from text"), "-o", &offset];
    for arguments in [&[][..], &from_file[..]] {
        let lines = scene.read("ErrorStat", arguments).join("\n");
        let (records, count) = lines.rsplit_once("\n\n").expect("a count");
        assert_eq!(count, format!("{} distinct errors observed.", expected.len()));
        let mut records: Vec<&str> = records.split("***\n").skip(1).map(str::trim_end).collect();
        records.sort_unstable();
        let expected: Vec<&str> = expected.iter().map(|record| record.trim_end()).collect();
        assert_eq!(records, expected);
    }
    scene.driver.stop();
}

/// The tool that shows a driver's file and asks it to stop.
fn driver_tool(make: Make) {
    let mut scene = Scene::new(make, &[("AERON_DRIVER_TERMINATION_VALIDATOR", "allow")]);
    let pid = scene.driver.pid();
    assert_eq!(scene.read("DriverTool", &["-P"]), [pid.to_string()]);
    let lines = scene.read("DriverTool", &[]);
    let cnc = scene.dir.file("cnc.dat");
    assert_eq!(
        lines[0],
        format!("Command 'n Control cnc_file: {}", cnc.display())
    );
    assert_eq!(lines[1], format!("Version: {}, PID: {pid}", read_i32(&cnc, 0)));
    let times = lines[2]
        .strip_suffix(')')
        .and_then(|line| line.split_once(" (start: "))
        .and_then(|(now, rest)| Some((now, rest.split_once(", activity: ")?)));
    let (now, (start, activity)) = times.unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(start <= activity && start <= now, "{lines:#?}");
    assert_eq!(scene.read("DriverTool", &["-T"]), [""; 0]);
    eventually("the driver stops", || !scene.driver.is_running());
    assert!(scene.driver.ended());
}

/// Where no driver is, they say so.
#[test]
fn no_driver() {
    let elsewhere = Directory::new();
    for name in ["AeronStat", "LossStat", "ErrorStat", "DriverTool"] {
        let words = ["-d", elsewhere.path(), "-t", "200"];
        let complaints = Program::start(name, &words, "").failed();
        assert_eq!(complaints[0], "(-1000) driver timeout", "{complaints:#?}");
    }
}

on_both_drivers!(counters, losses, errors, driver_tool);
