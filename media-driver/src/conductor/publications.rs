//! Adding, sharing and removing publications (shared-memory spec 7.4, 13.4, 13.5).
#![forbid(unsafe_code)]

use fulmar::control::response::PublicationReady;
use fulmar::control::{CommandHeader, ErrorCode, Response, Text};
use fulmar::counters::{SystemCounter, label, type_id};
use fulmar::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::{LogInit, LogType};
use fulmar::position::PositionShape;
use fulmar::uri::{InitialPosition, Role};

use super::agent::Conductor;
use super::channels::Wanted;
use super::client_commands::{parse_channel, unknown_publication};
use super::network_publications::NetworkPublication;
use super::services::{CommandFailure, CounterSpec};
use super::sources::{self, Identity, LOCAL_SOURCE_IDENTITY, Source};
use crate::commands::{CreateLog, CreatedLog, DeleteLog, EndpointId, ResourceCommand, ResourceError};
use crate::config::{PublicationParams, TaggedPublication, UntetheredTimeouts};
use crate::media::udp_channel::ChannelSpec;
use crate::protocol::flow_control::FlowControl;
use crate::stream::ipc_publication::{IpcPublication, NewIpcPublication};
use crate::stream::position_counter::PositionCounter;
use crate::stream::subscribers::Subscriber;
use crate::stream::written_log::{Reference, State, WrittenLog};

/// What only network publications have while their log is being made.
#[derive(Debug)]
pub(super) struct NetworkPart {
    pub(super) endpoint: EndpointId,
    pub(super) has_group_semantics: bool,
    /// Hops as the channel gives them, else 0.
    pub(super) ttl: i32,
    pub(super) flow_control: FlowControl,
}

/// A publication whose log is being made.
#[derive(Debug)]
pub(super) struct PendingPublication {
    pub(super) header: CommandHeader,
    pub(super) channel: String,
    pub(super) params: PublicationParams,
    pub(super) exclusive: bool,
    session_id: SessionId,
    stream_id: StreamId,
    pub(super) start_position: i64,
    network: Option<NetworkPart>,
    /// Those who asked for the same publication meanwhile; they share it once it is there.
    followers: Vec<(CommandHeader, PublicationParams)>,
}

impl PendingPublication {
    fn endpoint(&self) -> Option<EndpointId> {
        self.network.as_ref().map(|network| network.endpoint)
    }
}

/// Publications whose logs are being made, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    publications: Vec<PendingPublication>,
}

impl Pending {
    /// Whether a command of this client is under way.
    pub(super) fn has_client(&self, client_id: ClientId) -> bool {
        self.publications.iter().any(|pending| {
            pending.header.client_id == client_id
                || pending
                    .followers
                    .iter()
                    .any(|(header, _)| header.client_id == client_id)
        })
    }

    /// Whether a publication on this endpoint is under way.
    pub(super) fn uses_endpoint(&self, endpoint: EndpointId) -> bool {
        self.publications
            .iter()
            .any(|pending| pending.endpoint() == Some(endpoint))
    }
}

/// How often one publication may be shared.
const REFERENCES_MAX: usize = 16_384;

/// A publication that exists: which list it is in, and where.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Ipc(usize),
    Network(usize),
}

impl Source for IpcPublication {
    fn identity(&self) -> Identity<'_> {
        Identity {
            image: self.registration_id.into(),
            session_id: self.session_id,
            stream_id: self.stream_id,
            log_path: &self.log_path,
            source: LOCAL_SOURCE_IDENTITY,
        }
    }

    fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    fn subscribers_mut(&mut self) -> &mut [Subscriber] {
        &mut self.subscribers
    }

    fn join_position(&self) -> i64 {
        IpcPublication::join_position(self)
    }

    fn link(&mut self, subscriber: Subscriber) {
        IpcPublication::link(self, subscriber);
    }

    fn unlink(&mut self, matches: &mut dyn FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        IpcPublication::unlink(self, matches)
    }

    fn untethered(&self) -> (UntetheredTimeouts, i64) {
        (self.params.untethered, self.untethered_threshold())
    }
}

impl Conductor {
    pub(super) fn on_add_publication(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        channel: Text<'_>,
        exclusive: bool,
    ) -> Result<(), CommandFailure> {
        let (text, uri) = parse_channel(channel)?;
        let params = PublicationParams::from_uri_with(&uri, &self.context, |tag| self.tagged(tag))?;
        if uri.is_ipc() {
            self.admit_client(header.client_id)?;
            return self.share_or_start(header, stream_id, text, params, exclusive, None);
        }
        let spec = ChannelSpec::from_uri(&uri, Role::Publication)?;
        self.admit_client(header.client_id)?;
        let params = Box::new(params);
        let wanted = Wanted::Publication {
            stream_id,
            params,
            exclusive,
        };
        self.with_channel(header, spec, wanted)
    }

