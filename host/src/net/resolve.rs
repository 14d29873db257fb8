//! From the configuration of a listener to the addresses of its sockets.
//!
//! *Runs in:* the starting command (to find errors early), the supervisor (again for each main),
//! main in no-fork mode. *Never:* binds anything.

use std::net::{SocketAddr, SocketAddrV6};

use nix::unistd::{Gid, Uid};

use super::address::{Address, InetBind, UnixBind};
use crate::config::address::UNIX_PATH_MAX_BYTES;
use crate::config::{ListenAddress, ListenConfig, SocketOptions, UnixName};
use crate::error::{EXIT_CONFIG, Error, Result};
use crate::sys::process::credentials;
use crate::sys::socket::interfaces;

/// A listener of the configuration, with what was looked up when the plan was made.
#[derive(Debug, Clone)]
pub struct PlannedListener {
    pub config: ListenConfig,
    /// Owner of the files of its Unix sockets; none: the starting user.
    pub owner: Option<Uid>,
    /// Group of these files; none: the starting group.
    pub group: Option<Gid>,
}

impl PlannedListener {
    /// Looks up users and groups, and checks that interfaces exist and that paths fit. All errors
    /// at once, with the position of the listener.
    pub fn of(config: ListenConfig) -> Result<Self, Vec<Error>> {
        let options = &config.options.socket;
        let owner = options.owner.as_deref().map(credentials::identity).transpose();
        let group = options.group.as_deref().map(credentials::group_id).transpose();
        let mut errors = unknown_interfaces(&config);
        errors.extend(config.addresses.iter().filter_map(too_long_path));
        match (owner, group) {
            (Ok(owner), Ok(group)) if errors.is_empty() => Ok(Self { config, owner: owner.map(|owner| owner.uid), group }),
            (owner, group) => {
                errors.extend(owner.err().into_iter().chain(group.err()));
                Err(errors.into_iter().map(|error| at(&config, error)).collect())
            }
        }
    }

    /// What to bind, in the order of the configuration; at least one. An address of an interface
    /// name becomes the addresses that the interface has now.
    pub fn sockets(&self) -> Result<Vec<Address>> {
        let options = &self.config.options.socket;
        let unix = |name| UnixBind { name, options: options.clone(), owner: self.owner, group: self.group };
        let mut sockets = Vec::new();
        for address in &self.config.addresses {
            match address {
                ListenAddress::Unixgram(name) => sockets.push(Address::Unixgram(unix(name.clone()))),
                ListenAddress::Unix(path) => sockets.push(Address::Unix(unix(UnixName::Path(path.clone())))),
                address => sockets.extend(inet_sockets(address, options)?),
            }
        }
        Ok(sockets)
    }
}

/// The IPv4 and IPv6 sockets of one address; for a Unix socket none.
pub fn inet_sockets(address: &ListenAddress, options: &SocketOptions) -> Result<Vec<Address>> {
    let bind = |address: SocketAddr| InetBind { address, options: options.clone() };
    Ok(match address {
        ListenAddress::Udp(address) => vec![Address::Udp(bind(*address))],
        ListenAddress::UdpScoped(ip, interface, port) => {
            vec![Address::Udp(bind(SocketAddrV6::new(*ip, *port, 0, interfaces::number(interface)?).into()))]
        }
        ListenAddress::UdpInterface(interface, port) => {
            interfaces::addresses(interface, *port)?.into_iter().map(|address| Address::Udp(bind(address))).collect()
        }
        ListenAddress::Tcp(address) => vec![Address::Tcp(bind(*address))],
        ListenAddress::Unixgram(_) | ListenAddress::Unix(_) => Vec::new(),
    })
}

/// An error for each interface that the listener names and that does not exist.
fn unknown_interfaces(listener: &ListenConfig) -> Vec<Error> {
    let of_addresses = listener.addresses.iter().filter_map(|address| match address {
        ListenAddress::UdpScoped(_, interface, _) | ListenAddress::UdpInterface(interface, _) => Some(interface),
        _ => None,
    });
    let of_groups = listener.options.socket.multicast.iter().filter_map(|group| group.interface.as_ref());
    let mut names: Vec<&String> = of_addresses.chain(&listener.options.socket.interface).chain(of_groups).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(|name| interfaces::number(name).err()).collect()
}

fn too_long_path(address: &ListenAddress) -> Option<Error> {
    let (ListenAddress::Unix(path) | ListenAddress::Unixgram(UnixName::Path(path))) = address else { return None };
    let bytes = path.as_os_str().len();
    (bytes > UNIX_PATH_MAX_BYTES).then(|| {
        Error::config(format!("the path of a socket is too long: {}", path.display()))
            .detail(format_args!("{bytes} bytes, the system's limit is {UNIX_PATH_MAX_BYTES}"))
            .hint("choose a shorter path")
    })
}

/// Adds the listener's position. The functions that look up users name the keys of `[host]`.
fn at(listener: &ListenConfig, error: Error) -> Error {
    let what = format!("{}: {}", listener.position, error.what);
    Error { what, detail: error.detail.replace("host.", ""), exit: EXIT_CONFIG, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::options::IpVersions;

    #[test]
    fn each_address_becomes_its_sockets() {
        let options = SocketOptions { v6only: false, ..SocketOptions::default() };
        let found = |text: &str| inet_sockets(&ListenAddress::Udp(text.parse().unwrap()), &options).unwrap();
        let expected = |text: &str| Address::Udp(InetBind { address: text.parse().unwrap(), options: options.clone() });
        for (text, v6only) in [("127.0.0.1:5", true), ("[::1]:5", true), ("[::]:5", false)] {
            assert_eq!(found(text), [expected(text)]);
            assert!(matches!(&found(text)[0], Address::Udp(bind) if (bind.ip_versions() == IpVersions::V6Only) == v6only), "{text}");
        }
        let of_interface = inet_sockets(&ListenAddress::UdpInterface("lo".into(), 5), &options).unwrap();
        assert!(of_interface.contains(&expected("127.0.0.1:5")), "{of_interface:?}");
        assert!(inet_sockets(&ListenAddress::UdpInterface("nowhere".into(), 5), &options).is_err());
    }
}
