//! Slots of the allocator: who may allocate on behalf of which process, and what it was doing when it died.
//!
//! *Runs in:* every process; recovery in whoever hears of a death first. *Never:* undoes what another process may have done since.
//!
//! A process that changes something first writes down what, in the journal of its slot. Each entry is made so that what is left to do can
//! be told from it and from the block itself, whatever others did meanwhile: only the slot allocates from its spans, and a block that is
//! being freed is marked before it is free.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use nix::errno::Errno;

use super::arena::Tables;
use super::class::{PAGE_BYTES, SHAPES};
use super::pages::{Large, Run};
use super::span::{FREEING, Found, owned_by};
use super::tables::{STRANGERS, SlotState};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::memory::robust_mutex::{Locked, Patience, RobustMutex};

/// `SlotState::lock`: another process takes the slot's spans.
pub const ROBBER: u32 = u32::MAX;
/// `SlotState::lock` of the strangers' slot, which has a robust lock of its own.
const STRANGER: u32 = u32::MAX - 1;

/// `SlotState::op`: what is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// Nothing.
    None = 0,
    /// `block` is being allocated.
    Allocate = 1,
    /// `block` is to be freed; its mark may be missing.
    Free = 2,
    /// `block` is marked and to be freed, if it is not yet.
    Marked = 3,
    /// `block` is to replace `other`, which may be marked, or be free already.
    Replace = 4,
    /// Spans of the slot are being taken or given up.
    Exchange = 5,
}

impl SlotState {
    /// Writes down what is going to be done. The rest of the entry stands there already.
    #[inline(always)]
    pub fn begin(&self, op: Op) {
        self.op.store(op as u32, Release);
    }

    /// It is done.
    #[inline(always)]
    pub fn end(&self) {
        self.op.store(Op::None as u32, Release);
    }

    fn open(&self) -> Op {
        match self.op.load(Acquire) {
            1 => Op::Allocate,
            2 => Op::Free,
            3 => Op::Marked,
            4 => Op::Replace,
            5 => Op::Exchange,
            _ => Op::None,
        }
    }
}

/// The right to act for a slot.
pub struct Entered<'h> {
    /// The slot's number.
    pub number: usize,
    /// The slot.
    pub slot: &'h SlotState,
    strangers: Option<RobustMutex>,
}

impl Drop for Entered<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.lock.store(0, Release);
        if let Some(lock) = self.strangers
            && let Err(errno) = lock.unlock()
        {
            tracing::error!(target: "fault", "the allocator's lock was not released: {errno}");
        }
    }
}

/// The arena's lock, held.
pub struct Held(RobustMutex);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(errno) = self.0.unlock() {
            tracing::error!(target: "fault", "the arena's lock was not released: {errno}");
        }
    }
}

