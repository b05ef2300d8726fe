//! The write-ahead log of a shard (kafka gateway 7.4 and 7.5): what it says is synced survives.
//!
//! All partitions of a shard share one log, so that one sync serves them all. A log is a directory of files of one length, filled
//! with zeros when they are made, so that writing them changes no metadata, and recycled once a checkpoint covers them. Each file
//! is a header and records; a record is a group of entries that were written and synced together. An entry is bytes; what they
//! mean is the business of whoever appends and replays.
//!
//! * Entries are numbered by LSN, from 1, without gaps, for ever.
//! * A record carries the salt of this use of its file, so old records of a recycled file are never taken for new ones, and the
//!   checksum of the record before it, so that lost, reordered and misplaced writes show.
//! * A record begins on a fresh block of 4096 bytes: a torn write harms nothing that was acknowledged.
//! * After the first failed write or sync the log is dead. Recovery on the next start says what survived.
//!
//! [`GroupCommit`] is the machine without files. [`Wal`] gives it some. Its calls block for as long as the disk takes;
//! [`Wal::start_commit`] hands the write and the sync out, so that a helper may wait for them.
//!
//! Writes go through the page cache and `fdatasync`. That is the fallback path, which has to exist everywhere; writing around the
//! cache (`O_DIRECT` and `O_DSYNC` by `io_uring`), and a second group in flight, are not here yet. The second would change what
//! recovery may conclude, see [`Recovery`].
#![forbid(unsafe_code)]

mod format;
mod group;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use format::{BLOCK, FileHeader};
pub use group::{AppendError, Group, GroupCommit, OPEN_GROUP_LIMIT, WAITING_LIMIT};
use recovery::LogFile;
pub use recovery::{Cut, Recovery};

use super::{ErrorKind, Storage, StorageError, StorageFile};

/// Number of an entry in the log of a shard, from 1. 0 stands for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        // At a thousand million entries a second the numbers last for centuries; a file that claims the last one stays there.
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Length of a file of the log in bytes, unless told otherwise.
pub const DEFAULT_FILE_LENGTH: u64 = 64 << 20;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Directory of the log, in the data directory. It is made if need be; the one above it must be there.
    pub directory: String,
    /// Number of the shard. A log of another one is refused.
    pub shard: u16,
    /// Length of new files in bytes, a multiple of 4096, from 8192 to 4 GiB.
    pub file_length: u64,
    /// How many files are kept for use again.
    pub spare_files: usize,
    /// Random; the identity of the log if this makes a new one.
    pub log_id: u64,
}

impl WalConfig {
    /// Files of 64 MiB, four of them spare.
    #[must_use]
    pub fn new(directory: &str, shard: u16, log_id: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            shard,
            file_length: DEFAULT_FILE_LENGTH,
            spare_files: 4,
            log_id,
        }
    }
}

/// Why a log can not be opened or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// Of a file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Bytes that were synced are not there any more. The file is left as it is.
    #[error(
        "write-ahead log {file} is damaged at byte {offset}: {reason}. Nothing was changed. Cutting the log here would lose \
         acknowledged records: restore the file from a copy, or move the data directory away and start with an empty one"
    )]
    Damaged {
        /// Path of the file.
        file: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The log begins too late.
    #[error(
        "records from {from} on are needed, but the write-ahead log begins at {first}: files of it were removed. Restore \
         them from a copy, or move the data directory away and start with an empty one"
    )]
    Missing {
        /// What the checkpoint needs.
        from: Lsn,
        /// First entry that there is.
        first: Lsn,
    },
    /// A file between others is not there.
    #[error("write-ahead log {file} is missing, but later files are there. Restore it from a copy")]
    MissingFile {
        /// Path of the file.
        file: String,
    },
    /// The log ends before the checkpoint.
    #[error(
        "the checkpoint covers all records before {from}, but the write-ahead log ends before {next}: it is older than the \
         checkpoint, or files of it were removed. Restore it from a copy"
    )]
    Behind {
        /// What the checkpoint needs.
        from: Lsn,
        /// What the log would write next.
        next: Lsn,
    },
    /// A setting is out of its range.
    #[error("length of files of the write-ahead log: {0} bytes is no multiple of 4096 from 8192 to 4 GiB")]
    BadFileLength(u64),
}

