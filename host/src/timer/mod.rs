//! Timers: the queue, and later the processes that serve it.
//!
//! *Runs in:* the timer processes. *Never:* runs a callback in main.

pub mod queue;
