//! The host's functions for modules: what the `HostApi` table points to.
//!
//! *Runs in:* whatever process and phase the module calls from; each function says which it accepts. *Never:* lets a panic out,
//! holds a lock across a call into a module, or believes a pointer's length without a limit.

mod counting;
mod processes;
mod stream;

use std::ffi::{CStr, c_char, c_void};
use std::mem::{forget, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use module_api::abi::{self, HostApi};
use nix::errno::Errno;

use crate::config::ListenOptions;
use crate::config::address::{Scheme, parse_address};
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::module::loader::of_handle;
use crate::module::{Module, call};
use crate::process::family::{ChildInit, Entry, Spec};
use crate::process::phase::{Breadcrumb, Phase};
use crate::shm::heap::{Content, NoBlock, Wrong};
use crate::state::{State, Wanted};
use crate::sys::datagrams::{Datagrams, MAX_DATAGRAM_BYTES};
use crate::sys::fork::{self, Side};
use crate::sys::local::local;
use crate::sys::names::{NAME_BYTES, Name};
use crate::sys::random;
use crate::sys::robust::{Locked, Patience, RobustMutex};
use crate::sys::time;
use crate::timer::{TimerFunction, Which};

/// The table that every module's slot points to.
pub static HOST_API: HostApi = HostApi {
    magic: abi::HOST_MAGIC,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    size: size_of::<HostApi>() as u32,
    log,
    set_error,
    random: random_bytes,
    process_info,
    max_procs,
    register_procs,
    fork_process,
    fork_process_entry,
    interface_enter,
    interface_leave,
    error_text,
    shm_alloc,
    shm_malloc,
    shm_realloc,
    shm_free,
    mutex_init,
    mutex_lock,
    mutex_trylock,
    mutex_repaired,
    mutex_unlock,
    timer_add,
    listen,
    listener_find,
    listener_address,
    udp_reply,
    udp_reply_borrowed,
    udp_reply_buffer,
    udp_reply_commit,
    udp_send,
    stream_write: stream::stream_write,
    stream_buffer: stream::stream_buffer,
    stream_commit: stream::stream_commit,
    stream_write_file: stream::stream_write_file,
    stream_queued: stream::stream_queued,
    stream_read: stream::stream_read,
    stream_close: stream::stream_close,
    stream_send: stream::stream_send,
    listener_address_at,
    udp_send_from,
    stat_register: counting::stat_register,
    stat_info: counting::stat_info,
    stat_read: counting::stat_read,
    process_at: processes::process_at,
    host_info: processes::host_info,
};

/// Longest name of a process or a timer function, in bytes.
const MAX_NAME_BYTES: usize = 31;
/// Most processes that one module may register.
const MAX_REGISTERED: u32 = 4000;

/// The guard of this direction: a panic of the host must not unwind through a module.
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

/// A refusal: the code for the module; the log has the rest.
fn refuse(code: i32, error: &Error) -> i32 {
    tracing::error!("{error}");
    code
}

/// The calling module and the phase that this process is in.
fn caller(handle: *mut c_void) -> Option<(&'static Module, Phase)> {
    let module = of_handle(handle)?;
    Some((module, Breadcrumb::from_word(local().trail().load(Relaxed)).phase))
}

/// Refuses a call out of its phase, naming module, phase and the right place.
fn out_of_phase(what: &str, module: &Module, phase: Phase, right_place: &str) -> i32 {
    refuse(
        abi::E_PHASE,
        &Error::failed(format!("module \"{}\" called {what} in {phase}", module.name))
            .detail(format!("process_no={}", local().process_no()))
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
        // SAFETY: the ABI's contract: both point to as many readable bytes for the length of the call.
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

extern "C" fn random_bytes(_module: *mut c_void, buffer: *mut u8, len: usize) -> i32 {
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
        let me = local();
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
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        match state.family.slots.count() {
            0 => out_of_phase("get_max_procs", module, phase, "init_child_f(PROC_INIT) and everywhere after it"),
            count => i32::try_from(count).unwrap_or(i32::MAX),
        }
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

/// What both forms of `fork_process` check and do. In the returning form's child this returns `Side::Child`.
fn fork_checked(module: &'static Module, phase: Phase, rank: i32, process: Option<String>, flags: u32, entry: Entry) -> Result<Side, i32> {
    let Some(state) = State::current() else { return Err(abi::E_INVALID) };
    if phase != Phase::ProcMain || local().pid() != state.family.main_pid().as_raw() {
        return Err(out_of_phase("fork_process", module, phase, "init_child_f(PROC_MAIN)"));
    }
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
        && let Err(error) = family.link(process_no)
    {
        family.release(process_no);
        return Err(refuse(abi::E_SYSTEM, &error));
    }
    let returning = family.spec(process_no).is_some_and(|spec| matches!(spec.entry, Entry::Return));
    // What the module has printed in this very call.
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
        let work = move || match call::enter(module, Phase::Process, || entry(std::ptr::with_exposed_provenance_mut(data))) {
            code if code >= 0 => EXIT_OK,
            code => {
                let text = call::error_text();
                tracing::error!("a module's process failed module=\"{}\" code={code} error=\"{text}\"", module.name);
                if code == abi::E_PANIC { crate::error::EXIT_FAULT } else { EXIT_FAILED }
            }
        };
        match fork_checked(module, phase, spec.rank, process, spec.flags, Entry::Run(std::sync::Arc::new(work))) {
            Ok(Side::Parent(pid)) => pid.as_raw(),
            // A process with an entry leaves; it never comes back here.
            Ok(Side::Child) => abi::E_FAILED,
            Err(code) => code,
        }
    })
}

// Calls from module to module. Nothing here can panic.

extern "C" fn interface_enter(module: *mut c_void) -> u64 {
    of_handle(module).map_or_else(|| local().trail().load(Relaxed), call::enter_interface)
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

extern "C" fn shm_alloc(module: *mut c_void, size: usize, align: usize) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return std::ptr::null_mut() };
        if !matches!(phase, Phase::Init | Phase::ProcInit) {
            out_of_phase("shm_malloc", module, phase, "init_f and init_child_f(PROC_INIT)");
            return std::ptr::null_mut();
        }
        match state.arena.allocate(module, size, align, Content::Zeros, std::ptr::null_mut()) {
            Ok(start) => start.as_ptr().cast(),
            Err(error) => no_block(module, phase, size, align, error),
        }
    })
}

