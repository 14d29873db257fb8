//! The encrypted side of a connection: what stands between its socket and what the handler sees.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits; never takes a connection that was cut off for one that has ended.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use nix::sys::uio::pread;
use rustls::ServerConnection;

use super::output::Sink;

/// One read takes at most this from the kernel. What it holds decrypted is never more, and must fit into the input of the worker beside
/// one record that came before.
pub const WIRE_BYTES: usize = 32 << 10;
/// During a handshake less: what a hasty client sends behind it must fit into the session.
const HANDSHAKE_READ_BYTES: usize = 8 << 10;
/// A piece of a file that is encrypted at once: three records of the largest size.
const FILE_PIECE_BYTES: usize = 48 << 10;

thread_local! {
    /// A piece of a file on its way; has memory from the first file on.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The state of a connection with TLS. Boxed, so that one without does not grow.
#[derive(Debug)]
pub struct Tls {
    session: ServerConnection,
    /// Bytes that the kernel has taken.
    written: u64,
    /// The peer was told that nothing follows, or is not to be told.
    goodbye_said: bool,
    alpn: Vec<u8>,
    server_name: Vec<u8>,
}

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes for the handler. 0: the peer has finished.
    pub count: usize,
    /// The kernel had no more at that moment.
    pub is_all: bool,
}

impl Tls {
    /// The server's side of a session that begins.
    pub fn new(mut session: ServerConnection) -> Box<Self> {
        // The listener's limits are for plain bytes; this is how much of them may be encrypted ahead.
        session.set_buffer_limit(Some(64 << 10));
        Box::new(Self { session, written: 0, goodbye_said: false, alpn: Vec::new(), server_name: Vec::new() })
    }

    /// Whether the handshake is not finished.
    pub fn is_agreeing(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether something encrypted waits for the kernel to take it.
    pub fn owes(&self) -> bool {
        self.session.wants_write()
    }

    /// Bytes that the kernel has taken until now.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The application protocol that was agreed on; empty: none.
    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// The host name that the client asked for; empty: none.
    pub fn server_name(&self) -> &[u8] {
        &self.server_name
    }

    /// Goes on with the handshake as far as possible. True: it is finished.
    pub fn agree(&mut self, socket: &OwnedFd, wire: &mut Vec<u8>) -> Result<bool, Errno> {
        loop {
            let sent = self.flush(socket)?;
            if !self.session.is_handshaking() {
                self.alpn = self.session.alpn_protocol().unwrap_or_default().to_vec();
                self.server_name = self.session.server_name().unwrap_or_default().as_bytes().to_vec();
                return Ok(true);
            }
            if !sent {
                return Ok(false);
            }
            let count = match take_from(socket, wire, HANDSHAKE_READ_BYTES) {
                Ok(0) => return Err(Errno::ECONNRESET),
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            };
            let mut rest = &wire[..count];
            while !rest.is_empty() {
                self.feed(socket, &mut rest)?;
            }
        }
    }

    /// Reads and decrypts what is there, into `buffer`, which has room for what `WIRE_BYTES` says. `EAGAIN`: nothing whole is there.
    pub fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8], wire: &mut Vec<u8>) -> Result<Received, Errno> {
        loop {
            // What came with the end of the handshake, or the end of everything.
            match self.session.reader().read(buffer) {
                Ok(count) => return Ok(Received { count, is_all: false }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Errno::ECONNRESET),
            }
            let taken = take_from(socket, wire, WIRE_BYTES)?;
            if taken == 0 {
                // Without a word: somebody else may have cut it off.
                return Err(Errno::ECONNRESET);
            }
            let (mut count, mut has_ended) = (0, false);
            let mut rest = &wire[..taken];
            while !rest.is_empty() && !has_ended {
                self.feed(socket, &mut rest)?;
                // The session keeps little, so it is emptied each time.
                loop {
                    match self.session.reader().read(&mut buffer[count..]) {
                        Ok(0) => has_ended = true,
                        Ok(more) => {
                            count += more;
                            continue;
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return Err(Errno::ECONNRESET),
                    }
                    break;
                }
            }
            if count > 0 {
                return Ok(Received { count, is_all: taken < WIRE_BYTES && !has_ended });
            }
        }
    }

    /// Gives the session encrypted bytes, and sends what it answers to them by itself.
    fn feed(&mut self, socket: &OwnedFd, bytes: &mut &[u8]) -> Result<(), Errno> {
        let before = bytes.len();
        self.session.read_tls(bytes).map_err(|error| broken("read_tls", &error))?;
        if bytes.len() == before {
            // Behind the end of the session; of no interest.
            *bytes = &[];
        }
        if let Err(error) = self.session.process_new_packets() {
            // The peer gets to know why, if it still listens.
            self.goodbye_said = true;
            let _ = self.flush(socket);
            return Err(broken("session", &error));
        }
        if self.session.wants_write() {
            self.flush(socket)?;
        }
        Ok(())
    }

    /// Sends what is encrypted. True: nothing is left.
    pub fn flush(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire { socket, written: &mut self.written }) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
            }
        }
        Ok(true)
    }

    /// Tells the peer that nothing follows. True: that is sent, or cannot be.
    pub fn say_goodbye(&mut self, socket: &OwnedFd) -> bool {
        if !self.goodbye_said && !self.session.is_handshaking() {
            self.session.send_close_notify();
        }
        self.goodbye_said = true;
        self.flush(socket).unwrap_or(true)
    }

    /// The peer is not told anything any more.
    pub fn be_silent(&mut self) {
        self.goodbye_said = true;
    }

    /// The way for what is queued.
    pub fn sink<'s>(&'s mut self, socket: &'s OwnedFd) -> TlsSink<'s> {
        TlsSink { tls: self, socket }
    }
}

