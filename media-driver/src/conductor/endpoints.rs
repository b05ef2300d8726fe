//! What send and receive channel endpoints have in common: counters, socket buffers, and the rules of sharing
//! (wire-protocol 8.2).
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::control::ErrorCode;
use fulmar::counters::{Counter, label, type_id};
use fulmar::id::{CorrelationId, CounterId, RegistrationId};

use super::services::{CommandFailure, CounterSpec, Services};
use crate::io::Interface;
use crate::media::udp_channel::UdpChannel;

/// Values of an endpoint's status and address counters (spec 5.6).
pub(super) const STATUS_ACTIVE: i64 = 1;
const STATUS_CLOSING: i64 = 2;

/// A counter that shows the state of an endpoint.
#[derive(Debug)]
pub(super) struct StatusCounter {
    pub(super) id: CounterId,
    value: Counter,
}

impl StatusCounter {
    pub(super) fn close(&self) {
        self.value.set_release(STATUS_CLOSING);
    }
}

/// Lengths of socket buffers, bytes; 0 is the system's default, or nothing asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferLengths {
    pub(super) send: i32,
    pub(super) receive: i32,
}

/// What a channel status counter and an address counter are named.
pub(super) struct EndpointCounterNames {
    status_type: i32,
    status: &'static str,
    address: &'static str,
}

pub(super) const SEND: EndpointCounterNames = EndpointCounterNames {
    status_type: type_id::SEND_CHANNEL_STATUS,
    status: "snd-channel",
    address: "snd-local-sockaddr",
};

pub(super) const RECEIVE: EndpointCounterNames = EndpointCounterNames {
    status_type: type_id::RECEIVE_CHANNEL_STATUS,
    status: "rcv-channel",
    address: "rcv-local-sockaddr",
};

/// Allocates a channel status counter; `address` is empty for an endpoint without a socket of its own.
pub(super) fn allocate_status(
    services: &mut Services,
    names: &EndpointCounterNames,
    correlation_id: CorrelationId,
    channel: &str,
    address: &str,
) -> Result<StatusCounter, CommandFailure> {
    let label = label::bound_channel_label(names.status, channel, address);
    let key = type_id::channel_key(channel);
    allocate_active(services, (names.status_type, &key), &label, correlation_id.0)
}

/// Allocates the counter of a local address.
pub(super) fn allocate_address(
    services: &mut Services,
    names: &EndpointCounterNames,
    registration_id: RegistrationId,
    status: CounterId,
    address: &str,
) -> Result<StatusCounter, CommandFailure> {
    let label = label::socket_address_label(names.address, status, address);
    let key = type_id::socket_address_key(status, address);
    allocate_active(
        services,
        (type_id::LOCAL_SOCKET_ADDRESS, &key),
        &label,
        registration_id.0,
    )
}

/// Allocates a counter that says whether something works, and says so.
fn allocate_active(
    services: &mut Services,
    (type_id, key): (i32, &[u8]),
    label: &str,
    registration_id: i64,
) -> Result<StatusCounter, CommandFailure> {
    let id = services.allocate(&CounterSpec {
        type_id,
        key,
        label: label.as_bytes(),
        registration_id,
        owner_id: 0,
        reference_id: 0,
    })?;
    let value = services.counter(id);
    value.set_release(STATUS_ACTIVE);
    Ok(StatusCounter { id, value })
}

/// The interface of a channel as sockets need it.
pub(super) fn interface_of(channel: &UdpChannel) -> Interface {
    match &channel.interface {
        None => Interface::Any,
        Some(interface) if interface.index != 0 => Interface::Index(interface.index),
        Some(interface) => Interface::Address(interface.address),
    }
}

pub(super) fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    let mut address = address;
    address.set_port(port);
    address
}

/// Why a channel's socket can not be opened.
pub(super) fn open_failure(channel: &UdpChannel, error: &dyn core::fmt::Display) -> CommandFailure {
    CommandFailure::new(
        ErrorCode::GenericError,
        format!("can not open {}: {error}", channel.spec.uri),
    )
}

impl BufferLengths {
    /// Whether a channel may share sockets that have these lengths: what it asks for itself has to be equal.
    pub(super) fn check(self, channel: &UdpChannel) -> Result<(), CommandFailure> {
        let params = channel.spec.uri.params();
        let asked = BufferLengths {
            send: params.socket_sndbuf().ok().flatten().unwrap_or(0),
            receive: params.socket_rcvbuf().ok().flatten().unwrap_or(0),
        };
        let pairs = [
            ("so-sndbuf", asked.send, self.send),
            ("so-rcvbuf", asked.receive, self.receive),
        ];
        for (key, asked, existing) in pairs {
            if asked != 0 && asked != existing {
                return Err(CommandFailure::new(
                    ErrorCode::GenericError,
                    format!(
                        "{key}={asked} clashes with {key}={existing} of the channel's socket: {}",
                        channel.spec.uri
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Which of the endpoints, each with the address its socket is bound to, a channel means: the one with its tag, else the
/// one of its canonical form.
pub(super) fn find_shared<'a>(
    endpoints: impl Iterator<Item = (&'a UdpChannel, SocketAddr)> + Clone,
    asked: &UdpChannel,
) -> Result<Option<usize>, CommandFailure> {
    for (index, (channel, local)) in endpoints.clone().enumerate() {
        if channel.matches_tag(asked, local)? {
            return Ok(Some(index));
        }
    }
    if asked.spec.is_tag_only() {
        return Ok(None);
    }
    let mut channels = endpoints.map(|(channel, _)| channel);
    Ok(channels.position(|channel| channel.is_shared_by(asked)))
}

/// An endpoint that is being closed can not be used, and a new one can not take its place before it is.
pub(super) fn check_open(is_closing: bool, channel: &UdpChannel) -> Result<(), CommandFailure> {
    if !is_closing {
        return Ok(());
    }
    Err(CommandFailure::new(
        ErrorCode::ResourceTemporarilyUnavailable,
        format!(
            "the channel is just being closed, try again: {}",
            channel.spec.uri
        ),
    ))
}

/// A publication's channel that consists of a tag means an endpoint that exists.
pub(super) fn check_addressed(channel: &UdpChannel) -> Result<(), CommandFailure> {
    if !channel.spec.is_tag_only() {
        return Ok(());
    }
    Err(CommandFailure::new(
        ErrorCode::GenericError,
        format!("no channel with this tag exists: {}", channel.spec.uri),
    ))
}
