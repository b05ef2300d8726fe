//! A simulated disk: what a process sees, what a power cut leaves, and faults on demand (reliability 3.c, rows S1 to S7).
//!
//! A [`SimDisk`] outlives the processes on it; [`SimDisk::start`] begins one and gives its [`SimStorage`]. Every file has two
//! images. The live image is what reads show. The durable image is what was synced. Between them lie versions of sectors that
//! nobody synced: a power cut keeps any of them, each unit of 512 or 4096 bytes for itself, so that writes are lost, torn and
//! reordered. Names are kept the same way per directory, but changes to one file's name happen in order and a rename is atomic, as
//! journals of file systems have it.
//!
//! A failed sync is modelled as Linux does it: some of the bytes became durable, the others never will, the live image shows them
//! all the same, and a later sync succeeds without them.
//!
//! Randomness comes in as a seeded generator; there is no clock. What is absent: misdirected writes, and slow disks.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Operation, Poison, Storage, StorageError, StorageFile, check_path};

/// What stands or falls together in a power cut at best, in bytes.
const SECTOR: usize = 512;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All of it, as if the power had gone just after the system wrote everything.
    Everything,
    /// Any part, in units of 512 bytes.
    Sectors,
    /// Any part, in units of 4096 bytes.
    Pages,
}

/// What an injected fault looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device failed (`EIO`).
    Io,
    /// The disk is full (`ENOSPC`).
    NoSpace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    File(usize),
    Directory(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Per sector the contents that nobody synced, with the time of each, ascending.
    versions: BTreeMap<usize, Vec<(u64, [u8; SECTOR])>>,
    /// Lengths the file has had since the last sync.
    lengths: Vec<usize>,
}

#[derive(Clone, Debug)]
struct NameChange {
    operation: u64,
    /// The file or directory that the operation is about.
    subject: Node,
    name: String,
    node: Option<Node>,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
struct Injection {
    operation: Option<Operation>,
    calls_left: u64,
    fault: Fault,
}

#[derive(Clone, Debug)]
struct State {
    random: fastrand::Rng,
    files: Vec<Inode>,
    /// The first is the data directory.
    directories: Vec<Directory>,
    time: u64,
    /// Number of the process that runs; handles of older ones are dead.
    process: u64,
    locked: bool,
    calls: u64,
    injections: Vec<Injection>,
    images: Option<Vec<State>>,
}

/// The disk. See the [module](self).
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk that draws from `random`.
    #[must_use]
    pub fn new(random: fastrand::Rng) -> Self {
        Self::of(State {
            random,
            files: Vec::new(),
            directories: vec![Directory::default()],
            time: 0,
            process: 0,
            locked: false,
            calls: 0,
            injections: Vec::new(),
            images: None,
        })
    }

    fn of(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a process. The one before is dead, as by a kill: its handles fail, its lock is free, and what it wrote without
    /// syncing is seen.
    #[must_use]
    pub fn start(&self) -> SimStorage {
        let mut state = self.state();
        state.process += 1;
        state.locked = false;
        SimStorage {
            disk: self.clone(),
            poison: Poison::default(),
            process: state.process,
        }
    }

    /// Cuts the power: the process is dead and the durable image, with what `keep` adds to it, is all there is.
    pub fn power_cut(&self, keep: Keep) {
        let mut state = self.state();
        state.process += 1;
        state.locked = false;
        state.cut(keep);
    }

    /// Lets the `nth` call of `operation` from now on fail, counted from 1; of any operation for `None`. Once.
    pub fn inject(&self, operation: Option<Operation>, nth: u64, fault: Fault) {
        self.state().injections.push(Injection {
            operation,
            calls_left: nth,
            fault,
        });
    }

    /// Forgets the faults that were not met.
    pub fn heal(&self) {
        self.state().injections.clear();
    }

    /// How many calls were made in all.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Flips one bit of a file on the disk, and in memory. Returns whether there is such a byte.
    pub fn flip_bit(&self, path: &str, offset: usize, bit: u32) -> bool {
        let mut state = self.state();
        let Some(Node::File(id)) = state.find(path) else {
            return false;
        };
        let Some(inode) = state.files.get_mut(id) else {
            return false;
        };
        let mask = 1_u8 << (bit % 8);
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= mask;
        }
        inode.live.get_mut(offset).map(|byte| *byte ^= mask).is_some()
    }

