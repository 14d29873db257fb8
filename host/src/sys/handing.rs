//! Messages with any number of descriptors over a pair of connected sockets.
//!
//! *Runs in:* TCP main, TCP workers, processes with a link. *Never:* blocks; who wants to wait polls the socket first.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};

use crate::error::{Error, Result};

/// Most descriptors of one message.
pub const MAX_DESCRIPTORS: usize = 64;

/// Asked of the kernel for each direction: a few of the longest messages.
const BUFFER_BYTES: usize = 1 << 20;

/// Two connected ends. A message arrives whole or not at all.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
        .map_err(|errno| {
            Error::failed("cannot link two processes")
                .detail(format!("socketpair: {errno}"))
                .hint("raise the limit on open files (ulimit -n)")
        })?;
    for end in [&one, &other] {
        if setsockopt(end, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
            // The kernel's own limit; fewer messages wait in the link then.
            let _ = setsockopt(end, sockopt::SndBuf, &BUFFER_BYTES);
        }
    }
    Ok((one, other))
}

/// Sends one message. `EAGAIN`: the link is full.
pub fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], descriptors: &[RawFd]) -> Result<(), Errno> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), parts, control, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one message; its length, and its descriptors appended to `descriptors`. 0: the other end is closed. `EAGAIN`: nothing is there.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT) {
            Ok(received) => {
                for message in received.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(raw) = message {
                        // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
                        descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
                    }
                }
                return Ok(received.bytes);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
