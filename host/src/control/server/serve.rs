//! Serves many clients in one thread, with a limit on everything that a client can take.
//!
//! *Runs in:* the control process. *Never:* waits for one client; ends because of what one sent.
//!
//! A client is read from only when its last response is sent and none of its lines is whole, so at
//! most one line and one response are kept for it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::lines::{Lines, ReceivedLine};
use super::request;
use crate::control::answers::{HostView, Then};
use crate::error::{Error, Result};
use crate::sys::time;

#[derive(Debug, Clone, Copy)]
pub(super) struct ClientLimits {
    /// Clients at a time. One more gets an error and is disconnected.
    pub clients: usize,
    /// Longest request, without its newline.
    pub line_bytes: usize,
    /// A client is disconnected after this time without a byte in either direction.
    pub idle_ns: u64,
    /// The same while a response waits for the client to read it.
    pub slow_ns: u64,
}

impl ClientLimits {
    pub const DEFAULT: Self = Self { clients: 64, line_bytes: 64 << 10, idle_ns: 60_000_000_000, slow_ns: 10_000_000_000 };
}

/// Read at once. Small, because the buffer is on the stack of a forked process.
const READ_BYTES: usize = 4096;

/// How long to wait after a failed accept, which would fail again at once.
const ACCEPT_RETRY_NS: u64 = 500_000_000;

struct Client {
    stream: UnixStream,
    lines: Lines,
    response: Vec<u8>,
    /// Bytes of the response that have been written.
    written: usize,
    /// Time of the last byte in either direction.
    active_ns: u64,
    /// The client has closed its sending side.
    has_finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connected {
    Stay,
    Disconnect,
}

/// Serves until `stopped`. `order_stop` is called at most once, after the client has its response.
pub(super) fn serve(
    socket: &OwnedFd,
    view: &HostView<'_>,
    limits: ClientLimits,
    order_stop: &dyn Fn(),
    stopped: &dyn Fn() -> bool,
) -> Result<()> {
    let failed =
        |call: &str, error: &dyn std::fmt::Display| Error::failed("the control socket cannot be served").detail(format!("{call}: {error}"));
    let listener = UnixListener::from(socket.try_clone().map_err(|error| failed("dup", &error))?);
    listener.set_nonblocking(true).map_err(|error| failed("fcntl", &error))?;
    let mut clients: Vec<Client> = Vec::new();
    let mut accept_from_ns = 0;
    let mut ordered = false;
    while !stopped() {
        let now_ns = time::now_ns();
        let accepts = now_ns >= accept_from_ns;
        let until_ns = clients.iter().map(|client| client.until_ns(limits)).chain((!accepts).then_some(accept_from_ns)).min();
        let ready: Vec<bool> = {
            let mut watched: Vec<PollFd<'_>> =
                clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.waits_for())).collect();
            // The listener is the last one.
            if accepts {
                watched.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut watched, timeout(now_ns, until_ns)) {
                Ok(_) => watched.iter().map(|one| one.any().unwrap_or(true)).collect(),
                Err(Errno::EINTR) => Vec::new(),
                Err(errno) => return Err(failed("poll", &errno)),
            }
        };
        let now_ns = time::now_ns();
        let mut then = Then::GoOn;
        // Empty after an interrupted poll: nothing is ready.
        let (of_clients, of_listener) = ready.split_at(clients.len().min(ready.len()));
        let mut of_clients = of_clients.iter().copied();
        clients.retain_mut(|client| {
            let is_ready = of_clients.next().unwrap_or(false);
            (!is_ready || client.proceed(view, now_ns, &mut then) == Connected::Stay) && client.until_ns(limits) > now_ns
        });
        if then == Then::Stop && !ordered {
            ordered = true;
            order_stop();
        }
        if of_listener.first() == Some(&true) {
            accept_from_ns = accept(&listener, &mut clients, limits, now_ns);
        }
    }
    for client in &mut clients {
        // The rest of a response is sent if the client's socket takes it now.
        let _ = client.write(time::now_ns());
    }
    Ok(())
}

