//! Identifiers and names. Each number is a newtype, so that two neighbouring integers can not be swapped by mistake; each name
//! is checked once, when it comes in, and then known to be good. Nothing here depends on anything else of the broker.
#![forbid(unsafe_code)]

use core::borrow::Borrow;
use core::fmt;
use std::sync::Arc;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            /// The raw value as it stands in files and on the wire.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$raw> for $name {
            #[inline]
            fn from(raw: $raw) -> Self {
                Self(raw)
            }
        }
    };
}

id!(
    /// The place of a record in its partition: 0 for the first, one more for each. Negative only where a protocol says so.
    Offset, i64
);
id!(
    /// The leader epoch of a partition: rises with every change of the leader. -1 means "not known".
    Epoch, i32
);
id!(
    /// Names an idempotent or transactional producer; handed out by the broker. -1 means "none".
    ProducerId, i64
);
id!(
    /// Tells apart the lives of one producer id; the higher one fences the lower. -1 means "none".
    ProducerEpoch, i16
);
id!(
    /// Index of a partition in its topic, from 0.
    PartitionId, i32
);

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` further on; `None` past the end of the number range.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, count: i64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl Epoch {
    /// "Not known": what clients put into batches.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// "No producer id": the batch is not idempotent.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// "No epoch": goes with [`ProducerId::NONE`].
    pub const NONE: Self = Self(-1);
}

/// Why a topic name was refused (kafka gateway 2.4); the door answers INVALID_TOPIC_EXCEPTION (17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters at all.
    #[error("the topic name is empty")]
    Empty,
    /// More than [`TopicName::LENGTH_MAX`] bytes.
    #[error("the topic name has {length} bytes, {} are allowed", TopicName::LENGTH_MAX)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// `.` or `..`, which would name a directory.
    #[error("the topic name may be neither '.' nor '..'")]
    Dots,
    /// A character that is no ASCII letter or digit, dot, underscore or dash.
    #[error("the topic name has an illegal character at byte {at}")]
    IllegalCharacter {
        /// Offset of its first byte.
        at: usize,
    },
}

/// The name of a topic: 1 to 249 ASCII letters, digits, dots, underscores, dashes; neither `.` nor `..` (kafka gateway 2.4).
/// It is therefore good as a part of a file name. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Longest name, in bytes.
    pub const LENGTH_MAX: usize = 249;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`TopicNameError`] for the first rule that the name breaks.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if name.len() > Self::LENGTH_MAX {
            return Err(TopicNameError::TooLong { length: name.len() });
        }
        if name == "." || name == ".." {
            return Err(TopicNameError::Dots);
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match name.bytes().position(|byte| !legal(byte)) {
            Some(at) => Err(TopicNameError::IllegalCharacter { at }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a group id was refused; the door answers INVALID_GROUP_ID (24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupIdError {
    /// No characters at all (kafka gateway 5.1).
    #[error("the group id is empty")]
    Empty,
    /// More than [`GroupId::LENGTH_MAX`] bytes.
    #[error("the group id has {length} bytes, {} are allowed", GroupId::LENGTH_MAX)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// The id of a consumer group: any text but the empty one, chosen by clients. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

impl GroupId {
    /// Longest id, in bytes: what a string of the Kafka protocol can hold, as Kafka sets no smaller bound.
    pub const LENGTH_MAX: usize = i16::MAX as usize;

    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`GroupIdError`] if it is empty or too long.
    pub fn new(id: &str) -> Result<Self, GroupIdError> {
        if id.is_empty() {
            return Err(GroupIdError::Empty);
        }
        if id.len() > Self::LENGTH_MAX {
            return Err(GroupIdError::TooLong { length: id.len() });
        }
        Ok(Self(id.into()))
    }

    /// The id.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($name:ident, $error:ty) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        // Maps keyed by the name can be asked with a plain `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }
    };
}

text!(TopicName, TopicNameError);
text!(GroupId, GroupIdError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_file_name_safe() {
        for good in [
            "a",
            "orders",
            "Orders.v2_x-1",
            "...",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new("."), Err(TopicNameError::Dots));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::Dots));
        assert_eq!(
            TopicName::new(&"x".repeat(250)),
            Err(TopicNameError::TooLong { length: 250 })
        );
        for (bad, at) in [
            ("a/b", 1),
            ("../x", 2),
            ("a b", 1),
            ("\0", 0),
            ("caf\u{e9}", 3),
            ("a\\b", 1),
        ] {
            assert_eq!(
                TopicName::new(bad),
                Err(TopicNameError::IllegalCharacter { at }),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn group_ids_are_any_text_but_none() {
        assert_eq!(GroupId::new("g/\u{e9} 1").unwrap().as_str(), "g/\u{e9} 1");
        assert_eq!(GroupId::new(""), Err(GroupIdError::Empty));
        assert!(GroupId::new(&"x".repeat(32_767)).is_ok());
        assert_eq!(
            GroupId::new(&"x".repeat(32_768)),
            Err(GroupIdError::TooLong { length: 32_768 })
        );
    }

    #[test]
    fn a_map_of_names_is_asked_with_plain_text() {
        let mut map = std::collections::BTreeMap::new();
        map.insert(TopicName::new("orders").unwrap(), 3);
        assert_eq!(map.get("orders"), Some(&3));
        assert_eq!(map.get("order"), None);
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert_eq!(Offset(3).checked_add(2), Some(Offset(5)));
        assert_eq!(Offset(i64::MAX).checked_add(1), None);
        assert_eq!(format!("{:?} {}", Offset(7), Epoch::NONE), "Offset(7) -1");
    }
}
