//! Connections: every listener, both directions, every kind of end, limits, and isolation between
//! connections.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::setup::module;
use harness::{Deadline, Host, PATIENCE, Setup, fixture, processes};
use rustix::process::Signal;

use super::from_outside::{descriptors_at_rest, wait_for_descriptors};

/// A client that sends and receives lines.
pub(super) struct Lines {
    pub(super) stream: BufReader<TcpStream>,
}

impl Lines {
    pub(super) fn to(host: &Host, listener: usize) -> Self {
        let address = &host.addresses(listener)[0];
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(super) fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).expect("a connection that takes a line");
    }

    #[track_caller]
    pub(super) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap_or_else(|error| panic!("no line: {error}"));
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(super) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    #[track_caller]
    pub(super) fn number(&mut self, line: &str) -> u64 {
        let answer = self.ask(line);
        answer.parse().unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    /// Everything until the end. None if the connection was reset.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no end: {error}"),
        }
    }

    /// Asserts that it ends, orderly or by a reset.
    #[track_caller]
    pub(super) fn ends(mut self) {
        assert_eq!(self.rest().unwrap_or_default(), b"");
    }

    /// Sends to a connection whose worker has died. Each attempt fails in time until the
    /// replacement runs; then it fails because the connection is gone.
    #[track_caller]
    pub(super) fn assert_gone(&mut self, id: u64) {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let outcome = self.ask(&format!("send {id} x"));
            if outcome.starts_with("Err(Gone)") {
                return;
            }
            assert!(outcome.starts_with("Err(System)") && !deadline.has_passed(), "{outcome}");
        }
    }
}

pub(super) fn lines(keys: &str, workers: u32) -> Setup {
    Setup::new().module(fixture("streams")).host("workers", &workers.to_string()).listen_with(
        &format!("tcp = \"127.0.0.1:0\"\n{keys}"),
        "streams:lines",
        None,
    )
}

/// The pid of the process whose title has that name.
#[track_caller]
pub(super) fn process(host: &Host, name: &str) -> i32 {
    let found = host.processes().into_iter().find(|pid| processes::title(*pid).contains(name));
    found.unwrap_or_else(|| panic!("there is no {name}\n{}", host.report()))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn all_kinds_of_listeners_serve_together() {
    let setup = Setup::new().module(module("echo")).module(fixture("c_streams")).host("workers", "2");
    let (folder, path) = (setup.folder().to_owned(), setup.path("socket"));
    let host = setup
        .listen_tcp("echo:bytes")
        .listen_with("tcp = \"[::1]:0\"", "echo:bytes", None)
        .listen_with(&format!("unix = {path}"), "echo:bytes", None)
        .listen_tcp("c_streams:lines")
        .start();
    let mut v4 = TcpStream::connect(&host.addresses(0)[0]).unwrap();
    let mut v6 = TcpStream::connect(&host.addresses(1)[0]).unwrap();
    let mut unix = UnixStream::connect(folder.join("socket")).unwrap();
    let mut answer = [0; 5];
    for stream in [&mut v4 as &mut dyn ReadWrite, &mut v6, &mut unix] {
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    let mut in_c = Lines::to(&host, 3);
    assert_eq!(in_c.hear(), "hello");
    assert_eq!(in_c.ask("one"), "one");
    in_c.say("fail");
    in_c.ends();
    drop((v4, v6, unix));
    host.stop();
    assert!(!folder.join("socket").exists());
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_module_opens_a_listener_and_gets_its_address() {
    let host = Setup::new()
        .module(fixture("streams").text("listen", "127.0.0.1:0"))
        .module(module("echo"))
        .listen_tcp("echo:bytes")
        .listen("echo:echo", 1)
        .start();
    // The log lists listeners for datagrams first.
    let (udp, own) = (host.client(), &host.addresses(2)[0]);
    assert_eq!(udp.ask(b"hello"), b"hello");
    let mut client = Lines::to(&host, 2);
    let answer = client.ask("listener");
    assert!(answer.contains(own), "{answer} {own}");
    let mine = client.stream.get_ref().local_addr().unwrap();
    assert_eq!(client.ask("peer"), format!("Some({mine})"));
    host.stop();
}

#[test]
fn three_megabytes_reach_a_slow_reader_and_return() {
    let host = Setup::new().module(module("echo")).host("workers", "1").listen_tcp("echo:bytes").start();
    let sent = pattern(3 << 20);
    let mut reader = TcpStream::connect(&host.addresses(0)[0]).unwrap();
    let mut writer = reader.try_clone().unwrap();
    let thread = std::thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut received = vec![0; sent.len()];
    // The reader waits until the sender blocks or is done, then reads small pieces.
    for piece in received.chunks_mut(1000) {
        reader.read_exact(piece).unwrap();
    }
    assert!(received == sent);
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "its end follows ours");
    thread.join().unwrap();
    host.stop();
}

#[test]
fn a_client_that_never_reads_costs_little_and_delays_no_other() {
    let host = lines("output_limit = \"64KiB\"", 1).start();
    let mut greedy = Lines::to(&host, 0);
    let worker = greedy.number("pid") as i32;
    let memory = || processes::status(worker)["VmRSS"].split(' ').next().unwrap().parse::<u64>().unwrap();
    let before_kib = memory();
    greedy.say("big 300000000");
    let mut other = Lines::to(&host, 0);
    for round in 0..100 {
        assert_eq!(other.ask(&format!("say {round}")), round.to_string());
    }
    assert!(memory() < before_kib + 8 * 1024, "{} KiB, before {before_kib}", memory());
    // When it reads, it gets everything that was accepted before, and more.
    let mut bytes = vec![0; 20_000_000];
    greedy.stream.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'b'));
    host.stop();
}