fn timeout(now_ns: u64, until_ns: Option<u64>) -> PollTimeout {
    until_ns.map_or(PollTimeout::NONE, |until_ns| {
        let left_ms = until_ns.saturating_sub(now_ns).div_ceil(1_000_000).min(1_000_000);
        PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
    })
}

/// Accepts the clients that wait. Returns the earliest time of the next accept.
fn accept(listener: &UnixListener, clients: &mut Vec<Client>, limits: ClientLimits, now_ns: u64) -> u64 {
    // A limit, so that new clients cannot keep the others waiting.
    for _ in 0..limits.clients {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
            Err(error) => {
                tracing::warn!("cannot accept on the control socket: accept: {error}");
                return now_ns + ACCEPT_RETRY_NS;
            }
        };
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::warn!("cannot serve a client of the control socket: fcntl: {error}");
            continue;
        }
        let lines = Lines::new(limits.line_bytes);
        let mut client = Client { stream, lines, response: Vec::new(), written: 0, active_ns: now_ns, has_finished: false };
        if clients.len() < limits.clients {
            clients.push(client);
            continue;
        }
        let error = Error::failed("too many clients are connected")
            .detail(format!("{} is the limit", limits.clients))
            .hint(format!("try again; an idle client is disconnected after {} s", limits.idle_ns / 1_000_000_000));
        client.response = request::refuse(&Value::Null, &error).line;
        // It fits into the empty buffer of the socket, unless the client has gone already.
        let _ = client.write(now_ns);
    }
    0
}

impl Client {
    fn has_response(&self) -> bool {
        self.written < self.response.len()
    }

    fn waits_for(&self) -> PollFlags {
        if self.has_response() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn until_ns(&self, limits: ClientLimits) -> u64 {
        self.active_ns.saturating_add(if self.has_response() { limits.slow_ns } else { limits.idle_ns })
    }

    /// Reads, responds and writes as far as it can without waiting.
    fn proceed(&mut self, view: &HostView<'_>, now_ns: u64, then: &mut Then) -> Connected {
        if !self.has_response() && self.read(now_ns) == Connected::Disconnect {
            return Connected::Disconnect;
        }
        loop {
            if self.has_response() && self.write(now_ns) == Connected::Disconnect {
                return Connected::Disconnect;
            }
            if self.has_response() {
                return Connected::Stay;
            }
            let Some(line) = self.lines.take() else { break };
            let response = match line {
                ReceivedLine::Whole(line) => request::respond(&line, view, now_ns),
                ReceivedLine::TooLong => {
                    let error = Error::config("a request is too long").hint("a line may have 64 KiB; the rest of this one is discarded");
                    request::refuse(&Value::Null, &error)
                }
            };
            self.response = response.line;
            self.written = 0;
            if response.then == Then::Stop {
                *then = Then::Stop;
            }
        }
        if self.has_finished { Connected::Disconnect } else { Connected::Stay }
    }

    /// Reads once, so that a client that never stops sending takes its turn with the others.
    fn read(&mut self, now_ns: u64) -> Connected {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.has_finished = true;
                self.lines.end();
            }
            Ok(length) => {
                self.active_ns = now_ns;
                self.lines.push(&bytes[..length]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Connected::Disconnect,
        }
        Connected::Stay
    }

    fn write(&mut self, now_ns: u64) -> Connected {
        while self.has_response() {
            match self.stream.write(&self.response[self.written..]) {
                Ok(0) => return Connected::Disconnect,
                Ok(length) => {
                    self.active_ns = now_ns;
                    self.written += length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Connected::Stay,
                Err(_) => return Connected::Disconnect,
            }
        }
        self.response = Vec::new();
        self.written = 0;
        Connected::Stay
    }
}
