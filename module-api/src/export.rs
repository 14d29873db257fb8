//! What `export_module!` expands to: the exports table, the ELF note, and the entries that lead to
//! the author's code (`cell`).
//!
//! Nothing here is for authors to call.

mod cell;

use std::io::Write as _;

use crate::Module;
use crate::abi::{self, Note, NoteDescriptor};

pub use crate::host::SLOT;
pub use cell::ModuleCell;

/// A module that [`export_module!`](crate::export_module!) has exported, for the fake host.
///
/// # Safety
/// The table leads to entries of the cell, and to nothing else. Implemented by the macro only.
pub unsafe trait Exported: Module {
    /// The table that the host looks up.
    fn exports() -> &'static abi::ModuleExports;
    /// The static that holds the module.
    fn cell() -> &'static ModuleCell<Self>;
}

/// To be called before a fork: every child would print what is left in the buffer.
pub(crate) fn flush_stdout() {
    let _ = std::io::stdout().flush();
}

/// The note that lets the host judge a file before any of its code runs.
pub const fn note(flags: u32) -> Note {
    Note {
        name_size: 8,
        descriptor_size: size_of::<NoteDescriptor>() as u32,
        note_type: abi::NOTE_TYPE,
        name: padded(abi::NOTE_NAME),
        descriptor: NoteDescriptor {
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            flags: flags & (abi::FLAG_RUST | abi::FLAG_PANIC_ABORT),
            exports_size: size_of::<abi::ModuleExports>() as u32,
            sdk: padded(concat!("module-api ", env!("CARGO_PKG_VERSION"))),
            compiler: padded(env!("MODULE_API_RUSTC")),
            ..NoteDescriptor::EMPTY
        },
    }
}

/// `Header::flags` of a module of this crate; `requested` are the flags that its export asks for.
pub const fn flags(requested: u32) -> u32 {
    let panics = if cfg!(panic = "abort") { abi::FLAG_PANIC_ABORT } else { 0 };
    abi::FLAG_RUST | panics | requested
}

/// Whether the export lets the host call `child_init`.
pub struct ChildInitCalled<const CALLED: bool>;

/// Without the call nothing makes a state.
#[diagnostic::on_unimplemented(
    message = "`child_init: false` needs `type Child = ()`: without a call of `child_init` no process has a state"
)]
pub trait CanHaveState<Child> {}

impl<Child> CanHaveState<Child> for ChildInitCalled<true> {}
impl CanHaveState<()> for ChildInitCalled<false> {}

/// The first 32 bytes of an exports table of this crate.
pub const fn header(flags: u32) -> abi::Header {
    abi::Header {
        magic: abi::MODULE_MAGIC,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        size: size_of::<abi::ModuleExports>() as u32,
        flags,
        #[cfg(feature = "layout")]
        rust: (&raw const crate::layout::RUST_INFO).cast(),
        ..abi::Header::EMPTY
    }
}

/// `text` with zero bytes after it, cut so that there is at least one.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() && at + 1 < N {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// `text` and a zero byte; `N` is one more than its length. Stops the build if the text itself
/// contains a zero byte.
pub const fn c_bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() {
        assert!(text.as_bytes()[at] != 0, "a text of export_module! contains a zero byte");
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// Stops the build for a name that the host would refuse: 1 to 31 of `a` to `z`, `0` to `9`, `_`
/// and `-`.
pub const fn checked_name(name: &str) -> &str {
    assert!(!name.is_empty() && name.len() <= 31, "a name in export_module! must have 1 to 31 bytes");
    let mut at = 0;
    while at < name.len() {
        let byte = name.as_bytes()[at];
        let allowed = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        assert!(allowed, "a name in export_module! may only contain a-z, 0-9, _ and -");
        at += 1;
    }
    name
}

/// Stops the build for a version that the host would refuse.
pub const fn checked_version(version: &str) -> &str {
    assert!(version.len() <= 31, "the version in export_module! must have at most 31 bytes");
    version
}

/// Strips the blank that a doc comment's text starts with.
pub const fn help_text(text: &str) -> &str {
    match text.as_bytes() {
        [b' ', ..] => text.split_at(1).1,
        _ => text,
    }
}

/// A pointer to `text` with a zero byte at its end.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_text {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const BYTES: &[u8; TEXT.len() + 1] = &$crate::export::c_bytes(TEXT);
        BYTES.as_ptr().cast::<::core::ffi::c_char>()
    }};
}

