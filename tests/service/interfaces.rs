//! A module that calls another while serving: which module is blamed for a panic or a crash, which
//! process ends, and which processes continue.

use std::io::{Read, Write};

use harness::setup::module;
use harness::{Client, Deadline, Host, PATIENCE, Setup, fixture, processes};

use super::from_outside::{address, connect, in_time, try_ok, wait_until, workers};

fn sums(user: harness::Fixture) -> Setup {
    Setup::new().module(user).module(fixture("sums")).listen("sums_user:ask", 2)
}

/// All processes but those of one kind, which may be replaced.
fn others(host: &Host, kind: &str) -> Vec<i32> {
    host.processes().into_iter().filter(|pid| !processes::title(*pid).contains(kind)).collect()
}

fn udp_workers(host: &Host) -> Vec<i32> {
    host.children().into_iter().filter(|pid| processes::title(*pid).contains(": worker ")).collect()
}

/// Both workers of the listener answer.
#[track_caller]
fn both_serve(client: &Client, host: &Host) {
    let wanted = udp_workers(host);
    assert_eq!(wanted.len(), 2, "{wanted:?}");
    let (mut seen, deadline) = (Vec::new(), Deadline::after(PATIENCE));
    while seen.len() < 2 {
        assert!(!deadline.has_passed(), "only {seen:?} of {wanted:?} serve");
        // Several requests at once, so that one worker does not get all of them.
        (0..16).for_each(|_| client.send(b"who"));
        for _ in 0..16 {
            let pid: i32 = String::from_utf8(client.receive()).expect("text").parse().expect("a pid");
            assert!(wanted.contains(&pid), "{pid} is not one of {wanted:?}");
            if !seen.contains(&pid) {
                seen.push(pid);
            }
        }
    }
}

#[test]
fn a_panic_of_the_callee_ends_the_calling_worker() {
    let host = sums(fixture("sums_user"))
        .expect_log("sums: panicked: a panic of the exporter")
        .expect_log("a datagram handler panicked module=\"sums_user\"")
        .expect_log("a process died and is replaced")
        .start();
    let client = host.client();
    both_serve(&client, &host);
    let (all, serving) = (others(&host, ": worker "), udp_workers(&host));
    // An error does not end a process.
    assert!(serving.contains(&client.ask_text("fail").parse().expect("a pid")));
    host.wait_for_log("ignored: test.sums fail: as asked");
    assert_eq!(udp_workers(&host), serving);
    // From another client, which may or may not get an answer.
    host.client().send(b"panic");
    host.wait_for_log("a process died and is replaced");
    wait_until(&host, "the replacement", || udp_workers(&host).len() == 2);
    let alive = udp_workers(&host);
    let gone: Vec<i32> = serving.iter().copied().filter(|pid| !alive.contains(pid)).collect();
    assert_eq!(gone.len(), 1, "one of {serving:?} and no other; now {alive:?}");
    assert_eq!(others(&host, ": worker "), all, "the others continue");
    // The log names the module that panicked, its process, and the module that called it.
    let log = host.log();
    let panicked = log.line("a panic of the exporter").expect("a line");
    assert_eq!(panicked.pid, gone[0]);
    assert!(panicked.text.starts_with("sums: "), "{}", panicked.text);
    let ended = log.line("a datagram handler panicked").expect("a line");
    assert_eq!(ended.pid, gone[0]);
    assert!(ended.text.contains("a function of another module that it called panicked"), "{}", ended.text);
    let replaced = log.line("a process died and is replaced").expect("a line");
    assert!(replaced.text.contains("exited with status 70") && replaced.text.contains("of module \\\"sums_user\\\""), "{}", replaced.text);
    both_serve(&client, &host);
    host.stop();
}

