//! The logs this client has mapped: a publication and an image of the same log share one mapping, and what nobody
//! uses any more is unmapped later, by the conductor (shared-memory spec 12.4).
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use crate::directory::Directory;
use crate::id::RegistrationId;
use crate::log::LogBuffers;
use crate::memory::AtomicBuffer;
use crate::time::NanoTime;

/// Step of pre-touching, bytes: the smallest page.
const TOUCH_STEP: usize = 4096;

/// Mapped logs by registration id.
#[derive(Debug, Default)]
pub(super) struct Logs {
    mapped: FxHashMap<i64, Weak<LogBuffers>>,
    lingering: VecDeque<(NanoTime, Arc<LogBuffers>)>,
}

impl Logs {
    /// The log with this id, mapped now or before.
    pub(super) fn open(
        &mut self,
        directory: &dyn Directory,
        id: RegistrationId,
        path: &str,
        pre_touch: bool,
    ) -> Result<Arc<LogBuffers>, String> {
        if let Some(log) = self.mapped.get(&id.get()).and_then(Weak::upgrade) {
            return Ok(log);
        }
        let region = directory
            .map_log(path)
            .map_err(|error| format!("{path}: {error}"))?;
        let log = LogBuffers::open(region).map_err(|error| format!("{path}: {error}"))?;
        if pre_touch {
            touch(&log);
        }
        let log = Arc::new(log);
        self.mapped.retain(|_, log| log.strong_count() > 0);
        self.mapped.insert(id.get(), Arc::downgrade(&log));
        Ok(log)
    }

    /// Keeps a log that its user gave back mapped for a while, so that the unmapping happens here and not there.
    pub(super) fn linger(&mut self, log: Arc<LogBuffers>, linger: Duration, now: NanoTime) {
        self.lingering.push_back((now + linger, log));
    }

    /// Unmaps what has lingered for long enough; at most one log per call, as unmapping takes its time.
    pub(super) fn expire(&mut self, now: NanoTime) -> usize {
        match self.lingering.front() {
            Some((deadline, _)) if deadline.is_due(now) => {
                self.lingering.pop_front();
                1
            }
            _ => 0,
        }
    }

    /// Unmaps everything that nobody uses.
    pub(super) fn clear(&mut self) {
        self.mapped.clear();
        self.lingering.clear();
    }

    /// Forgets which logs are mapped: another driver uses the same ids for other logs.
    pub(super) fn forget(&mut self) {
        self.mapped.clear();
    }
}

/// Makes the pages present by exchanging a zero with a zero: a plain store could undo somebody's write.
fn touch(log: &LogBuffers) {
    for index in 0..crate::position::PARTITION_COUNT {
        let term = log.term(index);
        for offset in (0..term.capacity()).step_by(TOUCH_STEP) {
            let _ = term.compare_exchange_i32(offset, 0, 0);
        }
    }
}
