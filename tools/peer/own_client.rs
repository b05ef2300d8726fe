//! Fulmar's client under the commands of [`worker`], so that tests run the same script on both clients, and may kill
//! or suspend either.

#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod facts;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod pattern;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod worker;

use std::sync::Arc;
use std::time::Duration;

use facts::{CounterLine, EventLog, Failure, ImageFacts, PublicationFacts};
use fulmar::client::ImageHandler;
use fulmar::id::RegistrationId;
use fulmar::{
    Client, ClientError, ClientEvent, ClientSettings, CommitError, ExclusivePublication, Header,
    ImageHandlers, Offer, Payload, Publication, RegistrationError, Subscription, UserCounter,
};
use worker::{
    ClientApi, Connected, CounterApi, Library, MessageHandler, PublicationApi, SubscriptionApi, Worker,
};

fn main() {
    let library = Library {
        connect,
        terminate,
        version: || env!("CARGO_PKG_VERSION").to_owned(),
    };
    Worker::new(library).run();
}

fn connect(dir: &str, driver_timeout_ms: u64) -> Connected {
    let events = EventLog::default();
    let (errors, news) = (events.clone(), events.clone());
    let client = Client::connect(ClientSettings {
        driver_timeout: Duration::from_millis(driver_timeout_ms),
        on_error: Some(Arc::new(move |error| errors.push(error_line(error)))),
        on_event: Some(Arc::new(move |event| news.push(event_line(event)))),
        ..ClientSettings::with_dir(dir)
    });
    match client {
        Ok(client) => Ok(Box::new(OwnClient { client, events })),
        Err(error) => Err(Failure::of(error.to_string())),
    }
}

fn terminate(dir: &str, token: &[u8]) -> Result<(), Failure> {
    fulmar::client::request_termination(dir, token).map_err(|error| Failure::of(error.to_string()))
}

fn error_line(error: &ClientError) -> String {
    match error {
        ClientError::PublicationError {
            registration_id,
            code,
            message,
        } => {
            format!(
                "publication-error {} {} {message}",
                registration_id.get(),
                code.get()
            )
        }
        other => format!("error 0 {other}"),
    }
}

fn event_line(event: &ClientEvent) -> String {
    match event {
        ClientEvent::DriverLost { reason } => format!("driver-lost {reason:?}"),
        ClientEvent::DriverStalled => "driver-stalled".to_owned(),
        ClientEvent::DriverResumed => "driver-resumed".to_owned(),
        ClientEvent::Reattached { client_id } => format!("reattached {client_id}"),
        ClientEvent::CounterAvailable {
            registration_id,
            counter_id,
        } => {
            format!("counter {} {}", registration_id.get(), counter_id.get())
        }
        ClientEvent::CounterUnavailable {
            registration_id,
            counter_id,
        } => {
            format!("counter-gone {} {}", registration_id.get(), counter_id.get())
        }
        ClientEvent::ClientTimedOut { client_id } => format!("client-timed-out {client_id}"),
        ClientEvent::Closed => "client-closed".to_owned(),
        other => format!("event {other:?}"),
    }
}

/// Refusals carry the driver's code with the sign that the C client gives it.
fn refusal(error: RegistrationError) -> Failure {
    let code = match &error {
        RegistrationError::Refused { code, .. } => -code.get(),
        _ => 0,
    };
    Failure {
        code,
        text: error.to_string(),
    }
}

/// Aeron's number for an outcome.
fn number_of(offer: Offer) -> i64 {
    match offer {
        Offer::Position(position) => position,
        Offer::NotConnected => -1,
        Offer::BackPressured => -2,
        Offer::AdminAction => -3,
        Offer::Closed => -4,
        Offer::MaxPositionExceeded => -5,
        Offer::TooLong => -6,
    }
}

struct OwnClient {
    client: Client,
    events: EventLog,
}

impl OwnClient {
    fn image_handler(&self, what: &'static str) -> Option<ImageHandler> {
        let events = self.events.clone();
        Some(Box::new(move |image| {
            events.push(format!(
                "{what} stream={} session={} id={} join={} source={}",
                image.stream_id.get(),
                image.session_id.get(),
                image.correlation_id.get(),
                image.join_position,
                image.source_identity
            ));
        }))
    }
}

