//! A client that keeps a fixed number of requests outstanding: each answer triggers the next
//! request. Prints one line of JSON.
//!
//! `udp-load [OPTIONS] PORT`
//!
//! | option | meaning |
//! | --- | --- |
//! | `--window W` | requests outstanding (1) |
//! | `--seconds S` or `--requests N` | duration (1 s) |
//! | `--payload P` | payload: `echo`, 64 bytes; `options`, `register`, `invite`, SIP requests (echo) |
//! | `--users U` | users that register and are called, in turn (1) |
//! | `--cpu C` | run on this processor only |
//! | `--server PID` | also report the processor time that this process and its descendants used |
//!
//! Each request carries a number that the answer must repeat, so that each latency belongs to one
//! request. Every answer but success or a redirection counts as lost.

use bench::options::Options;
use bench::{now_ns, proc, sleep_us};

const BATCH: usize = 64;
const BYTES: usize = 2048;
/// Requests whose send times are kept; far more than are ever outstanding.
const REMEMBERED: usize = 1 << 16;
/// An answer that takes longer counts as lost.
const LOST_NS: u64 = 300_000_000;
const LATENCIES: usize = 8 << 20;

const ECHO: &str = "modhost-bench @@@@@@@@ 0123456789abcdef0123456789abcdef01234567";
const OPTIONS: &str = "OPTIONS sip:bench@127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.1:5999;rport;branch=z9hG4bK-bench\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:load@127.0.0.1>;tag=load\r\n\
    To: <sip:bench@127.0.0.1>\r\n\
    Call-ID: @@@@@@@@\r\n\
    CSeq: 1 OPTIONS\r\n\
    Content-Length: 0\r\n\r\n";
const REGISTER: &str = "REGISTER sip:127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.1:5999;rport;branch=z9hG4bK-@@@@@@@@\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:u########@127.0.0.1>;tag=load\r\n\
    To: <sip:u########@127.0.0.1>\r\n\
    Contact: <sip:u########@192.0.2.1:5060>\r\n\
    Expires: 3600\r\n\
    Call-ID: @@@@@@@@\r\n\
    CSeq: 1 REGISTER\r\n\
    Content-Length: 0\r\n\r\n";
const INVITE: &str = "INVITE sip:u########@127.0.0.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.1:5999;rport;branch=z9hG4bK-@@@@@@@@\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:load@127.0.0.1>;tag=load\r\n\
    To: <sip:u########@127.0.0.1>\r\n\
    Contact: <sip:load@127.0.0.1:5999>\r\n\
    Call-ID: @@@@@@@@\r\n\
    CSeq: 1 INVITE\r\n\
    Content-Length: 0\r\n\r\n";
/// Placeholder for the request number, at the last place that the answer repeats.
const MARK: &[u8] = b"@@@@@@@@";
/// Placeholder for the user number.
const USER: &[u8] = b"########";

fn main() {
    let options = Options::read(&[]);
    if let Some(cpu) = options.text("cpu") {
        bench::pin(cpu.parse().expect("--cpu needs a number"));
    }
    let text = match options.text("payload").unwrap_or("echo") {
        "echo" => ECHO,
        "options" => OPTIONS,
        "register" => REGISTER,
        "invite" => INVITE,
        other => panic!("--payload {other}: echo, options, register or invite"),
    };
    let server: Option<i32> = options.has("server").then(|| options.number("server", 0));
    let requests = options.number("requests", u64::MAX);
    let seconds: f64 = options.number("seconds", if requests == u64::MAX { 1.0 } else { 60.0 });

    let mut client = Client::new(options.positional_number(0), text.as_bytes(), options.number("window", 1));
    client.users = options.number("users", 1).max(1);
    let before_ns = server.map(proc::cpu_ns);
    let started_ns = now_ns();
    client.run(started_ns + (seconds * 1e9) as u64, requests);
    let wall_ns = now_ns() - started_ns;
    // The kernel updates the processor time of a process when it goes to sleep.
    sleep_us(5_000);
    let server_ns = server.map(proc::cpu_ns).zip(before_ns).map(|(after_ns, before_ns)| after_ns - before_ns);
    bench::report(client.answered, client.lost, wall_ns, &mut client.latencies, server_ns);
}

struct Client {
    socket: libc::c_int,
    window: usize,
    /// Where the number is in a request, and the text before the last one, which the answer
    /// repeats.
    numbers_at: Vec<usize>,
    users_at: Vec<usize>,
    before_number: Vec<u8>,
    users: u32,
    length: usize,
    out: Box<[[u8; BYTES]; BATCH]>,
    out_headers: Vec<libc::mmsghdr>,
    answers: Box<[[u8; BYTES]; BATCH]>,
    answer_headers: Vec<libc::mmsghdr>,
    /// The buffers that the headers point to.
    _parts: Vec<libc::iovec>,
    /// When each request was sent, indexed by the lower bits of its number; 0 once it is answered
    /// or lost.
    sent_ns: Vec<u64>,
    next: u32,
    oldest: u32,
    outstanding: usize,
    answered: u64,
    lost: u64,
    latencies: Vec<u32>,
}

