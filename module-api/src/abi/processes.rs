//! Processes: ranks, forks, timers, and what a module can read of the process table and the host.

use core::ffi::{c_char, c_int, c_void};

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// Rank: main, when the workers and timers are forked and just before the TCP processes are.
pub const PROC_MAIN: c_int = 0;
/// Rank: a timer process.
pub const PROC_TIMER: c_int = -1;
/// Rank: the control process.
pub const PROC_RPC: c_int = -2;
/// Rank: the TCP main process.
pub const PROC_TCP_MAIN: c_int = -4;
/// Rank: a process serving a Unix socket for control.
pub const PROC_UNIXSOCK: c_int = -5;
/// Rank: main, when every child has finished its own init.
pub const PROC_POSTCHILDINIT: c_int = -126;
/// Rank: main, before any process is forked; the number of processes is known.
pub const PROC_INIT: c_int = -127;
/// Rank for `fork_process`: the child gets no `init_child_f` call.
pub const PROC_NOCHLDINIT: c_int = -128;

/// `fork_process` flag: give the child a link to the TCP main process.
pub const FORK_MAKE_SOCK: u32 = 1;

/// [`TimerSpec::process`]: the timer process, for functions that finish in well under a
/// millisecond.
pub const TIMER_FAST: u32 = 0;
/// [`TimerSpec::process`]: the slow timer process, for functions that may block.
pub const TIMER_SLOW: u32 = 1;

/// [`ProcessRow::state`]: never forked.
pub const PROCESS_FREE: u32 = 0;
/// [`ProcessRow::state`]: forked, in its own initialisation.
pub const PROCESS_STARTING: u32 = 1;
/// [`ProcessRow::state`]: initialised.
pub const PROCESS_SERVING: u32 = 2;
/// [`ProcessRow::state`]: dead, to be restarted later.
pub const PROCESS_WAITING: u32 = 3;
/// [`ProcessRow::state`]: ended, not to be restarted.
pub const PROCESS_ENDED: u32 = 4;

c_struct! {
    /// The calling process.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy, Default)]
    pub struct ProcessInfo as modhost_process_info {
        /// Size of this struct in bytes, set by the caller.
        pub size: u32,
        /// Index in the process table; -1 in a process that the host did not fork.
        pub process_no: i32,
        /// The rank that this process was forked with; 0 in main.
        pub rank: i32,
        /// Process id.
        pub pid: i32,
        /// How often this slot was restarted before this process.
        pub restarts: u32,
        /// Zero.
        pub reserved: u32,
    }
}

c_struct! {
    /// A process with an entry function, for `fork_process_entry`.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct ForkSpec as modhost_fork_spec {
        /// Size of this struct in bytes.
        pub size: u32,
        /// `FORK_*`.
        pub flags: u32,
        /// Passed to `init_child_f` in the child.
        pub rank: i32,
        /// Zero.
        pub reserved: u32,
        /// Name for the process table and the process title, at most 31 bytes; copied.
        pub name: *const c_char,
        /// What the child runs.
        pub entry: Option<extern "C" fn(data: *mut c_void) -> i32>,
        /// Passed to `entry`; must stay valid in main for later restarts.
        pub data: *mut c_void,
    }
}

c_struct! {
    /// A function that a timer process calls.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct TimerSpec as modhost_timer_spec {
        /// Size of this struct in bytes.
        pub size: u32,
        /// `TIMER_FAST` or `TIMER_SLOW`.
        pub process: u32,
        /// Name for the log, at most 31 bytes; copied.
        pub name: *const c_char,
        /// Nanoseconds from the timer process's start to the first call.
        pub first_ns: u64,
        /// Nanoseconds between two calls; 0: one call only.
        pub period_ns: u64,
        /// `expirations` counts the periods due since the last call, 1 if none was missed. A
        /// negative return is logged as a failure.
        pub function: Option<extern "C" fn(data: *mut c_void, expirations: u64) -> i32>,
        /// Passed to `function`.
        pub data: *mut c_void,
    }
}

c_struct! {
    /// A row of the process table, for `process_at`. Each text ends with a NUL, and is empty if
    /// there is none.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy)]
    pub struct ProcessRow as modhost_process_row {
        /// Size of this struct in bytes, set by the caller.
        pub size: u32,
        /// Index of the row.
        pub process_no: u32,
        /// The rank that `init_child_f` got.
        pub rank: i32,
        /// Process id; 0: there is no process now.
        pub pid: i32,
        /// `PROCESS_*`.
        pub state: u32,
        /// How often the slot was forked again.
        pub restarts: u32,
        /// Nanoseconds since this process was forked; 0 if there is none.
        pub uptime_ns: u64,
        /// As in the process title, UTF-8 without control characters.
        pub name: [u8; 48],
        /// The call into a module that the process is in, or died in: what it is for, in the words
        /// of the log.
        pub phase: [u8; 40],
        /// The call into a module that the process is in, or died in: the module's name.
        pub module: [u8; 32],
    }
}

c_struct! {
    /// The host that runs the module, for `host_info`.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy)]
    pub struct HostInfo as modhost_host_info {
        /// Size of this struct in bytes, set by the caller.
        pub size: u32,
        /// The process to send signals to: the supervisor, or main in no-fork mode.
        pub pid: i32,
        /// The host's version, ended by a NUL: `0.1.0`.
        pub version: [u8; 32],
    }
}
