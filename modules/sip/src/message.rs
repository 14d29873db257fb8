//! The parser: one pass over a datagram, which finds the start line and the header fields that a server looks at.
//!
//! Pure, without a copy: everything it returns is a part of the datagram. Written for bytes from anybody: it does not panic, and its time
//! grows with the length alone.

use crate::address::{self, Party};
use crate::chars::{self, Cursor, HOST, TOKEN, number};
use crate::uri::{self, Uri};

/// Methods that some RFC defines, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Invite,
    Ack,
    Options,
    Bye,
    Cancel,
    Register,
    Prack,
    Subscribe,
    Notify,
    Publish,
    Info,
    Refer,
    Message,
    Update,
    Unknown,
}

impl Method {
    /// All that are known, by name. Names distinguish capital letters.
    pub const KNOWN: [(Method, &'static str); 14] = [
        (Method::Invite, "INVITE"),
        (Method::Ack, "ACK"),
        (Method::Options, "OPTIONS"),
        (Method::Bye, "BYE"),
        (Method::Cancel, "CANCEL"),
        (Method::Register, "REGISTER"),
        (Method::Prack, "PRACK"),
        (Method::Subscribe, "SUBSCRIBE"),
        (Method::Notify, "NOTIFY"),
        (Method::Publish, "PUBLISH"),
        (Method::Info, "INFO"),
        (Method::Refer, "REFER"),
        (Method::Message, "MESSAGE"),
        (Method::Update, "UPDATE"),
    ];

    pub fn of(name: &[u8]) -> Method {
        match name {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"OPTIONS" => Method::Options,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"PRACK" => Method::Prack,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"PUBLISH" => Method::Publish,
            b"INFO" => Method::Info,
            b"REFER" => Method::Refer,
            b"MESSAGE" => Method::Message,
            b"UPDATE" => Method::Update,
            _ => Method::Unknown,
        }
    }

    /// Its bit in a set.
    pub fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Why a request is malformed: the reason phrase of a 400.
pub type Reason = &'static str;

/// Header fields that a server looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
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

impl Name {
    /// By its full or compact form (section 7.3.3), in any case.
    #[inline]
    pub fn of(name: &[u8]) -> Name {
        let is = |full: &[u8], found: Name| if name.eq_ignore_ascii_case(full) { found } else { Name::Other };
        match (name.len(), name.first().map_or(0, |byte| byte | 32)) {
            (1, b'v') => Name::Via,
            (1, b'f') => Name::From,
            (1, b't') => Name::To,
            (1, b'i') => Name::CallId,
            (1, b'm') => Name::Contact,
            (1, b'l') => Name::ContentLength,
            (1, b'c') => Name::ContentType,
            (1, b'e') => Name::ContentEncoding,
            (2, b't') => is(b"to", Name::To),
            (3, b'v') => is(b"via", Name::Via),
            (4, b'f') => is(b"from", Name::From),
            (4, b'c') => is(b"cseq", Name::CSeq),
            (7, b'c') => match is(b"call-id", Name::CallId) {
                Name::Other => is(b"contact", Name::Contact),
                found => found,
            },
            (7, b'e') => is(b"expires", Name::Expires),
            (7, b'r') => is(b"require", Name::Require),
            (12, b'm') => is(b"max-forwards", Name::MaxForwards),
            (12, b'r') => is(b"record-route", Name::RecordRoute),
            (12, b'c') => is(b"content-type", Name::ContentType),
            (14, b'c') => is(b"content-length", Name::ContentLength),
            (16, b'c') => is(b"content-encoding", Name::ContentEncoding),
            _ => Name::Other,
        }
    }
}

/// One header field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'m> {
    pub name: Name,
    /// Without blanks at its ends; folds are still in it.
    pub value: &'m [u8],
}

/// Goes through the header fields, in their order.
#[derive(Debug, Clone)]
pub struct Fields<'m> {
    bytes: &'m [u8],
    at: usize,
}

/// What is wrong with the frame of the fields, or their end.
#[derive(Debug, Clone, Copy)]
enum Step<'m> {
    Field(Field<'m>),
    Bad(Reason),
    /// The body starts here.
    End(usize),
    /// The datagram is over before the empty line.
    Cut,
}

