//! The fake host's shared memory and locks. Memory comes from the heap of the test; a lock is a
//! state in a map.

use std::alloc::Layout;
use std::ffi::c_void;

use super::fake;
use crate::abi::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeMutex {
    Free,
    Held,
    OwnerDied,
    HeldDamaged,
    NotRecoverable,
}

pub const fn fill(mut api: HostApi) -> HostApi {
    api.shm_alloc = shm_alloc;
    api.shm_malloc = shm_malloc;
    api.shm_realloc = shm_realloc;
    api.shm_free = shm_free;
    api.mutex_init = mutex_init;
    api.mutex_lock = mutex_lock;
    api.mutex_trylock = mutex_trylock;
    api.mutex_repaired = mutex_repaired;
    api.mutex_unlock = mutex_unlock;
    api
}

extern "C" fn shm_alloc(_: *mut c_void, size: usize, align: usize) -> *mut c_void {
    let layout = Layout::from_size_align(size, align).unwrap();
    fake(|fake| match fake.memory.checked_sub(size) {
        Some(left) => {
            fake.memory = left;
            // SAFETY: the size is not zero.
            unsafe { std::alloc::alloc_zeroed(layout) }.cast()
        }
        None => std::ptr::null_mut(),
    })
}

extern "C" fn shm_malloc(module: *mut c_void, size: usize, align: usize, _: u32, into: *mut *mut c_void) -> *mut c_void {
    let block = shm_alloc(module, size, align);
    if !block.is_null() {
        fake(|fake| fake.blocks.insert(block.addr(), (size, align)));
        if !into.is_null() {
            // SAFETY: not null, and the crate under test passes a valid pointer.
            unsafe { *into = block };
        }
    }
    block
}

extern "C" fn shm_realloc(module: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    let Some((old, align)) = fake(|fake| fake.blocks.get(&block.addr()).copied()) else { return std::ptr::null_mut() };
    let new = shm_malloc(module, size, align, 0, std::ptr::null_mut());
    if !new.is_null() {
        // SAFETY: both are blocks of at least that size.
        unsafe { block.cast::<u8>().copy_to_nonoverlapping(new.cast(), old.min(size)) };
        shm_free(module, block, std::ptr::null_mut());
    }
    new
}

extern "C" fn shm_free(_: *mut c_void, block: *mut c_void, from: *mut *mut c_void) -> i32 {
    let Some((size, align)) = fake(|fake| fake.blocks.remove(&block.addr())) else { return E_INVALID };
    fake(|fake| fake.memory += size);
    if !from.is_null() {
        // SAFETY: not null, and the crate under test passes a valid pointer.
        unsafe { *from = std::ptr::null_mut() };
    }
    // SAFETY: `shm_alloc` made it with this layout.
    unsafe { std::alloc::dealloc(block.cast(), Layout::from_size_align(size, align).unwrap()) };
    OK
}

extern "C" fn mutex_init(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| fake.mutexes.insert(mutex.addr(), FakeMutex::Free));
    OK
}

extern "C" fn mutex_lock(_: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32 {
    fake(|fake| {
        let state = fake.mutexes.get_mut(&mutex.addr()).unwrap();
        let (next, code) = match *state {
            FakeMutex::Free => (FakeMutex::Held, OK),
            FakeMutex::OwnerDied => (FakeMutex::HeldDamaged, OWNER_DIED),
            FakeMutex::NotRecoverable => (FakeMutex::NotRecoverable, E_NOT_RECOVERABLE),
            held => (held, E_DEADLOCK),
        };
        *state = next;
        if code == OWNER_DIED {
            // SAFETY: the crate under test passes a valid pointer.
            unsafe { *dead = DeadOwner { pid: 4711, process_no: 3 } };
        }
        code
    })
}

extern "C" fn mutex_trylock(module: *mut c_void, mutex: *mut Mutex, dead: *mut DeadOwner) -> i32 {
    match mutex_lock(module, mutex, dead) {
        E_DEADLOCK => E_BUSY,
        code => code,
    }
}

extern "C" fn mutex_repaired(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| fake.mutexes.insert(mutex.addr(), FakeMutex::Held));
    OK
}

extern "C" fn mutex_unlock(_: *mut c_void, mutex: *mut Mutex) -> i32 {
    fake(|fake| {
        let state = fake.mutexes.get_mut(&mutex.addr()).unwrap();
        *state = if *state == FakeMutex::HeldDamaged { FakeMutex::NotRecoverable } else { FakeMutex::Free };
    });
    OK
}