#[test]
fn either_side_can_close_its_half_first() {
    let host = lines("", 1).start();
    let mut ours = Lines::to(&host, 0);
    ours.say("stay");
    ours.stream.get_mut().write_all(b"rest").unwrap();
    ours.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(ours.hear(), "ended unused=4");
    ours.ends();
    let mut theirs = Lines::to(&host, 0);
    theirs.say("big 200000");
    theirs.say("half");
    assert_eq!(theirs.rest().map(|bytes| bytes.len()), Some(200_000));
    // Our half is still open, and the handler reads it: an unknown command closes the connection.
    theirs.say("linked 0");
    host.wait_for_log("asked to send outcome=Err(Gone)");
    drop(theirs);
    host.wait_for_log_lines("closed reason=normal", 2);
    host.stop();
}

#[test]
fn a_handler_ends_only_its_connection_in_every_way() {
    let host = lines("", 1).start();
    let mut stays = Lines::to(&host, 0);
    assert_eq!(stays.ask("say still"), "still");
    let mut closes = Lines::to(&host, 0);
    closes.say("big 200000");
    closes.say("close");
    assert_eq!(closes.rest().map(|bytes| bytes.len()), Some(200_000), "queued bytes are sent first");
    let mut aborts = Lines::to(&host, 0);
    assert_eq!(aborts.ask("say x"), "x");
    aborts.say("abort");
    assert_eq!(aborts.rest(), None, "a reset");
    for wrong in ["fail", "nonsense", "big x"] {
        let mut fails = Lines::to(&host, 0);
        fails.say(wrong);
        fails.ends();
    }
    let mut files = Lines::to(&host, 0);
    fs::write(host.path("file"), pattern(100_000)).unwrap();
    files.say(&format!("file 10 99990 {}", host.path("file").display()));
    let mut bytes = vec![0; 99_990];
    files.stream.read_exact(&mut bytes).unwrap();
    assert!(bytes == pattern(100_000)[10..]);
    files.say(&format!("file 10 99991 {}", host.path("file").display()));
    assert_eq!(files.rest().map(|bytes| bytes.len()), Some(99_990), "shorter than the handler said");
    assert_eq!(stays.ask("say still"), "still");
    host.wait_for_log_lines("closed reason=error", 3);
    host.stop();
}

#[test]
fn resets_in_every_state_leave_nothing() {
    let host = lines("", 2).start();
    assert_eq!(Lines::to(&host, 0).ask("say x"), "x");
    host.wait_for_log("closed reason");
    // The handler reports it before its worker closes the socket.
    let before = descriptors_at_rest(&host);
    for state in ["", "say half a li", "say x\n", "big 5000000\n", "half\n", "big 5000000\nclose\n", "pause\n", "pause\nsay x\n"] {
        for _ in 0..5 {
            let client = TcpStream::connect(&host.addresses(0)[0]).unwrap();
            (&client).write_all(state.as_bytes()).unwrap();
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        }
    }
    host.wait_for_log_lines("closed reason", 41);
    let mut client = Lines::to(&host, 0);
    assert_eq!(client.ask("say x"), "x");
    drop(client);
    host.wait_for_log_lines("closed reason", 42);
    wait_for_descriptors(&host, before);
    host.stop();
}

