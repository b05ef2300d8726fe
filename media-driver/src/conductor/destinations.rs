//! Destinations of publications and sources of subscriptions under manual control (shared-memory spec 7.2, 7.4;
//! wire-protocol 6.3, 6.6).
#![forbid(unsafe_code)]

use fulmar::control::{CommandHeader, ErrorCode, Text};
use fulmar::id::{ClientId, RegistrationId, StreamId};
use fulmar::uri::params::key;
use fulmar::uri::{ChannelUri, ControlMode, Role};

use super::agent::Conductor;
use super::channels::Wanted;
use super::client_commands::{parse_channel, unknown_publication, unknown_subscription};
use super::endpoints::check_open;
use super::services::CommandFailure;
use super::sources;
use super::subscriptions::{LinkKind, SubscriptionLink};
use crate::commands::{EndpointId, SenderCommand};
use crate::config::{ParamsError, SubscriptionParams};
use crate::media::udp_channel::{ChannelSpec, UdpChannel};
use crate::protocol::destinations::Destination;
use crate::stream::subscribers::Subscriber;

/// What belongs to the channel that has destinations, and not to one of them.
const KEYS_OF_CHANNELS: [&str; 5] = [
    key::MTU,
    key::RECEIVER_WINDOW,
    key::SO_RCVBUF,
    key::SO_SNDBUF,
    key::RESPONSE_CORRELATION_ID,
];

/// Destinations that one publication or one subscription may have; each costs memory, and the latter a socket.
const DESTINATIONS_MAX: usize = 4096;

impl Conductor {
    // Destinations of publications

    pub(super) fn on_add_send_destination(
        &mut self,
        header: CommandHeader,
        publication: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let uri = self.send_destination(publication, channel)?;
        uri.check_role(Role::SendDestination)
            .map_err(|error| CommandFailure::from(ParamsError::from(error)))?;
        self.manual_send_endpoint(publication)?;
        check_destination(&uri)?;
        let spec = ChannelSpec::from_uri(&uri, Role::SendDestination)?;
        self.with_channel(header, spec, Wanted::SendDestination { publication })
    }

