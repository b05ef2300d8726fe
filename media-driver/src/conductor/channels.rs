//! Channels on their way to addresses. A channel whose names have to be looked up waits for the resource agent; its
//! client waits with it, others do not.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use fulmar::control::{CommandHeader, ErrorCode};
use fulmar::counters::SystemCounter;
use fulmar::id::{ClientId, RegistrationId, StreamId};

use super::agent::Conductor;
use super::services::CommandFailure;
use crate::commands::{EndpointCommand, Resolve, ResolveTarget, ResourceCommand, SenderCommand};
use crate::config::{PublicationParams, SubscriptionParams};
use crate::media::interface::Family;
use crate::media::resolver::{NameRequest, NameUse, Resolution};
use crate::media::udp_channel::{ChannelSpec, HostPort, UdpChannel};

/// What a command wants of a channel once its addresses are known.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A publication.
    Publication {
        stream_id: StreamId,
        params: Box<PublicationParams>,
        exclusive: bool,
    },
    /// A subscription with its own socket, or under manual control.
    Subscription {
        stream_id: StreamId,
        params: Box<SubscriptionParams>,
    },
    /// A subscription, or a receive destination of one, to a publication of this driver.
    Spy {
        registration_id: RegistrationId,
        stream_id: StreamId,
        params: Box<SubscriptionParams>,
        is_destination: bool,
    },
    /// A destination of a publication under manual control.
    SendDestination { publication: RegistrationId },
    /// That a publication sends there no more.
    NoSendDestination { publication: RegistrationId },
    /// A destination of a subscription under manual control.
    ReceiveDestination { subscription: RegistrationId },
    /// That a subscription listens there no more.
    NoReceiveDestination { subscription: RegistrationId },
}

/// A look-up that is under way.
#[derive(Debug)]
enum LookUp {
    Command {
        header: CommandHeader,
        spec: Box<ChannelSpec>,
        wanted: Wanted,
    },
    Again {
        target: ResolveTarget,
        name: String,
    },
}

/// Look-ups that are under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct LookUps {
    waiting: Vec<(u64, LookUp)>,
    last_token: u64,
}

impl LookUps {
    /// Whether a command of this client waits for names.
    pub(super) fn has_client(&self, client_id: ClientId) -> bool {
        self.waiting.iter().any(
            |(_, look_up)| matches!(look_up, LookUp::Command { header, .. } if header.client_id == client_id),
        )
    }

    fn take(&mut self, token: u64) -> Option<LookUp> {
        let index = self.waiting.iter().position(|(waiting, _)| *waiting == token)?;
        Some(self.waiting.remove(index).1)
    }
}

impl Conductor {
    /// Finds the addresses of a channel and goes on with what is wanted of it, now or once its names are looked up.
    pub(super) fn with_channel(
        &mut self,
        header: CommandHeader,
        spec: ChannelSpec,
        wanted: Wanted,
    ) -> Result<(), CommandFailure> {
        if spec.is_self_contained() {
            return self.on_resolution(header, spec, wanted, &Resolution::default());
        }
        let (names, interfaces) = (spec.names(), spec.needs_interfaces());
        let spec = Box::new(spec);
        let look_up = LookUp::Command { header, spec, wanted };
        if self.start_look_up(look_up, names, interfaces) {
            return Ok(());
        }
        Err(CommandFailure::new(
            ErrorCode::ResourceTemporarilyUnavailable,
            "the driver is busy, try again",
        ))
    }

    fn start_look_up(&mut self, look_up: LookUp, names: Vec<NameRequest>, interfaces: bool) -> bool {
        self.look_ups.last_token += 1;
        let token = self.look_ups.last_token;
        let command = ResourceCommand::Resolve(Box::new(Resolve {
            token,
            names,
            interfaces,
        }));
        if self.resource_commands.offer(command).is_err() {
            self.services.increment(SystemCounter::ResourceAgentProxyFails);
            return false;
        }
        self.look_ups.waiting.push((token, look_up));
        true
    }

    pub(super) fn on_resolved(&mut self, token: u64, resolution: &Resolution, took_ns: i64) {
        let longest = self.services.system(SystemCounter::NameResolverMaxTime);
        longest.propose_max_relaxed(took_ns);
        if took_ns > self.context.name_resolver_threshold_ns {
            self.services
                .increment(SystemCounter::NameResolverTimeThresholdExceeded);
        }
        match self.look_ups.take(token) {
            // Whoever asked may have gone meanwhile.
            Some(LookUp::Command { header, spec, wanted }) if self.is_attached(header.client_id) => {
                if let Err(failure) = self.on_resolution(header, *spec, wanted, resolution) {
                    self.services.fail(header.correlation_id, &failure);
                }
            }
            Some(LookUp::Again { target, name }) => self.on_resolved_again(target, name, resolution),
            Some(LookUp::Command { .. }) | None => {}
        }
    }

