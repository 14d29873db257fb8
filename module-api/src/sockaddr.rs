//! Socket addresses as the kernel and the binary interface have them: `struct sockaddr_in` and `sockaddr_in6`.
//!
//! Pure conversions on bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPV4_BYTES: usize = 16;
const IPV6_BYTES: usize = 28;

/// A socket address in the kernel's form.
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; IPV6_BYTES],
    len: u32,
}

impl RawAddress {
    pub const SIZE: u32 = IPV6_BYTES as u32;

    pub fn empty() -> RawAddress {
        RawAddress { bytes: [0; IPV6_BYTES], len: 0 }
    }

    pub fn new(address: SocketAddr) -> RawAddress {
        let mut raw = RawAddress::empty();
        let bytes = &mut raw.bytes;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[0..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = IPV4_BYTES as u32;
            }
            SocketAddr::V6(v6) => {
                bytes[0..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                // As the kernel's headers and `SocketAddrV6` both have it: network order, as a number.
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                raw.len = IPV6_BYTES as u32;
            }
        }
        raw
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

    /// The address that the host wrote, if it is one of the two families.
    pub fn filled(&self, len: usize) -> Option<SocketAddr> {
        decode(self.bytes.get(..len)?)
    }
}

/// The address in `bytes`, if it is whole and of one of the two families.
pub(crate) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(array(bytes, 0)?);
    let port = u16::from_be_bytes(array(bytes, 2)?);
    match family {
        AF_INET if bytes.len() >= IPV4_BYTES => {
            let ip: [u8; 4] = array(bytes, 4)?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        AF_INET6 => {
            let ip: [u8; 16] = array(bytes, 8)?;
            let flow_info = u32::from_ne_bytes(array(bytes, 4)?);
            let scope_id = u32::from_ne_bytes(array(bytes, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow_info, scope_id).into())
        }
        _ => None,
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
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::new(address);
            assert_eq!(raw.filled(raw.len() as usize), Some(address), "{text}");
            assert_eq!(raw.filled(raw.len() as usize - 1), None, "{text}");
        }
        assert_eq!(decode(&[1, 0, 0, 0]), None);
        assert_eq!(decode(&[]), None);
    }
}
