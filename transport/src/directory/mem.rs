//! A directory inside one process: for the simulator, for tests, and for drivers that no other process joins.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::examine;
use super::start::{Prepared, StartError, StartOptions, decide, error_log_text, timestamp};
use super::{
    Blocks, Directory, DirectoryError, LOSS_REPORT_FILE_NAME, LogKind, check_log_inside, check_log_name,
    log_path,
};
use crate::cnc::{extension, layout};
use crate::id::RegistrationId;
use crate::memory::{Region, RegionWatch};
use crate::time::Clock;

/// Named regions. Cloning shares them, so that a driver and its clients in one process see the same.
#[derive(Clone, Debug)]
pub struct MemDirectory {
    path: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Bytes that may be allocated.
    capacity: u64,
    exists: bool,
    files: BTreeMap<String, StoredRegion>,
    /// Every region ever made that was there at the last look, by path.
    made: Vec<(String, RegionWatch)>,
    /// Error logs saved by [`Directory::prepare`], by name.
    saved: BTreeMap<String, String>,
}

#[derive(Debug)]
struct StoredRegion {
    region: Region,
    allocated: u64,
}

impl State {
    fn forget_dead(&mut self) {
        self.made.retain(|(_, watch)| watch.holders() > 0);
    }
}

impl MemDirectory {
    /// An empty place of this name, with as much space as the process has memory.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self::with_capacity(path, 1 << 40)
    }

    /// As [`Self::new`], with room for `capacity` allocated bytes.
    #[must_use]
    pub fn with_capacity(path: impl Into<String>, capacity: u64) -> Self {
        Self {
            path: path.into(),
            state: Arc::new(Mutex::new(State {
                capacity,
                exists: false,
                files: BTreeMap::new(),
                saved: BTreeMap::new(),
                made: Vec::new(),
            })),
        }
    }

    /// Changes how many bytes may be allocated, for all who share it. What is there stays, also beyond that.
    pub fn set_capacity(&self, capacity: u64) {
        self.state().capacity = capacity;
    }

    /// Bytes that are allocated; sparse logs count for nothing.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.state().allocated()
    }

    /// The text of an error log that [`Directory::prepare`] saved.
    #[must_use]
    pub fn saved_error_log(&self, name: &str) -> Option<String> {
        self.state().saved.get(name).cloned()
    }

    /// Paths of the regions that somebody else than this directory holds: a driver, a client, a view. Empty when all of
    /// them have let go, as memory that is held for ever is lost.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        let mut state = self.state();
        state.forget_dead();
        // A path may have been given to another region since.
        let own = |path: &String, watch: &RegionWatch| {
            let file = state.files.get(path);
            usize::from(file.is_some_and(|file| watch.is_of(&file.region)))
        };
        let is_held = |(path, watch): &&(String, RegionWatch)| watch.holders() > own(path, watch);
        let held = state.made.iter().filter(is_held);
        held.map(|(path, _)| path.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn create(&self, path: String, length: u64, blocks: Blocks) -> Result<Region, DirectoryError> {
        let mut state = self.state();
        if !state.exists {
            return Err(DirectoryError::NotFound { path });
        }
        if state.files.contains_key(&path) {
            return Err(DirectoryError::AlreadyExists { path });
        }
        let allocated = match blocks {
            Blocks::Allocate => length,
            Blocks::Sparse => 0,
        };
        let region_length = usize::try_from(length).ok().filter(|length| *length > 0);
        let (Some(region_length), true) = (region_length, allocated <= state.space_left()) else {
            return Err(DirectoryError::NoSpace { path, length });
        };
        let region = zeroed(region_length).ok_or_else(|| DirectoryError::NoSpace {
            path: path.clone(),
            length,
        })?;
        state.forget_dead();
        state.made.push((path.clone(), region.watch()));
        state.files.insert(
            path,
            StoredRegion {
                region: region.clone(),
                allocated,
            },
        );
        Ok(region)
    }

    fn map(&self, path: String) -> Result<Region, DirectoryError> {
        match self.state().files.get(&path) {
            Some(file) => Ok(file.region.clone()),
            None => Err(DirectoryError::NotFound { path }),
        }
    }
}

impl State {
    fn allocated(&self) -> u64 {
        self.files.values().map(|file| file.allocated).sum()
    }

    fn space_left(&self) -> u64 {
        self.capacity.saturating_sub(self.allocated())
    }
}

impl Directory for MemDirectory {
    fn path(&self) -> &str {
        &self.path
    }

    fn exists(&self) -> bool {
        self.state().exists
    }

    fn is_of_this_process(&self) -> bool {
        true
    }

