//! The binary interface: C structs and constants, mirrored by `include/modhost.h`, which is normative for C.
//!
//! Nothing here has behaviour. Every struct is `repr(C)`; a struct that may grow starts with its size (or is an array element
//! whose stride its owner states), grows only at its end, and a new field is nullable and used only if the size covers it.
//! No `bool`, enum, `char`, reference or Rust collection crosses the line: C can write values that Rust forbids.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::AtomicU32;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

mod processes;
mod stats;
mod stream;

pub use processes::{HostInfo, PROCESS_ENDED, PROCESS_FREE, PROCESS_SERVING, PROCESS_STARTING, PROCESS_WAITING, ProcessRow};
pub use stats::{StatHome, StatInfo, StatSpec};
pub use stream::{Stream, StreamFunctions};

/// First eight bytes of a module's exports table: the bytes `MODHOST` and 1.
pub const MODULE_MAGIC: u64 = u64::from_le_bytes(*b"MODHOST\x01");
/// First eight bytes of the host's table of functions: the bytes `HOSTAPI` and 1.
pub const HOST_MAGIC: u64 = u64::from_le_bytes(*b"HOSTAPI\x01");
/// A different major number means a different, incompatible interface.
pub const ABI_MAJOR: u16 = 1;
/// A host of minor N runs modules of every minor up to N, and newer ones whose `needs_host_minor` is at most N.
pub const ABI_MINOR: u16 = 0;
/// The dynamic symbol that the loader looks up.
pub const EXPORTS_SYMBOL: &str = "module_exports";

/// Owner name in the ELF note that marks a file as a modhost module.
pub const NOTE_NAME: &str = "modhost";
/// Type of that note.
pub const NOTE_TYPE: u32 = 1;

/// `Header::flags`: built with the Rust SDK.
pub const FLAG_RUST: u32 = 1;
/// `Header::flags`: built with `panic = "abort"`; the loader refuses it.
pub const FLAG_PANIC_ABORT: u32 = 2;
/// `Header::flags`: wants `init_child_f(PROC_POSTCHILDINIT)` in main once every child has finished its own init.
pub const FLAG_WANTS_POSTCHILDINIT: u32 = 4;
/// `Header::flags`: has nothing to do in processes that serve. `init_child_f` is called with `PROC_INIT`, `PROC_MAIN` and, if wanted,
/// `PROC_POSTCHILDINIT` only: in no forked process, and not with rank 1 in no-fork mode.
pub const FLAG_NO_CHILD_INIT: u32 = 8;

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
/// Rank: main, before any process is forked; the process count is known.
pub const PROC_INIT: c_int = -127;
/// Rank for `fork_process`: the child gets no `init_child_f` call.
pub const PROC_NOCHLDINIT: c_int = -128;

/// Success.
pub const OK: i32 = 0;
/// Failure without a more precise code.
pub const E_FAILED: i32 = -1;
/// The call is not allowed in this phase or process; the log says where it is.
pub const E_PHASE: i32 = -2;
/// An argument is out of its range.
pub const E_INVALID: i32 = -3;
/// Shared memory is exhausted.
pub const E_NO_MEMORY: i32 = -4;
/// More than the module registered, or more than the host has room for.
pub const E_LIMIT: i32 = -5;
/// A system call failed; the log has the detail.
pub const E_SYSTEM: i32 = -6;
/// The lock is held by another process (`mutex_trylock`), or the peer cannot take more now.
pub const E_BUSY: i32 = -7;
/// The calling process holds this lock already.
pub const E_DEADLOCK: i32 = -8;
/// What a lock protects was left damaged and not repaired; the lock is unusable for good.
pub const E_NOT_RECOVERABLE: i32 = -9;
/// That connection does not exist any more.
pub const E_GONE: i32 = -11;
/// The sender of the datagram has no address, so that it cannot be answered.
pub const E_NO_PEER: i32 = -10;
/// What the SDK's guard returns for a panic in the module.
pub const E_PANIC: i32 = -70;
/// `mutex_lock`: the lock is held, and its last owner died holding it.
pub const OWNER_DIED: i32 = 1;

/// Log level numbers, as the `log` crate counts them.
pub const LEVEL_ERROR: u32 = 1;
/// Degraded, going on.
pub const LEVEL_WARN: u32 = 2;
/// What an operator wants to know.
pub const LEVEL_INFO: u32 = 3;
/// What an author wants to know.
pub const LEVEL_DEBUG: u32 = 4;
/// Everything.
pub const LEVEL_TRACE: u32 = 5;