/// Logs what a peer has done; nothing of ours has failed.
fn broken(what: &str, error: &dyn std::error::Error) -> Errno {
    tracing::debug!("a TLS session has failed: {what}: {error}");
    Errno::EPROTO
}

fn take_from(socket: &OwnedFd, wire: &mut Vec<u8>, most: usize) -> Result<usize, Errno> {
    if wire.is_empty() {
        wire.resize(WIRE_BYTES, 0);
    }
    loop {
        match recv(socket.as_raw_fd(), &mut wire[..most], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// The socket as the session sees it.
struct Wire<'s> {
    socket: &'s OwnedFd,
    written: &'s mut u64,
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), parts, &[], flags, None).map_err(io::Error::from)?;
        *self.written += sent as u64;
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encrypts what it is given; takes nothing while something older waits for the kernel.
#[derive(Debug)]
pub struct TlsSink<'s> {
    tls: &'s mut Tls,
    socket: &'s OwnedFd,
}

impl TlsSink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let taken = self.tls.session.writer().write(bytes).map_err(|error| broken("write", &error))?;
        self.tls.flush(self.socket)?;
        Ok(taken)
    }

    /// Encrypts as much of `bytes` as the kernel takes, whatever fits into the session at a time: after less, the kernel tells when it
    /// takes more.
    pub fn send_all(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.send(&bytes[taken..], false) {
                Ok(count) => taken += count,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }

    fn is_free(&mut self) -> Result<(), Errno> {
        if !self.tls.session.is_handshaking() && self.tls.flush(self.socket)? { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

impl Sink for TlsSink<'_> {
    fn send(&mut self, bytes: &[u8], _more: bool) -> Result<usize, Errno> {
        self.is_free()?;
        self.take(bytes)
    }

    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno> {
        self.is_free()?;
        let at = i64::try_from(*offset).map_err(|_| Errno::EINVAL)?;
        PIECE.with_borrow_mut(|piece| {
            piece.resize(FILE_PIECE_BYTES, 0);
            let count = pread(file, &mut piece[..bytes.min(FILE_PIECE_BYTES as u64) as usize], at)?;
            let taken = if count == 0 { 0 } else { self.take(&piece[..count])? };
            *offset += taken as u64;
            Ok(taken)
        })
    }
}
