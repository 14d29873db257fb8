//! A client of HTTP servers on the loopback address. Prints one line of JSON.
//!
//! `http-load [OPTIONS] PORT`
//!
//! | option | meaning |
//! | --- | --- |
//! | `--connections C` | connections, each with at most one request outstanding (64) |
//! | `--seconds S` | duration (1) |
//! | `--rate R` | requests per second, whether or not the server keeps up; without it, each answer triggers the next request |
//! | `--path P` | requested path (/ok) |
//! | `--close` | a new connection for each request |
//! | `--idle` | one request on each connection, then none until standard input ends; prints the line when all are answered |
//! | `--cpu C` | run on this processor only |
//! | `--server PID` | also report the processor time that this process and its descendants used |
//!
//! With a rate, the time of a request starts when it was due. Every answer but 200 counts as lost.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::IntoRawFd;

use bench::options::Options;
use bench::{now_ns, proc, sleep_us};

const BYTES: usize = 256 << 10;
const EVENTS: usize = 256;
/// An answer that is still missing this long after the end is lost.
const PATIENCE_NS: u64 = 1_000_000_000;

fn main() {
    let options = Options::read(&["close", "idle"]);
    if let Some(cpu) = options.text("cpu") {
        bench::pin(cpu.parse().expect("--cpu needs a number"));
    }
    let server: Option<i32> = options.has("server").then(|| options.number("server", 0));
    let seconds: f64 = options.number("seconds", 1.0);
    let (closes, idles) = (options.has("close"), options.has("idle"));
    let line = if closes { "Connection: close\r\n" } else { "" };
    let request = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n", options.text("path").unwrap_or("/ok")).into_bytes();
    let mut client = Client::new(options.positional_number(0), request, closes, options.number("connections", 64));
    let before_ns = server.map(proc::cpu_ns);
    let started_ns = now_ns();
    if idles {
        client.once();
    } else {
        client.run(started_ns, started_ns + (seconds * 1e9) as u64, options.number("rate", 0.0));
    }
    let wall_ns = now_ns() - started_ns;
    // The kernel updates the processor time of a process when it goes to sleep.
    sleep_us(5_000);
    let server_ns = server.map(proc::cpu_ns).zip(before_ns).map(|(after_ns, before_ns)| after_ns - before_ns);
    bench::report(client.answered, client.lost, wall_ns, &mut client.latencies, server_ns);
    if idles {
        // Now the caller inspects the server.
        std::io::stdin().read_to_end(&mut Vec::new()).expect("the end of the standard input");
    }
}

/// A connection and the parsed part of its answer.
struct Connection {
    socket: libc::c_int,
    /// When the request was due; 0 if none is outstanding.
    due_ns: u64,
    /// The head, as far as received.
    head: Vec<u8>,
    /// Missing bytes of the body, once the head is known.
    missing: Option<usize>,
    good: bool,
}

struct Client {
    port: u16,
    request: Vec<u8>,
    closes: bool,
    epoll: libc::c_int,
    connections: Vec<Connection>,
    /// Connections without a request.
    free: Vec<usize>,
    /// Due times of requests that found no free connection.
    late: VecDeque<u64>,
    buffer: Vec<u8>,
    outstanding: usize,
    answered: u64,
    lost: u64,
    latencies: Vec<u64>,
}

impl Client {
    fn new(port: u16, request: Vec<u8>, closes: bool, connections: usize) -> Client {
        // SAFETY: a plain system call.
        let epoll = unsafe { libc::epoll_create1(0) };
        let connection = |_| Connection { socket: -1, due_ns: 0, head: Vec::new(), missing: None, good: false };
        let mut client = Client {
            port,
            request,
            closes,
            epoll,
            connections: (0..connections).map(connection).collect(),
            free: (0..connections).collect(),
            late: VecDeque::new(),
            buffer: vec![0; BYTES],
            outstanding: 0,
            answered: 0,
            lost: 0,
            latencies: Vec::with_capacity(4 << 20),
        };
        if !closes {
            (0..connections).for_each(|number| client.connect(number));
        }
        client
    }

