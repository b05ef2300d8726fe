//! Events of a client's life, and what handlers are told about images.
#![forbid(unsafe_code)]

use crate::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId};

/// Why a driver counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverLossReason {
    /// Its process ended.
    Died,
    /// It ended in order.
    ShutDown,
    /// It was silent for the driver timeout and whether its process lives can not be told.
    Silent,
    /// Its CnC file was truncated.
    CncDamaged,
    /// Another driver has taken its directory over.
    Replaced,
}

/// What a client tells its event handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The driver is gone. Publications answer `NotConnected`; images can be read to their end, no further.
    DriverLost {
        /// Why.
        reason: DriverLossReason,
    },
    /// The driver's process lives but has not moved for a while. Handles stay as they are.
    DriverStalled,
    /// A stalled driver moves again.
    DriverResumed,
    /// A new driver is there; everything has been asked for again under the same handles.
    Reattached {
        /// The client's new id.
        client_id: ClientId,
    },
    /// A counter appeared, of this client or of another.
    CounterAvailable {
        /// Its registration id (the client id for heartbeat counters).
        registration_id: RegistrationId,
        /// Its index.
        counter_id: CounterId,
    },
    /// A counter is going away.
    CounterUnavailable {
        /// Its registration id (the client id for heartbeat counters).
        registration_id: RegistrationId,
        /// Its index.
        counter_id: CounterId,
    },
    /// The driver gave this client up; every handle is closed.
    ClientTimedOut {
        /// The id it had.
        client_id: ClientId,
    },
    /// The client is closed; the last event.
    Closed,
}

/// Facts about an image, for handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Names the image; for IPC the publication's registration id.
    pub correlation_id: RegistrationId,
    /// The registration id of the subscription it belongs to.
    pub subscription_registration_id: RegistrationId,
    /// The session of its publication.
    pub session_id: SessionId,
    /// The stream.
    pub stream_id: StreamId,
    /// Where it comes from: `host:port`, or `aeron:ipc`.
    pub source_identity: String,
    /// The position at which this subscription joined, bytes.
    pub join_position: i64,
    /// How far it was consumed when this was made, bytes.
    pub position: i64,
}

/// Called when an image comes or goes. Runs on the client's conductor, never under its lock; may call the client.
pub type ImageHandler = Box<dyn FnMut(&ImageInfo) + Send>;

/// What a subscription calls when images come and go.
#[derive(Default)]
pub struct ImageHandlers {
    /// A new image can be polled.
    pub on_available: Option<ImageHandler>,
    /// An image has ended: nothing new arrives on it.
    pub on_unavailable: Option<ImageHandler>,
}

impl core::fmt::Debug for ImageHandlers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ImageHandlers")
            .field("on_available", &self.on_available.is_some())
            .field("on_unavailable", &self.on_unavailable.is_some())
            .finish()
    }
}
