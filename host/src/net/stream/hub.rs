//! What the TCP main process does: it accepts connections and gives each to the worker with the least load, and passes on what
//! processes send to each other's connections.
//!
//! *Runs in:* TCP main. *Never:* keeps anything that its successor would need: listeners, links and counts outlive it.

use std::os::fd::BorrowedFd;

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::directory::Directory;
use super::link::{self, Arrival, MAX_ARRIVALS, Message, Request};
use crate::config::Accept;
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::net::listener::{self, Listener};
use crate::sys::process::signal;
use crate::sys::socket::accept;
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;

const EVENTS: usize = 64;
/// Token of the first listener. Links have their index.
const LISTENERS: u64 = 1 << 32;
/// Pause when connections can neither be accepted nor handed out.
const PAUSE_NS: u64 = 10_000_000;

/// TCP main's end of a link.
#[derive(Debug, Clone, Copy)]
pub struct HubLink {
    /// The process at the other end.
    pub process_no: u32,
    /// Its index among the TCP workers, if it is one.
    pub worker: Option<usize>,
    /// The end.
    pub end: &'static Link,
}

/// What TCP main does for its whole life. Returns the exit code.
pub fn work(directory: Directory, listeners: &'static [Listener], links: Vec<HubLink>) -> u8 {
    let hub = signal::stop_by_flag().and_then(|()| Hub::new(directory, listeners, links));
    let mut hub = match hub {
        Ok(hub) => hub,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    };
    while !signal::stop_requested() {
        if let Err(errno) = hub.turn() {
            tracing::error!("cannot wait for connections: epoll_wait: {errno}");
            return EXIT_FAILED;
        }
    }
    EXIT_OK
}

#[derive(Debug)]
struct Hub {
    epoll: Epoll,
    directory: Directory,
    listeners: &'static [Listener],
    /// What it accepts from, with the listener's place.
    sockets: Vec<(usize, BorrowedFd<'static>)>,
    links: Vec<HubLink>,
    /// Index in `links`, by worker.
    workers: Vec<usize>,
    /// Connections of one batch, by worker.
    batches: Vec<Vec<Arrival>>,
    message: Vec<u8>,
}

impl Hub {
    fn new(directory: Directory, listeners: &'static [Listener], links: Vec<HubLink>) -> Result<Self> {
        let failed = |errno: Errno| Error::failed("cannot wait for connections").detail(format!("epoll: {errno}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for (token, link) in (0..).zip(&links) {
            epoll.add(link.end, EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(failed)?;
        }
        let sockets = listener::accepted_by(listeners, |accept| accept == Accept::Main);
        for (token, (_, socket)) in (LISTENERS..).zip(&sockets) {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(failed)?;
        }
        let workers = (0..directory.worker_count())
            .map(|worker| links.iter().position(|link| link.worker == Some(worker)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::fault("a TCP worker has no link"))?;
        let batches = workers.iter().map(|_| Vec::new()).collect();
        Ok(Self { epoll, directory, listeners, sockets, links, workers, batches, message: vec![0; link::MESSAGE_BYTES] })
    }

    fn turn(&mut self) -> Result<(), Errno> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        for event in &events[..count] {
            match event.data() {
                token if token >= LISTENERS => self.accept((token - LISTENERS) as usize),
                token => self.pass_on(token as usize),
            }
        }
        Ok(())
    }

    /// Accepts what waits, up to a batch, and hands it out.
    fn accept(&mut self, number: usize) {
        let Some((number, socket)) = self.sockets.get(number).copied() else { return };
        let Some(listener) = self.listeners.get(number) else { return };
        let mut loads: Vec<u64> = (0..self.workers.len()).map(|worker| self.directory.load(worker)).collect();
        for _ in 0..MAX_ARRIVALS {
            let (socket, peer) = match accept::accept(socket) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    tracing::warn!("cannot accept a connection listener=\"{listener}\": accept4: {errno}");
                    // It stays ready; do not turn at full speed until a descriptor or memory is free.
                    time::sleep_until_ns(time::now_ns() + PAUSE_NS);
                    break;
                }
            };
            let Some((worker, load)) = loads.iter_mut().enumerate().min_by_key(|(_, load)| **load) else { return };
            *load += 1;
            self.batches[worker].push(Arrival { socket, listener: number as u32, peer });
        }
        for worker in 0..self.batches.len() {
            if !self.batches[worker].is_empty() {
                let batch = std::mem::take(&mut self.batches[worker]);
                self.hand_out(worker, &batch);
                self.batches[worker] = batch;
                self.batches[worker].clear();
            }
        }
    }

    /// Gives connections to a worker; if its link is full, to another one.
    fn hand_out(&self, worker: usize, batch: &[Arrival]) {
        let others = (0..self.workers.len()).filter(|other| *other != worker);
        for candidate in std::iter::once(worker).chain(others) {
            self.directory.hand(candidate, batch.len() as u64);
            match link::send_arrivals(self.links[self.workers[candidate]].end, batch) {
                Ok(()) => return,
                Err(errno) => {
                    self.directory.take_back(candidate, batch.len() as u64);
                    tracing::debug!("connections cannot be handed to a worker worker={candidate}: sendmsg: {errno}");
                }
            }
        }
        tracing::warn!("connections are dropped: no worker takes them count={}", batch.len());
    }

    /// Passes on what waits in a link.
    fn pass_on(&mut self, index: usize) {
        let Some(link) = self.links.get(index).copied() else { return };
        let mut message = std::mem::take(&mut self.message);
        loop {
            match link::receive(link.end, &mut message) {
                // Whoever it says it is from: the answer goes to the link that it came from.
                Ok(Message::Bytes(request, bytes)) => self.forward(link, Request { requester: link.process_no, ..request }, bytes),
                Ok(Message::Answer(request, code)) => {
                    if let Some(asker) = self.links.iter().find(|link| link.process_no == request.requester)
                        && let Err(errno) = link::send_answer(asker.end, request, code)
                    {
                        tracing::debug!("an answer could not be passed on process_no={}: sendmsg: {errno}", request.requester);
                    }
                }
                Ok(Message::Arrivals(_)) | Err(Errno::EBADMSG) => {
                    tracing::error!(target: "fault", "a message in a link makes no sense process_no={}", link.process_no);
                }
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    tracing::error!("a link is broken process_no={}: recvmsg: {errno}", link.process_no);
                    // Main keeps its other end open, so this is final.
                    let _ = self.epoll.delete(link.end);
                    break;
                }
            }
        }
        self.message = message;
    }

    fn forward(&self, from: HubLink, request: Request, bytes: &[u8]) {
        let code = match self.workers.get(request.id.worker()) {
            None => abi::E_GONE,
            Some(worker) => match link::send_bytes(self.links[*worker].end, request, bytes) {
                Ok(()) => return,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
                Err(errno) => {
                    tracing::warn!("bytes cannot be passed on worker={}: sendmsg: {errno}", request.id.worker());
                    abi::E_SYSTEM
                }
            },
        };
        if let Err(errno) = link::send_answer(from.end, request, code) {
            tracing::debug!("an answer could not be sent process_no={}: sendmsg: {errno}", from.process_no);
        }
    }
}
