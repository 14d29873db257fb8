//! Dates in the form of HTTP and SIP: `Sat, 13 Nov 2010 23:29:00 GMT` (RFC 9110, section 5.6.7; RFC
//! 3261, section 20.17).
//!
//! Pure: no clock is read. Any process, phase and thread.
//!
//! ```
//! use module_api::date;
//! let text = date::text(1_289_690_940);
//! assert_eq!(&text, b"Sat, 13 Nov 2010 23:29:00 GMT");
//! assert_eq!(date::parse(&text, 1_300_000_000), Some(1_289_690_940));
//! ```

/// Length of the text in bytes.
pub const LENGTH: usize = 29;

const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// The date `seconds` after the beginning of 1970, in UTC. Of a year after 9999 only the last four
/// digits are written.
pub fn text(seconds: u64) -> [u8; LENGTH] {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = calendar(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(&b"ThuFriSatSunMonTueWed"[(days % 7) as usize * 3..][..3]);
    text[8..11].copy_from_slice(&MONTHS[month * 3..][..3]);
    for (at, number) in [(5, day), (12, year / 100 % 100), (14, year % 100), (17, second / 3600), (20, second / 60 % 60), (23, second % 60)]
    {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    }
    text
}

/// Year, month (1 to 12) and day of the month of a moment, in seconds since the beginning of 1970:
/// UTC, in the Gregorian calendar.
pub fn calendar_day(seconds: i64) -> (i64, u32, u32) {
    day_of_calendar(seconds.div_euclid(86_400))
}

fn day_of_calendar(days_since_1970: i64) -> (i64, u32, u32) {
    // Years are counted from 1 March of the year 0, so that the leap day is the last of its year.
    // The calendar repeats every 146,097 days (400 years).
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    // Without the leap days (every 4 years, not every 100, but every 400) each year has 365 days.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months always have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month as u32, day as u32)
}

/// Year, month from 0 and day of the month of a day, counted from the beginning of 1970.
fn calendar(days: u64) -> (u64, usize, u64) {
    let (year, month, day) = day_of_calendar(days as i64);
    (year as u64, month as usize - 1, u64::from(day))
}

/// Reads such a date, or one of the two older forms that HTTP must still accept
/// (`Saturday, 13-Nov-10 23:29:00 GMT` and `Sat Nov 13 23:29:00 2010`), as seconds since the
/// beginning of 1970.
///
/// None for dates before 1970 and for any other text. The day of the week is ignored. `now_s`, in
/// seconds since 1970, decides the century of a two-digit year: the latest one that is at most 50
/// years ahead.
pub fn parse(text: &[u8], now_s: u64) -> Option<u64> {
    let mut words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let first = words.next()?;
    let (day, month, year, time) = if first.ends_with(b",") {
        let second = words.next()?;
        if let Some((day, month_and_year)) = split(second, b'-') {
            let (month, year) = split(month_and_year, b'-')?;
            let year = century(number(year, 2)?, calendar(now_s / 86_400).0);
            (number(day, 2)?, month, year, words.next()?)
        } else {
            (number(second, 2)?, words.next()?, number(words.next()?, 4)?, words.next()?)
        }
    } else {
        let (month, day, time) = (words.next()?, words.next()?, words.next()?);
        (number(day, day.len().min(2))?, month, number(words.next()?, 4)?, time)
    };
    let zone = words.next();
    if words.next().is_some() || (zone != Some(b"GMT") && (zone.is_some() || first.ends_with(b","))) {
        return None;
    }
    let month = MONTHS.chunks_exact(3).position(|name| name == month)?;
    let (hour, rest) = split(time, b':')?;
    let (minute, second) = split(rest, b':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    // A leap second counts as the second after it.
    if year < 1970 || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    if calendar(days) != (year, month, day) {
        return None;
    }
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from the beginning of 1970 to the beginning of a month, which is counted from 0.
fn days_before(year: u64, month: usize) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) != leaps(year - 1);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + BEFORE[month] + u64::from(is_leap && month > 1)
}

/// The latest year with those last two digits that is at most 50 years after `this_year`.
fn century(digits: u64, this_year: u64) -> u64 {
    let year = this_year / 100 * 100 + digits;
    if year > this_year + 50 { year - 100 } else { year }
}

/// A number of exactly `len` digits.
fn number(digits: &[u8], len: usize) -> Option<u64> {
    let value = |number: u64, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'));
    (digits.len() == len && len > 0).then(|| digits.iter().try_fold(0, value)).flatten()
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    Some((&text[..place], &text[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_three_forms() {
        let now = 1_700_000_000;
        for (text_of, wanted) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("Tue, 29 Feb 2100 00:00:00 GMT", None),
            ("Tue, 31 Apr 2001 00:00:00 GMT", None),
            ("Tue, 30 Apr 2001 24:00:00 GMT", None),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Sunday, 06-Nov-74 08:49:37 GMT", Some(152_959_777)),
            ("Sunday, 06-Nov-73 08:49:37 GMT", Some(3_277_183_777)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun Nov  06a 08:49:37 1994", None),
            ("Sun Nov 123456789012345678901234567890 08:49:37 1994", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("784111777", None),
            ("", None),
        ] {
            assert_eq!(parse(text_of.as_bytes(), now), wanted, "{text_of}");
        }
        for days in (0..80_000).step_by(13) {
            let seconds = days * 86_400 + days % 86_400;
            assert_eq!(parse(&text(seconds), now), Some(seconds));
        }
    }

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
        assert_eq!((calendar_day(0), calendar_day(-1)), ((1970, 1, 1), (1969, 12, 31)));
        for start in [-3_000_000_000, -200_000, 3_000_000_000] {
            let mut today = calendar_day(start * 86_400);
            for day in start + 1..start + 400_000 {
                today = next_day(today);
                assert_eq!((calendar_day(day * 86_400), calendar_day(day * 86_400 + 86_399)), (today, today));
            }
        }
    }

    #[test]
    fn dates_are_written() {
        for (seconds, wanted) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_289_690_940, "Sat, 13 Nov 2010 23:29:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_456_000, "Sun, 28 Feb 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&text(seconds)).unwrap(), wanted);
        }
    }
}
