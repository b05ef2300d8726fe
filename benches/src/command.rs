//! The command line of the benchmarks, the same for `cargo bench -p fulmar-benches --` and `fulmar bench`.
#![forbid(unsafe_code)]

use crate::side::BenchError;
use crate::suite::{Bench, Options};
use crate::suites;

/// Reads arguments. `child` is what stands before the arguments of a child of this program, which counting tools run.
///
/// # Errors
/// A sentence for each argument that is not understood.
pub fn options(arguments: &[String], child: Vec<String>) -> Result<Options, BenchError> {
    let mut options = Options {
        child,
        ..Options::default()
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--smoke" => (options.smoke, options.rounds) = (true, 1),
            "--rounds" => options.rounds = number(rest.next(), "--rounds takes a number of rounds")?,
            "--term-length" => {
                options.term_length = number(rest.next(), "--term-length takes a number of bytes")?;
            }
            option if option.starts_with('-') => {
                return Err(format!("{option} is not an option of the benchmarks").into());
            }
            filter => options.filters.push(filter.to_owned()),
        }
    }
    Ok(options)
}

fn number(argument: Option<&String>, what: &str) -> Result<usize, BenchError> {
    let number = argument.and_then(|argument| argument.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| what.into())
}

/// Runs the suites that were asked for; prints a table row as each figure is there.
///
/// # Errors
/// Runs that failed, and filters that fit no case.
pub fn run(options: Options) -> Result<(), BenchError> {
    let mut bench = Bench::new(options);
    println!("{}", bench.report.host.line());
    println!("{}", bench.report.settings);
    for suite in suites::ALL {
        (suite.run)(&mut bench)?;
    }
    let report = bench.report;
    if report.rows.is_empty() && report.failed.is_empty() {
        return Err(format!(
            "no case of this build fits {:?}; suites: {}",
            bench.options.filters,
            suites::ALL
                .iter()
                .map(|suite| suite.name)
                .collect::<Vec<_>>()
                .join(", ")
        )
        .into());
    }
    match report.failed.len() {
        0 => Ok(()),
        runs => Err(format!("{runs} runs gave no figure; each says why above").into()),
    }
}

/// What a process does whose arguments are those of a child: see [`Options::child`].
///
/// # Errors
/// Those of the workload.
pub fn child(arguments: &[String]) -> Result<(), BenchError> {
    suites::child(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, BenchError> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        options(&arguments, Vec::new())
    }

    #[test]
    fn words_are_filters_and_the_rest_options() {
        let options = parse("ipc/throughput --rounds 7 udp").expect("valid");
        assert_eq!(options.rounds, 7);
        assert!(options.wants("ipc/throughput/claim/32B"));
        assert!(options.wants("udp/round-trip"));
        assert!(!options.wants("ipc/round-trip"));
        assert!(parse("").expect("valid").wants("anything"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        let text = |line| parse(line).expect_err("refused").to_string();
        assert!(text("--round 7").contains("--round "));
        assert!(text("--rounds").contains("--rounds takes"));
        assert!(text("--rounds 0").contains("--rounds takes"));
    }
}
