//! REGISTER, and who is redirected where.

use std::time::{Duration, Instant};

use super::{Bench, Reply, request};
use crate::registrar::StoreError;

/// A REGISTER of alice with this CSeq.
fn register(bench: &mut Bench, cseq: u32, lines: &[&str]) -> Reply {
    let (cseq, via) = (format!("CSeq: {cseq} REGISTER"), format!("Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-{cseq}"));
    let mut all = vec![cseq.as_str(), via.as_str()];
    all.extend_from_slice(lines);
    bench.ask(&request("REGISTER", "sip:example.com", &all))
}

fn invite(bench: &mut Bench, uri: &str) -> Reply {
    bench.ask(&request("INVITE", uri, &[]))
}

/// Time goes by.
fn wait(bench: &mut Bench, seconds: u64) {
    bench.server.started = bench.server.started.checked_sub(Duration::from_secs(seconds)).expect("a clock that began long ago");
}

#[test]
fn a_user_is_found_where_it_registered_until_it_leaves() {
    let mut bench = Bench::registrar();
    assert_eq!(invite(&mut bench, "sip:alice@example.com").status(), "404 Not Found");
    let reply = register(&mut bench, 1, &["Contact: \"Desk\" <sip:alice@192.0.2.7:5999;transport=udp>;+x=\"a;b\";q=0.7"]);
    assert_eq!(reply.status(), "200 OK");
    assert_eq!(reply.one("Contact"), "<sip:alice@192.0.2.7:5999;transport=udp>;q=0.700;expires=3600;+x=\"a;b\"");
    assert!(reply.one("Date").ends_with(" GMT"));
    for uri in ["sip:alice@example.com", "sip:%61lice@EXAMPLE.com.:5060;transport=udp", "sip:alice:pw@Example.Com"] {
        let reply = invite(&mut bench, uri);
        assert_eq!(
            (reply.status(), reply.one("Contact")),
            ("302 Moved Temporarily", "<sip:alice@192.0.2.7:5999;transport=udp>;q=0.700;+x=\"a;b\"")
        );
    }
    for method in ["MESSAGE", "SUBSCRIBE", "OPTIONS", "BYE"] {
        assert_eq!(bench.ask(&request(method, "sip:alice@example.com", &[])).code(), 302, "{method}");
    }
    for uri in ["sip:Alice@example.com", "sips:alice@example.com", "sip:alice@example.org", "sip:example.com", "sip:bob@example.com"] {
        assert_eq!(invite(&mut bench, uri).code(), 404, "{uri}");
    }
    assert_eq!(register(&mut bench, 2, &[]).all("Contact").len(), 1, "asking changes nothing");
    let reply = register(&mut bench, 3, &["Contact: sip:alice@192.0.2.7:5999;transport=udp;expires=0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 1), "without brackets the parameter is not the URI's");
    let reply = register(&mut bench, 4, &["Contact: <sip:alice@192.0.2.7:5999;transport=udp>;expires=0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 0));
    assert_eq!(invite(&mut bench, "sip:alice@example.com").code(), 404);
    assert!(bench.server.store.as_ref().unwrap().keys().is_empty());
}

#[test]
fn several_contacts_stand_in_the_order_of_their_preference() {
    let mut bench = Bench::registrar();
    register(&mut bench, 1, &["Contact: <sip:1@h>;q=0.1, <sip:2@h>;q=0.5"]);
    let reply = register(&mut bench, 2, &["m: <sip:3@h>;q=0.25;expires=100"]);
    let uris: Vec<&str> = reply.all("Contact").iter().map(|contact| contact.split(';').next().unwrap()).collect();
    assert_eq!(uris, ["<sip:2@h>", "<sip:3@h>", "<sip:1@h>"]);
    let reply = invite(&mut bench, "sip:alice@example.com");
    assert_eq!(reply.all("Contact"), ["<sip:2@h>;q=0.500", "<sip:3@h>;q=0.250", "<sip:1@h>;q=0.100"]);
    let reply = register(&mut bench, 3, &["Contact: <sip:4@h>"]);
    assert_eq!(reply.status(), "403 Too Many Contacts");
    assert_eq!(register(&mut bench, 4, &[]).all("Contact").len(), 3);
    // One goes, one comes, one changes: in one step.
    let reply = register(&mut bench, 5, &["Contact: <sip:1@H>;q=0.1;expires=0, <sip:4@h>", "Contact: <sip:2@h>;q=0.05"]);
    let contacts: Vec<String> = reply.all("Contact").iter().map(|contact| contact.replace(";expires=3600", "")).collect();
    assert_eq!(contacts, ["<sip:4@h>", "<sip:3@h>;q=0.250;expires=100", "<sip:2@h>;q=0.050"]);
    let long = format!("Contact: <sip:{}@h>;expires=0, <sip:2@h>;expires=0, <sip:{}@h>", "y".repeat(1200), "x".repeat(1200));
    assert_eq!(register(&mut bench, 6, &[&long]).status(), "403 Contact Too Long");
    assert_eq!(register(&mut bench, 7, &[]).all("Contact").len(), 3, "all of a request or nothing");
}

#[test]
fn how_long_a_registration_lasts() {
    let mut bench = Bench::registrar();
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
        assert_eq!(expires(&register(&mut bench, number as u32 + 1, &lines)), wanted, "{lines:?}");
    }
    for lines in [vec!["Contact: <sip:a@h>;expires=59"], vec!["Contact: <sip:a@h>", "Expires: 1"]] {
        let reply = register(&mut bench, 20, &lines);
        assert_eq!((reply.status(), reply.one("Min-Expires")), ("423 Interval Too Brief", "60"));
    }
    register(&mut bench, 21, &["Contact: <sip:b@h>;expires=100"]);
    wait(&mut bench, 60);
    assert_eq!(expires(&register(&mut bench, 22, &[])), 40, "the other one is over");
    assert_eq!(invite(&mut bench, "sip:alice@example.com").one("Contact"), "<sip:b@h>");
    wait(&mut bench, 40);
    assert_eq!(register(&mut bench, 23, &[]).all("Contact").len(), 0);
    assert_eq!(invite(&mut bench, "sip:alice@example.com").code(), 404);
    // What is over counts neither against the limit nor in the order of requests.
    assert_eq!(register(&mut bench, 1, &["Contact: <sip:b@h>, <sip:c@h>, <sip:d@h>"]).code(), 200);
}

/// What is granted or found and what is answered are of one moment, also if a second of the clock ends in between.
#[test]
fn an_answer_is_of_one_moment() {
    let mut bench = Bench::registrar();
    let hold_until_second = |bench: &mut Bench, seconds: u64| {
        let end = Instant::now() + Duration::from_millis(500);
        bench.server.started = end.checked_sub(Duration::from_secs(seconds)).expect("a clock that began long ago");
        bench.server.store.as_ref().unwrap().locked_until.set(Some(end));
    };
    hold_until_second(&mut bench, 100);
    assert_eq!(register(&mut bench, 1, &["Contact: <sip:a@h>;expires=60"]).one("Contact"), "<sip:a@h>;expires=60");
    hold_until_second(&mut bench, 159);
    let found = invite(&mut bench, "sip:alice@example.com");
    assert_eq!((found.code(), found.all("Contact")), (302, vec!["<sip:a@h>"]));
    assert_eq!(invite(&mut bench, "sip:alice@example.com").code(), 404);
}

#[test]
fn a_star_removes_all_and_stands_alone() {
    let mut bench = Bench::registrar();
    register(&mut bench, 1, &["Contact: <sip:1@h>, <sip:2@h>"]);
    for (lines, reason) in [
        (vec!["Contact: *"], "400 A Contact of * Needs Expires: 0"),
        (vec!["Contact: *", "Expires: 1"], "400 A Contact of * Needs Expires: 0"),
        (vec!["Contact: *", "Expires: 0", "m: <sip:1@h>"], "400 A Contact of * Stands Alone"),
        (vec!["Contact: *", "Expires: 0", "m: *"], "400 A Contact of * Stands Alone"),
        (vec!["Contact: *, <sip:1@h>", "Expires: 0"], "400 Bad Contact"),
        (vec!["Contact: <sip:1@h>;expires=0, <sip:2@h"], "400 Bad Contact"),
        (vec!["Contact: sip:1@h?Route=x"], "400 Bad Contact"),
        (vec!["Contact:"], "400 Bad Contact"),
        (vec!["To: <tel:+15550100>", "Contact: <sip:1@h>"], "400 To Is No SIP Address"),
        (vec!["To: <sip:alice@example.net>"], "404 Not Found"),
        (vec!["To: <sip:example.com>"], "404 Not Found"),
    ] {
        assert_eq!(register(&mut bench, 2, &lines).status(), reason, "{lines:?}");
    }
    assert_eq!(bench.ask(&request("REGISTER", "sip:example.net", &["Contact: <sip:1@h>"])).code(), 404);
    let long = format!("To: <sip:{}@example.com>", "a".repeat(400));
    assert_eq!(register(&mut bench, 2, &[&long]).code(), 404);
    assert_eq!(invite(&mut bench, &format!("sip:{}@example.com", "a".repeat(400))).status(), "414 Request-URI Too Long");
    assert_eq!(register(&mut bench, 3, &[]).all("Contact").len(), 2);
    let reply = register(&mut bench, 3, &["Contact: *", "Expires: 0"]);
    assert_eq!((reply.code(), reply.all("Contact").len()), (200, 0));
    assert_eq!(invite(&mut bench, "sip:alice@example.com").code(), 404);
}

#[test]
fn requests_of_one_client_count_in_the_order_of_their_sending() {
    let mut bench = Bench::registrar();
    assert_eq!(register(&mut bench, 5, &["Contact: <sip:1@h>, <sip:2@h>"]).code(), 200);
    for (cseq, lines) in [
        (4, vec!["Contact: <sip:1@h>;expires=0"]),
        (4, vec!["Contact: *", "Expires: 0"]),
        (5, vec!["Contact: *", "Expires: 0", "Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-other"]),
        (5, vec!["Contact: <sip:3@h>, <sip:2@h>", "Via: SIP/2.0/UDP 192.0.2.7:5999;branch=z9hG4bK-other"]),
    ] {
        let cseq = format!("CSeq: {cseq} REGISTER");
        let all = [&[cseq.as_str()], lines.as_slice()].concat();
        let reply = bench.ask(&request("REGISTER", "sip:example.com", &all));
        assert_eq!(reply.status(), "500 Out of Order", "{all:?}");
    }
    assert_eq!(register(&mut bench, 6, &[]).all("Contact").len(), 2, "nothing of it was done");
    // The answer was lost and the same request comes again.
    wait(&mut bench, 10);
    let reply = register(&mut bench, 5, &["Contact: <sip:1@h>, <sip:2@h>"]);
    assert_eq!(reply.all("Contact"), ["<sip:1@h>;expires=3590", "<sip:2@h>;expires=3590"]);
    // Another client, or this one after it began anew.
    assert_eq!(register(&mut bench, 1, &["Call-ID: another", "Contact: <sip:1@h>;expires=0"]).all("Contact").len(), 1);
}

#[test]
fn without_memory_the_answer_says_when_to_come_back() {
    let mut bench = Bench::registrar();
    register(&mut bench, 1, &["Contact: <sip:1@h>"]);
    bench.server.store.as_ref().unwrap().fails.set(Some(StoreError::Full));
    let reply = register(&mut bench, 2, &["Contact: <sip:2@h>"]);
    assert_eq!((reply.status(), reply.one("Retry-After")), ("503 Service Unavailable", "60"));
    bench.server.store.as_ref().unwrap().fails.set(Some(StoreError::Failed));
    assert_eq!(register(&mut bench, 3, &["Contact: <sip:2@h>"]).status(), "500 Server Internal Error");
    assert_eq!(register(&mut bench, 4, &[]).all("Contact").len(), 1);
    assert_eq!(register(&mut bench, 5, &["Contact: *", "Expires: 0"]).code(), 200, "leaving needs no memory");
}

#[test]
fn what_is_for_the_server_itself() {
    let mut bench = Bench::registrar();
    for uri in ["sip:example.com", "sip:other.example.net", "sip:bob@other.example.net"] {
        assert_eq!(bench.ask(&request("OPTIONS", uri, &[])).code(), 200, "{uri}");
    }
    register(&mut bench, 1, &["Contact: <sip:1@h>"]);
    let alice = "sip:alice@example.com";
    assert_eq!(bench.ask(&request("OPTIONS", alice, &["Max-Forwards: 0"])).code(), 200);
    assert_eq!(bench.ask(&request("INVITE", alice, &["Max-Forwards: 0"])).status(), "483 Too Many Hops");
    assert_eq!(
        bench.ask(&request("INVITE", alice, &["To: <sip:alice@example.com>;tag=1"])).status(),
        "481 Call/Transaction Does Not Exist"
    );
    assert_eq!(bench.ask(&request("CANCEL", alice, &[])).status(), "200 OK");
    assert_eq!(bench.ask(&request("REGISTER", "sip:example.com", &["CSeq: 9 REGISTER", "Max-Forwards: 0"])).code(), 200);
}
