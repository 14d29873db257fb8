//! A listener: an address, its socket, and the module's handler that serves it.
//!
//! *Runs in:* made in main after every `init_f`; inherited by every process. *Never:* changes afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use module_api::abi;

use crate::module::Module;

/// What a datagram handler looks like.
pub type OnDatagrams = extern "C" fn(batch: *mut abi::UdpBatch) -> i32;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    /// Its number, as modules know it.
    pub index: u32,
    /// Where it is bound; the port is the real one.
    pub address: SocketAddr,
    /// Its socket.
    pub socket: OwnedFd,
    /// Whose handler serves it.
    pub module: &'static Module,
    /// Name of the handler.
    pub handler: String,
    /// The handler.
    pub on_datagrams: OnDatagrams,
    /// How many processes serve it.
    pub workers: u32,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp {}", self.address)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
