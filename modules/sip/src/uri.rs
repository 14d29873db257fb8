//! SIP URIs (RFC 3261 section 19.1): parsing, comparing, and the key of an address-of-record.
//!
//! Pure. Only `canonical` writes, into its caller's buffer.

use crate::syntax::{self, HOST, PARAM, USER, all_escaped, number};

/// The parts of a `sip:` or `sips:` URI, each a slice of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipUri<'m> {
    /// Whether the scheme is `sips`.
    pub is_secure: bool,
    /// With escapes. `None` if the URI names a host only.
    pub user: Option<&'m [u8]>,
    /// With escapes.
    pub password: Option<&'m [u8]>,
    pub host: &'m [u8],
    pub port: Option<u16>,
    /// From the first semicolon on; empty for none.
    pub params: &'m [u8],
    /// Without the question mark.
    pub headers: Option<&'m [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uri<'m> {
    Sip(SipUri<'m>),
    /// A URI of another scheme. Only its bytes are checked.
    Other,
}

/// Parses a URI.
#[inline]
pub fn parse(text: &[u8]) -> Option<Uri<'_>> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    let is_secure = match scheme {
        [a, b, c] if [a | 32, b | 32, c | 32] == *b"sip" => false,
        [a, b, c, d] if [a | 32, b | 32, c | 32, d | 32] == *b"sips" => true,
        [first, others @ ..] => {
            let is_scheme = first.is_ascii_alphabetic() && others.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
            let is_valid = !rest.is_empty() && rest.iter().all(|byte| syntax::is(*byte, syntax::URI));
            return (is_scheme && is_valid).then_some(Uri::Other);
        }
        [] => return None,
    };
    let (user, password, rest) = match memchr::memchr(b'@', rest) {
        Some(at) => {
            let (user, password) = match rest[..at].iter().position(|byte| *byte == b':') {
                Some(colon) => (&rest[..colon], Some(&rest[colon + 1..at])),
                None => (&rest[..at], None),
            };
            let valid = !user.is_empty() && all_escaped(user, USER) && password.is_none_or(|password| all_escaped(password, USER));
            if !valid {
                return None;
            }
            (Some(user), password, &rest[at + 1..])
        }
        None => (None, None, rest),
    };
    let host = host(rest)?;
    let mut rest = &rest[host.len()..];
    let mut port = None;
    if let [b':', after @ ..] = rest {
        let digits = after.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
        port = Some(number(&after[..digits], 65_535)? as u16);
        rest = &after[digits..];
    }
    let (params, headers) = match rest.iter().position(|byte| *byte == b'?') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let valid = (params.is_empty() || params[0] == b';')
        && params.split(|byte| *byte == b';').skip(1).all(is_param)
        && headers.is_none_or(|headers| !headers.is_empty() && headers.iter().all(|byte| syntax::is(*byte, syntax::URI)));
    valid.then_some(Uri::Sip(SipUri { is_secure, user, password, host, port, params, headers }))
}

/// Finds the host at the beginning of the text: a name, an IPv4 address, or an IPv6 address in
/// brackets.
#[inline]
pub fn host(text: &[u8]) -> Option<&[u8]> {
    let length = if text.first() == Some(&b'[') {
        let inside = text[1..].iter().position(|byte| !byte.is_ascii_hexdigit() && !b":.".contains(byte))?;
        if inside < 2 || text.get(inside + 1) != Some(&b']') {
            return None;
        }
        inside + 2
    } else {
        syntax::run(text, HOST)
    };
    (length > 0).then(|| &text[..length])
}

fn is_param(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    !name.is_empty() && all_escaped(name, PARAM) && parts.next().is_none_or(|value| !value.is_empty() && all_escaped(value, PARAM))
}

