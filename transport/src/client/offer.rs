//! What became of an offer: expected outcomes are values, not errors (shared-memory spec 10.1).
#![forbid(unsafe_code)]

use crate::log::{AppendOutcome, BatchOutcome};

/// The outcome of an offer or a claim.
#[must_use = "a message that was not accepted has to be offered again or given up"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Accepted; the stream position after the message, bytes.
    Position(i64),
    /// The slowest subscriber (or the flow control) holds the stream; try again later.
    BackPressured,
    /// Nobody subscribes, or the driver is away; try again later.
    NotConnected,
    /// The log moved to its next term; try again at once.
    AdminAction,
    /// The publication, or its client, is closed; never succeeds again.
    Closed,
    /// The stream is at its end (2^31 terms); never succeeds again.
    MaxPositionExceeded,
    /// The message is longer than [`super::Publication::max_message_length`] (offers) or
    /// [`super::Publication::max_payload_length`] (claims).
    TooLong,
}

impl Offer {
    /// The position after the message, if it was accepted.
    #[inline]
    #[must_use]
    pub const fn position(self) -> Option<i64> {
        match self {
            Offer::Position(position) => Some(position),
            _ => None,
        }
    }

    /// Whether the message was accepted.
    #[inline]
    #[must_use]
    pub const fn is_accepted(self) -> bool {
        matches!(self, Offer::Position(_))
    }

    /// Whether the same message may be accepted by a later try.
    #[inline]
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Offer::BackPressured | Offer::NotConnected | Offer::AdminAction
        )
    }
}

/// The outcome of a batch.
#[must_use = "messages that were not accepted have to be offered again or given up"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOffer {
    /// Leading messages that were accepted; the caller goes on with those behind them.
    pub accepted: usize,
    /// [`Offer::Position`] behind the last accepted message if there is one, otherwise why the first message was not
    /// accepted. For an empty batch, [`Offer::Position`] where the stream stands, whoever listens; or why this handle
    /// has no log.
    pub outcome: Offer,
}

impl BatchOffer {
    /// Nothing was accepted.
    #[cold]
    pub(super) const fn refused(outcome: Offer) -> BatchOffer {
        BatchOffer { accepted: 0, outcome }
    }

    /// What the log says of it.
    #[inline(always)]
    pub(super) const fn of(batch: BatchOutcome) -> Result<BatchOffer, AppendOutcome> {
        match batch.outcome {
            AppendOutcome::Appended { position } => Ok(BatchOffer {
                accepted: batch.accepted,
                outcome: Offer::Position(position),
            }),
            refusal => Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_outcomes_are_retryable() {
        for outcome in [Offer::BackPressured, Offer::NotConnected, Offer::AdminAction] {
            assert!(outcome.is_retryable());
            assert_eq!(outcome.position(), None);
        }
        for outcome in [
            Offer::Closed,
            Offer::MaxPositionExceeded,
            Offer::TooLong,
            Offer::Position(64),
        ] {
            assert!(!outcome.is_retryable());
        }
        assert_eq!(Offer::Position(64).position(), Some(64));
    }
}
