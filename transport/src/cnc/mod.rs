//! The command-and-control file, and the extension file beside it.
#![cfg(not(loom))]
#![forbid(unsafe_code)]

pub mod extension;

pub use extension::Extension;
