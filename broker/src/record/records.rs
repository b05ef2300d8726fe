//! The records of an uncompressed batch, one after the other (kafka gateway 3.3).
//!
//! ```text
//!   length | attributes | timestamp delta | offset delta | key length | key | value length | value | header count | headers
//!   varint | i8, unused | varlong         | varint       | varint     |     | varint       |       | varint       |
//!   header: key length varint | key | value length varint | value
//! ```
//! A length of -1 is a null; a record must end exactly where its length says.
#![forbid(unsafe_code)]

use super::varint;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A number is cut short or too wide.
    #[error("a number of the record is cut short or too wide")]
    Number,
    /// A length is below what its field allows, or beyond the bytes that are left.
    #[error("a field of {length} bytes does not fit into the {available} that are left")]
    Length {
        /// What the record says.
        length: i32,
        /// Bytes left.
        available: usize,
    },
    /// Negative, or more headers than bytes left.
    #[error("{count} headers do not fit into {available} bytes")]
    HeaderCount {
        /// What the record says.
        count: i32,
        /// Bytes left.
        available: usize,
    },
    /// The record goes on behind its last field.
    #[error("{length} bytes are left in the record behind its last field")]
    TrailingInRecord {
        /// How many.
        length: usize,
    },
    /// Bytes are left behind the last record.
    #[error("{length} bytes are left behind the last record")]
    TrailingInBatch {
        /// How many.
        length: usize,
    },
}

/// One record. Its offset is the batch's base offset and [`offset_delta`](Self::offset_delta), its timestamp likewise, but for
/// batches of log append time, where the max timestamp holds for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Less the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Less the batch's base offset.
    pub offset_delta: i32,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; without it the record is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in their order.
    pub headers: RecordHeaders<'a>,
}

/// The headers of a record, checked. Keys should be UTF-8, which nobody holds them to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeaders<'a> {
    bytes: &'a [u8],
    count: i32,
}

impl RecordHeaders<'_> {
    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return None;
        }
        self.count -= 1;
        // Both were read before, so they are there.
        let key = read_field(&mut self.bytes).ok().flatten()?;
        let value = read_field(&mut self.bytes).ok()?;
        Some((key, value))
    }
}

/// Records of a batch, each checked as it is reached: as many as the header counts, then one error if bytes are left. Ends after
/// the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    left: i32,
    done: bool,
}

impl<'a> Records<'a> {
    /// `bytes` is everything behind the header; `count` is the header's and is not believed.
    pub(crate) const fn new(bytes: &'a [u8], count: i32) -> Self {
        Self {
            bytes,
            left: count,
            done: false,
        }
    }

    fn next_or_end(&mut self) -> Result<Option<Record<'a>>, RecordError> {
        if self.left > 0 {
            self.left -= 1;
            return read_record(&mut self.bytes).map(Some);
        }
        if self.bytes.is_empty() {
            Ok(None)
        } else {
            Err(RecordError::TrailingInBatch {
                length: self.bytes.len(),
            })
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_or_end().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

fn read_record<'a>(bytes: &mut &'a [u8]) -> Result<Record<'a>, RecordError> {
    let length = varint::read_i32(bytes).ok_or(RecordError::Number)?;
    let mut body = take(bytes, length)?;
    let (_attributes, rest) = body.split_first().ok_or(RecordError::Number)?;
    body = rest;
    let timestamp_delta = varint::read_i64(&mut body).ok_or(RecordError::Number)?;
    let offset_delta = varint::read_i32(&mut body).ok_or(RecordError::Number)?;
    let key = read_field(&mut body)?;
    let value = read_field(&mut body)?;
    let count = varint::read_i32(&mut body).ok_or(RecordError::Number)?;
    if !usize::try_from(count).is_ok_and(|count| count <= body.len()) {
        return Err(RecordError::HeaderCount {
            count,
            available: body.len(),
        });
    }
    let headers = RecordHeaders { bytes: body, count };
    for _ in 0..count {
        let available = body.len();
        if read_field(&mut body)?.is_none() {
            return Err(RecordError::Length {
                length: -1,
                available,
            });
        }
        read_field(&mut body)?;
    }
    if !body.is_empty() {
        return Err(RecordError::TrailingInRecord { length: body.len() });
    }
    Ok(Record {
        timestamp_delta,
        offset_delta,
        key,
        value,
        headers,
    })
}

