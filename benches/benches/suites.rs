//! `cargo bench -p fulmar-benches --features peer -- [FILTER...] [--rounds N] [--smoke] [--term-length BYTES]`: ours and
//! the reference's figures, interleaved. See [`fulmar_benches::command`].

use fulmar_benches::command;
use fulmar_benches::side::BenchError;

fn main() -> Result<(), BenchError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` this is `cargo test`, which wants to know that it runs, not how fast.
    let is_test = !arguments.iter().any(|argument| argument == "--bench");
    arguments.retain(|argument| argument != "--bench");
    if arguments.first().is_some_and(|argument| argument == "count") {
        return command::child(&arguments);
    }
    if is_test {
        arguments.push("--smoke".to_owned());
    }
    command::run(command::options(&arguments, Vec::new())?)
}
