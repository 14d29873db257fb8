//! Accepting connections, and sending on them.
//!
//! *Runs in:* TCP main, TCP workers, main in no-fork mode. *Never:* blocks.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// The address at the other end of a connection, as the kernel writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Peer {
    bytes: [u8; Self::MAX_BYTES],
    len: u32,
}

impl Peer {
    /// Room for an internet address; of a Unix address only the family is kept.
    pub const MAX_BYTES: usize = 28;

    /// From bytes; `len` of them count.
    pub fn new(bytes: &[u8], len: u32) -> Self {
        let mut peer = Self { bytes: [0; Self::MAX_BYTES], len: len.min(Self::MAX_BYTES as u32) };
        let count = bytes.len().min(Self::MAX_BYTES);
        peer.bytes[..count].copy_from_slice(&bytes[..count]);
        peer
    }

    /// The address.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The address and what follows it.
    pub fn whole(&self) -> &[u8; Self::MAX_BYTES] {
        &self.bytes
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> u32 {
        self.len
    }

    /// What limits per address count: the address without its port. None for a Unix socket.
    pub fn host(&self) -> Option<&[u8]> {
        match i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]])) {
            libc::AF_INET if self.len >= 8 => Some(&self.bytes[4..8]),
            libc::AF_INET6 if self.len >= 24 => Some(&self.bytes[8..24]),
            _ => None,
        }
    }
}

/// Takes one connection from a listening socket, non-blocking. `EAGAIN`: none is waiting.
pub fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Peer), Errno> {
    let mut peer = Peer { bytes: [0; Peer::MAX_BYTES], len: 0 };
    let mut len = Peer::MAX_BYTES as libc::socklen_t;
    loop {
        // SAFETY: `bytes` has room for `len` bytes, and is aligned for any socket address.
        let raw = unsafe {
            libc::accept4(listener.as_raw_fd(), peer.bytes.as_mut_ptr().cast(), &raw mut len, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
        };
        match Errno::result(raw) {
            Ok(raw) => {
                // The length of a longer address that was cut is the length it would have.
                peer.len = len.min(Peer::MAX_BYTES as u32);
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                return Ok((unsafe { OwnedFd::from_raw_fd(raw) }, peer));
            }
            // The peer has gone already; the next one may be there.
            Err(Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends the beginning of `bytes` on a connection. `more`: something else follows at once, so that the kernel need not send a short packet.
#[inline]
pub fn send(connection: BorrowedFd<'_>, bytes: &[u8], more: bool) -> Result<usize, Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: the slice is readable for its length.
    let sent = unsafe { libc::send(connection.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    Errno::result(sent).map(|sent| sent as usize)
}
