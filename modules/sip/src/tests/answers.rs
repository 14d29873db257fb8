//! What is answered, rule by rule.

use std::net::SocketAddr;

use super::{Bench, request, texts};

#[test]
fn an_answer_repeats_what_it_must_and_nothing_else() {
    let mut bench = Bench::of(|params| params.server = "test".into());
    let reply = bench.ask(&request(
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
fn folded_and_spaced_fields_come_back_on_one_line() {
    let mut bench = Bench::of(|_| ());
    let reply = bench.ask(&request(
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
fn vias_are_completed_and_answers_go_where_they_say() {
    let mut bench = Bench::of(|_| ());
    for (client, sent, answered, to) in [
        ("192.0.2.7:5999", "192.0.2.7:5999;branch=b", "192.0.2.7:5999;branch=b", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "192.0.2.7;branch=b", "192.0.2.7;branch=b", "192.0.2.7:5060"),
        ("192.0.2.7:5999", "192.0.2.8:7000", "192.0.2.8:7000;received=192.0.2.7", "192.0.2.7:7000"),
        ("192.0.2.7:5999", "host.example.org", "host.example.org;received=192.0.2.7", "192.0.2.7:5060"),
        ("192.0.2.7:5999", "192.0.2.7:7000;rport", "192.0.2.7:7000;rport=5999;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "h;rport ;branch=b", "h;rport=5999 ;branch=b;received=192.0.2.7", "192.0.2.7:5999"),
        ("192.0.2.7:5999", "h:1;rport=2", "h:1;rport=2;received=192.0.2.7", "192.0.2.7:1"),
        // What a client says it came from is not believed, nor where else the answer should go.
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
        bench.client = client.parse().unwrap();
        let text = request("OPTIONS", "sip:example.com", &[&format!("Via: SIP/2.0/UDP {sent}")]);
        let (reply, destination) = bench.send(text.as_bytes()).unwrap_or_else(|| panic!("{sent}"));
        assert_eq!(reply.status(), "200 OK", "{sent}");
        assert_eq!(reply.one("Via"), format!("SIP/2.0/UDP {answered}"));
        assert_eq!(destination, to.parse::<SocketAddr>().unwrap(), "{sent}");
    }
}

#[test]
fn what_is_met_with_silence() {
    let right = request("OPTIONS", "sip:example.com", &[]);
    let mut bench = Bench::registrar();
    assert_eq!(bench.ask(&right).code(), 200);
    for silent in [
        "",
        "\r\n\r\n",
        "\0",
        "OPTIONS",
        "OPTIONS sip:example.com SIP/2.0",
        "GET / HTTP/1.1\r\n\r\n",
        &right.replace("OPTIONS sip:example.com SIP/2.0", "SIP/2.0 200 OK"),
        &right.replace("OPTIONS sip", "OPT{IONS sip"),
        &right.replace("OPTIONS sip:example.com SIP/2.0", " sip:example.com SIP/2.0"),
        &right.replace("SIP/2.0\r\nVia", "SIPS/2.0\r\nVia"),
        // Nobody can say where the answer would go.
        &request("OPTIONS", "sip:example.com", &["Via"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP ;branch=b"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/1.0/UDP h", "v: SIP/2.0/UDP h"]),
        &request("OPTIONS", "sip:example.com", &["Via: SIP/2.0/UDP h:70000"]),
        &request("ACK", "sip:alice@example.com", &[]),
        &request("ACK", "sip:alice@example.com", &["To: broken<", "Require: nothing"]),
    ] {
        assert!(bench.send(silent.as_bytes()).is_none(), "{silent:?}");
    }
    assert_eq!(bench.ask(&format!("\r\n\r\n{right}")).code(), 200, "empty lines before a request are skipped");
    assert!(Bench::of(|_| ()).send(request("CANCEL", "sip:alice@example.com", &[]).as_bytes()).is_none());
}

#[test]
fn what_is_malformed_is_answered_with_the_reason() {
    let ask = |lines: &[&str]| request("OPTIONS", "sip:example.com", lines);
    let right = ask(&[]);
    for (text, reason) in [
        (right.replace("OPTIONS sip:example.com ", "OPTIONS  sip:example.com "), "Bad Request URI"),
        (right.replace("sip:example.com ", "sip:example.com  "), "Bad Request URI"),
        (right.replace("sip:example.com ", "<sip:example.com> "), "Bad Request URI"),
        (right.replace("sip:example.com ", "sip:example.com; lr "), "Bad Request URI"),
        (right.replace("sip:example.com ", "sip:example.com?Route=x "), "Header Fields in the Request URI"),
        (right.replace("SIP/2.0\r\nVia", "SIP/2.0  \r\nVia"), "Blanks at the End of the Request Line"),
        (right.replace("SIP/2.0\r\nVia", "SIP/two\r\nVia"), "Bad SIP Version"),
        (right.replace("SIP/2.0\r\nVia", "SIP/2.0\nVia"), "A Line Does Not End with CR LF"),
        (right.replace("Max-Forwards: 70\r\n", "Max-Forwards: 70\n"), "A Line Does Not End with CR LF"),
        (right.replace("Max-Forwards: 70\r\n", "Max-Forwards 70\r\n"), "A Line Is No Header Field"),
        (right.replace("Via", " folded into nothing\r\nVia"), "A Line Is No Header Field"),
        (right[..right.len() - 2].to_owned(), "No Empty Line after the Header Fields"),
        (right[..right.len() - 8].to_owned(), "No Empty Line after the Header Fields"),
        (ask(&["Via: SIP/2.0/UDP 192.0.2.7;;,;,,"]), "Bad Via"),
        (ask(&["Via: SIP/2.0/UDP 192.0.2.7;branch"]), "Bad Via"),
        (ask(&["From"]), "No From"),
        (ask(&["From: <sip:a@b"]), "Bad From"),
        (ask(&["To"]), "No To"),
        (ask(&["To: \"A <sip:a@b>"]), "Bad To"),
        (ask(&["Call-ID"]), "No Call-ID"),
        (ask(&["Call-ID: a b"]), "Bad Call-ID"),
        (ask(&["Call-ID: a@b@c"]), "Bad Call-ID"),
        (ask(&["Call-ID:"]), "Bad Call-ID"),
        (ask(&["CSeq"]), "No CSeq"),
        (ask(&["CSeq: OPTIONS"]), "Bad CSeq"),
        (ask(&["CSeq: 2147483648 OPTIONS"]), "Bad CSeq"),
        (ask(&["CSeq: 1 OPTIONS x"]), "Bad CSeq"),
        (ask(&["CSeq: 1 INVITE"]), "CSeq of Another Method"),
        (ask(&["Max-Forwards: 256"]), "Bad Max-Forwards"),
        (ask(&["Max-Forwards: -1"]), "Bad Max-Forwards"),
        (ask(&["Content-Length: 1"]), "Content-Length Is Longer than the Body"),
        (ask(&["Content-Length: -1"]), "Bad Content-Length"),
        (ask(&["Content-Length: 0", "l: 0"]), "More than One Content-Length"),
        (ask(&["To: sip:a@b", "t: sip:a@b"]), "More than One To"),
        (ask(&["From: sip:a@b;tag=1", "f: sip:a@b;tag=2"]), "More than One From"),
        (ask(&["Call-ID: a", "i: a"]), "More than One Call-ID"),
        (ask(&["CSeq: 1 OPTIONS", "CSeq: 2 OPTIONS"]), "More than One CSeq"),
        (ask(&["Max-Forwards: 1", "Max-Forwards: 1"]), "More than One Max-Forwards"),
    ] {
        for mut bench in [Bench::of(|_| ()), Bench::registrar()] {
            assert_eq!(bench.ask(&text).status(), format!("400 {reason}"), "{text}");
        }
    }
    // What is there comes back as it is, and no more.
    let mut bench = Bench::of(|_| ());
    let reply = bench.ask(&ask(&["From", "To: \"A <sip:a@b>", "Call-ID"]));
    assert_eq!((reply.all("From").len(), reply.all("Call-ID").len(), reply.one("To")), (0, 0, "\"A <sip:a@b>"));
}

#[test]
fn what_looks_odd_and_is_right() {
    let ask = |lines: &[&str]| request("OPTIONS", "sip:example.com", lines);
    for text in [
        ask(&["Max-Forwards"]),
        ask(&["Content-Length"]) + "a body of any length",
        ask(&["Content-Length: 3"]) + "abc and what does not belong to it",
        ask(&["From: sip:a@b"]),
        ask(&["X:", "Y :", "unknown: \u{fc}\u{1F600}", "Date: never"]),
        ask(&["Call-ID: %Z%45()<>[]{}?@\\\"/:"]),
        ask(&["CSeq: 0000000001 OPTIONS"]),
        ask(&["Via: sip/2.0/SCTP h.example.org"]),
        ask(&["To: tel:+15550100", "From: isbn:2983792873;tag=1"]),
        ask(&[]).replace("SIP/2.0\r\nVia", "sip/2.0\r\nVia"),
    ] {
        assert_eq!(Bench::of(|_| ()).ask(&text).status(), "200 OK", "{text}");
    }
}

#[test]
fn methods_versions_schemes_extensions_and_sizes() {
    let mut bench = Bench::of(|params| params.methods = texts(&["OPTIONS", "INVITE", "ACK", "CANCEL"]));
    let reply = bench.ask(&request("BREW", "sip:example.com", &[]));
    assert_eq!((reply.status(), reply.one("Allow")), ("501 Not Implemented", "INVITE, ACK, OPTIONS, CANCEL"));
    let reply = bench.ask(&request("options", "sip:example.com", &[]));
    assert_eq!(reply.code(), 501, "methods distinguish capital letters");
    let reply = bench.ask(&request("BYE", "sip:alice@example.com", &[]));
    assert_eq!((reply.status(), reply.one("Allow")), ("405 Method Not Allowed", "INVITE, ACK, OPTIONS, CANCEL"));
    for uri in ["tel:+15550100", "soap.beep://192.0.2.103:3002", "nobodyKnowsThisScheme:opaque"] {
        assert_eq!(bench.ask(&request("OPTIONS", uri, &[])).status(), "416 Unsupported URI Scheme");
    }
    let text = request("OPTIONS", "sip:example.com", &[]);
    assert_eq!(bench.ask(&text.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")).status(), "505 Version Not Supported");
    let reply = bench.ask(&request("OPTIONS", "sip:example.com", &["Require: 100rel,\r\n path", "Require: timer", "Proxy-Require: x"]));
    assert_eq!((reply.status(), reply.all("Unsupported")), ("420 Bad Extension", vec!["100rel,   path", "timer"]));
    let long = request("OPTIONS", "sip:example.com", &[&format!("X: {}", "x".repeat(4000))]);
    assert_eq!(bench.ask(&long).status(), "513 Message Too Large");
    assert!(bench.send(request("ACK", "sip:example.com", &["Require: x"]).as_bytes()).is_none());
}

#[test]
fn bodies_are_accepted_by_their_type() {
    let mut bench = Bench::of(|params| params.accept = texts(&["application/sdp", "multipart/*"]));
    let mut code = |lines: &[&str], body: &str| {
        let text = request("INVITE", "sip:a@example.com", &[lines, &["Content-Length"]].concat()) + body;
        let reply = bench.ask(&text);
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
fn the_configured_answer_may_be_another_one_and_may_make_a_dialog() {
    let mut bench = Bench::of(|params| params.answer = "486 Busy Here, Sorry".into());
    let reply = bench.ask(&request("INVITE", "sip:alice@example.com", &[]));
    assert_eq!(reply.status(), "486 Busy Here, Sorry");
    assert_eq!(bench.ask(&request("OPTIONS", "sip:example.com", &[])).all("Allow").len(), 0);
    let mut bench = Bench::of(|_| ());
    let reply =
        bench.ask(&request("INVITE", "sip:alice@example.com;x", &["Record-Route: <sip:p1;lr>, <sip:p2>", "record-route:\r\n <sip:p3>"]));
    assert_eq!(reply.one("Contact"), "<sip:alice@example.com;x>");
    assert_eq!(reply.all("Record-Route"), ["<sip:p1;lr>, <sip:p2>", "<sip:p3>"]);
    assert_eq!(bench.ask(&request("BYE", "sip:alice@example.com", &["To: sip:alice@example.com;tag=1"])).code(), 200);
}

#[test]
fn copies_of_a_request_get_the_same_tag_and_others_another() {
    let mut bench = Bench::of(|_| ());
    let mut tag = |method: &str, lines: &[&str]| {
        let reply = bench.ask(&request(method, "sip:alice@example.com", lines));
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
    let mut elsewhere = Bench::of(|_| ());
    let reply = elsewhere.ask(&request("INVITE", "sip:alice@example.com", &[]));
    assert!(!reply.one("To").contains(&first), "a tag of another server can be foretold");
    let reply = elsewhere.ask(&request("INVITE", "sip:alice@example.com", &["To: <sip:alice@example.com>;tag=theirs"]));
    assert_eq!(reply.one("To"), "<sip:alice@example.com>;tag=theirs");
}

#[test]
fn a_request_of_any_size_has_room_for_its_answer() {
    let mut bench = Bench::of(|params| params.max_message = 65_507);
    for (name, count) in [("v: SIP/2.0/UDP h", 300), ("Record-Route: <sip:a>", 300), ("v:", 5000)] {
        let text = request("INVITE", "sip:a@example.com", &vec![name; count]);
        // The usual Via is left out only if a line is called so.
        let reply = bench.ask(&text);
        assert_eq!(reply.code(), 200, "{name}");
    }
    let text = request("INVITE", "sip:a@example.com", &vec!["Require: a"; 3000]);
    assert_eq!(bench.ask(&text).all("Unsupported").len(), 3000);
}
