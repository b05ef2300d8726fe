//! Bytes of the log: the header of a file, the header of a record, and where the entries lie (kafka gateway 7.4).
//!
//! Numbers are little-endian. A file begins with one block for its header; records follow, each from the beginning of a block:
//!
//! ```text
//!  file header                                   record header
//!   0  magic "FWLF"                  u32           0  magic "FWLR"                  u32
//!   4  format                        u16           4  format                        u16
//!   6  shard                         u16           6  shard                         u16
//!   8  identity of the log           u64           8  salt of the file              u64
//!  16  sequence of the file          u64          16  LSN of the first entry        u64
//!  24  length of the file in bytes   u64          24  term, zero so far             u64
//!  32  zeros                                      32  index, zero so far            u64
//!  60  CRC-32C of bytes 0 to 60      u32          40  length of the payload         u32
//!                                                 44  count of entries              u32
//!                                                 48  CRC of the record before      u32
//!                                                 52  CRC-32C of bytes 0 to 52
//!                                                     and the payload               u32
//!                                                 56  zeros                         u32
//!                                                 60  CRC-32C of bytes 0 to 60      u32
//!                                                 64  payload: per entry its length (u32), then its bytes
//! ```
//!
//! The second checksum of a record makes its header count by itself: a length is believed before the payload is read, and a
//! search for later records needs headers alone.
#![forbid(unsafe_code)]

use super::Lsn;

/// Records begin at multiples of this; a disk writes as much at once.
pub(super) const BLOCK: usize = 4096;
pub(super) const HEADER: usize = 64;
const FORMAT: u16 = 1;
const FILE_MAGIC: u32 = u32::from_le_bytes(*b"FWLF");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"FWLR");
/// Bytes before each entry.
pub(super) const ENTRY_PREFIX: usize = 4;

const LENGTH: usize = 40;
const COUNT: usize = 44;
const PREVIOUS_CRC: usize = 48;
const CRC: usize = 52;
const HEADER_CRC: usize = 60;
const _: () = assert!(HEADER_CRC + 4 == HEADER);

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) shard: u16,
    pub(super) log_id: u64,
    pub(super) sequence: u64,
    pub(super) length: u64,
}

impl FileHeader {
    /// The first block of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, &FILE_MAGIC.to_le_bytes());
        put(&mut block, 4, &FORMAT.to_le_bytes());
        put(&mut block, 6, &self.shard.to_le_bytes());
        put(&mut block, 8, &self.log_id.to_le_bytes());
        put(&mut block, 16, &self.sequence.to_le_bytes());
        put(&mut block, 24, &self.length.to_le_bytes());
        let crc = crc32c::crc32c(&block[..HEADER_CRC]);
        put(&mut block, HEADER_CRC, &crc.to_le_bytes());
        block
    }

    /// `None` if the bytes are no header of a format that is known.
    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        let crc = crc32c::crc32c(block.get(..HEADER_CRC)?);
        let valid = u32_at(block, HEADER_CRC)? == crc
            && u32_at(block, 0)? == FILE_MAGIC
            && u16_at(block, 4)? == FORMAT;
        valid.then_some(())?;
        Some(Self {
            shard: u16_at(block, 6)?,
            log_id: u64_at(block, 8)?,
            sequence: u64_at(block, 16)?,
            length: u64_at(block, 24)?,
        })
    }

    /// What every record of this use of the file carries. No two files of a log, and no two uses of one file, have the same: for a
    /// given log the mapping from sequences is one to one.
    pub(super) fn salt(&self) -> u64 {
        // The finisher of splitmix64, which is a bijection: neighbouring sequences share no bits.
        let mut mixed = self.log_id.wrapping_add(self.sequence);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) shard: u16,
    pub(super) salt: u64,
    /// Of the first entry; the others follow without a gap.
    pub(super) lsn: Lsn,
    /// Bytes.
    pub(super) length: u32,
    pub(super) count: u32,
    pub(super) previous_crc: u32,
    pub(super) crc: u32,
}

impl RecordHeader {
    /// Completes `record`, which has room for the header and then the payload, and pads it to whole blocks. Returns its checksum.
    pub(super) fn seal(mut self, record: &mut Vec<u8>) -> u32 {
        put(record, 0, &RECORD_MAGIC.to_le_bytes());
        put(record, 4, &FORMAT.to_le_bytes());
        put(record, 6, &self.shard.to_le_bytes());
        put(record, 8, &self.salt.to_le_bytes());
        put(record, 16, &self.lsn.0.to_le_bytes());
        put(record, 24, &[0; 16]);
        put(record, LENGTH, &self.length.to_le_bytes());
        put(record, COUNT, &self.count.to_le_bytes());
        put(record, PREVIOUS_CRC, &self.previous_crc.to_le_bytes());
        self.crc = crc32c::crc32c_append(crc32c::crc32c(&record[..CRC]), &record[HEADER..]);
        put(record, CRC, &self.crc.to_le_bytes());
        put(record, CRC + 4, &[0; 4]);
        let header_crc = crc32c::crc32c(&record[..HEADER_CRC]);
        put(record, HEADER_CRC, &header_crc.to_le_bytes());
        record.resize(record.len().next_multiple_of(BLOCK), 0);
        self.crc
    }

