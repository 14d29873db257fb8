//! Connections: what a stream handler gets, how it answers, and how other processes send on a
//! connection.
//!
//! Handlers run in TCP workers (in main in no-fork mode). The host sends what they queue when they
//! return; only [`StreamId::send`] waits.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::slice;

use crate::abi;
use crate::host::{HostHandle, host};
use crate::listener::Listener;
use crate::{Module, Result, sockaddr};

/// A module's handler for the connections of a listener. Each connection has one value of the type,
/// made when it opens.
///
/// All functions but `open` and `data` have a default. Each runs in the worker process that serves
/// the connection, with the module and the child state of that process. An error closes this
/// connection, with the reason in the log at level `debug`; the others go on. A panic ends the
/// process and all its connections.
///
/// ```
/// use module_api::prelude::*;
///
/// /// Answers each line with the same line.
/// struct Lines;
///
/// impl<M: Module> StreamHandler<M> for Lines {
///     fn open(_: &M, _: &mut M::Child, _: &mut Stream<'_>) -> Result<Lines> {
///         Ok(Lines)
///     }
///
///     fn data(&mut self, _: &M, _: &mut M::Child, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
///         // The bytes after the last line break are passed again when more arrive.
///         let used = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
///         stream.write(&data[..used])?;
///         Ok(used)
///     }
/// }
/// ```
pub trait StreamHandler<M: Module>: Sized + 'static {
    /// A new connection, before any data.
    fn open(module: &M, child: &mut M::Child, stream: &mut Stream<'_>) -> Result<Self>;

    /// Bytes that have arrived and were not used yet, at least one. Returns how many of them it has
    /// used; the rest is passed again, followed by what arrives later. When the unused bytes reach
    /// the listener's `input_limit`, the connection is closed.
    ///
    /// Not called while the queue is at its high-water mark: the host does not read from a client
    /// that does not read its answers.
    fn data(&mut self, module: &M, child: &mut M::Child, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize>;

    /// The queue was at its high-water mark and has fallen below the low-water mark.
    fn writable(&mut self, _module: &M, _child: &mut M::Child, _stream: &mut Stream<'_>) -> Result<()> {
        Ok(())
    }

    /// The peer has finished sending; `data` never used the last `unused` bytes. By default the
    /// host sends what is queued, then closes the connection.
    fn end(&mut self, _module: &M, _child: &mut M::Child, stream: &mut Stream<'_>, _unused: usize) -> Result<()> {
        stream.close();
        Ok(())
    }

    /// The connection is over, for whatever reason. The last call about it.
    fn close(self, _module: &M, _child: &mut M::Child, _reason: CloseReason) {}
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The handler asked for it, or both sides had finished.
    Normal,
    /// The peer is gone.
    Peer,
    /// A time limit of the listener.
    Timeout,
    /// A limit on buffered bytes.
    Limit,
    /// A function of the handler has failed.
    Error,
    /// The worker stops.
    Stop,
}

impl CloseReason {
    /// The number in the binary interface.
    #[cfg(feature = "testing")]
    pub(crate) fn number(self) -> u32 {
        match self {
            CloseReason::Normal => abi::CLOSED_NORMALLY,
            CloseReason::Peer => abi::CLOSED_BY_PEER,
            CloseReason::Timeout => abi::CLOSED_BY_TIMEOUT,
            CloseReason::Limit => abi::CLOSED_BY_LIMIT,
            CloseReason::Error => abi::CLOSED_BY_ERROR,
            CloseReason::Stop => abi::CLOSED_BY_STOP,
        }
    }

    pub(crate) fn of(number: u32) -> CloseReason {
        match number {
            abi::CLOSED_BY_PEER => CloseReason::Peer,
            abi::CLOSED_BY_TIMEOUT => CloseReason::Timeout,
            abi::CLOSED_BY_LIMIT => CloseReason::Limit,
            abi::CLOSED_BY_ERROR => CloseReason::Error,
            abi::CLOSED_BY_STOP => CloseReason::Stop,
            _ => CloseReason::Normal,
        }
    }
}

/// A connection, valid during one call of its handler.
pub struct Stream<'s> {
    raw: *mut abi::Stream,
    host: HostHandle,
    lifetime: PhantomData<&'s mut abi::Stream>,
}

