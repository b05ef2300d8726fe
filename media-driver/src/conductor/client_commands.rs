//! Client commands, one after the other in ring order (shared-memory spec 7).
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use fulmar::control::command::{MAX_COUNTER_KEY_LENGTH, MAX_COUNTER_LABEL_LENGTH, MAX_REJECT_REASON_LENGTH};
use fulmar::control::response::PublicationError;
use fulmar::control::{Command, CommandError, CommandHeader, ErrorCode, Response, Text};
use fulmar::counters::{SystemCounter, label, type_id};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId};
use fulmar::uri::{ChannelUri, Media};

use super::agent::Conductor;
use super::clients::{ClientRecord, OwnedCounter};
use super::endpoints::ReceiveEndpointRecord;
use super::services::{CommandFailure, CounterSpec};
use super::sources;
use super::subscriptions::{LinkKind, SubscriptionLink};
use crate::config::{DriverContext, PublicationParams, SubscriptionParams, TerminationValidator};
use crate::stream::ipc_publication::State;
use crate::stream::subscribers::LinkId;

/// Subscriptions and receive destinations that one client may hold.
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 16_384;

/// Value of a channel status counter whose channel works (spec 5.6).
const CHANNEL_STATUS_ACTIVE: i64 = 1;

/// Commands that waited which one duty cycle takes up.
const HELD_PER_CYCLE: usize = 16;

/// A channel a command names, sorted by who serves it.
enum Source {
    Ipc(ChannelUri),
    Spy,
    Network(ChannelUri),
}

impl Conductor {
    pub(super) fn on_command(&mut self, type_id: i32, payload: &[u8]) {
        match Command::decode(type_id, payload) {
            Ok((header, command)) => {
                if !self.hold_if_busy(header, &command, type_id, payload)
                    && let Err(failure) = self.execute(header, command)
                {
                    self.services.fail(header.correlation_id, &failure);
                }
            }
            Err(error @ CommandError::Malformed { .. }) => {
                self.services
                    .record_error(ErrorCode::MalformedCommand, &error.to_string());
            }
            Err(error @ CommandError::Unknown { .. }) => {
                self.services
                    .record_error(ErrorCode::UnknownCommandTypeId, &error.to_string());
            }
        }
    }

    /// Puts a command aside while an earlier one of its client is under way; `true` if it is not to be executed now.
    fn hold_if_busy(
        &mut self,
        header: CommandHeader,
        command: &Command<'_>,
        type_id: i32,
        payload: &[u8],
    ) -> bool {
        // A sign of life keeps no order.
        if !self.is_busy(header.client_id) || matches!(command, Command::ClientKeepalive) {
            return false;
        }
        if self.held.hold(header.client_id, type_id, payload).is_ok() {
            return true;
        }
        if matches!(command, Command::ClientClose) {
            return false;
        }
        let failure = CommandFailure::new(
            ErrorCode::ResourceTemporarilyUnavailable,
            "too many commands wait for an earlier one, try again",
        );
        self.services.fail(header.correlation_id, &failure);
        true
    }

    /// Executes commands that waited and whose client is served again; a bounded number of them.
    pub(super) fn execute_held(&mut self) -> usize {
        let mut work = 0;
        while work < HELD_PER_CYCLE && !self.held.is_empty() {
            let pending = &self.pending;
            let Some(held) = self.held.next(|client_id| pending.has_client(client_id)) else {
                break;
            };
            if let Ok((header, command)) = Command::decode(held.type_id, &held.payload)
                && let Err(failure) = self.execute(header, command)
            {
                self.services.fail(header.correlation_id, &failure);
            }
            work += 1;
        }
        work
    }

    /// Whether a command of this client has to wait.
    pub(super) fn is_busy(&self, client_id: ClientId) -> bool {
        self.pending.has_client(client_id) || self.held.has(client_id)
    }

