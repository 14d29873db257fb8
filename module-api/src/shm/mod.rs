//! Shared memory: values that every process of the host sees at the same address.
//!
//! Allocated in main by `ModInit` and `ProcInit`, never freed. Only types that are safe to share
//! can be put there.

mod item;
mod map;
mod owned;
mod shard;

pub use item::{MapKey, MapValue, Tagged};
pub(crate) use map::new as new_map;
pub use map::{MapError, MapOptions, Scan, ShmMap, Update};
pub use owned::{ShmBox, ShmString, ShmVec};

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;
use std::sync::atomic;

use crate::host::host;
use crate::{Error, Result};

/// Types that may be in shared memory: plain numbers, atomics, arrays of those, and structs made by
/// [`shm_struct!`](crate::shm_struct!). No pointers, no `String`, no `Vec`: their memory belongs to
/// one process.
///
/// # Safety
/// A value must mean the same in every process (no pointer, descriptor or thread), zero bytes must
/// be a valid value, and nothing may depend on its destructor, because shared memory is never
/// freed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be put into shared memory",
    note = "shared memory takes numbers, atomics, arrays of them, and structs declared with `shm_struct!`"
)]
pub unsafe trait ShmSafe: 'static {}

macro_rules! shm_safe {
    ($($kind:ty),* $(,)?) => {
        $(
            // SAFETY: plain bits without a destructor; zero is a valid value.
            unsafe impl ShmSafe for $kind {}
        )*
    };
}
shm_safe!(bool, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
shm_safe!(atomic::AtomicBool, atomic::AtomicU8, atomic::AtomicU16, atomic::AtomicU32, atomic::AtomicU64, atomic::AtomicUsize);
shm_safe!(atomic::AtomicI8, atomic::AtomicI16, atomic::AtomicI32, atomic::AtomicI64, atomic::AtomicIsize);

// SAFETY: its elements are `ShmSafe`.
unsafe impl<T: ShmSafe, const N: usize> ShmSafe for [T; N] {}

/// A value in shared memory, the same one in every process. Access is by shared reference, so
/// fields that change must be atomic; put anything else under a [`ShmMutex`](crate::ShmMutex).
///
/// Made by `cx.shm(..)`, `cx.shm_zeroed()` or `cx.shm_slice(..)` in [`ModInit`](crate::ModInit) and
/// [`ProcInit`](crate::ProcInit). The memory is never freed and survives the restart of any process
/// but main.
pub struct Shm<T: ?Sized + 'static> {
    value: &'static T,
}

impl<T: ?Sized> Shm<T> {
    /// A reference to the value, valid for good.
    pub fn as_static(self) -> &'static T {
        self.value
    }
}

impl<T: ?Sized> Clone for Shm<T> {
    fn clone(&self) -> Shm<T> {
        *self
    }
}

impl<T: ?Sized> Copy for Shm<T> {}

impl<T: ?Sized> Deref for Shm<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shm<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// One value per process, each in its own cache line, so that processes that write often do not
/// slow each other down.
///
/// Made by [`ProcInit::per_process`](crate::ProcInit::per_process), when the number of processes is
/// known. A restarted process finds the value that its predecessor in the slot left.
pub struct PerProcess<T: 'static> {
    cells: &'static [CacheLine<T>],
}

/// 64 bytes: the cache line of every machine that modhost runs on.
#[repr(align(64))]
struct CacheLine<T>(T);

// SAFETY: the value is `ShmSafe`; the rest is padding.
unsafe impl<T: ShmSafe> ShmSafe for CacheLine<T> {}

