//! Processes: the table of what exists, and the one way in which a process of it comes to life.
//!
//! *Runs in:* main and every child. *Never:* decides what a process does; that is put into the
//! table by `start/roster.rs`.

pub mod family;
pub mod kinds;
pub mod order;
pub mod phase;
pub mod restart;
pub mod slots;
pub mod watch;
