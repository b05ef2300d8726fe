//! Responses from driver to clients: type ids and layouts (spec 8). Every response reaches every client; the receiver
//! filters by id.

#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::codec::{Fields, Writer};
use super::error_code::ErrorCode;
use super::text::Text;
use crate::bits::align;
use crate::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId};

/// Type ids of responses in the to-clients broadcast (spec 8.1).
#[allow(
    missing_docs,
    reason = "the names are those of the protocol and of the variants of `Response`"
)]
pub mod type_id {
    pub const ON_ERROR: i32 = 0x0F01;
    pub const ON_AVAILABLE_IMAGE: i32 = 0x0F02;
    pub const ON_PUBLICATION_READY: i32 = 0x0F03;
    pub const ON_OPERATION_SUCCESS: i32 = 0x0F04;
    pub const ON_UNAVAILABLE_IMAGE: i32 = 0x0F05;
    pub const ON_EXCLUSIVE_PUBLICATION_READY: i32 = 0x0F06;
    pub const ON_SUBSCRIPTION_READY: i32 = 0x0F07;
    pub const ON_COUNTER_READY: i32 = 0x0F08;
    pub const ON_UNAVAILABLE_COUNTER: i32 = 0x0F09;
    pub const ON_CLIENT_TIMEOUT: i32 = 0x0F0A;
    pub const ON_STATIC_COUNTER: i32 = 0x0F0B;
    pub const ON_PUBLICATION_ERROR: i32 = 0x0F0C;
    pub const ON_NEXT_AVAILABLE_SESSION_ID: i32 = 0x0F0D;
}

/// C clients refuse a shorter ON_PUBLICATION_ERROR.
const PUBLICATION_ERROR_MIN_LENGTH: usize = 72;

const ADDRESS_UNKNOWN: i16 = 0;
const ADDRESS_IPV4: i16 = 1;
const ADDRESS_IPV6: i16 = 2;

/// The fields of [`Response::PublicationReady`] and [`Response::ExclusivePublicationReady`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicationReady<'a> {
    /// Of the add; the registration id of this client's handle.
    pub correlation_id: CorrelationId,
    /// Of the first add of the log; differs from the correlation id when the log is shared.
    pub original_registration_id: RegistrationId,
    /// Session of the log.
    pub session_id: SessionId,
    /// Stream of the log.
    pub stream_id: StreamId,
    /// Counter the producer may publish up to.
    pub position_limit_counter_id: CounterId,
    /// Status of the channel; [`CounterId::NONE`] for IPC.
    pub channel_status_counter_id: CounterId,
    /// Log file to map.
    pub log_path: Text<'a>,
}

/// The fields of [`Response::AvailableImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvailableImage<'a> {
    /// Names the image; for IPC and spies the registration id of the publication.
    pub image_correlation_id: CorrelationId,
    /// Session of the image.
    pub session_id: SessionId,
    /// Stream of the image.
    pub stream_id: StreamId,
    /// The subscription that gets the image.
    pub subscription_registration_id: RegistrationId,
    /// Where the subscriber tells its position.
    pub subscriber_position_counter_id: CounterId,
    /// Log file to map.
    pub log_path: Text<'a>,
    /// `host:port`, or `aeron:ipc` for IPC and spies.
    pub source_identity: Text<'a>,
}

/// The fields of [`Response::UnavailableImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnavailableImage<'a> {
    /// Names the image.
    pub image_correlation_id: CorrelationId,
    /// The subscription that loses the image.
    pub subscription_registration_id: RegistrationId,
    /// Stream of the image.
    pub stream_id: StreamId,
    /// For people only; do not match on it.
    pub channel: Text<'a>,
}

/// The fields of [`Response::PublicationError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicationError<'a> {
    /// Original registration id of the publication.
    pub registration_id: RegistrationId,
    /// The destination concerned; -1 for none.
    pub destination_registration_id: RegistrationId,
    /// Session of the publication.
    pub session_id: SessionId,
    /// Stream of the publication.
    pub stream_id: StreamId,
    /// The receiver that complained; -1 for IPC.
    pub receiver_id: i64,
    /// Its group tag; -1 for none.
    pub group_tag: i64,
    /// Where the complaint came from, if known.
    pub source: Option<SocketAddr>,
    /// What is wrong.
    pub error_code: ErrorCode,
    /// The reason given.
    pub message: Text<'a>,
}

