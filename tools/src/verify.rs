//! Verification of the generated messages of any number of publishers, and the verdict at the end.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generated::{Fault, Verifier};

/// Faults that are described on standard error; the rest is only counted.
const DESCRIBED: u64 = 10;

/// One verifier per session.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    sessions: Vec<(i32, Verifier)>,
    latest: usize,
    described: u64,
}

impl Verification {
    /// Checks the next message of a session.
    #[inline]
    pub(crate) fn check(&mut self, session_id: i32, message: &[u8]) {
        if self
            .sessions
            .get(self.latest)
            .is_none_or(|(id, _)| *id != session_id)
        {
            self.latest = self.find(session_id);
        }
        let verifier = &mut self.sessions[self.latest].1;
        let expected = verifier.expected();
        if let Err(fault) = verifier.check(message) {
            self.describe(session_id, expected, fault);
        }
    }

    fn find(&mut self, session_id: i32) -> usize {
        let found = self.sessions.iter().position(|(id, _)| *id == session_id);
        found.unwrap_or_else(|| {
            self.sessions.push((session_id, Verifier::default()));
            self.sessions.len() - 1
        })
    }

    #[cold]
    fn describe(&mut self, session_id: i32, expected: u64, fault: Fault) {
        self.described += 1;
        if self.described > DESCRIBED {
            return;
        }
        let what = match fault {
            Fault::Corrupt => "its content is not what was generated".to_string(),
            Fault::Gap(missing) => format!("{missing} messages are missing before the one that came"),
            Fault::OutOfOrder => "an earlier message came instead".to_string(),
            Fault::AfterEnd => "the last message had come already".to_string(),
        };
        eprintln!("fulmar: session {session_id}, message {expected} expected: {what}");
    }

    /// The verdict. If the publications have ended, those whose last message did not come count as an error each.
    pub(crate) fn finish(&self, have_ended: bool) -> Verdict {
        let mut verdict = Verdict::default();
        for (session_id, verifier) in &self.sessions {
            verdict.verified += verifier.seen;
            verdict.errors = verdict.errors.saturating_add(verifier.errors);
            if have_ended && !verifier.has_ended() {
                verdict.errors = verdict.errors.saturating_add(1);
                eprintln!(
                    "fulmar: session {session_id} ended before its last message, at number {}",
                    verifier.expected()
                );
            }
        }
        verdict
    }
}

/// What the verification came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    verified: u64,
    errors: u64,
}

impl Verdict {
    pub(crate) fn to_text(self) -> String {
        format!("verified {} messages {} errors", self.verified, self.errors)
    }

    pub(crate) fn to_json(self) -> Value {
        json!({ "verified": self.verified, "errors": self.errors })
    }

    /// Any error fails the command.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        if self.errors == 0 {
            Ok(())
        } else {
            Err(Failure::new(format!(
                "{} of the generated messages were missing, changed or misplaced",
                self.errors
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::{Place, write_message};

    fn message(number: u64, place: Place) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        write_message(&mut bytes, number, place);
        bytes
    }

    #[test]
    fn sessions_are_verified_apart() {
        let mut verification = Verification::default();
        for number in 0..3 {
            let place = if number == 2 { Place::Last } else { Place::Within };
            verification.check(1, &message(number, place));
            verification.check(-2, &message(number, place));
        }
        let verdict = verification.finish(true);
        assert_eq!(verdict.to_text(), "verified 6 messages 0 errors");
        assert!(verdict.into_result().is_ok());
    }

    #[test]
    fn errors_fail_and_a_missing_tail_counts_once_the_stream_has_ended() {
        let mut verification = Verification::default();
        verification.check(1, &message(1, Place::Within));
        assert_eq!(
            verification.finish(false).to_text(),
            "verified 1 messages 1 errors"
        );
        let verdict = verification.finish(true);
        assert_eq!(verdict.to_json(), json!({ "verified": 1, "errors": 2 }));
        assert_eq!(verdict.into_result().unwrap_err().exit_status(), 1);
    }
}
