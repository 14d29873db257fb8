//! The time of a record: UTC, in milliseconds.
//!
//! *Runs in:* every process. *Never:* reads a clock, knows time zones or leap seconds.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use module_api::date;

/// Milliseconds since 1970; `Display` is RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp {
    unix_ms: i64,
}

impl Timestamp {
    pub(super) const fn from_unix_ms(unix_ms: i64) -> Self {
        Self { unix_ms }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_ms(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => ms(after),
            Err(before) => -ms(before.duration()),
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.unix_ms.div_euclid(1000), self.unix_ms.rem_euclid(1000));
        let (year, month, day) = date::calendar_day(seconds);
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_374_000_123, "2026-11-22T19:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_unix_ms(unix_ms).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn later_sorts_later(unix_ms in 0..250_000_000_000_000_i64, step in 1..1_000_000_i64) {
            prop_assert!(Timestamp::from_unix_ms(unix_ms).to_string() < Timestamp::from_unix_ms(unix_ms + step).to_string());
        }
    }
}