/// What the driver tells its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// A command failed. For [`ErrorCode::ChannelEndpointError`] (legacy) the id is a channel status counter id.
    Error {
        /// Of the failed command.
        correlation_id: CorrelationId,
        /// Why.
        error_code: ErrorCode,
        /// For people only.
        message: Text<'a>,
    },
    /// A source matches a subscription.
    AvailableImage(AvailableImage<'a>),
    /// A publication was added.
    PublicationReady(PublicationReady<'a>),
    /// A command without a result succeeded.
    OperationSuccess {
        /// Of the command.
        correlation_id: CorrelationId,
    },
    /// An image is gone.
    UnavailableImage(UnavailableImage<'a>),
    /// An exclusive publication was added.
    ExclusivePublicationReady(PublicationReady<'a>),
    /// A subscription was added.
    SubscriptionReady {
        /// Of the add; the registration id of the subscription.
        correlation_id: CorrelationId,
        /// Status of the channel; [`CounterId::NONE`] for IPC and spies.
        channel_status_counter_id: CounterId,
    },
    /// A counter exists now.
    CounterReady {
        /// Correlation id of the add; the client id for heartbeat counters.
        registration_id: RegistrationId,
        /// The counter.
        counter_id: CounterId,
    },
    /// A counter is gone.
    UnavailableCounter {
        /// Correlation id of the add; the client id for heartbeat counters.
        registration_id: RegistrationId,
        /// The counter.
        counter_id: CounterId,
    },
    /// The driver gave a client up; fatal for that client.
    ClientTimeout {
        /// The client.
        client_id: ClientId,
    },
    /// A static counter was found or added.
    StaticCounter {
        /// Of the add.
        correlation_id: CorrelationId,
        /// The counter.
        counter_id: CounterId,
    },
    /// A receiver complained about a publication.
    PublicationError(PublicationError<'a>),
    /// A session id that was free when asked for.
    NextAvailableSessionId {
        /// Of the command.
        correlation_id: CorrelationId,
        /// The id.
        session_id: SessionId,
    },
}

/// Why a message of the broadcast is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// Too short for its fields, or a length field that is negative or points past the end.
    #[error("malformed response of type {type_id:#06x} with length {length}")]
    Malformed {
        /// Type id of the record.
        type_id: i32,
        /// Bytes in the record.
        length: usize,
    },
    /// A type this version does not know; to be ignored.
    #[error("unknown response of type {type_id:#06x}")]
    Unknown {
        /// Type id of the record.
        type_id: i32,
    },
}

impl<'a> Response<'a> {
    /// Reads a record of the to-clients broadcast.
    ///
    /// # Errors
    /// [`ResponseError::Unknown`] for an unknown type, [`ResponseError::Malformed`] if the fields do not fit.
    pub fn decode(type_id: i32, payload: &'a [u8]) -> Result<Response<'a>, ResponseError> {
        if !(type_id::ON_ERROR..=type_id::ON_NEXT_AVAILABLE_SESSION_ID).contains(&type_id) {
            return Err(ResponseError::Unknown { type_id });
        }
        decode_fields(type_id, Fields(payload)).ok_or(ResponseError::Malformed {
            type_id,
            length: payload.len(),
        })
    }

    /// The type id of the record that carries this response.
    #[must_use]
    pub const fn type_id(&self) -> i32 {
        match self {
            Response::Error { .. } => type_id::ON_ERROR,
            Response::AvailableImage(_) => type_id::ON_AVAILABLE_IMAGE,
            Response::PublicationReady(_) => type_id::ON_PUBLICATION_READY,
            Response::OperationSuccess { .. } => type_id::ON_OPERATION_SUCCESS,
            Response::UnavailableImage(_) => type_id::ON_UNAVAILABLE_IMAGE,
            Response::ExclusivePublicationReady(_) => type_id::ON_EXCLUSIVE_PUBLICATION_READY,
            Response::SubscriptionReady { .. } => type_id::ON_SUBSCRIPTION_READY,
            Response::CounterReady { .. } => type_id::ON_COUNTER_READY,
            Response::UnavailableCounter { .. } => type_id::ON_UNAVAILABLE_COUNTER,
            Response::ClientTimeout { .. } => type_id::ON_CLIENT_TIMEOUT,
            Response::StaticCounter { .. } => type_id::ON_STATIC_COUNTER,
            Response::PublicationError(_) => type_id::ON_PUBLICATION_ERROR,
            Response::NextAvailableSessionId { .. } => type_id::ON_NEXT_AVAILABLE_SESSION_ID,
        }
    }

    /// Replaces the contents of `out` by the payload of the record, and returns the record's type id. Allocates only
    /// if `out` has to grow.
    pub fn encode(&self, out: &mut Vec<u8>) -> i32 {
        let writer = Writer::new(out);
        match *self {
            Response::Error {
                correlation_id,
                error_code,
                message,
            } => {
                writer
                    .i64(correlation_id.get())
                    .i32(error_code.get())
                    .text(message);
            }
            Response::AvailableImage(ref image) => encode_available_image(image, writer),
            Response::PublicationReady(ref ready) | Response::ExclusivePublicationReady(ref ready) => {
                encode_publication_ready(ready, writer);
            }
            Response::OperationSuccess { correlation_id } => {
                writer.i64(correlation_id.get());
            }
            Response::UnavailableImage(ref image) => {
                writer
                    .i64(image.image_correlation_id.get())
                    .i64(image.subscription_registration_id.get())
                    .i32(image.stream_id.get())
                    .text(image.channel);
            }
            Response::SubscriptionReady {
                correlation_id,
                channel_status_counter_id: counter_id,
            }
            | Response::StaticCounter {
                correlation_id,
                counter_id,
            } => {
                writer.i64(correlation_id.get()).i32(counter_id.get());
            }
            Response::CounterReady {
                registration_id,
                counter_id,
            }
            | Response::UnavailableCounter {
                registration_id,
                counter_id,
            } => {
                writer.i64(registration_id.get()).i32(counter_id.get());
            }
            Response::ClientTimeout { client_id } => {
                writer.i64(client_id.get());
            }
            Response::PublicationError(ref error) => encode_publication_error(error, writer),
            Response::NextAvailableSessionId {
                correlation_id,
                session_id,
            } => {
                writer.i64(correlation_id.get()).i32(session_id.get());
            }
        }
        self.type_id()
    }
}

fn encode_available_image(image: &AvailableImage<'_>, writer: Writer<'_>) {
    writer
        .i64(image.image_correlation_id.get())
        .i32(image.session_id.get())
        .i32(image.stream_id.get())
        .i64(image.subscription_registration_id.get())
        .i32(image.subscriber_position_counter_id.get())
        .text(image.log_path)
        .align4()
        .text(image.source_identity);
}

fn encode_publication_ready(ready: &PublicationReady<'_>, writer: Writer<'_>) {
    writer
        .i64(ready.correlation_id.get())
        .i64(ready.original_registration_id.get())
        .i32(ready.session_id.get())
        .i32(ready.stream_id.get())
        .i32(ready.position_limit_counter_id.get())
        .i32(ready.channel_status_counter_id.get())
        .text(ready.log_path);
}

fn encode_publication_error(error: &PublicationError<'_>, writer: Writer<'_>) {
    let (kind, port, address) = encode_address(error.source);
    writer
        .i64(error.registration_id.get())
        .i64(error.destination_registration_id.get())
        .i32(error.session_id.get())
        .i32(error.stream_id.get())
        .i64(error.receiver_id)
        .i64(error.group_tag)
        .i16(kind)
        .u16(port)
        .u8s(&address)
        .i32(error.error_code.get())
        .text(error.message)
        .at_least(PUBLICATION_ERROR_MIN_LENGTH);
}

fn encode_address(source: Option<SocketAddr>) -> (i16, u16, [u8; 16]) {
    let mut bytes = [0; 16];
    let Some(source) = source else {
        return (ADDRESS_UNKNOWN, 0, bytes);
    };
    let kind = match source.ip() {
        IpAddr::V4(ip) => {
            for (byte, octet) in bytes.iter_mut().zip(ip.octets()) {
                *byte = octet;
            }
            ADDRESS_IPV4
        }
        IpAddr::V6(ip) => {
            bytes = ip.octets();
            ADDRESS_IPV6
        }
    };
    (kind, source.port(), bytes)
}

fn decode_address(kind: i16, port: u16, bytes: [u8; 16]) -> Option<SocketAddr> {
    let ip = match kind {
        ADDRESS_IPV4 => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        ADDRESS_IPV6 => IpAddr::V6(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn decode_fields(type_id: i32, fields: Fields<'_>) -> Option<Response<'_>> {
    let first = fields.i64(0)?;
    let correlation_id = CorrelationId(first);
    Some(match type_id {
        type_id::ON_ERROR => Response::Error {
            correlation_id,
            error_code: ErrorCode::from_i32(fields.i32(8)?),
            message: fields.text(12)?,
        },
        type_id::ON_AVAILABLE_IMAGE => Response::AvailableImage(decode_available_image(fields)?),
        type_id::ON_PUBLICATION_READY => Response::PublicationReady(decode_publication_ready(fields)?),
        type_id::ON_OPERATION_SUCCESS => Response::OperationSuccess { correlation_id },
        type_id::ON_UNAVAILABLE_IMAGE => Response::UnavailableImage(UnavailableImage {
            image_correlation_id: correlation_id,
            subscription_registration_id: RegistrationId(fields.i64(8)?),
            stream_id: StreamId(fields.i32(16)?),
            channel: fields.text(20)?,
        }),
        type_id::ON_EXCLUSIVE_PUBLICATION_READY => {
            Response::ExclusivePublicationReady(decode_publication_ready(fields)?)
        }
        type_id::ON_SUBSCRIPTION_READY => Response::SubscriptionReady {
            correlation_id,
            channel_status_counter_id: CounterId(fields.i32(8)?),
        },
        type_id::ON_COUNTER_READY => Response::CounterReady {
            registration_id: RegistrationId(first),
            counter_id: CounterId(fields.i32(8)?),
        },
        type_id::ON_UNAVAILABLE_COUNTER => Response::UnavailableCounter {
            registration_id: RegistrationId(first),
            counter_id: CounterId(fields.i32(8)?),
        },
        type_id::ON_CLIENT_TIMEOUT => Response::ClientTimeout {
            client_id: ClientId(first),
        },
        type_id::ON_STATIC_COUNTER => Response::StaticCounter {
            correlation_id,
            counter_id: CounterId(fields.i32(8)?),
        },
        type_id::ON_PUBLICATION_ERROR => Response::PublicationError(decode_publication_error(fields)?),
        type_id::ON_NEXT_AVAILABLE_SESSION_ID => Response::NextAvailableSessionId {
            correlation_id,
            session_id: SessionId(fields.i32(8)?),
        },
        _ => return None,
    })
}

fn decode_available_image(fields: Fields<'_>) -> Option<AvailableImage<'_>> {
    let log_path = fields.text(28)?;
    let source_offset = 32 + align(log_path.len(), 4);
    Some(AvailableImage {
        image_correlation_id: CorrelationId(fields.i64(0)?),
        session_id: SessionId(fields.i32(8)?),
        stream_id: StreamId(fields.i32(12)?),
        subscription_registration_id: RegistrationId(fields.i64(16)?),
        subscriber_position_counter_id: CounterId(fields.i32(24)?),
        log_path,
        source_identity: fields.text(source_offset)?,
    })
}

fn decode_publication_ready(fields: Fields<'_>) -> Option<PublicationReady<'_>> {
    Some(PublicationReady {
        correlation_id: CorrelationId(fields.i64(0)?),
        original_registration_id: RegistrationId(fields.i64(8)?),
        session_id: SessionId(fields.i32(16)?),
        stream_id: StreamId(fields.i32(20)?),
        position_limit_counter_id: CounterId(fields.i32(24)?),
        channel_status_counter_id: CounterId(fields.i32(28)?),
        log_path: fields.text(32)?,
    })
}

fn decode_publication_error(fields: Fields<'_>) -> Option<PublicationError<'_>> {
    Some(PublicationError {
        registration_id: RegistrationId(fields.i64(0)?),
        destination_registration_id: RegistrationId(fields.i64(8)?),
        session_id: SessionId(fields.i32(16)?),
        stream_id: StreamId(fields.i32(20)?),
        receiver_id: fields.i64(24)?,
        group_tag: fields.i64(32)?,
        source: decode_address(fields.i16(40)?, fields.u16(42)?, fields.bytes16(44)?),
        error_code: ErrorCode::from_i32(fields.i32(60)?),
        message: fields.text(64)?,
    })
}
