//! The driver's settings: one table ([`settings::TABLE`]) names every key, its environment name, type, unit, default
//! and bounds. The environment, properties files, `-D` and the command line all write through that table
//! ([`sources::DriverSettings`]), which remembers where each value came from; [`context::DriverContext`] is the
//! checked, immutable outcome that the rest of the driver reads. Nothing here starts anything or touches a file other
//! than the properties files it is asked to read.

#![forbid(unsafe_code)]

pub mod channel_params;
pub mod choice;
pub mod context;
pub mod kind;
pub mod limits;
pub mod settings;
pub mod sources;

pub use channel_params::{
    ParamsError, PublicationParams, SubscriptionParams, TaggedPublication, UntetheredTimeouts,
};
pub use choice::{IoBackend, ReceiverGroup, TerminationValidator, ThreadingMode};
pub use context::{ConfigError, DriverContext};
pub use settings::{DriverValues, Setting, TABLE};
pub use sources::{ConfigWarning, DriverSettings, Row, Source};
