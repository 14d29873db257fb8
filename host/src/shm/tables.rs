//! What the allocator knows, in shared memory of its own: apart from the blocks, so that a module that writes past its block damages
//! other blocks at worst, never this.
//!
//! *Runs in:* every process. *Never:* needs to be initialised: zeros are an arena in which nothing is allocated, and a page that is
//! not needed yet is not touched.
//!
//! What counts are the words of the pages, the states and bitmaps of the spans, and the journals of the slots. The bitmap of free pages
//! and the lists can be made from them again (`pages::rebuild`).

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::class::{CLASSES, MAX_BLOCKS};
use crate::process::slots::MAX_PROCESSES;

/// The slot that all processes share which the host did not fork.
pub const STRANGERS: usize = MAX_PROCESSES + 1;
/// Number of slots.
pub const SLOTS: usize = STRANGERS + 1;
/// Pages of the smallest span; a span's number is its first page divided by this.
pub const UNIT_PAGES: usize = 4;

/// One for all.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Global {
    /// Behind the last page that ever was in use.
    pub top: AtomicU64,
    /// Pages in use.
    pub used_pages: AtomicU64,
    /// No page is free in any word of the page bitmap before this one.
    pub first_free: AtomicU64,
    /// The slot, plus 1, whose spans are being taken from it; 0 if none.
    pub robbed: AtomicU64,
    /// Not 0: memory was exhausted lately; each free block counts.
    pub pressure: AtomicU64,
    /// When everything was last searched for free memory, in milliseconds.
    pub swept_ms: AtomicU64,
    /// Behind the last slot that ever allocated.
    pub slots_top: AtomicU64,
    /// Spans with free blocks that belong to nobody, by class.
    pub lists: [List; CLASSES],
}

/// A list of spans, each as its number plus 1; 0 is none.
#[repr(C)]
#[derive(Debug)]
pub struct List {
    /// The next one to use.
    pub head: AtomicU32,
    /// The last one.
    pub tail: AtomicU32,
}

/// What one process has, by `process_no`.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SlotState {
    /// 0: nobody is in the allocator on behalf of this slot. Otherwise the pid of who is, or `ROBBER`.
    pub lock: AtomicU32,
    /// `journal::Op`; what follows says what about.
    pub op: AtomicU32,
    /// Offset of the block.
    pub block: AtomicU64,
    /// Offset of the cell that holds the block's address, plus 1; 0: none.
    pub cell: AtomicU64,
    /// Offset of the older block of two.
    pub other: AtomicU64,
    /// Who the older block belongs to.
    pub tag: AtomicU32,
    /// The span to allocate from, plus 1, by class.
    pub current: [AtomicU32; CLASSES],
}

/// A span of blocks of one class.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Span {
    /// `span::FULL`, `LISTED` or the owner.
    pub state: AtomicU32,
    /// In a list.
    pub next: AtomicU32,
    /// In a list.
    pub previous: AtomicU32,
    /// First word of the bitmap to look at.
    pub hint: AtomicU32,
    /// A bit is set: the block is allocated, or there is none.
    pub bitmap: [AtomicU64; MAX_BLOCKS / 64],
    /// Whose each block is; written before the bit is set.
    pub tags: [AtomicU8; MAX_BLOCKS],
}

const _: () = assert!(MAX_BLOCKS == UNIT_PAGES * super::class::PAGE_BYTES / super::class::MIN_BLOCK_BYTES);
