//! Reading a log back: what is whole is replayed, a torn tail is cut, damage in the middle is refused (kafka gateway 7.3).
//!
//! One group is in flight at a time, so after a crash at most the last record is not whole. Anything after a record that is not
//! whole proves that it was once: then it is damage, and cutting would lose what was acknowledged. What can not be told from a torn
//! tail is damage to the very last record.
#![forbid(unsafe_code)]

use super::format::{BLOCK, Entries, FileHeader, HEADER, RecordHeader};
use super::group::Position;
use super::{Lsn, WalError};
use crate::storage::{StorageError, StorageFile};

/// Read at a time when looking for later records.
const SEARCH_STEP: usize = 1 << 20;

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// LSN of the last entry in the log. 0 if there is none.
    pub last: Lsn,
    /// How many entries were replayed.
    pub entries: u64,
    /// Bytes of records that were read.
    pub bytes: u64,
    /// Where a record that was begun and is not whole was cut. Nobody was told that it is safe.
    pub cut: Option<Cut>,
}

/// A torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Path of the file.
    pub file: String,
    /// Where in it the log ends now.
    pub offset: u64,
}

/// One file of the log, opened.
pub(super) struct LogFile<F> {
    pub(super) file: F,
    pub(super) header: FileHeader,
    /// Of the last record in it. 0 if there is none.
    pub(super) last: Lsn,
}

impl<F: StorageFile> LogFile<F> {
    /// Syncs the file, for memory may show what no disk has, then reads its header.
    pub(super) fn open(file: F, shard: u16, sequence: u64, log_id: Option<u64>) -> Result<Self, WalError> {
        file.sync()?;
        let mut block = [0; BLOCK];
        let filled = file.read_at(0, &mut block)?;
        let damaged = |reason| WalError::Damaged {
            file: file.path().to_owned(),
            offset: 0,
            reason,
        };
        let header = block.get(..filled).and_then(FileHeader::decode);
        let header = header.ok_or_else(|| damaged("the header of the file is not valid"))?;
        if header.shard != shard || header.sequence != sequence {
            return Err(damaged("the header belongs to another file"));
        }
        if log_id.is_some_and(|log_id| log_id != header.log_id) {
            return Err(damaged("the file belongs to another log"));
        }
        if !header.length.is_multiple_of(BLOCK as u64) || file.length()? < header.length {
            return Err(damaged("the file is shorter than it was made"));
        }
        let last = Lsn(0);
        Ok(Self { file, header, last })
    }

    /// The record at `offset` with its padding in `buffer`, if it is whole and of this use of the file.
    fn read_record(&self, offset: u64, buffer: &mut Vec<u8>) -> Result<Option<RecordHeader>, StorageError> {
        let room = self.header.length.saturating_sub(offset);
        if room < BLOCK as u64 {
            return Ok(None);
        }
        buffer.resize(BLOCK, 0);
        if self.file.read_at(offset, buffer)? < BLOCK {
            return Ok(None);
        }
        let Some(header) = RecordHeader::decode(buffer).filter(|header| self.owns(header)) else {
            return Ok(None);
        };
        let padded = header.padded_length();
        let length = usize::try_from(padded).ok().filter(|_| padded <= room);
        let Some(length) = length else { return Ok(None) };
        buffer.resize(length, 0);
        if let Some(rest) = buffer.get_mut(BLOCK..).filter(|rest| !rest.is_empty()) {
            let expected = rest.len();
            if self.file.read_at(offset + BLOCK as u64, rest)? < expected {
                return Ok(None);
            }
        }
        Ok(Some(header).filter(|header| header.payload(buffer).is_some() && header.last_lsn().is_some()))
    }

    fn owns(&self, header: &RecordHeader) -> bool {
        header.salt == self.header.salt() && header.shard == self.header.shard
    }

    /// Offset of the first header from `offset` on with an LSN above `above`.
    fn find_later(&self, mut offset: u64, above: Lsn) -> Result<Option<u64>, StorageError> {
        let left = self.header.length.saturating_sub(offset);
        let step = usize::try_from(left).map_or(SEARCH_STEP, |left| left.min(SEARCH_STEP));
        let mut chunk = vec![0; step];
        while offset < self.header.length {
            let filled = self.file.read_at(offset, &mut chunk)?;
            let blocks = chunk.get(..filled).unwrap_or(&chunk).chunks(BLOCK);
            for (index, block) in blocks.enumerate() {
                let header = RecordHeader::decode(block).filter(|header| self.owns(header));
                if header.is_some_and(|header| header.lsn > above) {
                    return Ok(Some(offset + (index * BLOCK) as u64));
                }
            }
            if filled < step {
                break;
            }
            offset += step as u64;
        }
        Ok(None)
    }

