//! Making datagram sockets: the options that must be set before they are bound, and those that are set behind it.
//!
//! *Runs in:* the supervisor; main in no-fork mode. *Never:* decides what happens when an option is refused.

use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, getsockopt, setsockopt, socket, sockopt};

use crate::sys::socket::socket_address::SocketAddress;

/// Not in the libc crate for every target.
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_FREEBIND: i32 = 78;
const SO_PREFER_BUSY_POLL: i32 = 69;

/// A new datagram socket of the address's family.
pub fn datagram_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// A new socket for connections, of the address's family. An address that connections of a predecessor still occupy can be bound; what is
/// sent on its connections leaves at once.
pub fn stream_socket(address: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    Ok(socket)
}

/// A new socket for connections of the Unix family.
pub fn unix_stream_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Takes connections into its queue from now on, as many as the system allows (`net.core.somaxconn`).
pub fn listen(socket: &OwnedFd) -> Result<(), Errno> {
    nix::sys::socket::listen(socket, nix::sys::socket::Backlog::MAXALLOWABLE)
}

/// As `probe_unix`, for connections.
pub fn probe_unix_stream(name: &SocketAddress) -> Result<(), Errno> {
    connect_unix(&unix_stream_socket()?, name)
}

/// A new datagram socket of the Unix family.
pub fn unix_datagram_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// Binds a socket of the internet.
pub fn bind_inet(socket: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(address))
}

/// Lets an IPv6 socket be bound to an address that is not usable yet.
pub fn set_freebind(socket: &OwnedFd) -> Result<(), Errno> {
    set(socket.as_fd(), libc::IPPROTO_IPV6, IPV6_FREEBIND, &1_i32)
}

/// Binds a Unix socket.
pub fn bind_unix(socket: &OwnedFd, name: &SocketAddress) -> Result<(), Errno> {
    // SAFETY: the name has as many readable bytes.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), name.as_ptr().cast(), u32::from(name.len_bytes())) };
    Errno::result(outcome).map(drop)
}

/// Whether a Unix datagram socket of that name is bound: `ECONNREFUSED` if a file is all that is left of one.
pub fn probe_unix(name: &SocketAddress) -> Result<(), Errno> {
    connect_unix(&unix_datagram_socket()?, name)
}

fn connect_unix(socket: &OwnedFd, name: &SocketAddress) -> Result<(), Errno> {
    // SAFETY: the name has as many readable bytes.
    let outcome = unsafe { libc::connect(socket.as_raw_fd(), name.as_ptr().cast(), u32::from(name.len_bytes())) };
    Errno::result(outcome).map(drop)
}

/// Whether an IPv6 socket leaves IPv4 alone.
pub fn set_v6only(socket: &OwnedFd, v6only: bool) -> Result<(), Errno> {
    setsockopt(socket, sockopt::Ipv6V6Only, &v6only)
}

/// As `set_v6only` has it.
pub fn v6only(socket: &impl AsFd) -> Result<bool, Errno> {
    getsockopt(socket, sockopt::Ipv6V6Only)
}

/// Takes only what comes in at that interface.
pub fn set_interface(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    setsockopt(socket, sockopt::BindToDevice, &name.into())
}

/// Asks the kernel to say with each datagram where it was sent to: both families for an IPv6 socket that serves both.
pub fn set_packet_info(socket: &OwnedFd, address: &SocketAddr, v6only: bool) -> Result<(), Errno> {
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    if address.is_ipv4() || !v6only { setsockopt(socket, sockopt::Ipv4PacketInfo, &true) } else { Ok(()) }
}

/// Joins a group at the interface of that number; 0: the kernel chooses.
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

/// Takes datagrams of the groups that this socket has joined, not of those that others on the machine have.
pub fn set_own_groups_only(socket: &OwnedFd, address: &SocketAddr, v6only: bool) -> Result<(), Errno> {
    if address.is_ipv6() {
        set(socket.as_fd(), libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &0_i32)?;
    }
    if address.is_ipv4() || !v6only { set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32) } else { Ok(()) }
}

/// Lets a process that waits at this socket ask the network device in a loop for so long. Two options; the second may be unknown to the
/// kernel.
pub fn set_busy_poll(socket: &OwnedFd, microseconds: u32) -> Result<(), Errno> {
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds.cast_signed())?;
    match set(socket.as_fd(), libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1_i32) {
        Err(Errno::ENOPROTOOPT) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Asks for a receive buffer of that size, past the system's limit if this process may. Returns what the kernel gave.
pub fn set_receive_buffer(socket: &OwnedFd, bytes: usize) -> Result<usize, Errno> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    // The kernel counts its own needs, as much again.
    getsockopt(socket, sockopt::RcvBuf).map(|doubled| doubled / 2)
}

/// The same for the send buffer.
pub fn set_send_buffer(socket: &OwnedFd, bytes: usize) -> Result<usize, Errno> {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::SndBuf, &bytes)?;
    }
    getsockopt(socket, sockopt::SndBuf).map(|doubled| doubled / 2)
}

fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> Result<(), Errno> {
    // SAFETY: the value is plain data of the size that is passed with it; the kernel reads it and keeps nothing.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t) };
    Errno::result(outcome).map(drop)
}