    /// Keeps an image of the disk after every sync from now on.
    pub fn keep_images(&self) {
        self.state().images = Some(Vec::new());
    }

    /// The images kept so far, in order, each a disk of its own: cut its power, then look.
    #[must_use]
    pub fn take_images(&self) -> Vec<SimDisk> {
        let images = self.state().images.as_mut().map(std::mem::take);
        images.unwrap_or_default().into_iter().map(Self::of).collect()
    }
}

impl State {
    fn begin(&mut self, process: u64, operation: Operation) -> Result<(), io::Error> {
        if process != self.process {
            return Err(io::Error::other("the process of this handle is dead"));
        }
        self.calls += 1;
        self.time += 1;
        let mut fault = None;
        self.injections.retain_mut(|injection| {
            if injection.operation.is_none_or(|wanted| wanted == operation) {
                injection.calls_left = injection.calls_left.saturating_sub(1);
            }
            let due = injection.calls_left == 0;
            if due {
                fault = Some(injection.fault);
            }
            !due
        });
        match fault {
            None => Ok(()),
            Some(Fault::Io) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(Fault::NoSpace) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    fn keep_image(&mut self) {
        if let Some(mut images) = self.images.take() {
            images.push(self.clone());
            self.images = Some(images);
        }
    }

    fn find(&self, path: &str) -> Option<Node> {
        let mut node = Node::Directory(0);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Node::Directory(id) = node else { return None };
            node = *self.directories.get(id)?.live.get(part)?;
        }
        Some(node)
    }

    fn directory(&self, path: &str) -> Result<usize, io::Error> {
        match self.find(path) {
            Some(Node::Directory(id)) => Ok(id),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// The directory that holds the name, and the name in it.
    fn place<'a>(&self, path: &'a str) -> Result<(usize, &'a str), io::Error> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.directory(above)?, name))
    }

    fn change_name(&mut self, directory: usize, name: &str, node: Option<Node>, subject: Node) {
        let operation = self.time;
        if let Some(directory) = self.directories.get_mut(directory) {
            match node {
                Some(node) => directory.live.insert(name.to_owned(), node),
                None => directory.live.remove(name),
            };
            directory.pending.push(NameChange {
                operation,
                subject,
                name: name.to_owned(),
                node,
            });
        }
    }

    /// Makes the changes of `kept` durable, wherever they are, and forgets older ones of the same names.
    fn commit_names(&mut self, kept: &BTreeSet<u64>) {
        for directory in &mut self.directories {
            let pending = std::mem::take(&mut directory.pending);
            for change in pending {
                if !kept.contains(&change.operation) {
                    directory.pending.push(change);
                    continue;
                }
                directory.pending.retain(|older| older.name != change.name);
                match change.node {
                    Some(node) => directory.durable.insert(change.name, node),
                    None => directory.durable.remove(&change.name),
                };
            }
        }
    }

    fn cut(&mut self, keep: Keep) {
        for inode in &mut self.files {
            inode.cut(keep, &mut self.random);
        }
        let mut operations = BTreeMap::new();
        for change in self.directories.iter().flat_map(|directory| &directory.pending) {
            operations.insert(change.operation, change.subject);
        }
        let mut kept = BTreeSet::new();
        let mut stopped = BTreeSet::new();
        for (operation, subject) in operations {
            let survives = match keep {
                Keep::Nothing => false,
                Keep::Everything => true,
                Keep::Sectors | Keep::Pages => self.random.bool(),
            };
            // Changes to one name happen in order.
            if survives && !stopped.contains(&subject) {
                kept.insert(operation);
            } else {
                stopped.insert(subject);
            }
        }
        self.commit_names(&kept);
        for directory in &mut self.directories {
            directory.pending.clear();
            directory.live = directory.durable.clone();
        }
    }
}

impl Inode {
    fn write(&mut self, time: u64, offset: usize, bytes: &[u8]) {
        let Some(end) = offset.checked_add(bytes.len()) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        if self.live.len() < end {
            self.live.resize(end, 0);
            self.lengths.push(end);
        }
        if let Some(target) = self.live.get_mut(offset..end) {
            target.copy_from_slice(bytes);
        }
        self.note(time, offset / SECTOR, end.div_ceil(SECTOR));
    }

    fn truncate(&mut self, time: u64, length: usize) {
        let before = self.live.len();
        self.live.resize(length, 0);
        self.lengths.push(length);
        self.note(time, length / SECTOR, before.div_ceil(SECTOR));
    }

    /// Notes the live contents of sectors as a version of `time`.
    fn note(&mut self, time: u64, first: usize, end: usize) {
        for sector in first..end {
            let mut content = [0; SECTOR];
            if let Some(bytes) = self.live.get(sector * SECTOR..) {
                for (to, from) in content.iter_mut().zip(bytes) {
                    *to = *from;
                }
            }
            self.versions.entry(sector).or_default().push((time, content));
        }
    }

    fn put(durable: &mut Vec<u8>, sector: usize, content: &[u8; SECTOR]) {
        let start = sector * SECTOR;
        if durable.len() < start + SECTOR {
            durable.resize(start + SECTOR, 0);
        }
        if let Some(target) = durable.get_mut(start..start + SECTOR) {
            target.copy_from_slice(content);
        }
    }

    fn sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.versions) {
            if let Some((_, content)) = versions.last() {
                Self::put(&mut self.durable, sector, content);
            }
        }
        self.lengths.clear();
        self.durable.resize(self.live.len(), 0);
    }