// Shared memory while running.

extern "C" fn shm_malloc(module: *mut c_void, size: usize, align: usize, flags: u32, into: *mut *mut c_void) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        let (Some(module), Some(state)) = (of_handle(module), State::current()) else { return std::ptr::null_mut() };
        let content = if flags & abi::SHM_ZEROED != 0 { Content::Zeros } else { Content::Undefined };
        // What lies elsewhere cannot outlive the process: it is simply written.
        let (cell, own) = if state.arena.contains(into.cast(), size_of::<*mut c_void>()) {
            (into, std::ptr::null_mut())
        } else {
            (std::ptr::null_mut(), into)
        };
        let outcome = if flags & !abi::SHM_ZEROED != 0 || !into.is_aligned() {
            Err(NoBlock::Impossible)
        } else {
            state.arena.allocate(module, size, align, content, cell.cast())
        };
        match outcome {
            Ok(start) => {
                if !own.is_null() {
                    // SAFETY: the ABI's contract: null or writable; aligned, as was checked.
                    unsafe { own.write(start.as_ptr().cast()) };
                }
                start.as_ptr().cast()
            }
            Err(error) => no_block(module, current_phase(), size, align, error),
        }
    })
}

extern "C" fn shm_realloc(module: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return shm_malloc(module, size, 16, 0, std::ptr::null_mut());
    }
    if size == 0 {
        shm_free(module, block, std::ptr::null_mut());
        return std::ptr::null_mut();
    }
    guarded(std::ptr::null_mut(), || {
        let (Some(module), Some(state)) = (of_handle(module), State::current()) else { return std::ptr::null_mut() };
        match state.arena.resize(module, block.cast(), size) {
            Ok(Ok(start)) => start.as_ptr().cast(),
            Ok(Err(error)) => no_block(module, current_phase(), size, 16, error),
            Err(wrong) => {
                wrong_block("shm_realloc", module, block, wrong);
                std::ptr::null_mut()
            }
        }
    })
}

