//! Formats answers and writes them into the output queue of a connection.
//!
//! Runs in TCP workers. Allocates nothing.

use std::os::fd::BorrowedFd;

use module_api::prelude::*;
use module_api::{StreamError, date};

use crate::request_head::{Method, RequestHead};

/// What answers are written to: a connection, or the client of a test.
pub trait Output {
    /// As [`Stream::write`].
    fn write(&mut self, data: &[u8]) -> Result<(), StreamError>;
    /// As [`Stream::write_with`].
    fn write_with(&mut self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), StreamError>;
    /// As [`Stream::write_file`].
    fn write_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), StreamError>;
    /// As [`Stream::close`].
    fn close(&mut self);
    /// The client's address, for the log and for functions of other modules; `None` on a Unix
    /// socket.
    fn peer(&self) -> Option<std::net::SocketAddr>;
}

impl Output for Stream<'_> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        Stream::write(self, data)
    }

    #[inline]
    fn write_with(&mut self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), StreamError> {
        Stream::write_with(self, size, write)
    }

    fn write_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), StreamError> {
        Stream::write_file(self, file, offset, len)
    }

    fn close(&mut self) {
        Stream::close(self);
    }

    fn peer(&self) -> Option<std::net::SocketAddr> {
        Stream::peer(self)
    }
}

/// The reason phrase of a status code.
pub fn reason(code: u16) -> &'static str {
    match code {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

/// The current second, and the fields that every answer has.
#[derive(Debug)]
pub struct Clock {
    /// Seconds since 1970.
    pub now_s: u64,
    /// The lines `Date: ...` and, if configured, `Server: ...`.
    pub lines: Vec<u8>,
}

/// Offset of the date in `Clock::lines`.
const DATE_AT: usize = b"Date: ".len();

impl Clock {
    /// `server` is the value of the field `Server`; empty for no such field.
    pub fn new(server: &str) -> Clock {
        let server = if server.is_empty() { String::new() } else { format!("Server: {server}\r\n") };
        let mut clock = Clock { now_s: u64::MAX, lines: format!("Date: {}\r\n{server}", " ".repeat(date::LENGTH)).into_bytes() };
        clock.set(0);
        clock
    }

    #[inline]
    pub fn set(&mut self, now_s: u64) {
        if self.now_s != now_s {
            self.now_s = now_s;
            self.lines[DATE_AT..DATE_AT + date::LENGTH].copy_from_slice(&date::text(now_s));
        }
    }

    fn date(&self) -> &[u8] {
        &self.lines[DATE_AT..DATE_AT + date::LENGTH]
    }
}

const CLOSE: &[u8] = b"Connection: close\r\n";

/// The `Connection` line of the answer to a request; empty for none.
#[inline]
fn connection_line(head: &RequestHead<'_>) -> &'static [u8] {
    match (head.minor, head.keep_alive) {
        (_, false) => CLOSE,
        (1, true) => b"",
        (_, true) => b"Connection: keep-alive\r\n",
    }
}

/// An answer that is formatted once. Only its `Date` changes.
#[derive(Debug)]
pub struct PreparedReply {
    /// Head and body.
    bytes: Vec<u8>,
    head_bytes: usize,
    code: u16,
    /// Offset of the date in `bytes`.
    date_at: usize,
    /// The date in `bytes`, in seconds since 1970.
    date_s: u64,
}

impl PreparedReply {
    /// `fields` are whole lines. `length` is the value of `Content-Length`; `None` for no such
    /// field.
    pub fn new(clock: &Clock, code: u16, fields: &[u8], length: Option<u64>, body: &[u8]) -> PreparedReply {
        let mut bytes = format!("HTTP/1.1 {code} {}\r\n", reason(code)).into_bytes();
        let date_at = bytes.len() + DATE_AT;
        bytes.extend_from_slice(&clock.lines);
        bytes.extend_from_slice(fields);
        if let Some(length) = length {
            bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let head_bytes = bytes.len();
        bytes.extend_from_slice(body);
        PreparedReply { bytes, head_bytes, code, date_at, date_s: clock.now_s }
    }

    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_bytes..]
    }

    /// Answers a request. Returns the status code.
    #[inline]
    pub fn write(&mut self, clock: &Clock, head: &RequestHead<'_>, output: &mut impl Output) -> Result<u16, StreamError> {
        if self.date_s != clock.now_s {
            self.date_s = clock.now_s;
            self.bytes[self.date_at..self.date_at + date::LENGTH].copy_from_slice(clock.date());
        }
        let bytes = if head.method == Method::Head { &self.bytes[..self.head_bytes] } else { &self.bytes[..] };
        let line = connection_line(head);
        if line.is_empty() {
            output.write(bytes)?;
        } else {
            let (before, after) = bytes.split_at(self.head_bytes - 2);
            write_pieces(output, &[before, line, after])?;
        }
        Ok(self.code)
    }
}

/// Writes the pieces without gaps, all or none.
fn write_pieces(output: &mut impl Output, pieces: &[&[u8]]) -> Result<(), StreamError> {
    output.write_with(pieces.iter().map(|piece| piece.len()).sum(), |buffer| {
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        at
    })
}

/// An answer that is formatted when it is written.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'r> {
    pub code: u16,
    /// Whole lines, in at most `MAX_FIELD_PIECES` pieces.
    pub fields: &'r [&'r [u8]],
    /// The value of `Content-Length`; `None` for no such field.
    pub length: Option<u64>,
    /// Not sent in the answer to a HEAD.
    pub body: &'r [u8],
}

