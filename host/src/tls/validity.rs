//! From when until when a certificate is good, as it says itself.
//!
//! *Runs in:* the process that judges certificates. *Never:* decides anything by it: an operator is warned, clients decide.

use std::ops::Range;

/// Seconds since 1970 of the first moment at which the certificate is good and of the first at which it is not any more; none if these
/// bytes are no certificate (X.509, DER).
pub fn of(certificate: &[u8]) -> Option<Range<i64>> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    // The version, which the first one did not write.
    if let (VERSION, _, behind) = element(rest)? {
        rest = behind;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (kind, first, rest) = element(validity)?;
    let first = seconds(kind, first)?;
    let (kind, last, _) = element(rest)?;
    Some(first..seconds(kind, last)?.saturating_add(1))
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its kind, its contents, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, short], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut length = usize::from(short);
    if short >= 0x80 {
        let (long, behind) = rest.split_at_checked(usize::from(short & 0x7f))?;
        if long.is_empty() || long.len() > 4 {
            return None;
        }
        length = long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = behind;
    }
    let (contents, behind) = rest.split_at_checked(length)?;
    Some((kind, contents, behind))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn seconds(kind: u8, text: &[u8]) -> Option<i64> {
    let year_digits = match kind {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.len() == year_digits + 10 && digits.iter().all(u8::is_ascii_digit))?;
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, rest) = digits.split_at(year_digits);
    let year = match (kind, number(year)) {
        (UTC_TIME, year) if year < 50 => 2000 + year,
        (UTC_TIME, year) => 1900 + year,
        (_, year) => year,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from the first of January 1970 to that day. A year begins in March here, so that the day of a leap year is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days_before_month = (153 * month + 2) / 5;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_before_month + day - 1 - 719_468
}

/// A moment as `YYYY-MM-DD`.
pub fn date(seconds: i64) -> String {
    let day = seconds.div_euclid(86_400);
    // A year that is not too late, then on from there.
    let mut year = 1970 + if day < 0 { day.div_euclid(365) } else { day.div_euclid(366) };
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days(year, *month, 1) <= day).unwrap_or(1);
    format!("{year:04}-{month:02}-{:02}", day - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments() {
        for (kind, text, expected) in [
            (UTC_TIME, &b"700101000000Z"[..], Some(0)),
            (UTC_TIME, b"000229120000Z", Some(951_825_600)),
            (UTC_TIME, b"491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, b"500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, b"20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, b"99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, b"20501301000000Z", None),
            (UTC_TIME, b"20500101000000Z", None),
            (UTC_TIME, b"7001010000Z", None),
            (UTC_TIME, b"700101000000+0100", None),
            (0x02, b"700101000000Z", None),
        ] {
            assert_eq!(seconds(kind, text), expected, "{}", text.escape_ascii());
        }
        for (moment, expected) in [(0, "1970-01-01"), (951_825_600, "2000-02-29"), (-1, "1969-12-31"), (253_402_300_799, "9999-12-31")] {
            assert_eq!(date(moment), expected);
        }
    }

    #[test]
    fn a_certificate_cut_anywhere_is_none() {
        // Only what stands before the dates and they themselves, in the shape of a certificate.
        let dates = [&[UTC_TIME, 13][..], b"200101000000Z", &[GENERALIZED_TIME, 15], b"20500101000000Z"].concat();
        let wrap = |kind: u8, contents: &[u8]| [&[kind, contents.len() as u8][..], contents].concat();
        let body = [wrap(VERSION, &[2, 1, 2]), vec![2, 1, 7], wrap(SEQUENCE, &[]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &dates)].concat();
        let certificate = wrap(SEQUENCE, &wrap(SEQUENCE, &body));
        assert_eq!(of(&certificate), Some(1_577_836_800..2_524_608_001));
        for length in 0..certificate.len() {
            assert_eq!(of(&certificate[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = of(&bytes);
        }

        #[test]
        fn days_count_on(day in -700_000_i64..3_000_000) {
            let text = date(day * 86_400);
            let (date, day_of_month) = text.rsplit_once('-').unwrap();
            let (year, month) = date.rsplit_once('-').unwrap();
            prop_assert_eq!(days(year.parse().unwrap(), month.parse().unwrap(), day_of_month.parse().unwrap()), day);
        }
    }
}
