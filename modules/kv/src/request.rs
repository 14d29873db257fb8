//! Requests as they come in: arrays of bulk strings, or a line of words.
//!
//! A parser belongs to one connection and remembers how far it has come with a request that is not complete, so that it looks at each
//! byte once, however the bytes are cut. Copies nothing but the words of a line.

use memchr::memchr;

/// Longest line of words, and longest line with a number.
const LINE_MAX: usize = 64 << 10;
const NUMBER_MAX: usize = 32;
/// Most arguments of a request.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// Room for the places of so many arguments is kept between requests.
const ARGUMENTS_KEPT: usize = 64;

/// Where an argument lies: from the beginning of the request, or of the line's words.
type Place = (u32, u32);

/// The arguments of a complete request, the command's name among them.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'r> {
    source: &'r [u8],
    places: &'r [Place],
}

impl<'r> Arguments<'r> {
    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// One of them; empty past the last.
    #[inline]
    pub fn at(&self, index: usize) -> &'r [u8] {
        let place = self.places.get(index).and_then(|(from, to)| self.source.get(*from as usize..*to as usize));
        place.unwrap_or_default()
    }

    /// Those from `first` on.
    #[inline]
    pub fn from(&self, first: usize) -> impl ExactSizeIterator<Item = &'r [u8]> + use<'r> {
        let source = self.source;
        let places = self.places.get(first..).unwrap_or_default();
        places.iter().map(move |(from, to)| source.get(*from as usize..*to as usize).unwrap_or_default())
    }
}

/// What the beginning of the bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A request of so many bytes. It may have no arguments, and is no command then.
    Request(usize),
    /// The beginning of one.
    Incomplete,
    /// Nothing that could become one.
    Wrong(Wrong),
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The number behind `*`.
    Count,
    /// The number behind `$`, or it is above the limit.
    Length,
    /// This stands where a `$` should.
    Byte(u8),
    /// No line end behind a bulk string.
    End,
    /// A number with too many digits.
    LongNumber,
    /// A line with too many words.
    LongLine,
    /// A quote that is not closed.
    Quotes,
}

