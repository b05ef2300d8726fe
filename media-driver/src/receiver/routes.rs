//! The endpoints of the receiver, found by id, and served in turn.
#![forbid(unsafe_code)]

use crate::commands::EndpointId;
use crate::media::receive_endpoint::ReceiveEndpoint;

/// The endpoints, in the order of their ids.
#[derive(Debug, Default)]
pub struct Routes {
    #[expect(
        clippy::vec_box,
        reason = "endpoints come in boxes and travel back in them to be dropped elsewhere"
    )]
    endpoints: Vec<Box<ReceiveEndpoint>>,
    /// Which one is served first in the next round, so that none is always behind the others.
    first: usize,
}

impl Routes {
    /// Adds an endpoint. One of the same id is given back.
    pub fn add(&mut self, endpoint: Box<ReceiveEndpoint>) -> Option<Box<ReceiveEndpoint>> {
        match self.find(endpoint.id()) {
            Ok(index) => Some(core::mem::replace(&mut self.endpoints[index], endpoint)),
            Err(index) => {
                self.endpoints.insert(index, endpoint);
                None
            }
        }
    }

    /// Takes an endpoint out.
    pub fn remove(&mut self, id: EndpointId) -> Option<Box<ReceiveEndpoint>> {
        let index = self.find(id).ok()?;
        Some(self.endpoints.remove(index))
    }

    /// An endpoint.
    pub fn get_mut(&mut self, id: EndpointId) -> Option<&mut ReceiveEndpoint> {
        let index = self.find(id).ok()?;
        self.endpoints.get_mut(index).map(Box::as_mut)
    }

    /// All endpoints, each time beginning with another one.
    pub fn round(&mut self) -> impl Iterator<Item = &mut ReceiveEndpoint> {
        self.first += 1;
        if self.first >= self.endpoints.len() {
            self.first = 0;
        }
        let (before, from) = self.endpoints.split_at_mut(self.first);
        from.iter_mut().chain(before).map(Box::as_mut)
    }

    /// All endpoints in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &ReceiveEndpoint> {
        self.endpoints.iter().map(Box::as_ref)
    }

    /// Whether any endpoint has a name that may have to be looked up again.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.iter().any(ReceiveEndpoint::has_names)
    }

    fn find(&self, id: EndpointId) -> Result<usize, usize> {
        self.endpoints.binary_search_by_key(&id, |endpoint| endpoint.id())
    }
}

#[cfg(test)]
mod tests {
    use fulmar::time::NanoTime;

    use super::*;
    use crate::media::receive_endpoint::ReceiveEndpointParts;

    fn endpoint(id: u64) -> Box<ReceiveEndpoint> {
        let parts = ReceiveEndpointParts {
            proofs: None,
            id: EndpointId(id),
            receiver_id: 1,
            group_tag: None,
            transport: None,
            session_limit: 1,
            timestamps: Default::default(),
        };
        Box::new(ReceiveEndpoint::new(parts, NanoTime(0)))
    }

    #[test]
    fn endpoints_are_found_by_id_in_whatever_order_they_came() {
        let mut routes = Routes::default();
        for id in [5, 1, 3] {
            assert!(routes.add(endpoint(id)).is_none());
        }
        assert_eq!(routes.get_mut(EndpointId(3)).unwrap().id(), EndpointId(3));
        assert!(routes.get_mut(EndpointId(2)).is_none());
        assert_eq!(routes.remove(EndpointId(1)).unwrap().id(), EndpointId(1));
        assert!(routes.remove(EndpointId(1)).is_none());
        assert_eq!(routes.iter().count(), 2);
        assert!(routes.add(endpoint(5)).is_some());
    }

    #[test]
    fn every_round_begins_with_another_endpoint() {
        let mut routes = Routes::default();
        assert_eq!(routes.round().count(), 0);
        for id in 1..=3 {
            routes.add(endpoint(id));
        }
        let mut firsts = Vec::new();
        for _ in 0..6 {
            let order: Vec<u64> = routes.round().map(|endpoint| endpoint.id().0).collect();
            assert_eq!(order.len(), 3);
            firsts.push(order[0]);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 1, 2, 2, 3, 3]);
    }
}
