//! Datagrams: sizes, clients, answers from other processes, and isolation.

use std::time::Duration;

use harness::setup::module;
use harness::{Client, Deadline, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

#[test]
fn datagrams_of_every_size_are_echoed() {
    let host = Setup::new().module(module("echo")).listen("echo", 2).start();
    let client = host.client();
    let pattern: Vec<u8> = (0..65_507_u32).map(|byte| (byte % 251) as u8).collect();
    for size in 0..=65_507 {
        let sent = &pattern[65_507 - size..];
        client.send(sent);
        let received = client.receive();
        assert!(received == sent, "{size} bytes were echoed as {}", received.len());
    }
    host.stop();
}

#[test]
fn every_client_gets_its_answers() {
    let host = Setup::new().module(module("echo")).listen("echo", 4).start();
    let clients: Vec<Client> = (0..200).map(|_| host.client()).collect();
    for round in 0..10 {
        // In two halves: the kernel may not buffer them all for one socket.
        for (half, clients) in clients.chunks(100).enumerate() {
            let text = |client: usize, part: usize| format!("{round} {half} {client} {part}").into_bytes();
            for part in 0..3 {
                clients.iter().enumerate().for_each(|(number, client)| client.send(&text(number, part)));
            }
            for (number, client) in clients.iter().enumerate() {
                // With several workers, answers may come in another order than requests.
                let mut answers: Vec<Vec<u8>> = (0..3).map(|_| client.receive()).collect();
                answers.sort();
                assert_eq!(answers, [text(number, 0), text(number, 1), text(number, 2)]);
            }
        }
    }
    host.stop();
}

#[test]
fn a_worker_answers_through_another_listener() {
    let host = Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 1).listen("recorder_a:serve", 1).start();
    let (first, second) = (Client::of(host.address(0)), Client::of(host.address(1)));
    let peer = first.ask_text("peer");
    assert_eq!(peer, first.address().to_string());
    // The worker of the second listener sends from the first listener's socket.
    assert_eq!(second.ask_text(&format!("send 0 {peer} hello")), "0");
    assert_eq!(first.receive(), b"hello");
    assert_eq!(second.ask_text("find 0"), "0");
    assert_eq!(second.ask_text("find 1"), "1");
    assert_eq!(second.ask_text("find 2"), "-3");
    // The longest datagram, one byte more, a listener that does not exist, an empty datagram.
    assert_eq!(second.ask_text(&format!("send_bytes 0 {peer} 65507")), "0");
    assert_eq!(first.receive().len(), 65_507);
    assert_eq!(second.ask_text(&format!("send_bytes 0 {peer} 65508")), "-3");
    assert_eq!(second.ask_text(&format!("send 7 {peer} hello")), "-3");
    assert_eq!(second.ask_text(&format!("send_bytes 0 {peer} 0")), "0");
    assert_eq!(first.receive(), b"");
    host.stop();
}

#[test]
fn ipv6_and_several_listeners_with_their_handlers() {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: listen 127.0.0.1:0 1"))
        .module(module("echo"))
        .listen_at("[::1]:0", "recorder_a:echo", Some(1))
        .listen("echo", 1)
        .start();
    let (v6, v4, own) = (Client::of(host.address(0)), Client::of(host.address(1)), Client::of(host.address(2)));
    assert_eq!(v6.ask(b"max_procs"), b"max_procs", "the handler that echoes");
    assert_eq!(v4.ask(b"max_procs"), b"max_procs", "the other module");
    assert_eq!(own.ask(b"max_procs"), b"6", "the module's first handler, on the listener it asked for");
    host.stop();
}

#[test]
fn clients_that_leave_do_no_harm() {
    let host = Setup::new().module(module("echo")).listen("echo", 2).start();
    let stays = host.client();
    for _ in 0..200 {
        // The client is gone before the answer arrives, and the kernel reports that to the server's
        // socket.
        host.client().send(b"and good-bye");
    }
    assert_eq!(stays.ask(b"still there?"), b"still there?");
    host.stop();
}

#[test]
fn a_stopped_process_holds_back_no_datagrams() {
    let host = Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 2).start();
    let stopped = host.records().child_inits(1)[0].pid();
    processes::Process::open(stopped).unwrap().stop(Deadline::after(PATIENCE));
    let client = host.client();
    for _ in 0..20 {
        let info = client.ask_text("info");
        assert!(!info.contains(&format!(" pid={stopped} ")), "{info}");
    }
    processes::signal_process(stopped, Signal::CONT);
    host.stop();
}

#[test]
fn a_dying_handler_ends_only_its_process() {
    for (way, how) in [
        ("fail too many", "a datagram handler failed module=\"recorder_a\" handler=\"serve\" code=-1 error=\"too many\""),
        ("panic too few", "a datagram handler panicked module=\"recorder_a\" handler=\"serve\""),
        ("segv", "how=\"was killed by SIGSEGV\""),
        ("exit 3", "how=\"exited with status 3\""),
    ] {
        let host = Setup::new()
            .module(fixture("recorder_a"))
            .listen("recorder_a:serve", 1)
            .listen("recorder_a:serve", 1)
            .expect_log(how)
            .expect_log("last=\"in a datagram handler of module \\\"recorder_a\\\"\"")
            .expect_log("a process died and is replaced")
            .allow_log("panicked: too few")
            .start();
        let (first, second) = (Client::of(host.address(0)), Client::of(host.address(1)));
        first.send(way.as_bytes());
        assert_eq!(second.ask_text("max_procs"), "5");
        // Datagrams of the same batch are lost with the process. Later ones go to the replacement.
        host.wait_for_log("a process died and is replaced");
        let info = first.ask_text("info");
        assert!(info.contains(" restarts=1 "), "{info}");
        assert_eq!(first.receive_before(Deadline::after(Duration::from_millis(20))), None);
        host.stop();
    }
}

#[test]
fn a_busy_port_is_named() {
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let ended = Setup::new()
        .module(fixture("recorder_a"))
        .listen_at(&address, "recorder_a:serve", Some(1))
        .expect_log(&format!("modhost: cannot listen on udp {address}"))
        .fails(1);
    assert!(ended.log.contains("hint: another program has it"), "{}", ended.log);
    assert_eq!(ended.records.event("destroy_f").len(), 1, "init_f had succeeded");
    assert_eq!(ended.records.event("init_child_f").len(), 0);
}
