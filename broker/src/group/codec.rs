//! The persistent form of groups and their offsets: keys and values of records in a compacted log.
//!
//! Integers are big-endian. A string is a length (u16) and UTF-8; bytes are a length (u32) and the bytes; an optional
//! field is a byte 0 or 1 and, after 1, the field. There is no checksum: the record batches around the records have one.
//!
//! ```text
//! key    group:  | version 1 (u8) | 1 (u8) | group string |
//!        offset: | version 1 (u8) | 2 (u8) | group string | topic string | partition (i32) |
//!
//! value  group:  | version 1 (u8) | generation (i32) | protocol type, protocol, leader (optional strings) |
//!                | empty since (optional i64, Unix milliseconds) | count (u32) | count members |
//!        member: | id string | instance id (optional string) | client id string | host string |
//!                | session timeout, rebalance timeout (i32, ms) | count (u32) | count * (name string, metadata bytes) |
//!                | assignment bytes |
//!        offset: | version 1 (u8) | offset (i64) | leader epoch (i32) | metadata string |
//!                | commit time (i64, Unix milliseconds) | expires at (optional i64, Unix milliseconds) |
//! ```
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::member::{Member, Protocol};
use super::offsets::{StoredOffset, TopicPartition};

/// The version of keys and values written here; others are refused.
const VERSION: u8 = 1;
const KIND_GROUP: u8 = 1;
const KIND_OFFSET: u8 = 2;

/// The longest string the wire protocol can carry, in bytes; longer ones are refused when they come in.
pub(super) const MAX_STRING: usize = i16::MAX as usize;

/// Why a record of the log can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a newer release, or not by a group coordinator.
    #[error("unknown version {0}")]
    UnknownVersion(u8),
    /// Not a kind of key known here.
    #[error("unknown kind of key {0}")]
    UnknownKind(u8),
    /// Shorter than its fields, or longer.
    #[error("the length does not fit the fields")]
    Length,
    /// A string is not UTF-8, or a field is outside its range, or fields contradict each other.
    #[error("a field is not valid")]
    Field,
    /// Records can be taken only before the end of loading.
    #[error("the coordinator is loaded already")]
    AlreadyLoaded,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Group(String),
    Offset(String, TopicPartition),
}

/// A group without its offsets.
#[derive(Clone, Debug)]
pub(super) struct StoredGroup {
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) empty_since: Option<i64>,
    pub(super) members: Vec<Member>,
}

pub(super) fn group_key(group: &str) -> Vec<u8> {
    let mut out = vec![VERSION, KIND_GROUP];
    put_string(&mut out, group);
    out
}

pub(super) fn offset_key(group: &str, at: &TopicPartition) -> Vec<u8> {
    let mut out = vec![VERSION, KIND_OFFSET];
    put_string(&mut out, group);
    put_string(&mut out, &at.topic);
    out.extend(at.partition.to_be_bytes());
    out
}

pub(super) fn offset_value(stored: &StoredOffset) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(stored.offset.to_be_bytes());
    out.extend(stored.leader_epoch.to_be_bytes());
    put_string(&mut out, &stored.metadata);
    out.extend(stored.commit_time_ms.to_be_bytes());
    put_option(&mut out, stored.expires_at_ms, |out, it| {
        out.extend(it.to_be_bytes())
    });
    out
}

/// The fields of a group that are written besides its members.
pub(super) struct GroupFields<'a> {
    pub(super) generation: i32,
    pub(super) protocol_type: Option<&'a str>,
    pub(super) protocol: Option<&'a str>,
    pub(super) leader: Option<&'a str>,
    pub(super) empty_since: Option<i64>,
}

