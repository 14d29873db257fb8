//! Allocating, freeing and resizing blocks.
//!
//! *Runs in:* every process, phase and thread. *Never:* trusts an address; leaves a block that is
//! neither free nor owned, at whatever instruction it is killed (`host/tests/killed_anywhere.rs`).
//!
//! A small block is a bit in the bitmap of a span. Allocating sets a bit in the slot's own span,
//! freeing clears one in any span; each is one atomic operation. The arena's lock is taken for
//! large blocks, and when a span changes its owner.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use nix::errno::Errno;

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES, class_of};
use super::pages::{LargeBlock, Placement, Run};
use super::slot::{JournalOp, STEALING, SlotGuard};
use super::span::{FREEING, FULL, FoundBlock, LISTED, SmallBlock, owned_by};
use crate::sys::time;

/// Minimum time between two attempts to reclaim idle memory.
const RECLAIM_AGAIN_MS: u64 = 10;

/// The block that a caller wants.
#[derive(Debug, Clone, Copy)]
pub struct AllocRequest {
    /// The owner's tag; see `usage::tag`.
    pub tag: u8,
    /// At least 1.
    pub size_bytes: usize,
    /// A power of two up to the size of a page.
    pub align_bytes: usize,
    pub content: Content,
    /// Offset of the cell that its address is written to, plus 1; 0: none.
    pub cell: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Undefined,
    Zeros,
}

/// Why no block was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocError {
    /// No such block can exist: its size is 0, its alignment exceeds a page, or the cell is outside
    /// the arena.
    Impossible,
    Exhausted,
    /// The arena's lock cannot be taken.
    Broken(Errno),
}

impl From<Errno> for AllocError {
    fn from(errno: Errno) -> Self {
        Self::Broken(errno)
    }
}

/// Why a block cannot be freed or resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The address is outside the arena, or no block is there.
    NotABlock,
    /// The address is in the middle of a block.
    Inside,
    Free,
    /// The cell does not hold the block's address.
    Cell,
    /// The arena's lock cannot be taken.
    Broken(Errno),
}

impl From<Errno> for BlockError {
    fn from(errno: Errno) -> Self {
        Self::Broken(errno)
    }
}

impl Tables {
    /// Allocates a block. Returns its offset.
    #[inline]
    pub fn allocate(&self, request: &AllocRequest) -> Result<usize, AllocError> {
        let entered = self.enter()?;
        let block = self.claim(&entered, request)?;
        self.deliver(&entered, block, request.cell);
        Ok(block)
    }

    /// Takes a block for the slot, and leaves the journal open.
    #[inline(always)]
    fn claim(&self, entered: &SlotGuard<'_>, request: &AllocRequest) -> Result<usize, AllocError> {
        entered.slot.cell.store(request.cell as u64, Relaxed);
        match class_of(request.size_bytes, request.align_bytes) {
            Some(class) => self.claim_small(entered, class, request),
            None => self.claim_large(entered, request),
        }
    }

    /// Writes the block's address to the cell and closes the journal: from here on the caller owns
    /// it.
    #[inline(always)]
    fn deliver(&self, entered: &SlotGuard<'_>, block: usize, cell: usize) {
        if let Some(cell) = self.cell(cell) {
            cell.store(self.address(block), Release);
        }
        entered.slot.end();
    }

    #[inline(always)]
    fn claim_small(&self, entered: &SlotGuard<'_>, class: usize, request: &AllocRequest) -> Result<usize, AllocError> {
        let (slot, shape) = (entered.slot, &SHAPES[class]);
        loop {
            let unit = (slot.current[class].load(Relaxed) as usize).wrapping_sub(1);
            if let Some(span) = self.spans.get(unit) {
                let words = shape.words();
                let hint = span.hint.load(Relaxed) as usize;
                for step in 0..words {
                    let index = if hint + step < words { hint + step } else { (hint + step) % words };
                    let Some(word) = span.bitmap.get(index) else { break };
                    let free = !word.load(Acquire);
                    if free == 0 {
                        continue;
                    }
                    let block = index * 64 + free.trailing_zeros() as usize;
                    let offset = unit * super::tables::UNIT_PAGES * PAGE_BYTES + block * shape.size_bytes as usize;
                    slot.block.store(offset as u64, Relaxed);
                    slot.begin(JournalOp::Allocate);
                    // Nobody else writes the tag of a free block in this span.
                    span.tags[block % span.tags.len()].store(request.tag, Relaxed);
                    word.fetch_or(1 << (block % 64), SeqCst);
                    if step > 0 {
                        span.hint.store(index as u32, Relaxed);
                    }
                    if request.content == Content::Zeros {
                        self.zero(offset, shape.size_bytes as usize);
                    }
                    return Ok(offset);
                }
            }
            self.refill(entered, class)?;
        }
    }

