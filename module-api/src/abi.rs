//! The binary interface between a host and its modules: C structs and constants, mirrored by
//! `include/modhost.h`, which is normative for C.
//!
//! Nothing here has behaviour. Every struct is `repr(C)`. A struct that may grow starts with its
//! size, or is an array element whose owner states the stride. It grows only at its end; a new
//! field is nullable and is used only if the size covers it. No `bool`, enum, `char`, reference or
//! Rust collection is passed: C can write values that Rust forbids.
//!
//! A safe type of the SDK that wraps a struct of this module may have the struct's name. These
//! pairs, and no others:
//!
//! | here | safe type |
//! | --- | --- |
//! | `Datagram` | `module_api::Datagram` |
//! | `HostInfo` | `module_api::HostInfo` |
//! | `Interface` | `module_api::interface::Interface` |
//! | `ProcessRow` | `module_api::ProcessRow` |
//! | `Stream` | `module_api::Stream` |

#[macro_use]
mod c_struct;

mod codes;
mod datagrams;
mod exports;
mod functions;
mod memory;
mod note;
mod params;
mod processes;
mod stats;
mod stream;

pub(crate) use c_struct::Empty;
pub use c_struct::StructLayout;
pub use codes::*;
pub use datagrams::*;
pub use exports::*;
pub use functions::*;
pub use memory::*;
pub use note::*;
pub use params::*;
pub use processes::*;
pub use stats::*;
pub use stream::*;

/// Layout of every struct of this module. The tests compare it with the C header and with the
/// golden file.
#[doc(hidden)]
pub const LAYOUTS: &[StructLayout] = &[
    Header::LAYOUT,
    HostSlot::LAYOUT,
    StatHome::LAYOUT,
    Str::LAYOUT,
    Param::LAYOUT,
    List::LAYOUT,
    Table::LAYOUT,
    Handler::LAYOUT,
    StreamFunctions::LAYOUT,
    Stream::LAYOUT,
    Dependency::LAYOUT,
    Interface::LAYOUT,
    Bind::LAYOUT,
    ModuleExports::LAYOUT,
    Datagram::LAYOUT,
    UdpBatch::LAYOUT,
    Mutex::LAYOUT,
    DeadOwner::LAYOUT,
    ProcessInfo::LAYOUT,
    ForkSpec::LAYOUT,
    TimerSpec::LAYOUT,
    ListenSpec::LAYOUT,
    StatSpec::LAYOUT,
    StatInfo::LAYOUT,
    ProcessRow::LAYOUT,
    HostInfo::LAYOUT,
    HostApi::LAYOUT,
    NoteDescriptor::LAYOUT,
    Note::LAYOUT,
];

// SAFETY: the table is read-only data. Its pointers lead to constants, or to targets that only the
// host writes, in main, before any function of the module runs.
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
