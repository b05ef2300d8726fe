//! Runs an agent on the caller's thread: for embedding, for tests and for the simulator.
#![forbid(unsafe_code)]

use super::{Agent, AgentError};
use crate::time::{NanoTime, Now};

/// An agent without a thread. The caller gives it turns; dropping it closes the agent.
pub struct AgentInvoker<A: Agent> {
    agent: A,
    state: State,
    /// When a cycle without work is followed by a last look again.
    next_look: Option<NanoTime>,
}

/// Whether the caller waits between two cycles is not known, so that cycles without work have their last look; those that
/// follow each other closely share one per this time, ns.
const LOOK_INTERVAL_NS: i64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Running,
    Closed,
}

impl<A: Agent> AgentInvoker<A> {
    /// Takes the agent over; nothing is called yet.
    pub fn new(agent: A) -> Self {
        Self {
            agent,
            state: State::New,
            next_look: None,
        }
    }

    /// Starts the agent. Further calls do nothing.
    ///
    /// # Errors
    /// What the agent answers; it is closed then.
    pub fn start(&mut self, now: Now) -> Result<(), AgentError> {
        if self.state != State::New {
            return Ok(());
        }
        self.state = State::Running;
        self.agent.on_start(now).inspect_err(|_| self.close())
    }

    /// One duty cycle, starting the agent if need be; now and then, if it finds nothing, with a last look. A
    /// closed invoker does no work.
    ///
    /// # Errors
    /// What the agent answers; after [`AgentError::Terminate`] it is closed.
    pub fn invoke(&mut self, now: Now) -> Result<usize, AgentError> {
        self.start(now)?;
        let work = self.invoke_with(|agent| agent.do_work(now))?;
        if work > 0 || self.next_look.is_some_and(|time| !time.is_due(now.nanos)) {
            return Ok(work);
        }
        self.next_look = Some(now.nanos.plus_nanos(LOOK_INTERVAL_NS));
        self.invoke_with(|agent| Ok(agent.last_look(now)))
    }

    /// As [`Self::invoke`] for an agent that was started, where the caller says what its turn is: that of one agent
    /// of a composite, for instance.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub fn invoke_with(
        &mut self,
        turn: impl FnOnce(&mut A) -> Result<usize, AgentError>,
    ) -> Result<usize, AgentError> {
        if self.state != State::Running {
            return Ok(0);
        }
        turn(&mut self.agent).inspect_err(|error| {
            if matches!(error, AgentError::Terminate) {
                self.close();
            }
        })
    }

    /// The agent's next deadline.
    pub fn next_deadline(&self) -> NanoTime {
        self.agent.next_deadline()
    }

    /// Whether the agent runs: started and not closed.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// The agent, for inspection.
    pub fn agent(&self) -> &A {
        &self.agent
    }

    /// Lets the agent go without closing it, as the end of its process would.
    pub fn abandon(&mut self) {
        self.state = State::Closed;
    }

    /// Closes the agent. Further calls do nothing.
    pub fn close(&mut self) {
        if self.state == State::Running {
            self.agent.on_close();
        }
        self.state = State::Closed;
    }
}

impl<A: Agent> Drop for AgentInvoker<A> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EpochMs;

    #[derive(Default)]
    struct Counting {
        starts: usize,
        cycles: usize,
        closes: usize,
    }

    impl Agent for Counting {
        fn role_name(&self) -> &str {
            "counting"
        }
        fn on_start(&mut self, _now: Now) -> Result<(), AgentError> {
            self.starts += 1;
            Ok(())
        }
        fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
            self.cycles += 1;
            if self.cycles == 3 {
                return Err(AgentError::Terminate);
            }
            Ok(1)
        }
        fn next_deadline(&self) -> NanoTime {
            NanoTime(0)
        }
        fn on_close(&mut self) {
            self.closes += 1;
        }
    }

    #[test]
    fn an_agent_that_terminates_is_closed_once_and_gets_no_more_turns() {
        let now = Now {
            nanos: NanoTime(0),
            epoch: EpochMs(0),
        };
        let mut invoker = AgentInvoker::new(Counting::default());
        assert_eq!(invoker.invoke(now).unwrap(), 1);
        assert!(invoker.is_running());
        assert_eq!(invoker.invoke(now).unwrap(), 1);
        assert!(matches!(invoker.invoke(now), Err(AgentError::Terminate)));
        assert_eq!(invoker.invoke(now).unwrap(), 0);
        invoker.close();
        let agent = invoker.agent();
        assert_eq!((agent.starts, agent.cycles, agent.closes), (1, 3, 1));
    }

    /// Finds something by its last looks only: what is brought to it gives no sign.
    #[derive(Default)]
    struct Quiet {
        brought: usize,
        looks: usize,
    }

    impl Agent for Quiet {
        fn role_name(&self) -> &str {
            "quiet"
        }
        fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
            Ok(0)
        }
        fn last_look(&mut self, _now: Now) -> usize {
            self.looks += 1;
            core::mem::take(&mut self.brought)
        }
        fn next_deadline(&self) -> NanoTime {
            NanoTime(0)
        }
    }

    #[test]
    fn cycles_that_follow_each_other_closely_share_a_last_look() {
        let at = |nanos| Now {
            nanos: NanoTime(nanos),
            epoch: EpochMs(0),
        };
        let mut invoker = AgentInvoker::new(Quiet {
            brought: 2,
            ..Quiet::default()
        });
        assert_eq!(invoker.invoke(at(0)).unwrap(), 2);
        invoker.agent.brought = 3;
        for nanos in [1, 10, LOOK_INTERVAL_NS - 1] {
            assert_eq!(invoker.invoke(at(nanos)).unwrap(), 0);
        }
        assert_eq!(invoker.agent().looks, 1);
        assert_eq!(invoker.invoke(at(LOOK_INTERVAL_NS)).unwrap(), 3);
        assert_eq!(invoker.agent().looks, 2);
    }
}
