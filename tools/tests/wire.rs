//! The wire protocol against drivers of both makes: the interop checklist (section 10 of the wire protocol), one test
//! a row and driver, with a peer made of one socket and frames made by hand; and streams between drivers of both makes
//! whose every message is verified.
//!
//! What the C driver does shows that a test is right. `docs/interop.md` holds the results.
//!
//! Run with `cargo test -p fulmar-tools --features peer --test wire -- --test-threads=8`: tests mostly wait.

#[macro_use]
#[path = "support/both_drivers.rs"]
mod both_drivers;

#[path = "interop/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all scenarios")]
mod process;

#[path = "../peer/pattern.rs"]
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod pattern;

#[path = "wire/frames.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod frames;
#[path = "wire/peer.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod peer;
#[path = "wire/ports.rs"]
#[allow(unreachable_pub, reason = "a kit for all rows")]
mod ports;
#[path = "wire/stage.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod stage;

#[path = "wire/dissector.rs"]
mod dissector;
#[path = "wire/group_rows.rs"]
mod group_rows;
#[path = "wire/hostile.rs"]
mod hostile;
#[path = "wire/names.rs"]
mod names;
#[path = "wire/publisher_rows.rs"]
mod publisher_rows;
#[path = "wire/resolver_rows.rs"]
mod resolver_rows;
#[path = "wire/streams.rs"]
#[allow(unreachable_pub, reason = "a kit for all streams")]
mod streams;
#[path = "wire/subscriber_rows.rs"]
mod subscriber_rows;