    fn execute(&mut self, header: CommandHeader, command: Command<'_>) -> Result<(), CommandFailure> {
        match command {
            Command::AddPublication { stream_id, channel } => {
                self.on_add_publication(header, stream_id, channel, false)
            }
            Command::AddExclusivePublication { stream_id, channel } => {
                self.on_add_publication(header, stream_id, channel, true)
            }
            Command::RemovePublication {
                registration_id,
                revoke,
            } => self.on_remove_publication(header, registration_id, revoke),
            Command::AddSubscription { stream_id, channel } => {
                self.on_add_subscription(header, stream_id, channel)
            }
            Command::RemoveSubscription { registration_id } => {
                self.on_remove_subscription(header, registration_id)
            }
            Command::ClientKeepalive => {
                let (epoch, timer) = (self.services.epoch(), self.services.timer);
                if let Some(client) = self
                    .clients
                    .iter_mut()
                    .find(|client| client.id == header.client_id)
                {
                    client.keep_alive(epoch.0, timer);
                }
                Ok(())
            }
            // Send destinations belong to network publications under manual control; there are none yet.
            Command::AddDestination { registration_id, .. }
            | Command::RemoveDestination { registration_id, .. } => Err(unknown_publication(registration_id)),
            Command::RemoveDestinationById { registration_id, .. } => {
                self.services.record_error(
                    ErrorCode::UnknownPublication,
                    &unknown_publication(registration_id).text,
                );
                Ok(())
            }
            Command::AddCounter { type_id, key, label } => self.on_add_counter(header, type_id, key, label),
            Command::RemoveCounter { registration_id } => self.on_remove_counter(header, registration_id),
            Command::ClientClose => {
                if let Some(client) = self
                    .clients
                    .iter_mut()
                    .find(|client| client.id == header.client_id)
                {
                    client.close();
                }
                Ok(())
            }
            Command::AddReceiveDestination {
                registration_id,
                channel,
            } => self.on_add_receive_destination(header, registration_id, channel),
            Command::RemoveReceiveDestination {
                registration_id,
                channel,
            } => self.on_remove_receive_destination(header, registration_id, channel),
            Command::TerminateDriver { token: _ } => {
                if self.context.driver_termination_validator == TerminationValidator::Allow {
                    self.termination_allowed = true;
                }
                Ok(())
            }
            Command::AddStaticCounter {
                registration_id,
                type_id,
                key,
                label,
            } => self.on_add_static_counter(header, registration_id, type_id, key, label),
            Command::RejectImage {
                image_correlation_id,
                reason,
                ..
            } => self.on_reject_image(header, image_correlation_id, reason),
            Command::NextAvailableSessionId { stream_id } => self.on_next_session_id(header, stream_id),
        }
    }

    /// Finds or makes the record of the client that sent an ADD.
    pub(super) fn admit_client(&mut self, client_id: ClientId) -> Result<(), CommandFailure> {
        if self.clients.iter().any(|client| client.id == client_id) {
            return Ok(());
        }
        if client_id.0 == 0 || client_id.0 == -1 {
            return Err(CommandFailure::new(
                ErrorCode::GenericError,
                format!("{client_id} is no valid client id: take one from the correlation counter"),
            ));
        }
        let label = label::heartbeat_label(client_id);
        let heartbeat_id = self.services.allocate(&CounterSpec {
            type_id: type_id::CLIENT_HEARTBEAT,
            key: &type_id::heartbeat_key(client_id),
            label: label.as_bytes(),
            registration_id: client_id.0,
            owner_id: client_id.0,
            reference_id: 0,
        })?;
        let heartbeat = self.services.counter(heartbeat_id);
        heartbeat.set_release(self.services.epoch().0);
        let mut client = ClientRecord::new(client_id, heartbeat_id, heartbeat, self.services.timer);
        let shown = self
            .extension
            .clients()
            .find(|client| client.client_id == client_id);
        if let Some(record) = shown {
            client.is_ours = true;
            client.watched = self.watch(client_id, record.process);
        }
        self.clients.push(client);
        self.services.respond(&Response::CounterReady {
            registration_id: RegistrationId(client_id.0),
            counter_id: heartbeat_id,
        });
        Ok(())
    }

