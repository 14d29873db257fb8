//! Runs of pages, of which spans and large blocks are made. First fit, so that long-lived blocks
//! gather at the low end.
//!
//! *Runs in:* every process, under the arena's lock. *Never:* leaves a run half-changed. A run
//! exists from the store of its first page's word until that word is zero. Everything else is
//! derived from the words, and is rebuilt after a process has died holding the lock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::arena::Tables;
use super::class::SHAPES;
use super::span;
use super::tables::UNIT_PAGES;

const SPAN: u64 = 1;
const LARGE: u64 = 2;
const FREEING: u64 = 1 << 4;

/// The contents of the word of a run's first page. The words of its other pages are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// No run begins here: the page is free, or in the middle of a run.
    None,
    Span(usize),
    Large(LargeBlock),
}

/// A block that is one run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeBlock {
    pub pages: usize,
    /// The owner's tag; see `usage::tag`.
    pub tag: u8,
    pub freeing: bool,
    /// The slot that allocated it. Recovery compares it with the slot whose journal names the
    /// block.
    pub slot: usize,
}

impl Run {
    /// Decodes a word of shared memory.
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        match word & 0xf {
            SPAN => match usize::from((word >> 8) as u8) {
                class if class < SHAPES.len() => Self::Span(class),
                _ => Self::None,
            },
            LARGE => Self::Large(LargeBlock {
                pages: (word >> 16) as u32 as usize,
                tag: (word >> 8) as u8,
                freeing: word & FREEING != 0,
                slot: (word >> 48) as usize,
            }),
            _ => Self::None,
        }
    }

    pub fn word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Span(class) => SPAN | (class as u64) << 8,
            Self::Large(large) => {
                let freeing = if large.freeing { FREEING } else { 0 };
                LARGE | freeing | u64::from(large.tag) << 8 | (large.pages as u64) << 16 | (large.slot as u64) << 48
            }
        }
    }

    pub fn pages(self) -> usize {
        match self {
            Self::None => 0,
            Self::Span(class) => SHAPES[class].pages as usize,
            Self::Large(large) => large.pages,
        }
    }
}

/// Where a run may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Anywhere,
    /// At a multiple of its length, which is 4 or 16 pages.
    Aligned,
}

impl Tables {
    #[inline(always)]
    pub fn run(&self, page: usize) -> Run {
        self.pages.get(page).map_or(Run::None, |word| Run::from_word(word.load(Acquire)))
    }

    /// Creates, changes or ends a run, for all processes at once.
    pub fn set_run(&self, page: usize, run: Run) {
        if let Some(word) = self.pages.get(page) {
            word.store(run.word(), Release);
        }
    }

    /// Finds free pages and marks them as used. Returns the first.
    pub fn take_pages(&self, pages: usize, placement: Placement) -> Option<usize> {
        let start = match placement {
            Placement::Anywhere => self.find(pages),
            Placement::Aligned => self.find_aligned(pages),
        }?;
        self.mark_used(start, pages);
        Some(start)
    }

    pub fn mark_used(&self, start: usize, pages: usize) {
        self.mark(start, pages, true);
        self.global.used_pages.store(self.global.used_pages.load(Relaxed) + pages as u64, Relaxed);
        let end = (start + pages) as u64;
        if self.global.pages_top.load(Relaxed) < end {
            self.global.pages_top.store(end, Release);
        }
    }

    /// Marks pages as free. The word of their run is zero already.
    pub fn return_pages(&self, start: usize, pages: usize) {
        self.mark(start, pages, false);
        self.global.used_pages.store(self.global.used_pages.load(Relaxed).saturating_sub(pages as u64), Relaxed);
        if self.global.first_free.load(Relaxed) > (start / 64) as u64 {
            self.global.first_free.store((start / 64) as u64, Relaxed);
        }
        if self.global.low_on_memory.load(Relaxed) != 0 && self.has_plenty() {
            self.global.low_on_memory.store(0, Relaxed);
        }
    }

    /// Whether more than an eighth of the pages is free.
    pub fn has_plenty(&self) -> bool {
        self.global.used_pages.load(Relaxed) < (self.pages.len() - self.pages.len() / 8) as u64
    }

    /// A word of the page bitmap. Pages past the end of the arena count as used.
    #[inline(always)]
    fn used_word(&self, word: usize) -> u64 {
        let used = self.used.get(word).map_or(!0, |used| used.load(Relaxed));
        let inside = self.pages.len().saturating_sub(word * 64);
        if inside >= 64 { used } else { used | !0 << inside }
    }