/// `assignment` tells what is to be written as a member's assignment.
pub(super) fn group_value<'a>(
    fields: &GroupFields<'_>,
    members: impl ExactSizeIterator<Item = &'a Member>,
    assignment: impl Fn(&'a Member) -> &'a [u8],
) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(fields.generation.to_be_bytes());
    put_option(&mut out, fields.protocol_type, put_string);
    put_option(&mut out, fields.protocol, put_string);
    put_option(&mut out, fields.leader, put_string);
    put_option(&mut out, fields.empty_since, |out, it| {
        out.extend(it.to_be_bytes())
    });
    put_count(&mut out, members.len());
    for member in members {
        put_string(&mut out, &member.id);
        put_option(&mut out, member.instance_id.as_deref(), put_string);
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.extend(member.session_timeout_ms.to_be_bytes());
        out.extend(member.rebalance_timeout_ms.to_be_bytes());
        put_count(&mut out, member.protocols.len());
        for protocol in &member.protocols {
            put_string(&mut out, &protocol.name);
            put_bytes(&mut out, &protocol.metadata);
        }
        put_bytes(&mut out, assignment(member));
    }
    out
}

fn put_string(out: &mut Vec<u8>, it: &str) {
    let length = u16::try_from(it.len()).expect("strings are bounded by MAX_STRING where they come in");
    out.extend(length.to_be_bytes());
    out.extend(it.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, it: &[u8]) {
    put_count(out, it.len());
    out.extend(it);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("all that is kept is bounded by max_bytes, which is below 4 GiB");
    out.extend(count.to_be_bytes());
}

fn put_option<T>(out: &mut Vec<u8>, it: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(it.is_some()));
    if let Some(it) = it {
        put(out, it);
    }
}

pub(super) fn read_key(key: &[u8]) -> Result<Key, RestoreError> {
    let mut reader = Reader::versioned(key)?;
    let kind = reader.u8()?;
    let group = match kind {
        KIND_GROUP | KIND_OFFSET => reader.string()?,
        other => return Err(RestoreError::UnknownKind(other)),
    };
    let key = if kind == KIND_GROUP {
        Key::Group(group)
    } else {
        let topic = Arc::from(reader.string()?);
        let partition = reader.i32()?;
        Key::Offset(group, TopicPartition { topic, partition })
    };
    reader.end()?;
    Ok(key)
}

pub(super) fn read_offset(value: &[u8]) -> Result<StoredOffset, RestoreError> {
    let mut reader = Reader::versioned(value)?;
    let stored = StoredOffset {
        offset: reader.i64()?,
        leader_epoch: reader.i32()?,
        metadata: reader.string()?,
        commit_time_ms: reader.i64()?,
        expires_at_ms: reader.option(Reader::i64)?,
    };
    reader.end()?;
    Ok(stored)
}

