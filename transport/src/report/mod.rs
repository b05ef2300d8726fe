//! What the driver reports for people to read later: distinct errors in the CnC file and losses in a file of their own
//! (shared-memory spec 6).
#![forbid(unsafe_code)]

pub mod error_log;
pub mod loss_report;

#[cfg(all(test, not(loom)))]
mod tests;

pub use error_log::{ErrorLog, ErrorRecord};
pub use loss_report::{LossEntry, LossRecord, LossReport};
