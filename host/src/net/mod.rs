//! Listeners, and serving what arrives at them.
//!
//! *Runs in:* bound by the supervisor (main in no-fork mode), served by workers. *Never:* interprets
//! the content of a datagram.

pub mod address;
pub mod bind;
pub mod listener;
pub mod resolve;
pub mod stream;
pub mod udp;
