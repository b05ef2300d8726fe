//! Several hosts on one machine: drivers in network namespaces, on links that lose, double and reorder packets, on
//! links that break, with subscribers that are slow, stopped and killed.
//!
//! The tests need root, `ip`, `tc` and `nft`. Where something is missing they say `skipped: ...` on standard error;
//! with `FULMAR_NETWORK_TESTS=required` they fail instead. `FULMAR_NETWORK_LONG=1` runs more traffic and the default
//! timeouts of the protocol. With the feature `peer` the same scripts run between two of Aeron's C drivers, too, which
//! proves that what they expect can be expected.

mod driver;
mod loss;
mod netem;
mod network;
mod partition;
#[path = "../support/required.rs"]
mod required;
mod subscribers;
mod traffic;

/// Whether the long form of the tests is wanted.
fn long() -> bool {
    std::env::var_os("FULMAR_NETWORK_LONG").is_some()
}
