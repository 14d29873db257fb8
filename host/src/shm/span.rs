//! Spans: runs of pages that are cut into blocks of one class.
//!
//! *Runs in:* every process; what changes the owner of a span, under the arena's lock. *Never:* keeps anything in the blocks themselves.
//!
//! A span is *owned* by a slot, which alone allocates from it; or *listed*, for whoever needs one of its class; or *full*, and forgotten
//! until enough of its blocks are free. Everybody may free a block of any span.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::arena::Tables;
use super::class::{Class, PAGE_BYTES, SHAPES};
use super::pages::Run;
use super::tables::{SLOTS, Span, UNIT_PAGES};

/// `Span::state`: nobody's, and in no list.
pub const FULL: u32 = 0;
/// `Span::state`: nobody's, and in the list of its class.
pub const LISTED: u32 = 1;
/// `Span::state` of a span that a slot owns: this plus the slot.
const OWNED: u32 = 2;
/// `Span::tags`: the block is being freed.
pub const FREEING: u8 = 0xff;

/// `Span::state` of a slot's span.
#[inline(always)]
pub fn owned_by(slot: usize) -> u32 {
    OWNED + slot as u32
}

/// The slot that owns a span.
pub fn owner(state: u32) -> Option<usize> {
    state.checked_sub(OWNED).map(|slot| slot as usize).filter(|slot| *slot < SLOTS)
}

/// A block of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The span's number.
    pub unit: usize,
    /// Its class.
    pub class: usize,
    /// Index of the block.
    pub block: usize,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Where a block of a span begins, allocated or not.
    Small(Place),
    /// Where a large block begins.
    Large(usize, super::pages::Large),
    /// In the middle of something.
    Inside,
    /// Nothing allocated is there.
    Nothing,
}

impl Span {
    /// Whether a block is allocated.
    #[inline(always)]
    pub fn is_set(&self, block: usize) -> bool {
        self.bitmap[block / 64].load(Acquire) >> (block % 64) & 1 != 0
    }

    /// How many blocks are free.
    pub fn free_blocks(&self, shape: &Class) -> u32 {
        self.bitmap[..shape.words()].iter().map(|word| word.load(SeqCst).count_zeros()).sum()
    }
}

impl Tables {
    /// What begins at an offset of the arena.
    #[inline(always)]
    pub fn find_block(&self, offset: usize) -> Found {
        let page = offset / PAGE_BYTES;
        for pages in [4, 16] {
            let first = page & !(pages - 1);
            if let Run::Span(class) = self.run(first)
                && SHAPES[class].pages as usize == pages
            {
                let place = SHAPES[class].block_at(offset - first * PAGE_BYTES);
                return place.map_or(Found::Inside, |block| Found::Small(Place { unit: first / UNIT_PAGES, class, block }));
            }
        }
        match self.run(page) {
            Run::Large(large) if offset.is_multiple_of(PAGE_BYTES) => Found::Large(page, large),
            _ => Found::Nothing,
        }
    }

    /// Puts a span at the end of its class's list.
    pub fn push(&self, class: usize, unit: usize) {
        let (list, Some(span)) = (&self.global.lists[class], self.spans.get(unit)) else { return };
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
        let list = &self.global.lists[class];
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

    /// A listed span with a free block. It leaves the list; its state says so only when the caller has changed it.
    pub fn pop(&self, class: usize) -> Option<usize> {
        let unit = (self.global.lists[class].head.load(Relaxed) as usize).checked_sub(1)?;
        self.unlink(class, self.spans.get(unit)?);
        Some(unit)
    }

    /// Takes pages and makes a span of them that belongs to a slot.
    pub fn new_span(&self, class: usize, slot: usize) -> Option<usize> {
        let shape = &SHAPES[class];
        let page = self.take_pages(shape.pages as usize, true)?;
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

    /// Puts a span that is no slot's where it belongs: its pages go back if all its blocks are free, and it is listed if at least `enough`
    /// are. Does nothing with any other span.
    pub fn settle(&self, unit: usize, enough: u32) {
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
            self.push(class, unit);
        }
    }

    /// A span that a slot owned is nobody's now.
    pub fn disown(&self, unit: usize) {
        let (Some(span), Run::Span(class)) = (self.spans.get(unit), self.run(unit * UNIT_PAGES)) else { return };
        // First this, then the look at the bitmap: who frees a block does it the other way round, so one of the two sees the other.
        span.state.store(FULL, SeqCst);
        self.settle(unit, self.enough(&SHAPES[class]));
    }

    /// So many blocks must be free before a full span is listed: else it would go back and forth for each of them.
    #[inline(always)]
    pub fn enough(&self, shape: &Class) -> u32 {
        if self.global.pressure.load(Relaxed) != 0 { 1 } else { (shape.blocks / 8).clamp(1, 8) }
    }

    /// After a robber of spans died: lets go of what it held.
    pub fn finish_robbery(&self) {
        let Some(victim) = (self.global.robbed.load(Relaxed) as usize).checked_sub(1) else { return };
        let Some(slot) = self.slots.get(victim).filter(|slot| slot.lock.load(Relaxed) == super::slot::ROBBER) else { return };
        self.disown_lost(victim);
        slot.lock.store(0, Release);
        self.global.robbed.store(0, Relaxed);
    }

    /// Gives up the spans that a slot owns and does not know of: something was interrupted.
    pub fn disown_lost(&self, slot: usize) {
        let lost: Vec<usize> = self.runs().filter_map(|(page, run)| self.lost_span(page, run, slot)).collect();
        lost.into_iter().for_each(|unit| self.disown(unit));
    }

    fn lost_span(&self, page: usize, run: Run, slot: usize) -> Option<usize> {
        let Run::Span(class) = run else { return None };
        let unit = page / UNIT_PAGES;
        let owned = self.spans.get(unit)?.state.load(Relaxed) == owned_by(slot);
        let known = self.slots.get(slot)?.current[class].load(Relaxed) == unit as u32 + 1;
        (owned && !known).then_some(unit)
    }
}
