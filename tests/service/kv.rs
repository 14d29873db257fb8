//! The key-value store on the wire: many workers with one store, deaths, memory, files, and clients
//! of other projects.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::processes::title;
use harness::setup::{Fixture, module};
use harness::{Deadline, Host, PATIENCE, Setup};

use super::from_outside::wait_until;

fn store(workers: u32, kv: Fixture) -> Setup {
    let host = Setup::new().host("workers", &workers.to_string()).host("shared_memory", "\"128MiB\"");
    // On a busy machine a timer call may take longer than its period.
    host.module(kv).listen_tcp("kv").allow_log("a timer function is slower than its period")
}

fn address(host: &Host) -> SocketAddr {
    host.addresses(0)[0].parse().expect("an address")
}

/// A connection.
pub(super) struct Peer {
    input: BufReader<TcpStream>,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The line, with its first byte.
    Line(String),
    Bulk(Vec<u8>),
    Nothing,
    Many(Vec<Reply>),
}

impl Peer {
    pub(super) fn of(host: &Host) -> Peer {
        Peer::at(address(host))
    }

    pub(super) fn at(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Peer { input: BufReader::new(stream) }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.get_mut().write_all(bytes)
    }

    pub(super) fn receive(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        let number = line.get(1..).and_then(|text| text.parse::<i64>().ok());
        Ok(match (line.as_bytes()[0], number) {
            (b'$', Some(len)) if len >= 0 => {
                let mut bytes = vec![0; len as usize + 2];
                self.input.read_exact(&mut bytes)?;
                assert_eq!(bytes.split_off(len as usize), b"\r\n");
                Reply::Bulk(bytes)
            }
            (b'$', _) => Reply::Nothing,
            (b'*', Some(len)) => Reply::Many((0..len).map(|_| self.receive()).collect::<Result<_, _>>()?),
            _ => Reply::Line(line),
        })
    }

    pub(super) fn try_ask(&mut self, arguments: &[&[u8]]) -> std::io::Result<Reply> {
        self.send(&request(arguments))?;
        self.receive()
    }

    #[track_caller]
    pub(super) fn ask(&mut self, line: &str) -> Reply {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.try_ask(&words).expect("a reply")
    }

    /// Everything until the connection ends.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.input.read_to_end(&mut rest);
        rest
    }
}

pub(super) fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn line(text: &str) -> Reply {
    Reply::Line(text.to_owned())
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn workers(host: &Host) -> Vec<i32> {
    host.children().into_iter().filter(|pid| title(*pid).contains("TCP worker")).collect()
}

#[test]
fn all_workers_share_one_store() {
    let host = store(4, module("kv")).start();
    let mut peers: Vec<Peer> = (0..12).map(|_| Peer::of(&host)).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.ask(&format!("SET key{number} value{number}")), line("+OK"));
        peer.ask("INCR shared");
    }
    for peer in &mut peers {
        for number in 0..12 {
            assert_eq!(peer.ask(&format!("GET key{number}")), bulk(&format!("value{number}")));
        }
        assert_eq!(peer.ask("GET shared"), bulk("12"));
    }
    assert_eq!(peers[0].ask("DBSIZE"), line(":13"));
    assert_eq!(peers[0].ask("QUIT"), line("+OK"));
    assert!(peers[0].rest().is_empty());
    host.stop();
}

#[test]
fn one_process_serves_in_no_fork_mode_and_over_a_unix_socket() {
    let setup = Setup::new().argument("--no-fork").module(module("kv")).allow_log("a timer function is slower than its period");
    let path = setup.path("socket");
    let host = setup.listen_with(&format!("unix = {path}"), "kv", None).start();
    let mut stream = std::os::unix::net::UnixStream::connect(host.path("socket")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"SET a b\r\nGET a\r\nQUIT\r\n").expect("room");
    let mut replies = String::new();
    stream.read_to_string(&mut replies).expect("replies");
    assert_eq!(replies, "+OK\r\n$1\r\nb\r\n+OK\r\n");
    host.stop();
}

