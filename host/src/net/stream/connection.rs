//! One connection of this process: its socket, what waits in both directions, and where it stands.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* calls a module; the server does.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use module_api::abi;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown, sockopt};

use super::directory::Id;
use super::link::Arrival;
use super::output::{Output, Sink};
use super::tls::{Received, Tls};
use crate::config::StreamOptions;
use crate::net::listener::{Listener, StreamService};
use crate::sys::socket::accept::{self, SendHint};

/// Longest piece of a file that one call sends, so that one client on a fast line does not keep a worker to itself.
const FILE_PIECE_BYTES: u64 = 1 << 20;

/// Why a connection is over, as `CLOSED_*`.
pub type Reason = u32;

/// How far the handler has come with ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Not at all.
    No,
    /// When everything is sent, this side ends; the peer may go on.
    SendingSide,
    /// This side has ended.
    SendingSideEnded,
    /// When everything is sent, it is over.
    AfterSending,
    /// It is over for the handler; what the peer still sends is read and dropped, so that our last bytes are not lost to a reset.
    Lingering,
}

/// A connection. Boxed: the handler keeps the address of `stream`.
#[derive(Debug)]
pub struct Connection {
    /// What the handler sees.
    pub stream: abi::Stream,
    /// The address that `stream.peer` leads to.
    arrival: Arrival,
    /// Its name.
    pub id: Id,
    /// Its listener.
    pub listener: &'static Listener,
    /// How the listener's connections are served.
    pub service: &'static StreamService,
    /// What has arrived and was not used. Holds memory only while there is something.
    pub unused: Vec<u8>,
    /// What is not sent yet.
    pub output: Output,
    /// What stands between the socket and all this; none: nothing.
    tls: Option<Box<Tls>>,
    /// The kernel may have something to read.
    pub readable: bool,
    /// The kernel has said that the peer has finished, or that the connection is broken: read to the end.
    pub hung_up: bool,
    /// It is broken: nothing can be sent any more. What has arrived before can be read, if the handler wants it.
    pub broken: bool,
    /// Everything that the peer will ever send was read.
    pub peer_ended: bool,
    /// The handler was told so.
    pub end_told: bool,
    /// The handler does not want to be given data.
    pub paused: bool,
    /// The queue has reached the high-water mark, and not yet fallen to the low one.
    pub full: bool,
    /// The handler could not queue something and stopped: `unused` is to be given again when there is room.
    pub stopped_by_full: bool,
    /// The server waits for it.
    pub watched: bool,
    /// `on_open` has succeeded: `on_close` is owed.
    pub opened: bool,
    /// See there.
    pub ending: Ending,
    /// It is to be ended, for this reason.
    pub over: Option<Reason>,
    /// Last byte in either direction.
    pub active_ns: u64,
    /// When it was opened.
    pub opened_ns: u64,
    /// Since when something is unused; 0: nothing is.
    pub unused_since_ns: u64,
    /// Until when it lingers.
    pub lingers_until_ns: u64,
    /// The earliest moment for which the server has noted a look at it.
    pub look_ns: u64,
}