/// [`Param::kind`]: the target is a `u32`, 0 or 1.
pub const PARAM_BOOL: u32 = 1;
/// [`Param::kind`]: the target is an `i64`.
pub const PARAM_INT: u32 = 2;
/// [`Param::kind`]: the target is a [`Str`].
pub const PARAM_STRING: u32 = 3;
/// [`Param::kind`]: the target is an `i64` in nanoseconds.
pub const PARAM_DURATION: u32 = 4;
/// [`Param::kind`]: the target is an `i64` in bytes, never negative.
pub const PARAM_SIZE: u32 = 5;
/// [`Param::kind`]: the target is a [`Str`], an absolute path.
pub const PARAM_PATH: u32 = 6;
/// [`Param::kind`]: the target is a `u32`, the index of the word in [`Param::words`].
pub const PARAM_ENUM: u32 = 7;
/// [`Param::kind`]: the target is a [`List`] of what [`Param::of`] says.
pub const PARAM_LIST: u32 = 8;
/// [`Param::kind`]: the target is a [`Table`] of what [`Param::of`] says.
pub const PARAM_TABLE: u32 = 9;
/// [`Param::flags`]: the configuration must set it.
pub const PARAM_REQUIRED: u32 = 1;
/// [`Param::flags`]: `min` and `max` hold (inclusive, in the target's unit; for each item of a list or table).
pub const PARAM_RANGE: u32 = 2;

/// [`Handler::kind`]: datagrams, in batches.
pub const HANDLER_UDP: u32 = 1;

/// [`Handler::kind`]: connections.
pub const HANDLER_STREAM: u32 = 2;

/// [`StreamFunctions::on_close`]: the module asked for it, or both sides had finished.
pub const CLOSED_NORMALLY: u32 = 0;
/// [`StreamFunctions::on_close`]: the peer is gone, or the connection was reset.
pub const CLOSED_BY_PEER: u32 = 1;
/// [`StreamFunctions::on_close`]: a time limit of the listener.
pub const CLOSED_BY_TIMEOUT: u32 = 2;
/// [`StreamFunctions::on_close`]: a limit on buffered bytes.
pub const CLOSED_BY_LIMIT: u32 = 3;
/// [`StreamFunctions::on_close`]: a function of the handler returned a failure.
pub const CLOSED_BY_ERROR: u32 = 4;
/// [`StreamFunctions::on_close`]: the worker stops.
pub const CLOSED_BY_STOP: u32 = 5;

/// `stream_close`: send what is queued, then close.
pub const CLOSE_AFTER_SENDING: u32 = 0;
/// `stream_close`: drop what is queued, reset the connection.
pub const CLOSE_NOW: u32 = 1;
/// `stream_close`: send what is queued, then end this side; the peer may go on sending.
pub const CLOSE_SENDING_SIDE: u32 = 2;

/// [`Dependency::kind`]: the named module must be loaded, and its `init_f` runs first.
pub const DEPEND_REQUIRED: u32 = 1;
/// [`Dependency::kind`]: if the named module is loaded, its `init_f` runs first.
pub const DEPEND_OPTIONAL: u32 = 2;

/// [`Bind::kind`]: without the interface the module cannot be loaded.
pub const BIND_REQUIRED: u32 = 1;
/// [`Bind::kind`]: without the interface the slot stays null.
pub const BIND_OPTIONAL: u32 = 2;

/// `fork_process` flag: give the child a link to the TCP main process.
pub const FORK_MAKE_SOCK: u32 = 1;

/// `shm_malloc` flag: every byte of the block is zero.
pub const SHM_ZEROED: u32 = 1;

/// [`TimerSpec::process`]: the timer process, for functions that finish in well under a millisecond.
pub const TIMER_FAST: u32 = 0;
/// [`TimerSpec::process`]: the slow timer process, for functions that may block.
pub const TIMER_SLOW: u32 = 1;