impl<'m> SipUri<'m> {
    /// Writes the key of the address-of-record (section 10.3, step 5): scheme, user without
    /// escapes, host in lower case. Parameters, password and port are left out: they do not
    /// distinguish users, and the port is that of the server. `None` if there is no user, or the
    /// key does not fit.
    pub fn canonical<'k>(&self, key: &'k mut [u8]) -> Option<&'k [u8]> {
        let mut used = 0;
        let mut put = |byte| {
            *key.get_mut(used)? = byte;
            used += 1;
            Some(())
        };
        put(if self.is_secure { b'S' } else { b's' })?;
        for byte in Unescaped(self.user?) {
            put(byte)?;
        }
        put(b'@')?;
        for byte in without_final_dot(self.host) {
            put(byte.to_ascii_lowercase())?;
        }
        Some(&key[..used])
    }

    /// The value of a parameter; empty if the parameter has no value.
    pub fn param(&self, name: &[u8]) -> Option<&'m [u8]> {
        self.params().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn params(&self) -> impl Iterator<Item = (&'m [u8], &'m [u8])> + Clone + use<'m> {
        self.params.split(|byte| *byte == b';').skip(1).map(split_at_equals)
    }

    /// Whether the URIs are equivalent (section 19.1.4).
    pub fn is_same(&self, other: &SipUri<'_>) -> bool {
        self.is_secure == other.is_secure
            && is_same_text(self.user, other.user)
            && is_same_text(self.password, other.password)
            && without_final_dot(self.host).eq_ignore_ascii_case(without_final_dot(other.host))
            && self.port == other.port
            && self.params_match(other)
            && other.params_match(self)
            && are_same_headers(self.headers, other.headers)
    }

    /// Whether every parameter has the same value in `other`, or is missing there. Some parameters
    /// must not be missing.
    fn params_match(&self, other: &SipUri<'_>) -> bool {
        const REQUIRED: [&[u8]; 5] = [b"transport", b"user", b"ttl", b"method", b"maddr"];
        self.params().all(|(name, value)| match other.param(name) {
            Some(others) => is_same_ignoring_case(value, others),
            None => !REQUIRED.iter().any(|required| name.eq_ignore_ascii_case(required)),
        })
    }
}

fn split_at_equals(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// Removes the final dot of a fully qualified name: `example.com.` becomes `example.com`.
pub fn without_final_dot(host: &[u8]) -> &[u8] {
    match host {
        [rest @ .., b'.'] if !rest.is_empty() => rest,
        _ => host,
    }
}

/// Compares texts with `%XX` escapes. User parts are case-sensitive.
fn is_same_text(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Unescaped(one).eq(Unescaped(other)),
        (None, None) => true,
        _ => false,
    }
}

fn is_same_ignoring_case(one: &[u8], other: &[u8]) -> bool {
    let lower = |text| Unescaped(text).map(|byte: u8| byte.to_ascii_lowercase());
    lower(one).eq(lower(other))
}

/// Compares the header fields of URIs. All of them count, in any order.
fn are_same_headers(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    let has = |all: &[u8], wanted: &[u8]| all.split(|byte| *byte == b'&').any(|field| is_same_ignoring_case(field, wanted));
    let within = |all: &[u8], fields: &[u8]| fields.split(|byte| *byte == b'&').all(|field| has(all, field));
    within(one, other) && within(other, one)
}

