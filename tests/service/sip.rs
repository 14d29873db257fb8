//! The SIP server on the wire: several workers, one registrar for all, and time.

use std::collections::BTreeSet;

use harness::setup::module;
use harness::{Client, Deadline, Host, PATIENCE, Setup};

/// A request from this client with these additional lines.
fn request(client: &Client, method: &str, uri: &str, call: &str, lines: &[&str]) -> String {
    let port = client.address().port();
    let mut text = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{call}{method}\r\nMax-Forwards: 70\r\n\
         From: <sip:caller@example.org>;tag=f\r\nTo: <sip:{call}@example.com>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n"
    );
    for line in lines {
        text += &format!("{line}\r\n");
    }
    text + "\r\n"
}

/// The status line without the version.
fn status(answer: &str) -> &str {
    answer.lines().next().and_then(|line| line.strip_prefix("SIP/2.0 ")).unwrap_or_else(|| panic!("no answer: {answer}"))
}

fn contacts(answer: &str) -> Vec<&str> {
    answer.lines().filter_map(|line| line.strip_prefix("Contact: ")).collect()
}

fn register(client: &Client, user: &str, lines: &[&str]) -> String {
    client.ask_text(&request(client, "REGISTER", "sip:example.com", user, lines))
}

fn invite(client: &Client, user: &str) -> String {
    client.ask_text(&request(client, "INVITE", &format!("sip:{user}@example.com"), user, &[]))
}

