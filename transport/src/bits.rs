//! Alignment arithmetic.

/// `value` rounded up to a multiple of `alignment`, which is a power of two.
#[inline]
#[must_use]
pub const fn align(value: usize, alignment: usize) -> usize {
    (value + (alignment - 1)) & !(alignment - 1)
}

/// `value` rounded up to a multiple of `alignment`, which is a power of two; for non-negative values far from the
/// end of the range.
#[inline]
#[must_use]
pub const fn align_i32(value: i32, alignment: i32) -> i32 {
    value.wrapping_add(alignment - 1) & !(alignment - 1)
}

/// `value` rounded up to a multiple of `alignment`, which is a power of two.
#[inline]
#[must_use]
pub const fn align_i64(value: i64, alignment: i64) -> i64 {
    value.wrapping_add(alignment - 1) & !(alignment - 1)
}

/// Whether `value` is a power of two (0 is not).
#[inline]
#[must_use]
pub const fn is_power_of_two(value: i64) -> bool {
    value > 0 && (value & (value - 1)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn align_rounds_up_to_the_next_multiple() {
        assert_eq!(align(0, 32), 0);
        assert_eq!(align(1, 32), 32);
        assert_eq!(align(32, 32), 32);
        assert_eq!(align_i32(33, 32), 64);
        assert_eq!(align_i64(33, 8), 40);
    }

    #[test]
    fn zero_and_negative_values_are_no_powers_of_two() {
        assert!(!is_power_of_two(0));
        assert!(!is_power_of_two(-8));
        assert!(!is_power_of_two(6));
        assert!(is_power_of_two(64));
    }
}