#[test]
fn ten_thousand_short_connections_leak_nothing() {
    for accept in ["main", "workers"] {
        let host = Setup::new()
            .module(module("echo"))
            .host("workers", "2")
            .listen_with(&format!("tcp = \"127.0.0.1:0\"\naccept = \"{accept}\""), "echo:bytes", None)
            .start();
        let address = host.addresses(0)[0].clone();
        let short = || {
            let mut client = TcpStream::connect(&address).unwrap();
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            // Its end has arrived, so the server has closed it.
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        };
        let fds = || -> usize { host.children().iter().map(|pid| processes::descriptors(*pid).len()).sum() };
        (0..100).for_each(|_| short());
        let before = fds();
        (0..10_000).for_each(|_| short());
        let after = fds();
        assert!(after <= before + 2, "{before} descriptors, then {after}");
        host.stop();
    }
}

#[test]
fn time_limits_end_idle_connections_and_bytes_extend_them() {
    for (keys, first) in [("idle_timeout = \"300ms\"", ""), ("read_timeout = \"300ms\"", "half a li"), ("total_timeout = \"300ms\"", "")] {
        let host = lines(keys, 1).start();
        let began = Instant::now();
        let mut client = Lines::to(&host, 0);
        client.stream.get_mut().write_all(first.as_bytes()).unwrap();
        client.ends();
        assert!(began.elapsed() >= Duration::from_millis(250), "{keys}: {:?}", began.elapsed());
        host.wait_for_log("closed reason=timeout");
        if !keys.starts_with("total") {
            // A client that continues to send is not cut off. A client that was delayed by this
            // machine proves nothing.
            let deadline = Deadline::after(PATIENCE);
            while !goes_on(&host) {
                assert!(!deadline.has_passed(), "this machine delays every run");
            }
        }
        host.stop();
    }
}

/// A client that sends for twice the limit of 300 ms and is served. False if this machine delayed
/// it so much that it may have been cut off.
fn goes_on(host: &Host) -> bool {
    let until = Deadline::after(Duration::from_millis(600));
    let mut last = Instant::now();
    let mut client = Lines::to(host, 0);
    while !until.has_passed() {
        let before = std::mem::replace(&mut last, Instant::now());
        let mut line = String::new();
        let asked = client.stream.get_mut().write_all(b"say x\n");
        let heard = asked.and_then(|()| client.stream.read_line(&mut line));
        // From before one request to after the next answer.
        if before.elapsed() > Duration::from_millis(250) {
            return false;
        }
        assert!(heard.is_ok() && line == "x\n", "{heard:?} {line:?}");
    }
    true
}

#[test]
fn limits_on_connections_and_bytes_hold() {
    let host = lines("max_connections = 4\ninput_limit = \"4KiB\"", 2)
        .listen_with("tcp = \"127.0.0.1:0\"\nmax_per_address = 2\naccept = \"workers\"", "streams:lines", None)
        .start();
    for (listener, limit) in [(0, 4), (1, 2)] {
        let mut within: Vec<Lines> = (0..limit).map(|_| Lines::to(&host, listener)).collect();
        for client in &mut within {
            assert_eq!(client.ask("say x"), "x");
        }
        Lines::to(&host, listener).ends();
        // When one connection ends, another fits.
        let mut last = within.pop().unwrap();
        last.say("close");
        last.ends();
        assert_eq!(Lines::to(&host, listener).ask("say x"), "x");
        drop(within);
    }
    host.wait_for_log_lines("closed reason", 8);
    let mut talks = Lines::to(&host, 0);
    // The limit may end it before all is sent.
    let _ = talks.stream.get_mut().write_all(&[b'x'; 5000]);
    talks.ends();
    host.wait_for_log("closed reason=limit");
    host.stop();
}

#[test]
fn connections_are_counted() {
    let host = lines("max_connections = 2", 1).control().start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_eq!((one.ask("say 1"), other.ask("say 2")), ("1".into(), "2".into()));
    Lines::to(&host, 0).ends();
    one.say("fail");
    one.ends();
    drop(other);
    host.wait_for_log_lines("closed reason", 2);
    let control = host.path("control");
    let output = std::process::Command::new(host.path("modhost")).arg("stats").arg("-s").arg(&control).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.split_whitespace().any(|word| word == name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}{}", String::from_utf8_lossy(&output.stderr)));
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    assert_eq!((value("host.connections_opened"), value("host.connections_refused")), (2, 1));
    assert_eq!((value("host.closed_by_error"), value("host.closed_normally"), value("host.closed_by_peer")), (1, 1, 0));
    assert_eq!((value("host.bytes_in"), value("host.bytes_out")), (6 + 6 + 5, 4));
    host.stop();
}

