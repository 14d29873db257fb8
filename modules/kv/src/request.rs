//! Parses requests: arrays of bulk strings, or a line of words.
//!
//! Pure. A parser belongs to one connection and remembers its position in an incomplete request, so
//! that it reads each byte once, however the bytes are cut. Copies only the words of a line.

use memchr::memchr;

/// Longest line of words, in bytes.
const LINE_MAX: usize = 64 << 10;
/// Longest line with a number, in bytes.
const NUMBER_MAX: usize = 32;
/// Most arguments of a request.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// Between requests, memory for the ranges of at most this many arguments is kept.
const ARGUMENTS_KEPT: usize = 64;

/// Beginning and end of an argument: offsets in the request, or in `Parser::words`.
type ByteRange = (u32, u32);

/// The arguments of a complete request, the command's name included.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'r> {
    source: &'r [u8],
    ranges: &'r [ByteRange],
}

impl<'r> Arguments<'r> {
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// An argument; empty if there is none at this index.
    #[inline]
    pub fn at(&self, index: usize) -> &'r [u8] {
        let argument = self.ranges.get(index).and_then(|(from, to)| self.source.get(*from as usize..*to as usize));
        argument.unwrap_or_default()
    }

    /// The arguments from index `first` on.
    #[inline]
    pub fn from(&self, first: usize) -> impl ExactSizeIterator<Item = &'r [u8]> + use<'r> {
        let source = self.source;
        let ranges = self.ranges.get(first..).unwrap_or_default();
        ranges.iter().map(move |(from, to)| source.get(*from as usize..*to as usize).unwrap_or_default())
    }
}

/// The result of `Parser::parse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A request of this many bytes. Without arguments it is not a command.
    Request(usize),
    /// The beginning of a request.
    Incomplete,
    Invalid(ProtocolError),
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is invalid or above the limit.
    Count,
    /// The number after `$` is invalid or above the limit.
    Length,
    /// This byte instead of a `$`.
    Byte(u8),
    /// No line end after a bulk string.
    End,
    /// A number with too many digits.
    LongNumber,
    /// A line that is too long.
    LongLine,
    /// A quote that is not closed.
    Quotes,
}

impl ProtocolError {
    /// Appends the error reply.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        match self {
            ProtocolError::Count => out.extend_from_slice(b"invalid multibulk length"),
            ProtocolError::Length => out.extend_from_slice(b"invalid bulk length"),
            ProtocolError::Byte(byte) => {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
                out.extend_from_slice(b"expected '$', got '");
                out.extend_from_slice(&[shown, b'\'']);
            }
            ProtocolError::End => out.extend_from_slice(b"expected a line end after a bulk string"),
            ProtocolError::LongNumber => out.extend_from_slice(b"too big count string"),
            ProtocolError::LongLine => out.extend_from_slice(b"too big inline request"),
            ProtocolError::Quotes => out.extend_from_slice(b"unbalanced quotes in request"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    ranges: Vec<ByteRange>,
    /// Words of a line, without quotes.
    words: Vec<u8>,
    /// Whether the arguments are in `words`.
    is_line: bool,
    /// Number of arguments; 0 before the first line is read.
    count: usize,
    /// Offset of the next argument.
    at: usize,
    /// With fewer bytes than this, the request is still incomplete.
    needed: usize,
}

impl Parser {
    /// Parses the request at the beginning of `data`. After an incomplete one, `data` must begin
    /// with the same bytes. `longest` limits the length of an argument in bytes.
    #[inline]
    pub fn parse(&mut self, data: &[u8], longest: usize) -> Parsed {
        if data.len() < self.needed {
            return Parsed::Incomplete;
        }
        let parsed = self.advance(data, longest);
        match parsed {
            Parsed::Incomplete => {}
            _ => (self.count, self.at, self.needed) = (0, 0, 0),
        }
        parsed
    }

    #[inline]
    fn advance(&mut self, data: &[u8], longest: usize) -> Parsed {
        if self.count == 0 {
            match data.first() {
                Some(b'*') => {}
                Some(_) => return self.line(data),
                None => return Parsed::Incomplete,
            }
            self.ranges.clear();
            self.is_line = false;
            match number(data, 1) {
                ParsedNumber::Found(count, end) if count <= 0 => return Parsed::Request(end),
                ParsedNumber::Found(count, end) if count <= ARGUMENTS_MAX => (self.count, self.at) = (count as usize, end),
                ParsedNumber::Incomplete => return Parsed::Incomplete,
                ParsedNumber::TooLong => return Parsed::Invalid(ProtocolError::LongNumber),
                _ => return Parsed::Invalid(ProtocolError::Count),
            }
        }
        while self.ranges.len() < self.count {
            match data.get(self.at) {
                Some(b'$') => {}
                Some(other) => return Parsed::Invalid(ProtocolError::Byte(*other)),
                None => return Parsed::Incomplete,
            }
            let (from, len) = match number(data, self.at + 1) {
                ParsedNumber::Found(len, end) => match usize::try_from(len) {
                    Ok(len) if len <= longest => (end, len),
                    _ => return Parsed::Invalid(ProtocolError::Length),
                },
                ParsedNumber::Incomplete => return Parsed::Incomplete,
                ParsedNumber::TooLong => return Parsed::Invalid(ProtocolError::LongNumber),
                ParsedNumber::Invalid => return Parsed::Invalid(ProtocolError::Length),
            };
            let to = from + len;
            match data.get(to..to + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Parsed::Invalid(ProtocolError::End),
                None => {
                    self.needed = to + 2;
                    return Parsed::Incomplete;
                }
            }
            let (Ok(from), Ok(end)) = (u32::try_from(from), u32::try_from(to)) else { return Parsed::Invalid(ProtocolError::Length) };
            self.ranges.push((from, end));
            self.at = to + 2;
        }
        Parsed::Request(self.at)
    }