    /// The network publication with this entity tag.
    fn tagged(&self, tag: i64) -> Option<TaggedPublication> {
        let is_it = |publication: &&NetworkPublication| publication.half.params.entity_tag == tag;
        let half = &self.network_publications.iter().find(is_it)?.half;
        Some(TaggedPublication {
            session_id: half.session_id,
            mtu_length: half.params.mtu_length,
            term_length: half.params.term_length,
        })
    }

    /// Shares the publication that is there already, waits for the one that is being made, or makes a new one.
    pub(super) fn share_or_start(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        text: &str,
        params: PublicationParams,
        exclusive: bool,
        network: Option<NetworkPart>,
    ) -> Result<(), CommandFailure> {
        let endpoint = network.as_ref().map(|network| network.endpoint);
        if exclusive {
            return self.start_publication(header, stream_id, text, params, exclusive, network);
        }
        if let Some(found) = self.find_shareable(stream_id, endpoint, &params) {
            return self.share_publication(header, found, &params);
        }
        let shareable = |pending: &&mut PendingPublication| {
            pending.stream_id == stream_id
                && pending.endpoint() == endpoint
                && !pending.exclusive
                && pending.params.response_correlation_id == params.response_correlation_id
        };
        if let Some(pending) = self.pending.publications.iter_mut().find(shareable) {
            pending.followers.push((header, params));
            return Ok(());
        }
        self.start_publication(header, stream_id, text, params, exclusive, network)
    }

    fn find_shareable(
        &self,
        stream_id: StreamId,
        endpoint: Option<EndpointId>,
        params: &PublicationParams,
    ) -> Option<Found> {
        let response = params.response_correlation_id;
        let Some(endpoint) = endpoint else {
            let is_it = |publication: &IpcPublication| {
                publication.stream_id == stream_id
                    && !publication.exclusive
                    && publication.state() == State::Active
                    && !publication.revocation_is_pending()
                    && publication.params.response_correlation_id == response
            };
            return self.publications.iter().position(is_it).map(Found::Ipc);
        };
        let is_it = |NetworkPublication { half, .. }: &NetworkPublication| {
            half.stream_id == stream_id
                && half.endpoint == endpoint
                && !half.exclusive
                && half.state() == State::Active
                && !half.revocation_is_pending()
                && half.params.response_correlation_id == response
        };
        self.network_publications
            .iter()
            .position(is_it)
            .map(Found::Network)
    }

    fn share_publication(
        &mut self,
        header: CommandHeader,
        found: Found,
        params: &PublicationParams,
    ) -> Result<(), CommandFailure> {
        let (existing, session_id, references) = match found {
            Found::Ipc(index) => {
                let publication = &mut self.publications[index];
                (
                    &publication.params,
                    publication.session_id,
                    &mut publication.references,
                )
            }
            Found::Network(index) => {
                let half = &mut self.network_publications[index].half;
                (&half.params, half.session_id, &mut half.references)
            }
        };
        existing.check_clash(params, session_id)?;
        if references.len() >= REFERENCES_MAX {
            return Err(CommandFailure::new(
                ErrorCode::GenericError,
                format!("the publication is shared {REFERENCES_MAX} times already: close unused ones"),
            ));
        }
        references.push(Reference {
            registration_id: header.correlation_id.into(),
            client_id: header.client_id,
        });
        self.announce_found(header, found);
        Ok(())
    }

    fn announce_found(&mut self, header: CommandHeader, found: Found) {
        match found {
            Found::Ipc(index) => self.announce_publication(header, index),
            Found::Network(index) => self.announce_network_publication(header, index),
        }
    }

