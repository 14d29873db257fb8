//! Modules: how a file is found, read without running it, judged, ordered; how it is loaded; and how it is called.
//!
//! *Runs in:* supervisor (finding and judging), main (loading), main and every child (calling). *Never:* unloads anything.

pub mod call;
pub mod elf;
pub mod inspection;
pub mod interface;
pub mod judge;
#[allow(unsafe_code)] // the loader's second half: reads what a Rust module points to
pub mod layout;
#[allow(unsafe_code)] // the loader: one of the few rooms where unsafe may stand
pub mod loader;
pub mod order;
pub mod params;
pub mod relocation;
pub mod resolve;
pub mod source;
pub mod table;
#[cfg(test)]
mod tests;

pub use inspection::{FileInfo, Inspection, NoteInfo, Verdict, inspect, inspect_bytes};
pub use params::{ParamDecl, ParamValue};
pub use resolve::{Resolution, Resolved, Skipped, resolve};
pub use table::{Function, TableInfo};

use std::os::raw::c_int;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use module_api::abi;

/// A loaded module. Lives, at one address, as long as its process: that address is the handle every call to the host carries.
#[derive(Debug)]
pub struct Module {
    /// `MARK`; tells a handle from garbage.
    pub mark: u64,
    /// Position in the planned load order, in which optional modules that could not be loaded leave gaps.
    pub index: u32,
    /// Its own name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// `FLAG_*` of its header.
    pub flags: u32,
    /// Runs in main before anything is forked.
    pub init_f: Option<extern "C" fn() -> c_int>,
    /// Runs in main and in every forked process.
    pub init_child_f: Option<extern "C" fn(rank: c_int) -> c_int>,
    /// Runs in main at the end.
    pub destroy_f: Option<extern "C" fn()>,
    /// Its entry points for traffic.
    pub handlers: Vec<Handler>,
    /// Names of the modules whose `init_f` runs first.
    pub depends: Vec<Depend>,
    /// Tables of functions for other modules.
    pub interfaces: Vec<Exported>,
    /// Those that it wants from others.
    pub binds: Vec<Bound>,
    /// Processes it registered in `init_f`. Written in main.
    pub registered: AtomicU32,
    /// Processes it has forked. Written in main.
    pub forked: AtomicU32,
}

/// First word of every module handle.
pub const MARK: u64 = u64::from_le_bytes(*b"MODULE\0\x01");

/// An entry point for traffic.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Name after the colon.
    pub name: String,
    /// `HANDLER_UDP` or `HANDLER_STREAM`.
    pub kind: u32,
    /// What to call with datagrams.
    pub on_datagrams: Option<extern "C" fn(batch: *mut abi::UdpBatch) -> i32>,
    /// What to call about connections.
    pub stream: Option<StreamFunctions>,
}

/// What a stream handler's functions look like, copied from the module's table.
#[derive(Debug, Clone, Copy)]
pub struct StreamFunctions {
    /// A new connection.
    pub on_open: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    /// Bytes that have arrived.
    pub on_data: extern "C" fn(stream: *mut abi::Stream, data: *const u8, len: usize) -> i64,
    /// There is room again.
    pub on_writable: Option<extern "C" fn(stream: *mut abi::Stream) -> i32>,
    /// The peer has finished sending.
    pub on_end: Option<extern "C" fn(stream: *mut abi::Stream, unused: usize) -> i32>,
    /// It is over.
    pub on_close: Option<extern "C" fn(stream: *mut abi::Stream, reason: u32)>,
}

/// What a module says of another one.
#[derive(Debug, Clone)]
pub struct Depend {
    /// Name of the other one.
    pub name: String,
    /// `DEPEND_REQUIRED` or `DEPEND_OPTIONAL`.
    pub kind: u32,
}

/// A table of functions for other modules, as it was loaded.
#[derive(Debug, Clone)]
pub struct Exported {
    /// Name, version and size.
    pub shape: interface::Shape,
    /// Where it is.
    pub table: usize,
}

/// An interface that a module wants, as it was loaded.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Name, version and size.
    pub wish: interface::Wish,
    /// Where the module wants the table's address.
    pub slot: usize,
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

    /// Its handler of that kind: by name, or the first.
    pub fn handler(&self, kind: u32, name: Option<&str>) -> Option<&Handler> {
        self.handlers.iter().find(|handler| handler.kind == kind && name.is_none_or(|name| handler.name == name))
    }
}