impl Wrong {
    /// The text for the client.
    pub fn say(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        match self {
            Wrong::Count => out.extend_from_slice(b"invalid multibulk length"),
            Wrong::Length => out.extend_from_slice(b"invalid bulk length"),
            Wrong::Byte(byte) => {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
                out.extend_from_slice(b"expected '$', got '");
                out.extend_from_slice(&[shown, b'\'']);
            }
            Wrong::End => out.extend_from_slice(b"expected a line end behind a bulk string"),
            Wrong::LongNumber => out.extend_from_slice(b"too big count string"),
            Wrong::LongLine => out.extend_from_slice(b"too big inline request"),
            Wrong::Quotes => out.extend_from_slice(b"unbalanced quotes in request"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Parser {
    places: Vec<Place>,
    /// Words of a line, without quotes.
    words: Vec<u8>,
    is_line: bool,
    /// Arguments that the request has; 0: its first line is not read.
    count: usize,
    /// Where the next argument begins.
    at: usize,
    /// There is nothing to do with fewer bytes.
    needed: usize,
}

impl Parser {
    /// Looks at `data`, which begins with a request: for an incomplete one with the same bytes as before and more.
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
            self.places.clear();
            self.is_line = false;
            match number(data, 1) {
                Number::Found(count, end) if count <= 0 => return Parsed::Request(end),
                Number::Found(count, end) if count <= ARGUMENTS_MAX => (self.count, self.at) = (count as usize, end),
                Number::Incomplete => return Parsed::Incomplete,
                Number::Long => return Parsed::Wrong(Wrong::LongNumber),
                _ => return Parsed::Wrong(Wrong::Count),
            }
        }
        while self.places.len() < self.count {
            match data.get(self.at) {
                Some(b'$') => {}
                Some(other) => return Parsed::Wrong(Wrong::Byte(*other)),
                None => return Parsed::Incomplete,
            }
            let (from, len) = match number(data, self.at + 1) {
                Number::Found(len, end) => match usize::try_from(len) {
                    Ok(len) if len <= longest => (end, len),
                    _ => return Parsed::Wrong(Wrong::Length),
                },
                Number::Incomplete => return Parsed::Incomplete,
                Number::Long => return Parsed::Wrong(Wrong::LongNumber),
                Number::Wrong => return Parsed::Wrong(Wrong::Length),
            };
            let to = from + len;
            match data.get(to..to + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Parsed::Wrong(Wrong::End),
                None => {
                    self.needed = to + 2;
                    return Parsed::Incomplete;
                }
            }
            let (Ok(from), Ok(end)) = (u32::try_from(from), u32::try_from(to)) else { return Parsed::Wrong(Wrong::Length) };
            self.places.push((from, end));
            self.at = to + 2;
        }
        Parsed::Request(self.at)
    }

    /// The arguments of the request that `parse` has found at the beginning of `data`.
    #[inline]
    pub fn arguments<'r>(&'r self, data: &'r [u8]) -> Arguments<'r> {
        Arguments { source: if self.is_line { &self.words } else { data }, places: &self.places }
    }

    /// Gives memory back that only a long request needs.
    #[inline]
    pub fn forget(&mut self) {
        if self.places.capacity() > ARGUMENTS_KEPT {
            self.places = Vec::new();
        }
        if self.words.capacity() > 0 {
            self.words = Vec::new();
        }
    }

    /// A line of words, as a person types it.
    #[cold]
    fn line(&mut self, data: &[u8]) -> Parsed {
        // What was looked at before has no line end.
        let Some(end) = data.get(self.at..).and_then(|rest| memchr(b'\n', rest)).map(|end| end + self.at) else {
            self.at = data.len();
            return if data.len() > LINE_MAX { Parsed::Wrong(Wrong::LongLine) } else { Parsed::Incomplete };
        };
        if end > LINE_MAX {
            return Parsed::Wrong(Wrong::LongLine);
        }
        self.places.clear();
        self.words.clear();
        self.is_line = true;
        let line = data.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match split(line, &mut self.words, &mut self.places) {
            Some(()) => Parsed::Request(end + 1),
            None => Parsed::Wrong(Wrong::Quotes),
        }
    }
}

enum Number {
    /// It, and where the next line begins.
    Found(i64, usize),
    Incomplete,
    Long,
    Wrong,
}

/// The number of a line that begins at `from`.
#[inline]
fn number(data: &[u8], from: usize) -> Number {
    let rest = data.get(from..).unwrap_or_default();
    // Nearly always one to three digits.
    let mut value = 0_i64;
    for (index, byte) in rest.iter().enumerate().take(NUMBER_MAX) {
        match byte {
            b'0'..=b'9' if index < 18 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if index > 0 => {
                return match rest.get(index + 1) {
                    Some(b'\n') => Number::Found(value, from + index + 2),
                    Some(_) => Number::Wrong,
                    None => Number::Incomplete,
                };
            }
            b'-' if index == 0 => return negative(rest, from),
            _ => return Number::Wrong,
        }
    }
    if rest.len() < NUMBER_MAX { Number::Incomplete } else { Number::Long }
}

#[cold]
fn negative(rest: &[u8], from: usize) -> Number {
    let short = rest.get(..rest.len().min(NUMBER_MAX)).unwrap_or_default();
    let Some(end) = memchr(b'\n', short) else {
        return if rest.len() < NUMBER_MAX { Number::Incomplete } else { Number::Long };
    };
    let digits = short.get(1..end).and_then(|line| line.strip_suffix(b"\r"));
    match digits {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Number::Found(-1, from + end + 1),
        _ => Number::Wrong,
    }
}

/// Cuts a line into words. Words can stand in quotes: in double ones `\n`, `\r`, `\t`, `\b`, `\a` and `\xff` mean what they do in C, in
/// single ones only `\'` means something.
fn split(line: &[u8], words: &mut Vec<u8>, places: &mut Vec<Place>) -> Option<()> {
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
                    // A word ends with its quote.
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
        places.push((from, words.len() as u32));
    }
}

fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        _ => hex.wrapping_sub(b'A').wrapping_add(10),
    }
}