fn registrar(workers: u32, memory: &str) -> Host {
    let sip = module("sip").param("registrar", "true").param("domains", r#"["example.com"]"#).text("min_expires", "1s");
    let setup = Setup::new().host("shared_memory", &format!("\"{memory}\"")).module(sip).listen("sip", workers);
    // It removes expired entries four times a second. On a busy machine a call may take longer than
    // that.
    setup.allow_log("a timer function is slower than its period").start()
}

#[test]
fn all_workers_give_the_same_answer_to_the_same_request() {
    let host = Setup::new().module(module("sip").text("answer", "404 Nobody Here").text("server", "wire")).listen("sip", 4).start();
    let clients: Vec<Client> = (0..8).map(|_| host.client()).collect();
    // All clients send the same text: with `rport` the answer goes to the source port, which is not
    // part of the tag.
    let text = request(&clients[0], "INVITE", "sip:a@example.com", "same", &[]).replace(";branch", ";rport;branch");
    let mut tags = BTreeSet::new();
    for _ in 0..20 {
        clients.iter().for_each(|client| client.send(text.as_bytes()));
        for client in &clients {
            let answer = String::from_utf8(client.receive()).unwrap();
            assert_eq!(status(&answer), "404 Nobody Here");
            assert!(
                answer.contains(&format!(";rport={};branch", client.address().port())) && answer.contains("\r\nServer: wire\r\n"),
                "{answer}"
            );
            tags.extend(answer.lines().find_map(|line| line.strip_prefix("To: ")).map(str::to_owned));
        }
    }
    assert_eq!(tags.len(), 1, "{tags:?}");
    host.stop();
}

#[test]
fn answers_go_to_the_port_in_the_via() {
    let host = Setup::new().module(module("sip")).listen("sip", 1).start();
    let (sender, other) = (host.client(), host.client());
    // The text that the other client would send.
    let text = request(&other, "OPTIONS", "sip:example.com", "elsewhere", &[]);
    sender.send(text.as_bytes());
    let answer = String::from_utf8(other.receive()).unwrap();
    assert_eq!(status(&answer), "200 OK");
    assert_eq!(sender.receive_before(Deadline::after(std::time::Duration::from_millis(20))), None);
    host.stop();
}

#[test]
fn registrations_are_shared_and_survive_a_dead_worker() {
    let host = registrar(4, "64MiB").allowing("a process died and is replaced");
    let clients: Vec<Client> = (0..8).map(|_| host.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        let contact = format!("Contact: <sip:{number}@192.0.2.1>;q=0.5, <sip:{number}@192.0.2.2>");
        let answer = register(client, &format!("user{number}"), &[&contact]);
        assert_eq!((status(&answer), contacts(&answer).len()), ("200 OK", 2));
    }
    let all_are_found = || {
        for (index, client) in clients.iter().enumerate() {
            for number in 0..clients.len() {
                let answer = invite(client, &format!("user{number}"));
                let wanted = [format!("<sip:{number}@192.0.2.2>"), format!("<sip:{number}@192.0.2.1>;q=0.500")];
                assert_eq!(
                    (status(&answer), contacts(&answer)),
                    ("302 Moved Temporarily", wanted.iter().map(String::as_str).collect()),
                    "{index}"
                );
            }
        }
    };
    all_are_found();
    let worker = host.children().into_iter().find(|pid| harness::processes::title(*pid).contains("worker")).expect("a worker");
    host.kill(worker);
    host.wait_for_log("a process died and is replaced");
    all_are_found();
    assert_eq!(status(&invite(&clients[0], "nobody")), "404 Not Found");
    host.stop();
}

#[test]
fn simultaneous_registrations_of_one_user_keep_all_contacts() {
    let host = registrar(4, "64MiB");
    let clients: Vec<Client> = (0..8).map(|_| host.client()).collect();
    for round in 0..20 {
        for (number, client) in clients.iter().enumerate() {
            let lines = [format!("Contact: <sip:{number}@192.0.2.1>"), format!("X-Round: {round}")];
            let text = request(client, "REGISTER", "sip:example.com", &format!("round{round}"), &[&lines[0], &lines[1]]);
            client.send(text.replace("Call-ID: ", &format!("Call-ID: {number}.")).as_bytes());
        }
        clients.iter().for_each(|client| assert_eq!(status(&String::from_utf8(client.receive()).unwrap()), "200 OK"));
        assert_eq!(contacts(&invite(&clients[0], &format!("round{round}"))).len(), clients.len());
    }
    host.stop();
}

#[test]
fn registrations_expire() {
    let host = registrar(2, "64MiB");
    let client = host.client();
    let answer = register(&client, "brief", &["Contact: <sip:brief@192.0.2.1>;expires=1"]);
    assert!(contacts(&answer)[0].ends_with(";expires=1"), "{answer}");
    let deadline = Deadline::after(PATIENCE);
    while status(&invite(&client, "brief")) != "404 Not Found" {
        assert!(!deadline.has_passed(), "the registration does not end");
    }
    host.stop();
}

#[test]
fn memory_is_freed_when_registrations_expire() {
    let host = registrar(2, "4MiB").allowing("bytes of shared memory");
    let client = host.client();
    let long = "x".repeat(900);
    let mut users = 0;
    let refused = loop {
        let answer = register(&client, &format!("user{users}"), &[&format!("Contact: <sip:{long}@192.0.2.1>;expires=5")]);
        if status(&answer) != "200 OK" {
            break answer;
        }
        users += 1;
        assert!(users < 20_000, "4 MiB hold everything");
    };
    assert_eq!(status(&refused), "503 Service Unavailable");
    assert!(refused.contains("\r\nRetry-After: 60\r\n") && users > 500, "{users} {refused}");
    // No request names those users again: the timer frees their memory.
    let deadline = Deadline::after(PATIENCE);
    let mut again = 0;
    while again < users / 2 {
        let answer = register(&client, &format!("again{again}"), &[&format!("Contact: <sip:{long}@192.0.2.1>;expires=600")]);
        again += usize::from(status(&answer) == "200 OK");
        assert!(!deadline.has_passed(), "the memory of {users} is not freed: {again}");
    }
    host.stop();
}

#[test]
fn impossible_parameters_are_refused() {
    for (name, value, text) in [
        ("answer", r#""100 Trying""#, "\\\"100 Trying\\\" does not begin with a code from 200 to 699"),
        ("answer", r#""200""#, "has no reason"),
        ("methods", r#"["OPTIONS", "DANCE"]"#, "\\\"DANCE\\\" is not a method that this module knows"),
        ("accept", r#"["sdp"]"#, "\\\"sdp\\\" is not a media type"),
        ("domains", r#"["a b"]"#, "\\\"a b\\\" is not a host name or address"),
        ("server", "\"\u{e9}\"", "characters that a header field cannot contain"),
        ("min_expires", r#""2h""#, "\\\"min_expires\\\" is longer than one hour"),
        ("default_expires", r#""1s""#, "\\\"default_expires\\\" is not between"),
        ("max_expires", r#""500ms""#, "a whole number of seconds"),
    ] {
        let ended = Setup::new().module(module("sip").param(name, value)).listen("sip", 1).allow_log("").fails(1);
        let plain = text.replace("\\\"", "\"");
        assert!(ended.log.contains(text) || ended.log.contains(&plain), "{name}: {}", ended.log);
    }
}
