//! Memory: mappings, words that several processes share, mutexes that survive their owner.
//!
//! *Runs in:* every process. *Never:* unmaps what it handed out.

pub mod mapping;
pub mod robust_mutex;
pub mod shared_words;
