//! Counters: how one is registered, where a process counts, and how one is described to a reader.

use core::ffi::c_char;
use core::sync::atomic::AtomicUsize;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// [`StatSpec::kind`]: only grows; one word.
pub const STAT_COUNTER: u32 = 1;
/// [`StatSpec::kind`]: goes up and down; one word, two's complement.
pub const STAT_GAUGE: u32 = 2;
/// [`StatSpec::kind`]: counts values by their size; the sum of all values, then one word per
/// bucket.
pub const STAT_HISTOGRAM: u32 = 3;
/// [`StatSpec::flags`]: a gauge of something that processes share. The part of a process that ends
/// is kept; without the flag it is removed.
pub const STAT_SHARED: u32 = 1;
/// [`StatSpec::unit`]: a number of things.
pub const UNIT_NONE: u32 = 0;
/// [`StatSpec::unit`]: bytes.
pub const UNIT_BYTES: u32 = 1;
/// [`StatSpec::unit`]: nanoseconds.
pub const UNIT_NS: u32 = 2;
/// Number of buckets of a histogram without bounds: 0 to 3 have one each, then every power of two
/// has four.
pub const STAT_BUCKETS: u32 = 252;
/// Most bounds of a histogram.
pub const STAT_MAX_BOUNDS: u32 = 64;
/// `stat_read`: the sum over all processes.
pub const STAT_ALL: i32 = -1;
/// `stat_read`: what was counted in processes that the host did not fork, such as one that a module
/// forked on its own.
pub const STAT_OUTSIDE: i32 = -2;

c_struct! {
    /// Where a process counts. Each process has its own page of this; in a process that the host
    /// did not fork it is all zeros. Written by the host.
    ///
    /// `stat_register` gives the address of a first word. The word that a process changes is at a
    /// distance from there: `own` bytes, by a plain addition, in the thread in which the host calls
    /// modules, which is the thread whose thread pointer is `thread`; `threads` bytes, by an atomic
    /// addition, in any other thread. A gauge is always changed at `own`, always atomically.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct StatHome as modhost_stat_home without EMPTY {
        /// The thread pointer (`fs:0` on x86-64, `tpidr_el0` on aarch64) of the thread that the
        /// host calls modules in; 0: no thread's.
        pub thread: AtomicUsize,
        /// Distance in bytes to the cells of that thread.
        pub own: AtomicUsize,
        /// Distance in bytes to the cells of all other threads.
        pub threads: AtomicUsize,
    }
}

c_struct! {
    /// A counter, gauge or histogram, for `stat_register`.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct StatSpec as modhost_stat_spec {
        /// Size of this struct in bytes.
        pub size: u32,
        /// `STAT_COUNTER`, `STAT_GAUGE` or `STAT_HISTOGRAM`.
        pub kind: u32,
        /// `STAT_SHARED`, for gauges.
        pub flags: u32,
        /// `UNIT_*`.
        pub unit: u32,
        /// 1 to 47 of `[a-z0-9_]`, the first one a letter; the host puts the module's name before
        /// it. Copied.
        pub name: *const c_char,
        /// One sentence, at most 200 bytes; copied. May be null.
        pub help: *const c_char,
        /// Of a histogram: the largest value of each bucket but the last, ascending; copied. Null:
        /// the host's own buckets.
        pub bounds: *const u64,
        /// Number of bounds, at most `STAT_MAX_BOUNDS`; 0 if `bounds` is null.
        pub bound_count: u32,
        /// Zero.
        pub reserved: u32,
    }
}

c_struct! {
    /// Description of a counter, gauge or histogram, filled in by `stat_info`. The pointers are
    /// valid for good.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct StatInfo as modhost_stat_info {
        /// Size of this struct in bytes, set by the caller.
        pub size: u32,
        /// `STAT_COUNTER`, `STAT_GAUGE` or `STAT_HISTOGRAM`.
        pub kind: u32,
        /// `STAT_SHARED`.
        pub flags: u32,
        /// `UNIT_*`.
        pub unit: u32,
        /// Name of the module that registered it; `host` for the host's own.
        pub module: *const c_char,
        /// Name without the module's.
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
}
