//! The trampoline: every call into a module goes through here.
//!
//! *Runs in:* main and every child. *Never:* holds a lock, a borrow or a `&mut` of the host across
//! the call: a module may call the host, and the host may call every module, before the call
//! returns.
//!
//! Before each call the trampoline leaves a breadcrumb in the process table, and takes it away
//! after the call: two plain stores, by which a crash, a hang or a kill can be blamed on a module.
//! After the call it checks that it is still in the same process. A module may fork, through the
//! host or by itself, and return in the child. The child must not continue main's sequence, so it
//! ends at once.

use std::cell::{Cell, RefCell};
use std::os::raw::c_int;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::abi;

use super::Module;
use crate::error::{Error, Result};
use crate::process::phase::{Breadcrumb, Phase};
use crate::sys::fast_fork::process_identity::{ProcessIdentity, this_process};
use crate::sys::process::counts;
use crate::sys::process::exit;
use crate::sys::process::fork;

thread_local! {
    /// The module's text about the failure that it is about to return.
    static ERROR_TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    static HAS_ERROR: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the text for a failure that the module is about to return.
pub fn set_error(text: &str) {
    HAS_ERROR.set(true);
    ERROR_TEXT.with_borrow_mut(|kept| {
        kept.clear();
        kept.push_str(text);
    });
}

/// Where in the host a module is called from: the process, and the breadcrumb to restore
/// afterwards. A loop makes one for all of its calls: a call that loaded what the call before it
/// stored would have to wait for that store.
#[derive(Debug, Clone, Copy)]
pub struct CallSite {
    process: &'static ProcessIdentity,
    identity: u64,
    trail: &'static AtomicU64,
    outer: u64,
}

impl CallSite {
    #[inline(always)]
    pub fn here() -> Self {
        let process = this_process();
        let trail = process.trail();
        Self { process, identity: process.identity(), trail, outer: trail.load(Relaxed) }
    }

    /// Calls into a module. Every call is made here.
    #[inline(always)]
    pub fn enter(&self, module: &Module, phase: Phase, call: impl FnOnce() -> i32) -> i32 {
        self.trail.store(Breadcrumb::word(module.index, phase), Relaxed);
        let mut code = call();
        if self.process.identity() != self.identity {
            code = not_as_before(self.identity, code);
        }
        self.trail.store(self.outer, Relaxed);
        code
    }
}

/// A single call into a module.
#[inline(always)]
pub fn enter(module: &Module, phase: Phase, call: impl FnOnce() -> i32) -> i32 {
    CallSite::here().enter(module, phase, call)
}

/// Begins a call of one module by another one, within a call by the host: a failure is now to be
/// blamed on the called module. Returns the breadcrumb for [`leave_interface`].
#[inline]
pub fn enter_interface(module: &Module) -> u64 {
    let trail = this_process().trail();
    let outer = trail.load(Relaxed);
    // The phase stays: what is allowed depends on what the process is doing, not on which module
    // asks.
    let callee = (Breadcrumb::word(module.index, Phase::None) & !0xffff_ffff) | (outer & 0xffff_ffff);
    trail.store(callee, Relaxed);
    outer
}

/// Ends that call.
#[inline]
pub fn leave_interface(outer: u64, code: i32) {
    let process = this_process();
    if code == abi::E_PANIC {
        process.note_panic();
    }
    process.trail().store(outer, Relaxed);
}

/// Copies the text about the last failure to `buffer`, and clears it. Returns its length in bytes.
pub fn take_error(buffer: &mut [u8]) -> usize {
    let copied = ERROR_TEXT.with_borrow(|text| {
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        len
    });
    clear_error();
    copied
}

/// Loads a module. The constructors of its file run, which can do whatever its functions can.
pub fn load<T>(index: u32, load: impl FnOnce() -> T) -> T {
    let trail = this_process().trail();
    trail.store(Breadcrumb::word(index, Phase::Load), Relaxed);
    let loaded = load();
    trail.store(0, Relaxed);
    loaded
}

/// Leaves the breadcrumb of a call that failed in a process that is about to end, so that its death
/// is blamed on that call.
#[cold]
pub fn ends_after(module: &Module, phase: Phase) {
    this_process().trail().store(Breadcrumb::word(module.index, phase), Relaxed);
}

/// The call has returned in another process, or a function of another module has panicked in it. A
/// process in which a module panicked is not used again, whatever the calling module made of that.
#[cold]
#[inline(never)]
fn not_as_before(identity: u64, code: i32) -> i32 {
    let process = this_process();
    if process.pid() != identity as i32 {
        returned_in_another_process(code);
    }
    process.forget_panic();
    if code >= 0 {
        set_error("a function of another module that it called panicked");
    }
    abi::E_PANIC
}

/// The call began in one process and returned in another: the module forked in it.
#[cold]
fn returned_in_another_process(code: i32) -> ! {
    exit::leave(match code {
        abi::E_PANIC => crate::error::EXIT_FAULT,
        code if code < 0 => crate::error::EXIT_FAILED,
        _ => crate::error::EXIT_OK,
    })
}

/// `init_f` of one module, in main.
pub fn init(module: &Module) -> Result<()> {
    let Some(init_f) = module.init_f else {
        return Ok(());
    };
    in_main(module, Phase::Init, || {
        let code: c_int = init_f();
        // Here 0 alone is success. A panic keeps its code.
        if code > 0 { abi::E_FAILED } else { code }
    })
}

/// `init_child_f(rank)` of one module, in this process.
pub fn init_child(module: &Module, rank: i32) -> Result<()> {
    let Some(init_child_f) = module.init_child_f else {
        return Ok(());
    };
    match Phase::of_rank(rank) {
        // The module's code is not in the page tables of the new process yet: the page faults of a
        // call would cost more than the call.
        Phase::ChildInit if !module.wants_child_init() => Ok(()),
        Phase::ChildInit => {
            clear_error();
            let code = enter(module, Phase::ChildInit, || init_child_f(rank));
            outcome(module, format_args!("init_child_f({rank})"), code)
        }
        phase => in_main(module, phase, || init_child_f(rank)),
    }
}

/// `destroy_f` of one module, in main.
pub fn destroy(module: &Module) {
    if let Some(destroy_f) = module.destroy_f {
        enter(module, Phase::Destroy, || {
            destroy_f();
            0
        });
    }
}

/// A call in main before and while it forks. Every process inherits what the call leaves, so
/// descriptors and threads are counted after it.
fn in_main(module: &Module, phase: Phase, call: impl FnOnce() -> i32) -> Result<()> {
    clear_error();
    let open_before = counts::descriptors();
    let code = enter(module, phase, call);
    fork::flush_c_streams();
    outcome(module, format_args!("{phase}"), code)?;
    if let (Some(before), Some(after)) = (open_before, counts::descriptors())
        && after > before
    {
        tracing::info!(
            "module \"{}\" leaves descriptors open that every process inherits phase=\"{phase}\" count={}",
            module.name,
            after - before
        );
    }
    let threads = fork::thread_count()?;
    if threads > 1 {
        return Err(Error::failed(format!("module \"{}\" started a thread in {phase}", module.name))
            .detail(format!("{threads} threads exist; a thread is gone in every forked process, with the locks it held locked for ever"))
            .hint("start threads and runtimes in init_child_f(rank)"));
    }
    Ok(())
}

/// The module's text about its last failure.
pub fn error_text() -> String {
    ERROR_TEXT.with_borrow(Clone::clone)
}

fn clear_error() {
    // Nothing is written if there is nothing to clear: this runs in every new process, in which
    // each page that is written to must be copied.
    if HAS_ERROR.get() {
        HAS_ERROR.set(false);
        ERROR_TEXT.with_borrow_mut(String::clear);
    }
}

fn outcome(module: &Module, phase: std::fmt::Arguments<'_>, code: i32) -> Result<()> {
    if code >= 0 {
        return Ok(());
    }
    let text = error_text();
    let what = if code == abi::E_PANIC {
        format!("module \"{}\" panicked in {phase}", module.name)
    } else {
        format!("module \"{}\" failed in {phase}", module.name)
    };
    Err(Error::failed(what).detail(if text.is_empty() { format!("it returned {code} and gave no reason") } else { text }))
}
