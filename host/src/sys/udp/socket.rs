//! A bound datagram socket, and sending single datagrams from it.
//!
//! *Runs in:* made in main at `seal`; used in every process. *Never:* waits.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::buffers::MAX_DATAGRAM_BYTES;
use super::packet_info::ReplySource;
use crate::sys::socket::options::{IpVersions, ip_versions};
use crate::sys::socket::socket_address::{SocketAddress, mapped};

/// The kind of address that a socket is bound to. It decides what must be known about each
/// datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundTo {
    /// One internet address: every datagram was sent to it.
    OneAddress,
    AnyIpv4,
    AnyIpv6,
    /// Every address of both families.
    AnyAddress,
    Unix,
}

#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    /// The address that it is bound to, with the real port.
    pub name: SocketAddress,
    pub bound_to: BoundTo,
}

impl Socket {
    /// Takes a bound socket and asks the kernel about it.
    pub fn of(descriptor: OwnedFd) -> Result<Self, Errno> {
        let name = SocketAddress::of(descriptor.as_fd())?;
        let bound_to = match name.inet() {
            None => BoundTo::Unix,
            Some(address) if !address.ip().is_unspecified() => BoundTo::OneAddress,
            Some(SocketAddr::V4(_)) => BoundTo::AnyIpv4,
            Some(SocketAddr::V6(_)) => match ip_versions(&descriptor)? {
                IpVersions::V6Only => BoundTo::AnyIpv6,
                IpVersions::Both => BoundTo::AnyAddress,
            },
        };
        Ok(Self { descriptor, name, bound_to })
    }

    pub fn reaches(&self, peer: &SocketAddress) -> bool {
        match (peer.inet(), self.name.inet()) {
            (None, None) => peer.is_unix(),
            (Some(peer), Some(own)) => peer.is_ipv4() == own.is_ipv4() || self.bound_to == BoundTo::AnyAddress,
            _ => false,
        }
    }

    /// Sends one datagram at once, without waiting. It comes from the address `from`; without one,
    /// the kernel chooses.
    pub fn send(&self, from: Option<IpAddr>, peer: &SocketAddress, data: &[u8]) -> Result<(), Errno> {
        if data.len() > MAX_DATAGRAM_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let peer = match peer.inet() {
            Some(peer) if self.bound_to == BoundTo::AnyAddress => mapped(peer).into(),
            _ => *peer,
        };
        let mut control = ReplySource::NO_CONTROL;
        // SAFETY: all zeros is an empty header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        header.msg_name = peer.as_ptr().cast_mut();
        header.msg_namelen = peer.len_bytes().into();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if let Some(from) = from {
            let interface = peer.inet().map_or(0, |peer| if let SocketAddr::V6(v6) = peer { v6.scope_id() } else { 0 });
            header.msg_controllen = ReplySource::of(from, interface).write(&mut control);
            header.msg_control = control.as_mut_ptr().cast();
        }
        loop {
            // SAFETY: the header points to live buffers of the stated lengths; the kernel copies
            // them before it returns.
            let sent = unsafe { libc::sendmsg(self.descriptor.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
            match Errno::result(sent) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
