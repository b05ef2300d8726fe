//! Several agents as one, in a fixed order.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Agent, AgentError};
use crate::time::{NanoTime, Now};

/// Agents that share one thread. A cycle gives each a turn; one that fails does not take the others' turn away.
pub struct Composite {
    name: String,
    agents: Vec<Box<dyn Agent + Send>>,
    /// Indices of `agents` in the order of their turns.
    turns: Vec<usize>,
    started: usize,
}

impl Composite {
    /// Joins agents; the order is the order of their starts and turns, and in reverse that of their ends.
    ///
    /// # Panics
    /// If `agents` is empty: a composite without a deadline could not wait.
    #[must_use]
    pub fn new(agents: Vec<Box<dyn Agent + Send>>) -> Self {
        assert!(!agents.is_empty(), "a composite has at least one agent");
        let name = agents
            .iter()
            .map(|agent| agent.role_name())
            .collect::<Vec<_>>()
            .join("+");
        Self {
            name,
            turns: (0..agents.len()).collect(),
            agents,
            started: 0,
        }
    }

    /// Has the agents take turns in another order than they are started in.
    ///
    /// # Panics
    /// If not every agent has one turn.
    #[must_use]
    pub fn with_turns(mut self, turns: &[usize]) -> Self {
        let mut sorted = turns.to_vec();
        sorted.sort_unstable();
        assert!(
            sorted.iter().copied().eq(0..self.agents.len()),
            "every agent has one turn in a cycle"
        );
        self.turns = turns.to_vec();
        self
    }

    /// How many agents it joins; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// A turn of one agent alone, for a scheduler that has its own order and may wait after any turn: with the agent's
    /// last look, if the cycle found nothing.
    ///
    /// # Errors
    /// What the agent answers.
    ///
    /// # Panics
    /// If there is no agent of this index.
    pub fn turn(&mut self, index: usize, now: Now) -> Result<usize, AgentError> {
        let agent = &mut self.agents[index];
        match agent.do_work(now)? {
            0 => Ok(agent.last_look(now)),
            work => Ok(work),
        }
    }

    /// The next deadline of one agent.
    ///
    /// # Panics
    /// If there is no agent of this index.
    #[must_use]
    pub fn deadline_of(&self, index: usize) -> NanoTime {
        self.agents[index].next_deadline()
    }
}

impl Agent for Composite {
    fn role_name(&self) -> &str {
        &self.name
    }

