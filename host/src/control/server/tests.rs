//! The control protocol over a real socket: a server in a thread, and clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::serve::{ClientLimits, serve};
use crate::control::answers::tests::sample_host;
use crate::control::client::connection::ControlConnection;
use crate::error::Error;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that ends with the test.
struct RunningServer {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
    stops: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl RunningServer {
    fn start(limits: ClientLimits) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("modhost-control-{}-{}.sock", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        let socket = UnixListener::bind(&path).unwrap().into();
        let (stopped, stops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ends, counts) = (stopped.clone(), stops.clone());
        let thread = std::thread::spawn(move || {
            let order_stop = || {
                counts.fetch_add(1, SeqCst);
            };
            serve(&socket, &sample_host(), limits, &order_stop, &|| ends.load(SeqCst))
        });
        Self { path, stopped, stops, thread: Some(thread) }
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn connection(&self) -> ControlConnection {
        ControlConnection::open(&self.path, LIMIT).unwrap()
    }
}

impl Drop for RunningServer {
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
fn methods_are_answered_and_errors_have_three_parts() {
    let running = RunningServer::start(ClientLimits::DEFAULT);
    let mut connection = running.connection();
    assert_eq!(connection.server_pid(), Some(std::process::id() as i32));
    assert_eq!(connection.call("ping", &[]).unwrap()["answer"], "pong");
    assert_eq!(connection.call("ps", &[]).unwrap().as_array().unwrap().len(), 3);
    let error = connection.ask("pss", &[]).unwrap().unwrap_err();
    assert_eq!((error.what.as_str(), error.hint.as_str()), ("no method \"pss\"", "did you mean \"ps\"?"));
    assert_eq!(connection.ask("ping", &[json!(1)]).unwrap().unwrap_err().what, "method \"ping\" takes no arguments");
    assert_eq!(connection.call("ping", &[]).unwrap()["pid"], 99);
}

#[test]
fn a_stop_is_answered_and_ordered_once() {
    let running = RunningServer::start(ClientLimits::DEFAULT);
    let mut connection = running.connection();
    assert_eq!(connection.call("stop", &[]).unwrap()["stopping"], true);
    assert_eq!(connection.call("stop", &[]).unwrap()["stopping"], true);
    // The server orders the stop before it answers a third time.
    connection.call("ping", &[]).unwrap();
    assert_eq!(running.stops.load(SeqCst), 1);
}

#[test]
fn garbage_gets_an_error_and_the_next_request_an_answer() {
    let running = RunningServer::start(ClientLimits { line_bytes: 100, ..ClientLimits::DEFAULT });
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
fn requests_may_arrive_in_pieces_or_together_and_without_a_last_newline() {
    let running = RunningServer::start(ClientLimits::DEFAULT);
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
fn clients_above_the_limit_get_an_error() {
    let running = RunningServer::start(ClientLimits { clients: 8, ..ClientLimits::DEFAULT });
    let mut connections: Vec<ControlConnection> = (0..8).map(|_| running.connection()).collect();
    for connection in connections.iter_mut().rev() {
        connection.call("ping", &[]).unwrap();
    }
    assert_eq!(running.connection().ask("ping", &[]).unwrap().unwrap_err().what, "too many clients are connected");
    // After one has left there is room for another.
    drop(connections.pop());
    connections[0].call("ping", &[]).unwrap();
    running.connection().call("ping", &[]).unwrap();
}

#[test]
fn a_client_that_reads_no_answers_is_disconnected_and_delays_no_other() {
    let running = RunningServer::start(ClientLimits { slow_ns: 300_000_000, ..ClientLimits::DEFAULT });
    let mut slow = running.raw();
    // It never reads, so the server stops reading too, and the write blocks until it disconnects.
    let requests = "{\"method\":\"ps\"}\n".repeat(1000);
    let flood = std::thread::spawn(move || {
        let outcome = (0..1000).try_for_each(|_| slow.write_all(requests.as_bytes()));
        (slow, outcome)
    });
    running.connection().call("ping", &[]).unwrap();
    let (mut slow, outcome) = flood.join().unwrap();
    assert!(outcome.is_err());
    // What the socket's buffer holds still arrives, and then the end.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.starts_with(b"{\"id\":null,\"result\":["));
    running.connection().call("ping", &[]).unwrap();
}

#[test]
fn an_idle_client_is_disconnected() {
    let running = RunningServer::start(ClientLimits { idle_ns: 50_000_000, ..ClientLimits::DEFAULT });
    assert_eq!(running.raw().read(&mut [0]).unwrap(), 0);
}
