//! Epoch milliseconds as UTC dates.

#![forbid(unsafe_code)]

use fulmar::time::{EpochMs, Utc};

/// `epoch_ms` as `YYYY-MM-DDTHH:MM:SS.mmmZ` in the proleptic Gregorian calendar.
#[must_use]
pub fn format_utc(epoch_ms: i64) -> String {
    let Utc {
        year,
        month,
        day,
        hour,
        minute,
        second,
        milli,
    } = EpochMs(epoch_ms).utc();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(format_utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(format_utc(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(format_utc(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
        assert_eq!(format_utc(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn any_value_has_a_date() {
        assert!(format_utc(i64::MAX).ends_with('Z'));
        assert!(format_utc(i64::MIN).ends_with('Z'));
    }
}
