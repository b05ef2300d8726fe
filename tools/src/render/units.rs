//! Sizes and durations as people write and read them.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Parses a number of bytes: digits with an optional `k`, `m` or `g` (powers of 1024).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1u64 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    parse_count(digits)
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size: write bytes, or a number with k, m or g"))
}

/// Parses a count: digits, which may be grouped with `_`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a count: write digits, such as 1000000 or 1_000_000");
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    text.replace('_', "").parse().map_err(|_| wrong())
}

/// Parses a count that must not be zero.
pub(crate) fn parse_positive(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("it must be at least 1".into()),
        count => Ok(count),
    }
}

/// Parses a duration: a whole number followed by `ns`, `us`, `ms`, `s` or `m`; a bare `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ns: u64 = match &text[digits.len()..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "" if digits == "0" => 1,
        "" => return Err(format!("`{text}` has no unit: write ns, us, ms, s or m after it")),
        _ => return Err(format!("`{text}` has an unknown unit: use ns, us, ms, s or m")),
    };
    parse_count(digits)
        .ok()
        .and_then(|number| number.checked_mul(unit_ns))
        .filter(|nanos| i64::try_from(*nanos).is_ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("`{text}` is not a duration: write a whole number and ns, us, ms, s or m"))
}

/// A number of bytes with a binary unit, such as `1.50 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two decimals are printed")]
pub(crate) fn format_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{value:.2} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.2} TiB")
}

/// A count grouped in thousands, such as `12 345 678`.
pub(crate) fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A duration rounded to what a reader cares about, such as `1m05s`, `12.3s` or `250ms`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else if seconds >= 1 {
        format!("{:.1}s", duration.as_secs_f64())
    } else if duration.as_millis() >= 1 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}us", duration.as_micros())
    }
}

/// A rate without its fraction, for the formats above.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative and saturate"
)]
pub(crate) fn whole(rate: f64) -> u64 {
    rate as u64
}

/// How often something happened per second; zero over no time.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is read by people, 53 bits are plenty"
)]
pub(crate) fn per_second(count: u64, over: Duration) -> f64 {
    let seconds = over.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("1408"), Ok(1408));
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert_eq!(parse_size("3M"), Ok(3 << 20));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        for bad in ["", "k", "-1", "+1", "1.5k", "1kb", "99999999999g", "_1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("7ns"), Ok(Duration::from_nanos(7)));
        assert_eq!(parse_duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(parse_duration("7ms"), Ok(Duration::from_millis(7)));
        assert_eq!(parse_duration("7s"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_duration("7m"), Ok(Duration::from_secs(420)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "-1s", "1h", "1 s", "1.5s", "99999999999999m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_may_be_grouped_and_positive_ones_are_not_zero() {
        assert_eq!(parse_count("1_000_000"), Ok(1_000_000));
        assert_eq!(parse_positive("1"), Ok(1));
        assert!(parse_positive("0").is_err());
        assert!(parse_count("ten").is_err());
    }

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(format_bytes(512), "512 B");
        assert_eq!(format_bytes(1536), "1.50 KiB");
        assert_eq!(format_count(12_345_678), "12 345 678");
        assert_eq!(format_count(999), "999");
        assert_eq!(format_duration(Duration::from_secs(65)), "1m05s");
        assert_eq!(format_duration(Duration::from_millis(250)), "250ms");
        assert!((per_second(10, Duration::from_secs(2)) - 5.0).abs() < 1e-9);
        assert!(per_second(10, Duration::ZERO).abs() < 1e-9);
    }
}
