//! Five hundred clients that send their requests one byte at a time, and one fast client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::setup::module;
use harness::{Deadline, PATIENCE, Setup};

use super::from_outside::{address, connect, counted, descriptors_at_rest, in_time, try_ok, wait_for_descriptors, wait_for_no_connection};

const SLOW: usize = 500;
/// The pause between two bytes of a client.
const PACE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(4);
/// A worker counts all bytes of one wake-up as received when the wake-up began. On a busy machine
/// some arrive this much later.
const SLACK: Duration = Duration::from_secs(1);

/// A client whose head never ends.
struct Slow {
    socket: TcpStream,
    began: Instant,
    sent: usize,
    ended: Option<Duration>,
}

const HEAD: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a\r\nX-Slow: ";

impl Slow {
    /// Sends one byte and checks whether the connection has ended. No answer may have come.
    fn go_on(&mut self) {
        let byte = HEAD.get(self.sent).copied().unwrap_or(b'x');
        // A reset shows in the next call.
        let _ = self.socket.write(&[byte]);
        self.sent += 1;
        match self.socket.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => self.ended = Some(self.began.elapsed()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = Some(self.began.elapsed()),
            other => panic!("an unfinished head is answered: {other:?}"),
        }
    }
}

#[test]
fn five_hundred_slow_heads_end_in_time_and_others_are_served() {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    let keys = format!("tcp = \"127.0.0.1:0\"\nread_timeout = \"{}s\"", LIMIT.as_secs());
    let host = Setup::new().host("workers", "1").control().module(http).listen_with(&keys, "http", None).start();
    let at = address(&host, 0);
    let mut quick = connect(at);
    try_ok(&mut quick).expect("a page");
    let before = descriptors_at_rest(&host);
    let mut slow: Vec<Slow> = (0..SLOW)
        .map(|_| {
            let socket = connect(at);
            socket.set_nonblocking(true).expect("a mode");
            let mut slow = Slow { socket, began: Instant::now(), sent: 0, ended: None };
            slow.go_on();
            slow
        })
        .collect();
    let deadline = Deadline::after(PATIENCE);
    let (mut rounds, mut requests) = (0, 0);
    while slow.iter().any(|slow| slow.ended.is_none()) {
        assert!(!deadline.has_passed(), "{} have not ended", slow.iter().filter(|slow| slow.ended.is_none()).count());
        slow.iter_mut().filter(|slow| slow.ended.is_none()).for_each(Slow::go_on);
        let next = Deadline::after(PACE);
        rounds += 1;
        // The fast client continues meanwhile, also with new connections.
        in_time("a page over a new connection", || try_ok(&mut connect(at))).expect("a page");
        while !next.has_passed() {
            in_time("a page", || try_ok(&mut quick)).expect("a page");
            requests += 1;
        }
    }
    for slow in &slow {
        let ended = slow.ended.expect("its end");
        assert!(ended >= LIMIT - SLACK, "ended after {ended:?}, which is too early");
        // The bytes that arrived did not extend the limit.
        assert!(ended < 3 * LIMIT, "ended after {ended:?}");
        assert!(slow.sent > 5, "{} bytes were sent", slow.sent);
    }
    assert_eq!(counted(&host, "closed_by_timeout"), SLOW as i64);
    assert!(requests > 10 * rounds, "{requests} requests in {rounds} rounds");
    drop(slow);
    wait_for_descriptors(&host, before);
    drop(quick);
    wait_for_no_connection(&host);
    host.stop();
}

#[test]
fn a_slow_head_within_the_limit_is_answered() {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    let host = Setup::new().module(http).listen_with("tcp = \"127.0.0.1:0\"\nread_timeout = \"10s\"", "http", None).start();
    let mut socket = connect(address(&host, 0));
    for byte in b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" {
        socket.write_all(&[*byte]).expect("a byte");
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    host.stop();
}