    fn start_publication(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        text: &str,
        mut params: PublicationParams,
        exclusive: bool,
        network: Option<NetworkPart>,
    ) -> Result<(), CommandFailure> {
        let endpoint = network.as_ref().map(|network| network.endpoint);
        let session_id = match params.session_id {
            Some(session_id) => self.claim_session_id(stream_id, endpoint, session_id)?,
            None => self.next_session_id(stream_id)?,
        };
        let registration_id = RegistrationId::from(header.correlation_id);
        let start = params.position.unwrap_or_else(|| {
            let initial = TermId(self.random.i32(..));
            InitialPosition {
                initial_term_id: initial,
                term_id: initial,
                term_offset: 0,
            }
        });
        params.settle(session_id, start.initial_term_id);
        let (initial_term_id, start_term_id, start_term_offset) =
            (start.initial_term_id, start.term_id, start.term_offset);
        let shape = PositionShape::new(params.term_length, initial_term_id);
        let mut init = LogInit::ipc_default(
            registration_id,
            session_id,
            stream_id,
            initial_term_id,
            params.term_length,
        );
        init.mtu_length = params.mtu_length;
        init.start_term_id = start_term_id;
        init.start_term_offset = start_term_offset;
        init.page_size = self.context.file_page_size;
        init.os_default_socket_sndbuf_length = self.os_buffers.default_send_length;
        init.os_default_socket_rcvbuf_length = self.os_buffers.default_receive_length;
        init.publication_window_length = params.publication_window_length;
        init.max_resend = params.max_resend;
        init.entity_tag = params.entity_tag;
        init.response_correlation_id = params.response_correlation_id;
        init.linger_timeout_ns = params.linger_timeout_ns;
        init.untethered_window_limit_timeout_ns = params.untethered.window_limit_ns;
        init.untethered_linger_timeout_ns = params.untethered.linger_ns;
        init.untethered_resting_timeout_ns = params.untethered.resting_ns;
        init.is_response = params.is_response;
        init.sparse = params.sparse;
        init.signal_eos = params.signal_eos;
        init.spies_simulate_connection = params.spies_simulate_connection;
        init.group = network
            .as_ref()
            .is_some_and(|network| network.has_group_semantics);
        init.socket_sndbuf_length = params.socket_sndbuf_length;
        init.socket_rcvbuf_length = params.socket_rcvbuf_length;
        init.log_type = if exclusive {
            LogType::Exclusive
        } else {
            LogType::Concurrent
        };
        self.resource_commands
            .offer(ResourceCommand::CreateLog(Box::new(CreateLog {
                registration_id,
                init,
            })))
            .map_err(|_| {
                self.services.increment(SystemCounter::ResourceAgentProxyFails);
                CommandFailure::new(
                    ErrorCode::ResourceTemporarilyUnavailable,
                    "the driver is busy, try again",
                )
            })?;
        self.pending.publications.push(PendingPublication {
            header,
            channel: text.to_owned(),
            params,
            exclusive,
            session_id,
            stream_id,
            start_position: shape.position(start_term_id, start_term_offset),
            network,
            followers: Vec::new(),
        });
        Ok(())
    }

    fn claim_session_id(
        &self,
        stream_id: StreamId,
        endpoint: Option<EndpointId>,
        session_id: SessionId,
    ) -> Result<SessionId, CommandFailure> {
        let taken = self.has_session(stream_id, endpoint, session_id);
        if taken {
            return Err(CommandFailure::new(
                ErrorCode::InvalidChannel,
                format!(
                    "session-id {session_id} is in use on stream {stream_id}: choose another or leave it out"
                ),
            ));
        }
        Ok(session_id)
    }

    /// Whether a publication of the stream on this endpoint, or an IPC publication, has this session or is about to.
    fn has_session(&self, stream_id: StreamId, endpoint: Option<EndpointId>, session_id: SessionId) -> bool {
        let is_live = match endpoint {
            None => self.publications.iter().any(|publication| {
                publication.stream_id == stream_id
                    && publication.session_id == session_id
                    && publication.state() != State::Linger
            }),
            Some(endpoint) => self.network_publications.iter().any(|publication| {
                let half = &publication.half;
                half.endpoint == endpoint && half.stream_id == stream_id && half.session_id == session_id
            }),
        };
        is_live
            || self.pending.publications.iter().any(|pending| {
                pending.stream_id == stream_id
                    && pending.session_id == session_id
                    && pending.endpoint() == endpoint
            })
    }

    /// Whether any publication of the stream has this session or is about to.
    pub(super) fn uses_session(&self, stream_id: StreamId, session_id: SessionId) -> bool {
        let ipc = self
            .publications
            .iter()
            .filter(|publication| publication.state() != State::Linger)
            .map(|publication| (publication.stream_id, publication.session_id));
        let network = self
            .network_publications
            .iter()
            .map(|publication| (publication.half.stream_id, publication.half.session_id));
        let pending = self
            .pending
            .publications
            .iter()
            .map(|pending| (pending.stream_id, pending.session_id));
        ipc.chain(network)
            .chain(pending)
            .any(|taken| taken == (stream_id, session_id))
    }

