//! Parses a request in one pass over its datagram: the request line, and the header fields that the
//! server reads.
//!
//! Pure, without copies: everything it returns is a part of the datagram. No input causes a panic,
//! and the time grows linearly with the length.

use crate::address::{self, Party};
use crate::header::{Field, FieldName, Fields, Line, Reason};
use crate::method::Method;
use crate::syntax::{self, Cursor, TOKEN, number};
use crate::uri::{self, Uri};
use crate::via::Via;

/// A request, as far as the server needs it.
#[derive(Debug, Clone)]
pub struct Request<'m> {
    pub method: Method,
    pub uri: &'m [u8],
    pub parsed_uri: Option<Uri<'m>>,
    /// False for a well-formed version other than 2.0.
    pub is_version_known: bool,
    pub fields: Fields<'m>,
    pub via: Via<'m>,
    /// Whether there are more `Via` header fields than the first.
    pub more_vias: bool,
    pub from: Option<&'m [u8]>,
    pub from_tag: Option<&'m [u8]>,
    pub to: Option<&'m [u8]>,
    pub to_party: Option<Party<'m>>,
    pub call_id: Option<&'m [u8]>,
    pub cseq: Option<&'m [u8]>,
    pub cseq_number: u32,
    pub max_forwards: Option<u8>,
    pub has_contact: bool,
    pub has_require: bool,
    pub has_record_route: bool,
    pub expires: Option<&'m [u8]>,
    pub content_type: Option<&'m [u8]>,
    pub content_encoding: Option<&'m [u8]>,
    pub body: &'m [u8],
    /// Whether a value that answers repeat has folds.
    pub has_folds: bool,
    /// The first mistake in the request.
    pub malformed: Option<Reason>,
}

/// Parses a datagram. `None` if it is not a request, or cannot be answered: then nothing is sent.
pub fn parse(datagram: &[u8]) -> Option<Request<'_>> {
    let mut start = 0;
    while let Some(b'\r' | b'\n') = datagram.get(start) {
        start += 1;
    }
    let line_end = start + memchr::memchr(b'\n', &datagram[start..])?;
    let mut malformed = None;
    let line = match &datagram[start..line_end] {
        [line @ .., b'\r'] => line,
        line => {
            malformed = Some("A Line Does Not End with CR LF");
            line
        }
    };
    let request_line = RequestLine::parse(line, &mut malformed)?;
    let mut found = FoundFields::default();
    let mut fields = Fields::new(datagram, line_end + 1);
    let all_fields = fields.clone();
    let body = loop {
        match fields.next_line() {
            Line::Field(field) => found.add(field, &mut malformed),
            Line::Malformed(reason) => note(&mut malformed, reason),
            Line::End(at) => break &datagram[at..],
            Line::Cut => {
                note(&mut malformed, "No Empty Line after the Header Fields");
                break &[];
            }
        }
    };
    found.into_request(request_line, all_fields, body, malformed)
}

/// Keeps the first mistake.
#[cold]
fn note(malformed: &mut Option<Reason>, reason: Reason) {
    malformed.get_or_insert(reason);
}

struct RequestLine<'m> {
    method: &'m [u8],
    uri: &'m [u8],
    parsed_uri: Option<Uri<'m>>,
    is_version_known: bool,
}

impl<'m> RequestLine<'m> {
    /// `None` if this is not the first line of a SIP request.
    #[inline]
    fn parse(line: &'m [u8], malformed: &mut Option<Reason>) -> Option<RequestLine<'m>> {
        let method_length = syntax::run(line, TOKEN);
        let (method, rest) = line.split_at(method_length);
        let [b' ', rest @ ..] = rest else { return None };
        if method.is_empty() {
            return None;
        }
        let mut trimmed = rest;
        while let [before @ .., b' ' | b'\t'] = trimmed {
            trimmed = before;
        }
        if trimmed.len() != rest.len() {
            note(malformed, "Blanks at the End of the Request Line");
        }
        let blank = memchr::memrchr(b' ', trimmed)?;
        let (uri, version) = (&trimmed[..blank], &trimmed[blank + 1..]);
        let digits = version.get(..4).filter(|sip| sip.eq_ignore_ascii_case(b"SIP/")).map(|_| &version[4..])?;
        let is_version_known = digits == b"2.0" || !is_version(digits);
        if is_version_known && digits != b"2.0" {
            note(malformed, "Bad SIP Version");
        }
        let parsed_uri = uri::parse(uri);
        match &parsed_uri {
            None => note(malformed, "Bad Request URI"),
            Some(Uri::Sip(sip)) if sip.headers.is_some() => note(malformed, "Header Fields in the Request URI"),
            Some(_) => {}
        }
        Some(RequestLine { method, uri, parsed_uri, is_version_known })
    }
}

/// Whether the text is two numbers with a point between them.
fn is_version(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let is_number = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number(parts.next()) && is_number(parts.next())
}

/// The values of the header fields, collected while they are read.
#[derive(Default)]
struct FoundFields<'m> {
    via: Option<Via<'m>>,
    /// Whether the topmost `Via` could not be parsed.
    has_unusable_via: bool,
    more_vias: bool,
    from: Option<&'m [u8]>,
    to: Option<&'m [u8]>,
    call_id: Option<&'m [u8]>,
    cseq: Option<&'m [u8]>,
    max_forwards: Option<&'m [u8]>,
    content_length: Option<&'m [u8]>,
    expires: Option<&'m [u8]>,
    content_type: Option<&'m [u8]>,
    content_encoding: Option<&'m [u8]>,
    has_contact: bool,
    has_require: bool,
    has_record_route: bool,
}

