//! The lexical syntax of SIP (RFC 3261 section 25.1): classes of bytes in one table, and a cursor
//! over the value of a header field.
//!
//! Pure. Reads each byte once and allocates nothing.

/// `token`: names of methods, header fields and parameters.
pub const TOKEN: u8 = 1;
/// The user part of a URI, without escapes.
pub const USER: u8 = 2;
/// A host name, without the brackets of IPv6.
pub const HOST: u8 = 4;
/// Names and values of URI parameters, without escapes.
pub const PARAM: u8 = 8;
/// `word`: the parts of a Call-ID.
pub const WORD: u8 = 16;
/// Every byte that a URI may contain.
pub const URI: u8 = 32;
/// The value of a header field's parameter that is not quoted. Wider than the grammar, which does
/// not allow `@` and `=`: clients send both.
pub const VALUE: u8 = 64;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let at = byte as u8;
        let alphanumeric = at.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric || among(at, b"-.!%*_+`'~") {
            class |= TOKEN;
        }
        if alphanumeric || among(at, b"-_.!~*'()&=+$,;?/") {
            class |= USER;
        }
        if alphanumeric || among(at, b"-._") {
            class |= HOST;
        }
        if alphanumeric || among(at, b"-_.!~*'()[]/:&+$") {
            class |= PARAM;
        }
        if alphanumeric || among(at, b"-.!%*_+`'~()<>:\\\"/[]?{}") {
            class |= WORD;
        }
        if alphanumeric || among(at, b"-_.!~*'();/?:@&=+$,[]%") {
            class |= URI;
        }
        if at > b' ' && at != 127 && !among(at, b";,\"<>") {
            class |= VALUE;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

const fn among(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

#[inline(always)]
pub fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// The number of leading bytes that are in the class.
#[inline(always)]
pub fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| !is(*byte, class)).unwrap_or(bytes.len())
}

/// Whether the text consists of bytes of the class and `%XX` escapes.
pub fn all_escaped(bytes: &[u8], class: u8) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        if is(bytes[at], class) {
            at += 1;
        } else if bytes[at] == b'%' && bytes.len() - at > 2 && bytes[at + 1].is_ascii_hexdigit() && bytes[at + 2].is_ascii_hexdigit() {
            at += 3;
        } else {
            return false;
        }
    }
    true
}

/// Parses a decimal number of digits only. `None` if the text is empty, has another byte, or the
/// number is above `max`.
pub fn number(digits: &[u8], max: u64) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit <= 9).then(|| number * 10 + u64::from(digit)).filter(|number| *number <= max)
    })
}

/// A position in the value of a header field. Each line feed in the value is part of a fold:
/// `header::Fields` has checked that.
#[derive(Debug, Clone)]
pub struct Cursor<'m> {
    pub bytes: &'m [u8],
    pub at: usize,
}

impl<'m> Cursor<'m> {
    pub fn new(bytes: &'m [u8]) -> Cursor<'m> {
        Cursor { bytes, at: 0 }
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips the byte if it comes next. Returns whether it did.
    #[inline(always)]
    pub fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    /// Skips blanks, tabs and folds.
    #[inline(always)]
    pub fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            let fold = byte == b'\n' || byte == b'\r' && self.bytes.get(self.at + 1) == Some(&b'\n');
            if byte != b' ' && byte != b'\t' && !fold {
                return;
            }
            self.at += 1;
        }
    }

    /// Takes all bytes of the class that come next, possibly none.
    #[inline(always)]
    pub fn take(&mut self, class: u8) -> &'m [u8] {
        let rest = &self.bytes[self.at..];
        let length = run(rest, class);
        self.at += length;
        &rest[..length]
    }

    /// Skips the byte, with blanks on both sides, if it comes next. Returns whether it did.
    #[inline(always)]
    pub fn eat_between_blanks(&mut self, byte: u8) -> bool {
        let before = self.at;
        self.skip_blanks();
        if self.eat(byte) {
            self.skip_blanks();
            return true;
        }
        self.at = before;
        false
    }

    /// Takes a quoted string with its quotes. `None` if there is none, or it does not end.
    pub fn quoted(&mut self) -> Option<&'m [u8]> {
        let start = self.at;
        if !self.eat(b'"') {
            return None;
        }
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.bytes[start..self.at]);
                }
                // A line end cannot be escaped.
                b'\\' if !matches!(self.bytes.get(self.at + 1)?, b'\r' | b'\n') => self.at += 2,
                b'\\' => return None,
                _ => self.at += 1,
            }
        }
    }

    /// Whether only blanks are left.
    pub fn is_done(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.bytes.len()
    }

    /// Takes `;name` or `;name=value`. `Ok(None)` if no semicolon comes next.
    #[inline]
    pub fn param(&mut self) -> Result<Option<Param<'m>>, ()> {
        if !self.eat_between_blanks(b';') {
            return Ok(None);
        }
        let name = self.take(TOKEN);
        if name.is_empty() {
            return Err(());
        }
        let name_end = self.at;
        let mut value = None;
        if self.eat_between_blanks(b'=') {
            let taken = if self.peek() == Some(b'"') { self.quoted().ok_or(())? } else { self.take(VALUE) };
            if taken.is_empty() {
                return Err(());
            }
            value = Some(taken);
        }
        let end = if value.is_some() { self.at } else { name_end };
        Ok(Some(Param { name, value, name_end, end }))
    }
}

/// A parameter of a header field.
#[derive(Debug, Clone, Copy)]
pub struct Param<'m> {
    pub name: &'m [u8],
    pub value: Option<&'m [u8]>,
    /// Offset of the name's end in the field's value.
    pub name_end: usize,
    /// Offset of the parameter's end in the field's value.
    pub end: usize,
}

impl Param<'_> {
    #[inline]
    pub fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}
