//! `fulmar.dat`, beside the CnC file: who the processes behind the client ids are, and what each concurrent
//! publication has in flight. Made by our driver only; clients of other makes never see it, and ours work without it.
//!
//! ```text
//!    0 i64 magic, stored last            128 doorbell of the driver, 128 bytes
//!    8 i32 version                       256 doorbell of the sender, 128 bytes
//!   12 i32 client slots                 1024 client slots, 128 bytes each:
//!   16 i32 owner slots                          0 i64 client id    8 i64 pid   16 i64 start ticks  24 i64 namespace
//!                                              32 i64 1 once a publication of the client got no owner slot
//!   24 i64 driver pid                        then owner slots, 128 bytes each:
//!   32 i64 driver start ticks                   0 i64 owner tag    8 i64 client id   16 i64 log registration id
//!   40 i64 driver start, epoch ms              64 i64 window word 72 i64 in-flight length
//!   48 i64 driver namespace
//!   56 i32 1 if the driver sleeps on the pipe
//!   60 i32 offset of the doorbell for
//!          offers to the network, or 0
//! ```
//!
//! The driver sleeps on the futex of its doorbell, or, on a thread that waits for sockets as well, on a pipe
//! ([`crate::directory::BellPipe`]). The sender always sleeps on the pipe; where it shares a thread with the
//! conductor, the two share a doorbell.
//!
//! The first word of a slot says what it is: 0 free, -1 being filled in, otherwise taken. It is stored last, so that
//! the rest is complete once it is seen. The driver frees the slots of a client only when its process is known to be
//! dead, not when it gives the client up: a process that was only stopped goes on storing into its slots when it is
//! resumed, and must not hit the next owner's.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::agent::doorbell::DOORBELL_LENGTH;
use crate::agent::{Alarm, Doorbell, OfferBell, ProcessId};
use crate::bits::align;
use crate::id::{ClientId, RegistrationId};
use crate::log::AppendWindow;
use crate::log::words::Fields;
use crate::memory::{AtomicBuffer, Region, View};
use crate::sync::Arc;
use crate::time::EpochMs;

/// Name of the file in the driver's directory.
pub const FILE_NAME: &str = "fulmar.dat";
/// First word of a complete file.
pub const MAGIC: i64 = i64::from_le_bytes(*b"fulmar\0\x01");
/// Version of the layout.
pub const VERSION: i32 = 1;
/// Client slots of a new file.
pub const CLIENT_SLOTS: usize = 256;
/// Owner slots of a new file.
pub const OWNER_SLOTS: usize = 4096;
/// Length of a new file.
pub const FILE_LENGTH: usize = align(SLOTS_OFFSET + (CLIENT_SLOTS + OWNER_SLOTS) * SLOT_LENGTH, 4096);

const MAGIC_OFFSET: usize = 0;
const VERSION_OFFSET: usize = 8;
const CLIENT_SLOTS_OFFSET: usize = 12;
const OWNER_SLOTS_OFFSET: usize = 16;
const DRIVER_PID_OFFSET: usize = 24;
const DRIVER_START_TICKS_OFFSET: usize = 32;
const DRIVER_START_OFFSET: usize = 40;
const DRIVER_NAMESPACE_OFFSET: usize = 48;
const DRIVER_SLEEP_OFFSET: usize = 56;
const OFFER_DOORBELL_OFFSET: usize = 60;
const DOORBELL_OFFSET: usize = 128;
const SENDER_DOORBELL_OFFSET: usize = 256;
const SLOTS_OFFSET: usize = 1024;
const SLOT_LENGTH: usize = 128;
/// More slots than this in a header are nonsense.
const SLOTS_MAX: usize = 1 << 16;

const CLIENT_ID: usize = 0;
const CLIENT_PID: usize = 8;
const CLIENT_START_TICKS: usize = 16;
const CLIENT_NAMESPACE: usize = 24;
const CLIENT_UNTRACKED: usize = 32;

const OWNER_TAG: usize = 0;
const OWNER_CLIENT_ID: usize = 8;
const OWNER_REGISTRATION_ID: usize = 16;
const OWNER_WINDOW: usize = 64;
const OWNER_LENGTH: usize = 72;

const FREE: i64 = 0;
const RESERVED: i64 = -1;