impl<'m> Fields<'m> {
    #[inline]
    fn step(&mut self) -> Step<'m> {
        let start = self.at;
        match &self.bytes[start..] {
            [b'\r', b'\n', ..] => return Step::End(start + 2),
            [b'\n', ..] => return Step::End(start + 1),
            _ => {}
        }
        let mut end = start;
        let mut clean = true;
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.bytes[end..]) else { return Step::Cut };
            end += length;
            clean &= end > start && self.bytes[end - 1] == b'\r';
            end += 1;
            if !matches!(self.bytes.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        self.at = end;
        let line = &self.bytes[start..end];
        let name_length = chars::run(line, TOKEN);
        let mut colon = name_length;
        while matches!(line[colon], b' ' | b'\t') {
            colon += 1;
        }
        if !clean {
            return Step::Bad("A Line Does Not End with CR LF");
        }
        if name_length == 0 || line[colon] != b':' {
            return Step::Bad("A Line Is No Header Field");
        }
        Step::Field(Field { name: Name::of(&line[..name_length]), value: trim(&line[colon + 1..]) })
    }
}

/// What is well-formed of them.
impl<'m> Iterator for Fields<'m> {
    type Item = Field<'m>;

    fn next(&mut self) -> Option<Field<'m>> {
        loop {
            match self.step() {
                Step::Field(field) => return Some(field),
                Step::Bad(_) => {}
                Step::End(_) | Step::Cut => return None,
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

/// The topmost `Via`: where the answer goes, and what the server adds to it.
#[derive(Debug, Clone, Copy)]
pub struct Via<'m> {
    /// The whole header field's value, of which this element is the first.
    pub value: &'m [u8],
    /// Where the element ends in it.
    pub end: usize,
    pub host: &'m [u8],
    pub port: Option<u16>,
    pub branch: Option<&'m [u8]>,
    /// Where an `rport` without a value ends (RFC 3581).
    pub rport_end: Option<usize>,
    /// A `received` that the client wrote, with its semicolon: from and to.
    pub received: Option<(usize, usize)>,
    /// Whether its parameters are well-formed; if not, nothing is added.
    pub whole: bool,
}

impl<'m> Via<'m> {
    /// `None` if it cannot be seen where the answer would go.
    #[inline]
    fn parse(value: &'m [u8]) -> Option<Via<'m>> {
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
        let mut via = Via { value, end: cursor.at, host, port, branch: None, rport_end: None, received: None, whole: false };
        via.whole = via.params(&mut cursor).is_some();
        Some(via)
    }

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

/// A request, as far as a server has to know it.
#[derive(Debug, Clone)]
pub struct Request<'m> {
    pub method: Method,
    pub uri: &'m [u8],
    pub parsed_uri: Option<Uri<'m>>,
    /// False if the version is well-formed and not 2.0.
    pub version_known: bool,
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
    /// The last one, of which there should be one.
    pub expires: Option<&'m [u8]>,
    pub content_type: Option<&'m [u8]>,
    pub content_encoding: Option<&'m [u8]>,
    pub body: &'m [u8],
    /// Whether a value that answers repeat is folded.
    pub folded: bool,
    /// The first thing that is wrong.
    pub bad: Option<Reason>,
}

/// Takes a datagram apart. `None`: it is no request, or one that cannot be answered, and silence is the answer.
pub fn parse(datagram: &[u8]) -> Option<Request<'_>> {
    let mut start = 0;
    while let Some(b'\r' | b'\n') = datagram.get(start) {
        start += 1;
    }
    let line_end = start + memchr::memchr(b'\n', &datagram[start..])?;
    let mut bad = None;
    let line = match &datagram[start..line_end] {
        [line @ .., b'\r'] => line,
        line => {
            bad = Some("A Line Does Not End with CR LF");
            line
        }
    };
    let start_line = StartLine::parse(line, &mut bad)?;
    let mut found = Found::default();
    let mut fields = Fields { bytes: datagram, at: line_end + 1 };
    let first = fields.clone();
    let body = loop {
        match fields.step() {
            Step::Field(field) => found.field(field, &mut bad),
            Step::Bad(reason) => note(&mut bad, reason),
            Step::End(at) => break &datagram[at..],
            Step::Cut => {
                note(&mut bad, "No Empty Line after the Header Fields");
                break &[];
            }
        }
    };
    found.request(start_line, first, body, bad)
}

#[cold]
fn note(bad: &mut Option<Reason>, reason: Reason) {
    bad.get_or_insert(reason);
}

struct StartLine<'m> {
    method: &'m [u8],
    uri: &'m [u8],
    parsed_uri: Option<Uri<'m>>,
    version_known: bool,
}

impl<'m> StartLine<'m> {
    /// `None` if this is not the first line of a SIP request.
    #[inline]
    fn parse(line: &'m [u8], bad: &mut Option<Reason>) -> Option<StartLine<'m>> {
        let method_length = chars::run(line, TOKEN);
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
            note(bad, "Blanks at the End of the Request Line");
        }
        let blank = memchr::memrchr(b' ', trimmed)?;
        let (uri, version) = (&trimmed[..blank], &trimmed[blank + 1..]);
        let digits = version.get(..4).filter(|sip| sip.eq_ignore_ascii_case(b"SIP/")).map(|_| &version[4..])?;
        let version_known = digits == b"2.0" || !is_version(digits);
        if version_known && digits != b"2.0" {
            note(bad, "Bad SIP Version");
        }
        let parsed_uri = uri::parse(uri);
        match &parsed_uri {
            None => note(bad, "Bad Request URI"),
            Some(Uri::Sip(sip)) if sip.headers.is_some() => note(bad, "Header Fields in the Request URI"),
            Some(_) => {}
        }
        Some(StartLine { method, uri, parsed_uri, version_known })
    }
}

/// Two numbers with a point between them.
fn is_version(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let is_number = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number(parts.next()) && is_number(parts.next())
}

/// What the header fields say, while they are gone through.
#[derive(Default)]
struct Found<'m> {
    via: Option<Via<'m>>,
    unusable_via: bool,
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

impl<'m> Found<'m> {
    #[inline]
    fn field(&mut self, Field { name, value }: Field<'m>, bad: &mut Option<Reason>) {
        let (place, twice) = match name {
            Name::Via if self.via.is_some() || self.unusable_via => {
                self.more_vias = true;
                return;
            }
            Name::Via => {
                self.via = Via::parse(value);
                self.unusable_via = self.via.is_none();
                return;
            }
            Name::From => (&mut self.from, "More than One From"),
            Name::To => (&mut self.to, "More than One To"),
            Name::CallId => (&mut self.call_id, "More than One Call-ID"),
            Name::CSeq => (&mut self.cseq, "More than One CSeq"),
            Name::MaxForwards => (&mut self.max_forwards, "More than One Max-Forwards"),
            Name::ContentLength => (&mut self.content_length, "More than One Content-Length"),
            Name::Expires => (&mut self.expires, "More than One Expires"),
            Name::ContentType => (&mut self.content_type, "More than One Content-Type"),
            Name::ContentEncoding => {
                self.content_encoding = Some(value);
                return;
            }
            Name::Contact => return self.has_contact = true,
            Name::Require => return self.has_require = true,
            Name::RecordRoute => return self.has_record_route = true,
            Name::Other => return,
        };
        if place.is_some() {
            note(bad, twice);
        } else {
            *place = Some(value);
        }
    }

