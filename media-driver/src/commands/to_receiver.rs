//! Conductor to receiver.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::id::{RegistrationId, SessionId, StreamId};

use super::{EndpointId, TransportId};
use crate::media::receive_destination::ReceiveDestination;
use crate::media::receive_endpoint::ReceiveEndpoint;
use crate::stream::image_receiver::ImageReceiver;

/// What the receiver is told. Whatever is about an endpoint, transport or image that it does not have is ignored;
/// boxes that find no place are given back like those that are removed.
#[derive(Debug)]
pub enum ReceiverCommand {
    /// An endpoint to serve from now on.
    AddEndpoint(Box<ReceiveEndpoint>),
    /// An endpoint to give back: answered with [`super::NetworkEvent::ReceiveEndpointClosed`]. Images that it still has
    /// travel inside it.
    RemoveEndpoint(EndpointId),
    /// Something for one endpoint.
    ToEndpoint(EndpointId, EndpointCommand),
}

/// What an endpoint of the receiver is told.
#[derive(Debug)]
pub enum EndpointCommand {
    /// Sessions of a stream to take: the only one, or `None` for all.
    AddSubscription(StreamId, Option<SessionId>),
    /// Sessions to take no longer. The conductor keeps count: this comes with the last subscription of its kind.
    RemoveSubscription(StreamId, Option<SessionId>),
    /// The image that a [`super::NetworkEvent::CreateImage`] asked for: its receiver's half.
    AddImage(Box<ImageReceiver>),
    /// The correlation id of an image to give back: answered with [`super::NetworkEvent::ImageReleased`]. Unless its
    /// stream ended, data of its session is ignored until [`Self::RemoveCoolDown`].
    RemoveImage(RegistrationId),
    /// A session whose image went away may be taken again.
    RemoveCoolDown(StreamId, SessionId),
    /// The image that was asked for will not come: the next SETUP may ask again.
    InitFailed(StreamId, SessionId),
    /// A source of a subscription under manual control, with its socket.
    AddDestination(Box<ReceiveDestination>),
    /// A source to give back: answered with [`super::NetworkEvent::DestinationReleased`].
    RemoveDestination(TransportId),
    /// Asks the control address of a response channel for the SETUP of its session (wire protocol 7 step 5).
    RequestSetup(StreamId, SessionId),
    /// The name of a transport's explicit control address was looked up again, and means this now.
    Resolved(TransportId, SocketAddr),
}

impl EndpointCommand {
    /// Addressed to an endpoint.
    #[must_use]
    pub fn at(self, endpoint: EndpointId) -> ReceiverCommand {
        ReceiverCommand::ToEndpoint(endpoint, self)
    }
}
