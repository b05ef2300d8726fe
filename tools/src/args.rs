//! The command line as it is typed: options, units, defaults and help. Nothing here reads the environment, opens a
//! file or decides anything.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::generated;
use crate::render::units::{parse_count, parse_duration, parse_positive, parse_size};

/// One command for Fulmar's transport and media driver.
#[derive(Debug, Parser)]
#[command(
    name = "fulmar",
    about = "Fulmar: messaging over shared memory and UDP, compatible with Aeron",
    after_help = "Sizes take k, m or g (powers of 1024), durations take ns, us, ms, s or m.\n\
                  Exit status: 0 done, 1 the operation failed, 2 wrong usage.",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a media driver
    Driver(DriverArgs),
    /// Publish lines of standard input, or generated messages
    Publish(PublishArgs),
    /// Print, count or verify the messages of a stream
    Subscribe(SubscribeArgs),
    /// Measure round trips to a pong
    Ping(PingArgs),
    /// Echo what a ping sends
    Pong(PongArgs),
    /// Measure how much one publisher and one subscriber move
    Throughput(ThroughputArgs),
    /// Show the counters of a running driver
    Stat(StatArgs),
    /// Show publications, images and subscribers joined by stream
    Streams(StreamsArgs),
    /// Show the distinct errors that a driver recorded
    Errors(ErrorsArgs),
    /// Show what was lost on the way to a driver, and repaired
    Loss(LossArgs),
    /// Show how much each subscriber has not read
    Backlog(BacklogArgs),
    /// Ask a driver to stop
    Terminate(TerminateArgs),
    /// Show the effective driver settings and where each comes from
    Config(ConfigArgs),
    /// Measure latency, throughput and costs in suites, beside bare baselines and the reference
    Bench(fulmar_benches::command::Arguments),
    /// Run simulated worlds of drivers and clients, with faults, from seeds
    #[cfg(feature = "sim")]
    Sim(SimArgs),
}

/// Which driver a command looks at.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// Driver directory [default: $AERON_DIR, else /dev/shm/aeron-$USER]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<String>,
}

/// Which driver a client attaches to.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) at: DirArgs,

    /// Start a driver inside this process, in a private directory, instead
    #[arg(long, conflicts_with = "dir")]
    pub(crate) embedded: bool,

    /// How long to wait for a live driver (duration)
    #[arg(long, value_name = "D", default_value = "1s", value_parser = parse_duration)]
    pub(crate) driver_timeout: Duration,
}

/// Channel and stream.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// Channel URI: aeron:ipc, aeron:udp?endpoint=HOST:PORT, or another that the driver knows
    #[arg(short, long, value_name = "CHANNEL", default_value = "aeron:ipc")]
    pub(crate) channel: String,

    /// Stream id (32-bit integer)
    #[arg(
        short,
        long,
        value_name = "STREAM",
        default_value_t = 1001,
        allow_negative_numbers = true
    )]
    pub(crate) stream: i32,
}

/// Settings of a driver, from every source but the environment.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    #[command(flatten)]
    pub(crate) at: DirArgs,

    /// How the agents of the driver share threads [default: dedicated]
    #[arg(long, value_name = "MODE", value_parser = ["shared", "shared-network", "dedicated"])]
    pub(crate) threading: Option<String>,

    /// What an agent does when it has nothing to do: adaptive, spin, yield, backoff, sleep or noop [default: adaptive]
    #[arg(long, value_name = "MODE")]
    pub(crate) idle: Option<String>,

    /// How datagrams are moved; auto is the one that measured better, mmsg [default: auto]
    #[arg(long, value_name = "BACKEND", value_parser = ["auto", "mmsg", "uring"])]
    pub(crate) io: Option<String>,

    /// Set one property, such as aeron.mtu.length=8k; wins over files and environment
    #[arg(short = 'D', value_name = "key=value")]
    pub(crate) define: Vec<String>,

    /// Properties files; a later one wins over an earlier one
    #[arg(value_name = "FILE.properties")]
    pub(crate) files: Vec<PathBuf>,
}

