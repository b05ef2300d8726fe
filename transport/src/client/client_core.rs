//! What stands behind the client's handles: the conductor under its lock, the queues around it, the thread that runs
//! it, and the place where the application's handlers are called.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, TryLockError};

use crossbeam_queue::SegQueue;

use super::conductor::{Conductor, Forgotten, Notice, Release};
use super::error::ClientError;
use super::event::{ImageHandler, ImageHandlers, ImageInfo};
use super::settings::ClientSettings;
use super::slot::lock;
use super::subscription::SubscriptionShared;
use crate::agent::idle::Adaptive;
use crate::agent::{Agent, AgentError, AgentRunner, Doorbell};
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use crate::time::{Clock, NanoTime, Now};

/// Most time the conductor thread sleeps, so that the driver's death is noticed in time.
const IDLE_SLEEP_MAX: core::time::Duration = core::time::Duration::from_millis(16);
/// Most notices told in one go, so that a flood of events can not hold a call for ever.
const NOTICES_PER_DISPATCH: usize = 1024;

/// Closes the client when the application has let go of everything.
pub(super) struct Core {
    pub(super) inner: Arc<Inner>,
    pub(super) runner: Mutex<Option<AgentRunner>>,
}

/// What the conductor's thread and the application's threads share.
pub(super) struct Inner {
    pub(super) settings: Arc<ClientSettings>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) conductor: Mutex<Conductor>,
    pub(super) releases: Arc<SegQueue<Release>>,
    pub(super) notices: Arc<SegQueue<Notice>>,
    pub(super) forgotten: Arc<Forgotten>,
    /// Held while notices are told, so that they are told in order and never within one another.
    pub(super) dispatching: Mutex<()>,
    /// When the conductor has something to do, for its thread to sleep no longer.
    pub(super) next_deadline: AtomicI64,
    /// Handles that ever attached to a log, for their owner tags.
    pub(super) handle_count: AtomicU64,
}

impl Core {
    /// Closes the client; what was noted is told before it returns.
    pub(super) fn close(&self) {
        let now = self.inner.clock.now();
        lock(&self.inner.conductor).close(now);
        self.inner.dispatch_all();
        let runner = lock(&self.runner).take();
        if let Some(mut runner) = runner {
            runner.close();
        }
        // What was noted while the conductor's thread was just done with telling.
        self.inner.dispatch_all();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    /// One duty cycle of the conductor; returns the work done.
    pub(super) fn cycle(&self, now: Now) -> usize {
        let mut conductor = lock(&self.conductor);
        let work = conductor.do_work(now);
        self.next_deadline
            .store(conductor.next_deadline().0, Ordering::Relaxed);
        work
    }

    /// One cycle if nobody else is at it.
    pub(super) fn try_cycle(&self) {
        let mut conductor = match self.conductor.try_lock() {
            Ok(conductor) => conductor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        conductor.do_work(self.clock.now());
    }

    /// Drops the targets that nobody needs any more. A destructor in the application's handlers may panic.
    pub(super) fn forget(&self) {
        while let Some(target) = self.forgotten.pop() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(target)));
        }
    }

    /// Tells everything, unless somebody else is at it. A closed client notes nothing more, so this ends.
    fn dispatch_all(&self) {
        while self.dispatch() {}
    }

    /// Tells the application what there is to tell. If somebody is telling already, he goes on with it. Returns
    /// whether there may be more to tell for the caller.
    pub(super) fn dispatch(&self) -> bool {
        self.forget();
        if self.notices.is_empty() {
            return false;
        }
        let _order = match self.dispatching.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        for _ in 0..NOTICES_PER_DISPATCH {
            let Some(notice) = self.notices.pop() else {
                return false;
            };
            let told = catch_unwind(AssertUnwindSafe(|| self.tell(notice)));
            if let Err(panic) = told {
                let text = panic_text(&*panic);
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    self.tell(Notice::Error(ClientError::HandlerPanicked(text)));
                }));
            }
        }
        true
    }

    fn tell(&self, notice: Notice) {
        match notice {
            Notice::Event(event) => {
                if let Some(handler) = &self.settings.on_event {
                    handler(&event);
                }
            }
            Notice::Error(error) => {
                if let Some(handler) = &self.settings.on_error {
                    handler(&error);
                }
            }
            Notice::ImageAvailable(shared, info) => {
                with_handler(&shared, |handlers| &mut handlers.on_available, &info);
            }
            Notice::ImageUnavailable(shared, info) => {
                with_handler(&shared, |handlers| &mut handlers.on_unavailable, &info);
            }
        }
    }
}

fn with_handler(
    shared: &SubscriptionShared,
    which: impl Fn(&mut ImageHandlers) -> &mut Option<ImageHandler>,
    info: &ImageInfo,
) {
    if let Some(handler) = which(&mut lock(&shared.handlers)) {
        handler(info);
    }
}

fn panic_text(panic: &(dyn core::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// The conductor as an agent of its own thread.
struct ConductorAgent {
    pub(super) inner: Arc<Inner>,
}

impl Agent for ConductorAgent {
    fn role_name(&self) -> &str {
        "client-conductor"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        let work = self.inner.cycle(now);
        self.inner.dispatch();
        Ok(work)
    }

    fn on_close(&mut self) {
        // A handler that closed the client may have left more than one go of notices behind.
        self.inner.dispatch_all();
    }

    fn next_deadline(&self) -> NanoTime {
        NanoTime(self.inner.next_deadline.load(Ordering::Relaxed))
    }
}

pub(super) fn start_runner(inner: &Arc<Inner>) -> Result<AgentRunner, ClientError> {
    let cap = inner.settings.idle_sleep.min(IDLE_SLEEP_MAX);
    let idle = Box::new(Adaptive::new(Doorbell::heap(), cap));
    let agent = ConductorAgent { inner: inner.clone() };
    let notices = inner.notices.clone();
    let on_error = Arc::new(move |text: &str| {
        notices.push(Notice::Error(ClientError::HandlerPanicked(text.to_owned())));
    });
    AgentRunner::start(agent, idle, inner.clock.clone(), "fulmar-client", on_error)
        .map_err(|error| ClientError::Thread(error.to_string()))
}
