//! Accepting connections, and sending on them.
//!
//! *Runs in:* TCP main, TCP workers, main in no-fork mode. *Never:* blocks.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// The address of a connection's peer, as the kernel writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Peer {
    bytes: [u8; Self::MAX_BYTES],
    len: u32,
}

impl Peer {
    /// Size of the longest internet address; of a Unix address only the family is kept.
    pub const MAX_BYTES: usize = 28;

    /// Takes the first `len` of `bytes`.
    pub fn new(bytes: &[u8], len: u32) -> Self {
        let mut peer = Self { bytes: [0; Self::MAX_BYTES], len: len.min(Self::MAX_BYTES as u32) };
        let count = bytes.len().min(Self::MAX_BYTES);
        peer.bytes[..count].copy_from_slice(&bytes[..count]);
        peer
    }

    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The address, padded to the maximum.
    pub fn whole(&self) -> &[u8; Self::MAX_BYTES] {
        &self.bytes
    }

    pub fn len_bytes(&self) -> u32 {
        self.len
    }

    /// The address without its port, by which limits per address count. None for a Unix socket.
    pub fn host(&self) -> Option<&[u8]> {
        match i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]])) {
            libc::AF_INET if self.len >= 8 => Some(&self.bytes[4..8]),
            libc::AF_INET6 if self.len >= 24 => Some(&self.bytes[8..24]),
            _ => None,
        }
    }
}

/// Accepts one connection, which is non-blocking. `EAGAIN`: none is waiting.
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
                // For an address that was cut the kernel reports the full length.
                peer.len = len.min(Peer::MAX_BYTES as u32);
                // SAFETY: the kernel has just made this descriptor; nobody else owns it.
                return Ok((unsafe { OwnedFd::from_raw_fd(raw) }, peer));
            }
            // This peer has gone already; another connection may wait.
            Err(Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the caller sends more on the same connection at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendHint {
    /// It does, so the kernel need not send a short packet now.
    MoreFollows,
    Complete,
}

/// Sends the beginning of `bytes` on a connection. Returns how many bytes the kernel took.
#[inline]
pub fn send(connection: BorrowedFd<'_>, bytes: &[u8], hint: SendHint) -> Result<usize, Errno> {
    let more = if hint == SendHint::MoreFollows { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | more;
    // SAFETY: the slice is readable for its length.
    let sent = unsafe { libc::send(connection.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    Errno::result(sent).map(|sent| sent as usize)
}
