//! Parses `From`, `To` and `Contact` values: a URI with or without a display name, and parameters
//! (RFC 3261 section 20.10).
//!
//! Pure, without copies.

use crate::syntax::{Cursor, Param, TOKEN};
use crate::uri::{self, Uri};

/// The address of a header field, without its display name.
#[derive(Debug, Clone, Copy)]
pub struct Address<'m> {
    pub uri: &'m [u8],
    pub parsed: Uri<'m>,
}

impl<'m> Cursor<'m> {
    /// Takes `"Name" <uri>`, `name <uri>`, `<uri>` or a bare `uri`. Stops before the parameters.
    #[inline]
    pub fn address(&mut self) -> Option<Address<'m>> {
        self.skip_blanks();
        let start = self.at;
        if self.peek() == Some(b'"') {
            self.quoted()?;
            self.skip_blanks();
        } else {
            loop {
                let token = self.take(TOKEN);
                if self.peek() == Some(b':') {
                    // A URI without brackets: the token is its scheme, not a name.
                    return if self.at == start + token.len() { self.bare(start) } else { None };
                }
                self.skip_blanks();
                if token.is_empty() || self.peek() == Some(b'<') {
                    break;
                }
            }
        }
        if !self.eat(b'<') {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let length = memchr::memchr(b'>', rest)?;
        self.at += length + 1;
        let uri = &rest[..length];
        Some(Address { uri, parsed: uri::parse(uri)? })
    }

    /// Takes a URI without brackets. A semicolon ends it, and it can contain neither a question
    /// mark nor a comma.
    fn bare(&mut self, start: usize) -> Option<Address<'m>> {
        let rest = &self.bytes[start..];
        let length = rest.iter().position(|byte| b"; \t\r\n,?".contains(byte)).unwrap_or(rest.len());
        if rest.get(length) == Some(&b'?') {
            return None;
        }
        self.at = start + length;
        let uri = &rest[..length];
        Some(Address { uri, parsed: uri::parse(uri)? })
    }
}

/// A `From` or `To` value.
#[derive(Debug, Clone, Copy)]
pub struct Party<'m> {
    pub address: Address<'m>,
    pub tag: Option<&'m [u8]>,
}

/// Parses the value of `From` or `To`.
#[inline]
pub fn party(value: &[u8]) -> Option<Party<'_>> {
    let mut cursor = Cursor::new(value);
    let address = cursor.address()?;
    let mut tag = None;
    while let Some(param) = cursor.param().ok()? {
        if param.is(b"tag") {
            if tag.is_some() {
                return None;
            }
            tag = Some(param.value?);
        }
    }
    cursor.is_done().then_some(Party { address, tag })
}

/// One element of a `Contact` value.
#[derive(Debug, Clone)]
pub struct Contact<'m> {
    pub address: Address<'m>,
    /// The text of the parameters.
    params: &'m [u8],
    /// In thousandths, 0 to 1000.
    pub q: Option<u16>,
    /// The value of the parameter, which may not be a number.
    pub expires: Option<&'m [u8]>,
}

impl<'m> Contact<'m> {
    /// The parameters other than `q` and `expires`.
    pub fn other_params(&self) -> impl Iterator<Item = Param<'m>> + use<'m> {
        let mut cursor = Cursor::new(self.params);
        std::iter::from_fn(move || cursor.param().ok().flatten()).filter(|param| !param.is(b"q") && !param.is(b"expires"))
    }
}

/// The value of one `Contact` header field.
pub enum Contacts<'m> {
    /// `*`
    All,
    List(ContactList<'m>),
}

/// Parses the value of one `Contact` header field. The elements of a list are parsed by its
/// iterator.
pub fn contacts(value: &[u8]) -> Contacts<'_> {
    if value == b"*" { Contacts::All } else { Contacts::List(ContactList { cursor: Cursor::new(value), is_done: false }) }
}

/// Iterates over the elements of a comma-separated `Contact` value. Ends after an error.
pub struct ContactList<'m> {
    cursor: Cursor<'m>,
    is_done: bool,
}

impl<'m> Iterator for ContactList<'m> {
    type Item = Result<Contact<'m>, ()>;

    fn next(&mut self) -> Option<Result<Contact<'m>, ()>> {
        if self.is_done {
            return None;
        }
        let element = self.element();
        self.is_done |= element.is_none();
        Some(element.ok_or(()))
    }
}