    /// `None` unless the header itself is whole. The payload is another matter, see [`payload`](Self::payload).
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let valid = u32_at(bytes, 0)? == RECORD_MAGIC
            && u16_at(bytes, 4)? == FORMAT
            && u32_at(bytes, HEADER_CRC)? == crc32c::crc32c(bytes.get(..HEADER_CRC)?);
        valid.then_some(())?;
        Some(Self {
            shard: u16_at(bytes, 6)?,
            salt: u64_at(bytes, 8)?,
            lsn: Lsn(u64_at(bytes, 16)?),
            length: u32_at(bytes, LENGTH)?,
            count: u32_at(bytes, COUNT)?,
            previous_crc: u32_at(bytes, PREVIOUS_CRC)?,
            crc: u32_at(bytes, CRC)?,
        })
    }

    /// Bytes of the whole record with its padding.
    pub(super) fn padded_length(&self) -> u64 {
        (HEADER as u64 + u64::from(self.length)).next_multiple_of(BLOCK as u64)
    }

    /// LSN of the last entry. `None` if there is none, or it is a number that no log comes to.
    pub(super) fn last_lsn(&self) -> Option<Lsn> {
        let further = u64::from(self.count.checked_sub(1)?);
        let last = self.lsn.0.checked_add(further)?;
        (last < 1 << 62).then_some(Lsn(last))
    }

    /// The payload within `record`, if it is the one that was written: its checksum holds and it is `count` entries.
    pub(super) fn payload<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let end = HEADER.checked_add(usize::try_from(self.length).ok()?)?;
        let payload = record.get(HEADER..end)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(record.get(..CRC)?), payload);
        let mut entries = Entries(payload);
        let count = entries.by_ref().count();
        (crc == self.crc && entries.0.is_empty() && count as u64 == u64::from(self.count)).then_some(payload)
    }
}

/// The entries of a payload. Ends early, with the bytes that are left, at one that is not whole.
pub(super) struct Entries<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let (entry, rest) = self.0.get(ENTRY_PREFIX..)?.split_at_checked(length)?;
        self.0 = rest;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes were computed by another program from the table at the top of this file.
    #[test]
    fn the_bytes_of_format_1_stay_what_they_are() {
        let file = FileHeader {
            shard: 3,
            log_id: 0x1122_3344_5566_7788,
            sequence: 9,
            length: 64 << 20,
        };
        let block = file.encode();
        assert_eq!(block.len(), BLOCK);
        assert_eq!(
            hex(&block[..HEADER]),
            "46574c460100030088776655443322110900000000000000000000040000000000000000000000000000000000000000\
             0000000000000000000000003fac874d"
        );
        assert_eq!(FileHeader::decode(&block), Some(file));
        let mut record = vec![0; HEADER];
        record.extend_from_slice(b"\x02\0\0\0hi\0\0\0\0");
        let mut header = RecordHeader {
            shard: 3,
            salt: file.salt(),
            lsn: Lsn(41),
            length: 10,
            count: 2,
            previous_crc: 0xaabb_ccdd,
            crc: 0,
        };
        header.crc = header.seal(&mut record);
        assert_eq!(record.len(), BLOCK);
        assert_eq!(
            hex(&record[..HEADER]),
            "46574c5201000300b0732bb5101a2f3d2900000000000000000000000000000000000000000000000a00000002000000\
             ddccbbaa6d0e5a3000000000f92a55e0"
        );
        assert_eq!(RecordHeader::decode(&record), Some(header));
        let entries: Vec<_> = Entries(header.payload(&record).unwrap()).collect();
        assert_eq!(entries, [b"hi".as_slice(), b""]);
    }

    #[test]
    fn a_header_that_can_not_be_is_none() {
        let header = |lsn, count| RecordHeader {
            shard: 0,
            salt: 0,
            lsn: Lsn(lsn),
            length: 0,
            count,
            previous_crc: 0,
            crc: 0,
        };
        assert_eq!(header(5, 1).last_lsn(), Some(Lsn(5)));
        assert_eq!(header(5, 0).last_lsn(), None, "no entry");
        assert_eq!(header(u64::MAX, 2).last_lsn(), None);
        assert_eq!(header(1 << 62, 1).last_lsn(), None);
        assert_eq!(
            header(5, 1).payload(&[0; HEADER]),
            None,
            "a count that the payload does not bear out"
        );
        for length in 0..HEADER {
            assert_eq!(RecordHeader::decode(&vec![0; length]), None);
            assert_eq!(FileHeader::decode(&vec![0; length]), None);
        }
    }
}
