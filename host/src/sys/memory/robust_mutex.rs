//! Process-shared robust mutexes, and who held one when it died.
//!
//! *Runs in:* every process that the host forked. *Never:* inherits priorities (that costs thirty
//! times as much when contended).
//!
//! The locks are robust mutexes of the C library: the kernel itself releases those of a process
//! that dies, at whatever instruction. The kernel does not keep who died, because it clears the
//! owner from the lock word. So the owner records itself next to the lock while it holds it.

use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::abi;
use nix::errno::Errno;

use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::mapping::Mapping;

/// The contents of [`abi::Mutex::opaque`].
#[repr(C)]
struct Robust {
    lock: libc::pthread_mutex_t,
    /// `MARK` once initialised.
    mark: AtomicU64,
    /// `process_no + 1` in the upper half, pid in the lower. 0 while nobody holds the lock, and for
    /// the few instructions between taking the lock and recording the owner.
    owner: AtomicU64,
}

const MARK: u64 = u64::from_le_bytes(*b"MUTEX\0\0\x01");
const _: () = assert!(size_of::<Robust>() <= size_of::<abi::Mutex>());

/// How the last owner left the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// It released the lock.
    Clean,
    /// It died holding the lock.
    OwnerDied {
        /// 0 if it died while taking or releasing the lock.
        pid: i32,
        /// -1 if unknown.
        process_no: i32,
    },
}

/// Whether to wait for the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until the lock is free or its owner is dead.
    Wait,
    /// Not at all: `EBUSY` instead.
    Try,
}

/// A lock, whose memory the caller of [`Self::from_raw`] vouches for.
#[derive(Debug, Clone, Copy)]
pub struct RobustMutex(*mut Robust);

impl RobustMutex {
    /// # Safety
    /// `mutex` points to a whole, aligned `abi::Mutex` in memory that stays mapped while any
    /// process uses the lock.
    pub unsafe fn from_raw(mutex: *mut abi::Mutex) -> Self {
        Self(mutex.cast())
    }

    pub const SIZE_BYTES: usize = size_of::<abi::Mutex>();

    /// The lock at the beginning of a mapping that has nothing else there.
    pub fn at_start_of(mapping: Mapping) -> Self {
        assert!(mapping.size_bytes() >= Self::SIZE_BYTES, "a lock has room in its mapping");
        // SAFETY: large enough, as was just checked; mappings are page-aligned and never unmapped.
        unsafe { Self::from_raw(mapping.start().as_ptr().cast()) }
    }

