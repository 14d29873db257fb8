//! What `export_module!` expands to: the exports table, the ELF note, and the entries that lead to the author's code.
//!
//! The entries run in every process and phase, each behind the guard. Nothing here is for authors to call.

use std::any::TypeId;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_int;
use std::io::Write as _;
use std::mem;
use std::ptr::NonNull;

use crate::abi::{self, Note, NoteDescriptor, UdpBatch};
use crate::guard::{guard, install_panic_hook};
use crate::params::ParamSet as _;
use crate::process::{ChildInit, Destroy, PostChildInit, Rank};
use crate::stream::{CloseReason, Stream, StreamHandler};
use crate::udp::Batch;
use crate::{Error, ModInit, Module, ProcInit, ProcMain, Result, logging};

/// Where a module lives: one static per module, written in main up to `PROC_INIT`, then frozen; the child state per process.
///
/// Small, and used in place of anything on the heap, so that a forked process that only waits dirties one page for it.
pub struct ModuleCell<M: Module> {
    state: Cell<State>,
    module: UnsafeCell<Option<M>>,
    /// Borrowed while a handler, a timer function or an entry function runs.
    child: RefCell<Option<M::Child>>,
}

/// How far the module is. Decides which references to it may exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `init`, after a failed one and after `destroy`: no module.
    Empty,
    /// The module is being made, changed or dropped: nobody else may have a reference.
    Exclusive,
    /// `init` has returned.
    Made,
    /// `proc_init` has returned: shared references only.
    Frozen,
}

// SAFETY: the host calls the entries of a module from one thread of each process, and the entries are the only way to the cell:
// its methods are `unsafe` or private to this crate, whose contexts and callbacks do not leave that thread.
unsafe impl<M: Module> Sync for ModuleCell<M> {}

