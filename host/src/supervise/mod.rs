//! Keeping processes running.
//!
//! *Runs in:* supervisor and main. *Never:* imports modules or the shared-memory arena, takes a process-shared lock.

pub mod policy;
