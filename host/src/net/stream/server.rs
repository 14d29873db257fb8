//! Serving connections: one loop that waits for sockets, reads, calls handlers, and sends what they
//! queue.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* lets one connection's handler, speed or
//! traffic hold up the others; never allocates for a request that arrives whole and whose answer
//! the kernel takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::{Connection, Ending};
use super::directory::Directory;
use super::handler_call::HandlerCall;
use super::inbox::Inbox;
use crate::config::Accept;
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::net::listener::{self, Listener};
use crate::net::udp::GaveUp;
use crate::stats::HostCounters;
use crate::sys::descriptor;
use crate::sys::process::signal;
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;
use crate::tls::CurrentCertificates;

mod back_pressure;
mod calling;
mod closing;
mod handshake;
mod links;
mod open;
mod reading;
mod time_limits;

/// Most bytes of one read.
const INPUT_BYTES: usize = 64 << 10;
/// Events taken from the kernel by one wait.
const EVENTS: usize = 256;
/// Outdated entries of `checks` that are not worth a clean-up.
const OUTDATED_CHECKS_MAX: usize = 4096;
/// Token of the link; those of listeners follow. The token of a connection is its slot.
const LINK: u64 = 1 << 32;
const LISTENERS: u64 = LINK + 1;
/// Tokens of other processes' links, in no-fork mode.
const PROCESS_LINKS: u64 = 1 << 33;

/// Serves until the process is to stop. Returns the exit code.
pub fn work(
    directory: Directory,
    worker: usize,
    listeners: &'static [Listener],
    link: &'static Link,
    tls: Result<Option<CurrentCertificates>>,
) -> u8 {
    let server = signal::stop_by_flag().and_then(|()| ConnectionServer::new(directory, worker, listeners, Some(link), tls?));
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    };
    while !signal::stop_requested() {
        match server.turn(None) {
            Ok(()) => {}
            Err(GaveUp(code)) => return code,
        }
    }
    server.finish();
    EXIT_OK
}

/// The connections of one process.
#[derive(Debug)]
pub struct ConnectionServer {
    epoll: Epoll,
    directory: Directory,
    /// Index of this process among the TCP workers.
    worker: usize,
    listeners: &'static [Listener],
    /// The listening sockets, each with the index of its listener.
    sockets: Vec<(usize, BorrowedFd<'static>)>,
    link: Option<&'static Link>,
    /// In no-fork mode: links of the modules' processes, which otherwise end in TCP main.
    process_links: Vec<&'static Link>,
    /// By slot.
    connections: Vec<Option<Box<Connection>>>,
    free_slots: Vec<u32>,
    handler_call: Rc<HandlerCall>,
    inbox: Rc<Inbox>,
    input: Vec<u8>,
    /// Empty vectors with memory, for `Connection::unused`.
    spare_buffers: Vec<Vec<u8>>,
    events: Vec<EpollEvent>,
    /// Slots of connections that continue in the next turn.
    postponed: Vec<u32>,
    /// When to check a connection's time limits: moment, slot, id. None is reached earlier.
    checks: BinaryHeap<Reverse<(u64, u32, u64)>>,
    message_buffer: Vec<u8>,
    /// None if no listener has certificates.
    tls: Option<CurrentCertificates>,
    /// For encrypted bytes. Allocated for the first connection with TLS.
    ciphertext: Vec<u8>,
    counts: HostCounters,
    now_ns: u64,
}

impl ConnectionServer {
    /// Makes this process a server. The connections of its predecessor are closed.
    pub fn new(
        directory: Directory,
        worker: usize,
        listeners: &'static [Listener],
        link: Option<&'static Link>,
        tls: Option<CurrentCertificates>,
    ) -> Result<Self> {
        let failed = |errno: Errno| Error::failed("cannot wait for connections").detail(format!("epoll: {errno}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        directory
            .adopt(worker, directory.slot_count(worker))
            .map_err(|errno| Error::failed("cannot take over from the worker before").detail(format!("the lock of limits: {errno}")))?;
        if let Some(link) = link {
            epoll.add(link, EpollEvent::new(EpollFlags::EPOLLIN, LINK)).map_err(failed)?;
        }
        // Without a link there is no TCP main, so this process accepts from every listener.
        let sockets = listener::accepted_by(listeners, |accept| accept == Accept::Workers || link.is_none());
        for (token, (_, socket)) in (LISTENERS..).zip(&sockets) {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, token)).map_err(failed)?;
        }
        if link.is_none() {
            descriptor::keep_private(epoll.0.as_fd());
        }
        Ok(Self {
            epoll,
            directory,
            worker,
            listeners,
            sockets,
            link,
            process_links: Vec::new(),
            connections: Vec::new(),
            free_slots: Vec::new(),
            handler_call: HandlerCall::of_this_thread(),
            inbox: Inbox::serve_as(worker),
            input: vec![0; INPUT_BYTES],
            spare_buffers: Vec::new(),
            events: vec![EpollEvent::empty(); EVENTS],
            postponed: Vec::new(),
            checks: BinaryHeap::new(),
            message_buffer: Vec::new(),
            tls,
            ciphertext: Vec::new(),
            counts: HostCounters::of_this_process(),
            now_ns: time::now_ns(),
        })
    }

