//! What the driver says, and what becomes of it (shared-memory spec 8).
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{Conductor, MESSAGES_PER_CYCLE, Notice, Target};
use crate::client::attachment::{Attachment, Identity};
use crate::client::error::{ClientError, RegistrationError};
use crate::client::event::{ClientEvent, DriverLossReason, ImageInfo};
use crate::client::image::ImageShared;
use crate::client::registry::{Failure, Kind, Match, Removal};
use crate::client::slot::lock;
use crate::control::response::{AvailableImage, PublicationReady, UnavailableImage};
use crate::control::{ErrorCode, Response};
use crate::id::{CorrelationId, CounterId, RegistrationId};
use crate::time::Now;

impl Conductor {
    pub(super) fn receive(&mut self, now: Now) -> usize {
        let mut bytes = core::mem::take(&mut self.received);
        let mut count = 0;
        while count < MESSAGES_PER_CYCLE {
            let Some(link) = self.link_mut() else { break };
            match link.receive(&mut bytes) {
                Ok(None) => break,
                Ok(Some(type_id)) => {
                    count += 1;
                    // What can not be read, or is of a type that is not known, is not for this version.
                    if let Ok(response) = Response::decode(type_id, &bytes) {
                        self.on_response(&response, now);
                    }
                }
                Err(_) if link.is_damaged() => {
                    self.on_driver_lost(DriverLossReason::CncDamaged, now);
                    break;
                }
                Err(_) => {
                    self.terminate(ClientError::EventsLost, None);
                    break;
                }
            }
        }
        self.received = bytes;
        count
    }

    fn on_response(&mut self, response: &Response<'_>, now: Now) {
        match *response {
            Response::Error {
                correlation_id,
                error_code,
                message,
            } => self.on_error(correlation_id, error_code, message.to_string_lossy()),
            Response::AvailableImage(ref image) => self.on_available_image(image),
            Response::UnavailableImage(ref image) => self.on_unavailable_image(image),
            Response::PublicationReady(ref ready) | Response::ExclusivePublicationReady(ref ready) => {
                self.on_publication_ready(ready);
            }
            Response::SubscriptionReady {
                correlation_id,
                channel_status_counter_id,
            } => self.on_subscription_ready(correlation_id, channel_status_counter_id),
            Response::CounterReady {
                registration_id,
                counter_id,
            } => self.on_counter_ready(registration_id, counter_id),
            Response::StaticCounter {
                correlation_id,
                counter_id,
            } => self.on_own_counter(correlation_id, counter_id),
            Response::UnavailableCounter {
                registration_id,
                counter_id,
            } => self.notify(ClientEvent::CounterUnavailable {
                registration_id,
                counter_id,
            }),
            Response::ClientTimeout { client_id } => {
                if client_id == self.client_id {
                    self.on_timed_out(now);
                }
            }
            Response::OperationSuccess { correlation_id } => {
                self.registry.on_operation_done(correlation_id, 0)
            }
            Response::NextAvailableSessionId {
                correlation_id,
                session_id,
            } => self
                .registry
                .on_operation_done(correlation_id, i64::from(session_id.get())),
            Response::PublicationError(ref error) => {
                let ours = self.registry.entries().any(|entry| match &entry.target {
                    Target::Publication(shared) => {
                        lock(&shared.identity).original_registration_id == error.registration_id
                    }
                    Target::Subscription(_) | Target::Counter(_) => false,
                });
                if ours {
                    self.report(ClientError::PublicationError {
                        registration_id: error.registration_id,
                        code: error.error_code,
                        message: error.message.to_string_lossy(),
                    });
                }
            }
        }
    }

    fn on_error(&mut self, correlation_id: CorrelationId, code: ErrorCode, message: String) {
        if code == ErrorCode::ChannelEndpointError {
            // Drivers of old put the id of a channel status counter there, which says nothing about a request.
            let status = CounterId(i32::try_from(correlation_id.get()).unwrap_or(-1));
            if self.uses_channel(status) {
                self.report(ClientError::ChannelError { status, message });
            }
            return;
        }
        let failure = self.registry.on_error(correlation_id, code, message);
        self.on_failure(failure);
    }

    fn uses_channel(&self, status: CounterId) -> bool {
        status != CounterId::NONE
            && self.registry.entries().any(|entry| match &entry.target {
                Target::Publication(shared) => lock(&shared.identity).status == status,
                Target::Subscription(shared) => shared.status() == status,
                Target::Counter(_) => false,
            })
    }

    /// A handle in use has lost its resource for good.
    pub(super) fn on_failure(&mut self, failure: Failure) {
        let Failure::InUse(key) = failure else { return };
        let Some(entry) = self.registry.get(key) else {
            return;
        };
        let (channel, stream_id) = entry.request.describe();
        if let Some((target, error)) = self.registry.take_failed(key) {
            self.close_target(target);
            self.report(ClientError::ReattachFailed {
                channel,
                stream_id,
                error,
            });
        }
    }

    fn on_publication_ready(&mut self, ready: &PublicationReady<'_>) {
        let key = match self.registry.on_ready(ready.correlation_id) {
            Match::Unknown => return,
            Match::Abandoned(removal) => return self.send_removal(removal, false),
            Match::Resource(key) => key,
        };
        let Some(Target::Publication(shared)) = self.registry.get(key).map(|entry| entry.target.clone())
        else {
            return;
        };
        match self.open_publication(ready) {
            Ok(attachment) => {
                *lock(&shared.identity) = attachment.identity;
                self.registry.complete(key);
                shared.slot.set(Some(Arc::new(attachment)));
                self.send_destinations(key);
            }
            Err(reason) => {
                let removal = Removal {
                    kind: Kind::Publication,
                    registration_id: ready.correlation_id.into(),
                };
                self.send_removal(removal, true);
                let failure = self.registry.fail(key, RegistrationError::Unusable(reason));
                self.on_failure(failure);
            }
        }
    }

