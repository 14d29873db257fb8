//! The head of a request (RFC 9112): one pass over its bytes, no copies.
//!
//! Pure. Strict where two readers of the same bytes could see different requests: lines end with CR LF and with nothing else, a name is
//! followed by its colon, a length is digits, and there is one statement of the body's length. An error depends on the bytes before it
//! only, so it does not matter in which pieces they arrive.

use crate::chars::{self, AUTHORITY, TARGET, TOKEN};

/// Fields of one head.
const MAX_FIELDS: usize = 100;
/// Longest name of a method.
const MAX_METHOD: usize = 32;
/// Empty lines that are skipped before a request, as old clients send them behind a body.
const MAX_EMPTY_LINES: usize = 2;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Options,
    Connect,
    /// Known, and not for what this module has to offer: POST, PUT, DELETE, PATCH, TRACE.
    OtherKnown,
    Unknown,
}

impl Method {
    fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"OPTIONS" => Method::Options,
            b"CONNECT" => Method::Connect,
            b"POST" | b"PUT" | b"DELETE" | b"PATCH" | b"TRACE" => Method::OtherKnown,
            _ => Method::Unknown,
        }
    }
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    None,
    Bytes(u64),
    Chunked,
}

/// A head that is whole and makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'d> {
    pub method: Method,
    pub method_name: &'d [u8],
    /// What stands before the question mark, not decoded: begins with a slash, or is `*`. Empty for CONNECT.
    pub path: &'d [u8],
    /// What stands from the question mark on; empty for none.
    pub query: &'d [u8],
    /// 0 or 1, of HTTP/1.
    pub minor: u8,
    /// The authority of the target, else what Host says; empty for none.
    pub host: &'d [u8],
    /// The lines of the fields, each with its CR LF.
    pub fields: &'d [u8],
    pub length: Length,
    /// Whether the client wants to go on after the answer.
    pub keep_alive: bool,
    /// It waits for 100 before it sends the body.
    pub expects: bool,
    /// There is a Range, or a field that begins with If.
    pub conditional: bool,
    /// Bytes of all this.
    pub len: usize,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'d> {
    Whole(Head<'d>),
    /// The end of the head is not there yet.
    Partial,
    /// No request, or one that is not served: the code to answer before the connection is closed.
    Refused(u16),
}

/// Limits of a head, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All of it.
    pub head: usize,
    /// The target.
    pub target: usize,
}

enum Stop {
    Partial,
    Refused(u16),
}

const BAD: Stop = Stop::Refused(400);

/// Reads the head at the beginning of `data`.
#[inline]
pub fn parse(data: &[u8], limits: Limits) -> Parsed<'_> {
    let whole = data.len() >= limits.head;
    let mut cursor = Cursor { data: if whole { &data[..limits.head] } else { data }, at: 0 };
    match read(&mut cursor, limits) {
        Ok(head) => Parsed::Whole(head),
        Err(Stop::Partial) if whole => Parsed::Refused(431),
        Err(Stop::Partial) => Parsed::Partial,
        Err(Stop::Refused(code)) => Parsed::Refused(code),
    }
}

struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
}

impl<'d> Cursor<'d> {
    #[inline]
    fn peek(&self) -> Result<u8, Stop> {
        self.data.get(self.at).copied().ok_or(Stop::Partial)
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), Stop> {
        if self.peek()? != wanted {
            return Err(BAD);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn line_end(&mut self) -> Result<(), Stop> {
        self.expect(b'\r')?;
        self.expect(b'\n')
    }

    /// The bytes of that class from here on, and the one behind them; at most `max`, else `code`.
    #[inline]
    fn run(&mut self, class: u8, max: usize, code: u16) -> Result<&'d [u8], Stop> {
        let rest = &self.data[self.at..];
        let len = chars::run(rest, class);
        if len > max {
            return Err(Stop::Refused(code));
        }
        self.at += len;
        if len == rest.len() {
            return Err(Stop::Partial);
        }
        Ok(&rest[..len])
    }

    /// The value of a field, without blanks around it, and the end of its line.
    #[inline]
    fn value(&mut self) -> Result<&'d [u8], Stop> {
        let rest = &self.data[self.at..];
        let len = chars::text_run(rest);
        self.at += len;
        self.line_end()?;
        Ok(chars::trim(&rest[..len]))
    }
}

#[inline]
fn read<'d>(cursor: &mut Cursor<'d>, limits: Limits) -> Result<Head<'d>, Stop> {
    for _ in 0..MAX_EMPTY_LINES {
        if cursor.peek()? != b'\r' {
            break;
        }
        cursor.line_end()?;
    }
    let method_name = cursor.run(TOKEN, MAX_METHOD, 400)?;
    if method_name.is_empty() {
        return Err(BAD);
    }
    cursor.expect(b' ')?;
    let target = cursor.run(TARGET, limits.target, 414)?;
    if target.is_empty() {
        return Err(BAD);
    }
    cursor.expect(b' ')?;
    let minor = version(cursor)?;
    let method = Method::of(method_name);
    let target = Target::of(target, method).ok_or(BAD)?;
    let start = cursor.at;
    let mut fields = Fields::default();
    let mut count = 0;
    while cursor.peek()? != b'\r' {
        count += 1;
        if count > MAX_FIELDS {
            return Err(Stop::Refused(431));
        }
        let name = cursor.run(TOKEN, usize::MAX, 400)?;
        if name.is_empty() {
            return Err(BAD);
        }
        cursor.expect(b':')?;
        let value = cursor.value()?;
        fields.take(name, value)?;
    }
    let end = cursor.at;
    cursor.line_end()?;
    let (length, keep_alive) = fields.judge(minor)?;
    Ok(Head {
        method,
        method_name,
        path: target.path,
        query: target.query,
        minor,
        host: target.authority.or(fields.host).unwrap_or_default(),
        fields: &cursor.data[start..end],
        length,
        // What follows a CONNECT may be no request.
        keep_alive: keep_alive && method != Method::Connect,
        expects: fields.expects && minor == 1 && length != Length::None,
        conditional: fields.conditional,
        len: cursor.at,
    })
}

