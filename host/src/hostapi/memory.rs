//! The host's functions about shared memory and the locks in it.
//!
//! *Runs in:* any process, phase and thread; `shm_alloc` in main, in `init_f` and `PROC_INIT`.
//! *Never:* believes that an address is in shared memory.

use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::abi;
use nix::errno::Errno;

use super::{caller, guarded, out_of_phase, refuse};
use crate::error::Error;
use crate::module::loader::of_handle;
use crate::module::{Module, call};
use crate::process::phase::{Breadcrumb, Phase};
use crate::shm::heap::{AllocError, BlockError, Content};
use crate::state::MainMemory;
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::robust_mutex::{Locked, Patience, RobustMutex};
use crate::sys::time;

pub(super) extern "C" fn shm_alloc(module: *mut c_void, size: usize, align: usize) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        let (Some((module, phase)), Some(memory)) = (caller(module), MainMemory::current()) else { return std::ptr::null_mut() };
        if !matches!(phase, Phase::Init | Phase::ProcInit) {
            out_of_phase("shm_malloc", module, phase, "init_f and init_child_f(PROC_INIT)");
            return std::ptr::null_mut();
        }
        match memory.arena.allocate(module, size, align, Content::Zeros, std::ptr::null_mut()) {
            Ok(start) => start.as_ptr().cast(),
            Err(error) => no_block(module, phase, size, align, error),
        }
    })
}

pub(super) extern "C" fn shm_malloc(module: *mut c_void, size: usize, align: usize, flags: u32, into: *mut *mut c_void) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        let (Some(module), Some(memory)) = (of_handle(module), MainMemory::current()) else { return std::ptr::null_mut() };
        let content = if flags & abi::SHM_ZEROED != 0 { Content::Zeros } else { Content::Undefined };
        // A cell outside shared memory dies with the process, so it needs no undo record: it is
        // written plainly.
        let (cell, own) = if memory.arena.contains(into.cast(), size_of::<*mut c_void>()) {
            (into, std::ptr::null_mut())
        } else {
            (std::ptr::null_mut(), into)
        };
        let outcome = if flags & !abi::SHM_ZEROED != 0 || !into.is_aligned() {
            Err(AllocError::Impossible)
        } else {
            memory.arena.allocate(module, size, align, content, cell.cast())
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

pub(super) extern "C" fn shm_realloc(module: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return shm_malloc(module, size, 16, 0, std::ptr::null_mut());
    }
    if size == 0 {
        shm_free(module, block, std::ptr::null_mut());
        return std::ptr::null_mut();
    }
    guarded(std::ptr::null_mut(), || {
        let (Some(module), Some(memory)) = (of_handle(module), MainMemory::current()) else { return std::ptr::null_mut() };
        match memory.arena.resize(module, block.cast(), size) {
            Ok(Ok(start)) => start.as_ptr().cast(),
            Ok(Err(error)) => no_block(module, current_phase(), size, 16, error),
            Err(wrong) => {
                wrong_block("shm_realloc", module, block, wrong);
                std::ptr::null_mut()
            }
        }
    })
}

