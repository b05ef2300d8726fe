//! The programs that send and receive: what one says it sent is what the other says it got.

use crate::ports::free_address;
use crate::process::{Make, eventually};
use crate::program::{Program, Scene};

/// System counters.
const BYTES_SENT: i64 = 0;
const BYTES_RECEIVED: i64 = 1;

/// A UDP channel of this test alone.
fn udp() -> String {
    format!("aeron:udp?endpoint={}", free_address())
}

/// What stands between the brackets that the subscribing programs put around a message.
fn messages(lines: &[String], words: &str) -> Vec<String> {
    let lines = lines.iter().filter(|line| line.starts_with(words));
    lines
        .map(|line| {
            let (_, message) = line.split_once("<<").expect("a message");
            message.strip_suffix(">>").expect("all of a message").to_owned()
        })
        .collect()
}

/// The numbers of the offers that were accepted, of so many.
fn accepted(lines: &[String], offers: usize) -> Vec<usize> {
    let taken: Vec<usize> = (0..offers)
        .filter(|number| lines.contains(&format!("offering {number}/{offers} - yay!")))
        .collect();
    // One a second: all but those before the connection stood.
    assert!(taken.len() >= 2, "{lines:#?}");
    taken
}

fn hello(numbers: &[usize]) -> Vec<String> {
    numbers
        .iter()
        .map(|number| format!("Hello World! {number}"))
        .collect()
}

fn published(make: Make, channel: &str, subscriber: &'static str) {
    let scene = Scene::new(make, &[]);
    let mut subscriber = scene.start(subscriber, &["-c", channel, "-s", "77"]);
    subscriber.says("Subscription channel status");
    let publisher = scene.start("basic_publisher", &["-c", channel, "-s", "77", "-m", "4"]);
    // Whatever happens, it ends with a status of failure.
    let sent = publisher.ended(1);
    assert!(sent.contains(&"Done sending.".to_owned()), "{sent:#?}");
    subscriber.says("Unavailable image on");
    let got = subscriber.interrupt();
    assert_eq!(
        messages(&got, "Message to stream 77 from session "),
        hello(&accepted(&sent, 4))
    );
    assert_eq!(got.last().map(String::as_str), Some("Shutting down..."));
    scene.driver.stop();
}

fn publisher_and_subscriber_over_udp(make: Make) {
    published(make, &udp(), "basic_subscriber");
}

fn publisher_and_subscriber_over_ipc(make: Make) {
    published(make, "aeron:ipc", "basic_subscriber");
}

/// The subscriber adds the channel as a destination of a subscription without one.
fn multi_destination_subscriber(make: Make) {
    published(make, &udp(), "basic_mds_subscriber");
}

/// Messages of a whole datagram, as large as the publication says.
fn messages_of_an_mtu(make: Make) {
    let (scene, channel) = (Scene::new(make, &[]), udp());
    let mut subscriber = scene.start("basic_subscriber", &["-c", &channel]);
    subscriber.says("Subscription channel status");
    let sent = scene
        .start("basic_publisher", &["-c", &channel, "-m", "3", "-f"])
        .ended(1);
    // 1408 bytes of a datagram less 32 of the header; the program keeps one for itself.
    assert!(
        sent.contains(&"Using message of 1375 bytes".to_owned()),
        "{sent:#?}"
    );
    subscriber.says("Unavailable image on");
    let got = subscriber.interrupt();
    let heads = got
        .iter()
        .filter(|line| line.starts_with("Message to stream 1001") && line.contains("(1375 bytes) <<"));
    assert_eq!(heads.count(), accepted(&sent, 3).len(), "{got:#?}");
    scene.driver.stop();
}

/// How many round trips a program of Aeron's counted in its histogram.
fn round_trips(lines: &[String]) -> i64 {
    let line = lines
        .iter()
        .find_map(|line| line.split_once("Total count    ="))
        .unwrap_or_else(|| panic!("no histogram in {lines:#?}"));
    line.1.trim().trim_end_matches(']').parse().expect("a number")
}

const WARMUP: i64 = 100;
const ROUND_TRIPS: i64 = 1000;

