//! Property tests of the parser: no input causes a panic, and it finds what a slow parser finds.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Reply, TestServer, request, texts};
use crate::header::FieldName;
use crate::method::Method;
use crate::request::Request;
use crate::syntax::Cursor;

/// Requests that together cover most of the code.
fn samples() -> Vec<String> {
    let contact = "Contact: \"D\" <sip:alice@192.0.2.7;x=y?a=b>;q=0.5;expires=60, sip:b@h ;z=\"q;,\"";
    let body = "\r\nv=0\r\n";
    vec![
        request("OPTIONS", "sip:example.com", &["v: SIP/2.0/UDP h;rport;received=1.2.3.4;branch=b, SIP/2.0/TCP [::1]:5060;x"]),
        request("INVITE", "sip:alice;a=b%40c:pw@example.com:5060;lr?x=y", &["Record-Route: <sip:p;lr>", "Record-Route:\r\n <sip:q>"]),
        request("INVITE", "sip:alice@example.com", &["From:\r\n Carol\r\n\t<sip:c@h> ;\r\n tag = \"q\\\"\"", "Require: a, b", "l: 4"])
            + body,
        request("REGISTER", "sip:example.com", &[contact, "Expires: 100"]),
        request("REGISTER", "sip:[2001:db8::5]", &["m: *", "Expires: 0", "t: <sips:a%41@[2001:DB8::5]>"]),
        request("MESSAGE", "tel:+1-555", &["c: text/plain;charset=utf-8", "e: identity", "Content-Length: 3"]) + "abc",
        request("ACK", "sip:alice@example.com", &[]),
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n\r\n".into(),
    ]
}

/// Handles a datagram in every way the module can, and checks that each answer is well-formed.
fn handle(bytes: &[u8]) {
    if let Some(request) = request::parse(bytes) {
        check_slices(bytes, &request);
    }
    for mut server in [TestServer::with(|params| params.accept = texts(&["application/sdp"])), TestServer::registrar()] {
        if let Some((reply, destination)) = server.send(bytes) {
            assert!((200..700).contains(&reply.code()), "{reply:?}");
            assert!(destination.ip() == server.client.ip() && destination.port() != 0);
        }
    }
}

/// Checks that each part of a request is a slice of its datagram.
fn check_slices(bytes: &[u8], request: &Request<'_>) {
    let via = &request.via;
    let parts = [Some(request.uri), Some(via.value), Some(via.host), via.branch, request.from, request.from_tag, request.to];
    let others = [request.call_id, request.cseq, request.expires, request.content_type, request.content_encoding, Some(request.body)];
    let fields = request.fields.clone().map(|field| Some(field.value));
    let whole = bytes.as_ptr_range();
    for part in parts.into_iter().chain(others).chain(fields).flatten().filter(|part| !part.is_empty()) {
        let place = part.as_ptr_range();
        assert!(whole.start <= place.start && place.end <= whole.end);
    }
    assert!(via.end <= via.value.len() && via.rport_end.is_none_or(|at| at <= via.end));
    assert!(via.received.is_none_or(|(from, to)| from <= to && to <= via.end));
}

/// One change of a datagram. Numbers are offsets and lengths.
#[derive(Debug, Clone)]
enum Damage {
    Replace(usize, u8),
    Insert(usize, Vec<u8>),
    Cut(usize, usize),
    Repeat(usize, usize),
    End(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..2000_usize;
    let length = 0..60_usize;
    let special = proptest::sample::select(&b"\r\n\t \"<>;:,@?=%\\*[]/.\0\xff05aA"[..]);
    let text = proptest::collection::vec(special.clone(), 0..6);
    prop_oneof![
        (at.clone(), special).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at.clone(), text).prop_map(|(at, text)| Damage::Insert(at, text)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Damage::Cut(at, length)),
        (at.clone(), length).prop_map(|(at, length)| Damage::Repeat(at, length)),
        at.prop_map(Damage::End),
    ]
}

