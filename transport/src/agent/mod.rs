//! Who runs, when, and how it waits.
//!
//! An [`Agent`] is a state machine with a duty cycle. It never waits, never reads a clock and never starts a thread:
//! the [`AgentRunner`] (a thread), the [`AgentInvoker`] (the caller's thread) or the simulator call it with the time.
//! Waiting is the business of an [`idle::IdleStrategy`]; the default one blocks in the kernel on a [`Doorbell`] that
//! whoever brings work can ring.

#[expect(
    clippy::module_inception,
    reason = "a file is named for its main type; this one holds `Agent`"
)]
pub mod agent;
pub mod composite;
pub mod doorbell;
pub mod idle;
pub mod invoker;
pub mod process;
#[cfg(not(loom))]
pub mod runner;

pub use agent::{Agent, AgentError};
pub use composite::Composite;
#[cfg(not(loom))]
pub use doorbell::{Alarm, Doorbell, OfferBell};
pub use idle::{IdleMode, IdleStrategy};
pub use invoker::AgentInvoker;
pub use process::{ProcessId, ProcessWatch, ProcessWatches};
#[cfg(not(loom))]
pub use runner::{AgentRunner, OnError, OnExit, RunnerExit, Stopper};
