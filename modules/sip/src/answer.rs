//! Writes answers (RFC 3261 section 8.2.6, RFC 3581) directly into the buffer that is sent, and
//! determines their destination (section 18.2.2).
//!
//! Pure. Allocates nothing. An answer that does not fit into the buffer is not sent.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use crate::header::FieldName;
use crate::request::Request;

/// The port of SIP over UDP if the `Via` names none.
const DEFAULT_PORT: u16 = 5060;

/// Appends to a buffer of fixed size, and records whether it was too small.
pub struct AnswerBuffer<'b> {
    buffer: &'b mut [u8],
    used: usize,
    is_too_small: bool,
}

impl<'b> AnswerBuffer<'b> {
    pub fn new(buffer: &'b mut [u8]) -> AnswerBuffer<'b> {
        AnswerBuffer { buffer, used: 0, is_too_small: false }
    }

    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.used..self.used + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.is_too_small = true,
        }
    }

    /// Appends bytes of a request, and replaces the line ends of folds by blanks.
    #[cold]
    pub fn put_unfolded(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(&[if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }]);
        }
    }

    pub fn put_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        self.put(decimal(number, &mut digits));
    }

    #[inline]
    fn put_hex(&mut self, number: u64) {
        let mut digits = [0; 16];
        for (index, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * index)) as usize & 15];
        }
        self.put(&digits);
    }

    /// The length of the answer; `None` if it did not fit.
    pub fn len(&self) -> Option<usize> {
        (!self.is_too_small).then_some(self.used)
    }
}

#[inline]
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// The text of an address, without an allocation.
struct IpText {
    text: [u8; 48],
    used: usize,
}

impl IpText {
    #[inline]
    fn of(ip: IpAddr) -> IpText {
        let mut this = IpText { text: [0; 48], used: 0 };
        match ip {
            IpAddr::V4(v4) => {
                for (index, octet) in v4.octets().into_iter().enumerate() {
                    if index > 0 {
                        this.push(b".");
                    }
                    this.push(decimal(octet.into(), &mut [0; 20]));
                }
            }
            IpAddr::V6(v6) => {
                // At most 45 bytes, so it fits.
                let _ = std::fmt::Write::write_fmt(&mut this, format_args!("{v6}"));
            }
        }
        this
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(place) = self.text.get_mut(self.used..self.used + bytes.len()) {
            place.copy_from_slice(bytes);
            self.used += bytes.len();
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.used]
    }
}

impl std::fmt::Write for IpText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The destination of the answer. Its address is always the source of the request, so that a client
/// cannot direct answers to a third party; `maddr` is ignored for the same reason. Its port is that
/// of the source if the client asked for it with `rport`, otherwise that of the `Via`.
#[inline]
pub fn destination(request: &Request<'_>, source: SocketAddr) -> SocketAddr {
    if request.via.rport_end.is_some() {
        return source;
    }
    match request.via.port.unwrap_or(DEFAULT_PORT) {
        0 => source,
        port => SocketAddr::new(source.ip(), port),
    }
}

/// The number of a tag: the same for each retransmission of a request and in each process (section
/// 8.2.7), and unpredictable for others (19.3).
#[inline]
pub fn tag(request: &Request<'_>, seed: &RandomState) -> u64 {
    let mut hasher = seed.build_hasher();
    let via = &request.via;
    hasher.write(via.branch.unwrap_or(&via.value[..via.end]));
    hasher.write(request.call_id.unwrap_or_default());
    hasher.write(request.from_tag.unwrap_or_default());
    hasher.write_u32(request.cseq_number);
    hasher.finish()
}

/// Writes the lines that every answer has: status line, `Via`s, `From`, `To`, `Call-ID`, `CSeq`.
/// `status` are the parts of the status code and reason.
#[inline]
pub fn head(out: &mut AnswerBuffer<'_>, status: &[&[u8]], request: &Request<'_>, source: SocketAddr, seed: &RandomState) {
    out.put(b"SIP/2.0 ");
    status.iter().for_each(|part| out.put(part));
    out.put(b"\r\nVia: ");
    let has_folds = request.has_folds;
    let copy = |out: &mut AnswerBuffer<'_>, bytes: &[u8]| if has_folds { out.put_unfolded(bytes) } else { out.put(bytes) };
    top_via(out, request, source, copy);
    if request.more_vias {
        copy_fields(out, b"\r\nVia: ", request, FieldName::Via, 1, b"");
    }
    if let Some(from) = request.from {
        out.put(b"\r\nFrom: ");
        copy(out, from);
    }
    if let Some(to) = request.to {
        out.put(b"\r\nTo: ");
        copy(out, to);
        if request.to_party.is_some_and(|party| party.tag.is_none()) {
            out.put(b";tag=");
            out.put_hex(tag(request, seed));
        }
    }
    if let Some(call_id) = request.call_id {
        out.put(b"\r\nCall-ID: ");
        copy(out, call_id);
    }
    if let Some(cseq) = request.cseq {
        out.put(b"\r\nCSeq: ");
        copy(out, cseq);
    }
    out.put(b"\r\n");
}

/// Writes the first `Via` field. Its first element gets the port and the address that the request
/// really came from.
#[inline]
fn top_via(out: &mut AnswerBuffer<'_>, request: &Request<'_>, source: SocketAddr, copy: impl Fn(&mut AnswerBuffer<'_>, &[u8])) {
    let via = &request.via;
    let mut copied = 0;
    if via.is_well_formed {
        let ip = source.ip().to_canonical();
        let text = IpText::of(ip);
        let add_received = via.rport_end.is_some() || !is_ip(via.host, ip, &text);
        let drop_received = via.received;
        // Copies up to `from`, and leaves out the bytes up to `to`.
        let mut skip = |out: &mut AnswerBuffer<'_>, (from, to): (usize, usize)| {
            copy(out, &via.value[copied..from]);
            copied = to;
        };
        let first = drop_received.filter(|(from, _)| via.rport_end.is_none_or(|rport| *from < rport));
        if let Some(range) = first {
            skip(out, range);
        }
        if let Some(at) = via.rport_end {
            skip(out, (at, at));
            out.put(b"=");
            out.put_number(source.port().into());
        }
        if let (Some(range), None) = (drop_received, first) {
            skip(out, range);
        }
        skip(out, (via.end, via.end));
        if add_received {
            out.put(b";received=");
            out.put(text.bytes());
        }
    }
    copy(out, &via.value[copied..]);
}

/// Whether the host of a `Via` is the address, in any notation. `text` is the address in the usual
/// one, which is compared first.
#[inline]
fn is_ip(host: &[u8], ip: IpAddr, text: &IpText) -> bool {
    if host == text.bytes() {
        return true;
    }
    let inside = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(host);
    std::str::from_utf8(inside).is_ok_and(|host| host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == ip))
}

/// Copies the fields of a name except the first `skip`, each between `before` and `after`.
#[cold]
pub fn copy_fields(out: &mut AnswerBuffer<'_>, before: &[u8], request: &Request<'_>, name: FieldName, skip: usize, after: &[u8]) {
    for field in request.fields.clone().filter(|field| field.name == name).skip(skip) {
        out.put(before);
        out.put_unfolded(field.value);
        out.put(after);
    }
}