const MAX_FIELD_PIECES: usize = 5;

impl Reply<'_> {
    /// Answers a request. Returns the status code.
    pub fn write(&self, clock: &Clock, head: &RequestHead<'_>, output: &mut impl Output) -> Result<u16, StreamError> {
        let body = if head.method == Method::Head { b"" } else { self.body };
        self.write_parts(clock, connection_line(head), body, output)
    }

    /// Answers bytes that are not a request, or one that is not read to its end. The answer
    /// announces that the connection is closed.
    pub fn write_last(&self, clock: &Clock, output: &mut impl Output) -> Result<u16, StreamError> {
        self.write_parts(clock, CLOSE, self.body, output)
    }

    fn write_parts(&self, clock: &Clock, connection_line: &[u8], body: &[u8], output: &mut impl Output) -> Result<u16, StreamError> {
        let (mut code, mut length) = (Decimal::new(), Decimal::new());
        let mut pieces: [&[u8]; 17] = [b""; 17];
        pieces[..6].copy_from_slice(&[b"HTTP/1.1 ", code.of(self.code.into()), b" ", reason(self.code).as_bytes(), b"\r\n", &clock.lines]);
        let fields = self.fields.len().min(MAX_FIELD_PIECES);
        pieces[6..6 + fields].copy_from_slice(&self.fields[..fields]);
        if let Some(bytes) = self.length {
            pieces[11..14].copy_from_slice(&[b"Content-Length: ", length.of(bytes), b"\r\n"]);
        }
        pieces[14..].copy_from_slice(&[connection_line, b"\r\n", body]);
        write_pieces(output, &pieces)?;
        Ok(self.code)
    }
}

/// A buffer for the decimal digits of a number.
#[derive(Debug, Clone, Copy)]
pub struct Decimal([u8; 20]);

impl Decimal {
    pub fn new() -> Decimal {
        Decimal([0; 20])
    }

    /// Returns the digits.
    pub fn of(&mut self, mut number: u64) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

/// Writes a body such as `404 Not Found` into `text`. Returns its length.
pub fn status_text(code: u16, text: &mut [u8; 64]) -> usize {
    let (mut digits, reason) = (Decimal::new(), reason(code).as_bytes());
    let mut at = 0;
    for piece in [digits.of(code.into()), b" ", reason, b"\n"] {
        text[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    at
}
