//! Commands from client to driver: type ids, layouts and their peculiarities (spec 7).
//!
//! Every command starts with the same 16-byte header; strings are preceded by an i32 byte count:
//!
//! ```text
//!   0        8              16
//!   | client | correlation  | fields of the command ...
//! ```

#![forbid(unsafe_code)]

use thiserror::Error;

use super::codec::{Fields, Writer};
use super::text::Text;
use crate::bits::align;
use crate::id::{ClientId, CorrelationId, RegistrationId, StreamId};

/// Type ids of commands in the to-driver ring (spec 7.1).
#[allow(
    missing_docs,
    reason = "the names are those of the protocol and of the variants of `Command`"
)]
pub mod type_id {
    pub const ADD_PUBLICATION: i32 = 0x01;
    pub const REMOVE_PUBLICATION: i32 = 0x02;
    pub const ADD_EXCLUSIVE_PUBLICATION: i32 = 0x03;
    pub const ADD_SUBSCRIPTION: i32 = 0x04;
    pub const REMOVE_SUBSCRIPTION: i32 = 0x05;
    pub const CLIENT_KEEPALIVE: i32 = 0x06;
    pub const ADD_DESTINATION: i32 = 0x07;
    pub const REMOVE_DESTINATION: i32 = 0x08;
    pub const ADD_COUNTER: i32 = 0x09;
    pub const REMOVE_COUNTER: i32 = 0x0A;
    pub const CLIENT_CLOSE: i32 = 0x0B;
    pub const ADD_RECEIVE_DESTINATION: i32 = 0x0C;
    pub const REMOVE_RECEIVE_DESTINATION: i32 = 0x0D;
    pub const TERMINATE_DRIVER: i32 = 0x0E;
    pub const ADD_STATIC_COUNTER: i32 = 0x0F;
    pub const REJECT_IMAGE: i32 = 0x10;
    pub const REMOVE_DESTINATION_BY_ID: i32 = 0x11;
    pub const NEXT_AVAILABLE_SESSION_ID: i32 = 0x12;
}

/// Bytes of the header that every command starts with.
pub const HEADER_LENGTH: usize = 16;

/// Longest reason of [`Command::RejectImage`] that the driver takes, bytes; above it error code 11.
pub const MAX_REJECT_REASON_LENGTH: usize = 1023;

/// Longest counter key, bytes; drivers cut longer keys without an error.
pub const MAX_COUNTER_KEY_LENGTH: usize = 112;

/// Longest counter label, bytes; drivers cut longer labels without an error.
pub const MAX_COUNTER_LABEL_LENGTH: usize = 380;

/// The bit of the flags of REMOVE_PUBLICATION that revokes.
const REVOKE_FLAG: i64 = 1;

/// C drivers refuse a shorter REJECT_IMAGE.
const REJECT_IMAGE_MIN_LENGTH: usize = 40;

/// What the registration correlation id of ADD_SUBSCRIPTION holds; nobody reads it.
const UNUSED_ID: i64 = -1;

/// The first 16 bytes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandHeader {
    /// Who asks. The C client leaves 0 in REJECT_IMAGE.
    pub client_id: ClientId,
    /// Joins the answer with this command, and becomes the registration id of what the command adds.
    pub correlation_id: CorrelationId,
}