impl<M: Module> ModuleCell<M> {
    /// No module yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> ModuleCell<M> {
        ModuleCell { state: Cell::new(State::Empty), module: UnsafeCell::new(None), child: RefCell::new(None) }
    }

    /// `init_f`.
    ///
    /// # Safety
    /// Called by the host only, in main, in its one thread.
    pub unsafe fn init_f(&'static self) -> c_int {
        logging::install();
        install_panic_hook();
        let code = guard(|| {
            crate::host::check_host()?;
            if self.state.get() != State::Empty {
                return Err("init_f was called twice".into());
            }
            let params = M::Params::read()?;
            let module = M::init(&mut ModInit::new(self), params)?;
            // SAFETY: in this state there is no module, and so no reference to one.
            unsafe { *self.module.get() = Some(module) };
            self.state.set(State::Made);
            Ok(())
        });
        flush_stdout();
        code
    }

    /// `init_child_f`.
    ///
    /// # Safety
    /// Called by the host only, in the one thread of the process that `rank` stands for.
    pub unsafe fn init_child_f(&'static self, rank: c_int) -> c_int {
        let code = guard(|| match rank {
            abi::PROC_INIT => self.proc_init(),
            abi::PROC_MAIN => self.with_module(|module| module.proc_main(&mut ProcMain::new(self))),
            abi::PROC_POSTCHILDINIT => self.with_module(|module| module.post_child_init(&mut PostChildInit::new())),
            rank => self.child_init(Rank::new(rank)),
        });
        if matches!(rank, abi::PROC_INIT | abi::PROC_MAIN) {
            flush_stdout();
        }
        code
    }

    /// `destroy_f`.
    ///
    /// # Safety
    /// Called by the host only, in main, in its one thread, outside of every other call to this module.
    pub unsafe fn destroy_f(&'static self) {
        // Its text is with the host; there is nobody to return a code to.
        let _ = guard(|| {
            let made = matches!(self.state.get(), State::Made | State::Frozen);
            if !made {
                return Ok(());
            }
            self.state.set(State::Exclusive);
            // SAFETY: no other entry runs, and none that starts now gets past the state.
            let module = unsafe { &mut *self.module.get() };
            if let Some(module) = module {
                module.destroy(&mut Destroy::new());
            }
            // In no-fork mode main has a child state too; it may depend on the module.
            drop(self.child.try_borrow_mut().map(|mut child| child.take()));
            *module = None;
            self.state.set(State::Empty);
            Ok(())
        });
        flush_stdout();
    }

    /// A handler's `on_datagrams`.
    ///
    /// # Safety
    /// Called by the host only, in its one thread, with a batch that is valid until the call returns and answers that are sent before
    /// `destroy_f`.
    #[inline]
    pub unsafe fn on_datagrams<H>(&'static self, batch: *mut UdpBatch, handler: H) -> i32
    where
        H: for<'b> Fn(&'b M, &mut M::Child, &Batch<'b>) -> Result<()>,
    {
        guard(|| {
            self.with_child(|module, child| {
                // SAFETY: the batch is the host's, and `'b` ends with this call. Answers may borrow from the module a little longer,
                // which changes at `destroy_f` only.
                let batch = unsafe { Batch::new(batch) };
                handler(module, child, &batch)
            })
        })
    }

    /// A stream handler's `on_open`: makes the value that stands for the connection.
    ///
    /// # Safety
    /// As for `on_datagrams`, with a stream that lives until `on_close` returns.
    pub unsafe fn on_open<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream) -> i32 {
        guard(|| {
            // SAFETY: the stream is the host's and valid until this returns.
            let handler = self.with_child(|module, child| H::open(module, child, &mut unsafe { Stream::new(stream) }))?;
            // SAFETY: as above; `user` is this module's.
            unsafe { (*stream).user = Box::into_raw(Box::new(handler)).cast() };
            Ok(())
        })
    }

    /// A stream handler's `on_data`.
    ///
    /// # Safety
    /// As for `on_open`; `data` leads to `len` readable bytes.
    #[inline]
    pub unsafe fn on_data<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream, data: *const u8, len: usize) -> i64 {
        let mut used = 0;
        let code = guard(|| {
            // SAFETY: the caller's contract, and the host calls about a stream one at a time.
            let (handler, data) = unsafe { (&mut *(*stream).user.cast::<H>(), std::slice::from_raw_parts(data, len)) };
            // SAFETY: as above.
            used = self.with_child(|module, child| handler.data(module, child, &mut unsafe { Stream::new(stream) }, data))?;
            if used > len {
                return Err(Error::new(format_args!("the handler says it used {used} of {len} bytes")));
            }
            Ok(())
        });
        if code < 0 { i64::from(code) } else { used as i64 }
    }

    /// A stream handler's `on_writable`.
    ///
    /// # Safety
    /// As for `on_open`.
    pub unsafe fn on_writable<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream) -> i32 {
        guard(|| {
            // SAFETY: the host calls about a stream one at a time, between `on_open` and `on_close`.
            let (handler, mut stream) = unsafe { (&mut *(*stream).user.cast::<H>(), Stream::new(stream)) };
            self.with_child(|module, child| handler.writable(module, child, &mut stream))
        })
    }

    /// A stream handler's `on_end`.
    ///
    /// # Safety
    /// As for `on_open`.
    pub unsafe fn on_end<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream, unused: usize) -> i32 {
        guard(|| {
            // SAFETY: as in `on_writable`.
            let (handler, mut stream) = unsafe { (&mut *(*stream).user.cast::<H>(), Stream::new(stream)) };
            self.with_child(|module, child| handler.end(module, child, &mut stream, unused))
        })
    }

    /// A stream handler's `on_close`.
    ///
    /// # Safety
    /// As for `on_open`, after it succeeded, once.
    pub unsafe fn on_close<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream, reason: u32) {
        // A failure is logged by the guard; the connection is over either way.
        let _ = guard(|| {
            // SAFETY: `on_open` made it, and this is the last call about it.
            let handler = unsafe { Box::from_raw((*stream).user.cast::<H>()) };
            self.with_child(|module, child| {
                handler.close(module, child, CloseReason::of(reason));
                Ok(())
            })
        });
    }

    fn proc_init(&'static self) -> Result<()> {
        if self.state.get() != State::Made {
            return Err("PROC_INIT does not follow init_f".into());
        }
        self.state.set(State::Exclusive);
        // SAFETY: no other entry runs, and none that starts now gets past the state.
        let module = unsafe { &mut *self.module.get() };
        // Whatever comes of it, the module exists and is to be destroyed.
        let _made = ResetTo(&self.state, State::Made);
        module.as_mut().ok_or_else(no_module)?.proc_init(&mut ProcInit::new(self))?;
        mem::forget(_made);
        self.state.set(State::Frozen);
        Ok(())
    }

    fn child_init(&'static self, rank: Rank) -> Result<()> {
        if stateless::<M>() {
            return self.with_module(|module| module.child_init(&mut ChildInit::new(rank)).map(drop));
        }
        // A process that is restarted in no-fork mode is forked from a main that has a child state of its own. It belongs to main: to
        // run its destructor here could say good-bye on connections that main goes on using.
        let mut child = self.child.try_borrow_mut().map_err(|_| Error::new("child_init was called inside of a call to the module"))?;
        mem::forget(child.take());
        *child = Some(self.with_module(|module| module.child_init(&mut ChildInit::new(rank)))?);
        Ok(())
    }

    /// Calls `function` with the frozen module.
    #[inline]
    pub(crate) fn with_module<R>(&'static self, function: impl FnOnce(&'static M) -> Result<R>) -> Result<R> {
        if self.state.get() != State::Frozen {
            return Err(no_module());
        }
        // SAFETY: only `proc_init` freezes, and only a module that there is; `destroy_f`, which the host calls outside of every other call, leaves this
        // state before it takes the module away.
        function(unsafe { (*self.module.get()).as_ref().unwrap_unchecked() })
    }

    /// Calls `function` with the module, for another module: from the end of `init` on, and not while the module is being changed.
    #[inline]
    pub(crate) fn with_made<R>(&'static self, function: impl FnOnce(&M) -> Result<R>) -> Result<R> {
        if !matches!(self.state.get(), State::Made | State::Frozen) {
            return Err(no_module());
        }
        // SAFETY: in these states the module is shared, and the calls that change it (`PROC_INIT`, `destroy_f`) are the host's own, outside of
        // every other call to this module.
        match unsafe { &*self.module.get() } {
            Some(module) => function(module),
            None => Err(no_module()),
        }
    }

    /// Calls `function` with the frozen module and the state of this process.
    #[inline]
    pub(crate) fn with_child<R>(&'static self, function: impl FnOnce(&'static M, &mut M::Child) -> Result<R>) -> Result<R> {
        self.with_module(|module| {
            if stateless::<M>() {
                // SAFETY: `M::Child` is `()`: no bytes, so that every aligned pointer will do and references cannot conflict.
                return function(module, unsafe { NonNull::<M::Child>::dangling().as_mut() });
            }
            let mut child = self.child.try_borrow_mut().map_err(|_| re_entered())?;
            function(module, child.as_mut().ok_or_else(no_child)?)
        })
    }
}

