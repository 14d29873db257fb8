//! Binding: addresses become sockets.
//!
//! *Runs in:* the supervisor, on main's request, with the starting identity; main in no-fork mode. *Never:* parses text from main.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, umask};

use crate::error::{Error, Result, io_text};

/// Asked of the kernel for each datagram socket: a burst waits here while the workers are busy. The kernel may grant less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Something to bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A datagram socket.
    Udp(SocketAddr),
    /// The control socket.
    Control(PathBuf),
}

/// Binds it.
pub fn bind(address: &Address) -> Result<OwnedFd> {
    match address {
        Address::Udp(address) => udp(*address),
        Address::Control(path) => control(path),
    }
}

/// Where a socket is really bound.
pub fn bound_address(socket: &OwnedFd) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| Error::failed("cannot find out where a listener is bound").detail(format!("getsockname: {error}"));
    UdpSocket::from(socket.try_clone().map_err(failed)?).local_addr().map_err(failed)
}

fn udp(address: SocketAddr) -> Result<OwnedFd> {
    let socket = UdpSocket::bind(address).map_err(|error| {
        let error_text = Error::failed(format!("cannot listen on udp {address}")).detail(format!("bind: {}", io_text(&error)));
        match error.kind() {
            ErrorKind::AddrInUse => error_text.hint(format!("another program has it; see \"ss -lunp sport = :{}\"", address.port())),
            ErrorKind::AddrNotAvailable => error_text.hint("no interface of this machine has that address"),
            ErrorKind::PermissionDenied => error_text.hint("ports below 1024 need root or CAP_NET_BIND_SERVICE"),
            _ => error_text,
        }
    })?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err()
        && let Err(errno) = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)
    {
        tracing::warn!("the receive buffer keeps its default size listener=\"udp {address}\": setsockopt: {errno}");
    }
    Ok(socket.into())
}

fn control(path: &Path) -> Result<OwnedFd> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::failed(format!("cannot make the control socket {}", path.display())).detail(error.to_string())
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(failed(&"something that is not a socket is there").hint("remove it, or choose another path for host.control"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(failed(&"another process serves it").hint("is this host running already? see \"modhost ps\"")),
            // Nobody listens: what a killed host left behind.
            Err(_) => fs::remove_file(path).map_err(|error| failed(&format!("unlink of a stale socket: {error}")))?,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&io_text(&error))),
    }
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