#[test]
fn a_crash_of_the_callee_is_blamed_on_it() {
    let host = sums(fixture("sums_user")).expect_log("was killed by SIGABRT").start();
    let client = host.client();
    both_serve(&client, &host);
    let all = others(&host, ": worker ");
    client.send(b"crash");
    host.wait_for_log("a process died and is replaced");
    wait_until(&host, "the replacement", || udp_workers(&host).len() == 2);
    let log = host.log();
    let replaced = log.line("a process died and is replaced").expect("a line");
    assert!(replaced.text.contains("of module \\\"sums\\\""), "{}", replaced.text);
    assert_eq!(others(&host, ": worker "), all);
    both_serve(&client, &host);
    host.stop();
}

#[test]
fn a_panic_of_the_callee_in_a_timer_ends_the_timer_process() {
    let user = fixture("sums_user").text("phase", "timer").text("wrong", "panic");
    // Each new timer process panics again. After some deaths the replacement is delayed.
    let host = sums(user)
        .expect_log("sums: panicked: a panic of the exporter")
        .expect_log("a timer function panicked module=\"sums_user\" timer=\"sums\"")
        .expect_log("its replacement waits")
        .allow_log("a process died and is replaced")
        .start();
    // Timer processes come and go all the time, and a newly forked one has no title yet.
    let main = host.main_pid();
    let serving = udp_workers(&host);
    let client = host.client();
    both_serve(&client, &host);
    host.wait_for_log("its replacement waits");
    both_serve(&client, &host);
    assert_eq!((host.main_pid(), udp_workers(&host)), (main, serving), "the others continue");
    let log = host.log();
    let died = |line: &&harness::log::Line| line.text.contains("died and is replaced") || line.text.contains("its replacement waits");
    for line in log.lines.iter().filter(died) {
        assert!(line.text.contains("timer\"") && line.text.contains("exited with status 70"), "{}", line.text);
        assert!(line.text.contains("in a timer function of module \\\"sums_user\\\""), "{}", line.text);
    }
    for line in log.lines.iter().filter(|line| line.text.contains("a panic of the exporter at=")) {
        assert!(line.process.contains("timer"), "{}", line.process);
        assert!(line.text.contains("sums"), "{}", line.text);
    }
    host.stop();
}

#[test]
fn a_panic_in_another_modules_page_ends_only_its_worker() {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    let host = Setup::new()
        .host("workers", "2")
        .module(http)
        .module(fixture("pages"))
        .listen_tcp("http")
        .expect_log("pages: panicked: a page that panics")
        .expect_log("a route of another module has failed")
        .expect_log("a stream handler panicked module=\"http\"")
        .expect_log("a process died and is replaced")
        .start();
    let at = address(&host, 0);
    let (all, before) = (others(&host, "TCP worker"), workers(&host));
    // TCP main gives each connection to the worker with fewer. After the first answer on a
    // connection a worker may still count it twice; by the second it has recorded the connection.
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(at);
        (0..2).for_each(|_| try_ok(&mut stream).expect("a page"));
        kept.push(stream);
    }
    kept[0].write_all(b"GET /panics HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    // The server treats the panic as an error and answers so. Then its worker ends.
    let _ = kept[0].read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 500 ") && !answer.contains("never seen"), "{answer}");
    host.wait_for_log("a process died and is replaced");
    // Then it has its own title.
    wait_until(&host, "the replacement", || workers(&host).len() == 2);
    let served = kept[1..].iter_mut().filter_map(|stream| try_ok(stream).ok()).count();
    assert_eq!(served, 2, "those of the other worker");
    for _ in 0..4 {
        in_time("a page over a new connection", || try_ok(&mut connect(at))).expect("a page");
    }
    assert_eq!(others(&host, "TCP worker"), all, "the others continue");
    let alive = workers(&host);
    let gone: Vec<i32> = before.iter().copied().filter(|pid| !alive.contains(pid)).collect();
    assert_eq!((gone.len(), alive.len()), (1, 2), "{before:?}, then {alive:?}");
    let log = host.log();
    let panicked = log.line("a page that panics").expect("a line");
    assert!(panicked.pid == gone[0] && panicked.text.starts_with("pages: "), "{}", panicked.text);
    host.stop();
}
