//! The modhost binary as a library, for its own unit tests. No API promise: module authors use
//! `module-api`.
#![deny(unsafe_code)]

pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
#[allow(unsafe_code)] // the trampoline's other direction: what modules pass in are raw pointers
pub mod hostapi;
pub mod inspect;
pub mod log;
pub mod module;
pub mod net;
pub mod output;
pub mod plan;
pub mod process;
pub mod shm;
pub mod start;
pub mod state;
pub mod stats;
pub mod summary;
pub mod supervise;
#[allow(unsafe_code)] // system calls: one of the few rooms where unsafe may stand
pub mod sys;
pub mod timer;
pub mod tls;
