//! Binding: addresses become sockets.
//!
//! *Runs in:* the supervisor, on main's request, with the starting identity; main in no-fork mode. *Never:* parses text from main.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{FchownatFlags, fchownat};

use super::address::{Address, InetBind, SocketKind, UnixBind, kernel_name};
use crate::config::{SocketOptions, UnixName};
use crate::error::{Error, Result, io_text};
use crate::sys::socket::interfaces;
use crate::sys::socket::options;
use crate::sys::socket::socket_address::SocketAddress;

/// Asked of the kernel for each datagram socket without a configured size: a burst waits here while the workers are busy.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Binds it.
pub fn bind(address: &Address) -> Result<OwnedFd> {
    match address {
        Address::Udp(bind) => inet(SocketKind::Datagrams, bind),
        Address::Unixgram(bind) => unixgram(bind),
        Address::Tcp(bind) => inet(SocketKind::Connections, bind),
        Address::Unix(bind) => unix_stream(bind),
        Address::Control(path) => control(path),
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

fn inet(kind: SocketKind, bind: &InetBind) -> Result<OwnedFd> {
    let InetBind { address, options: wanted } = bind;
    let versions = bind.ip_versions();
    // Connections inherit their buffers from the socket that listens; the kernel knows best unless it is told.
    let (scheme, make, receive_default, column): (_, fn(&SocketAddr) -> _, _, _) = match kind {
        SocketKind::Datagrams => ("udp", options::datagram_socket, Some(RECEIVE_BUFFER_BYTES), 'u'),
        SocketKind::Connections => ("tcp", options::stream_socket, None, 't'),
    };
    let listener = format!("{scheme} {address}");
    let what = format!("cannot listen on {listener}");
    let failed = |call: &str, errno: Errno| Error::failed(&what).detail(format!("{call}: {}", io_text(&errno.into())));
    let socket = make(address).map_err(|errno| {
        let error = failed("socket", errno);
        if errno == Errno::EAFNOSUPPORT { error.hint("this machine has no IPv6") } else { error }
    })?;
    if address.is_ipv6() {
        options::set_ip_versions(&socket, versions).map_err(|errno| failed("IPV6_V6ONLY", errno))?;
    }
    if let Some(interface) = &wanted.interface {
        options::set_interface(&socket, interface).map_err(|errno| match (errno, interfaces::number(interface)) {
            // Which there are, it says, too.
            (Errno::ENODEV, Err(unknown)) => Error::failed(&what).detail(unknown.what).hint(unknown.hint),
            (Errno::EPERM, _) => failed("SO_BINDTODEVICE", errno).hint("\"interface\" needs root or CAP_NET_RAW on this kernel"),
            _ => failed("SO_BINDTODEVICE", errno),
        })?;
    }
    if kind == SocketKind::Datagrams && address.ip().is_unspecified() {
        // Which address was asked, and so answers: only here is there a choice.
        options::set_packet_info(&socket, address, versions).map_err(|errno| failed("IP_PKTINFO", errno))?;
    }
    set_buffers(&socket, wanted, receive_default, &format_args!("{listener}"));
    if let Some(time) = wanted.busy_poll
        && let Err(errno) = options::set_busy_poll(&socket, u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
    {
        tracing::warn!("busy polling is off listener=\"{listener}\": SO_BUSY_POLL: {errno} (hint: it needs root or CAP_NET_ADMIN)");
    }
    let mut bound = options::bind_inet(&socket, *address);
    if bound == Err(Errno::EADDRNOTAVAIL) && address.is_ipv6() && interfaces::has_address(address.ip()) {
        // Just assigned: for a second or two the kernel looks whether another machine has it. Not a reason for a start to fail.
        bound = options::set_freebind(&socket).and_then(|()| options::bind_inet(&socket, *address));
    }
    bound.map_err(|errno| match errno {
        Errno::EADDRINUSE => {
            failed("bind", errno).hint(format!("another program has it; see \"ss -l{column}np sport = :{}\"", address.port()))
        }
        Errno::EADDRNOTAVAIL => failed("bind", errno).hint("no interface of this machine has that address"),
        Errno::EINVAL if address.is_ipv6() => failed("bind", errno).hint(match kind {
            SocketKind::Datagrams => "a link-local address needs its interface: \"[fe80::1%eth0]:5060\"",
            SocketKind::Connections => {
                "a link-local address needs the number of its interface, which \"ip link\" shows: \"[fe80::1%2]:80\""
            }
        }),
        Errno::EACCES | Errno::EPERM => failed("bind", errno).hint("ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        _ => failed("bind", errno),
    })?;
    match kind {
        SocketKind::Datagrams => join(&socket, bind)?,
        SocketKind::Connections => listen(&socket, &what)?,
    }
    Ok(socket)
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
            let error = Error::failed(format!("cannot join the multicast group {group} for udp {address}"));
            let error = error.detail(format!("setsockopt: {}", io_text(&errno.into())));
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

fn set_buffers(socket: &OwnedFd, wanted: &SocketOptions, receive_default: Option<usize>, listener: &std::fmt::Arguments<'_>) {
    type Set = fn(&OwnedFd, usize) -> std::result::Result<usize, Errno>;
    let rows: [(&str, &str, Option<usize>, Set); 2] = [
        ("receive", "net.core.rmem_max", wanted.receive_buffer_bytes, options::set_receive_buffer),
        ("send", "net.core.wmem_max", wanted.send_buffer_bytes, options::set_send_buffer),
    ];
    for (name, limit, configured, set) in rows {
        let default = receive_default.filter(|_| name == "receive");
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

fn unixgram(bind: &UnixBind) -> Result<OwnedFd> {
    let what = format!("cannot listen on unixgram {}", bind.name);
    bind_file(bind, &what, Some(RECEIVE_BUFFER_BYTES), options::unix_datagram_socket, options::probe_unix)
}

fn unix_stream(bind: &UnixBind) -> Result<OwnedFd> {
    let what = format!("cannot listen on unix {}", bind.name);
    let socket = bind_file(bind, &what, None, options::unix_stream_socket, options::probe_unix_stream)?;
    listen(&socket, &what)?;
    Ok(socket)
}

/// From here on connections are taken into the queue.
fn listen(socket: &OwnedFd, what: &str) -> Result<()> {
    options::listen(socket).map_err(|errno| Error::failed(what).detail(format!("listen: {}", io_text(&errno.into()))))
}

fn bind_file(
    bind: &UnixBind,
    what: &str,
    receive_default: Option<usize>,
    make: fn() -> std::result::Result<OwnedFd, Errno>,
    probe: fn(&SocketAddress) -> std::result::Result<(), Errno>,
) -> Result<OwnedFd> {
    let failed = |call: &str, errno: Errno| Error::failed(what).detail(format!("{call}: {}", io_text(&errno.into())));
    let Some(name) = kernel_name(&bind.name) else { return Err(failed("bind", Errno::ENAMETOOLONG).hint("choose a shorter path")) };
    if let UnixName::Path(path) = &bind.name {
        make_room(path, what, || probe(&name))?;
    }
    let socket = make().map_err(|errno| failed("socket", errno))?;
    set_buffers(&socket, &bind.options, receive_default, &format_args!("{}", bind.name));
    // The file has its mode from the moment it exists.
    let before = umask(Mode::from_bits_truncate(!bind.options.mode & 0o777));
    let bound = options::bind_unix(&socket, &name);
    umask(before);
    bound.map_err(|errno| match (errno, &bind.name) {
        (Errno::ENOENT, _) => failed("bind", errno).hint("create its folder first"),
        (Errno::EADDRINUSE, UnixName::Abstract(_)) => failed("bind", errno).hint("another program has that name; see \"ss -lxp\""),
        _ => failed("bind", errno),
    })?;
    if let UnixName::Path(path) = &bind.name
        && (bind.owner.is_some() || bind.group.is_some())
        && let Err(errno) = fchownat(nix::fcntl::AT_FDCWD, path, bind.owner, bind.group, FchownatFlags::AT_SYMLINK_NOFOLLOW)
    {
        remove_file(path);
        let error = failed("chown", errno);
        return Err(if errno == Errno::EPERM {
            error.hint("only root can give a file away; leave out \"owner\" and \"group\"")
        } else {
            error
        });
    }
    Ok(socket)
}

fn control(path: &Path) -> Result<OwnedFd> {
    let what = format!("cannot make the control socket {}", path.display());
    let failed = |error: &dyn std::fmt::Display| Error::failed(&what).detail(error.to_string());
    make_room(path, &what, || UnixStream::connect(path).map(drop).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    // Whoever may write to the socket may stop the host: nobody but the starting user and root.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => failed(&format!("bind: {}", io_text(&error))).hint("create its folder first"),
        _ => failed(&format!("bind: {}", io_text(&error))),
    })?;
    Ok(listener.into())
}

/// Removes a socket that nobody serves any more: what a killed host left behind. Anything else stays, and is an error.
fn make_room(path: &Path, what: &str, probe: impl Fn() -> std::result::Result<(), Errno>) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::failed(what).detail(error.to_string());
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(failed(&"something that is not a socket is there").hint("remove it, or choose another path"))
        }
        Ok(_) => match probe() {
            // Of the other kind, or full: somebody is there.
            Ok(()) | Err(Errno::EPROTOTYPE | Errno::EAGAIN) => {
                Err(failed(&"another process serves it").hint("is this host running already? see \"modhost ps\""))
            }
            Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(|error| failed(&format!("unlink of a stale socket: {error}"))),
            Err(errno) => Err(failed(&format!("connect: {}", io_text(&errno.into())))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&io_text(&error))),
    }
}