extern "C" fn shm_free(module: *mut c_void, block: *mut c_void, from: *mut *mut c_void) -> i32 {
    if block.is_null() {
        return abi::OK;
    }
    guarded(abi::E_FAILED, || {
        let (Some(module), Some(state)) = (of_handle(module), State::current()) else { return abi::E_INVALID };
        let (cell, own) = if state.arena.contains(from.cast(), size_of::<*mut c_void>()) {
            (from, std::ptr::null_mut())
        } else {
            (std::ptr::null_mut(), from)
        };
        match state.arena.free(block.cast(), cell.cast()) {
            Ok(()) => {
                if !own.is_null() && own.is_aligned() {
                    // SAFETY: the ABI's contract: null or writable.
                    unsafe { own.write(std::ptr::null_mut()) };
                }
                abi::OK
            }
            Err(wrong) => wrong_block("shm_free", module, block, wrong),
        }
    })
}

fn current_phase() -> Phase {
    Breadcrumb::from_word(local().trail().load(Relaxed)).phase
}

/// So long a process that goes on asking for memory that is not there says nothing more about it.
const EXHAUSTED_AGAIN_MS: u64 = 1000;

/// Says why there is no block. Counting who has how much takes time, so a process in service does it once in a while only.
#[cold]
fn no_block(module: &Module, phase: Phase, size: usize, align: usize, why: NoBlock) -> *mut c_void {
    static LAST_MS: AtomicU64 = AtomicU64::new(0);
    let what = || format!("module \"{}\" cannot get {size} bytes of shared memory", module.name);
    let error = match why {
        NoBlock::Impossible => Error::failed(format!("module \"{}\" asked for impossible shared memory", module.name))
            .detail(format!("{size} bytes aligned to {align}")),
        NoBlock::Broken(errno) => Error::fault(what()).detail(format!("the arena's lock: {errno}")),
        NoBlock::Exhausted => {
            let now_ms = time::now_ns() / 1_000_000;
            if !matches!(phase, Phase::Init | Phase::ProcInit) && now_ms < LAST_MS.load(Relaxed) + EXHAUSTED_AGAIN_MS {
                call::set_error(&Error::failed(what()).detail("it is exhausted").hint("raise host.shared_memory").to_string());
                return std::ptr::null_mut();
            }
            LAST_MS.store(now_ms, Relaxed);
            exhausted(what())
        }
    };
    call::set_error(&error.to_string());
    tracing::error!("{error}");
    std::ptr::null_mut()
}

/// The error that names who has most.
fn exhausted(what: String) -> Error {
    let Some(state) = State::current() else { return Error::failed(what) };
    let usage = state.arena.usage();
    let most = usage.largest().map_or_else(String::new, |(index, share)| {
        let named = index.and_then(|index| state.module_name(index));
        format!(", module \"{}\" has most: {} in {} blocks", named.unwrap_or("?"), share.bytes, share.blocks)
    });
    let (sum, largest) = (usage.sum().bytes, usage.largest_free_bytes);
    let detail = format!("{sum} of {} bytes are in use, the largest free piece has {largest}{most}", usage.total_bytes);
    Error::failed(what).detail(detail).hint("raise host.shared_memory; see modhost shm")
}

