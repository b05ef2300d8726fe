//! Looking names up without anybody waiting: a name that has no answer at once goes to one of a few threads, because
//! the system's resolver may take seconds for one that nobody knows, and neither logs, nor data in the shared mode, nor
//! other names are to wait for it. The threads start with the first such name.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;

use fulmar::agent::idle::IdleMode;
use fulmar::agent::{Agent, AgentError, AgentRunner, Doorbell};
use fulmar::time::{Clock, NanoTime, Now};

use crate::commands::Lane;
use crate::media::resolver::{NameAnswer, NameFault, NameRequest, NameResolver};

/// Look-ups that run at the same time at most.
pub(super) const THREADS_MAX: usize = 4;

/// Jobs that wait for a thread at most; further ones fail at once.
pub(super) const WAITING_MAX: usize = 1024;

/// Names to be looked up for one purpose, and those that are known already.
#[derive(Clone, Debug)]
pub(super) struct Job<P> {
    /// What it is for.
    pub(super) purpose: P,
    /// The names.
    pub(super) names: Vec<NameRequest>,
}

/// A job done.
#[derive(Clone, Debug)]
pub(super) struct Done<P> {
    /// What it was for.
    pub(super) purpose: P,
    /// One answer for each name, in order.
    pub(super) answers: Vec<NameAnswer>,
    /// How long it took, nanoseconds.
    pub(super) took_ns: i64,
}

impl<P> Job<P> {
    /// All names answered with the same fault.
    fn failed(self, reason: &str) -> Done<P> {
        let fail = |request| NameAnswer {
            request,
            result: Err(NameFault {
                reason: reason.to_owned(),
            }),
        };
        Done {
            purpose: self.purpose,
            answers: self.names.into_iter().map(fail).collect(),
            took_ns: 0,
        }
    }
}

/// The threads and what waits for them.
pub(super) struct Lookups<P> {
    resolver: Arc<dyn NameResolver>,
    clock: Arc<dyn Clock>,
    waiting: VecDeque<Job<P>>,
    workers: Vec<Worker<P>>,
    done: Lane<Done<P>>,
    /// Wakes the thread of the owner where the lane's bell does not.
    owner: Doorbell,
}

struct Worker<P> {
    runner: AgentRunner,
    jobs: Lane<Job<P>>,
    /// A copy of what it is at, in case it does not survive it.
    at_work: Option<Job<P>>,
}

