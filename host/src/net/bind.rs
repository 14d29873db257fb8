//! Binding: addresses become sockets.
//!
//! *Runs in:* the supervisor, on main's request, with the starting identity; main in no-fork mode.
//! *Never:* parses text from main.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{FchownatFlags, fchownat};

use super::address::{Address, InetBind, UnixBind, kernel_name};
use crate::config::{SocketOptions, UnixName};
use crate::error::{Error, Result, io_text};
use crate::sys::socket::interfaces;
use crate::sys::socket::options;
use crate::sys::socket::socket_address::SocketAddress;

/// Default for datagram sockets: a burst waits in the buffer while the workers are busy.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Whoever can write to the control socket can stop the host: only the starting user and root.
const CONTROL_MODE: u32 = 0o600;

pub fn bind(address: &Address) -> Result<OwnedFd> {
    match address {
        Address::Udp(bind) => inet(SocketKind::Datagrams, bind),
        Address::Tcp(bind) => inet(SocketKind::Connections, bind),
        Address::Unixgram(bind) => unix(SocketKind::Datagrams, bind, &format!("cannot listen on unixgram {}", bind.name)),
        Address::Unix(bind) => unix(SocketKind::Connections, bind, &format!("cannot listen on unix {}", bind.name)),
        Address::Control(path) => {
            let options = SocketOptions { mode: CONTROL_MODE, ..SocketOptions::default() };
            let bind = UnixBind { name: UnixName::Path(path.clone()), options, owner: None, group: None };
            unix(SocketKind::Connections, &bind, &format!("cannot make the control socket {}", path.display()))
        }
    }
}