fn damaged(text: &str, all: &[Damage]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for damage in all {
        let length = bytes.len().max(1);
        let range = |at: usize, count: usize, bytes: &[u8]| (at % length).min(bytes.len())..(at % length + count).min(bytes.len());
        match damage {
            Damage::Replace(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, text) => {
                let at = range(*at, 0, &bytes);
                bytes.splice(at, text.iter().copied());
            }
            Damage::Cut(at, count) => {
                let range = range(*at, *count, &bytes);
                bytes.drain(range);
            }
            Damage::Repeat(at, count) => {
                let range = range(*at, *count, &bytes);
                let part = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, part);
            }
            Damage::End(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_cause_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        handle(&bytes);
        let _ = crate::uri::parse(&bytes);
        let _ = crate::address::party(&bytes);
        if let crate::address::Contacts::List(elements) = crate::address::contacts(&bytes) {
            prop_assert!(elements.count() <= bytes.len() + 1);
        }
        let mut cursor = Cursor::new(&bytes);
        while let Ok(Some(param)) = cursor.param() {
            prop_assert!(param.name_end <= param.end && param.end <= bytes.len());
        }
    }

    #[test]
    fn damaged_requests_cause_no_panic(sample in 0..8_usize, all in proptest::collection::vec(damage(), 1..8)) {
        handle(&damaged(&samples()[sample], &all));
    }
}

/// Texts that the grammar allows for a blank.
fn blanks() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![" ", "  ", "\t", "\r\n ", " \r\n\t "])
}

