//! Allocating, freeing and resizing blocks.
//!
//! *Runs in:* every process, phase and thread. *Never:* believes an address; leaves a block that is neither free nor somebody's, wherever
//! it is killed.
//!
//! A small block is a bit in the bitmap of a span: the slot's own when it is allocated, any when it is freed. Both are one atomic step.
//! The arena's lock is taken for large blocks, and when a span changes its owner.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use nix::errno::Errno;

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES, class_of};
use super::pages::{Large, Run};
use super::slot::{Entered, Op, ROBBER};
use super::span::{FREEING, FULL, Found, LISTED, Place, owned_by};
use crate::sys::time;

/// After a search of everything that brought nothing, the next one waits so long.
const SWEEP_AGAIN_MS: u64 = 10;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Whose the block will be.
    pub tag: u8,
    /// At least 1.
    pub size_bytes: usize,
    /// A power of two up to the size of a page.
    pub align_bytes: usize,
    /// Whether its bytes are zero.
    pub content: Content,
    /// Offset of the cell to write its address to, plus 1; 0: none.
    pub cell: usize,
}

/// What a new block contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Anything.
    Undefined,
    /// Zeros.
    Zeros,
}

/// Why there is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBlock {
    /// No such block can be: nothing, more than a page aligned, or an address to be written outside of the arena.
    Impossible,
    /// There is no room.
    Exhausted,
    /// The arena's lock cannot be had.
    Broken(Errno),
}

impl From<Errno> for NoBlock {
    fn from(errno: Errno) -> Self {
        Self::Broken(errno)
    }
}

/// Why a block cannot be freed or resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It lies outside of the arena, or where nothing is.
    NotABlock,
    /// In the middle of something.
    Inside,
    /// It is free, or being freed.
    Free,
    /// The cell does not hold it.
    Cell,
    /// The arena's lock cannot be had.
    Broken(Errno),
}

impl From<Errno> for Wrong {
    fn from(errno: Errno) -> Self {
        Self::Broken(errno)
    }
}

impl Tables {
    /// A new block's offset.
    #[inline]
    pub fn allocate(&self, request: &Request) -> Result<usize, NoBlock> {
        let entered = self.enter()?;
        let block = self.claim(&entered, request)?;
        self.hand_out(&entered, block, request.cell);
        Ok(block)
    }

    /// Makes a block the slot's, and leaves the journal open over it.
    #[inline(always)]
    fn claim(&self, entered: &Entered<'_>, request: &Request) -> Result<usize, NoBlock> {
        entered.slot.cell.store(request.cell as u64, Relaxed);
        match class_of(request.size_bytes, request.align_bytes) {
            Some(class) => self.claim_small(entered, class, request),
            None => self.claim_large(entered, request),
        }
    }

    /// The block is somebody's now.
    #[inline(always)]
    fn hand_out(&self, entered: &Entered<'_>, block: usize, cell: usize) {
        if let Some(cell) = self.cell(cell) {
            cell.store(self.address(block), Release);
        }
        entered.slot.end();
    }

    #[inline(always)]
    fn claim_small(&self, entered: &Entered<'_>, class: usize, request: &Request) -> Result<usize, NoBlock> {
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
                    slot.begin(Op::Allocate);
                    // While the block is free nobody else writes this.
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

    /// Gives the slot a span with free blocks.
    #[cold]
    fn refill(&self, entered: &Entered<'_>, class: usize) -> Result<(), NoBlock> {
        let _held = self.hold()?;
        if self.global.slots_top.load(Relaxed) <= entered.number as u64 {
            self.global.slots_top.store(entered.number as u64 + 1, Relaxed);
        }
        let slot = entered.slot;
        let old = slot.current[class].load(Relaxed);
        slot.begin(Op::Exchange);
        slot.current[class].store(0, Release);
        if let Some(old) = (old as usize).checked_sub(1) {
            self.disown(old);
        }
        let found = self.span_for(entered, class).or_else(|| self.sweep(entered).then(|| self.span_for(entered, class))?);
        if let Some(unit) = found {
            slot.current[class].store(unit as u32 + 1, Release);
        }
        slot.end();
        found.map(|_| ()).ok_or(NoBlock::Exhausted)
    }

    fn span_for(&self, entered: &Entered<'_>, class: usize) -> Option<usize> {
        if let Some(unit) = self.pop(class) {
            let span = self.spans.get(unit)?;
            span.hint.store(0, Relaxed);
            span.state.store(owned_by(entered.number), SeqCst);
            return Some(unit);
        }
        self.new_span(class, entered.number)
    }

    #[cold]
    fn claim_large(&self, entered: &Entered<'_>, request: &Request) -> Result<usize, NoBlock> {
        let pages = request.size_bytes.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            return Err(NoBlock::Exhausted);
        }
        let held = self.hold()?;
        let fresh = self.global.top.load(Relaxed) as usize;
        let page = self.take_pages(pages, false).or_else(|| self.sweep(entered).then(|| self.take_pages(pages, false))?);
        let page = page.ok_or(NoBlock::Exhausted)?;
        entered.slot.block.store((page * PAGE_BYTES) as u64, Relaxed);
        entered.slot.begin(Op::Allocate);
        self.set_run(page, Run::Large(Large { pages, tag: request.tag, freeing: false, slot: entered.number }));
        drop(held);
        if request.content == Content::Zeros && page < fresh {
            // What was never in use is zero, and stays untouched.
            self.zero(page * PAGE_BYTES, pages.min(fresh - page) * PAGE_BYTES);
        }
        Ok(page * PAGE_BYTES)
    }