/// A value that proves to be whole: its first bytes give its content and length.
pub(super) fn whole_value(round: u64) -> Vec<u8> {
    let len = 10 + (round * 7919 % 6000) as usize;
    let letter = b'a' + (round % 26) as u8;
    let mut value = format!("{len:05}{}", char::from(letter)).into_bytes();
    value.resize(len + 6, letter);
    value
}

#[track_caller]
pub(super) fn assert_whole(value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    let len: usize = text[..5].parse().unwrap_or_else(|_| panic!("a value begins with {:?}", &text[..20.min(text.len())]));
    assert_eq!(value.len(), len + 6, "its length");
    assert!(value[5..].iter().all(|byte| *byte == value[5]), "it is made of two");
}

#[test]
fn workers_killed_while_writing_leave_whole_values() {
    let host = store(3, module("kv")).start().allowing("was killed by SIGKILL").allowing("lock");
    let address = address(&host);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = 12;
    /// Stops the clients when the test ends, also when it fails.
    struct StopOnDrop<'s>(&'s AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4_u64)
            .map(|client| {
                let (stop, answered) = (&stop, &answered);
                scope.spawn(move || {
                    let (mut peer, mut round) = (Peer::at(address), client * 1000);
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let key = format!("key{}", round % 50);
                        let value = whole_value(round);
                        // Several at once, so that a worker is busy whenever it is killed.
                        let requests = [
                            request(&[b"SET", key.as_bytes(), &value]),
                            request(&[b"INCR", b"count"]),
                            request(&[b"MSET", b"one", &value, b"two", &value]),
                            request(&[b"GET", format!("key{}", round * 31 % 50).as_bytes()]),
                        ];
                        let outcome = (|| {
                            peer.send(&requests.concat())?;
                            (0..requests.len()).map(|_| peer.receive()).collect::<std::io::Result<Vec<Reply>>>()
                        })();
                        match outcome {
                            Ok(replies) => {
                                answered.fetch_add(1, Ordering::Relaxed);
                                assert_eq!((&replies[0], &replies[2]), (&line("+OK"), &line("+OK")));
                                if let Reply::Bulk(value) = &replies[3] {
                                    assert_whole(value);
                                }
                            }
                            // Its worker has died.
                            Err(_) => peer = Peer::at(address),
                        }
                    }
                })
            })
            .collect();
        let stops = StopOnDrop(&stop);
        for round in 1..=rounds {
            // Enough answers in total that one client has gone through its keys.
            let seen = answered.load(Ordering::Relaxed);
            wait_until(&host, "service", || answered.load(Ordering::Relaxed) > seen + 20);
            wait_until(&host, "all workers", || workers(&host).len() == 3);
            // In turn: the replacement of a worker that dies too often is delayed, and so are the
            // connections handed to it.
            let mut alive = workers(&host);
            alive.sort_by_key(|pid| title(*pid));
            host.kill(alive[round % 3]);
            host.wait_for_log_lines("was killed by SIGKILL", round);
        }
        drop(stops);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
    });
    let answered = answered.into_inner();
    assert!(answered > 100, "{answered} rounds were answered");
    let mut peer = Peer::at(address);
    let Reply::Many(keys) = peer.ask("KEYS *") else { panic!("no list") };
    assert!(keys.len() > 40, "{} keys", keys.len());
    for key in keys {
        let Reply::Bulk(key) = key else { panic!("no key") };
        let Ok(Reply::Bulk(value)) = peer.try_ask(&[b"GET", &key]) else { panic!("no value") };
        if key == b"count" {
            let count: u64 = String::from_utf8_lossy(&value).parse().expect("a number");
            assert!(count >= answered, "{count} of {answered}");
        } else {
            assert_whole(&value);
        }
    }
    host.stop();
}

