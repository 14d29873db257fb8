//! The supervisor: the process the operator sees. It starts main, binds for it, watches it, and cleans up.
//!
//! *Runs in:* the supervisor, with the starting identity; `policy` also in main. *Never:* loads a module, reads the arena, takes a
//! process-shared lock, or believes a number it reads from shared memory.

pub mod certificates;
pub mod daemon;
pub mod pid_file;
pub mod policy;
pub mod protocol;
pub mod supervisor;
mod wire;