    /// Whether a record of this use of the file begins at `offset`, whole or not.
    fn begun_at(&self, offset: u64) -> Result<bool, StorageError> {
        let mut bytes = [0; HEADER];
        let filled = self.file.read_at(offset, &mut bytes)?;
        let header = bytes.get(..filled).and_then(RecordHeader::decode);
        Ok(header.is_some_and(|header| self.owns(&header)))
    }
}

/// Where the log ends and what leads there.
struct Scan {
    recovery: Recovery,
    /// The next record must be this one; in the oldest file of an old log the first may be any.
    expected: Option<(Lsn, u32)>,
    /// Index of the file, offset behind the last record.
    end: (usize, u64),
    /// Offset of the last record, and its bytes.
    last: Option<(u64, Vec<u8>)>,
}

/// Replays entries from `from` on out of `files`, which are all there are, in order and at least one.
pub(super) fn recover<F: StorageFile>(
    files: &mut [LogFile<F>],
    from: Lsn,
    mut replay: impl FnMut(Lsn, &[u8]),
) -> Result<(Recovery, Position), WalError> {
    let fresh = files.first().is_some_and(|file| file.header.sequence == 1);
    let mut scan = Scan {
        recovery: Recovery::default(),
        expected: fresh.then_some((Lsn(1), 0)),
        end: (0, BLOCK as u64),
        last: None,
    };
    let mut buffer = Vec::new();
    for (index, file) in files.iter_mut().enumerate() {
        let offset = scan_file(&mut scan, index, file, from, &mut buffer, &mut replay)?;
        let above = scan.expected.map_or(Lsn(0), |(lsn, _)| lsn);
        if file.find_later(offset, above)?.is_some() {
            return Err(WalError::Damaged {
                file: file.file.path().to_owned(),
                offset,
                reason: "no valid record is here, but later records are",
            });
        }
        if scan.expected.is_none() {
            return Err(WalError::Damaged {
                file: file.file.path().to_owned(),
                offset,
                reason: "the oldest file has no valid record",
            });
        }
    }
    let (next, previous_crc) = scan.expected.unwrap_or((Lsn(1), 0));
    scan.recovery.last = Lsn(next.0.saturating_sub(1));
    if next < from {
        return Err(WalError::Behind { from, next });
    }
    let (index, offset) = scan.end;
    let file = files.get(index).expect("the end lies in one of the files");
    if let Some((at, record)) = &scan.last {
        // A sync may have failed before the crash: then memory shows this record, the disk may not have it, and no sync of what
        // is clean would bring it there. Only the last record can be in that state, and writing the same bytes harms nothing.
        file.file.write_at(*at, record)?;
        file.file.sync()?;
    }
    if file.begun_at(offset)? {
        scan.recovery.cut = Some(Cut {
            file: file.file.path().to_owned(),
            offset,
        });
    }
    let position = Position {
        sequence: file.header.sequence,
        offset,
        file_length: file.header.length,
        previous_crc,
        next_lsn: next,
    };
    Ok((scan.recovery, position))
}

/// Goes through the records of a file. Returns where they end.
fn scan_file<F: StorageFile>(
    scan: &mut Scan,
    index: usize,
    file: &mut LogFile<F>,
    from: Lsn,
    buffer: &mut Vec<u8>,
    replay: &mut impl FnMut(Lsn, &[u8]),
) -> Result<u64, WalError> {
    let mut offset = BLOCK as u64;
    while let Some(header) = file.read_record(offset, buffer)? {
        match scan.expected {
            // In its place, whole, and not a successor of what is before it: that was replaced, or never reached the disk.
            Some((lsn, crc)) if lsn == header.lsn && crc != header.previous_crc => {
                return Err(WalError::Damaged {
                    file: file.file.path().to_owned(),
                    offset,
                    reason: "the record does not follow the one before it",
                });
            }
            Some((lsn, _)) if lsn != header.lsn => break,
            None if header.lsn > from => {
                return Err(WalError::Missing {
                    from,
                    first: header.lsn,
                });
            }
            _ => {}
        }
        let mut lsn = header.lsn;
        for entry in header.payload(buffer).into_iter().flat_map(Entries) {
            if lsn >= from {
                replay(lsn, entry);
                scan.recovery.entries += 1;
            }
            lsn = lsn.next();
        }
        file.last = header.last_lsn().unwrap_or(lsn);
        scan.expected = Some((lsn, header.crc));
        scan.recovery.bytes += buffer.len() as u64;
        let (at, kept) = scan.last.get_or_insert_default();
        *at = offset;
        std::mem::swap(kept, buffer);
        offset += header.padded_length();
        scan.end = (index, offset);
    }
    Ok(offset)
}
