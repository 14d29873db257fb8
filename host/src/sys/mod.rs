//! System calls and raw memory behind safe functions, one folder per topic.
//!
//! *Runs in:* every process, every phase. *Never:* knows a module, a configuration or a policy.

pub mod descriptor;
pub mod fast_fork;
pub mod memory;
pub mod notify;
pub mod process;
pub mod random;
pub mod socket;
pub mod time;
pub mod udp;
