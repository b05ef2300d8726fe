//! The agent: a state machine with a duty cycle.
#![forbid(unsafe_code)]

use std::error::Error;

use crate::time::{NanoTime, Now};

/// Why a duty cycle did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent wants to stop; its runner closes it.
    #[error("the agent asked to be stopped")]
    Terminate,
    /// The cycle failed; the runner reports it and goes on with the next cycle.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
}

impl AgentError {
    /// A failure with this cause.
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(cause.into())
    }
}

/// A state machine that is called over and over. Time is an argument; the agent itself reads no clock and never
/// blocks.
pub trait Agent {
    /// A short name for threads and messages.
    fn role_name(&self) -> &str;

    /// Called once before the first cycle, on the thread that runs the cycles.
    ///
    /// # Errors
    /// An agent that can not start is closed at once.
    fn on_start(&mut self, now: Now) -> Result<(), AgentError> {
        let _ = now;
        Ok(())
    }

    /// One duty cycle. The count of work done feeds the idle strategy; 0 means that nothing was found to do.
    ///
    /// # Errors
    /// [`AgentError::Terminate`] ends the run, [`AgentError::Failed`] is reported and the run goes on.
    fn do_work(&mut self, now: Now) -> Result<usize, AgentError>;

    /// What a cycle that found nothing may have left out because it is only needed before a wait: a look at everything
    /// that can have changed without a sign, and the work on what it finds. The count of work done. Whoever waits after a
    /// cycle without work calls it first.
    fn last_look(&mut self, now: Now) -> usize {
        let _ = now;
        0
    }

    /// The earliest time at which a cycle without new input has work to do. A runner may sleep until then, a
    /// simulator may jump.
    fn next_deadline(&self) -> NanoTime;

    /// Called once after the last cycle, even after a failed start or a panic.
    fn on_close(&mut self) {}
}

impl<A: Agent + ?Sized> Agent for Box<A> {
    fn role_name(&self) -> &str {
        (**self).role_name()
    }

    fn on_start(&mut self, now: Now) -> Result<(), AgentError> {
        (**self).on_start(now)
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        (**self).do_work(now)
    }

    fn last_look(&mut self, now: Now) -> usize {
        (**self).last_look(now)
    }

    fn next_deadline(&self) -> NanoTime {
        (**self).next_deadline()
    }

    fn on_close(&mut self) {
        (**self).on_close();
    }
}
