//! Datagrams: batches, and the packet information that says where one was sent to.
//!
//! *Runs in:* every process that serves datagrams. *Never:* trusts a length it did not set itself.

pub mod datagrams;
pub mod packet_info;
