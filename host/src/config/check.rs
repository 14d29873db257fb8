//! Errors between two entries: the same address or the same module twice.
//!
//! *Runs in:* the supervisor, after parsing and again after merging the command line. *Never:*
//! compares files: two paths of one file are found when modules are resolved.
//!
//! *Pure:* no clock, no environment, no system call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use super::{Config, ListenAddress, ListenConfig};
use crate::error::Error;

/// Reports each listener and module that repeats an earlier one, with both positions.
pub(super) fn check_duplicates(config: &Config) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut modules = HashMap::new();
    for module in &config.modules {
        match modules.entry(&module.source) {
            Entry::Vacant(place) => {
                place.insert(&module.position);
            }
            Entry::Occupied(first) => errors.push(
                Error::config(format!("{}: the module \"{}\" is configured twice", module.position, module.source))
                    .detail(format_args!("first at {}", first.get()))
                    .hint("keep one of them; each module is loaded once"),
            ),
        }
    }
    let mut listeners = HashMap::new();
    let mut ports = Ports::default();
    for listener in &config.listeners {
        for address in listener.addresses.iter().filter(|address| !is_any_port(address)) {
            // Sockets of different interfaces do not conflict.
            match listeners.entry((address, listener.options.socket.interface.as_deref())) {
                Entry::Vacant(place) => {
                    place.insert(&listener.position);
                    errors.extend(ports.add(listener, address));
                }
                Entry::Occupied(first) => errors.push(
                    Error::config(format!("{}: {address} is listened on twice", listener.position))
                        .detail(format_args!("first at {}", first.get()))
                        .hint("one listener has one handler; for more processes set its \"workers\""),
                ),
            }
        }
    }
    errors
}

/// The UDP listeners, by port.
#[derive(Debug, Default)]
struct Ports<'c>(HashMap<Port<'c>, PortUse<'c>>);

/// A port of one interface (none: of all), for IPv4 (true) or IPv6.
type Port<'c> = (u16, Option<&'c str>, bool);

/// The first listener at all addresses of a port, and the first at a single one.
#[derive(Debug, Default)]
struct PortUse<'c> {
    all: Option<(&'c ListenConfig, SocketAddr)>,
    single: Option<(&'c ListenConfig, SocketAddr)>,
}

impl<'c> Ports<'c> {
    /// Reports a conflict between a single address and all addresses, which the kernel refuses.
    fn add(&mut self, listener: &'c ListenConfig, address: &ListenAddress) -> Option<Error> {
        let ListenAddress::Udp(address) = *address else { return None };
        let dual = address.is_ipv6() && address.ip().is_unspecified() && !listener.options.socket.v6only;
        let mut error = None;
        for is_ipv4 in [true, false].into_iter().filter(|is_ipv4| dual || *is_ipv4 == address.is_ipv4()) {
            let port = self.0.entry((address.port(), listener.options.socket.interface.as_deref(), is_ipv4)).or_default();
            let (other, own) = match address.ip().is_unspecified() {
                true => (port.single.or(port.all), &mut port.all),
                false => (port.all, &mut port.single),
            };
            own.get_or_insert((listener, address));
            if let (Some((first, taken)), None) = (other, &error) {
                error = Some(
                    Error::config(format!("{}: udp://{address} cannot be listened on beside udp://{taken}", listener.position))
                        .detail(format_args!("that one is at {}", first.position))
                        .hint("an address of all interfaces covers the single ones at its port; keep one of them, or choose another port"),
                );
            }
        }
        error
    }
}

/// With port 0 the kernel chooses another port each time.
fn is_any_port(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Udp(address) | ListenAddress::Tcp(address) => address.port() == 0,
        ListenAddress::UdpScoped(_, _, port) | ListenAddress::UdpInterface(_, port) => *port == 0,
        ListenAddress::Unix(_) | ListenAddress::Unixgram(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn an_address_conflicts_with_all_addresses_of_its_port() {
        let listen = |udp: &str, more: &str| format!("[[listen]]\nhandler = \"x\"\nudp = {udp}\n{more}\n");
        let dual = "v6only = false";
        for (text, refused) in [
            (listen("[\"0.0.0.0:5\", \"127.0.0.1:5\"]", ""), true),
            (listen("[\"127.0.0.1:5\", \"0.0.0.0:5\"]", ""), true),
            (listen("[\"127.0.0.1:5\", \"127.0.0.2:5\"]", ""), false),
            (listen("[\"127.0.0.1:5\", \"0.0.0.0:6\"]", ""), false),
            (listen("[\"[::]:5\", \"0.0.0.0:5\"]", ""), false),
            (listen("[\"[::]:5\", \"0.0.0.0:5\"]", dual), true),
            (listen("[\"[::]:5\", \"127.0.0.1:5\"]", dual), true),
            (listen("[\"[::]:5\", \"[::1]:5\"]", ""), true),
            (listen("\"[::1]:5\"", "") + &listen("\"[::]:5\"", ""), true),
            (listen("\"0.0.0.0:5\"", "interface = \"a\"") + &listen("\"0.0.0.0:5\"", "interface = \"b\""), false),
            (listen("\"0.0.0.0:5\"", "interface = \"a\"") + &listen("\"0.0.0.0:5\"", "interface = \"a\""), true),
            (listen("[\"0.0.0.0:0\", \"127.0.0.1:0\"]", ""), false),
        ] {
            let outcome = crate::config::parse(&text, Path::new("t.toml"));
            assert_eq!(outcome.is_err(), refused, "{text}{outcome:?}");
        }
    }
}
