//! Resets in every state of a connection, plain and with TLS, many at once. Nothing is left, and
//! other clients notice nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use harness::Setup;
use harness::setup::module;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::from_outside::{
    address, connect, counted, descriptors_at_rest, http_with_file, in_time, reset, try_ok, wait_for_descriptors, wait_for_no_connection,
    workers,
};
use super::kv::{Peer, Reply, request};
use super::tls::{Authority, connect_over, files};

/// Connections that are reset in each state.
const ROUNDS: usize = 40;

/// The addresses of the three listeners.
struct Places {
    pages: SocketAddr,
    hidden: SocketAddr,
    store: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Places {
    /// The first message of a client.
    fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(self.config.clone(), name).expect("a session");
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).expect("room");
        bytes
    }

    fn page(&self, bytes: &[u8]) -> TcpStream {
        sent(self.pages, bytes)
    }
}

fn sent(at: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(at);
    stream.write_all(bytes).expect("some bytes");
    stream
}

/// Waits for the first byte of an answer.
fn answered(mut stream: TcpStream) -> TcpStream {
    stream.read_exact(&mut [0]).expect("the beginning of an answer");
    stream
}

fn half_closed(stream: TcpStream) -> TcpStream {
    stream.shutdown(Shutdown::Write).expect("the end of a half");
    stream
}

type State = fn(&Places) -> TcpStream;

const GET_LARGE: &[u8] = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";

/// Each function brings a connection into a state.
const STATES: [(&str, State); 17] = [
    ("after connecting", |to| connect(to.pages)),
    ("in a head", |to| to.page(b"GET /lar")),
    ("behind a head, in the body", |to| to.page(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")),
    ("in a chunk", |to| to.page(b"POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nabc")),
    ("asked to go on", |to| answered(to.page(b"POST /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"))),
    ("while a file is sent", |to| answered(to.page(GET_LARGE))),
    ("with files to come", |to| to.page(&GET_LARGE.repeat(20))),
    ("half-closed while a file is sent", |to| answered(half_closed(to.page(GET_LARGE)))),
    ("half-closed in a head", |to| half_closed(to.page(b"GET /lar"))),
    ("in a refused request", |to| to.page(b"nonsense\r\n\r\nmore")),
    ("in a value", |to| sent(to.store, b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$100000\r\nabc")),
    ("while values are sent", |to| answered(sent(to.store, &request(&[b"GET", b"large"]).repeat(20)))),
    ("before a handshake", |to| connect(to.hidden)),
    ("in the first message of a handshake", |to| sent(to.hidden, &to.hello()[..50])),
    ("in the middle of a handshake", |to| answered(sent(to.hidden, &to.hello()))),
    ("before a handshake is answered", |to| sent(to.hidden, &to.hello())),
    ("while a file is sent encrypted", |to| {
        let mut session = connect_over(connect(to.hidden), to.config.clone(), "localhost").expect("a session");
        session.write_all(GET_LARGE).expect("a request");
        session.read_exact(&mut [0]).expect("the beginning of an answer");
        session.sock
    }),
];

fn leave_nothing(accept: &str) {
    let authority = Authority::new();
    let setup = Setup::new();
    authority.certify(setup.folder(), "server", "localhost", 2090);
    let http = http_with_file(&setup, 4 << 20);
    let keys = format!("tcp = \"127.0.0.1:0\"\naccept = \"{accept}\"");
    let host = setup
        .host("workers", "2")
        .control()
        .module(http)
        .module(module("kv"))
        .listen_with(&keys, "http", None)
        .listen_with(&format!("{keys}\ntls = {{ {} }}", files("server")), "http", None)
        .listen_with(&keys, "kv", None)
        .allow_log("a timer function is slower than its period")
        .start();
    let to = Places { pages: address(&host, 0), hidden: address(&host, 1), store: address(&host, 2), config: authority.client().config() };
    let everyone_is_served = || {
        // Connected together, so that each worker has some.
        let mut pages: Vec<TcpStream> = (0..4).map(|_| connect(to.pages)).collect();
        let mut stores: Vec<Peer> = (0..4).map(|_| Peer::at(to.store)).collect();
        let mut hidden: Vec<TcpStream> = (0..4).map(|_| connect(to.hidden)).collect();
        for ((page, store), hidden) in pages.iter_mut().zip(&mut stores).zip(hidden.drain(..)) {
            in_time("a page", || try_ok(page)).expect("a page");
            in_time("a value", || assert!(matches!(store.ask("GET large"), Reply::Bulk(_))));
            in_time("an encrypted page", || try_ok(&mut connect_over(hidden, to.config.clone(), "localhost")?)).expect("a page");
        }
    };
    let value = vec![b'v'; 500_000];
    assert_eq!(Peer::at(to.store).try_ask(&[b"SET", b"large", &value]).expect("a reply"), Reply::Line("+OK".into()));
    everyone_is_served();
    wait_for_no_connection(&host);
    let (before, pids, opened) = (descriptors_at_rest(&host), workers(&host), counted(&host, "connections_opened"));
    // In turn, so that each state occurs beside all others.
    for _ in 0..ROUNDS {
        let reached: Vec<TcpStream> = STATES.iter().map(|(_, state)| state(&to)).collect();
        reached.into_iter().for_each(reset);
    }
    everyone_is_served();
    // One state at a time, many at once.
    for (name, state) in STATES {
        let reached: Vec<TcpStream> = (0..ROUNDS).map(|_| state(&to)).collect();
        reached.into_iter().for_each(reset);
        in_time(name, || try_ok(&mut connect(to.pages))).expect("a page");
    }
    wait_for_no_connection(&host);
    // Each worker keeps its folder open after the first file.
    wait_for_descriptors(&host, before + 2);
    assert_eq!(workers(&host), pids, "no worker has died");
    let resets = (2 * ROUNDS * STATES.len()) as i64;
    // Some were reset before they could be accepted.
    let seen = counted(&host, "connections_opened") - opened;
    assert!((resets / 2..=resets + 12 + STATES.len() as i64).contains(&seen), "{seen} connections of {resets}");
    assert_eq!(counted(&host, "closed_by_error"), 0);
    everyone_is_served();
    host.stop();
}

#[test]
fn resets_in_every_state_with_tcp_main() {
    leave_nothing("main");
}

#[test]
fn resets_in_every_state_with_accepting_workers() {
    leave_nothing("workers");
}