/// A log that was recovered and is written. See the [module](self).
#[derive(Debug)]
pub struct Wal<S: Storage> {
    storage: S,
    config: WalConfig,
    log_id: u64,
    machine: GroupCommit,
    files: BTreeMap<u64, LogFile<S::File>>,
    /// Numbers of the files that wait to be used again.
    spares: Vec<u64>,
    next_spare: u64,
    /// Sequence of the file with the last synced record. It is never recycled, so that the log always says where it is.
    synced_sequence: u64,
    /// Why the log is dead, if it is.
    failure: Option<WalError>,
}

impl<F> fmt::Debug for LogFile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFile").field(&self.header.sequence).finish()
    }
}

/// A group on its way, with the file it goes to.
#[derive(Debug)]
#[must_use = "a commit that is not finished holds up the log"]
pub struct Commit<F> {
    group: Group,
    file: F,
}

impl<F: StorageFile> Commit<F> {
    /// Writes and syncs, which blocks. Call once, then [`Wal::finish_commit`] with the result.
    ///
    /// # Errors
    /// Of the file.
    pub fn run(&self) -> Result<(), StorageError> {
        self.file.write_at(self.group.offset(), self.group.bytes())?;
        self.file.sync()
    }

    /// What is written.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }
}

const LOG_SUFFIX: &str = ".wal";
const SPARE_SUFFIX: &str = ".spare";

fn number(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = canonical.then(|| digits.parse().ok()).flatten();
    // Adding to it never overflows.
    number.filter(|number| *number < 1 << 62)
}

impl<S: Storage> Wal<S> {
    /// Opens the log, or makes it, and gives every entry from `from` on to `replay`, in order. `from` is one more than what a
    /// checkpoint covers; 1 for all.
    ///
    /// What `replay` was given counts only if this returns without an error. Then it is durable. Memory is bounded by twice the length
    /// of a file, time by the length of the log.
    ///
    /// # Errors
    /// [`WalError`]; nothing on the disk was cut then.
    pub fn open(
        storage: S,
        config: WalConfig,
        from: Lsn,
        replay: impl FnMut(Lsn, &[u8]),
    ) -> Result<(Self, Recovery), WalError> {
        let length = config.file_length;
        if !length.is_multiple_of(BLOCK as u64) || !(2 * BLOCK as u64..=4 << 30).contains(&length) {
            return Err(WalError::BadFileLength(length));
        }
        let directory = &config.directory;
        storage.create_dir(directory)?;
        storage.sync_dir(directory.rsplit_once('/').map_or("", |(above, _)| above))?;
        // Names may be in memory only as well.
        storage.sync_dir(directory)?;
        let names = storage.list(directory)?;
        let sequences = names.iter().filter_map(|name| number(name, LOG_SUFFIX));
        let spares: Vec<u64> = names
            .iter()
            .filter_map(|name| number(name, SPARE_SUFFIX))
            .collect();
        let mut files: Vec<LogFile<S::File>> = Vec::new();
        for sequence in sequences {
            let expected = files
                .last()
                .map_or(sequence, |file| file.header.sequence.saturating_add(1));
            if expected != sequence {
                let file = log_path(directory, expected);
                return Err(WalError::MissingFile { file });
            }
            let log_id = files.first().map(|file| file.header.log_id);
            let file = storage.open(&log_path(directory, sequence))?;
            files.push(LogFile::open(file, config.shard, sequence, log_id)?);
        }
        let log_id = files.first().map_or(config.log_id, |file| file.header.log_id);
        let next_spare = spares.iter().max().map_or(0, |last| last.saturating_add(1));
        let (mut recovery, mut position) = (Recovery::default(), None);
        if !files.is_empty() {
            let (found, end) = recovery::recover(&mut files, from, replay)?;
            (recovery, position) = (found, Some(end));
        } else if from > Lsn(1) {
            return Err(WalError::Behind { from, next: Lsn(1) });
        }
        let position = position.unwrap_or(group::Position {
            sequence: 1,
            offset: BLOCK as u64,
            file_length: length,
            previous_crc: 0,
            next_lsn: Lsn(1),
        });
        let mut wal = Self {
            machine: GroupCommit::new(config.shard, log_id, length, position),
            log_id,
            files: files
                .into_iter()
                .map(|file| (file.header.sequence, file))
                .collect(),
            spares,
            next_spare,
            synced_sequence: position.sequence,
            failure: None,
            storage,
            config,
        };
        wal.drop_unfit(position.sequence, length)?;
        wal.make_file(position.sequence, u64::MAX)?;
        if recovery.last == Lsn(0) {
            recovery.cut = None;
        }
        Ok((wal, recovery))
    }

