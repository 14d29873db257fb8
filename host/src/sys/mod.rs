//! System calls and raw memory behind safe functions, one file per concern.
//!
//! *Runs in:* every process, every phase. *Never:* knows a module, a configuration or a policy.

pub mod descriptor;
pub mod environ;
pub mod notify;
pub mod shared;
pub mod title;