/// What [`export_module!`](crate::export_module!) makes of a module, for the fake host.
///
/// # Safety
/// The table leads to entries of the cell, and to nothing else. Implemented by the macro only.
pub unsafe trait Exported: Module {
    /// The table that the host looks up.
    fn exports() -> &'static abi::ModuleExports;
    /// Where the module lives.
    fn cell() -> &'static ModuleCell<Self>;
}

#[cfg(feature = "testing")]
impl<M: Module> ModuleCell<M> {
    /// The module, frozen.
    pub(crate) fn module(&'static self) -> Option<&'static M> {
        self.with_module(Ok).ok()
    }

    /// Exchanges the state of this process with that of another one, outside of every call to the module.
    pub(crate) fn swap_child(&'static self, other: &mut Option<M::Child>) {
        mem::swap(&mut *self.child.borrow_mut(), other);
    }
}

/// Whether there is no child state to keep: then nothing is written in a child, and no page becomes its own.
#[inline]
fn stateless<M: Module>() -> bool {
    TypeId::of::<M::Child>() == TypeId::of::<()>()
}

/// Puts the state back, also after a panic.
struct ResetTo<'a>(&'a Cell<State>, State);

impl Drop for ResetTo<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

#[cold]
fn no_module() -> Error {
    Error::new("the module is not initialised, or not yet through proc_init")
}