/// [`StatSpec::kind`]: only grows; one word.
pub const STAT_COUNTER: u32 = 1;
/// [`StatSpec::kind`]: goes up and down; one word, two's complement.
pub const STAT_GAUGE: u32 = 2;
/// [`StatSpec::kind`]: how often values of which size were seen; the sum of all values, then one word per bucket.
pub const STAT_HISTOGRAM: u32 = 3;
/// [`StatSpec::flags`]: a gauge of what processes share. The part of a process that ends is kept; without the flag it is taken away.
pub const STAT_SHARED: u32 = 1;
/// [`StatSpec::unit`]: a number of things.
pub const UNIT_NONE: u32 = 0;
/// [`StatSpec::unit`]: bytes.
pub const UNIT_BYTES: u32 = 1;
/// [`StatSpec::unit`]: nanoseconds.
pub const UNIT_NS: u32 = 2;
/// Buckets of a histogram without bounds: 0 to 3 have one each, then every power of two has four.
pub const STAT_BUCKETS: u32 = 252;
/// Most bounds of a histogram.
pub const STAT_MAX_BOUNDS: u32 = 64;
/// `stat_read`: the sum over all processes.
pub const STAT_ALL: i32 = -1;
/// `stat_read`: what was counted outside of the host's processes: in one that a module forked on its own.
pub const STAT_OUTSIDE: i32 = -2;

/// The first bytes of every exports table, readable whatever the rest looks like. 32 bytes on 64-bit machines.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// [`MODULE_MAGIC`].
    pub magic: u64,
    /// [`ABI_MAJOR`] of the header the module was built with.
    pub abi_major: u16,
    /// [`ABI_MINOR`] of the header the module was built with.
    pub abi_minor: u16,
    /// Size in bytes of the whole exports table.
    pub size: u32,
    /// `FLAG_*`; unknown bits must be zero.
    pub flags: u32,
    /// A host of a smaller minor refuses this module.
    pub needs_host_minor: u16,
    /// Zero.
    pub reserved: u16,
    /// A [`RustInfo`] for modules of the Rust SDK with the layout check, null otherwise.
    pub rust: *const c_void,
}

/// What a Rust module says of the types it was compiled with; the loader compares them structurally with its own.
#[cfg(feature = "layout")]
#[repr(C)]
#[derive(Debug)]
pub struct RustInfo {
    /// Version of the layout description itself; compared before anything else is touched.
    pub abi_stable: abi_stable::library::AbiHeader,
    /// Number of the source that these types were compiled from. Where it is the host's, so are the types, and nothing is compared.
    pub source: u64,
    /// Layout of [`ModuleExports`].
    pub exports: &'static abi_stable::type_layout::TypeLayout,
    /// Layout of [`HostApi`].
    pub host: &'static abi_stable::type_layout::TypeLayout,
}

/// One writable symbol per module, filled in by the loader before any function of the module is called.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct HostSlot {
    /// The host's functions.
    #[cfg_attr(feature = "layout", sabi(unsafe_opaque_field))] // compared by itself
    pub api: *const HostApi,
    /// Names this module in every call to the host; opaque.
    pub module: *mut c_void,
    /// Highest level (`LEVEL_*`, 0 for none) that this module's records are wanted at. Owned by the host, may change at any time.
    pub log_level: *const AtomicU32,
    /// Where the process that reads this counts.
    pub stat_home: *const StatHome,
}

/// A borrowed string: `len` bytes, followed by a NUL that `len` does not count.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy)]
pub struct Str {
    /// First byte; never null once parameters are applied.
    pub ptr: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

/// The value of a list. What is behind the pointer is valid while the process lives.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// As many targets of the kind that [`Param::of`] says, one behind the other; null if there are none.
    pub items: *const c_void,
    /// Number of items.
    pub len: usize,
}

/// The value of a table, in the order of the file. What is behind the pointers is valid while the process lives.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// As many targets of the kind that [`Param::of`] says, one behind the other; null if there are none.
    pub values: *const c_void,
    /// Number of values, and of keys.
    pub len: usize,
    /// The keys, each once; null if there are none.
    pub keys: *const Str,
}

/// One parameter of a module. The host checks the configured value and writes it to `target` before `init_f`.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Param {
    /// Name in `[module.params]`.
    pub name: *const c_char,
    /// `PARAM_BOOL` ...
    pub kind: u32,
    /// `PARAM_REQUIRED`, `PARAM_RANGE`.
    pub flags: u32,
    /// Where the host writes the value.
    pub target: *mut c_void,
    /// The default as it would stand in the configuration (`"10"`, `"1s"`, `"text"`); null: the target keeps what it has.
    pub default_text: *const c_char,
    /// Smallest allowed value with `PARAM_RANGE`, in the target's unit.
    pub min: i64,
    /// Largest allowed value with `PARAM_RANGE`, in the target's unit.
    pub max: i64,
    /// One sentence for `modhost inspect`; may be null.
    pub help: *const c_char,
    /// The words of a `PARAM_ENUM`, or of a list or table of them, with `|` between two: `"first|random"`. Null otherwise.
    pub words: *const c_char,
    /// `PARAM_*` of each item of a `PARAM_LIST` and of each value of a `PARAM_TABLE`, but neither of these two. 0 otherwise.
    pub of: u32,
    /// Zero.
    pub reserved: u32,
}