    /// See [`GroupCommit::append`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        self.machine.append(parts)
    }

    /// Everything up to here is durable.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.machine.synced()
    }

    /// The machine, to look at.
    #[must_use]
    pub fn machine(&self) -> &GroupCommit {
        &self.machine
    }

    /// Begins the next commit if entries wait and none is under way.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] if there is no room for a next file: entries go on waiting, and it may be tried again. Of other
    /// errors the log is dead.
    pub fn start_commit(&mut self) -> Result<Option<Commit<S::File>>, WalError> {
        self.check()?;
        let Some(sequence) = self.machine.next_sequence() else {
            return Ok(None);
        };
        self.make_file(sequence, u64::MAX)?;
        let Some(group) = self.machine.take_group() else {
            return Ok(None);
        };
        let file = self.files.get_mut(&sequence).expect("it was made just now");
        file.last = group.last();
        let file = file.file.clone();
        Ok(Some(Commit { group, file }))
    }

    /// Ends a commit with what [`Commit::run`] returned. Returns [`synced`](Self::synced).
    ///
    /// # Errors
    /// That of `result`; the log is dead then.
    pub fn finish_commit(
        &mut self,
        commit: Commit<S::File>,
        result: Result<(), StorageError>,
    ) -> Result<Lsn, WalError> {
        if let Err(error) = result {
            return Err(self.die(error));
        }
        self.synced_sequence = commit.group.sequence();
        Ok(self.machine.on_synced(commit.group))
    }

    /// Writes and syncs one group, which blocks. Returns [`synced`](Self::synced).
    ///
    /// # Errors
    /// As [`start_commit`](Self::start_commit) and [`finish_commit`](Self::finish_commit).
    pub fn commit(&mut self) -> Result<Lsn, WalError> {
        match self.start_commit()? {
            None => Ok(self.synced()),
            Some(commit) => {
                let result = commit.run();
                self.finish_commit(commit, result)
            }
        }
    }

    /// Makes the file after the present one ready, so that no commit has to wait for that. Without a spare file that means
    /// writing zeros: at most `step` bytes of them in one call, which are synced, so that a call takes about as long as a commit
    /// of that size. Returns whether the file is ready.
    ///
    /// # Errors
    /// As [`start_commit`](Self::start_commit).
    pub fn prepare(&mut self, step: u64) -> Result<bool, WalError> {
        self.check()?;
        self.make_file(self.machine.sequence() + 1, step)
    }

    /// Frees files all of whose entries are below `below`, which a durable checkpoint has made superfluous. Returns how many.
    ///
    /// # Errors
    /// Of the storage; the log is dead then.
    pub fn recycle(&mut self, below: Lsn) -> Result<usize, WalError> {
        self.check()?;
        let mut freed = 0;
        while let Some((&sequence, oldest)) = self.files.first_key_value() {
            if sequence >= self.synced_sequence || oldest.last >= below {
                break;
            }
            let reusable = oldest.header.length == self.config.file_length;
            let keep = reusable && self.spares.len() < self.config.spare_files;
            let result = self.free(sequence, keep);
            self.dead_unless_full(result)?;
            self.files.remove(&sequence);
            freed += 1;
        }
        Ok(freed)
    }

    /// The name must be durably gone before the file gets other contents, and before the next one goes, or a power cut could
    /// leave a hole.
    fn free(&mut self, sequence: u64, keep: bool) -> Result<(), StorageError> {
        let path = log_path(&self.config.directory, sequence);
        if keep {
            let spare = self.next_spare;
            self.storage.rename(&path, &self.spare_path(spare))?;
            self.next_spare += 1;
            self.storage.sync_dir(&self.config.directory)?;
            self.spares.push(spare);
            Ok(())
        } else {
            self.storage.remove(&path)?;
            self.storage.sync_dir(&self.config.directory)
        }
    }

    /// Removes files that were made ahead with another length than files have now: the machine takes the next one to have the
    /// present length. None of them holds a whole record. From the last one down, so that a crash leaves no hole.
    fn drop_unfit(&mut self, sequence: u64, length: u64) -> Result<(), WalError> {
        while let Some((&ahead, file)) = self.files.last_key_value()
            && ahead > sequence
            && file.header.length != length
        {
            self.free(ahead, false)?;
            self.files.remove(&ahead);
        }
        Ok(())
    }

    /// Returns whether the file is there, which takes more than one call if it needs more than `step` bytes of zeros.
    fn make_file(&mut self, sequence: u64, step: u64) -> Result<bool, WalError> {
        if self.files.contains_key(&sequence) {
            return Ok(true);
        }
        let result = self.try_make_file(sequence, step);
        self.dead_unless_full(result)
    }

    fn dead_unless_full<T>(&mut self, result: Result<T, StorageError>) -> Result<T, WalError> {
        match result {
            Ok(done) => Ok(done),
            Err(error) if error.kind() == ErrorKind::NoSpace && self.storage.failure().is_none() => {
                Err(error.into())
            }
            Err(error) => Err(self.die(error)),
        }
    }

    fn check(&self) -> Result<(), WalError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn die(&mut self, error: StorageError) -> WalError {
        self.machine.on_failed();
        self.failure.get_or_insert(error.into()).clone()
    }

    /// Contents first, then the name: a file with a name of the log has a header and its full length.
    fn try_make_file(&mut self, sequence: u64, step: u64) -> Result<bool, StorageError> {
        let length = self.config.file_length;
        let (spare, file) = match self.spares.last() {
            Some(&spare) => (spare, self.storage.open(&self.spare_path(spare))?),
            None => {
                let spare = self.next_spare;
                let file = self.storage.create(&self.spare_path(spare))?;
                self.next_spare += 1;
                self.spares.push(spare);
                (spare, file)
            }
        };
        let present = file.length()?;
        if present > length {
            file.truncate(length)?;
        }
        let end = present.saturating_add(step).min(length);
        file.allocate(end)?;
        if end < length {
            file.sync()?;
            return Ok(false);
        }
        let header = FileHeader {
            shard: self.config.shard,
            log_id: self.log_id,
            sequence,
            length,
        };
        file.write_at(0, &header.encode())?;
        file.sync()?;
        let path = log_path(&self.config.directory, sequence);
        self.storage.rename(&self.spare_path(spare), &path)?;
        self.spares.pop();
        self.storage.sync_dir(&self.config.directory)?;
        let last = Lsn(0);
        self.files.insert(sequence, LogFile { file, header, last });
        Ok(true)
    }

    fn spare_path(&self, spare: u64) -> String {
        format!("{}/{spare:020}{SPARE_SUFFIX}", self.config.directory)
    }
}

fn log_path(directory: &str, sequence: u64) -> String {
    format!("{directory}/{sequence:020}{LOG_SUFFIX}")
}
