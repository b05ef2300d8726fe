//! The commands on network channels: the same flows as over shared memory, between two drivers on the loopback
//! interface, and inside one process.

#[allow(dead_code, reason = "a kit for several test programs")]
mod support;

use std::io::{BufRead, Read, Write};
use std::process::Stdio;

use serde_json::Value;
use support::{
    Driver, Running, assert_done, assert_failed, lines_of_all_lengths, run, run_with_input, stderr, stdout,
};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A port that was free a moment ago.
#[expect(
    clippy::disallowed_types,
    reason = "only the system knows which ports are free"
)]
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// Small terms and short timeouts: the tests run many drivers side by side.
const SETTINGS: &str = "-D aeron.term.buffer.length=1m -D aeron.timer.interval=100ms";

fn driver() -> Driver {
    Driver::start_with(SETTINGS)
}

/// Loses a tenth of what arrives, the same tenth in every run.
fn lossy_driver() -> Driver {
    Driver::start_with(&format!(
        "{SETTINGS} -D aeron.udp.channel.incoming.interceptors=loss \
         -D aeron.udp.channel.transport.bindings.loss.args=rate=0.1|seed=7|recv-msg-mask=0x3"
    ))
}

/// A subscriber on a port that the system chose, and the channel to it.
fn subscribe(driver: &Driver, options: &str) -> (Running, String) {
    let mut subscriber = Running::start(&format!(
        "subscribe {} -c aeron:udp?endpoint=127.0.0.1:0 -s 7 {options}",
        driver.at()
    ));
    let line = subscriber.await_stderr("subscribed");
    let (_, address) = line
        .trim_end()
        .split_once("address=")
        .unwrap_or_else(|| panic!("no address: {line}"));
    let channel = format!("aeron:udp?endpoint={address}");
    (subscriber, channel)
}

/// What comes out at a subscriber's driver when `input` goes into a publisher's.
fn across(receiving: &Driver, publish: impl Fn(&str) -> std::process::Output) -> Vec<u8> {
    let (mut subscriber, channel) = subscribe(receiving, "--until-end");
    let mut stdout = subscriber.stdout();
    let printed = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).expect("output");
            bytes
        });
        assert_done(&publish(&channel));
        reader.join().expect("a reader")
    });
    assert_done(&subscriber.finish());
    printed
}

#[test]
fn a_file_comes_out_of_another_driver_as_it_went_in() {
    let (sending, receiving) = (driver(), driver());
    let input = lines_of_all_lengths(2_000_000, 100_000);
    let printed = across(&receiving, |channel| {
        run_with_input(&format!("publish {} -c {channel} -s 7", sending.at()), &input)
    });
    assert!(printed == input, "{} bytes of {}", printed.len(), input.len());
}

#[test]
fn a_file_comes_out_of_a_driver_that_loses_packets_and_loss_says_what_it_lost() {
    let (sending, receiving) = (driver(), lossy_driver());
    let input = lines_of_all_lengths(1_000_000, 20_000);
    let printed = across(&receiving, |channel| {
        run_with_input(&format!("publish {} -c {channel} -s 7", sending.at()), &input)
    });
    assert!(printed == input, "{} bytes of {}", printed.len(), input.len());
    let loss = run(&format!("loss {} --json", receiving.at()));
    assert_done(&loss);
    let document = json(&stdout(&loss));
    assert!(document[0]["bytes_lost"].as_i64() > Some(0), "{document}");
    assert_eq!(document[0]["stream_id"], 7);
    let table = stdout(&run(&format!("loss {}", receiving.at())));
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(stdout(&run(&format!("loss {}", sending.at()))), "no loss\n");
}

#[test]
fn a_publisher_with_its_own_driver_leaves_nothing_behind() {
    let receiving = lossy_driver();
    let input = lines_of_all_lengths(300_000, 5_000);
    let printed = across(&receiving, |channel| {
        run_with_input(&format!("publish --embedded -c {channel} -s 7"), &input)
    });
    assert!(printed == input, "{} bytes of {}", printed.len(), input.len());
}

#[test]
fn generated_messages_are_verified_across_drivers() {
    let (sending, receiving) = (driver(), driver());
    let (subscriber, channel) = subscribe(&receiving, "--verify --count 20000 --json");
    let published = run(&format!(
        "publish {} -c {channel} -s 7 --exclusive --generate 20000 --length 300",
        sending.at()
    ));
    assert_done(&published);
    let verified = subscriber.finish();
    assert_done(&verified);
    let document = json(&stdout(&verified));
    assert_eq!(
        (&document["verified"], &document["errors"]),
        (&20_000.into(), &0.into())
    );
}

