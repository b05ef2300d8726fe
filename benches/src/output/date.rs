//! Epoch milliseconds as UTC dates.

#![forbid(unsafe_code)]

const DAY_MS: i64 = 86_400_000;

/// `epoch_ms` as `YYYY-MM-DDTHH:MM:SS.mmmZ` in the proleptic Gregorian calendar.
#[must_use]
pub fn format_utc(epoch_ms: i64) -> String {
    let (year, month, day) = civil_date(epoch_ms.div_euclid(DAY_MS));
    let in_day = epoch_ms.rem_euclid(DAY_MS);
    let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (seconds, millis) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// The date that lies `days` after 1970-01-01. The calendar repeats every 400 years of 146097 days; counting years
/// from 1 March puts the leap day last, so that the length of the months before it follows one linear formula.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_FROM_MARCH_OF_YEAR_0_TO_1970: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let shifted = days + DAYS_FROM_MARCH_OF_YEAR_0_TO_1970;
    let era = shifted.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = shifted.rem_euclid(DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
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
