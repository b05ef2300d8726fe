//! Subscriptions as links: what each wants, and which sources it matches (shared-memory spec 13.6).
#![forbid(unsafe_code)]

use fulmar::id::{ClientId, RegistrationId, SessionId, StreamId};

use super::sources::LOCAL_SOURCE_IDENTITY;
use crate::commands::EndpointId;
use crate::stream::ipc_publication::IpcPublication;
use crate::stream::subscribers::LinkId;

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
    pub(super) tether: bool,
    pub(super) rejoin: bool,
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