#[cold]
fn no_child() -> Error {
    Error::new("this process has no child state: child_init did not run in it")
}

#[cold]
fn re_entered() -> Error {
    Error::new("the module was called again while it still works with its child state")
}

/// Text that a fork finds in the buffer is printed by every child.
pub(crate) fn flush_stdout() {
    let _ = std::io::stdout().flush();
}

/// The note that lets a file be judged before any of its code runs.
pub const fn note(flags: u32) -> Note {
    Note {
        name_size: 8,
        descriptor_size: size_of::<NoteDescriptor>() as u32,
        note_type: abi::NOTE_TYPE,
        name: padded(abi::NOTE_NAME),
        descriptor: NoteDescriptor {
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            needs_host_minor: 0,
            reserved: 0,
            flags: flags & (abi::FLAG_RUST | abi::FLAG_PANIC_ABORT),
            exports_size: size_of::<abi::ModuleExports>() as u32,
            sdk: padded(concat!("module-api ", env!("CARGO_PKG_VERSION"))),
            compiler: padded(env!("MODULE_API_RUSTC")),
        },
    }
}

/// Flags of a module of this crate.
pub const fn flags(child_init: bool, post_child_init: bool) -> u32 {
    let mut flags = abi::FLAG_RUST;
    if cfg!(panic = "abort") {
        flags |= abi::FLAG_PANIC_ABORT;
    }
    if !child_init {
        flags |= abi::FLAG_NO_CHILD_INIT;
    }
    if post_child_init {
        flags |= abi::FLAG_WANTS_POSTCHILDINIT;
    }
    flags
}

/// What an export says of `child_init`: whether the host is to call it.
pub struct ChildInitCalled<const CALLED: bool>;

/// Without the call there is nobody who makes a state.
#[diagnostic::on_unimplemented(
    message = "`child_init: false` needs `type Child = ()`: without a call of `child_init` no process has a state"
)]
pub trait CanHaveState<Child> {}

impl<Child> CanHaveState<Child> for ChildInitCalled<true> {}
impl CanHaveState<()> for ChildInitCalled<false> {}

/// First bytes of an exports table of this crate.
pub const fn header(flags: u32) -> abi::Header {
    abi::Header {
        magic: abi::MODULE_MAGIC,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        size: size_of::<abi::ModuleExports>() as u32,
        flags,
        needs_host_minor: 0,
        reserved: 0,
        #[cfg(feature = "layout")]
        rust: (&raw const crate::layout::RUST_INFO).cast(),
        #[cfg(not(feature = "layout"))]
        rust: std::ptr::null(),
    }
}

/// `text`, cut off so that at least one zero byte follows.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() && at + 1 < N {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// `text` and a zero byte; `N` is one more than its length. Stops the build if the text contains one.
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

/// Stops the build for a name that the host would refuse: 1 to 31 of `a` to `z`, `0` to `9`, `_` and `-`.
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

/// Without the blank that a doc comment's text starts with.
pub const fn help_text(text: &str) -> &str {
    match text.as_bytes() {
        [b' ', ..] => text.split_at(1).1,
        _ => text,
    }
}

/// A pointer to `text` as C wants it.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_text {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const BYTES: &[u8; TEXT.len() + 1] = &$crate::export::c_bytes(TEXT);
        BYTES.as_ptr().cast::<::core::ffi::c_char>()
    }};
}