    fn connect(&mut self, number: usize) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        stream.set_nodelay(true).expect("no delay");
        stream.set_nonblocking(true).expect("a socket that does not wait");
        let socket = stream.into_raw_fd();
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
        // SAFETY: the event is valid for the call.
        assert!(unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, socket, &mut event) } == 0, "epoll_ctl");
        self.connections[number].socket = socket;
    }

    fn send(&mut self, number: usize, due_ns: u64) {
        if self.closes {
            self.connect(number);
        }
        let connection = &mut self.connections[number];
        connection.due_ns = due_ns;
        connection.head.clear();
        connection.missing = None;
        // SAFETY: the request is valid for its length.
        let sent = unsafe { libc::send(connection.socket, self.request.as_ptr().cast(), self.request.len(), libc::MSG_NOSIGNAL) };
        assert!(sent == self.request.len() as isize, "a request is not taken");
        self.outstanding += 1;
    }

    /// Waits up to the timeout and reads what has arrived.
    fn receive(&mut self, timeout_ms: i32) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: the events are valid memory of the given length.
        let count = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), EVENTS as i32, timeout_ms) }.max(0) as usize;
        for event in &events[..count] {
            self.read(event.u64 as usize);
        }
    }

    fn read(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        // SAFETY: the buffer is valid for its length.
        let count = unsafe { libc::recv(connection.socket, self.buffer.as_mut_ptr().cast(), BYTES, 0) };
        // SAFETY: the errno of this thread.
        if count < 0 && unsafe { *libc::__errno_location() } == libc::EAGAIN {
            return;
        }
        if count <= 0 {
            self.ended(number);
            return;
        }
        let mut data = &self.buffer[..count as usize];
        if connection.missing.is_none() {
            let before = connection.head.len();
            connection.head.extend_from_slice(data);
            let Some(end) = connection.head.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let head = std::str::from_utf8(&connection.head[..end]).unwrap_or_default();
            connection.good = head.starts_with("HTTP/1.1 200 ");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            connection.missing = Some(length.unwrap_or(0));
            data = &data[end + 4 - before..];
        }
        let missing = connection.missing.unwrap_or(0).saturating_sub(data.len());
        connection.missing = Some(missing);
        if missing == 0 && !self.closes {
            self.complete(number);
        }
    }

    /// The server has closed a connection.
    fn ended(&mut self, number: usize) {
        // SAFETY: this connection owns the descriptor.
        unsafe { libc::close(self.connections[number].socket) };
        assert!(self.closes, "the server has closed a connection that it was to keep");
        if self.connections[number].missing != Some(0) {
            self.connections[number].good = false;
        }
        self.complete(number);
    }

    fn complete(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.due_ns == 0 {
            return;
        }
        if connection.good {
            self.answered += 1;
            self.latencies.push(now_ns() - connection.due_ns);
        } else {
            self.lost += 1;
        }
        connection.due_ns = 0;
        self.outstanding -= 1;
        self.free.push(number);
    }

    /// Runs until the time is over and every request is answered or lost.
    fn run(&mut self, started_ns: u64, until_ns: u64, rate: f64) {
        let step_ns = if rate > 0.0 { 1e9 / rate } else { 0.0 };
        let mut count = 0_u64;
        loop {
            let now = now_ns();
            if now >= until_ns && (self.outstanding == 0 || now >= until_ns + PATIENCE_NS) {
                break;
            }
            if now < until_ns {
                if rate > 0.0 {
                    while started_ns + (count as f64 * step_ns) as u64 <= now {
                        self.late.push_back(started_ns + (count as f64 * step_ns) as u64);
                        count += 1;
                    }
                    while !self.late.is_empty()
                        && let Some(number) = self.free.pop()
                        && let Some(due_ns) = self.late.pop_front()
                    {
                        self.send(number, due_ns);
                    }
                } else {
                    while let Some(number) = self.free.pop() {
                        self.send(number, now_ns());
                    }
                }
            }
            // With a rate, the next request may be due before an answer arrives.
            self.receive(if rate > 0.0 && now < until_ns { 0 } else { 10 });
        }
        self.lost += (self.outstanding + self.late.len()) as u64;
    }

    /// One request on each connection.
    fn once(&mut self) {
        let until_ns = now_ns() + 30 * PATIENCE_NS;
        while let Some(number) = self.free.pop() {
            self.send(number, now_ns());
            while self.outstanding > 0 && now_ns() < until_ns {
                let answered = self.answered + self.lost;
                self.receive(10);
                if self.answered + self.lost > answered {
                    // Answered connections stay open and unused.
                    self.free.pop();
                }
            }
        }
    }
}
