//! `cargo bench -p fulmar-benches --features peer -- [FILTER...] [OPTION...]`: ours and the reference's figures,
//! interleaved. See [`fulmar_benches::command`]; `fulmar bench` is the same.

use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};
use fulmar_benches::command::{self, Arguments, Failure};

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` this is `cargo test`, which wants to know that it runs, not how fast. A child is neither.
    let is_test = !words.iter().any(|word| word == "--bench" || word == "count");
    words.retain(|word| word != "--bench");
    if is_test {
        words.push("--smoke".to_owned());
    }
    let name = "cargo bench -p fulmar-benches --";
    let definition = Arguments::augment_args(Command::new(name).no_binary_name(true));
    let matches = definition.get_matches_from(words);
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match command::run(&arguments, Vec::new(), || false) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fulmar-benches: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}
