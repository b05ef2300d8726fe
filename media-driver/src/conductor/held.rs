//! Commands that wait because an earlier one of the same client is still under way: a log is being made or a name looked
//! up. Other clients are served meanwhile; commands of one client keep their order.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};

use fulmar::id::ClientId;

/// Bytes of commands that wait, of all clients together; further ones are answered "try again".
const BYTES_MAX: usize = 1 << 20;

/// What a waiting command costs beside its payload, bytes.
const OVERHEAD: usize = 64;

/// One command as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) type_id: i32,
    pub(super) payload: Vec<u8>,
}

/// The waiting commands of each client, oldest first.
#[derive(Debug, Default)]
pub(super) struct HeldCommands {
    by_client: BTreeMap<ClientId, VecDeque<Held>>,
    bytes: usize,
}

impl HeldCommands {
    /// Puts a command behind the others of its client.
    ///
    /// # Errors
    /// Nothing is taken in when too much waits already.
    pub(super) fn hold(&mut self, client_id: ClientId, type_id: i32, payload: &[u8]) -> Result<(), Full> {
        let cost = payload.len() + OVERHEAD;
        if self.bytes + cost > BYTES_MAX {
            return Err(Full);
        }
        self.bytes += cost;
        self.by_client.entry(client_id).or_default().push_back(Held {
            type_id,
            payload: payload.to_vec(),
        });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// Whether commands of this client wait.
    pub(super) fn has(&self, client_id: ClientId) -> bool {
        self.by_client.contains_key(&client_id)
    }

    /// The oldest command of the first client that is not `busy`.
    pub(super) fn next(&mut self, busy: impl Fn(ClientId) -> bool) -> Option<Held> {
        let client_id = *self.by_client.keys().find(|client_id| !busy(**client_id))?;
        let queue = self.by_client.get_mut(&client_id)?;
        let held = queue.pop_front();
        if queue.is_empty() {
            self.by_client.remove(&client_id);
        }
        if let Some(held) = &held {
            self.bytes -= held.payload.len() + OVERHEAD;
        }
        held
    }

    /// Forgets what a client that is gone still wanted.
    pub(super) fn forget(&mut self, client_id: ClientId) {
        for held in self.by_client.remove(&client_id).into_iter().flatten() {
            self.bytes -= held.payload.len() + OVERHEAD;
        }
    }
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    #[test]
    fn commands_of_a_client_keep_their_order_and_others_overtake() {
        let mut held = HeldCommands::default();
        for (client, type_id) in [(A, 1), (A, 2), (B, 3)] {
            held.hold(client, type_id, &[]).unwrap();
        }
        let next = |held: &mut HeldCommands, busy: Option<ClientId>| {
            held.next(|client| Some(client) == busy).map(|held| held.type_id)
        };
        assert_eq!(next(&mut held, Some(A)), Some(3));
        assert_eq!(next(&mut held, Some(A)), None);
        assert!(held.has(A) && !held.has(B));
        assert_eq!(next(&mut held, None), Some(1));
        assert_eq!(next(&mut held, None), Some(2));
        assert!(held.is_empty());
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded_and_a_client_that_goes_makes_room() {
        let mut held = HeldCommands::default();
        let command = vec![0; BYTES_MAX / 2 - OVERHEAD];
        assert_eq!(held.hold(A, 1, &command), Ok(()));
        assert_eq!(held.hold(B, 1, &command), Ok(()));
        assert_eq!(held.hold(B, 1, &[]), Err(Full));
        held.forget(B);
        assert!(!held.has(B));
        assert_eq!(held.hold(A, 1, &command), Ok(()));
    }
}
