//! What the name resolution between drivers shows of itself in counters (types 15, 16 and 21) and in the error log.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use fulmar::counters::{SystemCounter, type_id};
use fulmar::id::CounterId;

use super::services::{CommandFailure, CounterSpec, Services};
use crate::commands::NameResolutionEvent;

/// The counters of the name resolution between drivers; none as long as it is off.
#[derive(Debug, Default)]
pub(super) struct NameResolutionCounters {
    neighbors: Option<CounterId>,
    names: Option<CounterId>,
    bootstraps: BTreeMap<usize, CounterId>,
}

impl NameResolutionCounters {
    /// Shows an event.
    pub(super) fn on_event(&mut self, services: &mut Services, event: &NameResolutionEvent) {
        if let Err(failure) = self.show(services, event) {
            services.record_keyed(failure.code, "no counter for name resolution", &failure.text);
        }
    }

    fn show(&mut self, services: &mut Services, event: &NameResolutionEvent) -> Result<(), CommandFailure> {
        match event {
            NameResolutionEvent::Started { bound, name } => {
                let label = format!("Resolver neighbors: bound {bound}");
                self.neighbors = Some(allocate(services, type_id::RESOLVER_NEIGHBORS, &[], &label)?);
                let label = format!("Resolver cache entries: name={name}");
                self.names = Some(allocate(services, type_id::RESOLVER_CACHE, &[], &label)?);
            }
            NameResolutionEvent::Counts { neighbors, names } => {
                for (id, count) in [(self.neighbors, *neighbors), (self.names, *names)] {
                    if let Some(id) = id {
                        services.counters.set_value(id, count as i64);
                    }
                }
            }
            NameResolutionEvent::Bootstrap { index, name, address } => {
                let label = format!("Bootstrap neighbor: name={name} resolved={address}");
                if let Some(id) = self.bootstraps.get(index) {
                    services.counters.set_label(*id, &label);
                    services.increment(SystemCounter::ResolutionChanges);
                } else {
                    let key = (*index as i32).to_le_bytes();
                    let id = allocate(services, type_id::RESOLVER_BOOTSTRAP_NEIGHBOR, &key, &label)?;
                    self.bootstraps.insert(*index, id);
                }
            }
            NameResolutionEvent::InvalidPackets { count } => {
                // Sender and receiver count theirs here, too.
                services
                    .system(SystemCounter::InvalidPackets)
                    .add_atomic(*count as i64);
            }
        }
        Ok(())
    }
}

fn allocate(
    services: &mut Services,
    type_id: i32,
    key: &[u8],
    label: &str,
) -> Result<CounterId, CommandFailure> {
    services.allocate(&CounterSpec {
        type_id,
        key,
        label: label.as_bytes(),
        registration_id: 0,
        owner_id: 0,
        reference_id: 0,
    })
}
