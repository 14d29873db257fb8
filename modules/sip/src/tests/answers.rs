//! Tests of answers, rule by rule.

use std::net::SocketAddr;

use super::{TestServer, request, texts};

#[test]
fn answers_repeat_the_required_fields_and_no_others() {
    let mut server = TestServer::with(|params| params.server = "test".into());
    let reply = server.ask(&request(
        "OPTIONS",
        "sip:alice@example.com",
        &[
            "v: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-a, SIP/2.0/TCP second.example.org",
            "VIA: SIP/2.0/UDP third.example.org;branch=z9hG4bK-c",
            "Via",
            "i: call-1",
            "Call-ID",
            "f: \"Carol \\\"C\\\"\" <sip:carol@example.org> ; tag=c1",
            "From",
            "T: Alice <sip:alice@example.com>;x=y",
            "To",
            "Timestamp: 54",
            "X-Other: z",
            "Via : SIP/2.0/UDP fourth.example.org",
        ],
    ));
    assert_eq!(reply.status(), "200 OK");
    assert_eq!(
        reply.all("Via"),
        [
            "SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-a, SIP/2.0/TCP second.example.org",
            "SIP/2.0/UDP third.example.org;branch=z9hG4bK-c",
            "SIP/2.0/UDP fourth.example.org",
        ]
    );
    assert_eq!(reply.one("From"), "\"Carol \\\"C\\\"\" <sip:carol@example.org> ; tag=c1");
    let to = reply.one("To").strip_prefix("Alice <sip:alice@example.com>;x=y;tag=").expect("a tag");
    assert!(to.len() == 16 && to.bytes().all(|byte| byte.is_ascii_hexdigit()), "{to}");
    assert_eq!((reply.one("Call-ID"), reply.one("CSeq"), reply.one("Server")), ("call-1", "1 OPTIONS", "test"));
    assert_eq!(reply.all("Timestamp").len() + reply.all("X-Other").len(), 0);
    assert_eq!(reply.one("Allow"), "INVITE, ACK, OPTIONS, BYE, CANCEL, REGISTER, SUBSCRIBE, NOTIFY, MESSAGE");
    assert_eq!((reply.one("Accept"), reply.one("Accept-Encoding"), reply.one("Supported")), ("*/*", "identity", ""));
}

#[test]
fn folded_fields_are_answered_on_one_line() {
    let mut server = TestServer::with(|_| ());
    let reply = server.ask(&request(
        "OPTIONS",
        "sip:example.com",
        &[
            "Via :\r\n SIP / 2.0\r\n /UDP\r\n    192.0.2.7:5999;rport;branch=z9hG4bK-a",
            "From:\tCarol\r\n <sip:carol@example.org>\r\n ;tag\r\n = c1",
            "tO:\r\n  sip:alice@example.com ;  tag    = q",
            "CSEQ:\r\n\t0009\r\n OPTIONS",
            "Call-ID  :  folded.call",
        ],
    ));
    assert_eq!(reply.one("Via"), "SIP / 2.0   /UDP      192.0.2.7:5999;rport=5999;branch=z9hG4bK-a;received=192.0.2.7");
    assert_eq!(reply.one("From"), "Carol   <sip:carol@example.org>   ;tag   = c1");
    assert_eq!(reply.one("To"), "sip:alice@example.com ;  tag    = q");
    assert_eq!((reply.one("CSeq"), reply.one("Call-ID")), ("0009   OPTIONS", "folded.call"));
}

