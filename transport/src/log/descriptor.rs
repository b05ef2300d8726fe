//! Sizes and limits of a log, and what can be wrong with one (shared-memory spec 9.1, 9.4). Pure numbers.
#![forbid(unsafe_code)]

use crate::bits::{align, is_power_of_two};
use crate::position::PARTITION_COUNT;

/// Frames start at multiples of this, bytes.
pub const FRAME_ALIGNMENT: usize = 32;
/// Length of the header of a data or padding frame, bytes.
pub const FRAME_HEADER_LENGTH: usize = 32;
/// Length of the metadata at the end of a log, bytes.
pub const METADATA_LENGTH: usize = 4096;
/// Shortest term, bytes.
pub const TERM_MIN_LENGTH: i32 = 64 * 1024;
/// Longest term, bytes.
pub const TERM_MAX_LENGTH: i32 = 1024 * 1024 * 1024;
/// Smallest page size, bytes.
pub const PAGE_MIN: i32 = 4096;
/// Largest page size, bytes.
pub const PAGE_MAX: i32 = 1024 * 1024 * 1024;
/// An MTU is greater than this, bytes: a frame carries at least something.
pub const MTU_ABOVE: i32 = FRAME_HEADER_LENGTH as i32;
/// Largest MTU, bytes.
pub const MTU_MAX: i32 = 65_504;
/// No message is longer than this whatever the term length, bytes.
pub const MESSAGE_MAX_LENGTH: usize = 16 * 1024 * 1024;

const _: () = assert!(MTU_MAX < TERM_MIN_LENGTH);
const _: () = assert!((MTU_MAX as usize).is_multiple_of(FRAME_ALIGNMENT));

/// What kind of stream a log carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogType {
    /// A publication with any number of writers.
    Concurrent = 0,
    /// A publication with one writer.
    Exclusive = 1,
    /// A stream received from the network.
    Image = 2,
}

impl LogType {
    /// The type with this raw value, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<LogType> {
        match raw {
            0 => Some(LogType::Concurrent),
            1 => Some(LogType::Exclusive),
            2 => Some(LogType::Image),
            _ => None,
        }
    }
}

/// Why a log can not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Not a power of two within the limits.
    #[error("term length {0} is not a power of two from 64 KiB to 1 GiB")]
    TermLength(i64),
    /// Not a power of two within the limits.
    #[error("page size {0} is not a power of two from 4 KiB to 1 GiB")]
    PageSize(i64),
    /// Not a multiple of 32 within the limits.
    #[error("MTU {0} is not a multiple of 32 above 32 and up to 65504")]
    Mtu(i64),
    /// The bytes end before the terms and the metadata do.
    #[error("a log of {actual} bytes is too short, {needed} are needed")]
    TooShort {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// The file length is no multiple of 8, so that the metadata can not be where it should.
    #[error("a log of {0} bytes has no aligned metadata")]
    Misaligned(u64),
    /// The metadata names another length of the frame header than the protocol has.
    #[error("default frame header length is {0}, not 32")]
    HeaderLength(i32),
    /// The starting position does not lie in the log.
    #[error("start term id {term_id} and offset {term_offset} are no position of the log")]
    StartPosition {
        /// The starting term id.
        term_id: i32,
        /// The starting term offset.
        term_offset: i32,
    },
}

/// File length of a log, bytes: three terms and the metadata, rounded up to the page size (spec 9.1). The arguments
/// have passed [`check_term_length`] and [`check_page_size`].
#[must_use]
pub const fn log_length(term_length: i32, page_size: i32) -> u64 {
    align(
        PARTITION_COUNT * term_length as usize + METADATA_LENGTH,
        page_size as usize,
    ) as u64
}

/// Longest message of a log, bytes: an eighth of the term, at most 16 MiB (spec 9.4).
#[must_use]
pub const fn max_message_length(term_length: i32) -> usize {
    let eighth = (term_length / 8) as usize;
    if eighth < MESSAGE_MAX_LENGTH {
        eighth
    } else {
        MESSAGE_MAX_LENGTH
    }
}