const WINDOW_NONE: i64 = 0;
const WINDOW_RESERVING: i64 = 1;
/// Set in the window word beside the position, which is a multiple of 32.
const WINDOW_IN_FLIGHT: i64 = 2;

const SLEEPS_ON_FUTEX: i32 = 0;
const SLEEPS_ON_PIPE: i32 = 1;
const NO_DOORBELL: i32 = 0;

const _: () = assert!(DOORBELL_OFFSET + DOORBELL_LENGTH <= SENDER_DOORBELL_OFFSET);
const _: () = assert!(SENDER_DOORBELL_OFFSET + DOORBELL_LENGTH <= SLOTS_OFFSET);
const _: () = assert!(DRIVER_NAMESPACE_OFFSET + 8 <= DRIVER_SLEEP_OFFSET);
const _: () = assert!(OFFER_DOORBELL_OFFSET + 4 <= DOORBELL_OFFSET);
const _: () = assert!(OWNER_LENGTH + 8 <= SLOT_LENGTH);
// Two doorbells, and the slots of two processes, share no pair of cache lines; within a slot, what its publisher writes
// with each message is in another line than what says whose it is.
const _: () = assert!(DOORBELL_OFFSET.is_multiple_of(128) && SENDER_DOORBELL_OFFSET.is_multiple_of(128));
const _: () = assert!(SLOTS_OFFSET.is_multiple_of(128) && SLOT_LENGTH.is_multiple_of(128));
const _: () = assert!(OWNER_REGISTRATION_ID + 8 <= OWNER_WINDOW && OWNER_WINDOW.is_multiple_of(64));
const _: () = assert!(OWNER_LENGTH / 64 == OWNER_WINDOW / 64);

/// Why a file is no extension of the driver at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Too short for its header or for the tables that the header names.
    #[error("the extension file has {length} bytes and needs {needed}")]
    TooShort {
        /// Length of the file.
        length: usize,
        /// Length that is needed.
        needed: usize,
    },
    /// No extension file, or not complete yet.
    #[error("the extension file does not start with its magic number")]
    NotReady,
    /// A layout we do not know.
    #[error("the extension file has version {0}")]
    VersionMismatch(i32),
    /// Table sizes that can not be.
    #[error("the extension file claims {clients} client slots and {owners} owner slots")]
    BadTables {
        /// Client slots claimed.
        clients: i32,
        /// Owner slots claimed.
        owners: i32,
    },
    /// It belongs to an earlier or later run than the CnC file.
    #[error("the extension file belongs to the driver started at {found} ms, not to that of {expected} ms")]
    OtherDriver {
        /// Start of the driver that made the file, epoch ms.
        found: i64,
        /// Start of the driver in the CnC file, epoch ms.
        expected: i64,
    },
}

/// The extension file, mapped. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Extension {
    view: View,
    client_slots: usize,
    owner_slots: usize,
}

/// Who in the driver sleeps where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleepers {
    /// The conductor on the futex of its doorbell; nobody waits for offers to the network.
    Futex,
    /// The conductor on the futex, the sender on the pipe.
    FutexAndPipe,
    /// Both on one thread, on the pipe.
    Pipe,
}

/// An attached client and its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client.
    pub client_id: ClientId,
    /// The process it lives in, as the client says.
    pub process: ProcessId,
    /// Whether some of its publications do not say what they write: they are to be treated like foreign ones.
    pub is_untracked: bool,
}

/// What one handle of a concurrent publication is doing to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The tag that the handle's claims carry in their reserved value.
    pub tag: i64,
    /// The client that owns the handle.
    pub client_id: ClientId,
    /// The log it appends to.
    pub registration_id: RegistrationId,
    /// What is in flight.
    pub window: Window,
}

/// The part of a log that a handle has reserved and not yet committed. Numbers come from another process and are not
/// checked against the log here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Nothing.
    None,
    /// About to reserve, or just reserved: the tail may have been moved without a record of where.
    Reserving,
    /// `[position, position + length)` is reserved.
    InFlight {
        /// Where it starts, bytes from the start of the stream.
        position: i64,
        /// Bytes.
        length: i64,
    },
}

