//! What reaches the serving thread outside its loop: bytes for its connections, sent by handlers
//! and by other processes, and connections that arrived while a handler waited for an answer.
//!
//! *Runs in:* the thread that serves connections. *Never:* keeps a borrow while a module is called.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use module_api::abi;

use super::directory::ConnectionId;
use super::messages::AcceptedConnection;

/// Bytes that may wait for the server at a time.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Bytes to be queued on a connection of this process.
#[derive(Debug)]
pub struct PendingSend {
    pub id: ConnectionId,
    pub bytes: Vec<u8>,
}

/// One per serving thread.
#[derive(Debug)]
pub struct Inbox {
    /// Index of this process among the TCP workers.
    worker: usize,
    sends: RefCell<VecDeque<PendingSend>>,
    waiting_bytes: Cell<usize>,
    pub connections: RefCell<Vec<AcceptedConnection>>,
}

thread_local! {
    static INBOX: OnceCell<Rc<Inbox>> = const { OnceCell::new() };
}

impl Inbox {
    /// Makes this thread the one that serves the connections of a TCP worker.
    pub fn serve_as(worker: usize) -> Rc<Self> {
        INBOX.with(|cell| {
            let inbox = || Self { worker, sends: RefCell::default(), waiting_bytes: Cell::new(0), connections: RefCell::default() };
            cell.get_or_init(|| Rc::new(inbox())).clone()
        })
    }

    /// This thread's, if it serves connections.
    pub fn of_this_thread() -> Option<Rc<Self>> {
        INBOX.with(|cell| cell.get().cloned())
    }

    /// Whether the connections of that worker are served here.
    pub fn is_of(&self, worker: usize) -> bool {
        self.worker == worker
    }

    /// Keeps bytes until the server queues them. `OK`, or `E_BUSY` if too many are waiting.
    pub fn add(&self, send: PendingSend) -> i32 {
        let waiting_bytes = self.waiting_bytes.get() + send.bytes.len();
        if waiting_bytes > MAX_WAITING_BYTES {
            return abi::E_BUSY;
        }
        self.waiting_bytes.set(waiting_bytes);
        self.sends.borrow_mut().push_back(send);
        abi::OK
    }

    /// The next bytes to queue.
    pub fn next_send(&self) -> Option<PendingSend> {
        let send = self.sends.borrow_mut().pop_front()?;
        self.waiting_bytes.set(self.waiting_bytes.get() - send.bytes.len());
        Some(send)
    }

    pub fn is_empty(&self) -> bool {
        self.sends.borrow().is_empty() && self.connections.borrow().is_empty()
    }
}