impl Client {
    fn new(port: u16, text: &[u8], window: usize) -> Client {
        let socket = bench::udp_socket(0);
        let timeout = libc::timeval { tv_sec: 0, tv_usec: (LOST_NS / 1000) as i64 };
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        // SAFETY: both pointers lead to structs of the given sizes.
        unsafe {
            libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), size_of_val(&timeout) as u32);
            assert!(libc::connect(socket, (&raw const address).cast(), size_of_val(&address) as u32) == 0, "connect");
        }
        let places = |mark: &[u8]| -> Vec<usize> {
            text.windows(mark.len()).enumerate().filter(|(_, part)| *part == mark).map(|(at, _)| at).collect()
        };
        let (numbers_at, users_at) = (places(MARK), places(USER));
        let number_at = *numbers_at.last().expect("a mark");
        let mut out = Box::new([[0; BYTES]; BATCH]);
        out.iter_mut().for_each(|request| request[..text.len()].copy_from_slice(text));
        let mut answers = Box::new([[0; BYTES]; BATCH]);
        let part = |buffer: &mut [u8; BYTES], iov_len| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len };
        let mut parts: Vec<_> = out.iter_mut().map(|buffer| part(buffer, text.len())).collect();
        parts.extend(answers.iter_mut().map(|buffer| part(buffer, BYTES)));
        let mut headers = parts.iter_mut().map(|part| {
            // SAFETY: all zeros is a valid value of this C struct.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let out_headers = headers.by_ref().take(BATCH).collect();
        let answer_headers = headers.collect();
        // Written once, so that no page fault is measured.
        let mut latencies = vec![1; LATENCIES];
        latencies.clear();
        Client {
            socket,
            window,
            numbers_at,
            users_at,
            users: 1,
            before_number: text[number_at.saturating_sub(8)..number_at].to_vec(),
            length: text.len(),
            out,
            out_headers,
            answers,
            answer_headers,
            _parts: parts,
            sent_ns: vec![0; REMEMBERED],
            next: 0,
            oldest: 0,
            outstanding: 0,
            answered: 0,
            lost: 0,
            latencies,
        }
    }

    /// Runs until the time is over or enough requests are sent, and all are answered or lost.
    fn run(&mut self, until_ns: u64, requests: u64) {
        let mut left = requests;
        let mut checked_ns = now_ns();
        loop {
            let now = now_ns();
            let over = now >= until_ns || left == 0;
            if over && self.outstanding == 0 {
                return;
            }
            while !over && self.outstanding < self.window && left > 0 {
                let sent = self.send((self.window - self.outstanding).min(BATCH).min(left as usize));
                left -= sent;
            }
            let received = self.receive();
            if received == 0 || now - checked_ns > LOST_NS / 4 {
                checked_ns = now;
                self.give_up_old(now);
            }
        }
    }

    fn send(&mut self, count: usize) -> u64 {
        for index in 0..count {
            let number = self.next.wrapping_add(index as u32);
            let (text, user) = (format_number(number), format_number(number % self.users));
            self.numbers_at.iter().for_each(|at| self.out[index][*at..at + 8].copy_from_slice(&text));
            self.users_at.iter().for_each(|at| self.out[index][*at..at + 8].copy_from_slice(&user));
        }
        let now = now_ns();
        // SAFETY: the headers point to buffers that live as long as this client; `count` is at most
        // BATCH.
        let sent = unsafe {
            if count == 1 {
                i32::from(libc::send(self.socket, self.out[0].as_ptr().cast(), self.length, 0) >= 0)
            } else {
                libc::sendmmsg(self.socket, self.out_headers.as_mut_ptr(), count as u32, 0)
            }
        };
        assert!(sent > 0, "nobody serves the port: {}", std::io::Error::last_os_error());
        for _ in 0..sent {
            self.sent_ns[self.next as usize % REMEMBERED] = now;
            self.next = self.next.wrapping_add(1);
        }
        self.outstanding += sent as usize;
        sent as u64
    }

    /// Waits for at least one answer and takes all that have arrived. 0 if none came in time.
    fn receive(&mut self) -> usize {
        // SAFETY: as in `send`.
        let received = unsafe {
            if self.window == 1 {
                let length = libc::recv(self.socket, self.answers[0].as_mut_ptr().cast(), BYTES, 0);
                self.answer_headers[0].msg_len = length.max(0) as u32;
                i32::from(length >= 0)
            } else {
                let headers = self.answer_headers.as_mut_ptr();
                libc::recvmmsg(self.socket, headers, BATCH as u32, libc::MSG_WAITFORONE, std::ptr::null_mut())
            }
        };
        let now = now_ns();
        let received = received.max(0) as usize;
        for index in 0..received {
            let answer = &self.answers[index][..self.answer_headers[index].msg_len as usize];
            let Some(number) = find_number(answer, &self.before_number) else { continue };
            if answer.starts_with(b"SIP/2.0 ") && !matches!(answer.get(8), Some(b'2' | b'3')) {
                continue;
            }
            let sent_ns = &mut self.sent_ns[number as usize % REMEMBERED];
            if *sent_ns != 0 {
                self.latencies.push(u32::try_from(now - *sent_ns).unwrap_or(u32::MAX));
                *sent_ns = 0;
                self.answered += 1;
                self.outstanding -= 1;
            }
        }
        received
    }

    fn give_up_old(&mut self, now: u64) {
        while self.oldest != self.next {
            let sent_ns = &mut self.sent_ns[self.oldest as usize % REMEMBERED];
            if *sent_ns != 0 {
                if now.saturating_sub(*sent_ns) < LOST_NS {
                    return;
                }
                *sent_ns = 0;
                self.lost += 1;
                self.outstanding -= 1;
            }
            self.oldest = self.oldest.wrapping_add(1);
        }
    }
}

fn format_number(number: u32) -> [u8; 8] {
    std::array::from_fn(|index| b"0123456789abcdef"[(number >> (28 - 4 * index)) as usize & 15])
}

fn find_number(answer: &[u8], before: &[u8]) -> Option<u32> {
    // At the start of an echo, somewhere inside a SIP answer.
    let start = answer.windows(before.len()).position(|part| part == before)? + before.len();
    let digits = answer.get(start..start + 8)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