#[test]
fn vias_are_completed_and_determine_the_port_of_the_answer() {
    let mut server = TestServer::with(|_| ());
    for (client, sent, answered, to) in [
        ("192.0.2.7:5999", "192.0.2.7:5999;branch=b", "192.0.2.7:5999;branch=b", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "192.0.2.7;branch=b", "192.0.2.7;branch=b", "192.0.2.7:5060"),
        ("192.0.2.7:5999", "192.0.2.8:7000", "192.0.2.8:7000;received=192.0.2.7", "192.0.2.7:7000"),
        ("192.0.2.7:5999", "host.example.org", "host.example.org;received=192.0.2.7", "192.0.2.7:5060"),
        ("192.0.2.7:5999", "192.0.2.7:7000;rport", "192.0.2.7:7000;rport=5999;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "h;rport ;branch=b", "h;rport=5999 ;branch=b;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "h:1;rport=2", "h:1;rport=2;received=192.0.2.7", "192.0.2.7:1"),
        // A client can choose neither `received` nor another address for the answer.
        ("192.0.2.7:5999", "h;received=10.0.0.1;rport;x", "h;rport=5999;x;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "h;rport;received=10.0.0.1;x", "h;rport=5999;x;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "192.0.2.7:5999;received=10.0.0.1", "192.0.2.7:5999", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "192.0.2.7:80;maddr=10.0.0.1", "192.0.2.7:80;maddr=10.0.0.1", "192.0.2.7:80"),
        ("192.0.2.7:5999", "192.0.2.7:0", "192.0.2.7:0", "192.0.2.7:5999"),
        ("[2001:db8::9]:5999", "[2001:DB8:0::9]:7000;rport", "[2001:DB8:0::9]:7000;rport=5999;received=2001:db8::9", "[2001:db8::9]:5999"),
        ("[2001:db8::9]:5999", "[2001:DB8:0::9]:7000", "[2001:DB8:0::9]:7000", "[2001:db8::9]:7000"),
        ("[::ffff:192.0.2.7]:5999", "192.0.2.7:5999", "192.0.2.7:5999", "[::ffff:192.0.2.7]:5999"),
        ("[::ffff:192.0.2.7]:5999", "h:5999", "h:5999;received=192.0.2.7", "[::ffff:192.0.2.7]:5999"),
        (
            "192.0.2.7:5999",
            "h:1;a=\"q;,\" , SIP/2.0/UDP next;rport",
            "h:1;a=\"q;,\";received=192.0.2.7 , SIP/2.0/UDP next;rport",
            "192.0.2.7:1",
        ),
    ] {
        server.client = client.parse().unwrap();
        let text = request("OPTIONS", "sip:example.com", &[&format!("Via: SIP/2.0/UDP {sent}")]);
        let (reply, destination) = server.send(text.as_bytes()).unwrap_or_else(|| panic!("{sent}"));
        assert_eq!(reply.status(), "200 OK", "{sent}");
        assert_eq!(reply.one("Via"), format!("SIP/2.0/UDP {answered}"));
        assert_eq!(destination, to.parse::<SocketAddr>().unwrap(), "{sent}");
    }
}