    // Subscriptions

    fn on_add_subscription(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let text = channel_text(channel)?;
        let source = source_of(text)?;
        let registration_id = RegistrationId::from(header.correlation_id);
        let mut status = CounterId::NONE;
        let link = match &source {
            Source::Ipc(uri) => self.ipc_link(header.client_id, registration_id, stream_id, uri, text)?,
            Source::Spy => self.spy_link(header.client_id, registration_id, stream_id, text),
            Source::Network(uri) => {
                SubscriptionParams::from_uri(uri, &self.context)?;
                if uri.get("control-mode") != Some("manual") {
                    return Err(network_not_served(text));
                }
                self.admit_client(header.client_id)?;
                status = self.allocate_receive_channel(header.correlation_id, text)?;
                let id = self.next_endpoint_id();
                self.receive_endpoints.push(ReceiveEndpointRecord {
                    id,
                    status,
                    is_manual: true,
                });
                self.plain_link(
                    header.client_id,
                    registration_id,
                    stream_id,
                    LinkKind::Network(id),
                    text,
                )
            }
        };
        self.admit_client(header.client_id)?;
        let held = self.links.held_by(header.client_id);
        if held >= SUBSCRIPTIONS_PER_CLIENT_MAX {
            return Err(CommandFailure::new(
                ErrorCode::GenericError,
                format!(
                    "the client holds {held} subscriptions and destinations, more than it may: close unused ones"
                ),
            ));
        }
        self.services.respond(&Response::SubscriptionReady {
            correlation_id: header.correlation_id,
            channel_status_counter_id: status,
        });
        self.add_link(link);
        Ok(())
    }

    fn ipc_link(
        &mut self,
        client_id: ClientId,
        registration_id: RegistrationId,
        stream_id: StreamId,
        uri: &ChannelUri,
        text: &str,
    ) -> Result<SubscriptionLink, CommandFailure> {
        let params = SubscriptionParams::from_uri(uri, &self.context).map_err(CommandFailure::from)?;
        let mut link = self.plain_link(client_id, registration_id, stream_id, LinkKind::Ipc, text);
        link.session_id = params.session_id;
        link.is_response = params.is_response;
        link.tether = params.tether;
        link.rejoin = params.rejoin;
        Ok(link)
    }

    fn spy_link(
        &mut self,
        client_id: ClientId,
        registration_id: RegistrationId,
        stream_id: StreamId,
        text: &str,
    ) -> SubscriptionLink {
        let kind = LinkKind::Spy {
            canonical_form: text.to_owned(),
            tag: None,
        };
        self.plain_link(client_id, registration_id, stream_id, kind, text)
    }

    fn plain_link(
        &mut self,
        client_id: ClientId,
        registration_id: RegistrationId,
        stream_id: StreamId,
        kind: LinkKind,
        text: &str,
    ) -> SubscriptionLink {
        SubscriptionLink {
            id: self.links.next_id(),
            registration_id,
            client_id,
            stream_id,
            channel: text.to_owned(),
            kind,
            session_id: None,
            is_response: false,
            tether: true,
            rejoin: true,
            is_destination: false,
        }
    }

    /// Takes a link in and announces every source it matches.
    fn add_link(&mut self, link: SubscriptionLink) {
        for publication in &mut self.publications {
            if link.matches(publication) && publication.accepts_subscribers() {
                sources::link_image(&mut self.services, publication, &link);
            }
        }
        self.links.push(link);
    }