    /// Frees a block. `cell` as in a request: if there is one it must hold the block's address.
    #[inline]
    pub fn free(&self, address: usize, cell: usize) -> Result<(), Wrong> {
        let offset = self.offset(address).ok_or(Wrong::NotABlock)?;
        let found = self.find_block(offset);
        if let Some(cell) = self.cell(cell)
            && cell.load(Relaxed) != address as u64
        {
            return Err(Wrong::Cell);
        }
        match found {
            Found::Small(place) => {
                let entered = self.enter()?;
                self.check_small(&place)?;
                self.begin_free(&entered, offset, cell);
                self.release_small(&entered, &place)?;
                self.end_cell(cell);
                entered.slot.end();
                Ok(())
            }
            Found::Large(page, large) if !large.freeing => {
                let entered = self.enter()?;
                self.begin_free(&entered, offset, cell);
                self.release_large(&entered, page).inspect_err(|_| entered.slot.end())?;
                self.end_cell(cell);
                entered.slot.end();
                Ok(())
            }
            Found::Large(..) => Err(Wrong::Free),
            Found::Inside => Err(Wrong::Inside),
            Found::Nothing => Err(Wrong::NotABlock),
        }
    }

    #[inline(always)]
    fn begin_free(&self, entered: &Entered<'_>, offset: usize, cell: usize) {
        entered.slot.block.store(offset as u64, Relaxed);
        entered.slot.cell.store(cell as u64, Relaxed);
        entered.slot.begin(Op::Free);
    }

    #[inline(always)]
    fn end_cell(&self, cell: usize) {
        if let Some(cell) = self.cell(cell) {
            cell.store(0, Release);
        }
    }

    /// That a block is allocated.
    #[inline(always)]
    fn check_small(&self, place: &Place) -> Result<(), Wrong> {
        let span = self.spans.get(place.unit).ok_or(Wrong::NotABlock)?;
        let freeing = span.tags[place.block].load(Relaxed) == FREEING;
        if !span.is_set(place.block) || freeing { Err(Wrong::Free) } else { Ok(()) }
    }

    /// Frees a block of a span, the journal being open.
    #[inline(always)]
    fn release_small(&self, entered: &Entered<'_>, place: &Place) -> Result<(), Wrong> {
        let span = self.spans.get(place.unit).ok_or(Wrong::NotABlock)?;
        span.tags[place.block].store(FREEING, Relaxed);
        if entered.slot.op.load(Relaxed) == Op::Free as u32 {
            entered.slot.begin(Op::Marked);
        }
        let (word, bit) = (place.block / 64, 1 << (place.block % 64));
        let left = span.bitmap[word].fetch_and(!bit, SeqCst) & !bit;
        let state = span.state.load(SeqCst);
        if state != FULL && state != LISTED {
            return Ok(());
        }
        let shape = &SHAPES[place.class];
        // Of one word only: it is near enough, and all there is in most spans.
        let enough = state == FULL && left.count_zeros() >= self.enough(shape);
        if enough || left == shape.unused_bits(word) && span.free_blocks(shape) == shape.blocks {
            let _held = self.hold()?;
            self.settle(place.unit, 1);
        }
        Ok(())
    }

    /// Frees a large block, the journal being open.
    #[cold]
    fn release_large(&self, entered: &Entered<'_>, page: usize) -> Result<(), Wrong> {
        let _held = self.hold()?;
        // Again, now that nobody can change it.
        let Run::Large(large) = self.run(page) else { return Err(Wrong::NotABlock) };
        if large.freeing {
            return Err(Wrong::Free);
        }
        self.set_run(page, Run::Large(Large { freeing: true, ..large }));
        if entered.slot.op.load(Relaxed) == Op::Free as u32 {
            entered.slot.begin(Op::Marked);
        }
        self.set_run(page, Run::None);
        self.return_pages(page, large.pages);
        Ok(())
    }

