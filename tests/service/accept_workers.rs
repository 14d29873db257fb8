//! `accept = "workers"`: workers accept connections themselves, without TCP main. All else is as
//! with TCP main.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use harness::processes::Process;
use harness::{Deadline, Host, PATIENCE, Setup, fixture};
use rustix::process::Signal;

use super::from_outside::{address, connect, descriptors_at_rest, in_time, wait_for_descriptors, wait_for_no_connection, workers};
use super::streams::{Lines, lines, process};
use super::tls::{Authority, ask, files};

fn accepting(keys: &str, workers: u32) -> Setup {
    lines(&format!("accept = \"workers\"\n{keys}"), workers).control()
}

/// One client at each worker, with the worker's pid. Any worker may accept, so all others are
/// stopped meanwhile.
fn one_client_per_worker(host: &Host, listener: usize) -> Vec<(Lines, i32)> {
    let workers = workers(host);
    let at = |wanted: &i32| {
        let others: Vec<Process> = workers.iter().filter(|pid| *pid != wanted).filter_map(|pid| Process::open(*pid)).collect();
        others.iter().for_each(|other| other.stop(Deadline::after(PATIENCE)));
        // The kernel may wake a stopped worker for one connection; the next connection wakes
        // another.
        let mut clients: Vec<Lines> = (0..workers.len()).map(|_| Lines::to(host, listener)).collect();
        let served = clients.last_mut().map(|client| client.number("pid") as i32);
        others.iter().for_each(|other| other.signal(Signal::CONT));
        assert_eq!(served, Some(*wanted));
        (clients.remove(workers.len() - 1), *wanted)
    };
    workers.iter().map(at).collect()
}

#[test]
fn accepting_workers_share_simultaneous_connections() {
    let host = accepting("", 3).start();
    let at = address(&host, 0);
    let deadline = Deadline::after(PATIENCE);
    let mut served = BTreeSet::new();
    // Each round connects many clients at the same time.
    while served.len() < 3 {
        assert!(!deadline.has_passed(), "only {served:?} have served a connection");
        let pids: Vec<i32> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        let pid = |_| {
                            let mut client = connect(at);
                            client.write_all(b"pid\nclose\n").expect("room");
                            let mut answer = String::new();
                            client.read_to_string(&mut answer).expect("a pid");
                            answer.trim_end().parse::<i32>().expect("a pid")
                        };
                        (0..50).map(pid).collect::<Vec<i32>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        served.extend(pids);
    }
    assert_eq!(served, workers(&host).into_iter().collect());
    wait_for_no_connection(&host);
    host.stop();
}

#[test]
fn accepting_workers_serve_without_tcp_main() {
    let host = accepting("", 2).expect_log("was killed by SIGKILL").expect_log("no answer from a connection's worker").start();
    let mut clients = one_client_per_worker(&host, 0);
    let id = clients[1].0.number("id");
    let main = process(&host, "TCP main");
    Process::open(main).expect("TCP main").stop(Deadline::after(PATIENCE));
    for _ in 0..20 {
        in_time("an answer while TCP main stands still", || assert_eq!(Lines::to(&host, 0).ask("say x"), "x"));
    }
    // Only sending to a connection of another process goes through TCP main, and so fails.
    assert!(clients[0].0.ask(&format!("send {id} lost?")).starts_with("Err(System)"));
    host.kill(main);
    host.wait_for_log("a process died and is replaced");
    // It fails in the same way until the replacement runs.
    let (mut times, deadline) = (1, Deadline::after(PATIENCE));
    loop {
        let outcome = clients[0].0.ask(&format!("send {id} there"));
        if outcome.starts_with("Ok") {
            break;
        }
        assert!(outcome.starts_with("Err(System)") && !deadline.has_passed(), "{outcome}");
        times += 1;
    }
    clients[1].0.say("say .");
    let heard = format!("lost?{}.", "there".repeat(times));
    assert_eq!(clients[1].0.hear(), heard, "the replacement passes on the lines in the link");
    for (client, pid) in &mut clients {
        assert_eq!(client.number("pid") as i32, *pid, "it is unaffected");
    }
    host.stop();
}