/// One entry point for traffic, named in a listener's configuration.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Handler {
    /// Name after the colon in `handler = "module:name"`; the first of a kind is the default.
    pub name: *const c_char,
    /// `HANDLER_UDP` or `HANDLER_STREAM`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// One sentence for `modhost inspect`; may be null.
    pub help: *const c_char,
    /// With `HANDLER_UDP`. Called in a worker (in main in no-fork mode) with each batch of datagrams. A negative return ends the process.
    pub on_datagrams: Option<extern "C" fn(batch: *mut UdpBatch) -> i32>,
    /// With `HANDLER_STREAM`. Called in a TCP worker (in main in no-fork mode).
    pub stream: *const StreamFunctions,
}

/// A module that another one needs.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Dependency {
    /// Name of the other module.
    pub name: *const c_char,
    /// `DEPEND_REQUIRED` or `DEPEND_OPTIONAL`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// A table of functions that a module offers to others.
///
/// The table belongs to the module and never changes. It is a struct of function pointers only; a later minor appends some.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Interface {
    /// One part or several with dots between them, 1 to 31 of `[a-z0-9_-]` each, at most 63 bytes: `http.routes`.
    pub name: *const c_char,
    /// Another major number is another interface.
    pub major: u16,
    /// Grows with each addition.
    pub minor: u16,
    /// Size of the table in bytes.
    pub size: u32,
    /// The functions. Called by other modules after this one's `init_f`, in any process.
    pub table: *const c_void,
    /// One line per function, `name(argument,argument)->result`, as the SDK writes it; null: size and version alone are compared.
    pub layout: *const c_char,
}

/// An interface that a module wants from another one.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Bind {
    /// As in [`Interface`].
    pub name: *const c_char,
    /// Must be that of the interface.
    pub major: u16,
    /// The least that will do.
    pub minor: u16,
    /// Size in bytes of the table as this module knows it; the interface's may be larger.
    pub size: u32,
    /// `BIND_REQUIRED` or `BIND_OPTIONAL`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// Where the host puts the table's address, before any `init_f`.
    pub slot: *mut *const c_void,
    /// As in [`Interface`], of the functions that this module knows; may be null.
    pub layout: *const c_char,
}

/// The exports table, found under the dynamic symbol [`EXPORTS_SYMBOL`].
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[cfg_attr(
    feature = "layout",
    sabi(kind(Prefix(prefix_ref = ModuleExportsRef, prefix_fields = ModuleExportsPrefix)))
)]
pub struct ModuleExports {
    /// Magic, version, size, flags.
    pub header: Header,
    /// Where the loader puts the host's functions.
    pub host_slot: *mut HostSlot,
    /// Name of the module: `[a-z0-9_-]`, at most 31 bytes.
    pub name: *const c_char,
    /// Version of the module, free text of at most 31 bytes.
    pub version: *const c_char,
    /// One sentence for `modhost inspect`; may be null.
    pub summary: *const c_char,
    /// Array of [`Param`].
    pub params: *const Param,
    /// Number of parameters.
    pub param_count: u32,
    /// Distance in bytes between two parameters.
    pub param_stride: u32,
    /// Array of [`Handler`].
    pub handlers: *const Handler,
    /// Number of handlers.
    pub handler_count: u32,
    /// Distance in bytes between two handlers.
    pub handler_stride: u32,
    /// Array of [`Dependency`].
    pub depends: *const Dependency,
    /// Number of dependencies.
    pub depend_count: u32,
    /// Distance in bytes between two dependencies.
    pub depend_stride: u32,
    /// Called once in main before anything is forked. 0 is success.
    pub init_f: Option<extern "C" fn() -> c_int>,
    /// Called with the rank: in main with `PROC_INIT` and `PROC_MAIN`, in every forked process once. Negative is failure.
    pub init_child_f: Option<extern "C" fn(rank: c_int) -> c_int>,
    /// Called in main at the end, in reverse load order.
    pub destroy_f: Option<extern "C" fn()>,
    /// Array of [`Interface`].
    pub interfaces: *const Interface,
    /// Number of interfaces.
    pub interface_count: u32,
    /// Distance in bytes between two interfaces.
    pub interface_stride: u32,
    /// Array of [`Bind`].
    pub binds: *const Bind,
    /// Number of wanted interfaces.
    pub bind_count: u32,
    /// Distance in bytes between two wanted interfaces.
    #[cfg_attr(feature = "layout", sabi(last_prefix_field))]
    pub bind_stride: u32,
}