/// Bytes that one frame with `payload` bytes of payload occupies.
#[inline(always)]
pub(crate) const fn frame_occupied(payload: usize) -> usize {
    align(payload + FRAME_HEADER_LENGTH, FRAME_ALIGNMENT)
}

/// Bytes that a message of `length` bytes occupies when it is cut into frames of at most `max_payload` (spec 9.4);
/// `max_payload` is a multiple of 32 above 0. A message that fits one frame occupies that frame.
#[inline]
#[must_use]
pub const fn fragmented_length(length: usize, max_payload: usize) -> usize {
    if length <= max_payload {
        return frame_occupied(length);
    }
    let whole = (length / max_payload) * (max_payload + FRAME_HEADER_LENGTH);
    let rest = length % max_payload;
    if rest > 0 {
        whole + frame_occupied(rest)
    } else {
        whole
    }
}

/// Checks a term length, bytes.
///
/// # Errors
/// [`LogError::TermLength`] unless it is a power of two from 64 KiB to 1 GiB.
pub const fn check_term_length(term_length: i32) -> Result<(), LogError> {
    if is_power_of_two(term_length as i64) && term_length >= TERM_MIN_LENGTH && term_length <= TERM_MAX_LENGTH
    {
        Ok(())
    } else {
        Err(LogError::TermLength(term_length as i64))
    }
}

/// Checks a page size, bytes.
///
/// # Errors
/// [`LogError::PageSize`] unless it is a power of two from 4 KiB to 1 GiB.
pub const fn check_page_size(page_size: i32) -> Result<(), LogError> {
    if is_power_of_two(page_size as i64) && page_size >= PAGE_MIN && page_size <= PAGE_MAX {
        Ok(())
    } else {
        Err(LogError::PageSize(page_size as i64))
    }
}

/// Checks an MTU, bytes.
///
/// # Errors
/// [`LogError::Mtu`] unless it is a multiple of 32 above 32 and up to 65504.
pub const fn check_mtu(mtu_length: i32) -> Result<(), LogError> {
    if mtu_length > MTU_ABOVE && mtu_length <= MTU_MAX && mtu_length % FRAME_ALIGNMENT as i32 == 0 {
        Ok(())
    } else {
        Err(LogError::Mtu(mtu_length as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_three_terms_and_the_metadata_rounded_to_the_page() {
        assert_eq!(log_length(65536, 4096), 3 * 65536 + 4096);
        assert_eq!(log_length(65536, 2 * 1024 * 1024), 2 * 1024 * 1024);
        assert_eq!(log_length(TERM_MAX_LENGTH, 4096), 3 * 1024 * 1024 * 1024 + 4096);
    }

    #[test]
    fn a_message_is_at_most_an_eighth_of_the_term_and_sixteen_mebibytes() {
        assert_eq!(max_message_length(65536), 8192);
        assert_eq!(max_message_length(TERM_MAX_LENGTH), MESSAGE_MAX_LENGTH);
    }

    #[test]
    fn the_occupied_length_counts_a_header_per_frame() {
        assert_eq!(fragmented_length(0, 1376), 32);
        assert_eq!(fragmented_length(1376, 1376), 1408);
        assert_eq!(fragmented_length(1377, 1376), 1408 + 64);
        assert_eq!(fragmented_length(2 * 1376, 1376), 2 * 1408);
        assert_eq!(
            fragmented_length(8192, 1376),
            5 * 1408 + align(8192 - 5 * 1376 + 32, 32)
        );
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        assert_eq!(check_term_length(0), Err(LogError::TermLength(0)));
        assert_eq!(
            check_term_length(i32::MIN),
            Err(LogError::TermLength(i64::from(i32::MIN)))
        );
        assert!(check_term_length(32768).is_err());
        assert!(check_term_length(65536 + 4096).is_err());
        assert!(check_term_length(65536).is_ok());
        assert!(check_term_length(TERM_MAX_LENGTH).is_ok());
        assert!(check_page_size(2048).is_err());
        assert!(check_page_size(4096).is_ok());
        assert!(check_mtu(32).is_err());
        assert!(check_mtu(64).is_ok());
        assert!(check_mtu(100).is_err());
        assert!(check_mtu(65504).is_ok());
        assert!(check_mtu(65536).is_err());
    }
}