    pub(super) fn on_log_created(
        &mut self,
        registration_id: RegistrationId,
        result: Result<Box<CreatedLog>, ResourceError>,
    ) {
        if let Ok(created) = &result {
            self.services
                .add(SystemCounter::BytesMapped, created.log.region().len() as i64);
        }
        let is_it = |pending: &PendingPublication| pending.header.correlation_id.0 == registration_id.0;
        if let Some(position) = self.pending.publications.iter().position(is_it) {
            let pending = self.pending.publications.remove(position);
            self.on_publication_log(pending, result);
        } else if let Some(pending) = self.take_pending_image(registration_id) {
            self.on_image_log(pending, result);
        } else if let Ok(created) = result {
            // Nobody waits for it any more.
            self.delete_log(created.path, created.log);
        }
    }

    fn on_publication_log(
        &mut self,
        mut pending: PendingPublication,
        result: Result<Box<CreatedLog>, ResourceError>,
    ) {
        let mut followers = core::mem::take(&mut pending.followers);
        followers.retain(|(header, _)| self.is_attached(header.client_id));
        let (leader, endpoint) = (pending.header, pending.endpoint());
        let outcome = match result {
            Ok(created) if self.is_attached(leader.client_id) || !followers.is_empty() => {
                self.complete(pending, *created)
            }
            Ok(created) => {
                self.delete_log(created.path, created.log);
                if let Some(endpoint) = endpoint {
                    self.release_send_endpoint(endpoint);
                }
                return;
            }
            Err(error) => Err(CommandFailure::new(error.code, error.text).counted_as(error.key)),
        };
        let found = match outcome {
            Ok(found) => found,
            Err(failure) => {
                for header in core::iter::once(leader).chain(followers.into_iter().map(|(header, _)| header))
                {
                    self.services.fail(header.correlation_id, &failure);
                }
                if let Some(endpoint) = endpoint {
                    self.release_send_endpoint(endpoint);
                }
                return;
            }
        };
        for (header, params) in followers {
            if let Err(failure) = self.share_publication(header, found, &params) {
                self.services.fail(header.correlation_id, &failure);
            }
        }
        if !self.is_attached(leader.client_id) {
            // It went while the log was made; those who share it go on.
            let is_gone = |reference: &Reference| reference.client_id == leader.client_id;
            self.written_log(found).remove_references(&is_gone);
        }
    }

    fn complete(
        &mut self,
        mut pending: PendingPublication,
        created: CreatedLog,
    ) -> Result<Found, CommandFailure> {
        match pending.network.take() {
            None => self.complete_publication(pending, created).map(Found::Ipc),
            Some(network) => self
                .complete_network_publication(pending, network, created)
                .map(Found::Network),
        }
    }

    pub(super) fn is_attached(&self, client_id: ClientId) -> bool {
        self.clients.iter().any(|client| client.id == client_id)
    }

    fn complete_publication(
        &mut self,
        pending: PendingPublication,
        created: CreatedLog,
    ) -> Result<usize, CommandFailure> {
        let PendingPublication {
            header,
            channel,
            params,
            exclusive,
            start_position,
            ..
        } = pending;
        let window = params.publication_window_length;
        let CreatedLog { log, path } = created;
        let position_name = if exclusive {
            "pub-pos (exclusive)"
        } else {
            "pub-pos (concurrent)"
        };
        let counters = self
            .allocate_stream_counter(
                &header,
                &channel,
                &log,
                type_id::PUBLISHER_POSITION,
                position_name,
            )
            .and_then(|position| {
                match self.allocate_stream_counter(
                    &header,
                    &channel,
                    &log,
                    type_id::PUBLISHER_LIMIT,
                    "pub-lmt",
                ) {
                    Ok(limit) => Ok((position, limit)),
                    Err(failure) => {
                        self.services.free_counter(position.id);
                        Err(failure)
                    }
                }
            });
        let (publisher_position, publisher_limit) = match counters {
            Ok(counters) => counters,
            Err(failure) => {
                self.delete_log(path, log);
                return Err(failure);
            }
        };
        let mut publication = IpcPublication::new(
            NewIpcPublication {
                registration_id: header.correlation_id.into(),
                channel,
                params,
                exclusive,
                log,
                log_path: path,
                publisher_limit,
                publisher_position,
                start_position,
                window,
            },
            self.services.timer,
        );
        publication.references.push(Reference {
            registration_id: header.correlation_id.into(),
            client_id: header.client_id,
        });
        self.bind_response(&publication);
        self.publications.push(publication);
        let index = self.publications.len() - 1;
        self.announce_publication(header, index);
        self.link_all(index);
        Ok(index)
    }