    /// Some sectors are written, the others are forgotten. The length is metadata and stays to be written.
    fn fail_sync(&mut self, random: &mut fastrand::Rng) {
        let length = self.durable.len();
        for (sector, versions) in std::mem::take(&mut self.versions) {
            if let Some((_, content)) = versions.last().filter(|_| random.bool()) {
                Self::put(&mut self.durable, sector, content);
            }
        }
        self.lengths.push(length);
        self.lengths.push(self.live.len());
    }

    fn cut(&mut self, keep: Keep, random: &mut fastrand::Rng) {
        let sectors_per_unit = match keep {
            Keep::Everything => return self.restart_from_live(),
            Keep::Nothing | Keep::Sectors => 1,
            Keep::Pages => 8,
        };
        let mut length = self.durable.len();
        if keep != Keep::Nothing {
            let loss = random.u8(0..=4);
            let mut units: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            for (sector, versions) in &self.versions {
                let times = units.entry(sector / sectors_per_unit).or_default();
                times.extend(versions.iter().map(|(time, _)| *time));
            }
            for (unit, mut times) in units {
                if random.u8(0..4) < loss {
                    continue;
                }
                times.sort_unstable();
                let time = times.get(random.usize(0..times.len())).copied().unwrap_or(0);
                for sector in unit * sectors_per_unit..(unit + 1) * sectors_per_unit {
                    let mut versions = self.versions.get(&sector).into_iter().flatten().rev();
                    if let Some((_, content)) = versions.find(|(when, _)| *when <= time) {
                        Self::put(&mut self.durable, sector, content);
                    }
                }
            }
            let draw = random.usize(0..=self.lengths.len());
            length = self.lengths.get(draw).copied().unwrap_or(length);
        }
        self.durable.resize(length, 0);
        self.live = self.durable.clone();
        self.versions.clear();
        self.lengths.clear();
    }

    fn restart_from_live(&mut self) {
        self.sync();
        self.live = self.durable.clone();
    }
}

/// A process's view of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimStorage {
    disk: SimDisk,
    poison: Poison,
    process: u64,
}

impl SimStorage {
    /// Runs `work` on the disk unless a fault is due.
    fn run<T>(
        &self,
        operation: Operation,
        path: &str,
        work: impl FnOnce(&mut State) -> Result<T, io::Error>,
    ) -> Result<T, StorageError> {
        let mut state = self.disk.state();
        let result = state
            .begin(self.process, operation)
            .and_then(|()| work(&mut state));
        result.map_err(|error| StorageError::system(operation, path, error))
    }

    /// As [`run`](Self::run), for calls that change names.
    fn change<T>(
        &self,
        operation: Operation,
        path: &str,
        work: impl FnOnce(&mut State) -> Result<T, io::Error>,
    ) -> Result<T, StorageError> {
        if !check_path(path) {
            return Err(StorageError::BadPath {
                operation,
                path: path.to_owned(),
            });
        }
        self.poison.check(operation, path)?;
        self.run(operation, path, work)
    }