impl Window {
    /// Whether the handle may be appending to a part of `[position, position + length)`. For the guard of
    /// [`crate::log::unblock_guarded`].
    #[must_use]
    pub const fn may_touch(self, position: i64, length: i64) -> bool {
        match self {
            Window::None => false,
            Window::Reserving => true,
            Window::InFlight {
                position: start,
                length: in_flight,
            } => start < position.saturating_add(length) && position < start.saturating_add(in_flight),
        }
    }
}

impl Extension {
    /// Writes the header into a region of [`FILE_LENGTH`] zero bytes. `start` is the start time that the driver also
    /// puts into its CnC file.
    ///
    /// # Errors
    /// [`ExtensionError::TooShort`] for a shorter region.
    pub fn create(region: &Region, driver: ProcessId, start: EpochMs) -> Result<Self, ExtensionError> {
        if region.len() < FILE_LENGTH {
            return Err(ExtensionError::TooShort {
                length: region.len(),
                needed: FILE_LENGTH,
            });
        }
        let view = region.as_view();
        view.store_relaxed_i32(VERSION_OFFSET, VERSION);
        view.store_relaxed_i32(CLIENT_SLOTS_OFFSET, CLIENT_SLOTS as i32);
        view.store_relaxed_i32(OWNER_SLOTS_OFFSET, OWNER_SLOTS as i32);
        view.store_relaxed_i64(DRIVER_PID_OFFSET, driver.pid);
        view.store_relaxed_i64(DRIVER_START_TICKS_OFFSET, driver.start_time_ticks.cast_signed());
        view.store_relaxed_i64(DRIVER_START_OFFSET, start.0);
        view.store_relaxed_i64(DRIVER_NAMESPACE_OFFSET, driver.namespace.cast_signed());
        // SYNC extension-magic: the header is complete once the magic is there.
        view.store_release_i64(MAGIC_OFFSET, MAGIC);
        Ok(Self {
            view,
            client_slots: CLIENT_SLOTS,
            owner_slots: OWNER_SLOTS,
        })
    }

    /// Opens what a driver made. `cnc_start` is the start time in the CnC file that was opened before: an extension
    /// of another run is refused.
    ///
    /// # Errors
    /// Whatever is wrong with it; the caller then works without.
    pub fn open(region: &Region, cnc_start: EpochMs) -> Result<Self, ExtensionError> {
        let length = region.len();
        let too_short = |needed| ExtensionError::TooShort { length, needed };
        if length < SLOTS_OFFSET {
            return Err(too_short(SLOTS_OFFSET));
        }
        let view = region.as_view();
        // SYNC extension-magic: the header is complete.
        if view.load_acquire_i64(MAGIC_OFFSET) != MAGIC {
            return Err(ExtensionError::NotReady);
        }
        let version = view.load_relaxed_i32(VERSION_OFFSET);
        if version != VERSION {
            return Err(ExtensionError::VersionMismatch(version));
        }
        let clients = view.load_relaxed_i32(CLIENT_SLOTS_OFFSET);
        let owners = view.load_relaxed_i32(OWNER_SLOTS_OFFSET);
        let slots = |count: i32| {
            usize::try_from(count)
                .ok()
                .filter(|count| (1..=SLOTS_MAX).contains(count))
        };
        let (Some(client_slots), Some(owner_slots)) = (slots(clients), slots(owners)) else {
            return Err(ExtensionError::BadTables { clients, owners });
        };
        let needed = SLOTS_OFFSET + (client_slots + owner_slots) * SLOT_LENGTH;
        if length < needed {
            return Err(too_short(needed));
        }
        let found = view.load_relaxed_i64(DRIVER_START_OFFSET);
        if found != cnc_start.0 {
            return Err(ExtensionError::OtherDriver {
                found,
                expected: cnc_start.0,
            });
        }
        Ok(Self {
            view,
            client_slots,
            owner_slots,
        })
    }

    /// The driver's process, as it wrote it.
    #[must_use]
    pub fn driver(&self) -> ProcessId {
        ProcessId {
            pid: self.view.load_relaxed_i64(DRIVER_PID_OFFSET),
            start_time_ticks: self
                .view
                .load_relaxed_i64(DRIVER_START_TICKS_OFFSET)
                .cast_unsigned(),
            namespace: self
                .view
                .load_relaxed_i64(DRIVER_NAMESPACE_OFFSET)
                .cast_unsigned(),
        }
    }

