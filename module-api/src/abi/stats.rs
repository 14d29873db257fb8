//! Counters at the line: how one is registered, where it is counted, and what is said of it.

use std::ffi::c_char;
use std::sync::atomic::AtomicUsize;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// Where a process counts, on a page of its own that is all zeros in a process that the host did not fork. Written by the host.
///
/// `stat_register` gives the address of a first word. The word that a process changes lies at a distance from there: `own` bytes, by a
/// plain addition, in the thread in which the host calls modules, which is the one whose thread pointer is `thread`; in any other
/// thread `threads` bytes, by an atomic addition. A gauge is always changed at `own`, always atomically.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct StatHome {
    /// The thread pointer (`fs:0` on x86-64, `tpidr_el0` on aarch64) of the thread that the host calls modules in; 0: no thread's.
    pub thread: AtomicUsize,
    /// Distance in bytes to the cells of that thread.
    pub own: AtomicUsize,
    /// Distance in bytes to the cells of all other threads.
    pub threads: AtomicUsize,
}

/// A counter, gauge or histogram, for `stat_register`.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct StatSpec {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `STAT_COUNTER` ...
    pub kind: u32,
    /// `STAT_SHARED`, for gauges.
    pub flags: u32,
    /// `UNIT_*`.
    pub unit: u32,
    /// 1 to 47 of `[a-z0-9_]`, the first one a letter; the module's name is put before it. Copied.
    pub name: *const c_char,
    /// One sentence, at most 200 bytes; copied. May be null.
    pub help: *const c_char,
    /// Of a histogram: the largest value of each bucket but the last, ascending, copied. Null: the host's own buckets.
    pub bounds: *const u64,
    /// Number of bounds, at most `STAT_MAX_BOUNDS`; 0 with null.
    pub bound_count: u32,
    /// Zero.
    pub reserved: u32,
}

/// What `stat_info` says of one. The pointers are valid for good.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct StatInfo {
    /// Size of this struct in bytes, set by the caller.
    pub size: u32,
    /// `STAT_COUNTER` ...
    pub kind: u32,
    /// `STAT_SHARED`.
    pub flags: u32,
    /// `UNIT_*`.
    pub unit: u32,
    /// Whose it is; `host` for the host's own.
    pub module: *const c_char,
    /// Its name, without the module's.
    pub name: *const c_char,
    /// One sentence; may be empty.
    pub help: *const c_char,
    /// Of a histogram with bounds; null otherwise.
    pub bounds: *const u64,
    /// Number of bounds.
    pub bound_count: u32,
    /// Number of words that `stat_read` gives.
    pub words: u32,
}
