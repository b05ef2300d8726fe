//! What the handler of a controlled poll wants next (shared-memory spec 11.2).
#![forbid(unsafe_code)]

/// The answer of a controlled handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Undo this message and stop: it is delivered again at the next poll.
    Abort,
    /// Stop behind this message.
    Break,
    /// Store the position behind this message at once, so that the publisher may go on, and continue.
    Commit,
}