    /// Initialises the lock. To be called once, before its first use.
    pub fn initialise(self) -> Result<(), Errno> {
        // SAFETY: `from_raw`'s contract; the attributes live on this stack and are destroyed before
        // they go out of scope.
        unsafe {
            let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
            check(libc::pthread_mutexattr_init(&raw mut attributes))?;
            let made = check(libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED))
                .and_then(|()| check(libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST)))
                .and_then(|()| check(libc::pthread_mutexattr_settype(&raw mut attributes, libc::PTHREAD_MUTEX_ERRORCHECK)))
                .and_then(|()| check(libc::pthread_mutex_init(&raw mut (*self.0).lock, &raw const attributes)));
            libc::pthread_mutexattr_destroy(&raw mut attributes);
            made?;
            (*self.0).owner.store(0, Relaxed);
            (*self.0).mark.store(MARK, Relaxed);
        }
        Ok(())
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// `EDEADLK`: this process holds it. `ENOTRECOVERABLE`: an owner died and nobody repaired the
    /// data. `EINVAL`: it was never initialised.
    pub fn lock(self, patience: Patience) -> Result<Locked, Errno> {
        let robust = self.0;
        // SAFETY: `from_raw`'s contract; the fields are reached through raw pointers, never through
        // a reference to the whole lock.
        unsafe {
            if (*robust).mark.load(Relaxed) != MARK {
                return Err(Errno::EINVAL);
            }
            let outcome = match patience {
                Patience::Wait => libc::pthread_mutex_lock(&raw mut (*robust).lock),
                // Not pthread_mutex_trylock: glibc's leaves a lock that is not recoverable taken,
                // and the next to lock it waits for ever
                // (`a_lock_that_nobody_repairs_is_unusable_for_all`). A wait whose deadline has
                // passed does the same otherwise.
                Patience::Try => match libc::pthread_mutex_timedlock(&raw mut (*robust).lock, &libc::timespec { tv_sec: 0, tv_nsec: 0 }) {
                    libc::ETIMEDOUT => libc::EBUSY,
                    code => code,
                },
            };
            let locked = match outcome {
                0 => Locked::Clean,
                libc::EOWNERDEAD => {
                    let owner = (*robust).owner.load(Relaxed);
                    Locked::OwnerDied { pid: (owner & 0xffff_ffff) as u32 as i32, process_no: (owner >> 32) as u32 as i32 - 1 }
                }
                other => return Err(Errno::from_raw(other)),
            };
            (*robust).owner.store(own_record(), Relaxed);
            Ok(locked)
        }
    }

    /// After `OwnerDied`: the protected data is consistent again.
    pub fn repaired(self) -> Result<(), Errno> {
        // SAFETY: `from_raw`'s contract.
        unsafe { check(libc::pthread_mutex_consistent(&raw mut (*self.0).lock)) }
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// `EPERM`: this process does not hold it. `EINVAL`: it was never initialised.
    pub fn unlock(self) -> Result<(), Errno> {
        // SAFETY: `from_raw`'s contract.
        unsafe {
            // Only the holder may clear the record of the holder.
            if (*self.0).mark.load(Relaxed) != MARK {
                return Err(Errno::EINVAL);
            }
            if (*self.0).owner.load(Relaxed) != own_record() {
                return Err(Errno::EPERM);
            }
            (*self.0).owner.store(0, Relaxed);
            check(libc::pthread_mutex_unlock(&raw mut (*self.0).lock))
        }
    }
}

/// This process, as recorded in `Robust::owner`.
fn own_record() -> u64 {
    let me = this_process();
    u64::from((me.process_no() + 1) as u32) << 32 | u64::from(me.pid() as u32)
}

fn check(code: libc::c_int) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_once_and_refuses_what_is_not_a_lock() {
        let mut memory = Box::new(abi::Mutex { opaque: [0; 8] });
        // SAFETY: the box outlives the lock.
        let mutex = unsafe { RobustMutex::from_raw(&raw mut *memory) };
        assert_eq!(mutex.lock(Patience::Wait), Err(Errno::EINVAL), "all zero is not a lock");
        mutex.initialise().unwrap();
        assert_eq!(mutex.lock(Patience::Wait), Ok(Locked::Clean));
        assert_eq!(mutex.lock(Patience::Wait), Err(Errno::EDEADLK));
        assert_eq!(mutex.lock(Patience::Try), Err(Errno::EDEADLK));
        mutex.unlock().unwrap();
        assert_eq!(mutex.unlock(), Err(Errno::EPERM));
    }

    #[test]
    fn the_next_owner_is_told_that_the_last_one_died() {
        let mut memory = Box::new(abi::Mutex { opaque: [0; 8] });
        // SAFETY: the box outlives the lock; the thread below is joined before it goes.
        let mutex = unsafe { RobustMutex::from_raw(&raw mut *memory) };
        mutex.initialise().unwrap();
        let address = &raw mut *memory as usize;
        std::thread::spawn(move || {
            // SAFETY: as above.
            let mutex = unsafe { RobustMutex::from_raw(address as *mut abi::Mutex) };
            assert_eq!(mutex.lock(Patience::Wait), Ok(Locked::Clean));
        })
        .join()
        .unwrap();
        assert!(matches!(mutex.lock(Patience::Wait), Ok(Locked::OwnerDied { .. })));
        mutex.repaired().unwrap();
        mutex.unlock().unwrap();
        assert_eq!(mutex.lock(Patience::Wait), Ok(Locked::Clean));
    }
}