    #[inline]
    fn request(self, start: StartLine<'m>, fields: Fields<'m>, body: &'m [u8], mut bad: Option<Reason>) -> Option<Request<'m>> {
        let via = self.via?;
        let bad = &mut bad;
        if !via.whole {
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
            Some(Some((_, method))) if method != start.method => note(bad, "CSeq of Another Method"),
            Some(Some((number, _))) => cseq_number = number,
        }
        let max_forwards = self.max_forwards.and_then(|value| number(value, 255)).map(|number| number as u8);
        if self.max_forwards.is_some() && max_forwards.is_none() {
            note(bad, "Bad Max-Forwards");
        }
        let mut whole_body = body;
        if let Some(value) = self.content_length {
            match number(value, u32::MAX.into()) {
                None => note(bad, "Bad Content-Length"),
                Some(length) if length > body.len() as u64 => note(bad, "Content-Length Is Longer than the Body"),
                // What follows is not part of the message (section 18.3).
                Some(length) => whole_body = &body[..length as usize],
            }
        }
        let folded = [Some(via.value), self.from, self.to, self.call_id, self.cseq]
            .iter()
            .flatten()
            .any(|value| memchr::memchr2(b'\n', b'\r', value).is_some());
        Some(Request {
            method: Method::of(start.method),
            uri: start.uri,
            parsed_uri: start.parsed_uri,
            version_known: start.version_known,
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
            body: whole_body,
            folded,
            bad: *bad,
        })
    }
}

/// `word` or `word@word`.
fn is_call_id(value: &[u8]) -> bool {
    let first = chars::run(value, chars::WORD);
    match &value[first..] {
        [] => first > 0,
        [b'@', second @ ..] => first > 0 && !second.is_empty() && chars::run(second, chars::WORD) == second.len(),
        _ => false,
    }
}

/// The number, below 2^31 (section 8.1.1.5), and the method.
fn cseq(value: &[u8]) -> Option<(u32, &[u8])> {
    let mut cursor = Cursor::new(value);
    let number = number(cursor.take(TOKEN), (1 << 31) - 1)?;
    let before = cursor.at;
    cursor.skip_blanks();
    let method = cursor.take(TOKEN);
    (cursor.at > before && !method.is_empty() && cursor.is_done()).then_some((number as u32, method))
}
