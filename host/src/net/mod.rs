//! Listeners, and serving what arrives at them.
//!
//! *Runs in:* bound by the supervisor (main in no-fork mode), served by workers. *Never:*
//! interprets the content of a datagram.

pub(crate) mod address;
pub(crate) mod bind;
pub(crate) mod listener;
pub(crate) mod resolve;
pub mod stream;
pub(crate) mod udp;
