//! The counts of connections per listener and per address, which limits are compared with.
//!
//! *Runs in:* TCP workers; main in no-fork mode. *Never:* leaves a change half done when the
//! process is killed.
//!
//! A connection is counted in one step with its entry, under a robust lock. The holder first saves
//! the words that it is about to change, then changes them. Whoever gets the lock after a death
//! restores the saved words, so a worker can be killed at any instruction
//! (`host/tests/killed_counting.rs`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use nix::errno::Errno;

use super::{ConnectionLimits, Directory, HEAD_WORDS, OPEN, WORKER_WORDS, WORKERS, closed};
use crate::sys::memory::robust_mutex::{Locked, Patience, RobustMutex};

/// Cells for addresses. An address that finds no cell is not counted.
const ADDRESS_CELLS: usize = 1 << 17;
/// How many cells an address may be in, from the one that its hash chooses.
const PROBES: usize = 16;

/// After the lock: the number of saved words, then the place and the value of each. As the memory
/// begins with the lock, no count is at place 0.
const UNDO: usize = RobustMutex::SIZE_BYTES / size_of::<u64>();
const UNDO_WORDS: usize = 1 + 2 * CHANGES_MAX;
const CHANGES_MAX: usize = 3;
const ADDRESSES: usize = (UNDO + UNDO_WORDS).next_multiple_of(HEAD_WORDS);
pub(super) const ADDRESSES_END: usize = ADDRESSES + ADDRESS_CELLS;

impl Directory {
    /// Locks the counts. What the last holder has left half done is undone.
    pub(super) fn lock_counts(&self) -> Result<Counts<'_>, Errno> {
        let lock = RobustMutex::at_start_of(self.memory);
        if let Locked::OwnerDied { .. } = lock.lock(Patience::Wait)? {
            let (count, saved) = self.undo_list();
            for saved in saved.chunks_exact(2).take(count.load(Relaxed) as usize) {
                if let Some(word) = self.words.get(saved[0].load(Relaxed) as usize) {
                    word.store(saved[1].load(Relaxed), SeqCst);
                }
            }
            compiler_fence(SeqCst);
            count.store(0, Relaxed);
            lock.repaired()?;
        }
        Ok(Counts { directory: self, lock })
    }

    fn undo_list(&self) -> (&'static AtomicU64, &'static [AtomicU64]) {
        (&self.words[UNDO], &self.words[UNDO + 1..][..2 * CHANGES_MAX])
    }

    /// The place of an address's cell, and the cell: 32 bits of the address's hash, and a count. A
    /// cell whose count is 0 is free. None: no cell is free, so the address is not counted.
    fn find_address(&self, listener: usize, address: &[u8]) -> Option<(usize, u64)> {
        let hash = hash(self.seed ^ listener as u64, address);
        let (tag, start) = (hash >> 32, hash as usize);
        let mut free = None;
        for probe in 0..PROBES {
            let place = ADDRESSES + start.wrapping_add(probe) % ADDRESS_CELLS;
            let cell = self.words[place].load(Relaxed);
            if cell as u32 == 0 {
                free = free.or(Some((place, tag << 32)));
            } else if cell >> 32 == tag {
                return Some((place, cell));
            }
        }
        free
    }
}

/// New values of words, which are changed all at once.
#[derive(Default)]
struct Changes {
    words: [(usize, u64); CHANGES_MAX],
    count: usize,
}

impl Changes {
    fn add(&mut self, place: usize, value: u64) {
        self.words[self.count] = (place, value);
        self.count += 1;
    }
}

/// The counts, while this process holds their lock.
pub(super) struct Counts<'a> {
    directory: &'a Directory,
    lock: RobustMutex,
}