impl<P: Clone + PartialEq + Send + 'static> Lookups<P> {
    /// No threads yet. `bells` are rung when a job is done.
    pub(super) fn new(resolver: Arc<dyn NameResolver>, clock: Arc<dyn Clock>, bells: [Doorbell; 2]) -> Self {
        let [bell, owner] = bells;
        Self {
            resolver,
            clock,
            waiting: VecDeque::new(),
            workers: Vec::new(),
            done: Lane::new(bell),
            owner,
        }
    }

    pub(super) fn resolver(&self) -> &dyn NameResolver {
        &*self.resolver
    }

    /// Takes a job; its outcome comes with [`poll`](Self::poll), or at once if nothing can be done for it.
    pub(super) fn start(&mut self, job: Job<P>) -> Option<Done<P>> {
        if self.waiting.len() >= WAITING_MAX {
            return Some(job.failed("too many names are waiting to be looked up"));
        }
        self.waiting.push_back(job);
        self.hand_out();
        if self.workers.is_empty() {
            // Without a single thread nobody would ever come for it.
            return self
                .waiting
                .pop_back()
                .map(|job| job.failed("no thread for the look-up"));
        }
        None
    }

    /// Whether a job for this purpose waits or is at work.
    pub(super) fn is_under_way(&self, purpose: &P) -> bool {
        let at_work = self.workers.iter().filter_map(|worker| worker.at_work.as_ref());
        self.waiting
            .iter()
            .chain(at_work)
            .any(|job| job.purpose == *purpose)
    }

    /// A job that is done.
    pub(super) fn poll(&mut self) -> Option<Done<P>> {
        let done = self.done.poll().or_else(|| self.bury());
        if let Some(done) = &done {
            for worker in &mut self.workers {
                worker.at_work.take_if(|job| job.purpose == done.purpose);
            }
            self.hand_out();
        }
        done
    }

    /// Whether a job is done and not polled.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    fn hand_out(&mut self) {
        while let Some(job) = self.waiting.pop_front() {
            let Some(worker) = self.idle_worker() else {
                self.waiting.push_front(job);
                return;
            };
            worker.at_work = Some(job.clone());
            // It is idle, so its lane is empty.
            let _ = worker.jobs.offer(job);
        }
    }

    fn idle_worker(&mut self) -> Option<&mut Worker<P>> {
        let idle = self.workers.iter().position(|worker| worker.at_work.is_none());
        if idle.is_none() && self.workers.len() < THREADS_MAX {
            let worker = self.start_worker()?;
            self.workers.push(worker);
            return self.workers.last_mut();
        }
        self.workers.get_mut(idle?)
    }

    /// `None` when the system has no thread to give; the job waits for another one then.
    fn start_worker(&self) -> Option<Worker<P>> {
        let bell = Doorbell::heap();
        let jobs = Lane::new(bell.clone());
        let agent = LookupAgent {
            resolver: Arc::clone(&self.resolver),
            clock: Arc::clone(&self.clock),
            jobs: jobs.clone(),
            done: self.done.clone(),
            owner: self.owner.clone(),
            now: self.clock.now().nanos,
        };
        let (lane, owner) = (self.done.bell().clone(), self.owner.clone());
        let on_exit = Box::new(move |_| {
            lane.ring();
            owner.ring();
        });
        let runner = AgentRunner::start_supervised(
            agent,
            IdleMode::Adaptive.strategy(bell, Doorbell::WAIT_MAX),
            Arc::clone(&self.clock),
            "fulmar-names",
            Arc::new(|_: &str| ()),
            on_exit,
        );
        let runner = runner.ok()?;
        Some(Worker {
            runner,
            jobs,
            at_work: None,
        })
    }

    /// The job of a thread that did not survive it.
    fn bury(&mut self) -> Option<Done<P>> {
        let dead = self
            .workers
            .iter()
            .position(|worker| !worker.runner.is_running())?;
        let worker = self.workers.swap_remove(dead);
        let done = worker.at_work.map(|job| job.failed("the look-up failed"));
        if done.is_none() {
            self.hand_out();
        }
        done
    }
}

impl<P> Drop for Lookups<P> {
    /// Nobody waits for a look-up that hangs: the threads end by themselves.
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            worker.runner.detach();
        }
    }
}

/// The thread's side.
struct LookupAgent<P> {
    resolver: Arc<dyn NameResolver>,
    clock: Arc<dyn Clock>,
    jobs: Lane<Job<P>>,
    done: Lane<Done<P>>,
    owner: Doorbell,
    now: NanoTime,
}

