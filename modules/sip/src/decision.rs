//! Decides how a request is answered, in the order of checks of RFC 3261 section 8.2.
//!
//! Pure. The registrar's part is in `registrar`.

use crate::header::Reason;
use crate::method::Method;
use crate::request::Request;
use crate::syntax::{self, TOKEN};
use crate::uri::{SipUri, Uri, without_final_dot};

/// The settings that the checks depend on.
#[derive(Debug)]
pub struct Settings {
    /// Status code and reason, such as `200 OK`.
    pub answer: Vec<u8>,
    pub is_answer_success: bool,
    /// Set of `Method::bit`.
    pub methods: u16,
    /// Bytes.
    pub max_message: usize,
    /// Media types of bodies; empty for all.
    pub accept: Vec<Vec<u8>>,
    pub registrar: bool,
    /// Hosts whose users this server has; empty for all.
    pub domains: Vec<Vec<u8>>,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'m> {
    /// Nothing is sent.
    Silence,
    /// The configured answer.
    Configured,
    Refused(Refusal),
    /// 400 with this reason.
    Malformed(Reason),
    /// 200 to a CANCEL.
    Cancelled,
    /// The registrar carries out a REGISTER for this address-of-record.
    Register(SipUri<'m>),
    /// The registrar looks up this user.
    Redirect(SipUri<'m>),
}

/// Refusals whose status line does not depend on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    MethodNotAllowed,
    UnsupportedMediaType,
    UnsupportedContentEncoding,
    UnsupportedScheme,
    BadExtension,
    NoDialog,
    TooManyHops,
    NotImplemented,
    VersionNotSupported,
    TooLarge,
}

impl Refusal {
    pub fn status(self) -> &'static [u8] {
        match self {
            Refusal::NotFound => b"404 Not Found",
            Refusal::MethodNotAllowed => b"405 Method Not Allowed",
            Refusal::UnsupportedMediaType | Refusal::UnsupportedContentEncoding => b"415 Unsupported Media Type",
            Refusal::UnsupportedScheme => b"416 Unsupported URI Scheme",
            Refusal::BadExtension => b"420 Bad Extension",
            Refusal::NoDialog => b"481 Call/Transaction Does Not Exist",
            Refusal::TooManyHops => b"483 Too Many Hops",
            Refusal::NotImplemented => b"501 Not Implemented",
            Refusal::VersionNotSupported => b"505 Version Not Supported",
            Refusal::TooLarge => b"513 Message Too Large",
        }
    }
}

impl Settings {
    /// Checks a request. `datagram_bytes` is the length of its datagram.
    #[inline]
    pub fn decide<'m>(&self, request: &Request<'m>, datagram_bytes: usize) -> Decision<'m> {
        use Decision::{Malformed, Refused};
        let method = request.method;
        if method == Method::Ack {
            return Decision::Silence;
        }
        if datagram_bytes > self.max_message {
            return Refused(Refusal::TooLarge);
        }
        if !request.is_version_known {
            return Refused(Refusal::VersionNotSupported);
        }
        if let Some(reason) = request.malformed {
            return Malformed(reason);
        }
        if method == Method::Unknown {
            return Refused(Refusal::NotImplemented);
        }
        if self.methods & method.bit() == 0 {
            return Refused(Refusal::MethodNotAllowed);
        }
        let Some(Uri::Sip(uri)) = request.parsed_uri else { return Refused(Refusal::UnsupportedScheme) };
        if method == Method::Cancel {
            // Every request gets its final answer at once, so there is nothing to cancel. A
            // stateless server ignores the request (section 8.2.7), a redirect server answers 200
            // (8.3).
            return if self.registrar { Decision::Cancelled } else { Decision::Silence };
        }
        if request.has_require {
            return Refused(Refusal::BadExtension);
        }
        if !self.accept.is_empty()
            && !request.body.is_empty()
            && let Some(refusal) = self.check_body(request)
        {
            return Refused(refusal);
        }
        if self.registrar { self.decide_as_registrar(request, uri) } else { Decision::Configured }
    }

    fn decide_as_registrar<'m>(&self, request: &Request<'m>, uri: SipUri<'m>) -> Decision<'m> {
        use Decision::{Malformed, Refused};
        let is_here = self.serves(uri.host);
        if request.method == Method::Register {
            let Some(Uri::Sip(record)) = request.to_party.map(|party| party.address.parsed) else {
                return Malformed("To Is Not a SIP Address");
            };
            // Section 10.3, steps 1 and 5.
            let is_ours = is_here && self.serves(record.host) && record.user.is_some();
            return if is_ours { Decision::Register(record) } else { Refused(Refusal::NotFound) };
        }
        if request.to_party.is_some_and(|party| party.tag.is_some()) {
            // A redirect server never makes a dialog.
            return Refused(Refusal::NoDialog);
        }
        let no_hop_left = request.max_forwards == Some(0);
        if request.method == Method::Options && (no_hop_left || !is_here || uri.user.is_none()) {
            return Decision::Configured;
        }
        if no_hop_left {
            return Refused(Refusal::TooManyHops);
        }
        if is_here && uri.user.is_some() { Decision::Redirect(uri) } else { Refused(Refusal::NotFound) }
    }

    fn serves(&self, host: &[u8]) -> bool {
        let host = without_final_dot(host);
        self.domains.is_empty() || self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(host))
    }

    /// Whether the body's encoding and type are accepted (section 8.2.3).
    #[cold]
    fn check_body(&self, request: &Request<'_>) -> Option<Refusal> {
        let is_plain = request.content_encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case(b"identity"));
        if !is_plain {
            return Some(Refusal::UnsupportedContentEncoding);
        }
        let media_type = media_type(request.content_type?);
        let accepted = media_type.is_some_and(|(main, sub)| {
            self.accept.iter().any(|accepted| {
                let mut parts = accepted.splitn(2, |byte| *byte == b'/');
                let matches = |part: Option<&[u8]>, found: &[u8]| part.is_some_and(|part| part == b"*" || part.eq_ignore_ascii_case(found));
                matches(parts.next(), main) && matches(parts.next(), sub)
            })
        });
        (!accepted).then_some(Refusal::UnsupportedMediaType)
    }
}

/// Parses `main/sub;parameters` into its first two parts.
fn media_type(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = syntax::Cursor::new(value);
    let main = cursor.take(TOKEN);
    if !cursor.eat_between_blanks(b'/') {
        return None;
    }
    let sub = cursor.take(TOKEN);
    (!main.is_empty() && !sub.is_empty()).then_some((main, sub))
}
