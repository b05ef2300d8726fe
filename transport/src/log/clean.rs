//! Zeroing behind the consumers (shared-memory spec 13.9): everything at or beyond the tail must read as zero.
#![forbid(unsafe_code)]

use crate::bits::align_i64;
use crate::log::buffers::LogBuffers;
use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::log::words::{HeaderWord, Words};

/// One step of cleaning: zeroes from `clean_position` towards `target`, never past the end of the term that
/// `clean_position` lies in and never more than `length_max` bytes (rounded up to a frame). Returns the new clean
/// position, which equals the old one when there is nothing to do.
///
/// Positions come from counters that other processes can write: both are reduced to frame boundaries inside the log.
#[inline]
#[must_use]
pub fn clean<B: Words>(log: &LogBuffers<B>, clean_position: i64, target: i64, length_max: usize) -> i64 {
    let alignment = FRAME_ALIGNMENT as i64;
    let target = target & !(alignment - 1);
    if clean_position < 0 || clean_position % alignment != 0 || target <= clean_position {
        return clean_position;
    }
    let shape = log.shape();
    let offset = shape.offset(clean_position);
    let to_end_of_term = i64::from(shape.term_length() - offset);
    let budget = align_i64(length_max.clamp(FRAME_ALIGNMENT, 1 << 30) as i64, alignment);
    let length = (target - clean_position).min(to_end_of_term).min(budget);
    let slot = log.term(shape.partition(clean_position)).slot(offset as usize);
    slot.term()
        .buffer()
        .zero(offset as usize + 8, length as usize - 8);
    // SYNC log-clean: the first word goes last, so that a range whose first length is zero is zero as a whole; the
    // limit that lets publishers in (SYNC publisher-limit) is released after this.
    slot.store_release(HeaderWord::Length, 0);
    clean_position + length
}