pub(super) extern "C" fn shm_free(module: *mut c_void, block: *mut c_void, from: *mut *mut c_void) -> i32 {
    if block.is_null() {
        return abi::OK;
    }
    guarded(abi::E_FAILED, || {
        let (Some(module), Some(memory)) = (of_handle(module), MainMemory::current()) else { return abi::E_INVALID };
        let (cell, own) = if memory.arena.contains(from.cast(), size_of::<*mut c_void>()) {
            (from, std::ptr::null_mut())
        } else {
            (std::ptr::null_mut(), from)
        };
        match memory.arena.free(block.cast(), cell.cast()) {
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
    Breadcrumb::from_word(this_process().trail().load(Relaxed)).phase
}

/// A process in service reports exhausted shared memory at most this often.
const EXHAUSTED_AGAIN_MS: u64 = 1000;

/// Reports why there is no block. Adding up each module's share takes time, so a process in service
/// does it at most once per `EXHAUSTED_AGAIN_MS`.
#[cold]
fn no_block(module: &Module, phase: Phase, size: usize, align: usize, why: AllocError) -> *mut c_void {
    static LAST_MS: AtomicU64 = AtomicU64::new(0);
    let what = || format!("module \"{}\" cannot get {size} bytes of shared memory", module.name);
    let error = match why {
        AllocError::Impossible => Error::failed(format!("module \"{}\" asked for impossible shared memory", module.name))
            .detail(format!("{size} bytes aligned to {align}")),
        AllocError::Broken(errno) => Error::fault(what()).detail(format!("the arena's lock: {errno}")),
        AllocError::Exhausted => {
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

/// An error that names the module with the largest share.
fn exhausted(what: String) -> Error {
    let Some(memory) = MainMemory::current() else { return Error::failed(what) };
    let usage = memory.arena.usage();
    let most = usage.largest().map_or_else(String::new, |(index, share)| {
        let named = index.and_then(crate::state::module_name);
        format!(", module \"{}\" has most: {} in {} blocks", named.unwrap_or("?"), share.bytes, share.blocks)
    });
    let (sum, largest) = (usage.sum().bytes, usage.largest_free_bytes);
    let detail = format!("{sum} of {} bytes are in use, the largest free piece has {largest}{most}", usage.total_bytes);
    Error::failed(what).detail(detail).hint("raise host.shared_memory; see modhost shm")
}

/// Refuses a block that cannot be freed or resized.
#[cold]
fn wrong_block(call: &str, module: &Module, block: *mut c_void, wrong: BlockError) -> i32 {
    let detail = match wrong {
        BlockError::NotABlock => "no block is there".to_owned(),
        BlockError::Inside => "it is not the beginning of a block".to_owned(),
        BlockError::Free => "it is free already".to_owned(),
        BlockError::Cell => "the cell does not hold it".to_owned(),
        BlockError::Broken(errno) => format!("the arena's lock: {errno}"),
    };
    let what = format!("module \"{}\" called {call} with {block:p} in {}", module.name, current_phase());
    refuse(abi::E_INVALID, &Error::failed(what).detail(detail))
}

/// The lock at that address, if all of it is in shared memory.
fn shared_mutex(mutex: *mut abi::Mutex) -> Option<RobustMutex> {
    let memory = MainMemory::current()?;
    if !mutex.is_aligned() || !memory.arena.contains(mutex.cast(), size_of::<abi::Mutex>()) {
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

pub(super) extern "C" fn mutex_init(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
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
            // The protected data may point to blocks that the dead process was allocating or
            // freeing: settle them before anybody looks.
            if let Some(memory) = MainMemory::current() {
                memory.arena.settle_death(process_no, pid);
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

pub(super) extern "C" fn mutex_lock(_module: *mut c_void, mutex: *mut abi::Mutex, dead: *mut abi::DeadOwner) -> i32 {
    guarded(abi::E_FAILED, || lock(mutex, dead, Patience::Wait))
}

pub(super) extern "C" fn mutex_trylock(_module: *mut c_void, mutex: *mut abi::Mutex, dead: *mut abi::DeadOwner) -> i32 {
    guarded(abi::E_FAILED, || lock(mutex, dead, Patience::Try))
}

pub(super) extern "C" fn mutex_repaired(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
    guarded(abi::E_FAILED, || shared_mutex(mutex).map_or(abi::E_INVALID, |mutex| mutex.repaired().map_or_else(lock_code, |()| abi::OK)))
}

pub(super) extern "C" fn mutex_unlock(_module: *mut c_void, mutex: *mut abi::Mutex) -> i32 {
    guarded(abi::E_FAILED, || shared_mutex(mutex).map_or(abi::E_INVALID, |mutex| mutex.unlock().map_or_else(lock_code, |()| abi::OK)))
}
