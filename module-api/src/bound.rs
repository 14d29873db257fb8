//! Bounds of parameters in `params!`, read while the module is compiled: `1`, `"64KiB"`, `"1ms"`.
//!
//! A bound is one number with one unit; anything else is a compile error. Constant functions only.

use crate::abi;

/// The bound in the unit of the kind's target.
pub const fn parse(kind: u32, text: &str) -> i64 {
    let bytes = text.as_bytes();
    let negative = !bytes.is_empty() && bytes[0] == b'-';
    let mut at = if negative { 1 } else { 0 };
    // Counted downwards: the negative range has one number more.
    let (mut number, mut digits) = (0_i64, 0);
    while at < bytes.len() && (bytes[at].is_ascii_digit() || bytes[at] == b'_') {
        if bytes[at] != b'_' {
            number = match number.checked_mul(10) {
                Some(number) => number,
                None => panic!("a bound of a parameter is too large"),
            };
            number = match number.checked_sub((bytes[at] - b'0') as i64) {
                Some(number) => number,
                None => panic!("a bound of a parameter is too large"),
            };
            digits += 1;
        }
        at += 1;
    }
    assert!(digits > 0, "a bound of a parameter begins with a number");
    let unit = bytes.split_at(at).1;
    let factor = match kind {
        abi::PARAM_INT => {
            assert!(unit.is_empty(), "a bound of a number has a unit");
            1
        }
        abi::PARAM_SIZE => size(unit),
        abi::PARAM_DURATION => duration(unit),
        _ => panic!("only numbers, durations and sizes can have a range"),
    };
    assert!(kind == abi::PARAM_INT || !negative, "a bound of a duration or a size is negative");
    let value = match number.checked_mul(factor) {
        Some(value) => value,
        None => panic!("a bound of a parameter is too large"),
    };
    if negative {
        return value;
    }
    match value.checked_neg() {
        Some(value) => value,
        None => panic!("a bound of a parameter is too large"),
    }
}

const fn size(unit: &[u8]) -> i64 {
    match unit {
        b"" | b"B" => 1,
        b"KiB" => 1 << 10,
        b"MiB" => 1 << 20,
        b"GiB" => 1 << 30,
        b"TiB" => 1 << 40,
        _ => panic!("a bound of a size has a unit other than B, KiB, MiB, GiB, TiB"),
    }
}

const fn duration(unit: &[u8]) -> i64 {
    match unit {
        b"ns" => 1,
        b"us" => 1_000,
        b"ms" => 1_000_000,
        b"s" => 1_000_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        b"d" => 86_400_000_000_000,
        _ => panic!("a bound of a duration has a unit other than ns, us, ms, s, m, h, d"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::abi::{PARAM_DURATION, PARAM_INT, PARAM_SIZE, PARAM_STRING};

    #[test]
    fn bounds() {
        for (kind, text, want) in [
            (PARAM_INT, "0", 0),
            (PARAM_INT, "1_000", 1000),
            (PARAM_INT, "-5", -5),
            (PARAM_INT, "9223372036854775807", i64::MAX),
            (PARAM_INT, "-9223372036854775808", i64::MIN),
            (PARAM_SIZE, "1", 1),
            (PARAM_SIZE, "64KiB", 65_536),
            (PARAM_DURATION, "500ms", 500_000_000),
            (PARAM_DURATION, "1d", 86_400_000_000_000),
        ] {
            assert_eq!(parse(kind, text), want, "{text}");
        }
        for (kind, text) in [
            (PARAM_INT, ""),
            (PARAM_INT, "x"),
            (PARAM_INT, "1s"),
            (PARAM_INT, "9223372036854775808"),
            (PARAM_INT, "-9223372036854775809"),
            (PARAM_SIZE, "-1"),
            (PARAM_SIZE, "1kib"),
            (PARAM_SIZE, "9999999TiB"),
            (PARAM_DURATION, "1"),
            (PARAM_STRING, "1"),
        ] {
            assert!(std::panic::catch_unwind(|| parse(kind, text)).is_err(), "{text}");
        }
    }
}
