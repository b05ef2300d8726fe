//! What can go wrong in the client, as values a caller can match on.
#![forbid(unsafe_code)]

use core::time::Duration;

use crate::control::ErrorCode;
use crate::id::{ClientId, CounterId, RegistrationId};

/// An error of the client as a whole: from connecting, or told to the error handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No live driver was found in the directory in time.
    #[error("no media driver in {dir} within {waited:?}: {reason}")]
    DriverTimeout {
        /// The directory.
        dir: String,
        /// How long was waited.
        waited: Duration,
        /// What was found last.
        reason: String,
    },
    /// The CnC file can not be used, and waiting would not help.
    #[error("the CnC file in {dir} can not be used: {reason}")]
    CncUnusable {
        /// The directory.
        dir: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting has a value that can not be used.
    #[error("setting {name}: {reason}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The process of the driver ended.
    #[error("the media driver died")]
    DriverDied,
    /// The driver ended in order.
    #[error("the media driver was shut down")]
    DriverShutDown,
    /// The driver showed no sign of life for the driver timeout.
    #[error("the media driver showed no sign of life for {0:?}")]
    DriverSilent(Duration),
    /// The CnC file was truncated or removed under the client.
    #[error("the CnC file was damaged while in use")]
    CncDamaged,
    /// Another driver has taken the directory over.
    #[error("another media driver has taken the directory over")]
    DriverReplaced,
    /// The channel behind some of this client's publications or subscriptions failed.
    #[error("the channel with status counter {status} failed: {message}")]
    ChannelError {
        /// The channel's status counter.
        status: CounterId,
        /// The driver's words.
        message: String,
    },
    /// The driver gave the client up, because it was stopped or starved for longer than the client liveness timeout.
    /// Every handle is closed; connect a new client.
    #[error("client {0} was given up by the media driver (client liveness timeout)")]
    ClientTimedOut(ClientId),
    /// So many driver events passed that some were lost before the client read them.
    #[error("driver events were lost: the client was stopped for too long")]
    EventsLost,
    /// Something in the stream can not be a frame; the image is closed.
    #[error("image {image} has a corrupt frame at position {position}")]
    CorruptFrame {
        /// The image.
        image: RegistrationId,
        /// Where its reader stopped, bytes.
        position: i64,
    },
    /// The reader of an image stood still for longer than the driver's patience: the driver has taken its position
    /// away or gone on without it, and what it had not read is lost. The image is closed.
    #[error("image {image} was left behind by the driver at position {position}")]
    ImageLapped {
        /// The image.
        image: RegistrationId,
        /// Where its reader stopped, bytes; where it began if that was noticed without the reader.
        position: i64,
    },
    /// The file of a log was truncated while in use; what used it is closed.
    #[error("the log of {0} was damaged while in use")]
    LogDamaged(RegistrationId),
    /// An image was announced whose log or position can not be used.
    #[error("image {image} can not be opened: {reason}")]
    ImageUnusable {
        /// The image.
        image: RegistrationId,
        /// Why.
        reason: String,
    },
    /// The driver reported an error for a publication in use, for instance a rejected image.
    #[error("publication {registration_id}: {code:?}: {message}")]
    PublicationError {
        /// The publication's original registration id.
        registration_id: RegistrationId,
        /// The driver's code.
        code: ErrorCode,
        /// The driver's or the subscriber's words.
        message: String,
    },
    /// After the loss of a driver its successor refused to add a resource again; its handle is closed.
    #[error("could not add {channel} stream {stream_id} again: {error}")]
    ReattachFailed {
        /// The channel.
        channel: String,
        /// The stream.
        stream_id: i32,
        /// The answer.
        error: RegistrationError,
    },
    /// A handler of the application panicked.
    #[error("a handler panicked: {0}")]
    HandlerPanicked(String),
    /// The client's thread could not be started.
    #[error("the client thread could not be started: {0}")]
    Thread(String),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why adding or changing a resource failed. The client lives on, except for `Closed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The driver refused.
    #[error("{code:?}: {message}")]
    Refused {
        /// The driver's code.
        code: ErrorCode,
        /// The driver's words.
        message: String,
    },
    /// The driver did not answer in time. A late answer is undone.
    #[error("the media driver did not answer within {0:?}")]
    Timeout(Duration),
    /// The driver is away at the moment.
    #[error("the media driver is away")]
    DriverLost,
    /// The ring to the driver is full.
    #[error("the ring to the media driver is full")]
    RingFull,
    /// The argument can not be sent.
    #[error("argument {name}: {reason}")]
    Argument {
        /// Which argument.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What the driver announced could not be opened.
    #[error("could not open what the driver announced: {0}")]
    Unusable(String),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a claimed message could not be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The claim was open for so long that the driver took the place back; nothing was written.
    #[error("the claim was revoked by the media driver")]
    ClaimRevoked,
    /// The publication was closed, or its driver was lost, since the claim.
    #[error("the publication was closed")]
    Closed,
}

/// Why an image's position could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Positions are multiples of 32.
    #[error("position {0} is not a multiple of 32")]
    Unaligned(i64),
    /// Outside the rest of the current term.
    #[error("position {position} is outside {lowest}..={highest}")]
    OutOfRange {
        /// The position asked for.
        position: i64,
        /// The current position.
        lowest: i64,
        /// The end of the current term.
        highest: i64,
    },
    /// The image is closed.
    #[error("the image is closed")]
    Closed,
}

/// Why a block could not be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Longer than what is left of the term.
    #[error("the block of {length} bytes is longer than the {remaining} bytes left in the term")]
    TooLong {
        /// Bytes offered.
        length: usize,
        /// Bytes left.
        remaining: usize,
    },
    /// The first frame does not belong at the current place of this stream.
    #[error("the first frame of the block does not belong here")]
    WrongFirstFrame,
}
