//! Plain values that both client programs report, and the log of what a client was told.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The driver's error code with the sign as the client library shows it, or a code of the library, or 0.
    pub code: i32,
    /// The message.
    pub text: String,
}

impl Failure {
    /// A failure without a code.
    #[must_use]
    pub fn of(text: impl Into<String>) -> Failure {
        Failure {
            code: 0,
            text: text.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl std::error::Error for Failure {}

/// What a publication is made of.
#[derive(Clone, Debug)]
pub struct PublicationFacts {
    /// Registration id of this add.
    pub registration_id: i64,
    /// Registration id of the add that made the log.
    pub original_registration_id: i64,
    /// Session id.
    pub session_id: i32,
    /// Initial term id.
    pub initial_term_id: i32,
    /// Term length in bytes.
    pub term_length: usize,
    /// Longest message in bytes.
    pub max_message_length: usize,
    /// Longest unfragmented message in bytes.
    pub max_payload_length: usize,
}

/// What an image is made of, and how far it was read.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    /// Session id of the publisher.
    pub session_id: i32,
    /// Image id; for IPC the registration id of the publication.
    pub correlation_id: i64,
    /// Where this subscriber joined.
    pub join_position: i64,
    /// Consumer position.
    pub position: i64,
    /// Whether everything of an ended stream was read.
    pub is_end_of_stream: bool,
    /// Whether its publication was revoked.
    pub is_publication_revoked: bool,
    /// `aeron:ipc` or an address.
    pub source_identity: String,
}

/// One allocated counter.
#[derive(Clone, Debug, Default)]
pub struct CounterLine {
    /// Counter id.
    pub id: i32,
    /// Type id.
    pub type_id: i32,
    /// Value when read.
    pub value: i64,
    /// Registration id.
    pub registration_id: i64,
    /// Client id of the owner, -1 for none.
    pub owner_id: i64,
    /// Reference id.
    pub reference_id: i64,
    /// Key bytes.
    pub key: Vec<u8>,
    /// Label.
    pub label: String,
}

/// Lines of text about what the client was told, in order; the interop tests wait for them.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<VecDeque<String>>>);

impl EventLog {
    /// Appends one event.
    pub fn push(&self, event: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(event);
    }

    /// Removes and returns the first event that starts with `prefix`; earlier ones stay.
    #[must_use]
    pub fn take(&self, prefix: &str) -> Option<String> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = events.iter().position(|event| event.starts_with(prefix))?;
        events.remove(index)
    }

    /// Every event so far, without removing any.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}