impl<P: Send + 'static> Agent for LookupAgent<P> {
    fn role_name(&self) -> &str {
        "name look-up"
    }

    fn do_work(&mut self, now: Now) -> Result<usize, AgentError> {
        self.now = now.nanos;
        let Some(job) = self.jobs.poll() else {
            return Ok(0);
        };
        let look_up = |request: NameRequest| {
            let result = self.resolver.look_up(&request);
            NameAnswer { request, result }
        };
        let answers = job.names.into_iter().map(look_up).collect();
        let done = Done {
            purpose: job.purpose,
            answers,
            took_ns: self.clock.now().nanos.since(now.nanos),
        };
        // There are fewer threads than the lane has room.
        let _ = self.done.offer(done);
        self.owner.ring();
        Ok(1)
    }

    fn next_deadline(&self) -> NanoTime {
        NanoTime::never_after(self.now)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};
    use std::sync::{Condvar, Mutex};

    use fulmar::time::SystemClock;

    use super::*;
    use crate::media::interface::Family;
    use crate::media::resolver::NameUse;

    /// Answers everybody at once but those named `slow...`, which wait for the gate, and panics for `panic`.
    #[derive(Default)]
    struct Gated {
        open: Mutex<bool>,
        changed: Condvar,
    }

    impl Gated {
        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }

    impl NameResolver for Gated {
        fn at_once(&self, _request: &NameRequest) -> Option<Result<IpAddr, NameFault>> {
            None
        }

        fn look_up(&self, request: &NameRequest) -> Result<IpAddr, NameFault> {
            assert_ne!(request.host, "panic");
            if request.host.starts_with("slow") {
                let open = self.open.lock().unwrap();
                let _open = self.changed.wait_while(open, |open| !*open).unwrap();
            }
            Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
    }

    fn job(purpose: u64, host: &str) -> Job<u64> {
        Job {
            purpose,
            names: vec![NameRequest {
                host: host.to_owned(),
                used_as: NameUse::Endpoint,
                family: Family::V4,
                is_re_resolution: false,
            }],
        }
    }

    fn lookups(resolver: &Arc<Gated>) -> (Lookups<u64>, Doorbell) {
        let bell = Doorbell::heap();
        let bells = [bell.clone(), Doorbell::heap()];
        let lookups = Lookups::new(
            Arc::clone(resolver) as Arc<dyn NameResolver>,
            Arc::new(SystemClock),
            bells,
        );
        (lookups, bell)
    }

    fn wait(lookups: &mut Lookups<u64>) -> Done<u64> {
        loop {
            if let Some(done) = lookups.poll() {
                return done;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn slow_names_do_not_hold_up_others_until_all_threads_are_taken() {
        let resolver = Arc::new(Gated::default());
        let (mut lookups, _bell) = lookups(&resolver);
        for purpose in 1..THREADS_MAX as u64 {
            assert!(lookups.start(job(purpose, "slow")).is_none());
        }
        for purpose in 10..20 {
            assert!(lookups.start(job(purpose, "quick")).is_none());
            let done = wait(&mut lookups);
            assert_eq!(done.purpose, purpose);
            assert_eq!(done.answers[0].result, Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        }
        lookups.start(job(4, "slow"));
        lookups.start(job(5, "quick"));
        assert!(lookups.poll().is_none(), "all threads are taken");
        resolver.open();
        let mut purposes: Vec<u64> = (0..5).map(|_| wait(&mut lookups).purpose).collect();
        purposes.sort_unstable();
        assert_eq!(purposes, [1, 2, 3, 4, 5]);
        assert_eq!(lookups.workers.len(), THREADS_MAX);
    }

    #[test]
    fn a_purpose_is_under_way_from_start_to_poll() {
        let resolver = Arc::new(Gated::default());
        let (mut lookups, _bell) = lookups(&resolver);
        let last = THREADS_MAX as u64 + 1;
        for purpose in 1..=last {
            assert!(!lookups.is_under_way(&purpose));
            lookups.start(job(purpose, "slow"));
            assert!(
                lookups.is_under_way(&purpose),
                "at work, and the last one waiting"
            );
        }
        resolver.open();
        for _ in 1..=last {
            let done = wait(&mut lookups);
            assert!(!lookups.is_under_way(&done.purpose));
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let resolver = Arc::new(Gated::default());
        let (mut lookups, _bell) = lookups(&resolver);
        for purpose in 0..(THREADS_MAX + WAITING_MAX) as u64 {
            assert!(lookups.start(job(purpose, "slow")).is_none());
        }
        let refused = lookups.start(job(7, "slow")).unwrap();
        assert!(refused.answers[0].result.is_err());
        resolver.open();
    }

    #[test]
    fn a_look_up_that_kills_its_thread_fails_and_the_next_one_is_served() {
        let resolver = Arc::new(Gated::default());
        let (mut lookups, _bell) = lookups(&resolver);
        lookups.start(job(1, "panic"));
        let done = wait(&mut lookups);
        assert_eq!(done.purpose, 1);
        assert!(done.answers[0].result.is_err());
        lookups.start(job(2, "quick"));
        assert_eq!(wait(&mut lookups).purpose, 2);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_hangs() {
        let resolver = Arc::new(Gated::default());
        let (mut lookups, _bell) = lookups(&resolver);
        lookups.start(job(1, "slow"));
        drop(lookups);
        // Only now may the thread go on.
        resolver.open();
    }
}
