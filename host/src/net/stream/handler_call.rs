//! What a handler does to its connection during one call. It is collected here, and the server acts
//! on it when the call has returned.
//!
//! *Runs in:* the thread that serves connections. *Never:* keeps a borrow while a module is called,
//! because the module calls back into this.

use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::ptr;
use std::rc::Rc;

use module_api::abi;
use nix::errno::Errno;

/// Longest buffer that a handler can borrow.
const MAX_BUFFER_BYTES: usize = 16 << 20;
/// Initial size of the call's buffer, and its size again after a large answer.
const USUAL_BYTES: usize = 64 << 10;

/// How a handler ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// When everything is sent.
    AfterSending,
    /// At once, by a reset.
    Now,
    /// This side only, when everything is sent.
    SendingSide,
}

/// Whether the peer is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Resume,
    Pause,
}

/// Why something cannot be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteRefusal {
    /// Not the connection of this call, or too long.
    Invalid,
    /// The queue is at its high-water mark.
    Busy,
    /// The handler has closed the connection.
    Gone,
    /// No descriptor is left.
    System,
}

/// A piece of a file, queued after the first `after_bytes` of the call's bytes.
#[derive(Debug)]
pub struct FilePiece {
    pub after_bytes: usize,
    pub file: OwnedFd,
    pub offset: u64,
    pub bytes: u64,
}

/// The call that is running, if any, and what it has queued. One per serving thread.
#[derive(Debug)]
pub struct HandlerCall {
    /// Null between two calls.
    stream: Cell<*mut abi::Stream>,
    /// Initialised to its whole length; the first `used` bytes are queued.
    bytes: RefCell<Vec<u8>>,
    used: Cell<usize>,
    /// Length of the buffer that the handler has borrowed.
    borrowed: Cell<usize>,
    files: RefCell<Vec<FilePiece>>,
    file_bytes: Cell<u64>,
    queued_before: Cell<u64>,
    high_water: Cell<u64>,
    refused: Cell<bool>,
    close: Cell<Option<CloseMode>>,
    reading: Cell<Option<Reading>>,
}

thread_local! {
    static HANDLER_CALL: OnceCell<Rc<HandlerCall>> = const { OnceCell::new() };
}

impl HandlerCall {
    /// Made at the first use.
    pub fn of_this_thread() -> Rc<Self> {
        HANDLER_CALL.with(|cell| {
            cell.get_or_init(|| {
                Rc::new(Self {
                    stream: Cell::new(ptr::null_mut()),
                    bytes: RefCell::new(vec![0; USUAL_BYTES]),
                    used: Cell::new(0),
                    borrowed: Cell::new(0),
                    files: RefCell::default(),
                    file_bytes: Cell::new(0),
                    queued_before: Cell::new(0),
                    high_water: Cell::new(0),
                    refused: Cell::new(false),
                    close: Cell::new(None),
                    reading: Cell::new(None),
                })
            })
            .clone()
        })
    }

    /// Passes this to `f` if `stream` is the connection of the call that is running in this thread.
    #[inline]
    pub fn during<R>(stream: *mut abi::Stream, f: impl FnOnce(&Self) -> R) -> Option<R> {
        HANDLER_CALL.with(|cell| {
            let call = cell.get()?;
            (!stream.is_null() && call.stream.get() == stream).then(|| f(call))
        })
    }

    /// By the server, before a call.
    #[inline]
    pub fn begin(&self, stream: *mut abi::Stream, queued_before: u64, high_water: u64) {
        self.stream.set(stream);
        self.queued_before.set(queued_before);
        self.high_water.set(high_water);
        self.refused.set(false);
        self.close.set(None);
        self.reading.set(None);
    }

    /// By the server, after a call. Queued output stays until `take_output`.
    #[inline]
    pub fn end(&self) -> (Option<CloseMode>, Option<Reading>) {
        self.stream.set(ptr::null_mut());
        self.borrowed.set(0);
        (self.close.get(), self.reading.get())
    }

    /// Whether a write was refused because the queue was full.
    #[inline]
    pub fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// Passes the queued bytes and pieces of files to `f`, then forgets them.
    #[inline]
    pub fn take_output<R>(&self, f: impl FnOnce(&[u8], Vec<FilePiece>) -> R) -> R {
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

    /// Whether the call has queued nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.used.get() == 0 && self.file_bytes.get() == 0
    }

