//! Group commit as a pure machine: entries go in, groups of bytes come out, one at a time (kafka gateway 7.5).
//!
//! While a group is being synced, everything that arrives is collected; it is the next one. There is no timer: with nothing in
//! flight an entry leaves at once, and under load groups grow by themselves. The machine knows where in which file a group goes,
//! and neither file nor clock.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::Lsn;
use super::format::{BLOCK, ENTRY_PREFIX, FileHeader, HEADER, RecordHeader};

/// An open group takes no further entry once it would be longer, in bytes. Half a millisecond's worth of a common disk.
pub const OPEN_GROUP_LIMIT: usize = 1 << 20;

/// Bytes that wait to be written, besides those in flight.
pub const WAITING_LIMIT: usize = 16 << 20;

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// [`WAITING_LIMIT`] is reached: stop reading from clients until a group was synced.
    #[error("too many bytes wait to be written to the log")]
    BackPressured,
    /// The entry fits in no file of the log.
    #[error("an entry of {length} bytes does not fit in a file of the log, which takes {limit}")]
    TooLarge {
        /// Of the entry.
        length: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// An earlier group could not be written. Nothing is taken any more.
    #[error("writing the log has stopped after an earlier error")]
    Failed,
}

/// Where the next group goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) sequence: u64,
    pub(super) offset: u64,
    /// Length of that file.
    pub(super) file_length: u64,
    pub(super) previous_crc: u32,
    pub(super) next_lsn: Lsn,
}

/// Bytes to be written in one piece, then synced, then given back to [`GroupCommit::on_synced`].
#[derive(Debug)]
pub struct Group {
    sequence: u64,
    offset: u64,
    first: Lsn,
    last: Lsn,
    bytes: Vec<u8>,
}

impl Group {
    /// Sequence of the file that it goes to.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Offset in that file, a multiple of 4096.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// LSN of its first entry.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// LSN of its last entry.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// What to write, a multiple of 4096 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Entries of one record to be. The bytes begin with room for the header.
#[derive(Debug)]
struct Collected {
    first: Lsn,
    count: u32,
    bytes: Vec<u8>,
}

/// The machine of group commit: entries go in, groups of bytes come out, one at a time. No file, no clock.
#[derive(Debug)]
pub struct GroupCommit {
    shard: u16,
    log_id: u64,
    /// Length of files that come after the present one.
    file_length: u64,
    position: Position,
    /// The last one is open, those before it are full.
    groups: VecDeque<Collected>,
    waiting: usize,
    in_flight: Option<Lsn>,
    synced: Lsn,
    failed: bool,
    /// A buffer to be used again.
    spare: Vec<u8>,
}

impl GroupCommit {
    pub(super) fn new(shard: u16, log_id: u64, file_length: u64, position: Position) -> Self {
        Self {
            shard,
            log_id,
            file_length,
            position,
            groups: VecDeque::new(),
            waiting: 0,
            in_flight: None,
            synced: Lsn(position.next_lsn.0.saturating_sub(1)),
            failed: false,
            spare: Vec::new(),
        }
    }

    /// The longest entry there can be, in bytes.
    #[must_use]
    pub fn entry_limit(&self) -> usize {
        let room = self
            .file_length
            .saturating_sub((BLOCK + HEADER + ENTRY_PREFIX) as u64)
            .min(u64::from(u32::MAX - BLOCK as u32));
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Takes one entry, whose bytes are `parts` one after the other. It is not safe before [`synced`](Self::synced) reaches its
    /// number.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing of the entry was taken.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        let limit = self.entry_limit();
        let sum = parts
            .iter()
            .try_fold(0_usize, |sum, part| sum.checked_add(part.len()));
        let length = sum.unwrap_or(usize::MAX);
        let prefix = u32::try_from(length).ok().filter(|_| length <= limit);
        let Some(prefix) = prefix else {
            return Err(AppendError::TooLarge { length, limit });
        };
        let needed = ENTRY_PREFIX + length;
        // One entry may always wait, or one that is longer than the limit never could.
        if self.waiting > 0 && self.waiting + needed > WAITING_LIMIT {
            return Err(AppendError::BackPressured);
        }
        let lsn = self.position.next_lsn;
        let open_limit = limit.saturating_add(HEADER + ENTRY_PREFIX).min(OPEN_GROUP_LIMIT);
        let full = |group: &Collected| group.count == u32::MAX || group.bytes.len() + needed > open_limit;
        if self.groups.back().is_none_or(full) {
            let mut bytes = std::mem::take(&mut self.spare);
            bytes.clear();
            bytes.resize(HEADER, 0);
            self.groups.push_back(Collected {
                first: lsn,
                count: 0,
                bytes,
            });
        }
        if let Some(group) = self.groups.back_mut() {
            group.count += 1;
            group.bytes.extend_from_slice(&prefix.to_le_bytes());
            for part in parts {
                group.bytes.extend_from_slice(part);
            }
        }
        self.waiting += needed;
        self.position.next_lsn = lsn.next();
        Ok(lsn)
    }

