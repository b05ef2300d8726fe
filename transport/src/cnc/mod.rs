//! The command-and-control file, and the extension file beside it.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

pub mod cnc_file;
pub mod extension;
pub mod layout;

pub use cnc_file::{CncError, CncFile, CncSpec};
pub use extension::{Extension, ExtensionError};
