//! Subscriptions as links: what each wants, and which sources it matches (shared-memory spec 13.6).
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use fulmar::control::{CommandHeader, ErrorCode, Response, Text};
use fulmar::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId};
use fulmar::uri::Role;

use super::agent::Conductor;
use super::channels::Wanted;
use super::client_commands::{parse_channel, unknown_subscription};
use super::services::CommandFailure;
use super::sources::{self, LOCAL_SOURCE_IDENTITY, Source};
use crate::commands::EndpointId;
use crate::config::SubscriptionParams;
use crate::media::udp_channel::{ChannelSpec, UdpChannel};
use crate::stream::ipc_publication::IpcPublication;
use crate::stream::subscribers::{LinkId, Subscriber};

/// Subscriptions and receive destinations that one client may hold.
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 16_384;

/// What kind of source a link takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// IPC publications.
    Ipc,
    /// Network publications of this driver, seen from inside.
    Spy {
        /// The channel they have to have.
        canonical_form: String,
        /// Or the tag of their channel.
        tag: Option<i64>,
    },
    /// Images of a receive endpoint.
    Network(EndpointId),
}

impl LinkKind {
    /// The receive endpoint of a network subscription.
    pub(super) fn endpoint(&self) -> Option<EndpointId> {
        match self {
            Self::Network(endpoint) => Some(*endpoint),
            Self::Ipc | Self::Spy { .. } => None,
        }
    }
}

/// One link of a subscription.
#[derive(Clone, Debug)]
pub(super) struct SubscriptionLink {
    pub(super) id: LinkId,
    pub(super) registration_id: RegistrationId,
    pub(super) client_id: ClientId,
    pub(super) stream_id: StreamId,
    pub(super) channel: String,
    pub(super) kind: LinkKind,
    /// Only this session is taken, when set.
    pub(super) session_id: Option<SessionId>,
    /// Takes nothing until a response publication names it.
    pub(super) is_response: bool,
    /// What its channel asked for.
    pub(super) params: Arc<SubscriptionParams>,
    /// Made by a receive destination of the subscription with the same registration id.
    pub(super) is_destination: bool,
}

impl SubscriptionLink {
    /// Whether this link takes an IPC publication, as far as stream and session go.
    pub(super) fn matches(&self, publication: &IpcPublication) -> bool {
        self.kind == LinkKind::Ipc
            && self.stream_id == publication.stream_id
            && self.takes_session(publication.session_id)
    }

    /// The session rule.
    pub(super) fn takes_session(&self, session_id: SessionId) -> bool {
        match self.session_id {
            Some(wanted) => wanted == session_id,
            None => !self.is_response,
        }
    }
}

