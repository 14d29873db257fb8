//! Sending on a connection that another process has.
//!
//! *Runs in:* any process with a link (asking), TCP workers and main in no-fork mode (taking). *Never:* waits longer than 100 ms.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use module_api::abi;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::directory::{Directory, Id, Status};
use super::exchange::{Exchange, Mail};
use super::link::{self, MAX_BYTES, Message, Request};
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;

/// How long an answer is waited for. A tenth is left for whoever waits to be woken and to go on: the promise is 100 ms.
const PATIENCE_NS: u64 = 90_000_000;

/// Questions get numbers, so that an answer that comes too late is not taken for another one's.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);
/// One question at a time, with a buffer for the answer. Only processes that send touch it.
static ASKING: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The ABI's code for what the directory knows.
fn code_of(status: Status) -> i32 {
    match status {
        Status::Open => abi::OK,
        Status::Full => abi::E_BUSY,
        Status::Gone => abi::E_GONE,
    }
}

/// `stream_send`: `link` is this process's, `process_no` its number.
pub fn send(directory: Directory, link: Option<&Link>, process_no: u32, id: Id, bytes: &[u8]) -> i32 {
    if bytes.len() > MAX_BYTES {
        return abi::E_INVALID;
    }
    let code = code_of(directory.status(id));
    if code != abi::OK {
        return code;
    }
    // A connection of this very process: it is served when the running handler has returned.
    if Exchange::serving().is_some_and(|exchange| exchange.is_of(id.worker())) {
        return Exchange::of_this_thread().put(Mail { id, bytes: bytes.to_vec() });
    }
    let Some(link) = link else { return abi::E_LIMIT };
    let mut buffer = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    buffer.resize(link::MESSAGE_BYTES, 0);
    let request = Request { requester: process_no, sequence: SEQUENCE.fetch_add(1, Relaxed), id };
    match link::send_bytes(link, request, bytes) {
        Ok(()) => answer(directory, link, request, &mut buffer),
        Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
        Err(errno) => {
            tracing::warn!("a link to the TCP main process is broken: sendmsg: {errno}");
            abi::E_SYSTEM
        }
    }
}

/// Waits for the answer; a worker takes what others ask of it meanwhile, so that two that ask each other do not both wait in vain.
fn answer(directory: Directory, link: &Link, request: Request, buffer: &mut [u8]) -> i32 {
    let until_ns = time::now_ns() + PATIENCE_NS;
    loop {
        match link::receive(link, buffer) {
            Ok(Message::Answer(answered, code)) if answered == request => return code,
            Ok(Message::Answer(..)) | Err(Errno::EBADMSG) => {}
            Ok(Message::Bytes(other, bytes)) => match Exchange::serving() {
                Some(exchange) => take(&exchange, directory, link, other, bytes),
                None => tracing::error!(target: "fault", "bytes for a connection came to a process that has none"),
            },
            Ok(Message::Arrivals(arrivals)) => match Exchange::serving() {
                Some(exchange) => exchange.arrivals.borrow_mut().extend(arrivals),
                None => tracing::error!(target: "fault", "connections came to a process that serves none"),
            },
            Err(Errno::EAGAIN) => {
                let left_ms = until_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000);
                if left_ms == 0 {
                    tracing::warn!("no answer from a connection's worker id={:x} within_ms={}", request.id.0, PATIENCE_NS / 1_000_000);
                    return abi::E_SYSTEM;
                }
                // Interrupted or not, the link is looked at again.
                let _ = poll(
                    &mut [PollFd::new(link.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::try_from(left_ms as i32).unwrap_or(PollTimeout::ZERO),
                );
            }
            Err(errno) => {
                tracing::warn!("a link to the TCP main process is broken: recvmsg: {errno}");
                return abi::E_SYSTEM;
            }
        }
    }
}

/// In the process that has the connection: queues the bytes for it, and answers.
pub fn take(exchange: &Exchange, directory: Directory, link: &Link, request: Request, bytes: &[u8]) {
    let code = match (exchange.is_of(request.id.worker()), code_of(directory.status(request.id))) {
        (true, abi::OK) => exchange.put(Mail { id: request.id, bytes: bytes.to_vec() }),
        (true, code) => code,
        (false, _) => abi::E_GONE,
    };
    if let Err(errno) = link::send_answer(link, request, code) {
        // Who asked will have waited in vain.
        tracing::debug!("an answer could not be sent: sendmsg: {errno}");
    }
}
