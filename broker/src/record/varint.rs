//! Variable-length integers of records (kafka gateway 3.3): zigzag, seven bits a byte, least significant first, the top bit says
//! that more follow. Padded encodings are taken, as bytes are stored as they came; bits beyond the type's width are not.
#![forbid(unsafe_code)]

/// Longest encoding of a 32-bit value, in bytes.
pub const LENGTH_MAX_32: usize = 5;
/// Longest encoding of a 64-bit value, in bytes.
pub const LENGTH_MAX_64: usize = 10;

/// Reads a 32-bit value off the front of `bytes`; `None`, and nothing is taken, if it is cut short or too wide.
#[inline]
#[must_use]
pub fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    let mut rest = *bytes;
    let raw = read_unsigned(&mut rest, LENGTH_MAX_32)?;
    let raw = u32::try_from(raw).ok()?;
    *bytes = rest;
    Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

/// Reads a 64-bit value off the front of `bytes`; `None`, and nothing is taken, if it is cut short or too wide.
#[inline]
#[must_use]
pub fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    let raw = read_unsigned(bytes, LENGTH_MAX_64)?;
    Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

#[inline]
fn read_unsigned(bytes: &mut &[u8], length_max: usize) -> Option<u64> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().take(length_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at;
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return None;
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            *bytes = bytes.get(at + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Appends a 32-bit value in its shortest encoding.
#[inline]
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    // The zigzag of a 32-bit value is the same number when it is worked out in 64 bits.
    write_i64(out, i64::from(value));
}

/// Appends a 64-bit value in its shortest encoding.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`write_i64`], or [`write_i32`] for a value of its range, appends: 1 to 10.
#[inline]
#[must_use]
pub const fn length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_encodings() {
        let table: [(i64, &[u8]); 11] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (300, &[0xd8, 0x04]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in table {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(read_i64(&mut &*out), Some(value));
            assert_eq!(length(value), bytes.len());
            if let Ok(value) = i32::try_from(value) {
                assert_eq!(read_i32(&mut &*out), Some(value));
            }
        }
    }

    #[test]
    fn cut_or_wide_values_are_refused_and_nothing_is_taken() {
        let cases: [&[u8]; 5] = [
            &[],
            &[0x80],
            &[0xff, 0xff, 0xff, 0xff],
            &[0x80; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0],
        ];
        for bytes in cases {
            let mut rest = bytes;
            assert_eq!(read_i32(&mut rest), None, "{bytes:x?}");
            assert_eq!(rest, bytes);
        }
        // The fifth byte of a 32-bit value has room for four bits, the tenth of a 64-bit value for one.
        let mut rest = &[0xff, 0xff, 0xff, 0xff, 0x10][..];
        assert_eq!((read_i32(&mut rest), rest.len()), (None, 5));
        let mut wide = [0xff; 10];
        wide[9] = 0x02;
        assert_eq!(read_i64(&mut &wide[..]), None);
        // Padding is legal.
        let mut rest = &[0x82, 0x80, 0x00, 9][..];
        assert_eq!(read_i32(&mut rest), Some(1));
        assert_eq!(rest, [9]);
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, small: i32) {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            write_i32(&mut out, small);
            prop_assert_eq!(out.len(), length(value) + length(i64::from(small)));
            let mut rest = &*out;
            prop_assert_eq!(read_i64(&mut rest), Some(value));
            prop_assert_eq!(read_i32(&mut rest), Some(small));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn arbitrary_bytes_take_what_they_say(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = &*bytes;
            if let Some(value) = read_i64(&mut rest) {
                let taken = bytes.len() - rest.len();
                prop_assert!(taken >= length(value) && taken <= LENGTH_MAX_64);
            } else {
                prop_assert_eq!(rest.len(), bytes.len());
            }
        }
    }
}