pub(super) fn read_group(value: &[u8]) -> Result<StoredGroup, RestoreError> {
    let mut reader = Reader::versioned(value)?;
    let generation = reader.i32()?;
    let protocol_type = reader.option(Reader::string)?;
    let protocol = reader.option(Reader::string)?;
    let leader = reader.option(Reader::string)?.map(Arc::from);
    let empty_since = reader.option(Reader::i64)?;
    let count = reader.u32()?;
    let mut members = Vec::new();
    // Nothing is set aside by the count: a wrong one ends at the end of the bytes.
    for _ in 0..count {
        members.push(read_member(&mut reader)?);
    }
    reader.end()?;
    if generation < 0 {
        return Err(RestoreError::Field);
    }
    Ok(StoredGroup {
        generation,
        protocol_type,
        protocol,
        leader,
        empty_since,
        members,
    })
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member, RestoreError> {
    let id = Arc::from(reader.string()?);
    let instance_id = reader.option(Reader::string)?.map(Arc::from);
    let client_id = reader.string()?;
    let client_host = reader.string()?;
    let session_timeout_ms = reader.i32()?;
    let rebalance_timeout_ms = reader.i32()?;
    let count = reader.u32()?;
    let mut protocols: Vec<Protocol> = Vec::new();
    for _ in 0..count {
        let protocol = Protocol {
            name: reader.string()?,
            metadata: Arc::from(reader.bytes()?),
        };
        protocols.push(protocol);
    }
    let assignment = Arc::from(reader.bytes()?);
    if session_timeout_ms < 0 || rebalance_timeout_ms < 0 || protocols.is_empty() {
        return Err(RestoreError::Field);
    }
    Ok(Member {
        id,
        instance_id,
        client_id,
        client_host,
        session_timeout_ms,
        rebalance_timeout_ms,
        protocols,
        assignment,
        is_new: false,
        held_join: None,
        held_sync: None,
    })
}

/// Bytes not looked at yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn versioned(bytes: &'a [u8]) -> Result<Reader<'a>, RestoreError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            other => Err(RestoreError::UnknownVersion(other)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(RestoreError::Length)?;
        self.0 = tail;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], RestoreError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(RestoreError::Length)?;
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, RestoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, RestoreError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RestoreError> {
        self.array().map(i64::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, RestoreError> {
        let length = self.array().map(u16::from_be_bytes)?;
        let bytes = self.slice(usize::from(length))?;
        if bytes.len() > MAX_STRING {
            return Err(RestoreError::Field);
        }
        core::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| RestoreError::Field)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RestoreError> {
        let length = usize::try_from(self.u32()?).map_err(|_| RestoreError::Length)?;
        self.slice(length)
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, RestoreError>,
    ) -> Result<Option<T>, RestoreError> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(RestoreError::Field),
        }
    }

    fn end(&self) -> Result<(), RestoreError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RestoreError::Length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: Arc::from("m"),
            instance_id: Some(Arc::from("i")),
            client_id: "c".into(),
            client_host: "/10.0.0.1".into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 300_000,
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: Arc::from([1, 2, 3]),
            }],
            assignment: Arc::from([]),
            is_new: false,
            held_join: None,
            held_sync: None,
        }
    }

    fn value() -> Vec<u8> {
        let fields = GroupFields {
            generation: 7,
            protocol_type: Some("consumer"),
            protocol: Some("range"),
            leader: Some("m"),
            empty_since: None,
        };
        group_value(&fields, [member()].iter(), |_| &[9, 9])
    }

    #[test]
    fn a_group_comes_back_as_it_was_written() {
        let stored = read_group(&value()).unwrap();
        assert_eq!(stored.generation, 7);
        assert_eq!(stored.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(stored.leader.as_deref(), Some("m"));
        let [it] = stored.members.as_slice() else {
            panic!("one member")
        };
        assert_eq!(it.instance_id.as_deref(), Some("i"));
        assert_eq!(it.protocols, member().protocols);
        assert_eq!(&*it.assignment, [9, 9]);
        assert_eq!(read_key(&group_key("g")), Ok(Key::Group("g".into())));
    }

    #[test]
    fn an_offset_comes_back_as_it_was_written() {
        let stored = StoredOffset {
            offset: i64::MAX,
            leader_epoch: -1,
            metadata: "m\u{e9}".into(),
            commit_time_ms: 12,
            expires_at_ms: Some(99),
        };
        assert_eq!(read_offset(&offset_value(&stored)), Ok(stored));
        let at = TopicPartition {
            topic: Arc::from("t"),
            partition: 3,
        };
        assert_eq!(read_key(&offset_key("g", &at)), Ok(Key::Offset("g".into(), at)));
    }

    #[test]
    fn records_cut_or_lengthened_or_of_another_version_are_refused() {
        let value = value();
        for end in 0..value.len() {
            assert!(read_group(&value[..end]).is_err(), "{end}");
        }
        let mut longer = value.clone();
        longer.push(0);
        assert_eq!(read_group(&longer).unwrap_err(), RestoreError::Length);
        let mut newer = value.clone();
        newer[0] = 2;
        assert_eq!(read_group(&newer).unwrap_err(), RestoreError::UnknownVersion(2));
        assert_eq!(read_key(&[1, 9, 0, 0]), Err(RestoreError::UnknownKind(9)));
        assert_eq!(read_key(&[]), Err(RestoreError::Length));
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 0xff;
            // Any answer will do, as long as there is one and it does not claim more than was there.
            if let Ok(stored) = read_group(&damaged) {
                assert!(stored.members.len() <= value.len());
            }
        }
    }
}
