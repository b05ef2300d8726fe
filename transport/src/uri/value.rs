//! Values of parameters and settings as text: booleans, sizes, durations, numbers (wire protocol, 8.1).

#![forbid(unsafe_code)]

use core::str::FromStr;

use thiserror::Error;

/// Why a text is no value of its type or not in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueFault {
    /// Neither `true` nor `false`.
    #[error("must be true or false")]
    NotBool,
    /// No decimal number.
    #[error("must be a decimal number")]
    NotNumber,
    /// No decimal number with an optional k, m or g.
    #[error("must be a number with an optional suffix k, m or g")]
    NotSize,
    /// No decimal number with an optional unit.
    #[error("must be a number with an optional unit ns, us, ms, s or m")]
    NotDuration,
    /// No `host:port`.
    #[error("must be host:port")]
    NotAddress,
    /// Not one of the words allowed.
    #[error("must be one of the known words")]
    NotKnownWord,
    /// Beyond what the number can hold, or beyond its limits.
    #[error("must be in the range {min} to {max}")]
    OutOfRange {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Not a power of two.
    #[error("must be a power of two")]
    NotPowerOfTwo,
    /// Not a multiple of the frame alignment.
    #[error("must be a multiple of 32")]
    NotAligned,
    /// init-term-id, term-id and term-offset come together.
    #[error("must be given together with init-term-id, term-id and term-offset")]
    IncompletePosition,
    /// The term id is 2^31 or more terms away from the initial one.
    #[error("must not be before init-term-id")]
    BeforeInitialTerm,
}

/// `true` or `false`, in lower case.
///
/// # Errors
/// [`ValueFault::NotBool`].
pub fn parse_bool(text: &str) -> Result<bool, ValueFault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ValueFault::NotBool),
    }
}

/// A size in bytes: decimal digits and optionally `k`, `m` or `g` (times 1024, 1024², 1024³) in either case.
///
/// # Errors
/// [`ValueFault::NotSize`], or [`ValueFault::OutOfRange`] above `i64::MAX`.
pub fn parse_size(text: &str) -> Result<i64, ValueFault> {
    let (digits, suffix) = split_digits(text).ok_or(ValueFault::NotSize)?;
    let scale = match suffix {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err(ValueFault::NotSize),
    };
    scaled(digits, scale)
}

/// A duration in nanoseconds: decimal digits and optionally `ns`, `us`, `ms`, `s` or `m` (minutes) in either case;
/// without a unit nanoseconds.
///
/// # Errors
/// [`ValueFault::NotDuration`], or [`ValueFault::OutOfRange`] above `i64::MAX`.
pub fn parse_duration_ns(text: &str) -> Result<i64, ValueFault> {
    let (digits, suffix) = split_digits(text).ok_or(ValueFault::NotDuration)?;
    let scale = match suffix.to_ascii_lowercase().as_str() {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return Err(ValueFault::NotDuration),
    };
    scaled(digits, scale)
}

/// A decimal number with an optional sign.
///
/// # Errors
/// [`ValueFault::NotNumber`], or [`ValueFault::OutOfRange`] beyond `i32`.
pub fn parse_i32(text: &str) -> Result<i32, ValueFault> {
    let value = parse_i64(text).map_err(|fault| match fault {
        ValueFault::OutOfRange { .. } => out_of_i32(),
        other => other,
    })?;
    i32::try_from(value).map_err(|_| out_of_i32())
}

/// A decimal number with an optional sign.
///
/// # Errors
/// [`ValueFault::NotNumber`], or [`ValueFault::OutOfRange`] beyond `i64`.
pub fn parse_i64(text: &str) -> Result<i64, ValueFault> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueFault::NotNumber);
    }
    i64::from_str(text).map_err(|_| ValueFault::OutOfRange {
        min: i64::MIN,
        max: i64::MAX,
    })
}

/// `value` if it lies in `min..=max`.
///
/// # Errors
/// [`ValueFault::OutOfRange`].
pub const fn check_range(value: i64, min: i64, max: i64) -> Result<i64, ValueFault> {
    if value < min || value > max {
        return Err(ValueFault::OutOfRange { min, max });
    }
    Ok(value)
}