impl ClientApi for OwnClient {
    fn client_id(&self) -> i64 {
        self.client.client_id().get()
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    fn events(&self) -> &EventLog {
        &self.events
    }

    fn add_publication(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure> {
        Ok(Box::new(
            self.client.add_publication(channel, stream).map_err(refusal)?,
        ))
    }

    fn add_exclusive(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure> {
        Ok(Box::new(
            self.client
                .add_exclusive_publication(channel, stream)
                .map_err(refusal)?,
        ))
    }

    fn add_subscription(&self, channel: &str, stream: i32) -> Result<Box<dyn SubscriptionApi>, Failure> {
        let handlers = ImageHandlers {
            on_available: self.image_handler("image"),
            on_unavailable: self.image_handler("image-gone"),
        };
        Ok(Box::new(
            self.client
                .add_subscription_with(channel, stream, handlers)
                .map_err(refusal)?,
        ))
    }

    fn add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
        static_id: Option<i64>,
    ) -> Result<Box<dyn CounterApi>, Failure> {
        let counter = match static_id {
            None => self.client.add_counter(type_id, key, label),
            Some(id) => self
                .client
                .add_static_counter(type_id, RegistrationId(id), key, label),
        };
        Ok(Box::new(counter.map_err(refusal)?))
    }

    fn next_session_id(&self, stream: i32) -> Result<i32, Failure> {
        Ok(self.client.next_session_id(stream).map_err(refusal)?.get())
    }

    fn counters(&self) -> Vec<CounterLine> {
        let mut lines = Vec::new();
        if let Some(reader) = self.client.counters() {
            reader.for_each(|record| {
                lines.push(CounterLine {
                    id: record.id.get(),
                    type_id: record.type_id,
                    value: record.value,
                    registration_id: record.registration_id,
                    owner_id: record.owner_id,
                    reference_id: record.reference_id,
                    key: record.key.to_vec(),
                    label: record.label,
                });
            });
        }
        lines
    }
}

/// The two kinds of publication have the same methods.
macro_rules! publication_api {
    ($type:ty) => {
        impl PublicationApi for $type {
            fn offer(&mut self, message: &[u8]) -> i64 {
                number_of(<$type>::offer(self, message))
            }

            fn offer_batch(&mut self, messages: &[&[u8]]) -> (usize, i64) {
                let batch = <$type>::offer_batch(self, messages);
                (batch.accepted, number_of(batch.outcome))
            }

            fn claim(&mut self, message: &[u8], commit: &mut dyn FnMut(i64) -> bool) -> Result<i64, i64> {
                let mut claim = self.try_claim(message.len()).map_err(number_of)?;
                let position = claim.position();
                claim.buffer_mut().copy_from_slice(message);
                if !commit(position) {
                    claim.abort();
                    return Ok(position);
                }
                claim.commit().map_err(|error| match error {
                    CommitError::ClaimRevoked => -100,
                    CommitError::Closed => -4,
                })
            }

            fn is_connected(&self) -> bool {
                <$type>::is_connected(self)
            }

            fn is_closed(&self) -> bool {
                <$type>::is_closed(self)
            }

            fn position(&self) -> i64 {
                <$type>::position(self).unwrap_or(-4)
            }

            fn position_limit(&self) -> i64 {
                <$type>::position_limit(self).unwrap_or(-4)
            }

            fn facts(&self) -> PublicationFacts {
                PublicationFacts {
                    registration_id: self.registration_id().get(),
                    original_registration_id: self.original_registration_id().get(),
                    session_id: self.session_id().get(),
                    initial_term_id: self.initial_term_id().unwrap_or(0),
                    term_length: usize::try_from(self.term_length()).unwrap_or(0),
                    max_message_length: self.max_message_length(),
                    max_payload_length: self.max_payload_length(),
                }
            }

            fn destination(&self, add: bool, uri: &str) -> Result<(), Failure> {
                if add {
                    self.add_destination(uri).map(|_| ()).map_err(refusal)
                } else {
                    self.remove_destination(uri).map_err(refusal)
                }
            }

            fn revoke(self: Box<Self>) -> Result<(), Failure> {
                <$type>::revoke(*self);
                Ok(())
            }
        }
    };
}

publication_api!(Publication);
publication_api!(ExclusivePublication);

impl SubscriptionApi for Subscription {
    fn poll(&mut self, handler: MessageHandler<'_>, limit: usize) -> Result<usize, Failure> {
        let mut copy = Vec::new();
        let deliver = |payload: Payload<'_>, header: &Header<'_>| {
            copy.clear();
            payload.append_to(&mut copy);
            handler(&copy, header.position(), header.session_id().get());
        };
        Ok(Subscription::poll(self, deliver, limit))
    }

    fn is_connected(&self) -> bool {
        Subscription::is_connected(self)
    }

    fn is_closed(&self) -> bool {
        Subscription::is_closed(self)
    }

    fn images(&mut self) -> Vec<ImageFacts> {
        let images = Subscription::images(self).iter();
        images
            .map(|image| ImageFacts {
                session_id: image.session_id().get(),
                correlation_id: image.correlation_id().get(),
                join_position: image.join_position(),
                position: image.position(),
                is_end_of_stream: image.is_end_of_stream(),
                is_publication_revoked: image.is_publication_revoked(),
                source_identity: image.source_identity().to_owned(),
            })
            .collect()
    }

    fn reject(&mut self, index: usize, reason: &str) -> Result<(), Failure> {
        let image = Subscription::images(self)
            .get(index)
            .ok_or_else(|| Failure::of("no such image"))?;
        image.reject(reason).map_err(refusal)
    }

    fn registration_id(&self) -> i64 {
        Subscription::registration_id(self).get()
    }

    fn destination(&self, add: bool, uri: &str) -> Result<(), Failure> {
        if add {
            self.add_destination(uri)
        } else {
            self.remove_destination(uri)
        }
        .map_err(refusal)
    }
}

impl CounterApi for UserCounter {
    fn ids(&self) -> (i32, i64) {
        (self.counter_id().get(), self.registration_id().get())
    }

    fn set(&self, value: i64) {
        UserCounter::set(self, value);
    }

    fn get(&self) -> i64 {
        UserCounter::get(self)
    }
}
