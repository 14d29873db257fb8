//! The allocator's slots: the right to allocate for a process, a journal of what it is doing, and
//! recovery after its death.
//!
//! *Runs in:* every process; recovery in the first process that hears of a death. *Never:* undoes
//! what another process may have done since.
//!
//! Before a process changes something, it records the change in the journal of its slot. The entry
//! and the block together show what is left to do, whatever other processes did meanwhile: only the
//! slot allocates from its spans, and a block is marked before it is freed.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use nix::errno::Errno;

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES};
use super::pages::{LargeBlock, Run};
use super::span::{FREEING, FoundBlock, owned_by};
use super::tables::{AllocatorSlot, FOREIGN_SLOT};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::robust_mutex::{Locked, Patience, RobustMutex};

/// `AllocatorSlot::lock`: another process is stealing the slot's spans.
pub const STEALING: u32 = u32::MAX;
/// `AllocatorSlot::lock` of the foreign slot, which also has a robust mutex.
const FOREIGN: u32 = u32::MAX - 1;

/// `AllocatorSlot::op`: the change that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum JournalOp {
    None = 0,
    Allocate = 1,
    /// `block` is to be freed, and may not be marked yet.
    Free = 2,
    /// `block` is marked and to be freed, if it is not free already.
    Marked = 3,
    /// `block` replaces `other`, which may be marked, or free already.
    Replace = 4,
    /// The slot is taking or releasing spans.
    Exchange = 5,
}

impl AllocatorSlot {
    /// Opens the journal. Its operands are stored already.
    #[inline(always)]
    pub fn begin(&self, op: JournalOp) {
        self.op.store(op as u32, Release);
    }

    /// Closes the journal: the change is complete.
    #[inline(always)]
    pub fn end(&self) {
        self.op.store(JournalOp::None as u32, Release);
    }

    fn open(&self) -> JournalOp {
        match self.op.load(Acquire) {
            1 => JournalOp::Allocate,
            2 => JournalOp::Free,
            3 => JournalOp::Marked,
            4 => JournalOp::Replace,
            5 => JournalOp::Exchange,
            _ => JournalOp::None,
        }
    }
}

/// The right to act for a slot, until it is dropped.
pub struct SlotGuard<'h> {
    pub number: usize,
    pub slot: &'h AllocatorSlot,
    foreign_lock: Option<RobustMutex>,
}

impl Drop for SlotGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.lock.store(0, Release);
        if let Some(lock) = self.foreign_lock
            && let Err(errno) = lock.unlock()
        {
            tracing::error!(target: "fault", "the allocator's lock was not released: {errno}");
        }
    }
}

/// The arena's lock, held until this is dropped.
pub struct ArenaGuard(RobustMutex);

impl Drop for ArenaGuard {
    fn drop(&mut self) {
        if let Err(errno) = self.0.unlock() {
            tracing::error!(target: "fault", "the arena's lock was not released: {errno}");
        }
    }
}

