//! Instructions and system calls per message: they do not depend on what else the machine does. Counted from outside,
//! by difference between a long and a short run of a child, so that set-up cancels out.
#![forbid(unsafe_code)]

use std::process::Command;

use super::{ipc_settings, udp_settings};
use crate::on_side;
use crate::report::Better;
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, Metric, Options, REFERENCE, Sample};
use crate::workload::{BATCH, Kind, counted_operations};

/// Calls that a driver and its clients make; giving the processor away is the measuring loop's own.
const CALLS: &str = "%network,epoll_wait,poll,ppoll,io_uring_enter,read,write,futex,clock_nanosleep";

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    // Counts are the same in each round.
    let rounds = std::mem::replace(&mut bench.options.rounds, 1);
    instructions(bench);
    system_calls(bench);
    calls_per_megabyte(bench);
    bench.options.rounds = rounds;
    Ok(())
}

/// Whether a tool can be started; the other figures stand without it. Only to be asked for a case that is wanted.
fn is_there(bench: &mut Bench, tool: &str) -> bool {
    match Command::new(tool).arg("--version").output() {
        Ok(_) => true,
        Err(error) => {
            bench.leave_out(format!("not counted: {tool}: {error}"));
            false
        }
    }
}

/// Whether instructions can be counted.
pub(super) fn has_valgrind(bench: &mut Bench) -> bool {
    is_there(bench, "valgrind")
}

/// The instructions of a child inside the functions whose names fit `pattern`.
///
/// # Errors
/// A child that fails, or no count.
pub(super) fn collected(options: &Options, pattern: &str, arguments: &[&str]) -> Result<f64, BenchError> {
    let toggle = format!("--toggle-collect={pattern}");
    let tool = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        &toggle,
    ];
    let output = run_child(options, &tool, arguments)?;
    let line = output.lines().find(|line| line.contains("Collected"));
    let line = line.ok_or("no count from callgrind")?;
    Ok(line.rsplit(':').next().unwrap_or_default().trim().parse()?)
}

/// Less than this per message is what is left of set-up.
const NOTHING: f64 = 0.005;

/// Calls `count` for a short and a long run, given in batches, and returns the difference per message.
fn per_message(
    options: &Options,
    count: impl Fn(u64) -> Result<f64, BenchError>,
) -> Result<Sample, BenchError> {
    let (short, long) = if options.smoke { (10, 20) } else { (1_000, 2_000) };
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let messages = ((long - short) * BATCH as u64) as f64;
    let figure = (count(long)? - count(short)?) / messages;
    Ok(Sample::of(if figure.abs() < NOTHING { 0.0 } else { figure }))
}

fn instructions(bench: &mut Bench) {
    let options = bench.options.clone();
    let mut cases = Vec::new();
    for length in options.variants(&[32, 100, 1024]) {
        for kind in options.variants(&Kind::ONE_BY_ONE) {
            let case = format!("counted/instructions/{}/{length}B", kind.name());
            cases.push((case, length, kind));
        }
    }
    cases.retain(|(case, ..)| bench.wants(case));
    if cases.is_empty() || !has_valgrind(bench) {
        return;
    }
    for (case, length, kind) in cases {
        let metric = Metric::new("", "instructions/msg", Better::Lower);
        bench.run(&case, &[metric], |side| {
            per_message(&options, |batches| {
                let (length, batches) = (length.to_string(), batches.to_string());
                let arguments = ["ipc", side, kind.name(), &length, &batches];
                collected(&options, "*measured_batch*", &arguments)
            })
        });
    }
}

fn system_calls(bench: &mut Bench) {
    let options = bench.options.clone();
    let kinds = options.variants(&Kind::ONE_BY_ONE).iter();
    let mut cases: Vec<_> = kinds
        .map(|kind| (format!("counted/system-calls/{}/32B", kind.name()), kind))
        .collect();
    cases.retain(|(case, _)| bench.wants(case));
    if cases.is_empty() || !is_there(bench, "strace") {
        return;
    }
    for (case, kind) in cases {
        let metric = Metric::new("", "calls/msg", Better::Lower);
        bench.run(&case, &[metric], |side| {
            per_message(&options, |batches| {
                let batches = batches.to_string();
                let output = run_child(
                    &options,
                    &["strace", "-f", "-c", "-U", "calls,name"],
                    &["ipc", side, kind.name(), "32", &batches],
                )?;
                total_calls(&output)
            })
        });
    }
}

