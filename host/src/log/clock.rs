//! The time of a record: UTC, in milliseconds.
//!
//! *Runs in:* every process. *Never:* reads a clock, knows time zones or leap seconds.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as a calendar shows it; `Display` is RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    year: i64,
    month: u32,
    day: u32,
    ms_of_day: u32,
}

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

impl Utc {
    /// From milliseconds since 1970.
    pub const fn from_unix_ms(unix_ms: i64) -> Self {
        let (year, month, day) = civil_from_days(unix_ms.div_euclid(MS_PER_DAY));
        Self { year, month, day, ms_of_day: unix_ms.rem_euclid(MS_PER_DAY) as u32 }
    }
}

impl From<SystemTime> for Utc {
    fn from(time: SystemTime) -> Self {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_ms(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => ms(after),
            Err(before) => -ms(before.duration()),
        })
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, ms_of_day } = self;
        let (seconds, ms) = (ms_of_day / 1000, ms_of_day % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from 1 March, so that the leap day is the last of its year; the calendar then repeats every 146 097 days (400 years).
const fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let since_march_0000 = days + 719_468;
    let era = since_march_0000.div_euclid(146_097);
    let day_of_era = since_march_0000.rem_euclid(146_097);
    // Take out the leap days (every 4 years, not every 100, the 400th again), so that every year has 365.
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months are always 153 days long.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as i64;
    (year, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The calendar by its definition, one day at a time.
    fn next_day((year, month, day): (i64, u32, u32)) -> (i64, u32, u32) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, day) if day == last => (year, month + 1, 1),
            _ => (year, month, day + 1),
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_follows_the_one_before() {
        let mut today = civil_from_days(-200_000);
        for days in -199_999..200_000 {
            today = next_day(today);
            assert_eq!(civil_from_days(days), today);
        }
    }

    #[test]
    fn known_moments() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_374_000_123, "2026-11-22T19:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc::from_unix_ms(unix_ms).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_day_is_followed_by_the_next(days in -3_000_000_000_i64..3_000_000_000) {
            prop_assert_eq!(civil_from_days(days + 1), next_day(civil_from_days(days)));
        }

        #[test]
        fn later_sorts_later(unix_ms in 0..250_000_000_000_000_i64, step in 1..1_000_000_i64) {
            prop_assert!(Utc::from_unix_ms(unix_ms).to_string() < Utc::from_unix_ms(unix_ms + step).to_string());
        }
    }
}
