//! Logs that clients write to, over any media: what the repairs after a publisher's death need of them.
#![forbid(unsafe_code)]

use fulmar::id::RegistrationId;

use super::network_publications::NetworkPublication;
use crate::stream::ipc_publication::{IpcPublication, Reference};
use crate::stream::publication_conductor::PublicationConductor;
use crate::stream::publication_repair::{Holder, Repairs};

/// A publication's log.
pub(super) trait WrittenLog {
    fn registration_id(&self) -> RegistrationId;
    fn references(&self) -> &[Reference];
    /// See [`IpcPublication::remove_reference`].
    fn remove_references(&mut self, matches: &dyn Fn(&Reference) -> bool);
    /// See [`IpcPublication::add_orphan_claims`].
    fn add_orphan_claims(&mut self, tag: i64);
    /// See [`IpcPublication::add_orphan_reservation`].
    fn add_orphan_reservation(&mut self);
    /// See [`IpcPublication::pad_in_flight`].
    fn pad_in_flight(&mut self, position: i64, length: i64) -> Repairs;
    /// See [`IpcPublication::has_orphans`].
    fn has_orphans(&self) -> bool;
    /// See [`IpcPublication::repair_orphans`].
    fn repair_orphans(&mut self, holder: &dyn Fn(i64, i64) -> Holder) -> Repairs;
}

/// Both kinds of publications have these by the same names.
macro_rules! written_log {
    ($type:ty) => {
        impl WrittenLog for $type {
            fn registration_id(&self) -> RegistrationId {
                self.registration_id
            }

            fn references(&self) -> &[Reference] {
                &self.references
            }

            fn remove_references(&mut self, matches: &dyn Fn(&Reference) -> bool) {
                self.remove_reference(matches);
            }

            fn add_orphan_claims(&mut self, tag: i64) {
                Self::add_orphan_claims(self, tag);
            }

            fn add_orphan_reservation(&mut self) {
                Self::add_orphan_reservation(self);
            }

            fn pad_in_flight(&mut self, position: i64, length: i64) -> Repairs {
                Self::pad_in_flight(self, position, length)
            }

            fn has_orphans(&self) -> bool {
                Self::has_orphans(self)
            }

            fn repair_orphans(&mut self, holder: &dyn Fn(i64, i64) -> Holder) -> Repairs {
                Self::repair_orphans(self, holder)
            }
        }
    };
}

written_log!(IpcPublication);
written_log!(PublicationConductor);

/// All logs that clients write to.
pub(super) fn written_logs<'a>(
    ipc: &'a mut [IpcPublication],
    network: &'a mut [NetworkPublication],
) -> impl Iterator<Item = &'a mut dyn WrittenLog> {
    let ipc = ipc
        .iter_mut()
        .map(|publication| publication as &mut dyn WrittenLog);
    let network = network
        .iter_mut()
        .map(|publication| &mut publication.half as &mut dyn WrittenLog);
    ipc.chain(network)
}
