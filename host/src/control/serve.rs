//! The loop: many clients, one thread, bounds on everything a client can take.
//!
//! *Runs in:* the control process. *Never:* waits for one client; ends because of what one sent.
//!
//! A client is read only when its last answer is on its way and no whole line of it waits, so that what is kept for it is at most one line
//! in and one answer out.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::lines::{Line, Lines};
use super::methods::{Then, View};
use super::request::{self, Answer};
use crate::error::{Error, Result};
use crate::sys::time;

/// Bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Clients at a time; one more is told so and sent away.
    pub clients: usize,
    /// Of a request, without its newline.
    pub line_bytes: usize,
    /// A client that neither sends nor takes anything for so long is sent away.
    pub idle_ns: u64,
    /// A client that takes nothing of its answer for so long is sent away.
    pub slow_ns: u64,
}

impl Limits {
    /// What the host uses.
    pub const DEFAULT: Self = Self { clients: 64, line_bytes: 64 << 10, idle_ns: 60_000_000_000, slow_ns: 10_000_000_000 };
}

/// Of one read. Small: it is on the stack of a forked process.
const READ_BYTES: usize = 4096;

/// After a failed accept that would fail again at once.
const ACCEPT_AGAIN_NS: u64 = 500_000_000;

struct Client {
    stream: UnixStream,
    lines: Lines,
    answer: Vec<u8>,
    written: usize,
    /// The last byte in either direction.
    active_ns: u64,
    sends: Sends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sends {
    More,
    NoMore,
}

/// Whether a client is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// Serves until `stopped`. `order_stop` is called at most once, after the client has its answer.
pub(super) fn serve(socket: &OwnedFd, view: &View<'_>, limits: Limits, order_stop: &dyn Fn(), stopped: &dyn Fn() -> bool) -> Result<()> {
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
            // The last one.
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
        let mut then = Then::Nothing;
        // Empty after an interrupted poll: nobody is ready.
        let (of_clients, of_listener) = ready.split_at(clients.len().min(ready.len()));
        let mut of_clients = of_clients.iter().copied();
        clients.retain_mut(|client| {
            let is_ready = of_clients.next().unwrap_or(false);
            (!is_ready || client.go_on(view, now_ns, &mut then) == Keep::Yes) && client.until_ns(limits) > now_ns
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
        // What is answered is delivered if the client takes it now.
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

/// Takes in whoever waits. Returns when to look again at the earliest.
fn accept(listener: &UnixListener, clients: &mut Vec<Client>, limits: Limits, now_ns: u64) -> u64 {
    // Bounded: clients that come and go must not keep the others waiting.
    for _ in 0..limits.clients {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
            Err(error) => {
                tracing::warn!("cannot accept on the control socket: accept: {error}");
                return now_ns + ACCEPT_AGAIN_NS;
            }
        };
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::warn!("cannot serve a client of the control socket: fcntl: {error}");
            continue;
        }
        let mut client =
            Client { stream, lines: Lines::new(limits.line_bytes), answer: Vec::new(), written: 0, active_ns: now_ns, sends: Sends::More };
        if clients.len() < limits.clients {
            clients.push(client);
            continue;
        }
        let error = Error::failed("too many clients are connected")
            .detail(format!("{} is the limit", limits.clients))
            .hint(format!("try again; one that is idle is sent away after {} s", limits.idle_ns / 1_000_000_000));
        client.answer = request::refuse(&error).line;
        // If it does not fit into an empty socket buffer, nobody needs it.
        let _ = client.write(now_ns);
    }
    0
}

impl Client {
    fn has_answer(&self) -> bool {
        self.written < self.answer.len()
    }

    fn waits_for(&self) -> PollFlags {
        if self.has_answer() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn until_ns(&self, limits: Limits) -> u64 {
        self.active_ns.saturating_add(if self.has_answer() { limits.slow_ns } else { limits.idle_ns })
    }

    /// Something can be done for it: reads, answers, writes.
    fn go_on(&mut self, view: &View<'_>, now_ns: u64, then: &mut Then) -> Keep {
        if !self.has_answer() && self.read(now_ns) == Keep::No {
            return Keep::No;
        }
        loop {
            if self.has_answer() && self.write(now_ns) == Keep::No {
                return Keep::No;
            }
            if self.has_answer() {
                return Keep::Yes;
            }
            let Some(line) = self.lines.take() else { break };
            let Answer { line, then: after } = match line {
                Line::Whole(line) => request::answer(&line, view, now_ns),
                Line::TooLong => request::refuse(
                    &Error::config("a request is too long").hint("a line may have 64 KiB; the rest of this one is thrown away"),
                ),
            };
            self.answer = line;
            self.written = 0;
            if after == Then::Stop {
                *then = after;
            }
        }
        if self.sends == Sends::NoMore { Keep::No } else { Keep::Yes }
    }

    /// Once: whoever sends without end gets its turn like the others.
    fn read(&mut self, now_ns: u64) -> Keep {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.sends = Sends::NoMore;
                self.lines.end();
            }
            Ok(length) => {
                self.active_ns = now_ns;
                self.lines.push(&bytes[..length]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Keep::No,
        }
        Keep::Yes
    }

    fn write(&mut self, now_ns: u64) -> Keep {
        while self.has_answer() {
            match self.stream.write(&self.answer[self.written..]) {
                Ok(0) => return Keep::No,
                Ok(length) => {
                    self.active_ns = now_ns;
                    self.written += length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Keep::Yes,
                Err(_) => return Keep::No,
            }
        }
        self.answer = Vec::new();
        self.written = 0;
        Keep::Yes
    }
}
