//! Channel endpoints: one for each canonical channel, shared by those who use it.
#![forbid(unsafe_code)]

use fulmar::id::CounterId;

use super::agent::Conductor;
use crate::commands::EndpointId;

/// A receive channel endpoint, as the conductor knows it.
#[derive(Debug)]
pub(super) struct ReceiveEndpointRecord {
    pub(super) id: EndpointId,
    /// Its channel status counter.
    pub(super) status: CounterId,
    /// Whether its sources are receive destinations.
    pub(super) is_manual: bool,
}

impl Conductor {
    pub(super) fn next_endpoint_id(&mut self) -> EndpointId {
        self.last_endpoint += 1;
        EndpointId(self.last_endpoint)
    }

    pub(super) fn receive_endpoint(&self, id: EndpointId) -> Option<&ReceiveEndpointRecord> {
        self.receive_endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// A link of this endpoint went away.
    pub(super) fn release_receive_endpoint(&mut self, id: EndpointId) {
        let is_used = self
            .links
            .iter()
            .any(|link| link.kind == super::subscriptions::LinkKind::Network(id));
        if is_used {
            return;
        }
        if let Some(index) = self
            .receive_endpoints
            .iter()
            .position(|endpoint| endpoint.id == id)
        {
            let endpoint = self.receive_endpoints.remove(index);
            self.services.free_counter(endpoint.status);
        }
    }
}
