//! What sender and conductor tell each other about one network publication. Each word has one writer.
#![forbid(unsafe_code)]

use fulmar::sync::{AtomicBool, AtomicI64, Ordering};

/// Shared by [`PublicationSender`](super::publication_sender::PublicationSender) and
/// [`PublicationConductor`](super::publication_conductor::PublicationConductor). Positions travel in counters.
#[derive(Debug)]
#[repr(C)]
pub struct PublicationShared {
    by_sender: BySender,
    by_conductor: ByConductor,
}

/// Written by the sender.
#[derive(Debug)]
#[repr(align(128))]
struct BySender {
    /// How far was sent. The counter that says the same can be written by anybody who maps the counters.
    position: AtomicI64,
    has_receivers: AtomicBool,
    is_connected: AtomicBool,
    has_received_unicast_eos: AtomicBool,
}

/// Written by the conductor.
#[derive(Debug)]
#[repr(align(128))]
struct ByConductor {
    is_end_of_stream: AtomicBool,
    /// Position of the fastest working spy; [`NO_SPIES`] without one.
    fastest_spy_position: AtomicI64,
}

// One writer per pair of cache lines, which processors fetch together.
const _: () = assert!(size_of::<BySender>() == 128 && size_of::<ByConductor>() == 128);
const _: () = assert!(core::mem::offset_of!(PublicationShared, by_conductor) == 128);

const NO_SPIES: i64 = i64::MIN;

impl PublicationShared {
    /// Nobody is there and nothing was sent of a stream that starts at `position`.
    #[must_use]
    pub fn new(position: i64) -> Self {
        Self {
            by_sender: BySender {
                position: AtomicI64::new(position),
                has_receivers: AtomicBool::new(false),
                is_connected: AtomicBool::new(false),
                has_received_unicast_eos: AtomicBool::new(false),
            },
            by_conductor: ByConductor {
                is_end_of_stream: AtomicBool::new(false),
                fastest_spy_position: AtomicI64::new(NO_SPIES),
            },
        }
    }

    /// How far was sent.
    #[inline]
    #[must_use]
    pub fn sender_position(&self) -> i64 {
        // SYNC sender-position: what lies before was read by the sender.
        self.by_sender.position.load(Ordering::Acquire)
    }

    /// Sender: how far was sent.
    #[inline]
    pub(super) fn set_sender_position(&self, position: i64) {
        // SYNC sender-position: the bytes before it were read; the conductor cleans behind it.
        self.by_sender.position.store(position, Ordering::Release);
    }

    /// Whether any receiver was heard within the connection timeout.
    #[inline]
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        // SYNC publication-receivers: pairs with `set_receivers`.
        self.by_sender.has_receivers.load(Ordering::Acquire)
    }

    /// Whether there are receivers, and those that flow control requires (wire protocol 3.7). Spies come on top.
    #[inline]
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // SYNC publication-receivers: pairs with `set_receivers`.
        self.by_sender.is_connected.load(Ordering::Acquire)
    }

    /// Sender: who is there.
    pub(super) fn set_receivers(&self, present: Receivers) {
        // SYNC publication-receivers: the positions stored before are visible.
        self.by_sender
            .has_receivers
            .store(present != Receivers::None, Ordering::Release);
        self.by_sender
            .is_connected
            .store(present == Receivers::Enough, Ordering::Release);
    }

    /// Whether the one receiver said that it has everything.
    #[must_use]
    pub fn has_received_unicast_eos(&self) -> bool {
        self.by_sender.has_received_unicast_eos.load(Ordering::Acquire)
    }

    /// Sender: whether the one receiver has said that it has everything.
    pub(super) fn set_received_unicast_eos(&self, received: bool) {
        self.by_sender
            .has_received_unicast_eos
            .store(received, Ordering::Release);
    }

    /// Whether everything was sent and nothing will follow.
    #[inline]
    #[must_use]
    pub fn is_end_of_stream(&self) -> bool {
        self.by_conductor.is_end_of_stream.load(Ordering::Acquire)
    }

    /// Conductor: everything was sent and nothing will follow.
    pub(super) fn set_end_of_stream(&self) {
        self.by_conductor.is_end_of_stream.store(true, Ordering::Release);
    }

    /// The position of the fastest working spy, if there is any.
    #[inline]
    #[must_use]
    pub fn fastest_spy_position(&self) -> Option<i64> {
        let position = self.by_conductor.fastest_spy_position.load(Ordering::Acquire);
        (position != NO_SPIES).then_some(position)
    }

    /// Conductor: where the fastest working spy is.
    pub(super) fn set_fastest_spy_position(&self, position: Option<i64>) {
        self.by_conductor
            .fastest_spy_position
            .store(position.unwrap_or(NO_SPIES), Ordering::Release);
    }
}

/// Who listens on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receivers {
    /// Nobody.
    None,
    /// Somebody, but not those that flow control requires.
    Some,
    /// All that are required.
    Enough,
}