    /// Exchanges the slot's span for one with free blocks.
    #[cold]
    fn refill(&self, entered: &SlotGuard<'_>, class: usize) -> Result<(), AllocError> {
        let _held = self.lock_arena()?;
        if self.global.slots_top.load(Relaxed) <= entered.number as u64 {
            self.global.slots_top.store(entered.number as u64 + 1, Relaxed);
        }
        let slot = entered.slot;
        let old = slot.current[class].load(Relaxed);
        slot.begin(JournalOp::Exchange);
        slot.current[class].store(0, Release);
        if let Some(old) = (old as usize).checked_sub(1) {
            self.release_span(old);
        }
        let found = self.span_for(entered, class).or_else(|| self.reclaim_idle(entered).then(|| self.span_for(entered, class))?);
        if let Some(unit) = found {
            slot.current[class].store(unit as u32 + 1, Release);
        }
        slot.end();
        found.map(|_| ()).ok_or(AllocError::Exhausted)
    }

    fn span_for(&self, entered: &SlotGuard<'_>, class: usize) -> Option<usize> {
        if let Some(unit) = self.pop_listed(class) {
            let span = self.spans.get(unit)?;
            span.hint.store(0, Relaxed);
            span.state.store(owned_by(entered.number), SeqCst);
            return Some(unit);
        }
        self.new_span(class, entered.number)
    }

