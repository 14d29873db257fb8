//! The modhost binary as a library. Public are its entry, [`program::main`], and what the tests
//! that kill processes and the benchmarks drive. No API promise: module authors use `module-api`.
#![deny(unsafe_code)]

pub(crate) mod check;
pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod error;
#[allow(unsafe_code)] // the trampoline's other direction: what modules pass in are raw pointers
pub mod hostapi;
pub(crate) mod inspect;
pub mod log;
pub mod module;
pub mod net;
pub(crate) mod output;
pub(crate) mod plan;
pub mod process;
pub mod program;
pub mod shm;
pub(crate) mod start;
pub mod state;
pub(crate) mod stats;
pub(crate) mod summary;
pub(crate) mod supervise;
#[allow(unsafe_code)] // system calls: one of the few rooms where unsafe may stand
pub mod sys;
pub(crate) mod timer;
pub(crate) mod tls;
