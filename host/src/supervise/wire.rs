//! How a request for a socket is written into a message.
//!
//! *Runs in:* supervisor and main. *Never:* trusts a length: what does not fit is no request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::config::Group;
use crate::config::address::parse_interface;
use crate::net::address::{Buffers, InetBind};

/// As bytes.
pub fn pack_inet(bind: &InetBind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    push_ip(&mut bytes, bind.address.ip());
    bytes.extend_from_slice(&bind.address.port().to_le_bytes());
    let scope = if let SocketAddr::V6(v6) = bind.address { v6.scope_id() } else { 0 };
    for number in [
        scope,
        u32::from(bind.v6only),
        bind.buffers.receive_bytes.unwrap_or(0),
        bind.buffers.send_bytes.unwrap_or(0),
        bind.busy_poll_us,
        u32::try_from(bind.multicast.len()).unwrap_or(u32::MAX),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    push_name(&mut bytes, bind.interface.as_deref());
    for group in &bind.multicast {
        push_ip(&mut bytes, group.ip);
        push_name(&mut bytes, group.interface.as_deref());
    }
    bytes
}

/// From bytes; none if they are no such request.
pub fn unpack_inet(mut bytes: &[u8]) -> Option<InetBind> {
    let rest = &mut bytes;
    let ip = take_ip(rest)?;
    let port = u16::from_le_bytes(take(rest)?);
    let mut number = || take(rest).map(u32::from_le_bytes);
    let (scope, v6only, receive, send, busy_poll_us, groups) = (number()?, number()?, number()?, number()?, number()?, number()?);
    let address = match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    };
    let some = |bytes: u32| (bytes > 0).then_some(bytes);
    let buffers = Buffers { receive_bytes: some(receive), send_bytes: some(send) };
    let interface = take_name(rest)?;
    let mut multicast = Vec::new();
    for _ in 0..groups {
        multicast.push(Group { ip: take_ip(rest)?, interface: take_name(rest)? });
    }
    rest.is_empty().then_some(InetBind { address, v6only: v6only == 1, interface, multicast, buffers, busy_poll_us })
}

fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
}

/// The name of an interface, at most 15 bytes; empty: none.
fn push_name(bytes: &mut Vec<u8>, name: Option<&str>) {
    let name = name.unwrap_or_default();
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn take_ip(bytes: &mut &[u8]) -> Option<IpAddr> {
    match take::<1>(bytes)? {
        [4] => take::<4>(bytes).map(|ip| Ipv4Addr::from(ip).into()),
        [6] => take::<16>(bytes).map(|ip| Ipv6Addr::from(ip).into()),
        _ => None,
    }
}

/// None: no name of an interface. Some of none: it is left out.
#[allow(clippy::option_option)] // the outer one is the failure to read
fn take_name(bytes: &mut &[u8]) -> Option<Option<String>> {
    let length = usize::from(take::<1>(bytes)?[0]);
    let (name, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    if name.is_empty() {
        return Some(None);
    }
    parse_interface(std::str::from_utf8(name).ok()?).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_and_back_and_nothing_shorter() {
        let full = InetBind {
            v6only: false,
            interface: Some("eth0".into()),
            multicast: vec![
                Group { ip: "239.1.2.3".parse().unwrap(), interface: None },
                Group { ip: "ff02::1".parse().unwrap(), interface: Some("br-a.1".into()) },
            ],
            buffers: Buffers { receive_bytes: Some(1 << 30), send_bytes: None },
            busy_poll_us: 50,
            ..InetBind::plain("[fe80::1%3]:5060".parse().unwrap())
        };
        for bind in [full, InetBind::plain("127.0.0.1:5060".parse().unwrap())] {
            let bytes = pack_inet(&bind);
            for length in 0..bytes.len() {
                assert_eq!(unpack_inet(&bytes[..length]), None, "{length} bytes");
            }
            assert_eq!(unpack_inet(&bytes), Some(bind));
        }
    }

    #[test]
    fn the_largest_request_fits_into_a_message() {
        let ip = "ff02::1".parse().unwrap();
        let multicast = vec![Group { ip, interface: Some("123456789012345".into()) }; crate::config::listen::ADDRESSES_MAX];
        let bind = InetBind { multicast, interface: Some("123456789012345".into()), ..InetBind::plain("[::]:1".parse().unwrap()) };
        assert!(pack_inet(&bind).len() <= super::super::protocol::TEXT_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(bind) = unpack_inet(&bytes) {
                prop_assert_eq!(unpack_inet(&pack_inet(&bind)), Some(bind));
            }
        }
    }
}
