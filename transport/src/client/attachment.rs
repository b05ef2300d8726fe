//! What a publication needs of its driver: the log, the limit, and how to reach the driver. Made by the conductor,
//! picked up by the handles.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use super::offer::Offer;
use super::slot::Slot;
use crate::agent::{Alarm, Doorbell, OfferBell};
use crate::bits::align_i64;
use crate::cnc::extension::{Extension, OwnerSlot};
use crate::counters::Counter;
use crate::id::{ClientId, CounterId, RegistrationId, SessionId};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::log::{AppendWindow, LogBuffers};

/// Everything a handle needs to publish.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub(super) struct Attachment {
    pub(super) log: Arc<LogBuffers>,
    pub(super) limit: Counter,
    pub(super) client_id: ClientId,
    pub(super) identity: Identity,
    pub(super) extension: Option<Extension>,
    pub(super) doorbell: Option<Doorbell>,
    /// Wakes threads of the driver that wait for sockets.
    pub(super) pipe: Option<Arc<dyn Alarm>>,
}

/// How the driver calls a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) registration_id: RegistrationId,
    pub(super) original_registration_id: RegistrationId,
    pub(super) session_id: SessionId,
    pub(super) status: CounterId,
    pub(super) limit: CounterId,
}

/// What the conductor and the handles of one publication share.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub(super) struct PublicationShared {
    pub(super) channel: String,
    pub(super) stream_id: i32,
    pub(super) slot: Slot<Arc<Attachment>>,
    /// The latest identity; stays when the driver is lost.
    pub(super) identity: Mutex<Identity>,
}

impl PublicationShared {
    pub(super) fn new(channel: &str, stream_id: i32) -> Self {
        PublicationShared {
            channel: channel.to_owned(),
            stream_id,
            slot: Slot::new(),
            identity: Mutex::new(Identity {
                registration_id: RegistrationId(0),
                original_registration_id: RegistrationId(0),
                session_id: SessionId(0),
                status: CounterId::NONE,
                limit: CounterId::NONE,
            }),
        }
    }
}

impl Attachment {
    /// The limit to publish up to before the counter is looked at again, for a stream that has come to `position`.
    ///
    /// A driver that sleeps when it is quiet moves the limit only when it wakes. So with such a driver the last
    /// quarter of the window is kept back at first: who reaches it wakes the driver while there is still room.
    #[cold]
    pub(super) fn limit_at(&self, position: i64) -> i64 {
        if self.log.region().is_damaged() {
            // Behind a truncated file are pages of nobody's that take everything.
            return i64::MIN;
        }
        // SYNC publisher-limit: memory below the limit has been zeroed.
        let limit = self.limit.get_acquire();
        let Some(doorbell) = &self.doorbell else {
            return limit;
        };
        let early = limit.saturating_sub(self.early_length());
        if position < early {
            return early;
        }
        if position < limit {
            doorbell.ring();
        }
        limit
    }

    /// The bell that a handle uses after each message to the network, which leaves the driver from a thread that may
    /// sleep. `None` for IPC, where subscribers look by themselves, and for drivers that can not be woken.
    pub(super) fn offer_bell(&self) -> Option<OfferBell> {
        // Channels of the network have a status, those of IPC have none.
        if self.identity.status == CounterId::NONE {
            return None;
        }
        self.extension.as_ref()?.offer_bell(self.pipe.as_ref()?)
    }

    /// A quarter of the publication window, bytes.
    fn early_length(&self) -> i64 {
        let half_term = self.log.term_length() / 2;
        let window = self
            .log
            .metadata()
            .publication_window_length()
            .clamp(0, half_term);
        i64::from(window / 4)
    }

    /// Why a message of `length` bytes that would start at `position` was not accepted (shared-memory spec 10.6).
    #[cold]
    pub(super) fn refusal(&self, position: i64, length: usize) -> Offer {
        if self.log.region().is_damaged() {
            return Offer::Closed;
        }
        let required = i64::try_from(length)
            .unwrap_or(i64::MAX / 2)
            .saturating_add(FRAME_HEADER_LENGTH as i64);
        let end = position.saturating_add(align_i64(required, FRAME_ALIGNMENT as i64));
        if end >= self.log.shape().max_possible_position() {
            return Offer::MaxPositionExceeded;
        }
        if self.log.metadata().is_connected() {
            // The driver moves the limit; one that sleeps has to hear that somebody waits for it.
            if let Some(doorbell) = &self.doorbell {
                doorbell.ring();
            }
            Offer::BackPressured
        } else {
            Offer::NotConnected
        }
    }
}

/// The window of a handle, if the driver keeps a table of them.
pub(super) struct Window(pub(super) Option<OwnerSlot>);

impl AppendWindow for Window {
    #[inline(always)]
    fn enter(&self) {
        if let Some(slot) = &self.0 {
            slot.enter();
        }
    }

    #[inline(always)]
    fn claimed(&self, position: i64, length: i64) {
        if let Some(slot) = &self.0 {
            slot.claimed(position, length);
        }
    }

    #[inline(always)]
    fn leave(&self) {
        if let Some(slot) = &self.0 {
            slot.leave();
        }
    }
}

// Cache lines: what an application thread writes in its handle is in no line that another thread reads.
const _: () = assert!(align_of::<Attachment>() == 128 && align_of::<PublicationShared>() == 128);
