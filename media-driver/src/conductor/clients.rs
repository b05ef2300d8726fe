//! What the driver knows of an attached client (shared-memory spec 7.3, 13.2).
#![forbid(unsafe_code)]

use fulmar::counters::Counter;
use fulmar::id::{ClientId, CounterId, RegistrationId};
use fulmar::time::NanoTime;

/// An application counter of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnedCounter {
    pub(super) registration_id: RegistrationId,
    pub(super) counter_id: CounterId,
}

/// One attached client.
#[derive(Debug)]
pub(super) struct ClientRecord {
    pub(super) id: ClientId,
    pub(super) heartbeat_id: CounterId,
    heartbeat: Counter,
    heartbeat_value: i64,
    heard_at: NanoTime,
    pub(super) closed_by_command: bool,
    pub(super) counters: Vec<OwnedCounter>,
    /// Whether its process is watched, so that its death is known at once.
    pub(super) watched: bool,
    /// Whether it says in the extension file what its publications are writing.
    pub(super) is_ours: bool,
}

impl ClientRecord {
    pub(super) fn new(id: ClientId, heartbeat_id: CounterId, heartbeat: Counter, now: NanoTime) -> Self {
        let heartbeat_value = heartbeat.get_acquire();
        Self {
            id,
            heartbeat_id,
            heartbeat,
            heartbeat_value,
            heard_at: now,
            closed_by_command: false,
            counters: Vec::new(),
            watched: false,
            is_ours: false,
        }
    }

    /// Whether the client was silent for `timeout_ns`. A heartbeat is a change of the counter's value: what the value
    /// says is wall-clock time, which may step, so it is not compared with anything.
    pub(super) fn is_expired(&mut self, now: NanoTime, timeout_ns: i64) -> bool {
        let value = self.heartbeat.get_acquire();
        if value != self.heartbeat_value {
            self.heartbeat_value = value;
            self.heard_at = now;
        }
        self.closed_by_command || now.since(self.heard_at) > timeout_ns
    }

    /// The client says that it goes.
    pub(super) fn close(&mut self) {
        self.closed_by_command = true;
        self.heartbeat.set_release(0);
        self.heartbeat_value = 0;
    }

    /// A keepalive command counts as a heartbeat.
    pub(super) fn keep_alive(&mut self, epoch_ms: i64, now: NanoTime) {
        self.heartbeat.set_release(epoch_ms);
        self.heartbeat_value = epoch_ms;
        self.heard_at = now;
    }
}