fn ping_pong(scene: &Scene, ping: &str, pong: &str) {
    let channels = ["-c", ping, "-C", pong];
    let mut ponger = scene.start("cpong", &channels);
    ponger.says("Publication channel status");
    let (warmup, count) = (WARMUP.to_string(), ROUND_TRIPS.to_string());
    let mut words = channels.to_vec();
    words.extend(["-w", &warmup, "-m", &count, "-L", "32"]);
    let measured = scene.start("cping", &words).ended(0);
    assert_eq!(round_trips(&measured), ROUND_TRIPS);
    assert_eq!(measured.last().map(String::as_str), Some("Shutting down..."));
    ponger.says("Unavailable image on");
    ponger.interrupt();
}

fn ping_pong_over_udp(make: Make) {
    let scene = Scene::spinning(make, &[]);
    ping_pong(&scene, &udp(), &udp());
    // Both ways, 32 bytes under a header of 32.
    let least = 2 * 64 * (WARMUP + ROUND_TRIPS);
    for counter in [BYTES_SENT, BYTES_RECEIVED] {
        assert!(scene.system_counter(counter) >= least);
    }
    scene.driver.stop();
}

fn ping_pong_over_ipc(make: Make) {
    let scene = Scene::spinning(make, &[]);
    ping_pong(&scene, "aeron:ipc", "aeron:ipc");
    assert_eq!(scene.system_counter(BYTES_SENT), 0);
    scene.driver.stop();
}

/// The C++ program that is both ends.
fn ping_pong_of_one_program(make: Make) {
    let scene = Scene::spinning(make, &[]);
    let (ping, pong) = (udp(), udp());
    let words = ["-c", &ping, "-C", &pong, "-w", "100", "-m", "1000", "-L", "32"];
    let lines = scene.start_with_input("PingPong", &words, "n\n").ended(0);
    assert_eq!(round_trips(&lines), ROUND_TRIPS);
    scene.driver.stop();
}

/// The parts of `812ms, 1.232e+05 msgs/sec, 3.94e+06 bytes/sec, totals 100000 messages 3 MB payloads`.
struct Rate {
    millis: f64,
    messages_per_second: f64,
    bytes_per_second: f64,
    messages: u64,
    megabytes: u64,
}

impl Rate {
    fn parse(line: &str) -> Rate {
        let number = |after: &str, before: &str| {
            let rest = line.split_once(after).map_or(line, |(_, rest)| rest);
            let (number, _) = rest
                .split_once(before)
                .unwrap_or_else(|| panic!("no rate: {line}"));
            number
                .trim()
                .parse::<f64>()
                .unwrap_or_else(|_| panic!("no rate: {line}"))
        };
        let whole = |number: f64| format!("{number}").parse().expect("a whole number");
        Rate {
            millis: number("Total:", "ms,"),
            messages_per_second: number("ms,", "msgs/sec"),
            bytes_per_second: number("msgs/sec,", "bytes/sec"),
            messages: whole(number("totals", "messages")),
            megabytes: whole(number("messages", "MB")),
        }
    }
}

/// 100 000 messages of 1000 bytes from a publisher to the program that counts them.
fn rate(make: Make, publisher: &'static str, channel: &str) {
    const MESSAGES: u64 = 100_000;
    const LENGTH: u64 = 1000;
    let scene = Scene::spinning(make, &[]);
    let mut subscriber = scene.start("rate_subscriber", &["-c", channel, "-f", "32"]);
    subscriber.says("Subscription channel status");
    let publisher = scene.start(publisher, &["-c", channel, "-m", "100000", "-L", "1000"]);
    let sent = publisher.ended(0);
    let total = sent
        .iter()
        .find(|line| line.starts_with("Total:"))
        .unwrap_or_else(|| panic!("no total in {sent:#?}"));
    let total = Rate::parse(total);
    let megabytes = (MESSAGES * LENGTH) >> 20;
    assert_eq!((total.messages, total.megabytes), (MESSAGES, megabytes));
    // Rates have four digits, the time is cut to milliseconds.
    let expected = 100_000.0 * 1000.0 / total.millis;
    let error = (total.messages_per_second / expected - 1.0).abs();
    assert!(error < 0.01 + 1.0 / total.millis, "{sent:#?}");
    let length = total.bytes_per_second / total.messages_per_second;
    assert!((999.0..=1001.0).contains(&length), "{sent:#?}");

    // Its last report has all of them, each once.
    let everything = format!("totals {MESSAGES} messages {megabytes} MB payloads");
    subscriber.says(&everything);
    let got = subscriber.interrupt();
    let reports: Vec<Rate> = got
        .iter()
        .filter(|line| line.contains("msgs/sec"))
        .map(|line| Rate::parse(line))
        .collect();
    assert!(
        reports.iter().all(|report| report.messages <= MESSAGES),
        "{got:#?}"
    );
    assert!(
        reports.iter().any(|report| report.messages_per_second > 0.0),
        "{got:#?}"
    );
    scene.driver.stop();
}

