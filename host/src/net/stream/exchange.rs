//! What a handler does to its connection during one call, collected here and carried out when the call has returned.
//!
//! *Runs in:* the thread that serves connections. *Never:* keeps a borrow while a module is called: a module calls back into this.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::ptr;
use std::rc::Rc;

use module_api::abi;
use nix::errno::Errno;

use super::directory::Id;
use super::link::Arrival;

/// Longest buffer that a handler can borrow.
const MAX_BUFFER_BYTES: usize = 16 << 20;
/// The queue of a call starts with this, and falls back to it after a large answer.
const USUAL_BYTES: usize = 64 << 10;
/// Bytes from elsewhere that wait for the server at a time.
const MAX_MAIL_BYTES: usize = 16 << 20;

/// How a handler ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// When everything is sent.
    AfterSending,
    /// At once, by a reset.
    Now,
    /// This side only, when everything is sent.
    SendingSide,
}

/// Why something cannot be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not the connection of this call, or too long.
    Invalid,
    /// The queue is at its high-water mark.
    Busy,
    /// It is being closed.
    Gone,
    /// No descriptor is left.
    System,
}

/// A piece of a file that stands after the first `after_bytes` of the call's bytes.
#[derive(Debug)]
pub struct FilePiece {
    /// Bytes of this call before it.
    pub after_bytes: usize,
    /// The file.
    pub file: OwnedFd,
    /// Where the piece begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Bytes for a connection, from somewhere else.
#[derive(Debug)]
pub struct Mail {
    /// For whom.
    pub id: Id,
    /// What.
    pub bytes: Vec<u8>,
}

/// See the file's head. One per serving process.
#[derive(Debug)]
pub struct Exchange {
    stream: Cell<*mut abi::Stream>,
    /// Always initialised to its whole length; the first `used` bytes are queued.
    bytes: RefCell<Vec<u8>>,
    used: Cell<usize>,
    lent: Cell<usize>,
    files: RefCell<Vec<FilePiece>>,
    file_bytes: Cell<u64>,
    queued_before: Cell<u64>,
    high_water: Cell<u64>,
    refused: Cell<bool>,
    close: Cell<Option<Close>>,
    read: Cell<Option<bool>>,
    /// Which of the TCP workers this is.
    worker: Cell<usize>,
    /// Bytes for connections of this process, until the server looks.
    mail: RefCell<VecDeque<Mail>>,
    mail_bytes: Cell<usize>,
    /// Connections that came while a handler waited for an answer, until the server looks.
    pub arrivals: RefCell<Vec<Arrival>>,
}

thread_local! {
    static EXCHANGE: OnceCell<Rc<Exchange>> = const { OnceCell::new() };
}

impl Exchange {
    /// The one of this thread, made on the first call.
    pub fn of_this_thread() -> Rc<Self> {
        EXCHANGE.with(|cell| {
            cell.get_or_init(|| {
                Rc::new(Self {
                    stream: Cell::new(ptr::null_mut()),
                    bytes: RefCell::new(vec![0; USUAL_BYTES]),
                    used: Cell::new(0),
                    lent: Cell::new(0),
                    files: RefCell::default(),
                    file_bytes: Cell::new(0),
                    queued_before: Cell::new(0),
                    high_water: Cell::new(0),
                    refused: Cell::new(false),
                    close: Cell::new(None),
                    read: Cell::new(None),
                    worker: Cell::new(usize::MAX),
                    mail: RefCell::default(),
                    mail_bytes: Cell::new(0),
                    arrivals: RefCell::default(),
                })
            })
            .clone()
        })
    }

    /// Calls `f` with the exchange if `stream` is the connection of the call that is running in this thread.
    #[inline]
    pub fn during<R>(stream: *mut abi::Stream, f: impl FnOnce(&Self) -> R) -> Option<R> {
        EXCHANGE.with(|cell| {
            let exchange = cell.get()?;
            (!stream.is_null() && exchange.stream.get() == stream).then(|| f(exchange))
        })
    }

    /// The one of this thread, if it serves connections.
    pub fn serving() -> Option<Rc<Self>> {
        EXCHANGE.with(|cell| cell.get().cloned())
    }

    /// This thread serves the connections of that TCP worker.
    pub fn serve_as(&self, worker: usize) {
        self.worker.set(worker);
    }

    /// Whether it serves that worker's connections.
    pub fn is_of(&self, worker: usize) -> bool {
        self.worker.get() == worker
    }

    /// Keeps bytes for a connection. `OK`, or `E_BUSY` when much is kept already.
    pub fn put(&self, mail: Mail) -> i32 {
        let kept = self.mail_bytes.get() + mail.bytes.len();
        if kept > MAX_MAIL_BYTES {
            return abi::E_BUSY;
        }
        self.mail_bytes.set(kept);
        self.mail.borrow_mut().push_back(mail);
        abi::OK
    }

    /// The next bytes that are kept.
    pub fn next_mail(&self) -> Option<Mail> {
        let mail = self.mail.borrow_mut().pop_front()?;
        self.mail_bytes.set(self.mail_bytes.get() - mail.bytes.len());
        Some(mail)
    }

    /// Whether the server has to look.
    pub fn is_waiting(&self) -> bool {
        !self.mail.borrow().is_empty() || !self.arrivals.borrow().is_empty()
    }

    /// Before a call about a connection.
    #[inline]
    pub fn begin(&self, stream: *mut abi::Stream, queued_before: u64, high_water: u64) {
        self.stream.set(stream);
        self.queued_before.set(queued_before);
        self.high_water.set(high_water);
        self.refused.set(false);
        self.close.set(None);
        self.read.set(None);
    }

