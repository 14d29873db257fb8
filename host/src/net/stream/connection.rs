//! One connection of this process: its socket, its state, and the bytes that wait in both
//! directions.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* calls a module; the server does.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use module_api::abi;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use super::directory::ConnectionId;
use super::messages::AcceptedConnection;
use super::output::{OutputQueue, OutputSink};
use super::tls::{ReadOutcome, Tls};
use crate::net::listener::{Listener, StreamService};
use crate::sys::socket::accept::{self, SendHint};
use crate::sys::socket::options;

/// Most bytes of a file that one call sends, so that a fast client does not hold up the others.
const FILE_PIECE_BYTES: u64 = 1 << 20;

/// `CLOSED_*` of the ABI.
pub type CloseReason = u32;

/// How far a connection is on its way to its end, once the handler has closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    No,
    /// When everything is sent, this side ends; the peer may continue.
    SendingSide,
    SendingSideEnded,
    /// When everything is sent, the connection is closed.
    AfterSending,
    /// Closed for the handler. What the peer still sends is read and dropped, so that our last
    /// bytes are not lost to a reset.
    Lingering,
}

/// Boxed: the handler keeps the address of `stream`.
#[derive(Debug)]
pub struct Connection {
    /// The handler's view.
    pub stream: abi::Stream,
    /// Holds the socket, and the address that `stream.peer` points to.
    accepted: AcceptedConnection,
    pub id: ConnectionId,
    pub listener: &'static Listener,
    pub service: &'static StreamService,
    /// Received bytes that the handler has not used. Allocated only while there are some.
    pub unused: Vec<u8>,
    pub output: OutputQueue,
    tls: Option<Box<Tls>>,
    /// The kernel may have something to read.
    pub readable: bool,
    /// The kernel has reported the end of the peer's data, or an error: read to the end.
    pub hung_up: bool,
    /// Nothing can be sent any more. What arrived before can be read, if the handler wants it.
    pub broken: bool,
    /// Everything that the peer will ever send was read.
    pub peer_ended: bool,
    /// The handler was told of `peer_ended`.
    pub end_reported: bool,
    /// The handler does not want to be given data.
    pub paused: bool,
    /// The queue has reached the high-water mark, and not yet fallen to the low-water mark.
    pub full: bool,
    /// A write was refused and the handler stopped: call it again with `unused` when there is room.
    pub waits_for_room: bool,
    /// The socket is registered with epoll.
    pub watched: bool,
    /// `on_open` has succeeded, so `on_close` is due.
    pub opened: bool,
    pub ending: Ending,
    /// The server is to close it, for this reason.
    pub close_reason: Option<CloseReason>,
    /// Last byte in either direction.
    pub active_ns: u64,
    pub opened_ns: u64,
    /// 0: nothing is unused.
    pub unused_since_ns: u64,
    pub lingers_until_ns: u64,
    /// The earliest moment at which the server will check its time limits.
    pub next_check_ns: u64,
}

impl Connection {
    pub fn new(
        accepted: AcceptedConnection,
        id: ConnectionId,
        listener: &'static Listener,
        service: &'static StreamService,
        tls: Option<Box<Tls>>,
        now_ns: u64,
    ) -> Box<Self> {
        let mut connection = Box::new(Self {
            stream: abi::Stream {
                size: size_of::<abi::Stream>() as u32,
                listener: listener.index,
                id: id.0,
                user: std::ptr::null_mut(),
                peer: std::ptr::null(),
                peer_len: accepted.peer.len_bytes(),
                alpn_len: 0,
                alpn: std::ptr::null(),
                server_name: std::ptr::null(),
                server_name_len: 0,
                tls: 0,
            },
            accepted,
            id,
            listener,
            service,
            unused: Vec::new(),
            output: OutputQueue::default(),
            tls,
            readable: true,
            hung_up: false,
            broken: false,
            peer_ended: false,
            end_reported: false,
            paused: false,
            full: false,
            waits_for_room: false,
            watched: false,
            opened: false,
            ending: Ending::No,
            close_reason: None,
            active_ns: now_ns,
            opened_ns: now_ns,
            unused_since_ns: 0,
            lingers_until_ns: 0,
            next_check_ns: u64::MAX,
        });
        connection.stream.peer = connection.accepted.peer.whole().as_ptr().cast();
        connection
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.accepted.socket
    }

    /// Whether the handler may be given data now.
    #[inline]
    pub fn wants_data(&self) -> bool {
        !self.full
            && !self.paused
            && self.close_reason.is_none()
            && matches!(self.ending, Ending::No | Ending::SendingSide | Ending::SendingSideEnded)
    }