// SAFETY: the table is read-only data; its pointers lead to constants, or to targets that only the host writes, in main, before
// any function of the module runs.
unsafe impl Sync for ModuleExports {}
// SAFETY: as above.
unsafe impl Sync for Param {}
// SAFETY: as above.
unsafe impl Sync for Handler {}
// SAFETY: as above.
unsafe impl Sync for StreamFunctions {}
// SAFETY: as above.
unsafe impl Sync for Dependency {}
// SAFETY: as above.
unsafe impl Sync for Interface {}
// SAFETY: as above.
unsafe impl Sync for Bind {}

/// One datagram of a batch. Valid until the handler returns.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Datagram {
    /// The payload.
    pub data: *const u8,
    /// Its length in bytes, 0 to 65,507.
    pub len: u32,
    /// Length of `peer` in bytes; 0: the sender has no address, and cannot be answered.
    pub peer_len: u16,
    /// Length of `local` in bytes.
    pub local_len: u16,
    /// The sender: a `struct sockaddr_in`, `sockaddr_in6` or `sockaddr_un`, at an alignment of 4.
    pub peer: *const c_void,
    /// The address that it was sent to, in the same form.
    pub local: *const c_void,
}

/// What a datagram handler gets. Valid until the handler returns.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct UdpBatch {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Number of datagrams, at least 1.
    pub count: u32,
    /// The datagrams.
    pub datagrams: *const Datagram,
    /// Distance in bytes between two datagrams.
    pub stride: u32,
    /// The listener they arrived at.
    pub listener: u32,
}

/// A lock in shared memory that several processes may take. 64 bytes, all zero is not a valid lock: use `mutex_init`.
#[repr(C, align(8))]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct Mutex {
    /// The host's.
    pub opaque: [u64; 8],
}

/// Who died holding a lock.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadOwner {
    /// Its process id, 0 if it died while taking or releasing the lock.
    pub pid: i32,
    /// Its `process_no`, -1 if unknown.
    pub process_no: i32,
}

/// Which process the caller is.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessInfo {
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

/// A process with an entry function, for `fork_process_entry`.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct ForkSpec {
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
    /// Passed through; must stay valid in main for later restarts.
    pub data: *mut c_void,
}

/// A function that a timer process calls.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct TimerSpec {
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
    /// `expirations` counts the periods due since the last call, 1 if none was missed. Negative is logged as a failure.
    pub function: Option<extern "C" fn(data: *mut c_void, expirations: u64) -> i32>,
    /// Passed through.
    pub data: *mut c_void,
}

/// A listener that a module asks for.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[derive(Debug)]
pub struct ListenSpec {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `HANDLER_UDP`.
    pub kind: u32,
    /// `ADDRESS:PORT`; port 0 lets the kernel choose.
    pub address: *const c_char,
    /// Name of a handler of the calling module; null: the first of the kind.
    pub handler: *const c_char,
    /// Number of workers; 0: the configured default.
    pub workers: u32,
    /// Zero.
    pub reserved: u32,
}

/// The host's functions. Append-only. Every call passes the module handle of [`HostSlot`] back. All pointers are borrowed for the call.
#[repr(C)]
#[cfg_attr(feature = "layout", derive(StableAbi))]
#[cfg_attr(feature = "layout", sabi(kind(Prefix(prefix_ref = HostApiRef, prefix_fields = HostApiPrefix))))]
pub struct HostApi {
    /// [`HOST_MAGIC`].
    pub magic: u64,
    /// [`ABI_MAJOR`] of the host.
    pub abi_major: u16,
    /// [`ABI_MINOR`] of the host.
    pub abi_minor: u16,
    /// Size of this table in bytes.
    pub size: u32,