    /// The arguments of the request that `parse` has found at the beginning of `data`.
    #[inline]
    pub fn arguments<'r>(&'r self, data: &'r [u8]) -> Arguments<'r> {
        Arguments { source: if self.is_line { &self.words } else { data }, ranges: &self.ranges }
    }

    /// Frees memory that only a long request needs.
    #[inline]
    pub fn forget(&mut self) {
        if self.ranges.capacity() > ARGUMENTS_KEPT {
            self.ranges = Vec::new();
        }
        if self.words.capacity() > 0 {
            self.words = Vec::new();
        }
    }

    /// Parses a line of words, as a person types it.
    #[cold]
    fn line(&mut self, data: &[u8]) -> Parsed {
        // The bytes before `at` have no line end.
        let Some(end) = data.get(self.at..).and_then(|rest| memchr(b'\n', rest)).map(|end| end + self.at) else {
            self.at = data.len();
            return if data.len() > LINE_MAX { Parsed::Invalid(ProtocolError::LongLine) } else { Parsed::Incomplete };
        };
        if end > LINE_MAX {
            return Parsed::Invalid(ProtocolError::LongLine);
        }
        self.ranges.clear();
        self.words.clear();
        self.is_line = true;
        let line = data.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match split(line, &mut self.words, &mut self.ranges) {
            Some(()) => Parsed::Request(end + 1),
            None => Parsed::Invalid(ProtocolError::Quotes),
        }
    }
}

enum ParsedNumber {
    /// The number, and the offset of the next line.
    Found(i64, usize),
    Incomplete,
    TooLong,
    Invalid,
}

/// Parses a line that begins at `from` and consists of a number.
#[inline]
fn number(data: &[u8], from: usize) -> ParsedNumber {
    let rest = data.get(from..).unwrap_or_default();
    // A loop over bytes is fastest: nearly all numbers have one to three digits.
    let mut value = 0_i64;
    for (index, byte) in rest.iter().enumerate().take(NUMBER_MAX) {
        match byte {
            b'0'..=b'9' if index < 18 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if index > 0 => {
                return match rest.get(index + 1) {
                    Some(b'\n') => ParsedNumber::Found(value, from + index + 2),
                    Some(_) => ParsedNumber::Invalid,
                    None => ParsedNumber::Incomplete,
                };
            }
            b'-' if index == 0 => return negative(rest, from),
            _ => return ParsedNumber::Invalid,
        }
    }
    if rest.len() < NUMBER_MAX { ParsedNumber::Incomplete } else { ParsedNumber::TooLong }
}

/// Parses a negative number, as -1 whatever its value.
#[cold]
fn negative(rest: &[u8], from: usize) -> ParsedNumber {
    let short = rest.get(..rest.len().min(NUMBER_MAX)).unwrap_or_default();
    let Some(end) = memchr(b'\n', short) else {
        return if rest.len() < NUMBER_MAX { ParsedNumber::Incomplete } else { ParsedNumber::TooLong };
    };
    let digits = short.get(1..end).and_then(|line| line.strip_suffix(b"\r"));
    match digits {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => ParsedNumber::Found(-1, from + end + 1),
        _ => ParsedNumber::Invalid,
    }
}

/// Splits a line into words, which may be quoted. In double quotes `\n`, `\r`, `\t`, `\b`, `\a` and
/// `\xff` mean the same as in C; in single quotes `\'` is the only escape. `None` if a quote is not
/// closed.
fn split(line: &[u8], words: &mut Vec<u8>, ranges: &mut Vec<ByteRange>) -> Option<()> {
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && blank.is_ascii_whitespace()
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let from = words.len() as u32; // a line is short
        let mut quote = None;
        loop {
            match (quote, rest) {
                (None, [] | [b' ' | b'\t' | b'\r' | b'\n', ..]) => break,
                (None, [mark @ (b'"' | b'\''), tail @ ..]) => (quote, rest) = (Some(*mark), tail),
                (Some(_), []) => return None,
                (Some(b'"'), [b'\\', b'x', high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    words.push(digit(*high) << 4 | digit(*low));
                    rest = tail;
                }
                (Some(b'"'), [b'\\', byte, tail @ ..]) => {
                    words.push(match byte {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    });
                    rest = tail;
                }
                (Some(b'\''), [b'\\', b'\'', tail @ ..]) => {
                    words.push(b'\'');
                    rest = tail;
                }
                (Some(mark), [byte, tail @ ..]) if *byte == mark => {
                    // A blank must follow the closing quote.
                    if tail.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return None;
                    }
                    (quote, rest) = (None, tail);
                }
                (_, [byte, tail @ ..]) => {
                    words.push(*byte);
                    rest = tail;
                }
            }
        }
        ranges.push((from, words.len() as u32));
    }
}

fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        _ => hex.wrapping_sub(b'A').wrapping_add(10),
    }
}