    fn on_start(&mut self, now: Now) -> Result<(), AgentError> {
        for agent in &mut self.agents {
            // Counted before the call, so that an agent whose start fails is closed as well.
            self.started += 1;
            agent.on_start(now)?;
        }
        Ok(())
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        let mut work = 0;
        let mut failure = None;
        for &turn in &self.turns {
            match self.agents[turn].do_work(now) {
                Ok(count) => work += count,
                // Asking to stop outranks a failure.
                Err(AgentError::Terminate) => failure = Some(AgentError::Terminate),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(work), Err)
    }

    fn last_look(&mut self, now: Now) -> usize {
        self.agents.iter_mut().map(|agent| agent.last_look(now)).sum()
    }

    fn next_deadline(&self) -> NanoTime {
        self.agents
            .iter()
            .map(|agent| agent.next_deadline())
            .reduce(NanoTime::earlier)
            .expect("a composite has at least one agent")
    }

    fn on_close(&mut self) {
        // In reverse, as agents may rely on those that were started before them.
        let mut panicked = None;
        for agent in self.agents[..self.started].iter_mut().rev() {
            // One that panics must not take the others' orderly end away.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| agent.on_close())) {
                panicked.get_or_insert(panic);
            }
        }
        self.started = 0;
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::time::EpochMs;

    /// An agent with this deadline panics when it is closed.
    const BROKEN_CLOSE: i64 = 99;

    struct Scripted {
        name: &'static str,
        outcome: fn() -> Result<usize, AgentError>,
        start: fn() -> Result<(), AgentError>,
        deadline: i64,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Agent for Scripted {
        fn role_name(&self) -> &str {
            self.name
        }
        fn on_start(&mut self, _now: Now) -> Result<(), AgentError> {
            self.log.lock().unwrap().push(format!("start {}", self.name));
            (self.start)()
        }
        fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
            self.log.lock().unwrap().push(format!("work {}", self.name));
            (self.outcome)()
        }
        fn next_deadline(&self) -> NanoTime {
            NanoTime(self.deadline)
        }
        fn on_close(&mut self) {
            self.log.lock().unwrap().push(format!("close {}", self.name));
            assert_ne!(self.deadline, BROKEN_CLOSE);
        }
    }

    fn now() -> Now {
        Now {
            nanos: NanoTime(0),
            epoch: EpochMs(0),
        }
    }

    fn composite(log: &Arc<Mutex<Vec<String>>>, second: fn() -> Result<usize, AgentError>) -> Composite {
        let agent = |name, outcome, start, deadline| -> Box<dyn Agent + Send> {
            Box::new(Scripted {
                name,
                outcome,
                start,
                deadline,
                log: log.clone(),
            })
        };
        Composite::new(vec![
            agent("one", || Ok(2), || Ok(()), 50),
            agent("two", second, || Ok(()), 20),
            agent("three", || Ok(3), || Err(AgentError::failed("no")), 30),
        ])
    }

    #[test]
    fn work_is_summed_and_the_earliest_deadline_wins() {
        let log = Arc::default();
        let mut agents = composite(&log, || Ok(1));
        assert_eq!(agents.role_name(), "one+two+three");
        assert_eq!(agents.do_work(now()).unwrap(), 6);
        assert_eq!(agents.next_deadline(), NanoTime(20));
    }

    #[test]
    fn a_failing_agent_does_not_take_the_turn_of_the_next() {
        let log = Arc::default();
        let mut agents = composite(&log, || Err(AgentError::failed("broken")));
        assert!(matches!(agents.do_work(now()), Err(AgentError::Failed(_))));
        assert_eq!(*log.lock().unwrap(), ["work one", "work two", "work three"]);
    }

    #[test]
    fn turns_may_have_another_order_than_starts_and_ends() {
        let log = Arc::default();
        let mut agents = composite(&log, || Ok(0)).with_turns(&[2, 0, 1]);
        assert_eq!(agents.do_work(now()).unwrap(), 5);
        assert!(agents.on_start(now()).is_err());
        agents.on_close();
        assert_eq!(
            *log.lock().unwrap(),
            [
                "work three",
                "work one",
                "work two",
                "start one",
                "start two",
                "start three",
                "close three",
                "close two",
                "close one"
            ]
        );
    }

    #[test]
    #[should_panic(expected = "every agent has one turn")]
    fn no_agent_has_two_turns() {
        let log = Arc::default();
        let _ = composite(&log, || Ok(0)).with_turns(&[0, 0, 1]);
    }

    #[test]
    fn a_failed_start_closes_what_was_started_in_reverse() {
        let log = Arc::default();
        let mut agents = composite(&log, || Ok(0));
        assert!(agents.on_start(now()).is_err());
        agents.on_close();
        assert_eq!(
            *log.lock().unwrap(),
            [
                "start one",
                "start two",
                "start three",
                "close three",
                "close two",
                "close one"
            ]
        );
    }

    #[test]
    fn a_panic_while_one_is_closed_does_not_keep_the_others_open() {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let agent = |name, deadline| -> Box<dyn Agent + Send> {
            Box::new(Scripted {
                name,
                outcome: || Ok(0),
                start: || Ok(()),
                deadline,
                log: log.clone(),
            })
        };
        let mut agents = Composite::new(vec![agent("one", 1), agent("two", BROKEN_CLOSE)]);
        agents.on_start(now()).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| agents.on_close())).is_err());
        assert_eq!(log.lock().unwrap()[2..], ["close two", "close one"]);
    }

    #[test]
    fn a_turn_that_finds_nothing_ends_with_a_last_look() {
        /// Has work in its first cycle and something to be seen after that.
        struct Looking(usize);

        impl Agent for Looking {
            fn role_name(&self) -> &str {
                "looking"
            }
            fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
                self.0 += 1;
                Ok(if self.0 == 1 { 7 } else { 0 })
            }
            fn last_look(&mut self, _now: Now) -> usize {
                5
            }
            fn next_deadline(&self) -> NanoTime {
                NanoTime(0)
            }
        }

        let mut agents = Composite::new(vec![Box::new(Looking(0)), Box::new(Looking(1))]);
        assert_eq!(agents.turn(0, now()).unwrap(), 7);
        assert_eq!(agents.turn(0, now()).unwrap(), 5);
        assert_eq!(agents.last_look(now()), 10, "that of all of them");
    }
}
