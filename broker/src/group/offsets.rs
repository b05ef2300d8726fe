//! The committed offsets of one group, and when they are no longer kept (kafka gateway 5.3).
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::request::FetchedOffset;

/// A partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredOffset {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
    /// Unix milliseconds.
    pub(super) commit_time_ms: i64,
    /// Unix milliseconds, if the commit asked for a retention of its own.
    pub(super) expires_at_ms: Option<i64>,
}

/// From when on the retention of an offset is counted.
pub(super) enum Expiry<'a> {
    /// Nothing expires.
    Never,
    /// From this time (Unix milliseconds), or from the commit where that is later.
    Since(i64),
    /// From the commit.
    SinceCommit,
    /// From the commit, for topics not named here.
    Unsubscribed(&'a BTreeSet<String>),
}

/// Offsets by partition. Only what is stored for certain is in here.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetTable {
    offsets: BTreeMap<TopicPartition, StoredOffset>,
    bytes: usize,
}

impl OffsetTable {
    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn contains(&self, at: &TopicPartition) -> bool {
        self.offsets.contains_key(at)
    }

    /// Bytes held, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn store(&mut self, at: TopicPartition, stored: StoredOffset) {
        self.remove(&at);
        self.bytes += offset_bytes(&at, &stored);
        self.offsets.insert(at, stored);
    }

    pub(super) fn remove(&mut self, at: &TopicPartition) {
        if let Some(old) = self.offsets.remove(at) {
            self.bytes -= offset_bytes(at, &old);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &TopicPartition> {
        self.offsets.keys()
    }

    /// Everything, sorted.
    pub(super) fn fetch_all(&self) -> Vec<FetchedOffset> {
        self.offsets
            .iter()
            .map(|(at, stored)| fetched(&at.topic, at.partition, Some(stored)))
            .collect()
    }

    pub(super) fn fetch(&self, topics: &[(String, Vec<i32>)]) -> Vec<FetchedOffset> {
        let mut out = Vec::new();
        for (topic, partitions) in topics {
            let mut at = TopicPartition {
                topic: Arc::from(topic.as_str()),
                partition: 0,
            };
            for &partition in partitions {
                at.partition = partition;
                out.push(fetched(topic, partition, self.offsets.get(&at)));
            }
        }
        out
    }

    /// The partitions whose retention is over at `now_ms`, at most `limit`.
    pub(super) fn expired(
        &self,
        expiry: &Expiry<'_>,
        now_ms: i64,
        retention_ms: i64,
        limit: usize,
    ) -> Vec<TopicPartition> {
        let is_expired = |at: &TopicPartition, stored: &StoredOffset| {
            let since = match expiry {
                Expiry::Never => return false,
                Expiry::Since(since) => stored.commit_time_ms.max(*since),
                Expiry::SinceCommit => stored.commit_time_ms,
                Expiry::Unsubscribed(topics) if topics.contains(&*at.topic) => return false,
                Expiry::Unsubscribed(_) => stored.commit_time_ms,
            };
            let end = stored
                .expires_at_ms
                .unwrap_or_else(|| since.saturating_add(retention_ms));
            now_ms >= end
        };
        let all = self.offsets.iter();
        all.filter(|(at, stored)| is_expired(at, stored))
            .take(limit)
            .map(|(at, _)| at.clone())
            .collect()
    }
}

/// What is answered for one partition; nothing stored is offset -1, not an error.
pub(super) fn fetched(topic: &str, partition: i32, stored: Option<&StoredOffset>) -> FetchedOffset {
    FetchedOffset {
        topic: topic.to_owned(),
        partition,
        offset: stored.map_or(-1, |it| it.offset),
        leader_epoch: stored.map_or(-1, |it| it.leader_epoch),
        metadata: stored.map_or_else(String::new, |it| it.metadata.clone()),
    }
}

/// What one offset is charged: its strings and, roughly, the structures around them.
pub(super) fn offset_bytes(at: &TopicPartition, stored: &StoredOffset) -> usize {
    128 + at.topic.len() + stored.metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: Arc::from(topic),
            partition,
        }
    }

    fn stored(offset: i64, commit_time_ms: i64, expires_at_ms: Option<i64>) -> StoredOffset {
        StoredOffset {
            offset,
            leader_epoch: 1,
            metadata: "x".into(),
            commit_time_ms,
            expires_at_ms,
        }
    }

    fn table() -> OffsetTable {
        let mut table = OffsetTable::default();
        table.store(at("a", 0), stored(5, 100, None));
        table.store(at("b", 0), stored(6, 300, None));
        table.store(at("c", 0), stored(7, 100, Some(150)));
        table
    }

    fn names(expired: &[TopicPartition]) -> Vec<&str> {
        expired.iter().map(|it| &*it.topic).collect()
    }

    #[test]
    fn retention_counts_from_what_the_group_is() {
        let table = table();
        let expired = |expiry: &Expiry<'_>, now| table.expired(expiry, now, 100, 10);
        assert!(expired(&Expiry::Never, i64::MAX).is_empty());
        assert_eq!(names(&expired(&Expiry::SinceCommit, 199)), ["c"]);
        assert_eq!(names(&expired(&Expiry::SinceCommit, 200)), ["a", "c"]);
        assert_eq!(names(&expired(&Expiry::Since(250), 349)), ["c"]);
        assert_eq!(names(&expired(&Expiry::Since(250), 350)), ["a", "c"]);
        assert_eq!(names(&expired(&Expiry::Since(250), 400)), ["a", "b", "c"]);
        let subscribed = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
        assert_eq!(names(&expired(&Expiry::Unsubscribed(&subscribed), 400)), ["b"]);
        assert_eq!(table.expired(&Expiry::SinceCommit, 900, 100, 2).len(), 2);
    }

    #[test]
    fn bytes_follow_what_is_stored() {
        let mut table = table();
        table.store(at("a", 0), stored(9, 1, None));
        assert_eq!(table.bytes(), 3 * (128 + 1 + 1));
        for topic in ["a", "b", "c", "d"] {
            table.remove(&at(topic, 0));
        }
        assert_eq!(table.bytes(), 0);
        assert!(table.is_empty());
    }
}