    /// Any process, phase and thread (a module may start threads in its children). Writes one record to the host's log. `target` may
    /// be null with a length of 0.
    pub log: extern "C" fn(module: *mut c_void, level: u32, target: *const u8, target_len: usize, text: *const u8, text_len: usize),
    /// Any process and phase. The text that goes with a failing return of the current entry; the last one counts.
    pub set_error: extern "C" fn(module: *mut c_void, text: *const u8, text_len: usize),
    /// Any process, phase and thread. Fills `buffer` from the kernel's random generator. Returns 0 or `E_SYSTEM`.
    pub random: extern "C" fn(module: *mut c_void, buffer: *mut u8, len: usize) -> i32,
    /// Any process, phase and thread. Returns 0 or `E_INVALID`.
    pub process_info: extern "C" fn(module: *mut c_void, info: *mut ProcessInfo) -> i32,
    /// From `PROC_INIT` on, the exact size of the process table; before, `E_PHASE`.
    pub max_procs: extern "C" fn(module: *mut c_void) -> i32,

    /// `init_f` only. Announces `count` (at least 1) later forks. Returns 0, `E_PHASE`, `E_INVALID` or `E_LIMIT`.
    pub register_procs: extern "C" fn(module: *mut c_void, count: i32) -> i32,
    /// `PROC_MAIN` only. Returns the pid in main, 0 in the child, negative on error. A child of this form is not restarted.
    pub fork_process: extern "C" fn(module: *mut c_void, rank: i32, name: *const c_char, flags: u32) -> i32,
    /// `PROC_MAIN` only. The child runs `spec.entry(spec.data)` and exits with 0, or 1 if that is negative. Returns the pid or a
    /// negative code, in main only. The child is restarted by policy.
    pub fork_process_entry: extern "C" fn(module: *mut c_void, spec: *const ForkSpec) -> i32,

    // Calls from module to module.
    /// Any process and phase, in the thread that the host calls modules in. At the start of a function that another module calls: from here
    /// on the calling handle's module is the one to blame. Returns what `interface_leave` wants back.
    pub interface_enter: extern "C" fn(module: *mut c_void) -> u64,
    /// At the end of that function, with what it returns. After `E_PANIC` the call of the host that all this is part of fails.
    pub interface_leave: extern "C" fn(module: *mut c_void, outer: u64, code: i32),
    /// Any process and phase. Copies the first `size` bytes of the last `set_error`'s text of any module, and forgets it. Returns the number of
    /// bytes copied, 0 if there is no text.
    pub error_text: extern "C" fn(module: *mut c_void, buffer: *mut u8, size: usize) -> usize,