    /// The doorbell that wakes the driver, if it sleeps on the futex.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(self.doorbell_words())
    }

    /// The words of that doorbell.
    #[must_use]
    pub fn doorbell_words(&self) -> View {
        self.view.slice(DOORBELL_OFFSET, DOORBELL_LENGTH)
    }

    /// The words of the doorbell that wakes the sender, where it has a thread of its own or one with the receiver.
    #[must_use]
    pub fn sender_doorbell_words(&self) -> View {
        self.view.slice(SENDER_DOORBELL_OFFSET, DOORBELL_LENGTH)
    }

    /// For the driver, before clients come in: says how it is woken.
    pub fn set_sleepers(&self, sleepers: Sleepers) {
        let (driver, offers) = match sleepers {
            Sleepers::Futex => (SLEEPS_ON_FUTEX, NO_DOORBELL),
            Sleepers::FutexAndPipe => (SLEEPS_ON_FUTEX, SENDER_DOORBELL_OFFSET as i32),
            Sleepers::Pipe => (SLEEPS_ON_PIPE, DOORBELL_OFFSET as i32),
        };
        self.view.store_relaxed_i32(DRIVER_SLEEP_OFFSET, driver);
        self.view.store_relaxed_i32(OFFER_DOORBELL_OFFSET, offers);
    }

    /// What [`Self::set_sleepers`] said last.
    #[must_use]
    pub fn sleepers(&self) -> Sleepers {
        match (
            self.view.load_relaxed_i32(DRIVER_SLEEP_OFFSET),
            self.view.load_relaxed_i32(OFFER_DOORBELL_OFFSET),
        ) {
            (_, NO_DOORBELL) => Sleepers::Futex,
            (SLEEPS_ON_PIPE, _) => Sleepers::Pipe,
            _ => Sleepers::FutexAndPipe,
        }
    }

    /// For clients: the doorbell that wakes the driver, wherever it sleeps. `pipe` is the pipe in its directory.
    #[must_use]
    pub fn driver_doorbell(&self, pipe: Option<&Arc<dyn Alarm>>) -> Doorbell {
        match pipe {
            Some(pipe) if self.view.load_relaxed_i32(DRIVER_SLEEP_OFFSET) == SLEEPS_ON_PIPE => {
                Doorbell::with_alarm(self.doorbell_words(), Arc::clone(pipe))
            }
            _ => self.doorbell(),
        }
    }

    /// For clients: the bell to use after offers to the network, if the sender can be woken.
    #[must_use]
    pub fn offer_bell(&self, pipe: &Arc<dyn Alarm>) -> Option<OfferBell> {
        let words = match usize::try_from(self.view.load_relaxed_i32(OFFER_DOORBELL_OFFSET)) {
            Ok(DOORBELL_OFFSET) => self.doorbell_words(),
            Ok(SENDER_DOORBELL_OFFSET) => self.sender_doorbell_words(),
            _ => return None,
        };
        Some(OfferBell::new(words, Arc::clone(pipe)))
    }

    /// The region, to ask whether it was damaged.
    #[must_use]
    pub fn region(&self) -> &Region {
        self.view.region()
    }

    /// Tells the driver which process a client lives in. `None` when the table is full: the driver then relies on
    /// the client's heartbeat alone.
    #[must_use]
    pub fn claim_client_slot(&self, client_id: ClientId, process: ProcessId) -> Option<ClientSlot> {
        let slot = self.claim(self.client_table(), client_id.0, |slot| {
            slot.store_relaxed_i64(CLIENT_PID, process.pid);
            slot.store_relaxed_i64(CLIENT_START_TICKS, process.start_time_ticks.cast_signed());
            slot.store_relaxed_i64(CLIENT_NAMESPACE, process.namespace.cast_signed());
        })?;
        Some(ClientSlot { slot, client_id })
    }

    /// Takes a slot for one handle of a concurrent publication. `None` when the table is full or the tag is one of
    /// the reserved values: the handle then works without, the client's slot says so, and a death in the middle of
    /// its append is repaired by the slow timeout.
    #[must_use]
    pub fn claim_owner_slot(
        &self,
        client_id: ClientId,
        tag: i64,
        registration_id: RegistrationId,
    ) -> Option<OwnerSlot> {
        let slot = self.claim(self.owner_table(), tag, |slot| {
            slot.store_relaxed_i64(OWNER_CLIENT_ID, client_id.0);
            slot.store_relaxed_i64(OWNER_REGISTRATION_ID, registration_id.0);
            slot.store_relaxed_i64(OWNER_LENGTH, 0);
            slot.store_relaxed_i64(OWNER_WINDOW, WINDOW_NONE);
        });
        let Some(slot) = slot else {
            self.mark_untracked(client_id);
            return None;
        };
        Some(OwnerSlot {
            slot: Fields::new(slot)?,
            tag,
            one_thread: PhantomData,
        })
    }

    fn mark_untracked(&self, client_id: ClientId) {
        let own = self
            .slots(self.client_table())
            .find(|slot| is_taken(client_id.0) && slot.load_acquire_i64(CLIENT_ID) == client_id.0);
        if let Some(slot) = own {
            // SYNC untracked: comes before the first append of the publication that has no slot.
            slot.store_release_i64(CLIENT_UNTRACKED, 1);
        }
    }

    /// The attached clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientRecord> + '_ {
        self.slots(self.client_table()).filter_map(|slot| {
            // SYNC extension-slot: the slot is complete.
            let id = slot.load_acquire_i64(CLIENT_ID);
            is_taken(id).then(|| ClientRecord {
                client_id: ClientId(id),
                process: process_of(&slot),
                is_untracked: slot.load_acquire_i64(CLIENT_UNTRACKED) != 0,
            })
        })
    }

    /// The handles of concurrent publications.
    pub fn owners(&self) -> impl Iterator<Item = OwnerRecord> + '_ {
        self.slots(self.owner_table()).filter_map(|slot| {
            // SYNC extension-slot: the slot is complete.
            let tag = slot.load_acquire_i64(OWNER_TAG);
            is_taken(tag).then(|| OwnerRecord {
                tag,
                client_id: ClientId(slot.load_relaxed_i64(OWNER_CLIENT_ID)),
                registration_id: RegistrationId(slot.load_relaxed_i64(OWNER_REGISTRATION_ID)),
                window: window_of(&slot),
            })
        })
    }

    /// Frees the slots of a client whose process is dead, or that has closed. For the driver, once it has repaired
    /// the logs. Never for a client whose process may still run.
    pub fn free_slots_of(&self, client_id: ClientId) {
        self.for_slots_of(client_id, clear);
    }

    fn client_table(&self) -> (usize, usize) {
        (SLOTS_OFFSET, self.client_slots)
    }

    fn owner_table(&self) -> (usize, usize) {
        (SLOTS_OFFSET + self.client_slots * SLOT_LENGTH, self.owner_slots)
    }

    fn slots(&self, (start, count): (usize, usize)) -> impl Iterator<Item = View> + '_ {
        (0..count).map(move |index| self.view.slice(start + index * SLOT_LENGTH, SLOT_LENGTH))
    }

    fn for_slots_of(&self, client_id: ClientId, action: impl Fn(&View, i64)) {
        for slot in self.slots(self.owner_table()) {
            let tag = slot.load_acquire_i64(OWNER_TAG);
            if is_taken(tag) && slot.load_relaxed_i64(OWNER_CLIENT_ID) == client_id.0 {
                action(&slot, tag);
            }
        }
        for slot in self.slots(self.client_table()) {
            if is_taken(client_id.0) && slot.load_acquire_i64(CLIENT_ID) == client_id.0 {
                action(&slot, client_id.0);
            }
        }
    }

    fn claim(&self, table: (usize, usize), word: i64, fill: impl Fn(&View)) -> Option<View> {
        if !is_taken(word) {
            return None;
        }
        for slot in self.slots(table) {
            if slot.load_relaxed_i64(0) == FREE && slot.compare_exchange_i64(0, FREE, RESERVED).is_ok() {
                fill(&slot);
                // SYNC extension-slot: the slot is complete once its first word is.
                slot.store_release_i64(0, word);
                return Some(slot);
            }
        }
        None
    }
}