/// What a client asks of the driver.
///
/// Keys and labels of counters, and reasons of rejections, are handed over at the length sent; the driver applies the
/// limits ([`MAX_COUNTER_KEY_LENGTH`], [`MAX_COUNTER_LABEL_LENGTH`], [`MAX_REJECT_REASON_LENGTH`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Add a publication that may share the log of an existing one.
    AddPublication {
        /// Stream to publish to.
        stream_id: StreamId,
        /// Channel URI, unchecked.
        channel: Text<'a>,
    },
    /// Add a publication with a log of its own.
    AddExclusivePublication {
        /// Stream to publish to.
        stream_id: StreamId,
        /// Channel URI, unchecked.
        channel: Text<'a>,
    },
    /// Give up a publication.
    RemovePublication {
        /// Correlation id of this client's own add, not the original one.
        registration_id: RegistrationId,
        /// End the stream at once, dropping what was not yet read.
        revoke: bool,
    },
    /// Add a subscription.
    AddSubscription {
        /// Stream to subscribe to.
        stream_id: StreamId,
        /// Channel URI, unchecked.
        channel: Text<'a>,
    },
    /// Give up a subscription.
    RemoveSubscription {
        /// Correlation id of its add.
        registration_id: RegistrationId,
    },
    /// Refresh the client's heartbeat. No current client sends it.
    ClientKeepalive,
    /// Add a send destination to a publication under manual control.
    AddDestination {
        /// Original registration id of the publication.
        registration_id: RegistrationId,
        /// Channel URI of the destination, unchecked.
        channel: Text<'a>,
    },
    /// Remove a send destination by its channel.
    RemoveDestination {
        /// Original registration id of the publication.
        registration_id: RegistrationId,
        /// Channel URI of the destination, unchecked.
        channel: Text<'a>,
    },
    /// Add a counter owned by the client.
    AddCounter {
        /// Application chosen type, any value.
        type_id: i32,
        /// Application defined bytes.
        key: &'a [u8],
        /// What tools print.
        label: Text<'a>,
    },
    /// Remove a counter of this client.
    RemoveCounter {
        /// Correlation id of its add.
        registration_id: RegistrationId,
    },
    /// The client goes; its resources are released without a timeout event.
    ClientClose,
    /// Add a destination to a subscription under manual control.
    AddReceiveDestination {
        /// Registration id of the subscription.
        registration_id: RegistrationId,
        /// Channel URI of the destination, unchecked.
        channel: Text<'a>,
    },
    /// Remove a destination of a subscription by its channel.
    RemoveReceiveDestination {
        /// Registration id of the subscription.
        registration_id: RegistrationId,
        /// Channel URI of the destination, unchecked.
        channel: Text<'a>,
    },
    /// Ask the driver to stop. The client id is a fresh correlation id, the correlation id is -1; never answered.
    TerminateDriver {
        /// Handed to the driver's validator; may be empty.
        token: &'a [u8],
    },
    /// Find or add a counter that lives as long as the driver.
    AddStaticCounter {
        /// Application chosen; with the type it names the counter.
        registration_id: RegistrationId,
        /// Application chosen type.
        type_id: i32,
        /// Application defined bytes.
        key: &'a [u8],
        /// What tools print.
        label: Text<'a>,
    },
    /// Stop taking an image, telling its publisher why.
    RejectImage {
        /// Correlation id of the image; for IPC the registration id of the publication.
        image_correlation_id: CorrelationId,
        /// Where the subscriber stood.
        position: i64,
        /// For the publisher.
        reason: Text<'a>,
    },
    /// Remove a send destination by the correlation id of its add.
    RemoveDestinationById {
        /// Original registration id of the publication.
        registration_id: RegistrationId,
        /// Correlation id of its [`Command::AddDestination`].
        destination_registration_id: RegistrationId,
    },
    /// Ask for a session id that no publication of the stream uses.
    NextAvailableSessionId {
        /// The stream it has to be free on.
        stream_id: StreamId,
    },
}

/// Why a message of the ring is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Too short for its fields, or a length field that is negative or points past the end.
    #[error("malformed command of type {type_id:#04x} with length {length}")]
    Malformed {
        /// Type id of the record.
        type_id: i32,
        /// Bytes in the record.
        length: usize,
        /// The header, if at least that was there: an answer is possible.
        header: Option<CommandHeader>,
    },
    /// A type id that is not in the table of 7.1.
    #[error("unknown command of type {type_id:#04x}")]
    Unknown {
        /// Type id of the record.
        type_id: i32,
        /// The first 16 bytes read as a header, if there are as many.
        header: Option<CommandHeader>,
    },
}

impl<'a> Command<'a> {
    /// Reads a record of the to-driver ring.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] for an unknown type, [`CommandError::Malformed`] if the fields do not fit.
    pub fn decode(type_id: i32, payload: &'a [u8]) -> Result<(CommandHeader, Command<'a>), CommandError> {
        let fields = Fields(payload);
        let header = decode_header(fields);
        let Some(decode_body) = body_decoder(type_id) else {
            return Err(CommandError::Unknown { type_id, header });
        };
        match (header, decode_body(fields)) {
            (Some(header), Some(command)) => Ok((header, command)),
            _ => Err(CommandError::Malformed {
                type_id,
                length: payload.len(),
                header,
            }),
        }
    }

