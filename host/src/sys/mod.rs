//! System calls and raw memory behind safe functions, one file per concern.
//!
//! *Runs in:* every process, every phase. *Never:* knows a module, a configuration or a policy.

pub mod accept;
pub mod census;
pub mod cred;
pub mod datagrams;
pub mod descriptor;
pub mod entry;
pub mod environ;
pub mod exit;
pub mod first;
pub mod fork;
pub mod gone;
pub mod handing;
pub mod handlers;
pub mod interfaces;
pub mod local;
pub mod mapping;
pub mod names;
pub mod notify;
pub mod passing;
pub mod pidfd;
pub mod random;
pub mod raw;
pub mod ready;
pub mod relocated;
pub mod robust;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod text;
pub mod time;
pub mod title;
pub mod wide;
