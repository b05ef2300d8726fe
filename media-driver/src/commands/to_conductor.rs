//! Sender and receiver to conductor.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::id::RegistrationId;
use fulmar::wire::Setup;

use super::{EndpointId, TransportId};
use crate::media::receive_destination::ReceiveDestination;
use crate::media::receive_endpoint::ReceiveEndpoint;
use crate::protocol::connections::TransportRule;
use crate::stream::image_receiver::ImageReceiver;

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
    /// An image is wanted. Answered with [`super::ReceiverCommand::AddImage`] or
    /// [`super::ReceiverCommand::InitFailed`], in any case: until then the session is not looked at again.
    CreateImage(Box<SetupSeen>),
    /// Answers [`super::ReceiverCommand::RemoveEndpoint`].
    ReceiveEndpointClosed(Box<ReceiveEndpoint>),
    /// Answers [`super::ReceiverCommand::RemoveImage`], and [`super::ReceiverCommand::AddImage`] of a session that nobody
    /// wants any more.
    ImageReleased(Box<ImageReceiver>),
    /// Answers [`super::ReceiverCommand::RemoveDestination`], and [`super::ReceiverCommand::AddDestination`] to an
    /// endpoint that is gone.
    DestinationReleased(Box<ReceiveDestination>),
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