    /// The type id of the record that carries this command.
    #[must_use]
    pub const fn type_id(&self) -> i32 {
        match self {
            Command::AddPublication { .. } => type_id::ADD_PUBLICATION,
            Command::RemovePublication { .. } => type_id::REMOVE_PUBLICATION,
            Command::AddExclusivePublication { .. } => type_id::ADD_EXCLUSIVE_PUBLICATION,
            Command::AddSubscription { .. } => type_id::ADD_SUBSCRIPTION,
            Command::RemoveSubscription { .. } => type_id::REMOVE_SUBSCRIPTION,
            Command::ClientKeepalive => type_id::CLIENT_KEEPALIVE,
            Command::AddDestination { .. } => type_id::ADD_DESTINATION,
            Command::RemoveDestination { .. } => type_id::REMOVE_DESTINATION,
            Command::AddCounter { .. } => type_id::ADD_COUNTER,
            Command::RemoveCounter { .. } => type_id::REMOVE_COUNTER,
            Command::ClientClose => type_id::CLIENT_CLOSE,
            Command::AddReceiveDestination { .. } => type_id::ADD_RECEIVE_DESTINATION,
            Command::RemoveReceiveDestination { .. } => type_id::REMOVE_RECEIVE_DESTINATION,
            Command::TerminateDriver { .. } => type_id::TERMINATE_DRIVER,
            Command::AddStaticCounter { .. } => type_id::ADD_STATIC_COUNTER,
            Command::RejectImage { .. } => type_id::REJECT_IMAGE,
            Command::RemoveDestinationById { .. } => type_id::REMOVE_DESTINATION_BY_ID,
            Command::NextAvailableSessionId { .. } => type_id::NEXT_AVAILABLE_SESSION_ID,
        }
    }

    /// Replaces the contents of `out` by the payload of the record, and returns the record's type id.
    pub fn encode(&self, header: CommandHeader, out: &mut Vec<u8>) -> i32 {
        let writer = Writer::new(out)
            .i64(header.client_id.get())
            .i64(header.correlation_id.get());
        match *self {
            Command::AddPublication { stream_id, channel }
            | Command::AddExclusivePublication { stream_id, channel } => {
                writer.i32(stream_id.get()).text(channel);
            }
            Command::RemovePublication {
                registration_id,
                revoke,
            } => {
                let flags = if revoke { REVOKE_FLAG } else { 0 };
                writer.i64(registration_id.get()).i64(flags);
            }
            Command::AddSubscription { stream_id, channel } => {
                writer.i64(UNUSED_ID).i32(stream_id.get()).text(channel);
            }
            Command::RemoveSubscription { registration_id } | Command::RemoveCounter { registration_id } => {
                writer.i64(registration_id.get());
            }
            Command::ClientKeepalive | Command::ClientClose => {}
            Command::AddDestination {
                registration_id,
                channel,
            }
            | Command::RemoveDestination {
                registration_id,
                channel,
            }
            | Command::AddReceiveDestination {
                registration_id,
                channel,
            }
            | Command::RemoveReceiveDestination {
                registration_id,
                channel,
            } => {
                writer.i64(registration_id.get()).text(channel);
            }
            Command::AddCounter { type_id, key, label } => {
                writer.i32(type_id).counted(key).align4().text(label);
            }
            Command::TerminateDriver { token } => {
                writer.counted(token);
            }
            Command::AddStaticCounter {
                registration_id,
                type_id,
                key,
                label,
            } => {
                writer
                    .i64(registration_id.get())
                    .i32(type_id)
                    .counted(key)
                    .align4()
                    .text(label);
            }
            Command::RejectImage {
                image_correlation_id,
                position,
                reason,
            } => {
                writer
                    .i64(image_correlation_id.get())
                    .i64(position)
                    .text(reason)
                    .at_least(REJECT_IMAGE_MIN_LENGTH);
            }
            Command::RemoveDestinationById {
                registration_id,
                destination_registration_id,
            } => {
                writer
                    .i64(registration_id.get())
                    .i64(destination_registration_id.get());
            }
            Command::NextAvailableSessionId { stream_id } => {
                writer.i32(stream_id.get());
            }
        }
        self.type_id()
    }
}

fn decode_header(fields: Fields<'_>) -> Option<CommandHeader> {
    Some(CommandHeader {
        client_id: ClientId(fields.i64(0)?),
        correlation_id: CorrelationId(fields.i64(8)?),
    })
}

type BodyDecoder = for<'a> fn(Fields<'a>) -> Option<Command<'a>>;