/// `HTTP/1.x` and the end of the line: 0, or 1 for anything above.
#[inline]
fn version(cursor: &mut Cursor<'_>) -> Result<u8, Stop> {
    if cursor.data[cursor.at..].starts_with(b"HTTP/1.1\r\n") {
        cursor.at += 10;
        return Ok(1);
    }
    for wanted in b"HTTP/" {
        cursor.expect(*wanted)?;
    }
    let mut digit = || -> Result<u8, Stop> {
        let byte = cursor.peek()?;
        cursor.at += 1;
        if byte.is_ascii_digit() { Ok(byte - b'0') } else { Err(BAD) }
    };
    let major = digit()?;
    cursor.expect(b'.')?;
    let mut digit = || -> Result<u8, Stop> {
        let byte = cursor.peek()?;
        cursor.at += 1;
        if byte.is_ascii_digit() { Ok(byte - b'0') } else { Err(BAD) }
    };
    let minor = digit()?;
    cursor.line_end()?;
    if major == 1 { Ok(minor.min(1)) } else { Err(Stop::Refused(505)) }
}

struct Target<'d> {
    path: &'d [u8],
    query: &'d [u8],
    authority: Option<&'d [u8]>,
}

impl<'d> Target<'d> {
    /// One of the four forms of RFC 9112, section 3.2.
    #[inline]
    fn of(target: &'d [u8], method: Method) -> Option<Target<'d>> {
        if method == Method::Connect {
            let has_port = chars::authority(target)?;
            return has_port.then_some(Target { path: b"", query: b"", authority: Some(target) });
        }
        if target[0] == b'/' {
            let (path, query) = split_query(target);
            return Some(Target { path, query, authority: None });
        }
        if target == b"*" {
            return (method == Method::Options).then_some(Target { path: target, query: b"", authority: None });
        }
        let scheme = [&b"http://"[..], b"https://"]
            .into_iter()
            .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))?;
        let rest = &target[scheme.len()..];
        let authority = &rest[..chars::run(rest, AUTHORITY)];
        chars::authority(authority)?;
        if authority.is_empty() || authority[0] == b':' {
            return None;
        }
        let (path, query) = split_query(&rest[authority.len()..]);
        let path = match (path, method) {
            (b"", Method::Options) if query.is_empty() => b"*",
            (b"", _) => b"/",
            (path, _) if path[0] == b'/' => path,
            _ => return None,
        };
        Some(Target { path, query, authority: Some(authority) })
    }
}

#[inline]
fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()))
}

/// What the fields say that decide where the request ends, and what becomes of the connection.
#[derive(Default)]
struct Fields<'d> {
    host: Option<&'d [u8]>,
    length: Option<u64>,
    chunked: bool,
    /// A coding other than chunked.
    unknown_coding: bool,
    has_coding: bool,
    close: bool,
    keep: bool,
    expects: bool,
    conditional: bool,
}

impl<'d> Fields<'d> {
    #[inline]
    fn take(&mut self, name: &[u8], value: &'d [u8]) -> Result<(), Stop> {
        // Most names differ in length from all of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() || chars::authority(value).is_none() {
                    return Err(BAD);
                }
                self.host = Some(value);
            }
            5 if name.eq_ignore_ascii_case(b"range") => self.conditional = true,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Stop::Refused(417));
                }
                self.expects = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in chars::list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(BAD);
                }
                self.length = Some(chars::number(value).ok_or(BAD)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value)?,
            8 | 13 | 17 | 19 if name[..3].eq_ignore_ascii_case(b"if-") => self.conditional = true,
            _ => {}
        }
        Ok(())
    }

    #[cold]
    fn coding(&mut self, value: &[u8]) -> Result<(), Stop> {
        self.has_coding = true;
        let mut any = false;
        for coding in chars::list(value) {
            any = true;
            if !coding.eq_ignore_ascii_case(b"chunked") {
                self.unknown_coding = true;
            } else if std::mem::replace(&mut self.chunked, true) {
                return Err(BAD);
            }
        }
        if any { Ok(()) } else { Err(BAD) }
    }

    #[inline]
    fn judge(&self, minor: u8) -> Result<(Length, bool), Stop> {
        let length = match self.length {
            None | Some(0) => Length::None,
            Some(length) => Length::Bytes(length),
        };
        let length = if self.has_coding {
            // Two statements of one length, or one that the version does not have: somebody before us may have read it the other way.
            if self.length.is_some() || minor == 0 {
                return Err(BAD);
            }
            if self.unknown_coding {
                return Err(Stop::Refused(501));
            }
            Length::Chunked
        } else {
            length
        };
        if minor == 1 && self.host.is_none() {
            return Err(BAD);
        }
        Ok((length, !self.close && (minor == 1 || self.keep)))
    }
}

impl<'d> Head<'d> {
    /// The values of a field, in their order. `name` in lower case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'d [u8]> + use<'d, 'n> {
        fields(self.fields).filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }
}

/// Names and values of lines that `parse` has seen.
pub fn fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], chars::trim(line[colon + 1..].trim_ascii_end())))
    })
}
