//! Writes replies in RESP2 and RESP3, and converts numbers to text and back.
//!
//! Pure.

/// The version of the protocol that a client has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    /// Has types for maps, nulls and texts that RESP2 has not.
    Resp3,
}

/// Appends a reply to `out`.
#[derive(Debug)]
pub struct Reply<'o> {
    pub out: &'o mut Vec<u8>,
    pub protocol: Protocol,
}

impl Reply<'_> {
    /// A simple string, such as `PONG`.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.end();
    }

    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error. Its text begins with the kind, as in `ERR no such thing`.
    #[cold]
    pub fn error(&mut self, text: &str) {
        self.out.push(b'-');
        // The text may quote a client. A line end in it must not end the reply.
        self.out.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.end();
    }

    #[inline]
    pub fn integer(&mut self, number: i64) {
        self.out.push(b':');
        push_number(self.out, number);
        self.end();
    }

    /// A bulk string: any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.push(b'$');
        push_number(self.out, bytes.len() as i64);
        self.end();
        self.out.extend_from_slice(bytes);
        self.end();
    }

    /// A number as a bulk string.
    #[inline]
    pub fn bulk_number(&mut self, number: i64) {
        let mut digits = [0; DIGITS];
        self.bulk(format_number(number, &mut digits));
    }

    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Begins an array. `len` replies must follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.out.push(b'*');
        push_number(self.out, len as i64);
        self.end();
    }

    /// Begins a map. `pairs` pairs of replies must follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * pairs),
            Protocol::Resp3 => {
                self.out.push(b'%');
                push_number(self.out, pairs as i64);
                self.end();
            }
        }
    }

    /// A text for people: a verbatim string in RESP3, a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b'=');
                push_number(self.out, text.len() as i64 + 4);
                self.end();
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.end();
            }
        }
    }

    #[inline]
    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Most bytes of the decimal text of an i64.
pub const DIGITS: usize = 20;

/// Writes the decimal text of a number into `digits`.
#[inline]
pub fn format_number(number: i64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut left = number.unsigned_abs();
    let mut at = DIGITS;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
        at -= 1;
        if left == 0 {
            break;
        }
    }
    if number < 0
        && let Some(place) = at.checked_sub(1).and_then(|sign| digits.get_mut(sign))
    {
        *place = b'-';
        at -= 1;
    }
    digits.get(at..).unwrap_or_default()
}

#[inline]
fn push_number(out: &mut Vec<u8>, number: i64) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(format_number(number, &mut [0; DIGITS])),
    }
}

/// Parses a number in its only decimal notation: no blanks, no plus sign, no leading zeros.
#[inline]
pub fn parse_number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > DIGITS {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // As a negative number, because the range has one more of them.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_decimal_text() {
        for number in [0, 1, -1, 9, 10, -10, 255, 256, 1_000_000_007, i64::MAX, i64::MIN, i64::MIN + 1] {
            let text = number.to_string();
            assert_eq!(format_number(number, &mut [0; DIGITS]), text.as_bytes());
            assert_eq!(parse_number(text.as_bytes()), Some(number));
        }
        for text in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ] {
            assert_eq!(parse_number(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn replies_in_both_versions_of_the_protocol() {
        let both = |write: &dyn Fn(&mut Reply<'_>)| {
            [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
                let mut out = Vec::new();
                write(&mut Reply { out: &mut out, protocol });
                String::from_utf8(out).unwrap()
            })
        };
        assert_eq!(both(&|reply| reply.simple("PONG")), ["+PONG\r\n"; 2]);
        assert_eq!(both(&|reply| reply.error("ERR a\r\nb")), ["-ERR a  b\r\n"; 2]);
        assert_eq!(both(&|reply| reply.integer(-12)), [":-12\r\n"; 2]);
        assert_eq!(both(&|reply| reply.bulk(b"a\r\n")), ["$3\r\na\r\n\r\n"; 2]);
        assert_eq!(both(&|reply| reply.bulk_number(100)), ["$3\r\n100\r\n"; 2]);
        assert_eq!(both(&|reply| reply.null()), ["$-1\r\n", "_\r\n"]);
        assert_eq!(both(&|reply| reply.map(2)), ["*4\r\n", "%2\r\n"]);
        assert_eq!(both(&|reply| reply.verbatim("x")), ["$1\r\nx\r\n", "=5\r\ntxt:x\r\n"]);
    }
}