/// A field in a notation that a client may use, with its line end.
fn written(names: &'static [&'static str], value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let case = proptest::sample::select(vec![str::to_owned, str::to_uppercase, str::to_lowercase]);
    let name = proptest::sample::select(names);
    let around =
        (proptest::sample::select(vec!["", " ", "\t "]), proptest::option::of(blanks()), proptest::sample::select(vec!["", " ", "\t"]));
    (name, case, value, around).prop_map(|(name, case, value, (before_colon, after_colon, at_end))| {
        format!("{}{before_colon}:{}{value}{at_end}\r\n", case(name), after_colon.unwrap_or_default())
    })
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9.!%*_+`'~-]{1,12}"
}

fn address() -> impl Strategy<Value = (String, String)> {
    let uri = "(sip|sips|SIP):([a-z0-9&=+$,;?/._-]|%4[0-9a-f]){1,8}@[a-z0-9.-]{1,10}(:[0-9]{1,4})?";
    let name = proptest::option::of(prop_oneof![token(), "\"([a-z<>;:,@ ]|\\\\[\"a-z\\\\]){0,10}\""]);
    (uri, name, blanks(), any::<bool>()).prop_map(|(uri, name, blanks, bracket)| {
        // A URI with a byte that would end it needs brackets.
        let needed = name.is_some() || uri.contains([';', ',', '?']);
        let text = match name {
            Some(name) => format!("{name}{blanks}<{uri}>"),
            None if bracket || needed => format!("<{uri}>"),
            None => uri.clone(),
        };
        (uri, text)
    })
}

/// A request, and the parts that a parser must find in it.
#[derive(Debug, Clone)]
struct Generated {
    text: String,
    method: String,
    uris: [String; 2],
    tags: [Option<String>; 2],
    body: String,
}

fn generated() -> impl Strategy<Value = Generated> {
    let tag = || proptest::option::of((token(), blanks(), any::<bool>()));
    let party = move |names| {
        (address(), tag()).prop_flat_map(move |((uri, text), tag)| {
            let (value, tag) = match tag {
                Some((tag, blanks, true)) => (format!("{text};x=y{blanks};{blanks}TAG{blanks}={blanks}{tag}"), Some(tag)),
                Some((tag, ..)) => (format!("{text};tag={tag}"), Some(tag)),
                None => (text, None),
            };
            (written(names, Just(value)), Just(uri), Just(tag))
        })
    };
    let via = "SIP/2\\.0/UDP [a-z0-9.]{1,10}(:[1-9][0-9]{0,3})?(;branch=z9hG4bK[a-z0-9]{1,8})?(;rport)?(, SIP/2\\.0/TCP next)?";
    let other = written(&["X-Other", "Subject", "Viable", "Tone", "q"], "[ -~]{0,20}".prop_map(|value| value.trim().to_owned()));
    (
        prop_oneof![token(), Just("OPTIONS".to_owned()), Just("INVITE".to_owned())],
        proptest::collection::vec(written(&["Via", "v"], via), 1..4),
        party(&["From", "f"]),
        party(&["To", "t"]),
        (written(&["Call-ID", "i"], token()), 0..(1_u32 << 31), blanks(), proptest::option::of(0..=255_u32)),
        proptest::collection::vec(other, 0..4),
        ("[ -~\r\n]{0,30}", any::<bool>()),
        any::<proptest::sample::Index>(),
    )
        .prop_map(
            |(
                method,
                vias,
                (from, from_uri, from_tag),
                (to, to_uri, to_tag),
                (call_id, number, gap, hops),
                others,
                (body, length),
                turn,
            )| {
                let mut fields: Vec<String> = vec![from, to, call_id, format!("CSeq: {number}{gap}{method}\r\n")];
                fields.extend(hops.map(|hops| format!("Max-Forwards: {hops}\r\n")));
                fields.extend(length.then(|| format!("l: {}\r\n", body.len())));
                fields.extend(others);
                // Rotates the other fields. The Vias keep their order.
                let turn = turn.index(fields.len());
                fields.rotate_left(turn);
                for (index, via) in vias.into_iter().enumerate() {
                    fields.insert(index * 2, via);
                }
                let text = format!("{method} sip:example.com SIP/2.0\r\n{}\r\n{body}", fields.concat());
                Generated { text, method, uris: [from_uri, to_uri], tags: [from_tag, to_tag], body }
            },
        )
}

/// The slow parser: joins each field to one line, splits it at the first colon, and compares names
/// in lower case.
fn parse_slowly(text: &str) -> HashMap<String, Vec<String>> {
    let head = text.split_once("\r\n\r\n").expect("an empty line").0;
    let unfolded = head.replace("\r\n ", "  ").replace("\r\n\t", "  ");
    let mut fields: HashMap<String, Vec<String>> = HashMap::new();
    for line in unfolded.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':').expect("a colon");
        let name = name.trim().to_lowercase();
        let compact = [("v", "via"), ("f", "from"), ("t", "to"), ("i", "call-id"), ("l", "content-length")];
        let name = compact.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| (*long).to_owned());
        fields.entry(name).or_default().push(value.trim().to_owned());
    }
    fields
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_slow_parser_agrees(generated in generated()) {
        let Generated { text, method, uris, tags, body } = &generated;
        let fields = parse_slowly(text);
        let found = request::parse(text.as_bytes()).expect("a request");
        prop_assert_eq!(found.malformed, None);
        check_slices(text.as_bytes(), &found);
        prop_assert_eq!(found.method, Method::of(method.as_bytes()));
        let unfold = |value: &[u8]| String::from_utf8_lossy(value).replace("\r\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = |value: &String| value.split_whitespace().collect::<Vec<_>>().join(" ");
        let vias: Vec<String> = found.fields.clone().filter(|field| field.name == FieldName::Via).map(|field| unfold(field.value)).collect();
        prop_assert_eq!(&vias, &fields["via"].iter().map(plain).collect::<Vec<_>>());
        prop_assert_eq!(found.more_vias, vias.len() > 1);
        for (name, value) in [("from", found.from), ("to", found.to), ("call-id", found.call_id), ("cseq", found.cseq)] {
            prop_assert_eq!(unfold(value.unwrap_or_default()), plain(&fields[name][0]), "{}", name);
        }
        let to = found.to_party.expect("a To");
        prop_assert_eq!(found.from_tag.map(String::from_utf8_lossy), tags[0].as_deref().map(Into::into));
        prop_assert_eq!(to.tag.map(String::from_utf8_lossy), tags[1].as_deref().map(Into::into));
        prop_assert_eq!(to.address.uri, uris[1].as_bytes());
        prop_assert_eq!(found.max_forwards.map(|hops| hops.to_string()), fields.get("max-forwards").map(|all| all[0].clone()));
        prop_assert_eq!(found.body, body.as_bytes());
        let first: Vec<&str> = vias[0].split(',').next().unwrap_or_default().split(';').collect();
        prop_assert_eq!(found.via.branch.map(String::from_utf8_lossy), first.iter().find_map(|part| part.strip_prefix("branch=")).map(Into::into));
        prop_assert_eq!(found.via.rport_end.is_some(), first.contains(&"rport"));
        let mut server = TestServer::with(|_| ());
        if !matches!(found.method, Method::Ack | Method::Cancel) {
            let reply: Reply = server.send(text.as_bytes()).expect("an answer").0;
            prop_assert_eq!(reply.all("Via").len(), vias.len());
            prop_assert_eq!(reply.all("To").len(), 1);
        }
    }
}