/// `fulmar driver`
#[derive(Debug, Args)]
#[command(
    after_help = "Options win over -D, -D over files, files over AERON_* variables, variables over defaults.\n\
                        SIGTERM and SIGINT stop the driver. `fulmar config` shows every setting."
)]
pub(crate) struct DriverArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// `fulmar publish`
#[derive(Debug, Args)]
#[command(after_help = "Without --generate each line of standard input is one message, without its newline.")]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) stream: StreamArgs,

    /// Use an exclusive publication: one writer, its own session
    #[arg(long)]
    pub(crate) exclusive: bool,

    /// Make COUNT numbered, checksummed messages instead of reading standard input
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub(crate) generate: Option<u64>,

    /// Length of a generated message (bytes, at least 8)
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = parse_generated_length, requires = "generate")]
    pub(crate) length: usize,

    /// Most messages per second [default: as fast as they are taken]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_positive)]
    pub(crate) rate: Option<u64>,

    /// How long to wait for a subscriber (duration)
    #[arg(long, value_name = "D", default_value = "10s", value_parser = parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// How long to wait at the end until the connected subscribers took everything (duration); 0 does not wait
    #[arg(long, value_name = "D", default_value = "5s", value_parser = parse_duration)]
    pub(crate) linger: Duration,

    /// Print a summary as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The bytes as they are, and a newline
    Text,
    /// Hexadecimal digits
    Hex,
    /// The number of bytes
    Length,
}

/// `fulmar subscribe`
#[derive(Debug, Args)]
#[command(after_help = "Runs until interrupted, unless --count or --until-end says otherwise.")]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) stream: StreamArgs,

    /// Stop after N messages
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) count: Option<u64>,

    /// Stop when every publication that was seen has ended and all was read
    #[arg(long)]
    pub(crate) until_end: bool,

    /// How to print a message
    #[arg(long, value_enum, default_value = "text", conflicts_with = "verify")]
    pub(crate) format: Format,

    /// Check messages of `publish --generate` (order, gaps, content) instead of printing them
    #[arg(long)]
    pub(crate) verify: bool,

    /// Print one JSON object per message; with --verify one document at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// The two streams between ping and pong.
#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// Channel from ping to pong
    #[arg(long, value_name = "CHANNEL", default_value = "aeron:ipc")]
    pub(crate) ping_channel: String,

    /// Stream from ping to pong (32-bit integer)
    #[arg(
        long,
        value_name = "STREAM",
        default_value_t = 1002,
        allow_negative_numbers = true
    )]
    pub(crate) ping_stream: i32,

    /// Channel from pong to ping
    #[arg(long, value_name = "CHANNEL", default_value = "aeron:ipc")]
    pub(crate) pong_channel: String,

    /// Stream from pong to ping (32-bit integer)
    #[arg(
        long,
        value_name = "STREAM",
        default_value_t = 1003,
        allow_negative_numbers = true
    )]
    pub(crate) pong_stream: i32,
}

/// `fulmar ping`
#[derive(Debug, Args)]
#[command(
    after_help = "Without --rate the next message is sent when the last came back. With --rate the schedule is\n\
                        fixed in advance, and each time counts from when the message should have been sent.\n\
                        With --embedded the driver and the pong run in this process too."
)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) echo: EchoArgs,

    /// Length of a message (bytes, at least 8)
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = parse_generated_length)]
    pub(crate) length: usize,

    /// How many round trips to measure
    #[arg(long, value_name = "N", default_value = "100000", value_parser = parse_positive)]
    pub(crate) messages: u64,

    /// How many round trips to make before those that are measured
    #[arg(long, value_name = "N", default_value = "10000", value_parser = parse_count)]
    pub(crate) warmup: u64,

    /// Messages per second on a fixed schedule [default: one at a time]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_positive)]
    pub(crate) rate: Option<u64>,

    /// How long to wait for a pong to connect (duration)
    #[arg(long, value_name = "D", default_value = "10s", value_parser = parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// Give up when nothing comes back for this long (duration)
    #[arg(long, value_name = "D", default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// Print one JSON document; times are in nanoseconds
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the percentile distribution to FILE, in microseconds
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,

    /// Write a picture of the percentiles to FILE.html; it needs no network to open
    #[arg(long, value_name = "FILE.html")]
    pub(crate) plot: Option<PathBuf>,
}

/// `fulmar pong`
#[derive(Debug, Args)]
#[command(after_help = "Runs until interrupted.")]
pub(crate) struct PongArgs {
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) echo: EchoArgs,
}

/// `fulmar throughput`
#[derive(Debug, Args)]
pub(crate) struct ThroughputArgs {
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) stream: StreamArgs,

    /// Length of a message (bytes)
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = parse_length)]
    pub(crate) length: usize,

    /// How many messages to move
    #[arg(long, value_name = "N", default_value = "10000000", value_parser = parse_positive)]
    pub(crate) messages: u64,

    /// Use an exclusive publication: one writer, its own session
    #[arg(long)]
    pub(crate) exclusive: bool,

    /// How long to wait for the two ends to connect (duration)
    #[arg(long, value_name = "D", default_value = "10s", value_parser = parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What of a driver that is not running may be shown.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) at: DirArgs,

    /// Also show what a driver that no longer runs left behind
    #[arg(long)]
    pub(crate) post_mortem: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `fulmar stat`