/// The tag of the `handle`-th publication handle of a client: unique among live handles, and no reserved value.
#[must_use]
pub const fn owner_tag(client_id: ClientId, handle: u32) -> i64 {
    let tag = (client_id.0 << 24) ^ handle as i64;
    match tag {
        FREE | RESERVED => i64::MIN,
        tag => tag,
    }
}

/// A client's entry, freed on drop.
#[derive(Debug)]
pub struct ClientSlot {
    slot: View,
    client_id: ClientId,
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        clear(&self.slot, self.client_id.0);
    }
}

/// Where one handle of a concurrent publication notes what it has in flight, so that the driver can repair the log
/// at once should the process die. Used by one thread at a time; freed on drop when nothing is in flight.
#[derive(Debug)]
pub struct OwnerSlot {
    slot: Fields<View, SLOT_LENGTH>,
    tag: i64,
    one_thread: PhantomData<Cell<()>>,
}

impl OwnerSlot {
    /// The tag.
    #[must_use]
    pub fn tag(&self) -> i64 {
        self.tag
    }

    /// Comes before the tail is moved.
    #[inline(always)]
    pub fn enter(&self) {
        // SYNC owner-window: the store is ordered before the read-modify-write of the tail that follows.
        self.slot.store_release(OWNER_WINDOW, WINDOW_RESERVING);
    }

