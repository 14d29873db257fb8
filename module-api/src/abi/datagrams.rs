//! Listeners and datagrams.

use core::ffi::{c_char, c_void};

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

c_struct! {
    /// One datagram of a batch. Valid until the handler returns.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Datagram as modhost_datagram {
        /// The payload.
        pub data: *const u8,
        /// Length of the payload in bytes, 0 to 65,507.
        pub len: u32,
        /// Length of `peer` in bytes; 0: the sender has no address and cannot be answered.
        pub peer_len: u16,
        /// Length of `local` in bytes.
        pub local_len: u16,
        /// The sender: a `struct sockaddr_in`, `sockaddr_in6` or `sockaddr_un`, aligned to 4 bytes.
        pub peer: *const c_void,
        /// The address that the datagram was sent to, in the same form.
        pub local: *const c_void,
    }
}

c_struct! {
    /// What a datagram handler gets. Valid until the handler returns.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct UdpBatch as modhost_udp_batch {
        /// Size of this struct in bytes.
        pub size: u32,
        /// Number of datagrams, at least 1.
        pub count: u32,
        /// Array of [`Datagram`].
        pub datagrams: *const Datagram,
        /// Distance in bytes between two datagrams.
        pub stride: u32,
        /// Number of the listener that they arrived at.
        pub listener: u32,
    }
}

c_struct! {
    /// A listener that a module asks for.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct ListenSpec as modhost_listen_spec {
        /// Size of this struct in bytes.
        pub size: u32,
        /// `HANDLER_UDP` or `HANDLER_STREAM`.
        pub kind: u32,
        /// `ADDRESS:PORT`; with port 0 the kernel chooses the port.
        pub address: *const c_char,
        /// Name of a handler of the calling module; null: the first one of the kind.
        pub handler: *const c_char,
        /// Number of workers; 0: the configured default. Always 0 for a stream listener.
        pub workers: u32,
        /// Zero.
        pub reserved: u32,
    }
}