/// All links, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<SubscriptionLink>,
    next: u64,
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            links: Vec::new(),
            next: 1,
        }
    }

    pub(super) fn next_id(&mut self) -> LinkId {
        let id = LinkId(self.next);
        self.next += 1;
        id
    }

    pub(super) fn push(&mut self, link: SubscriptionLink) {
        self.links.push(link);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SubscriptionLink> {
        self.links.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SubscriptionLink> {
        self.links.iter_mut()
    }

    /// Takes the links out that `matches`.
    pub(super) fn take(&mut self, matches: impl Fn(&SubscriptionLink) -> bool) -> Vec<SubscriptionLink> {
        self.links.extract_if(.., |link| matches(link)).collect()
    }

    /// Links of one client.
    pub(super) fn held_by(&self, client_id: ClientId) -> usize {
        self.links
            .iter()
            .filter(|link| link.client_id == client_id)
            .count()
    }

    /// The channel of a link, as subscribers are told it.
    pub(super) fn channel_of(&self, link: LinkId) -> &str {
        self.links
            .iter()
            .find(|candidate| candidate.id == link)
            .map_or(LOCAL_SOURCE_IDENTITY, |link| link.channel.as_str())
    }
}

impl Conductor {
    pub(super) fn on_add_subscription(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        channel: Text<'_>,
    ) -> Result<(), CommandFailure> {
        let (text, uri) = parse_channel(channel)?;
        let params = SubscriptionParams::from_uri(&uri, &self.context)?;
        let registration_id = RegistrationId::from(header.correlation_id);
        if uri.is_ipc() {
            self.admit_subscriber(header.client_id)?;
            let identity = (header.client_id, registration_id, stream_id);
            let link = self.new_link(identity, LinkKind::Ipc, text, params);
            self.announce_subscription(header, CounterId::NONE);
            self.add_link(link);
            return Ok(());
        }
        let spec = ChannelSpec::from_uri(&uri, Role::Subscription)?;
        self.admit_subscriber(header.client_id)?;
        let wanted = if uri.is_spy() {
            Wanted::Spy {
                registration_id,
                stream_id,
                params: Box::new(params),
                is_destination: false,
            }
        } else {
            let params = Box::new(params);
            Wanted::Subscription { stream_id, params }
        };
        self.with_channel(header, spec, wanted)
    }

    /// Finds or makes the record of a client that subscribes, if it may do so once more.
    fn admit_subscriber(&mut self, client_id: ClientId) -> Result<(), CommandFailure> {
        self.admit_client(client_id)?;
        let held = self.links.held_by(client_id);
        if held < SUBSCRIPTIONS_PER_CLIENT_MAX {
            return Ok(());
        }
        Err(CommandFailure::new(
            ErrorCode::GenericError,
            format!(
                "the client holds {held} subscriptions and destinations, more than it may: close unused ones"
            ),
        ))
    }

    fn announce_subscription(&mut self, header: CommandHeader, status: CounterId) {
        self.services.respond(&Response::SubscriptionReady {
            correlation_id: header.correlation_id,
            channel_status_counter_id: status,
        });
    }

    /// Adds a subscription whose channel has its addresses.
    pub(super) fn add_network_subscription(
        &mut self,
        header: CommandHeader,
        stream_id: StreamId,
        channel: UdpChannel,
        params: SubscriptionParams,
    ) -> Result<(), CommandFailure> {
        let text = channel.spec.uri.as_str().to_owned();
        let endpoint = self.receive_endpoint_for(header.correlation_id, channel, &params)?;
        let clash = self
            .links
            .iter()
            .filter(|link| link.kind.endpoint() == Some(endpoint) && link.stream_id == stream_id)
            .try_for_each(|link| link.params.check_clash(&params));
        if let Err(clash) = clash {
            self.release_receive_endpoint(endpoint);
            return Err(clash.into());
        }
        let status = self
            .receive_endpoint(endpoint)
            .map_or(CounterId::NONE, |endpoint| endpoint.status.id);
        let identity = (header.client_id, header.correlation_id.into(), stream_id);
        let link = self.new_link(identity, LinkKind::Network(endpoint), &text, params);
        self.announce_subscription(header, status);
        self.add_link(link);
        Ok(())
    }

    /// Adds a spy, as a subscription or as a receive destination of one.
    pub(super) fn add_spy(
        &mut self,
        header: CommandHeader,
        (registration_id, stream_id): (RegistrationId, StreamId),
        channel: &UdpChannel,
        params: SubscriptionParams,
        is_destination: bool,
    ) -> Result<(), CommandFailure> {
        let kind = LinkKind::Spy {
            canonical_form: channel.canonical_form.clone(),
            tag: channel.tag,
        };
        let text = channel.spec.uri.as_str();
        let identity = (header.client_id, registration_id, stream_id);
        let mut link = self.new_link(identity, kind, text, params);
        link.is_destination = is_destination;
        if is_destination {
            self.services.succeed(header.correlation_id);
        } else {
            self.announce_subscription(header, CounterId::NONE);
        }
        self.add_link(link);
        Ok(())
    }

    pub(super) fn new_link(
        &mut self,
        (client_id, registration_id, stream_id): (ClientId, RegistrationId, StreamId),
        kind: LinkKind,
        text: &str,
        params: SubscriptionParams,
    ) -> SubscriptionLink {
        SubscriptionLink {
            id: self.links.next_id(),
            registration_id,
            client_id,
            stream_id,
            channel: text.to_owned(),
            kind,
            session_id: params.session_id,
            is_response: params.is_response,
            params: Arc::new(params),
            is_destination: false,
        }
    }

    /// Takes a link in and announces every source it matches.
    pub(super) fn add_link(&mut self, link: SubscriptionLink) {
        match link.kind {
            LinkKind::Ipc => {
                for publication in &mut self.publications {
                    if link.matches(publication) && publication.accepts_subscribers() {
                        sources::link_image(&mut self.services, publication, &link);
                    }
                }
            }
            LinkKind::Spy { .. } => self.link_spy(&link),
            LinkKind::Network(_) => {
                self.add_interest(&link);
                self.link_images(&link);
            }
        }
        self.links.push(link);
    }

    pub(super) fn on_remove_subscription(
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
        // Without a word: the client closes its images itself.
        for counter_id in self.unlink_all(|link| link.registration_id == registration_id) {
            self.services.free_counter(counter_id);
        }
        self.services.succeed(header.correlation_id);
        Ok(())
    }

    /// Removes links in one pass over links and subscribers; returns the position counters they had.
    pub(super) fn unlink_all(&mut self, matches: impl Fn(&SubscriptionLink) -> bool) -> Vec<CounterId> {
        let taken = self.links.take(matches);
        let removed: BTreeSet<LinkId> = taken.iter().map(|link| link.id).collect();
        let mut counters = Vec::new();
        if removed.is_empty() {
            return counters;
        }
        let mut is_removed = |subscriber: &Subscriber| removed.contains(&subscriber.link);
        let mut unlink = |source: &mut dyn Source| {
            let unlinked = source.unlink(&mut is_removed);
            counters.extend(unlinked.iter().map(|subscriber| subscriber.counter_id));
        };
        for publication in &mut self.publications {
            unlink(publication);
        }
        for publication in &mut self.network_publications {
            unlink(publication);
        }
        for image in &mut self.images {
            unlink(image);
        }
        for link in taken {
            self.remove_interest(&link);
            if let Some(endpoint) = link.kind.endpoint() {
                self.release_receive_endpoint(endpoint);
            }
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use fulmar::uri::ChannelUri;

    use super::*;
    use crate::DriverSettings;

    #[test]
    fn a_response_subscription_takes_no_session_but_the_one_that_answers_it() {
        let context = DriverSettings::defaults().conclude().unwrap();
        let channel = "aeron:udp?control-mode=response|control=127.0.0.1:40123";
        let params = SubscriptionParams::from_uri(&ChannelUri::parse(channel).unwrap(), &context).unwrap();
        let mut link = SubscriptionLink {
            id: LinkId(1),
            registration_id: RegistrationId(2),
            client_id: ClientId(3),
            stream_id: StreamId(4),
            channel: channel.to_owned(),
            kind: LinkKind::Network(EndpointId(5)),
            session_id: None,
            is_response: params.is_response,
            params: Arc::new(params),
            is_destination: false,
        };
        assert!(!link.takes_session(SessionId(6)));
        link.session_id = Some(SessionId(6));
        assert!(link.takes_session(SessionId(6)) && !link.takes_session(SessionId(7)));
        link.is_response = false;
        link.session_id = None;
        assert!(link.takes_session(SessionId(7)));
    }
}
