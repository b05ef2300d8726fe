//! The command line of the benchmarks, the same for `cargo bench -p fulmar-benches --` and `fulmar bench`.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use fulmar::uri::value::parse_size;

use crate::output;
use crate::report::{Failed, Report};
use crate::side::BenchError;
use crate::suite::{Bench, Options, REFERENCE, SIDES};
use crate::suites;
use crate::table::Table;

/// What the user may ask for.
#[derive(Clone, Debug, Args)]
#[command(after_help = after_help(), disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Run the cases whose names hold one of these words [default: all]
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,

    /// Run each side of each case so often, in turn; a figure is the median [default: 5, with --smoke 1]
    #[arg(long, value_name = "N", value_parser = parse_rounds)]
    pub rounds: Option<usize>,

    /// A five-hundredth of the messages and few variants: shows that everything runs, the figures mean nothing
    #[arg(long)]
    pub smoke: bool,

    /// Term length of publications (bytes, a power of two from 64k to 1g)
    #[arg(long, value_name = "BYTES", default_value = "16m", value_parser = parse_term_length)]
    pub term_length: usize,

    /// Write all samples, ratios and goals to FILE as one JSON document; `-` prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write report.json, report.html and a percentile distribution (hgrm, in microseconds) for each latency case to DIR
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// What a counting tool runs.
    #[command(subcommand)]
    pub child: Option<Child>,
}