    pub(super) fn allocate_stream_counter(
        &mut self,
        header: &CommandHeader,
        channel: &str,
        log: &fulmar::log::LogBuffers,
        type_id: i32,
        name: &str,
    ) -> Result<PositionCounter, CommandFailure> {
        let registration_id = RegistrationId::from(header.correlation_id);
        let key = type_id::stream_key(registration_id, log.session_id(), log.stream_id(), channel);
        let label = label::stream_label(name, registration_id, log.session_id(), log.stream_id(), channel);
        let id = self.services.allocate(&CounterSpec {
            type_id,
            key: &key,
            label: label.as_bytes(),
            registration_id: registration_id.0,
            owner_id: header.client_id.0,
            reference_id: 0,
        })?;
        Ok(PositionCounter {
            id,
            value: self.services.counter(id),
        })
    }

    /// A response publication names its request publication, and that one the response subscription: from now on the
    /// subscription takes this session (spec 13.6).
    fn bind_response(&mut self, publication: &IpcPublication) {
        let request = publication.params.response_correlation_id;
        let Some(index) = self.publication_index(RegistrationId(request)) else {
            return;
        };
        let subscription = self.publications[index].params.response_correlation_id;
        for link in self.links.iter_mut() {
            if link.is_response && link.registration_id.0 == subscription && link.session_id.is_none() {
                link.session_id = Some(publication.session_id);
            }
        }
    }

    fn announce_publication(&mut self, header: CommandHeader, index: usize) {
        let publication = &self.publications[index];
        let ready = PublicationReady {
            correlation_id: header.correlation_id,
            original_registration_id: publication.registration_id,
            session_id: publication.session_id,
            stream_id: publication.stream_id,
            position_limit_counter_id: publication.publisher_limit.id,
            channel_status_counter_id: CounterId::NONE,
            log_path: Text::from(publication.log_path.as_str()),
        };
        let response = if publication.exclusive {
            Response::ExclusivePublicationReady(ready)
        } else {
            Response::PublicationReady(ready)
        };
        self.services.respond(&response);
    }

    /// Links every subscription that matches and is not linked yet.
    pub(super) fn link_all(&mut self, index: usize) {
        let publication = &mut self.publications[index];
        for link in self.links.iter() {
            if link.matches(publication) {
                sources::link_image(&mut self.services, publication, link);
            }
        }
    }

    pub(super) fn on_remove_publication(
        &mut self,
        header: CommandHeader,
        registration_id: RegistrationId,
        revoke: bool,
    ) -> Result<(), CommandFailure> {
        let wanted = Reference {
            registration_id,
            client_id: header.client_id,
        };
        let is_wanted = |reference: &Reference| *reference == wanted;
        let ipc = self
            .publications
            .iter_mut()
            .find(|publication| publication.references.contains(&wanted));
        if let Some(publication) = ipc {
            if revoke {
                publication.mark_revoked();
            }
            publication.remove_references(&is_wanted);
            self.services.succeed(header.correlation_id);
            return Ok(());
        }
        let network = self
            .network_publications
            .iter_mut()
            .find(|publication| publication.half.references.contains(&wanted));
        let Some(NetworkPublication { half, .. }) = network else {
            return Err(unknown_publication(registration_id));
        };
        if revoke {
            half.mark_revoked();
        }
        half.remove_references(&is_wanted);
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    /// Hands a log to the resource agent for removal, which unmaps it, as nobody here holds it any more. When the lane is
    /// full the log is dropped here: slow, but rare, and nothing leaks.
    pub(super) fn delete_log(&mut self, path: String, log: fulmar::log::LogBuffers) {
        self.visits.forget();
        let command = ResourceCommand::DeleteLog(Box::new(DeleteLog { path, log }));
        if let Err(command) = self.resource_commands.offer(command) {
            self.services.increment(SystemCounter::ResourceAgentProxyFails);
            self.undelivered.push(command);
        }
    }

    /// Frees the counters of an ended publication and hands its log over.
    pub(super) fn free_publication(&mut self, index: usize) {
        let mut publication = self.publications.remove(index);
        for subscriber in publication.unlink(|_| true) {
            self.services.free_counter(subscriber.counter_id);
        }
        self.services.free_counter(publication.publisher_limit.id);
        self.services.free_counter(publication.publisher_position.id);
        let IpcPublication { log_path, log, .. } = publication;
        self.delete_log(log_path, log);
    }
}