impl Counts<'_> {
    /// Counts a connection and sets the state of its entry to `opened`. False: a limit is reached.
    pub(super) fn open(
        &self,
        worker: usize,
        slot: usize,
        opened: u64,
        listener: usize,
        address: Option<&[u8]>,
        limits: ConnectionLimits,
    ) -> bool {
        let directory = self.directory;
        let mut changes = Changes::default();
        let mut counted_at = 0;
        if limits.connections > 0 {
            let place = WORKERS + directory.worker_count * WORKER_WORDS + listener;
            let count = directory.words[place].load(Relaxed);
            if count >= u64::from(limits.connections) {
                return false;
            }
            changes.add(place, count + 1);
            counted_at |= (place as u64) << 32;
        }
        if let Some((place, cell)) = address.and_then(|address| directory.find_address(listener, address)) {
            if cell as u32 >= limits.per_address {
                return false;
            }
            changes.add(place, cell + 1);
            counted_at |= place as u64;
        }
        changes.add(Directory::entry_place(worker, slot), opened);
        directory.entry(worker, slot).counted_at.store(counted_at, Relaxed);
        self.change(&changes);
        true
    }

    /// Closes the connection of a slot, if there is one, and stops counting it.
    pub(super) fn close(&self, worker: usize, slot: usize) {
        let entry = self.directory.entry(worker, slot);
        let (state, counted_at) = (entry.state.load(Relaxed), entry.counted_at.load(Relaxed));
        if state & OPEN == 0 {
            return;
        }
        let mut changes = Changes::default();
        for place in [(counted_at >> 32) as usize, counted_at as u32 as usize] {
            if place != 0 {
                changes.add(place, self.directory.words[place].load(Relaxed) - 1);
            }
        }
        changes.add(Directory::entry_place(worker, slot), closed(state));
        self.change(&changes);
    }

    /// Makes all of the changes, or none if this process dies meanwhile. A process is killed
    /// between two instructions, and all before that point have taken effect: it is enough that the
    /// compiler keeps the order.
    fn change(&self, changes: &Changes) {
        let (words, changes) = (self.directory.words, &changes.words[..changes.count]);
        let (count, saved) = self.directory.undo_list();
        for (saved, (place, _)) in saved.chunks_exact(2).zip(changes) {
            saved[0].store(*place as u64, Relaxed);
            saved[1].store(words[*place].load(Relaxed), Relaxed);
        }
        compiler_fence(SeqCst);
        count.store(changes.len() as u64, Relaxed);
        compiler_fence(SeqCst);
        for (place, value) in changes {
            words[*place].store(*value, SeqCst);
        }
        compiler_fence(SeqCst);
        count.store(0, Relaxed);
    }
}

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        if let Err(errno) = self.lock.unlock() {
            tracing::error!(target: "fault", "the lock of limits was not released: {errno}");
        }
    }
}

/// A keyed hash: even enough for a table of counters, and not to be guessed without the seed.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31);
    }
    state ^ (state >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_open_connections_only() {
        let directory = Directory::new(1, 2, 7).unwrap();
        let open = |slot, listener, address: &[u8]| {
            directory.open(0, slot, listener, Some(address), ConnectionLimits { connections: 4, per_address: 2 }).unwrap()
        };
        let first = open(0, 1, b"one").unwrap();
        open(1, 1, b"one").unwrap();
        assert_eq!(open(2, 1, b"one"), None, "two from one address");
        open(2, 1, b"two").unwrap();
        open(3, 1, b"three").unwrap();
        assert_eq!(open(4, 1, b"four"), None, "four in all");
        assert_eq!(directory.load(0), 4);
        open(4, 0, b"one").expect("another listener");
        directory.close(first).unwrap();
        open(0, 1, b"one").unwrap();
        assert_eq!(open(5, 1, b"one"), None);
        // The successor of a worker closes its predecessor's connections.
        directory.adopt(0, 6).unwrap();
        assert_eq!(directory.load(0), 0);
        for slot in 0..2 {
            open(slot, 1, b"one").unwrap();
        }
        assert_eq!(open(2, 1, b"one"), None);
    }

    #[test]
    fn addresses_without_a_cell_are_not_refused() {
        let directory = Directory::new(1, 1, 7).unwrap();
        let limits = ConnectionLimits { connections: 0, per_address: 1 };
        let open = |number: usize| directory.open(0, number, 0, Some(&number.to_le_bytes()), limits).unwrap();
        let ids: Vec<_> = (0..ADDRESS_CELLS + 1000).map(|number| open(number).expect("another address")).collect();
        let again = directory.open(0, ids.len(), 0, Some(&0_usize.to_le_bytes()), limits).unwrap();
        assert!(again.is_none(), "it has a cell, and one connection");
        ids.into_iter().for_each(|id| directory.close(id).unwrap());
        assert!(directory.words[ADDRESSES..ADDRESSES_END].iter().all(|cell| cell.load(Relaxed) as u32 == 0));
    }
}