    fn on_resolution(
        &mut self,
        header: CommandHeader,
        spec: ChannelSpec,
        wanted: Wanted,
        resolution: &Resolution,
    ) -> Result<(), CommandFailure> {
        let resolved = UdpChannel::resolve(spec.clone(), resolution, header.correlation_id.0);
        match wanted {
            Wanted::Publication {
                stream_id,
                params,
                exclusive,
            } => self.add_network_publication(header, stream_id, resolved?, *params, exclusive),
            Wanted::Subscription { stream_id, params } => {
                self.add_network_subscription(header, stream_id, resolved?, *params)
            }
            Wanted::Spy {
                registration_id,
                stream_id,
                params,
                is_destination,
            } => self.add_spy(
                header,
                (registration_id, stream_id),
                &resolved?,
                *params,
                is_destination,
            ),
            Wanted::ReceiveDestination { subscription } => {
                self.add_network_destination(header, subscription, resolved?)
            }
            // For the rest a name without address is no obstacle.
            Wanted::SendDestination { publication } => {
                self.add_send_destination(header, publication, &spec, resolved)
            }
            Wanted::NoSendDestination { publication } => {
                self.remove_send_destination(header, publication, &spec, resolved.ok())
            }
            Wanted::NoReceiveDestination { subscription } => {
                self.remove_network_destination(header, subscription, &spec, resolved.ok())
            }
        }
    }

    /// Looks a name up again whose address fell silent (wire-protocol 6.7), unless that is under way already.
    pub(super) fn look_up_again(&mut self, target: ResolveTarget, name: String) {
        let is_same =
            |look_up: &LookUp| matches!(look_up, LookUp::Again { target: other, .. } if *other == target);
        if self.look_ups.waiting.iter().any(|(_, look_up)| is_same(look_up)) {
            return;
        }
        let used_as = match target {
            ResolveTarget::SendEndpoint(_) | ResolveTarget::SendDestination { .. } => NameUse::Endpoint,
            ResolveTarget::ReceiveTransport { .. } => NameUse::Control,
        };
        let family = self.family_of(target);
        let request = HostPort::parse(&name).and_then(|name| name.request(used_as, family));
        if let Some(mut request) = request {
            request.is_re_resolution = true;
            self.start_look_up(LookUp::Again { target, name }, vec![request], false);
        }
    }

    /// The family of the addresses that a target's socket can reach.
    fn family_of(&self, target: ResolveTarget) -> Family {
        let channel = match target {
            ResolveTarget::SendEndpoint(endpoint) | ResolveTarget::SendDestination { endpoint, .. } => {
                self.send_endpoint(endpoint).map(|endpoint| &endpoint.channel)
            }
            ResolveTarget::ReceiveTransport { endpoint, transport } => {
                self.receive_endpoint(endpoint).and_then(|endpoint| {
                    let transports = &endpoint.transports;
                    let found = transports.iter().find(|record| record.id == transport);
                    found.map(|record| &record.channel)
                })
            }
        };
        channel.map_or(Family::V4, |channel| channel.family)
    }

    fn on_resolved_again(&mut self, target: ResolveTarget, name: String, resolution: &Resolution) {
        let Some((Ok(ip), port)) = resolution
            .answers
            .first()
            .map(|answer| answer.result.clone())
            .zip(HostPort::parse(&name).map(|name| name.port))
        else {
            return;
        };
        if Family::of(ip) != self.family_of(target) {
            return;
        }
        let address = SocketAddr::new(ip, port);
        match target {
            ResolveTarget::SendEndpoint(endpoint) => self.sender.send(SenderCommand::Resolved {
                endpoint,
                destination: None,
                name,
                address,
            }),
            ResolveTarget::SendDestination {
                endpoint,
                registration_id,
            } => self.sender.send(SenderCommand::Resolved {
                endpoint,
                destination: Some(registration_id),
                name,
                address,
            }),
            ResolveTarget::ReceiveTransport { endpoint, transport } => {
                self.receiver
                    .send(EndpointCommand::Resolved(transport, address).at(endpoint));
            }
        }
    }
}