#[test]
fn two_thousand_connections_are_spread_evenly() {
    let host = lines("", 2).start();
    let mut pids = std::collections::BTreeMap::new();
    // After the first answer on a connection a worker may still count it twice; by the second it
    // has recorded the connection.
    let begin = |number: usize| {
        let mut client = Lines::to(&host, 0);
        assert_eq!(client.ask(&format!("say {number}")), number.to_string());
        *pids.entry(client.ask("pid")).or_insert(0) += 1;
        client
    };
    let mut clients: Vec<Lines> = (0..2_000).map(begin).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("say {number}")), number.to_string());
    }
    // Each connection goes to the least loaded worker.
    assert_eq!(pids.values().copied().collect::<Vec<i32>>(), [1000, 1000]);
    host.stop();
}

#[test]
fn a_killed_worker_loses_only_its_connections() {
    let setup = lines("", 2).expect_log("was killed by SIGKILL").expect_log("a process died and is replaced");
    let host = setup.allow_log("no answer from a connection's worker").start();
    let mut clients: Vec<(Lines, i32)> = (0..20)
        .map(|_| {
            let mut client = Lines::to(&host, 0);
            let pid = client.number("pid") as i32;
            (client, pid)
        })
        .collect();
    let victim = clients[0].1;
    let id = clients[0].0.number("id");
    host.kill(victim);
    for (mut client, pid) in clients.drain(..) {
        if pid == victim {
            client.ends();
        } else {
            assert_eq!(client.number("pid") as i32, pid);
            client.assert_gone(id);
        }
    }
    host.wait_for_log("a process died and is replaced");
    let pids: std::collections::BTreeSet<u64> = (0..20).map(|_| Lines::to(&host, 0).number("pid")).collect();
    assert!(!pids.contains(&(victim as u64)), "{pids:?}");
    host.stop();
}

#[test]
fn a_panic_ends_only_its_worker() {
    let host = lines("", 2)
        .expect_log("a stream handler panicked module=\"streams\" handler=\"lines\"")
        .expect_log("a process died and is replaced")
        .allow_log("panicked")
        .expect_log("last=\"in a stream handler of module \\\"streams\\\"\"")
        .start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_ne!(one.ask("pid"), other.ask("pid"));
    one.say("panic");
    one.ends();
    assert_eq!(other.ask("say x"), "x");
    host.wait_for_log("a process died and is replaced");
    host.stop();
}

#[test]
fn tcp_main_can_be_killed_at_any_time() {
    let host = lines("", 2).expect_log("was killed by SIGKILL").expect_log("a process died and is replaced").start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_ne!(one.ask("pid"), other.ask("pid"));
    let id = other.number("id");
    for round in 1..=3 {
        let main = process(&host, "TCP main");
        // A line in flight through a stopped process fails in time.
        processes::Process::open(main).unwrap().stop(Deadline::after(PATIENCE));
        let outcome = one.ask(&format!("send {id} lost?"));
        let (outcome, ms) = outcome.rsplit_once(' ').unwrap();
        assert_eq!(outcome, "Err(System)");
        assert!((50..1000).contains(&ms.parse::<u64>().unwrap()), "{ms} ms");
        host.kill(main);
        host.wait_for_log_lines("a process died and is replaced", round);
        // The replacement accepts connections and passes on lines: ids and links are unchanged.
        assert_eq!(Lines::to(&host, 0).ask("say x"), "x");
        assert!(one.ask(&format!("send {id} there")).starts_with("Ok"));
        // Lines that were in the link when the old one died are passed on by the new one.
        let mut heard = String::new();
        while !heard.ends_with("there") {
            let mut byte = [0];
            other.stream.read_exact(&mut byte).unwrap();
            heard.push(byte[0].into());
        }
        assert!(heard == "there" || heard == "lost?there", "{heard}");
    }
    let host = host.allowing("no answer from a connection's worker");
    host.stop();
}

