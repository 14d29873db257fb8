//! What can be bound: an address, with the options of its socket.
//!
//! *Runs in:* the supervisor; main in no-fork mode. *Never:* holds text that is still to be parsed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use crate::config::{MulticastGroup, SocketOptions, UnixName};
use crate::sys::socket::options::IpVersions;
use crate::sys::socket::socket_address::SocketAddress;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Udp(InetBind),
    /// A Unix datagram socket.
    Unixgram(UnixBind),
    Tcp(InetBind),
    /// A Unix stream socket.
    Unix(UnixBind),
    /// The control socket, at this path.
    Control(PathBuf),
}

/// An IPv4 or IPv6 socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InetBind {
    /// With port 0 the kernel chooses the port.
    pub address: SocketAddr,
    pub options: SocketOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixBind {
    pub name: UnixName,
    pub options: SocketOptions,
    /// Owner of its file; none: the starting user.
    pub owner: Option<Uid>,
    /// Group of its file; none: the starting group.
    pub group: Option<Gid>,
}

impl InetBind {
    #[cfg(test)]
    pub fn with_default_options(address: SocketAddr) -> Self {
        Self { address, options: SocketOptions::default() }
    }

    /// The IP versions that the socket serves. Only `[::]` has a choice.
    pub fn ip_versions(&self) -> IpVersions {
        let is_v6only = self.options.v6only || self.address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if is_v6only { IpVersions::V6Only } else { IpVersions::Both }
    }

    /// The multicast groups that this socket is to join: those whose datagrams it would receive.
    pub fn groups(&self) -> impl Iterator<Item = &MulticastGroup> {
        let own = self.address.ip();
        self.options.multicast.iter().filter(move |group| match (own, group.ip) {
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && self.ip_versions() == IpVersions::Both,
            (IpAddr::V4(own), IpAddr::V4(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        })
    }
}

/// None for a name that is too long.
pub fn kernel_name(name: &UnixName) -> Option<SocketAddress> {
    match name {
        UnixName::Path(path) => SocketAddress::unix(&[path.as_os_str().as_bytes(), b"\0"].concat()),
        UnixName::Abstract(name) => SocketAddress::unix(&[b"\0", name.as_slice()].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_joins_the_groups_that_it_can_receive() {
        let groups = ["224.1.1.1", "ff02::1"].map(|ip| MulticastGroup { ip: ip.parse().unwrap(), interface: None });
        for (address, v6only, joined) in [
            ("0.0.0.0:1", true, &["224.1.1.1"][..]),
            ("[::]:1", true, &["ff02::1"]),
            ("[::]:1", false, &["224.1.1.1", "ff02::1"]),
            ("224.1.1.1:1", true, &["224.1.1.1"]),
            ("127.0.0.1:1", true, &[]),
            ("[::1]:1", false, &[]),
        ] {
            let options = SocketOptions { v6only, multicast: groups.to_vec(), ..SocketOptions::default() };
            let bind = InetBind { address: address.parse().unwrap(), options };
            let found: Vec<String> = bind.groups().map(|group| group.ip.to_string()).collect();
            assert_eq!(found, joined, "{address}");
        }
    }

    #[test]
    fn unix_names_become_socket_addresses() {
        for (name, shown) in [(UnixName::Path("/run/x".into()), "/run/x"), (UnixName::Abstract(b"x y".to_vec()), "@x y")] {
            assert_eq!(kernel_name(&name).unwrap().to_string(), shown);
        }
        assert!(kernel_name(&UnixName::Path("x".repeat(107).into())).is_some());
        assert!(kernel_name(&UnixName::Path("x".repeat(108).into())).is_none());
    }
}
