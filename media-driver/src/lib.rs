//! The Fulmar media driver.

pub mod config;
