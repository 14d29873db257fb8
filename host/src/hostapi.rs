//! The host's functions for modules: the entries of the `HostApi` table.
//!
//! *Runs in:* the process and phase that the module calls from; each function says which it
//! accepts. *Never:* lets a panic out, holds a lock across a call into a module, or believes a
//! pointer's length without a limit.

mod counting;
mod datagrams;
mod memory;
mod processes;
mod stream;

use std::ffi::{CStr, c_char, c_void};
use std::mem::{forget, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use module_api::abi::{self, HostApi};

use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::module::loader::of_handle;
use crate::module::{Module, call};
use crate::process::family::{ChildInit, Entry, Spec};
use crate::process::phase::{Breadcrumb, Phase};
use crate::state::{InitRequests, State};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::fork::{self, Side};
use crate::sys::random;
use crate::timer::{TimerFunction, TimerProcess};

use counting::*;
use datagrams::*;
use memory::*;
use processes::*;
use stream::*;

/// The table that every module's slot points to: the functions of this file and of its parts, by
/// their names.
pub static HOST_API: HostApi = module_api::host_api!();

/// Longest name of a process or a timer function, in bytes.
const MAX_NAME_BYTES: usize = 31;
/// Most processes that one module may register.
const MAX_REGISTERED: u32 = 4000;

/// The guard for calls from a module to the host: a panic of the host must not unwind through the
/// module.
#[inline(always)]
fn guarded<R>(fallback: R, body: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping the payload could panic again.
            forget(payload);
            tracing::error!(target: "fault", "the host panicked in a call of a module");
            fallback
        }
    }
}

/// Logs the error and returns the code for the module.
fn refuse(code: i32, error: &Error) -> i32 {
    tracing::error!("{error}");
    code
}

/// The calling module and the phase that this process is in.
fn caller(handle: *mut c_void) -> Option<(&'static Module, Phase)> {
    let module = of_handle(handle)?;
    Some((module, Breadcrumb::from_word(this_process().trail().load(Relaxed)).phase))
}

/// The calling module and the state. Refuses a call before `seal`, naming the right place.
fn sealed(handle: *mut c_void, what: &str, right_place: &str) -> Result<(&'static Module, &'static State), i32> {
    let Some((module, phase)) = caller(handle) else { return Err(abi::E_INVALID) };
    match State::current() {
        Some(state) if !matches!(phase, Phase::Load | Phase::Init) => Ok((module, state)),
        _ => Err(out_of_phase(what, module, phase, right_place)),
    }
}

/// The right place for calls that need the listeners and the process table.
const FROM_PROC_INIT: &str = "init_child_f(PROC_INIT) and everywhere after it";

/// Refuses a call in a wrong phase, naming module, phase and the right place.
fn out_of_phase(what: &str, module: &Module, phase: Phase, right_place: &str) -> i32 {
    refuse(
        abi::E_PHASE,
        &Error::failed(format!("module \"{}\" called {what} in {phase}", module.name))
            .detail(format!("process_no={}", this_process().process_no()))
            .hint(format!("{what} works in {right_place}")),
    )
}

/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 || len > isize::MAX as usize {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn name(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's contract.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let mut end = clean.len().min(MAX_NAME_BYTES);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    Some(clean[..end].to_owned())
}

extern "C" fn log(module: *mut c_void, level: u32, target: *const u8, target_len: usize, text: *const u8, text_len: usize) {
    guarded((), || {
        // SAFETY: the ABI's contract: both point to as many readable bytes for the length of the
        // call.
        let (target, text) = unsafe { (bytes(target, target_len), bytes(text, text_len)) };
        let name = of_handle(module).map_or("?", |module| module.name.as_str());
        crate::log::module_record(name, level, &String::from_utf8_lossy(target), &String::from_utf8_lossy(text));
    });
}

extern "C" fn set_error(_module: *mut c_void, text: *const u8, text_len: usize) {
    guarded((), || {
        // SAFETY: the ABI's contract.
        let text = unsafe { bytes(text, text_len) };
        call::set_error(&String::from_utf8_lossy(text));
    });
}

extern "C" fn random(_module: *mut c_void, buffer: *mut u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        if len == 0 {
            return abi::OK;
        }
        if buffer.is_null() || len > isize::MAX as usize {
            return abi::E_INVALID;
        }
        // SAFETY: the ABI's contract: `len` writable bytes.
        let buffer = unsafe {
            buffer.write_bytes(0, len);
            std::slice::from_raw_parts_mut(buffer, len)
        };
        match random::fill(buffer) {
            Ok(()) => abi::OK,
            Err(errno) => refuse(abi::E_SYSTEM, &Error::failed("cannot get random bytes").detail(format!("getrandom: {errno}"))),
        }
    })
}

