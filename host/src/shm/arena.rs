//! The arena: the memory that modules share, and the tables beside it.
//!
//! *Runs in:* made in main before any `init_f`; used in every process. *Never:* gives out memory that lies elsewhere in another process.

use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use module_api::abi;
use nix::errno::Errno;

use super::class::PAGE_BYTES;
use super::heap::{Content, NoBlock, Request, Wrong};
use super::tables::{Global, SLOTS, SlotState, Span, UNIT_PAGES};
use super::usage::{self, Usage};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::sys::memory::mapping::Mapping;
use crate::sys::memory::robust_mutex::RobustMutex;
use crate::sys::process::ended::has_ended;

/// Largest alignment that may be asked for, in bytes.
pub const MAX_ALIGN_BYTES: usize = PAGE_BYTES;

/// The arena of one main.
#[derive(Debug)]
pub struct Arena {
    memory: Mapping,
    tables: Tables,
}

/// Where everything is. The same in every process.
#[derive(Debug)]
pub struct Tables {
    locks: Mapping,
    memory: Mapping,
    /// Address of the first block.
    pub start: usize,
    /// One for all.
    pub global: &'static Global,
    /// By `process_no`.
    pub slots: &'static [SlotState],
    /// What begins at each page.
    pub pages: &'static [AtomicU64],
    /// A bit for each page: it is part of a run.
    pub used: &'static [AtomicU64],
    /// Of the runs that are spans.
    pub spans: &'static [Span],
    /// The blocks, as cells that hold addresses.
    words: &'static [AtomicU64],
}

/// Bytes of the two locks, before everything else.
const LOCKS_BYTES: usize = 2 * size_of::<abi::Mutex>();

impl Tables {
    /// Where each part begins for an arena of so many pages, and where the last one ends. Each has its pages for itself: what one process
    /// needs of one part leaves the others untouched.
    fn parts(pages: usize) -> ([usize; 6], usize) {
        let sizes = [
            LOCKS_BYTES,
            size_of::<Global>(),
            SLOTS * size_of::<SlotState>(),
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
        for lock in [tables.lock(), tables.strangers_lock()] {
            lock.initialise()
                .map_err(|errno| Error::failed("cannot make the arena's locks").detail(format!("pthread_mutex_init: {errno}")))?;
        }
        Ok(tables)
    }

    /// The lock for what concerns more than one slot.
    pub fn lock(&self) -> RobustMutex {
        // SAFETY: the mapping starts with two of them, page-aligned, and stays mapped.
        unsafe { RobustMutex::from_raw(self.locks.start().cast::<abi::Mutex>().as_ptr()) }
    }

    /// The lock of the slot that the host's strangers share.
    pub fn strangers_lock(&self) -> RobustMutex {
        // SAFETY: as above: the second.
        unsafe { RobustMutex::from_raw(self.locks.start().cast::<abi::Mutex>().as_ptr().add(1)) }
    }

    /// The word at an offset, plus 1; none for 0, and outside of the arena.
    #[inline(always)]
    pub fn cell(&self, offset_plus_1: usize) -> Option<&AtomicU64> {
        self.words.get(offset_plus_1.checked_sub(1)? / size_of::<AtomicU64>())
    }

    /// Overwrites a block with zeros.
    pub fn zero(&self, offset: usize, size_bytes: usize) {
        if offset.checked_add(size_bytes).is_some_and(|end| end <= self.memory.size_bytes()) {
            // SAFETY: inside the mapping, as was just checked. The block belongs to the caller, who has not given it to anybody yet.
            unsafe { self.memory.start().add(offset).write_bytes(0, size_bytes) };
        }
    }

    /// Copies one block to another one.
    pub fn copy(&self, from: usize, to: usize, size_bytes: usize) {
        let fits = |offset: usize| offset.checked_add(size_bytes).is_some_and(|end| end <= self.memory.size_bytes());
        if fits(from) && fits(to) {
            // SAFETY: both inside the mapping. They are different blocks; the new one is nobody's yet, and who resizes the old one has it
            // to itself, by the ABI's contract.
            unsafe { self.memory.start().add(from).copy_to_nonoverlapping(self.memory.start().add(to), size_bytes) };
        }
    }
}

/// Part of a mapping as atomics, or structs of nothing else.
fn view<T>(mapping: Mapping, offset: usize, count: usize) -> &'static [T] {
    let end = size_of::<T>().checked_mul(count).and_then(|size| size.checked_add(offset));
    assert!(end.is_some_and(|end| end <= mapping.size_bytes()) && offset.is_multiple_of(align_of::<T>()), "a table lies in its mapping");
    // SAFETY: in bounds and aligned, as was just checked; zeroed when it was mapped; never unmapped. The callers' types consist of atomic
    // integers, so any bits are valid and any process may change them at any time.
    unsafe { std::slice::from_raw_parts(mapping.start().add(offset).cast().as_ptr(), count) }
}

