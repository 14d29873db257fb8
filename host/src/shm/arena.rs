//! The arena: the memory that modules share, and the allocator's tables.
//!
//! *Runs in:* made in main before any `init_f`; used in every process. *Never:* returns memory that
//! has another address in another process.

use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use module_api::abi;
use nix::errno::Errno;

use super::class::PAGE_BYTES;
use super::heap::{AllocError, AllocRequest, BlockError, Content};
use super::tables::{AllocatorSlot, Global, SLOTS, Span, UNIT_PAGES};
use super::usage::{self, Usage};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::sys::memory::mapping::Mapping;
use crate::sys::memory::robust_mutex::RobustMutex;
use crate::sys::process::ended::has_ended;

pub const MAX_ALIGN_BYTES: usize = PAGE_BYTES;

#[derive(Debug)]
pub struct Arena {
    memory: Mapping,
    tables: Tables,
}

/// The allocator's tables, at the same address in every process.
#[derive(Debug)]
pub struct Tables {
    locks: Mapping,
    memory: Mapping,
    /// Address of the first block.
    pub start: usize,
    pub global: &'static Global,
    /// By `process_no`.
    pub slots: &'static [AllocatorSlot],
    /// One word per page: a `pages::Run`.
    pub pages: &'static [AtomicU64],
    /// One bit per page: set if it is part of a run.
    pub used: &'static [AtomicU64],
    /// By number of the span.
    pub spans: &'static [Span],
    /// The blocks, as words: any of them may be a cell that holds an address.
    words: &'static [AtomicU64],
}

/// Size of the two mutexes, which are the first part of the tables.
const LOCKS_BYTES: usize = 2 * size_of::<abi::Mutex>();

impl Tables {
    /// Where each part begins for an arena of that many pages, and where the last one ends. Each
    /// part starts on a page, so that using one does not touch another.
    fn parts(pages: usize) -> ([usize; 6], usize) {
        let sizes = [
            LOCKS_BYTES,
            size_of::<Global>(),
            SLOTS * size_of::<AllocatorSlot>(),
            pages * size_of::<AtomicU64>(),
            pages.div_ceil(64) * size_of::<AtomicU64>(),
            pages.div_ceil(UNIT_PAGES) * size_of::<Span>(),
        ];
        let mut end = 0;
        let starts = sizes.map(|size| {
            let start = end;
            end += size.next_multiple_of(PAGE_BYTES);
            start
        });
        (starts, end)
    }

    fn new(memory: Mapping) -> Result<Self> {
        let pages = memory.size_bytes() / PAGE_BYTES;
        let (starts, end) = Self::parts(pages);
        let all = Mapping::shared(end)?;
        let tables = Self {
            locks: all,
            memory,
            start: memory.start().as_ptr() as usize,
            global: view::<Global>(all, starts[1], 1).first().ok_or_else(|| Error::fault("the arena has no tables"))?,
            slots: view(all, starts[2], SLOTS),
            pages: view(all, starts[3], pages),
            used: view(all, starts[4], pages.div_ceil(64)),
            spans: view(all, starts[5], pages.div_ceil(UNIT_PAGES)),
            words: memory.words(),
        };
        for lock in [tables.arena_mutex(), tables.foreign_mutex()] {
            lock.initialise()
                .map_err(|errno| Error::failed("cannot make the arena's locks").detail(format!("pthread_mutex_init: {errno}")))?;
        }
        Ok(tables)
    }

    /// The mutex for everything that concerns more than one slot.
    pub fn arena_mutex(&self) -> RobustMutex {
        // SAFETY: the mapping starts with two mutexes, page-aligned, and stays mapped.
        unsafe { RobustMutex::from_raw(self.locks.start().cast::<abi::Mutex>().as_ptr()) }
    }

    /// The mutex of the slot that all processes share that the host did not fork.
    pub fn foreign_mutex(&self) -> RobustMutex {
        // SAFETY: as above; this is the second.
        unsafe { RobustMutex::from_raw(self.locks.start().cast::<abi::Mutex>().as_ptr().add(1)) }
    }

    /// The word at an offset plus 1. None for 0, and outside the arena.
    #[inline(always)]
    pub fn cell(&self, offset_plus_1: usize) -> Option<&AtomicU64> {
        self.words.get(offset_plus_1.checked_sub(1)? / size_of::<AtomicU64>())
    }

    pub fn zero(&self, offset: usize, size_bytes: usize) {
        if offset.checked_add(size_bytes).is_some_and(|end| end <= self.memory.size_bytes()) {
            // SAFETY: inside the mapping, as was just checked. The block is new, so nobody else
            // uses it.
            unsafe { self.memory.start().add(offset).write_bytes(0, size_bytes) };
        }
    }

    pub fn copy(&self, from: usize, to: usize, size_bytes: usize) {
        let fits = |offset: usize| offset.checked_add(size_bytes).is_some_and(|end| end <= self.memory.size_bytes());
        if fits(from) && fits(to) {
            // SAFETY: both inside the mapping. They are different blocks. Nobody else uses the new
            // one, and by the ABI's contract nobody uses the old one while it is resized.
            unsafe { self.memory.start().add(from).copy_to_nonoverlapping(self.memory.start().add(to), size_bytes) };
        }
    }
}

