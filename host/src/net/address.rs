//! What can be bound: the form in which main asks the supervisor for a socket, with everything that it is made with.
//!
//! *Runs in:* main, the supervisor. *Never:* text to be parsed: names of interfaces are passed on as they are.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use crate::config::{Group, UnixName};
use crate::sys::names::Name;

/// Something to bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A datagram socket of the internet.
    Udp(InetBind),
    /// A datagram socket of the Unix family. How its file is made, the configuration says.
    Unixgram(UnixName),
    /// A listening socket of the internet.
    Tcp(InetBind),
    /// A listening socket of the Unix family, likewise.
    Unix(UnixName),
    /// The control socket.
    Control(PathBuf),
}

/// A socket of the internet, for datagrams or for connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InetBind {
    /// Where.
    pub address: SocketAddr,
    /// Whether `[::]` leaves IPv4 alone.
    pub v6only: bool,
    /// The one interface to take traffic from.
    pub interface: Option<String>,
    /// Groups to join; none for connections.
    pub multicast: Vec<Group>,
    /// Buffers.
    pub buffers: Buffers,
    /// How long to ask the network device in a loop, in microseconds; 0: not at all.
    pub busy_poll_us: u32,
}

/// Sizes in bytes; none: nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Buffers {
    /// Of what has arrived.
    pub receive_bytes: Option<u32>,
    /// Of what is to be sent.
    pub send_bytes: Option<u32>,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// Datagrams.
    Datagrams,
    /// Connections.
    Connections,
}

/// A socket of the Unix family, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixBind {
    /// What for.
    pub kind: SocketKind,
    /// Its name.
    pub name: UnixName,
    /// Mode of its file.
    pub mode: u32,
    /// Owner of its file; none: the starting user.
    pub owner: Option<Uid>,
    /// Group of its file.
    pub group: Option<Gid>,
    /// Buffers.
    pub buffers: Buffers,
}

impl InetBind {
    /// With no option set.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, v6only: true, interface: None, multicast: Vec::new(), buffers: Buffers::default(), busy_poll_us: 0 }
    }

    /// The groups that this socket is to join: those of the families that it serves.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let own = self.address.ip();
        self.multicast.iter().filter(move |group| match (own, group.ip) {
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !self.v6only,
            (IpAddr::V4(own), IpAddr::V4(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        })
    }
}

/// The kernel's form. None for a name that is too long.
pub fn kernel_name(name: &UnixName) -> Option<Name> {
    match name {
        UnixName::Path(path) => Name::unix(&[path.as_os_str().as_bytes(), b"\0"].concat()),
        UnixName::Abstract(name) => Name::unix(&[b"\0", name.as_slice()].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_joined_where_they_arrive() {
        let groups = ["224.1.1.1", "ff02::1"].map(|ip| Group { ip: ip.parse().unwrap(), interface: None });
        for (address, v6only, joined) in [
            ("0.0.0.0:1", true, &["224.1.1.1"][..]),
            ("[::]:1", true, &["ff02::1"]),
            ("[::]:1", false, &["224.1.1.1", "ff02::1"]),
            ("224.1.1.1:1", true, &["224.1.1.1"]),
            ("127.0.0.1:1", true, &[]),
            ("[::1]:1", false, &[]),
        ] {
            let bind = InetBind { v6only, multicast: groups.to_vec(), ..InetBind::plain(address.parse().unwrap()) };
            let found: Vec<String> = bind.groups().map(|group| group.ip.to_string()).collect();
            assert_eq!(found, joined, "{address}");
        }
    }

    #[test]
    fn names_of_the_kernel() {
        for (name, shown) in [(UnixName::Path("/run/x".into()), "/run/x"), (UnixName::Abstract(b"x y".to_vec()), "@x y")] {
            assert_eq!(kernel_name(&name).unwrap().to_string(), shown);
        }
        assert!(kernel_name(&UnixName::Path("x".repeat(107).into())).is_some());
        assert!(kernel_name(&UnixName::Path("x".repeat(108).into())).is_none());
    }
}
