//! Classes of bytes, and the elements of header fields: lists, numbers, authorities (RFC 9110,
//! section 5.6; RFC 9112, section 3.2).
//!
//! Pure.

/// Class of the bytes of a token: of methods and field names.
pub const TOKEN: u8 = 1;
/// Class of the bytes of a request target: visible ASCII without `#`.
pub const TARGET: u8 = 2;
/// Class of the bytes of a host with its port.
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

/// The number of leading bytes that are in the class.
#[inline]
pub fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| CLASSES[*byte as usize] & class == 0).unwrap_or(bytes.len())
}

/// Whether a byte is in the class.
#[inline]
pub fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether a field value may contain the byte.
#[inline]
pub fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The number of leading bytes that a field value may contain. Checks eight bytes at a time.
#[inline]
pub fn text_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        // Sets the top bit of each byte that is below a blank, or is DEL. A borrow can set more of
        // them, but only after a byte that is found itself, and only the first one is used.
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

/// Removes blanks and tabs at both ends.
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

/// The elements of a comma-separated list. Empty ones are skipped.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Parses a number of digits only, below 10^18.
#[inline]
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Parses an authority: a host, with or without a port, or nothing. User names are not allowed.
/// Returns whether there is a port; `None` if the text is not an authority.
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