/// A megabyte here is 2^20 bytes of payload.
fn calls_per_megabyte(bench: &mut Bench) {
    let options = bench.options.clone();
    let lengths = options.variants(&[32, 1024]).iter();
    let mut cases: Vec<_> = lengths
        .map(|length| (format!("counted/calls-per-megabyte/{length}B"), length))
        .collect();
    cases.retain(|(case, _)| bench.wants(case));
    if cases.is_empty() || !is_there(bench, "strace") {
        return;
    }
    for (case, length) in cases {
        let metric = Metric::new("", "calls/MB", Better::Lower).goal(REFERENCE, 10.0);
        bench.run(&case, &[metric], |side| {
            let count = |megabytes: u64| {
                let messages = (megabytes << 20) / length;
                let output = run_child(
                    &options,
                    &["strace", "-f", "-c", "-U", "calls,name", "-e", CALLS],
                    &["udp", side, &length.to_string(), &messages.to_string()],
                )?;
                total_calls(&output)
            };
            let (short, long) = if options.smoke { (1, 2) } else { (4, 12) };
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let megabytes = (long - short) as f64;
            Ok(Sample::of((count(long)? - count(short)?) / megabytes))
        });
    }
}

fn total_calls(output: &str) -> Result<f64, BenchError> {
    let line = output.lines().find(|line| line.ends_with(" total"));
    let line = line.ok_or("no total from strace")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Runs this program as a child under `tool` and returns what the tool said on standard error.
fn run_child(options: &Options, tool: &[&str], arguments: &[&str]) -> Result<String, BenchError> {
    let (program, tool_arguments) = tool.split_first().ok_or("no tool")?;
    let mut command = Command::new(program);
    command.args(tool_arguments).arg(std::env::current_exe()?);
    command.args(&options.child).arg("count").args(arguments);
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{program} failed: {text}").into())
    }
}

/// `count ipc SIDE KIND LENGTH BATCHES`, `count udp SIDE LENGTH MESSAGES` or `count micro NAME RUNS`.
pub(super) fn child(arguments: &[String]) -> Result<(), BenchError> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Half a term has to hold what is offered between two duty cycles.
    let options = Options::default();
    let messages = match arguments[..] {
        ["count", "ipc", side, kind, length, batches] => {
            let kind = Kind::ONE_BY_ONE.into_iter().find(|known| known.name() == kind);
            let kind = kind.ok_or("unknown kind")?;
            let settings = ipc_settings(&options, Mode::Invoker);
            on_side!(side, counted, &settings, kind, length.parse()?, batches.parse()?)?
        }
        ["count", "udp", side, length, messages] => {
            let settings = udp_settings(&options, Mode::Invoker)?;
            on_side!(
                side,
                counted_datagrams,
                &settings,
                length.parse()?,
                messages.parse()?
            )?
        }
        ["count", "micro", name, runs] => counted_operations(name, runs.parse()?)?,
        _ => {
            return Err(
                "count ipc SIDE KIND LENGTH BATCHES, count udp SIDE LENGTH MESSAGES, or count micro NAME RUNS"
                    .into(),
            );
        }
    };
    println!("{messages} messages");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_up_cancels_out_and_what_is_left_of_it_is_nothing() {
        let count = |batches: u64| Ok(1e6 + (batches * BATCH as u64) as f64 * 17.0);
        let sample = per_message(&Options::default(), count).expect("counted");
        assert!((sample.values[0] - 17.0).abs() < 1e-9);
        for (more, wanted) in [(70.0, 0.0), (-70.0, 0.0), (160.0, 0.01)] {
            let count = |batches| Ok(if batches == 1_000 { 500.0 } else { 500.0 + more });
            let sample = per_message(&Options::default(), count).expect("counted");
            assert!((sample.values[0] - wanted).abs() < f64::EPSILON, "{more}");
        }
    }
}