/// A duration as the shortest text that [`parse_duration_ns`] reads back.
#[must_use]
pub fn print_duration_ns(nanos: i64) -> String {
    for (scale, unit) in [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")] {
        if nanos != 0 && nanos % scale == 0 {
            return format!("{}{unit}", nanos / scale);
        }
    }
    format!("{nanos}ns")
}

/// A size as the shortest text that [`parse_size`] reads back.
#[must_use]
pub fn print_size(bytes: i64) -> String {
    for (scale, unit) in [(1_i64 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")] {
        if bytes != 0 && bytes % scale == 0 {
            return format!("{}{unit}", bytes / scale);
        }
    }
    bytes.to_string()
}

fn out_of_i32() -> ValueFault {
    ValueFault::OutOfRange {
        min: i64::from(i32::MIN),
        max: i64::from(i32::MAX),
    }
}

fn split_digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn scaled(digits: &str, scale: i64) -> Result<i64, ValueFault> {
    i64::from_str(digits)
        .ok()
        .and_then(|value| value.checked_mul(scale))
        .ok_or(ValueFault::OutOfRange {
            min: 0,
            max: i64::MAX,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_BIG: ValueFault = ValueFault::OutOfRange {
        min: 0,
        max: i64::MAX,
    };

    #[test]
    fn sizes_take_binary_suffixes_of_either_case() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("16m"), Ok(16 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for text in ["", "k", "-1", "+1", "1kb", "1 k", "0x10", "1.5k", "٣"] {
            assert_eq!(parse_size(text), Err(ValueFault::NotSize), "{text}");
        }
        assert_eq!(parse_size("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(parse_size("9223372036854775808"), Err(TOO_BIG));
        assert_eq!(parse_size("8589934592g"), Err(TOO_BIG));
    }

    #[test]
    fn durations_take_units_and_are_nanoseconds_without() {
        assert_eq!(parse_duration_ns("10"), Ok(10));
        assert_eq!(parse_duration_ns("10ns"), Ok(10));
        assert_eq!(parse_duration_ns("10us"), Ok(10_000));
        assert_eq!(parse_duration_ns("10MS"), Ok(10_000_000));
        assert_eq!(parse_duration_ns("5s"), Ok(5_000_000_000));
        assert_eq!(parse_duration_ns("2m"), Ok(120_000_000_000));
        for text in ["", "s", "5 s", "5sec", "-5s", "5h"] {
            assert_eq!(parse_duration_ns(text), Err(ValueFault::NotDuration), "{text}");
        }
        assert_eq!(parse_duration_ns("9223372036854775807s"), Err(TOO_BIG));
    }

    #[test]
    fn numbers_are_decimal_and_in_range() {
        assert_eq!(parse_i32("-2147483648"), Ok(i32::MIN));
        assert_eq!(parse_i32("+7"), Ok(7));
        assert!(matches!(
            parse_i32("2147483648"),
            Err(ValueFault::OutOfRange {
                max: 2_147_483_647,
                ..
            })
        ));
        assert!(matches!(
            parse_i32("99999999999999999999"),
            Err(ValueFault::OutOfRange {
                max: 2_147_483_647,
                ..
            })
        ));
        for text in ["", "-", "+-1", "0x1", "1k", "abc", "1 "] {
            assert_eq!(parse_i64(text), Err(ValueFault::NotNumber), "{text}");
        }
    }

    #[test]
    fn booleans_are_two_words() {
        assert_eq!(parse_bool("true"), Ok(true));
        assert_eq!(parse_bool("false"), Ok(false));
        for text in ["", "TRUE", "1", "yes", "true "] {
            assert_eq!(parse_bool(text), Err(ValueFault::NotBool), "{text}");
        }
    }

    #[test]
    fn printed_values_read_back() {
        for value in [0, 1, 999, 1000, 1024, 65536, 1 << 30, 60_000_000_000, i64::MAX] {
            assert_eq!(parse_size(&print_size(value)), Ok(value));
            assert_eq!(parse_duration_ns(&print_duration_ns(value)), Ok(value));
        }
        assert_eq!(print_size(65536), "64k");
        assert_eq!(print_duration_ns(5_000_000_000), "5s");
    }
}