/// A length and as many bytes; -1 for none at all.
fn read_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    match varint::read_i32(bytes).ok_or(RecordError::Number)? {
        -1 => Ok(None),
        length => take(bytes, length).map(Some),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: i32) -> Result<&'a [u8], RecordError> {
    let error = RecordError::Length {
        length,
        available: bytes.len(),
    };
    let length = usize::try_from(length).map_err(|_| error)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(error)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::builder::arbitrary;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8], count: i32) -> Result<Vec<Record<'_>>, RecordError> {
        Records::new(bytes, count).collect()
    }

    #[test]
    fn golden_record() {
        // Written out by hand after kafka gateway 3.3: a null key, an empty value, the headers "a" = null and "" = "x".
        let bytes = [
            22, // length 11
            0,  // attributes
            5,  // timestamp delta -3
            4,  // offset delta 2
            1,  // null key
            0,  // empty value
            4,  // two headers
            2, b'a', 1, // "a", null
            0, 2, b'x', // "", "x"
        ];
        // 12 bytes stand behind the length, so 11 is one too few: the last header is cut.
        assert_eq!(
            read_all(&bytes, 1),
            Err(RecordError::Length {
                length: 1,
                available: 0
            })
        );
        let mut good = bytes;
        good[0] = 24;
        let records = read_all(&good, 1).unwrap();
        let record = records[0];
        assert_eq!((record.timestamp_delta, record.offset_delta), (-3, 2));
        assert_eq!((record.key, record.value), (None, Some(&b""[..])));
        assert_eq!(record.headers.len(), 2);
        assert_eq!(
            record.headers.collect::<Vec<_>>(),
            [(&b"a"[..], None), (&b""[..], Some(&b"x"[..]))]
        );
    }

    #[test]
    fn each_lie_has_its_error() {
        // A good record of 6 bytes, without key, value and headers; then each field is made to lie.
        let good = [12, 0, 0, 0, 1, 1, 0];
        assert_eq!(read_all(&good, 1).unwrap().len(), 1);
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            read_all(&bytes, 1).unwrap_err()
        };
        assert_eq!(
            with(0, 14),
            RecordError::Length {
                length: 7,
                available: 6
            }
        );
        assert_eq!(
            with(0, 1),
            RecordError::Length {
                length: -1,
                available: 6
            }
        );
        assert_eq!(with(0, 0), RecordError::Number);
        assert_eq!(
            with(4, 3),
            RecordError::Length {
                length: -2,
                available: 2
            }
        );
        assert_eq!(
            with(4, 6),
            RecordError::Length {
                length: 3,
                available: 2
            }
        );
        assert_eq!(with(5, 0x80), RecordError::Number);
        assert_eq!(
            with(6, 2),
            RecordError::HeaderCount {
                count: 1,
                available: 0
            }
        );
        assert_eq!(
            with(6, 1),
            RecordError::HeaderCount {
                count: -1,
                available: 0
            }
        );
        assert_eq!(
            read_all(&[14, 0, 0, 0, 1, 1, 0, 9], 1),
            Err(RecordError::TrailingInRecord { length: 1 })
        );
        assert_eq!(
            read_all(&[&good[..], &[0]].concat(), 1),
            Err(RecordError::TrailingInBatch { length: 1 })
        );
        assert_eq!(read_all(&good, 2), Err(RecordError::Number));
        assert_eq!(
            read_all(&good, 0),
            Err(RecordError::TrailingInBatch { length: 7 })
        );
        assert_eq!(
            read_all(&good, -5),
            Err(RecordError::TrailingInBatch { length: 7 })
        );
        assert_eq!(read_all(&[], i32::MAX), Err(RecordError::Number));
        // A header without a key.
        assert_eq!(
            read_all(&[16, 0, 0, 0, 1, 1, 2, 1, 1], 1),
            Err(RecordError::Length {
                length: -1,
                available: 2
            })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic_and_end(bytes in prop::collection::vec(any::<u8>(), 0..100), count: i32) {
            let mut records = Records::new(&bytes, count);
            let mut seen = 0;
            for record in records.by_ref().flatten() {
                seen += 1;
                prop_assert!(record.headers.len() * 2 <= bytes.len());
                prop_assert_eq!(record.headers.count(), record.headers.len());
            }
            // Seven bytes are the least that a record takes.
            prop_assert!(seen * 7 <= bytes.len());
            prop_assert!(records.next().is_none());
        }

        #[test]
        fn changed_records_never_panic((records, bytes) in arbitrary::batch(), at: prop::sample::Index, byte: u8) {
            let mut body = bytes[61..].to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            let count = i32::try_from(records.len()).unwrap();
            let good = Records::new(&body, count).take_while(Result::is_ok).count();
            prop_assert!(good <= records.len());
        }
    }
}
