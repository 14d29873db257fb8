//! TLS on a connection, between its socket and its handler.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits; never reports a truncated
//! connection as one that the peer has ended.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys::socket::accept::SendHint;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use nix::sys::uio::pread;
use rustls::ServerConnection;

use super::output::OutputSink;

/// Most encrypted bytes of one read. Decrypted they are not more, and must fit into the worker's
/// input buffer together with one earlier record.
pub const CIPHERTEXT_BYTES: usize = 32 << 10;
/// Less during a handshake: data that a client sends right after it must fit into the session.
const HANDSHAKE_READ_BYTES: usize = 8 << 10;
/// How much of a file is encrypted at once: three records of the largest size.
const FILE_PIECE_BYTES: usize = 48 << 10;

thread_local! {
    /// A piece of a file to encrypt. Allocated for the first file.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Boxed, so that a connection without TLS does not grow.
#[derive(Debug)]
pub struct Tls {
    session: ServerConnection,
    /// Encrypted bytes that the kernel has taken.
    written: u64,
    /// `close_notify` was sent, or is not to be sent.
    close_notify_done: bool,
    alpn: Vec<u8>,
    server_name: Vec<u8>,
}

/// The result of one read of a connection, with or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes for the handler. 0: the peer has finished.
    pub count: usize,
    /// The kernel had no more at that moment.
    pub is_all: bool,
}

impl Tls {
    pub fn new(mut session: ServerConnection) -> Box<Self> {
        // How much may be encrypted ahead of the kernel. The listener's limits count plain bytes.
        session.set_buffer_limit(Some(64 << 10));
        Box::new(Self { session, written: 0, close_notify_done: false, alpn: Vec::new(), server_name: Vec::new() })
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether encrypted bytes wait for the kernel to take them.
    pub fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Encrypted bytes that the kernel has taken until now.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The negotiated application protocol; empty: none.
    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// The host name that the client has sent; empty: none.
    pub fn server_name(&self) -> &[u8] {
        &self.server_name
    }

    /// Continues the handshake as far as possible. True: it is finished.
    pub fn handshake(&mut self, socket: &OwnedFd, ciphertext: &mut Vec<u8>) -> Result<bool, Errno> {
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
            let count = match read_socket(socket, ciphertext, HANDSHAKE_READ_BYTES) {
                Ok(0) => return Err(Errno::ECONNRESET),
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            };
            let mut rest = &ciphertext[..count];
            while !rest.is_empty() {
                self.feed(socket, &mut rest)?;
            }
        }
    }

    /// Reads and decrypts; see `CIPHERTEXT_BYTES` for the buffer's size. `EAGAIN`: no whole record.
    pub fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8], ciphertext: &mut Vec<u8>) -> Result<ReadOutcome, Errno> {
        loop {
            // Data that came with the end of the handshake, or the end of the session.
            match self.session.reader().read(buffer) {
                Ok(count) => return Ok(ReadOutcome { count, is_all: false }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Errno::ECONNRESET),
            }
            let taken = read_socket(socket, ciphertext, CIPHERTEXT_BYTES)?;
            if taken == 0 {
                // Without `close_notify`: an attacker may have cut the connection.
                return Err(Errno::ECONNRESET);
            }
            let (mut count, mut has_ended) = (0, false);
            let mut rest = &ciphertext[..taken];
            while !rest.is_empty() && !has_ended {
                self.feed(socket, &mut rest)?;
                // The session buffers little, so it is emptied after each record.
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
                return Ok(ReadOutcome { count, is_all: taken < CIPHERTEXT_BYTES && !has_ended });
            }
        }
    }

    /// Passes encrypted bytes to the session, and sends what it answers to them by itself.
    fn feed(&mut self, socket: &OwnedFd, bytes: &mut &[u8]) -> Result<(), Errno> {
        let before = bytes.len();
        self.session.read_tls(bytes).map_err(|error| broken("read_tls", &error))?;
        if bytes.len() == before {
            // After the end of the session: ignored.
            *bytes = &[];
        }
        if let Err(error) = self.session.process_new_packets() {
            // Sends the alert that tells the peer why.
            self.close_notify_done = true;
            let _ = self.flush(socket);
            return Err(broken("session", &error));
        }
        if self.session.wants_write() {
            self.flush(socket)?;
        }
        Ok(())
    }

    /// Sends the encrypted bytes. True: nothing is left.
    pub fn flush(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut CountingSocket { socket, written: &mut self.written }) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
            }
        }
        Ok(true)
    }

    /// Tells the peer that this is the end and not a cut. True: it is sent, or cannot be.
    pub fn send_close_notify(&mut self, socket: &OwnedFd) -> bool {
        if !self.close_notify_done && !self.session.is_handshaking() {
            self.session.send_close_notify();
        }
        self.close_notify_done = true;
        self.flush(socket).unwrap_or(true)
    }

    /// Never sends `close_notify`.
    pub fn omit_close_notify(&mut self) {
        self.close_notify_done = true;
    }

    pub fn sink<'s>(&'s mut self, socket: &'s OwnedFd) -> TlsSink<'s> {
        TlsSink { tls: self, socket }
    }
}

/// At debug level: the peer has caused it.
fn broken(what: &str, error: &dyn std::error::Error) -> Errno {
    tracing::debug!("a TLS session has failed: {what}: {error}");
    Errno::EPROTO
}

fn read_socket(socket: &OwnedFd, ciphertext: &mut Vec<u8>, most: usize) -> Result<usize, Errno> {
    if ciphertext.is_empty() {
        ciphertext.resize(CIPHERTEXT_BYTES, 0);
    }
    loop {
        match recv(socket.as_raw_fd(), &mut ciphertext[..most], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// The socket that the session writes to.
struct CountingSocket<'s> {
    socket: &'s OwnedFd,
    written: &'s mut u64,
}

impl Write for CountingSocket<'_> {
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

/// Encrypts. Takes nothing while older encrypted bytes wait for the kernel.
#[derive(Debug)]
pub struct TlsSink<'s> {
    tls: &'s mut Tls,
    socket: &'s OwnedFd,
}

impl TlsSink<'_> {
    fn encrypt(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let taken = self.tls.session.writer().write(bytes).map_err(|error| broken("write", &error))?;
        self.tls.flush(self.socket)?;
        Ok(taken)
    }

    /// Encrypts as much of `bytes` as the kernel takes, and not only as much as fits into the
    /// session: the kernel reports that it takes more only after it has refused some.
    pub fn send_all(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.send(&bytes[taken..], SendHint::Complete) {
                Ok(count) => taken += count,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }

    /// `EAGAIN`: it takes nothing now.
    fn check_free(&mut self) -> Result<(), Errno> {
        if !self.tls.session.is_handshaking() && self.tls.flush(self.socket)? { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

impl OutputSink for TlsSink<'_> {
    fn send(&mut self, bytes: &[u8], _: SendHint) -> Result<usize, Errno> {
        self.check_free()?;
        self.encrypt(bytes)
    }

    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno> {
        self.check_free()?;
        let at = i64::try_from(*offset).map_err(|_| Errno::EINVAL)?;
        PIECE.with_borrow_mut(|piece| {
            piece.resize(FILE_PIECE_BYTES, 0);
            let count = pread(file, &mut piece[..bytes.min(FILE_PIECE_BYTES as u64) as usize], at)?;
            let taken = if count == 0 { 0 } else { self.encrypt(&piece[..count])? };
            *offset += taken as u64;
            Ok(taken)
        })
    }
}