#[derive(Debug, Args)]
#[command(
    after_help = "Without --interval and --count the counters are shown once. With --json and --interval each\n\
                        sample is one line."
)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,

    /// Show them again every D (duration) [default with --count: 1s]
    #[arg(long, value_name = "D", value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,

    /// Stop after N samples [default with --interval: until interrupted]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) count: Option<u64>,
}

/// `fulmar streams`
#[derive(Debug, Args)]
#[command(
    after_help = "Columns: `behind` is what is written and not sent (sender), arrived behind a gap (image) or unread\n\
                        (subscriber); `window` is what may still be written or sent. All in bytes."
)]
pub(crate) struct StreamsArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,

    /// Only streams with this id (32-bit integer)
    #[arg(short, long, value_name = "STREAM", allow_negative_numbers = true)]
    pub(crate) stream: Option<i32>,

    /// Watch for this long to tell rates (duration); 0 tells none
    #[arg(long, value_name = "D", default_value = "500ms", value_parser = parse_duration)]
    pub(crate) sample: Duration,
}

/// `fulmar errors`
#[derive(Debug, Args)]
pub(crate) struct ErrorsArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
}

/// `fulmar loss`
#[derive(Debug, Args)]
#[command(
    after_help = "Bytes are lost when they are missing where later ones have arrived. Reliable streams get them again."
)]
pub(crate) struct LossArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
}

/// `fulmar backlog`
#[derive(Debug, Args)]
#[command(after_help = "The longest backlog comes first. Sizes are in bytes.")]
pub(crate) struct BacklogArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
}

/// `fulmar terminate`
#[derive(Debug, Args)]
#[command(
    after_help = "A driver obeys only if it was started with -D aeron.driver.termination.validator=allow."
)]
pub(crate) struct TerminateArgs {
    #[command(flatten)]
    pub(crate) at: DirArgs,

    /// Sent along for the driver to check
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) token: String,

    /// How long to wait for the driver to stop (duration)
    #[arg(long, value_name = "D", default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// `fulmar config`
#[derive(Debug, Args)]
#[command(after_help = "Takes the options of `fulmar driver` and shows what a driver would run with.")]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Only settings that differ from their default
    #[arg(long)]
    pub(crate) changed: bool,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `fulmar sim`
#[cfg(feature = "sim")]
#[derive(Debug, Args)]
#[command(after_help = sim_help())]
pub(crate) struct SimArgs {
    /// Run the world of this seed (0x for hexadecimal digits)
    #[arg(long, value_name = "N", value_parser = parse_seed, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,

    /// Run the worlds of these seeds, without the last one [default: from 0 on]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_seeds)]
    pub(crate) seeds: Option<(u64, u64)>,

    /// Begin no further world after this time (duration) [default: 10s without --seed and --seeds]
    #[arg(
        long = "for",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value_if("seed", clap::builder::ArgPredicate::IsPresent, None),
        default_value_if("seeds", clap::builder::ArgPredicate::IsPresent, None),
        default_value = "10s",
        hide_default_value = true
    )]
    pub(crate) limit: Option<Duration>,

    /// What the worlds are like; see below
    #[arg(long, value_name = "NAME", default_value = "swarm")]
    pub(crate) scenario: String,

    /// Write every datagram that is sent in the world to FILE (pcap)
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with = "seeds")]
    pub(crate) capture: Option<PathBuf>,

    /// Print the last events of the world even if nothing was wrong with it
    #[arg(long, requires = "seed", conflicts_with = "seeds")]
    pub(crate) events: bool,
}

#[cfg(feature = "sim")]
fn sim_help() -> String {
    let mut text = String::from("Scenarios:\n");
    for (name, about) in fulmar_media_driver::sim::swarm::scenarios() {
        text.push_str(&format!("  {name:<18}{about}\n"));
    }
    text.push_str(
        "\nThe same seed always makes the same world: two runs of the same seeds, on any machine, print the same trace.\n\
         A world that breaks a rule ends the command with status 1 and a line that shows it again.",
    );
    text
}

