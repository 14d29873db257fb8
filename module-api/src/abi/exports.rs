//! What a module exports: the exports table, its parts, and the slot that the loader fills.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::AtomicU32;

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

use super::{HostApi, Param, StatHome, StreamFunctions, UdpBatch};

/// First eight bytes of a module's exports table: the bytes `MODHOST` and 1.
pub const MODULE_MAGIC: u64 = u64::from_le_bytes(*b"MODHOST\x01");
/// A different major number means a different, incompatible interface.
pub const ABI_MAJOR: u16 = 1;
/// A host of minor N runs modules of every minor up to N, and newer ones whose `needs_host_minor`
/// is at most N.
pub const ABI_MINOR: u16 = 0;
/// The dynamic symbol that the loader looks up.
pub const EXPORTS_SYMBOL: &str = "module_exports";

/// `Header::flags`: built with the Rust SDK.
pub const FLAG_RUST: u32 = 1;
/// `Header::flags`: built with `panic = "abort"`; the loader refuses it.
pub const FLAG_PANIC_ABORT: u32 = 2;
/// `Header::flags`: wants `init_child_f(PROC_POSTCHILDINIT)` in main once every child has finished
/// its own init.
pub const FLAG_WANTS_POSTCHILDINIT: u32 = 4;
/// `Header::flags`: has nothing to do in processes that serve. `init_child_f` is called with
/// `PROC_INIT`, `PROC_MAIN` and, if wanted, `PROC_POSTCHILDINIT` only: in no forked process, and
/// not with rank 1 in no-fork mode.
pub const FLAG_NO_CHILD_INIT: u32 = 8;

/// [`Handler::kind`]: datagrams, in batches.
pub const HANDLER_UDP: u32 = 1;
/// [`Handler::kind`]: connections.
pub const HANDLER_STREAM: u32 = 2;

/// [`Dependency::kind`]: the named module must be loaded, and its `init_f` runs first.
pub const DEPEND_REQUIRED: u32 = 1;
/// [`Dependency::kind`]: if the named module is loaded, its `init_f` runs first.
pub const DEPEND_OPTIONAL: u32 = 2;

/// [`Bind::kind`]: without the interface the module cannot be loaded.
pub const BIND_REQUIRED: u32 = 1;
/// [`Bind::kind`]: without the interface the slot stays null.
pub const BIND_OPTIONAL: u32 = 2;

c_struct! {
    /// The first 32 bytes of every exports table; its layout is the same in every version.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy)]
    pub struct Header as modhost_header {
        /// [`MODULE_MAGIC`].
        pub magic: u64,
        /// [`ABI_MAJOR`] of the header the module was built with.
        pub abi_major: u16,
        /// [`ABI_MINOR`] of the header the module was built with.
        pub abi_minor: u16,
        /// Size of the whole exports table in bytes.
        pub size: u32,
        /// `FLAG_*`; unknown bits must be zero.
        pub flags: u32,
        /// A host with a smaller minor refuses this module.
        pub needs_host_minor: u16,
        /// Zero.
        pub reserved: u16,
        /// A `RustInfo` for modules of the Rust SDK with the layout check, null otherwise.
        pub rust: *const c_void,
    }
}

/// Describes the types that a Rust module was compiled with; the loader compares their structure
/// with its own types.
#[cfg(feature = "layout")]
#[repr(C)]
#[derive(Debug)]
pub struct RustInfo {
    /// Version of the layout description itself; compared before anything else is touched.
    pub abi_stable: abi_stable::library::AbiHeader,
    /// Number of the source that these types were compiled from. If it is the host's number, the
    /// types are equal and nothing is compared.
    pub source: u64,
    /// Layout of [`ModuleExports`].
    pub exports: &'static abi_stable::type_layout::TypeLayout,
    /// Layout of [`HostApi`].
    pub host: &'static abi_stable::type_layout::TypeLayout,
}

