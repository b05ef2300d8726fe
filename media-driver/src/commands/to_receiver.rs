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
    /// Sessions to take.
    AddSubscription {
        /// Where.
        endpoint: EndpointId,
        /// The stream.
        stream_id: StreamId,
        /// The only session; `None` for all.
        session_id: Option<SessionId>,
    },
    /// Sessions to take no longer. The conductor keeps count: this comes with the last subscription of its kind.
    RemoveSubscription {
        /// Where.
        endpoint: EndpointId,
        /// The stream.
        stream_id: StreamId,
        /// The session; `None` for the subscription to all.
        session_id: Option<SessionId>,
    },
    /// The image that a [`super::NetworkEvent::CreateImage`] asked for.
    AddImage {
        /// Where.
        endpoint: EndpointId,
        /// The receiver's half.
        image: Box<ImageReceiver>,
    },
    /// An image to give back: answered with [`super::NetworkEvent::ImageReleased`]. Unless its stream ended, data of its
    /// session is ignored until [`Self::RemoveCoolDown`].
    RemoveImage {
        /// Where.
        endpoint: EndpointId,
        /// Which.
        correlation_id: RegistrationId,
    },
    /// A session whose image went away may be taken again.
    RemoveCoolDown {
        /// Where.
        endpoint: EndpointId,
        /// The session.
        session_id: SessionId,
        /// Its stream.
        stream_id: StreamId,
    },
    /// The image that was asked for will not come: the next SETUP may ask again.
    InitFailed {
        /// Where.
        endpoint: EndpointId,
        /// The session.
        session_id: SessionId,
        /// Its stream.
        stream_id: StreamId,
    },
    /// A source of a subscription under manual control.
    AddDestination {
        /// Where.
        endpoint: EndpointId,
        /// The source, with its socket.
        destination: Box<ReceiveDestination>,
    },
    /// A source to give back: answered with [`super::NetworkEvent::DestinationReleased`].
    RemoveDestination {
        /// Where.
        endpoint: EndpointId,
        /// Which.
        transport: TransportId,
    },
    /// Asks the control address of a response channel for the SETUP of its session (wire protocol 7 step 5).
    RequestSetup {
        /// Where.
        endpoint: EndpointId,
        /// The stream.
        stream_id: StreamId,
        /// The session.
        session_id: SessionId,
    },
    /// The name of an explicit control address was looked up again.
    Resolved {
        /// Where.
        endpoint: EndpointId,
        /// Which transport's.
        transport: TransportId,
        /// What it means now.
        address: SocketAddr,
    },
}