    /// After it: nothing can be queued any more. What the call has queued is there until `clear`.
    #[inline]
    pub fn end(&self) -> (Option<Close>, Option<bool>) {
        self.stream.set(ptr::null_mut());
        self.lent.set(0);
        (self.close.get(), self.read.get())
    }

    /// Whether something was refused because the queue was full.
    #[inline]
    pub fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// Calls `f` with the call's bytes and pieces of files, then forgets them.
    #[inline]
    pub fn carry_out<R>(&self, f: impl FnOnce(&[u8], Vec<FilePiece>) -> R) -> R {
        let used = self.used.replace(0);
        let files = if self.file_bytes.replace(0) > 0 { std::mem::take(&mut *self.files.borrow_mut()) } else { Vec::new() };
        let mut bytes = self.bytes.borrow_mut();
        let outcome = f(&bytes[..used], files);
        if bytes.len() > USUAL_BYTES {
            bytes.truncate(USUAL_BYTES);
            bytes.shrink_to_fit();
        }
        outcome
    }

    /// Nothing was queued in this call.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.used.get() == 0 && self.file_bytes.get() == 0
    }

    /// Bytes queued on the connection.
    #[inline]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_before.get() + self.used.get() as u64 + self.file_bytes.get()
    }

    #[inline]
    fn open_for_more(&self) -> Result<(), Refusal> {
        if self.close.get().is_some() {
            return Err(Refusal::Gone);
        }
        if self.queued_bytes() >= self.high_water.get() {
            self.refused.set(true);
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Queues a copy.
    #[inline]
    pub fn write(&self, data: &[u8]) -> Result<(), Refusal> {
        self.lent.set(0);
        self.open_for_more()?;
        let used = self.used.get();
        let mut bytes = self.bytes.borrow_mut();
        let end = used + data.len();
        if end > bytes.len() {
            bytes.resize(end.next_power_of_two(), 0);
        }
        bytes[used..end].copy_from_slice(data);
        self.used.set(end);
        Ok(())
    }

    /// A place for `size` bytes at the end of the queue.
    #[inline]
    pub fn buffer(&self, size: usize) -> Result<*mut u8, Refusal> {
        self.lent.set(0);
        if size > MAX_BUFFER_BYTES {
            return Err(Refusal::Invalid);
        }
        self.open_for_more()?;
        let used = self.used.get();
        let mut bytes = self.bytes.borrow_mut();
        if used + size > bytes.len() {
            bytes.resize((used + size).next_power_of_two(), 0);
        }
        self.lent.set(size);
        Ok(bytes[used..].as_mut_ptr())
    }

    /// The first bytes of the last `buffer` are queued.
    #[inline]
    pub fn commit(&self, len: usize) -> Result<(), Refusal> {
        if len > self.lent.replace(0) {
            return Err(Refusal::Invalid);
        }
        self.used.set(self.used.get() + len);
        Ok(())
    }

    /// Queues a piece of a file.
    pub fn write_file(&self, file: &File, offset: u64, bytes: u64) -> Result<(), Refusal> {
        self.lent.set(0);
        self.open_for_more()?;
        if offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Refusal::Invalid);
        }
        if bytes > 0 {
            let file = file.try_clone().map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                tracing::debug!("a file cannot be queued on a connection: dup: {errno}");
                Refusal::System
            })?;
            self.files.borrow_mut().push(FilePiece { after_bytes: self.used.get(), file: file.into(), offset, bytes });
            self.file_bytes.set(self.file_bytes.get() + bytes);
        }
        Ok(())
    }

    /// Ends the connection when the call has returned.
    pub fn close(&self, how: Close) {
        // The stronger wish stands.
        let next = match (self.close.get(), how) {
            (Some(Close::Now), _) | (_, Close::Now) => Close::Now,
            (Some(Close::AfterSending), _) | (_, Close::AfterSending) => Close::AfterSending,
            _ => Close::SendingSide,
        };
        self.close.set(Some(next));
    }

    /// Whether the peer is read from after this call.
    pub fn read(&self, on: bool) {
        self.read.set(Some(on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_collects_and_the_server_carries_out() {
        let exchange = Exchange::of_this_thread();
        let mut stream = std::mem::MaybeUninit::<abi::Stream>::uninit();
        let stream = stream.as_mut_ptr();
        assert!(Exchange::during(stream, |_| ()).is_none(), "no call is running");
        exchange.begin(stream, 10, 100);
        assert!(Exchange::during(ptr::null_mut(), |_| ()).is_none());
        assert_eq!(Exchange::during(stream, |exchange| exchange.write(&[b'a'; 50])), Some(Ok(())));
        assert!(exchange.buffer(MAX_BUFFER_BYTES + 1).is_err());
        assert!(exchange.buffer(200_000).is_ok());
        assert_eq!(exchange.commit(200_001), Err(Refusal::Invalid));
        assert_eq!(exchange.commit(1), Err(Refusal::Invalid), "good for one attempt");
        assert!(exchange.buffer(40).is_ok());
        assert_eq!(exchange.commit(40), Ok(()));
        assert_eq!(exchange.queued_bytes(), 100);
        assert_eq!(exchange.write(b"x"), Err(Refusal::Busy));
        assert!(exchange.was_refused());
        exchange.close(Close::SendingSide);
        exchange.close(Close::AfterSending);
        exchange.close(Close::SendingSide);
        assert_eq!(exchange.write(b"x"), Err(Refusal::Gone));
        assert_eq!(exchange.end(), (Some(Close::AfterSending), None));
        assert!(Exchange::during(stream, |_| ()).is_none());
        exchange.carry_out(|bytes, files| assert_eq!((bytes.len(), files.len()), (90, 0)));
        assert!(exchange.is_empty());
    }
}