    fn on_remove_subscription(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
    ) -> Result<(), CommandFailure> {
        if !self
            .links
            .iter()
            .any(|link| link.registration_id == registration_id)
        {
            return Err(unknown_subscription(registration_id));
        }
        self.remove_links(|link| link.registration_id == registration_id);
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    /// Removes links and frees their position counters without a word, as a removal by the client's own wish does.
    pub(super) fn remove_links(&mut self, matches: impl Fn(&SubscriptionLink) -> bool) {
        for counter_id in self.unlink_all(matches) {
            self.services.free_counter(counter_id);
        }
    }

    /// Removes links in one pass over links and subscribers; returns the position counters they had.
    pub(super) fn unlink_all(&mut self, matches: impl Fn(&SubscriptionLink) -> bool) -> Vec<CounterId> {
        let taken = self.links.take(matches);
        let removed: BTreeSet<LinkId> = taken.iter().map(|link| link.id).collect();
        let mut counters = Vec::new();
        if removed.is_empty() {
            return counters;
        }
        for publication in &mut self.publications {
            let unlinked = publication.unlink(|subscriber| removed.contains(&subscriber.link));
            counters.extend(unlinked.iter().map(|subscriber| subscriber.counter_id));
        }
        for link in taken {
            if let LinkKind::Network(endpoint) = link.kind {
                self.release_receive_endpoint(endpoint);
            }
        }
        counters
    }

    fn allocate_receive_channel(
        &mut self,
        correlation_id: CorrelationId,
        text: &str,
    ) -> Result<CounterId, CommandFailure> {
        // Without a socket of its own the label ends where the bound address would follow.
        let label = format!("rcv-channel: {text} ");
        let id = self.services.allocate(&CounterSpec {
            type_id: type_id::RECEIVE_CHANNEL_STATUS,
            key: &type_id::channel_key(text),
            label: label.as_bytes(),
            registration_id: correlation_id.0,
            owner_id: 0,
            reference_id: 0,
        })?;
        self.services.counter(id).set_release(CHANNEL_STATUS_ACTIVE);
        Ok(id)
    }

    fn on_add_receive_destination(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let (client_id, stream_id) = self.manual_subscription(registration_id)?;
        let text = channel_text(channel)?;
        let mut link = match source_of(text)? {
            Source::Ipc(uri) => self.ipc_link(client_id, registration_id, stream_id, &uri, text)?,
            Source::Spy => self.spy_link(client_id, registration_id, stream_id, text),
            Source::Network(_) => return Err(network_not_served(text)),
        };
        link.is_destination = true;
        self.services.succeed(header.correlation_id);
        self.add_link(link);
        Ok(())
    }

    fn on_remove_receive_destination(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        self.manual_subscription(registration_id)?;
        let text = channel_text(channel)?;
        source_of(text)?;
        self.services.succeed(header.correlation_id);
        let wanted = |link: &SubscriptionLink| {
            link.is_destination && link.registration_id == registration_id && link.channel == text
        };
        let Some(link) = self.links.iter().find(|link| wanted(link)).map(|link| link.id) else {
            return Ok(());
        };
        for publication in &mut self.publications {
            sources::drop_subscribers(&mut self.services, &self.links, publication, |subscriber| {
                subscriber.link == link
            });
        }
        self.links.take(|candidate| candidate.id == link);
        Ok(())
    }

    /// The owner and stream of a subscription under manual control.
    fn manual_subscription(
        &self,
        registration_id: RegistrationId,
    ) -> Result<(ClientId, StreamId), CommandFailure> {
        let is_manual = |link: &&SubscriptionLink| match link.kind {
            LinkKind::Network(id) => self
                .receive_endpoint(id)
                .is_some_and(|endpoint| endpoint.is_manual),
            _ => false,
        };
        self.links
            .iter()
            .filter(is_manual)
            .find(|link| link.registration_id == registration_id)
            .map(|link| (link.client_id, link.stream_id))
            .ok_or_else(|| unknown_subscription(registration_id))
    }

    // Counters

    fn on_add_counter(
        &mut self,
        header: CommandHeader,
        type_id: i32,
        key: &[u8],
        label: Text<'_>,
    ) -> Result<(), CommandFailure> {
        self.admit_client(header.client_id)?;
        let registration_id = RegistrationId::from(header.correlation_id);
        let counter_id = self.services.allocate(&CounterSpec {
            type_id,
            key: &key[..key.len().min(MAX_COUNTER_KEY_LENGTH)],
            label: &label.0[..label.len().min(MAX_COUNTER_LABEL_LENGTH)],
            registration_id: registration_id.0,
            owner_id: header.client_id.0,
            reference_id: 0,
        })?;
        if let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.id == header.client_id)
        {
            client.counters.push(OwnedCounter {
                registration_id,
                counter_id,
            });
        }
        self.services.respond(&Response::CounterReady {
            registration_id,
            counter_id,
        });
        Ok(())
    }

