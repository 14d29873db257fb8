//! The process table and the host at the line: what a module can read of them.

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

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

/// A row of the process table, for `process_at`. Each text ends with a NUL, and is empty if there is none.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy)]
pub struct ProcessRow {
    /// Size of this struct in bytes, set by the caller.
    pub size: u32,
    /// Which row it is.
    pub process_no: u32,
    /// What `init_child_f` got.
    pub rank: i32,
    /// Process id; 0: there is no process now.
    pub pid: i32,
    /// `PROCESS_*`.
    pub state: u32,
    /// How often the slot was forked again.
    pub restarts: u32,
    /// Nanoseconds since this process was forked; 0 if there is none.
    pub uptime_ns: u64,
    /// As in its title, UTF-8 without control characters.
    pub name: [u8; 48],
    /// What it was called for, in the words of the log: the call into a module that it is in, or died in.
    pub phase: [u8; 40],
    /// The module that was called.
    pub module: [u8; 32],
}

/// What runs the module, for `host_info`.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy)]
pub struct HostInfo {
    /// Size of this struct in bytes, set by the caller.
    pub size: u32,
    /// The process to send signals to: the supervisor, or main in no-fork mode.
    pub pid: i32,
    /// Its version, ended by a NUL: `0.1.0`.
    pub version: [u8; 32],
}