/// Refuses a block that cannot be freed or resized.
#[cold]
fn wrong_block(call: &str, module: &Module, block: *mut c_void, wrong: Wrong) -> i32 {
    let detail = match wrong {
        Wrong::NotABlock => "no block is there".to_owned(),
        Wrong::Inside => "it is not the beginning of a block".to_owned(),
        Wrong::Free => "it is free already".to_owned(),
        Wrong::Cell => "the cell does not hold it".to_owned(),
        Wrong::Broken(errno) => format!("the arena's lock: {errno}"),
    };
    let what = format!("module \"{}\" called {call} with {block:p} in {}", module.name, current_phase());
    refuse(abi::E_INVALID, &Error::failed(what).detail(detail))
}

/// The lock at that address, if the whole of it lies in shared memory.
fn shared_mutex(mutex: *mut abi::Mutex) -> Option<RobustMutex> {
    let state = State::current()?;
    if !mutex.is_aligned() || !state.arena.contains(mutex.cast(), size_of::<abi::Mutex>()) {
        return None;
    }
    // SAFETY: aligned and inside the arena, which stays mapped in every process.
    Some(unsafe { RobustMutex::from_raw(mutex) })
}

/// The code for a lock's error.
fn lock_code(errno: Errno) -> i32 {
    match errno {
        Errno::EBUSY => abi::E_BUSY,
        Errno::EDEADLK => abi::E_DEADLOCK,
        Errno::ENOTRECOVERABLE => abi::E_NOT_RECOVERABLE,
        Errno::EINVAL | Errno::EPERM => abi::E_INVALID,
        _ => abi::E_SYSTEM,
    }
}

extern "C" fn mutex_init(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
    guarded(abi::E_FAILED, || match shared_mutex(mutex) {
        None => abi::E_INVALID,
        Some(mutex) => mutex.initialise().map_or_else(lock_code, |()| abi::OK),
    })
}

#[inline(always)]
fn lock(mutex: *mut abi::Mutex, dead: *mut abi::DeadOwner, patience: Patience) -> i32 {
    let Some(mutex) = shared_mutex(mutex) else { return abi::E_INVALID };
    match mutex.lock(patience) {
        Ok(Locked::Clean) => abi::OK,
        Ok(Locked::OwnerDied { pid, process_no }) => {
            tracing::warn!("a process died holding a lock pid={pid} process_no={process_no}");
            // What the lock protects may point to blocks that were being allocated or freed: that is settled before anybody looks.
            if let Some(state) = State::current() {
                state.arena.settle_death(process_no, pid);
            }
            if !dead.is_null() {
                // SAFETY: the ABI's contract: null or writable.
                unsafe { dead.write(abi::DeadOwner { pid, process_no }) };
            }
            abi::OWNER_DIED
        }
        Err(errno) => lock_code(errno),
    }
}

extern "C" fn mutex_lock(_module: *mut c_void, mutex: *mut abi::Mutex, dead: *mut abi::DeadOwner) -> i32 {
    guarded(abi::E_FAILED, || lock(mutex, dead, Patience::Wait))
}

extern "C" fn mutex_trylock(_module: *mut c_void, mutex: *mut abi::Mutex, dead: *mut abi::DeadOwner) -> i32 {
    guarded(abi::E_FAILED, || lock(mutex, dead, Patience::Try))
}

extern "C" fn mutex_repaired(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
    guarded(abi::E_FAILED, || shared_mutex(mutex).map_or(abi::E_INVALID, |mutex| mutex.repaired().map_or_else(lock_code, |()| abi::OK)))
}

extern "C" fn mutex_unlock(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
    guarded(abi::E_FAILED, || shared_mutex(mutex).map_or(abi::E_INVALID, |mutex| mutex.unlock().map_or_else(lock_code, |()| abi::OK)))
}

