//! From what the configuration says about a listener to the sockets that it needs.
//!
//! *Runs in:* the starting command (to find errors early), main (each start anew). *Never:* binds anything.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::address::{Address, Buffers, InetBind, SocketKind, UnixBind};
use crate::config::address::UNIX_PATH_MAX_BYTES;
use crate::config::{ListenAddress, ListenConfig, ListenOptions, UnixName};
use crate::error::{EXIT_CONFIG, Error, Result};
use crate::sys::{cred, interfaces};

/// The sockets of a listener, in the order of its addresses; at least one. Asks the system which interfaces there are.
pub fn sockets(addresses: &[ListenAddress], options: &ListenOptions) -> Result<Vec<Address>> {
    let mut sockets = Vec::new();
    let udp = |address: SocketAddr| Address::Udp(inet_bind(address, options));
    for address in addresses {
        match address {
            ListenAddress::Udp(address) => sockets.push(udp(*address)),
            ListenAddress::UdpScoped(ip, interface, port) => {
                sockets.push(udp(SocketAddrV6::new(*ip, *port, 0, interfaces::number(interface)?).into()));
            }
            ListenAddress::UdpInterface(interface, port) => sockets.extend(interfaces::addresses(interface, *port)?.into_iter().map(udp)),
            ListenAddress::Unixgram(name) => sockets.push(Address::Unixgram(name.clone())),
            ListenAddress::Tcp(address) => sockets.push(Address::Tcp(inet_bind(*address, options))),
            ListenAddress::Unix(path) => sockets.push(Address::Unix(UnixName::Path(path.clone()))),
        }
    }
    Ok(sockets)
}

/// Whether what the listener names exists here: its interfaces, with errors at its position.
pub fn check(listener: &ListenConfig) -> Vec<Error> {
    let of_addresses = listener.addresses.iter().filter_map(|address| match address {
        ListenAddress::UdpScoped(_, interface, _) | ListenAddress::UdpInterface(interface, _) => Some(interface),
        _ => None,
    });
    let of_groups = listener.options.multicast.iter().filter_map(|group| group.interface.as_ref());
    let mut names: Vec<&String> = of_addresses.chain(&listener.options.interface).chain(of_groups).collect();
    names.sort_unstable();
    names.dedup();
    let unknown = names.into_iter().filter_map(|name| interfaces::number(name).err());
    unknown.map(|error| at(listener, error)).collect()
}

/// The Unix sockets that a listener names. Asks the system for users and groups.
pub fn unix_binds(listener: &ListenConfig) -> Result<Vec<UnixBind>, Vec<Error>> {
    let names = listener.addresses.iter().filter_map(|address| match address {
        ListenAddress::Unixgram(name) => Some((SocketKind::Datagrams, name.clone())),
        ListenAddress::Unix(path) => Some((SocketKind::Connections, UnixName::Path(path.clone()))),
        _ => None,
    });
    let options = &listener.options;
    let owner = options.owner.as_deref().map(cred::identity).transpose().map_err(|error| vec![at(listener, error)])?.map(|owner| owner.uid);
    let group = options.group.as_deref().map(cred::group_id).transpose().map_err(|error| vec![at(listener, error)])?;
    let mut errors = Vec::new();
    let mut binds = Vec::new();
    for (kind, name) in names {
        match name {
            UnixName::Path(path) if path.as_os_str().len() > UNIX_PATH_MAX_BYTES => {
                let error = Error::config(format!("the path of a socket is too long: {}", path.display()))
                    .detail(format_args!("{} bytes, the system's limit is {UNIX_PATH_MAX_BYTES}", path.as_os_str().len()));
                errors.push(at(listener, error.hint("choose a shorter path")));
            }
            name => binds.push(UnixBind { kind, name, mode: options.mode, owner, group, buffers: buffers(options) }),
        }
    }
    if errors.is_empty() { Ok(binds) } else { Err(errors) }
}

/// An error of the configuration, where it is configured. What looks up users speaks of `[host]`.
fn at(listener: &ListenConfig, error: Error) -> Error {
    let what = format!("{}: {}", listener.position, error.what);
    Error { what, detail: error.detail.replace("host.", ""), exit: EXIT_CONFIG, ..error }
}

fn inet_bind(address: SocketAddr, options: &ListenOptions) -> InetBind {
    InetBind {
        address,
        v6only: options.v6only || address.ip() != IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        interface: options.interface.clone(),
        multicast: options.multicast.clone(),
        buffers: buffers(options),
        busy_poll_us: options.busy_poll.map_or(0, |time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX)),
    }
}

fn buffers(options: &ListenOptions) -> Buffers {
    let bytes = |size: Option<usize>| size.and_then(|size| u32::try_from(size).ok());
    Buffers { receive_bytes: bytes(options.receive_buffer_bytes), send_bytes: bytes(options.send_buffer_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_for_each_address() {
        let options = ListenOptions { v6only: false, ..ListenOptions::default() };
        let addresses = ["127.0.0.1:5", "[::]:5"].map(|text| ListenAddress::Udp(text.parse().unwrap()));
        let found = sockets(&addresses, &options).unwrap();
        let expected = [
            Address::Udp(InetBind::plain("127.0.0.1:5".parse().unwrap())),
            Address::Udp(InetBind { v6only: false, ..InetBind::plain("[::]:5".parse().unwrap()) }),
        ];
        assert_eq!(found, expected);
        let of_interface = sockets(&[ListenAddress::UdpInterface("lo".into(), 5)], &options).unwrap();
        assert!(of_interface.contains(&expected[0]), "{of_interface:?}");
        assert!(sockets(&[ListenAddress::UdpInterface("nowhere".into(), 5)], &options).is_err());
    }
}
