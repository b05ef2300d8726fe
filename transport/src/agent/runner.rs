//! Runs an agent on a thread of its own: the thread, the clock, the waiting and the panic barrier live here.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use super::{Agent, AgentError, Doorbell, IdleStrategy};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::time::Clock;

/// Receives the text of what went wrong on an agent's thread.
pub type OnError = Arc<dyn Fn(&str) + Send + Sync>;

/// Told how a run ended, on the agent's thread, after the agent was closed.
pub type OnExit = Box<dyn FnOnce(RunnerExit) + Send>;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerExit {
    /// [`AgentRunner::close`] was called.
    Closed,
    /// The agent asked to be stopped.
    Terminated,
    /// The agent could not start.
    StartFailed,
    /// The agent panicked and was stopped; the panic was reported as an error.
    Panicked,
}

/// A thread that gives one agent its turns. Dropping it closes the agent and waits for the thread.
pub struct AgentRunner {
    stop: Arc<AtomicBool>,
    doorbell: Option<Doorbell>,
    thread: Option<JoinHandle<RunnerExit>>,
    exit: RunnerExit,
}

impl AgentRunner {
    /// Starts a thread of this name; `on_error` gets every failure, a failed start and a panic included.
    ///
    /// # Errors
    /// When the system has no thread to give; the agent is dropped unstarted then.
    pub fn start<A: Agent + Send + 'static>(
        agent: A,
        idle: Box<dyn IdleStrategy>,
        clock: Arc<dyn Clock>,
        name: &str,
        on_error: OnError,
    ) -> io::Result<Self> {
        Self::start_supervised(agent, idle, clock, name, on_error, Box::new(|_| ()))
    }

    /// As [`AgentRunner::start`], and `on_exit` is told when the run ends, however it does. It must not wait for this
    /// runner.
    ///
    /// # Errors
    /// As [`AgentRunner::start`]; `on_exit` is not called then.
    pub fn start_supervised<A: Agent + Send + 'static>(
        agent: A,
        idle: Box<dyn IdleStrategy>,
        clock: Arc<dyn Clock>,
        name: &str,
        on_error: OnError,
        on_exit: OnExit,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let doorbell = idle.doorbell();
        let run = Run {
            agent,
            idle,
            clock,
            stop: stop.clone(),
            on_error,
        };
        #[expect(clippy::disallowed_methods, reason = "this is where threads are started")]
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run.run(on_exit))?;
        Ok(Self {
            stop,
            doorbell,
            thread: Some(thread),
            exit: RunnerExit::Closed,
        })
    }

    /// Whether the thread still gives turns.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the agent's wait for work, if its idle strategy can be woken.
    pub fn wake(&self) {
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring();
        }
    }

    /// Asks the agent to stop after its current cycle, without waiting for it.
    pub fn request_close(&self) {
        self.stopper().request_close();
    }

    /// What can ask this agent to stop from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stop: self.stop.clone(),
            doorbell: self.doorbell.clone(),
        }
    }

    /// Stops the agent after its current cycle and waits for the thread, unless called on that thread. Further calls
    /// answer the same.
    pub fn close(&mut self) -> RunnerExit {
        self.request_close();
        self.join()
    }

    /// Asks the agent to stop and leaves it to itself: for an agent that may be inside a system call that nobody can
    /// end. The agent is closed and dropped on its own thread, whenever that is.
    pub fn detach(mut self) {
        self.request_close();
        self.thread = None;
    }

    /// Waits until the agent stops by itself. On the agent's own thread it returns at once.
    pub fn join(&mut self) -> RunnerExit {
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            self.exit = thread.join().unwrap_or(RunnerExit::Panicked);
        }
        self.exit
    }
}

impl Drop for AgentRunner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Asks an agent to stop, without owning its runner. Outliving the runner is fine.
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    doorbell: Option<Doorbell>,
}

impl Stopper {
    /// As [`AgentRunner::request_close`].
    pub fn request_close(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring();
        }
    }
}

struct Run<A> {
    agent: A,
    idle: Box<dyn IdleStrategy>,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    on_error: OnError,
}

impl<A: Agent> Run<A> {
    fn run(mut self, on_exit: OnExit) -> RunnerExit {
        let exit = self.run_and_close();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| on_exit(exit))) {
            self.report(&panic_text(&*panic));
        }
        exit
    }

    fn run_and_close(&mut self) -> RunnerExit {
        // The agent may be half-way through a change when it panics, so it gets no more turns, only its close.
        let exit = catch_unwind(AssertUnwindSafe(|| self.give_turns())).unwrap_or_else(|panic| {
            self.report(&panic_text(&*panic));
            RunnerExit::Panicked
        });
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.agent.on_close())) {
            self.report(&panic_text(&*panic));
            return RunnerExit::Panicked;
        }
        exit
    }

    fn give_turns(&mut self) -> RunnerExit {
        match self.agent.on_start(self.clock.now()) {
            Ok(()) => {}
            Err(AgentError::Terminate) => return RunnerExit::Terminated,
            Err(error) => {
                self.report(&error.to_string());
                return RunnerExit::StartFailed;
            }
        }
        while !self.stop.load(Ordering::Acquire) {
            let now = self.clock.now();
            let mut work = match self.agent.do_work(now) {
                Ok(work) => work,
                Err(AgentError::Terminate) => return RunnerExit::Terminated,
                Err(error) => {
                    self.report(&error.to_string());
                    // Counted as no work, so that an agent that fails for ever fails at the pace of an idle one.
                    0
                }
            };
            if self.idle.may_wait(work) {
                work += self.agent.last_look(now);
            }
            let deadline = if self.idle.may_wait(work) {
                self.agent.next_deadline()
            } else {
                now.nanos
            };
            self.idle.idle(work, deadline, now.nanos);
        }
        RunnerExit::Closed
    }

    fn report(&self, text: &str) {
        let text = format!("{}: {text}", self.agent.role_name());
        // A handler that panics must not take the thread's orderly end away.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_error)(&text)));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    format!("panicked: {text}")
}
