//! Network publications: made, joined to spies, and taken through their life cycle (shared-memory spec 13.11; wire-protocol
//! 3.11, 3.12, 7). The sender has one half; it comes back before the log is freed.
#![forbid(unsafe_code)]

use std::sync::Arc;

use fulmar::control::response::PublicationError;
use fulmar::control::{CommandHeader, ErrorCode, Response, Text};
use fulmar::counters::{SystemCounter, label, type_id};
use fulmar::id::{CounterId, RegistrationId, SessionId, StreamId};
use fulmar::log::LogBuffers;
use fulmar::uri::params::PROTOTYPE_CORRELATION_ID;

use super::agent::Conductor;
use super::endpoints::BufferLengths;
use super::publications::{Found, NetworkPart, PendingPublication};
use super::services::{CommandFailure, CounterSpec};
use super::sources::{self, Identity, LOCAL_SOURCE_IDENTITY, Source};
use super::subscriptions::LinkKind;
use crate::commands::{CreatedLog, EndpointCommand, EndpointId, SenderCommand};
use crate::config::{PublicationParams, UntetheredTimeouts};
use crate::media::udp_channel::UdpChannel;
use crate::protocol::flow_control::FlowControl;
use crate::stream::position_counter::PositionCounter;
use crate::stream::publication_conductor::{LifeCycle, NewNetworkPublication, PublicationConductor};
use crate::stream::publication_sender::{
    PublicationErrorReport, PublicationParts, PublicationSender, SenderCounters, SenderLimits, SenderTraits,
};
use crate::stream::publication_shared::PublicationShared;
use crate::stream::subscribers::Subscriber;
use crate::stream::written_log::{Reference, State};

/// No correlation id.
const NONE: i64 = -1;

/// The conductor's view of a network publication.
#[derive(Debug)]
pub(super) struct NetworkPublication {
    pub(super) half: PublicationConductor,
    /// Counters that the sender writes.
    counters: Vec<CounterId>,
    /// Whether the sender was asked to give its half back.
    is_leaving: bool,
}

impl Source for NetworkPublication {
    fn identity(&self) -> Identity<'_> {
        Identity {
            image: self.half.registration_id.into(),
            session_id: self.half.session_id,
            stream_id: self.half.stream_id,
            log_path: &self.half.log_path,
            source: LOCAL_SOURCE_IDENTITY,
        }
    }

    fn subscribers(&self) -> &[Subscriber] {
        &self.half.subscribers
    }

    fn subscribers_mut(&mut self) -> &mut [Subscriber] {
        &mut self.half.subscribers
    }

    fn join_position(&self) -> i64 {
        self.half.join_position()
    }

    fn link(&mut self, subscriber: Subscriber) {
        self.half.link(subscriber);
    }

    fn unlink(&mut self, matches: &mut dyn FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        self.half.unlink(matches)
    }

    fn untethered(&self) -> (UntetheredTimeouts, i64) {
        (self.half.params.untethered, self.half.untethered_threshold())
    }
}

impl Conductor {
    /// Adds a publication whose channel has its addresses.
    pub(super) fn add_network_publication(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        channel: UdpChannel,
        params: PublicationParams,
        exclusive: bool,
    ) -> Result<(), CommandFailure> {
        self.check_response(&channel, &params)?;
        let flow_control = self.flow_control(&channel)?;
        let buffers = BufferLengths {
            send: params.socket_sndbuf_length,
            receive: params.socket_rcvbuf_length,
        };
        let text = channel.spec.uri.as_str().to_owned();
        let network = |endpoint| NetworkPart {
            endpoint,
            has_group_semantics: channel.has_group_semantics(),
            ttl: channel.ttl.map_or(0, i32::from),
            flow_control,
        };
        let endpoint = self.send_endpoint_for(header.correlation_id, channel.clone(), buffers)?;
        let network = network(endpoint);
        let outcome = self.share_or_start(header, stream_id, &text, params, exclusive, Some(network));
        if outcome.is_err() {
            self.release_send_endpoint(endpoint);
        }
        outcome
    }

    fn flow_control(&self, channel: &UdpChannel) -> Result<FlowControl, CommandFailure> {
        if !channel.has_group_semantics() {
            return Ok(FlowControl::unicast(&self.context));
        }
        let uri = &channel.spec.uri;
        let asked = uri
            .params()
            .flow_control()
            .map_err(|error| CommandFailure::new(ErrorCode::GenericError, format!("{error}: {uri}")))?;
        Ok(FlowControl::group(asked.as_ref(), &self.context)?)
    }

