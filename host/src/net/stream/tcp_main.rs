//! The TCP main process: it accepts connections and sends each to the worker with the least load,
//! and forwards the bytes that processes send to each other's connections.
//!
//! *Runs in:* TCP main. *Never:* holds state that its successor would need: listeners, links and
//! counts outlive it.

use std::os::fd::BorrowedFd;

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::directory::Directory;
use super::messages::{self, AcceptedConnection, LinkMessage, MAX_CONNECTIONS, SendRequest};
use crate::config::Accept;
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::net::listener::{self, Listener};
use crate::sys::process::signal;
use crate::sys::socket::accept;
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;

const EVENTS: usize = 64;
/// Token of the first listener. The token of a link is its index.
const LISTENERS: u64 = 1 << 32;
/// Pause after a failed accept, which fails again until a descriptor or memory is free.
const PAUSE_NS: u64 = 10_000_000;

/// The link of TCP main with another process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessLink {
    pub process_no: u32,
    /// Index among the TCP workers, if it is one.
    pub worker: Option<usize>,
    /// TCP main's end.
    pub end: &'static Link,
}

/// Serves until the process is to stop. Returns the exit code.
pub fn work(directory: Directory, listeners: &'static [Listener], links: Vec<ProcessLink>) -> u8 {
    let tcp_main = signal::stop_by_flag().and_then(|()| TcpMain::new(directory, listeners, links));
    let mut tcp_main = match tcp_main {
        Ok(tcp_main) => tcp_main,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    };
    while !signal::stop_requested() {
        if let Err(errno) = tcp_main.turn() {
            tracing::error!("cannot wait for connections: epoll_wait: {errno}");
            return EXIT_FAILED;
        }
    }
    EXIT_OK
}

#[derive(Debug)]
struct TcpMain {
    epoll: Epoll,
    directory: Directory,
    listeners: &'static [Listener],
    /// The listening sockets, each with the index of its listener.
    sockets: Vec<(usize, BorrowedFd<'static>)>,
    links: Vec<ProcessLink>,
    /// Index in `links`, by worker.
    workers: Vec<usize>,
    /// Accepted connections that are not sent yet, by worker.
    batches: Vec<Vec<AcceptedConnection>>,
    message_buffer: Vec<u8>,
}

impl TcpMain {
    fn new(directory: Directory, listeners: &'static [Listener], links: Vec<ProcessLink>) -> Result<Self> {
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
        Ok(Self { epoll, directory, listeners, sockets, links, workers, batches, message_buffer: vec![0; messages::MESSAGE_BYTES] })
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
                token => self.forward_messages(token as usize),
            }
        }
        Ok(())
    }

    /// Accepts one batch from a listening socket and sends it to workers.
    fn accept(&mut self, index: usize) {
        let Some((index, socket)) = self.sockets.get(index).copied() else { return };
        let Some(listener) = self.listeners.get(index) else { return };
        let mut loads: Vec<u64> = (0..self.workers.len()).map(|worker| self.directory.load(worker)).collect();
        for _ in 0..MAX_CONNECTIONS {
            let (socket, peer) = match accept::accept(socket) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    tracing::warn!("cannot accept a connection listener=\"{listener}\": accept4: {errno}");
                    time::sleep_until_ns(time::now_ns() + PAUSE_NS);
                    break;
                }
            };
            let Some((worker, load)) = loads.iter_mut().enumerate().min_by_key(|(_, load)| **load) else { return };
            *load += 1;
            self.batches[worker].push(AcceptedConnection { socket, listener: index as u32, peer });
        }
        for worker in 0..self.batches.len() {
            if !self.batches[worker].is_empty() {
                let batch = std::mem::take(&mut self.batches[worker]);
                self.send_batch(worker, &batch);
                self.batches[worker] = batch;
                self.batches[worker].clear();
            }
        }
    }

    /// Sends connections to a worker; if its link is full, to another one.
    fn send_batch(&self, worker: usize, batch: &[AcceptedConnection]) {
        let others = (0..self.workers.len()).filter(|other| *other != worker);
        for candidate in std::iter::once(worker).chain(others) {
            self.directory.add_sent(candidate, batch.len() as u64);
            match messages::send_connections(self.links[self.workers[candidate]].end, batch) {
                Ok(()) => return,
                Err(errno) => {
                    self.directory.subtract_sent(candidate, batch.len() as u64);
                    tracing::debug!("connections cannot be sent to a worker worker={candidate}: sendmsg: {errno}");
                }
            }
        }
        tracing::warn!("connections are dropped: no worker takes them count={}", batch.len());
    }

    /// Forwards the messages that wait in a link.
    fn forward_messages(&mut self, index: usize) {
        let Some(link) = self.links.get(index).copied() else { return };
        let mut buffer = std::mem::take(&mut self.message_buffer);
        loop {
            match messages::receive(link.end, &mut buffer) {
                // The answer goes to the link that the message came from, whatever it says.
                Ok(LinkMessage::Bytes(request, bytes)) => {
                    self.forward_bytes(link, SendRequest { requester: link.process_no, ..request }, bytes);
                }
                Ok(LinkMessage::Answer(request, code)) => {
                    if let Some(requester) = self.links.iter().find(|link| link.process_no == request.requester)
                        && let Err(errno) = messages::send_answer(requester.end, request, code)
                    {
                        tracing::debug!("an answer could not be passed on process_no={}: sendmsg: {errno}", request.requester);
                    }
                }
                Ok(LinkMessage::Connections(_)) | Err(Errno::EBADMSG) => {
                    tracing::error!(target: "fault", "a link carried a malformed message process_no={}", link.process_no);
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
        self.message_buffer = buffer;
    }

    fn forward_bytes(&self, from: ProcessLink, request: SendRequest, bytes: &[u8]) {
        let code = match self.workers.get(request.id.worker()) {
            None => abi::E_GONE,
            Some(worker) => match messages::send_bytes(self.links[*worker].end, request, bytes) {
                Ok(()) => return,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
                Err(errno) => {
                    tracing::warn!("bytes cannot be passed on worker={}: sendmsg: {errno}", request.id.worker());
                    abi::E_SYSTEM
                }
            },
        };
        if let Err(errno) = messages::send_answer(from.end, request, code) {
            tracing::debug!("an answer could not be sent process_no={}: sendmsg: {errno}", from.process_no);
        }
    }
}
