//! A pair of connected sockets for fixed-size messages that can carry one descriptor each.
//!
//! *Runs in:* supervisor, main, control. *Never:* blocks for ever: the other end's death is an end of file.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};

use crate::error::{Error, Result};

/// Size of every message in bytes.
pub const MESSAGE_BYTES: usize = 4096;

/// One end of the pair.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// What `receive` saw.
#[derive(Debug)]
pub enum Received {
    /// A whole message, and the descriptor that came with it.
    Message(Box<[u8; MESSAGE_BYTES]>, Option<OwnedFd>),
    /// Nothing is there now (only when asked not to wait).
    Nothing,
    /// The other end is gone.
    Closed,
}

/// Whether to wait for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until a message or the end arrives.
    Block,
    /// Not at all.
    Poll,
}

impl Link {
    /// Two ends that talk to each other.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(|errno| {
            Error::failed("cannot link two processes")
                .detail(format!("socketpair: {errno}"))
                .hint("raise the limit on open files (ulimit -n)")
        })?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Sends one message.
    pub fn send(&self, message: &[u8; MESSAGE_BYTES], descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
        let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &[ControlMessage::ScmRights(&descriptors)] };
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::failed("cannot send to another process of this host").detail(format!("sendmsg: {errno}")));
                }
            }
        }
    }

    /// Receives one message.
    pub fn receive(&self, wait: Wait) -> Result<Received> {
        let mut bytes = Box::new([0_u8; MESSAGE_BYTES]);
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | if wait == Wait::Poll { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        loop {
            let mut parts = [IoSliceMut::new(&mut bytes[..])];
            let (length, descriptor) = match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(received) => {
                    let mut descriptor = None;
                    for message in received.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(raw) = message {
                            for raw in raw {
                                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
                                descriptor = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                            }
                        }
                    }
                    (received.bytes, descriptor)
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(errno) => {
                    return Err(Error::failed("cannot receive from another process of this host").detail(format!("recvmsg: {errno}")));
                }
            };
            return Ok(match length {
                0 => Received::Closed,
                MESSAGE_BYTES => Received::Message(bytes, descriptor),
                other => {
                    return Err(Error::fault("a message between processes has the wrong size").detail(format!("{other} bytes")));
                }
            });
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