extern "C" fn process_info(_module: *mut c_void, info: *mut abi::ProcessInfo) -> i32 {
    guarded(abi::E_FAILED, || {
        // SAFETY: the ABI's contract: null, or a struct whose size the caller has set.
        let Some(size) = (unsafe { info.as_ref() }).map(|info| info.size) else { return abi::E_INVALID };
        if (size as usize) < size_of::<abi::ProcessInfo>() {
            return abi::E_INVALID;
        }
        let me = this_process();
        let restarts = usize::try_from(me.process_no())
            .ok()
            .and_then(|process_no| State::current()?.family.slots.slot(process_no))
            .map_or(0, |slot| slot.restarts());
        let filled = abi::ProcessInfo {
            size,
            process_no: me.process_no(),
            rank: me.rank(),
            pid: if me.pid() == 0 { nix::unistd::getpid().as_raw() } else { me.pid() },
            restarts,
            reserved: 0,
        };
        // SAFETY: checked above: at least as large as ours.
        unsafe { info.write(filled) };
        abi::OK
    })
}

extern "C" fn max_procs(module: *mut c_void) -> i32 {
    guarded(abi::E_FAILED, || match sealed(module, "get_max_procs", FROM_PROC_INIT) {
        Ok((_, state)) => i32::try_from(state.family.slots.count()).unwrap_or(i32::MAX),
        Err(code) => code,
    })
}

extern "C" fn register_procs(module: *mut c_void, count: i32) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some((module, phase)) = caller(module) else { return abi::E_INVALID };
        if phase != Phase::Init {
            return out_of_phase("register_procs", module, phase, "init_f");
        }
        let total = u32::try_from(count).ok().filter(|count| *count > 0).map(|count| module.registered.load(Relaxed).saturating_add(count));
        match total {
            None => refuse(
                abi::E_INVALID,
                &Error::failed(format!("module \"{}\" called register_procs({count}) in {phase}", module.name)).hint("at least 1 process"),
            ),
            Some(total) if total > MAX_REGISTERED => refuse(
                abi::E_LIMIT,
                &Error::failed(format!("module \"{}\" registered too many processes in {phase}", module.name))
                    .detail(format!("{total} asked for, {MAX_REGISTERED} is the limit")),
            ),
            Some(total) => {
                module.registered.store(total, Relaxed);
                abi::OK
            }
        }
    })
}

/// The common part of both forms of `fork_process`. In the child of the returning form this returns
/// `Side::Child`.
fn fork_checked(module: &'static Module, phase: Phase, rank: i32, process: Option<String>, flags: u32, entry: Entry) -> Result<Side, i32> {
    let in_main = |state: &&State| phase == Phase::ProcMain && this_process().pid() == state.family.main_pid().as_raw();
    let Some(state) = State::current().filter(in_main) else {
        return Err(out_of_phase("fork_process", module, phase, "init_child_f(PROC_MAIN)"));
    };
    let invalid = |hint: &str| {
        let what = format!("module \"{}\" called fork_process with rank {rank} in {phase}", module.name);
        Err(refuse(abi::E_INVALID, &Error::failed(what).hint(hint)))
    };
    match rank {
        abi::PROC_MAIN | abi::PROC_INIT | abi::PROC_POSTCHILDINIT => {
            return invalid("ranks 0, PROC_INIT and PROC_POSTCHILDINIT are main's");
        }
        _ if flags & !abi::FORK_MAKE_SOCK != 0 => return invalid("unknown flags"),
        _ => {}
    }
    let Some(process) = process.filter(|name| !name.is_empty()) else { return invalid("a process needs a name") };
    let (registered, forked) = (module.registered.load(Relaxed), module.forked.load(Relaxed));
    if forked >= registered {
        return Err(refuse(
            abi::E_LIMIT,
            &Error::failed(format!("module \"{}\" asked for one process more than it registered (\"{process}\")", module.name))
                .detail(format!("registered={registered} forked={forked}"))
                .hint("call register_procs with the right number in init_f"),
        ));
    }
    let child_init = if rank == abi::PROC_NOCHLDINIT { ChildInit::Skip } else { ChildInit::Call };
    let spec = Spec::of_module(module, rank, process, child_init, entry);
    let family = &state.family;
    let process_no = family.claim(spec).map_err(|error| refuse(abi::E_LIMIT, &error))?;
    if flags & abi::FORK_MAKE_SOCK != 0
        && let Err(error) = family.open_link(process_no)
    {
        family.release(process_no);
        return Err(refuse(abi::E_SYSTEM, &error));
    }
    let returning = family.spec(process_no).is_some_and(|spec| matches!(spec.entry, Entry::Return));
    // The module may have printed in this call; parent and child would both write it.
    fork::flush_c_streams();
    let side = fork::alone().and_then(|alone| match returning {
        true => family.fork(&alone, process_no, 0),
        false => family.start(&alone, process_no, 0).map(Side::Parent),
    });
    match side {
        Ok(side) => {
            if side != Side::Child {
                module.forked.store(forked + 1, Relaxed);
            }
            Ok(side)
        }
        Err(error) => {
            family.release(process_no);
            Err(refuse(abi::E_SYSTEM, &error))
        }
    }
}

