//! Channel URIs: parsing, typed parameters and building (spec 13.3; wire protocol, section 8).
//!
//! ```text
//! channel = ["aeron-spy:"] "aeron:" ("udp" | "ipc") ["?" key "=" value *("|" key "=" value)]
//! ```
//!
//! Names are not resolved here and no socket is asked for: that an address can not be bound, or that a parameter
//! clashes with an existing publication, is found by the driver.

#![forbid(unsafe_code)]

pub mod address;
pub mod builder;
pub mod channel_uri;
pub mod params;
pub mod value;

pub use address::Address;
pub use builder::{BuildError, ChannelBuilder};
pub use channel_uri::{ChannelUri, Media, Role, UriError, UriFault};
pub use params::{
    CongestionControl, ControlMode, FlowControl, FlowControlStrategy, Group, InitialPosition, ParamError,
    Params, SessionIdParam, Tags, TimestampOffset,
};
pub use value::ValueFault;
