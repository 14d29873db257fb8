//! Clients that never read, with a real zero window: their cost is bounded, other clients are
//! unaffected, and a time limit ends them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use harness::setup::module;
use harness::{Deadline, Host, PATIENCE, Setup, processes};

use super::from_outside::{
    address, connect, connect_with_tiny_window, counted, http_with_file, in_time, try_ok, wait_for_no_connection, wait_until, workers,
    zero_windows,
};
use super::kv::request;
use super::tls::{Authority, ClientOffer, Session, connect_over, files};

/// Clients of each listener that do not read.
const GREEDY: usize = 12;
/// Requests of each client, sent without waiting.
const REQUESTS: usize = 200;
const VALUE_BYTES: usize = 256 << 10;
/// The most that one client may cost in a worker's private memory: the queue up to its limit, the
/// answer that exceeded it, the same again for a vector that had to grow, and data encrypted ahead.
const BOUND_KIB: u64 = (64 + 2 * 256 + 2 * 64) as u64;

/// A client with TLS or without.
enum Client {
    Plain(TcpStream),
    Tls(Box<Session>),
}

impl Client {
    fn over(socket: TcpStream, offer: Option<&ClientOffer>) -> Self {
        match offer {
            None => Client::Plain(socket),
            Some(offer) => Client::Tls(Box::new(connect_over(socket, offer.config(), "localhost").expect("a session"))),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Client::Plain(socket) => socket,
            Client::Tls(session) => &session.sock,
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Client::Plain(socket) => socket.read(buffer),
            Client::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Client::Plain(socket) => socket.write(bytes),
            Client::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Client::Plain(socket) => socket.flush(),
            Client::Tls(session) => session.flush(),
        }
    }
}

/// Private memory of a process.
fn own_kib(pid: i32) -> u64 {
    processes::status(pid)["RssAnon"].trim_end_matches(" kB").parse().expect("a number")
}

/// Reads a value from the store.
fn get(client: &mut Client, key: &str, value: &[u8]) {
    client.write_all(&request(&[b"GET", key.as_bytes()])).expect("a request");
    let want = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    let mut answer = vec![0; want.len()];
    client.read_exact(&mut answer).expect("an answer");
    assert!(answer == want, "another value");
}

fn stands_still(tls: bool) {
    let authority = Authority::new();
    let offer = tls.then(|| authority.client());
    let setup = Setup::new();
    authority.certify(setup.folder(), "server", "localhost", 2090);
    let mut keys = "tcp = \"127.0.0.1:0\"\nidle_timeout = \"3s\"\noutput_limit = \"64KiB\"".to_owned();
    if tls {
        keys += &format!("\ntls = {{ {} }}", files("server"));
    }
    let http = http_with_file(&setup, 1 << 20);
    let host = setup.host("workers", "1").host("shared_memory", "\"128MiB\"").control().module(http).module(module("kv"));
    let host = host.allow_log("a timer function is slower than its period");
    let host = host.listen_with(&keys, "http", None).listen_with(&keys, "kv", None).start();
    let at: [SocketAddr; 2] = [address(&host, 0), address(&host, 1)];
    let [mut pages, mut keys] = at.map(|at| Client::over(connect(at), offer.as_ref()));
    let value = vec![b'v'; VALUE_BYTES];
    for (key, value) in [("large", &value[..]), ("small", b"small")] {
        keys.write_all(&request(&[b"SET", key.as_bytes(), value])).expect("room");
        keys.read_exact(&mut [0; 5]).expect("OK");
    }
    let worker = workers(&host)[0];
    // Let the worker allocate its buffers for a large answer first.
    get(&mut keys, "large", &value);
    let before_kib = own_kib(worker);
    let asked = [b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), request(&[b"GET", b"large"])];
    let greedy: Vec<Client> = (0..2 * GREEDY)
        .map(|number| {
            let mut client = Client::over(connect_with_tiny_window(at[number % 2]), offer.as_ref());
            client.write_all(&asked[number % 2].repeat(REQUESTS)).and_then(|()| client.flush()).expect("requests");
            client
        })
        .collect();
    let ports = ports(&greedy);
    assert_is_bounded(&host, &ports, before_kib, || {
        in_time("a page", || try_ok(&mut pages)).expect("a page");
        in_time("a value", || get(&mut keys, "small", b"small"));
    });
    assert_eq!(counted(&host, "closed_by_timeout"), 2 * GREEDY as i64);
    assert_eq!(counted(&host, "connections"), 2, "those that read");
    // They get a reset despite the zero window, and the kernel keeps nothing for them.
    wait_until(&host, "a reset of each", || {
        greedy.iter().all(|client| client.socket().take_error().expect("its state").is_some() || is_reset(client.socket()))
    });
    assert_eq!(zero_windows(&ports), 0);
    assert_eq!(workers(&host), [worker]);
    drop((pages, keys, greedy));
    wait_for_no_connection(&host);
    host.stop();
}

/// The ports of the server and of each connected client.
fn ports(clients: &[Client]) -> Vec<(u16, u16)> {
    let port = |address: std::io::Result<SocketAddr>| address.expect("an address").port();
    clients.iter().map(|client| (port(client.socket().peer_addr()), port(client.socket().local_addr()))).collect()
}

/// Whether the kernel has received a reset for that connection.
fn is_reset(socket: &TcpStream) -> bool {
    let mut watched = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut watched, Some(&now)).expect("poll");
    watched[0].revents().contains(rustix::event::PollFlags::HUP)
}

/// Until the clients are ended, all have a zero window and cost no more than the bound, and others
/// are served.
#[track_caller]
fn assert_is_bounded(host: &Host, greedy: &[(u16, u16)], before_kib: u64, mut others: impl FnMut()) {
    let worker = workers(host)[0];
    let (mut stand, mut most_kib, mut rounds) = (0, 0, 0);
    let deadline = Deadline::after(PATIENCE);
    while counted(host, "closed_by_timeout") < greedy.len() as i64 {
        assert!(!deadline.has_passed(), "no time limit ends them\n{}", host.report());
        // Several times, because reading the kernel's table may take long.
        (0..10).for_each(|_| others());
        rounds += 10;
        stand = stand.max(zero_windows(greedy));
        most_kib = most_kib.max(own_kib(worker));
    }
    assert_eq!(stand, greedy.len(), "zero windows");
    assert!(rounds > 10, "others were served only {rounds} times");
    let bound_kib = before_kib + GREEDY as u64 * 2 * BOUND_KIB;
    assert!(most_kib < bound_kib, "{most_kib} KiB, before {before_kib}");
}

#[test]
fn a_zero_window_costs_little_delays_no_other_and_ends() {
    stands_still(false);
}

#[test]
fn a_zero_window_under_tls_does_the_same() {
    stands_still(true);
}