#[test]
fn expired_keys_are_removed_without_being_read() {
    let host = store(2, module("kv")).start();
    let mut peer = Peer::of(&host);
    for number in 0..500 {
        assert_eq!(peer.ask(&format!("SET brief{number} x PX 50")), line("+OK"));
    }
    peer.ask("SET long x");
    let deadline = Deadline::after(PATIENCE);
    while peer.ask("DBSIZE") != line(":1") {
        assert!(!deadline.has_passed(), "{:?}", peer.ask("DBSIZE"));
    }
    host.stop();
}

#[test]
fn bad_requests_end_only_their_connection() {
    let host = store(1, module("kv")).start();
    let mut other = Peer::of(&host);
    assert_eq!(other.ask("SET a b"), line("+OK"));
    for (bytes, error) in [
        (&b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$104857600\r\n"[..], "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$-5\r\n", "invalid bulk length"),
        (b"*2000000000\r\n", "invalid multibulk length"),
        (b"*2\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"GET \"a\r\n", "unbalanced quotes in request"),
    ] {
        let mut peer = Peer::of(&host);
        peer.send(bytes).expect("room");
        assert_eq!(peer.rest(), format!("-ERR Protocol error: {error}\r\n").as_bytes(), "{}", String::from_utf8_lossy(bytes));
        assert_eq!(other.ask("GET a"), bulk("b"));
    }
    // Requests without an end: up to the listener's limit.
    let mut peer = Peer::of(&host);
    let endless = [&b"*1000000\r\n"[..], &b"$1\r\na\r\n".repeat(200_000)].concat();
    let sent = peer.send(&endless).and_then(|()| peer.input.get_ref().shutdown(Shutdown::Write));
    assert!(sent.is_err() || peer.rest().is_empty());
    assert_eq!(other.ask("GET a"), bulk("b"));
    host.stop();
}

#[test]
fn a_client_that_reads_late_gets_every_reply() {
    let host = store(1, module("kv")).start();
    let mut other = Peer::of(&host);
    let value = vec![b'v'; 50_000];
    assert_eq!(other.try_ask(&[b"SET", b"a", &value]).expect("a reply"), line("+OK"));
    let mut lazy = Peer::of(&host);
    let count = 2000;
    let requests = request(&[b"GET", b"a"]).repeat(count);
    lazy.send(&requests).expect("they fit into the buffers of the kernel");
    // No 100 MB are allocated for it meanwhile, and others are served.
    (0..200).for_each(|_| assert_eq!(other.ask("STRLEN a"), line(":50000")));
    let pid = workers(&host)[0];
    let kib: u64 = harness::processes::status(pid)["RssAnon"].trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 20_000, "the worker has {kib} KiB");
    for _ in 0..count {
        assert!(lazy.receive().expect("a reply") == Reply::Bulk(value.clone()));
    }
    host.stop();
}

