//! Modules: how a file is found, read and judged without running it, how it is loaded, and how it
//! is called.
//!
//! *Runs in:* supervisor (finding and judging), main (loading), main and every child (calling).
//! *Never:* unloads anything.
//!
//! ```text
//! before any code of the module runs            in main, once it is loaded
//! source       bytes of the file                loader   dlopen, the symbol, the table's header
//! elf          header, note, symbol             layout   a Rust module's types against the host's
//! relocation   pointers as they will be            │
//!    │                                             │
//!    └───────────────┐             ┌───────────────┘
//!                  table   one walk over the exports table
//!                  judge   one set of rules
//!    ┌───────────────┘             └───────────────┐
//! resolve, order, params, interface             Module, called through `call`
//! ```

pub(crate) mod byte_order;
pub mod call;
pub(crate) mod elf;
pub(crate) mod findings;
pub(crate) mod inspection;
pub(crate) mod interface;
pub(crate) mod judge;
#[allow(unsafe_code)] // reads the description that a Rust module points to
pub(crate) mod layout;
#[allow(unsafe_code)] // reads and writes what a loaded table points to
pub mod loader;
pub(crate) mod order;
pub(crate) mod params;
pub(crate) mod relocation;
pub(crate) mod resolve;
pub(crate) mod source;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub(crate) use findings::NoteInfo;
pub(crate) use inspection::{Inspection, inspect};
pub(crate) use params::ParamDecl;
pub(crate) use resolve::{Resolved, resolve};
pub(crate) use table::TableClaim;

use std::os::raw::c_int;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use interface::{ImportRequest, InterfaceShape};
use module_api::abi;
use table::Pointer;

/// A loaded module. It stays at one address for the life of the process: that address is the handle
/// in every call to the host.
#[derive(Debug)]
pub struct Module {
    /// `MARK`; tells a handle from garbage.
    pub mark: u64,
    /// Position in the planned load order, in which optional modules that could not be loaded leave
    /// gaps.
    pub index: u32,
    pub name: String,
    pub version: String,
    pub path: PathBuf,
    /// `FLAG_*` of its header.
    pub flags: u32,
    pub init_f: Option<extern "C" fn() -> c_int>,
    pub init_child_f: Option<extern "C" fn(rank: c_int) -> c_int>,
    pub destroy_f: Option<extern "C" fn()>,
    pub handlers: Vec<Handler>,
    /// The interfaces that it exports.
    pub interfaces: Vec<InterfaceShape>,
    /// Their tables, by the same index.
    pub interface_tables: Vec<Pointer>,
    pub imports: Vec<ImportedInterface>,
    /// Number of processes that it registered in `init_f`. Written in main.
    pub registered: AtomicU32,
    /// Number of processes that it has forked. Written in main.
    pub forked: AtomicU32,
}

/// First word of every module handle.
pub const MARK: u64 = u64::from_le_bytes(*b"MODULE\0\x01");

/// An entry point for traffic.
#[derive(Debug, Clone)]
pub struct Handler {
    /// The part after the colon in `handler = "module:name"`.
    pub name: String,
    /// `HANDLER_UDP` or `HANDLER_STREAM`, which decides which of the next two is set.
    pub kind: u32,
    pub on_datagrams: Option<extern "C" fn(batch: *mut abi::UdpBatch) -> i32>,
    pub stream: Option<StreamFunctions>,
}

/// A copy of a stream handler's functions, described in [`abi::StreamFunctions`].
#[derive(Debug, Clone, Copy)]
pub struct StreamFunctions {
    pub on_open: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    pub on_data: extern "C" fn(stream: *mut abi::Stream, data: *const u8, len: usize) -> i64,
    pub on_writable: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    pub on_end: Option<extern "C" fn(stream: *mut abi::Stream, unused: usize) -> i32>,
    pub on_close: Option<extern "C" fn(stream: *mut abi::Stream, reason: u32)>,
}

/// An interface of another module.
#[derive(Debug, Clone)]
pub struct ImportedInterface {
    pub request: ImportRequest,
    /// Where the module wants the address of the interface's table.
    pub slot: Pointer,
}

impl Module {
    /// Whether it wants the call with `PROC_POSTCHILDINIT`.
    pub fn wants_post_child_init(&self) -> bool {
        self.flags & abi::FLAG_WANTS_POSTCHILDINIT != 0
    }

    /// Whether it wants calls in forked processes.
    pub fn wants_child_init(&self) -> bool {
        self.flags & abi::FLAG_NO_CHILD_INIT == 0
    }

    /// The handler of that kind with that name, or the first of that kind.
    pub fn handler(&self, kind: u32, name: Option<&str>) -> Option<&Handler> {
        self.handlers.iter().find(|handler| handler.kind == kind && name.is_none_or(|name| handler.name == name))
    }
}
