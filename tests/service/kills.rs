//! Processes that are killed under load: which requests continue, which fail, and what is left.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::setup::module;
use harness::{Deadline, Host, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

use super::from_outside::{
    GET_OK, address, connect, control_json, counted, descriptors_at_rest, in_time, try_ok, wait_for_descriptors, wait_for_no_connection,
    wait_until, workers,
};
use super::http_clients::is_installed;
use super::kv::{Peer, Reply, assert_whole, has, request, whole_value};
use super::streams::{Lines, process};

/// More deaths in one slot within ten seconds would delay its replacement.
const KILLS: usize = 4;
/// Connections of the load generator.
const LOAD: usize = 32;

/// Stops the load threads of this process when the test ends, also when it fails.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A host with pages, and with lines that name the worker.
fn start(accept: &str, keys: &str) -> Host {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    let keys = format!("tcp = \"127.0.0.1:0\"\naccept = \"{accept}\"\n{keys}");
    let setup = Setup::new().host("workers", "2").control().module(http).module(fixture("streams"));
    let setup = setup.listen_with(&keys, "http", None).listen_with(&keys, "streams:lines", None);
    setup.expect_log("was killed by SIGKILL").start()
}

/// A running wrk. It ends with the test, also when the test fails.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs until it is told to end, because the duration of a test depends on the machine.
fn wrk(at: SocketAddr) -> Load {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", &LOAD.to_string(), "-d5m", &format!("http://{at}/ok")]);
    Load(command.stdout(Stdio::piped()).spawn().expect("wrk"))
}

/// Tells wrk to end, a while after the last death, so that its timeouts are reported. Returns its
/// socket errors: connect, read, write, timeout.
fn errors_of(mut load: Load, at: SocketAddr) -> [u64; 4] {
    // wrk counts an answer that takes more than two seconds as an error.
    let until = Deadline::after(Duration::from_secs(3));
    while !until.has_passed() {
        new_connections_are_served(at);
    }
    processes::signal_process(load.0.id() as i32, Signal::INT);
    let mut outcome = String::new();
    load.0.stdout.take().expect("its output").read_to_string(&mut outcome).expect("its words");
    let status = load.0.wait().expect("the end of wrk");
    assert!(status.success() && outcome.contains("Requests/sec:"), "{outcome}");
    assert!(!outcome.contains("Non-2xx"), "{outcome}");
    let Some(line) = outcome.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")) else { return [0; 4] };
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

/// New connections are served, many at once and without delay.
#[track_caller]
fn new_connections_are_served(at: SocketAddr) {
    for _ in 0..20 {
        in_time("a page over a new connection", || {
            // The process that has just died may have held this connection.
            let deadline = Deadline::after(PATIENCE);
            while try_ok(&mut connect(at)).is_err() {
                assert!(!deadline.has_passed(), "no page");
            }
        });
    }
}

/// The address of the pages, and the number of descriptors once the host has served and closed
/// connections.
fn at_rest(host: &Host) -> (SocketAddr, usize) {
    let at = address(host, 0);
    new_connections_are_served(at);
    wait_for_no_connection(host);
    (at, descriptors_at_rest(host))
}

/// TCP main, if it runs at the moment.
fn tcp_mains(host: &Host) -> Vec<i32> {
    host.children().into_iter().filter(|pid| processes::title(*pid).contains("TCP main")).collect()
}

/// The number of replaced processes, from `ps`.
fn replaced(host: &Host) -> u64 {
    control_json(host, &["ps"]).as_array().expect("a list").iter().filter_map(|row| row["restarts"].as_u64()).sum()
}

#[test]
fn workers_killed_under_load_lose_only_their_connections() {
    if !is_installed("wrk") {
        return;
    }
    let host = start("main", "");
    let (at, before) = at_rest(&host);
    let load = wrk(at);
    let mut untouched = 0;
    for round in 1..=KILLS {
        // Each worker has some of the load.
        wait_until(&host, "the load", || counted(&host, "connections") >= LOAD as i64);
        let mut clients = lines_at_each(&host);
        let victim = clients[0].1;
        host.kill(victim);
        new_connections_are_served(at);
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
    assert_eq!([connecting, waiting], [0, 0], "no connection was refused or timed out");
    let lost = reading + writing;
    assert!((1..=(KILLS * LOAD) as u64).contains(&lost), "{lost} connections of the load were lost");
    assert_nothing_left(&host, at, before);
    host.stop();
}

#[test]
fn no_client_notices_when_tcp_main_is_killed_under_load() {
    if !is_installed("wrk") {
        return;
    }
    let host = start("main", "");
    let (at, before) = at_rest(&host);
    let mut clients = lines_at_each(&host);
    let load = wrk(at);
    wait_until(&host, "the load", || counted(&host, "connections") >= (clients.len() + LOAD) as i64);
    for round in 1..=KILLS {
        host.kill(process(&host, "TCP main"));
        new_connections_are_served(at);
        for (client, pid) in &mut clients {
            assert_eq!(client.number("pid") as i32, *pid, "it is unaffected");
        }
        host.wait_for_log_lines("a process died and is replaced", round);
        wait_until(&host, "a new TCP main", || !tcp_mains(&host).is_empty());
    }
    assert_eq!(errors_of(load, at), [0; 4], "the load is unaffected");
    drop(clients);
    assert_nothing_left(&host, at, before);
    host.stop();
}

#[track_caller]
fn assert_nothing_left(host: &Host, at: SocketAddr, before: usize) {
    wait_for_no_connection(host);
    wait_for_descriptors(host, before);
    assert_eq!(replaced(host), KILLS as u64);
    new_connections_are_served(at);
}

/// Opens connections for one request each while processes of one kind are killed. Afterwards
/// exactly as many connections fit as the limits allow.
fn counts_stay_exact(accept: &str, victims: impl Fn(&Host) -> Vec<i32>) {
    const LIMIT: usize = 60;
    let host = start(accept, &format!("max_connections = {LIMIT}\nmax_per_address = {LIMIT}"));
    let host = host.allowing("its replacement waits").allowing("a process died");
    let (at, before) = at_rest(&host);
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let once = || {
        let mut stream = connect(at);
        let mut answer = Vec::new();
        let asked = stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        match asked.and_then(|()| stream.read_to_end(&mut answer)) {
            Ok(_) if answer.ends_with(b"\r\n\r\nok") => _ = served.fetch_add(1, Ordering::Relaxed),
            // The process that had accepted it has died.
            Ok(_) => assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer)),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}"),
        }
    };
    std::thread::scope(|scope| {
        let stops = StopOnDrop(&stop);
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
    // Keep-alive connections, which stay open.
    let mut all: Vec<_> = (0..LIMIT).map(|_| connect(at)).collect();
    let fit = all.iter_mut().filter_map(|stream| try_ok(stream).ok()).count();
    assert_eq!(fit, LIMIT, "connections up to the limit");
    let mut more = connect(at);
    // The server may close it before it reads anything.
    let _ = more.write_all(GET_OK);
    assert_eq!(more.read(&mut [0]).unwrap_or(0), 0, "one more than fits");
    drop((all, more));
    wait_for_no_connection(&host);
    wait_for_descriptors(&host, before);
    host.stop();
}

#[test]
fn limits_are_exact_after_deaths_of_tcp_main() {
    counts_stay_exact("main", tcp_mains);
}

#[test]
fn limits_are_exact_after_deaths_of_workers() {
    counts_stay_exact("main", workers);
}

#[test]
fn limits_are_exact_after_deaths_of_accepting_workers() {
    counts_stay_exact("workers", workers);
}

#[test]
fn the_store_serves_while_tcp_main_is_killed() {
    let host = Setup::new()
        .host("workers", "2")
        .host("shared_memory", "\"128MiB\"")
        .control()
        .module(module("kv"))
        .listen_tcp("kv")
        .expect_log("was killed by SIGKILL")
        .allow_log("a timer function is slower than its period")
        .start();
    let at = address(&host, 0);
    assert_eq!(Peer::at(at).ask("SET a b"), Reply::Line("+OK".into()));
    wait_for_no_connection(&host);
    let before = descriptors_at_rest(&host);
    let benchmark = has("redis-benchmark", &["--version"]).then(|| {
        let mut command = Command::new("redis-benchmark");
        // One kind of request only, because each kind begins with new connections.
        command.args(["-p", &at.port().to_string(), "-t", "mset", "-c", "20", "-n", "100000", "-r", "1000", "-q"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("redis-benchmark")
    });
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let stops = StopOnDrop(&stop);
        let clients: Vec<_> = (0..3_u64)
            .map(|client| {
                let (stop, rounds) = (&stop, &rounds);
                // One connection throughout. Every reply must come.
                scope.spawn(move || {
                    let (mut peer, mut round) = (Peer::at(at), client * 1000);
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let (key, value) = (format!("key{}", round % 50), whole_value(round));
                        let other = format!("key{}", round * 31 % 50);
                        peer.send(&[request(&[b"SET", key.as_bytes(), &value]), request(&[b"GET", other.as_bytes()])].concat())
                            .expect("a connection that stays open");
                        assert_eq!(peer.receive().expect("a reply"), Reply::Line("+OK".into()));
                        if let Reply::Bulk(value) = peer.receive().expect("a reply") {
                            assert_whole(&value);
                        }
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // A connection that TCP main has accepted and not yet handed out ends with it, and then
        // neither the clients nor the benchmark continue.
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
        let outcome = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && !outcome.concat().contains("rror"), "{outcome:?}");
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
fn lines_in_flight_through_tcp_main_fail_in_time() {
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
        // Not before a slow worker has had its time. The fastest answer shows the limit; slower
        // ones depend on the load of this machine.
        assert!(took.iter().all(|ms| (80..1000).contains(ms)), "{took:?}");
        assert!(took.iter().any(|ms| *ms <= 100), "{took:?}");
    }
    host.kill(main);
    host.wait_for_log("a process died and is replaced");
    // While working processes are killed, each line is sent or fails within that time.
    let stop = AtomicBool::new(false);
    let outcomes: Vec<(String, u64)> = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                outcomes.push(from_worker(&mut one));
            }
            outcomes
        });
        let stops = StopOnDrop(&stop);
        for round in 2..=KILLS {
            // Wait until it serves. If it died earlier, it would count as unable to start, and its
            // replacement would be delayed.
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
    // Every line that was reported as sent has arrived.
    other.say("say .");
    let mut heard = vec![0; sent];
    other.stream.read_exact(&mut heard).expect("the bytes sent");
    host.stop();
}