#[test]
fn a_dying_accepting_worker_loses_only_its_connections() {
    let setup = accepting("max_connections = 40\nmax_per_address = 40", 2).expect_log("was killed by SIGKILL");
    let host = setup.allow_log("no answer from a connection's worker").start();
    let before = descriptors_at_rest(&host);
    for round in 1..=3 {
        let mut clients: Vec<(Lines, i32)> = one_client_per_worker(&host, 0);
        let victim = clients[0].1;
        let id = clients[0].0.number("id");
        host.kill(victim);
        for (mut client, pid) in clients {
            if pid == victim {
                client.ends();
            } else {
                assert_eq!(client.number("pid") as i32, pid);
                client.assert_gone(id);
            }
        }
        in_time("an answer after a death", || assert_eq!(Lines::to(&host, 0).ask("say x"), "x"));
        host.wait_for_log_lines("a process died and is replaced", round);
        wait_for_no_connection(&host);
        // The connections of the dead worker no longer count: exactly as many fit as before.
        let mut all: Vec<Lines> = (0..40).map(|_| Lines::to(&host, 0)).collect();
        for client in &mut all {
            assert_eq!(client.ask("say x"), "x");
        }
        Lines::to(&host, 0).ends();
        drop(all);
        wait_for_no_connection(&host);
    }
    wait_for_descriptors(&host, before);
    host.stop();
}

#[test]
fn limits_hold_across_accepting_workers() {
    let host = accepting("max_per_address = 5", 3).start();
    for _ in 0..3 {
        let mut within: Vec<Lines> = (0..5).map(|_| Lines::to(&host, 0)).collect();
        for client in &mut within {
            assert_eq!(client.ask("say x"), "x");
        }
        for _ in 0..6 {
            Lines::to(&host, 0).ends();
        }
        drop(within);
        wait_for_no_connection(&host);
    }
    host.stop();
}

#[test]
fn every_process_sends_on_connections_of_accepting_workers() {
    let host = accepting("", 2).start();
    let mut clients = one_client_per_worker(&host, 0);
    let (mut other, _) = clients.pop().expect("two");
    let (mut one, _) = clients.pop().expect("two");
    let theirs = other.number("id");
    assert!(one.ask(&format!("send {theirs} from a worker")).starts_with("Ok"));
    other.say("say .");
    assert_eq!(other.hear(), "from a worker.");
    one.say(&format!("linked {theirs}"));
    assert_eq!(other.hear(), "sent");
    one.say(&format!("bare {theirs}"));
    host.wait_for_log("outcome=Err(NoLink)");
    drop(other);
    // And two that had only woken a worker.
    host.wait_for_log_lines("closed reason", 3);
    one.say(&format!("linked {theirs}"));
    host.wait_for_log("outcome=Err(Gone)");
    host.stop();
}

#[test]
fn accepting_workers_serve_unix_sockets_and_tls_across_a_new_main() {
    let authority = Authority::new();
    let setup = Setup::new();
    authority.certify(setup.folder(), "server", "localhost", 2090);
    let tls = format!("tcp = \"127.0.0.1:0\"\naccept = \"workers\"\ntls = {{ {} }}", files("server"));
    let host = setup
        .module(fixture("teller"))
        .host("workers", "2")
        .control()
        .listen_with("unix = \"socket\"\naccept = \"workers\"", "teller", None)
        .listen_with(&tls, "teller", None)
        .expect_log("starting a new main")
        .start();
    let offer = authority.client();
    let at = address(&host, 1);
    for round in 1..=2 {
        let mut unix = UnixStream::connect(host.path("socket")).expect("a connection");
        unix.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut hidden = offer.connect(at, "localhost").expect("a session");
        assert!(ask(&mut unix, "tls").starts_with("no tls "));
        assert!(ask(&mut hidden, "tls").starts_with("tls alpn=- name=localhost "));
        let served = |answer: String| workers(&host).iter().any(|pid| answer.ends_with(&format!("pid={pid}")));
        assert!(served(ask(&mut unix, "tls")) && served(ask(&mut hidden, "tls")), "by a worker");
        if round == 1 {
            // All of them end with main. The new main's workers serve the same sockets.
            host.kill(host.main_pid());
            assert_eq!(unix.read(&mut [0]).unwrap_or(0), 0, "its worker is gone");
            assert_eq!(hidden.sock.read(&mut [0]).unwrap_or(0), 0, "its worker is gone");
            host.wait_for_log_lines("ready in ", 2);
        }
    }
    let mut waits: Vec<TcpStream> = (0..20).map(|_| connect(at)).collect();
    let mut unix = UnixStream::connect(host.path("socket")).expect("a connection");
    assert!(ask(&mut unix, "say x") == "x");
    let socket = host.path("socket");
    let ended = host.stop();
    assert_eq!(unix.read(&mut [0]).expect("its end"), 0);
    for stream in &mut waits {
        // A session that had not begun ends without an alert.
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert!(ended.log.contains("closed reason=Stop") && !socket.exists());
}
