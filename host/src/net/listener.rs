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

pub type OnDatagrams = extern "C" fn(batch: *mut abi::UdpBatch) -> i32;

#[derive(Debug)]
pub struct Listener {
    /// Its number in the ABI, and its index in `State::listeners`.
    pub index: u32,
    /// At least one. Each knows where it is bound, with the port that the kernel chose.
    pub sockets: Vec<Socket>,
    pub module: &'static Module,
    pub handler: String,
    pub service: Service,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per listener, and a box would be one more pointer to follow")]
pub enum Service {
    /// Served by the listener's UDP workers.
    Datagrams(DatagramService),
    /// Served by the TCP workers.
    Connections(StreamService),
}

#[derive(Debug)]
pub struct DatagramService {
    pub on_datagrams: OnDatagrams,
    /// Number of UDP workers.
    pub workers: u32,
}

#[derive(Debug)]
pub struct StreamService {
    pub functions: StreamFunctions,
    pub options: StreamOptions,
    /// None: connections are not encrypted.
    pub tls: Option<TlsOptions>,
}

impl Listener {
    pub fn datagrams(&self) -> Option<&DatagramService> {
        match &self.service {
            Service::Datagrams(service) => Some(service),
            Service::Connections(_) => None,
        }
    }

    pub fn connections(&self) -> Option<&StreamService> {
        match &self.service {
            Service::Datagrams(_) => None,
            Service::Connections(service) => Some(service),
        }
    }

    /// Sends a datagram from the first socket that can reach the peer.
    pub fn send(&self, peer: &SocketAddress, data: &[u8]) -> Result<(), Errno> {
        let socket = self.sockets.iter().find(|socket| socket.reaches(peer)).ok_or(Errno::EAFNOSUPPORT)?;
        socket.send(None, peer, data)
    }

    /// Sends a datagram from a local address. `EINVAL`: the listener is not bound to it.
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
        // For a foreign address the error differs between kernels and address families.
        let is_foreign = |errno| matches!(errno, Errno::EADDRNOTAVAIL | Errno::ENETUNREACH | Errno::ENODEV);
        socket.send(Some(from.ip()), peer, data).map_err(|errno| if is_foreign(errno) { Errno::EINVAL } else { errno })
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

/// For titles, tables and log lines: the first of several datagram addresses, and their number.
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

/// The sockets of the listeners that accept in one of these ways, each with its listener's index.
pub fn accepted_by(listeners: &'static [Listener], accepts: impl Fn(Accept) -> bool) -> Vec<(usize, BorrowedFd<'static>)> {
    let chosen = listeners.iter().filter(|listener| listener.connections().is_some_and(|service| accepts(service.options.accept)));
    chosen.flat_map(|listener| listener.sockets.iter().map(move |socket| (listener.index as usize, socket.as_fd()))).collect()
}