    /// The next group to write, if there is one and none is in flight. Its file must be there: if the sequence is new, the group
    /// is the first of that file.
    pub fn take_group(&mut self) -> Option<Group> {
        if self.failed || self.in_flight.is_some() {
            return None;
        }
        let Collected {
            first,
            count,
            mut bytes,
        } = self.groups.pop_front()?;
        let payload = bytes.len() - HEADER;
        self.waiting -= payload;
        let padded = bytes.len().next_multiple_of(BLOCK) as u64;
        let fits = self.fits(padded);
        let position = &mut self.position;
        if !fits {
            position.sequence += 1;
            position.offset = BLOCK as u64;
            position.file_length = self.file_length;
        }
        let file = FileHeader {
            shard: self.shard,
            log_id: self.log_id,
            sequence: position.sequence,
            length: position.file_length,
        };
        let header = RecordHeader {
            shard: self.shard,
            salt: file.salt(),
            lsn: first,
            length: u32::try_from(payload).expect("append keeps a group below 4 GiB"),
            count,
            previous_crc: position.previous_crc,
            crc: 0,
        };
        let last = header
            .last_lsn()
            .expect("a group has an entry, and LSNs do not run out");
        position.previous_crc = header.seal(&mut bytes);
        let group = Group {
            sequence: position.sequence,
            offset: position.offset,
            first,
            last,
            bytes,
        };
        position.offset += padded;
        self.in_flight = Some(last);
        Some(group)
    }

    fn fits(&self, padded: u64) -> bool {
        self.position.offset.saturating_add(padded) <= self.position.file_length
    }

    /// Sequence of the file that [`take_group`](Self::take_group) would give a group for.
    pub(super) fn next_sequence(&self) -> Option<u64> {
        if self.failed || self.in_flight.is_some() {
            return None;
        }
        let padded = self.groups.front()?.bytes.len().next_multiple_of(BLOCK) as u64;
        Some(self.position.sequence + u64::from(!self.fits(padded)))
    }

    /// The group that was in flight is durable. Returns the LSN up to which everything is.
    pub fn on_synced(&mut self, group: Group) -> Lsn {
        if self.in_flight.take() == Some(group.last) && !self.failed {
            self.synced = group.last;
        }
        // A huge buffer is not kept for small groups.
        if group.bytes.capacity() <= 2 * OPEN_GROUP_LIMIT {
            self.spare = group.bytes;
        }
        self.synced
    }

    /// A write or a sync failed: nothing is taken or given out any more, and [`synced`](Self::synced) stays where it is.
    pub fn on_failed(&mut self) {
        self.failed = true;
        self.groups.clear();
        self.waiting = 0;
    }

    /// Everything up to here is durable. 0 if nothing ever was.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.synced
    }