    /// Whether what a publication answers to, or is answered by, exists (wire-protocol 7).
    fn check_response(&self, channel: &UdpChannel, params: &PublicationParams) -> Result<(), CommandFailure> {
        let id = params.response_correlation_id;
        if id == NONE || (params.is_response && id == PROTOTYPE_CORRELATION_ID) {
            return Ok(());
        }
        let fault = if params.is_response {
            let image = self.images.iter().find(|image| image.half.correlation_id.0 == id);
            match image {
                None => "no image has this id",
                Some(image) if !image.wants_response => "the image's publication takes no response",
                Some(_) => return Ok(()),
            }
        } else {
            let is_it = |kind: &LinkKind| matches!(kind, LinkKind::Network(_));
            let exists = self
                .links
                .iter()
                .any(|link| link.registration_id.0 == id && is_it(&link.kind));
            if exists {
                return Ok(());
            }
            "no network subscription has this registration id"
        };
        Err(CommandFailure::new(
            ErrorCode::GenericError,
            format!(
                "invalid response-correlation-id={id}: {fault}: {}",
                channel.spec.uri
            ),
        ))
    }

    /// Makes both halves of a publication whose log is there.
    pub(super) fn complete_network_publication(
        &mut self,
        pending: PendingPublication,
        network: NetworkPart,
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
        let CreatedLog { log, path } = created;
        let mut allocated = Vec::new();
        let counters =
            self.allocate_network_counters(&header, &channel, &log, exclusive, &network, &mut allocated);
        let counters = match counters {
            Ok(counters) => counters,
            Err(failure) => {
                for id in allocated {
                    self.services.free_counter(id);
                }
                self.delete_log(path, log);
                return Err(failure);
            }
        };
        let (publisher_position, publisher_limit, counters) = counters;
        let shared = Arc::new(PublicationShared::new(start_position));
        let sender = PublicationSender::new(
            PublicationParts {
                registration_id: header.correlation_id.into(),
                log: log.clone(),
                initial_position: start_position,
                ttl: network.ttl,
                response_correlation_id: params.response_correlation_id,
                traits: SenderTraits {
                    has_group_semantics: network.has_group_semantics,
                    is_response: params.is_response,
                    signal_eos: params.signal_eos,
                    spies_simulate_connection: params.spies_simulate_connection,
                },
                flow_control: network.flow_control,
                limits: SenderLimits::new(&self.context, &params),
                counters,
                system: Arc::clone(&self.network_counters),
                shared: Arc::clone(&shared),
            },
            self.services.now.nanos,
        );
        let kept = [publisher_position.id, publisher_limit.id];
        allocated.retain(|id| !kept.contains(id));
        let mut half = PublicationConductor::new(
            NewNetworkPublication {
                registration_id: header.correlation_id.into(),
                endpoint: network.endpoint,
                channel,
                params,
                exclusive,
                log,
                log_path: path,
                publisher_limit,
                publisher_position,
                start_position,
                shared,
            },
            self.services.timer,
        );
        half.references.push(Reference {
            registration_id: header.correlation_id.into(),
            client_id: header.client_id,
        });
        self.sender.send(SenderCommand::AddPublication {
            endpoint: network.endpoint,
            publication: Box::new(sender),
        });
        self.bind_network_response(&half);
        self.network_publications.push(NetworkPublication {
            half,
            counters: allocated,
            is_leaving: false,
        });
        let index = self.network_publications.len() - 1;
        self.announce_network_publication(header, index);
        self.link_spies(index);
        Ok(index)
    }

    fn allocate_network_counters(
        &mut self,
        header: &CommandHeader,
        channel: &str,
        log: &LogBuffers,
        exclusive: bool,
        network: &NetworkPart,
        allocated: &mut Vec<CounterId>,
    ) -> Result<(PositionCounter, PositionCounter, SenderCounters), CommandFailure> {
        let position_name = if exclusive {
            "pub-pos (exclusive)"
        } else {
            "pub-pos (concurrent)"
        };
        let mut allocate = |type_id, name| {
            let counter = self.allocate_stream_counter(header, channel, log, type_id, name)?;
            allocated.push(counter.id);
            Ok::<_, CommandFailure>(counter)
        };
        let publisher_position = allocate(type_id::PUBLISHER_POSITION, position_name)?;
        let publisher_limit = allocate(type_id::PUBLISHER_LIMIT, "pub-lmt")?;
        let position = allocate(type_id::SENDER_POSITION, "snd-pos")?.value;
        let limit = allocate(type_id::SENDER_LIMIT, "snd-lmt")?.value;
        let back_pressure = allocate(type_id::SENDER_BACK_PRESSURE, "snd-bpe")?.value;
        let naks_received = allocate(type_id::SENDER_NAKS_RECEIVED, "snd-naks-received")?.value;
        let flow_control_receivers = if network.flow_control.receivers().is_some() {
            let registration_id = RegistrationId::from(header.correlation_id);
            let (session_id, stream_id) = (log.session_id(), log.stream_id());
            let label = label::stream_label("fc-receivers", registration_id, session_id, stream_id, channel);
            let id = self.services.allocate(&CounterSpec {
                type_id: type_id::FLOW_CONTROL_RECEIVERS,
                key: &type_id::stream_key(registration_id, session_id, stream_id, channel),
                label: label.as_bytes(),
                registration_id: registration_id.0,
                owner_id: -1,
                reference_id: 0,
            })?;
            allocated.push(id);
            Some(self.services.counter(id))
        } else {
            None
        };
        let counters = SenderCounters {
            position,
            limit,
            back_pressure,
            naks_received,
            flow_control_receivers,
        };
        Ok((publisher_position, publisher_limit, counters))
    }

