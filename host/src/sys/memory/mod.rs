//! Memory: anonymous mappings, and mutexes that survive the death of their owner.
//!
//! *Runs in:* every process. *Never:* unmaps what it handed out.

pub mod mapping;
pub mod robust_mutex;
