//! How much shared memory each module has, and whether the allocator's state is consistent.
//!
//! *Runs in:* any process; the control process for `modhost shm`. *Never:* keeps running totals:
//! blocks are counted when somebody asks, so that no death can make the sums wrong.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES};
use super::pages::Run;
use super::span::{FREEING, LISTED, owner};
use super::tables::UNIT_PAGES;

/// The tag that modules share for which no tag is left.
const OTHERS: u8 = 0xfe;

/// The tag of a module in the allocator's tables.
#[inline(always)]
pub fn tag(index: u32) -> u8 {
    if index < u32::from(OTHERS) - 1 { index as u8 + 1 } else { OTHERS }
}

/// The blocks of one module.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub blocks: u64,
    /// Their sizes, rounded up to their classes or to pages.
    pub bytes: u64,
}

/// Used and free memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Usage {
    /// By index of the module; None: modules past the 253rd.
    pub shares: BTreeMap<Option<u32>, Share>,
    pub total_bytes: u64,
    /// Bytes in pages that no run has.
    pub free_bytes: u64,
    /// Bytes in free blocks of spans, usable for blocks of their sizes.
    pub spare_bytes: u64,
    /// Size of the largest block that can be allocated.
    pub largest_free_bytes: u64,
}

impl Usage {
    pub fn sum(&self) -> Share {
        self.shares
            .values()
            .fold(Share::default(), |sum, share| Share { blocks: sum.blocks + share.blocks, bytes: sum.bytes + share.bytes })
    }

    /// The module that has most bytes.
    pub fn largest(&self) -> Option<(Option<u32>, Share)> {
        self.shares.iter().max_by_key(|(_, share)| share.bytes).map(|(index, share)| (*index, *share))
    }

    fn add(&mut self, tag: u8, bytes: usize) {
        let index = if tag >= OTHERS { None } else { Some(u32::from(tag.saturating_sub(1))) };
        let share = self.shares.entry(index).or_default();
        share.blocks += 1;
        share.bytes += bytes as u64;
    }
}

impl Tables {
    /// Counts all blocks. Changes by other processes meanwhile may be missed.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { total_bytes: (self.pages.len() * PAGE_BYTES) as u64, ..Usage::default() };
        let mut used_pages = 0;
        for (page, run) in self.runs() {
            used_pages += run.pages();
            match run {
                Run::None => {}
                Run::Large(large) => usage.add(large.tag, large.pages * PAGE_BYTES),
                Run::Span(class) => {
                    let (shape, Some(span)) = (&SHAPES[class], self.spans.get(page / UNIT_PAGES)) else { continue };
                    for block in 0..shape.blocks as usize {
                        if span.is_set(block) {
                            usage.add(span.tags[block].load(Relaxed), shape.size_bytes as usize);
                        } else {
                            usage.spare_bytes += u64::from(shape.size_bytes);
                        }
                    }
                }
            }
        }
        usage.free_bytes = (self.pages.len().saturating_sub(used_pages) * PAGE_BYTES) as u64;
        usage.largest_free_bytes = (self.longest_free_range() * PAGE_BYTES) as u64;
        usage
    }

    /// Compares everything that is recorded twice, while nobody allocates. Returns the differences.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut used = vec![0_u64; self.used.len()];
        let mut listed = vec![Vec::new(); SHAPES.len()];
        let mut end = 0;
        for (page, run) in self.runs() {
            if page < end || page + run.pages() > self.pages.len() {
                wrong.push(format!("the run at page {page} overlaps: {run:?}"));
            }
            end = page + run.pages();
            (page..end.min(self.pages.len())).for_each(|page| used[page / 64] |= 1 << (page % 64));
            match run {
                Run::Span(class) => self.check_span(page, class, &mut listed, &mut wrong),
                Run::Large(large) if large.freeing => wrong.push(format!("the large block at page {page} is being freed")),
                Run::Large(_) | Run::None => {}
            }
        }
        if let Some(word) = (0..used.len()).find(|word| self.used[*word].load(Relaxed) != used[*word]) {
            wrong.push(format!("pages {} and on are not marked as they are used", word * 64));
        }
        let count: u64 = used.iter().map(|word| u64::from(word.count_ones())).sum();
        if self.global.used_pages.load(Relaxed) != count {
            wrong.push(format!("{count} pages are used, {} are counted", self.global.used_pages.load(Relaxed)));
        }
        for (class, expected) in listed.iter_mut().enumerate() {
            let mut found = self.listed(class);
            found.sort_unstable();
            if found != *expected {
                wrong.push(format!("class {class}: spans {found:?} are in the list, {expected:?} should be"));
            }
        }
        for (number, slot) in self.slots.iter().enumerate().take(self.global.slots_top.load(Relaxed) as usize) {
            if slot.lock.load(Relaxed) != 0 || slot.op.load(Relaxed) != 0 {
                wrong.push(format!("slot {number} is in use"));
            }
        }
        wrong
    }

    fn check_span(&self, page: usize, class: usize, listed: &mut [Vec<usize>], wrong: &mut Vec<String>) {
        let (shape, unit) = (&SHAPES[class], page / UNIT_PAGES);
        let span = &self.spans[unit];
        if !page.is_multiple_of(shape.pages as usize) {
            wrong.push(format!("the span at page {page} is not aligned"));
        }
        for word in 0..shape.words() {
            let unused = shape.unused_bits(word);
            if span.bitmap[word].load(Relaxed) & unused != unused {
                wrong.push(format!("span {unit} has more blocks than it can"));
            }
        }
        for block in 0..shape.blocks as usize {
            if span.is_set(block) && matches!(span.tags[block].load(Relaxed), 0 | FREEING) {
                wrong.push(format!("block {block} of span {unit} has no owner"));
            }
        }
        let (state, free) = (span.state.load(Relaxed), span.free_blocks(shape));
        if let Some(slot) = owner(state) {
            if self.slots[slot].current[class].load(Relaxed) != unit as u32 + 1 {
                wrong.push(format!("slot {slot} does not know that it owns span {unit}"));
            }
        } else if state == LISTED {
            listed[class].push(unit);
        } else if free >= self.relist_threshold(shape) * shape.words() as u32 {
            wrong.push(format!("{free} free blocks of span {unit} are forgotten, its state is {state}"));
        }
    }

    fn listed(&self, class: usize) -> Vec<usize> {
        let (list, mut found) = (&self.global.free_lists[class], Vec::new());
        let mut next = list.head.load(Relaxed) as usize;
        while let Some(span) = next.checked_sub(1).and_then(|unit| self.spans.get(unit)) {
            found.push(next - 1);
            next = span.next.load(Relaxed) as usize;
            if found.len() > self.spans.len() {
                break;
            }
        }
        found
    }
}