    fn file(&self, path: &str, id: usize) -> SimFile {
        SimFile {
            storage: self.clone(),
            path: path.into(),
            id,
        }
    }
}

fn system(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Storage for SimStorage {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> Result<SimLock, StorageError> {
        let taken = self.run(Operation::Lock, "LOCK", |state| {
            Ok(std::mem::replace(&mut state.locked, true))
        })?;
        if taken {
            return Err(StorageError::InUse {
                directory: "simulated disk".into(),
            });
        }
        Ok(SimLock {
            storage: self.clone(),
        })
    }

    fn open(&self, path: &str) -> Result<SimFile, StorageError> {
        if !check_path(path) {
            return Err(StorageError::BadPath {
                operation: Operation::Open,
                path: path.to_owned(),
            });
        }
        self.run(Operation::Open, path, |state| match state.find(path) {
            Some(Node::File(id)) => Ok(self.file(path, id)),
            _ => Err(system(libc::ENOENT)),
        })
    }

    fn create(&self, path: &str) -> Result<SimFile, StorageError> {
        self.change(Operation::Create, path, |state| {
            let (directory, name) = state.place(path)?;
            if state.find(path).is_some() {
                return Err(system(libc::EEXIST));
            }
            let id = state.files.len();
            state.files.push(Inode::default());
            state.change_name(directory, name, Some(Node::File(id)), Node::File(id));
            Ok(self.file(path, id))
        })
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StorageError> {
        if !directory.is_empty() && !check_path(directory) {
            return Err(StorageError::BadPath {
                operation: Operation::List,
                path: directory.to_owned(),
            });
        }
        self.run(Operation::List, directory, |state| {
            let id = state.directory(directory)?;
            let names = state.directories.get(id).map(|directory| directory.live.keys());
            Ok(names.into_iter().flatten().cloned().collect())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        if !check_path(to) {
            return Err(StorageError::BadPath {
                operation: Operation::Rename,
                path: to.to_owned(),
            });
        }
        self.change(Operation::Rename, from, |state| {
            let node = state.find(from).ok_or_else(|| system(libc::ENOENT))?;
            let (source, old) = state.place(from)?;
            let (target, new) = state.place(to)?;
            if from != to {
                state.change_name(source, old, None, node);
                state.change_name(target, new, Some(node), node);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> Result<(), StorageError> {
        self.change(Operation::Remove, path, |state| match state.find(path) {
            Some(node @ Node::File(_)) => {
                let (directory, name) = state.place(path)?;
                state.change_name(directory, name, None, node);
                Ok(())
            }
            _ => Err(system(libc::ENOENT)),
        })
    }

    fn create_dir(&self, path: &str) -> Result<(), StorageError> {
        self.change(Operation::CreateDir, path, |state| {
            let (directory, name) = state.place(path)?;
            match state.find(path) {
                Some(Node::Directory(_)) => Ok(()),
                Some(Node::File(_)) => Err(system(libc::EEXIST)),
                None => {
                    let node = Node::Directory(state.directories.len());
                    state.directories.push(Directory::default());
                    state.change_name(directory, name, Some(node), node);
                    Ok(())
                }
            }
        })
    }

    fn remove_dir(&self, path: &str) -> Result<(), StorageError> {
        self.change(Operation::Remove, path, |state| {
            let id = state.directory(path)?;
            if state
                .directories
                .get(id)
                .is_some_and(|found| !found.live.is_empty())
            {
                return Err(system(libc::ENOTEMPTY));
            }
            let (directory, name) = state.place(path)?;
            state.change_name(directory, name, None, Node::Directory(id));
            Ok(())
        })
    }

    fn sync_dir(&self, directory: &str) -> Result<(), StorageError> {
        self.poison.check(Operation::SyncDir, directory)?;
        let result = self.run(Operation::SyncDir, directory, |state| {
            let id = state.directory(directory)?;
            let pending = state.directories.get(id).map(|directory| &directory.pending);
            let kept = pending.into_iter().flatten().map(|change| change.operation);
            let kept = kept.collect();
            state.commit_names(&kept);
            state.keep_image();
            Ok(())
        });
        self.poison.after_sync(result)
    }

    fn failure(&self) -> Option<StorageError> {
        self.poison.failure()
    }
}

/// An open file of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFile {
    storage: SimStorage,
    path: Arc<str>,
    id: usize,
}

fn inode(state: &mut State, id: usize) -> Result<&mut Inode, io::Error> {
    state.files.get_mut(id).ok_or_else(|| system(libc::EBADF))
}

fn in_memory(offset: u64) -> Result<usize, io::Error> {
    usize::try_from(offset).map_err(|_| system(libc::EFBIG))
}

impl StorageFile for SimFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.storage.run(Operation::Read, &self.path, |state| {
            let live = &inode(state, self.id)?.live;
            let bytes = live.get(in_memory(offset)?..).unwrap_or(&[]);
            let count = bytes.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(bytes) {
                *to = *from;
            }
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let storage = &self.storage;
        storage.poison.check(Operation::Write, &self.path)?;
        let mut state = storage.disk.state();
        let begun = state.begin(storage.process, Operation::Write);
        let alive = state.process == storage.process;
        // A write that fails may have got somewhere.
        let written = match &begun {
            Ok(()) => bytes.len(),
            Err(_) if alive => state.random.usize(0..=bytes.len()),
            Err(_) => 0,
        };
        let time = state.time;
        let result = in_memory(offset).and_then(|offset| {
            inode(&mut state, self.id)?.write(time, offset, bytes.get(..written).unwrap_or(bytes));
            begun
        });
        drop(state);
        let result = result.map_err(|error| StorageError::system(Operation::Write, &*self.path, error));
        storage.poison.after_write(result)
    }

    fn length(&self) -> Result<u64, StorageError> {
        self.storage.run(Operation::Length, &self.path, |state| {
            Ok(inode(state, self.id)?.live.len() as u64)
        })
    }

    fn truncate(&self, length: u64) -> Result<(), StorageError> {
        self.storage.poison.check(Operation::Truncate, &self.path)?;
        let result = self.storage.run(Operation::Truncate, &self.path, |state| {
            let time = state.time;
            inode(state, self.id)?.truncate(time, in_memory(length)?);
            Ok(())
        });
        self.storage.poison.after_write(result)
    }

    fn sync(&self) -> Result<(), StorageError> {
        let storage = &self.storage;
        storage.poison.check(Operation::Sync, &self.path)?;
        let mut state = storage.disk.state();
        let begun = state.begin(storage.process, Operation::Sync);
        let alive = state.process == storage.process;
        match &begun {
            Ok(()) => {
                if let Some(inode) = state.files.get_mut(self.id) {
                    inode.sync();
                }
                state.keep_image();
            }
            Err(_) if alive => {
                let mut random = state.random.fork();
                if let Some(inode) = state.files.get_mut(self.id) {
                    inode.fail_sync(&mut random);
                }
            }
            Err(_) => {}
        }
        drop(state);
        let result = begun.map_err(|error| StorageError::system(Operation::Sync, &*self.path, error));
        storage.poison.after_sync(result)
    }
}

/// Holds the lock of a [`SimDisk`] while it lives, and while its process does.
#[derive(Debug)]
pub struct SimLock {
    storage: SimStorage,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.storage.disk.state();
        if state.process == self.storage.process {
            state.locked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ErrorKind;

    fn disk(seed: u64) -> SimDisk {
        SimDisk::new(fastrand::Rng::with_seed(seed))
    }

    fn content(storage: &SimStorage, path: &str) -> Vec<u8> {
        let file = storage.open(path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_nothing_else_has_to() {
        for keep in [Keep::Nothing, Keep::Sectors, Keep::Pages, Keep::Everything] {
            for seed in 0..50 {
                let disk = disk(seed);
                let storage = disk.start();
                let file = storage.create("a").unwrap();
                file.write_at(0, &[1; 10_000]).unwrap();
                file.sync().unwrap();
                storage.sync_dir("").unwrap();
                file.write_at(10_000, &[2; 10_000]).unwrap();
                disk.power_cut(keep);
                assert!(file.sync().is_err(), "a handle of a dead process");
                let bytes = content(&disk.start(), "a");
                assert_eq!(bytes.get(..10_000).unwrap(), [1; 10_000]);
                match keep {
                    Keep::Nothing => assert_eq!(bytes.len(), 10_000),
                    Keep::Everything => assert_eq!(bytes.get(10_000..).unwrap(), [2; 10_000]),
                    _ => assert!(bytes.len() == 10_000 || bytes.len() == 20_000),
                }
            }
        }
    }

    #[test]
    fn random_cuts_tear_and_reorder() {
        let (mut torn, mut reordered) = (0, 0);
        for seed in 0..100 {
            let disk = disk(seed);
            let storage = disk.start();
            let file = storage.create("a").unwrap();
            file.allocate(8192).unwrap();
            file.sync().unwrap();
            storage.sync_dir("").unwrap();
            file.write_at(0, &[1; 4096]).unwrap();
            file.write_at(4096, &[2; 4096]).unwrap();
            disk.power_cut(Keep::Sectors);
            let bytes = content(&disk.start(), "a");
            let first = bytes.iter().take(4096).filter(|byte| **byte == 1).count();
            assert_eq!(first % SECTOR, 0);
            torn += u32::from(first != 0 && first != 4096);
            reordered += u32::from(first < 4096 && bytes.iter().skip(4096).any(|byte| *byte == 2));
        }
        assert!(torn > 10, "{torn}");
        assert!(reordered > 10, "{reordered}");
    }

    #[test]
    fn names_need_a_sync_of_their_directory() {
        let disk = disk(1);
        let storage = disk.start();
        storage.create_dir("d").unwrap();
        storage.sync_dir("").unwrap();
        storage.create("d/old").unwrap();
        storage.sync_dir("d").unwrap();
        storage.rename("d/old", "d/new").unwrap();
        storage.create("d/lost").unwrap().sync().unwrap();
        disk.power_cut(Keep::Nothing);
        let storage = disk.start();
        assert_eq!(storage.list("d").unwrap(), ["old"]);
        storage.rename("d/old", "d/new").unwrap();
        storage.sync_dir("d").unwrap();
        disk.power_cut(Keep::Nothing);
        assert_eq!(disk.start().list("d").unwrap(), ["new"]);
    }

    #[test]
    fn a_rename_is_never_halfway() {
        for seed in 0..100 {
            let disk = disk(seed);
            let storage = disk.start();
            storage.create("a").unwrap();
            storage.sync_dir("").unwrap();
            storage.rename("a", "b").unwrap();
            storage.rename("b", "c").unwrap();
            disk.power_cut(Keep::Sectors);
            assert_eq!(disk.start().list("").unwrap().len(), 1);
        }
    }

    #[test]
    fn a_failed_sync_forgets_and_a_later_one_does_not_help() {
        let mut lost = 0;
        for seed in 0..20 {
            let disk = disk(seed);
            let storage = disk.start();
            let file = storage.create("a").unwrap();
            file.allocate(4096).unwrap();
            file.sync().unwrap();
            storage.sync_dir("").unwrap();
            disk.inject(Some(Operation::Sync), 1, Fault::Io);
            file.write_at(0, &[1; 4096]).unwrap();
            assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Poisoned);
            let storage = disk.start();
            assert_eq!(content(&storage, "a"), [1; 4096], "memory still shows it");
            storage.open("a").unwrap().sync().unwrap();
            disk.power_cut(Keep::Everything);
            lost += u32::from(content(&disk.start(), "a") != [1; 4096]);
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn faults_come_at_the_call_they_were_ordered_for() {
        let disk = disk(3);
        let storage = disk.start();
        disk.inject(Some(Operation::Create), 2, Fault::NoSpace);
        storage.create("a").unwrap();
        assert_eq!(storage.create("b").unwrap_err().kind(), ErrorKind::NoSpace);
        storage.create("b").unwrap();
        let before = disk.calls();
        disk.inject(None, 2, Fault::Io);
        storage.list("").unwrap();
        assert!(storage.list("").is_err());
        assert_eq!(disk.calls(), before + 2);
    }

    #[test]
    fn the_lock_dies_with_its_process() {
        let disk = disk(4);
        let storage = disk.start();
        let lock = storage.lock().unwrap();
        assert_eq!(storage.lock().unwrap_err().kind(), ErrorKind::InUse);
        let next = disk.start();
        let _held = next.lock().unwrap();
        drop(lock);
        assert_eq!(next.lock().unwrap_err().kind(), ErrorKind::InUse);
    }
}