extern "C" fn timer_add(module: *mut c_void, spec: *const abi::TimerSpec) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        if !matches!(phase, Phase::Init | Phase::ProcInit) {
            return out_of_phase("timer_add", module, phase, "init_f and init_child_f(PROC_INIT)");
        }
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        // SAFETY: the ABI's contract.
        let (size, label) = (spec.size as usize, unsafe { name(spec.name) });
        let which = match spec.process {
            abi::TIMER_FAST => Which::Fast,
            abi::TIMER_SLOW => Which::Slow,
            _ => return abi::E_INVALID,
        };
        let (true, Some(function), Some(label)) = (size >= size_of::<abi::TimerSpec>(), spec.function, label) else {
            return abi::E_INVALID;
        };
        state.timers.lock().unwrap_or_else(PoisonError::into_inner).push(TimerFunction {
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

extern "C" fn listen(module: *mut c_void, spec: *const abi::ListenSpec) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        if phase != Phase::Init {
            return out_of_phase("listen", module, phase, "init_f");
        }
        // SAFETY: the ABI's contract: null, or a struct that starts with its size.
        let Some(spec) = (unsafe { spec.as_ref() }) else { return abi::E_INVALID };
        if (spec.size as usize) < size_of::<abi::ListenSpec>() || spec.address.is_null() {
            return abi::E_INVALID;
        }
        let scheme = match spec.kind {
            abi::HANDLER_UDP => Scheme::Udp,
            // The TCP workers serve all listeners for connections.
            abi::HANDLER_STREAM if spec.workers == 0 => Scheme::Tcp,
            _ => return abi::E_INVALID,
        };
        // SAFETY: the ABI's contract.
        let (address, handler) = unsafe { (CStr::from_ptr(spec.address).to_string_lossy(), name(spec.handler)) };
        let parsed = match parse_address(scheme, &address) {
            Ok(parsed) => parsed,
            Err(error) => {
                let what = format!("module \"{}\" asked for a listener at \"{address}\"", module.name);
                return refuse(abi::E_INVALID, &Error { what, exit: EXIT_FAILED, ..error });
            }
        };
        if module.handler(spec.kind, handler.as_deref()).is_none() {
            return refuse(
                abi::E_INVALID,
                &Error::failed(format!("module \"{}\" asked for a listener without a handler for it", module.name)).detail(address),
            );
        }
        let mut wanted = state.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = (spec.workers > 0).then_some(spec.workers);
        wanted.push(Wanted { addresses: vec![parsed], options: ListenOptions::default(), module, handler, workers });
        i32::try_from(state.configured_listeners + wanted.len() - 1).unwrap_or(abi::E_LIMIT)
    })
}

extern "C" fn listener_find(module: *mut c_void, index: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        if state.listeners.get().is_none() {
            return out_of_phase("listener_find", module, phase, "init_child_f(PROC_INIT) and everywhere after it");
        }
        let found = (0..).map_while(|number| Some((number, state.any_listener(number)?)));
        let mut own = found.filter(|(_, (owner, _))| std::ptr::eq(*owner, module)).map(|(number, _)| number);
        own.nth(index as usize).and_then(|number| i32::try_from(number).ok()).unwrap_or(abi::E_INVALID)
    })
}

extern "C" fn listener_address(module: *mut c_void, listener: u32, address: *mut c_void, size: u32) -> i32 {
    listener_address_at(module, listener, 0, address, size)
}

extern "C" fn listener_address_at(module: *mut c_void, listener: u32, nth: u32, address: *mut c_void, size: u32) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        if state.listeners.get().is_none() {
            return out_of_phase("listener_address", module, phase, "init_child_f(PROC_INIT) and everywhere after it");
        }
        let Some(socket) = state.any_listener(listener).and_then(|(_, sockets)| sockets.get(nth as usize)) else { return abi::E_INVALID };
        let name = socket.name.as_bytes();
        if address.is_null() || (size as usize) < name.len() {
            return abi::E_INVALID;
        }
        // SAFETY: as many bytes are writable at the caller's (ABI's contract, checked size).
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), address.cast::<u8>(), name.len()) };
        name.len() as i32
    })
}

/// The buffers behind a batch, if it is the one this process is handling.
#[inline(always)]
fn datagrams_of(batch: *mut abi::UdpBatch) -> Option<&'static Datagrams> {
    crate::net::udp::serving(batch)
}