impl Tables {
    /// Takes the arena's lock. What its last holder left half-done is repaired.
    pub fn hold(&self) -> Result<Held, Errno> {
        let lock = self.lock();
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            self.rebuild();
            lock.repaired()?;
        }
        Ok(Held(lock))
    }

    /// Waits until no other thread acts for this process's slot.
    #[inline(always)]
    pub fn enter(&self) -> Result<Entered<'_>, Errno> {
        let me = this_process();
        let number = me.process_no() as usize;
        match self.slots.get(number) {
            Some(slot) if number < STRANGERS => {
                let pid = me.pid() as u32;
                if slot.lock.compare_exchange(0, pid, Acquire, Relaxed).is_err() {
                    self.wait_for(slot, pid)?;
                }
                Ok(Entered { number, slot, strangers: None })
            }
            _ => self.enter_as_stranger(),
        }
    }

    /// A process that the host did not fork shares a slot with all of its kind.
    #[cold]
    pub fn enter_as_stranger(&self) -> Result<Entered<'_>, Errno> {
        let slot = self.slots.get(STRANGERS).ok_or(Errno::EINVAL)?;
        let lock = self.strangers_lock();
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            self.recover(STRANGERS, STRANGER).inspect_err(|_| {
                let _ = lock.unlock();
            })?;
            lock.repaired()?;
        }
        self.wait_for(slot, STRANGER).inspect_err(|_| {
            let _ = lock.unlock();
        })?;
        Ok(Entered { number: STRANGERS, slot, strangers: Some(lock) })
    }

    /// Another thread of this process is in the allocator, or a robber is; both for less than a microsecond, unless the scheduler or
    /// death comes between.
    #[cold]
    fn wait_for(&self, slot: &SlotState, own: u32) -> Result<(), Errno> {
        for round in 1_u32.. {
            match slot.lock.compare_exchange_weak(0, own, Acquire, Relaxed) {
                Ok(_) => break,
                // It may have died: who takes the arena's lock next repairs that.
                Err(ROBBER) if round.is_multiple_of(1000) => drop(self.hold()?),
                Err(_) if round.is_multiple_of(100) => std::thread::yield_now(),
                Err(_) => std::hint::spin_loop(),
            }
        }
        Ok(())
    }

    /// Whether that process was inside the allocator when it died, and nobody has cleaned up yet.
    pub fn needs_recovery(&self, number: usize, pid: u32) -> bool {
        self.slots.get(number).is_some_and(|slot| slot.lock.load(Acquire) == pid)
    }

    /// Cleans up after a process that is certainly dead. Can be interrupted at any instruction, and done again by anybody.
    pub fn recover(&self, number: usize, pid: u32) -> Result<(), Errno> {
        if !self.needs_recovery(number, pid) {
            return Ok(());
        }
        let _held = self.hold()?;
        let Some(slot) = self.slots.get(number).filter(|slot| slot.lock.load(Acquire) == pid) else { return Ok(()) };
        let (block, cell) = (slot.block.load(Relaxed) as usize, slot.cell.load(Relaxed) as usize);
        match slot.open() {
            Op::None => {}
            Op::Allocate => {
                let delivered = self.cell(cell).is_some_and(|cell| cell.load(Relaxed) == self.address(block));
                self.end_allocation(number, block, delivered);
            }
            Op::Free => {
                self.mark_freeing(block);
                slot.begin(Op::Marked);
                self.end_free(block, cell);
            }
            Op::Marked => self.end_free(block, cell),
            Op::Replace => {
                self.unmark(slot.other.load(Relaxed) as usize, slot.tag.load(Relaxed) as u8);
                self.end_allocation(number, block, false);
            }
            Op::Exchange => self.disown_lost(number),
        }
        slot.end();
        slot.lock.store(0, Release);
        Ok(())
    }

    /// A block of a slot's own span, or a large one that carries the slot's number, is kept if it was delivered.
    fn end_allocation(&self, number: usize, block: usize, delivered: bool) {
        match self.find_block(block) {
            Found::Small(place) => {
                if let Some(span) = self.spans.get(place.unit)
                    && span.state.load(Relaxed) == owned_by(number)
                    && !delivered
                {
                    span.bitmap[place.block / 64].fetch_and(!(1 << (place.block % 64)), SeqCst);
                }
            }
            Found::Large(page, large) if large.slot == number && !delivered => {
                self.set_run(page, Run::None);
                self.return_pages(page, large.pages);
            }
            _ => {}
        }
    }

    /// Marks a block that nobody can have freed.
    pub fn mark_freeing(&self, block: usize) {
        match self.find_block(block) {
            Found::Small(place) => {
                if let Some(span) = self.spans.get(place.unit) {
                    span.tags[place.block].store(FREEING, Relaxed);
                }
            }
            Found::Large(page, large) => self.set_run(page, Run::Large(Large { freeing: true, ..large })),
            _ => {}
        }
    }

    /// Frees a block unless that is done: a block without the mark was freed, and may be somebody else's by now.
    fn end_free(&self, block: usize, cell: usize) {
        match self.find_block(block) {
            Found::Small(place) => {
                if let Some(span) = self.spans.get(place.unit) {
                    if span.is_set(place.block) && span.tags[place.block].load(Relaxed) == FREEING {
                        span.bitmap[place.block / 64].fetch_and(!(1 << (place.block % 64)), SeqCst);
                    }
                    self.settle(place.unit, self.enough(&SHAPES[place.class]));
                }
            }
            Found::Large(page, large) if large.freeing => {
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

    /// A block that was marked stays with its owner after all.
    fn unmark(&self, block: usize, tag: u8) {
        match self.find_block(block) {
            Found::Small(place) => {
                if let Some(span) = self.spans.get(place.unit)
                    && span.is_set(place.block)
                    && span.tags[place.block].load(Relaxed) == FREEING
                {
                    span.tags[place.block].store(tag, Relaxed);
                }
                // If it was freed already.
                self.settle(place.unit, self.enough(&SHAPES[place.class]));
            }
            Found::Large(page, large) if large.freeing => self.set_run(page, Run::Large(Large { freeing: false, ..large })),
            _ => {}
        }
    }

    /// Address of an offset.
    #[inline(always)]
    pub fn address(&self, offset: usize) -> u64 {
        (self.start + offset) as u64
    }

    /// Offset of an address in the arena.
    #[inline(always)]
    pub fn offset(&self, address: usize) -> Option<usize> {
        address.checked_sub(self.start).filter(|offset| *offset < self.pages.len() * PAGE_BYTES)
    }
}