/// Removes the file of a socket, if it has one.
pub fn unbind(address: &Address) {
    match address {
        Address::Control(path) => remove_file(path),
        Address::Unixgram(bind) | Address::Unix(bind) => {
            if let UnixName::Path(path) = &bind.name {
                remove_file(path);
            }
        }
        Address::Udp(_) | Address::Tcp(_) => {}
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("cannot remove the socket {}: {error}", path.display());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketKind {
    Datagrams,
    Connections,
}

impl SocketKind {
    /// Connections inherit the listening socket's buffers; there the kernel's choice is best.
    fn receive_buffer_default(self) -> Option<usize> {
        (self == Self::Datagrams).then_some(RECEIVE_BUFFER_BYTES)
    }
}

fn failed(what: &str, call: &str, errno: Errno) -> Error {
    Error::failed(what).detail(format!("{call}: {}", io_text(&errno.into())))
}

fn inet(kind: SocketKind, bind: &InetBind) -> Result<OwnedFd> {
    let InetBind { address, options: wanted } = bind;
    let (scheme, make): (_, fn(&SocketAddr) -> _) = match kind {
        SocketKind::Datagrams => ("udp", options::datagram_socket),
        SocketKind::Connections => ("tcp", options::stream_socket),
    };
    let versions = bind.ip_versions();
    let listener = format!("{scheme} {address}");
    let what = format!("cannot listen on {listener}");
    let socket = make(address).map_err(|errno| {
        let error = failed(&what, "socket", errno);
        if errno == Errno::EAFNOSUPPORT { error.hint("this machine has no IPv6") } else { error }
    })?;
    if address.is_ipv6() {
        options::set_ip_versions(&socket, versions).map_err(|errno| failed(&what, "IPV6_V6ONLY", errno))?;
    }
    if let Some(interface) = &wanted.interface {
        options::set_interface(&socket, interface).map_err(|errno| match (errno, interfaces::number(interface)) {
            // This error also lists the interfaces that exist.
            (Errno::ENODEV, Err(unknown)) => Error::failed(&what).detail(unknown.what).hint(unknown.hint),
            (Errno::EPERM, _) => failed(&what, "SO_BINDTODEVICE", errno).hint("\"interface\" needs root or CAP_NET_RAW on this kernel"),
            _ => failed(&what, "SO_BINDTODEVICE", errno),
        })?;
    }
    if kind == SocketKind::Datagrams && address.ip().is_unspecified() {
        // Only such a socket has several local addresses: an answer leaves from the one that was
        // asked.
        options::set_packet_info(&socket, address, versions).map_err(|errno| failed(&what, "IP_PKTINFO", errno))?;
    }
    set_buffers(&socket, wanted, kind, &listener);
    if let Some(time) = wanted.busy_poll
        && let Err(errno) = options::set_busy_poll(&socket, u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
    {
        tracing::warn!("busy polling is off listener=\"{listener}\": SO_BUSY_POLL: {errno} (hint: it needs root or CAP_NET_ADMIN)");
    }
    bind_inet(&socket, kind, *address, &what)?;
    match kind {
        SocketKind::Datagrams => join(&socket, bind)?,
        SocketKind::Connections => listen(&socket, &what)?,
    }
    Ok(socket)
}

fn bind_inet(socket: &OwnedFd, kind: SocketKind, address: SocketAddr, what: &str) -> Result<()> {
    let mut bound = options::bind_inet(socket, address);
    if bound == Err(Errno::EADDRNOTAVAIL) && address.is_ipv6() && interfaces::has_address(address.ip()) {
        // Just assigned: for a second or two the kernel checks that no other machine has it.
        bound = options::set_freebind(socket).and_then(|()| options::bind_inet(socket, address));
    }
    bound.map_err(|errno| {
        let error = failed(what, "bind", errno);
        match (errno, kind) {
            (Errno::EADDRINUSE, _) => {
                let protocol = if kind == SocketKind::Datagrams { 'u' } else { 't' };
                error.hint(format!("another program has it; see \"ss -l{protocol}np sport = :{}\"", address.port()))
            }
            (Errno::EADDRNOTAVAIL, _) => error.hint("no interface of this machine has that address"),
            (Errno::EINVAL, SocketKind::Datagrams) if address.is_ipv6() => {
                error.hint("a link-local address needs its interface: \"[fe80::1%eth0]:5060\"")
            }
            (Errno::EINVAL, SocketKind::Connections) if address.is_ipv6() => {
                error.hint("a link-local address needs the number of its interface, which \"ip link\" shows: \"[fe80::1%2]:80\"")
            }
            (Errno::EACCES | Errno::EPERM, _) => error.hint("ports below 1024 need root or CAP_NET_BIND_SERVICE"),
            _ => error,
        }
    })
}

fn join(socket: &OwnedFd, bind: &InetBind) -> Result<()> {
    let (address, versions) = (&bind.address, bind.ip_versions());
    if bind.groups().next().is_some()
        && let Err(errno) = options::set_own_groups_only(socket, address, versions)
    {
        tracing::debug!("datagrams of other programs' groups may arrive listener=\"udp {address}\": IP_MULTICAST_ALL: {errno}");
    }
    for group in bind.groups() {
        let number = group.interface.as_deref().map(interfaces::number).transpose()?.unwrap_or(0);
        options::join(socket, group.ip, number).map_err(|errno| {
            let error = failed(&format!("cannot join the multicast group {group} for udp {address}"), "setsockopt", errno);
            match errno {
                Errno::ENODEV if group.interface.is_none() => {
                    error.hint(format!("no route leads there; name the interface: \"{}%eth0\"", group.ip))
                }
                Errno::ENOBUFS => error.hint("raise net.ipv4.igmp_max_memberships or net.ipv6.mld_max_msf"),
                Errno::EADDRINUSE => error.hint("it is in the list twice"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

fn set_buffers(socket: &OwnedFd, wanted: &SocketOptions, kind: SocketKind, listener: &str) {
    type Set = fn(&OwnedFd, usize) -> Result<usize, Errno>;
    let rows: [(_, _, _, _, Set); 2] = [
        ("receive", "net.core.rmem_max", wanted.receive_buffer_bytes, kind.receive_buffer_default(), options::set_receive_buffer),
        ("send", "net.core.wmem_max", wanted.send_buffer_bytes, None, options::set_send_buffer),
    ];
    for (name, limit, configured, default, set) in rows {
        let Some(wanted) = configured.or(default) else { continue };
        match set(socket, wanted) {
            Ok(granted) if configured.is_some() && granted < wanted => tracing::warn!(
                "the {name} buffer is smaller than configured listener=\"{listener}\" wanted={wanted} granted={granted} (hint: raise \
                 {limit}, or start as root)"
            ),
            Ok(_) => {}
            Err(errno) => tracing::warn!("the {name} buffer keeps its default size listener=\"{listener}\": setsockopt: {errno}"),
        }
    }
}

/// From here on the kernel queues connections.
fn listen(socket: &OwnedFd, what: &str) -> Result<()> {
    options::listen(socket).map_err(|errno| failed(what, "listen", errno))
}

fn unix(kind: SocketKind, bind: &UnixBind, what: &str) -> Result<OwnedFd> {
    let (make, probe): (fn() -> _, fn(&SocketAddress) -> _) = match kind {
        SocketKind::Datagrams => (options::unix_datagram_socket, options::probe_unix),
        SocketKind::Connections => (options::unix_stream_socket, options::probe_unix_stream),
    };
    let name = kernel_name(&bind.name).ok_or_else(|| failed(what, "bind", Errno::ENAMETOOLONG).hint("choose a shorter path"))?;
    if let UnixName::Path(path) = &bind.name {
        remove_stale(path, what, || probe(&name))?;
    }
    let socket = make().map_err(|errno| failed(what, "socket", errno))?;
    set_buffers(&socket, &bind.options, kind, &bind.name.to_string());
    // So that the file never has another mode, not even for a moment.
    let before = umask(Mode::from_bits_truncate(!bind.options.mode & 0o777));
    let bound = options::bind_unix(&socket, &name);
    umask(before);
    bound.map_err(|errno| match (errno, &bind.name) {
        (Errno::ENOENT, _) => failed(what, "bind", errno).hint("create its folder first"),
        (Errno::EADDRINUSE, UnixName::Abstract(_)) => failed(what, "bind", errno).hint("another program has that name; see \"ss -lxp\""),
        _ => failed(what, "bind", errno),
    })?;
    if let UnixName::Path(path) = &bind.name
        && (bind.owner.is_some() || bind.group.is_some())
        && let Err(errno) = fchownat(nix::fcntl::AT_FDCWD, path, bind.owner, bind.group, FchownatFlags::AT_SYMLINK_NOFOLLOW)
    {
        remove_file(path);
        let error = failed(what, "chown", errno);
        return Err(match errno {
            Errno::EPERM => error.hint("only root can give a file away; leave out \"owner\" and \"group\""),
            _ => error,
        });
    }
    if kind == SocketKind::Connections {
        listen(&socket, what)?;
    }
    Ok(socket)
}

/// Removes the socket of a killed host. Anything else at the path is an error, and stays.
fn remove_stale(path: &Path, what: &str, probe: impl Fn() -> Result<(), Errno>) -> Result<()> {
    let refused = |detail: &str| Error::failed(what).detail(detail);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(refused("something that is not a socket is there").hint("remove it, or choose another path"))
        }
        Ok(_) => match probe() {
            // EPROTOTYPE: a socket of the other kind. EAGAIN: its queue is full.
            Ok(()) | Err(Errno::EPROTOTYPE | Errno::EAGAIN) => {
                Err(refused("another process serves it").hint("is this host running already? see \"modhost ps\""))
            }
            Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(|error| refused(&format!("unlink of a stale socket: {error}"))),
            Err(errno) => Err(failed(what, "connect", errno)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(&io_text(&error))),
    }
}