    pub(super) fn announce_network_publication(&mut self, header: CommandHeader, index: usize) {
        let half = &self.network_publications[index].half;
        let status = self
            .send_endpoint(half.endpoint)
            .map_or(CounterId::NONE, |endpoint| endpoint.status.id);
        let ready = fulmar::control::response::PublicationReady {
            correlation_id: header.correlation_id,
            original_registration_id: half.registration_id,
            session_id: half.session_id,
            stream_id: half.stream_id,
            position_limit_counter_id: half.publisher_limit.id,
            channel_status_counter_id: status,
            log_path: Text::from(half.log_path.as_str()),
        };
        let response = if half.exclusive {
            Response::ExclusivePublicationReady(ready)
        } else {
            Response::PublicationReady(ready)
        };
        self.services.respond(&response);
    }

    // Spies

    /// Whether a link spies on a publication (spec 13.6).
    fn spies_on(&self, kind: &LinkKind, session_taken: bool, endpoint: EndpointId) -> bool {
        let LinkKind::Spy { canonical_form, tag } = kind else {
            return false;
        };
        let Some(endpoint) = self.send_endpoint(endpoint) else {
            return false;
        };
        let same_tag = tag.is_some() && *tag == endpoint.channel.tag;
        same_tag || (session_taken && *canonical_form == endpoint.channel.canonical_form)
    }

    /// Links every spy that matches a publication.
    fn link_spies(&mut self, index: usize) {
        let half = &self.network_publications[index].half;
        if !half.accepts_subscribers() {
            return;
        }
        let (stream_id, session_id, endpoint) = (half.stream_id, half.session_id, half.endpoint);
        let spies: Vec<_> = self
            .links
            .iter()
            .filter(|link| {
                link.stream_id == stream_id
                    && self.spies_on(&link.kind, link.takes_session(session_id), endpoint)
            })
            .cloned()
            .collect();
        for link in spies {
            sources::link_image(&mut self.services, &mut self.network_publications[index], &link);
        }
    }

    /// Links a spy to every publication that it matches.
    pub(super) fn link_spy(&mut self, link: &super::subscriptions::SubscriptionLink) {
        for index in 0..self.network_publications.len() {
            let half = &self.network_publications[index].half;
            let is_spied = link.stream_id == half.stream_id
                && half.accepts_subscribers()
                && self.spies_on(&link.kind, link.takes_session(half.session_id), half.endpoint);
            if is_spied {
                sources::link_image(&mut self.services, &mut self.network_publications[index], link);
            }
        }
    }

    // Response channels

    /// A response publication tells the image it answers, which then asks for it (wire-protocol 7 step 4).
    fn bind_network_response(&mut self, half: &PublicationConductor) {
        if !half.params.is_response {
            return;
        }
        let id = half.params.response_correlation_id;
        if let Some(image) = self.images.iter().find(|image| image.half.correlation_id.0 == id) {
            image.half.set_response_session(half.session_id);
            self.receiver.ring();
        }
    }

    /// The other end has a response publication with this session: the response subscription takes it from now on, and
    /// its SETUP is asked for (step 5).
    pub(super) fn on_response_setup(&mut self, subscription: i64, session_id: SessionId) {
        let is_it = |link: &&super::subscriptions::SubscriptionLink| {
            link.is_response && link.registration_id.0 == subscription && link.kind.endpoint().is_some()
        };
        let Some(link) = self.links.iter().find(is_it).cloned() else {
            return;
        };
        let mut bound = link.clone();
        bound.session_id = Some(session_id);
        if link.session_id != Some(session_id) {
            self.add_interest(&bound);
            for candidate in self.links.iter_mut().filter(|candidate| candidate.id == link.id) {
                candidate.session_id = Some(session_id);
            }
            self.remove_interest(&link);
        }
        if let Some(endpoint) = link.kind.endpoint() {
            self.receiver
                .send(EndpointCommand::RequestSetup(link.stream_id, session_id).at(endpoint));
        }
    }