#[test]
fn full_memory_is_an_error_or_evicts_keys() {
    let value = vec![b'v'; 1000];
    for (eviction, evicts) in [("none", false), ("lru", true)] {
        let host = store(2, module("kv").text("maxmemory", "1MiB").text("eviction", eviction)).start();
        let mut peers = [Peer::of(&host), Peer::of(&host)];
        let mut refused = 0;
        for number in 0..3000_usize {
            match peers[number % 2].try_ask(&[b"SET", format!("key{number}").as_bytes(), &value]).expect("a reply") {
                Reply::Line(line) if line == "+OK" => {}
                Reply::Line(line) if line == "-OOM command not allowed when used memory > 'maxmemory'." => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        let Reply::Line(size) = peers[0].ask("DBSIZE") else { panic!("no number") };
        let size: u64 = size[1..].parse().expect("a number");
        assert!((900..1000).contains(&size), "{size} keys with {eviction}");
        assert_eq!(refused > 0, !evicts, "{refused} refused with {eviction}");
        host.stop();
    }
    // Without a limit in the module: all of shared memory.
    let host = Setup::new().host("shared_memory", "\"4MiB\"").module(module("kv").text("eviction", "lru"));
    let host = host.listen_tcp("kv").allow_log("shared memory").allow_log("a timer function is slower than its period").start();
    let mut peer = Peer::of(&host);
    for number in 0..8000 {
        assert_eq!(peer.try_ask(&[b"SET", format!("key{number}").as_bytes(), &value]).expect("a reply"), line("+OK"), "{number}");
    }
    host.stop();
}

#[test]
fn the_snapshot_outlives_the_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys").display().to_string();
    let start = || store(2, module("kv").text("snapshot", &path));
    let host = start().start();
    let mut peer = Peer::of(&host);
    for number in 0..300 {
        peer.ask(&format!("SET key{number} value{number}"));
    }
    peer.ask("EXPIRE key7 1000");
    assert_eq!(peer.ask("SAVE"), line("+OK"));
    peer.ask("SET after x");
    drop(peer);
    host.stop();
    let host = start().start();
    host.wait_for_log("snapshot read");
    let mut peer = Peer::of(&host);
    assert_eq!(peer.ask("DBSIZE"), line(":301"));
    assert_eq!((peer.ask("GET key299"), peer.ask("GET after")), (bulk("value299"), bulk("x")));
    assert!(matches!(peer.ask("TTL key7"), Reply::Line(line) if line.starts_with(":9") || line == ":1000"));
    assert_eq!(peer.ask("BGSAVE"), line("+Background saving started"));
    let deadline = Deadline::after(PATIENCE);
    while peer.ask("LASTSAVE") == line(":0") {
        assert!(!deadline.has_passed(), "the slow timer does not save");
    }
    drop(peer);
    host.stop();
    // A damaged file.
    let mut bytes = std::fs::read(&path).expect("the snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("room");
    let kv = module("kv").text("snapshot", &path).text("snapshot_damaged", "fail");
    store(2, kv).expect_log("the snapshot is damaged").allow_log("").fails(1);
    let host = start().expect_log("the snapshot is damaged").start();
    assert_eq!(Peer::of(&host).ask("DBSIZE"), line(":0"));
    host.stop();
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("keys.damaged-")), "{names:?}");
}

/// Whether a program can be started.
pub(super) fn has(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("not run: {program} {} does not work here", arguments.join(" "));
    }
    there
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn redis_cli_and_redis_benchmark_work() {
    if !has("redis-cli", &["--version"]) || !has("redis-benchmark", &["--version"]) {
        return;
    }
    let host = store(2, module("kv")).start();
    let port = address(&host).port().to_string();
    let cli = |arguments: &[&str]| output("redis-cli", &[&["-p", &port][..], arguments].concat()).trim_end().to_owned();
    assert_eq!(cli(&["SET", "a", "41"]), "OK");
    assert_eq!(cli(&["INCR", "a"]), "42");
    assert_eq!(cli(&["-3", "GET", "none"]), "");
    assert_eq!(cli(&["--scan", "--pattern", "a*"]), "a");
    assert_eq!(cli(&["EXPIRE", "a", "100"]), "1");
    assert!(cli(&["INFO", "keyspace"]).contains("keys=1"));
    assert!(cli(&["LPUSH", "l", "x"]).starts_with("ERR unknown command 'LPUSH'"));
    for pipeline in ["1", "16"] {
        let tests = ["-t", "ping,set,get,incr,mset", "-c", "50", "-n", "5000", "-r", "1000", "--csv"];
        let csv = output("redis-benchmark", &[&["-p", &port, "-P", pipeline][..], &tests].concat());
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
            assert!(csv.lines().any(|line| line.starts_with(&format!("\"{test}\",\""))), "{test} is missing:\n{csv}");
        }
    }
    host.stop();
}

#[test]
fn the_redis_package_for_python_works() {
    let python = std::env::var("MODHOST_REDIS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !has(&python, &["-c", "import redis"]) {
        return;
    }
    let host = store(2, module("kv")).start();
    let suite = harness::built::root().join("tests/kv/suite.py").display().to_string();
    for protocol in ["2", "3"] {
        let outcome = output(&python, &[&suite, &address(&host).port().to_string(), protocol]);
        assert!(outcome.contains("all passed"), "{outcome}");
    }
    host.stop();
}
