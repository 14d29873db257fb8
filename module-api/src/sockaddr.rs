//! Socket addresses in the form of the kernel and the binary interface: `struct sockaddr_in`,
//! `sockaddr_in6` and `sockaddr_un`.
//!
//! Pure conversions on bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::address::Address;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPV4_BYTES: usize = 16;
const IPV6_BYTES: usize = 28;
/// Offset of the name in a `sockaddr_un`.
const PATH_OFFSET: usize = 2;
const PATH_BYTES: usize = 108;

/// A socket address in the kernel's form.
#[repr(C, align(8))]
#[derive(Debug)]
pub(crate) struct RawAddress {
    bytes: [u8; PATH_OFFSET + PATH_BYTES],
    len: u32,
}

impl RawAddress {
    pub const SIZE: u32 = (PATH_OFFSET + PATH_BYTES) as u32;

    pub fn empty() -> RawAddress {
        RawAddress { bytes: [0; PATH_OFFSET + PATH_BYTES], len: 0 }
    }

    /// None for an unnamed address, and for a name that no socket can have.
    pub fn new(address: &Address<'_>) -> Option<RawAddress> {
        let mut raw = RawAddress::empty();
        match address {
            Address::Inet(address) => raw.set_inet(address),
            Address::Path(path) => {
                let path = path.as_os_str().as_bytes();
                // The name ends with a NUL.
                let fits = !path.is_empty() && path.len() < PATH_BYTES && !path.contains(&0);
                raw.set_name(fits.then_some(path)?, 0, 1);
            }
            Address::Abstract(name) => {
                let fits = !name.is_empty() && name.len() < PATH_BYTES;
                raw.set_name(fits.then_some(name)?, 1, 0);
            }
            Address::Unnamed => return None,
        }
        Some(raw)
    }

    /// An internet address; every one fits.
    pub fn inet(address: SocketAddr) -> RawAddress {
        let mut raw = RawAddress::empty();
        raw.set_inet(&address);
        raw
    }

    fn set_inet(&mut self, address: &SocketAddr) {
        let bytes = &mut self.bytes;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[0..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                self.len = IPV4_BYTES as u32;
            }
            SocketAddr::V6(v6) => {
                bytes[0..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                // The kernel's headers and `SocketAddrV6` agree: the number is in network byte
                // order.
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                self.len = IPV6_BYTES as u32;
            }
        }
    }

    /// A Unix name with `before` NULs before and `after` NULs after it; together at most
    /// `PATH_BYTES`.
    fn set_name(&mut self, name: &[u8], before: usize, after: usize) {
        self.bytes[0..2].copy_from_slice(&AF_UNIX.to_ne_bytes());
        let start = PATH_OFFSET + before;
        self.bytes[start..start + name.len()].copy_from_slice(name);
        self.len = (start + name.len() + after) as u32;
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    /// The address in the first `len` bytes, which the host has written; none if it is not an
    /// address.
    pub fn filled(&self, len: usize) -> Option<Address<'_>> {
        decode(self.bytes.get(..len)?)
    }
}

/// The address in `bytes`, if it is complete and of a known family. No bytes mean a peer without a
/// name.
pub(crate) fn decode(bytes: &[u8]) -> Option<Address<'_>> {
    if bytes.is_empty() {
        return Some(Address::Unnamed);
    }
    match u16::from_ne_bytes(array(bytes, 0)?) {
        AF_INET if bytes.len() >= IPV4_BYTES => {
            let ip: [u8; 4] = array(bytes, 4)?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes(array(bytes, 2)?)).into())
        }
        AF_INET6 => {
            let ip: [u8; 16] = array(bytes, 8)?;
            let flow_info = u32::from_ne_bytes(array(bytes, 4)?);
            let scope_id = u32::from_ne_bytes(array(bytes, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), u16::from_be_bytes(array(bytes, 2)?), flow_info, scope_id).into())
        }
        AF_UNIX => Some(decode_name(&bytes[PATH_OFFSET..])),
        _ => None,
    }
}

/// Decodes the part of a `sockaddr_un` after the family.
fn decode_name(name: &[u8]) -> Address<'_> {
    match name {
        [] => Address::Unnamed,
        [0, name @ ..] => Address::Abstract(Cow::Borrowed(name)),
        name => {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Address::Path(Cow::Borrowed(Path::new(OsStr::from_bytes(&name[..end]))))
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["127.0.0.1:5060", "0.0.0.0:0", "255.1.2.3:65535", "[::1]:53", "[fe80::1%7]:9"] {
            let address = Address::Inet(text.parse().unwrap());
            let raw = RawAddress::new(&address).unwrap();
            assert_eq!(raw.filled(raw.len() as usize), Some(address), "{text}");
            assert_eq!(raw.filled(raw.len() as usize - 1), None, "{text}");
        }
        let longest = [b'x'; 107];
        for (address, text) in [
            (Address::from(Path::new("/run/x.sock")), "/run/x.sock"),
            (Address::from(Path::new(OsStr::from_bytes(&longest))), std::str::from_utf8(&longest).unwrap()),
            (Address::Abstract(Cow::Borrowed(b"a\0b")), "@a\0b"),
        ] {
            let raw = RawAddress::new(&address).unwrap();
            assert_eq!(raw.filled(raw.len() as usize), Some(address.clone()));
            assert_eq!(address.into_owned().to_string(), text);
        }
        for nothing in [Address::Unnamed, Address::from(Path::new("")), Address::Abstract(Cow::Borrowed(b""))] {
            assert!(RawAddress::new(&nothing).is_none(), "{nothing:?}");
        }
        assert!(RawAddress::new(&Address::from(Path::new("a\0b"))).is_none());
        assert!(RawAddress::new(&Address::Path(Cow::Owned("x".repeat(108).into()))).is_none());
        assert_eq!(decode(&[1, 0]), Some(Address::Unnamed));
        assert_eq!(decode(&[]), Some(Address::Unnamed));
        for broken in [&[1][..], &[2, 0, 0, 0], &[99, 0, 0, 0]] {
            assert_eq!(decode(broken), None);
        }
    }
}
