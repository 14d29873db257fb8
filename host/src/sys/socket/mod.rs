//! Sockets: addresses, options, accepting, waiting, and links between processes.
//!
//! *Runs in:* every process. *Never:* decides what happens when the kernel refuses.

pub mod accept;
pub mod interfaces;
pub mod options;
pub mod readiness;
pub mod seqpacket;
pub mod socket_address;
