//! A link: a pair of connected sockets that keeps messages whole and carries descriptors.
//!
//! *Runs in:* supervisor and main, main and control, TCP main and the processes linked to it.
//! *Never:* waits for ever: the death of the other end is an end of file.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};

use crate::error::{Error, Result};

/// Maximum number of descriptors in one message.
pub const MAX_DESCRIPTORS: usize = 64;

/// Whether to wait for a message, or for room for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the call is done, or the other end is closed.
    Block,
    /// Not at all: `EAGAIN` instead.
    Poll,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

impl Link {
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(|errno| {
            Error::failed("cannot link two processes")
                .detail(format!("socketpair: {errno}"))
                .hint("raise the limit on open files (ulimit -n)")
        })?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Two connected ends whose kernel buffers take `bytes` in each direction, or as many as the
    /// system's limit allows.
    pub fn pair_with_buffers(bytes: usize) -> Result<(Self, Self)> {
        let (one, other) = Self::pair()?;
        for end in [&one, &other] {
            if setsockopt(&end.socket, sockopt::SndBufForce, &bytes).is_err() {
                // Without CAP_NET_ADMIN the kernel's own limit holds; fewer messages fit then.
                let _ = setsockopt(&end.socket, sockopt::SndBuf, &bytes);
            }
        }
        Ok((one, other))
    }

    /// Sends one message made of `parts`, with descriptors.
    ///
    /// # Errors
    /// `EAGAIN`: the link is full and `wait` is [`Wait::Poll`]. `EPIPE`: the other end is closed.
    pub fn send(&self, parts: &[IoSlice<'_>], descriptors: &[RawFd], wait: Wait) -> Result<(), Errno> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), parts, control, MsgFlags::MSG_NOSIGNAL | wait.flag(), None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives one message into `bytes` and appends its descriptors. Returns its length, 0 if the
    /// other end is closed.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there and `wait` is [`Wait::Poll`].
    pub fn receive(&self, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>, wait: Wait) -> Result<usize, Errno> {
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        loop {
            let mut parts = [IoSliceMut::new(bytes)];
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC | wait.flag()) {
                Ok(received) => {
                    for message in received.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(raw) = message {
                            // SAFETY: the kernel has just installed these descriptors for this
                            // process; nobody else owns them.
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
}

impl Wait {
    fn flag(self) -> MsgFlags {
        match self {
            Self::Block => MsgFlags::empty(),
            Self::Poll => MsgFlags::MSG_DONTWAIT,
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
