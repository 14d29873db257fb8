//! The topmost `Via` of a request (RFC 3261 section 18.2, RFC 3581).
//!
//! Pure, without copies.

use crate::syntax::{Cursor, HOST, TOKEN, number};
use crate::uri;

/// The topmost `Via`: where the answer goes, and what the server adds to the field. Offsets count
/// from the beginning of `value`.
#[derive(Debug, Clone, Copy)]
pub struct Via<'m> {
    /// The value of the whole header field. The topmost `Via` is its first element.
    pub value: &'m [u8],
    /// Offset of the element's end.
    pub end: usize,
    pub host: &'m [u8],
    pub port: Option<u16>,
    pub branch: Option<&'m [u8]>,
    /// Offset of the end of an `rport` without a value (RFC 3581).
    pub rport_end: Option<usize>,
    /// Offsets of a `received` that the client wrote: of its semicolon, and of its end.
    pub received: Option<(usize, usize)>,
    /// Whether the parameters are well-formed. If not, the server adds nothing.
    pub is_well_formed: bool,
}

impl<'m> Via<'m> {
    /// `None` if the value does not tell where the answer would go.
    #[inline]
    pub fn parse(value: &'m [u8]) -> Option<Via<'m>> {
        let mut cursor = Cursor::new(value);
        let protocol = cursor.take(TOKEN);
        if !cursor.eat_between_blanks(b'/') || !protocol.eq_ignore_ascii_case(b"SIP") {
            return None;
        }
        let version = cursor.take(TOKEN);
        if !cursor.eat_between_blanks(b'/') || version != b"2.0" {
            return None;
        }
        let transport = cursor.take(TOKEN);
        let before = cursor.at;
        cursor.skip_blanks();
        if transport.is_empty() || cursor.at == before {
            return None;
        }
        let host = if cursor.peek() == Some(b'[') {
            let host = uri::host(&value[cursor.at..])?;
            cursor.at += host.len();
            host
        } else {
            cursor.take(HOST)
        };
        if host.is_empty() {
            return None;
        }
        let mut port = None;
        if cursor.eat_between_blanks(b':') {
            port = Some(number(cursor.take(TOKEN), 65_535)? as u16);
        }
        let mut via = Via { value, end: cursor.at, host, port, branch: None, rport_end: None, received: None, is_well_formed: false };
        via.is_well_formed = via.params(&mut cursor).is_some();
        Some(via)
    }

    /// Parses the parameters; `None` if they are malformed.
    fn params(&mut self, cursor: &mut Cursor<'m>) -> Option<()> {
        while let Some(param) = cursor.param().ok()? {
            let before = self.end;
            self.end = cursor.at;
            if param.is(b"branch") {
                self.branch = Some(param.value?);
            } else if param.is(b"rport") && param.value.is_none() {
                self.rport_end = Some(param.name_end);
            } else if param.is(b"received") && self.received.is_none() {
                self.received = Some((before, param.end));
            }
        }
        cursor.skip_blanks();
        matches!(cursor.peek(), None | Some(b',')).then_some(())
    }
}
