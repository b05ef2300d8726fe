//! Requests under way: asked for without waiting, looked at by polling.
#![forbid(unsafe_code)]

use core::marker::PhantomData;
use std::sync::Arc;

use super::client::Client;
use super::conductor::Target;
use super::counter_handle::UserCounter;
use super::error::RegistrationError;
use super::exclusive_publication::ExclusivePublication;
use super::publication::Publication;
use super::registry::ResourceKey;
use super::subscription::Subscription;
use crate::id::{CorrelationId, RegistrationId};

/// A handle that can be waited for. Implemented by the handles of this crate only.
pub trait Resource: Sized + private::Sealed {
    #[doc(hidden)]
    fn from_target(client: &Client, key: private::Key, target: &private::TargetRef<'_>) -> Option<Self>;
}

pub(super) mod private {
    use super::{ResourceKey, Target};

    pub trait Sealed {}
    /// Wraps a crate type that has no place in the public interface.
    #[derive(Debug)]
    pub struct Key(pub(in crate::client) ResourceKey);
    pub struct TargetRef<'a>(pub(in crate::client) &'a Target);
}

macro_rules! resource {
    ($handle:ty, $variant:ident) => {
        impl private::Sealed for $handle {}
        impl Resource for $handle {
            fn from_target(
                client: &Client,
                key: private::Key,
                target: &private::TargetRef<'_>,
            ) -> Option<Self> {
                match target.0 {
                    Target::$variant(shared) => Some(Self::new(client.clone(), key.0, Arc::clone(shared))),
                    _ => None,
                }
            }
        }
    };
}

resource!(Publication, Publication);
resource!(ExclusivePublication, Publication);
resource!(Subscription, Subscription);
resource!(UserCounter, Counter);

/// A resource the driver was asked for. Dropping it before it is ready gives the request up; what the driver has
/// made by then is removed again.
#[must_use = "a request that is dropped is given up"]
pub struct Pending<R> {
    client: Client,
    /// `None` once the result was taken.
    key: Option<ResourceKey>,
    resource: PhantomData<fn() -> R>,
}

/// A concurrent publication on its way.
pub type PendingPublication = Pending<Publication>;
/// An exclusive publication on its way.
pub type PendingExclusivePublication = Pending<ExclusivePublication>;
/// A subscription on its way.
pub type PendingSubscription = Pending<Subscription>;
/// A counter on its way.
pub type PendingCounter = Pending<UserCounter>;

impl<R: Resource> Pending<R> {
    pub(super) fn new(client: Client, key: ResourceKey) -> Self {
        Pending {
            client,
            key: Some(key),
            resource: PhantomData,
        }
    }

    /// The result, once there is one; afterwards `Closed`. Never waits.
    pub fn poll(&mut self) -> Option<Result<R, RegistrationError>> {
        let Some(key) = self.key else {
            return Some(Err(RegistrationError::Closed));
        };
        let result = self.client.poll_resource(key)?;
        self.key = None;
        Some(result)
    }

    /// Waits for the result, at most for the driver timeout.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, or the client is closed.
    pub fn wait(mut self) -> Result<R, RegistrationError> {
        let client = self.client.clone();
        client.wait_for(|| self.poll())
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.client.release(key, false);
        }
    }
}

impl<R> core::fmt::Debug for Pending<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pending")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A command the driver was given whose answer carries at most a number.
#[must_use = "an operation that is dropped goes on, but nobody learns its result"]
pub struct PendingOperation {
    client: Client,
    correlation_id: CorrelationId,
    done: bool,
}

impl PendingOperation {
    pub(super) fn new(client: Client, correlation_id: CorrelationId) -> Self {
        PendingOperation {
            client,
            correlation_id,
            done: false,
        }
    }

    /// The id of the command; for an added destination its registration id.
    #[must_use]
    pub fn registration_id(&self) -> RegistrationId {
        self.correlation_id.into()
    }

    pub(super) fn poll_value(&mut self) -> Option<Result<i64, RegistrationError>> {
        let result = self.client.poll_operation(self.correlation_id)?;
        self.done = true;
        Some(result)
    }

    /// The result, once there is one: the registration id of the operation. Never waits.
    pub fn poll(&mut self) -> Option<Result<RegistrationId, RegistrationError>> {
        let id = self.registration_id();
        self.poll_value().map(|result| result.map(|_| id))
    }

    /// Waits for the result, at most for the driver timeout.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, the driver is away, or the client is closed.
    pub fn wait(mut self) -> Result<RegistrationId, RegistrationError> {
        let client = self.client.clone();
        client.wait_for(|| self.poll())
    }

    pub(super) fn wait_value(mut self) -> Result<i64, RegistrationError> {
        let client = self.client.clone();
        client.wait_for(|| self.poll_value())
    }
}

impl Drop for PendingOperation {
    fn drop(&mut self) {
        if !self.done {
            self.client.forget_operation(self.correlation_id);
        }
    }
}

impl core::fmt::Debug for PendingOperation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PendingOperation")
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}