extern "C" fn fork_process(module: *mut c_void, rank: i32, process: *const c_char, flags: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some((module, phase)) = caller(module) else { return abi::E_INVALID };
        // SAFETY: the ABI's contract.
        let process = unsafe { name(process) };
        match fork_checked(module, phase, rank, process, flags, Entry::Return) {
            Ok(Side::Parent(pid)) => pid.as_raw(),
            Ok(Side::Child) => 0,
            Err(code) => code,
        }
    })
}

extern "C" fn fork_process_entry(module: *mut c_void, spec: *const abi::ForkSpec) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some((module, phase)) = caller(module) else { return abi::E_INVALID };
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        let (true, Some(entry)) = (spec.size as usize >= size_of::<abi::ForkSpec>(), spec.entry) else { return abi::E_INVALID };
        // SAFETY: the ABI's contract.
        let process = unsafe { name(spec.name) };
        let data = spec.data.expose_provenance();
        let work = move |_: &State| match call::enter(module, Phase::Process, || entry(std::ptr::with_exposed_provenance_mut(data))) {
            code if code >= 0 => EXIT_OK,
            code => {
                let text = call::error_text();
                tracing::error!("a module's process failed module=\"{}\" code={code} error=\"{text}\"", module.name);
                if code == abi::E_PANIC { crate::error::EXIT_FAULT } else { EXIT_FAILED }
            }
        };
        match fork_checked(module, phase, spec.rank, process, spec.flags, Entry::Run(Arc::new(work))) {
            Ok(Side::Parent(pid)) => pid.as_raw(),
            // A process with an entry function never comes back here.
            Ok(Side::Child) => abi::E_FAILED,
            Err(code) => code,
        }
    })
}

// Calls from module to module. Nothing here can panic.

extern "C" fn interface_enter(module: *mut c_void) -> u64 {
    of_handle(module).map_or_else(|| this_process().trail().load(Relaxed), call::enter_interface)
}

extern "C" fn interface_leave(_module: *mut c_void, outer: u64, code: i32) {
    call::leave_interface(outer, code);
}

extern "C" fn error_text(_module: *mut c_void, buffer: *mut u8, size: usize) -> usize {
    guarded(0, || {
        if buffer.is_null() || size == 0 || size > isize::MAX as usize {
            return 0;
        }
        // SAFETY: the ABI's contract: `size` writable bytes.
        let buffer = unsafe {
            buffer.write_bytes(0, size);
            std::slice::from_raw_parts_mut(buffer, size)
        };
        call::take_error(buffer)
    })
}

extern "C" fn timer_add(module: *mut c_void, spec: *const abi::TimerSpec) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(requests)) = (caller(module), InitRequests::current()) else { return abi::E_INVALID };
        if !matches!(phase, Phase::Init | Phase::ProcInit) {
            return out_of_phase("timer_add", module, phase, "init_f and init_child_f(PROC_INIT)");
        }
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        // SAFETY: the ABI's contract.
        let (size, label) = (spec.size as usize, unsafe { name(spec.name) });
        let which = match spec.process {
            abi::TIMER_FAST => TimerProcess::Fast,
            abi::TIMER_SLOW => TimerProcess::Slow,
            _ => return abi::E_INVALID,
        };
        let (true, Some(function), Some(label)) = (size >= size_of::<abi::TimerSpec>(), spec.function, label) else {
            return abi::E_INVALID;
        };
        requests.timers().push(TimerFunction {
            name: label,
            module,
            which,
            first_ns: spec.first_ns,
            period_ns: spec.period_ns,
            function,
            data: spec.data.expose_provenance(),
        });
        abi::OK
    })
}
