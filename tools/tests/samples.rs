//! Aeron's own sample programs and tools on drivers of both makes: built by `build.rs` from the sources that come with
//! Aeron's C client, unchanged, and judged by what they print and by what our tools say of the same driver.
//!
//! What they do on the C driver shows that a test is right. `docs/interop.md` holds the results.
//!
//! Run with `cargo test -p fulmar-tools --features peer --test samples`.

#[macro_use]
#[path = "support/both_drivers.rs"]
mod both_drivers;

#[path = "interop/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all scenarios")]
mod process;

#[path = "wire/frames.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod frames;
#[path = "wire/peer.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod peer;
#[path = "wire/ports.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all rows")]
mod ports;

#[path = "samples/program.rs"]
#[allow(unreachable_pub, reason = "a kit for all programs")]
mod program;

#[path = "samples/messages.rs"]
mod messages;
#[path = "samples/readers.rs"]
mod readers;