    fn prepare(&self, options: &StartOptions, clock: &dyn Clock) -> Result<Prepared, StartError> {
        let mut prepared = Prepared::new(None);
        if !options.delete_on_start {
            // Nobody else runs while the caller does in a simulation, so waiting would change nothing.
            let activity = examine(self, options.driver_timeout, clock, &|_: Duration| {})?;
            prepared.replaced = decide(&self.path, activity)?;
            let text = self.map_cnc().ok().as_ref().and_then(error_log_text);
            if let Some(text) = text {
                let name = format!("{}-{}-error.log", self.path, timestamp(clock.now().epoch));
                self.state().saved.insert(name.clone(), text);
                prepared.saved_error_log = Some(name);
            }
        }
        self.delete()?;
        Ok(prepared)
    }

    fn create_dirs(&self) -> Result<(), DirectoryError> {
        let mut state = self.state();
        if state.exists {
            return Err(DirectoryError::AlreadyExists {
                path: self.path.clone(),
            });
        }
        state.exists = true;
        Ok(())
    }

    fn create_cnc(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(self.file(layout::FILE_NAME), length, Blocks::Allocate)
    }

    fn map_cnc(&self) -> Result<Region, DirectoryError> {
        self.map(self.file(layout::FILE_NAME))
    }

    fn create_extension(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(self.file(extension::FILE_NAME), length, Blocks::Allocate)
    }

    fn map_extension(&self) -> Result<Region, DirectoryError> {
        self.map(self.file(extension::FILE_NAME))
    }

    fn create_loss_report(&self, length: u64) -> Result<Region, DirectoryError> {
        self.create(self.file(LOSS_REPORT_FILE_NAME), length, Blocks::Allocate)
    }

    fn map_loss_report(&self) -> Result<Region, DirectoryError> {
        self.map(self.file(LOSS_REPORT_FILE_NAME))
    }

    fn create_log(
        &self,
        kind: LogKind,
        id: RegistrationId,
        length: u64,
        blocks: Blocks,
    ) -> Result<(Region, String), DirectoryError> {
        let path = log_path(&self.path, kind, id);
        Ok((self.create(path.clone(), length, blocks)?, path))
    }

    fn map_log(&self, path: &str) -> Result<Region, DirectoryError> {
        check_log_name(path)?;
        self.map(path.to_owned())
    }

    fn delete_log(&self, path: &str) -> Result<(), DirectoryError> {
        check_log_inside(&self.path, path)?;
        match self.state().files.remove(path) {
            Some(_) => Ok(()),
            None => Err(DirectoryError::NotFound {
                path: path.to_owned(),
            }),
        }
    }

    fn logs(&self) -> Result<Vec<String>, DirectoryError> {
        let state = self.state();
        if !state.exists {
            return Err(DirectoryError::NotFound {
                path: self.path.clone(),
            });
        }
        let is_log = |path: &&String| check_log_inside(&self.path, path).is_ok();
        Ok(state.files.keys().filter(is_log).cloned().collect())
    }

    fn usable_space(&self) -> Result<u64, DirectoryError> {
        let state = self.state();
        if state.exists {
            Ok(state.space_left())
        } else {
            Err(DirectoryError::NotFound {
                path: self.path.clone(),
            })
        }
    }

    fn allocated_length(&self, path: &str) -> Result<u64, DirectoryError> {
        check_log_name(path)?;
        match self.state().files.get(path) {
            Some(file) => Ok(file.allocated),
            None => Err(DirectoryError::NotFound {
                path: path.to_owned(),
            }),
        }
    }

    fn delete(&self) -> Result<(), DirectoryError> {
        let mut state = self.state();
        state.exists = false;
        state.files.clear();
        Ok(())
    }
}

/// Zeroed private memory, taken page by page as it is touched where the system can do that, so that a log of the
/// default length costs no more than what is written to it.
fn zeroed(length: usize) -> Option<Region> {
    const TOUCHED_AT_ONCE_MAX: usize = 1 << 20;
    if cfg!(miri) || length <= TOUCHED_AT_ONCE_MAX {
        return Some(Region::heap(length));
    }
    let mapping = memmap2::MmapOptions::new().len(length).map_anon().ok()?;
    Some(Region::mapped(mapping.into()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn regions_that_somebody_holds_are_told_even_when_their_file_is_gone() {
        let directory = MemDirectory::new("/memory/aeron");
        directory.create_dirs().unwrap();
        let cnc = directory.create_cnc(4096).unwrap();
        let id = RegistrationId(7);
        let (log, path) = directory
            .create_log(LogKind::Publication, id, 8192, Blocks::Sparse)
            .unwrap();
        let view = log.view(0, 64);
        drop(log);
        assert_eq!(
            directory.held(),
            [directory.file(layout::FILE_NAME), path.clone()]
        );
        drop(cnc);
        directory.delete_log(&path).unwrap();
        assert_eq!(directory.held(), [path], "a view holds it");
        drop(view);
        assert!(directory.held().is_empty(), "the directory's own do not count");
        let old = directory.map_cnc().unwrap();
        directory.delete().unwrap();
        directory.create_dirs().unwrap();
        drop(directory.create_cnc(4096).unwrap());
        assert_eq!(
            directory.held(),
            [directory.file(layout::FILE_NAME)],
            "the old one is"
        );
        drop(old);
    }
}
