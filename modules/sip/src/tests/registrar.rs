//! Tests of REGISTER and of redirections.

use std::time::{Duration, Instant};

use super::{Reply, TestServer, request};
use crate::registrar::StoreError;

/// Sends a REGISTER of alice with the given CSeq number.
fn register(server: &mut TestServer, cseq: u32, lines: &[&str]) -> Reply {
    let (cseq, via) = (format!("CSeq: {cseq} REGISTER"), format!("Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-{cseq}"));
    let mut all = vec![cseq.as_str(), via.as_str()];
    all.extend_from_slice(lines);
    server.ask(&request("REGISTER", "sip:example.com", &all))
}

fn invite(server: &mut TestServer, uri: &str) -> Reply {
    server.ask(&request("INVITE", uri, &[]))
}

/// Advances the server's clock.
fn advance(server: &mut TestServer, seconds: u64) {
    server.inner.started = server.inner.started.checked_sub(Duration::from_secs(seconds)).expect("a clock that began long ago");
}

#[test]
fn requests_are_redirected_to_a_contact_until_it_is_removed() {
    let mut server = TestServer::registrar();
    assert_eq!(invite(&mut server, "sip:alice@example.com").status(), "404 Not Found");
    let reply = register(&mut server, 1, &["Contact: \"Desk\" <sip:alice@192.0.2.7:5999;transport=udp>;+x=\"a;b\";q=0.7"]);
    assert_eq!(reply.status(), "200 OK");
    assert_eq!(reply.one("Contact"), "<sip:alice@192.0.2.7:5999;transport=udp>;q=0.700;expires=3600;+x=\"a;b\"");
    assert!(reply.one("Date").ends_with(" GMT"));
    for uri in ["sip:alice@example.com", "sip:%61lice@EXAMPLE.com.:5060;transport=udp", "sip:alice:pw@Example.Com"] {
        let reply = invite(&mut server, uri);
        assert_eq!(
            (reply.status(), reply.one("Contact")),
            ("302 Moved Temporarily", "<sip:alice@192.0.2.7:5999;transport=udp>;q=0.700;+x=\"a;b\"")
        );
    }
    for method in ["MESSAGE", "SUBSCRIBE", "OPTIONS", "BYE"] {
        assert_eq!(server.ask(&request(method, "sip:alice@example.com", &[])).code(), 302, "{method}");
    }
    for uri in ["sip:Alice@example.com", "sips:alice@example.com", "sip:alice@example.org", "sip:example.com", "sip:bob@example.com"] {
        assert_eq!(invite(&mut server, uri).code(), 404, "{uri}");
    }
    assert_eq!(register(&mut server, 2, &[]).all("Contact").len(), 1, "asking changes nothing");
    let reply = register(&mut server, 3, &["Contact: sip:alice@192.0.2.7:5999;transport=udp;expires=0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 1), "without brackets the parameter is not the URI's");
    let reply = register(&mut server, 4, &["Contact: <sip:alice@192.0.2.7:5999;transport=udp>;expires=0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 0));
    assert_eq!(invite(&mut server, "sip:alice@example.com").code(), 404);
    assert!(server.inner.store.as_ref().unwrap().keys().is_empty());
}

#[test]
fn contacts_are_ordered_by_preference_and_changed_together() {
    let mut server = TestServer::registrar();
    register(&mut server, 1, &["Contact: <sip:1@h>;q=0.1, <sip:2@h>;q=0.5"]);
    let reply = register(&mut server, 2, &["m: <sip:3@h>;q=0.25;expires=100"]);
    let uris: Vec<&str> = reply.all("Contact").iter().map(|contact| contact.split(';').next().unwrap()).collect();
    assert_eq!(uris, ["<sip:2@h>", "<sip:3@h>", "<sip:1@h>"]);
    let reply = invite(&mut server, "sip:alice@example.com");
    assert_eq!(reply.all("Contact"), ["<sip:2@h>;q=0.500", "<sip:3@h>;q=0.250", "<sip:1@h>;q=0.100"]);
    let reply = register(&mut server, 3, &["Contact: <sip:4@h>"]);
    assert_eq!(reply.status(), "403 Too Many Contacts");
    assert_eq!(register(&mut server, 4, &[]).all("Contact").len(), 3);
    // One request removes a contact, adds one, and changes one.
    let reply = register(&mut server, 5, &["Contact: <sip:1@H>;q=0.1;expires=0, <sip:4@h>", "Contact: <sip:2@h>;q=0.05"]);
    let contacts: Vec<String> = reply.all("Contact").iter().map(|contact| contact.replace(";expires=3600", "")).collect();
    assert_eq!(contacts, ["<sip:4@h>", "<sip:3@h>;q=0.250;expires=100", "<sip:2@h>;q=0.050"]);
    let long = format!("Contact: <sip:{}@h>;expires=0, <sip:2@h>;expires=0, <sip:{}@h>", "y".repeat(1200), "x".repeat(1200));
    assert_eq!(register(&mut server, 6, &[&long]).status(), "403 Contact Too Long");
    assert_eq!(register(&mut server, 7, &[]).all("Contact").len(), 3, "a refused request changes nothing");
}

#[test]
fn registrations_last_as_long_as_asked_within_the_limits() {
    let mut server = TestServer::registrar();
    let expires = |reply: &Reply| reply.one("Contact").split("expires=").nth(1).unwrap().parse::<u32>().unwrap();
    for (number, (lines, wanted)) in [
        (vec!["Contact: <sip:a@h>"], 3600),
        (vec!["Contact: <sip:a@h>", "Expires: 120"], 120),
        (vec!["Contact: <sip:a@h>;expires=90", "Expires: 120"], 90),
        (vec!["Contact: <sip:a@h>;expires=99999"], 7200),
        (vec!["Contact: <sip:a@h>;expires=99999999999999999999"], 7200),
        (vec!["Contact: <sip:a@h>;expires=soon"], 3600),
        (vec!["Contact: <sip:a@h>;expires=60"], 60),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(expires(&register(&mut server, number as u32 + 1, &lines)), wanted, "{lines:?}");
    }
    for lines in [vec!["Contact: <sip:a@h>;expires=59"], vec!["Contact: <sip:a@h>", "Expires: 1"]] {
        let reply = register(&mut server, 20, &lines);
        assert_eq!((reply.status(), reply.one("Min-Expires")), ("423 Interval Too Brief", "60"));
    }
    register(&mut server, 21, &["Contact: <sip:b@h>;expires=100"]);
    advance(&mut server, 60);
    assert_eq!(expires(&register(&mut server, 22, &[])), 40, "the other one has expired");
    assert_eq!(invite(&mut server, "sip:alice@example.com").one("Contact"), "<sip:b@h>");
    advance(&mut server, 40);
    assert_eq!(register(&mut server, 23, &[]).all("Contact").len(), 0);
    assert_eq!(invite(&mut server, "sip:alice@example.com").code(), 404);
    // Expired contacts count neither against the limit nor in the order of requests.
    assert_eq!(register(&mut server, 1, &["Contact: <sip:b@h>, <sip:c@h>, <sip:d@h>"]).code(), 200);
}

/// The time for the change and the time in the answer are the same, even if a second of the clock
/// ends in between.
#[test]
fn an_answer_uses_one_reading_of_the_clock() {
    let mut server = TestServer::registrar();
    let hold_until_second = |server: &mut TestServer, seconds: u64| {
        let end = Instant::now() + Duration::from_millis(500);
        server.inner.started = end.checked_sub(Duration::from_secs(seconds)).expect("a clock that began long ago");
        server.inner.store.as_ref().unwrap().locked_until.set(Some(end));
    };
    hold_until_second(&mut server, 100);
    assert_eq!(register(&mut server, 1, &["Contact: <sip:a@h>;expires=60"]).one("Contact"), "<sip:a@h>;expires=60");
    hold_until_second(&mut server, 159);
    let found = invite(&mut server, "sip:alice@example.com");
    assert_eq!((found.code(), found.all("Contact")), (302, vec!["<sip:a@h>"]));
    assert_eq!(invite(&mut server, "sip:alice@example.com").code(), 404);
}

#[test]
fn a_star_removes_all_contacts_and_must_be_the_only_one() {
    let mut server = TestServer::registrar();
    register(&mut server, 1, &["Contact: <sip:1@h>, <sip:2@h>"]);
    for (lines, reason) in [
        (vec!["Contact: *"], "400 A Contact of * Needs Expires: 0"),
        (vec!["Contact: *", "Expires: 1"], "400 A Contact of * Needs Expires: 0"),
        (vec!["Contact: *", "Expires: 0", "m: <sip:1@h>"], "400 A Contact of * Must Be the Only One"),
        (vec!["Contact: *", "Expires: 0", "m: *"], "400 A Contact of * Must Be the Only One"),
        (vec!["Contact: *, <sip:1@h>", "Expires: 0"], "400 Bad Contact"),
        (vec!["Contact: <sip:1@h>;expires=0, <sip:2@h"], "400 Bad Contact"),
        (vec!["Contact: sip:1@h?Route=x"], "400 Bad Contact"),
        (vec!["Contact:"], "400 Bad Contact"),
        (vec!["To: <tel:+15550100>", "Contact: <sip:1@h>"], "400 To Is Not a SIP Address"),
        (vec!["To: <sip:alice@example.net>"], "404 Not Found"),
        (vec!["To: <sip:example.com>"], "404 Not Found"),
    ] {
        assert_eq!(register(&mut server, 2, &lines).status(), reason, "{lines:?}");
    }
    assert_eq!(server.ask(&request("REGISTER", "sip:example.net", &["Contact: <sip:1@h>"])).code(), 404);
    let long = format!("To: <sip:{}@example.com>", "a".repeat(400));
    assert_eq!(register(&mut server, 2, &[&long]).code(), 404);
    assert_eq!(invite(&mut server, &format!("sip:{}@example.com", "a".repeat(400))).status(), "414 Request-URI Too Long");
    assert_eq!(register(&mut server, 3, &[]).all("Contact").len(), 2);
    let reply = register(&mut server, 3, &["Contact: *", "Expires: 0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 0));
    assert_eq!(invite(&mut server, "sip:alice@example.com").code(), 404);
}

#[test]
fn requests_of_one_client_are_carried_out_in_the_order_of_sending() {
    let mut server = TestServer::registrar();
    assert_eq!(register(&mut server, 5, &["Contact: <sip:1@h>, <sip:2@h>"]).code(), 200);
    for (cseq, lines) in [
        (4, vec!["Contact: <sip:1@h>;expires=0"]),
        (4, vec!["Contact: *", "Expires: 0"]),
        (5, vec!["Contact: *", "Expires: 0", "Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-other"]),
        (5, vec!["Contact: <sip:3@h>, <sip:2@h>", "Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-other"]),
    ] {
        let cseq = format!("CSeq: {cseq} REGISTER");
        let all = [&[cseq.as_str()], lines.as_slice()].concat();
        let reply = server.ask(&request("REGISTER", "sip:example.com", &all));
        assert_eq!(reply.status(), "500 Out of Order", "{all:?}");
    }
    assert_eq!(register(&mut server, 6, &[]).all("Contact").len(), 2, "nothing was changed");
    // The answer was lost, and the client sends the same request again.
    advance(&mut server, 10);
    let reply = register(&mut server, 5, &["Contact: <sip:1@h>, <sip:2@h>"]);
    assert_eq!(reply.all("Contact"), ["<sip:1@h>;expires=3590", "<sip:2@h>;expires=3590"]);
    // Another client, or the same one after a restart.
    assert_eq!(register(&mut server, 1, &["Call-ID: another", "Contact: <sip:1@h>;expires=0"]).all("Contact").len(), 1);
}

#[test]
fn without_shared_memory_the_answer_is_503_with_retry_after() {
    let mut server = TestServer::registrar();
    register(&mut server, 1, &["Contact: <sip:1@h>"]);
    server.inner.store.as_ref().unwrap().fails.set(Some(StoreError::Full));
    let reply = register(&mut server, 2, &["Contact: <sip:2@h>"]);
    assert_eq!((reply.status(), reply.one("Retry-After")), ("503 Service Unavailable", "60"));
    server.inner.store.as_ref().unwrap().fails.set(Some(StoreError::Failed));
    assert_eq!(register(&mut server, 3, &["Contact: <sip:2@h>"]).status(), "500 Server Internal Error");
    assert_eq!(register(&mut server, 4, &[]).all("Contact").len(), 1);
    assert_eq!(register(&mut server, 5, &["Contact: *", "Expires: 0"]).code(), 200, "removing contacts needs no memory");
}

#[test]
fn requests_for_the_server_itself_are_answered_by_it() {
    let mut server = TestServer::registrar();
    for uri in ["sip:example.com", "sip:other.example.net", "sip:bob@other.example.net"] {
        assert_eq!(server.ask(&request("OPTIONS", uri, &[])).code(), 200, "{uri}");
    }
    register(&mut server, 1, &["Contact: <sip:1@h>"]);
    let alice = "sip:alice@example.com";
    assert_eq!(server.ask(&request("OPTIONS", alice, &["Max-Forwards: 0"])).code(), 200);
    assert_eq!(server.ask(&request("INVITE", alice, &["Max-Forwards: 0"])).status(), "483 Too Many Hops");
    assert_eq!(
        server.ask(&request("INVITE", alice, &["To: <sip:alice@example.com>;tag=1"])).status(),
        "481 Call/Transaction Does Not Exist"
    );
    assert_eq!(server.ask(&request("CANCEL", alice, &[])).status(), "200 OK");
    assert_eq!(server.ask(&request("REGISTER", "sip:example.com", &["CSeq: 9 REGISTER", "Max-Forwards: 0"])).code(), 200);
}
