//! Receive channel endpoints: one for each canonical channel or tag, shared by the subscriptions on it (wire-protocol
//! 8.2). An endpoint under manual control has no socket of its own but one for each receive destination. The sockets are
//! opened here, belong to the receiver while they are in use, and come back to be closed.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::id::{CorrelationId, RegistrationId, SessionId, StreamId};

use super::agent::Conductor;
use super::endpoints::{
    BufferLengths, RECEIVE, StatusCounter, allocate_address, allocate_status, check_open, find_shared,
    interface_of, open_failure, with_port,
};
use super::services::CommandFailure;
use super::subscriptions::{LinkKind, SubscriptionLink};
use crate::commands::{EndpointCommand, EndpointId, ReceiverCommand, TransportId};
use crate::config::SubscriptionParams;
use crate::io::{Join, SocketRole, SocketSpec};
use crate::media::receive_destination::{DestinationParts, ReceiveDestination};
use crate::media::receive_endpoint::{ReceiveEndpoint, ReceiveEndpointParts};
use crate::media::receive_timestamps::ReceiveTimestamps;
use crate::media::udp_channel::UdpChannel;
use crate::protocol::connections::FeedbackRule;
use crate::protocol::source_proof::SourceProofs;

/// A socket of a receive endpoint.
#[derive(Debug)]
pub(super) struct TransportRecord {
    pub(super) id: TransportId,
    /// The channel of the destination; that of the endpoint for its own socket.
    pub(super) channel: UdpChannel,
    pub(super) address: StatusCounter,
    /// The port that was claimed for it.
    pub(super) port: u16,
    pub(super) is_closing: bool,
}

/// A receive channel endpoint.
#[derive(Debug)]
pub(super) struct ReceiveEndpointRecord {
    pub(super) id: EndpointId,
    pub(super) channel: UdpChannel,
    /// Where its own socket is bound, or would be.
    local: SocketAddr,
    /// Parameters of the first subscription.
    pub(super) params: SubscriptionParams,
    pub(super) buffers: BufferLengths,
    /// What the receiver calls itself in status messages of this endpoint.
    pub(super) receiver_id: i64,
    pub(super) status: StatusCounter,
    pub(super) transports: Vec<TransportRecord>,
    pub(super) is_closing: bool,
}

