//! Splits the header of a request into its fields (RFC 3261 section 7.3).
//!
//! Pure, without copies. No input causes a panic.

use crate::syntax::{self, TOKEN};

/// Why a request is malformed: the reason phrase of a 400.
pub type Reason = &'static str;

/// The header fields that the server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldName {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    ContentLength,
    ContentType,
    ContentEncoding,
    Expires,
    MaxForwards,
    RecordRoute,
    Require,
    Other,
}

impl FieldName {
    /// Finds a field by its full or compact name (section 7.3.3), in upper or lower case.
    #[inline]
    pub fn of(name: &[u8]) -> FieldName {
        let is = |full: &[u8], found: FieldName| if name.eq_ignore_ascii_case(full) { found } else { FieldName::Other };
        match (name.len(), name.first().map_or(0, |byte| byte | 32)) {
            (1, b'v') => FieldName::Via,
            (1, b'f') => FieldName::From,
            (1, b't') => FieldName::To,
            (1, b'i') => FieldName::CallId,
            (1, b'm') => FieldName::Contact,
            (1, b'l') => FieldName::ContentLength,
            (1, b'c') => FieldName::ContentType,
            (1, b'e') => FieldName::ContentEncoding,
            (2, b't') => is(b"to", FieldName::To),
            (3, b'v') => is(b"via", FieldName::Via),
            (4, b'f') => is(b"from", FieldName::From),
            (4, b'c') => is(b"cseq", FieldName::CSeq),
            (7, b'c') => match is(b"call-id", FieldName::CallId) {
                FieldName::Other => is(b"contact", FieldName::Contact),
                found => found,
            },
            (7, b'e') => is(b"expires", FieldName::Expires),
            (7, b'r') => is(b"require", FieldName::Require),
            (12, b'm') => is(b"max-forwards", FieldName::MaxForwards),
            (12, b'r') => is(b"record-route", FieldName::RecordRoute),
            (12, b'c') => is(b"content-type", FieldName::ContentType),
            (14, b'c') => is(b"content-length", FieldName::ContentLength),
            (16, b'c') => is(b"content-encoding", FieldName::ContentEncoding),
            _ => FieldName::Other,
        }
    }
}

/// One header field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'m> {
    pub name: FieldName,
    /// Without blanks at both ends. Folds are kept.
    pub value: &'m [u8],
}

/// The header fields of a datagram, in order. As an iterator, skips malformed lines.
#[derive(Debug, Clone)]
pub struct Fields<'m> {
    bytes: &'m [u8],
    /// Offset of the next line.
    at: usize,
}

/// The next line of a header.
#[derive(Debug, Clone, Copy)]
pub enum Line<'m> {
    Field(Field<'m>),
    Malformed(Reason),
    /// The empty line. The body starts at this offset.
    End(usize),
    /// The datagram ends before the empty line.
    Cut,
}

impl<'m> Fields<'m> {
    /// The fields that begin at the offset `at`.
    pub fn new(bytes: &'m [u8], at: usize) -> Fields<'m> {
        Fields { bytes, at }
    }

    /// Takes the next line, with its folds.
    #[inline]
    pub fn next_line(&mut self) -> Line<'m> {
        let start = self.at;
        match &self.bytes[start..] {
            [b'\r', b'\n', ..] => return Line::End(start + 2),
            [b'\n', ..] => return Line::End(start + 1),
            _ => {}
        }
        let mut end = start;
        let mut all_crlf = true;
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.bytes[end..]) else { return Line::Cut };
            end += length;
            all_crlf &= end > start && self.bytes[end - 1] == b'\r';
            end += 1;
            if !matches!(self.bytes.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        self.at = end;
        let line = &self.bytes[start..end];
        let name_length = syntax::run(line, TOKEN);
        let mut colon = name_length;
        while matches!(line[colon], b' ' | b'\t') {
            colon += 1;
        }
        if !all_crlf {
            return Line::Malformed("A Line Does Not End with CR LF");
        }
        if name_length == 0 || line[colon] != b':' {
            return Line::Malformed("A Line Is Not a Header Field");
        }
        Line::Field(Field { name: FieldName::of(&line[..name_length]), value: trim(&line[colon + 1..]) })
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Field<'m>;

    fn next(&mut self) -> Option<Field<'m>> {
        loop {
            match self.next_line() {
                Line::Field(field) => return Some(field),
                Line::Malformed(_) => {}
                Line::End(_) | Line::Cut => return None,
            }
        }
    }
}

#[inline]
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}
