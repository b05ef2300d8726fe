//! Error codes carried by responses and error frames (spec 8.3).

#![forbid(unsafe_code)]

use core::fmt;

use crate::uri::{ParamError, UriError, UriFault};

/// Why a command failed, or why a publication was told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum ErrorCode {
    /// A number this version does not know.
    UnknownCodeValue = -1,
    /// Never sent.
    Unused = 0,
    /// The channel text is no valid URI, names nothing to bind or send to, uses the spy prefix where it may not, or
    /// its explicit session id is taken.
    InvalidChannel = 1,
    /// Removal of, or destination on, a subscription that does not exist.
    UnknownSubscription = 2,
    /// Removal of, or destination on, a publication that does not exist.
    UnknownPublication = 3,
    /// No longer sent by current drivers. The correlation id field of such a response holds a channel status counter
    /// id, and the error concerns every publication and subscription using that counter.
    ChannelEndpointError = 4,
    /// Removal of a counter that does not exist.
    UnknownCounter = 5,
    /// The driver does not know the type of the command.
    UnknownCommandTypeId = 6,
    /// The command is shorter than its fields need.
    MalformedCommand = 7,
    /// The driver can not do this.
    NotSupported = 8,
    /// Name resolution failed.
    UnknownHost = 9,
    /// Try again: the endpoint is just closing. Not put in the error log.
    ResourceTemporarilyUnavailable = 10,
    /// Everything else: bad parameter values, clashes of parameters, bind failures.
    GenericError = 11,
    /// No room for a log.
    StorageSpace = 12,
    /// A subscriber rejected the image; carried by publication errors.
    ImageRejected = 13,
    /// The publication was revoked; carried by error frames.
    PublicationRevoked = 14,
}

impl ErrorCode {
    /// The number in messages and frames.
    #[must_use]
    pub const fn get(self) -> i32 {
        self as i32
    }

    /// The code for a number read from a message; numbers without a name become
    /// [`UnknownCodeValue`](Self::UnknownCodeValue).
    #[must_use]
    pub const fn from_i32(value: i32) -> Self {
        match value {
            0 => Self::Unused,
            1 => Self::InvalidChannel,
            2 => Self::UnknownSubscription,
            3 => Self::UnknownPublication,
            4 => Self::ChannelEndpointError,
            5 => Self::UnknownCounter,
            6 => Self::UnknownCommandTypeId,
            7 => Self::MalformedCommand,
            8 => Self::NotSupported,
            9 => Self::UnknownHost,
            10 => Self::ResourceTemporarilyUnavailable,
            11 => Self::GenericError,
            12 => Self::StorageSpace,
            13 => Self::ImageRejected,
            14 => Self::PublicationRevoked,
            _ => Self::UnknownCodeValue,
        }
    }

    /// The name used in documentation and by other implementations, such as `INVALID_CHANNEL`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownCodeValue => "UNKNOWN_CODE_VALUE",
            Self::Unused => "UNUSED",
            Self::InvalidChannel => "INVALID_CHANNEL",
            Self::UnknownSubscription => "UNKNOWN_SUBSCRIPTION",
            Self::UnknownPublication => "UNKNOWN_PUBLICATION",
            Self::ChannelEndpointError => "CHANNEL_ENDPOINT_ERROR",
            Self::UnknownCounter => "UNKNOWN_COUNTER",
            Self::UnknownCommandTypeId => "UNKNOWN_COMMAND_TYPE_ID",
            Self::MalformedCommand => "MALFORMED_COMMAND",
            Self::NotSupported => "NOT_SUPPORTED",
            Self::UnknownHost => "UNKNOWN_HOST",
            Self::ResourceTemporarilyUnavailable => "RESOURCE_TEMPORARILY_UNAVAILABLE",
            Self::GenericError => "GENERIC_ERROR",
            Self::StorageSpace => "STORAGE_SPACE",
            Self::ImageRejected => "IMAGE_REJECTED",
            Self::PublicationRevoked => "PUBLICATION_REVOKED",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<&UriError> for ErrorCode {
    fn from(error: &UriError) -> Self {
        match error.fault {
            UriFault::DestinationNotUdp | UriFault::DestinationWithoutEndpoint => Self::GenericError,
            _ => Self::InvalidChannel,
        }
    }
}

impl From<&ParamError> for ErrorCode {
    fn from(_: &ParamError) -> Self {
        Self::GenericError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_survives_the_number() {
        for value in -1..=14 {
            assert_eq!(ErrorCode::from_i32(value).get(), value);
        }
        for value in [i32::MIN, -2, 15, i32::MAX] {
            assert_eq!(ErrorCode::from_i32(value), ErrorCode::UnknownCodeValue);
        }
        assert_eq!(ErrorCode::InvalidChannel.to_string(), "INVALID_CHANNEL");
    }
}
