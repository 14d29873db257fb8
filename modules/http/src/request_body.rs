//! Decodes the body of a request, of known length or chunked (RFC 9112, section 7.1).
//!
//! Pure. The state is kept between any two bytes, so the result does not depend on the pieces in
//! which a body arrives. As strict about line ends as `request_head`.

use crate::request_head::BodyLength;
use crate::syntax::{self, TOKEN};

/// Most bytes of chunk extensions and trailers in one body.
const MAX_OVERHEAD: u32 = 8 << 10;
/// Most hexadecimal digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// The state of a body that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// Of known length: the bytes still missing.
    Length(u64),
    Chunked(Chunked),
}

/// The state of a chunked body that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: ChunkState,
    /// While the size is read, the digits so far; while the data is read, the bytes still missing.
    size: u64,
    digits: u8,
    /// Bytes of data that the limit still allows.
    room: u64,
    /// Bytes of extensions and trailers so far.
    overhead: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
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

/// The result of `feed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to the body.
    pub used: usize,
    /// Whether the body ends after them.
    pub is_complete: bool,
}

impl Decoder {
    /// For the body that a head announces; `None` if it announces none. The error is the status
    /// code for a body that is known to be longer than `max_bytes`.
    pub fn new(length: BodyLength, max_bytes: u64) -> Result<Option<Decoder>, u16> {
        match length {
            BodyLength::None => Ok(None),
            BodyLength::Bytes(bytes) if bytes > max_bytes => Err(413),
            BodyLength::Bytes(bytes) => Ok(Some(Decoder::Length(bytes))),
            BodyLength::Chunked => {
                let start = Chunked { state: ChunkState::Size, size: 0, digits: 0, room: max_bytes, overhead: 0 };
                Ok(Some(Decoder::Chunked(start)))
            }
        }
    }

    /// Decodes bytes that have arrived and passes the contents of the body to `take`. An error is
    /// the status code to answer; the connection must then be closed, because the beginning of the
    /// next request is unknown.
    pub fn feed(&mut self, data: &[u8], mut take: impl FnMut(&[u8])) -> Result<Progress, u16> {
        match self {
            Decoder::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                take(&data[..used]);
                *left -= used as u64;
                Ok(Progress { used, is_complete: *left == 0 })
            }
            Decoder::Chunked(chunked) => chunked.feed(data, take),
        }
    }
}

impl Chunked {
    fn feed(&mut self, data: &[u8], mut take: impl FnMut(&[u8])) -> Result<Progress, u16> {
        let mut at = 0;
        while let Some(byte) = data.get(at) {
            if self.state == ChunkState::Data {
                let len = usize::try_from(self.size).unwrap_or(usize::MAX).min(data.len() - at);
                take(&data[at..at + len]);
                self.size -= len as u64;
                at += len;
                if self.size == 0 {
                    self.state = ChunkState::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(*byte)? {
                return Ok(Progress { used: at, is_complete: true });
            }
        }
        Ok(Progress { used: at, is_complete: false })
    }

    /// Decodes one byte outside the data. Returns whether it was the last byte of the body.
    fn step(&mut self, byte: u8) -> Result<bool, u16> {
        self.state = match (self.state, byte) {
            (ChunkState::Size, b'\r' | b';') if self.digits > 0 => {
                if byte == b'\r' {
                    ChunkState::SizeEnd
                } else {
                    self.count(ChunkState::Extension)?
                }
            }
            (ChunkState::Size, _) => {
                let digit = (byte as char).to_digit(16).ok_or(400_u16)?;
                self.digits += 1;
                if self.digits > MAX_DIGITS || self.size >> 60 != 0 {
                    return Err(400);
                }
                self.size = self.size << 4 | u64::from(digit);
                if self.size > self.room {
                    return Err(413);
                }
                ChunkState::Size
            }
            (ChunkState::Extension, b'\r') => ChunkState::SizeEnd,
            (ChunkState::Extension, byte) if syntax::is_text(byte) => self.count(ChunkState::Extension)?,
            (ChunkState::SizeEnd, b'\n') => {
                self.digits = 0;
                self.room -= self.size;
                if self.size == 0 { ChunkState::LineStart } else { ChunkState::Data }
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size,
            (ChunkState::LineStart, b'\r') => ChunkState::LastLf,
            (ChunkState::LineStart, byte) if syntax::is(byte, TOKEN) => self.count(ChunkState::Name)?,
            (ChunkState::Name, b':') => self.count(ChunkState::Value)?,
            (ChunkState::Name, byte) if syntax::is(byte, TOKEN) => self.count(ChunkState::Name)?,
            (ChunkState::Value, b'\r') => ChunkState::LineEnd,
            (ChunkState::Value, byte) if syntax::is_text(byte) => self.count(ChunkState::Value)?,
            (ChunkState::LineEnd, b'\n') => ChunkState::LineStart,
            (ChunkState::LastLf, b'\n') => return Ok(true),
            _ => return Err(400),
        };
        Ok(false)
    }

    /// Counts a byte of an extension or a trailer, and enters the next state.
    fn count(&mut self, next: ChunkState) -> Result<ChunkState, u16> {
        self.overhead += 1;
        let trailer = matches!(next, ChunkState::Name | ChunkState::Value);
        match self.overhead {
            0..=MAX_OVERHEAD => Ok(next),
            _ if trailer => Err(431),
            _ => Err(400),
        }
    }
}