    fn on_remove_counter(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
    ) -> Result<(), CommandFailure> {
        let owned = self
            .clients
            .iter_mut()
            .find(|client| client.id == header.client_id)
            .and_then(|client| {
                let index = client
                    .counters
                    .iter()
                    .position(|counter| counter.registration_id == registration_id)?;
                Some(client.counters.remove(index))
            });
        let Some(owned) = owned else {
            return Err(CommandFailure::new(
                ErrorCode::UnknownCounter,
                format!("unknown counter: registration id {registration_id}"),
            )
            .counted_as("unknown counter"));
        };
        self.services.succeed(header.correlation_id);
        self.services
            .counter_unavailable(registration_id, owned.counter_id);
        self.services.free_counter(owned.counter_id);
        Ok(())
    }

    fn on_add_static_counter(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
        type_id: i32,
        key: &[u8],
        label: Text<'_>,
    ) -> Result<(), CommandFailure> {
        self.admit_client(header.client_id)?;
        let reader = self.services.counters.reader();
        let existing = reader
            .find_by(type_id, registration_id.0)
            .map(|id| (id, reader.owner_id(id).unwrap_or(0)));
        let counter_id = match existing {
            Some((counter_id, -1)) => counter_id,
            Some((counter_id, owner_id)) => {
                return Err(CommandFailure::new(
                    ErrorCode::GenericError,
                    format!(
                        "can not add a static counter of type {type_id} and registration id {registration_id}: counter \
                         {counter_id} with both is owned by client {owner_id}"
                    ),
                ));
            }
            None => self.services.allocate(&CounterSpec {
                type_id,
                key: &key[..key.len().min(MAX_COUNTER_KEY_LENGTH)],
                label: &label.0[..label.len().min(MAX_COUNTER_LABEL_LENGTH)],
                registration_id: registration_id.0,
                owner_id: -1,
                reference_id: 0,
            })?,
        };
        self.services.respond(&Response::StaticCounter {
            correlation_id: header.correlation_id,
            counter_id,
        });
        Ok(())
    }

    // Images and sessions

    fn on_reject_image(
        &mut self,
        header: CommandHeader,
        image: CorrelationId,
        reason: Text<'_>,
    ) -> Result<(), CommandFailure> {
        if reason.len() > MAX_REJECT_REASON_LENGTH {
            return Err(CommandFailure::new(
                ErrorCode::GenericError,
                format!(
                    "the reason has {} bytes, above the limit of {MAX_REJECT_REASON_LENGTH}",
                    reason.len()
                ),
            ));
        }
        let index = self
            .publication_index(RegistrationId(image.0))
            .filter(|index| self.publications[*index].state() != State::Linger);
        let Some(index) = index else {
            return Err(CommandFailure::new(
                ErrorCode::GenericError,
                format!("can not reject image {image}: there is no such image"),
            ));
        };
        let publication = &self.publications[index];
        self.services
            .respond(&Response::PublicationError(PublicationError {
                registration_id: publication.registration_id,
                destination_registration_id: RegistrationId(-1),
                session_id: publication.session_id,
                stream_id: publication.stream_id,
                receiver_id: -1,
                group_tag: -1,
                source: Some(core::net::SocketAddr::from((core::net::Ipv4Addr::LOCALHOST, 0))),
                error_code: ErrorCode::ImageRejected,
                message: reason,
            }));
        self.services.record_error(
            ErrorCode::ImageRejected,
            &format!(
                "image of stream {} rejected: {}",
                self.publications[index].stream_id,
                reason.to_string_lossy()
            ),
        );
        self.publications[index].disconnect();
        self.publications[index].cool_down_until = Some(
            self.services
                .timer
                .plus_nanos(self.context.image_liveness_timeout_ns),
        );
        sources::drop_subscribers(
            &mut self.services,
            &self.links,
            &mut self.publications[index],
            |_| true,
        );
        self.services.succeed(header.correlation_id);
        self.services.increment(SystemCounter::ImagesRejected);
        Ok(())
    }

