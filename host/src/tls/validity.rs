//! The dates of a certificate, and when an operator is warned of them.
//!
//! *Runs in:* the process that judges certificates. *Never:* refuses a certificate for its dates:
//! the operator is warned, clients decide.
//! *Pure:* no clock, no environment, no system call.

use std::ops::RangeInclusive;

use module_api::date;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

/// How long before its end a certificate is warned of.
const EXPIRES_SOON_S: i64 = 7 * 86_400;

/// The validity of an X.509 certificate in DER, in seconds since 1970; none if it cannot be read.
pub(super) fn validity(certificate: &[u8]) -> Option<RangeInclusive<i64>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
    Some(seconds(validity.not_before)?..=seconds(validity.not_after)?)
}

/// What to say about a certificate with these dates at a moment, in seconds since 1970.
pub(super) fn warning(validity: &RangeInclusive<i64>, now_s: i64) -> Option<String> {
    let date = |seconds: i64| {
        let (year, month, day) = date::calendar_day(seconds);
        format!("{year:04}-{month:02}-{day:02}")
    };
    let (first_s, last_s) = (*validity.start(), *validity.end());
    if now_s < first_s {
        Some(format!("is not valid before {}", date(first_s)))
    } else if now_s > last_s {
        Some(format!("expired on {}", date(last_s)))
    } else if now_s > last_s - EXPIRES_SOON_S {
        Some(format!("expires on {}", date(last_s)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEQUENCE: u8 = 0x30;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;

    fn element(kind: u8, contents: &[u8]) -> Vec<u8> {
        [&[kind, contents.len() as u8][..], contents].concat()
    }

    /// The smallest certificate with these dates.
    fn certificate(not_before: (u8, &str), not_after: (u8, &str)) -> Vec<u8> {
        let dates = [not_before, not_after].map(|(kind, text)| element(kind, text.as_bytes())).concat();
        let version_and_serial = [0xa0, 3, 2, 1, 2, 2, 1, 7];
        let (algorithm, bits, name) = (element(SEQUENCE, &[6, 2, 0x2a, 3]), [3, 2, 0, 0], element(SEQUENCE, &[]));
        let key = element(SEQUENCE, &[&algorithm[..], &bits].concat());
        let body = [&version_and_serial[..], &algorithm, &name, &element(SEQUENCE, &dates), &name, &key].concat();
        element(SEQUENCE, &[&element(SEQUENCE, &body)[..], &algorithm, &bits].concat())
    }

    #[test]
    fn dates_of_both_kinds_are_read() {
        let (first, last) = ((UTC_TIME, "200101000000Z"), (GENERALIZED_TIME, "20500101000000Z"));
        let whole = certificate(first, last);
        assert_eq!(validity(&whole), Some(1_577_836_800..=2_524_608_000));
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length} bytes");
        }
        let longest = certificate((UTC_TIME, "700101000000Z"), (GENERALIZED_TIME, "99991231235959Z"));
        assert_eq!(validity(&longest), Some(0..=253_402_300_799));
        for last in [(UTC_TIME, "7001010000Z"), (GENERALIZED_TIME, "20501301000000Z"), (0x02, "700101000000Z")] {
            assert_eq!(validity(&certificate(first, last)), None, "{last:?}");
        }
    }

    #[test]
    fn operators_are_warned_outside_the_validity_and_a_week_before_its_end() {
        let (first_s, last_s) = (951_825_600, 951_825_600 + 30 * 86_400);
        for (now_s, said) in [
            (first_s - 1, Some("is not valid before 2000-02-29")),
            (first_s, None),
            (last_s - EXPIRES_SOON_S, None),
            (last_s - EXPIRES_SOON_S + 1, Some("expires on 2000-03-30")),
            (last_s, Some("expires on 2000-03-30")),
            (last_s + 1, Some("expired on 2000-03-30")),
        ] {
            assert_eq!(warning(&(first_s..=last_s), now_s).as_deref(), said, "{now_s}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = validity(&bytes);
        }
    }
}
