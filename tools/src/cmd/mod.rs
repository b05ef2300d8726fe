//! One file per command.

pub(crate) mod backlog;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod driver;
pub(crate) mod errors;
pub(crate) mod loss;
pub(crate) mod ping;
pub(crate) mod pong;
pub(crate) mod publish;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod stat;
pub(crate) mod streams;
pub(crate) mod subscribe;
pub(crate) mod terminate;
pub(crate) mod throughput;