#[cfg(feature = "sim")]
fn parse_seed(text: &str) -> Result<u64, String> {
    let seed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    seed.ok_or_else(|| format!("`{text}` is not a seed: write a whole number, or 0x and hexadecimal digits"))
}

#[cfg(feature = "sim")]
fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text
        .split_once("..")
        .ok_or_else(|| format!("`{text}` is not a range of seeds: write FROM..TO"))?;
    let (from, to) = (parse_seed(from)?, parse_seed(to)?);
    if from < to {
        Ok((from, to))
    } else {
        Err(format!("there is no seed in {text}"))
    }
}

/// No message is longer than this, whatever the term length.
const LONGEST_MESSAGE: u64 = 16 << 20;

fn parse_length(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        length @ 0..=LONGEST_MESSAGE => usize::try_from(length).map_err(|error| error.to_string()),
        _ => Err("no message can be longer than 16m".into()),
    }
}

fn parse_generated_length(text: &str) -> Result<usize, String> {
    match parse_length(text)? {
        0..generated::MIN_LENGTH => {
            Err("the number and the checksum take 8 bytes, so it must be at least 8".into())
        }
        length => Ok(length),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".into()),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_of_the_contract_is_accepted() {
        for line in [
            "fulmar driver --dir /d --threading shared-network --idle spin --io mmsg -D a=b -Dc=d one.properties two.properties",
            "fulmar publish --dir /d -c aeron:ipc -s 10 --exclusive --connect-timeout 3s --linger 0",
            "fulmar publish --embedded -c aeron:ipc -s -10 --generate 1_000 --length 1k --rate 100 --json",
            "fulmar subscribe -c aeron:ipc -s 10 --count 5 --format hex --json --until-end",
            "fulmar subscribe -c aeron:ipc -s 10 --verify",
            "fulmar ping --ping-channel a --ping-stream 1 --pong-channel b --pong-stream 2 --length 64 --messages 10 --warmup 0 \
             --rate 1000 --embedded --json --hgrm f --plot f.html",
            "fulmar pong --ping-channel a --ping-stream 1 --pong-channel b --pong-stream 2",
            "fulmar throughput -c aeron:ipc -s 1 --length 100 --messages 10 --exclusive --embedded --json",
            "fulmar stat --dir /d --interval 500ms --count 2 --json",
            "fulmar errors --dir /d --json",
            "fulmar streams --dir /d --json --sample 0 --stream -5 --post-mortem",
            "fulmar loss --dir /d --json",
            "fulmar backlog --dir /d --json",
            "fulmar terminate --dir /d",
            "fulmar config --dir /d -D a=b --json",
            "fulmar bench ipc udp/throughput --rounds 3 --smoke --term-length 1m --json f --out d",
            "fulmar bench count ipc fulmar claim 32 1000",
            #[cfg(feature = "sim")]
            "fulmar sim --seeds 0..0x10 --for 10s --scenario lossy",
            #[cfg(feature = "sim")]
            "fulmar sim --seed 0x2a --events --capture f.pcap",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    #[cfg(feature = "sim")]
    fn help_names_every_scenario() {
        let text = sim_help();
        let mut count = 0;
        for (name, about) in fulmar_media_driver::sim::swarm::scenarios() {
            assert!(
                text.contains(&format!("\n  {name} ")) && text.contains(about),
                "{name}: {text}"
            );
            count += 1;
        }
        assert!(count > 1);
        let error = parse("fulmar sim --help").unwrap_err().to_string();
        assert!(error.contains("\n  swarm  "), "{error}");
    }

    #[test]
    fn wrong_usage_is_refused_with_status_2() {
        for line in [
            "fulmar",
            "fulmar fly",
            "fulmar publish --length 10",
            "fulmar publish --generate 1 --length 7",
            "fulmar publish --generate 1 --rate 0",
            "fulmar publish --embedded --dir /d",
            "fulmar publish --linger 5",
            "fulmar subscribe --count 0",
            "fulmar subscribe --format base64",
            "fulmar subscribe --verify --format hex",
            "fulmar ping --length 17m",
            "fulmar stat --interval 0",
            "fulmar driver --threading many",
            "fulmar bench --rounds 0",
            "fulmar bench --term-length 100k",
            "fulmar bench --json",
            #[cfg(feature = "sim")]
            "fulmar sim --capture f --seeds 0..2",
            #[cfg(feature = "sim")]
            "fulmar sim --events",
            #[cfg(feature = "sim")]
            "fulmar sim --events --seeds 0..2",
            #[cfg(feature = "sim")]
            "fulmar sim --seed 1 --seeds 1..2",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