impl<'m> FoundFields<'m> {
    #[inline]
    fn add(&mut self, Field { name, value }: Field<'m>, malformed: &mut Option<Reason>) {
        let (place, reason_if_repeated) = match name {
            FieldName::Via if self.via.is_some() || self.has_unusable_via => {
                self.more_vias = true;
                return;
            }
            FieldName::Via => {
                self.via = Via::parse(value);
                self.has_unusable_via = self.via.is_none();
                return;
            }
            FieldName::From => (&mut self.from, "More than One From"),
            FieldName::To => (&mut self.to, "More than One To"),
            FieldName::CallId => (&mut self.call_id, "More than One Call-ID"),
            FieldName::CSeq => (&mut self.cseq, "More than One CSeq"),
            FieldName::MaxForwards => (&mut self.max_forwards, "More than One Max-Forwards"),
            FieldName::ContentLength => (&mut self.content_length, "More than One Content-Length"),
            FieldName::Expires => (&mut self.expires, "More than One Expires"),
            FieldName::ContentType => (&mut self.content_type, "More than One Content-Type"),
            FieldName::ContentEncoding => {
                self.content_encoding = Some(value);
                return;
            }
            FieldName::Contact => return self.has_contact = true,
            FieldName::Require => return self.has_require = true,
            FieldName::RecordRoute => return self.has_record_route = true,
            FieldName::Other => return,
        };
        if place.is_some() {
            note(malformed, reason_if_repeated);
        } else {
            *place = Some(value);
        }
    }

    /// Checks the values. `None` without a usable `Via`.
    #[inline]
    fn into_request(self, line: RequestLine<'m>, fields: Fields<'m>, body: &'m [u8], mut malformed: Option<Reason>) -> Option<Request<'m>> {
        let via = self.via?;
        let bad = &mut malformed;
        if !via.is_well_formed {
            note(bad, "Bad Via");
        }
        let from_party = self.from.and_then(address::party);
        let to_party = self.to.and_then(address::party);
        match (self.from, &from_party) {
            (None, _) => note(bad, "No From"),
            (_, None) => note(bad, "Bad From"),
            _ => {}
        }
        match (self.to, &to_party) {
            (None, _) => note(bad, "No To"),
            (_, None) => note(bad, "Bad To"),
            _ => {}
        }
        match self.call_id {
            None => note(bad, "No Call-ID"),
            Some(value) if !is_call_id(value) => note(bad, "Bad Call-ID"),
            Some(_) => {}
        }
        let mut cseq_number = 0;
        match self.cseq.map(cseq) {
            None => note(bad, "No CSeq"),
            Some(None) => note(bad, "Bad CSeq"),
            Some(Some((_, method))) if method != line.method => note(bad, "CSeq of Another Method"),
            Some(Some((number, _))) => cseq_number = number,
        }
        let max_forwards = self.max_forwards.and_then(|value| number(value, 255)).map(|number| number as u8);
        if self.max_forwards.is_some() && max_forwards.is_none() {
            note(bad, "Bad Max-Forwards");
        }
        let mut message_body = body;
        if let Some(value) = self.content_length {
            match number(value, u32::MAX.into()) {
                None => note(bad, "Bad Content-Length"),
                Some(length) if length > body.len() as u64 => note(bad, "Content-Length Is Longer than the Body"),
                // The bytes after the body are not part of the message (section 18.3).
                Some(length) => message_body = &body[..length as usize],
            }
        }
        let has_folds = [Some(via.value), self.from, self.to, self.call_id, self.cseq]
            .iter()
            .flatten()
            .any(|value| memchr::memchr2(b'\n', b'\r', value).is_some());
        Some(Request {
            method: Method::of(line.method),
            uri: line.uri,
            parsed_uri: line.parsed_uri,
            is_version_known: line.is_version_known,
            fields,
            via,
            more_vias: self.more_vias,
            from: self.from,
            from_tag: from_party.and_then(|party| party.tag),
            to: self.to,
            to_party,
            call_id: self.call_id,
            cseq: self.cseq,
            cseq_number,
            max_forwards,
            has_contact: self.has_contact,
            has_require: self.has_require,
            has_record_route: self.has_record_route,
            expires: self.expires,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            body: message_body,
            has_folds,
            malformed,
        })
    }
}

/// Whether the value is `word` or `word@word`.
fn is_call_id(value: &[u8]) -> bool {
    let first = syntax::run(value, syntax::WORD);
    match &value[first..] {
        [] => first > 0,
        [b'@', second @ ..] => first > 0 && !second.is_empty() && syntax::run(second, syntax::WORD) == second.len(),
        _ => false,
    }
}

/// Parses a CSeq into its number, below 2^31 (section 8.1.1.5), and its method.
fn cseq(value: &[u8]) -> Option<(u32, &[u8])> {
    let mut cursor = Cursor::new(value);
    let number = number(cursor.take(TOKEN), (1 << 31) - 1)?;
    let before = cursor.at;
    cursor.skip_blanks();
    let method = cursor.take(TOKEN);
    (cursor.at > before && !method.is_empty() && cursor.is_done()).then_some((number as u32, method))
}
