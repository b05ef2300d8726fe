//! Send channel endpoints: one for each canonical channel or tag, shared by the publications on it (wire-protocol 8.2).
//! The sockets are opened here, belong to the sender while they are in use, and come back to be closed.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use fulmar::control::ErrorCode;
use fulmar::counters::{label, type_id};
use fulmar::id::{CorrelationId, CounterId};

use super::agent::Conductor;
use super::endpoints::{
    BufferLengths, SEND, StatusCounter, allocate_address, allocate_status, check_addressed, check_open,
    find_shared, interface_of, open_failure, with_port,
};
use super::services::{CommandFailure, CounterSpec};
use crate::commands::{EndpointId, SenderCommand};
use crate::io::{IoError, Join, SocketRole, SocketSpec, UdpSocket};
use crate::media::send_endpoint::{Addressing, SendEndpoint, SendEndpointParts};
use crate::media::udp_channel::UdpChannel;
use crate::protocol::destinations::{DestinationMode, Destinations};

/// A send channel endpoint.
#[derive(Debug)]
pub(super) struct SendEndpointRecord {
    pub(super) id: EndpointId,
    pub(super) channel: UdpChannel,
    /// Where its socket is bound.
    pub(super) local: SocketAddr,
    pub(super) buffers: BufferLengths,
    pub(super) status: StatusCounter,
    pub(super) address: StatusCounter,
    /// Number of destinations, for multi-destination channels.
    pub(super) destinations: Option<CounterId>,
    /// The port that was claimed for it, if one was.
    claimed_port: Option<u16>,
    pub(super) is_closing: bool,
}

impl Conductor {
    pub(super) fn next_endpoint_id(&mut self) -> EndpointId {
        self.last_endpoint += 1;
        EndpointId(self.last_endpoint)
    }