    /// Gives a block another size, and returns where it is. `request` describes the new block; its cell is not used.
    pub fn resize(&self, address: usize, request: &Request) -> Result<Result<usize, NoBlock>, Wrong> {
        let offset = self.offset(address).ok_or(Wrong::NotABlock)?;
        let found = self.find_block(offset);
        let old_bytes = match found {
            Found::Small(place) => {
                self.check_small(&place)?;
                SHAPES[place.class].size_bytes as usize
            }
            Found::Large(_, large) if !large.freeing => large.pages * PAGE_BYTES,
            Found::Large(..) => return Err(Wrong::Free),
            Found::Inside => return Err(Wrong::Inside),
            Found::Nothing => return Err(Wrong::NotABlock),
        };
        let class = class_of(request.size_bytes, request.align_bytes);
        if matches!(found, Found::Small(place) if class == Some(place.class)) {
            return Ok(Ok(offset));
        }
        let entered = self.enter()?;
        if let (Found::Large(page, _), None) = (found, class)
            && self.stretch(page, request.size_bytes.div_ceil(PAGE_BYTES))?
        {
            return Ok(Ok(offset));
        }
        let tag = self.tag_of(&found);
        let block = match self.claim(&entered, &Request { cell: 0, ..*request }) {
            Ok(block) => block,
            Err(error) => return Ok(Err(error)),
        };
        self.copy(offset, block, old_bytes.min(request.size_bytes));
        entered.slot.other.store(offset as u64, Relaxed);
        entered.slot.tag.store(u32::from(tag), Relaxed);
        entered.slot.begin(Op::Replace);
        match found {
            Found::Small(place) => self.release_small(&entered, &place)?,
            Found::Large(page, _) => self.release_large(&entered, page)?,
            Found::Inside | Found::Nothing => {}
        }
        self.hand_out(&entered, block, 0);
        Ok(Ok(block))
    }

    fn tag_of(&self, found: &Found) -> u8 {
        match found {
            Found::Small(place) => self.spans.get(place.unit).map_or(0, |span| span.tags[place.block].load(Relaxed)),
            Found::Large(_, large) => large.tag,
            Found::Inside | Found::Nothing => 0,
        }
    }

    /// Makes a large block shorter or longer at its place, if that is possible.
    fn stretch(&self, page: usize, pages: usize) -> Result<bool, Wrong> {
        let _held = self.hold()?;
        let Run::Large(large) = self.run(page) else { return Err(Wrong::NotABlock) };
        if pages < large.pages {
            self.set_run(page, Run::Large(Large { pages, ..large }));
            self.return_pages(page + pages, large.pages - pages);
        } else if pages > large.pages {
            if !self.all_free(page + large.pages, pages - large.pages) {
                return Ok(false);
            }
            self.mark_more(page + large.pages, pages - large.pages);
            self.set_run(page, Run::Large(Large { pages, ..large }));
        }
        Ok(true)
    }

    /// Under the arena's lock, when a run of pages is not to be had: collects what lies idle. Whether it is worth another try.
    #[cold]
    fn sweep(&self, entered: &Entered<'_>) -> bool {
        let now_ms = time::now_ns() / 1_000_000;
        let last_ms = self.global.swept_ms.load(Relaxed);
        if last_ms != 0 && now_ms < last_ms + SWEEP_AGAIN_MS {
            return false;
        }
        self.global.pressure.store(1, Relaxed);
        entered.slot.begin(Op::Exchange);
        for victim in 0..(self.global.slots_top.load(Relaxed) as usize).min(self.slots.len()) {
            if victim != entered.number {
                self.rob(victim);
            }
        }
        let spans: Vec<usize> = self.runs().filter(|(_, run)| matches!(run, Run::Span(_))).map(|(page, _)| page).collect();
        for page in spans {
            self.settle(page / super::tables::UNIT_PAGES, 1);
        }
        // Its own, apart from the one that is being exchanged.
        for (shape, current) in SHAPES.iter().zip(&entered.slot.current) {
            let unit = current.load(Relaxed) as usize;
            if let Some(unit) = unit.checked_sub(1)
                && self.spans.get(unit).is_some_and(|span| span.free_blocks(shape) == shape.blocks)
            {
                current.store(0, Release);
                self.disown(unit);
            }
        }
        // Plenty, but not in one piece: that is no reason to count each block.
        if self.has_plenty() {
            self.global.pressure.store(0, Relaxed);
        }
        self.global.swept_ms.store(now_ms, Relaxed);
        true
    }

    /// Takes the spans of another slot, if nobody is using them at this moment.
    fn rob(&self, victim: usize) {
        let Some(slot) = self.slots.get(victim) else { return };
        if slot.lock.load(Relaxed) != 0 {
            return;
        }
        self.global.robbed.store(victim as u64 + 1, SeqCst);
        if slot.lock.compare_exchange(0, ROBBER, SeqCst, Relaxed).is_ok() {
            for current in &slot.current {
                if let Some(unit) = (current.swap(0, SeqCst) as usize).checked_sub(1) {
                    self.disown(unit);
                }
            }
            slot.lock.store(0, SeqCst);
        }
        self.global.robbed.store(0, SeqCst);
    }
}
