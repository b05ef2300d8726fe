//! How a command ends: done, failed with one clear sentence, misused, or left by its reader.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// Exit status of a command that did what it was asked.
pub(crate) const EXIT_DONE: u8 = 0;
/// Exit status of a command whose operation failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit status of a command that was called wrongly.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command stopped before it was done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operation failed: what failed and on what, and what to try.
    Failed { what: String, advice: Option<String> },
    /// The arguments contradict each other or name something that does not exist.
    Usage(String),
    /// The reader of standard output went away. Nobody is left to tell, so this counts as success.
    OutputClosed,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure::Failed {
            what: what.into(),
            advice: None,
        }
    }

    /// A failure and what the user can try.
    pub(crate) fn with_advice(what: impl Into<String>, advice: impl Into<String>) -> Failure {
        Failure::Failed {
            what: what.into(),
            advice: Some(advice.into()),
        }
    }

    /// A failed write to standard output; a closed pipe is not a failure.
    pub(crate) fn output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::new(format!("cannot write to standard output: {error}"))
        }
    }

    /// The status with which the process ends.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Failed { .. } => EXIT_FAILED,
            Failure::Usage(_) => EXIT_USAGE,
            Failure::OutputClosed => EXIT_DONE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed { what, advice: None } => write!(f, "fulmar: {what}"),
            Failure::Failed {
                what,
                advice: Some(advice),
            } => write!(f, "fulmar: {what}; {advice}"),
            Failure::Usage(text) => write!(f, "fulmar: wrong usage: {text}"),
            Failure::OutputClosed => write!(f, "fulmar: the reader of standard output is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_success_and_other_write_errors_are_not() {
        let closed = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit_status(), EXIT_DONE);
        let full = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit_status(), EXIT_FAILED);
    }

    #[test]
    fn a_failure_is_one_sentence_with_its_advice() {
        let failure = Failure::with_advice("no driver in /d", "start one");
        assert_eq!(failure.to_string(), "fulmar: no driver in /d; start one");
    }
}
