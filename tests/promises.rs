//! One test for each promise of `docs/lifecycle.md`, of the same name.
//!
//! Each starts the real host with recorders. These modules record every call that they get: in
//! which process, in which order, and with which rank.

#[path = "promises/child_init.rs"]
mod child_init;
#[path = "promises/failure.rs"]
mod failure;
#[path = "promises/forking.rs"]
mod forking;
#[path = "promises/init_f.rs"]
mod init_f;
#[path = "promises/processes.rs"]
mod processes;

/// Ranks, as the documentation has them.
const PROC_MAIN: i32 = 0;
const PROC_TIMER: i32 = -1;
const PROC_RPC: i32 = -2;
const PROC_TCP_MAIN: i32 = -4;
const PROC_POSTCHILDINIT: i32 = -126;
const PROC_INIT: i32 = -127;
const PROC_NOCHLDINIT: i32 = -128;

/// Error codes of the host API.
const E_PHASE: i64 = -2;
const E_INVALID: i64 = -3;
const E_LIMIT: i64 = -5;
