//! `cargo bench -p fulmar-benches --features peer -- ipc`: IPC throughput, round trips, and the cost of one message in
//! instructions and system calls, ours and the reference's interleaved. `-- udp`: the same through loopback sockets.
//!
//! Arguments: a filter such as `ipc/throughput`; `--rounds N`; `--smoke` for a quick check that everything runs.
//! `count SIDE KIND LENGTH BATCHES` is the child that runs under the counting tools.

use std::process::Command;

use fulmar_benches::host::Host;
use fulmar_benches::recorder::Recorder;
use fulmar_benches::report::{Better, Row};
use fulmar_benches::side::{BenchError, Mode, Settings};
use fulmar_benches::workload::{self, BATCH, Kind, RoundTripPlan, ThroughputPlan};

/// The sides of this build: ours first, the reference last.
const SIDES: &[&str] = &[
    "fulmar",
    #[cfg(feature = "peer")]
    "reference",
];

/// Calls `workload::$function::<Side>($argument...)` for the side named `$name`.
macro_rules! on_side {
    ($name:expr, $function:ident $(, $argument:expr)*) => {
        match $name {
            "fulmar" => workload::$function::<fulmar_benches::ours::Ours>($($argument),*),
            #[cfg(feature = "peer")]
            "reference" => workload::$function::<fulmar_benches::reference::Reference>($($argument),*),
            other => Err(format!("no side {other} in this build").into()),
        }
    };
}

struct Options {
    filter: String,
    rounds: usize,
    smoke: bool,
    term_length: usize,
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        case.contains(&self.filter)
    }

    fn scaled(&self, messages: u64) -> u64 {
        if self.smoke { messages / 50 } else { messages }
    }
}