#[test]
fn every_process_can_send_on_a_connection() {
    let host = lines("", 2).start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_ne!(one.ask("pid"), other.ask("pid"));
    let (mine, theirs) = (one.number("id"), other.number("id"));
    // From a worker to another worker, to its own connection, and to the same connection.
    assert!(one.ask(&format!("send {theirs} hello\u{a0}")).starts_with("Ok"));
    other.say("say .");
    assert_eq!(other.hear(), "hello\u{a0}.");
    assert!(one.ask(&format!("send {mine} ")).starts_with("Ok"));
    // From a process with a link, and from one without.
    one.say(&format!("linked {theirs}"));
    assert_eq!(other.hear(), "sent");
    one.say(&format!("bare {theirs}"));
    host.wait_for_log("outcome=Err(NoLink)");
    // A closed connection: the id never names a later one, even if that has the same slot.
    drop(other);
    host.wait_for_log("closed reason");
    let mut successors: Vec<Lines> = (0..4).map(|_| Lines::to(&host, 0)).collect();
    for successor in &mut successors {
        assert_ne!(successor.number("id"), theirs);
    }
    one.say(&format!("linked {theirs}"));
    host.wait_for_log("outcome=Err(Gone)");
    for id in [0, 12345, u64::MAX, 1 << 63] {
        let outcome = one.ask(&format!("send {id} x"));
        assert!(outcome.starts_with("Err(Gone)"), "{id}: {outcome}");
    }
    for successor in &mut successors {
        assert_eq!(successor.ask("say nothing"), "nothing");
    }
    // A client that does not read: its queue is full.
    let full = &mut successors[0];
    let id = full.number("id");
    full.say("big 50000000");
    let until = Deadline::after(PATIENCE);
    while !one.ask(&format!("send {id} x")).starts_with("Err(Busy)") {
        assert!(!until.has_passed(), "never full");
    }
    host.stop();
}

#[test]
fn connections_are_served_without_fork() {
    let host = lines("", 2).argument("--no-fork").start();
    let (mut one, mut other) = (Lines::to(&host, 0), Lines::to(&host, 0));
    assert_eq!(one.number("pid") as i32, host.pid());
    let id = other.number("id");
    assert!(one.ask(&format!("send {id} a")).starts_with("Ok"));
    other.say("say b");
    assert_eq!(other.hear(), "ab");
    one.say(&format!("linked {id}"));
    assert_eq!(other.hear(), "sent");
    one.say(&format!("bare {id}"));
    host.wait_for_log("outcome=Err(NoLink)");
    other.say("echo");
    let sent = pattern(300_000);
    let mut writer = other.stream.get_ref().try_clone().unwrap();
    let thread = std::thread::spawn({
        let sent = sent.clone();
        move || writer.write_all(&sent).unwrap()
    });
    let mut received = vec![0; sent.len()];
    other.stream.read_exact(&mut received).unwrap();
    assert!(received == sent);
    thread.join().unwrap();
    host.stop();
}

#[test]
fn a_stop_ends_open_connections() {
    let host = lines("", 2).start();
    let mut clients: Vec<Lines> = (0..50).map(|_| Lines::to(&host, 0)).collect();
    for client in &mut clients {
        assert_eq!(client.ask("say x"), "x");
    }
    let ended = host.stop();
    clients.into_iter().for_each(Lines::ends);
    assert_eq!(ended.log.count("closed reason=stop"), 50);
}

#[test]
fn a_daemon_serves_after_dropping_privileges() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it needs root");
        return;
    }
    // A free port below 1024.
    let Some(port) = (600..1000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) else { panic!("no port is free") };
    let (host, started) = Setup::new()
        .module(fixture("streams"))
        .host("workers", "2")
        .host("user", "\"nobody\"")
        .listen_with(&format!("tcp = \"127.0.0.1:{port}\""), "streams:lines", None)
        .daemon();
    assert_eq!(started.code, 0, "{}", host.report());
    let mut client = Lines { stream: BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()) };
    let worker = client.number("pid") as i32;
    assert_ne!(processes::identity(worker).0[1], 0, "the worker runs as root");
    let main = process(&host, "TCP main");
    let host = host.allowing("was killed by SIGKILL").allowing("a process died");
    processes::signal_process(main, Signal::KILL);
    assert_eq!(client.ask("say x"), "x");
    host.wait_for_log("a process died and is replaced");
    let mut next = Lines { stream: BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()) };
    assert_eq!(next.ask("say x"), "x");
    host.stop();
}