    /// `init_f` and `PROC_INIT`. Zeroed memory at one address in every process, never freed; `align` is a power of two up to 4096.
    /// Null when exhausted, out of phase or misaligned; the log says which.
    pub shm_alloc: extern "C" fn(module: *mut c_void, size: usize, align: usize) -> *mut c_void,
    // Shared memory while running.
    /// Any process, phase and thread. A block of at least `size` bytes at one address in every process; `align` is a power of two up to
    /// 4096, `flags` `SHM_*`. Null when exhausted or impossible; the log says which. With `into` (aligned, in shared memory, else null) the
    /// block's address is written there too: a process that is killed at any instruction of this call has either written it, or the block
    /// is free again.
    pub shm_malloc: extern "C" fn(module: *mut c_void, size: usize, align: usize, flags: u32, into: *mut *mut c_void) -> *mut c_void,
    /// Any process, phase and thread. Gives the block another size, at its place or at another one with its content copied; null: a new
    /// block. Null when exhausted, and for a block that is not allocated: the old one stays as it is. A `size` of 0 frees.
    pub shm_realloc: extern "C" fn(module: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void,
    /// Any process, phase and thread, whoever allocated the block; null does nothing. With `from` (aligned, in shared memory, holding
    /// `block`, else null) null is written there: a process that is killed at any instruction of this call has either left it as it
    /// was, with the block allocated, or the block is free and `from` null when its slot is recovered. Returns 0, or `E_INVALID` for what
    /// is not an allocated block.
    pub shm_free: extern "C" fn(module: *mut c_void, block: *mut c_void, from: *mut *mut c_void) -> i32,

    /// Before first use, by one process. `mutex` must lie in shared memory. Returns 0 or a code.
    pub mutex_init: extern "C" fn(module: *mut c_void, mutex: *mut Mutex) -> i32,
    /// Returns 0, `OWNER_DIED` (held; `dead` is filled if not null; repair the data, then `mutex_repaired`), or a negative code.
    pub mutex_lock: extern "C" fn(module: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32,
    /// As `mutex_lock`, but `E_BUSY` instead of waiting.
    pub mutex_trylock: extern "C" fn(module: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32,
    /// By the holder, after `OWNER_DIED`: the data is whole again.
    pub mutex_repaired: extern "C" fn(module: *mut c_void, mutex: *mut Mutex) -> i32,
    /// By the holder. After `OWNER_DIED` without `mutex_repaired` the lock becomes unusable (`E_NOT_RECOVERABLE`).
    pub mutex_unlock: extern "C" fn(module: *mut c_void, mutex: *mut Mutex) -> i32,

    /// `init_f` and `PROC_INIT`. Returns 0 or a negative code.
    pub timer_add: extern "C" fn(module: *mut c_void, spec: *const TimerSpec) -> i32,

    /// `init_f` only. Returns the listener's number or a negative code; it is bound after every `init_f`.
    pub listen: extern "C" fn(module: *mut c_void, spec: *const ListenSpec) -> i32,
    /// From `PROC_INIT` on. The number of the `index`-th listener that this module's handlers serve, or `E_INVALID`.
    pub listener_find: extern "C" fn(module: *mut c_void, index: u32) -> i32,
    /// From `PROC_INIT` on. Writes the bound address as a socket address; returns its length in bytes or a negative code.
    pub listener_address: extern "C" fn(module: *mut c_void, listener: u32, address: *mut c_void, size: u32) -> i32,

    /// In a datagram handler. Copies `data` and queues it as an answer to the `index`-th datagram. 0, `E_INVALID`, `E_NO_PEER`.
    pub udp_reply: extern "C" fn(module: *mut c_void, batch: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32,
    /// In a datagram handler. Queues without copying: `data` must stay unchanged until the handler has returned and
    /// the batch is sent (the batch's own datagrams and constants do).
    pub udp_reply_borrowed: extern "C" fn(module: *mut c_void, batch: *mut UdpBatch, index: u32, data: *const u8, len: usize) -> i32,
    /// In a datagram handler. A host buffer of `size` bytes (at most 65,507) to write an answer into, initialised with anything, valid
    /// until the next call about this batch; null if `size` is too large.
    pub udp_reply_buffer: extern "C" fn(module: *mut c_void, batch: *mut UdpBatch, size: usize) -> *mut u8,
    /// In a datagram handler. Queues the first `len` bytes of the last `udp_reply_buffer` as an answer to the `index`-th datagram.
    pub udp_reply_commit: extern "C" fn(module: *mut c_void, batch: *mut UdpBatch, index: u32, len: usize) -> i32,
    /// Any process and thread from `PROC_INIT` on. Sends one datagram from a listener's socket at once. 0, `E_INVALID`, `E_BUSY`, `E_SYSTEM`.
    pub udp_send: extern "C" fn(module: *mut c_void, listener: u32, peer: *const c_void, peer_len: u32, data: *const u8, len: usize) -> i32,

    // Connections. All but the last: in a function of the stream's handler, about its own connection.
    /// Queues a copy of `data`. 0; `E_BUSY` if the queue has reached its high-water mark; `E_INVALID`; `E_GONE` after a close.
    pub stream_write: extern "C" fn(module: *mut c_void, stream: *mut Stream, data: *const u8, len: usize) -> i32,
    /// A host buffer of `size` bytes (at most 16 MiB) at the end of the queue, initialised with anything, valid until the next call about
    /// this connection or the return. Null where `stream_write` would fail.
    pub stream_buffer: extern "C" fn(module: *mut c_void, stream: *mut Stream, size: usize) -> *mut u8,
    /// Queues the first `len` bytes of the last `stream_buffer`. 0 or `E_INVALID`.
    pub stream_commit: extern "C" fn(module: *mut c_void, stream: *mut Stream, len: usize) -> i32,
    /// Queues `len` bytes of a file from `offset` on. The descriptor is duplicated; the caller keeps its own. As `stream_write`, and `E_SYSTEM`.
    pub stream_write_file: extern "C" fn(module: *mut c_void, stream: *mut Stream, descriptor: c_int, offset: u64, len: u64) -> i32,
    /// Bytes queued and not sent yet, those of this call included; negative on error.
    pub stream_queued: extern "C" fn(module: *mut c_void, stream: *mut Stream) -> i64,
    /// With `on` 0 no more data is read or delivered, until it is called with 1. 0 or `E_INVALID`.
    pub stream_read: extern "C" fn(module: *mut c_void, stream: *mut Stream, on: u32) -> i32,
    /// `CLOSE_*`. Nothing can be queued afterwards. 0 or `E_INVALID`.
    pub stream_close: extern "C" fn(module: *mut c_void, stream: *mut Stream, how: u32) -> i32,
    /// From `PROC_MAIN` on, in a process with a link to the TCP main process (`FORK_MAKE_SOCK`), a TCP worker, and main in no-fork mode. Queues
    /// `data` (at most 65,536 bytes) on the connection `id` and waits until its worker has taken it, at most 100 ms. 0, `E_GONE`, `E_BUSY`,
    /// `E_INVALID`, `E_LIMIT` (no link), `E_SYSTEM` (no answer: whether it was sent is unknown).
    pub stream_send: extern "C" fn(module: *mut c_void, id: u64, data: *const u8, len: usize) -> i32,
    /// From `PROC_INIT` on. As `listener_address`, for the `nth` address of the listener; `E_INVALID` if it has not so many.
    pub listener_address_at: extern "C" fn(module: *mut c_void, listener: u32, nth: u32, address: *mut c_void, size: u32) -> i32,
    /// As `udp_send`, from that address of the listener: one that it is bound to, or one of this machine if it is bound to all.
    /// `E_INVALID` also if it cannot send from there.
    pub udp_send_from: extern "C" fn(
        module: *mut c_void,
        listener: u32,
        local: *const c_void,
        local_len: u32,
        peer: *const c_void,
        peer_len: u32,
        data: *const u8,
        len: usize,
    ) -> i32,

    // Counters.
    /// `init_f` and `PROC_INIT`. Writes the address to count at, which [`StatHome`] explains, to `first`. Returns 0, `E_PHASE`,
    /// `E_INVALID` (for a name that is taken, too) or `E_LIMIT`.
    pub stat_register: extern "C" fn(module: *mut c_void, spec: *const StatSpec, first: *mut *mut c_void) -> i32,
    /// From `PROC_INIT` on, any process and thread. Describes the `index`-th of all modules' and the host's. Returns 0, `E_PHASE`, or
    /// `E_INVALID` past the last.
    pub stat_info: extern "C" fn(module: *mut c_void, index: u32, info: *mut StatInfo) -> i32,
    /// From `PROC_INIT` on, any process and thread. Writes up to `count` words: of one process, or `STAT_ALL`, or `STAT_OUTSIDE`.
    /// Returns the number of words that there are, `E_PHASE` or `E_INVALID`.
    pub stat_read: extern "C" fn(module: *mut c_void, index: u32, process_no: i32, words: *mut u64, count: u32) -> i32,

    // The host itself.
    /// From `PROC_INIT` on, any process and thread. Fills in a row of the process table, word by word while others write. Returns 0,
    /// `E_PHASE`, or `E_INVALID` past the last.
    pub process_at: extern "C" fn(module: *mut c_void, process_no: u32, row: *mut ProcessRow) -> i32,
    /// From `PROC_INIT` on, any process and thread. Returns 0, `E_PHASE` or `E_INVALID`.
    pub host_info: extern "C" fn(module: *mut c_void, info: *mut HostInfo) -> i32,
}

// SAFETY: constants and function pointers only.
unsafe impl Sync for HostApi {}

/// Descriptor of the ELF note: enough to judge a file before any of its code runs. Fixed layout, little-endian, native alignment 4.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NoteDescriptor {
    /// [`ABI_MAJOR`].
    pub abi_major: u16,
    /// [`ABI_MINOR`].
    pub abi_minor: u16,
    /// As in [`Header`].
    pub needs_host_minor: u16,
    /// Zero.
    pub reserved: u16,
    /// `FLAG_RUST`, `FLAG_PANIC_ABORT`.
    pub flags: u32,
    /// Size in bytes of the exports table.
    pub exports_size: u32,
    /// SDK and its version, NUL-padded: `module-api 1.0.0`, `modhost.h 1.0`.
    pub sdk: [u8; 32],
    /// Compiler, NUL-padded: `rustc 1.95.0`, `gcc 12.2.0`.
    pub compiler: [u8; 48],
}

/// The whole note, as it stands in section `.note.modhost`.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy)]
pub struct Note {
    /// Length of the name with its NUL: 8.
    pub name_size: u32,
    /// Length of the descriptor: 96.
    pub descriptor_size: u32,
    /// [`NOTE_TYPE`].
    pub note_type: u32,
    /// [`NOTE_NAME`] and a NUL.
    pub name: [u8; 8],
    /// The descriptor.
    pub descriptor: NoteDescriptor,
}