impl<T> PerProcess<T> {
    /// The value of the calling process. Calls the host to learn which process that is; code that
    /// needs it often should keep the reference in its child state.
    ///
    /// # Panics
    /// In a process that the host did not fork.
    pub fn mine(&self) -> &'static T {
        let process_no = host().process_info().process_no;
        let own = usize::try_from(process_no).ok().and_then(|process_no| self.of(process_no));
        own.unwrap_or_else(|| panic!("no value for process_no {process_no}: the host did not fork this process"))
    }

    /// The value of the process `process_no`; none past the last.
    pub fn of(&self, process_no: usize) -> Option<&'static T> {
        self.cells.get(process_no).map(|cell| &cell.0)
    }

    /// The values of all processes, by `process_no`.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static T> + use<T> {
        self.cells.iter().map(|cell| &cell.0)
    }
}

impl<T> Clone for PerProcess<T> {
    fn clone(&self) -> PerProcess<T> {
        *self
    }
}

impl<T> Copy for PerProcess<T> {}

/// Shared memory for `len` values of `T`, aligned, every byte zero.
fn alloc<T>(len: usize) -> Result<*mut T> {
    let host = host();
    let size = size_of::<T>().checked_mul(len);
    let memory = match size {
        // No bytes to share: any aligned address is valid.
        Some(0) => std::ptr::NonNull::<T>::dangling().as_ptr(),
        Some(size) => (host.api.shm_alloc)(host.module, size, align_of::<T>()).cast(),
        None => std::ptr::null_mut(),
    };
    if memory.is_null() {
        return Err(Error::new(format_args!(
            "no shared memory for {len} x {} bytes ({}); `shared_memory` in the configuration is the limit",
            size_of::<T>(),
            std::any::type_name::<T>(),
        )));
    }
    Ok(memory)
}

pub(crate) fn value<T: ShmSafe + Sync>(value: T) -> Result<Shm<T>> {
    allocate(value).map(|value| Shm { value })
}

/// Moves `value` to shared memory.
pub(crate) fn allocate<T: ShmSafe>(value: T) -> Result<&'static T> {
    let memory = alloc::<MaybeUninit<T>>(1)?;
    // SAFETY: the host gave this aligned memory for good, and no other reference to it exists yet.
    let memory: &'static mut MaybeUninit<T> = unsafe { &mut *memory };
    Ok(memory.write(value))
}

pub(crate) fn zeroed<T: ShmSafe + Sync>() -> Result<Shm<T>> {
    let memory = alloc::<T>(1)?;
    // SAFETY: aligned, zeroed memory that is never freed, and `ShmSafe` says that zero is a valid
    // value.
    Ok(Shm { value: unsafe { &*memory } })
}

pub(crate) fn zeroed_slice<T: ShmSafe + Sync>(len: usize) -> Result<Shm<[T]>> {
    let memory = alloc::<T>(len)?;
    // SAFETY: as in `zeroed`, for `len` values.
    Ok(Shm { value: unsafe { slice::from_raw_parts(memory, len) } })
}

pub(crate) fn per_process<T: ShmSafe + Sync>(processes: usize) -> Result<PerProcess<T>> {
    zeroed_slice::<CacheLine<T>>(processes).map(|cells| PerProcess { cells: cells.as_static() })
}

/// Declares a struct for shared memory: every field's type must be [`ShmSafe`].
///
/// ```
/// use std::sync::atomic::AtomicU64;
///
/// module_api::shm_struct! {
///     /// Counts of a worker.
///     #[derive(Debug)]
///     pub struct Counters {
///         /// Datagrams answered.
///         pub answered: AtomicU64,
///         by_size: [AtomicU64; 4],
///     }
/// }
/// ```
///
/// A type that belongs to one process does not compile:
/// ```compile_fail,E0277
/// module_api::shm_struct! { struct Names { first: String } }
/// ```
#[macro_export]
macro_rules! shm_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field_vis:vis $field:ident : $kind:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name {
            $( $(#[$field_meta])* $field_vis $field: $kind, )*
        }

        // SAFETY: every field is `ShmSafe`, as the bounds say.
        unsafe impl $crate::ShmSafe for $name where $( $kind: $crate::ShmSafe ),* {}
    };
}
