//! Sender and receiver to conductor.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::wire::Setup;

use super::{EndpointId, TransportId};
use crate::media::receive_destination::ReceiveDestination;
use crate::media::receive_endpoint::ReceiveEndpoint;
use crate::media::send_endpoint::SendEndpoint;
use crate::protocol::connections::TransportRule;
use crate::stream::image_receiver::ImageReceiver;
use crate::stream::publication_sender::{PublicationErrorReport, PublicationSender};

/// What an address that is to be looked up again belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveTarget {
    /// The endpoint of a unicast publication.
    SendEndpoint(EndpointId),
    /// A destination of a manual multi-destination publication.
    SendDestination {
        /// Its endpoint.
        endpoint: EndpointId,
        /// The command that added it.
        registration_id: RegistrationId,
    },
    /// The control address of a subscription's transport.
    ReceiveTransport {
        /// Its endpoint.
        endpoint: EndpointId,
        /// Which of its transports.
        transport: TransportId,
    },
}

/// A SETUP of a session that is wanted and has no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupSeen {
    /// Where it came in.
    pub endpoint: EndpointId,
    /// The transport it came through, and how that answers.
    pub transport: TransportRule,
    /// The SETUP; its fields are within their ranges, and its active term is not before the initial one.
    pub setup: Setup,
    /// Who sent it.
    pub source: SocketAddr,
}

/// What the network agents tell the conductor. Boxes travel back to be dropped off the network threads.
#[derive(Debug)]
pub enum NetworkEvent {
    /// An image is wanted. Answered with [`super::EndpointCommand::AddImage`] or
    /// [`super::EndpointCommand::InitFailed`], in any case: until then the session is not looked at again.
    CreateImage(Box<SetupSeen>),
    /// Answers [`super::ReceiverCommand::RemoveEndpoint`].
    ReceiveEndpointClosed(Box<ReceiveEndpoint>),
    /// Answers [`super::EndpointCommand::RemoveImage`], and [`super::EndpointCommand::AddImage`] of a session that nobody
    /// wants any more.
    ImageReleased(Box<ImageReceiver>),
    /// Answers [`super::EndpointCommand::RemoveDestination`], and [`super::EndpointCommand::AddDestination`] to an
    /// endpoint that is gone.
    DestinationReleased(Box<ReceiveDestination>),
    /// Answers [`super::SenderCommand::RemoveEndpoint`].
    SendEndpointClosed(Box<SendEndpoint>),
    /// Answers [`super::SenderCommand::RemovePublication`].
    PublicationReleased(Box<PublicationSender>),
    /// A receiver of a publication that has a response correlation id announced its response session (wire protocol 7
    /// step 5).
    ResponseSetup {
        /// The request publication.
        registration_id: RegistrationId,
        /// Its response correlation id: the response subscription.
        response_correlation_id: i64,
        /// The session of the response publication.
        response_session_id: SessionId,
    },
    /// A response publication got its first receiver (wire protocol 7 step 7).
    ResponseConnected {
        /// The response publication.
        registration_id: RegistrationId,
        /// Its response correlation id: the request image.
        response_correlation_id: i64,
        /// Stream of the response publication.
        stream_id: StreamId,
        /// Session of the response publication.
        session_id: SessionId,
    },
    /// A receiver refused a publication.
    PublicationError(Box<PublicationErrorReport>),
    /// Nobody was heard at an address for a while: its name may mean another one now.
    ReResolve {
        /// Whose address.
        target: ResolveTarget,
        /// `host:port`.
        name: String,
    },
    /// Something for the error log.
    Error {
        /// Its code.
        code: ErrorCode,
        /// What it is counted under, whatever numbers the text holds.
        key: &'static str,
        /// In words.
        text: String,
    },
}
