//! Addresses of datagrams: internet addresses and names of Unix sockets.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Source or destination of a datagram. It may borrow from the batch;
/// [`into_owned`](Address::into_owned) makes a copy that can be kept.
///
/// ```
/// # use module_api::prelude::*;
/// # fn serve(batch: &Batch<'_>) -> Result<()> {
/// for datagram in batch {
///     match datagram.peer() {
///         Address::Inet(peer) => info!(port = peer.port(), "from the network"),
///         Address::Unnamed => warn!("the sender cannot be answered"),
///         peer => info!(%peer, "from this machine"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// IPv4 or IPv6. An IPv4 client of a dual-stack listener appears with its IPv4 address.
    Inet(SocketAddr),
    /// A Unix socket in the file system.
    Path(Cow<'a, Path>),
    /// A Unix socket with an abstract name: the bytes after the `@`.
    Abstract(Cow<'a, [u8]>),
    /// A Unix socket without a name. It cannot be answered.
    Unnamed,
}

impl Address<'_> {
    /// The internet address; none for a Unix socket.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            _ => None,
        }
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Address<'static> {
        match self {
            Address::Inet(address) => Address::Inet(address),
            Address::Path(path) => Address::Path(Cow::Owned(path.into_owned())),
            Address::Abstract(name) => Address::Abstract(Cow::Owned(name.into_owned())),
            Address::Unnamed => Address::Unnamed,
        }
    }
}

impl From<SocketAddr> for Address<'_> {
    fn from(address: SocketAddr) -> Self {
        Address::Inet(address)
    }
}

impl From<SocketAddrV4> for Address<'_> {
    fn from(address: SocketAddrV4) -> Self {
        Address::Inet(address.into())
    }
}

impl From<SocketAddrV6> for Address<'_> {
    fn from(address: SocketAddrV6) -> Self {
        Address::Inet(address.into())
    }
}

impl<'a> From<&'a Path> for Address<'a> {
    fn from(path: &'a Path) -> Self {
        Address::Path(Cow::Borrowed(path))
    }
}

impl From<PathBuf> for Address<'_> {
    fn from(path: PathBuf) -> Self {
        Address::Path(Cow::Owned(path))
    }
}

/// As in the configuration and the log: `127.0.0.1:5060`, `[::1]:5060`, `/run/x.sock`, `@name`,
/// `unnamed`.
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Path(path) => path.display().fmt(f),
            Address::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
            Address::Unnamed => f.write_str("unnamed"),
        }
    }
}
