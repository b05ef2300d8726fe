//! What the conductor sends for the application: adds, and everything again at a driver's successor.
#![forbid(unsafe_code)]

use super::{Conductor, State, Target};
use crate::client::error::RegistrationError;
use crate::client::registry::{Request, ResourceKey};
use crate::control::Command;
use crate::id::{RegistrationId, StreamId};

impl Conductor {
    pub(super) fn send_add(&mut self, key: ResourceKey) -> Result<(), RegistrationError> {
        let State::Attached(link) = &mut self.state else {
            return Ok(());
        };
        let Some(entry) = self.registry.get(key) else {
            return Ok(());
        };
        let command = match &entry.request {
            Request::Publication {
                channel,
                stream_id,
                exclusive: false,
            } => Command::AddPublication {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Publication {
                channel, stream_id, ..
            } => Command::AddExclusivePublication {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Subscription { channel, stream_id } => Command::AddSubscription {
                stream_id: StreamId(*stream_id),
                channel: channel.as_str().into(),
            },
            Request::Counter { type_id, key, label } => Command::AddCounter {
                type_id: *type_id,
                key,
                label: label.as_str().into(),
            },
            Request::StaticCounter {
                registration_id,
                type_id,
                key,
                label,
            } => Command::AddStaticCounter {
                registration_id: RegistrationId(*registration_id),
                type_id: *type_id,
                key,
                label: label.as_str().into(),
            },
        };
        let id = link.next_correlation_id();
        link.send(id, &command)?;
        self.registry.on_sent(key, id);
        Ok(())
    }

    /// Asks again for everything a lost driver had, and for what was asked while there was none.
    pub(super) fn send_unsent(&mut self) {
        for key in self.registry.unsent() {
            match self.send_add(key) {
                Ok(()) => {}
                // Again at the next timer.
                Err(RegistrationError::RingFull) => return,
                Err(error) => {
                    let failure = self.registry.fail(key, error);
                    self.on_failure(failure);
                }
            }
        }
    }

    pub(super) fn send_destinations(&mut self, key: ResourceKey) {
        let Ok((own, original)) = self.registration_ids(key) else {
            return;
        };
        let Some(entry) = self.registry.get(key) else {
            return;
        };
        let is_subscription = matches!(entry.target, Target::Subscription(_));
        let channels: Vec<String> = entry.destinations.iter().map(|d| d.channel.clone()).collect();
        for (index, channel) in channels.iter().enumerate() {
            let channel = channel.as_str().into();
            let command = if is_subscription {
                Command::AddReceiveDestination {
                    registration_id: own,
                    channel,
                }
            } else {
                Command::AddDestination {
                    registration_id: original,
                    channel,
                }
            };
            let Some(link) = self.link_mut() else { return };
            let id = link.next_correlation_id();
            if link.send(id, &command).is_ok() {
                self.registry.renumber_destination(key, index, id.into());
            }
        }
    }
}
