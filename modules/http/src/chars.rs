//! Classes of bytes, and the small words that header fields are made of.
//!
//! Pure.

/// What names are made of.
pub const TOKEN: u8 = 1;
/// What a request's target may hold: visible ASCII without `#`.
pub const TARGET: u8 = 2;
/// What a host with its port may hold.
pub const AUTHORITY: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let alphanumeric = (byte as u8).is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric || is_in(byte as u8, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte as u8 != b'#' {
            class |= TARGET;
        }
        if alphanumeric || is_in(byte as u8, b"-._~%!$&'()*+,;=:[]") {
            class |= AUTHORITY;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
};

const fn is_in(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// How many bytes at the beginning are of that class.
#[inline]
pub fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| CLASSES[*byte as usize] & class == 0).unwrap_or(bytes.len())
}

/// Whether a byte is of that class.
#[inline]
pub fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether a byte may stand in the value of a field.
#[inline]
pub fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// How many bytes at the beginning may stand in the value of a field. Eight at a time.
#[inline]
pub fn text_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        // The top bit of a byte is set where it is below a blank, or DEL. A borrow only comes from a byte that is itself found.
        let below = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let deleted = word ^ (ONES * 0x7f);
        let deleted = deleted.wrapping_sub(ONES) & !deleted & TOPS;
        let found = below | deleted;
        if found != 0 {
            at += (found.trailing_zeros() / 8) as usize;
            if bytes[at] != b'\t' {
                return at;
            }
            at += 1;
        } else {
            at += 8;
        }
    }
    at + bytes[at..].iter().position(|byte| !is_text(*byte)).unwrap_or(bytes.len() - at)
}

/// Without blanks and tabs at both ends.
#[inline]
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What stands between commas, without empty elements.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Digits and nothing else, below 10^18.
#[inline]
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Whether it is a host, perhaps with a port, or empty: true for one with a port, none if it is no authority. There are no user names
/// before a host.
#[inline]
pub fn authority(text: &[u8]) -> Option<bool> {
    if run(text, AUTHORITY) != text.len() {
        return None;
    }
    let rest = if let Some(inner) = text.strip_prefix(b"[") {
        let len = inner.iter().position(|byte| *byte == b']')?;
        let in_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        if len < 2 || !inner[..len].iter().all(in_address) {
            return None;
        }
        &inner[len + 1..]
    } else {
        let len = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
        if text[..len].iter().any(|byte| matches!(byte, b'[' | b']')) {
            return None;
        }
        &text[len..]
    };
    match rest {
        [] => Some(false),
        [b':', port @ ..] => (port.len() <= 5 && port.iter().all(u8::is_ascii_digit)).then_some(!port.is_empty()),
        _ => None,
    }
}
