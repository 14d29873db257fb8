//! Processes that are killed while a load generator is at work: what goes on, what fails, and what is left.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::setup::module;
use harness::{Deadline, Host, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

use super::from_outside::{
    GET_OK, address, connect, counted, descriptors_at_rest, in_time, told, try_ok, wait_for_descriptors, wait_for_no_connection,
    wait_until, workers,
};
use super::http_clients::is_installed;
use super::kv::{Peer, Reply, assert_whole, has, request, whole_value};
use super::streams::{Lines, process};

/// More deaths of one slot in ten seconds would delay its replacement.
const KILLS: usize = 4;
/// Connections of the load generator.
const LOAD: usize = 32;

/// Load of threads of this process; ends with the test, also if it fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pages, and lines that tell which worker answers.
fn start(accept: &str, keys: &str) -> Host {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    let keys = format!("tcp = \"127.0.0.1:0\"\naccept = \"{accept}\"\n{keys}");
    let setup = Setup::new().host("workers", "2").control().module(http).module(fixture("streams"));
    let setup = setup.listen_with(&keys, "http", None).listen_with(&keys, "streams:lines", None);
    setup.expect_log("was killed by SIGKILL").start()
}

/// wrk at work; ends with the test, also if it fails.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It goes on until it is told to end: how long a test takes is up to the machine.
fn wrk(at: SocketAddr) -> Load {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", &LOAD.to_string(), "-d5m", &format!("http://{at}/ok")]);
    Load(command.stdout(Stdio::piped()).spawn().expect("wrk"))
}

/// Tells wrk to end, once whoever waits since the last death has waited too long. What it says of its sockets: errors when connecting,
/// reading, writing, waiting.
fn errors_of(mut load: Load, at: SocketAddr) -> [u64; 4] {
    // An answer that takes longer than two seconds is an error for it.
    let until = Deadline::after(Duration::from_secs(3));
    while !until.has_passed() {
        new_ones_are_served(at);
    }
    processes::signal_process(load.0.id() as i32, Signal::INT);
    let mut said = String::new();
    load.0.stdout.take().expect("its output").read_to_string(&mut said).expect("its words");
    let status = load.0.wait().expect("the end of wrk");
    assert!(status.success() && said.contains("Requests/sec:"), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
    let Some(line) = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")) else { return [0; 4] };
    let numbers = line.split(", ").map(|part| part.rsplit(' ').next().expect("a number").parse().expect("a number"));
    numbers.collect::<Vec<u64>>().try_into().expect("four numbers")
}

fn lines_at_each(host: &Host) -> Vec<(Lines, i32)> {
    let client = |_| {
        let mut client = Lines::to(host, 1);
        let pid = client.number("pid") as i32;
        (client, pid)
    };
    (0..12).map(client).collect()
}

/// New connections are served, at once and in numbers.
#[track_caller]
fn new_ones_are_served(at: SocketAddr) {
    for _ in 0..20 {
        in_time("a page over a new connection", || {
            // A connection may be in the hands of the process that has just died.
            let deadline = Deadline::after(PATIENCE);
            while try_ok(&mut connect(at)).is_err() {
                assert!(!deadline.has_passed(), "no page");
            }
        });
    }
}

/// TCP main, if there is one at the moment.
fn tcp_mains(host: &Host) -> Vec<i32> {
    host.children().into_iter().filter(|pid| processes::title(*pid).contains("TCP main")).collect()
}

/// How many processes were replaced, as `ps` counts.
fn replaced(host: &Host) -> u64 {
    told(host, &["ps"]).as_array().expect("a list").iter().filter_map(|row| row["restarts"].as_u64()).sum()
}

#[test]
fn workers_that_are_killed_under_load_lose_their_connections_and_no_others() {
    if !is_installed("wrk") {
        return;
    }
    let host = start("main", "");
    let at = address(&host, 0);
    new_ones_are_served(at);
    wait_for_no_connection(&host);
    let before = descriptors_at_rest(&host);
    let load = wrk(at);
    let mut untouched = 0;
    for round in 1..=KILLS {
        // Each worker has its part of the load.
        wait_until(&host, "the load", || counted(&host, "connections") >= LOAD as i64);
        let mut clients = lines_at_each(&host);
        let victim = clients[0].1;
        host.kill(victim);
        new_ones_are_served(at);
        for (mut client, pid) in clients.drain(..) {
            if pid == victim {
                client.ends();
            } else {
                assert_eq!(client.number("pid") as i32, pid);
                untouched += 1;
            }
        }
        host.wait_for_log_lines("a process died and is replaced", round);
        wait_until(&host, "both workers", || workers(&host).len() == 2);
    }
    assert!(untouched > 0, "connections of the other worker");
    let [connecting, reading, writing, waiting] = errors_of(load, at);
    assert_eq!([connecting, waiting], [0, 0], "nobody was refused, nobody waited in vain");
    let lost = reading + writing;
    assert!((1..=(KILLS * LOAD) as u64).contains(&lost), "{lost} connections of the load were lost");
    nothing_is_left(&host, at, before);
    host.stop();
}

#[test]
fn tcp_main_that_is_killed_under_load_is_missed_by_nobody() {
    if !is_installed("wrk") {
        return;
    }
    let host = start("main", "");
    let at = address(&host, 0);
    new_ones_are_served(at);
    wait_for_no_connection(&host);
    let before = descriptors_at_rest(&host);
    let mut clients = lines_at_each(&host);
    let load = wrk(at);
    wait_until(&host, "the load", || counted(&host, "connections") >= (clients.len() + LOAD) as i64);
    for round in 1..=KILLS {
        host.kill(process(&host, "TCP main"));
        new_ones_are_served(at);
        for (client, pid) in &mut clients {
            assert_eq!(client.number("pid") as i32, *pid, "it notices nothing");
        }
        host.wait_for_log_lines("a process died and is replaced", round);
        wait_until(&host, "a new TCP main", || !tcp_mains(&host).is_empty());
    }
    assert_eq!(errors_of(load, at), [0; 4], "the load notices nothing");
    drop(clients);
    nothing_is_left(&host, at, before);
    host.stop();
}

#[track_caller]
fn nothing_is_left(host: &Host, at: SocketAddr, before: usize) {
    wait_for_no_connection(host);
    wait_for_descriptors(host, before);
    assert_eq!(replaced(host), KILLS as u64);
    new_ones_are_served(at);
}

/// Connections that live for one request, while processes of one kind are killed: afterwards exactly as many connections fit as the
/// limits say.
fn counts_stay_right(accept: &str, victims: impl Fn(&Host) -> Vec<i32>) {
    const LIMIT: usize = 60;
    let host = start(accept, &format!("max_connections = {LIMIT}\nmax_per_address = {LIMIT}"));
    let host = host.allowing("its replacement waits").allowing("a process died");
    let at = address(&host, 0);
    new_ones_are_served(at);
    wait_for_no_connection(&host);
    let before = descriptors_at_rest(&host);
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let once = || {
        let mut stream = connect(at);
        let mut answer = Vec::new();
        let asked = stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        match asked.and_then(|()| stream.read_to_end(&mut answer)) {
            Ok(_) if answer.ends_with(b"\r\n\r\nok") => _ = served.fetch_add(1, Ordering::Relaxed),
            // In the hands of a process that has died.
            Ok(_) => assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer)),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}"),
        }
    };
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    once();
                }
            });
        }
        for round in 1..=2 * KILLS {
            let seen = served.load(Ordering::Relaxed);
            wait_until(&host, "service", || served.load(Ordering::Relaxed) > seen + 100);
            wait_until(&host, "a victim", || !victims(&host).is_empty());
            let victims = victims(&host);
            host.kill(victims[round % victims.len()]);
            host.wait_for_log_lines("was killed by SIGKILL", round);
        }
        drop(stops);
    });
    wait_for_no_connection(&host);
    // Keep-alive, so that they stay.
    let mut all: Vec<_> = (0..LIMIT).map(|_| connect(at)).collect();
    let fit = all.iter_mut().filter_map(|stream| try_ok(stream).ok()).count();
    assert_eq!(fit, LIMIT, "so many connections fit");
    let mut more = connect(at);
    // It may be closed before it takes anything.
    let _ = more.write_all(GET_OK);
    assert_eq!(more.read(&mut [0]).unwrap_or(0), 0, "one more than fit");
    drop((all, more));
    wait_for_no_connection(&host);
    wait_for_descriptors(&host, before);
    host.stop();
}