/// What the benchmarks start as a child of theirs.
#[derive(Clone, Debug, Subcommand)]
pub enum Child {
    /// A workload of which instructions or system calls are counted from outside
    #[command(hide = true, disable_help_flag = true)]
    Count {
        /// See `suites::counted`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// Why a command ended before it was done.
#[derive(Debug)]
pub enum Failure {
    /// The arguments name something that does not exist.
    Usage(String),
    /// Runs that gave no figure, or files that can not be written.
    Failed(String),
    /// Whoever read the table, or the document, could not be written to.
    Output(io::Error),
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Failure::Usage(what) | Failure::Failed(what) => f.write_str(what),
            Failure::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Runs the suites that were asked for; prints a table row as each figure is there, and writes the files at the end.
/// `child` is what stands before the arguments of a child of this program; no run begins once `is_stopped`.
///
/// # Errors
/// Runs that failed, filters that fit no case, files that can not be written.
pub fn run(arguments: &Arguments, child: Vec<String>, is_stopped: fn() -> bool) -> Result<(), Failure> {
    if let Some(Child::Count { rest }) = &arguments.child {
        let words: Vec<String> = std::iter::once("count".to_owned())
            .chain(rest.iter().cloned())
            .collect();
        return suites::child(&words).map_err(Failure::from);
    }
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    if let Some(name) = uneven_variable(names) {
        return Err(Failure::Usage(format!(
            "unset {name}: it would change some of the sides that are compared, and not the others"
        )));
    }
    let options = Options {
        filters: arguments.filters.clone(),
        rounds: arguments.rounds.unwrap_or(if arguments.smoke { 1 } else { 5 }),
        smoke: arguments.smoke,
        term_length: arguments.term_length,
        child,
        is_stopped,
    };
    let table = if arguments.prints_json() {
        Table::on_stderr()
    } else {
        Table::on_stdout(arguments.json.is_none() && arguments.out.is_none())
    };
    let mut bench = Bench::new(options, table);
    if bench.plan(all_suites)? == 0 {
        return Err(Failure::Usage(no_case(
            &bench.options.filters,
            bench.not_planned(),
        )));
    }
    // Better now than after half an hour.
    arguments.prepare_files()?;
    suites::remove_abandoned_dirs();
    bench.table.line(&bench.report.host.line());
    bench.table.line(&bench.report.settings.line());
    if !SIDES.contains(&REFERENCE) {
        let text =
            format!("only fulmar and bare sides: the {REFERENCE} needs a build with the feature `peer`");
        bench.leave_out(text);
    }
    all_suites(&mut bench)?;
    arguments.write_files(&bench.report)?;
    verdict(&bench)
}

/// The first variable that Aeron's driver and client may take a setting from, and ours not, or the other way round.
/// The directory is the same one, whatever its variable says.
fn uneven_variable(mut names: impl Iterator<Item = String>) -> Option<String> {
    names.find(|name| name.starts_with("AERON_") && name != "AERON_DIR")
}

/// Runs each suite, whatever becomes of the others.
fn all_suites(bench: &mut Bench) -> Result<(), BenchError> {
    for suite in suites::ALL {
        if let Err(error) = (suite.run)(bench) {
            bench.fail(Failed {
                case: suite.name.to_owned(),
                side: "every side",
                round: 0,
                why: error.to_string(),
            });
        }
    }
    Ok(())
}

fn verdict(bench: &Bench) -> Result<(), Failure> {
    let report = &bench.report;
    if let Some(error) = bench.table.error() {
        return Err(Failure::Output(io::Error::from(error.kind())));
    }
    if !report.failed.is_empty() {
        return Err(Failure::Failed(format!(
            "{} runs gave no figure; each says why above",
            report.failed.len()
        )));
    }
    if (bench.options.is_stopped)() {
        return Err(Failure::Failed(format!(
            "stopped after {} figures",
            report.rows.len()
        )));
    }
    Ok(())
}

impl Arguments {
    fn prints_json(&self) -> bool {
        self.json
            .as_deref()
            .is_some_and(|path| path.as_os_str() == OsStr::new("-"))
    }

    /// The file that the document goes to, unless it is printed.
    fn json_file(&self) -> Option<&PathBuf> {
        self.json.as_ref().filter(|_| !self.prints_json())
    }

    fn prepare_files(&self) -> Result<(), Failure> {
        if let Some(dir) = &self.out {
            fs::create_dir_all(dir).map_err(|error| output::not_written(dir, &error))?;
        }
        if let Some(file) = self.json_file() {
            let opened = fs::OpenOptions::new().create(true).append(true).open(file);
            opened.map_err(|error| output::not_written(file, &error))?;
        }
        Ok(())
    }

    fn write_files(&self, report: &Report) -> Result<(), Failure> {
        if let Some(dir) = &self.out {
            output::write_all(report, dir)?;
        }
        if let Some(file) = self.json_file() {
            output::write(file, &output::json::render(report))?;
        }
        if self.prints_json() {
            let mut stdout = io::stdout().lock();
            let printed = stdout.write_all(output::json::render(report).as_bytes());
            printed.and_then(|()| stdout.flush()).map_err(Failure::Output)?;
        }
        Ok(())
    }
}

fn no_case(filters: &[String], not_planned: &[String]) -> String {
    let names: Vec<_> = suites::ALL.iter().map(|suite| suite.name).collect();
    let mut text = format!(
        "no case of this build fits {}; suites: {}",
        filters.join(" or "),
        names.join(", ")
    );
    for what in not_planned {
        text.push_str(&format!("; {what}"));
    }
    text
}

fn after_help() -> String {
    let mut text =
        String::from("Suites; their names and those of cases (such as ipc/round-trip) are filters:\n");
    for suite in suites::ALL {
        text.push_str(&format!("  {:<12}{}\n", suite.name, suite.about));
    }
    text.push_str(
        "\nFulmar, the reference (Aeron's C driver and C client, in builds with the feature `peer`) and bare baselines run \
         in turn on the same settings, else each on its own defaults. Figures are medians with [lowest .. highest]. A goal that is missed is said, and \
         is no failure; a run that gives no figure is one.",
    );
    text
}

fn parse_rounds(text: &str) -> Result<usize, String> {
    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
    rounds.ok_or_else(|| "it must be a number of rounds, at least 1".to_owned())
}

fn parse_term_length(text: &str) -> Result<usize, String> {
    let length = parse_size(text)
        .ok()
        .and_then(|length| usize::try_from(length).ok());
    let valid = length.filter(|length| length.is_power_of_two() && (64 << 10..=1 << 30).contains(length));
    valid.ok_or_else(|| format!("`{text}` is not a term length: a power of two from 64k to 1g"))
}

#[cfg(test)]
mod tests {
    use clap::{ArgMatches, Command, FromArgMatches};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let command = Arguments::augment_args(Command::new("bench").no_binary_name(true));
        let matches: ArgMatches = command.try_get_matches_from(line.split_whitespace())?;
        Arguments::from_arg_matches(&matches)
    }

    #[test]
    fn words_are_filters_and_the_rest_options() {
        let arguments = parse("ipc/throughput --rounds 7 udp --term-length 64k counted").expect("valid");
        assert_eq!(arguments.filters, ["ipc/throughput", "udp", "counted"]);
        assert_eq!((arguments.rounds, arguments.term_length), (Some(7), 65_536));
        assert!(!arguments.smoke && arguments.child.is_none());
        let arguments = parse("--smoke --out d --json -").expect("valid");
        assert!(arguments.smoke && arguments.prints_json() && arguments.json_file().is_none());
        assert_eq!(arguments.term_length, 16 << 20);
    }

    #[test]
    fn a_filter_is_part_of_a_name() {
        let options = Options {
            filters: vec!["ipc/throughput".to_owned(), "udp".to_owned()],
            ..Options::default()
        };
        assert!(options.wants("ipc/throughput/claim/32B") && options.wants("udp/round-trip"));
        assert!(!options.wants("ipc/round-trip"));
        assert!(Options::default().wants("anything"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        for (line, name) in [
            ("--round 7", "--round"),
            ("--rounds", "--rounds"),
            ("--rounds 0", "at least 1"),
            ("--term-length 100k", "power of two"),
            ("--term-length 32k", "64k"),
        ] {
            let error = parse(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn arguments_of_a_child_are_taken_as_they_are() {
        let child = parse("count udp fulmar 32 -1").expect("valid").child;
        let Some(Child::Count { rest }) = child else {
            panic!("no child");
        };
        assert_eq!(rest, ["udp", "fulmar", "32", "-1"]);
    }

    #[test]
    fn a_case_that_can_not_run_here_is_not_taken_for_one_that_does_not_exist() {
        let mut bench = Bench::new(Options::default(), Table::on_stdout(true));
        let impossible = |bench: &mut Bench| {
            bench.leave_out("udp/veth: skipped: no network".to_owned());
            bench.leave_out("udp/veth: skipped: no network".to_owned());
            Ok(())
        };
        assert_eq!(bench.plan(impossible).expect("a plan"), 0);
        assert!(bench.report.left_out.is_empty());
        let text = no_case(&["udp/veth".to_owned()], bench.not_planned());
        assert!(
            text.starts_with("no case of this build fits udp/veth; suites: ipc, udp, "),
            "{text}"
        );
        assert!(text.ends_with("micro; udp/veth: skipped: no network"), "{text}");
    }

    #[test]
    fn variables_that_only_some_sides_read_are_named() {
        let first = |names: &[&str]| uneven_variable(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(first(&["HOME", "AERON_DIR", "FULMAR_X", "MY_AERON_X"]), None);
        assert_eq!(
            first(&["AERON_DIR", "AERON_MTU_LENGTH", "AERON_FILE_PAGE_SIZE"]).as_deref(),
            Some("AERON_MTU_LENGTH")
        );
    }

    #[test]
    fn any_part_of_a_name_finds_cases_of_lost_datagrams() {
        for filter in [
            "1%",
            "loss/round-trip",
            "loss/throughput/5%/1024B",
            "round-trip/0.1%",
        ] {
            let options = Options {
                filters: vec![filter.to_owned()],
                ..Options::default()
            };
            let mut bench = Bench::new(options, Table::on_stdout(true));
            let runs = bench.plan(all_suites).expect("a plan");
            let is_possible = bench.not_planned().is_empty();
            assert_eq!(runs > 0, is_possible, "{filter}: {:?}", bench.not_planned());
        }
    }

    #[test]
    fn messages_that_are_too_long_for_the_terms_are_left_out() {
        let options = Options {
            filters: vec!["throughput/exclusive/".to_owned()],
            term_length: 64 << 10,
            ..Options::default()
        };
        let mut bench = Bench::new(options, Table::on_stdout(true));
        bench.plan(all_suites).expect("a plan");
        let left_out = bench
            .not_planned()
            .iter()
            .filter(|what| what.contains("term length"));
        let names: Vec<_> = left_out.filter_map(|what| what.split(':').next()).collect();
        assert_eq!(
            names,
            [
                "ipc/throughput/exclusive/16384B",
                "ipc/throughput/exclusive/1048576B",
                "udp/throughput/exclusive/1048576B"
            ]
        );
    }

    #[test]
    fn planning_counts_runs_and_makes_none() {
        let options = Options {
            filters: vec!["ipc/round-trip/closed".to_owned()],
            ..Options::default()
        };
        let mut bench = Bench::new(options, Table::on_stdout(true));
        let runs = bench.plan(all_suites).expect("a plan");
        assert_eq!(runs, 5 * (SIDES.len() + 1));
        assert!(bench.report.rows.is_empty() && bench.report.failed.is_empty());
    }
}