    fn open_publication(&mut self, ready: &PublicationReady<'_>) -> Result<Attachment, String> {
        let path = ready.log_path.to_str().map_err(|error| error.to_string())?;
        let log = self.logs.open(
            &*self.directory,
            ready.original_registration_id,
            path,
            self.settings.pre_touch,
        )?;
        if log.session_id() != ready.session_id || log.stream_id() != ready.stream_id {
            return Err(format!(
                "{path} is the log of session {} stream {}",
                log.session_id(),
                log.stream_id()
            ));
        }
        let link = self.link().ok_or("the driver is away")?;
        let limit = link
            .counters()
            .counter(ready.position_limit_counter_id)
            .ok_or_else(|| format!("no counter {}", ready.position_limit_counter_id))?;
        Ok(Attachment {
            log,
            limit,
            client_id: self.client_id,
            identity: Identity {
                registration_id: ready.correlation_id.into(),
                original_registration_id: ready.original_registration_id,
                session_id: ready.session_id,
                status: ready.channel_status_counter_id,
                limit: ready.position_limit_counter_id,
            },
            extension: link.extension().cloned(),
            doorbell: link.doorbell(),
            pipe: link.pipe(),
        })
    }

    fn on_subscription_ready(&mut self, correlation_id: CorrelationId, status: CounterId) {
        match self.registry.on_ready(correlation_id) {
            Match::Unknown => {}
            Match::Abandoned(removal) => self.send_removal(removal, false),
            Match::Resource(key) => {
                if let Some(Target::Subscription(shared)) = self.registry.get(key).map(|entry| &entry.target)
                {
                    shared.set_ready(correlation_id.into(), status);
                    self.registry.complete(key);
                    self.send_destinations(key);
                }
            }
        }
    }

    fn on_counter_ready(&mut self, registration_id: RegistrationId, counter_id: CounterId) {
        if registration_id.get() == self.client_id.get() {
            let settings = self.settings.clone();
            if let Some(link) = self.link_mut() {
                link.adopt_heartbeat(counter_id, &settings);
            }
        } else {
            self.on_own_counter(registration_id.into(), counter_id);
        }
        self.notify(ClientEvent::CounterAvailable {
            registration_id,
            counter_id,
        });
    }

    /// Completes the add of a counter, if it is one of this client's.
    fn on_own_counter(&mut self, correlation_id: CorrelationId, counter_id: CounterId) {
        let key = match self.registry.on_ready(correlation_id) {
            Match::Unknown => return,
            Match::Abandoned(removal) => return self.send_removal(removal, false),
            Match::Resource(key) => key,
        };
        let Some(Target::Counter(shared)) = self.registry.get(key).map(|entry| entry.target.clone()) else {
            return;
        };
        let counter = self.link().and_then(|link| link.counters().counter(counter_id));
        let Some(counter) = counter else {
            let failure = self.registry.fail(
                key,
                RegistrationError::Unusable(format!("no counter {counter_id}")),
            );
            return self.on_failure(failure);
        };
        if let Some(value) = lock(&shared.carried).take() {
            counter.set_release(value);
        }
        *lock(&shared.identity) = (RegistrationId(counter.registration_id()), counter_id);
        self.registry.complete(key);
        shared.slot.set(Some(Arc::new(counter)));
    }

    fn on_available_image(&mut self, image: &AvailableImage<'_>) {
        let subscription_id = image.subscription_registration_id;
        let Some(Target::Subscription(shared)) = self
            .registry
            .by_registration(subscription_id)
            .map(|entry| entry.target.clone())
        else {
            return;
        };
        let image_id: RegistrationId = image.image_correlation_id.into();
        if shared.has_image(image_id) {
            return;
        }
        match self.open_image(image) {
            Ok(opened) => {
                let info = opened.info().clone();
                shared.add_image(Arc::new(opened));
                self.notices.push(Notice::ImageAvailable(shared, info));
            }
            Err(reason) => self.report(ClientError::ImageUnusable {
                image: image_id,
                reason,
            }),
        }
    }

    fn open_image(&mut self, image: &AvailableImage<'_>) -> Result<ImageShared, String> {
        let path = image.log_path.to_str().map_err(|error| error.to_string())?;
        let id: RegistrationId = image.image_correlation_id.into();
        let log = self
            .logs
            .open(&*self.directory, id, path, self.settings.pre_touch)?;
        let link = self.link().ok_or("the driver is away")?;
        let counter_id = image.subscriber_position_counter_id;
        let subscription_id = image.subscription_registration_id.get();
        let counters = link.counters();
        let position = counters
            .lease(counter_id, subscription_id)
            // Drivers of old do not write registration ids.
            .or_else(|| counters.lease(counter_id, 0))
            .ok_or_else(|| format!("counter {counter_id} is not its position"))?;
        let join_position = position.counter().get_acquire();
        let info = ImageInfo {
            correlation_id: id,
            subscription_registration_id: image.subscription_registration_id,
            session_id: image.session_id,
            stream_id: image.stream_id,
            source_identity: image.source_identity.to_string_lossy(),
            join_position,
            position: join_position,
        };
        ImageShared::new(info, log, position)
    }

    fn on_unavailable_image(&mut self, image: &UnavailableImage<'_>) {
        let Some(Target::Subscription(shared)) = self
            .registry
            .by_registration(image.subscription_registration_id)
            .map(|entry| entry.target.clone())
        else {
            return;
        };
        if let Some(removed) = shared.remove_image(image.image_correlation_id.into()) {
            self.notices
                .push(Notice::ImageUnavailable(shared, removed.current_info()));
        }
    }
}