/// Makes a [`Module`] the module of this library: exports the table that the host looks up, and the note that describes the file.
///
/// Once per library, whose crate type is `cdylib`. The parts stand in this order; only the type and `name` are required:
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
///     requires: ["locations"],             // must be loaded, and is initialised before this one
///     after: ["metrics"],                  // if loaded, is initialised before this one
///     // exports: [Sums], binds: [Routes], binds_if_present: [Metrics],  see `interface`
///     child_init: false,                   // nothing to do there, saves each process the call; with `type Child = ()` only
///     post_child_init: true,               // wants `Module::post_child_init`
///     udp: {
///         /// Sends each datagram back.       (shown by `modhost inspect`)
///         "echo" => Echo::serve,           // the first one is the default handler of a listener
///     },
///     stream: {
///         /// Sends each byte back.
///         "bytes" => Bytes,                // a type that is a `StreamHandler`
///     },
/// }
/// # fn main() {}
/// ```
///
/// A handler is a function `Fn(&M, &mut M::Child, &Batch<'_>) -> Result<()>`. An error or a panic of a handler ends its process, which
/// is replaced; for a datagram that cannot be answered, log and go on.
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
            use ::core::option::Option::{None, Some};
            use $crate::abi::{Bind, Dependency, Handler, Interface, ModuleExports, Note, Param, Stream, StreamFunctions, UdpBatch};
            use $crate::export::{CanHaveState, ChildInitCalled, ModuleCell, checked_name, checked_version, flags, header, help_text, note};

            static MODULE: ModuleCell<$module> = ModuleCell::new();

            extern "C" fn init_f() -> c_int {
                // SAFETY: only the exports table leads here, and only the host reads it.
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

            // For the fake host, in the tests of the exporting crate. Not otherwise: the type may be another crate's, which no trait can be
            // implemented for.
            // SAFETY: the table and the cell below and above.
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
            // SAFETY: the cell above.
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
            const FLAGS: u32 = flags(CHILD_INIT, false $(|| $post_child_init)?);
            // The first of these counts.
            const VERSION: &str = [$($version,)? ::core::env!("CARGO_PKG_VERSION")][0];
            const PARAMS: &[Param] = <<$module as $crate::Module>::Params as $crate::params::ParamSet>::TABLE;
            const HANDLERS: &[Handler] = &[$($(
                Handler {
                    name: $crate::__c_text!(checked_name($handler_name)),
                    kind: $crate::abi::HANDLER_UDP,
                    reserved: 0,
                    help: $crate::__c_text!(help_text(::core::concat!("" $(, $help)*))),
                    on_datagrams: {
                        extern "C" fn on_datagrams(batch: *mut UdpBatch) -> i32 {
                            // SAFETY: as above.
                            unsafe { MODULE.on_datagrams(batch, $handler) }
                        }
                        Some(on_datagrams)
                    },
                    stream: ::core::ptr::null(),
                },
            )*)? $($(
                Handler {
                    name: $crate::__c_text!(checked_name($stream_name)),
                    kind: $crate::abi::HANDLER_STREAM,
                    reserved: 0,
                    help: $crate::__c_text!(help_text(::core::concat!("" $(, $stream_help)*))),
                    on_datagrams: None,
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
                            reserved: 0,
                            on_open: Some(on_open),
                            on_data: Some(on_data),
                            on_writable: Some(on_writable),
                            on_end: Some(on_end),
                            on_close: Some(on_close),
                        }
                    },
                },
            )*)?];
            const DEPENDS: &[Dependency] = &[
                $($( Dependency {
                    name: $crate::__c_text!(checked_name($requires)), kind: $crate::abi::DEPEND_REQUIRED, reserved: 0
                }, )*)?
                $($( Dependency {
                    name: $crate::__c_text!(checked_name($after)), kind: $crate::abi::DEPEND_OPTIONAL, reserved: 0
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

pub use crate::host::SLOT;