/// Iterates over the bytes of a text with its escapes resolved.
#[derive(Clone)]
struct Unescaped<'m>(&'m [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (byte, rest) = match self.0 {
            [b'%', high, low, rest @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, rest),
                _ => (b'%', &self.0[1..]),
            },
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        self.0 = rest;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &str) -> SipUri<'_> {
        match parse(text.as_bytes()) {
            Some(Uri::Sip(uri)) => uri,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_uri_is_split_into_its_parts() {
        let uri = sip("SIP:us%65r;p=1:secret@Host-1.example.COM:5070;lr;transport=udp?subject=x&a=b");
        assert_eq!(uri.user, Some(&b"us%65r;p=1"[..]));
        assert_eq!(uri.password, Some(&b"secret"[..]));
        assert_eq!((uri.host, uri.port, uri.is_secure), (&b"Host-1.example.COM"[..], Some(5070), false));
        assert_eq!((uri.param(b"LR"), uri.param(b"Transport"), uri.param(b"x")), (Some(&b""[..]), Some(&b"udp"[..]), None));
        assert_eq!(uri.headers, Some(&b"subject=x&a=b"[..]));
        assert_eq!(sip("sips:[2001:db8::1]:5061").host, b"[2001:db8::1]");
        assert_eq!(parse(b"tel:+15550100"), Some(Uri::Other));
    }

    #[test]
    fn invalid_uris_are_refused() {
        for text in [
            "",
            "sip",
            ":",
            "sip:",
            "sip:@host",
            "sip:a b@host",
            "sip:a@b@c",
            "sip:a%4@host",
            "sip:a%4g@host",
            "sip:user@",
            "sip:user@ho st",
            "sip:user@host:",
            "sip:user@host:65536",
            "sip:user@host:1x",
            "sip:user@host;",
            "sip:user@host;=x",
            "sip:user@host;a=",
            "sip:user@host?",
            "sip:user@[1",
            "sip:user@[]",
            "sip:user@[::1",
            "1tel:x",
            "tel:a b",
            "tel:",
            "<sip:user@host>",
            "sip:user@host>",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn uris_of_one_user_have_the_same_key() {
        let mut key = [0; 64];
        for (text, wanted) in [
            ("sip:Alice@Example.COM", "sAlice@example.com"),
            ("sip:%41lice:pw@example.com:5060;transport=tcp", "sAlice@example.com"),
            ("sip:Alice@example.com.", "sAlice@example.com"),
            ("sips:Alice@example.com", "SAlice@example.com"),
            ("sip:a%00%40b@h", "sa\0@b@h"),
            ("sip:a;x=1@[::AB]", "sa;x=1@[::ab]"),
        ] {
            assert_eq!(sip(text).canonical(&mut key), Some(wanted.as_bytes()), "{text}");
        }
        assert_eq!(sip("sip:example.com").canonical(&mut key), None);
        assert_eq!(sip("sip:Alice@example.com").canonical(&mut [0; 8]), None);
    }

    #[test]
    fn uris_are_compared_by_the_rules_of_section_19_1_4() {
        let same = [
            ("sip:%61lice@atlanta.example;transport=TCP", "sip:alice@AtLanTa.example;Transport=tcp"),
            ("sip:carol@chicago.example", "sip:carol@chicago.example;newparam=5"),
            ("sip:carol@chicago.example;security=on", "sip:carol@chicago.example;newparam=5"),
            ("sip:b.example;transport=tcp;method=REGISTER?to=sip:b%40c", "sip:b.example;method=REGISTER;transport=tcp?to=sip:b%40c"),
            ("sip:a@b?x=1&y=2", "sip:a@b?y=2&x=1"),
        ];
        let different = [
            ("sip:ALICE@b.example", "sip:alice@b.example"),
            ("sip:bob@b.example", "sip:bob@b.example:5060"),
            ("sip:bob@b.example", "sip:bob@b.example;transport=udp"),
            ("sip:bob@b.example", "sips:bob@b.example"),
            ("sip:bob@b.example:6000;transport=tcp", "sip:bob@b.example:6000;transport=udp"),
            ("sip:carol@c.example", "sip:carol@c.example?Subject=next"),
            ("sip:carol@c.example;security=on", "sip:carol@c.example;security=off"),
            ("sip:bob@b.example", "sip:b.example"),
            ("sip:bob:x@b.example", "sip:bob@b.example"),
        ];
        for (one, other) in same {
            assert!(sip(one).is_same(&sip(other)) && sip(other).is_same(&sip(one)), "{one} {other}");
        }
        for (one, other) in different {
            assert!(!sip(one).is_same(&sip(other)) && !sip(other).is_same(&sip(one)), "{one} {other}");
        }
    }
}
