//! What clients and the driver say to each other: commands through the to-driver ring, responses through the
//! to-clients broadcast (spec sections 7 and 8).
//!
//! Only layouts live here: how bytes become values and back. Nothing here touches shared memory (ring and broadcast
//! hand over private copies), and nothing decides what a command does. Decoding never trusts a length; encoding
//! reuses the caller's buffer, so a conductor in steady state allocates nothing.

#![forbid(unsafe_code)]

mod codec;
pub mod command;
pub mod error_code;
pub mod response;
pub mod text;

pub use command::{Command, CommandError, CommandHeader};
pub use error_code::ErrorCode;
pub use response::{Response, ResponseError};
pub use text::Text;
