//! `fulmar bench`: the suites of the package `fulmar-benches`, with the same options as its `cargo bench`.

#![forbid(unsafe_code)]

use fulmar_benches::command::{self, Arguments};

use crate::failure::Failure;
use crate::signals::stop_requested;

pub(crate) fn run(args: &Arguments) -> Result<(), Failure> {
    // Counting tools start this program again, as `fulmar bench count ...`.
    let child = vec!["bench".to_owned()];
    command::run(args, child, stop_requested).map_err(|failure| match failure {
        command::Failure::Usage(what) => Failure::Usage(what),
        command::Failure::Failed(what) => Failure::new(what),
        command::Failure::Output(error) => Failure::output(&error),
    })
}