#[test]
fn streams_show_both_halves_of_a_network_stream() {
    let (sending, receiving) = (driver(), driver());
    let (mut subscriber, channel) = subscribe(&receiving, "");
    let mut publisher = Running::start_with(
        &format!("publish {} -c {channel} -s 7", sending.at()),
        Stdio::piped(),
    );
    let mut stdin = publisher.stdin();
    stdin.write_all(b"hello\n").expect("written");
    let mut line = String::new();
    subscriber.stdout().read_line(&mut line).expect("text");
    assert_eq!(line, "hello\n");

    let near = json(&stdout(&run(&format!("streams {} --json", sending.at()))));
    let publication = &near["streams"][0]["publications"][0];
    assert_eq!(publication["channel"], channel.as_str(), "{near}");
    assert_eq!(publication["sender"]["position"], 64, "{near}");
    assert_eq!(publication["sender"]["unsent"], 0, "{near}");
    assert!(publication["sender"]["window"].as_i64() > Some(0), "{near}");
    assert_eq!(publication["bytes_per_second"], 0.0, "{near}");
    let far = json(&stdout(&run(&format!(
        "streams {} --json --sample 0",
        receiving.at()
    ))));
    let stream = &far["streams"][0];
    assert_eq!(stream["session_id"], near["streams"][0]["session_id"]);
    assert_eq!(stream["images"][0]["position"], 64, "{far}");
    assert_eq!(stream["images"][0]["incomplete"], 0, "{far}");
    assert_eq!(stream["subscribers"][0]["unread"], 0, "{far}");
    assert_eq!(
        stream["subscribers"][0]["reads"],
        stream["images"][0]["correlation_id"]
    );
    let table = stdout(&run(&format!("streams {} --sample 0", sending.at())));
    assert!(table.contains("sender"), "{table}");
    drop(stdin);
    assert_done(&publisher.finish());
}

#[test]
fn ping_and_pong_over_udp_in_one_process() {
    let (there, back) = (free_port(), free_port());
    let output = run(&format!(
        "ping --embedded --ping-channel aeron:udp?endpoint=127.0.0.1:{there} \
         --pong-channel aeron:udp?endpoint=127.0.0.1:{back} --messages 500 --warmup 50 --json"
    ));
    assert_done(&output);
    let document = json(&stdout(&output));
    assert_eq!(document["count"], 500);
    assert!(document["p50"].as_i64() > Some(0));
}

#[test]
fn ping_over_udp_reaches_a_pong_at_another_driver() {
    let (near, far) = (driver(), driver());
    let (there, back) = (free_port(), free_port());
    let channels = format!(
        "--ping-channel aeron:udp?endpoint=127.0.0.1:{there} --pong-channel aeron:udp?endpoint=127.0.0.1:{back}"
    );
    let mut pong = Running::start(&format!("pong {} {channels}", far.at()));
    pong.await_stderr("echoing");
    let output = run(&format!(
        "ping {} {channels} --messages 300 --warmup 10 --length 4000 --json",
        near.at()
    ));
    assert_done(&output);
    assert_eq!(json(&stdout(&output))["count"], 300);
}

#[test]
fn throughput_over_udp_moves_everything() {
    for options in ["", "--exclusive"] {
        let output = run(&format!(
            "throughput --embedded -c aeron:udp?endpoint=127.0.0.1:{}|term-length=1m --messages 50000 --length 100 --json {options}",
            free_port()
        ));
        assert_done(&output);
        assert!(json(&stdout(&output))["messages_per_second"].as_f64() > Some(0.0));
    }
}

#[test]
fn whoever_finds_nobody_is_told_where_to_look() {
    let driver = driver();
    let port = free_port();
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
    let output = run(&format!(
        "publish {} -c {channel} --generate 1 --connect-timeout 300ms",
        driver.at()
    ));
    assert_failed(&output, &[&channel, "fulmar subscribe", "host of the endpoint"]);
    let output = run(&format!(
        "ping {} --ping-channel {channel} --pong-channel aeron:udp?endpoint=127.0.0.1:{} --connect-timeout 300ms",
        driver.at(),
        free_port()
    ));
    assert_failed(
        &output,
        &["no pong", "fulmar pong --ping-channel", "host of the endpoint"],
    );
}

#[test]
fn channels_that_can_not_be_are_refused_with_a_reason() {
    let driver = driver();
    for (channel, words) in [
        (
            "aeron:udp?endpoint=no.such.host.invalid:20121",
            "no.such.host.invalid",
        ),
        ("aeron:udp?endpoint=127.0.0.1", "127.0.0.1"),
        ("aeron:udp", "aeron:udp"),
        (
            "aeron:udp?endpoint=224.10.9.8:20121|interface=127.0.0.1",
            "224.10.9.8",
        ),
    ] {
        let output = run(&format!("publish {} -c {channel} --generate 1", driver.at()));
        assert_failed(&output, &["cannot add a publication", words]);
        assert!(!stderr(&output).is_empty());
    }
}
