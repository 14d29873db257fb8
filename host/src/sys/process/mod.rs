//! Processes: the one function that forks, signals, privileges, titles, and ends.
//!
//! *Runs in:* every process. *Never:* decides which process exists.

pub mod counts;
pub mod credentials;
pub mod ended;
pub mod environment;
pub mod exit;
pub mod fork;
pub mod signal;
pub mod title;
