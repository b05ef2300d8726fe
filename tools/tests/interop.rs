//! Real Aeron C clients and drivers against ours, over shared memory: the interop checklist (section 14 of the
//! shared-memory protocol), each scenario in every combination that makes sense.
//!
//! A scenario is a script for client processes (`peer/worker.rs`) and driver processes. The combination of C with C
//! checks the script itself: what it expects is what Aeron does.
//!
//! Run with `cargo test -p fulmar-tools --features peer --test interop`.

#[path = "interop/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "a kit for all scenarios")]
mod process;

#[path = "interop/scenario.rs"]
#[allow(unreachable_pub, reason = "a kit for all scenarios")]
mod scenario;

#[path = "interop/counters.rs"]
mod counters;
#[path = "interop/failures.rs"]
mod failures;
#[path = "interop/lifecycle.rs"]
mod lifecycle;
#[path = "interop/publications.rs"]
mod publications;
#[path = "interop/raw.rs"]
#[allow(unreachable_pub, reason = "a kit for all scenarios")]
mod raw;
#[path = "interop/streams.rs"]
mod streams;
