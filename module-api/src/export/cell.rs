//! Where a module lives in each process, and the calls of the host into it.
//!
//! Runs in every process and phase, each entry under the guard.

use std::any::TypeId;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_int;
use std::mem;
use std::ptr::NonNull;

use super::flush_stdout;
use crate::abi::{self, UdpBatch};
use crate::guard::{guard, install_panic_hook};
use crate::params::ParamSet as _;
use crate::process::{ChildInit, Destroy, PostChildInit, Rank};
use crate::stream::{CloseReason, Stream, StreamHandler};
use crate::udp::Batch;
use crate::{Error, ModInit, Module, ProcInit, ProcMain, Result, logging};

/// The static that holds a module and this process's child state. The module is written in main up
/// to `PROC_INIT`, then frozen; each process writes its own child state.
///
/// Small, and nothing of it is on the heap: a forked process that only waits dirties one page for
/// it.
pub struct ModuleCell<M: Module> {
    state: Cell<State>,
    module: UnsafeCell<Option<M>>,
    /// Borrowed while a handler, a timer function or an entry function runs.
    child: RefCell<Option<M::Child>>,
}

/// How far the module has come. Decides which references to it may exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `init`, after a failed one and after `destroy`: no module.
    Empty,
    /// The module is being made, changed or dropped: no other reference may exist.
    Exclusive,
    /// `init` has returned.
    Made,
    /// `proc_init` has returned: shared references only.
    Frozen,
}

// SAFETY: the host calls the entries of a module from one thread of each process, and only the
// entries reach the cell: its methods are `unsafe` or private to this crate, whose contexts and
// callbacks do not leave that thread.
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
    /// Called by the host only, in the one thread of a process of that rank.
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
    /// Called by the host only, in main, in its one thread, outside of every other call to this
    /// module.
    pub unsafe fn destroy_f(&'static self) {
        // The host has the text of a failure; there is no code to return.
        let _ = guard(|| {
            let made = matches!(self.state.get(), State::Made | State::Frozen);
            if !made {
                return Ok(());
            }
            self.state.set(State::Exclusive);
            // SAFETY: no other entry runs, and every entry that starts now stops at the state.
            let module = unsafe { &mut *self.module.get() };
            if let Some(module) = module {
                module.destroy(&mut Destroy::new());
            }
            // In no-fork mode main has a child state too. It goes first, because it may depend on
            // the module.
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
    /// Called by the host only, in its one thread, with a batch that is valid until the call
    /// returns and whose answers are sent before `destroy_f`.
    #[inline]
    pub unsafe fn on_datagrams<H>(&'static self, batch: *mut UdpBatch, handler: H) -> i32
    where
        H: for<'b> Fn(&'b M, &mut M::Child, &Batch<'b>) -> Result<()>,
    {
        guard(|| {
            self.with_child(|module, child| {
                // SAFETY: the batch is the host's, and `'b` ends with this call. Answers may borrow
                // from the module a little longer; the module changes at `destroy_f` only.
                let batch = unsafe { Batch::new(batch) };
                handler(module, child, &batch)
            })
        })
    }

    /// A stream handler's `on_open`: makes the handler's value for the connection.
    ///
    /// # Safety
    /// As for `on_datagrams`, with a stream that lives until `on_close` returns.
    pub unsafe fn on_open<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream) -> i32 {
        guard(|| {
            // SAFETY: the stream is the host's and valid until this returns.
            let handler = self.with_child(|module, child| H::open(module, child, &mut unsafe { Stream::new(stream) }))?;
            // SAFETY: as above; `user` is for this module's use.
            unsafe { (*stream).user = Box::into_raw(Box::new(handler)).cast() };
            Ok(())
        })
    }

    /// A stream handler's `on_data`.
    ///
    /// # Safety
    /// As for `on_open`; `data` points to `len` readable bytes.
    #[inline]
    pub unsafe fn on_data<H: StreamHandler<M>>(&'static self, stream: *mut abi::Stream, data: *const u8, len: usize) -> i64 {
        let mut used = 0;
        let code = guard(|| {
            // SAFETY: the caller's contract; `on_open` wrote `user`, and the host makes one call
            // about a stream at a time.
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
            // SAFETY: `on_open` wrote `user`, and the host makes one call about a stream at a time,
            // up to `on_close`.
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
            // SAFETY: `on_open` made it, and this is the last call about the stream.
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
        // SAFETY: no other entry runs, and every entry that starts now stops at the state.
        let module = unsafe { &mut *self.module.get() };
        // After a failure or a panic, too, the module exists and is to be destroyed.
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
        // In no-fork mode a restarted process is forked from a main that has its own child state.
        // That state belongs to main: its destructor, run here, could close connections that main
        // goes on using.
        let mut child = self.child.try_borrow_mut().map_err(|_| Error::new("child_init was called inside a call to the module"))?;
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
        // SAFETY: `proc_init` enters this state only if there is a module. `destroy_f`, which the
        // host calls outside of every other call, leaves it before it removes the module.
        function(unsafe { (*self.module.get()).as_ref().unwrap_unchecked() })
    }

    /// Calls `function` with the module, for another module: from the end of `init` on, and not
    /// while the module is being changed.
    #[inline]
    pub(crate) fn with_made<R>(&'static self, function: impl FnOnce(&M) -> Result<R>) -> Result<R> {
        if !matches!(self.state.get(), State::Made | State::Frozen) {
            return Err(no_module());
        }
        // SAFETY: in these states the module is shared. The host makes the calls that change it
        // (`PROC_INIT`, `destroy_f`) outside of every other call to this module.
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
                // SAFETY: `M::Child` is `()`, which has no bytes: every aligned pointer is valid,
                // and references cannot conflict.
                return function(module, unsafe { NonNull::<M::Child>::dangling().as_mut() });
            }
            let mut child = self.child.try_borrow_mut().map_err(|_| re_entered())?;
            function(module, child.as_mut().ok_or_else(no_child)?)
        })
    }
}

#[cfg(feature = "testing")]
impl<M: Module> ModuleCell<M> {
    /// The module, frozen.
    pub(crate) fn module(&'static self) -> Option<&'static M> {
        self.with_module(Ok).ok()
    }

    /// Swaps this process's child state with another one, outside of every call to the module.
    pub(crate) fn swap_child(&'static self, other: &mut Option<M::Child>) {
        mem::swap(&mut *self.child.borrow_mut(), other);
    }
}

/// Whether there is no child state to keep. Then a child writes nothing here and copies no page.
#[inline]
fn stateless<M: Module>() -> bool {
    TypeId::of::<M::Child>() == TypeId::of::<()>()
}

/// Resets the state when dropped, also after a panic.
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