fn body_decoder(type_id: i32) -> Option<BodyDecoder> {
    let decoder: BodyDecoder = match type_id {
        type_id::ADD_PUBLICATION => |fields| {
            Some(Command::AddPublication {
                stream_id: StreamId(fields.i32(16)?),
                channel: fields.text(20)?,
            })
        },
        type_id::ADD_EXCLUSIVE_PUBLICATION => |fields| {
            Some(Command::AddExclusivePublication {
                stream_id: StreamId(fields.i32(16)?),
                channel: fields.text(20)?,
            })
        },
        type_id::REMOVE_PUBLICATION => decode_remove_publication,
        type_id::ADD_SUBSCRIPTION => |fields| {
            Some(Command::AddSubscription {
                stream_id: StreamId(fields.i32(24)?),
                channel: fields.text(28)?,
            })
        },
        type_id::REMOVE_SUBSCRIPTION => |fields| {
            Some(Command::RemoveSubscription {
                registration_id: RegistrationId(fields.i64(16)?),
            })
        },
        type_id::CLIENT_KEEPALIVE => |_| Some(Command::ClientKeepalive),
        type_id::ADD_DESTINATION => |fields| {
            decode_destination(fields).map(|(registration_id, channel)| Command::AddDestination {
                registration_id,
                channel,
            })
        },
        type_id::REMOVE_DESTINATION => |fields| {
            decode_destination(fields).map(|(registration_id, channel)| Command::RemoveDestination {
                registration_id,
                channel,
            })
        },
        type_id::ADD_COUNTER => |fields| {
            let (key, label) = decode_key_and_label(fields, 20)?;
            Some(Command::AddCounter {
                type_id: fields.i32(16)?,
                key,
                label,
            })
        },
        type_id::REMOVE_COUNTER => |fields| {
            Some(Command::RemoveCounter {
                registration_id: RegistrationId(fields.i64(16)?),
            })
        },
        type_id::CLIENT_CLOSE => |_| Some(Command::ClientClose),
        type_id::ADD_RECEIVE_DESTINATION => |fields| {
            decode_destination(fields).map(|(registration_id, channel)| Command::AddReceiveDestination {
                registration_id,
                channel,
            })
        },
        type_id::REMOVE_RECEIVE_DESTINATION => |fields| {
            decode_destination(fields).map(|(registration_id, channel)| Command::RemoveReceiveDestination {
                registration_id,
                channel,
            })
        },
        type_id::TERMINATE_DRIVER => |fields| {
            Some(Command::TerminateDriver {
                token: fields.counted(16)?,
            })
        },
        type_id::ADD_STATIC_COUNTER => |fields| {
            let (key, label) = decode_key_and_label(fields, 28)?;
            Some(Command::AddStaticCounter {
                registration_id: RegistrationId(fields.i64(16)?),
                type_id: fields.i32(24)?,
                key,
                label,
            })
        },
        type_id::REJECT_IMAGE => decode_reject_image,
        type_id::REMOVE_DESTINATION_BY_ID => |fields| {
            Some(Command::RemoveDestinationById {
                registration_id: RegistrationId(fields.i64(16)?),
                destination_registration_id: RegistrationId(fields.i64(24)?),
            })
        },
        type_id::NEXT_AVAILABLE_SESSION_ID => |fields| {
            Some(Command::NextAvailableSessionId {
                stream_id: StreamId(fields.i32(16)?),
            })
        },
        _ => return None,
    };
    Some(decoder)
}

/// 24 bytes are the form without flags of aeron-go and old clients; 25 to 31 bytes are malformed, as in C.
fn decode_remove_publication(fields: Fields<'_>) -> Option<Command<'_>> {
    let flags = if fields.0.len() == 24 { 0 } else { fields.i64(24)? };
    Some(Command::RemovePublication {
        registration_id: RegistrationId(fields.i64(16)?),
        revoke: flags & REVOKE_FLAG != 0,
    })
}

fn decode_destination(fields: Fields<'_>) -> Option<(RegistrationId, Text<'_>)> {
    Some((RegistrationId(fields.i64(16)?), fields.text(24)?))
}

/// Key and label, where `offset` is that of the key length.
///
/// aeron-go forgets the alignment of the key in the length of its message, so that up to three bytes are missing at
/// the end: of the label, or, when the label is short, of its length field too. What is there is taken.
fn decode_key_and_label(fields: Fields<'_>, offset: usize) -> Option<(&[u8], Text<'_>)> {
    let key = fields.counted(offset)?;
    let aligned = align(key.len(), 4);
    let forgotten = aligned - key.len();
    let behind_key = fields.0.get(offset + 4 + aligned..)?;
    let (length_field, label) = behind_key.split_at(behind_key.len().min(4));
    let mut length = [0; 4];
    length
        .iter_mut()
        .zip(length_field)
        .for_each(|(to, from)| *to = *from);
    let length = usize::try_from(i32::from_le_bytes(length)).ok()?;
    if behind_key.len() + forgotten < 4 + length {
        return None;
    }
    Some((key, Text(label.get(..length).unwrap_or(label))))
}

fn decode_reject_image(fields: Fields<'_>) -> Option<Command<'_>> {
    if fields.0.len() < REJECT_IMAGE_MIN_LENGTH {
        return None;
    }
    Some(Command::RejectImage {
        image_correlation_id: CorrelationId(fields.i64(16)?),
        position: fields.i64(24)?,
        reason: fields.text(32)?,
    })
}
