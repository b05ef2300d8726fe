//! The record that ring and broadcast share (shared-memory spec 3.2 and 4.1).
//!
//! ```text
//!  0        4        8
//!  | length | type   | payload ...            | up to the next 8-byte boundary
//! ```
//!
//! Length counts header and payload. In the ring it is positive once committed, negative while claimed, 0 before
//! that. Length and type make one 8-byte word, so that both are read and changed together.
#![forbid(unsafe_code)]

use crate::bits::align;

/// Length of a record header, bytes.
pub const HEADER_LENGTH: usize = 8;
/// Records start at multiples of this, bytes.
pub const ALIGNMENT: usize = 8;
/// Type id of a record that only fills space.
pub const PADDING_TYPE_ID: i32 = -1;
/// The least capacity that ring and broadcast accept, bytes.
pub const CAPACITY_MIN: usize = 32;
/// The greatest capacity that ring and broadcast accept, bytes: lengths of records are `i32`.
pub const CAPACITY_MAX: usize = 1 << 30;

const _: () = assert!(HEADER_LENGTH.is_multiple_of(ALIGNMENT));

/// The header word of a record.
#[inline]
#[must_use]
pub const fn header(length: i32, type_id: i32) -> i64 {
    ((type_id as i64) << 32) | (length as u32 as i64)
}

/// The length in a header word, bytes; negative while claimed.
#[inline]
#[must_use]
pub const fn length_of(header: i64) -> i32 {
    header as i32
}

/// The type id in a header word.
#[inline]
#[must_use]
pub const fn type_of(header: i64) -> i32 {
    (header >> 32) as i32
}

/// Bytes that a record of this length (header and payload) occupies.
#[inline]
#[must_use]
pub const fn occupied(length: usize) -> usize {
    align(length, ALIGNMENT)
}

/// Capacity of a region of `length` bytes with a trailer of `trailer` bytes, if it can be one.
pub(super) const fn capacity_of(length: usize, trailer: usize) -> Option<usize> {
    if length < trailer + CAPACITY_MIN {
        return None;
    }
    let capacity = length - trailer;
    if capacity > CAPACITY_MAX || !capacity.is_power_of_two() {
        return None;
    }
    Some(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_word_holds_length_and_type() {
        for (length, type_id) in [(8, 1), (-24, 0x0F01), (i32::MIN, i32::MAX), (i32::MAX, -1)] {
            let word = header(length, type_id);
            assert_eq!(length_of(word), length);
            assert_eq!(type_of(word), type_id);
        }
        assert_eq!(header(24, 4).to_le_bytes(), [24, 0, 0, 0, 4, 0, 0, 0]);
    }

    #[test]
    fn only_a_power_of_two_plus_trailer_is_a_ring() {
        assert_eq!(capacity_of(1024 + 768, 768), Some(1024));
        assert_eq!(capacity_of(1000 + 768, 768), None);
        assert_eq!(capacity_of(768, 768), None);
        assert_eq!(capacity_of(16 + 768, 768), None);
        assert_eq!(capacity_of(0, 768), None);
    }
}