    /// Adds a destination. One whose name has no address is kept, and looked up again and again.
    pub(super) fn add_send_destination(
        &mut self,
        header: CommandHeader,
        publication: RegistrationId,
        spec: &ChannelSpec,
        resolved: Result<UdpChannel, ParamsError>,
    ) -> Result<(), CommandFailure> {
        let endpoint = self.manual_send_endpoint(publication)?;
        let count = self
            .send_endpoint(endpoint)
            .and_then(|endpoint| endpoint.destinations)
            .map_or(0, |id| self.services.counter(id).get_relaxed());
        check_count(usize::try_from(count).unwrap_or(0))?;
        let address = match resolved {
            Ok(channel) => Some(channel.remote_data),
            Err(error) if error.code == ErrorCode::UnknownHost => {
                self.services.record_error(error.code, &error.text);
                None
            }
            Err(error) => return Err(error.into()),
        };
        let name = spec
            .endpoint
            .as_ref()
            .filter(|endpoint| endpoint.literal().is_none())
            .map(|endpoint| endpoint.text.clone());
        self.sender.send(SenderCommand::AddDestination {
            endpoint,
            destination: Box::new(Destination {
                registration_id: header.correlation_id.into(),
                channel: spec.uri.as_str().to_owned(),
                name,
                address,
            }),
        });
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    pub(super) fn on_remove_send_destination(
        &mut self,
        header: CommandHeader,
        publication: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let uri = self.send_destination(publication, channel)?;
        self.manual_send_endpoint(publication)?;
        let spec = ChannelSpec::from_uri(&uri, Role::SendDestination)?;
        self.with_channel(header, spec, Wanted::NoSendDestination { publication })
    }

    /// Removes the destination with this channel or this address: the same place may be written in several ways.
    pub(super) fn remove_send_destination(
        &mut self,
        header: CommandHeader,
        publication: RegistrationId,
        spec: &ChannelSpec,
        resolved: Option<UdpChannel>,
    ) -> Result<(), CommandFailure> {
        let endpoint = self.manual_send_endpoint(publication)?;
        self.sender.send(SenderCommand::RemoveDestination {
            endpoint,
            channel: spec.uri.as_str().to_owned(),
            address: resolved.map(|channel| channel.remote_data),
        });
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    /// An unknown publication is recorded but not answered, as clients are known to send wrong ids here.
    pub(super) fn on_remove_send_destination_by_id(
        &mut self,
        header: CommandHeader,
        publication: RegistrationId,
        destination: RegistrationId,
    ) {
        match self.manual_send_endpoint(publication) {
            Ok(endpoint) => {
                self.sender.send(SenderCommand::RemoveDestinationById {
                    endpoint,
                    registration_id: destination,
                });
                self.services.succeed(header.correlation_id);
            }
            Err(failure) if failure.code == ErrorCode::UnknownPublication => {
                self.services.record_error(failure.code, &failure.text);
            }
            Err(failure) => self.services.fail(header.correlation_id, &failure),
        }
    }

    /// What a command says about a destination: looked at first, once the publication is known.
    fn send_destination(
        &self,
        publication: RegistrationId,
        channel: Text<'_>,
    ) -> Result<ChannelUri, CommandFailure> {
        self.endpoint_of_publication(publication)?;
        let (_, uri) = parse_channel(channel)?;
        Ok(uri)
    }

    fn endpoint_of_publication(&self, registration_id: RegistrationId) -> Result<EndpointId, CommandFailure> {
        self.network_publications
            .iter()
            .find(|publication| publication.half.registration_id == registration_id)
            .map(|publication| publication.half.endpoint)
            .ok_or_else(|| unknown_publication(registration_id))
    }

    fn manual_send_endpoint(&self, publication: RegistrationId) -> Result<EndpointId, CommandFailure> {
        let id = self.endpoint_of_publication(publication)?;
        let Some(endpoint) = self.send_endpoint(id) else {
            return Err(unknown_publication(publication));
        };
        check_open(endpoint.is_closing, &endpoint.channel)?;
        check_manual(&endpoint.channel, ErrorCode::GenericError)?;
        Ok(id)
    }

    // Sources of subscriptions

    pub(super) fn on_add_receive_destination(
        &mut self,
        header: CommandHeader,
        subscription: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let (client_id, stream_id, endpoint) = self.manual_subscription(subscription)?;
        let sockets = self
            .receive_endpoint(endpoint)
            .map_or(0, |endpoint| endpoint.transports.len());
        let links = self
            .links
            .iter()
            .filter(|link| link.registration_id == subscription)
            .count();
        check_count(sockets + links)?;
        let (text, uri) = parse_channel(channel)?;
        if !uri.is_ipc() {
            check_destination(&uri)?;
        }
        let params = SubscriptionParams::from_uri(&uri, &self.context)?;
        if uri.is_ipc() {
            let identity = (client_id, subscription, stream_id);
            let mut link = self.new_link(identity, LinkKind::Ipc, text, params);
            link.is_destination = true;
            self.services.succeed(header.correlation_id);
            self.add_link(link);
            return Ok(());
        }
        let wanted = if uri.is_spy() {
            Wanted::Spy {
                registration_id: subscription,
                stream_id,
                params: Box::new(params),
                is_destination: true,
            }
        } else {
            Wanted::ReceiveDestination { subscription }
        };
        let role = if uri.is_spy() {
            Role::Subscription
        } else {
            Role::ReceiveDestination
        };
        let spec = ChannelSpec::from_uri(&uri, role)?;
        self.with_channel(header, spec, wanted)
    }

    /// Adds a socket to a subscription.
    pub(super) fn add_network_destination(
        &mut self,
        header: CommandHeader,
        subscription: RegistrationId,
        channel: UdpChannel,
    ) -> Result<(), CommandFailure> {
        let (_, _, endpoint) = self.manual_subscription(subscription)?;
        self.add_transport(endpoint, subscription, channel)?;
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    /// Takes a socket away from a subscription.
    pub(super) fn remove_network_destination(
        &mut self,
        header: CommandHeader,
        subscription: RegistrationId,
        spec: &ChannelSpec,
        resolved: Option<UdpChannel>,
    ) -> Result<(), CommandFailure> {
        let (_, _, endpoint) = self.manual_subscription(subscription)?;
        self.services.succeed(header.correlation_id);
        let form = resolved.map(|channel| channel.canonical_form);
        self.remove_transport(endpoint, spec.uri.as_str(), form.as_deref());
        Ok(())
    }

    pub(super) fn on_remove_receive_destination(
        &mut self,
        header: CommandHeader,
        subscription: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        self.manual_subscription(subscription)?;
        let (text, uri) = parse_channel(channel)?;
        if !uri.is_ipc() && !uri.is_spy() {
            let spec = ChannelSpec::from_uri(&uri, Role::ReceiveDestination)?;
            return self.with_channel(header, spec, Wanted::NoReceiveDestination { subscription });
        }
        self.services.succeed(header.correlation_id);
        let wanted = |link: &&SubscriptionLink| {
            link.is_destination && link.registration_id == subscription && link.channel == text
        };
        let Some(link) = self.links.iter().find(wanted).map(|link| link.id) else {
            return Ok(());
        };
        let is_joined = |subscriber: &Subscriber| subscriber.link == link;
        for publication in &mut self.publications {
            sources::drop_subscribers(&mut self.services, &self.links, publication, is_joined);
        }
        for publication in &mut self.network_publications {
            sources::drop_subscribers(&mut self.services, &self.links, publication, is_joined);
        }
        self.links.take(|candidate| candidate.id == link);
        Ok(())
    }

    /// The owner, stream and endpoint of a subscription under manual control.
    fn manual_subscription(
        &self,
        registration_id: RegistrationId,
    ) -> Result<(ClientId, StreamId, EndpointId), CommandFailure> {
        let found = self.links.iter().find_map(|link| {
            let endpoint = link.kind.endpoint()?;
            (link.registration_id == registration_id).then_some((link, endpoint))
        });
        let Some((link, id)) = found else {
            return Err(unknown_subscription(registration_id));
        };
        let Some(endpoint) = self.receive_endpoint(id) else {
            return Err(unknown_subscription(registration_id));
        };
        check_manual(&endpoint.channel, ErrorCode::InvalidChannel)?;
        Ok((link.client_id, link.stream_id, id))
    }
}

fn check_manual(channel: &UdpChannel, otherwise: ErrorCode) -> Result<(), CommandFailure> {
    if channel.is_manual() {
        return Ok(());
    }
    Err(CommandFailure::new(
        otherwise,
        format!(
            "destinations can only be added and removed with control-mode=manual: {}",
            channel.spec.uri
        ),
    ))
}

fn check_count(count: usize) -> Result<(), CommandFailure> {
    if count < DESTINATIONS_MAX {
        return Ok(());
    }
    Err(CommandFailure::new(
        ErrorCode::GenericError,
        format!("there are {DESTINATIONS_MAX} destinations already: remove unused ones"),
    ))
}

/// What no destination may say.
fn check_destination(uri: &ChannelUri) -> Result<(), CommandFailure> {
    let refuse = |what: &str| {
        Err(CommandFailure::new(
            ErrorCode::InvalidChannel,
            format!("a destination can not have {what}: {uri}"),
        ))
    };
    for key in KEYS_OF_CHANNELS {
        if uri.get(key).is_some() {
            return refuse(key);
        }
    }
    if uri.params().control_mode() == Some(ControlMode::Response) {
        return refuse("control-mode=response");
    }
    Ok(())
}
