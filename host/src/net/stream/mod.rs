//! Connections: the TCP main process accepts them, the TCP workers serve them, and every process can name them.
//!
//! *Runs in:* TCP main (`hub`), TCP workers (`server`), main in no-fork mode (both). *Never:* looks into what a connection carries.
//!
//! ```text
//! TCP main                         TCP worker 1 .. n
//! accept a batch
//! choose the least loaded worker
//! descriptors ── link ───────────► open, read, handler, send, close
//!
//! process with a link
//! bytes for a connection ─ link ─► TCP main ─ link ─► its worker: queued
//!              ◄─ link ─ answer ◄─ TCP main ◄─ link ─ answer
//! ```
//!
//! Main keeps both ends of every link, so that any of these processes can be replaced without the others noticing: what stands in a link
//! is read by the successor.

pub mod connection;
pub mod directory;
pub mod exchange;
pub mod hub;
pub mod link;
pub mod output;
pub mod sender;
pub mod server;
pub mod tls;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use crate::config::{StreamOptions, TlsOptions};
use crate::module::{Module, StreamFunctions};
use crate::sys::wide::Socket;

/// A bound listener for connections.
#[derive(Debug)]
pub struct StreamListener {
    /// Its number, as modules know it.
    pub index: u32,
    /// What the operator calls it: `tcp 127.0.0.1:80`.
    pub name: String,
    /// Its sockets, at least one.
    pub sockets: Vec<Socket>,
    /// Whose handler serves it.
    pub module: &'static Module,
    /// Name of the handler.
    pub handler: String,
    /// The handler.
    pub functions: StreamFunctions,
    /// What its connections may take, and who accepts them.
    pub options: StreamOptions,
    /// How its connections are encrypted; none: not at all.
    pub tls: Option<TlsOptions>,
}

impl fmt::Display for StreamListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The sockets of all listeners of which that is true, with the listener's place in the list.
pub fn sockets(listeners: &'static [StreamListener], which: impl Fn(&StreamListener) -> bool) -> Vec<(usize, BorrowedFd<'static>)> {
    let chosen = listeners.iter().enumerate().filter(|(_, listener)| which(listener));
    chosen.flat_map(|(place, listener)| listener.sockets.iter().map(move |socket| (place, socket.as_fd()))).collect()
}
