//! Connections: the functions of a handler, and what they get.

use core::ffi::c_void;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// [`StreamFunctions::on_close`]: the module asked for it, or both sides had finished.
pub const CLOSED_NORMALLY: u32 = 0;
/// [`StreamFunctions::on_close`]: the peer is gone, or the connection was reset.
pub const CLOSED_BY_PEER: u32 = 1;
/// [`StreamFunctions::on_close`]: a time limit of the listener.
pub const CLOSED_BY_TIMEOUT: u32 = 2;
/// [`StreamFunctions::on_close`]: a limit on buffered bytes.
pub const CLOSED_BY_LIMIT: u32 = 3;
/// [`StreamFunctions::on_close`]: a function of the handler returned a failure.
pub const CLOSED_BY_ERROR: u32 = 4;
/// [`StreamFunctions::on_close`]: the worker stops.
pub const CLOSED_BY_STOP: u32 = 5;

/// `stream_close`: send what is queued, then close.
pub const CLOSE_AFTER_SENDING: u32 = 0;
/// `stream_close`: drop what is queued, reset the connection.
pub const CLOSE_NOW: u32 = 1;
/// `stream_close`: send what is queued, then end this side; the peer may go on sending.
pub const CLOSE_SENDING_SIDE: u32 = 2;

c_struct! {
    /// The functions of a stream handler. A negative return closes that connection and no other; a
    /// panic ends the process.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct StreamFunctions as modhost_stream_functions {
        /// Size of this struct in bytes.
        pub size: u32,
        /// Zero.
        pub reserved: u32,
        /// A new connection, before any data. May be null.
        pub on_open: Option<extern "C" fn(stream: *mut Stream) -> i32>,
        /// `len` bytes (at least 1) that have arrived and were not used yet, valid until the
        /// return. Returns how many were used, 0 to `len`; the rest is passed again, followed by
        /// what arrives later. Must not be null.
        pub on_data: Option<extern "C" fn(stream: *mut Stream, data: *const u8, len: usize) -> i64>,
        /// The queue had reached its high-water mark and has fallen below the low-water mark: it
        /// takes bytes again. May be null.
        pub on_writable: Option<extern "C" fn(stream: *mut Stream) -> i32>,
        /// The peer has finished sending; `unused` of its bytes were never used. Null: the host
        /// sends what is queued, then closes the connection.
        pub on_end: Option<extern "C" fn(stream: *mut Stream, unused: usize) -> i32>,
        /// The connection is over (`CLOSED_*`); the last call about it. Called once if `on_open`
        /// was called and succeeded. May be null.
        pub on_close: Option<extern "C" fn(stream: *mut Stream, reason: u32)>,
    }
}

c_struct! {
    /// A connection. Made by the host; lives from `on_open` to the return of `on_close`, in one
    /// process.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Stream as modhost_stream {
        /// Size of this struct in bytes.
        pub size: u32,
        /// Number of the listener that accepted it.
        pub listener: u32,
        /// Names this connection in every process, and never another one.
        pub id: u64,
        /// For the module's use. Null at first.
        pub user: *mut c_void,
        /// The peer's socket address; of an unnamed Unix socket its family alone.
        pub peer: *const c_void,
        /// Length of `peer` in bytes.
        pub peer_len: u32,
        /// Length of `alpn` in bytes.
        pub alpn_len: u32,
        /// With TLS, the agreed application protocol; null without.
        pub alpn: *const u8,
        /// With TLS, the host name that the client asked for; null without.
        pub server_name: *const u8,
        /// Length of `server_name` in bytes.
        pub server_name_len: u32,
        /// 1 with TLS, 0 without.
        pub tls: u32,
    }
}
