//! The modhost binary as a library, for its own unit tests. No API promise: module authors use `module-api`.
pub mod cli;
pub mod config;
pub mod error;
pub mod inspect;
pub mod module;
