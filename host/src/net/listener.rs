//! A listener: addresses, their sockets, and the module's handler that serves them.
//!
//! *Runs in:* made in main after every `init_f`; inherited by every process. *Never:* changes afterwards.

use std::fmt;
use std::net::SocketAddr;

use module_api::abi;
use nix::errno::Errno;

use crate::module::Module;
use crate::sys::names::Name;
use crate::sys::wide::{Form, Socket};

/// What a datagram handler looks like.
pub type OnDatagrams = extern "C" fn(batch: *mut abi::UdpBatch) -> i32;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    /// Its number, as modules know it.
    pub index: u32,
    /// Its sockets, at least one; each knows where it is bound, with the real port.
    pub sockets: Vec<Socket>,
    /// Whose handler serves it.
    pub module: &'static Module,
    /// Name of the handler.
    pub handler: String,
    /// The handler.
    pub on_datagrams: OnDatagrams,
    /// How many processes serve it.
    pub workers: u32,
}

impl Listener {
    /// Sends one datagram at once, from the first socket that can reach the peer.
    pub fn send(&self, peer: &Name, data: &[u8]) -> Result<(), Errno> {
        let socket = self.sockets.iter().find(|socket| socket.reaches(peer)).ok_or(Errno::EAFNOSUPPORT)?;
        socket.send(None, peer, data)
    }

    /// The same from that address. `EINVAL` if the listener is not bound to it.
    pub fn send_from(&self, local: &Name, peer: &Name, data: &[u8]) -> Result<(), Errno> {
        let bound = |socket: &&Socket| socket.name.inet() == local.inet() && socket.name.unix_bytes() == local.unix_bytes();
        if let Some(socket) = self.sockets.iter().find(bound) {
            return socket.send(None, peer, data);
        }
        let from = local.inet().filter(|local| !local.ip().is_multicast()).ok_or(Errno::EINVAL)?;
        let covers = |socket: &&Socket| match (socket.form, from) {
            _ if socket.name.inet().map(|own| own.port()) != Some(from.port()) => false,
            (Form::AnyBoth, _) | (Form::Any4, SocketAddr::V4(_)) | (Form::Any6, SocketAddr::V6(_)) => true,
            _ => false,
        };
        let socket = self.sockets.iter().find(covers).filter(|socket| socket.reaches(peer)).ok_or(Errno::EINVAL)?;
        // How the kernel says that the address is none of this machine's depends on its version and the family.
        let not_ours = |errno| matches!(errno, Errno::EADDRNOTAVAIL | Errno::ENETUNREACH | Errno::ENODEV);
        socket.send(Some(from.ip()), peer, data).map_err(|errno| if not_ours(errno) { Errno::EINVAL } else { errno })
    }

    /// Every address, with commas.
    pub fn addresses(&self) -> String {
        let names: Vec<String> = self.sockets.iter().map(|socket| socket.name.to_string()).collect();
        format!("{} {}", self.kind(), names.join(","))
    }

    fn kind(&self) -> &'static str {
        match self.sockets.first() {
            Some(socket) if socket.form == Form::Unix => "unixgram",
            _ => "udp",
        }
    }
}

/// Short, for titles and tables: the first address, and how many more there are.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sockets.as_slice() {
            [] => f.write_str("nothing"),
            [one] => write!(f, "{} {}", self.kind(), one.name),
            [first, more @ ..] => write!(f, "{} {} (and {} more)", self.kind(), first.name, more.len()),
        }
    }
}