impl<'m> ContactList<'m> {
    fn element(&mut self) -> Option<Contact<'m>> {
        let cursor = &mut self.cursor;
        let address = cursor.address()?;
        let start = cursor.at;
        let (mut q, mut expires) = (None, None);
        while let Some(param) = cursor.param().ok()? {
            if param.is(b"q") {
                q = Some(quality(param.value?)?);
            } else if param.is(b"expires") {
                expires = Some(param.value?);
            }
        }
        let params = &cursor.bytes[start..cursor.at];
        self.is_done = !cursor.eat_between_blanks(b',');
        if self.is_done && !cursor.is_done() {
            return None;
        }
        Some(Contact { address, params, q, expires })
    }
}

/// Parses a preference from 0 to 1 with at most three decimals, such as `0.5`, into thousandths.
fn quality(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, worth) in fraction.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then_some(digit - b'0')?) * worth;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_and_to_values() {
        for (value, uri, tag) in [
            ("sip:bob@h", "sip:bob@h", None),
            ("sip:bob@h;tag=1", "sip:bob@h", Some("1")),
            ("<sip:bob@h;lr>;x;TAG = 1 ; y=\"a;b\"", "sip:bob@h;lr", Some("1")),
            ("Bob  B. <sip:bob@h>", "sip:bob@h", None),
            ("\"a \\\" > b\"\r\n <sip:bob@h>\r\n ;\r\n\ttag\r\n =\r\n 7", "sip:bob@h", Some("7")),
            ("bob<sip:bob@h>;tag=a@b=c", "sip:bob@h", Some("a@b=c")),
            ("<tel:+1-555;x=y>;tag=1", "tel:+1-555;x=y", Some("1")),
        ] {
            let party = party(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
            assert_eq!((party.address.uri, party.tag), (uri.as_bytes(), tag.map(str::as_bytes)), "{value}");
        }
        for value in [
            "",
            "bob",
            "<sip:bob@h",
            "\"bob <sip:bob@h>",
            "a, b <sip:bob@h>",
            "< sip:bob@h>",
            "<sip:bob@h> x",
            "<sip:bob@h>;",
            "<sip:bob@h>;=1",
            "<sip:bob@h>;tag",
            "<sip:bob@h>;tag=1;tag=2",
            "sip:bob@h?x=y",
            "sip:bob@h, sip:b@h",
            "a b:c",
            "<bob>",
            "sip:bob@h;tag=",
            "\"x\\\r\n <sip:a@b>",
            "sip:bob@h;tag=1\rx",
        ] {
            assert!(party(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn lists_of_contacts() {
        let value = b"\"A, B\" <sip:a@h;x?y=z>;q=0.25;+sip.instance=\"<urn:1>\";expires=60, sip:b@h;EXPIRES=x ,\r\n <sip:c@h>";
        let Contacts::List(elements) = contacts(value) else { panic!() };
        let found: Vec<Contact> = elements.map(Result::unwrap).collect();
        let uris: Vec<&[u8]> = found.iter().map(|contact| contact.address.uri).collect();
        assert_eq!(uris, [&b"sip:a@h;x?y=z"[..], b"sip:b@h", b"sip:c@h"]);
        assert_eq!((found[0].q, found[0].expires), (Some(250), Some(&b"60"[..])));
        assert_eq!((found[1].q, found[1].expires), (None, Some(&b"x"[..])));
        let others: Vec<&[u8]> = found[0].other_params().map(|param| param.name).collect();
        assert_eq!(others, [b"+sip.instance"]);
        assert!(matches!(contacts(b"*"), Contacts::All));
        for value in [
            "",
            ",",
            "sip:a@h,",
            ",sip:a@h",
            "sip:a@h sip:b@h",
            "sip:a@h;q=2",
            "sip:a@h;q=1.001",
            "sip:a@h;q=0.1234",
            "sip:a@h;;",
            "*,sip:a@h",
        ] {
            let Contacts::List(mut elements) = contacts(value.as_bytes()) else { panic!() };
            assert!(elements.by_ref().any(|element| element.is_err()), "{value}");
            assert!(elements.next().is_none());
        }
    }

    #[test]
    fn preferences_are_thousandths() {
        for (text, wanted) in [("0", 0), ("1", 1000), ("0.", 0), ("0.5", 500), ("0.05", 50), ("1.000", 1000)] {
            assert_eq!(quality(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in ["", "2", "1.1", "0.a", "0.1234", "-1", ".5"] {
            assert_eq!(quality(text.as_bytes()), None, "{text}");
        }
    }
}