    #[cold]
    fn claim_large(&self, entered: &SlotGuard<'_>, request: &AllocRequest) -> Result<usize, AllocError> {
        let pages = request.size_bytes.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            return Err(AllocError::Exhausted);
        }
        let held = self.lock_arena()?;
        let fresh = self.global.pages_top.load(Relaxed) as usize;
        let page = self
            .take_pages(pages, Placement::Anywhere)
            .or_else(|| self.reclaim_idle(entered).then(|| self.take_pages(pages, Placement::Anywhere))?);
        let Some(page) = page else {
            // `reclaim_idle` has opened the journal.
            entered.slot.end();
            return Err(AllocError::Exhausted);
        };
        entered.slot.block.store((page * PAGE_BYTES) as u64, Relaxed);
        entered.slot.begin(JournalOp::Allocate);
        self.set_run(page, Run::Large(LargeBlock { pages, tag: request.tag, freeing: false, slot: entered.number }));
        drop(held);
        if request.content == Content::Zeros && page < fresh {
            // Pages that were never in use are zero, and stay untouched.
            self.zero(page * PAGE_BYTES, pages.min(fresh - page) * PAGE_BYTES);
        }
        Ok(page * PAGE_BYTES)
    }

    /// Frees a block. A cell, given as in a request, must hold the block's address, and is cleared.
    #[inline]
    pub fn free(&self, address: usize, cell: usize) -> Result<(), BlockError> {
        let offset = self.offset(address).ok_or(BlockError::NotABlock)?;
        let found = self.find_block(offset);
        if let Some(cell) = self.cell(cell)
            && cell.load(Relaxed) != address as u64
        {
            return Err(BlockError::Cell);
        }
        match found {
            FoundBlock::Small(place) => {
                let entered = self.enter()?;
                self.check_allocated(&place)?;
                self.begin_free(&entered, offset, cell);
                self.release_small(&entered, &place)?;
                self.clear_cell(cell);
                entered.slot.end();
                Ok(())
            }
            FoundBlock::Large(page, large) if !large.freeing => {
                let entered = self.enter()?;
                self.begin_free(&entered, offset, cell);
                self.release_large(&entered, page).inspect_err(|_| entered.slot.end())?;
                self.clear_cell(cell);
                entered.slot.end();
                Ok(())
            }
            FoundBlock::Large(..) => Err(BlockError::Free),
            FoundBlock::Inside => Err(BlockError::Inside),
            FoundBlock::Nothing => Err(BlockError::NotABlock),
        }
    }

    #[inline(always)]
    fn begin_free(&self, entered: &SlotGuard<'_>, offset: usize, cell: usize) {
        entered.slot.block.store(offset as u64, Relaxed);
        entered.slot.cell.store(cell as u64, Relaxed);
        entered.slot.begin(JournalOp::Free);
    }

    #[inline(always)]
    fn clear_cell(&self, cell: usize) {
        if let Some(cell) = self.cell(cell) {
            cell.store(0, Release);
        }
    }

    /// An error unless the block is allocated.
    #[inline(always)]
    fn check_allocated(&self, place: &SmallBlock) -> Result<(), BlockError> {
        let span = self.spans.get(place.unit).ok_or(BlockError::NotABlock)?;
        let freeing = span.tags[place.block].load(Relaxed) == FREEING;
        if !span.is_set(place.block) || freeing { Err(BlockError::Free) } else { Ok(()) }
    }

    /// Frees a block of a span, with the journal open.
    #[inline(always)]
    fn release_small(&self, entered: &SlotGuard<'_>, place: &SmallBlock) -> Result<(), BlockError> {
        let span = self.spans.get(place.unit).ok_or(BlockError::NotABlock)?;
        span.tags[place.block].store(FREEING, Relaxed);
        if entered.slot.op.load(Relaxed) == JournalOp::Free as u32 {
            entered.slot.begin(JournalOp::Marked);
        }
        let (word, bit) = (place.block / 64, 1 << (place.block % 64));
        let left = span.bitmap[word].fetch_and(!bit, SeqCst) & !bit;
        let state = span.state.load(SeqCst);
        if state != FULL && state != LISTED {
            return Ok(());
        }
        let shape = &SHAPES[place.class];
        // Counts one word only: close enough, and most spans have no more.
        let enough = state == FULL && left.count_zeros() >= self.relist_threshold(shape);
        if enough || left == shape.unused_bits(word) && span.free_blocks(shape) == shape.blocks {
            let _held = self.lock_arena()?;
            self.relist_or_return(place.unit, 1);
        }
        Ok(())
    }

    /// Frees a large block, with the journal open.
    #[cold]
    fn release_large(&self, entered: &SlotGuard<'_>, page: usize) -> Result<(), BlockError> {
        let _held = self.lock_arena()?;
        // Read again: under the lock nobody can change it.
        let Run::Large(large) = self.run(page) else { return Err(BlockError::NotABlock) };
        if large.freeing {
            return Err(BlockError::Free);
        }
        self.set_run(page, Run::Large(LargeBlock { freeing: true, ..large }));
        if entered.slot.op.load(Relaxed) == JournalOp::Free as u32 {
            entered.slot.begin(JournalOp::Marked);
        }
        self.set_run(page, Run::None);
        self.return_pages(page, large.pages);
        Ok(())
    }

    /// Changes the size of a block, and returns its offset. `request` describes the new block; its
    /// cell is not used.
    pub fn resize(&self, address: usize, request: &AllocRequest) -> Result<Result<usize, AllocError>, BlockError> {
        let offset = self.offset(address).ok_or(BlockError::NotABlock)?;
        let found = self.find_block(offset);
        let old_bytes = match found {
            FoundBlock::Small(place) => {
                self.check_allocated(&place)?;
                SHAPES[place.class].size_bytes as usize
            }
            FoundBlock::Large(_, large) if !large.freeing => large.pages * PAGE_BYTES,
            FoundBlock::Large(..) => return Err(BlockError::Free),
            FoundBlock::Inside => return Err(BlockError::Inside),
            FoundBlock::Nothing => return Err(BlockError::NotABlock),
        };
        let class = class_of(request.size_bytes, request.align_bytes);
        if matches!(found, FoundBlock::Small(place) if class == Some(place.class)) {
            return Ok(Ok(offset));
        }
        let entered = self.enter()?;
        if let (FoundBlock::Large(page, _), None) = (found, class)
            && self.resize_in_place(page, request.size_bytes.div_ceil(PAGE_BYTES))?
        {
            return Ok(Ok(offset));
        }
        let tag = self.tag_of(&found);
        let block = match self.claim(&entered, &AllocRequest { cell: 0, ..*request }) {
            Ok(block) => block,
            Err(error) => return Ok(Err(error)),
        };
        self.copy(offset, block, old_bytes.min(request.size_bytes));
        entered.slot.other.store(offset as u64, Relaxed);
        entered.slot.tag.store(u32::from(tag), Relaxed);
        entered.slot.begin(JournalOp::Replace);
        match found {
            FoundBlock::Small(place) => self.release_small(&entered, &place)?,
            FoundBlock::Large(page, _) => self.release_large(&entered, page)?,
            FoundBlock::Inside | FoundBlock::Nothing => {}
        }
        self.deliver(&entered, block, 0);
        Ok(Ok(block))
    }

    fn tag_of(&self, found: &FoundBlock) -> u8 {
        match found {
            FoundBlock::Small(place) => self.spans.get(place.unit).map_or(0, |span| span.tags[place.block].load(Relaxed)),
            FoundBlock::Large(_, large) => large.tag,
            FoundBlock::Inside | FoundBlock::Nothing => 0,
        }
    }

    /// Shortens a large block in place, or extends it if the next pages are free. Whether that was
    /// done.
    fn resize_in_place(&self, page: usize, pages: usize) -> Result<bool, BlockError> {
        let _held = self.lock_arena()?;
        let Run::Large(large) = self.run(page) else { return Err(BlockError::NotABlock) };
        if pages < large.pages {
            self.set_run(page, Run::Large(LargeBlock { pages, ..large }));
            self.return_pages(page + pages, large.pages - pages);
        } else if pages > large.pages {
            if !self.all_free(page + large.pages, pages - large.pages) {
                return Ok(false);
            }
            self.mark_used(page + large.pages, pages - large.pages);
            self.set_run(page, Run::Large(LargeBlock { pages, ..large }));
        }
        Ok(true)
    }

    /// Collects idle memory, under the arena's lock, when no free pages were found: takes the spans
    /// of idle slots, returns the pages of empty spans. Whether another search may succeed.
    #[cold]
    fn reclaim_idle(&self, entered: &SlotGuard<'_>) -> bool {
        let now_ms = time::now_ns() / 1_000_000;
        let last_ms = self.global.reclaimed_ms.load(Relaxed);
        if last_ms != 0 && now_ms < last_ms + RECLAIM_AGAIN_MS {
            return false;
        }
        self.global.low_on_memory.store(1, Relaxed);
        entered.slot.begin(JournalOp::Exchange);
        for victim in 0..(self.global.slots_top.load(Relaxed) as usize).min(self.slots.len()) {
            if victim != entered.number {
                self.steal_spans(victim);
            }
        }
        let spans: Vec<usize> = self.runs().filter(|(_, run)| matches!(run, Run::Span(_))).map(|(page, _)| page).collect();
        for page in spans {
            self.relist_or_return(page / super::tables::UNIT_PAGES, 1);
        }
        // The slot's own empty spans, except the one that is being exchanged.
        for (shape, current) in SHAPES.iter().zip(&entered.slot.current) {
            let unit = current.load(Relaxed) as usize;
            if let Some(unit) = unit.checked_sub(1)
                && self.spans.get(unit).is_some_and(|span| span.free_blocks(shape) == shape.blocks)
            {
                current.store(0, Release);
                self.release_span(unit);
            }
        }
        // Much is free, but not in one piece. That is not low memory.
        if self.has_plenty() {
            self.global.low_on_memory.store(0, Relaxed);
        }
        self.global.reclaimed_ms.store(now_ms, Relaxed);
        true
    }

    /// Takes the spans of another slot, unless somebody acts for it at this moment.
    fn steal_spans(&self, victim: usize) {
        let Some(slot) = self.slots.get(victim) else { return };
        if slot.lock.load(Relaxed) != 0 {
            return;
        }
        self.global.stealing_from.store(victim as u64 + 1, SeqCst);
        if slot.lock.compare_exchange(0, STEALING, SeqCst, Relaxed).is_ok() {
            for current in &slot.current {
                if let Some(unit) = (current.swap(0, SeqCst) as usize).checked_sub(1) {
                    self.release_span(unit);
                }
            }
            slot.lock.store(0, SeqCst);
        }
        self.global.stealing_from.store(0, SeqCst);
    }
}
