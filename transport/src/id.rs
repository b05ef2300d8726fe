//! Identifiers. Each is a newtype, so that two neighbouring integers can not be swapped by mistake.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            /// The raw value as it stands in shared memory and on the wire.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$raw> for $name {
            #[inline]
            fn from(raw: $raw) -> Self {
                Self(raw)
            }
        }
    };
}

id!(
    /// Names one publication's run of a stream; chosen by the driver unless the channel gives it.
    SessionId, i32
);
id!(
    /// Names a stream inside a channel; chosen by the application.
    StreamId, i32
);
id!(
    /// Names one term of a log; arithmetic on it wraps.
    TermId, i32
);
id!(
    /// The correlation id of the command that created a resource; -1 and 0 are never used.
    RegistrationId, i64
);
id!(
    /// Joins a command with its answer; taken from the counter in the to-driver ring.
    CorrelationId, i64
);
id!(
    /// Names an attached client; taken from the same counter as correlation ids.
    ClientId, i64
);
id!(
    /// Index of a counter in the counters section of the CnC file; -1 means "no counter".
    CounterId, i32
);

impl CounterId {
    /// "No counter": the channel status of IPC publications and subscriptions.
    pub const NONE: Self = Self(-1);
}

impl From<CorrelationId> for RegistrationId {
    fn from(id: CorrelationId) -> Self {
        Self(id.0)
    }
}

impl From<RegistrationId> for CorrelationId {
    fn from(id: RegistrationId) -> Self {
        Self(id.0)
    }
}
