//! Subscriptions as links: what each wants, and which publications it matches (shared-memory spec 13.6).
#![forbid(unsafe_code)]

use fulmar::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId};

use crate::stream::ipc_publication::IpcPublication;
use crate::stream::subscribers::LinkId;

/// What kind of source a link takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// IPC publications.
    Ipc,
    /// Network publications of this driver, seen from inside. None exist before the network part.
    Spy,
    /// A subscription without a source of its own, which takes receive destinations.
    ManualDestinations {
        /// Its channel status counter.
        status: CounterId,
    },
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
        if self.kind != LinkKind::Ipc || self.stream_id != publication.stream_id {
            return false;
        }
        match self.session_id {
            Some(session_id) => session_id == publication.session_id,
            None => !self.is_response,
        }
    }
}