/// Part of a mapping as a slice of atomics, or of structs that consist of atomics.
fn view<T>(mapping: Mapping, offset: usize, count: usize) -> &'static [T] {
    let end = size_of::<T>().checked_mul(count).and_then(|size| size.checked_add(offset));
    assert!(end.is_some_and(|end| end <= mapping.size_bytes()) && offset.is_multiple_of(align_of::<T>()), "a table lies in its mapping");
    // SAFETY: in bounds and aligned, as was just checked; zeroed when it was mapped; never
    // unmapped. The callers' types consist of atomic integers, so any bits are valid and any
    // process may change them at any time.
    unsafe { std::slice::from_raw_parts(mapping.start().add(offset).cast().as_ptr(), count) }
}

impl Arena {
    /// Size of the tables for an arena of that size.
    pub fn tables_bytes(size_bytes: usize) -> usize {
        Tables::parts(size_bytes / PAGE_BYTES).1
    }

    /// Maps the arena. Its pages cost nothing until they are touched.
    pub fn new(size_bytes: usize) -> Result<Self> {
        let memory = Mapping::shared(size_bytes)?;
        Ok(Self { memory, tables: Tables::new(memory)? })
    }

    /// For tests and for `modhost shm`.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Allocates a block for a module. Its address is also written to `into`, unless that is null.
    #[inline]
    pub fn allocate(
        &self,
        module: &Module,
        size_bytes: usize,
        align_bytes: usize,
        content: Content,
        into: *mut u8,
    ) -> Result<NonNull<u8>, AllocError> {
        let request = AllocRequest {
            tag: usage::tag(module.index),
            size_bytes,
            align_bytes,
            content,
            cell: self.cell(into).ok_or(AllocError::Impossible)?,
        };
        if size_bytes == 0 || !align_bytes.is_power_of_two() || align_bytes > MAX_ALIGN_BYTES {
            return Err(AllocError::Impossible);
        }
        self.tables.allocate(&request).map(|offset| self.pointer(offset))
    }

    /// Changes the size of a block, which may move. The outer error is about the old block, the
    /// inner one about the new.
    pub fn resize(&self, module: &Module, block: *mut u8, size_bytes: usize) -> Result<Result<NonNull<u8>, AllocError>, BlockError> {
        let request = AllocRequest { tag: usage::tag(module.index), size_bytes, align_bytes: 16, content: Content::Undefined, cell: 0 };
        let resized = self.tables.resize(block as usize, &request)?;
        Ok(resized.map(|offset| self.pointer(offset)))
    }

    /// Frees a block. Null is written to `from`, unless that is null.
    #[inline]
    pub fn free(&self, block: *mut u8, from: *mut u8) -> Result<(), BlockError> {
        self.tables.free(block as usize, self.cell(from).ok_or(BlockError::Cell)?)
    }

    /// Completes what a dead process left half-done.
    pub fn recover(&self, process_no: usize, pid: i32) -> Result<(), Errno> {
        self.tables.recover(process_no, pid as u32)
    }

    /// After a process died holding a lock: waits until its allocations are complete. If the
    /// process is certainly gone, completes them here; it may also have been one thread of a
    /// process that lives on.
    pub fn settle_death(&self, process_no: i32, pid: i32) {
        let outcome = match usize::try_from(process_no) {
            // It died while taking or releasing the lock, or the host did not fork it. The next
            // process to use the foreign slot recovers it, so use it here.
            Err(_) => self.tables.enter_as_foreign().map(drop),
            Ok(process_no) => {
                while self.tables.needs_recovery(process_no, pid as u32) && !has_ended(pid) {
                    std::thread::yield_now();
                }
                self.recover(process_no, pid)
            }
        };
        if let Err(errno) = outcome {
            tracing::error!(target: "fault", "cannot put the allocator in order: {errno}");
        }
    }

    /// The offset of a cell, plus 1: 0 for null. None if it is no cell in the arena.
    #[inline(always)]
    fn cell(&self, cell: *mut u8) -> Option<usize> {
        if cell.is_null() {
            return Some(0);
        }
        let inside = cell.cast::<u64>().is_aligned() && self.contains(cell, size_of::<u64>());
        inside.then(|| cell as usize - self.tables.start + 1)
    }

    #[inline(always)]
    fn pointer(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.memory.size_bytes());
        // SAFETY: the allocator's offsets are inside the mapping.
        unsafe { self.memory.start().add(offset) }
    }

    /// Whether the whole range is inside the arena.
    #[inline(always)]
    pub fn contains(&self, start: *const u8, size_bytes: usize) -> bool {
        let first = self.memory.start().as_ptr() as usize;
        let start = start as usize;
        start >= first && start.checked_add(size_bytes).is_some_and(|end| end <= first + self.memory.size_bytes())
    }

    /// How much memory each module has. Visits every block, so it is for people and for errors.
    pub fn usage(&self) -> Usage {
        self.tables.usage()
    }
}