    fn find_aligned(&self, pages: usize) -> Option<usize> {
        let words = self.pages.len().div_ceil(64);
        let mut from = self.global.first_free.load(Relaxed) as usize;
        while from < words && self.used_word(from) == !0 {
            from += 1;
        }
        self.global.first_free.store(from as u64, Relaxed);
        (from..words).find_map(|word| {
            let mut free = !self.used_word(word);
            free &= free >> 1;
            free &= free >> 2;
            let mut starts = free & 0x1111_1111_1111_1111;
            if pages > 4 {
                starts &= starts >> 4;
                starts &= starts >> 8;
                starts &= 0x0001_0001_0001_0001;
            }
            (starts != 0).then(|| word * 64 + starts.trailing_zeros() as usize)
        })
    }

    fn find(&self, pages: usize) -> Option<usize> {
        let words = self.pages.len().div_ceil(64);
        let mut start = self.global.first_free.load(Relaxed) as usize * 64;
        loop {
            let (free, end) = self.free_range(start, words)?;
            if end - free >= pages {
                return Some(free);
            }
            start = end;
        }
    }

    /// The first range of free pages at or after a page: its start and end.
    fn free_range(&self, from: usize, words: usize) -> Option<(usize, usize)> {
        let start = self.next_page(from, words, |word| !self.used_word(word))?;
        let end = self.next_page(start, words, |word| self.used_word(word)).unwrap_or(words * 64);
        Some((start, end))
    }

    /// The first page at or after `from` whose bit is set.
    fn next_page(&self, from: usize, words: usize, bits: impl Fn(usize) -> u64) -> Option<usize> {
        let mut word = from / 64;
        if word >= words {
            return None;
        }
        let mut found = bits(word) & !0 << (from % 64);
        while found == 0 {
            word += 1;
            if word == words {
                return None;
            }
            found = bits(word);
        }
        Some(word * 64 + found.trailing_zeros() as usize)
    }

    pub fn all_free(&self, start: usize, pages: usize) -> bool {
        let words = self.pages.len().div_ceil(64);
        start + pages <= self.pages.len() && self.free_range(start, words).is_some_and(|(free, end)| free == start && end - free >= pages)
    }

    fn mark(&self, start: usize, pages: usize, used: bool) {
        let (mut page, end) = (start, start + pages);
        while page < end {
            let bits = (64 - page % 64).min(end - page);
            let mask = if bits == 64 { !0 } else { ((1 << bits) - 1) << (page % 64) };
            if let Some(word) = self.used.get(page / 64) {
                let old = word.load(Relaxed);
                word.store(if used { old | mask } else { old & !mask }, Relaxed);
            }
            page += bits;
        }
    }

    /// Length of the longest range of free pages.
    pub fn longest_free_range(&self) -> usize {
        let words = self.pages.len().div_ceil(64);
        let (mut longest, mut from) = (0, 0);
        while let Some((start, end)) = self.free_range(from, words) {
            longest = longest.max(end.min(self.pages.len()) - start);
            from = end;
        }
        longest
    }

    /// Every run, in order of address. Changes by other processes meanwhile may be missed.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Run)> + '_ {
        let top = (self.global.pages_top.load(Acquire) as usize).min(self.pages.len());
        let mut page = 0;
        std::iter::from_fn(move || {
            while page < top {
                let (at, run) = (page, self.run(page));
                page += run.pages().max(1);
                if run != Run::None {
                    return Some((at, run));
                }
            }
            None
        })
    }

    /// Rebuilds the page bitmap and the lists of spans, after a process has died holding the
    /// arena's lock. May itself be interrupted at any instruction and repeated.
    pub fn rebuild(&self) {
        let top = (self.global.pages_top.load(Relaxed) as usize).min(self.pages.len());
        self.used.iter().take(top.div_ceil(64)).for_each(|word| word.store(0, Relaxed));
        self.global.first_free.store(0, Relaxed);
        for list in &self.global.free_lists {
            list.head.store(0, Relaxed);
            list.tail.store(0, Relaxed);
        }
        let mut used = 0;
        for (page, run) in self.runs() {
            self.mark(page, run.pages(), true);
            used += run.pages() as u64;
            let (Run::Span(class), Some(span)) = (run, self.spans.get(page / UNIT_PAGES)) else { continue };
            let state = span.state.load(Relaxed);
            // The dead process may have been about to list it.
            let forgotten = state == span::FULL && span.free_blocks(&SHAPES[class]) >= self.relist_threshold(&SHAPES[class]);
            if state == span::LISTED || forgotten {
                span.state.store(span::LISTED, Relaxed);
                self.push_listed(class, page / UNIT_PAGES);
            }
        }
        self.global.used_pages.store(used, Relaxed);
        self.finish_stealing();
    }
}
