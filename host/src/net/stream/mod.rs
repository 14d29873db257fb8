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

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use module_api::abi;

use crate::module::Module;

/// What a stream handler's functions look like, copied from the module's table.
#[derive(Debug, Clone, Copy)]
pub struct Functions {
    /// A new connection.
    pub on_open: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    /// Bytes that have arrived.
    pub on_data: extern "C" fn(stream: *mut abi::Stream, data: *const u8, len: usize) -> i64,
    /// There is room again.
    pub on_writable: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    /// The peer has finished sending.
    pub on_end: Option<extern "C" fn(stream: *mut abi::Stream, unused: usize) -> i32>,
    /// It is over.
    pub on_close: Option<extern "C" fn(stream: *mut abi::Stream, reason: u32)>,
}

/// What a connection may take. Zero stands for no limit, except in the byte sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// From the first byte that the handler has not used to its use.
    pub read: Duration,
    /// From the opening to the end.
    pub total: Duration,
    /// Connections of the listener.
    pub connections: u32,
    /// Connections of the listener from one address.
    pub per_address: u32,
    /// Bytes that a handler may leave unused.
    pub input_bytes: usize,
    /// Queued bytes at which the peer is not read from any more; a quarter of it is the low-water mark.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(75),
            read: Duration::from_secs(60),
            total: Duration::ZERO,
            connections: 0,
            per_address: 0,
            input_bytes: 1 << 20,
            output_bytes: 256 << 10,
        }
    }
}

/// Who accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// TCP main, which gives each connection to the worker with the least load.
    #[default]
    Main,
    /// Each worker for itself.
    Workers,
}

/// A bound listener for connections.
#[derive(Debug)]
pub struct StreamListener {
    /// Its number, as modules know it.
    pub index: u32,
    /// What the operator calls it: `tcp 127.0.0.1:80`.
    pub name: String,
    /// Its socket.
    pub socket: OwnedFd,
    /// Whose handler serves it.
    pub module: &'static Module,
    /// Name of the handler.
    pub handler: String,
    /// The handler.
    pub functions: Functions,
    /// What its connections may take.
    pub limits: Limits,
    /// Who accepts.
    pub accept: Accept,
}

impl fmt::Display for StreamListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl AsFd for StreamListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