impl Arena {
    /// Size of the tables of an arena of that size.
    pub fn tables_bytes(size_bytes: usize) -> usize {
        Tables::parts(size_bytes / PAGE_BYTES).1
    }

    /// Maps the memory; its pages cost nothing until they are touched.
    pub fn new(size_bytes: usize) -> Result<Self> {
        let memory = Mapping::shared(size_bytes)?;
        Ok(Self { memory, tables: Tables::new(memory)? })
    }

    /// The tables, for tests and for looking at them.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A block for a module, whose address is also written to `into` if that is not null.
    #[inline]
    pub fn allocate(
        &self,
        module: &Module,
        size_bytes: usize,
        align_bytes: usize,
        content: Content,
        into: *mut u8,
    ) -> Result<NonNull<u8>, NoBlock> {
        let request =
            Request { tag: usage::tag(module.index), size_bytes, align_bytes, content, cell: self.cell(into).ok_or(NoBlock::Impossible)? };
        if size_bytes == 0 || !align_bytes.is_power_of_two() || align_bytes > MAX_ALIGN_BYTES {
            return Err(NoBlock::Impossible);
        }
        self.tables.allocate(&request).map(|offset| self.pointer(offset))
    }

    /// Gives a block another size.
    pub fn resize(&self, module: &Module, block: *mut u8, size_bytes: usize) -> Result<Result<NonNull<u8>, NoBlock>, Wrong> {
        let request = Request { tag: usage::tag(module.index), size_bytes, align_bytes: 16, content: Content::Undefined, cell: 0 };
        let resized = self.tables.resize(block as usize, &request)?;
        Ok(resized.map(|offset| self.pointer(offset)))
    }

    /// Frees a block, and writes null to `from` if that is not null.
    #[inline]
    pub fn free(&self, block: *mut u8, from: *mut u8) -> Result<(), Wrong> {
        self.tables.free(block as usize, self.cell(from).ok_or(Wrong::Cell)?)
    }

    /// Cleans up what a dead process left half-done.
    pub fn recover(&self, process_no: usize, pid: i32) -> Result<(), Errno> {
        self.tables.recover(process_no, pid as u32)
    }

    /// Somebody died holding a lock: waits until nothing of what that process was doing in the allocator is open, and sees to it itself
    /// once the process is gone for certain (it may also have been a thread of a process that goes on).
    pub fn settle_death(&self, process_no: i32, pid: i32) {
        let outcome = match usize::try_from(process_no) {
            // It died while taking or releasing the lock, or the host did not fork it: then its slot is put in order by the next to use it.
            Err(_) => self.tables.enter_as_stranger().map(drop),
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

    /// Offset plus 1 of a cell: 0 for null, none for what is no cell in the arena.
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
        // SAFETY: the allocator's offsets lie in the mapping.
        unsafe { self.memory.start().add(offset) }
    }

    /// Whether the whole range lies in the arena.
    #[inline(always)]
    pub fn contains(&self, start: *const u8, size_bytes: usize) -> bool {
        let first = self.memory.start().as_ptr() as usize;
        let start = start as usize;
        start >= first && start.checked_add(size_bytes).is_some_and(|end| end <= first + self.memory.size_bytes())
    }

    /// Who has how much. Walks all of it: for people, and for errors.
    pub fn usage(&self) -> Usage {
        self.tables.usage()
    }
}