    /// Comes after the tail was moved: `[position, position + length)` is ours.
    #[inline(always)]
    pub fn claimed(&self, position: i64, length: i64) {
        // SYNC owner-window: whoever sees this length sees that the window has left the position before.
        self.slot.store_release(OWNER_LENGTH, length);
        // SYNC owner-window: the length is there once the position is.
        self.slot.store_release(OWNER_WINDOW, position | WINDOW_IN_FLIGHT);
    }

    /// Comes after the last frame was committed.
    #[inline(always)]
    pub fn leave(&self) {
        // SYNC owner-window: every commit is visible once the window is empty.
        self.slot.store_release(OWNER_WINDOW, WINDOW_NONE);
    }

    /// What the slot says is in flight.
    #[must_use]
    pub fn window(&self) -> Window {
        window_of(self.slot.buffer())
    }
}

impl AppendWindow for OwnerSlot {
    #[inline(always)]
    fn enter(&self) {
        OwnerSlot::enter(self);
    }

    #[inline(always)]
    fn claimed(&self, position: i64, length: i64) {
        OwnerSlot::claimed(self, position, length);
    }

    #[inline(always)]
    fn leave(&self) {
        OwnerSlot::leave(self);
    }
}

impl Drop for OwnerSlot {
    fn drop(&mut self) {
        // An append that panicked half-way leaves its window for the driver to repair.
        if self.window() == Window::None {
            clear(self.slot.buffer(), self.tag);
        }
    }
}

fn is_taken(word: i64) -> bool {
    !matches!(word, FREE | RESERVED)
}

/// Frees a slot if its first word is still `word`; it may have been freed by the driver.
fn clear(slot: &View, word: i64) {
    if slot.compare_exchange_i64(0, word, RESERVED).is_ok() {
        slot.zero(8, SLOT_LENGTH - 8);
        slot.store_release_i64(0, FREE);
    }
}

fn process_of(slot: &View) -> ProcessId {
    ProcessId {
        pid: slot.load_relaxed_i64(CLIENT_PID),
        start_time_ticks: slot.load_relaxed_i64(CLIENT_START_TICKS).cast_unsigned(),
        namespace: slot.load_relaxed_i64(CLIENT_NAMESPACE).cast_unsigned(),
    }
}