    /// Readable when there is something to do; see `next_wakeup_ns` too.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When `turn` must be called even if nothing happens.
    pub fn next_wakeup_ns(&self) -> Option<u64> {
        if !self.postponed.is_empty() || !self.inbox.is_empty() {
            return Some(self.now_ns);
        }
        self.checks.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// Waits until something happens, at most until `until_ns`, and serves it.
    pub fn turn(&mut self, until_ns: Option<u64>) -> Result<(), GaveUp> {
        let until_ns = self.next_wakeup_ns().into_iter().chain(until_ns).min();
        let timeout = match until_ns {
            None => EpollTimeout::NONE,
            Some(at_ns) => {
                let left_ms = at_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000);
                EpollTimeout::try_from(left_ms.min(i32::MAX as u64) as i32).unwrap_or(EpollTimeout::ZERO)
            }
        };
        let mut events = std::mem::take(&mut self.events);
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                tracing::error!("cannot wait for connections: epoll_wait: {errno}");
                return Err(GaveUp(EXIT_FAILED));
            }
        };
        self.now_ns = time::now_ns();
        let outcome = self.serve(&events[..count]);
        self.events = events;
        outcome?;
        for slot in std::mem::take(&mut self.postponed) {
            self.with_connection(slot, Self::advance)?;
        }
        let accepted = std::mem::take(&mut *self.inbox.connections.borrow_mut());
        for connection in accepted {
            self.open(connection)?;
        }
        self.queue_sends()?;
        self.check_time_limits()
    }

    fn serve(&mut self, events: &[EpollEvent]) -> Result<(), GaveUp> {
        for event in events {
            match event.data() {
                LINK => self.receive_messages(self.link)?,
                token if token >= PROCESS_LINKS => {
                    self.receive_messages(self.process_links.get((token - PROCESS_LINKS) as usize).copied())?;
                }
                token if token > LINK => self.accept((token - LISTENERS) as usize)?,
                slot => {
                    let flags = event.events();
                    self.with_connection(slot as u32, |server, connection| server.handle_event(connection, flags))?;
                }
            }
        }
        Ok(())
    }

    /// Passes the connection of a slot to `act`, and closes it if it has a close reason then.
    fn with_connection(&mut self, slot: u32, act: impl FnOnce(&mut Self, &mut Connection) -> Result<(), GaveUp>) -> Result<(), GaveUp> {
        let Some(mut connection) = self.connections.get_mut(slot as usize).and_then(Option::take) else { return Ok(()) };
        let outcome = act(self, &mut connection);
        self.put_back(slot, connection);
        outcome
    }

    /// Puts a connection back into its slot, or closes it.
    fn put_back(&mut self, slot: u32, mut connection: Box<Connection>) {
        if connection.ending != Ending::Lingering
            && let Some(reason) = connection.close_reason
        {
            self.close(&mut connection, reason);
        }
        if connection.close_reason.is_some() {
            if self.link.is_none() {
                descriptor::forget_private(connection.socket().as_fd());
            }
            drop(connection);
            self.free_slots.push(slot);
            return;
        }
        let deadline_ns = connection.deadline_ns();
        if deadline_ns < connection.next_check_ns {
            connection.next_check_ns = deadline_ns;
            self.checks.push(Reverse((deadline_ns, slot, connection.id.0)));
        }
        self.connections[slot as usize] = Some(connection);
        if self.checks.len() > OUTDATED_CHECKS_MAX + 4 * self.connections.len() {
            // Most are of closed connections.
            let checks = self.connections.iter().flatten().filter(|connection| connection.next_check_ns != u64::MAX);
            self.checks =
                checks.map(|connection| Reverse((connection.next_check_ns, connection.id.slot() as u32, connection.id.0))).collect();
        }
    }
}