impl<'s> Stream<'s> {
    /// # Safety
    /// `raw` is what the host passed to the handler's function that is running, and `'s` ends with
    /// that call.
    #[inline]
    pub(crate) unsafe fn new(raw: *mut abi::Stream) -> Stream<'s> {
        Stream { raw, host: host(), lifetime: PhantomData }
    }

    #[inline]
    fn stream(&self) -> &abi::Stream {
        // SAFETY: the contract of `new`; the host does not write to it while the handler runs.
        unsafe { &*self.raw }
    }

    /// Names this connection in every process, and never another one.
    #[inline]
    pub fn id(&self) -> StreamId {
        StreamId(self.stream().id)
    }

    /// The listener that accepted it.
    #[inline]
    pub fn listener(&self) -> Listener {
        Listener::new(self.stream().listener)
    }

    /// The peer's address; none for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        let stream = self.stream();
        // SAFETY: the host states the length of the address, which lives as long as the connection.
        let bytes = unsafe { slice::from_raw_parts(stream.peer.cast::<u8>(), stream.peer_len as usize) };
        sockaddr::decode(bytes).and_then(|address| address.inet())
    }

    /// With TLS, what client and listener agreed on; none without.
    pub fn tls(&self) -> Option<TlsInfo<'_>> {
        let stream = self.stream();
        if stream.tls == 0 {
            return None;
        }
        let bytes = |start: *const u8, len: u32| {
            // SAFETY: as in `peer`, and not null.
            (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start, len as usize) })
        };
        Some(TlsInfo {
            alpn: bytes(stream.alpn, stream.alpn_len),
            server_name: bytes(stream.server_name, stream.server_name_len).and_then(|name| str::from_utf8(name).ok()),
        })
    }

    /// Queues a copy of `data`.
    ///
    /// # Errors
    /// [`StreamError::Busy`] if the queue is already at its high-water mark, [`StreamError::Gone`]
    /// after a close.
    #[inline]
    pub fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        StreamError::from_code((self.host.api.stream_write)(self.host.module, self.raw, data.as_ptr(), data.len()))
    }

    /// Lends `write` a host buffer of `size` bytes (at most 16 MiB) at the end of the queue.
    /// `write` fills its beginning and returns how many bytes that was. Nothing is copied.
    ///
    /// # Errors
    /// As [`write`](Stream::write); [`StreamError::Invalid`] if `write` returns more than `size`.
    #[inline]
    pub fn write_with(&mut self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), StreamError> {
        let HostHandle { api, module } = self.host;
        let buffer = (api.stream_buffer)(module, self.raw, size);
        if buffer.is_null() {
            // Asks again in a way that returns the reason.
            StreamError::from_code((api.stream_write)(module, self.raw, std::ptr::null(), 0))?;
            return Err(StreamError::Invalid);
        }
        // SAFETY: the host gives `size` initialised bytes, which are this module's until its next
        // call about this connection; `self` is borrowed until then.
        let bytes = unsafe { slice::from_raw_parts_mut(buffer, size) };
        let len = write(bytes);
        StreamError::from_code((api.stream_commit)(module, self.raw, len))
    }

    /// Queues `len` bytes of a file from `offset` on. The kernel reads them when they are sent,
    /// without a copy through this process. The host duplicates the descriptor. If the file is
    /// shorter by then, the connection ends.
    ///
    /// # Errors
    /// As [`write`](Stream::write); [`StreamError::System`] if the process has no descriptor left.
    pub fn write_file(&mut self, file: impl AsFd, offset: u64, len: u64) -> Result<(), StreamError> {
        let descriptor = file.as_fd().as_raw_fd();
        StreamError::from_code((self.host.api.stream_write_file)(self.host.module, self.raw, descriptor, offset, len))
    }

    /// Bytes that are queued and not sent yet, including those queued during this call of the
    /// handler.
    #[inline]
    pub fn queued(&self) -> u64 {
        u64::try_from((self.host.api.stream_queued)(self.host.module, self.raw)).unwrap_or(0)
    }

    /// Stops reading from the peer, until [`resume`](Stream::resume).
    pub fn pause(&mut self) {
        (self.host.api.stream_read)(self.host.module, self.raw, 0);
    }

    /// Resumes reading from the peer.
    pub fn resume(&mut self) {
        (self.host.api.stream_read)(self.host.module, self.raw, 1);
    }

    /// Sends what is queued, then closes the connection.
    pub fn close(&mut self) {
        (self.host.api.stream_close)(self.host.module, self.raw, abi::CLOSE_AFTER_SENDING);
    }

    /// Sends what is queued, then ends this side; the peer may go on sending. The connection ends
    /// when the peer ends its side.
    pub fn close_sending_side(&mut self) {
        (self.host.api.stream_close)(self.host.module, self.raw, abi::CLOSE_SENDING_SIDE);
    }

    /// Drops what is queued and resets the connection.
    pub fn abort(&mut self) {
        (self.host.api.stream_close)(self.host.module, self.raw, abi::CLOSE_NOW);
    }
}

