//! Sizes and durations as operators write them: `64MiB`, `1m30s`. A duration without a unit is an
//! error; nothing wraps or saturates.
//!
//! *Pure:* no clock, no environment, no system call.

use std::time::Duration;

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Whole words are compared, so the order does not matter (`ms`, `m`).
const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Reads a size as bytes: a whole number and a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`,
/// `GB`, `TB`), with or without a space, or a number of bytes. The error is the reason, to follow a
/// colon.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, rest) = leading_number(text).map_err(|reason| reason.to_string())?;
    let unit = rest.trim_start();
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("unknown unit {unit:?}; known are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"));
    };
    number.checked_mul(*factor).ok_or_else(|| "more than 16 EiB".to_string())
}

/// Reads a duration: one or more whole numbers, each with its unit (`ns`, `us`, `ms`, `s`, `m`,
/// `h`, `d`), largest unit first: `1m30s`. A bare `0` is zero. At most `i64::MAX` nanoseconds (292
/// years), so that it fits a parameter. The error is the reason, to follow a colon.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ns = 0_u64;
    let mut last_factor = u64::MAX;
    loop {
        let (number, after) = leading_number(rest).map_err(|reason| reason.to_string())?;
        let after = after.trim_start();
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(unit_len);
        let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() {
                format!("{number} has no unit; known are ns, us, ms, s, m, h, d")
            } else {
                format!("unknown unit {unit:?}; known are ns, us, ms, s, m, h, d")
            });
        };
        if *factor >= last_factor {
            return Err("units must come from large to small, each once".to_string());
        }
        last_factor = *factor;
        total_ns = number
            .checked_mul(*factor)
            .and_then(|part| total_ns.checked_add(part))
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or_else(|| "longer than 292 years".to_string())?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Ok(Duration::from_nanos(total_ns));
        }
    }
}

/// A duration for display and for `parse_duration`: in the largest units that express it exactly.
pub fn format_duration(duration: Duration) -> String {
    let mut rest_ns = duration.as_nanos();
    if rest_ns == 0 {
        return "0s".to_string();
    }
    let mut text = String::new();
    for unit in ["d", "h", "m", "s", "ms", "us", "ns"] {
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, factor)| u128::from(*factor));
        if rest_ns >= factor {
            text.push_str(&format!("{}{unit}", rest_ns / factor));
            rest_ns %= factor;
        }
    }
    text
}

/// A size for display and for `parse_size`: in the largest power-of-two unit that expresses it
/// exactly.
pub fn format_size(bytes: u64) -> String {
    let shift = [40, 30, 20, 10].into_iter().find(|shift| bytes > 0 && bytes.trailing_zeros() >= *shift).unwrap_or(0);
    let unit = SIZE_UNITS.iter().find(|(name, factor)| !name.is_empty() && *factor == 1 << shift).map_or("B", |(name, _)| name);
    format!("{} {unit}", bytes >> shift)
}

fn leading_number(text: &str) -> Result<(u64, &str), &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(match text.as_bytes().first() {
            None => "it is empty",
            Some(b'-') => "it must not be negative",
            Some(_) => "it does not start with a whole number",
        });
    }
    if rest.starts_with(['.', ',']) {
        return Err("whole numbers only; use a smaller unit");
    }
    let number: String = number.chars().filter(|c| *c != '_').collect();
    if number.is_empty() {
        return Err("it does not start with a whole number");
    }
    number.parse().map(|number| (number, rest)).map_err(|_| "the number is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("0", 0),
            ("4096", 4096),
            ("1kB", 1000),
            (" 1 GiB ", 1 << 30),
            ("1_000", 1000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for (text, reason) in [
            ("", "empty"),
            ("MiB", "start with"),
            ("-1", "negative"),
            ("1.5GiB", "smaller unit"),
            ("64mib", "unknown unit \"mib\""),
            ("64 MiB x", "unknown unit"),
            ("18446744073709551616", "too large"),
            ("16777216TiB", "16 EiB"),
            ("_", "start with"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_survive_a_round_trip() {
        for (bytes, text) in [(0, "0 B"), (1, "1 B"), (1 << 20, "1 MiB"), (4 << 40, "4 TiB"), (1000, "1000 B"), (3 << 10, "3 KiB")] {
            assert_eq!(format_size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
    }

    #[test]
    fn durations() {
        for (text, want_ns) in [
            ("10s", 10_000_000_000_u64),
            ("500ms", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1h 5m 7s", 3_907_000_000_000),
            ("10 s", 10_000_000_000),
            ("0", 0),
            ("0s", 0),
            ("3µs", 3_000),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(want_ns)), "{text}");
        }
        for (text, reason) in [
            ("", "empty"),
            ("10", "10 has no unit"),
            ("s", "start with"),
            ("10x", "unknown unit \"x\""),
            ("1s1m", "large to small"),
            ("1s1s", "large to small"),
            ("1.5s", "smaller unit"),
            ("-1s", "negative"),
            ("9223372036854775808ns", "292 years"),
            ("9999999999999999d", "292 years"),
            ("1s2", "2 has no unit"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn durations_survive_a_round_trip() {
        for (ns, text) in [(0, "0s"), (1, "1ns"), (90_000_000_000, "1m30s"), (86_400_000_000_000, "1d"), (1_500_000_000, "1s500ms")] {
            assert_eq!(format_duration(Duration::from_nanos(ns)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)));
        }
    }
}
