//! Answers: their status lines, and how they are written into the buffer of a connection.
//!
//! Runs in TCP workers. Allocates nothing.

use std::os::fd::BorrowedFd;

use module_api::prelude::*;
use module_api::{StreamError, date};

use crate::head::{Head, Method};

/// What answers are written to: a connection, or what a test looks at.
pub trait Wire {
    /// As [`Stream::write`].
    fn write(&mut self, data: &[u8]) -> Result<(), StreamError>;
    /// As [`Stream::write_with`].
    fn write_with(&mut self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), StreamError>;
    /// As [`Stream::write_file`].
    fn write_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), StreamError>;
    /// As [`Stream::close`].
    fn close(&mut self);
    /// Who asks, for the log and for functions of other modules. None over a Unix socket.
    fn peer(&self) -> Option<std::net::SocketAddr>;
}

impl Wire for Stream<'_> {
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

/// The words behind a code.
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

/// The time, and the lines that many answers have.
#[derive(Debug)]
pub struct Clock {
    /// Seconds since 1970.
    pub now_s: u64,
    /// `Date: ...` and the configured `Server: ...`, with line ends.
    pub lines: Vec<u8>,
}

/// Where the moment stands in the lines.
const DATE_AT: usize = b"Date: ".len();

impl Clock {
    /// With the name of the server, or without if it is empty.
    pub fn new(server: &str) -> Clock {
        let server = if server.is_empty() { String::new() } else { format!("Server: {server}\r\n") };
        let mut clock = Clock { now_s: u64::MAX, lines: format!("Date: {}\r\n{server}", " ".repeat(date::LENGTH)).into_bytes() };
        clock.set(0);
        clock
    }

    /// It is that second.
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

/// The line about the connection that an answer needs; empty for none.
#[inline]
fn connection(minor: u8, keep_alive: bool) -> &'static [u8] {
    match (minor, keep_alive) {
        (_, false) => b"Connection: close\r\n",
        (1, true) => b"",
        (_, true) => b"Connection: keep-alive\r\n",
    }
}

/// An answer that is the same each time, but for its `Date`.
#[derive(Debug)]
pub struct Page {
    /// Head and body.
    bytes: Vec<u8>,
    /// Length of the head.
    head: usize,
    code: u16,
    date_at: usize,
    /// The second that stands there.
    second: u64,
}

impl Page {
    /// `fields` are whole lines; `length` is what the head says about the body, `body` what follows it.
    pub fn new(clock: &Clock, code: u16, fields: &[u8], length: Option<u64>, body: &[u8]) -> Page {
        let mut bytes = format!("HTTP/1.1 {code} {}\r\n", reason(code)).into_bytes();
        let date_at = bytes.len() + DATE_AT;
        bytes.extend_from_slice(&clock.lines);
        bytes.extend_from_slice(fields);
        if let Some(length) = length {
            bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let head = bytes.len();
        bytes.extend_from_slice(body);
        Page { bytes, head, code, date_at, second: clock.now_s }
    }

    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Answers with it.
    #[inline]
    pub fn write(&mut self, clock: &Clock, head: &Head<'_>, wire: &mut impl Wire) -> Result<u16, StreamError> {
        if self.second != clock.now_s {
            self.second = clock.now_s;
            self.bytes[self.date_at..self.date_at + date::LENGTH].copy_from_slice(clock.date());
        }
        let bytes = if head.method == Method::Head { &self.bytes[..self.head] } else { &self.bytes[..] };
        let line = connection(head.minor, head.keep_alive);
        if line.is_empty() {
            wire.write(bytes)?;
        } else {
            let (before, after) = bytes.split_at(self.head - 2);
            put(wire, &[before, line, after])?;
        }
        Ok(self.code)
    }
}

/// Writes pieces one behind the other.
fn put(wire: &mut impl Wire, pieces: &[&[u8]]) -> Result<(), StreamError> {
    wire.write_with(pieces.iter().map(|piece| piece.len()).sum(), |buffer| {
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        at
    })
}

/// An answer that is made on the spot.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'r> {
    pub code: u16,
    /// Whole lines, in pieces.
    pub fields: &'r [&'r [u8]],
    /// What the head says about the body's length.
    pub length: Option<u64>,
    /// What follows the head, unless a HEAD is answered.
    pub body: &'r [u8],
}

impl Reply<'_> {
    /// Answers a request.
    pub fn write(&self, clock: &Clock, head: &Head<'_>, wire: &mut impl Wire) -> Result<u16, StreamError> {
        let body = if head.method == Method::Head { b"" } else { self.body };
        self.put(clock, connection(head.minor, head.keep_alive), body, wire)
    }

    /// Answers what is no request, or the last one of a connection.
    pub fn write_last(&self, clock: &Clock, wire: &mut impl Wire) -> Result<u16, StreamError> {
        self.put(clock, connection(1, false), self.body, wire)
    }

    fn put(&self, clock: &Clock, line: &[u8], body: &[u8], wire: &mut impl Wire) -> Result<u16, StreamError> {
        let (mut code, mut length) = (Decimal::new(), Decimal::new());
        let mut pieces: [&[u8]; 16] = [b""; 16];
        pieces[..6].copy_from_slice(&[b"HTTP/1.1 ", code.of(self.code.into()), b" ", reason(self.code).as_bytes(), b"\r\n", &clock.lines]);
        let fields = self.fields.len().min(5);
        pieces[6..6 + fields].copy_from_slice(&self.fields[..fields]);
        if let Some(bytes) = self.length {
            pieces[11..14].copy_from_slice(&[b"Content-Length: ", length.of(bytes), b"\r\n"]);
        }
        pieces[14] = line;
        let end: [&[u8]; 2] = [b"\r\n", body];
        let size = pieces.iter().chain(&end).map(|piece| piece.len()).sum();
        wire.write_with(size, |buffer| {
            let mut at = 0;
            for piece in pieces.iter().chain(&end) {
                buffer[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            at
        })?;
        Ok(self.code)
    }
}

/// A number as text.
#[derive(Debug, Clone, Copy)]
pub struct Decimal([u8; 20]);

impl Decimal {
    pub fn new() -> Decimal {
        Decimal([0; 20])
    }

    /// Its digits.
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

/// The answer that says nothing but its code, with a line of text for people.
pub fn plain(code: u16, text: &mut [u8; 64]) -> usize {
    let (mut digits, words) = (Decimal::new(), reason(code).as_bytes());
    let mut at = 0;
    for piece in [digits.of(code.into()), b" ", words, b"\n"] {
        text[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    at
}