    /// A response publication has its receiver: the image stops asking for it (step 7).
    pub(super) fn on_response_connected(&mut self, image: i64) {
        if let Some(image) = self
            .images
            .iter()
            .find(|other| other.half.correlation_id.0 == image)
        {
            image.half.response_connected();
        }
    }

    // Life cycle

    pub(super) fn check_network_publications(&mut self) {
        for index in 0..self.network_publications.len() {
            if !self.network_publications[index].is_leaving {
                self.check_network_publication(index);
            }
        }
    }

    fn check_network_publication(&mut self, index: usize) {
        let now = self.services.timer;
        let half = &mut self.network_publications[index].half;
        // A log that was truncated under the driver ends with its publication; other streams go on.
        if half.state() != State::Linger && half.log.region().is_damaged() {
            let text = format!(
                "the log {} was truncated by another process: its publication on stream {} is ended",
                half.log_path, half.stream_id
            );
            half.abandon(now);
            self.services.record_error(ErrorCode::GenericError, &text);
            self.end_spies(index);
            return;
        }
        if half.state() != State::Linger {
            let publication = &mut self.network_publications[index];
            sources::check_untethered(&mut self.services, &self.links, publication);
        }
        match self.network_publications[index].half.on_timer(now) {
            LifeCycle::Unchanged => {
                let half = &self.network_publications[index].half;
                if half.state() == State::Active && !half.exclusive {
                    self.check_blocked(Found::Network(index));
                }
            }
            LifeCycle::Revoked => {
                self.services.increment(SystemCounter::PublicationsRevoked);
                self.end_spies(index);
            }
            LifeCycle::Drained => self.end_spies(index),
            LifeCycle::Stuck(position) => self.unblock_drained(Found::Network(index), position),
            LifeCycle::Done => {
                let publication = &mut self.network_publications[index];
                publication.is_leaving = true;
                self.sender.send(SenderCommand::RemovePublication {
                    endpoint: publication.half.endpoint,
                    registration_id: publication.half.registration_id,
                });
            }
        }
    }

    fn end_spies(&mut self, index: usize) {
        sources::end_images(
            &mut self.services,
            &self.links,
            &mut self.network_publications[index],
        );
    }

    /// The sender gave a publication back: nobody writes to its counters any more.
    pub(super) fn on_publication_released(&mut self, sender: Box<PublicationSender>) {
        let registration_id = sender.registration_id();
        drop(sender);
        let is_it = |publication: &NetworkPublication| publication.half.registration_id == registration_id;
        if let Some(index) = self.network_publications.iter().position(is_it) {
            let endpoint = self.network_publications[index].half.endpoint;
            self.free_network_publication(index);
            self.release_send_endpoint(endpoint);
        }
    }

    /// Frees the counters of an ended publication and hands its log over.
    pub(super) fn free_network_publication(&mut self, index: usize) {
        let NetworkPublication {
            mut half, counters, ..
        } = self.network_publications.remove(index);
        for subscriber in half.unlink(|_| true) {
            self.services.free_counter(subscriber.counter_id);
        }
        self.services.free_counter(half.publisher_limit.id);
        self.services.free_counter(half.publisher_position.id);
        for id in counters {
            self.services.free_counter(id);
        }
        let PublicationConductor { log_path, log, .. } = half;
        self.delete_log(log_path, log);
    }

    /// A receiver refused a publication: its clients are told (wire-protocol 3.13).
    pub(super) fn on_publication_error(&mut self, report: &PublicationErrorReport) {
        let code = ErrorCode::from_i32(report.error_code);
        self.services
            .respond(&Response::PublicationError(PublicationError {
                registration_id: report.registration_id,
                destination_registration_id: report
                    .destination_registration_id
                    .unwrap_or(RegistrationId(NONE)),
                session_id: report.session_id,
                stream_id: report.stream_id,
                receiver_id: report.receiver_id,
                group_tag: report.group_tag.unwrap_or(NONE),
                source: Some(report.source),
                error_code: code,
                message: Text::from(report.text.as_str()),
            }));
        let mut text = format!(
            "receiver {} at {} refused session {} of stream {}: {}",
            report.receiver_id, report.source, report.session_id, report.stream_id, report.text
        );
        if report.withheld > 0 {
            text.push_str(&format!(
                " ({} refusals before it were too many to be told)",
                report.withheld
            ));
        }
        self.services.record_keyed(code, "publication error", &text);
    }
}
