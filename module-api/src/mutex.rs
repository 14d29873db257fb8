//! A lock in shared memory that survives the death of its holder.
//!
//! Taken in any process. A caller cannot overlook that the last holder died: it gets the data only
//! through a repair.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::abi::{self, DeadOwner};
use crate::host::host;
use crate::phase::NotSend;
use crate::process::Pid;
use crate::shm::{self, ShmSafe};
use crate::{Error, Result};

/// A value in shared memory that one process at a time can use.
///
/// Made by `cx.mutex(..)` in [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit); taken
/// in any process and phase. If a process dies while it holds the lock, at any instruction, the
/// next process to lock it gets the lock and is told.
///
/// ```
/// # use module_api::prelude::*;
/// module_api::shm_struct! { pub struct Ledger { debit: u64, credit: u64 } }
///
/// fn book(ledger: &ShmMutex<Ledger>, amount: u64) -> Result<()> {
///     let mut ledger = ledger.lock_or_repair(|ledger, dead| {
///         warn!(pid = dead.pid().get(), "a process died while booking");
///         ledger.credit = ledger.debit;
///     })?;
///     ledger.debit += amount;
///     ledger.credit += amount;
///     Ok(())
/// }
/// ```
///
/// A guard stays in its thread, which holds the lock:
/// ```compile_fail,E0277
/// # use module_api::prelude::*;
/// fn send(counter: &'static ShmMutex<u64>) {
///     let guard = counter.lock_or_repair(|_, _| {}).unwrap();
///     std::thread::spawn(move || drop(guard));
/// }
/// ```
/// `?` alone does not ignore a dead owner:
/// ```compile_fail,E0277
/// # use module_api::prelude::*;
/// fn overlook(counter: &ShmMutex<u64>) -> Result<()> {
///     *counter.lock()? += 1;
///     Ok(())
/// }
/// ```
pub struct ShmMutex<T: 'static> {
    cell: &'static Locked<T>,
}

#[repr(C)]
struct Locked<T> {
    lock: UnsafeCell<abi::Mutex>,
    data: UnsafeCell<T>,
}

// SAFETY: the host's lock is opaque to the module and made for shared memory; the data is
// `ShmSafe`.
unsafe impl<T: ShmSafe> ShmSafe for Locked<T> {}
// SAFETY: the lock lets one thread at a time use the data, and the data may be sent between
// threads.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Clone for ShmMutex<T> {
    fn clone(&self) -> ShmMutex<T> {
        *self
    }
}

impl<T> Copy for ShmMutex<T> {}

pub(crate) fn new<T: ShmSafe + Send>(data: T) -> Result<ShmMutex<T>> {
    let lock = UnsafeCell::new(abi::Mutex { opaque: [0; 8] });
    let cell = shm::allocate(Locked { lock, data: UnsafeCell::new(data) })?;
    let host = host();
    crate::host::check("mutex_init", (host.api.mutex_init)(host.module, cell.lock.get()))?;
    Ok(ShmMutex { cell })
}

impl<T: ShmSafe + Send> ShmMutex<T> {
    /// Waits for the lock. Any process, phase and thread.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`]: this process now holds the lock, and the data needs
    /// [`repair`](OwnerDied::repair). [`LockError::Failed`]: it does not hold the lock.
    pub fn lock(&self) -> Result<ShmGuard<'_, T>, LockError<'_, T>> {
        let host = host();
        let mut dead = DeadOwner::default();
        let code = (host.api.mutex_lock)(host.module, self.cell.lock.get(), &raw mut dead);
        self.locked(code, dead)
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// As [`lock`](ShmMutex::lock), and [`LockFailure::Busy`].
    pub fn try_lock(&self) -> Result<ShmGuard<'_, T>, LockError<'_, T>> {
        let host = host();
        let mut dead = DeadOwner::default();
        let code = (host.api.mutex_trylock)(host.module, self.cell.lock.get(), &raw mut dead);
        self.locked(code, dead)
    }

    /// Waits for the lock. If its last owner died holding it, `repair` makes the data whole first.
    ///
    /// # Errors
    /// The reason why the lock is not held.
    pub fn lock_or_repair(&self, repair: impl FnOnce(&mut T, Dead)) -> Result<ShmGuard<'_, T>, LockFailure> {
        match self.lock() {
            Ok(guard) => Ok(guard),
            Err(LockError::OwnerDied(owner)) => {
                let dead = owner.dead();
                owner.repair(|data| repair(data, dead))
            }
            Err(LockError::Failed(failure)) => Err(failure),
        }
    }

    fn locked(&self, code: i32, dead: DeadOwner) -> Result<ShmGuard<'_, T>, LockError<'_, T>> {
        let held = |cell| ShmGuard { cell, panicking: std::thread::panicking(), not_send: PhantomData };
        match code {
            abi::OK => Ok(held(self.cell)),
            abi::OWNER_DIED => Err(LockError::OwnerDied(OwnerDied { guard: held(self.cell), dead: Dead(dead) })),
            code => Err(LockError::Failed(LockFailure::from_code(code))),
        }
    }
}

