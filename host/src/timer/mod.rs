//! Timers: the queue, and the loop of the two processes that serve it.
//!
//! *Runs in:* the timer processes. *Never:* calls a timer function in main.

pub mod queue;
pub mod run;

pub use run::{TimerFunction, TimerProcess};
