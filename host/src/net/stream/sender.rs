//! `stream_send`: sending on a connection, whichever process has it.
//!
//! *Runs in:* any process with a link (`send`); TCP workers and main in no-fork mode
//! (`accept_send`). *Never:* waits longer than 100 ms.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use module_api::abi;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::directory::{ConnectionId, ConnectionStatus, Directory};
use super::inbox::{Inbox, PendingSend};
use super::messages::{self, LinkMessage, MAX_BYTES, SendRequest};
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;

/// How long an answer is waited for. The promise to modules is 100 ms; the rest is for waking up.
const ANSWER_TIMEOUT_NS: u64 = 90_000_000;

/// Numbers the requests, so that a late answer is not taken for that of a later request.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);
/// Locked during a request, so that there is one at a time. Only processes that send touch it.
static ANSWER_BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn code_of(status: ConnectionStatus) -> i32 {
    match status {
        ConnectionStatus::Open => abi::OK,
        ConnectionStatus::Full => abi::E_BUSY,
        ConnectionStatus::Gone => abi::E_GONE,
    }
}

/// Sends bytes on a connection; `link` is that of this process. Returns the ABI's code.
pub fn send(directory: Directory, link: Option<&Link>, process_no: u32, id: ConnectionId, bytes: &[u8]) -> i32 {
    if bytes.len() > MAX_BYTES {
        return abi::E_INVALID;
    }
    let code = code_of(directory.status(id));
    if code != abi::OK {
        return code;
    }
    // Its own connection: the server queues the bytes when the running handler has returned.
    if let Some(inbox) = Inbox::of_this_thread().filter(|inbox| inbox.is_of(id.worker())) {
        return inbox.add(PendingSend { id, bytes: bytes.to_vec() });
    }
    let Some(link) = link else { return abi::E_LIMIT };
    let mut buffer = ANSWER_BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    buffer.resize(messages::MESSAGE_BYTES, 0);
    let request = SendRequest { requester: process_no, sequence: SEQUENCE.fetch_add(1, Relaxed), id };
    match messages::send_bytes(link, request, bytes) {
        Ok(()) => wait_for_answer(directory, link, request, &mut buffer),
        Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
        Err(errno) => {
            tracing::warn!("a link to the TCP main process is broken: sendmsg: {errno}");
            abi::E_SYSTEM
        }
    }
}

/// A worker serves its link meanwhile, so that two that send to each other do not wait in vain.
fn wait_for_answer(directory: Directory, link: &Link, request: SendRequest, buffer: &mut [u8]) -> i32 {
    let until_ns = time::now_ns() + ANSWER_TIMEOUT_NS;
    loop {
        match messages::receive(link, buffer) {
            Ok(LinkMessage::Answer(answered, code)) if answered == request => return code,
            Ok(LinkMessage::Answer(..)) | Err(Errno::EBADMSG) => {}
            Ok(LinkMessage::Bytes(other, bytes)) => match Inbox::of_this_thread() {
                Some(inbox) => accept_send(&inbox, directory, link, other, bytes),
                None => tracing::error!(target: "fault", "bytes for a connection came to a process that has none"),
            },
            Ok(LinkMessage::Connections(connections)) => match Inbox::of_this_thread() {
                Some(inbox) => inbox.connections.borrow_mut().extend(connections),
                None => tracing::error!(target: "fault", "connections came to a process that serves none"),
            },
            Err(Errno::EAGAIN) => {
                let left_ms = until_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000);
                if left_ms == 0 {
                    tracing::warn!(
                        "no answer from a connection's worker id={:x} within_ms={}",
                        request.id.0,
                        ANSWER_TIMEOUT_NS / 1_000_000
                    );
                    return abi::E_SYSTEM;
                }
                // Interrupted or not, the link is read again.
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

/// In the process that has the connection: keeps the bytes for it, and answers.
pub fn accept_send(inbox: &Inbox, directory: Directory, link: &Link, request: SendRequest, bytes: &[u8]) {
    let code = match (inbox.is_of(request.id.worker()), code_of(directory.status(request.id))) {
        (true, abi::OK) => inbox.add(PendingSend { id: request.id, bytes: bytes.to_vec() }),
        (true, code) => code,
        (false, _) => abi::E_GONE,
    };
    if let Err(errno) = messages::send_answer(link, request, code) {
        // The sender's wait will time out.
        tracing::debug!("an answer could not be sent: sendmsg: {errno}");
    }
}
