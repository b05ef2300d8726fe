//! Positions: absolute byte counts of a stream, and how they map to terms (shared-memory spec 9.4).

use crate::id::TermId;

/// Term count, partitions, and position arithmetic of one log. Pure numbers; term ids wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionShape {
    /// log2 of the term length.
    pub bits: u32,
    /// The first term id of the stream.
    pub initial_term_id: TermId,
}

/// Number of terms (partitions) in a log.
pub const PARTITION_COUNT: usize = 3;

impl PositionShape {
    /// The shape of a log with this term length (a power of two) and initial term id.
    #[must_use]
    pub const fn new(term_length: i32, initial_term_id: TermId) -> Self {
        Self {
            bits: term_length.trailing_zeros(),
            initial_term_id,
        }
    }

    /// Term length in bytes.
    #[inline]
    #[must_use]
    pub const fn term_length(&self) -> i32 {
        1 << self.bits
    }

    /// The stream position of an offset inside a term.
    #[inline]
    #[must_use]
    pub const fn position(&self, term_id: TermId, term_offset: i32) -> i64 {
        let count = term_id.0.wrapping_sub(self.initial_term_id.0) as i64;
        (count << self.bits) + term_offset as i64
    }

    /// The offset inside its term of a position.
    #[inline]
    #[must_use]
    pub const fn offset(&self, position: i64) -> i32 {
        (position & ((1 << self.bits) - 1)) as i32
    }

    /// Terms since the initial one, wrapping.
    #[inline]
    #[must_use]
    pub const fn term_count(&self, term_id: TermId) -> i32 {
        term_id.0.wrapping_sub(self.initial_term_id.0)
    }

    /// The term id of a position.
    #[inline]
    #[must_use]
    pub const fn term_id(&self, position: i64) -> TermId {
        TermId(
            self.initial_term_id
                .0
                .wrapping_add((position >> self.bits) as i32),
        )
    }

    /// The partition index (0, 1 or 2) of a non-negative position.
    #[inline]
    #[must_use]
    pub const fn partition(&self, position: i64) -> usize {
        (((position >> self.bits) as u64) % PARTITION_COUNT as u64) as usize
    }

    /// The first position that the stream can never reach: term length x 2^31.
    #[inline]
    #[must_use]
    pub const fn max_possible_position(&self) -> i64 {
        (1i64 << self.bits) << 31
    }
}

/// The partition index (0, 1 or 2) of a term count; negative counts (hostile memory) map into range as well.
#[inline]
#[must_use]
pub const fn partition_of_term_count(term_count: i32) -> usize {
    (term_count as u32 % PARTITION_COUNT as u32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_maps_to_its_term_and_back() {
        let shape = PositionShape::new(65536, TermId(5));
        let position = shape.position(TermId(8), 1024);
        assert_eq!(position, 3 * 65536 + 1024);
        assert_eq!(shape.term_id(position), TermId(8));
        assert_eq!(shape.offset(position), 1024);
        assert_eq!(shape.partition(position), 0);
    }

    #[test]
    fn term_ids_wrap_past_the_largest_integer() {
        let shape = PositionShape::new(65536, TermId(i32::MAX));
        let next = TermId(i32::MIN);
        assert_eq!(shape.position(next, 32), 65536 + 32);
        assert_eq!(shape.term_id(65536), next);
        assert_eq!(shape.term_count(next), 1);
    }

    #[test]
    fn the_last_position_is_two_to_the_thirty_one_terms() {
        assert_eq!(
            PositionShape::new(65536, TermId(0)).max_possible_position(),
            65536i64 << 31
        );
    }
}