#[test]
fn limits_count_right_after_deaths_of_tcp_main() {
    counts_stay_right("main", tcp_mains);
}

#[test]
fn limits_count_right_after_deaths_of_workers() {
    counts_stay_right("main", workers);
}

#[test]
fn limits_count_right_after_deaths_of_workers_that_accept() {
    counts_stay_right("workers", workers);
}

#[test]
fn the_store_goes_on_while_tcp_main_is_killed() {
    let host = Setup::new()
        .host("workers", "2")
        .host("shared_memory", "\"128MiB\"")
        .control()
        .module(module("kv"))
        .listen_with("tcp = \"127.0.0.1:0\"", "kv", None)
        .expect_log("was killed by SIGKILL")
        .allow_log("a timer function is slower than its period")
        .start();
    let at = address(&host, 0);
    assert_eq!(Peer::at(at).ask("SET a b"), Reply::Line("+OK".into()));
    wait_for_no_connection(&host);
    let before = descriptors_at_rest(&host);
    let benchmark = has("redis-benchmark", &["--version"]).then(|| {
        let mut command = Command::new("redis-benchmark");
        // One kind of request: each would begin with new connections.
        command.args(["-p", &at.port().to_string(), "-t", "mset", "-c", "20", "-n", "100000", "-r", "1000", "-q"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("redis-benchmark")
    });
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let clients: Vec<_> = (0..3_u64)
            .map(|client| {
                let (stop, rounds) = (&stop, &rounds);
                // One connection from the first to the last: every reply must come.
                scope.spawn(move || {
                    let (mut peer, mut round) = (Peer::at(at), client * 1000);
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let (key, value) = (format!("key{}", round % 50), whole_value(round));
                        let other = format!("key{}", round * 31 % 50);
                        peer.send(&[request(&[b"SET", key.as_bytes(), &value]), request(&[b"GET", other.as_bytes()])].concat())
                            .expect("a connection that stays");
                        assert_eq!(peer.receive().expect("a reply"), Reply::Line("+OK".into()));
                        if let Reply::Bulk(value) = peer.receive().expect("a reply") {
                            assert_whole(&value);
                        }
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // One that TCP main has accepted and not yet handed out ends with it, and neither the clients nor the benchmark go on after that.
        let all = clients.len() as i64 + if benchmark.is_some() { 20 } else { 0 };
        wait_until(&host, "all connections", || counted(&host, "connections") >= all);
        for round in 1..=KILLS {
            let seen = rounds.load(Ordering::Relaxed);
            wait_until(&host, "service", || rounds.load(Ordering::Relaxed) > seen + 200);
            host.kill(process(&host, "TCP main"));
            in_time("a value over a new connection", || assert_eq!(Peer::at(at).ask("GET a"), Reply::Bulk(b"b".to_vec())));
            host.wait_for_log_lines("a process died and is replaced", round);
            wait_until(&host, "a new TCP main", || !tcp_mains(&host).is_empty());
        }
        drop(stops);
        clients.into_iter().for_each(|client| client.join().expect("a client without an error"));
    });
    if let Some(benchmark) = benchmark {
        let output = benchmark.wait_with_output().expect("its end");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && !said.concat().contains("rror"), "{said:?}");
    }
    let mut peer = Peer::at(at);
    let Reply::Many(keys) = peer.ask("KEYS key*") else { panic!("no list") };
    for key in &keys {
        let Reply::Bulk(key) = key else { panic!("no key") };
        if !key.starts_with(b"key:") {
            let Ok(Reply::Bulk(value)) = peer.try_ask(&[b"GET", key]) else { panic!("no value") };
            assert_whole(&value);
        }
    }
    assert!(keys.len() >= 40, "{} keys", keys.len());
    drop(peer);
    wait_for_no_connection(&host);
    wait_for_descriptors(&host, before);
    host.stop();
}

#[test]
fn what_is_in_flight_through_tcp_main_fails_in_time() {
    let host = super::streams::lines("", 2).expect_log("was killed by SIGKILL").expect_log("no answer from a connection's worker").start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_ne!(one.ask("pid"), other.ask("pid"));
    let id = other.number("id");
    // From a worker, and from a process of a module.
    let from_worker = |one: &mut Lines| {
        let answer = one.ask(&format!("send {id} x"));
        let (outcome, ms) = answer.rsplit_once(' ').expect("an outcome and a time");
        (outcome.to_owned(), ms.parse::<u64>().expect("a time"))
    };
    let main = process(&host, "TCP main");
    processes::Process::open(main).expect("TCP main").stop(Deadline::after(PATIENCE));
    let mut took: Vec<u64> = Vec::new();
    for _ in 0..11 {
        let (outcome, ms) = from_worker(&mut one);
        assert_eq!(outcome, "Err(System)");
        took.push(ms);
    }
    for count in 1..=11 {
        one.say(&format!("linked {id}"));
        host.wait_for_log_lines("asked to send outcome=Err(System)", count);
    }
    let log = host.log();
    let times = log.lines.iter().filter_map(|line| line.text.split_once("outcome=Err(System) ms=")?.1.parse::<u64>().ok());
    let linked: Vec<u64> = times.collect();
    for took in [took, linked] {
        assert_eq!(took.len(), 11);
        // Not before somebody who is only slow has had his time. The fastest shows the limit; the others are up to what else this machine
        // does.
        assert!(took.iter().all(|ms| (80..1000).contains(ms)), "{took:?}");
        assert!(took.iter().any(|ms| *ms <= 100), "{took:?}");
    }
    host.kill(main);
    host.wait_for_log("a process died and is replaced");
    // And while one that works is killed: each is sent, or fails in that time.
    let stop = AtomicBool::new(false);
    let outcomes: Vec<(String, u64)> = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                outcomes.push(from_worker(&mut one));
            }
            outcomes
        });
        let stops = Stops(&stop);
        for round in 2..=KILLS {
            // It serves: one that died before would pass for one that cannot start, and its replacement would wait.
            assert_eq!(Lines::to(&host, 0).ask("say x"), "x");
            host.kill(process(&host, "TCP main"));
            host.wait_for_log_lines("a process died and is replaced", round);
        }
        drop(stops);
        sender.join().expect("a sender")
    });
    let sent = outcomes.iter().filter(|(outcome, _)| outcome.starts_with("Ok")).count();
    assert!(sent > 0 && outcomes.iter().all(|(outcome, _)| outcome.starts_with("Ok") || outcome == "Err(System)"), "{outcomes:?}");
    assert!(outcomes.iter().all(|(_, ms)| *ms < 1000), "{outcomes:?}");
    // Whatever was said to have been sent has arrived.
    other.say("say .");
    let mut heard = vec![0; sent];
    other.stream.read_exact(&mut heard).expect("what was sent");
    host.stop();
}
