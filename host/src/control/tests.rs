//! The control protocol over a real socket: a server in a thread, clients around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use serde_json::{Value, json};

use super::client::Connection;
use super::methods::{View, tests::table};
use super::serve::{Limits, serve};
use crate::error::Error;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that ends with the test.
struct Running {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
    stops: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    fn start(limits: Limits) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("modhost-control-{}-{}.sock", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        let socket = UnixListener::bind(&path).unwrap().into();
        let (stopped, stops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ends, counts) = (stopped.clone(), stops.clone());
        let thread = std::thread::spawn(move || {
            let modules = vec!["echo".to_owned()];
            let order_stop = || {
                counts.fetch_add(1, SeqCst);
            };
            serve(&socket, &View::of(table(), &modules), limits, &order_stop, &|| ends.load(SeqCst))
        });
        Self { path, stopped, stops, thread: Some(thread) }
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn connection(&self) -> Connection {
        Connection::open(&self.path, LIMIT).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        // Wakes it, as a signal would.
        drop(UnixStream::connect(&self.path));
        let ended = self.thread.take().unwrap().join();
        std::fs::remove_file(&self.path).unwrap();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn line(reader: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
}

#[test]
fn methods_are_answered_and_refusals_have_three_parts() {
    let running = Running::start(Limits::DEFAULT);
    let mut connection = running.connection();
    assert_eq!(connection.server_pid(), Some(std::process::id() as i32));
    assert_eq!(connection.call("ping", &[]).unwrap()["answer"], "pong");
    assert_eq!(connection.call("ps", &[]).unwrap().as_array().unwrap().len(), 3);
    let error = connection.call("pss", &[]).unwrap_err();
    assert_eq!((error.what.as_str(), error.hint.as_str()), ("no method \"pss\"", "did you mean \"ps\"?"));
    assert_eq!(connection.call("ping", &[json!(1)]).unwrap_err().what, "method \"ping\" takes no arguments");
    assert_eq!(connection.call("ping", &[]).unwrap()["pid"], 99);
}

#[test]
fn a_stop_is_answered_and_ordered_once() {
    let running = Running::start(Limits::DEFAULT);
    let mut connection = running.connection();
    assert_eq!(connection.call("stop", &[]).unwrap()["stopping"], true);
    assert_eq!(connection.call("stop", &[]).unwrap()["stopping"], true);
    // The third answer comes after what followed the second.
    connection.call("ping", &[]).unwrap();
    assert_eq!(running.stops.load(SeqCst), 1);
}

#[test]
fn garbage_is_answered_and_the_next_request_too() {
    let running = Running::start(Limits { line_bytes: 100, ..Limits::DEFAULT });
    let mut stream = running.raw();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for garbage in [&b"\xff\xfe\x00"[..], b"", b"GET / HTTP/1.1\r", b"null", &[b'['; 100], &[b'x'; 300_000]] {
        stream.write_all(garbage).unwrap();
        stream.write_all(b"\n").unwrap();
        assert!(line(&mut reader).unwrap()["error"]["what"].is_string());
    }
    stream.write_all(b"{\"id\":\"after\",\"method\":\"ping\"}\n").unwrap();
    assert_eq!(line(&mut reader).unwrap()["id"], "after");
}

#[test]
fn requests_may_come_in_pieces_in_heaps_and_without_a_last_newline() {
    let running = Running::start(Limits::DEFAULT);
    let mut stream = running.raw();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for piece in ["{\"id\":", "1,\"method\":\"pi", "ng\"}\n{\"id\":2,\"method\":\"ps\"}\n{\"id\":3,", "\"method\":\"ping\"}"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let ids: Vec<Value> = std::iter::from_fn(|| line(&mut reader)).map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2), json!(3)]);
}

#[test]
fn many_clients_at_once_and_one_too_many() {
    let running = Running::start(Limits { clients: 8, ..Limits::DEFAULT });
    let mut connections: Vec<Connection> = (0..8).map(|_| running.connection()).collect();
    for connection in connections.iter_mut().rev() {
        connection.call("ping", &[]).unwrap();
    }
    assert_eq!(running.connection().call("ping", &[]).unwrap_err().what, "too many clients are connected");
    // One leaves, one may come.
    drop(connections.pop());
    connections[0].call("ping", &[]).unwrap();
    running.connection().call("ping", &[]).unwrap();
}

#[test]
fn who_takes_no_answers_is_sent_away_and_holds_nobody_up() {
    let running = Running::start(Limits { slow_ns: 300_000_000, ..Limits::DEFAULT });
    let mut slow = running.raw();
    // Never reads: the server stops reading in turn, and this blocks until it is sent away.
    let heap = "{\"method\":\"ps\"}\n".repeat(1000);
    let flood = std::thread::spawn(move || {
        let outcome = (0..1000).try_for_each(|_| slow.write_all(heap.as_bytes()));
        (slow, outcome)
    });
    running.connection().call("ping", &[]).unwrap();
    let (mut slow, outcome) = flood.join().unwrap();
    assert!(outcome.is_err());
    // What was on its way still arrives, and then the end.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.starts_with(b"{\"id\":null,\"result\":["));
    running.connection().call("ping", &[]).unwrap();
}

#[test]
fn who_is_idle_is_sent_away() {
    let running = Running::start(Limits { idle_ns: 50_000_000, ..Limits::DEFAULT });
    assert_eq!(running.raw().read(&mut [0]).unwrap(), 0);
}

#[test]
fn errors_of_reaching_a_host_say_what_to_do() {
    let folder = std::env::temp_dir().join(format!("modhost-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (missing, file, stale, silent) = (folder.join("none"), folder.join("file"), folder.join("stale"), folder.join("silent"));
    std::fs::write(&file, "").unwrap();
    drop(UnixListener::bind(&stale).unwrap());
    let listener = UnixListener::bind(&silent).unwrap();
    for (path, detail) in [(&missing, "there is no control socket"), (&file, "is not a socket"), (&stale, "nobody serves")] {
        let error = Connection::open(path, LIMIT).unwrap_err();
        assert_eq!(error.what, "cannot reach a running host");
        assert!(error.detail.contains(detail) && !error.hint.is_empty(), "{error}");
    }
    let error = Connection::open(&folder.join("x".repeat(200)), LIMIT).unwrap_err();
    assert!(error.detail.contains("107 bytes"), "{error}");
    let mut connection = Connection::open(&silent, Duration::from_millis(50)).unwrap();
    assert_eq!(connection.call("ping", &[]).unwrap_err().what, "the host does not answer");
    // A backlog that nobody empties: the one above waits in it.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    assert_eq!(Connection::open(&silent, Duration::from_millis(50)).unwrap_err().what, "the host does not answer");
    drop(listener);
    std::fs::remove_dir_all(&folder).unwrap();
}
