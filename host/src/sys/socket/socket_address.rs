//! Socket addresses in the kernel's form: `sockaddr_in`, `sockaddr_in6`, `sockaddr_un`.
//!
//! *Runs in:* every process. *Never:* makes a system call, except [`SocketAddress::of`], which asks
//! where a socket is bound.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

/// Size of the longest address, a `sockaddr_un`, rounded up to 8 bytes.
pub const SOCKET_ADDRESS_BYTES: usize = 112;
const UNIX_BYTES: usize = 108;
const IPV4_BYTES: usize = 16;
const IPV6_BYTES: usize = 28;

const AF_UNIX: u16 = libc::AF_UNIX as u16;
const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct SocketAddress {
    bytes: [u8; SOCKET_ADDRESS_BYTES],
    len: u16,
}

impl SocketAddress {
    const EMPTY: Self = Self { bytes: [0; SOCKET_ADDRESS_BYTES], len: 0 };

    /// Copies an address from the kernel or a module. None if it is longer than any address, too
    /// short for its family, or has no family.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if !(2..=SOCKET_ADDRESS_BYTES).contains(&bytes.len()) {
            return None;
        }
        let mut name = Self { len: bytes.len() as u16, ..Self::EMPTY };
        name.bytes[..bytes.len()].copy_from_slice(bytes);
        let complete = match name.family() {
            AF_INET => bytes.len() >= IPV4_BYTES,
            AF_INET6 => bytes.len() >= IPV6_BYTES,
            _ => true,
        };
        complete.then_some(name)
    }

    /// The address of a Unix socket; `name` as returned by `unix_bytes`. None if it is longer than
    /// 108 bytes.
    pub fn unix(name: &[u8]) -> Option<Self> {
        if name.len() > UNIX_BYTES { None } else { Self::from_bytes(&[&AF_UNIX.to_ne_bytes(), name].concat()) }
    }

    /// The address that a socket is bound to.
    pub fn of(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut name = Self::EMPTY;
        let mut len = SOCKET_ADDRESS_BYTES as libc::socklen_t;
        // SAFETY: the buffer has `len` writable bytes.
        let outcome = unsafe { libc::getsockname(socket.as_raw_fd(), name.bytes.as_mut_ptr().cast(), &raw mut len) };
        Errno::result(outcome)?;
        name.len = len.min(SOCKET_ADDRESS_BYTES as libc::socklen_t) as u16;
        Ok(name)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    pub fn len_bytes(&self) -> u16 {
        self.len
    }

    pub fn inet(&self) -> Option<SocketAddr> {
        let bytes = self.as_bytes();
        let port = u16::from_be_bytes(array(bytes, 2)?);
        match self.family() {
            AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
            AF_INET6 => {
                let (flow, scope) = (u32::from_ne_bytes(array(bytes, 4)?), u32::from_ne_bytes(array(bytes, 24)?));
                Some(SocketAddrV6::new(Ipv6Addr::from(array::<16>(bytes, 8)?), port, flow, scope).into())
            }
            _ => None,
        }
    }

    pub fn is_unix(&self) -> bool {
        self.family() == AF_UNIX
    }

    /// The name of a Unix socket: nothing, a NUL and an abstract name, or a path and perhaps a NUL.
    pub fn unix_bytes(&self) -> &[u8] {
        self.as_bytes().get(2..).unwrap_or_default()
    }

    fn family(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]])
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        name.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                name.bytes[0..2].copy_from_slice(&AF_INET.to_ne_bytes());
                name.bytes[4..8].copy_from_slice(&v4.ip().octets());
                name.len = IPV4_BYTES as u16;
            }
            SocketAddr::V6(v6) => {
                name.bytes[0..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                name.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                name.bytes[8..24].copy_from_slice(&v6.ip().octets());
                name.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                name.len = IPV6_BYTES as u16;
            }
        }
        name
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.inet() {
            return address.fmt(f);
        }
        match self.unix_bytes() {
            [] => f.write_str("unnamed"),
            [0, name @ ..] => write!(f, "@{}", OsStr::from_bytes(name).display()),
            path => {
                let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                OsStr::from_bytes(path).display().fmt(f)
            }
        }
    }
}

impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address by which a socket of both families knows that peer: IPv4 is mapped into IPv6.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_keep_every_address() {
        for text in ["127.0.0.1:5060", "0.0.0.0:0", "[::1]:53", "[fe80::1%7]:9"] {
            let name = SocketAddress::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!((name.to_string().as_str(), name.is_unix()), (text, false));
            let again = SocketAddress::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(again.inet(), name.inet());
            assert!(SocketAddress::from_bytes(&name.as_bytes()[..name.as_bytes().len() - 1]).is_none(), "{text}");
        }
        for (bytes, text) in
            [(&b"\x01\0"[..], "unnamed"), (b"\x01\0/run/x\0", "/run/x"), (b"\x01\0/run/x", "/run/x"), (b"\x01\0\0a b", "@a b")]
        {
            let name = SocketAddress::from_bytes(bytes).unwrap();
            assert_eq!((name.to_string().as_str(), name.is_unix(), name.inet()), (text, true, None));
        }
        assert!(SocketAddress::from_bytes(b"").is_none() && SocketAddress::from_bytes(&[1; SOCKET_ADDRESS_BYTES + 1]).is_none());
    }

    #[test]
    fn a_mapped_address_is_an_ipv6_address() {
        assert_eq!(mapped("1.2.3.4:5".parse().unwrap()), "[::ffff:1.2.3.4]:5".parse().unwrap());
        assert_eq!(mapped("[::1]:5".parse().unwrap()), "[::1]:5".parse().unwrap());
    }
}