fn rate_over_udp(make: Make) {
    rate(make, "streaming_publisher", &udp());
}

fn rate_over_ipc(make: Make) {
    rate(make, "streaming_publisher", "aeron:ipc");
}

fn rate_of_exclusive_publisher_over_udp(make: Make) {
    rate(make, "streaming_exclusive_publisher", &udp());
}

fn rate_of_exclusive_publisher_over_ipc(make: Make) {
    rate(make, "streaming_exclusive_publisher", "aeron:ipc");
}

/// The C++ program that is both ends: what it claims and commits arrives.
fn throughput(make: Make, channel: &str) {
    let scene = Scene::spinning(make, &[]);
    let words = ["-c", channel, "-m", "100000", "-L", "32", "-l", "3000"];
    let mut program = scene.start_with_input("Throughput", &words, "n\n");
    let report = Rate::of_throughput(&mut program);
    assert!((1..=100_000).contains(&report), "{report}");
    program.says("Lingering for 3000 milliseconds");
    // It stands still with its streams open.
    eventually("everything has arrived", || {
        let streams = scene.fulmar("streams");
        let stream = &streams["streams"][0];
        let positions = [
            &stream["publications"][0]["position"],
            &stream["subscribers"][0]["position"],
        ];
        positions
            .into_iter()
            .all(|position| position.as_i64() == Some(100_000 * 64))
    });
    program.ended(0);
    scene.driver.stop();
}

impl Rate {
    /// The messages that the program had received when it had sent all; it prints no time.
    fn of_throughput(program: &mut Program) -> u64 {
        let line = program.says("msgs/sec");
        Rate::parse(&format!("0ms, {line}")).messages
    }
}

fn throughput_over_udp(make: Make) {
    throughput(make, &udp());
}

fn throughput_over_ipc(make: Make) {
    throughput(make, "aeron:ipc");
}

/// Requests and responses: every answer that was sent came back, in order.
fn response_channel(make: Make) {
    let scene = Scene::new(make, &[]);
    let (request, control) = (udp(), format!("aeron:udp?control={}", free_address()));
    let channels = ["-c", request.as_str(), "-d", control.as_str()];
    let mut server = scene.start("response_server", &channels);
    server.says("Subscription channel status");
    let mut words = channels.to_vec();
    words.extend(["-m", "6"]);
    // As the publisher, it ends with a status of failure.
    let asked = scene.start("response_client", &words).ended(1);
    server.says("Unavailable image on");
    let served = server.interrupt();
    let requests = messages(&served, "Message to stream 10000 from session ");
    assert_eq!(requests, hello(&accepted(&asked, 6)));
    let mut answers = Vec::new();
    for (line, next) in served.iter().zip(&served[1..]) {
        if let [request] = &messages(std::slice::from_ref(line), "Message to stream")[..]
            && next == "response sent!"
        {
            answers.push(format!("responding to message: {request}"));
        }
    }
    assert!(answers.len() >= 2, "{served:#?}");
    assert_eq!(
        messages(&asked, "Response to stream 10001 from session "),
        answers
    );
    scene.driver.stop();
}

on_both_drivers!(
    publisher_and_subscriber_over_udp,
    publisher_and_subscriber_over_ipc,
    multi_destination_subscriber,
    messages_of_an_mtu,
    ping_pong_over_udp,
    ping_pong_over_ipc,
    ping_pong_of_one_program,
    rate_over_udp,
    rate_over_ipc,
    rate_of_exclusive_publisher_over_udp,
    rate_of_exclusive_publisher_over_ipc,
    throughput_over_udp,
    throughput_over_ipc,
    response_channel,
);