/// What becomes of an answer, as a code.
#[inline(always)]
fn queued(outcome: std::result::Result<(), Errno>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        Err(Errno::EDESTADDRREQ) => abi::E_NO_PEER,
        Err(_) => abi::E_INVALID,
    }
}

extern "C" fn udp_reply(_module: *mut c_void, batch: *mut abi::UdpBatch, index: u32, data: *const u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        // SAFETY: the ABI's contract: `len` readable bytes.
        let (Some(datagrams), data) = (datagrams_of(batch), unsafe { bytes(data, len) }) else { return abi::E_INVALID };
        queued(datagrams.copy(index as usize, data))
    })
}

extern "C" fn udp_reply_borrowed(_module: *mut c_void, batch: *mut abi::UdpBatch, index: u32, data: *const u8, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some(datagrams) = datagrams_of(batch) else { return abi::E_INVALID };
        queued(datagrams.queue(index as usize, data, len))
    })
}

extern "C" fn udp_reply_buffer(_module: *mut c_void, batch: *mut abi::UdpBatch, size: usize) -> *mut u8 {
    guarded(std::ptr::null_mut(), || datagrams_of(batch).and_then(|datagrams| datagrams.buffer(size)).unwrap_or(std::ptr::null_mut()))
}

extern "C" fn udp_reply_commit(_module: *mut c_void, batch: *mut abi::UdpBatch, index: u32, len: usize) -> i32 {
    guarded(abi::E_FAILED, || {
        let Some(datagrams) = datagrams_of(batch) else { return abi::E_INVALID };
        queued(datagrams.commit(index as usize, len))
    })
}

extern "C" fn udp_send(module: *mut c_void, listener: u32, peer: *const c_void, peer_len: u32, data: *const u8, len: usize) -> i32 {
    // SAFETY: the ABI's contract: as many readable bytes.
    unsafe { send(module, listener, None, (peer, peer_len), (data, len)) }
}

extern "C" fn udp_send_from(
    module: *mut c_void,
    listener: u32,
    local: *const c_void,
    local_len: u32,
    peer: *const c_void,
    peer_len: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: as above.
    unsafe { send(module, listener, Some((local, local_len)), (peer, peer_len), (data, len)) }
}

/// # Safety
/// Each pointer leads to as many readable bytes as the number beside it says.
unsafe fn send(
    module: *mut c_void,
    listener: u32,
    local: Option<(*const c_void, u32)>,
    peer: (*const c_void, u32),
    (data, len): (*const u8, usize),
) -> i32 {
    guarded(abi::E_FAILED, || {
        let (Some((module, phase)), Some(state)) = (caller(module), State::current()) else { return abi::E_INVALID };
        if state.listeners.get().is_none() {
            return out_of_phase("udp_send", module, phase, "init_child_f(PROC_INIT) and everywhere after it");
        }
        let Some(listener) = state.listener(listener).filter(|_| len <= MAX_DATAGRAM_BYTES) else { return abi::E_INVALID };
        let name = |(start, len): (*const c_void, u32)| {
            if len as usize > NAME_BYTES {
                return None;
            }
            // SAFETY: the caller's contract; a length that no address has is not read.
            Name::from_bytes(unsafe { bytes(start.cast(), len as usize) })
        };
        let Some(peer) = name(peer) else { return abi::E_INVALID };
        // SAFETY: the caller's contract.
        let data = unsafe { bytes(data, len) };
        let outcome = match local.map(name) {
            None => listener.send(&peer, data),
            Some(Some(local)) => listener.send_from(&local, &peer, data),
            Some(None) => return abi::E_INVALID,
        };
        match outcome {
            Ok(()) => {
                crate::stats::count(crate::stats::Own::Sent, 1);
                abi::OK
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => abi::E_BUSY,
            Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => abi::E_INVALID,
            Err(errno) => {
                tracing::debug!("a datagram could not be sent module=\"{}\" listener=\"{listener}\": sendmsg: {errno}", module.name);
                abi::E_SYSTEM
            }
        }
    })
}
