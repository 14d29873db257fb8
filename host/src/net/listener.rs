//! A listener: bound sockets, and the module's handler that serves them.
//!
//! *Runs in:* made in main at `seal`; inherited by every process. *Never:* changes afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use module_api::abi;
use nix::errno::Errno;

use crate::config::{Accept, StreamOptions, TlsOptions};
use crate::module::{Module, StreamFunctions};
use crate::sys::socket::socket_address::SocketAddress;
use crate::sys::udp::socket::{BoundTo, Socket};

/// The function of a datagram handler.
pub type OnDatagrams = extern "C" fn(batch: *mut abi::UdpBatch) -> i32;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    /// Its number, as modules know it, and its place in the state's list.
    pub index: u32,
    /// Its sockets, at least one. Each knows where it is bound, with the real port.
    pub sockets: Vec<Socket>,
    /// Whose handler serves it.
    pub module: &'static Module,
    /// Name of the handler.
    pub handler: String,
    /// What the handler takes.
    pub service: Service,
}

/// What a listener serves, and how.
#[derive(Debug)]
pub enum Service {
    /// Datagrams, by UDP workers of its own.
    Datagrams(DatagramService),
    /// Connections, by the TCP workers.
    Connections(StreamService),
}

/// How datagrams are served.
#[derive(Debug)]
pub struct DatagramService {
    /// The handler.
    pub on_datagrams: OnDatagrams,
    /// How many workers serve the listener.
    pub workers: u32,
}

/// How connections are served.
#[derive(Debug)]
pub struct StreamService {
    /// The handler.
    pub functions: StreamFunctions,
    /// What its connections may take, and who accepts them.
    pub options: StreamOptions,
    /// How its connections are encrypted; without: not at all.
    pub tls: Option<TlsOptions>,
}

impl Listener {
    /// How its datagrams are served, if it takes datagrams.
    pub fn datagrams(&self) -> Option<&DatagramService> {
        match &self.service {
            Service::Datagrams(service) => Some(service),
            Service::Connections(_) => None,
        }
    }

    /// How its connections are served, if it takes connections.
    pub fn connections(&self) -> Option<&StreamService> {
        match &self.service {
            Service::Datagrams(_) => None,
            Service::Connections(service) => Some(service),
        }
    }

    /// Sends one datagram at once, from the first socket that can reach the peer.
    pub fn send(&self, peer: &SocketAddress, data: &[u8]) -> Result<(), Errno> {
        let socket = self.sockets.iter().find(|socket| socket.reaches(peer)).ok_or(Errno::EAFNOSUPPORT)?;
        socket.send(None, peer, data)
    }

    /// Sends one datagram at once from that local address. `EINVAL` if the listener is not bound to
    /// it.
    pub fn send_from(&self, local: &SocketAddress, peer: &SocketAddress, data: &[u8]) -> Result<(), Errno> {
        let bound = |socket: &&Socket| socket.name.inet() == local.inet() && socket.name.unix_bytes() == local.unix_bytes();
        if let Some(socket) = self.sockets.iter().find(bound) {
            return socket.send(None, peer, data);
        }
        let from = local.inet().filter(|local| !local.ip().is_multicast()).ok_or(Errno::EINVAL)?;
        let covers = |socket: &&Socket| match (socket.bound_to, from) {
            _ if socket.name.inet().map(|own| own.port()) != Some(from.port()) => false,
            (BoundTo::AnyAddress, _) | (BoundTo::AnyIpv4, SocketAddr::V4(_)) | (BoundTo::AnyIpv6, SocketAddr::V6(_)) => true,
            _ => false,
        };
        let socket = self.sockets.iter().find(covers).filter(|socket| socket.reaches(peer)).ok_or(Errno::EINVAL)?;
        // Kernels and families report an address that is not this machine's with different errors.
        let not_ours = |errno| matches!(errno, Errno::EADDRNOTAVAIL | Errno::ENETUNREACH | Errno::ENODEV);
        socket.send(Some(from.ip()), peer, data).map_err(|errno| if not_ours(errno) { Errno::EINVAL } else { errno })
    }

    /// The transport and every address: `tcp 127.0.0.1:80,[::1]:80`.
    pub fn addresses(&self) -> String {
        let names: Vec<String> = self.sockets.iter().map(|socket| socket.name.to_string()).collect();
        format!("{} {}", self.transport(), names.join(","))
    }

    fn transport(&self) -> &'static str {
        let is_unix = self.sockets.first().is_some_and(|socket| socket.bound_to == BoundTo::Unix);
        match (&self.service, is_unix) {
            (Service::Datagrams(_), false) => "udp",
            (Service::Datagrams(_), true) => "unixgram",
            (Service::Connections(_), false) => "tcp",
            (Service::Connections(_), true) => "unix",
        }
    }
}

/// For titles, tables and log lines: of several datagram addresses the first and how many more there
/// are.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, self.sockets.as_slice()) {
            (Service::Datagrams(_), [first, more @ ..]) if !more.is_empty() => {
                write!(f, "{} {} (and {} more)", self.transport(), first.name, more.len())
            }
            _ => f.write_str(&self.addresses()),
        }
    }
}

/// The sockets of the listeners whose connections these processes accept, with the listener's index.
pub fn accepted_by(listeners: &'static [Listener], accepts: impl Fn(Accept) -> bool) -> Vec<(usize, BorrowedFd<'static>)> {
    let chosen = listeners.iter().filter(|listener| listener.connections().is_some_and(|service| accepts(service.options.accept)));
    chosen.flat_map(|listener| listener.sockets.iter().map(move |socket| (listener.index as usize, socket.as_fd()))).collect()
}
