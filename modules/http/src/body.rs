//! Where the body of a request ends: by its length, or chunk by chunk (RFC 9112, section 7.1).
//!
//! Pure. Goes on at any byte, so it does not matter in which pieces a body arrives. As strict as `head` about the ends of lines.

use crate::chars::{self, TOKEN};
use crate::head::Length;

/// Extensions of chunks and trailers of one body, in bytes.
const MAX_OVERHEAD: u32 = 8 << 10;
/// Digits of the size of a chunk.
const MAX_DIGITS: u8 = 16;

/// How far a body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// So many bytes are missing.
    Length(u64),
    Chunked(Chunked),
}

/// How far a body in chunks was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// The size of the chunk, as far as it was read, and then what is missing.
    size: u64,
    digits: u8,
    /// So many bytes may still come.
    room: u64,
    overhead: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    LineStart,
    Name,
    Value,
    LineEnd,
    LastLf,
}

/// What a call of `feed` has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that belong to the body.
    pub used: usize,
    /// It ends there.
    pub done: bool,
}

impl Decoder {
    /// At the beginning of a body of at most `max_bytes`; the code of the refusal if it is longer for certain, none without a body.
    pub fn new(length: Length, max_bytes: u64) -> Result<Option<Decoder>, u16> {
        match length {
            Length::None => Ok(None),
            Length::Bytes(bytes) if bytes > max_bytes => Err(413),
            Length::Bytes(bytes) => Ok(Some(Decoder::Length(bytes))),
            Length::Chunked => {
                let start = Chunked { state: State::Size, size: 0, digits: 0, room: max_bytes, overhead: 0 };
                Ok(Some(Decoder::Chunked(start)))
            }
        }
    }

    /// Goes on with what has arrived; `take` gets what the body says. An error is the code of the answer, after which nobody knows where the
    /// next request begins.
    pub fn feed(&mut self, data: &[u8], mut take: impl FnMut(&[u8])) -> Result<Fed, u16> {
        match self {
            Decoder::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                take(&data[..used]);
                *left -= used as u64;
                Ok(Fed { used, done: *left == 0 })
            }
            Decoder::Chunked(chunked) => chunked.feed(data, take),
        }
    }
}

impl Chunked {
    fn feed(&mut self, data: &[u8], mut take: impl FnMut(&[u8])) -> Result<Fed, u16> {
        let mut at = 0;
        while let Some(byte) = data.get(at) {
            if self.state == State::Data {
                let len = usize::try_from(self.size).unwrap_or(usize::MAX).min(data.len() - at);
                take(&data[at..at + len]);
                self.size -= len as u64;
                at += len;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(*byte)? {
                return Ok(Fed { used: at, done: true });
            }
        }
        Ok(Fed { used: at, done: false })
    }

    /// One byte outside the data. True: it was the last one of the body.
    fn step(&mut self, byte: u8) -> Result<bool, u16> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r' | b';') if self.digits > 0 => {
                if byte == b'\r' {
                    State::SizeEnd
                } else {
                    self.count(State::Extension)?
                }
            }
            (State::Size, _) => {
                let digit = (byte as char).to_digit(16).ok_or(400_u16)?;
                self.digits += 1;
                if self.digits > MAX_DIGITS || self.size >> 60 != 0 {
                    return Err(400);
                }
                self.size = self.size << 4 | u64::from(digit);
                if self.size > self.room {
                    return Err(413);
                }
                State::Size
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if chars::is_text(byte) => self.count(State::Extension)?,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                self.room -= self.size;
                if self.size == 0 { State::LineStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::LineStart, b'\r') => State::LastLf,
            (State::LineStart, byte) if chars::is(byte, TOKEN) => self.count(State::Name)?,
            (State::Name, b':') => self.count(State::Value)?,
            (State::Name, byte) if chars::is(byte, TOKEN) => self.count(State::Name)?,
            (State::Value, b'\r') => State::LineEnd,
            (State::Value, byte) if chars::is_text(byte) => self.count(State::Value)?,
            (State::LineEnd, b'\n') => State::LineStart,
            (State::LastLf, b'\n') => return Ok(true),
            _ => return Err(400),
        };
        Ok(false)
    }

    /// One more byte of what is no data.
    fn count(&mut self, next: State) -> Result<State, u16> {
        self.overhead += 1;
        let trailer = matches!(next, State::Name | State::Value);
        match self.overhead {
            0..=MAX_OVERHEAD => Ok(next),
            _ if trailer => Err(431),
            _ => Err(400),
        }
    }
}
