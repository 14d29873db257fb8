//! Values in shared memory that are allocated and freed while running: a box, a vector, a string.
//!
//! Any process, phase and thread. When a process dies, memory that it alone owned is lost; values
//! in shared structures stay usable.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{Shm, ShmSafe};
use crate::host::host;
use crate::{Error, Result};

fn exhausted(what: &str, bytes: usize) -> Error {
    Error::new(format_args!("no shared memory for {bytes} bytes of {what}; `shared_memory` in the configuration is the limit"))
}

/// Allocates. The host also writes the address to `into`; if that is in shared memory, both happen
/// or neither, even if the process dies.
pub(super) fn allocate(size: usize, align: usize, flags: u32, into: Option<&AtomicU64>) -> Option<NonNull<u8>> {
    let host = host();
    let into = into.map_or(std::ptr::null_mut(), |into| into.as_ptr().cast());
    NonNull::new((host.api.shm_malloc)(host.module, size, align.max(16), flags, into).cast())
}

/// Frees the block whose address is in `from`, if it is not 0.
pub(super) fn free(from: &AtomicU64) {
    let address = from.load(Relaxed);
    if address != 0 {
        let host = host();
        let block = std::ptr::with_exposed_provenance_mut(address as usize);
        if (host.api.shm_free)(host.module, block, from.as_ptr().cast()) != crate::abi::OK {
            tracing::error!("a block of shared memory was not freed");
            from.store(0, Release);
        }
    }
}

/// A value in shared memory with one owner, who can share it with all processes.
///
/// It is freed when it is dropped. If the process dies, it is not dropped, and the memory is lost
/// until main restarts. A value that is to outlive a process belongs in a
/// [`ShmMap`](crate::ShmMap), or in a [`ShmVec`] inside a shared structure.
pub struct ShmBox<T: ShmSafe> {
    value: NonNull<T>,
    owned: PhantomData<T>,
}

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: ShmSafe + Send> Send for ShmBox<T> {}
// SAFETY: as above.
unsafe impl<T: ShmSafe + Sync> Sync for ShmBox<T> {}

impl<T: ShmSafe> ShmBox<T> {
    /// Moves `value` to shared memory.
    ///
    /// # Errors
    /// If shared memory is exhausted.
    pub fn new(value: T) -> Result<ShmBox<T>> {
        let bytes = size_of::<T>().max(1);
        let memory = allocate(bytes, align_of::<T>(), 0, None).ok_or_else(|| exhausted(std::any::type_name::<T>(), bytes))?.cast::<T>();
        // SAFETY: new memory of that size and alignment.
        unsafe { memory.write(value) };
        Ok(ShmBox { value: memory, owned: PhantomData })
    }

    /// Makes the value readable by every process that gets the reference; it is never freed.
    pub fn into_shared(self) -> Shm<T>
    where
        T: Sync,
    {
        let value = std::mem::ManuallyDrop::new(self).value;
        // SAFETY: it is never freed now, and no mutable reference exists.
        Shm { value: unsafe { &*value.as_ptr() } }
    }
}

impl<T: ShmSafe> Deref for ShmBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: owned, and valid until it is dropped.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ShmSafe> DerefMut for ShmBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: owned, and borrowed mutably.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ShmSafe> Drop for ShmBox<T> {
    fn drop(&mut self) {
        // SAFETY: owned, and nothing uses it after the drop.
        unsafe { self.value.drop_in_place() };
        free(&AtomicU64::new(self.value.as_ptr().expose_provenance() as u64));
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for ShmBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A vector whose elements are in shared memory.
///
/// It may itself be there: all zero is an empty vector, so a field of a
/// [`shm_struct!`](crate::shm_struct!) can be a `ShmVec`, under a [`ShmMutex`](crate::ShmMutex). If
/// a process dies while it changes such a vector, the vector is in the state before or after the
/// step: an element is there or is not. A larger block that was to replace the current one is freed
/// when the vector next grows.
///
/// ```
/// # use module_api::prelude::*;
/// module_api::shm_struct! { pub struct Recent { callers: ShmVec<u64> } }
///
/// fn note(recent: &ShmMutex<Recent>, caller: u64) -> Result<()> {
///     recent.lock_or_repair(|_, _| {})?.callers.push(caller)
/// }
/// ```
#[repr(C)]
pub struct ShmVec<T: ShmSafe> {
    /// Address of the block, which has its capacity, then the elements. 0: none.
    block: AtomicU64,
    len: AtomicU64,
    /// Address of a block that is not in use yet.
    next: AtomicU64,
    /// Address of a block that is no longer in use.
    last: AtomicU64,
    elements: PhantomData<T>,
}

// SAFETY: addresses in shared memory, which is at the same address in every process; zeros are an
// empty vector. Without the destructor its blocks stay allocated, which harms nothing else.
unsafe impl<T: ShmSafe> ShmSafe for ShmVec<T> {}

impl<T: ShmSafe> ShmVec<T> {
    /// Offset of the elements in a block, in bytes.
    const OFFSET: usize = size_of::<u64>().next_multiple_of(align_of::<T>());

    /// An empty vector. Takes no memory yet.
    pub const fn new() -> ShmVec<T> {
        ShmVec { block: AtomicU64::new(0), len: AtomicU64::new(0), next: AtomicU64::new(0), last: AtomicU64::new(0), elements: PhantomData }
    }

    /// Number of elements that fit without more memory.
    pub fn capacity(&self) -> usize {
        // SAFETY: a block starts with its capacity.
        self.start().map_or(0, |start| unsafe { *start.cast::<u64>().as_ptr() } as usize)
    }

    /// Makes room for `more` further elements.
    ///
    /// # Errors
    /// If shared memory is exhausted; then nothing has changed.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let wanted = self.len().saturating_add(more);
        if wanted <= self.capacity() {
            return Ok(());
        }
        self.tidy();
        let capacity = wanted.max(self.capacity() * 2).max(4);
        let bytes = capacity.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(Self::OFFSET));
        let fail = || exhausted(std::any::type_name::<T>(), bytes.unwrap_or(usize::MAX));
        let new = allocate(bytes.ok_or_else(fail)?, align_of::<T>(), 0, Some(&self.next)).ok_or_else(fail)?;
        // SAFETY: the new block has room for the capacity and that many elements; both blocks
        // belong to this vector.
        unsafe {
            new.cast::<u64>().write(capacity as u64);
            new.add(Self::OFFSET).cast::<T>().copy_from_nonoverlapping(self.elements(), self.len());
        }
        self.last.store(self.block.load(Relaxed), Release);
        self.block.store(self.next.load(Relaxed), Release);
        self.next.store(0, Release);
        free(&self.last);
        Ok(())
    }

