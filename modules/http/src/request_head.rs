//! Parses the head of a request, which is the request line and the fields (RFC 9112), in one pass
//! and without copies.
//!
//! Pure. Strict where two parsers could see different requests in the same bytes: lines end with CR
//! LF only, a colon follows its field name directly, a length consists of digits, and the body's
//! length is stated once. An error depends only on the bytes before it, so the result does not
//! depend on the pieces in which a head arrives.

use crate::syntax::{self, AUTHORITY, TARGET, TOKEN};

/// Most fields of one head.
const MAX_FIELDS: usize = 100;
/// Longest name of a method, in bytes.
const MAX_METHOD: usize = 32;
/// Empty lines that are skipped before a request. Old clients send them after a body.
const MAX_EMPTY_LINES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Options,
    Connect,
    /// POST, PUT, DELETE, PATCH or TRACE: known, but fixed answers and files do not allow it.
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

/// The length of the body, as the fields state it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Bytes(u64),
    Chunked,
}

/// A complete and valid head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead<'d> {
    pub method: Method,
    pub method_name: &'d [u8],
    /// The target without its query, not decoded: begins with a slash, or is `*`. Empty for
    /// CONNECT.
    pub path: &'d [u8],
    /// The query with its question mark; empty for none.
    pub query: &'d [u8],
    /// The minor version of HTTP/1: 0, or 1 for 1 and above.
    pub minor: u8,
    /// The authority of the target, otherwise the value of Host; empty for none.
    pub host: &'d [u8],
    /// The lines of the fields, each with its CR LF.
    pub fields: &'d [u8],
    pub length: BodyLength,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub expects: bool,
    /// Whether there is a Range, or a field whose name begins with `If-`.
    pub conditional: bool,
    /// Bytes of the whole head.
    pub len: usize,
}

/// The result of `parse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'d> {
    Whole(RequestHead<'d>),
    /// The end of the head has not arrived.
    Partial,
    /// Not a request, or not one that is served: the status code to answer before the connection is
    /// closed.
    Refused(u16),
}

/// Limits of a head, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the whole head.
    pub head: usize,
    /// Of the request target.
    pub target: usize,
}

enum ParseError {
    Partial,
    Refused(u16),
}

const BAD_REQUEST: ParseError = ParseError::Refused(400);

/// Parses the head at the beginning of `data`.
#[inline]
pub fn parse(data: &[u8], limits: Limits) -> Parsed<'_> {
    let at_limit = data.len() >= limits.head;
    let mut cursor = Cursor { data: if at_limit { &data[..limits.head] } else { data }, at: 0 };
    match read(&mut cursor, limits) {
        Ok(head) => Parsed::Whole(head),
        Err(ParseError::Partial) if at_limit => Parsed::Refused(431),
        Err(ParseError::Partial) => Parsed::Partial,
        Err(ParseError::Refused(code)) => Parsed::Refused(code),
    }
}

struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
}

impl<'d> Cursor<'d> {
    #[inline]
    fn peek(&self) -> Result<u8, ParseError> {
        self.data.get(self.at).copied().ok_or(ParseError::Partial)
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), ParseError> {
        if self.peek()? != wanted {
            return Err(BAD_REQUEST);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn line_end(&mut self) -> Result<(), ParseError> {
        self.expect(b'\r')?;
        self.expect(b'\n')
    }

    #[inline]
    fn digit(&mut self) -> Result<u8, ParseError> {
        let byte = self.peek()?;
        self.at += 1;
        if byte.is_ascii_digit() { Ok(byte - b'0') } else { Err(BAD_REQUEST) }
    }

    /// Takes the bytes of the class from here on, and needs the byte after them to be there. More
    /// than `max` bytes are refused with `code`.
    #[inline]
    fn run(&mut self, class: u8, max: usize, code: u16) -> Result<&'d [u8], ParseError> {
        let rest = &self.data[self.at..];
        let len = syntax::run(rest, class);
        if len > max {
            return Err(ParseError::Refused(code));
        }
        self.at += len;
        if len == rest.len() {
            return Err(ParseError::Partial);
        }
        Ok(&rest[..len])
    }

    /// Takes the value of a field and the end of its line. Returns the value without blanks around
    /// it.
    #[inline]
    fn value(&mut self) -> Result<&'d [u8], ParseError> {
        let rest = &self.data[self.at..];
        let len = syntax::text_run(rest);
        self.at += len;
        self.line_end()?;
        Ok(syntax::trim(&rest[..len]))
    }
}

