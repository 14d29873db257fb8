//! The commands for a running host.
//!
//! *Runs in:* those commands. *Never:* lets what the host sent drive the terminal; prints by itself
//! (`main` does).

pub mod commands;
pub(super) mod connection;
mod render;
mod stop;
