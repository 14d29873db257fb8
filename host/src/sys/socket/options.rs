//! Making, binding and configuring sockets.
//!
//! *Runs in:* the supervisor; main in no-fork mode. *Never:* decides what happens when an option is
//! refused.

use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, getsockopt, setsockopt, socket, sockopt};

use crate::sys::socket::socket_address::SocketAddress;

// Not in the libc crate for every target.
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_FREEBIND: i32 = 78;
const SO_PREFER_BUSY_POLL: i32 = 69;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersions {
    V6Only,
    Both,
}

impl IpVersions {
    /// Whether a socket bound to that address gets IPv4 datagrams.
    fn include_ipv4(self, address: &SocketAddr) -> bool {
        address.is_ipv4() || self == Self::Both
    }
}

pub fn datagram_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    socket(family(address), SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// A new stream socket of the address's family. It can be bound to an address that connections of a
/// predecessor still occupy. Its connections send small packets at once.
pub fn stream_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket(family(address), SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    Ok(socket)
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub fn unix_stream_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

pub fn unix_datagram_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// Takes connections into the backlog from now on, as many as the system allows
/// (`net.core.somaxconn`).
pub fn listen(socket: &OwnedFd) -> Result<(), Errno> {
    nix::sys::socket::listen(socket, nix::sys::socket::Backlog::MAXALLOWABLE)
}

pub fn bind_inet(socket: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(address))
}

pub fn bind_unix(socket: &OwnedFd, name: &SocketAddress) -> Result<(), Errno> {
    // SAFETY: the name has as many readable bytes.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), name.as_ptr().cast(), u32::from(name.len_bytes())) };
    Errno::result(outcome).map(drop)
}

/// Whether a Unix datagram socket of that name is bound. `ECONNREFUSED`: only its file is left.
pub fn probe_unix(name: &SocketAddress) -> Result<(), Errno> {
    connect_unix(&unix_datagram_socket()?, name)
}

/// As `probe_unix`, for stream sockets.
pub fn probe_unix_stream(name: &SocketAddress) -> Result<(), Errno> {
    connect_unix(&unix_stream_socket()?, name)
}

fn connect_unix(socket: &OwnedFd, name: &SocketAddress) -> Result<(), Errno> {
    // SAFETY: the name has as many readable bytes.
    let outcome = unsafe { libc::connect(socket.as_raw_fd(), name.as_ptr().cast(), u32::from(name.len_bytes())) };
    Errno::result(outcome).map(drop)
}

/// Lets an IPv6 socket be bound to an address that is not usable yet.
pub fn set_freebind(socket: &OwnedFd) -> Result<(), Errno> {
    set(socket.as_fd(), libc::IPPROTO_IPV6, IPV6_FREEBIND, &1_i32)
}

/// Sets the IP versions of an IPv6 socket, before it is bound.
pub fn set_ip_versions(socket: &OwnedFd, versions: IpVersions) -> Result<(), Errno> {
    setsockopt(socket, sockopt::Ipv6V6Only, &(versions == IpVersions::V6Only))
}

pub fn ip_versions(socket: &impl AsFd) -> Result<IpVersions, Errno> {
    getsockopt(socket, sockopt::Ipv6V6Only).map(|v6only| if v6only { IpVersions::V6Only } else { IpVersions::Both })
}

/// Takes only traffic that arrives at that interface.
pub fn set_interface(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    setsockopt(socket, sockopt::BindToDevice, &name.into())
}

/// Asks the kernel to report, with each datagram, the address that it was sent to.
pub fn set_packet_info(socket: &OwnedFd, address: &SocketAddr, versions: IpVersions) -> Result<(), Errno> {
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    if versions.include_ipv4(address) { setsockopt(socket, sockopt::Ipv4PacketInfo, &true) } else { Ok(()) }
}

/// Joins a multicast group at an interface. With number 0 the kernel chooses the interface.
pub fn join(socket: &OwnedFd, group: IpAddr, interface: u32) -> Result<(), Errno> {
    match group {
        IpAddr::V4(group) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: interface.cast_signed(),
            };
            set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)
        }
        IpAddr::V6(group) => {
            let address = libc::in6_addr { s6_addr: group.octets() };
            let request = libc::ipv6_mreq { ipv6mr_multiaddr: address, ipv6mr_interface: interface };
            set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
        }
    }
}

/// Takes datagrams of the groups that this socket has joined, not those of other sockets' groups.
pub fn set_own_groups_only(socket: &OwnedFd, address: &SocketAddr, versions: IpVersions) -> Result<(), Errno> {
    if address.is_ipv6() {
        set(socket.as_fd(), libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &0_i32)?;
    }
    if versions.include_ipv4(address) { set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32) } else { Ok(()) }
}

/// Lets a process that waits at this socket poll the network device for that long. Sets two
/// options; older kernels do not know the second.
pub fn set_busy_poll(socket: &OwnedFd, microseconds: u32) -> Result<(), Errno> {
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds.cast_signed())?;
    match set(socket.as_fd(), libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1_i32) {
        Err(Errno::ENOPROTOOPT) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Asks for a receive buffer of that size, past the system's limit if this process may. Returns the
/// size that the kernel granted.
pub fn set_receive_buffer(socket: &OwnedFd, bytes: usize) -> Result<usize, Errno> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    // The kernel doubles the size, for its own overhead.
    getsockopt(socket, sockopt::RcvBuf).map(|doubled| doubled / 2)
}

/// As `set_receive_buffer`, for the send buffer.
pub fn set_send_buffer(socket: &OwnedFd, bytes: usize) -> Result<usize, Errno> {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::SndBuf, &bytes)?;
    }
    getsockopt(socket, sockopt::SndBuf).map(|doubled| doubled / 2)
}

fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> Result<(), Errno> {
    // SAFETY: the value is plain data of the size that is passed with it; the kernel reads it and
    // keeps no pointer to it.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t) };
    Errno::result(outcome).map(drop)
}

/// Lets `close` reset the connection instead of ending it in order. Fails for a Unix socket.
pub fn set_reset_on_close(socket: &OwnedFd) -> Result<(), Errno> {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })
}
