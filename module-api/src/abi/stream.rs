//! Connections at the line: what a handler is made of, and what it gets.

use std::ffi::c_void;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// What a stream handler does with a connection. A negative return closes that connection, and no other; a panic ends the process.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct StreamFunctions {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// A new connection; before any data. May be null.
    pub on_open: Option<extern "C" fn(stream: *mut Stream) -> i32>,
    /// Bytes that have arrived and were not used yet: `len` (at least 1) of them, valid until the return. Returns how many were used, 0 to
    /// `len`; the rest comes again, with more behind it. Must not be null.
    pub on_data: Option<extern "C" fn(stream: *mut Stream, data: *const u8, len: usize) -> i64>,
    /// The queue had reached its high-water mark and has fallen below the low one: there is room again. May be null.
    pub on_writable: Option<extern "C" fn(stream: *mut Stream) -> i32>,
    /// The peer has finished sending; `unused` bytes of what it sent were never used. Null: what is queued is sent, then the connection closed.
    pub on_end: Option<extern "C" fn(stream: *mut Stream, unused: usize) -> i32>,
    /// The connection is over (`CLOSED_*`); the last call about it. Called once if `on_open` was called and succeeded. May be null.
    pub on_close: Option<extern "C" fn(stream: *mut Stream, reason: u32)>,
}

/// A connection, as its handler sees it. Made by the host; lives from `on_open` to the return of `on_close`, in one process.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Stream {
    /// Size of this struct in bytes.
    pub size: u32,
    /// The listener it came to.
    pub listener: u32,
    /// Names this connection in every process, and never another one.
    pub id: u64,
    /// The module's. Zero at first.
    pub user: *mut c_void,
    /// The peer's socket address; of an unnamed Unix socket its family alone.
    pub peer: *const c_void,
    /// Length of `peer` in bytes.
    pub peer_len: u32,
    /// Length of `alpn` in bytes.
    pub alpn_len: u32,
    /// With TLS, the application protocol that was agreed on; null without.
    pub alpn: *const u8,
    /// With TLS, the host name that the client asked for; null without.
    pub server_name: *const u8,
    /// Length of `server_name` in bytes.
    pub server_name_len: u32,
    /// 1 with TLS, 0 without.
    pub tls: u32,
}
