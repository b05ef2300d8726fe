//! `fulmar`: one command for the transport, the media driver and what looks inside them. Parses, dispatches, and turns
//! what became of the command into an exit status.

mod args;
mod attach;
mod cmd;
mod echo;
mod failure;
mod generated;
mod inspect;
mod latency;
mod lines;
mod outlet;
mod render;
mod schedule;
mod settings;
mod signals;
mod streams;
mod taken;
mod verify;
mod waiter;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use fulmar::cnc::layout::CNC_VERSION;
use fulmar::counters::system::CONTROL_PROTOCOL_VERSION;

use args::{Command, CommandLine};
use failure::{EXIT_DONE, Failure};

fn main() -> ExitCode {
    let command_line = parse();
    signals::install();
    match run(&command_line.command) {
        Ok(()) => ExitCode::from(EXIT_DONE),
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                eprintln!("{failure}");
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

fn parse() -> CommandLine {
    let matches = CommandLine::command().version(version()).get_matches();
    // The matches come from this very definition, so an error can only be one that clap reports itself.
    CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Driver(args) => cmd::driver::run(args),
        Command::Publish(args) => cmd::publish::run(args),
        Command::Subscribe(args) => cmd::subscribe::run(args),
        Command::Ping(args) => cmd::ping::run(args),
        Command::Pong(args) => cmd::pong::run(args),
        Command::Throughput(args) => cmd::throughput::run(args),
        Command::Stat(args) => cmd::stat::run(args),
        Command::Streams(args) => cmd::streams::run(args),
        Command::Errors(args) => cmd::errors::run(args),
        Command::Loss(args) => cmd::loss::run(args),
        Command::Backlog(args) => cmd::backlog::run(args),
        Command::Terminate(args) => cmd::terminate::run(args),
        Command::Config(args) => cmd::config::run(args),
        Command::Bench(args) => cmd::bench::run(args),
        #[cfg(feature = "sim")]
        Command::Sim(args) => cmd::sim::run(args),
    }
}

fn version() -> String {
    format!(
        "{} (Aeron control protocol {}, CnC {})",
        env!("CARGO_PKG_VERSION"),
        semantic(CONTROL_PROTOCOL_VERSION),
        semantic(i64::from(CNC_VERSION))
    )
}

/// A version word as people write it.
fn semantic(version: i64) -> String {
    format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff)
}
