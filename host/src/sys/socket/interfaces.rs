//! Network interfaces and their addresses.
//!
//! *Runs in:* the starting command (names), main (addresses), the supervisor (numbers). *Never:*
//! changes an interface.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::error::{Error, Result};

pub fn number(name: &str) -> Result<u32> {
    if_nametoindex(name).map_err(|errno| {
        Error::failed(format!("there is no interface \"{name}\""))
            .detail(format!("if_nametoindex: {errno}"))
            .hint(format!("the interfaces here are {}; host names are not looked up", names().join(", ")))
    })
}

/// Every address of an interface, with `port`; at least one.
pub fn addresses(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let number = number(name)?;
    let failed = |detail: String| Error::failed(format!("cannot list the addresses of interface \"{name}\"")).detail(detail);
    let mut found = Vec::new();
    for interface in getifaddrs().map_err(|errno| failed(format!("getifaddrs: {errno}")))?.filter(|found| found.interface_name == name) {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push(SocketAddr::new(IpAddr::V4(v4.ip()), port));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let ip: Ipv6Addr = v6.ip();
            let scope = if ip.is_unicast_link_local() { number } else { 0 };
            found.push(SocketAddrV6::new(ip, port, 0, scope).into());
        }
    }
    if found.is_empty() {
        return Err(failed("it has none".into()).hint("is it up? see \"ip address\""));
    }
    Ok(found)
}

/// Whether an interface has that address, including one that the kernel still checks for duplicates
/// on the network.
pub fn has_address(ip: IpAddr) -> bool {
    let of = |address: nix::sys::socket::SockaddrStorage| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        _ => None,
    };
    getifaddrs().is_ok_and(|mut found| found.any(|interface| interface.address.and_then(of) == Some(ip)))
}

/// The names of all interfaces, for messages.
fn names() -> Vec<String> {
    let Ok(interfaces) = if_nameindex() else { return vec!["not known".into()] };
    interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface() {
        assert!(number("lo").unwrap() > 0);
        assert!(addresses("lo", 7).unwrap().contains(&"127.0.0.1:7".parse().unwrap()));
        assert!(has_address("127.0.0.1".parse().unwrap()) && !has_address("192.0.2.254".parse().unwrap()));
        let error = addresses("nowhere", 7).unwrap_err().to_string();
        assert!(error.contains("no interface \"nowhere\"") && error.contains("lo"), "{error}");
    }
}
