//! Addresses of datagrams: of the internet, or of Unix sockets.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a datagram comes from or goes to. What it borrows lives as long as the batch; [`into_owned`](Address::into_owned) keeps it.
///
/// ```
/// # use module_api::prelude::*;
/// # fn serve(batch: &Batch<'_>) -> Result<()> {
/// for datagram in batch {
///     match datagram.peer() {
///         Address::Inet(peer) => info!(port = peer.port(), "from the network"),
///         Address::Unnamed => warn!("nobody to answer to"),
///         peer => info!(%peer, "from this machine"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// IPv4 or IPv6. An IPv4 client of a dual-stack listener has its IPv4 address here.
    Inet(SocketAddr),
    /// A Unix socket in the file system.
    Path(Cow<'a, Path>),
    /// A Unix socket with an abstract name: the bytes after the `@`.
    Abstract(Cow<'a, [u8]>),
    /// A Unix socket without a name. It cannot be answered.
    Unnamed,
}

impl Address<'_> {
    /// The internet address, if it is one.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            _ => None,
        }
    }

    /// The same for any lifetime.
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

/// As configuration and log have it: `127.0.0.1:5060`, `[::1]:5060`, `/run/x.sock`, `@name`, `unnamed`.
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