fn main() -> Result<(), BenchError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` this is `cargo test`, which wants to know that it runs, not how fast.
    let is_test = !arguments.iter().any(|argument| argument == "--bench");
    arguments.retain(|argument| argument != "--bench");
    if arguments.first().is_some_and(|argument| argument == "count") {
        return count_child(&arguments);
    }
    let mut options = Options {
        filter: String::new(),
        rounds: if is_test { 1 } else { 5 },
        smoke: is_test,
        term_length: 16 << 20,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--smoke" => (options.smoke, options.rounds) = (true, 1),
            "--rounds" => options.rounds = rest.next().ok_or("--rounds N")?.parse()?,
            "--term-length" => options.term_length = rest.next().ok_or("--term-length BYTES")?.parse()?,
            filter => options.filter = filter.to_owned(),
        }
    }
    println!("{}", Host::read().line());
    println!(
        "term length {} bytes, {} rounds, sides interleaved, medians with [lowest .. highest]; a ratio above 1: fulmar is better",
        options.term_length, options.rounds
    );
    one_thread(&options)?;
    throughput(&options)?;
    round_trips(&options)?;
    udp(&options)?;
    counted_with("valgrind", || instructions(&options))?;
    counted_with("strace", || system_calls(&options))
}

/// Runs cases that need a tool, or says that it is not there; the other figures stand without it.
fn counted_with(tool: &str, cases: impl FnOnce() -> Result<(), BenchError>) -> Result<(), BenchError> {
    match Command::new(tool).arg("--version").output() {
        Ok(_) => cases(),
        Err(error) => {
            println!("not counted: {tool}: {error}");
            Ok(())
        }
    }
}

fn settings(options: &Options, mode: Mode) -> Settings {
    let dir = format!("/dev/shm/fulmar-bench-{}", std::process::id());
    Settings::ipc(dir, mode, options.term_length)
}

/// Ports nobody uses at the moment, one for each way.
#[expect(
    clippy::disallowed_types,
    reason = "asks the system for free ports, sends nothing"
)]
fn udp_settings(options: &Options) -> Result<Settings, BenchError> {
    let free = |socket: &std::net::UdpSocket| Ok::<_, BenchError>(socket.local_addr()?.port());
    let sockets = [
        std::net::UdpSocket::bind("127.0.0.1:0")?,
        std::net::UdpSocket::bind("127.0.0.1:0")?,
    ];
    let ports = [free(&sockets[0])?, free(&sockets[1])?];
    let dir = format!("/dev/shm/fulmar-bench-{}", std::process::id());
    Ok(Settings::udp(dir, Mode::Shared, options.term_length, ports))
}

fn empty_rows(names: &[(String, &'static str)], better: Better) -> Vec<Row> {
    let sides: Vec<_> = SIDES.iter().map(|side| (*side, Vec::new())).collect();
    let row = |(name, unit): &(String, &'static str)| Row {
        name: name.clone(),
        unit,
        better,
        sides: sides.clone(),
    };
    names.iter().map(row).collect()
}

fn one_thread(options: &Options) -> Result<(), BenchError> {
    for length in [32, 1024] {
        for kind in Kind::ALL {
            let case = format!("ipc/one-thread/{}/{length}B", kind.name());
            if !options.wants(&case) {
                continue;
            }
            let mut rows = empty_rows(&[(case, "ns/msg")], Better::Lower);
            for _ in 0..options.rounds {
                for (index, side) in SIDES.iter().enumerate() {
                    let settings = Settings {
                        // Half of it has to hold the largest sample, since driver and client work between samples only.
                        term_length: 4 << 20,
                        ..settings(options, Mode::Invoker)
                    };
                    let recorder: Recorder = on_side!(*side, one_thread, &settings, kind, length)?;
                    rows[0].sides[index].1.push(recorder.quantile(0.25) / 100.0);
                }
            }
            println!("{}", rows[0].line());
        }
    }
    Ok(())
}

fn throughput(options: &Options) -> Result<(), BenchError> {
    for (length, messages) in [(32, 10_000_000), (1024, 1_000_000)] {
        for kind in Kind::ALL {
            let case = format!("ipc/throughput/{}/{length}B", kind.name());
            if !options.wants(&case) {
                continue;
            }
            let warmup = options.scaled((3 * options.term_length / (length + 32)) as u64 + 100_000);
            let plan = ThroughputPlan {
                kind,
                length,
                warmup,
                messages: options.scaled(messages),
            };
            let mut rows = empty_rows(&[(case, "msg/s")], Better::Higher);
            for _ in 0..options.rounds {
                for (index, side) in SIDES.iter().enumerate() {
                    let settings = settings(options, Mode::Shared);
                    let figure = on_side!(*side, throughput, &settings, &plan)?;
                    rows[0].sides[index].1.push(figure.messages_per_second);
                }
            }
            println!("{}", rows[0].line());
        }
    }
    Ok(())
}

/// Through sockets of the loopback interface, one driver for both ends: bulk and round trips.
fn udp(options: &Options) -> Result<(), BenchError> {
    for (length, messages) in [(32, 3_000_000), (1024, 500_000)] {
        let case = format!("udp/throughput/exclusive/{length}B");
        if !options.wants(&case) {
            continue;
        }
        let plan = ThroughputPlan {
            kind: Kind::Exclusive,
            length,
            warmup: options.scaled((3 * options.term_length / (length + 32)) as u64 + 10_000),
            messages: options.scaled(messages),
        };
        let mut rows = empty_rows(&[(case, "msg/s")], Better::Higher);
        for _ in 0..options.rounds {
            for (index, side) in SIDES.iter().enumerate() {
                let figure = on_side!(*side, throughput, &udp_settings(options)?, &plan)?;
                rows[0].sides[index].1.push(figure.messages_per_second);
            }
        }
        println!("{}", rows[0].line());
    }
    let case = "udp/round-trip/closed".to_owned();
    if !options.wants(&case) {
        return Ok(());
    }
    let plan = RoundTripPlan {
        length: 32,
        warmup: options.scaled(10_000),
        messages: options.scaled(50_000),
        per_second: None,
    };
    let quantiles = [("p50", 0.5), ("p99", 0.99)];
    let names: Vec<_> = quantiles
        .iter()
        .map(|(quantile, _)| (format!("{case} {quantile}"), "ns"))
        .collect();
    let mut rows = empty_rows(&names, Better::Lower);
    for _ in 0..options.rounds {
        for (index, side) in SIDES.iter().enumerate() {
            let recorder: Recorder = on_side!(*side, round_trip, &udp_settings(options)?, &plan)?;
            for (row, (_, quantile)) in rows.iter_mut().zip(quantiles) {
                row.sides[index].1.push(recorder.quantile(quantile));
            }
        }
    }
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(())
}

fn round_trips(options: &Options) -> Result<(), BenchError> {
    for (name, per_second, messages) in [
        ("closed", None, 1_000_000),
        ("100k per second", Some(100_000), 500_000),
    ] {
        let case = format!("ipc/round-trip/{name}");
        if !options.wants(&case) {
            continue;
        }
        let plan = RoundTripPlan {
            length: 32,
            warmup: 50_000,
            messages: options.scaled(messages),
            per_second,
        };
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let names: Vec<_> = quantiles
            .iter()
            .map(|(quantile, _)| (format!("{case} {quantile}"), "ns"))
            .collect();
        let mut rows = empty_rows(&names, Better::Lower);
        for _ in 0..options.rounds {
            for (index, side) in SIDES.iter().enumerate() {
                let settings = settings(options, Mode::Invoker);
                let recorder: Recorder = on_side!(*side, round_trip, &settings, &plan)?;
                for (row, (_, quantile)) in rows.iter_mut().zip(quantiles) {
                    row.sides[index].1.push(recorder.quantile(quantile));
                }
            }
        }
        rows.iter().for_each(|row| println!("{}", row.line()));
    }
    Ok(())
}

/// What a counting child does.
#[derive(Clone, Copy)]
struct Counted<'a> {
    side: &'a str,
    kind: Kind,
    length: usize,
    batches: u64,
}

/// Counts by difference between a long and a short run, so that set-up cancels out.
fn counted_cases(
    options: &Options,
    what: &str,
    unit: &'static str,
    count: impl Fn(Counted<'_>) -> Result<f64, BenchError>,
) -> Result<(), BenchError> {
    for length in [32, 100, 1024] {
        for kind in Kind::ALL {
            let case = format!("ipc/{what}/{}/{length}B", kind.name());
            if !options.wants(&case) {
                continue;
            }
            let mut rows = empty_rows(&[(case, unit)], Better::Lower);
            let (short, long) = (1_000, 2_000);
            for (index, side) in SIDES.iter().enumerate() {
                let workload = |batches| Counted {
                    side,
                    kind,
                    length,
                    batches,
                };
                let difference = count(workload(long))? - count(workload(short))?;
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let per_message = difference / ((long - short) * BATCH as u64) as f64;
                rows[0].sides[index].1.push(per_message);
            }
            println!("{}", rows[0].line());
        }
    }
    Ok(())
}

fn instructions(options: &Options) -> Result<(), BenchError> {
    counted_cases(options, "instructions", "instructions/msg", |counted| {
        let output = child("valgrind", counted, |command| {
            command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            command.arg("--toggle-collect=*measured_batch*");
        })?;
        let line = output
            .lines()
            .find(|line| line.contains("Collected"))
            .ok_or("no count from callgrind")?;
        Ok(line.rsplit(':').next().unwrap_or_default().trim().parse()?)
    })
}

fn system_calls(options: &Options) -> Result<(), BenchError> {
    counted_cases(options, "system-calls", "calls/msg", |counted| {
        let output = child("strace", counted, |command| {
            command.args(["-f", "-c", "-U", "calls,name"]);
        })?;
        let line = output
            .lines()
            .find(|line| line.ends_with(" total"))
            .ok_or("no total from strace")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    })
}

/// Runs this program's `count` under `tool` and returns what the tool said on standard error.
fn child(tool: &str, counted: Counted<'_>, arguments: impl Fn(&mut Command)) -> Result<String, BenchError> {
    let mut command = Command::new(tool);
    arguments(&mut command);
    command.arg(std::env::current_exe()?);
    let Counted {
        side,
        kind,
        length,
        batches,
    } = counted;
    command.args([
        "count",
        side,
        kind.name(),
        &length.to_string(),
        &batches.to_string(),
    ]);
    let output = command.output().map_err(|error| format!("{tool}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{tool} failed: {text}").into())
    }
}

fn count_child(arguments: &[String]) -> Result<(), BenchError> {
    let [_, side, kind, length, batches] = arguments else {
        return Err("count SIDE KIND LENGTH BATCHES".into());
    };
    let kind = Kind::ALL
        .into_iter()
        .find(|known| known.name() == kind)
        .ok_or("unknown kind")?;
    let (length, batches) = (length.parse()?, batches.parse()?);
    let dir = format!("/dev/shm/fulmar-bench-{}", std::process::id());
    // Half a term has to hold what is offered between two duty cycles.
    let settings = Settings::ipc(dir, Mode::Invoker, 16 << 20);
    let messages = on_side!(side.as_str(), counted, &settings, kind, length, batches)?;
    println!("{messages} messages");
    Ok(())
}