/// Makes a [`Module`] the module of this library: exports the table that the host looks up, and the
/// note that describes the file.
///
/// Used once per library; the library's crate type is `cdylib`. The parts are written in this
/// order; only the type and `name` are required:
///
/// ```standalone_crate
/// # use module_api::prelude::*;
/// # struct Echo;
/// # impl Module for Echo {
/// #     type Params = (); type Child = ();
/// #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Echo) }
/// #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> { Ok(()) }
/// # }
/// # impl Echo { fn serve(&self, _: &mut (), _: &Batch<'_>) -> Result<()> { Ok(()) } }
/// # struct Bytes;
/// # impl StreamHandler<Echo> for Bytes {
/// #     fn open(_: &Echo, _: &mut (), _: &mut Stream<'_>) -> Result<Bytes> { Ok(Bytes) }
/// #     fn data(&mut self, _: &Echo, _: &mut (), stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
/// #         stream.write(data)?;
/// #         Ok(data.len())
/// #     }
/// # }
/// module_api::export_module! {
///     Echo,
///     name: "echo",                        // 1 to 31 of a-z, 0-9, _ and -
///     version: env!("CARGO_PKG_VERSION"),  // the default
///     summary: "sends each datagram back",
///     requires: ["locations"],             // must be loaded; initialised before this module
///     after: ["metrics"],                  // if loaded, initialised before this module
///     // exports: [Sums], binds: [Routes], binds_if_present: [Metrics],  see `interface`
///     child_init: false,                   // saves each process the call; only with `type Child = ()`
///     post_child_init: true,               // asks for `Module::post_child_init`
///     udp: {
///         /// Sends each datagram back. (`modhost inspect` shows this text.)
///         "echo" => Echo::serve,           // the first one is the default handler of a listener
///     },
///     stream: {
///         /// Sends each byte back.
///         "bytes" => Bytes,                // a type that implements `StreamHandler`
///     },
/// }
/// # fn main() {}
/// ```
///
/// A datagram handler is a function `Fn(&M, &mut M::Child, &Batch<'_>) -> Result<()>`. An error or
/// a panic of it ends its process, which is then replaced. If a datagram cannot be answered, log
/// that and return `Ok`.
#[macro_export]
macro_rules! export_module {
    (
        $module:ty,
        name: $name:expr
        $(, version: $version:expr)?
        $(, summary: $summary:expr)?
        $(, requires: [$($requires:expr),* $(,)?])?
        $(, after: [$($after:expr),* $(,)?])?
        $(, exports: [$($exports:ty),* $(,)?])?
        $(, binds: [$($binds:ty),* $(,)?])?
        $(, binds_if_present: [$($binds_if_present:ty),* $(,)?])?
        $(, child_init: $child_init:literal)?
        $(, post_child_init: $post_child_init:literal)?
        $(, udp: { $( $(#[doc = $help:literal])* $handler_name:literal => $handler:expr ),* $(,)? })?
        $(, stream: { $( $(#[doc = $stream_help:literal])* $stream_name:literal => $stream:ty ),* $(,)? })?
        $(,)?
    ) => {
        const _: () = {
            use ::core::ffi::c_int;
            use ::core::option::Option::Some;
            use $crate::abi::{Bind, Dependency, Handler, Interface, ModuleExports, Note, Param, Stream, StreamFunctions, UdpBatch};
            use $crate::export::{CanHaveState, ChildInitCalled, ModuleCell, checked_name, checked_version, flags, header, help_text, note};

            static MODULE: ModuleCell<$module> = ModuleCell::new();

            extern "C" fn init_f() -> c_int {
                // SAFETY: only the exports table leads here, and only the host reads the table.
                unsafe { MODULE.init_f() }
            }

            extern "C" fn init_child_f(rank: c_int) -> c_int {
                // SAFETY: as above.
                unsafe { MODULE.init_child_f(rank) }
            }

            extern "C" fn destroy_f() {
                // SAFETY: as above.
                unsafe { MODULE.destroy_f() }
            }

            // For the fake host, in the tests of the exporting crate only: otherwise the type may
            // be another crate's, for which the trait cannot be implemented. SAFETY: the table
            // below leads to entries of the cell above.
            #[cfg(test)]
            unsafe impl $crate::export::Exported for $module {
                fn exports() -> &'static ModuleExports {
                    &module_exports
                }
                fn cell() -> &'static ModuleCell<$module> {
                    &MODULE
                }
            }

            struct Here;
            // SAFETY: the cell is this library's.
            unsafe impl $crate::interface::Home for Here {
                type Module = $module;
                fn cell() -> &'static ModuleCell<$module> {
                    &MODULE
                }
            }

            const INTERFACES: &[Interface] = &[$($(<$exports>::exported::<Here>(),)*)?];
            const BINDS: &[Bind] = &[
                $($( <$binds>::bind($crate::abi::BIND_REQUIRED), )*)?
                $($( <$binds_if_present>::bind($crate::abi::BIND_OPTIONAL), )*)?
            ];
            const CHILD_INIT: bool = true $(&& $child_init)?;
            const fn allowed<Said: CanHaveState<Child>, Child>() {}
            const _: () = allowed::<ChildInitCalled<CHILD_INIT>, <$module as $crate::Module>::Child>();
            const FLAGS: u32 = flags(
                if CHILD_INIT { 0 } else { $crate::abi::FLAG_NO_CHILD_INIT }
                    | if false $(|| $post_child_init)? { $crate::abi::FLAG_WANTS_POSTCHILDINIT } else { 0 },
            );
            // The first element is the version.
            const VERSION: &str = [$($version,)? ::core::env!("CARGO_PKG_VERSION")][0];
            const PARAMS: &[Param] = <<$module as $crate::Module>::Params as $crate::params::ParamSet>::TABLE;
            const HANDLERS: &[Handler] = &[$($(
                Handler {
                    name: $crate::__c_text!(checked_name($handler_name)),
                    kind: $crate::abi::HANDLER_UDP,
                    help: $crate::__c_text!(help_text(::core::concat!("" $(, $help)*))),
                    on_datagrams: {
                        extern "C" fn on_datagrams(batch: *mut UdpBatch) -> i32 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_datagrams(batch, $handler) }
                        }
                        Some(on_datagrams)
                    },
                    ..Handler::EMPTY
                },
            )*)? $($(
                Handler {
                    name: $crate::__c_text!(checked_name($stream_name)),
                    kind: $crate::abi::HANDLER_STREAM,
                    help: $crate::__c_text!(help_text(::core::concat!("" $(, $stream_help)*))),
                    stream: {
                        extern "C" fn on_open(stream: *mut Stream) -> i32 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_open::<$stream>(stream) }
                        }
                        extern "C" fn on_data(stream: *mut Stream, data: *const u8, len: usize) -> i64 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_data::<$stream>(stream, data, len) }
                        }
                        extern "C" fn on_writable(stream: *mut Stream) -> i32 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_writable::<$stream>(stream) }
                        }
                        extern "C" fn on_end(stream: *mut Stream, unused: usize) -> i32 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_end::<$stream>(stream, unused) }
                        }
                        extern "C" fn on_close(stream: *mut Stream, reason: u32) {
                            // SAFETY: as above.
                            unsafe { MODULE.on_close::<$stream>(stream, reason) }
                        }
                        &StreamFunctions {
                            size: ::core::mem::size_of::<StreamFunctions>() as u32,
                            on_open: Some(on_open),
                            on_data: Some(on_data),
                            on_writable: Some(on_writable),
                            on_end: Some(on_end),
                            on_close: Some(on_close),
                            ..StreamFunctions::EMPTY
                        }
                    },
                    ..Handler::EMPTY
                },
            )*)?];
            const DEPENDS: &[Dependency] = &[
                $($( Dependency {
                    name: $crate::__c_text!(checked_name($requires)), kind: $crate::abi::DEPEND_REQUIRED, ..Dependency::EMPTY
                }, )*)?
                $($( Dependency {
                    name: $crate::__c_text!(checked_name($after)), kind: $crate::abi::DEPEND_OPTIONAL, ..Dependency::EMPTY
                }, )*)?
            ];

            #[used]
            #[unsafe(link_section = ".note.modhost")]
            static NOTE: Note = note(FLAGS);

            #[allow(non_upper_case_globals)]
            #[unsafe(no_mangle)]
            pub static module_exports: ModuleExports = ModuleExports {
                header: header(FLAGS),
                host_slot: $crate::export::SLOT.as_ptr(),
                name: $crate::__c_text!(checked_name($name)),
                version: $crate::__c_text!(checked_version(VERSION)),
                summary: [$($crate::__c_text!($summary),)? ::core::ptr::null()][0],
                params: PARAMS.as_ptr(),
                param_count: PARAMS.len() as u32,
                param_stride: ::core::mem::size_of::<Param>() as u32,
                handlers: HANDLERS.as_ptr(),
                handler_count: HANDLERS.len() as u32,
                handler_stride: ::core::mem::size_of::<Handler>() as u32,
                depends: DEPENDS.as_ptr(),
                depend_count: DEPENDS.len() as u32,
                depend_stride: ::core::mem::size_of::<Dependency>() as u32,
                init_f: Some(init_f),
                init_child_f: Some(init_child_f),
                destroy_f: Some(destroy_f),
                interfaces: INTERFACES.as_ptr(),
                interface_count: INTERFACES.len() as u32,
                interface_stride: ::core::mem::size_of::<Interface>() as u32,
                binds: BINDS.as_ptr(),
                bind_count: BINDS.len() as u32,
                bind_stride: ::core::mem::size_of::<Bind>() as u32,
            };
        };
    };
}