impl Connection {
    /// A connection that has just arrived.
    pub fn new(
        arrival: Arrival,
        id: Id,
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
                peer_len: arrival.peer.len_bytes(),
                alpn_len: 0,
                alpn: std::ptr::null(),
                server_name: std::ptr::null(),
                server_name_len: 0,
                tls: 0,
            },
            arrival,
            id,
            listener,
            service,
            unused: Vec::new(),
            output: Output::default(),
            tls,
            readable: true,
            hung_up: false,
            broken: false,
            peer_ended: false,
            end_told: false,
            paused: false,
            full: false,
            stopped_by_full: false,
            watched: false,
            opened: false,
            ending: Ending::No,
            over: None,
            active_ns: now_ns,
            opened_ns: now_ns,
            unused_since_ns: 0,
            lingers_until_ns: 0,
            look_ns: u64::MAX,
        });
        connection.stream.peer = connection.arrival.peer.whole().as_ptr().cast();
        connection
    }

    /// Its socket.
    pub fn socket(&self) -> &OwnedFd {
        &self.arrival.socket
    }

    fn limits(&self) -> &StreamOptions {
        &self.service.options
    }

    /// Whether the handler may be given data now.
    #[inline]
    pub fn wants_data(&self) -> bool {
        !self.full
            && !self.paused
            && self.over.is_none()
            && matches!(self.ending, Ending::No | Ending::SendingSide | Ending::SendingSideEnded)
    }

    /// Whether both sides are still agreeing on how to encrypt.
    #[inline]
    pub fn is_agreeing(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_agreeing())
    }

    /// Goes on with that. True: they have agreed, and the handler can see on what.
    pub fn agree(&mut self, wire: &mut Vec<u8>) -> Result<bool, Errno> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        if !tls.agree(&self.arrival.socket, wire)? {
            return Ok(false);
        }
        let visible = |bytes: &[u8]| if bytes.is_empty() { (std::ptr::null(), 0) } else { (bytes.as_ptr(), bytes.len() as u32) };
        self.stream.tls = 1;
        (self.stream.alpn, self.stream.alpn_len) = visible(tls.alpn());
        (self.stream.server_name, self.stream.server_name_len) = visible(tls.server_name());
        Ok(true)
    }

    /// Reads what is there. A count of 0: the peer has finished. `wire`: room for what is encrypted.
    #[inline]
    pub fn receive(&mut self, buffer: &mut [u8], wire: &mut Vec<u8>) -> Result<Received, Errno> {
        if let Some(tls) = &mut self.tls {
            return tls.receive(&self.arrival.socket, buffer, wire);
        }
        let count = self.receive_raw(buffer)?;
        // Less than there was room for: it was all.
        Ok(Received { count, is_all: count < buffer.len() })
    }

    /// Reads what is there, as it is.
    #[inline]
    pub fn receive_raw(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        recv(self.socket().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
    }

    /// Sends what the kernel takes of `bytes`, when nothing is queued before them.
    #[inline]
    pub fn send_now(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let socket = &self.arrival.socket;
        let outcome = match &mut self.tls {
            None => Plain(socket).send(bytes, false),
            Some(tls) => tls.sink(socket).send_all(bytes),
        };
        match outcome {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            outcome => outcome,
        }
    }

    /// Sends what the kernel takes of the queue. True: nothing is left.
    pub fn drain(&mut self) -> Result<bool, Errno> {
        let socket = &self.arrival.socket;
        match &mut self.tls {
            None => self.output.drain(&mut Plain(socket)),
            Some(tls) => Ok(self.output.drain(&mut tls.sink(socket))? && tls.flush(socket)?),
        }
    }

    /// Whether the kernel has taken everything.
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.output.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.owes())
    }

    /// Changes whenever the kernel has taken something of the queue.
    pub fn progress(&self) -> (u64, u64) {
        (self.output.queued_bytes(), self.tls.as_ref().map_or(0, |tls| tls.written()))
    }

    /// How many bytes of a queue of `queued` have left since `before`, if there was any progress: what TLS owes may leave while the queue
    /// stays as it is.
    pub fn moved(&self, queued: u64, before: (u64, u64)) -> Option<u64> {
        (self.progress() != before).then(|| queued.saturating_sub(self.output.queued_bytes()))
    }

    /// Tells the peer that nothing follows, where that takes more than closing the socket. True: done.
    pub fn say_goodbye(&mut self) -> bool {
        self.tls.as_mut().is_none_or(|tls| tls.say_goodbye(&self.arrival.socket))
    }

    /// Ends this side.
    pub fn end_sending(&self) {
        // It fails when the peer has reset the connection, which reading will tell.
        let _ = shutdown(self.socket().as_raw_fd(), Shutdown::Write);
    }

    /// Closing the socket will reset the connection.
    pub fn reset_on_close(&mut self) {
        // Or what has been sent would pass for everything.
        if let Some(tls) = &mut self.tls {
            tls.be_silent();
        }
        // On a Unix socket there is no such thing.
        let _ = setsockopt(self.socket(), sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// When the next of its time limits strikes; `u64::MAX`: never.
    pub fn deadline_ns(&self) -> u64 {
        if self.ending == Ending::Lingering {
            return self.lingers_until_ns;
        }
        let after = |since_ns: u64, limit: std::time::Duration| match (since_ns, limit.as_nanos() as u64) {
            (0, _) | (_, 0) => u64::MAX,
            (since_ns, limit_ns) => since_ns.saturating_add(limit_ns),
        };
        if let (true, Some(options)) = (self.is_agreeing(), &self.service.tls) {
            return after(self.opened_ns, options.handshake_timeout);
        }
        let limits = self.limits();
        after(self.active_ns, limits.idle_timeout)
            .min(after(self.unused_since_ns, limits.read_timeout))
            .min(after(self.opened_ns, limits.total_timeout))
    }
}

/// A socket without anything in between.
struct Plain<'s>(&'s OwnedFd);

impl Sink for Plain<'_> {
    #[inline]
    fn send(&mut self, bytes: &[u8], more: bool) -> Result<usize, Errno> {
        accept::send(self.0.as_fd(), bytes, if more { SendHint::MoreFollows } else { SendHint::Complete })
    }

    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno> {
        let mut at = i64::try_from(*offset).map_err(|_| Errno::EINVAL)?;
        let sent = sendfile64(self.0, file, Some(&mut at), bytes.min(FILE_PIECE_BYTES) as usize)?;
        *offset = at as u64;
        Ok(sent)
    }
}