    /// Bytes queued on the connection, before the call and in it.
    #[inline]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_before.get() + self.used.get() as u64 + self.file_bytes.get()
    }

    #[inline]
    fn check_room(&self) -> Result<(), WriteRefusal> {
        if self.close.get().is_some() {
            return Err(WriteRefusal::Gone);
        }
        if self.queued_bytes() >= self.high_water.get() {
            self.refused.set(true);
            return Err(WriteRefusal::Busy);
        }
        Ok(())
    }

    /// Queues a copy.
    #[inline]
    pub fn write(&self, data: &[u8]) -> Result<(), WriteRefusal> {
        self.borrowed.set(0);
        self.check_room()?;
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

    /// Lends the handler `size` bytes at the end of the queue, until its next call of the host.
    #[inline]
    pub fn buffer(&self, size: usize) -> Result<*mut u8, WriteRefusal> {
        self.borrowed.set(0);
        if size > MAX_BUFFER_BYTES {
            return Err(WriteRefusal::Invalid);
        }
        self.check_room()?;
        let used = self.used.get();
        let mut bytes = self.bytes.borrow_mut();
        if used + size > bytes.len() {
            bytes.resize((used + size).next_power_of_two(), 0);
        }
        self.borrowed.set(size);
        Ok(bytes[used..].as_mut_ptr())
    }

    /// Queues the first bytes of the borrowed buffer.
    #[inline]
    pub fn commit(&self, len: usize) -> Result<(), WriteRefusal> {
        if len > self.borrowed.replace(0) {
            return Err(WriteRefusal::Invalid);
        }
        self.used.set(self.used.get() + len);
        Ok(())
    }

    /// Queues a piece of a file.
    pub fn write_file(&self, file: &File, offset: u64, bytes: u64) -> Result<(), WriteRefusal> {
        self.borrowed.set(0);
        self.check_room()?;
        if offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
            return Err(WriteRefusal::Invalid);
        }
        if bytes > 0 {
            let file = file.try_clone().map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                tracing::debug!("a file cannot be queued on a connection: dup: {errno}");
                WriteRefusal::System
            })?;
            self.files.borrow_mut().push(FilePiece { after_bytes: self.used.get(), file: file.into(), offset, bytes });
            self.file_bytes.set(self.file_bytes.get() + bytes);
        }
        Ok(())
    }

    /// Ends the connection when the call has returned. Of several modes the strongest counts.
    pub fn close(&self, mode: CloseMode) {
        let next = match (self.close.get(), mode) {
            (Some(CloseMode::Now), _) | (_, CloseMode::Now) => CloseMode::Now,
            (Some(CloseMode::AfterSending), _) | (_, CloseMode::AfterSending) => CloseMode::AfterSending,
            _ => CloseMode::SendingSide,
        };
        self.close.set(Some(next));
    }

    /// Takes effect when the call has returned.
    pub fn set_reading(&self, reading: Reading) {
        self.reading.set(Some(reading));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_collects_what_the_server_carries_out() {
        let call = HandlerCall::of_this_thread();
        let mut stream = std::mem::MaybeUninit::<abi::Stream>::uninit();
        let stream = stream.as_mut_ptr();
        assert!(HandlerCall::during(stream, |_| ()).is_none(), "no call is running");
        call.begin(stream, 10, 100);
        assert!(HandlerCall::during(ptr::null_mut(), |_| ()).is_none());
        assert_eq!(HandlerCall::during(stream, |call| call.write(&[b'a'; 50])), Some(Ok(())));
        assert!(call.buffer(MAX_BUFFER_BYTES + 1).is_err());
        assert!(call.buffer(200_000).is_ok());
        assert_eq!(call.commit(200_001), Err(WriteRefusal::Invalid));
        assert_eq!(call.commit(1), Err(WriteRefusal::Invalid), "good for one attempt");
        assert!(call.buffer(40).is_ok());
        assert_eq!(call.commit(40), Ok(()));
        assert_eq!(call.queued_bytes(), 100);
        assert_eq!(call.write(b"x"), Err(WriteRefusal::Busy));
        assert!(call.was_refused());
        call.close(CloseMode::SendingSide);
        call.close(CloseMode::AfterSending);
        call.close(CloseMode::SendingSide);
        assert_eq!(call.write(b"x"), Err(WriteRefusal::Gone));
        assert_eq!(call.end(), (Some(CloseMode::AfterSending), None));
        assert!(HandlerCall::during(stream, |_| ()).is_none());
        call.take_output(|bytes, files| assert_eq!((bytes.len(), files.len()), (90, 0)));
        assert!(call.is_empty());
    }
}