c_struct! {
    /// One writable symbol per module, filled in by the loader before any function of the module is
    /// called.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct HostSlot as modhost_slot {
        /// The host's functions.
        #[cfg_attr(feature = "layout", sabi(unsafe_opaque_field))] // compared on its own
        pub api: *const HostApi,
        /// Handle of this module, passed in every call to the host; opaque.
        pub module: *mut c_void,
        /// Highest level (`LEVEL_*`, 0 for none) at which the host takes this module's records.
        /// Owned by the host, may change at any time.
        pub log_level: *const AtomicU32,
        /// Where the process that reads this counts.
        pub stat_home: *const StatHome,
    }
}

c_struct! {
    /// One entry point for traffic, named in a listener's configuration.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Handler as modhost_handler {
        /// Name after the colon in `handler = "module:name"`; the first handler of a kind is the
        /// default.
        pub name: *const c_char,
        /// `HANDLER_UDP` or `HANDLER_STREAM`.
        pub kind: u32,
        /// Zero.
        pub reserved: u32,
        /// One sentence for `modhost inspect`; may be null.
        pub help: *const c_char,
        /// With `HANDLER_UDP`. Called in a worker (in main in no-fork mode) with each batch of
        /// datagrams. A negative return ends the process.
        pub on_datagrams: Option<extern "C" fn(batch: *mut UdpBatch) -> i32>,
        /// With `HANDLER_STREAM`. Called in a TCP worker (in main in no-fork mode).
        pub stream: *const StreamFunctions,
    }
}

c_struct! {
    /// A module that another one needs.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Dependency as modhost_dependency {
        /// Name of the other module.
        pub name: *const c_char,
        /// `DEPEND_REQUIRED` or `DEPEND_OPTIONAL`.
        pub kind: u32,
        /// Zero.
        pub reserved: u32,
    }
}

c_struct! {
    /// A table of functions that a module offers to others.
    ///
    /// The table belongs to the module and never changes. It is a struct of function pointers only;
    /// a later minor appends some.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Interface as modhost_interface {
        /// One or more parts separated by dots, each 1 to 31 of `[a-z0-9_-]`, at most 63 bytes in
        /// all: `http.routes`.
        pub name: *const c_char,
        /// A different major number is a different interface.
        pub major: u16,
        /// Grows with each addition.
        pub minor: u16,
        /// Size of the table in bytes.
        pub size: u32,
        /// The functions. Called by other modules after this one's `init_f`, in any process.
        pub table: *const c_void,
        /// One line per function, `name(argument,argument)->result`, as the SDK writes it; null:
        /// only size and version are compared.
        pub layout: *const c_char,
    }
}

c_struct! {
    /// An interface that a module imports from another one.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Bind as modhost_bind {
        /// As in [`Interface`].
        pub name: *const c_char,
        /// Must be the interface's major number.
        pub major: u16,
        /// Smallest minor number that will do.
        pub minor: u16,
        /// Size in bytes of the table as this module knows it; the interface's may be larger.
        pub size: u32,
        /// `BIND_REQUIRED` or `BIND_OPTIONAL`.
        pub kind: u32,
        /// Zero.
        pub reserved: u32,
        /// Where the host writes the table's address, before any `init_f`.
        pub slot: *mut *const c_void,
        /// As in [`Interface`], of the functions that this module knows; may be null.
        pub layout: *const c_char,
    }
}

c_struct! {
    /// The exports table, found under the dynamic symbol [`EXPORTS_SYMBOL`].
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[cfg_attr(
        feature = "layout",
        sabi(kind(Prefix(prefix_ref = ModuleExportsRef, prefix_fields = ModuleExportsPrefix)))
    )]
    pub struct ModuleExports as module_exports {
        /// Magic, version, size, flags.
        pub header: Header,
        /// The slot that the loader fills.
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
        /// Called with the rank: in main with `PROC_INIT` and `PROC_MAIN`, in every forked process
        /// once. Negative is failure.
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
        /// Number of imported interfaces.
        pub bind_count: u32,
        /// Distance in bytes between two imported interfaces.
        #[cfg_attr(feature = "layout", sabi(last_prefix_field))]
        pub bind_stride: u32,
    }
}