    pub(super) fn send_endpoint(&self, id: EndpointId) -> Option<&SendEndpointRecord> {
        self.send_endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// The endpoint of a channel: by its tag, by its canonical form, else a new one.
    pub(super) fn send_endpoint_for(
        &mut self,
        correlation_id: CorrelationId,
        channel: UdpChannel,
        buffers: BufferLengths,
    ) -> Result<EndpointId, CommandFailure> {
        let existing = self
            .send_endpoints
            .iter()
            .map(|endpoint| (&endpoint.channel, endpoint.local));
        if let Some(index) = find_shared(existing, &channel)? {
            let endpoint = &self.send_endpoints[index];
            check_open(endpoint.is_closing, &channel)?;
            endpoint.buffers.check(&channel)?;
            check_send_timestamps(&endpoint.channel, &channel)?;
            return Ok(endpoint.id);
        }
        check_addressed(&channel)?;
        self.open_send_endpoint(correlation_id, channel, buffers)
    }

    fn open_send_endpoint(
        &mut self,
        correlation_id: CorrelationId,
        channel: UdpChannel,
        buffers: BufferLengths,
    ) -> Result<EndpointId, CommandFailure> {
        let now = self.services.now.nanos;
        let text = channel.spec.uri.as_str().to_owned();
        let bind = channel.send_bind_address();
        // Without a control address the range is not asked, and nothing is given back to it.
        let claimed = if channel.explicit_control.is_some() {
            let port = self
                .sender_ports
                .claim(bind.port())
                .map_err(|error| open_failure(&channel, &error))?;
            Some(port)
        } else {
            None
        };
        let bind = with_port(bind, claimed.unwrap_or(bind.port()));
        let sockets = self.open_send_sockets(&channel, bind, buffers);
        let (socket, control_socket) = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                self.release_sender_port(claimed);
                return Err(open_failure(&channel, &error));
            }
        };
        let local = socket.local_address();
        let counters = self.allocate_send_counters(correlation_id, &channel, &text, local);
        let (status, address, destinations) = match counters {
            Ok(counters) => counters,
            Err(failure) => {
                self.release_sender_port(claimed);
                return Err(failure);
            }
        };
        let id = self.next_endpoint_id();
        let destination = channel.unicast_destination();
        let addressing = if channel.is_multicast {
            Addressing::Connected
        } else if channel.is_manual() {
            Addressing::Destinations(Destinations::new(DestinationMode::Manual, now))
        } else if channel.is_dynamic() {
            Addressing::Destinations(Destinations::new(DestinationMode::Dynamic, now))
        } else if let Some(destination) = destination {
            if self.context.driver_connect {
                Addressing::Connected
            } else {
                Addressing::To(destination)
            }
        } else {
            Addressing::Response
        };
        let name = channel
            .spec
            .endpoint
            .as_ref()
            .filter(|endpoint| destination.is_some() && endpoint.literal().is_none())
            .map(|endpoint| endpoint.text.clone());
        let endpoint = SendEndpoint::new(
            SendEndpointParts {
                id,
                channel: text,
                socket,
                control_socket,
                addressing,
                name,
                address: destination,
                destinations_counter: destinations.map(|id| self.services.counter(id)),
                system: Arc::clone(&self.network_counters),
            },
            now,
        );
        self.send_endpoints.push(SendEndpointRecord {
            id,
            channel,
            local,
            buffers,
            status,
            address,
            destinations,
            claimed_port: claimed,
            is_closing: false,
        });
        self.sender.send(SenderCommand::AddEndpoint(Box::new(endpoint)));
        Ok(id)
    }

    fn release_sender_port(&mut self, claimed: Option<u16>) {
        if let Some(port) = claimed {
            self.sender_ports.release(port);
        }
    }

    /// The socket that sends, and for multicast one that listens to the control group.
    #[expect(clippy::type_complexity, reason = "a pair of sockets, taken apart at once")]
    fn open_send_sockets(
        &self,
        channel: &UdpChannel,
        bind: SocketAddr,
        buffers: BufferLengths,
    ) -> Result<(Box<dyn UdpSocket>, Option<Box<dyn UdpSocket>>), IoError> {
        let mut spec = SocketSpec::new(SocketRole::Send, bind);
        spec.send_buffer = buffers.send as usize;
        spec.receive_buffer = buffers.receive as usize;
        if !channel.is_multicast {
            spec.connect = channel
                .unicast_destination()
                .filter(|_| self.context.driver_connect);
            return Ok((self.network.open(&spec)?, None));
        }
        let interface = interface_of(channel);
        spec.connect = Some(channel.remote_data);
        spec.outgoing_interface = interface;
        spec.ttl = self.multicast_ttl(channel);
        let socket = self.network.open(&spec)?;
        let group = channel.remote_control;
        let mut spec = SocketSpec::new(
            SocketRole::Send,
            SocketAddr::new(channel.family.wildcard(), group.port()),
        );
        spec.join = Some(Join { group, interface });
        spec.reuse_address = true;
        spec.receive_buffer = buffers.receive as usize;
        Ok((socket, Some(self.network.open(&spec)?)))
    }

    /// Hops of multicast datagrams: the channel's, else those of the settings, else the system's.
    pub(super) fn multicast_ttl(&self, channel: &UdpChannel) -> Option<u8> {
        let configured = u8::try_from(self.context.socket_multicast_ttl).ok();
        channel.ttl.or(configured).filter(|ttl| *ttl != 0)
    }

    fn allocate_send_counters(
        &mut self,
        correlation_id: CorrelationId,
        channel: &UdpChannel,
        text: &str,
        local: SocketAddr,
    ) -> Result<(StatusCounter, StatusCounter, Option<CounterId>), CommandFailure> {
        let local = local.to_string();
        let services = &mut self.services;
        let status = allocate_status(services, &SEND, correlation_id, text, &local)?;
        let address = match allocate_address(services, &SEND, correlation_id.into(), status.id, &local) {
            Ok(address) => address,
            Err(failure) => {
                services.free_counter(status.id);
                return Err(failure);
            }
        };
        if !channel.is_multi_destination() {
            return Ok((status, address, None));
        }
        let destinations = services.allocate(&CounterSpec {
            type_id: type_id::MDC_DESTINATIONS,
            key: &type_id::channel_key(text),
            label: label::channel_label("mdc-num-dest", text).as_bytes(),
            registration_id: correlation_id.0,
            owner_id: 0,
            reference_id: 0,
        });
        match destinations {
            Ok(destinations) => Ok((status, address, Some(destinations))),
            Err(failure) => {
                services.free_counter(status.id);
                services.free_counter(address.id);
                Err(failure)
            }
        }
    }

    /// Closes a send endpoint that no publication uses any more.
    pub(super) fn release_send_endpoint(&mut self, id: EndpointId) {
        let is_used = self
            .network_publications
            .iter()
            .any(|publication| publication.half.endpoint == id)
            || self.pending.uses_endpoint(id);
        if is_used {
            return;
        }
        if let Some(endpoint) = self.send_endpoints.iter_mut().find(|endpoint| endpoint.id == id)
            && !endpoint.is_closing
        {
            endpoint.is_closing = true;
            endpoint.status.close();
            endpoint.address.close();
            self.sender.send(SenderCommand::RemoveEndpoint(id));
        }
    }

    /// The sender gave an endpoint back: its sockets are closed here.
    pub(super) fn on_send_endpoint_closed(&mut self, endpoint: Box<SendEndpoint>) {
        let id = endpoint.id();
        drop(endpoint);
        if let Some(index) = self.send_endpoints.iter().position(|record| record.id == id) {
            let record = self.send_endpoints.remove(index);
            self.services.free_counter(record.status.id);
            self.services.free_counter(record.address.id);
            if let Some(destinations) = record.destinations {
                self.services.free_counter(destinations);
            }
            self.release_sender_port(record.claimed_port);
        }
    }
}

/// Publications that share a socket have to agree on where the time of sending is written.
fn check_send_timestamps(existing: &UdpChannel, asked: &UdpChannel) -> Result<(), CommandFailure> {
    // Both were checked with the other parameters.
    let offset = |channel: &UdpChannel| {
        let params = channel.spec.uri.params();
        params.channel_send_timestamp_offset().ok().flatten()
    };
    if offset(existing) == offset(asked) {
        return Ok(());
    }
    Err(CommandFailure::new(
        ErrorCode::GenericError,
        format!(
            "channel-snd-ts-offset clashes with that of the channel's socket: {}",
            asked.spec.uri
        ),
    ))
}