#[cfg(feature = "testing")]
impl<T: ShmSafe + Send> ShmMutex<T> {
    /// Address of the lock, by which the fake host knows it.
    pub(crate) fn address(&self) -> usize {
        self.cell.lock.get().addr()
    }
}

/// Why [`ShmMutex::lock`] did not return a guard.
///
/// Not a [`std::error::Error`], so that `?` cannot turn a dead owner into a line of text: match it,
/// or use [`ShmMutex::lock_or_repair`].
pub enum LockError<'a, T: ShmSafe + Send> {
    /// The lock is held, but its last owner died holding it, perhaps half-way through a change.
    OwnerDied(OwnerDied<'a, T>),
    /// The lock is not held.
    Failed(LockFailure),
}

impl<T: ShmSafe + Send> fmt::Debug for LockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(owner) => f.debug_tuple("OwnerDied").field(&owner.dead).finish(),
            LockError::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// Why a lock is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockFailure {
    /// Another process holds it; [`ShmMutex::try_lock`] only.
    Busy,
    /// The calling process holds it already.
    Deadlock,
    /// A process dropped [`OwnerDied`] without a repair. The lock is unusable for good.
    NotRecoverable,
    /// Any other code of the binary interface; the host has logged the detail.
    Other(i32),
}

impl LockFailure {
    pub(crate) fn from_code(code: i32) -> LockFailure {
        match code {
            abi::E_BUSY => LockFailure::Busy,
            abi::E_DEADLOCK => LockFailure::Deadlock,
            abi::E_NOT_RECOVERABLE => LockFailure::NotRecoverable,
            code => LockFailure::Other(code),
        }
    }
}

impl fmt::Display for LockFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self {
            LockFailure::Busy => abi::E_BUSY,
            LockFailure::Deadlock => abi::E_DEADLOCK,
            LockFailure::NotRecoverable => abi::E_NOT_RECOVERABLE,
            LockFailure::Other(code) => *code,
        };
        f.write_str(Error::from_code("lock", code).text())
    }
}

impl std::error::Error for LockFailure {}

/// The process that died holding a lock.
#[derive(Debug, Clone, Copy)]
pub struct Dead(DeadOwner);

impl Dead {
    /// Its process id; 0 if it died while taking or releasing the lock.
    pub fn pid(self) -> Pid {
        Pid::new(self.0.pid)
    }

    /// Its index in the process table; none if the host does not know it.
    pub fn process_no(self) -> Option<usize> {
        usize::try_from(self.0.process_no).ok()
    }
}

/// A held lock over data that may be damaged. [`repair`](OwnerDied::repair) makes it an ordinary
/// guard; dropping it without a repair makes the lock unusable for every process, for good.
#[must_use = "dropping this without a repair makes the lock unusable for good"]
pub struct OwnerDied<'a, T: ShmSafe + Send> {
    guard: ShmGuard<'a, T>,
    dead: Dead,
}

impl<'a, T: ShmSafe + Send> OwnerDied<'a, T> {
    /// The process that died.
    pub fn dead(&self) -> Dead {
        self.dead
    }

    /// Runs `repair` on the data and marks the lock as repaired. The lock stays held.
    ///
    /// # Errors
    /// If the host refuses; then the lock is released and unusable.
    pub fn repair(self, repair: impl FnOnce(&mut T)) -> Result<ShmGuard<'a, T>, LockFailure> {
        let mut guard = self.guard;
        repair(&mut guard);
        let host = host();
        match (host.api.mutex_repaired)(host.module, guard.cell.lock.get()) {
            abi::OK => Ok(guard),
            code => Err(LockFailure::from_code(code)),
        }
    }
}

/// The lock, held by this thread until the guard is dropped.
///
/// A panic while it is held does not release the lock: the data may be half-changed. The host ends
/// the process, and the next process to lock is told that the owner died. Code that catches its own
/// panics must not let one unwind past a guard.
pub struct ShmGuard<'a, T: ShmSafe + Send> {
    cell: &'a Locked<T>,
    /// Whether the thread was already panicking when it took the lock.
    panicking: bool,
    /// The host's lock belongs to the thread that took it.
    not_send: PhantomData<NotSend>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ShmSafe + Send + Sync> Sync for ShmGuard<'_, T> {}

impl<T: ShmSafe + Send> Deref for ShmGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so nobody else has a reference to the data.
        unsafe { &*self.cell.data.get() }
    }
}

impl<T: ShmSafe + Send> DerefMut for ShmGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this guard is borrowed mutably.
        unsafe { &mut *self.cell.data.get() }
    }
}

impl<T: ShmSafe + Send> Drop for ShmGuard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            return;
        }
        let host = host();
        let code = (host.api.mutex_unlock)(host.module, self.cell.lock.get());
        if code != abi::OK {
            tracing::error!(code, "a shared lock was not released");
        }
    }
}