#[inline]
fn read<'d>(cursor: &mut Cursor<'d>, limits: Limits) -> Result<RequestHead<'d>, ParseError> {
    for _ in 0..MAX_EMPTY_LINES {
        if cursor.peek()? != b'\r' {
            break;
        }
        cursor.line_end()?;
    }
    let method_name = cursor.run(TOKEN, MAX_METHOD, 400)?;
    if method_name.is_empty() {
        return Err(BAD_REQUEST);
    }
    cursor.expect(b' ')?;
    let target = cursor.run(TARGET, limits.target, 414)?;
    if target.is_empty() {
        return Err(BAD_REQUEST);
    }
    cursor.expect(b' ')?;
    let minor = version(cursor)?;
    let method = Method::of(method_name);
    let target = Target::of(target, method).ok_or(BAD_REQUEST)?;
    let start = cursor.at;
    let mut fields = Fields::default();
    let mut count = 0;
    while cursor.peek()? != b'\r' {
        count += 1;
        if count > MAX_FIELDS {
            return Err(ParseError::Refused(431));
        }
        let name = cursor.run(TOKEN, usize::MAX, 400)?;
        if name.is_empty() {
            return Err(BAD_REQUEST);
        }
        cursor.expect(b':')?;
        let value = cursor.value()?;
        fields.take(name, value)?;
    }
    let end = cursor.at;
    cursor.line_end()?;
    let (length, keep_alive) = fields.framing(minor)?;
    Ok(RequestHead {
        method,
        method_name,
        path: target.path,
        query: target.query,
        minor,
        host: target.authority.or(fields.host).unwrap_or_default(),
        fields: &cursor.data[start..end],
        length,
        // The bytes after a CONNECT may not be a request.
        keep_alive: keep_alive && method != Method::Connect,
        expects: fields.expects && minor == 1 && length != BodyLength::None,
        conditional: fields.conditional,
        len: cursor.at,
    })
}

/// Takes `HTTP/1.x` and the end of the line. Returns the minor version, 1 for anything above 1.
#[inline]
fn version(cursor: &mut Cursor<'_>) -> Result<u8, ParseError> {
    if cursor.data[cursor.at..].starts_with(b"HTTP/1.1\r\n") {
        cursor.at += 10;
        return Ok(1);
    }
    for wanted in b"HTTP/" {
        cursor.expect(*wanted)?;
    }
    let major = cursor.digit()?;
    cursor.expect(b'.')?;
    let minor = cursor.digit()?;
    cursor.line_end()?;
    if major == 1 { Ok(minor.min(1)) } else { Err(ParseError::Refused(505)) }
}

struct Target<'d> {
    path: &'d [u8],
    query: &'d [u8],
    authority: Option<&'d [u8]>,
}

impl<'d> Target<'d> {
    /// Parses one of the four forms of RFC 9112, section 3.2.
    #[inline]
    fn of(target: &'d [u8], method: Method) -> Option<Target<'d>> {
        if method == Method::Connect {
            let has_port = syntax::authority(target)?;
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
        let authority = &rest[..syntax::run(rest, AUTHORITY)];
        syntax::authority(authority)?;
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

/// The fields that decide where the request ends and whether the connection stays open.
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
    fn take(&mut self, name: &[u8], value: &'d [u8]) -> Result<(), ParseError> {
        // Comparing lengths first rules out most names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() || syntax::authority(value).is_none() {
                    return Err(BAD_REQUEST);
                }
                self.host = Some(value);
            }
            5 if name.eq_ignore_ascii_case(b"range") => self.conditional = true,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(ParseError::Refused(417));
                }
                self.expects = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in syntax::list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(BAD_REQUEST);
                }
                self.length = Some(syntax::number(value).ok_or(BAD_REQUEST)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value)?,
            8 | 13 | 17 | 19 if name[..3].eq_ignore_ascii_case(b"if-") => self.conditional = true,
            _ => {}
        }
        Ok(())
    }

    #[cold]
    fn coding(&mut self, value: &[u8]) -> Result<(), ParseError> {
        self.has_coding = true;
        let mut any = false;
        for coding in syntax::list(value) {
            any = true;
            if !coding.eq_ignore_ascii_case(b"chunked") {
                self.unknown_coding = true;
            } else if std::mem::replace(&mut self.chunked, true) {
                return Err(BAD_REQUEST);
            }
        }
        if any { Ok(()) } else { Err(BAD_REQUEST) }
    }

    /// Returns the length of the body, and whether the connection stays open.
    #[inline]
    fn framing(&self, minor: u8) -> Result<(BodyLength, bool), ParseError> {
        let length = match self.length {
            None | Some(0) => BodyLength::None,
            Some(length) => BodyLength::Bytes(length),
        };
        let length = if self.has_coding {
            // Two statements of the length, or a coding that HTTP/1.0 does not have: a proxy before
            // this server may have read the request the other way.
            if self.length.is_some() || minor == 0 {
                return Err(BAD_REQUEST);
            }
            if self.unknown_coding {
                return Err(ParseError::Refused(501));
            }
            BodyLength::Chunked
        } else {
            length
        };
        if minor == 1 && self.host.is_none() {
            return Err(BAD_REQUEST);
        }
        Ok((length, !self.close && (minor == 1 || self.keep)))
    }
}

impl<'d> RequestHead<'d> {
    /// The values of a field, in order. `name` is in lower case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'d [u8]> + use<'d, 'n> {
        fields(self.fields).filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }
}

/// Names and values of the fields in lines that `parse` has accepted.
pub fn fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], syntax::trim(line[colon + 1..].trim_ascii_end())))
    })
}
