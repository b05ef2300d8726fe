//! RES: entries of the name resolution gossip (wire-protocol spec 1.11, 6.8).
//!
//! ```text
//!   0      1       2      4     8                 12 or 24      14 or 26
//!   +------+-------+------+-----+-----------------+-------------+------+----------+
//!   | type | flags | port | age | address (4, 16) | name length | name | zeros to 8
//!   +------+-------+------+-----+-----------------+-------------+------+----------+
//! ```
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bits::align;
use crate::wire::fields::{Fields, Writer};
use crate::wire::frame::{COMMON_HEADER_LENGTH, FrameType, WireError};

/// Length of the shortest datagram: the common header and an entry without a name, bytes.
pub const RES_MIN_LENGTH: usize = 22;
/// Longest name, bytes.
pub const NAME_MAX_LENGTH: usize = 512;
/// Entries start at multiples of this behind the common header, bytes.
const ENTRY_ALIGNMENT: usize = 8;
const TYPE_IPV4: u8 = 1;
const TYPE_IPV6: u8 = 2;
const ADDRESS_OFFSET: usize = 8;

/// One name and where its driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The entry is about the driver that sent it.
    pub is_self: bool,
    /// Port of the resolver socket of that driver.
    pub port: u16,
    /// Time since the driver announced itself, ms.
    pub age_ms: i32,
    /// Address of the driver; the wildcard in its own entry if it does not know.
    pub address: IpAddr,
    /// Name of the driver: 1 to [`NAME_MAX_LENGTH`] bytes; ASCII from an honest peer.
    pub name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry is about its sender.
    pub const FLAG_SELF: u8 = 0x80;

    /// The entry at the start of these bytes, and its length with padding.
    fn parse(bytes: &'a [u8]) -> Result<(Entry<'a>, usize), WireError> {
        let fields = Fields::new(bytes);
        let (address, name_at) = match fields.u8(0)? {
            TYPE_IPV4 => {
                let octets = fields.octets::<4>(ADDRESS_OFFSET)?;
                (IpAddr::V4(Ipv4Addr::from(octets)), ADDRESS_OFFSET + 4)
            }
            TYPE_IPV6 => {
                let octets = fields.octets::<16>(ADDRESS_OFFSET)?;
                (IpAddr::V6(Ipv6Addr::from(octets)), ADDRESS_OFFSET + 16)
            }
            _ => return Err(WireError::Type),
        };
        let name_length = usize::try_from(fields.i16(name_at)?).map_err(|_| WireError::TextLength)?;
        if !(1..=NAME_MAX_LENGTH).contains(&name_length) {
            return Err(WireError::TextLength);
        }
        let entry = Entry {
            is_self: fields.u8(1)? & Self::FLAG_SELF != 0,
            port: fields.u16(2)?,
            age_ms: fields.i32(4)?,
            address,
            name: fields.bytes(name_at + 2, name_length)?,
        };
        Ok((entry, align(name_at + 2 + name_length, ENTRY_ALIGNMENT)))
    }

    /// Length of the entry as it travels, with padding, bytes.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        let address = if self.address.is_ipv4() { 4 } else { 16 };
        align(ADDRESS_OFFSET + address + 2 + self.name.len(), ENTRY_ALIGNMENT)
    }

    fn encode(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        let (kind, v4, v6);
        let address: &[u8] = match self.address {
            IpAddr::V4(address) => {
                (kind, v4) = (TYPE_IPV4, address.octets());
                &v4
            }
            IpAddr::V6(address) => {
                (kind, v6) = (TYPE_IPV6, address.octets());
                &v6
            }
        };
        let flags = if self.is_self { Self::FLAG_SELF } else { 0 };
        Writer::new(bytes)
            .bytes(&[kind, flags])
            .bytes(&self.port.to_le_bytes())
            .i32(self.age_ms)
            .bytes(address)
            .bytes(&(self.name.len() as u16).to_le_bytes())
            .bytes(self.name);
    }
}

/// The entries of a RES datagram, in order. After an entry that can not be read there are no more.
#[derive(Clone, Debug)]
pub struct EntryIter<'a> {
    rest: &'a [u8],
}

impl<'a> EntryIter<'a> {
    /// The entries of a datagram.
    ///
    /// # Errors
    /// It is no RES frame, too short, or its frame length passes it.
    pub fn parse(datagram: &'a [u8]) -> Result<EntryIter<'a>, WireError> {
        let (_, frame_length) = Fields::of_control(datagram, FrameType::RES, RES_MIN_LENGTH)?;
        let rest = datagram
            .get(COMMON_HEADER_LENGTH..frame_length as usize)
            .ok_or(WireError::FrameLength)?;
        Ok(EntryIter { rest })
    }
}

impl<'a> Iterator for EntryIter<'a> {
    type Item = Result<Entry<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Entry::parse(self.rest) {
            Ok((entry, length)) => {
                // The padding of the last entry may be missing.
                self.rest = self.rest.get(length..).unwrap_or(&[]);
                Some(Ok(entry))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// What [`encode`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Length of the frame, bytes; 0 if no entry fitted.
    pub length: usize,
    /// Entries in the frame.
    pub entries: usize,
}

/// Writes one frame with as many of the entries as fit into `bytes`, in order; the caller limits `bytes` to the MTU
/// and calls again with the rest. An entry whose name is empty or too long ends the frame as one that does not fit.
pub fn encode<'a>(entries: impl IntoIterator<Item = Entry<'a>>, bytes: &mut [u8]) -> Encoded {
    let mut written = Encoded {
        length: COMMON_HEADER_LENGTH,
        entries: 0,
    };
    for entry in entries {
        let end = written.length + entry.encoded_length();
        if !(1..=NAME_MAX_LENGTH).contains(&entry.name.len()) {
            break;
        }
        let Some(target) = bytes.get_mut(written.length..end) else {
            break;
        };
        entry.encode(target);
        written.length = end;
        written.entries += 1;
    }
    if written.entries == 0 {
        written.length = 0;
        return written;
    }
    Writer::frame(bytes, written.length as i32, 0, FrameType::RES);
    written
}
