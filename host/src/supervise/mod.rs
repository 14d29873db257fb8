//! The supervisor: the process the operator sees. It starts main, binds for it, watches it, cleans
//! up.
//!
//! *Runs in:* the supervisor, with the starting identity; `protocol` and `certificates` also in
//! main. *Never:* loads a module, reads the arena, takes a process-shared lock, or believes a
//! number that it reads from shared memory.

pub mod certificates;
pub mod daemon;
pub mod generation;
pub mod pid_file;
pub mod protocol;
pub mod sockets;
pub mod stage;
pub mod supervisor;
