//! Client commands, one after the other in ring order (shared-memory spec 7).
#![forbid(unsafe_code)]

use fulmar::control::command::{MAX_COUNTER_KEY_LENGTH, MAX_COUNTER_LABEL_LENGTH, MAX_REJECT_REASON_LENGTH};
use fulmar::control::response::PublicationError;
use fulmar::control::{Command, CommandError, CommandHeader, ErrorCode, Response, Text};
use fulmar::counters::{SystemCounter, label, type_id};
use fulmar::id::{ClientId, CorrelationId, RegistrationId, SessionId, StreamId};
use fulmar::uri::ChannelUri;

use super::agent::Conductor;
use super::clients::{ClientRecord, OwnedCounter};
use super::services::{CommandFailure, CounterSpec};
use super::sources;
use crate::config::TerminationValidator;
use crate::stream::written_log::State;

/// Commands that waited which one duty cycle takes up.
const HELD_PER_CYCLE: usize = 16;

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
            let (pending, look_ups) = (&self.pending, &self.look_ups);
            let is_busy = |client_id| pending.has_client(client_id) || look_ups.has_client(client_id);
            let Some(held) = self.held.next(is_busy) else {
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
        self.pending.has_client(client_id) || self.look_ups.has_client(client_id) || self.held.has(client_id)
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
            Command::AddDestination {
                registration_id,
                channel,
            } => self.on_add_send_destination(header, registration_id, channel),
            Command::RemoveDestination {
                registration_id,
                channel,
            } => self.on_remove_send_destination(header, registration_id, channel),
            Command::RemoveDestinationById {
                registration_id,
                destination_registration_id,
            } => {
                self.on_remove_send_destination_by_id(header, registration_id, destination_registration_id);
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
        self.set_caps();
        self.services.respond(&Response::CounterReady {
            registration_id: RegistrationId(client_id.0),
            counter_id: heartbeat_id,
        });
        Ok(())
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
        self.reject(image, reason)?;
        self.services.succeed(header.correlation_id);
        self.services.increment(SystemCounter::ImagesRejected);
        Ok(())
    }

    fn reject(&mut self, image: CorrelationId, reason: Text<'_>) -> Result<(), CommandFailure> {
        let ipc = self
            .publication_index(RegistrationId(image.0))
            .filter(|index| self.publications[*index].state() != State::Linger);
        if let Some(index) = ipc {
            self.reject_ipc(index, reason);
            return Ok(());
        }
        if self.reject_network_image(image, reason) {
            return Ok(());
        }
        Err(CommandFailure::new(
            ErrorCode::GenericError,
            format!("can not reject image {image}: there is no such image"),
        ))
    }

    fn reject_ipc(&mut self, index: usize, reason: Text<'_>) {
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
        // Taken out for the search, which looks at everything else.
        let mut ids = self.session_ids.clone();
        let next = ids.next(|session_id| self.uses_session(stream_id, session_id));
        self.session_ids = ids;
        next.ok_or_else(|| {
            CommandFailure::new(
                ErrorCode::GenericError,
                format!("no session id is free for stream {stream_id}"),
            )
        })
    }
}

/// The channel of a command, as text and taken apart.
pub(super) fn parse_channel(channel: Text<'_>) -> Result<(&str, ChannelUri), CommandFailure> {
    let text = channel.to_str().map_err(|error| {
        CommandFailure::new(
            ErrorCode::InvalidChannel,
            format!("invalid URI scheme or transport: the channel is no UTF-8 text: {error}"),
        )
    })?;
    let uri = ChannelUri::parse(text)
        .map_err(|error| CommandFailure::new(ErrorCode::InvalidChannel, error.to_string()))?;
    Ok((text, uri))
}

pub(super) fn unknown_publication(registration_id: RegistrationId) -> CommandFailure {
    CommandFailure::new(
        ErrorCode::UnknownPublication,
        format!("unknown publication: registration id {registration_id}"),
    )
    .counted_as("unknown publication")
}

pub(super) fn unknown_subscription(registration_id: RegistrationId) -> CommandFailure {
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
