//! Spans: runs of pages that are divided into blocks of one class.
//!
//! *Runs in:* every process; changes of a span's owner only under the arena's lock. *Never:* stores
//! anything in the blocks themselves.
//!
//! A span is *owned* by a slot, which alone allocates from it; or *listed*, for the next slot that
//! needs a span of its class; or *full*, and in no list until enough of its blocks are free. Any
//! process may free a block of any span.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES, SpanShape};
use super::pages::{LargeBlock, Placement, Run};
use super::tables::{SLOTS, Span, UNIT_PAGES};

/// `Span::state`: without owner, in no list.
pub const FULL: u32 = 0;
/// `Span::state`: without owner, in the list of its class.
pub const LISTED: u32 = 1;
/// `Span::state`: owned by a slot; this plus the slot.
const OWNED: u32 = 2;
/// `Span::tags`: the block is being freed.
pub const FREEING: u8 = 0xff;

/// The `Span::state` of a span that the slot owns.
#[inline(always)]
pub fn owned_by(slot: usize) -> u32 {
    OWNED + slot as u32
}

/// The slot that owns a span in that state.
pub fn owner(state: u32) -> Option<usize> {
    state.checked_sub(OWNED).map(|slot| slot as usize).filter(|slot| *slot < SLOTS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallBlock {
    pub unit: usize,
    pub class: usize,
    pub block: usize,
}

/// The block or free memory at an offset of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBlock {
    /// The beginning of a block of a span, allocated or not.
    Small(SmallBlock),
    /// The beginning of a large block, with its first page.
    Large(usize, LargeBlock),
    Inside,
    Nothing,
}

impl Span {
    #[inline(always)]
    pub fn is_set(&self, block: usize) -> bool {
        self.bitmap[block / 64].load(Acquire) >> (block % 64) & 1 != 0
    }

    pub fn free_blocks(&self, shape: &SpanShape) -> u32 {
        self.bitmap[..shape.words()].iter().map(|word| word.load(SeqCst).count_zeros()).sum()
    }
}

impl Tables {
    /// The block that begins at an offset of the arena.
    #[inline(always)]
    pub fn find_block(&self, offset: usize) -> FoundBlock {
        let page = offset / PAGE_BYTES;
        for pages in [4, 16] {
            let first = page & !(pages - 1);
            if let Run::Span(class) = self.run(first)
                && SHAPES[class].pages as usize == pages
            {
                let place = SHAPES[class].block_at(offset - first * PAGE_BYTES);
                return place.map_or(FoundBlock::Inside, |block| FoundBlock::Small(SmallBlock { unit: first / UNIT_PAGES, class, block }));
            }
        }
        match self.run(page) {
            Run::Large(large) if offset.is_multiple_of(PAGE_BYTES) => FoundBlock::Large(page, large),
            _ => FoundBlock::Nothing,
        }
    }

    /// Appends a span to the list of its class.
    pub fn push_listed(&self, class: usize, unit: usize) {
        let (list, Some(span)) = (&self.global.free_lists[class], self.spans.get(unit)) else { return };
        let last = list.tail.load(Relaxed);
        span.next.store(0, Relaxed);
        span.previous.store(last, Relaxed);
        match (last as usize).checked_sub(1).and_then(|last| self.spans.get(last)) {
            Some(last) => last.next.store(unit as u32 + 1, Relaxed),
            None => list.head.store(unit as u32 + 1, Relaxed),
        }
        list.tail.store(unit as u32 + 1, Relaxed);
    }

    fn unlink(&self, class: usize, span: &Span) {
        let list = &self.global.free_lists[class];
        let (next, previous) = (span.next.load(Relaxed), span.previous.load(Relaxed));
        match (previous as usize).checked_sub(1).and_then(|previous| self.spans.get(previous)) {
            Some(previous) => previous.next.store(next, Relaxed),
            None => list.head.store(next, Relaxed),
        }
        match (next as usize).checked_sub(1).and_then(|next| self.spans.get(next)) {
            Some(next) => next.previous.store(previous, Relaxed),
            None => list.tail.store(previous, Relaxed),
        }
    }

    /// Takes a span with a free block from the list of its class. The caller changes its state.
    pub fn pop_listed(&self, class: usize) -> Option<usize> {
        let unit = (self.global.free_lists[class].head.load(Relaxed) as usize).checked_sub(1)?;
        self.unlink(class, self.spans.get(unit)?);
        Some(unit)
    }

    /// Makes a span of free pages, owned by the slot.
    pub fn new_span(&self, class: usize, slot: usize) -> Option<usize> {
        let shape = &SHAPES[class];
        let page = self.take_pages(shape.pages as usize, Placement::Aligned)?;
        let unit = page / UNIT_PAGES;
        let span = self.spans.get(unit)?;
        for (index, word) in span.bitmap[..shape.words()].iter().enumerate() {
            word.store(shape.unused_bits(index), Relaxed);
        }
        span.hint.store(0, Relaxed);
        span.state.store(owned_by(slot), Relaxed);
        self.set_run(page, Run::Span(class));
        Some(unit)
    }

    /// Returns the pages of a span without owner if all its blocks are free; lists it if at least
    /// `enough` are. Does nothing with an owned span.
    pub fn relist_or_return(&self, unit: usize, enough: u32) {
        let (Some(span), Run::Span(class)) = (self.spans.get(unit), self.run(unit * UNIT_PAGES)) else { return };
        let (shape, state) = (&SHAPES[class], span.state.load(SeqCst));
        if state != FULL && state != LISTED {
            return;
        }
        let free = span.free_blocks(shape);
        if free == shape.blocks {
            if state == LISTED {
                self.unlink(class, span);
            }
            self.set_run(unit * UNIT_PAGES, Run::None);
            self.return_pages(unit * UNIT_PAGES, shape.pages as usize);
        } else if state == FULL && free >= enough {
            span.state.store(LISTED, SeqCst);
            self.push_listed(class, unit);
        }
    }

    /// Ends a slot's ownership of a span.
    pub fn release_span(&self, unit: usize) {
        let (Some(span), Run::Span(class)) = (self.spans.get(unit), self.run(unit * UNIT_PAGES)) else { return };
        // First the state, then the bitmap. A process that frees a block uses the opposite order,
        // so one of the two sees the other's change.
        span.state.store(FULL, SeqCst);
        self.relist_or_return(unit, self.relist_threshold(&SHAPES[class]));
    }

    /// Number of blocks that must be free before a full span is listed. With one, a span could
    /// change between full and listed at each block.
    #[inline(always)]
    pub fn relist_threshold(&self, shape: &SpanShape) -> u32 {
        if self.global.low_on_memory.load(Relaxed) != 0 { 1 } else { (shape.blocks / 8).clamp(1, 8) }
    }

    /// Completes the stealing of spans, after the process that did it has died.
    pub fn finish_stealing(&self) {
        let Some(victim) = (self.global.stealing_from.load(Relaxed) as usize).checked_sub(1) else { return };
        let Some(slot) = self.slots.get(victim).filter(|slot| slot.lock.load(Relaxed) == super::slot::STEALING) else { return };
        self.release_lost_spans(victim);
        slot.lock.store(0, Release);
        self.global.stealing_from.store(0, Relaxed);
    }

    /// Releases the spans that a slot owns but does not refer to, because an exchange was
    /// interrupted.
    pub fn release_lost_spans(&self, slot: usize) {
        let lost: Vec<usize> = self.runs().filter_map(|(page, run)| self.lost_span(page, run, slot)).collect();
        lost.into_iter().for_each(|unit| self.release_span(unit));
    }

    fn lost_span(&self, page: usize, run: Run, slot: usize) -> Option<usize> {
        let Run::Span(class) = run else { return None };
        let unit = page / UNIT_PAGES;
        let owned = self.spans.get(unit)?.state.load(Relaxed) == owned_by(slot);
        let known = self.slots.get(slot)?.current[class].load(Relaxed) == unit as u32 + 1;
        (owned && !known).then_some(unit)
    }
}