impl Conductor {
    pub(super) fn receive_endpoint(&self, id: EndpointId) -> Option<&ReceiveEndpointRecord> {
        self.receive_endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    fn receive_endpoint_mut(&mut self, id: EndpointId) -> Option<&mut ReceiveEndpointRecord> {
        self.receive_endpoints
            .iter_mut()
            .find(|endpoint| endpoint.id == id)
    }

    /// The endpoint of a channel: by its tag, by its canonical form, else a new one.
    pub(super) fn receive_endpoint_for(
        &mut self,
        correlation_id: CorrelationId,
        channel: UdpChannel,
        params: &SubscriptionParams,
    ) -> Result<EndpointId, CommandFailure> {
        let existing = self
            .receive_endpoints
            .iter()
            .map(|endpoint| (&endpoint.channel, endpoint.local));
        if let Some(index) = find_shared(existing, &channel)? {
            let endpoint = &self.receive_endpoints[index];
            check_open(endpoint.is_closing, &channel)?;
            endpoint.buffers.check(&channel)?;
            endpoint.check_window(params, &channel, self.os_buffers.default_receive_length)?;
            return Ok(endpoint.id);
        }
        // A subscription that consists of a tag may come first; it listens at a port of the system's choice.
        check_window_fits(
            params,
            &channel,
            params.socket_rcvbuf_length,
            self.os_buffers.default_receive_length,
        )?;
        self.open_receive_endpoint(correlation_id, channel, params)
    }

    fn open_receive_endpoint(
        &mut self,
        correlation_id: CorrelationId,
        channel: UdpChannel,
        params: &SubscriptionParams,
    ) -> Result<EndpointId, CommandFailure> {
        let text = channel.spec.uri.as_str().to_owned();
        let buffers = BufferLengths {
            send: params.socket_sndbuf_length,
            receive: params.socket_rcvbuf_length,
        };
        let own = if channel.is_manual() {
            None
        } else {
            Some(self.open_transport(TransportId::OWN, &channel, buffers, params)?)
        };
        let local = own.as_ref().map(|(transport, _)| transport.local_address());
        let port = own.as_ref().map(|(_, port)| *port);
        let shown = local.map(|local| local.to_string()).unwrap_or_default();
        let counters =
            allocate_status(&mut self.services, &RECEIVE, correlation_id, &text, &shown).and_then(|status| {
                let Some(port) = port else {
                    return Ok((status, None));
                };
                let address = allocate_address(
                    &mut self.services,
                    &RECEIVE,
                    correlation_id.into(),
                    status.id,
                    &shown,
                );
                match address {
                    Ok(address) => Ok((status, Some((address, port)))),
                    Err(failure) => {
                        self.services.free_counter(status.id);
                        Err(failure)
                    }
                }
            });
        let (status, address) = match counters {
            Ok(counters) => counters,
            Err(failure) => {
                if let Some(port) = port {
                    self.receiver_ports.release(port);
                }
                return Err(failure);
            }
        };
        let id = self.next_endpoint_id();
        let receiver_id = self.next_receiver_id();
        let now = self.services.now.nanos;
        let proofs = self
            .context
            .receiver_source_check
            .then(|| SourceProofs::new(self.proof_secret, now));
        let endpoint = ReceiveEndpoint::new(
            ReceiveEndpointParts {
                proofs,
                id,
                receiver_id,
                group_tag: params.group_tag,
                transport: own.map(|(transport, _)| transport),
                session_limit: self.context.driver_stream_session_limit as usize,
                timestamps: ReceiveTimestamps {
                    media: params.media_receive_timestamp,
                    channel: params.channel_receive_timestamp,
                },
            },
            self.services.now.nanos,
        );
        let transports = address
            .map(|(address, port)| TransportRecord {
                id: TransportId::OWN,
                channel: channel.clone(),
                address,
                port,
                is_closing: false,
            })
            .into_iter()
            .collect();
        self.receive_endpoints.push(ReceiveEndpointRecord {
            id,
            local: local.unwrap_or(channel.receive_bind_address()),
            channel,
            params: params.clone(),
            buffers,
            receiver_id,
            status,
            transports,
            is_closing: false,
        });
        self.receiver
            .send(ReceiverCommand::AddEndpoint(Box::new(endpoint)));
        Ok(id)
    }

    /// Opens a socket of a receive endpoint; also returns the port that was claimed for it.
    fn open_transport(
        &mut self,
        id: TransportId,
        channel: &UdpChannel,
        buffers: BufferLengths,
        params: &SubscriptionParams,
    ) -> Result<(ReceiveDestination, u16), CommandFailure> {
        let bind = channel.receive_bind_address();
        let port = self
            .receiver_ports
            .claim(bind.port())
            .map_err(|error| open_failure(channel, &error))?;
        let mut spec = SocketSpec::new(SocketRole::Receive, with_port(bind, port));
        spec.send_buffer = buffers.send as usize;
        spec.receive_buffer = buffers.receive as usize;
        spec.receive_timestamps =
            params.media_receive_timestamp.is_some() || params.channel_receive_timestamp.is_some();
        let mut ttl = None;
        if channel.is_multicast {
            let interface = interface_of(channel);
            ttl = self.multicast_ttl(channel);
            spec.reuse_address = true;
            spec.join = Some(Join {
                group: channel.remote_data,
                interface,
            });
            // Status messages go to the control group.
            spec.outgoing_interface = interface;
            spec.ttl = ttl;
        }
        let socket = match self.network.open(&spec) {
            Ok(socket) => socket,
            Err(error) => {
                self.receiver_ports.release(port);
                return Err(open_failure(channel, &error));
            }
        };
        let feedback = if channel.is_multicast {
            FeedbackRule::Group(channel.remote_control)
        } else if let Some(control) = channel.explicit_control {
            FeedbackRule::Control(Some(control))
        } else {
            FeedbackRule::Source
        };
        let control_name = channel
            .spec
            .control
            .as_ref()
            .filter(|control| control.literal().is_none())
            .map(|control| control.text.clone());
        let transport = ReceiveDestination::new(
            DestinationParts {
                id,
                feedback,
                socket,
                control_name,
                multicast_ttl: ttl.unwrap_or(0),
            },
            self.services.now.nanos,
        );
        Ok((transport, port))
    }

    /// Adds a socket to an endpoint under manual control.
    pub(super) fn add_transport(
        &mut self,
        endpoint_id: EndpointId,
        subscription: RegistrationId,
        channel: UdpChannel,
    ) -> Result<(), CommandFailure> {
        let Some(endpoint) = self.receive_endpoint(endpoint_id) else {
            return Ok(());
        };
        check_open(endpoint.is_closing, &channel)?;
        let (buffers, params, status) = (endpoint.buffers, endpoint.params.clone(), endpoint.status.id);
        // Never used again by any endpoint, so that the transport alone says where it belongs.
        self.last_transport += 1;
        let id = TransportId(self.last_transport);
        let (transport, port) = self.open_transport(id, &channel, buffers, &params)?;
        let local = transport.local_address().to_string();
        let address = match allocate_address(&mut self.services, &RECEIVE, subscription, status, &local) {
            Ok(address) => address,
            Err(failure) => {
                self.receiver_ports.release(port);
                return Err(failure);
            }
        };
        if let Some(endpoint) = self.receive_endpoint_mut(endpoint_id) {
            endpoint.transports.push(TransportRecord {
                id,
                channel,
                address,
                port,
                is_closing: false,
            });
        }
        self.receiver
            .send(EndpointCommand::AddDestination(Box::new(transport)).at(endpoint_id));
        Ok(())
    }

    /// Takes the socket away that a channel added to an endpoint under manual control, if there is one: that of the same
    /// text, else that of the same canonical form.
    pub(super) fn remove_transport(&mut self, endpoint_id: EndpointId, channel: &str, form: Option<&str>) {
        let Some(endpoint) = self.receive_endpoint_mut(endpoint_id) else {
            return;
        };
        let open = |transport: &TransportRecord| !transport.is_closing;
        let same_text = |transport: &TransportRecord| transport.channel.spec.uri.as_str() == channel;
        let same_form = |transport: &TransportRecord| form == Some(transport.channel.canonical_form.as_str());
        let transports = &mut endpoint.transports;
        let index = transports
            .iter()
            .position(|transport| open(transport) && same_text(transport))
            .or_else(|| {
                transports
                    .iter()
                    .position(|transport| open(transport) && same_form(transport))
            });
        if let Some(transport) = index.and_then(|index| transports.get_mut(index)) {
            transport.is_closing = true;
            transport.address.close();
            let transport = transport.id;
            self.receiver
                .send(EndpointCommand::RemoveDestination(transport).at(endpoint_id));
        }
    }

    /// The receiver gave a transport back: its socket is closed here.
    pub(super) fn on_destination_released(&mut self, destination: Box<ReceiveDestination>) {
        let id = destination.id();
        drop(destination);
        for endpoint in &mut self.receive_endpoints {
            let is_it = |transport: &TransportRecord| transport.id == id;
            if let Some(index) = endpoint.transports.iter().position(is_it) {
                let transport = endpoint.transports.remove(index);
                self.free_transport(&transport);
                return;
            }
        }
    }

    fn free_transport(&mut self, transport: &TransportRecord) {
        self.services.free_counter(transport.address.id);
        self.receiver_ports.release(transport.port);
    }

    /// Closes a receive endpoint that neither subscription nor image uses any more.
    pub(super) fn release_receive_endpoint(&mut self, id: EndpointId) {
        let is_used = self.links.iter().any(|link| link.kind == LinkKind::Network(id))
            || self.images.iter().any(|image| image.half.endpoint == id)
            || self.pending_images.iter().any(|image| image.endpoint == id);
        if is_used {
            return;
        }
        let Some(endpoint) = self.receive_endpoint_mut(id) else {
            return;
        };
        if !endpoint.is_closing {
            endpoint.is_closing = true;
            endpoint.status.close();
            for transport in &endpoint.transports {
                transport.address.close();
            }
            self.receiver.send(ReceiverCommand::RemoveEndpoint(id));
        }
    }

    /// The receiver gave an endpoint back: its sockets are closed here.
    pub(super) fn on_receive_endpoint_closed(&mut self, endpoint: Box<ReceiveEndpoint>) {
        let id = endpoint.id();
        drop(endpoint);
        if let Some(index) = self.receive_endpoints.iter().position(|record| record.id == id) {
            let record = self.receive_endpoints.remove(index);
            self.services.free_counter(record.status.id);
            for transport in &record.transports {
                self.free_transport(transport);
            }
        }
    }

    // Interest: which sessions of which streams the receiver takes

    /// A link came: the receiver is told unless another one wants the same already.
    pub(super) fn add_interest(&mut self, link: &SubscriptionLink) {
        if let Some((endpoint, stream_id, session_id)) = interest_of(link)
            && !self.has_interest(endpoint, stream_id, session_id)
        {
            self.receiver
                .send(EndpointCommand::AddSubscription(stream_id, session_id).at(endpoint));
        }
    }

    /// A link is gone: the receiver is told unless another one wants the same still.
    pub(super) fn remove_interest(&mut self, link: &SubscriptionLink) {
        if let Some((endpoint, stream_id, session_id)) = interest_of(link)
            && !self.has_interest(endpoint, stream_id, session_id)
        {
            self.receiver
                .send(EndpointCommand::RemoveSubscription(stream_id, session_id).at(endpoint));
        }
    }

    fn has_interest(&self, endpoint: EndpointId, stream_id: StreamId, session_id: Option<SessionId>) -> bool {
        self.links
            .iter()
            .any(|link| interest_of(link) == Some((endpoint, stream_id, session_id)))
    }
}

/// What the receiver has to take for a link; nothing for one end of a response channel whose session is not known yet.
fn interest_of(link: &SubscriptionLink) -> Option<(EndpointId, StreamId, Option<SessionId>)> {
    match link.kind {
        LinkKind::Network(endpoint) if !link.is_response || link.session_id.is_some() => {
            Some((endpoint, link.stream_id, link.session_id))
        }
        _ => None,
    }
}

/// Whether the window of a subscription fits into the receive buffer of its socket; 0 is the system's default, which may
/// be unknown.
fn check_window_fits(
    asked: &SubscriptionParams,
    channel: &UdpChannel,
    socket: i32,
    os_default: i32,
) -> Result<(), CommandFailure> {
    let room = if socket == 0 { os_default } else { socket };
    if room == 0 || asked.receiver_window_length <= room {
        return Ok(());
    }
    Err(CommandFailure::new(
        ErrorCode::GenericError,
        format!(
            "rcv-wnd={} is above so-rcvbuf={room} of the channel's socket: {}",
            asked.receiver_window_length, channel.spec.uri
        ),
    ))
}

impl ReceiveEndpointRecord {
    /// Whether a subscription with these parameters may use the socket: its window has to fit into the buffer.
    fn check_window(
        &self,
        asked: &SubscriptionParams,
        channel: &UdpChannel,
        os_default: i32,
    ) -> Result<(), CommandFailure> {
        check_window_fits(asked, channel, self.buffers.receive, os_default)?;
        let clash = if asked.media_receive_timestamp != self.params.media_receive_timestamp
            || asked.channel_receive_timestamp != self.params.channel_receive_timestamp
        {
            "the timestamp offsets clash with those of the channel's socket".to_owned()
        } else {
            return Ok(());
        };
        Err(CommandFailure::new(
            ErrorCode::GenericError,
            format!("{clash}: {}", channel.spec.uri),
        ))
    }
}