/// What a TLS client and the listener agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInfo<'s> {
    /// The application protocol, such as `h2` or `http/1.1`.
    pub alpn: Option<&'s [u8]>,
    /// The host name that the client asked for.
    pub server_name: Option<&'s str>,
}

/// Names a connection in every process of the host. Never names another one, however long it is
/// kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The id as a number, for shared memory.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The id from [`number`](StreamId::number).
    pub fn from_number(number: u64) -> StreamId {
        StreamId(number)
    }

    /// Queues `data` on the connection from a process that does not serve it, and waits, at most
    /// 100 ms, until its worker has taken it. At most 65,536 bytes.
    ///
    /// Works from `proc_main` on in processes forked with [`MakeSock::Yes`](crate::MakeSock), in
    /// TCP workers, and in main in no-fork mode.
    ///
    /// # Errors
    /// [`StreamError::Gone`] if the connection no longer exists; [`StreamError::Busy`] if its queue
    /// is full; [`StreamError::Invalid`] for more bytes than that; [`StreamError::NoLink`] in any
    /// other process; [`StreamError::System`] if there was no answer: then it is unknown whether
    /// the data was sent.
    pub fn send(self, data: &[u8]) -> Result<(), StreamError> {
        let HostHandle { api, module } = host();
        StreamError::from_code((api.stream_send)(module, self.0, data.as_ptr(), data.len()))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Why bytes were not queued on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// More bytes than one call may queue.
    Invalid,
    /// The queue is at its high-water mark: wait for [`writable`](StreamHandler::writable).
    Busy,
    /// The connection no longer exists, or is being closed.
    Gone,
    /// This process has no link to the TCP main process.
    NoLink,
    /// The kernel refused, or there was no answer; the host has logged why.
    System,
}

impl StreamError {
    #[inline]
    fn from_code(code: i32) -> Result<(), StreamError> {
        match code {
            abi::OK => Ok(()),
            abi::E_INVALID => Err(StreamError::Invalid),
            abi::E_BUSY => Err(StreamError::Busy),
            abi::E_GONE => Err(StreamError::Gone),
            abi::E_LIMIT => Err(StreamError::NoLink),
            _ => Err(StreamError::System),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StreamError::Invalid => "too many bytes for one call",
            StreamError::Busy => "the connection takes no more bytes at the moment",
            StreamError::Gone => "the connection no longer exists",
            StreamError::NoLink => "this process has no link to the TCP main process: fork it with MakeSock::Yes",
            StreamError::System => "the connection's worker did not answer, or the kernel refused",
        })
    }
}

impl std::error::Error for StreamError {}