    /// LSN that the next entry gets.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.position.next_lsn
    }

    /// Bytes that wait, without those in flight.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sequence of the file that the last group went to.
    pub(super) fn sequence(&self) -> u64 {
        self.position.sequence
    }

    /// Whether a group is in flight.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Entries;
    use super::*;

    const FILE: u64 = 64 << 20;

    fn machine(file_length: u64) -> GroupCommit {
        let position = Position {
            sequence: 1,
            offset: BLOCK as u64,
            file_length,
            previous_crc: 0,
            next_lsn: Lsn(1),
        };
        GroupCommit::new(3, 99, file_length, position)
    }

    #[test]
    fn what_arrives_during_a_sync_is_the_next_group() {
        let mut machine = machine(FILE);
        assert!(machine.take_group().is_none());
        assert_eq!(machine.append(&[b"a"]), Ok(Lsn(1)));
        let first = machine.take_group().unwrap();
        assert_eq!((first.first(), first.last()), (Lsn(1), Lsn(1)));
        assert_eq!((first.offset(), first.bytes().len()), (4096, 4096));
        assert_eq!(machine.append(&[b"b", b"c"]), Ok(Lsn(2)));
        assert_eq!(machine.append(&[]), Ok(Lsn(3)));
        assert!(machine.take_group().is_none(), "one in flight");
        assert_eq!(machine.synced(), Lsn(0));
        assert_eq!(machine.on_synced(first), Lsn(1));
        let second = machine.take_group().unwrap();
        assert_eq!((second.first(), second.last()), (Lsn(2), Lsn(3)));
        assert_eq!(second.offset(), 8192);
        let header = RecordHeader::decode(second.bytes()).unwrap();
        let entries: Vec<_> = Entries(header.payload(second.bytes()).unwrap()).collect();
        assert_eq!(entries, [b"bc".as_slice(), b""]);
        assert_eq!(machine.on_synced(second), Lsn(3));
        assert_eq!(machine.waiting(), 0);
    }

    #[test]
    fn groups_and_waiting_bytes_are_bounded() {
        let mut machine = machine(FILE);
        let entry = vec![7; 300_000];
        let mut taken = 0;
        while machine.append(&[&entry]).is_ok() {
            taken += 1;
            assert!(machine.waiting() <= WAITING_LIMIT);
        }
        assert_eq!(machine.append(&[&entry]), Err(AppendError::BackPressured));
        assert_eq!(taken, WAITING_LIMIT / (entry.len() + ENTRY_PREFIX));
        let group = machine.take_group().unwrap();
        assert!(group.bytes().len() <= OPEN_GROUP_LIMIT);
        assert_eq!(group.last(), Lsn(3));
        assert!(machine.append(&[&entry]).is_ok(), "room again");
    }

    #[test]
    fn a_long_entry_goes_alone_and_one_that_fits_nowhere_is_refused() {
        let mut machine = machine(FILE);
        let long = vec![1; machine.entry_limit()];
        assert!(machine.append(&[&long, b"x"]).is_err());
        assert_eq!(
            machine.append(&[&long]),
            Ok(Lsn(1)),
            "over the limit, but nothing else waits"
        );
        assert_eq!(machine.append(&[b"y"]), Err(AppendError::BackPressured));
        let group = machine.take_group().unwrap();
        assert_eq!(group.bytes().len() as u64, FILE - BLOCK as u64);
        assert_eq!(machine.append(&[b"y"]), Ok(Lsn(2)));
        machine.on_synced(group);
        assert_eq!(machine.take_group().unwrap().sequence(), 2);
    }

    #[test]
    fn a_group_that_does_not_fit_begins_the_next_file() {
        let mut machine = machine(3 * BLOCK as u64);
        let mut places = Vec::new();
        for _ in 0..5 {
            machine.append(&[b"entry"]).unwrap();
            let group = machine.take_group().unwrap();
            places.push((group.sequence(), group.offset()));
            machine.on_synced(group);
        }
        assert_eq!(places, [(1, 4096), (1, 8192), (2, 4096), (2, 8192), (3, 4096)]);
    }

    #[test]
    fn after_a_failure_nothing_moves() {
        let mut machine = machine(FILE);
        machine.append(&[b"a"]).unwrap();
        let group = machine.take_group().unwrap();
        machine.append(&[b"b"]).unwrap();
        machine.on_failed();
        assert_eq!(machine.append(&[b"c"]), Err(AppendError::Failed));
        assert_eq!(machine.on_synced(group), Lsn(0));
        assert!(machine.take_group().is_none());
        assert_eq!(machine.synced(), Lsn(0));
    }
}
