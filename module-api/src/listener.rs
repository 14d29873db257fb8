//! Listeners: requested in `init`, found and sent from later.
//!
//! The socket belongs to the host; the module has its number.

use std::fmt;
use std::net::SocketAddr;

use crate::abi::{self, ListenSpec};
use crate::address::Address;
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
    /// Listens on `ADDRESS:PORT`; with port 0 the kernel chooses the port. Served by the module's
    /// first UDP handler, with the configured default number of workers.
    pub fn new(address: &'a str) -> UdpListen<'a> {
        UdpListen { address, handler: None, workers: 0 }
    }

    /// Has the listener served by this handler of the module.
    #[must_use]
    pub fn handler(self, name: &'a str) -> UdpListen<'a> {
        UdpListen { handler: Some(name), ..self }
    }

    /// Has the listener served by `count` worker processes; 0 means the configured default.
    #[must_use]
    pub fn workers(self, count: u32) -> UdpListen<'a> {
        UdpListen { workers: count, ..self }
    }

    pub(crate) fn register(self) -> Result<Listener> {
        Listener::ask(abi::HANDLER_UDP, self.address, self.handler, self.workers)
    }
}

/// A listener of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listener {
    number: u32,
}

impl Listener {
    /// Asks for one, in `init`.
    pub(crate) fn ask(kind: u32, address: &str, handler: Option<&str>, workers: u32) -> Result<Listener> {
        let address = c_string("address", address)?;
        let handler = handler.map(|name| c_string("handler", name)).transpose()?;
        let spec = ListenSpec {
            size: size_of::<ListenSpec>() as u32,
            kind,
            address: address.as_ptr(),
            handler: handler.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            workers,
            ..ListenSpec::EMPTY
        };
        let host = host();
        let number = check("listen", (host.api.listen)(host.module, &raw const spec))?;
        Ok(Listener { number })
    }

    pub(crate) fn new(number: u32) -> Listener {
        Listener { number }
    }

    /// The `index`-th listener that the module's handlers serve.
    pub(crate) fn find(index: u32) -> Option<Listener> {
        let host = host();
        u32::try_from((host.api.listener_find)(host.module, index)).ok().map(Listener::new)
    }

    /// The address it is bound to, with the port that the kernel chose; the first one, if it has
    /// several. Any process, from `proc_init` on.
    ///
    /// # Errors
    /// In `init`, before the listener is bound; if the address is that of a Unix socket.
    pub fn address(self) -> Result<SocketAddr> {
        let host = host();
        let mut raw = RawAddress::empty();
        let code = (host.api.listener_address)(host.module, self.number, raw.as_mut_ptr().cast(), RawAddress::SIZE);
        let len = check("listener_address", code)?;
        raw.filled(len as usize).and_then(|address| address.inet()).ok_or_else(|| Error::new("the listener has no internet address"))
    }

    /// Every address it is bound to, at least one, in the order of the configuration. Any process,
    /// from `proc_init` on.
    ///
    /// # Errors
    /// In `init`, before the listener is bound.
    pub fn addresses(self) -> Result<Vec<Address<'static>>> {
        let host = host();
        let mut addresses = Vec::new();
        for nth in 0.. {
            let mut raw = RawAddress::empty();
            let code = (host.api.listener_address_at)(host.module, self.number, nth, raw.as_mut_ptr().cast(), RawAddress::SIZE);
            if code == abi::E_INVALID && nth > 0 {
                break;
            }
            let len = check("listener_address_at", code)?;
            let address = raw.filled(len as usize).ok_or_else(|| Error::new("the host gave an address of an unknown kind"))?;
            addresses.push(address.into_owned());
        }
        Ok(addresses)
    }

    /// Sends one datagram at once, from the listener's socket; if it has several, from the first
    /// that can reach the peer. Any process, from `proc_init` on. In a datagram handler
    /// [`Datagram::reply`](crate::Datagram::reply) is much cheaper.
    ///
    /// # Errors
    /// See [`SendError`]. Success does not mean that the datagram arrives.
    pub fn send_to<'a>(self, peer: impl Into<Address<'a>>, data: &[u8]) -> Result<(), SendError> {
        let host = host();
        let peer = RawAddress::new(&peer.into()).ok_or(SendError::NoPeer)?;
        let code = (host.api.udp_send)(host.module, self.number, peer.as_ptr().cast(), peer.len(), data.as_ptr(), data.len());
        SendError::from_code(code)
    }

    /// As [`send_to`](Listener::send_to), from the listener's address `local`, for example
    /// [`Datagram::local`](crate::Datagram::local).
    ///
    /// # Errors
    /// As `send_to`; [`SendError::Invalid`] also if the listener cannot send from `local`: it is
    /// bound to other addresses, `local` is a multicast group, or it is not an address of this
    /// machine.
    pub fn send_from<'a, 'b>(self, local: impl Into<Address<'a>>, peer: impl Into<Address<'b>>, data: &[u8]) -> Result<(), SendError> {
        let host = host();
        let local = RawAddress::new(&local.into()).ok_or(SendError::Invalid)?;
        let peer = RawAddress::new(&peer.into()).ok_or(SendError::NoPeer)?;
        let (from, to) = (local.as_ptr().cast(), peer.as_ptr().cast());
        let code = (host.api.udp_send_from)(host.module, self.number, from, local.len(), to, peer.len(), data.as_ptr(), data.len());
        SendError::from_code(code)
    }
}

/// Why a datagram was not sent or an answer not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Longer than 65,507 bytes, no such listener, or a listener that cannot reach the peer.
    Invalid,
    /// The sender has no address to answer to, or the given address is unnamed or not one that a
    /// socket can have.
    NoPeer,
    /// The socket takes no more datagrams at the moment.
    Busy,
    /// Called inside the closure of [`Datagram::reply_with`](crate::Datagram::reply_with), which is
    /// still writing its answer.
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
            abi::E_NO_PEER => Err(SendError::NoPeer),
            abi::E_BUSY => Err(SendError::Busy),
            _ => Err(SendError::System),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Invalid => "the datagram is too long, or its listener does not exist or cannot reach the peer",
            SendError::NoPeer => "the peer has no address",
            SendError::Busy => "the socket takes no more datagrams at the moment",
            SendError::Nested => "another answer is being written",
            SendError::System => "the kernel refused the datagram",
        })
    }
}

impl std::error::Error for SendError {}
