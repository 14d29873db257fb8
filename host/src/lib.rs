//! The modhost binary as a library, for its own unit tests. No API promise: module authors use `module-api`.
pub mod error;
pub mod log;
pub mod supervise;
pub mod sys;
pub mod timer;