fn window_of(slot: &View) -> Window {
    // SYNC owner-window: the length belongs to this position, or to a later one; then the window has moved on, and
    // where it is now is for the next look.
    match slot.load_acquire_i64(OWNER_WINDOW) {
        WINDOW_NONE => Window::None,
        word if word & WINDOW_IN_FLIGHT == 0 => Window::Reserving,
        word => {
            let length = slot.load_acquire_i64(OWNER_LENGTH);
            if slot.load_relaxed_i64(OWNER_WINDOW) == word {
                Window::InFlight {
                    position: word & !0x1f,
                    length,
                }
            } else {
                Window::Reserving
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: EpochMs = EpochMs(1_700_000_000_000);

    fn process(pid: i64) -> ProcessId {
        ProcessId {
            pid,
            start_time_ticks: 99,
            namespace: 7,
        }
    }

    fn extension() -> (Region, Extension) {
        let region = Region::heap(FILE_LENGTH);
        let extension = Extension::create(&region, process(1), START).unwrap();
        (region, extension)
    }

    #[test]
    fn what_the_driver_wrote_is_what_a_client_opens() {
        let (region, _) = extension();
        let opened = Extension::open(&region, START).unwrap();
        assert_eq!(opened.driver(), process(1));
        assert_eq!(opened.clients().count(), 0);
        assert_eq!(opened.owners().count(), 0);
        opened.doorbell().ring();
        assert_eq!(region.as_view().load_acquire_i32(128), 1);
    }

    #[test]
    fn a_client_whose_publication_got_no_slot_is_marked() {
        let (_region, extension) = extension();
        let _client = extension.claim_client_slot(ClientId(7), process(7)).unwrap();
        let owners: Vec<OwnerSlot> = (1..=OWNER_SLOTS as i64)
            .map(|tag| {
                extension
                    .claim_owner_slot(ClientId(8), tag, RegistrationId(1))
                    .unwrap()
            })
            .collect();
        assert!(!extension.clients().next().unwrap().is_untracked);
        assert!(
            extension
                .claim_owner_slot(ClientId(7), 1 << 40, RegistrationId(1))
                .is_none()
        );
        assert!(extension.clients().next().unwrap().is_untracked);
        assert_eq!(owners.len(), OWNER_SLOTS);
    }

    #[test]
    fn a_file_of_another_run_or_layout_is_refused() {
        let (region, _) = extension();
        let view = region.as_view();
        assert_eq!(
            Extension::open(&region, EpochMs(5)).unwrap_err(),
            ExtensionError::OtherDriver {
                found: START.0,
                expected: 5
            }
        );
        view.store_relaxed_i32(CLIENT_SLOTS_OFFSET, i32::MAX);
        assert!(matches!(
            Extension::open(&region, START),
            Err(ExtensionError::BadTables { .. })
        ));
        view.store_relaxed_i32(CLIENT_SLOTS_OFFSET, SLOTS_MAX as i32);
        assert!(matches!(
            Extension::open(&region, START),
            Err(ExtensionError::TooShort { .. })
        ));
        view.store_relaxed_i32(VERSION_OFFSET, 2);
        assert_eq!(
            Extension::open(&region, START).unwrap_err(),
            ExtensionError::VersionMismatch(2)
        );
        view.store_relaxed_i64(0, 0);
        assert_eq!(
            Extension::open(&region, START).unwrap_err(),
            ExtensionError::NotReady
        );
        assert!(matches!(
            Extension::open(&Region::heap(64), START),
            Err(ExtensionError::TooShort { .. })
        ));
    }

    #[test]
    fn slots_are_listed_until_they_are_dropped() {
        let (_region, extension) = extension();
        let client = extension.claim_client_slot(ClientId(10), process(2)).unwrap();
        let owner = extension
            .claim_owner_slot(ClientId(10), owner_tag(ClientId(10), 1), RegistrationId(30))
            .unwrap();
        assert_eq!(
            extension.clients().collect::<Vec<_>>(),
            [ClientRecord {
                client_id: ClientId(10),
                process: process(2),
                is_untracked: false,
            }]
        );
        let record = extension.owners().next().unwrap();
        assert_eq!(record.tag, owner.tag());
        assert_eq!(record.client_id, ClientId(10));
        assert_eq!(record.registration_id, RegistrationId(30));
        assert_eq!(record.window, Window::None);
        drop((client, owner));
        assert_eq!(extension.clients().count() + extension.owners().count(), 0);
    }

    #[test]
    fn the_window_follows_the_append_and_outlives_a_handle_that_never_left_it() {
        let (_region, extension) = extension();
        let owner = extension
            .claim_owner_slot(ClientId(3), 77, RegistrationId(30))
            .unwrap();
        owner.enter();
        assert_eq!(extension.owners().next().unwrap().window, Window::Reserving);
        owner.claimed(1 << 40, 96);
        let in_flight = Window::InFlight {
            position: 1 << 40,
            length: 96,
        };
        assert_eq!(extension.owners().next().unwrap().window, in_flight);
        drop(owner);
        assert_eq!(extension.owners().next().unwrap().window, in_flight);
        extension.free_slots_of(ClientId(3));
        assert_eq!(extension.owners().count(), 0);
        let owner = extension
            .claim_owner_slot(ClientId(4), 78, RegistrationId(31))
            .unwrap();
        assert_eq!(owner.window(), Window::None);
        owner.enter();
        owner.leave();
        assert_eq!(owner.window(), Window::None);
    }

    #[test]
    fn a_window_touches_every_range_it_shares_a_byte_with() {
        let window = Window::InFlight {
            position: 64,
            length: 64,
        };
        for (position, length, expected) in [
            (0, 64, false),
            (0, 65, true),
            (0, 1024, true),
            (96, 32, true),
            (127, 1, true),
            (128, 32, false),
            (0, i64::MAX, true),
        ] {
            assert_eq!(
                window.may_touch(position, length),
                expected,
                "{position} {length}"
            );
            assert!(!Window::None.may_touch(position, length));
            assert!(Window::Reserving.may_touch(position, length));
        }
        let hostile = Window::InFlight {
            position: i64::MAX & !31,
            length: i64::MAX,
        };
        assert!(hostile.may_touch(i64::MAX - 40, i64::MAX));
        assert!(!hostile.may_touch(0, 64));
    }

    #[test]
    fn full_tables_give_nothing() {
        let (_region, extension) = extension();
        let clients: Vec<_> = (1..=CLIENT_SLOTS as i64)
            .map(|id| extension.claim_client_slot(ClientId(id), process(id)).unwrap())
            .collect();
        assert!(extension.claim_client_slot(ClientId(9999), process(1)).is_none());
        drop(clients);
        assert!(extension.claim_client_slot(ClientId(9999), process(1)).is_some());
        for reserved in [0, -1] {
            assert!(
                extension
                    .claim_owner_slot(ClientId(1), reserved, RegistrationId(1))
                    .is_none()
            );
        }
    }

    #[test]
    fn a_resumed_client_can_not_free_the_slot_of_its_successor() {
        let (_region, extension) = extension();
        let stopped = extension.claim_client_slot(ClientId(10), process(2)).unwrap();
        let stopped_owner = extension
            .claim_owner_slot(ClientId(10), 100, RegistrationId(1))
            .unwrap();
        extension.free_slots_of(ClientId(10));
        let _next = extension.claim_client_slot(ClientId(11), process(3)).unwrap();
        let _next_owner = extension
            .claim_owner_slot(ClientId(11), 110, RegistrationId(2))
            .unwrap();
        drop((stopped, stopped_owner));
        assert_eq!(extension.clients().next().unwrap().client_id, ClientId(11));
        assert_eq!(extension.owners().next().unwrap().tag, 110);
    }

    #[test]
    fn owner_tags_avoid_the_reserved_values() {
        assert_eq!(owner_tag(ClientId(1), 2), (1 << 24) ^ 2);
        assert_eq!(owner_tag(ClientId(0), 0), i64::MIN);
        assert_ne!(owner_tag(ClientId(-1), 0x00ff_ffff), -1);
    }

    #[test]
    fn no_content_of_the_file_upsets_its_readers() {
        use proptest::prelude::*;
        proptest!(|(words in proptest::collection::vec((0usize..FILE_LENGTH / 8, any::<i64>()), 0..64))| {
            let (region, _) = extension();
            let view = region.as_view();
            for (index, word) in words {
                view.store_relaxed_i64(index * 8, word);
            }
            if let Ok(extension) = Extension::open(&region, START) {
                let clients: Vec<_> = extension.clients().collect();
                let owners: Vec<_> = extension.owners().collect();
                prop_assert!(clients.len() <= CLIENT_SLOTS && owners.len() <= OWNER_SLOTS);
                for id in clients.iter().map(|record| record.client_id)
                    .chain(owners.iter().map(|record| record.client_id)) {
                    extension.free_slots_of(id);
                }
                prop_assert_eq!(extension.clients().count() + extension.owners().count(), 0);
            }
        });
    }
}