    fn on_next_session_id(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
    ) -> Result<(), CommandFailure> {
        let session_id = self.next_session_id(stream_id)?;
        self.services.respond(&Response::NextAvailableSessionId {
            correlation_id: header.correlation_id,
            session_id,
        });
        Ok(())
    }

    pub(super) fn next_session_id(&mut self, stream_id: StreamId) -> Result<SessionId, CommandFailure> {
        let publications = &self.publications;
        self.session_ids
            .next(|session_id| {
                publications.iter().any(|publication| {
                    publication.stream_id == stream_id
                        && publication.session_id == session_id
                        && publication.state() != State::Linger
                })
            })
            .ok_or_else(|| {
                CommandFailure::new(
                    ErrorCode::GenericError,
                    format!("no session id is free for stream {stream_id}"),
                )
            })
    }
}

/// The channel of a command as text.
pub(super) fn channel_text(channel: Text<'_>) -> Result<&str, CommandFailure> {
    channel.to_str().map_err(|error| {
        CommandFailure::new(
            ErrorCode::InvalidChannel,
            format!("invalid URI scheme or transport: the channel is no UTF-8 text: {error}"),
        )
    })
}

fn source_of(text: &str) -> Result<Source, CommandFailure> {
    let uri = ChannelUri::parse(text)
        .map_err(|error| CommandFailure::new(ErrorCode::InvalidChannel, error.to_string()))?;
    Ok(match (uri.is_spy(), uri.media()) {
        (true, _) => Source::Spy,
        (false, Media::Ipc) => Source::Ipc(uri),
        (false, Media::Udp) => Source::Network(uri),
    })
}

/// The checked parameters of a publication on an IPC channel. A network channel is checked as well, so that its faults
/// are told before it is said that it is not served.
pub(super) fn publication_params(
    text: &str,
    context: &DriverContext,
) -> Result<PublicationParams, CommandFailure> {
    match source_of(text)? {
        Source::Ipc(uri) => Ok(PublicationParams::from_uri(&uri, context)?),
        Source::Spy => Err(CommandFailure::new(
            ErrorCode::InvalidChannel,
            format!("invalid URI scheme or transport: a publication can not spy: {text}"),
        )),
        Source::Network(uri) => {
            PublicationParams::from_uri(&uri, context)?;
            Err(network_not_served(text))
        }
    }
}

fn network_not_served(text: &str) -> CommandFailure {
    CommandFailure::new(
        ErrorCode::NotSupported,
        format!("network channels are not served by this version of the driver, use aeron:ipc: {text}"),
    )
}

fn unknown_publication(registration_id: RegistrationId) -> CommandFailure {
    CommandFailure::new(
        ErrorCode::UnknownPublication,
        format!("unknown publication: registration id {registration_id}"),
    )
    .counted_as("unknown publication")
}

fn unknown_subscription(registration_id: RegistrationId) -> CommandFailure {
    CommandFailure::new(
        ErrorCode::UnknownSubscription,
        format!("unknown subscription: registration id {registration_id}"),
    )
    .counted_as("unknown subscription")
}

impl From<crate::config::ParamsError> for CommandFailure {
    fn from(error: crate::config::ParamsError) -> Self {
        Self::new(error.code, error.text)
    }
}
