//! Listeners: asking for one in `init`, naming one later, sending from one.
//!
//! The socket itself belongs to the host; the module holds a number.

use std::fmt;
use std::net::SocketAddr;

use crate::abi::{self, ListenSpec};
use crate::host::{c_string, check, host};
use crate::sockaddr::RawAddress;
use crate::{Error, Result};

/// A UDP listener that a module asks for with [`ModInit::listen_udp`](crate::ModInit::listen_udp).
///
/// ```
/// # use module_api::UdpListen;
/// let listen = UdpListen::new("127.0.0.1:0").handler("echo").workers(2);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct UdpListen<'a> {
    address: &'a str,
    handler: Option<&'a str>,
    workers: u32,
}

impl<'a> UdpListen<'a> {
    /// Listens on `ADDRESS:PORT`; port 0 lets the kernel choose. Served by the module's first UDP handler, with as many workers as
    /// the configuration gives a listener.
    pub fn new(address: &'a str) -> UdpListen<'a> {
        UdpListen { address, handler: None, workers: 0 }
    }

    /// Served by this handler of the module.
    #[must_use]
    pub fn handler(self, name: &'a str) -> UdpListen<'a> {
        UdpListen { handler: Some(name), ..self }
    }

    /// Served by `count` worker processes; 0 is the configured default.
    #[must_use]
    pub fn workers(self, count: u32) -> UdpListen<'a> {
        UdpListen { workers: count, ..self }
    }

    pub(crate) fn register(self) -> Result<Listener> {
        let address = c_string("address", self.address)?;
        let handler = self.handler.map(|name| c_string("handler", name)).transpose()?;
        let spec = ListenSpec {
            size: size_of::<ListenSpec>() as u32,
            kind: abi::HANDLER_UDP,
            address: address.as_ptr(),
            handler: handler.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            workers: self.workers,
            reserved: 0,
        };
        let host = host();
        let number = check("listen", (host.api.listen)(host.module, &raw const spec))?;
        Ok(Listener { number })
    }
}

/// A listener of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listener {
    number: u32,
}

impl Listener {
    pub(crate) fn new(number: u32) -> Listener {
        Listener { number }
    }

    /// The `index`-th listener that the module's handlers serve.
    pub(crate) fn find(index: u32) -> Option<Listener> {
        let host = host();
        u32::try_from((host.api.listener_find)(host.module, index)).ok().map(Listener::new)
    }

    /// The address it is bound to, with the port that the kernel chose. Any process, from `proc_init` on.
    ///
    /// # Errors
    /// In `init`, when it is not bound yet.
    pub fn address(self) -> Result<SocketAddr> {
        let host = host();
        let mut raw = RawAddress::empty();
        let code = (host.api.listener_address)(host.module, self.number, raw.as_mut_ptr().cast(), RawAddress::SIZE);
        let len = check("listener_address", code)?;
        raw.filled(len as usize).ok_or_else(|| Error::new("the listener has no internet address"))
    }

    /// Sends one datagram from the listener's socket, at once. Any process, from `proc_init` on; in a datagram handler
    /// [`Datagram::reply`](crate::Datagram::reply) is much cheaper.
    ///
    /// # Errors
    /// See [`SendError`]. As always with UDP, success does not mean that it arrives.
    pub fn send_to(self, peer: SocketAddr, data: &[u8]) -> Result<(), SendError> {
        let host = host();
        let peer = RawAddress::new(peer);
        let code = (host.api.udp_send)(host.module, self.number, peer.as_ptr().cast(), peer.len(), data.as_ptr(), data.len());
        SendError::from_code(code)
    }
}

/// Why a datagram was not sent or an answer not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Longer than 65,507 bytes, or no such listener.
    Invalid,
    /// The socket takes no more at the moment.
    Busy,
    /// The closure of [`Datagram::reply_with`](crate::Datagram::reply_with) is still writing its answer.
    Nested,
    /// The kernel refused; the host has logged why.
    System,
}

impl SendError {
    #[inline]
    pub(crate) fn from_code(code: i32) -> Result<(), SendError> {
        match code {
            abi::OK => Ok(()),
            abi::E_INVALID => Err(SendError::Invalid),
            abi::E_BUSY => Err(SendError::Busy),
            _ => Err(SendError::System),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Invalid => "the datagram is too long or its listener does not exist",
            SendError::Busy => "the socket takes no more at the moment",
            SendError::Nested => "another answer is being written",
            SendError::System => "the kernel refused the datagram",
        })
    }
}

impl std::error::Error for SendError {}
