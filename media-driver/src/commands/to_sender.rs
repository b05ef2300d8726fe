//! Conductor to sender.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::id::RegistrationId;

use super::EndpointId;
use crate::media::send_endpoint::SendEndpoint;
use crate::protocol::destinations::Destination;
use crate::stream::publication_sender::PublicationSender;

/// What the sender is told. Whatever is about an endpoint or publication that it does not have is ignored.
#[derive(Debug)]
pub enum SenderCommand {
    /// An endpoint to serve from now on.
    AddEndpoint(Box<SendEndpoint>),
    /// An endpoint to give back, with the publications it still has: answered with
    /// [`super::NetworkEvent::SendEndpointClosed`].
    RemoveEndpoint(EndpointId),
    /// A publication to send.
    AddPublication {
        /// Where.
        endpoint: EndpointId,
        /// The sender's half.
        publication: Box<PublicationSender>,
    },
    /// A publication to give back: answered with [`super::NetworkEvent::PublicationReleased`].
    RemovePublication {
        /// Where.
        endpoint: EndpointId,
        /// Which.
        registration_id: RegistrationId,
    },
    /// A destination of a manual multi-destination endpoint.
    AddDestination {
        /// Where.
        endpoint: EndpointId,
        /// The destination.
        destination: Box<Destination>,
    },
    /// A destination to send nothing to any more, by its channel.
    RemoveDestination {
        /// Where.
        endpoint: EndpointId,
        /// The channel it was added with,
        channel: String,
        /// or the address that one has.
        address: Option<SocketAddr>,
    },
    /// A destination to send nothing to any more, by the command that added it.
    RemoveDestinationById {
        /// Where.
        endpoint: EndpointId,
        /// The correlation id of that command.
        registration_id: RegistrationId,
    },
    /// A name was looked up again.
    Resolved {
        /// Where.
        endpoint: EndpointId,
        /// The destination it is of; the endpoint's own address otherwise.
        destination: Option<RegistrationId>,
        /// The name.
        name: String,
        /// What it means now.
        address: SocketAddr,
    },
}