    /// Whether a TLS handshake is going on.
    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Continues the TLS handshake. True: it is finished, and its results are in `stream`.
    pub fn handshake(&mut self, ciphertext: &mut Vec<u8>) -> Result<bool, Errno> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        if !tls.handshake(&self.accepted.socket, ciphertext)? {
            return Ok(false);
        }
        let visible = |bytes: &[u8]| if bytes.is_empty() { (std::ptr::null(), 0) } else { (bytes.as_ptr(), bytes.len() as u32) };
        self.stream.tls = 1;
        (self.stream.alpn, self.stream.alpn_len) = visible(tls.alpn());
        (self.stream.server_name, self.stream.server_name_len) = visible(tls.server_name());
        Ok(true)
    }

    /// Reads what is there. `ciphertext` is a buffer for encrypted bytes.
    #[inline]
    pub fn receive(&mut self, buffer: &mut [u8], ciphertext: &mut Vec<u8>) -> Result<ReadOutcome, Errno> {
        if let Some(tls) = &mut self.tls {
            return tls.receive(&self.accepted.socket, buffer, ciphertext);
        }
        let count = self.receive_raw(buffer)?;
        Ok(ReadOutcome { count, is_all: count < buffer.len() })
    }

    /// Reads without decrypting.
    #[inline]
    pub fn receive_raw(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        recv(self.socket().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
    }

    /// Sends what the kernel takes of `bytes`. The queue must be empty.
    #[inline]
    pub fn send_now(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let socket = &self.accepted.socket;
        let outcome = match &mut self.tls {
            None => PlainSink(socket).send(bytes, SendHint::Complete),
            Some(tls) => tls.sink(socket).send_all(bytes),
        };
        match outcome {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            outcome => outcome,
        }
    }

    /// Sends what the kernel takes of the queue. Returns how many bytes have left the queue; none
    /// if the kernel has taken nothing. With TLS the kernel may take earlier encrypted bytes while
    /// the queue stays as it is.
    pub fn flush(&mut self) -> Result<Option<u64>, Errno> {
        let written = |tls: &Option<Box<Tls>>| tls.as_ref().map_or(0, |tls| tls.written());
        let (queued_before, written_before) = (self.output.queued_bytes(), written(&self.tls));
        let socket = &self.accepted.socket;
        match &mut self.tls {
            None => _ = self.output.flush(&mut PlainSink(socket))?,
            Some(tls) => {
                if self.output.flush(&mut tls.sink(socket))? {
                    tls.flush(socket)?;
                }
            }
        }
        let queued = self.output.queued_bytes();
        let progress = queued != queued_before || written(&self.tls) != written_before;
        Ok(progress.then(|| queued_before.saturating_sub(queued)))
    }

    /// Whether the kernel has taken everything.
    #[inline]
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.has_unsent())
    }

    /// Sends the `close_notify` of TLS, if the connection has TLS. True: done.
    pub fn send_close_notify(&mut self) -> bool {
        self.tls.as_mut().is_none_or(|tls| tls.send_close_notify(&self.accepted.socket))
    }

    /// Ends this side.
    pub fn end_sending(&self) {
        // It fails if the peer has reset the connection; then reading fails, too.
        let _ = shutdown(self.socket().as_raw_fd(), Shutdown::Write);
    }

    /// Lets the closing of the socket reset the connection.
    pub fn reset_on_close(&mut self) {
        // With a `close_notify` the peer would take what was sent for everything.
        if let Some(tls) = &mut self.tls {
            tls.omit_close_notify();
        }
        // It fails for a Unix socket, which cannot be reset.
        let _ = options::set_reset_on_close(self.socket());
    }

    /// When the first of its time limits is reached; `u64::MAX`: never.
    pub fn deadline_ns(&self) -> u64 {
        if self.ending == Ending::Lingering {
            return self.lingers_until_ns;
        }
        let after = |since_ns: u64, limit: std::time::Duration| match (since_ns, limit.as_nanos() as u64) {
            (0, _) | (_, 0) => u64::MAX,
            (since_ns, limit_ns) => since_ns.saturating_add(limit_ns),
        };
        if let (true, Some(options)) = (self.is_handshaking(), &self.service.tls) {
            return after(self.opened_ns, options.handshake_timeout);
        }
        let limits = &self.service.options;
        after(self.active_ns, limits.idle_timeout)
            .min(after(self.unused_since_ns, limits.read_timeout))
            .min(after(self.opened_ns, limits.total_timeout))
    }
}

/// A socket without TLS.
struct PlainSink<'s>(&'s OwnedFd);

impl OutputSink for PlainSink<'_> {
    #[inline]
    fn send(&mut self, bytes: &[u8], hint: SendHint) -> Result<usize, Errno> {
        accept::send(self.0.as_fd(), bytes, hint)
    }

    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno> {
        let mut at = i64::try_from(*offset).map_err(|_| Errno::EINVAL)?;
        let sent = sendfile64(self.0, file, Some(&mut at), bytes.min(FILE_PIECE_BYTES) as usize)?;
        *offset = at as u64;
        Ok(sent)
    }
}
