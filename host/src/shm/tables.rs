//! The allocator's state, in its own shared memory: apart from the blocks, so that a module that
//! writes past its block damages other blocks at worst, never this.
//!
//! *Runs in:* every process. *Never:* needs to be initialised: zeros are an arena in which nothing
//! is allocated, and a page that is not needed yet is not touched.
//!
//! The words of the pages, the states and bitmaps of the spans, and the journals of the slots are
//! authoritative. The bitmap of used pages and the lists are derived from them (`Tables::rebuild`).

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::class::{CLASS_COUNT, MAX_BLOCKS};
use crate::process::slots::MAX_PROCESSES;

/// The slot that all processes share that the host did not fork.
pub const FOREIGN_SLOT: usize = MAX_PROCESSES + 1;
pub const SLOTS: usize = FOREIGN_SLOT + 1;
/// Pages of the smallest span. The number of a span is its first page divided by this.
pub const UNIT_PAGES: usize = 4;

/// The state that concerns the whole arena. Changed under the arena's lock.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Global {
    /// One past the last page that was ever in use.
    pub pages_top: AtomicU64,
    pub used_pages: AtomicU64,
    /// The words of the page bitmap before this one have no free page.
    pub first_free: AtomicU64,
    /// The slot, plus 1, whose spans are being stolen; 0 if none.
    pub stealing_from: AtomicU64,
    /// Not 0: memory was exhausted lately, so a full span is listed as soon as one block is free.
    pub low_on_memory: AtomicU64,
    /// When idle memory was last reclaimed, in milliseconds on the monotonic clock.
    pub reclaimed_ms: AtomicU64,
    /// One past the last slot that ever allocated.
    pub slots_top: AtomicU64,
    /// Spans with free blocks that no slot owns, by class.
    pub free_lists: [FreeList; CLASS_COUNT],
}

/// A list of spans, each as its number plus 1; 0 is none.
#[repr(C)]
#[derive(Debug)]
pub struct FreeList {
    pub head: AtomicU32,
    pub tail: AtomicU32,
}

/// The allocator's state for one process, by `process_no`. Written by that process, and by whoever
/// holds `lock` in its place.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AllocatorSlot {
    /// 0: nobody acts for this slot. Otherwise the pid of the process that does, or one of the
    /// constants in `slot.rs`.
    pub lock: AtomicU32,
    /// The journal: a `slot::JournalOp`. The next four fields are its operands.
    pub op: AtomicU32,
    pub block: AtomicU64,
    /// Offset of the cell that holds the block's address, plus 1; 0: none.
    pub cell: AtomicU64,
    /// Offset of the block that is replaced.
    pub other: AtomicU64,
    /// Tag of the block that is replaced.
    pub tag: AtomicU32,
    /// The span that the slot allocates from, plus 1, by class.
    pub current: [AtomicU32; CLASS_COUNT],
}

#[repr(C, align(64))]
#[derive(Debug)]
pub struct Span {
    /// `span::FULL`, `span::LISTED` or the owner.
    pub state: AtomicU32,
    /// In a list: the next span, plus 1.
    pub next: AtomicU32,
    /// In a list: the previous span, plus 1.
    pub previous: AtomicU32,
    /// The word of the bitmap in which the search for a free block begins.
    pub hint: AtomicU32,
    /// A bit is set if the block is allocated or does not exist.
    pub bitmap: [AtomicU64; MAX_BLOCKS / 64],
    /// The owner's tag of each block, written before its bit is set.
    pub tags: [AtomicU8; MAX_BLOCKS],
}

const _: () = assert!(MAX_BLOCKS == UNIT_PAGES * super::class::PAGE_BYTES / super::class::MIN_BLOCK_BYTES);
