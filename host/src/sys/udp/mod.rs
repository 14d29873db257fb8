//! Datagrams: receiving and answering in batches.
//!
//! *Runs in:* every process that serves or sends datagrams. *Never:* trusts a length that the
//! kernel or a module reports without a limit.

pub mod buffers;
pub mod datagrams;
mod packet_info;
pub mod socket;
