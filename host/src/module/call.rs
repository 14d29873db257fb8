//! The trampoline: every call into a module goes through here.
//!
//! *Runs in:* main and every child. *Never:* holds a lock, a borrow or a `&mut` of the host across the call: a module may call the
//! host, and the host may call every module, before the call returns.
//!
//! Around each call: a breadcrumb is left in the process table (two plain stores, so that a crash, a hang or a kill can be blamed
//! afterwards), and after it the trampoline checks that it is still in the process it started in. A module that forks, through the
//! host or on its own, and returns in the child must not continue main's sequence there: that process ends on the spot.

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
    /// What the module said about the failure that it is about to return.
    static ERROR_TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    static HAS_ERROR: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the text that goes with a failing return.
pub fn set_error(text: &str) {
    HAS_ERROR.set(true);
    ERROR_TEXT.with_borrow_mut(|kept| {
        kept.clear();
        kept.push_str(text);
    });
}

/// Where a process stands when it calls into a module, and returns to afterwards. A loop looks once: if each call loaded what the one before it stored, it
/// would wait for that.
#[derive(Debug, Clone, Copy)]
pub struct CallSite {
    process: &'static ProcessIdentity,
    identity: u64,
    trail: &'static AtomicU64,
    outer: u64,
}

impl CallSite {
    /// Here and now.
    #[inline(always)]
    pub fn here() -> Self {
        let process = this_process();
        let trail = process.trail();
        Self { process, identity: process.identity(), trail, outer: trail.load(Relaxed) }
    }

    /// Calls into a module. The one place where it happens.
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

/// Calls into a module from here.
#[inline(always)]
pub fn enter(module: &Module, phase: Phase, call: impl FnOnce() -> i32) -> i32 {
    CallSite::here().enter(module, phase, call)
}

/// A module is called by another one, inside of a call of the host's: it is the one to blame from here on. What `leave_interface` wants back.
#[inline]
pub fn enter_interface(module: &Module) -> u64 {
    let trail = this_process().trail();
    let outer = trail.load(Relaxed);
    // The phase stays: what is allowed depends on where the process is, not on who asks.
    let callee = (Breadcrumb::word(module.index, Phase::None) & !0xffff_ffff) | (outer & 0xffff_ffff);
    trail.store(callee, Relaxed);
    outer
}

/// The end of that call.
#[inline]
pub fn leave_interface(outer: u64, code: i32) {
    let process = this_process();
    if code == abi::E_PANIC {
        process.note_panic();
    }
    process.trail().store(outer, Relaxed);
}

/// Copies what was said about the last failure, and forgets it.
pub fn take_error(buffer: &mut [u8]) -> usize {
    let copied = ERROR_TEXT.with_borrow(|text| {
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        len
    });
    clear_error();
    copied
}

/// Loads a module: its file's constructors run, which can do whatever a function of it can.
pub fn load<T>(index: u32, load: impl FnOnce() -> T) -> T {
    let trail = this_process().trail();
    trail.store(Breadcrumb::word(index, Phase::Load), Relaxed);
    let loaded = load();
    trail.store(0, Relaxed);
    loaded
}

/// Leaves the breadcrumb of a call that failed, for whoever asks what this process did last: it is about to end.
#[cold]
pub fn ends_after(module: &Module, phase: Phase) {
    this_process().trail().store(Breadcrumb::word(module.index, phase), Relaxed);
}

/// The call has come back in another process, or a function of another module has panicked in it. Whatever the module made of that: a process
/// in which a module panicked is not used again.
#[cold]
#[inline(never)]
fn not_as_before(identity: u64, code: i32) -> i32 {
    let process = this_process();
    if process.pid() != identity as i32 {
        came_back_elsewhere(code);
    }
    process.forget_panic();
    if code >= 0 {
        set_error("a function of another module that it called panicked");
    }
    abi::E_PANIC
}

/// The call began in one process and came back in another: the module forked inside it.
#[cold]
fn came_back_elsewhere(code: i32) -> ! {
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
        // Only 0 is success here; everything else is failure, a panic keeps its own code.
        if code > 0 { abi::E_FAILED } else { code }
    })
}

/// `init_child_f(rank)` of one module, in this process.
pub fn init_child(module: &Module, rank: i32) -> Result<()> {
    let Some(init_child_f) = module.init_child_f else {
        return Ok(());
    };
    match Phase::of_rank(rank) {
        // A call of its code, which is nowhere in the page tables of a forked process yet, would cost more than the call itself.
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

/// A call in main before and while it forks: what it leaves behind is inherited by every process, so it is looked at afterwards.
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

/// What the module said last.
pub fn error_text() -> String {
    ERROR_TEXT.with_borrow(Clone::clone)
}

fn clear_error() {
    // Nothing is written when there is nothing to clear: this runs in every new process, and each page it writes to is one more.
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