impl Tables {
    /// Takes the arena's lock. If its last holder died, repairs what it left.
    pub fn lock_arena(&self) -> Result<ArenaGuard, Errno> {
        let lock = self.arena_mutex();
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            self.rebuild();
            lock.repaired()?;
        }
        Ok(ArenaGuard(lock))
    }

    /// Takes the right to act for this process's slot, waiting for another thread that has it.
    #[inline(always)]
    pub fn enter(&self) -> Result<SlotGuard<'_>, Errno> {
        let me = this_process();
        let number = me.process_no() as usize;
        match self.slots.get(number) {
            Some(slot) if number < FOREIGN_SLOT => {
                let pid = me.pid() as u32;
                if slot.lock.compare_exchange(0, pid, Acquire, Relaxed).is_err() {
                    self.acquire_slot(slot, pid)?;
                }
                Ok(SlotGuard { number, slot, foreign_lock: None })
            }
            _ => self.enter_as_foreign(),
        }
    }

    /// As `enter`, for the slot that all processes share that the host did not fork.
    #[cold]
    pub fn enter_as_foreign(&self) -> Result<SlotGuard<'_>, Errno> {
        let slot = self.slots.get(FOREIGN_SLOT).ok_or(Errno::EINVAL)?;
        let lock = self.foreign_mutex();
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            self.recover(FOREIGN_SLOT, FOREIGN).inspect_err(|_| {
                let _ = lock.unlock();
            })?;
            lock.repaired()?;
        }
        self.acquire_slot(slot, FOREIGN).inspect_err(|_| {
            let _ = lock.unlock();
        })?;
        Ok(SlotGuard { number: FOREIGN_SLOT, slot, foreign_lock: Some(lock) })
    }

    /// Waits for another thread of this process, or for a process that steals the slot's spans.
    /// Either takes less than a microsecond, unless it is preempted or dies.
    #[cold]
    fn acquire_slot(&self, slot: &AllocatorSlot, own: u32) -> Result<(), Errno> {
        for round in 1_u32.. {
            match slot.lock.compare_exchange_weak(0, own, Acquire, Relaxed) {
                Ok(_) => break,
                // It may have died. Taking the arena's lock repairs that.
                Err(STEALING) if round.is_multiple_of(1000) => drop(self.lock_arena()?),
                Err(_) if round.is_multiple_of(100) => std::thread::yield_now(),
                Err(_) => std::hint::spin_loop(),
            }
        }
        Ok(())
    }

    /// Whether that process was inside the allocator when it died and has not been recovered.
    pub fn needs_recovery(&self, number: usize, pid: u32) -> bool {
        self.slots.get(number).is_some_and(|slot| slot.lock.load(Acquire) == pid)
    }

    /// Recovers the slot of a process that is certainly dead. May be interrupted at any
    /// instruction, and repeated by any process.
    pub fn recover(&self, number: usize, pid: u32) -> Result<(), Errno> {
        if !self.needs_recovery(number, pid) {
            return Ok(());
        }
        let _held = self.lock_arena()?;
        let Some(slot) = self.slots.get(number).filter(|slot| slot.lock.load(Acquire) == pid) else { return Ok(()) };
        let (block, cell) = (slot.block.load(Relaxed) as usize, slot.cell.load(Relaxed) as usize);
        match slot.open() {
            JournalOp::None => {}
            JournalOp::Allocate => {
                let delivered = self.cell(cell).is_some_and(|cell| cell.load(Relaxed) == self.address(block));
                self.end_allocation(number, block, delivered);
            }
            JournalOp::Free => {
                self.mark_freeing(block);
                slot.begin(JournalOp::Marked);
                self.end_free(block, cell);
            }
            JournalOp::Marked => self.end_free(block, cell),
            JournalOp::Replace => {
                self.unmark(slot.other.load(Relaxed) as usize, slot.tag.load(Relaxed) as u8);
                self.end_allocation(number, block, false);
            }
            JournalOp::Exchange => self.release_lost_spans(number),
        }
        slot.end();
        slot.lock.store(0, Release);
        Ok(())
    }

    /// Frees a block that was allocated but not delivered: one in the slot's own span, or a large
    /// one with the slot's number.
    fn end_allocation(&self, number: usize, block: usize, delivered: bool) {
        match self.find_block(block) {
            FoundBlock::Small(place) => {
                if let Some(span) = self.spans.get(place.unit)
                    && span.state.load(Relaxed) == owned_by(number)
                    && !delivered
                {
                    span.bitmap[place.block / 64].fetch_and(!(1 << (place.block % 64)), SeqCst);
                }
            }
            FoundBlock::Large(page, large) if large.slot == number && !delivered => {
                self.set_run(page, Run::None);
                self.return_pages(page, large.pages);
            }
            _ => {}
        }
    }

    /// Marks a block that nobody can have freed since.
    fn mark_freeing(&self, block: usize) {
        match self.find_block(block) {
            FoundBlock::Small(place) => {
                if let Some(span) = self.spans.get(place.unit) {
                    span.tags[place.block].store(FREEING, Relaxed);
                }
            }
            FoundBlock::Large(page, large) => self.set_run(page, Run::Large(LargeBlock { freeing: true, ..large })),
            _ => {}
        }
    }

    /// Frees a block if it still has the mark. Without the mark it was freed before, and may have
    /// been allocated again since.
    fn end_free(&self, block: usize, cell: usize) {
        match self.find_block(block) {
            FoundBlock::Small(place) => {
                if let Some(span) = self.spans.get(place.unit) {
                    if span.is_set(place.block) && span.tags[place.block].load(Relaxed) == FREEING {
                        span.bitmap[place.block / 64].fetch_and(!(1 << (place.block % 64)), SeqCst);
                    }
                    self.relist_or_return(place.unit, self.relist_threshold(&SHAPES[place.class]));
                }
            }
            FoundBlock::Large(page, large) if large.freeing => {
                self.set_run(page, Run::None);
                self.return_pages(page, large.pages);
            }
            _ => {}
        }
        if let Some(cell) = self.cell(cell)
            && cell.load(Relaxed) == self.address(block)
        {
            cell.store(0, Release);
        }
    }

    /// Takes the mark off a block, which stays with its owner.
    fn unmark(&self, block: usize, tag: u8) {
        match self.find_block(block) {
            FoundBlock::Small(place) => {
                if let Some(span) = self.spans.get(place.unit)
                    && span.is_set(place.block)
                    && span.tags[place.block].load(Relaxed) == FREEING
                {
                    span.tags[place.block].store(tag, Relaxed);
                }
                // In case it was freed already.
                self.relist_or_return(place.unit, self.relist_threshold(&SHAPES[place.class]));
            }
            FoundBlock::Large(page, large) if large.freeing => self.set_run(page, Run::Large(LargeBlock { freeing: false, ..large })),
            _ => {}
        }
    }

    #[inline(always)]
    pub fn address(&self, offset: usize) -> u64 {
        (self.start + offset) as u64
    }

    /// The offset of an address in the arena.
    #[inline(always)]
    pub fn offset(&self, address: usize) -> Option<usize> {
        address.checked_sub(self.start).filter(|offset| *offset < self.pages.len() * PAGE_BYTES)
    }
}