#[test]
fn datagrams_without_an_answer() {
    let valid = request("OPTIONS", "sip:example.com", &[]);
    let mut server = TestServer::registrar();
    assert_eq!(server.ask(&valid).code(), 200);
    for silent in [
        "",
        "\r\n\r\n",
        "\0",
        "OPTIONS",
        "OPTIONS sip:example.com SIP/2.0",
        "GET / HTTP/1.1\r\n\r\n",
        &valid.replace("OPTIONS sip:example.com SIP/2.0", "SIP/2.0 200 OK"),
        &valid.replace("OPTIONS sip", "OPT{IONS sip"),
        &valid.replace("OPTIONS sip:example.com SIP/2.0", " sip:example.com SIP/2.0"),
        &valid.replace("SIP/2.0\r\nVia", "SIPS/2.0\r\nVia"),
        // Without a usable Via the destination of an answer is unknown.
        &request("OPTIONS", "sip:example.com", &["Via"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP ;branch=b"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/1.0/UDP h", "v: SIP/2.0/UDP h"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP h:70000"]),
        &request("ACK", "sip:alice@example.com", &[]),
        &request("ACK", "sip:alice@example.com", &["To: broken<", "Require: nothing"]),
    ] {
        assert!(server.send(silent.as_bytes()).is_none(), "{silent:?}");
    }
    assert_eq!(server.ask(&format!("\r\n\r\n{valid}")).code(), 200, "empty lines before a request are skipped");
    assert!(TestServer::with(|_| ()).send(request("CANCEL", "sip:alice@example.com", &[]).as_bytes()).is_none());
}

#[test]
fn malformed_requests_get_400_with_the_reason() {
    let options = |lines: &[&str]| request("OPTIONS", "sip:example.com", lines);
    let valid = options(&[]);
    for (text, reason) in [
        (valid.replace("OPTIONS sip:example.com ", "OPTIONS  sip:example.com "), "Bad Request URI"),
        (valid.replace("sip:example.com ", "sip:example.com  "), "Bad Request URI"),
        (valid.replace("sip:example.com ", "<sip:example.com> "), "Bad Request URI"),
        (valid.replace("sip:example.com ", "sip:example.com; lr "), "Bad Request URI"),
        (valid.replace("sip:example.com ", "sip:example.com?Route=x "), "Header Fields in the Request URI"),
        (valid.replace("SIP/2.0\r\nVia", "SIP/2.0  \r\nVia"), "Blanks at the End of the Request Line"),
        (valid.replace("SIP/2.0\r\nVia", "SIP/two\r\nVia"), "Bad SIP Version"),
        (valid.replace("SIP/2.0\r\nVia", "SIP/2.0\nVia"), "A Line Does Not End with CR LF"),
        (valid.replace("Max-Forwards: 70\r\n", "Max-Forwards: 70\n"), "A Line Does Not End with CR LF"),
        (valid.replace("Max-Forwards: 70\r\n", "Max-Forwards 70\r\n"), "A Line Is Not a Header Field"),
        (valid.replace("Via", " folded into nothing\r\nVia"), "A Line Is Not a Header Field"),
        (valid[..valid.len() - 2].to_owned(), "No Empty Line after the Header Fields"),
        (valid[..valid.len() - 8].to_owned(), "No Empty Line after the Header Fields"),
        (options(&["Via: SIP/2.0/UDP 192.0.2.7;;,;,,"]), "Bad Via"),
        (options(&["Via: SIP/2.0/UDP 192.0.2.7;branch"]), "Bad Via"),
        (options(&["From"]), "No From"),
        (options(&["From: <sip:a@b"]), "Bad From"),
        (options(&["To"]), "No To"),
        (options(&["To: \"A <sip:a@b>"]), "Bad To"),
        (options(&["Call-ID"]), "No Call-ID"),
        (options(&["Call-ID: a b"]), "Bad Call-ID"),
        (options(&["Call-ID: a@b@c"]), "Bad Call-ID"),
        (options(&["Call-ID:"]), "Bad Call-ID"),
        (options(&["CSeq"]), "No CSeq"),
        (options(&["CSeq: OPTIONS"]), "Bad CSeq"),
        (options(&["CSeq: 2147483648 OPTIONS"]), "Bad CSeq"),
        (options(&["CSeq: 1 OPTIONS x"]), "Bad CSeq"),
        (options(&["CSeq: 1 INVITE"]), "CSeq of Another Method"),
        (options(&["Max-Forwards: 256"]), "Bad Max-Forwards"),
        (options(&["Max-Forwards: -1"]), "Bad Max-Forwards"),
        (options(&["Content-Length: 1"]), "Content-Length Is Longer than the Body"),
        (options(&["Content-Length: -1"]), "Bad Content-Length"),
        (options(&["Content-Length: 0", "l: 0"]), "More than One Content-Length"),
        (options(&["To: sip:a@b", "t: sip:a@b"]), "More than One To"),
        (options(&["From: sip:a@b;tag=1", "f: sip:a@b;tag=2"]), "More than One From"),
        (options(&["Call-ID: a", "i: a"]), "More than One Call-ID"),
        (options(&["CSeq: 1 OPTIONS", "CSeq: 2 OPTIONS"]), "More than One CSeq"),
        (options(&["Max-Forwards: 1", "Max-Forwards: 1"]), "More than One Max-Forwards"),
    ] {
        for mut server in [TestServer::with(|_| ()), TestServer::registrar()] {
            assert_eq!(server.ask(&text).status(), format!("400 {reason}"), "{text}");
        }
    }
    // The answer has the fields that the request has, as they are, without a tag.
    let mut server = TestServer::with(|_| ());
    let reply = server.ask(&options(&["From", "To: \"A <sip:a@b>", "Call-ID"]));
    assert_eq!((reply.all("From").len(), reply.all("Call-ID").len(), reply.one("To")), (0, 0, "\"A <sip:a@b>"));
}

#[test]
fn unusual_but_valid_requests_are_answered() {
    let options = |lines: &[&str]| request("OPTIONS", "sip:example.com", lines);
    for text in [
        options(&["Max-Forwards"]),
        options(&["Content-Length"]) + "a body of any length",
        options(&["Content-Length: 3"]) + "abc and bytes after the body",
        options(&["From: sip:a@b"]),
        options(&["X:", "Y :", "unknown: \u{fc}\u{1F600}", "Date: never"]),
        options(&["Call-ID: %Z%45()<>[]{}?@\\\"/:"]),
        options(&["CSeq: 0000000001 OPTIONS"]),
        options(&["Via: sip/2.0/SCTP h.example.org"]),
        options(&["To: tel:+15550100", "From: isbn:2983792873;tag=1"]),
        options(&[]).replace("SIP/2.0\r\nVia", "sip/2.0\r\nVia"),
    ] {
        assert_eq!(TestServer::with(|_| ()).ask(&text).status(), "200 OK", "{text}");
    }
}

#[test]
fn unsupported_methods_versions_schemes_extensions_and_sizes() {
    let mut server = TestServer::with(|params| params.methods = texts(&["OPTIONS", "INVITE", "ACK", "CANCEL"]));
    let reply = server.ask(&request("BREW", "sip:example.com", &[]));
    assert_eq!((reply.status(), reply.one("Allow")), ("501 Not Implemented", "INVITE, ACK, OPTIONS, CANCEL"));
    let reply = server.ask(&request("options", "sip:example.com", &[]));
    assert_eq!(reply.code(), 501, "methods are case-sensitive");
    let reply = server.ask(&request("BYE", "sip:alice@example.com", &[]));
    assert_eq!((reply.status(), reply.one("Allow")), ("405 Method Not Allowed", "INVITE, ACK, OPTIONS, CANCEL"));
    for uri in ["tel:+15550100", "soap.beep://192.0.2.103:3002", "unknownScheme:opaque"] {
        assert_eq!(server.ask(&request("OPTIONS", uri, &[])).status(), "416 Unsupported URI Scheme");
    }
    let text = request("OPTIONS", "sip:example.com", &[]);
    assert_eq!(server.ask(&text.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")).status(), "505 Version Not Supported");
    let reply = server.ask(&request("OPTIONS", "sip:example.com", &["Require: 100rel,\r\n path", "Require: timer", "Proxy-Require: x"]));
    assert_eq!((reply.status(), reply.all("Unsupported")), ("420 Bad Extension", vec!["100rel,   path", "timer"]));
    let long = request("OPTIONS", "sip:example.com", &[&format!("X: {}", "x".repeat(4000))]);
    assert_eq!(server.ask(&long).status(), "513 Message Too Large");
    assert!(server.send(request("ACK", "sip:example.com", &["Require: x"]).as_bytes()).is_none());
}

#[test]
fn bodies_are_accepted_by_media_type_and_encoding() {
    let mut server = TestServer::with(|params| params.accept = texts(&["application/sdp", "multipart/*"]));
    let mut code = |lines: &[&str], body: &str| {
        let text = request("INVITE", "sip:a@example.com", &[lines, &["Content-Length"]].concat()) + body;
        let reply = server.ask(&text);
        assert_eq!(reply.all("Accept").len(), usize::from(reply.code() == 415 && !lines.contains(&"e: gzip")), "{lines:?}");
        reply.code()
    };
    assert_eq!(code(&["Content-Type: Application/SDP;x=y"], "v=0"), 200);
    assert_eq!(code(&["c: multipart/mixed"], "v=0"), 200);
    assert_eq!(code(&["c: application/unknown"], "v=0"), 415);
    assert_eq!(code(&["c: application"], "v=0"), 415);
    assert_eq!(code(&["c: application/unknown"], ""), 200);
    assert_eq!(code(&["c: application/sdp", "Content-Encoding: identity"], "v=0"), 200);
    assert_eq!(code(&["c: application/sdp", "e: gzip"], "v=0"), 415);
}

#[test]
fn the_answer_is_configurable_and_a_success_makes_a_dialog() {
    let mut server = TestServer::with(|params| params.answer = "486 Busy Here, Sorry".into());
    let reply = server.ask(&request("INVITE", "sip:alice@example.com", &[]));
    assert_eq!(reply.status(), "486 Busy Here, Sorry");
    assert_eq!(server.ask(&request("OPTIONS", "sip:example.com", &[])).all("Allow").len(), 0);
    let mut server = TestServer::with(|_| ());
    let reply =
        server.ask(&request("INVITE", "sip:alice@example.com;x", &["Record-Route: <sip:p1;lr>, <sip:p2>", "record-route:\r\n <sip:p3>"]));
    assert_eq!(reply.one("Contact"), "<sip:alice@example.com;x>");
    assert_eq!(reply.all("Record-Route"), ["<sip:p1;lr>, <sip:p2>", "<sip:p3>"]);
    assert_eq!(server.ask(&request("BYE", "sip:alice@example.com", &["To: sip:alice@example.com;tag=1"])).code(), 200);
}

#[test]
fn retransmissions_get_the_same_tag_and_other_requests_another() {
    let mut server = TestServer::with(|_| ());
    let mut tag = |method: &str, lines: &[&str]| {
        let reply = server.ask(&request(method, "sip:alice@example.com", lines));
        reply.one("To").split(";tag=").nth(1).expect("a tag").to_owned()
    };
    let first = tag("INVITE", &[]);
    assert_eq!(first, tag("INVITE", &[]));
    let others = [
        tag("INVITE", &["Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-b"]),
        tag("INVITE", &["Call-ID: another"]),
        tag("INVITE", &["CSeq: 2 INVITE"]),
        tag("INVITE", &["From: <sip:carol@example.org>;tag=c2"]),
    ];
    assert!(!others.contains(&first) && others.iter().collect::<std::collections::BTreeSet<_>>().len() == 4, "{first} {others:?}");
    let mut other_server = TestServer::with(|_| ());
    let reply = other_server.ask(&request("INVITE", "sip:alice@example.com", &[]));
    assert!(!reply.one("To").contains(&first), "the tags of another server are predictable");
    let reply = other_server.ask(&request("INVITE", "sip:alice@example.com", &["To: <sip:alice@example.com>;tag=theirs"]));
    assert_eq!(reply.one("To"), "<sip:alice@example.com>;tag=theirs");
}

#[test]
fn requests_of_any_size_get_an_answer_that_fits() {
    let mut server = TestServer::with(|params| params.max_message = 65_507);
    for (name, count) in [("v: SIP/2.0/UDP h", 300), ("Record-Route: <sip:a>", 300), ("v:", 5000)] {
        let text = request("INVITE", "sip:a@example.com", &vec![name; count]);
        // The usual Via stays, because no line is called `Via`.
        let reply = server.ask(&text);
        assert_eq!(reply.code(), 200, "{name}");
    }
    let text = request("INVITE", "sip:a@example.com", &vec!["Require: a"; 3000]);
    assert_eq!(server.ask(&text).all("Unsupported").len(), 3000);
}