    /// Frees blocks that a process left when it died while the vector grew.
    fn tidy(&mut self) {
        for left in [&self.next, &self.last] {
            if left.load(Relaxed) == self.block.load(Relaxed) {
                left.store(0, Release);
            }
            free(left);
        }
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// If shared memory is exhausted.
    pub fn push(&mut self, value: T) -> Result<()> {
        self.reserve(1)?;
        let len = self.len();
        // SAFETY: `reserve` made room after the last element.
        unsafe { self.elements().add(len).write(value) };
        self.len.store(len as u64 + 1, Release);
        Ok(())
    }

    /// Removes and returns the last element.
    pub fn pop(&mut self) -> Option<T> {
        let len = self.len().checked_sub(1)?;
        self.len.store(len as u64, Release);
        // SAFETY: it was the last element; the shorter length makes it this caller's.
        Some(unsafe { self.elements().add(len).read() })
    }

    /// Appends copies of `values`: all of them or none.
    ///
    /// # Errors
    /// If shared memory is exhausted.
    pub fn extend_from_slice(&mut self, values: &[T]) -> Result<()>
    where
        T: Copy,
    {
        self.reserve(values.len())?;
        let len = self.len();
        // SAFETY: `reserve` made room after the last element.
        unsafe { self.elements().add(len).copy_from_nonoverlapping(NonNull::from(values).cast(), values.len()) };
        self.len.store((len + values.len()) as u64, Release);
        Ok(())
    }

    /// Removes and returns the element at `index`, and moves the last one to its place; none past
    /// the end.
    pub fn swap_remove(&mut self, index: usize) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        if index > last {
            return None;
        }
        self.swap(index, last);
        self.pop()
    }

    /// Shortens it to `len` elements.
    pub fn truncate(&mut self, len: usize) {
        let old = self.len();
        if len < old {
            // First the length: if the process dies below, the worst loss is the memory that the
            // elements own.
            self.len.store(len as u64, Release);
            for index in len..old {
                // SAFETY: it was an element; the shorter length makes it this caller's.
                unsafe { self.elements().add(index).drop_in_place() };
            }
        }
    }

    /// Removes all elements; the memory is kept for later ones.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    fn start(&self) -> Option<NonNull<u8>> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.block.load(Acquire) as usize))
    }

    fn elements(&self) -> NonNull<T> {
        // SAFETY: a block is at least that long.
        self.start().map_or(NonNull::dangling(), |start| unsafe { start.add(Self::OFFSET) }.cast())
    }

    fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }
}

impl<T: ShmSafe> Default for ShmVec<T> {
    fn default() -> ShmVec<T> {
        ShmVec::new()
    }
}

impl<T: ShmSafe> Deref for ShmVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block has that many elements, and none can change while the vector is
        // borrowed.
        unsafe { std::slice::from_raw_parts(self.elements().as_ptr(), self.len()) }
    }
}

impl<T: ShmSafe> DerefMut for ShmVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.elements().as_ptr(), self.len()) }
    }
}

impl<T: ShmSafe> Drop for ShmVec<T> {
    fn drop(&mut self) {
        self.clear();
        self.tidy();
        free(&self.block);
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for ShmVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Text in shared memory: a [`ShmVec`] of UTF-8 bytes, with the same guarantees.
#[repr(transparent)]
#[derive(Default)]
pub struct ShmString {
    bytes: ShmVec<u8>,
}

// SAFETY: as the vector; an empty vector is valid text.
unsafe impl ShmSafe for ShmString {}

impl ShmString {
    /// Empty text. Takes no memory yet.
    pub const fn new() -> ShmString {
        ShmString { bytes: ShmVec::new() }
    }

    /// Appends `text`: all of it or nothing.
    ///
    /// # Errors
    /// If shared memory is exhausted.
    pub fn push_str(&mut self, text: &str) -> Result<()> {
        self.bytes.extend_from_slice(text.as_bytes())
    }

    /// Empties it; the memory is kept for later text.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Deref for ShmString {
    type Target = str;

    fn deref(&self) -> &str {
        // SAFETY: only whole texts are appended, and the length grows after the bytes.
        unsafe { std::str::from_utf8_unchecked(&self.bytes) }
    }
}

impl fmt::Debug for ShmString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for ShmString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}
